/* onebyte demo: the main job on the embedded model and task, with real processes, sockets and signatures.
 *
 * Four peers start together, a fifth joins late, one is killed with SIGKILL and restarted.  At the end every peer must hold
 * the same parameters bit for bit, and the model must have learned the task: held-out accuracy from chance to 85 %. */
#include "peer/clock.h"
#include "peer/demo/embed.h"
#include "peer/demo_swarm.h"
#include "peer/json_out.h"
#include "peer/options.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VICTIM = 2, START_S = 60, POLL_MS = 250 };
static const double late_at = 0.25, kill_at = 0.45, restart_at = 0.55; /* of the run's steps */
static const double accuracy_wanted = 0.85, loss_fall_wanted = 0.15;   /* nats */

struct values {
    struct peer_common common;
    uint64_t steps, peers, n0, max_s;
    double lr, eps;
    bool shuffle, keep;
    const char *dir;
};

struct demo {
    const struct values *v;
    char dir[512], model[600], train[600], eval[600], manifest[600], address[160];
    struct demo_peer peers[DEMO_PEERS_MAX];
    size_t n, started;
    json_t *before, *after, *plan, *last[DEMO_PEERS_MAX];
    double began, killed_at, seconds;
    bool killed, restarted, tty;
    json_int_t step, steps;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static void defaults(void *values)
{
    struct values *v = values;
    v->steps = 300;
    v->peers = 5;
    v->n0 = 256;
    v->lr = 0.0015; /* why so small: peer/demo/make_demo.py */
    v->eps = 0.01;
    v->max_s = 170;
}

static void rest(void)
{
    nanosleep(&(const struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
}

static void say(const struct demo *d, const char *text)
{
    if (!d->v->common.json)
        printf("%s%s\n", d->tty ? "\r\033[K" : "", text);
    fflush(stdout);
}

static double number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static json_int_t integer(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

/* ---- files ---- */

/* Labels independent of the text: what is learned from them must be nothing.  Exactly half of each true label's examples
 * (they lie in random order) get each label: with fair coins the few per cent by which they agree are a signal of
 * their own, and simulated runs ended anywhere from 34 % to 61 %; halves ended between 47 % and 58 %. */
static enum err shuffle_labels(const char *path, struct err_why *why)
{
    char *text = NULL, *out = NULL;
    size_t n = 0, at = 0;
    uint64_t seen[2] = {0, 0};
    TRY(peer_read_file(&text, &n, path, 64 << 20, why));
    out = malloc(2 * n + 1);
    if (!out) {
        free(text);
        return err_set(why, ERR_NOMEM, "out of memory");
    }
    for (char *line = text, *end; *line; line = end + (*end != 0)) {
        end = line + strcspn(line, "\n");
        json_t *o = json_loadb(line, (size_t)(end - line), 0, NULL);
        const size_t truth = integer(o, "label") != 0;
        json_object_set_new(o, "label", json_integer((json_int_t)(seen[truth]++ & 1)));
        char *made = json_dumps(o, JSON_COMPACT);
        if (made && at + strlen(made) + 1 < 2 * n)
            at += (size_t)snprintf(out + at, 2 * n - at, "%s\n", made);
        free(made);
        json_decref(o);
    }
    const enum err e = peer_write_file(path, out, at, 0644, why);
    free(text);
    free(out);
    return e;
}

static enum err unpack(struct demo *d, struct err_why *why)
{
    const char *tmp = getenv("TMPDIR");
    size_t n;
    char path[800];
    if (d->v->dir)
        snprintf(d->dir, sizeof d->dir, "%s", d->v->dir);
    else
        snprintf(d->dir, sizeof d->dir, "%s/onebyte-demo-XXXXXX", tmp && tmp[0] ? tmp : "/tmp");
    if (d->v->dir ? mkdir(d->dir, 0700) != 0 : !mkdtemp(d->dir))
        return err_set(why, ERR_IO, "cannot make the folder %s: %s", d->dir, strerror(errno));
    snprintf(d->model, sizeof d->model, "%s/model", d->dir);
    snprintf(d->train, sizeof d->train, "%s/train.jsonl", d->dir);
    snprintf(d->eval, sizeof d->eval, "%s/eval.jsonl", d->dir);
    snprintf(d->manifest, sizeof d->manifest, "%s/run.json", d->dir);
    if (mkdir(d->model, 0700) != 0)
        return err_set(why, ERR_IO, "cannot make the folder %s: %s", d->model, strerror(errno));
    const struct peer_demo_file *f = peer_demo_files(&n);
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", d->dir, f[i].name);
        TRY(peer_write_file(path, f[i].bytes, f[i].n, 0644, why));
    }
    return d->v->shuffle ? shuffle_labels(d->train, why) : ERR_OK;
}

static enum err make_run(struct demo *d, struct err_why *why)
{
    char steps[32], n0[32], lr[32], eps[32];
    snprintf(steps, sizeof steps, "%" PRIu64, d->v->steps);
    snprintf(n0, sizeof n0, "%" PRIu64, d->v->n0);
    snprintf(lr, sizeof lr, "%.9g", d->v->lr);
    snprintf(eps, sizeof eps, "%.9g", d->v->eps);
    const char *const argv[] = {"init", "--home", d->peers[0].home, "--model", d->model, "--data", d->train, "--eval-data", d->eval,
                                "--out", d->manifest, "--name", "demo", "--sides", "1", "--directions", "7", "--segment-max", "56",
                                "--seal-s", "2", "--schedule", "cosine", "--steps", steps, "--n0", n0, "--lr", lr, "--eps", eps, "--public", "--json", NULL};
    return demo_call(argv, d->dir, &d->plan, why);
}

static enum err evaluate(struct demo *d, const char *home, json_t **out, struct err_why *why)
{
    const char *const base[] = {"eval", "--model", d->model, "--data", d->eval, "--json", NULL};
    const char *const trained[] = {"eval", "--home", home, "--data", d->eval, "--json", NULL};
    return demo_call(home ? trained : base, d->dir, out, why);
}

/* ---- the swarm ---- */

static enum err start_peer(struct demo *d, size_t i, struct err_why *why)
{
    TRY(demo_peer_start(&d->peers[i], d->manifest, i == 0 ? NULL : d->address, why));
    if (i >= d->started)
        d->started = i + 1;
    return ERR_OK;
}

/* The first peer's address, once it listens. */
static enum err wait_seed(struct demo *d, struct err_why *why)
{
    for (const double until = peer_now_s() + START_S; peer_now_s() < until && !interrupted;) {
        json_t *s = demo_peer_status(&d->peers[0]);
        const char *listen = json_string_value(json_object_get(s, "listen"));
        if (listen)
            snprintf(d->address, sizeof d->address, "%s", listen);
        json_decref(s);
        if (d->address[0])
            return ERR_OK;
        demo_peer_reap(&d->peers[0]);
        if (d->peers[0].pid == 0)
            break;
        rest();
    }
    return err_set(why, ERR_AGAIN, "the first peer did not start; its log is %s", d->peers[0].log);
}

static void progress(struct demo *d)
{
    json_t *s = NULL;
    size_t alive = 0;
    for (size_t i = 0; i < d->started; i++)
        alive += d->peers[i].pid > 0 ? 1 : 0;
    for (size_t i = 0; i < d->started && !s; i++)
        s = demo_peer_status(&d->peers[i]);
    if (!s)
        return;
    d->step = integer(s, "step");
    d->steps = integer(s, "steps");
    if (!d->v->common.json) {
        const json_int_t step = d->step < d->steps ? d->step : d->steps; /* records that were under way at the end go beyond it */
        const int width = 30, full = d->steps > 0 ? (int)(step * width / d->steps) : 0;
        char bar[64];
        for (int i = 0; i < width; i++)
            bar[i] = i < full ? '#' : '.';
        bar[width] = 0;
        printf("%s  [%s] step %" JSON_INTEGER_FORMAT "/%" JSON_INTEGER_FORMAT "  %zu peers  %" JSON_INTEGER_FORMAT
               " gradients  loss %.3f  %.0f s%s", d->tty ? "\r\033[K" : "", bar, step, d->steps, alive,
               integer(json_object_get(s, "records"), "folded"), number(s, "loss"), peer_now_s() - d->began, d->tty ? "" : "\n");
        fflush(stdout);
    }
    json_decref(s);
}

static enum err events(struct demo *d, struct err_why *why)
{
    const double done = d->steps > 0 ? (double)d->step / (double)d->steps : 0;
    if (d->started < d->n && done >= late_at) {
        say(d, "  + one more peer joins late: it folds what the others have done");
        TRY(start_peer(d, d->started, why));
    }
    if (!d->killed && done >= kill_at) {
        say(d, "  x one peer is killed with SIGKILL");
        demo_peer_kill(&d->peers[VICTIM]);
        d->killed = true;
        d->killed_at = peer_now_s();
    }
    if (d->killed && !d->restarted && (done >= restart_at || peer_now_s() - d->killed_at > 2)) {
        say(d, "  + and started again: it goes on from its ledger");
        TRY(start_peer(d, VICTIM, why));
        d->restarted = true;
    }
    return ERR_OK;
}

/* Until every peer ended by itself. */
static enum err run_swarm(struct demo *d, struct err_why *why)
{
    double shown = 0;
    for (;;) {
        size_t alive = 0;
        for (size_t i = 0; i < d->started; i++) {
            demo_peer_reap(&d->peers[i]);
            alive += d->peers[i].pid > 0 ? 1 : 0;
            if (d->peers[i].pid == 0 && !d->peers[i].ended && !(i == VICTIM && d->killed && !d->restarted))
                return err_set(why, ERR_IO, "peer %zu ended with code %d; its log is %s", i, d->peers[i].code, d->peers[i].log);
        }
        if (alive == 0)
            return ERR_OK;
        if (interrupted)
            return err_set(why, ERR_CANCELLED, "interrupted");
        if (peer_now_s() - d->began > (double)d->v->max_s)
            return err_set(why, ERR_AGAIN, "not finished after %" PRIu64 " s; the peers' logs are in %s", d->v->max_s, d->dir);
        if (peer_now_s() - shown >= (d->tty ? 0 : 5) || d->step == 0 || !d->restarted) {
            progress(d);
            shown = peer_now_s();
        }
        TRY(events(d, why));
        rest();
    }
}

/* ---- the report ---- */

struct verdict {
    bool equal, fell, learned, survived;
    double sent, segments, per_gradient, wire_per_gradient, allreduce;
    json_int_t gradients;
    const char *digest;
};

static struct verdict judge(const struct demo *d)
{
    struct verdict r = {.equal = true, .survived = d->restarted && d->started == d->n};
    r.digest = json_string_value(json_object_get(d->after, "digest"));
    for (size_t i = 0; i < d->n; i++) {
        const char *digest = json_string_value(json_object_get(d->last[i], "digest"));
        const json_t *bytes = json_object_get(d->last[i], "bytes");
        r.equal = r.equal && digest && r.digest && strcmp(digest, r.digest) == 0;
        r.sent += number(bytes, "sent");
        r.per_gradient = number(bytes, "segment_per_record");
    }
    r.gradients = integer(json_object_get(d->last[0], "records"), "folded");
    r.wire_per_gradient = r.sent / (double)r.gradients;
    /* a ring all-reduce of F32 gradients: every peer sends 2 (n-1)/n of the model, once per step */
    r.allreduce = 2.0 * ((double)d->n - 1) * 4 * number(d->plan, "parameters") * (double)d->v->steps;
    r.fell = number(d->before, "loss_example_mean") - number(d->after, "loss_example_mean") >= loss_fall_wanted;
    r.learned = number(d->after, "accuracy") >= accuracy_wanted;
    return r;
}

static int report_json(const struct demo *d, const struct verdict *r)
{
    json_t *digests = json_array();
    for (size_t i = 0; i < d->n; i++)
        json_array_append(digests, json_object_get(d->last[i], "digest"));
    return peer_json_print(json_pack(
        "{s:b, s:b, s:b, s:b, s:b, s:O, s:O, s:O, s:O, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "ok",
        r->equal && r->fell && r->learned && r->survived, "digests_equal", r->equal, "loss_fell", r->fell, "learned", r->learned,
        "survived", r->survived, "loss_before", json_object_get(d->before, "loss_example_mean"), "loss_after",
        json_object_get(d->after, "loss_example_mean"), "accuracy_before", json_object_get(d->before, "accuracy"),
        "accuracy_after", json_object_get(d->after, "accuracy"), "gradients", r->gradients, "bytes_per_gradient",
        peer_json_real(r->per_gradient), "wire_bytes_per_gradient", peer_json_real(r->wire_per_gradient), "bytes_sent",
        peer_json_real(r->sent), "allreduce_bytes", peer_json_real(r->allreduce), "seconds", peer_json_real(d->seconds),
        "peers", json_integer((json_int_t)d->n), "digests", digests));
}

static void report_text(const struct demo *d, const struct verdict *r)
{
    printf("\n  held-out loss       %.4f -> %.4f nats\n", number(d->before, "loss_example_mean"),
           number(d->after, "loss_example_mean"));
    printf("  held-out accuracy   %.1f %% -> %.1f %%   (%" JSON_INTEGER_FORMAT " examples, chance is 50 %%)\n",
           100 * number(d->before, "accuracy"), 100 * number(d->after, "accuracy"), integer(d->after, "examples"));
    printf("  gradients exchanged %" JSON_INTEGER_FORMAT " in %.0f s\n", r->gradients, d->seconds);
    printf("  bytes per gradient  %.2f with headers and signatures; %.1f on the wires, all %zu peers and their links together\n",
           r->per_gradient, r->wire_per_gradient, d->n);
    printf("  sent in all         %.2f MB; a first-order all-reduce of the same steps: %.0f MB (%.0f times more)\n", r->sent / 1e6,
           r->allreduce / 1e6, r->allreduce / r->sent);
    for (size_t i = 0; i < d->n; i++) {
        const char *digest = json_string_value(json_object_get(d->last[i], "digest"));
        printf("  digest of peer %zu    %s%s\n", i, digest ? digest : "none",
               i == VICTIM ? "   (killed and restarted)" : i == d->n - 1 ? "   (joined late)" : "");
    }
    printf("  replay of a ledger  %s\n\n", r->digest ? r->digest : "none");
    if (!r->equal)
        printf("FAILED: the peers' parameters differ\n");
    if (!r->survived)
        printf("FAILED: the run was over before one peer had joined late and one was killed and restarted\n");
    if (!r->fell)
        printf("FAILED: the held-out loss did not fall by %.2f nats\n", loss_fall_wanted);
    if (!r->learned)
        printf("FAILED: held-out accuracy is below %.0f %%\n", 100 * accuracy_wanted);
    if (r->equal && r->fell && r->learned && r->survived)
        printf("ok: %zu peers hold bit-identical parameters, and the model learned the task\n", d->n);
}

static enum err play(struct demo *d, struct err_why *why)
{
    char line[256];
    TRY(unpack(d, why));
    for (size_t i = 0; i < d->n; i++) {
        struct demo_peer *p = &d->peers[i];
        snprintf(p->home, sizeof p->home, "%s/peer%zu", d->dir, i);
        snprintf(p->out, sizeof p->out, "%s/peer%zu.out", d->dir, i);
        snprintf(p->log, sizeof p->log, "%s/peer%zu.log", d->dir, i);
    }
    TRY(make_run(d, why));
    TRY(evaluate(d, NULL, &d->before, why));
    snprintf(line, sizeof line, "  a language model of %" JSON_INTEGER_FORMAT " parameters, accuracy %.1f %%; %zu peers on this machine",
             integer(d->plan, "parameters"), 100 * number(d->before, "accuracy"), d->n);
    say(d, line);
    TRY(start_peer(d, 0, why));
    TRY(wait_seed(d, why));
    for (size_t i = 1; i + 1 < d->n; i++)
        TRY(start_peer(d, i, why));
    TRY(run_swarm(d, why));
    d->seconds = peer_now_s() - d->began;
    for (size_t i = 0; i < d->n; i++)
        d->last[i] = demo_peer_last(&d->peers[i]);
    return evaluate(d, d->peers[0].home, &d->after, why);
}

static void clean(struct demo *d, bool failed)
{
    for (size_t i = 0; i < d->n; i++) {
        demo_peer_kill(&d->peers[i]);
        json_decref(d->last[i]);
    }
    json_decref(d->before);
    json_decref(d->after);
    json_decref(d->plan);
    if (d->dir[0] && !d->v->keep && !failed)
        demo_remove(d->dir);
    free(d);
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct demo *d = calloc(1, sizeof *d);
    struct err_why why = {{0}};
    int code;
    (void)args;
    (void)n_args;
    if (!d)
        return PEER_EXIT_FAILED;
    d->v = v;
    d->n = (size_t)v->peers;
    d->began = peer_now_s();
    d->tty = isatty(STDOUT_FILENO) && !v->common.json;
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    const enum err e = play(d, &why);
    if (e != ERR_OK) {
        say(d, "");
        code = peer_fail(&why);
    } else {
        const struct verdict r = judge(d);
        const bool ok = r.equal && r.fell && r.learned && r.survived;
        code = ok ? PEER_EXIT_OK : PEER_EXIT_FAILED;
        if (!v->common.json)
            report_text(d, &r);
        else if (report_json(d, &r) != PEER_EXIT_OK)
            code = PEER_EXIT_FAILED;
    }
    clean(d, e != ERR_OK && !interrupted);
    return code;
}

#define AT(member) offsetof(struct values, member)
static const struct peer_option options[] = {
    {"steps", PEER_U64, AT(steps), "N", "steps of the run (default: 300)", 1, 100000},
    {"peers", PEER_U64, AT(peers), "N", "peers in all, the late one included (default: 5)", 4, DEMO_PEERS_MAX},
    {"n0", PEER_U64, AT(n0), "N", "gradients per step (default: 256)", 1, 65536},
    {"lr", PEER_F64, AT(lr), "X", "learning rate; 0 must learn nothing (default: 0.0015)", 0, 100},
    {"eps", PEER_F64, AT(eps), "X", "size of the probe (default: 0.01)", 1e-6, 1},
    {"shuffle-labels", PEER_FLAG, AT(shuffle), NULL, "train on random labels: accuracy must stay at chance", 0, 0},
    {"max-seconds", PEER_U64, AT(max_s), "N", "give up after this time (default: 170)", 5, 86400},
    {"dir", PEER_TEXT, AT(dir), "DIR", "a new folder for all files (default: a temporary one)", 0, 0},
    {"keep", PEER_FLAG, AT(keep), NULL, "leave the folder in place", 0, 0},
};

const struct peer_command peer_cmd_demo = {
    .name = "demo",
    .args = "",
    .summary = "the whole thing on one machine: five peers, one late, one killed; no download",
    .details = "Fails (exit code 1) unless all peers end with equal digests, the held-out loss fell clearly and held-out accuracy "
               "reached 85 %.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .defaults = defaults,
    .run = run,
};
