/* Public calls and the poll loop: ZeroMQ's sockets, the caller's descriptors and the timers, in one
 * thread. */
#include <onebyte/net/transport.h>
#include "net/transport_private.h"
#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <time.h>

enum {
    TICK_MS = 250,     /* upkeep of proved links */
    TICK_FAST_MS = 50, /* while somebody is on probation: few bytes, few milliseconds */
    GONE_MS = 20, /* between a lost connection and its LINK_DOWN: its last messages are still on
                     their way inside ZeroMQ */
    IN_ROW = 32,  /* frames handed out before the caller's descriptors are looked at again */
    PAUSE_MS =
        15000, /* a longer gap between two polls: the machine slept, or the process was stopped */
    GRACE_MS = 10000, /* for links to speak after it */
};

/* ---- making and freeing ---- */

enum err net_transport_new(struct net_transport **out, const struct net_transport_options *o,
                           struct err_why *why)
{
    struct net_transport *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(why, ERR_NOMEM, "out of memory");
    t->identity = o->identity;
    memcpy(t->run_id, o->run_id, 32);
    t->links_max = o->links_max ? o->links_max : LIMIT_LINKS;
    t->probation_ms = o->probation_ms ? o->probation_ms : LIMIT_PROBATION_MS;
    t->ping_ms = o->ping_ms ? o->ping_ms : LIMIT_PING_MS;
    t->silence_ms = o->silence_ms ? o->silence_ms : LIMIT_SILENCE_MS;
    t->penalty_ms = o->penalty_ms ? o->penalty_ms : LIMIT_PENALTY_MS;
    t->hold_ms = o->hold_ms ? o->hold_ms : LIMIT_HOLD_MS;
    t->retry_ms = o->retry_ms ? o->retry_ms : LIMIT_RETRY_MS;
    t->loopback_counts = o->loopback_counts;
    t->frames_per_s = o->frames_per_s ? o->frames_per_s : LIMIT_FRAMES_IN;
    t->units_left = 2 * (int64_t)t->frames_per_s;
    t->now_ms = t->polled_ms = t->refilled_ms = clock_ms();
    proof_run_key(t->server_public, t->server_secret, t->run_id);
    t->context = zmq_ctx_new();
    enum err e =
        t->context ? ERR_OK
                   : err_set(why, ERR_NOMEM, "cannot start ZeroMQ: %s", zmq_strerror(zmq_errno()));
    if (e == ERR_OK && o->listen)
        e = zmq_listen(t, o->listen, why);
    if (e != ERR_OK) {
        net_transport_free(t);
        return e;
    }
    *out = t;
    return ERR_OK;
}

static void release_message(struct net_transport *t)
{
    if (t->holds_message)
        (void)zmq_msg_close(&t->message);
    t->holds_message = false;
}

void net_transport_free(struct net_transport *t)
{
    if (!t)
        return;
    release_message(t);
    t->now_ms = clock_ms();
    for (size_t i = t->n_conns; i-- > 0;) {
        struct conn *c = t->conns[i];
        if (!c->outgoing && c->state == CONN_UP)
            (void)conn_note(t, c, &(struct note){.kind = NOTE_BYE, .bye = BYE_LEAVING});
    }
    while (t->n_dials > 0) {
        struct dial *d = t->dials[0];
        if (d->conn && d->conn->state == CONN_UP)
            (void)conn_note(t, d->conn, &(struct note){.kind = NOTE_BYE, .bye = BYE_LEAVING});
        dial_free(t, d);
    }
    zmq_socket_end(&t->router, &t->router_monitor, 1000);
    void *none = NULL;
    zmq_socket_end(&t->zap, &none, 0);
    while (t->n_conns > 0)
        conn_remove(t, t->conns[0]);
    if (t->context)
        while (zmq_ctx_term(t->context) != 0 && zmq_errno() == EINTR)
            continue;
    free(t->conns);
    free(t->events);
    free(t->items);
    sodium_memzero(t->server_secret, sizeof t->server_secret);
    free(t);
}

const char *net_transport_listening(const struct net_transport *t)
{
    return t->router ? t->listening : NULL;
}

/* ---- dialling, sending, closing ---- */

