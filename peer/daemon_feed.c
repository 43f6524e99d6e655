/* Our own feed: sealing, keys; what the compute actor is told to fold and to measure; and the last step. */
#include "peer/daemon_in.h"
#include "peer/log.h"
#include <stdlib.h>
#include <string.h>

static const uint64_t adopt_ns = 10 * NS;      /* after start, before anything was sealed: our feed may still grow by itself */
static const uint64_t drain_every_ns = NS;
static const uint64_t disk_again_ns = 600 * NS; /* a full disk is said again */
static const uint64_t disk_other_ns = 60 * NS;  /* the same for another reason */
static const uint64_t disk_quiet_ns = 30 * NS;  /* a relay's batches succeeded for so long: it is well again */

/* ---- to the compute actor ---- */

struct peer_msg_fold *daemon_fold_message(const uint8_t machine[32], const struct net_segment *s, const uint8_t *counts,
                                          bool subtract)
{
    struct peer_msg_fold *m = peer_msg_fold_new(machine, s, counts, subtract);
    ENSURE(m != NULL); /* a fold lost would be a wrong state */
    return m;
}

void daemon_fold(struct daemon *d, const struct net_action *a)
{
    d->dirty = true;
    d->changed_ns = daemon_now();
    if (d->snap.phase != SNAP_OFF)
        return; /* the state is built later, from everything held then */
    struct peer_msg_fold *m = daemon_fold_message(a->machine, a->segment, a->counts, a->kind == NET_UNFOLD);
    if (!daemon_round_hold_fold(d, a->segment->step, m))
        peer_pipe_send(d->to_compute, m);
}

void daemon_feed_send(struct daemon *d, bool sealed)
{
    struct peer_msg_feed *m = peer_msg_new(PEER_MSG_FEED, sizeof *m);
    struct net_frontier_entry own = {.count = 0};
    ENSURE(m != NULL);
    if (!net_gossip_feed(d->gossip, d->self.id, &own))
        own.count = 0;
    memcpy(m->machine, d->self.id, 32);
    m->next_seq = own.count;
    m->sealed = sealed;
    peer_pipe_send(d->to_compute, m);
}

uint64_t daemon_progress(const struct daemon *d)
{
    struct net_clock c;
    if (d->m->net.sync)
        return d->round;
    net_gossip_clock(d->gossip, &c);
    return c.step;
}

static uint32_t segment_max(const struct daemon *d)
{
    return d->o.segment_max ? d->o.segment_max : d->m->segment_max;
}

/* Of net_gossip_own_closed, for people. */
static const char *const closed_words[] = {
    "cut: this machine's feed was cut by the owner or forked",
    "full: this machine's feed holds as many records as a feed may",
    "table: more machines take part than a peer can follow",
    "not admitted: the run's owner has not admitted this machine (onebyte admit --machine ID)",
};

const char *daemon_hold(struct daemon *d)
{
    const char *closed = net_gossip_own_closed(d->gossip);
    const uint64_t step = daemon_progress(d);
    if (d->paused)
        return "paused (onebyte resume goes on)";
    const char *host = peer_host_hold(&d->host, daemon_now());
    if (host)
        return host;
    if (d->asking)
        return "asking the neighbours for this machine's own feed";
    if (d->disk_failed)
        return "disk: the ledger cannot be written (full?)";
    for (size_t i = 0; closed && i < ARRAY_LEN(closed_words); i++)
        if (strncmp(closed_words[i], closed, strlen(closed)) == 0)
            return closed_words[i];
    if (closed)
        return closed;
    if (step < d->m->net.steps &&
        !net_gossip_would_count(d->gossip, segment_max(d), step > UINT32_MAX ? UINT32_MAX : (uint32_t)step, segment_max(d)))
        return "share: this machine has done its share of the run so far; others must go on first";
    return NULL;
}

/* Bytes of what the folds sent so far make; malloc'd, NULL: out of memory. */
uint8_t *daemon_frontier(const struct daemon *d, size_t *bytes)
{
    const uint64_t round = d->m->net.sync ? d->round : NET_ALL;
    const size_t n = net_gossip_frontier(d->gossip, round, NULL, 0);
    struct net_frontier_entry *f = calloc(n + 1, sizeof *f);
    uint8_t *out = malloc(n * PEER_FRONTIER_ENTRY + 1);
    if (f && out) {
        ENSURE(net_gossip_frontier(d->gossip, round, f, n) == n);
        for (size_t i = 0; i < n; i++)
            peer_frontier_put(out + i * PEER_FRONTIER_ENTRY, 0, &f[i]);
    } else {
        free(out);
        out = NULL;
    }
    free(f);
    *bytes = n * PEER_FRONTIER_ENTRY;
    return out;
}

