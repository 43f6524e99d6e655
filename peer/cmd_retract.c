#include "peer/control.h"
#include "peer/home.h"
#include "peer/json_out.h"
#include "peer/options.h"
#include <inttypes.h>
#include <onebyte/net/control.h>
#include <onebyte/net/ledger.h>
#include <stdlib.h>
#include <string.h>

extern const struct peer_command peer_cmd_retract, peer_cmd_admit;

struct values {
    struct peer_common common;
    const char *machine, *reason;
    uint64_t from;
};

/* The machine of the ledger whose id starts with `prefix`. */
struct search {
    const char *prefix;
    uint8_t found[32];
    size_t n;
};

static bool match(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n,
                  int64_t unix_ms)
{
    struct search *s = ctx;
    char hex[65];
    (void)wire;
    (void)n;
    (void)unix_ms;
    net_hex(hex, machine, 32);
    if (strncmp(hex, s->prefix, strlen(s->prefix)) != 0 ||
        (s->n > 0 && memcmp(s->found, machine, 32) == 0))
        return true;
    memcpy(s->found, machine, 32);
    s->n++;
    return true;
}

static enum err find_machine(uint8_t out[32], const char *text, const struct peer_home *h,
                             const struct peer_manifest *m, struct err_why *why)
{
    static const uint8_t nobody[32] = {0};
    struct search s = {.prefix = text};
    struct net_ledger *ledger = NULL;
    char path[PEER_PATH_BYTES];
    bool fresh = false;
    if (net_unhex(out, 32, text) == ERR_OK)
        return ERR_OK;
    TRY(net_ledger_open(&ledger, peer_home_path(h, "ledger.db", path), m->run_id, nobody, true,
                        &fresh, why));
    const enum err e = net_ledger_each(ledger, match, &s);
    net_ledger_close(ledger);
    if (e != ERR_OK)
        return err_set(why, e, "cannot read the ledger: %s", err_str(e));
    if (s.n != 1)
        return err_set(
            why, ERR_RANGE,
            "%zu machines of the ledger have an id that starts with '%.64s': give the whole id",
            s.n, text);
    memcpy(out, s.found, 32);
    return ERR_OK;
}

/* To the running peer, which gossips it; else into the ledger, from where the next run takes it. */
static enum err submit(struct peer_home *h, const struct peer_manifest *m,
                       const struct net_identity *self, const uint8_t *frame, size_t n,
                       bool *running, struct err_why *why)
{
    char hex[2 * NET_CONTROL_BYTES_MAX + 1], path[PEER_PATH_BYTES];
    json_t *reply = NULL;
    bool fresh = false;
    struct net_ledger *ledger = NULL;
    net_hex(hex, frame, n);
    *running = peer_home_running(h);
    if (*running) {
        TRY(peer_control_call(h->dir, json_pack("{s:s, s:s}", "op", "control", "frame", hex), 10000,
                              &reply, why));
        json_decref(reply);
        return ERR_OK;
    }
    TRY(peer_home_lock(h, why));
    enum err e = net_ledger_open(&ledger, peer_home_path(h, "ledger.db", path), m->run_id, self->id,
                                 false, &fresh, why);
    if (e == ERR_OK && (e = net_ledger_control(ledger, frame, n)) != ERR_OK)
        (void)err_set(why, e, "cannot store the signed event: %s", net_ledger_error(ledger));
    net_ledger_close(ledger);
    peer_home_release(h);
    return e;
}

