/* zo/model/gemm_body.h -- packing and products of gemm.h, once for all vector widths.  The file
 * that includes it defines GEMM_NAME, VL (floats per vector), MR (rows of a tile), vec, and
 * vec_load, vec_store, vec_ints (int32 to float), vec_set, vec_mul, vec_add, vec_fma (a * b + c)
 * and vec_transpose (VL x VL).
 *
 * A tile of MR rows x NV vectors of outputs lives in registers: every step of k loads NV vectors of
 * a panel from L2 and MR numbers of x from L1, for MR * NV multiply-adds.  While it computes, the
 * tile asks for the rows of x that come next and for the weights that will be packed next, so that
 * neither is waited for. */
#include "zo/model/gemm.h"

#include <onebyte/base/err.h>

#include <string.h>

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

enum {
    NV = 3, /* MR * NV sums, NV weights and one x fit the registers */
    PANEL = NV * VL,
    LDX = ZO_GEMM_K + 16,
    LDX_MAX = 1024, /* rows of x further apart share L1 sets: they are copied next to each other,
                       LDX apart */
    AHEAD = 4,      /* rows that a tile asks for */
};
_Static_assert(ZO_GEMM_COLS % PANEL == 0 && ZO_GEMM_PAD % VL == 0, "whole panels");

/* ---- packing: panel after panel, input after input, the panel's outputs side by side ---- */

static float element(const struct zo_matrix *w, size_t j, size_t i)
{
    const size_t at = w->transposed ? i * w->ld + j : j * w->ld + i;
    return w->scale * (w->ints ? (float)((const int32_t *)w->at)[at] : ((const float *)w->at)[at]);
}

INLINE vec load_scaled(const struct zo_matrix *w, size_t at, const bool ints)
{
    const vec x =
        ints ? vec_ints((const int32_t *)w->at + at) : vec_load((const float *)w->at + at);
    return vec_mul(x, vec_set(w->scale));
}

/* VL outputs from j on, VL inputs from i on. */
INLINE void pack_square(float *out, size_t width, const struct zo_matrix *w, size_t j, size_t i,
                        const bool ints)
{
    vec r[VL];
    UNROLL
    for (size_t q = 0; q < VL; q++)
        r[q] = load_scaled(w, w->transposed ? (i + q) * w->ld + j : (j + q) * w->ld + i, ints);
    if (!w->transposed)
        vec_transpose(r);
    UNROLL
    for (size_t q = 0; q < VL; q++)
        vec_store(out + q * width, r[q]);
}

/* The edges: outputs from n on are zeros. */
static void pack_edge(float *out, size_t width, const struct zo_matrix *w, size_t j, size_t n,
                      size_t i, size_t k)
{
    for (size_t q = i; q < k && q < i + VL; q++, out += width)
        for (size_t c = 0; c < VL; c++)
            out[c] = j + c < n ? element(w, j + c, q) : 0.0f;
}

static void gemm_pack(float *panels, const struct zo_matrix *w, size_t n, size_t k)
{
    for (size_t j0 = 0; j0 < n; j0 += PANEL) {
        const size_t left = (n - j0 + VL - 1) / VL * VL, width = left < PANEL ? left : PANEL;
        for (size_t j = j0; j < j0 + width; j += VL)
            for (size_t i = 0; i < k; i += VL) {
                float *out = panels + j0 * k + i * width + (j - j0);
                if (j + VL > n || i + VL > k)
                    pack_edge(out, width, w, j, n, i, k);
                else if (w->ints)
                    pack_square(out, width, w, j, i, true);
                else
                    pack_square(out, width, w, j, i, false);
            }
    }
}

/* ---- products ---- */

struct tile {
    const float *x, *panel; /* x: MR rows */
    float *y;
    size_t ldx, ldy, rows, cols, k; /* rows and cols: those of the tile that are stored */
    bool add;
    struct zo_start start;     /* of the tile's rows */
    size_t out0;               /* where in these the tile's outputs begin */
    const float *ahead[AHEAD]; /* k floats from each on will be read soon */
};

INLINE void store(const struct tile *t, size_t r, size_t c, vec sum)
{
    float *y = t->y + r * t->ldy + c * VL;
    if (t->start.factor)
        sum = vec_fma(vec_set(t->start.scale[r]), vec_load(t->start.factor[r] + t->out0 + c * VL),
                      sum);
    if (t->start.bias)
        sum = vec_add(sum, vec_load(t->start.bias[r] + t->out0 + c * VL));
    if (c * VL + VL <= t->cols) {
        vec_store(y, t->add ? vec_add(vec_load(y), sum) : sum);
        return;
    }
    float some[VL];
    vec_store(some, sum);
    for (size_t i = 0; c * VL + i < t->cols; i++)
        y[i] = t->add ? y[i] + some[i] : some[i];
}

