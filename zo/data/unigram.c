/* Unigram: the segmentation whose pieces have the highest sum of log probabilities (Kudo 2018, arXiv 1804.10959),
 * found by Viterbi over the bytes; a character without a piece costs the lowest score less 10. */
#include "zo/data/tok.h"
#include "zo/data/utf8.h"

static const double unk_penalty = 10.0;

struct unigram {
    const struct vocab *vocab;
    struct trie trie;
    double *score; /* [vocab->n] */
    double score_min;
    uint32_t unk; /* or VOCAB_NONE */
    bool byte_fallback;
};

struct node {
    double score;
    size_t start; /* SIZE_MAX: not reached */
    uint32_t id;
};

void zo_unigram_free(struct unigram *u)
{
    if (!u)
        return;
    zo_trie_free(&u->trie);
    free(u->score);
    free(u);
}

static enum err read_scores(struct unigram *u, const json_t *model, struct err_why *why)
{
    const json_t *list = zo_json_member(model, "vocab");
    for (size_t i = 0; i < u->vocab->n; i++) {
        const json_t *score = json_array_get(json_array_get(list, i), 1);
        if (!json_is_number(score))
            return err_set(why, ERR_FORMAT, "model: vocab entry %zu has no score", i);
        u->score[i] = json_number_value(score);
        if (i == 0 || u->score[i] < u->score_min)
            u->score_min = u->score[i];
        size_t n;
        const char *text = zo_vocab_text(u->vocab, (uint32_t)i, &n);
        TRY(zo_trie_add(&u->trie, text, n, (uint32_t)i));
    }
    const long long unk = zo_json_int(model, "unk_id", -1);
    if (unk >= (long long)u->vocab->n)
        return err_set(why, ERR_FORMAT, "model: unk_id %lld is not in vocab", unk);
    u->unk = unk < 0 ? VOCAB_NONE : (uint32_t)unk;
    u->byte_fallback = zo_json_bool(model, "byte_fallback", false);
    return ERR_OK;
}

enum err zo_unigram_new(struct unigram **out, const struct vocab *v, const json_t *model,
                        struct err_why *why)
{
    struct unigram *u = calloc(1, sizeof *u);
    if (!u)
        return ERR_NOMEM;
    u->vocab = v;
    u->score = calloc(v->n, sizeof *u->score);
    const enum err e = u->score ? read_scores(u, model, why) : ERR_NOMEM;
    if (e)
        zo_unigram_free(u);
    else
        *out = u;
    return e;
}

static void relax(struct node *to, double score, size_t start, uint32_t id)
{
    if (to->start == SIZE_MAX || score > to->score)
        *to = (struct node){.score = score, .start = start, .id = id};
}

/* best[i] <- the best path that ends at byte i. */
static enum err viterbi(const struct unigram *u, struct node *best, const char *word, size_t n)
{
    for (size_t i = 0; i <= n; i++)
        best[i] = (struct node){.start = SIZE_MAX};
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        const size_t k = zo_utf8_get(&cp, word + i, n - i);
        bool single = false;
        uint32_t at = 0;
        for (size_t j = i; j < n; j++) {
            at = trie_step(&u->trie, at, word[j]);
            if (at == VOCAB_NONE)
                break;
            const uint32_t id = u->trie.id[at];
            if (id == VOCAB_NONE)
                continue;
            relax(&best[j + 1], best[i].score + u->score[id], i, id);
            single = single || j + 1 - i == k;
        }
        if (!single) {
            if (u->unk == VOCAB_NONE)
                return ERR_NOTFOUND;
            relax(&best[i + k], best[i].score + (u->score_min - unk_penalty), i, u->unk);
        }
        i += k;
    }
    return ERR_OK;
}

/* The ids of one segment: its own, else its bytes', else unknown. */
static void add_segment(const struct unigram *u, struct ids *out, const char *p, size_t n)
{
    const uint32_t id = zo_vocab_id(u->vocab, p, n);
    if (id != VOCAB_NONE) {
        ids_add(out, id);
        return;
    }
    const size_t n_before = out->n;
    for (size_t i = 0; u->byte_fallback && i < n; i++) {
        char name[8];
        const int k = snprintf(name, sizeof name, "<0x%02X>", (uint8_t)p[i]);
        const uint32_t byte = zo_vocab_id(u->vocab, name, (size_t)k);
        if (byte == VOCAB_NONE) {
            out->n = n_before;
            break;
        }
        ids_add(out, byte);
    }
    if (out->n == n_before && u->unk != VOCAB_NONE)
        ids_add(out, u->unk);
}

enum err zo_unigram_encode(const struct unigram *u, struct ids *out, const char *word, size_t n)
{
    struct node *best = malloc((n + 1) * sizeof *best);
    if (!best)
        return ERR_NOMEM;
    const enum err e = viterbi(u, best, word, n);
    if (e) {
        free(best);
        return e;
    }
    struct spans path = {0}; /* from the end; neighbouring unknown characters are one segment */
    bool unknown = false;
    for (size_t end = n; end > 0; end = best[end].start) {
        const struct node *b = &best[end];
        if (b->id == u->unk && unknown && path.n)
            path.v[path.n - 1].start = b->start;
        else
            zo_spans_add(&path, b->start, end, true);
        unknown = b->id == u->unk;
    }
    for (size_t i = path.n; i-- > 0;)
        add_segment(u, out, word + path.v[i].start, path.v[i].end - path.v[i].start);
    const bool oom = path.oom || out->oom;
    spans_free(&path);
    free(best);
    return oom ? ERR_NOMEM : ERR_OK;
}
