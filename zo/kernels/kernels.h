/* zo/kernels/kernels.h -- private: one table per instruction set, all bit-identical to `ref`.
 *
 * The callers (zo/fold.c, zo/digest.c, zo/direction.c) cut the work so that every bound below
 * holds; a kernel never allocates and never sees a thread.  tests/zo/test_kernels.c compares each
 * variant with ref. */
#ifndef ZO_KERNELS_KERNELS_H
#define ZO_KERNELS_KERNELS_H
#include "zo/modp.h"

#include <onebyte/zo/philox.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ZO_TILE_ROWS = 256,    /* of a matrix tile: 256 x 768 int32 stay in L2 while all records pass */
    ZO_TILE_COLS = 768,    /* a multiple of 128: the tile's bits start at a block of their stream */
    ZO_TILE_RECORDS = 720, /* records per product: their packed factors stay in L2 */
    ZO_TILE_WEIGHT = 32767, /* most sum |v| per product: every partial sum fits int16 */
    ZO_DENSE_CHUNK =
        2048, /* elements of a dense direction at a time: 16 blocks of signs, 1024 of gauss */
    ZO_DENSE_RECORDS = 128, /* most records per call of fold_signs, fold_gauss: |sum| < 2^20 */
    ZO_LIMBS = 2048,        /* entries per dot: 2^31 * 2^21 * 2^11 = 2^63, strictly not reached */
};

/* Records as arrays, so that a vector lane is a record. */
struct zo_records {
    const uint32_t *key0, *key1, *seq_lo, *seq_hi;
    const int8_t *v; /* -127..127 */
};

/* One product: m (rows, stride) -= coef * sum over r < n of v_r a_r b_r^T, mod 2^bits. */
struct zo_tile {
    void *m;
    size_t stride; /* elements between rows of m */
    uint32_t bits; /* 32 or 64 */
    size_t rows, cols;
    const uint32_t *a, *b; /* bits of row i: a[i / 32 * ld + r]; of column j: b[j / 32 * ld + r] */
    size_t ld;             /* >= n rounded up to 16; readable to there */
    const int8_t *v;       /* [n] */
    size_t n;              /* 1..ZO_TILE_RECORDS */
    uint64_t coef;
    void *scratch; /* zo_kernels.tile_scratch bytes, 64-byte aligned */
};

/* u or w of a digest, in 21-bit limbs: entry i is l[0][i] + 2^21 l[1][i] + 2^42 l[2][i].  Kernels
 * take the address of an entry's first limb; the others follow at ZO_LIMBS and 2 ZO_LIMBS words. */
struct zo_limbs {
    uint32_t l[3][ZO_LIMBS];
};

struct zo_kernels {
    const char *name;
    bool (*usable)(void); /* asks the CPU; cheap */
    size_t tile_scratch;

    /* out [4 n_blocks] <- the stream's words from word 4 first_block on. */
    void (*words)(uint32_t *out, const struct zo_stream *s, uint32_t first_block, size_t n_blocks);
    /* out[(4 block + word) * ld + r] <- blocks first_block .. of the streams of records first ..
     * first + n - 1. n <= ld; ld a multiple of 16 and the record arrays readable to first + ld. */
    void (*record_words)(uint32_t *out, size_t ld, const struct zo_records *r, size_t first,
                         size_t n, uint32_t domain_tensor, uint32_t first_block, size_t n_blocks);
    /* out [n] <- (or += with add) scale * sign of bit i of words. */
    void (*signs_f32)(float *out, const uint32_t *words, size_t n, float scale, bool add);
    /* out [n] <- (or +=) scale * h / 4 of words 2i, 2i + 1. */
    void (*gauss_f32)(float *out, const uint32_t *words, size_t n, float scale, bool add);

    void (*fold_tile)(const struct zo_tile *t);
    /* acc [ZO_DENSE_CHUNK] += sum of v h over records first .. first + n - 1 (n <=
     * ZO_DENSE_RECORDS), for the chunk's elements, which start at first_block of their streams. */
    void (*fold_signs)(int32_t *acc, const struct zo_records *r, size_t first, size_t n,
                       uint32_t domain_tensor, uint32_t first_block);
    void (*fold_gauss)(int32_t *acc, const struct zo_records *r, size_t first, size_t n,
                       uint32_t domain_tensor, uint32_t first_block);
    /* m [n] -= coef * acc, mod 2^bits. */
    void (*apply32)(uint32_t *m, const int32_t *acc, size_t n, uint32_t coef);
    void (*apply64)(uint64_t *m, const int32_t *acc, size_t n, uint64_t coef);

    /* sum of m_i x_i mod p, n <= ZO_LIMBS. */
    uint64_t (*dot32)(const int32_t *m, const uint32_t *x, size_t n);
    /* sum of x_i mod p where bit i of words is set. */
    uint64_t (*dot_bits)(const uint32_t *words, const uint32_t *x, size_t n);
};

extern const struct zo_kernels zo_kernels_ref;
#if defined(__x86_64__)
extern const struct zo_kernels zo_kernels_avx2, zo_kernels_avx512;
#endif

/* s0 + 2^21 s1 + 2^42 s2 mod p: what the limb sums of dot32 and dot_bits mean. */
static inline uint64_t zo_join_limbs(int64_t s0, int64_t s1, int64_t s2)
{
    uint64_t x = zo_signed_p(s0);
    x = zo_add_p(x, zo_mul_p(zo_signed_p(s1), UINT64_C(1) << 21));
    return zo_add_p(x, zo_mul_p(zo_signed_p(s2), UINT64_C(1) << 42));
}
#endif
