/* bench_learn -- one training run in one process and without a network, for bench/results.py: many peers, any
 * estimator, any staleness.  Measuring, coding, folding and the manifest's choices are the program's own.
 *
 *     bench_learn model=DIR train=FILE eval=FILE [option=value..]      prints one JSON object per line
 *
 * Every option left out is what `onebyte init` writes, but n0 (64: budgets here are short).  Those that init has no flag for:
 *     passes     forward passes until the end (12000)           seed     0: run and data (name of the run)
 *     peers      machines that take turns (1)                   segment  records per machine and round (16)
 *     stale      rounds until a segment is folded (0)           damping  0: late records keep full weight
 *     code       byte | float | sign                            per      examples that share a direction (1)
 *     bits       integer bits of every tensor's largest entry (0: as init plans them)
 *     evals      points of the curve (6)    eval_max  held-out examples at each (0: all)   u  lr / n0, step per record
 *     target     stop below this held-out loss (0: never)      churn    1: half the peers pause every other eighth
 *     undo       1: at the end every record is subtracted again, in another order, and the digest compared with the start's
 * A round: every peer measures `segment` records at the same state; then all are folded, or `stale` rounds later.  All
 * peers hold the same state, so one copy stands for all: what a network of them computes, in lockstep. */
#include "peer/engine.h"
#include "peer/make.h"
#include "peer/plan.h"
#include <inttypes.h>
#include <math.h>
#include <onebyte/net/id.h>
#include <onebyte/zo/codec.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PEERS_MAX = 64, SEGMENT_MAX = 256, CALL_RECORDS = 16, STALE_MAX = 64 };
enum code { BYTE, FLOAT, SIGN };

struct options {
    struct peer_make make;
    const char *train, *eval, *code_name;
    enum code code;
    uint64_t passes, peers, segment, stale, damping, per, bits, evals, eval_max, churn, undo;
    double u, target;
    char name[32];
};

/* What one peer measured in one round, until it is folded. */
struct segment {
    struct zo_fold fold;
    double g[SEGMENT_MAX], unit;
    int8_t codes[SEGMENT_MAX];
};

struct bench {
    struct options o;
    struct peer_manifest manifest;
    struct peer_made made;
    struct peer_engine engine;
    struct zo_dataset *train, *eval;
    struct zo_codec codecs[PEERS_MAX];
    uint64_t seqs[PEERS_MAX], draws[PEERS_MAX];
    uint32_t keys[PEERS_MAX][2];
    struct segment *queue; /* [STALE_MAX + 1][peers] */
    struct segment *done; /* every folded segment, with undo */
    size_t n_done, done_max;
    uint64_t round, passes, records;
    double measure_s, fold_s, weight; /* CPU seconds; clock in records */
    double g2, g4, n_g, clipped; /* of finite gradients: sums of powers, count, how many beyond the byte */
};

_Noreturn static void die(const struct err_why *why)
{
    fprintf(stderr, "bench_learn: %s\n", why->text);
    exit(1);
}

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- options ---- */

static bool set_number(struct options *o, const char *key, const char *text)
{
    const struct {
        const char *key;
        uint64_t *u;
        double *d;
    } table[] = {{"passes", &o->passes, NULL},     {"peers", &o->peers, NULL},     {"segment", &o->segment, NULL},
                 {"stale", &o->stale, NULL},       {"damping", &o->damping, NULL}, {"per", &o->per, NULL},
                 {"bits", &o->bits, NULL},         {"evals", &o->evals, NULL},     {"eval_max", &o->eval_max, NULL},
                 {"churn", &o->churn, NULL},       {"undo", &o->undo, NULL},       {"seed", &o->make.seed, NULL},  {"sides", &o->make.sides, NULL},
                 {"K", &o->make.k, NULL},          {"n0", &o->make.n0, NULL},      {"warmup", &o->make.warmup, NULL},
                 {"length", &o->make.length_max, NULL}, {"lr", NULL, &o->make.lr}, {"eps", NULL, &o->make.eps},
                 {"unit", NULL, &o->make.unit},    {"u", NULL, &o->u},             {"target", NULL, &o->target}};
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (strcmp(key, table[i].key) != 0)
            continue;
        if (table[i].u)
            *table[i].u = strtoull(text, NULL, 10);
        else
            *table[i].d = strtod(text, NULL);
        return true;
    }
    return false;
}

