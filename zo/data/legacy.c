/* Folders from before tokenizer.json: vocab.json + merges.txt.  They are turned into the tokenizer.json that
 * Hugging Face's converter would write, so that one reader serves both.
 *
 * The pre-tokenizer is GPT-2's unless tokenizer_config.json ("tokenizer_class") or config.json ("model_type") says
 * Qwen2.  Without tokenizer_config.json and special_tokens_map.json the usual names (<s>, <|endoftext|>, ..) are special
 * where the vocabulary has them.  <s> .. </s> are added for RoBERTa, the first token for OPT and for "add_bos_token". */
#include "zo/data/tok.h"

struct legacy {
    json_t *vocab, *merges, *tokenizer_config, *model_config, *special_map;
    json_t *out;
};

static const char qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* *root <- the file, or NULL when it is not there. */
static enum err open_optional(json_t **root, const char *dir, const char *name, struct err_why *why)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return err_set(why, ERR_RANGE, "%s: path too long", dir);
    const enum err e = zo_json_open(root, path, why);
    return e == ERR_NOTFOUND ? ERR_OK : e;
}

static enum err read_merges_txt(json_t **list, const char *dir, struct err_why *why)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/merges.txt", dir) >= (int)sizeof path)
        return err_set(why, ERR_RANGE, "%s: path too long", dir);
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_set(why, ERR_NOTFOUND, "%s: missing, vocab.json needs it beside it", path);
    json_t *out = json_array();
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    bool ok = out != NULL;
    while (ok && (n = zo_getline(&line, &cap, f)) >= 0) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            n--;
        if (n == 0 || strncmp(line, "#version", 8) == 0)
            continue;
        ok = json_array_append_new(out, json_stringn(line, (size_t)n)) == 0;
    }
    const bool failed = ok && !feof(f);
    free(line);
    fclose(f);
    if (!ok || failed) {
        json_decref(out);
        return err_set(why, failed ? ERR_IO : ERR_FORMAT, "%s: cannot be read as UTF-8 lines", path);
    }
    *list = out;
    return ERR_OK;
}

/* The text of a special token, which may be "x" or {"content": "x"}. */
static const char *special_name(const struct legacy *l, const char *key)
{
    const json_t *v = zo_json_member(l->tokenizer_config, key);
    if (!v)
        v = zo_json_member(l->special_map, key);
    return json_is_string(v) ? json_string_value(v) : zo_json_text(v, "content", NULL);
}

static bool add_token(json_t *list, json_int_t id, const char *text, const json_t *like)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(zo_json_text(json_array_get(list, i), "content", ""), text) == 0)
            return true;
    json_t *t = json_pack(
        "{s:I s:s s:b s:b s:b s:b s:b}", "id", id, "content", text, "single_word",
        zo_json_bool(like, "single_word", false), "lstrip",
        zo_json_bool(like, "lstrip", strcmp(text, "<mask>") == 0), "rstrip",
        zo_json_bool(like, "rstrip", false), "normalized", zo_json_bool(like, "normalized", false),
        "special", zo_json_bool(like, "special", true));
    return t && json_array_append_new(list, t) == 0;
}

static bool add_known(const struct legacy *l, json_t *list, const char *text)
{
    const json_t *id = text ? json_object_get(l->vocab, text) : NULL;
    return !json_is_integer(id) || add_token(list, json_integer_value(id), text, NULL);
}

static json_t *added_tokens(const struct legacy *l)
{
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token",
                                       "pad_token", "sep_token", "cls_token", "mask_token"};
    static const char *const names[] = {"<|endoftext|>", "<s>", "</s>", "<pad>", "<unk>", "<mask>"};
    json_t *list = json_array();
    bool ok = list != NULL;
    const char *key;
    json_t *value, *table = zo_json_member(l->tokenizer_config, "added_tokens_decoder");
    json_object_foreach(table, key, value)
    {
        const char *text = zo_json_text(value, "content", NULL);
        ok = ok && (!text || add_token(list, strtoll(key, NULL, 10), text, value));
    }
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        ok = ok && add_known(l, list, special_name(l, keys[i]));
    for (size_t i = 0; !l->tokenizer_config && !l->special_map && i < ARRAY_LEN(names); i++)
        ok = ok && add_known(l, list, names[i]);
    if (ok)
        return list;
    json_decref(list);
    return NULL;
}

