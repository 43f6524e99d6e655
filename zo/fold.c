/* zo/fold.c -- the fold as exact integer products over tiles (matrices) and chunks (dense kinds and
 * vectors).
 *
 * Each element is touched by one work item only, and each item takes all records: no two threads
 * share an element, and the sum is exact, so neither threads nor order show in the bits.  Bounds:
 * SPEC 8. */
#include <onebyte/zo/state.h>

#include "zo/plan.h"

#include <stdlib.h>
#include <string.h>

enum {
    LD = ZO_TILE_RECORDS, /* records between the words of a tile's factors */
    A_WORDS = ZO_TILE_ROWS / 32 * LD,
    B_WORDS = ZO_TILE_COLS / 32 * LD,
    DENSE_ITEM = 64 * ZO_DENSE_CHUNK, /* elements of one work item of a dense kind */
    DENSE_RUN = 1 << 18,              /* records per int32 sum: 2^18 * 4064 < 2^31 */
};
_Static_assert((int64_t)DENSE_RUN * 4064 < INT32_MAX, "dense sums fit int32");
_Static_assert(ZO_TILE_ROWS % 128 == 0 && ZO_TILE_COLS % 128 == 0,
               "a tile's bits start at a block");
_Static_assert(ZO_TILE_RECORDS % 16 == 0, "leading dimension of words");

struct item {
    uint32_t tensor;
    uint64_t row, col; /* of a tile; for dense kinds row is the first element */
};

struct fold {
    struct zo_state *s;
    const struct zo_plan *plan;
    const struct zo_kernels *k;
    struct item *items;
    size_t n_items;
    uint8_t *scratch; /* [workers][scratch_bytes] */
    size_t scratch_bytes;
};

static bool is_tiled(const struct zo_rules *r, uint32_t t)
{
    return r->direction == ZO_RANK1 && zo_tensor_is_matrix(&r->tensors[t]);
}

/* How many of the next n records one product may take: bounded number, bounded sum of |v|. */
static size_t product_records(const int8_t *v, size_t n)
{
    size_t i = 0;
    int32_t sum = 0;
    while (i < n && i < ZO_TILE_RECORDS && (sum += abs(v[i])) <= ZO_TILE_WEIGHT)
        i++;
    return i;
}

static size_t min_size(uint64_t a, uint64_t b)
{
    return (size_t)(a < b ? a : b);
}

static void *element(const struct zo_state *s, uint32_t t, uint64_t i)
{
    return (uint8_t *)s->m[t] + i * (s->rules->tensors[t].bits / 8);
}

static void fold_tile(const struct fold *f, const struct item *item, uint8_t *scratch)
{
    const uint32_t t = item->tensor;
    const struct zo_tensor *tensor = &f->s->rules->tensors[t];
    const struct zo_records *records = &f->plan->records;
    const uint64_t cols = zo_tensor_cols(tensor);
    uint32_t *a = (uint32_t *)(void *)scratch, *b = a + A_WORDS;
    struct zo_tile tile = {
        .m = element(f->s, t, item->row * cols + item->col),
        .stride = (size_t)cols,
        .bits = tensor->bits,
        .rows = min_size(zo_tensor_rows(tensor) - item->row, ZO_TILE_ROWS),
        .cols = min_size(cols - item->col, ZO_TILE_COLS),
        .a = a,
        .b = b,
        .ld = LD,
        .scratch = b + B_WORDS,
    };
    for (struct zo_run run = {0}; zo_plan_next(f->plan, t, &run);) {
        tile.coef = run.coef;
        for (size_t at = run.first; at < run.first + run.n; at += tile.n) {
            tile.v = records->v + at;
            tile.n = product_records(tile.v, run.first + run.n - at);
            f->k->record_words(a, LD, records, at, tile.n, (uint32_t)ZO_DOMAIN_A << 24 | t,
                               (uint32_t)(item->row / 128), (tile.rows + 127) / 128);
            f->k->record_words(b, LD, records, at, tile.n, (uint32_t)ZO_DOMAIN_B << 24 | t,
                               (uint32_t)(item->col / 128), (tile.cols + 127) / 128);
            f->k->fold_tile(&tile);
        }
    }
}

