/* What a machine holds and why it changes: DESIGN 4's merge, one segment or one control event at a time. */
#include "core.h"
#include "scores.h"
#include "wire.h"

/* tests/net/test_canary.c builds this file with 1: a cut inside a segment then takes out the records before it too, and the
 * simulator must find it. */
#ifndef PLANTED_BUG
#define PLANTED_BUG 0
#endif

static int by_id(const void *a, const void *b)
{
    return memcmp(a, b, 32);
}

/* Position in admitted[] of the first id >= machine. */
static uint32_t admitted_lower(const struct net_gossip *g, const uint8_t machine[32])
{
    uint32_t lo = 0, hi = g->n_admitted;
    while (lo < hi) {
        const uint32_t mid = lo + (hi - lo) / 2;
        if (by_id(g->admitted[mid], machine) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool signed_in(const struct net_gossip *g, const uint8_t machine[32])
{
    const uint32_t i = admitted_lower(g, machine);
    return i < g->n_admitted && by_id(g->admitted[i], machine) == 0;
}

bool net_gossip_admitted(const struct net_gossip *g, const uint8_t machine[32])
{
    if (g->rules.admission == NET_OPEN || memcmp(machine, g->rules.owner, 32) == 0)
        return true;
    for (uint32_t i = 0; g->rules.admission == NET_ALLOW && i < g->rules.n_allow; i++)
        if (memcmp(g->rules.allow[i], machine, 32) == 0)
            return true;
    return signed_in(g, machine);
}

static void queue_segment(struct net_gossip *g, enum net_action_kind kind,
                          const uint8_t machine[32], uint64_t seq, size_t at, size_t bytes,
                          const uint8_t *counts, size_t count)
{
    struct net_queued a = {.kind = kind, .seq = seq, .at = at, .bytes = bytes};
    memcpy(a.machine, machine, 32);
    if (counts) {
        a.has_counts = true;
        a.counts_at = net_queue_bytes(&g->queue, counts, count);
    }
    net_queue_push(&g->queue, &a);
}

static void own_forked(struct net_gossip *g, const struct net_feed *f)
{
    struct net_queued a = {.kind = NET_OWN_BEHIND, .seq = net_feed_end(f), .blame = true};
    if (memcmp(f->machine, g->self, 32) != 0)
        return;
    memcpy(a.machine, f->machine, 32);
    net_queue_push(&g->queue, &a);
}

/* Appends a checked segment: count, store, fold. */
static bool append(struct net_gossip *g, struct net_feed *f, const struct net_segment *s,
                   const uint8_t *bytes, bool store)
{
    uint8_t counts[LIMIT_SEGMENT_COUNT];
    const size_t wire_bytes = NET_SEGMENT_HEAD + (size_t)s->count + NET_SIG_BYTES;
    if (net_feed_reserve(f) != ERR_OK)
        return false;
    f->segments[f->n++] = (struct net_feed_segment){.bytes = bytes, .before = f->weight};
    const uint32_t counted = net_count_segment(counts, s, &g->rules, f->weight, f->cut);
    const uint64_t weight = counted * net_weight(g->rules.n0, s->lag);
    f->weight += weight;
    g->clock += weight;
    g->bytes_held += wire_bytes + 48;
    net_table_touch(g, f);
    const size_t at = net_queue_bytes(&g->queue, bytes + 32, wire_bytes);
    if (store)
        queue_segment(g, NET_STORE, f->machine, s->first_seq, at, wire_bytes, NULL, 0);
    if (counted > 0)
        queue_segment(g, NET_FOLD, f->machine, s->first_seq, at, wire_bytes, counts, s->count);
    return true;
}

/* Drops what a lower cut removes, newest first, and takes exactly that out of the state. */
static void lower_cut(struct net_gossip *g, struct net_feed *f, uint64_t cut)
{
    const uint64_t before = f->cut;
    bool dropped = false;
    ENSURE(cut < before);
    while (f->n > 0 && net_feed_end(f) > cut) {
        struct net_segment s;
        uint8_t was[LIMIT_SEGMENT_COUNT], now[LIMIT_SEGMENT_COUNT];
        const uint32_t i = f->n - 1;
        const uint32_t n_was = net_feed_get(f, i, &g->rules, before, &s, was);
        const uint32_t n_now = net_feed_get(f, i, &g->rules, cut, &s, now);
        const uint64_t gone = (n_was - n_now) * net_weight(g->rules.n0, s.lag);
        for (uint32_t k = 0; k < s.count; k++)
            was[k] = was[k] && (!now[k] || PLANTED_BUG);
        if (n_was > n_now) {
            const size_t bytes = net_feed_wire_bytes(f, i);
            const size_t at = net_queue_bytes(&g->queue, net_feed_wire(f, i), bytes);
            queue_segment(g, NET_UNFOLD, f->machine, s.first_seq, at, bytes, was, s.count);
        }
        f->weight -= gone;
        g->clock -= gone;
        if (s.first_seq < cut)
            break; /* straddles the cut: stays, its head counts */
        g->bytes_held -= net_feed_wire_bytes(f, i) + 48;
        g->intern.drop(g->intern.ctx, f->segments[i].bytes);
        f->n--;
        dropped = true;
    }
    if (before == NET_NO_CUT)
        net_scores_forget(g->scores, f->machine);
    f->cut = cut;
    f->epoch++;
    net_table_touch(g, f);
    if (dropped) {
        struct net_queued a = {.kind = NET_TRUNCATE, .seq = cut};
        memcpy(a.machine, f->machine, 32);
        net_queue_push(&g->queue, &a);
    }
}

/* Stores and tells: the event is durable before what it removes is gone, so that a crash between them is repaired at start. */
static void keep_control(struct net_gossip *g, const uint8_t *frame, size_t n, bool store,
                         const struct net_link *from)
{
    uint8_t wire[1 + NET_CONTROL_BYTES_MAX];
    ENSURE(n <= NET_CONTROL_BYTES_MAX);
    if (store) {
        const size_t at = net_queue_bytes(&g->queue, frame, n);
        net_queue_push(&g->queue, &(struct net_queued){.kind = NET_CONTROL, .at = at, .bytes = n});
    }
    wire[0] = WIRE_CONTROL;
    memcpy(wire + 1, frame, n);
    for (uint32_t i = 0; i < g->n_links; i++) {
        if (g->links[i] == from)
            continue;
        if (frame[0] == NET_FORK)
            net_send_admission(g, g->links[i], frame + 1);
        net_send(g, g->links[i], wire, 1 + n);
    }
}

static enum err cut_by(struct net_gossip *g, const uint8_t machine[32], uint64_t cut, bool fork,
                       const uint8_t *frame, size_t n, bool store, const struct net_link *from)
{
    uint32_t name;
    struct net_feed *f = net_table_find(g, machine, &name);
    if (!f)
        f = net_table_add(g, machine, &name);
    if (!f) {
        g->count.table_full++;
        return ERR_AGAIN;
    }
    uint8_t *evidence = malloc(n);
    if (!evidence)
        return ERR_NOMEM;
    memcpy(evidence, frame, n);
    free(f->evidence);
    f->evidence = evidence;
    f->evidence_bytes = (uint32_t)n;
    *(fork ? &g->count.forks : &g->count.retractions) += 1;
    keep_control(g, frame, n, store, from);
    lower_cut(g, f, cut);
    if (fork)
        own_forked(g, f);
    return ERR_OK;
}

/* c's two segments are valid, different successors of the first n segments of f (NULL: of nothing). */
static enum err check_fork(struct net_gossip *g, struct net_control *c, const struct net_feed *f,
                           uint32_t n)
{
    uint8_t id_a[32], id_b[32];
    const uint64_t end = f ? net_feed_end_at(f, n) : 0;
    const uint32_t step = f ? net_feed_step_at(f, n) : 0;
    net_segment_id(id_a, &c->a, g->rules.run_id, c->machine, c->pred);
    net_segment_id(id_b, &c->b, g->rules.run_id, c->machine, c->pred);
    const int order = memcmp(id_a, id_b, 32);
    if (order == 0)
        return ERR_PROTO;
    TRY(net_segment_check(&c->a, &g->rules, c->machine, c->pred, end, step));
    TRY(net_segment_check(&c->b, &g->rules, c->machine, c->pred, end, step));
    if (order > 0) { /* the one form: both finders make the same bytes */
        const struct net_segment t = c->a;
        c->a = c->b;
        c->b = t;
    }
    return ERR_OK;
}

static enum err hold_fork(struct net_gossip *g, struct net_control *c, bool store,
                          const struct net_link *from)
{
    uint8_t frame[NET_CONTROL_BYTES_MAX];
    static const uint8_t zeros[32];
    const struct net_feed *f = net_table_find(g, c->machine, NULL);
    if ((f && c->seq >= f->cut) || !net_gossip_admitted(g, c->machine))
        return ERR_RANGE;
    if ((c->seq == 0) != (memcmp(c->pred, zeros, 32) == 0))
        return ERR_PROTO;
    uint32_t n = 0;
    if (c->seq > 0) {
        n = f ? net_feed_prefix_with(f, c->seq, c->pred) : NET_NOWHERE;
        if (n == NET_NOWHERE)
            return ERR_AGAIN;
    }
    TRY(check_fork(g, c, f, n));
    return cut_by(g, c->machine, c->seq, true, frame, net_control_write(frame, c), store, from);
}

static enum err hold_admission(struct net_gossip *g, const struct net_control *c)
{
    if (g->rules.admission == NET_OPEN || net_gossip_admitted(g, c->machine))
        return ERR_RANGE;
    TRY(net_control_check(c, &g->rules));
    if (g->n_admitted == g->admitted_capacity) {
        const uint32_t capacity = g->admitted_capacity ? 2 * g->admitted_capacity : 16;
        if (capacity > LIMIT_ADMITTED)
            return ERR_AGAIN;
        void *ids = realloc(g->admitted, capacity * sizeof *g->admitted);
        if (!ids)
            return ERR_NOMEM;
        g->admitted = ids;
        void *signatures = realloc(g->admissions, capacity * sizeof *g->admissions);
        if (!signatures)
            return ERR_NOMEM;
        g->admissions = signatures;
        g->admitted_capacity = capacity;
    }
    const uint32_t i = admitted_lower(g, c->machine), after = g->n_admitted - i;
    memmove(g->admitted + i + 1, g->admitted + i, after * sizeof *g->admitted);
    memmove(g->admissions + i + 1, g->admissions + i, after * sizeof *g->admissions);
    memcpy(g->admitted[i], c->machine, 32);
    memcpy(g->admissions[i], c->sig, 64);
    g->n_admitted++;
    return ERR_OK;
}

size_t net_hold_admission_of(const struct net_gossip *g, const uint8_t machine[32], uint8_t *frame)
{
    if (g->rules.admission == NET_OPEN || !signed_in(g, machine))
        return 0;
    struct net_control c = {.kind = NET_ADMIT};
    memcpy(c.machine, machine, 32);
    memcpy(c.sig, g->admissions[admitted_lower(g, machine)], 64);
    return net_control_write(frame, &c);
}

static enum err hold_checkpoint(struct net_gossip *g, const struct net_control *c,
                                const uint8_t *frame, size_t n)
{
    uint8_t id[32];
    net_control_id(id, c, &g->rules);
    if (g->has_checkpoint) {
        if (c->number < g->checkpoint.number)
            return ERR_RANGE;
        if (c->number == g->checkpoint.number && memcmp(id, g->checkpoint_id, 32) <= 0)
            return ERR_RANGE;
    }
    TRY(net_control_check(c, &g->rules));
    g->has_checkpoint = true;
    g->checkpoint = *c;
    memcpy(g->checkpoint_id, id, 32);
    memcpy(g->checkpoint_frame, frame, n);
    g->checkpoint_bytes = n;
    net_scores_checkpoint(g->scores, c->number, id);
    return ERR_OK;
}

enum err net_hold_control(struct net_gossip *g, const uint8_t *frame, size_t n, bool store,
                          const struct net_link *from)
{
    struct net_control c;
    if (n == 0)
        return ERR_PROTO;
    if (frame[0] == NET_SCORE)
        return net_hold_score(g, frame, n, store, from);
    TRY(net_control_parse(&c, frame, n));
    if (c.kind == NET_FORK)
        return hold_fork(g, &c, store, from);
    if (c.kind == NET_RETRACT) {
        const struct net_feed *f = net_table_find(g, c.machine, NULL);
        if (f && c.seq >= f->cut)
            return ERR_RANGE;
        TRY(net_control_check(&c, &g->rules));
        return cut_by(g, c.machine, c.seq, false, frame, n, store, from);
    }
    TRY(c.kind == NET_ADMIT ? hold_admission(g, &c) : hold_checkpoint(g, &c, frame, n));
    keep_control(g, frame, n, store, from);
    return ERR_OK;
}

/* s claims the place of our segment n with the same predecessor, and differs: if it is valid, the two are the proof. */
static enum net_verdict forked(struct net_gossip *g, const struct net_feed *f, uint32_t n,
                               const struct net_segment *s, bool store)
{
    uint8_t frame[NET_CONTROL_BYTES_MAX];
    struct net_control c = {.kind = NET_FORK, .seq = s->first_seq, .b = *s};
    memcpy(c.machine, f->machine, 32);
    memcpy(c.pred, net_feed_head_at(f, n), 32);
    (void)net_feed_get(f, n, &g->rules, f->cut, &c.a, NULL);
    if (check_fork(g, &c, f, n) != ERR_OK)
        return NET_INVALID;
    const enum err e =
        cut_by(g, f->machine, s->first_seq, true, frame, net_control_write(frame, &c), store, NULL);
    return e == ERR_OK ? NET_FORKED : NET_NO_ROOM;
}

/* s follows what we hold: verify, then keep. */
static enum net_verdict successor(struct net_gossip *g, struct net_feed *f,
                                  const uint8_t machine[32], const struct net_segment *s,
                                  const uint8_t *wire, size_t n, bool store)
{
    static const uint8_t zeros[32];
    uint8_t id[32];
    uint32_t name;
    const uint8_t *head = f ? net_feed_head_at(f, f->n) : zeros;
    const uint64_t end = f ? net_feed_end(f) : 0;
    const uint32_t step = f ? net_feed_step_at(f, f->n) : 0;
    if (!net_segment_fits(s, &g->rules, head, end, step))
        return NET_INVALID;
    if (g->bytes_held + n > LIMIT_GOSSIP_BYTES)
        return NET_NO_ROOM;
    net_segment_id(id, s, g->rules.run_id, machine, head);
    const uint8_t *bytes = g->intern.find(g->intern.ctx, id, wire, n);
    if (!bytes) {
        if (net_segment_check(s, &g->rules, machine, head, end, step) != ERR_OK)
            return NET_INVALID;
        bytes = g->intern.add(g->intern.ctx, id, wire, n);
    }
    if (!f && bytes)
        f = net_table_add(g, machine, &name);
    if (bytes && f && append(g, f, s, bytes, store))
        return NET_TAKEN;
    if (bytes)
        g->intern.drop(g->intern.ctx, bytes);
    return NET_NO_ROOM;
}

enum net_verdict net_hold_segment(struct net_gossip *g, const uint8_t machine[32],
                                  const struct net_segment *s, const uint8_t *wire, size_t n,
                                  bool store)
{
    struct net_feed *f = net_table_find(g, machine, NULL);
    const uint64_t end = f ? net_feed_end(f) : 0;
    if (!f && !net_gossip_admitted(g, machine))
        return NET_UNADMITTED; /* whatever it is, and without a question: nobody's relayed segment makes us pull */
    if (f && s->first_seq >= f->cut)
        return NET_LATE;
    if (s->first_seq > end)
        return NET_GAP;
    if (s->first_seq == end) {
        static const uint8_t zeros[32];
        if (!net_gossip_admitted(g, machine))
            return NET_UNADMITTED;
        if (memcmp(s->prev, f ? net_feed_head_at(f, f->n) : zeros, 8) != 0)
            return NET_CONFLICT;
        return successor(g, f, machine, s, wire, n, store);
    }
    const uint32_t i = net_feed_prefix(f, s->first_seq);
    if (i == NET_NOWHERE)
        return NET_CONFLICT;
    /* All but the signature: the key's owner can make several valid ones for the same content. */
    if (n == net_feed_wire_bytes(f, i) && memcmp(wire, net_feed_wire(f, i), n - NET_SIG_BYTES) == 0)
        return NET_DUPLICATE;
    if (memcmp(s->prev, net_feed_head_at(f, i), 8) != 0)
        return NET_CONFLICT;
    return forked(g, f, i, s, store);
}
