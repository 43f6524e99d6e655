#include "peer/clock.h"
#include "peer/compute.h"
#include "peer/compute_eval.h"
#include "peer/audit.h"
#include "peer/fold_log.h"
#include "peer/group.h"
#include "peer/device.h"
#include "peer/log.h"
#include <inttypes.h>
#include <math.h>
#include <onebyte/net/id.h>
#include <onebyte/zo/codec.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum {
    FOLDS_PER_CALL = 256,   /* segments folded at once */
    LOSS_WINDOW = 512,      /* examples in the loss of status */
    BATCH_MAX = 1024,
    READY_MAX = 16384,      /* segments waiting to be folded beyond which messages stay in the pipe */
};
static const uint64_t digest_p = (UINT64_C(1) << 61) - 1;
static const double call_s_aim = 0.2;     /* of one measuring call, with automatic batch */
static const double figures_every_s = 0.5;
static const double verify_every_s = 30;  /* full pass over memory, headroom too */
static const uint64_t small_bytes = 8u << 20; /* states below this are digested and checked in full every time */

/* Recent rate: an exponential mean over about ten seconds. */
struct rate {
    double per_s, since, count;
};

struct peer_compute {
    struct peer_compute_options o;
    struct peer_pipe *in, *out;
    pthread_t thread;
    const struct zo_rules *rules;

    /* What waits to be folded: the first n_ready belong to `mark`. */
    struct peer_msg_fold **pending;
    size_t n_pending, n_ready, pending_max;
    struct peer_msg_mark *mark;    /* newest received; NULL at first */
    bool mark_new;                 /* the state does not stand at it yet */
    struct peer_folds folds;

    /* The state: what it is made of. */
    uint8_t *frontier; /* [n_frontier] of the mark it stands at */
    size_t n_frontier;
    uint64_t digest;
    bool digest_known;              /* false: only a full pass can tell */
    unsigned __int128 moved[62];    /* sum of |v| L(e) max|h| since the last full pass, per e */
    double verified_at;
    int64_t headroom;               /* tensor, or -1 */

    /* The segment being measured. */
    uint8_t machine[32];
    uint32_t key[2];
    uint64_t next_seq;
    bool waiting;                   /* for FEED */
    double segment_began;
    uint8_t binding[8];
    uint64_t segment_step, segment_total_prev;
    uint32_t n_g;
    double g[LIMIT_SEGMENT_COUNT], loss_sum;
    uint32_t n_loss;
    uint64_t sealed_round;          /* sync: round + 1 of the last segment */
    struct zo_codec codec;

    /* One measuring call. */
    size_t batch;
    struct zo_pass *passes;
    struct zo_loss *losses;
    size_t passes_max;

    /* Figures. */
    double window[LOSS_WINDOW];
    size_t n_window, window_at;
    struct rate measured, folded;
    uint64_t n_measured, n_void;
    double figures_at;
    bool asked, stop;

    /* Wanted of the state at its next mark. */
    struct peer_msg_write *write;
    bool name;
    struct peer_evaluation eval;
    size_t eval_at; /* pending folds that came before it */
    struct peer_msg_audit *audit; /* no message is taken until it is done */
    struct peer_msg_fatal *fatal;
};

static void rate_add(struct rate *r, double n, double now)
{
    r->count += n;
    const double dt = now - r->since;
    if (r->since <= 0) {
        r->since = now;
        r->count = 0;
    } else if (dt >= 1) {
        const double keep = r->per_s > 0 ? exp(-dt / 10) : 0;
        r->per_s = keep * r->per_s + (1 - keep) * r->count / dt;
        r->since = now;
        r->count = 0;
    }
}

static void fail(struct peer_compute *c, enum err code, const char *what)
{
    if (c->fatal)
        return;
    c->fatal = peer_msg_new(PEER_MSG_FATAL, sizeof *c->fatal);
    ENSURE(c->fatal != NULL);
    c->fatal->code = code;
    (void)err_set(&c->fatal->why, code, "%s: %s%s", what, peer_engine_error(c->o.engine, code),
                  code == ERR_DEVICE ? " (start the peer again: its ledger has everything; --device cpu does without the GPU)"
                                     : "");
    c->stop = true;
}

