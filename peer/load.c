/* From a ledger into a state: gossip's checks decide what counts, the fold adds many segments at once. */
#include "peer/device.h"
#include "peer/engine.h"
#include "peer/snapshot.h"
#include <inttypes.h>
#include <onebyte/base/bytes.h>
#include <onebyte/net/control.h>
#include <onebyte/net/score.h>
#include <stdlib.h>
#include <string.h>

enum { SEGMENTS_PER_FOLD = 256 };

enum err peer_folds_init(struct peer_folds *f, size_t n_max)
{
    ENSURE(n_max > 0);
    struct peer_folds made = {.n_max = n_max};
    made.folds = calloc(n_max, sizeof *made.folds);
    made.codes = calloc(n_max, LIMIT_SEGMENT_COUNT);
    made.counts = calloc(n_max, LIMIT_SEGMENT_COUNT);
    if (!made.folds || !made.codes || !made.counts) {
        peer_folds_release(&made);
        return ERR_NOMEM;
    }
    *f = made;
    return ERR_OK;
}

void peer_folds_release(struct peer_folds *f)
{
    free(f->folds);
    free(f->codes);
    free(f->counts);
    memset(f, 0, sizeof *f);
}

bool peer_folds_full(const struct peer_folds *f)
{
    return f->n == f->n_max;
}

void peer_folds_put(struct peer_folds *f, const struct peer_manifest *m, const uint8_t machine[32],
                    const struct net_segment *s, const uint8_t *counts, bool subtract)
{
    ENSURE(f->n < f->n_max);
    ENSURE(s->count <= LIMIT_SEGMENT_COUNT);
    int8_t *codes = f->codes + f->n * LIMIT_SEGMENT_COUNT;
    uint8_t *mask = f->counts + f->n * LIMIT_SEGMENT_COUNT;
    struct zo_fold *fold = &f->folds[f->n++];
    *fold = (struct zo_fold){.first_seq = s->first_seq,
                             .count = s->count,
                             .step = s->step,
                             .lag = s->lag,
                             .codes = codes,
                             .counts = mask,
                             .subtract = subtract};
    net_stream_key(fold->key, m->run_id, machine);
    memcpy(codes, s->codes, s->count);
    memcpy(mask, counts, s->count);
    for (uint32_t i = 0; i < s->count; i++)
        f->records += subtract ? (uint64_t)0 - (mask[i] != 0) : (uint64_t)(mask[i] != 0);
}

void peer_folds_add(struct peer_folds *f, const struct peer_manifest *m, const struct net_action *a)
{
    ENSURE(a->kind == NET_FOLD || a->kind == NET_UNFOLD);
    peer_folds_put(f, m, a->machine, a->segment, a->counts, a->kind == NET_UNFOLD);
}

enum err peer_folds_flush(struct peer_folds *f, struct peer_engine *e)
{
    if (f->n == 0)
        return ERR_OK;
    TRY(peer_engine_fold(e, f->folds, f->n));
    f->n = 0;
    return ERR_OK;
}

struct loading {
    struct net_gossip *gossip;
    const struct peer_manifest *manifest;
    struct peer_engine *engine; /* NULL: count only */
    struct peer_folds folds;
    struct peer_loaded *out;
    bool (*go_on)(void *, uint64_t, uint64_t);
    void *ctx;
    enum err failed;
};

/* Takes what gossip decided so far. */
static bool take_actions(struct loading *l)
{
    struct net_action a;
    while (net_gossip_action(l->gossip, &a)) {
        if (a.kind != NET_FOLD && a.kind != NET_UNFOLD)
            continue;
        if (peer_folds_full(&l->folds)) {
            if (!l->engine)
                l->folds.n = 0;
            else if ((l->failed = peer_folds_flush(&l->folds, l->engine)) != ERR_OK)
                return false;
        }
        peer_folds_add(&l->folds, l->manifest, &a);
    }
    return true;
}

