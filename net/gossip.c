#include <onebyte/net/gossip.h>
#include "core.h"
#include "scores.h"
#include "wire.h"

enum { SUMMARY_S = 4, EQUAL_S = 30, ADDRESSES_S = 5 };

/* splitmix64: choices of neighbours only, nothing that anybody must not guess. */
uint64_t net_random(struct net_gossip *g)
{
    uint64_t z = g->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* ---- segments are the machine's own memory unless a simulator shares them ---- */

static const uint8_t *own_find(void *ctx, const uint8_t id[32], const uint8_t *wire, size_t n)
{
    (void)ctx, (void)id, (void)wire, (void)n;
    return NULL;
}

static const uint8_t *own_add(void *ctx, const uint8_t id[32], const uint8_t *wire, size_t n)
{
    (void)ctx;
    uint8_t *bytes = malloc(32 + n);
    if (bytes) {
        memcpy(bytes, id, 32);
        memcpy(bytes + 32, wire, n);
    }
    return bytes;
}

static void own_drop(void *ctx, const uint8_t *bytes)
{
    (void)ctx;
    free((void *)(uintptr_t)bytes); /* ours: only lent out as const */
}

const struct net_intern net_intern_own = {NULL, own_find, own_add, own_drop};

enum err net_gossip_new(struct net_gossip **out, const struct net_rules *rules,
                        const uint8_t self[32], uint64_t seed)
{
    if (rules->n0 == 0 || rules->k == 0 || rules->share_65536 == 0)
        return ERR_RANGE;
    struct net_gossip *g = calloc(1, sizeof *g);
    if (!g)
        return ERR_NOMEM;
    g->rules = *rules;
    memcpy(g->self, self, 32);
    g->random = seed;
    g->intern = net_intern_own;
    if (net_scores_new(&g->scores) != ERR_OK) {
        free(g);
        return ERR_NOMEM;
    }
    *out = g;
    return ERR_OK;
}

static void link_free(struct net_link *l)
{
    free(l->cursor);
    free(l->names);
    free(l);
}

void net_gossip_free(struct net_gossip *g)
{
    if (!g)
        return;
    for (uint32_t i = 0; i < g->n_links; i++)
        link_free(g->links[i]);
    net_table_release(g);
    net_queue_release(&g->queue);
    net_scores_free(g->scores);
    free(g->admitted);
    free(g->admissions);
    free(g->addresses);
    free(g);
}

void net_gossip_set_intern(struct net_gossip *g, const struct net_intern *intern)
{
    ENSURE(g->n_feeds == 0 && g->scores->n == 0);
    g->intern = g->scores->intern = *intern;
}

/* ---- addresses ---- */

static bool address_plain(const char *p, size_t n)
{
    bool colon = false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] <= ' ' || p[i] > '~')
            return false;
        colon = colon || p[i] == ':';
    }
    return n > 0 && n <= LIMIT_ADDRESS_BYTES && colon;
}

void net_gossip_listening(struct net_gossip *g, const char *address)
{
    g->listening[0] = '\0';
    if (address && address_plain(address, strlen(address)))
        memcpy(g->listening, address, strlen(address) + 1);
}

void net_gossip_address(struct net_gossip *g, const char *address)
{
    const size_t n = strlen(address);
    if (!address_plain(address, n))
        return;
    if (!g->addresses)
        g->addresses = calloc(LIMIT_ADDRESSES, sizeof *g->addresses);
    if (!g->addresses)
        return;
    for (uint32_t i = 0; i < g->n_addresses; i++)
        if (strcmp(g->addresses[i], address) == 0)
            return;
    const uint32_t i = g->n_addresses < LIMIT_ADDRESSES
                           ? g->n_addresses++
                           : (uint32_t)(net_random(g) % LIMIT_ADDRESSES);
    memcpy(g->addresses[i], address, n + 1);
}

/* The bytes of s without its NUL; returns how many. */
static size_t put_text(uint8_t *out, const char *s)
{
    size_t n = 0;
    for (; s[n]; n++)
        out[n] = (uint8_t)s[n];
    return n;
}