static bool is_small(const struct peer_compute *c)
{
    return zo_state_bytes(c->o.engine->state) <= small_bytes;
}

/* ---- digest ---- */

/* Does what was folded since the last full pass keep the incremental digest comparable?  SPEC 7: max|m| is below
 * 2^(bits-2) where headroom held, so the sum may reach 2^(bits-2). */
static bool digest_in_range(const struct peer_compute *c)
{
    if (c->headroom >= 0)
        return false;
    for (uint32_t t = 0; t < c->rules->n_tensors; t++)
        if (c->moved[c->rules->tensors[t].e] >= (unsigned __int128)1 << (c->rules->tensors[t].bits - 2))
            return false;
    return true;
}

/* Full pass over memory; compares with the incremental value where that is known. */
static void digest_verify(struct peer_compute *c)
{
    struct peer_engine *e = c->o.engine;
    uint64_t full = 0;
    int64_t headroom = -1;
    enum err code = peer_engine_digest_u64(e, &full);
    if (code == ERR_OK)
        code = peer_engine_headroom(e, &headroom);
    if (code != ERR_OK) {
        fail(c, code, "recomputing the digest");
        return;
    }
    if (c->digest_known && full != c->digest && digest_in_range(c))
        fail(c, ERR_IO, "the parameters in memory changed by themselves (digest differs from the sum of what was "
                        "folded); this machine's memory is not reliable");
    c->digest = full;
    c->digest_known = true;
    c->headroom = headroom;
    memset(c->moved, 0, sizeof c->moved);
    c->verified_at = peer_now_s();
}

static void digest_account(struct peer_compute *c, const struct zo_fold *f)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < f->count; i++)
        if (f->codes[i] != ZO_CODE_VOID && (!f->counts || f->counts[i]))
            sum += (uint64_t)abs(f->codes[i]);
    const uint64_t lambda = zo_lambda(c->rules, f->step), weight = zo_weight(c->rules->n0, f->lag);
    const uint64_t h_max = c->rules->direction == ZO_GAUSSIAN ? 32 : 1;
    for (uint32_t e = 0; e < ARRAY_LEN(c->moved); e++)
        c->moved[e] += (unsigned __int128)(sum * h_max) * zo_coef(lambda, weight, e);
}

/* Rank-1 records tell what they add to the digest from their factors; other kinds need a pass over memory anyway. */
static void digest_fold(struct peer_compute *c)
{
    const struct peer_engine *e = c->o.engine;
    if (c->rules->direction != ZO_RANK1 || !c->digest_known) {
        c->digest_known = false;
        return;
    }
    for (size_t i = 0; i < c->folds.n; i++)
        digest_account(c, &c->folds.folds[i]);
    const uint64_t delta = zo_state_digest_delta(e->state, c->folds.folds, c->folds.n, e->pool);
    c->digest_known = delta != ZO_DIGEST_UNKNOWN; /* memory was short: the next full pass tells */
    c->digest = (c->digest + delta) % digest_p;
}

/* ---- folding ---- */

static void pending_put(struct peer_compute *c, struct peer_msg_fold *m)
{
    if (c->n_pending == c->pending_max) {
        const size_t n = c->pending_max ? 2 * c->pending_max : 64;
        struct peer_msg_fold **p = realloc(c->pending, n * sizeof(struct peer_msg_fold *)); /* NOLINT(bugprone-sizeof-expression): pointers are meant */
        ENSURE(p != NULL);
        c->pending = p;
        c->pending_max = n;
    }
    c->pending[c->n_pending++] = m;
}

static void flush(struct peer_compute *c)
{
    if (c->folds.n == 0)
        return;
    digest_fold(c);
    const enum err e = peer_folds_flush(&c->folds, c->o.engine);
    if (e != ERR_OK)
        fail(c, e, "folding");
}

