/* Too fast: delayed, then dropped, then the link is closed; and what was delayed is had later, by everybody. */
#include "few.h"
#include "net/wire.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct few_key owner;

/* Millions of records: few_believe. */
static void scene(struct few *f, struct net_rules *r, uint32_t n)
{
    static const struct net_intern intern = {NULL, few_believe, few_believe, few_forget};
    *r = few_rules(&owner);
    r->records_max = LIMIT_RECORDS_DEFAULT;
    few_init(f);
    for (uint32_t i = 0; i < n; i++) {
        few_add(f, r, few_key((uint8_t)(200 + i)).id);
        net_gossip_set_intern(f->g[i], &intern);
    }
}

static uint64_t held(const struct few *f, uint32_t i, const uint8_t machine[32])
{
    struct net_frontier_entry e = {.count = 0};
    (void)net_gossip_feed(f->g[i], machine, &e);
    return e.count;
}

/* n segments of 1024 records of machine, pushed to machine 0 on a link, one a millisecond. */
static void pushes(struct few *f, uint32_t link, const uint8_t machine[32], uint32_t n)
{
    uint8_t push[1 + 36 + NET_SEGMENT_BYTES_MAX] = {WIRE_SEGMENT_OF};
    struct net_segment s = {.count = 1024, .lag = 1024};
    memcpy(push + 1, machine, 32);
    push[33] = machine[0];
    for (uint32_t k = 0; k < n; k++) {
        struct net_frontier_entry e = {.count = 0};
        (void)net_gossip_feed(f->g[0], machine, &e);
        s.first_seq = e.count;
        memcpy(s.prev, e.head, 8);
        f->now += FEW_S / 1000;
        net_gossip_frame(f->g[0], link, push, 37 + net_segment_write(push + 37, &s), f->now);
        few_actions(f, 0);
    }
}

/* A machine's records beyond a minute's worth wait, on every link; other machines' do not, nobody is closed, and a minute later it goes
 * on.  In our first minutes there is no such limit: we may have been away for long. */
static void an_author_is_slowed_down(void **state)
{
    (void)state;
    struct few f;
    struct net_rules r;
    struct net_gossip_counters c;
    const uint8_t early[32] = {1}, fast[32] = {2}, slow[32] = {3};
    scene(&f, &r, 1);
    assert_int_equal(net_gossip_link_up(f.g[0], 0, few_key(9).id, false, f.now), ERR_OK);
    assert_int_equal(net_gossip_link_up(f.g[0], 1, few_key(10).id, false, f.now), ERR_OK);
    pushes(&f, 0, early, 1500);
    assert_int_equal(held(&f, 0, early), 1500 * 1024);
    f.now += (LIMIT_CATCH_UP_S + 1) * FEW_S;
    pushes(&f, 0, fast, 1300);
    const uint64_t first = held(&f, 0, fast);
    assert_in_range(first, LIMIT_AUTHOR_RECORDS, LIMIT_AUTHOR_RECORDS + LIMIT_AUTHOR_RECORDS / 30);
    pushes(&f, 1, fast, 10);
    assert_in_range(held(&f, 0, fast), first, first + 1024);
    pushes(&f, 1, slow, 10);
    assert_int_equal(held(&f, 0, slow), 10 * 1024);
    net_gossip_count(f.g[0], &c);
    assert_in_range(c.segments_delayed, 200, 310);
    assert_int_equal(f.drops[0], 0);
    f.now += 60 * FEW_S;
    pushes(&f, 1, fast, 500);
    assert_true(held(&f, 0, fast) >= first + 500 * 1024);
    few_release(&f);
}

/* What was delayed comes by itself: machine 0 holds far more of a feed than 1 takes at once, and no link is closed for it. */
static void what_waited_is_pulled_later(void **state)
{
    (void)state;
    struct few f;
    struct net_rules r;
    const uint8_t early[32] = {1}, fast[32] = {2};
    scene(&f, &r, 2);
    few_link(&f, 0, 1);
    pushes(&f, 1, early, 1); /* link 1 is theirs */
    few_run(&f, LIMIT_CATCH_UP_S + 30);
    few_unlink(&f, 0, 1);
    assert_int_equal(net_gossip_link_up(f.g[0], 0, few_key(9).id, false, f.now), ERR_OK);
    for (int k = 0; k < 3; k++) {
        pushes(&f, 0, fast, 1000);
        f.now += 70 * FEW_S;
    }
    few_link(&f, 0, 1);
    few_run(&f, 5);
    assert_true(held(&f, 1, fast) >= LIMIT_AUTHOR_RECORDS - 1024 && held(&f, 1, fast) < 2 * LIMIT_AUTHOR_RECORDS);
    few_run(&f, 240);
    assert_int_equal(held(&f, 1, fast), held(&f, 0, fast));
    assert_true(few_agree(&f, 0, 1));
    assert_int_equal(f.drops[1], 0);
    few_release(&f);
}

/* An honest neighbour that is 45 MB behind asks again and again at the limit of our rate: it is never closed; it is told to ask later,
 * so it blames nobody, and it has all of it as soon as the rate allows (185 s before LATER, and 136 pulls that failed). */
