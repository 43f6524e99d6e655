/* net/score.h -- evaluation shared out: what machines say that a checkpoint's state loses on parts of the run's eval set.
 *
 * Self-reported: a signature tells who says so, not that it is so.  Nothing here changes what counts or what is folded.
 * Parts    the eval set's `total` examples are cut into NET_SCORE_PARTS runs of neighbours: part p begins at floor(total p / 16).
 * FRAME (the ledger keeps it among the control events), little-endian:
 *   0 kind u8 = 5 · 1 checkpoint number u64 · 9 first 8 bytes of its id · 17 step u32 · 21 part u8 · 22 total u32 · 26 finite u32:
 *   examples with a finite loss · 30 terms u64 of those: counted tokens, but one for an example with choices (its loss over them) ·
 *   38 nats u64, their sum in 2^-20 · 46 choices u32: examples that have choices · 50 correct u32, of those · 54 machine [32] · 86 signature [64]
 * Signed bytes: "onebyte/1 score\0", run id, bytes 1 .. 85 of the frame.  id: BLAKE2b of them.
 * Table    of the last LIMIT_SCORE_CHECKPOINTS numbers up to the last checkpoint known, per part the LIMIT_SCORE_REPORTERS
 *          machines of lowest rank (a hash of number, part and machine), of each the score of lowest id: a function of the set of
 *          scores seen, whatever their order, and bounded whatever is sent.  A machine that is not admitted, or is cut, has none.
 * Threads  one per table. */
#ifndef ONEBYTE_NET_SCORE_H
#define ONEBYTE_NET_SCORE_H
#include <onebyte/base/err.h>
#include <onebyte/base/limits.h>
#include <onebyte/net/id.h>
#include <onebyte/net/rules.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NET_SCORE = 5, NET_SCORE_BYTES = 150, NET_SCORE_PARTS = 16, NET_SCORE_NATS_BITS = 20 };

struct net_score {
    uint64_t number;
    uint8_t checkpoint[8];
    uint32_t step, part, total, finite;
    uint64_t terms, nats;
    uint32_t choices, correct;
    uint8_t machine[32], sig[64];
};

/* First example of part (<= NET_SCORE_PARTS, which gives total). */
uint32_t net_score_first(uint32_t total, uint32_t part);
/* Structure: lengths, ranges, sums that the part's size allows; *s untouched on error.  check: the signature. */
NODISCARD enum err net_score_parse(struct net_score *s, const uint8_t *frame, size_t n);
NODISCARD enum err net_score_check(const struct net_score *s, const struct net_rules *r);
void net_score_write(uint8_t frame[NET_SCORE_BYTES], const struct net_score *s);
void net_score_sign(struct net_score *s, const struct net_rules *r, const struct net_identity *i); /* fills machine and sig */

struct net_scores;
NODISCARD enum err net_scores_new(struct net_scores **t);
void net_scores_free(struct net_scores *t); /* NULL is fine */
/* A checkpoint became known: the highest number moves the window; id [8] is what scores of that number must name to be shown. */
void net_scores_checkpoint(struct net_scores *t, uint64_t number, const uint8_t id[8]);
/* ERR_OK: taken; ERR_RANGE: nothing new, or no place for it; ERR_AGAIN: no such checkpoint is known yet; ERR_PROTO: not a valid
 * score.  The signature is checked last.  *tell <- worth storing and pushing on: a machine's first score of its part, and not more
 * than LIMIT_SCORES_STORED of a part.  Without that bound one key could sign ever lower ids, and every disk would keep them all. */
NODISCARD enum err net_scores_take(struct net_scores *t, const struct net_rules *r, const uint8_t *frame, size_t n, bool *tell);
/* The machine is cut: what it said is dropped.  (The caller refuses what it says later.) */
void net_scores_forget(struct net_scores *t, const uint8_t machine[32]);

/* One checkpoint as the reporters tell it: each part the mean of those who scored it, the parts weighted by their terms. */
struct net_score_point {
    uint64_t number;
    uint32_t step, parts, total, examples, nonfinite; /* parts: with a report; examples: in them */
    uint64_t terms;
    double loss, accuracy; /* nats per term, NaN if there are none; of the examples that have choices, else NaN */
    uint32_t reporters;    /* different machines */
    uint32_t compared;     /* parts that two or more machines scored .. */
    double spread;         /* .. and the largest difference of their losses, nats per term; NaN if none */
};
/* The first checkpoint with scores and a number >= from; false: none. */
bool net_scores_point(const struct net_scores *t, uint64_t from, struct net_score_point *out);

uint32_t net_scores_held(const struct net_scores *t, uint64_t number); /* scores of this checkpoint */

/* Which part of checkpoint number machine self should score now.
 * Each part belongs to the machine of lowest rank among the scorers: those who scored it or one of the two before it, and self,
 * or, where nobody did, candidates [n].  Part (number mod 16) belongs to three, so that differences between machines show.
 * The next in rank takes a part over when nobody reported it for takeover_ns, and so on; waited_ns: since the checkpoint was known.
 * empty: bit p is set where part p is known to have no examples. */
enum {
    NET_SCORES_LATER = -1, /* none now: others have it */
    NET_SCORES_DONE = -2,  /* none any more, or no such checkpoint is known */
};
int net_scores_duty(const struct net_scores *t, uint64_t number, const uint8_t self[32], const uint8_t (*candidates)[32],
                    size_t n, uint32_t empty, uint64_t waited_ns, uint64_t takeover_ns);
#endif
