/* zo/model/batch.c -- lays out a batch: which rows there are, whose they are, what is shared, and
 * memory for all of it.
 *
 * A causal model's last token predicts nothing, so it gets no row; a sequence that begins like its
 * example's first one (choices after one prompt) gets rows only from where they part. */
#include "zo/model/batch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_BYTES = 2 << 20 };

/* Positions of a sequence that are computed. */
static uint32_t seq_positions(const struct zo_model *m, const struct zo_seq *s, bool every_row)
{
    return m->c.causal && !every_row && s->n > 0 ? s->n - 1 : s->n;
}

/* Leading positions that sequence i of the example shares with its first sequence. */
static uint32_t seq_shared(const struct zo_model *m, const struct zo_example *e, uint32_t i)
{
    if (i == 0 || !m->c.causal)
        return 0;
    const uint32_t first = seq_positions(m, &e->seqs[0], false),
                   own = seq_positions(m, &e->seqs[i], false);
    uint32_t n = 0;
    while (n < first && n < own && e->seqs[0].ids[n] == e->seqs[i].ids[n])
        n++;
    return n;
}

size_t zo_batch_pass_rows(const struct zo_model *m, const struct zo_pass *pass, bool every_row)
{
    size_t n = 0;
    for (uint32_t i = 0; i < pass->example->n_seqs; i++)
        n += seq_positions(m, &pass->example->seqs[i], every_row) - seq_shared(m, pass->example, i);
    return n;
}

static size_t row_floats(const struct zo_model *m)
{
    const struct config *c = &m->c;
    const size_t wide = c->d > c->d_embed ? c->d : c->d_embed;
    return c->d + wide + (size_t)(c->heads + 2 * c->kv_heads) * c->head_dim +
           (size_t)c->heads * c->head_dim + (m->arch->gated ? 2u : 1u) * (size_t)c->ffn + MAX_LINS;
}

size_t zo_batch_row_bytes(const struct zo_model *m)
{
    const size_t wide = m->c.d > m->c.d_embed ? m->c.d : m->c.d_embed;
    return sizeof(float) * (row_floats(m) + 2 * wide) + 32;
}

static size_t counted_targets(const struct zo_model *m, const struct zo_example *e, bool every_row)
{
    size_t n = 0;
    if (m->c.task == TASK_CLASSIFY)
        return 1;
    for (uint32_t i = 0; i < e->n_seqs; i++)
        for (uint32_t j = every_row || !m->c.causal ? 0 : 1; j < e->seqs[i].n; j++)
            n += every_row || e->seqs[i].counted[j];
    return n;
}

/* A bound on what any item of this batch needs as scratch. */
static size_t scratch_floats(const struct batch *b)
{
    const struct config *c = &b->m->c;
    const size_t q = (size_t)c->heads * c->head_dim, kv = (size_t)c->kv_heads * c->head_dim,
                 wide = c->d + c->d_embed;
    const size_t shapes[][2] = {{c->d, q},         {c->d, kv},     {c->d, q + 2 * kv},
                                {q, c->d},         {c->d, c->ffn}, {c->d, 2 * (size_t)c->ffn},
                                {c->ffn, c->d},    {c->d, c->d},   {c->d_embed, c->d},
                                {c->d, c->d_embed}};
    /* attention: scores; keys, values and a gathered copy of one of them, rounded up */
    size_t most = ATTEND_ROWS * ATTEND_LD(b->longest) +
                  3 * zo_gemm_floats(b->longest, zo_gemm_floats(c->head_dim, 1));
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        const size_t need = zo_lin_scratch(b, shapes[i][0], shapes[i][1]);
        most = need > most ? need : most;
    }
    const size_t cols = 2 * HEAD_COLS,
                 head = cols * HEAD_ROWS +
                        zo_lin_block_scratch(b, c->d > c->d_embed ? c->d : c->d_embed, cols);
    const size_t vectors = 4 * wide + 2 * q + c->ffn;
    most = head > most ? head : most;
    return ((most > vectors ? most : vectors) + 63) & ~(size_t)63;
}

