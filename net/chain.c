/* The records between two holdings of one machine: along its live chain, and over branches that were cut off. */
#include <onebyte/net/audit.h>
#include "core.h"

struct node { /* a branch segment */
    struct net_segment s;
    const uint8_t *wire;
    uint64_t end;
    uint8_t id[32];
    uint32_t parent; /* index of a node, or NET_NOWHERE: the live chain's first `live` segments */
    uint32_t live;
    bool reached;
};

struct path {
    struct node *nodes;
    uint32_t *by_end;  /* [n] indices in order of end */
    uint32_t *over;    /* [n_over] branch nodes in order, after live segments */
    uint32_t n, n_over;
    uint32_t live;     /* segments of the live chain it begins with */
};

static int by_first(const void *a, const void *b)
{
    const struct node *x = a, *y = b;
    return x->s.first_seq < y->s.first_seq ? -1 : x->s.first_seq > y->s.first_seq;
}

/* qsort has no context: the nodes' ends are sorted beside their indices. */
struct end_at {
    uint64_t end;
    uint32_t node;
};

static int by_end(const void *a, const void *b)
{
    const struct end_at *x = a, *y = b;
    return x->end < y->end ? -1 : x->end > y->end;
}

static bool collect(struct path *p, const uint8_t machine[32], const struct net_branch *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p->n += memcmp(b[i].machine, machine, 32) == 0;
    p->nodes = calloc(p->n + 1, sizeof *p->nodes);
    p->by_end = calloc(p->n + 1, sizeof *p->by_end);
    p->over = calloc(p->n + 1, sizeof *p->over);
    struct end_at *ends = calloc(p->n + 1, sizeof *ends);
    bool ok = p->nodes && p->by_end && p->over && ends;
    uint32_t at = 0;
    for (size_t i = 0; ok && i < n; i++) {
        struct node *x = &p->nodes[at];
        if (memcmp(b[i].machine, machine, 32) != 0 ||
            net_segment_parse(&x->s, b[i].wire, b[i].n) != ERR_OK)
            continue;
        x->wire = b[i].wire;
        x->end = x->s.first_seq + x->s.count;
        at++;
    }
    p->n = at;
    if (ok) {
        qsort(p->nodes, p->n, sizeof *p->nodes, by_first);
        for (uint32_t i = 0; i < p->n; i++)
            ends[i] = (struct end_at){p->nodes[i].end, i};
        qsort(ends, p->n, sizeof *ends, by_end);
        for (uint32_t i = 0; i < p->n; i++)
            p->by_end[i] = ends[i].node;
    }
    free(ends);
    return ok;
}

/* The node x follows one that is known, by the eight bytes it names and every other rule: then its own id is known, too. */
static bool follows(struct node *x, const struct net_gossip *g, const uint8_t machine[32],
                    const uint8_t prev[32], uint64_t prev_end, uint32_t prev_step)
{
    if (!net_segment_fits(&x->s, &g->rules, prev, prev_end, prev_step))
        return false;
    net_segment_id(x->id, &x->s, g->rules.run_id, machine, prev);
    x->reached = true;
    return true;
}

static void reach(struct path *p, uint32_t at, const struct net_gossip *g,
                  const struct net_feed *f, const uint8_t machine[32])
{
    static const uint8_t zeros[32];
    struct node *x = &p->nodes[at];
    const uint32_t live = f ? net_feed_prefix(f, x->s.first_seq) : x->s.first_seq == 0 ? 0 : NET_NOWHERE;
    if (live != NET_NOWHERE && follows(x, g, machine, f ? net_feed_head_at(f, live) : zeros,
                                       x->s.first_seq, f ? net_feed_step_at(f, live) : 0)) {
        x->parent = NET_NOWHERE;
        x->live = live;
        return;
    }
    uint32_t lo = 0, hi = p->n;
    while (lo < hi) { /* first node that ends at or after first_seq */
        const uint32_t mid = lo + (hi - lo) / 2;
        if (p->nodes[p->by_end[mid]].end < x->s.first_seq)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < p->n && p->nodes[p->by_end[lo]].end == x->s.first_seq; lo++) {
        const struct node *y = &p->nodes[p->by_end[lo]];
        if (y->reached && follows(x, g, machine, y->id, y->end, y->s.step)) {
            x->parent = p->by_end[lo];
            return;
        }
    }
}

