/* JSONL to examples: what counts, what is cut, and what is refused, line by line. */
#include <onebyte/zo/dataset.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/onebyte-dataset-XXXXXX";
static struct zo_tokenizer *letters; /* a..j = 1..10, "ab" = 11, "bc" = 12, space = 13; <s> = 20 in front */
static struct zo_tokenizer *closed;  /* the same with 21 at the end as well */

static const char *in_dir(const char *name)
{
    static char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void write_bytes(const char *name, const char *text, size_t n)
{
    FILE *f = fopen(in_dir(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

#define VOCAB                                                                                      \
    "\"added_tokens\":[{\"id\":20,\"content\":\"<s>\",\"special\":true},{\"id\":21,\"content\":\"</s>\",\"special\":true}]," \
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,"      \
    "\"g\":7,\"h\":8,\"i\":9,\"j\":10,\"ab\":11,\"bc\":12,\" \":13},\"merges\":[\"a b\",\"b c\"]}"
#define SPECIAL "\"special_tokens\":{\"<s>\":{\"ids\":[20]},\"</s>\":{\"ids\":[21]}}"

static struct zo_tokenizer *open_json(const char *json)
{
    struct zo_tokenizer *t = NULL;
    struct err_why why = {0};
    write_bytes("tokenizer.json", json, strlen(json));
    if (zo_tokenizer_open(&t, dir, &why))
        fail_msg("%s", why.text);
    return t;
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    letters = open_json("{" VOCAB ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
                        "{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}]," SPECIAL "}}");
    closed = open_json("{" VOCAB ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
                       "{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}},"
                       "{\"SpecialToken\":{\"id\":\"</s>\"}}]," SPECIAL "}}");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    zo_tokenizer_free(letters);
    zo_tokenizer_free(closed);
    (void)unlink(in_dir("tokenizer.json"));
    (void)unlink(in_dir("data.jsonl"));
    return rmdir(dir);
}

static struct zo_dataset *open_lines(const char *text, const struct zo_tokenizer *t, uint32_t max)
{
    struct zo_dataset *d = NULL;
    struct err_why why = {0};
    write_bytes("data.jsonl", text, strlen(text));
    if (zo_dataset_open(&d, in_dir("data.jsonl"), t, max, &why))
        fail_msg("%s", why.text);
    return d;
}

/* `want`: ids with * before those that count, as "20 1 *2". */
static void assert_seq(const struct zo_seq *s, const char *want)
{
    char got[512] = "";
    for (uint32_t i = 0, k = 0; i < s->n; i++)
        k += (uint32_t)snprintf(got + k, sizeof got - k, "%s%s%u", i ? " " : "",
                                s->counted[i] ? "*" : "", s->ids[i]);
    assert_string_equal(got, want);
}

static void assert_one(const char *line, const struct zo_tokenizer *t, uint32_t max, const char *want,
                       uint32_t n_cut)
{
    struct zo_dataset *d = open_lines(line, t, max);
    assert_int_equal(zo_dataset_size(d), 1);
    const struct zo_example *x = zo_dataset_get(d, 0);
    assert_int_equal(x->n_seqs, 1);
    assert_int_equal(x->label, -1);
    assert_int_equal(x->n_cut, n_cut);
    assert_int_equal(zo_dataset_cut_tokens(d), n_cut);
    assert_int_equal(zo_dataset_cut_examples(d), n_cut > 0);
    assert_seq(&x->seqs[0], want);
    zo_dataset_free(d);
}

static void text_counts_all_but_the_first(void **state)
{
    (void)state;
    assert_one("{\"text\":\"cab\"}", letters, 99, "20 *3 *11", 0);
    assert_one("{\"text\":\"c\", \"id\": 5, \"label\": null}", closed, 99, "20 *3 *21", 0);
    assert_one("{\"text\":\"cdefg\"}", letters, 4, "20 *3 *4 *5", 2);
    assert_one("{\"text\":\"cdef\"}", letters, 5, "20 *3 *4 *5 *6", 0);
    assert_one("{\"text\":\"a\\u0000b\"}", letters, 99, "20 *1 *0 *2", 0);
}

static void completion_counts_alone(void **state)
{
    (void)state;
    assert_one("{\"prompt\":\"cd\",\"completion\":\"ef\"}", letters, 99, "20 3 4 *5 *6", 0);
    /* Encoded together: "ca" + "b" is c, ab; the token that spans the border counts. */
    assert_one("{\"prompt\":\"ca\",\"completion\":\"bd\"}", letters, 99, "20 3 *11 *4", 0);
    assert_one("{\"prompt\":\"ca\",\"completion\":\"b\"}", letters, 99, "20 3 *11", 0);
    /* An end token counts; a completion that begins like the prompt's end token does not confuse it. */
    assert_one("{\"prompt\":\"cd\",\"completion\":\"e\"}", closed, 99, "20 3 4 *5 *21", 0);
    assert_one("{\"prompt\":\"cd\",\"completion\":\"</s>e\"}", closed, 99, "20 3 4 *21 *5 *21", 0);
    assert_one("{\"prompt\":\"\",\"completion\":\"cd\"}", letters, 99, "20 *3 *4", 0);
}

/* BERT and RoBERTa: the end token stays when a text is cut, and is not predicted; a text may have a class. */
static void encoders(void **state)
{
    (void)state;
    struct zo_tokenizer *t = open_json(
        "{\"added_tokens\":[{\"id\":22,\"content\":\"<mask>\",\"special\":true}],\"model\":{\"type\":\"WordLevel\",\"vocab\":"
        "{\"a\":1,\"b\":2,\"c\":3,\"d\":4}},\"pre_tokenizer\":{\"type\":\"Whitespace\"},"
        "\"post_processor\":{\"type\":\"RobertaProcessing\",\"cls\":[\"<s>\",20],\"sep\":[\"</s>\",21]}}");
    assert_one("{\"prompt\":\"a b\",\"completion\":\" c\"}", t, 99, "20 1 2 *3 21", 0);
    struct zo_dataset *d = open_lines("{\"text\":\"a b c d\",\"label\":3}", t, 4);
    assert_int_equal(zo_dataset_get(d, 0)->label, 3);
    assert_int_equal(zo_dataset_get(d, 0)->n_cut, 2);
    assert_seq(&zo_dataset_get(d, 0)->seqs[0], "20 *1 *2 *21");
    zo_dataset_free(d);
    zo_tokenizer_free(t);
}

static void prompt_is_cut_on_its_left(void **state)
{
    (void)state;
    assert_one("{\"prompt\":\"cdefg\",\"completion\":\"hi\"}", letters, 6, "20 5 6 7 *8 *9", 2);
    assert_one("{\"prompt\":\"cdefg\",\"completion\":\"hi\"}", letters, 3, "20 *8 *9", 5);
    /* The completion alone is too long: its end goes. */
    assert_one("{\"prompt\":\"cd\",\"completion\":\"efghij\"}", letters, 4, "20 *5 *6 *7", 5);
    assert_one("{\"prompt\":\"cd\",\"completion\":\"ef\"}", letters, 2, "4 *5", 3);
}

static void choices_share_their_prompt(void **state)
{
    (void)state;
    struct zo_dataset *d = open_lines("\xEF\xBB\xBF{\"prompt\":\"cdefg \",\"choices\":[\"h\",\"ij\",\"a\"],\"label\":2}\r\n"
                                      "\n   \n{\"text\":\"ab\"}\n{\"prompt\":\"d\",\"choices\":[\"a\",\"b\"],\"label\":0}",
                                      letters, 7);
    assert_int_equal(zo_dataset_size(d), 3);
    const struct zo_example *x = zo_dataset_get(d, 0);
    assert_int_equal(x->n_seqs, 3);
    assert_int_equal(x->label, 2);
    assert_seq(&x->seqs[0], "20 5 6 7 13 *8"); /* the longest decides for all */
    assert_seq(&x->seqs[1], "20 5 6 7 13 *9 *10");
    assert_seq(&x->seqs[2], "20 5 6 7 13 *1");
    assert_int_equal(x->n_cut, 6);
    assert_int_equal(zo_dataset_cut_tokens(d), 6);
    assert_int_equal(zo_dataset_cut_examples(d), 1);
    assert_int_equal(zo_dataset_get(d, 2)->label, 0);
    zo_dataset_free(d);
}

#define TURNS(template)                                                                            \
    "{\"chat_template\":\"{% for m in messages %}" template "{% endfor %}{% if add_generation_prompt %}i{% endif %}\"}"

static struct zo_tokenizer *open_chat(const char *config)
{
    write_bytes("tokenizer_config.json", config, strlen(config));
    struct zo_tokenizer *t = open_json("{" VOCAB "}");
    (void)unlink(in_dir("tokenizer_config.json"));
    return t;
}

/* h = a user's turn, i = an answer, j = the end of a turn. */
static void answers_count_in_conversations(void **state)
{
    (void)state;
    struct zo_tokenizer *t = open_chat(TURNS("{{ 'i' if m.role == 'assistant' else 'h' }}{{ m.content }}j"));
    const char *line = "{\"messages\":[{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":\"de\"},"
                       "{\"role\":\"user\",\"content\":\"f\"},{\"role\":\"assistant\",\"content\":\"g\"}]}";
    assert_one(line, t, 99, "8 3 10 9 *4 *5 *10 8 6 10 9 *7 *10", 0);
    assert_one(line, t, 8, "8 *4 *5 *10 8 6 10 9", 5);
    assert_one(line, t, 11, "8 9 *4 *5 *10 8 6 10 9 *7 *10", 2);
    assert_one("{\"messages\":[{\"role\":\"system\",\"content\":\"ab\"},{\"role\":\"assistant\",\"content\":\"\"}]}", t, 99,
               "8 11 10 9 *10", 0);
    zo_tokenizer_free(t);
}

/* The template writes e before the last answer only (as Qwen3 keeps the last reasoning only). */
static void shortened_turns_count_too(void **state)
{
    (void)state;
    struct zo_tokenizer *t = open_chat(TURNS("{{ 'i' if m.role == 'assistant' else 'h' }}{{ 'e' if loop.last and m.role == "
                                             "'assistant' }}{{ m.content }}</s>"));
    assert_one("{\"messages\":[{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":\"dab\"},"
               "{\"role\":\"user\",\"content\":\"f\"},{\"role\":\"assistant\",\"content\":\"g\"}]}", t, 99,
               "8 3 21 9 *4 *11 *21 8 6 21 9 *5 *7 *21", 0);
    zo_tokenizer_free(t);
}

static void assert_chat_refused(const struct zo_tokenizer *t, const char *messages, const char *part)
{
    char line[512];
    struct zo_dataset *d = NULL;
    struct err_why why = {0};
    (void)snprintf(line, sizeof line, "{\"messages\":%s}", messages);
    write_bytes("data.jsonl", line, strlen(line));
    assert_int_not_equal(zo_dataset_open(&d, in_dir("data.jsonl"), t, 99, &why), ERR_OK);
    assert_null(d);
    if (!strstr(why.text, part) || !strstr(why.text, "data.jsonl:1: "))
        fail_msg("wanted \"%s\", got \"%s\"", part, why.text);
}

static void bad_conversations_are_named(void **state)
{
    (void)state;
    const char *two = "[{\"role\":\"assistant\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":\"d\"}]";
    assert_chat_refused(letters, two, "no chat template");
    struct zo_tokenizer *t = open_chat(TURNS("i{{ m.content if loop.last }}"));
    assert_chat_refused(t, two, "message 0");
    assert_chat_refused(t, "[]", "\"messages\"");
    assert_chat_refused(t, "[{\"role\":\"user\"}]", "message 0");
    assert_chat_refused(t, "[{\"role\":\"user\",\"content\":\"a\"}]", "assistant");
    zo_tokenizer_free(t);
    t = open_chat(TURNS("{{ strftime_now('%Y') }}"));
    assert_chat_refused(t, two, "clock");
    zo_tokenizer_free(t);
    t = open_chat(TURNS("{% include 'x' %}"));
    assert_chat_refused(t, two, "include");
    zo_tokenizer_free(t);
}

static void bad_lines_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *line, *part;
    } cases[] = {
        {"{\"text\":\"ab", "not JSON"},
        {"{\"text\":\"ab\"} {}", "not JSON"},
        {"[\"ab\"]", "not a JSON object"},
        {"\"ab\"", "not a JSON object"},
        {"{}", "none of"},
        {"{\"txt\":\"ab\",\"id\":3}", "none of"},
        {"{\"text\":5}", "\"text\" is not a string"},
        {"{\"text\":\"\"}", "fewer than two tokens"},
        {"{\"text\":\"ab\",\"prompt\":\"a\"}", "more than one"},
        {"{\"prompt\":\"a\"}", "either"},
        {"{\"prompt\":[\"a\"],\"completion\":\"b\"}", "\"prompt\" is not a string"},
        {"{\"prompt\":\"a\",\"completion\":\"b\",\"choices\":[\"a\",\"b\"],\"label\":0}", "either"},
        {"{\"prompt\":\"a\",\"completion\":\"\"}", "\"completion\" is empty"},
        {"{\"prompt\":\"a\",\"completion\":7}", "\"completion\" is not a string"},
        {"{\"prompt\":\"a\",\"completion\":[\"b\"]}", "\"completion\" is not a string"},
        {"{\"prompt\":\"a\",\"choices\":\"b\",\"label\":0}", "\"choices\""},
        {"{\"prompt\":\"a\",\"choices\":[\"b\"],\"label\":0}", "\"choices\""},
        {"{\"prompt\":\"a\",\"choices\":[\"b\",\"\"],\"label\":0}", "choice 1 is empty"},
        {"{\"prompt\":\"a\",\"choices\":[\"b\",null],\"label\":0}", "choice 1 is not a string"},
        {"{\"prompt\":\"a\",\"choices\":[\"b\",\"c\"]}", "\"label\""},
        {"{\"prompt\":\"a\",\"choices\":[\"b\",\"c\"],\"label\":\"1\"}", "\"label\""},
        {"{\"prompt\":\"a\",\"choices\":[\"b\",\"c\"],\"label\":2}", "outside the 2 choices"},
        {"{\"prompt\":\"a\",\"choices\":[\"b\",\"c\"],\"label\":-1}", "outside the 2 choices"},
        {"{\"text\":\"a\xFF" "b\"}", "UTF-8"},
        {"{\"text\":\"\\ud800\"}", "not JSON"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[512], place[640];
        struct zo_dataset *d = NULL;
        struct err_why why = {0};
        (void)snprintf(text, sizeof text, "{\"text\":\"ab\"}\n\n%s\n{\"text\":\"ab\"}\n", cases[i].line);
        write_bytes("data.jsonl", text, strlen(text));
        assert_int_equal(zo_dataset_open(&d, in_dir("data.jsonl"), letters, 99, &why), ERR_FORMAT);
        assert_null(d);
        (void)snprintf(place, sizeof place, "%s:3: ", in_dir("data.jsonl"));
        if (strncmp(why.text, place, strlen(place)) != 0 || !strstr(why.text, cases[i].part) ||
            strchr(why.text, '\n'))
            fail_msg("wanted \"%s..%s\", got \"%s\"", place, cases[i].part, why.text);
    }
}

static void bad_files_are_named(void **state)
{
    (void)state;
    struct zo_dataset *d = NULL;
    struct err_why why = {0};
    assert_int_equal(zo_dataset_open(&d, in_dir("none"), letters, 99, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, "none"));
    assert_int_equal(zo_dataset_open(&d, dir, letters, 99, &why), ERR_IO);
    write_bytes("data.jsonl", "\n \n", 3);
    assert_int_equal(zo_dataset_open(&d, in_dir("data.jsonl"), letters, 99, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "empty"));
    assert_int_equal(zo_dataset_open(&d, in_dir("data.jsonl"), letters, 1, &why), ERR_RANGE);
    assert_null(d);
}

/* The real thing: as many counted tokens per text as the independent reference. */
static void tinystories_token_counts(void **state)
{
    (void)state;
    json_t *ref = json_load_file("../shared/data/models/stories260k/reference_eval40.json", 0, NULL);
    if (!ref) {
        print_message("skipped: ../shared/data/models/stories260k is not here\n");
        skip();
    }
    struct zo_tokenizer *t = NULL;
    struct zo_dataset *d = NULL;
    assert_int_equal(zo_tokenizer_open(&t, "../shared/data/models/stories260k", NULL), ERR_OK);
    assert_int_equal(zo_dataset_open(&d, "../shared/data/tinystories/eval40.jsonl", t, 512, NULL), ERR_OK);
    const json_t *texts = json_object_get(ref, "per_text_tokens_and_loss");
    assert_int_equal(zo_dataset_size(d), json_array_size(texts));
    long long total = 0;
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const struct zo_seq *s = &zo_dataset_get(d, i)->seqs[0];
        long long n = 0;
        for (uint32_t k = 0; k < s->n; k++)
            n += s->counted[k];
        assert_int_equal(n, json_integer_value(json_array_get(json_array_get(texts, i), 0)));
        total += n;
    }
    assert_int_equal(total, 10923);
    assert_int_equal(zo_dataset_cut_tokens(d), 0);
    zo_dataset_free(d);
    zo_tokenizer_free(t);
    json_decref(ref);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_counts_all_but_the_first), cmocka_unit_test(completion_counts_alone),
        cmocka_unit_test(encoders),
        cmocka_unit_test(prompt_is_cut_on_its_left),     cmocka_unit_test(choices_share_their_prompt),
        cmocka_unit_test(bad_lines_are_named),           cmocka_unit_test(bad_files_are_named),
        cmocka_unit_test(answers_count_in_conversations), cmocka_unit_test(bad_conversations_are_named),
        cmocka_unit_test(shortened_turns_count_too),
        cmocka_unit_test(tinystories_token_counts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
