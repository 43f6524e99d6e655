/* peer/join_in.h -- frame kinds and sizes shared by join.c and donor.c; layout in join.h. */
#ifndef PEER_JOIN_IN_H
#define PEER_JOIN_IN_H
#include "peer/manifest.h"
#include <onebyte/base/limits.h>

enum {
    JOIN_WANT_MANIFEST = 64,
    JOIN_MANIFEST = 65,
    JOIN_WANT_CHUNK = 66,
    JOIN_CHUNK = 67,
    JOIN_NONE = 68,
    JOIN_WANT_STATE = 69, /* of a snapshot: daemon_snap.c */
    JOIN_WANT_MANIFEST_BYTES = 5,
    JOIN_MANIFEST_HEAD = 73,
    JOIN_WANT_CHUNK_BYTES = 11,
    JOIN_CHUNK_HEAD = 11,
    JOIN_PIECE = 8192, /* bytes of content per frame */
};
_Static_assert(JOIN_MANIFEST_HEAD + JOIN_PIECE <= LIMIT_FRAME_BYTES, "a piece fits a frame");
_Static_assert(PEER_CHUNK_BYTES < LIMIT_LINK_QUEUE_BYTES + 1, "a window fits the queue by far");

static inline uint64_t join_chunk_bytes(const struct peer_file *f, uint64_t chunk)
{
    const uint64_t at = chunk * PEER_CHUNK_BYTES;
    return f->bytes - at < PEER_CHUNK_BYTES ? f->bytes - at : PEER_CHUNK_BYTES;
}
#endif
