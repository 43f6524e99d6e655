/* zo/model/model.c -- the public face: opening, binding a state, losses of many passes. */
#include "zo/model/batch.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ARENA_BYTES = 64 << 20, /* activations of one batch; a single longer pass takes what it needs */
    LOAD_CHUNK = 65536,     /* elements one item converts */
    LOAD_ITEMS = 128
}; /* items between two drops of the pages they read: 32 MB of F32 */

enum err zo_model_open(struct zo_model **m, const char *dir, struct err_why *why)
{
    struct zo_model *made = calloc(1, sizeof *made);
    if (!made)
        return err_set(why, ERR_NOMEM, "out of memory");
    made->batch = calloc(1, sizeof *made->batch);
    enum err e =
        made->batch ? zo_config_read(made, dir, why) : err_set(why, ERR_NOMEM, "out of memory");
    if (e == ERR_OK)
        e = zo_ckpt_open(&made->ckpt, dir, why);
    if (e == ERR_OK)
        e = zo_weights_find(made, why);
    if (e != ERR_OK) {
        zo_model_free(made);
        return e;
    }
    *m = made;
    return ERR_OK;
}

void zo_model_free(struct zo_model *m)
{
    if (!m)
        return;
    zo_batch_free(m->batch);
    for (size_t i = 0; i < ARRAY_LEN(m->c.rope); i++) {
        free(m->c.rope[i].inv_freq);
        free(m->c.rope[i].table);
    }
    zo_ckpt_close(&m->ckpt);
    free(m->c.layer_local);
    free(m->resident);
    free(m->layers);
    free(m->used);
    free(m->model_type);
    free(m);
}

const char *zo_model_architecture(const struct zo_model *m)
{
    return m->model_type;
}

uint32_t zo_model_context(const struct zo_model *m)
{
    return m->c.context;
}

uint32_t zo_model_vocab(const struct zo_model *m)
{
    return m->c.vocab;
}

uint32_t zo_model_labels(const struct zo_model *m)
{
    return m->c.n_labels;
}

const struct zo_ckpt *zo_model_ckpt(const struct zo_model *m)
{
    return &m->ckpt;
}

uint64_t zo_model_parameters(const struct zo_model *m)
{
    uint64_t n = 0;
    for (size_t i = 0; i < m->ckpt.n; i++)
        n += m->used[i] ? m->ckpt.tensors[i].elements : 0;
    return n;
}

enum err zo_model_trainable(const struct zo_model *m, struct zo_tensor **tensors, uint32_t *n)
{
    struct zo_tensor *made = calloc(m->ckpt.n + 1, sizeof *made);
    uint32_t count = 0;
    if (!made)
        return ERR_NOMEM;
    for (size_t i = 0; i < m->ckpt.n; i++) {
        const struct zo_ckpt_tensor *t = &m->ckpt.tensors[i];
        if (!m->used[i])
            continue;
        struct zo_tensor *z = &made[count++];
        memcpy(z->name, t->name, sizeof z->name);
        z->n_dims = t->n_dims;
        memcpy(z->dims, t->dims, sizeof z->dims);
    }
    *tensors = made;
    *n = count;
    return ERR_OK;
}

const char *zo_model_nonfinite(const struct zo_model *m)
{
    float values[1024];
    for (size_t i = 0; i < m->ckpt.n; i++) {
        const struct zo_ckpt_tensor *t = &m->ckpt.tensors[i];
        for (uint64_t at = 0; m->used[i] && at < t->elements; at += ARRAY_LEN(values)) {
            const uint64_t left = t->elements - at;
            const size_t n = left < ARRAY_LEN(values) ? (size_t)left : ARRAY_LEN(values);
            zo_ckpt_read_f32(t, at, values, n);
            for (size_t j = 0; j < n; j++)
                if (!isfinite(values[j]))
                    return t->name;
        }
    }
    return NULL;
}

/* ---- m0 ---- */

struct load {
    const struct zo_model *m;
    struct zo_state *s;
    const struct zo_ckpt_tensor *t;
    uint32_t number;
    uint64_t first; /* element the items start from */
    enum err results[LOAD_ITEMS];
};

