/* zo/data/regex.h -- the regular expressions of tokenizer.json (Oniguruma's dialect) on PCRE2.
 *
 * PCRE2 with UTF and UCP reads the patterns in use alike, except for three things, which are rewritten:
 *   \s  PCRE2 counts U+180E as space, Unicode's White_Space does not;
 *   \w  PCRE2 10.42 knows letters, digits and underscore; Unicode also marks, connectors and other alphabetics;
 *   \h  is a hexadecimal digit.
 * A class intersection (&&) is refused: PCRE2 would read it as two ampersands.
 * Threads  a compiled pattern is read-only; each match makes its own match data. */
#ifndef ONEBYTE_ZO_DATA_REGEX_H
#define ONEBYTE_ZO_DATA_REGEX_H
#include "zo/data/buf.h"
#include <onebyte/base/err.h>

struct regex;
NODISCARD enum err zo_regex_new(struct regex **r, const char *pattern, size_t n,
                                struct err_why *why);
void zo_regex_free(struct regex *r);

struct span {
    size_t start, end;
    bool match;
};
struct spans {
    struct span *v;
    size_t n, cap;
    bool oom;
};
static inline void spans_free(struct spans *s)
{
    free(s->v);
    *s = (struct spans){0};
}
void zo_spans_add(struct spans *s, size_t start, size_t end, bool match);
/* Replaces *s by the matches in text [n] (valid UTF-8) and what lies between them: they cover the text in order.
 * Empty matches are left out. */
NODISCARD enum err zo_regex_spans(const struct regex *r, struct spans *s, const char *text,
                                  size_t n);
#endif
