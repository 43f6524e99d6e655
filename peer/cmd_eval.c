#include "peer/device.h"
#include "peer/flags.h"
#include "peer/generate.h"
#include "peer/json_out.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

struct values {
    struct peer_common common;
    struct peer_flags flags;
    const char *data, *checkpoint;
    uint64_t max, batch, generate;
};

/* What is evaluated: a model folder as it is, or a home's base model with its ledger folded in. */
struct subject {
    struct peer_engine engine;
    struct peer_home_state state;
    bool home;
    char data[PEER_PATH_BYTES];
};

static enum err subject_open(struct subject *s, const struct values *v, struct err_why *why)
{
    char verified[PEER_PATH_BYTES];
    struct peer_home home;
    memset(s, 0, sizeof *s);
    TRY(peer_device_check(v->flags.device, why));
    (void)snprintf(s->data, sizeof s->data, "%s", v->data ? v->data : "");
    s->home = v->common.home || !v->flags.model;
    if (!s->home) {
        const struct peer_engine_options o = peer_flags_engine(&v->flags, NULL, NULL);
        if (!v->data)
            return err_set(why, ERR_RANGE, "eval --model needs --data FILE");
        return peer_engine_open(&s->engine, NULL, &o, why);
    }
    TRY(peer_home_open(&home, v->common.home, false, why));
    if (!v->data)
        peer_home_get(&home, "eval_data", s->data);
    if (s->data[0] == '\0')
        return err_set(why, ERR_RANGE, "eval needs --data FILE: the home names no evaluation data");
    struct peer_engine_options o = peer_flags_engine(&v->flags, &home, verified);
    o.checkpoint = v->checkpoint;
    return peer_home_state_open(&s->state, &home, &s->engine, &o, why);
}

static int print_json(const struct subject *s, const struct peer_eval *r,
                      const struct peer_answers *a)
{
    json_t *o =
        json_pack("{s:o, s:o, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:o}", "loss_token_mean",
                  peer_json_real(r->loss_token_mean), "loss_example_mean",
                  peer_json_real(r->loss_example_mean), "tokens", (json_int_t)r->tokens, "examples",
                  (json_int_t)r->examples, "accuracy", peer_json_real(r->accuracy), "correct",
                  (json_int_t)r->correct, "cut_tokens", (json_int_t)r->cut_tokens, "cut_examples",
                  (json_int_t)r->cut_examples, "nonfinite", (json_int_t)r->nonfinite, "perplexity",
                  peer_json_real(exp(r->loss_token_mean)));
    if (o && a->n > 0) {
        (void)json_object_set_new(o, "answers", json_integer((json_int_t)a->n));
        (void)json_object_set_new(o, "exact_match", json_real((double)a->exact / (double)a->n));
        (void)json_object_set_new(o, "f1", json_real(a->f1));
    }
    if (o && s->home) {
        char digest[17];
        const uint64_t step = peer_run_step(s->state.gossip, &s->state.manifest);
        peer_engine_digest(&s->engine, digest);
        (void)json_object_set_new(o, "run_id", peer_json_hex(s->state.manifest.run_id, 32));
        (void)json_object_set_new(o, "step", json_integer((json_int_t)step));
        (void)json_object_set_new(o, "records", json_integer((json_int_t)s->state.loaded.records));
        (void)json_object_set_new(o, "digest", json_string(digest));
    }
    return peer_json_print(o);
}

static int print_text(const struct peer_eval *r, const struct peer_answers *a)
{
    if (r->nonfinite) {
        printf("loss      not finite for %" PRIu64 " of %" PRIu64 " examples\n", r->nonfinite,
               r->examples);
        return PEER_EXIT_OK;
    }
    if (r->choices == r->examples) { /* the tokens of wrong choices ought to lose: no mean over all */
        printf("loss      %.6f mean over %" PRIu64 " examples with choices\n", r->loss_example_mean,
               r->examples);
    } else {
        printf("loss      %.6f nats per token (%" PRIu64 " tokens), %.6f mean over %" PRIu64
               " examples\n",
               r->loss_token_mean, r->tokens, r->loss_example_mean, r->examples);
        printf("perplexity %.6g\n", exp(r->loss_token_mean));
    }
    if (r->choices)
        printf("accuracy  %.2f %% (%" PRIu64 " of %" PRIu64 ")\n", 100 * r->accuracy, r->correct,
               r->choices);
    else
        printf("accuracy  none: the data has no choices\n");
    if (a->n > 0)
        printf("answers   %.2f %% exact (%" PRIu64 " of %" PRIu64 "), F1 %.2f %%\n",
               100 * (double)a->exact / (double)a->n, a->exact, a->n, 100 * a->f1);
    if (r->cut_examples)
        printf("cut       %" PRIu64 " tokens of %" PRIu64
               " examples: longer than the model's context\n",
               r->cut_tokens, r->cut_examples);
    return PEER_EXIT_OK;
}

