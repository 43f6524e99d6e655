/* onebyte status: what a peer is doing, or, when none runs here, what it last was. */
#include "peer/control.h"
#include "peer/engine.h"
#include "peer/home.h"
#include "peer/json_out.h"
#include "peer/options.h"
#include "peer/watch.h"
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct values {
    struct peer_common common;
    bool watch, check;
    double interval;
};

static void defaults(void *values)
{
    ((struct values *)values)->interval = 1;
}

/* ---- the object ---- */

/* Of a stopped peer: what its ledger holds now, and from the saved status what only the running peer knew.  The saved digest
 * is given only if it belongs to the frontier that the ledger holds. */
static enum err stopped(const struct peer_home *h, json_t **out, struct err_why *why)
{
    struct peer_home_state s;
    struct net_identity self = {.sk = NULL};
    struct net_clock clock;
    uint8_t frontier[32];
    char hex[65];
    void *saved = NULL;
    size_t n = 0;
    TRY(peer_home_state_open(&s, h, NULL, NULL, why));
    json_t *o = net_ledger_get(s.ledger, "status", &saved, &n) == ERR_OK ? json_loadb(saved, n, 0, NULL) : NULL;
    free(saved);
    if (!json_is_object(o)) {
        json_decref(o);
        o = json_object();
    }
    net_gossip_clock(s.gossip, &clock);
    net_gossip_frontier_digest(s.gossip, NET_ALL, frontier);
    net_hex(hex, frontier, 32);
    const char *known = json_string_value(json_object_get(o, "frontier_digest"));
    if (!s.manifest.net.sync && (!known || strcmp(known, hex) != 0)) {
        json_object_set_new(o, "digest", json_null());
        json_object_set_new(o, "frontier_digest", json_string(hex));
    }
    if (!s.manifest.net.sync)
        json_object_set_new(o, "step", json_integer((json_int_t)clock.step));
    json_t *records = json_object_get(o, "records");
    if (!records) {
        records = json_object();
        json_object_set_new(o, "records", records);
    }
    json_object_set_new(records, "folded", json_integer((json_int_t)s.loaded.records));
    struct net_frontier_entry own = {.count = 0};
    if (peer_home_identity(h, &self, false, NULL, why) == ERR_OK) {
        json_object_set_new(o, "machine_id", peer_json_hex(self.id, 32));
        if (!net_gossip_feed(s.gossip, self.id, &own))
            own.count = 0;
        net_identity_release(&self);
    }
    json_object_set_new(records, "own", json_integer((json_int_t)own.count));
    json_object_set_new(o, "running", json_false());
    json_object_set_new(o, "name", json_string(s.manifest.name));
    json_object_set_new(o, "run_id", peer_json_hex(s.manifest.run_id, 32));
    json_object_set_new(o, "steps", json_integer((json_int_t)s.manifest.net.steps));
    json_object_set_new(o, "contributing", json_false());
    json_object_set_new(o, "why", json_string("not running"));
    json_object_set_new(o, "records_per_s", json_real(0));
    json_object_set_new(o, "peers", json_array());
    json_object_set_new(o, "uptime_s", json_real(0));
    static const char *const unknown[] = {"loss", "digest", "bytes"};
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++)
        if (!json_object_get(o, unknown[i]))
            json_object_set_new(o, unknown[i], i == 2 ? json_pack("{s:i, s:i, s:n}", "sent", 0, "received", 0, "per_record")
                                                      : json_null());
    peer_home_state_close(&s);
    *out = o;
    return ERR_OK;
}

static enum err get(const struct peer_home *h, json_t **out, struct err_why *why)
{
    const enum err e = peer_control_call(h->dir, json_pack("{s:s}", "op", "status"), 30000, out, why);
    if (e != ERR_NOTFOUND)
        return e;
    if (peer_home_running(h))
        return err_set(why, ERR_AGAIN, "the peer in %s is starting; try again in a moment", h->dir);
    return stopped(h, out, why);
}

/* ---- the table ---- */

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "-";
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static void amount(char out[32], double x, const char *unit)
{
    static const char *const prefix[] = {"", "k", "M", "G", "T"};
    size_t i = 0;
    if (!isfinite(x)) {
        snprintf(out, 32, "-");
        return;
    }
    for (; fabs(x) >= 10000 && i + 1 < ARRAY_LEN(prefix); i++)
        x /= 1000;
    snprintf(out, 32, x == floor(x) && i == 0 ? "%.0f %s%s" : "%.4g %s%s", x, prefix[i], unit);
}

