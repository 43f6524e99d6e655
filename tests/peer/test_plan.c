/* What init decides: schedules against their formulas in exact fractions, scales against SPEC 3's bounds. */
#include "peer/plan.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

static struct zo_rules rules_for(enum zo_direction d, uint64_t n0, uint64_t steps)
{
    struct zo_rules r;
    memset(&r, 0, sizeof r);
    r.direction = d;
    r.n0 = n0;
    r.steps = steps;
    return r;
}

/* python3, fractions.Fraction: round(Fraction(0.0192) / (32 * 64) * 2**62), and 2**60 for gaussian. */
#define Y_RANK1 43234556422757ull
#define Y_GAUSS 10808639105689ull

static void a_constant_rate_is_one_knot(void **state)
{
    struct err_why why = {{0}};
    struct zo_rules r = rules_for(ZO_RANK1, 64, 1000);
    (void)state;
    assert_int_equal(peer_plan_knots(&r, "constant", 0.0192, 0, &why), ERR_OK);
    assert_int_equal(r.n_knots, 1);
    assert_int_equal(r.knots[0].step, 0);
    assert_true(r.knots[0].y == Y_RANK1);
    r = rules_for(ZO_GAUSSIAN, 64, 1000);
    assert_int_equal(peer_plan_knots(&r, "constant", 0.0192, 0, &why), ERR_OK);
    assert_true(r.knots[0].y == Y_GAUSS);
}

static void warm_up_rises_to_the_rate(void **state)
{
    struct err_why why = {{0}};
    struct zo_rules r = rules_for(ZO_RADEMACHER, 64, 1000);
    (void)state;
    assert_int_equal(peer_plan_knots(&r, "linear", 0.0192, 10, &why), ERR_OK);
    assert_int_equal(r.n_knots, 3);
    assert_true(r.knots[0].step == 0 && llabs((long long)(r.knots[0].y - Y_RANK1 / 11)) <= 1);
    assert_true(r.knots[1].step == 10 && r.knots[1].y == Y_RANK1);
    assert_true(r.knots[2].step == 1000 && r.knots[2].y == 0);
    assert_true(peer_plan_peak(&r) == Y_RANK1);
}

/* Between any two knots the integer interpolation of SPEC 4 stays within 0.1 % of the peak from the real curve. */
static void curves_follow_their_formula(void **state)
{
    static const char *const names[] = {"cosine", "rex"};
    struct err_why why = {{0}};
    (void)state;
    for (size_t c = 0; c < ARRAY_LEN(names); c++) {
        struct zo_rules r = rules_for(ZO_RANK1, 64, 1000);
        assert_int_equal(peer_plan_knots(&r, names[c], 0.0192, 0, &why), ERR_OK);
        for (uint64_t s = 0; s < 1000; s++) {
            const double p = (double)s / 1000, left = 1 - p;
            const double share = c == 0 ? (1 + cos(acos(-1.0) * p)) / 2 : left / (0.5 + 0.5 * left);
            const double off = fabs((double)zo_lambda(&r, s) - share * (double)Y_RANK1);
            if (off > 1e-3 * (double)Y_RANK1)
                fail_msg("%s at step %d is off by %g of the peak", names[c], (int)s,
                         off / (double)Y_RANK1);
        }
        assert_true(r.knots[r.n_knots - 1].step == 1000 && r.knots[r.n_knots - 1].y == 0);
    }
}

static void short_runs_keep_knots_increasing(void **state)
{
    static const char *const names[] = {"constant", "linear", "cosine", "rex"};
    struct err_why why = {{0}};
    (void)state;
    for (size_t c = 0; c < ARRAY_LEN(names); c++)
        for (uint64_t steps = 1; steps < 140; steps += 3)
            for (uint64_t warmup = 0; warmup < steps; warmup = 2 * warmup + 1) {
                struct zo_rules r = rules_for(ZO_RANK1, 3, steps);
                assert_int_equal(peer_plan_knots(&r, names[c], 1.5, warmup, &why), ERR_OK);
                assert_true(r.n_knots >= 1 && r.n_knots <= LIMIT_KNOTS && r.knots[0].step == 0);
                for (uint32_t i = 1; i < r.n_knots; i++)
                    assert_true(r.knots[i].step > r.knots[i - 1].step && r.knots[i].y < (uint64_t)1
                                                                                            << 62);
            }
}

static void impossible_rates_are_refused(void **state)
{
    struct err_why why = {{0}};
    struct zo_rules r = rules_for(ZO_RANK1, 2, 10);
    (void)state;
    assert_int_equal(peer_plan_knots(&r, "constant", 64, 0, &why), ERR_RANGE);
    assert_non_null(strstr(why.text, "--lr"));
    assert_int_equal(peer_plan_knots(&r, "constant", -1, 0, &why), ERR_RANGE);
    assert_int_equal(peer_plan_knots(&r, "constant", NAN, 0, &why), ERR_RANGE);
    assert_int_equal(peer_plan_knots(&r, "linear", 1, 10, &why), ERR_RANGE);
    assert_non_null(strstr(why.text, "--warmup"));
    assert_int_equal(peer_plan_knots(&r, "constant", 0, 0, &why), ERR_OK);
    assert_true(r.knots[0].y == 0);
}

