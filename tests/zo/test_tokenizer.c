/* Token ids and decoded text against the `tokenizers` library (tests/vectors/tokenizers.json, written by
 * tests/check_tokenizers.py), against llama2.c's encoder (../shared), and every refusal by name. */
#include <onebyte/zo/tokenizer.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/onebyte-tokenizer-XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static const char *in_dir(const char *name)
{
    static char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static int remove_dir(void **state)
{
    (void)state;
    static const char *const names[] = {"tokenizer.json", "vocab.json", "merges.txt",
                                        "tokenizer_config.json", "config.json"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        (void)unlink(in_dir(names[i]));
    return rmdir(dir);
}

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(in_dir(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static struct zo_tokenizer *open_ok(const char *folder)
{
    struct zo_tokenizer *t = NULL;
    struct err_why why = {0};
    if (zo_tokenizer_open(&t, folder, &why))
        fail_msg("%s", why.text);
    return t;
}

static struct zo_tokenizer *open_text(const char *json)
{
    write_file("tokenizer.json", json);
    return open_ok(dir);
}

static void assert_ids(const struct zo_tokenizer *t, const char *text, size_t n, bool special,
                       const json_t *want, const char *what)
{
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    assert_int_equal(zo_tokenizer_encode(t, text, n, special, &ids, &n_ids), ERR_OK);
    if (n_ids != json_array_size(want))
        fail_msg("%s: \"%s\": %zu ids, not %zu", what, text, n_ids, json_array_size(want));
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("%s: \"%s\": id %zu is %u, not %lld", what, text, i, ids[i],
                     (long long)json_integer_value(json_array_get(want, i)));
    free(ids);
}

static void assert_decoded(const struct zo_tokenizer *t, const json_t *list, const json_t *want,
                           const char *what)
{
    uint32_t ids[4096];
    assert_true(json_array_size(list) <= ARRAY_LEN(ids));
    for (size_t i = 0; i < json_array_size(list); i++)
        ids[i] = (uint32_t)json_integer_value(json_array_get(list, i));
    char *text = NULL;
    assert_int_equal(zo_tokenizer_decode(t, ids, json_array_size(list), true, &text), ERR_OK);
    if (memcmp(text, json_string_value(want), json_string_length(want) + 1) != 0)
        fail_msg("%s: decoded \"%s\", not \"%s\"", what, text, json_string_value(want));
    free(text);
}

/* Every kind of tokenizer, 38 texts each. */
static void library_vectors(void **state)
{
    (void)state;
    json_t *all = json_load_file("tests/vectors/tokenizers.json", JSON_ALLOW_NUL, NULL);
    assert_non_null(all);
    const json_t *texts = json_object_get(all, "texts");
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(all, "cases"), i, c)
    {
        const char *name = json_string_value(json_object_get(c, "name"));
        char *json = json_dumps(json_object_get(c, "tokenizer"), 0);
        assert_non_null(json);
        struct zo_tokenizer *t = open_text(json);
        free(json);
        for (size_t k = 0; k < json_array_size(texts); k++) {
            const json_t *text = json_array_get(texts, k);
            const json_t *special = json_array_get(json_object_get(c, "special"), k);
            const char *p = json_string_value(text);
            const size_t n = json_string_length(text);
            assert_ids(t, p, n, false, json_array_get(json_object_get(c, "ids"), k), name);
            assert_ids(t, p, n, true, special, name);
            assert_decoded(t, special, json_array_get(json_object_get(c, "decoded"), k), name);
        }
        zo_tokenizer_free(t);
    }
    assert_true(i >= 20);
    json_decref(all);
}

/* llama2.c's own encoder, on the model it was written for. */
static void llama2c_examples(void **state)
{
    (void)state;
    const char *folder = "../shared/data/models/stories260k";
    json_t *all = json_load_file("../shared/data/models/stories260k/tokenizer_examples.json", 0, NULL);
    if (!all) {
        print_message("skipped: %s is not here\n", folder);
        skip();
    }
    struct zo_tokenizer *t = open_ok(folder);
    assert_int_equal(zo_tokenizer_vocab(t), 512);
    assert_int_equal(zo_tokenizer_token(t, "</s>"), 2);
    assert_int_equal(zo_tokenizer_token(t, "no such token"), UINT32_MAX);
    size_t i;
    json_t *e;
    json_array_foreach(all, i, e)
    {
        const json_t *text = json_object_get(e, "text");
        assert_ids(t, json_string_value(text), json_string_length(text), true,
                   json_object_get(e, "ids"), "stories260k");
        assert_decoded(t, json_object_get(e, "ids"), text, "stories260k");
    }
    zo_tokenizer_free(t);
    json_decref(all);
}

static void assert_list(const struct zo_tokenizer *t, const char *text, bool special,
                        const char *want)
{
    json_t *ids = json_loads(want, 0, NULL);
    assert_non_null(ids);
    assert_ids(t, text, strlen(text), special, ids, "list");
    json_decref(ids);
}

/* vocab.json + merges.txt equal the tokenizer.json made from them; ids as published for GPT-2. */
static void gpt2_files(void **state)
{
    (void)state;
    struct stat st;
    if (stat("../shared/data/tokenizers/gpt2/tokenizer.json", &st) != 0) {
        print_message("skipped: ../shared/data/tokenizers is not here\n");
        skip();
    }
    struct zo_tokenizer *t = open_ok("../shared/data/tokenizers/gpt2");
    assert_list(t, "Hello world", true, "[15496, 995]");
    assert_list(t, "The quick brown fox jumps over the lazy dog", false,
                "[464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290]");
    zo_tokenizer_free(t);
    t = open_ok("../shared/data/tokenizers/opt");
    assert_list(t, "Hello world", true, "[31414, 232]"); /* as RoBERTa and OPT number them */
    zo_tokenizer_free(t);
}

/* A text of many symbols without a pre-tokenizer: the heap and the small loop merge alike. */
static void long_word_equals_short_words(void **state)
{
    (void)state;
    struct zo_tokenizer *t =
        open_text("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"-\":2,\"ab\":3,\"ba\":4,\"aba\":5,"
                  "\"abab\":6},\"merges\":[\"a b\",\"b a\",\"ab ab\",\"ab a\"]}}");
    const char *unit = "ababaabba-"; /* nothing merges over '-' */
    uint32_t *want = NULL, *got = NULL;
    size_t n_want, n_got;
    assert_int_equal(zo_tokenizer_encode(t, unit, strlen(unit), true, &want, &n_want), ERR_OK);
    static const uint32_t by_hand[] = {6, 0, 3, 4, 2}; /* abab a ab ba - */
    assert_int_equal(n_want, ARRAY_LEN(by_hand));
    assert_memory_equal(want, by_hand, sizeof by_hand);
    char text[10 * 1000 + 1] = "";
    for (size_t i = 0; i < 1000; i++)
        memcpy(text + 10 * i, unit, 10);
    assert_int_equal(zo_tokenizer_encode(t, text, 10 * 1000, true, &got, &n_got), ERR_OK);
    assert_int_equal(n_got, 1000 * n_want);
    for (size_t i = 0; i < n_got; i++)
        assert_int_equal(got[i], want[i % n_want]);
    free(want);
    free(got);
    zo_tokenizer_free(t);
}

/* One U+FFFD per maximal invalid run. */
static void invalid_utf8_is_replaced(void **state)
{
    (void)state;
    struct zo_tokenizer *t =
        open_text("{\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"a\\ufffdb\":1,"
                  "\"\\ufffd\\ufffd\":2,\"a\":3}}}");
    static const struct {
        const char *text;
        size_t n;
        uint32_t id;
    } cases[] = {{"a\xFF" "b", 3, 1},     {"a\xE2\x82" "b", 4, 1}, {"\xC0\x80", 2, 2},
                 {"\xF0\x9F\x98\xFF", 4, 2}, {"\xE2\xFF", 2, 2},      {"a", 1, 3},
                 {"\xED\xA0", 2, 2},        {"a\xF4\x8F\xBF" "b", 5, 1}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t *ids = NULL;
        size_t n = 0;
        assert_int_equal(zo_tokenizer_encode(t, cases[i].text, cases[i].n, true, &ids, &n), ERR_OK);
        assert_int_equal(n, 1);
        assert_int_equal(ids[0], cases[i].id);
        free(ids);
    }
    zo_tokenizer_free(t);
}

static void word_without_unknown_token(void **state)
{
    (void)state;
    struct zo_tokenizer *t = open_text("{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0}}}");
    uint32_t *ids = NULL;
    size_t n = 0;
    assert_int_equal(zo_tokenizer_encode(t, "b", 1, true, &ids, &n), ERR_NOTFOUND);
    assert_null(ids);
    zo_tokenizer_free(t);
}

static void legacy_bos_and_roberta(void **state)
{
    (void)state;
    (void)unlink(in_dir("tokenizer.json"));
    write_file("vocab.json", "{\"<s>\":0,\"<pad>\":1,\"</s>\":2,\"<unk>\":3,\"a\":4,\"b\":5,\"ab\":6}");
    write_file("merges.txt", "#version: 0.2\na b\n");
    struct zo_tokenizer *t = open_ok(dir);
    assert_list(t, "ab</s>a", true, "[6, 2, 4]");
    zo_tokenizer_free(t);
    write_file("config.json", "{\"model_type\":\"opt\"}");
    t = open_ok(dir);
    assert_list(t, "aba", true, "[2, 6, 4]");
    zo_tokenizer_free(t);
    write_file("config.json", "{\"model_type\":\"roberta\"}");
    t = open_ok(dir);
    assert_list(t, "ba", true, "[0, 5, 4, 2]");
    assert_list(t, "ba", false, "[5, 4]");
    zo_tokenizer_free(t);
    write_file("tokenizer_config.json", "{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_bos_token\":true,"
                                        "\"bos_token\":{\"content\":\"<s>\"}}");
    t = open_ok(dir);
    assert_list(t, "a", true, "[0, 4]");
    zo_tokenizer_free(t);
}

static void assert_refused(enum err code, const char *part)
{
    struct zo_tokenizer *t = NULL;
    struct err_why why = {0};
    const enum err e = zo_tokenizer_open(&t, dir, &why);
    if (e != code || !strstr(why.text, part) || strchr(why.text, '\n'))
        fail_msg("wanted \"%s\" with %s, got \"%s\" with %s", part, err_str(code), why.text, err_str(e));
    assert_null(t);
}

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}"
static void refusals_name_the_part(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        enum err code;
        const char *part;
    } cases[] = {
        {"", ERR_FORMAT, "not JSON"},
        {"{\"model\":", ERR_FORMAT, "not JSON"},
        {"[]", ERR_FORMAT, "\"model\" is missing"},
        {"{}", ERR_FORMAT, "\"model\" is missing"},
        {"{\"model\":{\"type\":\"Magic\"}}", ERR_UNSUPPORTED, "\"Magic\""},
        {"{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", ERR_FORMAT, "\"vocab\" is missing"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", ERR_FORMAT, "empty"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", ERR_FORMAT, "\"merges\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", ERR_FORMAT, "valid id"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]}}", ERR_FORMAT, "valid id"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", ERR_FORMAT, "merge 0"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", ERR_FORMAT, "merge 0"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[1,2]]}}", ERR_FORMAT, "merge 0"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"u\"}}", ERR_FORMAT,
         "unk_token"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", ERR_FORMAT, "score"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"unk_id\":7}}", ERR_FORMAT, "unk_id"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", ERR_FORMAT, "[UNK]"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Odd\"}}", ERR_UNSUPPORTED, "normalizer: type \"Odd\""},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Replace\"}}", ERR_FORMAT, "Replace"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"&&\"}}", ERR_FORMAT, "base64"},
        {"{" MODEL ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/////w==\"}}", ERR_FORMAT, "damaged"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Odd\"}}", ERR_UNSUPPORTED, "pre_tokenizer: type \"Odd\""},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Sequence\"}}", ERR_FORMAT, "pretokenizers"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"(\"}}}",
         ERR_UNSUPPORTED, "pattern"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Odd\",\"pattern\":\"x\"}}",
         ERR_UNSUPPORTED, "behavior"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a-z&&[^b]]\"}}}",
         ERR_UNSUPPORTED, "&&"},
        {"{" MODEL ",\"post_processor\":{\"type\":\"Odd\"}}", ERR_UNSUPPORTED, "post_processor: type \"Odd\""},
        {"{" MODEL ",\"post_processor\":{\"type\":\"BertProcessing\"}}", ERR_FORMAT, "cls"},
        {"{" MODEL ",\"decoder\":{\"type\":\"Odd\"}}", ERR_UNSUPPORTED, "decoder: type \"Odd\""},
        {"{" MODEL ",\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\"}}", ERR_FORMAT, "Metaspace is empty"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\"}}", ERR_FORMAT, "is empty"},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"\"}}", ERR_FORMAT, "is empty"},
        {"{" MODEL ",\"added_tokens\":[{\"content\":\"x\"}]}", ERR_FORMAT, "added_tokens"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        write_file("tokenizer.json", cases[i].json);
        assert_refused(cases[i].code, cases[i].part);
    }
    (void)unlink(in_dir("tokenizer.json"));
    (void)unlink(in_dir("merges.txt"));
    assert_refused(ERR_NOTFOUND, "merges.txt");
    (void)unlink(in_dir("vocab.json"));
    assert_refused(ERR_NOTFOUND, "no tokenizer.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(library_vectors),
        cmocka_unit_test(llama2c_examples),
        cmocka_unit_test(gpt2_files),
        cmocka_unit_test(long_word_equals_short_words),
        cmocka_unit_test(invalid_utf8_is_replaced),
        cmocka_unit_test(word_without_unknown_token),
        cmocka_unit_test(legacy_bos_and_roberta),
        cmocka_unit_test(refusals_name_the_part),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
