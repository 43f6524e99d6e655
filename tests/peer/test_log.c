/* The log: levels, one line per event, quoting, and that its JSON form is JSON. */
#include "peer/log.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* What the lines logged between start and here say; the caller frees. */
static char *logged(char *path)
{
    peer_log_stop();
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    char *text = calloc(1, 65536);
    assert_non_null(text);
    assert_true(fread(text, 1, 65535, f) < 65535);
    fclose(f);
    unlink(path);
    return text;
}

static void start(char path[40], enum peer_level level, bool json)
{
    strcpy(path, "/tmp/onebyte-log-XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    peer_log_start(level, json, true, path);
}

static void levels_and_lines(void **state)
{
    char path[40];
    (void)state;
    start(path, PEER_WARN, false);
    peer_log(PEER_INFO, "hidden", "a=1");
    peer_log(PEER_ERROR, "shown", "a=%d b=\"two\nwords\"", 1);
    char *text = logged(path);
    assert_null(strstr(text, "hidden"));
    assert_non_null(strstr(text, " level=error ev=shown a=1 b=\"two words\"\n"));
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1); /* one line */
    free(text);
}

static void json_lines_are_json(void **state)
{
    char path[40], *end;
    (void)state;
    start(path, PEER_DEBUG, true);
    peer_log(PEER_INFO, "step", "step=41 loss=-2.5e-3 peer=0123abcd id=007 why=\"not here\" empty=\"\"");
    peer_log(PEER_DEBUG, "none", "%s", "");
    char *text = logged(path);
    json_t *o = json_loadb(text, strcspn(text, "\n"), 0, NULL);
    assert_non_null(o);
    assert_string_equal(json_string_value(json_object_get(o, "ev")), "step");
    assert_int_equal(json_integer_value(json_object_get(o, "step")), 41);
    assert_true(json_real_value(json_object_get(o, "loss")) == -2.5e-3);
    assert_string_equal(json_string_value(json_object_get(o, "peer")), "0123abcd");
    assert_string_equal(json_string_value(json_object_get(o, "id")), "007");
    assert_string_equal(json_string_value(json_object_get(o, "why")), "not here");
    assert_string_equal(json_string_value(json_object_get(o, "empty")), "");
    json_decref(o);
    end = strchr(text, '\n');
    o = json_loadb(end + 1, strcspn(end + 1, "\n"), 0, NULL);
    assert_non_null(o);
    json_decref(o);
    free(text);
}

static void long_lines_are_cut(void **state)
{
    char path[40], big[6000];
    (void)state;
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = 0;
    for (int json = 0; json < 2; json++) {
        start(path, PEER_INFO, json);
        peer_log(PEER_INFO, "long", "text=\"%s\"", big);
        char *text = logged(path);
        assert_true(strlen(text) < 2100 && strlen(text) > 40);
        assert_int_equal(text[strlen(text) - 1], '\n');
        if (json) {
            json_t *o = json_loadb(text, strlen(text) - 1, 0, NULL);
            assert_non_null(o); /* the pair that did not fit is left out */
            json_decref(o);
        }
        free(text);
    }
}

static void names_and_quotes(void **state)
{
    enum peer_level level = PEER_INFO;
    char out[8], id[9];
    const uint8_t machine[32] = {0xde, 0xad, 0xbe, 0x0f};
    (void)state;
    assert_true(peer_log_level(&level, "debug"));
    assert_int_equal(level, PEER_DEBUG);
    assert_false(peer_log_level(&level, "loud"));
    peer_log_quote(out, sizeof out, "a\"b\\c\td and more");
    assert_string_equal(out, "a'b/c d");
    peer_short_id(id, machine);
    assert_string_equal(id, "deadbe0f");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_and_lines),
        cmocka_unit_test(json_lines_are_json),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(names_and_quotes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
