/* net/feed.h -- one machine's holding: (chain, cut) of DESIGN 4, with the weight counted before each segment.
 *
 * Invariants  the chain is verified from seq 0; every segment has first_seq < cut; cut never rises.
 * Memory      16 bytes a segment here, plus its bytes: id [32] and wire, as one block (shared through net_intern in a simulator). */
#ifndef NET_FEED_H
#define NET_FEED_H
#include "count.h"
#include <onebyte/net/gossip.h>

struct net_feed_segment {
    const uint8_t *bytes; /* id [32], wire */
    uint64_t before;      /* counted weight of the records before it */
};

struct net_feed {
    uint8_t machine[32];
    uint64_t cut;
    struct net_feed_segment *segments; /* [n] */
    uint32_t n, capacity;
    uint32_t epoch;    /* rises with each truncation: indices remembered elsewhere are then void */
    uint32_t source;   /* link that brought the newest segment, NET_NOWHERE: none */
    uint64_t weight;   /* counted weight of the whole chain */
    uint8_t *evidence; /* [evidence_bytes] control frame that made the cut, or NULL */
    uint32_t evidence_bytes;
    uint64_t room, room_ns; /* records its author may still send now; when that was reckoned, 0: never (rate.c) */
};

#define NET_NOWHERE UINT32_MAX

static inline const uint8_t *net_feed_id(const struct net_feed *f, uint32_t i)
{
    return f->segments[i].bytes;
}
static inline const uint8_t *net_feed_wire(const struct net_feed *f, uint32_t i)
{
    return f->segments[i].bytes + 32;
}
size_t net_feed_wire_bytes(const struct net_feed *f, uint32_t i);
uint64_t net_feed_first(const struct net_feed *f, uint32_t i);
uint64_t net_feed_end_at(const struct net_feed *f, uint32_t n); /* end of the first n segments */
uint32_t net_feed_step_at(const struct net_feed *f,
                          uint32_t n); /* step of segment n - 1; 0 for n = 0 */
const uint8_t *net_feed_head_at(const struct net_feed *f, uint32_t n); /* its id; zeros for n = 0 */
static inline uint64_t net_feed_end(const struct net_feed *f)
{
    return net_feed_end_at(f, f->n);
}
/* The n for which the first n segments end at `end`; NET_NOWHERE: no such. */
uint32_t net_feed_prefix(const struct net_feed *f, uint64_t end);
/* The same, and the last of them has this id. */
uint32_t net_feed_prefix_with(const struct net_feed *f, uint64_t end, const uint8_t head[32]);
/* Index of the segment that covers seq; NET_NOWHERE. */
uint32_t net_feed_covering(const struct net_feed *f, uint64_t seq);
/* First n segments with step < round (sync; steps never fall within a feed); NET_ALL: all. */
uint32_t net_feed_before_round(const struct net_feed *f, uint64_t round);
/* s <- segment i; counts (may be NULL) <- its mask under `cut`; returns how many count. */
uint32_t net_feed_get(const struct net_feed *f, uint32_t i, const struct net_rules *r, uint64_t cut,
                      struct net_segment *s, uint8_t counts[LIMIT_SEGMENT_COUNT]);
void net_feed_entry(const struct net_feed *f, struct net_frontier_entry *out);
/* Room for one more segment; ERR_NOMEM. */
NODISCARD enum err net_feed_reserve(struct net_feed *f);
#endif
