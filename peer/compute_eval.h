/* peer/compute_eval.h -- the compute actor's part of sharded evaluation: some examples at the state of a checkpoint.
 *
 * The state is moved there by exact folds and back by the same folds, bit for bit; one measuring call per turn, so that
 * the actor hears STOP in between.  While it is away nothing else may read the state.  Used by compute.c only. */
#ifndef PEER_COMPUTE_EVAL_H
#define PEER_COMPUTE_EVAL_H
#include "peer/compute.h"

struct peer_evaluation {
    struct peer_msg_eval *msg;      /* NULL: none is asked for */
    struct peer_msg_fold **late;    /* [n_late] folded after msg's mark: not in the state that its folds start from */
    size_t n_late, late_max;
    bool away;                      /* the state is the checkpoint's */
    uint32_t next, end;             /* examples */
    struct peer_msg_evaled *answer; /* being filled */
    struct zo_dataset *data;
    struct zo_pass *passes;         /* [batch] */
    struct zo_loss *losses;
    size_t batch;
    double began;
};

void peer_evaluation_free(struct peer_evaluation *v);
void peer_evaluation_keep(struct peer_evaluation *v, struct peer_msg_fold *m); /* folded since msg came; takes it */
/* The state goes to the checkpoint.  ERR_OK, or the answer says why not (data that cannot be read). */
NODISCARD enum err peer_evaluation_begin(struct peer_evaluation *v, struct peer_engine *e);
/* One measuring call, or the way back and *answer (the caller sends it).  NULL: go on.  Not ERR_OK: the state is lost. */
NODISCARD enum err peer_evaluation_turn(struct peer_evaluation *v, struct peer_engine *e, struct peer_msg_evaled **answer);
NODISCARD enum err peer_evaluation_back(struct peer_evaluation *v, struct peer_engine *e); /* at once, unfinished */
void peer_msg_eval_free(struct peer_msg_eval *m); /* NULL is fine */
#endif