static void a_joiner_is_not_closed(void **state)
{
    (void)state;
    struct few f;
    struct net_rules r;
    struct net_gossip_counters c;
    scene(&f, &r, 2);
    assert_int_equal(net_gossip_link_up(f.g[0], 0, few_key(9).id, false, f.now), ERR_OK);
    for (uint8_t m = 1; m <= 40; m++)
        pushes(&f, 0, (const uint8_t[32]){m}, 1000);
    few_link(&f, 0, 1);
    uint32_t took = 0;
    for (; took < 600 && !few_agree(&f, 0, 1); took++)
        few_run(&f, 1);
    net_gossip_count(f.g[0], &c);
    assert_true(few_agree(&f, 0, 1));
    assert_int_equal(c.quota_closed, 0);
    assert_true(c.quota_dropped > 0); /* the limit was reached */
    net_gossip_count(f.g[1], &c);
    assert_int_equal(c.pulls_failed, 0);
    assert_in_range(took, 5, 20);
    few_release(&f);
}

/* "Later" without end is an answer that never comes: the neighbour is to blame. */
static void later_is_not_for_ever(void **state)
{
    (void)state;
    struct few f;
    struct net_rules r;
    struct net_gossip_counters c;
    uint8_t have[1 + WIRE_ENTRY] = {WIRE_HAVE}, later[1 + 32 + 4] = {WIRE_LATER};
    scene(&f, &r, 1);
    assert_int_equal(net_gossip_link_up(f.g[0], 0, few_key(9).id, false, f.now), ERR_OK);
    memset(have + 1, 7, 32);
    memset(later + 1, 7, 32);
    have[33] = 100;
    memset(have + 73, 0xff, 8);
    net_gossip_frame(f.g[0], 0, have, sizeof have, f.now);
    for (int k = 0; k <= LIMIT_LATERS; k++) {
        net_gossip_count(f.g[0], &c);
        assert_int_equal(c.pulls, 1 + k);
        assert_int_equal(c.pulls_failed, 0);
        net_gossip_frame(f.g[0], 0, later, sizeof later, f.now);
        few_actions(&f, 0);
        f.now += FEW_S;
        net_gossip_tick(f.g[0], f.now);
    }
    net_gossip_count(f.g[0], &c);
    assert_int_equal(c.pulls_failed, 1);
    assert_int_equal(c.pulls, 1 + LIMIT_LATERS);
    assert_int_equal(f.drops[0], 0);
    few_release(&f);
}

/* Fifty links that ask for all we hold, again and again, get no more of our time together than a few. */
static void answers_have_one_rate(void **state)
{
    (void)state;
    struct few f;
    struct net_rules r;
    uint8_t pull[1 + WIRE_ENTRY + 4] = {WIRE_PULL};
    const uint8_t author[32] = {1};
    enum { LINKS = 50 };
    scene(&f, &r, 1);
    for (uint32_t i = 0; i < LINKS; i++)
        assert_int_equal(net_gossip_link_up(f.g[0], i, few_key((uint8_t)(9 + i)).id, false, f.now), ERR_OK);
    pushes(&f, 0, author, 1000);
    memcpy(pull + 1, author, 32);
    memset(pull + 73, 0xff, 12);
    const uint64_t before = f.bytes;
    for (int k = 0; k < 100; k++)
        for (uint32_t i = 0; i < LINKS; i++) {
            net_gossip_frame(f.g[0], i, pull, sizeof pull, f.now);
            few_actions(&f, 0);
        }
    const uint64_t each = 2 * LIMIT_LINK_RATE + 100 * 37; /* its own, and LATER */
    assert_in_range(f.bytes - before, LIMIT_ANSWER_RATE, 2 * LIMIT_ANSWER_RATE + LINKS * each + LIMIT_PULL_BYTES);
    few_release(&f);
}

/* Segments of which nothing counts: all machines together get few of them checked, stored and passed on; what counts is not touched. */
static void what_counts_for_nothing_waits(void **state)
{
    (void)state;
    struct few f;
    struct net_rules r;
    struct net_gossip_counters c;
    const struct net_intern intern = {NULL, few_believe, few_believe, few_forget};
    uint8_t push[1 + 36 + NET_SEGMENT_BYTES_MAX] = {WIRE_SEGMENT_OF};
    scene(&f, &r, 1);
    net_gossip_set_intern(f.g[0], &intern);
    assert_int_equal(net_gossip_link_up(f.g[0], 0, few_key(9).id, false, f.now), ERR_OK);
    for (uint32_t k = 0; k < 2000; k++) { /* the first of as many machines, every other one void */
        struct net_segment s = {.count = 8, .lag = 8};
        memset(s.codes, k % 2 ? -128 : 1, sizeof s.codes);
        memcpy(push + 1, &k, 4);
        push[32] = 1;
        memcpy(push + 33, &k, 4);
        f.now += FEW_S / 1000;
        net_gossip_frame(f.g[0], 0, push, 37 + net_segment_write(push + 37, &s), f.now);
        few_actions(&f, 0);
    }
    net_gossip_count(f.g[0], &c);
    assert_in_range(c.segments_delayed, 1000 - 4 * LIMIT_IDLE_SEGMENTS - 10, 1000 - 4 * LIMIT_IDLE_SEGMENTS + 10);
    assert_int_equal(c.segments_new + c.segments_delayed, 2000);
    few_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_author_is_slowed_down),
        cmocka_unit_test(what_waited_is_pulled_later),
        cmocka_unit_test(a_joiner_is_not_closed),
        cmocka_unit_test(later_is_not_for_ever),
        cmocka_unit_test(answers_have_one_rate),
        cmocka_unit_test(what_counts_for_nothing_waits),
    };
    if (net_start() != ERR_OK)
        return 1;
    owner = few_key(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
