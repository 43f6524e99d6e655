/* Task files to JSONL: MeZO's prompts word for word, the published sizes of the real files, refusals by line. */
#include <onebyte/zo/prepare.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/onebyte-prepare-XXXXXX";

static int setup(void **state)
{
    (void)state;
    const int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static enum err prepare(char **text, uint64_t *n, const char *task, const char *input, uint64_t limit,
                        uint64_t seed, struct err_why *why)
{
    size_t size;
    FILE *f = fopen(path, "wb"), *out = open_memstream(text, &size);
    assert_non_null(f);
    assert_non_null(out);
    assert_int_equal(fwrite(input, 1, strlen(input), f), strlen(input));
    assert_int_equal(fclose(f), 0);
    const enum err e = zo_prepare(out, n, task, path, limit, seed, why);
    assert_int_equal(fclose(out), 0);
    return e;
}

/* `input` gives exactly these lines. */
static void assert_prepared(const char *task, const char *input, const char *want)
{
    char *text = NULL;
    uint64_t n = 0;
    struct err_why why = {0};
    if (prepare(&text, &n, task, input, 0, 0, &why))
        fail_msg("%s: %s", task, why.text);
    assert_string_equal(text, want);
    free(text);
}

static void prompts_are_mezos(void **state)
{
    (void)state;
    assert_prepared("sst2", "sentence\tlabel\na fine \"film\" \t1\nbad\t0\n",
                    "{\"prompt\": \"a fine \\\"film\\\" It was\", \"choices\": [\" terrible\", \" great\"], \"label\": 1}\n"
                    "{\"prompt\": \"bad It was\", \"choices\": [\" terrible\", \" great\"], \"label\": 0}\n");
    assert_prepared("rte", "index\tsentence1\tsentence2\tlabel\n0\tIt rains.\tIt is wet.\tnot_entailment\n",
                    "{\"prompt\": \"It rains.\\nDoes this mean that \\\"It is wet.\\\" is true? Yes or No?\\n\", "
                    "\"choices\": [\"Yes\", \"No\"], \"label\": 1}\n");
    assert_prepared("rte", "{\"premise\":\"A\",\"hypothesis\":\"B\",\"label\":\"entailment\"}",
                    "{\"prompt\": \"A\\nDoes this mean that \\\"B\\\" is true? Yes or No?\\n\", \"choices\": [\"Yes\", \"No\"], "
                    "\"label\": 0}\n");
    assert_prepared("cb", "{\"premise\":\"A.\",\"hypothesis\":\"b\",\"label\":\"neutral\",\"idx\":0}\n",
                    "{\"prompt\": \"Suppose A. Can we infer that \\\"b\\\"? Yes, No, or Maybe?\\n\", "
                    "\"choices\": [\"Yes\", \"No\", \"Maybe\"], \"label\": 2}\n");
    assert_prepared("boolq", "{\"question\":\"is it so\",\"passage\":\"P.\",\"label\":true}\n"
                             "{\"question\":\"Is it?\",\"passage\":\"P.\",\"answer\":false}",
                    "{\"prompt\": \"P. Is it so?\\n\", \"choices\": [\"Yes\", \"No\"], \"label\": 0}\n"
                    "{\"prompt\": \"P. Is it?\\n\", \"choices\": [\"Yes\", \"No\"], \"label\": 1}\n");
    assert_prepared("copa", "{\"premise\":\"My body cast a shadow. \",\"choice1\":\"The sun rose.\",\"choice2\":\"I ran.\","
                            "\"question\":\"cause\",\"label\":0}\n"
                            "{\"premise\":\"He fell.\",\"choice1\":\"A\",\"choice2\":\"It's\",\"question\":\"effect\",\"label\":1}",
                    "{\"prompt\": \"My body cast a shadow because\", \"choices\": [\" the sun rose.\", \" I ran.\"], "
                    "\"label\": 0}\n"
                    "{\"prompt\": \"He fell so\", \"choices\": [\" a\", \" it's\"], \"label\": 1}\n");
    assert_prepared("gsm8k", "{\"question\":\"1+1?\",\"answer\":\"2\\n#### 2\"}",
                    "{\"prompt\": \"Question: 1+1?\\nAnswer:\", \"completion\": \" 2\\n#### 2\"}\n");
}

#define TREC_WORDS "\"choices\": [\" description\", \" entity\", \" expression\", \" human\", \" location\", \" number\"]"
static void trec_in_three_forms(void **state)
{
    (void)state;
    const char *want = "{\"prompt\": \"How far is \\\"it\\\" , then ? It is about\", " TREC_WORDS ", \"label\": 5}\n";
    assert_prepared("trec", "NUM:dist How far is \"it\" , then ?\n", want);
    assert_prepared("trec", "5,\"How far is \"\"it\"\" , then ?\"\n", want);
    assert_prepared("trec", "{\"text\":\"How far is \\\"it\\\" , then ?\",\"label\":\"NUM\"}\n", want);
}

static void bad_files_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *task, *input, *part;
        int line;
    } cases[] = {
        {"sst2", "index\tsentence\n0\tabc\n", "without labels", 2},
        {"sst2", "sentence\tlabel\nabc\n", "columns", 2},
        {"sst2", "sentence\tlabel\nabc\t2\n", "not one of this task's", 2},
        {"sst2", "no header\n", "neither JSON", 1},
        {"rte", "{\"premise\":\"A\",\"label\":0}\n", "\"hypothesis\"", 1},
        {"rte", "{\"premise\":\"A\",\"hypothesis\":\"B\",\"label\":-1}\n", "without labels", 1},
        {"cb", "{\"premise\":\"A\",\"hypothesis\":\"B\",\"label\":\"entail\"}\n", "not one of this task's", 1},
        {"cb", "{\"premise\":\"A\"", "not JSON", 1},
        {"boolq", "\n{\"passage\":\"A\",\"question\":\"\",\"label\":true}\n", "empty", 2},
        {"copa", "{\"premise\":\"A\",\"choice1\":\"B\",\"choice2\":\"C\",\"question\":\"why\",\"label\":0}\n", "cause", 1},
        {"trec", "How far?\n", "LABEL:kind", 1},
        {"trec", "ODD:x How far?\n", "not one of this task's", 1},
        {"gsm8k", "{\"question\":\"A\"}\n", "\"answer\"", 1},
        {"sst2", "sentence\tlabel\na\xFF\t1\n", "UTF-8", 2},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *text = NULL, place[64];
        uint64_t n = 77;
        struct err_why why = {0};
        assert_int_equal(prepare(&text, &n, cases[i].task, cases[i].input, 0, 0, &why), ERR_FORMAT);
        (void)snprintf(place, sizeof place, "%s:%d: ", path, cases[i].line);
        if (strncmp(why.text, place, strlen(place)) != 0 || !strstr(why.text, cases[i].part))
            fail_msg("wanted \"%s%s\", got \"%s\"", place, cases[i].part, why.text);
        assert_string_equal(text, "");
        free(text);
    }
    char *text = NULL;
    uint64_t n;
    struct err_why why = {0};
    assert_int_equal(prepare(&text, &n, "sst2", "sentence\tlabel\n", 0, 0, &why), ERR_FORMAT);
    free(text);
    assert_int_equal(prepare(&text, &n, "odd", "x", 0, 0, &why), ERR_RANGE);
    assert_non_null(strstr(why.text, "sst2"));
    free(text);
    assert_int_equal(zo_prepare(stdout, &n, "sst2", "/nonexistent", 0, 0, &why), ERR_NOTFOUND);
}

