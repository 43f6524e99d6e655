/* Repair: PULL of what follows a head, the search for the place where two chains part, and blame.
 *
 * One pull per feed, LIMIT_LINK_PULLS per link, one search per link.  A repair that ends without anything verified blames the
 * neighbour: its link waits, twice as long each time; another link's next comparison takes over. */
#include "core.h"
#include "wire.h"

enum { PULL_S = 5, ASK_S = 3, WAIT_S_MAX = 32, LATER_MS_MIN = 20, LATER_MS_MAX = 2000 };

struct net_link *net_link_by_id(const struct net_gossip *g, uint32_t id)
{
    for (uint32_t i = 0; i < g->n_links; i++)
        if (g->links[i]->id == id)
            return g->links[i];
    return NULL;
}

void net_blame(struct net_gossip *g, struct net_link *l)
{
    const uint64_t most = WAIT_S_MAX * NET_S;
    l->wait_ns = l->wait_ns == 0 ? NET_S : 2 * l->wait_ns > most ? most : 2 * l->wait_ns;
    l->wait_until_ns = g->now_ns + l->wait_ns;
    l->more = true; /* compare again when the wait is over */
}

void net_praise(struct net_link *l)
{
    l->wait_ns = l->wait_until_ns = 0;
}

struct net_pull *net_pull_of(struct net_gossip *g, const uint8_t machine[32])
{
    for (uint32_t i = 0; i < g->n_pulls; i++)
        if (memcmp(g->pulls[i].machine, machine, 32) == 0)
            return &g->pulls[i];
    return NULL;
}

void net_pull_end(struct net_gossip *g, struct net_pull *p)
{
    struct net_link *l = net_link_by_id(g, p->link);
    if (l)
        l->n_pulls--;
    *p = g->pulls[--g->n_pulls];
}

/* Asks l for what follows the first n segments of machine's chain. */
static void send_pull(struct net_gossip *g, const struct net_link *l, const uint8_t machine[32], const struct net_feed *f, uint32_t n,
                      bool probe)
{
    struct net_frontier_entry e = {.cut = f ? f->cut : NET_NO_CUT,
                                   .count = f ? net_feed_end_at(f, n) : 0};
    uint8_t frame[1 + WIRE_ENTRY + 4] = {WIRE_PULL};
    memcpy(e.machine, machine, 32);
    if (f)
        memcpy(e.head, net_feed_head_at(f, n), 32);
    net_entry_write(frame + 1, &e);
    bytes_put_le(frame + 1 + WIRE_ENTRY, probe ? 1 : LIMIT_PULL_BYTES, 4);
    net_send(g, l, frame, sizeof frame);
}

static void pull(struct net_gossip *g, struct net_link *l, const uint8_t machine[32], const struct net_feed *f, uint32_t n, bool probe)
{
    ENSURE(g->n_pulls < LIMIT_PULLS);
    send_pull(g, l, machine, f, n, probe);
    struct net_pull *p = &g->pulls[g->n_pulls++];
    *p =
        (struct net_pull){.link = l->id, .probe = probe, .deadline_ns = g->now_ns + PULL_S * NET_S};
    memcpy(p->machine, machine, 32);
    l->n_pulls++;
    g->count.pulls++;
}

static bool may_pull(struct net_gossip *g, struct net_link *l, const uint8_t machine[32])
{
    if (net_pull_of(g, machine) == NULL && g->now_ns >= l->wait_until_ns &&
        l->n_pulls < LIMIT_LINK_PULLS && g->n_pulls < LIMIT_PULLS)
        return true;
    l->more = true;
    return false;
}

void net_pull_start(struct net_gossip *g, struct net_link *l, const uint8_t machine[32])
{
    struct net_feed *f = net_table_find(g, machine, NULL);
    if (net_author_waits(g, f, LIMIT_SEGMENT_COUNT)) {
        l->more = true; /* its author was too fast: later */
        return;
    }
    if (may_pull(g, l, machine))
        pull(g, l, machine, f, f ? f->n : 0, false);
}

/* ---- the search: 17-ary over our own chain, asking for the neighbour's segments at the same seqs ---- */

