/* Known answers from two independent implementations: ../shared/vectors/arith1.json (absent in a
 * plain clone: skipped) and tests/vectors/arith.json (tests/vectors/spec.py, written from SPEC
 * alone).  Every variant of the kernels that this CPU has must give them: coefficients, L, digests
 * before, after and incremental, state bytes, codes. */
#include <onebyte/base/bytes.h>
#include <onebyte/zo/codec.h>
#include <onebyte/zo/direction.h>
#include <onebyte/zo/rules.h>
#include <onebyte/zo/state.h>

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char ours[] = "tests/vectors/arith.json", shared[] = "../shared/vectors/arith1.json";
static const char *const variants[] = {"ref", "avx2", "avx512"};

enum { RUN_TENSORS = 16, RUN_SEGMENTS = 64 };

struct run {
    struct zo_rules rules;
    struct zo_tensor tensors[RUN_TENSORS];
    uint8_t id[32];
    struct zo_state *state;
    struct zo_fold folds[RUN_SEGMENTS];
    uint8_t counts[RUN_SEGMENTS][1024];
    int8_t codes[RUN_SEGMENTS][1024];
    size_t n_folds;
};

static json_t *load(const char *path)
{
    json_error_t error;
    FILE *f = fopen(path, "r");
    if (!f) {
        print_message("SKIP: %s is absent\n", path);
        skip();
    }
    json_t *o = json_loadf(f, 0, &error);
    fclose(f);
    if (!o)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    return o;
}

static void hex(uint8_t *out, size_t n, const char *text)
{
    size_t got;
    assert_non_null(text);
    assert_int_equal(sodium_hex2bin(out, n, text, strlen(text), NULL, &got, NULL), 0);
    assert_int_equal(got, n);
}

static const char *string(const json_t *o, const char *name)
{
    return json_string_value(json_object_get(o, name));
}

static uint64_t hex64(const json_t *o, const char *name)
{
    return strtoull(string(o, name), NULL, 16);
}

static uint64_t integer(const json_t *o, const char *name)
{
    assert_true(json_is_integer(json_object_get(o, name)));
    return (uint64_t)json_integer_value(json_object_get(o, name));
}

static void key_of(uint32_t key[2], const uint8_t run_id[32], const uint8_t machine[32])
{
    uint8_t text[64], h[32];
    memcpy(text, run_id, 32);
    memcpy(text + 32, machine, 32);
    crypto_generichash(h, 32, text, 64, NULL, 0);
    key[0] = (uint32_t)bytes_get_le(h, 4);
    key[1] = (uint32_t)bytes_get_le(h + 4, 4);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct zo_tensor *)a)->name, ((const struct zo_tensor *)b)->name);
}

static void read_tensors(struct run *run, const json_t *list)
{
    size_t i, d;
    json_t *o, *dim;
    json_array_foreach(list, i, o)
    {
        struct zo_tensor *t = &run->tensors[i];
        assert_in_range(i, 0, RUN_TENSORS - 1);
        snprintf(t->name, sizeof t->name, "%s", string(o, "name"));
        json_array_foreach(json_object_get(o, "shape"), d, dim) t->dims[d] =
            (uint64_t)json_integer_value(dim);
        t->n_dims = (uint32_t)json_array_size(json_object_get(o, "shape"));
        t->bits = (uint32_t)integer(o, "bits");
        t->e = (uint32_t)integer(o, "e");
    }
    run->rules.n_tensors = (uint32_t)json_array_size(list);
    run->rules.tensors = run->tensors;
    qsort(run->tensors, run->rules.n_tensors, sizeof run->tensors[0], by_name);
}

