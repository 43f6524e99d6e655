/* Sharded evaluation: which part of the eval set this peer scores at which checkpoint, and what it tells the others.
 *
 * Which one is net_scores_duty's; the way to the checkpoint's state is net_gossip_way's; the compute actor goes it, scores and
 * comes back.  One part at a time: training goes on in between, and what others reported meanwhile is not done again. */
#include "peer/daemon_in.h"
#include "peer/join_in.h"
#include "peer/log.h"
#include <inttypes.h>
#include <math.h>
#include "net/count.h"
#include <onebyte/net/score.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t look_every_ns = NS / 5;
static const uint64_t takeover_ns = 5 * NS, takeover_end_ns = NS; /* others wait for us at the end */

static bool may_score(struct daemon *d)
{
    struct net_frontier_entry own;
    if (net_gossip_feed(d->gossip, d->self.id, &own) && own.cut != UINT64_MAX)
        return false; /* nobody would take it */
    return d->o.eval_data && !d->eval.failed && !d->quit && !d->asking && d->snap.phase == SNAP_OFF && !d->paused &&
           !peer_host_hold(&d->host, daemon_now()) && net_gossip_admitted(d->gossip, d->self.id);
}

/* A checkpoint that came since the last look. */
static void notice(struct daemon *d, const struct net_control *c, uint64_t now)
{
    const size_t at = c->number % EVAL_BEHIND;
    uint8_t id[32];
    if (d->eval.seen == c->number + 1)
        return;
    d->eval.seen = c->number + 1;
    net_control_id(id, c, &d->m->net);
    memcpy(d->eval.id[at], id, 8);
    d->eval.since_ns[at] = now;
    d->eval.gone[at] = false;
}

static bool load_frontier(struct daemon *d, uint64_t number)
{
    uint8_t *bytes = NULL;
    size_t n = 0;
    if (d->eval.to && d->eval.number == number)
        return true;
    if (!daemon_check_frontier(d, number, &bytes, &n))
        return false;
    free(d->eval.to);
    d->eval.n_to = n / PEER_FRONTIER_ENTRY;
    d->eval.to = calloc(d->eval.n_to + 1, sizeof *d->eval.to);
    ENSURE(d->eval.to != NULL);
    for (size_t i = 0; i < d->eval.n_to; i++)
        peer_frontier_get(bytes, i, &d->eval.to[i]);
    d->eval.number = number;
    free(bytes);
    return true;
}

static int duty(const struct daemon *d, uint64_t number, uint64_t now)
{
    uint8_t(*candidates)[32] = calloc(d->eval.n_to + 1, sizeof *candidates);
    ENSURE(candidates != NULL);
    for (size_t i = 0; i < d->eval.n_to; i++)
        memcpy(candidates[i], d->eval.to[i].machine, 32);
    const uint64_t base = d->finishing ? takeover_end_ns : takeover_ns;
    const uint64_t patience = base + (uint64_t)(2 * NET_SCORE_PARTS * d->eval.part_s * (double)NS);
    const int part = net_scores_duty(net_gossip_scores(d->gossip), number, d->self.id, (const uint8_t(*)[32])candidates,
                                     d->eval.n_to, d->eval.empty, now - d->eval.since_ns[number % EVAL_BEHIND], patience);
    free(candidates);
    return part;
}

static void on_way(void *ctx, const uint8_t machine[32], const struct net_segment *s, const uint8_t *counts, bool subtract)
{
    struct peer_msg_eval *m = ctx;
    if (m->n_folds == m->folds_max) {
        const size_t n = m->folds_max ? 2 * m->folds_max : 64;
        struct peer_msg_fold **p = realloc(m->folds, n * sizeof(struct peer_msg_fold *)); /* NOLINT(bugprone-sizeof-expression): pointers are meant */
        ENSURE(p != NULL);
        m->folds = p;
        m->folds_max = n;
    }
    m->folds[m->n_folds++] = daemon_fold_message(machine, s, counts, subtract);
}

/* The compute actor gets a mark, and the way from exactly there. */
static bool send_part(struct daemon *d, uint64_t number, uint32_t part)
{
    const uint64_t round = d->m->net.sync ? d->round : NET_ALL;
    uint64_t step = 0;
    if (net_gossip_way(d->gossip, NULL, 0, d->eval.to, d->eval.n_to, &step, NULL, NULL) != ERR_OK)
        return false;
    struct peer_msg_eval *m = peer_msg_new(PEER_MSG_EVAL, sizeof *m);
    const size_t n = net_gossip_frontier(d->gossip, round, NULL, 0);
    struct net_frontier_entry *from = calloc(n + 1, sizeof *from);
    ENSURE(m != NULL && from != NULL);
    ENSURE(net_gossip_frontier(d->gossip, round, from, n) == n);
    daemon_mark(d, true);
    ENSURE(net_gossip_way(d->gossip, from, n, d->eval.to, d->eval.n_to, NULL, on_way, m) == ERR_OK);
    free(from);
    m->path = d->o.eval_data;
    m->number = number;
    m->part = part;
    m->step = step > UINT32_MAX ? UINT32_MAX : (uint32_t)step;
    d->eval.busy = true;
    peer_pipe_send(d->to_compute, m);
    return true;
}

