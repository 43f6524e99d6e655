/* zo/model/gemm_ref.c -- the products of gemm.h by OpenBLAS, for any CPU: "packed" is a plain float
 * copy (n, k). */
#include "zo/model/gemm.h"

#include <cblas.h>

static void ref_pack(float *panels, const struct zo_matrix *w, size_t n, size_t k)
{
    const int32_t *m = w->at;
    const float *f = w->at;
    const size_t by_output = w->transposed ? 1 : w->ld, by_input = w->transposed ? w->ld : 1;
    for (size_t j = 0; j < n; j++)
        for (size_t i = 0; i < k; i++) {
            const size_t at = j * by_output + i * by_input;
            panels[j * k + i] = w->scale * (w->ints ? (float)m[at] : f[at]);
        }
}

static void ref_mul(float *y, size_t ldy, const float *x, size_t ldx, size_t rows,
                    const float *panels, size_t stride, size_t n, size_t k, bool add,
                    const struct zo_start *start, struct zo_ahead *ahead)
{
    (void)ahead;
    for (size_t r = 0; start && r < rows; r++)
        for (size_t j = 0; j < n; j++)
            y[r * ldy + j] = (add ? y[r * ldy + j] : 0.0f) +
                             (start->bias ? start->bias[r][j] : 0.0f) +
                             (start->factor ? start->scale[r] * start->factor[r][j] : 0.0f);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)rows, (blasint)n, (blasint)k,
                1.0f, x, (blasint)ldx, panels, (blasint)stride, add || start ? 1.0f : 0.0f, y,
                (blasint)ldy);
}

const struct zo_gemm zo_gemm_ref = {.pack = ref_pack, .mul = ref_mul, .panel = 1};
