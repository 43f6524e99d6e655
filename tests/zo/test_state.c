/* The state is a pure function of a set of records: any order, batching, thread count and variant
 * give the same bits, subtraction restores, the digest from memory agrees with what records say
 * they add, and Freivalds' check sees every change.  The fold is also compared with SPEC 4 written
 * out element by element. */
#include <onebyte/zo/state.h>

#include <onebyte/zo/philox.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t rng_state = 1;

static uint32_t next(void)
{
    rng_state = rng_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(rng_state >> 32);
}

enum { N_TENSORS = 7, N_FOLDS = 12, COUNT_MAX = 90 };

/* Wider and higher than one tile; 64-bit matrix; a column; a scalar; more than one dense chunk. */
static struct zo_tensor tensors[N_TENSORS] = {
    {.name = "a", .n_dims = 2, .dims = {300, 41}, .bits = 32, .e = 26},
    {.name = "b", .n_dims = 2, .dims = {5, 801}, .bits = 32, .e = 26},
    {.name = "c", .n_dims = 2, .dims = {19, 33}, .bits = 64, .e = 50},
    {.name = "d", .n_dims = 1, .dims = {2500}, .bits = 64, .e = 50},
    {.name = "e", .n_dims = 0, .bits = 64, .e = 50},
    {.name = "f", .n_dims = 1, .dims = {70}, .bits = 32, .e = 24},
    {.name = "g", .n_dims = 3, .dims = {6, 2, 3}, .bits = 32, .e = 27},
};

struct world {
    struct zo_rules rules;
    struct zo_fold folds[N_FOLDS];
    int8_t codes[N_FOLDS][COUNT_MAX];
    uint8_t counts[N_FOLDS][COUNT_MAX];
};

/* A dozen segments of a few machines: voids, zeros, refused records, loud ones, seqs beyond 2^32,
 * equal coefficients. */
static void make_world(struct world *w, enum zo_direction direction)
{
    rng_state = 42;
    memset(w, 0, sizeof *w);
    w->rules = (struct zo_rules){.direction = direction,
                                 .sides = 2,
                                 .k = 1,
                                 .n0 = 16,
                                 .steps = 1000,
                                 .n_knots = 2,
                                 .knots = {{0, UINT64_C(1) << 44}, {1000, 1000}},
                                 .n_tensors = N_TENSORS,
                                 .tensors = tensors};
    for (size_t i = 0; i < N_FOLDS; i++) {
        struct zo_fold *f = &w->folds[i];
        f->key[0] = 77 * (uint32_t)(i % 3);
        f->key[1] = 5;
        f->first_seq = i < 6 ? i * COUNT_MAX : (UINT64_C(3) << 32) - 10 + i * COUNT_MAX;
        f->count = 1 + next() % COUNT_MAX;
        f->step = i % 4 * 100;
        f->lag = i % 2 ? f->count : 40;
        f->codes = w->codes[i];
        f->counts = i % 5 ? w->counts[i] : NULL;
        for (uint32_t r = 0; r < f->count; r++) {
            w->codes[i][r] = (int8_t)(i == 3            ? 127
                                      : next() % 9 == 0 ? -128
                                                        : (int)(next() % 255) - 127);
            w->counts[i][r] = next() % 7 != 0;
        }
    }
}

static struct zo_state *new_state(const struct zo_rules *rules)
{
    static const uint32_t key[2] = {11, 12};
    struct zo_state *s = NULL;
    rng_state = 7;
    assert_int_equal(zo_state_new(&s, rules, key), ERR_OK);
    for (uint32_t t = 0; t < rules->n_tensors; t++) {
        for (uint64_t i = 0; i < zo_tensor_elements(&rules->tensors[t]); i++) {
            if (rules->tensors[t].bits == 32)
                ((int32_t *)s->m[t])[i] = (int32_t)next() >> 5;
            else
                ((int64_t *)s->m[t])[i] = (int64_t)((uint64_t)next() << 32 | next()) >> 9;
        }
    }
    return s;
}

