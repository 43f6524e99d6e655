#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <onebyte/net/book.h>
#include <string.h>

enum { DAY = 86400 };
static const int64_t now = 1790000000;
static uint64_t words = 1;

static uint64_t word(void)
{
    words = words * 6364136223846793005u + 1442695040888963407u;
    return words ^ (words >> 29);
}

static struct net_book *new_book(void)
{
    struct net_book *b = NULL;
    words = 1;
    assert_int_equal(net_book_new(&b), ERR_OK);
    return b;
}

/* i-th address: eight in each /24. */
static const char *nth(char out[LIMIT_ADDRESS_BYTES + 1], unsigned i)
{
    snprintf(out, LIMIT_ADDRESS_BYTES + 1, "10.%u.%u.%u:4100", i / 8 / 256, i / 8 % 256, i % 8 + 1);
    return out;
}

static bool holds(const struct net_book *b, const char *address)
{
    static uint8_t bytes[NET_BOOK_BYTES_MAX];
    const size_t n = net_book_save(b, bytes, sizeof bytes), k = strlen(address);
    for (size_t i = 0; i + k < n; i++)
        if (bytes[i] == k && memcmp(bytes + i + 1, address, k) == 0)
            return true;
    return false;
}

static void only_addresses_are_taken(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "x",
        "host:0",
        "*:5",
        "0.0.0.0:5",
        "[::]:5",
        "host:99999",
        "a b:5",
        "a-name-that-is-as-long-as-a-host-may-be-but-with-its-port-too-long:4100"};
    struct net_book *b = new_book();
    char next[LIMIT_ADDRESS_BYTES + 1];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        net_book_heard(b, bad[i], "seed", now, word());
        net_book_worked(b, bad[i], now, word());
        net_book_failed(b, bad[i], now);
        net_book_forget(b, bad[i]);
    }
    assert_int_equal(net_book_size(b, false) + net_book_size(b, true), 0);
    assert_false(net_book_next(b, next, NULL, 0, now, word()));
    net_book_heard(b, "example.org:4100", "seed", now, word());
    net_book_heard(b, "[2001:db8::1]:4100", "seed", now, word());
    net_book_heard(b, "[2001:db8::1]:4100", "another", now, word());
    assert_int_equal(net_book_size(b, false), 2);
    net_book_free(b);
    net_book_free(NULL);
}

static void an_address_moves_to_tried_when_it_worked(void **state)
{
    (void)state;
    struct net_book *b = new_book();
    char good[4][LIMIT_ADDRESS_BYTES + 1];
    net_book_heard(b, "a:1", "seed", now, word());
    net_book_worked(b, "a:1", now, word());
    net_book_worked(b, "b:1", now + 5, word()); /* never heard of: it dialled us */
    assert_int_equal(net_book_size(b, false), 0);
    assert_int_equal(net_book_size(b, true), 2);
    assert_int_equal(net_book_good(b, good, 4), 2);
    assert_string_equal(good[0], "b:1");
    assert_string_equal(good[1], "a:1");
    net_book_failed(b, "b:1", now + 6);
    assert_int_equal(net_book_good(b, good, 4), 1);
    net_book_worked(b, "b:1", now + 7, word());
    assert_int_equal(net_book_good(b, good, 1), 1);
    assert_string_equal(good[0], "b:1");
    net_book_forget(b, "b:1");
    assert_int_equal(net_book_size(b, true), 1);
    net_book_free(b);
}

static void hearsay_that_fails_is_forgotten_what_worked_is_not(void **state)
{
    (void)state;
    struct net_book *b = new_book();
    net_book_heard(b, "a:1", "seed", now, word());
    net_book_worked(b, "b:1", now, word());
    for (int i = 0; i < LIMIT_BOOK_FAILURES - 1; i++)
        net_book_failed(b, "a:1", now);
    assert_true(holds(b, "a:1"));
    for (int i = 0; i < 1000; i++) {
        net_book_failed(b, "a:1", now);
        net_book_failed(b, "b:1", now);
    }
    assert_false(holds(b, "a:1"));
    assert_true(holds(b, "b:1"));
    net_book_free(b);
}

