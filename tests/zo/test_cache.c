/* Generation with kept keys and values against the plain pass: every causal architecture of
 * tests/vectors/models, whatever the pieces its tokens come in, alone and beside other sequences. */
#include <onebyte/zo/model.h>

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char fixtures[] = "tests/vectors/models";

enum { TOKENS = 24 };

static void ids_make(uint32_t ids[TOKENS], uint32_t vocab, uint32_t salt)
{
    for (uint32_t i = 0; i < TOKENS; i++)
        ids[i] = 5 + (i * i * 7 + i * 3 + salt) % (vocab - 5);
}

static bool row_agrees(const char *dir, const float *got, const float *want, uint32_t vocab, size_t at)
{
    double most = 1.0, off = 0.0;
    for (uint32_t i = 0; i < vocab; i++) {
        const double d = fabs((double)got[i] - (double)want[i]);
        most = fmax(most, fabs((double)want[i]));
        off = !(d <= off) ? d : off;
    }
    if (!(off <= 2e-5 * most))
        printf("%s: logits after token %zu are off by %g of %g\n", dir, at, off, most);
    return off <= 2e-5 * most;
}

/* The tokens in pieces of these sizes, in turn. */
static bool pieces_agree(const char *dir, struct zo_model *m, const size_t *sizes, size_t n_sizes,
                         struct zo_pool *pool)
{
    const uint32_t vocab = zo_model_vocab(m), context = zo_model_context(m),
                   tokens = context < TOKENS ? context : TOKENS;
    uint32_t ids[TOKENS];
    float *want = malloc((size_t)vocab * tokens * sizeof *want), *got = malloc(vocab * sizeof *got);
    struct zo_cache *cache = NULL;
    bool good = true;
    assert_true(want && got);
    ids_make(ids, vocab, 0);
    assert_int_equal(zo_model_logits(m, ids, tokens, want, pool), ERR_OK);
    assert_int_equal(zo_cache_new(&cache, m, tokens, NULL), ERR_OK);
    for (int again = 0; again < 2 && good; again++) { /* a cleared cache is a new one */
        size_t piece = 0;
        for (size_t at = 0; at < tokens && good; piece++) {
            const size_t size = sizes[piece % n_sizes], n = size < tokens - at ? size : tokens - at;
            const struct zo_feed feed = {cache, ids + at, n};
            assert_int_equal(zo_model_extend(m, &feed, 1, got, NULL, pool), ERR_OK);
            at += n;
            good = row_agrees(dir, got, want + (at - 1) * vocab, vocab, at);
        }
        zo_cache_clear(cache);
    }
    zo_cache_free(cache);
    free(want);
    free(got);
    return good;
}

/* Three sequences of different lengths in one call are what each is alone. */
static bool together_agrees(const char *dir, struct zo_model *m, struct zo_pool *pool)
{
    const uint32_t vocab = zo_model_vocab(m);
    const size_t first[3] = {9, 1, 4}, then[3] = {1, 5, 2};
    uint32_t ids[3][TOKENS];
    struct zo_cache *cache[3];
    struct zo_feed feeds[3];
    float *want = malloc((size_t)vocab * TOKENS * sizeof *want), *got = malloc(3 * (size_t)vocab * sizeof *got);
    bool good = true;
    assert_true(want && got);
    for (uint32_t i = 0; i < 3; i++) {
        ids_make(ids[i], vocab, 11 * i);
        assert_int_equal(zo_cache_new(&cache[i], m, 14, NULL), ERR_OK);
        feeds[i] = (struct zo_feed){cache[i], ids[i], first[i]};
    }
    assert_int_equal(zo_model_extend(m, feeds, 3, got, NULL, pool), ERR_OK);
    for (size_t i = 0; i < 3; i++)
        feeds[i] = (struct zo_feed){cache[i], ids[i] + first[i], then[i]};
    assert_int_equal(zo_model_extend(m, feeds, 3, got, NULL, pool), ERR_OK);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(zo_model_logits(m, ids[i], first[i] + then[i], want, pool), ERR_OK);
        good = good && row_agrees(dir, got + i * vocab, want + (first[i] + then[i] - 1) * vocab, vocab, i);
        zo_cache_free(cache[i]);
    }
    free(want);
    free(got);
    return good;
}

