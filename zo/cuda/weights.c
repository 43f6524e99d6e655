/* zo/cuda/weights.c -- what the products read: made from the integers matrix by matrix, or kept beside them. */
#include "zo/cuda/cuda.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    UPLOAD = 1 << 20,          /* floats of a frozen tensor copied at a time */
};
static const uint64_t arena_most = (uint64_t)5 << 30, resident_spare = (uint64_t)4 << 30;

static const struct param *param_at(const struct zo_model *m, size_t i)
{
    const size_t n = (size_t)m->c.layers * SLOT_LAYER_END;
    return i < n ? &m->layers[i] : &m->global[i - n];
}

/* A tied head is the embedding. */
static bool is_tied_head(const struct zo_model *m, const struct param *p)
{
    return p == &m->global[SLOT_HEAD_W] && p->t == m->global[SLOT_EMBED].t;
}

struct cuda_param *zo_cuda_param(const struct zo_device *d, const struct param *p)
{
    const struct zo_model *m = d->model;
    const size_t n = (size_t)m->c.layers * SLOT_LAYER_END;
    if (is_tied_head(m, p))
        p = &m->global[SLOT_EMBED];
    return &d->params[p >= m->global && p < m->global + SLOT_END ? n + (size_t)(p - m->global) : (size_t)(p - m->layers)];
}

static bool is_matrix(const struct param *p)
{
    return p->t->n_dims >= 2;
}

/* Read by products: everything but what is only looked up by rows. */
static bool is_factor(const struct zo_model *m, const struct param *p)
{
    const bool looked_up = p == &m->global[SLOT_POSITIONS] || p == &m->global[SLOT_TYPES] ||
                           (p == &m->global[SLOT_EMBED] && !is_tied_head(m, &m->global[SLOT_HEAD_W]));
    return is_matrix(p) && !looked_up;
}

static enum err convert(struct zo_device *d, uint32_t t, uint64_t first, uint64_t n, void *out)
{
    const struct zo_tensor *z = &d->state->rules->tensors[t];
    const struct k_convert k = {.m = (const uint8_t *)d->m[t] + first * (z->bits / 8),
                                .bits = z->bits,
                                .type = d->type,
                                .scale = ldexpf(1.0f, -(int)z->e),
                                .n = n,
                                .out = out};
    return zo_cuda_launch_n(d, ZO_CUDA_K_convert, n, 1, &k);
}

/* A tensor that is not trained: its floats, through a bounded piece. */
static enum err put_frozen(struct zo_device *d, const struct param *p, void *out, enum zo_cuda_type type)
{
    const uint64_t n = p->rows * p->cols;
    float *piece = malloc(UPLOAD * sizeof *piece);
    enum err e = piece ? zo_cuda_grow(d, &d->weight, UPLOAD * sizeof *piece) : ERR_NOMEM;
    for (uint64_t first = 0; first < n && e == ERR_OK; first += UPLOAD) {
        const size_t now = n - first < UPLOAD ? (size_t)(n - first) : UPLOAD;
        const struct k_convert k = {.m = d->weight.p, .type = type, .scale = 1.0f, .n = now,
                                    .out = (uint8_t *)out + first * zo_cuda_type_bytes(type)};
        zo_ckpt_read_f32(p->t, first, piece, now);
        e = zo_cuda_put(d, d->weight.p, piece, now * sizeof *piece);
        if (e == ERR_OK)
            e = zo_cuda_launch_n(d, ZO_CUDA_K_convert, now, 1, &k);
    }
    free(piece);
    return e;
}

static enum err load_frozen(struct zo_device *d)
{
    for (size_t i = 0; i < d->n_params; i++) {
        const struct param *p = param_at(d->model, i);
        if (!param_there(p) || p->state >= 0 || is_tied_head(d->model, p))
            continue;
        const enum zo_cuda_type type = is_matrix(p) ? d->type : ZO_CUDA_FP32;
        void *out = NULL;
        TRY(zo_cuda_alloc(d, &out, p->rows * p->cols * zo_cuda_type_bytes(type)));
        if (is_matrix(p))
            d->params[i].w = out;
        else
            d->params[i].plain = out;
        TRY(put_frozen(d, p, out, type));
    }
    return ERR_OK;
}

