/* zo/cuda/losses.c -- zo_model_losses on the device: lays out a batch there, runs it, brings the losses back. */
#include "zo/cuda/forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct carver { /* hands out 256-byte aligned pieces; base NULL only counts */
    uint8_t *base;
    uint64_t at;
};

static void *carve(struct carver *c, uint64_t n, uint64_t each)
{
    void *p = c->base ? c->base + c->at : NULL;
    c->at += (n * each + 255) & ~(uint64_t)255;
    return p;
}

/* What goes there, as it lies here. */
struct upload {
    uint32_t *key0, *key1, *seq_lo, *seq_hi, *row_pass, *target_pass, *ids, *positions, *targets, *target_ids;
    float *eps;
    struct k_attend_item *items;
    uint8_t *memory;
    uint64_t bytes;
};

static uint64_t wide_of(const struct config *c)
{
    return c->d > c->d_embed ? c->d : c->d_embed;
}

static uint64_t most_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Floats a product may leave per row of the body, and what the next one may read. */
static uint64_t y_width(const struct zo_model *m)
{
    const struct config *c = &m->c;
    return most_of(most_of((uint64_t)(c->heads + 2 * c->kv_heads) * c->head_dim, (uint64_t)c->ffn * (m->arch->gated ? 2 : 1)),
                   wide_of(c));
}

static uint64_t z_width(const struct zo_model *m)
{
    return most_of((uint64_t)m->c.heads * m->c.head_dim, m->c.ffn);
}

static uint64_t vocab_of(const struct zo_model *m)
{
    return m->c.task == TASK_CLASSIFY ? m->c.n_labels : m->c.vocab;
}

static uint64_t chunk_of(const struct zo_model *m) /* logits of a row at a time */
{
    return vocab_of(m) < CUDA_VOCAB_CHUNK ? vocab_of(m) : CUDA_VOCAB_CHUNK;
}

static uint64_t row_bytes(const struct zo_device *d)
{
    const uint64_t type = zo_cuda_type_bytes(d->type), wide = wide_of(&d->model->c);
    return 4 * (d->model->c.d + y_width(d->model) + 2 * wide) + type * (wide + z_width(d->model)) +
           (uint64_t)d->model->lora_r * (4 + type) + 4 * chunk_of(d->model) + 64; /* a row may be a target */
}

static void carve_upload(struct upload *u, struct carver *c, const struct batch *b, uint32_t n_items)
{
    const size_t p = b->n_passes, n = b->body.n, t = b->n_targets;
    u->key0 = carve(c, p, 4);
    u->key1 = carve(c, p, 4);
    u->seq_lo = carve(c, p, 4);
    u->seq_hi = carve(c, p, 4);
    u->eps = carve(c, p, 4);
    u->row_pass = carve(c, n, 4);
    u->ids = carve(c, n, 4);
    u->positions = carve(c, n, 4);
    u->target_pass = carve(c, t, 4);
    u->targets = carve(c, t, 4);
    u->target_ids = carve(c, t, 4);
    u->items = carve(c, n_items, sizeof *u->items);
}

static uint32_t count_items(const struct batch *b, uint32_t tile)
{
    uint32_t n = 0;
    for (size_t r = 0; r < b->n_runs; r++)
        n += (b->runs[r].n - b->runs[r].shared + tile - 1) / tile;
    return n;
}

static void fill_upload(struct upload *u, const struct batch *b, uint32_t tile)
{
    uint32_t item = 0;
    for (size_t p = 0; p < b->n_passes; p++) {
        u->key0[p] = b->passes[p].key[0];
        u->key1[p] = b->passes[p].key[1];
        u->seq_lo[p] = (uint32_t)b->passes[p].seq;
        u->seq_hi[p] = (uint32_t)(b->passes[p].seq >> 32);
        u->eps[p] = b->passes[p].eps;
        for (size_t r = b->body.pass0[p]; r < b->body.pass0[p + 1]; r++)
            u->row_pass[r] = (uint32_t)p;
        for (size_t t = b->head.pass0[p]; t < b->head.pass0[p + 1]; t++)
            u->target_pass[t] = (uint32_t)p;
    }
    memcpy(u->ids, b->ids, b->body.n * 4);
    memcpy(u->positions, b->positions, b->body.n * 4);
    for (size_t t = 0; t < b->n_targets; t++) {
        u->targets[t] = (uint32_t)b->targets[t].row;
        u->target_ids[t] = b->targets[t].id;
    }
    for (size_t r = 0; r < b->n_runs; r++)
        for (uint32_t q = b->runs[r].shared; q < b->runs[r].n; q += tile)
            u->items[item++] = (struct k_attend_item){.row0 = (uint32_t)b->runs[r].row0,
                                                      .shared_row0 = (uint32_t)b->runs[r].shared_row0,
                                                      .shared = b->runs[r].shared,
                                                      .n = b->runs[r].n,
                                                      .q0 = q};
}

