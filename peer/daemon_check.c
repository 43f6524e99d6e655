/* Checkpoints: the owner's peer names its state every so many steps; everybody keeps the frontiers that were named.
 *
 * The signed event travels with gossip and carries hashes only; the frontier behind it is asked for here, from any neighbour,
 * and lies in home/snapshots/checkpoint-N.frontier, where `replay --checkpoint N` finds it.
 *
 * FRAME 71 FRONTIER   question: first 8 bytes of its hash, offset u32       answer: the same, total u32, bytes */
#include "peer/daemon_in.h"
#include "peer/join_in.h"
#include "peer/log.h"
#include <inttypes.h>
#include <onebyte/base/bytes.h>
#include <onebyte/net/control.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FINALS_MAX = 8, FRONTIER = 71, QUESTION = 13, ANSWER_HEAD = 17, FRONTIER_BYTES_MAX = LIMIT_FEEDS * PEER_FRONTIER_ENTRY };
static const uint64_t ask_every_ns = NS;
static const uint64_t final_ns = 10 * NS; /* the last step waits no longer for its checkpoint */
_Static_assert(ANSWER_HEAD + JOIN_PIECE <= LIMIT_FRAME_BYTES, "a piece fits a frame");

bool daemon_check_last(const struct daemon *d, struct net_control *c)
{
    const uint8_t *frame;
    const size_t n = net_gossip_checkpoint(d->gossip, &frame);
    return n > 0 && net_control_parse(c, frame, n) == ERR_OK;
}

static void save(struct daemon *d, uint64_t number, const uint8_t *frontier, size_t n)
{
    char path[PEER_PATH_BYTES], part[PEER_PATH_BYTES + 8];
    peer_checkpoint_path(d->o.home, number, path);
    snprintf(part, sizeof part, "%s.part", path);
    FILE *f = fopen(part, "wbe");
    bool ok = f && fwrite(frontier, 1, n, f) == n && fflush(f) == 0 && fsync(fileno(f)) == 0;
    if (f && fclose(f) != 0)
        ok = false;
    if (!ok || rename(part, path) != 0)
        peer_log(PEER_WARN, "checkpoint", "number=%" PRIu64 " reason=\"its frontier cannot be written (disk full?)\"", number);
}

bool daemon_check_frontier(const struct daemon *d, uint64_t number, uint8_t **bytes, size_t *n)
{
    char path[PEER_PATH_BYTES], *text = NULL;
    struct err_why why;
    peer_checkpoint_path(d->o.home, number, path);
    if (peer_read_file(&text, n, path, FRONTIER_BYTES_MAX, &why) != ERR_OK)
        return false;
    *bytes = (uint8_t *)text;
    return true;
}

/* ---- the owner ---- */

static bool makes(const struct daemon *d)
{
    return d->o.checkpoint_every > 0 && memcmp(d->self.id, d->m->net.owner, 32) == 0 && d->snap.phase == SNAP_OFF;
}

static void name(struct daemon *d)
{
    struct peer_msg *m = peer_msg_new(PEER_MSG_NAME, sizeof *m);
    ENSURE(m != NULL);
    d->check.naming = true;
    d->check.asked_ns = daemon_now();
    daemon_mark(d, true);
    peer_pipe_send(d->to_compute, m);
}

void daemon_check_named(struct daemon *d, const struct peer_msg_named *m)
{
    struct net_control last;
    uint8_t hash[32], frame[NET_CONTROL_BYTES_MAX];
    d->check.naming = false;
    const bool any = daemon_check_last(d, &last);
    const uint64_t number = any ? last.number + 1 : 1;
    net_hash(hash, &(const struct net_part){m->frontier, m->n_frontier}, 1);
    if (any && memcmp(last.frontier, hash, 32) == 0)
        return; /* nothing came since */
    save(d, number, m->frontier, m->n_frontier);
    const size_t n = net_control_checkpoint(frame, &d->m->net, &d->self, number, hash, m->state);
    const enum err e = net_gossip_control(d->gossip, frame, n, daemon_now());
    daemon_actions(d);
    peer_log(e == ERR_OK ? PEER_INFO : PEER_WARN, "checkpoint", "number=%" PRIu64 " step=%" PRIu64, number, daemon_progress(d));
}

static bool names_what_is_held(const struct daemon *d)
{
    struct net_control last;
    uint8_t now[32];
    if (!daemon_check_last(d, &last))
        return false;
    net_gossip_frontier_digest(d->gossip, d->m->net.sync ? d->round : NET_ALL, now);
    return memcmp(last.frontier, now, 32) == 0;
}

/* The final model is the last checkpoint: named again when records came after it. */
bool daemon_check_final(struct daemon *d)
{
    if (!makes(d))
        return false;
    if (!d->check.naming && d->check.finals < FINALS_MAX && !names_what_is_held(d)) {
        d->check.finals++;
        name(d);
    }
    return d->check.naming && daemon_now() - d->check.asked_ns < final_ns;
}