/* Tells the compute actor which frontier the folds sent so far make, and whether it may measure there. */
void daemon_mark(struct daemon *d, bool force)
{
    const char *hold = daemon_hold(d);
    if (!d->dirty && !force)
        return;
    if (d->snap.phase != SNAP_OFF) {
        d->dirty = false;
        d->hold_marked = hold;
        return;
    }
    size_t n = 0;
    uint8_t *frontier = daemon_frontier(d, &n);
    struct peer_msg_mark *m = peer_msg_new(PEER_MSG_MARK, sizeof *m + n);
    ENSURE(frontier != NULL && m != NULL);
    memcpy(m->frontier, frontier, n);
    free(frontier);
    m->n_frontier = n;
    m->step = daemon_progress(d);
    m->total_prev = d->totals_prev;
    m->hold = hold;
    peer_pipe_send(d->to_compute, m);
    d->dirty = false;
    d->marked_ns = daemon_now();
    d->hold_marked = hold;
}

/* ---- own segments ---- */

/* Before the first segment of a key leaves: the home remembers that this key has sealed. */
static bool remember_sealed(struct daemon *d)
{
    struct err_why why;
    char hex[65];
    if (d->sealed_marked)
        return true;
    net_hex(hex, d->self.id, 32);
    d->sealed_marked = peer_home_set(d->o.home, "sealed", hex, &why) == ERR_OK;
    return d->sealed_marked;
}

/* Tried again every five seconds; logged when it begins, when the reason changes, and every ten minutes. */
void daemon_disk_bad(struct daemon *d, const char *why)
{
    const uint64_t now = daemon_now();
    char quoted[sizeof d->disk_said];
    d->ledger_errors++;
    d->disk_failed = true;
    d->disk_bad_ns = now;
    d->disk_retry_ns = now + 5 * NS;
    peer_log_quote(quoted, sizeof quoted, why);
    if (d->disk_said_ns && now - d->disk_said_ns < (strcmp(quoted, d->disk_said) == 0 ? disk_again_ns : disk_other_ns))
        return;
    d->disk_said_ns = now;
    memcpy(d->disk_said, quoted, sizeof quoted);
    peer_log(PEER_ERROR, "disk", "reason=\"%s\" consequence=\"not contributing until the ledger can be written\"", quoted);
}

void daemon_disk_good(struct daemon *d, bool own)
{
    d->disk_failed = d->disk_failed && !own;
    if (d->disk_said_ns == 0 || (!own && daemon_now() - d->disk_bad_ns < disk_quiet_ns))
        return;
    d->disk_failed = false;
    d->disk_said_ns = 0;
    peer_log(PEER_INFO, "disk", "reason=\"the ledger can be written again\"");
}

static bool store_own(struct daemon *d, const uint8_t *wire, size_t n, uint64_t first_seq)
{
    const bool remembered = remember_sealed(d);
    if (remembered && net_ledger_append(d->ledger, d->self.id, first_seq, wire, n, true, daemon_unix_ms()) == ERR_OK) {
        daemon_disk_good(d, true);
        return true;
    }
    daemon_disk_bad(d, remembered ? net_ledger_error(d->ledger) : "the home cannot be written");
    return false;
}

/* May this one still be sent?  What is refused here was never sent: its seqs are measured anew. */
static bool acceptable(struct daemon *d, const struct peer_msg_sealed *s, struct net_frontier_entry *own)
{
    if (!net_gossip_feed(d->gossip, d->self.id, own))
        *own = (struct net_frontier_entry){.cut = UINT64_MAX};
    if (d->quit || memcmp(s->machine, d->self.id, 32) != 0 || s->first_seq != own->count || net_gossip_own_closed(d->gossip))
        return false;
    if (d->disk_failed || d->asking || s->step >= d->m->net.steps || daemon_progress(d) >= d->m->net.steps)
        return false;
    return net_gossip_would_count(d->gossip, s->count, s->step, s->lag);
}

