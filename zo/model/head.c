/* zo/model/head.c -- from the last layer to losses.  Only counted rows get here; their logits are
 * made a block of the vocabulary at a time and folded at once into (max, sum of exp), so no rows x
 * vocabulary matrix ever exists. */
#include "zo/model/batch.h"

#include <math.h>
#include <string.h>

struct pre { /* what happens to each counted row before a matrix */
    struct batch *b;
    bool gather; /* hx <- row of x */
    bool activate;
    const struct param *w, *bias;
    float *rows; /* in place */
    size_t width;
    const struct lin *lin;
};

static void pre_item(void *ctx, size_t i, size_t worker)
{
    const struct pre *s = ctx;
    struct batch *b = s->b;
    const struct config *c = &b->m->c;
    const struct chunk *k = &b->head.chunks[i];
    float *scratch = b->scratch + worker * b->scratch_each, *w = scratch, *bias = w + s->width;
    const bool has_bias = s->bias && param_there(s->bias);
    if (s->w)
        zo_pass_vector(b, s->w, k->pass, 0, w, s->width);
    if (has_bias)
        zo_pass_vector(b, s->bias, k->pass, 0, bias, s->width);
    for (size_t r = k->row0; r < k->row0 + k->n; r++) {
        float *row = s->rows + r * s->width;
        if (s->gather)
            memcpy(row, b->x + b->targets[r].row * c->d, c->d * sizeof *row);
        if (s->activate)
            b->ops->act(row, NULL, s->width, c->head_act);
        if (s->w)
            b->ops->norm(row, row, w, has_bias ? bias : NULL, s->width, b->m->arch->norm,
                         c->norm_eps);
    }
    if (s->lin)
        zo_lin_dots(b, k, s->lin, scratch);
}

static void run_pre(struct batch *b, struct pre s)
{
    s.b = b;
    zo_pool_run(b->pool, b->head.n_chunks, pre_item, &s);
}

struct vocab {
    struct batch *b;
    struct lin lin;
    size_t cols;
};

/* One block of the vocabulary for all counted rows, HEAD_ROWS of them at a time. */
static void vocab_item(void *ctx, size_t i, size_t worker)
{
    const struct vocab *v = ctx;
    struct batch *b = v->b;
    const size_t out0 = i * v->cols,
                 n_out = v->lin.n_out - out0 < v->cols ? v->lin.n_out - out0 : v->cols;
    float *logits = b->scratch + worker * b->scratch_each, *scratch = logits + HEAD_ROWS * v->cols;
    const struct zo_ahead none = {0};
    struct zo_ahead ahead =
        none; /* most likely this worker's next block, asked for with the last rows */
    bool packed = false;
    if (i + b->n_workers < b->n_blocks)
        ahead = zo_lin_ahead(b, &v->lin, (i + b->n_workers) * v->cols, v->cols);
    for (size_t row0 = 0; row0 < b->head.n; row0 += HEAD_ROWS) {
        const size_t n = b->head.n - row0 < HEAD_ROWS ? b->head.n - row0 : HEAD_ROWS;
        zo_lin_block_run(b, &v->lin, b->head.pass0, out0, n_out, row0, n, logits, n_out, scratch,
                         &packed, row0 + n < b->head.n ? none : ahead);
        for (size_t r = 0; r < n; r++) {
            float *row = logits + r * n_out;
            const size_t t = row0 + r, id = b->targets[t].id;
            if (b->m->c.final_cap > 0.0f)
                b->ops->softcap(row, n_out, b->m->c.final_cap);
            if (b->logits) {
                memcpy(b->logits + t * v->lin.n_out + out0, row, n_out * sizeof *row);
                continue;
            }
            b->ops->max_sum(row, n_out, &b->block_max[t * b->n_blocks + i],
                            &b->block_sum[t * b->n_blocks + i]);
            if (id >= out0 && id < out0 + n_out)
                b->target_logit[t] = row[id - out0];
        }
    }
}

