/* zo/cuda/linear.c -- matrix products of all passes at once, each pass along its own direction.
 *
 *     rank 1   y = x W^T, once for all passes;  + s a^T + bias, s = eps (x . b), by whoever reads y next
 *     dense    y = x W^T + eps x Z^T: +-1 and h / 4 are exact in BF16, so W + eps z is never rounded
 *     adapters y += scale B (A x), both along their own directions
 *
 * A transposed matrix (in, out) has its inputs on the a side. */
#include "zo/cuda/forward.h"

#include <math.h>
#include <string.h>

static const struct zo_rules *rules_of(const struct cuda_forward *f)
{
    return f->d->state->rules;
}

static bool is_rank1(const struct cuda_forward *f)
{
    return f->b->perturbed && rules_of(f)->direction == ZO_RANK1;
}

static bool is_dense(const struct cuda_forward *f)
{
    return f->b->perturbed && rules_of(f)->direction != ZO_RANK1;
}

static void *area_take(struct cuda_forward *f, uint64_t bytes)
{
    void *p = f->area + f->area_at;
    f->area_at += (bytes + 63) & ~(uint64_t)63;
    ENSURE(f->area_at <= f->area_bytes);
    return p;
}

static const struct param *slot_param(const struct zo_model *m, uint32_t layer, enum slot s)
{
    ENSURE(s < SLOT_END);
    if (s < SLOT_LAYER_END)
        return layer_param(m, layer, s);
    return &m->global[s]; /* cppcheck-suppress arrayIndexOutOfBoundsCond ; ENSUREd above: it takes a loop's end for its last index */
}

static uint64_t sign_bytes(uint64_t passes, uint64_t n)
{
    return passes * ((n + 127) / 128) * 16 + 64;
}

static uint64_t slot_bytes(const struct batch *b, const struct param *p)
{
    const uint64_t passes = b->n_passes, r = b->m->lora_r;
    if (!param_there(p))
        return 0;
    if (p->t->n_dims < 2)
        return passes * p->rows * sizeof(float) + 64;
    return 3 * (sign_bytes(passes, p->rows) + sign_bytes(passes, p->cols)) + 2 * sign_bytes(passes, r);
}

uint64_t zo_cuda_draw_bytes(const struct batch *b)
{
    uint64_t layer = 0, outside = 0;
    for (int s = 0; s < SLOT_LAYER_END; s++)
        layer += slot_bytes(b, layer_param(b->m, 0, (enum slot)s));
    for (int s = SLOT_LAYER_END; s < SLOT_END; s++)
        outside += slot_bytes(b, &b->m->global[s]);
    return layer > outside ? layer : outside;
}

/* ---- drawing ---- */

struct lists {
    struct k_words words;
    struct k_vectors vectors;
};

static enum err lists_flush(struct cuda_forward *f, struct lists *l, bool all)
{
    if (l->words.n_items > 0 && (all || l->words.n_items > ZO_CUDA_LIST - 2)) {
        TRY(zo_cuda_launch_n(f->d, ZO_CUDA_K_words, (uint64_t)f->passes.n * ZO_CUDA_THREADS, l->words.n_items, &l->words));
        l->words.n_items = 0;
    }
    if (l->vectors.n_items > 0 && (all || l->vectors.n_items == ZO_CUDA_LIST)) {
        TRY(zo_cuda_launch_n(f->d, ZO_CUDA_K_vectors, (uint64_t)f->passes.n * 16 * ZO_CUDA_THREADS, l->vectors.n_items,
                             &l->vectors));
        l->vectors.n_items = 0;
    }
    return ERR_OK;
}

static const uint32_t *list_words(struct cuda_forward *f, struct lists *l, uint32_t domain, uint32_t t, uint64_t n,
                                  uint32_t *words)
{
    const uint32_t blocks = (uint32_t)((n + 127) / 128), i = l->words.n_items++;
    *words = 4 * blocks;
    l->words.item[i].domain_tensor = domain << 24 | t;
    l->words.item[i].n_blocks = blocks;
    l->words.item[i].out = area_take(f, (uint64_t)f->passes.n * blocks * 16);
    return l->words.item[i].out;
}

