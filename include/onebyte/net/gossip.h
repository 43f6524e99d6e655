/* net/gossip.h -- the network's core as a pure state machine: (event, now) in, actions out.  No socket, no disk, no
 * clock, no global: the same code runs in the daemon and, a thousand times over, in the simulator.
 *
 * It holds every feed (chain and cut), counts records (SPEC 5), merges forks (DESIGN 4), pushes new segments to its
 * neighbours, compares frontiers and repairs.
 *
 * Use      after every event take actions until net_gossip_action returns false, and carry them out in order.  STORE,
 *          TRUNCATE and CONTROL are durable before any later SEND is carried out (own segments: synchronous=FULL; foreign
 *          ones may be batched, the network still has them).  A SEND that fails (full queue, dead link) is simply lost: repaired.
 *          Call tick when now >= net_gossip_next_tick.
 * Start    new; load every segment of the ledger (a machine's in feed order) and every control event, in any order
 *          of machines, taking the FOLD actions as they come; then link_up for each neighbour.
 * Frames   first byte < 64: gossip's (net/wire.h).  64..255 are the daemon's own (chunks, snapshots, audits): it must not
 *          give them to net_gossip_frame, where they count as faults.
 * Hostile  nothing from a link can abort, hang or grow memory without bound; limits in base/limits.h.
 * Threads  one per machine.   Memory  its own heap; views are copies. */
#ifndef ONEBYTE_NET_GOSSIP_H
#define ONEBYTE_NET_GOSSIP_H
#include <onebyte/base/err.h>
#include <onebyte/base/limits.h>
#include <onebyte/net/id.h>
#include <onebyte/net/rules.h>
#include <onebyte/net/segment.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net_gossip;

enum net_action_kind {
    NET_SEND, /* frame [frame_bytes] to link */
    NET_DROP, /* close link; reason is a static string; blame: the neighbour misbehaved.  link_down need not follow */
    NET_STORE, /* append segment (frame = wire bytes, seq = first_seq) of machine to the ledger */
    NET_TRUNCATE, /* drop machine's segments with first_seq >= seq from the ledger's live chain */
    NET_CONTROL, /* store control event (frame): fork proof, retraction, admission, checkpoint (net/control.h), score (net/score.h) */
    NET_FOLD,   /* fold the records of segment whose counts[] is 1 (at least one is) */
    NET_UNFOLD, /* the records whose counts[] is 1 were folded and no longer count: subtract them */
    NET_OWN_BEHIND, /* (never for a retraction) the network showed a segment of our own key that we did not make in this life: it was merged
                     * (adopted if it extends ours, else our feed is cut).  seq = our feed's end now; blame = it was a fork.
                     * Within the first seconds after start, unsealed: go on from there.  Later: never seal with this key again */
    NET_LEARNED, /* frame = an address "HOST:PORT" [frame_bytes, no NUL], told by link; blame false.
                   * seq 1: the neighbour's own listening address as it sees it (host may be unspecified), 0: another peer's */
    NET_ASKED, /* frame = an auditor's question about a segment of ours (net/audit.h), by link: net_gossip_tell answers */
    NET_TOLD,  /* frame = the answer to our net_gossip_ask; its signature is not checked yet */
};

struct net_action {
    enum net_action_kind kind;
    uint32_t link;
    uint8_t machine[32];
    uint64_t seq;
    const char *reason;
    bool blame;
    const uint8_t *frame; /* valid until the next call on the machine */
    size_t frame_bytes;
    const struct net_segment
        *segment;          /* FOLD, UNFOLD, STORE; valid until the next call on the machine */
    const uint8_t *counts; /* [segment->count] 0 or 1: FOLD, UNFOLD */
};

struct net_frontier_entry {
    uint8_t machine[32];
    uint64_t count; /* end of the last segment held */
    uint8_t head[32];
    uint64_t cut; /* UINT64_MAX: none */
};

struct net_clock {
    uint64_t hi, lo; /* 128-bit sum of counted weights */
    uint64_t step;
};

