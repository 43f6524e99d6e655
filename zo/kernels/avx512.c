/* zo/kernels/avx512.c -- AVX-512 with byte permutes (Ice Lake, Zen 4 and later).  Bit-identical to
 * ref.c.
 *
 * The rank-1 product looks sums up instead of multiplying.  Five records give a column one of 32
 * sign patterns b and a row one of 32 patterns a; what they add to entry (i, j) depends on a xor b
 * only:
 *
 *     sum over t < 5 of v_t a_t b_t  =  U[a ^ b],   U[x] = sum of v_t (-1)^(x_t)
 *
 * U is one register of 32 int16.  A row permutes it once (T[b] = U[a ^ b]); then one vpermb and one
 * vpaddw do 32 columns x 5 records = 160 products, where vpdpbusd does 64.  Measured on Zen 4, one
 * core: 281e9 against 104e9 products/s.  Bounds: sum |v| <= ZO_TILE_WEIGHT keeps every int16
 * partial sum exact. */
#include "zo/kernels/kernels.h"

#include <immintrin.h>
#include <string.h>

#define UNROLL _Pragma("GCC unroll 8")

enum {
    FIVE = 5,
    GROUPS = ZO_TILE_RECORDS / FIVE, /* groups of five records */
    PANEL = 6, /* registers of 32 columns: 24 sums, 6 indices, a table and a constant = 32 */
    ROWS = 4,
    FEW = 8, /* groups whose factors take at most 12 KB */
    WORDS = ZO_TILE_COLS / 32,
};
_Static_assert(ZO_TILE_RECORDS % FIVE == 0, "no group is cut by the end of the buffers");
_Static_assert(WORDS % PANEL == 0, "whole panels");

struct scratch {
    __m512i
        columns[WORDS * GROUPS]; /* [panel][group][word of the panel]: byte indices of patterns b */
    uint32_t rows[ZO_TILE_ROWS / 16][GROUPS]
                 [16];    /* patterns a of 16 rows, in every byte, doubled */
    __m512i sums[GROUPS]; /* U */
};

static bool avx512_usable(void)
{
    __builtin_cpu_init(); /* asks CPUID, and XGETBV whether the system saves the registers */
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vpopcntdq");
}

/* The first n lanes of 16, of 8. */
static inline __mmask16 first16(size_t n)
{
    const uint32_t mask = n >= 16 ? 0xffff : (1u << n) - 1;
    return (__mmask16)mask;
}

static inline __mmask8 first8(size_t n)
{
    const uint32_t mask = n >= 8 ? 0xff : (1u << n) - 1;
    return (__mmask8)mask;
}

/* Ten rounds on 2 x 8 counters in 64-bit lanes; the upper halves hold rubbish that no
 * multiplication reads. */
static inline void philox16(__m512i x[4][2], __m512i k0[2], __m512i k1[2])
{
    const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57);
    const __m512i w0 = _mm512_set1_epi64(0x9E3779B9), w1 = _mm512_set1_epi64(0xBB67AE85);
    for (int round = 0; round < 10; round++) {
        UNROLL
        for (int h = 0; h < 2; h++) {
            const __m512i a = _mm512_mul_epu32(x[0][h], m0), b = _mm512_mul_epu32(x[2][h], m1);
            x[0][h] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(b, 32), x[1][h], k0[h],
                                                0x96); /* xor of three */
            x[1][h] = b;
            x[2][h] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(a, 32), x[3][h], k1[h], 0x96);
            x[3][h] = a;
            k0[h] = _mm512_add_epi64(k0[h], w0);
            k1[h] = _mm512_add_epi64(k1[h], w1);
        }
    }
}

/* out [64] <- 16 blocks from first_block on.  Lane order makes the two interleaved halves come out
 * in sequence. */
