#include "peer/generate.h"
#include <jansson.h>
#include <math.h>
#include <onebyte/zo/answer.h>
#include <stdlib.h>
#include <string.h>

enum {
    PREFILL = 256,          /* prompt tokens of one pass: bounds its activations */
    TOGETHER = 8,           /* answers made at once: they share each reading of the weights */
    CACHE_BYTES = 256 << 20 /* keys and values of them all, or of one if it needs more */
};

void peer_ends_read(struct peer_ends *ends, const char *model_dir)
{
    static const char *const names[] = {"config.json", "generation_config.json"};
    char path[PEER_PATH_BYTES + 32];
    memset(ends, 0, sizeof *ends);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", model_dir, names[i]);
        json_t *config = json_load_file(path, 0, NULL);
        const json_t *eos = json_object_get(config, "eos_token_id");
        const size_t n = json_is_array(eos) ? json_array_size(eos) : 1;
        for (size_t j = 0; j < n && ends->n < PEER_ENDS_MAX; j++) {
            const json_t *id = json_is_array(eos) ? json_array_get(eos, j) : eos;
            if (json_is_integer(id) && json_integer_value(id) >= 0)
                ends->ids[ends->n++] = (uint32_t)json_integer_value(id);
        }
        json_decref(config);
    }
}

const char *peer_stop_name(enum peer_stop s)
{
    static const char *const names[] = {"tokens", "end", "line", "context"};
    return names[s];
}

static bool is_end(const struct peer_ends *ends, uint32_t id)
{
    for (size_t i = 0; i < ends->n; i++)
        if (ends->ids[i] == id)
            return true;
    return false;
}

static bool has_line_end(const struct peer_engine *e, uint32_t id)
{
    char *text = NULL;
    const bool has =
        zo_tokenizer_decode(e->tokenizer, &id, 1, false, &text) == ERR_OK && strchr(text, '\n');
    free(text);
    return has;
}

/* False: no logit is the largest, for one of them is no number. */
static bool likeliest(uint32_t *id, const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!isfinite(logits[i]))
            return false;
        if (logits[i] > logits[best])
            best = i;
    }
    *id = best;
    return true;
}

/* The texts of one peer_generate, and what their passes need. */
struct writing {
    struct peer_engine *e;
    struct peer_text *texts;
    size_t n;
    const struct peer_ends *ends;
    struct zo_cache **caches;
    struct zo_feed *feeds; /* [n] of the texts that go on */
    size_t *whose;         /* [n] the text of each feed */
    uint32_t *next;        /* [n] the token each text has chosen last */
    float *logits;         /* (n, vocab) */
};

static void writing_free(struct writing *w)
{
    for (size_t i = 0; w->caches && i < w->n; i++)
        zo_cache_free(w->caches[i]);
    free(w->caches);
    free(w->feeds);
    free(w->whose);
    free(w->next);
    free(w->logits);
}

static size_t room(const struct peer_engine *e, const struct peer_text *t)
{
    const size_t context = zo_model_context(e->model);
    return t->want < context - t->n ? t->want : context - t->n;
}

static enum err writing_make(struct writing *w, struct err_why *why)
{
    const size_t context = zo_model_context(w->e->model);
    for (size_t i = 0; i < w->n; i++) {
        if (w->texts[i].n == 0)
            return err_set(why, ERR_RANGE, "the prompt holds no tokens");
        if (w->texts[i].n >= context)
            return err_set(why, ERR_RANGE,
                           "the prompt has %zu tokens; the model's context of %zu leaves no room for "
                           "an answer: shorten it",
                           w->texts[i].n, context);
    }
    w->caches = calloc(w->n, sizeof(struct zo_cache *));
    w->feeds = calloc(w->n, sizeof *w->feeds);
    w->whose = calloc(w->n, sizeof *w->whose);
    w->next = calloc(w->n, sizeof *w->next);
    w->logits = calloc(w->n * zo_model_vocab(w->e->model), sizeof *w->logits);
    if (!w->caches || !w->feeds || !w->whose || !w->next || !w->logits)
        return err_set(why, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < w->n; i++) {
        const size_t tokens = w->texts[i].n + room(w->e, &w->texts[i]);
        TRY(zo_cache_new(&w->caches[i], w->e->model, (uint32_t)tokens, why));
    }
    return ERR_OK;
}

