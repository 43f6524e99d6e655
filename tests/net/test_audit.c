/* Audits in the network's core: frames, signatures, the way of a question and its answer, and the records between two frontiers. */
#include "few.h"
#include "net/wire.h"
#include <onebyte/net/audit.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct few_key owner, author;
static struct net_rules rules;

static struct net_tell example(const uint8_t *bytes, size_t n, uint32_t total)
{
    struct net_tell t = {.offset = 80, .total = total, .bytes = bytes, .n = n};
    memset(t.machine, 1, 32);
    memset(t.id, 2, 32);
    memset(t.hash, 3, 32);
    memset(t.sig, 4, 64);
    return t;
}

static void frames_come_back(void **state)
{
    (void)state;
    uint8_t frame[NET_TELL_BYTES_MAX], again[NET_TELL_BYTES_MAX], bytes[NET_TELL_PIECE];
    struct net_ask a = {.hops = 3, .offset = 0x01020304}, b;
    memset(a.machine, 5, 32);
    memset(a.id, 6, 32);
    size_t n = net_ask_write(frame, &a);
    assert_int_equal(n, NET_ASK_BYTES);
    assert_int_equal(net_ask_parse(&b, frame, n), ERR_OK);
    assert_memory_equal(&a, &b, sizeof a);
    for (size_t cut = 0; cut < n; cut++)
        assert_int_equal(net_ask_parse(&b, frame, cut), ERR_PROTO);
    frame[1] = NET_AUDIT_HOPS + 1;
    assert_int_equal(net_ask_parse(&b, frame, n), ERR_PROTO);

    memset(bytes, 7, sizeof bytes);
    struct net_tell t = example(bytes, 160, 320), got;
    n = net_tell_write(frame, &t);
    assert_int_equal(net_tell_parse(&got, frame, n), ERR_OK);
    assert_int_equal(got.n, 160);
    assert_int_equal(net_tell_write(again, &got), n);
    assert_memory_equal(frame, again, n);
    for (size_t cut = 0; cut < NET_TELL_HEAD + 1; cut++) /* a shorter piece is a piece, but never none of a frontier */
        assert_int_equal(net_tell_parse(&got, frame, cut), ERR_PROTO);
    bytes_put_le(frame + 69, 160, 4); /* more bytes than the frontier has */
    assert_int_equal(net_tell_parse(&got, frame, n), ERR_PROTO);
    bytes_put_le(frame + 69, 321, 4); /* no whole entries */
    assert_int_equal(net_tell_parse(&got, frame, n), ERR_PROTO);
    t = example(bytes, 0, 0);
    t.offset = 0;
    assert_int_equal(net_tell_parse(&got, frame, net_tell_write(frame, &t)), ERR_OK);
}

static void only_the_author_signs(void **state)
{
    (void)state;
    uint8_t id[32] = {1}, hash[32] = {2}, sig[64];
    const struct net_identity me = few_identity(&author);
    net_audit_sign(sig, &rules, &me, id, hash);
    assert_int_equal(net_audit_check(sig, &rules, author.id, id, hash), ERR_OK);
    assert_int_equal(net_audit_check(sig, &rules, owner.id, id, hash), ERR_PROTO);
    struct net_rules other = rules;
    other.run_id[0] ^= 1;
    assert_int_equal(net_audit_check(sig, &other, author.id, id, hash), ERR_PROTO);
    id[5] ^= 1;
    assert_int_equal(net_audit_check(sig, &rules, author.id, id, hash), ERR_PROTO);
    id[5] ^= 1;
    hash[31] ^= 1;
    assert_int_equal(net_audit_check(sig, &rules, author.id, id, hash), ERR_PROTO);
}

/* ---- the way ---- */

static unsigned asked_at[FEW_MAX], told_at[FEW_MAX], none_at[FEW_MAX];
static uint32_t told_offset;