static void search_fail(struct net_gossip *g, struct net_link *l)
{
    l->search.active = false;
    g->count.searches_failed++;
    net_blame(g, l);
}

static void search_ask(struct net_gossip *g, struct net_link *l, const struct net_feed *f)
{
    struct net_search *s = &l->search;
    uint8_t frame[1 + 32 + 8 * LIMIT_ASK_SEQS] = {WIRE_ASK};
    const uint32_t width = s->hi - s->lo;
    ENSURE(width > 0);
    s->n_asked = width < LIMIT_ASK_SEQS ? width : LIMIT_ASK_SEQS;
    memcpy(frame + 1, f->machine, 32);
    for (uint32_t k = 0; k < s->n_asked; k++) {
        s->asked[k] = width <= LIMIT_ASK_SEQS
                          ? s->lo + k
                          : s->lo + (uint32_t)((uint64_t)width * (k + 1) / (LIMIT_ASK_SEQS + 1));
        bytes_put_le(frame + 33 + 8 * k, net_feed_first(f, s->asked[k]), 8);
    }
    net_send(g, l, frame, 33 + 8 * s->n_asked);
    s->questions++;
    s->deadline_ns = g->now_ns + ASK_S * NET_S;
}

void net_search_start(struct net_gossip *g, struct net_link *l, const struct net_feed *f)
{
    struct net_search *s = &l->search;
    if (f->n == 0)
        return;
    if (s->active || g->now_ns < l->wait_until_ns) {
        l->more = true;
        return;
    }
    *s = (struct net_search){.active = true, .epoch = f->epoch, .lo = 0, .hi = f->n};
    memcpy(s->machine, f->machine, 32);
    g->count.searches++;
    search_ask(g, l, f);
}

bool net_on_ask(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n < 40 || (n - 32) % 8 != 0 || (n - 32) / 8 > LIMIT_ASK_SEQS)
        return false;
    const size_t k = (n - 32) / 8;
    uint8_t frame[1 + 32 + 40 * LIMIT_ASK_SEQS] = {WIRE_TELL};
    const struct net_feed *f = net_table_find(g, p, NULL);
    memcpy(frame + 1, p, 32);
    for (size_t i = 0; i < k; i++) {
        uint8_t *out = frame + 33 + 40 * i;
        const uint32_t c = f ? net_feed_covering(f, bytes_get_le(p + 32 + 8 * i, 8)) : NET_NOWHERE;
        bytes_put_le(out, c == NET_NOWHERE ? UINT64_MAX : net_feed_first(f, c), 8);
        if (c != NET_NOWHERE)
            memcpy(out + 8, net_feed_id(f, c), 32);
    }
    if (net_spend(g, l, 33 + 40 * k))
        net_send(g, l, frame, 33 + 40 * k);
    return true;
}

bool net_on_tell(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    struct net_search *s = &l->search;
    if (n < 72 || (n - 32) % 40 != 0 || (n - 32) / 40 > LIMIT_ASK_SEQS)
        return false;
    if (!s->active || s->n_asked == 0 || memcmp(s->machine, p, 32) != 0 ||
        (n - 32) / 40 != s->n_asked)
        return true; /* late or twice */
    const struct net_feed *f = net_table_find(g, p, NULL);
    if (!f ||
        f->epoch != s->epoch) { /* our chain was cut meanwhile: begin again if it is still needed */
        s->active = false;
        l->more = true;
        return true;
    }
    for (uint32_t k = 0; k < s->n_asked; k++) {
        const uint8_t *told = p + 32 + 40 * k;
        const uint32_t i = s->asked[k];
        if (bytes_get_le(told, 8) == net_feed_first(f, i) &&
            memcmp(told + 8, net_feed_id(f, i), 32) == 0)
            s->lo = i + 1 > s->lo ? i + 1 : s->lo; /* one shared id: all before it are shared */
    }
    for (uint32_t k = 0; k < s->n_asked; k++)
        if (s->asked[k] >= s->lo && s->asked[k] < s->hi)
            s->hi = s->asked[k];
    s->n_asked = 0;
    if (s->lo >= f->n || s->questions >= LIMIT_SEARCH_QUESTIONS) {
        search_fail(g, l);
        return true;
    }
    if (s->lo < s->hi) {
        search_ask(g, l, f);
        return true;
    }
    /* The chains part after lo segments: its next one beside ours is the proof. */
    s->deadline_ns = g->now_ns + (PULL_S + 1) * NET_S;
    if (may_pull(g, l, p))
        pull(g, l, p, f, s->lo, true);
    else
        s->active = false;
    return true;
}

