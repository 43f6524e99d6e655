/* The computing options against what this machine has: what it lacks is replaced by the next best. */
#include "peer/flags.h"

#include "peer/log.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static struct peer_engine_options made(struct peer_flags f)
{
    return peer_flags_engine(&f, NULL, NULL);
}

static void threads_are_at_most_what_runs_at_once(void **state)
{
    (void)state;
    const size_t most = peer_threads_most(), cores = peer_threads_default();
    assert_true(most >= 1 && most <= LIMIT_THREADS && cores >= 1 && cores <= most);
    assert_int_equal(made((struct peer_flags){.threads = 1}).threads, 1);
    assert_int_equal(made((struct peer_flags){.threads = most}).threads, most);
    assert_int_equal(made((struct peer_flags){.threads = LIMIT_THREADS}).threads, most);
}

static void reserved_cores_are_left_alone(void **state)
{
    (void)state;
    const size_t cores = peer_threads_default();
    assert_int_equal(made((struct peer_flags){0}).threads, cores);
    assert_int_equal(made((struct peer_flags){.reserve = 1}).threads, cores > 1 ? cores - 1 : 1);
    assert_int_equal(made((struct peer_flags){.reserve = LIMIT_THREADS}).threads, 1);
    /* an explicit number is the owner's word */
    assert_int_equal(made((struct peer_flags){.threads = 1, .reserve = LIMIT_THREADS}).threads, 1);
}

static void kernels_that_cannot_run_give_way(void **state)
{
    (void)state;
    assert_string_equal(made((struct peer_flags){.kernels = "ref"}).kernels, "ref");
    assert_null(made((struct peer_flags){.kernels = "none such"}).kernels);
    assert_null(made((struct peer_flags){0}).kernels);
}

static void memory_modes_by_name(void **state)
{
    (void)state;
    assert_int_equal(made((struct peer_flags){0}).memory, ZO_MEMORY_AUTO);
    assert_int_equal(made((struct peer_flags){.memory = "lean"}).memory, ZO_MEMORY_LEAN);
    assert_int_equal(made((struct peer_flags){.memory = "fast"}).memory, ZO_MEMORY_FAST);
}

int main(void)
{
    peer_log_start(PEER_ERROR, false, true, NULL); /* the warnings are not what is tested */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_are_at_most_what_runs_at_once),
        cmocka_unit_test(reserved_cores_are_left_alone),
        cmocka_unit_test(kernels_that_cannot_run_give_way),
        cmocka_unit_test(memory_modes_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
