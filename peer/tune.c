/* libonebyte's own part: the core on a plain vector of floats.  Everything else of the library is what the program uses. */
#include "peer/engine.h"
#include "peer/export.h"
#include "peer/plan.h"
#include <math.h>
#include <onebyte/base/bytes.h>
#include <onebyte/tune.h>
#include <onebyte/zo/codec.h>
#include <onebyte/zo/direction.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)ONEBYTE_MESSAGE_BYTES == 32 + (int)NET_SEGMENT_BYTES_MAX,
               "machine id, then the segment as on the wire");
_Static_assert((int)ONEBYTE_RECORDS_MAX == (int)LIMIT_SEGMENT_COUNT, "one message is one segment");

struct onebyte_tuner {
    struct zo_tensor tensor;
    struct zo_rules rules;
    struct net_rules net;
    struct net_identity self;
    struct net_gossip *gossip;
    struct zo_state *state;
    const struct zo_kernels *kernels;
    struct zo_codec codec;
    size_t n;
    float *theta, *work; /* [n] each */
    uint32_t key[2];
};

/* ---- start ---- */

static enum err check_options(const struct onebyte_options *o, double *max_abs, struct err_why *why)
{
    if (!o->run || !o->theta || o->n < 1 || o->n > (size_t)1 << 31)
        return err_set(why, ERR_RANGE, "a tuner needs a run's name and 1 to 2^31 parameters");
    if (!(o->eps > 0 && o->eps <= 1) || !(o->lr > 0 && o->lr <= 1) || o->n0 < 1 || o->steps < 1 ||
        o->steps > UINT32_MAX)
        return err_set(why, ERR_RANGE,
                       "eps and lr are in (0, 1], n0 is at least 1, steps 1 to 2^32 - 1");
    *max_abs = 0;
    for (size_t i = 0; i < o->n; i++) {
        if (!isfinite(o->theta[i]))
            return err_set(why, ERR_NONFINITE, "parameter %zu is not a finite number", i);
        *max_abs = fmax(*max_abs, fabs((double)o->theta[i]));
    }
    return ERR_OK;
}

/* Tuners meet only if they begin alike: the id covers all that arithmetic reads. */
static void name_run(struct onebyte_tuner *t, const struct onebyte_options *o)
{
    uint8_t numbers[24];
    bytes_put_le(numbers, o->n, 8);
    bytes_put_le(numbers + 8, o->n0, 8);
    bytes_put_le(numbers + 16, o->steps, 8);
    const struct net_part parts[] = {
        {"onebyte/1 tune", 15},    {o->run, strlen(o->run) + 1},
        {numbers, sizeof numbers}, {&o->eps, sizeof o->eps},
        {&o->lr, sizeof o->lr},    {o->theta, o->n * sizeof *o->theta}};
    net_hash(t->net.run_id, parts, ARRAY_LEN(parts));
}

static enum err set_rules(struct onebyte_tuner *t, const struct onebyte_options *o, double max_abs,
                          struct err_why *why)
{
    uint64_t coef = 0;
    t->n = o->n;
    t->tensor = (struct zo_tensor){.name = "theta", .n_dims = 1, .dims = {o->n}};
    t->rules = (struct zo_rules){.direction = ZO_RADEMACHER,
                                 .sides = 2,
                                 .k = 1,
                                 .n0 = o->n0,
                                 .steps = o->steps,
                                 .eps = o->eps,
                                 .n_tensors = 1,
                                 .tensors = &t->tensor};
    t->net = (struct net_rules){.n0 = o->n0,
                                .steps = o->steps,
                                .share_65536 = 65536,
                                .k = 1,
                                .records_max = (uint64_t)1 << 40,
                                .burst = 2 + 2 * ONEBYTE_RECORDS_MAX / o->n0,
                                .admission = NET_OPEN};
    name_run(t, o);
    TRY(peer_plan_knots(&t->rules, "constant", (double)o->lr, 0, why));
    if (peer_plan_tensor(&t->tensor, &coef, max_abs, peer_plan_peak(&t->rules)) != ERR_OK ||
        coef == 0)
        return err_set(why, ERR_RANGE, "lr %g is too small beside parameters as large as %g",
                       (double)o->lr, max_abs);
    return ERR_OK;
}

