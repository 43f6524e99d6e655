/* zo/direction.c -- streams to numbers: any slice, through a stack buffer of words. */
#include <onebyte/zo/direction.h>

#include "zo/kernels/kernels.h"

#include <string.h>

enum { CHUNK_WORDS = 512 }; /* 2 KB of stack; 16,384 signs or 256 gaussians at a time */

void zo_stream_words(uint32_t *out, const struct zo_stream *s, uint64_t first_word, size_t n,
                     const struct zo_kernels *k)
{
    uint32_t w[4];
    while (n > 0 && first_word % 4 != 0) {
        zo_stream_block(w, s, (uint32_t)(first_word / 4));
        *out++ = w[first_word++ % 4];
        n--;
    }
    k->words(out, s, (uint32_t)(first_word / 4), n / 4);
    if (n % 4 != 0) {
        zo_stream_block(w, s, (uint32_t)(first_word / 4 + n / 4));
        memcpy(out + n / 4 * 4, w, n % 4 * sizeof *w);
    }
}

/* Signs from bit `first` on, up to the next multiple of 32, and at most n; returns how many. */
static size_t signs_head(float *out, const struct zo_stream *s, uint64_t first, size_t n,
                         float scale, bool add, const struct zo_kernels *k)
{
    const size_t shift = (size_t)(first % 32), head = shift == 0       ? 0
                                                      : 32 - shift < n ? 32 - shift
                                                                       : n;
    if (head > 0) {
        uint32_t w;
        zo_stream_words(&w, s, first / 32, 1, k);
        w >>= shift;
        k->signs_f32(out, &w, head, scale, add);
    }
    return head;
}

void zo_signs_f32(float *out, const struct zo_stream *s, uint64_t first, size_t n, float scale,
                  bool add, const struct zo_kernels *k)
{
    uint32_t words[CHUNK_WORDS];
    const size_t head = signs_head(out, s, first, n, scale, add, k);
    for (size_t at = head; at < n;) {
        const size_t now = n - at < CHUNK_WORDS * 32 ? n - at : CHUNK_WORDS * 32;
        zo_stream_words(words, s, (first + at) / 32, (now + 31) / 32, k);
        k->signs_f32(out + at, words, now, scale, add);
        at += now;
    }
}

void zo_gauss_f32(float *out, const struct zo_stream *s, uint64_t first, size_t n, float scale,
                  bool add, const struct zo_kernels *k)
{
    uint32_t words[CHUNK_WORDS];
    for (size_t at = 0; at < n;) {
        const size_t now = n - at < CHUNK_WORDS / 2 ? n - at : CHUNK_WORDS / 2;
        zo_stream_words(words, s, 2 * (first + at), 2 * now, k);
        k->gauss_f32(out + at, words, now, scale, add);
        at += now;
    }
}

void zo_direction_a_f32(float *a, const uint32_t key[2], uint64_t seq, uint32_t tensor,
                        uint64_t row0, size_t n_rows, const struct zo_kernels *k)
{
    const struct zo_stream s = zo_stream(key, ZO_DOMAIN_A, tensor, seq);
    zo_signs_f32(a, &s, row0, n_rows, 1.0f, false, k);
}

void zo_direction_b_f32(float *b, const uint32_t key[2], uint64_t seq, uint32_t tensor,
                        uint64_t col0, size_t n_cols, const struct zo_kernels *k)
{
    const struct zo_stream s = zo_stream(key, ZO_DOMAIN_B, tensor, seq);
    zo_signs_f32(b, &s, col0, n_cols, 1.0f, false, k);
}

void zo_direction_rows_f32(float *out, const struct zo_rules *rules, uint32_t t,
                           const uint32_t key[2], uint64_t seq, uint64_t row0, size_t n_rows,
                           float scale, bool add, const struct zo_kernels *k)
{
    const struct zo_tensor *tensor = &rules->tensors[t];
    const uint64_t cols = zo_tensor_cols(tensor);
    if (rules->direction == ZO_RANK1 && zo_tensor_is_matrix(tensor)) {
        const struct zo_stream a = zo_stream(key, ZO_DOMAIN_A, t, seq),
                               b = zo_stream(key, ZO_DOMAIN_B, t, seq);
        for (size_t i = 0; i < n_rows; i++) {
            float sign;
            zo_signs_f32(&sign, &a, row0 + i, 1, 1.0f, false, k);
            zo_signs_f32(out + i * cols, &b, 0, (size_t)cols, sign * scale, add, k);
        }
        return;
    }
    const bool gaussian = rules->direction == ZO_GAUSSIAN;
    const struct zo_stream s = zo_stream(key, gaussian ? ZO_DOMAIN_GAUSS : ZO_DOMAIN_DENSE, t, seq);
    (gaussian ? zo_gauss_f32 : zo_signs_f32)(out, &s, row0 * cols, n_rows * (size_t)cols, scale,
                                             add, k);
}