void zo_fold_chunk(int32_t *acc, const struct zo_plan *plan, uint32_t t, uint64_t first, size_t at,
                   size_t n, const struct zo_kernels *k)
{
    const bool gaussian = plan->rules->direction == ZO_GAUSSIAN;
    const uint32_t domain = gaussian ? ZO_DOMAIN_GAUSS : ZO_DOMAIN_DENSE;
    const uint32_t block = (uint32_t)(gaussian ? first / 2 : first / 128);
    memset(acc, 0, ZO_DENSE_CHUNK * sizeof *acc);
    for (size_t done = 0; done < n;) {
        const size_t now = min_size(n - done, ZO_DENSE_RECORDS);
        (gaussian ? k->fold_gauss : k->fold_signs)(acc, &plan->records, at + done, now,
                                                   domain << 24 | t, block);
        done += now;
    }
}

static void fold_dense(const struct fold *f, const struct item *item, uint8_t *scratch)
{
    const uint32_t t = item->tensor;
    const struct zo_tensor *tensor = &f->s->rules->tensors[t];
    const uint64_t end = item->row + min_size(zo_tensor_elements(tensor) - item->row, DENSE_ITEM);
    int32_t *acc = (int32_t *)(void *)scratch;
    for (uint64_t first = item->row; first < end; first += ZO_DENSE_CHUNK) {
        const size_t n = min_size(end - first, ZO_DENSE_CHUNK);
        for (struct zo_run run = {0}; zo_plan_next(f->plan, t, &run);) {
            for (size_t done = 0; done < run.n;) {
                const size_t now = min_size(run.n - done, DENSE_RUN);
                zo_fold_chunk(acc, f->plan, t, first, run.first + done, now, f->k);
                if (tensor->bits == 32)
                    f->k->apply32(element(f->s, t, first), acc, n, (uint32_t)run.coef);
                else
                    f->k->apply64(element(f->s, t, first), acc, n, run.coef);
                done += now;
            }
        }
    }
}

static void fold_item(void *ctx, size_t i, size_t worker)
{
    const struct fold *f = ctx;
    uint8_t *scratch = f->scratch + worker * f->scratch_bytes;
    (is_tiled(f->s->rules, f->items[i].tensor) ? fold_tile : fold_dense)(f, &f->items[i], scratch);
}

/* Counts the work items of tensor t, and writes them if items is not NULL. */
static size_t split_tensor(struct item *items, const struct zo_rules *r, uint32_t t)
{
    const struct zo_tensor *tensor = &r->tensors[t];
    const bool tiled = is_tiled(r, t);
    const uint64_t rows = tiled ? zo_tensor_rows(tensor) : zo_tensor_elements(tensor);
    const uint64_t cols = tiled ? zo_tensor_cols(tensor) : 1;
    size_t n = 0;
    for (uint64_t row = 0; row < rows; row += tiled ? ZO_TILE_ROWS : DENSE_ITEM) {
        for (uint64_t col = 0; col < cols; col += ZO_TILE_COLS, n++) {
            if (items)
                items[n] = (struct item){.tensor = t, .row = row, .col = col};
        }
    }
    return n;
}

static enum err split(struct fold *f)
{
    const struct zo_rules *r = f->s->rules;
    size_t n = 0;
    for (uint32_t t = 0; t < r->n_tensors; t++)
        n += split_tensor(NULL, r, t);
    f->items = calloc(n ? n : 1, sizeof *f->items);
    if (!f->items)
        return ERR_NOMEM;
    for (uint32_t t = 0; t < r->n_tensors; t++)
        f->n_items += split_tensor(f->items + f->n_items, r, t);
    return ERR_OK;
}

enum err zo_state_fold(struct zo_state *s, const struct zo_fold *folds, size_t n,
                       const struct zo_kernels *k, struct zo_pool *pool)
{
    struct zo_plan plan;
    struct fold f = {.s = s, .plan = &plan, .k = k};
    ENSURE(k != NULL);
    TRY(zo_plan_new(&plan, s->rules, folds, n));
    enum err e = ERR_OK;
    if (plan.n_records == 0)
        goto out;
    e = split(&f);
    if (e != ERR_OK)
        goto out;
    f.scratch_bytes =
        ((A_WORDS + B_WORDS) * sizeof(uint32_t) + k->tile_scratch + 4095) / 4096 * 4096;
    f.scratch = aligned_alloc(4096, zo_pool_threads(pool) * f.scratch_bytes);
    if (!f.scratch) {
        e = ERR_NOMEM;
        goto out;
    }
    zo_pool_run(pool, f.n_items, fold_item, &f);
out:
    free(f.scratch);
    free(f.items);
    zo_plan_free(&plan);
    return e;
}