static void read_rules(struct run *run, const char *manifest)
{
    json_error_t error;
    json_t *m = json_loads(manifest, 0, &error), *knot;
    size_t i;
    assert_non_null(m);
    const char *kind = string(m, "direction");
    run->rules.direction = strcmp(kind, "rank1") == 0        ? ZO_RANK1
                           : strcmp(kind, "rademacher") == 0 ? ZO_RADEMACHER
                                                             : ZO_GAUSSIAN;
    run->rules.n0 = integer(m, "n0");
    run->rules.steps = integer(m, "steps");
    run->rules.k = json_object_get(m, "K") ? (uint32_t)integer(m, "K") : 1;
    run->rules.unit = json_is_integer(json_object_get(m, "unit")) ? integer(m, "unit") : 0;
    json_array_foreach(json_object_get(m, "knots"), i, knot)
    {
        run->rules.knots[i].step = (uint64_t)json_integer_value(json_array_get(knot, 0));
        run->rules.knots[i].y = (uint64_t)json_integer_value(json_array_get(knot, 1));
    }
    run->rules.n_knots = (uint32_t)json_array_size(json_object_get(m, "knots"));
    read_tensors(run, json_object_get(m, "tensors"));
    crypto_generichash(run->id, 32, (const uint8_t *)manifest, strlen(manifest), NULL, 0);
    json_decref(m);
}

static int64_t entry(const struct run *run, uint32_t t, uint64_t i)
{
    return run->tensors[t].bits == 32 ? ((const int32_t *)run->state->m[t])[i]
                                      : ((const int64_t *)run->state->m[t])[i];
}

static void set_state(struct run *run, const json_t *m)
{
    static const uint8_t nobody[32] = {0};
    size_t t, i;
    json_t *tensor, *x;
    uint32_t key[2];
    key_of(key, run->id, nobody);
    assert_int_equal(zo_state_new(&run->state, &run->rules, key), ERR_OK);
    json_array_foreach(m, t, tensor)
    {
        json_array_foreach(tensor, i, x)
        {
            if (run->tensors[t].bits == 32)
                ((int32_t *)run->state->m[t])[i] = (int32_t)json_integer_value(x);
            else
                ((int64_t *)run->state->m[t])[i] = json_integer_value(x);
        }
    }
}

static void read_segment(struct run *run, const json_t *o)
{
    const size_t n = run->n_folds;
    uint8_t machine[32], wire[2048];
    size_t bytes, i;
    json_t *c;
    struct zo_fold *f = &run->folds[n];
    assert_in_range(n, 0, RUN_SEGMENTS - 1);
    run->n_folds++;
    hex(machine, 32, string(o, "machine"));
    assert_int_equal(sodium_hex2bin(wire, sizeof wire, string(o, "wire"), strlen(string(o, "wire")),
                                    NULL, &bytes, NULL),
                     0);
    key_of(f->key, run->id, machine);
    f->count = (uint32_t)bytes_get_le(wire + 2, 2);
    f->first_seq = bytes_get_le(wire + 4, 8);
    f->step = (uint32_t)bytes_get_le(wire + 12, 4);
    f->lag = (uint32_t)bytes_get_le(wire + 16, 4);
    memcpy(run->codes[n], wire + 40, f->count);
    f->codes = run->codes[n];
    f->counts = run->counts[n];
    assert_int_equal(json_array_size(json_object_get(o, "counted")), f->count);
    json_array_foreach(json_object_get(o, "counted"), i, c) run->counts[n][i] =
        json_integer_value(c) != 0;
}

static struct run *open_run(const json_t *o)
{
    struct run *run = calloc(1, sizeof *run);
    uint8_t id[32];
    size_t i;
    json_t *segment;
    assert_non_null(run);
    read_rules(run, string(o, "manifest"));
    hex(id, 32, string(o, "run_id"));
    assert_memory_equal(id, run->id, 32);
    set_state(run, json_object_get(o, "m0"));
    json_array_foreach(json_object_get(o, "segments"), i, segment) read_segment(run, segment);
    return run;
}

static void close_run(struct run *run)
{
    zo_state_free(run->state);
    free(run);
}

static void check_segments(const struct run *run, const json_t *o)
{
    size_t i, t;
    json_t *segment, *l;
    json_array_foreach(json_object_get(o, "segments"), i, segment)
    {
        const struct zo_fold *f = &run->folds[i];
        const uint64_t lambda = zo_lambda(&run->rules, f->step),
                       weight = zo_weight(run->rules.n0, f->lag);
        assert_true(weight == integer(segment, "weight"));
        assert_true(lambda == integer(segment, "lam"));
        json_array_foreach(json_object_get(segment, "L"), t, l)
        {
            const uint64_t coef = zo_coef(lambda, weight, run->tensors[t].e);
            const json_t *l0 = json_array_get(json_object_get(segment, "L0"), t);
            assert_true(!l0 || coef == (uint64_t)json_integer_value(l0));
            assert_true(zo_coef_bounded(&run->rules, coef, f->codes, f->count) ==
                        (uint64_t)json_integer_value(l));
        }
        const json_t *delta = json_object_get(segment, "digest_delta");
        if (json_is_string(delta))
            assert_true(zo_state_digest_delta(run->state, f, 1, NULL) ==
                        hex64(segment, "digest_delta"));
    }
}