static void load_item(void *ctx, size_t i, size_t worker)
{
    struct load *l = ctx;
    const uint64_t first = l->first + (uint64_t)i * LOAD_CHUNK, left = l->t->elements - first;
    const size_t n = left < LOAD_CHUNK ? (size_t)left : LOAD_CHUNK;
    (void)worker;
    if (l->t->dtype == ZO_F64) {
        double *values = malloc(n * sizeof *values);
        if (values)
            memcpy(values, (const uint8_t *)l->t->data + first * sizeof *values,
                   n * sizeof *values);
        l->results[i] = values ? zo_state_load_f64(l->s, l->number, first, values, n) : ERR_NOMEM;
        free(values);
        return;
    }
    float *values = malloc(n * sizeof *values);
    if (values)
        zo_ckpt_read_f32(l->t, first, values, n);
    l->results[i] = values ? zo_state_load_f32(l->s, l->number, first, values, n) : ERR_NOMEM;
    free(values);
}

static enum err load_tensor(const struct zo_model *m, struct zo_state *s, uint32_t number,
                            struct zo_pool *pool, struct err_why *why)
{
    const struct zo_tensor *z = &s->rules->tensors[number];
    if (zo_lora_load(s, number))
        return ERR_OK;
    const struct zo_ckpt_tensor *t = zo_ckpt_find(&m->ckpt, z->name);
    if (!t || t->n_dims != z->n_dims || memcmp(t->dims, z->dims, z->n_dims * sizeof *z->dims) != 0)
        return err_set(
            why, ERR_NOTFOUND,
            "the model has no tensor %s of the manifest's shape: wrong model for this run",
            z->name);
    struct load l = {.m = m, .s = s, .t = t, .number = number};
    enum err e = ERR_OK;
    for (; l.first < t->elements && e == ERR_OK; l.first += (uint64_t)LOAD_ITEMS * LOAD_CHUNK) {
        const uint64_t left = (t->elements - l.first + LOAD_CHUNK - 1) / LOAD_CHUNK;
        const size_t items = left < LOAD_ITEMS ? (size_t)left : LOAD_ITEMS;
        zo_pool_run(pool, items, load_item, &l);
        for (size_t i = 0; i < items && e == ERR_OK; i++)
            e = l.results[i];
        zo_ckpt_drop_pages(&m->ckpt); /* peak memory: the state, not state and file */
    }
    if (e == ERR_RANGE)
        return err_set(
            why, e,
            "tensor %s holds a value that is not finite or too large for the manifest's scale",
            z->name);
    return e == ERR_OK ? e : err_set(why, e, "tensor %s: %s", z->name, err_str(e));
}

enum err zo_model_load_state(const struct zo_model *m, struct zo_state *s, struct zo_pool *pool,
                             struct err_why *why)
{
    for (uint32_t i = 0; i < s->rules->n_tensors; i++)
        TRY(load_tensor(m, s, i, pool, why));
    return ERR_OK;
}

/* ---- binding ---- */

static struct param *param_at(struct zo_model *m, size_t i)
{
    const size_t n = (size_t)m->c.layers * SLOT_LAYER_END;
    return i < n ? &m->layers[i] : i < n + SLOT_END ? &m->global[i - n] : NULL;
}

static enum err bind_params(struct zo_model *m, const struct zo_state *s, struct err_why *why)
{
    struct param *p;
    for (size_t i = 0; (p = param_at(m, i)) != NULL; i++)
        if (p->t && s) {
            const int64_t found = zo_rules_find(s->rules, p->t->name);
            const struct zo_tensor *z = found >= 0 ? &s->rules->tensors[found] : NULL;
            if (z && (z->n_dims != p->t->n_dims ||
                      memcmp(z->dims, p->t->dims, z->n_dims * sizeof *z->dims) != 0))
                return err_set(why, ERR_RANGE,
                               "tensor %s has another shape in the manifest than in the model",
                               z->name);
        }
    for (size_t i = 0; (p = param_at(m, i)) != NULL; i++) {
        p->state = s && p->t ? zo_rules_find(s->rules, p->t->name) : -1;
        p->resident = NULL;
    }
    m->state = s;
    return zo_lora_bind(m, why);
}

/* Elements of the matrices whose floats a resident copy would hold: each tensor once, 16-element
 * aligned. */