/* Signs the event as the owner and hands it on; admit: an admission, which needs the whole id (the machine may have no feed yet). */
static enum err sign(const struct values *v, bool admit, uint8_t machine[32], bool *running,
                     struct err_why *why)
{
    struct peer_home home;
    struct peer_manifest m = {0};
    struct net_identity self = {0};
    uint8_t frame[NET_CONTROL_BYTES_MAX];
    TRY(peer_home_open(&home, v->common.home, false, why));
    TRY(peer_home_manifest(&home, &m, why));
    enum err e = peer_home_identity(&home, &self, false, NULL, why);
    if (e == ERR_OK) {
        if (memcmp(self.id, m.net.owner, sizeof self.id) != 0)
            e = err_set(
                why, ERR_RANGE,
                "only the run's owner can do this: use the home in which the manifest was made");
        else if (admit && m.net.admission == NET_OPEN)
            e = err_set(why, ERR_RANGE, "this run is open: every machine is admitted (init --admission)");
        else if (admit && net_unhex(machine, 32, v->machine) != ERR_OK)
            e = err_set(why, ERR_RANGE, "--machine takes the whole id, 64 hex digits: `onebyte keygen` shows it");
        else if (!admit)
            e = find_machine(machine, v->machine, &home, &m, why);
        if (e == ERR_OK) {
            const size_t n = admit ? net_control_admit(frame, &m.net, &self, machine)
                                   : net_control_retract(frame, &m.net, &self, machine, v->from);
            e = submit(&home, &m, &self, frame, n, running, why);
        }
        net_identity_release(&self);
    }
    peer_manifest_free(&m);
    return e;
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct err_why why = {{0}};
    uint8_t machine[32];
    char hex[65];
    bool running = false;
    (void)args;
    (void)n_args;
    if (!v->machine) {
        (void)err_set(&why, ERR_RANGE, "retract needs --machine ID");
        return peer_usage(&peer_cmd_retract, &why);
    }
    if (sign(v, false, machine, &running, &why) != ERR_OK)
        return peer_fail(&why);
    net_hex(hex, machine, 32);
    if (v->common.json)
        return peer_json_print(json_pack("{s:s, s:I, s:b, s:s}", "machine", hex, "from",
                                         (json_int_t)v->from, "sent", running, "reason",
                                         v->reason ? v->reason : ""));
    printf("retracted: records of %s from %" PRIu64 " on count for nothing (%s)%s%s\n", hex,
           v->from, running ? "sent to all peers" : "stored; sent when the peer runs",
           v->reason ? ": " : "", v->reason ? v->reason : "");
    return PEER_EXIT_OK;
}

static const struct peer_option options[] = {
    {"machine", PEER_TEXT, offsetof(struct values, machine), "ID",
     "the machine: its id, or the first digits of it", 0, 0},
    {"from", PEER_U64, offsetof(struct values, from), "SEQ",
     "first record that counts no more (default: 0, all)", 0, 0},
    {"reason", PEER_TEXT, offsetof(struct values, reason), "TEXT", "why, for your own log", 0, 0},
};

const struct peer_command peer_cmd_retract = {
    .name = "retract",
    .args = "",
    .summary = "as the run's owner: make a machine's records count for nothing, exactly",
    .details = "The records are subtracted from every peer's model: afterwards all digests equal "
               "those of a run that never had "
               "them. It cannot be taken back.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .run = run,
};

static int run_admit(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct err_why why = {{0}};
    uint8_t machine[32];
    char hex[65];
    bool running = false;
    (void)args;
    (void)n_args;
    if (!v->machine) {
        (void)err_set(&why, ERR_RANGE, "admit needs --machine ID");
        return peer_usage(&peer_cmd_admit, &why);
    }
    if (sign(v, true, machine, &running, &why) != ERR_OK)
        return peer_fail(&why);
    net_hex(hex, machine, 32);
    if (v->common.json)
        return peer_json_print(json_pack("{s:s, s:b}", "machine", hex, "sent", running));
    printf("admitted: records of %s count from now on (%s)\n", hex,
           running ? "sent to all peers" : "stored; sent when the peer runs");
    return PEER_EXIT_OK;
}

static const struct peer_option admit_options[] = {
    {"machine", PEER_TEXT, offsetof(struct values, machine), "ID", "the machine's id, 64 hex digits", 0, 0},
};

const struct peer_command peer_cmd_admit = {
    .name = "admit",
    .args = "",
    .summary = "as the run's owner: let a machine take part in a run that is not open",
    .details = "For runs made with --admission allow or invite. The signed admission travels with the "
               "feed, so that every peer knows it; until then the machine's records are dropped.",
    .options = admit_options,
    .n_options = ARRAY_LEN(admit_options),
    .values_bytes = sizeof(struct values),
    .run = run_admit,
};
