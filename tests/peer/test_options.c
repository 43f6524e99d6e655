/* Options: every form, every kind's refusals, and what is generated from the tables. */
#include "peer/options.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

struct values {
    struct peer_common common;
    bool flag;
    const char *text, *choice;
    uint64_t count, small;
    double ratio;
    struct peer_list many;
};

static void defaults(void *v)
{
    ((struct values *)v)->count = 7;
}

static int runs;
static int run(void *values, const char *const *args, size_t n_args)
{
    (void)values;
    (void)args;
    runs++;
    return n_args == 1 ? PEER_EXIT_OK : PEER_EXIT_FAILED;
}

static const struct peer_option options[] = {
    {"flag", PEER_FLAG, offsetof(struct values, flag), NULL, "a flag", 0, 0},
    {"text", PEER_TEXT, offsetof(struct values, text), "TEXT", "a text", 0, 0},
    {"choice", PEER_CHOICE, offsetof(struct values, choice), "red|green", "a colour", 0, 0},
    {"count", PEER_U64, offsetof(struct values, count), "N", "any count", 0, 0},
    {"small", PEER_U64, offsetof(struct values, small), "N", "1 to 9", 1, 9},
    {"ratio", PEER_F64, offsetof(struct values, ratio), "X", "0 to 1", 0, 1},
    {"many", PEER_LIST, offsetof(struct values, many), "ID", "may be repeated", 0, 0},
};

static const struct peer_command command = {
    .name = "paint",
    .args = "FILE [MORE]",
    .args_min = 1,
    .args_max = 2,
    .summary = "paint a file",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .defaults = defaults,
    .run = run,
};

/* Parses a NULL-terminated list of arguments. */
static enum err parse(struct values *v, const char **args, size_t *n, struct err_why *why,
                      char *const *argv)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    memset(why, 0, sizeof *why);
    return peer_options_parse(&command, v, args, n, argc, argv, why);
}
#define ARGV(...) ((char *const[]){__VA_ARGS__, NULL})

static void every_form(void **state)
{
    struct values v;
    struct err_why why;
    const char *args[PEER_ARGS_MAX];
    size_t n = 0;
    (void)state;
    assert_int_equal(parse(&v, args, &n, &why,
                           ARGV("--flag", "a.txt", "--text", "hi there", "--choice=green",
                                "--small", "9", "--ratio=0.25", "--many", "x", "--many=y", "--json",
                                "--home", "/h", "--", "--flag")),
                     ERR_OK);
    assert_true(v.flag && v.common.json && !v.common.help);
    assert_string_equal(v.common.home, "/h");
    assert_string_equal(v.text, "hi there");
    assert_string_equal(v.choice, "green");
    assert_int_equal(v.count, 7); /* the default stands */
    assert_int_equal(v.small, 9);
    assert_true(v.ratio == 0.25);
    assert_int_equal(v.many.n, 2);
    assert_string_equal(v.many.items[1], "y");
    assert_int_equal(n, 2);
    assert_string_equal(args[1], "--flag"); /* after -- everything is an argument */
    assert_int_equal(parse(&v, args, &n, &why, ARGV("--count", "9223372036854775807", "f")),
                     ERR_OK);
    assert_true(v.count == INT64_MAX);
}

static void help_needs_no_arguments(void **state)
{
    struct values v;
    struct err_why why;
    const char *args[PEER_ARGS_MAX];
    size_t n = 0;
    (void)state;
    assert_int_equal(parse(&v, args, &n, &why, ARGV("-h")), ERR_OK);
    assert_true(v.common.help);
    assert_int_equal(parse(&v, args, &n, &why, ARGV("--help", "--nonsense")), ERR_OK);
}

