/* UTF-8 by hand (a decoder must not read past n and must follow one policy); classes from utf8proc. */
#include "zo/data/utf8.h"
#include <onebyte/base/err.h>
#include <utf8proc.h>

struct unicode_range {
    uint32_t first, last;
};
#include "zo/data/unicode_old.h"

static bool in_ranges(const struct unicode_range *r, size_t n, uint32_t cp)
{
    size_t low = 0, high = n; /* the answer, if any, is in [low, high) */
    while (low < high) {
        const size_t mid = (low + high) / 2;
        if (cp > r[mid].last)
            low = mid + 1;
        else
            high = mid;
    }
    return low < n && cp >= r[low].first;
}
#define IN(table, cp) in_ranges(table, ARRAY_LEN(table), cp)

size_t zo_utf8_get(uint32_t *cp, const char *text, size_t n)
{
    const uint8_t *p = (const uint8_t *)text;
    *cp = p[0];
    if (p[0] < 0x80)
        return 1;
    const size_t want = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : 2;
    /* The second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF. */
    uint8_t low = 0x80, high = 0xBF;
    if (p[0] == 0xE0)
        low = 0xA0;
    else if (p[0] == 0xED)
        high = 0x9F;
    else if (p[0] == 0xF0)
        low = 0x90;
    else if (p[0] == 0xF4)
        high = 0x8F;
    const uint8_t head = p[0];
    *cp = 0xFFFD;
    if (head < 0xC2 || head > 0xF4)
        return 1;
    uint32_t v = head & (0xFFu >> (want + 1));
    for (size_t i = 1; i < want; i++) {
        if (i >= n || p[i] < low || p[i] > high)
            return i;
        v = v << 6 | (p[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    *cp = v;
    return want;
}

size_t zo_utf8_put(char p[4], uint32_t cp)
{
    if (cp < 0x80) {
        p[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        p[0] = (char)(0xC0 | cp >> 6);
        p[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        p[0] = (char)(0xE0 | cp >> 12);
        p[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        p[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    p[0] = (char)(0xF0 | cp >> 18);
    p[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    p[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    p[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

void zo_utf8_add(struct buf *b, uint32_t cp)
{
    char p[4];
    buf_add(b, p, zo_utf8_put(p, cp));
}

bool zo_utf8_valid(const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        const size_t k = zo_utf8_get(&cp, text + i, n - i);
        /* A real U+FFFD is the three bytes EF BF BD; a replaced run never starts with EF and spans three. */
        if (cp == 0xFFFD && !(k == 3 && (uint8_t)text[i] == 0xEF))
            return false;
        i += k;
    }
    return true;
}

void zo_utf8_add_lossy(struct buf *b, const char *text, size_t n)
{
    if (zo_utf8_valid(text, n)) {
        buf_add(b, text, n);
        return;
    }
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += zo_utf8_get(&cp, text + i, n - i);
        zo_utf8_add(b, cp);
    }
}

bool zo_utf8_is_space(uint32_t cp)
{
    if (cp < 0x80)
        return cp == ' ' || (cp >= 9 && cp <= 13);
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool zo_utf8_is_punct(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= 33 && cp <= 47) || (cp >= 58 && cp <= 64) || (cp >= 91 && cp <= 96) ||
               (cp >= 123 && cp <= 126);
    return IN(unicode_punct, cp);
}

bool zo_utf8_is_number(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= '0' && cp <= '9';
    const utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

bool zo_utf8_is_mark(uint32_t cp)
{
    return IN(unicode_mark, cp);
}

bool zo_utf8_is_mark_nonspacing(uint32_t cp)
{
    return IN(unicode_mark_nonspacing, cp);
}

bool zo_utf8_is_word(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= '0' && cp <= '9') || ((cp | 32) >= 'a' && (cp | 32) <= 'z') || cp == '_';
    const utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    /* Circled and squared letters are symbols with the property Other_Alphabetic; 200C and 200D join words. */
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC ||
           cp == 0x200C || cp == 0x200D || (cp >= 0x24B6 && cp <= 0x24E9) ||
           (cp >= 0x1F130 && cp <= 0x1F149) || (cp >= 0x1F150 && cp <= 0x1F169) ||
           (cp >= 0x1F170 && cp <= 0x1F189);
}

bool zo_utf8_is_control(uint32_t cp)
{
    return IN(unicode_control, cp);
}

bool zo_utf8_is_undecomposed(uint32_t cp)
{
    return IN(unicode_undecomposed, cp);
}

void zo_utf8_add_lower(struct buf *b, uint32_t cp)
{
    if (cp == 0x130) { /* I with dot above: the only lower case of two code points */
        zo_utf8_add(b, 'i');
        zo_utf8_add(b, 0x307);
        return;
    }
    zo_utf8_add(b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
}
