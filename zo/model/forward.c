/* zo/model/forward.c -- the layers, once for every architecture: what differs is in the table and
 * the config. */
#include "zo/model/batch.h"

#include <math.h>
#include <string.h>

static float *worker_scratch(const struct batch *b, size_t worker)
{
    return b->scratch + worker * b->scratch_each;
}

/* ---- embedding ---- */

static void add_row(const struct batch *b, const struct param *p, size_t pass, uint64_t row,
                    float *out, size_t n, float *tmp)
{
    const struct zo_pass *z = &b->passes[pass];
    const struct zo_rules *rules = b->m->state ? b->m->state->rules : NULL;
    zo_weights_read(b->m, p, row * n, tmp, n, b->ops);
    if (p->state >= 0 && z->eps != 0.0f)
        zo_direction_rows_f32(tmp, rules, (uint32_t)p->state, z->key, z->seq, row, 1, z->eps, true,
                              b->k);
    b->ops->axpy(out, tmp, 0.0f, NULL, n, true);
}

static void embed_item(void *ctx, size_t i, size_t worker)
{
    struct batch *b = ctx;
    const struct config *c = &b->m->c;
    const struct param *g = b->m->global;
    const struct chunk *k = &b->body.chunks[i];
    float *tmp = worker_scratch(b, worker), *w = tmp + c->d + c->d_embed, *bias = w + c->d;
    const bool narrow = c->d_embed != c->d, norm = param_there(&g[SLOT_EMBED_NORM_W]);
    if (norm) {
        zo_pass_vector(b, &g[SLOT_EMBED_NORM_W], k->pass, 0, w, c->d);
        zo_pass_vector(b, &g[SLOT_EMBED_NORM_B], k->pass, 0, bias, c->d);
    }
    for (size_t r = k->row0; r < k->row0 + k->n; r++) {
        float *x = b->x + r * c->d, *e = narrow ? b->h + r * c->d_embed : x;
        memset(e, 0, c->d_embed * sizeof *e);
        add_row(b, &g[SLOT_EMBED], k->pass, b->ids[r], e, c->d_embed, tmp);
        for (size_t j = 0; c->embed_scale != 1.0f && j < c->d_embed; j++)
            e[j] *= c->embed_scale;
        if (narrow)
            memset(x, 0, c->d * sizeof *x);
        if (c->positions)
            add_row(b, &g[SLOT_POSITIONS], k->pass, (uint64_t)b->positions[r] + c->position_offset,
                    x, c->d, tmp);
        if (c->types > 0)
            add_row(b, &g[SLOT_TYPES], k->pass, 0, x, c->d, tmp);
        if (norm)
            b->ops->norm(x, x, w, bias, c->d, b->m->arch->norm, c->norm_eps);
    }
}

/* ---- row-wise steps between the matrix products ---- */

struct step {
    struct batch *b;
    const struct param *add_norm; /* NULL, or x += norm(h) first (sandwich) */
    const struct param *w, *bias; /* NULL, or dst = norm(src) */
    const float *src;
    float *dst;
    bool activate; /* ff = act(gate) * up */
    const struct lin *lins;
    size_t n_lins;
};

static void step_item(void *ctx, size_t i, size_t worker)
{
    const struct step *s = ctx;
    struct batch *b = s->b;
    const struct config *c = &b->m->c;
    const struct chunk *k = &b->body.chunks[i];
    float *w = worker_scratch(b, worker), *bias = w + c->d, *tmp = bias + c->d;
    if (s->add_norm) {
        zo_pass_vector(b, s->add_norm, k->pass, 0, w, c->d);
        for (size_t r = k->row0; r < k->row0 + k->n; r++) {
            b->ops->norm(tmp, b->h + r * c->d, w, NULL, c->d, b->m->arch->norm, c->norm_eps);
            b->ops->axpy(b->x + r * c->d, tmp, 0.0f, NULL, c->d, true);
        }
    }
    if (s->w) {
        const bool has_bias = param_there(s->bias);
        zo_pass_vector(b, s->w, k->pass, 0, w, c->d);
        if (has_bias)
            zo_pass_vector(b, s->bias, k->pass, 0, bias, c->d);
        for (size_t r = k->row0; r < k->row0 + k->n; r++)
            b->ops->norm(s->dst + r * c->d, s->src + r * c->d, w, has_bias ? bias : NULL, c->d,
                         b->m->arch->norm, c->norm_eps);
    }
    const size_t width = c->ffn * (b->m->arch->gated ? 2u : 1u);
    for (size_t r = k->row0; s->activate && r < k->row0 + k->n; r++)
        b->ops->act(b->ff + r * width, b->m->arch->gated ? b->ff + r * width + c->ffn : NULL,
                    c->ffn, c->act);
    for (size_t j = 0; j < s->n_lins; j++)
        zo_lin_dots(b, k, &s->lins[j], worker_scratch(b, worker));
}