static enum err list_signs(struct cuda_forward *f, struct lists *l, uint32_t t, bool transposed, struct cuda_signs *s)
{
    const struct zo_tensor *z = &rules_of(f)->tensors[t];
    uint32_t na, nb;
    TRY(lists_flush(f, l, false));
    const uint32_t *a = list_words(f, l, ZO_DOMAIN_A, t, zo_tensor_rows(z), &na),
                   *b = list_words(f, l, ZO_DOMAIN_B, t, zo_tensor_cols(z), &nb);
    *s = transposed ? (struct cuda_signs){.in = a, .out = b, .in_words = na, .out_words = nb}
                    : (struct cuda_signs){.in = b, .out = a, .in_words = nb, .out_words = na};
    return ERR_OK;
}

static enum err list_vector(struct cuda_forward *f, struct lists *l, const struct param *p, const float **vec)
{
    TRY(lists_flush(f, l, false));
    const uint32_t i = l->vectors.n_items++;
    const struct zo_tensor *z = p->state >= 0 ? &rules_of(f)->tensors[p->state] : NULL;
    l->vectors.item[i].m = z ? f->d->m[p->state] : zo_cuda_param(f->d, p)->plain;
    l->vectors.item[i].bits = z ? z->bits : 0;
    l->vectors.item[i].domain_tensor = z ? (uint32_t)p->state : 0;
    l->vectors.item[i].scale = z ? ldexpf(1.0f, -(int)z->e) : 1.0f;
    l->vectors.item[i].n = (uint32_t)p->rows;
    l->vectors.item[i].out = area_take(f, (uint64_t)f->passes.n * p->rows * sizeof(float));
    *vec = l->vectors.item[i].out;
    return ERR_OK;
}

static bool slot_transposed(const struct cuda_forward *f, enum slot s)
{
    return s < SLOT_LAYER_END && f->b->m->arch->transposed;
}

enum err zo_cuda_draw(struct cuda_forward *f, uint32_t layer, enum slot first, enum slot end)
{
    struct lists l = {.words = {.p = f->passes}, .vectors = {.p = f->passes}};
    l.vectors.kind = rules_of(f)->direction == ZO_GAUSSIAN ? ZO_CUDA_GAUSS : ZO_CUDA_SIGNS;
    f->area_at = 0;
    for (int i = (int)first; i < (int)end; i++) {
        const struct param *p = slot_param(f->b->m, layer, (enum slot)i);
        f->vec[i] = NULL;
        memset(&f->signs[i], 0, sizeof f->signs[i]);
        if (i < SLOT_LAYER_END)
            memset(f->lora[i], 0, sizeof f->lora[i]);
        if (!param_there(p))
            continue;
        if (p->t->n_dims < 2)
            TRY(list_vector(f, &l, p, &f->vec[i]));
        else if (p->state >= 0 && is_rank1(f))
            TRY(list_signs(f, &l, (uint32_t)p->state, slot_transposed(f, (enum slot)i), &f->signs[i]));
        if (p->adapted && is_rank1(f)) {
            TRY(list_signs(f, &l, p->lora_a, false, &f->lora[i][0]));
            TRY(list_signs(f, &l, p->lora_b, false, &f->lora[i][1]));
        }
    }
    return lists_flush(f, &l, true);
}

/* ---- products ---- */

struct cuda_lin zo_cuda_lin(const struct cuda_forward *f, uint32_t layer, enum slot w, enum slot bias, uint64_t n_in,
                            uint64_t n_out)
{
    struct cuda_lin l = {.w = slot_param(f->b->m, layer, w),
                         .bias = bias < SLOT_END ? f->vec[bias] : NULL,
                         .n_in = n_in,
                         .n_out = n_out,
                         .transposed = slot_transposed(f, w),
                         .signs = f->signs[w]};
    if (w < SLOT_LAYER_END) {
        l.lora_a = f->lora[w][0];
        l.lora_b = f->lora[w][1];
    }
    return l;
}

static enum err dots_of(struct cuda_forward *f, const struct cuda_rows *rows, const struct cuda_signs *const *signs,
                        size_t n, const void *x, uint64_t ldx, uint64_t n_in, float scale, float *dots)
{
    struct k_dots k = {.p = f->passes, .row_pass = rows->row_pass, .n_rows = rows->n, .n = (uint32_t)n_in,
                       .type = f->d->type, .n_signs = (uint32_t)n, .ldx = ldx, .x = x, .words = signs[0]->in_words,
                       .scale = scale, .dots = dots};
    for (size_t i = 0; i < n; i++)
        k.signs[i] = signs[i]->in;
    return zo_cuda_launch_n(f->d, ZO_CUDA_K_dots, (uint64_t)rows->n * ZO_CUDA_WARP, 1, &k);
}

