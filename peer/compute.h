/* peer/compute.h -- the compute actor: model, state, measuring loop, folding, sealing of codes, figures for status.
 *
 * One thread owns the engine from start to join.  It knows no socket, disk or network clock: the net actor tells it by
 * messages what to fold and from which state a segment may be measured, and gets sealed codes and figures back.
 *
 * A segment is measured at one state: what arrives meanwhile waits in order and is folded, many segments per call, when
 * the segment is sealed.  A MARK says "all FOLDs before this belong to this frontier": the state is only ever moved to
 * a mark, so its binding always names a frontier that the net actor held.
 * After SEALED the actor waits for FEED (the segment is on disk, or refused) before it measures again: that keeps the
 * state fresh (the own segment is folded next) and at most one segment is lost by a crash. */
#ifndef PEER_COMPUTE_H
#define PEER_COMPUTE_H
#include "peer/engine.h"
#include "peer/pipe.h"
#include "peer/snapshot.h"
#include <onebyte/base/err.h>
#include <onebyte/zo/dataset.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum peer_msg_kind {
    /* net -> compute */
    PEER_MSG_FOLD = 1, /* struct peer_msg_fold */
    PEER_MSG_MARK,     /* struct peer_msg_mark */
    PEER_MSG_FEED,     /* struct peer_msg_feed */
    PEER_MSG_ASK,      /* struct peer_msg: figures with a digest recomputed from memory, as soon as possible */
    PEER_MSG_STOP,     /* struct peer_msg: the last one */
    PEER_MSG_PROVE,    /* struct peer_msg_prove: the FOLDs so far, before any MARK, are all of this snapshot */
    PEER_MSG_WRITE,    /* struct peer_msg_write: a snapshot of the state at its next mark */
    PEER_MSG_AUDIT,    /* struct peer_msg_audit (peer/audit.h): right after a MARK; answered by AUDITED */
    PEER_MSG_NAME,     /* struct peer_msg: hash the state at its next mark, for a checkpoint */
    PEER_MSG_EVAL,     /* struct peer_msg_eval, right after a MARK: score a part of the eval set at another state */
    /* compute -> net */
    PEER_MSG_SEALED,  /* struct peer_msg_sealed */
    PEER_MSG_FIGURES, /* struct peer_msg_figures: now and then, and as the answer to ASK */
    PEER_MSG_FATAL,   /* struct peer_msg_fatal: the actor has stopped by itself */
    PEER_MSG_NAMED,   /* struct peer_msg_named: the answer to NAME */
    PEER_MSG_EVALED,  /* struct peer_msg_evaled: the answer to EVAL */
    PEER_MSG_AUDITED, /* struct peer_msg_audit: the same work, done or not */
};

struct peer_msg_fold {
    struct peer_msg head;
    uint8_t machine[32];
    uint64_t first_seq;
    uint32_t step, lag;
    uint16_t count, r_f16;
    bool subtract;
    uint8_t body[]; /* codes [count], then counts [count] */
};

struct net_segment;
/* The folding, or subtracting, of one segment; counts [count] as net_action has them.  NULL: no memory. */
struct peer_msg_fold *peer_msg_fold_new(const uint8_t machine[32], const struct net_segment *s, const uint8_t *counts, bool subtract);

struct peer_msg_mark {
    struct peer_msg head;
    uint64_t step;       /* of the clock; in sync runs: the round to measure */
    uint64_t total_prev; /* sync: records of the previous round */
    const char *hold;    /* static string: why nothing may be measured; NULL: go on */
    size_t n_frontier;   /* bytes */
    uint8_t frontier[];  /* SPEC 7 */
};

struct peer_msg_prove { /* proved: its bytes become the state, the folds are done; else they are folded at the next mark */
    struct peer_msg head;
    struct peer_snapshot snapshot; /* closed by the actor */
    uint32_t key[2];               /* secret, drawn after the last byte of the snapshot was here */
    char path[PEER_PATH_BYTES];    /* removed if it is not what it says */
};

struct peer_msg_write {
    struct peer_msg head;
    char path[PEER_PATH_BYTES];
};

struct peer_msg_named {
    struct peer_msg head;
    uint8_t state[32]; /* BLAKE2b of the state bytes, SPEC 7 */
    size_t n_frontier; /* bytes */
    uint8_t frontier[];
};

/* One at a time.  folds turn the state of the MARK before it into the state that is evaluated; afterwards they are taken back. */
struct peer_msg_eval {
    struct peer_msg head;
    const char *path; /* the eval set; outlives the actor; opened at the first EVAL */
    uint64_t number;  /* of the checkpoint, for the answer */
    uint32_t part, step;
    struct peer_msg_fold **folds; /* [n_folds], the actor's */
    size_t n_folds, folds_max;
};

struct peer_msg_evaled {
    struct peer_msg head;
    uint64_t number, terms;
    uint32_t part, step, total, finite, choices, correct;
    double nats, seconds;
    enum err code; /* not ERR_OK: nothing was scored; why says */
    struct err_why why;
};

struct peer_msg_feed { /* the feed to measure for from now on */
    struct peer_msg head;
    uint8_t machine[32];
    uint64_t next_seq;
    bool sealed; /* the answer to a SEALED */
};

struct peer_msg_sealed {
    struct peer_msg head;
    uint8_t machine[32]; /* the key it was measured for */
    uint64_t first_seq;
    uint32_t step, lag;
    uint16_t count, loss_f16, r_f16;
    uint8_t binding[8];
    int8_t codes[LIMIT_SEGMENT_COUNT];
    uint64_t digest;   /* of the state it was measured at .. */
    size_t n_frontier; /* .. and that state's frontier, bytes */
    uint8_t frontier[];
};

struct peer_figures {
    double loss;            /* mean over the last examples measured here; NaN: none yet */
    double records_per_s;   /* measured here, recent */
    double folded_per_s;    /* recent */
    uint64_t measured;      /* records, this process */
    uint64_t voids;         /* of them: non-finite losses */
    uint64_t folded;        /* records in the state */
    uint64_t digest;
    bool digest_full;       /* recomputed from memory for this message */
    uint8_t frontier_digest[32]; /* of the state that the digest is of */
    uint64_t step;          /* of the last mark */
    size_t batch;           /* examples per measuring call */
    uint32_t passes_per_example;
    char why[LIMIT_NAME_BYTES + 64]; /* "" while measuring */
};

struct peer_msg_figures {
    struct peer_msg head;
    bool asked;
    struct peer_figures f;
};

struct peer_msg_fatal {
    struct peer_msg head;
    enum err code;
    struct err_why why;
};

struct peer_compute_options {
    struct peer_engine *engine;       /* with a state; the actor's until peer_compute_stop returns */
    const struct zo_dataset *data;    /* NULL: fold and relay only */
    size_t batch;                     /* examples per call; 0: grows until a call takes a good fraction of a second */
    uint32_t segment_max;             /* multiple of K; a feed's first segment is shorter (LIMIT_FIRST_SEGMENT) */
    double seal_s;
};

struct peer_compute;
/* Starts the thread.  in: net -> compute, out: compute -> net; both outlive the actor. */
NODISCARD enum err peer_compute_start(struct peer_compute **made, const struct peer_compute_options *o, struct peer_pipe *in,
                                      struct peer_pipe *out);
/* Sends STOP, lets a measuring call end, waits for the thread, frees the actor.  NULL is fine. */
void peer_compute_stop(struct peer_compute *c);
#endif
