/* The device's state is the CPU's, bit for bit: the real kernels, run on the CPU (tests/cuda/emulate.h), fold the same
 * segments as zo_state_fold with the reference kernels.  State, digest and headroom are compared. */
#include "tests/cuda/open.h"

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

/* More rows, and more columns, than a tile; a 64-bit matrix; columns of both widths; a scalar. */
static struct zo_tensor tensors[N_TENSORS] = {
    {.name = "a", .n_dims = 2, .dims = {139, 41}, .bits = 32, .e = 26},
    {.name = "b", .n_dims = 2, .dims = {5, 261}, .bits = 32, .e = 26},
    {.name = "c", .n_dims = 2, .dims = {19, 33}, .bits = 64, .e = 50},
    {.name = "d", .n_dims = 1, .dims = {2500}, .bits = 64, .e = 50},
    {.name = "e", .n_dims = 0, .bits = 64, .e = 50},
    {.name = "f", .n_dims = 1, .dims = {70}, .bits = 32, .e = 24},
    {.name = "g", .n_dims = 3, .dims = {6, 2, 3}, .bits = 32, .e = 9},
};

struct world {
    struct zo_rules rules;
    struct zo_fold folds[N_FOLDS];
    int8_t codes[N_FOLDS][COUNT_MAX];
    uint8_t counts[N_FOLDS][COUNT_MAX];
};

/* Voids, zeros, refused records, loud ones, seqs beyond 2^32, equal and different coefficients, subtraction; tensor g's
 * coefficients are 0 from some step on. */
