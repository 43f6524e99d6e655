/* net/gossip.h -- the network's core as a pure state machine: (event, now) in, actions out.  No socket, no disk, no
 * clock, no global: the same code runs in the daemon and, a thousand times over, in the simulator.
 *
 * It holds every feed (chain and cut), counts records (SPEC 5), merges forks (DESIGN 4), pushes new segments to its
 * neighbours, compares frontiers and repairs.  The caller carries out the actions in order; STORE and TRUNCATE are
 * durable before any later SEND is carried out.  Threads: one.
 *
 * This header is a contract in draft: its owner refines it, keeping the event/action shape. */
#ifndef ONEBYTE_NET_GOSSIP_H
#define ONEBYTE_NET_GOSSIP_H
#include <onebyte/base/err.h>
#include <onebyte/net/id.h>
#include <onebyte/net/rules.h>
#include <onebyte/net/segment.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net_gossip;

enum net_action_kind {
    NET_SEND,     /* frame [frame_bytes] to link */
    NET_DROP,     /* close link; reason is a static string; blame: the neighbour misbehaved */
    NET_STORE,    /* append segment (frame = wire bytes) of machine to the ledger */
    NET_TRUNCATE, /* drop machine's segments with first_seq >= seq from the ledger's live chain */
    NET_CONTROL,  /* store control event (frame): retraction, fork proof, admission, checkpoint */
    NET_FOLD,     /* segment counts with mask: fold */
    NET_UNFOLD,   /* the records in mask were folded and no longer count: subtract */
    NET_OWN_BEHIND, /* the network holds a longer or other feed of our own key than we do: stop sealing, see seq */
    NET_LEARNED,  /* address [frame] of a peer heard of */
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
    const struct net_segment *segment; /* FOLD, UNFOLD, STORE */
    const uint8_t *counts;             /* [segment->count] FOLD, UNFOLD */
};

struct net_frontier_entry {
    uint8_t machine[32];
    uint64_t count; /* end of the last segment held */
    uint8_t head[32];
    uint64_t cut;   /* UINT64_MAX: none */
};

struct net_clock {
    uint64_t hi, lo; /* 128-bit sum of counted weights */
    uint64_t step;
};

/* self: our own identity (sealing checks, own feed).  seed: for choices of neighbours (randomness is an argument). */
NODISCARD enum err net_gossip_new(struct net_gossip **g, const struct net_rules *rules, const uint8_t self[32], uint64_t seed);
void net_gossip_free(struct net_gossip *g);

/* Events.  Links are the caller's numbers.  Nothing from a link may abort or grow memory without bound. */
NODISCARD enum err net_gossip_link_up(struct net_gossip *g, uint32_t link, const uint8_t machine[32], bool outgoing, uint64_t now_ns);
void net_gossip_link_down(struct net_gossip *g, uint32_t link, uint64_t now_ns);
void net_gossip_frame(struct net_gossip *g, uint32_t link, const uint8_t *frame, size_t n, uint64_t now_ns);
void net_gossip_tick(struct net_gossip *g, uint64_t now_ns);
uint64_t net_gossip_next_tick(const struct net_gossip *g); /* ns at which tick wants to run next */
/* A segment from our own ledger at start-up (any machine, in feed order), or our own new one: same checks. */
NODISCARD enum err net_gossip_load(struct net_gossip *g, const uint8_t machine[32], const uint8_t *wire, size_t n);
NODISCARD enum err net_gossip_load_control(struct net_gossip *g, const uint8_t *frame, size_t n);
NODISCARD enum err net_gossip_own(struct net_gossip *g, const uint8_t *wire, size_t n, uint64_t now_ns);
NODISCARD enum err net_gossip_control(struct net_gossip *g, const uint8_t *frame, size_t n, uint64_t now_ns); /* made here */

bool net_gossip_action(struct net_gossip *g, struct net_action *a); /* next action, in order; false: none */

/* Views. */
size_t net_gossip_frontier(const struct net_gossip *g, struct net_frontier_entry *out, size_t n_max); /* returns how many there are */
void net_gossip_frontier_digest(const struct net_gossip *g, uint8_t out[32]);
void net_gossip_clock(const struct net_gossip *g, struct net_clock *out);
/* (count, head id, weight counted so far) of a machine; false: unknown */
bool net_gossip_feed(const struct net_gossip *g, const uint8_t machine[32], struct net_frontier_entry *out);
/* Would our next segment (count, step, lag) count?  Used for "not contributing: share". */
bool net_gossip_would_count(const struct net_gossip *g, uint32_t count, uint32_t step, uint32_t lag);
#endif
