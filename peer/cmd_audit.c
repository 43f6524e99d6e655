/* onebyte audit: asks the running peer to measure another machine's records again; or verifies an evidence file. */
#include "peer/clock.h"
#include "peer/control.h"
#include "peer/evidence.h"
#include "peer/flags.h"
#include "peer/home.h"
#include "peer/json_out.h"
#include "peer/options.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

extern const struct peer_command peer_cmd_audit;

struct values {
    struct peer_common common;
    struct peer_flags flags;
    const char *machine, *verify, *manifest, *ledger, *data;
    uint64_t records;
    double wait;
};

/* ---- asking ---- */

static enum err ask(const struct values *v, json_t **result, struct err_why *why)
{
    struct peer_home home;
    json_t *reply = NULL;
    const double until = peer_now_s() + v->wait;
    TRY(peer_home_open(&home, v->common.home, false, why));
    if (!peer_home_running(&home))
        return err_set(why, ERR_NOTFOUND, "no peer runs in %s: an audit asks the record's author over the network, so start it first", home.dir);
    TRY(peer_control_call(home.dir, json_pack("{s:s, s:s, s:I}", "op", "audit", "machine", v->machine, "records", (json_int_t)v->records),
                          10000, &reply, why));
    for (json_decref(reply);; json_decref(reply)) {
        TRY(peer_control_call(home.dir, json_pack("{s:s}", "op", "audited"), 10000, &reply, why));
        if (!json_is_true(json_object_get(reply, "busy")))
            break;
        if (peer_now_s() > until) {
            json_decref(reply);
            return err_set(why, ERR_AGAIN, "not done after %g s (the peer goes on: onebyte status shows it)", v->wait);
        }
        nanosleep(&(const struct timespec){.tv_nsec = 100000000}, NULL);
    }
    *result = reply;
    return ERR_OK;
}

static int report(const struct values *v, json_t *o)
{
    const json_t *files = json_object_get(o, "evidence"), *reason;
    const char *name;
    if (v->common.json)
        return peer_json_print(o);
    printf("machine      %s\naudited      %" JSON_INTEGER_FORMAT " records, %" JSON_INTEGER_FORMAT " off, %" JSON_INTEGER_FORMAT " unsure\n",
           json_string_value(json_object_get(o, "machine")), json_integer_value(json_object_get(o, "records")),
           json_integer_value(json_object_get(o, "off")), json_integer_value(json_object_get(o, "unsure")));
    json_object_foreach(json_object_get(o, "not_audited"), name, reason)
        if (json_integer_value(reason) > 0)
            printf("not audited  %" JSON_INTEGER_FORMAT " records: %s\n", json_integer_value(reason), name);
    for (size_t i = 0; i < json_array_size(files); i++)
        printf("evidence     %s\n", json_string_value(json_array_get(files, i)));
    if (json_array_size(files) > 0)
        printf("the run's owner retracts with: onebyte retract --machine %.16s --reason TEXT\n",
               json_string_value(json_object_get(o, "machine")));
    json_decref(o);
    return PEER_EXIT_OK;
}

/* ---- verifying ---- */

struct verifier {
    struct peer_home home;
    struct peer_manifest manifest;
    struct peer_engine engine;
    struct net_gossip *gossip;
    struct net_ledger *ledger;
    struct zo_dataset *data;
    struct peer_evidence evidence;
    char model_dir[PEER_PATH_BYTES], data_path[PEER_PATH_BYTES], verified[PEER_PATH_BYTES];
    size_t off;
};

/* What the options do not name is the home's, or what `init` found beside the manifest. */
static void place(char out[PEER_PATH_BYTES], const char *given, const char *key, const struct values *v, const struct peer_home *h)
{
    out[0] = 0;
    if (given)
        (void)snprintf(out, PEER_PATH_BYTES, "%s", given);
    else if (h)
        peer_home_get(h, key, out);
    if (!out[0] && v->manifest)
        peer_paths_get(v->manifest, key, out);
}

static enum err load_ledger(struct verifier *x, const struct values *v, struct err_why *why)
{
    static const uint8_t nobody[32] = {0};
    char path[PEER_PATH_BYTES];
    struct peer_loaded loaded;
    bool fresh = false;
    const enum err e = net_gossip_new(&x->gossip, &x->manifest.net, nobody, 0);
    if (e != ERR_OK)
        return err_set(why, e, "cannot load the run: %s", err_str(e));
    if (v->ledger)
        return peer_load_portable(x->gossip, v->ledger, &x->manifest, NULL, NULL, NULL, &loaded, why);
    TRY(net_ledger_open(&x->ledger, peer_home_path(&x->home, "ledger.db", path), x->manifest.run_id, nobody, true, &fresh, why));
    TRY(peer_load_ledger(x->gossip, x->ledger, &x->manifest, NULL, NULL, NULL, &loaded, why));
    const enum err kept = peer_branches_ledger(&x->evidence.branches, x->ledger); /* beside those that the file brings */
    return kept == ERR_OK ? kept : err_set(why, kept, "cannot read the ledger: %s", err_str(kept));
}