static void span(char out[32], double s)
{
    if (!isfinite(s))
        snprintf(out, 32, "-");
    else if (s < 120)
        snprintf(out, 32, "%.0f s", s);
    else if (s < 7200)
        snprintf(out, 32, "%.0f min", s / 60);
    else
        snprintf(out, 32, "%.1f h", s / 3600);
}

static void print_peers(FILE *out, const json_t *peers)
{
    if (json_array_size(peers) == 0) {
        fprintf(out, "\n  no peers connected\n");
        return;
    }
    fprintf(out, "\n  %-10s %-24s %-4s %12s %9s %10s %10s  %s\n", "peer", "address", "dir", "records", "seen", "sent", "received", "state");
    for (size_t i = 0; i < json_array_size(peers); i++) {
        const json_t *p = json_array_get(peers, i);
        char seen[32], sent[32], received[32];
        span(seen, number(p, "last_seen_s"));
        amount(sent, number(p, "sent"), "B");
        amount(received, number(p, "received"), "B");
        fprintf(out, "  %-10.8s %-24.24s %-4s %12.0f %9s %10s %10s  %s\n", text(p, "id"), text(p, "address"), text(p, "direction"),
               number(p, "records"), seen, sent, received, text(p, "state"));
    }
}

static void print_table(FILE *out, const json_t *o)
{
    const json_t *records = json_object_get(o, "records"), *bytes = json_object_get(o, "bytes");
    const json_t *agreement = json_object_get(o, "agreement");
    const double step = number(o, "step"), steps = number(o, "steps");
    char a[32], b[32], c[32];
    fprintf(out, "run %s  %s\n", text(o, "name"), text(o, "run_id"));
    fprintf(out, "  step          %.0f of %.0f (%.1f %%)\n", step, steps, steps > 0 ? 100 * step / steps : 0);
    if (isfinite(number(o, "loss")))
        fprintf(out, "  loss          %.5f (this machine's latest examples)\n", number(o, "loss"));
    fprintf(out, "  digest        %s\n", text(o, "digest"));
    if (agreement)
        fprintf(out, "  agreement     %.0f of %.0f neighbours hold exactly the same records\n", number(agreement, "agree"),
               number(agreement, "links"));
    const json_t *checkpoint = json_object_get(o, "checkpoint");
    if (json_is_object(checkpoint))
        fprintf(out, "  checkpoint    %.0f: the last state that the owner named\n", number(checkpoint, "number"));
    const json_t *audit = json_object_get(o, "audit");
    if (number(audit, "records") > 0)
        fprintf(out, "  audits        %.0f records of others measured again, %.0f off, %.0f evidence files\n", number(audit, "records"),
                number(audit, "off"), number(audit, "evidence"));
    fprintf(out, "machine %.8s  %s\n", text(o, "machine_id"), json_is_true(json_object_get(o, "contributing")) ? "contributing" : "not contributing");
    if (!json_is_true(json_object_get(o, "contributing")))
        fprintf(out, "  because       %s\n", text(o, "why"));
    fprintf(out, "  records       %.0f own, %.0f folded\n", number(records, "own"), number(records, "folded"));
    if (json_is_true(json_object_get(o, "running"))) {
        amount(a, number(o, "records_per_s"), "gradients/s");
        amount(b, number(o, "memory"), "B");
        span(c, number(o, "uptime_s"));
        fprintf(out, "  speed         %s, batch %.0f, %.0f threads on %s (%s)\n", a, number(o, "batch"), number(o, "threads"),
               text(o, "device"), text(o, "kernels"));
        fprintf(out, "  memory        %s, up %s, listening on %s\n", b, c, text(o, "listen"));
    }
    amount(a, number(bytes, "sent"), "B");
    amount(b, number(bytes, "received"), "B");
    fprintf(out, "  traffic       %s sent, %s received", a, b);
    if (isfinite(number(bytes, "per_record")))
        fprintf(out, ", %.2f bytes per gradient (%.2f in segments)", number(bytes, "per_record"), number(bytes, "segment_per_record"));
    fprintf(out, "\n");
    if (json_is_true(json_object_get(o, "running")))
        print_peers(out, json_object_get(o, "peers"));
}

