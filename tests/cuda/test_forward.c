/* Losses on the device against zo_model_losses, for every architecture in tests/vectors/models (whose CPU losses
 * tests/zo/test_model.c holds against PyTorch), every kind of direction, every type of factors, both memory modes, adapters.
 * The kernels are the real ones, run on the CPU; only cuBLAS is OpenBLAS here. */
#include "tests/cuda/open.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char fixtures[] = "tests/vectors/models";

enum { EXAMPLES_MAX = 4, SEQS_MAX = 4, TOKENS_MAX = 32, PASSES = 16 };

struct fixture {
    struct zo_example examples[EXAMPLES_MAX];
    struct zo_seq seqs[EXAMPLES_MAX][SEQS_MAX];
    uint32_t ids[EXAMPLES_MAX][SEQS_MAX][TOKENS_MAX];
    uint8_t counted[EXAMPLES_MAX][SEQS_MAX][TOKENS_MAX];
    size_t n;
};

static void fixture_read(struct fixture *f, const char *dir)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/expected.json", dir);
    json_t *root = json_load_file(path, 0, NULL), *e, *s, *x;
    size_t i, j, k;
    assert_non_null(root);
    memset(f, 0, sizeof *f);
    json_array_foreach(json_object_get(root, "examples"), i, e)
    {
        if (i == EXAMPLES_MAX)
            break;
        f->n = i + 1;
        f->examples[i] = (struct zo_example){.n_seqs = (uint32_t)json_array_size(json_object_get(e, "seqs")),
                                             .seqs = f->seqs[i],
                                             .label = (int32_t)json_integer_value(json_object_get(e, "label"))};
        json_array_foreach(json_object_get(e, "seqs"), j, s)
        {
            assert_true(j < SEQS_MAX && json_array_size(json_object_get(s, "ids")) <= TOKENS_MAX);
            f->seqs[i][j] = (struct zo_seq){.n = (uint32_t)json_array_size(json_object_get(s, "ids")),
                                            .ids = f->ids[i][j],
                                            .counted = f->counted[i][j]};
            json_array_foreach(json_object_get(s, "ids"), k, x) f->ids[i][j][k] = (uint32_t)json_integer_value(x);
            json_array_foreach(json_object_get(s, "counted"), k, x) f->counted[i][j][k] =
                (uint8_t)json_integer_value(x);
        }
    }
    json_decref(root);
}

struct setup {
    struct zo_model *model;
    struct zo_rules rules;
    struct zo_state *state;
    struct zo_device *device;
};

static void set_up(struct setup *s, const char *dir, const char *trainable, enum zo_direction kind,
                   enum zo_device_type type, enum zo_memory memory)
{
    static const uint32_t key[2] = {3, 4};
    struct err_why why = {{0}};
    memset(s, 0, sizeof *s);
    if (zo_model_open(&s->model, dir, &why) != ERR_OK)
        fail_msg("%s: %s", dir, why.text);
    s->rules = (struct zo_rules){.direction = kind, .sides = 2, .k = 1, .n0 = 8, .steps = 9, .n_knots = 1,
                                 .knots = {{0, UINT64_C(1) << 50}}};
    if (zo_model_trainable_of(s->model, trainable, &s->rules.tensors, &s->rules.n_tensors, &why) != ERR_OK)
        fail_msg("%s: %s", dir, why.text);
    s->rules.lora_scale = trainable && strncmp(trainable, "lora", 4) == 0 ? 1.5f : 0.0f;
    for (uint32_t i = 0; i < s->rules.n_tensors; i++) {
        s->rules.tensors[i].bits = zo_tensor_is_matrix(&s->rules.tensors[i]) ? 32 : 64;
        s->rules.tensors[i].e = s->rules.tensors[i].bits == 32 ? 25 : 50;
    }
    assert_int_equal(zo_state_new(&s->state, &s->rules, key), ERR_OK);
    assert_int_equal(zo_model_load_state(s->model, s->state, NULL, &why), ERR_OK);
    for (uint32_t t = 0; t < s->rules.n_tensors; t++) /* lora_B starts at 0, which would hide all that comes before it */
        for (uint64_t i = 0; s->rules.lora_scale != 0.0f && i < zo_tensor_elements(&s->rules.tensors[t]); i++)
            ((int32_t *)s->state->m[t])[i] += ((int32_t)(i * 7919 % 2001) - 1000) * 2048;
    assert_int_equal(zo_model_bind(s->model, s->state, ZO_MEMORY_LEAN, &why), ERR_OK);
    assert_int_equal(open_any(&s->device, &why), ERR_OK);
    if (zo_device_load(s->device, s->model, s->state, type, memory, &why) != ERR_OK)
        fail_msg("%s: %s", dir, why.text);
}

