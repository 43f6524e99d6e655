/* zo/kernels/ref.c -- the reference: plain loops, written to be read against SPEC.  Every variant
 * must match it. */
#include "zo/kernels/kernels.h"

#include <onebyte/base/err.h>
#include <string.h>

static bool ref_usable(void)
{
    return true;
}

static void ref_words(uint32_t *out, const struct zo_stream *s, uint32_t first_block,
                      size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++)
        zo_stream_block(out + 4 * b, s, (uint32_t)(first_block + b));
}

static struct zo_stream record_stream(const struct zo_records *r, size_t i, uint32_t domain_tensor)
{
    return (struct zo_stream){.key = {r->key0[i], r->key1[i]},
                              .domain_tensor = domain_tensor,
                              .seq = (uint64_t)r->seq_hi[i] << 32 | r->seq_lo[i]};
}

static void ref_record_words(uint32_t *out, size_t ld, const struct zo_records *r, size_t first,
                             size_t n, uint32_t domain_tensor, uint32_t first_block,
                             size_t n_blocks)
{
    for (size_t i = 0; i < n; i++) {
        const struct zo_stream s = record_stream(r, first + i, domain_tensor);
        for (size_t b = 0; b < n_blocks; b++) {
            uint32_t w[4];
            zo_stream_block(w, &s, (uint32_t)(first_block + b));
            for (size_t j = 0; j < 4; j++)
                out[(4 * b + j) * ld + i] = w[j];
        }
    }
}

static int bit(const uint32_t *words, size_t i)
{
    return (int)(words[i / 32] >> (i % 32) & 1);
}

static void ref_signs_f32(float *out, const uint32_t *words, size_t n, float scale, bool add)
{
    for (size_t i = 0; i < n; i++) {
        const float z = bit(words, i) ? scale : -scale;
        out[i] = add ? out[i] + z : z;
    }
}

static int gauss(const uint32_t *words, size_t i)
{
    return __builtin_popcount(words[2 * i]) + __builtin_popcount(words[2 * i + 1]) - 32;
}

static void ref_gauss_f32(float *out, const uint32_t *words, size_t n, float scale, bool add)
{
    for (size_t i = 0; i < n; i++) {
        const float z = (float)gauss(words, i) * (scale * 0.25f);
        out[i] = add ? out[i] + z : z;
    }
}

static void ref_apply32(uint32_t *m, const int32_t *acc, size_t n, uint32_t coef)
{
    for (size_t i = 0; i < n; i++)
        m[i] -= coef * (uint32_t)acc[i];
}

static void ref_apply64(uint64_t *m, const int32_t *acc, size_t n, uint64_t coef)
{
    for (size_t i = 0; i < n; i++)
        m[i] -= coef * (uint64_t)(int64_t)acc[i];
}

static void ref_fold_tile(const struct zo_tile *t)
{
    int32_t acc[ZO_TILE_COLS];
    ENSURE(t->cols <= ZO_TILE_COLS);
    for (size_t i = 0; i < t->rows; i++) {
        memset(acc, 0, sizeof acc);
        for (size_t r = 0; r < t->n; r++) {
            const int32_t va = t->a[i / 32 * t->ld + r] >> (i % 32) & 1 ? t->v[r] : -t->v[r];
            for (size_t j = 0; j < t->cols; j++)
                acc[j] += t->b[j / 32 * t->ld + r] >> (j % 32) & 1 ? va : -va;
        }
        if (t->bits == 32)
            ref_apply32((uint32_t *)t->m + i * t->stride, acc, t->cols, (uint32_t)t->coef);
        else
            ref_apply64((uint64_t *)t->m + i * t->stride, acc, t->cols, t->coef);
    }
}

static void ref_fold_signs(int32_t *acc, const struct zo_records *r, size_t first, size_t n,
                           uint32_t domain_tensor, uint32_t first_block)
{
    uint32_t words[ZO_DENSE_CHUNK / 32];
    for (size_t k = first; k < first + n; k++) {
        const struct zo_stream s = record_stream(r, k, domain_tensor);
        ref_words(words, &s, first_block, ZO_DENSE_CHUNK / 128);
        for (size_t i = 0; i < ZO_DENSE_CHUNK; i++)
            acc[i] += bit(words, i) ? r->v[k] : -r->v[k];
    }
}

static void ref_fold_gauss(int32_t *acc, const struct zo_records *r, size_t first, size_t n,
                           uint32_t domain_tensor, uint32_t first_block)
{
    uint32_t words[ZO_DENSE_CHUNK * 2];
    for (size_t k = first; k < first + n; k++) {
        const struct zo_stream s = record_stream(r, k, domain_tensor);
        ref_words(words, &s, first_block, ZO_DENSE_CHUNK / 2);
        for (size_t i = 0; i < ZO_DENSE_CHUNK; i++)
            acc[i] += r->v[k] * gauss(words, i);
    }
}

static uint64_t ref_dot32(const int32_t *m, const uint32_t *x, size_t n)
{
    int64_t s[3] = {0, 0, 0};
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < 3; j++)
            s[j] += (int64_t)m[i] * x[j * ZO_LIMBS + i];
    return zo_join_limbs(s[0], s[1], s[2]);
}

static uint64_t ref_dot_bits(const uint32_t *words, const uint32_t *x, size_t n)
{
    int64_t s[3] = {0, 0, 0};
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < 3; j++)
            s[j] += bit(words, i) ? (int64_t)x[j * ZO_LIMBS + i] : 0;
    return zo_join_limbs(s[0], s[1], s[2]);
}

const struct zo_kernels zo_kernels_ref = {
    .name = "ref",
    .usable = ref_usable,
    .tile_scratch = 0,
    .words = ref_words,
    .record_words = ref_record_words,
    .signs_f32 = ref_signs_f32,
    .gauss_f32 = ref_gauss_f32,
    .fold_tile = ref_fold_tile,
    .fold_signs = ref_fold_signs,
    .fold_gauss = ref_fold_gauss,
    .apply32 = ref_apply32,
    .apply64 = ref_apply64,
    .dot32 = ref_dot32,
    .dot_bits = ref_dot_bits,
};
