/* onebyte stop, pause, resume: short requests to the peer running in a home. */
#include "peer/control.h"
#include "peer/home.h"
#include "peer/json_out.h"
#include "peer/options.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern const struct peer_command peer_cmd_pause;

struct values {
    struct peer_common common;
    double wait, seconds;
};

static enum err call(const struct values *v, struct peer_home *home, json_t *request, json_t **reply, struct err_why *why)
{
    const enum err e = peer_home_open(home, v->common.home, false, why);
    if (e != ERR_OK) {
        json_decref(request);
        return e;
    }
    const enum err got = peer_control_call(home->dir, request, 10000, reply, why);
    if (got == ERR_NOTFOUND && peer_home_running(home))
        return err_set(why, ERR_AGAIN, "the peer in %s is still starting or fetching the base model: wait, or end it there with Ctrl-C",
                       home->dir);
    return got;
}

static int done(const struct values *v, json_t *reply, const char *text)
{
    if (v->common.json)
        return peer_json_print(reply);
    json_decref(reply);
    puts(text);
    return PEER_EXIT_OK;
}

static int stop(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct peer_home home;
    struct err_why why = {{0}};
    json_t *reply = NULL;
    (void)args;
    (void)n_args;
    if (call(v, &home, json_pack("{s:s}", "op", "stop"), &reply, &why) != ERR_OK)
        return peer_fail(&why);
    const struct timespec pause = {.tv_nsec = 50000000};
    const int turns = (int)(v->wait * 20);
    for (int i = 0; i < turns && peer_home_running(&home); i++)
        nanosleep(&pause, NULL);
    if (peer_home_running(&home)) {
        json_decref(reply);
        (void)err_set(&why, ERR_BUSY, "the peer was told to stop and is still finishing its measuring call; wait, or --wait longer");
        return peer_fail(&why);
    }
    return done(v, reply, "stopped");
}

/* "2h", "30m", "90s", "1d12h", or seconds: *out in seconds. */
static enum err duration(double *out, const char *text, struct err_why *why)
{
    static const char units[] = "smhd";
    static const double each[] = {1, 60, 3600, 86400};
    double total = 0;
    for (const char *p = text; *p;) {
        char *end = NULL;
        errno = 0;
        const unsigned long long n = *p >= '0' && *p <= '9' ? strtoull(p, &end, 10) : ULLONG_MAX;
        const char *unit = end && *end ? strchr(units, *end) : NULL;
        if (!end || errno || (*end && !unit)) {
            total = -1;
            break;
        }
        total += (double)n * each[unit ? unit - units : 0];
        p = unit ? end + 1 : end;
    }
    if (total < 1 || total > 1e8)
        return err_set(why, ERR_RANGE, "pause takes a duration such as 2h, 30m, 90s or 1h30m, not '%s'", text);
    *out = total;
    return ERR_OK;
}

static int pause_run(void *values, const char *const *args, size_t n_args)
{
    struct values *v = values;
    struct peer_home home;
    struct err_why why = {{0}};
    json_t *reply = NULL;
    if (n_args && duration(&v->seconds, args[0], &why) != ERR_OK)
        return peer_usage(&peer_cmd_pause, &why);
    if (call(v, &home, json_pack("{s:s, s:f}", "op", "pause", "seconds", v->seconds), &reply, &why) != ERR_OK)
        return peer_fail(&why);
    char text[128] = "paused until onebyte resume: it keeps folding and relaying";
    if (v->seconds > 0) {
        const time_t until = time(NULL) + (time_t)v->seconds;
        struct tm tm;
        (void)strftime(text, sizeof text, v->seconds < 43200 ? "paused until %H:%M:%S: it keeps folding and relaying"
                       : "paused until %Y-%m-%d %H:%M: it keeps folding and relaying", localtime_r(&until, &tm));
    }
    return done(v, reply, text);
}

static int resume(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct peer_home home;
    struct err_why why = {{0}};
    json_t *reply = NULL;
    (void)args;
    (void)n_args;
    if (call(v, &home, json_pack("{s:s}", "op", "resume"), &reply, &why) != ERR_OK)
        return peer_fail(&why);
    return done(v, reply, "resumed");
}

static void stop_defaults(void *values)
{
    ((struct values *)values)->wait = 60;
}

static const struct peer_option stop_options[] = {
    {"wait", PEER_F64, offsetof(struct values, wait), "SECONDS", "how long to wait for the peer to end (default: 60)", 0, 86400},
};

const struct peer_command peer_cmd_stop = {
    .name = "stop",
    .args = "",
    .summary = "end the peer that runs in a home",
    .options = stop_options,
    .n_options = ARRAY_LEN(stop_options),
    .values_bytes = sizeof(struct values),
    .defaults = stop_defaults,
    .run = stop,
};

const struct peer_command peer_cmd_pause = {
    .name = "pause",
    .args = "[DURATION]",
    .args_max = 1,
    .summary = "stop measuring for a while; the peer keeps folding and relaying",
    .details = "DURATION: 90s, 30m, 2h, 1d or 1h30m; without one until onebyte resume. A restarted peer is not paused.",
    .values_bytes = sizeof(struct values),
    .run = pause_run,
};

const struct peer_command peer_cmd_resume = {
    .name = "resume",
    .args = "",
    .summary = "measure again after pause",
    .values_bytes = sizeof(struct values),
    .run = resume,
};
