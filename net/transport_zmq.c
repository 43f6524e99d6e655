/* Sockets and their options, monitors, ZAP, and the kernel's counts.  The traps are those of
 * notes/zeromq-and-sodium.md. */
#include "net/transport_private.h"
#include <onebyte/base/bytes.h>
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t clock_ms(void)
{
    struct timespec now;
    ENSURE(clock_gettime(CLOCK_BOOTTIME, &now) ==
           0); /* goes on while the machine sleeps: timers are due when it wakes */
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

/* What listening and dialling sockets share. */
static bool set_common(void *socket, bool v6)
{
    const int64_t message_max = LIMIT_FRAME_BYTES + 64; /* counted with CURVE's box around it */
    return zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &message_max, sizeof message_max) == 0 &&
           set_int(socket, ZMQ_LINGER, 1000) &&
           set_int(socket, ZMQ_SNDHWM,
                   0) && /* the bytes that wait are counted instead: LIMIT_LINK_QUEUE_BYTES */
           set_int(socket, ZMQ_RCVHWM,
                   256) && /* then the kernel's window closes and the sender waits */
           set_int(socket, ZMQ_HANDSHAKE_IVL, LIMIT_HANDSHAKE_MS) &&
           set_int(socket, ZMQ_IPV6, v6) && set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
}

/* A PAIR that reads the socket's events.  No limit on it: a full one would stop ZeroMQ's I/O thread
 * (trap 5). */
static void *monitor_start(void *context, void *socket, const char *name)
{
    if (zmq_socket_monitor(socket, name, ZMQ_EVENT_ALL) != 0)
        return NULL;
    void *monitor = zmq_socket(context, ZMQ_PAIR);
    if (monitor && set_int(monitor, ZMQ_LINGER, 0) && set_int(monitor, ZMQ_RCVHWM, 0) &&
        zmq_connect(monitor, name) == 0)
        return monitor;
    if (monitor)
        (void)zmq_close(monitor);
    return NULL;
}

void zmq_socket_end(void **socket, void **monitor, int linger_ms)
{
    if (*socket) {
        (void)zmq_socket_monitor(*socket, NULL, 0);
        (void)set_int(*socket, ZMQ_LINGER, linger_ms);
        (void)zmq_close(*socket);
        *socket = NULL;
    }
    if (*monitor) {
        (void)zmq_close(*monitor);
        *monitor = NULL;
    }
}

bool zmq_monitor_next(void *monitor, uint16_t *event, int32_t *value)
{
    uint8_t head[6], rest[256];
    const int n = zmq_recv(monitor, head, sizeof head, ZMQ_DONTWAIT);
    if (n < 0)
        return false;
    int more = 0;
    size_t more_bytes = sizeof more;
    while (zmq_getsockopt(monitor, ZMQ_RCVMORE, &more, &more_bytes) == 0 && more)
        if (zmq_recv(monitor, rest, sizeof rest, 0) < 0)
            break;
    if (n != (int)sizeof head)
        return false;
    memcpy(event, head, 2); /* host order: it comes from this process */
    memcpy(value, head + 2, 4);
    return true;
}

/* ---- listening ---- */

/* "tcp://ADDRESS:PORT" of what the user wrote; names are resolved (to listen is to start: it may
 * wait). */
static enum err listen_endpoint(char endpoint[ADDRESS_MAX], bool *v6, const char *listen,
                                struct err_why *why)
{
    char host[HOST_MAX], numeric[HOST_MAX];
    uint16_t port;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    TRY(net_address_split(host, &port, listen, why));
    const int code = getaddrinfo(strcmp(host, "*") == 0 ? "0.0.0.0" : host, NULL, &hints, &found);
    if (code != 0)
        return err_set(why, ERR_IO, "cannot listen on %s: %s: %s", listen, host,
                       gai_strerror(code));
    *v6 = found->ai_family == AF_INET6;
    const int named = getnameinfo(found->ai_addr, found->ai_addrlen, numeric, sizeof numeric, NULL,
                                  0, NI_NUMERICHOST);
    freeaddrinfo(found);
    if (named != 0)
        return err_set(why, ERR_IO, "cannot listen on %s: %s", listen, gai_strerror(named));
    (void)snprintf(endpoint, ADDRESS_MAX, *v6 ? "tcp://[%s]:%u" : "tcp://%s:%u", numeric, port);
    return ERR_OK;
}

