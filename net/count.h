/* net/count.h -- what counts: SPEC 5, as a function of one feed's prefix alone.
 *
 * Integers only, 128 bits where a product needs them.  Errors  none.  Threads  any.  Memory  none. */
#ifndef NET_COUNT_H
#define NET_COUNT_H
#include <onebyte/net/rules.h>
#include <onebyte/net/segment.h>
#include <stdint.h>

__extension__ typedef unsigned __int128
    net_u128; /* the one typedef: C17 has no portable name for it */

#define NET_NO_CUT UINT64_MAX

/* W = floor(n0 2^32 / max(n0, lag)), in [1, 2^32]. */
uint64_t net_weight(uint64_t n0, uint32_t lag);
/* counts [s->count] <- 0 or 1; returns how many are 1.  before: the machine's counted weight before this segment. */
uint32_t net_count_segment(uint8_t *counts, const struct net_segment *s, const struct net_rules *r,
                           uint64_t before, uint64_t cut);
/* How many records with weight w still fit under the share cap of a segment that declares step. */
uint64_t net_count_room(const struct net_rules *r, uint32_t step, uint64_t w, uint64_t before);
/* floor(clock / (n0 2^32)), saturating. */
uint64_t net_clock_step(net_u128 clock, uint64_t n0);
#endif
