/* The numbers behind the curves, and that the drawing is well formed whatever the run is called. */
#include "peer/plot.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <onebyte/zo/codec.h>
#include <stdlib.h>
#include <string.h>

static void put(struct peer_plot *p, uint64_t machine, uint32_t step, uint16_t count, double loss,
                int64_t ms)
{
    const struct net_segment s = {
        .step = step, .count = count, .loss_f16 = zo_f16_from_double(loss)};
    peer_plot_add(p, machine, &s, 104u + count, ms);
}

static char *drawn(const struct peer_plot *p, const char *name)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    assert_int_equal(peer_plot_write(p, name, f), ERR_OK);
    assert_int_equal(fclose(f), 0);
    return text;
}

static size_t times(const char *text, const char *word)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, word)) != NULL; p += strlen(word))
        n++;
    return n;
}

static void columns_gather_steps(void **state)
{
    struct peer_plot p;
    (void)state;
    peer_plot_init(&p, 4);
    put(&p, 0, 0, 10, 2.0, 1000);
    put(&p, 0, 0, 30, 4.0, 2000);
    put(&p, 1, 0, 10, 0.0 / 0.0, 1500); /* a loss nobody knows weighs nothing */
    put(&p, 1, 3, 5, 1.0, 9000);
    put(&p, 1, 77, 5, 1.0, 9500); /* beyond the end: the last column */
    assert_int_equal(p.bins[0].records, 50);
    assert_int_equal(p.bins[0].bytes, 3 * 104 + 50);
    assert_int_equal(p.bins[0].machines, 2);
    assert_true(p.bins[0].loss_sum / p.bins[0].loss_records == 3.5);
    assert_int_equal(p.bins[0].last_ms, 2000);
    assert_int_equal(p.bins[1].records, 0);
    assert_int_equal(p.bins[3].records, 10);
    assert_int_equal(p.bins[3].machines, 1);
    assert_int_equal(p.first_ms, 1000);
}

static void long_runs_fit(void **state)
{
    static struct peer_plot p;
    uint64_t records = 0;
    (void)state;
    peer_plot_init(&p, 4000000000u);
    for (uint32_t i = 0; i < 1000; i++)
        put(&p, 0, i * 4000000u, 7, 1, (int64_t)i);
    put(&p, 0, 3999999999u, 7, 1, 5000);
    for (size_t i = 0; i < PEER_PLOT_BINS; i++) {
        assert_int_equal(p.bins[i].machines, 1);
        records += p.bins[i].records;
    }
    assert_int_equal(records, 7 * 1001);
}

static void names_are_escaped(void **state)
{
    struct peer_plot p;
    (void)state;
    peer_plot_init(&p, 10);
    for (uint32_t i = 0; i < 10; i++)
        put(&p, 0, i, 64, 3.0 - i * 0.1, 1000 * (int64_t)(i + 1));
    char *text = drawn(&p, "<b>&\n");
    assert_non_null(strstr(text, "&lt;b&gt;&amp; :"));
    assert_null(strstr(text, "<b>"));
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
    assert_int_equal(times(text, "<polyline "), 4);
    assert_int_equal(times(text, "nothing known"), 1); /* of an eval set */
    assert_non_null(strstr(text, "640 gradients in 1680 bytes"));
    const char *peers = strstr(text, "peers that contributed");
    assert_non_null(peers);
    assert_null(strstr(peers, ">0.")); /* they are whole: so are the marks */
    free(text);
}

static void little_data_is_drawn(void **state)
{
    struct peer_plot p;
    (void)state;
    peer_plot_init(&p, 0);
    char *text = drawn(&p, ""); /* nothing at all */
    assert_non_null(strstr(text, "<title>onebyte</title>"));
    assert_non_null(strstr(text, ">onebyte: 0 gradients"));
    assert_int_equal(times(text, "nothing known"), 5);
    free(text);
    put(&p, 0, 0, 1, 0.0 / 0.0, 0); /* one record, no loss, no time */
    text = drawn(&p, "one");
    assert_int_equal(times(text, "nothing known"), 3);
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
    free(text);
}

static void checkpoints_are_drawn(void **state)
{
    struct peer_plot p;
    (void)state;
    peer_plot_init(&p, 100);
    peer_plot_eval(&p, 10, 3.0);
    peer_plot_eval(&p, 10, 2.0);      /* the same column: their mean */
    peer_plot_eval(&p, 4000, 1.5);    /* beyond the end: the last column */
    peer_plot_eval(&p, 50, 0.0 / 0.0); /* nobody knows */
    assert_true(p.bins[10].eval_sum / p.bins[10].evals == 2.5);
    assert_true(p.bins[99].eval_sum == 1.5);
    assert_true(p.bins[50].evals == 0);
    char *text = drawn(&p, "eval");
    assert_int_equal(times(text, "<polyline "), 1);
    assert_non_null(strstr(text, "self-reported"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_gather_steps),
        cmocka_unit_test(long_runs_fit),
        cmocka_unit_test(names_are_escaped),
        cmocka_unit_test(little_data_is_drawn),
        cmocka_unit_test(checkpoints_are_drawn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