/* |m0| < 2^28 or 2^56 for every size of entries, and never wastefully small when nothing else asks for it. */
static void scales_keep_the_headroom(void **state)
{
    (void)state;
    for (int dims = 1; dims <= 2; dims++)
        for (double max = 0x1p-40; max < 0x1p27; max *= 1.37) {
            struct zo_tensor t = {.n_dims = (uint32_t)dims, .dims = {8, 8}};
            uint64_t coef = 0;
            assert_int_equal(peer_plan_tensor(&t, &coef, max, Y_RANK1), ERR_OK);
            assert_true(t.e <= 61);
            assert_true(ldexp(max, (int)t.e) < ldexp(1, t.bits == 32 ? 28 : 56));
            assert_true(dims == 2 || t.bits == 64);
            assert_true(t.bits == 64 || coef >= PEER_COEF_LOW);
            assert_true(coef == zo_coef(Y_RANK1, (uint64_t)1 << 32, t.e));
        }
}

static void small_steps_get_more_bits(void **state)
{
    struct zo_tensor t = {.n_dims = 2, .dims = {4, 4}};
    uint64_t coef = 0;
    (void)state;
    assert_int_equal(peer_plan_tensor(&t, &coef, 0, Y_RANK1),
                     ERR_OK); /* all zeros: room as if for 0.25 */
    assert_int_equal(t.bits, 32);
    assert_int_equal(t.e, 29);
    assert_int_equal(peer_plan_tensor(&t, &coef, 0.001, (uint64_t)1 << 36),
                     ERR_OK); /* 2^36 2^32 >> (94 - e) */
    assert_int_equal(t.bits, 32);
    assert_true(coef >= PEER_COEF_AIM && t.e > 29);
    assert_int_equal(peer_plan_tensor(&t, &coef, 3, (uint64_t)1 << 30), ERR_OK);
    assert_int_equal(t.bits, 64);
    assert_true(coef >= PEER_COEF_AIM);
    assert_int_equal(peer_plan_tensor(&t, &coef, 0.1, 0),
                     ERR_OK); /* lr 0 is a control: no reason for 64 bits */
    assert_int_equal(t.bits, 32);
    assert_int_equal(coef, 0);
    assert_int_equal(peer_plan_tensor(&t, &coef, 0x1p60, Y_RANK1), ERR_RANGE);
}

static double squares(const struct zo_rules *r, const char *schedule, uint64_t warmup)
{
    static struct zo_rules z;
    struct err_why why;
    double sum = 0, peak = 0;
    z = *r;
    assert_int_equal(peer_plan_knots(&z, schedule, 0.01, warmup, &why), ERR_OK);
    peak = (double)peer_plan_peak(&z);
    for (uint64_t step = 0; step < z.steps; step++)
        sum += pow((double)zo_lambda(&z, step) / peak, 2);
    return sum;
}

/* n0 sum over steps of (lr(step) / n0)^2 = noise^2 / 3 for every schedule, whatever its knots are. */
static void the_rate_walks_as_far_as_the_model_bears(void **state)
{
    static const char *const names[] = {"constant", "linear", "cosine", "rex"};
    static struct zo_rules r = {.direction = ZO_RANK1, .sides = 2, .k = 1};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        for (uint64_t steps = 100; steps <= 10000; steps *= 10)
            for (uint64_t warmup = 0; warmup <= 50; warmup += 25) {
                r.n0 = 64;
                r.steps = steps;
                const double lr = peer_plan_lr(&r, names[i], warmup, 0.02, 1),
                             walk = lr * lr / 64 * squares(&r, names[i], warmup);
                if (fabs(walk / (0.02 * 0.02 / 3) - 1) > 0.03)
                    fail_msg("%s, %d steps, %d of warm-up: a walk of %g", names[i], (int)steps, (int)warmup, sqrt(3 * walk));
            }
    r.steps = 4; /* 256 records: they teach little where examples agree little */
    assert_true(fabs(peer_plan_lr(&r, "linear", 0, 0.02, 0.02) / peer_plan_lr(&r, "linear", 0, 0.02, 1) - sqrt(256 * 0.02 / 65)) < 0.01);
    assert_true(peer_plan_lr(&r, "linear", 0, 0.02, 65.0 / 256) == peer_plan_lr(&r, "linear", 0, 0.02, 1));
    assert_true(peer_plan_eps(260000) == 1e-2 && peer_plan_eps(13000000000) == 1e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_constant_rate_is_one_knot),
        cmocka_unit_test(warm_up_rises_to_the_rate),
        cmocka_unit_test(curves_follow_their_formula),
        cmocka_unit_test(short_runs_keep_knots_increasing),
        cmocka_unit_test(impossible_rates_are_refused),
        cmocka_unit_test(scales_keep_the_headroom),
        cmocka_unit_test(small_steps_get_more_bits),
        cmocka_unit_test(the_rate_walks_as_far_as_the_model_bears),
    };
    return cmocka_run_group_tests_name("peer/plan", tests, NULL, NULL);
}