/* The state moves to the newest mark: everything before it is folded. */
static void fold_ready(struct peer_compute *c)
{
    if (!c->mark_new)
        return;
    c->mark_new = false;
    const uint64_t before = c->folds.records;
    for (size_t i = 0; i < c->n_ready && !c->stop; i++) {
        struct peer_msg_fold *m = c->pending[i];
        struct net_segment s = {.first_seq = m->first_seq, .step = m->step, .lag = m->lag, .count = m->count,
                                .r_f16 = m->r_f16};
        memcpy(s.codes, m->body, m->count);
        peer_folds_put(&c->folds, c->o.engine->manifest, m->machine, &s, m->body + m->count, m->subtract);
        if (c->eval.msg && i >= c->eval_at)
            peer_evaluation_keep(&c->eval, m);
        else
            peer_msg_free(m);
        if (peer_folds_full(&c->folds))
            flush(c);
    }
    flush(c);
    c->n_pending -= c->n_ready;
    c->eval_at -= c->eval_at < c->n_ready ? c->eval_at : c->n_ready;
    for (size_t i = 0; i < c->n_pending; i++)
        c->pending[i] = c->pending[i + c->n_ready];
    c->n_ready = 0;
    rate_add(&c->folded, (double)(c->folds.records > before ? c->folds.records - before : 0), peer_now_s());

    uint8_t *frontier = realloc(c->frontier, c->mark->n_frontier + 1);
    ENSURE(frontier != NULL);
    c->frontier = frontier;
    c->n_frontier = c->mark->n_frontier;
    memcpy(c->frontier, c->mark->frontier, c->n_frontier);
    if (!c->digest_known || is_small(c) || peer_now_s() - c->verified_at > verify_every_s)
        digest_verify(c);
}

/* ---- snapshots ---- */

/* m0 again: what a false snapshot overwrote. */
static void reload_base(struct peer_compute *c)
{
    struct err_why why = {{0}};
    const struct peer_engine *e = c->o.engine;
    enum err code = zo_model_load_state(e->model, e->state, e->pool, &why);
    if (code == ERR_OK)
        code = peer_engine_push(c->o.engine);
    if (code != ERR_OK)
        fail(c, code, "reading the base model again");
}

/* The pending folds, as the fold sees them, without doing them.  NULL: out of memory. */
static struct zo_fold *pending_folds(const struct peer_compute *c, uint64_t *records)
{
    struct zo_fold *f = calloc(c->n_pending + 1, sizeof *f);
    *records = 0;
    for (size_t i = 0; f && i < c->n_pending; i++) {
        const struct peer_msg_fold *m = c->pending[i];
        f[i] = (struct zo_fold){.first_seq = m->first_seq, .count = m->count, .step = m->step, .lag = m->lag,
                                .codes = (const int8_t *)m->body, .counts = m->body + m->count, .subtract = m->subtract};
        net_stream_key(f[i].key, c->o.engine->manifest->run_id, m->machine);
        for (uint32_t j = 0; j < m->count; j++)
            *records += m->body[m->count + j];
    }
    return f;
}

static bool snapshot_proved(struct peer_compute *c, const struct peer_msg_prove *m, uint64_t *records)
{
    const struct peer_engine *e = c->o.engine;
    uint64_t *base = calloc(c->rules->n_tensors, sizeof *base);
    struct zo_fold *folds = pending_folds(c, records);
    bool ok = false;
    if (base && folds) {
        zo_state_probe(e->state, base, m->key, e->kernels, e->pool);
        zo_state_set_bytes(e->state, 0, m->snapshot.state, (size_t)m->snapshot.state_bytes);
        ok = zo_state_prove(e->state, base, m->key, folds, c->n_pending, NULL, e->kernels, e->pool) == ERR_OK &&
             peer_engine_push(c->o.engine) == ERR_OK;
        if (!ok)
            reload_base(c);
    }
    free(base);
    free(folds);
    return ok;
}

