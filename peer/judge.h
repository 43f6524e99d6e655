/* peer/judge.h -- does a byte say what was measured?  An auditor's g against the author's code: DESIGN 6.
 *
 *     honest:  code = round(32 g / r), clamped;  g' = g + error of the losses / eps   (another device, batch, kernel)
 *     off  iff |code - 32 g' / r| > 1/2 + 32 / r * slack,   slack = sides_factor * PEER_JUDGE_LOSS * max(1, loss) / eps
 *
 * The slack is in nats, where devices differ; bench/bench_audit.c measures it, bench/RESULTS.md has the figures: the largest
 * difference seen between kernels, threads, batches and memory modes, its fitted tail, and what was left for a GPU.
 * r is the author's own word (DESIGN 3: what it can buy is bounded by the energy rule); code and r are judged together.
 * Pure; any thread. */
#ifndef PEER_JUDGE_H
#define PEER_JUDGE_H
#include <onebyte/net/gossip.h>
#include <onebyte/zo/rules.h>
#include <stdint.h>

/* Of a loss, relative to max(1 nat, loss). */
#define PEER_JUDGE_LOSS 1e-4

enum peer_verdict {
    PEER_AGREES, /* or void, which counts for nothing */
    PEER_OFF,    /* no honest machine sends this */
    PEER_UNSURE, /* nothing can be said: the loss is not finite here, or the slack is wider than half the codes */
};
/* r_f16: as the header says; ignored with a fixed unit.  want (may be NULL) <- 32 g / r; tolerance (may be NULL) <- in codes. */
enum peer_verdict peer_judge(const struct zo_rules *rules, int8_t code, uint16_t r_f16, double g, double loss, double *want,
                             double *tolerance);

/* Does a header say what its author must have known?  s, whose id is id, was measured at frontier [n_frontier], as its author signed.
 * NULL: yes, or nothing can be said (s is not in the live chain, or a machine was cut since); else why not, and no honest machine
 * sends it: a peer seals one segment at a time and folds it before the next, whatever the network does, so
 *     lag - count >= the machine's own records that count between frontier and s             (else: stale, and called fresh)
 *     clock step at frontier <= step <= that + ceil-ish((lag - count) / n0)   (async; the clock only grows while nobody is cut, and
 *                                                                              what made it grow since is part of lag)
 * Exact integers, no tolerance.  What others had sent by then nobody can tell: a stale state with its own records is not seen. */
const char *peer_judge_header(const struct net_gossip *g, const struct net_rules *r, const uint8_t machine[32], const uint8_t id[32],
                              const struct net_segment *s, const uint8_t *frontier, size_t n_frontier);
#endif
