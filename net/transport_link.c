/* A connection's life: probation, proof, one link per machine, limits, upkeep, the end. */
#include "net/transport_private.h"
#include <sodium.h>
#include <string.h>

enum {
    HANDSHAKE_SLACK = 1024, /* bytes of ZMTP greeting and CURVE handshake, one way, at most */
    SUSPECT_MS = 10000,     /* a link that another one competes with must speak within this */
    ENDING_MS = 1000,       /* for BYE to leave before the descriptor is cut */
};

/* ---- the table ---- */

struct conn *conn_new(struct net_transport *t, bool outgoing)
{
    if (t->n_conns == t->conns_room) {
        const size_t room = t->conns_room ? 2 * t->conns_room : 16;
        struct conn **conns = realloc(t->conns, room * sizeof(struct conn *));
        if (!conns)
            return NULL;
        t->conns = conns;
        t->conns_room = room;
    }
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->fd = -1;
    c->outgoing = outgoing;
    c->since_ms = c->heard_ms = t->now_ms;
    rate_new(t, c);
    t->conns[t->n_conns++] = c;
    return c;
}

/* What was handed over may still wait, and is more than the kernel will count at its first look: until then nothing was sent.
 * Once the connection is gone the kernel can't be asked for the rest. */
uint64_t conn_sent(const struct conn *c)
{
    if (c->gone_ms)
        return c->handed > c->tcp_out ? c->handed : c->tcp_out;
    return c->tcp_counts ? c->tcp_out : c->looked ? c->handed : 0;
}

uint64_t conn_received(const struct conn *c)
{
    return c->tcp_in > c->delivered ? c->tcp_in : c->delivered;
}

void conn_remove(struct net_transport *t, struct conn *c)
{
    t->past_in += conn_received(c);
    t->past_out += conn_sent(c);
    t->past_handed += c->handed;
    for (size_t i = 0; i < t->n_conns; i++)
        if (t->conns[i] == c) {
            t->conns[i] = t->conns[--t->n_conns];
            break;
        }
    free(c);
}

struct conn *conn_by_fd(const struct net_transport *t, int fd)
{
    for (size_t i = 0; i < t->n_conns; i++)
        if (!t->conns[i]->outgoing && t->conns[i]->fd == fd && t->conns[i]->gone_ms == 0)
            return t->conns[i];
    return NULL;
}

struct conn *conn_by_link(const struct net_transport *t, uint32_t link)
{
    for (size_t i = 0; i < t->n_conns && link != 0; i++)
        if (t->conns[i]->link == link && t->conns[i]->state == CONN_UP)
            return t->conns[i];
    return NULL;
}

static struct conn *link_with(const struct net_transport *t, const uint8_t machine[32])
{
    for (size_t i = 0; i < t->n_conns; i++)
        if (t->conns[i]->state == CONN_UP && memcmp(t->conns[i]->machine, machine, 32) == 0)
            return t->conns[i];
    return NULL;
}

static size_t count_conns(const struct net_transport *t, bool up, const char *group)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_conns; i++) {
        const struct conn *c = t->conns[i];
        if (up ? c->state == CONN_UP : !c->outgoing && c->state != CONN_UP)
            n += !group || strcmp(group, c->group) == 0;
    }
    return n;
}

struct net_event *event_new(struct net_transport *t, enum net_event_kind kind)
{
    if (t->n_events ==
        t->events_room) { /* bounded: at most a few per connection wait between two polls */
        const size_t room = t->events_room ? 2 * t->events_room : 16;
        struct net_event *events = calloc(room, sizeof *events);
        if (!events)
            return NULL;
        for (size_t i = 0; i < t->n_events; i++)
            events[i] = t->events[(t->first_event + i) % t->events_room];
        free(t->events);
        t->events = events;
        t->events_room = room;
        t->first_event = 0;
    }
    struct net_event *e = &t->events[(t->first_event + t->n_events++) % t->events_room];
    memset(e, 0, sizeof *e);
    e->kind = kind;
    return e;
}

