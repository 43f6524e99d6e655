/* The embedded model (peer/demo/model) against PyTorch: tokens, losses, logits and projected gradients of tests/vectors/
 * model.json, which tests/reference/model_reference.py computed in float64 with transformers and with directions from
 * tests/vectors/spec.py.  Committed, so that the real check runs in every clone.
 *
 * Tolerance.  Our float32 forward differs from the float64 reference by rounding alone.  A product of length n <= 160 is
 * off by at most n u (u = 2^-24) relative to its size, 1e-5; logits are at most 15 here, so 1.5e-4 if every
 * rounding pointed the same way, and 15 sqrt(160) u = 1.1e-5 if they are independent.  LOSS_TOLERANCE, 5e-5, lies
 * between; a projected gradient divides a difference of two losses by 2 eps (or eps). */
#include <onebyte/zo/codec.h>
#include <onebyte/zo/dataset.h>
#include <onebyte/zo/model.h>

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LOSS_TOLERANCE 5e-5

static const char folder[] = "peer/demo/model";
static const char *const variants[] = {"ref", "avx2", "avx512"};

struct fixture {
    json_t *reference;
    struct zo_model *model;
    struct zo_tokenizer *tokenizer;
    struct zo_dataset *lines;
    struct zo_pool *pool;
};

static json_t *member(const json_t *o, const char *name)
{
    json_t *v = json_object_get(o, name);
    if (!v)
        fail_msg("tests/vectors/model.json has no %s: run tests/reference/model_reference.py", name);
    return v;
}

static double number(const json_t *o, const char *name)
{
    return json_number_value(member(o, name));
}

static uint64_t integer(const json_t *o, const char *name)
{
    return (uint64_t)json_integer_value(member(o, name));
}

static void near(const char *what, size_t i, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s %zu: %.9g, reference %.9g, tolerance %.3g", what, i, got, want, tolerance);
}

