/* Products on packed weights against double, for every kernel variant this machine has: all edges
 * of tiles and panels, both layouts, integers and floats, parts of what was packed, and what a
 * product starts from.
 *
 * Tolerance: a sum of k products and two more terms in any order has an error below (k + 3) 2^-24
 * times the sum of the magnitudes (Higham, Accuracy and Stability, 3.1, to first order), and
 * packing rounds a weight once. */
#include "zo/model/ops.h"

#include <onebyte/base/err.h>
#include <onebyte/zo/state.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 37, OUT = 201, IN = 1700, LDX = 1720, LDY = 230 };

static struct {
    int32_t ints[OUT * IN];
    float floats[OUT * IN], x[ROWS * LDX], y[ROWS * LDY], before[ROWS * LDY];
    float scale[ROWS], factor[3][OUT + ZO_GEMM_PAD], bias[3][OUT + ZO_GEMM_PAD];
} * g;

static uint32_t noise_at;

static uint32_t noise(void)
{
    noise_at = noise_at * 1664525u + 1013904223u;
    return noise_at >> 8;
}

static float signed_noise(void)
{
    return (float)noise() * 0x1p-23f - 1.0f;
}

static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = signed_noise();
}

static int setup(void **state)
{
    (void)state;
    g = malloc(sizeof *g);
    if (!g)
        return -1;
    for (size_t i = 0; i < OUT * IN; i++)
        g->ints[i] = (int32_t)(noise() * 2654435761u); /* more than 24 bits: packing rounds */
    fill(g->floats, OUT * IN);
    fill(g->x, ROWS * LDX);
    fill(g->before, ROWS * LDY);
    fill(g->scale, ROWS);
    fill(g->factor[0], sizeof g->factor / sizeof(float));
    fill(g->bias[0], sizeof g->bias / sizeof(float));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(g);
    return 0;
}

struct shape {
    size_t rows, n, k; /* computed */
    size_t n_packed, k_packed;
    bool ints, transposed, add, rank1, bias;
};

static double weight(const struct shape *s, size_t j, size_t i)
{
    const size_t at = s->transposed ? i * OUT + j : j * IN + i;
    return s->ints ? (double)g->ints[at] * 0x1p-31 : (double)g->floats[at] * 0.25;
}

/* Entry (r, j), and what its error may be. */
static double expected(const struct shape *s, size_t r, size_t j, double *tolerance)
{
    double sum = s->add ? (double)g->before[r * LDY + j] : 0.0, size = fabs(sum);
    if (s->rank1) {
        sum += (double)g->scale[r] * (double)g->factor[r % 3][j];
        size += fabs((double)g->scale[r] * (double)g->factor[r % 3][j]);
    }
    if (s->bias) {
        sum += (double)g->bias[r % 3][j];
        size += fabs((double)g->bias[r % 3][j]);
    }
    for (size_t i = 0; i < s->k; i++) {
        const double term = (double)g->x[r * LDX + i] * weight(s, j, i);
        sum += term;
        size += fabs(term);
    }
    *tolerance = ((double)s->k + 4.0) * 0x1p-24 * size;
    return sum;
}

static void check(const struct zo_gemm *m, const struct shape *s)
{
    const struct zo_matrix w = {.at = s->ints ? (const void *)g->ints : g->floats,
                                .ld = s->transposed ? OUT : IN,
                                .scale = s->ints ? 0x1p-31f : 0.25f,
                                .ints = s->ints,
                                .transposed = s->transposed};
    const size_t floats = zo_gemm_floats(s->n_packed, s->k_packed);
    float *panels = aligned_alloc(64, (floats * sizeof *panels + 127) & ~(size_t)63);
    const float *factor[ROWS], *bias[ROWS];
    for (size_t r = 0; r < ROWS; r++) {
        factor[r] = g->factor[r % 3];
        bias[r] = g->bias[r % 3];
    }
    const struct zo_start start = {.scale = s->rank1 ? g->scale : NULL,
                                   .factor = s->rank1 ? factor : NULL,
                                   .bias = s->bias ? bias : NULL};
    struct zo_ahead ahead = {
        .at = (const uint8_t *)g->ints, .ld = IN * sizeof(int32_t), .rows = OUT};
    assert_non_null(panels);
    panels[floats] = 77.0f; /* packing stays inside */
    memcpy(g->y, g->before, sizeof g->y);
    if (s->k_packed <= ZO_GEMM_K) {
        m->pack(panels, &w, s->n_packed, s->k_packed);
        m->mul(g->y, LDY, g->x, LDX, s->rows, panels, s->k_packed, s->n, s->k, s->add, &start,
               &ahead);
    } else {
        const struct zo_panels all = {.at = panels, .n = s->n_packed, .k = s->k_packed};
        zo_gemm_pack(m, panels, &w, s->n_packed, s->k_packed);
        zo_gemm_mul(m, g->y, LDY, g->x, LDX, s->rows, &all, s->n, s->k, s->add);
    }
    assert_true(panels[floats] == 77.0f);
    for (size_t r = 0; r < ROWS; r++)
        for (size_t j = 0; j < LDY; j++) {
            double tolerance = 0.0, want = (double)g->before[r * LDY + j];
            if (r < s->rows && j < s->n)
                want = expected(s, r, j, &tolerance);
            if (!(fabs((double)g->y[r * LDY + j] - want) <= tolerance))
                fail_msg("rows %zu, %zu of %zu outputs, %zu of %zu inputs: y (%zu, %zu) is %.9g, "
                         "not %.9g",
                         s->rows, s->n, s->n_packed, s->k, s->k_packed, r, j,
                         (double)g->y[r * LDY + j], want);
        }
    free(panels);
}

