/* zo/cuda/forward.h -- private: one batch on the device, as forward.c, linear.c and head.c of zo/cuda share it. */
#ifndef ZO_CUDA_FORWARD_H
#define ZO_CUDA_FORWARD_H
#include "zo/cuda/cuda.h"

enum { CUDA_VOCAB_CHUNK = 8192 }; /* logits are made for so many entries at a time */

/* Rows sorted by pass: of the layers, or those that reach the head. */
struct cuda_rows {
    uint32_t n;
    const uint32_t *row_pass; /* on the device */
    const size_t *pass0;      /* here */
};

/* Signs of both sides of a matrix along every pass: NULL where it does not move, or moves densely. */
struct cuda_signs {
    const uint32_t *in, *out;
    uint32_t in_words, out_words; /* per pass */
};

struct cuda_lin {
    const struct param *w;
    const float *bias; /* (passes, n_out) or NULL */
    uint64_t n_in, n_out;
    bool transposed;
    struct cuda_signs signs, lora_a, lora_b;
};

struct cuda_forward {
    struct zo_device *d;
    struct batch *b;
    struct zo_cuda_passes passes;
    struct cuda_rows body, head;
    const uint32_t *ids, *positions, *targets, *target_ids; /* targets: rows of the body */
    const struct k_attend_item *items;
    uint32_t n_items, tile; /* of the attention */
    enum zo_cuda_kernel attend;
    uint32_t attend_bytes;
    float *x, *y, *dots, *mid, *lora_dots; /* x: the residual; y: what a product leaves */
    void *h, *z, *mid_copy;                /* what a product reads, in d->type */
    float *hx, *logits, *max, *target;
    double *sum;
    void *results; /* sum, max, target: one after the other */
    /* Vectors and signs of one layer, or of what is outside the layers. */
    uint8_t *area;
    uint64_t area_bytes, area_at;
    const float *vec[SLOT_END];
    struct cuda_signs signs[SLOT_END], lora[SLOT_LAYER_END][2];
};

/* linear.c: for every tensor of slots [first, end) of this layer (or outside), its vectors or signs. */
NODISCARD enum err zo_cuda_draw(struct cuda_forward *f, uint32_t layer, enum slot first, enum slot end);
uint64_t zo_cuda_draw_bytes(const struct batch *b); /* a bound on the area */
struct cuda_lin zo_cuda_lin(const struct cuda_forward *f, uint32_t layer, enum slot w, enum slot bias, uint64_t n_in,
                            uint64_t n_out);
/* The rank-1 factors of up to three products of the same x. */
NODISCARD enum err zo_cuda_dots(struct cuda_forward *f, const struct cuda_rows *rows, const struct cuda_lin *l, size_t n,
                                const void *x, uint64_t ldx);
/* y (rows, ldy) <- x times stored outputs out0 .. out0 + n_out - 1 of l, dense directions and adapters included; bias and
 * rank-1 term are left to zo_cuda_part. */
NODISCARD enum err zo_cuda_product(struct cuda_forward *f, const struct cuda_rows *rows, const struct cuda_lin *l,
                                   uint64_t out0, uint64_t n_out, const void *x, uint64_t ldx, float *y, uint64_t ldy);
/* What product `which` of the last zo_cuda_dots adds to columns col0 .. */
struct k_part zo_cuda_part(const struct cuda_forward *f, const struct cuda_rows *rows, const struct cuda_lin *l,
                           size_t which, uint32_t col0);
/* y finished, and into x (added or not; NULL: in place) and a copy (NULL: none). */
NODISCARD enum err zo_cuda_finish(struct cuda_forward *f, const struct cuda_rows *rows, const struct k_part *parts,
                                  uint32_t n, float *y, uint64_t ldy, float *x, uint64_t ldx, bool add, void *copy);
/* norm of src with vectors w, b; w NULL: only what dst and copy say. */
NODISCARD enum err zo_cuda_norm(struct cuda_forward *f, const struct cuda_rows *rows, const uint32_t *gather,
                                const float *src, const float *w, const float *b, uint32_t d, float *dst, bool add,
                                void *copy);

NODISCARD enum err zo_cuda_layers(struct cuda_forward *f); /* layers.c: x <- the last layer's output */
NODISCARD enum err zo_cuda_head(struct cuda_forward *f);   /* head.c: max, sum, target */
#endif
