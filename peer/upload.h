/* peer/upload.h -- what one asker gets of the base model, the manifest and snapshots: enough to join, not a stream without end.
 *
 * Every machine, and every network (the group of net_address_group; loopback excepted), has an allowance of whole copies that
 * time refills.  The speed is not limited: a joiner gets its copy as fast as it can take it.
 * The table is bounded; the asker that was quiet for longest is forgotten, so its next question finds a full allowance.
 * Errors  none.   Threads  one.   Memory  the caller's. */
#ifndef PEER_UPLOAD_H
#define PEER_UPLOAD_H
#include <stdbool.h>
#include <stdint.h>

enum {
    PEER_UPLOAD_ASKERS = 256,
    PEER_UPLOAD_MACHINE = 2, /* copies at once: one, and what an interrupted join asks again */
    PEER_UPLOAD_NETWORK = 8, /* a class room behind one address */
    PEER_UPLOAD_REFILL_S = 3600, /* until a copy is allowed again */
};

struct peer_asker {
    char who[65]; /* a machine id in hex, or a network */
    uint64_t left, seen_ns;
};

struct peer_uploads {
    uint64_t copy;    /* bytes of all there is to have, and some more for questions asked twice */
    uint64_t refused; /* questions */
    struct peer_asker askers[PEER_UPLOAD_ASKERS];
};

/* whole: bytes of the base model's files and of a snapshot. */
void peer_uploads_init(struct peer_uploads *u, uint64_t whole);
/* machine at address (HOST:PORT) asks for `bytes`; false: not now, and it is counted. */
bool peer_uploads_take(struct peer_uploads *u, const uint8_t machine[32], const char *address, uint64_t bytes, uint64_t now_ns);
#endif