static inline void words16(uint32_t *out, const struct zo_stream *s, uint32_t first_block)
{
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7),
                  low = _mm512_set1_epi64(0xffffffff);
    __m512i x[4][2], k0[2], k1[2];
    UNROLL
    for (int h = 0; h < 2; h++) {
        x[0][h] = _mm512_add_epi64(
            order, _mm512_set1_epi64((int64_t)((uint64_t)first_block + 8 * (uint64_t)h)));
        x[1][h] = _mm512_set1_epi64(s->domain_tensor);
        x[2][h] = _mm512_set1_epi64((int64_t)s->seq);
        x[3][h] = _mm512_set1_epi64((int64_t)(s->seq >> 32));
        k0[h] = _mm512_set1_epi64(s->key[0]);
        k1[h] = _mm512_set1_epi64(s->key[1]);
    }
    philox16(x, k0, k1);
    UNROLL
    for (int h = 0; h < 2; h++) {
        const __m512i p =
            _mm512_or_si512(_mm512_and_si512(x[0][h], low), _mm512_slli_epi64(x[1][h], 32));
        const __m512i q =
            _mm512_or_si512(_mm512_and_si512(x[2][h], low), _mm512_slli_epi64(x[3][h], 32));
        _mm512_storeu_si512(out + 32 * h, _mm512_unpacklo_epi64(p, q));
        _mm512_storeu_si512(out + 32 * h + 16, _mm512_unpackhi_epi64(p, q));
    }
}

static void avx512_words(uint32_t *out, const struct zo_stream *s, uint32_t first_block,
                         size_t n_blocks)
{
    size_t b = 0;
    for (; b + 16 <= n_blocks; b += 16)
        words16(out + 4 * b, s, (uint32_t)(first_block + b));
    if (b < n_blocks) {
        uint32_t rest[64];
        words16(rest, s, (uint32_t)(first_block + b));
        memcpy(out + 4 * b, rest, (n_blocks - b) * 16);
    }
}

/* Block `block` of 16 records' streams: out[w * ld + r]. */
static inline void record_block(uint32_t *out, size_t ld, const struct zo_records *r, size_t at,
                                uint32_t domain_tensor, uint32_t block)
{
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    __m512i x[4][2], k0[2], k1[2];
    UNROLL
    for (int h = 0; h < 2; h++) {
        const size_t i = at + 8 * (size_t)h;
        x[0][h] = _mm512_set1_epi64(block);
        x[1][h] = _mm512_set1_epi64(domain_tensor);
        x[2][h] = _mm512_cvtepu32_epi64(
            _mm256_loadu_si256((const __m256i *)(const void *)(r->seq_lo + i)));
        x[3][h] = _mm512_cvtepu32_epi64(
            _mm256_loadu_si256((const __m256i *)(const void *)(r->seq_hi + i)));
        k0[h] =
            _mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i *)(const void *)(r->key0 + i)));
        k1[h] =
            _mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i *)(const void *)(r->key1 + i)));
    }
    philox16(x, k0, k1);
    UNROLL
    for (size_t w = 0; w < 4; w++)
        _mm512_storeu_si512(out + w * ld, _mm512_permutex2var_epi32(x[w][0], even, x[w][1]));
}

static void avx512_record_words(uint32_t *out, size_t ld, const struct zo_records *r, size_t first,
                                size_t n, uint32_t domain_tensor, uint32_t first_block,
                                size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++)
        for (size_t i = 0; i < n; i += 16)
            record_block(out + 4 * b * ld + i, ld, r, first + i, domain_tensor,
                         (uint32_t)(first_block + b));
}

static void avx512_signs_f32(float *out, const uint32_t *words, size_t n, float scale, bool add)
{
    const __m512 plus = _mm512_set1_ps(scale), minus = _mm512_set1_ps(-scale);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 some = first16(n - i);
        __m512 z = _mm512_mask_blend_ps((__mmask16)(words[i / 32] >> (i % 32)), minus, plus);
        if (add)
            z = _mm512_add_ps(_mm512_maskz_loadu_ps(some, out + i), z);
        _mm512_mask_storeu_ps(out + i, some, z);
    }
}