/* ---- segments and pulls ---- */

static struct net_queued own_behind(const struct net_gossip *g, const struct net_feed *f)
{
    struct net_queued a = {.kind = NET_OWN_BEHIND, .seq = net_feed_end(f)};
    memcpy(a.machine, g->self, 32);
    return a;
}

static void took_segment(struct net_gossip *g, struct net_link *l, const uint8_t machine[32],
                         uint32_t name)
{
    struct net_feed *f = g->feeds[name];
    struct net_pull *p = net_pull_of(g, machine);
    g->count.segments_new++;
    net_author_sent(g, f, (uint32_t)(net_feed_end(f) - net_feed_first(f, f->n - 1)));
    f->source = l->id;
    net_link_cursor(g, l, name, f->n, false);
    net_praise(l);
    if (p && p->link == l->id && !p->probe) {
        p->progress = true; /* told to the others in one line at its end: they may have it all */
        p->laters = 0;
        p->deadline_ns = g->now_ns + PULL_S * NET_S;
    } else {
        net_push_new(g, name, l);
    }
    if (memcmp(machine, g->self, 32) == 0) {
        const struct net_queued a = own_behind(g, f);
        net_queue_push(&g->queue, &a);
    }
}

static void forked_segment(struct net_gossip *g, struct net_link *l, const uint8_t machine[32])
{
    struct net_pull *p = net_pull_of(g, machine);
    if (p && p->link == l->id)
        p->progress = true;
    if (l->search.active && memcmp(l->search.machine, machine, 32) == 0)
        l->search.active = false;
    net_praise(l);
}

/* Pushed, and we had it from elsewhere.  Twice from the same neighbour is the network's doing. */
static void duplicate(struct net_gossip *g, struct net_link *l, const struct net_feed *f,
                      uint32_t name, uint64_t end, uint32_t their_name)
{
    const uint32_t n = net_feed_prefix(f, end);
    const struct net_pull *p = net_pull_of(g, f->machine);
    g->count.segments_duplicate++;
    if (n == NET_NOWHERE)
        return;
    net_link_cursor(g, l, name, n, false);
    if (n == f->n && f->source != l->id && !(p && p->link == l->id)) {
        uint8_t frame[5] = {WIRE_PRUNE};
        bytes_put_le(frame + 1, their_name, 4);
        if (net_spend(g, l, sizeof frame))
            net_send(g, l, frame, sizeof frame);
    }
}

bool net_on_prune(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n != 4)
        return false;
    const uint32_t name = (uint32_t)bytes_get_le(p, 4);
    if (name < l->n_cursor && name < g->n_feeds)
        l->cursor[name] |= NET_LAZY;
    return true;
}

static void verdict_on(struct net_gossip *g, struct net_link *l, const uint8_t machine[32],
                       enum net_verdict v, uint64_t end, uint32_t their_name)
{
    uint32_t name = 0;
    const struct net_feed *f = net_table_find(g, machine, &name);
    const struct net_pull *p;
    switch (v) {
    case NET_TAKEN:
        took_segment(g, l, machine, name);
        break;
    case NET_DUPLICATE:
        duplicate(g, l, f, name, end, their_name);
        break;
    case NET_GAP:
    case NET_CONFLICT:
        g->count.segments_unfit++;
        p = net_pull_of(g, machine);
        if (!p || p->link != l->id)
            net_pull_start(g, l, machine);
        break;
    case NET_FORKED:
        forked_segment(g, l, machine);
        break;
    case NET_LATE:
        g->count.segments_late++;
        break;
    case NET_INVALID: /* an honest neighbour only passes on what it has verified */
        g->count.segments_invalid++;
        net_drop(g, l, "invalid segment", true);
        break;
    case NET_UNADMITTED:
        g->count.segments_unadmitted++;
        break;
    case NET_NO_ROOM:
        g->count.table_full++;
        break;
    }
}

