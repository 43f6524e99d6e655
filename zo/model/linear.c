/* zo/model/linear.c -- matrix products of all passes at once, each pass along its own direction.
 *
 *     rank 1    y = x W^T + s a^T + bias,  s = eps (x . b): the plain product once for all passes,
 * the rank-1 term and the bias are what y is set to before the product is added, so that they cost
 * no extra pass dense     y = x (W + eps z)^T, a block of W + eps z at a time in the worker's
 * scratch
 *
 * Work is split into blocks of W's outputs: each block is converted from integers to float once,
 * into scratch that stays in cache, and used at once for all rows. */
#include "zo/model/batch.h"

#include <cblas.h>
#include <string.h>

enum { BLOCK_MIN = 128, BLOCK_MAX = 512, BLOCK_ELEMENTS = 1 << 20 };

size_t zo_lin_block(size_t n_in, size_t n_out, size_t n_workers)
{
    size_t block = ((n_out + n_workers - 1) / n_workers + 31) & ~(size_t)31;
    const size_t fits = BLOCK_ELEMENTS / n_in & ~(size_t)31;
    block = block < BLOCK_MIN ? BLOCK_MIN : block > BLOCK_MAX ? BLOCK_MAX : block;
    if (block > fits)
        block = fits < 32 ? 32 : fits;
    return block < n_out ? block : n_out;
}

static bool is_dense(const struct batch *b)
{
    return b->perturbed && b->m->state && b->m->state->rules->direction != ZO_RANK1;
}

/* Floats a worker needs for a block: the weights (dense: also z and W + z), one bias, one factor.
 */
size_t zo_lin_scratch(const struct batch *b, size_t n_in, size_t n_out)
{
    const size_t block = zo_lin_block(n_in, n_out, b->n_workers);
    const size_t plain = block * n_in * (is_dense(b) ? 3 : 1) + 2 * block + n_in,
                 lora = zo_lora_scratch(b, n_in, n_out);
    return plain > lora ? plain : lora;
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

/* y of one pass's rows before the product: what is there, bias, rank-1 term. */
static void block_start(const struct batch *b, const struct lin *l, size_t pass, size_t out0,
                        size_t n_out, size_t row0, size_t n_rows, float *y, size_t ldy, float *bias,
                        float *factor)
{
    const struct zo_pass *z = &b->passes[pass];
    const bool rank1 = moves(b, l->w, pass) && !is_dense(b), has_bias = l->b && param_there(l->b);
    if (has_bias)
        zo_pass_vector(b, l->b, pass, out0, bias, n_out);
    if (rank1 && l->transposed)
        zo_direction_b_f32(factor, z->key, z->seq, (uint32_t)l->w->state, out0, n_out, b->k);
    else if (rank1)
        zo_direction_a_f32(factor, z->key, z->seq, (uint32_t)l->w->state, out0, n_out, b->k);
    for (size_t r = 0; r < n_rows; r++)
        b->ops->axpy(y + r * ldy, has_bias ? bias : NULL, rank1 ? l->dots[row0 + r] : 0.0f,
                     rank1 ? factor : NULL, n_out, l->add);
}

/* The block of W as floats, (n_out, n_in) or transposed (n_in, n_out); *ld its row stride. */
static const float *block_weights(const struct batch *b, const struct lin *l, size_t out0,
                                  size_t n_out, float *w, size_t *ld)
{
    const float *direct = zo_weights_direct(l->w);
    const size_t all = (size_t)l->w->cols;
    if (direct) {
        *ld = all;
        return l->transposed ? direct + out0 : direct + out0 * all;
    }
    *ld = l->transposed ? n_out : all;
    if (!l->transposed)
        zo_weights_read(b->m, l->w, out0 * all, w, n_out * all, b->ops);
    for (size_t i = 0; l->transposed && i < l->n_in; i++)
        zo_weights_read(b->m, l->w, i * all + out0, w + i * n_out, n_out, b->ops);
    return w;
}

/* z of the block times scale, laid out as block_weights does when it copies. */
static void block_direction(const struct batch *b, const struct lin *l, size_t pass, size_t out0,
                            size_t n_out, float *z, float scale)
{
    const struct zo_pass *p = &b->passes[pass];
    const struct zo_rules *rules = b->m->state->rules;
    const uint32_t t = (uint32_t)l->w->state;
    if (!l->transposed) {
        zo_direction_rows_f32(z, rules, t, p->key, p->seq, out0, n_out, scale, false, b->k);
        return;
    }
    const bool gauss = rules->direction == ZO_GAUSSIAN;
    const struct zo_stream s =
        zo_stream(p->key, gauss ? ZO_DOMAIN_GAUSS : ZO_DOMAIN_DENSE, t, p->seq);
    for (size_t i = 0; i < l->n_in; i++)
        (gauss ? zo_gauss_f32 : zo_signs_f32)(z + i * n_out, &s, i * l->w->cols + out0, n_out,
                                              scale, false, b->k);
}

static void product(const struct lin *l, const float *w, size_t ldw, size_t n_out, size_t row0,
                    size_t n_rows, float *y, size_t ldy)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, l->transposed ? CblasNoTrans : CblasTrans,
                (blasint)n_rows, (blasint)n_out, (blasint)l->n_in, 1.0f, l->x + row0 * l->ldx,
                (blasint)l->ldx, w, (blasint)ldw, 1.0f, y, (blasint)ldy);
}