static uint64_t resident_place(struct zo_model *m, float *base)
{
    uint64_t at = 0;
    struct param *p;
    for (size_t i = 0; (p = param_at(m, i)) != NULL; i++) {
        if (p->state < 0 || p->cols <= 1 ||
            (i >= (size_t)m->c.layers * SLOT_LAYER_END && p == &m->global[SLOT_HEAD_W] &&
             p->t == m->global[SLOT_EMBED].t))
            continue;
        if (base)
            p->resident = base + at;
        at += (p->rows * p->cols + 15) & ~(uint64_t)15;
    }
    if (base && m->global[SLOT_HEAD_W].t == m->global[SLOT_EMBED].t)
        m->global[SLOT_HEAD_W].resident = m->global[SLOT_EMBED].resident;
    return at;
}

enum err zo_model_bind(struct zo_model *m, const struct zo_state *s, enum zo_memory memory,
                       struct err_why *why)
{
    TRY(bind_params(m, s, why));
    free(m->resident);
    m->resident = NULL;
    const uint64_t bytes = resident_place(m, NULL) * sizeof(float);
    if (memory != ZO_MEMORY_FAST || bytes == 0)
        return ERR_OK;
    m->resident = aligned_alloc(64, (size_t)bytes);
    if (!m->resident) /* next best: lean gives the same numbers */
        return ERR_OK;
    (void)resident_place(m, m->resident);
    return zo_model_refresh(m, NULL);
}

enum zo_memory zo_model_memory(const struct zo_model *m)
{
    return m->resident ? ZO_MEMORY_FAST : ZO_MEMORY_LEAN;
}

struct refresh {
    const struct zo_model *m;
    struct param p; /* without its resident copy, so that reading goes to the state */
    float *out;
};

static void refresh_item(void *ctx, size_t i, size_t worker)
{
    const struct refresh *r = ctx;
    const uint64_t first = (uint64_t)i * LOAD_CHUNK, left = r->p.rows * r->p.cols - first;
    (void)worker;
    zo_weights_read(r->m, &r->p, first, r->out + first,
                    left < LOAD_CHUNK ? (size_t)left : LOAD_CHUNK,
                    zo_ops_pick(zo_kernels_name(zo_kernels_pick(NULL))));
}

enum err zo_model_refresh(struct zo_model *m, struct zo_pool *pool)
{
    struct param *p;
    for (size_t i = 0; m->resident && (p = param_at(m, i)) != NULL; i++) {
        if (!p->resident || (p == &m->global[SLOT_HEAD_W] && p->t == m->global[SLOT_EMBED].t))
            continue;
        struct refresh r = {.m = m, .p = *p, .out = p->resident};
        r.p.resident = NULL;
        zo_pool_run(pool, (size_t)((p->rows * p->cols + LOAD_CHUNK - 1) / LOAD_CHUNK), refresh_item,
                    &r);
    }
    return ERR_OK;
}

/* ---- losses ---- */

static enum err sequence_check(const struct zo_model *m, const struct zo_seq *s, struct err_why *why)
{
    if (s->n > m->c.context)
        return err_set(why, ERR_RANGE, "%u tokens are more than the model's context of %u", s->n,
                       m->c.context);
    for (uint32_t j = 0; j < s->n; j++)
        if (s->ids[j] >= m->c.vocab)
            return err_set(why, ERR_RANGE,
                           "token id %u is outside the model's vocabulary of %u: tokenizer and model do not belong together",
                           s->ids[j], m->c.vocab);
    return ERR_OK;
}

enum err zo_model_check(const struct zo_model *m, const struct zo_example *e, struct err_why *why)
{
    if (e->n_seqs == 0)
        return err_set(why, ERR_RANGE, "no sequence in it");
    if (m->c.task == TASK_CLASSIFY) {
        if (e->n_seqs != 1 || e->seqs[0].n == 0)
            return err_set(why, ERR_RANGE, "a sequence classifier takes one text and its \"label\"");
        if (e->label < 0 || (uint32_t)e->label >= m->c.n_labels)
            return err_set(why, ERR_RANGE, "the model needs a \"label\" from 0 to %u",
                           m->c.n_labels - 1);
    } else if (e->n_seqs > 1 && (e->label < 0 || (uint32_t)e->label >= e->n_seqs)) {
        return err_set(why, ERR_RANGE, "\"label\" is outside the choices");
    }
    for (uint32_t i = 0; i < e->n_seqs; i++)
        TRY(sequence_check(m, &e->seqs[i], why));
    return ERR_OK;
}

