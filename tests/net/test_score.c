/* Scores: their bytes, the table that holds them whatever is sent, who scores what, and how they travel. */
#include <onebyte/net/score.h>
#include "few.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

static struct net_score made(struct few_key *k, const struct net_rules *r, uint64_t number, uint32_t part, double loss)
{
    struct net_score s = {.number = number, .checkpoint = {(uint8_t)number}, .step = (uint32_t)number * 10, .part = part, .total = 160,
                          .finite = 10, .terms = 100, .choices = 10, .correct = 5};
    const struct net_identity i = few_identity(k);
    s.nats = (uint64_t)(loss * 100 * (1 << NET_SCORE_NATS_BITS));
    net_score_sign(&s, r, &i);
    return s;
}

static enum err take(struct net_scores *t, const struct net_rules *r, const struct net_score *s)
{
    uint8_t frame[NET_SCORE_BYTES];
    bool tell;
    net_score_write(frame, s);
    return net_scores_take(t, r, frame, sizeof frame, &tell);
}

static struct net_scores *table(uint64_t last)
{
    struct net_scores *t = NULL;
    assert_int_equal(net_scores_new(&t), ERR_OK);
    for (uint64_t n = 1; n <= last; n++)
        net_scores_checkpoint(t, n, (const uint8_t[8]){(uint8_t)n});
    return t;
}

static void every_changed_bit_is_refused(void **state)
{
    struct few_key owner = few_key(1), k = few_key(2);
    const struct net_rules r = few_rules(&owner);
    const struct net_score s = made(&k, &r, 3, 7, 2.5);
    struct net_score again;
    uint8_t frame[NET_SCORE_BYTES], copy[NET_SCORE_BYTES];
    (void)state;
    net_score_write(frame, &s);
    assert_int_equal(net_score_parse(&again, frame, sizeof frame), ERR_OK);
    assert_int_equal(net_score_check(&again, &r), ERR_OK);
    net_score_write(copy, &again);
    assert_memory_equal(frame, copy, sizeof frame);
    for (size_t n = 0; n < sizeof frame; n++)
        assert_int_equal(net_score_parse(&again, frame, n), ERR_PROTO);
    for (size_t bit = 0; bit < 8 * sizeof frame; bit++) {
        memcpy(copy, frame, sizeof frame);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(net_score_parse(&again, copy, sizeof copy) != ERR_OK || net_score_check(&again, &r) != ERR_OK);
    }
    struct net_rules other = r;
    other.run_id[0] ^= 1;
    assert_int_equal(net_score_check(&s, &other), ERR_PROTO);
}

static void impossible_sums_are_refused(void **state)
{
    struct few_key owner = few_key(1), k = few_key(2);
    const struct net_rules r = few_rules(&owner);
    struct net_score bad[8], out;
    uint8_t frame[NET_SCORE_BYTES];
    (void)state;
    for (size_t i = 0; i < 8; i++)
        bad[i] = made(&k, &r, 1, 0, 1);
    bad[0].finite = 11;                      /* more than the part has */
    bad[1].choices = 11;
    bad[2].correct = 11;
    bad[3].terms = 9;                       /* less than one a loss */
    bad[4].finite = 0;                       /* nats of nothing */
    bad[5].part = 16;
    bad[6].total = 15;                       /* part 0 is then empty */
    bad[7].nats = UINT64_MAX;
    for (size_t i = 0; i < 8; i++) {
        net_score_write(frame, &bad[i]);
        assert_int_equal(net_score_parse(&out, frame, sizeof frame), ERR_PROTO);
    }
    assert_int_equal(net_score_first(15, 0), 0);
    assert_int_equal(net_score_first(15, 1), 0);
    assert_int_equal(net_score_first(UINT32_MAX, NET_SCORE_PARTS), UINT32_MAX);
}

