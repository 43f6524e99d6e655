/* Snapshots: serving one, fetching one, and what the compute actor is told until the state is built.
 *
 * At start the folds are held back: nothing is lost, because gossip has every segment.  With a snapshot (our own of last
 * time, or a neighbour's) the compute actor gets the folds that the snapshot names, the snapshot to prove by them, then the
 * difference.  Without one, or whenever anything is not as it should be, it simply gets every fold. */
#include "peer/daemon_in.h"
#include "peer/join_in.h"
#include "peer/log.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <onebyte/base/bytes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WANT_STATE = JOIN_WANT_STATE, STATE = 70, WANT_BYTES = 17, STATE_HEAD = 25 };
static const uint64_t look_ns = 5 * NS;       /* for a neighbour that has one */
static const uint64_t patience_ns = 20 * NS;  /* without a piece of it: a donor at --max-upload 16 rests 16 s after a window */
static const uint64_t ledger_ns = 60 * NS;    /* for the ledger to reach it */
static const uint64_t look_again_ns = NS / 20;
static const uint64_t report_ns = 2 * NS;
_Static_assert(STATE_HEAD + JOIN_PIECE <= LIMIT_FRAME_BYTES, "a piece fits a frame");

static void snap_path(const struct daemon *d, const char *name, char out[PEER_PATH_BYTES])
{
    char sub[64];
    snprintf(sub, sizeof sub, "snapshots/%s", name);
    peer_home_path(d->o.home, sub, out);
}

/* ---- building the state ---- */

static bool in_snapshot(const struct peer_snapshot *s, const uint8_t machine[32], const struct net_segment *seg)
{
    struct net_frontier_entry e;
    return s && peer_snapshot_entry(s, machine, &e) && seg->first_seq + seg->count <= e.count;
}

/* Every segment that gossip holds, either those of the snapshot or the others, to the compute actor. */
static void fold_held(struct daemon *d, const struct peer_snapshot *s, bool inside)
{
    struct net_feed_view v;
    struct net_segment seg;
    uint8_t counts[LIMIT_SEGMENT_COUNT], id[32];
    for (size_t i = 0; net_gossip_feed_at(d->gossip, i, &v); i++)
        for (size_t j = 0; net_gossip_segment(d->gossip, v.entry.machine, j, &seg, id, counts); j++) {
            struct net_action a = {.kind = NET_FOLD, .segment = &seg, .counts = counts};
            if (in_snapshot(s, v.entry.machine, &seg) != inside || !memchr(counts, 1, seg.count))
                continue;
            memcpy(a.machine, v.entry.machine, 32);
            daemon_fold(d, &a);
            while (peer_pipe_bytes(d->to_compute) > DAEMON_PIPE_BYTES)
                usleep(2000);
        }
}

static void fetch_end(struct daemon *d)
{
    if (d->snap.fd >= 0)
        close(d->snap.fd);
    d->snap.fd = -1;
    d->snap.donor = 0;
}

/* The state is built from what is held now; with a snapshot (which is consumed) if there is one. */
static void build(struct daemon *d, struct peer_snapshot *s)
{
    fetch_end(d);
    d->snap.phase = SNAP_OFF;
    if (s && s->map) {
        struct peer_msg_prove *m = peer_msg_new(PEER_MSG_PROVE, sizeof *m);
        ENSURE(m != NULL);
        fold_held(d, s, true);
        m->snapshot = *s; /* the map stays where it is: s is read below while the actor reads it too */
        snap_path(d, "state", m->path);
        ENSURE(getrandom(m->key, sizeof m->key, 0) == (ssize_t)sizeof m->key);
        /* The entries are copied: the actor may close the file before the difference is sent. */
        struct peer_snapshot frontier = *s;
        uint8_t *entries = malloc(PEER_FRONTIER_ENTRY * s->n_frontier + 1);
        ENSURE(entries != NULL);
        memcpy(entries, s->frontier, PEER_FRONTIER_ENTRY * s->n_frontier);
        frontier.frontier = entries;
        *s = (struct peer_snapshot){.map = NULL};
        peer_pipe_send(d->to_compute, m);
        fold_held(d, &frontier, false);
        free(entries);
    } else {
        fold_held(d, NULL, false);
    }
    d->dirty = true;
}

