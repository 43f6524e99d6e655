/* zo/kernels/avx2.c -- AVX2.  Bit-identical to ref.c.
 *
 * The rank-1 product looks sums up, as avx512.c explains; here a lane of 16 bytes holds a table of
 * 8 int16, so a group is three records: one vpshufb and one vpaddw do 16 columns x 3 records. */
#include "zo/kernels/kernels.h"

#include <immintrin.h>
#include <string.h>

#define UNROLL _Pragma("GCC unroll 8")

enum {
    THREE = 3,
    GROUPS = ZO_TILE_RECORDS / THREE,
    PANEL = 4, /* registers of 16 columns: 8 sums, 4 indices, a table and a constant */
    ROWS = 2,
    HALVES = ZO_TILE_COLS / 16,
};
_Static_assert(ZO_TILE_RECORDS % THREE == 0, "no group is cut by the end of the buffers");
_Static_assert(HALVES % PANEL == 0, "whole panels");

struct scratch {
    __m256i columns[HALVES * GROUPS]; /* [panel][group][PANEL]: byte indices of patterns b */
    uint32_t rows[ZO_TILE_ROWS / 8][GROUPS][8]; /* patterns a of 8 rows, in every byte, doubled */
    __m256i sums[GROUPS];                       /* U, twice */
};

static bool avx2_usable(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
}

static inline __m256i load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

static inline void store(void *p, __m256i x)
{
    _mm256_storeu_si256((__m256i *)p, x);
}

/* Ten rounds on 2 x 4 counters in 64-bit lanes; the upper halves hold rubbish that no
 * multiplication reads. */
static inline void philox8(__m256i x[4][2], __m256i k0[2], __m256i k1[2])
{
    const __m256i m0 = _mm256_set1_epi64x(0xD2511F53), m1 = _mm256_set1_epi64x(0xCD9E8D57);
    const __m256i w0 = _mm256_set1_epi64x(0x9E3779B9), w1 = _mm256_set1_epi64x(0xBB67AE85);
    for (int round = 0; round < 10; round++) {
        UNROLL
        for (int h = 0; h < 2; h++) {
            const __m256i a = _mm256_mul_epu32(x[0][h], m0), b = _mm256_mul_epu32(x[2][h], m1);
            x[0][h] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(b, 32), x[1][h]), k0[h]);
            x[1][h] = b;
            x[2][h] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(a, 32), x[3][h]), k1[h]);
            x[3][h] = a;
            k0[h] = _mm256_add_epi64(k0[h], w0);
            k1[h] = _mm256_add_epi64(k1[h], w1);
        }
    }
}

/* out [32] <- 8 blocks from first_block on.  Lane order makes the two interleaved halves come out
 * in sequence. */
static inline void words8(uint32_t *out, const struct zo_stream *s, uint32_t first_block)
{
    const __m256i order = _mm256_set_epi64x(3, 1, 2, 0), low = _mm256_set1_epi64x(0xffffffff);
    __m256i x[4][2], k0[2], k1[2];
    UNROLL
    for (int h = 0; h < 2; h++) {
        x[0][h] = _mm256_add_epi64(
            order, _mm256_set1_epi64x((int64_t)((uint64_t)first_block + 4 * (uint64_t)h)));
        x[1][h] = _mm256_set1_epi64x(s->domain_tensor);
        x[2][h] = _mm256_set1_epi64x((int64_t)s->seq);
        x[3][h] = _mm256_set1_epi64x((int64_t)(s->seq >> 32));
        k0[h] = _mm256_set1_epi64x(s->key[0]);
        k1[h] = _mm256_set1_epi64x(s->key[1]);
    }
    philox8(x, k0, k1);
    UNROLL
    for (int h = 0; h < 2; h++) {
        const __m256i p =
            _mm256_or_si256(_mm256_and_si256(x[0][h], low), _mm256_slli_epi64(x[1][h], 32));
        const __m256i q =
            _mm256_or_si256(_mm256_and_si256(x[2][h], low), _mm256_slli_epi64(x[3][h], 32));
        store(out + 16 * h, _mm256_unpacklo_epi64(p, q));
        store(out + 16 * h + 8, _mm256_unpackhi_epi64(p, q));
    }
}

