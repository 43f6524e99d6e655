/* Pre-tokenizers: they cut the text into the words that the model sees, and may rewrite it (ByteLevel, Metaspace).
 * Each rule is that of the `tokenizers` library; where it is not obvious, the rule stands beside the code. */
#include "zo/data/tok.h"
#include "zo/data/utf8.h"

enum pretok_kind {
    PRE_SEQUENCE,
    PRE_BYTE_LEVEL,
    PRE_METASPACE,
    PRE_WHITESPACE,
    PRE_WHITESPACE_SPLIT,
    PRE_PUNCTUATION,
    PRE_DIGITS,
    PRE_SPLIT,
    PRE_BERT,
    PRE_DELIMITER,
};
static const char *const kind_names[] = {
    "Sequence",    "ByteLevel", "Metaspace", "Whitespace",       "WhitespaceSplit",
    "Punctuation", "Digits",    "Split",     "BertPreTokenizer", "CharDelimiterSplit",
};
static const char *const behavior_names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                             "MergedWithNext", "Contiguous"};

struct pretok {
    enum pretok_kind kind;
    enum tok_behavior behavior;
    bool prefix_space, use_regex, individual, invert, split;
    enum { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS } prepend;
    char *literal; /* Split by a string; the replacement of Metaspace; the delimiter */
    size_t literal_n;
    struct regex *regex;
    struct pretok **child; /* [n_children] */
    size_t n_children;
};

static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* GPT-2 gives every byte a printable character: itself where it is printable, else 256 and up in order. */
uint32_t zo_byte_char(uint8_t b)
{
    if ((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174)
        return b;
    if (b <= 32)
        return 256u + b;
    if (b <= 160)
        return 256u + 33u + (b - 127u);
    return 256u + 67u; /* 173, the soft hyphen */
}

int zo_char_byte(uint32_t cp)
{
    if (cp < 256)
        return zo_byte_char((uint8_t)cp) == cp ? (int)cp : -1;
    if (cp <= 256 + 32)
        return (int)cp - 256;
    if (cp <= 256 + 66)
        return (int)cp - 256 - 33 + 127;
    return cp == 256 + 67 ? 173 : -1;
}

void zo_pieces_free(struct pieces *p)
{
    buf_free(&p->text);
    free(p->v);
    *p = (struct pieces){0};
}

void zo_pieces_clear(struct pieces *p)
{
    p->text.n = 0;
    p->n = 0;
}

/* The bytes from `off` to the end of the text become a piece. */
static void pieces_close(struct pieces *p, size_t off, bool first)
{
    void *v = p->v;
    if (p->text.n == off)
        return;
    if (p->oom || p->text.oom || !buf_grow(&v, &p->cap, p->n, 1, sizeof *p->v)) {
        p->oom = true;
        return;
    }
    p->v = v;
    p->v[p->n++] = (struct piece){.off = off, .n = p->text.n - off, .first = first};
}

void zo_pieces_add(struct pieces *p, const char *text, size_t n, bool first)
{
    const size_t off = p->text.n;
    buf_add(&p->text, text, n);
    pieces_close(p, off, first);
}

/* ---- reading ---- */

void zo_pretok_free(struct pretok *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n_children; i++)
        zo_pretok_free(p->child[i]);
    free(p->child);
    free(p->literal);
    zo_regex_free(p->regex);
    free(p);
}

/* An empty text would be found at every place, without end. */
static enum err set_literal(struct pretok *p, const char *text, struct err_why *why)
{
    if (!*text)
        return err_set(why, ERR_FORMAT, "pre_tokenizer: its pattern, replacement or delimiter is empty");
    p->literal = strdup(text);
    p->literal_n = strlen(text);
    return p->literal ? ERR_OK : ERR_NOMEM;
}

static enum err read_behavior(struct pretok *p, const json_t *config, enum tok_behavior def,
                              struct err_why *why)
{
    const char *name = zo_json_text(config, "behavior", behavior_names[def]);
    for (size_t i = 0; i < ARRAY_LEN(behavior_names); i++)
        if (strcmp(name, behavior_names[i]) == 0) {
            p->behavior = (enum tok_behavior)i;
            return ERR_OK;
        }
    return err_set(why, ERR_UNSUPPORTED, "pre_tokenizer: unknown behavior \"%s\"", name);
}