static bool set_text(struct options *o, const char *key, const char *text)
{
    const struct {
        const char *key, **s;
    } table[] = {{"model", &o->make.flags.model},     {"train", &o->train},
                 {"eval", &o->eval},                  {"direction", &o->make.direction},
                 {"schedule", &o->make.schedule},     {"trainable", &o->make.trainable},
                 {"code", &o->code_name}};
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (strcmp(key, table[i].key) == 0) {
            *table[i].s = text;
            return true;
        }
    }
    return false;
}

static void check(struct options *o)
{
    struct err_why why = {"model=, train= and eval= are needed"};
    static const char *const codes[] = {"byte", "float", "sign"};
    if (!o->make.flags.model || !o->train || !o->eval)
        die(&why);
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        if (strcmp(o->code_name, codes[i]) == 0)
            o->code = (enum code)i;
    const uint64_t k = o->make.sides == 1 ? (o->make.k ? o->make.k : 7) : 1;
    o->segment -= o->segment % k; /* whole groups */
    (void)err_set(&why, ERR_RANGE, "a number is out of range: peers 1..%d, segment %" PRIu64 "..%d, stale 0..%d", PEERS_MAX, k,
                  SEGMENT_MAX, STALE_MAX);
    if (o->make.n0 < 1 || o->peers < 1 || o->peers > PEERS_MAX || o->segment < 1 || o->segment > SEGMENT_MAX || o->stale > STALE_MAX || o->per < 1)
        die(&why);
}

static void parse(struct options *o, char **argv)
{
    struct err_why why;
    memset(o, 0, sizeof *o);
    peer_make_defaults(&o->make);
    o->make.n0 = 64;
    o->passes = 12000;
    o->peers = o->damping = o->per = 1;
    o->segment = 16;
    o->evals = 6;
    o->code_name = "byte";
    for (; *argv; argv++) {
        char *value = strchr(*argv, '=');
        if (value)
            *value++ = 0;
        if (!value || (!set_number(o, *argv, value) && !set_text(o, *argv, value))) {
            (void)err_set(&why, ERR_RANGE, "unknown option %s", *argv);
            die(&why);
        }
    }
    check(o);
}

/* ---- start ---- */

static uint64_t passes_per_round(const struct options *o, const struct zo_rules *r)
{
    return o->peers * (r->sides == 2 ? 2 * o->segment * o->per : o->segment / r->k * (r->k + 1));
}

/* init plans a run by its steps of n0 records; here the budget is in passes. */
static uint64_t steps_for(const struct options *o)
{
    const uint64_t n0 = o->make.n0, k = o->make.k ? o->make.k : 7;
    const uint64_t records = o->make.sides == 1 ? o->passes * k / (k + 1) : o->passes / (2 * o->per);
    return records / n0 + 1;
}

/* `bits` of the largest entry instead of what init chose, which leaves 3 to 4 below the word's sign. */
static void coarsen(struct bench *b)
{
    struct zo_rules *r = &b->manifest.rules;
    for (uint32_t t = 0; b->o.bits && t < r->n_tensors; t++) {
        const uint32_t drop = (r->tensors[t].bits == 32 ? 28 : 56) - (uint32_t)b->o.bits;
        r->tensors[t].e = r->tensors[t].e > drop ? r->tensors[t].e - drop : 0;
    }
}

static void start(struct bench *b)
{
    struct err_why why;
    struct net_identity owner, peer;
    struct options *o = &b->o;
    (void)snprintf(o->name, sizeof o->name, "seed %" PRIu64, o->make.seed);
    o->make.name = o->name;
    o->make.data = o->train;
    o->make.eval_data = o->eval;
    o->make.steps = steps_for(o);
    if (o->u > 0)
        o->make.lr = o->u * (double)o->make.n0;
    if (net_start() != ERR_OK || net_identity_new(&owner) != ERR_OK || net_identity_new(&peer) != ERR_OK)
        die(&(struct err_why){.text = "libsodium did not start"});
    if (peer_make_manifest(&b->manifest, &b->made, &o->make, &owner, &why) != ERR_OK)
        die(&why);
    coarsen(b);
    const struct peer_engine_options e = {.model_dir = o->make.flags.model, .threads = 1};
    if (peer_engine_open(&b->engine, &b->manifest, &e, &why) != ERR_OK ||
        peer_engine_data(&b->engine, &b->train, o->train, &why) != ERR_OK ||
        peer_engine_data(&b->engine, &b->eval, o->eval, &why) != ERR_OK)
        die(&why);
    for (uint32_t p = 0; p < o->peers; p++) { /* streams of the seed alone, so that a run can be repeated */
        b->keys[p][0] = (uint32_t)o->make.seed * 1000003u + p;
        b->keys[p][1] = 0x6f6e6562;
    }
    b->queue = calloc((STALE_MAX + 1) * o->peers, sizeof *b->queue);
    if (!b->queue)
        die(&(struct err_why){.text = "out of memory"});
    net_identity_release(&owner);
    net_identity_release(&peer);
}

