/* The chat template of a model's folder: chat_template.jinja, or "chat_template" in tokenizer_config.json (a text, or a
 * list of named ones: "default"), or in chat_template.json. */
#include "zo/data/tok.h"

static enum err file_path(char path[4096], const char *dir, const char *name)
{
    return snprintf(path, 4096, "%s/%s", dir, name) >= 4096 ? ERR_RANGE : ERR_OK;
}

/* Appends the file, at most one byte more than a template may have.  A missing file is no error: nothing is appended. */
static enum err read_text(struct buf *out, const char *dir, const char *name)
{
    char path[4096], part[4096];
    TRY(file_path(path, dir, name));
    FILE *f = fopen(path, "rb");
    if (!f)
        return ERR_OK;
    size_t n;
    while (out->n <= TEMPLATE_BYTES_MAX && (n = fread(part, 1, sizeof part, f)) > 0)
        buf_add(out, part, n);
    const bool failed = ferror(f) != 0;
    fclose(f);
    return failed ? ERR_IO : out->oom ? ERR_NOMEM : ERR_OK;
}

/* *root <- the JSON file, or NULL: missing, or not JSON (which *c then says). */
static enum err read_json(struct chat *c, json_t **root, const char *dir, const char *name)
{
    char path[4096];
    TRY(file_path(path, dir, name));
    *root = NULL;
    struct err_why why = {0};
    const enum err e = zo_json_open(root, path, &why);
    if (e == ERR_FORMAT)
        c->why = why;
    return e == ERR_FORMAT || e == ERR_NOTFOUND ? ERR_OK : e;
}

static const json_t *template_text(const json_t *config)
{
    const json_t *v = zo_json_member(config, "chat_template");
    size_t i;
    json_t *one;
    json_array_foreach(v, i, one)
    {
        if (strcmp(zo_json_text(one, "name", ""), "default") == 0)
            return zo_json_member(one, "template");
    }
    return v;
}

static enum err set_variables(struct chat *c, const json_t *config)
{
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                       "sep_token", "cls_token", "mask_token"};
    c->variables = json_pack("{s:n s:n}", "tools", "documents");
    for (size_t i = 0; c->variables && i < ARRAY_LEN(keys); i++) {
        const json_t *v = zo_json_member(config, keys[i]);
        const char *text = json_is_string(v) ? json_string_value(v) : zo_json_text(v, "content", NULL);
        if (text && json_object_set_new(c->variables, keys[i], json_string(text)) != 0)
            return ERR_NOMEM;
    }
    return c->variables ? ERR_OK : ERR_NOMEM;
}

static enum err parse(struct chat *c, const char *text, size_t n)
{
    const enum err e = zo_template_new(&c->template, text, n, &c->why);
    return e == ERR_NOMEM ? e : ERR_OK; /* a template that cannot be used is told when it is needed */
}

enum err zo_chat_open(struct chat *c, const char *dir)
{
    json_t *config = NULL, *other = NULL;
    struct buf text = {0};
    *c = (struct chat){0};
    (void)err_set(&c->why, ERR_OK, "%s has no chat template (chat_template.jinja, or in tokenizer_config.json)", dir);
    enum err e = read_json(c, &config, dir, "tokenizer_config.json");
    if (!e)
        e = set_variables(c, config);
    if (!e)
        e = read_text(&text, dir, "chat_template.jinja");
    if (!e)
        e = read_json(c, &other, dir, "chat_template.json");
    const json_t *inside = template_text(config);
    if (!json_is_string(inside))
        inside = template_text(other);
    if (!e && text.n)
        e = parse(c, text.p, text.n);
    else if (!e && json_is_string(inside))
        e = parse(c, json_string_value(inside), json_string_length(inside));
    json_decref(config);
    json_decref(other);
    buf_free(&text);
    if (e)
        zo_chat_free(c);
    return e;
}

void zo_chat_free(struct chat *c)
{
    zo_template_free(c->template);
    json_decref(c->variables);
    *c = (struct chat){0};
}

enum err zo_chat_render(const struct chat *c, struct buf *out, const json_t *messages, size_t n,
                        bool generation_prompt, struct err_why *why)
{
    if (!c->template)
        return err_set(why, ERR_UNSUPPORTED, "%s", c->why.text);
    json_t *variables = json_copy(c->variables), *part = json_array();
    bool ok = variables && part;
    for (size_t i = 0; ok && i < n; i++)
        ok = json_array_append(part, json_array_get(messages, i)) == 0;
    ok = ok && json_object_set(variables, "messages", part) == 0 &&
         json_object_set_new(variables, "add_generation_prompt", json_boolean(generation_prompt)) == 0;
    const enum err e = ok ? zo_template_render(c->template, out, variables, why) : ERR_NOMEM;
    json_decref(variables);
    json_decref(part);
    return e;
}