/* Dense kinds: W + z per pass.  Passes that follow each other along one direction with opposite eps
 * share z. */
static void block_dense(const struct batch *b, const struct lin *l, const size_t *pass0,
                        size_t out0, size_t n_out, size_t row0, size_t n_rows, float *y, size_t ldy,
                        const float *w, size_t ldw, float *z)
{
    float *wz = z + n_out * l->n_in;
    const size_t lines = l->transposed ? l->n_in : n_out, width = l->transposed ? n_out : l->n_in;
    const struct zo_pass *held = NULL;
    for (size_t p = 0; p < b->n_passes; p++) {
        const size_t from = pass0[p] > row0 ? pass0[p] : row0,
                     to = pass0[p + 1] < row0 + n_rows ? pass0[p + 1] : row0 + n_rows;
        const struct zo_pass *pass = &b->passes[p];
        if (from >= to)
            continue;
        float *out = y + (from - row0) * ldy;
        if (!moves(b, l->w, p)) {
            product(l, w, ldw, n_out, from, to - from, out, ldy);
            continue;
        }
        if (!held || held->seq != pass->seq || held->key[0] != pass->key[0] ||
            held->key[1] != pass->key[1]) {
            block_direction(b, l, p, out0, n_out, z, 1.0f);
            held = pass;
        }
        for (size_t i = 0; i < lines; i++)
            b->ops->axpy(wz + i * width, w + i * ldw, pass->eps, z + i * width, width, false);
        product(l, wz, width, n_out, from, to - from, out, ldy);
    }
}

/* plain: NULL, or the caller keeps the block's weights there from one call to the next (same block,
 * more rows). */
void zo_lin_block_run(const struct batch *b, const struct lin *l, const size_t *pass0, size_t out0,
                      size_t n_out, size_t row0, size_t n_rows, float *y, size_t ldy,
                      float *scratch, const float **plain)
{
    float *bias = scratch, *factor = bias + n_out, *w = factor + n_out;
    for (size_t p = 0; p < b->n_passes; p++) {
        const size_t from = pass0[p] > row0 ? pass0[p] : row0,
                     to = pass0[p + 1] < row0 + n_rows ? pass0[p + 1] : row0 + n_rows;
        if (from < to)
            block_start(b, l, p, out0, n_out, from, to - from, y + (from - row0) * ldy, ldy, bias,
                        factor);
    }
    size_t ldw = l->transposed && !zo_weights_direct(l->w) ? n_out : (size_t)l->w->cols;
    const float *weights = plain && *plain ? *plain : block_weights(b, l, out0, n_out, w, &ldw);
    if (plain)
        *plain = weights;
    if (is_dense(b) && l->w->state >= 0)
        block_dense(b, l, pass0, out0, n_out, row0, n_rows, y, ldy, weights, ldw,
                    w + n_out * l->n_in);
    else
        product(l, weights, ldw, n_out, row0, n_rows, y, ldy);
}

/* ---- splitting over the pool ---- */

struct job {
    struct batch *b;
    const struct rows *rows;
    const struct lin *lins;
    size_t first[MAX_LINS + 1]; /* first item of each lin */
    size_t block[MAX_LINS], row_parts;
};

static void job_item(void *ctx, size_t i, size_t worker)
{
    const struct job *j = ctx;
    size_t which = 0;
    while (i >= j->first[which + 1])
        which++;
    const struct lin *l = &j->lins[which];
    const size_t at = i - j->first[which], out0 = at / j->row_parts * j->block[which],
                 n_out = l->n_out - out0 < j->block[which] ? l->n_out - out0 : j->block[which],
                 part = (j->rows->n + j->row_parts - 1) / j->row_parts,
                 row0 = at % j->row_parts * part,
                 n_rows = row0 >= j->rows->n         ? 0
                          : j->rows->n - row0 < part ? j->rows->n - row0
                                                     : part;
    if (n_rows > 0)
        zo_lin_block_run(j->b, l, j->rows->pass0, out0, n_out, row0, n_rows,
                         l->y + row0 * l->ldy + out0, l->ldy,
                         j->b->scratch + worker * j->b->scratch_each, NULL);
}

void zo_lin_run(struct batch *b, const struct rows *rows, const struct lin *lins, size_t n)
{
    struct job j = {.b = b, .rows = rows, .lins = lins, .row_parts = 1};
    size_t blocks = 0;
    ENSURE(n >= 1 && n <= MAX_LINS);
    for (size_t i = 0; i < n; i++) {
        j.block[i] = zo_lin_block(lins[i].n_in, lins[i].n_out, b->n_workers);
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
    zo_pool_run(b->pool, j.first[n], job_item, &j);
    zo_lora_run(b, rows, lins, n);
}
