/* Rates beyond which an author waits, and a link that asks is closed.  What comes too fast is delayed, then dropped, then the link is
 * closed (gossip's LIMIT_LINK_RATE, then LIMIT_OVER here; the transport's frames a second).  All of it is local: a record counts or
 * not by what is signed alone, and what waited here is pulled later. */
#include "core.h"

/* Two buckets in one: a minute's worth, refilled as time goes, and for feeds met in our first minutes whatever a feed can hold: who
 * was away has to catch up. */
static void refill(const struct net_gossip *g, struct net_feed *f)
{
    const uint64_t minute = 60 * NET_S;
    if (f->room_ns == 0) {
        const bool catching_up = g->now_ns < g->start_ns + LIMIT_CATCH_UP_S * NET_S;
        f->room = catching_up && g->rules.records_max > LIMIT_AUTHOR_RECORDS ? g->rules.records_max
                                                                             : LIMIT_AUTHOR_RECORDS;
        f->room_ns = g->now_ns ? g->now_ns : 1;
        return;
    }
    const uint64_t ms = (g->now_ns - f->room_ns) / 1000000;
    if (ms == 0)
        return;
    f->room_ns += ms * 1000000;
    const uint64_t gain = ms * 1000000 >= minute ? LIMIT_AUTHOR_RECORDS : ms * LIMIT_AUTHOR_RECORDS / 60000;
    if (f->room < LIMIT_AUTHOR_RECORDS)
        f->room = f->room + gain < LIMIT_AUTHOR_RECORDS ? f->room + gain : LIMIT_AUTHOR_RECORDS;
}

static uint32_t price(uint32_t records)
{
    return records > LIMIT_SEGMENT_PRICE ? records : LIMIT_SEGMENT_PRICE;
}

bool net_author_waits(const struct net_gossip *g, struct net_feed *f, uint32_t n)
{
    if (!f || memcmp(f->machine, g->self, 32) == 0) /* our own feed: DESIGN 5 gives us five seconds to find its end */
        return false;
    refill(g, f);
    return f->room < price(n);
}

void net_author_sent(const struct net_gossip *g, struct net_feed *f, uint32_t n)
{
    refill(g, f);
    f->room -= price(n) < f->room ? price(n) : f->room;
}

/* Void records, or more than the machine's share: to check, to store and to pass on such a segment costs what another costs, and it
 * brings nothing.  Honest ones are rare, so all machines together may have few. */
bool net_idle_waits(struct net_gossip *g, const struct net_feed *f, const struct net_segment *s)
{
    uint8_t counts[LIMIT_SEGMENT_COUNT];
    if (net_count_segment(counts, s, &g->rules, f ? f->weight : 0, f ? f->cut : NET_NO_CUT) > 0)
        return false;
    const uint64_t ms = (g->now_ns - g->idle_ns) / 1000000, most = 2 * LIMIT_IDLE_SEGMENTS;
    const uint64_t gain = ms > 2000 ? most : ms * LIMIT_IDLE_SEGMENTS / 1000;
    if (gain > 0) {
        g->idle = g->idle + gain < most ? g->idle + gain : most;
        g->idle_ns = g->now_ns;
    }
    if (g->idle == 0) {
        g->idle_until_ns = g->now_ns + NET_S;
        return true;
    }
    g->idle--;
    return false;
}

void net_asked_too_much(struct net_gossip *g, struct net_link *l)
{
    const uint64_t forgiven = (g->now_ns - l->over_ns) / (NET_S / LIMIT_OVER_PER_S);
    if (forgiven > 0) {
        l->over = forgiven < l->over ? l->over - (uint32_t)forgiven : 0;
        l->over_ns = g->now_ns;
    }
    if (++l->over < LIMIT_OVER)
        return;
    g->count.quota_closed++;
    net_drop(g, l, "it asked more than a link may", true);
}
