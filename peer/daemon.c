/* The net actor's start, loop and end. */
#include "peer/daemon_in.h"
#include "peer/invite.h"
#include "peer/log.h"
#include "peer/notify.h"
#include <errno.h>
#include <onebyte/base/bytes.h>
#include <onebyte/net/score.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static const uint64_t mark_every_ns = 20 * 1000000;   /* while events keep coming */
static const uint64_t flush_every_ns = NS;            /* foreign segments to disk */
static const uint64_t save_every_ns = 5 * NS;         /* status for `status` of a stopped peer */
static const uint64_t ask_own_ns = 5 * NS;            /* DESIGN 5: at most 5 s for our own feed */

uint64_t daemon_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

int64_t daemon_unix_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void quit(struct daemon *d, enum peer_daemon_end end)
{
    if (d->quit)
        return;
    d->quit = true;
    d->end = end;
}

/* ---- start ---- */

/* Has this key sealed anything, as far as the home or its ledger can tell? */
static bool key_was_used(const struct daemon *d)
{
    char sealed[PEER_PATH_BYTES], hex[65];
    struct net_ledger_damage damage;
    struct net_frontier_entry own;
    net_ledger_damaged(d->ledger, &damage);
    peer_home_get(d->o.home, "sealed", sealed);
    net_hex(hex, d->self.id, 32);
    return damage.own || strcmp(sealed, hex) == 0 || (net_gossip_feed(d->gossip, d->self.id, &own) && own.count > 0);
}

static enum err new_gossip(struct daemon *d, struct err_why *why)
{
    uint64_t seed;
    memcpy(&seed, d->self.id, sizeof seed);
    const enum err e = net_gossip_new(&d->gossip, &d->m->net, d->self.id, seed ^ d->started_ns);
    return e == ERR_OK ? e : err_set(why, e, "starting gossip: %s", err_str(e));
}

enum { BAD_FEEDS = 64 };

struct loading {
    struct daemon *d;
    bool fold; /* false: what gossip wants done is thrown away */
    bool last; /* the last pass: scores are looked at when their checkpoint is known, and once */
    uint64_t segments, refused;
    struct { uint8_t machine[32]; uint64_t seq; bool cut; } bad[BAD_FEEDS]; /* cut: a retraction takes it out, nothing is wrong with it */
    size_t n_bad;
};

static void take_actions(const struct loading *l)
{
    struct net_action a;
    if (l->fold)
        daemon_actions(l->d);
    else
        while (net_gossip_action(l->d->gossip, &a))
            ;
}

static bool load_segment(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n, int64_t unix_ms)
{
    struct loading *l = ctx;
    (void)unix_ms;
    if (l->n_bad > 0 && memcmp(l->bad[l->n_bad - 1].machine, machine, 32) == 0) {
        l->refused += !l->bad[l->n_bad - 1].cut; /* hangs on one that was refused */
        return true;
    }
    const enum err e = net_gossip_load(l->d->gossip, machine, wire, n);
    if (e == ERR_OK) {
        l->segments++;
        l->d->wire_bytes += n;
        l->d->wire_records += n - NET_SEGMENT_HEAD - NET_SIG_BYTES;
    } else {
        l->refused += e != ERR_RANGE;
        if (l->n_bad < BAD_FEEDS) {
            memcpy(l->bad[l->n_bad].machine, machine, 32);
            l->bad[l->n_bad].cut = e == ERR_RANGE;
            l->bad[l->n_bad++].seq = bytes_get_le(wire + 4, 8);
        }
    }
    take_actions(l);
    while (l->fold && peer_pipe_bytes(l->d->to_compute) > DAEMON_PIPE_BYTES)
        usleep(2000);
    peer_notify_alive(daemon_now());
    return true;
}