static void tear_down(struct setup *s)
{
    zo_device_free(s->device);
    zo_state_free(s->state);
    zo_model_free(s->model);
    free(s->rules.tensors);
    assert_true(emu_used == 0);
}

/* Plain, both sides of one direction, one side of another; examples with several sequences among them. */
static size_t make_passes(struct zo_pass *p, const struct fixture *f)
{
    size_t n = 0;
    for (size_t i = 1; i < f->n && n + 4 <= PASSES; i += 2) { /* one text, then choices that share their beginning */
        p[n++] = (struct zo_pass){.example = &f->examples[i]};
        for (int side = 0; side < 2; side++)
            p[n++] = (struct zo_pass){.example = &f->examples[i], .key = {1, 2}, .seq = (UINT64_C(5) << 32) + i,
                                      .eps = side ? -0.02f : 0.02f};
        p[n++] = (struct zo_pass){.example = &f->examples[i], .key = {9, 8}, .seq = i, .eps = 0.01f};
    }
    return n;
}

/* FP32: the products' order and exp differ.  The others round each factor once, relative error u; a path through the model
 * meets about six rounded products a layer and two outside, and errors of independent sign rarely add up. */
static double tolerance(const struct setup *s)
{
    static const double unit[] = {[ZO_CUDA_BF16] = 0x1p-9, [ZO_CUDA_FP16] = 0x1p-12, [ZO_CUDA_FP32] = 0x1p-19};
    return 2 * unit[s->device->type] * (6 * s->model->c.layers + 2);
}

static double compare(const char *dir, struct setup *s, const struct fixture *f)
{
    struct zo_pass passes[PASSES];
    struct zo_loss want[PASSES], got[PASSES];
    const size_t n = make_passes(passes, f);
    double off = 0;
    assert_true(n > 0);
    const enum err cpu = zo_model_losses(s->model, passes, n, want, zo_kernels_pick("ref"), NULL);
    assert_int_equal(cpu, ERR_OK);
    assert_int_equal(zo_device_losses(s->device, passes, n, got), ERR_OK);
    for (size_t i = 0; i < n; i++) {
        const double d = fabs(got[i].loss - want[i].loss), tol = tolerance(s) * fmax(1.0, want[i].loss);
        if (!(d <= tol) || got[i].n_tokens != want[i].n_tokens)
            fail_msg("%s, kind %d, type %d, pass %zu (eps %g): %.7f, the CPU has %.7f (tolerance %g)", dir,
                     (int)s->rules.direction, (int)s->device->type, i, (double)passes[i].eps, got[i].loss, want[i].loss, tol);
        if (s->device->type == ZO_CUDA_FP32)
            assert_int_equal(got[i].correct, want[i].correct);
        off = fmax(off, d);
    }
    return off;
}