/* Takes the next token of text i by its logits; false: the text has ended. */
static enum err choose(struct writing *w, size_t i, const float *logits, bool *goes_on,
                       struct err_why *why)
{
    struct peer_text *t = &w->texts[i];
    uint32_t id = 0;
    *goes_on = false;
    if (t->n_made == room(w->e, t)) {
        t->stop = t->n_made == t->want ? PEER_STOP_TOKENS : PEER_STOP_CONTEXT;
        return ERR_OK;
    }
    if (!likeliest(&id, logits, zo_model_vocab(w->e->model)))
        return peer_engine_nonfinite(w->e, why);
    if (is_end(w->ends, id) || (t->line && t->n_made > 0 && has_line_end(w->e, id))) {
        t->stop = is_end(w->ends, id) ? PEER_STOP_END : PEER_STOP_LINE;
        return ERR_OK;
    }
    t->made[t->n_made++] = w->next[i] = id;
    *goes_on = true;
    return ERR_OK;
}

static enum err read_prompt(struct writing *w, size_t i, struct err_why *why)
{
    const struct peer_text *t = &w->texts[i];
    for (size_t at = 0; at < t->n; at += PREFILL) {
        const struct zo_feed feed = {w->caches[i], t->ids + at,
                                     t->n - at < PREFILL ? t->n - at : PREFILL};
        const enum err e = zo_model_extend(w->e->model, &feed, 1, w->logits, w->e->kernels, w->e->pool);
        if (e == ERR_RANGE)
            return err_set(why, e,
                           "a token of the prompt is outside the model's vocabulary: tokenizer and "
                           "model do not belong together");
        if (e != ERR_OK)
            return err_set(why, e, "cannot generate: %s", err_str(e));
    }
    return ERR_OK;
}

static enum err write_all(struct writing *w, struct err_why *why)
{
    const size_t vocab = zo_model_vocab(w->e->model);
    size_t n = 0;
    bool goes_on;
    for (size_t i = 0; i < w->n; i++) {
        w->texts[i].n_made = 0;
        TRY(read_prompt(w, i, why));
        TRY(choose(w, i, w->logits, &goes_on, why));
        if (goes_on)
            w->whose[n++] = i;
    }
    while (n > 0) {
        for (size_t j = 0; j < n; j++)
            w->feeds[j] = (struct zo_feed){w->caches[w->whose[j]], &w->next[w->whose[j]], 1};
        const enum err e = zo_model_extend(w->e->model, w->feeds, n, w->logits, w->e->kernels, w->e->pool);
        if (e != ERR_OK)
            return err_set(why, e, "cannot generate: %s", err_str(e));
        size_t left = 0;
        for (size_t j = 0; j < n; j++) {
            TRY(choose(w, w->whose[j], w->logits + j * vocab, &goes_on, why));
            if (goes_on)
                w->whose[left++] = w->whose[j];
        }
        n = left;
    }
    return ERR_OK;
}

enum err peer_generate(struct peer_engine *e, struct peer_text *texts, size_t n,
                       const struct peer_ends *ends, struct err_why *why)
{
    struct writing w = {.e = e, .texts = texts, .n = n, .ends = ends};
    enum err code = writing_make(&w, why);
    if (code == ERR_OK)
        code = write_all(&w, why);
    writing_free(&w);
    return code;
}

/* ---- answers ---- */

/* One line, but for white space around it. */
static bool is_line(const char *text)
{
    text += strspn(text, " \t\r\n");
    const char *end = strchr(text, '\n');
    return !end || end[strspn(end, " \t\r\n")] == '\0';
}

static size_t prompt_tokens(const struct zo_seq *s)
{
    size_t n = 0;
    while (n < s->n && !s->counted[n])
        n++;
    return n;
}

