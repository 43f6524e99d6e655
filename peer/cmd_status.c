/* onebyte status: what a peer is doing, or, when none runs here, what it last was. */
#include "peer/control.h"
#include "peer/curve.h"
#include "peer/engine.h"
#include "peer/home.h"
#include "peer/json_out.h"
#include "peer/options.h"
#include "peer/status_manual.h"
#include "peer/watch.h"
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern const struct peer_command peer_cmd_status;

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
    net_gossip_frontier_digest(s.gossip, NET_ALL, frontier);
    net_hex(hex, frontier, 32);
    const char *known = json_string_value(json_object_get(o, "frontier_digest"));
    if (!s.manifest.net.sync && (!known || strcmp(known, hex) != 0)) {
        json_object_set_new(o, "digest", json_null());
        json_object_set_new(o, "frontier_digest", json_string(hex));
    }
    if (!s.manifest.net.sync || !json_object_get(o, "step")) /* in sync runs it was the peer's own round */
        json_object_set_new(o, "step", json_integer((json_int_t)peer_run_step(s.gossip, &s.manifest)));
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
    json_object_set_new(o, "paused_until", json_null());
    json_object_set_new(o, "time_left_s", json_null());
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
        return err_set(why, ERR_AGAIN, "the peer in %s is still starting or fetching the base model: what it prints says how far it is", h->dir);
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

/* Linked peers in columns; then the addresses that lead to nobody, each with the reason. */
static void print_peers(FILE *out, const json_t *peers)
{
    size_t linked = 0, failed = 0;
    for (size_t i = 0; i < json_array_size(peers); i++) {
        const json_t *p = json_array_get(peers, i);
        char sent[32], received[32], rtt[32] = "-", lag[32] = "-";
        const double silent = number(p, "last_seen_s");
        if (!json_is_string(json_object_get(p, "id")))
            continue;
        if (linked++ == 0)
            fprintf(out, "peers\n  %-8s  %-21s %-3s %8s %6s %7s %8s %8s\n", "id", "address", "dir", "records", "lag", "rtt", "sent", "received");
        if (isfinite(number(p, "rtt_ms")))
            snprintf(rtt, sizeof rtt, number(p, "rtt_ms") < 0.1 ? "<0.1 ms" : number(p, "rtt_ms") < 9.95 ? "%.1f ms" : "%.0f ms",
                     number(p, "rtt_ms"));
        if (isfinite(number(p, "lag_steps")))
            snprintf(lag, sizeof lag, "%.0f", number(p, "lag_steps"));
        amount(sent, number(p, "sent"), "B");
        amount(received, number(p, "received"), "B");
        fprintf(out, "  %-8.8s  %-21.39s %-3s %8.0f %6s %7s %8s %8s\n", text(p, "id"), text(p, "address"), text(p, "direction"),
                number(p, "records"), lag, rtt, sent, received);
        if (silent > 20) /* a live one is asked after 15 s */
            fprintf(out, "            silent for %.0f s\n", silent);
    }
    if (linked == 0)
        fprintf(out, "peers  none connected\n");
    for (size_t i = 0; i < json_array_size(peers); i++) {
        const json_t *p = json_array_get(peers, i);
        if (json_is_string(json_object_get(p, "id")))
            continue;
        if (failed++ == 0)
            fprintf(out, "not reached, tried again for ever\n");
        fprintf(out, "  %s: %s\n", text(p, "address"), text(p, "state"));
    }
}

static void print_why(FILE *out, const json_t *o)
{
    const double until = number(o, "paused_until");
    char when[32], left[32];
    if (!isfinite(until) || strncmp(text(o, "why"), "paused", 6) != 0) {
        fprintf(out, "  because       %s\n", text(o, "why"));
        return;
    }
    const time_t at = (time_t)until;
    const double s = until - (double)time(NULL);
    struct tm tm;
    (void)strftime(when, sizeof when, s < 43200 ? "%H:%M:%S" : "%Y-%m-%d %H:%M", localtime_r(&at, &tm));
    span(left, s > 0 ? s : 0);
    fprintf(out, "  because       paused until %s, %s from now (onebyte resume goes on)\n", when, left);
}

/* The curve, and what is known of its newest point. */
static void print_eval(FILE *out, const json_t *eval)
{
    char curve[PEER_CURVE_BYTES];
    const json_t *points = json_object_get(eval, "points");
    const size_t n = json_array_size(points);
    if (n == 0)
        return;
    const json_t *p = json_array_get(points, n - 1);
    if (peer_curve_text(curve, eval, peer_curve_utf8()) > 0)
        fprintf(out, "  eval curve    %s", curve);
    else
        fprintf(out, "  eval curve    -");
    if (isfinite(number(eval, "loss")))
        fprintf(out, "  %.5f nats at step %.0f", number(eval, "loss"), number(eval, "step"));
    fprintf(out, "\n                checkpoint %.0f: %.0f of %.0f examples, self-reported by %.0f machine%s", number(p, "number"),
            number(p, "examples"), number(p, "total"), number(p, "reporters"), number(p, "reporters") == 1 ? "" : "s");
    if (number(p, "spread") > 0)
        fprintf(out, ", %.2g nats apart", number(p, "spread"));
    if (number(p, "nonfinite") > 0)
        fprintf(out, ", %.0f losses not finite", number(p, "nonfinite"));
    fprintf(out, "\n");
}