static bool load_control(void *ctx, const uint8_t *frame, size_t n)
{
    struct loading *l = ctx;
    if (!l->last && n > 0 && frame[0] == NET_SCORE)
        return true;
    const enum err e = net_gossip_load_control(l->d->gossip, frame, n);
    if (e != ERR_OK && e != ERR_RANGE && e != ERR_AGAIN)
        l->refused++;
    take_actions(l);
    return true;
}

/* Controls, segments, controls again: a fork proof needs its predecessor, a segment its author's admission. */
static enum err load_ledger(struct daemon *d, bool fold, struct err_why *why)
{
    struct loading l = {.d = d, .fold = fold};
    const enum err e1 = net_ledger_each_control(d->ledger, load_control, &l);
    l.refused = 0;
    const enum err e2 = net_ledger_each(d->ledger, load_segment, &l);
    l.last = true;
    const enum err e3 = net_ledger_each_control(d->ledger, load_control, &l);
    if (e1 != ERR_OK || e2 != ERR_OK || e3 != ERR_OK)
        return err_set(why, ERR_IO, "%s/ledger.db cannot be read; move it away and start again: the network has the rest",
                       d->o.home->dir);
    if (!fold)
        return ERR_OK;
    for (size_t i = 0; i < l.n_bad; i++) {
        if (net_ledger_truncate(d->ledger, l.bad[i].machine, l.bad[i].seq) != ERR_OK)
            d->ledger_errors++;
        if (!l.bad[i].cut && memcmp(l.bad[i].machine, d->self.id, 32) == 0)
            daemon_new_key(d, "segments of our own in the ledger were refused");
    }
    peer_log(l.refused ? PEER_WARN : PEER_INFO, "ledger", "segments=%llu refused=%llu", (unsigned long long)l.segments,
             (unsigned long long)l.refused);
    return ERR_OK;
}

static void log_damage(const struct daemon *d)
{
    struct net_ledger_damage x;
    net_ledger_damaged(d->ledger, &x);
    if (x.rows || x.controls || x.values || x.rebuilt)
        peer_log(PEER_WARN, "ledger_damaged", "rows=%llu feeds=%llu controls=%llu rebuilt=%s reason=\"dropped; the network "
                 "has them\"", (unsigned long long)x.rows, (unsigned long long)x.feeds, (unsigned long long)x.controls,
                 x.rebuilt ? "yes" : "no");
}

/* The ledger, what it holds, and whose it is: a home that was copied or restored gets a new key before anything is sealed. */
static enum err open_ledger(struct daemon *d, struct err_why *why)
{
    char path[PEER_PATH_BYTES], id[9];
    bool fresh = false, made = false;
    TRY(peer_home_identity(d->o.home, &d->self, true, &made, why));
    if (!net_identity_locked(&d->self))
        peer_log(PEER_WARN, "key", "reason=\"the key is not locked in memory and may reach the swap: ulimit -l 64, or LimitMEMLOCK=64K\"");
    peer_home_path(d->o.home, "ledger.db", path);
    TRY(net_ledger_open(&d->ledger, path, d->m->run_id, d->self.id, false, &fresh, why));
    TRY(new_gossip(d, why));
    if (!fresh || made)
        return fresh ? net_ledger_claim(d->ledger, d->self.id) : ERR_OK;
    TRY(load_ledger(d, false, why)); /* only to see whether our own feed is in it */
    const bool used = key_was_used(d);
    net_gossip_free(d->gossip);
    d->gossip = NULL;
    if (used) {
        net_identity_release(&d->self);
        TRY(peer_home_new_identity(d->o.home, &d->self, why));
        peer_short_id(id, d->self.id);
        peer_log(PEER_WARN, "new_key", "machine=%s reason=\"this home was copied or restored, or its ledger is new or damaged: "
                 "the old key never seals again\"", id);
    }
    if (net_ledger_claim(d->ledger, d->self.id) != ERR_OK)
        return err_set(why, ERR_IO, "%s: %s", path, net_ledger_error(d->ledger));
    return new_gossip(d, why);
}

