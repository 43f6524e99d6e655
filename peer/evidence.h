/* peer/evidence.h -- a file that shows that a machine sent a byte which it did not measure.  DESIGN 6.
 *
 * FILE, JSON: {"onebyte": "evidence", "version": 1, "run_id", "machine", "prev", "segment", "frontier", "signature": hex,
 *   "branches": [{"machine", "segment"} ..], "records": [{"seq", "code", "want", "tolerance", "loss"} ..]}
 *   prev      full id of the segment's predecessor: with it the segment's own signature can be checked
 *   frontier  SPEC 7's bytes; signature: the machine's, that the segment was measured there (net/audit.h)
 *   branches  the machine's own earlier segments, which leave the live chains when it is retracted, and others already cut off
 *   records   what the auditor found; only their seqs are read, everything else is measured again
 * With the manifest, the base model, the public data and a ledger (which may be newer) anybody repeats it. */
#ifndef PEER_EVIDENCE_H
#define PEER_EVIDENCE_H
#include "peer/audit.h"
#include "peer/judge.h"
#include <onebyte/base/err.h>

enum { PEER_EVIDENCE_BYTES_MAX = 256 << 20 };

struct peer_finding {
    uint64_t seq;
    int8_t code;
    double want, tolerance, loss;
    enum peer_verdict verdict; /* set by verify */
};

struct peer_evidence {
    uint8_t run_id[32], machine[32], prev[32];
    struct net_segment segment;
    uint8_t *frontier; /* [n_frontier] owned */
    size_t n_frontier;
    uint8_t sig[64];
    struct peer_branches branches;
    struct peer_finding *records; /* [n_records] owned */
    size_t n_records;
    const char *header; /* set by verify: what is false in the segment's header, static; NULL: nothing */
};

void peer_evidence_free(struct peer_evidence *e); /* zeroed is fine */
NODISCARD enum err peer_evidence_save(const struct peer_evidence *e, const char *path, struct err_why *why);
/* Structure only.  ERR_FORMAT: why says what is wrong.  On error *e is zeroed. */
NODISCARD enum err peer_evidence_parse(struct peer_evidence *e, const char *text, size_t n, struct err_why *why);
NODISCARD enum err peer_evidence_load(struct peer_evidence *e, const char *path, struct err_why *why);
/* Everything that can be told without a model: run, seqs inside the segment, the segment's signature, the frontier's. */
NODISCARD enum err peer_evidence_check(const struct peer_evidence *e, const struct net_rules *r, struct err_why *why);
/* Rebuilds the parameters in engine, whose state is the base model's, from g (every segment and control of a ledger, loaded) and
 * the evidence's branches; measures the records again and fills their want, tolerance, loss, verdict; *off <- how many no honest
 * machine sends; header.  ERR_NOTFOUND: the ledger misses a part of the frontier; ERR_PROTO: it is no evidence. */
NODISCARD enum err peer_evidence_verify(struct peer_evidence *e, struct peer_engine *engine, const struct zo_dataset *d,
                                        const struct net_gossip *g, size_t *off, struct err_why *why);
#endif