static enum err read_split(struct pretok *p, const json_t *config, struct err_why *why)
{
    const json_t *pattern = zo_json_member(config, "pattern");
    const char *literal = json_is_string(pattern) ? json_string_value(pattern)
                                                  : zo_json_text(pattern, "String", NULL);
    const json_t *regex = zo_json_member(pattern, "Regex");
    p->invert = zo_json_bool(config, "invert", false);
    TRY(read_behavior(p, config, TOK_REMOVED, why));
    if (json_is_string(regex))
        return zo_regex_new(&p->regex, json_string_value(regex), json_string_length(regex), why);
    if (!literal || !*literal)
        return err_set(why, ERR_FORMAT, "pre_tokenizer: Split needs a pattern (String or Regex)");
    return set_literal(p, literal, why);
}

static enum err read_metaspace(struct pretok *p, const json_t *config, struct err_why *why)
{
    const char *scheme = zo_json_text(config, "prepend_scheme", NULL);
    p->split = zo_json_bool(config, "split", true);
    p->prepend = zo_json_bool(config, "add_prefix_space", true) ? PREPEND_ALWAYS : PREPEND_NEVER;
    if (scheme) {
        if (strcmp(scheme, "always") != 0 && strcmp(scheme, "first") != 0 &&
            strcmp(scheme, "never") != 0)
            return err_set(why, ERR_UNSUPPORTED, "pre_tokenizer: unknown prepend_scheme \"%s\"",
                           scheme);
        p->prepend = *scheme == 'a' ? PREPEND_ALWAYS : *scheme == 'f' ? PREPEND_FIRST : PREPEND_NEVER;
    }
    return set_literal(p, zo_json_text(config, "replacement", "\xE2\x96\x81"), why);
}

static enum err read_sequence(struct pretok *p, const json_t *config, struct err_why *why)
{
    const json_t *list = zo_json_member(config, "pretokenizers");
    if (!json_is_array(list))
        return err_set(why, ERR_FORMAT, "pre_tokenizer: Sequence needs \"pretokenizers\"");
    p->child = calloc(json_array_size(list) + 1, sizeof(struct pretok *));
    if (!p->child)
        return ERR_NOMEM;
    for (size_t i = 0; i < json_array_size(list); i++) {
        TRY(zo_pretok_new(&p->child[i], json_array_get(list, i), why));
        p->n_children++;
    }
    return ERR_OK;
}

static enum err read_kind(struct pretok *p, const json_t *config, struct err_why *why)
{
    switch (p->kind) {
    case PRE_SEQUENCE:
        return read_sequence(p, config, why);
    case PRE_BYTE_LEVEL:
        p->prefix_space = zo_json_bool(config, "add_prefix_space", true);
        p->use_regex = zo_json_bool(config, "use_regex", true);
        return zo_regex_new(&p->regex, gpt2_pattern, sizeof gpt2_pattern - 1, why);
    case PRE_METASPACE:
        return read_metaspace(p, config, why);
    case PRE_PUNCTUATION:
        return read_behavior(p, config, TOK_ISOLATED, why);
    case PRE_DIGITS:
        p->individual = zo_json_bool(config, "individual_digits", false);
        p->behavior = p->individual ? TOK_ISOLATED : TOK_CONTIGUOUS;
        return ERR_OK;
    case PRE_SPLIT:
        return read_split(p, config, why);
    case PRE_DELIMITER:
        return set_literal(p, zo_json_text(config, "delimiter", " "), why);
    default:
        return ERR_OK;
    }
}

enum err zo_pretok_new(struct pretok **out, const json_t *config, struct err_why *why)
{
    const char *type = zo_json_text(config, "type", "(none)");
    for (size_t k = 0; k < ARRAY_LEN(kind_names); k++) {
        if (strcmp(type, kind_names[k]) != 0)
            continue;
        struct pretok *p = calloc(1, sizeof *p);
        if (!p)
            return ERR_NOMEM;
        p->kind = (enum pretok_kind)k;
        enum err e = read_kind(p, config, why);
        if (e)
            zo_pretok_free(p);
        else
            *out = p;
        return e;
    }
    return err_set(why, ERR_UNSUPPORTED, "pre_tokenizer: type \"%s\" is not supported", type);
}

