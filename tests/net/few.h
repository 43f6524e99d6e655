/* tests/net/few.h -- a few gossip machines joined by perfect links, for tests that look inside.  Many and faults: tests/sim. */
#ifndef TESTS_NET_FEW_H
#define TESTS_NET_FEW_H
#include <onebyte/base/bytes.h>
#include <onebyte/net/control.h>
#include <onebyte/net/gossip.h>
#include <sodium.h>
#include <string.h>

#define FEW_S UINT64_C(1000000000)
enum { FEW_MAX = 8 };

struct few_frame {
    struct few_frame *next;
    uint32_t to, link;
    size_t n;
    uint8_t data[];
};
struct few {
    struct net_gossip *g[FEW_MAX];
    uint8_t id[FEW_MAX][32];
    uint64_t state[FEW_MAX]; /* sum of hashes of the records that count */
    uint32_t stores[FEW_MAX], drops[FEW_MAX], behind[FEW_MAX], controls[FEW_MAX], learned[FEW_MAX], truncates[FEW_MAX];
    const char *drop_reason[FEW_MAX];
    uint32_t n;
    uint64_t now, frames, bytes;
    struct few_frame *first, **last;
    bool lose; /* nothing arrives */
    void (*also)(struct few *f, uint32_t i, const struct net_action *a); /* sees every action; NULL: none */
};
struct few_key {
    uint8_t id[32], sk[64];
};

static inline struct few_key few_key(uint8_t n)
{
    struct few_key k;
    uint8_t seed[32] = {n, 77};
    ENSURE(crypto_sign_seed_keypair(k.id, k.sk, seed) == 0);
    return k;
}

static inline struct net_identity few_identity(struct few_key *k)
{
    struct net_identity i = {.sk = k->sk};
    memcpy(i.id, k->id, 32);
    return i;
}

static inline struct net_rules few_rules(struct few_key *owner)
{
    struct net_rules r = {.n0 = 16,
                          .steps = 1000,
                          .share_65536 = 65536,
                          .burst = 1u << 20,
                          .records_max = 1u << 20,
                          .k = 1};
    memset(r.run_id, 0x42, 32);
    memcpy(r.owner, owner->id, 32);
    return r;
}

/* s <- signed successor of (prev, end); codes from salt; returns its wire bytes, id <- its id. */
static inline size_t few_segment(uint8_t wire[NET_SEGMENT_BYTES_MAX], uint8_t id[32],
                                 const struct net_rules *r, struct few_key *k,
                                 const uint8_t prev[32], uint64_t end, uint16_t count,
                                 uint32_t step, uint64_t salt)
{
    struct net_segment s = {.first_seq = end, .count = count, .step = step, .lag = count};
    const struct net_identity i = few_identity(k);
    memcpy(s.prev, prev, 8);
    for (uint32_t c = 0; c < count; c++)
        s.codes[c] = (int8_t)(salt * 2654435761u >> 8 % 24 ^ c * 31);
    bytes_put_le(s.binding, salt, 8);
    net_segment_sign(&s, r, &i, prev);
    net_segment_id(id, &s, r->run_id, k->id, prev);
    return net_segment_write(wire, &s);
}

static inline uint64_t few_hash(const uint8_t machine[32], uint64_t seq, int code, uint32_t lag)
{
    uint64_t z = bytes_get_le(machine, 8) ^ seq * UINT64_C(0x9E3779B97F4A7C15) ^
                 (uint64_t)(uint8_t)code << 56 ^ (uint64_t)lag << 40;
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static inline uint64_t few_sum(const uint8_t machine[32], const struct net_segment *s,
                               const uint8_t *counts)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->count; i++)
        if (counts[i])
            sum += few_hash(machine, s->first_seq + i, s->codes[i], s->lag);
    return sum;
}

/* The state recomputed from what machine i says it holds. */
static inline uint64_t few_state_again(const struct few *f, uint32_t i)
{
    struct net_feed_view v;
    uint64_t sum = 0;
    for (size_t k = 0; net_gossip_feed_at(f->g[i], k, &v); k++)
        for (size_t j = 0; j < v.segments; j++) {
            struct net_segment s;
            uint8_t id[32], counts[LIMIT_SEGMENT_COUNT];
            ENSURE(net_gossip_segment(f->g[i], v.entry.machine, j, &s, id, counts));
            sum += few_sum(v.entry.machine, &s, counts);
        }
    return sum;
}

