/* Normalizers: text to text, before anything is split (added tokens that are not "normalized" are already out). */
#include "zo/data/tok.h"
#include "zo/data/utf8.h"
#include <utf8proc.h>

enum norm_kind {
    NORM_SEQUENCE,
    NORM_NFC,
    NORM_NFD,
    NORM_NFKC,
    NORM_NFKD,
    NORM_LOWERCASE,
    NORM_STRIP,
    NORM_STRIP_ACCENTS,
    NORM_BERT,
    NORM_REPLACE,
    NORM_PREPEND,
    NORM_NMT,
    NORM_BYTE_LEVEL,
    NORM_PRECOMPILED,
};
static const char *const kind_names[] = {
    "Sequence", "NFC",          "NFD",            "NFKC",    "NFKD",    "Lowercase", "Strip",
    "StripAccents", "BertNormalizer", "Replace", "Prepend", "Nmt", "ByteLevel", "Precompiled",
};

struct norm {
    enum norm_kind kind;
    bool left, right;                             /* Strip */
    bool clean, chinese, strip_accents, lowercase; /* BertNormalizer */
    char *literal, *content;                      /* Replace, Prepend */
    size_t literal_n, content_n;
    struct regex *regex;
    struct charsmap *charsmap; /* Precompiled */
    struct norm **child;
    size_t n_children;
};

void zo_norm_free(struct norm *n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n->n_children; i++)
        zo_norm_free(n->child[i]);
    free(n->child);
    free(n->literal);
    free(n->content);
    zo_regex_free(n->regex);
    zo_charsmap_free(n->charsmap);
    free(n);
}

static enum err copy_text(char **out, size_t *out_n, const json_t *text)
{
    const size_t n = json_string_length(text);
    *out = malloc(n + 1);
    if (!*out)
        return ERR_NOMEM;
    memcpy(*out, json_string_value(text), n + 1);
    *out_n = n;
    return ERR_OK;
}

static enum err read_replace(struct norm *n, const json_t *config, struct err_why *why)
{
    const json_t *pattern = zo_json_member(config, "pattern");
    const json_t *content = zo_json_member(config, "content");
    const json_t *regex = zo_json_member(pattern, "Regex");
    const json_t *literal = json_is_string(pattern) ? pattern : zo_json_member(pattern, "String");
    if (!json_is_string(content) || (!json_is_string(regex) && !json_is_string(literal)) ||
        (json_is_string(literal) && json_string_length(literal) == 0))
        return err_set(why, ERR_FORMAT, "normalizer: Replace needs \"pattern\" and \"content\"");
    TRY(copy_text(&n->content, &n->content_n, content));
    if (json_is_string(regex))
        return zo_regex_new(&n->regex, json_string_value(regex), json_string_length(regex), why);
    return copy_text(&n->literal, &n->literal_n, literal);
}

static enum err read_sequence(struct norm *n, const json_t *config, struct err_why *why)
{
    const json_t *list = zo_json_member(config, "normalizers");
    if (!json_is_array(list))
        return err_set(why, ERR_FORMAT, "normalizer: Sequence needs \"normalizers\"");
    n->child = calloc(json_array_size(list) + 1, sizeof(struct norm *));
    if (!n->child)
        return ERR_NOMEM;
    for (size_t i = 0; i < json_array_size(list); i++) {
        TRY(zo_norm_new(&n->child[i], json_array_get(list, i), why));
        n->n_children++;
    }
    return ERR_OK;
}

static enum err read_kind(struct norm *n, const json_t *config, struct err_why *why)
{
    switch (n->kind) {
    case NORM_SEQUENCE:
        return read_sequence(n, config, why);
    case NORM_STRIP:
        n->left = zo_json_bool(config, "strip_left", true);
        n->right = zo_json_bool(config, "strip_right", true);
        return ERR_OK;
    case NORM_BERT:
        n->clean = zo_json_bool(config, "clean_text", true);
        n->chinese = zo_json_bool(config, "handle_chinese_chars", true);
        n->lowercase = zo_json_bool(config, "lowercase", true);
        n->strip_accents = zo_json_bool(config, "strip_accents", n->lowercase); /* null: as lowercase */
        return ERR_OK;
    case NORM_REPLACE:
        return read_replace(n, config, why);
    case NORM_PRECOMPILED:
        return zo_charsmap_new(&n->charsmap, zo_json_text(config, "precompiled_charsmap", ""), why);
    case NORM_PREPEND: {
        const json_t *text = zo_json_member(config, "prepend");
        if (!json_is_string(text))
            return err_set(why, ERR_FORMAT, "normalizer: Prepend needs \"prepend\"");
        return copy_text(&n->content, &n->content_n, text);
    }
    default:
        return ERR_OK;
    }
}

