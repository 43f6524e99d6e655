/* pace: sync -- the paper's rounds (DESIGN 5).  Local waiting only: nothing here decides what counts.
 *
 * A segment's step is its round.  Round t is measured at everything held of rounds before t: folds of later rounds wait
 * here.  The round ends when every machine with a segment in the last three rounds has sent one for it, or after
 * round_timeout; a machine that was missed is not waited for during 2, 4, 8 .. rounds.  Whoever is behind the lower
 * median of the machines heard of lately jumps there (a joiner, one further): never to the maximum, which one liar sets. */
#include "peer/daemon_in.h"
#include "peer/log.h"
#include <stdlib.h>
#include <string.h>

enum { RECENT = 3, MISSES_MAX = 16 };

static void release_folds(struct daemon *d)
{
    struct held_fold **at = &d->held;
    while (*at) {
        struct held_fold *h = *at;
        if (h->step >= d->round) {
            at = &h->next;
            continue;
        }
        peer_pipe_send(d->to_compute, h->msg);
        *at = h->next;
        free(h);
    }
    d->held_tail = at;
    d->dirty = true;
}

/* In order: a record's UNFOLD follows its FOLD, whichever list it is in, because both have the same step. */
bool daemon_round_hold_fold(struct daemon *d, uint64_t step, struct peer_msg_fold *m)
{
    if (!d->m->net.sync || (step < d->round && d->machines))
        return false;
    struct held_fold *h = calloc(1, sizeof *h);
    ENSURE(h != NULL);
    h->step = step;
    h->msg = m;
    *d->held_tail = h;
    d->held_tail = &h->next;
    return true;
}

static struct round_machine *machine(struct daemon *d, const uint8_t id[32])
{
    for (size_t i = 0; i < d->n_machines; i++)
        if (memcmp(d->machines[i].id, id, 32) == 0)
            return &d->machines[i];
    if (!d->machines || d->n_machines == DAEMON_SYNC_MACHINES)
        return NULL; /* not waited for; its records count like all others */
    struct round_machine *m = &d->machines[d->n_machines++];
    *m = (struct round_machine){.heard_round = 0};
    memcpy(m->id, id, 32);
    return m;
}

static void total_add(struct daemon *d, uint64_t step, uint64_t records)
{
    struct round_total *t = &d->totals[step % DAEMON_SYNC_TOTALS];
    if (t->step < step)
        *t = (struct round_total){.step = step};
    if (t->step == step)
        t->records += records;
}

void daemon_round_heard(struct daemon *d, const struct net_action *stored)
{
    if (!d->m->net.sync)
        return;
    struct round_machine *m = machine(d, stored->machine);
    total_add(d, stored->segment->step, stored->segment->count);
    if (!m)
        return;
    m->last_step = stored->segment->step;
    m->heard_round = d->round;
    if (m->last_step >= d->round)
        m->misses = 0;
}

static void enter(struct daemon *d, uint64_t round)
{
    const uint64_t steps = d->m->net.steps;
    d->round = round < steps ? round : steps;
    d->round_began_ns = daemon_now();
    const struct round_total *t = d->round > 0 ? &d->totals[(d->round - 1) % DAEMON_SYNC_TOTALS] : NULL;
    d->totals_prev = t && t->step == d->round - 1 ? t->records : 0;
    release_folds(d);
    peer_log(PEER_DEBUG, "round", "round=%llu previous_records=%llu", (unsigned long long)d->round,
             (unsigned long long)d->totals_prev);
}

static int by_step(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Lower median of the newest steps of the others heard of in the last rounds; false: nobody. */
static bool median(const struct daemon *d, uint64_t *out)
{
    uint64_t steps[DAEMON_SYNC_MACHINES];
    size_t n = 0;
    for (size_t i = 0; i < d->n_machines; i++) {
        const struct round_machine *m = &d->machines[i];
        if (memcmp(m->id, d->self.id, 32) != 0 && m->heard_round + RECENT >= d->round)
            steps[n++] = m->last_step;
    }
    if (n == 0)
        return false;
    qsort(steps, n, sizeof *steps, by_step);
    *out = steps[(n - 1) / 2];
    return true;
}

static uint64_t own_next(const struct daemon *d)
{
    struct net_feed_view v;
    for (size_t i = 0; net_gossip_feed_at(d->gossip, i, &v); i++)
        if (memcmp(v.entry.machine, d->self.id, 32) == 0 && v.entry.count > 0)
            return (uint64_t)v.last_step + 1;
    return 0;
}

void daemon_round_start(struct daemon *d)
{
    if (!d->m->net.sync)
        return;
    struct net_feed_view v;
    d->machines = calloc(DAEMON_SYNC_MACHINES, sizeof *d->machines);
    ENSURE(d->machines != NULL);
    for (size_t i = 0; net_gossip_feed_at(d->gossip, i, &v); i++) {
        struct round_machine *m = v.entry.count > 0 ? machine(d, v.entry.machine) : NULL;
        if (m)
            m->last_step = v.last_step;
    }
    uint64_t at = own_next(d), others;
    if (median(d, &others) && others + 1 > at)
        at = others + 1;
    enter(d, at);
}

/* Those still missed in this round; with `late`, each is put aside for twice as long as last time. */
static size_t missing(struct daemon *d, bool late)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n_machines; i++) {
        struct round_machine *m = &d->machines[i];
        if (memcmp(m->id, d->self.id, 32) == 0 || m->last_step >= d->round || m->last_step + RECENT < d->round ||
            m->skip_until > d->round)
            continue;
        n++;
        if (!late)
            continue;
        if (m->misses < MISSES_MAX)
            m->misses++;
        m->skip_until = d->round + (UINT64_C(1) << m->misses);
    }
    return n;
}

void daemon_round_tick(struct daemon *d)
{
    uint64_t others;
    if (d->asking || d->round >= d->m->net.steps)
        return;
    if (median(d, &others) && others > d->round) {
        const bool joiner = own_next(d) + RECENT < others;
        enter(d, others + (joiner ? 1 : 0));
        return;
    }
    const bool late = (double)(daemon_now() - d->round_began_ns) >= d->m->round_timeout_s * (double)NS;
    const bool own_done = own_next(d) > d->round || !d->o.data || (d->hold_marked && !d->asking);
    const bool anyone = own_next(d) > d->round || (median(d, &others) && others >= d->round);
    if (late) {
        const size_t n = missing(d, true);
        if (n > 0)
            peer_log(PEER_INFO, "round_timeout", "round=%llu missing=%zu", (unsigned long long)d->round, n);
    }
    if (late ? anyone : own_done && anyone && missing(d, false) == 0)
        enter(d, d->round + 1);
}

/* Machines that may still send the last round: whoever leaves before them cuts those that only it connects from each
 * other's last segments, and they end with different models.  The caller bounds the wait by the round's timeout. */
bool daemon_round_stragglers(const struct daemon *d)
{
    if (!d->m->net.sync)
        return false;
    for (size_t i = 0; i < d->n_machines; i++) {
        const struct round_machine *m = &d->machines[i];
        if (memcmp(m->id, d->self.id, 32) != 0 && m->last_step + 1 < d->m->net.steps &&
            m->last_step + 1 + RECENT >= d->m->net.steps)
            return true;
    }
    return false;
}

void daemon_round_free(struct daemon *d)
{
    while (d->held) {
        struct held_fold *h = d->held;
        d->held = h->next;
        peer_msg_free(h->msg);
        free(h);
    }
    free(d->machines);
}