static enum err start_transport(struct daemon *d, struct err_why *why)
{
    struct net_transport_options o = {.identity = &d->self, .listen = d->o.listen, .links_max = LIMIT_LINKS};
    memcpy(o.run_id, d->m->run_id, 32);
    TRY(net_transport_new(&d->transport, &o, why));
    const char *bound = net_transport_listening(d->transport);
    if (bound)
        net_gossip_listening(d->gossip, bound);
    for (size_t i = 0; i < d->o.n_connect; i++) /* a typing mistake is worth stopping for, an unreachable seed is not */
        TRY(net_transport_dial(d->transport, d->o.connect[i], why));
    for (size_t i = 0; i < d->o.n_connect; i++)
        daemon_dial(d, d->o.connect[i], true);
    daemon_addresses_load(d);
    return ERR_OK;
}

/* A handler and an eventfd, not a mask and a signalfd: BLAS starts threads before main, and one that does not block
 * the signal would take it and end the process. */
static int signal_event = -1;
static volatile sig_atomic_t signal_number;

static void on_signal(int number)
{
    const uint64_t one = 1;
    const int saved = errno;
    signal_number = number;
    if (write(signal_event, &one, sizeof one) < 0)
        signal_number = number; /* full: it is readable already */
    errno = saved;
}

static enum err start_signals(struct daemon *d, struct err_why *why)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    if (signal_event < 0)
        signal_event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); /* kept for the process's life: the handler is, too */
    if (signal_event < 0)
        return err_set(why, ERR_IO, "eventfd: %s", strerror(errno));
    d->signals = signal_event;
    (void)signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk: an error code */
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        struct sigaction before;
        if (sigaction(numbers[i], NULL, &before) != 0)
            return err_set(why, ERR_IO, "sigaction: %s", strerror(errno));
        if (numbers[i] == SIGHUP && before.sa_handler == SIG_IGN)
            continue; /* nohup */
        if (sigaction(numbers[i], &act, NULL) != 0)
            return err_set(why, ERR_IO, "sigaction: %s", strerror(errno));
    }
    return ERR_OK;
}

static enum err start_compute(struct daemon *d, struct err_why *why)
{
    const struct peer_compute_options c = {
        .engine = d->o.engine,
        .data = d->o.data,
        .batch = d->o.batch,
        .segment_max = d->o.segment_max ? d->o.segment_max : d->m->segment_max,
        .seal_s = d->o.seal_s > 0 ? d->o.seal_s : d->m->seal_s,
    };
    if (peer_pipe_new(&d->to_compute) != ERR_OK || peer_pipe_new(&d->from_compute) != ERR_OK)
        return err_set(why, ERR_IO, "no pipe between the actors: %s", strerror(errno));
    const enum err e = peer_compute_start(&d->compute, &c, d->to_compute, d->from_compute);
    return e == ERR_OK ? e : err_set(why, e, "the compute thread did not start: %s", err_str(e));
}

static json_t *web_status(void *ctx)
{
    return daemon_status(ctx);
}

static enum err start(struct daemon *d, struct err_why *why)
{
    d->held_tail = &d->held;
    d->paused = d->o.paused;
    if (d->o.host)
        d->host.limits = *d->o.host;
    (void)peer_host_throttled("", &d->throttled_at_start);
    d->signals = -1;
    d->started_ns = daemon_now();
    daemon_snap_start(d);
    peer_donor_init(&d->donor, d->m, d->o.model_dir);
    uint64_t whole = zo_state_bytes(d->o.engine->state);
    for (size_t i = 0; i < d->m->n_files; i++)
        whole += d->m->files[i].bytes;
    peer_uploads_init(&d->uploads, whole);
    TRY(start_signals(d, why));
    TRY(peer_control_open(&d->control, d->o.home->dir, why));
    if (d->o.metrics >= 0)
        TRY(peer_web_open(&d->web, (uint16_t)d->o.metrics, web_status, d, why));
    TRY(open_ledger(d, why));
    log_damage(d);
    daemon_audit_start(d);
    if (net_book_new(&d->book) != ERR_OK)
        return err_set(why, ERR_NOMEM, "out of memory");
    TRY(start_compute(d, why));
    TRY(load_ledger(d, true, why));
    daemon_round_start(d);
    TRY(start_transport(d, why));
    d->asking = d->n_dials > 0;
    daemon_snap_loaded(d);
    daemon_feed_send(d, false);
    d->dirty = true;
    daemon_mark(d, true);
    return ERR_OK;
}

