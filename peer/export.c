#include "peer/export.h"
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool peer_export_dtype(enum zo_dtype *d, const char *name)
{
    static const struct {
        const char *name;
        enum zo_dtype d;
    } known[] = {{"f32", ZO_F32}, {"f16", ZO_F16}, {"bf16", ZO_BF16}};
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(known[i].name, name) == 0) {
            *d = known[i].d;
            return true;
        }
    return false;
}

/* Where one tensor's values come from: tensor `t` of the state, or the base model. */
struct origin {
    const struct peer_engine *engine;
    int64_t t;
    const struct zo_ckpt_tensor *stored;
};

static void read_origin(void *ctx, uint64_t first, float *out, size_t n)
{
    const struct origin *o = ctx;
    if (o->t >= 0)
        zo_state_read_f32(o->engine->state, (uint32_t)o->t, first, out, n);
    else
        zo_ckpt_read_f32(o->stored, first, out, n);
    if (o->stored)
        zo_model_add_adapter(o->engine->model, o->stored, first, out, n);
}

static int64_t trained(const struct zo_rules *r, const char *name)
{
    for (uint32_t t = 0; t < r->n_tensors; t++)
        if (strcmp(r->tensors[t].name, name) == 0)
            return t;
    return -1;
}

/* The trained tensor that `c` repeats in the base model (a tied head stored twice), or -1. */
static int64_t tied(const struct zo_ckpt *ckpt, const struct zo_rules *r,
                    const struct zo_ckpt_tensor *c)
{
    for (uint32_t t = 0; t < r->n_tensors; t++) {
        const struct zo_ckpt_tensor *b = zo_ckpt_find(ckpt, r->tensors[t].name);
        if (b && b->elements == c->elements && b->dtype == c->dtype && b->n_dims == c->n_dims &&
            b->n_dims >= 2 &&
            memcmp(b->data, c->data, (size_t)c->elements * zo_dtype_bytes(c->dtype)) == 0)
            return t;
    }
    return -1;
}

/* Where each shard of sources [n] starts: starts [n + 1], *shards of them. */
static void split(const struct zo_ckpt_source *sources, size_t n, uint64_t bytes_each,
                  uint64_t shard_bytes, size_t *starts, size_t *shards, uint64_t *total)
{
    uint64_t held = 0;
    *shards = *total = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = bytes_each;
        for (uint32_t d = 0; d < sources[i].n_dims; d++)
            bytes *= sources[i].dims[d];
        if (i == 0 || held + bytes > shard_bytes) {
            starts[(*shards)++] = i;
            held = 0;
        }
        held += bytes;
        *total += bytes;
    }
    starts[*shards] = n;
}

static void shard_name(char out[64], size_t i, size_t shards)
{
    (void)snprintf(out, 64, "model-%05zu-of-%05zu.safetensors", i + 1, shards);
}

