/* zo/model/ops.h -- the forward pass's loops that are not matrix products: one table per
 * instruction set (private to zo/model). Plain C in ops_body.h, compiled once per variant; a
 * variant differs from `ref` by rounding only. */
#ifndef ZO_MODEL_OPS_H
#define ZO_MODEL_OPS_H
#include "zo/model/gemm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum zo_act {
    ZO_ACT_SILU,
    ZO_ACT_GELU_ERF,
    ZO_ACT_GELU_TANH,
    ZO_ACT_RELU,
    ZO_ACT_QUICK_GELU,
    ZO_ACT_TANH
};
enum zo_norm {
    ZO_NORM_RMS,
    ZO_NORM_RMS_PLUS1,
    ZO_NORM_LAYER
}; /* PLUS1: the weight is stored less one (Gemma) */

struct zo_ops {
    const char *name;
    /* out [n] <- m * scale; scale is a power of two, so m is rounded once. */
    void (*widen)(float *out, const int32_t *m, float scale, size_t n);
    float (*dot)(const float *a, const float *b, size_t n);
    /* y [n] <- (add ? y : 0) + (base ? base : 0) + s * a; a may be NULL when s is 0. */
    void (*axpy)(float *y, const float *base, float s, const float *a, size_t n, bool add);
    void (*norm)(float *out, const float *x, const float *w, const float *b, size_t n,
                 enum zo_norm kind, float eps);
    void (*act)(float *x, const float *up, size_t n,
                enum zo_act kind); /* x <- act(x) * (up ? up : 1) */
    void (*softmax)(float *x, size_t n);
    void (*softcap)(float *x, size_t n, float cap); /* cap * tanh(x / cap) */
    /* *max and *sum = sum of exp(x - max) of x [n] */
    void (*max_sum)(const float *x, size_t n, float *max, double *sum);
    /* rotates (x [i], x [i + half]) by the angle whose cos and sin are given, i < half */
    void (*rope)(float *x, const float *cos, const float *sin, size_t half);
    const struct zo_gemm *gemm;
};

extern const struct zo_ops zo_ops_ref, zo_ops_avx2, zo_ops_avx512;
/* The table of the kernels' name; ref for an unknown one. */
const struct zo_ops *zo_ops_pick(const char *kernels_name);
#endif
