/* zo/rules.c -- the integers of SPEC 4: no float, no libm, products in 128 bits. */
#include <onebyte/zo/rules.h>

#include <onebyte/zo/philox.h>

typedef unsigned __int128 u128;
typedef __int128 i128;

bool zo_tensor_is_matrix(const struct zo_tensor *t)
{
    return t->n_dims >= 2;
}

uint64_t zo_tensor_elements(const struct zo_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= t->dims[i];
    return n;
}

uint64_t zo_tensor_rows(const struct zo_tensor *t)
{
    return t->n_dims == 0 ? 1 : t->dims[0];
}

uint64_t zo_tensor_cols(const struct zo_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = 1; i < t->n_dims; i++)
        n *= t->dims[i];
    return n;
}

/* a / b toward minus infinity; b > 0. */
static i128 floor_div(i128 a, i128 b)
{
    const i128 q = a / b;
    return a % b != 0 && a < 0 ? q - 1 : q;
}

uint64_t zo_lambda(const struct zo_rules *r, uint64_t step)
{
    ENSURE(r->n_knots >= 1);
    if (step >= r->steps)
        return 0;
    uint32_t k = 0;
    while (k + 1 < r->n_knots && r->knots[k + 1].step <= step)
        k++;
    const struct zo_knot *a = &r->knots[k], *b = a + 1;
    if (k + 1 == r->n_knots)
        return a->y;
    /* |y difference| < 2^62 and the step difference fits 64 bits: the product fits 127 */
    const i128 rise = ((i128)b->y - (i128)a->y) * (i128)(step - a->step);
    return (uint64_t)((i128)a->y + floor_div(rise, (i128)(b->step - a->step)));
}

uint64_t zo_weight(uint64_t n0, uint64_t lag)
{
    const uint64_t n = lag > n0 ? lag : n0;
    ENSURE(n0 > 0);
    return (uint64_t)(((u128)n0 << 32) / n);
}

uint64_t zo_coef(uint64_t lambda, uint64_t weight, uint32_t e)
{
    ENSURE(e <= 61);
    const u128 half = (u128)1 << (93 - e);
    return (uint64_t)(((u128)lambda * weight + half) >> (94 - e));
}

static uint64_t isqrt(uint64_t x)
{
    uint64_t root = 0, rest = x;
    for (uint64_t bit = UINT64_C(1) << 62; bit != 0; bit >>= 2) {
        if (rest >= root + bit) {
            rest -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return root;
}

uint32_t zo_energy_factor(const struct zo_rules *r, const int8_t *codes, size_t count)
{
    uint64_t s = 0;
    for (size_t i = 0; i < count; i++)
        s += codes[i] == -128 ? 0 : (uint64_t)(codes[i] * codes[i]);
    const uint64_t bound = 33856 * ((uint64_t)count + isqrt(36 * (uint64_t)count));
    if (r->unit != 0 || 25 * s <= bound)
        return ZO_ENERGY_ONE;
    return (uint32_t)isqrt((uint64_t)(((u128)bound << 32) / (25 * s)));
}

uint64_t zo_coef_scaled(uint64_t coef, uint32_t factor)
{
    return (uint64_t)(((u128)coef * factor) >> 16);
}

uint64_t zo_coef_bounded(const struct zo_rules *r, uint64_t coef, const int8_t *codes, size_t count)
{
    return zo_coef_scaled(coef, zo_energy_factor(r, codes, count));
}

uint64_t zo_example_index(const struct zo_rules *r, const uint32_t key[2], uint64_t seq, uint64_t n)
{
    uint32_t w[4];
    ENSURE(n > 0);
    const struct zo_stream s = zo_stream(key, ZO_DOMAIN_DATA, 0, seq / (r->k > 1 ? r->k : 1));
    zo_stream_block(w, &s, 0);
    return (uint64_t)(((u128)n * ((uint64_t)w[1] << 32 | w[0])) >> 64);
}