static void run_step(struct batch *b, struct step s)
{
    s.b = b;
    zo_pool_run(b->pool, b->body.n_chunks, step_item, &s);
}

/* ---- attention ---- */

/* Where head's q, k and v lie in a row of qkv. */
struct place {
    size_t q, k, v, width;
};

static struct place head_place(const struct config *c, size_t head)
{
    const size_t d = c->head_dim, group = head / (c->heads / c->kv_heads);
    const size_t width = (size_t)(c->heads + 2 * c->kv_heads) * d;
    if (c->qkv_by_head)
        return (struct place){
            .q = head * 3 * d, .k = head * 3 * d + d, .v = head * 3 * d + 2 * d, .width = width};
    return (struct place){.q = head * d,
                          .k = (c->heads + group) * d,
                          .v = (c->heads + c->kv_heads + group) * d,
                          .width = width};
}

struct layer {
    struct batch *b;
    uint32_t index;
    const struct rope *rope;
    uint32_t window;
};

static void rotate_item(void *ctx, size_t i, size_t worker)
{
    const struct layer *l = ctx;
    struct batch *b = l->b;
    const struct config *c = &b->m->c;
    const struct chunk *k = &b->body.chunks[i];
    const size_t half = c->rope_half, share = c->heads / c->kv_heads;
    float *qw = worker_scratch(b, worker), *kw = qw + c->head_dim;
    if (c->qk_norm) {
        zo_pass_vector(b, layer_param(b->m, l->index, SLOT_Q_NORM), k->pass, 0, qw, c->head_dim);
        zo_pass_vector(b, layer_param(b->m, l->index, SLOT_K_NORM), k->pass, 0, kw, c->head_dim);
    }
    for (size_t r = k->row0; r < k->row0 + k->n; r++)
        for (size_t head = 0; head < c->heads; head++) {
            const struct place p = head_place(c, head);
            float *q = b->qkv + r * p.width + p.q, *key = b->qkv + r * p.width + p.k;
            const bool own_key =
                head % share == 0; /* each key once, though several heads read it */
            if (c->qk_norm)
                b->ops->norm(q, q, qw, NULL, c->head_dim, b->m->arch->norm, c->norm_eps);
            if (c->qk_norm && own_key)
                b->ops->norm(key, key, kw, NULL, c->head_dim, b->m->arch->norm, c->norm_eps);
            if (!l->rope->inv_freq)
                continue;
            const float *cos = l->rope->table + (size_t)b->positions[r] * 2 * half;
            b->ops->rope(q, cos, cos + half, half);
            if (own_key)
                b->ops->rope(key, cos, cos + half, half);
        }
}

/* Keys and values of one head at positions [k0, k0 + n) of a run, packed. */
struct keys {
    struct place p;
    size_t k0, n;
    struct zo_panels k, v; /* the keys as weights of n outputs; the values as weights of n inputs */
};

/* Some keys may be rows of the shared prefix, or of the cache: then they are gathered first, in
 * tmp [n * head_dim]. */
