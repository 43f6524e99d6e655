/* zo/model/gemm.h -- matrix products on packed weights (private to zo/model): one table per
 * instruction set.
 *
 * y (rows, n) = x (rows, k) W^T.  W is packed first, converted from the state's integers on the way:
 * panels of adjacent outputs, in the order in which the product reads them, stay in L2 while all
 * rows pass.
 *
 * Source    Goto & van de Geijn, "Anatomy of high-performance matrix multiplication", TOMS 34
 *           (2008).
 * Variants  avx2 and avx512 share gemm_body.h; ref calls OpenBLAS on a plain float copy.  They
 *           differ by rounding only: each entry of y is one sum of k products, |error| <= k 2^-24
 *           sum |x w|.
 * Measured  bench/RESULTS.md, by bench/bench_gemm.c.
 * Threads   any.      Memory  none allocated. */
#ifndef ZO_MODEL_GEMM_H
#define ZO_MODEL_GEMM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ZO_GEMM_K = 768,    /* most inputs of one product: eight rows of x stay in L1 */
    ZO_GEMM_COLS = 192, /* outputs that are best packed at a time, a multiple of every panel's
                           width: with ZO_GEMM_K inputs they take half of a 1 MB L2 */
    ZO_GEMM_PAD = 16,   /* packing fills the outputs up to a multiple of this with zeros */
};

/* W, stored (n, k), or (k, n) where transposed; ld elements from row to row. */
struct zo_matrix {
    const void *at; /* int32 or float */
    size_t ld;
    float scale; /* W = what is stored times this; a power of two for integers */
    bool ints, transposed;
};

/* Memory that will be read soon: `rows` rows, ld bytes apart.  A product asks for some of them and
 * takes these off. */
struct zo_ahead {
    const uint8_t *at;
    size_t ld, rows;
};

/* What a product is added to: row r starts as scale[r] factor[r] + bias[r], each with at least n
 * entries, readable up to a multiple of ZO_GEMM_PAD.  scale and factor, or bias, may be NULL:
 * nothing. */
struct zo_start {
    const float *scale, *const *factor, *const *bias;
};

struct zo_gemm {
    /* panels [zo_gemm_floats(n, k)] <- W (n, k), k <= ZO_GEMM_K. */
    void (*pack)(float *panels, const struct zo_matrix *w, size_t n, size_t k);
    /* y (rows, n) <- (add ? y : 0) + start + x W^T over the first k of the `stride` inputs that
     * were packed.  n: all outputs that were packed, or a multiple of `panel` of them.  start and
     * ahead may be NULL. */
    void (*mul)(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, const float *panels,
                size_t stride, size_t n, size_t k, bool add, const struct zo_start *start,
                struct zo_ahead *ahead);
    size_t panel; /* outputs side by side; divides ZO_GEMM_COLS */
};

extern const struct zo_gemm zo_gemm_ref, zo_gemm_avx2, zo_gemm_avx512;

static inline size_t zo_gemm_floats(size_t n, size_t k)
{
    return (n + ZO_GEMM_PAD - 1) / ZO_GEMM_PAD * ZO_GEMM_PAD * k;
}

/* Inputs per product where k are too many for one: even parts, multiples of 16. */
static inline size_t zo_gemm_part(size_t k)
{
    const size_t parts = (k + ZO_GEMM_K - 1) / ZO_GEMM_K;
    return parts <= 1 ? k : ((k + parts - 1) / parts + 15) / 16 * 16;
}

/* A whole W, part after part of its inputs. */
struct zo_panels {
    const float *at;
    size_t n, k; /* outputs and inputs that were packed */
};
void zo_gemm_pack(const struct zo_gemm *g, float *panels, const struct zo_matrix *w, size_t n,
                  size_t k);
/* y (rows, n) <- (add ? y : 0) + x W^T over the first k >= 1 inputs; n as for mul. */
void zo_gemm_mul(const struct zo_gemm *g, float *y, size_t ldy, const float *x, size_t ldx,
                 size_t rows, const struct zo_panels *w, size_t n, size_t k, bool add);
#endif