/* The same scores in any order make the same table, and no part holds more than its limit. */
static void order_does_not_matter(void **state)
{
    enum { MACHINES = 7, SCORES = MACHINES * 3 };
    struct few_key owner = few_key(1), k[MACHINES];
    const struct net_rules r = few_rules(&owner);
    struct net_score s[SCORES];
    struct net_score_point p[2];
    (void)state;
    for (uint8_t i = 0; i < MACHINES; i++) {
        k[i] = few_key((uint8_t)(10 + i));
        s[3 * i] = made(&k[i], &r, 5, 2, 1.0 + i);
        s[3 * i + 1] = made(&k[i], &r, 5, 2, 2.0 + i); /* says two things */
        s[3 * i + 2] = made(&k[i], &r, 4, 9, 3.0);
    }
    struct net_scores *t[2] = {table(5), table(5)};
    for (size_t i = 0; i < SCORES; i++) {
        (void)!take(t[0], &r, &s[i]);
        (void)!take(t[1], &r, &s[i * 8 % SCORES]); /* 8 and 21 share no factor */
    }
    for (size_t i = 0; i < SCORES; i++) /* nothing of it is new any more */
        assert_int_equal(take(t[0], &r, &s[i]), ERR_RANGE);
    for (uint64_t from = 4; from <= 5; from++) {
        for (size_t i = 0; i < 2; i++)
            assert_true(net_scores_point(t[i], from, &p[i]));
        assert_int_equal(p[0].number, from);
        assert_int_equal(p[0].reporters, LIMIT_SCORE_REPORTERS);
        assert_int_equal(p[0].parts, 1);
        assert_true(p[0].loss == p[1].loss);
        assert_true(p[0].spread == p[1].spread);
        assert_int_equal(net_scores_held(t[0], from), LIMIT_SCORE_REPORTERS);
    }
    assert_true(p[0].spread > 0);
    net_scores_free(t[0]);
    net_scores_free(t[1]);
}

static void only_known_checkpoints_have_a_place(void **state)
{
    struct few_key owner = few_key(1), k = few_key(2);
    const struct net_rules r = few_rules(&owner);
    struct net_score_point p;
    struct net_score s = made(&k, &r, 1, 0, 1);
    (void)state;
    struct net_scores *t = table(0);
    assert_int_equal(take(t, &r, &s), ERR_AGAIN); /* no checkpoint yet */
    assert_false(net_scores_point(t, 0, &p));
    assert_int_equal(net_scores_duty(t, 1, k.id, NULL, 0, 0, 0, 1), NET_SCORES_DONE);
    net_scores_checkpoint(t, 1, s.checkpoint);
    assert_int_equal(take(t, &r, &s), ERR_OK);
    s = made(&k, &r, 2, 0, 1);
    assert_int_equal(take(t, &r, &s), ERR_AGAIN);
    s.sig[3] ^= 1;
    net_scores_checkpoint(t, 2, s.checkpoint);
    assert_int_equal(take(t, &r, &s), ERR_PROTO);
    const uint64_t far = 1 + LIMIT_SCORE_CHECKPOINTS; /* the first one falls out of the window */
    assert_true(net_scores_point(t, 0, &p));
    net_scores_checkpoint(t, far, (const uint8_t[8]){0});
    assert_false(net_scores_point(t, 0, &p));
    s = made(&k, &r, 1, 0, 1);
    assert_int_equal(take(t, &r, &s), ERR_RANGE);
    net_scores_free(t);
}

static void parts_are_weighted_by_tokens(void **state)
{
    struct few_key owner = few_key(1), a = few_key(2), b = few_key(3), c = few_key(4);
    const struct net_rules r = few_rules(&owner);
    const struct net_identity i = few_identity(&a);
    struct net_score_point p;
    struct net_score s[4] = {made(&a, &r, 1, 0, 2), made(&a, &r, 1, 1, 4), made(&b, &r, 1, 1, 5), made(&c, &r, 1, 1, 100)};
    (void)state;
    struct net_scores *t = table(1);
    s[0].terms = 300; /* nats 200: a loss of 2/3 */
    s[0].finite = 9;
    net_score_sign(&s[0], &r, &i);
    s[3].checkpoint[0] ^= 1; /* of another state under the same number: not shown */
    const struct net_identity ic = few_identity(&c);
    net_score_sign(&s[3], &r, &ic);
    for (size_t n = 0; n < 4; n++)
        assert_int_equal(take(t, &r, &s[n]), ERR_OK);
    assert_true(net_scores_point(t, 0, &p));
    assert_int_equal(p.parts, 2);
    assert_int_equal(p.examples, 20);
    assert_int_equal(p.nonfinite, 1);
    assert_int_equal(p.total, 160);
    assert_int_equal(p.reporters, 2);
    assert_int_equal(p.compared, 1);
    assert_int_equal(p.step, 10);
    assert_true(fabs(p.spread - 1) < 1e-6);
    assert_true(fabs(p.loss - (200 + 450) / 400.0) < 1e-6);
    assert_true(p.accuracy == 0.5);
    net_scores_free(t);
}