static void event_of(struct net_transport *t, enum net_event_kind kind, const struct conn *c,
                     const char *reason)
{
    struct net_event *e = event_new(t, kind);
    if (!e)
        return;
    e->link = c->link;
    memcpy(e->machine, c->machine, 32);
    e->outgoing = c->outgoing;
    (void)snprintf(e->address, sizeof e->address, "%s", c->dial ? c->dial->address : c->peer);
    (void)snprintf(e->listen, sizeof e->listen, "%s", c->listen);
    e->reason = reason;
}

/* ---- machines kept out ---- */

void penalise(struct net_transport *t, const uint8_t machine[32])
{
    struct penalty *oldest = &t->penalties[0];
    for (size_t i = 0; i < LIMIT_PENALTIES; i++) {
        struct penalty *p = &t->penalties[i];
        if (memcmp(p->machine, machine, 32) == 0) {
            oldest = p;
            break;
        }
        if (p->until_ms < oldest->until_ms)
            oldest = p;
    }
    const uint64_t forgotten_ms = oldest->until_ms + 8 * (uint64_t)t->penalty_ms;
    const bool again = memcmp(oldest->machine, machine, 32) == 0 && oldest->until_ms != 0 && t->now_ms < forgotten_ms;
    oldest->times = !again ? 0 : oldest->times < LIMIT_PENALTY_DOUBLINGS ? oldest->times + 1 : oldest->times;
    memcpy(oldest->machine, machine, 32);
    oldest->until_ms = t->now_ms + ((uint64_t)t->penalty_ms << oldest->times);
}

static bool kept_out(const struct net_transport *t, const uint8_t machine[32])
{
    for (size_t i = 0; i < LIMIT_PENALTIES; i++)
        if (t->penalties[i].until_ms > t->now_ms &&
            memcmp(t->penalties[i].machine, machine, 32) == 0)
            return true;
    return false;
}

/* ---- arrivals ---- */

/* Besides the cost of a handshake there is a reason in ZeroMQ to be slow: a peer may choose its ROUTER id, and libzmq (4.3.5
 * too) aborts when the next id of its own making, from a random 32-bit start, is one that a peer chose.  64 guesses held open
 * and five tries a second hit once in months, not hours. */
bool may_arrive(struct net_transport *t, const char *group)
{
    enum { PRICE_MS = 1000 / LIMIT_ARRIVALS_PER_S, FULL_MS = LIMIT_ARRIVALS * PRICE_MS };
    struct arrivals *a = &t->arrivals[0];
    for (size_t i = 0; i < LIMIT_ARRIVAL_GROUPS; i++) {
        struct arrivals *x = &t->arrivals[i];
        if (strcmp(x->group, group) == 0) {
            a = x;
            break;
        }
        if (x->seen_ms < a->seen_ms)
            a = x;
    }
    if (strcmp(a->group, group) != 0) {
        (void)snprintf(a->group, sizeof a->group, "%s", group);
        a->left_ms = FULL_MS;
    } else {
        const uint64_t left_ms = a->left_ms + (t->now_ms - a->seen_ms);
        a->left_ms = left_ms < FULL_MS ? (uint32_t)left_ms : FULL_MS;
    }
    a->seen_ms = t->now_ms;
    if (a->left_ms < PRICE_MS)
        return false;
    a->left_ms -= PRICE_MS;
    return true;
}

/* ---- sending ---- */