/* Several tiles of queries and keys, windows shorter than the text, a shared prefix of more than a tile; every size of tile. */
static void long_sequences(void **state)
{
    static const struct {
        const char *model;
        uint32_t shared; /* bytes: tiles of 64, 32, 16 */
    } cases[] = {{"llama", 99 << 10}, {"mistral", 20 << 10}, {"mistral", 6 << 10},
                 {"gemma2", 6 << 10}, {"gpt_neox", 20 << 10}, {"bert", 6 << 10}};
    static struct fixture f;
    static uint32_t ids[3][200];
    static uint8_t counted[200];
    struct zo_seq seqs[3];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char dir[512];
        struct setup s;
        (void)snprintf(dir, sizeof dir, "%s/%s", fixtures, cases[i].model);
        emu_shared = cases[i].shared;
        set_up(&s, dir, NULL, ZO_RANK1, ZO_DEVICE_FP32, ZO_MEMORY_LEAN); /* the device keeps its size */
        emu_shared = 99 << 10;
        if (!s.model->c.positions) /* rotation has no end: longer than the fixture's 32 */
            s.model->c.context = 200;
        const uint32_t context = zo_model_context(s.model), n = context < 90 ? context : 90, prefix = n / 2 + 3;
        for (uint32_t j = 0; j < n; j++)
            for (uint32_t k = 0; k < 3; k++)
                ids[k][j] = (j * 31 + (j >= prefix ? k * 17 : 0) + 5) % zo_model_vocab(s.model);
        for (uint32_t j = 0; j < n; j++)
            counted[j] = j % 3 == 1 || j + 1 == n;
        for (uint32_t k = 0; k < 3; k++)
            seqs[k] = (struct zo_seq){.n = n - 5 * k, .ids = ids[k], .counted = counted};
        f.n = 2;
        f.examples[1] = (struct zo_example){.n_seqs = 3, .seqs = seqs, .label = 1};
        compare(dir, &s, &f);
        tear_down(&s);
    }
}

static void for_each_model(void (*check)(const char *dir, const struct fixture *f, size_t i))
{
    static struct fixture f;
    struct dirent **list = NULL;
    const int n = scandir(fixtures, &list, NULL, alphasort);
    size_t count = 0;
    assert_true(n > 2);
    for (int i = 0; i < n; i++) {
        char dir[512];
        (void)snprintf(dir, sizeof dir, "%s/%s", fixtures, list[i]->d_name);
        const bool folder = list[i]->d_name[0] != '.' && list[i]->d_type == DT_DIR;
        free(list[i]);
        if (!folder)
            continue;
        fixture_read(&f, dir);
        check(dir, &f, count++);
    }
    free(list);
    assert_true(count >= 10);
}

static void check_rank1(const char *dir, const struct fixture *f, size_t i)
{
    struct setup s;
    set_up(&s, dir, NULL, ZO_RANK1, ZO_DEVICE_FP32, i % 2 ? ZO_MEMORY_FAST : ZO_MEMORY_LEAN);
    compare(dir, &s, f);
    tear_down(&s);
}

static void every_architecture_along_rank1(void **state)
{
    (void)state;
    for_each_model(check_rank1);
}

static void check_dense(const char *dir, const struct fixture *f, size_t i)
{
    struct setup s;
    if (i % 3 != 0) /* kinds and architectures cross elsewhere than in the layers' order */
        return;
    set_up(&s, dir, NULL, i % 2 ? ZO_GAUSSIAN : ZO_RADEMACHER, ZO_DEVICE_FP32, i % 2 ? ZO_MEMORY_LEAN : ZO_MEMORY_FAST);
    compare(dir, &s, f);
    tear_down(&s);
}

static void dense_kinds(void **state)
{
    (void)state;
    for_each_model(check_dense);
}

static void check_half(const char *dir, const struct fixture *f, size_t i)
{
    struct setup s;
    if (i % 3 != 1)
        return;
    emu_shared = i < 8 ? 99 << 10 : 30 << 10; /* attention on tensor cores, and where they have no room (it takes an emulation long) */
    set_up(&s, dir, NULL, i % 2 ? ZO_RANK1 : ZO_GAUSSIAN, i % 2 ? ZO_DEVICE_FP16 : ZO_DEVICE_BF16, ZO_MEMORY_AUTO);
    emu_shared = 99 << 10;
    compare(dir, &s, f);
    tear_down(&s);
}

