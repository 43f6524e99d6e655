/* Questions of auditors and answers of authors: parsing, signing, and their way through the network. */
#include <onebyte/net/audit.h>
#include "core.h"
#include "wire.h"

#define AUDIT_TAG "onebyte/1 audit"
static const uint64_t open_ns = 10 * NET_S; /* a question stays open */

/* ---- frames ---- */

enum err net_ask_parse(struct net_ask *a, const uint8_t *frame, size_t n)
{
    if (n != NET_ASK_BYTES || frame[0] != WIRE_AUDIT_ASK || frame[1] > NET_AUDIT_HOPS)
        return ERR_PROTO;
    a->hops = frame[1];
    memcpy(a->machine, frame + 2, 32);
    memcpy(a->id, frame + 34, 32);
    a->offset = (uint32_t)bytes_get_le(frame + 66, 4);
    return ERR_OK;
}

size_t net_ask_write(uint8_t frame[NET_ASK_BYTES], const struct net_ask *a)
{
    frame[0] = WIRE_AUDIT_ASK;
    frame[1] = a->hops;
    memcpy(frame + 2, a->machine, 32);
    memcpy(frame + 34, a->id, 32);
    bytes_put_le(frame + 66, a->offset, 4);
    return NET_ASK_BYTES;
}

enum err net_tell_parse(struct net_tell *t, const uint8_t *frame, size_t n)
{
    if (n < NET_TELL_HEAD || n > NET_TELL_BYTES_MAX || frame[0] != WIRE_AUDIT_TELL)
        return ERR_PROTO;
    struct net_tell got = {.offset = (uint32_t)bytes_get_le(frame + 65, 4),
                           .total = (uint32_t)bytes_get_le(frame + 69, 4),
                           .bytes = frame + NET_TELL_HEAD,
                           .n = n - NET_TELL_HEAD};
    if (got.offset > got.total || got.n > got.total - got.offset || (got.n == 0 && got.total > 0) ||
        got.total % WIRE_ENTRY != 0)
        return ERR_PROTO;
    memcpy(got.machine, frame + 1, 32);
    memcpy(got.id, frame + 33, 32);
    memcpy(got.hash, frame + 73, 32);
    memcpy(got.sig, frame + 105, 64);
    *t = got;
    return ERR_OK;
}

size_t net_tell_write(uint8_t frame[NET_TELL_BYTES_MAX], const struct net_tell *t)
{
    ENSURE(t->n <= NET_TELL_PIECE);
    frame[0] = WIRE_AUDIT_TELL;
    memcpy(frame + 1, t->machine, 32);
    memcpy(frame + 33, t->id, 32);
    bytes_put_le(frame + 65, t->offset, 4);
    bytes_put_le(frame + 69, t->total, 4);
    memcpy(frame + 73, t->hash, 32);
    memcpy(frame + 105, t->sig, 64);
    if (t->n > 0)
        memcpy(frame + NET_TELL_HEAD, t->bytes, t->n);
    return NET_TELL_HEAD + t->n;
}

void net_audit_sign(uint8_t sig[64], const struct net_rules *r, const struct net_identity *author,
                    const uint8_t id[32], const uint8_t hash[32])
{
    net_sign(sig, author,
             (const struct net_part[]){
                 {AUDIT_TAG, sizeof AUDIT_TAG}, {r->run_id, 32}, {id, 32}, {hash, 32}},
             4);
}

enum err net_audit_check(const uint8_t sig[64], const struct net_rules *r,
                         const uint8_t machine[32], const uint8_t id[32], const uint8_t hash[32])
{
    return net_verify(sig, machine,
                      (const struct net_part[]){
                          {AUDIT_TAG, sizeof AUDIT_TAG}, {r->run_id, 32}, {id, 32}, {hash, 32}},
                      4);
}

/* ---- the way there and back ---- */

/* The neighbour that is the machine itself, or the one that brings its segments; NULL: none but `except`. */
static struct net_link *route(const struct net_gossip *g, const uint8_t machine[32],
                              const struct net_link *except)
{
    const struct net_feed *f = net_table_find(g, machine, NULL);
    for (uint32_t i = 0; i < g->n_links; i++)
        if (!g->links[i]->dead && memcmp(g->links[i]->machine, machine, 32) == 0)
            return g->links[i];
    struct net_link *l = f && f->source != NET_NOWHERE ? net_link_by_id(g, f->source) : NULL;
    return l && !l->dead && l != except ? l : NULL;
}

