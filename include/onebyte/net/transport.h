/* net/transport.h -- links over TCP: ZeroMQ with CURVE and ZAP, certificates, reconnection, quotas.  net/transport*.c are the
 * only files that include zmq.h.  Read shared/notes/zeromq-and-sodium.md: options and nine traps.
 * The rest of the program sees authenticated links that carry frames. */
#ifndef ONEBYTE_NET_TRANSPORT_H
#define ONEBYTE_NET_TRANSPORT_H
#include <onebyte/base/err.h>
#include <onebyte/net/id.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net_transport;

enum net_event_kind {
    NET_LINK_UP,   /* machine proved; address; outgoing */
    NET_LINK_DOWN, /* reason */
    NET_FRAME,     /* frame [n] on link */
    NET_WAKE,      /* the wake descriptor or a registered fd became readable */
};

struct net_event {
    enum net_event_kind kind;
    uint32_t link; /* never reused within a process */
    uint8_t machine[32];
    bool outgoing;
    char address[128]; /* HOST:PORT as dialled, or the remote's address */
    const char *reason;
    const uint8_t *frame; /* valid until the next call */
    size_t n;
};

struct net_transport_options {
    const struct net_identity *identity;
    uint8_t run_id[32];
    const char *listen; /* HOST:PORT, NULL: dial only; port 0: any free port */
    uint32_t links_max;
};

/* ERR_BUSY: the address is in use (why says so). */
NODISCARD enum err net_transport_new(struct net_transport **t, const struct net_transport_options *o, struct err_why *why);
void net_transport_free(struct net_transport *t); /* sends what is queued, at most for a second */
const char *net_transport_listening(const struct net_transport *t); /* HOST:PORT bound, or NULL */
/* Keeps a link to HOST:PORT: retries with jitter for ever.  ERR_FORMAT: not an address. */
NODISCARD enum err net_transport_dial(struct net_transport *t, const char *address, struct err_why *why);
void net_transport_hang_up(struct net_transport *t, const char *address);
NODISCARD enum err net_transport_send(struct net_transport *t, uint32_t link, const uint8_t *frame, size_t n); /* ERR_AGAIN: queue full */
void net_transport_close(struct net_transport *t, uint32_t link, bool blame);
/* Waits at most timeout_ms for a link event, or for one of fds [n_fds] to become readable (ERR_OK + NET_WAKE, link = index).
 * ERR_AGAIN: nothing happened. */
NODISCARD enum err net_transport_poll(struct net_transport *t, struct net_event *e, const int *fds, size_t n_fds, int timeout_ms);
struct net_traffic {
    uint64_t sent, received; /* bytes of TCP payload incl. CURVE (TCP_INFO where known), else frames */
};
void net_transport_traffic(const struct net_transport *t, struct net_traffic *out);
#endif
