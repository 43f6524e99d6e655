/* bench_poison: how much of the clean improvement survives poisoners, on the embedded model and task; JSON lines on stdout.
 *
 *     bench_poison [--seeds N] [--only NAME] [--records R] [--share X]        exit 0, 1 failed, 2 usage
 *
 * One process, the real gossip machine, fold, codec and judge; machines take turns in rounds of one segment of 14 records
 * each, measured at one state (as many records in flight as the demo has).  Of each pair of runs, the same number of honest
 * records is measured, and the schedule ends with them.  Poisoners follow every rule that peers check: signed segments, lag =
 * count (the largest weight), the share cap.
 *   flip   measures honestly, sends the opposite sign        max   sends 127, always, without measuring
 *   rate 2: two segments a round, all that the share cap of `init --machines N` (2/N) lets through.
 * audit: honest machines spend `share` of their passes on random groups of random other machines; a byte that is off is
 * evidence, and after ANSWER_ROUNDS (asking, verifying, the owner's retraction) the liar is cut from record 0. */
#include "peer/engine.h"
#include "peer/group.h"
#include "peer/judge.h"
#include "peer/make.h"
#include "tests/net/few.h"
#include <math.h>
#include <onebyte/zo/codec.h>
#include <stdio.h>
#include <time.h>

enum { MACHINES_MAX = 24, GROUPS = 2, ANSWER_ROUNDS = 2, PASSES_MAX = MACHINES_MAX * 2 * GROUPS * 8 };

struct scenario {
    const char *name;
    unsigned honest, liars, rate;
    enum { FLIP, MAX } kind;
    bool audit;
};
static const struct scenario scenarios[] = {
    {"clean18", 18, 0, 1, FLIP, false},      {"clean15", 15, 0, 1, FLIP, false},
    {"flip10", 18, 2, 1, FLIP, false},       {"flip25", 15, 5, 1, FLIP, false},
    {"max10", 18, 2, 1, MAX, false},         {"max25", 15, 5, 1, MAX, false},
    {"flip10-audit", 18, 2, 1, FLIP, true},  {"flip25-audit", 15, 5, 1, FLIP, true},
    {"max10-audit", 18, 2, 1, MAX, true},    {"max25-audit", 15, 5, 1, MAX, true},
    {"flip10-x2", 18, 2, 2, FLIP, false},    {"flip25-x2", 15, 5, 2, FLIP, false},
    {"flip25-x2-audit", 15, 5, 2, FLIP, true},
};

struct machine {
    struct few_key key;
    uint32_t stream[2];
    uint8_t head[32];
    uint64_t end;
    struct zo_codec codec;
    bool liar, caught, cut;
    unsigned caught_round;
    uint64_t caught_at; /* its records by then */
};

struct world {
    const struct scenario *s;
    struct peer_manifest m;
    struct peer_engine e;
    struct net_gossip *g;
    struct zo_dataset *data, *eval;
    struct peer_folds folds;
    struct few_key owner;
    struct machine machines[MACHINES_MAX];
    unsigned n, round;
    uint64_t honest_records, audited, refused;
    double credit;
    uint64_t random;
    struct zo_pass passes[PASSES_MAX];
    struct zo_loss losses[PASSES_MAX];
};

struct options {
    unsigned seeds;
    const char *only;
    uint64_t records;
    double share;
};

static uint64_t random_below(struct world *w, uint64_t n)
{
    w->random += UINT64_C(0x9E3779B97F4A7C15);
    uint64_t z = w->random;
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (z ^ z >> 31) % n;
}

static void check(enum err e, const char *what, const struct err_why *why)
{
    if (e == ERR_OK)
        return;
    fprintf(stderr, "bench_poison: %s: %s %s\n", what, err_str(e), why ? why->text : "");
    exit(1);
}

/* Steps such that the schedule ends when the honest machines have measured `records`. */
static uint64_t steps_for(const struct scenario *s, uint64_t records, uint64_t n0)
{
    const unsigned honest_segment = GROUPS * 7, all = s->audit ? s->honest : s->honest + s->rate * s->liars;
    const double lag = (double)(all * honest_segment), weight = lag > (double)n0 ? (double)n0 / lag : 1;
    const double rounds = (double)records / (s->honest * honest_segment);
    const double liars = s->audit ? 0 : (double)(s->rate * s->liars * honest_segment);
    return (uint64_t)(rounds * (s->honest * honest_segment * weight + liars) / (double)n0);
}