/* The reference's lines as a file of their own. */
static void open_lines(struct fixture *f)
{
    struct err_why why = {""};
    char path[] = "/tmp/onebyte-reference-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *out = fdopen(fd, "w");
    assert_non_null(out);
    size_t i;
    json_t *line;
    json_array_foreach(member(f->reference, "lines"), i, line)
        assert_true(fprintf(out, "%s\n", json_string_value(line)) > 0);
    assert_int_equal(fclose(out), 0);
    const enum err e = zo_dataset_open(&f->lines, path, f->tokenizer, zo_model_context(f->model), &why);
    (void)unlink(path);
    if (e != ERR_OK)
        fail_msg("%s", why.text);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err_why why = {""};
    json_error_t error;
    assert_non_null(f);
    f->reference = json_load_file("tests/vectors/model.json", 0, &error);
    if (!f->reference)
        fail_msg("tests/vectors/model.json:%d: %s", error.line, error.text);
    if (zo_blas_start(&why) != ERR_OK || zo_model_open(&f->model, folder, &why) != ERR_OK ||
        zo_tokenizer_open(&f->tokenizer, folder, &why) != ERR_OK)
        fail_msg("%s", why.text);
    assert_int_equal(zo_pool_new(&f->pool, 2), ERR_OK);
    open_lines(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    zo_dataset_free(f->lines);
    zo_tokenizer_free(f->tokenizer);
    zo_model_free(f->model);
    zo_pool_free(f->pool);
    json_decref(f->reference);
    free(f);
    return 0;
}

/* Token ids, counted tokens and labels of every kind of line. */
static void examples_equal_reference(void **state)
{
    const struct fixture *f = *state;
    size_t i, s, t;
    json_t *want, *seq;
    assert_int_equal(zo_dataset_size(f->lines), json_array_size(member(f->reference, "examples")));
    assert_int_equal(zo_dataset_cut_tokens(f->lines), 0);
    json_array_foreach(member(f->reference, "examples"), i, want) {
        const struct zo_example *e = zo_dataset_get(f->lines, i);
        assert_int_equal(e->label, json_integer_value(member(want, "label")));
        assert_int_equal(e->n_seqs, json_array_size(member(want, "seqs")));
        json_array_foreach(member(want, "seqs"), s, seq) {
            const json_t *ids = member(seq, "ids"), *counted = member(seq, "counted");
            assert_int_equal(e->seqs[s].n, json_array_size(ids));
            for (t = 0; t < e->seqs[s].n; t++) {
                assert_int_equal(e->seqs[s].ids[t], json_integer_value(json_array_get(ids, t)));
                assert_int_equal(e->seqs[s].counted[t], json_integer_value(json_array_get(counted, t)));
            }
        }
    }
}

static void trainable_tensors_equal_reference(void **state)
{
    const struct fixture *f = *state;
    struct zo_tensor *tensors;
    uint32_t n;
    uint64_t elements = 0;
    const json_t *want = member(f->reference, "tensors");
    assert_int_equal(zo_model_trainable(f->model, &tensors, &n), ERR_OK);
    assert_int_equal(n, json_array_size(want));
    for (uint32_t t = 0; t < n; t++) {
        const json_t *row = json_array_get(want, t), *shape = json_array_get(row, 1);
        assert_string_equal(tensors[t].name, json_string_value(json_array_get(row, 0)));
        assert_int_equal(tensors[t].n_dims, json_array_size(shape));
        for (uint32_t d = 0; d < tensors[t].n_dims; d++)
            assert_int_equal(tensors[t].dims[d], json_integer_value(json_array_get(shape, d)));
        elements += zo_tensor_elements(&tensors[t]);
    }
    assert_int_equal(zo_model_parameters(f->model), elements);
    free(tensors);
}

static void logits_equal_reference(void **state)
{
    const struct fixture *f = *state;
    const json_t *o = member(f->reference, "logits"), *ids_json = member(o, "ids");
    const size_t n = json_array_size(ids_json), vocab = zo_model_vocab(f->model);
    uint32_t *ids = calloc(n, sizeof *ids);
    float *out = calloc(n * vocab, sizeof *out);
    assert_non_null(ids);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++)
        ids[i] = (uint32_t)json_integer_value(json_array_get(ids_json, i));
    assert_int_equal(zo_model_logits(f->model, ids, n, out, f->pool), ERR_OK);
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(member(o, "rows"), i);
        assert_int_equal(json_array_size(row), vocab);
        for (size_t j = 0; j < vocab; j++)
            near("logit", i * vocab + j, (double)out[i * vocab + j], json_number_value(json_array_get(row, j)), LOSS_TOLERANCE);
    }
    free(ids);
    free(out);
}

static void losses_near(const struct fixture *f, const struct zo_loss *got)
{
    size_t i;
    json_t *want;
    json_array_foreach(member(f->reference, "examples"), i, want) {
        near("loss of line", i, got[i].loss, number(want, "loss"), LOSS_TOLERANCE);
        near("nats of line", i, got[i].nats, number(want, "nats"), LOSS_TOLERANCE * number(want, "tokens"));
        assert_int_equal(got[i].n_tokens, integer(want, "tokens"));
        assert_int_equal(got[i].correct, json_integer_value(member(want, "correct")));
    }
}

/* All lines in one batch, and each alone, with the checkpoint's own values. */
static void losses_equal_reference(void **state)
{
    const struct fixture *f = *state;
    const size_t n = zo_dataset_size(f->lines);
    struct zo_pass passes[16] = {{0}};
    struct zo_loss together[16], alone[16];
    assert_in_range(n, 1, 16);
    assert_int_equal(zo_model_bind(f->model, NULL, ZO_MEMORY_AUTO, NULL), ERR_OK);
    for (size_t i = 0; i < n; i++) {
        passes[i].example = zo_dataset_get(f->lines, i);
        assert_int_equal(zo_model_losses(f->model, &passes[i], 1, &alone[i], NULL, NULL), ERR_OK);
    }
    assert_int_equal(zo_model_losses(f->model, passes, n, together, NULL, f->pool), ERR_OK);
    losses_near(f, alone);
    losses_near(f, together);
}

