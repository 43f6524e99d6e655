/* Who lacks what: eager push along cursors, and frontier comparison by a tree of digests.
 *
 * Two machines that agree exchange 58 bytes.  Two that differ in d feeds of n exchange at most d paths down the tree
 * (16 digests of 16 bytes a level) and the entries of d buckets: n / 256 each. */
#include "core.h"
#include "wire.h"

/* What a rate earned since *then_ns; a bucket holds two seconds of it. */
static void earn(uint64_t *tokens, uint64_t *then_ns, uint64_t now_ns, uint64_t per_s)
{
    const uint64_t most = 2 * per_s, ms = (now_ns - *then_ns) / 1000000;
    const uint64_t gain = ms > 4000 ? most : ms * per_s / 1000;
    *tokens = *tokens + gain > most ? most : *tokens + gain;
    *then_ns += ms * 1000000;
}

bool net_spend(struct net_gossip *g, struct net_link *l, size_t bytes)
{
    earn(&l->tokens, &l->tokens_ns, g->now_ns, LIMIT_LINK_RATE);
    earn(&g->tokens, &g->tokens_ns, g->now_ns, LIMIT_ANSWER_RATE);
    uint64_t *tokens = l->tokens >= bytes ? &l->tokens : &g->tokens;
    if (*tokens < bytes) {
        g->count.quota_dropped++;
        return false;
    }
    *tokens -= bytes;
    return true;
}

uint32_t net_link_known(const struct net_link *l, uint32_t name)
{
    return name < l->n_cursor ? l->cursor[name] >> 2 : 0;
}

static bool link_cover(struct net_gossip *g, struct net_link *l, uint32_t name)
{
    if (name < l->n_cursor)
        return true;
    const uint32_t n = g->feeds_capacity;
    ENSURE(name < n);
    uint32_t *c = realloc(l->cursor, n * sizeof *c);
    if (!c)
        return false;
    memset(c + l->n_cursor, 0, (n - l->n_cursor) * sizeof *c);
    l->cursor = c;
    l->n_cursor = n;
    return true;
}

/* The neighbour holds the first n segments of feed `name` (or was sent them); exact: and no more. */
void net_link_cursor(struct net_gossip *g, struct net_link *l, uint32_t name, uint32_t n,
                     bool exact)
{
    if (!link_cover(g, l, name))
        return;
    const uint32_t was = l->cursor[name];
    if (exact || n > was >> 2)
        l->cursor[name] = n << 2 | (was & 3);
}

static void all_known(struct net_gossip *g, struct net_link *l)
{
    for (uint32_t name = 0; name < g->n_feeds; name++)
        net_link_cursor(g, l, name, g->feeds[name]->n, true);
}

void net_send_admission(struct net_gossip *g, const struct net_link *l, const uint8_t machine[32])
{
    uint8_t wire[1 + NET_CONTROL_BYTES_MAX];
    const size_t n = net_hold_admission_of(g, machine, wire + 1);
    wire[0] = WIRE_CONTROL;
    if (n > 0)
        net_send(g, l, wire, 1 + n);
}

/* Segment i under our name; the first time, or after UNNAMED, with the machine id too. */
void net_push_segment(struct net_gossip *g, struct net_link *l, uint32_t name, uint32_t i)
{
    const struct net_feed *f = g->feeds[name];
    uint8_t frame[1 + 32 + 4 + NET_SEGMENT_BYTES_MAX];
    const size_t bytes = net_feed_wire_bytes(f, i);
    if (!link_cover(g, l, name))
        return;
    const bool named = l->cursor[name] & NET_NAMED;
    size_t at = 1;
    frame[0] = named ? WIRE_SEGMENT : WIRE_SEGMENT_OF;
    if (!named) {
        net_send_admission(g, l, f->machine);
        memcpy(frame + at, f->machine, 32);
        at += 32;
    }
    bytes_put_le(frame + at, name, 4);
    memcpy(frame + at + 4, net_feed_wire(f, i), bytes);
    net_send(g, l, frame, at + 4 + bytes);
    l->cursor[name] |= NET_NAMED;
    net_link_cursor(g, l, name, i + 1, false);
}

/* Feeds we know already reach the new neighbour by its other links, or it will pull or graft them.  With few feeds it is
 * cheaper to let the first duplicates find the shorter trees. */
