/* peer/probe.h -- measures, before a run, how much noise a model bears: what the run's step follows from.
 *
 * A run's records move every parameter in two ways: along the gradient, and, far more, at random.  After N records of step u
 * each parameter has made a random walk of about u sqrt(N).  The best step is the one whose walk the model just bears: in runs
 * of 250 to 65,000 records u sqrt(N) of the best step stayed the same for a model, but differed six-fold between models; the
 * walk of that length, made in advance with records of random signs, raised the mean loss of each by 0.1 to 0.25 nats
 * (bench/RESULTS.md, "Zero tuning").  A short run of examples that agree little learns less than such noise costs: its walk
 * is shorter. */
#ifndef PEER_PROBE_H
#define PEER_PROBE_H
#include "peer/engine.h"
#include <onebyte/base/err.h>
#include <onebyte/zo/dataset.h>
#include <onebyte/zo/rules.h>
#include <stdint.h>

#define PEER_PROBE_NATS 0.15
/* No longer walk is tried: under a linear schedule five of its standard deviations, 5 * 0.25 / sqrt(3), stay in the 0.75 that the
 * integers leave beside an entry of 0.25 (peer/plan.h).  An adapter, or a model at chance, bears it and more. */
#define PEER_PROBE_LENGTH_MAX 0.25

struct peer_probe {
    double noise;     /* length of the walk that raises the mean loss by PEER_PROBE_NATS, at most PEER_PROBE_LENGTH_MAX, in units of a
                       * parameter; 0: not measured */
    double gradient;  /* root mean square of projected gradients at the base model, nats per unit */
    double agreement; /* (sum over pairs of examples of g g') / (of g g): 1 if all have the same gradient; at least 0.02 */
    double pass_s;    /* seconds a forward pass took */
    double seconds;   /* and all of it */
    uint64_t passes;
};

/* Walks from m0 of e's model under rules (directions, eps, tensors and their scales; its knots are not looked at) and back.
 * e was opened without a manifest and is left with the checkpoint's own values.  limit_s: what the passes may take, about; for
 * it fewer are made, and where 200 would still take longer, noise stays 0 and pass_s says why.
 * So it does, with pass_s 0, where memory for the parameters lacks.  ERR_NONFINITE: the base model's losses are no numbers. */
NODISCARD enum err peer_probe(struct peer_probe *out, struct peer_engine *e, const struct zo_rules *rules,
                              const struct zo_dataset *d, double limit_s, struct err_why *why);
#endif