static struct dial *dial_by_address(const struct net_transport *t, const char *address)
{
    for (size_t i = 0; i < t->n_dials; i++)
        if (strcmp(t->dials[i]->address, address) == 0 && !t->dials[i]->doomed)
            return t->dials[i];
    return NULL;
}

enum err net_transport_dial(struct net_transport *t, const char *address, struct err_why *why)
{
    struct dial parsed;
    TRY(dial_parse(&parsed, address, why));
    struct dial *d = dial_by_address(t, parsed.address);
    t->now_ms = clock_ms();
    if (d) {
        d->next_ms = 0;
        d->pinned = parsed.pinned;
        memcpy(d->pin, parsed.pin, 32);
        return ERR_OK;
    }
    if (t->n_dials == LIMIT_DIALS)
        return err_set(why, ERR_RANGE, "%d addresses are dialled already: that is the limit",
                       LIMIT_DIALS);
    d = malloc(sizeof *d);
    if (!d)
        return err_set(why, ERR_NOMEM, "out of memory");
    *d = parsed;
    t->dials[t->n_dials++] = d;
    return ERR_OK;
}

void net_transport_hang_up(struct net_transport *t, const char *address)
{
    struct dial parsed, *d;
    if (dial_parse(&parsed, address, NULL) != ERR_OK || !(d = dial_by_address(t, parsed.address)))
        return;
    release_message(t);
    if (d->conn)
        conn_end(t, d->conn, BYE_LEAVING, NULL);
    dial_free(t, d);
}

enum err net_transport_send(struct net_transport *t, uint32_t link, const uint8_t *frame, size_t n)
{
    struct conn *c = conn_by_link(t, link);
    if (n == 0 || n > LIMIT_FRAME_BYTES || frame[0] == NET_FRAME_RESERVED)
        return ERR_RANGE;
    if (!c || c->gone_ms)
        return ERR_NOTFOUND;
    if (rate_shunned(c))
        return ERR_AGAIN;
    return conn_send(t, c, frame, n) ? ERR_OK : ERR_AGAIN;
}

void net_transport_close(struct net_transport *t, uint32_t link, bool blame)
{
    struct conn *c = conn_by_link(t, link);
    if (!c)
        return;
    t->now_ms = clock_ms();
    if (blame)
        penalise(t, c->machine);
    conn_end(t, c, blame ? BYE_KEPT_OUT : BYE_LEAVING, NULL);
}

void net_transport_useful(struct net_transport *t, uint32_t link)
{
    struct conn *c = conn_by_link(t, link);
    if (!c)
        return;
    rate_useful(c);
}

/* ---- what comes in ---- */

static void monitor_router(struct net_transport *t)
{
    uint16_t event;
    int32_t value;
    while (t->router_monitor && zmq_monitor_next(t->router_monitor, &event, &value)) {
        struct conn *c = event == ZMQ_EVENT_DISCONNECTED ? conn_by_fd(t, value) : NULL;
        if (event == ZMQ_EVENT_ACCEPTED)
            conn_accepted(t, value);
        else if (c)
            conn_gone(t, c);
        else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL ||
                 event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL ||
                 event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
            t->count.handshake_failed++;
    }
}

/* Whose message is it?  A new ROUTER id is tied to the connection its descriptor names, with the
 * key that ZAP saw. */
static struct conn *sender_of(struct net_transport *t, const uint8_t *rid, size_t rid_n)
{
    for (size_t i = 0; i < t->n_conns; i++)
        if (!t->conns[i]->outgoing && t->conns[i]->rid_n == rid_n &&
            memcmp(t->conns[i]->rid, rid, rid_n) == 0)
            return t->conns[i];
    monitor_router(t); /* its ACCEPTED precedes its first message */
    const char *user = zmq_msg_gets(&t->message, "User-Id"); /* of the payload's frame: trap 3 */
    struct conn *c = conn_by_fd(t, zmq_msg_get(&t->message, ZMQ_SRCFD));
    const bool chosen = rid_n != 5 || rid[0] != 0; /* by the peer, which no peer of ours does: trap 2 */
    if (!c || c->rid_n != 0 || chosen || !user || net_unhex(c->k, 32, user) != ERR_OK) {
        t->count.bad_message++;
        if (c)
            conn_end(t, c, 0, "it sent what no peer sends");
        return NULL;
    }
    memcpy(c->rid, rid, rid_n);
    c->rid_n = rid_n;
    return c;
}