enum err zo_cuda_dots(struct cuda_forward *f, const struct cuda_rows *rows, const struct cuda_lin *l, size_t n,
                      const void *x, uint64_t ldx)
{
    for (size_t i = 0; i < n; i++) { /* those that move lie together, or alone */
        const struct cuda_signs *signs[ZO_CUDA_PARTS];
        size_t count = 0;
        const size_t first = i;
        while (i < n && l[i].signs.in)
            signs[count++] = &l[i++].signs;
        if (count > 0)
            TRY(dots_of(f, rows, signs, count, x, ldx, l[first].n_in, 1.0f, f->dots + first * rows->n));
    }
    return ERR_OK;
}

static enum err gemm(struct cuda_forward *f, uint64_t rows, uint64_t n_in, uint64_t n_out, bool transposed, float alpha,
                     const void *x, uint64_t ldx, const void *w, uint64_t ldw, float beta, float *y, uint64_t ldy)
{
    const struct zo_cuda_gemm g = {.type = f->d->type, .transposed = transposed, .rows = rows, .n_in = n_in,
                                   .n_out = n_out, .ldx = ldx, .ldw = ldw, .ldy = ldy, .alpha = alpha, .beta = beta,
                                   .x = x, .w = w, .y = y};
    if (f->d->lost)
        return ERR_DEVICE;
    const enum err e = rows == 0 ? ERR_OK : f->d->api->gemm(f->d->ctx, &g);
    f->d->lost = f->d->lost || e == ERR_DEVICE;
    return e;
}

/* y += alpha eps x Z^T of tensor t, pass by pass; passes that follow each other along one direction share Z. */
static enum err add_dense(struct cuda_forward *f, const struct cuda_rows *rows, uint32_t t, uint64_t row0, uint64_t n_rows,
                          bool transposed, float alpha, const void *x, uint64_t ldx, float *y, uint64_t ldy)
{
    const bool gauss = rules_of(f)->direction == ZO_GAUSSIAN;
    const uint64_t cols = zo_tensor_cols(&rules_of(f)->tensors[t]), n_in = transposed ? n_rows : cols,
                   n_out = transposed ? cols : n_rows, bytes = zo_cuda_type_bytes(f->d->type);
    const struct zo_pass *held = NULL;
    TRY(zo_cuda_grow(f->d, &f->d->dense, n_rows * cols * bytes));
    for (size_t p = 0; p < f->b->n_passes; p++) {
        const struct zo_pass *pass = &f->b->passes[p];
        const uint64_t first = rows->pass0[p], n = rows->pass0[p + 1] - first;
        if (pass->eps == 0.0f || n == 0)
            continue;
        if (!held || held->seq != pass->seq || held->key[0] != pass->key[0] || held->key[1] != pass->key[1]) {
            const struct k_dense k = {.p = f->passes, .pass = (uint32_t)p,
                                      .kind = gauss ? ZO_CUDA_GAUSS : ZO_CUDA_SIGNS,
                                      .domain_tensor = (uint32_t)(gauss ? ZO_DOMAIN_GAUSS : ZO_DOMAIN_DENSE) << 24 | t,
                                      .type = f->d->type, .first = row0 * cols, .n = n_rows * cols,
                                      .out = f->d->dense.p};
            TRY(zo_cuda_launch_n(f->d, ZO_CUDA_K_dense, (k.n + 7) / 8, 1, &k));
            held = pass;
        }
        TRY(gemm(f, n, n_in, n_out, transposed, alpha * pass->eps, (const uint8_t *)x + first * ldx * bytes, ldx,
                 f->d->dense.p, cols, 1.0f, y + first * ldy, ldy));
    }
    return ERR_OK;
}