static void check_end(const struct run *run, const json_t *o, const struct zo_kernels *k)
{
    size_t t, i;
    json_t *tensor, *x;
    uint8_t want[32], got[32];
    json_array_foreach(json_object_get(o, "m"), t, tensor)
    {
        json_array_foreach(tensor, i, x)
            assert_true(entry(run, (uint32_t)t, i) == json_integer_value(x));
    }
    assert_true(zo_state_digest(run->state, k, NULL) == hex64(o, "digest"));
    const size_t n = (size_t)zo_state_bytes(run->state);
    uint8_t *bytes = malloc(n);
    assert_non_null(bytes);
    zo_state_get_bytes(run->state, 0, bytes, n);
    crypto_generichash(got, 32, bytes, n, NULL, 0);
    hex(want, 32, string(o, "state"));
    assert_memory_equal(got, want, 32);
    free(bytes);
}

static void check_run(const json_t *o, const struct zo_kernels *k)
{
    struct run *run = open_run(o);
    uint32_t w[4];
    const struct zo_stream u = zo_stream(run->state->digest_key, ZO_DOMAIN_DIGEST_U, 0, 0);
    zo_stream_block(w, &u, 0);
    for (size_t i = 0; i < 2; i++) {
        const uint64_t x = ((uint64_t)w[2 * i + 1] << 32 | w[2 * i]) % ((UINT64_C(1) << 61) - 1);
        assert_true(
            x == strtoull(json_string_value(json_array_get(json_object_get(o, "u"), i)), NULL, 10));
    }
    assert_true(zo_state_digest(run->state, k, NULL) == hex64(o, "digest0"));
    check_segments(run, o);
    assert_int_equal(zo_state_fold(run->state, run->folds, run->n_folds, k, NULL), ERR_OK);
    check_end(run, o, k);
    for (size_t i = 0; i < run->n_folds; i++) /* and back, one by one */
        run->folds[i].subtract = true;
    for (size_t i = run->n_folds; i-- > 0;)
        assert_int_equal(zo_state_fold(run->state, &run->folds[i], 1, k, NULL), ERR_OK);
    assert_true(zo_state_digest(run->state, k, NULL) == hex64(o, "digest0"));
    close_run(run);
}

static void check_runs(const json_t *runs)
{
    size_t i;
    json_t *o;
    assert_true(json_array_size(runs) >= 3);
    for (size_t v = 0; v < ARRAY_LEN(variants); v++) {
        const struct zo_kernels *k = zo_kernels_pick(variants[v]);
        if (!k)
            print_message("kernels %s: not on this CPU\n", variants[v]);
        else
            json_array_foreach(runs, i, o) check_run(o, k);
    }
}

static void runs_of_the_other_implementation(void **state)
{
    (void)state;
    json_t *runs = load(shared), *o;
    size_t i;
    check_runs(runs);
    json_array_foreach(runs, i, o) /* its samples: tensor 0, first machine, seq 0 */
    {
        const uint32_t key[2] = {
            (uint32_t)strtoul(json_string_value(json_array_get(json_object_get(o, "key"), 0)), NULL,
                              16),
            (uint32_t)strtoul(json_string_value(json_array_get(json_object_get(o, "key"), 1)), NULL,
                              16)};
        const struct zo_stream streams[] = {zo_stream(key, ZO_DOMAIN_A, 0, 0),
                                            zo_stream(key, ZO_DOMAIN_DENSE, 0, 0),
                                            zo_stream(key, ZO_DOMAIN_GAUSS, 0, 0)};
        static const char *const names[] = {"signs_a", "signs_dense", "gauss"};
        for (size_t s = 0; s < 3; s++) {
            float z[8];
            (s == 2 ? zo_gauss_f32 : zo_signs_f32)(z, &streams[s], 0, 8, s == 2 ? 4.0f : 1.0f,
                                                   false, zo_kernels_pick("ref"));
            for (size_t j = 0; j < 8; j++)
                assert_int_equal(
                    (int)z[j], json_integer_value(json_array_get(json_object_get(o, names[s]), j)));
        }
    }
    json_decref(runs);
}