static bool folder_agrees(const char *dir, size_t *causal)
{
    static const size_t ones[] = {1}, mixed[] = {5, 1, 1, 7, 2}, whole[] = {TOKENS};
    struct zo_model *m;
    struct zo_pool *pool;
    struct zo_cache *cache = NULL;
    struct err_why why = {{0}};
    assert_int_equal(zo_model_open(&m, dir, NULL), ERR_OK);
    if (!zo_model_is_causal(m)) {
        assert_int_equal(zo_cache_new(&cache, m, 8, &why), ERR_UNSUPPORTED);
        assert_non_null(strstr(why.text, "encoder"));
        zo_model_free(m);
        return true;
    }
    *causal += 1;
    assert_int_equal(zo_pool_new(&pool, 3), ERR_OK);
    bool good = true;
    for (int threads = 0; threads < 2 && good; threads++) {
        struct zo_pool *p = threads ? pool : NULL;
        good = pieces_agree(dir, m, ones, 1, p) && pieces_agree(dir, m, mixed, ARRAY_LEN(mixed), p) &&
               pieces_agree(dir, m, whole, 1, p) && together_agrees(dir, m, p);
    }
    zo_pool_free(pool);
    zo_model_free(m);
    return good;
}

static void kept_keys_and_values_give_the_plain_pass(void **state)
{
    DIR *d = opendir(fixtures);
    const struct dirent *e;
    size_t causal = 0, bad = 0;
    (void)state;
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        char dir[4096];
        if (strchr(e->d_name, '.'))
            continue;
        (void)snprintf(dir, sizeof dir, "%s/%s", fixtures, e->d_name);
        bad += !folder_agrees(dir, &causal);
    }
    closedir(d);
    bad += !folder_agrees("peer/demo/model", &causal);
    assert_int_equal(bad, 0);
    assert_true(causal >= 15);
}

static void refusals_leave_the_cache_as_it_was(void **state)
{
    struct zo_model *m;
    struct zo_cache *cache = NULL;
    uint32_t ids[TOKENS], wrong[1];
    (void)state;
    assert_int_equal(zo_model_open(&m, "tests/vectors/models/llama", NULL), ERR_OK);
    const uint32_t vocab = zo_model_vocab(m);
    float *got = malloc(2 * vocab * sizeof *got), *want = malloc(vocab * sizeof *want);
    assert_true(got && want);
    ids_make(ids, vocab, 3);
    assert_int_equal(zo_cache_new(&cache, m, 0, NULL), ERR_RANGE);
    assert_int_equal(zo_cache_new(&cache, m, zo_model_context(m) + 1, NULL), ERR_RANGE);
    assert_int_equal(zo_cache_new(&cache, m, 6, NULL), ERR_OK);
    struct zo_feed feeds[2] = {{cache, ids, 4}, {cache, ids + 4, 1}};
    assert_int_equal(zo_model_extend(m, feeds, 0, got, NULL, NULL), ERR_RANGE);
    assert_int_equal(zo_model_extend(m, feeds, 2, got, NULL, NULL), ERR_RANGE); /* one cache twice */
    assert_int_equal(zo_model_extend(m, feeds, 1, got, NULL, NULL), ERR_OK);
    feeds[0] = (struct zo_feed){cache, ids + 4, 3}; /* one more than there is room for */
    assert_int_equal(zo_model_extend(m, feeds, 1, got, NULL, NULL), ERR_RANGE);
    feeds[0].n = 0;
    assert_int_equal(zo_model_extend(m, feeds, 1, got, NULL, NULL), ERR_RANGE);
    wrong[0] = vocab;
    feeds[0] = (struct zo_feed){cache, wrong, 1};
    assert_int_equal(zo_model_extend(m, feeds, 1, got, NULL, NULL), ERR_RANGE);
    feeds[0] = (struct zo_feed){cache, ids + 4, 2};
    assert_int_equal(zo_model_extend(m, feeds, 1, got, NULL, NULL), ERR_OK);
    assert_int_equal(zo_model_next(m, ids, 6, want, NULL), ERR_OK);
    assert_true(row_agrees("after refusals", got, want, vocab, 6));
    zo_cache_free(cache);
    zo_cache_free(NULL);
    zo_model_free(m);
    free(got);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_keys_and_values_give_the_plain_pass),
        cmocka_unit_test(refusals_leave_the_cache_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
