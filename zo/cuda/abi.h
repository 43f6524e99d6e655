/* zo/cuda/abi.h -- private: what the plug-in libonebyte_cuda.so offers, and what its kernels take.
 *
 * The plug-in holds what needs nvcc: memory, copies, launches, cuBLAS, and the kernels.  Everything that decides
 * what is launched is plain C in the main binary (zo/cuda, .c files), which links no CUDA and finds the plug-in with dlopen.
 * tests/cuda/ compiles the very same kernels as C and runs their blocks and threads on the CPU behind this table.
 * Pointers in the argument structs are device memory unless said otherwise; sizes are elements.  Every matrix is row-major.
 *
 * One stream: calls return before their work is done, in order; `get` and `sync` wait.  One thread per context. */
#ifndef ZO_CUDA_ABI_H
#define ZO_CUDA_ABI_H
#ifdef __cplusplus
#define _Static_assert static_assert
#endif
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ZO_CUDA_VERSION = 2, /* of this file: the arguments' layouts too */
    ZO_CUDA_THREADS = 256, /* of every block */
    ZO_CUDA_WARP = 32,
    ZO_CUDA_TILE = 128,    /* rows and columns of one block of the rank-1 fold: a Philox block of bits */
    ZO_CUDA_GROUP = 32,    /* records of one coefficient lie in whole groups: one integer MMA deep */
    ZO_CUDA_CHUNK = 64,    /* records that the fold stages at a time: two groups */
    ZO_CUDA_LIST = 16,     /* tensors of one launch that makes words or vectors */
    ZO_CUDA_PARTS = 3,     /* products that share one output row: q, k, v */
    ZO_CUDA_HEAD_DIM = 256,
};

enum zo_cuda_type { ZO_CUDA_BF16, ZO_CUDA_FP16, ZO_CUDA_FP32 };
enum zo_cuda_kind { ZO_CUDA_RANK1, ZO_CUDA_SIGNS, ZO_CUDA_GAUSS }; /* how an element of z is drawn */

static inline size_t zo_cuda_type_bytes(enum zo_cuda_type t)
{
    return t == ZO_CUDA_FP32 ? 4 : 2;
}

/* Records: arrays, padded so that every group has one coefficient; v = 0 in the padding. */
struct zo_cuda_records {
    const uint32_t *key0, *key1, *seq_lo, *seq_hi;
    const int8_t *v;
};

/* The passes of a batch, as arrays. */
struct zo_cuda_passes {
    const uint32_t *key0, *key1, *seq_lo, *seq_hi;
    const float *eps;
    uint32_t n;
};

/* ---- state ---- */

/* out[i * n + r] <- (weighted ? v_r : 1) * sign i of record first + r, i < n_blocks * 128, r < n; both sides of a matrix. */
struct k_expand {
    struct zo_cuda_records r;
    uint32_t first, n; /* n: a multiple of 4 */
    struct {
        uint32_t domain_tensor, n_blocks, weighted;
        int8_t *out;
    } side[2];
};
/* m (rows, cols) -= sum over groups g of coef[g] * sum over its records of a[i][r] b[j][r], mod 2^bits.
 * copy (bits 32; NULL: none) <- the new m * scale in `type`. */
struct k_fold_tile {
    void *m;
    uint32_t bits;
    uint64_t rows, cols;
    const int8_t *a, *b; /* (rows padded to 128, n), (cols padded to 128, n) */
    uint32_t n;          /* a multiple of ZO_CUDA_CHUNK */
    const uint64_t *coef; /* [n / ZO_CUDA_GROUP] */
    void *copy;
    uint32_t type;
    float scale;
};
/* m [n] -= sum over groups of coef[g] * sum of v h; streams of one domain and tensor. */
struct k_fold_dense {
    void *m;
    uint32_t bits, domain_tensor;
    uint64_t n;
    struct zo_cuda_records r;
    uint32_t n_groups;
    const uint64_t *coef;
};
/* out [n] <- entries of a digest vector. */
struct k_entries {
    uint32_t key[2];
    uint32_t domain_tensor;
    uint64_t n;
    uint64_t *out;
};
/* out[block] <- sum over the block's rows i of u_i * sum over j of m_ij w_j, mod p; or, with w NULL, the bitwise or
 * of all |m|. */
