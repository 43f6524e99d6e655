/* The pool runs every item exactly once, on workers it owns, for any number of threads and items.
 */
#include <onebyte/base/limits.h>
#include <onebyte/zo/pool.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <cmocka.h>

enum { ITEMS = 1000 };

struct seen {
    atomic_int times[ITEMS];
    atomic_size_t worker_max;
    atomic_int last; /* item that ran last: order on one thread */
    atomic_bool in_order;
};

static void mark(void *ctx, size_t i, size_t worker)
{
    struct seen *s = ctx;
    size_t most = atomic_load(&s->worker_max);
    atomic_fetch_add(&s->times[i], 1);
    while (worker > most && !atomic_compare_exchange_weak(&s->worker_max, &most, worker)) {
    }
    if ((int)i != atomic_exchange(&s->last, (int)i) + 1)
        atomic_store(&s->in_order, false);
}

static void every_item_once(void **state)
{
    static const size_t threads[] = {1, 2, 3, 8}, items[] = {0, 1, 2, 3, 7, 100, ITEMS};
    (void)state;
    for (size_t t = 0; t < 4; t++) {
        struct zo_pool *pool = NULL;
        assert_int_equal(zo_pool_new(&pool, threads[t]), ERR_OK);
        assert_int_equal(zo_pool_threads(pool), threads[t]);
        for (size_t round = 0; round < 50; round++) {
            const size_t n = items[round % 7];
            struct seen s = {.last = -1, .in_order = true};
            zo_pool_run(pool, n, mark, &s);
            for (size_t i = 0; i < ITEMS; i++)
                assert_int_equal(atomic_load(&s.times[i]), i < n ? 1 : 0);
            assert_true(atomic_load(&s.worker_max) < threads[t]);
        }
        zo_pool_free(pool);
    }
}

static void without_a_pool_in_order(void **state)
{
    struct seen s = {.last = -1, .in_order = true};
    (void)state;
    zo_pool_run(NULL, ITEMS, mark, &s);
    assert_int_equal(zo_pool_threads(NULL), 1);
    assert_int_equal(atomic_load(&s.last), ITEMS - 1);
    assert_true(atomic_load(&s.in_order));
    assert_int_equal(atomic_load(&s.worker_max), 0);
}

static void bounds(void **state)
{
    struct zo_pool *pool = NULL;
    (void)state;
    assert_int_equal(zo_pool_new(&pool, 0), ERR_RANGE);
    assert_int_equal(zo_pool_new(&pool, LIMIT_THREADS + 1), ERR_RANGE);
    assert_null(pool);
    zo_pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_item_once),
                                       cmocka_unit_test(without_a_pool_in_order),
                                       cmocka_unit_test(bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