static void world_open(struct world *w, const struct scenario *s, uint64_t seed, uint64_t records)
{
    struct peer_make k;
    struct peer_made made;
    struct err_why why = {{0}};
    memset(w, 0, sizeof *w);
    w->s = s;
    w->n = s->honest + s->liars;
    w->random = seed;
    w->owner = few_key(1);
    struct net_identity owner = few_identity(&w->owner);
    peer_make_defaults(&k);
    k.flags.model = "peer/demo/model";
    k.data = "peer/demo/train.jsonl";
    k.sides = 1;
    k.k = 7;
    k.segment_max = GROUPS * 7;
    k.n0 = 256;
    k.steps = steps_for(s, records, k.n0);
    k.lr = 0.0015;
    k.eps = 0.01;
    k.schedule = "cosine";
    k.public_data = true;
    k.seed = seed;
    k.machines = w->n;
    check(peer_make_manifest(&w->m, &made, &k, &owner, &why), "manifest", &why);
    const struct peer_engine_options o = {.model_dir = k.flags.model, .threads = 1, .memory = ZO_MEMORY_FAST};
    check(peer_engine_open(&w->e, &w->m, &o, &why), "engine", &why);
    check(peer_engine_data(&w->e, &w->data, k.data, &why), "data", &why);
    check(peer_engine_data(&w->e, &w->eval, "peer/demo/eval.jsonl", &why), "data", &why);
    check(net_gossip_new(&w->g, &w->m.net, w->owner.id, 0), "gossip", NULL);
    check(peer_folds_init(&w->folds, 256), "folds", NULL);
    for (unsigned i = 0; i < w->n; i++) {
        struct machine *x = &w->machines[i];
        x->key = few_key((uint8_t)(10 + i));
        x->liar = i >= s->honest;
        net_stream_key(x->stream, w->m.run_id, x->key.id);
    }
}

static void world_close(struct world *w)
{
    peer_folds_release(&w->folds);
    zo_dataset_free(w->data);
    zo_dataset_free(w->eval);
    net_gossip_free(w->g);
    peer_engine_close(&w->e);
    peer_manifest_free(&w->m);
}

static void take_actions(struct world *w)
{
    struct net_action a;
    while (net_gossip_action(w->g, &a)) {
        if (a.kind != NET_FOLD && a.kind != NET_UNFOLD)
            continue;
        if (peer_folds_full(&w->folds))
            check(peer_folds_flush(&w->folds, &w->e), "fold", NULL);
        peer_folds_add(&w->folds, &w->m, &a);
    }
}

struct sealed {
    unsigned machine;
    struct net_segment s;
};

/* g of GROUPS groups from seq on, at the present state. */
static void measure(struct world *w, double *g, double *loss, const uint32_t key[2], uint64_t seq, size_t groups)
{
    const struct zo_rules *r = &w->m.rules;
    const uint32_t per = peer_group_passes_n(r);
    for (size_t i = 0; i < groups; i++)
        peer_group_passes(w->passes + i * per, r, w->data, key, seq + i * r->k);
    check(zo_model_losses(w->e.model, w->passes, groups * per, w->losses, w->e.kernels, w->e.pool), "losses", NULL);
    for (size_t i = 0; i < groups; i++)
        loss[i] = peer_group_project(g + i * r->k, r, w->losses + i * per);
}

static void seal(struct world *w, struct sealed *out, unsigned at, uint32_t in_flight, uint64_t step)
{
    struct machine *x = &w->machines[at];
    const uint32_t n = GROUPS * w->m.rules.k;
    struct net_segment *s = &out->s;
    double g[GROUPS * 8], loss[GROUPS];
    *s = (struct net_segment){.first_seq = x->end, .count = (uint16_t)n, .step = (uint32_t)step, .lag = x->liar ? n : in_flight,
                              .r_f16 = zo_f16_from_double(1)};
    out->machine = at;
    if (!x->liar || w->s->kind == FLIP) {
        measure(w, g, loss, x->stream, x->end, GROUPS);
        zo_codec_seal(&x->codec, &w->m.rules, g, n, s->codes, &s->r_f16);
    } else {
        memset(s->codes, 127, n);
    }
    for (uint32_t i = 0; i < n && x->liar && w->s->kind == FLIP; i++)
        s->codes[i] = s->codes[i] == ZO_CODE_VOID ? ZO_CODE_VOID : (int8_t)-s->codes[i];
    const struct net_identity id = few_identity(&x->key);
    memcpy(s->prev, x->head, 8);
    net_segment_sign(s, &w->m.net, &id, x->head);
    net_segment_id(x->head, s, w->m.run_id, x->key.id, x->head);
    x->end += n;
}

/* One group of one machine's segment of this round, measured again with the state it was measured at. */
static void audit(struct world *w, const struct sealed *all, size_t n)
{
    const struct sealed *t = &all[random_below(w, n)];
    struct machine *x = &w->machines[t->machine];
    const uint32_t k = w->m.rules.k, group = (uint32_t)random_below(w, GROUPS);
    double g[8], loss;
    measure(w, g, &loss, x->stream, t->s.first_seq + (uint64_t)group * k, 1);
    w->audited += k;
    for (uint32_t i = 0; i < k; i++) {
        if (peer_judge(&w->m.rules, t->s.codes[group * k + i], t->s.r_f16, g[i], loss, NULL, NULL) != PEER_OFF || x->caught)
            continue;
        if (!x->liar)
            fprintf(stderr, "bench_poison: an honest machine was found off\n");
        x->caught = true;
        x->caught_round = w->round;
        x->caught_at = x->end;
    }
}