static enum err evaluate(struct subject *s, const struct values *v, const struct zo_dataset *data,
                         struct peer_eval *result, struct peer_answers *answers, struct err_why *why)
{
    struct peer_ends ends;
    const enum err e = peer_engine_eval(&s->engine, data, v->max, (size_t)v->batch, peer_progress,
                                        "examples", result);
    if (e != ERR_OK)
        return err_set(why, e, "cannot evaluate: %s", peer_engine_error(&s->engine, e));
    if (v->generate == 0 || result->nonfinite > 0)
        return ERR_OK;
    peer_ends_read(&ends, s->home ? s->state.model_dir : v->flags.model);
    return peer_answers(&s->engine, data, v->max, (size_t)v->generate, &ends, peer_progress,
                        "answers", answers, why);
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct err_why why = {{0}};
    struct subject s;
    struct zo_dataset *data = NULL;
    struct peer_eval result;
    struct peer_answers answers = {0};
    int code = PEER_EXIT_OK;
    (void)args;
    (void)n_args;
    enum err e = subject_open(&s, v, &why);
    if (e == ERR_OK)
        e = peer_engine_data(&s.engine, &data, s.data, &why);
    if (e == ERR_OK && s.home && peer_engine_pull(&s.engine) != ERR_OK) /* the digest and the answers are the CPU's */
        e = err_set(&why, ERR_DEVICE, "the GPU is lost: %s", peer_engine_error(&s.engine, ERR_DEVICE));
    if (e == ERR_OK)
        e = evaluate(&s, v, data, &result, &answers, &why);
    if (e != ERR_OK)
        code = peer_fail(&why);
    else
        code = v->common.json ? print_json(&s, &result, &answers) : print_text(&result, &answers);
    if (e == ERR_OK && result.nonfinite > 0 && peer_engine_nonfinite(&s.engine, &why) != ERR_OK)
        code = peer_fail(&why);
    zo_dataset_free(data);
    peer_engine_close(&s.engine);
    peer_home_state_close(&s.state);
    return code;
}

static const struct peer_option options[] = {
    {"checkpoint", PEER_TEXT, offsetof(struct values, checkpoint), "N|last",
     "the state that the owner's checkpoint names (default: everything held)", 0, 0},
    PEER_FLAG_ROWS(struct values, flags,
                   "model folder to evaluate; with --home: where the run's base model is"),
    PEER_FLAG_DEVICE_ROWS(struct values, flags),
    {"data", PEER_TEXT, offsetof(struct values, data), "FILE",
     "JSONL to evaluate on (default: the home's evaluation data)", 0, 0},
    {"max", PEER_U64, offsetof(struct values, max), "N", "only the first N examples (default: all)",
     1, 0},
    {"batch", PEER_U64, offsetof(struct values, batch), "N",
     "examples per pass (default: 4 per thread)", 1, 65536},
    {"generate", PEER_U64, offsetof(struct values, generate), "N",
     "also answer each prompt greedily, with at most N tokens, and compare with its completion", 1,
     65536},
};

const struct peer_command peer_cmd_eval = {
    .name = "eval",
    .args = "",
    .summary = "loss, accuracy and answers of a model folder, or of a home's current state",
    .details = "onebyte eval --model DIR --data FILE evaluates a model folder. onebyte eval --home "
               "DIR folds the ledger of a peer "
               "into its base model first; the peer may be running. With --generate, exact match and F1 count as in SQuAD's "
               "evaluation (lower case, no punctuation, no articles); an answer ends with its line unless the "
               "completion has several. Exit code 1 if a loss is not finite.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .run = run,
};