static void avx2_words(uint32_t *out, const struct zo_stream *s, uint32_t first_block,
                       size_t n_blocks)
{
    size_t b = 0;
    for (; b + 8 <= n_blocks; b += 8)
        words8(out + 4 * b, s, (uint32_t)(first_block + b));
    if (b < n_blocks) {
        uint32_t rest[32];
        words8(rest, s, (uint32_t)(first_block + b));
        memcpy(out + 4 * b, rest, (n_blocks - b) * 16);
    }
}

/* The low halves of 2 x 4 lanes, in order. */
static inline __m256i low_halves(__m256i a, __m256i b)
{
    const __m256i even = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    return _mm256_blend_epi32(_mm256_permutevar8x32_epi32(a, even),
                              _mm256_permutevar8x32_epi32(b, even), 0xf0);
}

static inline __m256i widen(const uint32_t *p)
{
    return _mm256_cvtepu32_epi64(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* Block `block` of 8 records' streams: out[w * ld + r]. */
static inline void record_block(uint32_t *out, size_t ld, const struct zo_records *r, size_t at,
                                uint32_t domain_tensor, uint32_t block)
{
    __m256i x[4][2], k0[2], k1[2];
    UNROLL
    for (int h = 0; h < 2; h++) {
        const size_t i = at + 4 * (size_t)h;
        x[0][h] = _mm256_set1_epi64x(block);
        x[1][h] = _mm256_set1_epi64x(domain_tensor);
        x[2][h] = widen(r->seq_lo + i);
        x[3][h] = widen(r->seq_hi + i);
        k0[h] = widen(r->key0 + i);
        k1[h] = widen(r->key1 + i);
    }
    philox8(x, k0, k1);
    UNROLL
    for (size_t w = 0; w < 4; w++)
        store(out + w * ld, low_halves(x[w][0], x[w][1]));
}

static void avx2_record_words(uint32_t *out, size_t ld, const struct zo_records *r, size_t first,
                              size_t n, uint32_t domain_tensor, uint32_t first_block,
                              size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++)
        for (size_t i = 0; i < n; i += 8)
            record_block(out + 4 * b * ld + i, ld, r, first + i, domain_tensor,
                         (uint32_t)(first_block + b));
}

/* All ones in the 32-bit lanes whose bit (0 .. 7, of the low byte) is set. */
static inline __m256i mask8(uint32_t bits)
{
    const __m256i select = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int32_t)bits), select), select);
}

/* The same for 16-bit lanes and bits 0 .. 15. */
static inline __m256i mask16(uint32_t bits)
{
    const __m256i select = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048,
                                             4096, 8192, 16384, -32768);
    return _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16((short)bits), select), select);
}

static void avx2_signs_f32(float *out, const uint32_t *words, size_t n, float scale, bool add)
{
    const __m256 plus = _mm256_set1_ps(scale), minus = _mm256_set1_ps(-scale);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 mask = _mm256_castsi256_ps(mask8(words[i / 32] >> (i % 32)));
        __m256 z = _mm256_blendv_ps(minus, plus, mask);
        if (add)
            z = _mm256_add_ps(_mm256_loadu_ps(out + i), z);
        _mm256_storeu_ps(out + i, z);
    }
    for (; i < n; i++) {
        const float z = words[i / 32] >> (i % 32) & 1 ? scale : -scale;
        out[i] = add ? out[i] + z : z;
    }
}

static inline int gauss1(const uint32_t *words)
{
    return __builtin_popcount(words[0]) + __builtin_popcount(words[1]) - 32;
}

/* h of 8 elements from their 16 words, in 32-bit lanes. */
static inline __m256i gauss8(const uint32_t *words)
{
    const __m256i counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
                                            2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i sums[2];
    UNROLL
    for (int h = 0; h < 2; h++) {
        const __m256i x = load(words + 8 * h);
        const __m256i lo = _mm256_shuffle_epi8(counts, _mm256_and_si256(x, nibble));
        const __m256i hi =
            _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
        sums[h] = _mm256_sad_epu8(_mm256_add_epi8(lo, hi), _mm256_setzero_si256());
    }
    return _mm256_sub_epi32(low_halves(sums[0], sums[1]), _mm256_set1_epi32(32));
}