void daemon_snap_release(struct daemon *d)
{
    if (d->snap.phase == SNAP_OFF)
        return;
    peer_snapshot_close(&d->snap.have);
    build(d, NULL);
}

/* ---- start ---- */

void daemon_snap_start(struct daemon *d)
{
    char path[PEER_PATH_BYTES];
    d->snap.fd = -1;
    for (size_t i = 0; i < SNAP_SERVED; i++)
        d->snap.served[i].fd = -1;
    peer_home_path(d->o.home, "snapshots", path);
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        peer_log(PEER_WARN, "snapshot", "reason=\"no folder for snapshots: %s\"", strerror(errno));
    /* Sync rounds hold folds back by themselves; dense directions are proved no faster than folded. */
    if (d->o.snapshot_every > 0 && !d->m->net.sync && d->m->rules.direction == ZO_RANK1)
        d->snap.phase = SNAP_LOOK;
}

static void ask_state(struct daemon *d, uint32_t link, uint64_t offset)
{
    uint8_t f[WANT_BYTES] = {WANT_STATE};
    memcpy(f + 1, d->snap.id, 8);
    bytes_put_le(f + 9, offset, 8);
    d->snap.heard_ns = daemon_now();
    d->snap.asked_to = offset + PEER_WINDOW_BYTES;
    if (net_transport_send(d->transport, link, f, sizeof f) != ERR_OK)
        d->send_failures++; /* asked again, or given up, by the clock */
}

/* What we have of our own, or just fetched.  true: the phase is decided. */
static bool try_file(struct daemon *d)
{
    char path[PEER_PATH_BYTES];
    snap_path(d, "state", path);
    peer_snapshot_close(&d->snap.have);
    const enum err e = peer_snapshot_open(&d->snap.have, path, d->m->run_id, zo_state_bytes(d->o.engine->state));
    if (e != ERR_OK) {
        if (e == ERR_FORMAT)
            peer_log(PEER_WARN, "snapshot", "reason=\"damaged or of another run: left out\"");
        return false;
    }
    d->snap.phase = SNAP_WAIT;
    d->snap.since_ns = daemon_now();
    d->snap.checked_ns = 0;
    return true;
}

void daemon_snap_loaded(struct daemon *d)
{
    if (d->snap.phase == SNAP_OFF)
        return;
    d->snap.since_ns = daemon_now();
    if (!try_file(d) && d->n_dials == 0)
        build(d, NULL);
    daemon_snap_tick(d);
}

/* ---- fetching ---- */

/* Often its link was just replaced by one the other way round: the new one, or another neighbour, is asked again. */
static void donor_lost(struct daemon *d)
{
    enum { LOST_MAX = 3 };
    if (++d->snap.lost > LOST_MAX) {
        build(d, NULL);
        return;
    }
    d->snap.phase = SNAP_LOOK;
    d->snap.since_ns = daemon_now();
    d->snap.nones = 0;
    memset(d->snap.id, 0, sizeof d->snap.id);
    for (size_t i = 0; i < d->n_links; i++)
        ask_state(d, d->links[i].id, 0);
}

void daemon_snap_link(struct daemon *d, uint32_t link, bool up)
{
    static const uint8_t any[8] = {0};
    if (up && d->snap.phase == SNAP_LOOK) {
        memcpy(d->snap.id, any, 8);
        ask_state(d, link, 0);
    } else if (!up && d->snap.phase == SNAP_FETCH && d->snap.donor == link) {
        fetch_end(d);
        donor_lost(d);
    }
}

static bool fetch_begin(struct daemon *d, uint32_t link, const uint8_t *f)
{
    char path[PEER_PATH_BYTES];
    const uint64_t state = zo_state_bytes(d->o.engine->state), total = bytes_get_le(f + 9, 8);
    const uint64_t most = state + (uint64_t)LIMIT_FEEDS * PEER_FRONTIER_ENTRY + PEER_SNAPSHOT_HEAD + 32;
    if (total <= state || total > most || bytes_get_le(f + 17, 8) != 0)
        return false;
    snap_path(d, "state.part", path);
    d->snap.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (d->snap.fd < 0)
        return false;
    d->snap.phase = SNAP_FETCH;
    d->snap.donor = link;
    d->snap.got = 0;
    d->snap.total = total;
    d->snap.since_ns = d->snap.reported_ns = daemon_now();
    memcpy(d->snap.id, f + 1, 8);
    return true;
}