/* The largest tile whose pieces fit: see attend_body.cuh. */
static enum err choose_tile(struct cuda_forward *f)
{
    static const struct {
        enum zo_cuda_kernel kernel;
        uint32_t tile, head_dim;
    } sizes[] = {{ZO_CUDA_K_attend_64_4, 64, 64},
                 {ZO_CUDA_K_attend_64_8, 64, 128},
                 {ZO_CUDA_K_attend_32_8, 32, 128},
                 {ZO_CUDA_K_attend_32_16, 32, 256},
                 {ZO_CUDA_K_attend_16_16, 16, 256}};
    const uint32_t d = f->b->m->c.head_dim, wide = d <= 64 ? 64 : 128;
    const uint32_t mma_bytes = 4 * ((128 + 64) * (wide + 8) / 2 + wide * (64 + 8) / 2); /* see attend_mma_body.cuh */
    if (f->d->type != ZO_CUDA_FP32 && d <= 128 && f->d->info.major >= 8 && mma_bytes <= f->d->info.shared_max) {
        f->attend = wide == 64 ? ZO_CUDA_K_attend_mma_64 : ZO_CUDA_K_attend_mma_128;
        f->tile = 128;
        f->attend_bytes = mma_bytes;
        return ERR_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        const uint32_t t = sizes[i].tile, bytes = 4 * (2 * t * (d + 1) + t * (t + 1) + ZO_CUDA_THREADS + 3 * t);
        if (d > sizes[i].head_dim || bytes > f->d->info.shared_max)
            continue;
        f->attend = sizes[i].kernel;
        f->tile = t;
        f->attend_bytes = bytes;
        return ERR_OK;
    }
    return ERR_UNSUPPORTED;
}

static void carve_work(struct cuda_forward *f, struct carver *c)
{
    const struct zo_model *m = f->b->m;
    const uint64_t n = f->b->body.n, t = f->b->n_targets, type = zo_cuda_type_bytes(f->d->type), wide = wide_of(&m->c),
                   rows = most_of(n, t);
    f->x = carve(c, n * m->c.d, 4);
    f->h = carve(c, rows * wide, type);
    f->y = carve(c, most_of(n * y_width(m), t * wide), 4);
    f->z = carve(c, n * z_width(m), type);
    f->dots = carve(c, rows * ZO_CUDA_PARTS, 4);
    f->mid = carve(c, n * m->lora_r, 4);
    f->mid_copy = carve(c, n * m->lora_r, type);
    f->lora_dots = carve(c, m->lora_r ? n : 0, 4);
    f->hx = carve(c, t * wide, 4);
    f->logits = carve(c, t * chunk_of(m), 4);
    f->results = carve(c, t, 16); /* one copy brings them back */
    if (f->results) {
        f->sum = f->results;
        f->max = (float *)(void *)(f->sum + t);
        f->target = f->max + t;
    }
    f->area_bytes = zo_cuda_draw_bytes(f->b) + 4096;
    f->area = carve(c, f->area_bytes, 1);
}

/* The uploaded arrays lie at the arena's beginning, in the order they have here. */
static void there(struct cuda_forward *f, const struct upload *u)
{
    f->passes = (struct zo_cuda_passes){.key0 = u->key0, .key1 = u->key1, .seq_lo = u->seq_lo, .seq_hi = u->seq_hi,
                                        .eps = u->eps, .n = (uint32_t)f->b->n_passes};
    f->body = (struct cuda_rows){.n = (uint32_t)f->b->body.n, .row_pass = u->row_pass, .pass0 = f->b->body.pass0};
    f->head = (struct cuda_rows){.n = (uint32_t)f->b->n_targets, .row_pass = u->target_pass, .pass0 = f->b->head.pass0};
    f->ids = u->ids;
    f->positions = u->positions;
    f->targets = u->targets;
    f->target_ids = u->target_ids;
    f->items = u->items;
}

