/* zo/model/cache.c -- generation: keys and values of the tokens seen are kept per layer, so that a
 * token costs one row of the pass instead of all of them.  The rows go through the same layers as
 * everything else; only attention looks into the cache, as it looks into a shared prefix. */
#include "zo/model/batch.h"

#include <stdlib.h>
#include <string.h>

enum err zo_cache_new(struct zo_cache **cache, const struct zo_model *m, uint32_t capacity,
                      struct err_why *why)
{
    const struct config *c = &m->c;
    if (c->task != TASK_CAUSAL)
        return err_set(why, ERR_UNSUPPORTED,
                       "a %s encoder does not generate text: use a causal language model",
                       m->model_type);
    if (capacity == 0 || capacity > c->context)
        return err_set(why, ERR_RANGE, "a cache holds 1 to %u tokens, the model's context",
                       c->context);
    struct zo_cache *made = calloc(1, sizeof *made);
    if (made) {
        made->m = m;
        made->capacity = capacity;
        made->skip = c->qkv_by_head ? 0 : (size_t)c->heads * c->head_dim;
        made->width = (c->qkv_by_head ? 3u : 2u) * (size_t)c->kv_heads * c->head_dim;
        made->ids = calloc((size_t)capacity + 1, sizeof *made->ids);
        made->counted = calloc((size_t)capacity + 1, 1);
        made->rows = malloc((size_t)c->layers * capacity * made->width * sizeof *made->rows);
    }
    if (!made || !made->ids || !made->counted || !made->rows) {
        zo_cache_free(made);
        return err_set(why, ERR_NOMEM, "not enough memory for the keys and values of %u tokens",
                       capacity);
    }
    *cache = made;
    return ERR_OK;
}

uint64_t zo_cache_bytes(const struct zo_model *m, uint32_t capacity)
{
    const uint64_t width = (m->c.qkv_by_head ? 3u : 2u) * (uint64_t)m->c.kv_heads * m->c.head_dim;
    return m->c.layers * (uint64_t)capacity * width * sizeof(float);
}

void zo_cache_free(struct zo_cache *c)
{
    if (!c)
        return;
    free(c->ids);
    free(c->counted);
    free(c->rows);
    free(c);
}

void zo_cache_clear(struct zo_cache *c)
{
    c->n = 0;
}

float *zo_cache_row(const struct zo_cache *c, uint32_t layer, size_t position)
{
    return c->rows + ((size_t)layer * c->capacity + position) * c->width;
}

void zo_cache_keep(const struct batch *b, uint32_t layer)
{
    for (size_t i = 0; i < b->n_runs; i++) {
        const struct run *r = &b->runs[i];
        const struct zo_cache *c = b->caches[r->pass];
        const size_t width = c->width + c->skip;
        for (size_t at = r->shared; at < r->n; at++)
            memcpy(zo_cache_row(c, layer, at), b->qkv + (r->row0 + at - r->shared) * width + c->skip,
                   c->width * sizeof(float));
    }
}

static enum err feeds_check(const struct zo_model *m, const struct zo_feed *feeds, size_t n)
{
    if (n == 0)
        return ERR_RANGE;
    for (size_t i = 0; i < n; i++) {
        const struct zo_feed *f = &feeds[i];
        if (f->cache->m != m || f->n == 0 || f->n > f->cache->capacity - f->cache->n)
            return ERR_RANGE;
        for (size_t j = 0; j < f->n; j++)
            if (f->ids[j] >= m->c.vocab)
                return ERR_RANGE;
        for (size_t j = 0; j < i; j++)
            if (feeds[j].cache == f->cache) /* its rows would be written twice */
                return ERR_RANGE;
    }
    return ERR_OK;
}

/* What one feed is to the batch: its whole sequence and one more token, the only counted one. */
struct fed {
    struct zo_seq seq;
    struct zo_example example;
};

static enum err run_feeds(struct zo_model *m, const struct zo_feed *feeds, size_t n, struct fed *fed,
                          struct zo_pass *passes, struct zo_cache **caches)
{
    for (size_t i = 0; i < n; i++) {
        struct zo_cache *c = feeds[i].cache;
        memcpy(c->ids + c->n, feeds[i].ids, feeds[i].n * sizeof *c->ids);
        c->counted[c->n + feeds[i].n] = 1;
        fed[i].seq = (struct zo_seq){
            .n = (uint32_t)(c->n + feeds[i].n) + 1, .ids = c->ids, .counted = c->counted};
        fed[i].example = (struct zo_example){.n_seqs = 1, .seqs = &fed[i].seq, .label = -1};
        passes[i].example = &fed[i].example;
        caches[i] = c;
    }
    m->batch->caches = caches;
    const enum err e = zo_batch_plan(m->batch, passes, n);
    if (e == ERR_OK) {
        zo_forward(m->batch);
        zo_head(m->batch);
    }
    m->batch->caches = NULL;
    for (size_t i = 0; i < n; i++) {
        feeds[i].cache->counted[feeds[i].cache->n + feeds[i].n] = 0;
        feeds[i].cache->n += e == ERR_OK ? (uint32_t)feeds[i].n : 0;
    }
    return e;
}

enum err zo_model_extend(struct zo_model *m, const struct zo_feed *feeds, size_t n, float *out,
                         const struct zo_kernels *k, struct zo_pool *pool)
{
    TRY(feeds_check(m, feeds, n));
    struct fed *fed = calloc(n, sizeof *fed);
    struct zo_pass *passes = calloc(n, sizeof *passes);
    struct zo_cache **caches = calloc(n, sizeof(struct zo_cache *));
    enum err e = fed && passes && caches ? ERR_OK : ERR_NOMEM;
    if (e == ERR_OK) {
        zo_batch_start(m, k, pool, false, out);
        e = run_feeds(m, feeds, n, fed, passes, caches);
    }
    free(fed);
    free(passes);
    free(caches);
    return e;
}