enum err zo_norm_new(struct norm **out, const json_t *config, struct err_why *why)
{
    const char *type = zo_json_text(config, "type", "(none)");
    for (size_t k = 0; k < ARRAY_LEN(kind_names); k++) {
        if (strcmp(type, kind_names[k]) != 0)
            continue;
        struct norm *n = calloc(1, sizeof *n);
        if (!n)
            return ERR_NOMEM;
        n->kind = (enum norm_kind)k;
        enum err e = read_kind(n, config, why);
        if (e)
            zo_norm_free(n);
        else
            *out = n;
        return e;
    }
    return err_set(why, ERR_UNSUPPORTED, "normalizer: type \"%s\" is not supported", type);
}

static bool is_ascii(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)text[i] >= 0x80)
            return false;
    return true;
}

static enum err map_form(struct buf *out, enum norm_kind form, const char *text, size_t n)
{
    int options = UTF8PROC_STABLE;
    options |= form == NORM_NFC || form == NORM_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    options |= form == NORM_NFKC || form == NORM_NFKD ? UTF8PROC_COMPAT : 0;
    utf8proc_uint8_t *form_text = NULL;
    const utf8proc_ssize_t k = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n,
                                            &form_text, (utf8proc_option_t)options);
    if (k < 0)
        return k == UTF8PROC_ERROR_NOMEM ? ERR_NOMEM : ERR_FORMAT;
    buf_add(out, (const char *)form_text, (size_t)k);
    free(form_text);
    return ERR_OK;
}

/* One of the four Unicode normal forms.  Characters whose compatibility form is too new for the library stand for
 * themselves; they are starters, so the text around them can be mapped apart. */
static enum err add_form(struct buf *out, enum norm_kind form, const char *text, size_t n)
{
    if (is_ascii(text, n)) {
        buf_add(out, text, n);
        return ERR_OK;
    }
    size_t done = 0;
    for (size_t i = 0; i < n && (form == NORM_NFKC || form == NORM_NFKD);) {
        uint32_t c;
        const size_t k = zo_utf8_get(&c, text + i, n - i);
        if (zo_utf8_is_undecomposed(c)) {
            if (i > done)
                TRY(map_form(out, form, text + done, i - done));
            buf_add(out, text + i, k);
            done = i + k;
        }
        i += k;
    }
    return done < n ? map_form(out, form, text + done, n - done) : ERR_OK;
}

