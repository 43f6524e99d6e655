/* Adapters: the pass against the same model with B A merged into its matrices, directions against adapters that were
 * moved, the first A against SPEC's stream, what may be trained and what is refused. */
#include "zo/model/internal.h"

#include <onebyte/zo/direction.h>
#include <onebyte/zo/model.h>
#include <onebyte/zo/philox.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char fixtures[] = "tests/vectors/models";
static uint32_t ids[] = {7, 21, 5, 40, 33, 12, 58, 9, 30};
static uint8_t counted[] = {0, 1, 1, 1, 0, 1, 1, 1, 1};
static struct zo_seq seq = {.n = 9, .ids = ids, .counted = counted};

struct rig {
    struct zo_model *m;
    struct zo_rules rules;
    struct zo_state *s;
};

static void rig_open(struct rig *r, const char *name, const char *trainable, float scale)
{
    char dir[4096];
    struct err_why why = {""};
    (void)snprintf(dir, sizeof dir, "%s/%s", fixtures, name);
    memset(r, 0, sizeof *r);
    assert_int_equal(zo_model_open(&r->m, dir, &why), ERR_OK);
    r->rules = (struct zo_rules){
        .sides = 2, .k = 1, .n0 = 1, .steps = 1, .n_knots = 1, .lora_scale = scale};
    assert_int_equal(
        zo_model_trainable_of(r->m, trainable, &r->rules.tensors, &r->rules.n_tensors, &why),
        ERR_OK);
    for (uint32_t i = 0; i < r->rules.n_tensors; i++) {
        r->rules.tensors[i].bits =
            i % 3 == 0 || !zo_tensor_is_matrix(&r->rules.tensors[i]) ? 64 : 32;
        r->rules.tensors[i].e = r->rules.tensors[i].bits == 32 ? 25 : 50;
    }
    assert_int_equal(zo_state_new(&r->s, &r->rules, (const uint32_t[2]){1, 2}), ERR_OK);
    assert_int_equal(zo_model_load_state(r->m, r->s, NULL, &why), ERR_OK);
    assert_int_equal(zo_model_bind(r->m, r->s, ZO_MEMORY_LEAN, &why), ERR_OK);
}

static void rig_close(struct rig *r)
{
    zo_model_free(r->m);
    zo_state_free(r->s);
    free(r->rules.tensors);
}

static double loss(struct zo_model *m, float eps, uint64_t at, struct zo_pool *pool)
{
    struct zo_example example = {
        .n_seqs = 1, .seqs = &seq, .label = zo_model_labels(m) > 0 ? 1 : -1};
    const struct zo_pass passes[2] = {{.example = &example, .key = {3, 4}, .seq = at, .eps = eps},
                                      {.example = &example}};
    struct zo_loss out[2];
    assert_int_equal(zo_model_losses(m, passes, 2, out, NULL, pool), ERR_OK);
    return out[0].loss;
}

/* Adds scale * values to tensor t through what loading gives: an exact change of the integers. */
static void add_to(struct rig *r, uint32_t t, const float *values, float scale)
{
    const size_t n = (size_t)zo_tensor_elements(&r->rules.tensors[t]);
    float *now = malloc(n * sizeof *now);
    assert_non_null(now);
    zo_state_read_f32(r->s, t, 0, now, n);
    for (size_t i = 0; i < n; i++)
        now[i] += scale * values[i];
    assert_int_equal(zo_state_load_f32(r->s, t, 0, now, n), ERR_OK);
    free(now);
}

static void fill_b(struct rig *r)
{
    for (uint32_t t = 0; t < r->rules.n_tensors; t++) {
        const size_t n = (size_t)zo_tensor_elements(&r->rules.tensors[t]);
        float *values = calloc(n, sizeof *values);
        assert_non_null(values);
        for (size_t i = 0; i < n && !zo_tensor_is_lora_a(&r->rules.tensors[t]); i++)
            values[i] = (float)((int)((i * 2654435761u + t) >> 7 & 63) - 32) / 128.0f;
        add_to(r, t, values, 1.0f);
        free(values);
    }
}

/* Each model's tensors with B A added, all of them in a state: the path that check_models.py holds against PyTorch. */
static double merged_loss(const struct rig *r, const char *name)
{
    struct rig all;
    rig_open(&all, name, "all", 0.0f);
    for (uint32_t t = 0; t < all.rules.n_tensors; t++) {
        const struct zo_ckpt_tensor *c =
            zo_ckpt_find(zo_model_ckpt(r->m), all.rules.tensors[t].name);
        float *values = malloc((size_t)c->elements * sizeof *values);
        assert_non_null(values);
        zo_ckpt_read_f32(c, 0, values, (size_t)c->elements);
        for (uint64_t at = 0; at < c->elements; at += 37) /* pieces that end inside rows */
            zo_model_add_adapter(r->m, c, at, values + at,
                                 c->elements - at < 37 ? (size_t)(c->elements - at) : 37);
        assert_int_equal(zo_state_load_f32(all.s, t, 0, values, (size_t)c->elements), ERR_OK);
        free(values);
    }
    const double got = loss(all.m, 0.0f, 0, NULL);
    rig_close(&all);
    return got;
}

static const char *const models[] = {"llama",    "qwen2", "phi3", "gemma2",          "gpt2",
                                     "gpt_neox", "opt",   "bert", "roberta_classify"};