static void retract(struct world *w)
{
    for (unsigned i = 0; i < w->n; i++) {
        struct machine *x = &w->machines[i];
        if (!x->caught || x->cut || w->round < x->caught_round + ANSWER_ROUNDS)
            continue;
        uint8_t frame[NET_CONTROL_BYTES_MAX];
        const struct net_identity owner = few_identity(&w->owner);
        const size_t n = net_control_retract(frame, &w->m.net, &owner, x->key.id, 0);
        check(net_gossip_load_control(w->g, frame, n), "retract", NULL);
        x->cut = true;
        take_actions(w);
    }
}

static void play_round(struct world *w, double share)
{
    static struct sealed all[2 * MACHINES_MAX];
    struct net_clock clock;
    size_t n = 0;
    uint32_t in_flight = 0;
    net_gossip_clock(w->g, &clock);
    for (unsigned i = 0; i < w->n; i++)
        if (!w->machines[i].cut)
            in_flight += GROUPS * w->m.rules.k * (w->machines[i].liar ? w->s->rate : 1);
    for (unsigned i = 0; i < w->n; i++)
        for (unsigned times = w->machines[i].cut ? 0 : w->machines[i].liar ? w->s->rate : 1; times > 0; times--) {
            seal(w, &all[n++], i, in_flight, clock.step);
            w->honest_records += w->machines[i].liar ? 0 : GROUPS * w->m.rules.k;
        }
    w->credit += w->s->audit ? share * (double)(w->s->honest * GROUPS * w->m.rules.k) : 0;
    for (; w->credit >= w->m.rules.k; w->credit -= w->m.rules.k)
        audit(w, all, n);
    for (size_t i = 0; i < n; i++) {
        uint8_t wire[NET_SEGMENT_BYTES_MAX];
        const size_t bytes = net_segment_write(wire, &all[i].s);
        check(net_gossip_load(w->g, w->machines[all[i].machine].key.id, wire, bytes), "segment", NULL);
        take_actions(w);
    }
    retract(w);
    check(peer_folds_flush(&w->folds, &w->e), "fold", NULL);
    w->round++;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void report(struct world *w, uint64_t seed, const struct peer_eval *before, double began)
{
    struct peer_eval after;
    struct net_clock clock;
    uint64_t worst = 0, sum = 0;
    unsigned caught = 0, wrong = 0, last = 0;
    check(peer_engine_eval(&w->e, w->eval, 0, 0, NULL, NULL, &after), "eval", NULL);
    net_gossip_clock(w->g, &clock);
    for (unsigned i = 0; i < w->n; i++) {
        const struct machine *x = &w->machines[i];
        caught += x->caught && x->liar;
        wrong += x->caught && !x->liar;
        sum += x->caught_at;
        worst = x->caught_at > worst ? x->caught_at : worst;
        last = x->caught && x->caught_round > last ? x->caught_round : last;
    }
    printf("{\"bench\":\"poison\",\"scenario\":\"%s\",\"seed\":%llu,\"loss_before\":%.5f,\"loss\":%.5f,\"accuracy_before\":%.4f,"
           "\"accuracy\":%.4f,\"honest_records\":%llu,\"rounds\":%u,\"step\":%llu,\"steps\":%llu,\"audited_records\":%llu,"
           "\"liars\":%u,\"caught\":%u,\"falsely\":%u,\"caught_after_records_mean\":%.0f,\"caught_after_records_max\":%llu,"
           "\"caught_all_by_round\":%u,\"seconds\":%.1f}\n",
           w->s->name, (unsigned long long)seed, before->loss_example_mean, after.loss_example_mean, before->accuracy,
           after.accuracy, (unsigned long long)w->honest_records, w->round, (unsigned long long)clock.step,
           (unsigned long long)w->m.net.steps, (unsigned long long)w->audited, w->s->liars, caught, wrong,
           caught ? (double)sum / caught : 0, (unsigned long long)worst, last, now_s() - began);
    fflush(stdout);
}

static void play(const struct scenario *s, uint64_t seed, const struct options *o)
{
    static struct world w;
    struct peer_eval before;
    const double began = now_s();
    world_open(&w, s, seed, o->records);
    check(peer_engine_eval(&w.e, w.eval, 0, 0, NULL, NULL, &before), "eval", NULL);
    while (w.honest_records < o->records)
        play_round(&w, o->share);
    report(&w, seed, &before, began);
    world_close(&w);
}

int main(int argc, char **argv)
{
    struct options o = {.seeds = 3, .records = 75600, .share = 0.01};
    struct err_why why = {{0}};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seeds") == 0)
            o.seeds = (unsigned)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--only") == 0)
            o.only = argv[i + 1];
        else if (strcmp(argv[i], "--records") == 0)
            o.records = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--share") == 0)
            o.share = strtod(argv[i + 1], NULL);
        else
            return 2;
    }
    check(net_start(), "sodium", NULL);
    check(zo_blas_start(&why), "blas", &why);
    for (uint64_t seed = 1; seed <= o.seeds; seed++)
        for (size_t i = 0; i < ARRAY_LEN(scenarios); i++)
            if (!o.only || strncmp(scenarios[i].name, o.only, strlen(o.only)) == 0)
                play(&scenarios[i], seed, &o);
    return 0;
}