static void avx2_gauss_f32(float *out, const uint32_t *words, size_t n, float scale, bool add)
{
    const float quarter = scale * 0.25f;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 z =
            _mm256_mul_ps(_mm256_cvtepi32_ps(gauss8(words + 2 * i)), _mm256_set1_ps(quarter));
        if (add)
            z = _mm256_add_ps(_mm256_loadu_ps(out + i), z);
        _mm256_storeu_ps(out + i, z);
    }
    for (; i < n; i++) {
        const float z = (float)gauss1(words + 2 * i) * quarter;
        out[i] = add ? out[i] + z : z;
    }
}

/* U of every group of three: bit t of the pattern turns record t's sign; missing records count 0.
 */
static void pack_sums(struct scratch *s, const struct zo_tile *t, size_t groups)
{
    for (size_t g = 0; g < groups; g++) {
        int16_t u[16];
        for (size_t x = 0; x < 8; x++) {
            int sum = 0;
            for (size_t i = 0; i < THREE && g * THREE + i < t->n; i++)
                sum += x >> i & 1 ? -t->v[g * THREE + i] : t->v[g * THREE + i];
            u[x] = u[x + 8] = (int16_t)sum;
        }
        s->sums[g] = load(u);
    }
}

/* Patterns of 16 columns as indices of the two bytes of an int16.  A panel always has room for
 * PANEL registers; those past the tile's columns hold what record_words left there and are not
 * stored. */
static void pack_columns(struct scratch *s, const struct zo_tile *t, size_t groups)
{
    const size_t n = (t->cols + 31) / 32 * 2;
    for (size_t h = 0; h < n; h++) {
        __m256i *out = s->columns + h / PANEL * PANEL * GROUPS + h % PANEL;
        const uint32_t *b = t->b + h / 2 * t->ld;
        for (size_t g = 0; g < groups; g++, b += THREE) {
            __m256i x = _mm256_set1_epi16(0x0100);
            UNROLL
            for (int i = 0; i < THREE; i++)
                x = _mm256_or_si256(x, _mm256_and_si256(mask16(b[i] >> (h % 2 * 16)),
                                                        _mm256_set1_epi16((short)(0x0202 << i))));
            out[g * PANEL] = x;
        }
    }
}

static void pack_rows(struct scratch *s, const struct zo_tile *t, size_t groups)
{
    for (size_t i = 0; i < t->rows; i += 8) {
        const uint32_t *a = t->a + i / 32 * t->ld;
        for (size_t g = 0; g < groups; g++, a += THREE) {
            __m256i x = _mm256_setzero_si256();
            UNROLL
            for (int r = 0; r < THREE; r++)
                x = _mm256_or_si256(x, _mm256_and_si256(mask8(a[r] >> (i % 32)),
                                                        _mm256_set1_epi32(0x02020202 << r)));
            store(s->rows[i / 8][g], x);
        }
    }
}

/* m [<= 16 columns] -= coef * sum. */
static inline void apply_sum(const struct zo_tile *t, size_t row, size_t col, __m256i sum)
{
    const size_t at = row * t->stride + col;
    if (t->bits == 32 && col + 16 <= t->cols) {
        const __m256i coef = _mm256_set1_epi32((int32_t)(uint32_t)t->coef);
        UNROLL
        for (int h = 0; h < 2; h++) {
            uint32_t *m = (uint32_t *)t->m + at + 8 * h;
            const __m128i half = h ? _mm256_extracti128_si256(sum, 1) : _mm256_castsi256_si128(sum);
            store(m,
                  _mm256_sub_epi32(load(m), _mm256_mullo_epi32(_mm256_cvtepi16_epi32(half), coef)));
        }
        return;
    }
    int16_t lanes[16];
    store(lanes, sum);
    for (size_t j = 0; j < 16 && col + j < t->cols; j++) {
        if (t->bits == 32)
            ((uint32_t *)t->m)[at + j] -= (uint32_t)t->coef * (uint32_t)(int32_t)lanes[j];
        else
            ((uint64_t *)t->m)[at + j] -= t->coef * (uint64_t)(int64_t)lanes[j];
    }
}

/* ROWS rows x PANEL registers of 16 columns; what lies past the tile's end is computed and not
 * stored. */
