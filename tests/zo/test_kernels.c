/* Every variant equals ref bit for bit, at sizes on both sides of each vector width, and writes
 * nothing beyond. */
#include "zo/kernels/kernels.h"

#include <onebyte/base/err.h>
#include <onebyte/zo/state.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GUARD = 64 };

/* A sequence of test numbers with no structure (Philox itself has its own known answers). */
static uint32_t next(void)
{
    static uint64_t x = 1;
    x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(x >> 32);
}

static void fill(void *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)p)[i] = (uint8_t)next();
}

static const struct zo_kernels *variant(void **state)
{
    const struct zo_kernels *k = zo_kernels_pick(*state);
    if (!k) {
        print_message("SKIP: no %s on this CPU\n", (const char *)*state);
        skip();
    }
    return k;
}

static void words(void **state)
{
    const struct zo_kernels *k = variant(state);
    static uint32_t want[4 * 70 + GUARD], got[4 * 70 + GUARD];
    static const uint32_t firsts[] = {0, 1, 1000, 0xfffffff0}; /* the block counter wraps */
    for (size_t f = 0; f < ARRAY_LEN(firsts); f++) {
        for (size_t n = 0; n <= 70; n++) {
            const struct zo_stream s = {{next(), next()}, next(), (uint64_t)next() << 32 | next()};
            memset(want, 1, sizeof want);
            memset(got, 1, sizeof got);
            zo_kernels_ref.words(want, &s, firsts[f], n);
            k->words(got, &s, firsts[f], n);
            assert_memory_equal(want, got, sizeof want);
        }
    }
}

enum { N_RECORDS = ZO_TILE_RECORDS, PADDED = N_RECORDS + ZO_TILE_RECORDS + 64 };
static uint32_t lanes[4][PADDED];
static int8_t values[PADDED];
static const struct zo_records records = {lanes[0], lanes[1], lanes[2], lanes[3], values};

static void fill_records(int v_max)
{
    fill(lanes, sizeof lanes);
    for (size_t i = 0; i < PADDED; i++)
        values[i] = (int8_t)((int)(next() % (uint32_t)(2 * v_max + 1)) - v_max);
}

static void record_words(void **state)
{
    const struct zo_kernels *k = variant(state);
    enum { LD = 64 };
    static uint32_t want[4 * 3 * LD], got[4 * 3 * LD];
    fill_records(127);
    for (size_t n = 1; n <= LD; n++) {
        for (size_t first = 0; first < 3; first++) {
            zo_kernels_ref.record_words(want, LD, &records, first * 7, n, 0x01000005, 9, 3);
            k->record_words(got, LD, &records, first * 7, n, 0x01000005, 9, 3);
            for (size_t w = 0; w < 12; w++)
                assert_memory_equal(want + w * LD, got + w * LD, n * sizeof *got);
        }
    }
}

static void floats(void **state)
{
    const struct zo_kernels *k = variant(state);
    static uint32_t bits[2 * 200];
    static float want[200 + GUARD], got[200 + GUARD];
    fill(bits, sizeof bits);
    for (size_t n = 0; n <= 200; n++) {
        for (int add = 0; add < 2; add++) {
            for (size_t i = 0; i < ARRAY_LEN(want); i++)
                want[i] = got[i] = (float)(int32_t)next() * 0x1p-20f;
            zo_kernels_ref.signs_f32(want, bits, n, 0.37f, add != 0);
            k->signs_f32(got, bits, n, 0.37f, add != 0);
            assert_memory_equal(want, got, sizeof want);
            zo_kernels_ref.gauss_f32(want, bits, n, 0.37f, add != 0);
            k->gauss_f32(got, bits, n, 0.37f, add != 0);
            assert_memory_equal(want, got, sizeof want);
        }
    }
}