/* Everybody answers what it is asked with 80 bytes of its own number. */
static void answer(struct few *f, uint32_t i, const struct net_action *a)
{
    uint8_t bytes[80];
    struct net_ask ask;
    struct net_tell t;
    if (a->kind == NET_ASKED) {
        assert_int_equal(net_ask_parse(&ask, a->frame, a->frame_bytes), ERR_OK);
        asked_at[i]++;
        memset(bytes, (int)i, sizeof bytes);
        t = example(bytes, sizeof bytes, 80 + ask.offset);
        t.offset = ask.offset;
        memcpy(t.machine, f->id[i], 32);
        memcpy(t.id, ask.id, 32);
        net_gossip_tell(f->g[i], a->link, &t);
    }
    if (a->kind == NET_TOLD) {
        assert_int_equal(net_tell_parse(&t, a->frame, a->frame_bytes), ERR_OK);
        told_at[i]++;
        none_at[i] += t.total == 0;
        told_offset = t.offset;
    }
}

static void line(struct few *f, uint32_t n)
{
    memset(asked_at, 0, sizeof asked_at);
    memset(told_at, 0, sizeof told_at);
    memset(none_at, 0, sizeof none_at);
    few_init(f);
    f->also = answer;
    for (uint32_t i = 0; i < n; i++)
        few_add(f, &rules, few_key((uint8_t)(200 + i)).id);
    for (uint32_t i = 0; i + 1 < n; i++)
        few_link(f, i, i + 1);
    few_run(f, 1);
}

static void seals(struct few *f, uint32_t i)
{
    struct few_key k = few_key((uint8_t)(200 + i));
    uint8_t wire[NET_SEGMENT_BYTES_MAX], id[32];
    static const uint8_t none[32];
    const size_t n = few_segment(wire, id, &rules, &k, none, 0, 5, 1, i);
    assert_int_equal(net_gossip_own(f->g[i], wire, n, f->now), ERR_OK);
    few_actions(f, i);
    few_run(f, 2);
}

static void question_and_answer_pass_through(void **state)
{
    (void)state;
    struct few f;
    struct net_gossip_counters c;
    const uint8_t id[32] = {9};
    line(&f, 5);
    seals(&f, 4);
    assert_int_equal(net_gossip_ask(f.g[0], f.id[4], id, 160, 0, f.now), ERR_OK);
    few_actions(&f, 0);
    few_deliver(&f);
    assert_int_equal(asked_at[4], 1);
    assert_int_equal(told_at[0], 1);
    assert_int_equal(none_at[0], 0);
    assert_int_equal(told_offset, 160);
    for (uint32_t i = 1; i < 4; i++) {
        assert_int_equal(asked_at[i] + told_at[i], 0);
        net_gossip_count(f.g[i], &c);
        assert_int_equal(c.audits_relayed, 1);
    }
    /* a machine nobody knows: the first neighbour says at once that it knows no way */
    const struct few_key nobody = few_key(99);
    assert_int_equal(net_gossip_ask(f.g[0], nobody.id, id, 0, 0, f.now), ERR_OK);
    few_actions(&f, 0);
    few_deliver(&f);
    assert_int_equal(told_at[0], 2);
    assert_int_equal(none_at[0], 1);
    few_release(&f);
}

static void questions_are_limited(void **state)
{
    (void)state;
    struct few f;
    uint8_t id[32] = {0};
    struct net_gossip_counters c;
    line(&f, 3);
    seals(&f, 2);
    f.lose = true; /* no answer ever comes */
    for (unsigned i = 0; i < 3 * LIMIT_AUDITS; i++) {
        id[0] = (uint8_t)i;
        const enum err e = net_gossip_ask(f.g[0], f.id[2], id, 0, 0, f.now);
        assert_int_equal(e, i < LIMIT_LINK_AUDITS ? ERR_OK : ERR_AGAIN);
        few_actions(&f, 0);
    }
    f.now += 11 * FEW_S; /* they are forgotten */
    assert_int_equal(net_gossip_ask(f.g[0], f.id[2], id, 0, 0, f.now), ERR_OK);
    few_actions(&f, 0);

    /* what came by one link and is passed on; beyond it nobody is asked */
    uint8_t frame[NET_ASK_BYTES];
    struct net_ask a = {.hops = 5};
    memcpy(a.machine, f.id[2], 32);
    for (unsigned i = 0; i < 3 * LIMIT_AUDITS; i++) {
        a.id[1] = (uint8_t)i;
        net_gossip_frame(f.g[1], 1, frame, net_ask_write(frame, &a), f.now);
        few_actions(&f, 1);
    }
    net_gossip_count(f.g[1], &c);
    assert_int_equal(c.audits_relayed, LIMIT_LINK_AUDITS);
    assert_int_equal(c.frames_malformed, 0);
    few_release(&f);
}