static void product(const struct zo_tile *t, const struct scratch *s, size_t groups, size_t row,
                    size_t panel)
{
    const __m256i bytes = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0,
                                           1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m256i *b = s->columns + panel * PANEL * GROUPS;
    const uint32_t *a = s->rows[row / 8][0] + row % 8;
    __m256i acc[ROWS][PANEL], x[PANEL];
    UNROLL
    for (size_t r = 0; r < ROWS; r++)
        UNROLL
    for (size_t c = 0; c < PANEL; c++)
        acc[r][c] = _mm256_setzero_si256();
    for (size_t g = 0; g < groups; g++, a += 8, b += PANEL) {
        UNROLL
        for (size_t c = 0; c < PANEL; c++)
            x[c] = _mm256_load_si256(b + c);
        UNROLL
        for (size_t r = 0; r < ROWS; r++) {
            const __m256i flip = _mm256_xor_si256(bytes, _mm256_set1_epi32((int32_t)a[r]));
            const __m256i table = _mm256_shuffle_epi8(s->sums[g], flip);
            UNROLL
            for (size_t c = 0; c < PANEL; c++)
                acc[r][c] = _mm256_add_epi16(acc[r][c], _mm256_shuffle_epi8(table, x[c]));
        }
    }
    UNROLL
    for (size_t r = 0; r < ROWS; r++)
        UNROLL
    for (size_t c = 0; c < PANEL; c++)
        if (row + r < t->rows && (panel * PANEL + c) * 16 < t->cols)
            apply_sum(t, row + r, (panel * PANEL + c) * 16, acc[r][c]);
}

static void avx2_fold_tile(const struct zo_tile *t)
{
    struct scratch *s = t->scratch;
    const size_t groups = (t->n + THREE - 1) / THREE;
    pack_sums(s, t, groups);
    pack_columns(s, t, groups);
    pack_rows(s, t, groups);
    for (size_t panel = 0; panel * PANEL * 16 < t->cols; panel++)
        for (size_t row = 0; row < t->rows; row += ROWS)
            product(t, s, groups, row, panel);
}

static struct zo_stream record_stream(const struct zo_records *r, size_t i, uint32_t domain_tensor)
{
    return (struct zo_stream){.key = {r->key0[i], r->key1[i]},
                              .domain_tensor = domain_tensor,
                              .seq = (uint64_t)r->seq_hi[i] << 32 | r->seq_lo[i]};
}

/* int16 sums: at most 128 records of 2 |v| <= 254. */
_Static_assert(ZO_DENSE_RECORDS * 254 <= 32767, "dense sums fit int16");

static void avx2_fold_signs(int32_t *acc, const struct zo_records *r, size_t first, size_t n,
                            uint32_t domain_tensor, uint32_t first_block)
{
    enum { MANY = 4, N = ZO_DENSE_CHUNK / 32 };
    uint32_t words[MANY][N];
    __m256i sums[2 * N];
    int32_t total = 0;
    memset(sums, 0, sizeof sums);
    for (size_t i = 0; i < n; i += MANY) {
        __m256i twice[MANY];
        for (size_t j = 0; j < MANY; j++) {
            const int v = i + j < n ? r->v[first + i + j] : 0;
            twice[j] = _mm256_set1_epi16((short)(2 * v));
            total += v;
            if (i + j < n) {
                const struct zo_stream s = record_stream(r, first + i + j, domain_tensor);
                avx2_words(words[j], &s, first_block, N / 4);
            } else {
                memset(words[j], 0, sizeof words[j]);
            }
        }
        for (size_t g = 0; g < 2 * N; g++) {
            __m256i x = sums[g];
            UNROLL
            for (size_t j = 0; j < MANY; j++)
                x = _mm256_add_epi16(
                    x, _mm256_and_si256(mask16(words[j][g / 2] >> (g % 2 * 16)), twice[j]));
            sums[g] = x;
        }
    }
    /* sum of v h = 2 (sum of v where h = 1) - sum of v */
    const __m256i less = _mm256_set1_epi32(total);
    for (size_t i = 0; i < ZO_DENSE_CHUNK; i += 8) {
        const __m128i half = _mm_load_si128((const __m128i *)(const void *)sums + i / 8);
        store(acc + i,
              _mm256_add_epi32(load(acc + i), _mm256_sub_epi32(_mm256_cvtepi16_epi32(half), less)));
    }
}