/* ---- splitting ---- */

/* Adds the spans of text to out, joined as the behavior says. */
static void add_spans(struct pieces *out, const struct spans *s, const char *text,
                      enum tok_behavior behavior, bool invert, bool first)
{
    size_t i = 0;
    while (i < s->n) {
        size_t j = i + 1; /* spans i .. j-1 become one piece */
        const bool match = s->v[i].match != invert;
        const bool next = j < s->n ? s->v[j].match != invert : match;
        if (behavior == TOK_CONTIGUOUS)
            while (j < s->n && (s->v[j].match != invert) == match)
                j++;
        else if (behavior == TOK_MERGED_PREVIOUS && j < s->n && !match && next)
            j++;
        else if (behavior == TOK_MERGED_NEXT && j < s->n && match && !next)
            j++;
        if (behavior != TOK_REMOVED || !match)
            zo_pieces_add(out, text + s->v[i].start, s->v[j - 1].end - s->v[i].start,
                          first && s->v[i].start == 0);
        i = j;
    }
}

/* Spans of characters for which is() holds: each alone. */
static void class_spans(struct spans *s, bool (*is)(uint32_t), const char *text, size_t n)
{
    size_t done = 0;
    s->n = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        const size_t k = zo_utf8_get(&cp, text + i, n - i);
        if (is(cp)) {
            if (done < i)
                zo_spans_add(s, done, i, false);
            zo_spans_add(s, i, i + k, true);
            done = i + k;
        }
        i += k;
    }
    if (done < n)
        zo_spans_add(s, done, n, false);
}

static void literal_spans(struct spans *s, const char *literal, size_t k, const char *text,
                          size_t n)
{
    size_t done = 0;
    s->n = 0;
    for (;;) {
        const char *at = n - done >= k ? memmem(text + done, n - done, literal, k) : NULL;
        if (!at)
            break;
        const size_t i = (size_t)(at - text);
        if (i > done)
            zo_spans_add(s, done, i, false);
        zo_spans_add(s, i, i + k, true);
        done = i + k;
    }
    if (done < n)
        zo_spans_add(s, done, n, false);
}

/* \w+|[^\w\s]+ : runs of word characters, runs of others, white space dropped. */
static void split_whitespace(struct pieces *out, const char *text, size_t n, bool first)
{
    size_t start = 0;
    int kind = 0; /* 0 space, 1 word, 2 other */
    for (size_t i = 0; i <= n;) {
        uint32_t cp = ' ';
        const size_t k = i < n ? zo_utf8_get(&cp, text + i, n - i) : 1;
        const int now = zo_utf8_is_word(cp) ? 1 : zo_utf8_is_space(cp) ? 0 : 2;
        if (now != kind) {
            if (kind)
                zo_pieces_add(out, text + start, i - start, first && start == 0);
            start = i;
            kind = now;
        }
        i += k;
    }
}

static void split_bert(struct pieces *out, struct spans *s, const char *text, size_t n, bool first)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t k = zo_utf8_get(&cp, text + i, n - i);
        if (zo_utf8_is_space(cp)) {
            i += k;
            continue;
        }
        size_t end = i;
        while (end < n && !zo_utf8_is_space(cp)) {
            end += k;
            if (end < n)
                k = zo_utf8_get(&cp, text + end, n - end);
        }
        class_spans(s, zo_utf8_is_punct, text + i, end - i);
        add_spans(out, s, text + i, TOK_ISOLATED, false, first && i == 0);
        i = end;
    }
}

static void add_bytes(struct pieces *out, const char *text, size_t n, bool first)
{
    const size_t off = out->text.n;
    char stack[512];
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        k += zo_utf8_put(stack + k, zo_byte_char((uint8_t)text[i]));
        if (k > sizeof stack - 4 || i + 1 == n) {
            buf_add(&out->text, stack, k);
            k = 0;
        }
    }
    pieces_close(out, off, first);
}

