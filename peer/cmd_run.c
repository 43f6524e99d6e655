/* onebyte run: the peer. */
#include "peer/daemon.h"
#include "peer/device.h"
#include "peer/flags.h"
#include "peer/invite.h"
#include "peer/join.h"
#include "peer/json_out.h"
#include "peer/log.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct values {
    struct peer_common common;
    struct peer_flags flags;
    const char *listen, *data, *eval_data, *log_level, *log_format;
    struct peer_list connect;
    uint64_t batch, segment, snapshot, checkpoint;
    double seal, linger, drain;
    bool relay, paused;
    struct peer_host_limits host;
    const char *battery, *hours, *device, *precision;
    uint64_t metrics;
};

/* Everything a peer needs from the disk. */
struct setup {
    struct peer_home home;
    struct peer_manifest manifest;
    struct peer_engine engine;
    struct zo_dataset *data;
    struct peer_host_limits host;
    char model_dir[PEER_PATH_BYTES], data_path[PEER_PATH_BYTES], eval_path[PEER_PATH_BYTES], address[256];
    const char *connect[PEER_LIST_MAX + 1];
    size_t n_connect;
};

enum { METRICS_OFF = 65536 }; /* no port */
enum { KEYS_MAX = 3 }; /* new keys in one start: more would be a bug or a disk that forgets */

static void defaults(void *values)
{
    struct values *v = values;
    v->linger = 2;
    v->drain = 60;
    v->snapshot = 65536;
    v->metrics = METRICS_OFF;
}

static bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool is_model(const char *dir)
{
    char path[PEER_PATH_BYTES + 16];
    snprintf(path, sizeof path, "%s/config.json", dir);
    return dir[0] && is_file(path);
}

static void folder_of(char out[PEER_PATH_BYTES], const char *path)
{
    snprintf(out, PEER_PATH_BYTES, "%s", path);
    char *slash = strrchr(out, '/');
    if (slash)
        *slash = 0;
    else
        snprintf(out, PEER_PATH_BYTES, ".");
}

/* The manifest: from a file, from the home, or from the peer an invite names. */
static enum err find_manifest(struct setup *s, const char *arg, struct err_why *why)
{
    struct peer_invite invite;
    struct peer_manifest own = {.text = NULL};
    if (!arg)
        return peer_home_manifest(&s->home, &s->manifest, why);
    if (!peer_invite_is(arg)) {
        TRY(peer_manifest_load(&s->manifest, arg, why));
        return peer_home_adopt(&s->home, &s->manifest, why);
    }
    TRY(peer_invite_parse(&invite, arg, why));
    char hex[65];
    net_hex(hex, invite.key, 32);
    snprintf(s->address, sizeof s->address, "%s%s%s", invite.address, invite.has_key ? "?key=" : "", invite.has_key ? hex : "");
    s->connect[s->n_connect++] = s->address;
    if (peer_home_manifest(&s->home, &own, why) == ERR_OK) {
        if (memcmp(own.run_id, invite.run_id, 32) == 0) {
            s->manifest = own;
            return ERR_OK;
        }
        peer_manifest_free(&own);
        return err_set(why, ERR_BUSY, "%s belongs to another run; name another folder with --home", s->home.dir);
    }
    TRY(peer_join_manifest(&s->home, s->connect, s->n_connect, invite.run_id, &s->manifest, why));
    return peer_home_adopt(&s->home, &s->manifest, why);
}

/* The base model: --model, what this home used last, what `init` noted, the manifest's own folder, else from peers. */
static enum err find_model(struct setup *s, const struct values *v, const char *arg, struct err_why *why)
{
    const bool file = arg && !peer_invite_is(arg);
    char dir[PEER_PATH_BYTES] = "";
    if (v->flags.model)
        snprintf(dir, sizeof dir, "%s", v->flags.model);
    if (!dir[0])
        peer_home_get(&s->home, "model", dir);
    if (!dir[0] && file)
        peer_paths_get(arg, "model", dir);
    if (!dir[0] && file) {
        folder_of(dir, arg);
        if (!is_model(dir))
            dir[0] = 0;
    }
    if (!dir[0]) {
        peer_home_path(&s->home, "model", dir);
        if (!is_model(dir) && s->n_connect == 0)
            return err_set(why, ERR_NOTFOUND, "where is the base model? --model DIR, or --connect ADDR to fetch it from a peer");
        TRY(peer_join_model(&s->home, s->connect, s->n_connect, &s->manifest, dir, why));
    }
    return peer_absolute(s->model_dir, dir, why);
}

