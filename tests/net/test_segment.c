/* The segment's wire: round trip, refusal of every truncation and flipped bit, the rules of SPEC 6.  Vectors: test_vectors.c. */
#include <onebyte/net/control.h>
#include <onebyte/net/segment.h>
#include <sodium.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static struct net_identity author;
static uint8_t author_sk[64];
static const uint8_t zeros[32];

static struct net_rules rules(void)
{
    struct net_rules r = {
        .n0 = 16, .steps = 100, .share_65536 = 65536, .burst = 4, .records_max = 1000, .k = 1};
    memset(r.run_id, 7, 32);
    memcpy(r.owner, author.id, 32);
    return r;
}

static struct net_segment sample(uint16_t count)
{
    struct net_segment s = {
        .count = count, .step = 3, .lag = 2000, .loss_f16 = 0x4100, .r_f16 = 0x3c00};
    for (uint16_t i = 0; i < count; i++)
        s.codes[i] = (int8_t)(i * 37 % 256 - 128);
    memset(s.binding, 5, 8);
    return s;
}

static void round_trip(void **state)
{
    (void)state;
    static const uint16_t counts[] = {1, 2, 255, 256, 1023, 1024};
    for (size_t c = 0; c < ARRAY_LEN(counts); c++) {
        const struct net_rules r = rules();
        struct net_segment s = sample(counts[c]), back;
        uint8_t wire[NET_SEGMENT_BYTES_MAX], again[NET_SEGMENT_BYTES_MAX];
        net_segment_sign(&s, &r, &author, zeros);
        const size_t n = net_segment_write(wire, &s);
        assert_int_equal(n, 104u + counts[c]);
        assert_int_equal(net_segment_parse(&back, wire, n), ERR_OK);
        assert_int_equal(net_segment_write(again, &back), n);
        assert_memory_equal(wire, again, n);
        assert_memory_equal(back.codes, s.codes, s.count);
    }
}

static void truncated_or_longer_is_refused(void **state)
{
    (void)state;
    const struct net_segment s = sample(30);
    struct net_segment back;
    uint8_t wire[NET_SEGMENT_BYTES_MAX + 1] = {0};
    memset(&back, 0xab, sizeof back);
    const struct net_segment untouched = back;
    const size_t n = net_segment_write(wire, &s);
    for (size_t k = 0; k <= n + 1; k++)
        if (k != n)
            assert_int_equal(net_segment_parse(&back, wire, k), ERR_PROTO);
    assert_memory_equal(&back, &untouched, sizeof back);
}