static void adapters_equal_merged_weights(void **state)
{
    struct zo_pool *pool;
    (void)state;
    assert_int_equal(zo_pool_new(&pool, 3), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        struct rig r, plain;
        rig_open(&r, models[i], i % 2 ? "lora:r=3,alpha=6,targets=all" : "lora:r=4,alpha=8", 2.0f);
        rig_open(&plain, models[i], "all", 0.0f);
        const double before = loss(r.m, 0.0f, 0, NULL);
        assert_true(fabs(before - loss(plain.m, 0.0f, 0, NULL)) <
                    1e-5); /* B is 0: nothing is added */
        fill_b(&r);
        const double after = loss(r.m, 0.0f, 0, NULL), merged = merged_loss(&r, models[i]);
        if (!(fabs(after - merged) < 2e-5 * fmax(1, merged)) || fabs(after - before) < 1e-4)
            fail_msg("%s: %.7f with adapters, %.7f merged, %.7f before", models[i], after, merged,
                     before);
        assert_true(fabs(loss(r.m, 0.0f, 0, pool) - after) < 1e-5);
        rig_close(&r);
        rig_close(&plain);
    }
    zo_pool_free(pool);
}

static void directions_move_adapters_alone(void **state)
{
    (void)state;
    for (int kind = ZO_RANK1; kind <= ZO_GAUSSIAN; kind++)
        for (size_t i = 0; i < ARRAY_LEN(models); i++) {
            struct rig r;
            const float eps = 1.0f / 64;
            rig_open(&r, models[i], "lora:r=2,alpha=4,targets=all", 2.0f);
            r.rules.direction = (enum zo_direction)kind;
            fill_b(&r);
            const double inside = loss(r.m, eps, 99, NULL), before = loss(r.m, 0.0f, 99, NULL);
            for (uint32_t t = 0; t < r.rules.n_tensors; t++) {
                const struct zo_tensor *z = &r.rules.tensors[t];
                float *h = calloc((size_t)zo_tensor_elements(z), sizeof *h);
                assert_non_null(h);
                zo_direction_rows_f32(h, &r.rules, t, (const uint32_t[2]){3, 4}, 99, 0,
                                      (size_t)zo_tensor_rows(z), 1.0f, false,
                                      zo_kernels_pick("ref"));
                add_to(&r, t, h, eps);
                free(h);
            }
            const double moved = loss(r.m, 0.0f, 0, NULL);
            if (!(fabs(inside - moved) < 2e-5 * fmax(1, moved)) || inside == before)
                fail_msg("%s kind %d: %.7f inside, %.7f moved", models[i], kind, inside, moved);
            rig_close(&r);
        }
}

/* bound = floor(2^30 / sqrt(16)) = 2^28; e 25: w 2^28 >> 36 = w >> 8. */
static void a_starts_from_its_stream(void **state)
{
    struct rig r;
    uint32_t words[4];
    (void)state;
    rig_open(&r, "llama", "lora:r=4,alpha=8", 2.0f);
    assert_int_equal(r.rules.n_tensors, 8); /* 2 layers, q and v */
    assert_string_equal(r.rules.tensors[1].name,
                        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight");
    assert_true(r.rules.tensors[2].bits == 32 && zo_tensor_is_lora_a(&r.rules.tensors[2]));
    const struct zo_stream s = zo_stream((const uint32_t[2]){1, 2}, ZO_DOMAIN_LORA_A, 2, 0);
    const int32_t *m = r.s->m[2];
    for (uint32_t i = 0; i < 64; i++) {
        if (i % 4 == 0)
            zo_stream_block(words, &s, i / 4);
        const int64_t w = (int32_t)words[i % 4], down = w >= 0 ? w / 256 : -((-w + 255) / 256);
        assert_int_equal(m[i], down);
    }
    const int32_t *b = r.s->m[1];
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(b[i], 0);
    rig_close(&r);
}

static void patterns_choose_tensors(void **state)
{
    struct rig r;
    (void)state;
    rig_open(&r, "llama", "model.norm.weight,*.self_attn.q_proj.weight", 0.0f);
    assert_int_equal(r.rules.n_tensors, 3);
    assert_string_equal(r.rules.tensors[0].name, "model.layers.0.self_attn.q_proj.weight");
    assert_string_equal(r.rules.tensors[2].name, "model.norm.weight");
    const double a = loss(r.m, 0.0f, 0, NULL), b = loss(r.m, 0.02f, 1, NULL);
    assert_true(isfinite(b) && a != b);
    rig_close(&r);
}

static void wrong_texts_are_refused(void **state)
{
    static const char *const wrong[] = {"lora:",
                                        "lora:r=0,alpha=1",
                                        "lora:r=2000,alpha=1",
                                        "lora:r=2.5,alpha=1",
                                        "lora:r=4",
                                        "lora:r=4,alpha=nan",
                                        "lora:r=4,alpha=8,targets=",
                                        "lora:r=4,alpha=8,targets=nothing",
                                        "lora:r=4,alpha=8,bias=all",
                                        "model.norm",
                                        "model.norm.weight,",
                                        "*.nothing"};
    struct zo_model *m;
    struct zo_tensor *t = NULL;
    uint32_t n;
    (void)state;
    assert_int_equal(zo_model_open(&m, "tests/vectors/models/llama", NULL), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct err_why why = {""};
        const enum err e = zo_model_trainable_of(m, wrong[i], &t, &n, &why);
        if (e != ERR_RANGE || !strstr(why.text, "trainable"))
            fail_msg("'%s': error %d, '%s'", wrong[i], (int)e, why.text);
    }
    zo_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_equal_merged_weights),
        cmocka_unit_test(directions_move_adapters_alone),
        cmocka_unit_test(a_starts_from_its_stream),
        cmocka_unit_test(patterns_choose_tensors),
        cmocka_unit_test(wrong_texts_are_refused),
    };
    struct err_why why = {""};
    if (zo_blas_start(&why) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