/* Both tables stay within their bounds, in all, per group and per teller. */
static void nobody_fills_a_table(void **state)
{
    (void)state;
    struct net_book *b = new_book();
    char address[LIMIT_ADDRESS_BYTES + 1], teller[32];
    for (unsigned i = 0; i < 5000; i++) /* one liar, any number of networks */
        net_book_heard(b, nth(address, 8 * i), "liar", now, word());
    assert_int_equal(net_book_size(b, false), LIMIT_BOOK_TELLER);
    net_book_free(b);
    b = new_book();
    for (unsigned i = 0; i < 200; i++) { /* one network, any number of liars */
        snprintf(address, sizeof address, "10.0.0.%u:4100", i + 1);
        snprintf(teller, sizeof teller, "liar %u", i);
        net_book_heard(b, address, teller, now, word());
        net_book_worked(b, address, now, word());
    }
    assert_int_equal(net_book_size(b, true), LIMIT_BOOK_GROUP);
    assert_int_equal(net_book_size(b, false), LIMIT_BOOK_GROUP);
    net_book_free(b);
    b = new_book();
    for (unsigned i = 0; i < 20000; i++) { /* any number of both */
        snprintf(teller, sizeof teller, "liar %u", i);
        net_book_heard(b, nth(address, i), teller, now, word());
    }
    assert_int_equal(net_book_size(b, false), LIMIT_BOOK_NEW);
    for (unsigned i = 0; i < 5000; i++)
        net_book_worked(b, nth(address, i), now, word());
    assert_int_equal(net_book_size(b, true), LIMIT_BOOK_TRIED);
    assert_int_equal(net_book_size(b, false), LIMIT_BOOK_NEW);
    net_book_free(b);
}

/* Test before evict: what works stays whatever is claimed or comes up; what stopped working makes
 * room. */
static void what_works_is_not_pushed_out(void **state)
{
    (void)state;
    struct net_book *b = new_book();
    char address[LIMIT_ADDRESS_BYTES + 1];
    for (unsigned i = 0; i < LIMIT_BOOK_GROUP; i++)
        net_book_worked(b, nth(address, i), now, word());
    for (unsigned i = LIMIT_BOOK_GROUP; i < 250; i++) {
        snprintf(address, sizeof address, "10.0.0.%u:4100", i + 1);
        net_book_worked(b, address, now + 1, word());
    }
    for (unsigned i = 0; i < LIMIT_BOOK_GROUP; i++)
        assert_true(holds(b, nth(address, i)));
    net_book_failed(b, nth(address, 3), now + 2);
    net_book_worked(b, "10.0.0.251:4100", now + 3, word());
    assert_false(holds(b, nth(address, 3)));
    char good[LIMIT_BOOK_GROUP][LIMIT_ADDRESS_BYTES + 1];
    assert_int_equal(net_book_good(b, good, LIMIT_BOOK_GROUP), LIMIT_BOOK_GROUP);
    assert_string_equal(good[0], "10.0.0.251:4100");
    net_book_free(b);
}

static void who_is_next(void **state)
{
    (void)state;
    struct net_book *b = new_book();
    char next[LIMIT_ADDRESS_BYTES + 1];
    net_book_worked(b, "10.0.0.1:1", now, word());
    net_book_worked(b, "10.0.0.2:1", now, word());
    net_book_heard(b, "10.0.1.1:1", "seed", now, word());
    unsigned tried = 0, other = 0;
    for (int i = 0; i < 400; i++) {
        assert_true(net_book_next(b, next, NULL, 0, now, word()));
        if (strncmp(next, "10.0.0.", 7) == 0)
            tried++;
        else
            other++;
    }
    assert_true(tried > 250 && other > 50); /* three of four; the words are fixed */
    const char *const busy[] = {"10.0.0.1:1"};
    for (int i = 0; i < 100; i++) { /* all of the busy ones share a group: another group first */
        assert_true(net_book_next(b, next, busy, 1, now, word()));
        assert_string_equal(next, "10.0.1.1:1");
    }
    const char *const more[] = {"10.0.0.1:1", "10.0.1.1:1", "10.0.2.1:1"};
    assert_true(
        net_book_next(b, next, more, 3, now, word())); /* groups differ enough: any that is free */
    assert_string_equal(next, "10.0.0.2:1");
    const char *const all[] = {"10.0.0.1:1", "10.0.1.1:1", "10.0.0.2:1"};
    assert_false(net_book_next(b, next, all, 3, now, word()));
    const char *const same[] = {"10.0.0.1:1", "10.0.1.1:1"};
    net_book_forget(b, "10.0.1.1:1");
    assert_true(net_book_next(b, next, same, 2, now, word())); /* no other group: then the same */
    assert_string_equal(next, "10.0.0.2:1");
    net_book_free(b);
}

