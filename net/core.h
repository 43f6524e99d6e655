/* net/core.h -- inside the gossip machine: its memory, and the calls between its files.
 *
 *   queue.c    actions and the bytes they carry         table.c    feeds by machine, frontier, comparison tree
 *   hold.c     accept a segment, lower a cut, controls  compare.c  summaries and entries: who lacks what
 *   repair.c   PULL, fork search, blame                 gossip.c   events, links, tick, views
 *   rate.c     authors and links that are too fast
 *   score.c    evaluation results                       share.c    .. passed on and compared */
#ifndef NET_CORE_H
#define NET_CORE_H
#include "feed.h"
#include <onebyte/base/bytes.h>
#include <onebyte/net/control.h>
#include <onebyte/net/gossip.h>
#include <string.h>

#define NET_S UINT64_C(1000000000) /* ns */

/* ---- actions ---- */
struct net_queued {
    enum net_action_kind kind;
    uint32_t link;
    const char *reason; /* static */
    bool blame, has_counts;
    uint8_t machine[32];
    uint64_t seq;
    size_t at, bytes, counts_at; /* offsets into arena */
};
struct net_queue {
    struct net_queued *a; /* [n]; head.. not yet taken */
    size_t head, n, capacity;
    uint8_t *arena; /* reset when every action is taken */
    size_t arena_n, arena_capacity;
    bool lost; /* out of memory: an action was dropped */
};

/* ---- comparison tree: 256 buckets by the first byte of the machine id, 16 nodes, one root ---- */
enum { NET_TREE_BYTES = 16 };
struct net_tree {
    uint8_t bucket[256][NET_TREE_BYTES], node[16][NET_TREE_BYTES], root[NET_TREE_BYTES];
    uint64_t dirty[4];
};

/* ---- links ---- */
struct net_search {
    bool active;
    uint8_t machine[32];
    uint32_t epoch, lo, hi; /* chain[0, lo) shared; chain[hi] not (or hi = n at the start) */
    uint32_t questions, n_asked;
    uint32_t asked[LIMIT_ASK_SEQS]; /* indices */
    uint64_t deadline_ns;
};
enum {
    NET_NAMED = 1,
    NET_LAZY = 2
}; /* it knows our name for the feed; it gets the feed from others: do not push */
struct net_link {
    uint32_t id;
    uint8_t machine[32];
    bool outgoing, dead; /* dead: dropped, forgotten when the current event ends */
    uint32_t *
        cursor; /* [n_cursor] per feed: 4 * (segments the neighbour holds or was sent) + NET_LAZY + NET_NAMED */
    uint32_t n_cursor;
    uint32_t *names; /* [n_names] the neighbour's name -> our feed index + 1 */
    uint32_t n_names;
    uint32_t n_pulls, faults;
    bool more;  /* something was skipped for want of a free pull: compare again */
    bool equal; /* the last comparison was equal, at root */
    uint8_t root[NET_TREE_BYTES];
    uint64_t compared_ns, addresses_ns; /* last summary sent, last addresses taken */
    uint64_t wait_ns, wait_until_ns;    /* back-off of repairs */
    uint64_t tokens, tokens_ns;         /* bytes of answers it may still cause, before those that all share */
    uint32_t over;                      /* questions beyond them, less what time forgave */
    uint64_t over_ns;
    struct net_search search;
    struct net_frontier_entry ours, theirs; /* last HAVE of our feed and of its own: for draining */
    bool told_ours, told_theirs;
};
struct net_pull {
    uint8_t machine[32];
    uint32_t link;
    bool used, progress, probe; /* probe: the one segment that ends a search */
    bool later;                 /* the neighbour was busy: asked again at the deadline */
    uint32_t laters;            /* in a row */
    uint64_t deadline_ns;
};

/* A question of an auditor that went out by `to` and is not answered yet. */
struct net_open_ask {
    bool used, own;
    uint32_t from, to; /* links; from: whom to answer, unless our own */
    uint8_t machine[32], id[32];
    uint32_t offset;
    uint64_t deadline_ns;
};