/* Scores a part of this checkpoint, if there is one for us now. */
static bool score_one(struct daemon *d, uint64_t number, uint64_t now)
{
    const size_t at = number % EVAL_BEHIND;
    if (d->eval.since_ns[at] == 0 || d->eval.gone[at] || !load_frontier(d, number))
        return false;
    const int part = duty(d, number, now);
    if (part < 0)
        return false;
    const enum err way = net_gossip_way(d->gossip, NULL, 0, d->eval.to, d->eval.n_to, NULL, NULL, NULL);
    if (way == ERR_NOTFOUND) {
        d->eval.gone[at] = true;
        peer_log(PEER_INFO, "eval", "checkpoint=%" PRIu64 " reason=\"a cut came after it: others score it\"", number);
    }
    return way == ERR_OK && send_part(d, number, (uint32_t)part);
}

void daemon_eval_tick(struct daemon *d)
{
    const uint64_t now = daemon_now();
    struct net_control c;
    if (d->eval.busy || now - d->eval.tick_ns < look_every_ns || !may_score(d) || !daemon_check_last(d, &c))
        return;
    d->eval.tick_ns = now;
    notice(d, &c, now);
    const struct net_scores *t = net_gossip_scores(d->gossip);
    uint64_t number = c.number < EVAL_BEHIND - 1 ? 0 : c.number - (EVAL_BEHIND - 1);
    for (; number < c.number; number++) /* what was begun is finished first: else fast checkpoints have no whole score ever */
        if (net_scores_held(t, number) > 0 && score_one(d, number, now))
            return;
    (void)score_one(d, c.number, now);
}

void daemon_eval_take(struct daemon *d, const struct peer_msg_evaled *m)
{
    char quoted[sizeof m->why.text];
    uint8_t frame[NET_SCORE_BYTES];
    struct net_score s = {.number = m->number, .step = m->step, .part = m->part, .total = m->total, .finite = m->finite,
                          .terms = m->terms, .choices = m->choices, .correct = m->correct};
    d->eval.busy = false;
    d->eval.tick_ns = 0;
    if (m->code != ERR_OK) {
        d->eval.failed = true;
        peer_log_quote(quoted, sizeof quoted, m->why.text);
        peer_log(PEER_WARN, "eval", "reason=\"%s\" consequence=\"this peer scores no checkpoints\"", quoted);
        return;
    }
    d->eval.part_s = m->seconds;
    if (net_score_first(m->total, m->part) == net_score_first(m->total, m->part + 1))
        d->eval.empty |= 1u << m->part; /* fewer examples than parts */
    if (d->eval.empty >> m->part & 1 || m->number + EVAL_BEHIND < d->eval.seen)
        return; /* or so slow that nobody waits for it any more */
    s.nats = (uint64_t)llround(ldexp(fmin(m->nats, 0x1p30), NET_SCORE_NATS_BITS));
    memcpy(s.checkpoint, d->eval.id[m->number % EVAL_BEHIND], 8);
    net_score_sign(&s, &d->m->net, &d->self);
    net_score_write(frame, &s);
    const enum err e = net_gossip_control(d->gossip, frame, sizeof frame, daemon_now());
    daemon_actions(d);
    peer_log(PEER_DEBUG, "eval", "checkpoint=%" PRIu64 " part=%u loss=%.6g s=%.3f taken=%s", m->number, m->part,
             m->terms ? m->nats / (double)m->terms : (double)NAN, m->seconds, e == ERR_OK ? "yes" : "no");
}

bool daemon_eval_pending(struct daemon *d)
{
    struct net_control c;
    if (!may_score(d) || !daemon_check_last(d, &c))
        return false;
    notice(d, &c, daemon_now());
    if (d->eval.busy)
        return true;
    return !d->eval.gone[c.number % EVAL_BEHIND] && load_frontier(d, c.number) &&
           duty(d, c.number, daemon_now()) != NET_SCORES_DONE;
}

void daemon_eval_free(struct daemon *d)
{
    free(d->eval.to);
}