/* Hands out 64-byte aligned pieces; base NULL only counts. */
struct carver {
    uint8_t *base;
    size_t at;
};

static void *carve(struct carver *c, size_t n, size_t each)
{
    void *p = c->base ? c->base + c->at : NULL;
    c->at += (n * each + 63) & ~(size_t)63;
    return p;
}

static void carve_all(struct batch *b, struct carver *c, size_t n_targets_chunks)
{
    const struct config *f = &b->m->c;
    const size_t n = b->body.n, t = b->n_targets, wide = f->d > f->d_embed ? f->d : f->d_embed,
                 q = (size_t)f->heads * f->head_dim, kv = (size_t)f->kv_heads * f->head_dim;
    b->body.pass0 = carve(c, b->n_passes + 1, sizeof *b->body.pass0);
    b->head.pass0 = carve(c, b->n_passes + 1, sizeof *b->head.pass0);
    b->body.chunks = carve(c, b->body.n_chunks, sizeof *b->body.chunks);
    b->head.chunks = carve(c, n_targets_chunks, sizeof *b->head.chunks);
    b->runs = carve(c, b->n_runs, sizeof *b->runs);
    b->targets = carve(c, t, sizeof *b->targets);
    b->ids = carve(c, n, sizeof *b->ids);
    b->positions = carve(c, n, sizeof *b->positions);
    const size_t here = b->on_device ? 0 : n, head = b->on_device ? 0 : t; /* rows of activations in our memory */
    b->x = carve(c, here * f->d, sizeof(float));
    b->h = carve(c, here * wide, sizeof(float));
    b->qkv = carve(c, here * (q + 2 * kv), sizeof(float));
    b->att = carve(c, here * q, sizeof(float));
    b->ff = carve(c, here * f->ffn * (b->m->arch->gated ? 2 : 1), sizeof(float));
    b->dots = carve(c, (here > head ? here : head) * MAX_LINS, sizeof(float));
    b->hx = carve(c, head * wide, sizeof(float));
    b->hh = carve(c, head * wide, sizeof(float));
    b->target_logit = carve(c, t, sizeof(float));
    b->block_max = carve(c, b->every_row ? 0 : t * b->n_blocks, sizeof(float));
    b->block_sum = carve(c, b->every_row ? 0 : t * b->n_blocks, sizeof(double));
    b->scratch = carve(c, b->n_workers * b->scratch_each, sizeof(float));
}

static size_t chunk_rows(struct rows *rows, size_t n_passes)
{
    size_t n = 0;
    for (size_t p = 0; p < n_passes; p++)
        for (size_t at = rows->pass0[p]; at < rows->pass0[p + 1]; at += CHUNK_ROWS) {
            const size_t left = rows->pass0[p + 1] - at;
            struct chunk *c = &rows->chunks[n++];
            c->pass = p;
            c->row0 = at;
            c->n = left < CHUNK_ROWS ? left : CHUNK_ROWS;
        }
    return n;
}

/* Rows of one sequence, and its counted tokens. */
static void fill_run(struct batch *b, const struct run *r, size_t *n_targets)
{
    const struct config *c = &b->m->c;
    for (uint32_t i = r->shared; i < r->n; i++) {
        const size_t row = r->row0 + i - r->shared;
        const bool masked = c->task == TASK_MASKED && !b->every_row && r->seq->counted[i];
        b->ids[row] = masked ? c->mask_id : r->seq->ids[i];
        b->positions[row] = i;
    }
    if (c->task == TASK_CLASSIFY)
        return;
    for (uint32_t j = b->every_row || !c->causal ? 0 : 1; j < r->seq->n; j++) {
        const uint32_t from =
            c->causal && !b->every_row ? j - 1 : j; /* the position that predicts token j */
        if (!b->every_row && !r->seq->counted[j])
            continue;
        b->targets[(*n_targets)++] = (struct target){
            .row = from < r->shared ? r->shared_row0 + from : r->row0 + from - r->shared,
            .run = (size_t)(r - b->runs),
            .id = b->every_row ? 0 : r->seq->ids[j],
        };
    }
}

