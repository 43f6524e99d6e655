#include "peer/flags.h"
#include "peer/generate.h"
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

static enum err generate(struct peer_engine *e, const struct values *v, const char *model_dir,
                         char **text, struct peer_text *t, struct err_why *why)
{
    uint32_t *ids = NULL;
    size_t n = 0;
    struct peer_ends ends;
    enum err code = zo_tokenizer_encode(e->tokenizer, v->prompt, strlen(v->prompt), true, &ids, &n);
    if (code != ERR_OK)
        return err_set(why, code,
                       code == ERR_NOTFOUND ? "a word of the prompt is not in the vocabulary, and the "
                                              "tokenizer has no unknown token"
                       : code == ERR_UNSUPPORTED ? "the prompt: " ZO_TOKENIZER_UNSUPPORTED
                                            : "cannot read the prompt: %s",
                       err_str(code));
    uint32_t *all = malloc((n + (size_t)v->tokens + 1) * sizeof *all);
    if (!all) {
        free(ids);
        return err_set(why, ERR_NOMEM, "out of memory");
    }
    memcpy(all, ids, n * sizeof *all);
    *t = (struct peer_text){.ids = ids, .n = n, .want = (size_t)v->tokens, .made = all + n};
    peer_ends_read(&ends, model_dir);
    code = peer_generate(e, t, 1, &ends, why);
    if (code == ERR_OK) {
        code = zo_tokenizer_decode(e->tokenizer, all, n + t->n_made, true, text);
        if (code != ERR_OK)
            (void)err_set(why, code, "cannot decode the text: %s", err_str(code));
    }
    free(all);
    free(ids);
    return code;
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct err_why why = {{0}};
    struct peer_home home;
    struct peer_engine engine = {0};
    struct peer_home_state state = {0};
    struct peer_text t = {0};
    char verified[PEER_PATH_BYTES], *text = NULL;
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
        e = generate(&engine, v, with_home ? state.model_dir : v->flags.model, &text, &t, &why);
    int code = PEER_EXIT_OK;
    if (e != ERR_OK)
        code = peer_fail(&why);
    else if (v->common.json)
        code = peer_json_print(json_pack("{s:s, s:I, s:s}", "text", text, "tokens",
                                         (json_int_t)t.n_made, "stopped", peer_stop_name(t.stop)));
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
    .details = "The likeliest token is taken each time. Stops at an end token of the model's config.json or "
               "generation_config.json, after --tokens, or where the context ends.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .defaults = defaults,
    .run = run,
};
