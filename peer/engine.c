/* Model, tokenizer, pool, kernels, state: opening them, evaluating, and the digest. */
#include "peer/engine.h"
#include "peer/device.h"
#include "peer/log.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The manifest's tensors are the model's, by name and shape. */
static enum err check_tensors(const struct zo_model *model, const struct peer_manifest *m,
                              const char *dir, struct err_why *why)
{
    struct zo_tensor *have = NULL;
    const struct zo_rules *rules = &m->rules;
    uint32_t n = 0;
    enum err e = zo_model_trainable_of(model, m->trainable, &have, &n, why);
    if (e != ERR_OK)
        return e;
    for (uint32_t i = 0; i < n && i < rules->n_tensors && e == ERR_OK; i++) {
        const struct zo_tensor *a = &have[i], *b = &rules->tensors[i];
        if (strcmp(a->name, b->name) != 0)
            e = err_set(why, ERR_FORMAT,
                        "%s is not this run's model: it has tensor %s where the manifest has %s",
                        dir, a->name, b->name);
        else if (a->n_dims != b->n_dims ||
                 memcmp(a->dims, b->dims, a->n_dims * sizeof a->dims[0]) != 0)
            e = err_set(why, ERR_FORMAT,
                        "%s is not this run's model: tensor %s has another shape in the manifest",
                        dir, a->name);
    }
    if (e == ERR_OK && n != rules->n_tensors)
        e = err_set(why, ERR_FORMAT,
                    "%s is not this run's model: it has %u tensors, the manifest %u", dir, n,
                    rules->n_tensors);
    free(have);
    return e;
}

/* Lean instead of fast where the float copy would drive the machine out of memory: an overcommitting
 * kernel hands it out all the same. */
static enum zo_memory affordable(const struct peer_engine *e, enum zo_memory asked)
{
    const uint64_t have = peer_memory_available();
    const bool short_of = have > 0 && zo_model_parameters(e->model) * sizeof(float) > have;
    return asked == ZO_MEMORY_FAST && short_of ? ZO_MEMORY_LEAN : asked;
}

static enum err open_state(struct peer_engine *e, const struct peer_engine_options *o,
                           struct err_why *why)
{
    static const uint8_t nobody[32] = {0};
    const struct peer_manifest *m = e->manifest;
    uint32_t key[2];
    TRY(check_tensors(e->model, m, o->model_dir, why));
    net_stream_key(key, m->run_id, nobody);
    const enum err made = zo_state_new(&e->state, &m->rules, key);
    if (made != ERR_OK)
        return err_set(why, made, "not enough memory for the parameters of %s", o->model_dir);
    TRY(zo_model_load_state(e->model, e->state, e->pool, why));
    if (o->device) {
        TRY(zo_model_bind(e->model, e->state, ZO_MEMORY_LEAN, why));
        TRY(peer_device_open(e, o, why));
    }
    if (e->device)
        return ERR_OK;
    TRY(zo_model_bind(e->model, e->state, affordable(e, o->memory), why));
    if (o->memory == ZO_MEMORY_FAST && zo_model_memory(e->model) != ZO_MEMORY_FAST)
        peer_log(PEER_WARN, "memory", "memory=lean reason=\"too little memory for --memory fast\"");
    return ERR_OK;
}

/* A checkpoint alone: on a GPU, beside a state without tensors; the digest of that is nobody's. */
static enum err open_plain(struct peer_engine *e, const struct peer_engine_options *o, struct err_why *why)
{
    static const struct zo_rules nothing_trained = {.direction = ZO_RANK1, .sides = 2, .k = 1, .n0 = 1, .steps = 1, .n_knots = 1};
    static const uint32_t key[2] = {0, 0};
    if (o->device && strcmp(o->device, "cpu") != 0) {
        const enum err made = zo_state_new(&e->state, &nothing_trained, key);
        if (made != ERR_OK)
            return err_set(why, made, "not enough memory");
        TRY(zo_model_bind(e->model, e->state, ZO_MEMORY_LEAN, why));
        TRY(peer_device_open(e, o, why));
        if (e->device)
            return ERR_OK;
    }
    TRY(zo_model_bind(e->model, NULL, o->memory, why));
    zo_state_free(e->state);
    e->state = NULL;
    return ERR_OK;
}

static enum err open_parts(struct peer_engine *e, const struct peer_engine_options *o,
                           struct err_why *why)
{
    if (o->threads > LIMIT_THREADS)
        return err_set(why, ERR_RANGE, "at most %d threads", LIMIT_THREADS);
    e->kernels = zo_kernels_pick(o->kernels);
    if (!e->kernels)
        return err_set(why, ERR_UNSUPPORTED,
                       "this machine cannot run the %s kernels: use --kernels auto", o->kernels);
    TRY(zo_blas_start(why));
    if (e->manifest)
        TRY(peer_manifest_check_model(e->manifest, o->model_dir, o->verified, why));
    TRY(zo_model_open(&e->model, o->model_dir, why));
    TRY(zo_tokenizer_open(&e->tokenizer, o->model_dir, why));
    const enum err pool = zo_pool_new(&e->pool, o->threads ? o->threads : peer_threads_default());
    if (pool != ERR_OK)
        return err_set(why, pool, "cannot start worker threads: %s", err_str(pool));
    return e->manifest ? open_state(e, o, why) : open_plain(e, o, why);
}

enum err peer_engine_open(struct peer_engine *e, const struct peer_manifest *m,
                          const struct peer_engine_options *o, struct err_why *why)
{
    ENSURE(o->model_dir != NULL);
    struct peer_engine made = {.manifest = m};
    const enum err code = open_parts(&made, o, why);
    if (code != ERR_OK) {
        peer_engine_close(&made);
        return code;
    }
    *e = made;
    return ERR_OK;
}