/* No mark yet: the state is the base, and everything pending belongs to the snapshot. */
static void prove(struct peer_compute *c, struct peer_msg_prove *m)
{
    const double began = peer_now_s();
    uint64_t records = 0;
    ENSURE(!c->mark && c->folds.records == 0 && m->snapshot.state_bytes == zo_state_bytes(c->o.engine->state));
    const bool ok = snapshot_proved(c, m, &records);
    c->digest_known = false;
    if (ok) {
        for (size_t i = 0; i < c->n_pending; i++)
            peer_msg_free(c->pending[i]);
        c->n_pending = 0;
        c->folds.records = records;
        peer_log(PEER_INFO, "snapshot", "proved=yes records=%" PRIu64 " s=%.3f", records, peer_now_s() - began);
    } else {
        (void)remove(m->path);
        peer_log(PEER_WARN, "snapshot", "proved=no reason=\"its parameters are not what the records make: folding from the base\"");
    }
    peer_snapshot_close(&m->snapshot);
}

/* The state stands at a mark: what was asked of it is done. */
static void at_mark(struct peer_compute *c)
{
    const struct peer_engine *e = c->o.engine;
    struct err_why why = {{0}};
    const enum err pulled = c->write || c->name ? peer_engine_pull(e) : ERR_OK;
    if (pulled != ERR_OK) {
        fail(c, pulled, "reading the parameters");
        return;
    }
    if (c->write) {
        if (peer_snapshot_write(c->write->path, e->manifest->run_id, c->frontier, c->n_frontier, e->state, &why) == ERR_OK)
            peer_log(PEER_INFO, "snapshot", "written=yes records=%" PRIu64, c->folds.records);
        else
            peer_log(PEER_WARN, "snapshot", "written=no reason=\"disk (full?)\"");
        peer_msg_free(c->write);
        c->write = NULL;
    }
    if (c->name) {
        struct peer_msg_named *m = peer_msg_new(PEER_MSG_NAMED, sizeof *m + c->n_frontier);
        ENSURE(m != NULL);
        peer_snapshot_hash(e->state, m->state);
        m->n_frontier = c->n_frontier;
        if (c->n_frontier)
            memcpy(m->frontier, c->frontier, c->n_frontier);
        c->name = false;
        peer_pipe_send(c->out, m);
    }
}

/* ---- audits ---- */

static void audit_fold(struct peer_compute *c, const struct peer_audit_work *w, bool back)
{
    for (size_t i = 0; i < w->n_diff && !c->stop; i++) {
        const struct peer_msg_fold *m = w->diff[i];
        struct net_segment s = {.first_seq = m->first_seq, .step = m->step, .lag = m->lag, .count = m->count, .r_f16 = m->r_f16};
        memcpy(s.codes, m->body, m->count);
        peer_folds_put(&c->folds, c->o.engine->manifest, m->machine, &s, m->body + m->count, m->subtract != back);
        if (peer_folds_full(&c->folds))
            flush(c);
    }
    flush(c);
}

static enum peer_audit_outcome audit_there(struct peer_compute *c, struct peer_audit_work *w)
{
    struct peer_engine *e = c->o.engine;
    uint8_t binding[8];
    uint64_t digest = c->digest;
    if (!c->digest_known && peer_engine_digest_u64(e, &digest) != ERR_OK)
        return PEER_AUDIT_FAILED;
    peer_binding(binding, digest, w->frontier, w->n_frontier);
    if (memcmp(binding, w->binding, sizeof binding) != 0)
        return PEER_AUDIT_MISMATCH;
    return peer_audit_measure(e, c->o.data, w->key, w->seqs, w->n_groups, w->g, w->loss) == ERR_OK ? PEER_AUDIT_MEASURED
                                                                                                    : PEER_AUDIT_FAILED;
}

/* To the author's frontier and back: what is added is subtracted exactly, so the state and its digest are the same again. */
static void audit(struct peer_compute *c)
{
    struct peer_msg_audit *m = c->audit;
    uint8_t base[32];
    c->audit = NULL;
    m->head.kind = PEER_MSG_AUDITED;
    net_hash(base, &(const struct net_part){c->frontier, c->n_frontier}, 1);
    if (c->o.data && memcmp(base, m->work->base, sizeof base) == 0) {
        const uint64_t digest = c->digest;
        const bool known = c->digest_known;
        audit_fold(c, m->work, false);
        if (!c->stop)
            m->work->outcome = audit_there(c, m->work);
        audit_fold(c, m->work, true);
        c->digest = digest;
        c->digest_known = known;
        if (!c->stop && is_small(c))
            digest_verify(c);
    }
    peer_pipe_send(c->out, m);
}