bool conn_send(struct net_transport *t, struct conn *c, const uint8_t *p, size_t n)
{
    void *socket = c->outgoing ? c->dial->socket : t->router;
    if (c->handed > c->tcp_out + LIMIT_LINK_QUEUE_BYTES) {
        tcp_look(c);
        if (c->handed > c->tcp_out + LIMIT_LINK_QUEUE_BYTES)
            return false;
    }
    if (!c->outgoing && zmq_send(socket, c->rid, c->rid_n, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return false; /* EHOSTUNREACH: the monitor will say so; EAGAIN: later */
    if (zmq_send(socket, p, n, ZMQ_DONTWAIT) < 0)
        return false;
    c->handed += wire_bytes(n);
    return true;
}

bool conn_note(struct net_transport *t, struct conn *c, const struct note *n)
{
    uint8_t out[NOTE_BYTES_MAX];
    const size_t bytes = note_write(out, n);
    return conn_send(t, c, out, bytes);
}

/* ---- the end of a connection ---- */

void conn_end(struct net_transport *t, struct conn *c, enum bye bye, const char *reason)
{
    const bool was_up = c->state == CONN_UP;
    uint8_t machine[32];
    memcpy(machine, c->machine, 32);
    if (c->state == CONN_ENDING)
        return;
    if (was_up && reason)
        event_of(t, NET_LINK_DOWN, c, reason);
    if (bye != 0 && (was_up || c->rid_n > 0 || c->outgoing))
        (void)conn_note(t, c, &(struct note){.kind = NOTE_BYE, .bye = (uint8_t)bye});
    c->state = CONN_ENDING;
    tcp_look(c);
    if (c->outgoing) {
        dial_failed(t, c->dial, reason); /* closes the socket and forgets c */
    } else {
        c->shut_ms = t->now_ms + (bye != 0 ? ENDING_MS : 0);
        if (bye == 0)
            tcp_cut(c);
    }
    if (was_up)
        dial_wake(t, machine);
}

/* ---- the start of a connection ---- */

void conn_gone(struct net_transport *t, struct conn *c)
{
    c->gone_ms = t->now_ms; /* what it sent before is read first */
    c->fd = -1;             /* closed; the number may be another's by now */
}

void conn_accepted(struct net_transport *t, int fd)
{
    struct conn *c = conn_new(t, false);
    t->count.accepted++;
    if (!c)
        return;
    c->fd = fd;
    char host[HOST_MAX];
    if (!peer_of(fd, c->peer, host, &c->loopback)) {
        conn_remove(t, c); /* gone already */
        return;
    }
    c->loopback = c->loopback && !t->loopback_counts;
    net_address_group(c->group, host);
    const size_t waiting = count_conns(t, false, NULL),
                 of_group = c->loopback ? 0 : count_conns(t, false, c->group);
    const bool welcome = c->loopback || may_arrive(t, c->group);
    if (!welcome || waiting > LIMIT_PROBATION || of_group > LIMIT_PROBATION / 2) {
        t->count.refused_full++;
        conn_end(t, c, 0, NULL);
        return;
    }
    tcp_narrow(c, true); /* until it brings something useful */
}

static void link_up(struct net_transport *t, struct conn *c)
{
    c->state = CONN_UP;
    c->link = ++t->link_last;
    c->up_ms = c->heard_ms = t->now_ms;
    if (c->dial) {
        memcpy(c->dial->machine, c->machine, 32);
        c->dial->known = true;
        c->dial->reason = NULL;
    }
    event_of(t, NET_LINK_UP, c, NULL);
}

/* The links that others dial: no single network may take them all (an eclipse costs more than one rented /24 then). */
static bool network_full(const struct net_transport *t, const struct conn *c)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_conns; i++) {
        const struct conn *x = t->conns[i];
        n += x->state == CONN_UP && !x->outgoing && !x->loopback && strcmp(x->group, c->group) == 0;
    }
    return !c->loopback && n >= (t->links_max + LIMIT_LINKS_SHARE - 1) / LIMIT_LINKS_SHARE;
}

/* There may be a link with c's machine already.  True: c may become the link, and the other one (if
 * any) has been ended. */