/* Three machines share the parts, each part once and the common one by all; of one that is gone the others take over. */
static void parts_are_shared_out(void **state)
{
    enum { N = 3 };
    struct few_key owner = few_key(1), k[N];
    const struct net_rules r = few_rules(&owner);
    uint8_t all[N][32];
    uint32_t by[N] = {0}, turns = 0;
    struct net_score_point p;
    (void)state;
    struct net_scores *t = table(17);
    for (size_t i = 0; i < N; i++) {
        k[i] = few_key((uint8_t)(20 + i));
        memcpy(all[i], k[i].id, 32);
    }
    for (bool any = true; any; turns++) {
        any = false;
        for (size_t i = 0; i < N; i++) {
            const int part = net_scores_duty(t, 17, k[i].id, (const uint8_t(*)[32])all, N, 0, 0, 1000);
            if (part < 0)
                continue;
            const struct net_score s = made(&k[i], &r, 17, (uint32_t)part, 1);
            assert_int_equal(take(t, &r, &s), ERR_OK);
            by[i]++;
            any = true;
        }
    }
    assert_int_equal(by[0] + by[1] + by[2], NET_SCORE_PARTS + 2); /* part 17 % 16 three times */
    assert_true(by[0] > 1 && by[1] > 1 && by[2] > 1);
    assert_true(net_scores_point(t, 17, &p));
    assert_int_equal(p.examples, 160);
    assert_int_equal(p.compared, 1);
    assert_true(p.spread == 0);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(net_scores_duty(t, 17, k[i].id, (const uint8_t(*)[32])all, N, 0, 0, 1000), NET_SCORES_DONE);
    net_scores_checkpoint(t, 18, (const uint8_t[8]){18});
    uint32_t own = 0, waits = 0;
    for (int part; (part = net_scores_duty(t, 18, k[0].id, NULL, 0, 0, 0, 1000)) >= 0; own++) { /* the scorers are known now */
        const struct net_score s = made(&k[0], &r, 18, (uint32_t)part, 1);
        assert_int_equal(take(t, &r, &s), ERR_OK);
    }
    assert_true(own > 0 && own < NET_SCORE_PARTS);
    assert_int_equal(net_scores_duty(t, 18, k[0].id, NULL, 0, 0, 0, 1000), NET_SCORES_LATER);
    for (int part; (part = net_scores_duty(t, 18, k[0].id, NULL, 0, 0, 2000, 1000)) >= 0; waits++) { /* the two are gone */
        const struct net_score s = made(&k[0], &r, 18, (uint32_t)part, 1);
        assert_int_equal(take(t, &r, &s), ERR_OK);
    }
    assert_int_equal(own + waits, NET_SCORE_PARTS);
    net_scores_checkpoint(t, 19, (const uint8_t[8]){19});
    for (int part; (part = net_scores_duty(t, 19, k[0].id, NULL, 0, 0xfffe, 99000, 1000)) >= 0;) { /* all but part 0 are empty */
        assert_int_equal(part, 0);
        const struct net_score s = made(&k[0], &r, 19, 0, 1);
        assert_int_equal(take(t, &r, &s), ERR_OK);
    }
    net_scores_free(t);
}

/* ---- on their way ---- */