/* ---- measuring ---- */

static bool is_sync(const struct peer_compute *c)
{
    return c->o.engine->manifest->net.sync;
}

/* Why nothing may be measured now, in words; "" if it may.  Order: what the owner can act on first. */
static void why_not(const struct peer_compute *c, char *out, size_t n)
{
    out[0] = 0;
    if (!c->o.data)
        snprintf(out, n, "no data: it only folds and relays (start it with --data FILE)");
    else if (!c->mark)
        snprintf(out, n, "starting");
    else if (c->mark->hold)
        snprintf(out, n, "%s", c->mark->hold);
    else if (c->mark->step >= c->rules->steps)
        snprintf(out, n, "finished: the run's last step is reached");
    else if (c->headroom >= 0)
        snprintf(out, n, "headroom, tensor %s", c->rules->tensors[c->headroom].name);
}

static void segment_begin(struct peer_compute *c)
{
    peer_binding(c->binding, c->digest, c->frontier, c->n_frontier);
    c->segment_began = peer_now_s();
    c->segment_step = c->mark->step;
    c->segment_total_prev = c->mark->total_prev;
    c->n_g = 0;
    c->n_loss = 0;
    c->loss_sum = 0;
}

static void loss_note(struct peer_compute *c, double loss)
{
    if (!isfinite(loss))
        return;
    c->loss_sum += loss;
    c->n_loss++;
    c->window[c->window_at] = loss;
    c->window_at = (c->window_at + 1) % LOSS_WINDOW;
    if (c->n_window < LOSS_WINDOW)
        c->n_window++;
}

/* g of one group, appended to the segment. */
static void group_take(struct peer_compute *c, const struct zo_loss *l)
{
    const struct zo_rules *r = c->rules;
    double *g = c->g + c->n_g;
    ENSURE(c->n_g + r->k <= LIMIT_SEGMENT_COUNT);
    loss_note(c, peer_group_project(g, r, l));
    for (uint32_t j = 0; j < r->k; j++)
        c->n_void += isfinite(g[j]) ? 0 : 1;
    c->n_g += r->k;
}

/* With automatic batch: grow while a call is short, shrink when it is long. */
static void batch_adapt(struct peer_compute *c, double took)
{
    if (c->o.batch)
        return;
    if (took < call_s_aim / 2 && c->batch < BATCH_MAX)
        c->batch *= 2;
    else if (took > 2 * call_s_aim && c->batch > 1)
        c->batch /= 2;
}

/* Records in the segment being filled, at most; a multiple of K.  A feed's first one is short, as it reaches every peer several
 * times: no tree is known yet.  A round of a sync run is one segment, whichever it is. */
static size_t segment_room(const struct peer_compute *c)
{
    const size_t k = c->rules->k, first = k > LIMIT_FIRST_SEGMENT ? k : LIMIT_FIRST_SEGMENT / k * k;
    return c->next_seq > 0 || is_sync(c) || c->o.segment_max < first ? c->o.segment_max : first;
}

static void measure(struct peer_compute *c)
{
    struct peer_engine *e = c->o.engine;
    const uint32_t k = c->rules->k, per = peer_group_passes_n(c->rules);
    size_t groups = (segment_room(c) - c->n_g) / k;
    groups = groups < c->batch ? groups : c->batch;
    if (groups * per > c->passes_max) {
        free(c->passes);
        free(c->losses);
        c->passes_max = groups * per;
        c->passes = calloc(c->passes_max, sizeof *c->passes);
        c->losses = calloc(c->passes_max, sizeof *c->losses);
        ENSURE(c->passes && c->losses);
    }
    for (size_t i = 0; i < groups; i++)
        peer_group_passes(c->passes + i * per, c->rules, c->o.data, c->key, c->next_seq + c->n_g + i * k);
    const double began = peer_now_s();
    const enum err err = peer_engine_losses(e, c->passes, groups * per, c->losses);
    if (err == ERR_NOMEM && c->batch > 1) {
        c->batch /= 2;
        c->o.batch = c->batch; /* does not grow again */
        peer_log(PEER_WARN, "batch", "batch=%zu reason=\"too little memory for more\"", c->batch);
        return;
    }
    if (err != ERR_OK) {
        fail(c, err, "measuring");
        return;
    }
    for (size_t i = 0; i < groups; i++)
        group_take(c, c->losses + i * per);
    const double now = peer_now_s();
    c->n_measured += groups * k;
    rate_add(&c->measured, (double)(groups * k), now);
    if (groups == c->batch)
        batch_adapt(c, now - began);
}