static void log_started(const struct daemon *d)
{
    char id[9], run[9];
    const char *bound = net_transport_listening(d->transport);
    peer_short_id(id, d->self.id);
    peer_short_id(run, d->m->run_id);
    peer_log(PEER_INFO, "started", "run=%s machine=%s listen=%s dials=%zu data=%llu", run, id, bound ? bound : "none",
             d->n_dials, d->o.data ? (unsigned long long)zo_dataset_size(d->o.data) : 0ull);
    if (bound) {
        char invite[PEER_INVITE_BYTES];
        peer_invite_listening(invite, bound, d->m->run_id, d->self.id);
        peer_log(PEER_INFO, "invite", "invite=%s", invite);
    }
}

/* ---- loop ---- */

static void take_figures(struct daemon *d, const struct peer_msg_figures *f)
{
    const bool was = d->figures_known && !d->figures.why[0];
    char quoted[sizeof f->f.why];
    if (strcmp(f->f.why, "starting") == 0)
        quoted[0] = 0;
    else if (f->f.why[0] && (was || strcmp(d->figures.why, f->f.why) != 0)) {
        peer_log_quote(quoted, sizeof quoted, f->f.why);
        peer_log(PEER_INFO, "not_contributing", "why=\"%s\"", quoted);
    } else if (!f->f.why[0] && !was) {
        peer_log(PEER_INFO, "contributing", "step=%llu", (unsigned long long)f->f.step);
    }
    d->figures = f->f;
    d->figures_known = true;
    if (f->asked)
        daemon_answer_asks(d, true);
}

static void take_messages(struct daemon *d)
{
    struct peer_msg *m;
    while ((m = peer_pipe_receive(d->from_compute))) {
        switch (m->kind) {
        case PEER_MSG_SEALED:
            daemon_sealed(d, (const struct peer_msg_sealed *)(const void *)m);
            break;
        case PEER_MSG_FIGURES:
            take_figures(d, (const struct peer_msg_figures *)(const void *)m);
            break;
        case PEER_MSG_NAMED:
            daemon_check_named(d, (const struct peer_msg_named *)(const void *)m);
            break;
        case PEER_MSG_EVALED:
            daemon_eval_take(d, (const struct peer_msg_evaled *)(const void *)m);
            break;
        case PEER_MSG_AUDITED:
            daemon_audit_done(d, (struct peer_msg_audit *)(void *)m);
            break;
        case PEER_MSG_FATAL:
            d->why = ((const struct peer_msg_fatal *)(const void *)m)->why;
            quit(d, PEER_END_FAILED);
            break;
        default:
            ENSURE(false); /* a message of the other direction */
        }
        peer_msg_free(m);
    }
}

static void take_signals(struct daemon *d)
{
    uint64_t count;
    if (read(d->signals, &count, sizeof count) != (ssize_t)sizeof count)
        return;
    const int number = signal_number;
    peer_log(PEER_INFO, "signal", "signal=%s", number == SIGINT ? "INT" : number == SIGTERM ? "TERM" : "HUP");
    quit(d, PEER_END_STOPPED);
}

static void take_requests(struct daemon *d)
{
    json_t *request;
    uint64_t client;
    peer_control_ready(d->control);
    while (peer_control_next(d->control, &request, &client)) {
        daemon_request(d, request, client);
        json_decref(request);
    }
}