static bool cover_names(struct net_link *l, uint32_t name)
{
    uint32_t n = l->n_names ? l->n_names : 16;
    if (name < l->n_names)
        return true;
    while (n <= name)
        n *= 2;
    uint32_t *names = realloc(l->names, n * sizeof *names);
    if (!names)
        return false;
    memset(names + l->n_names, 0, (n - l->n_names) * sizeof *names);
    l->names = names;
    l->n_names = n;
    return true;
}

bool net_on_segment(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n,
                    bool named)
{
    const size_t head = named ? 4 : 36;
    uint8_t machine[32];
    if (n < head)
        return false;
    const uint32_t name = (uint32_t)bytes_get_le(p + head - 4, 4);
    struct net_segment s;
    if (name >= LIMIT_FEEDS || net_segment_parse(&s, p + head, n - head) != ERR_OK)
        return false;
    if (!named) {
        memcpy(machine, p, 32);
    } else if (name < l->n_names && l->names[name]) {
        memcpy(machine, g->feeds[l->names[name] - 1]->machine, 32);
    } else {
        uint8_t frame[5] = {WIRE_UNNAMED};
        bytes_put_le(frame + 1, name, 4);
        if (net_spend(g, l, sizeof frame))
            net_send(g, l, frame, sizeof frame);
        return true;
    }
    const struct net_pull *pulling = net_pull_of(g, machine);
    if (!(pulling && pulling->link == l->id) && !net_spend(g, l, LIMIT_PUSH_COST)) {
        l->more = true; /* too much at once: pulled later, at our own pace */
        return true;
    }
    struct net_feed *author = net_table_find(g, machine, NULL);
    const bool next = s.first_seq == (author ? net_feed_end(author) : 0) && memcmp(machine, g->self, 32) != 0;
    if ((author && s.first_seq >= net_feed_end(author) && net_author_waits(g, author, s.count)) ||
        (next && net_gossip_admitted(g, machine) && net_idle_waits(g, author, &s))) {
        g->count.segments_delayed++;
        l->more = true;
        return true;
    }
    const enum net_verdict v = net_hold_segment(g, machine, &s, p + head, n - head, true);
    uint32_t ours;
    if (!named && net_table_find(g, machine, &ours) && cover_names(l, name))
        l->names[name] = ours + 1;
    verdict_on(g, l, machine, v, s.first_seq + s.count, name);
    return true;
}

bool net_on_unnamed(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n != 4)
        return false;
    const uint32_t name = (uint32_t)bytes_get_le(p, 4);
    if (name < l->n_cursor && name < g->n_feeds) {
        l->cursor[name] &= ~(uint32_t)NET_NAMED;
        /* It may lack what was sent under the name: offer, so that it pulls. */
        if (net_spend(g, l, 1 + WIRE_ENTRY))
            net_send_entry(g, l, WIRE_HAVE, g->feeds[name]->machine);
    }
    return true;
}

/* About as long as it takes to earn one answer. */
static void send_later(struct net_gossip *g, const struct net_link *l, const uint8_t machine[32])
{
    uint8_t frame[1 + 32 + 4] = {WIRE_LATER};
    memcpy(frame + 1, machine, 32);
    bytes_put_le(frame + 33, (uint64_t)LIMIT_PULL_BYTES * 1000 / LIMIT_ANSWER_RATE, 4);
    net_send(g, l, frame, sizeof frame);
}

/* The neighbour is busy, which is nobody's fault.  All questions to it wait, the longer the more there are, so that it is not asked
 * faster than it answers. */