struct net_gossip {
    struct net_rules rules;
    uint8_t self[32];
    uint64_t random, now_ns, start_ns; /* start: the first link */
    struct net_queue queue;
    struct net_segment taken; /* what the last action points to */

    struct net_feed **feeds; /* [n_feeds], by name; never removed */
    uint32_t *sorted;        /* [n_feeds] names in byte order of machine */
    uint32_t n_feeds, feeds_capacity;
    uint64_t bytes_held;
    struct net_tree tree;
    net_u128 clock;

    uint8_t (*admitted)[32];   /* sorted */
    uint8_t (*admissions)[64]; /* the owner's signatures beside it */
    uint32_t n_admitted, admitted_capacity;
    bool has_checkpoint;
    struct net_control checkpoint;
    uint8_t checkpoint_id[32];
    uint8_t checkpoint_frame[NET_CONTROL_BYTES_MAX];
    size_t checkpoint_bytes;

    struct net_link *links[LIMIT_LINKS];
    uint32_t n_links;
    struct net_pull pulls[LIMIT_PULLS];
    uint32_t n_pulls;
    uint64_t summary_ns;
    uint64_t tokens, tokens_ns;          /* bytes of answers that all links may still cause */
    uint64_t idle, idle_ns, idle_until_ns; /* segments of which nothing counts, still to be taken; until when they had to wait */

    char listening[LIMIT_ADDRESS_BYTES + 1];
    char (*addresses)[LIMIT_ADDRESS_BYTES + 1]; /* [n_addresses] */
    uint32_t n_addresses;
    struct net_open_ask asks[LIMIT_AUDITS];
    struct net_intern intern;
    struct net_scores *scores;
    struct net_gossip_counters count;
};

extern const struct net_intern net_intern_own; /* gossip.c: plain memory */

uint64_t net_random(struct net_gossip *g);

/* queue.c.  Offsets stay good until every action is taken. */
void net_queue_release(struct net_queue *q);
size_t net_queue_bytes(struct net_queue *q, const uint8_t *p,
                       size_t n); /* SIZE_MAX: out of memory */
void net_queue_push(struct net_queue *q, const struct net_queued *a);
bool net_queue_take(struct net_gossip *g, struct net_action *a);
void net_send(struct net_gossip *g, const struct net_link *l, const uint8_t *frame, size_t n);
void net_send_at(struct net_gossip *g, const struct net_link *l, size_t at, size_t n);
void net_drop(struct net_gossip *g, struct net_link *l, const char *reason, bool blame);

/* table.c */
struct net_feed *net_table_find(const struct net_gossip *g, const uint8_t machine[32],
                                uint32_t *name); /* NULL; name may be NULL */
struct net_feed *net_table_add(struct net_gossip *g, const uint8_t machine[32],
                               uint32_t *name); /* NULL: full or no memory */
uint32_t
net_table_lower(const struct net_gossip *g,
                const uint8_t machine[32]); /* first position in sorted with id >= machine */
void net_table_touch(struct net_gossip *g, const struct net_feed *f); /* its entry changed */
void net_tree_refresh(struct net_gossip *g);
void net_table_release(struct net_gossip *g);
void net_entry_write(uint8_t out[80], const struct net_frontier_entry *e);
void net_entry_read(struct net_frontier_entry *e, const uint8_t in[80]);
bool net_entry_same(const struct net_frontier_entry *a, const struct net_frontier_entry *b);

/* hold.c.  from: the link it came by, NULL: our own or the ledger's.  A feed may be NULL: unknown machine. */
enum net_verdict {
    NET_TAKEN,
    NET_DUPLICATE,
    NET_GAP,
    NET_CONFLICT,
    NET_FORKED,
    NET_LATE,
    NET_INVALID,
    NET_UNADMITTED,
    NET_NO_ROOM
};
enum net_verdict net_hold_segment(struct net_gossip *g, const uint8_t machine[32],
                                  const struct net_segment *s, const uint8_t *wire, size_t n,
                                  bool store);
/* ERR_OK: taken; ERR_RANGE: nothing new; ERR_PROTO: invalid; ERR_AGAIN: a proof whose predecessor is not held. */
NODISCARD enum err net_hold_control(struct net_gossip *g, const uint8_t *frame, size_t n,
                                    bool store, const struct net_link *from);