/* The examples: --data, else as for the model; none is fine (relay only). */
static enum err find_data(struct setup *s, const struct values *v, const char *arg, struct err_why *why)
{
    const bool file = arg && !peer_invite_is(arg);
    char path[PEER_PATH_BYTES] = "";
    if (v->relay)
        return ERR_OK;
    if (v->data)
        snprintf(path, sizeof path, "%s", v->data);
    if (!path[0])
        peer_home_get(&s->home, "data", path);
    if (!path[0] && file)
        peer_paths_get(arg, "data", path);
    if (!path[0])
        return ERR_OK;
    if (s->manifest.public_data)
        TRY(peer_manifest_check_data(&s->manifest.data, path, why));
    return peer_absolute(s->data_path, path, why);
}

/* The run's eval set, to score checkpoints on.  One that is named must be it; one that is only remembered may be gone. */
static enum err find_eval(struct setup *s, const struct values *v, const char *arg, struct err_why *why)
{
    char path[PEER_PATH_BYTES] = "";
    struct err_why gone;
    if (v->eval_data && !s->manifest.eval_data.present)
        return err_set(why, ERR_RANGE, "--eval-data: this run has no eval set (init --eval-data)");
    if (v->eval_data)
        snprintf(path, sizeof path, "%s", v->eval_data);
    if (!path[0] && arg && !peer_invite_is(arg))
        peer_paths_get(arg, "eval_data", path);
    if (!path[0])
        peer_home_get(&s->home, "eval_data", path);
    if (!path[0] || !s->manifest.eval_data.present || (v->relay && !v->eval_data))
        return ERR_OK;
    if (peer_manifest_check_data(&s->manifest.eval_data, path, v->eval_data ? why : &gone) != ERR_OK) {
        if (v->eval_data)
            return ERR_FORMAT;
        char quoted[sizeof gone.text];
        peer_log_quote(quoted, sizeof quoted, gone.text);
        peer_log(PEER_WARN, "eval", "reason=\"%s\" consequence=\"this peer scores no checkpoints\"", quoted);
        return ERR_OK;
    }
    TRY(peer_absolute(s->eval_path, path, why));
    return peer_home_set(&s->home, "eval_data", s->eval_path, why);
}

/* Opens model and data; then this home remembers them: a mistyped --model must not replace the one that works. */
static enum err open_engine(struct setup *s, const struct values *v, struct err_why *why)
{
    char verified[PEER_PATH_BYTES];
    struct peer_engine_options o = peer_flags_engine(&v->flags, &s->home, verified);
    o.model_dir = s->model_dir;
    o.device = v->device ? v->device : "auto";
    o.precision = v->precision;
    TRY(peer_engine_open(&s->engine, &s->manifest, &o, why));
    if (s->data_path[0]) {
        TRY(peer_check_regular(s->data_path, why));
        TRY(peer_engine_data(&s->engine, &s->data, s->data_path, why));
        TRY(peer_home_set(&s->home, "data", s->data_path, why));
    }
    return peer_home_set(&s->home, "model", s->model_dir, why);
}

static void close_engine(struct setup *s)
{
    zo_dataset_free(s->data);
    s->data = NULL;
    peer_engine_close(&s->engine);
    memset(&s->engine, 0, sizeof s->engine);
}

static enum err set_up(struct setup *s, const struct values *v, const char *arg, struct err_why *why)
{
    enum peer_level level = PEER_INFO;
    char log[PEER_PATH_BYTES];
    if (v->relay && v->data)
        return err_set(why, ERR_RANGE, "--relay measures nothing: leave out --data, or --relay");
    s->host = v->host;
    s->host.off_on_battery = v->battery && strcmp(v->battery, "never") == 0;
    if (v->hours)
        TRY(peer_host_hours(&s->host, v->hours, why));
    TRY(peer_host_apply(&s->host, v->flags.threads ? (size_t)v->flags.threads : peer_threads_default(), why));
    for (size_t i = 0; i < v->connect.n; i++)
        s->connect[s->n_connect++] = v->connect.items[i];
    TRY(peer_home_open(&s->home, v->common.home, true, why));
    TRY(peer_home_lock(&s->home, why));
    TRY(peer_device_check(v->device, why));
    if (v->log_level && !peer_log_level(&level, v->log_level))
        return err_set(why, ERR_RANGE, "--log-level takes error, warn, info or debug");
    peer_log_start(level, v->log_format && strcmp(v->log_format, "json") == 0, false, peer_home_path(&s->home, "log", log));
    TRY(find_manifest(s, arg, why));
    TRY(find_model(s, v, arg, why));
    TRY(find_data(s, v, arg, why));
    return find_eval(s, v, arg, why);
}

