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
#endif