/* For monitoring (Nagios and its kin): one line, exit code 0 fine, 1 warning, 2 critical, 3 unknown. */
static int check(json_t *o)
{
    static const char *const words[] = {"OK", "WARNING", "CRITICAL", "UNKNOWN"};
    const json_t *agreement = json_object_get(o, "agreement");
    const char *why = text(o, "why");
    const double links = number(agreement, "links"), agree = number(agreement, "agree"), step = number(o, "step");
    const bool running = json_is_true(json_object_get(o, "running")), finished = step >= number(o, "steps");
    const bool wanted = strncmp(why, "paused", 6) == 0 || strncmp(why, "no data", 7) == 0; /* its owner says so */
    int code = 0;
    if (!running)
        code = finished ? 0 : 2;
    else if (strncmp(why, "disk", 4) == 0 || strncmp(why, "cut", 3) == 0 || strncmp(why, "headroom", 8) == 0)
        code = 2;
    else if (!finished && !json_is_true(json_object_get(o, "contributing")) && !wanted)
        code = 1;
    else if (!finished && links == 0 && json_array_size(json_object_get(o, "peers")) > 0)
        code = 1;
    printf("ONEBYTE %s - step %.0f of %.0f, %s | step=%.0f links=%.0f agree=%.0f rate=%g\n", words[code], step, number(o, "steps"),
           finished ? "finished" : why[0] ? why : links == 0 ? "contributing alone" : "contributing", step, isfinite(links) ? links : 0, isfinite(agree) ? agree : 0,
           number(o, "records_per_s"));
    json_decref(o);
    return code;
}

static volatile sig_atomic_t interrupted;

static void on_signal(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

/* The whole screen, anew: what went wrong stands where the table would. */
static void render(void *ctx, FILE *out)
{
    struct err_why why = {{0}};
    json_t *o = NULL;
    if (get(ctx, &o, &why) == ERR_OK)
        print_table(out, o);
    else
        fprintf(out, "%s\n", why.text);
    json_decref(o);
}

static int watch(const struct values *v, struct peer_home *h)
{
    const struct timespec pause = {.tv_sec = (time_t)v->interval,
                                   .tv_nsec = (long)((v->interval - floor(v->interval)) * 1e9)};
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    if (!v->common.json && peer_watch_possible()) {
        struct err_why why = {{0}};
        return peer_watch(render, h, v->interval, &interrupted, &why) == ERR_OK ? PEER_EXIT_OK : peer_fail(&why);
    }
    while (!interrupted) {
        struct err_why why = {{0}};
        json_t *o = NULL;
        const enum err e = get(h, &o, &why);
        if (e != ERR_OK)
            printf("%s\n", why.text);
        else if (v->common.json)
            (void)peer_json_print(o);
        else
            print_table(stdout, o);
        if (e == ERR_OK && !v->common.json)
            json_decref(o);
        if (!v->common.json)
            printf("\n");
        if (fflush(stdout) != 0)
            return PEER_EXIT_FAILED;
        nanosleep(&pause, NULL);
    }
    return PEER_EXIT_OK;
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct peer_home home;
    struct err_why why = {{0}};
    json_t *o = NULL;
    (void)args;
    (void)n_args;
    enum err e = peer_home_open(&home, v->common.home, false, &why);
    if (e == ERR_OK && v->watch)
        return watch(v, &home);
    if (e == ERR_OK)
        e = get(&home, &o, &why);
    if (v->check && e != ERR_OK) {
        printf("ONEBYTE UNKNOWN - %s\n", why.text);
        return 3;
    }
    if (e != ERR_OK)
        return peer_fail(&why);
    if (v->check)
        return check(o);
    if (v->common.json)
        return peer_json_print(o);
    print_table(stdout, o);
    json_decref(o);
    return PEER_EXIT_OK;
}

static const struct peer_option options[] = {
    {"watch", PEER_FLAG, offsetof(struct values, watch), NULL, "refresh until interrupted", 0, 0},
    {"check", PEER_FLAG, offsetof(struct values, check), NULL, "one line for monitoring; exit code 0 ok, 1 warning, 2 critical, 3 unknown", 0, 0},
    {"interval", PEER_F64, offsetof(struct values, interval), "SECONDS", "between refreshes (default: 1)", 0.1, 3600},
};

const struct peer_command peer_cmd_status = {
    .name = "status",
    .args = "",
    .summary = "run, progress, this machine, its peers, and why it does not contribute",
    .details = "With no peer running in the home it reports the last state from the ledger (running: false).",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .defaults = defaults,
    .run = run,
};
