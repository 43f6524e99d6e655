/* peer/plan.h -- what `init` decides: the schedule's integer knots, and width and scale of every tensor.
 *
 *     y(s) = round(lr(s) / (32 n0) 2^62), and / 4 for gaussian          SPEC 4
 *     m0 = theta0 2^e,  |m0| < 2^28 (int32) or 2^56 (int64)             SPEC 3: at least 3 bits of headroom
 * Floats appear only here, before the manifest exists: peers read the integers. */
#ifndef PEER_PLAN_H
#define PEER_PLAN_H
#include <onebyte/base/err.h>
#include <onebyte/zo/rules.h>
#include <stdint.h>

enum { PEER_COEF_AIM = 16, PEER_COEF_LOW = 4 };

/* r->knots, n_knots from direction, n0, steps.  schedule: constant, linear, cosine, rex.  The rate rises linearly over
 * the first `warmup` steps (< steps), then follows the schedule to the last step.  ERR_RANGE: lr out of range. */
NODISCARD enum err peer_plan_knots(struct zo_rules *r, const char *schedule, double lr, uint64_t warmup,
                                   struct err_why *why);
uint64_t peer_plan_peak(const struct zo_rules *r); /* the largest y */

/* t->bits, t->e for entries of at most max_abs.  Small or all-zero tensors are treated as if their largest entry were
 * 0.25, or less when the coefficient L at the schedule's peak would otherwise fall below 16 (down to 1/256).  A matrix
 * gets 64 bits when L stays below 4 with 32.  Returns L at the peak.  ERR_RANGE: max_abs too large for any e >= 0. */
NODISCARD enum err peer_plan_tensor(struct zo_tensor *t, uint64_t *coef, double max_abs, uint64_t peak);

/* The rate at which the run's records, n0 * steps of them, walk as far as the model bears (noise, agreement: peer/probe.h):
 * with a linear schedule lr / n0 = noise / sqrt(records).  3: noise was measured against linear schedules, whose mean square is
 * a third.  While records * agreement is below PEER_PLAN_ENOUGH the walk is shorter by the root of
 * what is lacking. */
double peer_plan_lr(const struct zo_rules *r, const char *schedule, uint64_t warmup, double noise, double agreement);
#define PEER_PLAN_ENOUGH 65 /* records * agreement */
#define PEER_PLAN_NOISE 0.013 /* of a model that was not probed: between pretrained ones of 0.26M and 22.7M parameters */

/* Rule of thumb from the measurements of shared runs: 0.01 up to a million parameters, then falling with the square root of
 * their number. */
double peer_plan_eps(uint64_t parameters);
#endif
