#include "peer/plan.h"
#include <math.h>
#include <string.h>

enum { CURVE_KNOTS = 128, E_MAX = 61 };
_Static_assert(CURVE_KNOTS + 2 <= LIMIT_KNOTS, "a curve and its warm-up fit the table");

/* Share of lr left after `done` in [0, 1] of the way. */
static double decay(const char *schedule, double done)
{
    const double left = 1 - done;
    if (strcmp(schedule, "linear") == 0)
        return left;
    if (strcmp(schedule, "cosine") == 0)
        return 0.5 * (1 + cos(3.14159265358979323846 * done));
    if (strcmp(schedule, "rex") ==
        0) /* Chen et al. 2021, "REX: Revisiting budgeted training", arXiv 2107.04197 */
        return left / (0.5 + 0.5 * left);
    return 1;
}

static void add_knot(struct zo_rules *r, uint64_t step, double y)
{
    ENSURE(r->n_knots < LIMIT_KNOTS);
    if (r->n_knots > 0 && r->knots[r->n_knots - 1].step >= step)
        return; /* more knots asked for than there are steps */
    r->knots[r->n_knots++] = (struct zo_knot){step, (uint64_t)llround(y)};
}

enum err peer_plan_knots(struct zo_rules *r, const char *schedule, double lr, uint64_t warmup,
                         struct err_why *why)
{
    const double y = ldexp(lr / (32.0 * (double)r->n0), r->direction == ZO_GAUSSIAN ? 60 : 62);
    if (!(lr >= 0) || !(y < 0x1p62))
        return err_set(why, ERR_RANGE, "--lr must be at least 0 and below 32 n0");
    if (warmup >= r->steps)
        return err_set(why, ERR_RANGE, "--warmup must be below --steps");
    r->n_knots = 0;
    if (warmup > 0)
        add_knot(r, 0, y / (double)(warmup + 1)); /* step 0 already learns a little */
    add_knot(r, warmup, y);
    if (strcmp(schedule, "constant") == 0)
        return ERR_OK;
    const uint64_t span = r->steps - warmup;
    const unsigned n = strcmp(schedule, "linear") == 0 ? 1 : CURVE_KNOTS;
    for (unsigned i = 1; i <= n; i++) {
        const uint64_t at = span / n * i + span % n * i / n; /* whole steps, no overflow */
        add_knot(r, warmup + at, y * decay(schedule, (double)at / (double)span));
    }
    return ERR_OK;
}

uint64_t peer_plan_peak(const struct zo_rules *r)
{
    uint64_t peak = 0;
    for (uint32_t i = 0; i < r->n_knots; i++)
        peak = r->knots[i].y > peak ? r->knots[i].y : peak;
    return peak;
}

/* Largest e with max_abs 2^e below 2^limit, at most 61; negative: none.  A hair is left for float rounding. */
static int scale_for(double max_abs, int limit)
{
    int exponent = 0;
    (void)frexp(max_abs * (1 + 0x1p-20), &exponent); /* max_abs < 2^exponent */
    const int e = limit - exponent;
    return e > E_MAX ? E_MAX : e;
}

enum err peer_plan_tensor(struct zo_tensor *t, uint64_t *coef, double max_abs, uint64_t peak)
{
    const double floors[] = {0x1p-2, 0x1p-4, 0x1p-6, 0x1p-8};
    const uint64_t whole = (uint64_t)1 << 32; /* weight of a record that is not late */
    int e = -1;
    uint64_t l = 0;
    t->bits = zo_tensor_is_matrix(t) ? 32 : 64;
    for (size_t i = 0; i < ARRAY_LEN(floors) && l < PEER_COEF_AIM; i++) {
        e = scale_for(fmax(max_abs, floors[i]), (int)t->bits == 32 ? 28 : 56);
        l = e >= 0 ? zo_coef(peak, whole, (uint32_t)e) : 0;
    }
    if (t->bits == 32 && (e < 0 || (peak > 0 && l < PEER_COEF_LOW))) {
        t->bits = 64;
        e = scale_for(fmax(max_abs, floors[0]), 56);
        l = e >= 0 ? zo_coef(peak, whole, (uint32_t)e) : 0;
    }
    if (e < 0)
        return ERR_RANGE;
    t->e = (uint32_t)e;
    *coef = l;
    return ERR_OK;
}

/* Mean square of the rate over the run, as a share of the peak's. */
static double mean_square(const struct zo_rules *r, const char *schedule, uint64_t warmup)
{
    const uint64_t samples = r->steps < 4096 ? r->steps : 4096, span = r->steps - warmup;
    double sum = 0;
    for (uint64_t i = 0; i < samples; i++) {
        const uint64_t step = r->steps / samples * i + r->steps % samples * i / samples;
        const double share = step < warmup ? (double)(step + 1) / (double)(warmup + 1)
                                           : decay(schedule, (double)(step - warmup) / (double)span);
        sum += share * share;
    }
    return sum / (double)samples;
}

double peer_plan_lr(const struct zo_rules *r, const char *schedule, uint64_t warmup, double noise, double agreement)
{
    const double n0 = (double)r->n0, records = n0 * (double)r->steps;
    const double lr = n0 * noise * fmin(1, sqrt(records * agreement / PEER_PLAN_ENOUGH)) / sqrt(3 * mean_square(r, schedule, warmup < r->steps ? warmup : 0) * records);
    const double unit = pow(10, floor(log10(lr)) - 2); /* three digits: more would pretend */
    return round(lr / unit) * unit;
}

double peer_plan_eps(uint64_t parameters)
{
    return fmax(1e-3, fmin(1e-2, 1e-2 * sqrt(1e6 / fmax((double)parameters, 1))));
}