enum err zo_pass_check(const struct zo_model *m, const struct zo_pass *p)
{
    if ((p->eps != 0.0f && !m->state) || !isfinite(p->eps))
        return ERR_RANGE;
    return zo_model_check(m, p->example, NULL);
}

void zo_batch_start(struct zo_model *m, const struct zo_kernels *k, struct zo_pool *pool,
                    bool every_row, float *logits)
{
    struct batch *b = m->batch;
    b->m = m;
    b->k = k ? k : zo_kernels_pick(NULL);
    b->ops = zo_ops_pick(zo_kernels_name(b->k));
    b->pool = pool;
    b->n_workers = pool ? zo_pool_threads(pool) : 1;
    b->every_row = every_row;
    b->on_device = false;
    b->logits = logits;
}

enum err zo_model_losses(struct zo_model *m, const struct zo_pass *passes, size_t n,
                         struct zo_loss *out, const struct zo_kernels *k, struct zo_pool *pool)
{
    for (size_t i = 0; i < n; i++)
        TRY(zo_pass_check(m, &passes[i]));
    const size_t rows_max = ARENA_BYTES / zo_batch_row_bytes(m);
    zo_batch_start(m, k, pool, false, NULL);
    for (size_t at = 0, count; at < n; at += count) {
        size_t rows = 0;
        for (count = 0; at + count < n; count++) {
            rows += zo_batch_pass_rows(m, &passes[at + count], false);
            if (count > 0 && rows > rows_max)
                break;
        }
        TRY(zo_batch_plan(m->batch, passes + at, count));
        zo_forward(m->batch);
        zo_head(m->batch);
        zo_batch_losses(m->batch, out + at);
    }
    return ERR_OK;
}

enum err zo_model_logits(struct zo_model *m, const uint32_t *ids, size_t n, float *out,
                         struct zo_pool *pool)
{
    if (n == 0 || n > m->c.context)
        return ERR_RANGE;
    struct zo_seq seq = {.n = (uint32_t)n, .ids = (uint32_t *)(uintptr_t)ids};
    const struct zo_example e = {
        .n_seqs = 1, .seqs = &seq, .label = m->c.task == TASK_CLASSIFY ? 0 : -1};
    const struct zo_pass pass = {.example = &e};
    TRY(zo_pass_check(m, &pass));
    zo_batch_start(m, NULL, pool, true, out);
    TRY(zo_batch_plan(m->batch, &pass, 1));
    zo_forward(m->batch);
    zo_head(m->batch);
    return ERR_OK;
}

/* A sequence with one more token, the only counted one: its row's logits are what is asked for. */
enum err zo_model_next(struct zo_model *m, const uint32_t *ids, size_t n, float *out,
                       struct zo_pool *pool)
{
    if (m->c.task != TASK_CAUSAL)
        return ERR_UNSUPPORTED;
    if (n == 0 || n > m->c.context)
        return ERR_RANGE;
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= m->c.vocab)
            return ERR_RANGE;
    uint32_t *longer = calloc(n + 1, sizeof *longer);
    uint8_t *counted = calloc(n + 1, sizeof *counted);
    enum err e = longer && counted ? ERR_OK : ERR_NOMEM;
    if (e == ERR_OK) {
        memcpy(longer, ids, n * sizeof *ids);
        counted[n] = 1;
        struct zo_seq seq = {.n = (uint32_t)n + 1, .ids = longer, .counted = counted};
        const struct zo_example example = {.n_seqs = 1, .seqs = &seq, .label = -1};
        const struct zo_pass pass = {.example = &example};
        zo_batch_start(m, NULL, pool, false, out);
        e = zo_batch_plan(m->batch, &pass, 1);
        if (e == ERR_OK) {
            zo_forward(m->batch);
            zo_head(m->batch);
        }
    }
    free(longer);
    free(counted);
    return e;
}