bool daemon_check_awaited(const struct daemon *d)
{
    struct net_control c;
    char path[PEER_PATH_BYTES];
    if (!daemon_check_last(d, &c))
        return false; /* this owner makes none */
    peer_checkpoint_path(d->o.home, c.number, path);
    if (d->n_links > 0 && access(path, R_OK) != 0)
        return true;
    bool owner = false;
    for (size_t i = 0; i < d->n_links; i++)
        owner = owner || memcmp(d->links[i].machine, d->m->net.owner, 32) == 0;
    return owner && !names_what_is_held(d) && (double)(daemon_now() - d->finish_ns) < d->o.drain_s / 2 * (double)NS;
}

/* ---- everybody ---- */

static void ask(struct daemon *d, uint32_t link)
{
    uint8_t f[QUESTION] = {FRONTIER};
    memcpy(f + 1, d->check.want, 8);
    bytes_put_le(f + 9, d->check.got, 4);
    d->check.link = link;
    d->check.wanted_ns = daemon_now();
    if (net_transport_send(d->transport, link, f, sizeof f) != ERR_OK)
        d->send_failures++; /* asked again by the clock */
}

/* The frontier of the last checkpoint, if it is not here yet: from one neighbour after another. */
static void fetch(struct daemon *d, uint64_t now)
{
    struct net_control c;
    char path[PEER_PATH_BYTES];
    if (d->n_links == 0 || now - d->check.wanted_ns < ask_every_ns || !daemon_check_last(d, &c) ||
        c.number == d->check.have)
        return;
    peer_checkpoint_path(d->o.home, c.number, path);
    if (access(path, R_OK) == 0) {
        d->check.have = c.number;
        return;
    }
    memcpy(d->check.want, c.frontier, 32);
    d->check.want_number = c.number;
    d->check.got = 0;
    ask(d, d->links[d->check.turn++ % d->n_links].id);
}

static void take_piece(struct daemon *d, uint32_t link, const uint8_t *f, size_t n)
{
    const uint64_t total = bytes_get_le(f + 13, 4), len = n - ANSWER_HEAD;
    uint8_t hash[32];
    if (link != d->check.link || memcmp(f + 1, d->check.want, 8) != 0 || bytes_get_le(f + 9, 4) != d->check.got ||
        total > FRONTIER_BYTES_MAX || len > total - d->check.got || (d->check.got > 0 && total != d->check.total))
        return;
    if (d->check.got == 0) {
        uint8_t *p = realloc(d->check.bytes, total);
        if (!p)
            return;
        d->check.bytes = p;
        d->check.total = total;
    }
    memcpy(d->check.bytes + d->check.got, f + ANSWER_HEAD, len);
    d->check.got += len;
    net_transport_useful(d->transport, link);
    if (d->check.got < total) {
        ask(d, link);
        return;
    }
    d->check.got = 0;
    net_hash(hash, &(const struct net_part){d->check.bytes, total}, 1);
    if (memcmp(hash, d->check.want, 32) == 0) {
        save(d, d->check.want_number, d->check.bytes, total);
        peer_log(PEER_INFO, "checkpoint", "number=%" PRIu64 " frontier=here", d->check.want_number);
    }
}

static void give_piece(struct daemon *d, uint32_t link, const uint8_t *f)
{
    struct net_control c;
    char path[PEER_PATH_BYTES];
    uint8_t out[ANSWER_HEAD + JOIN_PIECE];
    if (!daemon_check_last(d, &c) || memcmp(f + 1, c.frontier, 8) != 0)
        return;
    peer_checkpoint_path(d->o.home, c.number, path);
    FILE *file = fopen(path, "rbe");
    const uint64_t at = bytes_get_le(f + 9, 4);
    if (!file)
        return;
    memcpy(out, f, QUESTION);
    if (fseek(file, 0, SEEK_END) == 0) {
        const long total = ftell(file);
        if (total > 0 && at < (uint64_t)total && fseek(file, (long)at, SEEK_SET) == 0) {
            bytes_put_le(out + 13, (uint64_t)total, 4);
            const size_t n = fread(out + ANSWER_HEAD, 1, JOIN_PIECE, file);
            if (n > 0 && net_transport_send(d->transport, link, out, ANSWER_HEAD + n) != ERR_OK)
                d->send_failures++;
        }
    }
    (void)fclose(file);
}

bool daemon_check_frame(struct daemon *d, uint32_t link, const uint8_t *f, size_t n)
{
    if (f[0] != FRONTIER)
        return false;
    if (n == QUESTION)
        give_piece(d, link, f);
    else if (n > ANSWER_HEAD)
        take_piece(d, link, f, n);
    return true;
}

void daemon_check_tick(struct daemon *d)
{
    const uint64_t step = daemon_progress(d), every = d->o.checkpoint_every;
    fetch(d, daemon_now());
    if (!makes(d) || d->check.naming || d->asking || step >= d->m->net.steps)
        return;
    if (d->check.next == 0)
        d->check.next = (step / every + 1) * every;
    if (step < d->check.next)
        return;
    d->check.next = (step / every + 1) * every;
    name(d);
}