static void name_checkpoint(struct few *f, const struct net_rules *r, struct few_key *owner, uint64_t number, uint8_t id[8])
{
    uint8_t frame[NET_CONTROL_BYTES_MAX], full[32];
    struct net_control c;
    const struct net_identity i = few_identity(owner);
    const size_t n = net_control_checkpoint(frame, r, &i, number, (const uint8_t[32]){1}, (const uint8_t[32]){2});
    assert_int_equal(net_control_parse(&c, frame, n), ERR_OK);
    net_control_id(full, &c, r);
    memcpy(id, full, 8);
    assert_int_equal(net_gossip_control(f->g[0], frame, n, f->now), ERR_OK);
    few_actions(f, 0);
}

static void report(struct few *f, uint32_t at, const struct net_rules *r, struct few_key *k, uint64_t number, const uint8_t id[8],
                   uint32_t part)
{
    uint8_t frame[NET_SCORE_BYTES];
    struct net_score s = made(k, r, number, part, 2);
    const struct net_identity i = few_identity(k);
    memcpy(s.checkpoint, id, 8);
    net_score_sign(&s, r, &i);
    net_score_write(frame, &s);
    assert_int_equal(net_gossip_control(f->g[at], frame, sizeof frame, f->now), ERR_OK);
    few_actions(f, at);
}

static bool same(const struct few *f, uint32_t a, uint32_t b)
{
    uint8_t x[16], y[16];
    net_gossip_scores_digest(f->g[a], x);
    net_gossip_scores_digest(f->g[b], y);
    return memcmp(x, y, 16) == 0;
}

static void scores_reach_everybody_and_late_joiners(void **state)
{
    struct few_key owner = few_key(1), k[4] = {few_key(200), few_key(201), few_key(202), few_key(203)};
    const struct net_rules r = few_rules(&owner);
    struct net_score_point p;
    struct few f;
    uint8_t id[3][8];
    (void)state;
    few_init(&f);
    for (uint32_t i = 0; i < 4; i++)
        few_add(&f, &r, k[i].id);
    few_link(&f, 0, 1);
    few_link(&f, 1, 2);
    few_run(&f, 1);
    for (uint64_t n = 1; n <= 3; n++) {
        name_checkpoint(&f, &r, &owner, n, id[n - 1]);
        few_deliver(&f);
        for (uint32_t part = 0; part < NET_SCORE_PARTS; part++)
            report(&f, part % 3, &r, &k[part % 3], n, id[n - 1], part);
        few_deliver(&f);
    }
    assert_true(same(&f, 0, 1) && same(&f, 0, 2) && !same(&f, 0, 3));
    assert_int_equal(f.controls[2], 3 + 3 * NET_SCORE_PARTS); /* everything is stored once */
    few_link(&f, 2, 3);
    few_run(&f, 60);
    assert_true(same(&f, 0, 3));
    for (uint64_t n = 1; n <= 3; n++) {
        assert_true(net_scores_point(net_gossip_scores(f.g[3]), n, &p));
        assert_int_equal(p.examples, 160);
        assert_int_equal(p.reporters, 3);
    }
    f.lose = true; /* lost on the way: the comparison finds it */
    report(&f, 0, &r, &k[1], 3, id[2], 0);
    report(&f, 3, &r, &k[2], 2, id[1], 0);
    few_deliver(&f);
    f.lose = false;
    assert_false(same(&f, 0, 3));
    few_run(&f, 200);
    assert_true(same(&f, 0, 3) && same(&f, 1, 2) && same(&f, 0, 1));
    assert_int_equal(f.drops[0] + f.drops[1] + f.drops[2] + f.drops[3], 0);
    few_release(&f);
}

