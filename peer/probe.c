#include "peer/probe.h"
#include "peer/clock.h"
#include <math.h>
#include <onebyte/zo/codec.h>
#include <onebyte/zo/philox.h>
#include <string.h>

/* RECORDS: enough for a walk's entries to be near normal. */
enum { WALKS = 8, WALKS_MIN = 2, EXAMPLES = 16, EXAMPLES_MIN = 8, RECORDS = 64, SHAKES = 6, KEY = 0x70726f62 };
static const double length_start = 0x1p-6, length_min = 0x1p-20, length_max = PEER_PROBE_LENGTH_MAX, near = 0.15;

struct probe {
    struct peer_engine *e;
    struct zo_rules rules; /* the run's, with one knot: the length of the walk */
    const struct zo_example *examples[EXAMPLES];
    double base[EXAMPLES];
    uint64_t passes;
    size_t n;
    uint32_t walks;
};

static enum err losses(struct probe *p, double *out)
{
    struct zo_pass passes[EXAMPLES];
    struct zo_loss got[EXAMPLES];
    for (size_t i = 0; i < p->n; i++)
        passes[i] = (struct zo_pass){.example = p->examples[i]};
    TRY(zo_model_losses(p->e->model, passes, p->n, got, p->e->kernels, p->e->pool));
    p->passes += p->n;
    for (size_t i = 0; i < p->n; i++)
        out[i] = got[i].loss;
    return ERR_OK;
}

/* Codes of random signs and the size of a gradient that is as large as the root mean square. */
static struct zo_fold walk(int8_t codes[RECORDS], uint32_t number)
{
    const uint32_t key[2] = {number, KEY};
    const uint32_t counter[4] = {0};
    uint32_t bits[4];
    zo_philox(bits, counter, key);
    for (uint32_t i = 0; i < RECORDS; i++)
        codes[i] = bits[i / 32] >> i % 32 & 1 ? 32 : -32;
    return (struct zo_fold){.key = {key[0], key[1]}, .count = RECORDS, .lag = 1, .codes = codes};
}

static enum err fold(struct probe *p, struct zo_fold *f, bool subtract)
{
    f->subtract = subtract;
    TRY(zo_state_fold(p->e->state, f, 1, p->e->kernels, p->e->pool));
    return zo_model_refresh(p->e->model, p->e->pool);
}

static enum err walk_and_back(struct probe *p, struct zo_fold *f, bool backwards, double now[EXAMPLES])
{
    TRY(fold(p, f, backwards));
    TRY(losses(p, now));
    return fold(p, f, !backwards);
}

/* *cost: how much the mean loss rises after walks of that length.  Each is also walked backwards: what a walk does to first
 * order, for better or worse, then cancels.  Infinite if a loss is no number. */
static enum err shake(struct probe *p, double length, double *cost)
{
    double sum = 0, there[EXAMPLES], back[EXAMPLES];
    int8_t codes[RECORDS];
    p->rules.knots[0].y = (uint64_t)llround(ldexp(length / sqrt(RECORDS) / 32, p->rules.direction == ZO_GAUSSIAN ? 60 : 62));
    for (uint32_t w = 0; w < p->walks; w++) {
        struct zo_fold f = walk(codes, w);
        TRY(walk_and_back(p, &f, false, there));
        TRY(walk_and_back(p, &f, true, back));
        for (size_t i = 0; i < p->n; i++) {
            const double rise = (there[i] + back[i]) / 2 - p->base[i];
            sum += isfinite(rise) ? rise : (double)INFINITY;
        }
    }
    *cost = sum / (double)(p->walks * p->n);
    return ERR_OK;
}

struct tried {
    double length, cost; /* length 0: not yet */
};

/* Where to look next: by the square of the length, as small costs grow; between two by a straight line in logarithms. */
static double next(const struct tried *last, const struct tried *low, const struct tried *high)
{
    const double want = PEER_PROBE_NATS;
    if (low->length > 0 && high->length > 0) {
        const double part = low->cost > 0 && isfinite(high->cost) ? log(want / low->cost) / log(high->cost / low->cost) : 0.5;
        return low->length * pow(high->length / low->length, part);
    }
    const double by = last->cost > 0 && isfinite(last->cost) ? sqrt(want / last->cost) : low->length > 0 ? 4 : 0.25;
    return last->length * fmax(0.125, fmin(8, by));
}

static enum err search(struct probe *p, double *length)
{
    struct tried low = {0}, high = {0}, now = {.length = length_start};
    for (int i = 0; i < SHAKES && now.length >= length_min && now.length <= length_max; i++) {
        TRY(shake(p, now.length, &now.cost));
        *length = now.length;
        if (fabs(now.cost / PEER_PROBE_NATS - 1) < near)
            return ERR_OK;
        *(now.cost < PEER_PROBE_NATS ? &low : &high) = now;
        now.length = next(&now, &low, &high);
    }
    *length = fmax(length_min, fmin(length_max, now.length)); /* never tried, but better than the last one */
    return ERR_OK;
}