static json_int_t id_of(const struct legacy *l, const char *key, const char *def)
{
    const char *name = special_name(l, key);
    const json_t *id = json_object_get(l->vocab, name ? name : def);
    return json_is_integer(id) ? json_integer_value(id) : -1;
}

static json_t *post_processor(const struct legacy *l, const char *kind)
{
    const bool opt = strcasestr(kind, "opt") != NULL;
    if (strcasestr(kind, "roberta")) {
        const json_int_t cls = id_of(l, "cls_token", "<s>"), sep = id_of(l, "sep_token", "</s>");
        return json_pack("{s:s s:[s,I] s:[s,I]}", "type", "RobertaProcessing", "cls", "<s>", cls,
                         "sep", "</s>", sep);
    }
    const json_int_t bos = id_of(l, "bos_token", opt ? "</s>" : "<|endoftext|>");
    if (bos < 0 || !zo_json_bool(l->tokenizer_config, "add_bos_token", opt))
        return json_null();
    return json_pack("{s:s s:[{s:{s:s}},{s:{s:s}}] s:{s:{s:[I]}}}", "type", "TemplateProcessing",
                     "single", "SpecialToken", "id", "bos", "Sequence", "id", "A", "special_tokens",
                     "bos", "ids", bos);
}

static enum err build(struct legacy *l)
{
    const char *kind = zo_json_text(l->tokenizer_config, "tokenizer_class",
                                    zo_json_text(l->model_config, "model_type", ""));
    const bool opt = strcmp(zo_json_text(l->model_config, "model_type", ""), "opt") == 0;
    json_t *normalizer = NULL, *pre = NULL;
    if (strcasestr(kind, "qwen2")) {
        normalizer = json_pack("{s:s}", "type", "NFC");
        pre = json_pack("{s:s s:[{s:s s:{s:s} s:s s:b}, {s:s s:b s:b}]}", "type", "Sequence",
                        "pretokenizers", "type", "Split", "pattern", "Regex", qwen2_pattern,
                        "behavior", "Isolated", "invert", 0, "type", "ByteLevel",
                        "add_prefix_space", 0, "use_regex", 0);
    } else {
        normalizer = json_null();
        pre = json_pack("{s:s s:b}", "type", "ByteLevel", "add_prefix_space",
                        zo_json_bool(l->tokenizer_config, "add_prefix_space", false));
    }
    l->out = json_pack("{s:o s:o s:o s:o s:{s:s} s:{s:s s:O s:O}}", "added_tokens", added_tokens(l),
                       "normalizer", normalizer, "pre_tokenizer", pre, "post_processor",
                       post_processor(l, opt ? "opt" : kind), "decoder", "type", "ByteLevel",
                       "model", "type", "BPE", "vocab", l->vocab, "merges", l->merges);
    return l->out ? ERR_OK : ERR_NOMEM;
}

enum err zo_legacy_config(json_t **config, const char *dir, struct err_why *why)
{
    struct legacy l = {0};
    enum err e = open_optional(&l.vocab, dir, "vocab.json", why);
    if (!e && !l.vocab)
        e = err_set(why, ERR_NOTFOUND, "%s: no tokenizer.json (nor vocab.json and merges.txt) in it; transformers writes one: "
                    "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)", dir);
    if (!e && !json_is_object(l.vocab))
        e = err_set(why, ERR_FORMAT, "%s/vocab.json: not an object of token: id", dir);
    if (!e)
        e = read_merges_txt(&l.merges, dir, why);
    if (!e)
        e = open_optional(&l.tokenizer_config, dir, "tokenizer_config.json", why);
    if (!e)
        e = open_optional(&l.model_config, dir, "config.json", why);
    if (!e)
        e = open_optional(&l.special_map, dir, "special_tokens_map.json", why);
    if (!e)
        e = build(&l);
    json_decref(l.vocab);
    json_decref(l.merges);
    json_decref(l.tokenizer_config);
    json_decref(l.model_config);
    json_decref(l.special_map);
    if (!e)
        *config = l.out;
    return e;
}