static enum err start(struct onebyte_tuner *t, const struct onebyte_options *o, struct err_why *why)
{
    static const uint8_t nobody[32] = {0};
    uint32_t digest_key[2];
    double max_abs = 0;
    TRY(check_options(o, &max_abs, why));
    if (net_start() != ERR_OK || net_identity_new(&t->self) != ERR_OK)
        return err_set(why, ERR_IO, "libsodium did not start");
    TRY(set_rules(t, o, max_abs, why));
    t->kernels = zo_kernels_pick(NULL);
    net_stream_key(t->key, t->net.run_id, t->self.id);
    net_stream_key(digest_key, t->net.run_id, nobody);
    t->theta = malloc(o->n * sizeof *t->theta);
    t->work = malloc(o->n * sizeof *t->work);
    if (!t->theta || !t->work || zo_state_new(&t->state, &t->rules, digest_key) != ERR_OK ||
        net_gossip_new(&t->gossip, &t->net, t->self.id, 0) != ERR_OK)
        return err_set(why, ERR_NOMEM, "out of memory");
    TRY(zo_state_load_f32(t->state, 0, 0, o->theta, o->n));
    zo_state_read_f32(t->state, 0, 0, t->theta, o->n);
    return ERR_OK;
}

enum err onebyte_tuner_new(struct onebyte_tuner **out, const struct onebyte_options *o,
                           struct err_why *why)
{
    struct onebyte_tuner *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(why, ERR_NOMEM, "out of memory");
    const enum err e = start(t, o, why);
    if (e != ERR_OK) {
        onebyte_tuner_free(t);
        return e;
    }
    *out = t;
    return ERR_OK;
}

void onebyte_tuner_free(struct onebyte_tuner *t)
{
    if (!t)
        return;
    net_gossip_free(t->gossip);
    zo_state_free(t->state);
    net_identity_release(&t->self);
    free(t->theta);
    free(t->work);
    free(t);
}

/* ---- measuring and taking ---- */

/* Carries out what gossip decided: which records count now, and which no longer do. */
static enum err fold(struct onebyte_tuner *t)
{
    struct net_action a;
    enum err e = ERR_OK;
    while (net_gossip_action(t->gossip, &a)) {
        if (a.kind != NET_FOLD && a.kind != NET_UNFOLD)
            continue;
        struct zo_fold f = {.first_seq = a.segment->first_seq,
                            .count = a.segment->count,
                            .step = a.segment->step,
                            .lag = a.segment->lag,
                            .codes = a.segment->codes,
                            .counts = a.counts,
                            .subtract = a.kind == NET_UNFOLD};
        net_stream_key(f.key, t->net.run_id, a.machine);
        if (e == ERR_OK)
            e = zo_state_fold(t->state, &f, 1, t->kernels, NULL);
    }
    zo_state_read_f32(t->state, 0, 0, t->theta, t->n);
    return e;
}

static double loss_at(struct onebyte_tuner *t, onebyte_loss *loss, void *ctx, uint64_t seq,
                      float eps)
{
    memcpy(t->work, t->theta, t->n * sizeof *t->work);
    zo_direction_rows_f32(t->work, &t->rules, 0, t->key, seq, 0, t->n, eps, true, t->kernels);
    return loss(ctx, t->work, t->n, seq);
}

/* BLAKE2b(digest, frontier), of the state that was measured: SPEC 7. */
static enum err bind_segment(const struct onebyte_tuner *t, struct net_segment *s)
{
    const size_t n = net_gossip_frontier(t->gossip, NET_ALL, NULL, 0);
    struct net_frontier_entry *f = calloc(n + 1, sizeof *f);
    struct net_hash_state h;
    uint8_t bytes[80], hash[32];
    if (!f)
        return ERR_NOMEM;
    ENSURE(net_gossip_frontier(t->gossip, NET_ALL, f, n) == n);
    bytes_put_le(bytes, onebyte_tuner_digest(t), 8);
    net_hash_start(&h);
    net_hash_more(&h, bytes, 8);
    for (size_t i = 0; i < n; i++) {
        memcpy(bytes, f[i].machine, 32);
        bytes_put_le(bytes + 32, f[i].count, 8);
        memcpy(bytes + 40, f[i].head, 32);
        bytes_put_le(bytes + 72, f[i].cut, 8);
        net_hash_more(&h, bytes, sizeof bytes);
    }
    net_hash_end(&h, hash);
    memcpy(s->binding, hash, sizeof s->binding);
    free(f);
    return ERR_OK;
}