static enum err bind_failed(const char *listen, int code, struct err_why *why)
{
    if (code == EADDRINUSE)
        return err_set(why, ERR_BUSY,
                       "cannot listen on %s: the address is in use: stop the other program or "
                       "choose another port (0: any)",
                       listen);
    if (code == EADDRNOTAVAIL || code == ENODEV)
        return err_set(why, ERR_IO,
                       "cannot listen on %s: this machine has no such address: use one of its own, "
                       "or 0.0.0.0 for all",
                       listen);
    if (code == EACCES)
        return err_set(why, ERR_IO, "cannot listen on %s: not allowed: choose a port above 1023",
                       listen);
    return err_set(why, ERR_IO, "cannot listen on %s: %s", listen, zmq_strerror(code));
}

/* Without descriptors ZeroMQ's listener would spin (trap 6).  What we hold is bounded far below this. */
static void raise_descriptors(void)
{
    struct rlimit r;
    const rlim_t wanted = 4096;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < wanted) {
        r.rlim_cur = r.rlim_max < wanted ? r.rlim_max : wanted;
        (void)setrlimit(RLIMIT_NOFILE, &r);
    }
}

enum err zmq_listen(struct net_transport *t, const char *listen, struct err_why *why)
{
    raise_descriptors();
    char endpoint[ADDRESS_MAX], bound[ADDRESS_MAX];
    size_t bytes = sizeof bound;
    bool v6 = false;
    TRY(listen_endpoint(endpoint, &v6, listen, why));
    t->router = zmq_socket(t->context, ZMQ_ROUTER);
    if (!t->router)
        return err_set(why, ERR_IO, "cannot make a socket: %s", zmq_strerror(zmq_errno()));
    static const char domain[] = "onebyte";
    const bool ok = set_common(t->router, v6) && set_int(t->router, ZMQ_ROUTER_MANDATORY, 1) &&
                    set_int(t->router, ZMQ_CURVE_SERVER, 1) &&
                    zmq_setsockopt(t->router, ZMQ_CURVE_SECRETKEY, t->server_secret, 32) == 0 &&
                    zmq_setsockopt(t->router, ZMQ_ZAP_DOMAIN, domain, strlen(domain)) == 0 &&
                    set_int(t->router, ZMQ_BACKLOG, LIMIT_PROBATION);
    if (!ok)
        return err_set(why, ERR_IO, "cannot set up a socket: %s", zmq_strerror(zmq_errno()));
    TRY(zmq_zap_start(t)); /* before bind: without a handler every key is let in (trap 1) */
    t->router_monitor = monitor_start(t->context, t->router, "inproc://router.monitor");
    if (!t->router_monitor)
        return err_set(why, ERR_IO, "cannot watch a socket: %s", zmq_strerror(zmq_errno()));
    if (zmq_bind(t->router, endpoint) != 0)
        return bind_failed(listen, zmq_errno(), why);
    if (zmq_getsockopt(t->router, ZMQ_LAST_ENDPOINT, bound, &bytes) != 0 ||
        strncmp(bound, "tcp://", 6) != 0)
        return err_set(why, ERR_IO, "cannot learn the address listened on: %s",
                       zmq_strerror(zmq_errno()));
    (void)snprintf(t->listening, sizeof t->listening, "%s", bound + 6);
    char host[HOST_MAX];
    return net_address_split(host, &t->listen_port, t->listening, why);
}