static uint8_t *bytes_of(const struct zo_state *s)
{
    uint8_t *b = malloc((size_t)zo_state_bytes(s));
    assert_non_null(b);
    zo_state_get_bytes(s, 0, b, (size_t)zo_state_bytes(s));
    return b;
}

static int bit(const uint32_t key[2], uint32_t domain, uint32_t t, uint64_t seq, uint64_t i)
{
    const struct zo_stream s = zo_stream(key, domain, t, seq);
    uint32_t w[4];
    zo_stream_block(w, &s, (uint32_t)(i / 128));
    return w[i / 32 % 4] >> (i % 32) & 1 ? 1 : -1;
}

static int direction(const struct zo_rules *r, const uint32_t key[2], uint32_t t, uint64_t seq,
                     uint64_t i)
{
    const uint64_t cols = zo_tensor_cols(&r->tensors[t]);
    if (r->direction == ZO_GAUSSIAN) {
        const struct zo_stream s = zo_stream(key, ZO_DOMAIN_GAUSS, t, seq);
        uint32_t w[4];
        zo_stream_block(w, &s, (uint32_t)(i / 2));
        return __builtin_popcount(w[i % 2 * 2]) + __builtin_popcount(w[i % 2 * 2 + 1]) - 32;
    }
    if (r->direction == ZO_RANK1 && zo_tensor_is_matrix(&r->tensors[t]))
        return bit(key, ZO_DOMAIN_A, t, seq, i / cols) * bit(key, ZO_DOMAIN_B, t, seq, i % cols);
    return bit(key, ZO_DOMAIN_DENSE, t, seq, i);
}

/* SPEC 4, record by record, for every stride-th element; the others are not looked at. */
static void check_by_definition(const struct world *w, const struct zo_state *before,
                                const struct zo_state *after)
{
    enum { STRIDE = 37 };
    for (uint32_t t = 0; t < N_TENSORS; t++) {
        for (uint64_t i = 0; i < zo_tensor_elements(&tensors[t]); i += STRIDE) {
            uint64_t m = tensors[t].bits == 32 ? ((uint32_t *)before->m[t])[i]
                                               : ((uint64_t *)before->m[t])[i];
            for (size_t f = 0; f < N_FOLDS; f++) {
                const struct zo_fold *fold = &w->folds[f];
                const uint64_t coef = zo_coef(zo_lambda(&w->rules, fold->step),
                                              zo_weight(16, fold->lag), tensors[t].e);
                const uint64_t l = zo_coef_bounded(&w->rules, coef, fold->codes, fold->count);
                for (uint32_t r = 0; r < fold->count; r++)
                    if (fold->codes[r] != -128 && (!fold->counts || fold->counts[r]))
                        m -= (uint64_t)(int64_t)(fold->codes[r] * direction(&w->rules, fold->key, t,
                                                                            fold->first_seq + r,
                                                                            i)) *
                             l;
            }
            if (tensors[t].bits == 32)
                assert_int_equal((uint32_t)m, ((uint32_t *)after->m[t])[i]);
            else
                assert_true(m == ((uint64_t *)after->m[t])[i]);
        }
    }
}

static void fold_all(struct zo_state *s, const struct zo_fold *f, size_t n, const char *variant,
                     struct zo_pool *pool)
{
    assert_int_equal(zo_state_fold(s, f, n, zo_kernels_pick(variant), pool), ERR_OK);
}

static void by_definition(void **state)
{
    static struct world w;
    (void)state;
    for (int d = ZO_RANK1; d <= ZO_GAUSSIAN; d++) {
        make_world(&w, (enum zo_direction)d);
        struct zo_state *before = new_state(&w.rules), *after = new_state(&w.rules);
        fold_all(after, w.folds, N_FOLDS, "auto", NULL);
        check_by_definition(&w, before, after);
        zo_state_free(before);
        zo_state_free(after);
    }
}

