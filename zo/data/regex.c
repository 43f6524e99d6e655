#define PCRE2_CODE_UNIT_WIDTH 8
#include "zo/data/regex.h"
#include <pcre2.h>

struct regex {
    pcre2_code *code;
};

#define SPACE "\\t-\\r\\x20\\x85\\xA0\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define WORD                                                                                       \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}"    \
    "\\x{1F170}-\\x{1F189}\\xB2\\xB3\\xB9\\xBC-\\xBE"
#define HEX "0-9a-fA-F"

/* Appends the class that replaces \<c>, or returns false when PCRE2 reads it as meant. */
static bool add_class(struct buf *b, char c, bool inside)
{
    static const struct {
        char lower;
        const char *list;
    } classes[] = {{'s', SPACE}, {'w', WORD}, {'h', HEX}};
    for (size_t i = 0; i < ARRAY_LEN(classes); i++) {
        const bool negated = c == classes[i].lower - 32;
        /* A negation inside a class cannot be written as a list; PCRE2's own is near enough but for \H. */
        if ((c != classes[i].lower && !negated) || (negated && inside && c != 'H'))
            continue;
        if (!inside)
            buf_add(b, negated ? "[^" : "[", negated ? 2 : 1);
        buf_add(b, classes[i].list, strlen(classes[i].list));
        if (!inside)
            buf_add(b, "]", 1);
        return true;
    }
    return false;
}

static enum err translate(struct buf *out, const char *p, size_t n, struct err_why *why)
{
    bool inside = false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\\' && i + 1 < n) {
            i++;
            if (inside && p[i] == 'H')
                return err_set(why, ERR_UNSUPPORTED, "\\H inside a class");
            if (!add_class(out, p[i], inside))
                buf_add(out, p + i - 1, 2);
            continue;
        }
        if (inside && p[i] == '&' && i + 1 < n && p[i + 1] == '&')
            return err_set(why, ERR_UNSUPPORTED, "a class intersection (&&)");
        if (p[i] == '[' && (!inside || (i + 1 < n && p[i + 1] != ':'))) {
            if (inside)
                return err_set(why, ERR_UNSUPPORTED, "a class inside a class");
            inside = true;
        } else if (p[i] == ']') {
            inside = false;
        } else if (inside && p[i] == '[') { /* a POSIX class: copied whole */
            do
                buf_add(out, p + i++, 1);
            while (i < n && p[i] != ']');
            if (i == n)
                break;
        }
        buf_add(out, p + i, 1);
    }
    return out->oom ? ERR_NOMEM : ERR_OK;
}

enum err zo_regex_new(struct regex **out, const char *pattern, size_t n, struct err_why *why)
{
    struct buf b = {0};
    struct err_why inner = {0};
    enum err e = translate(&b, pattern, n, &inner);
    if (e) {
        buf_free(&b);
        return err_set(why, e, "the pattern \"%s\" has %s, which is not supported", pattern,
                       inner.text);
    }
    struct regex *r = malloc(sizeof *r);
    int code;
    PCRE2_SIZE at;
    if (r) {
        r->code = pcre2_compile((PCRE2_SPTR)(b.p ? b.p : ""), b.n, PCRE2_UTF | PCRE2_UCP, &code,
                                &at, NULL);
        if (!r->code) {
            PCRE2_UCHAR text[128] = "";
            pcre2_get_error_message(code, text, sizeof text);
            e = err_set(why, ERR_UNSUPPORTED, "the pattern \"%s\" cannot be used: %s", pattern,
                        (const char *)text);
            free(r);
        } else {
            (void)pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* without it: slower, not wrong */
            *out = r;
        }
    } else {
        e = ERR_NOMEM;
    }
    buf_free(&b);
    return e;
}

void zo_regex_free(struct regex *r)
{
    if (!r)
        return;
    pcre2_code_free(r->code);
    free(r);
}

void zo_spans_add(struct spans *s, size_t start, size_t end, bool match)
{
    void *p = s->v;
    if (s->oom || !buf_grow(&p, &s->cap, s->n, 1, sizeof *s->v)) {
        s->oom = true;
        return;
    }
    s->v = p;
    s->v[s->n++] = (struct span){start, end, match};
}

enum err zo_regex_spans(const struct regex *r, struct spans *s, const char *text, size_t n)
{
    s->n = 0;
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    if (!m)
        return ERR_NOMEM;
    size_t done = 0, from = 0;
    enum err e = ERR_OK;
    while (from < n) {
        int rc = pcre2_match(r->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, m, NULL);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(r->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                             m, NULL);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0) {
            e = rc == PCRE2_ERROR_NOMEMORY ? ERR_NOMEM : ERR_UNSUPPORTED;
            break;
        }
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m);
        if (at[1] <= at[0]) { /* empty: look again one character later */
            from = at[0] + 1;
            while (from < n && ((uint8_t)text[from] & 0xC0) == 0x80)
                from++;
            continue;
        }
        if (at[0] > done)
            zo_spans_add(s, done, at[0], false);
        zo_spans_add(s, at[0], at[1], true);
        done = from = at[1];
    }
    if (done < n && !e)
        zo_spans_add(s, done, n, false);
    pcre2_match_data_free(m);
    return s->oom ? ERR_NOMEM : e;
}