void net_link_begin(struct net_gossip *g, struct net_link *l)
{
    if (g->n_feeds <= LIMIT_FLOOD_FEEDS)
        return;
    for (uint32_t name = 0; name < g->n_feeds; name++)
        if (memcmp(g->feeds[name]->machine, g->self, 32) != 0 && link_cover(g, l, name))
            l->cursor[name] |= NET_LAZY;
}

bool net_lazy(const struct net_link *l, uint32_t name)
{
    return name < l->n_cursor && l->cursor[name] & NET_LAZY;
}

/* The newest segment to every neighbour that is not known to hold it.  One that lacks earlier ones will pull.
 * A neighbour that had it from elsewhere says PRUNE, and a PULL takes that back: each feed thus runs along the tree of its
 * first arrivals (Leitao et al. 2007, "Epidemic broadcast trees"), and comparison repairs the tree where it breaks. */
void net_push_new(struct net_gossip *g, uint32_t name, const struct net_link *from)
{
    const uint32_t n = g->feeds[name]->n, start = (uint32_t)(net_random(g) % LIMIT_LINKS);
    const bool sparse = n == 1 && g->n_feeds > LIMIT_FLOOD_FEEDS;
    uint32_t pushed = 0;
    ENSURE(n > 0);
    for (uint32_t k = 0; k < g->n_links; k++) {
        struct net_link *l = g->links[(start + k) % g->n_links];
        if (l == from || net_link_known(l, name) >= n || net_lazy(l, name))
            continue;
        if (sparse && pushed >= LIMIT_FLOOD_LINKS && link_cover(g, l, name)) {
            l->cursor[name] |= NET_LAZY;
            continue;
        }
        net_push_segment(g, l, name, n - 1);
        pushed++;
    }
}

void net_send_summary(struct net_gossip *g, struct net_link *l)
{
    uint8_t frame[1 + NET_TREE_BYTES + 16] = {WIRE_SUMMARY};
    net_tree_refresh(g);
    memcpy(frame + 1, g->tree.root, NET_TREE_BYTES);
    if (g->has_checkpoint) {
        bytes_put_le(frame + 17, g->checkpoint.number, 8);
        memcpy(frame + 25, g->checkpoint_id, 8);
    }
    net_send(g, l, frame, sizeof frame);
    net_send_scored(g, l);
    l->compared_ns = g->now_ns;
    g->count.summaries++;
}

void net_send_entry(struct net_gossip *g, const struct net_link *l, uint8_t type,
                    const uint8_t machine[32])
{
    uint8_t frame[1 + WIRE_ENTRY] = {type};
    struct net_frontier_entry e = {.cut = NET_NO_CUT};
    memcpy(e.machine, machine, 32);
    (void)net_gossip_feed(g, machine, &e);
    net_entry_write(frame + 1, &e);
    net_send(g, l, frame, sizeof frame);
}

void net_send_evidence(struct net_gossip *g, const struct net_link *l, const struct net_feed *f)
{
    uint8_t frame[1 + NET_CONTROL_BYTES_MAX] = {WIRE_CONTROL};
    if (!f->evidence)
        return;
    net_send_admission(g, l, f->machine); /* a proof about a machine nobody let in proves nothing */
    memcpy(frame + 1, f->evidence, f->evidence_bytes);
    net_send(g, l, frame, 1 + f->evidence_bytes);
}

/* All entries with lo < machine <= hi, in as many frames as they need. */
static void send_entries(struct net_gossip *g, struct net_link *l, const uint8_t lo[32],
                         const uint8_t hi[32])
{
    uint8_t frame[1 + 64 + WIRE_ENTRIES_MAX * WIRE_ENTRY] = {WIRE_ENTRIES};
    uint32_t i = net_table_lower(g, lo);
    if (i < g->n_feeds && memcmp(g->feeds[g->sorted[i]]->machine, lo, 32) == 0)
        i++;
    memcpy(frame + 1, lo, 32);
    for (bool last = false; !last;) {
        uint32_t n = 0;
        struct net_frontier_entry e;
        for (; n < WIRE_ENTRIES_MAX && i < g->n_feeds; n++, i++) {
            net_feed_entry(g->feeds[g->sorted[i]], &e);
            if (memcmp(e.machine, hi, 32) > 0)
                break;
            net_entry_write(frame + 65 + n * WIRE_ENTRY, &e);
        }
        last = n < WIRE_ENTRIES_MAX;
        memcpy(frame + 33, last ? hi : e.machine, 32);
        if (!net_spend(g, l, 65 + n * WIRE_ENTRY))
            return;
        net_send(g, l, frame, 65 + n * WIRE_ENTRY);
        memcpy(frame + 1, frame + 33, 32);
    }
}