static void print_run(FILE *out, const json_t *o)
{
    const json_t *agreement = json_object_get(o, "agreement"), *checkpoint = json_object_get(o, "checkpoint");
    const double step = number(o, "step"), steps = number(o, "steps"), left = number(o, "time_left_s");
    char a[32];
    fprintf(out, "run %s%s%.16s\n", text(o, "name"), text(o, "name")[0] ? "  " : "", text(o, "run_id"));
    fprintf(out, "  step          %.0f of %.0f (%.1f %%)", step, steps, steps > 0 ? 100 * step / steps : 0);
    span(a, left);
    fprintf(out, isfinite(left) && left > 0 ? ", about %s left\n" : "\n", a);
    if (isfinite(number(o, "loss")))
        fprintf(out, "  loss          %.5f (this machine's latest examples)\n", number(o, "loss"));
    if (number(o, "machines") > 0)
        fprintf(out, "  machines      %.0f have contributed\n", number(o, "machines"));
    fprintf(out, "  digest        %s\n", text(o, "digest"));
    if (number(agreement, "links") > 0)
        fprintf(out, "  agreement     %.0f of %.0f neighbours %s\n", number(agreement, "agree"), number(agreement, "links"),
                json_is_true(json_object_get(o, "running")) ? "hold exactly the same records now" : "held exactly the same records at its end");
    if (json_is_object(checkpoint))
        fprintf(out, "  checkpoint    %.0f: the last state that the owner named\n", number(checkpoint, "number"));
    const json_t *audit = json_object_get(o, "audit");
    if (number(audit, "records") > 0)
        fprintf(out, "  audits        %.0f records of others measured again, %.0f off, %.0f evidence files\n", number(audit, "records"),
                number(audit, "off"), number(audit, "evidence"));
    print_eval(out, json_object_get(o, "eval"));
}

static void print_host(FILE *out, const json_t *o)
{
    const double celsius = number(o, "temperature_c"), throttled = number(o, "throttled"), threads = number(o, "threads");
    char speed[32], memory[32], up[32];
    amount(speed, number(o, "records_per_s"), "gradients/s");
    amount(memory, number(o, "memory"), "B");
    span(up, number(o, "uptime_s"));
    fprintf(out, "  speed         %s: batch %.0f, %.0f thread%s on %s (%s)\n", speed, number(o, "batch"), threads, threads == 1 ? "" : "s",
            text(o, "device"), text(o, "kernels"));
    fprintf(out, "  host          %s memory, up %s", memory, up);
    if (isfinite(celsius))
        fprintf(out, ", CPU %.0f C", celsius);
    if (throttled > 0)
        fprintf(out, ", slowed down by heat %.0f times", throttled);
    fprintf(out, "\n  listening     %s", json_is_string(json_object_get(o, "listen")) ? text(o, "listen") : "no: it only dials out");
    if (isfinite(number(o, "metrics")))
        fprintf(out, ", page on http://127.0.0.1:%.0f/", number(o, "metrics"));
    fprintf(out, "\n");
}

static void print_traffic(FILE *out, const json_t *bytes, bool running)
{
    char sent[32], received[32], now[32];
    amount(sent, number(bytes, "sent"), "B");
    amount(received, number(bytes, "received"), "B");
    fprintf(out, "  traffic       %s sent, %s received", sent, received);
    amount(now, number(bytes, "per_s"), "B/s");
    if (running && isfinite(number(bytes, "per_s")))
        fprintf(out, ", now %s", now);
    fprintf(out, "\n");
    if (!isfinite(number(bytes, "per_record")))
        return;
    fprintf(out, "  per gradient  %.2f bytes", number(bytes, "per_record"));
    if (running && isfinite(number(bytes, "per_record_now")))
        fprintf(out, ", now %.2f", number(bytes, "per_record_now"));
    if (isfinite(number(bytes, "segment_per_record")))
        fprintf(out, " (%.2f in segments)", number(bytes, "segment_per_record"));
    fprintf(out, "\n");
}

static void print_table(FILE *out, const json_t *o)
{
    const json_t *records = json_object_get(o, "records");
    const bool running = json_is_true(json_object_get(o, "running")), contributing = json_is_true(json_object_get(o, "contributing"));
    print_run(out, o);
    fprintf(out, "machine %.8s  %s\n", text(o, "machine_id"), contributing ? "contributing" : "not contributing");
    if (!contributing)
        print_why(out, o);
    fprintf(out, "  records       %.0f own", number(records, "own"));
    if (isfinite(number(o, "share")))
        fprintf(out, " (%.1f %% of the run)", 100 * number(o, "share"));
    fprintf(out, ", %.0f folded\n", number(records, "folded"));
    if (running)
        print_host(out, o);
    print_traffic(out, json_object_get(o, "bytes"), running);
    if (running)
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
        if (fflush(stdout) != 0 || ferror(stdout))
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
    if (v->watch && v->check) {
        (void)err_set(&why, ERR_RANGE, "--check is one line and --watch never ends: give one of them");
        return peer_usage(&peer_cmd_status, &why);
    }
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
    .details = "With no peer running in the home it reports the last state from the ledger (running: false). lag: steps since a "
               "peer's newest record; rtt: round trip. The manual page describes every field of --json.",
    .manual_title = "JSON",
    .manual = peer_status_manual,
    .n_manual = PEER_STATUS_MANUAL,
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .defaults = defaults,
    .run = run,
};
