/* net/scores.h -- inside the table of scores, for net/score.c and net/share.c. */
#ifndef NET_SCORES_H
#define NET_SCORES_H
#include <onebyte/net/gossip.h>
#include <onebyte/net/score.h>

struct net_scores_entry {
    uint64_t rank;
    const uint8_t *bytes; /* id [32], frame */
};
struct net_scores_slot { /* one checkpoint */
    uint64_t number;
    uint32_t n;
    bool dirty;
    uint8_t digest[8];
    uint8_t n_of[NET_SCORE_PARTS], told_of[NET_SCORE_PARTS]; /* held; told: ever stored */
    struct net_scores_entry of[NET_SCORE_PARTS][LIMIT_SCORE_REPORTERS]; /* by (rank, machine) */
};
struct net_scores {
    struct net_intern intern;
    bool any;
    uint64_t last;
    uint32_t n; /* in all slots */
    struct net_scores_slot *slot[LIMIT_SCORE_CHECKPOINTS]; /* at number % LIMIT_SCORE_CHECKPOINTS; NULL: no scores */
    struct {
        uint64_t number;
        uint8_t id[8];
        bool known;
    } named[LIMIT_SCORE_CHECKPOINTS];
};
const uint8_t *net_scores_slot_digest(struct net_scores_slot *s); /* [8] of the ids in it */
struct net_scores_slot *net_scores_slot_of(const struct net_scores *t, uint64_t number); /* NULL: none */
const uint8_t *net_score_machine(const uint8_t frame[NET_SCORE_BYTES]); /* [32] */
uint64_t net_scores_oldest(const struct net_scores *t); /* first number of the window */
#endif