static void answers_nobody_wanted(void **state)
{
    (void)state;
    struct few f;
    uint8_t frame[NET_TELL_BYTES_MAX], bytes[80] = {0};
    struct net_gossip_counters c;
    line(&f, 3);
    seals(&f, 2);
    struct net_tell t = example(bytes, 80, 160);
    memcpy(t.machine, f.id[2], 32);
    net_gossip_frame(f.g[0], 1, frame, net_tell_write(frame, &t), f.now);
    few_actions(&f, 0);
    assert_int_equal(told_at[0], 0);
    net_gossip_count(f.g[0], &c);
    assert_int_equal(c.audits_unasked, 1);
    /* no hops left, or back where it came from: not passed on */
    struct net_ask a = {.hops = 0};
    memcpy(a.machine, f.id[2], 32);
    net_gossip_frame(f.g[1], 1, frame, net_ask_write(frame, &a), f.now);
    few_actions(&f, 1);
    few_deliver(&f);
    assert_int_equal(asked_at[2], 0);
    frame[0] = WIRE_AUDIT_TELL;
    net_gossip_frame(f.g[1], 1, frame, 20, f.now);
    net_gossip_count(f.g[1], &c);
    assert_int_equal(c.frames_malformed, 1);
    few_actions(&f, 1);
    few_release(&f);
}

/* ---- between two frontiers ---- */

enum { AUTHORS = 3, STEPS = 60, SEGMENTS = 400 };

struct past {
    struct net_frontier_entry e[AUTHORS];
    uint64_t sum;
};

static struct net_branch made[SEGMENTS]; /* every segment there ever was */
static uint8_t wires[SEGMENTS][NET_SEGMENT_BYTES_MAX];
static size_t n_made;

static void add_row(void *ctx, const uint8_t machine[32], const struct net_segment *s, const uint8_t *counts, bool subtract)
{
    uint64_t *sum = ctx;
    *sum += subtract ? 0 - few_sum(machine, s, counts) : few_sum(machine, s, counts);
}

static struct past now_of(const struct few *f, struct few_key *authors)
{
    struct past p = {.sum = few_state_again(f, 0)};
    for (unsigned i = 0; i < AUTHORS; i++) {
        p.e[i] = (struct net_frontier_entry){.cut = UINT64_MAX};
        memcpy(p.e[i].machine, authors[i].id, 32);
        (void)net_gossip_feed(f->g[0], authors[i].id, &p.e[i]);
    }
    return p;
}

static void appends(struct few *f, struct few_key *k, uint16_t count, uint64_t salt)
{
    struct net_frontier_entry e = {.cut = UINT64_MAX};
    uint8_t id[32];
    (void)net_gossip_feed(f->g[0], k->id, &e);
    if (e.count >= e.cut || n_made == SEGMENTS)
        return;
    struct net_branch *b = &made[n_made];
    b->n = few_segment(wires[n_made], id, &rules, k, e.head, e.count, count, (uint32_t)(salt / 20), salt);
    b->wire = wires[n_made++];
    memcpy(b->machine, k->id, 32);
    assert_int_equal(net_gossip_load(f->g[0], k->id, b->wire, b->n), ERR_OK);
    few_actions(f, 0);
}

static void cuts(struct few *f, const struct few_key *k, uint64_t seq)
{
    uint8_t frame[NET_CONTROL_BYTES_MAX];
    const struct net_identity o = few_identity(&owner);
    (void)!net_gossip_control(f->g[0], frame, net_control_retract(frame, &rules, &o, k->id, seq), f->now);
    few_actions(f, 0);
}

/* A history of appended segments and falling cuts, in a run whose share cap bites: from the present, every state of the past is
 * reached, exactly, and from nothing, too. */
