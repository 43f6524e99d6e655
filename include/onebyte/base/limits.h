/* base/limits.h -- every bound of the program in one place.  A module that needs a new bound adds it here,
 * with the reason, and relates it to the others by _Static_assert. */
#ifndef ONEBYTE_BASE_LIMITS_H
#define ONEBYTE_BASE_LIMITS_H

enum {
    LIMIT_SEGMENT_COUNT = 1024,  /* records per segment: SPEC 6 */
    LIMIT_KNOTS = 257,           /* schedule knots: DESIGN 3 */
    LIMIT_TENSORS = 65536,       /* trainable tensors per run */
    LIMIT_TENSOR_DIMS = 8,       /* dimensions of a stored tensor */
    LIMIT_NAME_BYTES = 256,      /* a tensor's name, without its NUL */
    LIMIT_CKPT_HEADER = 100000000, /* bytes of a safetensors header: the format's own bound */
    LIMIT_THREADS = 256,         /* workers in the pool */
};
#define LIMIT_RECORDS_DEFAULT (1u << 24) /* records per feed unless the manifest says otherwise */
/* Gossip (net/gossip*.c).  What happens at each limit is in tests/net/test_gossip.c. */
enum {
    LIMIT_LINKS = 64,            /* neighbours at once; more are refused by link_up */
    LIMIT_FEEDS = 65536,         /* machines in the table: then new ones wait, and we say "table" and stop contributing */
    LIMIT_FRAME_BYTES = 16384,   /* one gossip frame; a longer one is a fault */
    LIMIT_FAULTS = 8,            /* malformed frames on a link before it is closed with blame */
    LIMIT_PULLS = 256,           /* feeds being pulled at once, over all links */
    LIMIT_LINK_PULLS = 32,       /* of them on one link */
    LIMIT_PULL_BYTES = 1 << 18,  /* one answer to PULL, so that a link's queue stays bounded */
    LIMIT_ASK_SEQS = 16,         /* seqs in one question of a fork search */
    LIMIT_SEARCH_QUESTIONS = 32, /* 16^6 = 2^24 segments need 6; the rest is for losses */
    LIMIT_LINK_RATE = 4 << 20,   /* bytes a second of answers one link can make us send; burst twice that */
    LIMIT_ADDRESSES = 256,       /* listening addresses that we may tell neighbours */
    LIMIT_ADDRESS_BYTES = 64,    /* HOST:PORT */
    LIMIT_ADDRESSES_TOLD = 16,   /* in one frame */
    LIMIT_ADMITTED = 65536,      /* signed admissions held */
};
#define LIMIT_GOSSIP_BYTES ((uint64_t)1 << 32) /* segments held in memory by one machine; then as for LIMIT_FEEDS */
_Static_assert(LIMIT_LINK_PULLS * 2 <= LIMIT_PULLS, "one link must not take every pull");
_Static_assert(LIMIT_PULL_BYTES < LIMIT_LINK_RATE, "one answer fits the link's rate");
#endif
