/* net/audit.h -- audits: what an auditor asks, what an author signs, and the records between two frontiers.  DESIGN 6.
 *
 * FRAMES (gossip's; versions that do not know them ignore them), little-endian, after the type byte:
 *   20 AUDIT_ASK    hops u8  machine [32]  segment id [32]  offset u32
 *   21 AUDIT_TELL   machine [32]  segment id [32]  offset u32  total u32  frontier hash [32]  signature [64]  bytes
 *                   bytes: SPEC 7's frontier from offset on, at most NET_TELL_PIECE; total 0 and no bytes: not here
 * An author need not be a neighbour: a question follows the links by which the author's segments came, and the answer
 * goes back the same way.  Relays believe and keep nothing but whom to answer (LIMIT_AUDITS, a few seconds).
 * Signed by the author: "onebyte/1 audit\0", run id, segment id, BLAKE2b(frontier). */
#ifndef ONEBYTE_NET_AUDIT_H
#define ONEBYTE_NET_AUDIT_H
#include <onebyte/base/err.h>
#include <onebyte/net/gossip.h>
#include <onebyte/net/id.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NET_ASK_BYTES = 1 + 1 + 32 + 32 + 4,
    NET_TELL_HEAD = 1 + 32 + 32 + 4 + 4 + 32 + 64,
    NET_TELL_PIECE = 8000, /* 100 entries */
    NET_TELL_BYTES_MAX = NET_TELL_HEAD + NET_TELL_PIECE,
    NET_AUDIT_HOPS = 16,
};
_Static_assert((int)NET_TELL_BYTES_MAX <= (int)LIMIT_FRAME_BYTES, "an answer fits a frame");

struct net_ask {
    uint8_t hops, machine[32], id[32];
    uint32_t offset;
};
struct net_tell {
    uint8_t machine[32], id[32];
    uint32_t offset, total;
    uint8_t hash[32], sig[64];
    const uint8_t *bytes; /* [n], inside the frame */
    size_t n;
};

/* Whole frames, type byte included; structure only; untouched on error. */
NODISCARD enum err net_ask_parse(struct net_ask *a, const uint8_t *frame, size_t n);
NODISCARD enum err net_tell_parse(struct net_tell *t, const uint8_t *frame, size_t n);
size_t net_ask_write(uint8_t frame[NET_ASK_BYTES], const struct net_ask *a);
size_t net_tell_write(uint8_t frame[NET_TELL_BYTES_MAX], const struct net_tell *t);

void net_audit_sign(uint8_t sig[64], const struct net_rules *r, const struct net_identity *author,
                    const uint8_t id[32], const uint8_t hash[32]);
/* ERR_PROTO: machine did not sign that its segment id was measured at the frontier of this hash. */
NODISCARD enum err net_audit_check(const uint8_t sig[64], const struct net_rules *r,
                                   const uint8_t machine[32], const uint8_t id[32],
                                   const uint8_t hash[32]);

/* Asks machine for the frontier of its segment id, from offset on; the answer comes as NET_TOLD.  attempt > 0: by another link
 * than the one its segments come by.  ERR_AGAIN: no link, or too many questions are open. */
NODISCARD enum err net_gossip_ask(struct net_gossip *g, const uint8_t machine[32],
                                  const uint8_t id[32], uint32_t offset, uint32_t attempt,
                                  uint64_t now_ns);
/* The answer to a NET_ASKED that came by link. */
void net_gossip_tell(struct net_gossip *g, uint32_t link, const struct net_tell *t);

/* A segment that is not (any more) in the live chain. */
struct net_branch {
    uint8_t machine[32];
    const uint8_t *wire; /* [n], borrowed */
    size_t n;
};
/* Records of s whose counts[] is 1: to be taken out of the state (subtract) or added. */
typedef void net_between_row(void *ctx, const uint8_t machine[32], const struct net_segment *s,
                             const uint8_t *counts, bool subtract);
/* One machine's records that lie between two of its holdings: the state at `from`, less what is subtracted, plus what is
 * added, is the state at `to`.  from must be a prefix of the live chain (any cut); to may lead over branches [n]; what
 * its head names is found by hashes, so branches need not be trusted.  ERR_NOTFOUND: `to` is not all here (no row was
 * called); ERR_NOMEM. */
NODISCARD enum err net_gossip_between(const struct net_gossip *g,
                                      const struct net_frontier_entry *from,
                                      const struct net_frontier_entry *to,
                                      const struct net_branch *branches, size_t n,
                                      net_between_row *row, void *ctx);
#endif