static enum err write_index(const char *path, const struct zo_ckpt_source *sources,
                            const size_t *starts, size_t shards, uint64_t total,
                            struct err_why *why)
{
    char name[64], *text = NULL;
    json_t *map = json_object();
    for (size_t s = 0; s < shards; s++) {
        shard_name(name, s, shards);
        for (size_t i = starts[s]; i < starts[s + 1]; i++)
            (void)json_object_set_new(map, sources[i].name, json_string(name));
    }
    json_t *o =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    text = o ? json_dumps(o, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    const enum err e = text ? peer_write_file(path, text, strlen(text), 0644, why)
                            : err_set(why, ERR_NOMEM, "out of memory");
    free(text);
    json_decref(o);
    return e;
}

/* What an earlier export may have left under the names this one does not write: transformers would
 * read it. */
static void remove_other(const char *out_dir, bool sharded)
{
    char path[PEER_PATH_BYTES + 64];
    (void)snprintf(path, sizeof path, "%s/%s", out_dir,
                   sharded ? "model.safetensors" : "model.safetensors.index.json");
    (void)unlink(path);
}

static enum err write_files(const char *out_dir, const struct zo_ckpt_source *sources, size_t n,
                            const struct peer_export_options *o, struct err_why *why)
{
    char path[PEER_PATH_BYTES + 64], name[64] = "model.safetensors";
    size_t shards = 0;
    uint64_t total = 0;
    enum err e = ERR_OK;
    size_t *starts = calloc(n + 2, sizeof *starts);
    if (!starts)
        return err_set(why, ERR_NOMEM, "out of memory");
    split(sources, n, zo_dtype_bytes(o->dtype), o->shard_bytes ? o->shard_bytes : PEER_SHARD_BYTES,
          starts, &shards, &total);
    for (size_t s = 0; s < shards && e == ERR_OK; s++) {
        if (shards > 1)
            shard_name(name, s, shards);
        (void)snprintf(path, sizeof path, "%s/%s", out_dir, name);
        e = zo_ckpt_write(path, sources + starts[s], starts[s + 1] - starts[s], o->dtype, why);
    }
    (void)snprintf(path, sizeof path, "%s/model.safetensors.index.json", out_dir);
    if (shards > 1 && e == ERR_OK)
        e = write_index(path, sources, starts, shards, total, why);
    if (e == ERR_OK)
        remove_other(out_dir, shards > 1);
    free(starts);
    return e;
}

static enum err write_weights(const struct peer_engine *e, const char *out_dir,
                              const struct peer_export_options *o, struct err_why *why)
{
    const struct zo_ckpt *ckpt = zo_model_ckpt(e->model);
    const struct zo_rules *rules = &e->manifest->rules;
    struct origin *origins = calloc(ckpt->n, sizeof *origins);
    struct zo_ckpt_source *sources = calloc(ckpt->n, sizeof *sources);
    enum err code = origins && sources ? ERR_OK : err_set(why, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < ckpt->n && code == ERR_OK; i++) {
        const struct zo_ckpt_tensor *c = &ckpt->tensors[i];
        const int64_t t = trained(rules, c->name);
        origins[i] = (struct origin){e, t >= 0 ? t : tied(ckpt, rules, c), c};
        sources[i] = (struct zo_ckpt_source){c->name, c->n_dims, c->dims, read_origin, &origins[i]};
    }
    if (code == ERR_OK)
        code = write_files(out_dir, sources, ckpt->n, o, why);
    free(origins);
    free(sources);
    return code;
}

/* ---- adapters ---- */

/* The module of an adapter's name, for target_modules: PEFT takes whole names too, and those are exact. */
static json_t *adapted_modules(const struct zo_rules *r)
{
    static const size_t head = sizeof "base_model.model." - 1, tail = sizeof ".lora_A.weight" - 1;
    json_t *list = json_array();
    for (uint32_t t = 0; list && t < r->n_tensors; t++)
        if (zo_tensor_is_lora_a(&r->tensors[t])) {
            const char *name = r->tensors[t].name;
            (void)json_array_append_new(list,
                                        json_stringn(name + head, strlen(name) - head - tail));
        }
    return list;
}

static enum err write_adapter_config(const struct peer_engine *e, const char *model_dir,
                                     const char *out_dir, const struct zo_lora *lora,
                                     struct err_why *why)
{
    char path[PEER_PATH_BYTES + 64];
    const bool causal = zo_model_is_causal(e->model);
    json_t *o = json_pack(
        "{s:s, s:o, s:s, s:I, s:f, s:f, s:s, s:o, s:b, s:b, s:b}", "peft_type", "LORA", "task_type",
        causal ? json_string("CAUSAL_LM") : json_null(), "base_model_name_or_path", model_dir, "r",
        (json_int_t)lora->r, "lora_alpha", lora->alpha, "lora_dropout", 0.0, "bias", "none",
        "target_modules", adapted_modules(&e->manifest->rules), "fan_in_fan_out",
        zo_model_transposed(e->model), "inference_mode", 1, "init_lora_weights", 1);
    char *text = o ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    (void)snprintf(path, sizeof path, "%s/adapter_config.json", out_dir);
    const enum err code = text ? peer_write_file(path, text, strlen(text), 0644, why)
                               : err_set(why, ERR_NOMEM, "out of memory");
    free(text);
    json_decref(o);
    return code;
}

static enum err write_adapter(const struct peer_engine *e, const char *model_dir,
                              const char *out_dir, const struct zo_lora *lora, enum zo_dtype dtype,
                              struct err_why *why)
{
    const struct zo_rules *rules = &e->manifest->rules;
    char path[PEER_PATH_BYTES + 64];
    struct origin *origins = calloc(rules->n_tensors, sizeof *origins);
    struct zo_ckpt_source *sources = calloc(rules->n_tensors, sizeof *sources);
    enum err code = origins && sources ? ERR_OK : err_set(why, ERR_NOMEM, "out of memory");
    for (uint32_t t = 0; t < rules->n_tensors && code == ERR_OK; t++) {
        const struct zo_tensor *z = &rules->tensors[t];
        origins[t] = (struct origin){e, t, NULL};
        sources[t] = (struct zo_ckpt_source){z->name, z->n_dims, z->dims, read_origin, &origins[t]};
    }
    (void)snprintf(path, sizeof path, "%s/adapter_model.safetensors", out_dir);
    if (code == ERR_OK)
        code = zo_ckpt_write(path, sources, rules->n_tensors, dtype, why);
    if (code == ERR_OK)
        code = write_adapter_config(e, model_dir, out_dir, lora, why);
    free(origins);
    free(sources);
    return code;
}

/* config.json with the dtype that was written, everything else as it was. */
static enum err write_config(const char *from, const char *to, enum zo_dtype dtype,
                             struct err_why *why)
{
    const char *name = dtype == ZO_F16 ? "float16" : dtype == ZO_BF16 ? "bfloat16" : "float32";
    json_error_t bad;
    json_t *o = json_load_file(from, 0, &bad);
    if (!json_is_object(o)) {
        json_decref(o);
        return err_set(why, ERR_FORMAT, "%s: not a JSON object: %s", from, bad.text);
    }
    const char *key =
        json_object_get(o, "dtype") && !json_object_get(o, "torch_dtype") ? "dtype" : "torch_dtype";
    char *text = NULL;
    enum err e = ERR_OK;
    if (json_object_set_new(o, key, json_string(name)) != 0 ||
        !(text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(17))))
        e = err_set(why, ERR_NOMEM, "out of memory");
    else
        e = peer_write_file(to, text, strlen(text), 0644, why);
    free(text);
    json_decref(o);
    return e;
}

