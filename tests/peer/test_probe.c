/* What init measures: the walk's length against noise that is made here in another way, and that nothing else changes. */
#include "peer/make.h"
#include "peer/plan.h"
#include "peer/probe.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MODEL "peer/demo/model"
#define TRAIN "peer/demo/train.jsonl"
enum { NOISES = 24, EXAMPLES = 64 };

static struct peer_manifest made_run(struct peer_made *made, double lr, const char *trainable, double unit)
{
    struct peer_manifest m;
    struct net_identity owner;
    struct peer_make k;
    struct err_why why;
    assert_int_equal(net_identity_new(&owner), ERR_OK);
    peer_make_defaults(&k);
    k.flags.model = MODEL;
    k.data = TRAIN;
    k.lr = lr;
    k.trainable = trainable;
    k.unit = unit;
    if (peer_make_manifest(&m, made, &k, &owner, &why) != ERR_OK)
        fail_msg("%s", why.text);
    net_identity_release(&owner);
    return m;
}

static double mean_loss(struct peer_engine *e, const struct zo_dataset *d)
{
    struct peer_eval got;
    assert_int_equal(peer_engine_eval(e, d, EXAMPLES, 16, NULL, NULL, &got), ERR_OK);
    return got.loss_example_mean;
}

/* theta0 + length * sign * an own random sign for every entry of every tensor. */
static void put(struct peer_engine *e, float *const *theta0, double length, uint64_t seed)
{
    uint64_t x = seed;
    for (uint32_t t = 0; t < e->state->rules->n_tensors; t++) {
        const size_t n = (size_t)zo_tensor_elements(&e->state->rules->tensors[t]);
        float *theta = malloc(n * sizeof *theta);
        assert_non_null(theta);
        for (size_t i = 0; i < n; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            theta[i] = theta0[t][i] + (float)(x >> 63 ? length : -length);
        }
        assert_int_equal(zo_state_load_f32(e->state, t, 0, theta, n), ERR_OK);
        free(theta);
    }
    assert_int_equal(zo_model_refresh(e->model, e->pool), ERR_OK);
}

/* The mean rise of the loss under dense noise of that length, there and back. */
static double cost(struct peer_engine *e, const struct zo_dataset *d, double length)
{
    float *theta0[LIMIT_TENSORS] = {0};
    const double base = mean_loss(e, d);
    double sum = 0;
    for (uint32_t t = 0; t < e->state->rules->n_tensors; t++) {
        const size_t n = (size_t)zo_tensor_elements(&e->state->rules->tensors[t]);
        theta0[t] = malloc(n * sizeof *theta0[t]);
        assert_non_null(theta0[t]);
        zo_state_read_f32(e->state, t, 0, theta0[t], n);
    }
    for (uint64_t i = 0; i < NOISES; i++) {
        put(e, theta0, length, 1000 + i);
        const double there = mean_loss(e, d);
        put(e, theta0, -length, 1000 + i);
        sum += (there + mean_loss(e, d)) / 2 - base;
    }
    for (uint32_t t = 0; t < e->state->rules->n_tensors; t++)
        free(theta0[t]);
    return sum / NOISES;
}

static void the_walk_costs_what_it_says(void **state)
{
    struct peer_made made;
    struct peer_manifest m = made_run(&made, -1, NULL, 0);
    struct peer_engine e;
    struct zo_dataset *d;
    struct err_why why;
    const struct peer_engine_options o = {.model_dir = MODEL, .threads = 1};
    (void)state;
    assert_int_equal(peer_engine_open(&e, &m, &o, &why), ERR_OK);
    assert_int_equal(peer_engine_data(&e, &d, TRAIN, &why), ERR_OK);
    assert_true(made.probe.noise > 0);
    const double got = cost(&e, d, made.probe.noise);
    if (!(got > PEER_PROBE_NATS / 2 && got < PEER_PROBE_NATS * 2))
        fail_msg("noise of %g costs %g nats", made.probe.noise, got);
    zo_dataset_free(d);
    peer_engine_close(&e);
    peer_manifest_free(&m);
}

static void the_plan_follows(void **state)
{
    struct peer_made made, again, given, few, paper;
    struct peer_manifest a = made_run(&made, -1, NULL, 0), b = made_run(&again, -1, NULL, 0), c = made_run(&given, 0.02, NULL, 0),
                         s = made_run(&few, -1, "lora:r=2,alpha=4", 0), u = made_run(&paper, -1, NULL, 4);
    (void)state;
    assert_true(a.lr == b.lr && made.eps == again.eps && made.probe.noise == again.probe.noise);
    assert_true(fabs(a.lr / peer_plan_lr(&a.rules, "linear", 0, made.probe.noise, 1) - 1) < 1e-9);
    assert_true(made.eps == fmax(1e-3, fmin(1e-2, made.probe.noise / 2)));
    assert_true(c.lr == 0.02 && given.probe.passes == 0 && given.eps == peer_plan_eps(given.parameters));
    assert_true(few.probe.noise > 1.5 * made.probe.noise); /* fewer parameters bear larger steps */
    assert_true(fabs(u.lr / a.lr / (4 / paper.probe.gradient) - 1) < 0.02); /* a fixed unit instead of the rms */
    assert_true(made.n_reasons > 0 && made.coef_min >= PEER_COEF_AIM);
    for (struct peer_manifest *const *p = (struct peer_manifest *const[]){&a, &b, &c, &s, &u, NULL}; *p; p++)
        peer_manifest_free(*p);
}

/* Opened plain, probed, and plain again. */
static void the_model_is_left_as_it_was(void **state)
{
    struct peer_made made;
    struct peer_manifest m = made_run(&made, 0.02, NULL, 0);
    struct peer_engine e;
    struct peer_probe probe, slow;
    struct zo_dataset *d;
    struct err_why why;
    const struct peer_engine_options o = {.model_dir = MODEL, .threads = 2};
    (void)state;
    assert_int_equal(peer_engine_open(&e, NULL, &o, &why), ERR_OK);
    assert_int_equal(peer_engine_data(&e, &d, TRAIN, &why), ERR_OK);
    const double before = mean_loss(&e, d);
    assert_int_equal(peer_probe(&probe, &e, &m.rules, d, 1e9, &why), ERR_OK);
    assert_true(probe.noise > 0 && probe.gradient > 0 && probe.passes > 0);
    assert_true(probe.agreement > 0.1 && probe.agreement < 0.9); /* a task with one answer to learn: they agree a lot */
    assert_true(mean_loss(&e, d) == before && e.state == NULL);
    assert_int_equal(peer_probe(&slow, &e, &m.rules, d, 0, &why), ERR_OK); /* no time: nothing is claimed */
    assert_true(slow.noise == 0 && slow.pass_s > 0 && slow.passes < probe.passes);
    zo_dataset_free(d);
    peer_engine_close(&e);
    peer_manifest_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_walk_costs_what_it_says),
        cmocka_unit_test(the_plan_follows),
        cmocka_unit_test(the_model_is_left_as_it_was),
    };
    if (net_start() != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