static void every_past_is_reached(void **state)
{
    (void)state;
    static struct past past[STEPS];
    struct few f;
    struct few_key authors[AUTHORS];
    const struct net_rules before = rules;
    size_t gone = 0;
    rules.burst = 4; /* 64 records and 16 a step */
    for (uint64_t seed = 1; seed <= 8; seed++) {
        few_init(&f);
        few_add(&f, &rules, few_key(200).id);
        n_made = 0;
        for (unsigned i = 0; i < AUTHORS; i++)
            authors[i] = few_key((uint8_t)(10 + i));
        uint64_t x = seed * 977;
        for (unsigned s = 0; s < STEPS; s++) {
            x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
            struct few_key *k = &authors[(x >> 33) % AUTHORS];
            struct net_frontier_entry e = {.count = 0};
            past[s] = now_of(&f, authors);
            (void)net_gossip_feed(f.g[0], k->id, &e);
            if ((x >> 40) % 8 == 0 && e.count > 3)
                cuts(&f, k, (e.cut < e.count ? e.cut : e.count) - 1 - (x >> 50) % (e.count / 3));
            else
                appends(&f, k, (uint16_t)(1 + (x >> 45) % 9), s * 7 + 1);
        }
        const struct past last = now_of(&f, authors);
        for (unsigned s = 0; s < STEPS; s++) {
            uint64_t there = last.sum, fresh = 0;
            for (unsigned i = 0; i < AUTHORS; i++) {
                struct net_frontier_entry none = {.cut = UINT64_MAX};
                memcpy(none.machine, authors[i].id, 32);
                assert_int_equal(net_gossip_between(f.g[0], &last.e[i], &past[s].e[i], made, n_made, add_row, &there), ERR_OK);
                assert_int_equal(net_gossip_between(f.g[0], &none, &past[s].e[i], made, n_made, add_row, &fresh), ERR_OK);
                uint64_t untouched = 5;
                const enum err e = net_gossip_between(f.g[0], &last.e[i], &past[s].e[i], NULL, 0, add_row, &untouched);
                gone += e == ERR_NOTFOUND;
                assert_true(e == ERR_OK || (e == ERR_NOTFOUND && untouched == 5));
            }
            assert_int_equal(there, past[s].sum);
            assert_int_equal(fresh, past[s].sum);
        }
        few_release(&f);
    }
    assert_true(gone > 0); /* some of it is only on branches */
    rules = before;
}

/* What the frontier names is found by hashes: a damaged or another branch does not pass for it. */
static void false_branches_are_not_taken(void **state)
{
    (void)state;
    struct few f;
    uint64_t sum = 0;
    struct net_frontier_entry none = {.cut = UINT64_MAX}, was;
    few_init(&f);
    few_add(&f, &rules, few_key(200).id);
    n_made = 0;
    for (unsigned i = 0; i < 6; i++)
        appends(&f, &author, 4, i);
    assert_true(net_gossip_feed(f.g[0], author.id, &was));
    memcpy(none.machine, author.id, 32);
    cuts(&f, &author, 9);
    assert_int_equal(net_gossip_between(f.g[0], &none, &was, made, n_made, add_row, &sum), ERR_OK);
    wires[4][NET_SEGMENT_HEAD] ^= 1; /* one code */
    assert_int_equal(net_gossip_between(f.g[0], &none, &was, made, n_made, add_row, &sum), ERR_NOTFOUND);
    wires[4][NET_SEGMENT_HEAD] ^= 1;
    was.head[7] ^= 1;
    assert_int_equal(net_gossip_between(f.g[0], &none, &was, made, n_made, add_row, &sum), ERR_NOTFOUND);
    few_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_come_back),
        cmocka_unit_test(only_the_author_signs),
        cmocka_unit_test(question_and_answer_pass_through),
        cmocka_unit_test(questions_are_limited),
        cmocka_unit_test(answers_nobody_wanted),
        cmocka_unit_test(every_past_is_reached),
        cmocka_unit_test(false_branches_are_not_taken),
    };
    if (net_start() != ERR_OK)
        return 1;
    owner = few_key(1);
    author = few_key(2);
    rules = few_rules(&owner);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
