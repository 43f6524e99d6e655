/* The eval curve as text and as an object. */
#include "peer/curve.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void lines_rise_and_fall(void **state)
{
    char out[PEER_CURVE_BYTES];
    const double y[] = {8, 7, 6, 5, 4, 3, 2, 1}, flat[] = {2, 2}, holes[] = {1, NAN, 2};
    (void)state;
    assert_int_equal(peer_curve_line(out, y, 8, true), 8);
    assert_string_equal(out, "█▇▆▅▄▃▂▁");
    assert_int_equal(peer_curve_line(out, y, 8, false), 8);
    assert_string_equal(out, "#%*+=-._");
    assert_int_equal(peer_curve_line(out, flat, 2, false), 2);
    assert_string_equal(out, "__");
    assert_int_equal(peer_curve_line(out, holes, 3, false), 3);
    assert_string_equal(out, "_ #");
    assert_int_equal(peer_curve_line(out, y, 0, true), 0);
    assert_string_equal(out, "");
}

static void long_runs_fit(void **state)
{
    char out[PEER_CURVE_BYTES];
    double y[1000];
    (void)state;
    for (size_t i = 0; i < 1000; i++)
        y[i] = 1000.0 - (double)i;
    assert_int_equal(peer_curve_line(out, y, 1000, true), PEER_CURVE_WIDTH);
    assert_int_equal(strlen(out), 3 * PEER_CURVE_WIDTH);
    assert_int_equal(peer_curve_line(out, y, 41, false), PEER_CURVE_WIDTH);
    assert_int_equal(strlen(out), PEER_CURVE_WIDTH);
    assert_int_equal(out[0], '#');
    assert_int_equal(out[PEER_CURVE_WIDTH - 1], '_');
}

static void the_locale_decides(void **state)
{
    (void)state;
    assert_int_equal(setenv("LC_ALL", "", 1), 0);
    assert_int_equal(setenv("LC_CTYPE", "C", 1), 0);
    assert_int_equal(setenv("LANG", "en_US.UTF-8", 1), 0);
    assert_false(peer_curve_utf8());
    assert_int_equal(setenv("LC_ALL", "de_DE.utf8", 1), 0);
    assert_true(peer_curve_utf8());
    assert_int_equal(unsetenv("LC_ALL") + unsetenv("LC_CTYPE"), 0);
    assert_true(peer_curve_utf8());
    assert_int_equal(unsetenv("LANG"), 0);
    assert_false(peer_curve_utf8());
}

static void only_whole_checkpoints_make_the_curve(void **state)
{
    char out[PEER_CURVE_BYTES];
    (void)state;
    json_t *c = json_pack("{s:f, s:[{s:f, s:i, s:i}, {s:f, s:i, s:i}, {s:f, s:i, s:i}]}", "loss", 1.0, "points", "loss", 2.0,
                          "examples", 10, "total", 10, "loss", 9.0, "examples", 3, "total", 10, "loss", 1.0, "examples", 10,
                          "total", 10);
    assert_non_null(c);
    assert_int_equal(peer_curve_text(out, c, false), 2);
    assert_string_equal(out, "#_");
    json_object_set_new(c, "loss", json_null()); /* none is whole: better than nothing */
    assert_int_equal(peer_curve_text(out, c, false), 3);
    json_decref(c);
    assert_int_equal(peer_curve_text(out, NULL, false), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_rise_and_fall),
        cmocka_unit_test(long_runs_fit),
        cmocka_unit_test(the_locale_decides),
        cmocka_unit_test(only_whole_checkpoints_make_the_curve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