static void fetched(struct daemon *d)
{
    char part[PEER_PATH_BYTES], path[PEER_PATH_BYTES];
    const double s = (double)(daemon_now() - d->snap.since_ns) / (double)NS;
    peer_log(PEER_INFO, "snapshot", "fetched=yes bytes=%" PRIu64 " s=%.3f", d->snap.total, s);
    fetch_end(d);
    snap_path(d, "state.part", part);
    snap_path(d, "state", path);
    if (rename(part, path) != 0 || !try_file(d))
        build(d, NULL);
}

static void take_state(struct daemon *d, uint32_t link, const uint8_t *f, size_t n)
{
    if (n <= STATE_HEAD || (d->snap.phase == SNAP_LOOK && !fetch_begin(d, link, f)))
        return;
    const size_t len = n - STATE_HEAD;
    if (d->snap.phase != SNAP_FETCH || link != d->snap.donor || memcmp(f + 1, d->snap.id, 8) != 0 ||
        bytes_get_le(f + 9, 8) != d->snap.total || bytes_get_le(f + 17, 8) != d->snap.got || len > d->snap.total - d->snap.got)
        return; /* of another question */
    if (pwrite(d->snap.fd, f + STATE_HEAD, len, (off_t)d->snap.got) != (ssize_t)len) {
        peer_log(PEER_WARN, "snapshot", "reason=\"it cannot be written here (disk full?): folding from the base\"");
        build(d, NULL);
        return;
    }
    d->snap.got += len;
    d->snap.heard_ns = daemon_now();
    net_transport_useful(d->transport, link); /* asked for: no flood, however fast */
    if (d->snap.got == d->snap.total)
        fetched(d);
    else if (d->snap.got >= d->snap.asked_to)
        ask_state(d, link, d->snap.got);
}

static void report(struct daemon *d, uint64_t now)
{
    if (now - d->snap.reported_ns < report_ns)
        return;
    d->snap.reported_ns = now;
    const double s = (double)(now - d->snap.since_ns) / (double)NS, rate = s > 0 ? (double)d->snap.got / s : 0;
    peer_log(PEER_INFO, "snapshot", "bytes=%" PRIu64 " of=%" PRIu64 " bytes_per_s=%.3g left_s=%.0f", d->snap.got,
             d->snap.total, rate, rate > 0 ? (double)(d->snap.total - d->snap.got) / rate : 0.0);
}

/* Everything is here but perhaps the ledger. */
static void wait_ledger(struct daemon *d, uint64_t now)
{
    if (now - d->snap.checked_ns < look_again_ns)
        return;
    d->snap.checked_ns = now;
    const uint64_t waited = now - d->snap.since_ns;
    const enum peer_held held = peer_snapshot_held(&d->snap.have, d->gossip);
    if (held == PEER_HELD) {
        build(d, &d->snap.have);
    } else if (held == PEER_NEVER || waited > ledger_ns || (d->n_links == 0 && (d->n_dials == 0 || waited > look_ns))) {
        peer_log(PEER_INFO, "snapshot", "reason=\"it is not of a state that this ledger reaches: folding from the base\"");
        daemon_snap_release(d);
    }
}

void daemon_snap_tick(struct daemon *d)
{
    const uint64_t now = daemon_now();
    switch (d->snap.phase) {
    case SNAP_LOOK:
        if (now - d->snap.since_ns > look_ns || (d->transport && !d->asking && now - d->snap.since_ns > NS))
            build(d, NULL);
        break;
    case SNAP_FETCH:
        report(d, now);
        if (now - d->snap.heard_ns > patience_ns) {
            peer_log(PEER_WARN, "snapshot", "reason=\"the donor fell silent: folding from the base\"");
            build(d, NULL);
        }
        break;
    case SNAP_WAIT:
        wait_ledger(d, now);
        break;
    case SNAP_OFF:
        break;
    }
    if (d->snap.phase == SNAP_OFF && d->o.snapshot_every > 0 && !d->m->net.sync && d->figures_known &&
        d->figures.folded >= d->snap.written + d->o.snapshot_every) {
        struct peer_msg_write *m = peer_msg_new(PEER_MSG_WRITE, sizeof *m);
        ENSURE(m != NULL);
        snap_path(d, "state", m->path);
        d->snap.written = d->figures.folded;
        peer_pipe_send(d->to_compute, m);
    }
}

