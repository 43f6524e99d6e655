/* Opening a tokenizer and running its stages in order; the stages are in tok.h. */
#include "zo/data/tok.h"
#include "zo/data/utf8.h"

void zo_tokenizer_free(struct zo_tokenizer *t)
{
    if (!t)
        return;
    zo_norm_free(t->norm);
    zo_pretok_free(t->pretok);
    zo_tok_model_free(&t->model);
    zo_added_free(&t->added);
    ids_free(&t->post.before);
    ids_free(&t->post.after);
    zo_decoder_free(t->decoder);
    zo_chat_free(&t->chat);
    free(t);
}

/* ---- opening ---- */

static enum err read_added(struct added *a, const json_t *list, struct err_why *why)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *t = json_array_get(list, i), *text = zo_json_member(t, "content");
        const long long id = zo_json_int(t, "id", -1);
        if (!json_is_string(text) || id < 0 || id >= VOCAB_ID_MAX)
            return err_set(why, ERR_FORMAT, "added_tokens: entry %zu has no content or no valid id", i);
        TRY(zo_added_add(a, json_string_value(text), json_string_length(text), (uint32_t)id, t));
    }
    return ERR_OK;
}

static enum err read_config(struct zo_tokenizer *t, const json_t *config, struct err_why *why)
{
    const json_t *model = zo_json_member(config, "model");
    const json_t *norm = zo_json_member(config, "normalizer");
    const json_t *pretok = zo_json_member(config, "pre_tokenizer");
    const json_t *post = zo_json_member(config, "post_processor");
    const json_t *decoder = zo_json_member(config, "decoder");
    if (!json_is_object(model))
        return err_set(why, ERR_FORMAT, "\"model\" is missing: not a tokenizer.json");
    TRY(zo_tok_model_new(&t->model, model, why));
    if (norm)
        TRY(zo_norm_new(&t->norm, norm, why));
    if (pretok)
        TRY(zo_pretok_new(&t->pretok, pretok, why));
    if (post)
        TRY(zo_post_new(&t->post, post, why));
    if (decoder)
        TRY(zo_decoder_new(&t->decoder, decoder, why));
    TRY(read_added(&t->added, zo_json_member(config, "added_tokens"), why));
    return zo_added_ready(&t->added, t->norm);
}

enum err zo_tokenizer_open(struct zo_tokenizer **out, const char *dir, struct err_why *why)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/tokenizer.json", dir) >= (int)sizeof path)
        return err_set(why, ERR_RANGE, "%s: path too long", dir);
    json_t *config = NULL;
    enum err e = zo_json_open(&config, path, why);
    if (e == ERR_NOTFOUND) {
        (void)snprintf(path, sizeof path, "%s", dir);
        e = zo_legacy_config(&config, dir, why);
    }
    if (e)
        return e;
    struct zo_tokenizer *t = calloc(1, sizeof *t);
    struct err_why inner = {0};
    e = t ? read_config(t, config, &inner) : ERR_NOMEM;
    json_decref(config);
    if (!e)
        e = zo_chat_open(&t->chat, dir);
    if (e) {
        zo_tokenizer_free(t);
        return err_set(why, e, "%s: %s", path, *inner.text ? inner.text : err_str(e));
    }
    *out = t;
    return ERR_OK;
}

uint32_t zo_tokenizer_vocab(const struct zo_tokenizer *t)
{
    const size_t a = t->model.vocab.n, b = t->added.vocab.n;
    return (uint32_t)(a > b ? a : b);
}

uint32_t zo_tokenizer_token(const struct zo_tokenizer *t, const char *text)
{
    const uint32_t id = zo_vocab_id(&t->added.vocab, text, strlen(text));
    return id != VOCAB_NONE ? id : zo_vocab_id(&t->model.vocab, text, strlen(text));
}

/* ---- encoding ---- */

struct encoding {
    const struct zo_tokenizer *t;
    struct ids out;
    struct bpe_work *work;
    struct pieces pieces;
    struct buf normal;
    struct spans raw, inner;
    struct ids raw_where, inner_where;
};

/* Text without any added token: words, then ids. */
static enum err encode_plain(struct encoding *c, const char *text, size_t n, bool first)
{
    zo_pieces_clear(&c->pieces);
    zo_pieces_add(&c->pieces, text, n, first);
    if (c->pieces.oom || c->pieces.text.oom)
        return ERR_NOMEM;
    TRY(zo_pretok_apply(c->t->pretok, &c->pieces));
    for (size_t i = 0; i < c->pieces.n; i++) {
        const struct piece *p = &c->pieces.v[i];
        TRY(zo_tok_model_encode(&c->t->model, c->work, &c->out, c->pieces.text.p + p->off, p->n));
    }
    return ERR_OK;
}

