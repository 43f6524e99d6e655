#include "peer/clock.h"
#include "peer/compute_eval.h"
#include "peer/device.h"
#include <math.h>
#include <onebyte/net/score.h>
#include <stdlib.h>
#include <string.h>

enum { FOLDS_PER_CALL = 256, EXAMPLES_PER_THREAD = 4 };

void peer_msg_eval_free(struct peer_msg_eval *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_folds; i++)
        peer_msg_free(m->folds[i]);
    free(m->folds);
    peer_msg_free(m);
}

static void forget(struct peer_evaluation *v)
{
    for (size_t i = 0; i < v->n_late; i++)
        peer_msg_free(v->late[i]);
    v->n_late = 0;
    peer_msg_eval_free(v->msg);
    v->msg = NULL;
}

void peer_evaluation_free(struct peer_evaluation *v)
{
    forget(v);
    free(v->late);
    peer_msg_free(v->answer);
    zo_dataset_free(v->data);
    free(v->passes);
    free(v->losses);
}

void peer_evaluation_keep(struct peer_evaluation *v, struct peer_msg_fold *m)
{
    if (v->n_late == v->late_max) {
        const size_t n = v->late_max ? 2 * v->late_max : 64;
        struct peer_msg_fold **p = realloc(v->late, n * sizeof(struct peer_msg_fold *)); /* NOLINT(bugprone-sizeof-expression): pointers are meant */
        ENSURE(p != NULL);
        v->late = p;
        v->late_max = n;
    }
    v->late[v->n_late++] = m;
}

/* Folds m [n], or takes them back. */
static enum err fold_all(struct peer_engine *e, struct peer_folds *f, struct peer_msg_fold *const *m, size_t n, bool back)
{
    for (size_t i = 0; i < n; i++) {
        struct net_segment s = {.first_seq = m[i]->first_seq, .step = m[i]->step, .lag = m[i]->lag, .count = m[i]->count,
                                .r_f16 = m[i]->r_f16};
        memcpy(s.codes, m[i]->body, m[i]->count);
        peer_folds_put(f, e->manifest, m[i]->machine, &s, m[i]->body + m[i]->count, m[i]->subtract != back);
        if (peer_folds_full(f))
            TRY(peer_folds_flush(f, e));
    }
    return peer_folds_flush(f, e);
}

/* there: late ones out, then the way; else the same back. */
static enum err move(struct peer_evaluation *v, struct peer_engine *e, bool there)
{
    struct peer_folds f;
    TRY(peer_folds_init(&f, FOLDS_PER_CALL));
    enum err code = fold_all(e, &f, v->late, v->n_late, there);
    if (code == ERR_OK)
        code = fold_all(e, &f, v->msg->folds, v->msg->n_folds, !there);
    peer_folds_release(&f);
    v->away = there;
    return code;
}

static enum err open_data(struct peer_evaluation *v, struct peer_engine *e, struct err_why *why)
{
    if (v->data)
        return ERR_OK;
    TRY(peer_engine_data(e, &v->data, v->msg->path, why));
    if (zo_dataset_size(v->data) <= UINT32_MAX)
        return ERR_OK;
    zo_dataset_free(v->data);
    v->data = NULL;
    return err_set(why, ERR_RANGE, "%s holds more than 2^32 examples", v->msg->path);
}

static enum err room(struct peer_evaluation *v, const struct peer_engine *e)
{
    if (v->passes)
        return ERR_OK;
    v->batch = EXAMPLES_PER_THREAD * zo_pool_threads(e->pool);
    v->passes = calloc(v->batch, sizeof *v->passes);
    v->losses = calloc(v->batch, sizeof *v->losses);
    return v->passes && v->losses ? ERR_OK : ERR_NOMEM;
}

enum err peer_evaluation_begin(struct peer_evaluation *v, struct peer_engine *e)
{
    ENSURE(v->msg != NULL && !v->away);
    v->answer = peer_msg_new(PEER_MSG_EVALED, sizeof *v->answer);
    ENSURE(v->answer != NULL);
    struct peer_msg_evaled *a = v->answer;
    a->number = v->msg->number;
    a->part = v->msg->part;
    a->step = v->msg->step;
    v->began = peer_now_s();
    v->next = v->end = 0;
    a->code = open_data(v, e, &a->why);
    if (a->code == ERR_OK && (a->code = room(v, e)) != ERR_OK)
        (void)err_set(&a->why, a->code, "out of memory");
    if (a->code != ERR_OK)
        return ERR_OK;
    a->total = (uint32_t)zo_dataset_size(v->data);
    v->next = net_score_first(a->total, a->part);
    v->end = net_score_first(a->total, a->part + 1);
    return v->next < v->end ? move(v, e, true) : ERR_OK;
}

/* An example with choices is one term, its loss over them: the tokens of the wrong ones ought to lose. */
static void count(struct peer_msg_evaled *a, const struct zo_loss *l)
{
    if (isfinite(l->loss) && isfinite(l->nats)) {
        const double nats = l->correct >= 0 ? l->loss : l->nats;
        a->finite++;
        a->terms += l->correct >= 0 ? 1 : l->n_tokens;
        a->nats += nats > 0 ? nats : 0;
    }
    a->choices += l->correct >= 0;
    a->correct += l->correct > 0;
}

enum err peer_evaluation_turn(struct peer_evaluation *v, struct peer_engine *e, struct peer_msg_evaled **answer)
{
    struct peer_msg_evaled *a = v->answer;
    *answer = NULL;
    if (a->code == ERR_OK && v->next < v->end) {
        const uint32_t n = v->end - v->next < v->batch ? v->end - v->next : (uint32_t)v->batch;
        for (uint32_t i = 0; i < n; i++)
            v->passes[i] = (struct zo_pass){.example = zo_dataset_get(v->data, v->next + i)};
        a->code = peer_engine_losses(e, v->passes, n, v->losses);
        if (a->code == ERR_NOMEM && v->batch > 1) {
            v->batch /= 2;
            a->code = ERR_OK;
            return ERR_OK;
        }
        for (uint32_t i = 0; a->code == ERR_OK && i < n; i++)
            count(a, &v->losses[i]);
        if (a->code != ERR_OK)
            (void)err_set(&a->why, a->code, "measuring: %s", err_str(a->code));
        v->next += n;
        if (a->code == ERR_OK && v->next < v->end)
            return ERR_OK;
    }
    a->seconds = peer_now_s() - v->began;
    v->answer = NULL;
    *answer = a;
    return peer_evaluation_back(v, e);
}

enum err peer_evaluation_back(struct peer_evaluation *v, struct peer_engine *e)
{
    const enum err code = v->away ? move(v, e, false) : ERR_OK;
    forget(v);
    return code;
}
