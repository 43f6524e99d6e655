/* Coefficients of SPEC 4 by hand: edges of the schedule, floors toward minus infinity, rounding,
 * the energy bound. */
#include <onebyte/zo/rules.h>

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void schedule(void **state)
{
    const struct zo_rules r = {
        .steps = 100, .n_knots = 4, .knots = {{0, 10}, {3, 0}, {50, 94}, {60, 7}}};
    (void)state;
    assert_true(zo_lambda(&r, 0) == 10);
    assert_true(zo_lambda(&r, 1) == 6); /* 10 - 10/3 = 6.67: floor of -3.33 is -4 */
    assert_true(zo_lambda(&r, 2) == 3); /* 10 + floor(-6.67) */
    assert_true(zo_lambda(&r, 3) == 0);
    assert_true(zo_lambda(&r, 4) == 2); /* 94 / 47 a step */
    assert_true(zo_lambda(&r, 49) == 92);
    assert_true(zo_lambda(&r, 50) == 94);
    assert_true(zo_lambda(&r, 51) == 85); /* 94 + floor(-8.7) */
    assert_true(zo_lambda(&r, 60) == 7);
    assert_true(zo_lambda(&r, 99) == 7); /* the last y after the last knot */
    assert_true(zo_lambda(&r, 100) == 0);
    assert_true(zo_lambda(&r, UINT64_MAX) == 0);
}

static void steep_schedule(void **state)
{
    const uint64_t top = (UINT64_C(1) << 62) - 1, far = (UINT64_C(1) << 63) - 1;
    const struct zo_rules r = {.steps = UINT64_MAX, .n_knots = 2, .knots = {{0, top}, {far, 0}}};
    (void)state;
    assert_true(zo_lambda(&r, 0) == top);
    assert_true(zo_lambda(&r, 1) == top - 1); /* floor of a hair below 0 */
    assert_true(zo_lambda(&r, 2) == top - 1); /* slope just above -1/2: exactly -1 + tiny */
    assert_true(zo_lambda(&r, 3) == top - 2);
    assert_true(zo_lambda(&r, far) == 0);
    assert_true(zo_lambda(&r, far - 1) == 0);
}

static void weights(void **state)
{
    (void)state;
    assert_true(zo_weight(16, 0) == UINT64_C(1) << 32);
    assert_true(zo_weight(16, 16) == UINT64_C(1) << 32);
    assert_true(zo_weight(16, 17) == (UINT64_C(16) << 32) / 17);
    assert_true(zo_weight(1, UINT64_MAX) == 0);
    assert_true(zo_weight(UINT64_C(1) << 62, 5) == UINT64_C(1) << 32);
}

static void coefficients(void **state)
{
    const uint64_t one = UINT64_C(1) << 32;
    (void)state;
    /* e = 61: lambda * 2^32 / 2^33, half up */
    assert_true(zo_coef(0, one, 61) == 0);
    assert_true(zo_coef(1, one, 61) == 1);
    assert_true(zo_coef(2, one, 61) == 1);
    assert_true(zo_coef(3, one, 61) == 2);
    assert_true(zo_coef(3, one - 1, 61) == 1);
    /* e = 0: lambda / 2^62 */
    assert_true(zo_coef((UINT64_C(1) << 62) - 1, one, 0) == 1);
    assert_true(zo_coef(UINT64_C(1) << 61, one, 0) == 1);
    assert_true(zo_coef((UINT64_C(1) << 61) - 1, one, 0) == 0);
    /* the largest product needs 94 bits */
    assert_true(zo_coef((UINT64_C(1) << 62) - 1, one, 61) == UINT64_C(1) << 61);
}

/* The floor of a root, found without roots. */
static uint64_t root(unsigned __int128 x)
{
    uint64_t low = 0, high = UINT64_C(1) << 33;
    while (high - low > 1) {
        const uint64_t mid = low + (high - low) / 2;
        if ((unsigned __int128)mid * mid <= x)
            low = mid;
        else
            high = mid;
    }
    return low;
}

static void energy(void **state)
{
    const struct zo_rules r = {.unit = 0}, fixed = {.unit = 1};
    static int8_t codes[1024];
    (void)state;
    for (size_t n = 1; n <= 1024; n = n * 3 / 2 + 1) {
        for (int v = 1; v <= 127; v += 9) {
            memset(codes, v, n);
            const uint64_t s = (uint64_t)n * (uint64_t)(v * v), a = 33856 * (n + root(36 * n));
            const uint64_t cut = 25 * s > a ? root(((unsigned __int128)a << 32) / (25 * s)) : 65536;
            const uint64_t l = UINT64_C(0x123456789abcdef);
            assert_true(zo_coef_bounded(&r, l, codes, n) ==
                        (uint64_t)(((unsigned __int128)l * cut) >> 16));
            assert_true(zo_coef_bounded(&fixed, l, codes, n) == l);
            assert_true(25 * s <= a || cut < 65536);
        }
    }
    memset(codes, -128, sizeof codes); /* voids have no energy */
    assert_true(zo_coef_bounded(&r, 99, codes, 1024) == 99);
    /* DESIGN 3: honest normal segments are untouched: rms 32 is well below the bound */
    memset(codes, 32, sizeof codes);
    assert_true(zo_coef_bounded(&r, 99, codes, 1024) == 99);
    memset(codes, 127, sizeof codes);
    assert_true(zo_coef_bounded(&r, 1000, codes, 1024) < 400);
}

static void shapes(void **state)
{
    const struct zo_tensor scalar = {.n_dims = 0}, vector = {.n_dims = 1, .dims = {7}},
                           conv = {.n_dims = 4, .dims = {2, 3, 4, 5}};
    (void)state;
    assert_true(zo_tensor_rows(&scalar) == 1 && zo_tensor_cols(&scalar) == 1 &&
                zo_tensor_elements(&scalar) == 1);
    assert_true(zo_tensor_rows(&vector) == 7 && zo_tensor_cols(&vector) == 1 &&
                !zo_tensor_is_matrix(&vector));
    assert_true(zo_tensor_rows(&conv) == 2 && zo_tensor_cols(&conv) == 60 &&
                zo_tensor_elements(&conv) == 120);
    assert_true(zo_tensor_is_matrix(&conv));
}

static void example_groups(void **state)
{
    const struct zo_rules one = {.k = 1}, four = {.k = 4};
    const uint32_t key[2] = {1, 2};
    uint64_t hits[10] = {0};
    (void)state;
    for (uint64_t seq = 0; seq < 4000; seq++) {
        const uint64_t i = zo_example_index(&one, key, seq, 10);
        assert_true(i < 10);
        hits[i]++;
        assert_true(zo_example_index(&four, key, seq, 10) ==
                    zo_example_index(&one, key, seq / 4, 10));
    }
    for (size_t i = 0; i < 10; i++)
        assert_in_range(hits[i], 300, 500); /* 400 +- 5 sigma, fixed seed */
    assert_true(zo_example_index(&one, key, 5, 1) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedule),       cmocka_unit_test(steep_schedule),
        cmocka_unit_test(weights),        cmocka_unit_test(coefficients),
        cmocka_unit_test(energy),         cmocka_unit_test(shapes),
        cmocka_unit_test(example_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