/* The rest of a multipart message, which no peer sends. */
static bool skip_parts(void *socket, zmq_msg_t *m)
{
    bool any = false;
    while (zmq_msg_more(m)) {
        any = true;
        (void)zmq_msg_close(m);
        (void)zmq_msg_init(m);
        if (zmq_msg_recv(m, socket, ZMQ_DONTWAIT) < 0)
            break; /* never: a message arrives whole */
    }
    return any;
}

enum got { GOT_NOTHING, GOT_OWN, GOT_FRAME };

/* Takes one message from the ROUTER (d NULL) or a dial's DEALER. */
static enum got take(struct net_transport *t, struct dial *d, struct conn **from)
{
    uint8_t rid[RID_MAX];
    void *socket = d ? d->socket : t->router;
    size_t rid_n = 0;
    release_message(t);
    if (!d) {
        const int got = zmq_recv(socket, rid, sizeof rid, ZMQ_DONTWAIT);
        if (got < 0)
            return GOT_NOTHING;
        rid_n = (size_t)got < sizeof rid ? (size_t)got : sizeof rid;
    }
    (void)zmq_msg_init(&t->message);
    t->holds_message = true;
    if (zmq_msg_recv(&t->message, socket, ZMQ_DONTWAIT) < 0)
        return GOT_NOTHING;
    const bool multipart = skip_parts(socket, &t->message);
    struct conn *c = d ? d->conn : sender_of(t, rid, rid_n);
    if (!c)
        return GOT_OWN;
    if (multipart) {
        t->count.multipart++;
        if (c->state == CONN_UP)
            penalise(t, c->machine);
        conn_end(t, c, 0, "it sent what no peer sends");
        return GOT_OWN;
    }
    *from = c;
    return conn_message(t, c, zmq_msg_data(&t->message), zmq_msg_size(&t->message)) ? GOT_FRAME
                                                                                    : GOT_OWN;
}

/* Connections that ended, once their last messages are read.  d NULL: the accepted ones. */
static void bury(struct net_transport *t, struct dial *d)
{
    if (d) {
        if (d->conn && d->conn->gone_ms && t->now_ms - d->conn->gone_ms >= GONE_MS)
            conn_end(t, d->conn, 0,
                     d->greeted ? "the connection broke"
                                : "it closed the connection: it takes part in another run, or is "
                                  "no onebyte peer, or is full");
        return;
    }
    for (size_t i = 0; i < t->n_conns;) {
        struct conn *c = t->conns[i];
        if (c->outgoing || c->gone_ms == 0 || t->now_ms - c->gone_ms < GONE_MS) {
            i++;
            continue;
        }
        conn_end(t, c, 0, "the connection broke");
        conn_remove(t, c);
        i = 0;
    }
}

static void frame_event(const struct net_transport *t, struct net_event *e, const struct conn *c)
{
    memset(e, 0, sizeof *e);
    e->kind = NET_FRAME;
    e->link = c->link;
    memcpy(e->machine, c->machine, 32);
    e->outgoing = c->outgoing;
    e->frame = zmq_msg_data((zmq_msg_t *)(uintptr_t)&t->message);
    e->n = zmq_msg_size(&t->message);
}

/* Reads the sockets in turn until a frame for the caller comes, an event waits, or all are empty.
 */
static bool read_sockets(struct net_transport *t, struct net_event *e)
{
    size_t empty = 0;
    while (empty <= t->n_dials && t->n_events == 0) {
        struct conn *from = NULL;
        const size_t i = t->turn % (t->n_dials + 1); /* 0: the ROUTER */
        struct dial *d = i > 0 ? t->dials[i - 1] : NULL;
        if (d ? !d->socket || !d->conn : !t->router) {
            t->turn++;
            empty++;
            continue;
        }
        const enum got got = take(t, d, &from);
        if (got == GOT_FRAME) {
            t->turn++; /* a loud neighbour waits for the others */
            t->in_row++;
            frame_event(t, e, from);
            return true;
        }
        if (got == GOT_OWN) {
            empty = 0;
            if (++t->in_row >= IN_ROW)
                return false;
            continue;
        }
        conn_judge(t, d ? d->conn : NULL, !d);
        bury(t, d);
        t->turn++;
        empty++;
    }
    return false;
}