/* h of 16 elements from their 32 words, in 32-bit lanes. */
static inline __m512i gauss16(const uint32_t *words)
{
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i a = _mm512_popcnt_epi64(_mm512_loadu_si512(words));
    const __m512i b = _mm512_popcnt_epi64(_mm512_loadu_si512(words + 16));
    return _mm512_sub_epi32(_mm512_permutex2var_epi32(a, even, b), _mm512_set1_epi32(32));
}

static void avx512_gauss_f32(float *out, const uint32_t *words, size_t n, float scale, bool add)
{
    const __m512 quarter = _mm512_set1_ps(scale * 0.25f);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 some = first16(n - i);
        uint32_t rest[32] = {0};
        const uint32_t *w = words + 2 * i;
        if (n - i < 16) { /* never read past the caller's words */
            memcpy(rest, w, (n - i) * 8);
            w = rest;
        }
        __m512 z = _mm512_mul_ps(_mm512_cvtepi32_ps(gauss16(w)), quarter);
        if (add)
            z = _mm512_add_ps(_mm512_maskz_loadu_ps(some, out + i), z);
        _mm512_mask_storeu_ps(out + i, some, z);
    }
}

/* U of every group of five; missing records count 0. */
static void pack_sums(struct scratch *s, const struct zo_tile *t, size_t groups)
{
    static const __mmask32 patterns[FIVE] = {0xaaaaaaaa, 0xcccccccc, 0xf0f0f0f0, 0xff00ff00,
                                             0xffff0000};
    for (size_t g = 0; g < groups; g++) {
        __m512i sum = _mm512_setzero_si512();
        for (size_t i = 0; i < FIVE && g * FIVE + i < t->n; i++) {
            const __m512i v = _mm512_set1_epi16(t->v[g * FIVE + i]);
            /* minus where the pattern differs in this record, else plus */
            sum = _mm512_mask_sub_epi16(_mm512_add_epi16(sum, v), patterns[i], sum, v);
        }
        s->sums[g] = sum;
    }
}

/* Patterns of 32 columns as indices of the two bytes of an int16. */
static void pack_columns(struct scratch *s, const struct zo_tile *t, size_t groups)
{
    const size_t n_words = (t->cols + 31) / 32;
    for (size_t w = 0; w < n_words; w++) {
        const size_t panel = w / PANEL,
                     width = n_words - panel * PANEL < PANEL ? n_words - panel * PANEL : PANEL;
        __m512i *out = s->columns + panel * PANEL * GROUPS + w % PANEL;
        const uint32_t *b = t->b + w * t->ld;
        for (size_t g = 0; g < groups; g++, b += FIVE) {
            __m512i x = _mm512_set1_epi16(0x0100);
            UNROLL
            for (int i = 0; i < FIVE; i++)
                x = _mm512_or_si512(x, _mm512_maskz_set1_epi16(b[i], (short)(0x0202 << i)));
            out[g * width] = x;
        }
    }
}

static void pack_rows(struct scratch *s, const struct zo_tile *t, size_t groups)
{
    for (size_t i = 0; i < t->rows; i += 16) {
        const uint32_t *a = t->a + i / 32 * t->ld;
        for (size_t g = 0; g < groups; g++, a += FIVE) {
            __m512i x = _mm512_setzero_si512();
            UNROLL
            for (int r = 0; r < FIVE; r++)
                x = _mm512_or_si512(
                    x, _mm512_maskz_set1_epi32((__mmask16)(a[r] >> (i % 32)), 0x02020202 << r));
            _mm512_store_si512(s->rows[i / 16][g], x);
        }
    }
}