bool net_on_later(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n != 32 + 4)
        return false;
    struct net_pull *pulling = net_pull_of(g, p);
    if (!pulling || pulling->link != l->id)
        return true;
    if (pulling->probe || ++pulling->laters > LIMIT_LATERS) {
        l->search.active = l->search.active && !pulling->probe;
        l->more = true; /* the search begins again with the next comparison */
        if (!pulling->probe) {
            g->count.pulls_failed++;
            net_blame(g, l);
        }
        net_pull_end(g, pulling);
        return true;
    }
    uint64_t ms = bytes_get_le(p + 32, 4);
    ms = ms < LATER_MS_MIN ? LATER_MS_MIN : ms < LATER_MS_MAX ? ms : LATER_MS_MAX;
    ms += net_random(g) % (2 * ms * l->n_pulls);
    pulling->later = true;
    pulling->deadline_ns = g->now_ns + (ms < PULL_S * 1000 ? ms : PULL_S * 1000) * (NET_S / 1000);
    return true;
}

/* Asks again; false: it is not worth it any more. */
static bool pull_again(struct net_gossip *g, struct net_pull *p)
{
    const struct net_link *l = net_link_by_id(g, p->link);
    struct net_feed *f = net_table_find(g, p->machine, NULL);
    if (!p->later || !l || net_author_waits(g, f, LIMIT_SEGMENT_COUNT))
        return false;
    p->later = false;
    p->deadline_ns = g->now_ns + PULL_S * NET_S;
    send_pull(g, l, p->machine, f, f ? f->n : 0, false);
    g->count.pulls++;
    return true;
}

bool net_on_pull(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    struct net_frontier_entry e;
    uint32_t name;
    if (n != WIRE_ENTRY + 4)
        return false;
    net_entry_read(&e, p);
    size_t limit = (size_t)bytes_get_le(p + WIRE_ENTRY, 4);
    limit = limit < LIMIT_PULL_BYTES ? limit : LIMIT_PULL_BYTES;
    if (!net_spend(g, l, 2 * WIRE_ENTRY)) {
        send_later(g, l, e.machine);
        return true;
    }
    struct net_feed *f = net_table_find(g, e.machine, &name);
    const uint32_t from = f ? net_feed_prefix_with(f, e.count, e.head) : NET_NOWHERE;
    const bool lower = f && f->cut < e.cut;
    uint32_t i = from;
    if (from != NET_NOWHERE) {
        net_link_cursor(g, l, name, from, true);
        if (name < l->n_cursor)
            l->cursor[name] &= ~(uint32_t)NET_LAZY; /* nobody else brought it */
        if (from == 0 && name < l->n_cursor)
            l->cursor[name] &=
                ~(uint32_t)
                    NET_NAMED; /* it may have refused the first: say whose it is, with its admission */
        for (size_t sent = 0; i < f->n && net_feed_first(f, i) < e.cut && (sent == 0 || sent < limit); i++) {
            const size_t bytes = 37 + net_feed_wire_bytes(f, i);
            if (!net_spend(g, l, bytes))
                break;
            net_push_segment(g, l, name, i);
            sent += bytes;
        }
        if (i == from && i < f->n && net_feed_first(f, i) < e.cut) {
            send_later(g, l, e.machine); /* DONE would claim more and show nothing */
            return true;
        }
    }
    if (lower && (from == NET_NOWHERE || i == f->n) && net_spend(g, l, 1 + f->evidence_bytes))
        net_send_evidence(g, l, f);
    net_send_entry(g, l, from == NET_NOWHERE ? WIRE_NOHEAD : WIRE_DONE, e.machine);
    if (f && e.cut < f->cut)
        net_pull_start(g, l, e.machine); /* it knows why; we do not */
    return true;
}

/* What a pull brought, to the neighbours that may lack it: an offer, since most of them will not. */
static void offer_others(struct net_gossip *g, const struct net_link *from,
                         const uint8_t machine[32])
{
    uint32_t name;
    const struct net_feed *f = net_table_find(g, machine, &name);
    for (uint32_t i = 0; f && i < g->n_links; i++)
        if (g->links[i] != from && net_link_known(g->links[i], name) < f->n)
            net_send_entry(g, g->links[i], WIRE_HAVE, machine);
}