static bool wins_over_other(struct net_transport *t, const struct conn *c)
{
    struct conn *other = link_with(t, c->machine);
    if (!other)
        return true;
    t->count.duplicates++;
    const bool lower =
        memcmp(t->identity->id, c->machine, 32) < 0; /* we are: then what we dialled stays */
    const bool wins = c->outgoing == other->outgoing ? !c->outgoing : c->outgoing == lower;
    if (!wins) { /* unless the old one is dead without our knowing: it has to speak now */
        other->suspect_ms = t->now_ms + SUSPECT_MS;
        (void)conn_note(t, other, &(struct note){.kind = NOTE_PING, .stamp = t->now_ms});
        return false;
    }
    struct dial *d = other->dial;
    conn_end(t, other, BYE_DUPLICATE, "another link with the same machine takes its place");
    if (d)
        dial_rest(t, d, c->machine);
    return true;
}

static void twin(struct net_transport *t, const struct conn *c)
{
    t->count.twins++;
    event_of(t, NET_TWIN, c, "another process uses this machine's key");
}

/* The address where the other end listens, as seen from here. */
static void note_listen(struct conn *c, uint16_t port)
{
    char host[HOST_MAX];
    uint16_t ignored;
    if (c->dial)
        (void)snprintf(c->listen, sizeof c->listen, "%s", port ? c->dial->address : "");
    else if (port && net_address_split(host, &ignored, c->peer, NULL) == ERR_OK)
        (void)snprintf(c->listen, sizeof c->listen, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
                       port);
}

/* ---- proof: the listener's half ---- */

static bool is_own_dial(const struct net_transport *t, const uint8_t k[32])
{
    for (size_t i = 0; i < t->n_conns; i++)
        if (t->conns[i]->outgoing && memcmp(t->conns[i]->k, k, 32) == 0)
            return true;
    return false;
}

static void on_hello(struct net_transport *t, struct conn *c, const struct note *n)
{
    if (is_own_dial(t, c->k)) {
        t->count.self_dials++;
        conn_end(t, c, BYE_SELF, NULL);
        return;
    }
    memcpy(c->nonce_c, n->nonce, 32);
    note_listen(c, n->port);
    randombytes_buf(c->nonce_s, 32);
    struct note prove = {.kind = NOTE_PROVE, .port = t->listen_port};
    memcpy(prove.id, t->identity->id, 32);
    memcpy(prove.nonce, c->nonce_s, 32);
    proof_sign(
        prove.sig, t->identity,
        &(struct transcript){t->run_id, c->k, c->nonce_c, c->nonce_s, t->identity->id, NULL});
    c->state = CONN_HELLO;
    (void)conn_note(t, c, &prove);
}

static void on_cert(struct net_transport *t, struct conn *c, const struct note *n)
{
    const struct transcript all = {t->run_id, c->k, c->nonce_c, c->nonce_s, t->identity->id, n->id};
    if (proof_check(n->sig, &all) != ERR_OK) {
        t->count.bad_proof++; /* the key is forgotten with the connection; no machine is to blame */
        conn_end(t, c, BYE_PROOF, NULL);
        return;
    }
    memcpy(c->machine, n->id, 32);
    if (memcmp(n->id, t->identity->id, 32) == 0) {
        twin(t, c);
        conn_end(t, c, BYE_PROOF, NULL);
    } else if (kept_out(t, n->id)) {
        t->count.penalised++;
        conn_end(t, c, BYE_KEPT_OUT, NULL);
    } else if (!link_with(t, n->id) &&
               (count_conns(t, true, NULL) >= t->links_max || network_full(t, c))) {
        t->count.refused_full++;
        conn_end(t, c, BYE_FULL, NULL);
    } else if (!wins_over_other(t, c)) {
        conn_end(t, c, BYE_DUPLICATE, NULL);
    } else {
        (void)conn_note(t, c, &(struct note){.kind = NOTE_UP});
        link_up(t, c);
    }
}

/* ---- proof: the dialler's half ---- */

