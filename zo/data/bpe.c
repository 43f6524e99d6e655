/* Byte-pair encoding: a word starts as its characters; the adjacent pair with the lowest rank, leftmost first, is
 * merged until no pair has a rank (Sennrich et al. 2016, arXiv 1508.07909).
 *
 * Speed    A word that is itself a token and comes out as that token needs one hash look-up: `whole` remembers the
 *          answer per token (an idempotent atomic byte, so threads may race to write the same value).  Other words
 *          below SMALL symbols rescan an array; longer ones use a heap, so that a text without a pre-tokenizer
 *          (one word of a megabyte) takes n log n. */
#include "zo/data/tok.h"
#include "zo/data/utf8.h"

enum { SMALL = 48, FAST_CHARS = 0x800 };
enum { WHOLE_UNKNOWN, WHOLE_YES, WHOLE_NO };

struct bpe {
    const struct vocab *vocab;
    struct map64 merges; /* left id << 32 | right id -> rank << 32 | merged id */
    uint32_t unk;        /* VOCAB_NONE: unknown characters vanish */
    bool fuse_unk, byte_fallback, ignore_merges;
    char *prefix, *suffix;      /* continuing_subword_prefix, end_of_word_suffix; NULL if empty */
    uint32_t fast[FAST_CHARS];  /* ids of the low code points */
    uint32_t bytes[256];        /* ids of <0x00> .. <0xFF> */
    bool has_bytes[256];
    _Atomic uint8_t *whole;     /* [vocab->n] */
};

struct merge {
    uint32_t rank, id;
    size_t at;
};
struct symbol {
    uint32_t id; /* VOCAB_NONE: merged away */
    size_t prev, next;
};
struct bpe_work {
    struct ids ids;
    struct symbol *symbols;
    size_t symbols_cap;
    struct merge *heap;
    size_t heap_n, heap_cap;
    struct buf text;
};

struct bpe_work *zo_bpe_work_new(void)
{
    return calloc(1, sizeof(struct bpe_work));
}

void zo_bpe_work_free(struct bpe_work *w)
{
    if (!w)
        return;
    ids_free(&w->ids);
    free(w->symbols);
    free(w->heap);
    buf_free(&w->text);
    free(w);
}

void zo_bpe_free(struct bpe *b)
{
    if (!b)
        return;
    zo_map64_free(&b->merges);
    free(b->prefix);
    free(b->suffix);
    free((void *)b->whole);
    free(b);
}

/* ---- reading ---- */

/* The two halves of a merge: "a b" or ["a", "b"]. */
static bool merge_halves(const json_t *m, const char *half[2], size_t n[2])
{
    if (json_is_array(m) && json_array_size(m) == 2) {
        for (size_t i = 0; i < 2; i++) {
            const json_t *s = json_array_get(m, i);
            if (!json_is_string(s))
                return false;
            half[i] = json_string_value(s);
            n[i] = json_string_length(s);
        }
        return true;
    }
    if (!json_is_string(m))
        return false;
    const char *text = json_string_value(m), *space = strchr(text, ' ');
    if (!space || strchr(space + 1, ' '))
        return false;
    half[0] = text;
    n[0] = (size_t)(space - text);
    half[1] = space + 1;
    n[1] = json_string_length(m) - n[0] - 1;
    return true;
}

static enum err read_merge(struct bpe *b, const json_t *m, size_t rank, struct buf *joined,
                           struct err_why *why)
{
    const char *half[2];
    size_t n[2];
    if (!merge_halves(m, half, n))
        return err_set(why, ERR_FORMAT, "model: merge %zu is not two tokens", rank);
    const size_t skip = b->prefix ? strlen(b->prefix) : 0;
    joined->n = 0;
    buf_add(joined, half[0], n[0]);
    if (n[1] >= skip)
        buf_add(joined, half[1] + skip, n[1] - skip);
    if (joined->oom)
        return ERR_NOMEM;
    const uint32_t left = zo_vocab_id(b->vocab, half[0], n[0]);
    const uint32_t right = zo_vocab_id(b->vocab, half[1], n[1]);
    const uint32_t id = zo_vocab_id(b->vocab, joined->p, joined->n);
    if (left == VOCAB_NONE || right == VOCAB_NONE || id == VOCAB_NONE)
        return err_set(why, ERR_FORMAT, "model: merge %zu (\"%.*s\" \"%.*s\") has no token in vocab",
                       rank, (int)(n[0] & 0xFF), half[0], (int)(n[1] & 0xFF), half[1]);
    return zo_map64_put(&b->merges, (uint64_t)left << 32 | right, (uint64_t)rank << 32 | id);
}

static enum err read_merges(struct bpe *b, const json_t *model, struct err_why *why)
{
    const json_t *list = zo_json_member(model, "merges");
    if (!json_is_array(list))
        return err_set(why, ERR_FORMAT, "model: BPE needs \"merges\"");
    struct buf joined = {0};
    enum err e = ERR_OK;
    for (size_t i = 0; i < json_array_size(list) && !e; i++)
        e = read_merge(b, json_array_get(list, i), i, &joined, why);
    buf_free(&joined);
    return e;
}

