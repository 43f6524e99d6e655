/* Scores on their way: each new one to every neighbour at once, and what was lost by comparing digests beside the frontier's. */
#include "core.h"
#include "scores.h"
#include "wire.h"

enum { ENTRY = 16 }; /* of SCORES */

/* An admission travels with its machine's feed: of a machine that has measured nothing yet it must go with the score. */
static void send_admission(struct net_gossip *g, const struct net_link *l, const uint8_t *machine)
{
    const struct net_feed *f = net_table_find(g, machine, NULL);
    if (!f || f->n == 0)
        net_send_admission(g, l, machine);
}

static void forward(struct net_gossip *g, const uint8_t *frame, const uint8_t *machine, const struct net_link *from, bool store)
{
    uint8_t wire[1 + NET_SCORE_BYTES] = {WIRE_SCORE};
    memcpy(wire + 1, frame, NET_SCORE_BYTES);
    if (store) {
        const size_t at = net_queue_bytes(&g->queue, frame, NET_SCORE_BYTES);
        net_queue_push(&g->queue, &(struct net_queued){.kind = NET_CONTROL, .at = at, .bytes = NET_SCORE_BYTES});
    }
    for (uint32_t i = 0; i < g->n_links; i++) {
        if (g->links[i] == from)
            continue;
        send_admission(g, g->links[i], machine);
        net_send(g, g->links[i], wire, sizeof wire);
    }
}

enum err net_hold_score(struct net_gossip *g, const uint8_t *frame, size_t n, bool store, const struct net_link *from)
{
    struct net_score s;
    bool tell = false;
    TRY(net_score_parse(&s, frame, n));
    if (!net_gossip_admitted(g, s.machine))
        return ERR_AGAIN; /* its admission may be on its way */
    const struct net_feed *f = net_table_find(g, s.machine, NULL);
    if (f && f->cut != NET_NO_CUT)
        return ERR_RANGE;
    TRY(net_scores_take(g->scores, &g->rules, frame, n, &tell));
    if (tell)
        forward(g, frame, s.machine, from, store);
    return ERR_OK;
}

bool net_on_score(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n == 0 || n % NET_SCORE_BYTES != 0 || n / NET_SCORE_BYTES > LIMIT_SCORES_TOLD)
        return false;
    for (size_t at = 0; at < n; at += NET_SCORE_BYTES) {
        if (!net_spend(g, l, LIMIT_PUSH_COST))
            return true; /* a later comparison brings the rest */
        switch (net_hold_score(g, p + at, NET_SCORE_BYTES, true, l)) {
        case ERR_PROTO: /* an honest neighbour only passes on what it has verified */
            net_drop(g, l, "invalid score", true);
            return true;
        case ERR_AGAIN:
            l->more = true; /* a summary fetches the checkpoint first */
            break;
        default:
            break;
        }
    }
    return true;
}

static size_t list(const struct net_scores *t, uint8_t *out)
{
    size_t n = 0;
    for (uint64_t number = net_scores_oldest(t); t->any && number <= t->last; number++) {
        struct net_scores_slot *s = net_scores_slot_of(t, number);
        if (!s || s->n == 0)
            continue;
        bytes_put_le(out + ENTRY * n, number, 8);
        memcpy(out + ENTRY * n + 8, net_scores_slot_digest(s), 8);
        n++;
    }
    return n;
}

static void digest(const struct net_scores *t, uint8_t out[NET_TREE_BYTES])
{
    uint8_t all[ENTRY * LIMIT_SCORE_CHECKPOINTS], hash[32];
    const size_t n = list(t, all);
    net_hash(hash, &(struct net_part){all, ENTRY * n}, 1);
    memcpy(out, hash, NET_TREE_BYTES);
}

void net_gossip_scores_digest(const struct net_gossip *g, uint8_t out[16])
{
    digest(g->scores, out);
}

void net_send_scored(struct net_gossip *g, const struct net_link *l)
{
    uint8_t frame[1 + NET_TREE_BYTES] = {WIRE_SCORED};
    if (g->scores->n == 0)
        return;
    digest(g->scores, frame + 1);
    net_send(g, l, frame, sizeof frame);
}

static void send_list(struct net_gossip *g, struct net_link *l, bool answer)
{
    uint8_t frame[2 + ENTRY * LIMIT_SCORE_CHECKPOINTS] = {WIRE_SCORES, answer};
    const size_t n = 2 + ENTRY * list(g->scores, frame + 2);
    if (net_spend(g, l, n))
        net_send(g, l, frame, n);
}

bool net_on_scored(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    uint8_t own[NET_TREE_BYTES];
    if (n != NET_TREE_BYTES)
        return false;
    digest(g->scores, own);
    if (memcmp(p, own, sizeof own) != 0)
        send_list(g, l, false);
    return true;
}

/* All of one checkpoint. */
static void send_slot(struct net_gossip *g, struct net_link *l, const struct net_scores_slot *s)
{
    uint8_t frame[1 + NET_SCORE_PARTS * LIMIT_SCORE_REPORTERS * NET_SCORE_BYTES] = {WIRE_SCORE};
    size_t n = 1;
    for (size_t p = 0; p < NET_SCORE_PARTS; p++)
        for (size_t k = 0; k < s->n_of[p]; k++, n += NET_SCORE_BYTES)
            memcpy(frame + n, s->of[p][k].bytes + 32, NET_SCORE_BYTES);
    if (n == 1 || !net_spend(g, l, n))
        return;
    for (size_t p = 0; p < NET_SCORE_PARTS; p++)
        for (size_t k = 0; k < s->n_of[p]; k++)
            send_admission(g, l, net_score_machine(s->of[p][k].bytes + 32));
    net_send(g, l, frame, n);
}
_Static_assert(NET_SCORE_PARTS * LIMIT_SCORE_REPORTERS <= LIMIT_SCORES_TOLD, "one checkpoint fits a frame");

bool net_on_scores(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n)
{
    if (n < 1 || (n - 1) % ENTRY != 0 || (n - 1) / ENTRY > LIMIT_SCORE_CHECKPOINTS || p[0] > 1)
        return false;
    const struct net_scores *t = g->scores;
    const uint8_t *e = p + 1, *const end = p + n;
    bool lacking = false;
    for (uint64_t number = net_scores_oldest(t); t->any && number <= t->last; number++) {
        for (; e < end && bytes_get_le(e, 8) < number; e += ENTRY)
            ;
        const bool theirs = e < end && bytes_get_le(e, 8) == number;
        struct net_scores_slot *s = net_scores_slot_of(t, number);
        if (!s || s->n == 0) {
            lacking = lacking || theirs;
        } else if (!theirs || memcmp(e + 8, net_scores_slot_digest(s), 8) != 0) {
            lacking = lacking || theirs;
            send_slot(g, l, s);
        }
    }
    if (lacking && p[0] == 0)
        send_list(g, l, true);
    return true;
}

const struct net_scores *net_gossip_scores(const struct net_gossip *g)
{
    return g->scores;
}
