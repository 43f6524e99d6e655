#include "feed.h"
#include <onebyte/base/bytes.h>
#include <string.h>

static const uint8_t zeros[32];

static uint64_t wire_count(const uint8_t *wire)
{
    return bytes_get_le(wire + 2, 2);
}

size_t net_feed_wire_bytes(const struct net_feed *f, uint32_t i)
{
    return NET_SEGMENT_HEAD + (size_t)wire_count(net_feed_wire(f, i)) + NET_SIG_BYTES;
}

uint64_t net_feed_first(const struct net_feed *f, uint32_t i)
{
    return bytes_get_le(net_feed_wire(f, i) + 4, 8);
}

uint64_t net_feed_end_at(const struct net_feed *f, uint32_t n)
{
    ENSURE(n <= f->n);
    return n == 0 ? 0 : net_feed_first(f, n - 1) + wire_count(net_feed_wire(f, n - 1));
}

uint32_t net_feed_step_at(const struct net_feed *f, uint32_t n)
{
    ENSURE(n <= f->n);
    return n == 0 ? 0 : (uint32_t)bytes_get_le(net_feed_wire(f, n - 1) + 12, 4);
}

const uint8_t *net_feed_head_at(const struct net_feed *f, uint32_t n)
{
    ENSURE(n <= f->n);
    return n == 0 ? zeros : net_feed_id(f, n - 1);
}

/* How many segments have first_seq <= seq. */
static uint32_t starting_by(const struct net_feed *f, uint64_t seq)
{
    uint32_t lo = 0, hi = f->n;
    while (lo < hi) {
        const uint32_t mid = lo + (hi - lo) / 2;
        if (net_feed_first(f, mid) <= seq)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

uint32_t net_feed_prefix(const struct net_feed *f, uint64_t end)
{
    if (end == 0)
        return 0;
    const uint32_t n = starting_by(f, end - 1);
    return net_feed_end_at(f, n) == end ? n : NET_NOWHERE;
}

uint32_t net_feed_prefix_with(const struct net_feed *f, uint64_t end, const uint8_t head[32])
{
    const uint32_t n = net_feed_prefix(f, end);
    if (n == NET_NOWHERE || memcmp(net_feed_head_at(f, n), head, 32) != 0)
        return NET_NOWHERE;
    return n;
}

uint32_t net_feed_covering(const struct net_feed *f, uint64_t seq)
{
    return seq < net_feed_end(f) ? starting_by(f, seq) - 1 : NET_NOWHERE;
}

uint32_t net_feed_before_round(const struct net_feed *f, uint64_t round)
{
    if (round == NET_ALL)
        return f->n;
    uint32_t lo = 0, hi = f->n;
    while (lo < hi) {
        const uint32_t mid = lo + (hi - lo) / 2;
        if (net_feed_step_at(f, mid + 1) < round)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

uint32_t net_feed_get(const struct net_feed *f, uint32_t i, const struct net_rules *r, uint64_t cut,
                      struct net_segment *s, uint8_t counts[LIMIT_SEGMENT_COUNT])
{
    uint8_t scratch[LIMIT_SEGMENT_COUNT];
    ENSURE(i < f->n);
    ENSURE(net_segment_parse(s, net_feed_wire(f, i), net_feed_wire_bytes(f, i)) == ERR_OK);
    return net_count_segment(counts ? counts : scratch, s, r, f->segments[i].before, cut);
}

void net_feed_entry(const struct net_feed *f, struct net_frontier_entry *out)
{
    memcpy(out->machine, f->machine, 32);
    out->count = net_feed_end(f);
    memcpy(out->head, net_feed_head_at(f, f->n), 32);
    out->cut = f->cut;
}

enum err net_feed_reserve(struct net_feed *f)
{
    if (f->n < f->capacity)
        return ERR_OK;
    if (f->n >= (1u << 30))
        return ERR_NOMEM;
    const uint32_t capacity = f->n < 4 ? 4 : f->n + f->n / 2;
    struct net_feed_segment *s = realloc(f->segments, capacity * sizeof *s);
    if (!s)
        return ERR_NOMEM;
    f->segments = s;
    f->capacity = capacity;
    return ERR_OK;
}
