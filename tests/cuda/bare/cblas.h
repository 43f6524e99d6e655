/* tests/cuda/bare/cblas.h -- sgemm in plain C, for machines without OpenBLAS (bench/gpu.sh): the CPU is only the reference. */
#ifndef BARE_CBLAS_H
#define BARE_CBLAS_H
enum { CblasRowMajor = 101, CblasNoTrans = 111, CblasTrans = 112 };
typedef int blasint;

static inline float bare_dot(const float *a, const float *b, long step, int n)
{
    double sum = 0.0;
    for (int k = 0; k < n; k++)
        sum += (double)(a[k] * b[k * step]);
    return (float)sum;
}

/* c (m, n) <- alpha a b + beta c; a is never transposed here. */
static inline void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                               const float *b, int ldb, float beta, float *c, int ldc)
{
    (void)order;
    (void)trans_a;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float *y = c + (long)i * ldc + j;
            const float x = trans_b == CblasTrans ? bare_dot(a + (long)i * lda, b + (long)j * ldb, 1, k)
                                                  : bare_dot(a + (long)i * lda, b + j, ldb, k);
            *y = alpha * x + (beta == 0.0f ? 0.0f : beta * *y);
        }
}
#endif
