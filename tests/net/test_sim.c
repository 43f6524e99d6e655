/* A dozen seeds of the simulator: every fault of tests/sim/world.h at rates drawn from the seed.  More: make sim, make sim-soak. */
#include "tests/sim/world.c"
#include <onebyte/net/id.h>
#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

static void a_dozen_seeds(void **state)
{
    (void)state;
    uint64_t cuts = 0, forks = 0, searches = 0;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct world_options o;
        struct world_result r;
        world_draw(&o, seed, 30, 60 * SECOND);
        world_run(&o, &r);
        if (!r.ok)
            fail_msg("seed %llu: %s; replay: make sim SEED=%llu PEERS=30 HOURS=%g",
                     (unsigned long long)seed, r.what, (unsigned long long)seed, 60.0 / 3600);
        cuts += r.cuts;
        forks += r.forks;
        searches += r.searches;
    }
    assert_true(cuts > 0); /* the faults did happen */
    assert_true(forks > 0);
    assert_true(searches > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_dozen_seeds)};
    if (net_start() != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
