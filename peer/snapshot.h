/* peer/snapshot.h -- a state in a file, with the frontier it belongs to: home/snapshots/state.  A cache, never the truth.
 *
 * FILE, little-endian:  "onebyte/1 snaps\0"  run id [32]  frontier bytes u64  state bytes u64
 *                       frontier (SPEC 7)  state (SPEC 7)  BLAKE2b of all before [32]
 * The hash finds damage, and a snapshot is named by its first 8 bytes; it proves nothing about who made it.  Whoever uses a
 * snapshot, its own included, proves it against the ledger (zo/state.h, DESIGN 3) or folds from the base.
 *
 * FRAMES of daemons (join.h has the others):
 *   69 WANT_STATE  id [8]  offset u64     id zeros: the newest; answered by a window of PEER_WINDOW_BYTES, or 68 NONE
 *   70 STATE       id [8]  total u64  offset u64  bytes */
#ifndef PEER_SNAPSHOT_H
#define PEER_SNAPSHOT_H
#include <onebyte/base/err.h>
#include <onebyte/net/gossip.h>
#include <onebyte/zo/state.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PEER_FRONTIER_ENTRY = 80, PEER_SNAPSHOT_HEAD = 64 };

/* Bytes of a frontier [n_bytes], a multiple of PEER_FRONTIER_ENTRY: entry i. */
void peer_frontier_get(const uint8_t *bytes, size_t i, struct net_frontier_entry *out);
void peer_frontier_put(uint8_t *bytes, size_t i, const struct net_frontier_entry *in);

/* Written beside, synced, renamed. */
NODISCARD enum err peer_snapshot_write(const char *path, const uint8_t run_id[32], const uint8_t *frontier, size_t n_frontier,
                                       const struct zo_state *s, struct err_why *why);

/* BLAKE2b of the state bytes: what a checkpoint signs. */
void peer_snapshot_hash(const struct zo_state *s, uint8_t out[32]);

struct peer_snapshot {
    uint8_t *map; /* the whole file, read only */
    size_t bytes;
    const uint8_t *frontier;
    size_t n_frontier; /* entries */
    const uint8_t *state;
    uint64_t state_bytes;
    uint8_t id[8];
};
/* Checks lengths, run and hash.  ERR_NOTFOUND: no such file; ERR_FORMAT: damaged, or of another run or model. */
NODISCARD enum err peer_snapshot_open(struct peer_snapshot *s, const char *path, const uint8_t run_id[32], uint64_t state_bytes);
void peer_snapshot_close(struct peer_snapshot *s);

/* Does g hold everything of the snapshot's frontier, with the same cuts?  Then its records are the segments of g below each
 * entry's count. */
enum peer_held { PEER_HELD, PEER_NOT_YET, PEER_NEVER }; /* never: another branch or another cut */
enum peer_held peer_snapshot_held(const struct peer_snapshot *s, const struct net_gossip *g);
/* The entry of machine; false: none. */
bool peer_snapshot_entry(const struct peer_snapshot *s, const uint8_t machine[32], struct net_frontier_entry *out);
#endif