/* Records that reached us while this segment was measured: they will be folded before it is. */
static uint64_t pending_records(const struct peer_compute *c)
{
    uint64_t n = 0;
    for (size_t i = 0; i < c->n_pending; i++) {
        const struct peer_msg_fold *m = c->pending[i];
        for (uint32_t j = 0; j < m->count && !m->subtract; j++)
            n += m->body[m->count + j];
    }
    return n;
}

static void seal(struct peer_compute *c)
{
    struct peer_msg_sealed *m = peer_msg_new(PEER_MSG_SEALED, sizeof *m + c->n_frontier);
    ENSURE(m != NULL && c->n_g > 0 && c->n_g <= LIMIT_SEGMENT_COUNT);
    const uint64_t lag =
        is_sync(c) ? (c->segment_total_prev > c->n_g ? c->segment_total_prev : c->n_g) : c->n_g + pending_records(c);
    const uint64_t step = is_sync(c) ? c->segment_step : c->mark->step;
    memcpy(m->machine, c->machine, 32);
    m->first_seq = c->next_seq;
    m->step = step > UINT32_MAX ? UINT32_MAX : (uint32_t)step;
    m->lag = lag > UINT32_MAX ? UINT32_MAX : (uint32_t)lag;
    m->count = (uint16_t)c->n_g;
    m->loss_f16 = zo_f16_from_double(c->n_loss ? c->loss_sum / c->n_loss : NAN);
    memcpy(m->binding, c->binding, 8);
    m->digest = c->digest;
    m->n_frontier = c->n_frontier;
    memcpy(m->frontier, c->frontier, c->n_frontier);
    zo_codec_seal(&c->codec, c->rules, c->g, c->n_g, m->codes, &m->r_f16);
    c->sealed_round = c->segment_step + 1;
    c->n_g = 0;
    c->waiting = true;
    peer_pipe_send(c->out, m);
}

/* ---- figures ---- */

static double window_mean(const struct peer_compute *c)
{
    double sum = 0;
    for (size_t i = 0; i < c->n_window; i++)
        sum += c->window[i];
    return c->n_window ? sum / (double)c->n_window : NAN;
}

static void figures_send(struct peer_compute *c)
{
    const bool asked = c->asked && !c->eval.away; /* of another state then: answered when it is back */
    const double now = peer_now_s();
    if (!asked && now - c->figures_at < figures_every_s)
        return;
    if (asked)
        digest_verify(c);
    struct peer_msg_figures *m = peer_msg_new(PEER_MSG_FIGURES, sizeof *m);
    if (!m)
        return;
    rate_add(&c->measured, 0, now);
    rate_add(&c->folded, 0, now);
    m->asked = asked;
    m->f.loss = window_mean(c);
    m->f.records_per_s = c->measured.per_s;
    m->f.folded_per_s = c->folded.per_s;
    m->f.measured = c->n_measured;
    m->f.voids = c->n_void;
    m->f.folded = c->folds.records;
    m->f.digest = c->digest;
    m->f.digest_full = asked;
    net_hash(m->f.frontier_digest, &(const struct net_part){c->frontier, c->n_frontier}, 1);
    m->f.step = c->mark ? c->mark->step : 0;
    m->f.batch = c->batch;
    m->f.passes_per_example = peer_group_passes_n(c->rules);
    why_not(c, m->f.why, sizeof m->f.why);
    c->asked = c->asked && !asked;
    c->figures_at = now;
    peer_pipe_send(c->out, m);
}

