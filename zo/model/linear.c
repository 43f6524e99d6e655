/* zo/model/linear.c -- matrix products of all passes at once, each pass along its own direction.
 *
 *     rank 1    y = x W^T + s a^T + bias,  s = eps (x . b): the plain product once for all passes;
 *               the rank-1 term and the bias are added while a tile of y is in registers
 *     dense     y = x (W + eps z)^T, a block of W + eps z at a time in the worker's scratch
 *
 * Work is split into blocks of W's outputs: each block is converted from integers and packed once,
 * into scratch that stays in cache, and used at once for all rows. */
#include "zo/model/batch.h"

#include <string.h>

enum {
    BLOCK_MIN = 96,
    GROUP_ROWS = 128, /* rows of one call of mul .. */
    GROUP_PASSES = 8, /* .. which are of so many passes at most */
};

/* Even shares for the workers, of at most ZO_GEMM_COLS outputs. */
size_t zo_lin_block(size_t n_out, size_t n_workers)
{
    const size_t rounds = (n_out + ZO_GEMM_COLS * n_workers - 1) / (ZO_GEMM_COLS * n_workers),
                 even = (n_out + rounds * n_workers - 1) / (rounds * n_workers);
    const size_t block = even < BLOCK_MIN ? BLOCK_MIN : (even + 47) / 48 * 48;
    return block < n_out ? block : n_out;
}

static bool is_dense(const struct batch *b)
{
    return b->perturbed && b->m->state && b->m->state->rules->direction != ZO_RANK1;
}

size_t zo_lin_block_scratch(const struct batch *b, size_t n_in, size_t n_out)
{
    return zo_gemm_floats(n_out, n_in) * (is_dense(b) ? 4 : 2) +
           2 * GROUP_PASSES * zo_gemm_floats(n_out, 1);
}

/* Floats a worker needs for a block, an input vector, or adapters. */
size_t zo_lin_scratch(const struct batch *b, size_t n_in, size_t n_out)
{
    const size_t block = zo_lin_block_scratch(b, n_in, zo_lin_block(n_out, b->n_workers)),
                 lora = zo_lora_scratch(b, n_in, n_out);
    return (block > lora ? block : lora) + n_in;
}

static bool moves(const struct batch *b, const struct param *p, size_t pass)
{
    return p->state >= 0 && b->passes[pass].eps != 0.0f;
}

void zo_pass_vector(const struct batch *b, const struct param *p, size_t pass, uint64_t first,
                    float *out, size_t n)
{
    const struct zo_pass *z = &b->passes[pass];
    zo_weights_read(b->m, p, first, out, n, b->ops);
    if (moves(b, p, pass))
        zo_direction_rows_f32(out, b->m->state->rules, (uint32_t)p->state, z->key, z->seq, first, n,
                              z->eps, true, b->k);
}

/* dots of the rows of one chunk.  A transposed matrix (in, out) has its inputs on the a side. */
void zo_lin_dots(const struct batch *b, const struct chunk *c, const struct lin *l, float *scratch)
{
    const struct zo_pass *z = &b->passes[c->pass];
    if (!moves(b, l->w, c->pass) || is_dense(b))
        return;
    if (l->transposed)
        zo_direction_a_f32(scratch, z->key, z->seq, (uint32_t)l->w->state, 0, l->n_in, b->k);
    else
        zo_direction_b_f32(scratch, z->key, z->seq, (uint32_t)l->w->state, 0, l->n_in, b->k);
    for (size_t r = c->row0; r < c->row0 + c->n; r++)
        l->dots[r] = z->eps * b->ops->dot(l->x + r * l->ldx, scratch, l->n_in);
}

/* One block of outputs, and the worker's scratch: panels [zo_gemm_floats], then raw [as many];
 * dense: two more. */
struct block {
    const struct batch *b;
    const struct lin *l;
    const size_t *pass0;
    size_t out0, n_out, floats;
    float *panels, *raw, *vectors; /* vectors: factor and bias of GROUP_PASSES passes */
};

