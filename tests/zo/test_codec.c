/* Bytes: half floats against every pattern, rounding, void, history, fixed unit; and the two
 * projections. */
#include <onebyte/base/err.h>
#include <onebyte/zo/codec.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

/* Every finite pattern survives, and what lies just beside the middle of two neighbours goes the
 * right way. */
static void every_half(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        const double x = zo_f16_to_double((uint16_t)h), next = zo_f16_to_double((uint16_t)(h + 1)),
                     mid = (x + next) / 2;
        assert_true(next > x);
        assert_int_equal(zo_f16_from_double(x), h);
        assert_int_equal(zo_f16_from_double(-x), h | 0x8000);
        assert_int_equal(zo_f16_from_double(nextafter(mid, 0)), h);
        assert_int_equal(zo_f16_from_double(mid), h + (h & 1)); /* ties to even */
        assert_int_equal(zo_f16_from_double(nextafter(mid, INFINITY)), h + 1);
    }
    assert_true(zo_f16_to_double(0x3c00) == 1.0);
    assert_true(zo_f16_to_double(0xc000) == -2.0);
    assert_true(zo_f16_to_double(0x7bff) == 65504.0);
    assert_true(zo_f16_to_double(1) == 0x1p-24);
    assert_true(zo_f16_to_double(0x0400) == 0x1p-14);
    assert_true(isinf(zo_f16_to_double(0x7c00)));
    assert_true(isnan(zo_f16_to_double(0x7e00)));
    assert_int_equal(zo_f16_from_double(1e300), 0x7bff); /* saturates */
    assert_int_equal(zo_f16_from_double(-INFINITY), 0xfbff);
    assert_int_equal(zo_f16_from_double(NAN), 0x7e00);
    assert_int_equal(zo_f16_from_double(1e-300), 0);
}

static void rounding_and_void(void **state)
{
    /* unit 2^24 is 1: v = round(32 g), half away from zero */
    const struct zo_rules rules = {.unit = UINT64_C(1) << 24};
    const double g[] = {0,   0.5 / 32, -0.5 / 32, 1.49 / 32, -2.5 / 32, 1,    127.4 / 32,
                        200, -200,     NAN,       INFINITY,  -INFINITY, 1e308};
    static const int8_t want[] = {0, 1, -1, 1, -3, 32, 127, 127, -127, -128, -128, -128, 127};
    struct zo_codec c = {.n = 0};
    int8_t v[ARRAY_LEN(g)];
    uint16_t r;
    (void)state;
    zo_codec_seal(&c, &rules, g, ARRAY_LEN(g), v, &r);
    assert_memory_equal(v, want, sizeof want);
    assert_int_equal(r, 0x3c00);
    assert_int_equal(c.n, 10); /* voids are no history */
}

static void root_mean_square_of_history(void **state)
{
    const struct zo_rules rules = {.unit = 0};
    struct zo_codec c = {.n = 0};
    double g[300];
    int8_t v[300];
    uint16_t r;
    (void)state;
    g[0] = 3, g[1] = NAN, g[2] = -4; /* rms of {3, -4}: sqrt(12.5) */
    zo_codec_seal(&c, &rules, g, 3, v, &r);
    assert_int_equal(r, zo_f16_from_double(sqrt(12.5)));
    assert_int_equal(v[0], 27); /* 96 / 3.536 = 27.15 */
    assert_int_equal(v[1], -128);
    assert_int_equal(v[2], -36);
    g[0] = 0; /* rms of {0, 3, -4} */
    zo_codec_seal(&c, &rules, g, 1, v, &r);
    assert_int_equal(r, zo_f16_from_double(sqrt(25.0 / 3)));
    assert_int_equal(v[0], 0);
    for (int i = 0; i < 300; i++)
        g[i] = 1;
    zo_codec_seal(&c, &rules, g, 300, v, &r);
    zo_codec_seal(&c, &rules, g, 1, v, &r); /* the first four have left the history of 256 */
    assert_int_equal(r, 0x3c00);
    assert_int_equal(v[0], 32);
    assert_int_equal(c.n, ZO_CODEC_HISTORY);
}

static void nothing_moves(void **state)
{
    const struct zo_rules rules = {.unit = 0};
    const double zeros[4] = {0}, tiny[2] = {1e-9, -1e-9}, huge[2] = {1e200, -1e200};
    struct zo_codec c = {.n = 0};
    int8_t v[4];
    uint16_t r;
    (void)state;
    zo_codec_seal(&c, &rules, zeros, 4, v, &r);
    assert_int_equal(r, 0);
    assert_int_equal(v[0] | v[1] | v[2] | v[3], 0);
    c = (struct zo_codec){.n = 0};
    zo_codec_seal(&c, &rules, tiny, 2, v, &r); /* r underflows in f16: r = 0 gives v = 0 */
    assert_int_equal(r, 0);
    assert_int_equal(v[0], 0);
    c = (struct zo_codec){.n = 0};
    zo_codec_seal(&c, &rules, huge, 2, v, &r); /* r saturates, squares do not overflow */
    assert_int_equal(r, 0x7bff);
    assert_int_equal(v[0], 127);
    assert_int_equal(v[1], -127);
}

static void projections(void **state)
{
    const double loss[4] = {2.0, 3.0, INFINITY, 1.0};
    double g[4];
    (void)state;
    assert_true(zo_project_two_sided(3.0, 2.0, 0.25) == 2.0);
    assert_true(isnan(zo_project_two_sided(NAN, 2.0, 0.25)));
    assert_true(isnan(zo_project_two_sided(2.0, INFINITY, 0.25)));
    zo_project_one_sided(g, loss, 2.0, 0.5, 4); /* {0, 2, void, -2}, mean 0 */
    assert_true(g[0] == 0.0 && g[1] == 2.0 && isnan(g[2]) && g[3] == -2.0);
    zo_project_one_sided(g, loss, 1.0, 0.5, 2); /* {2, 4} less 3 */
    assert_true(g[0] == -1.0 && g[1] == 1.0);
    zo_project_one_sided(g, loss, NAN, 0.5, 4);
    for (int i = 0; i < 4; i++)
        assert_true(isnan(g[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half), cmocka_unit_test(rounding_and_void),
        cmocka_unit_test(root_mean_square_of_history), cmocka_unit_test(nothing_moves),
        cmocka_unit_test(projections)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
