/* Who may download how much: enough for every joiner, not without end for anybody. */
#include "peer/upload.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

enum { WHOLE = 100 << 20, WINDOW = 256 << 10 };
static const uint64_t hour = UINT64_C(3600) * 1000000000;

/* Windows that machine gets until it is refused, at most `most`. */
static uint64_t takes(struct peer_uploads *u, uint32_t machine, const char *address, uint64_t most, uint64_t now)
{
    uint8_t id[32] = {1};
    uint64_t n = 0;
    memcpy(id + 1, &machine, 4);
    while (n < most && peer_uploads_take(u, id, address, WINDOW, now))
        n++;
    return n;
}

static void a_machine_gets_two_copies_and_one_more_an_hour(void **state)
{
    (void)state;
    struct peer_uploads u;
    peer_uploads_init(&u, WHOLE);
    const uint64_t copy = u.copy / WINDOW;
    assert_true(copy * WINDOW >= WHOLE);
    assert_int_equal(takes(&u, 1, "192.0.2.7:1", 100 * copy, hour), PEER_UPLOAD_MACHINE * copy);
    assert_int_equal(u.refused, 1);
    assert_int_equal(takes(&u, 2, "192.0.2.8:1", copy, hour), copy); /* another one has its own */
    assert_in_range(takes(&u, 1, "192.0.2.7:2", 100 * copy, 2 * hour), copy - 1, copy + 1);
    assert_in_range(takes(&u, 1, "192.0.2.7:2", 100 * copy, 200 * hour), PEER_UPLOAD_MACHINE * copy - 1, PEER_UPLOAD_MACHINE * copy);
}

static void new_keys_of_one_network_share(void **state)
{
    (void)state;
    struct peer_uploads u;
    uint64_t got = 0;
    char address[32];
    peer_uploads_init(&u, WHOLE);
    const uint64_t copy = u.copy / WINDOW;
    for (uint32_t k = 0; k < 50; k++) {
        snprintf(address, sizeof address, "192.0.2.%u:%u", k % 250 + 1, 1000 + k);
        got += takes(&u, k, address, 100 * copy, hour);
    }
    assert_int_equal(got, PEER_UPLOAD_NETWORK * copy);
    assert_int_equal(takes(&u, 1000, "192.0.3.1:1", copy, hour), copy);           /* the next network */
    assert_int_equal(takes(&u, 1001, "[2001:db8:1:2::3]:1", copy, hour), copy);
    for (uint32_t k = 2000; k < 2020; k++)
        assert_int_equal(takes(&u, k, "127.0.0.1:1", copy, hour), copy); /* on one machine: each for itself */
}

/* A thousand askers: the table is bounded, and nobody is refused for it. */
static void many_askers_do_no_harm(void **state)
{
    (void)state;
    struct peer_uploads u;
    char address[32];
    peer_uploads_init(&u, WHOLE);
    for (uint32_t k = 0; k < 1000; k++) {
        snprintf(address, sizeof address, "10.%u.%u.1:1", k / 250, k % 250);
        assert_int_equal(takes(&u, k, address, 4, hour + k), 4);
    }
    assert_int_equal(u.refused, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_machine_gets_two_copies_and_one_more_an_hour),
        cmocka_unit_test(new_keys_of_one_network_share),
        cmocka_unit_test(many_askers_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
