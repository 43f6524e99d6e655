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
    LIMIT_LINE_BYTES = 64 << 20, /* a line of a data file; who names a device or a disk image is told so */
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
    LIMIT_ANSWER_RATE = 4 << 20, /* bytes a second of answers that all links together can make us send; burst twice that .. */
    LIMIT_LINK_RATE = 128 << 10, /* .. besides so many for each; burst twice that: one whole answer to PULL */
    LIMIT_LATERS = 64,           /* times in a row that a neighbour may put off one question, then it is to blame */
    LIMIT_PUSH_COST = 2048,      /* of that rate, what a pushed segment is charged: a signature is 0.1 ms of our time */
    LIMIT_ADDRESSES = 256,       /* listening addresses that we may tell neighbours */
    LIMIT_ADDRESS_BYTES = 64,    /* HOST:PORT */
    LIMIT_ADDRESSES_TOLD = 16,   /* in one frame */
    LIMIT_FLOOD_FEEDS = 128,     /* up to so many feeds, a new link or feed floods until pruned: the shortest trees */
    LIMIT_FLOOD_LINKS = 4,       /* beyond, a new feed's first segment goes to so many neighbours */
    LIMIT_FIRST_SEGMENT = 16,    /* records a peer puts into a feed's first segment: no tree is known yet, so it is flooded */
    LIMIT_ADMITTED = 65536,      /* signed admissions held */
    LIMIT_OVER = 1000,           /* questions of one link that its rate left unanswered, then it is closed; .. */
    LIMIT_OVER_PER_S = 100,      /* .. so many a second are forgiven: an honest one has at most 32 open at a time */
    LIMIT_AUTHOR_RECORDS = 1 << 20, /* a minute of one machine, and as many at once; more waits, whoever brings it */
    LIMIT_SEGMENT_PRICE = 64,    /* of them, what a segment costs its author at least: each takes a signature and a row on disk */
    LIMIT_IDLE_SEGMENTS = 100,   /* a second, of all machines together, of which no record counts; burst twice that */
    LIMIT_CATCH_UP_S = 600,      /* after our start a feed of any length is taken at once */
    LIMIT_SCORE_CHECKPOINTS = 256, /* the last so many checkpoints keep their scores: at most 3 MB */
    LIMIT_SCORE_REPORTERS = 4,     /* machines per part of the eval set */
    LIMIT_SCORES_TOLD = 100,       /* in one frame */
    LIMIT_SCORES_STORED = 16,      /* per part: beyond, what takes another's place is neither stored nor pushed, only compared */
    LIMIT_AUDITS = 64,           /* questions of auditors that wait for an answer; more are not passed on */
    LIMIT_LINK_AUDITS = 8,       /* of them from one link */
};
#define LIMIT_GOSSIP_BYTES ((uint64_t)1 << 32) /* segments held in memory by one machine; then as for LIMIT_FEEDS */
_Static_assert(LIMIT_LINK_PULLS * 2 <= LIMIT_PULLS, "one link must not take every pull");
_Static_assert(LIMIT_PULL_BYTES < LIMIT_ANSWER_RATE && LIMIT_PULL_BYTES <= 2 * LIMIT_LINK_RATE, "one answer fits the rates");
/* Transport (net/transport*.c). */
enum {
    LIMIT_DIALS = 64,                   /* addresses kept dialled */
    LIMIT_PROBATION = 64,               /* connections that have not proved a machine yet */
    LIMIT_PROBATION_MS = 10000,         /* to prove it: two round trips and a busy machine at either end */
    LIMIT_PROBATION_BYTES = 4096,       /* to prove it; TCP payload, of which CURVE's handshake takes about 1 KB */
    LIMIT_ARRIVALS = 64,                /* new connections at once from one /24 or /64 (loopback excepted), then .. */
    LIMIT_ARRIVALS_PER_S = 5,           /* .. so many a second; the rest is cut before its handshake costs anything */
    LIMIT_ARRIVAL_GROUPS = 256,         /* groups remembered; the one quiet for longest is forgotten */
    LIMIT_HANDSHAKE_MS = 5000,          /* for the CURVE handshake; a silent TCP client holds a descriptor this long */
    LIMIT_PING_MS = 15000,              /* of silence before we ask; keeps NAT mappings open */
    LIMIT_SILENCE_MS = 60000,           /* of silence before a link is dead */
    LIMIT_PENALTY_MS = 60000,           /* a blamed machine is kept out; doubles .. */
    LIMIT_PENALTY_DOUBLINGS = 6,        /* .. so often at most: an hour */
    LIMIT_LINKS_SHARE = 2,              /* one /24 or /64 gets at most this part of the links that others dial: 1/2 */
    LIMIT_PENALTIES = 256,              /* machines kept out at once; the oldest is forgiven */
    LIMIT_RETRY_MS = 200,               /* first waiting time before dialling again; doubles */
    LIMIT_RETRY_MS_MAX = 60000,         /* last waiting time */
    LIMIT_LINK_QUEUE_BYTES = 4 << 20,   /* waiting to be sent on one link, in our memory */
    LIMIT_FRAMES_IN = 4000,             /* frames (and KiB) a second taken from all links together; burst twice that .. */
    LIMIT_LINK_FRAMES_IN = 50,          /* .. besides so many from each; burst twice that */
    LIMIT_LINK_DEBT = 100,              /* beyond both a link is held back, and what it had sent by then is taken; .. */
    LIMIT_LINK_DROPS = 2000,            /* .. what is more is dropped, and a link that had so much dropped is closed */
    LIMIT_HOLD_MS = 250,                /* held back for so long; doubles; .. */
    LIMIT_HOLD_DOUBLINGS = 5,           /* .. so often at most: a neighbour's patience is LIMIT_SILENCE_MS */
    LIMIT_HOLDS_LOUD = 2,               /* a link that is held back so often has its own rate only, .. */
    LIMIT_HOLDS = 16,                   /* .. and so often is closed; forgiven after .. */
    LIMIT_CALM_MS = 30000,              /* .. so long without */
    LIMIT_NARROW_BYTES = 16 << 10,      /* of kernel memory for what a link sent that brought nothing yet, or was held back */
    LIMIT_HIDDEN_BYTES = LIMIT_FRAME_BYTES + (64 << 10), /* received but not delivered: one frame and one read of ZeroMQ's */
};
_Static_assert(LIMIT_PULL_BYTES * 8 <= LIMIT_LINK_QUEUE_BYTES, "several answers wait on one link");
_Static_assert((LIMIT_HOLD_MS << LIMIT_HOLD_DOUBLINGS) * 4 < LIMIT_SILENCE_MS, "who is held back is not taken for dead");
_Static_assert(LIMIT_PING_MS * 3 < LIMIT_SILENCE_MS, "a dead link was asked at least twice");
/* Ledger and address book (net/ledger.c, net/book.c). */
enum {
    LIMIT_LEDGER_BATCH = 4096,     /* foreign segments waiting for a commit, then one is made; 16 times that while the disk fails */
    LIMIT_LEDGER_BRANCH = 65536,   /* segments kept aside after a cut */
    LIMIT_LEDGER_VALUE = 64 << 20, /* bytes of one named value */
    LIMIT_CONTROL_BYTES = 1 << 20, /* bytes of one control event in an exported file */
    LIMIT_BOOK_TRIED = 256,        /* addresses that worked */
    LIMIT_BOOK_NEW = 1024,         /* addresses heard of */
    LIMIT_BOOK_GROUP = 8,          /* of one group, in each table */
    LIMIT_BOOK_TELLER = 64,        /* heard from one neighbour */
    LIMIT_BOOK_FAILURES = 8,       /* in a row, then an address that never worked is forgotten */
};
_Static_assert(LIMIT_BOOK_GROUP < LIMIT_BOOK_TRIED && LIMIT_BOOK_TELLER < LIMIT_BOOK_NEW, "nobody fills a table alone");
#endif