static void failures_wait_longer_each_time(void **state)
{
    (void)state;
    struct net_book *b = new_book();
    char next[LIMIT_ADDRESS_BYTES + 1];
    int64_t wait_s = 60;
    net_book_worked(b, "a:1", now, word());
    for (int i = 0; i < 300; i++) {
        net_book_failed(b, "a:1", now);
        assert_false(net_book_next(b, next, NULL, 0, now + wait_s - 1, word()));
        assert_true(net_book_next(b, next, NULL, 0, now + wait_s, word()));
        assert_true(
            net_book_next(b, next, NULL, 0, now - 10 * DAY, word())); /* the clock was set back */
        wait_s = 2 * wait_s < DAY ? 2 * wait_s : DAY;
    }
    net_book_worked(b, "a:1", now, word());
    assert_true(net_book_next(b, next, NULL, 0, now, word()));
    net_book_free(b);
}

static void the_book_is_saved_and_damage_refused(void **state)
{
    (void)state;
    static uint8_t bytes[NET_BOOK_BYTES_MAX], again[NET_BOOK_BYTES_MAX],
        bad[NET_BOOK_BYTES_MAX + 1];
    struct net_book *b = new_book(), *c = new_book();
    char address[LIMIT_ADDRESS_BYTES + 1], teller[32];
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(teller, sizeof teller, "teller %u", i % 50);
        net_book_heard(b, nth(address, i), teller, now, word());
        if (i % 3 == 0)
            net_book_worked(b, nth(address, i), now + i, word());
        if (i % 7 == 0)
            net_book_failed(b, nth(address, i), now + i);
    }
    size_t n = net_book_save(b, bytes, sizeof bytes);
    assert_int_equal(net_book_load(c, bytes, n), ERR_OK);
    assert_int_equal(net_book_size(c, true), net_book_size(b, true));
    assert_int_equal(net_book_size(c, false), net_book_size(b, false));
    assert_int_equal(net_book_save(c, again, sizeof again), n);
    assert_memory_equal(again, bytes, n);
    net_book_free(b);
    b = new_book();
    net_book_worked(b, "host.example.org:4100", now, word());
    net_book_heard(b, "[2001:db8::1]:9", "x", now, word());
    n = net_book_save(b, bytes, sizeof bytes);
    unsigned taken = 0;
    for (size_t cut = 0; cut < n; cut++)
        taken += net_book_load(c, bytes, cut) == ERR_OK;
    assert_int_equal(taken, 2); /* no entry, and the first alone: whole in themselves */
    for (size_t i = 0; i < 8 * n;
         i++) { /* whatever is flipped: refused, or a book that saves as what was read */
        memcpy(bad, bytes, n);
        bad[i / 8] ^= (uint8_t)(1u << (i % 8));
        if (net_book_load(c, bad, n) == ERR_OK) {
            assert_int_equal(net_book_save(c, again, sizeof again), n);
            assert_memory_equal(again, bad, n);
        }
    }
    bad[0] = 2;
    assert_int_equal(net_book_load(c, bad, 1), ERR_FORMAT);
    assert_int_equal(net_book_load(c, bad, 0), ERR_FORMAT);
    memcpy(bad, bytes, n);
    memcpy(bad + n, bytes + 1, n - 1); /* the same address twice */
    assert_int_equal(net_book_load(c, bad, 2 * n - 1), ERR_FORMAT);
    net_book_free(b);
    net_book_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_addresses_are_taken),
        cmocka_unit_test(an_address_moves_to_tried_when_it_worked),
        cmocka_unit_test(hearsay_that_fails_is_forgotten_what_worked_is_not),
        cmocka_unit_test(nobody_fills_a_table),
        cmocka_unit_test(what_works_is_not_pushed_out),
        cmocka_unit_test(who_is_next),
        cmocka_unit_test(failures_wait_longer_each_time),
        cmocka_unit_test(the_book_is_saved_and_damage_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
