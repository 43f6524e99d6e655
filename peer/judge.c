#include "peer/judge.h"
#include <math.h>
#include <onebyte/zo/codec.h>

enum { CODE_MAX = 127, TOLERANCE_MAX = 64 };

enum peer_verdict peer_judge(const struct zo_rules *rules, int8_t code, uint16_t r_f16, double g, double loss, double *want,
                             double *tolerance)
{
    const double r = rules->unit ? ldexp((double)rules->unit, -24) : zo_f16_to_double(r_f16);
    const double sides = rules->sides == 2 ? 1 : 2; /* L(0) and the group's mean err, too */
    const double slack = sides * PEER_JUDGE_LOSS * fmax(1, fabs(loss)) / (double)rules->eps;
    const double w = r > 0 ? 32 * g / r : 0, tol = 0.5 + (r > 0 ? 32 * slack / r : 0);
    if (want)
        *want = w;
    if (tolerance)
        *tolerance = tol;
    if (code == ZO_CODE_VOID)
        return PEER_AGREES;
    if (!isfinite(r) || r < 0 || (r == 0 && code != 0))
        return PEER_OFF; /* no encoder makes this */
    if (!isfinite(g) || !isfinite(loss) || tol > TOLERANCE_MAX)
        return PEER_UNSURE;
    const double clamped = fmin(fmax(w, -CODE_MAX), CODE_MAX);
    return fabs(code - clamped) > tol ? PEER_OFF : PEER_AGREES;
}