static enum err copy_affix(char **out, const json_t *model, const char *key)
{
    const char *text = zo_json_text(model, key, "");
    if (!*text)
        return ERR_OK;
    *out = strdup(text);
    return *out ? ERR_OK : ERR_NOMEM;
}

static enum err read_options(struct bpe *b, const json_t *model, struct err_why *why)
{
    const char *unk = zo_json_text(model, "unk_token", NULL);
    b->fuse_unk = zo_json_bool(model, "fuse_unk", false);
    b->byte_fallback = zo_json_bool(model, "byte_fallback", false);
    b->ignore_merges = zo_json_bool(model, "ignore_merges", false);
    b->unk = VOCAB_NONE;
    TRY(copy_affix(&b->prefix, model, "continuing_subword_prefix"));
    TRY(copy_affix(&b->suffix, model, "end_of_word_suffix"));
    if (unk) {
        b->unk = zo_vocab_id(b->vocab, unk, strlen(unk));
        if (b->unk == VOCAB_NONE)
            return err_set(why, ERR_FORMAT, "model: unk_token \"%s\" is not in vocab", unk);
    }
    for (uint32_t c = 0; c < FAST_CHARS; c++) {
        char p[4];
        b->fast[c] = zo_vocab_id(b->vocab, p, zo_utf8_put(p, c));
    }
    for (unsigned i = 0; i < 256; i++) {
        char name[8];
        const int n = snprintf(name, sizeof name, "<0x%02X>", i);
        b->bytes[i] = zo_vocab_id(b->vocab, name, (size_t)n);
        b->has_bytes[i] = b->bytes[i] != VOCAB_NONE;
    }
    return ERR_OK;
}

enum err zo_bpe_new(struct bpe **out, const struct vocab *v, const json_t *model,
                    struct err_why *why)
{
    struct bpe *b = calloc(1, sizeof *b);
    if (!b)
        return ERR_NOMEM;
    b->vocab = v;
    b->whole = calloc(v->n + 1, sizeof *b->whole);
    enum err e = b->whole ? read_options(b, model, why) : ERR_NOMEM;
    if (!e)
        e = read_merges(b, model, why);
    if (e)
        zo_bpe_free(b);
    else
        *out = b;
    return e;
}

/* ---- symbols ---- */

/* The id of one character, with the prefix or suffix its place asks for. */
static uint32_t char_id(const struct bpe *b, struct bpe_work *w, const char *p, size_t k,
                        uint32_t cp, bool first, bool last)
{
    const bool affix = (b->prefix && !first) || (b->suffix && last);
    if (!affix)
        return cp < FAST_CHARS ? b->fast[cp] : zo_vocab_id(b->vocab, p, k);
    w->text.n = 0;
    if (b->prefix && !first)
        buf_add(&w->text, b->prefix, strlen(b->prefix));
    buf_add(&w->text, p, k);
    if (b->suffix && last)
        buf_add(&w->text, b->suffix, strlen(b->suffix));
    return w->text.oom ? VOCAB_NONE : zo_vocab_id(b->vocab, w->text.p, w->text.n);
}

static bool add_byte_ids(const struct bpe *b, struct ids *out, const char *p, size_t k)
{
    for (size_t i = 0; i < k; i++)
        if (!b->has_bytes[(uint8_t)p[i]])
            return false;
    for (size_t i = 0; i < k; i++)
        ids_add(out, b->bytes[(uint8_t)p[i]]);
    return true;
}

/* w->ids <- one id per character; several for one that falls back to bytes; one for a run of unknown ones if fused.
 * An unknown run is written when a known character follows, as in the library. */
static void word_symbols(const struct bpe *b, struct bpe_work *w, const char *word, size_t n)
{
    bool pending = false;
    w->ids.n = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        const size_t k = zo_utf8_get(&cp, word + i, n - i);
        const uint32_t id = char_id(b, w, word + i, k, cp, i == 0, i + k == n);
        if (id != VOCAB_NONE) {
            if (pending)
                ids_add(&w->ids, b->unk);
            pending = false;
            ids_add(&w->ids, id);
        } else if (!(b->byte_fallback && add_byte_ids(b, &w->ids, word + i, k)) &&
                   b->unk != VOCAB_NONE) {
            if (pending && !b->fuse_unk)
                ids_add(&w->ids, b->unk);
            pending = true;
        }
        i += k;
    }
    if (pending)
        ids_add(&w->ids, b->unk);
}

/* ---- merging ---- */

static inline uint64_t pair_merge(const struct bpe *b, uint32_t left, uint32_t right)
{
    const uint64_t *m = map64_get(&b->merges, (uint64_t)left << 32 | right);
    return m ? *m : UINT64_MAX;
}