void zo_head(struct batch *b)
{
    const struct config *c = &b->m->c;
    const struct param *g = b->m->global;
    const bool narrow = c->d_embed != c->d && c->task == TASK_CAUSAL,
               dense = param_there(&g[SLOT_HEAD_DENSE_W]);
    float *now = b->hx, *other = b->hh;
    struct lin mid = {.w = dense ? &g[SLOT_HEAD_DENSE_W] : &g[SLOT_PROJECT_OUT],
                      .b = dense ? &g[SLOT_HEAD_DENSE_B] : NULL,
                      .n_in = c->d,
                      .n_out = dense ? c->d : c->d_embed,
                      .x = now,
                      .ldx = c->d,
                      .y = other,
                      .ldy = dense ? c->d : c->d_embed,
                      .dots = b->dots};
    const bool has_mid = dense || narrow;
    struct vocab v = {
        .b = b, .cols = c->vocab > 65536 && c->task != TASK_CLASSIFY ? 2 * HEAD_COLS : HEAD_COLS};
    v.lin = (struct lin){.w = &g[SLOT_HEAD_W],
                         .b = &g[SLOT_HEAD_B],
                         .n_in = mid.n_out,
                         .n_out = c->task == TASK_CLASSIFY ? c->n_labels : c->vocab,
                         .x = has_mid ? other : now,
                         .dots = b->dots + b->head.n};
    if (!has_mid)
        v.lin.n_in = c->d;
    v.lin.ldx = v.lin.n_in;
    const struct param *fw = param_there(&g[SLOT_FINAL_W]) ? &g[SLOT_FINAL_W] : NULL;
    run_pre(b, (struct pre){.gather = true,
                            .w = fw,
                            .bias = &g[SLOT_FINAL_B],
                            .rows = now,
                            .width = c->d,
                            .lin = has_mid ? &mid : &v.lin});
    if (has_mid) {
        zo_lin_run(b, &b->head, &mid, 1);
        const struct param *nw = param_there(&g[SLOT_HEAD_NORM_W]) ? &g[SLOT_HEAD_NORM_W] : NULL;
        run_pre(b, (struct pre){.activate = dense,
                                .w = nw,
                                .bias = &g[SLOT_HEAD_NORM_B],
                                .rows = other,
                                .width = mid.n_out,
                                .lin = &v.lin});
    }
    zo_pool_run(b->pool, b->n_blocks, vocab_item, &v);
}

/* -log p of one counted token, in double. */
static double target_nats(const struct batch *b, size_t t)
{
    const float *max = b->block_max + t * b->n_blocks;
    const double *sum = b->block_sum + t * b->n_blocks;
    double top = (double)max[0];
    for (size_t i = 1; i < b->n_blocks; i++)
        top = (double)max[i] > top ? (double)max[i] : top;
    double total = sum[0] * exp((double)max[0] - top);
    for (size_t i = 1; i < b->n_blocks; i++)
        total += sum[i] * exp((double)max[i] - top);
    return log(total) + top - (double)b->target_logit[t];
}

/* Choices: score = mean log p of each; loss = -log softmax(score) [label]. */
static void choices_loss(struct zo_loss *out, const struct zo_example *e, const struct run *runs)
{
    double top = -INFINITY, total = 0.0;
    uint32_t best = 0;
    for (uint32_t i = 0; i < e->n_seqs; i++) {
        const double score = -runs[i].nats / runs[i].counted;
        best = score > top ? i : best;
        top = score > top ? score : top;
    }
    for (uint32_t i = 0; i < e->n_seqs; i++)
        total += exp(-runs[i].nats / runs[i].counted - top);
    out->loss = log(total) + top + runs[e->label].nats / runs[e->label].counted;
    out->correct = best == (uint32_t)e->label;
}

/* A classifier is right when no label's logit is above the true one's. */
static int32_t label_is_best(const struct batch *b, size_t t)
{
    for (size_t i = 0; i < b->n_blocks; i++)
        if (!(b->block_max[t * b->n_blocks + i] <= b->target_logit[t]))
            return 0;
    return 1;
}

void zo_batch_losses(struct batch *b, struct zo_loss *out)
{
    const struct run *runs = b->runs;
    for (size_t t = 0; t < b->n_targets; t++) {
        b->runs[b->targets[t].run].nats += target_nats(b, t);
        b->runs[b->targets[t].run].counted++;
    }
    for (size_t p = 0; p < b->n_passes; p++) {
        const struct zo_example *e = b->passes[p].example;
        out[p] = (struct zo_loss){.correct = -1};
        for (uint32_t i = 0; i < e->n_seqs; i++) {
            out[p].nats += runs[i].nats;
            out[p].n_tokens += runs[i].counted;
        }
        if (e->n_seqs > 1)
            choices_loss(&out[p], e, runs);
        else
            out[p].loss =
                runs[0].nats / runs[0].counted; /* nothing counted: 0 / 0, a void measurement */
        if (b->m->c.task == TASK_CLASSIFY)
            out[p].correct = label_is_best(b, b->head.pass0[p]);
        if (!isfinite(out[p].loss))
            out[p].loss = NAN;
        runs += e->n_seqs;
    }
}
