/* bench_real: opening a large checkpoint, and generation with kept keys and values against recomputing.
 *
 *     bench_real load DIR                      seconds and memory of zo_model_open, then of one plain pass
 *     bench_real generate DIR PROMPT TOKENS    seconds of CPU for TOKENS after PROMPT tokens, both ways, in turn; equal tokens
 *
 * One thread; JSON lines on stdout; exit 0, 1 (failed), 2 usage. */
#include "peer/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 3 };

/* CLOCK_PROCESS_CPUTIME_ID where one thread's work is compared: a busy machine does not count. */
static double now_s(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* kB of a line of /proc/self/status; -1: not there. */
static long status_kb(const char *key)
{
    char line[256];
    long kb = -1;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            kb = strtol(line + strlen(key) + 1, NULL, 10);
    if (f)
        (void)fclose(f);
    return kb;
}

static int load(const char *dir)
{
    struct zo_model *m = NULL;
    struct err_why why = {{0}};
    uint32_t ids[16];
    const long anon = status_kb("RssAnon"), file = status_kb("RssFile");
    const double begun = now_s(CLOCK_MONOTONIC);
    if (zo_model_open(&m, dir, &why) != ERR_OK)
        return fprintf(stderr, "bench_real: %s\n", why.text), 1;
    const double opened = now_s(CLOCK_MONOTONIC) - begun;
    const long anon_open = status_kb("RssAnon") - anon, file_open = status_kb("RssFile") - file;
    for (uint32_t i = 0; i < ARRAY_LEN(ids); i++)
        ids[i] = i % zo_model_vocab(m);
    float *logits = malloc(zo_model_vocab(m) * sizeof *logits);
    const double pass = now_s(CLOCK_PROCESS_CPUTIME_ID);
    const bool ok = logits && zo_model_next(m, ids, ARRAY_LEN(ids), logits, NULL) == ERR_OK;
    printf("{\"bench\": \"load\", \"parameters\": %llu, \"open_s\": %.4f, \"open_anon_kb\": %ld, \"open_file_kb\": %ld, "
           "\"pass_cpu_s\": %.3f, \"pass_anon_kb\": %ld, \"pass_file_kb\": %ld}\n",
           (unsigned long long)zo_model_parameters(m), opened, anon_open, file_open, now_s(CLOCK_PROCESS_CPUTIME_ID) - pass,
           status_kb("RssAnon") - anon, status_kb("RssFile") - file);
    free(logits);
    zo_model_free(m);
    return ok ? 0 : 1;
}

static uint32_t best_of(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

/* ids [n] grow by `tokens`; cache NULL: the whole text again for each. */
static bool write_tokens(struct zo_model *m, struct zo_cache *cache, uint32_t *ids, size_t n,
                         size_t tokens, float *logits)
{
    for (size_t at = 0; at < tokens; at++) {
        const struct zo_feed feed = {cache, at ? ids + n + at - 1 : ids, at ? 1 : n};
        const enum err e = cache ? zo_model_extend(m, &feed, 1, logits, NULL, NULL)
                                 : zo_model_next(m, ids, n + at, logits, NULL);
        if (e != ERR_OK)
            return false;
        ids[n + at] = best_of(logits, zo_model_vocab(m));
    }
    return true;
}

static int generate(const char *dir, size_t n, size_t tokens)
{
    struct zo_model *m = NULL;
    struct zo_cache *cache = NULL;
    struct err_why why = {{0}};
    if (zo_model_open(&m, dir, &why) != ERR_OK ||
        zo_cache_new(&cache, m, (uint32_t)(n + tokens), &why) != ERR_OK)
        return fprintf(stderr, "bench_real: %s\n", why.text), 1;
    uint32_t *a = calloc(n + tokens, sizeof *a), *b = calloc(n + tokens, sizeof *b);
    float *logits = malloc(zo_model_vocab(m) * sizeof *logits);
    bool ok = a && b && logits;
    for (size_t i = 0; ok && i < n; i++)
        a[i] = b[i] = (uint32_t)(i * i * 7 + 3) % zo_model_vocab(m);
    for (int r = 0; r < ROUNDS && ok; r++) {
        const double begun = now_s(CLOCK_PROCESS_CPUTIME_ID);
        zo_cache_clear(cache);
        ok = write_tokens(m, cache, a, n, tokens, logits);
        const double kept = now_s(CLOCK_PROCESS_CPUTIME_ID) - begun;
        ok = ok && write_tokens(m, NULL, b, n, tokens, logits);
        const double recomputed = now_s(CLOCK_PROCESS_CPUTIME_ID) - begun - kept;
        size_t same = 0;
        while (same < n + tokens && a[same] == b[same])
            same++;
        printf("{\"bench\": \"generate\", \"prompt\": %zu, \"tokens\": %zu, \"kept_s\": %.4f, \"recomputed_s\": %.4f, "
               "\"ratio\": %.2f, \"equal\": %s}\n",
               n, tokens, kept, recomputed, recomputed / kept,
               same == n + tokens ? "true" : "false");
    }
    free(a);
    free(b);
    free(logits);
    zo_cache_free(cache);
    zo_model_free(m);
    return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct err_why why = {{0}};
    if (zo_blas_start(&why) != ERR_OK)
        return fprintf(stderr, "bench_real: %s\n", why.text), 1;
    if (argc == 3 && strcmp(argv[1], "load") == 0)
        return load(argv[2]);
    if (argc == 5 && strcmp(argv[1], "generate") == 0)
        return generate(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10));
    return fprintf(stderr, "usage: bench_real load DIR | generate DIR PROMPT TOKENS\n"), 2;
}