/* Folds the segments in some order, some at a time, on some pool. */
static uint8_t *folded(const struct world *w, size_t batch, bool reverse, const char *variant,
                       size_t threads)
{
    struct zo_pool *pool = NULL;
    struct zo_fold order[N_FOLDS];
    assert_int_equal(zo_pool_new(&pool, threads), ERR_OK);
    struct zo_state *s = new_state(&w->rules);
    for (size_t i = 0; i < N_FOLDS; i++)
        order[i] = w->folds[reverse ? N_FOLDS - 1 - i : i];
    for (size_t i = 0; i < N_FOLDS; i += batch)
        fold_all(s, order + i, N_FOLDS - i < batch ? N_FOLDS - i : batch, variant, pool);
    uint8_t *b = bytes_of(s);
    zo_state_free(s);
    zo_pool_free(pool);
    return b;
}

static void any_order_batch_thread_and_variant(void **state)
{
    static struct world w;
    static const char *const variants[] = {"ref", "avx2", "avx512"};
    (void)state;
    for (int d = ZO_RANK1; d <= ZO_GAUSSIAN; d++) {
        make_world(&w, (enum zo_direction)d);
        uint64_t n = 0;
        for (uint32_t t = 0; t < N_TENSORS; t++)
            n += zo_tensor_elements(&tensors[t]) * (tensors[t].bits / 8);
        uint8_t *want = folded(&w, N_FOLDS, false, "auto", 1);
        for (size_t v = 0; v < ARRAY_LEN(variants); v++) {
            if (!zo_kernels_pick(variants[v]))
                continue;
            uint8_t *got = folded(&w, 5, true, variants[v], 3);
            assert_memory_equal(got, want, n);
            free(got);
        }
        uint8_t *got = folded(&w, 1, true, "auto", 2);
        assert_memory_equal(got, want, n);
        free(got);
        free(want);
    }
}

static void subtraction_restores(void **state)
{
    static struct world w;
    (void)state;
    for (int d = ZO_RANK1; d <= ZO_GAUSSIAN; d++) {
        make_world(&w, (enum zo_direction)d);
        struct zo_state *s = new_state(&w.rules);
        uint8_t *want = bytes_of(s);
        fold_all(s, w.folds, N_FOLDS, "auto", NULL);
        for (size_t i = 0; i < N_FOLDS; i++)
            w.folds[i].subtract = true;
        fold_all(s, w.folds + 4, N_FOLDS - 4, "auto", NULL);
        fold_all(s, w.folds, 4, "auto", NULL);
        uint8_t *got = bytes_of(s);
        assert_memory_equal(got, want, (size_t)zo_state_bytes(s));
        fold_all(s, w.folds, 0, "auto", NULL);
        free(got);
        free(want);
        zo_state_free(s);
    }
}

/* digest(after) = digest(before) + delta, as long as nothing leaves its width: small coefficients.
 */
static void digest_delta(void **state)
{
    static struct world w;
    const uint64_t p = (UINT64_C(1) << 61) - 1;
    (void)state;
    for (int d = ZO_RANK1; d <= ZO_GAUSSIAN; d++) {
        make_world(&w, (enum zo_direction)d);
        w.rules.knots[0].y = UINT64_C(1) << 42;
        struct zo_state *s = new_state(&w.rules);
        uint64_t digest = zo_state_digest(s, zo_kernels_pick("ref"), NULL);
        for (size_t i = 0; i < N_FOLDS; i += 4) {
            w.folds[i].subtract = i == 8;
            const uint64_t delta = zo_state_digest_delta(s, w.folds + i, 4, NULL);
            assert_true(delta < p && delta != 0);
            fold_all(s, w.folds + i, 4, "auto", NULL);
            digest = (digest + delta) % p;
            assert_true(zo_state_digest(s, zo_kernels_pick("auto"), NULL) == digest);
        }
        assert_true(zo_state_digest_delta(s, w.folds, 0, NULL) == 0);
        zo_state_free(s);
    }
}

