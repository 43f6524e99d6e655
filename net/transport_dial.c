/* Addresses kept dialled: resolve, connect, wait with jitter, again, for ever. */
#include "net/transport_private.h"
#include <sodium.h>
#include <string.h>
#include <unistd.h>

enum {
    STEADY_MS = 30000, /* a link that lasted this long starts the waiting times afresh */
    LOOKUP_POLL_MS = 20,
    BYE_LINGER_MS = 300
};

enum err dial_parse(struct dial *d, const char *address, struct err_why *why)
{
    static const char key[] = "?key=";
    const char *pin = strstr(address, key);
    const size_t n = pin ? (size_t)(pin - address) : strlen(address);
    memset(d, 0, sizeof *d);
    if (n >= sizeof d->address)
        return err_set(why, ERR_FORMAT, "'%.60s...' is not an address: it is too long", address);
    memcpy(d->address, address, n);
    TRY(net_address_split(d->host, &d->port, d->address, why));
    if (d->port == 0 || strcmp(d->host, "*") == 0)
        return err_set(why, ERR_FORMAT,
                       "'%s' cannot be dialled: it needs a host and a port other than 0",
                       d->address);
    if (pin) {
        if (net_unhex(d->pin, 32, pin + strlen(key)) != ERR_OK)
            return err_set(
                why, ERR_FORMAT,
                "the key after '%s?key=' must be 64 hex digits: the machine id of the peer there",
                d->address);
        d->pinned = true;
    }
    return ERR_OK;
}

/* ---- waiting ---- */

/* A random half to whole of ms: peers that lost the same neighbour do not come back in step. */
static uint64_t jitter(uint64_t ms)
{
    return ms / 2 + randombytes_uniform((uint32_t)(ms / 2 + 1));
}

static void plan(struct net_transport *t, struct dial *d)
{
    uint64_t ms = t->retry_ms;
    for (uint32_t i = 1; i < d->failures && ms < LIMIT_RETRY_MS_MAX; i++)
        ms *= 2;
    d->next_ms = t->now_ms + jitter(ms < LIMIT_RETRY_MS_MAX ? ms : LIMIT_RETRY_MS_MAX);
}

static void report(struct net_transport *t, struct dial *d, const char *reason)
{
    const bool known = d->reason && reason && strcmp(d->reason, reason) == 0;
    d->reason = reason;
    if (!reason || known)
        return;
    struct net_event *e = event_new(t, NET_DIAL_FAILED);
    if (!e)
        return;
    e->outgoing = true;
    e->reason = reason;
    (void)snprintf(e->address, sizeof e->address, "%s", d->address);
}

/* ---- ending an attempt ---- */

static void close_attempt(struct net_transport *t, struct dial *d, int linger_ms)
{
    zmq_socket_end(&d->socket, &d->monitor, linger_ms);
    if (d->conn)
        conn_remove(t, d->conn);
    d->conn = NULL;
    d->connected = d->greeted = false;
}

void dial_failed(struct net_transport *t, struct dial *d, const char *reason)
{
    const uint64_t up_ms = d->conn ? d->conn->up_ms : 0;
    const bool try_other_address = !d->connected && d->next;
    close_attempt(t, d, d->greeted ? BYE_LINGER_MS : 0);
    if (try_other_address) {
        d->next_ms = t->now_ms;
        return;
    }
    d->failures = up_ms && t->now_ms - up_ms > STEADY_MS ? 1 : d->failures + 1;
    if (up_ms)
        d->reason = reason; /* LINK_DOWN told it */
    else
        report(t, d, reason);
    plan(t, d);
}

void dial_rest(struct net_transport *t, struct dial *d, const uint8_t machine[32])
{
    (void)t;
    memcpy(d->machine, machine, 32);
    d->known = d->resting = true;
    d->reason = NULL;
    d->failures = 0;
}

void dial_wake(struct net_transport *t, const uint8_t machine[32])
{
    for (size_t i = 0; i < t->n_dials; i++) {
        struct dial *d = t->dials[i];
        if (d->resting && memcmp(d->machine, machine, 32) == 0) {
            d->resting = false;
            d->next_ms = t->now_ms + jitter(t->retry_ms);
        }
    }
}

void dial_drop(struct net_transport *t, struct dial *d, const char *reason)
{
    close_attempt(t, d, 0);
    report(t, d, reason);
    d->doomed = true; /* freed at the next tick: the caller may be in its midst */
}

static void free_found(struct dial *d)
{
    if (d->found)
        freeaddrinfo(d->found);
    d->found = d->next = NULL;
}

static void free_lookup(struct dial *d)
{
    struct lookup *l = d->lookup;
    d->lookup = NULL;
    if (!l)
        return;
    if (gai_error(&l->request) == EAI_INPROGRESS && gai_cancel(&l->request) == EAI_NOTCANCELED) {
        const struct gaicb *const list[] = {&l->request};
        const struct timespec second = {.tv_sec = 1};
        (void)gai_suspend(list, 1, &second);
        if (gai_error(&l->request) == EAI_INPROGRESS)
            return; /* the resolver still writes there: left to it */
    }
    if (l->request.ar_result)
        freeaddrinfo(l->request.ar_result);
    free(l);
}