bool net_on_done(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n, bool no_head)
{
    struct net_frontier_entry e;
    if (n != WIRE_ENTRY)
        return false;
    net_entry_read(&e, p);
    struct net_pull *pulling = net_pull_of(g, e.machine);
    if (!pulling || pulling->link != l->id)
        return true;
    const bool progress = pulling->progress, probe = pulling->probe;
    net_pull_end(g, pulling);
    struct net_feed *f = net_table_find(g, e.machine, NULL);
    if (probe) {
        if (!progress && l->search.active)
            search_fail(g, l);
        return true;
    }
    if (progress)
        offer_others(g, l, e.machine);
    const uint64_t end = f ? net_feed_end(f) : 0, cut = f ? f->cut : NET_NO_CUT;
    if (!progress && net_author_waits(g, f, LIMIT_SEGMENT_COUNT)) {
        l->more = true; /* what came was delayed: nobody is to blame */
    } else if (!progress && g->now_ns < g->idle_until_ns) {
        l->more = true;
        l->wait_until_ns = g->idle_until_ns;
    } else if (!progress && !no_head && (e.cut < cut || (e.count > end && end < cut))) {
        /* It claims more and showed nothing: without the wait, this would go round for ever. */
        g->count.pulls_failed++;
        net_blame(g, l);
    } else {
        net_compare_entry(g, l, &e, no_head);
    }
    if (l->more && l->n_pulls == 0 && g->now_ns >= l->wait_until_ns) {
        l->more = false;
        net_send_summary(g, l);
    }
    return true;
}

bool net_on_control(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    struct net_control c;
    if (n > NET_CONTROL_BYTES_MAX || net_control_parse(&c, p, n) != ERR_OK)
        return false;
    const enum err e = net_hold_control(g, p, n, true, l);
    const struct net_feed *f = net_table_find(g, c.machine, NULL);
    if (e == ERR_PROTO)
        net_drop(g, l, "invalid control event", true);
    else if (e == ERR_OK && (c.kind == NET_FORK || c.kind == NET_RETRACT))
        forked_segment(g, l, c.machine);
    else if (e == ERR_AGAIN && c.kind == NET_FORK) {
        /* Its predecessor is not held: either we are behind, or our chain parts from it earlier. */
        if (!f || net_feed_end(f) < c.seq) {
            if (!net_pull_of(g, c.machine))
                net_pull_start(g, l, c.machine);
        } else {
            net_search_start(g, l, f);
        }
    }
    return true;
}

void net_repair_forget(struct net_gossip *g, const struct net_link *l)
{
    for (uint32_t i = g->n_pulls; i-- > 0;)
        if (g->pulls[i].link == l->id) {
            uint8_t machine[32];
            const bool progress = g->pulls[i].progress;
            memcpy(machine, g->pulls[i].machine, 32);
            g->pulls[i] = g->pulls[--g->n_pulls];
            if (progress)
                offer_others(g, l, machine);
        }
}

/* ---- the trees: who brings us which feed ---- */

struct grafts {
    uint8_t frame[1 + WIRE_GRAFTS_MAX * 32];
    uint32_t n;
};

static void graft_send(struct net_gossip *g, struct net_link *l, struct grafts *t)
{
    t->frame[0] = WIRE_GRAFT;
    if (t->n > 0)
        net_send(g, l, t->frame, 1 + t->n * 32);
    t->n = 0;
}

static void graft(struct net_gossip *g, struct net_link *l, struct grafts *t, struct net_feed *f)
{
    if (t->n == WIRE_GRAFTS_MAX)
        graft_send(g, l, t);
    memcpy(t->frame + 1 + 32 * t->n++, f->machine, 32);
    f->source = l->id;
}

/* l holds what we hold: let it bring the feeds that nobody brings.  After a start that is all of them: said in one byte. */
void net_graft_orphans(struct net_gossip *g, struct net_link *l)
{
    struct grafts t = {.frame = {WIRE_GRAFT}, .n = 0};
    uint32_t orphans = 0;
    for (uint32_t name = 0; name < g->n_feeds; name++)
        orphans += g->feeds[name]->source == NET_NOWHERE;
    if (orphans > 8 && orphans > g->n_feeds / 2) {
        for (uint32_t name = 0; name < g->n_feeds; name++)
            g->feeds[name]->source =
                g->feeds[name]->source == NET_NOWHERE ? l->id : g->feeds[name]->source;
        net_send(g, l, t.frame, 1);
        return;
    }
    for (uint32_t name = 0; name < g->n_feeds; name++)
        if (g->feeds[name]->source == NET_NOWHERE &&
            memcmp(g->feeds[name]->machine, g->self, 32) != 0)
            graft(g, l, &t, g->feeds[name]);
    graft_send(g, l, &t);
}