/* Few symbols: keep each pair's rank, take the lowest, shift the rest down. */
static size_t merge_small(const struct bpe *b, uint32_t *ids, size_t n)
{
    uint64_t pair[SMALL];
    for (size_t i = 0; i + 1 < n; i++)
        pair[i] = pair_merge(b, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (pair[i] >> 32 < pair[best] >> 32)
                best = i;
        if (pair[best] == UINT64_MAX)
            break;
        ids[best] = (uint32_t)pair[best];
        memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
        n--;
        if (best + 1 < n)
            memmove(pair + best + 1, pair + best + 2, (n - best - 2) * sizeof *pair);
        if (best > 0)
            pair[best - 1] = pair_merge(b, ids[best - 1], ids[best]);
        if (best + 1 < n)
            pair[best] = pair_merge(b, ids[best], ids[best + 1]);
    }
    return n;
}

static bool merge_before(const struct merge *a, const struct merge *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static enum err heap_push(struct bpe_work *w, struct merge m)
{
    void *p = w->heap;
    if (!buf_grow(&p, &w->heap_cap, w->heap_n, 1, sizeof *w->heap))
        return ERR_NOMEM;
    w->heap = p;
    size_t i = w->heap_n++;
    for (; i > 0 && merge_before(&m, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = m;
    return ERR_OK;
}

static struct merge heap_pop(struct bpe_work *w)
{
    const struct merge top = w->heap[0], last = w->heap[--w->heap_n];
    size_t i = 0;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= w->heap_n)
            break;
        if (c + 1 < w->heap_n && merge_before(&w->heap[c + 1], &w->heap[c]))
            c++;
        if (!merge_before(&w->heap[c], &last))
            break;
        w->heap[i] = w->heap[c];
        i = c;
    }
    w->heap[i] = last;
    return top;
}

/* The pair (at, its next) goes onto the heap if it has a rank. */
static enum err push_pair(const struct bpe *b, struct bpe_work *w, size_t at)
{
    const struct symbol *s = &w->symbols[at];
    if (s->next == SIZE_MAX)
        return ERR_OK;
    const uint64_t m = pair_merge(b, s->id, w->symbols[s->next].id);
    if (m == UINT64_MAX)
        return ERR_OK;
    return heap_push(w, (struct merge){.rank = (uint32_t)(m >> 32), .id = (uint32_t)m, .at = at});
}

/* Many symbols: a linked list and a heap of candidate pairs; a candidate whose symbols changed since is skipped.
 * (A symbol only ever grows, so an old candidate cannot equal the pair that stands there now.) */
static enum err merge_large(const struct bpe *b, struct bpe_work *w)
{
    const size_t n = w->ids.n;
    void *p = w->symbols;
    if (!buf_grow(&p, &w->symbols_cap, 0, n, sizeof *w->symbols))
        return ERR_NOMEM;
    w->symbols = p;
    for (size_t i = 0; i < n; i++)
        w->symbols[i] = (struct symbol){w->ids.v[i], i ? i - 1 : SIZE_MAX, i + 1 < n ? i + 1 : SIZE_MAX};
    w->heap_n = 0;
    for (size_t i = 0; i < n; i++)
        TRY(push_pair(b, w, i));
    while (w->heap_n) {
        const struct merge m = heap_pop(w);
        struct symbol *s = &w->symbols[m.at];
        if (s->id == VOCAB_NONE || s->next == SIZE_MAX)
            continue;
        struct symbol *r = &w->symbols[s->next];
        if ((uint32_t)pair_merge(b, s->id, r->id) != m.id)
            continue;
        s->id = m.id;
        r->id = VOCAB_NONE;
        s->next = r->next;
        if (s->next != SIZE_MAX)
            w->symbols[s->next].prev = m.at;
        if (s->prev != SIZE_MAX)
            TRY(push_pair(b, w, s->prev));
        TRY(push_pair(b, w, m.at));
    }
    w->ids.n = 0;
    for (size_t i = 0; i != SIZE_MAX; i = w->symbols[i].next)
        ids_add(&w->ids, w->symbols[i].id);
    return ERR_OK;
}

enum err zo_bpe_encode(const struct bpe *b, struct bpe_work *w, struct ids *out, const char *word,
                       size_t n)
{
    const bool plain = !b->prefix && !b->suffix;
    const uint32_t id = plain || b->ignore_merges ? zo_vocab_id(b->vocab, word, n) : VOCAB_NONE;
    if (id != VOCAB_NONE &&
        (b->ignore_merges ||
         atomic_load_explicit(&b->whole[id], memory_order_relaxed) == WHOLE_YES)) {
        ids_add(out, id);
        return out->oom ? ERR_NOMEM : ERR_OK;
    }
    word_symbols(b, w, word, n);
    if (w->ids.oom || w->text.oom)
        return ERR_NOMEM;
    if (w->ids.n > SMALL)
        TRY(merge_large(b, w));
    else if (w->ids.n > 1)
        w->ids.n = merge_small(b, w->ids.v, w->ids.n);
    if (id != VOCAB_NONE)
        atomic_store_explicit(&b->whole[id],
                              w->ids.n == 1 && w->ids.v[0] == id ? WHOLE_YES : WHOLE_NO,
                              memory_order_relaxed);
    for (size_t i = 0; i < w->ids.n; i++)
        ids_add(out, w->ids.v[i]);
    return out->oom ? ERR_NOMEM : ERR_OK;
}
