/* Philox against Random123's kat_vectors, and the layout of streams. */
#include <onebyte/base/err.h>
#include <onebyte/zo/direction.h>
#include <onebyte/zo/philox.h>

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void known_answers(void **state)
{
    static const struct {
        uint32_t ctr[4], key[2], out[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(kat); i++) {
        uint32_t out[4];
        zo_philox(out, kat[i].ctr, kat[i].key);
        assert_memory_equal(out, kat[i].out, sizeof out);
        memcpy(out, kat[i].ctr, sizeof out); /* out may alias ctr */
        zo_philox(out, out, kat[i].key);
        assert_memory_equal(out, kat[i].out, sizeof out);
    }
}

/* The counter is {block, domain << 24 | tensor, seq low, seq high}: the third vector, taken apart.
 */
static void a_stream_is_the_documented_counter(void **state)
{
    const uint32_t key[2] = {0xa4093822, 0x299f31d0};
    static const uint32_t want[4] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
    const struct zo_stream s = zo_stream(key, 0x85, 0xa308d3, UINT64_C(0x0370734413198a2e));
    uint32_t out[4];
    (void)state;
    zo_stream_block(out, &s, 0x243f6a88);
    assert_memory_equal(out, want, sizeof out);
}

/* Word w is word w % 4 of block w / 4, from wherever one starts. */
static void any_slice_is_the_same_stream(void **state)
{
    const uint32_t key[2] = {7, 9};
    const struct zo_stream s = zo_stream(key, ZO_DOMAIN_B, 12, UINT64_C(1) << 40);
    static const char *const names[] = {"ref", "avx2", "avx512"};
    uint32_t all[400];
    (void)state;
    for (uint32_t b = 0; b < 100; b++)
        zo_stream_block(all + 4 * b, &s, b);
    for (size_t v = 0; v < ARRAY_LEN(names); v++) {
        const struct zo_kernels *k = zo_kernels_pick(names[v]);
        for (size_t first = 0; k && first < 70; first++) {
            for (size_t n = 0; n < 300; n += 1 + n / 3) {
                uint32_t got[302];
                memset(got, 0xee, sizeof got);
                zo_stream_words(got, &s, first, n, k);
                assert_memory_equal(got, all + first, n * sizeof *got);
                assert_int_equal(got[n], 0xeeeeeeee);
            }
        }
    }
}

/* h from its definition, and z = h / 4, z = +-1, of elements first .. on. */
static void numbers_follow_the_words(void **state)
{
    const uint32_t key[2] = {0xdead, 0xbeef};
    const struct zo_stream s = zo_stream(key, ZO_DOMAIN_GAUSS, 3, 5);
    static const char *const names[] = {"ref", "avx2", "avx512"};
    static uint32_t w[2600];
    static float out[1301];
    (void)state;
    for (uint32_t b = 0; b < 650; b++)
        zo_stream_block(w + 4 * b, &s, b);
    for (size_t v = 0; v < ARRAY_LEN(names); v++) {
        const struct zo_kernels *k = zo_kernels_pick(names[v]);
        for (size_t first = 0; k && first < 40; first += 1 + first / 5) {
            for (size_t n = 0; n < 1200; n += 1 + n / 2) {
                out[n] = 77;
                zo_signs_f32(out, &s, first, n, 0.5f, false, k);
                zo_signs_f32(out, &s, first, n, 1.5f, true, k);
                for (size_t i = first; i < first + n; i++)
                    assert_true(out[i - first] == (w[i / 32] >> (i % 32) & 1 ? 2.0f : -2.0f));
                zo_gauss_f32(out, &s, first, n, 1.0f, false, k);
                zo_gauss_f32(out, &s, first, n, 3.0f, true, k);
                for (size_t i = first; i < first + n; i++)
                    assert_true(out[i - first] == (float)(__builtin_popcount(w[2 * i]) +
                                                          __builtin_popcount(w[2 * i + 1]) - 32));
                assert_true(out[n] == 77);
            }
        }
    }
}

/* Rows of every kind: rank-1 is the outer product of its factors; slices agree with the whole. */
static void rows_of_every_kind(void **state)
{
    struct zo_tensor tensors[] = {{.n_dims = 2, .dims = {37, 45}},
                                  {.n_dims = 1, .dims = {70}},
                                  {.n_dims = 3, .dims = {5, 3, 2}}};
    struct zo_rules rules = {.n_tensors = 3, .tensors = tensors};
    const struct zo_kernels *k = zo_kernels_pick("auto");
    const uint32_t key[2] = {3, 4};
    static float whole[37 * 45], part[37 * 45], a[37], b[45];
    (void)state;
    for (int kind = ZO_RANK1; kind <= ZO_GAUSSIAN; kind++) {
        rules.direction = (enum zo_direction)kind;
        for (uint32_t t = 0; t < 3; t++) {
            const size_t rows = (size_t)zo_tensor_rows(&tensors[t]),
                         cols = (size_t)zo_tensor_cols(&tensors[t]);
            zo_direction_rows_f32(whole, &rules, t, key, 9, 0, rows, 1.0f, false, k);
            for (size_t row = 0; row < rows; row++) {
                zo_direction_rows_f32(part, &rules, t, key, 9, row, 1, 1.0f, false, k);
                assert_memory_equal(part, whole + row * cols, cols * sizeof *part);
            }
            if (kind == ZO_RANK1 && t != 1) {
                zo_direction_a_f32(a, key, 9, t, 0, rows, k);
                zo_direction_b_f32(b, key, 9, t, 0, cols, k);
                for (size_t i = 0; i < rows * cols; i++)
                    assert_true(whole[i] == a[i / cols] * b[i % cols]);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(a_stream_is_the_documented_counter),
        cmocka_unit_test(any_slice_is_the_same_stream),
        cmocka_unit_test(numbers_follow_the_words),
        cmocka_unit_test(rows_of_every_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