/* The whole held-out file of the demo: before fine-tuning it is at chance. */
static void held_out_equals_reference(void **state)
{
    const struct fixture *f = *state;
    const json_t *want = member(f->reference, "eval"), *first = member(want, "first");
    struct zo_dataset *d;
    struct err_why why = {""};
    if (zo_dataset_open(&d, "peer/demo/eval.jsonl", f->tokenizer, zo_model_context(f->model), &why) != ERR_OK)
        fail_msg("%s", why.text);
    const size_t n = zo_dataset_size(d);
    assert_int_equal(n, integer(want, "examples"));
    struct zo_pass *passes = calloc(n, sizeof *passes);
    struct zo_loss *got = calloc(n, sizeof *got);
    assert_non_null(passes);
    assert_non_null(got);
    for (size_t i = 0; i < n; i++)
        passes[i].example = zo_dataset_get(d, i);
    assert_int_equal(zo_model_losses(f->model, passes, n, got, NULL, f->pool), ERR_OK);
    double sum = 0, correct = 0;
    for (size_t i = 0; i < n; i++) {
        sum += got[i].loss;
        correct += got[i].correct;
        if (i < json_array_size(first))
            near("held-out loss", i, got[i].loss, json_number_value(json_array_get(first, i)), LOSS_TOLERANCE);
    }
    near("mean held-out loss of", n, sum / (double)n, number(want, "loss"), LOSS_TOLERANCE);
    /* An answer whose two scores are closer than the tolerance may go either way: allow two of them. */
    near("accuracy over", n, correct / (double)n, number(want, "accuracy"), 2.5 / (double)n);
    free(passes);
    free(got);
    zo_dataset_free(d);
}

enum { PASSES_MAX = 64 };

/* The passes of a direction's rows (plus, minus) and groups (plain, then K), in the file's order. */
static size_t collect(const struct fixture *f, const json_t *o, struct zo_pass *passes)
{
    size_t n = 0, i;
    json_t *x;
    const float eps = (float)number(o, "eps");
    struct zo_pass p = {.key = {(uint32_t)json_integer_value(json_array_get(member(o, "key"), 0)),
                                (uint32_t)json_integer_value(json_array_get(member(o, "key"), 1))}};
    json_array_foreach(member(o, "rows"), i, x) {
        p.example = zo_dataset_get(f->lines, integer(x, "example"));
        p.seq = integer(x, "seq");
        for (int sign = 1; sign >= -1; sign -= 2) {
            p.eps = (float)sign * eps;
            passes[n++] = p;
        }
    }
    json_array_foreach(member(o, "groups"), i, x) {
        const size_t k = json_array_size(member(x, "losses"));
        assert_true(n + k + 1 <= PASSES_MAX);
        p.example = zo_dataset_get(f->lines, integer(x, "example"));
        p.eps = 0;
        passes[n++] = p;
        p.eps = eps;
        for (size_t j = 0; j < k; j++) {
            p.seq = integer(x, "first_seq") + j;
            passes[n++] = p;
        }
    }
    return n;
}

static void gradients_near(const json_t *o, const struct zo_loss *got)
{
    const double eps = number(o, "eps");
    size_t n = 0, i;
    json_t *x;
    json_array_foreach(member(o, "rows"), i, x) {
        near("loss_plus of row", i, got[n].loss, number(x, "loss_plus"), LOSS_TOLERANCE);
        near("loss_minus of row", i, got[n + 1].loss, number(x, "loss_minus"), LOSS_TOLERANCE);
        near("g of row", i, zo_project_two_sided(got[n].loss, got[n + 1].loss, eps), number(x, "g"), LOSS_TOLERANCE / eps);
        n += 2;
    }
    json_array_foreach(member(o, "groups"), i, x) {
        const size_t k = json_array_size(member(x, "losses"));
        double g[16], losses[16];
        assert_in_range(k, 2, 16);
        near("loss_0 of group", i, got[n].loss, number(x, "loss_0"), LOSS_TOLERANCE);
        for (size_t j = 0; j < k; j++) {
            losses[j] = got[n + 1 + j].loss;
            near("loss of direction", j, losses[j], json_number_value(json_array_get(member(x, "losses"), j)), LOSS_TOLERANCE);
        }
        zo_project_one_sided(g, losses, got[n].loss, eps, k);
        for (size_t j = 0; j < k; j++)
            near("g of direction", j, g[j], json_number_value(json_array_get(member(x, "g"), j)), 2 * LOSS_TOLERANCE / eps);
        n += k + 1;
    }
}

