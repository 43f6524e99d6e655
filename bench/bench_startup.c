/* bench_startup: from nothing to the first gradient on a large checkpoint; JSON lines on stdout.
 *
 *     bench_startup MANIFEST MODEL_DIR CACHE        exit 0, 1 (failed), 2 usage
 *
 * Opens the model against its manifest twice: the first time every chunk is hashed (CACHE must not
 * exist), the second time the cache of size, mtime and inode answers.  Each time: one two-sided
 * gradient of 64 tokens, then plain passes of the same two rows' worth of work, then resident
 * memory.  bench/run.py makes the checkpoint (1 GB of F32) and the manifest. */
#include "peer/engine.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { TOKENS = 64, PLAIN = 3 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool losses(struct peer_engine *e, float eps, size_t sides)
{
    static uint32_t ids[TOKENS];
    static uint8_t counted[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++) {
        ids[i] = 1 + i % (zo_model_vocab(e->model) - 1);
        counted[i] = i > 0;
    }
    struct zo_seq seq = {.n = TOKENS, .ids = ids, .counted = counted};
    const struct zo_example x = {.n_seqs = 1, .seqs = &seq, .label = -1};
    struct zo_pass passes[2] = {{.example = &x, .key = {1, 2}, .eps = eps},
                                {.example = &x, .key = {1, 2}, .eps = -eps}};
    struct zo_loss out[2];
    return zo_model_losses(e->model, passes, sides, out, e->kernels, e->pool) == ERR_OK &&
           out[0].loss > 0;
}

/* One start.  hashed: the cache did not exist. */
static bool start(const struct peer_manifest *m, const char *dir, const char *cache, bool hashed)
{
    const struct peer_engine_options o = {
        .model_dir = dir, .memory = ZO_MEMORY_LEAN, .verified = cache};
    struct err_why why = {""};
    struct peer_engine e;
    const double begun = now_s();
    if (peer_engine_open(&e, m, &o, &why) != ERR_OK) {
        fprintf(stderr, "bench_startup: %s\n", why.text);
        return false;
    }
    const double opened = now_s();
    bool ok = losses(&e, 1e-3f, 2);
    const double measured = now_s();
    double plain = 0;
    for (int i = 0; i < PLAIN; i++) {
        const double t = now_s();
        ok = losses(&e, 0, 1) && ok;
        plain = i == 0 || now_s() - t < plain ? now_s() - t : plain;
    }
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    printf("{\"bench\": \"startup\", \"hashed\": %s, \"parameters\": %llu, \"threads\": %zu, \"open_s\": %.3f, "
           "\"first_gradient_s\": %.3f, \"plain_pass_s\": %.3f, \"less_plain_s\": %.3f, "
           "\"bound_s\": 2, \"peak_rss_mb\": %ld}\n",
           hashed ? "true" : "false", (unsigned long long)zo_model_parameters(e.model),
           zo_pool_threads(e.pool), opened - begun, measured - begun, plain,
           measured - begun - plain, u.ru_maxrss / 1024);
    peer_engine_close(&e);
    return ok;
}

int main(int argc, char **argv)
{
    struct peer_manifest m = {.text = NULL};
    struct err_why why = {""};
    if (argc != 4)
        return fprintf(stderr, "usage: bench_startup MANIFEST MODEL_DIR CACHE\n"), 2;
    if (net_start() != ERR_OK || peer_manifest_load(&m, argv[1], &why) != ERR_OK)
        return fprintf(stderr, "bench_startup: %s\n", why.text), 1;
    const bool ok = start(&m, argv[2], argv[3], true) && start(&m, argv[2], argv[3], false);
    peer_manifest_free(&m);
    return ok ? 0 : 1;
}