/* ---- the loop ---- */

static void take_feed(struct peer_compute *c, const struct peer_msg_feed *m)
{
    const bool moved = memcmp(c->machine, m->machine, 32) != 0 || c->next_seq != m->next_seq;
    if (moved && !m->sealed)
        c->n_g = 0; /* measured for another feed, or for seqs that are taken */
    if (m->sealed)
        c->waiting = false;
    if (memcmp(c->machine, m->machine, 32) != 0) {
        memcpy(c->machine, m->machine, 32);
        net_stream_key(c->key, c->o.engine->manifest->run_id, m->machine);
    }
    c->next_seq = m->next_seq;
}

struct peer_msg_fold *peer_msg_fold_new(const uint8_t machine[32], const struct net_segment *s, const uint8_t *counts, bool subtract)
{
    struct peer_msg_fold *m = peer_msg_new(PEER_MSG_FOLD, sizeof *m + 2 * (size_t)s->count);
    if (!m)
        return NULL;
    memcpy(m->machine, machine, 32);
    m->first_seq = s->first_seq;
    m->step = s->step;
    m->lag = s->lag;
    m->count = s->count;
    m->r_f16 = s->r_f16;
    m->subtract = subtract;
    memcpy(m->body, s->codes, s->count);
    memcpy(m->body + s->count, counts, s->count);
    return m;
}

static void take(struct peer_compute *c, struct peer_msg *m)
{
    switch (m->kind) {
    case PEER_MSG_FOLD:
        pending_put(c, (struct peer_msg_fold *)(void *)m);
        return; /* kept */
    case PEER_MSG_MARK:
        peer_msg_free(c->mark);
        c->mark = (struct peer_msg_mark *)(void *)m;
        c->mark_new = true;
        c->n_ready = c->n_pending;
        return; /* kept */
    case PEER_MSG_FEED:
        take_feed(c, (const struct peer_msg_feed *)(const void *)m);
        break;
    case PEER_MSG_ASK:
        c->asked = true;
        break;
    case PEER_MSG_STOP:
        c->stop = true;
        break;
    case PEER_MSG_PROVE:
        prove(c, (struct peer_msg_prove *)(void *)m);
        break;
    case PEER_MSG_NAME:
        c->name = true;
        break;
    case PEER_MSG_EVAL:
        ENSURE(!c->eval.msg && c->n_ready == c->n_pending);
        c->eval.msg = (struct peer_msg_eval *)(void *)m;
        c->eval_at = c->n_pending;
        return; /* kept */
    case PEER_MSG_AUDIT:
        if (c->n_g == 0) {
            c->audit = (struct peer_msg_audit *)(void *)m;
        } else { /* a segment is being measured: its state may not move */
            m->kind = PEER_MSG_AUDITED;
            peer_pipe_send(c->out, m);
        }
        return; /* kept, or sent back */
    case PEER_MSG_WRITE:
        peer_msg_free(c->write);
        c->write = (struct peer_msg_write *)(void *)m;
        return; /* kept */
    default:
        ENSURE(false); /* a message of the other direction */
    }
    peer_msg_free(m);
}

static bool may_measure(const struct peer_compute *c)
{
    char why[sizeof ((struct peer_figures *)0)->why];
    why_not(c, why, sizeof why);
    return !why[0] && !c->waiting && !(is_sync(c) && c->mark->step < c->sealed_round);
}

/* A part of the eval set; the state is the checkpoint's until it is done. */
static void evaluate(struct peer_compute *c)
{
    struct peer_msg_evaled *answer = NULL;
    const enum err e = peer_evaluation_turn(&c->eval, c->o.engine, &answer);
    if (e != ERR_OK)
        fail(c, e, "folding back after an evaluation");
    if (answer)
        peer_pipe_send(c->out, answer);
}