static void avx2_fold_gauss(int32_t *acc, const struct zo_records *r, size_t first, size_t n,
                            uint32_t domain_tensor, uint32_t first_block)
{
    uint32_t words[32];
    for (size_t k = first; k < first + n; k++) {
        const struct zo_stream s = record_stream(r, k, domain_tensor);
        const __m256i v = _mm256_set1_epi32(r->v[k]);
        for (size_t i = 0; i < ZO_DENSE_CHUNK; i += 16) {
            words8(words, &s, (uint32_t)(first_block + i / 2));
            UNROLL
            for (size_t h = 0; h < 2; h++) {
                int32_t *out = acc + i + 8 * h;
                store(out,
                      _mm256_add_epi32(load(out), _mm256_mullo_epi32(gauss8(words + 16 * h), v)));
            }
        }
    }
}

static void avx2_apply32(uint32_t *m, const int32_t *acc, size_t n, uint32_t coef)
{
    const __m256i c = _mm256_set1_epi32((int32_t)coef);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        store(m + i, _mm256_sub_epi32(load(m + i), _mm256_mullo_epi32(load(acc + i), c)));
    for (; i < n; i++)
        m[i] -= coef * (uint32_t)acc[i];
}

static void avx2_apply64(uint64_t *m, const int32_t *acc, size_t n, uint64_t coef)
{
    for (size_t i = 0; i < n; i++) /* AVX2 has no 64-bit product; few tensors are this wide */
        m[i] -= coef * (uint64_t)(int64_t)acc[i];
}

static int64_t sum_lanes(__m256i s)
{
    int64_t lanes[4];
    store(lanes, s);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

static uint64_t avx2_dot32(const int32_t *m, const uint32_t *x, size_t n)
{
    int64_t sums[3];
    for (size_t j = 0; j < 3; j++) {
        const uint32_t *l = x + j * ZO_LIMBS;
        __m256i s = _mm256_setzero_si256();
        size_t i = 0;
        for (; i + 8 <= n; i += 8) {
            const __m256i a = load(m + i), b = load(l + i);
            s = _mm256_add_epi64(s, _mm256_mul_epi32(a, b));
            s = _mm256_add_epi64(
                s, _mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32)));
        }
        sums[j] = sum_lanes(s);
        for (; i < n; i++)
            sums[j] += (int64_t)m[i] * l[i];
    }
    return zo_join_limbs(sums[0], sums[1], sums[2]);
}

static uint64_t avx2_dot_bits(const uint32_t *words, const uint32_t *x, size_t n)
{
    int64_t sums[3];
    for (size_t j = 0; j < 3; j++) {
        const uint32_t *l = x + j * ZO_LIMBS;
        __m256i s = _mm256_setzero_si256();
        size_t i = 0;
        for (; i + 8 <= n; i += 8) { /* a lane takes at most 256 limbs of 21 bits */
            s = _mm256_add_epi32(s,
                                 _mm256_and_si256(mask8(words[i / 32] >> (i % 32)), load(l + i)));
        }
        sums[j] =
            sum_lanes(_mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(s)),
                                       _mm256_cvtepi32_epi64(_mm256_extracti128_si256(s, 1))));
        for (; i < n; i++)
            sums[j] += words[i / 32] >> (i % 32) & 1 ? (int64_t)l[i] : 0;
    }
    return zo_join_limbs(sums[0], sums[1], sums[2]);
}

const struct zo_kernels zo_kernels_avx2 = {
    .name = "avx2",
    .usable = avx2_usable,
    .tile_scratch = sizeof(struct scratch),
    .words = avx2_words,
    .record_words = avx2_record_words,
    .signs_f32 = avx2_signs_f32,
    .gauss_f32 = avx2_gauss_f32,
    .fold_tile = avx2_fold_tile,
    .fold_signs = avx2_fold_signs,
    .fold_gauss = avx2_fold_gauss,
    .apply32 = avx2_apply32,
    .apply64 = avx2_apply64,
    .dot32 = avx2_dot32,
    .dot_bits = avx2_dot_bits,
};