static const struct zo_gemm *pick(void **state)
{
    const struct zo_kernels *k = zo_kernels_pick(*state);
    if (!k)
        skip();
    return zo_ops_pick(zo_kernels_name(k))->gemm;
}

static void products_equal_double(void **state)
{
    const struct zo_gemm *m = pick(state);
    static const size_t rows[] = {1, 3, 4, 8, 9, 37}, outs[] = {1, 7, 16, 23, 24, 48, 49, 64, 201},
                        ins[] = {1, 15, 16, 64, 97, 768};
    size_t turn = 0;
    for (size_t r = 0; r < ARRAY_LEN(rows); r++)
        for (size_t o = 0; o < ARRAY_LEN(outs); o++)
            for (size_t i = 0; i < ARRAY_LEN(ins); i++, turn++) {
                if (ins[i] == 768 && turn % 3 != 0) /* the slow ones */
                    continue;
                const struct shape s = {.rows = rows[r],
                                        .n = outs[o],
                                        .k = ins[i],
                                        .n_packed = outs[o],
                                        .k_packed = ins[i],
                                        .ints = turn % 2,
                                        .transposed = turn / 2 % 2,
                                        .add = turn / 4 % 2,
                                        .rank1 = turn % 3 == 0,
                                        .bias = turn % 5 < 2};
                check(m, &s);
            }
}

/* What attention asks for: whole panels of the outputs, and the first inputs, also of several
 * parts. */
static void parts_of_what_was_packed(void **state)
{
    const struct zo_gemm *m = pick(state);
    const size_t ins[] = {1, 16, 600, 848, 849, 863, 1000, 1700};
    for (size_t i = 0; i < ARRAY_LEN(ins); i++)
        for (size_t panels = 1; panels <= 3; panels += 2) {
            const struct shape s = {.rows = 11,
                                    .n = panels * m->panel,
                                    .k = ins[i],
                                    .n_packed = OUT,
                                    .k_packed = IN,
                                    .transposed = i % 2,
                                    .add = panels == 3};
            check(m, &s);
        }
    const struct shape some = {
        .rows = 9, .n = 2 * m->panel, .k = 33, .n_packed = 100, .k_packed = 80, .transposed = true};
    check(m, &some);
}

/* A NaN among the weights reaches its own output in every row, and no other. */
static void nan_stays_in_its_output(void **state)
{
    const struct zo_gemm *m = pick(state);
    float *panels = aligned_alloc(64, zo_gemm_floats(50, 20) * sizeof *panels);
    const struct zo_matrix w = {.at = g->floats, .ld = IN, .scale = 1.0f};
    const float was = g->floats[49 * IN + 3];
    assert_non_null(panels);
    g->floats[49 * IN + 3] = NAN;
    m->pack(panels, &w, 50, 20);
    m->mul(g->y, LDY, g->x, LDX, 13, panels, 20, 50, 20, false, NULL, NULL);
    g->floats[49 * IN + 3] = was;
    for (size_t r = 0; r < 13; r++)
        for (size_t j = 0; j < 50; j++)
            assert_int_equal(isnan(g->y[r * LDY + j]) != 0, j == 49);
    free(panels);
}

static void part_sizes(void **state)
{
    (void)state;
    assert_int_equal(zo_gemm_part(1), 1);
    assert_int_equal(zo_gemm_part(768), 768);
    assert_int_equal(zo_gemm_part(769), 400);
    assert_int_equal(zo_gemm_part(1536), 768);
    for (size_t k = 1; k < 5000; k++)
        assert_true(zo_gemm_part(k) <= ZO_GEMM_K &&
                    (zo_gemm_part(k) == k || zo_gemm_part(k) % 16 == 0));
    assert_int_equal(zo_gemm_floats(17, 3), 96);
}

int main(void)
{
    static char ref[] = "ref", avx2[] = "avx2", avx512[] = "avx512";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(products_equal_double, ref),
        cmocka_unit_test_prestate(products_equal_double, avx2),
        cmocka_unit_test_prestate(products_equal_double, avx512),
        cmocka_unit_test_prestate(parts_of_what_was_packed, ref),
        cmocka_unit_test_prestate(parts_of_what_was_packed, avx2),
        cmocka_unit_test_prestate(parts_of_what_was_packed, avx512),
        cmocka_unit_test_prestate(nan_stays_in_its_output, ref),
        cmocka_unit_test_prestate(nan_stays_in_its_output, avx2),
        cmocka_unit_test_prestate(nan_stays_in_its_output, avx512),
        cmocka_unit_test(part_sizes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
