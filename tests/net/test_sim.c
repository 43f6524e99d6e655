/* Seeds of the simulator: every fault of tests/sim/world.h at rates drawn from the seed.  The sanitizers' build is eight times
 * slower and runs a dozen.  More: make sim, make sim-soak. */
#include "tests/sim/world.c"
#include <onebyte/net/id.h>
#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

#ifdef __SANITIZE_ADDRESS__
enum { SEEDS = 12 };
#else
enum { SEEDS = 240 }; /* 124, 205 and 223 once failed: an invited machine's scores without its admission */
#endif

static void every_seed_ends_in_agreement(void **state)
{
    (void)state;
    uint64_t cuts = 0, forks = 0, searches = 0, rebuilt = 0, scores = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct world_options o;
        struct world_result r;
        world_draw(&o, seed, 30, 72 * SECOND);
        world_run(&o, &r);
        if (!r.ok)
            fail_msg("seed %llu: %s; replay: make sim SEED=%llu PEERS=30 HOURS=%g",
                     (unsigned long long)seed, r.what, (unsigned long long)seed, 72.0 / 3600);
        cuts += r.cuts;
        forks += r.forks;
        searches += r.searches;
        rebuilt += r.rebuilt;
        scores += r.scores;
    }
    assert_true(cuts > 0); /* the faults did happen */
    assert_true(forks > 0);
    assert_true(searches > 0);
    assert_true(rebuilt > 0);
    assert_true(scores > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_seed_ends_in_agreement)};
    if (net_start() != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