static int timeout_ms(const struct daemon *d, uint64_t now)
{
    if (d->dirty)
        return 0; /* look for more; with none, the mark goes out */
    uint64_t until = net_gossip_next_tick(d->gossip);
    const uint64_t limit = now + NS / 10;
    if (until > limit)
        until = limit;
    return until <= now ? 0 : (int)((until - now + 999999) / 1000000);
}

/* Do neighbours hold more of our own feed?  Until one agrees with us in everything, or frontiers were compared and a second
 * passed in which a difference would have shown, or nobody answered for five seconds. */
static void stop_asking(struct daemon *d, uint64_t now)
{
    size_t agree = 0, links = 0;
    struct net_gossip_counters c;
    net_gossip_agreement(d->gossip, &agree, &links);
    net_gossip_count(d->gossip, &c);
    const bool compared = d->first_link_ns && c.summaries > 0 && now - d->first_link_ns > NS;
    if (agree == 0 && !compared && now - d->started_ns < ask_own_ns)
        return;
    d->asking = false;
    d->dirty = true;
}

static void every_now_and_then(struct daemon *d, uint64_t now)
{
    if (now >= net_gossip_next_tick(d->gossip)) {
        net_gossip_tick(d->gossip, now);
        daemon_actions(d);
    }
    if (d->asking)
        stop_asking(d, now);
    daemon_snap_tick(d);
    daemon_check_tick(d);
    daemon_eval_tick(d);
    daemon_audit_tick(d);
    if (d->m->net.sync)
        daemon_round_tick(d);
    daemon_answer_asks(d, false);
    if (d->paused && d->paused_until_ns && now >= d->paused_until_ns) {
        d->paused = false;
        peer_log(PEER_INFO, "resume", "reason=\"the pause is over\"");
    }
    if (now - d->saved_ns >= flush_every_ns) {
        const bool save = (now - d->started_ns) / save_every_ns != (d->saved_ns - d->started_ns) / save_every_ns;
        d->saved_ns = now;
        if (net_ledger_flush(d->ledger) != ERR_OK)
            d->ledger_errors++;
        else if (now >= d->disk_retry_ns)
            d->disk_failed = false; /* the next own segment tells */
        daemon_pace(d, now);
        daemon_redial(d);
        if (save)
            daemon_status_save(d);
    }
    if (d->hold_marked != daemon_hold(d))
        d->dirty = true;
    daemon_finish(d);
}

/* ns until what was sent and received is within --max-upload and --max-download again. */
static uint64_t over_rate(struct daemon *d, uint64_t now)
{
    const struct peer_host_limits *l = &d->host.limits;
    struct net_traffic t;
    if (!l->upload && !l->download)
        return 0;
    net_transport_traffic(d->transport, &t);
    const uint64_t up = peer_bucket_wait(&d->host.up, 1000 * l->upload, t.handed, now);
    const uint64_t down = peer_bucket_wait(&d->host.down, 1000 * l->download, t.received, now);
    return up > down ? up : down;
}

/* The network rests: nothing is read or sent, the owner is still heard.  Own segments wait with the compute actor.  Never so
 * long that neighbours take us for dead (LIMIT_SILENCE_MS). */
static void rest(struct daemon *d, uint64_t ns, const int *fds, size_t n_fds)
{
    struct pollfd p[2 + PEER_CONTROL_CLIENTS + 1 + 1];
    const int ms = ns > NS / 10 ? 100 : (int)(ns / 1000000) + 1;
    for (size_t i = 1; i < n_fds; i++) /* without the pipe, the first */
        p[i - 1] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    (void)poll(p, n_fds - 1, ms);
    take_signals(d);
    take_requests(d);
    daemon_answer_asks(d, false);
    if (d->web)
        peer_web_turn(d->web, daemon_now());
}