static void runs_of_our_own(void **state)
{
    (void)state;
    json_t *file = load(ours);
    check_runs(json_object_get(file, "runs"));
    json_decref(file);
}

static void lambdas_and_streams(void **state)
{
    (void)state;
    json_t *file = load(ours), *o, *x;
    size_t i, j, w;
    json_array_foreach(json_object_get(file, "runs"), i, o)
    {
        struct run *run = open_run(o);
        json_array_foreach(json_object_get(o, "lambda"), j, x)
        {
            const uint64_t step = (uint64_t)json_integer_value(json_array_get(x, 0));
            assert_true(zo_lambda(&run->rules, step) ==
                        (uint64_t)json_integer_value(json_array_get(x, 1)));
        }
        json_array_foreach(json_object_get(o, "streams"), j, x)
        {
            uint8_t machine[32];
            uint32_t key[2], words[8];
            const json_t *seq = json_object_get(x, "seq");
            hex(machine, 32, string(x, "machine"));
            key_of(key, run->id, machine);
            const struct zo_stream s = zo_stream(
                key, (uint32_t)integer(x, "domain"), (uint32_t)integer(x, "tensor"),
                json_is_string(seq) ? hex64(x, "seq") : (uint64_t)json_integer_value(seq));
            zo_stream_words(words, &s, 0, 8, zo_kernels_pick("auto"));
            for (w = 0; w < 8; w++)
                assert_true(words[w] ==
                            json_integer_value(json_array_get(json_object_get(x, "words"), w)));
        }
        close_run(run);
    }
    json_decref(file);
}

static size_t numbers(double *out, const json_t *list)
{
    size_t i;
    json_t *x;
    json_array_foreach(list, i, x) out[i] = json_is_null(x) ? NAN : json_number_value(x);
    return json_array_size(list);
}

static void codes(void **state)
{
    (void)state;
    json_t *file = load(ours), *o;
    size_t i;
    assert_true(json_array_size(json_object_get(file, "codec")) > 0);
    json_array_foreach(json_object_get(file, "codec"), i, o)
    {
        static double g[4096];
        static int8_t v[4096];
        uint16_t r;
        struct zo_codec codec = {.n = 0};
        const struct zo_rules rules = {.unit = integer(o, "unit")};
        size_t n = numbers(g, json_object_get(o, "history"));
        zo_codec_seal(&codec, &rules, g, n, v, &r);
        n = numbers(g, json_object_get(o, "g"));
        zo_codec_seal(&codec, &rules, g, n, v, &r);
        assert_int_equal(r, integer(o, "r"));
        for (size_t j = 0; j < n; j++)
            assert_int_equal(v[j],
                             json_integer_value(json_array_get(json_object_get(o, "codes"), j)));
    }
    json_decref(file);
}

static uint64_t number64(const json_t *o, const char *name)
{
    return json_is_string(json_object_get(o, name)) ? hex64(o, name) : integer(o, name);
}

static void examples(void **state)
{
    (void)state;
    json_t *file = load(ours), *o;
    size_t i;
    assert_true(json_array_size(json_object_get(file, "data")) > 0);
    json_array_foreach(json_object_get(file, "data"), i, o)
    {
        const struct zo_rules rules = {.k = (uint32_t)integer(o, "K")};
        const uint32_t key[2] = {
            (uint32_t)json_integer_value(json_array_get(json_object_get(o, "key"), 0)),
            (uint32_t)json_integer_value(json_array_get(json_object_get(o, "key"), 1))};
        assert_true(zo_example_index(&rules, key, number64(o, "seq"), number64(o, "N")) ==
                    number64(o, "index"));
    }
    json_decref(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_of_the_other_implementation),
        cmocka_unit_test(runs_of_our_own),
        cmocka_unit_test(lambdas_and_streams),
        cmocka_unit_test(codes),
        cmocka_unit_test(examples),
    };
    if (sodium_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