/* m [<= 32 columns] -= coef * sum. */
static inline void apply_sum(const struct zo_tile *t, size_t row, size_t col, __m512i sum)
{
    const size_t at = row * t->stride + col;
    const uint32_t some = t->cols - col >= 32 ? 0xffffffff : (1u << (t->cols - col)) - 1;
    if (t->bits == 32) {
        const __m512i coef = _mm512_set1_epi32((int32_t)(uint32_t)t->coef);
        UNROLL
        for (int h = 0; h < 2; h++) {
            const __mmask16 k = (__mmask16)(some >> (16 * h));
            uint32_t *m = (uint32_t *)t->m + at + 16 * h;
            const __m256i half =
                h ? _mm512_extracti64x4_epi64(sum, 1) : _mm512_castsi512_si256(sum);
            const __m512i d = _mm512_mullo_epi32(_mm512_cvtepi16_epi32(half), coef);
            _mm512_mask_storeu_epi32(m, k, _mm512_sub_epi32(_mm512_maskz_loadu_epi32(k, m), d));
        }
        return;
    }
    int16_t lanes[32] __attribute__((aligned(64)));
    _mm512_store_si512(lanes, sum);
    for (int h = 0; h < 4; h++) {
        const __mmask8 k = (__mmask8)(some >> (8 * h));
        uint64_t *m = (uint64_t *)t->m + at + 8 * h;
        const __m512i x =
            _mm512_cvtepi16_epi64(_mm_load_si128((const __m128i *)(const void *)(lanes + 8 * h)));
        const __m512i d = _mm512_mullo_epi64(x, _mm512_set1_epi64((int64_t)t->coef));
        _mm512_mask_storeu_epi64(m, k, _mm512_sub_epi64(_mm512_maskz_loadu_epi64(k, m), d));
    }
}

/* The bytes 0 .. 63: what a row's pattern is applied to. */
static const uint8_t iota[64] __attribute__((aligned(64))) = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
};

/* Asks for the entries that the next product will update: they arrive while this one is computed.
 */
static inline void prefetch_rows(const struct zo_tile *t, size_t row, size_t col, size_t n_cols)
{
    const size_t width = t->bits / 8;
    for (size_t r = row; r < row + ROWS && r < t->rows; r++)
        for (size_t at = 0; at < n_cols * width; at += 64)
            _mm_prefetch((const char *)t->m + (r * t->stride + col) * width + at, _MM_HINT_T0);
}

/* ROWS rows x `width` registers of 32 columns; rows past the tile's end are computed and not
 * stored.  `width` is a constant in each caller, so that the sums stay in registers. */
static inline __attribute__((always_inline)) void product(const struct zo_tile *t,
                                                          const struct scratch *s, size_t groups,
                                                          size_t row, size_t panel,
                                                          const size_t width)
{
    const __m512i bytes = _mm512_load_si512(iota);
    const __m512i *b = s->columns + panel * PANEL * GROUPS;
    const uint32_t *a = s->rows[row / 16][0] + row % 16;
    __m512i acc[ROWS][PANEL], x[PANEL];
    prefetch_rows(t, row + ROWS, panel * PANEL * 32, width * 32);
    UNROLL
    for (size_t r = 0; r < ROWS; r++)
        UNROLL
    for (size_t c = 0; c < width; c++)
        acc[r][c] = _mm512_setzero_si512();
    for (size_t g = 0; g < groups; g++, a += 16, b += width) {
        UNROLL
        for (size_t c = 0; c < width; c++)
            x[c] = _mm512_load_si512(b + c);
        UNROLL
        for (size_t r = 0; r < ROWS; r++) {
            const __m512i flip = _mm512_xor_epi32(bytes, _mm512_set1_epi32((int32_t)a[r]));
            const __m512i table = _mm512_permutexvar_epi8(flip, s->sums[g]);
            UNROLL
            for (size_t c = 0; c < width; c++)
                acc[r][c] = _mm512_add_epi16(acc[r][c], _mm512_permutexvar_epi8(x[c], table));
        }
    }
    UNROLL
    for (size_t r = 0; r < ROWS; r++)
        if (row + r < t->rows)
            UNROLL
    for (size_t c = 0; c < width; c++)
        apply_sum(t, row + r, (panel * PANEL + c) * 32, acc[r][c]);
}