/* mid = x A^T, y += scale mid B^T; each with its own direction. */
static enum err add_adapter(struct cuda_forward *f, const struct cuda_rows *rows, const struct cuda_lin *l, const void *x,
                            uint64_t ldx, float *y, uint64_t ldy)
{
    const uint64_t r = rules_of(f)->tensors[l->w->lora_a].dims[0];
    const float scale = rules_of(f)->lora_scale;
    const struct cuda_signs *a = &l->lora_a, *b = &l->lora_b;
    const void *w = NULL;
    struct k_part part = {.n = (uint32_t)r, .out = a->out, .words = a->out_words, .dots = f->lora_dots};
    if (a->in)
        TRY(dots_of(f, rows, &a, 1, x, ldx, l->n_in, 1.0f, f->lora_dots));
    TRY(zo_cuda_tensor(f->d, l->w->lora_a, 0, r, &w));
    TRY(gemm(f, rows->n, l->n_in, r, false, 1.0f, x, ldx, w, l->n_in, 0.0f, f->mid, r));
    if (is_dense(f))
        TRY(add_dense(f, rows, l->w->lora_a, 0, r, false, 1.0f, x, ldx, f->mid, r));
    TRY(zo_cuda_finish(f, rows, &part, 1, f->mid, r, NULL, 0, false, f->mid_copy));
    TRY(zo_cuda_tensor(f->d, l->w->lora_b, 0, l->n_out, &w));
    TRY(gemm(f, rows->n, r, l->n_out, false, scale, f->mid_copy, r, w, r, 1.0f, y, ldy));
    if (is_dense(f))
        TRY(add_dense(f, rows, l->w->lora_b, 0, l->n_out, false, scale, f->mid_copy, r, y, ldy));
    if (!b->in)
        return ERR_OK;
    TRY(dots_of(f, rows, &b, 1, f->mid_copy, r, r, scale, f->lora_dots));
    part = (struct k_part){.n = (uint32_t)l->n_out, .out = b->out, .words = b->out_words, .dots = f->lora_dots};
    return zo_cuda_finish(f, rows, &part, 1, y, ldy, NULL, 0, false, NULL);
}

enum err zo_cuda_product(struct cuda_forward *f, const struct cuda_rows *rows, const struct cuda_lin *l, uint64_t out0,
                         uint64_t n_out, const void *x, uint64_t ldx, float *y, uint64_t ldy)
{
    ENSURE(!l->transposed || (out0 == 0 && n_out == l->n_out)); /* only the vocabulary is cut, and it never is */
    const uint64_t row0 = l->transposed ? 0 : out0, n_rows = l->transposed ? l->n_in : n_out;
    const void *w = NULL;
    TRY(zo_cuda_matrix(f->d, l->w, row0, n_rows, &w));
    TRY(gemm(f, rows->n, l->n_in, n_out, l->transposed, 1.0f, x, ldx, w, l->w->cols, 0.0f, y, ldy));
    if (is_dense(f) && l->w->state >= 0)
        TRY(add_dense(f, rows, (uint32_t)l->w->state, row0, n_rows, l->transposed, 1.0f, x, ldx, y, ldy));
    return l->w->adapted ? add_adapter(f, rows, l, x, ldx, y, ldy) : ERR_OK;
}

struct k_part zo_cuda_part(const struct cuda_forward *f, const struct cuda_rows *rows, const struct cuda_lin *l,
                           size_t which, uint32_t col0)
{
    return (struct k_part){.col0 = col0, .n = (uint32_t)l->n_out, .bias = l->bias, .out = l->signs.out,
                           .words = l->signs.out_words, .dots = f->dots + which * rows->n};
}

enum err zo_cuda_finish(struct cuda_forward *f, const struct cuda_rows *rows, const struct k_part *parts, uint32_t n,
                        float *y, uint64_t ldy, float *x, uint64_t ldx, bool add, void *copy)
{
    struct k_finish k = {.row_pass = rows->row_pass, .n_rows = rows->n, .n_parts = n, .type = f->d->type, .add = add,
                         .y = y, .ldy = ldy, .x = x, .ldx = ldx, .copy = copy};
    ENSURE(n >= 1 && n <= ZO_CUDA_PARTS);
    memcpy(k.part, parts, n * sizeof *parts);
    k.ldc = parts[n - 1].col0 + parts[n - 1].n;
    return zo_cuda_launch_n(f->d, ZO_CUDA_K_finish, rows->n * k.ldc, 1, &k);
}

enum err zo_cuda_norm(struct cuda_forward *f, const struct cuda_rows *rows, const uint32_t *gather, const float *src,
                      const float *w, const float *b, uint32_t d, float *dst, bool add, void *copy)
{
    const enum zo_norm kind = f->b->m->arch->norm;
    const struct k_norm k = {.row_pass = rows->row_pass, .gather = gather, .n_rows = rows->n, .d = d,
                             .norm = kind == ZO_NORM_LAYER ? 2 : kind == ZO_NORM_RMS_PLUS1 ? 1 : 0, .type = f->d->type,
                             .add = add, .eps = f->b->m->c.norm_eps, .src = src, .w = w, .b = b, .dst = dst, .copy = copy};
    const uint32_t most = zo_cuda_busy(f->d);
    return zo_cuda_launch(f->d, ZO_CUDA_K_norm, rows->n < most ? rows->n : most, 1, 0, &k);
}
