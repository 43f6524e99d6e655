/* net/transport.h -- links over TCP: ZeroMQ with CURVE and ZAP, certificates, reconnection, quotas.  net/transport*.c are the
 * only files that include zmq.h.  The rest of the program sees authenticated links that carry frames.
 *
 * Keys       A listener's CURVE key pair follows from the run id: whoever knows the run can open a channel to HOST:PORT without
 *            learning a key first, and nobody else gets an answer.  It proves nothing.  Each dial has a fresh random X25519 key.
 * Proof      Inside the channel, before anything else (each message at most 256 bytes, its first byte 255):
 *              dialler  -> HELLO   { version, nonce_c [32], listening port }
 *              listener -> PROVE   { id, nonce_s [32], listening port, sig over "onebyte/1 listener\0", run id, K, nonce_c, nonce_s, id }
 *              dialler  -> CERT    { id, sig over "onebyte/1 dialler\0", run id, K, nonce_c, nonce_s, listener's id, id }
 *              listener -> UP
 *            K is the dialler's X25519 key: the listener takes it from ZAP's User-Id, the dialler is its owner.  Only the owner
 *            of K can have opened the channel whose far end sees K, so a man in the middle, who can pose as a listener's CURVE
 *            key, obtains no signature over the K of his victim: he can only pass bytes on or cut the line (SIGMA, Krawczyk 2003).
 *            CERT is the certificate of DESIGN 5; the listener proves itself first, so scanners do not learn who dials.
 * Probation  Until UP a connection has LIMIT_PROBATION_MS and LIMIT_PROBATION_BYTES, and there are at most LIMIT_PROBATION of them,
 *            half of that per /24 or /64 (loopback excepted).  Of the links, too, a /24 or /64 gets at most half.
 * One link   per pair of machines.  Same direction: the newer one stays (the other end lost the older).  Both directions: the one
 *            dialled by the lower id stays.  An address that leads to a linked machine rests until that link ends; one that
 *            leads to ourselves is dropped.  Another process with our own key: NET_TWIN.
 * Upkeep     PING when nothing was heard for LIMIT_PING_MS; dead after LIMIT_SILENCE_MS.  A lost link is dialled again for ever, after
 *            0.2 s, doubling up to a minute, times a random 0.5 to 1.
 * Floods     Each link has a small rate of frames of its own, and all of them share a large one: one neighbour may use all of it,
 *            fifty that shout get little.  Beyond both the link is held back: the kernel takes nothing from it for a while (its TCP
 *            sends again later), longer each time; what was on its way is taken or, if it is much, dropped; in the end the link is
 *            closed and its machine kept out for LIMIT_PENALTY_MS, twice as long each time.  What the caller found useful (net_transport_useful) is not counted.
 *            Multipart messages do not exist here: the bytes TCP_INFO counts are compared with the bytes delivered, and a
 *            connection that hides more than one frame is shut down (notes/zeromq-and-sodium.md, trap 4).
 * Threads    one: every call from the thread that made it.   Memory  its own heap.   Clock  its own, for timers only. */
#ifndef ONEBYTE_NET_TRANSPORT_H
#define ONEBYTE_NET_TRANSPORT_H
#include <onebyte/base/err.h>
#include <onebyte/base/limits.h>
#include <onebyte/net/id.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net_transport;

/* A frame's first byte must not be this one: it marks the transport's own messages. */
enum { NET_FRAME_RESERVED = 255 };

enum net_event_kind {
    NET_LINK_UP,     /* machine proved; address; outgoing; listen */
    NET_LINK_DOWN,   /* reason, machine */
    NET_FRAME,       /* frame [n] on link */
    NET_WAKE,        /* fds[link] became readable */
    NET_DIAL_FAILED, /* address, reason: once per reason; it is tried again for ever, unless reason says "dropped" */
    NET_TWIN,        /* another process uses our own key, at address: the home was copied.  No link comes of it */
};

struct net_event {
    enum net_event_kind kind;
    uint32_t link; /* from 1; never reused within a process */
    uint8_t machine[32];
    bool outgoing;
    char address[128]; /* HOST:PORT as dialled, or the remote's address */
    char listen[128];  /* where the other end says it listens, its host as we see it; "": it does not */
    const char *reason; /* static, or valid until the next call */
    const uint8_t *frame; /* valid until the next call */
    size_t n;
};