/* Every bit is covered by the structure or by the signature. */
static void flipped_bit_is_refused(void **state)
{
    (void)state;
    const struct net_rules r = rules();
    struct net_segment s = sample(20), back;
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    net_segment_sign(&s, &r, &author, zeros);
    const size_t n = net_segment_write(wire, &s);
    assert_int_equal(net_segment_check(&s, &r, author.id, zeros, 0, 0), ERR_OK);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        wire[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (net_segment_parse(&back, wire, n) == ERR_OK)
            assert_int_equal(net_segment_check(&back, &r, author.id, zeros, 0, 0), ERR_PROTO);
        wire[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* What is not on the wire is signed too: run, machine, full predecessor id. */
static void context_is_signed(void **state)
{
    (void)state;
    struct net_rules r = rules();
    uint8_t prev[32], other[32];
    memset(prev, 9, 32);
    struct net_segment s = sample(4);
    s.first_seq = 8;
    memcpy(s.prev, prev, 8);
    net_segment_sign(&s, &r, &author, prev);
    assert_int_equal(net_segment_check(&s, &r, author.id, prev, 8, 0), ERR_OK);
    memcpy(other, prev, 32);
    other[31] ^= 1; /* same first 8 bytes */
    assert_int_equal(net_segment_check(&s, &r, author.id, other, 8, 0), ERR_PROTO);
    r.run_id[0] ^= 1; /* an old feed cannot enter a new run */
    assert_int_equal(net_segment_check(&s, &r, author.id, prev, 8, 0), ERR_PROTO);
    r.run_id[0] ^= 1;
    struct net_identity stranger;
    assert_int_equal(net_identity_new(&stranger), ERR_OK);
    assert_int_equal(net_segment_check(&s, &r, stranger.id, prev, 8, 0), ERR_PROTO);
    net_identity_release(&stranger);
}

static void id_ignores_the_signature(void **state)
{
    (void)state;
    const struct net_rules r = rules();
    uint8_t a[32], b[32];
    struct net_segment s = sample(4);
    net_segment_id(a, &s, r.run_id, author.id, zeros);
    memset(s.sig, 1, 64);
    net_segment_id(b, &s, r.run_id, author.id, zeros);
    assert_memory_equal(a, b, 32);
    s.loss_f16 ^= 1;
    net_segment_id(b, &s, r.run_id, author.id, zeros);
    assert_memory_not_equal(a, b, 32);
}

static enum err signed_check(struct net_segment s, const struct net_rules *r,
                             const uint8_t prev[32], uint64_t end, uint32_t step)
{
    net_segment_sign(&s, r, &author, prev);
    return net_segment_check(&s, r, author.id, prev, end, step);
}

static void rules_of_the_chain(void **state)
{
    (void)state;
    struct net_rules r = rules();
    uint8_t prev[32];
    memset(prev, 9, 32);
    struct net_segment s = sample(6);
    s.first_seq = 12;
    memcpy(s.prev, prev, 8);
    assert_int_equal(signed_check(s, &r, prev, 12, 90), ERR_OK);
    assert_int_equal(signed_check(s, &r, prev, 11, 0), ERR_PROTO); /* not the predecessor's end */
    assert_int_equal(signed_check(s, &r, zeros, 12, 0),
                     ERR_PROTO); /* no predecessor, not the first */
    r.sync = true;
    assert_int_equal(signed_check(s, &r, prev, 12, 4), ERR_PROTO); /* step falls */
    assert_int_equal(signed_check(s, &r, prev, 12, 3), ERR_OK);
    r.k = 4;
    assert_int_equal(signed_check(s, &r, prev, 12, 0), ERR_PROTO); /* count */
    r.k = 6;
    assert_int_equal(signed_check(s, &r, prev, 12, 0), ERR_OK);
    s.first_seq = 15;
    assert_int_equal(signed_check(s, &r, prev, 15, 0), ERR_PROTO); /* first_seq */
    r.k = 1;
    r.records_max = 21;
    assert_int_equal(signed_check(s, &r, prev, 15, 0), ERR_OK);
    r.records_max = 20;
    assert_int_equal(signed_check(s, &r, prev, 15, 0), ERR_PROTO);
    s.first_seq = UINT64_MAX - 6;
    assert_int_equal(signed_check(s, &r, prev, UINT64_MAX - 6, 0), ERR_PROTO); /* no wrap */
    s = sample(6);
    s.lag = 5;
    r.records_max = 1000;
    assert_int_equal(signed_check(s, &r, zeros, 0, 0), ERR_PROTO); /* lag < count */
    s.lag = 6;
    assert_int_equal(signed_check(s, &r, zeros, 0, 0), ERR_OK);
    s.prev[0] = 1;
    assert_int_equal(signed_check(s, &r, zeros, 0, 0),
                     ERR_PROTO); /* first, but names a predecessor */
}

/* ---- control events ---- */

static void controls_round_trip(void **state)
{
    (void)state;
    const struct net_rules r = rules();
    uint8_t machine[32], frame[NET_CONTROL_BYTES_MAX], again[NET_CONTROL_BYTES_MAX];
    memset(machine, 3, 32);
    for (int kind = 0; kind < 3; kind++) {
        const size_t n = kind == 0 ? net_control_retract(frame, &r, &author, machine, 21)
                         : kind == 1
                             ? net_control_admit(frame, &r, &author, machine)
                             : net_control_checkpoint(frame, &r, &author, 5, machine, zeros);
        struct net_control c;
        assert_int_equal(net_control_parse(&c, frame, n), ERR_OK);
        assert_int_equal(net_control_check(&c, &r), ERR_OK);
        assert_int_equal(net_control_write(again, &c), n);
        assert_memory_equal(frame, again, n);
        for (size_t k = 0; k < n; k++)
            assert_int_equal(net_control_parse(&c, frame, k), ERR_PROTO);
        for (size_t bit = 0; bit < 8 * n; bit++) {
            frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (net_control_parse(&c, frame, n) == ERR_OK)
                assert_int_equal(net_control_check(&c, &r), ERR_PROTO);
            frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        struct net_rules other = r;
        other.owner[0] ^= 1;
        assert_int_equal(net_control_parse(&c, frame, n), ERR_OK);
        assert_int_equal(net_control_check(&c, &other), ERR_PROTO);
    }
}

static void fork_proof_round_trip(void **state)
{
    (void)state;
    struct net_control c = {.kind = NET_FORK, .a = sample(5), .b = sample(1024)}, back;
    uint8_t frame[NET_CONTROL_BYTES_MAX + 1], again[NET_CONTROL_BYTES_MAX];
    c.a.first_seq = c.b.first_seq = 77;
    memset(c.machine, 1, 32);
    memset(c.pred, 2, 32);
    const size_t n = net_control_write(frame, &c);
    assert_int_equal(net_control_parse(&back, frame, n), ERR_OK);
    assert_int_equal(back.seq, 77);
    assert_int_equal(net_control_write(again, &back), n);
    assert_memory_equal(frame, again, n);
    for (size_t k = 0; k <= n + 1; k++)
        if (k != n)
            assert_int_equal(net_control_parse(&back, frame, k), ERR_PROTO);
    c.b.first_seq = 78; /* not the same place */
    assert_int_equal(net_control_parse(&back, frame, net_control_write(frame, &c)), ERR_PROTO);
}

int main(void)
{
    uint8_t seed[32] = {1};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(truncated_or_longer_is_refused),
        cmocka_unit_test(flipped_bit_is_refused),
        cmocka_unit_test(context_is_signed),
        cmocka_unit_test(id_ignores_the_signature),
        cmocka_unit_test(rules_of_the_chain),
        cmocka_unit_test(controls_round_trip),
        cmocka_unit_test(fork_proof_round_trip),
    };
    author.sk = author_sk;
    if (net_start() != ERR_OK || crypto_sign_seed_keypair(author.id, author_sk, seed) != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
