#include "peer/export.h"
#include "peer/flags.h"
#include "peer/json_out.h"
#include <inttypes.h>

extern const struct peer_command peer_cmd_export;

struct values {
    struct peer_common common;
    struct peer_flags flags;
    const char *out, *dtype, *checkpoint;
    double shard_mb;
    bool merged;
};

static int report(const struct values *v, const struct peer_home_state *s,
                  const struct peer_engine *e)
{
    char digest[17];
    const uint64_t step = peer_run_step(s->gossip, &s->manifest);
    peer_engine_digest(e, digest);
    if (v->common.json)
        return peer_json_print(json_pack(
            "{s:s, s:o, s:I, s:I, s:s, s:s}", "out", v->out, "run_id",
            peer_json_hex(s->manifest.run_id, 32), "step", (json_int_t)step, "records",
            (json_int_t)s->loaded.records, "digest", digest, "dtype", v->dtype ? v->dtype : "f32"));
    printf("%s: step %" PRIu64 ", %" PRIu64 " records, digest %s\n", v->out, step,
           s->loaded.records, digest);
    return PEER_EXIT_OK;
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct err_why why = {{0}};
    struct peer_home home;
    struct peer_engine engine = {0};
    struct peer_home_state state = {0};
    enum zo_dtype dtype = ZO_F32;
    char verified[PEER_PATH_BYTES];
    (void)args;
    (void)n_args;
    if (!v->out) {
        (void)err_set(&why, ERR_RANGE, "export needs --out DIR");
        return peer_usage(&peer_cmd_export, &why);
    }
    ENSURE(peer_export_dtype(&dtype, v->dtype ? v->dtype : "f32"));
    enum err e = peer_home_open(&home, v->common.home, false, &why);
    if (e == ERR_OK) {
        struct peer_engine_options o = peer_flags_engine(&v->flags, &home, verified);
        o.checkpoint = v->checkpoint;
        e = peer_home_state_open(&state, &home, &engine, &o, &why);
    }
    if (e == ERR_OK)
        e = peer_export_as(
            &engine, state.model_dir, v->out,
            &(struct peer_export_options){
                .dtype = dtype, .shard_bytes = (uint64_t)(v->shard_mb * 1e6), .merged = v->merged},
            &why);
    const int code = e == ERR_OK ? report(v, &state, &engine) : peer_fail(&why);
    peer_engine_close(&engine);
    peer_home_state_close(&state);
    return code;
}

static const struct peer_option options[] = {
    {"checkpoint", PEER_TEXT, offsetof(struct values, checkpoint), "N|last",
     "the state that the owner's checkpoint names (default: everything held)", 0, 0},
    {"out", PEER_TEXT, offsetof(struct values, out), "DIR", "folder to write", 0, 0},
    {"dtype", PEER_CHOICE, offsetof(struct values, dtype), "f32|f16|bf16",
     "type of the written weights (default: f32)", 0, 0},
    {"shard-size", PEER_F64, offsetof(struct values, shard_mb), "MB",
     "split larger weights into files of this size (default: 5000)", 0.001, 1e9},
    {"merged", PEER_FLAG, offsetof(struct values, merged), NULL,
     "of a run of adapters: the whole model with them added, not a PEFT adapter", 0, 0},
    PEER_FLAG_ROWS(struct values, flags,
                   "the run's base model (default: the folder saved in the home)"),
};

const struct peer_command peer_cmd_export = {
    .name = "export",
    .args = "",
    .summary = "write a home's current model as a Hugging Face folder",
    .details = "The folder holds model.safetensors and the base model's config and tokenizer "
               "files: transformers loads it. A run of adapters (init --trainable lora:..) is "
               "written as a PEFT adapter unless --merged is given. The peer may be running.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .run = run,
};
