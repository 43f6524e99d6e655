/* zo/cuda/head.c -- from the last layer to (max, sum of exp, target's logit) of every counted token, a chunk of the vocabulary
 * at a time: no matrix of rows x vocabulary exists. */
#include "zo/cuda/forward.h"

/* The matrix between the layers and the vocabulary, where there is one: y -> hx, h. */
static enum err middle(struct cuda_forward *f, bool dense)
{
    const struct config *c = &f->b->m->c;
    const uint32_t width = dense ? c->d : c->d_embed;
    const struct cuda_lin l = zo_cuda_lin(f, 0, dense ? SLOT_HEAD_DENSE_W : SLOT_PROJECT_OUT,
                                          dense ? SLOT_HEAD_DENSE_B : SLOT_END, c->d, width);
    TRY(zo_cuda_dots(f, &f->head, &l, 1, f->h, c->d));
    TRY(zo_cuda_product(f, &f->head, &l, 0, width, f->h, c->d, f->y, width));
    const struct k_part part = zo_cuda_part(f, &f->head, &l, 0, 0);
    if (!dense)
        return zo_cuda_finish(f, &f->head, &part, 1, f->y, width, NULL, 0, false, f->h);
    struct k_act k = {.row_pass = f->head.row_pass, .n_rows = f->head.n, .ffn = width, .act = c->head_act,
                      .type = f->d->type, .n_parts = 1, .y = f->y, .ldy = width, .out = f->h, .out32 = f->hx};
    k.part[0] = part;
    TRY(zo_cuda_launch_n(f->d, ZO_CUDA_K_act, (uint64_t)f->head.n * width, 1, &k));
    if (!param_there(&f->b->m->global[SLOT_HEAD_NORM_W]))
        return ERR_OK;
    return zo_cuda_norm(f, &f->head, NULL, f->hx, f->vec[SLOT_HEAD_NORM_W], f->vec[SLOT_HEAD_NORM_B], width, NULL, false,
                        f->h);
}

enum err zo_cuda_head(struct cuda_forward *f)
{
    const struct config *c = &f->b->m->c;
    const struct param *g = f->b->m->global;
    const bool narrow = c->d_embed != c->d && c->task == TASK_CAUSAL, dense = param_there(&g[SLOT_HEAD_DENSE_W]);
    const uint32_t n_out = c->task == TASK_CLASSIFY ? c->n_labels : c->vocab, n_in = narrow ? c->d_embed : c->d;
    TRY(zo_cuda_draw(f, 0, SLOT_PROJECT_OUT, SLOT_END));
    TRY(zo_cuda_norm(f, &f->head, f->targets, f->x, f->vec[SLOT_FINAL_W], f->vec[SLOT_FINAL_B], c->d, NULL, false, f->h));
    if (dense || narrow)
        TRY(middle(f, dense));
    const struct cuda_lin l = zo_cuda_lin(f, 0, SLOT_HEAD_W, SLOT_HEAD_B, n_in, n_out);
    TRY(zo_cuda_dots(f, &f->head, &l, 1, f->h, n_in));
    struct k_head k = {.row_pass = f->head.row_pass, .ids = f->target_ids, .n_rows = f->head.n, .cap = c->final_cap,
                       .part = zo_cuda_part(f, &f->head, &l, 0, 0), .logits = f->logits, .max = f->max,
                       .target = f->target, .sum = f->sum};
    if (k.part.bias)
        k.part.n = (uint32_t)g[SLOT_HEAD_B].rows; /* more may be stored than are used */
    const uint32_t most = zo_cuda_busy(f->d), blocks = f->head.n < most ? f->head.n : most;
    for (k.col0 = 0; k.col0 < n_out; k.col0 += CUDA_VOCAB_CHUNK) {
        k.n = n_out - k.col0 < CUDA_VOCAB_CHUNK ? n_out - k.col0 : CUDA_VOCAB_CHUNK;
        k.first = k.col0 == 0;
        TRY(zo_cuda_product(f, &f->head, &l, k.col0, k.n, f->h, n_in, f->logits, k.n));
        TRY(zo_cuda_launch(f->d, ZO_CUDA_K_head, blocks, 1, 0, &k));
    }
    return ERR_OK;
}
