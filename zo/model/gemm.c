/* zo/model/gemm.c -- products of more inputs than one call of the table takes: part after part. */
#include "zo/model/gemm.h"

void zo_gemm_pack(const struct zo_gemm *g, float *panels, const struct zo_matrix *w, size_t n,
                  size_t k)
{
    const size_t part = zo_gemm_part(k);
    for (size_t at = 0; at < k; at += part) {
        struct zo_matrix some = *w;
        some.at = (const float *)w->at + (w->transposed ? at * w->ld : at); /* int32s are as wide */
        g->pack(panels + zo_gemm_floats(n, at), &some, n, k - at < part ? k - at : part);
    }
}

void zo_gemm_mul(const struct zo_gemm *g, float *y, size_t ldy, const float *x, size_t ldx,
                 size_t rows, const struct zo_panels *w, size_t n, size_t k, bool add)
{
    const size_t part = zo_gemm_part(w->k);
    for (size_t at = 0; at < k; at += part) {
        const size_t stride = w->k - at < part ? w->k - at : part;
        g->mul(y, ldy, x + at, ldx, rows, w->at + zo_gemm_floats(w->n, at), stride, n,
               k - at < stride ? k - at : stride, add || at > 0, NULL, NULL);
    }
}