void dial_free(struct net_transport *t, struct dial *d)
{
    close_attempt(t, d, d->greeted ? BYE_LINGER_MS : 0);
    free_lookup(d);
    free_found(d);
    for (size_t i = 0; i < t->n_dials; i++)
        if (t->dials[i] == d) {
            t->dials[i] = t->dials[--t->n_dials];
            break;
        }
    free(d);
}

/* ---- resolving: never in this thread, a slow name server must not hold up the links ---- */

static void lookup_start(struct net_transport *t, struct dial *d)
{
    struct addrinfo numeric = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    static const struct addrinfo any = {.ai_socktype = SOCK_STREAM};
    free_found(d);
    if (getaddrinfo(d->host, NULL, &numeric, &d->found) == 0) {
        d->next = d->found;
        return;
    }
    d->found = NULL;
    struct lookup *l = calloc(1, sizeof *l);
    if (l) {
        memcpy(l->host, d->host, sizeof l->host);
        l->request.ar_name = l->host;
        l->request.ar_request = &any;
        struct gaicb *list[] = {&l->request};
        if (getaddrinfo_a(GAI_NOWAIT, list, 1, NULL) == 0) {
            d->lookup = l;
            return;
        }
        free(l);
    }
    dial_failed(t, d, "no memory to resolve its name");
}

static void lookup_check(struct net_transport *t, struct dial *d)
{
    struct lookup *l = d->lookup;
    const int code = gai_error(&l->request);
    if (code == EAI_INPROGRESS)
        return;
    if (code == 0) {
        d->found = d->next = l->request.ar_result;
        l->request.ar_result = NULL;
    }
    d->lookup = NULL;
    free(l);
    if (code != 0)
        dial_failed(t, d,
                    code == EAI_AGAIN ? "the name server does not answer" : "no such host name");
}

/* ---- connecting ---- */

static void attempt(struct net_transport *t, struct dial *d)
{
    char numeric[HOST_MAX], endpoint[ADDRESS_MAX];
    const struct addrinfo *a = d->next;
    d->next = a->ai_next;
    const bool v6 = a->ai_family == AF_INET6;
    if (getnameinfo(a->ai_addr, a->ai_addrlen, numeric, sizeof numeric, NULL, 0, NI_NUMERICHOST) !=
            0 ||
        !(d->conn = conn_new(t, true))) {
        dial_failed(t, d, "its address cannot be used");
        return;
    }
    (void)snprintf(endpoint, sizeof endpoint, v6 ? "tcp://[%s]:%u" : "tcp://%s:%u", numeric,
                   d->port);
    struct conn *c = d->conn;
    uint8_t secret[32];
    c->dial = d;
    ENSURE(crypto_box_keypair(c->k, secret) == 0); /* X25519, fresh for each connection */
    const enum err e = zmq_dial_start(t, d, endpoint, v6, secret);
    sodium_memzero(secret, sizeof secret);
    if (e != ERR_OK)
        dial_failed(t, d, "no socket can be opened for it");
}

static void tick_dial(struct net_transport *t, struct dial *d)
{
    if (d->lookup)
        lookup_check(t, d);
    if (d->lookup || d->socket || d->resting || t->now_ms < d->next_ms)
        return;
    if (!d->next)
        lookup_start(t, d);
    if (d->next)
        attempt(t, d);
}

void dial_tick(struct net_transport *t)
{
    for (size_t i = 0; i < t->n_dials;) {
        struct dial *d = t->dials[i];
        if (d->doomed) {
            dial_free(t, d);
            continue;
        }
        tick_dial(t, d);
        i++;
    }
}

uint64_t dial_next_ms(const struct net_transport *t)
{
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < t->n_dials; i++) {
        const struct dial *d = t->dials[i];
        const uint64_t at = d->doomed                 ? 0
                            : d->lookup               ? t->now_ms + LOOKUP_POLL_MS
                            : d->socket || d->resting ? UINT64_MAX
                                                      : d->next_ms;
        next = at < next ? at : next;
    }
    return next;
}

void dial_hello(struct net_transport *t, struct dial *d)
{
    struct conn *c = d->conn;
    struct note hello = {.kind = NOTE_HELLO, .port = t->listen_port};
    ENSURE(c != NULL);
    randombytes_buf(c->nonce_c, 32);
    memcpy(hello.nonce, c->nonce_c, 32);
    if (conn_note(t, c, &hello))
        c->state = CONN_HELLO;
}

void dial_monitor(struct net_transport *t, struct dial *d)
{
    uint16_t event;
    int32_t value;
    while (d->monitor && zmq_monitor_next(d->monitor, &event, &value)) {
        struct conn *c = d->conn;
        char host[HOST_MAX];
        ENSURE(c != NULL); /* a dial has a monitor as long as it has a connection */
        switch (event) {
        case ZMQ_EVENT_CONNECTED:
            c->fd = value;
            d->connected = true;
            if (peer_of(c->fd, c->peer, host, &c->loopback))
                net_address_group(c->group, host);
            break;
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
            d->greeted = true;
            dial_hello(t, d);
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
            t->count.handshake_failed++;
            dial_failed(t, d,
                        "it refused the handshake: it takes part in another run, or is no onebyte "
                        "peer, or is full");
            break;
        case ZMQ_EVENT_DISCONNECTED:
            conn_gone(t, c);
            break;
        case ZMQ_EVENT_CLOSED:
            if (!d->connected)
                dial_failed(t, d,
                            "nothing answers there: is a peer listening, and is its port open?");
            break;
        default:
            break;
        }
    }
}
