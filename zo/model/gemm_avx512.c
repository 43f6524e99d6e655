/* zo/model/gemm_avx512.c -- gemm_body.h on 16 floats at a time: 24 sums, 3 weights and one x of 32
 * registers. */
#include <immintrin.h>

#define GEMM_NAME avx512
enum { VL = 16, MR = 8 };
typedef __m512 vec;
#define vec_load(p) _mm512_loadu_ps(p)
#define vec_store(p, v) _mm512_storeu_ps(p, v)
#define vec_ints(p) _mm512_cvtepi32_ps(_mm512_loadu_si512(p))
#define vec_set(x) _mm512_set1_ps(x)
#define vec_mul(a, b) _mm512_mul_ps(a, b)
#define vec_add(a, b) _mm512_add_ps(a, b)
#define vec_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define PAIR(op, a, b) _mm512_castpd_ps(op(_mm512_castps_pd(a), _mm512_castps_pd(b)))

/* Within the 128-bit quarters first, then the quarters. */
static inline __attribute__((always_inline)) void vec_transpose(vec r[16])
{
    vec t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = PAIR(_mm512_unpacklo_pd, t[i], t[i + 2]);
        r[i + 1] = PAIR(_mm512_unpackhi_pd, t[i], t[i + 2]);
        r[i + 2] = PAIR(_mm512_unpacklo_pd, t[i + 1], t[i + 3]);
        r[i + 3] = PAIR(_mm512_unpackhi_pd, t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

#include "zo/model/gemm_body.h"