static enum err lay_out(struct cuda_forward *f)
{
    struct carver counting = {0};
    struct upload here = {0}, device = {0};
    TRY(choose_tile(f));
    f->n_items = count_items(f->b, f->tile);
    carve_upload(&here, &counting, f->b, f->n_items);
    const uint64_t bytes = counting.at;
    carve_work(f, &counting);
    TRY(zo_cuda_grow(f->d, &f->d->arena, counting.at));
    uint8_t *memory = calloc(1, bytes + 1);
    if (!memory)
        return ERR_NOMEM;
    struct carver host = {.base = memory}, real = {.base = f->d->arena.p};
    carve_upload(&here, &host, f->b, f->n_items);
    fill_upload(&here, f->b, f->tile);
    carve_upload(&device, &real, f->b, f->n_items);
    carve_work(f, &real);
    there(f, &device);
    const enum err e = zo_cuda_put(f->d, f->d->arena.p, memory, bytes);
    free(memory);
    return e;
}

static enum err fetch(const struct cuda_forward *f)
{
    const size_t t = f->b->n_targets;
    double *sum = malloc(t * 16);
    if (!sum)
        return ERR_NOMEM;
    const enum err e = zo_cuda_get(f->d, sum, f->results, t * 16);
    if (e == ERR_OK) {
        const float *max = (const float *)(const void *)(sum + t);
        memcpy(f->b->block_sum, sum, t * sizeof *sum);
        memcpy(f->b->block_max, max, t * sizeof *max);
        memcpy(f->b->target_logit, max + t, t * sizeof *max);
    }
    free(sum);
    return e;
}

/* On an H100 a launch takes some 4 us and a layer some 20 of them: is that longer than the products take? */
static bool launches_show(const struct cuda_forward *f)
{
    const double operations = 2.0 * (double)zo_model_parameters(f->b->m) * (double)f->b->body.n;
    return operations / 3e14 < 20 * 4e-6 * (double)f->b->m->c.layers;
}

static enum err forward(struct cuda_forward *f)
{
    TRY(zo_cuda_layers(f));
    return zo_cuda_head(f);
}

/* As a graph; ERR_UNSUPPORTED: it cannot be recorded, nothing ran.  Memory that has to grow is one reason. */
static enum err forward_graph(struct cuda_forward *f)
{
    struct zo_device *d = f->d;
    d->recording = true;
    enum err e = d->api->record(d->ctx);
    if (e == ERR_OK)
        e = forward(f);
    const enum err played = d->api->play(d->ctx, e == ERR_OK);
    d->recording = false;
    d->lost = d->lost || played == ERR_DEVICE;
    return e == ERR_OK ? played : e;
}

static enum err forward_any(struct cuda_forward *f)
{
    struct zo_device *d = f->d;
    const bool seen = d->batches++ > 0; /* the first loads kernels and makes room */
    if (!seen || d->graphs_left == 0 || d->lost || !launches_show(f))
        return forward(f);
    const enum err e = forward_graph(f);
    if (e == ERR_OK) {
        d->graphs++;
        return ERR_OK;
    }
    if (e != ERR_UNSUPPORTED)
        return e;
    d->graphs_left--;
    return forward(f);
}

static enum err run_batch(struct zo_device *d, const struct zo_pass *passes, size_t n, struct zo_loss *out)
{
    struct cuda_forward *f = calloc(1, sizeof *f);
    if (!f)
        return ERR_NOMEM;
    f->d = d;
    f->b = d->model->batch;
    enum err e = zo_batch_plan(f->b, passes, n);
    if (e == ERR_OK && f->b->n_targets > 0)
        e = lay_out(f);
    if (e == ERR_OK && f->b->n_targets > 0) {
        e = forward_any(f);
        if (e == ERR_OK)
            e = fetch(f);
    }
    if (e == ERR_OK)
        zo_batch_losses(f->b, out);
    free(f);
    return e;
}

enum err zo_device_losses(struct zo_device *d, const struct zo_pass *passes, size_t n, struct zo_loss *out)
{
    struct batch *b = d->model->batch;
    for (size_t i = 0; i < n; i++)
        TRY(zo_pass_check(d->model, &passes[i]));
    if (d->lost)
        return ERR_DEVICE;
    *b = (struct batch){.m = d->model, .n_workers = 1, .on_device = true, .arena = b->arena, .arena_bytes = b->arena_bytes};
    const uint64_t rows_most = d->arena_most / row_bytes(d);
    for (size_t at = 0, count; at < n; at += count) {
        uint64_t rows = 0;
        for (count = 0; at + count < n; count++) {
            rows += zo_batch_pass_rows(d->model, &passes[at + count], false);
            if (count > 0 && rows > rows_most)
                break;
        }
        TRY(run_batch(d, passes + at, count, out + at));
    }
    return ERR_OK;
}