static void fill(struct batch *b)
{
    size_t row = 0, run = 0, target = 0;
    for (size_t p = 0; p < b->n_passes; p++) {
        const struct zo_example *e = b->passes[p].example;
        const size_t first_row = row;
        b->body.pass0[p] = row;
        b->head.pass0[p] = target;
        for (uint32_t i = 0; i < e->n_seqs; i++) {
            struct run *r = &b->runs[run++];
            *r = (struct run){.pass = p, .row0 = row, .shared_row0 = first_row, .seq = &e->seqs[i]};
            r->n = seq_positions(b->m, r->seq, b->every_row);
            r->shared = b->caches ? b->caches[p]->n : seq_shared(b->m, e, i);
            row += r->n - r->shared;
            fill_run(b, r, &target);
        }
        if (b->m->c.task == TASK_CLASSIFY)
            b->targets[target++] =
                (struct target){.row = first_row, .run = run - 1, .id = (uint32_t)e->label};
    }
    b->body.pass0[b->n_passes] = row;
    b->head.pass0[b->n_passes] = target;
    ENSURE(row == b->body.n && target == b->n_targets && run == b->n_runs);
    b->body.n_chunks = chunk_rows(&b->body, b->n_passes);
    b->head.n_chunks = chunk_rows(&b->head, b->n_passes);
}

enum err zo_batch_plan(struct batch *b, const struct zo_pass *passes, size_t n)
{
    const struct config *c = &b->m->c;
    size_t head_chunks = 0;
    b->passes = passes;
    b->n_passes = n;
    b->body.n = b->n_runs = b->n_targets = b->body.n_chunks = b->longest = 0;
    b->perturbed = false;
    for (size_t p = 0; p < n; p++) {
        const size_t rows = zo_batch_pass_rows(b->m, &passes[p], b->every_row) -
                            (b->caches ? b->caches[p]->n : 0),
                     targets = counted_targets(b->m, passes[p].example, b->every_row);
        b->body.n += rows;
        b->n_targets += targets;
        b->n_runs += passes[p].example->n_seqs;
        b->body.n_chunks += rows / CHUNK_ROWS + 1;
        head_chunks += targets / CHUNK_ROWS + 1;
        b->perturbed = b->perturbed || passes[p].eps != 0.0f;
        for (uint32_t i = 0; i < passes[p].example->n_seqs; i++)
            b->longest = passes[p].example->seqs[i].n > b->longest ? passes[p].example->seqs[i].n
                                                                   : b->longest;
    }
    b->head.n = b->n_targets;
    const size_t vocab = c->task == TASK_CLASSIFY ? c->n_labels : c->vocab,
                 cols = vocab > 65536 ? 2 * HEAD_COLS : HEAD_COLS;
    b->n_blocks = b->on_device ? 1 : (vocab + cols - 1) / cols;
    b->scratch_each = b->on_device ? 0 : scratch_floats(b);
    TRY(zo_rope_grow(b->m, b->longest));
    struct carver counting = {0};
    carve_all(b, &counting, head_chunks);
    if (counting.at > b->arena_bytes) {
        const size_t align = counting.at >= HUGE_BYTES ? HUGE_BYTES : 64,
                     bytes = (counting.at + align - 1) & ~(align - 1);
        void *fresh = aligned_alloc(align, bytes);
        if (!fresh)
            return ERR_NOMEM;
        if (align == HUGE_BYTES) /* only a wish: rows of a tile lie on many pages */
            (void)madvise(fresh, bytes, MADV_HUGEPAGE);
        free(b->arena);
        b->arena = fresh;
        b->arena_bytes = bytes;
    }
    struct carver real = {.base = b->arena};
    carve_all(b, &real, head_chunks);
    fill(b);
    return ERR_OK;
}

void zo_batch_free(struct batch *b)
{
    if (b)
        free(b->arena);
    free(b);
}
