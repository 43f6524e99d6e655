/* peer/join.h -- joining with nothing but an invite: the manifest and the base model, in chunks, from any peer.
 *
 * FRAMES  first byte 64..71, the daemon's own (net/gossip.h), each at most LIMIT_FRAME_BYTES:
 *   64 WANT_MANIFEST   offset u32
 *   65 MANIFEST        offset u32  total u32  sig [64]  bytes                 of the manifest's text
 *   66 WANT_CHUNK      file u16  chunk u32  offset u32                        answered by a window of PEER_WINDOW_BYTES
 *   67 CHUNK           file u16  chunk u32  offset u32  bytes
 *   68 NONE            the asked kind u8, then its fields: not here, or not now
 * Nothing is believed: the manifest's bytes must hash to the run id and carry its owner's signature, each 4 MiB chunk must
 * hash to what the manifest says; a wrong one is thrown away and its donor not asked again.
 * A donor gives each machine and network a few copies, then NONE for a while (peer/upload.h).
 * Several donors serve different chunks at once; what was verified stays on disk, so an interrupted join goes on. */
#ifndef PEER_JOIN_H
#define PEER_JOIN_H
#include "peer/home.h"
#include "peer/manifest.h"
#include <onebyte/base/err.h>
#include <onebyte/net/transport.h>
#include <stddef.h>
#include <stdint.h>

enum { PEER_FRAME_FIRST = 64, PEER_FRAME_LAST = 71, PEER_WINDOW_BYTES = 256 << 10 };

/* Dials connect [n] until one gives the manifest of run_id.  Retries for ever. */
NODISCARD enum err peer_join_manifest(const struct peer_home *h, const char *const *connect, size_t n,
                                      const uint8_t run_id[32], struct peer_manifest *m, struct err_why *why);
/* Makes dir hold every file of the manifest; files already there are kept if they are right. */
NODISCARD enum err peer_join_model(const struct peer_home *h, const char *const *connect, size_t n,
                                   const struct peer_manifest *m, const char *dir, struct err_why *why);

/* The donor's side: a frame 64..71 from link; answers go out on the transport. */
struct peer_donor {
    const struct peer_manifest *manifest;
    const char *model_dir;
    int *fds;        /* [manifest->n_files] open files, -1: not yet; owned */
    uint64_t sent;   /* bytes */
};
void peer_donor_init(struct peer_donor *d, const struct peer_manifest *m, const char *model_dir);
void peer_donor_release(struct peer_donor *d);
void peer_donor_frame(struct peer_donor *d, struct net_transport *t, uint32_t link, const uint8_t *frame, size_t n);
#endif