/* The pass that row belongs to. */
static size_t pass_of(const struct block *k, size_t row)
{
    size_t low = 0, high = k->b->n_passes; /* pass0[low] <= row < pass0[high] */
    while (high - low > 1) {
        const size_t mid = low + (high - low) / 2;
        if (k->pass0[mid] <= row)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* The rows of [row0, row0 + n) that are pass p's, as [*from, *to). */
static bool pass_rows(const size_t *pass0, size_t p, size_t row0, size_t n, size_t *from,
                      size_t *to)
{
    *from = pass0[p] > row0 ? pass0[p] : row0;
    *to = pass0[p + 1] < row0 + n ? pass0[p + 1] : row0 + n;
    return *from < *to;
}

struct start {
    struct zo_start s;
    float scale[GROUP_ROWS];
    const float *factor[GROUP_ROWS], *bias[GROUP_ROWS];
};

/* What the first rows of [row0, row0 + n), n <= GROUP_ROWS, start from; returns how many these are.
 */
static size_t rows_start(const struct block *k, size_t row0, size_t n, struct start *s)
{
    const struct batch *b = k->b;
    const struct lin *l = k->l;
    const size_t width = zo_gemm_floats(k->n_out, 1);
    const bool rank1 = b->perturbed && l->w->state >= 0 && !is_dense(b),
               bias = l->b && param_there(l->b);
    float *factors = k->vectors, *biases = factors + GROUP_PASSES * width;
    s->s = (struct zo_start){.scale = rank1 ? s->scale : NULL,
                             .factor = rank1 ? s->factor : NULL,
                             .bias = bias ? s->bias : NULL};
    if (!rank1 && !bias)
        return n;
    size_t p = pass_of(k, row0);
    for (size_t slot = 0, from, to; p < b->n_passes && k->pass0[p] < row0 + n; p++) {
        if (!pass_rows(k->pass0, p, row0, n, &from, &to))
            continue;
        if (slot == GROUP_PASSES)
            return from - row0;
        const struct zo_pass *z = &b->passes[p];
        float *f = factors + slot * width, *c = biases + slot++ * width;
        const bool moved = moves(b, l->w, p);
        if (bias)
            zo_pass_vector(b, l->b, p, k->out0, c, k->n_out);
        if (rank1) /* of a pass that does not move, too: times 0 */
            (l->transposed ? zo_direction_b_f32 : zo_direction_a_f32)(
                f, z->key, z->seq, (uint32_t)l->w->state, k->out0, k->n_out, b->k);
        for (size_t r = from; r < to; r++) {
            s->scale[r - row0] = rank1 && moved ? l->dots[r] : 0.0f;
            s->factor[r - row0] = f;
            s->bias[r - row0] = c;
        }
    }
    return n;
}

/* The block of W where it lies; *direct false: there is none, it must be read. */
static struct zo_matrix block_matrix(const struct batch *b, const struct lin *l, size_t out0,
                                     bool *direct)
{
    struct zo_matrix w = {.transposed = l->transposed, .ld = (size_t)l->w->cols};
    *direct = zo_weights_matrix(b->m, l->w, &w);
    if (*direct)
        w.at = (const float *)w.at + (l->transposed ? out0 : out0 * w.ld);
    return w;
}

/* ... or, read into raw: (n_out, n_in) or transposed (n_in, n_out). */
static struct zo_matrix block_weights(const struct block *k)
{
    const struct lin *l = k->l;
    bool direct;
    struct zo_matrix w = block_matrix(k->b, l, k->out0, &direct);
    if (direct)
        return w;
    const size_t all = (size_t)l->w->cols;
    w = (struct zo_matrix){.at = k->raw, .scale = 1.0f, .transposed = l->transposed};
    w.ld = l->transposed ? k->n_out : all;
    if (!l->transposed)
        zo_weights_read(k->b->m, l->w, k->out0 * all, k->raw, k->n_out * all, k->b->ops);
    for (size_t i = 0; l->transposed && i < l->n_in; i++)
        zo_weights_read(k->b->m, l->w, i * all + k->out0, k->raw + i * k->n_out, k->n_out,
                        k->b->ops);
    return w;
}

/* z of the block, in raw. */
static struct zo_matrix block_direction(const struct block *k, size_t pass)
{
    const struct lin *l = k->l;
    const struct zo_pass *p = &k->b->passes[pass];
    const struct zo_rules *rules = k->b->m->state->rules;
    const uint32_t t = (uint32_t)l->w->state;
    const struct zo_matrix z = {.at = k->raw,
                                .scale = 1.0f,
                                .ld = l->transposed ? k->n_out : l->n_in,
                                .transposed = l->transposed};
    if (!l->transposed) {
        zo_direction_rows_f32(k->raw, rules, t, p->key, p->seq, k->out0, k->n_out, 1.0f, false,
                              k->b->k);
        return z;
    }
    const bool gauss = rules->direction == ZO_GAUSSIAN;
    const struct zo_stream s =
        zo_stream(p->key, gauss ? ZO_DOMAIN_GAUSS : ZO_DOMAIN_DENSE, t, p->seq);
    for (size_t i = 0; i < l->n_in; i++)
        (gauss ? zo_gauss_f32 : zo_signs_f32)(k->raw + i * k->n_out, &s, i * l->w->cols + k->out0,
                                              k->n_out, 1.0f, false, k->b->k);
    return z;
}

/* y (n_rows, n_out) <- (add ? y : 0) + start + x W^T.  w: what to pack into panels first; NULL: they
 * are packed. */
static void product(const struct block *k, const struct zo_matrix *w, float *panels, size_t row0,
                    size_t n_rows, float *y, size_t ldy, struct zo_ahead ahead)
{
    const struct lin *l = k->l;
    const size_t part = zo_gemm_part(l->n_in);
    for (size_t in0 = 0; in0 < l->n_in; in0 += part) {
        const size_t n_in = l->n_in - in0 < part ? l->n_in - in0 : part;
        struct zo_ahead soon = ahead;
        if (w) {
            struct zo_matrix some = *w;
            some.at = (const float *)w->at + (w->transposed ? in0 * w->ld : in0);
            k->b->ops->gemm->pack(panels + zo_gemm_floats(k->n_out, in0), &some, k->n_out, n_in);
        }
        if (w && !w->transposed && in0 + part < l->n_in)
            soon = (struct zo_ahead){.at = (const uint8_t *)((const float *)w->at + in0 + part),
                                     .ld = w->ld * sizeof(float),
                                     .rows = k->n_out};
        for (size_t r = 0, n; r < n_rows; r += n) {
            struct start start;
            start.s = (struct zo_start){0};
            n = n_rows - r < GROUP_ROWS ? n_rows - r : GROUP_ROWS;
            if (in0 == 0)
                n = rows_start(k, row0 + r, n, &start);
            k->b->ops->gemm->mul(y + r * ldy, ldy, l->x + (row0 + r) * l->ldx + in0, l->ldx, n,
                                 panels + zo_gemm_floats(k->n_out, in0), n_in, k->n_out, n_in,
                                 l->add || in0 > 0,
                                 start.s.factor || start.s.bias ? &start.s : NULL, &soon);
        }
    }
}

/* Dense kinds: W + eps z per pass, added where both are packed.  Passes that follow each other along
 * one direction share z. */
static void block_dense(const struct block *k, size_t row0, size_t n_rows, float *y, size_t ldy)
{
    const struct batch *b = k->b;
    float *z = k->raw + k->floats, *wz = z + k->floats;
    const struct zo_pass *held = NULL;
    for (size_t p = 0, from, to; p < b->n_passes; p++) {
        const struct zo_pass *pass = &b->passes[p];
        if (!pass_rows(k->pass0, p, row0, n_rows, &from, &to))
            continue;
        const bool moved = moves(b, k->l->w, p);
        if (moved && (!held || held->seq != pass->seq || held->key[0] != pass->key[0] ||
                      held->key[1] != pass->key[1])) {
            const struct zo_matrix raw = block_direction(k, p);
            zo_gemm_pack(b->ops->gemm, z, &raw, k->n_out, k->l->n_in);
            held = pass;
        }
        if (moved)
            b->ops->axpy(wz, k->panels, pass->eps, z, k->floats, false);
        product(k, NULL, moved ? wz : k->panels, from, to - from, y + (from - row0) * ldy, ldy,
                (struct zo_ahead){0});
    }
}

/* packed: NULL, or whether scratch holds this block's panels from a call before (same block, other
 * rows); ahead: what comes after this block. */
void zo_lin_block_run(const struct batch *b, const struct lin *l, const size_t *pass0, size_t out0,
                      size_t n_out, size_t row0, size_t n_rows, float *y, size_t ldy,
                      float *scratch, bool *packed, struct zo_ahead ahead)
{
    struct block k = {.b = b, .l = l, .pass0 = pass0, .out0 = out0, .n_out = n_out};
    k.floats = zo_gemm_floats(n_out, l->n_in);
    k.panels = scratch;
    k.raw = k.panels + k.floats;
    const bool dense = is_dense(b) && l->w->state >= 0, fresh = !packed || !*packed;
    k.vectors = k.raw + (is_dense(b) ? 3 : 1) * k.floats;
    const struct zo_matrix w = fresh ? block_weights(&k) : (struct zo_matrix){0};
    if (packed)
        *packed = true;
    if (!dense) {
        product(&k, fresh ? &w : NULL, k.panels, row0, n_rows, y, ldy, ahead);
        return;
    }
    if (fresh)
        zo_gemm_pack(b->ops->gemm, k.panels, &w, n_out, l->n_in);
    block_dense(&k, row0, n_rows, y, ldy);
}

struct zo_ahead zo_lin_ahead(const struct batch *b, const struct lin *l, size_t out0, size_t n_out)
{
    bool direct;
    const struct zo_matrix w = block_matrix(b, l, out0, &direct);
    return (struct zo_ahead){
        .at = w.at, .ld = w.ld * sizeof(float), .rows = direct && !w.transposed ? n_out : 0};
}

/* ---- splitting over the pool ---- */

struct job {
    struct batch *b;
    const struct rows *rows;
    const struct lin *lins;
    size_t first[MAX_LINS + 1]; /* first item of each lin */
    size_t block[MAX_LINS], row_parts, n_items;
};

/* Item i: a part of the rows of a block of one lin. */
struct place {
    const struct lin *l;
    size_t out0, n_out, part;
};

static struct place job_place(const struct job *j, size_t i)
{
    size_t which = 0;
    while (i >= j->first[which + 1])
        which++;
    const struct lin *l = &j->lins[which];
    const size_t at = i - j->first[which], out0 = at / j->row_parts * j->block[which];
    return (struct place){.l = l,
                          .out0 = out0,
                          .n_out =
                              l->n_out - out0 < j->block[which] ? l->n_out - out0 : j->block[which],
                          .part = at % j->row_parts};
}

static void job_item(void *ctx, size_t i, size_t worker)
{
    const struct job *j = ctx;
    const struct batch *b = j->b;
    const struct place p = job_place(j, i);
    const size_t rows = (j->rows->n + j->row_parts - 1) / j->row_parts, row0 = p.part * rows,
                 left = row0 < j->rows->n ? j->rows->n - row0 : 0;
    struct zo_ahead ahead = {0};
    if (i + b->n_workers < j->n_items) { /* most likely this worker's next */
        const struct place next = job_place(j, i + b->n_workers);
        ahead = zo_lin_ahead(b, next.l, next.out0, next.n_out);
    }
    if (left > 0)
        zo_lin_block_run(b, p.l, j->rows->pass0, p.out0, p.n_out, row0, left < rows ? left : rows,
                         p.l->y + row0 * p.l->ldy + p.out0, p.l->ldy,
                         b->scratch + worker * b->scratch_each, NULL, ahead);
}

void zo_lin_run(struct batch *b, const struct rows *rows, const struct lin *lins, size_t n)
{
    struct job j = {.b = b, .rows = rows, .lins = lins, .row_parts = 1};
    size_t blocks = 0;
    ENSURE(n >= 1 && n <= MAX_LINS);
    for (size_t i = 0; i < n; i++) {
        j.block[i] = zo_lin_block(lins[i].n_out, b->n_workers);
        blocks += (lins[i].n_out + j.block[i] - 1) / j.block[i];
    }
    /* More workers than blocks: split the rows too, though each part converts the block again. */
    if (blocks < b->n_workers && !is_dense(b)) {
        const size_t parts = (b->n_workers + blocks - 1) / blocks,
                     most = (rows->n + CHUNK_ROWS - 1) / CHUNK_ROWS;
        j.row_parts = parts < most ? parts : most > 0 ? most : 1;
    }
    for (size_t i = 0; i < n; i++)
        j.first[i + 1] = j.first[i] + (lins[i].n_out + j.block[i] - 1) / j.block[i] * j.row_parts;
    for (size_t i = n; i < MAX_LINS; i++)
        j.first[i + 1] = SIZE_MAX;
    j.n_items = j.first[n];
    zo_pool_run(b->pool, j.n_items, job_item, &j);
    zo_lora_run(b, rows, lins, n);
}