enum err onebyte_tuner_measure(struct onebyte_tuner *t, onebyte_loss *loss, void *ctx,
                               uint32_t n_records, uint8_t message[ONEBYTE_MESSAGE_BYTES],
                               size_t *bytes, struct err_why *why)
{
    double g[ONEBYTE_RECORDS_MAX], sum = 0;
    struct net_frontier_entry own = {.count = 0};
    if (n_records < 1 || n_records > ONEBYTE_RECORDS_MAX)
        return err_set(why, ERR_RANGE, "1 to %d records make a message", ONEBYTE_RECORDS_MAX);
    if (!net_gossip_feed(t->gossip, t->self.id, &own))
        memset(&own, 0, sizeof own);
    struct net_segment s = {.first_seq = own.count,
                            .count = (uint16_t)n_records,
                            .lag = n_records,
                            .step = (uint32_t)onebyte_tuner_step(t)};
    if (bind_segment(t, &s) != ERR_OK)
        return err_set(why, ERR_NOMEM, "out of memory");
    uint32_t finite = 0;
    for (uint32_t i = 0; i < n_records; i++) {
        const double plus = loss_at(t, loss, ctx, own.count + i, t->rules.eps),
                     minus = loss_at(t, loss, ctx, own.count + i, -t->rules.eps);
        g[i] = zo_project_two_sided(plus, minus, (double)t->rules.eps);
        if (isfinite(g[i])) {
            sum += (plus + minus) / 2;
            finite++;
        }
    }
    s.loss_f16 = zo_f16_from_double(finite ? sum / finite : NAN);
    zo_codec_seal(&t->codec, &t->rules, g, n_records, s.codes, &s.r_f16);
    memcpy(s.prev, own.head, sizeof s.prev);
    net_segment_sign(&s, &t->net, &t->self, own.head);
    memcpy(message, t->self.id, 32);
    const size_t n = net_segment_write(message + 32, &s);
    if (net_gossip_own(t->gossip, message + 32, n, 0) != ERR_OK)
        return err_set(why, ERR_RANGE, "this tuner's feed takes no more records");
    *bytes = 32 + n;
    const enum err e = fold(t);
    return e == ERR_OK ? e : err_set(why, e, "folding: %s", err_str(e));
}

enum err onebyte_tuner_take(struct onebyte_tuner *t, const uint8_t *message, size_t bytes,
                            struct err_why *why)
{
    if (bytes <= 32 || bytes > ONEBYTE_MESSAGE_BYTES ||
        net_gossip_load(t->gossip, message, message + 32, bytes - 32) != ERR_OK)
        return err_set(why, ERR_PROTO, "the message is damaged, of another run, or out of order");
    const enum err e = fold(t);
    return e == ERR_OK ? e : err_set(why, e, "folding: %s", err_str(e));
}

const float *onebyte_tuner_theta(const struct onebyte_tuner *t)
{
    return t->theta;
}

uint64_t onebyte_tuner_digest(const struct onebyte_tuner *t)
{
    return zo_state_digest(t->state, t->kernels, NULL);
}

uint64_t onebyte_tuner_step(const struct onebyte_tuner *t)
{
    struct net_clock clock;
    net_gossip_clock(t->gossip, &clock);
    return clock.step;
}

/* ---- replaying a run of the program ---- */

enum err onebyte_replay(char digest[17], const char *manifest, const char *ledger,
                        const char *model_dir, const char *out_dir, struct err_why *why)
{
    static const uint8_t nobody[32] = {0};
    struct err_why unread = {{0}};
    struct peer_manifest m = {.text = NULL};
    struct peer_engine engine = {.manifest = NULL};
    struct peer_loaded loaded;
    struct net_gossip *gossip = NULL;
    const struct peer_engine_options o = {.model_dir = model_dir};
    why = why ? why : &unread;
    if (net_start() != ERR_OK)
        return err_set(why, ERR_IO, "libsodium did not start");
    enum err e = peer_manifest_load(&m, manifest, why);
    if (e == ERR_OK)
        e = peer_engine_open(&engine, &m, &o, why);
    if (e == ERR_OK && (e = net_gossip_new(&gossip, &m.net, nobody, 0)) != ERR_OK)
        (void)err_set(why, e, "cannot load the run: %s", err_str(e));
    if (e == ERR_OK)
        e = peer_load_portable(gossip, ledger, &m, &engine, NULL, NULL, &loaded, why);
    if (e == ERR_OK && out_dir)
        e = peer_export(&engine, model_dir, out_dir, ZO_F32, why);
    if (e == ERR_OK)
        peer_engine_digest(&engine, digest);
    peer_engine_close(&engine);
    net_gossip_free(gossip);
    peer_manifest_free(&m);
    return e;
}