/* nv is a constant in each caller, so that the sums stay in registers. */
INLINE void tile_run(const struct tile *t, const size_t nv)
{
    vec sum[MR][NV];
    const float *p = t->panel;
    UNROLL
    for (size_t r = 0; r < MR; r++)
        UNROLL
    for (size_t c = 0; c < nv; c++)
        sum[r][c] = vec_set(0.0f);
    for (size_t r = 0; r < t->rows; r++)
        for (size_t c = 0; c < t->cols; c += 16)
            __builtin_prefetch(t->y + r * t->ldy + c, 1);
    for (size_t at = 0; at < t->k; at += 16) {
        const size_t end = t->k - at < 16 ? t->k : at + 16;
        UNROLL
        for (size_t c = 0; c < AHEAD; c++)
            __builtin_prefetch(t->ahead[c] + at);
        for (size_t i = at; i < end; i++, p += nv * VL) {
            vec w[NV];
            UNROLL
            for (size_t c = 0; c < nv; c++)
                w[c] = vec_load(p + c * VL);
            UNROLL
            for (size_t r = 0; r < MR; r++) {
                const vec x = vec_set(t->x[r * t->ldx + i]);
                UNROLL
                for (size_t c = 0; c < nv; c++)
                    sum[r][c] = vec_fma(x, w[c], sum[r][c]);
            }
        }
    }
    UNROLL
    for (size_t r = 0; r < MR; r++)
        if (r < t->rows)
            UNROLL
    for (size_t c = 0; c < nv; c++)
        store(t, r, c, sum[r][c]);
}

static __attribute__((noinline)) void tile_whole(const struct tile *t)
{
    tile_run(t, NV);
}

static __attribute__((noinline)) void tile_narrow(const struct tile *t, size_t vectors)
{
    if (vectors == 1)
        tile_run(t, 1);
    else
        tile_run(t, 2);
}

/* What tile t may ask for: rows of x from *next to the end of the next tile, and then what the
 * caller named. */
static void look_ahead(struct tile *t, const float *x, size_t ldx, size_t *next, size_t end,
                       struct zo_ahead *ahead)
{
    for (size_t c = 0; c < AHEAD; c++) {
        t->ahead[c] = t->x;
        if (c < AHEAD - 1 && *next < end) {
            t->ahead[c] = x + (*next)++ * ldx;
        } else if (ahead && ahead->rows > 0) {
            t->ahead[c] = (const float *)(const void *)ahead->at;
            ahead->at += ahead->ld;
            ahead->rows--;
        }
    }
}

static void gemm_mul(float *y, size_t ldy, const float *x, size_t ldx, size_t rows,
                     const float *panels, size_t stride, size_t n, size_t k, bool add,
                     const struct zo_start *start, struct zo_ahead *ahead)
{
    float some[MR * LDX] __attribute__((aligned(64)));
    struct tile t = {.ldy = ldy, .k = k, .add = add};
    ENSURE(k <= stride && stride <= ZO_GEMM_K);
    if (start)
        t.start = *start;
    for (size_t row = 0; row < rows; row += MR) {
        const size_t end = row + 2 * MR < rows ? row + 2 * MR : rows;
        size_t next = row + MR;
        t.rows = rows - row < MR ? rows - row : MR;
        const bool direct = ldx <= LDX_MAX && t.rows == MR;
        t.x = direct ? x + row * ldx : some;
        t.ldx = direct ? ldx : LDX;
        for (size_t r = 0; !direct && r < MR; r++)
            if (r < t.rows)
                memcpy(some + r * LDX, x + (row + r) * ldx, k * sizeof *x);
            else
                memset(some + r * LDX, 0, k * sizeof *x);
        for (t.out0 = 0; t.out0 < n; t.out0 += PANEL) {
            t.cols = n - t.out0 < PANEL ? n - t.out0 : PANEL;
            t.panel = panels + t.out0 * stride;
            t.y = y + row * ldy + t.out0;
            look_ahead(&t, x, ldx, &next, end, ahead);
            if (t.cols > PANEL - VL)
                tile_whole(&t);
            else
                tile_narrow(&t, (t.cols + VL - 1) / VL);
        }
        if (t.start.factor) {
            t.start.factor += MR;
            t.start.scale += MR;
        }
        if (t.start.bias)
            t.start.bias += MR;
    }
}

#define GEMM_JOIN_(a, b) a##b
#define GEMM_JOIN(a, b) GEMM_JOIN_(a, b)
const struct zo_gemm GEMM_JOIN(zo_gemm_,
                               GEMM_NAME) = {.pack = gemm_pack, .mul = gemm_mul, .panel = PANEL};