/* One tile of rows x cols inside a larger matrix, against ref. */
static void compare_tile(const struct zo_kernels *k, size_t rows, size_t cols, size_t n,
                         uint32_t bits, uint64_t coef)
{
    enum { LD = ZO_TILE_RECORDS };
    const size_t stride = cols + 3, elements = rows * stride + GUARD, bytes = elements * (bits / 8);
    static uint32_t a[ZO_TILE_ROWS / 32 * LD], b[ZO_TILE_COLS / 32 * LD];
    uint8_t *want = malloc(bytes), *got = malloc(bytes);
    void *scratch = aligned_alloc(64, k->tile_scratch / 64 * 64 + 64);
    assert_true(want && got && scratch);
    fill(a, sizeof a);
    fill(b, sizeof b);
    fill(want, bytes);
    fill(scratch, k->tile_scratch); /* whatever an earlier tile left */
    memcpy(got, want, bytes);
    struct zo_tile t = {.m = want,
                        .stride = stride,
                        .bits = bits,
                        .rows = rows,
                        .cols = cols,
                        .a = a,
                        .b = b,
                        .ld = LD,
                        .v = values,
                        .n = n,
                        .coef = coef,
                        .scratch = scratch};
    zo_kernels_ref.fold_tile(&t);
    t.m = got;
    k->fold_tile(&t);
    assert_memory_equal(want, got, bytes);
    free(want);
    free(got);
    free(scratch);
}

static void tiles(void **state)
{
    const struct zo_kernels *k = variant(state);
    static const size_t rows[] = {1, 2, 3, 4, 5, 17, 33},
                        cols[] = {1, 15, 16, 17, 31, 32, 33, 65, 160, 191, 192, 193, 420};
    static const size_t counts[] = {1, 2, 3, 4, 5, 6, 16, 17, 31, 64};
    fill_records(127);
    for (size_t r = 0; r < ARRAY_LEN(rows); r++)
        for (size_t c = 0; c < ARRAY_LEN(cols); c++)
            for (size_t n = (r + c) % 3; n < ARRAY_LEN(counts); n += 3)
                compare_tile(k, rows[r], cols[c], counts[n], n % 2 ? 64 : 32,
                             (uint64_t)next() << 32 | next());
    compare_tile(k, ZO_TILE_ROWS, 70, 3, 32, 5);
    compare_tile(k, 3, ZO_TILE_COLS, 3, 64, 5);
}

/* The largest sums a product may have: int16 at its edge, for all-equal and for random signs. */
static void full_tiles(void **state)
{
    const struct zo_kernels *k = variant(state);
    fill_records(45); /* 720 * 45 = 32400 */
    for (size_t i = 0; i < ZO_TILE_RECORDS; i++)
        values[i] = i % 2 ? 45 : -45;
    compare_tile(k, 9, 100, ZO_TILE_RECORDS, 32, 0xfffffff1);
    fill_records(127);
    for (size_t i = 0; i < ZO_TILE_RECORDS; i++)
        values[i] = i < 258 ? (i < 257 ? 127 : 1) : 0; /* sum |v| = 32640 */
    values[258] = 127;                                 /* 32767 */
    compare_tile(k, 9, 100, 259, 32, 1);
    compare_tile(k, 9, 100, 259, 64, UINT64_MAX);
}

static void dense(void **state)
{
    const struct zo_kernels *k = variant(state);
    static int32_t want[ZO_DENSE_CHUNK + GUARD], got[ZO_DENSE_CHUNK + GUARD];
    static const size_t counts[] = {1, 2, 7, 8, 9};
    fill_records(127);
    for (size_t c = 0; c < ARRAY_LEN(counts); c++) {
        fill(want, sizeof want);
        for (size_t i = 0; i < ARRAY_LEN(want); i++)
            want[i] >>= 8;
        memcpy(got, want, sizeof want);
        zo_kernels_ref.fold_signs(want, &records, 3 * c, counts[c], 0x02000001, 16);
        k->fold_signs(got, &records, 3 * c, counts[c], 0x02000001, 16);
        assert_memory_equal(want, got, sizeof want);
        zo_kernels_ref.fold_gauss(want, &records, 3 * c, counts[c] > 2 ? 2 : 1, 0x03000001, 1024);
        k->fold_gauss(got, &records, 3 * c, counts[c] > 2 ? 2 : 1, 0x03000001, 1024);
        assert_memory_equal(want, got, sizeof want);
    }
    memset(values, 127, sizeof values); /* int16 sums at their edge */
    memset(want, 0, sizeof want);
    memset(got, 0, sizeof got);
    zo_kernels_ref.fold_signs(want, &records, 0, ZO_DENSE_RECORDS, 0x02000001, 0);
    k->fold_signs(got, &records, 0, ZO_DENSE_RECORDS, 0x02000001, 0);
    assert_memory_equal(want, got, sizeof want);
}

