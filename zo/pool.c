/* zo/pool.c -- one mutex, two conditions.  Workers take the next item under an atomic counter; the
 * caller works too.
 *
 * A forward pass is some 300 short jobs.  Before a thread sleeps it looks for at most SPIN_TURNS
 * (about 30 us): longer than equal shares differ, and no more than what sleeping and waking would
 * cost, so that a thread that waits for one that another process has displaced gives its core away.
 */
#include <onebyte/zo/pool.h>

#include <onebyte/base/limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { SPIN_TURNS = 2000 };

struct worker {
    struct zo_pool *pool;
    size_t index;
    pthread_t thread;
};

struct zo_pool {
    size_t n_threads; /* including the caller, who is worker 0 */
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    atomic_size_t job;     /* rises by one per job; written under lock, as are the next two */
    atomic_size_t running; /* workers that have not finished this job yet */
    bool stop;
    void (*item)(void *ctx, size_t i, size_t worker);
    void *ctx;
    size_t n;
    atomic_size_t next;
    struct worker workers[];
};

static void take_items(struct zo_pool *p, size_t worker)
{
    for (;;) {
        const size_t i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (i >= p->n)
            return;
        p->item(p->ctx, i, worker);
    }
}

/* Waits a little while *value is in [low, high]. */
static void spin(const atomic_size_t *value, size_t low, size_t high)
{
    for (int i = 0; i < SPIN_TURNS; i++) {
        const size_t now = atomic_load_explicit(value, memory_order_relaxed);
        if (now < low || now > high)
            return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
}

static void *work(void *arg)
{
    const struct worker *w = arg;
    struct zo_pool *p = w->pool;
    size_t seen = 0;
    for (;;) {
        spin(&p->job, seen, seen);
        pthread_mutex_lock(&p->lock);
        while (!p->stop && p->job == seen)
            pthread_cond_wait(&p->work, &p->lock);
        seen = p->job;
        const bool stop = p->stop;
        pthread_mutex_unlock(&p->lock);
        if (stop)
            return NULL;
        take_items(p, w->index);
        pthread_mutex_lock(&p->lock);
        if (--p->running == 0)
            pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->lock);
    }
}

enum err zo_pool_new(struct zo_pool **pool, size_t n_threads)
{
    if (n_threads < 1 || n_threads > LIMIT_THREADS)
        return ERR_RANGE;
    struct zo_pool *p = calloc(1, sizeof *p + n_threads * sizeof p->workers[0]);
    if (!p)
        return ERR_NOMEM;
    if (pthread_mutex_init(&p->lock, NULL) != 0 || pthread_cond_init(&p->work, NULL) != 0 ||
        pthread_cond_init(&p->done, NULL) != 0) {
        free(p);
        return ERR_NOMEM;
    }
    for (p->n_threads = 1; p->n_threads < n_threads; p->n_threads++) {
        struct worker *w = &p->workers[p->n_threads];
        w->pool = p;
        w->index = p->n_threads;
        if (pthread_create(&w->thread, NULL, work, w) != 0) {
            zo_pool_free(p);
            return ERR_NOMEM;
        }
    }
    *pool = p;
    return ERR_OK;
}

void zo_pool_free(struct zo_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (size_t i = 1; i < p->n_threads; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

size_t zo_pool_threads(const struct zo_pool *p)
{
    return p ? p->n_threads : 1;
}

void zo_pool_run(struct zo_pool *p, size_t n, void (*item)(void *ctx, size_t i, size_t worker),
                 void *ctx)
{
    if (!p || p->n_threads == 1 || n <= 1) {
        for (size_t i = 0; i < n; i++)
            item(ctx, i, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->item = item;
    p->ctx = ctx;
    p->n = n;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    p->running = p->n_threads - 1;
    p->job++;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    take_items(p, 0);
    spin(&p->running, 1, LIMIT_THREADS);
    pthread_mutex_lock(&p->lock);
    while (p->running > 0)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
