/* SPEC 5 against a record-by-record reading of it. */
#include "net/count.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static uint64_t random_state = 5;
static uint64_t rnd(uint64_t n)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (random_state >> 33) % n;
}

/* The text of SPEC 5, one record at a time, floor division as written. */
static uint32_t by_the_book(uint8_t *counts, const struct net_segment *s, const struct net_rules *r,
                            net_u128 *c, uint64_t cut)
{
    const net_u128 w = ((net_u128)r->n0 << 32) / (r->n0 > s->lag ? r->n0 : s->lag);
    const net_u128 at = s->step < r->steps ? s->step : r->steps;
    const net_u128 cap =
        (net_u128)r->share_65536 * r->n0 * (at + r->burst) * ((net_u128)1 << 32) / 65536;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        counts[i] = s->codes[i] != -128 && s->first_seq + i < cut && *c + w <= cap;
        if (counts[i]) {
            *c += w;
            n++;
        }
    }
    return n;
}

static void random_feeds(void **state)
{
    (void)state;
    for (int feed = 0; feed < 2000; feed++) {
        struct net_rules r = {
            .n0 = 1 + rnd(64), .steps = 1 + rnd(25), .share_65536 = 1 + rnd(65536), .burst = rnd(8)};
        net_u128 c = 0;
        uint64_t before = 0, seq = 0;
        const uint64_t cut = rnd(3) ? NET_NO_CUT : rnd(300);
        for (int k = 0; k < 12; k++) {
            uint8_t want[LIMIT_SEGMENT_COUNT], got[LIMIT_SEGMENT_COUNT];
            struct net_segment s = {
                .first_seq = seq, .count = (uint16_t)(1 + rnd(60)), .step = (uint32_t)rnd(20)};
            s.lag = s.count + (uint32_t)rnd(200);
            for (uint32_t i = 0; i < s.count; i++)
                s.codes[i] = (int8_t)(rnd(4) ? (int)rnd(255) - 127 : -128);
            const uint32_t n = by_the_book(want, &s, &r, &c, cut);
            assert_int_equal(net_count_segment(got, &s, &r, before, cut), n);
            assert_memory_equal(got, want, s.count);
            before += n * net_weight(r.n0, s.lag);
            assert_true(before == c);
            seq += s.count;
        }
    }
}

static void edges(void **state)
{
    (void)state;
    struct net_rules r = {.n0 = 1, .steps = UINT32_MAX, .share_65536 = 65536, .burst = 0};
    assert_int_equal(net_weight(16, 16), UINT64_C(1) << 32);
    assert_int_equal(net_weight(16, 1), UINT64_C(1) << 32);
    assert_int_equal(net_weight(1, UINT32_MAX), 1);
    assert_int_equal(net_weight(UINT64_C(1) << 62, UINT32_MAX), UINT64_C(1) << 32);
    assert_int_equal(net_count_room(&r, 0, UINT64_C(1) << 32, 0),
                     0); /* no step, no burst: nothing */
    assert_int_equal(net_count_room(&r, 1, UINT64_C(1) << 32, 0), 1); /* exactly full counts */
    assert_int_equal(net_count_room(&r, 1, UINT64_C(1) << 32, 1), 0);
    assert_int_equal(net_count_room(&r, 1, 1, UINT64_MAX), 0);
    r = (struct net_rules){
        .n0 = INT64_MAX, .steps = INT64_MAX, .share_65536 = 65536, .burst = INT64_MAX}; /* beyond 128 bits: no cap */
    assert_int_equal(net_count_room(&r, UINT32_MAX, 1, 0), UINT64_MAX);
    assert_int_equal(net_clock_step(0, 16), 0);
    assert_int_equal(net_clock_step(((net_u128)16 << 32) - 1, 16), 0);
    assert_int_equal(net_clock_step((net_u128)16 << 32, 16), 1);
    assert_int_equal(net_clock_step(~(net_u128)0, 1), UINT64_MAX); /* saturates */
}

/* A refused record adds nothing, and a later one may count: under a later step. */
static void later_may_count(void **state)
{
    (void)state;
    const struct net_rules r = {.n0 = 4, .steps = 10, .share_65536 = 65536, .burst = 1};
    uint8_t counts[8];
    struct net_segment s = {.count = 8, .lag = 8, .codes = {1, 2, 3, 4, 5, 6, 7, 8}};
    assert_int_equal(net_count_segment(counts, &s, &r, 0, NET_NO_CUT), 8); /* w = 1/2, cap = 4 */
    const uint64_t full = 8 * net_weight(4, 8);
    s.first_seq = 8;
    assert_int_equal(net_count_segment(counts, &s, &r, full, NET_NO_CUT), 0);
    s.step = 1;
    assert_int_equal(net_count_segment(counts, &s, &r, full, NET_NO_CUT), 8);
    assert_int_equal(net_count_segment(counts, &s, &r, full, 11), 3);
}

/* A liar's step: whatever a machine declares, it gets share n0 (steps + burst) of the run and no more. */
static void steps_beyond_the_last_buy_nothing(void **state)
{
    (void)state;
    const struct net_rules r = {.n0 = 4, .steps = 10, .share_65536 = 16384, .burst = 2};
    const uint64_t w = net_weight(4, 4);
    assert_int_equal(net_count_room(&r, 10, w, 0), 12); /* a quarter of 4 (10 + 2) */
    assert_int_equal(net_count_room(&r, 11, w, 0), 12);
    assert_int_equal(net_count_room(&r, UINT32_MAX, w, 0), 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_feeds), cmocka_unit_test(edges),
                                       cmocka_unit_test(steps_beyond_the_last_buy_nothing),
                                       cmocka_unit_test(later_may_count)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