/* ---- measuring ---- */

/* Losses of n passes into g by records: two-sided, the mean over the `per` examples of a record. */
static void losses(struct bench *b, struct zo_pass *passes, struct zo_loss *out, size_t n)
{
    if (zo_model_losses(b->engine.model, passes, n, out, b->engine.kernels, b->engine.pool) != ERR_OK)
        die(&(struct err_why){.text = "the forward pass failed"});
    b->passes += n;
}

static const struct zo_example *draw(struct bench *b, uint32_t p)
{
    const uint64_t n = zo_dataset_size(b->train);
    return zo_dataset_get(b->train, zo_example_index(&b->manifest.rules, b->keys[p], b->draws[p]++ * b->manifest.rules.k, n));
}

static void measure_two_sided(struct bench *b, uint32_t p, struct segment *s)
{
    const struct zo_rules *r = &b->manifest.rules;
    struct zo_pass passes[2 * CALL_RECORDS];
    struct zo_loss out[2 * CALL_RECORDS];
    for (uint32_t i = 0; i < s->fold.count; i++)
        s->g[i] = 0;
    const uint64_t n = s->fold.count * b->o.per; /* pairs, record by record */
    for (uint64_t at = 0; at < n; at += CALL_RECORDS) {
        const uint64_t now = n - at < CALL_RECORDS ? n - at : CALL_RECORDS;
        for (uint64_t i = 0; i < 2 * now; i++) {
            const uint64_t record = (at + i / 2) / b->o.per;
            passes[i] = (struct zo_pass){.example = i % 2 ? passes[i - 1].example : draw(b, p),
                                         .key = {b->keys[p][0], b->keys[p][1]},
                                         .seq = s->fold.first_seq + record,
                                         .eps = i % 2 ? -r->eps : r->eps};
        }
        losses(b, passes, out, 2 * now);
        for (uint64_t i = 0; i < now; i++)
            s->g[(at + i) / b->o.per] +=
                zo_project_two_sided(out[2 * i].loss, out[2 * i + 1].loss, (double)r->eps) / (double)b->o.per;
    }
}

static void measure_one_sided(struct bench *b, uint32_t p, struct segment *s)
{
    const struct zo_rules *r = &b->manifest.rules;
    struct zo_pass passes[SEGMENT_MAX + 1];
    struct zo_loss out[SEGMENT_MAX + 1];
    double l[SEGMENT_MAX];
    for (uint32_t at = 0; at < s->fold.count; at += r->k) {
        const struct zo_example *x = draw(b, p);
        for (uint32_t j = 0; j <= r->k; j++)
            passes[j] = (struct zo_pass){.example = x,
                                         .key = {b->keys[p][0], b->keys[p][1]},
                                         .seq = s->fold.first_seq + at + (j ? j - 1 : 0),
                                         .eps = j ? r->eps : 0};
        losses(b, passes, out, r->k + 1);
        for (uint32_t j = 0; j < r->k; j++)
            l[j] = out[j + 1].loss;
        zo_project_one_sided(s->g + at, l, out[0].loss, (double)r->eps, r->k);
    }
}

static void count_gradients(struct bench *b, const struct segment *s)
{
    for (uint32_t i = 0; i < s->fold.count; i++) {
        if (!isfinite(s->g[i]))
            continue;
        b->g2 += s->g[i] * s->g[i];
        b->g4 += pow(s->g[i], 4);
        b->clipped += fabs(32 * s->g[i]) > 127.5 * s->unit;
        b->n_g++;
    }
}