static void half_precision(void **state)
{
    (void)state;
    for_each_model(check_half);
}

static void check_adapters(const char *dir, const struct fixture *f, size_t i)
{
    struct setup s;
    if (i % 4 != 2)
        return;
    set_up(&s, dir, "lora:r=3,alpha=6,targets=all", i % 8 == 2 ? ZO_RANK1 : ZO_RADEMACHER, ZO_DEVICE_FP32, ZO_MEMORY_AUTO);
    compare(dir, &s, f);
    tear_down(&s);
}

static void adapters(void **state)
{
    (void)state;
    for_each_model(check_adapters);
}

/* The resident weights that a fold wrote are those that the state gives, bit for bit. */
static void resident_weights_follow_the_fold(void **state)
{
    static const int8_t codes[70] = {120, -77, 31, [40] = 9, [69] = -127};
    static const enum zo_device_type types[] = {ZO_DEVICE_BF16, ZO_DEVICE_FP16, ZO_DEVICE_FP32};
    const struct zo_fold folds[2] = {{.key = {4, 5}, .count = 70, .lag = 70, .codes = codes},
                                     {.key = {7, 5}, .count = 70, .lag = 99, .codes = codes}};
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(types); k++) {
        struct setup s;
        size_t compared = 0, changed = 0;
        set_up(&s, k == 1 ? "tests/vectors/models/gpt2" : "tests/vectors/models/llama", NULL, ZO_RANK1, types[k],
               ZO_MEMORY_FAST);
        for (uint32_t t = 0; t < s.rules.n_tensors; t++) {
            const struct zo_tensor *z = &s.rules.tensors[t];
            const size_t bytes = (size_t)zo_tensor_elements(z) * zo_cuda_type_bytes(s.device->type);
            if (!s.device->copies[t])
                continue;
            uint8_t *before = malloc(bytes), *folded = malloc(bytes), *want = malloc(bytes);
            assert_true(before && folded && want);
            assert_int_equal(zo_cuda_get(s.device, before, s.device->copies[t], bytes), ERR_OK);
            assert_int_equal(zo_device_fold(s.device, folds, 2), ERR_OK);
            assert_int_equal(zo_cuda_get(s.device, folded, s.device->copies[t], bytes), ERR_OK);
            assert_int_equal(zo_cuda_weights_refresh(s.device, true), ERR_OK);
            assert_int_equal(zo_cuda_get(s.device, want, s.device->copies[t], bytes), ERR_OK);
            assert_memory_equal(folded, want, bytes);
            changed += memcmp(before, want, bytes) != 0;
            compared++;
            free(before);
            free(folded);
            free(want);
        }
        assert_true(compared > 4 && changed == compared);
        tear_down(&s);
    }
}

/* What the device folds, its forward pass reads: with resident weights too. */
static void folding_reaches_the_losses(void **state)
{
    static struct fixture f;
    static const int8_t codes[3] = {120, -77, 31};
    static const char dir[] = "tests/vectors/models/llama";
    struct setup s;
    struct zo_fold fold = {.key = {4, 5}, .count = 3, .lag = 3, .codes = codes};
    (void)state;
    fixture_read(&f, dir);
    for (int fast = 0; fast < 2; fast++) {
        struct zo_loss before, after;
        const struct zo_pass pass = {.example = &f.examples[0]};
        set_up(&s, dir, NULL, ZO_RANK1, ZO_DEVICE_FP32, fast ? ZO_MEMORY_FAST : ZO_MEMORY_LEAN);
        assert_int_equal(zo_device_memory(s.device), fast ? ZO_MEMORY_FAST : ZO_MEMORY_LEAN);
        assert_int_equal(zo_device_losses(s.device, &pass, 1, &before), ERR_OK);
        assert_int_equal(zo_device_fold(s.device, &fold, 1), ERR_OK);
        assert_int_equal(zo_device_losses(s.device, &pass, 1, &after), ERR_OK);
        assert_true(fabs(before.loss - after.loss) > 1e-4);
        assert_int_equal(zo_device_pull(s.device), ERR_OK); /* the CPU's model reads the same state now */
        compare(dir, &s, &f);
        tear_down(&s);
    }
}

