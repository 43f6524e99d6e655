/* Chat templates against jinja2 (tests/vectors/templates.json, written by tests/check_templates.py): the same texts, and a
 * refusal that says why for what needs code. */
#include "zo/data/template.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static json_t *vectors;

static int setup(void **state)
{
    (void)state;
    vectors = json_load_file("tests/vectors/templates.json", 0, NULL);
    return vectors ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    json_decref(vectors);
    return 0;
}

static enum err render(struct buf *out, const char *text, const json_t *line, struct err_why *why)
{
    struct chat_template *t = NULL;
    enum err e = zo_template_new(&t, text, strlen(text), why);
    if (e)
        return e;
    json_t *variables = json_copy(json_object_get(vectors, "tokens"));
    (void)json_object_set(variables, "messages", json_object_get(line, "messages"));
    (void)json_object_set(variables, "add_generation_prompt", json_object_get(line, "prompt"));
    (void)json_object_set_new(variables, "tools", json_null());
    e = zo_template_render(t, out, variables, why);
    json_decref(variables);
    zo_template_free(t);
    return e;
}

static void texts_equal_jinja(void **state)
{
    (void)state;
    const json_t *lines = json_object_get(vectors, "lines");
    size_t i, k, n = 0;
    json_t *c, *want;
    json_array_foreach(json_object_get(vectors, "cases"), i, c)
    {
        const char *name = json_string_value(json_object_get(c, "name"));
        json_array_foreach(json_object_get(c, "texts"), k, want)
        {
            struct buf out = {0};
            struct err_why why = {0};
            const enum err e = render(&out, json_string_value(json_object_get(c, "template")),
                                      json_array_get(lines, k), &why);
            if (json_is_null(want) != (e != ERR_OK))
                fail_msg("%s, conversation %zu: %s", name, k, e ? why.text : "not refused");
            if (!e && (out.n != json_string_length(want) ||
                       (out.n && memcmp(out.p, json_string_value(want), out.n) != 0)))
                fail_msg("%s, conversation %zu: \"%s\", not \"%s\"", name, k, out.p, json_string_value(want));
            buf_free(&out);
            n++;
        }
    }
    assert_true(n > 100);
}

static void code_is_refused(void **state)
{
    (void)state;
    const char *text;
    json_t *word;
    const json_t *line = json_array_get(json_object_get(vectors, "lines"), 0);
    json_object_foreach(json_object_get(vectors, "refused"), text, word)
    {
        struct buf out = {0};
        struct err_why why = {0};
        const enum err e = render(&out, text, line, &why);
        if (!e || !strstr(why.text, json_string_value(word)) || strncmp(why.text, "chat template", 13) != 0)
            fail_msg("%.60s: wanted \"%s\", got \"%s\"", text, json_string_value(word), why.text);
        buf_free(&out);
    }
}

/* Every truncation and many a changed byte of a template: an answer or a refusal, never a crash. */
static void broken_templates(void **state)
{
    (void)state;
    const json_t *line = json_array_get(json_object_get(vectors, "lines"), 2);
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(vectors, "cases"), i, c)
    {
        const char *text = json_string_value(json_object_get(c, "template"));
        const size_t n = strlen(text);
        char broken[2048];
        assert_true(n < sizeof broken);
        for (size_t k = 0; k < n; k += 1 + n / 200) {
            struct buf out = {0};
            memcpy(broken, text, n + 1);
            broken[k] = "{}%|'(:.-"[k % 9];
            (void)!render(&out, broken, line, NULL);
            broken[k] = 0;
            (void)!render(&out, broken, line, NULL);
            buf_free(&out);
        }
    }
}

static void long_template_is_refused(void **state)
{
    (void)state;
    struct chat_template *t = NULL;
    char *text = calloc(1, TEMPLATE_BYTES_MAX + 2);
    assert_non_null(text);
    memset(text, 'x', TEMPLATE_BYTES_MAX + 1);
    assert_int_equal(zo_template_new(&t, text, TEMPLATE_BYTES_MAX + 1, NULL), ERR_UNSUPPORTED);
    assert_null(t);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_equal_jinja),
        cmocka_unit_test(code_is_refused),
        cmocka_unit_test(broken_templates),
        cmocka_unit_test(long_template_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