static void backtrack(struct path *p, uint32_t at)
{
    for (; at != NET_NOWHERE; at = p->nodes[at].parent) {
        p->over[p->n_over++] = at;
        p->live = p->nodes[at].live;
    }
    for (uint32_t i = 0; i < p->n_over / 2; i++) {
        const uint32_t x = p->over[i];
        p->over[i] = p->over[p->n_over - 1 - i];
        p->over[p->n_over - 1 - i] = x;
    }
}

/* The chain that e names: so many live segments, then branch segments. */
static enum err find(struct path *p, const struct net_gossip *g, const struct net_feed *f,
                     const struct net_frontier_entry *e, const struct net_branch *b, size_t n)
{
    if (e->count == 0)
        return ERR_OK;
    p->live = f ? net_feed_prefix_with(f, e->count, e->head) : NET_NOWHERE;
    if (p->live != NET_NOWHERE)
        return ERR_OK;
    if (!collect(p, e->machine, b, n))
        return ERR_NOMEM;
    for (uint32_t i = 0; i < p->n; i++) {
        reach(p, i, g, f, e->machine);
        if (p->nodes[i].reached && p->nodes[i].end == e->count &&
            memcmp(p->nodes[i].id, e->head, 32) == 0) {
            backtrack(p, i);
            return ERR_OK;
        }
    }
    return ERR_NOTFOUND;
}

static void path_release(struct path *p)
{
    free(p->nodes);
    free(p->by_end);
    free(p->over);
}

struct rows {
    const struct net_gossip *g;
    net_between_row *row;
    void *ctx;
    uint64_t from; /* segments that end at or before it are alike in both */
    bool subtract;
};

static void walk(const struct rows *r, const struct net_feed *f, const struct path *p,
                 const struct net_frontier_entry *e)
{
    struct net_segment s;
    uint8_t counts[LIMIT_SEGMENT_COUNT];
    uint64_t before = 0;
    uint32_t i = p->live;
    while (i > 0 && net_feed_end_at(f, i) > r->from) /* the first that matters .. */
        i--;
    if (i > 0 && i == p->live)
        i--; /* .. or, for the weight before a branch, the last one */
    for (; i < p->live; i++) {
        const uint32_t n = net_feed_get(f, i, &r->g->rules, e->cut, &s, counts);
        before = f->segments[i].before + n * net_weight(r->g->rules.n0, s.lag);
        if (n > 0 && s.first_seq + s.count > r->from)
            r->row(r->ctx, e->machine, &s, counts, r->subtract);
    }
    for (uint32_t k = 0; k < p->n_over; k++) {
        const struct node *x = &p->nodes[p->over[k]];
        const uint32_t n = net_count_segment(counts, &x->s, &r->g->rules, before, e->cut);
        before += n * net_weight(r->g->rules.n0, x->s.lag);
        if (n > 0 && x->end > r->from)
            r->row(r->ctx, e->machine, &x->s, counts, r->subtract);
    }
}

enum err net_gossip_between(const struct net_gossip *g, const struct net_frontier_entry *from,
                            const struct net_frontier_entry *to, const struct net_branch *branches,
                            size_t n, net_between_row *row, void *ctx)
{
    ENSURE(memcmp(from->machine, to->machine, 32) == 0);
    struct rows r = {.g = g, .row = row, .ctx = ctx};
    if (net_entry_same(from, to))
        return ERR_OK;
    const struct net_feed *f = net_table_find(g, from->machine, NULL);
    struct path a = {.live = 0}, b = {.live = 0};
    enum err e = find(&a, g, f, from, NULL, 0);
    if (e == ERR_OK)
        e = find(&b, g, f, to, branches, n);
    if (e == ERR_OK) {
        const uint64_t cut = from->cut < to->cut ? from->cut : to->cut;
        const uint64_t branch = b.n_over ? b.nodes[b.over[0]].s.first_seq : UINT64_MAX;
        r.from = from->count < to->count ? from->count : to->count;
        if (from->cut != to->cut && cut < r.from)
            r.from = cut;
        r.from = branch < r.from ? branch : r.from;
        r.subtract = true;
        walk(&r, f, &a, from);
        r.subtract = false;
        walk(&r, f, &b, to);
    }
    path_release(&a);
    path_release(&b);
    return e;
}