/* ---- waiting ---- */

static void after_pause(struct net_transport *t)
{
    const uint64_t gap = t->now_ms - t->polled_ms;
    t->polled_ms = t->now_ms;
    if (gap < PAUSE_MS)
        return;
    for (size_t i = 0; i < t->n_conns;
         i++) { /* their silence may be ours: ask before believing it */
        struct conn *c = t->conns[i];
        c->since_ms = t->now_ms;
        c->heard_ms = t->now_ms;
        if (c->state == CONN_UP) {
            c->suspect_ms = t->now_ms + GRACE_MS;
            (void)conn_note(t, c, &(struct note){.kind = NOTE_PING, .stamp = t->now_ms});
        }
    }
    for (size_t i = 0; i < t->n_dials; i++)
        t->dials[i]->next_ms = 0;
}

static void tick(struct net_transport *t)
{
    dial_tick(t);
    if (t->now_ms < t->tick_ms)
        return;
    conn_tick(t);
    bool probation = false;
    for (size_t i = 0; i < t->n_conns; i++)
        probation = probation || t->conns[i]->state != CONN_UP;
    t->tick_ms = t->now_ms + (probation ? TICK_FAST_MS : TICK_MS);
}

static bool pop_event(struct net_transport *t, struct net_event *e)
{
    if (t->n_events == 0)
        return false;
    *e = t->events[t->first_event];
    t->first_event = (t->first_event + 1) % t->events_room;
    t->n_events--;
    return true;
}

/* How long nothing of ours is due, at most until deadline_ms. */
static long wait_ms(const struct net_transport *t, uint64_t deadline_ms)
{
    uint64_t next = deadline_ms;
    const uint64_t dial = dial_next_ms(t);
    if (dial < next)
        next = dial;
    for (size_t i = 0; i < t->n_conns; i++) {
        const struct conn *c = t->conns[i];
        const uint64_t due = c->gone_ms ? c->gone_ms + GONE_MS : t->tick_ms;
        if (due < next)
            next = due;
    }
    return next <= t->now_ms ? 0 : next - t->now_ms < 3600000 ? (long)(next - t->now_ms) : 3600000;
}

static bool reserve_items(struct net_transport *t, size_t n)
{
    if (n <= t->items_room)
        return true;
    zmq_pollitem_t *items = realloc(t->items, (n + 16) * sizeof *items);
    if (!items)
        return false;
    t->items = items;
    t->items_room = n + 16;
    return true;
}

/* Sleeps until something is ready, serves monitors and ZAP.  *ready <- index of a readable
 * descriptor, else n_fds. */