static void send_own(struct daemon *d, const struct peer_msg_sealed *s, const struct net_frontier_entry *own)
{
    struct net_segment seg = {.first_seq = s->first_seq, .step = s->step, .lag = s->lag, .count = s->count,
                              .loss_f16 = s->loss_f16, .r_f16 = s->r_f16};
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    memcpy(seg.prev, own->head, 8);
    memcpy(seg.binding, s->binding, 8);
    memcpy(seg.codes, s->codes, s->count);
    net_segment_sign(&seg, &d->m->net, &d->self, own->head);
    const size_t n = net_segment_write(wire, &seg);
    if (!store_own(d, wire, n, s->first_seq))
        return;
    d->own_stored = true;
    const enum err e = net_gossip_own(d->gossip, wire, n, daemon_now());
    if (e == ERR_OK) {
        uint8_t id[32];
        net_segment_id(id, &seg, d->m->run_id, d->self.id, own->head);
        daemon_audit_sealed(d, s, id);
        d->own_sealed++;
        d->records_own += s->count;
        d->round_sealed = d->round + 1;
    } else {
        (void)err_set(&d->why, e, "a segment made here does not fit the rules of the run (seq %llu, %u records): %s",
                      (unsigned long long)s->first_seq, s->count, err_str(e));
        d->quit = true;
        d->end = PEER_END_FAILED;
        if (net_ledger_truncate(d->ledger, d->self.id, s->first_seq) != ERR_OK)
            d->ledger_errors++;
    }
    daemon_actions(d);
    d->own_stored = false;
}

void daemon_sealed(struct daemon *d, const struct peer_msg_sealed *s)
{
    struct net_frontier_entry own;
    if (acceptable(d, s, &own))
        send_own(d, s, &own);
    else
        d->sealed_lost++;
    if (d->quit)
        return;
    daemon_audit_slot(d); /* before FEED: until then nothing is measured */
    daemon_feed_send(d, true);
    daemon_mark(d, true); /* at once: the compute actor waits */
}

/* ---- keys ---- */

void daemon_new_key(struct daemon *d, const char *reason)
{
    struct net_identity next = {.sk = NULL};
    char id[9];
    if (d->quit || d->new_key)
        return;
    d->new_key = true;
    d->quit = true;
    d->end = PEER_END_NEW_KEY;
    if (peer_home_new_identity(d->o.home, &next, &d->why) != ERR_OK) {
        d->end = PEER_END_FAILED;
        return;
    }
    peer_short_id(id, next.id);
    peer_log(PEER_WARN, "new_key", "machine=%s reason=\"%s\"", id, reason);
    net_identity_release(&next);
}

void daemon_own_behind(struct daemon *d, const struct net_action *a)
{
    if (!a->blame && net_gossip_own_closed(d->gossip)) {
        d->dirty = true; /* the owner retracted this machine: a new key would only dodge that; status says "cut" */
        return;
    }
    if (!a->blame && d->own_sealed == 0 && daemon_now() - d->started_ns < adopt_ns) {
        peer_log(d->adopted ? PEER_DEBUG : PEER_INFO, "own_feed",
                 "seq=%llu reason=\"neighbours hold more of our own feed: going on from its end\"", (unsigned long long)a->seq);
        d->adopted = true;
        daemon_feed_send(d, false);
        d->dirty = true;
        return;
    }
    daemon_new_key(d, "the network holds records of this key that this home did not make: it was copied or restored");
}

/* ---- the last step ---- */

void daemon_finish(struct daemon *d)
{
    const uint64_t now = daemon_now();
    if (d->quit || d->snap.phase != SNAP_OFF)
        return;
    if (daemon_progress(d) < d->m->net.steps) {
        d->finishing = false; /* the clock may go back: a cut machine's records count for nothing */
        return;
    }
    if (!d->finishing) {
        d->finishing = true;
        d->finish_ns = d->changed_ns = now;
        d->settled_ns = 0;
        peer_log(PEER_INFO, "last_step", "step=%llu reason=\"waiting for the neighbours to hold the same\"",
                 (unsigned long long)d->m->net.steps);
    }
    if (now - d->drained_ns >= drain_every_ns) {
        d->drained_ns = now;
        net_gossip_drain(d->gossip, now);
        daemon_actions(d);
    }
    size_t agree = 0, links = 0;
    net_gossip_agreement(d->gossip, &agree, &links);
    if (links > 0 && agree == links && net_gossip_settled(d->gossip))
        d->settled_ns = now; /* whoever leaves after this took everything along */
    const bool settled = links == 0 && d->n_dials == 0 ? true : d->settled_ns > d->changed_ns && (links == 0 || d->settled_ns == now);
    const bool quiet = (double)(now - d->changed_ns) >= d->o.linger_s * (double)NS;
    const bool enough = (double)(now - d->finish_ns) >= d->o.drain_s * (double)NS;
    if (!enough && (double)(now - d->finish_ns) < d->m->round_timeout_s * (double)NS && daemon_round_stragglers(d))
        return; /* they need this peer to hear of each other */
    if ((settled || enough) && daemon_check_final(d))
        return;
    if (!enough && (daemon_check_awaited(d) || daemon_eval_pending(d)))
        return;
    if (!(settled && quiet) && !enough)
        return;
    peer_log(enough && !settled ? PEER_WARN : PEER_INFO, "drained", "agree=%zu links=%zu", agree, links);
    d->quit = true;
    d->end = PEER_END_FINISHED;
}