enum { SCENE_ROWS = 320, SCENE_D = 128, SCENE_WIDTH = 4 * SCENE_D, SCENE_OUT = SCENE_ROWS * 2 * SCENE_D };

/* out <- attention of one sequence of 190 whose first 37 rows lie elsewhere: two heads of queries, one of keys and values. */
static void attend(struct zo_device *d, struct k_attend a, enum zo_cuda_kernel kernel, uint32_t tile, uint32_t bytes,
                   uint32_t type, float *out)
{
    static uint8_t raw[SCENE_OUT * 4];
    struct k_attend_item items[16];
    a.n_items = 0;
    for (uint32_t q = 37; q < 190; q += tile)
        items[a.n_items++] = (struct k_attend_item){.row0 = 60, .shared_row0 = 5, .shared = 37, .n = 190, .q0 = q};
    const uint64_t n = (uint64_t)SCENE_ROWS * a.heads * a.head_dim;
    void *there = NULL, *result = NULL;
    a.type = type;
    assert_int_equal(zo_cuda_alloc(d, &there, sizeof items), ERR_OK);
    assert_int_equal(zo_cuda_alloc(d, &result, n * 4), ERR_OK);
    memset(raw, 0, sizeof raw);
    assert_int_equal(zo_cuda_put(d, there, items, sizeof items), ERR_OK);
    assert_int_equal(zo_cuda_put(d, result, raw, n * 4), ERR_OK);
    a.items = there;
    a.out = result;
    assert_int_equal(zo_cuda_launch(d, kernel, a.n_items, a.heads, bytes, &a), ERR_OK);
    assert_int_equal(zo_cuda_get(d, raw, result, n * zo_cuda_type_bytes((enum zo_cuda_type)type)), ERR_OK);
    for (uint64_t i = 0; i < n; i++) {
        const uint16_t half = (uint16_t)(raw[2 * i] | raw[2 * i + 1] << 8);
        const uint32_t bits = (uint32_t)half << 16;
        if (type == ZO_CUDA_FP16)
            out[i] = emu_from_half(half);
        else
            memcpy(&out[i], type == ZO_CUDA_BF16 ? (const void *)&bits : &raw[4 * i], sizeof *out);
    }
    d->api->free(d->ctx, there);
    d->api->free(d->ctx, result);
}

/* The kernels on tensor cores against those in FP32, on numbers that every type holds exactly: what is left is the rounding of
 * probabilities (they sum to 1, values are at most 1) and of the result. */