static void apply(void **state)
{
    const struct zo_kernels *k = variant(state);
    static int32_t acc[100];
    static uint64_t want[100 + GUARD], got[100 + GUARD];
    fill(acc, sizeof acc);
    acc[0] = INT32_MIN;
    for (size_t n = 0; n <= 100; n++) {
        fill(want, sizeof want);
        memcpy(got, want, sizeof want);
        zo_kernels_ref.apply64(want, acc, n, UINT64_C(0xfedcba9876543210));
        k->apply64(got, acc, n, UINT64_C(0xfedcba9876543210));
        assert_memory_equal(want, got, sizeof want);
        zo_kernels_ref.apply32((uint32_t *)want, acc, n, 0xfedcba98);
        k->apply32((uint32_t *)got, acc, n, 0xfedcba98);
        assert_memory_equal(want, got, sizeof want);
    }
}

/* sum m_i x_i mod p the long way: one 128-bit product each. */
static uint64_t slow_dot(const int32_t *m, const struct zo_limbs *x, size_t n)
{
    __int128 sum = 0;
    for (size_t i = 0; i < n; i++) {
        const __int128 v =
            (__int128)x->l[0][i] + ((__int128)x->l[1][i] << 21) + ((__int128)x->l[2][i] << 42);
        sum = (sum + m[i] * v) % (__int128)ZO_DIGEST_P;
    }
    return (uint64_t)((sum + (__int128)ZO_DIGEST_P) % (__int128)ZO_DIGEST_P);
}

static void dots(void **state)
{
    const struct zo_kernels *k = variant(state);
    static struct zo_limbs x;
    static int32_t m[ZO_LIMBS], set[ZO_LIMBS];
    static uint32_t bits[ZO_LIMBS / 32];
    for (int extreme = 0; extreme < 2; extreme++) {
        fill(m, sizeof m);
        fill(bits, sizeof bits);
        for (size_t i = 0; i < ZO_LIMBS; i++) {
            x.l[0][i] = extreme ? 0x1fffff : next() & 0x1fffff;
            x.l[1][i] = extreme ? 0x1fffff : next() & 0x1fffff;
            x.l[2][i] = extreme ? 0x7ffff : next() & 0x7ffff;
            if (extreme)
                m[i] = INT32_MIN;
        }
        if (extreme)
            memset(bits, 255, sizeof bits);
        for (size_t i = 0; i < ZO_LIMBS; i++)
            set[i] = bits[i / 32] >> (i % 32) & 1 ? 1 : 0;
        for (size_t n = 0; n <= ZO_LIMBS; n += n < 70 ? 1 : n < 1000 ? 301 : 512 - n % 512) {
            assert_true(k->dot32(m, x.l[0], n) == slow_dot(m, &x, n));
            assert_true(k->dot_bits(bits, x.l[0], n) == slow_dot(set, &x, n));
        }
        assert_true(k->dot32(m + 5, x.l[0] + 5, 99) == zo_kernels_ref.dot32(m + 5, x.l[0] + 5, 99));
    }
}

static void names(void **state)
{
    (void)state;
    assert_ptr_equal(zo_kernels_pick("ref"), &zo_kernels_ref);
    assert_string_equal(zo_kernels_name(zo_kernels_pick("ref")), "ref");
    assert_non_null(zo_kernels_pick(NULL));
    assert_ptr_equal(zo_kernels_pick(NULL), zo_kernels_pick("auto"));
    assert_null(zo_kernels_pick("sse9"));
    assert_null(zo_kernels_pick(""));
}

#define VARIANT(f, v) cmocka_unit_test_prestate(f, v)
#define ALL(v)                                                                          \
    VARIANT(words, v), VARIANT(record_words, v), VARIANT(floats, v), VARIANT(tiles, v), \
        VARIANT(full_tiles, v), VARIANT(dense, v), VARIANT(apply, v), VARIANT(dots, v)

int main(void)
{
    static char ref[] = "ref", avx2[] = "avx2", avx512[] = "avx512";
    const struct CMUnitTest tests[] = {cmocka_unit_test(names), VARIANT(dots, ref), ALL(avx2),
                                       ALL(avx512)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
