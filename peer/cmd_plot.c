/* onebyte plot: the run's curves, from the ledger. */
#include "peer/home.h"
#include "peer/json_out.h"
#include "peer/options.h"
#include "peer/plot.h"
#include <errno.h>
#include <onebyte/net/control.h>
#include <onebyte/net/ledger.h>
#include <onebyte/net/score.h>
#include <stdlib.h>
#include <string.h>

struct values {
    struct peer_common common;
    const char *out, *manifest, *ledger;
};

struct plotting {
    struct peer_plot plot;
    const struct peer_manifest *manifest;
    struct net_scores *scores;
    bool last; /* of the control events: first the checkpoints, then their scores */
    uint64_t end, machine, segments;
    uint8_t id[32];
    bool draw; /* first pass: only where the axis ends */
};

static bool row(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n,
                int64_t unix_ms)
{
    struct plotting *p = ctx;
    struct net_segment s;
    if (net_segment_parse(&s, wire, n) != ERR_OK)
        return true; /* the ledger checks its rows: this one would not have been given */
    if (!p->draw) {
        p->end = s.step >= p->end ? (uint64_t)s.step + 1 : p->end;
        p->segments++;
        return true;
    }
    if (memcmp(p->id, machine, 32) != 0) {
        memcpy(p->id, machine, 32);
        p->machine++;
    }
    peer_plot_add(&p->plot, p->machine, &s, n, unix_ms);
    return true;
}

static bool control(void *ctx, const uint8_t *frame, size_t n)
{
    struct plotting *p = ctx;
    const struct net_rules *r = &p->manifest->net;
    struct net_control c;
    uint8_t id[32];
    bool tell;
    if (p->last && n > 0 && frame[0] == NET_SCORE) {
        (void)!net_scores_take(p->scores, r, frame, n, &tell); /* what is not valid is not drawn */
        return true;
    }
    if (net_control_parse(&c, frame, n) != ERR_OK)
        return true;
    if (c.kind == NET_FORK || (c.kind == NET_RETRACT && net_control_check(&c, r) == ERR_OK))
        net_scores_forget(p->scores, c.machine);
    if (p->last || c.kind != NET_CHECKPOINT || net_control_check(&c, r) != ERR_OK)
        return true;
    net_control_id(id, &c, r);
    net_scores_checkpoint(p->scores, c.number, id);
    return true;
}

static enum err gather_scores(struct plotting *p, const char *file, struct net_ledger *ledger, struct err_why *why)
{
    struct net_score_point point;
    enum err e = net_scores_new(&p->scores);
    for (int pass = 0; pass < 2 && e == ERR_OK; pass++) {
        p->last = pass == 1;
        if (file)
            e = net_ledger_import(file, p->manifest->run_id, NULL, NULL, control, p, why);
        else if ((e = net_ledger_each_control(ledger, control, p)) != ERR_OK)
            (void)err_set(why, e, "cannot read the ledger: %s", err_str(e));
    }
    for (uint64_t from = 0; e == ERR_OK && net_scores_point(p->scores, from, &point); from = point.number + 1)
        if (point.examples == point.total)
            peer_plot_eval(&p->plot, point.step, point.loss);
    net_scores_free(p->scores);
    return e;
}

static enum err gather(struct plotting *p, const struct values *v, const struct peer_manifest *m,
                       const struct peer_home *home, struct err_why *why)
{
    static const uint8_t nobody[32] = {0};
    char path[PEER_PATH_BYTES];
    struct net_ledger *ledger = NULL;
    bool fresh = false;
    enum err e = ERR_OK;
    if (v->ledger)
        TRY(peer_check_regular(v->ledger, why)); /* it is read twice */
    else
        TRY(net_ledger_open(&ledger, peer_home_path(home, "ledger.db", path), m->run_id, nobody,
                            true, &fresh, why));
    for (int pass = 0; pass < 2 && e == ERR_OK; pass++) {
        p->draw = pass == 1;
        if (p->draw)
            peer_plot_init(&p->plot, p->end > m->net.steps ? m->net.steps : p->end);
        if (v->ledger)
            e = net_ledger_import(v->ledger, m->run_id, NULL, row, NULL, p, why);
        else if ((e = net_ledger_each(ledger, row, p)) != ERR_OK)
            (void)err_set(why, e, "cannot read the ledger: %s", err_str(e));
    }
    p->manifest = m;
    if (e == ERR_OK && ledger)
        e = net_ledger_sound(ledger, why);
    if (e == ERR_OK && p->segments > 0)
        e = gather_scores(p, v->ledger, ledger, why);
    net_ledger_close(ledger);
    if (e == ERR_OK && p->segments == 0)
        return err_set(why, ERR_NOTFOUND, "the ledger is empty: nothing to draw yet");
    return e;
}

static enum err write_out(const struct plotting *p, const char *name, const char *path,
                          struct err_why *why)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return err_set(why, ERR_NOMEM, "out of memory");
    enum err e = peer_plot_write(&p->plot, name, f);
    if (fclose(f) != 0 || e != ERR_OK)
        e = err_set(why, ERR_NOMEM, "out of memory");
    if (e == ERR_OK && path)
        e = peer_check_out(path, why);
    if (e == ERR_OK && path)
        e = peer_write_file(path, text, n, 0644, why);
    else if (e == ERR_OK && fwrite(text, 1, n, stdout) != n)
        e = err_set(why, ERR_IO, "cannot write to standard output: %s", strerror(errno));
    free(text);
    return e;
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct plotting *p = calloc(1, sizeof *p);
    struct peer_manifest m = {.text = NULL};
    struct peer_home home;
    struct err_why why = {{0}};
    (void)args;
    (void)n_args;
    const bool with_home = !(v->ledger && v->manifest);
    enum err e = p ? ERR_OK : err_set(&why, ERR_NOMEM, "out of memory");
    if (e == ERR_OK && with_home)
        e = peer_home_open(&home, v->common.home, false, &why);
    if (e == ERR_OK)
        e = v->manifest ? peer_manifest_load(&m, v->manifest, &why)
                        : peer_home_manifest(&home, &m, &why);
    if (e == ERR_OK)
        e = gather(p, v, &m, with_home ? &home : NULL, &why);
    if (e == ERR_OK)
        e = write_out(p, m.name, v->out, &why);
    int code = PEER_EXIT_OK;
    if (e != ERR_OK)
        code = peer_fail(&why);
    else if (v->out && v->common.json)
        code =
            peer_json_print(json_pack("{s:s, s:I, s:I}", "out", v->out, "segments",
                                      (json_int_t)p->segments, "steps", (json_int_t)p->plot.end));
    else if (v->out)
        printf("%s: %llu segments, %llu steps\n", v->out, (unsigned long long)p->segments,
               (unsigned long long)p->plot.end);
    peer_manifest_free(&m);
    free(p);
    return code;
}

static const struct peer_option options[] = {
    {"out", PEER_TEXT, offsetof(struct values, out), "FILE",
     "the SVG file (default: standard output)", 0, 0},
    {"manifest", PEER_TEXT, offsetof(struct values, manifest), "FILE",
     "the run's manifest (default: the home's)", 0, 0},
    {"ledger", PEER_TEXT, offsetof(struct values, ledger), "FILE",
     "a ledger written by onebyte log --export (default: the home's ledger)", 0, 0},
};

const struct peer_command peer_cmd_plot = {
    .name = "plot",
    .args = "",
    .summary = "draw loss, eval loss, gradients per second, bytes and peers over steps, as SVG",
    .details =
        "Everything comes from the ledger; the peer may be running. Any browser shows the file.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .run = run,
};