/* Config and tokenizer files by the names that Hugging Face writes; weights and everything else stay behind. */
static bool carried(const char *name)
{
    static const char *const starts[] = {"config.json",
                                         "generation_config.json",
                                         "tokenizer.",
                                         "tokenizer_config.json",
                                         "special_tokens_map.json",
                                         "added_tokens.json",
                                         "vocab.",
                                         "merges.txt",
                                         "chat_template",
                                         "spiece.model"};
    for (size_t i = 0; i < ARRAY_LEN(starts); i++)
        if (strncmp(name, starts[i], strlen(starts[i])) == 0)
            return true;
    return false;
}

static enum err carry_files(const char *model_dir, const char *out_dir, bool adapter,
                            enum zo_dtype dtype, struct err_why *why)
{
    DIR *d = opendir(model_dir);
    if (!d)
        return err_set(why, ERR_IO, "cannot open %s: %s", model_dir, strerror(errno));
    enum err e = ERR_OK;
    const struct dirent *entry = NULL;
    while (e == ERR_OK && (entry = readdir(d)) != NULL) {
        char from[PEER_PATH_BYTES + 300], to[PEER_PATH_BYTES + 300], *text = NULL;
        struct stat st;
        size_t n = 0;
        const bool config = strstr(entry->d_name, "config.json") == entry->d_name ||
                            strcmp(entry->d_name, "generation_config.json") == 0;
        if (!carried(entry->d_name) || (adapter && config)) /* an adapter has its base model's */
            continue;
        (void)snprintf(from, sizeof from, "%s/%s", model_dir, entry->d_name);
        (void)snprintf(to, sizeof to, "%s/%s", out_dir, entry->d_name);
        if (stat(from, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (strcmp(entry->d_name, "config.json") == 0) {
            e = write_config(from, to, dtype, why);
            continue;
        }
        e = peer_read_file(&text, &n, from, (size_t)1 << 30, why);
        if (e == ERR_OK)
            e = peer_write_file(to, text, n, 0644, why);
        free(text);
    }
    closedir(d);
    return e;
}

enum err peer_export_as(const struct peer_engine *e, const char *model_dir, const char *out_dir,
                        const struct peer_export_options *o, struct err_why *why)
{
    struct stat a, b;
    struct zo_lora lora;
    ENSURE(e->state != NULL);
    TRY(zo_lora_parse(&lora, e->manifest->trainable, why));
    if (strlen(out_dir) >= PEER_PATH_BYTES || strlen(model_dir) >= PEER_PATH_BYTES)
        return err_set(why, ERR_RANGE, "path too long");
    if (mkdir(out_dir, 0755) != 0 && errno != EEXIST)
        return err_set(why, ERR_IO, "cannot make the folder %s: %s", out_dir, strerror(errno));
    if (stat(out_dir, &a) != 0 || !S_ISDIR(a.st_mode))
        return err_set(why, ERR_IO, "%s is not a folder", out_dir);
    if (stat(model_dir, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return err_set(why, ERR_RANGE, "--out is the base model's own folder: give another one");
    const bool adapter = lora.r > 0 && !o->merged;
    TRY(carry_files(model_dir, out_dir, adapter, o->dtype, why));
    return adapter ? write_adapter(e, model_dir, out_dir, &lora, o->dtype, why)
                   : write_weights(e, out_dir, o, why);
}

enum err peer_export(const struct peer_engine *e, const char *model_dir, const char *out_dir,
                     enum zo_dtype dtype, struct err_why *why)
{
    const struct peer_export_options o = {.dtype = dtype, .merged = true};
    return peer_export_as(e, model_dir, out_dir, &o, why);
}