static enum err verify(struct verifier *x, const struct values *v, struct err_why *why)
{
    const bool with_home = v->common.home || !v->ledger || !v->manifest;
    const struct peer_home *h = with_home ? &x->home : NULL;
    TRY(peer_evidence_load(&x->evidence, v->verify, why));
    if (h)
        TRY(peer_home_open(&x->home, v->common.home, false, why));
    TRY(v->manifest ? peer_manifest_load(&x->manifest, v->manifest, why) : peer_home_manifest(h, &x->manifest, why));
    TRY(peer_evidence_check(&x->evidence, &x->manifest.net, why));
    place(x->model_dir, v->flags.model, "model", v, h);
    place(x->data_path, v->data, "data", v, h);
    if (!x->model_dir[0] || !x->data_path[0])
        return err_set(why, ERR_NOTFOUND, "give the base model's folder and the run's data: --model DIR --data FILE");
    if (!x->manifest.public_data)
        return err_set(why, ERR_PROTO, "this run's data is private: there is no evidence about its records");
    TRY(peer_manifest_check_data(&x->manifest.data, x->data_path, why));
    TRY(load_ledger(x, v, why));
    struct peer_engine_options o = peer_flags_engine(&v->flags, h, x->verified);
    o.model_dir = x->model_dir;
    TRY(peer_engine_open(&x->engine, &x->manifest, &o, why));
    TRY(peer_engine_data(&x->engine, &x->data, x->data_path, why));
    TRY(peer_evidence_verify(&x->evidence, &x->engine, x->data, x->gossip, &x->off, why));
    return x->off || x->evidence.header ? ERR_OK : err_set(why, ERR_PROTO, "no record of it is off: this is no evidence against the machine");
}

static json_t *findings(const struct verifier *x)
{
    static const char *const words[] = {[PEER_AGREES] = "agrees", [PEER_OFF] = "off", [PEER_UNSURE] = "unsure"};
    json_t *list = json_array();
    for (size_t i = 0; i < x->evidence.n_records; i++) {
        const struct peer_finding *f = &x->evidence.records[i];
        json_array_append_new(list, json_pack("{s:I, s:i, s:o, s:o, s:o, s:s}", "seq", (json_int_t)f->seq, "code", f->code, "want",
                                              peer_json_real(f->want), "tolerance", peer_json_real(f->tolerance), "loss",
                                              peer_json_real(f->loss), "verdict", words[f->verdict]));
    }
    return list;
}

static int report_verified(const struct values *v, const struct verifier *x)
{
    char hex[65];
    net_hex(hex, x->evidence.machine, 32);
    if (v->common.json)
        return peer_json_print(json_pack("{s:b, s:s, s:I, s:I, s:s?, s:o}", "confirmed", 1, "machine", hex, "first_seq",
                                         (json_int_t)x->evidence.segment.first_seq, "off", (json_int_t)x->off, "header", x->evidence.header, "records", findings(x)));
    for (size_t i = 0; i < x->evidence.n_records; i++) {
        const struct peer_finding *f = &x->evidence.records[i];
        printf("record %-8" PRIu64 " sent %4d, measured %8.3f, tolerance %.3f%s\n", f->seq, f->code, f->want, f->tolerance,
               f->verdict == PEER_OFF ? "  OFF" : "");
    }
    if (x->evidence.header)
        printf("confirmed: machine %s: of segment %" PRIu64 ": %s\n", hex, x->evidence.segment.first_seq, x->evidence.header);
    if (x->off)
        printf("confirmed: machine %s sent %zu of these %zu bytes without having measured them\n", hex, x->off, x->evidence.n_records);
    return PEER_EXIT_OK;
}

static void verifier_release(struct verifier *x)
{
    zo_dataset_free(x->data);
    peer_engine_close(&x->engine);
    net_gossip_free(x->gossip);
    net_ledger_close(x->ledger);
    peer_evidence_free(&x->evidence);
    peer_manifest_free(&x->manifest);
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct err_why why = {{0}};
    json_t *result = NULL;
    (void)args;
    (void)n_args;
    if (!v->machine == !v->verify) {
        (void)err_set(&why, ERR_RANGE, "audit needs --machine ID, or --verify FILE");
        return peer_usage(&peer_cmd_audit, &why);
    }
    if (v->machine)
        return ask(v, &result, &why) == ERR_OK ? report(v, result) : peer_fail(&why);
    struct verifier x = {.off = 0};
    const int code = verify(&x, v, &why) == ERR_OK ? report_verified(v, &x) : peer_fail(&why);
    verifier_release(&x);
    return code;
}

static void defaults(void *values)
{
    struct values *v = values;
    v->records = 64;
    v->wait = 600;
}

static const struct peer_option options[] = {
    {"machine", PEER_TEXT, offsetof(struct values, machine), "ID", "whose records: its id, or the first digits of it", 0, 0},
    {"records", PEER_U64, offsetof(struct values, records), "N", "how many to measure again (default: 64)", 1, 1000000},
    {"wait", PEER_F64, offsetof(struct values, wait), "SECONDS", "for the result (default: 600)", 1, 86400},
    {"verify", PEER_TEXT, offsetof(struct values, verify), "FILE", "repeat what an evidence file says", 0, 0},
    {"manifest", PEER_TEXT, offsetof(struct values, manifest), "FILE", "with --verify: the run's manifest (default: the home's)", 0, 0},
    {"ledger", PEER_TEXT, offsetof(struct values, ledger), "FILE",
     "with --verify: a ledger written by onebyte log --export (default: the home's)", 0, 0},
    {"data", PEER_TEXT, offsetof(struct values, data), "FILE", "with --verify: the run's public data (default: the home's)", 0, 0},
    PEER_FLAG_ROWS(struct values, flags, "with --verify: the run's base model (default: the home's)"),
};

const struct peer_command peer_cmd_audit = {
    .name = "audit",
    .args = "",
    .summary = "measure another machine's records again, and show what it did not measure",
    .details = "In runs on public data. The peer running in the home asks the author at which state each segment was measured (it "
               "signs its answer), rebuilds that state exactly, measures some records again, and compares the bytes. A byte that no "
               "honest machine sends goes into a file from which anyone repeats it (--verify: exit code 0 if it is confirmed). No "
               "answer is no evidence: it is shown and counted as not audited. The run's owner decides (onebyte retract).",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .defaults = defaults,
    .run = run,
};
