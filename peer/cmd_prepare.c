#include "peer/json_out.h"
#include "peer/manifest.h"
#include "peer/options.h"
#include <errno.h>
#include <inttypes.h>
#include <onebyte/zo/prepare.h>
#include <string.h>

extern const struct peer_command peer_cmd_prepare;

struct values {
    struct peer_common common;
    const char *task, *out;
    uint64_t limit, seed;
};

/* Writes beside `path` first, so that a failure leaves what was there. */
static enum err write_file(uint64_t *n, const struct values *v, const char *input, struct err_why *why)
{
    char part[4096];
    if (snprintf(part, sizeof part, "%s.part", v->out) >= (int)sizeof part)
        return err_set(why, ERR_RANGE, "%s: path too long", v->out);
    TRY(peer_check_out(v->out, why));
    FILE *f = fopen(part, "wb");
    if (!f)
        return err_set(why, ERR_IO, "%s: %s", part, strerror(errno));
    enum err e = zo_prepare(f, n, v->task, input, v->limit, v->seed, why);
    if (fclose(f) != 0 && e == ERR_OK)
        e = err_set(why, ERR_IO, "%s: %s", part, strerror(errno));
    if (e == ERR_OK && rename(part, v->out) != 0)
        e = err_set(why, ERR_IO, "%s: %s", v->out, strerror(errno));
    if (e != ERR_OK)
        (void)remove(part);
    return e;
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct err_why why = {{0}};
    uint64_t n = 0;
    (void)n_args;
    if (!v->task || (v->common.json && !v->out)) {
        (void)err_set(&why, ERR_RANGE, v->task ? "with --json the examples need --out FILE"
                                               : "prepare needs --task " ZO_PREPARE_TASKS);
        return peer_usage(&peer_cmd_prepare, &why);
    }
    if (!v->out)
        return zo_prepare(stdout, &n, v->task, args[0], v->limit, v->seed, &why) == ERR_OK ? PEER_EXIT_OK
                                                                                           : peer_fail(&why);
    if (write_file(&n, v, args[0], &why) != ERR_OK)
        return peer_fail(&why);
    if (v->common.json)
        return peer_json_print(json_pack("{s:s, s:s, s:I}", "task", v->task, "out", v->out, "examples", (json_int_t)n));
    printf("%s: %" PRIu64 " examples\n", v->out, n);
    return PEER_EXIT_OK;
}

static const struct peer_option options[] = {
    {"task", PEER_CHOICE, offsetof(struct values, task), ZO_PREPARE_TASKS, "what the file holds", 0, 0},
    {"out", PEER_TEXT, offsetof(struct values, out), "FILE", "JSONL file to write (default: standard output)", 0, 0},
    {"limit", PEER_U64, offsetof(struct values, limit), "N", "draw this many examples (default: all)", 0, 0},
    {"seed", PEER_U64, offsetof(struct values, seed), "N", "what the draw depends on (default: 0)", 0, 0},
};

const struct peer_command peer_cmd_prepare = {
    .name = "prepare",
    .args = "FILE",
    .args_min = 1,
    .args_max = 1,
    .summary = "turn a task's file (SST-2, RTE, CB, BoolQ, COPA, TREC, GSM8K) into JSONL",
    .details = "FILE is JSONL or tab-separated with a header, as GLUE and SuperGLUE give them. The prompts are MeZO's.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .run = run,
};