/* A sample: as many as asked, in the file's order, none twice, the same for the same seed. */
static void samples_are_drawn(void **state)
{
    (void)state;
    char input[4096] = "sentence\tlabel\n", *a = NULL, *b = NULL, *c = NULL;
    for (int i = 0, k = (int)strlen(input); i < 100; i++)
        k += snprintf(input + k, sizeof input - (size_t)k, "s%02d\t1\n", i);
    uint64_t n = 0;
    assert_int_equal(prepare(&a, &n, "sst2", input, 30, 1, NULL), ERR_OK);
    assert_int_equal(n, 30);
    assert_int_equal(prepare(&b, &n, "sst2", input, 30, 1, NULL), ERR_OK);
    assert_string_equal(a, b);
    assert_int_equal(prepare(&c, &n, "sst2", input, 30, 2, NULL), ERR_OK);
    assert_string_not_equal(a, c);
    int last = -1, count = 0;
    for (const char *p = a; (p = strstr(p, "\"s")); p++, count++) {
        assert_true(atoi(p + 2) > last);
        last = atoi(p + 2);
    }
    assert_int_equal(count, 30);
    free(a);
    free(b);
    free(c);
}

static void real_files_have_their_published_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *task, *file;
        uint64_t n;
    } files[] = {{"sst2", "sst2/dev.tsv", 872},   {"rte", "rte/train.tsv", 2490},     {"rte", "rte/dev.tsv", 277},
                 {"cb", "cb/train.jsonl", 218},   {"cb", "cb/val.jsonl", 56},         {"gsm8k", "gsm8k/test.jsonl", 1319},
                 {"boolq", "boolq-fewglue/train.jsonl", 32}};
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char file[256], *text = NULL;
        size_t size;
        uint64_t n = 0;
        struct err_why why = {0};
        (void)snprintf(file, sizeof file, "../shared/data/%s", files[i].file);
        if (access(file, R_OK) != 0) {
            print_message("skipped: %s is not here\n", file);
            skip();
        }
        FILE *out = open_memstream(&text, &size);
        assert_non_null(out);
        if (zo_prepare(out, &n, files[i].task, file, 0, 0, &why))
            fail_msg("%s", why.text);
        assert_int_equal(fclose(out), 0);
        assert_int_equal(n, files[i].n);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_mezos),   cmocka_unit_test(trec_in_three_forms),
        cmocka_unit_test(bad_files_are_named), cmocka_unit_test(samples_are_drawn),
        cmocka_unit_test(real_files_have_their_published_sizes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
