/* The "Precompiled" normalizer: a map from character sequences to text, as SentencePiece compiles it (nmt_nfkc and
 * others): base64 of { bytes of the trie u32 LE, trie (a Darts double array of u32), NUL-terminated texts }.
 *
 * The library looks a whole grapheme cluster below 6 bytes up, then its characters one by one, and takes the *shortest*
 * entry that begins the key; equal ids need the same. */
#include "zo/data/tok.h"
#include "zo/data/utf8.h"
#include <onebyte/base/bytes.h>
#include <utf8proc.h>

struct charsmap {
    uint32_t *units; /* [n_units] */
    size_t n_units;
    char *texts; /* [n_texts], ends in NUL */
    size_t n_texts;
};

void zo_charsmap_free(struct charsmap *c)
{
    if (!c)
        return;
    free(c->units);
    free(c->texts);
    free(c);
}

static int digit64(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

static bool decode64(struct buf *out, const char *text)
{
    uint32_t bits = 0;
    int n_bits = 0;
    for (; *text && *text != '='; text++) {
        const int v = digit64(*text);
        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            const char byte = (char)(bits >> n_bits);
            buf_add(out, &byte, 1);
        }
    }
    return true;
}

/* Copies the two parts out of the decoded bytes. */
static enum err read_parts(struct charsmap *c, const struct buf *b, struct err_why *why)
{
    const uint8_t *p = (const uint8_t *)b->p;
    const size_t trie_bytes = b->n >= 4 ? bytes_get_le(p, 4) : SIZE_MAX;
    if (b->n < 4 || trie_bytes > b->n - 4 || trie_bytes % 4 != 0 || trie_bytes == 0)
        return err_set(why, ERR_FORMAT, "normalizer: precompiled_charsmap is damaged");
    c->n_units = trie_bytes / 4;
    c->n_texts = b->n - 4 - trie_bytes;
    c->units = malloc(trie_bytes);
    c->texts = malloc(c->n_texts + 1);
    if (!c->units || !c->texts)
        return ERR_NOMEM;
    for (size_t i = 0; i < c->n_units; i++)
        c->units[i] = (uint32_t)bytes_get_le(p + 4 + 4 * i, 4);
    if (c->n_texts)
        memcpy(c->texts, p + 4 + trie_bytes, c->n_texts);
    c->texts[c->n_texts] = 0;
    return ERR_OK;
}

enum err zo_charsmap_new(struct charsmap **out, const char *base64, struct err_why *why)
{
    struct buf b = {0};
    struct charsmap *c = calloc(1, sizeof *c);
    enum err e = c ? ERR_OK : ERR_NOMEM;
    if (!e && !decode64(&b, base64))
        e = err_set(why, ERR_FORMAT, "normalizer: precompiled_charsmap is not base64");
    if (!e)
        e = b.oom ? ERR_NOMEM : read_parts(c, &b, why);
    buf_free(&b);
    if (e)
        zo_charsmap_free(c);
    else
        *out = c;
    return e;
}

/* Where the children of a unit lie, relative to it. */
static uint32_t unit_offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* The text that replaces the beginning of key [n], or NULL.  Any bytes in the table are safe: places are checked. */
static const char *replacement(const struct charsmap *c, const char *key, size_t n)
{
    uint32_t at = unit_offset(c->units[0]);
    for (size_t i = 0; i < n && key[i]; i++) {
        at ^= (uint8_t)key[i];
        if (at >= c->n_units || (c->units[at] & (1u << 31 | 0xFF)) != (uint8_t)key[i])
            return NULL;
        const uint32_t unit = c->units[at];
        at ^= unit_offset(unit);
        if (!(unit >> 8 & 1))
            continue;
        const uint32_t text = at < c->n_units ? c->units[at] & 0x7FFFFFFF : UINT32_MAX;
        return text <= c->n_texts ? c->texts + text : NULL;
    }
    return NULL;
}

static void add_cluster(const struct charsmap *c, struct buf *out, const char *text, size_t n)
{
    const char *whole = n < 6 ? replacement(c, text, n) : NULL;
    if (whole) {
        zo_utf8_add_lossy(out, whole, strlen(whole));
        return;
    }
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        const size_t k = zo_utf8_get(&cp, text + i, n - i);
        const char *one = replacement(c, text + i, k);
        if (one)
            zo_utf8_add_lossy(out, one, strlen(one));
        else
            buf_add(out, text + i, k);
        i += k;
    }
}

void zo_charsmap_apply(const struct charsmap *c, struct buf *out, const char *text, size_t n)
{
    utf8proc_int32_t state = 0;
    uint32_t before = 0;
    size_t start = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        const size_t k = zo_utf8_get(&cp, text + i, n - i);
        if (i > 0 && utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)cp, &state)) {
            add_cluster(c, out, text + start, i - start);
            start = i;
        }
        before = cp;
        i += k;
    }
    if (n > start)
        add_cluster(c, out, text + start, n - start);
}