void peer_engine_close(struct peer_engine *e)
{
    zo_device_free(e->device);
    zo_model_free(e->model);
    zo_tokenizer_free(e->tokenizer);
    zo_state_free(e->state);
    zo_pool_free(e->pool);
    memset(e, 0, sizeof *e);
}

enum err peer_engine_fits(const struct peer_engine *e, const struct zo_dataset *d, const char *path,
                          struct err_why *why)
{
    for (uint64_t i = 0; i < zo_dataset_size(d); i++) {
        struct err_why inner = {{0}};
        const enum err fits = zo_model_check(e->model, zo_dataset_get(d, i), &inner);
        if (fits != ERR_OK)
            return err_set(why, ERR_FORMAT, "%s: example %" PRIu64 ": %s", path, i + 1, inner.text);
    }
    return ERR_OK;
}

enum err peer_engine_data(const struct peer_engine *e, struct zo_dataset **d, const char *path,
                          struct err_why *why)
{
    const uint32_t context = zo_model_context(e->model),
                   asked = e->manifest ? e->manifest->length_max : 0;
    struct zo_dataset *made = NULL;
    TRY(zo_dataset_open(&made, path, e->tokenizer, asked && asked < context ? asked : context,
                        why));
    if (zo_dataset_size(made) == 0) {
        zo_dataset_free(made);
        return err_set(why, ERR_FORMAT, "%s holds no examples", path);
    }
    const enum err fits = peer_engine_fits(e, made, path, why);
    if (fits != ERR_OK) {
        zo_dataset_free(made);
        return fits;
    }
    *d = made;
    return ERR_OK;
}

enum err peer_engine_nonfinite(const struct peer_engine *e, struct err_why *why)
{
    const char *name = zo_model_nonfinite(e->model);
    if (name)
        return err_set(why, ERR_NONFINITE,
                       "tensor %s of the model holds NaN or infinity: the checkpoint is damaged, "
                       "fetch or export it again",
                       name);
    return err_set(why, ERR_NONFINITE,
                   "the forward pass overflows though every weight is finite: the run has diverged "
                   "(a smaller --lr), or the model's numbers do not fit single precision");
}

static void count_loss(struct peer_eval *out, const struct zo_loss *l, double *nats, double *losses)
{
    *nats += l->nats;
    *losses += l->loss;
    out->tokens += l->n_tokens;
    out->examples++;
    out->nonfinite += isfinite(l->loss) ? 0 : 1;
    if (l->correct >= 0) {
        out->choices++;
        out->correct += l->correct > 0;
    }
}

static enum err eval_batches(struct peer_engine *e, const struct zo_dataset *d, uint64_t total,
                             size_t batch, bool (*go_on)(void *, uint64_t, uint64_t), void *ctx,
                             struct zo_pass *passes, struct zo_loss *losses, struct peer_eval *out)
{
    double nats = 0, sum = 0;
    for (uint64_t i = 0; i < total;) {
        const size_t n = total - i < batch ? (size_t)(total - i) : batch;
        if (go_on && !go_on(ctx, i, total))
            return ERR_CANCELLED;
        for (size_t j = 0; j < n; j++)
            passes[j] = (struct zo_pass){.example = zo_dataset_get(d, i + j)};
        TRY(peer_engine_losses(e, passes, n, losses));
        for (size_t j = 0; j < n; j++) {
            count_loss(out, &losses[j], &nats, &sum);
            out->cut_tokens += passes[j].example->n_cut;
            out->cut_examples += passes[j].example->n_cut > 0;
        }
        i += n;
    }
    if (go_on)
        (void)go_on(ctx, total, total);
    out->loss_token_mean = nats / (double)out->tokens;
    out->loss_example_mean = sum / (double)out->examples;
    out->accuracy = out->choices ? (double)out->correct / (double)out->choices : (double)NAN;
    return ERR_OK;
}

enum err peer_engine_eval(struct peer_engine *e, const struct zo_dataset *d, uint64_t max,
                          size_t batch, bool (*go_on)(void *ctx, uint64_t done, uint64_t total),
                          void *ctx, struct peer_eval *out)
{
    const uint64_t size = zo_dataset_size(d), total = max && max < size ? max : size;
    const size_t per_call = batch ? batch : 4 * zo_pool_threads(e->pool);
    struct zo_pass *passes = calloc(per_call, sizeof *passes);
    struct zo_loss *losses = calloc(per_call, sizeof *losses);
    struct peer_eval got = {0};
    enum err code = passes && losses ? ERR_OK : ERR_NOMEM;
    if (code == ERR_OK)
        code = eval_batches(e, d, total, per_call, go_on, ctx, passes, losses, &got);
    free(passes);
    free(losses);
    if (code == ERR_OK)
        *out = got;
    return code;
}

void peer_engine_digest(const struct peer_engine *e, char out[17])
{
    ENSURE(e->state != NULL);
    (void)snprintf(out, 17, "%016" PRIx64, zo_state_digest(e->state, e->kernels, e->pool));
}

bool peer_progress(void *ctx, uint64_t done, uint64_t total)
{
    if (!isatty(STDERR_FILENO))
        return true;
    if (total)
        fprintf(stderr, "\r%" PRIu64 "/%" PRIu64 " %s%s", done, total, (const char *)ctx,
                done == total ? "\n" : "");
    else
        fprintf(stderr, "\r%" PRIu64 " %s", done, (const char *)ctx);
    return true;
}
