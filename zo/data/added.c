/* Added tokens: found in the text before it is normalised (or after, if "normalized"), never split, never merged. */
#include "zo/data/tok.h"
#include "zo/data/utf8.h"

void zo_added_free(struct added *a)
{
    for (size_t i = 0; i < a->n; i++)
        free(a->v[i].text);
    free(a->v);
    zo_trie_free(&a->raw);
    zo_trie_free(&a->normal);
    zo_vocab_free(&a->vocab);
    *a = (struct added){0};
}

enum err zo_added_add(struct added *a, const char *text, size_t n, uint32_t id,
                      const json_t *config)
{
    void *p = a->v;
    if (!buf_grow(&p, &a->cap, a->n, 1, sizeof *a->v))
        return ERR_NOMEM;
    a->v = p;
    struct added_token t = {.text = malloc(n + 1), .n = n, .id = id};
    if (!t.text)
        return ERR_NOMEM;
    memcpy(t.text, text, n);
    t.text[n] = 0;
    t.special = zo_json_bool(config, "special", false);
    t.single_word = zo_json_bool(config, "single_word", false);
    t.lstrip = zo_json_bool(config, "lstrip", false);
    t.rstrip = zo_json_bool(config, "rstrip", false);
    t.normalized = zo_json_bool(config, "normalized", !t.special);
    a->v[a->n++] = t;
    return zo_vocab_add(&a->vocab, text, n, id);
}

enum err zo_added_ready(struct added *a, const struct norm *norm)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct added_token *t = &a->v[i];
        if (t->n == 0)
            continue;
        if (!t->normalized) {
            TRY(zo_trie_add(&a->raw, t->text, t->n, (uint32_t)i));
            continue;
        }
        struct buf b = {0};
        enum err e = zo_norm_apply(norm, &b, t->text, t->n);
        if (!e && b.n)
            e = zo_trie_add(&a->normal, b.p, b.n, (uint32_t)i);
        buf_free(&b);
        TRY(e);
    }
    return ERR_OK;
}

/* Longest token that starts at text [n]: its place in v, or VOCAB_NONE. */
static uint32_t longest(const struct trie *t, const char *text, size_t n, size_t *length)
{
    uint32_t at = 0, found = VOCAB_NONE;
    for (size_t i = 0; i < n; i++) {
        at = trie_step(t, at, text[i]);
        if (at == VOCAB_NONE)
            break;
        if (t->id[at] != VOCAB_NONE) {
            found = t->id[at];
            *length = i + 1;
        }
    }
    return found;
}

/* The character that ends at p + i. */
static uint32_t char_before(const char *p, size_t i)
{
    size_t k = i - 1;
    while (k > 0 && ((uint8_t)p[k] & 0xC0) == 0x80)
        k--;
    uint32_t cp;
    zo_utf8_get(&cp, p + k, i - k);
    return cp;
}

static bool inside_word(const char *text, size_t n, size_t start, size_t end)
{
    uint32_t after = ' ';
    if (end < n)
        zo_utf8_get(&after, text + end, n - end);
    return (start > 0 && zo_utf8_is_word(char_before(text, start))) || zo_utf8_is_word(after);
}

/* Widens [start, end) over white space as the token asks, not before `done`. */
static void widen(const struct added_token *t, const char *text, size_t n, size_t done,
                  size_t *start, size_t *end)
{
    while (t->lstrip && *start > done && zo_utf8_is_space(char_before(text, *start)))
        do
            (*start)--;
        while (*start > done && ((uint8_t)text[*start] & 0xC0) == 0x80);
    while (t->rstrip && *end < n) {
        uint32_t cp;
        const size_t k = zo_utf8_get(&cp, text + *end, n - *end);
        if (!zo_utf8_is_space(cp))
            break;
        *end += k;
    }
}

static void add_span(struct spans *s, struct ids *where, size_t start, size_t end, uint32_t place)
{
    if (end <= start)
        return;
    zo_spans_add(s, start, end, place != VOCAB_NONE);
    ids_add(where, place);
}

enum err zo_added_spans(const struct added *a, const struct trie *t, struct spans *s,
                        struct ids *where, const char *text, size_t n)
{
    size_t done = 0;
    s->n = where->n = 0;
    for (size_t i = 0; t->n && i < n;) {
        size_t k = 0;
        const uint32_t place = longest(t, text + i, n - i, &k);
        if (place == VOCAB_NONE) {
            i++;
            continue;
        }
        size_t start = i, end = i + k;
        i = end; /* matches do not overlap, whether or not this one stands */
        if (a->v[place].single_word && inside_word(text, n, start, end))
            continue;
        if (start < done)
            continue;
        widen(&a->v[place], text, n, done, &start, &end);
        add_span(s, where, done, start, VOCAB_NONE);
        add_span(s, where, start, end, place);
        done = end;
    }
    add_span(s, where, done, n, VOCAB_NONE);
    return s->oom || where->oom ? ERR_NOMEM : ERR_OK;
}

bool zo_added_special(const struct added *a, uint32_t id)
{
    size_t n;
    if (!zo_vocab_text(&a->vocab, id, &n))
        return false; /* most ids: not an added token at all */
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i].id == id)
            return a->v[i].special;
    return false;
}
