/* A segment's lag and step against the frontier that its author signed: what the author itself must have known. */
#include "peer/audit.h"
#include "peer/judge.h"
#include <onebyte/base/bytes.h>
#include <stdlib.h>
#include <string.h>

/* The frontier's entries; NULL: no memory.  *own <- how far it holds machine. */
static struct net_frontier_entry *entries_of(const uint8_t *frontier, size_t n, const uint8_t machine[32], uint64_t *own)
{
    struct net_frontier_entry *e = calloc(n + 1, sizeof *e);
    *own = 0;
    for (size_t i = 0; e && i < n; i++) {
        peer_frontier_get(frontier, i, &e[i]);
        if (memcmp(e[i].machine, machine, 32) == 0)
            *own = e[i].count;
    }
    return e;
}

/* Records of machine that count, from seq `from` up to the segment id that begins at `end`.  false: it is not in the live chain. */
static bool counted_between(const struct net_gossip *g, const uint8_t machine[32], const uint8_t id[32], uint64_t from, uint64_t end,
                            uint64_t *counted)
{
    struct net_feed_view v;
    struct net_segment s;
    uint8_t other[32], counts[LIMIT_SEGMENT_COUNT];
    size_t n = 0;
    bool found = false;
    for (size_t i = 0; net_gossip_feed_at(g, i, &v); i++)
        if (memcmp(v.entry.machine, machine, 32) == 0)
            n = v.segments;
    *counted = 0;
    while (n-- > 0 && net_gossip_segment(g, machine, n, &s, other, counts) && s.first_seq >= from) {
        found = found || (s.first_seq == end && memcmp(other, id, 32) == 0);
        for (uint32_t k = 0; s.first_seq < end && k < s.count; k++)
            *counted += counts[k];
        if (s.first_seq <= end && !found)
            return false;
    }
    return found;
}

const char *peer_judge_header(const struct net_gossip *g, const struct net_rules *r, const uint8_t machine[32], const uint8_t id[32],
                              const struct net_segment *s, const uint8_t *frontier, size_t n_frontier)
{
    const size_t n = n_frontier / PEER_FRONTIER_ENTRY;
    uint64_t own = 0, missing = 0, step = 0;
    struct net_frontier_entry *e = entries_of(frontier, n, machine, &own);
    const uint64_t late = s->lag - s->count; /* valid: lag >= count */
    const char *why = NULL;
    if (e && counted_between(g, machine, id, own, s->first_seq, &missing) && late < missing)
        why = "its lag leaves out records of its own that its state lacks: it measured at a stale state and called it fresh";
    else if (e && !r->sync && net_gossip_way(g, NULL, 0, e, n, &step, NULL, NULL) == ERR_OK &&
             (s->step < step || s->step > step + (late > 0) + late / r->n0))
        why = "its step is not that of the state it measured at: the step decides how much its records change";
    free(e);
    return why;
}