/* What a status line says of one machine's feed. */
struct net_feed_view {
    struct net_frontier_entry entry;
    uint64_t weight;    /* counted weight so far, 32-bit fixed point: SPEC 5's C */
    uint64_t segments;  /* in the chain */
    uint32_t last_step; /* of the last segment held; 0 if none */
    uint16_t last_loss_f16;
};

/* Counters, since new.  Remote bytes that were refused are never anything but a number here. */
struct net_gossip_counters {
    uint64_t frames_in, frames_out, bytes_in,
        bytes_out; /* gossip frames, without the transport's overhead */
    uint64_t segments_new, segments_duplicate, segments_unfit, segments_invalid,
        segments_unadmitted, segments_late, segments_delayed; /* delayed: over their author's rate, for later */
    uint64_t frames_malformed, quota_dropped, quota_closed, table_full;
    uint64_t pulls, pulls_failed, searches, searches_failed, forks, retractions;
    uint64_t summaries, summaries_equal;
    uint64_t audits_asked, audits_told, audits_relayed, audits_unasked; /* questions sent; answered; passed on; answers nobody wanted */
};

/* self: our own identity (sealing checks, own feed).  seed: for choices of neighbours (randomness is an argument).  rules is
 * copied (allow stays borrowed).  ERR_RANGE: n0, k or share is zero. */
NODISCARD enum err net_gossip_new(struct net_gossip **g, const struct net_rules *rules,
                                  const uint8_t self[32], uint64_t seed);
void net_gossip_free(struct net_gossip *g);
/* Own address as neighbours may dial it (NULL: dial only).  Told in HELLO. */
void net_gossip_listening(struct net_gossip *g, const char *address);
/* A peer's listening address that was seen to work: may be told to neighbours (bounded table, old ones fall out). */
void net_gossip_address(struct net_gossip *g, const char *address);

/* Events.  Links are the caller's numbers, never reused.  ERR_RANGE: link already up; ERR_BUSY: LIMIT_LINKS are up. */
NODISCARD enum err net_gossip_link_up(struct net_gossip *g, uint32_t link,
                                      const uint8_t machine[32], bool outgoing, uint64_t now_ns);
void net_gossip_link_down(struct net_gossip *g, uint32_t link, uint64_t now_ns);
void net_gossip_frame(struct net_gossip *g, uint32_t link, const uint8_t *frame, size_t n,
                      uint64_t now_ns);
void net_gossip_tick(struct net_gossip *g, uint64_t now_ns);
uint64_t net_gossip_next_tick(const struct net_gossip *g); /* ns at which tick wants to run next */
/* A segment from our own ledger at start-up (any machine, in feed order): every check is made again.  ERR_PROTO: it
 * does not fit or is not valid: drop it and the rest of that machine's from the ledger; the network repairs.  ERR_RANGE: it begins
 * at or after the machine's cut; drop it likewise, nothing is wrong with it. */
NODISCARD enum err net_gossip_load(struct net_gossip *g, const uint8_t machine[32],
                                   const uint8_t *wire, size_t n);
/* ERR_RANGE: nothing new; ERR_AGAIN: a fork proof whose predecessor is not loaded yet (load controls, then segments, then
 * controls again); ERR_PROTO: damaged. */
NODISCARD enum err net_gossip_load_control(struct net_gossip *g, const uint8_t *frame, size_t n);
/* Our own new segment.  ERR_PROTO: not the valid successor of what we hold. */
NODISCARD enum err net_gossip_own(struct net_gossip *g, const uint8_t *wire, size_t n,
                                  uint64_t now_ns);
/* A control event made here (owner: retraction, admission, checkpoint; anybody: a score).  ERR_PROTO: invalid; ERR_RANGE: nothing new. */
NODISCARD enum err net_gossip_control(struct net_gossip *g, const uint8_t *frame, size_t n,
                                      uint64_t now_ns);
/* End of a run: ask every neighbour at once for our feed and for its own.  Settled: each linked neighbour answered since the
 * last change that it holds exactly our feed, and we hold exactly its own.  True with no link. */
void net_gossip_drain(struct net_gossip *g, uint64_t now_ns);
bool net_gossip_settled(const struct net_gossip *g);

bool net_gossip_action(struct net_gossip *g,
                       struct net_action *a); /* next action, in order; false: none */

