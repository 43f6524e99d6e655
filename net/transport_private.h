/* net/transport_private.h -- private to net/transport*.c: connections, dials, and who calls whom.
 *
 *   transport.c          public calls and the poll loop
 *   transport_link.c     a connection's life: proof, one link per machine, limits, upkeep
 *   transport_rate.c     how much a link may send
 *   transport_dial.c     addresses kept dialled: resolve, connect, wait, again
 *   transport_zmq.c      sockets, monitors, ZAP, TCP_INFO
 *   transport_proof.c    the transport's own messages, and what is signed (pure)
 *   transport_address.c  HOST:PORT (pure) */
#ifndef ONEBYTE_NET_TRANSPORT_PRIVATE_H
#define ONEBYTE_NET_TRANSPORT_PRIVATE_H
#include <onebyte/net/transport.h>
#include <netdb.h>
#include <zmq.h>

enum { ADDRESS_MAX = 128, HOST_MAX = 64, RID_MAX = 16 };

/* ---- transport_proof.c ---- */
enum note_kind { NOTE_HELLO = 1, NOTE_PROVE, NOTE_CERT, NOTE_UP, NOTE_BYE, NOTE_PING, NOTE_PONG };
enum bye { BYE_FULL = 1, BYE_DUPLICATE, BYE_SELF, BYE_KEPT_OUT, BYE_LEAVING, BYE_PROOF };
enum { NOTE_BYTES_MAX = 132, NOTE_VERSION = 1 };

struct note { /* one of the transport's own messages, decoded */
    enum note_kind kind;
    uint8_t id[32], nonce[32], sig[64];
    uint16_t port;
    uint8_t bye;
    uint64_t stamp; /* PING, PONG: any number, sent back */
};
size_t note_write(uint8_t out[NOTE_BYTES_MAX], const struct note *n);
NODISCARD enum err note_parse(struct note *n, const uint8_t *p, size_t bytes); /* *n untouched on error */

struct transcript { /* what both ends know of one handshake */
    const uint8_t *run_id, *k, *nonce_c, *nonce_s, *listener, *dialler; /* each [32]; dialler: NULL for the listener's proof */
};
void proof_sign(uint8_t sig[64], const struct net_identity *i, const struct transcript *t);
NODISCARD enum err proof_check(const uint8_t sig[64], const struct transcript *t);
/* The listeners' CURVE key pair of a run. */
void proof_run_key(uint8_t public_key[32], uint8_t secret_key[32], const uint8_t run_id[32]);
size_t wire_bytes(size_t n); /* TCP payload of a message of n bytes: ZMTP 3.1 framing and CURVE's box */

/* ---- connections ---- */
enum conn_state {
    CONN_NEW,    /* accepted or connected; the dialler owes HELLO */
    CONN_HELLO,  /* HELLO sent: the dialler waits for PROVE, the listener for CERT */
    CONN_CERT,   /* dialler: CERT sent, waits for UP */
    CONN_UP,     /* a link */
    CONN_ENDING, /* BYE sent or cut: whatever still comes is dropped, the descriptor is shut down at shut_ms */
};

struct conn {
    enum conn_state state;
    int fd;            /* ZeroMQ's own, never closed by us; -1: not known */
    bool outgoing;
    struct dial *dial; /* outgoing */
    uint8_t rid[RID_MAX]; /* ROUTER's name for it, incoming; rid_n 0: no message yet */
    size_t rid_n;
    uint8_t k[32], nonce_c[32], nonce_s[32], machine[32];
    char peer[ADDRESS_MAX];  /* the remote's numeric HOST:PORT, to know the descriptor again */
    char group[HOST_MAX];
    char listen[ADDRESS_MAX];
    bool loopback;
    uint64_t since_ms, up_ms, heard_ms, pinged_ms, suspect_ms, shut_ms, gone_ms; /* 0: not */
    uint32_t link;
    uint64_t delivered, handed;  /* bytes on the wire of messages given to us, taken from us */
    uint64_t tcp_in, tcp_out;    /* the kernel's counts, as last seen */
    bool tcp_counts, looked;     /* the kernel counts what is sent; it was asked */
    uint64_t sample;             /* bytes that ZeroMQ had taken from the kernel at the last tick; judged at the next EAGAIN */
    uint32_t rtt_us;
    int64_t units_left; /* of this link's own rate; below zero: a debt */
    uint64_t refilled_ms, held_until_ms, released_ms; /* held: the kernel takes nothing from it; 0: not */
    uint32_t cost, drops, holds;                      /* of the last frame; since it was forgiven */
    bool narrow;                                      /* small receive buffer */
};

struct lookup { /* glibc's helper thread reads it: it outlives the dial while it cannot be cancelled */
    struct gaicb request;
    char host[HOST_MAX];
};

struct dial {
    char address[ADDRESS_MAX], host[HOST_MAX];
    uint16_t port;
    bool pinned, known; /* pin, machine are set */
    uint8_t pin[32], machine[32];
    void *socket, *monitor; /* of the attempt or link under way */
    struct conn *conn;
    bool connected, greeted; /* TCP; CURVE */
    bool resting;            /* machine is linked another way */
    bool doomed;             /* hung up or ourselves: freed at the next tick */
    uint64_t next_ms;        /* when to try again */
    uint32_t failures;
    const char *reason;      /* of the last failure */
    struct lookup *lookup;   /* a name being resolved */
    struct addrinfo *found, *next; /* its addresses; the one to try next */
};

struct penalty {
    uint8_t machine[32];
    uint64_t until_ms;
    uint32_t times; /* again and again: twice as long each time */
};

/* How many more connections a group may open now. */
struct arrivals {
    char group[HOST_MAX];
    uint64_t seen_ms;
    uint32_t left_ms; /* 1000 / LIMIT_ARRIVALS_PER_S of it buy one */
};

