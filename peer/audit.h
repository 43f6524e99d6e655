/* peer/audit.h -- what an audit does once the author's signed frontier is here: the exact parameters at it, by folding the
 * records between two frontiers, and the author's examples measured again.  DESIGN 6.
 *
 * Frontiers are SPEC 7's bytes, sorted by machine.  Fold the difference, measure, fold it back: the state returns to the same
 * bits, so that a running peer needs no second copy. */
#ifndef PEER_AUDIT_H
#define PEER_AUDIT_H
#include "peer/compute.h"
#include "peer/engine.h"
#include <onebyte/net/audit.h>

enum { PEER_AUDIT_GROUPS = 16 }; /* measured of one segment */

enum peer_audit_outcome {
    PEER_AUDIT_BUSY,     /* the state has moved on, or a segment is being measured: ask again */
    PEER_AUDIT_MISMATCH, /* the rebuilt parameters and the frontier do not hash to the segment's binding */
    PEER_AUDIT_FAILED,   /* out of memory */
    PEER_AUDIT_MEASURED,
};

/* One segment's audit.  The net actor makes and frees it; the compute actor fills it between two messages. */
struct peer_audit_work {
    uint8_t base[32];            /* BLAKE2b of the frontier that diff starts from */
    struct peer_msg_fold **diff; /* [n_diff] owned */
    size_t n_diff, diff_max, diff_bytes, diff_bytes_max;
    uint8_t *frontier; /* [n_frontier] where it leads; owned */
    size_t n_frontier;
    uint8_t binding[8];
    uint32_t key[2];
    uint64_t seqs[PEER_AUDIT_GROUPS]; /* [n_groups] first record of each group */
    size_t n_groups;
    bool failed; /* diff: out of memory, or over diff_bytes_max */

    enum peer_audit_outcome outcome;
    double g[PEER_AUDIT_GROUPS * LIMIT_SEGMENT_COUNT]; /* [n_groups][K] */
    double loss[PEER_AUDIT_GROUPS];
};

struct peer_msg_audit { /* net -> compute, and back */
    struct peer_msg head;
    struct peer_audit_work *work; /* borrowed */
};

void peer_audit_work_free(struct peer_audit_work *w); /* NULL is fine */
/* A net_between_row: appends to diff; ctx is the work. */
void peer_audit_collect(void *ctx, const uint8_t machine[32], const struct net_segment *s, const uint8_t *counts, bool subtract);

/* Rows of all machines between two frontiers.  ERR_NOTFOUND: a machine's holding in `to` is not here (*missing <- its id; may be NULL). */
NODISCARD enum err peer_audit_between(const struct net_gossip *g, const uint8_t *from, size_t n_from, const uint8_t *to, size_t n_to,
                                      const struct net_branch *branches, size_t n, net_between_row *row, void *ctx,
                                      uint8_t missing[32]);
/* Frontier bytes: whole entries, machines ascending. */
bool peer_frontier_sorted(const uint8_t *frontier, size_t n);
/* g [n][K], loss [n] <- measured at the engine's present state. */
NODISCARD enum err peer_audit_measure(struct peer_engine *e, const struct zo_dataset *d, const uint32_t key[2], const uint64_t *seqs,
                                      size_t n, double *g, double *loss);
/* What the ledger keeps aside; *out [*n] malloc'd, freed by peer_branches_free. */
struct peer_branches {
    struct net_branch *b; /* [n]; wires owned */
    size_t n, n_max;
};
NODISCARD enum err peer_branches_add(struct peer_branches *b, const uint8_t machine[32], const uint8_t *wire, size_t n);
NODISCARD enum err peer_branches_ledger(struct peer_branches *b, struct net_ledger *l);
void peer_branches_free(struct peer_branches *b);
#endif