static enum err sleep_and_serve(struct net_transport *t, const int *fds, size_t n_fds, long ms,
                                size_t *ready)
{
    size_t n = 0;
    if (!reserve_items(t, n_fds + 3 + 2 * t->n_dials))
        return ERR_NOMEM;
    for (size_t i = 0; i < n_fds; i++)
        t->items[n++] = (zmq_pollitem_t){.fd = fds[i], .events = ZMQ_POLLIN};
    if (t->router) {
        t->items[n++] = (zmq_pollitem_t){.socket = t->router, .events = ZMQ_POLLIN};
        t->items[n++] = (zmq_pollitem_t){.socket = t->router_monitor, .events = ZMQ_POLLIN};
        t->items[n++] = (zmq_pollitem_t){.socket = t->zap, .events = ZMQ_POLLIN};
    }
    for (size_t i = 0; i < t->n_dials; i++) {
        const struct dial *d = t->dials[i];
        if (!d->socket)
            continue;
        const bool owes_hello = d->greeted && d->conn->state == CONN_NEW;
        t->items[n++] = (zmq_pollitem_t){
            .socket = d->socket, .events = (short)(ZMQ_POLLIN | (owes_hello ? ZMQ_POLLOUT : 0))};
        t->items[n++] = (zmq_pollitem_t){.socket = d->monitor, .events = ZMQ_POLLIN};
    }
    if (n == 0) {
        if (ms > 0) {
            const struct timespec nap = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
            (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        }
    } else if (zmq_poll(t->items, (int)n, ms) < 0) {
        return zmq_errno() == EINTR ? ERR_AGAIN : ERR_IO;
    }
    t->now_ms = clock_ms();
    monitor_router(t);
    if (t->zap)
        zmq_zap_serve(t);
    for (size_t i = 0; i < t->n_dials; i++) {
        struct dial *d = t->dials[i];
        dial_monitor(t, d);
        if (d->socket && d->greeted && d->conn->state == CONN_NEW)
            dial_hello(t, d);
    }
    *ready = n_fds;
    for (size_t i = n_fds; i-- > 0;)
        if (t->items[i].revents)
            *ready = i;
    return ERR_OK;
}

enum err net_transport_poll(struct net_transport *t, struct net_event *e, const int *fds,
                            size_t n_fds, int timeout_ms)
{
    release_message(t);
    t->now_ms = clock_ms();
    after_pause(t);
    const uint64_t deadline_ms = timeout_ms < 0 ? UINT64_MAX : t->now_ms + (uint64_t)timeout_ms;
    for (bool slept = false;;) {
        if (pop_event(t, e))
            return ERR_OK;
        if (t->in_row < IN_ROW && read_sockets(t, e))
            return ERR_OK;
        tick(t);
        if (t->n_events > 0)
            continue;
        size_t ready = n_fds;
        if (slept && t->now_ms >= deadline_ms && t->in_row < IN_ROW)
            return ERR_AGAIN;
        TRY(sleep_and_serve(t, fds, n_fds, t->in_row < IN_ROW ? wait_ms(t, deadline_ms) : 0,
                            &ready));
        t->polled_ms = t->now_ms;
        t->in_row = 0;
        slept = true;
        if (ready < n_fds) {
            memset(e, 0, sizeof *e);
            e->kind = NET_WAKE;
            e->link = (uint32_t)ready;
            return ERR_OK;
        }
    }
}

/* ---- views ---- */

void net_transport_traffic(const struct net_transport *t, struct net_traffic *out)
{
    *out = (struct net_traffic){.sent = t->past_out, .received = t->past_in, .handed = t->past_handed};
    for (size_t i = 0; i < t->n_conns; i++) {
        out->sent += conn_sent(t->conns[i]);
        out->received += conn_received(t->conns[i]);
        out->handed += t->conns[i]->handed;
    }
}

bool net_transport_link(const struct net_transport *t, size_t i, struct net_link_view *out)
{
    const uint64_t now_ms = clock_ms();
    for (size_t k = 0; k < t->n_conns; k++) {
        const struct conn *c = t->conns[k];
        if (c->state != CONN_UP || i-- > 0)
            continue;
        memset(out, 0, sizeof *out);
        out->link = c->link;
        memcpy(out->machine, c->machine, 32);
        out->outgoing = c->outgoing;
        (void)snprintf(out->address, sizeof out->address, "%s",
                       c->dial ? c->dial->address : c->peer);
        (void)snprintf(out->listen, sizeof out->listen, "%s", c->listen);
        out->sent = conn_sent(c);
        out->received = conn_received(c);
        out->rtt_us = c->rtt_us;
        out->silent_ms = (uint32_t)(now_ms - c->heard_ms);
        out->age_ms = (uint32_t)(now_ms - c->up_ms);
        return true;
    }
    return false;
}

bool net_transport_dialled(const struct net_transport *t, size_t i, struct net_dial_view *out)
{
    if (i >= t->n_dials)
        return false;
    const struct dial *d = t->dials[i];
    *out = (struct net_dial_view){.address = d->address,
                                  .reason = d->reason,
                                  .failures = d->failures,
                                  .link = d->conn && d->conn->state == CONN_UP ? d->conn->link : 0};
    return true;
}

void net_transport_count(const struct net_transport *t, struct net_transport_counters *out)
{
    *out = t->count;
}
