/* Decoders: token texts back to text. */
#include "zo/data/tok.h"
#include "zo/data/utf8.h"

enum decoder_kind {
    DEC_SEQUENCE,
    DEC_BYTE_LEVEL,
    DEC_METASPACE,
    DEC_REPLACE,
    DEC_BYTE_FALLBACK,
    DEC_FUSE,
    DEC_STRIP,
    DEC_WORDPIECE,
    DEC_BPE,
};
static const char *const kind_names[] = {"Sequence",     "ByteLevel", "Metaspace", "Replace",
                                         "ByteFallback", "Fuse",      "Strip",     "WordPiece",
                                         "BPEDecoder"};

struct decoder {
    enum decoder_kind kind;
    struct norm *replace;
    char *text; /* Metaspace: its mark; Strip: the character; WordPiece: prefix; BPEDecoder: suffix */
    size_t start, stop;
    bool prepended, cleanup;
    struct decoder **child;
    size_t n_children;
};

void zo_decoder_free(struct decoder *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->n_children; i++)
        zo_decoder_free(d->child[i]);
    free(d->child);
    free(d->text);
    zo_norm_free(d->replace);
    free(d);
}

static enum err set_text(struct decoder *d, const char *text)
{
    d->text = strdup(text);
    return d->text ? ERR_OK : ERR_NOMEM;
}

static size_t small_count(const json_t *config, const char *key)
{
    const long long v = zo_json_int(config, key, 0);
    return v < 0 ? 0 : (size_t)v;
}

static enum err read_kind(struct decoder *d, const json_t *config, struct err_why *why)
{
    switch (d->kind) {
    case DEC_SEQUENCE: {
        const json_t *list = zo_json_member(config, "decoders");
        d->child = calloc(json_array_size(list) + 1, sizeof(struct decoder *));
        if (!d->child)
            return ERR_NOMEM;
        for (size_t i = 0; i < json_array_size(list); i++) {
            TRY(zo_decoder_new(&d->child[i], json_array_get(list, i), why));
            d->n_children++;
        }
        return ERR_OK;
    }
    case DEC_METASPACE:
        d->prepended = zo_json_bool(config, "add_prefix_space", true);
        if (zo_json_text(config, "prepend_scheme", NULL))
            d->prepended = strcmp(zo_json_text(config, "prepend_scheme", ""), "never") != 0;
        if (!*zo_json_text(config, "replacement", "\xE2\x96\x81")) /* found at every place, without end */
            return err_set(why, ERR_FORMAT, "decoder: the replacement of Metaspace is empty");
        return set_text(d, zo_json_text(config, "replacement", "\xE2\x96\x81"));
    case DEC_REPLACE:
        return zo_norm_new(&d->replace, config, why);
    case DEC_STRIP:
        d->start = small_count(config, "start");
        d->stop = small_count(config, "stop");
        return set_text(d, zo_json_text(config, "content", " "));
    case DEC_WORDPIECE:
        d->cleanup = zo_json_bool(config, "cleanup", true);
        return set_text(d, zo_json_text(config, "prefix", "##"));
    case DEC_BPE:
        return set_text(d, zo_json_text(config, "suffix", "</w>"));
    default:
        return ERR_OK;
    }
}

enum err zo_decoder_new(struct decoder **out, const json_t *config, struct err_why *why)
{
    const char *type = zo_json_text(config, "type", "(none)");
    for (size_t k = 0; k < ARRAY_LEN(kind_names); k++) {
        if (strcmp(type, kind_names[k]) != 0)
            continue;
        struct decoder *d = calloc(1, sizeof *d);
        if (!d)
            return ERR_NOMEM;
        d->kind = (enum decoder_kind)k;
        const enum err e = read_kind(d, config, why);
        if (e)
            zo_decoder_free(d);
        else
            *out = d;
        return e;
    }
    return err_set(why, ERR_UNSUPPORTED, "decoder: type \"%s\" is not supported", type);
}

/* ---- one token ---- */

/* GPT-2's characters back to bytes; a token with a foreign character is taken as it is. */
static void add_token_bytes(struct buf *b, const char *p, size_t n)
{
    const size_t n_before = b->n;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += zo_utf8_get(&cp, p + i, n - i);
        const int byte = zo_char_byte(cp);
        if (byte < 0) {
            b->n = n_before;
            buf_add(b, p, n);
            return;
        }
        const char c = (char)byte;
        buf_add(b, &c, 1);
    }
}

static void add_unmarked(const struct decoder *d, struct buf *b, const char *p, size_t n, bool first)
{
    const size_t k = strlen(d->text);
    for (size_t i = 0; i < n;) {
        if (n - i >= k && memcmp(p + i, d->text, k) == 0) {
            if (!(first && d->prepended))
                buf_add(b, " ", 1);
            i += k;
        } else {
            buf_add(b, p + i++, 1);
        }
    }
}

static void add_stripped(const struct decoder *d, struct buf *b, const char *p, size_t n)
{
    const size_t k = strlen(d->text);
    for (size_t i = 0; i < d->start && n >= k && k && memcmp(p, d->text, k) == 0; i++) {
        p += k;
        n -= k;
    }
    for (size_t i = 0; i < d->stop && n >= k && k && memcmp(p + n - k, d->text, k) == 0; i++)
        n -= k;
    buf_add(b, p, n);
}

