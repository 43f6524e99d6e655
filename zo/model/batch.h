/* zo/model/batch.h -- one batched forward pass: every row (token position) of every pass, stacked
 * without padding. */
#ifndef ZO_MODEL_BATCH_H
#define ZO_MODEL_BATCH_H
#include "zo/model/internal.h"

#include <onebyte/zo/direction.h>

enum {
    CHUNK_ROWS = 64,          /* rows of one item of row-wise work: all of one pass */
    QUERY_ROWS = 256,         /* attention packs its keys for so many queries .. */
    ATTEND_ROWS = 32,         /* .. and makes scores for so many at a time */
    HEAD_ROWS = 128,          /* logits are made for so many counted rows .. */
    HEAD_COLS = ZO_GEMM_COLS, /* .. times so many vocabulary entries at a time (twice that above
                                 65536 entries) */
    MAX_LINS = 3,
};

#define ATTEND_LD(n_keys) (((n_keys) + 15) & ~(size_t)15) /* floats of a row of scores */

/* Rows of one pass, at most CHUNK_ROWS. */
struct chunk {
    size_t pass, row0, n;
};

/* Rows sorted by pass: those of the layers, or those that reach the head. */
struct rows {
    size_t n, n_chunks;
    size_t *pass0; /* [n_passes + 1] first row of each pass */
    struct chunk *chunks;
};

/* One sequence of one pass.  Its first `shared` positions are rows of the example's first sequence,
 * computed once: with causal attention equal prefixes have equal activations. */
struct run {
    size_t pass, row0, shared_row0;
    uint32_t shared, n; /* positions; n - shared rows are its own */
    const struct zo_seq *seq;
    double nats; /* of its counted tokens, once the head has run */
    uint32_t counted;
};

/* One counted token: the row whose logits predict it. */
struct target {
    size_t row, run;
    uint32_t id;
};

/* y (rows, n_out) <- (add ? y : 0) + x W^T + b, each pass with its own perturbed W and b. */
struct lin {
    const struct param *w, *b;
    size_t n_in, n_out;
    bool transposed, add;
    const float *x;
    size_t ldx;
    float *y;
    size_t ldy;
    float *dots; /* [rows] eps * (x . b): the rank-1 term's factor */
};

/* model.h; the layers' rows lie one after the other, (layers, capacity, width). */
struct zo_cache {
    const struct zo_model *m;
    uint32_t n, capacity; /* tokens */
    uint32_t *ids;        /* [capacity + 1] */
    uint8_t *counted;     /* [capacity + 1] all 0 between calls */
    float *rows;
    size_t skip, width; /* floats: a row is a row of qkv without its first `skip`, the queries */
};

struct batch {
    struct zo_model *m;
    const struct zo_ops *ops;
    const struct zo_kernels *k;
    struct zo_pool *pool;
    const struct zo_pass *passes;
    size_t n_passes, n_workers, n_runs, n_targets, n_blocks, longest;
    struct zo_cache *const *caches; /* [n_passes] each pass goes on where its cache ends; or NULL */
    bool perturbed; /* some pass has eps != 0 */
    bool every_row; /* logits of every position are asked for */
    bool on_device; /* layout only: activations are elsewhere (zo/cuda), n_blocks is 1 */
    struct rows body, head;
    struct run *runs;
    struct target *targets;
    uint32_t *ids, *positions;                 /* [body.n] */
    float *x, *h, *qkv, *att, *ff, *dots;      /* body.n rows */
    float *hx, *hh, *target_logit, *block_max; /* head.n rows; block_max (head.n, n_blocks) */
    double *block_sum;
    float *logits;  /* where the head's logits go; NULL: into losses */
    float *scratch; /* n_workers of scratch_each floats */
    size_t scratch_each;
    void *arena;
    size_t arena_bytes;
};

/* model.c: whether a pass can be run. */
NODISCARD enum err zo_pass_check(const struct zo_model *m, const struct zo_pass *p);

/* batch.c: lays out passes [n] in b (all of them), or says why not. */
NODISCARD enum err zo_batch_plan(struct batch *b, const struct zo_pass *passes, size_t n);
size_t zo_batch_pass_rows(const struct zo_model *m, const struct zo_pass *pass, bool every_row);
size_t zo_batch_row_bytes(const struct zo_model *m);

/* model.c: what a batch is made with; logits NULL: losses are asked for. */
void zo_batch_start(struct zo_model *m, const struct zo_kernels *k, struct zo_pool *pool,
                    bool every_row, float *logits);

/* cache.c: keeps the keys and values of this layer's new rows. */
void zo_cache_keep(const struct batch *b, uint32_t layer);
float *zo_cache_row(const struct zo_cache *c, uint32_t layer, size_t position);

/* linear.c */
size_t zo_lin_block(size_t n_out, size_t n_workers);
size_t zo_lin_block_scratch(const struct batch *b, size_t n_in, size_t n_out);
size_t zo_lin_scratch(const struct batch *b, size_t n_in, size_t n_out);
void zo_lin_dots(const struct batch *b, const struct chunk *c, const struct lin *l, float *scratch);
void zo_lin_run(struct batch *b, const struct rows *rows, const struct lin *lins, size_t n);
/* out [n] <- elements first.. of vector p as pass sees them. */
void zo_pass_vector(const struct batch *b, const struct param *p, size_t pass, uint64_t first,
                    float *out, size_t n);
/* Adds the perturbed product of rows [row0, row0 + n) with stored rows out0 .. of W to y (ldy); see
 * linear.c. */
void zo_lin_block_run(const struct batch *b, const struct lin *l, const size_t *pass0, size_t out0,
                      size_t n_out, size_t row0, size_t n_rows, float *y, size_t ldy,
                      float *scratch, bool *packed, struct zo_ahead ahead);
/* Where the weights of that block lie. */
struct zo_ahead zo_lin_ahead(const struct batch *b, const struct lin *l, size_t out0, size_t n_out);

/* lora.c: y += scale B A x of the lins that have adapters, each pass with its own perturbed A and B. */
void zo_lora_run(struct batch *b, const struct rows *rows, const struct lin *lins, size_t n);
size_t zo_lora_scratch(const struct batch *b, size_t n_in, size_t n_out);

/* forward.c */
void zo_forward(struct batch *b); /* x <- the last layer's output */
/* head.c */
void zo_head(struct batch *b); /* target_logit, block_max, block_sum; or logits */
void zo_batch_losses(struct batch *b, struct zo_loss *out);
#endif
