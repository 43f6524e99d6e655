/* The simulator is itself tested: with a bug planted in net/hold.c (linked in place of the library's), some of its seeds fail. */
#define PLANTED_BUG 1
#include "net/hold.c"
#include "tests/sim/world.c"
#include <onebyte/net/id.h>
#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

static void planted_bug_is_found(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct world_options o;
        struct world_result r;
        world_draw(&o, seed, 30, 60 * SECOND);
        world_run(&o, &r);
        if (!r.ok) {
            assert_true(strstr(r.what, "different states") || strstr(r.what, "something else") ||
                        strstr(r.what, "different clocks"));
            return;
        }
    }
    fail_msg("a dozen seeds did not find the planted bug");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(planted_bug_is_found)};
    if (net_start() != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
