/* peer/plot.h -- five curves of a run over its steps, as one SVG file: loss, eval loss, gradients per second, bytes, peers.
 *
 * Steps are gathered into at most PEER_PLOT_BINS columns.  Loss is what the segments' authors measured, each weighted by its
 * records.  Gradients per second follow from when this peer received the segments: of a ledger that was fetched later they
 * tell of the fetching.  The file needs nothing else, and suits light and dark pages. */
#ifndef PEER_PLOT_H
#define PEER_PLOT_H
#include <onebyte/base/err.h>
#include <onebyte/net/segment.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { PEER_PLOT_BINS = 200 };

struct peer_plot_bin {
    uint64_t records, bytes;
    double loss_sum, loss_records; /* of segments with a finite loss */
    int64_t last_ms;               /* 0: no segment */
    double eval_sum, evals;        /* of checkpoints */
    uint32_t machines;
    uint64_t last_machine; /* + 1; counts each machine once */
};

struct peer_plot {
    uint64_t end; /* where the axis ends */
    int64_t first_ms;
    struct peer_plot_bin bins[PEER_PLOT_BINS];
};

void peer_plot_init(
    struct peer_plot *p,
    uint64_t end); /* end: one more than the largest step that will come, at least 1 */
/* machine: any number that differs between machines; the segments of one machine come one after the other. */
void peer_plot_add(struct peer_plot *p, uint64_t machine, const struct net_segment *s, size_t bytes,
                   int64_t unix_ms);
/* A checkpoint's loss on the eval set, as peers report it. */
void peer_plot_eval(struct peer_plot *p, uint64_t step, double loss);
/* name: of the run; escaped here.  ERR_IO: out cannot be written. */
NODISCARD enum err peer_plot_write(const struct peer_plot *p, const char *name, FILE *out);
#endif