static void measure(struct bench *b, uint32_t p, struct segment *s)
{
    const struct zo_rules *r = &b->manifest.rules;
    uint16_t r_f16;
    *s = (struct segment){.fold = {.key = {b->keys[p][0], b->keys[p][1]},
                                   .first_seq = b->seqs[p],
                                   .count = (uint32_t)b->o.segment,
                                   .step = (uint32_t)(b->weight / (double)r->n0)}};
    if (r->sides == 2)
        measure_two_sided(b, p, s);
    else
        measure_one_sided(b, p, s);
    zo_codec_seal(&b->codecs[p], r, s->g, s->fold.count, s->codes, &r_f16);
    s->unit = r->unit ? (double)r->unit * 0x1p-24 : zo_f16_to_double(r_f16);
    count_gradients(b, s);
    if (b->o.code == SIGN)
        for (uint32_t i = 0; i < s->fold.count; i++)
            s->codes[i] = (int8_t)(s->codes[i] == ZO_CODE_VOID ? ZO_CODE_VOID : s->g[i] < 0 ? -32 : 32);
    s->fold.codes = s->codes;
    s->fold.lag = (uint32_t)(b->o.damping ? b->o.peers * b->o.segment * (b->o.stale + 1) : 1);
    if (s->fold.lag < s->fold.count && b->o.damping)
        s->fold.lag = s->fold.count;
    b->seqs[p] += s->fold.count;
}

/* ---- folding ---- */

static void fold(struct bench *b, struct zo_fold *folds, size_t n)
{
    if (zo_state_fold(b->engine.state, folds, n, b->engine.kernels, b->engine.pool) != ERR_OK)
        die(&(struct err_why){.text = "folding failed"});
}

/* Unquantised gradients with the same machinery: 32 g / r to 1/256, as base-256 digits of ever coarser folds, each with
 * its share of Lambda and without the energy bound. */
static void fold_floats(struct bench *b, struct segment *s)
{
    struct zo_rules fine = b->manifest.rules;
    const struct zo_rules *whole = b->engine.state->rules;
    int64_t rest[SEGMENT_MAX];
    bool more = true;
    for (uint32_t i = 0; i < s->fold.count; i++)
        rest[i] = isfinite(s->g[i]) && s->unit > 0 ? llround(fmax(-1e6, fmin(1e6, 32 * s->g[i] / s->unit)) * 256) : 0;
    fine.unit = 1;
    for (uint32_t k = 0; k < fine.n_knots; k++)
        fine.knots[k].y /= 256;
    b->engine.state->rules = &fine;
    for (int digit = 0; more; digit++) {
        more = false;
        for (uint32_t i = 0; i < s->fold.count; i++) {
            const int64_t low = ((rest[i] + 127) & 255) - 127; /* -127 .. 128 */
            s->codes[i] = (int8_t)(low == 128 ? 127 : low);
            rest[i] = (rest[i] - low) / 256;
            more = more || rest[i] != 0;
        }
        fold(b, &s->fold, 1);
        for (uint32_t k = 0; k < fine.n_knots; k++)
            fine.knots[k].y = digit == 0 ? b->manifest.rules.knots[k].y : fine.knots[k].y * 256;
    }
    b->engine.state->rules = whole;
}

static void keep(struct bench *b, const struct segment *s)
{
    if (b->n_done == b->done_max) {
        b->done_max = b->done_max ? 2 * b->done_max : 256;
        b->done = realloc(b->done, b->done_max * sizeof *b->done);
        if (!b->done)
            die(&(struct err_why){.text = "out of memory"});
    }
    b->done[b->n_done++] = *s;
}

/* Subtracts all records, the last one first; whether the digest is the base's again. */
static bool undo(struct bench *b, uint64_t base)
{
    for (size_t i = b->n_done; i-- > 0;) {
        struct segment *s = &b->done[i];
        s->fold.codes = s->codes;
        s->fold.subtract = true;
        fold(b, &s->fold, 1);
    }
    return zo_state_digest(b->engine.state, b->engine.kernels, b->engine.pool) == base;
}

