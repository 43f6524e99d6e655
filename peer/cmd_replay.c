#include "peer/device.h"
#include "peer/export.h"
#include "peer/flags.h"
#include "peer/json_out.h"
#include <inttypes.h>

extern const struct peer_command peer_cmd_replay;

struct values {
    struct peer_common common;
    struct peer_flags flags;
    const char *manifest, *ledger, *out, *checkpoint;
};

struct replay {
    struct peer_manifest manifest;
    struct peer_engine engine;
    struct net_gossip *gossip;
    struct peer_loaded loaded;
    char model_dir[PEER_PATH_BYTES];
};

static enum err replay_open(struct replay *r, const struct values *v, const struct peer_home *home,
                            struct err_why *why)
{
    static const uint8_t nobody[32] = {0};
    char verified[PEER_PATH_BYTES];
    TRY(peer_device_check(v->flags.device, why));
    if (v->manifest)
        TRY(peer_manifest_load(&r->manifest, v->manifest, why));
    else
        TRY(peer_home_manifest(home, &r->manifest, why));
    if (v->flags.model)
        (void)snprintf(r->model_dir, sizeof r->model_dir, "%s", v->flags.model);
    if (r->model_dir[0] == '\0' && home)
        peer_home_get(home, "model", r->model_dir);
    if (r->model_dir[0] == '\0' && v->manifest)
        peer_paths_get(v->manifest, "model", r->model_dir);
    if (r->model_dir[0] == '\0')
        return err_set(why, ERR_RANGE, "replay needs the run's base model: --model DIR");
    struct peer_engine_options o = peer_flags_engine(&v->flags, home, verified);
    o.model_dir = r->model_dir;
    TRY(peer_engine_open(&r->engine, &r->manifest, &o, why));
    const enum err e = net_gossip_new(&r->gossip, &r->manifest.net, nobody, 0);
    return e == ERR_OK ? ERR_OK : err_set(why, e, "cannot load the run: %s", err_str(e));
}

static enum err replay_fold(struct replay *r, const struct values *v, const struct peer_home *home,
                            struct err_why *why)
{
    static const uint8_t nobody[32] = {0};
    char path[PEER_PATH_BYTES];
    struct net_ledger *ledger = NULL;
    bool fresh = false;
    if (v->ledger)
        return peer_load_portable(r->gossip, v->ledger, &r->manifest, &r->engine, peer_progress,
                                  "segments", &r->loaded, why);
    TRY(net_ledger_open(&ledger, peer_home_path(home, "ledger.db", path), r->manifest.run_id,
                        nobody, true, &fresh, why));
    const enum err e =
        v->checkpoint ? peer_load_checkpoint(r->gossip, ledger, home, v->checkpoint, &r->manifest,
                                             &r->engine, &r->loaded, why)
                      : peer_load_ledger(r->gossip, ledger, &r->manifest, &r->engine, peer_progress,
                                        "segments", &r->loaded, why);
    net_ledger_close(ledger);
    return e;
}

static int report(const struct values *v, const struct replay *r)
{
    uint8_t frontier[32];
    char digest[17], hex[65];
    const uint64_t step = peer_run_step(r->gossip, &r->manifest);
    net_gossip_frontier_digest(r->gossip, NET_ALL, frontier);
    net_hex(hex, frontier, 32);
    peer_engine_digest(&r->engine, digest);
    if (v->common.json) {
        json_t *o = json_pack(
            "{s:o, s:s, s:s, s:I, s:I, s:I, s:I}", "run_id", peer_json_hex(r->manifest.run_id, 32),
            "digest", digest, "frontier_digest", hex, "step", (json_int_t)step, "records",
            (json_int_t)r->loaded.records, "segments", (json_int_t)r->loaded.segments, "refused",
            (json_int_t)r->loaded.refused);
        if (v->out)
            (void)json_object_set_new(o, "out", json_string(v->out));
        return peer_json_print(o);
    }
    printf("digest    %s\nfrontier  %s\nstep      %" PRIu64 "\nrecords   %" PRIu64 " in %" PRIu64
           " segments\n",
           digest, hex, step, r->loaded.records, r->loaded.segments);
    if (r->loaded.refused)
        printf("refused   %" PRIu64 " segments that are not valid\n", r->loaded.refused);
    if (v->out)
        printf("model     %s\n", v->out);
    return PEER_EXIT_OK;
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct err_why why = {{0}};
    struct peer_home home;
    struct replay r = {0};
    (void)args;
    (void)n_args;
    if (v->ledger && v->checkpoint) {
        (void)err_set(&why, ERR_RANGE, "--checkpoint needs a home: an exported ledger has no frontiers");
        return peer_usage(&peer_cmd_replay, &why);
    }
    if (v->ledger && !v->manifest && !v->common.home) {
        (void)err_set(&why, ERR_RANGE, "replay --ledger needs --manifest FILE");
        return peer_usage(&peer_cmd_replay, &why);
    }
    const bool with_home = v->common.home || !v->ledger;
    enum err e = with_home ? peer_home_open(&home, v->common.home, false, &why) : ERR_OK;
    const struct peer_home *h = with_home ? &home : NULL;
    if (e == ERR_OK)
        e = replay_open(&r, v, h, &why);
    if (e == ERR_OK)
        e = replay_fold(&r, v, h, &why);
    if (e == ERR_OK && peer_engine_pull(&r.engine) != ERR_OK)
        e = err_set(&why, ERR_DEVICE, "the GPU is lost: %s", peer_engine_error(&r.engine, ERR_DEVICE));
    if (e == ERR_OK && v->out)
        e = peer_export(&r.engine, r.model_dir, v->out, ZO_F32, &why);
    const int code = e == ERR_OK ? report(v, &r) : peer_fail(&why);
    peer_engine_close(&r.engine);
    net_gossip_free(r.gossip);
    peer_manifest_free(&r.manifest);
    return code;
}

static const struct peer_option options[] = {
    {"checkpoint", PEER_TEXT, offsetof(struct values, checkpoint), "N|last",
     "the state that the owner's checkpoint names (default: everything held)", 0, 0},
    {"manifest", PEER_TEXT, offsetof(struct values, manifest), "FILE",
     "the run's manifest (default: the home's)", 0, 0},
    {"ledger", PEER_TEXT, offsetof(struct values, ledger), "FILE",
     "a ledger written by onebyte log --export (default: the home's ledger)", 0, 0},
    {"out", PEER_TEXT, offsetof(struct values, out), "DIR",
     "also write the model as a Hugging Face folder", 0, 0},
    PEER_FLAG_ROWS(struct values, flags,
                   "the run's base model (default: the folder saved in the home, or by init)"),
    PEER_FLAG_DEVICE_ROWS(struct values, flags),
};

const struct peer_command peer_cmd_replay = {
    .name = "replay",
    .args = "",
    .summary = "rebuild the model from the base model and a ledger, and print its digest",
    .details = "Every signature is checked again. The digest equals that of every peer which holds "
               "the same records.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .run = run,
};