static void proofs(void **state)
{
    static struct world w;
    static const uint32_t key[2] = {0x5ec4e7, 1};
    struct zo_pool *pool = NULL;
    const struct zo_kernels *k = zo_kernels_pick("auto");
    (void)state;
    assert_int_equal(zo_pool_new(&pool, 2), ERR_OK);
    for (int d = ZO_RANK1; d <= ZO_GAUSSIAN; d++) {
        uint64_t probes[N_TENSORS];
        uint32_t at = 99;
        make_world(&w, (enum zo_direction)d);
        w.rules.knots[0].y = UINT64_C(1) << 42;
        struct zo_state *s = new_state(&w.rules);
        zo_state_probe(s, probes, key, k, pool);
        fold_all(s, w.folds, N_FOLDS, "auto", pool);
        assert_int_equal(zo_state_prove(s, probes, key, w.folds, N_FOLDS, &at, k, pool), ERR_OK);
        assert_int_equal(zo_state_prove(s, probes, key, w.folds, N_FOLDS - 1, &at, k, pool),
                         ERR_PROTO);
        for (uint32_t t = 0; t < N_TENSORS; t++) { /* one wrong bit, anywhere */
            uint8_t *byte =
                (uint8_t *)s->m[t] + (zo_tensor_elements(&tensors[t]) - 1) * (tensors[t].bits / 8);
            *byte ^= 1;
            assert_int_equal(zo_state_prove(s, probes, key, w.folds, N_FOLDS, &at, k, pool),
                             ERR_PROTO);
            assert_int_equal(at, t);
            *byte ^= 1;
        }
        /* a multiple of p is invisible to residues: refused by its size */
        ((int64_t *)s->m[2])[5] += (INT64_C(1) << 61) - 1;
        assert_int_equal(zo_state_prove(s, probes, key, w.folds, N_FOLDS, &at, k, pool), ERR_RANGE);
        assert_int_equal(at, 2);
        zo_state_free(s);
    }
    zo_pool_free(pool);
}

static void loading(void **state)
{
    struct zo_tensor two[] = {{.n_dims = 1, .dims = {8}, .bits = 32, .e = 2},
                              {.n_dims = 1, .dims = {8}, .bits = 64, .e = 40}};
    const struct zo_rules rules = {.n_tensors = 2, .tensors = two};
    static const uint32_t key[2] = {0, 0};
    /* in units of 1/4: ties go to even */
    static const double ties[8] = {0.125,     0.375,   -0.125,      -0.375,
                                   0.1250001, -0.3749, 67108863.75, -67108863.75};
    static const int32_t want[8] = {0, 2, 0, -2, 1, -1, 268435455, -268435455};
    static const double bad[] = {67108864.0, -67108864.0, 67108863.9, NAN,
                                 INFINITY,   -INFINITY,   1e300};
    float read[8];
    struct zo_state *s = NULL;
    (void)state;
    assert_int_equal(zo_state_new(&s, &rules, key), ERR_OK);
    assert_int_equal(zo_state_load_f64(s, 0, 0, ties, 8), ERR_OK);
    assert_memory_equal(s->m[0], want, sizeof want);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const double two_values[2] = {1, bad[i]};
        const float two_floats[2] = {1, (float)bad[i]};
        assert_int_equal(zo_state_load_f64(s, 0, 3, two_values, 2), ERR_RANGE);
        assert_int_equal(zo_state_load_f32(s, 0, 3, two_floats, 2), ERR_RANGE);
        assert_memory_equal(s->m[0], want, sizeof want); /* untouched */
    }
    const double top = 0x1p16; /* 2^56 at e = 40 */
    assert_int_equal(zo_state_load_f64(s, 1, 0, &top, 1), ERR_RANGE);
    const float values[3] = {1.5f, -0x1p-40f, 0x1p-42f};
    assert_int_equal(zo_state_load_f32(s, 1, 2, values, 3), ERR_OK);
    const int64_t *m = s->m[1];
    assert_true(m[1] == 0 && m[2] == INT64_C(3) << 39 && m[3] == -1 && m[4] == 0);
    zo_state_read_f32(s, 1, 2, read, 3);
    assert_true(read[0] == 1.5f && read[1] == -0x1p-40f && read[2] == 0.0f);
    zo_state_read_f32(s, 0, 1, read, 1);
    assert_true(read[0] == 0.5f);
    zo_state_free(s);
    zo_state_free(NULL);
}