static void turn(struct daemon *d)
{
    int fds[2 + PEER_CONTROL_CLIENTS + 1 + 1];
    fds[0] = peer_pipe_fd(d->from_compute);
    fds[1] = d->signals;
    size_t n_fds = 2 + peer_control_fds(d->control, fds + 2);
    if (d->web)
        fds[n_fds++] = peer_web_fd(d->web);
    struct net_event e;
    const uint64_t before = daemon_now(), debt = over_rate(d, before);
    peer_notify_alive(before);
    if (debt) {
        rest(d, debt, fds, n_fds);
        return;
    }
    if (peer_pipe_bytes(d->to_compute) > DAEMON_PIPE_BYTES)
        usleep(2000); /* the compute actor is behind: so is the network, then */
    const enum err err = net_transport_poll(d->transport, &e, fds, n_fds, timeout_ms(d, before));
    if (err == ERR_OK && e.kind == NET_WAKE) {
        take_messages(d);
        take_signals(d);
        take_requests(d);
    } else if (err == ERR_OK) {
        daemon_event(d, &e);
    } else if (err != ERR_AGAIN) {
        (void)err_set(&d->why, err, "the network stopped: %s", err_str(err));
        quit(d, PEER_END_FAILED);
    }
    const uint64_t now = daemon_now();
    if (d->web)
        peer_web_turn(d->web, now);
    every_now_and_then(d, now);
    if (d->dirty && (err == ERR_AGAIN || now - d->marked_ns >= mark_every_ns))
        daemon_mark(d, false);
}

/* ---- end ---- */

static void stop_all(struct daemon *d)
{
    if (d->compute) {
        if (d->end != PEER_END_FAILED && d->snap.phase != SNAP_OFF) {
            daemon_snap_release(d);
            daemon_mark(d, true);
        }
        peer_compute_stop(d->compute);
        d->compute = NULL;
        take_messages(d); /* the last figures; a segment sealed meanwhile is stored and sent */
    }
    if (d->transport) {
        net_transport_traffic(d->transport, &d->traffic);
        net_transport_free(d->transport);
    }
    d->transport = NULL;
}

static void release(struct daemon *d)
{
    peer_web_close(d->web);
    peer_control_close(d->control);
    net_ledger_close(d->ledger);
    net_gossip_free(d->gossip);
    net_book_free(d->book);
    net_identity_release(&d->self);
    peer_pipe_free(d->to_compute);
    peer_pipe_free(d->from_compute);
    daemon_round_free(d);
    daemon_snap_free(d);
    daemon_audit_free(d);
    free(d->check.bytes);
    daemon_eval_free(d);
    peer_donor_release(&d->donor);
}

enum peer_daemon_end peer_daemon_run(const struct peer_daemon_options *o, json_t **status, struct err_why *why)
{
    static const char *const ends[] = {"finished", "stopped", "new_key", "failed"};
    struct daemon *d = calloc(1, sizeof *d);
    if (!d) {
        (void)err_set(why, ERR_NOMEM, "out of memory");
        return PEER_END_FAILED;
    }
    d->o = *o;
    d->m = o->manifest;
    enum peer_daemon_end end = PEER_END_FAILED;
    if (start(d, why) == ERR_OK) {
        log_started(d);
        (void)peer_notify("READY=1\nSTATUS=taking part in the run");
        while (!d->quit)
            turn(d);
        if (d->end != PEER_END_NEW_KEY)
            (void)peer_notify("STOPPING=1\nSTATUS=leaving");
        if (d->end == PEER_END_FAILED)
            *why = d->why;
        end = d->end;
        stop_all(d);
        daemon_addresses_save(d);
        daemon_status_save(d);
        if (net_ledger_flush(d->ledger) != ERR_OK)
            peer_log(PEER_WARN, "ledger", "reason=\"the last segments of others could not be written; the network has them\"");
        if (status)
            *status = daemon_status(d);
        peer_log(PEER_INFO, "left", "reason=%s step=%llu digest=%016llx", ends[end], (unsigned long long)d->figures.step,
                 (unsigned long long)d->figures.digest);
    } else {
        stop_all(d);
    }
    release(d);
    free(d);
    return end;
}
