/* zo/model/gemm_avx2.c -- gemm_body.h on 8 floats at a time: 12 sums, 3 weights and one x of 16
 * registers. */
#include <immintrin.h>

#define GEMM_NAME avx2
enum { VL = 8, MR = 4 };
typedef __m256 vec;
#define vec_load(p) _mm256_loadu_ps(p)
#define vec_store(p, v) _mm256_storeu_ps(p, v)
#define vec_ints(p) _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define vec_set(x) _mm256_set1_ps(x)
#define vec_mul(a, b) _mm256_mul_ps(a, b)
#define vec_add(a, b) _mm256_add_ps(a, b)
#define vec_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define PAIR(op, a, b) _mm256_castpd_ps(op(_mm256_castps_pd(a), _mm256_castps_pd(b)))

/* Within the 128-bit halves first, then the halves. */
static inline __attribute__((always_inline)) void vec_transpose(vec r[8])
{
    vec t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = PAIR(_mm256_unpacklo_pd, t[i], t[i + 2]);
        r[i + 1] = PAIR(_mm256_unpackhi_pd, t[i], t[i + 2]);
        r[i + 2] = PAIR(_mm256_unpacklo_pd, t[i + 1], t[i + 3]);
        r[i + 3] = PAIR(_mm256_unpackhi_pd, t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++)
        r[i] = t[i];
}

#include "zo/model/gemm_body.h"