/* ---- serving ---- */

/* The newest one, and the one before it while somebody may still be fetching that. */
static struct snap_served *serve(struct daemon *d, const uint8_t id[8])
{
    static const uint8_t any[8] = {0};
    struct snap_served *s = d->snap.served;
    struct snap_served now = {.fd = -1};
    struct stat st;
    char path[PEER_PATH_BYTES];
    if (memcmp(id, any, 8) != 0) {
        for (size_t i = 0; i < SNAP_SERVED; i++)
            if (s[i].fd >= 0 && memcmp(s[i].id, id, 8) == 0)
                return &s[i];
        return NULL;
    }
    snap_path(d, "state", path);
    if (d->snap.phase != SNAP_OFF || (now.fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        return NULL;
    if (fstat(now.fd, &st) != 0 || st.st_size < PEER_SNAPSHOT_HEAD + 32 || pread(now.fd, now.id, 8, st.st_size - 32) != 8) {
        close(now.fd);
        return NULL;
    }
    now.bytes = (uint64_t)st.st_size;
    if (s[0].fd >= 0 && memcmp(s[0].id, now.id, 8) == 0) {
        close(now.fd);
        return &s[0];
    }
    if (s[SNAP_SERVED - 1].fd >= 0)
        close(s[SNAP_SERVED - 1].fd);
    memmove(s + 1, s, (SNAP_SERVED - 1) * sizeof *s);
    s[0] = now;
    return &s[0];
}

static void give_state(struct daemon *d, uint32_t link, const uint8_t *f)
{
    uint8_t out[STATE_HEAD + JOIN_PIECE] = {STATE};
    const uint64_t from = bytes_get_le(f + 9, 8);
    const struct snap_served *s = serve(d, f + 1);
    if (!s || from >= s->bytes) {
        const uint8_t none[2] = {JOIN_NONE, WANT_STATE};
        (void)!net_transport_send(d->transport, link, none, sizeof none);
        return;
    }
    const uint64_t end = s->bytes - from < PEER_WINDOW_BYTES ? s->bytes : from + PEER_WINDOW_BYTES;
    memcpy(out + 1, s->id, 8);
    bytes_put_le(out + 9, s->bytes, 8);
    for (uint64_t at = from; at < end;) {
        const size_t want = end - at < JOIN_PIECE ? (size_t)(end - at) : JOIN_PIECE;
        const ssize_t got = pread(s->fd, out + STATE_HEAD, want, (off_t)at);
        bytes_put_le(out + 17, at, 8);
        if (got <= 0 || net_transport_send(d->transport, link, out, STATE_HEAD + (size_t)got) != ERR_OK)
            return; /* the joiner gives up after a while and folds */
        at += (uint64_t)got;
    }
}

static void none_there(struct daemon *d)
{
    if (d->snap.phase == SNAP_FETCH || (d->snap.phase == SNAP_LOOK && ++d->snap.nones >= d->n_links))
        build(d, NULL);
}

bool daemon_snap_frame(struct daemon *d, uint32_t link, const uint8_t *f, size_t n)
{
    if (f[0] == WANT_STATE && n == WANT_BYTES)
        give_state(d, link, f);
    else if (f[0] == STATE)
        take_state(d, link, f, n);
    else if (f[0] == JOIN_NONE && n == 2 && f[1] == WANT_STATE)
        none_there(d);
    else
        return f[0] == WANT_STATE;
    return true;
}

void daemon_snap_free(struct daemon *d)
{
    fetch_end(d);
    peer_snapshot_close(&d->snap.have);
    for (size_t i = 0; i < SNAP_SERVED; i++)
        if (d->snap.served[i].fd >= 0)
            close(d->snap.served[i].fd);
}

const char *daemon_snap_why(const struct daemon *d)
{
    switch (d->snap.phase) {
    case SNAP_LOOK:
        return "joining: asking the neighbours for a snapshot";
    case SNAP_FETCH:
        return "joining: fetching a snapshot";
    case SNAP_WAIT:
        return "joining: fetching the ledger";
    case SNAP_OFF:
        break;
    }
    return NULL;
}
