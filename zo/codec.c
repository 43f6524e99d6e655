/* zo/codec.c -- gradients to bytes.  Doubles are fine here: codes are the author's business and
 * travel as data. */
#include <onebyte/zo/codec.h>

#include <math.h>
#include <string.h>

static const double f16_max = 65504.0;

uint16_t zo_f16_from_double(double x)
{
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    double a = fabs(x);
    int e;
    if (isnan(x))
        return 0x7e00;
    if (a >= f16_max)
        return sign | 0x7bff;
    if (a == 0)
        return sign;
    (void)frexp(
        a,
        &e); /* a = f 2^e, f in [1/2, 1): the last of 11 bits weighs 2^(e - 11), subnormals 2^-24 */
    const int ulp = e - 11 > -24 ? e - 11 : -24;
    const double scaled = ldexp(a, -ulp); /* exact; at most 2^11 */
    double q = floor(scaled);
    const double rest = scaled - q;
    if (rest > 0.5 || (rest == 0.5 && fmod(q, 2) != 0))
        q += 1;
    /* q counts ulps: below 1024 subnormal; a carry to 2048 runs into the exponent, which is what it
     * should do */
    const uint32_t exponent = (uint32_t)(ulp + 24);
    return (uint16_t)(sign + (exponent << 10) + (uint32_t)q);
}

double zo_f16_to_double(uint16_t h)
{
    const int exponent = h >> 10 & 31;
    const double mantissa = h & 1023;
    double x;
    if (exponent == 31)
        x = mantissa != 0 ? NAN : INFINITY;
    else
        x = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -x : x;
}

/* Half away from zero, clamped to a code. */
static int8_t code(double x)
{
    const double v = round(x);
    return (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
}

static double root_mean_square(const struct zo_codec *c, const double *g, size_t n)
{
    double sum = 0,
           peak = 0; /* scaled by the peak: squares of losses near 1e200 must not overflow */
    size_t used = c->n;
    for (size_t i = 0; i < c->n; i++)
        peak = fmax(peak, fabs(c->history[i]));
    for (size_t i = 0; i < n; i++)
        if (isfinite(g[i]))
            peak = fmax(peak, fabs(g[i]));
    if (peak == 0)
        return 0;
    for (size_t i = 0; i < c->n; i++)
        sum += (c->history[i] / peak) * (c->history[i] / peak);
    for (size_t i = 0; i < n; i++) {
        if (isfinite(g[i])) {
            sum += (g[i] / peak) * (g[i] / peak);
            used++;
        }
    }
    return peak * sqrt(sum / (double)used);
}

void zo_codec_seal(struct zo_codec *c, const struct zo_rules *rules, const double *g, size_t n,
                   int8_t *codes, uint16_t *r_f16)
{
    const double unit = ldexp((double)rules->unit, -24); /* 0: none */
    const uint16_t r_sent = zo_f16_from_double(unit > 0 ? unit : root_mean_square(c, g, n));
    const double r = unit > 0 ? unit : zo_f16_to_double(r_sent);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(g[i])) {
            codes[i] = ZO_CODE_VOID;
            continue;
        }
        codes[i] = r == 0 ? 0 : code(32 * g[i] / r);
        c->history[c->next] = g[i];
        c->next = (c->next + 1) % ZO_CODEC_HISTORY;
        c->n += c->n < ZO_CODEC_HISTORY;
    }
    *r_f16 = r_sent;
}

double zo_project_two_sided(double loss_plus, double loss_minus, double eps)
{
    return isfinite(loss_plus) && isfinite(loss_minus) ? (loss_plus - loss_minus) / (2 * eps) : NAN;
}

void zo_project_one_sided(double *g, const double *loss, double loss_0, double eps, size_t k)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < k; i++) {
        g[i] = isfinite(loss_0) && isfinite(loss[i]) ? (loss[i] - loss_0) / eps : NAN;
        if (isfinite(g[i])) {
            sum += g[i];
            n++;
        }
    }
    for (size_t i = 0; i < k; i++)
        g[i] -= n ? sum / (double)n : 0;
}