struct net_transport {
    const struct net_identity *identity;
    uint8_t run_id[32], server_public[32], server_secret[32];
    uint32_t links_max, link_last;
    uint32_t probation_ms, ping_ms, silence_ms, penalty_ms, retry_ms, frames_per_s, hold_ms;
    bool loopback_counts;
    uint64_t dial_last; /* names of monitors are unique within the context */
    uint16_t listen_port;
    char listening[ADDRESS_MAX];
    void *context, *router, *router_monitor, *zap;
    struct conn **conns; /* [n_conns] */
    size_t n_conns, conns_room;
    struct dial *dials[LIMIT_DIALS];
    size_t n_dials;
    struct penalty penalties[LIMIT_PENALTIES];
    struct arrivals arrivals[LIMIT_ARRIVAL_GROUPS];
    struct net_event *events; /* ring [events_room], n_events from first_event */
    size_t n_events, first_event, events_room;
    zmq_msg_t message; /* the frame last handed out */
    bool holds_message;
    zmq_pollitem_t *items;
    size_t items_room;
    uint64_t now_ms, tick_ms, polled_ms;
    int64_t units_left; /* of the rate that all links share */
    uint64_t refilled_ms;
    unsigned in_row;     /* frames handed out since the descriptors were last looked at */
    size_t turn;         /* whose socket is read next */
    uint64_t past_in, past_out, past_handed; /* bytes of connections that ended */
    struct net_transport_counters count;
};

/* ---- transport_zmq.c ---- */
uint64_t clock_ms(void);
NODISCARD enum err zmq_listen(struct net_transport *t, const char *listen, struct err_why *why);
NODISCARD enum err zmq_zap_start(struct net_transport *t);
void zmq_zap_serve(struct net_transport *t);
NODISCARD enum err zmq_dial_start(struct net_transport *t, struct dial *d, const char *endpoint, bool v6, const uint8_t secret[32]);
void zmq_socket_end(void **socket, void **monitor, int linger_ms);
/* Next event of a monitor: false: none.  *value: descriptor or code. */
bool zmq_monitor_next(void *monitor, uint16_t *event, int32_t *value);
bool peer_of(int fd, char out[ADDRESS_MAX], char host[HOST_MAX], bool *loopback);
void tcp_look(struct conn *c); /* updates tcp_in, tcp_out, sample, rtt_us */
uint64_t conn_sent(const struct conn *c), conn_received(const struct conn *c); /* for traffic; neither ever falls */
void tcp_cut(const struct conn *c); /* shuts the descriptor down, if it is still that connection */
void tcp_hold(const struct conn *c, bool on); /* the kernel drops every packet of it that carries data: its TCP will send again */
void tcp_narrow(struct conn *c, bool on);     /* little may arrive unread; off: the kernel chooses */

/* ---- transport_link.c ---- */
struct conn *conn_new(struct net_transport *t, bool outgoing);
void conn_remove(struct net_transport *t, struct conn *c); /* forgets it; its counts go to the totals */
struct conn *conn_by_fd(const struct net_transport *t, int fd);
struct conn *conn_by_link(const struct net_transport *t, uint32_t link);
bool conn_send(struct net_transport *t, struct conn *c, const uint8_t *p, size_t n); /* false: not taken now */
bool conn_note(struct net_transport *t, struct conn *c, const struct note *n);
/* Ends it: LINK_DOWN if it was a link and reason is set; bye 0: the descriptor is cut at once. */
void conn_end(struct net_transport *t, struct conn *c, enum bye bye, const char *reason);
void conn_gone(struct net_transport *t, struct conn *c); /* its TCP connection ended */
void conn_accepted(struct net_transport *t, int fd);
/* A message came in on c: true: it is a frame for the caller. */
bool conn_message(struct net_transport *t, struct conn *c, const uint8_t *p, size_t n);
void conn_tick(struct net_transport *t);
void conn_judge(struct net_transport *t, const struct conn *one, bool incoming); /* hidden bytes, after EAGAIN */
void penalise(struct net_transport *t, const uint8_t machine[32]);
bool may_arrive(struct net_transport *t, const char *group); /* counts one arrival of the group */
struct net_event *event_new(struct net_transport *t, enum net_event_kind kind); /* NULL: no memory */

/* ---- transport_rate.c ---- */
void rate_new(struct net_transport *t, struct conn *c);
/* A frame of n bytes came.  False: it is dropped, or c was even ended. */
bool rate_takes(struct net_transport *t, struct conn *c, size_t n);
void rate_useful(struct conn *c); /* .. and was worth it */
void rate_tick(struct net_transport *t, struct conn *c);
bool rate_shunned(const struct conn *c); /* held back again and again, and not heard since: what we would send it is not worth our time */

/* ---- transport_dial.c ---- */
void dial_tick(struct net_transport *t);
void dial_monitor(struct net_transport *t, struct dial *d);
/* Closes the attempt or link, plans the next; reason NULL: silently. */
void dial_failed(struct net_transport *t, struct dial *d, const char *reason);
void dial_rest(struct net_transport *t, struct dial *d, const uint8_t machine[32]);
void dial_wake(struct net_transport *t, const uint8_t machine[32]); /* its link ended: those that rested try again */
void dial_drop(struct net_transport *t, struct dial *d, const char *reason); /* for good */
void dial_free(struct net_transport *t, struct dial *d);
uint64_t dial_next_ms(const struct net_transport *t);
void dial_hello(struct net_transport *t, struct dial *d); /* once CURVE is through; again until the socket takes it */
NODISCARD enum err dial_parse(struct dial *d, const char *address, struct err_why *why);
#endif