struct k_digest {
    const void *m;
    uint32_t bits;
    uint64_t rows, cols;
    const uint64_t *u, *w;
    uint64_t *out; /* [gridDim.x] */
};

/* ---- weights ---- */

/* out [n] <- m * 2^-e in `type`; bits 0: m is float. */
struct k_convert {
    const void *m;
    uint32_t bits, type;
    float scale;
    uint64_t n;
    void *out;
};
/* out [n] <- z of elements first .. of a dense kind along pass `pass`, exact in every type. */
struct k_dense {
    struct zo_cuda_passes p;
    uint32_t pass, kind, domain_tensor, type;
    uint64_t first, n;
    void *out;
};
/* out[pass * 4 n_blocks + w] <- words of the pass's stream, for each tensor of the list. */
struct k_words {
    struct zo_cuda_passes p;
    uint32_t n_items;
    struct {
        uint32_t domain_tensor, n_blocks;
        uint32_t *out;
    } item[ZO_CUDA_LIST];
};
/* out[pass * n + j] <- vector element j as the pass sees it. */
struct k_vectors {
    struct zo_cuda_passes p;
    uint32_t n_items, kind;
    struct {
        const void *m;
        uint32_t bits; /* 0: float, not trained: no direction */
        uint32_t domain_tensor;
        float scale;
        uint32_t n;
        float *out;
    } item[ZO_CUDA_LIST];
};

/* ---- forward ---- */

/* x[r] <- (or +=) scale * (W[row] + eps z[row]) */
struct k_embed {
    struct zo_cuda_passes p;
    const uint32_t *row_pass, *index; /* [n_rows]; index NULL: row 0 */
    uint32_t n_rows, index_offset, kind, tensor, add;
    const void *m;
    uint32_t bits, type; /* bits 0: m is `type` */
    float weight_scale, scale;
    uint64_t cols;
    float *x;
};
/* One product's share of an output row: what is added to it besides x W^T. */
struct k_part {
    uint32_t col0, n;
    const float *bias;   /* (passes, n) or NULL */
    const uint32_t *out; /* (passes, words): signs of the output's side; NULL: no rank-1 term */
    uint32_t words;
    const float *dots;   /* [n_rows] */
};
/* dots[j * n_rows + r] <- scale * eps * sum of x[r][i] sign_j(i) */
struct k_dots {
    struct zo_cuda_passes p;
    const uint32_t *row_pass;
    uint32_t n_rows, n, type, n_signs;
    uint64_t ldx;
    const void *x;
    const uint32_t *signs[ZO_CUDA_PARTS]; /* (passes, words) */
    uint32_t words;
    float scale;
    float *dots;
};
/* y <- y + bias + rank-1; then into x (added or not) or a copy in `type`, or in place. */
struct k_finish {
    const uint32_t *row_pass;
    uint32_t n_rows, n_parts, type, add;
    struct k_part part[ZO_CUDA_PARTS];
    float *y;
    uint64_t ldy;
    float *x;    /* NULL: y itself */
    uint64_t ldx;
    void *copy;  /* NULL: none */
    uint64_t ldc;
};
/* norm of rows: src[gather[r]] -> dst (or dst += with add) and copy in `type`; w NULL: only the copy. */
struct k_norm {
    const uint32_t *row_pass, *gather; /* gather NULL: r itself */
    uint32_t n_rows, d, norm, type, add; /* norm: 0 rms, 1 rms with 1 + w, 2 layer */
    float eps;
    const float *src, *w, *b; /* w, b: (passes, d) */
    float *dst;
    void *copy;
};
/* out <- act(y [0, ffn)) * y [ffn, 2 ffn) after finishing y. */
struct k_act {
    const uint32_t *row_pass;
    uint32_t n_rows, ffn, gated, act, type, n_parts;
    struct k_part part[ZO_CUDA_PARTS];
    const float *y;
    uint64_t ldy;
    void *out;    /* (n_rows, ffn) in `type`, or NULL */
    float *out32; /* the same in float, or NULL */
};
/* q, k, v in place: finishing, norm per head, rotation. */
struct k_rotate {
    const uint32_t *row_pass, *positions;
    uint32_t n_rows, heads, kv_heads, head_dim, half, by_head, norm, n_parts;
    struct k_part part[ZO_CUDA_PARTS];
    float eps;
    const float *q_norm, *k_norm; /* (passes, head_dim) or NULL */
    const float *rope;            /* (positions, 2, half) or NULL */
    float *qkv;
    uint64_t width;
};
struct k_attend_item {
    uint32_t row0, shared_row0, shared, n, q0; /* one sequence, queries from q0 on */
};
struct k_attend {
    const struct k_attend_item *items;
    uint32_t n_items, heads, kv_heads, head_dim, by_head, causal, window, type;
    float scale, cap;
    const float *qkv;
    uint64_t width;
    void *out; /* (rows, heads * head_dim) in `type` */
};
/* A chunk of the vocabulary: logits [n_rows][n] finished, capped and taken into (max, sum); the target's kept. */
struct k_head {
    const uint32_t *row_pass, *ids;
    uint32_t n_rows, col0, n, first;
    float cap;
    struct k_part part; /* of the whole vocabulary: columns from col0 on are read */
    const float *logits;
    float *max, *target; /* [n_rows] */
    double *sum;
};