static int report(const struct values *v, enum peer_daemon_end end, json_t *status)
{
    if (v->common.json)
        return peer_json_print(status);
    const json_t *records = json_object_get(status, "records");
    const char *digest = json_string_value(json_object_get(status, "digest"));
    printf("%s at step %" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT ": %" JSON_INTEGER_FORMAT " own records, %"
           JSON_INTEGER_FORMAT " folded, digest %s\n", end == PEER_END_FINISHED ? "finished" : "stopped",
           json_integer_value(json_object_get(status, "step")), json_integer_value(json_object_get(status, "steps")),
           json_integer_value(json_object_get(records, "own")), json_integer_value(json_object_get(records, "folded")),
           digest ? digest : "unknown");
    json_decref(status);
    return PEER_EXIT_OK;
}

/* One life of a key; a feed found beside or ahead of ours ends it, and a new key starts from the ledger. */
static enum peer_daemon_end live(struct setup *s, const struct values *v, json_t **status, struct err_why *why)
{
    enum peer_daemon_end end = PEER_END_FAILED;
    for (int keys = 0; keys < KEYS_MAX; keys++) {
        if (open_engine(s, v, why) != ERR_OK) {
            close_engine(s);
            return PEER_END_FAILED;
        }
        const struct peer_daemon_options o = {
            .home = &s->home, .manifest = &s->manifest, .engine = &s->engine, .data = s->data, .model_dir = s->model_dir,
            .eval_data = s->eval_path[0] ? s->eval_path : NULL,
            .listen = v->listen, .connect = s->connect, .n_connect = s->n_connect, .batch = (size_t)v->batch,
            .segment_max = (uint32_t)v->segment, .seal_s = v->seal, .linger_s = v->linger, .drain_s = v->drain,
            .memory = peer_engine_memory(&s->engine) == ZO_MEMORY_FAST ? "fast" : "lean", .paused = v->paused, .snapshot_every = v->snapshot,
            .checkpoint_every = v->checkpoint, .host = &s->host,
            .metrics = v->metrics == METRICS_OFF ? -1 : (int)v->metrics,
        };
        json_decref(*status);
        *status = NULL;
        end = peer_daemon_run(&o, status, why);
        close_engine(s);
        if (end != PEER_END_NEW_KEY)
            return end;
    }
    (void)err_set(why, ERR_IO, "this home needed %d new keys in a row; is it used on two machines?", KEYS_MAX);
    return PEER_END_FAILED;
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct setup *s = calloc(1, sizeof *s);
    struct err_why why = {{0}};
    json_t *status = NULL;
    int code;
    if (!s)
        return PEER_EXIT_FAILED;
    s->home.lock_fd = -1;
    enum peer_daemon_end end = PEER_END_FAILED;
    if (set_up(s, v, n_args ? args[0] : NULL, &why) == ERR_OK) {
        if (v->segment && v->segment % s->manifest.rules.k)
            (void)err_set(&why, ERR_RANGE, "--segment must be a multiple of K = %u of this run", s->manifest.rules.k);
        else
            end = live(s, v, &status, &why);
    }
    if (end == PEER_END_FAILED) {
        json_decref(status);
        code = peer_fail(&why);
    } else {
        code = report(v, end, status);
    }
    peer_log_stop();
    peer_manifest_free(&s->manifest);
    peer_home_release(&s->home);
    free(s);
    return code;
}