/* One kind of direction, with every kernel variant, lean and fast, with and without a pool. */
static void direction_near(struct fixture *f, const json_t *o, struct zo_rules *rules)
{
    struct zo_state *s;
    struct zo_pass passes[PASSES_MAX];
    struct zo_loss got[PASSES_MAX];
    const uint32_t unused[2] = {0, 0};
    struct err_why why = {""};
    const size_t n = collect(f, o, passes);
    assert_int_equal(zo_state_new(&s, rules, unused), ERR_OK);
    if (zo_model_load_state(f->model, s, f->pool, &why) != ERR_OK)
        fail_msg("%s", why.text);
    for (size_t v = 0; v < ARRAY_LEN(variants); v++) {
        const struct zo_kernels *k = zo_kernels_pick(variants[v]);
        for (int memory = ZO_MEMORY_LEAN; k && memory <= ZO_MEMORY_FAST; memory++) {
            if (zo_model_bind(f->model, s, (enum zo_memory)memory, &why) != ERR_OK)
                fail_msg("%s", why.text);
            assert_int_equal(zo_model_refresh(f->model, f->pool), ERR_OK);
            assert_int_equal(zo_model_losses(f->model, passes, n, got, k, memory == ZO_MEMORY_LEAN ? NULL : f->pool), ERR_OK);
            gradients_near(o, got);
        }
    }
    for (size_t i = 0; i < n; i++) { /* one pass at a time: batching changes rounding at most */
        assert_int_equal(zo_model_losses(f->model, &passes[i], 1, &got[i], NULL, f->pool), ERR_OK);
    }
    gradients_near(o, got);
    assert_int_equal(zo_model_bind(f->model, NULL, ZO_MEMORY_AUTO, NULL), ERR_OK);
    zo_state_free(s);
}

static void projected_gradients_equal_reference(void **state)
{
    struct fixture *f = *state;
    size_t i;
    json_t *o;
    struct zo_rules rules = {.sides = 2, .k = 1, .n0 = 1, .steps = 1, .n_knots = 1};
    assert_int_equal(zo_model_trainable(f->model, &rules.tensors, &rules.n_tensors), ERR_OK);
    for (uint32_t t = 0; t < rules.n_tensors; t++) { /* |theta| < 2^4: quanta of 2^-24 and 2^-40 */
        rules.tensors[t].bits = zo_tensor_is_matrix(&rules.tensors[t]) ? 32 : 64;
        rules.tensors[t].e = rules.tensors[t].bits == 32 ? 24 : 40;
    }
    json_array_foreach(member(f->reference, "projected"), i, o) {
        const char *kind = json_string_value(member(o, "direction"));
        rules.direction = strcmp(kind, "rank1") == 0 ? ZO_RANK1 : strcmp(kind, "gaussian") == 0 ? ZO_GAUSSIAN : ZO_RADEMACHER;
        direction_near(f, o, &rules);
    }
    assert_int_equal(i, 3);
    free(rules.tensors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_equal_reference),
        cmocka_unit_test(trainable_tensors_equal_reference),
        cmocka_unit_test(logits_equal_reference),
        cmocka_unit_test(losses_equal_reference),
        cmocka_unit_test(held_out_equals_reference),
        cmocka_unit_test(projected_gradients_equal_reference),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