static void send_addresses(struct net_gossip *g, const struct net_link *l)
{
    uint8_t frame[1 + LIMIT_ADDRESSES_TOLD * (1 + LIMIT_ADDRESS_BYTES)] = {WIRE_ADDRESSES};
    size_t at = 1;
    if (g->n_addresses == 0)
        return;
    const uint32_t n =
        g->n_addresses < LIMIT_ADDRESSES_TOLD ? g->n_addresses : LIMIT_ADDRESSES_TOLD;
    const uint32_t start = (uint32_t)(net_random(g) % g->n_addresses);
    for (uint32_t k = 0; k < n; k++) {
        const char *a = g->addresses[(start + k) % g->n_addresses];
        const size_t bytes = put_text(frame + at + 1, a);
        frame[at] = (uint8_t)bytes;
        at += 1 + bytes;
    }
    net_send(g, l, frame, at);
}

static void learned(struct net_gossip *g, const struct net_link *l, const uint8_t *p, size_t n,
                    bool own)
{
    struct net_queued a = {.kind = NET_LEARNED, .link = l->id, .seq = own, .bytes = n};
    if (!address_plain((const char *)p, n))
        return;
    memcpy(a.machine, l->machine, 32);
    a.at = net_queue_bytes(&g->queue, p, n);
    net_queue_push(&g->queue, &a);
}

static bool on_addresses(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    uint32_t told = 0;
    for (size_t at = 0; at < n; at += 1 + (size_t)p[at]) /* whole before anything is believed */
        if (p[at] > LIMIT_ADDRESS_BYTES || p[at] >= n - at || ++told > LIMIT_ADDRESSES_TOLD)
            return false;
    if (l->addresses_ns != 0 && g->now_ns < l->addresses_ns + ADDRESSES_S * NET_S) {
        g->count.quota_dropped++;
        return true;
    }
    l->addresses_ns = g->now_ns;
    for (size_t at = 0; at < n; at += 1 + (size_t)p[at])
        learned(g, l, p + at + 1, p[at], false);
    return true;
}

static bool on_hello(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n < 1 || n > 1 + LIMIT_ADDRESS_BYTES)
        return false;
    if (p[0] != WIRE_VERSION)
        net_drop(g, l, "other protocol version", false);
    else if (n > 1)
        learned(g, l, p + 1, n - 1, true);
    return true;
}

/* ---- links ---- */

void net_drop(struct net_gossip *g, struct net_link *l, const char *reason, bool blame)
{
    if (l->dead)
        return;
    l->dead = true;
    struct net_queued a = {.kind = NET_DROP, .link = l->id, .reason = reason, .blame = blame};
    memcpy(a.machine, l->machine, 32);
    net_queue_push(&g->queue, &a);
}

static void send_want(struct net_gossip *g, const struct net_link *l, const uint8_t machine[32])
{
    uint8_t frame[33] = {WIRE_WANT};
    memcpy(frame + 1, machine, 32);
    net_send(g, l, frame, sizeof frame);
}

enum err net_gossip_link_up(struct net_gossip *g, uint32_t link, const uint8_t machine[32],
                            bool outgoing, uint64_t now_ns)
{
    g->now_ns = now_ns > g->now_ns ? now_ns : g->now_ns;
    if (g->start_ns == 0) {
        g->start_ns = g->tokens_ns = g->idle_ns = g->now_ns;
        g->tokens = 2 * (uint64_t)LIMIT_ANSWER_RATE;
        g->idle = 2 * LIMIT_IDLE_SEGMENTS;
    }
    if (net_link_by_id(g, link) || memcmp(machine, g->self, 32) == 0)
        return ERR_RANGE;
    if (g->n_links == LIMIT_LINKS)
        return ERR_BUSY;
    struct net_link *l = calloc(1, sizeof *l);
    if (!l)
        return ERR_NOMEM;
    l->id = link;
    l->outgoing = outgoing;
    memcpy(l->machine, machine, 32);
    l->tokens = 2 * (uint64_t)LIMIT_LINK_RATE;
    l->tokens_ns = g->now_ns;
    g->links[g->n_links++] = l;
    net_link_begin(g, l);
    uint8_t hello[2 + LIMIT_ADDRESS_BYTES] = {WIRE_HELLO, WIRE_VERSION};
    const size_t n = put_text(hello + 2, g->listening);
    net_send(g, l, hello, 2 + n);
    send_want(g, l, g->self); /* the network may hold more of our feed than we do: DESIGN 5 */
    send_addresses(g, l);
    if (outgoing)
        net_send_summary(g, l);
    return ERR_OK;
}