enum err zmq_zap_start(struct net_transport *t)
{
    t->zap = zmq_socket(t->context, ZMQ_REP);
    if (!t->zap || !set_int(t->zap, ZMQ_LINGER, 0) ||
        zmq_bind(t->zap, "inproc://zeromq.zap.01") != 0)
        return ERR_IO;
    return ERR_OK;
}

/* Every key may come in: it is on probation until it proves a machine.  The User-Id is the key, in
 * hex. */
void zmq_zap_serve(struct net_transport *t)
{
    for (int round = 0; round < LIMIT_PROBATION;
         round++) { /* frames: version, id, domain, address, identity, mechanism, key */
        uint8_t frame[7][64] = {{0}};
        int length[7] = {0}, n = 0, more = 1;
        size_t more_bytes = sizeof more;
        while (more) {
            uint8_t other[64];
            const int got =
                zmq_recv(t->zap, n < 7 ? frame[n] : other, 64, n == 0 ? ZMQ_DONTWAIT : 0);
            if (got < 0)
                return;
            if (n < 7)
                length[n] = got < 64 ? got : 64;
            n++;
            if (zmq_getsockopt(t->zap, ZMQ_RCVMORE, &more, &more_bytes) != 0)
                return;
        }
        const bool ok =
            n == 7 && length[5] == 5 && memcmp(frame[5], "CURVE", 5) == 0 && length[6] == 32;
        char user[65] = "";
        if (ok)
            net_hex(user, frame[6], 32);
        (void)zmq_send(t->zap, "1.0", 3, ZMQ_SNDMORE);
        (void)zmq_send(t->zap, frame[1], n > 1 ? (size_t)length[1] : 0, ZMQ_SNDMORE);
        (void)zmq_send(t->zap, ok ? "200" : "400", 3, ZMQ_SNDMORE);
        (void)zmq_send(t->zap, "", 0, ZMQ_SNDMORE);
        (void)zmq_send(t->zap, user, strlen(user), ZMQ_SNDMORE);
        (void)zmq_send(t->zap, "", 0, 0);
    }
}

/* ---- dialling ---- */

enum err zmq_dial_start(struct net_transport *t, struct dial *d, const char *endpoint, bool v6,
                        const uint8_t secret[32])
{
    char name[64];
    uint8_t public_key[32];
    (void)snprintf(name, sizeof name, "inproc://dial.monitor.%llu",
                   (unsigned long long)++t->dial_last);
    d->socket = zmq_socket(t->context, ZMQ_DEALER);
    if (!d->socket)
        return ERR_IO;
    memcpy(public_key, d->conn->k, 32);
    /* Each attempt is a socket of its own, so nothing of an old connection is mistaken for the new
     * one's: ZeroMQ shall not reconnect within its life.  Not -1, nor IMMEDIATE: with either, 4.3.4
     * throws away what a closed connection still delivered. */
    const bool ok = set_common(d->socket, v6) &&
                    set_int(d->socket, ZMQ_RECONNECT_IVL, 24 * 3600 * 1000) &&
                    set_int(d->socket, ZMQ_CONNECT_TIMEOUT, 10000) &&
                    zmq_setsockopt(d->socket, ZMQ_CURVE_SERVERKEY, t->server_public, 32) == 0 &&
                    zmq_setsockopt(d->socket, ZMQ_CURVE_PUBLICKEY, public_key, 32) == 0 &&
                    zmq_setsockopt(d->socket, ZMQ_CURVE_SECRETKEY, secret, 32) == 0;
    if (ok)
        d->monitor = monitor_start(t->context, d->socket, name);
    if (!ok || !d->monitor || zmq_connect(d->socket, endpoint) != 0) {
        zmq_socket_end(&d->socket, &d->monitor, 0);
        return ERR_IO;
    }
    return ERR_OK;
}

/* ---- the kernel's side of a connection ---- */

