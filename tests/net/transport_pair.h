/* Transports in one thread: each test moves them forward in turn until what it waits for has happened. */
#ifndef TESTS_NET_TRANSPORT_PAIR_H
#define TESTS_NET_TRANSPORT_PAIR_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <onebyte/net/transport.h>
#include <string.h>
#include <time.h>

enum { WAIT_S = 60, PEERS_MAX = 8 }; /* generous: a noisy machine must not fail a test */

struct peer {
    struct net_transport *t;
    struct net_identity id;
    uint32_t link; /* the last that came up and is still up */
    unsigned ups, downs, frames, failures, twins, wakes;
    uint64_t bytes;
    bool outgoing, useful; /* useful: every frame is what it asked for */
    uint8_t machine[32];
    char address[128], listen[128], down[160], failed[160];
    uint8_t last[LIMIT_FRAME_BYTES];
    size_t last_n;
    bool ordered; /* frames carry their number in bytes 1..4 */
    uint32_t expected, misordered;
};

static const uint8_t test_run[32] = { 7, 7, 7 };

static inline double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline struct net_transport_options options_of(const struct peer *p, const char *listen)
{
    struct net_transport_options o = { .identity = &p->id, .listen = listen, .retry_ms = 50 };
    memcpy(o.run_id, test_run, 32);
    return o;
}

static inline void peer_start(struct peer *p, const struct net_transport_options *o)
{
    struct err_why why = { "" };
    if (net_transport_new(&p->t, o, &why) != ERR_OK)
        fail_msg("%s", why.text);
}

/* A new identity, listening on any port of 127.0.0.1 if asked to. */
static inline void peer_new(struct peer *p, bool listen)
{
    memset(p, 0, sizeof *p);
    assert_int_equal(net_identity_new(&p->id), ERR_OK);
    const struct net_transport_options o = options_of(p, listen ? "127.0.0.1:0" : NULL);
    peer_start(p, &o);
}

static inline void peer_end(struct peer *p)
{
    net_transport_free(p->t);
    p->t = NULL;
    net_identity_release(&p->id);
}

static inline void peer_dial(struct peer *p, const char *address)
{
    struct err_why why = { "" };
    if (net_transport_dial(p->t, address, &why) != ERR_OK)
        fail_msg("%s", why.text);
}

static inline void peer_event(struct peer *p, const struct net_event *e)
{
    switch (e->kind) {
    case NET_LINK_UP:
        p->ups++;
        p->link = e->link;
        p->outgoing = e->outgoing;
        memcpy(p->machine, e->machine, 32);
        memcpy(p->address, e->address, sizeof p->address);
        memcpy(p->listen, e->listen, sizeof p->listen);
        break;
    case NET_LINK_DOWN:
        p->downs++;
        if (e->link == p->link)
            p->link = 0;
        snprintf(p->down, sizeof p->down, "%s", e->reason);
        break;
    case NET_FRAME:
        p->frames++;
        p->bytes += e->n;
        memcpy(p->last, e->frame, e->n);
        p->last_n = e->n;
        if (p->ordered) {
            uint32_t number;
            memcpy(&number, e->frame + 1, 4);
            p->misordered += number != p->expected;
            p->expected = number + 1;
        }
        break;
    case NET_WAKE:
        p->wakes++;
        break;
    case NET_DIAL_FAILED:
        p->failures++;
        snprintf(p->failed, sizeof p->failed, "%s", e->reason);
        break;
    case NET_TWIN:
        p->twins++;
        break;
    }
}

/* One step of each peer that has a transport. */
static inline void pump(struct peer *const *peers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct net_event e;
        for (int k = 0; peers[i]->t && k < 200; k++) {
            if (net_transport_poll(peers[i]->t, &e, NULL, 0, k == 0 ? 2 : 0) != ERR_OK)
                break;
            peer_event(peers[i], &e);
            if (e.kind == NET_FRAME && peers[i]->useful)
                net_transport_useful(peers[i]->t, e.link);
        }
    }
}

#define PUMP_UNTIL(condition, ...)                                                                     \
    do {                                                                                               \
        struct peer *const pump_peers[] = { __VA_ARGS__ };                                             \
        const double pump_end = seconds() + WAIT_S;                                                    \
        bool pump_met = false; /* the condition may act: it is not asked again once it held */         \
        while (!(pump_met = (condition)) && seconds() < pump_end)                                      \
            pump(pump_peers, ARRAY_LEN(pump_peers));                                                   \
        if (!pump_met)                                                                                 \
            fail_msg("in %d s this did not come about: %s", WAIT_S, #condition);                       \
    } while (0)

/* Lets time pass: for what must not happen. */
#define PUMP_FOR(wait_s, ...)                                                                          \
    do {                                                                                               \
        struct peer *const pump_peers[] = { __VA_ARGS__ };                                             \
        const double pump_end = seconds() + (wait_s);                                                  \
        while (seconds() < pump_end)                                                                   \
            pump(pump_peers, ARRAY_LEN(pump_peers));                                                   \
    } while (0)

static inline struct net_transport_counters counters(const struct peer *p)
{
    struct net_transport_counters c;
    net_transport_count(p->t, &c);
    return c;
}

static inline unsigned links(const struct peer *p)
{
    struct net_link_view v;
    unsigned n = 0;
    while (net_transport_link(p->t, n, &v))
        n++;
    return n;
}

/* a listens, b dials it; both have the link when it returns. */
static inline void pair_up(struct peer *a, struct peer *b)
{
    peer_new(a, true);
    peer_new(b, false);
    peer_dial(b, net_transport_listening(a->t));
    PUMP_UNTIL(a->link && b->link, a, b);
}
#endif
