/* bench_audit: the losses that an author measures, as numbers, for one setting of this machine; bench/audit.py compares settings.
 *
 *     bench_audit MODEL DATA SIDES EPS RECORDS KERNELS THREADS lean|fast GROUPS_PER_CALL
 *
 * The run's manifest is made anew (its key is fixed, so that every process measures the same records), 2,000 random records are
 * folded first: the state is no checkpoint's.  stdout: a line of JSON, then per group its first seq and its losses, %.17g. */
#include "peer/engine.h"
#include "peer/group.h"
#include "peer/make.h"
#include "tests/net/few.h"
#include <stdio.h>

enum { FOLDED = 2000 };

static void check(enum err e, const struct err_why *why)
{
    if (e == ERR_OK)
        return;
    fprintf(stderr, "bench_audit: %s: %s\n", err_str(e), why->text);
    exit(1);
}

/* Sums of 12 uniform numbers: as good as normal here. */
static void fold_some(struct peer_engine *e)
{
    static int8_t codes[FOLDED];
    uint32_t x = 1;
    for (size_t i = 0; i < FOLDED; i++) {
        int sum = 0;
        for (int j = 0; j < 12; j++) {
            x = x * 1664525u + 1013904223u;
            sum += (int)(x >> 24) - 128;
        }
        const int v = sum / 8;
        codes[i] = (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
    }
    const struct zo_fold f = {.key = {3, 4}, .count = FOLDED, .lag = 64, .codes = codes};
    struct err_why why = {{0}};
    check(zo_state_fold(e->state, &f, 1, e->kernels, e->pool), &why);
    check(zo_model_refresh(e->model, e->pool), &why);
}

static void measure(struct peer_engine *e, const struct zo_dataset *d, size_t groups, size_t batch)
{
    const struct zo_rules *r = &e->manifest->rules;
    const uint32_t per = peer_group_passes_n(r), key[2] = {11, 12};
    struct err_why why = {{0}};
    struct zo_pass *passes = calloc(batch * per, sizeof *passes);
    struct zo_loss *losses = calloc(batch * per, sizeof *losses);
    ENSURE(passes && losses);
    for (size_t i = 0; i < groups; i += batch) {
        const size_t n = groups - i < batch ? groups - i : batch;
        for (size_t j = 0; j < n; j++)
            peer_group_passes(passes + j * per, r, d, key, (i + j) * r->k);
        check(zo_model_losses(e->model, passes, n * per, losses, e->kernels, e->pool), &why);
        for (size_t j = 0; j < n; j++) {
            printf("%zu", (i + j) * r->k);
            for (uint32_t p = 0; p < per; p++)
                printf(" %.17g", losses[j * per + p].loss);
            printf("\n");
        }
    }
    free(passes);
    free(losses);
}

int main(int argc, char **argv)
{
    struct peer_make k;
    struct peer_made made;
    struct peer_manifest m = {0};
    struct peer_engine e;
    struct zo_dataset *data = NULL;
    struct err_why why = {{0}};
    struct few_key key = few_key(1);
    struct net_identity owner = few_identity(&key);
    if (argc < 10)
        return 2;
    check(net_start(), &why);
    check(zo_blas_start(&why), &why);
    peer_make_defaults(&k);
    k.flags.model = argv[1];
    k.data = argv[2];
    k.sides = strtoull(argv[3], NULL, 10);
    k.eps = strtod(argv[4], NULL);
    k.public_data = true;
    check(peer_make_manifest(&m, &made, &k, &owner, &why), &why);
    const struct peer_engine_options o = {.model_dir = argv[1], .kernels = argv[6], .threads = strtoull(argv[7], NULL, 10),
                                          .memory = strcmp(argv[8], "fast") == 0 ? ZO_MEMORY_FAST : ZO_MEMORY_LEAN};
    check(peer_engine_open(&e, &m, &o, &why), &why);
    check(peer_engine_data(&e, &data, argv[2], &why), &why);
    fold_some(&e);
    const size_t groups = strtoull(argv[5], NULL, 10) / m.rules.k;
    printf("{\"kernels\":\"%s\",\"blas\":\"%s\",\"parameters\":%llu,\"k\":%u,\"sides\":%u,\"eps\":%.9g}\n", zo_kernels_name(e.kernels),
           zo_blas_core(), (unsigned long long)made.parameters, m.rules.k, m.rules.sides, (double)m.rules.eps);
    measure(&e, data, groups < 1 ? 1 : groups, strtoull(argv[9], NULL, 10));
    zo_dataset_free(data);
    peer_engine_close(&e);
    peer_manifest_free(&m);
    return 0;
}
