/* How much a link may send: its own small rate, a large one that all links share, and what happens beyond.
 *
 * Costs are in units: a frame is one, and one more for each KiB, because ZeroMQ has decrypted it before we can look at it.  So
 * beyond the rates we do not just drop: the kernel is told to take nothing more from that link (tcp_hold), which costs us nothing,
 * and the sender's TCP waits and sends again.  Delayed: nothing is lost by an honest burst.  What had been received already is still
 * taken, as a debt; beyond that debt it is dropped; and a link that always has to be held, or had too much dropped, is closed. */
#include "net/transport_private.h"

/* A bucket that holds two seconds of a rate; refilled for the time since *then_ms, if that bought anything. */
static void refill(int64_t *left, uint64_t *then_ms, uint64_t now_ms, int64_t per_s)
{
    const int64_t ms = (int64_t)(now_ms - *then_ms), most = 2 * per_s;
    const int64_t gain = ms >= 60000 ? 60 * per_s : ms * per_s / 1000;
    if (gain <= 0)
        return; /* too little time for one: it adds up */
    *left = *left + gain < most ? *left + gain : most;
    *then_ms = now_ms;
}

static void refill_all(struct net_transport *t, struct conn *c)
{
    refill(&t->units_left, &t->refilled_ms, t->now_ms, t->frames_per_s);
    refill(&c->units_left, &c->refilled_ms, t->now_ms, LIMIT_LINK_FRAMES_IN);
}

void rate_new(struct net_transport *t, struct conn *c)
{
    c->units_left = 2 * LIMIT_LINK_FRAMES_IN;
    c->refilled_ms = t->now_ms;
}

/* Until its debt is paid, and longer each time. */
static void hold(struct net_transport *t, struct conn *c)
{
    const uint64_t debt = (uint64_t)(c->units_left < 0 ? -c->units_left : 0);
    const uint64_t most = (uint64_t)t->hold_ms << LIMIT_HOLD_DOUBLINGS, to_pay = debt * 1000 / LIMIT_LINK_FRAMES_IN;
    const uint64_t penalty = c->holds < LIMIT_HOLD_DOUBLINGS ? (uint64_t)t->hold_ms << c->holds : most;
    const uint64_t ms = penalty > to_pay ? penalty : to_pay;
    c->held_until_ms = t->now_ms + (ms < most ? ms : most);
    c->holds++;
    t->count.rate_held++;
    tcp_narrow(c, true);
    tcp_hold(c, true);
}

static void too_much(struct net_transport *t, struct conn *c)
{
    t->count.rate_closed++;
    penalise(t, c->machine);
    conn_end(t, c, 0, "it sent more than a link may");
}

bool rate_takes(struct net_transport *t, struct conn *c, size_t n)
{
    const int64_t cost = 1 + (int64_t)(n / 1024);
    refill_all(t, c);
    c->cost = (uint32_t)cost;
    if (c->units_left >= cost) {
        c->units_left -= cost;
        return true;
    }
    if (c->holds < LIMIT_HOLDS_LOUD && t->units_left >= cost) {
        t->units_left -= cost;
        return true;
    }
    const bool takes = c->units_left > -LIMIT_LINK_DEBT;
    c->units_left -= takes ? cost : 0;
    if (!takes) {
        t->count.rate_dropped++;
        c->drops++;
    }
    if (c->drops >= LIMIT_LINK_DROPS || (c->held_until_ms == 0 && c->holds >= LIMIT_HOLDS)) {
        too_much(t, c);
        return false;
    }
    if (c->held_until_ms == 0)
        hold(t, c);
    return takes;
}

void rate_useful(struct conn *c)
{
    c->units_left += c->cost;
    c->cost = 0;
    c->drops -= c->drops > 0; /* one for one: a good frame now and then excuses no flood */
    if (c->narrow && c->held_until_ms == 0)
        tcp_narrow(c, false);
}

bool rate_shunned(const struct conn *c)
{
    return c->holds >= LIMIT_HOLDS_LOUD && c->heard_ms <= (c->held_until_ms ? UINT64_MAX : c->released_ms);
}

void rate_tick(struct net_transport *t, struct conn *c)
{
    if (c->held_until_ms == 0) {
        if (t->now_ms - c->released_ms >= LIMIT_CALM_MS)
            c->holds = c->drops = 0; /* forgiven */
        return;
    }
    c->heard_ms = t->now_ms; /* its silence is our doing */
    if (t->now_ms < c->held_until_ms)
        return;
    c->held_until_ms = 0;
    c->released_ms = t->now_ms;
    tcp_hold(c, false);
}
