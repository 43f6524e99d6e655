#include "core.h"

void net_entry_write(uint8_t out[80], const struct net_frontier_entry *e)
{
    memcpy(out, e->machine, 32);
    bytes_put_le(out + 32, e->count, 8);
    memcpy(out + 40, e->head, 32);
    bytes_put_le(out + 72, e->cut, 8);
}

void net_entry_read(struct net_frontier_entry *e, const uint8_t in[80])
{
    memcpy(e->machine, in, 32);
    e->count = bytes_get_le(in + 32, 8);
    memcpy(e->head, in + 40, 32);
    e->cut = bytes_get_le(in + 72, 8);
}

bool net_entry_same(const struct net_frontier_entry *a, const struct net_frontier_entry *b)
{
    return a->count == b->count && a->cut == b->cut && memcmp(a->machine, b->machine, 32) == 0 &&
           memcmp(a->head, b->head, 32) == 0;
}

uint32_t net_table_lower(const struct net_gossip *g, const uint8_t machine[32])
{
    uint32_t lo = 0, hi = g->n_feeds;
    while (lo < hi) {
        const uint32_t mid = lo + (hi - lo) / 2;
        if (memcmp(g->feeds[g->sorted[mid]]->machine, machine, 32) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct net_feed *net_table_find(const struct net_gossip *g, const uint8_t machine[32],
                                uint32_t *name)
{
    const uint32_t i = net_table_lower(g, machine);
    if (i == g->n_feeds || memcmp(g->feeds[g->sorted[i]]->machine, machine, 32) != 0)
        return NULL;
    if (name)
        *name = g->sorted[i];
    return g->feeds[g->sorted[i]];
}

static bool table_grow(struct net_gossip *g)
{
    if (g->n_feeds < g->feeds_capacity)
        return true;
    const uint32_t c = g->feeds_capacity ? 2 * g->feeds_capacity : 16;
    struct net_feed **f = realloc(g->feeds, c * sizeof(void *));
    if (!f)
        return false;
    g->feeds = f;
    uint32_t *s = realloc(g->sorted, c * sizeof *s);
    if (!s)
        return false;
    g->sorted = s;
    g->feeds_capacity = c;
    return true;
}

struct net_feed *net_table_add(struct net_gossip *g, const uint8_t machine[32], uint32_t *name)
{
    if (g->n_feeds >= LIMIT_FEEDS || !table_grow(g))
        return NULL;
    struct net_feed *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    memcpy(f->machine, machine, 32);
    f->cut = NET_NO_CUT;
    f->source = NET_NOWHERE;
    const uint32_t i = net_table_lower(g, machine);
    memmove(g->sorted + i + 1, g->sorted + i, (g->n_feeds - i) * sizeof *g->sorted);
    g->sorted[i] = g->n_feeds;
    g->feeds[g->n_feeds] = f;
    *name = g->n_feeds++;
    return f;
}

void net_table_touch(struct net_gossip *g, const struct net_feed *f)
{
    g->tree.dirty[f->machine[0] / 64] |= UINT64_C(1) << (f->machine[0] % 64);
}

/* The digest of all entries whose id begins with byte b: zeros when there is none. */
static void hash_bucket(struct net_gossip *g, unsigned b)
{
    const uint8_t from[32] = {(uint8_t)b};
    struct net_part parts[64];
    uint8_t bytes[64][80], chain[32] = {0}, empty = 1;
    uint32_t i = net_table_lower(g, from);
    while (i < g->n_feeds && g->feeds[g->sorted[i]]->machine[0] == b) {
        size_t n = 1;
        parts[0] = (struct net_part){chain, 32};
        for (; n < 64 && i < g->n_feeds && g->feeds[g->sorted[i]]->machine[0] == b; n++, i++) {
            struct net_frontier_entry e;
            net_feed_entry(g->feeds[g->sorted[i]], &e);
            net_entry_write(bytes[n], &e);
            parts[n] = (struct net_part){bytes[n], 80};
        }
        net_hash(chain, parts, n);
        empty = 0;
    }
    if (empty)
        memset(chain, 0, 32);
    memcpy(g->tree.bucket[b], chain, NET_TREE_BYTES);
}

static void hash_children(uint8_t out[NET_TREE_BYTES], const void *children)
{
    uint8_t h[32];
    net_hash(h, &(struct net_part){children, 16 * NET_TREE_BYTES}, 1);
    memcpy(out, h, NET_TREE_BYTES);
}

void net_tree_refresh(struct net_gossip *g)
{
    struct net_tree *t = &g->tree;
    if (!(t->dirty[0] | t->dirty[1] | t->dirty[2] | t->dirty[3]))
        return;
    for (unsigned node = 0; node < 16; node++) {
        const uint64_t bits = t->dirty[node / 4] >> (16 * (node % 4)) & 0xffff;
        if (!bits)
            continue;
        for (unsigned b = 0; b < 16; b++)
            if (bits >> b & 1)
                hash_bucket(g, 16 * node + b);
        hash_children(t->node[node], t->bucket[16 * node]);
    }
    hash_children(t->root, t->node);
    memset(t->dirty, 0, sizeof t->dirty);
}

void net_table_release(struct net_gossip *g)
{
    for (uint32_t i = 0; i < g->n_feeds; i++) {
        struct net_feed *f = g->feeds[i];
        for (uint32_t k = 0; k < f->n; k++)
            g->intern.drop(g->intern.ctx, f->segments[k].bytes);
        free(f->segments);
        free(f->evidence);
        free(f);
    }
    free(g->feeds);
    free(g->sorted);
}

/* e <- the entry restricted to rounds before `round`; false: not part of the frontier. */
static bool entry_before(const struct net_feed *f, uint64_t round, struct net_frontier_entry *e)
{
    const uint32_t n = net_feed_before_round(f, round);
    net_feed_entry(f, e);
    e->count = net_feed_end_at(f, n);
    memcpy(e->head, net_feed_head_at(f, n), 32);
    return e->count > 0 || e->cut != NET_NO_CUT;
}

size_t net_gossip_frontier(const struct net_gossip *g, uint64_t round,
                           struct net_frontier_entry *out, size_t n_max)
{
    size_t n = 0;
    for (uint32_t i = 0; i < g->n_feeds; i++) {
        struct net_frontier_entry e;
        if (!entry_before(g->feeds[g->sorted[i]], round, &e))
            continue;
        if (n < n_max)
            out[n] = e;
        n++;
    }
    return n;
}

void net_frontier_digest(const struct net_frontier_entry *e, size_t n, uint8_t out[32])
{
    struct net_hash_state h = {0};
    net_hash_start(&h);
    for (size_t i = 0; i < n; i++) {
        uint8_t bytes[80];
        net_entry_write(bytes, &e[i]);
        net_hash_more(&h, bytes, sizeof bytes);
    }
    net_hash_end(&h, out);
}

void net_gossip_frontier_digest(const struct net_gossip *g, uint64_t round, uint8_t out[32])
{
    struct net_hash_state h = {0};
    net_hash_start(&h);
    for (uint32_t i = 0; i < g->n_feeds; i++) {
        struct net_frontier_entry e;
        uint8_t bytes[80];
        if (!entry_before(g->feeds[g->sorted[i]], round, &e))
            continue;
        net_entry_write(bytes, &e);
        net_hash_more(&h, bytes, sizeof bytes);
    }
    net_hash_end(&h, out);
}