#define AT(member) offsetof(struct values, member)
static const struct peer_option options[] = {
    {"listen", PEER_TEXT, AT(listen), "HOST:PORT", "accept peers here, port 0 for any free one (default: dial out only)", 0, 0},
    {"connect", PEER_LIST, AT(connect), "HOST:PORT", "a peer to join by; may be given many times; retried for ever", 0, 0},
    {"data", PEER_TEXT, AT(data), "FILE", "JSONL examples to learn from (default: as in the last run; none: relay only)", 0, 0},
    {"eval-data", PEER_TEXT, AT(eval_data), "FILE", "the run's eval set, to score the owner's checkpoints on (default: as in the last run)", 0, 0},
    {"relay", PEER_FLAG, AT(relay), NULL, "measure nothing: only fold, store and pass on what others send", 0, 0},
    {"paused", PEER_FLAG, AT(paused), NULL, "measure only after `onebyte resume`", 0, 0},
    PEER_FLAG_ROWS(struct values, flags, "folder of the base model (default: as in the last run, or fetched from peers)"),
    {"device", PEER_TEXT, AT(device), "auto|cpu|cuda[:N]",
     "where to compute: auto takes a GPU if the CUDA plug-in finds one with memory enough (default: auto)", 0, 0},
    {"precision", PEER_CHOICE, AT(precision), "bf16|fp16|fp32", "of matrix products on a GPU (default: bf16)", 0, 0},
    {"batch", PEER_U64, AT(batch), "N", "examples per measuring call (default: grows until a call takes 0.2 s)", 1, 65536},
    {"segment", PEER_U64, AT(segment), "N", "records per segment, at most (default: the manifest's segment_max)", 1, LIMIT_SEGMENT_COUNT},
    {"seal", PEER_F64, AT(seal), "SECONDS", "send what was measured after this time at the latest (default: the manifest's)", 0.001, 3600},
    {"linger", PEER_F64, AT(linger), "SECONDS", "quiet time before leaving at the last step (default: 2)", 0, 86400},
    {"drain", PEER_F64, AT(drain), "SECONDS", "at most this long for neighbours to catch up at the end (default: 60)", 0, 86400},
    {"nice", PEER_U64, AT(host.nice), "LEVEL", "give way to other programs: 1 to 19 (default: as started)", 1, 19},
    {"max-memory", PEER_U64, AT(host.memory_mb), "MB", "the kernel refuses more (some MB per thread inside BLAS come on top); measuring calls shrink (default: no limit)", 64, 1e9},
    {"max-upload", PEER_U64, AT(host.upload), "KB/S", "kilobytes a second sent to all peers together (default: no limit)", 16, 1e9},
    {"max-download", PEER_U64, AT(host.download), "KB/S", "the same for what is received (default: no limit)", 16, 1e9},
    {"only-idle", PEER_FLAG, AT(host.only_idle), NULL, "measure only while other programs leave this machine alone", 0, 0},
    {"on-battery", PEER_CHOICE, AT(battery), "always|never", "measure on battery power (default: always)", 0, 0},
    {"hours", PEER_TEXT, AT(hours), "FROM-TO", "measure only in these hours of the local day, such as 22-6 (default: all)", 0, 0},
    {"metrics", PEER_U64, AT(metrics), "PORT", "status page and Prometheus metrics on http://127.0.0.1:PORT/ (default: off)", 0, 65535},
    {"checkpoint-every", PEER_U64, AT(checkpoint), "STEPS",
     "as the run's owner: sign the name of the state, for all to evaluate and export (default: never)", 1, UINT32_MAX},
    {"snapshot-every", PEER_U64, AT(snapshot), "RECORDS",
     "keep a snapshot for restarts and joiners, and start from one (default: 65536; 0: never)", 0, UINT64_C(1) << 40},
    {"log-level", PEER_CHOICE, AT(log_level), "error|warn|info|debug", "lines on stderr and in the home's log (default: info)", 0, 0},
    {"log-format", PEER_CHOICE, AT(log_format), "text|json", "key=value lines or JSON objects (default: text)", 0, 0},
};

const struct peer_command peer_cmd_run = {
    .name = "run",
    .args = "[MANIFEST|INVITE]",
    .args_min = 0,
    .args_max = 1,
    .summary = "take part in a run: measure, send, receive, fold",
    .details = "Runs in the foreground; SIGINT and SIGTERM leave cleanly. Without an argument the home's own run goes on. Stops by "
               "itself at the manifest's last step, once the neighbours hold its records and it theirs. A peer killed at any "
               "moment goes on from its ledger. With an invite (onebyte://HOST:PORT/RUNID) manifest and base model are "
               "fetched from peers and checked against the run id.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .defaults = defaults,
    .run = run,
};