static struct zo_matrix keys_matrix(const struct batch *b, uint32_t layer, const struct run *r,
                                    const struct keys *k, size_t column, float *tmp)
{
    const size_t d = b->m->c.head_dim, width = k->p.width,
                 from = k->k0 < r->shared ? r->shared - k->k0 : 0; /* keys in the prefix */
    const struct zo_cache *cache = b->caches ? b->caches[r->pass] : NULL;
    const size_t stride = cache ? cache->width : width;
    const float *prefix = cache ? zo_cache_row(cache, layer, k->k0) + (column - cache->skip)
                                : b->qkv + (r->shared_row0 + k->k0) * width + column,
                *own = b->qkv + (r->row0 + (k->k0 + from - r->shared)) * width + column;
    if (from == 0)
        return (struct zo_matrix){.at = own, .ld = width, .scale = 1.0f};
    for (size_t i = 0; i < k->n; i++)
        memcpy(tmp + i * d, i < from ? prefix + i * stride : own + (i - from) * width,
               d * sizeof *tmp);
    return (struct zo_matrix){.at = tmp, .ld = d, .scale = 1.0f};
}

static void keys_pack(const struct batch *b, uint32_t layer, const struct run *r, struct keys *k,
                      float *scratch)
{
    const size_t d = b->m->c.head_dim, k_floats = zo_gemm_floats(k->n, d);
    float *v = scratch + k_floats, *tmp = v + zo_gemm_floats(d, k->n);
    struct zo_matrix keys = keys_matrix(b, layer, r, k, k->p.k, tmp);
    keys.scale = b->m->c.attention_scale;
    zo_gemm_pack(b->ops->gemm, scratch, &keys, k->n, d);
    struct zo_matrix values = keys_matrix(b, layer, r, k, k->p.v, tmp);
    values.transposed = true;
    zo_gemm_pack(b->ops->gemm, v, &values, d, k->n);
    k->k = (struct zo_panels){.at = scratch, .n = k->n, .k = d};
    k->v = (struct zo_panels){.at = v, .n = d, .k = k->n};
}

/* Queries at positions [q0, q1) of one head against the keys that they see. */
static void attend(const struct batch *b, const struct layer *l, const struct run *r, size_t head,
                   const struct keys *k, size_t q0, size_t q1, float *score)
{
    const struct config *c = &b->m->c;
    const size_t d = c->head_dim, out_width = (size_t)c->heads * d, panel = b->ops->gemm->panel,
                 row = r->row0 + q0 - r->shared, ld = ATTEND_LD(k->n);
    const size_t seen = c->causal ? q1 - k->k0 : k->n, whole = (seen + panel - 1) / panel * panel,
                 n = whole < k->n ? whole : k->n;
    zo_gemm_mul(b->ops->gemm, score, ld, b->qkv + row * k->p.width + k->p.q, k->p.width, q1 - q0,
                &k->k, n, d, false);
    for (size_t i = 0; i < q1 - q0; i++) {
        float *s = score + i * ld;
        const size_t at = q0 + i, end = c->causal ? at + 1 - k->k0 : k->n,
                     begin = c->causal && l->window > 0 && at + 1 > l->window + k->k0
                                 ? at + 1 - l->window - k->k0
                                 : 0;
        if (c->attention_cap > 0.0f)
            b->ops->softcap(s + begin, end - begin, c->attention_cap);
        b->ops->softmax(s + begin, end - begin);
        memset(s, 0, begin * sizeof *s);
        memset(s + end, 0, (seen - end) * sizeof *s);
    }
    zo_gemm_mul(b->ops->gemm, b->att + row * out_width + head * d, out_width, score, ld, q1 - q0,
                &k->v, d, seen, false);
}

/* Keys are packed once for QUERY_ROWS queries, and scores made for ATTEND_ROWS of these at a time:
 * with a causal model little is computed that is not seen. */
static void attend_block(const struct batch *b, const struct layer *l, const struct run *r,
                         size_t head, size_t q0, size_t q1, float *scratch)
{
    const struct config *c = &b->m->c;
    struct keys k = {.p = head_place(c, head)};
    k.k0 = c->causal && l->window > 0 && q0 + 1 > l->window ? q0 + 1 - l->window : 0;
    k.n = (c->causal ? q1 : r->n) - k.k0;
    keys_pack(b, l->index, r, &k, scratch + ATTEND_ROWS * ATTEND_LD(k.n));
    for (size_t q = q0; q < q1; q += ATTEND_ROWS)
        attend(b, l, r, head, &k, q, q + ATTEND_ROWS < q1 ? q + ATTEND_ROWS : q1, scratch);
}