static bool is_chinese(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* One character through the cleaning steps of BERT. */
static void bert_clean(const struct norm *n, struct buf *out, uint32_t c)
{
    if (n->clean && zo_utf8_is_control(c))
        return;
    if (n->clean && zo_utf8_is_space(c))
        c = ' ';
    if (n->chinese && is_chinese(c)) {
        buf_add(out, " ", 1);
        zo_utf8_add(out, c);
        buf_add(out, " ", 1);
        return;
    }
    zo_utf8_add(out, c);
}

static enum err add_bert(const struct norm *n, struct buf *out, const char *text, size_t k)
{
    struct buf a = {0}, b = {0};
    for (size_t i = 0; i < k;) {
        uint32_t c;
        i += zo_utf8_get(&c, text + i, k - i);
        bert_clean(n, &a, c);
    }
    enum err e = a.oom ? ERR_NOMEM : ERR_OK;
    if (!e && n->strip_accents) {
        e = add_form(&b, NORM_NFD, a.p ? a.p : "", a.n);
        a.n = 0;
        for (size_t i = 0; i < b.n && !e;) {
            uint32_t c;
            i += zo_utf8_get(&c, b.p + i, b.n - i);
            if (!zo_utf8_is_mark_nonspacing(c))
                zo_utf8_add(&a, c);
        }
    }
    for (size_t i = 0; i < a.n && !e;) {
        uint32_t c;
        i += zo_utf8_get(&c, a.p + i, a.n - i);
        if (n->lowercase)
            zo_utf8_add_lower(out, c);
        else
            zo_utf8_add(out, c);
    }
    if (!e && (a.oom || b.oom))
        e = ERR_NOMEM;
    buf_free(&a);
    buf_free(&b);
    return e;
}

static void add_stripped(const struct norm *n, struct buf *out, const char *text, size_t k)
{
    size_t start = k, end = 0;
    for (size_t i = 0; i < k;) {
        uint32_t c;
        const size_t at = i;
        i += zo_utf8_get(&c, text + i, k - i);
        if (zo_utf8_is_space(c))
            continue;
        if (start == k)
            start = at;
        end = i;
    }
    if (end == 0 && (n->left || n->right))
        return; /* white space alone */
    if (!n->left || end == 0)
        start = 0;
    if (!n->right || end == 0)
        end = k;
    buf_add(out, text + start, end - start);
}

static enum err add_replaced(const struct norm *n, struct buf *out, const char *text, size_t k)
{
    if (n->regex) {
        struct spans s = {0};
        const enum err e = zo_regex_spans(n->regex, &s, text, k);
        for (size_t i = 0; i < s.n && !e; i++)
            if (s.v[i].match)
                buf_add(out, n->content, n->content_n);
            else
                buf_add(out, text + s.v[i].start, s.v[i].end - s.v[i].start);
        spans_free(&s);
        return e;
    }
    size_t done = 0;
    for (;;) {
        const char *at =
            k - done >= n->literal_n ? memmem(text + done, k - done, n->literal, n->literal_n) : NULL;
        const size_t end = at ? (size_t)(at - text) : k;
        buf_add(out, text + done, end - done);
        if (!at)
            return ERR_OK;
        buf_add(out, n->content, n->content_n);
        done = end + n->literal_n;
    }
}

/* SentencePiece's "nmt" cleaning: some control characters vanish, other spaces become a space. */
static void add_nmt(struct buf *out, uint32_t c)
{
    if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F ||
        c == 0x9F)
        return;
    if (c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
        c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD)
        c = ' ';
    zo_utf8_add(out, c);
}

static void add_char(const struct norm *n, struct buf *out, uint32_t c)
{
    if (n->kind == NORM_LOWERCASE)
        zo_utf8_add_lower(out, c);
    else if (n->kind == NORM_NMT)
        add_nmt(out, c);
    else if (!zo_utf8_is_mark(c)) /* NORM_STRIP_ACCENTS */
        zo_utf8_add(out, c);
}

static enum err apply_sequence(const struct norm *n, struct buf *out, const char *text, size_t k)
{
    struct buf a = {0};
    buf_add(&a, text, k);
    enum err e = ERR_OK;
    for (size_t i = 0; i < n->n_children && !e; i++) {
        struct buf b = {0};
        e = a.oom ? ERR_NOMEM : zo_norm_apply(n->child[i], &b, a.p, a.n);
        buf_free(&a);
        if (!b.p)
            buf_add(&b, "", 0);
        a = b;
    }
    if (!e && !a.oom)
        buf_add(out, a.p, a.n);
    if (!e && (a.oom || out->oom))
        e = ERR_NOMEM;
    buf_free(&a);
    return e;
}

enum err zo_norm_apply(const struct norm *n, struct buf *out, const char *text, size_t k)
{
    if (!n) {
        buf_add(out, text, k);
        return out->oom ? ERR_NOMEM : ERR_OK;
    }
    switch (n->kind) {
    case NORM_SEQUENCE:
        return apply_sequence(n, out, text, k);
    case NORM_NFC:
    case NORM_NFD:
    case NORM_NFKC:
    case NORM_NFKD:
        TRY(add_form(out, n->kind, text, k));
        break;
    case NORM_STRIP:
        add_stripped(n, out, text, k);
        break;
    case NORM_BERT:
        TRY(add_bert(n, out, text, k));
        break;
    case NORM_REPLACE:
        TRY(add_replaced(n, out, text, k));
        break;
    case NORM_PREPEND:
        if (k)
            buf_add(out, n->content, n->content_n);
        buf_add(out, text, k);
        break;
    case NORM_PRECOMPILED:
        zo_charsmap_apply(n->charsmap, out, text, k);
        break;
    case NORM_BYTE_LEVEL:
        for (size_t i = 0; i < k; i++)
            zo_utf8_add(out, zo_byte_char((uint8_t)text[i]));
        break;
    default:
        for (size_t i = 0; i < k;) {
            uint32_t c;
            i += zo_utf8_get(&c, text + i, k - i);
            add_char(n, out, c);
        }
    }
    return out->oom ? ERR_NOMEM : ERR_OK;
}
