/* Read-only views of the gossip machine. */
#include "core.h"

void net_gossip_clock(const struct net_gossip *g, struct net_clock *out)
{
    out->hi = (uint64_t)(g->clock >> 64);
    out->lo = (uint64_t)g->clock;
    out->step = net_clock_step(g->clock, g->rules.n0);
}

bool net_gossip_feed(const struct net_gossip *g, const uint8_t machine[32],
                     struct net_frontier_entry *out)
{
    const struct net_feed *f = net_table_find(g, machine, NULL);
    if (f)
        net_feed_entry(f, out);
    return f != NULL;
}

bool net_gossip_feed_at(const struct net_gossip *g, size_t i, struct net_feed_view *out)
{
    if (i >= g->n_feeds)
        return false;
    const struct net_feed *f = g->feeds[g->sorted[i]];
    *out = (struct net_feed_view){
        .weight = f->weight, .segments = f->n, .last_step = net_feed_step_at(f, f->n)};
    net_feed_entry(f, &out->entry);
    if (f->n > 0)
        out->last_loss_f16 = (uint16_t)bytes_get_le(net_feed_wire(f, f->n - 1) + 20, 2);
    return true;
}

bool net_gossip_segment(const struct net_gossip *g, const uint8_t machine[32], size_t i,
                        struct net_segment *out, uint8_t id[32],
                        uint8_t counts[LIMIT_SEGMENT_COUNT])
{
    const struct net_feed *f = net_table_find(g, machine, NULL);
    if (!f || i >= f->n)
        return false;
    (void)net_feed_get(f, (uint32_t)i, &g->rules, f->cut, out, counts);
    memcpy(id, net_feed_id(f, (uint32_t)i), 32);
    return true;
}

bool net_gossip_would_count(const struct net_gossip *g, uint32_t count, uint32_t step, uint32_t lag)
{
    const struct net_feed *f = net_table_find(g, g->self, NULL);
    const uint64_t w = net_weight(g->rules.n0, lag);
    return net_count_room(&g->rules, step, w, f ? f->weight : 0) >= count;
}

const char *net_gossip_own_closed(const struct net_gossip *g)
{
    const struct net_feed *f = net_table_find(g, g->self, NULL);
    if (!net_gossip_admitted(g, g->self))
        return "not admitted";
    const bool full = g->n_feeds >= LIMIT_FEEDS || g->bytes_held + NET_SEGMENT_BYTES_MAX > LIMIT_GOSSIP_BYTES;
    if (!f)
        return full ? "table" : NULL;
    if (net_feed_end(f) >= f->cut)
        return "cut";
    if (g->rules.records_max - net_feed_end(f) < g->rules.k)
        return "full";
    return full ? "table" : NULL;
}

size_t net_gossip_checkpoint(const struct net_gossip *g, const uint8_t **frame)
{
    *frame = g->checkpoint_frame;
    return g->has_checkpoint ? g->checkpoint_bytes : 0;
}

void net_gossip_agreement(const struct net_gossip *g, size_t *agree, size_t *links)
{
    *agree = 0;
    *links = g->n_links;
    for (uint32_t i = 0; i < g->n_links; i++) {
        const struct net_tree *t = &g->tree;
        const bool clean = !(t->dirty[0] | t->dirty[1] | t->dirty[2] | t->dirty[3]);
        *agree +=
            clean && g->links[i]->equal && memcmp(g->links[i]->root, t->root, NET_TREE_BYTES) == 0;
    }
}

void net_gossip_count(const struct net_gossip *g, struct net_gossip_counters *out)
{
    *out = g->count;
}

/* How many of f's segments make e; NET_NOWHERE with *why: not yet, or never. */
static uint32_t segments_of(const struct net_feed *f, const struct net_frontier_entry *e, enum err *why)
{
    const uint64_t end = f ? net_feed_end(f) : 0, cut = f ? f->cut : NET_NO_CUT;
    const uint32_t n = e->count == 0 ? 0 : f ? net_feed_prefix_with(f, e->count, e->head) : NET_NOWHERE;
    if (n != NET_NOWHERE && cut == e->cut)
        return n;
    /* A lower cut of ours never rises; one of theirs, or what we lack, is still on its way. */
    *why = cut < e->cut || (n == NET_NOWHERE && e->count <= end && cut <= e->cut) ? ERR_NOTFOUND : ERR_AGAIN;
    return NET_NOWHERE;
}

static void walk(const struct net_gossip *g, const struct net_feed *f, uint32_t a, uint32_t b, net_way_row *row, void *ctx)
{
    struct net_segment s;
    uint8_t counts[LIMIT_SEGMENT_COUNT];
    for (uint32_t i = a < b ? a : b; i < (a < b ? b : a); i++)
        if (net_feed_get(f, i, &g->rules, f->cut, &s, counts) > 0)
            row(ctx, f->machine, &s, counts, b < a);
}

static const struct net_frontier_entry *entry_of(const struct net_frontier_entry *e, size_t n, size_t *at, const uint8_t machine[32])
{
    while (*at < n && memcmp(e[*at].machine, machine, 32) < 0)
        ++*at;
    return *at < n && memcmp(e[*at].machine, machine, 32) == 0 ? &e[*at] : NULL;
}

enum err net_gossip_way(const struct net_gossip *g, const struct net_frontier_entry *from, size_t n_from,
                        const struct net_frontier_entry *to, size_t n_to, uint64_t *step, net_way_row *row, void *ctx)
{
    enum err why = ERR_OK;
    net_u128 clock = 0;
    for (size_t i = 0; i < n_to; i++) {
        const struct net_feed *f = net_table_find(g, to[i].machine, NULL);
        const uint32_t n = segments_of(f, &to[i], &why);
        if (n == NET_NOWHERE && why == ERR_NOTFOUND)
            return ERR_NOTFOUND;
        if (n != NET_NOWHERE && f)
            clock += n < f->n ? f->segments[n].before : f->weight;
    }
    if (why != ERR_OK)
        return why;
    if (step)
        *step = net_clock_step(clock, g->rules.n0);
    size_t at_from = 0, at_to = 0;
    for (uint32_t i = 0; row && i < g->n_feeds; i++) {
        const struct net_feed *f = g->feeds[g->sorted[i]];
        const struct net_frontier_entry *a = entry_of(from, n_from, &at_from, f->machine), *b = entry_of(to, n_to, &at_to, f->machine);
        const uint32_t n_a = a ? segments_of(f, a, &why) : 0, n_b = b ? segments_of(f, b, &why) : 0;
        ENSURE(n_a != NET_NOWHERE && n_b != NET_NOWHERE);
        walk(g, f, n_a, n_b, row, ctx);
    }
    return ERR_OK;
}