/* The frame of the signed admission of machine; 0: none is needed or held. */
size_t net_hold_admission_of(const struct net_gossip *g, const uint8_t machine[32], uint8_t *frame);

/* compare.c */
void net_link_cursor(struct net_gossip *g, struct net_link *l, uint32_t name, uint32_t n,
                     bool exact);
uint32_t net_link_known(const struct net_link *l,
                        uint32_t name); /* segments it holds or was sent */
void net_push_segment(struct net_gossip *g, struct net_link *l, uint32_t name, uint32_t i);
void net_link_begin(struct net_gossip *g, struct net_link *l);
bool net_lazy(const struct net_link *l,
              uint32_t name); /* the neighbour gets the feed from others */
void net_push_new(struct net_gossip *g, uint32_t name, const struct net_link *from);
void net_send_summary(struct net_gossip *g, struct net_link *l);
void net_send_entry(struct net_gossip *g, const struct net_link *l, uint8_t type,
                    const uint8_t machine[32]);
void net_send_admission(struct net_gossip *g, const struct net_link *l, const uint8_t machine[32]);
void net_send_evidence(struct net_gossip *g, const struct net_link *l, const struct net_feed *f);
void net_compare_entry(struct net_gossip *g, struct net_link *l, const struct net_frontier_entry *e,
                       bool no_head);
bool net_on_summary(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_agree(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_nodes(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_entries(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_want(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_have(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_spend(struct net_gossip *g, struct net_link *l,
               size_t bytes); /* false: over the rates */

/* rate.c */
/* Has this machine sent so much of late that n more records of it have to wait?  f NULL: a new one: no. */
bool net_author_waits(const struct net_gossip *g, struct net_feed *f, uint32_t n);
void net_author_sent(const struct net_gossip *g, struct net_feed *f, uint32_t n); /* n new records were taken */
/* Does s, the next segment of f (NULL: the first of a new feed), have to wait because nothing in it counts and there are many such? */
bool net_idle_waits(struct net_gossip *g, const struct net_feed *f, const struct net_segment *s);
void net_asked_too_much(struct net_gossip *g, struct net_link *l); /* a question went unanswered for the rate: once too often, and it is closed */
/* audit.c; whole frames */
bool net_on_audit_ask(struct net_gossip *g, struct net_link *l, const uint8_t *frame, size_t n);
bool net_on_audit_tell(struct net_gossip *g, struct net_link *l, const uint8_t *frame, size_t n);

/* repair.c */
void net_pull_start(struct net_gossip *g, struct net_link *l, const uint8_t machine[32]);
struct net_pull *net_pull_of(struct net_gossip *g, const uint8_t machine[32]);
void net_pull_end(struct net_gossip *g, struct net_pull *p);
void net_search_start(struct net_gossip *g, struct net_link *l, const struct net_feed *f);
void net_blame(struct net_gossip *g, struct net_link *l);
void net_praise(struct net_link *l);
void net_repair_forget(struct net_gossip *g, const struct net_link *l);
void net_regraft(struct net_gossip *g,
                 uint32_t gone); /* the link of that id brings nothing any more */
void net_graft_orphans(struct net_gossip *g, struct net_link *l);
void net_repair_tick(struct net_gossip *g);
uint64_t net_repair_next(const struct net_gossip *g);
bool net_on_segment(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n,
                    bool named);
bool net_on_unnamed(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_prune(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_graft(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_pull(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_later(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_done(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n,
                 bool no_head);
bool net_on_ask(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_tell(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_control(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
struct net_link *net_link_by_id(const struct net_gossip *g, uint32_t id);

/* share.c */
NODISCARD enum err net_hold_score(struct net_gossip *g, const uint8_t *frame, size_t n, bool store, const struct net_link *from);
void net_send_scored(struct net_gossip *g, const struct net_link *l);
bool net_on_score(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_scored(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
bool net_on_scores(struct net_gossip *g, struct net_link *l, const uint8_t *p, size_t n);
#endif