static void bytes_and_headroom(void **state)
{
    static struct world w;
    (void)state;
    make_world(&w, ZO_RANK1);
    struct zo_state *s = new_state(&w.rules), *copy = new_state(&w.rules);
    const size_t n = (size_t)zo_state_bytes(s);
    fold_all(s, w.folds, N_FOLDS, "auto", NULL);
    uint8_t *b = bytes_of(s);
    for (size_t at = 0, piece = 1; at < n;
         at += piece, piece = piece % 9973 + 13) { /* cut anywhere, also inside elements */
        uint8_t part[10000];
        const size_t now = n - at < piece ? n - at : piece;
        zo_state_set_bytes(copy, at, b + at, now);
        zo_state_get_bytes(copy, at, part, now);
        assert_memory_equal(part, b + at, now);
    }
    for (uint32_t t = 0; t < N_TENSORS; t++)
        assert_memory_equal(s->m[t], copy->m[t],
                            (size_t)zo_tensor_elements(&tensors[t]) * (tensors[t].bits / 8));
    assert_int_equal(b[0], ((uint32_t *)s->m[0])[0] & 255); /* little-endian */
    free(b);
    zo_state_free(copy);
    zo_state_free(s);

    s = new_state(&w.rules);
    assert_int_equal(zo_state_headroom(s, NULL), -1);
    ((int64_t *)s->m[3])[2499] = (INT64_C(1) << 62) - 1;
    ((int32_t *)s->m[5])[69] = -(INT32_C(1) << 30) + 1;
    assert_int_equal(zo_state_headroom(s, NULL), -1);
    ((int32_t *)s->m[5])[69]--;
    assert_int_equal(zo_state_headroom(s, NULL), 5);
    ((int64_t *)s->m[3])[2499] = INT64_MIN;
    assert_int_equal(zo_state_headroom(s, NULL), 3);
    ((int32_t *)s->m[1])[0] = INT32_MIN;
    assert_int_equal(zo_state_headroom(s, NULL), 1);
    zo_state_free(s);
}

/* More records than one product holds, all loud: products are cut so that int16 sums stay exact. */
static void many_loud_records(void **state)
{
    static int8_t codes[3][400];
    static struct world w;
    struct zo_fold folds[3];
    (void)state;
    make_world(&w, ZO_RANK1);
    for (size_t i = 0; i < 3; i++) {
        memset(codes[i], i == 1 ? -127 : 127, sizeof codes[i]);
        folds[i] = (struct zo_fold){.key = {1, 2},
                                    .first_seq = i * 400,
                                    .count = 400,
                                    .step = 1,
                                    .lag = 400,
                                    .codes = codes[i]};
    }
    struct zo_state *all = new_state(&w.rules), *ref = new_state(&w.rules);
    fold_all(all, folds, 3, "auto", NULL);
    fold_all(ref, folds, 3, "ref", NULL);
    uint8_t *a = bytes_of(all), *b = bytes_of(ref);
    assert_memory_equal(a, b, (size_t)zo_state_bytes(all));
    free(a);
    free(b);
    zo_state_free(all);
    zo_state_free(ref);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_definition),
        cmocka_unit_test(any_order_batch_thread_and_variant),
        cmocka_unit_test(subtraction_restores),
        cmocka_unit_test(digest_delta),
        cmocka_unit_test(proofs),
        cmocka_unit_test(loading),
        cmocka_unit_test(bytes_and_headroom),
        cmocka_unit_test(many_loud_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
