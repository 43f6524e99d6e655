#include "peer/export.h"
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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

static enum err write_weights(const struct peer_engine *e, const char *out_dir, enum zo_dtype dtype,
                              struct err_why *why)
{
    const struct zo_ckpt *ckpt = zo_model_ckpt(e->model);
    const struct zo_rules *rules = &e->manifest->rules;
    char path[PEER_PATH_BYTES + 32];
    struct origin *origins = calloc(ckpt->n, sizeof *origins);
    struct zo_ckpt_source *sources = calloc(ckpt->n, sizeof *sources);
    enum err code = origins && sources ? ERR_OK : err_set(why, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < ckpt->n && code == ERR_OK; i++) {
        const struct zo_ckpt_tensor *c = &ckpt->tensors[i];
        const int64_t t = trained(rules, c->name);
        origins[i] = (struct origin){e, t >= 0 ? t : tied(ckpt, rules, c), c};
        sources[i] = (struct zo_ckpt_source){c->name, c->n_dims, c->dims, read_origin, &origins[i]};
    }
    (void)snprintf(path, sizeof path, "%s/model.safetensors", out_dir);
    if (code == ERR_OK)
        code = zo_ckpt_write(path, sources, ckpt->n, dtype, why);
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

static enum err carry_files(const char *model_dir, const char *out_dir, enum zo_dtype dtype,
                            struct err_why *why)
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
        if (!carried(entry->d_name))
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

enum err peer_export(const struct peer_engine *e, const char *model_dir, const char *out_dir,
                     enum zo_dtype dtype, struct err_why *why)
{
    struct stat a, b;
    ENSURE(e->state != NULL);
    if (strlen(out_dir) >= PEER_PATH_BYTES || strlen(model_dir) >= PEER_PATH_BYTES)
        return err_set(why, ERR_RANGE, "path too long");
    if (mkdir(out_dir, 0755) != 0 && errno != EEXIST)
        return err_set(why, ERR_IO, "cannot make the folder %s: %s", out_dir, strerror(errno));
    if (stat(out_dir, &a) != 0 || !S_ISDIR(a.st_mode))
        return err_set(why, ERR_IO, "%s is not a folder", out_dir);
    if (stat(model_dir, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return err_set(why, ERR_RANGE, "--out is the base model's own folder: give another one");
    TRY(carry_files(model_dir, out_dir, dtype, why));
    return write_weights(e, out_dir, dtype, why);
}