/* Text without the added tokens that are looked for before normalising. */
static enum err encode_raw(struct encoding *c, const char *text, size_t n, bool first)
{
    const struct added *a = &c->t->added;
    c->normal.n = 0;
    TRY(zo_norm_apply(c->t->norm, &c->normal, text, n));
    const char *p = c->normal.p ? c->normal.p : "";
    TRY(zo_added_spans(a, &a->normal, &c->inner, &c->inner_where, p, c->normal.n));
    for (size_t i = 0; i < c->inner.n; i++) {
        const struct span *s = &c->inner.v[i];
        if (s->match)
            ids_add(&c->out, a->v[c->inner_where.v[i]].id);
        else
            TRY(encode_plain(c, p + s->start, s->end - s->start, first && s->start == 0));
    }
    return ERR_OK;
}

static enum err encode_all(struct encoding *c, const char *text, size_t n, bool special)
{
    const struct added *a = &c->t->added;
    const struct post *post = &c->t->post;
    for (size_t i = 0; special && i < post->before.n; i++)
        ids_add(&c->out, post->before.v[i]);
    TRY(zo_added_spans(a, &a->raw, &c->raw, &c->raw_where, text, n));
    for (size_t i = 0; i < c->raw.n; i++) {
        const struct span *s = &c->raw.v[i];
        if (s->match)
            ids_add(&c->out, a->v[c->raw_where.v[i]].id);
        else
            TRY(encode_raw(c, text + s->start, s->end - s->start, s->start == 0));
    }
    for (size_t i = 0; special && i < post->after.n; i++)
        ids_add(&c->out, post->after.v[i]);
    return c->out.oom ? ERR_NOMEM : ERR_OK;
}

enum err zo_tokenizer_encode(const struct zo_tokenizer *t, const char *text, size_t text_bytes,
                             bool special, uint32_t **ids, size_t *n)
{
    struct encoding c = {.t = t, .work = zo_bpe_work_new()};
    struct buf clean = {0};
    zo_utf8_add_lossy(&clean, text, text_bytes);
    ids_add(&c.out, 0); /* so that the answer is never NULL */
    c.out.n = 0;
    enum err e = c.work && !clean.oom && !c.out.oom ? ERR_OK : ERR_NOMEM;
    if (!e)
        e = encode_all(&c, clean.p, clean.n, special);
    buf_free(&clean);
    zo_bpe_work_free(c.work);
    zo_pieces_free(&c.pieces);
    buf_free(&c.normal);
    spans_free(&c.raw);
    spans_free(&c.inner);
    ids_free(&c.raw_where);
    ids_free(&c.inner_where);
    if (e) {
        ids_free(&c.out);
        return e;
    }
    *ids = c.out.v;
    *n = c.out.n;
    return ERR_OK;
}

/* ---- decoding ---- */

enum err zo_tokenizer_decode(const struct zo_tokenizer *t, const uint32_t *ids, size_t n,
                             bool skip_special, char **text)
{
    struct pieces tokens = {0};
    for (size_t i = 0; i < n; i++) {
        size_t k;
        const char *p = zo_vocab_text(&t->added.vocab, ids[i], &k);
        if (p && skip_special && zo_added_special(&t->added, ids[i]))
            continue;
        if (!p)
            p = zo_vocab_text(&t->model.vocab, ids[i], &k);
        if (p && !t->decoder && tokens.n)
            zo_pieces_add(&tokens, " ", 1, false);
        if (p)
            zo_pieces_add(&tokens, p, k, false);
    }
    enum err e = tokens.oom || tokens.text.oom ? ERR_NOMEM : ERR_OK;
    if (!e && t->decoder)
        e = zo_decoder_apply(t->decoder, &tokens);
    if (!e) {
        *text = malloc(tokens.text.n + 1);
        if (*text) {
            if (tokens.text.n)
                memcpy(*text, tokens.text.p, tokens.text.n);
            (*text)[tokens.text.n] = 0;
        } else {
            e = ERR_NOMEM;
        }
    }
    zo_pieces_free(&tokens);
    return e;
}
