/* The model of a tokenizer.json: which table a word meets.  BPE and Unigram have their own files; WordPiece and
 * WordLevel are short enough to stand here. */
#include "zo/data/tok.h"
#include "zo/data/utf8.h"

static enum err read_vocab_object(struct vocab *v, json_t *object, struct err_why *why)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= VOCAB_ID_MAX)
            return err_set(why, ERR_FORMAT, "model: the token \"%s\" has no valid id", key);
        TRY(zo_vocab_add(v, key, strlen(key), (uint32_t)id));
    }
    return ERR_OK;
}

static enum err read_vocab_list(struct vocab *v, const json_t *list, struct err_why *why)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *text = json_array_get(json_array_get(list, i), 0);
        if (!json_is_string(text) || i >= VOCAB_ID_MAX)
            return err_set(why, ERR_FORMAT, "model: vocab entry %zu is not [text, score]", i);
        TRY(zo_vocab_add(v, json_string_value(text), json_string_length(text), (uint32_t)i));
    }
    return ERR_OK;
}

/* "type" is missing in older files: the members tell. */
static const char *model_type(const json_t *config)
{
    const char *type = zo_json_text(config, "type", NULL);
    if (type)
        return type;
    if (zo_json_member(config, "merges"))
        return "BPE";
    if (json_is_array(zo_json_member(config, "vocab")))
        return "Unigram";
    return zo_json_member(config, "continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

static enum err read_words(struct model *m, const json_t *config, struct err_why *why)
{
    const long long chars = zo_json_int(config, "max_input_chars_per_word", 100);
    m->word_chars_max = chars < 0 ? 0 : (size_t)chars;
    m->unk_text = strdup(zo_json_text(config, "unk_token", m->kind == TOK_WORDPIECE ? "[UNK]" : "<unk>"));
    m->prefix = strdup(zo_json_text(config, "continuing_subword_prefix", "##"));
    if (!m->unk_text || !m->prefix)
        return ERR_NOMEM;
    if (m->kind == TOK_WORDPIECE &&
        zo_vocab_id(&m->vocab, m->unk_text, strlen(m->unk_text)) == VOCAB_NONE)
        return err_set(why, ERR_FORMAT, "model: unk_token \"%s\" is not in vocab", m->unk_text);
    return ERR_OK;
}

static enum err read_model(struct model *m, const json_t *config, struct err_why *why)
{
    static const char *const names[] = {"BPE", "WordPiece", "WordLevel", "Unigram"};
    const char *type = model_type(config);
    size_t k = 0;
    while (k < ARRAY_LEN(names) && strcmp(type, names[k]) != 0)
        k++;
    if (k == ARRAY_LEN(names))
        return err_set(why, ERR_UNSUPPORTED, "model: type \"%s\" is not supported", type);
    m->kind = (enum tok_kind)k;
    json_t *vocab = zo_json_member(config, "vocab");
    if (m->kind == TOK_UNIGRAM ? !json_is_array(vocab) : !json_is_object(vocab))
        return err_set(why, ERR_FORMAT, "model: \"vocab\" is missing");
    TRY(m->kind == TOK_UNIGRAM ? read_vocab_list(&m->vocab, vocab, why)
                               : read_vocab_object(&m->vocab, vocab, why));
    if (m->vocab.n == 0)
        return err_set(why, ERR_FORMAT, "model: \"vocab\" is empty");
    if (m->kind == TOK_BPE)
        return zo_bpe_new(&m->bpe, &m->vocab, config, why);
    if (m->kind == TOK_UNIGRAM)
        return zo_unigram_new(&m->unigram, &m->vocab, config, why);
    return read_words(m, config, why);
}

enum err zo_tok_model_new(struct model *m, const json_t *config, struct err_why *why)
{
    *m = (struct model){0};
    const enum err e = read_model(m, config, why);
    if (e)
        zo_tok_model_free(m);
    return e;
}

void zo_tok_model_free(struct model *m)
{
    zo_bpe_free(m->bpe);
    zo_unigram_free(m->unigram);
    free(m->unk_text);
    free(m->prefix);
    zo_vocab_free(&m->vocab);
    *m = (struct model){0};
}

static enum err add_unknown(const struct model *m, struct ids *out)
{
    const uint32_t unk = zo_vocab_id(&m->vocab, m->unk_text, strlen(m->unk_text));
    if (unk == VOCAB_NONE)
        return ERR_NOTFOUND;
    ids_add(out, unk);
    return out->oom ? ERR_NOMEM : ERR_OK;
}

static size_t count_chars(const char *p, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += ((uint8_t)p[i] & 0xC0) != 0x80;
    return k;
}

/* Longest match from the left; a word with a part that has no match is unknown as a whole. */
static enum err wordpiece(const struct model *m, struct ids *out, const char *word, size_t n)
{
    if (count_chars(word, n) > m->word_chars_max)
        return add_unknown(m, out);
    const size_t n_before = out->n, k = strlen(m->prefix);
    struct buf b = {0};
    for (size_t start = 0; start < n;) {
        size_t end = n;
        uint32_t id = VOCAB_NONE;
        b.n = 0;
        if (start)
            buf_add(&b, m->prefix, k);
        buf_add(&b, word + start, n - start);
        for (; end > start && !b.oom; end--) {
            if (end < n && ((uint8_t)word[end] & 0xC0) == 0x80)
                continue; /* not between two characters */
            id = zo_vocab_id(&m->vocab, b.p, (start ? k : 0) + end - start);
            if (id != VOCAB_NONE)
                break;
        }
        if (id == VOCAB_NONE) {
            out->n = n_before;
            buf_free(&b);
            return add_unknown(m, out);
        }
        ids_add(out, id);
        start = end;
    }
    const bool oom = b.oom || out->oom;
    buf_free(&b);
    return oom ? ERR_NOMEM : ERR_OK;
}

enum err zo_tok_model_encode(const struct model *m, struct bpe_work *w, struct ids *out,
                         const char *word, size_t n)
{
    if (m->kind == TOK_BPE)
        return zo_bpe_encode(m->bpe, w, out, word, n);
    if (m->kind == TOK_UNIGRAM)
        return zo_unigram_encode(m->unigram, out, word, n);
    if (m->kind == TOK_WORDPIECE)
        return wordpiece(m, out, word, n);
    const uint32_t id = zo_vocab_id(&m->vocab, word, n);
    if (id == VOCAB_NONE)
        return add_unknown(m, out);
    ids_add(out, id);
    return out->oom ? ERR_NOMEM : ERR_OK;
}