/* A free place among the open questions; those that were never answered make room.  NULL: full, or the link's part is. */
static struct net_open_ask *place(struct net_gossip *g, bool own, uint32_t from)
{
    struct net_open_ask *free_one = NULL;
    uint32_t mine = 0;
    for (uint32_t i = 0; i < LIMIT_AUDITS; i++) {
        struct net_open_ask *o = &g->asks[i];
        if (o->used && g->now_ns >= o->deadline_ns)
            o->used = false;
        if (!o->used)
            free_one = o;
        else
            mine += o->own == own && (own || o->from == from);
    }
    return mine < LIMIT_LINK_AUDITS ? free_one : NULL;
}

static bool forward(struct net_gossip *g, const struct net_ask *a, bool own, uint32_t from,
                    const struct net_link *to)
{
    uint8_t frame[NET_ASK_BYTES];
    struct net_open_ask *o = place(g, own, from);
    if (!o)
        return false;
    *o = (struct net_open_ask){.used = true,
                               .own = own,
                               .from = from,
                               .to = to->id,
                               .offset = a->offset,
                               .deadline_ns = g->now_ns + open_ns};
    memcpy(o->machine, a->machine, 32);
    memcpy(o->id, a->id, 32);
    net_send(g, to, frame, net_ask_write(frame, a));
    return true;
}

enum err net_gossip_ask(struct net_gossip *g, const uint8_t machine[32], const uint8_t id[32],
                        uint32_t offset, uint32_t attempt, uint64_t now_ns)
{
    struct net_ask a = {.hops = NET_AUDIT_HOPS, .offset = offset};
    g->now_ns = now_ns > g->now_ns ? now_ns : g->now_ns;
    memcpy(a.machine, machine, 32);
    memcpy(a.id, id, 32);
    struct net_link *to = route(g, machine, NULL);
    if ((!to || attempt > 0) && g->n_links > 0)
        to = g->links[net_random(g) % g->n_links];
    if (!to || !forward(g, &a, true, 0, to))
        return ERR_AGAIN;
    g->count.audits_asked++;
    return ERR_OK;
}

static void tell(struct net_gossip *g, struct net_link *l, const struct net_tell *t)
{
    uint8_t frame[NET_TELL_BYTES_MAX];
    net_send(g, l, frame, net_tell_write(frame, t));
}

void net_gossip_tell(struct net_gossip *g, uint32_t link, const struct net_tell *t)
{
    struct net_link *l = net_link_by_id(g, link);
    if (!l || l->dead)
        return;
    tell(g, l, t);
    g->count.audits_told++;
}

bool net_on_audit_ask(struct net_gossip *g, struct net_link *l, const uint8_t *frame, size_t n)
{
    struct net_ask a;
    if (net_ask_parse(&a, frame, n) != ERR_OK)
        return false;
    if (!net_spend(g, l, NET_TELL_BYTES_MAX)) /* the answer's cost, in advance */
        return true;
    if (memcmp(a.machine, g->self, 32) == 0) {
        struct net_queued q = {.kind = NET_ASKED, .link = l->id, .bytes = n};
        q.at = net_queue_bytes(&g->queue, frame, n);
        net_queue_push(&g->queue, &q);
        return true;
    }
    const struct net_link *to = a.hops > 0 ? route(g, a.machine, l) : NULL;
    a.hops = (uint8_t)(a.hops - (a.hops > 0));
    if (to && to != l && forward(g, &a, false, l->id, to)) {
        g->count.audits_relayed++;
        return true;
    }
    struct net_tell none = {.offset = 0}; /* no way from here: better said than waited for */
    memcpy(none.machine, a.machine, 32);
    memcpy(none.id, a.id, 32);
    tell(g, l, &none);
    return true;
}

/* "not here" (total 0) answers any offset. */
static struct net_open_ask *asked(struct net_gossip *g, const struct net_link *l,
                                  const struct net_tell *t)
{
    for (uint32_t i = 0; i < LIMIT_AUDITS; i++) {
        struct net_open_ask *o = &g->asks[i];
        if (o->used && o->to == l->id && (t->total == 0 || o->offset == t->offset) &&
            memcmp(o->machine, t->machine, 32) == 0 && memcmp(o->id, t->id, 32) == 0)
            return o;
    }
    return NULL;
}

bool net_on_audit_tell(struct net_gossip *g, struct net_link *l, const uint8_t *frame, size_t n)
{
    struct net_tell t;
    if (net_tell_parse(&t, frame, n) != ERR_OK)
        return false;
    struct net_open_ask *o = asked(g, l, &t);
    if (!o) {
        g->count.audits_unasked++;
        return true;
    }
    o->used = false;
    if (o->own) {
        struct net_queued q = {.kind = NET_TOLD, .link = l->id, .bytes = n};
        q.at = net_queue_bytes(&g->queue, frame, n);
        net_queue_push(&g->queue, &q);
        return true;
    }
    const struct net_link *to = net_link_by_id(g, o->from);
    if (to && !to->dead)
        net_send(g, to, frame, n);
    return true;
}