/* One turn.  Returns false when there is nothing to do but wait. */
static bool turn(struct peer_compute *c)
{
    if (c->eval.answer) {
        evaluate(c);
        return true;
    }
    if (c->n_g > 0 && !may_measure(c))
        c->n_g = 0; /* held or finished: what was begun is thrown away, its seqs are used later */
    if (c->n_g == 0 && c->mark) {
        fold_ready(c);
        at_mark(c);
        if (c->eval.msg && !c->stop) {
            const enum err e = peer_evaluation_begin(&c->eval, c->o.engine);
            if (e != ERR_OK)
                fail(c, e, "folding for an evaluation");
            return true;
        }
        if (c->audit)
            audit(c);
        if (c->stop || !may_measure(c))
            return false;
        segment_begin(c);
    }
    if (c->n_g == 0 && !c->mark)
        return false;
    measure(c);
    return true;
}

static bool segment_full(const struct peer_compute *c)
{
    return c->n_g + c->rules->k > segment_room(c) || (c->n_g > 0 && peer_now_s() - c->segment_began >= c->o.seal_s);
}

/* Everything that has come, unless folding must catch up first. */
static void take_all(struct peer_compute *c)
{
    struct peer_msg *m;
    while (!c->stop && !c->audit && c->n_ready < READY_MAX && (m = peer_pipe_receive(c->in)))
        take(c, m);
}

static void *compute_main(void *arg)
{
    struct peer_compute *c = arg;
    digest_verify(c);
    while (!c->stop) {
        take_all(c);
        if (c->stop)
            break;
        const bool busy = turn(c);
        take_all(c); /* before sealing: lag counts what has come */
        if (!c->stop && c->n_g > 0 && !c->waiting && segment_full(c))
            seal(c);
        figures_send(c);
        if (!busy && !c->stop && !c->asked && !c->audit && c->n_ready < READY_MAX)
            peer_pipe_wait(c->in, (int)(1000 * figures_every_s));
    }
    if (!c->fatal) { /* the last word: the state at the last mark, its digest from memory */
        c->stop = false;
        c->n_g = 0;
        const enum err e = peer_evaluation_back(&c->eval, c->o.engine);
        if (e != ERR_OK)
            fail(c, e, "folding back after an evaluation");
        fold_ready(c);
        c->asked = true;
        figures_send(c);
    }
    if (c->fatal)
        peer_pipe_send(c->out, c->fatal);
    return NULL;
}

static void compute_free(struct peer_compute *c)
{
    for (size_t i = 0; i < c->n_pending; i++)
        peer_msg_free(c->pending[i]);
    free(c->pending);
    peer_msg_free(c->mark);
    peer_msg_free(c->write);
    peer_evaluation_free(&c->eval);
    peer_msg_free(c->audit);
    peer_folds_release(&c->folds);
    free(c->frontier);
    free(c->passes);
    free(c->losses);
    free(c);
}

enum err peer_compute_start(struct peer_compute **made, const struct peer_compute_options *o, struct peer_pipe *in,
                            struct peer_pipe *out)
{
    ENSURE(o->engine->state != NULL);
    struct peer_compute *c = calloc(1, sizeof *c);
    if (!c)
        return ERR_NOMEM;
    c->o = *o;
    c->in = in;
    c->out = out;
    c->rules = &o->engine->manifest->rules;
    c->headroom = -1;
    c->batch = o->batch ? o->batch : 4;
    ENSURE(o->segment_max >= c->rules->k && o->segment_max <= LIMIT_SEGMENT_COUNT);
    enum err e = peer_folds_init(&c->folds, FOLDS_PER_CALL);
    if (e == ERR_OK) {
        sigset_t all, old; /* signals are the net actor's */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        e = pthread_create(&c->thread, NULL, compute_main, c) == 0 ? ERR_OK : ERR_NOMEM;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    if (e != ERR_OK) {
        compute_free(c);
        return e;
    }
    *made = c;
    return ERR_OK;
}

void peer_compute_stop(struct peer_compute *c)
{
    if (!c)
        return;
    struct peer_msg *m = peer_msg_new(PEER_MSG_STOP, sizeof *m);
    ENSURE(m != NULL);
    peer_pipe_send(c->in, m);
    ENSURE(pthread_join(c->thread, NULL) == 0);
    compute_free(c);
}