struct net_transport_options {
    const struct net_identity *identity; /* borrowed */
    uint8_t run_id[32];
    const char *listen; /* HOST:PORT, NULL: dial only; port 0: any free port; "*" or "[::]": every interface */
    uint32_t links_max; /* 0: LIMIT_LINKS */
    /* 0: those of base/limits.h (LIMIT_PROBATION_MS, ...); tests shorten them.  frames_per_s: the shared rate. */
    uint32_t probation_ms, ping_ms, silence_ms, penalty_ms, retry_ms, frames_per_s, hold_ms;
    bool loopback_counts; /* tests: 127.0.0.0/24 is limited like any other network */
};

/* ERR_BUSY: the address is in use; ERR_FORMAT: not an address; ERR_IO: not an address of this machine, ... (why says which). */
NODISCARD enum err net_transport_new(struct net_transport **t, const struct net_transport_options *o, struct err_why *why);
/* Sends what is queued, at most for a second; NULL is fine.  A neighbour that lags by more than 256 frames may lose the last of them. */
void net_transport_free(struct net_transport *t);
const char *net_transport_listening(const struct net_transport *t); /* HOST:PORT bound, or NULL */
/* Keeps a link to HOST:PORT, HOST a name, an IPv4 or an [IPv6] address.  "HOST:PORT?key=64 HEX DIGITS" accepts that machine only.
 * Dialling a kept address again tries it at once.  ERR_FORMAT: not an address; ERR_RANGE: LIMIT_DIALS addresses are kept. */
NODISCARD enum err net_transport_dial(struct net_transport *t, const char *address, struct err_why *why);
void net_transport_hang_up(struct net_transport *t, const char *address); /* ends its link too (without an event) */
/* ERR_AGAIN: LIMIT_LINK_QUEUE_BYTES wait already, or the link floods us; ERR_NOTFOUND: no such link; ERR_RANGE: empty, longer than LIMIT_FRAME_BYTES, or
 * first byte reserved. */
NODISCARD enum err net_transport_send(struct net_transport *t, uint32_t link, const uint8_t *frame, size_t n);
/* The last frame from link brought something new: it does not count towards the rates. */
void net_transport_useful(struct net_transport *t, uint32_t link);
/* Closes without an event.  blame: the machine is kept out for LIMIT_PENALTY_MS. */
void net_transport_close(struct net_transport *t, uint32_t link, bool blame);
/* Waits at most timeout_ms (-1: for ever) for an event, or for one of fds [n_fds] to become readable (ERR_OK + NET_WAKE,
 * link = index).  ERR_AGAIN: nothing happened. */
NODISCARD enum err net_transport_poll(struct net_transport *t, struct net_event *e, const int *fds, size_t n_fds, int timeout_ms);

struct net_traffic {
    uint64_t sent, received; /* bytes of TCP payload incl. ZMTP, CURVE and handshakes, of all connections ever; as of the last tick */
    uint64_t handed;         /* of the frames given to net_transport_send: known at once, still to be sent perhaps */
}; /* none of them ever falls */
void net_transport_traffic(const struct net_transport *t, struct net_traffic *out);

struct net_link_view {
    uint32_t link;
    uint8_t machine[32];
    bool outgoing;
    char address[128], listen[128];
    uint64_t sent, received;   /* bytes of TCP payload on this link */
    uint32_t rtt_us;           /* the kernel's, the lowest of the last minutes; 0: unknown */
    uint32_t silent_ms, age_ms; /* since the last message; since it came up */
};
/* Link i (from 0), in no particular order; false: no more. */
bool net_transport_link(const struct net_transport *t, size_t i, struct net_link_view *out);

struct net_dial_view {
    const char *address, *reason; /* reason: why it has no link now; NULL: it has one, or rests because its machine is linked */
    uint32_t link;                /* 0: none */
    uint32_t failures;            /* in a row */
};
bool net_transport_dialled(const struct net_transport *t, size_t i, struct net_dial_view *out);

/* What was refused, since new.  Remote garbage is only ever a number here. */
struct net_transport_counters {
    uint64_t accepted, refused_full, handshake_failed, probation_expired, bad_proof, bad_message, multipart, hidden_bytes;
    uint64_t rate_held, rate_dropped, rate_closed, duplicates, self_dials, twins, penalised, silent;
};
void net_transport_count(const struct net_transport *t, struct net_transport_counters *out);

/* "HOST:PORT" or "[V6]:PORT" -> host without brackets, port.  host may be "*".  ERR_FORMAT: why says what is wrong. */
NODISCARD enum err net_address_split(char host[64], uint16_t *port, const char *address, struct err_why *why);
/* The limits' group: "a.b.c" of a.b.c.d (also when mapped into IPv6), the first 64 bits of an IPv6 address, else the name itself. */
void net_address_group(char group[64], const char *host);
#endif