static void attention_on_tensor_cores(void **state)
{
    static const struct {
        uint32_t d, causal, window;
        float cap;
    } cases[] = {{64, 1, 0, 0.0f}, {128, 1, 70, 0.0f}, {40, 0, 0, 2.0f}, {17, 1, 9, 0.0f}};
    static float qkv[SCENE_ROWS * SCENE_WIDTH], want[SCENE_OUT], got[SCENE_OUT];
    struct err_why why;
    struct zo_device *d = NULL;
    void *there = NULL;
    (void)state;
    assert_int_equal(open_any(&d, &why), ERR_OK);
    if (d->info.major < 8) {
        zo_device_free(d);
        printf("this GPU has no such products\n");
        skip();
    }
    for (uint32_t i = 0; i < SCENE_ROWS * SCENE_WIDTH; i++)
        qkv[i] = (float)((int)((i * 2654435761u) >> 24) - 128) / 128.0f;
    assert_int_equal(zo_cuda_alloc(d, &there, sizeof qkv), ERR_OK);
    assert_int_equal(zo_cuda_put(d, there, qkv, sizeof qkv), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const uint32_t dim = cases[i].d, wide = dim <= 64 ? 64 : 128, type = i % 2 ? ZO_CUDA_FP16 : ZO_CUDA_BF16;
        const struct k_attend a = {.heads = 2, .kv_heads = 1, .head_dim = dim, .causal = cases[i].causal,
                                   .window = cases[i].window, .scale = 4.0f / sqrtf((float)dim), .cap = cases[i].cap,
                                   .qkv = there, .width = 4 * dim};
        attend(d, a, ZO_CUDA_K_attend_32_8, 32, 4 * (2 * 32 * (dim + 1) + 32 * 33 + ZO_CUDA_THREADS + 96), ZO_CUDA_FP32, want);
        attend(d, a, wide == 64 ? ZO_CUDA_K_attend_mma_64 : ZO_CUDA_K_attend_mma_128, 128,
               4 * (192 * (wide + 8) / 2 + wide * 36), type, got);
        double most = 0, largest = 0;
        for (uint32_t k = 0; k < SCENE_ROWS * 2 * dim; k++) {
            most = fmax(most, isnan(got[k]) ? 9 : fabs(got[k] - want[k]));
            largest = fmax(largest, fabs(want[k]));
        }
        if (!(most <= (type == ZO_CUDA_BF16 ? 0x1p-8 : 0x1p-11)) || !(largest > 0.5))
            fail_msg("heads of %u, type %u: off by %g, of at most %g", dim, type, most, largest);
    }
    d->api->free(d->ctx, there);
    zo_device_free(d);
}

/* Rows that every warp has a part of (those of the little models fit one), more than there are blocks. */
static void wide_rows_are_normed(void **state)
{
    enum { ROWS = 70, D = 300 };
    static uint32_t row_pass[ROWS];
    static float x[ROWS * D], w[D], got[ROWS * D];
    struct err_why why;
    struct zo_device *d = NULL;
    uint8_t *there = NULL;
    (void)state;
    assert_int_equal(open_any(&d, &why), ERR_OK);
    for (uint32_t i = 0; i < ROWS * D; i++)
        x[i] = (float)((i * 2654435761u) >> 24) / 64.0f;
    for (uint32_t i = 0; i < D; i++)
        w[i] = 1.0f + (float)(i % 7);
    assert_int_equal(zo_cuda_alloc(d, (void **)&there, sizeof row_pass + sizeof w + 2 * sizeof x), ERR_OK);
    const struct k_norm k = {.row_pass = (void *)there, .n_rows = ROWS, .d = D, .norm = 2, .eps = 1e-5f,
                             .w = (void *)(there + sizeof row_pass), .src = (void *)(there + sizeof row_pass + sizeof w),
                             .dst = (void *)(there + sizeof row_pass + sizeof w + sizeof x)};
    assert_int_equal(zo_cuda_put(d, there, row_pass, sizeof row_pass), ERR_OK);
    assert_int_equal(zo_cuda_put(d, there + sizeof row_pass, w, sizeof w), ERR_OK);
    assert_int_equal(zo_cuda_put(d, there + sizeof row_pass + sizeof w, x, sizeof x), ERR_OK);
    assert_int_equal(zo_cuda_launch(d, ZO_CUDA_K_norm, 8, 1, 0, &k), ERR_OK);
    assert_int_equal(zo_cuda_get(d, got, k.dst, sizeof got), ERR_OK);
    for (uint32_t r = 0; r < ROWS; r++) {
        double mean = 0, square = 0;
        for (uint32_t i = 0; i < D; i++)
            mean += x[r * D + i] / (double)D;
        for (uint32_t i = 0; i < D; i++)
            square += (x[r * D + i] - mean) * (x[r * D + i] - mean) / D;
        for (uint32_t i = 0; i < D; i++)
            assert_true(fabs(got[r * D + i] - w[i] * (x[r * D + i] - mean) / sqrt(square + 1e-5)) < 1e-4);
    }
    d->api->free(d->ctx, there);
    zo_device_free(d);
}

