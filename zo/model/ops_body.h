/* zo/model/ops_body.h -- the loops of ops.h.  Included once by each ops_<variant>.c, which defines
 * OPS_NAME and is compiled for its instruction set; `omp simd` lets the compiler reorder the sums,
 * which -ffast-math would do everywhere. */
#include "zo/model/ops.h"

#include <math.h>
#include <string.h>

/* exp for the vectoriser: |relative error| < 2e-7 on [-87, 88], clamped outside, NaN stays NaN. */
static inline float exp_fast(float x)
{
    const float low = x < -87.0f ? -87.0f : x, y = low > 88.0f ? 88.0f : low;
    const float t =
        y * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer in the low bits */
    const float n = t - 12582912.0f;
    const float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits + 127u) << 23; /* the integer n is in t's low bits */
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

static inline float tanh_fast(float x)
{
    return 1.0f - 2.0f / (exp_fast(2.0f * x) + 1.0f);
}

/* Abramowitz & Stegun 7.1.26: |error| < 2e-7 */
static inline float erf_fast(float x)
{
    const float a = fabsf(x), t = 1.0f / (1.0f + 0.3275911f * a);
    const float p =
        t * (0.254829592f +
             t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    const float y = 1.0f - p * exp_fast(-a * a);
    return x < 0.0f ? -y : y;
}

static void op_widen(float *restrict out, const int32_t *restrict m, float scale, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        out[i] = (float)m[i] * scale;
}

static float op_dot(const float *a, const float *b, size_t n)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void op_axpy(float *restrict y, const float *restrict base, float s, const float *restrict a,
                    size_t n, bool add)
{
    if (!add && base)
        memcpy(y, base, n * sizeof *y);
    else if (!add)
        memset(y, 0, n * sizeof *y);
    else if (base) {
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            y[i] += base[i];
    }
    if (a) {
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            y[i] += s * a[i];
    }
}

static void op_norm(float *out, const float *x, const float *w, const float *b, size_t n,
                    enum zo_norm kind, float eps)
{
    float mean = 0.0f, square = 0.0f;
    if (kind == ZO_NORM_LAYER) {
#pragma omp simd reduction(+ : mean)
        for (size_t i = 0; i < n; i++)
            mean += x[i];
        mean /= (float)n;
    }
#pragma omp simd reduction(+ : square)
    for (size_t i = 0; i < n; i++)
        square += (x[i] - mean) * (x[i] - mean);
    const float scale = 1.0f / sqrtf(square / (float)n + eps),
                one = kind == ZO_NORM_RMS_PLUS1 ? 1.0f : 0.0f;
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        out[i] = (x[i] - mean) * scale * (w[i] + one);
    if (b) {
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            out[i] += b[i];
    }
}

#define ACT_LOOP(expression)                               \
    do {                                                   \
        _Pragma("omp simd") for (size_t i = 0; i < n; i++) \
        {                                                  \
            const float v = x[i];                          \
            x[i] = (expression);                           \
        }                                                  \
    } while (0)

static void op_act(float *restrict x, const float *restrict up, size_t n, enum zo_act kind)
{
    switch (kind) {
    case ZO_ACT_SILU:
        ACT_LOOP(v / (1.0f + exp_fast(-v)));
        break;
    case ZO_ACT_GELU_ERF:
        ACT_LOOP(0.5f * v * (1.0f + erf_fast(v * 0.70710678f)));
        break;
    case ZO_ACT_GELU_TANH:
        ACT_LOOP(0.5f * v * (1.0f + tanh_fast(0.79788456f * (v + 0.044715f * v * v * v))));
        break;
    case ZO_ACT_RELU:
        ACT_LOOP(v > 0.0f || v != v ? v : 0.0f); /* a NaN must reach the loss */
        break;
    case ZO_ACT_QUICK_GELU:
        ACT_LOOP(v / (1.0f + exp_fast(-1.702f * v)));
        break;
    case ZO_ACT_TANH:
        ACT_LOOP(tanh_fast(v));
        break;
    }
    if (up) {
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            x[i] *= up[i];
    }
}

static float max_of(const float *x, size_t n)
{
    float max = -INFINITY;
#pragma omp simd reduction(max : max)
    for (size_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

static void op_softmax(float *x, size_t n)
{
    const float max = max_of(x, n);
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        x[i] = exp_fast(x[i] - max);
        sum += x[i];
    }
    const float scale = 1.0f / sum;
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
}

static void op_softcap(float *x, size_t n, float cap)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        x[i] = cap * tanh_fast(x[i] / cap);
}

static void op_max_sum(const float *x, size_t n, float *max, double *sum)
{
    const float top = max_of(x, n);
    double total = 0.0;
    for (size_t at = 0; at < n; at += 128) { /* short float sums, added up in double */
        const size_t end = n - at < 128 ? n : at + 128;
        float part = 0.0f;
#pragma omp simd reduction(+ : part)
        for (size_t i = at; i < end; i++)
            part += exp_fast(x[i] - top);
        total += (double)part;
    }
    *max = top;
    *sum = total;
}

static void op_rope(float *restrict x, const float *restrict cos, const float *restrict sin,
                    size_t half)
{
    float *restrict y = x + half;
#pragma omp simd
    for (size_t i = 0; i < half; i++) {
        const float a = x[i], b = y[i];
        x[i] = a * cos[i] - b * sin[i];
        y[i] = b * cos[i] + a * sin[i];
    }
}

#define OPS_JOIN_(a, b) a##b
#define OPS_JOIN(a, b) OPS_JOIN_(a, b)
#define OPS_TEXT_(a) #a
#define OPS_TEXT(a) OPS_TEXT_(a)
const struct zo_ops OPS_JOIN(zo_ops_, OPS_NAME) = {
    .name = OPS_TEXT(OPS_NAME),
    .widen = op_widen,
    .dot = op_dot,
    .axpy = op_axpy,
    .norm = op_norm,
    .act = op_act,
    .softmax = op_softmax,
    .softcap = op_softcap,
    .max_sum = op_max_sum,
    .rope = op_rope,
    .gemm = &OPS_JOIN(zo_gemm_, OPS_NAME),
};