static void false_scores_cost_the_link(void **state)
{
    struct few_key owner = few_key(1), k[2] = {few_key(200), few_key(201)};
    const struct net_rules r = few_rules(&owner);
    struct few f;
    uint8_t id[8], wire[1 + NET_SCORE_BYTES] = {20};
    (void)state;
    few_init(&f);
    for (uint32_t i = 0; i < 2; i++)
        few_add(&f, &r, k[i].id);
    few_link(&f, 0, 1);
    few_run(&f, 1);
    name_checkpoint(&f, &r, &owner, 1, id);
    few_deliver(&f);
    const struct net_score future = made(&k[1], &r, 2, 0, 1);
    net_score_write(wire + 1, &future);
    net_gossip_frame(f.g[0], 1, wire, sizeof wire, f.now); /* of a checkpoint nobody signed: left out, no fault */
    few_actions(&f, 0);
    assert_int_equal(f.drops[0], 0);
    struct net_score forged = made(&k[1], &r, 1, 0, 1);
    forged.nats ^= 1;
    net_score_write(wire + 1, &forged);
    net_gossip_frame(f.g[0], 1, wire, sizeof wire, f.now);
    few_actions(&f, 0);
    assert_int_equal(f.drops[0], 1);
    assert_string_equal(f.drop_reason[0], "invalid score");
    few_release(&f);
}

static void uninvited_machines_report_nothing(void **state)
{
    struct few_key owner = few_key(1), k = few_key(200);
    struct net_rules r = few_rules(&owner);
    struct net_gossip *g = NULL;
    uint8_t frame[NET_SCORE_BYTES], control[NET_CONTROL_BYTES_MAX];
    const struct net_identity i = few_identity(&owner);
    (void)state;
    r.admission = NET_INVITE;
    assert_int_equal(net_gossip_new(&g, &r, owner.id, 1), ERR_OK);
    const size_t n = net_control_checkpoint(control, &r, &i, 1, (const uint8_t[32]){1}, (const uint8_t[32]){2});
    assert_int_equal(net_gossip_control(g, control, n, FEW_S), ERR_OK);
    const struct net_score s = made(&k, &r, 1, 0, 1);
    net_score_write(frame, &s);
    assert_int_equal(net_gossip_control(g, frame, sizeof frame, FEW_S), ERR_AGAIN);
    assert_int_equal(net_gossip_control(g, control, net_control_admit(control, &r, &i, k.id), FEW_S), ERR_OK);
    assert_int_equal(net_gossip_control(g, frame, sizeof frame, FEW_S), ERR_OK);
    assert_int_equal(net_gossip_control(g, frame, sizeof frame, FEW_S), ERR_RANGE);
    net_gossip_free(g);
}

/* A machine that is let in but has measured nothing has no feed for its admission to travel with. */
static void an_invited_machine_without_records_is_heard(void **state)
{
    struct few_key owner = few_key(1), k[3] = {few_key(200), few_key(201), few_key(202)};
    struct net_rules r = few_rules(&owner);
    uint8_t id[8], control[NET_CONTROL_BYTES_MAX];
    const struct net_identity i = few_identity(&owner);
    struct few f;
    (void)state;
    r.admission = NET_INVITE;
    few_init(&f);
    for (uint32_t n = 0; n < 3; n++)
        few_add(&f, &r, k[n].id);
    few_link(&f, 0, 1);
    few_run(&f, 1);
    name_checkpoint(&f, &r, &owner, 1, id);
    few_deliver(&f);
    f.lose = true; /* the admission's own way to the others */
    assert_int_equal(net_gossip_control(f.g[1], control, net_control_admit(control, &r, &i, k[1].id), f.now), ERR_OK);
    few_actions(&f, 1);
    few_deliver(&f);
    f.lose = false;
    report(&f, 1, &r, &k[1], 1, id, 3);
    few_deliver(&f);
    assert_true(same(&f, 0, 1));
    assert_int_equal(net_scores_held(net_gossip_scores(f.g[0]), 1), 1);
    few_link(&f, 0, 2); /* and by comparison, to one that joins later */
    few_run(&f, 60);
    assert_true(same(&f, 0, 2));
    few_release(&f);
}