static void byte_range(unsigned from, unsigned to, uint8_t lo[32], uint8_t hi[32])
{
    memset(lo, from ? 0xff : 0, 32); /* exclusive; no key is all zeros */
    memset(hi, 0xff, 32);
    if (from)
        lo[0] = (uint8_t)(from - 1);
    hi[0] = (uint8_t)to;
}

/* Our view of the first bytes from..to: entries when they are few, else digests of the parts. */
static void send_range(struct net_gossip *g, struct net_link *l, unsigned from, unsigned to)
{
    uint8_t lo[32], hi[32], frame[2 + 16 * NET_TREE_BYTES] = {WIRE_NODES};
    byte_range(from, to, lo, hi);
    const uint32_t first = net_table_lower(g, lo),
                   end = to == 255 ? g->n_feeds : net_table_lower(g, hi);
    if (end - first <= 24 || from == to) {
        send_entries(g, l, lo, hi);
        return;
    }
    const bool all = to - from == 255;
    frame[1] = all ? 0 : (uint8_t)(1 + from / 16);
    memcpy(frame + 2, all ? g->tree.node[0] : g->tree.bucket[from], 16 * NET_TREE_BYTES);
    if (net_spend(g, l, sizeof frame))
        net_send(g, l, frame, sizeof frame);
}

bool net_on_summary(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n != NET_TREE_BYTES + 16)
        return false;
    const uint64_t number = bytes_get_le(p + 16, 8);
    if (g->has_checkpoint &&
        (number < g->checkpoint.number ||
         (number == g->checkpoint.number && memcmp(p + 24, g->checkpoint_id, 8) < 0))) {
        uint8_t wire[1 + NET_CONTROL_BYTES_MAX] = {WIRE_CONTROL};
        memcpy(wire + 1, g->checkpoint_frame, g->checkpoint_bytes);
        if (net_spend(g, l, 1 + g->checkpoint_bytes))
            net_send(g, l, wire, 1 + g->checkpoint_bytes);
        net_send_scored(g, l); /* likely it lacks them, too */
    }
    net_tree_refresh(g);
    if (memcmp(p, g->tree.root, NET_TREE_BYTES) != 0) {
        l->equal = false;
        send_range(g, l, 0, 255);
        return true;
    }
    uint8_t frame[1 + NET_TREE_BYTES] = {WIRE_AGREE};
    memcpy(frame + 1, g->tree.root, NET_TREE_BYTES);
    if (net_spend(g, l, sizeof frame))
        net_send(g, l, frame, sizeof frame);
    return net_on_agree(g, l, p, NET_TREE_BYTES);
}

bool net_on_agree(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n != NET_TREE_BYTES)
        return false;
    net_tree_refresh(g);
    if (memcmp(p, g->tree.root, NET_TREE_BYTES) == 0) {
        all_known(g, l);
        net_graft_orphans(g, l);
        l->equal = true;
        memcpy(l->root, p, NET_TREE_BYTES);
        g->count.summaries_equal++;
    }
    return true;
}

bool net_on_nodes(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n != 1 + 16 * NET_TREE_BYTES || p[0] > 16)
        return false;
    net_tree_refresh(g);
    for (unsigned i = 0; i < 16; i++) {
        const uint8_t *theirs = p + 1 + i * NET_TREE_BYTES;
        const unsigned b = p[0] ? 16 * (p[0] - 1u) + i : 0;
        const uint8_t *ours = p[0] ? g->tree.bucket[b] : g->tree.node[i];
        if (memcmp(ours, theirs, NET_TREE_BYTES) == 0)
            continue;
        if (p[0])
            send_range(g, l, b, b);
        else
            send_range(g, l, 16 * i, 16 * i + 15);
    }
    return true;
}

/* Entries that the neighbour lacks altogether: it pulls what it wants. */
struct offer {
    uint8_t frame[1 + WIRE_ENTRIES_MAX * WIRE_ENTRY];
    uint32_t n;
};

static void offer_feed(struct net_link *l, struct offer *o, const struct net_feed *f)
{
    struct net_frontier_entry e;
    if (o->n == WIRE_ENTRIES_MAX) {
        l->more = true; /* the rest at the next comparison */
        return;
    }
    net_feed_entry(f, &e);
    net_entry_write(o->frame + 1 + o->n++ * WIRE_ENTRY, &e);
}

