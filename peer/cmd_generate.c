#include "peer/flags.h"
#include "peer/json_out.h"
#include <stdlib.h>
#include <string.h>

extern const struct peer_command peer_cmd_generate;

struct values {
    struct peer_common common;
    struct peer_flags flags;
    const char *prompt;
    uint64_t tokens;
};

/* Ids that end a text, from config.json: a number or a list. */
static bool ends(const json_t *eos, uint32_t id)
{
    if (json_is_integer(eos))
        return json_integer_value(eos) == (json_int_t)id;
    for (size_t i = 0; i < json_array_size(eos); i++)
        if (json_integer_value(json_array_get(eos, i)) == (json_int_t)id)
            return true;
    return false;
}

static json_t *read_eos(const char *model_dir)
{
    char path[PEER_PATH_BYTES + 16];
    (void)snprintf(path, sizeof path, "%s/config.json", model_dir);
    json_t *config = json_load_file(path, 0, NULL),
           *eos = json_incref(json_object_get(config, "eos_token_id"));
    json_decref(config);
    return eos;
}

static uint32_t best_of(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* Appends up to `want` of the likeliest tokens to ids [*n]; room for all. */
static enum err continue_greedily(struct peer_engine *e, uint32_t *ids, size_t *n, uint64_t want,
                                  const json_t *eos)
{
    const uint32_t vocab = zo_model_vocab(e->model), context = zo_model_context(e->model);
    float *logits = malloc(vocab * sizeof *logits);
    enum err code = logits ? ERR_OK : ERR_NOMEM;
    for (uint64_t made = 0; made < want && code == ERR_OK; made++) {
        const size_t window = *n < context ? *n : context;
        code = zo_model_next(e->model, ids + *n - window, window, logits, e->pool);
        if (code != ERR_OK)
            break;
        const uint32_t id = best_of(logits, vocab);
        if (ends(eos, id))
            break;
        ids[(*n)++] = id;
    }
    free(logits);
    return code;
}

static enum err generate(struct peer_engine *e, const struct values *v, const char *model_dir,
                         char **text, size_t *made, struct err_why *why)
{
    uint32_t *ids = NULL;
    size_t n = 0;
    enum err code = zo_tokenizer_encode(e->tokenizer, v->prompt, strlen(v->prompt), true, &ids, &n);
    if (code == ERR_OK && n == 0)
        code = err_set(why, ERR_RANGE, "the prompt holds no tokens");
    uint32_t *more = code == ERR_OK ? realloc(ids, (n + (size_t)v->tokens) * sizeof *ids) : NULL;
    if (code == ERR_OK && !more)
        code = ERR_NOMEM;
    ids = more ? more : ids;
    const size_t before = n;
    json_t *eos = read_eos(model_dir);
    if (code == ERR_OK)
        code = continue_greedily(e, ids, &n, v->tokens, eos);
    if (code == ERR_OK)
        code = zo_tokenizer_decode(e->tokenizer, ids, n, true, text);
    json_decref(eos);
    free(ids);
    *made = n - before;
    if (code != ERR_OK && why->text[0] == '\0')
        (void)err_set(why, code, "cannot generate: %s", err_str(code));
    return code;
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct err_why why = {{0}};
    struct peer_home home;
    struct peer_engine engine = {0};
    struct peer_home_state state = {0};
    char verified[PEER_PATH_BYTES], *text = NULL;
    size_t made = 0;
    (void)args;
    (void)n_args;
    if (!v->prompt) {
        (void)err_set(&why, ERR_RANGE, "generate needs --prompt TEXT");
        return peer_usage(&peer_cmd_generate, &why);
    }
    const bool with_home = v->common.home || !v->flags.model;
    enum err e = with_home ? peer_home_open(&home, v->common.home, false, &why) : ERR_OK;
    if (e == ERR_OK) {
        const struct peer_engine_options o =
            peer_flags_engine(&v->flags, with_home ? &home : NULL, verified);
        e = with_home ? peer_home_state_open(&state, &home, &engine, &o, &why)
                      : peer_engine_open(&engine, NULL, &o, &why);
    }
    if (e == ERR_OK)
        e = generate(&engine, v, with_home ? state.model_dir : v->flags.model, &text, &made, &why);
    int code = PEER_EXIT_OK;
    if (e != ERR_OK)
        code = peer_fail(&why);
    else if (v->common.json)
        code = peer_json_print(json_pack("{s:s, s:I}", "text", text, "tokens", (json_int_t)made));
    else
        puts(text);
    free(text);
    peer_engine_close(&engine);
    peer_home_state_close(&state);
    return code;
}

static void defaults(void *values)
{
    ((struct values *)values)->tokens = 64;
}

static const struct peer_option options[] = {
    {"prompt", PEER_TEXT, offsetof(struct values, prompt), "TEXT", "the text to continue", 0, 0},
    {"tokens", PEER_U64, offsetof(struct values, tokens), "N", "most tokens to add (default: 64)",
     1, 65536},
    PEER_FLAG_ROWS(struct values, flags,
                   "model folder; with --home: where the run's base model is"),
};

const struct peer_command peer_cmd_generate = {
    .name = "generate",
    .args = "",
    .summary = "continue a prompt with a model folder, or with a home's current state",
    .details = "The likeliest token is taken each time; stops at the model's end token.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .defaults = defaults,
    .run = run,
};