static enum err judge(const struct peer_engine *e, const char *want, const struct peer_text *t,
                      struct peer_answers *out)
{
    struct zo_answer a;
    char *got = NULL;
    TRY(zo_tokenizer_decode(e->tokenizer, t->made, t->n_made, true, &got));
    char *said = got + strspn(got, " \t\r\n");
    if (t->line)
        said[strcspn(said, "\n")] = '\0';
    const enum err code = zo_answer_compare(&a, said, want);
    free(got);
    if (code != ERR_OK)
        return code;
    out->n++;
    out->exact += a.exact;
    out->f1 += a.f1;
    return ERR_OK;
}

/* Answers the next `together` examples that have a completion; *at moves past them. */
static enum err answer_some(struct peer_engine *e, const struct zo_dataset *d, uint64_t *at,
                            uint64_t total, size_t together, size_t tokens,
                            const struct peer_ends *ends, struct peer_answers *out,
                            struct err_why *why)
{
    const struct zo_example *asked[TOGETHER];
    struct peer_text texts[TOGETHER];
    size_t n = 0;
    enum err code = ERR_OK;
    for (; *at < total && n < together && code == ERR_OK; ++*at) {
        const struct zo_example *x = zo_dataset_get(d, *at);
        if (!x->answer)
            continue;
        texts[n] = (struct peer_text){.ids = x->seqs[0].ids,
                                      .n = prompt_tokens(&x->seqs[0]),
                                      .want = tokens,
                                      .line = is_line(x->answer),
                                      .made = malloc((tokens + 1) * sizeof(uint32_t))};
        code = texts[n].made ? ERR_OK : ERR_NOMEM;
        asked[n++] = x;
    }
    if (code == ERR_OK && n > 0)
        code = peer_generate(e, texts, n, ends, why);
    for (size_t i = 0; i < n && code == ERR_OK; i++)
        code = judge(e, asked[i]->answer, &texts[i], out);
    for (size_t i = 0; i < n; i++)
        free(texts[i].made);
    if (code != ERR_OK && why->text[0] == '\0')
        return err_set(why, code, "cannot compare the answers: %s", err_str(code));
    return code;
}

/* How many answers' keys and values fit CACHE_BYTES. */
static size_t fit_together(const struct peer_engine *e, const struct zo_dataset *d, uint64_t total,
                           size_t tokens)
{
    uint64_t most = 1;
    for (uint64_t i = 0; i < total; i++) {
        const struct zo_example *x = zo_dataset_get(d, i);
        if (x->answer && x->seqs[0].n + tokens > most)
            most = x->seqs[0].n + tokens;
    }
    const uint32_t context = zo_model_context(e->model);
    const uint64_t each = zo_cache_bytes(e->model, most < context ? (uint32_t)most : context),
                   fit = CACHE_BYTES / (each ? each : 1);
    return fit < 1 ? 1 : fit > TOGETHER ? TOGETHER : (size_t)fit;
}

enum err peer_answers(struct peer_engine *e, const struct zo_dataset *d, uint64_t max, size_t tokens,
                      const struct peer_ends *ends,
                      bool (*go_on)(void *ctx, uint64_t done, uint64_t total), void *ctx,
                      struct peer_answers *out, struct err_why *why)
{
    const uint64_t size = zo_dataset_size(d), total = max && max < size ? max : size;
    const size_t together = fit_together(e, d, total, tokens);
    struct peer_answers got = {0};
    for (uint64_t at = 0; at < total;) {
        if (go_on && !go_on(ctx, at, total))
            return err_set(why, ERR_CANCELLED, "cancelled");
        TRY(answer_some(e, d, &at, total, together, tokens, ends, &got, why));
    }
    if (go_on)
        (void)go_on(ctx, total, total);
    if (got.n == 0)
        return err_set(why, ERR_NOTFOUND,
                       "no example has a prompt and one completion to compare an answer with");
    got.f1 /= (double)got.n;
    *out = got;
    return ERR_OK;
}