static void offer_send(struct net_gossip *g, struct net_link *l, struct offer *o)
{
    o->frame[0] = WIRE_HAVE;
    if (o->n > 0 && net_spend(g, l, 1 + o->n * WIRE_ENTRY))
        net_send(g, l, o->frame, 1 + o->n * WIRE_ENTRY);
}

bool net_on_entries(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n < 64 || (n - 64) % WIRE_ENTRY != 0 || (n - 64) / WIRE_ENTRY > WIRE_ENTRIES_MAX)
        return false;
    const uint8_t *lo = p, *hi = p + 32, *previous = lo;
    const size_t n_entries = (n - 64) / WIRE_ENTRY;
    for (size_t k = 0; k < n_entries; k++) { /* sorted, within the range */
        const uint8_t *id = p + 64 + k * WIRE_ENTRY;
        if (memcmp(id, previous, 32) <= 0 || memcmp(id, hi, 32) > 0)
            return false;
        previous = id;
    }
    struct offer offer = {.n = 0};
    uint8_t at[32];
    memcpy(at, lo, 32);
    for (size_t k = 0; k <= n_entries; k++) {
        /* What we hold strictly between the last entry and this one (or up to hi) is what it lacks. */
        const uint8_t *id = k < n_entries ? p + 64 + k * WIRE_ENTRY : hi;
        for (uint32_t i = net_table_lower(g, at); i < g->n_feeds; i++) {
            const struct net_feed *f = g->feeds[g->sorted[i]];
            const int order = memcmp(f->machine, id, 32);
            if (order > 0 || (order == 0 && k < n_entries))
                break;
            if (memcmp(f->machine, at, 32) > 0)
                offer_feed(l, &offer, f);
            if (l->more && offer.n == WIRE_ENTRIES_MAX)
                break;
        }
        if (k < n_entries) {
            struct net_frontier_entry e;
            net_entry_read(&e, id);
            net_compare_entry(g, l, &e, false);
            memcpy(at, id, 32);
        }
    }
    offer_send(g, l, &offer);
    return true;
}

bool net_on_want(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n != 32)
        return false;
    if (net_spend(g, l, 1 + WIRE_ENTRY))
        net_send_entry(g, l, WIRE_HAVE, p);
    return true;
}

bool net_on_have(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n == 0 || n % WIRE_ENTRY != 0 || n / WIRE_ENTRY > WIRE_ENTRIES_MAX)
        return false;
    for (size_t k = 0; k < n / WIRE_ENTRY; k++) {
        struct net_frontier_entry e;
        net_entry_read(&e, p + k * WIRE_ENTRY);
        if (memcmp(e.machine, g->self, 32) == 0) {
            l->ours = e;
            l->told_ours = true;
        }
        if (memcmp(e.machine, l->machine, 32) == 0) {
            l->theirs = e;
            l->told_theirs = true;
        }
        net_compare_entry(g, l, &e, false);
    }
    return true;
}

static void tell_cut(struct net_gossip *g, struct net_link *l, const struct net_feed *f)
{
    if (net_spend(g, l, 1 + f->evidence_bytes))
        net_send_evidence(g, l, f);
}

/* The neighbour holds e; we hold f.  Neither is a question of trust: whatever it claims, only verified bytes change us.
 * no_head: it has just said that our head is not in its chain. */
void net_compare_entry(struct net_gossip *g, struct net_link *l, const struct net_frontier_entry *e,
                       bool no_head)
{
    uint32_t name = 0;
    const struct net_feed *f = net_table_find(g, e->machine, &name);
    if (!f) {
        if ((e->count > 0 || e->cut != NET_NO_CUT) && !no_head)
            net_pull_start(g, l, e->machine);
        return;
    }
    const uint64_t end = net_feed_end(f);
    if (e->cut > f->cut)
        tell_cut(g, l, f);
    else if (e->cut < f->cut && !no_head) {
        net_pull_start(g, l, e->machine); /* its answer ends with the evidence */
        return;
    }
    const uint32_t n = net_feed_prefix_with(f, e->count, e->head);
    if (n != NET_NOWHERE) {
        net_link_cursor(g, l, name, n, true);
        if (n < f->n && net_spend(g, l, 1 + WIRE_ENTRY))
            net_send_entry(g, l, WIRE_HAVE, e->machine); /* it is behind: it pulls */
        return;
    }
    if (e->cut > f->cut && e->count > end)
        return; /* it holds what the evidence just sent removes */
    if (e->count > end && end < f->cut && !no_head)
        net_pull_start(g, l, e->machine);
    else
        net_search_start(g, l, f); /* two chains */
}
