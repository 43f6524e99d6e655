/* net/wire.h -- gossip frames between neighbours, little-endian, first byte the type.  An entry is SPEC 7's frontier entry:
 * machine [32], count u64, head [32], cut u64.  Nothing here is signed: the link is authenticated, and what matters carries
 * its author's signature.  Types 26..63 are for later versions and ignored; 64.. belong to the daemon.
 *
 *  1 HELLO     version u8, listening address (rest of the frame, may be empty)
 *  2 SUMMARY   root [16], checkpoint number u64, checkpoint id [8]      -> AGREE, or NODES / ENTRIES of the receiver
 *  3 AGREE     root [16]
 *  4 NODES     prefix u8 (0: the 16 nodes; 1 + i: the 16 buckets of node i), 16 digests [16]   -> NODES / ENTRIES where they differ
 *  5 ENTRIES   lo [32], hi [32], entries: all that the sender holds with lo < machine <= hi   -> PULL, HAVE, CONTROL, ASK
 *  6 WANT      machine [32]                                             -> HAVE
 *  7 HAVE      entries
 *  8 SEGMENT   name u32, wire           the sender's name for a feed, told before by
 *  9 SEGMENT_OF machine [32], name u32, wire
 * 10 UNNAMED   name u32                 I do not know this name: tell again
 * 11 PULL      entry (what I hold), limit u32 bytes                     -> SEGMENTs, CONTROL if your cut is lower, DONE or NOHEAD; or LATER
 * 12 DONE      entry (what I hold)
 * 13 NOHEAD    entry (what I hold)      your (count, head) is not in my chain
 * 14 ASK       machine [32], seqs u64 [1..16]                           -> TELL
 * 15 TELL      machine [32], (first_seq u64, id [32]) for each seq asked, first_seq 2^64 - 1 where I hold nothing
 * 16 CONTROL   net/control.h
 * 17 ADDRESSES (length u8, bytes) ...   listening addresses of others
 * 18 PRUNE     name u32                 of yours: do not push it, others do; a PULL or GRAFT takes it back
 * 19 GRAFT     machine [32] ...         push me these (none: all): what brought them to me is gone
 * 20 SCORE     frames of net/score.h, 1..LIMIT_SCORES_TOLD
 * 21 SCORED    digest [16] of all scores that the sender holds; with each SUMMARY     -> SCORES if the receiver's differs
 * 22 SCORES    answer u8 (0, 1), (checkpoint number u64, digest [8] of its scores) ascending   -> SCOREs of the numbers that differ;
 *                                       to an answer 0, where the receiver lacks something, SCORES with 1
 * 23 AUDIT_ASK, 24 AUDIT_TELL           net/audit.h
 * 25 LATER     machine [32], ms u32     to PULL: I answer so much that this has to wait; ask again in so many milliseconds or more */
#ifndef NET_WIRE_H
#define NET_WIRE_H
#include <onebyte/base/limits.h>
#include <onebyte/net/control.h>
#include <onebyte/net/score.h>

enum {
    WIRE_HELLO = 1,
    WIRE_SUMMARY,
    WIRE_AGREE,
    WIRE_NODES,
    WIRE_ENTRIES,
    WIRE_WANT,
    WIRE_HAVE,
    WIRE_SEGMENT,
    WIRE_SEGMENT_OF,
    WIRE_UNNAMED,
    WIRE_PULL,
    WIRE_DONE,
    WIRE_NOHEAD,
    WIRE_ASK,
    WIRE_TELL,
    WIRE_CONTROL,
    WIRE_ADDRESSES,
    WIRE_PRUNE,
    WIRE_GRAFT,
    WIRE_SCORE,
    WIRE_SCORED,
    WIRE_SCORES,
    WIRE_AUDIT_ASK,
    WIRE_AUDIT_TELL,
    WIRE_LATER,
    WIRE_DAEMON = 64,
};
enum { WIRE_ENTRY = 80, WIRE_VERSION = 1, WIRE_ENTRIES_MAX = 96, WIRE_GRAFTS_MAX = 256 };
_Static_assert(1 + WIRE_GRAFTS_MAX * 32 <= LIMIT_FRAME_BYTES, "a frame of grafts fits");
_Static_assert(1 + 64 + WIRE_ENTRIES_MAX * WIRE_ENTRY <= LIMIT_FRAME_BYTES,
               "a frame of entries fits");
_Static_assert(1 + NET_CONTROL_BYTES_MAX <= LIMIT_FRAME_BYTES, "a fork proof fits");
_Static_assert(1 + LIMIT_ADDRESSES_TOLD * (1 + LIMIT_ADDRESS_BYTES) <= LIMIT_FRAME_BYTES,
               "addresses fit");
_Static_assert(1 + LIMIT_SCORES_TOLD * NET_SCORE_BYTES <= LIMIT_FRAME_BYTES, "a frame of scores fits");
_Static_assert(2 + LIMIT_SCORE_CHECKPOINTS * 16 <= LIMIT_FRAME_BYTES, "a list of checkpoints fits");
#endif