static void forget(struct net_gossip *g, uint32_t i)
{
    struct net_link *l = g->links[i];
    g->links[i] = g->links[--g->n_links];
    const uint32_t id = l->id;
    net_repair_forget(g, l);
    link_free(l);
    net_regraft(g, id);
    const uint64_t soon = g->now_ns + net_random(g) % (NET_S / 2);
    g->summary_ns = g->summary_ns < soon ? g->summary_ns : soon;
}

void net_gossip_link_down(struct net_gossip *g, uint32_t link, uint64_t now_ns)
{
    g->now_ns = now_ns > g->now_ns ? now_ns : g->now_ns;
    for (uint32_t i = 0; i < g->n_links; i++)
        if (g->links[i]->id == link) {
            forget(g, i);
            return;
        }
}

/* false: not a frame of this protocol. */
static bool dispatch(struct net_gossip *g, struct net_link *l, uint8_t type, const uint8_t *p,
                     size_t n)
{
    switch (type) {
    case WIRE_HELLO:
        return on_hello(g, l, p, n);
    case WIRE_SUMMARY:
        return net_on_summary(g, l, p, n);
    case WIRE_AGREE:
        return net_on_agree(g, l, p, n);
    case WIRE_NODES:
        return net_on_nodes(g, l, p, n);
    case WIRE_ENTRIES:
        return net_on_entries(g, l, p, n);
    case WIRE_WANT:
        return net_on_want(g, l, p, n);
    case WIRE_HAVE:
        return net_on_have(g, l, p, n);
    case WIRE_SEGMENT:
        return net_on_segment(g, l, p, n, true);
    case WIRE_SEGMENT_OF:
        return net_on_segment(g, l, p, n, false);
    case WIRE_UNNAMED:
        return net_on_unnamed(g, l, p, n);
    case WIRE_PULL:
        return net_on_pull(g, l, p, n);
    case WIRE_LATER:
        return net_on_later(g, l, p, n);
    case WIRE_DONE:
    case WIRE_NOHEAD:
        return net_on_done(g, l, p, n, type == WIRE_NOHEAD);
    case WIRE_ASK:
        return net_on_ask(g, l, p, n);
    case WIRE_TELL:
        return net_on_tell(g, l, p, n);
    case WIRE_CONTROL:
        return net_on_control(g, l, p, n);
    case WIRE_PRUNE:
        return net_on_prune(g, l, p, n);
    case WIRE_GRAFT:
        return net_on_graft(g, l, p, n);
    case WIRE_AUDIT_ASK:
        return net_on_audit_ask(g, l, p - 1, n + 1);
    case WIRE_AUDIT_TELL:
        return net_on_audit_tell(g, l, p - 1, n + 1);
    case WIRE_ADDRESSES:
        return on_addresses(g, l, p, n);
    case WIRE_SCORE:
        return net_on_score(g, l, p, n);
    case WIRE_SCORED:
        return net_on_scored(g, l, p, n);
    case WIRE_SCORES:
        return net_on_scores(g, l, p, n);
    default:
        return type != 0 && type < WIRE_DAEMON; /* a later version's: not for us, no fault */
    }
}

void net_gossip_frame(struct net_gossip *g, uint32_t link, const uint8_t *frame, size_t n,
                      uint64_t now_ns)
{
    struct net_link *l = net_link_by_id(g, link);
    g->now_ns = now_ns > g->now_ns ? now_ns : g->now_ns; /* a clock that jumps back stands still */
    if (!l)
        return;
    g->count.frames_in++;
    g->count.bytes_in += n;
    const uint64_t dropped = g->count.quota_dropped;
    if (n == 0 || n > LIMIT_FRAME_BYTES || !dispatch(g, l, frame[0], frame + 1, n - 1)) {
        g->count.frames_malformed++;
        if (++l->faults >= LIMIT_FAULTS)
            net_drop(g, l, "malformed frames", true);
    } else if (g->count.quota_dropped > dropped && frame[0] != WIRE_SEGMENT && frame[0] != WIRE_SEGMENT_OF) {
        net_asked_too_much(g, l); /* segments are the network's haste, not the neighbour's */
    }
    for (uint32_t i = 0; i < g->n_links; i++)
        if (g->links[i]->dead) {
            forget(g, i);
            break; /* an event can only drop the link it came by */
        }
}

static bool agrees(const struct net_gossip *g, const struct net_link *l)
{
    return l->equal && memcmp(l->root, g->tree.root, NET_TREE_BYTES) == 0;
}