static void refusals_name_the_option(void **state)
{
    static const struct {
        char *argv[4];
        const char *says;
    } bad[] = {
        {{"f", "--nope"}, "--nope"},
        {{"f", "-x"}, "-x"},
        {{"f", "--flag=1"}, "--flag takes no value"},
        {{"f", "--text"}, "--text needs a value"},
        {{"f", "--text="}, "--text"},
        {{"f", "--choice", "blue"}, "red|green"},
        {{"f", "--choice", "red|green"}, "red|green"},
        {{"f", "--choice="}, "--choice"},
        {{"f", "--count", "-1"}, "--count"},
        {{"f", "--count", "1.5"}, "1.5"},
        {{"f", "--count", " 5"}, "--count"},
        {{"f", "--count", "9223372036854775808"}, "--count"},
        {{"f", "--count", "99999999999999999999999"}, "--count"},
        {{"f", "--small", "0"}, "from 1 to 9"},
        {{"f", "--small", "10"}, "from 1 to 9"},
        {{"f", "--ratio", "1.01"}, "from 0 to 1"},
        {{"f", "--ratio", "nan"}, "--ratio"},
        {{"f", "--ratio", "0.5x"}, "--ratio"},
        {{"f", "g", "h"}, "does not take 'h'"},
        {{"--flag"}, "paint needs FILE"},
    };
    struct values v;
    struct err_why why;
    const char *args[PEER_ARGS_MAX];
    size_t n = 0;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(parse(&v, args, &n, &why, bad[i].argv), ERR_RANGE);
        if (!strstr(why.text, bad[i].says))
            fail_msg("'%s' does not say '%s'", why.text, bad[i].says);
        assert_null(strchr(why.text, '\n'));
    }
}

static void a_list_is_bounded(void **state)
{
    char *argv[2 * PEER_LIST_MAX + 4] = {0};
    struct values v;
    struct err_why why;
    const char *args[PEER_ARGS_MAX];
    size_t n = 0;
    (void)state;
    argv[0] = "f";
    for (size_t i = 0; i <= PEER_LIST_MAX; i++)
        argv[i + 1] = "--many=a";
    assert_int_equal(parse(&v, args, &n, &why, argv), ERR_RANGE);
    argv[PEER_LIST_MAX + 1] = NULL;
    assert_int_equal(parse(&v, args, &n, &why, argv), ERR_OK);
    assert_int_equal(v.many.n, PEER_LIST_MAX);
}

static void exit_codes(void **state)
{
    (void)state;
    runs = 0;
    assert_int_equal(peer_command_run(&command, 1, ARGV("f")), PEER_EXIT_OK);
    assert_int_equal(peer_command_run(&command, 2, ARGV("f", "g")), PEER_EXIT_FAILED);
    assert_int_equal(runs, 2);
    assert_int_equal(peer_command_run(&command, 2, ARGV("f", "--nope")), PEER_EXIT_USAGE);
    assert_int_equal(runs, 2);
}

/* The help and the man page name every option, the common ones too. */
static void help_and_man_are_complete(void **state)
{
    static const char *const names[] = {"flag",  "text", "choice", "count", "small",
                                        "ratio", "many", "json",   "home",  "help"};
    (void)state;
    for (int man = 0; man < 2; man++) {
        char *text = NULL;
        size_t n = 0;
        FILE *out = open_memstream(&text, &n);
        assert_non_null(out);
        if (man)
            peer_options_man(&command, out);
        else
            peer_options_help(&command, out);
        fclose(out);
        for (size_t i = 0; i < ARRAY_LEN(names); i++) {
            char want[32];
            (void)snprintf(want, sizeof want, man ? "\\-\\-%s" : "--%s", names[i]);
            if (!strstr(text, want))
                fail_msg("no %s in:\n%s", want, text);
        }
        assert_non_null(strstr(text, "paint a file"));
        for (const char *line = text;
             !man && *line;) { /* nobody's terminal is asked for more than 96 columns */
            const size_t columns = strcspn(line, "\n");
            assert_true(columns <= 96);
            line += columns + (line[columns] == '\n');
        }
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form),
        cmocka_unit_test(help_needs_no_arguments),
        cmocka_unit_test(refusals_name_the_option),
        cmocka_unit_test(a_list_is_bounded),
        cmocka_unit_test(exit_codes),
        cmocka_unit_test(help_and_man_are_complete),
    };
    return cmocka_run_group_tests_name("peer/options", tests, NULL, NULL);
}
