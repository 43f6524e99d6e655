#include "zo/data/utf8.h"

#include <onebyte/zo/answer.h>

#include <stdlib.h>
#include <string.h>

/* An answer's normal form: its words, each ending in NUL, and where they start. */
struct words {
    struct buf text;
    char **v;
    size_t n;
};

static void words_free(struct words *w)
{
    buf_free(&w->text);
    free(w->v);
}

static bool is_ascii_punct(uint32_t cp)
{
    return cp < 128 && cp > 32 && zo_utf8_is_punct(cp);
}

/* What \w is to Python, whose \b stands around the articles. */
static bool is_word(uint32_t cp)
{
    return (zo_utf8_is_word(cp) && !zo_utf8_is_mark(cp)) || zo_utf8_is_number(cp);
}

static bool is_article(const char *p, size_t n)
{
    return (n == 1 && p[0] == 'a') || (n == 2 && memcmp(p, "an", 2) == 0) ||
           (n == 3 && memcmp(p, "the", 3) == 0);
}

/* out <- text in lower case and without ASCII punctuation. */
static void plain(struct buf *out, const char *text)
{
    const size_t n = strlen(text);
    uint32_t cp;
    for (size_t at = 0; at < n;) {
        at += zo_utf8_get(&cp, text + at, n - at);
        if (!is_ascii_punct(cp))
            zo_utf8_add_lower(out, cp);
    }
}

static void end_word(struct buf *out)
{
    if (out->n > 0 && out->p[out->n - 1] != 0)
        buf_add(out, "", 1);
}

/* out <- the words of in, each with a NUL behind it.  An article ends a word like white space does. */
static void split(struct buf *out, const struct buf *in)
{
    for (size_t at = 0, end; at < in->n; at = end) {
        uint32_t cp = 0;
        for (end = at; end < in->n;) {
            const size_t step = zo_utf8_get(&cp, in->p + end, in->n - end);
            if (!is_word(cp))
                break;
            end += step;
        }
        if (end == at) { /* cp stands alone: white space, or a sign that is left in */
            end += zo_utf8_get(&cp, in->p + at, in->n - at);
            if (zo_utf8_is_space(cp))
                end_word(out);
            else
                buf_add(out, in->p + at, end - at);
        } else if (is_article(in->p + at, end - at)) {
            end_word(out);
        } else {
            buf_add(out, in->p + at, end - at);
        }
    }
    end_word(out);
}

static bool words_make(struct words *w, const char *text)
{
    struct buf lower = {0};
    plain(&lower, text);
    split(&w->text, &lower);
    const bool oom = lower.oom || w->text.oom;
    buf_free(&lower);
    size_t n = 0;
    for (size_t i = 0; i < w->text.n; i++)
        n += w->text.p[i] == 0;
    w->v = calloc(n + 1, sizeof *w->v);
    if (oom || !w->v)
        return false;
    for (char *p = w->text.p; w->n < n; p += strlen(p) + 1)
        w->v[w->n++] = p;
    return true;
}

static bool equal(const struct words *a, const struct words *b)
{
    return a->text.n == b->text.n && (a->text.n == 0 || memcmp(a->text.p, b->text.p, a->text.n) == 0);
}

static int word_order(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Words that both hold, each as often as in the one that holds it less.  Sorts them. */
static size_t common(struct words *a, struct words *b)
{
    size_t n = 0;
    qsort(a->v, a->n, sizeof *a->v, word_order);
    qsort(b->v, b->n, sizeof *b->v, word_order);
    for (size_t i = 0, j = 0; i < a->n && j < b->n;) {
        const int order = strcmp(a->v[i], b->v[j]);
        n += order == 0;
        i += order <= 0;
        j += order >= 0;
    }
    return n;
}

enum err zo_answer_compare(struct zo_answer *answer, const char *got, const char *want)
{
    struct words a = {0}, b = {0};
    const bool made = words_make(&a, got) && words_make(&b, want);
    if (made) {
        answer->exact = equal(&a, &b);
        if (a.n == 0 || b.n == 0)
            answer->f1 = a.n == b.n ? 1.0 : 0.0;
        else /* 2 P R / (P + R) with P = common / a.n, R = common / b.n */
            answer->f1 = 2.0 * (double)common(&a, &b) / (double)(a.n + b.n);
    }
    words_free(&a);
    words_free(&b);
    return made ? ERR_OK : ERR_NOMEM;
}