/* What a cut machine said is dropped, whether the cut or the score comes first. */
static void cut_machines_report_nothing(void **state)
{
    struct few_key owner = few_key(1), k[3] = {few_key(200), few_key(201), few_key(202)};
    const struct net_rules r = few_rules(&owner);
    uint8_t id[8], control[NET_CONTROL_BYTES_MAX], frame[NET_SCORE_BYTES];
    const struct net_identity i = few_identity(&owner);
    struct net_score_point p;
    struct few f;
    (void)state;
    few_init(&f);
    for (uint32_t n = 0; n < 3; n++)
        few_add(&f, &r, k[n].id);
    few_link(&f, 0, 1);
    few_run(&f, 1);
    name_checkpoint(&f, &r, &owner, 1, id);
    few_deliver(&f);
    report(&f, 0, &r, &k[0], 1, id, 3);
    report(&f, 1, &r, &k[1], 1, id, 3);
    report(&f, 1, &r, &k[1], 1, id, 4);
    few_deliver(&f);
    assert_int_equal(net_scores_held(net_gossip_scores(f.g[0]), 1), 3);
    assert_int_equal(net_gossip_control(f.g[0], control, net_control_retract(control, &r, &i, k[1].id, 0), f.now), ERR_OK);
    few_actions(&f, 0);
    few_deliver(&f);
    assert_true(same(&f, 0, 1));
    assert_true(net_scores_point(net_gossip_scores(f.g[1]), 1, &p));
    assert_int_equal(p.parts, 1);
    assert_int_equal(p.reporters, 1);
    const struct net_score s = made(&k[1], &r, 1, 5, 1);
    net_score_write(frame, &s);
    assert_int_equal(net_gossip_control(f.g[0], frame, sizeof frame, f.now), ERR_RANGE);
    few_link(&f, 1, 2);
    few_run(&f, 60);
    assert_true(same(&f, 0, 2));
    few_release(&f);
}

/* One key that signs ever other scores of one part: all agree in the end, and the disk and the wire hardly notice. */
static void changed_minds_are_not_stored(void **state)
{
    struct few_key owner = few_key(1), k[3] = {few_key(200), few_key(201), few_key(202)};
    const struct net_rules r = few_rules(&owner);
    uint8_t id[8], frame[NET_SCORE_BYTES];
    struct few f;
    uint32_t taken = 0;
    (void)state;
    few_init(&f);
    for (uint32_t n = 0; n < 3; n++)
        few_add(&f, &r, k[n].id);
    few_link(&f, 0, 1);
    few_link(&f, 1, 2);
    few_run(&f, 1);
    name_checkpoint(&f, &r, &owner, 1, id);
    few_deliver(&f);
    for (uint32_t n = 0; n < 200; n++) {
        const struct net_score s = made(&k[0], &r, 1, 3, 1 + n);
        net_score_write(frame, &s);
        taken += net_gossip_control(f.g[0], frame, sizeof frame, f.now) == ERR_OK;
        few_actions(&f, 0);
        few_deliver(&f);
    }
    assert_true(taken > 2);
    assert_int_equal(f.controls[0], 2); /* the checkpoint, one score */
    few_run(&f, 120);
    assert_true(same(&f, 0, 1) && same(&f, 0, 2));
    assert_int_equal(f.controls[2], 2);
    for (uint8_t n = 0; n < 200; n++) { /* many keys, one part */
        struct few_key other = few_key((uint8_t)(2 + n % 190));
        struct net_score s = made(&other, &r, 1, 4, 1);
        net_score_write(frame, &s);
        (void)!net_gossip_control(f.g[0], frame, sizeof frame, f.now);
        few_actions(&f, 0);
    }
    few_run(&f, 120);
    assert_true(same(&f, 0, 2));
    assert_true(f.controls[0] <= 2 + LIMIT_SCORES_STORED);
    few_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_changed_bit_is_refused),
        cmocka_unit_test(impossible_sums_are_refused),
        cmocka_unit_test(order_does_not_matter),
        cmocka_unit_test(only_known_checkpoints_have_a_place),
        cmocka_unit_test(parts_are_weighted_by_tokens),
        cmocka_unit_test(parts_are_shared_out),
        cmocka_unit_test(scores_reach_everybody_and_late_joiners),
        cmocka_unit_test(false_scores_cost_the_link),
        cmocka_unit_test(uninvited_machines_report_nothing),
        cmocka_unit_test(an_invited_machine_without_records_is_heard),
        cmocka_unit_test(cut_machines_report_nothing),
        cmocka_unit_test(changed_minds_are_not_stored),
    };
    if (net_start() != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