static inline void few_actions(struct few *f, uint32_t i)
{
    struct net_action a;
    while (net_gossip_action(f->g[i], &a)) {
        if (a.kind == NET_SEND) {
            const uint32_t lo = a.link / FEW_MAX, hi = a.link % FEW_MAX;
            f->frames++;
            f->bytes += a.frame_bytes;
            if (f->lose)
                continue;
            struct few_frame *e = malloc(sizeof *e + a.frame_bytes);
            ENSURE(e != NULL);
            *e = (struct few_frame){.to = lo == i ? hi : lo, .link = a.link, .n = a.frame_bytes};
            memcpy(e->data, a.frame, a.frame_bytes);
            *f->last = e;
            f->last = &e->next;
        }
        if (f->also)
            f->also(f, i, &a);
        f->stores[i] += a.kind == NET_STORE;
        f->drops[i] += a.kind == NET_DROP;
        f->drop_reason[i] = a.kind == NET_DROP ? a.reason : f->drop_reason[i];
        f->behind[i] += a.kind == NET_OWN_BEHIND;
        f->controls[i] += a.kind == NET_CONTROL;
        f->learned[i] += a.kind == NET_LEARNED;
        f->truncates[i] += a.kind == NET_TRUNCATE;
        if (a.kind == NET_FOLD)
            f->state[i] += few_sum(a.machine, a.segment, a.counts);
        if (a.kind == NET_UNFOLD)
            f->state[i] -= few_sum(a.machine, a.segment, a.counts);
    }
}

static inline void few_init(struct few *f)
{
    *f = (struct few){.now = FEW_S};
    f->last = &f->first;
}

/* A net_intern that takes every signature for good: for tests of numbers, where tens of thousands of them would take seconds. */
static inline const uint8_t *few_believe(void *ctx, const uint8_t id[32], const uint8_t *wire, size_t n)
{
    (void)ctx;
    uint8_t *bytes = malloc(32 + n);
    ENSURE(bytes != NULL);
    memcpy(bytes, id, 32);
    memcpy(bytes + 32, wire, n);
    return bytes;
}

static inline void few_forget(void *ctx, const uint8_t *bytes)
{
    (void)ctx;
    free((void *)(uintptr_t)bytes);
}

/* machine 0, 1, .. with self key number 200 + i */
static inline void few_add(struct few *f, const struct net_rules *r, const uint8_t self[32])
{
    ENSURE(f->n < FEW_MAX);
    memcpy(f->id[f->n], self, 32);
    ENSURE(net_gossip_new(&f->g[f->n], r, self, f->n + 1) == ERR_OK);
    f->n++;
}

static inline void few_link(struct few *f, uint32_t a, uint32_t b)
{
    const uint32_t link = a * FEW_MAX + b;
    ENSURE(a < b);
    ENSURE(net_gossip_link_up(f->g[a], link, f->id[b], true, f->now) == ERR_OK);
    ENSURE(net_gossip_link_up(f->g[b], link, f->id[a], false, f->now) == ERR_OK);
    few_actions(f, a);
    few_actions(f, b);
}

static inline void few_unlink(struct few *f, uint32_t a, uint32_t b)
{
    net_gossip_link_down(f->g[a], a * FEW_MAX + b, f->now);
    net_gossip_link_down(f->g[b], a * FEW_MAX + b, f->now);
    few_actions(f, a);
    few_actions(f, b);
}

static inline void few_deliver(struct few *f)
{
    for (uint32_t most = 100000; f->first && most > 0; most--) {
        struct few_frame *e = f->first;
        f->first = e->next;
        if (!f->first)
            f->last = &f->first;
        net_gossip_frame(f->g[e->to], e->link, e->data, e->n, f->now);
        few_actions(f, e->to);
        free(e);
    }
    ENSURE(f->first == NULL); /* no conversation without end */
}

static inline void few_run(struct few *f, uint32_t seconds)
{
    few_deliver(f);
    for (uint32_t s = 0; s < seconds; s++) {
        f->now += FEW_S;
        for (uint32_t i = 0; i < f->n; i++) {
            if (f->now >= net_gossip_next_tick(f->g[i]))
                net_gossip_tick(f->g[i], f->now);
            few_actions(f, i);
        }
        few_deliver(f);
    }
}

static inline bool few_agree(const struct few *f, uint32_t a, uint32_t b)
{
    uint8_t x[32], y[32];
    net_gossip_frontier_digest(f->g[a], NET_ALL, x);
    net_gossip_frontier_digest(f->g[b], NET_ALL, y);
    return memcmp(x, y, 32) == 0 && f->state[a] == f->state[b];
}

static inline void few_release(struct few *f)
{
    while (f->first) {
        struct few_frame *e = f->first;
        f->first = e->next;
        free(e);
    }
    for (uint32_t i = 0; i < f->n; i++)
        net_gossip_free(f->g[i]);
}
#endif
