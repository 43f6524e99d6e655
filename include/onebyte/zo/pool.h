/* zo/pool.h -- the worker pool: the only mutex of the program lives in zo/pool.c (peer/ has message pipes).
 *
 * Workers wait passively.  A job is split into n independent items; the result never depends on which
 * worker takes which item or on how many workers there are.  Threads: one caller at a time. */
#ifndef ONEBYTE_ZO_POOL_H
#define ONEBYTE_ZO_POOL_H
#include <onebyte/base/err.h>
#include <stddef.h>

struct zo_pool;
NODISCARD enum err zo_pool_new(struct zo_pool **pool, size_t n_threads); /* 1..LIMIT_THREADS */
void zo_pool_free(struct zo_pool *pool);
size_t zo_pool_threads(const struct zo_pool *pool);

/* Runs item(ctx, i, worker) for i in [0, n), worker in [0, threads); returns when all are done.
 * pool NULL: runs them in order on the caller's thread with worker 0. */
void zo_pool_run(struct zo_pool *pool, size_t n, void (*item)(void *ctx, size_t i, size_t worker),
                 void *ctx);
#endif