static void on_prove(struct net_transport *t, struct conn *c, const struct note *n)
{
    struct dial *d = c->dial;
    const struct transcript theirs = {t->run_id, c->k, c->nonce_c, n->nonce, n->id, NULL};
    if (proof_check(n->sig, &theirs) != ERR_OK) {
        t->count.bad_proof++;
        conn_end(t, c, BYE_PROOF, "it could not prove which machine it is");
        return;
    }
    memcpy(c->machine, n->id, 32);
    memcpy(c->nonce_s, n->nonce, 32);
    note_listen(c, n->port);
    if (memcmp(n->id, t->identity->id, 32) == 0) {
        twin(t, c);
        conn_end(t, c, BYE_PROOF, "another process uses this machine's key there");
    } else if (d->pinned && memcmp(n->id, d->pin, 32) != 0) {
        conn_end(t, c, BYE_PROOF, "another machine answers there than the one expected");
    } else if (kept_out(t, n->id)) {
        t->count.penalised++;
        conn_end(t, c, BYE_KEPT_OUT, "its machine is kept out for a while");
    } else if (!link_with(t, n->id) && count_conns(t, true, NULL) >= t->links_max) {
        conn_end(t, c, BYE_FULL, "this peer has all the links it wants");
    } else {
        const struct conn *other = link_with(t, n->id);
        const bool stays = other && (other->outgoing || memcmp(t->identity->id, n->id, 32) > 0);
        if (stays) {
            (void)wins_over_other(t, c); /* counts it, and makes the other one speak */
            uint8_t machine[32];
            memcpy(machine, n->id, 32);
            conn_end(t, c, BYE_DUPLICATE, NULL);
            dial_rest(t, d, machine);
            return;
        }
        struct note cert = {.kind = NOTE_CERT};
        memcpy(cert.id, t->identity->id, 32);
        proof_sign(
            cert.sig, t->identity,
            &(struct transcript){t->run_id, c->k, c->nonce_c, c->nonce_s, n->id, t->identity->id});
        c->state = CONN_CERT;
        (void)conn_note(t, c, &cert);
    }
}

static void on_up(struct net_transport *t, struct conn *c)
{
    struct dial *d = c->dial;
    uint8_t machine[32];
    memcpy(machine, c->machine, 32);
    if (wins_over_other(t, c)) {
        link_up(t, c);
    } else {
        conn_end(t, c, BYE_DUPLICATE, NULL);
        dial_rest(t, d, machine);
    }
}

static void on_bye(struct net_transport *t, struct conn *c, const struct note *n)
{
    static const char *const reasons[] = {
        [0] = "the other end closed the link",
        [BYE_FULL] = "the other end has all the links it wants",
        [BYE_DUPLICATE] = "the other end has another link with this machine",
        [BYE_SELF] = "the other end closed the link",
        [BYE_KEPT_OUT] = "the other end keeps this machine out for a while",
        [BYE_LEAVING] = "the other end stopped",
        [BYE_PROOF] = "the other end did not accept the proof of this machine's key",
    };
    const char *reason = reasons[n->bye < ARRAY_LEN(reasons) ? n->bye : 0];
    struct dial *d = c->dial;
    if (d && n->bye == BYE_SELF && c->state != CONN_UP) {
        t->count.self_dials++;
        dial_drop(t, d, "dropped: it leads to this peer itself");
        return;
    }
    conn_end(t, c, 0, reason);
}

/* ---- messages ---- */

static void bad_message(struct net_transport *t, struct conn *c)
{
    t->count.bad_message++;
    conn_end(t, c, 0, "it sent what no peer sends");
}