/* Feeds that came by the link that went come by none now: another brings them, at best one that does not get them from us.
 * If it does after all, the next comparison shows the lack, and the pull that follows grafts. */
void net_regraft(struct net_gossip *g, uint32_t gone)
{
    for (uint32_t k = 0; k < g->n_links; k++) {
        struct net_link *l = g->links[k];
        struct grafts t = {.n = 0};
        for (uint32_t name = 0; name < g->n_feeds; name++) {
            struct net_feed *f = g->feeds[name];
            const bool last = k + 1 == g->n_links;
            if (f->source == gone &&
                (last || (net_lazy(l, name) && net_random(g) % (g->n_links - k) == 0)))
                graft(g, l, &t, f);
        }
        const bool any = t.n > 0;
        graft_send(g, l, &t);
        if (any)
            l->more = true; /* and compare: something may have been lost with the link */
    }
    if (g->n_links == 0)
        for (uint32_t name = 0; name < g->n_feeds; name++)
            g->feeds[name]->source = NET_NOWHERE;
}

bool net_on_graft(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n % 32 != 0 || n / 32 > WIRE_GRAFTS_MAX)
        return false;
    for (uint32_t name = 0; n == 0 && name < l->n_cursor; name++)
        l->cursor[name] &= ~(uint32_t)NET_LAZY;
    for (size_t k = 0; k < n / 32; k++) {
        uint32_t name;
        if (net_table_find(g, p + 32 * k, &name) && name < l->n_cursor)
            l->cursor[name] &= ~(uint32_t)NET_LAZY;
    }
    return true;
}

static void search_tick(struct net_gossip *g, struct net_link *l)
{
    struct net_search *s = &l->search;
    if (!s->active || g->now_ns < s->deadline_ns)
        return;
    const struct net_feed *f = net_table_find(g, s->machine, NULL);
    if (!f || f->epoch != s->epoch || s->n_asked == 0 || s->questions >= LIMIT_SEARCH_QUESTIONS)
        search_fail(g, l);
    else
        search_ask(g, l, f); /* the question or its answer was lost */
}

void net_repair_tick(struct net_gossip *g)
{
    for (uint32_t i = g->n_pulls; i-- > 0;) {
        if (g->now_ns < g->pulls[i].deadline_ns || pull_again(g, &g->pulls[i]))
            continue;
        const struct net_pull p = g->pulls[i];
        struct net_link *l = net_link_by_id(g, p.link);
        net_pull_end(g, &g->pulls[i]);
        g->count.pulls_failed++;
        if (!l)
            continue;
        if (p.progress || p.later) {
            if (p.progress)
                offer_others(g, l, p.machine);
            l->more = true;
        } else {
            net_blame(g, l);
        }
    }
    for (uint32_t i = 0; i < g->n_links; i++) {
        struct net_link *l = g->links[i];
        search_tick(g, l);
        if (l->more && l->n_pulls == 0 && !l->search.active && g->now_ns >= l->wait_until_ns &&
            g->now_ns >= l->compared_ns + NET_S) {
            l->more = false;
            net_send_summary(g, l);
        }
    }
}

uint64_t net_repair_next(const struct net_gossip *g)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < g->n_pulls; i++)
        next = g->pulls[i].deadline_ns < next ? g->pulls[i].deadline_ns : next;
    for (uint32_t i = 0; i < g->n_links; i++) {
        const struct net_link *l = g->links[i];
        uint64_t at = UINT64_MAX;
        if (l->search.active)
            at = l->search.deadline_ns;
        else if (l->more && l->n_pulls == 0)
            at = l->wait_until_ns > l->compared_ns + NET_S ? l->wait_until_ns
                                                           : l->compared_ns + NET_S;
        next = at < next ? at : next;
    }
    return next;
}