static enum err split_bytes(const struct pretok *p, struct pieces *out, struct spans *s,
                            struct buf *b, const char *text, size_t n, bool first)
{
    if (p->prefix_space && text[0] != ' ') {
        b->n = 0;
        buf_add(b, " ", 1);
        buf_add(b, text, n);
        if (b->oom)
            return ERR_NOMEM;
        text = b->p;
        n = b->n;
    }
    if (!p->use_regex) {
        add_bytes(out, text, n, first);
        return ERR_OK;
    }
    TRY(zo_regex_spans(p->regex, s, text, n));
    for (size_t i = 0; i < s->n; i++)
        add_bytes(out, text + s->v[i].start, s->v[i].end - s->v[i].start,
                  first && s->v[i].start == 0);
    return ERR_OK;
}

static void split_metaspace(const struct pretok *p, struct pieces *out, struct spans *s,
                            struct buf *b, const char *text, size_t n, bool first)
{
    const bool marked =
        text[0] == ' ' || (n >= p->literal_n && memcmp(text, p->literal, p->literal_n) == 0);
    b->n = 0;
    if (!marked && (p->prepend == PREPEND_ALWAYS || (p->prepend == PREPEND_FIRST && first)))
        buf_add(b, p->literal, p->literal_n);
    for (size_t i = 0; i < n; i++)
        if (text[i] == ' ')
            buf_add(b, p->literal, p->literal_n);
        else
            buf_add(b, text + i, 1);
    if (b->oom) {
        out->oom = true;
        return;
    }
    if (!p->split) {
        zo_pieces_add(out, b->p, b->n, first);
        return;
    }
    literal_spans(s, p->literal, p->literal_n, b->p, b->n);
    add_spans(out, s, b->p, TOK_MERGED_NEXT, false, first);
}

static enum err split_one(const struct pretok *p, struct pieces *out, struct spans *s,
                          struct buf *b, const char *text, size_t n, bool first)
{
    switch (p->kind) {
    case PRE_BYTE_LEVEL:
        return split_bytes(p, out, s, b, text, n, first);
    case PRE_METASPACE:
        split_metaspace(p, out, s, b, text, n, first);
        return ERR_OK;
    case PRE_WHITESPACE:
        split_whitespace(out, text, n, first);
        return ERR_OK;
    case PRE_BERT:
        split_bert(out, s, text, n, first);
        return ERR_OK;
    case PRE_WHITESPACE_SPLIT:
        class_spans(s, zo_utf8_is_space, text, n);
        add_spans(out, s, text, TOK_REMOVED, false, first);
        return ERR_OK;
    case PRE_PUNCTUATION:
        class_spans(s, zo_utf8_is_punct, text, n);
        break;
    case PRE_DIGITS:
        class_spans(s, zo_utf8_is_number, text, n);
        break;
    case PRE_DELIMITER:
        literal_spans(s, p->literal, p->literal_n, text, n);
        add_spans(out, s, text, TOK_REMOVED, false, first);
        return ERR_OK;
    default: /* PRE_SPLIT */
        if (p->regex)
            TRY(zo_regex_spans(p->regex, s, text, n));
        else
            literal_spans(s, p->literal, p->literal_n, text, n);
    }
    add_spans(out, s, text, p->behavior, p->invert, first);
    return ERR_OK;
}

enum err zo_pretok_apply(const struct pretok *p, struct pieces *pieces)
{
    if (!p)
        return ERR_OK;
    if (p->kind == PRE_SEQUENCE) {
        for (size_t i = 0; i < p->n_children; i++)
            TRY(zo_pretok_apply(p->child[i], pieces));
        return ERR_OK;
    }
    struct pieces out = {0};
    struct spans s = {0};
    struct buf b = {0};
    enum err e = ERR_OK;
    for (size_t i = 0; i < pieces->n && !e; i++) {
        const struct piece *q = &pieces->v[i];
        e = split_one(p, &out, &s, &b, pieces->text.p + q->off, q->n, q->first);
    }
    if (!e && (out.oom || out.text.oom || s.oom || b.oom))
        e = ERR_NOMEM;
    spans_free(&s);
    buf_free(&b);
    if (e) {
        zo_pieces_free(&out);
        return e;
    }
    zo_pieces_free(pieces);
    *pieces = out;
    return ERR_OK;
}