/* Bytes of all trained factors in d->type, and of the largest one. */
static void factor_sizes(const struct zo_device *d, uint64_t *all, uint64_t *largest)
{
    *all = *largest = 0;
    for (size_t i = 0; i < d->n_params; i++) {
        const struct param *p = param_at(d->model, i);
        if (!param_there(p) || p->state < 0 || is_tied_head(d->model, p) || !is_factor(d->model, p))
            continue;
        const uint64_t bytes = p->rows * p->cols * zo_cuda_type_bytes(d->type);
        *all += bytes;
        *largest = bytes > *largest ? bytes : *largest;
    }
}

static enum err make_resident(struct zo_device *d)
{
    for (size_t i = 0; i < d->n_params; i++) {
        const struct param *p = param_at(d->model, i);
        if (!param_there(p) || p->state < 0 || is_tied_head(d->model, p) || !is_factor(d->model, p))
            continue;
        TRY(zo_cuda_alloc(d, &d->params[i].w, p->rows * p->cols * zo_cuda_type_bytes(d->type)));
        ENSURE(!d->copies[p->state]); /* one parameter per tensor: a tied head has none of its own */
        d->copies[p->state] = d->params[i].w;
    }
    d->resident = true;
    return zo_cuda_weights_refresh(d, true);
}

static enum err load(struct zo_device *d, enum zo_memory memory)
{
    uint64_t all, largest, have;
    d->n_params = (size_t)d->model->c.layers * SLOT_LAYER_END + SLOT_END;
    d->params = calloc(d->n_params, sizeof *d->params);
    d->copies = calloc((size_t)d->state->rules->n_tensors + 1, sizeof *d->copies);
    if (!d->params || !d->copies)
        return ERR_NOMEM;
    TRY(load_frozen(d));
    factor_sizes(d, &all, &largest);
    TRY(d->api->available(d->ctx, &have));
    const bool fits = have >= all && (have - all >= resident_spare || have / 4 >= all);
    if (memory == ZO_MEMORY_FAST || (memory == ZO_MEMORY_AUTO && fits))
        TRY(make_resident(d));
    TRY(d->api->available(d->ctx, &have));
    have = d->resident ? have : have > 2 * largest ? have - 2 * largest : 0; /* one matrix, and one of z */
    d->arena_most = have / 5 * 4 < arena_most ? have / 5 * 4 : arena_most;
    return ERR_OK;
}

enum err zo_cuda_weights_load(struct zo_device *d, enum zo_memory memory, struct err_why *why)
{
    const enum err e = load(d, memory);
    if (e == ERR_OK)
        return e;
    return e == ERR_NOMEM ? err_set(why, e, "%s has too little memory for the weights beside the parameters", d->info.name)
                          : err_set(why, e, "%s: %s", d->info.name, zo_device_error(d));
}

enum err zo_cuda_weights_refresh(struct zo_device *d, bool all)
{
    const struct zo_rules *r = d->state->rules;
    for (uint32_t t = 0; d->resident && t < r->n_tensors; t++)
        if (d->copies[t] && (all || !zo_cuda_fold_copies(r, t)))
            TRY(convert(d, t, 0, zo_tensor_elements(&r->tensors[t]), d->copies[t]));
    return ERR_OK;
}

enum err zo_cuda_tensor(struct zo_device *d, uint32_t t, uint64_t row0, uint64_t n_rows, const void **w)
{
    const uint64_t cols = zo_tensor_cols(&d->state->rules->tensors[t]);
    TRY(zo_cuda_grow(d, &d->weight, n_rows * cols * zo_cuda_type_bytes(d->type)));
    TRY(convert(d, t, row0 * cols, n_rows * cols, d->weight.p));
    *w = d->weight.p;
    return ERR_OK;
}

enum err zo_cuda_matrix(struct zo_device *d, const struct param *p, uint64_t row0, uint64_t n_rows, const void **w)
{
    const struct cuda_param *c = zo_cuda_param(d, p);
    if (!c->w)
        return zo_cuda_tensor(d, (uint32_t)p->state, row0, n_rows, w);
    *w = (const uint8_t *)c->w + row0 * p->cols * zo_cuda_type_bytes(d->type);
    return ERR_OK;
}
