/* Post-processors: the special tokens around one text.  The pair template and type ids are not used. */
#include "zo/data/tok.h"

static enum err add_template_token(struct post *p, bool after, const json_t *config,
                                   const char *name, struct err_why *why)
{
    const json_t *token = zo_json_member(zo_json_member(config, "special_tokens"), name);
    const json_t *list = zo_json_member(token, "ids");
    if (!json_is_array(list))
        return err_set(why, ERR_FORMAT, "post_processor: the token \"%s\" has no ids", name);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_int_t id = json_integer_value(json_array_get(list, i));
        if (id < 0 || id >= VOCAB_ID_MAX)
            return err_set(why, ERR_FORMAT, "post_processor: the token \"%s\" has a bad id", name);
        ids_add(after ? &p->after : &p->before, (uint32_t)id);
    }
    return ERR_OK;
}

static enum err read_template(struct post *p, const json_t *config, struct err_why *why)
{
    const json_t *list = zo_json_member(config, "single");
    if (!json_is_array(list))
        return err_set(why, ERR_FORMAT, "post_processor: TemplateProcessing needs \"single\"");
    bool after = false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *name = zo_json_text(zo_json_member(item, "SpecialToken"), "id", NULL);
        if (name)
            TRY(add_template_token(p, after, config, name, why));
        else if (!zo_json_member(item, "Sequence") || after)
            return err_set(why, ERR_UNSUPPORTED, "post_processor: a template with other than one text");
        else
            after = true;
    }
    return after ? ERR_OK
                 : err_set(why, ERR_UNSUPPORTED, "post_processor: a template without the text");
}

/* BertProcessing and RobertaProcessing: "cls": [text, id], "sep": [text, id]. */
static enum err read_pair(struct post *p, const json_t *config, struct err_why *why)
{
    const json_t *cls = json_array_get(zo_json_member(config, "cls"), 1);
    const json_t *sep = json_array_get(zo_json_member(config, "sep"), 1);
    if (!json_is_integer(cls) || !json_is_integer(sep) || json_integer_value(cls) < 0 ||
        json_integer_value(sep) < 0 || json_integer_value(cls) >= VOCAB_ID_MAX ||
        json_integer_value(sep) >= VOCAB_ID_MAX)
        return err_set(why, ERR_FORMAT, "post_processor: needs \"cls\" and \"sep\" as [text, id]");
    ids_add(&p->before, (uint32_t)json_integer_value(cls));
    ids_add(&p->after, (uint32_t)json_integer_value(sep));
    return ERR_OK;
}

enum err zo_post_new(struct post *p, const json_t *config, struct err_why *why)
{
    const char *type = zo_json_text(config, "type", "(none)");
    if (strcmp(type, "ByteLevel") == 0)
        return ERR_OK; /* moves offsets, adds nothing */
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(p, config, why);
    if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0)
        return read_pair(p, config, why);
    if (strcmp(type, "Sequence") != 0)
        return err_set(why, ERR_UNSUPPORTED, "post_processor: type \"%s\" is not supported", type);
    const json_t *list = zo_json_member(config, "processors");
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct post inner = {0};
        enum err e = zo_post_new(&inner, json_array_get(list, i), why);
        for (size_t k = 0; !e && k < inner.after.n; k++) /* a later one wraps the earlier ones */
            ids_add(&p->after, inner.after.v[k]);
        for (size_t k = 0; !e && k < p->before.n; k++)
            ids_add(&inner.before, p->before.v[k]);
        struct ids before = p->before;
        p->before = inner.before;
        ids_free(&before);
        ids_free(&inner.after);
        TRY(e);
    }
    return p->before.oom || p->after.oom ? ERR_NOMEM : ERR_OK;
}