void net_gossip_tick(struct net_gossip *g, uint64_t now_ns)
{
    g->now_ns = now_ns > g->now_ns ? now_ns : g->now_ns;
    net_repair_tick(g);
    if (g->now_ns < g->summary_ns)
        return;
    g->summary_ns = g->now_ns + SUMMARY_S * NET_S + net_random(g) % (NET_S * SUMMARY_S / 2);
    if (g->n_links == 0)
        return;
    net_tree_refresh(g);
    const uint32_t start = (uint32_t)(net_random(g) % g->n_links);
    for (uint32_t k = 0; k < g->n_links; k++) {
        struct net_link *l = g->links[(start + k) % g->n_links];
        if (agrees(g, l) && g->now_ns < l->compared_ns + EQUAL_S * NET_S)
            continue;
        net_send_summary(g, l);
        if (net_random(g) % 8 == 0)
            send_addresses(g, l);
        return;
    }
}

uint64_t net_gossip_next_tick(const struct net_gossip *g)
{
    const uint64_t repair = net_repair_next(g);
    return repair < g->summary_ns ? repair : g->summary_ns;
}

/* ---- what comes from our own side ---- */

enum err net_gossip_load(struct net_gossip *g, const uint8_t machine[32], const uint8_t *wire,
                         size_t n)
{
    struct net_segment s;
    TRY(net_segment_parse(&s, wire, n));
    switch (net_hold_segment(g, machine, &s, wire, n, false)) {
    case NET_TAKEN:
    case NET_DUPLICATE:
        return ERR_OK;
    case NET_NO_ROOM:
        return ERR_NOMEM;
    case NET_LATE:
        return ERR_RANGE;
    default:
        return ERR_PROTO;
    }
}

enum err net_gossip_load_control(struct net_gossip *g, const uint8_t *frame, size_t n)
{
    return net_hold_control(g, frame, n, false, NULL);
}

enum err net_gossip_own(struct net_gossip *g, const uint8_t *wire, size_t n, uint64_t now_ns)
{
    struct net_segment s;
    uint32_t name;
    g->now_ns = now_ns > g->now_ns ? now_ns : g->now_ns;
    TRY(net_segment_parse(&s, wire, n));
    const struct net_feed *f = net_table_find(g, g->self, NULL);
    if (s.first_seq != (f ? net_feed_end(f) : 0)) /* never make a fork proof against ourselves */
        return ERR_PROTO;
    switch (net_hold_segment(g, g->self, &s, wire, n, true)) {
    case NET_TAKEN:
        break;
    case NET_NO_ROOM:
        return ERR_NOMEM;
    default:
        return ERR_PROTO;
    }
    ENSURE(net_table_find(g, g->self, &name) != NULL);
    net_push_new(g, name, NULL);
    return g->queue.lost ? ERR_NOMEM : ERR_OK;
}

enum err net_gossip_control(struct net_gossip *g, const uint8_t *frame, size_t n, uint64_t now_ns)
{
    g->now_ns = now_ns > g->now_ns ? now_ns : g->now_ns;
    return net_hold_control(g, frame, n, true, NULL);
}

bool net_gossip_action(struct net_gossip *g, struct net_action *a)
{
    return net_queue_take(g, a);
}

void net_gossip_drain(struct net_gossip *g, uint64_t now_ns)
{
    g->now_ns = now_ns > g->now_ns ? now_ns : g->now_ns;
    for (uint32_t i = 0; i < g->n_links; i++) {
        send_want(g, g->links[i], g->self);
        send_want(g, g->links[i], g->links[i]->machine);
    }
}

/* What the neighbour last said it holds of machine is what we hold. */
static bool same_as_held(const struct net_gossip *g, const uint8_t machine[32], bool told,
                         const struct net_frontier_entry *said)
{
    struct net_frontier_entry held = {.cut = NET_NO_CUT};
    memcpy(held.machine, machine, 32);
    (void)net_gossip_feed(g, machine, &held);
    return told && net_entry_same(&held, said);
}

bool net_gossip_settled(const struct net_gossip *g)
{
    for (uint32_t i = 0; i < g->n_links; i++) {
        const struct net_link *l = g->links[i];
        if (!same_as_held(g, g->self, l->told_ours, &l->ours) ||
            !same_as_held(g, l->machine, l->told_theirs, &l->theirs))
            return false;
    }
    return true;
}