#define ZO_CUDA_KERNELS(X)                                                                                     \
    X(expand) X(fold_tile) X(fold_tile64) X(fold_signs) X(fold_gauss) X(entries) X(digest) X(convert) X(dense) \
    X(words) X(vectors) X(embed) X(dots) X(finish) X(norm) X(act) X(rotate)                                    \
    X(attend_64_4) X(attend_64_8) X(attend_32_8) X(attend_32_16) X(attend_16_16)                                    \
    X(attend_mma_64) X(attend_mma_128) X(head)
#define X(name) ZO_CUDA_K_##name,
enum zo_cuda_kernel { ZO_CUDA_KERNELS(X) ZO_CUDA_N_KERNELS };
#undef X

/* y (rows, n_out) <- alpha x W^T + beta y, summed in FP32; W as stored: (n_out, n_in), or (n_in, n_out) if transposed. */
struct zo_cuda_gemm {
    uint32_t type, transposed;
    uint64_t rows, n_in, n_out, ldx, ldw, ldy;
    float alpha, beta;
    const void *x, *w;
    float *y;
};

struct zo_cuda_info {
    char name[128];
    uint32_t major, minor, processors, shared_max; /* shared_max: bytes one block may take */
    uint64_t memory;
};

/* Errors: ERR_NOMEM (the device's memory), ERR_DEVICE (anything else: the context is lost, `error` says why). */
struct zo_cuda_api {
    uint32_t version, bytes; /* ZO_CUDA_VERSION, sizeof(struct zo_cuda_api) */
    enum err (*open)(void **ctx, uint32_t index, struct zo_cuda_info *info, struct err_why *why);
    void (*close)(void *ctx);
    const char *(*error)(const void *ctx);
    enum err (*available)(void *ctx, uint64_t *bytes);
    enum err (*alloc)(void *ctx, void **p, uint64_t bytes);
    void (*free)(void *ctx, void *p); /* NULL is fine */
    enum err (*put)(void *ctx, void *to, const void *host, uint64_t bytes); /* host may be reused at once */
    enum err (*get)(void *ctx, void *host, const void *from, uint64_t bytes);
    enum err (*launch)(void *ctx, enum zo_cuda_kernel k, uint32_t grid_x, uint32_t grid_y, uint32_t shared_bytes,
                       const void *args);
    enum err (*gemm)(void *ctx, const struct zo_cuda_gemm *g);
    enum err (*sync)(void *ctx);
    /* Between record and play launches and products are only noted down, and no other call is made; play runs them as one graph,
     * or (run false) forgets them.  ERR_UNSUPPORTED, from any of these: nothing was or will be run, ask one by one. */
    enum err (*record)(void *ctx);
    enum err (*play)(void *ctx, bool run);
};
/* The plug-in's one exported symbol. */
#define ZO_CUDA_SYMBOL "onebyte_cuda_api"
#ifdef __cplusplus
extern "C"
#endif
    const struct zo_cuda_api *
    onebyte_cuda_api(void);
#endif