static bool load_segment(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n,
                         int64_t unix_ms)
{
    (void)unix_ms;
    struct loading *l = ctx;
    const enum err e = net_gossip_load(l->gossip, machine, wire, n);
    if (e == ERR_OK) {
        l->out->segments++;
        l->out->wire_bytes += n;
    } else {
        l->out->refused += e != ERR_RANGE; /* retracted: not invalid */
    }
    if (l->go_on && l->out->segments % 64 == 0 && !l->go_on(l->ctx, l->out->segments, 0)) {
        l->failed = ERR_CANCELLED;
        return false;
    }
    return take_actions(l);
}

static bool load_control(void *ctx, const uint8_t *frame, size_t n)
{
    struct loading *l = ctx;
    if (n > 0 && frame[0] == NET_SCORE)
        return true; /* says nothing about the state */
    (void)!net_gossip_load_control(
        l->gossip, frame, n); /* twice on purpose: see engine.h; what is invalid stays out */
    return take_actions(l);
}

static enum err loading_init(struct loading *l, struct net_gossip *g, const struct peer_manifest *m,
                             struct peer_engine *e, struct peer_loaded *out)
{
    memset(l, 0, sizeof *l);
    memset(out, 0, sizeof *out);
    l->gossip = g;
    l->manifest = m;
    l->engine = e;
    l->out = out;
    return peer_folds_init(&l->folds, SEGMENTS_PER_FOLD);
}

static enum err loading_end(struct loading *l, enum err e, struct err_why *why)
{
    if (e == ERR_OK)
        e = l->failed;
    if (e == ERR_OK && l->engine)
        e = peer_folds_flush(&l->folds, l->engine);
    l->out->records = l->folds.records;
    peer_folds_release(&l->folds);
    if (e == ERR_OK && l->go_on)
        (void)l->go_on(l->ctx, l->out->segments, l->out->segments);
    if (e != ERR_OK && why && why->text[0] == '\0')
        (void)err_set(why, e, "cannot fold the ledger: %s", err_str(e));
    return e;
}

enum err peer_load_ledger(struct net_gossip *g, struct net_ledger *ledger,
                          const struct peer_manifest *m, struct peer_engine *engine,
                          bool (*go_on)(void *ctx, uint64_t done, uint64_t total), void *ctx,
                          struct peer_loaded *out, struct err_why *why)
{
    struct loading l;
    TRY(loading_init(&l, g, m, engine, out));
    l.go_on = go_on;
    l.ctx = ctx;
    enum err e = net_ledger_each_control(ledger, load_control, &l);
    if (e == ERR_OK && l.failed == ERR_OK)
        e = net_ledger_each(ledger, load_segment, &l);
    if (e == ERR_OK && l.failed == ERR_OK)
        e = net_ledger_each_control(ledger, load_control, &l);
    if (e == ERR_OK && l.failed == ERR_OK)
        e = net_ledger_sound(ledger, why);
    return loading_end(&l, e, why);
}

uint64_t peer_run_step(const struct net_gossip *g, const struct peer_manifest *m)
{
    struct net_clock clock;
    struct net_feed_view v;
    uint64_t end = 0;
    net_gossip_clock(g, &clock);
    for (size_t i = 0; m->net.sync && net_gossip_feed_at(g, i, &v); i++)
        if (v.entry.count > 0 && v.last_step >= end)
            end = (uint64_t)v.last_step + 1;
    return m->net.sync ? end : clock.step;
}

/* ---- checkpoints ---- */

struct named {
    struct loading l; /* first: load_segment and load_control get it */
    struct net_control c;
    bool found, last;
    uint64_t number;
    uint8_t *bytes;
    struct peer_snapshot frontier; /* only its frontier is set */
};

static bool find_named(void *ctx, const uint8_t *frame, size_t n)
{
    struct named *k = ctx;
    struct net_control c;
    if (net_control_parse(&c, frame, n) != ERR_OK || c.kind != NET_CHECKPOINT ||
        net_control_check(&c, &k->l.manifest->net) != ERR_OK)
        return true;
    if (k->last ? !k->found || c.number >= k->c.number : c.number == k->number) {
        k->c = c;
        k->found = true;
    }
    return true;
}