static void attention_item(void *ctx, size_t i, size_t worker)
{
    const struct layer *l = ctx;
    const struct run *r = &l->b->runs[i / l->b->m->c.heads];
    for (size_t q0 = r->shared; q0 < r->n; q0 += QUERY_ROWS)
        attend_block(l->b, l, r, i % l->b->m->c.heads, q0,
                     q0 + QUERY_ROWS < r->n ? q0 + QUERY_ROWS : r->n, worker_scratch(l->b, worker));
}

/* ---- one layer ---- */

static struct lin lin_make(struct batch *b, uint32_t layer, enum slot w, enum slot bias,
                           size_t which, size_t n_in, size_t n_out)
{
    return (struct lin){.w = layer_param(b->m, layer, w),
                        .b = layer_param(b->m, layer, bias),
                        .n_in = n_in,
                        .n_out = n_out,
                        .transposed = b->m->arch->transposed,
                        .dots = b->dots + which * b->body.n};
}

static size_t lins_qkv(struct batch *b, uint32_t layer, const float *x, struct lin lins[MAX_LINS])
{
    const struct config *c = &b->m->c;
    const size_t q = (size_t)c->heads * c->head_dim, kv = (size_t)c->kv_heads * c->head_dim;
    size_t n = 0;
    if (param_there(layer_param(b->m, layer, SLOT_QKV_W))) {
        lins[n++] = lin_make(b, layer, SLOT_QKV_W, SLOT_QKV_B, 0, c->d, q + 2 * kv);
    } else {
        lins[n++] = lin_make(b, layer, SLOT_Q_W, SLOT_Q_B, 0, c->d, q);
        lins[n++] = lin_make(b, layer, SLOT_K_W, SLOT_K_B, 1, c->d, kv);
        lins[n++] = lin_make(b, layer, SLOT_V_W, SLOT_V_B, 2, c->d, kv);
    }
    float *y = b->qkv;
    for (size_t i = 0; i < n; i++) {
        lins[i].x = x;
        lins[i].ldx = c->d;
        lins[i].y = y;
        lins[i].ldy = q + 2 * kv;
        y += lins[i].n_out;
    }
    return n;
}

static size_t lins_up(struct batch *b, uint32_t layer, const float *x, struct lin lins[MAX_LINS])
{
    const struct config *c = &b->m->c;
    size_t n = 0;
    /* A missing bias slot reads as absent: gate has none in any architecture here. */
    if (param_there(layer_param(b->m, layer, SLOT_GATE_UP_W))) {
        lins[n++] = lin_make(b, layer, SLOT_GATE_UP_W, SLOT_UP_B, 0, c->d, 2 * (size_t)c->ffn);
    } else {
        if (b->m->arch->gated)
            lins[n++] = lin_make(b, layer, SLOT_GATE_W, SLOT_UP_B, 0, c->d, c->ffn);
        lins[n++] = lin_make(b, layer, SLOT_UP_W, SLOT_UP_B, 1, c->d, c->ffn);
    }
    float *y = b->ff;
    for (size_t i = 0; i < n; i++) {
        lins[i].x = x;
        lins[i].ldx = c->d;
        lins[i].y = y;
        lins[i].ldy = c->ffn * (b->m->arch->gated ? 2u : 1u);
        y += lins[i].n_out;
    }
    return n;
}

/* The attention's o and the MLP's down: into x, or into h where a norm comes between (sandwich). */
static struct lin lin_out(struct batch *b, uint32_t layer, bool down)
{
    const struct config *c = &b->m->c;
    const size_t q = (size_t)c->heads * c->head_dim;
    struct lin l = down ? lin_make(b, layer, SLOT_DOWN_W, SLOT_DOWN_B, 2, c->ffn, c->d)
                        : lin_make(b, layer, SLOT_O_W, SLOT_O_B, 2, q, c->d);
    l.add = c->order != ORDER_SANDWICH;
    l.x = down ? b->ff : b->att;
    l.ldx = down ? c->ffn * (b->m->arch->gated ? 2u : 1u) : q;
    l.y = l.add ? b->x : b->h;
    l.ldy = c->d;
    return l;
}

