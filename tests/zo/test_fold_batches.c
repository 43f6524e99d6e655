/* Segments without a counting record between others: the fold sorts segments into classes of equal coefficient, and an
 * empty one must not make its neighbours share a coefficient.  (Found by the demo: when the loss reaches zero, so do the
 * codes, and peers that folded in other batches differed.) */
#include <onebyte/zo/state.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { SEGMENTS = 12, COUNT = 16 };

static void empty_segments_join_no_classes(void **state)
{
    (void)state;
    struct zo_tensor tensors[] = {{.name = "a", .n_dims = 2, .dims = {40, 24}, .bits = 32, .e = 27},
                                  {.name = "b", .n_dims = 1, .dims = {24}, .bits = 64, .e = 55}};
    const struct zo_rules rules = {.direction = ZO_RANK1, .sides = 2, .k = 1, .n0 = 64, .steps = 100, .n_knots = 2,
                                   .knots = {{0, UINT64_C(1) << 45}, {100, 0}}, .n_tensors = 2, .tensors = tensors};
    const uint32_t digest_key[2] = {1, 2};
    int8_t codes[SEGMENTS][COUNT];
    struct zo_fold folds[SEGMENTS];
    for (size_t i = 0; i < SEGMENTS; i++) {
        for (size_t j = 0; j < COUNT; j++) /* every third segment is all zeros, or all void */
            codes[i][j] = i % 3 == 1 ? (int8_t)(i % 2 ? 0 : -128) : (int8_t)((i * 7 + j * 13) % 61) - 30;
        /* segments 3k+1 and 3k+2 have the same coefficient, 3k another: sorted, the empty one stands between them */
        folds[i] = (struct zo_fold){.key = {(uint32_t)i, 9}, .first_seq = 0, .count = COUNT, .step = i % 3 == 0 ? 50 : 5,
                                    .lag = COUNT, .codes = codes[i]};
    }
    for (size_t order = 0; order < 2; order++) {
        uint64_t digests[3];
        const size_t batches[] = {1, 5, SEGMENTS};
        for (size_t b = 0; b < 3; b++) {
            struct zo_state *s;
            assert_int_equal(zo_state_new(&s, &rules, digest_key), ERR_OK);
            for (size_t i = 0; i < SEGMENTS; i += batches[b]) {
                const size_t n = i + batches[b] <= SEGMENTS ? batches[b] : SEGMENTS - i;
                assert_int_equal(zo_state_fold(s, folds + i, n, zo_kernels_pick("ref"), NULL), ERR_OK);
            }
            digests[b] = zo_state_digest(s, zo_kernels_pick("ref"), NULL);
            zo_state_free(s);
        }
        assert_true(digests[0] != 0);
        assert_true(digests[0] == digests[1]);
        assert_true(digests[0] == digests[2]);
        for (size_t i = 0; i < SEGMENTS; i++) /* the other way round: the empty one sorts before, then after */
            folds[i].step = i % 3 == 0 ? 5 : 50;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(empty_segments_join_no_classes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
