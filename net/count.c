#include "count.h"
#include <onebyte/base/err.h>

uint64_t net_weight(uint64_t n0, uint32_t lag)
{
    ENSURE(n0 > 0);
    return (uint64_t)(((net_u128)n0 << 32) / (n0 > lag ? n0 : lag));
}

uint64_t net_count_room(const struct net_rules *r, uint32_t step, uint64_t w, uint64_t before)
{
    /* A step declared beyond the last one buys nothing: without this, one machine of any share could fill the clock and end the run.
     * Honest segments have step < steps. */
    const uint64_t at = step < r->steps ? step : r->steps;
    /* floor(share_65536 n0 (step + burst) 2^32 / 65536) = share_65536 n0 (step + burst) 65536: no rounding.  A product beyond
     * 128 bits is beyond every possible weight (records_max 2^63 times 2^32), so saturation is exact. */
    net_u128 cap = (net_u128)at + r->burst;
    ENSURE(w > 0);
    if (__builtin_mul_overflow(cap, (net_u128)r->share_65536, &cap) ||
        __builtin_mul_overflow(cap, (net_u128)r->n0, &cap) ||
        __builtin_mul_overflow(cap, (net_u128)65536, &cap))
        return UINT64_MAX;
    if (cap < before)
        return 0;
    const net_u128 room = (cap - before) / w;
    return room > UINT64_MAX ? UINT64_MAX : (uint64_t)room;
}

uint32_t net_count_segment(uint8_t *counts, const struct net_segment *s, const struct net_rules *r,
                           uint64_t before, uint64_t cut)
{
    /* All records of a segment weigh the same, so "counts iff C + w <= cap" is "the first `room` of them". */
    const uint64_t room = net_count_room(r, s->step, net_weight(r->n0, s->lag), before);
    uint32_t counted = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const bool yes = s->codes[i] != -128 && s->first_seq + i < cut && counted < room;
        counts[i] = yes;
        counted += yes;
    }
    return counted;
}

uint64_t net_clock_step(net_u128 clock, uint64_t n0)
{
    const net_u128 step = clock / ((net_u128)n0 << 32);
    return step > UINT64_MAX ? UINT64_MAX : (uint64_t)step;
}
