/* zo/cuda/layers.c -- embedding and layers on the device, from the same table and config as zo/model/forward.c. */
#include "zo/cuda/forward.h"

#include <math.h>
#include <string.h>

_Static_assert(ZO_ACT_SILU == 0 && ZO_ACT_GELU_ERF == 1 && ZO_ACT_GELU_TANH == 2 && ZO_ACT_RELU == 3 &&
                   ZO_ACT_QUICK_GELU == 4 && ZO_ACT_TANH == 5,
               "ob_act of zo/cuda/rows.cuh");

/* ---- embedding ---- */

static enum err embed(struct cuda_forward *f, enum slot slot, const uint32_t *index, uint32_t offset, uint32_t cols,
                      float scale, bool add, float *x)
{
    const struct param *p = &f->b->m->global[slot];
    const struct zo_rules *r = f->d->state->rules;
    const struct zo_tensor *z = p->state >= 0 ? &r->tensors[p->state] : NULL;
    struct k_embed k = {.p = f->passes, .row_pass = f->body.row_pass, .index = index, .n_rows = f->body.n,
                        .index_offset = offset, .add = add, .type = f->d->type, .weight_scale = 1.0f, .scale = scale,
                        .cols = cols, .x = x};
    k.kind = r->direction == ZO_RANK1 ? ZO_CUDA_RANK1 : r->direction == ZO_GAUSSIAN ? ZO_CUDA_GAUSS : ZO_CUDA_SIGNS;
    k.m = z ? f->d->m[p->state] : zo_cuda_param(f->d, p)->w;
    if (z) {
        k.bits = z->bits;
        k.tensor = (uint32_t)p->state;
        k.weight_scale = ldexpf(1.0f, -(int)z->e);
    }
    return zo_cuda_launch_n(f->d, ZO_CUDA_K_embed, (uint64_t)f->body.n * cols, 1, &k);
}

/* An embedding narrower than the layers joins the positions through a matrix. */
static enum err project_in(struct cuda_forward *f, bool add)
{
    const struct config *c = &f->b->m->c;
    const struct cuda_lin l = zo_cuda_lin(f, 0, SLOT_PROJECT_IN, SLOT_END, c->d_embed, c->d);
    TRY(zo_cuda_norm(f, &f->body, NULL, f->y, NULL, NULL, c->d_embed, NULL, false, f->h));
    TRY(zo_cuda_dots(f, &f->body, &l, 1, f->h, c->d_embed));
    TRY(zo_cuda_product(f, &f->body, &l, 0, c->d, f->h, c->d_embed, f->y, c->d));
    const struct k_part part = zo_cuda_part(f, &f->body, &l, 0, 0);
    return zo_cuda_finish(f, &f->body, &part, 1, f->y, c->d, f->x, c->d, add, NULL);
}

static enum err embedding(struct cuda_forward *f)
{
    const struct config *c = &f->b->m->c;
    const bool narrow = c->d_embed != c->d, norm = param_there(&f->b->m->global[SLOT_EMBED_NORM_W]);
    bool begun = !narrow;
    TRY(zo_cuda_draw(f, 0, SLOT_EMBED_NORM_W, (enum slot)(SLOT_PROJECT_IN + 1)));
    TRY(embed(f, SLOT_EMBED, f->ids, 0, c->d_embed, c->embed_scale, false, narrow ? f->y : f->x));
    if (c->positions) {
        TRY(embed(f, SLOT_POSITIONS, f->positions, c->position_offset, c->d, 1.0f, begun, f->x));
        begun = true;
    }
    if (c->types > 0) {
        TRY(embed(f, SLOT_TYPES, NULL, 0, c->d, 1.0f, begun, f->x));
        begun = true;
    }
    if (norm)
        TRY(zo_cuda_norm(f, &f->body, NULL, f->x, f->vec[SLOT_EMBED_NORM_W], f->vec[SLOT_EMBED_NORM_B], c->d, f->x, false,
                         NULL));
    if (narrow)
        TRY(project_in(f, begun));
    if (c->order != ORDER_POST)
        return ERR_OK;
    return zo_cuda_norm(f, &f->body, NULL, f->x, NULL, NULL, c->d, NULL, false, f->h); /* what the first layer reads */
}

/* ---- attention ---- */

static enum err rope_put(struct zo_device *d, size_t which)
{
    const struct rope *r = &d->model->c.rope[which];
    if (!r->inv_freq || d->rope_n[which] == r->n)
        return ERR_OK;
    const uint64_t bytes = r->n * 2 * d->model->c.rope_half * sizeof(float);
    d->rope_n[which] = 0;
    TRY(zo_cuda_grow(d, &d->rope[which], bytes));
    TRY(zo_cuda_put(d, d->rope[which].p, r->table, bytes));
    d->rope_n[which] = r->n;
    return ERR_OK;
}

