#include "peer/home.h"
#include "peer/json_out.h"
#include "peer/options.h"
#include <inttypes.h>
#include <math.h>
#include <onebyte/net/control.h>
#include <onebyte/net/ledger.h>
#include <onebyte/net/score.h>
#include <onebyte/zo/codec.h>
#include <string.h>
#include <time.h>

extern const struct peer_command peer_cmd_log;

struct values {
    struct peer_common common;
    const char *machine, *export_path;
    bool codes;
};

struct printer {
    const struct values *v;
    uint64_t rows;
    bool failed;
};

static void print_time(char out[32], int64_t unix_ms)
{
    const time_t s = (time_t)(unix_ms / 1000);
    struct tm tm;
    (void)snprintf(out, 32, "-");
    if (gmtime_r(&s, &tm))
        (void)strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static json_t *segment_json(const struct net_segment *s, const char *machine, int64_t unix_ms,
                            size_t bytes, bool codes)
{
    json_t *o = json_pack("{s:s, s:s, s:I, s:i, s:I, s:I, s:o, s:o, s:I, s:I}", "kind", "segment",
                          "machine", machine, "first_seq", (json_int_t)s->first_seq, "count",
                          (int)s->count, "step", (json_int_t)s->step, "lag", (json_int_t)s->lag,
                          "loss", peer_json_real(zo_f16_to_double(s->loss_f16)), "r",
                          peer_json_real(zo_f16_to_double(s->r_f16)), "bytes", (json_int_t)bytes,
                          "unix_ms", (json_int_t)unix_ms);
    json_t *list = codes && o ? json_array() : NULL;
    for (size_t i = 0; list && i < s->count; i++)
        (void)json_array_append_new(list, json_integer(s->codes[i]));
    if (list)
        (void)json_object_set_new(o, "codes", list);
    return o;
}

static bool print_segment(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n,
                          int64_t unix_ms)
{
    struct printer *p = ctx;
    struct net_segment s;
    char hex[65], when[32];
    net_hex(hex, machine, 32);
    if (p->v->machine && strncmp(hex, p->v->machine, strlen(p->v->machine)) != 0)
        return true;
    if (net_segment_parse(&s, wire, n) != ERR_OK)
        return true; /* the ledger checks its rows: this one would not have been given */
    p->rows++;
    if (p->v->common.json)
        return !(p->failed = peer_json_print(segment_json(&s, hex, unix_ms, n, p->v->codes)) !=
                             PEER_EXIT_OK);
    print_time(when, unix_ms);
    return !(p->failed = printf("%s  %.8s  records %" PRIu64 "..%" PRIu64 "  step %" PRIu32
                                "  lag %" PRIu32 "  loss %.5g  r %.4g  %zu bytes\n",
                                when, hex, s.first_seq, s.first_seq + s.count - 1, s.step, s.lag,
                                zo_f16_to_double(s.loss_f16), zo_f16_to_double(s.r_f16), n) < 0);
}

static bool print_score(struct printer *p, const struct net_score *s)
{
    char hex[65];
    const double loss = ldexp((double)s->nats, -NET_SCORE_NATS_BITS) / (double)s->terms;
    net_hex(hex, s->machine, 32);
    if (p->v->machine && strncmp(hex, p->v->machine, strlen(p->v->machine)) != 0)
        return true;
    p->rows++;
    if (p->v->common.json)
        return !(p->failed = peer_json_print(json_pack("{s:s, s:s, s:I, s:I, s:i, s:o, s:I, s:I}", "kind", "score", "machine", hex,
                                                       "number", (json_int_t)s->number, "step", (json_int_t)s->step, "part",
                                                       (int)s->part, "loss", peer_json_real(loss), "terms",
                                                       (json_int_t)s->terms, "finite", (json_int_t)s->finite)) !=
                             PEER_EXIT_OK);
    return !(p->failed = printf("%-20s  %.8s  score of checkpoint %" PRIu64 " part %" PRIu32 ": loss %.6g over %" PRIu64
                                " terms, self-reported\n",
                                "-", hex, s->number, s->part, loss, s->terms) < 0);
}

static bool print_control(void *ctx, const uint8_t *frame, size_t n)
{
    static const char *const names[] = {"", "retract", "fork", "admit", "checkpoint"};
    struct printer *p = ctx;
    struct net_control c;
    struct net_score score;
    char hex[65];
    if (net_score_parse(&score, frame, n) == ERR_OK)
        return print_score(p, &score);
    if (net_control_parse(&c, frame, n) != ERR_OK)
        return true;
    const bool of_machine = c.kind != NET_CHECKPOINT;
    net_hex(hex, of_machine ? c.machine : c.frontier, 32);
    if (p->v->machine && (!of_machine || strncmp(hex, p->v->machine, strlen(p->v->machine)) != 0))
        return true;
    const uint64_t number = of_machine ? c.seq : c.number;
    p->rows++;
    if (p->v->common.json)
        return !(p->failed = peer_json_print(json_pack("{s:s, s:s, s:I}", "kind", names[c.kind],
                                                       of_machine ? "machine" : "frontier", hex,
                                                       of_machine ? "seq" : "number",
                                                       (json_int_t)number)) != PEER_EXIT_OK);
    return !(p->failed = printf("%-20s  %.8s  %s %s %" PRIu64 "\n", "-", hex, names[c.kind],
                                of_machine ? "from record" : "number", number) < 0);
}

static enum err print_all(struct net_ledger *ledger, const struct values *v, int *code)
{
    struct printer p = {.v = v};
    enum err e = net_ledger_each(ledger, print_segment, &p);
    if (e == ERR_OK && !p.failed)
        e = net_ledger_each_control(ledger, print_control, &p);
    *code = p.failed ? PEER_EXIT_FAILED : PEER_EXIT_OK;
    return e;
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    static const uint8_t nobody[32] = {0};
    struct err_why why = {{0}};
    struct peer_home home;
    struct peer_manifest manifest = {0};
    struct net_ledger *ledger = NULL;
    char path[PEER_PATH_BYTES];
    bool fresh = false;
    int code = PEER_EXIT_OK;
    (void)args;
    (void)n_args;
    if ((v->export_path && (v->machine || v->codes)) || (v->codes && !v->common.json)) {
        (void)err_set(&why, ERR_RANGE, v->export_path ? "--export writes the whole ledger: leave out --machine and --codes" : "--codes needs --json");
        return peer_usage(&peer_cmd_log, &why);
    }
    if (v->machine && (v->machine[0] == '\0' || v->machine[strspn(v->machine, "0123456789abcdef")] != '\0')) {
        (void)err_set(&why, ERR_RANGE, "--machine '%.70s' is no id: give its first hexadecimal digits (status shows them)", v->machine);
        return peer_usage(&peer_cmd_log, &why);
    }
    enum err e = peer_home_open(&home, v->common.home, false, &why);
    if (e == ERR_OK)
        e = peer_home_manifest(&home, &manifest, &why);
    if (e == ERR_OK)
        e = net_ledger_open(&ledger, peer_home_path(&home, "ledger.db", path), manifest.run_id,
                            nobody, true, &fresh, &why);
    if (e == ERR_OK && v->export_path) {
        e = peer_check_out(v->export_path, &why);
        if (e == ERR_OK)
            e = net_ledger_export(ledger, v->export_path, &why);
        if (e == ERR_OK && v->common.json)
            code = peer_json_print(json_pack("{s:s, s:o}", "exported", v->export_path, "run_id",
                                             peer_json_hex(manifest.run_id, 32)));
        else if (e == ERR_OK)
            printf("exported to %s\n", v->export_path);
    } else if (e == ERR_OK) {
        e = print_all(ledger, v, &code);
        if (e != ERR_OK)
            (void)err_set(&why, e, "cannot read the ledger: %s", err_str(e));
        else
            e = net_ledger_sound(ledger, &why);
    }
    if (e != ERR_OK)
        code = peer_fail(&why);
    net_ledger_close(ledger);
    peer_manifest_free(&manifest);
    return code;
}

static const struct peer_option options[] = {
    {"export", PEER_TEXT, offsetof(struct values, export_path), "FILE",
     "write the whole ledger as one portable file for onebyte replay --ledger", 0, 0},
    {"machine", PEER_TEXT, offsetof(struct values, machine), "ID",
     "only this machine: the first digits of its id", 0, 0},
    {"codes", PEER_FLAG, offsetof(struct values, codes), NULL, "with --json: every record's byte",
     0, 0},
};

const struct peer_command peer_cmd_log = {
    .name = "log",
    .args = "",
    .summary = "print the ledger: every segment and control event a peer holds",
    .details = "One line per segment, by machine and record; with --json one object per line. The "
               "peer may be running.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .run = run,
};