/* As graphs, without them, and where recording or playing fails: the same losses; who fails too often is not asked again. */
static void graphs_or_not(void **state)
{
    static struct fixture f;
    static const char dir[] = "tests/vectors/models/llama";
    struct zo_pass passes[PASSES];
    struct zo_loss want[PASSES], got[PASSES];
    (void)state;
    fixture_read(&f, dir);
    const size_t n = make_passes(passes, &f) < 4 ? make_passes(passes, &f) : 4;
    for (int mode = EMU_GRAPHS_NONE; mode <= EMU_GRAPHS_FAIL; mode++) {
        struct setup s;
        set_up(&s, dir, NULL, ZO_RANK1, ZO_DEVICE_FP32, mode == EMU_GRAPHS_RUN ? ZO_MEMORY_FAST : ZO_MEMORY_LEAN);
        emu_graphs = (enum emu_graphs)mode;
        assert_int_equal(zo_device_losses(s.device, passes, n, want), ERR_OK);
        assert_true(s.device->graphs == 0); /* the first is not recorded */
        for (int i = 0; i < 4; i++) {
            memset(got, 0, sizeof got);
            const size_t from = i % 2 ? 1 : 0; /* another shape, and other passes, each time */
            assert_int_equal(zo_device_losses(s.device, passes + from, n - from, got), ERR_OK);
            for (size_t p = from; p < n; p++)
                assert_true(fabs(got[p - from].loss - want[p].loss) < 1e-4); /* fewer rows: a BLAS may sum in another order */
        }
        if (on_a_gpu())
            printf("%llu of %llu batches ran as graphs\n", (unsigned long long)s.device->graphs,
                   (unsigned long long)s.device->batches);
        else
            assert_true(s.device->graphs == (mode == EMU_GRAPHS_RUN ? 4 : 0) &&
                        s.device->graphs_left == (mode == EMU_GRAPHS_RUN ? 3 : 0));
        zo_device_graphs(s.device, false);
        const uint64_t before = s.device->graphs;
        assert_int_equal(zo_device_losses(s.device, passes, n, got), ERR_OK);
        assert_true(s.device->graphs == before);
        tear_down(&s);
    }
    emu_graphs = EMU_GRAPHS_NONE;
}

/* A batch too large for the memory left says so and does nothing; a smaller one fits.  A lost device says so. */
static void memory_and_loss_of_the_device(void **state)
{
    static struct fixture f;
    static const char dir[] = "tests/vectors/models/llama";
    struct setup s;
    struct zo_pass passes[PASSES];
    struct zo_loss out[PASSES];
    (void)state;
    EMULATION_ONLY();
    fixture_read(&f, dir);
    set_up(&s, dir, NULL, ZO_RANK1, ZO_DEVICE_FP32, ZO_MEMORY_LEAN);
    const size_t n = make_passes(passes, &f);
    emu_memory = emu_used + 1000;
    assert_int_equal(zo_device_losses(s.device, passes, n, out), ERR_NOMEM);
    emu_memory = (uint64_t)4 << 30;
    compare(dir, &s, &f);
    emu_fail_at = emu_calls + 30;
    assert_int_equal(zo_device_losses(s.device, passes, n, out), ERR_DEVICE);
    emu_fail_at = 0;
    assert_int_equal(zo_device_losses(s.device, passes, n, out), ERR_DEVICE);
    tear_down(&s);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_architecture_along_rank1), cmocka_unit_test(dense_kinds),
        cmocka_unit_test(half_precision),                 cmocka_unit_test(adapters),
        cmocka_unit_test(long_sequences),
        cmocka_unit_test(resident_weights_follow_the_fold), cmocka_unit_test(wide_rows_are_normed),
        cmocka_unit_test(graphs_or_not),
        cmocka_unit_test(attention_on_tensor_cores),
        cmocka_unit_test(folding_reaches_the_losses),     cmocka_unit_test(memory_and_loss_of_the_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