static bool any_part(const struct k_part *parts, size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n; i++)
        any = any || parts[i].bias || parts[i].out;
    return any;
}

static enum err attention(struct cuda_forward *f, uint32_t layer, const struct k_part *parts, uint32_t n_parts)
{
    const struct config *c = &f->b->m->c;
    const bool local = c->layer_local && c->layer_local[layer], own_rope = c->rope[1].inv_freq != NULL;
    const size_t which = local && own_rope;
    const uint64_t width = (uint64_t)(c->heads + 2 * c->kv_heads) * c->head_dim, heads = c->heads + 2 * (uint64_t)c->kv_heads;
    struct k_rotate r = {.row_pass = f->body.row_pass, .positions = f->positions, .n_rows = f->body.n, .heads = c->heads,
                         .kv_heads = c->kv_heads, .head_dim = c->head_dim, .half = c->rope_half,
                         .by_head = c->qkv_by_head, .n_parts = n_parts, .eps = c->norm_eps, .qkv = f->y, .width = width};
    memcpy(r.part, parts, n_parts * sizeof *parts);
    if (c->qk_norm) {
        r.norm = f->b->m->arch->norm == ZO_NORM_RMS_PLUS1 ? 2 : 1;
        r.q_norm = f->vec[SLOT_Q_NORM];
        r.k_norm = f->vec[SLOT_K_NORM];
    }
    if (c->rope[which].inv_freq) {
        TRY(rope_put(f->d, which));
        r.rope = f->d->rope[which].p;
    }
    if (r.norm || r.rope || any_part(parts, n_parts))
        TRY(zo_cuda_launch_n(f->d, ZO_CUDA_K_rotate, f->body.n * heads * ZO_CUDA_WARP, 1, &r));
    const struct k_attend a = {.items = f->items, .n_items = f->n_items, .heads = c->heads, .kv_heads = c->kv_heads,
                               .head_dim = c->head_dim, .by_head = c->qkv_by_head, .causal = c->causal,
                               .window = !c->layer_local || local ? c->window : 0, .type = f->d->type,
                               .scale = c->attention_scale, .cap = c->attention_cap, .qkv = f->y, .width = width,
                               .out = f->z};
    return zo_cuda_launch(f->d, f->attend, f->n_items, c->heads, f->attend_bytes, &a);
}

/* ---- one layer ---- */

/* Up to three products of h side by side in y; parts [n] are what they still lack. */
static enum err side_by_side(struct cuda_forward *f, const struct cuda_lin *l, uint32_t n, uint64_t width,
                             struct k_part *parts)
{
    const uint32_t d = f->b->m->c.d;
    uint64_t col = 0;
    TRY(zo_cuda_dots(f, &f->body, l, n, f->h, d));
    for (uint32_t i = 0; i < n; col += l[i++].n_out) {
        TRY(zo_cuda_product(f, &f->body, &l[i], 0, l[i].n_out, f->h, d, f->y + col, width));
        parts[i] = zo_cuda_part(f, &f->body, &l[i], i, (uint32_t)col);
    }
    return ERR_OK;
}

static enum err attention_branch(struct cuda_forward *f, uint32_t layer)
{
    const struct config *c = &f->b->m->c;
    const uint64_t q = (uint64_t)c->heads * c->head_dim, kv = (uint64_t)c->kv_heads * c->head_dim;
    struct cuda_lin l[ZO_CUDA_PARTS];
    struct k_part parts[ZO_CUDA_PARTS];
    uint32_t n = 0;
    if (param_there(layer_param(f->b->m, layer, SLOT_QKV_W))) {
        l[n++] = zo_cuda_lin(f, layer, SLOT_QKV_W, SLOT_QKV_B, c->d, q + 2 * kv);
    } else {
        l[n++] = zo_cuda_lin(f, layer, SLOT_Q_W, SLOT_Q_B, c->d, q);
        l[n++] = zo_cuda_lin(f, layer, SLOT_K_W, SLOT_K_B, c->d, kv);
        l[n++] = zo_cuda_lin(f, layer, SLOT_V_W, SLOT_V_B, c->d, kv);
    }
    TRY(side_by_side(f, l, n, q + 2 * kv, parts));
    return attention(f, layer, parts, n);
}