static void make_world(struct world *w, enum zo_direction direction)
{
    rng_state = 42;
    memset(w, 0, sizeof *w);
    w->rules = (struct zo_rules){.direction = direction, .sides = 2, .k = 1, .n0 = 16, .steps = 1000, .n_knots = 2,
                                 .knots = {{0, UINT64_C(1) << 55}, {1000, 1000}}, .n_tensors = N_TENSORS,
                                 .tensors = tensors};
    for (size_t i = 0; i < N_FOLDS; i++) {
        struct zo_fold *f = &w->folds[i];
        f->key[0] = 77 * (uint32_t)(i % 3);
        f->key[1] = 5;
        f->first_seq = i < 6 ? i * COUNT_MAX : (UINT64_C(3) << 32) - 10 + i * COUNT_MAX;
        f->count = 1 + next() % COUNT_MAX;
        f->step = (uint32_t)(i % 4 * 333);
        f->lag = i % 2 ? f->count : 40;
        f->codes = w->codes[i];
        f->counts = i % 5 ? w->counts[i] : NULL;
        f->subtract = i % 6 == 5;
        for (uint32_t r = 0; r < f->count; r++) {
            w->codes[i][r] = (int8_t)(i == 3 ? 127 : next() % 9 == 0 ? -128 : (int)(next() % 255) - 127);
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
    for (uint32_t t = 0; t < rules->n_tensors; t++)
        for (uint64_t i = 0; i < zo_tensor_elements(&rules->tensors[t]); i++) {
            if (rules->tensors[t].bits == 32)
                ((int32_t *)s->m[t])[i] = (int32_t)next() >> 2; /* sums wrap, as the arithmetic says */
            else
                ((int64_t *)s->m[t])[i] = (int64_t)((uint64_t)next() << 32 | next()) >> 2;
        }
    return s;
}

static struct zo_device *new_device(struct zo_state *s)
{
    struct zo_device *d = NULL;
    struct err_why why;
    assert_int_equal(open_any(&d, &why), ERR_OK);
    assert_int_equal(zo_cuda_state_load(d, s, &why), ERR_OK);
    return d;
}

static void assert_states_equal(const struct zo_state *a, const struct zo_state *b)
{
    for (uint32_t t = 0; t < a->rules->n_tensors; t++) {
        const struct zo_tensor *z = &a->rules->tensors[t];
        assert_memory_equal(a->m[t], b->m[t], (size_t)zo_tensor_elements(z) * z->bits / 8);
    }
}

static void the_fold_is_the_cpus(void **state)
{
    static const enum zo_direction kinds[] = {ZO_RANK1, ZO_RADEMACHER, ZO_GAUSSIAN};
    static struct world w;
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        make_world(&w, kinds[k]);
        const struct zo_kernels *ref = zo_kernels_pick("ref");
        struct zo_state *cpu = new_state(&w.rules), *gpu = new_state(&w.rules), *before = new_state(&w.rules);
        struct zo_device *d = new_device(gpu);
        uint64_t digest = 0;
        d->launch_most = 300 * ZO_CUDA_GROUP; /* large vectors: a group at a time; small ones: some; a scalar: all */
        assert_int_equal(zo_device_digest(d, &digest), ERR_OK);
        assert_true(digest == zo_state_digest(cpu, ref, NULL));
        for (size_t at = 0, n; at < N_FOLDS; at += n) { /* 5, then the rest */
            n = at == 0 ? 5 : N_FOLDS - at;
            assert_int_equal(zo_state_fold(cpu, w.folds + at, n, ref, NULL), ERR_OK);
            assert_int_equal(zo_device_fold(d, w.folds + at, n), ERR_OK);
            assert_int_equal(zo_device_digest(d, &digest), ERR_OK);
            assert_true(digest == zo_state_digest(cpu, ref, NULL));
        }
        assert_states_equal(gpu, before); /* the host's copy lags */
        assert_int_equal(zo_device_pull(d), ERR_OK);
        assert_states_equal(gpu, cpu);
        assert_true(memcmp(cpu->m[0], before->m[0], 4) != 0 || memcmp(cpu->m[3], before->m[3], 8) != 0);
        zo_device_free(d);
        assert_true(emu_used == 0);
        zo_state_free(cpu);
        zo_state_free(gpu);
        zo_state_free(before);
    }
}

static void headroom_names_the_first_tensor(void **state)
{
    static struct world w;
    (void)state;
    make_world(&w, ZO_RANK1);
    struct zo_state *s = new_state(&w.rules);
    int64_t t = 0;
    for (uint32_t i = 0; i < N_TENSORS; i++)
        memset(s->m[i], 0, (size_t)zo_tensor_elements(&tensors[i]) * tensors[i].bits / 8);
    struct zo_device *d = new_device(s);
    assert_int_equal(zo_device_headroom(d, &t), ERR_OK);
    assert_int_equal(t, -1);
    ((int32_t *)s->m[5])[69] = -(1 << 30);
    ((int64_t *)s->m[3])[2499] = INT64_MIN;
    assert_int_equal(zo_device_push(d), ERR_OK);
    assert_int_equal(zo_device_headroom(d, &t), ERR_OK);
    assert_int_equal(t, zo_state_headroom(s, NULL));
    assert_int_equal(t, 3);
    ((int64_t *)s->m[3])[2499] = (INT64_C(1) << 62) - 1; /* just inside */
    assert_int_equal(zo_device_push(d), ERR_OK);
    assert_int_equal(zo_device_headroom(d, &t), ERR_OK);
    assert_int_equal(t, 5);
    zo_device_free(d);
    zo_state_free(s);
}

/* Whatever call fails: a code, nothing leaked, and a device that lost half a fold says so from then on. */
static void a_lost_device_stays_lost(void **state)
{
    static struct world w;
    (void)state;
    EMULATION_ONLY();
    make_world(&w, ZO_RANK1);
    struct zo_state *s = new_state(&w.rules);
    struct zo_device *d = NULL;
    struct err_why why;
    uint64_t digest;
    d = new_device(s);
    const uint64_t first = emu_calls;
    assert_int_equal(zo_device_fold(d, w.folds, N_FOLDS), ERR_OK);
    assert_int_equal(zo_device_digest(d, &digest), ERR_OK);
    const uint64_t calls = emu_calls - first;
    zo_device_free(d);
    for (uint64_t k = 1; k <= calls; k += 5) {
        d = new_device(s);
        emu_fail_at = emu_calls + k;
        enum err e = zo_device_fold(d, w.folds, N_FOLDS);
        if (e == ERR_OK)
            e = zo_device_digest(d, &digest);
        assert_int_equal(e, ERR_DEVICE);
        emu_fail_at = 0;
        assert_int_equal(zo_device_digest(d, &digest), ERR_DEVICE);
        assert_int_equal(zo_device_pull(d), ERR_DEVICE);
        assert_true(strlen(zo_device_error(d)) > 0);
        zo_device_free(d);
        assert_true(emu_used == 0);
    }
    emu_memory = 1 << 10; /* too little for the parameters */
    assert_int_equal(zo_device_open_table(&d, onebyte_cuda_api(), 0, &why), ERR_OK);
    assert_int_equal(zo_cuda_state_load(d, s, &why), ERR_NOMEM);
    assert_non_null(strstr(why.text, "too little memory"));
    zo_device_free(d);
    assert_true(emu_used == 0);
    emu_memory = (uint64_t)4 << 30;
    zo_state_free(s);
}

static void what_is_no_device_is_refused(void **state)
{
    struct zo_device *d = NULL;
    struct err_why why;
    struct zo_cuda_api other = *onebyte_cuda_api();
    (void)state;
    assert_int_equal(zo_device_open(&d, "./no/such/plugin.so", 0, &why), ERR_NOTFOUND);
    assert_int_equal(zo_device_open(&d, "libm.so.6", 0, &why), ERR_UNSUPPORTED);
    assert_int_equal(zo_device_open_table(&d, onebyte_cuda_api(), 7, &why), ERR_NOTFOUND);
    other.version++;
    assert_int_equal(zo_device_open_table(&d, &other, 0, &why), ERR_UNSUPPORTED);
    other.version--;
    other.bytes--;
    assert_int_equal(zo_device_open_table(&d, &other, 0, &why), ERR_UNSUPPORTED);
    assert_null(d);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fold_is_the_cpus),
        cmocka_unit_test(headroom_names_the_first_tensor),
        cmocka_unit_test(a_lost_device_stays_lost),
        cmocka_unit_test(what_is_no_device_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