bool peer_of(int fd, char out[ADDRESS_MAX], char host[HOST_MAX], bool *loopback)
{
    struct sockaddr_storage s;
    socklen_t n = sizeof s;
    char port[8];
    if (getpeername(fd, (struct sockaddr *)&s, &n) != 0 ||
        getnameinfo((struct sockaddr *)&s, n, host, HOST_MAX, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return false;
    if (strncmp(host, "::ffff:", 7) == 0 && strchr(host, '.'))
        memmove(host, host + 7, strlen(host + 7) + 1); /* IPv4 on a socket for both */
    *loopback = strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
    (void)snprintf(out, ADDRESS_MAX, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
    return true;
}

void tcp_look(struct conn *c)
{
    struct tcp_info i;
    socklen_t n = sizeof i;
    int queued = 0;
    memset(&i, 0, sizeof i);
    if (c->fd < 0 || getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &i, &n) != 0)
        return;
    if (n >= offsetof(struct tcp_info, tcpi_bytes_received) + sizeof i.tcpi_bytes_received &&
        i.tcpi_bytes_received >= c->tcp_in) {
        c->tcp_in = i.tcpi_bytes_received;
        c->sample =
            ioctl(c->fd, FIONREAD, &queued) == 0 && queued >= 0 && (uint64_t)queued <= c->tcp_in
                ? c->tcp_in - (uint64_t)queued
                : 0;
    }
    if (n >= offsetof(struct tcp_info, tcpi_bytes_retrans) + sizeof i.tcpi_bytes_retrans &&
        i.tcpi_bytes_sent >= i.tcpi_bytes_retrans) {
        const uint64_t out = i.tcpi_bytes_sent - i.tcpi_bytes_retrans;
        c->tcp_out = out > c->tcp_out ? out : c->tcp_out; /* counted before it is sent again, a repetition takes some back */
        c->tcp_counts = true;
    }
    c->looked = true;
    c->rtt_us = i.tcpi_rtt;
    if (n >= offsetof(struct tcp_info, tcpi_min_rtt) + sizeof i.tcpi_min_rtt && i.tcpi_min_rtt > 0 && i.tcpi_min_rtt < i.tcpi_rtt)
        c->rtt_us = i.tcpi_min_rtt; /* the smoothed one holds delayed acknowledgements: 40 ms where the wire takes none */
}

/* ZeroMQ may have closed it since, and the number may be another connection's by now. */
static bool still_it(const struct conn *c)
{
    char peer[ADDRESS_MAX], host[HOST_MAX];
    bool loopback;
    return c->fd >= 0 && peer_of(c->fd, peer, host, &loopback) && strcmp(peer, c->peer) == 0;
}

void tcp_cut(const struct conn *c)
{
    if (still_it(c))
        (void)shutdown(c->fd, SHUT_RDWR);
}

void tcp_hold(const struct conn *c, bool on)
{
    /* A packet, from its TCP header on: longer than the header says that it is itself?  Acknowledgements and the end pass. */
    static struct sock_filter no_data[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 12), /* data offset, in words, in the upper half */
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
        BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 2),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_X, 0, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    const struct sock_fprog program = {ARRAY_LEN(no_data), no_data};
    const int ignored = 0;
    if (!still_it(c))
        return;
    if (on) /* a kernel that can't: then frames are dropped here, one by one */
        (void)setsockopt(c->fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
    else
        (void)setsockopt(c->fd, SOL_SOCKET, SO_DETACH_FILTER, &ignored, sizeof ignored);
}

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72 /* Linux 5.15 */
#endif

void tcp_narrow(struct conn *c, bool on)
{
    const int bytes = LIMIT_NARROW_BYTES, by_kernel = 0;
    c->narrow = on;
    if (!still_it(c))
        return;
    if (on)
        (void)setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    else
        (void)setsockopt(c->fd, SOL_SOCKET, SO_BUF_LOCK, &by_kernel, sizeof by_kernel);
}