/* Along one direction at a time, of all examples: *rms, and the share of their squares that the examples agree on.  No more
 * can be told from so few than that it is small: agreement_min. */
static enum err gradients(struct probe *p, struct peer_probe *out)
{
    const double agreement_min = 0.02, eps = (double)p->rules.eps, n = (double)p->n;
    struct zo_pass passes[2 * EXAMPLES];
    struct zo_loss got[2 * EXAMPLES];
    double squares = 0, products = 0;
    for (uint32_t w = 0; w < 2 * p->walks; w++) {
        double sum = 0, own = 0;
        for (size_t i = 0; i < 2 * p->n; i++)
            passes[i] = (struct zo_pass){.example = p->examples[i / 2], .key = {w, KEY}, .eps = i % 2 ? -p->rules.eps : p->rules.eps};
        TRY(zo_model_losses(p->e->model, passes, 2 * p->n, got, p->e->kernels, p->e->pool));
        p->passes += 2 * p->n;
        for (size_t i = 0; i < p->n; i++) {
            const double g = zo_project_two_sided(got[2 * i].loss, got[2 * i + 1].loss, eps);
            sum += g;
            own += g * g;
        }
        squares += own / n;
        products += n > 1 ? (sum * sum - own) / (n * (n - 1)) : own / n;
    }
    out->gradient = sqrt(squares / (2 * p->walks));
    out->agreement = fmax(agreement_min, fmin(1, products / squares));
    return ERR_OK;
}

/* As many walks and examples as limit_s leaves time for; false: not even the fewest. */
static bool afford(struct probe *p, double pass_s, double limit_s)
{
    while (pass_s * (double)(2 * SHAKES * p->walks * p->n) > limit_s) {
        if (p->walks > WALKS_MIN)
            p->walks /= 2;
        else if (p->n > EXAMPLES_MIN)
            p->n /= 2;
        else
            return false;
    }
    return true;
}

static enum err measure(struct peer_probe *out, struct probe *p, double limit_s, struct err_why *why)
{
    TRY(losses(p, p->base)); /* the first pass also makes buffers */
    const double began = peer_now_s();
    TRY(losses(p, p->base));
    out->pass_s = (peer_now_s() - began) / (double)p->n;
    for (size_t i = 0; i < p->n; i++)
        if (!isfinite(p->base[i]))
            return peer_engine_nonfinite(p->e, why);
    if (!afford(p, out->pass_s, limit_s))
        return ERR_OK;
    TRY(search(p, &out->noise));
    return gradients(p, out);
}

static bool fits_in_memory(const struct zo_rules *r)
{
    const uint64_t have = peer_memory_available();
    uint64_t bytes = 0;
    for (uint32_t t = 0; t < r->n_tensors; t++)
        bytes += zo_tensor_elements(&r->tensors[t]) * (r->tensors[t].bits / 8);
    return have == 0 || bytes < have; /* an overcommitting kernel hands it out all the same */
}

enum err peer_probe(struct peer_probe *out, struct peer_engine *e, const struct zo_rules *rules, const struct zo_dataset *d,
                    double limit_s, struct err_why *why)
{
    static const uint32_t digest_key[2] = {0};
    struct probe p = {.e = e, .rules = *rules, .walks = WALKS};
    struct peer_probe got = {0};
    const double began = peer_now_s();
    const uint64_t size = zo_dataset_size(d);
    ENSURE(e->state == NULL && size > 0);
    p.rules.n_knots = 1;
    p.rules.knots[0] = (struct zo_knot){0};
    p.n = size < EXAMPLES ? (size_t)size : EXAMPLES;
    for (size_t i = 0; i < p.n; i++) /* from all of the file: many are sorted */
        p.examples[i] = zo_dataset_get(d, size * i / p.n);
    *out = got;
    if (!fits_in_memory(rules) || zo_state_new(&e->state, &p.rules, digest_key) != ERR_OK)
        return ERR_OK; /* a run's owner need not be one of its peers */
    enum err code = zo_model_load_state(e->model, e->state, e->pool, why);
    if (code == ERR_OK)
        code = zo_model_bind(e->model, e->state, ZO_MEMORY_LEAN, why);
    if (code == ERR_OK)
        code = measure(&got, &p, limit_s, why);
    const enum err plain = zo_model_bind(e->model, NULL, ZO_MEMORY_LEAN, why);
    zo_state_free(e->state);
    e->state = NULL;
    got.passes = p.passes;
    got.seconds = peer_now_s() - began;
    if (code == ERR_OK)
        *out = got;
    return plain != ERR_OK ? plain : code == ERR_NOMEM ? ERR_OK : code;
}
