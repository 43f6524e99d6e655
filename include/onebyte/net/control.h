/* net/control.h -- control events: what changes who counts, and what names a state.  DESIGN 4, 6; SPEC 6.
 *
 * FRAME (also what the ledger stores), little-endian, first byte the kind:
 *   1 retract     machine [32]  seq u64                          signature [64] by the owner
 *   2 fork proof  machine [32]  pred [32]  n u16  wire [n]  n u16  wire [n]       (carries its two segments' signatures)
 *   3 admit       machine [32]                                   signature [64] by the owner
 *   4 checkpoint  number u64  frontier [32]  state [32]          signature [64] by the owner
 * Signed bytes: "onebyte/1 retract\0" (admit, checkpoint likewise), run id, then the fields in this order.
 * The two segments of a proof are in byte order of their ids, so that both finders make the same frame. */
#ifndef ONEBYTE_NET_CONTROL_H
#define ONEBYTE_NET_CONTROL_H
#include <onebyte/base/err.h>
#include <onebyte/net/id.h>
#include <onebyte/net/rules.h>
#include <onebyte/net/segment.h>
#include <stddef.h>
#include <stdint.h>

enum net_control_kind { NET_RETRACT = 1, NET_FORK = 2, NET_ADMIT = 3, NET_CHECKPOINT = 4 };
enum { NET_CONTROL_BYTES_MAX = 1 + 64 + 2 * (2 + NET_SEGMENT_BYTES_MAX) };

struct net_control {
    enum net_control_kind kind;
    uint8_t machine[32]; /* retract, fork, admit */
    uint64_t seq;        /* retract: the cut; fork: first_seq of both segments */
    uint64_t number;     /* checkpoint */
    uint8_t frontier[32],
        state[32];           /* checkpoint: BLAKE2b of the frontier bytes, of the state bytes */
    uint8_t pred[32];        /* fork: full id of the common predecessor, zeros for the first */
    struct net_segment a, b; /* fork */
    uint8_t sig[64];
};

/* Structure only; *c untouched on error. */
NODISCARD enum err net_control_parse(struct net_control *c, const uint8_t *frame, size_t n);
/* The owner's signature (retract, admit, checkpoint).  Fork proofs: ERR_OK; their segments are checked where the predecessor is held. */
NODISCARD enum err net_control_check(const struct net_control *c, const struct net_rules *r);
/* Bytes written, <= NET_CONTROL_BYTES_MAX. */
size_t net_control_write(uint8_t *frame, const struct net_control *c);
/* Makes and signs; owner must hold the run's owner key (ENSUREd). */
size_t net_control_retract(uint8_t *frame, const struct net_rules *r,
                           const struct net_identity *owner, const uint8_t machine[32],
                           uint64_t seq);
size_t net_control_admit(uint8_t *frame, const struct net_rules *r,
                         const struct net_identity *owner, const uint8_t machine[32]);
size_t net_control_checkpoint(uint8_t *frame, const struct net_rules *r,
                              const struct net_identity *owner, uint64_t number,
                              const uint8_t frontier[32], const uint8_t state[32]);
/* (number, id) orders checkpoints; id = BLAKE2b of what is signed. */
void net_control_id(uint8_t id[32], const struct net_control *c, const struct net_rules *r);
#endif
