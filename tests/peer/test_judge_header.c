/* What a header must say, given the state that its author signed: its own records, and the step. */
#include "peer/judge.h"
#include <onebyte/base/bytes.h>
#include <onebyte/net/control.h>
#include <onebyte/net/id.h>
#include <onebyte/net/rules.h>
#include <onebyte/net/segment.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

enum { N0 = 16, COUNT = 8, SEGMENTS = 5, OTHERS = 4 };

struct world {
    struct net_rules rules;
    struct net_identity author, other;
    struct net_gossip *g;
    struct net_segment s[SEGMENTS]; /* the author's */
    uint8_t id[SEGMENTS][32], other_id[OTHERS][32];
};

static void load(struct world *w, const struct net_identity *who, struct net_segment *s, uint8_t id[32], const uint8_t prev[32])
{
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    memcpy(s->prev, prev, 8);
    net_segment_sign(s, &w->rules, who, prev);
    net_segment_id(id, s, w->rules.run_id, who->id, prev);
    assert_int_equal(net_gossip_load(w->g, who->id, wire, net_segment_write(wire, s)), ERR_OK);
}

/* OTHERS segments of 16 records of another machine: a step each, beside the author's, of which the last has this lag and step. */
static void make(struct world *w, uint32_t lag, uint32_t step, bool sync)
{
    static const uint8_t none[32];
    memset(w, 0, sizeof *w);
    w->rules = (struct net_rules){.n0 = N0, .steps = 1000, .share_65536 = 65536, .burst = 100, .records_max = 1u << 20, .k = 1, .sync = sync};
    memset(w->rules.run_id, 3, 32);
    assert_int_equal(net_identity_new(&w->author), ERR_OK);
    assert_int_equal(net_identity_new(&w->other), ERR_OK);
    memcpy(w->rules.owner, w->other.id, 32);
    assert_int_equal(net_gossip_new(&w->g, &w->rules, w->other.id, 0), ERR_OK);
    for (uint32_t i = 0; i < OTHERS; i++) {
        struct net_segment s = {.first_seq = i * 16, .count = 16, .lag = 16};
        load(w, &w->other, &s, w->other_id[i], i ? w->other_id[i - 1] : none);
    }
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        const bool last = i + 1 == SEGMENTS;
        w->s[i] = (struct net_segment){.first_seq = i * COUNT, .count = COUNT, .lag = last ? lag : COUNT, .step = last || sync ? step : 0};
        w->s[i].codes[1] = -128; /* void: counts for nothing */
        load(w, &w->author, &w->s[i], w->id[i], i ? w->id[i - 1] : none);
    }
}

static void end(struct world *w)
{
    net_gossip_free(w->g);
    net_identity_release(&w->author);
    net_identity_release(&w->other);
}

/* The verdict on the author's last segment, if it was measured at its own first `own` segments and `others` of the other machine. */
static const char *judged(const struct world *w, uint32_t own, uint32_t others)
{
    uint8_t frontier[160];
    size_t n = 0;
    const struct net_identity *const who[2] = {&w->author, &w->other};
    const uint64_t count[2] = {own * COUNT, others * 16};
    const uint8_t *head[2] = {own ? w->id[own - 1] : NULL, others ? w->other_id[others - 1] : NULL};
    const size_t first = memcmp(w->author.id, w->other.id, 32) > 0;
    for (size_t k = 0; k < 2; k++) {
        const size_t i = k ^ first;
        if (count[i] == 0)
            continue;
        memcpy(frontier + n, who[i]->id, 32);
        bytes_put_le(frontier + n + 32, count[i], 8);
        memcpy(frontier + n + 40, head[i], 32);
        memset(frontier + n + 72, 0xff, 8);
        n += 80;
    }
    return peer_judge_header(w->g, &w->rules, w->author.id, w->id[SEGMENTS - 1], &w->s[SEGMENTS - 1], frontier, n);
}

static void a_stale_state_called_fresh_is_seen(void **state)
{
    (void)state;
    struct world w;
    make(&w, COUNT, 1, false); /* fresh, it says; 28 of its records and the other's make the clock */
    assert_null(judged(&w, 4, 0));
    assert_non_null(judged(&w, 3, 1));
    assert_non_null(strstr(judged(&w, 3, 1), "stale"));
    assert_non_null(strstr(judged(&w, 0, 1), "stale"));
    end(&w);
    make(&w, COUNT + 7, 1, false); /* seven of the eight of one segment count: it says so */
    assert_null(judged(&w, 3, 0));
    assert_non_null(strstr(judged(&w, 2, 0), "stale"));
    end(&w);
    make(&w, COUNT + 6, 1, false);
    assert_non_null(strstr(judged(&w, 3, 0), "stale"));
    end(&w);
}

static void a_step_of_another_state_is_seen(void **state)
{
    (void)state;
    struct world w;
    make(&w, COUNT, 3, false);
    assert_null(judged(&w, 4, 2)); /* 28 + 32 records: step 3 */
    assert_non_null(strstr(judged(&w, 4, 4), "step")); /* 5: it said less */
    assert_non_null(strstr(judged(&w, 4, 1), "step")); /* 2: it said more, and that nothing came since */
    end(&w);
    make(&w, COUNT + 16, 3, false);
    assert_null(judged(&w, 4, 1)); /* 16 records came since */
    assert_non_null(strstr(judged(&w, 4, 4), "step")); /* never less */
    end(&w);
    make(&w, COUNT + 16, 5, false);
    assert_non_null(strstr(judged(&w, 4, 1), "step")); /* 2, and 16 more make 3 at most */
    end(&w);
    make(&w, COUNT, 7, true); /* sync: the step is the round */
    assert_null(judged(&w, 4, 4));
    end(&w);
}

static void nothing_is_said_without_the_whole_picture(void **state)
{
    (void)state;
    struct world w;
    uint8_t frame[NET_CONTROL_BYTES_MAX];
    make(&w, COUNT, 1, false);
    assert_non_null(judged(&w, 4, 4));
    /* The other machine is cut: the clock went back, and the author may have known. */
    const size_t n = net_control_retract(frame, &w.rules, &w.other, w.other.id, 16);
    assert_int_equal(net_gossip_load_control(w.g, frame, n), ERR_OK);
    assert_null(judged(&w, 4, 4));
    assert_non_null(strstr(judged(&w, 2, 1), "stale")); /* its own records have nothing to do with that */
    /* The author's own chain is cut before the segment. */
    const size_t m = net_control_retract(frame, &w.rules, &w.other, w.author.id, 16);
    assert_int_equal(net_gossip_load_control(w.g, frame, m), ERR_OK);
    assert_null(judged(&w, 2, 1));
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stale_state_called_fresh_is_seen),
        cmocka_unit_test(a_step_of_another_state_is_seen),
        cmocka_unit_test(nothing_is_said_without_the_whole_picture),
    };
    if (net_start() != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