static void on_note(struct net_transport *t, struct conn *c, const struct note *n)
{
    const bool out = c->outgoing;
    if (n->kind == NOTE_HELLO && !out && c->state == CONN_NEW)
        on_hello(t, c, n);
    else if (n->kind == NOTE_PROVE && out && c->state == CONN_HELLO)
        on_prove(t, c, n);
    else if (n->kind == NOTE_CERT && !out && c->state == CONN_HELLO)
        on_cert(t, c, n);
    else if (n->kind == NOTE_UP && out && c->state == CONN_CERT)
        on_up(t, c);
    else if (n->kind == NOTE_BYE)
        on_bye(t, c, n);
    else if (n->kind == NOTE_PING && c->state == CONN_UP)
        (void)conn_note(t, c, &(struct note){.kind = NOTE_PONG, .stamp = n->stamp});
    else if (!(n->kind == NOTE_PONG && c->state == CONN_UP))
        bad_message(t, c);
}

bool conn_message(struct net_transport *t, struct conn *c, const uint8_t *p, size_t n)
{
    struct note note;
    c->delivered += wire_bytes(n);
    if (c->state == CONN_ENDING)
        return false;
    if (n == 0 || n > LIMIT_FRAME_BYTES) {
        bad_message(t, c);
        return false;
    }
    if (c->state == CONN_UP && !rate_takes(t, c, n))
        return false;
    c->heard_ms = t->now_ms;
    c->suspect_ms = 0;
    if (p[0] != NET_FRAME_RESERVED) {
        if (c->state == CONN_UP)
            return true;
        bad_message(t, c); /* no frame before the proof */
    } else if (note_parse(&note, p, n) != ERR_OK) {
        bad_message(t, c);
    } else {
        on_note(t, c, &note);
    }
    return false;
}

/* ---- upkeep ---- */

void conn_judge(struct net_transport *t, const struct conn *one, bool incoming)
{
    for (size_t i = 0; i < t->n_conns; i++) {
        struct conn *c = t->conns[i];
        if (c->outgoing == incoming || (one && c != one) || c->sample == 0)
            continue;
        const bool hides = c->sample > c->delivered + LIMIT_HIDDEN_BYTES + HANDSHAKE_SLACK;
        c->sample = 0;
        if (hides && c->state != CONN_ENDING) {
            t->count.hidden_bytes++;
            if (c->state == CONN_UP)
                penalise(t, c->machine);
            conn_end(t, c, 0, "it hid bytes in unfinished messages");
            return; /* the table changed; the others are judged next time */
        }
    }
}

/* A link: silence.  True: c was ended. */
static bool tick_link(struct net_transport *t, struct conn *c)
{
    if (t->now_ms - c->heard_ms > t->silence_ms || (c->suspect_ms && t->now_ms > c->suspect_ms)) {
        t->count.silent++;
        conn_end(t, c, 0, "it fell silent");
        return true;
    }
    if (t->now_ms - c->heard_ms > t->ping_ms && t->now_ms - c->pinged_ms > t->ping_ms) {
        c->pinged_ms = t->now_ms;
        (void)conn_note(t, c, &(struct note){.kind = NOTE_PING, .stamp = t->now_ms});
    }
    return false;
}

/* True: the table changed. */
static bool tick_conn(struct net_transport *t, struct conn *c)
{
    if (c->gone_ms == 0)
        tcp_look(c);
    if (c->state == CONN_UP) {
        rate_tick(t, c);
        return tick_link(t, c);
    }
    if (c->state == CONN_ENDING) {
        if (c->shut_ms && t->now_ms >= c->shut_ms && c->gone_ms == 0) {
            c->shut_ms = t->now_ms + ENDING_MS; /* until the monitor confirms it */
            tcp_cut(c);
        }
        return false;
    }
    const bool late =
        t->now_ms - c->since_ms > t->probation_ms + (c->outgoing ? LIMIT_HANDSHAKE_MS : 0);
    if (late || c->tcp_in > LIMIT_PROBATION_BYTES) {
        t->count.probation_expired++;
        conn_end(t, c, 0, "it did not prove in time which machine it is");
        return true;
    }
    return false;
}

void conn_tick(struct net_transport *t)
{
    for (size_t i = 0; i < t->n_conns;)
        if (!tick_conn(t, t->conns[i]))
            i++;
        else
            i = 0; /* at most once per connection: ended ones do not end again */
}