static enum err read_frontier(struct named *k, const struct peer_home *home, struct err_why *why)
{
    char path[PEER_PATH_BYTES];
    uint8_t hash[32];
    const size_t most = (size_t)LIMIT_FEEDS * PEER_FRONTIER_ENTRY + 1;
    peer_checkpoint_path(home, k->c.number, path);
    FILE *f = fopen(path, "rbe");
    size_t n = 0;
    k->bytes = malloc(most);
    if (f && k->bytes)
        n = fread(k->bytes, 1, most, f);
    if (f)
        (void)fclose(f);
    else
        return err_set(why, ERR_NOTFOUND, "the frontier of checkpoint %" PRIu64 " is not here yet: run the peer beside one that has it",
                       k->c.number);
    if (!k->bytes)
        return err_set(why, ERR_NOMEM, "out of memory");
    net_hash(hash, &(const struct net_part){k->bytes, n}, 1);
    if (n % PEER_FRONTIER_ENTRY != 0 || memcmp(hash, k->c.frontier, 32) != 0)
        return err_set(why, ERR_FORMAT, "%s is damaged: remove it, and run the peer to fetch it again", path);
    k->frontier.frontier = k->bytes;
    k->frontier.n_frontier = n / PEER_FRONTIER_ENTRY;
    return ERR_OK;
}

static bool named_segment(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n, int64_t unix_ms)
{
    const struct named *k = ctx;
    struct net_frontier_entry e;
    if (!peer_snapshot_entry(&k->frontier, machine, &e) || bytes_get_le(wire + 4, 8) >= e.count)
        return true;
    return load_segment(ctx, machine, wire, n, unix_ms);
}

/* Cuts that came after the checkpoint are lower than those it names. */
static bool named_control(void *ctx, const uint8_t *frame, size_t n)
{
    const struct named *k = ctx;
    struct net_frontier_entry e;
    struct net_control c;
    if (net_control_parse(&c, frame, n) != ERR_OK)
        return true;
    if (c.kind == NET_ADMIT || ((c.kind == NET_RETRACT || c.kind == NET_FORK) &&
                                peer_snapshot_entry(&k->frontier, c.machine, &e) && c.seq >= e.cut))
        return load_control(ctx, frame, n);
    return true;
}

static enum err load_named(struct named *k, struct net_ledger *ledger, struct err_why *why)
{
    uint8_t hash[32];
    enum err e = net_ledger_each_control(ledger, named_control, k);
    if (e == ERR_OK && k->l.failed == ERR_OK)
        e = net_ledger_each(ledger, named_segment, k);
    if (e == ERR_OK && k->l.failed == ERR_OK)
        e = net_ledger_each_branch(ledger, named_segment, k);
    if (e == ERR_OK && k->l.failed == ERR_OK)
        e = net_ledger_each_control(ledger, named_control, k);
    if (e != ERR_OK || k->l.failed != ERR_OK)
        return e;
    net_gossip_frontier_digest(k->l.gossip, NET_ALL, hash);
    if (memcmp(hash, k->c.frontier, 32) != 0)
        return err_set(why, ERR_NOTFOUND, "the ledger does not hold every segment that checkpoint %" PRIu64 " names", k->c.number);
    return ERR_OK;
}

enum err peer_load_checkpoint(struct net_gossip *g, struct net_ledger *ledger, const struct peer_home *home,
                              const char *which, const struct peer_manifest *m, struct peer_engine *engine,
                              struct peer_loaded *out, struct err_why *why)
{
    struct named k = {.last = strcmp(which, "last") == 0};
    uint8_t hash[32];
    char *end = NULL;
    k.number = k.last ? 0 : strtoull(which, &end, 10);
    if (!k.last && (which[0] < '0' || which[0] > '9' || *end))
        return err_set(why, ERR_RANGE, "--checkpoint takes a number or 'last'");
    TRY(loading_init(&k.l, g, m, engine, out));
    enum err e = net_ledger_each_control(ledger, find_named, &k);
    if (e == ERR_OK && !k.found)
        e = err_set(why, ERR_NOTFOUND, "the ledger has no checkpoint %s (the owner makes them with run --checkpoint-every)",
                    k.last ? "yet" : which);
    if (e == ERR_OK)
        e = read_frontier(&k, home, why);
    if (e == ERR_OK)
        e = load_named(&k, ledger, why);
    e = loading_end(&k.l, e, why);
    free(k.bytes);
    if (e != ERR_OK || !engine)
        return e;
    e = peer_engine_pull(engine);
    if (e != ERR_OK)
        return err_set(why, e, "reading the state: %s", peer_engine_error(engine, e));
    peer_snapshot_hash(engine->state, hash);
    if (memcmp(hash, k.c.state, 32) != 0)
        return err_set(why, ERR_FORMAT, "checkpoint %" PRIu64 " names another state than its records make", k.c.number);
    return ERR_OK;
}