static void run_attention(struct batch *b, uint32_t layer)
{
    const struct config *c = &b->m->c;
    const bool local = c->layer_local && c->layer_local[layer],
               own_rope = c->rope[1].inv_freq != NULL;
    struct layer l = {.b = b,
                      .index = layer,
                      .rope = &c->rope[local && own_rope],
                      .window = !c->layer_local || local ? c->window : 0};
    if (l.rope->inv_freq || c->qk_norm)
        zo_pool_run(b->pool, b->body.n_chunks, rotate_item, &l);
    if (b->caches)
        zo_cache_keep(b, layer);
    zo_pool_run(b->pool, b->n_runs * c->heads, attention_item, &l);
}

static void run_layer(struct batch *b, uint32_t layer)
{
    const enum order order = b->m->c.order;
    const struct param *n1w = layer_param(b->m, layer, SLOT_NORM1_W),
                       *n1b = layer_param(b->m, layer, SLOT_NORM1_B),
                       *n2w = layer_param(b->m, layer, SLOT_NORM2_W),
                       *n2b = layer_param(b->m, layer, SLOT_NORM2_B);
    const bool post = order == ORDER_POST, sandwich = order == ORDER_SANDWICH;
    struct lin qkv[MAX_LINS], up[MAX_LINS], o = lin_out(b, layer, false),
                                            down = lin_out(b, layer, true);
    const size_t n_qkv = lins_qkv(b, layer, post ? b->x : b->h, qkv),
                 n_up = lins_up(b, layer, post ? b->x : b->h, up);
    run_step(b, (struct step){.w = post ? NULL : n1w,
                              .bias = n1b,
                              .src = b->x,
                              .dst = b->h,
                              .lins = qkv,
                              .n_lins = n_qkv});
    zo_lin_run(b, &b->body, qkv, n_qkv);
    run_attention(b, layer);
    run_step(b, (struct step){.lins = &o, .n_lins = 1});
    const struct step before_up = {.add_norm =
                                       sandwich ? layer_param(b->m, layer, SLOT_POST1_W) : NULL,
                                   .w = post ? n1w : n2w,
                                   .bias = post ? n1b : n2b,
                                   .src = b->x,
                                   .dst = post ? b->x : b->h,
                                   .lins = up,
                                   .n_lins = n_up};
    if (order == ORDER_PARALLEL) /* both branches read the layer's input */
        run_step(b, before_up);
    zo_lin_run(b, &b->body, &o, 1);
    if (order != ORDER_PARALLEL)
        run_step(b, before_up);
    zo_lin_run(b, &b->body, up, n_up);
    run_step(b, (struct step){.activate = true, .lins = &down, .n_lins = 1});
    zo_lin_run(b, &b->body, &down, 1);
    if (post)
        run_step(b, (struct step){.w = n2w, .bias = n2b, .src = b->x, .dst = b->x});
    if (sandwich)
        run_step(b, (struct step){.add_norm = layer_param(b->m, layer, SLOT_POST2_W)});
}

void zo_forward(struct batch *b)
{
    const struct config *c = &b->m->c;
    zo_pool_run(b->pool, b->body.n_chunks, embed_item, b);
    if (c->d_embed != c->d) {
        struct lin in = {.w = &b->m->global[SLOT_PROJECT_IN],
                         .n_in = c->d_embed,
                         .n_out = c->d,
                         .add = true,
                         .x = b->h,
                         .ldx = c->d_embed,
                         .y = b->x,
                         .ldy = c->d,
                         .dots = b->dots};
        run_step(b, (struct step){.lins = &in, .n_lins = 1});
        zo_lin_run(b, &b->body, &in, 1);
    }
    for (uint32_t layer = 0; layer < c->layers; layer++)
        run_layer(b, layer);
}