static void product_any(const struct zo_tile *t, const struct scratch *s, size_t groups, size_t row,
                        size_t panel)
{
    switch ((t->cols + 31) / 32 - panel * PANEL) {
    case 1:
        product(t, s, groups, row, panel, 1);
        break;
    case 2:
        product(t, s, groups, row, panel, 2);
        break;
    case 3:
        product(t, s, groups, row, panel, 3);
        break;
    case 4:
        product(t, s, groups, row, panel, 4);
        break;
    case 5:
        product(t, s, groups, row, panel, 5);
        break;
    default:
        product(t, s, groups, row, panel, PANEL);
    }
}

/* Few records' factors stay in L1 for all panels: whole rows pass once, as memory likes it.  Many records' factors are
 * read panel by panel. */
static void avx512_fold_tile(const struct zo_tile *t)
{
    struct scratch *s = t->scratch;
    const size_t groups = (t->n + FIVE - 1) / FIVE,
                 panels = (t->cols + 32 * PANEL - 1) / (32 * PANEL);
    pack_sums(s, t, groups);
    pack_columns(s, t, groups);
    pack_rows(s, t, groups);
    if (groups <= FEW) {
        for (size_t row = 0; row < t->rows; row += ROWS)
            for (size_t panel = 0; panel < panels; panel++)
                product_any(t, s, groups, row, panel);
        return;
    }
    for (size_t panel = 0; panel < panels; panel++)
        for (size_t row = 0; row < t->rows; row += ROWS)
            product_any(t, s, groups, row, panel);
}

static struct zo_stream record_stream(const struct zo_records *r, size_t i, uint32_t domain_tensor)
{
    return (struct zo_stream){.key = {r->key0[i], r->key1[i]},
                              .domain_tensor = domain_tensor,
                              .seq = (uint64_t)r->seq_hi[i] << 32 | r->seq_lo[i]};
}

/* int16 sums: at most 128 records of 2 |v| <= 254. */
_Static_assert(ZO_DENSE_RECORDS * 254 <= 32767, "dense sums fit int16");

static void avx512_fold_signs(int32_t *acc, const struct zo_records *r, size_t first, size_t n,
                              uint32_t domain_tensor, uint32_t first_block)
{
    enum { MANY = 8, N = ZO_DENSE_CHUNK / 32 };
    uint32_t words[MANY][N];
    __m512i sums[N];
    int32_t total = 0;
    memset(sums, 0, sizeof sums);
    for (size_t i = 0; i < n; i += MANY) {
        __m512i twice[MANY];
        for (size_t j = 0; j < MANY; j++) {
            const int v = i + j < n ? r->v[first + i + j] : 0;
            twice[j] = _mm512_set1_epi16((short)(2 * v));
            total += v;
            if (i + j < n) {
                const struct zo_stream s = record_stream(r, first + i + j, domain_tensor);
                avx512_words(words[j], &s, first_block, N / 4);
            } else {
                memset(words[j], 0, sizeof words[j]);
            }
        }
        for (size_t g = 0; g < N; g++) {
            __m512i x = sums[g];
            UNROLL
            for (size_t j = 0; j < MANY; j++)
                x = _mm512_mask_add_epi16(x, words[j][g], x, twice[j]);
            sums[g] = x;
        }
    }
    /* sum of v h = 2 (sum of v where h = 1) - sum of v */
    const __m512i less = _mm512_set1_epi32(total);
    for (size_t i = 0; i < ZO_DENSE_CHUNK; i += 16) {
        const __m256i half = _mm256_load_si256((const __m256i *)(const void *)sums + i / 16);
        const __m512i x = _mm512_sub_epi32(_mm512_cvtepi16_epi32(half), less);
        _mm512_storeu_si512(acc + i, _mm512_add_epi32(_mm512_loadu_si512(acc + i), x));
    }
}