enum err peer_load_portable(struct net_gossip *g, const char *path, const struct peer_manifest *m,
                            struct peer_engine *engine,
                            bool (*go_on)(void *ctx, uint64_t done, uint64_t total), void *ctx,
                            struct peer_loaded *out, struct err_why *why)
{
    struct loading l;
    TRY(peer_check_regular(path, why)); /* it is read three times */
    TRY(loading_init(&l, g, m, engine, out));
    l.go_on = go_on;
    l.ctx = ctx;
    enum err e = net_ledger_import(path, m->run_id, NULL, NULL, load_control, &l, why);
    if (e == ERR_OK && l.failed == ERR_OK)
        e = net_ledger_import(path, m->run_id, NULL, load_segment, load_control, &l, why);
    if (e == ERR_OK && l.failed == ERR_OK)
        e = net_ledger_import(path, m->run_id, NULL, NULL, load_control, &l, why);
    return loading_end(&l, e, why);
}

static enum err state_open(struct peer_home_state *s, const struct peer_home *h,
                           struct peer_engine *e, const struct peer_engine_options *o,
                           struct err_why *why)
{
    char path[PEER_PATH_BYTES];
    struct net_identity self = {0};
    bool fresh = false;
    TRY(peer_home_manifest(h, &s->manifest, why));
    if (e) {
        struct peer_engine_options with = *o;
        if (with.model_dir)
            (void)snprintf(s->model_dir, sizeof s->model_dir, "%s", with.model_dir);
        else
            peer_home_get(h, "model", s->model_dir);
        with.model_dir = s->model_dir;
        if (s->model_dir[0] == '\0')
            return err_set(why, ERR_NOTFOUND,
                           "the home %s does not say where its base model is: give --model DIR",
                           h->dir);
        TRY(peer_engine_open(e, &s->manifest, &with, why));
    }
    TRY(peer_home_identity(h, &self, false, NULL, why));
    enum err code = net_gossip_new(&s->gossip, &s->manifest.net, self.id, 0);
    if (code != ERR_OK)
        code = err_set(why, code, "cannot load the run: %s", err_str(code));
    else
        code = net_ledger_open(&s->ledger, peer_home_path(h, "ledger.db", path), s->manifest.run_id,
                               self.id, true, &fresh, why);
    net_identity_release(&self);
    TRY(code);
    if (o && o->checkpoint)
        return peer_load_checkpoint(s->gossip, s->ledger, h, o->checkpoint, &s->manifest, e, &s->loaded, why);
    return peer_load_ledger(s->gossip, s->ledger, &s->manifest, e, e ? peer_progress : NULL,
                            "segments", &s->loaded, why);
}

enum err peer_home_state_open(struct peer_home_state *s, const struct peer_home *h,
                              struct peer_engine *e, const struct peer_engine_options *o,
                              struct err_why *why)
{
    if (e)
        memset(e, 0, sizeof *e);
    memset(s, 0, sizeof *s); /* filled in place: the engine points at its manifest */
    const enum err code = state_open(s, h, e, o, why);
    if (code == ERR_OK)
        return ERR_OK;
    if (e)
        peer_engine_close(e);
    peer_home_state_close(s);
    return code;
}

void peer_home_state_close(struct peer_home_state *s)
{
    net_ledger_close(s->ledger);
    net_gossip_free(s->gossip);
    peer_manifest_free(&s->manifest);
    memset(s, 0, sizeof *s);
}