/* Folds what was measured in the round that is `stale` rounds back. */
static void fold_round(struct bench *b, uint64_t round)
{
    struct segment *s = b->queue + round % (b->o.stale + 1) * b->o.peers;
    struct zo_fold folds[PEERS_MAX];
    size_t n = 0;
    for (uint32_t p = 0; p < b->o.peers; p++) {
        if (s[p].fold.count == 0)
            continue;
        b->weight += (double)s[p].fold.count * ldexp((double)zo_weight(b->manifest.rules.n0, s[p].fold.lag), -32);
        b->records += s[p].fold.count;
        if (b->o.undo)
            keep(b, &s[p]);
        if (b->o.code == FLOAT)
            fold_floats(b, &s[p]);
        else
            folds[n++] = s[p].fold;
    }
    if (n)
        fold(b, folds, n);
    for (uint32_t p = 0; p < b->o.peers; p++)
        s[p].fold.count = 0;
    if (zo_model_refresh(b->engine.model, b->engine.pool) != ERR_OK)
        die(&(struct err_why){.text = "refreshing failed"});
}

/* Half of the peers are away in every other eighth of the budget. */
static bool away(const struct bench *b, uint32_t p)
{
    return b->o.churn && p % 2 && b->passes * 8 / b->o.passes % 2;
}

static void step(struct bench *b)
{
    struct segment *s = b->queue + b->round % (b->o.stale + 1) * b->o.peers;
    const double start = cpu_s();
    for (uint32_t p = 0; p < b->o.peers; p++)
        if (!away(b, p))
            measure(b, p, &s[p]);
    const double measured = cpu_s();
    if (b->round >= b->o.stale)
        fold_round(b, b->round - b->o.stale);
    b->round++;
    b->measure_s += measured - start;
    b->fold_s += cpu_s() - measured;
}

/* ---- the curve ---- */

static double report(struct bench *b)
{
    struct peer_eval e;
    if (peer_engine_eval(&b->engine, b->eval, b->o.eval_max, 16, NULL, NULL, &e) != ERR_OK)
        die(&(struct err_why){.text = "evaluating failed"});
    printf("{\"passes\": %" PRIu64 ", \"records\": %" PRIu64 ", \"rounds\": %" PRIu64 ", \"loss\": %.6f, \"accuracy\": ", b->passes,
           b->records, b->round, e.loss_example_mean);
    if (e.choices)
        printf("%.6f", e.accuracy);
    else
        printf("null");
    printf(", \"measure_s\": %.3f, \"fold_s\": %.3f}\n", b->measure_s, b->fold_s);
    fflush(stdout);
    return e.loss_example_mean;
}

static void train(struct bench *b)
{
    const struct options *o = &b->o;
    double loss = report(b);
    for (uint64_t i = 1; i <= o->evals && loss > o->target; i++) {
        while (b->passes < o->passes / o->evals * i && b->passes + passes_per_round(o, &b->manifest.rules) / 2 < o->passes)
            step(b);
        loss = report(b);
    }
}

int main(int argc, char **argv)
{
    static struct bench b;
    char digest[17];
    (void)argc;
    parse(&b.o, argv + 1);
    start(&b);
    const struct zo_rules *r = &b.manifest.rules;
    printf("{\"parameters\": %" PRIu64 ", \"direction\": \"%s\", \"sides\": %u, \"K\": %u, \"n0\": %" PRIu64
           ", \"eps\": %.9g, \"lr\": %.9g, \"schedule\": \"%s\", \"coef_min\": %" PRIu64 ", \"examples\": %" PRIu64 "}\n",
           b.made.parameters, r->direction == ZO_RANK1 ? "rank1" : r->direction == ZO_GAUSSIAN ? "gaussian" : "rademacher",
           r->sides, r->k, r->n0, b.made.eps, b.manifest.lr, b.manifest.schedule, b.made.coef_min, zo_dataset_size(b.train));
    const uint64_t base = zo_state_digest(b.engine.state, b.engine.kernels, b.engine.pool);
    train(&b);
    peer_engine_digest(&b.engine, digest);
    printf("{\"digest\": \"%s\", \"headroom\": %" PRId64 ", \"g_rms\": %.6g, \"g_kurtosis\": %.4g, \"g_clipped\": %.4g}\n", digest,
           zo_state_headroom(b.engine.state, b.engine.pool), sqrt(b.g2 / b.n_g), b.g4 * b.n_g / (b.g2 * b.g2), b.clipped / b.n_g);
    if (b.o.undo)
        printf("{\"undone\": %s, \"segments\": %zu}\n", undo(&b, base) ? "true" : "false", b.n_done);
    zo_dataset_free(b.train);
    zo_dataset_free(b.eval);
    free(b.done);
    peer_engine_close(&b.engine);
    peer_manifest_free(&b.manifest);
    free(b.queue);
    return 0;
}