static void avx512_fold_gauss(int32_t *acc, const struct zo_records *r, size_t first, size_t n,
                              uint32_t domain_tensor, uint32_t first_block)
{
    uint32_t words[64];
    for (size_t k = first; k < first + n; k++) {
        const struct zo_stream s = record_stream(r, k, domain_tensor);
        const __m512i v = _mm512_set1_epi32(r->v[k]);
        for (size_t i = 0; i < ZO_DENSE_CHUNK; i += 32) {
            words16(words, &s, (uint32_t)(first_block + i / 2));
            UNROLL
            for (size_t h = 0; h < 2; h++) {
                int32_t *out = acc + i + 16 * h;
                const __m512i x = _mm512_mullo_epi32(gauss16(words + 32 * h), v);
                _mm512_storeu_si512(out, _mm512_add_epi32(_mm512_loadu_si512(out), x));
            }
        }
    }
}

static void avx512_apply32(uint32_t *m, const int32_t *acc, size_t n, uint32_t coef)
{
    const __m512i c = _mm512_set1_epi32((int32_t)coef);
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 k = first16(n - i);
        const __m512i d = _mm512_mullo_epi32(_mm512_maskz_loadu_epi32(k, acc + i), c);
        _mm512_mask_storeu_epi32(m + i, k, _mm512_sub_epi32(_mm512_maskz_loadu_epi32(k, m + i), d));
    }
}

static void avx512_apply64(uint64_t *m, const int32_t *acc, size_t n, uint64_t coef)
{
    const __m512i c = _mm512_set1_epi64((int64_t)coef);
    for (size_t i = 0; i < n; i += 8) {
        const __mmask8 k = first8(n - i);
        const __m512i d =
            _mm512_mullo_epi64(_mm512_cvtepi32_epi64(_mm256_maskz_loadu_epi32(k, acc + i)), c);
        _mm512_mask_storeu_epi64(m + i, k, _mm512_sub_epi64(_mm512_maskz_loadu_epi64(k, m + i), d));
    }
}

static uint64_t avx512_dot32(const int32_t *m, const uint32_t *x, size_t n)
{
    __m512i s[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 k = first16(n - i);
        const __m512i even = _mm512_maskz_loadu_epi32(k, m + i), odd = _mm512_srli_epi64(even, 32);
        UNROLL
        for (size_t j = 0; j < 3; j++) {
            const __m512i l = _mm512_maskz_loadu_epi32(k, x + j * ZO_LIMBS + i);
            s[j] = _mm512_add_epi64(s[j], _mm512_mul_epi32(even, l));
            s[j] = _mm512_add_epi64(s[j], _mm512_mul_epi32(odd, _mm512_srli_epi64(l, 32)));
        }
    }
    return zo_join_limbs(_mm512_reduce_add_epi64(s[0]), _mm512_reduce_add_epi64(s[1]),
                         _mm512_reduce_add_epi64(s[2]));
}

/* A 32-bit lane takes at most ZO_LIMBS / 16 = 128 limbs of 21 bits. */
static int64_t sum_lanes(__m512i s)
{
    return _mm512_reduce_add_epi64(
        _mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(s)),
                         _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(s, 1))));
}

static uint64_t avx512_dot_bits(const uint32_t *words, const uint32_t *x, size_t n)
{
    __m512i s[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 k = (__mmask16)(first16(n - i) & words[i / 32] >> (i % 32));
        UNROLL
        for (size_t j = 0; j < 3; j++)
            s[j] = _mm512_add_epi32(s[j], _mm512_maskz_loadu_epi32(k, x + j * ZO_LIMBS + i));
    }
    return zo_join_limbs(sum_lanes(s[0]), sum_lanes(s[1]), sum_lanes(s[2]));
}

const struct zo_kernels zo_kernels_avx512 = {
    .name = "avx512",
    .usable = avx512_usable,
    .tile_scratch = sizeof(struct scratch),
    .words = avx512_words,
    .record_words = avx512_record_words,
    .signs_f32 = avx512_signs_f32,
    .gauss_f32 = avx512_gauss_f32,
    .fold_tile = avx512_fold_tile,
    .fold_signs = avx512_fold_signs,
    .fold_gauss = avx512_fold_gauss,
    .apply32 = avx512_apply32,
    .apply64 = avx512_apply64,
    .dot32 = avx512_dot32,
    .dot_bits = avx512_dot_bits,
};