/* The attention's o or the MLP's down: z -> y, into x or, where a norm comes between, left in y. */
static enum err branch_out(struct cuda_forward *f, uint32_t layer, bool down)
{
    const struct config *c = &f->b->m->c;
    const bool between = c->order == ORDER_SANDWICH;
    const uint64_t n_in = down ? c->ffn : (uint64_t)c->heads * c->head_dim;
    const struct cuda_lin l = down ? zo_cuda_lin(f, layer, SLOT_DOWN_W, SLOT_DOWN_B, n_in, c->d)
                                   : zo_cuda_lin(f, layer, SLOT_O_W, SLOT_O_B, n_in, c->d);
    TRY(zo_cuda_dots(f, &f->body, &l, 1, f->z, n_in));
    TRY(zo_cuda_product(f, &f->body, &l, 0, c->d, f->z, n_in, f->y, c->d));
    const struct k_part part = zo_cuda_part(f, &f->body, &l, 0, 0);
    return zo_cuda_finish(f, &f->body, &part, 1, f->y, c->d, between ? NULL : f->x, c->d, !between, NULL);
}

static enum err mlp_branch(struct cuda_forward *f, uint32_t layer)
{
    const struct config *c = &f->b->m->c;
    const bool gated = f->b->m->arch->gated;
    const uint64_t width = (uint64_t)c->ffn * (gated ? 2 : 1);
    struct cuda_lin l[ZO_CUDA_PARTS];
    struct k_act k = {.row_pass = f->body.row_pass, .n_rows = f->body.n, .ffn = c->ffn, .gated = gated, .act = c->act,
                      .type = f->d->type, .y = f->y, .ldy = width, .out = f->z};
    uint32_t n = 0;
    if (param_there(layer_param(f->b->m, layer, SLOT_GATE_UP_W))) {
        l[n++] = zo_cuda_lin(f, layer, SLOT_GATE_UP_W, SLOT_UP_B, c->d, width);
    } else {
        if (gated)
            l[n++] = zo_cuda_lin(f, layer, SLOT_GATE_W, SLOT_END, c->d, c->ffn);
        l[n++] = zo_cuda_lin(f, layer, SLOT_UP_W, SLOT_UP_B, c->d, c->ffn);
    }
    TRY(side_by_side(f, l, n, width, k.part));
    k.n_parts = n;
    TRY(zo_cuda_launch_n(f->d, ZO_CUDA_K_act, (uint64_t)f->body.n * c->ffn, 1, &k));
    return branch_out(f, layer, true);
}

/* x -> h through a norm; post-norm models keep the result as x too. */
static enum err norm_x(struct cuda_forward *f, enum slot w, enum slot b, bool keep)
{
    return zo_cuda_norm(f, &f->body, NULL, f->x, f->vec[w], f->vec[b], f->b->m->c.d, keep ? f->x : NULL, false, f->h);
}

static enum err run_layer(struct cuda_forward *f, uint32_t layer)
{
    const uint32_t d = f->b->m->c.d;
    const enum order order = f->b->m->c.order;
    TRY(zo_cuda_draw(f, layer, (enum slot)0, SLOT_LAYER_END));
    if (order != ORDER_POST)
        TRY(norm_x(f, SLOT_NORM1_W, SLOT_NORM1_B, false));
    TRY(attention_branch(f, layer));
    if (order == ORDER_PARALLEL) /* both branches read the layer's input */
        TRY(norm_x(f, SLOT_NORM2_W, SLOT_NORM2_B, false));
    TRY(branch_out(f, layer, false));
    if (order == ORDER_SANDWICH)
        TRY(zo_cuda_norm(f, &f->body, NULL, f->y, f->vec[SLOT_POST1_W], NULL, d, f->x, true, NULL));
    if (order == ORDER_POST)
        TRY(norm_x(f, SLOT_NORM1_W, SLOT_NORM1_B, true));
    else if (order != ORDER_PARALLEL)
        TRY(norm_x(f, SLOT_NORM2_W, SLOT_NORM2_B, false));
    TRY(mlp_branch(f, layer));
    if (order == ORDER_POST)
        return norm_x(f, SLOT_NORM2_W, SLOT_NORM2_B, true);
    return order == ORDER_SANDWICH
               ? zo_cuda_norm(f, &f->body, NULL, f->y, f->vec[SLOT_POST2_W], NULL, d, f->x, true, NULL)
               : ERR_OK;
}

enum err zo_cuda_layers(struct cuda_forward *f)
{
    TRY(embedding(f));
    for (uint32_t layer = 0; layer < f->b->m->c.layers; layer++)
        TRY(run_layer(f, layer));
    return ERR_OK;
}