static void replace_all(struct buf *b, const char *from, const char *to)
{
    const size_t k = strlen(from), t = strlen(to); /* t <= k: in place */
    size_t out = 0;
    for (size_t i = 0; i < b->n;) {
        if (b->n - i >= k && memcmp(b->p + i, from, k) == 0) {
            memcpy(b->p + out, to, t);
            out += t;
            i += k;
        } else {
            b->p[out++] = b->p[i++];
        }
    }
    b->n = out;
}

static void add_wordpiece(const struct decoder *d, struct buf *b, const char *p, size_t n, bool first)
{
    static const char *const pairs[][2] = {{" .", "."},     {" ?", "?"},     {" !", "!"},
                                           {" ,", ","},     {" ' ", "'"},    {" n't", "n't"},
                                           {" 'm", "'m"},   {" do not", " don't"},
                                           {" 's", "'s"},   {" 've", "'ve"}, {" 're", "'re"}};
    const size_t k = strlen(d->text);
    struct buf token = {0};
    if (!first && n >= k && memcmp(p, d->text, k) == 0) {
        p += k;
        n -= k;
    } else if (!first) {
        buf_add(&token, " ", 1);
    }
    buf_add(&token, p, n);
    for (size_t i = 0; d->cleanup && !token.oom && i < ARRAY_LEN(pairs); i++)
        replace_all(&token, pairs[i][0], pairs[i][1]);
    if (token.oom)
        b->oom = true;
    else
        buf_add(b, token.p, token.n);
    buf_free(&token);
}

static void add_bpe(const struct decoder *d, struct buf *b, const char *p, size_t n, bool last)
{
    const size_t k = strlen(d->text);
    for (size_t i = 0; i < n;) {
        if (k && n - i >= k && memcmp(p + i, d->text, k) == 0) {
            if (!last)
                buf_add(b, " ", 1);
            i += k;
        } else {
            buf_add(b, p + i++, 1);
        }
    }
}

/* ---- all tokens ---- */

static int hex_digit(char c)
{
    const char *digits = "0123456789ABCDEF", *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* The value of "<0xAB>", or -1. */
static int byte_token(const char *p, size_t n)
{
    if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>')
        return -1;
    const int high = hex_digit(p[3]), low = hex_digit(p[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of byte tokens becomes its text, or one U+FFFD per byte if it is not UTF-8. */
static void close_bytes(struct pieces *out, struct buf *run)
{
    if (run->n && zo_utf8_valid(run->p, run->n))
        zo_pieces_add(out, run->p, run->n, false);
    else
        for (size_t i = 0; i < run->n; i++)
            zo_pieces_add(out, "\xEF\xBF\xBD", 3, false);
    run->n = 0;
}

static void apply_byte_fallback(struct pieces *out, const struct pieces *in)
{
    struct buf run = {0};
    for (size_t i = 0; i < in->n; i++) {
        const char *p = in->text.p + in->v[i].off;
        const int byte = byte_token(p, in->v[i].n);
        if (byte >= 0) {
            const char c = (char)byte;
            buf_add(&run, &c, 1);
            continue;
        }
        close_bytes(out, &run);
        zo_pieces_add(out, p, in->v[i].n, false);
    }
    close_bytes(out, &run);
    out->oom = out->oom || run.oom;
    buf_free(&run);
}

static enum err apply_each(const struct decoder *d, struct pieces *out, const struct pieces *in)
{
    struct buf b = {0}, all = {0};
    enum err e = ERR_OK;
    for (size_t i = 0; i < in->n && !e; i++) {
        const char *p = in->text.p + in->v[i].off;
        const size_t n = in->v[i].n;
        b.n = 0;
        if (d->kind == DEC_METASPACE)
            add_unmarked(d, &b, p, n, i == 0);
        else if (d->kind == DEC_STRIP)
            add_stripped(d, &b, p, n);
        else if (d->kind == DEC_WORDPIECE)
            add_wordpiece(d, &b, p, n, i == 0);
        else if (d->kind == DEC_BPE)
            add_bpe(d, &b, p, n, i + 1 == in->n);
        else if (d->kind == DEC_REPLACE)
            e = zo_norm_apply(d->replace, &b, p, n);
        else if (d->kind == DEC_FUSE)
            buf_add(&all, p, n);
        else
            add_token_bytes(&all, p, n); /* characters may be split between tokens: decoded together */
        zo_pieces_add(out, b.p, b.n, false);
    }
    if (d->kind == DEC_BYTE_LEVEL && all.n) {
        b.n = 0;
        zo_utf8_add_lossy(&b, all.p, all.n);
        zo_pieces_add(out, b.p, b.n, false);
    } else if (all.n) {
        zo_pieces_add(out, all.p, all.n, false);
    }
    if (!e && (b.oom || all.oom))
        e = ERR_NOMEM;
    buf_free(&b);
    buf_free(&all);
    return e;
}

enum err zo_decoder_apply(const struct decoder *d, struct pieces *tokens)
{
    if (d->kind == DEC_SEQUENCE) {
        for (size_t i = 0; i < d->n_children; i++)
            TRY(zo_decoder_apply(d->child[i], tokens));
        return ERR_OK;
    }
    struct pieces out = {0};
    enum err e = ERR_OK;
    if (d->kind == DEC_BYTE_FALLBACK)
        apply_byte_fallback(&out, tokens);
    else
        e = apply_each(d, &out, tokens);
    if (!e && (out.oom || out.text.oom))
        e = ERR_NOMEM;
    if (e) {
        zo_pieces_free(&out);
        return e;
    }
    zo_pieces_free(tokens);
    *tokens = out;
    return ERR_OK;
}
