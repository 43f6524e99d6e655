/* peer/make.h -- makes a manifest from a model folder, a data file and a few choices: what `init` and `demo` call. */
#ifndef PEER_MAKE_H
#define PEER_MAKE_H
#include "peer/flags.h"
#include "peer/manifest.h"
#include "peer/probe.h"
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stdint.h>

struct peer_make {
    struct peer_flags flags; /* model; threads and kernels are not used */
    const char *data, *eval_data, *name, *preset, *direction, *schedule, *pace, *admission, *trainable;
    uint64_t sides, k, warmup, n0, steps, seed, machines, burst, segment_max, records_max, length_max; /* 0: default */
    double audit, eps, lr, unit, round_timeout_s, seal_s; /* eps 0, lr < 0, unit 0, ..: default */
    bool public_data;
    struct peer_list allow;
};

enum { PEER_NOTES_MAX = 8, PEER_REASONS_MAX = 8 };

struct peer_reason { /* why a choice is as it is, for init --explain */
    const char *what;
    struct err_why text;
};

struct peer_made {
    uint64_t parameters; /* trainable */
    double eps;          /* as written: the rules hold it as a float */
    uint64_t coef_min;   /* smallest L over the tensors at the schedule's peak */
    struct peer_probe probe; /* noise 0: lr was given, or the model is too slow to be measured here */
    size_t n_notes, n_reasons;
    struct peer_reason reasons[PEER_REASONS_MAX];
    struct err_why notes[PEER_NOTES_MAX]; /* what the user should know, one line each */
};

void peer_make_defaults(struct peer_make *k);

/* Checks model, tokenizer and every line of both data files; *m is complete, signed by owner, and has passed the strict
 * loader.  ERR_RANGE: a choice that is not possible; others: what is wrong with which file. */
NODISCARD enum err peer_make_manifest(struct peer_manifest *m, struct peer_made *made, const struct peer_make *k,
                                      const struct net_identity *owner, struct err_why *why);
#endif