/* Views.  round: in sync runs the frontier restricted, per machine, to the segments before the first with step >= round (SPEC 7);
 * NET_ALL: everything. */
#define NET_ALL UINT64_MAX
size_t net_gossip_frontier(const struct net_gossip *g, uint64_t round,
                           struct net_frontier_entry *out, size_t n_max); /* how many there are */
void net_gossip_frontier_digest(const struct net_gossip *g, uint64_t round,
                                uint8_t out[32]); /* BLAKE2b of the frontier bytes */
/* The same of entries the caller has: BLAKE2b over SPEC 7's bytes of e [n], in this order. */
void net_frontier_digest(const struct net_frontier_entry *e, size_t n, uint8_t out[32]);
void net_gossip_clock(const struct net_gossip *g, struct net_clock *out);
/* (count, head id, cut) of a machine; false: unknown */
bool net_gossip_feed(const struct net_gossip *g, const uint8_t machine[32],
                     struct net_frontier_entry *out);
/* Feeds in byte order of their machine ids: i from 0; false: no more. */
bool net_gossip_feed_at(const struct net_gossip *g, size_t i, struct net_feed_view *out);
/* Segment i (from 0) of a machine's chain with the mask of what counts; false: not that many.  counts may be NULL. */
bool net_gossip_segment(const struct net_gossip *g, const uint8_t machine[32], size_t i,
                        struct net_segment *out, uint8_t id[32],
                        uint8_t counts[LIMIT_SEGMENT_COUNT]);
/* Would our next segment (count, step, lag) count, all of it?  Used for "not contributing: share". */
bool net_gossip_would_count(const struct net_gossip *g, uint32_t count, uint32_t step,
                            uint32_t lag);
/* Why our own feed takes no more records, as a static string; NULL: it does ("cut", "full", "table", "not admitted"). */
const char *net_gossip_own_closed(const struct net_gossip *g);
bool net_gossip_admitted(const struct net_gossip *g, const uint8_t machine[32]);
/* The last checkpoint by (number, id): frame as in net/control.h; 0: none. */
size_t net_gossip_checkpoint(const struct net_gossip *g, const uint8_t **frame);
/* What was reported of checkpoints (net/score.h); and a digest of all of it, for tests. */
const struct net_scores *net_gossip_scores(const struct net_gossip *g);
void net_gossip_scores_digest(const struct net_gossip *g, uint8_t out[16]);
/* The way from the state at frontier `from` (held now, as net_gossip_frontier gives it) to the state at frontier `to`, another
 * time's: every segment to fold, or to subtract, in the order of feeds.  *step (may be NULL) <- the clock's step at `to`.
 * ERR_AGAIN: `to` names segments that are not held yet; ERR_NOTFOUND: it names another branch or another cut: never from here.
 * In both cases nothing was called.  row NULL: only asks. */
typedef void net_way_row(void *ctx, const uint8_t machine[32], const struct net_segment *s, const uint8_t *counts, bool subtract);
NODISCARD enum err net_gossip_way(const struct net_gossip *g, const struct net_frontier_entry *from, size_t n_from,
                                  const struct net_frontier_entry *to, size_t n_to, uint64_t *step, net_way_row *row, void *ctx);
/* Neighbours whose last frontier comparison was equal, since our last change; and links. */
void net_gossip_agreement(const struct net_gossip *g, size_t *agree, size_t *links);
void net_gossip_count(const struct net_gossip *g, struct net_gossip_counters *out);

/* Simulator only: machines of one process share equal segments, and verify them once.  Set before any load or frame. */
struct net_intern {
    void *ctx;
    /* The bytes id [32], wire [n] that some machine of this process added, one reference more; NULL: none: verify, then add. */
    const uint8_t *(*find)(void *ctx, const uint8_t id[32], const uint8_t *wire, size_t n);
    const uint8_t *(*add)(void *ctx, const uint8_t id[32], const uint8_t *wire,
                          size_t n); /* NULL: out of memory */
    void (*drop)(void *ctx, const uint8_t *bytes);
};
void net_gossip_set_intern(struct net_gossip *g, const struct net_intern *intern);
#endif
