/* The forward pass against PyTorch: logits, losses, and losses along directions of every kind, for
 * each architecture in tests/vectors/models (made by tests/check_models.py), every kernel variant,
 * both memory modes, several threads. With arguments: checks these folders instead, and says which
 * failed. */
#include <onebyte/zo/direction.h>
#include <onebyte/zo/model.h>
#include <onebyte/zo/tokenizer.h>

#include <cblas.h>
#include <dirent.h>
#include <dlfcn.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char fixtures[] = "tests/vectors/models",
                  stories[] = "../shared/data/models/stories260k";

enum { EXAMPLES_MAX = 8, SEQS_MAX = 4, PASSES_MAX = 64, TOKENS_MAX = 32 };

/* What a folder's expected.json asks for. */
struct fixture {
    struct zo_example examples[EXAMPLES_MAX];
    struct zo_seq seqs[EXAMPLES_MAX][SEQS_MAX];
    uint32_t ids[EXAMPLES_MAX][SEQS_MAX][TOKENS_MAX];
    uint8_t counted[EXAMPLES_MAX][SEQS_MAX][TOKENS_MAX];
    double loss[EXAMPLES_MAX];
    int correct[EXAMPLES_MAX];
    size_t n;
};

static uint32_t ids_read(const json_t *array, uint32_t *ids)
{
    for (size_t i = 0; i < json_array_size(array) && i < TOKENS_MAX; i++)
        ids[i] = (uint32_t)json_integer_value(json_array_get(array, i));
    return (uint32_t)json_array_size(array);
}

static void fixture_read(struct fixture *f, const json_t *root)
{
    const json_t *examples = json_object_get(root, "examples");
    f->n = json_array_size(examples);
    for (size_t i = 0; i < f->n; i++) {
        const json_t *e = json_array_get(examples, i), *seqs = json_object_get(e, "seqs");
        f->loss[i] = json_real_value(json_object_get(e, "loss"));
        f->correct[i] = (int)json_integer_value(json_object_get(e, "correct"));
        f->examples[i] =
            (struct zo_example){.n_seqs = (uint32_t)json_array_size(seqs),
                                .seqs = f->seqs[i],
                                .label = (int32_t)json_integer_value(json_object_get(e, "label"))};
        for (size_t j = 0; j < json_array_size(seqs); j++) {
            const json_t *s = json_array_get(seqs, j), *counted = json_object_get(s, "counted");
            f->seqs[i][j] = (struct zo_seq){.n = ids_read(json_object_get(s, "ids"), f->ids[i][j]),
                                            .ids = f->ids[i][j],
                                            .counted = f->counted[i][j]};
            for (size_t k = 0; k < json_array_size(counted); k++)
                f->counted[i][j][k] = (uint8_t)json_integer_value(json_array_get(counted, k));
        }
    }
}

__attribute__((format(printf, 2, 3))) static bool wrong(const char *dir, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("%s: ", dir);
    vprintf(format, args);
    printf("\n");
    va_end(args);
    return false;
}

static bool logits_agree(const char *dir, struct zo_model *m, const json_t *root,
                         struct zo_pool *pool)
{
    const json_t *sequences = json_object_get(root, "sequences");
    for (size_t i = 0; i < json_array_size(sequences); i++) {
        const json_t *s = json_array_get(sequences, i), *want = json_object_get(s, "logits");
        uint32_t ids[TOKENS_MAX];
        const uint32_t n = ids_read(json_object_get(s, "ids"), ids);
        const size_t width =
            zo_model_labels(m) ? zo_model_labels(m) : (size_t)zo_model_vocab(m) * n;
        float *got = calloc(width, sizeof *got);
        double most = 0.0, off = 0.0;
        const enum err e = zo_model_logits(m, ids, n, got, pool);
        for (size_t j = 0; e == ERR_OK && j < width && width == json_array_size(want); j++) {
            const double x = json_number_value(json_array_get(want, j)),
                         d = fabs(x - (double)got[j]);
            most = fabs(x) > most ? fabs(x) : most;
            off = !(d <= off) ? d : off;
        }
        free(got);
        if (e != ERR_OK || width != json_array_size(want) ||
            !(off <= 1e-4 * (most > 1.0 ? most : 1.0)) || most == 0.0)
            return wrong(dir, "logits of sequence %zu: error %d, off by %g of %g", i, (int)e, off,
                         most);
    }
    return true;
}

static bool losses_agree(const char *dir, struct zo_model *m, const struct fixture *f,
                         const struct zo_kernels *k, struct zo_pool *pool)
{
    struct zo_pass passes[EXAMPLES_MAX] = {0};
    struct zo_loss out[EXAMPLES_MAX];
    for (size_t i = 0; i < f->n; i++)
        passes[i].example = &f->examples[i];
    const enum err e = zo_model_losses(m, passes, f->n, out, k, pool);
    for (size_t i = 0; i < f->n; i++)
        if (e != ERR_OK || !(fabs(out[i].loss - f->loss[i]) <= 2e-5 * fmax(1.0, f->loss[i])) ||
            out[i].correct != f->correct[i])
            return wrong(dir, "example %zu: error %d, loss %.7f correct %d, expected %.7f %d", i,
                         (int)e, out[i].loss, out[i].correct, f->loss[i], f->correct[i]);
    return true;
}

/* The model's own trainable tensors with scales that keep every digit the test needs. */
static void rules_make(struct zo_rules *r, const struct zo_model *m)
{
    *r = (struct zo_rules){.sides = 2, .k = 1, .n0 = 1, .steps = 1, .n_knots = 1};
    assert_int_equal(zo_model_trainable(m, &r->tensors, &r->n_tensors), ERR_OK);
    for (uint32_t i = 0; i < r->n_tensors; i++) {
        r->tensors[i].bits = zo_tensor_is_matrix(&r->tensors[i]) ? 32 : 64;
        r->tensors[i].e = r->tensors[i].bits == 32 ? 25 : 50;
    }
}

/* One batch with plain passes among those along directions of this kind. */
static bool passes_agree(const char *dir, struct zo_model *m, struct zo_rules *rules,
                         const struct fixture *f, const json_t *root, enum zo_direction kind,
                         const struct zo_kernels *k, struct zo_pool *pool)
{
    static const char *const names[] = {"rank1", "rademacher", "gaussian"};
    const json_t *all = json_object_get(root, "passes");
    struct zo_pass passes[PASSES_MAX] = {0};
    struct zo_loss out[PASSES_MAX];
    double want[PASSES_MAX];
    size_t n = 0;
    rules->direction = kind;
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *p = json_array_get(all, i), *key = json_object_get(p, "key");
        const size_t example = (size_t)json_integer_value(json_object_get(p, "example"));
        if (strcmp(json_string_value(json_object_get(p, "direction")), names[kind]) != 0)
            continue;
        want[n] = f->loss[n % f->n];
        passes[n] = (struct zo_pass){.example = &f->examples[n % f->n]};
        n++;
        want[n] = json_real_value(json_object_get(p, "loss"));
        passes[n++] =
            (struct zo_pass){.example = &f->examples[example],
                             .key = {(uint32_t)json_integer_value(json_array_get(key, 0)),
                                     (uint32_t)json_integer_value(json_array_get(key, 1))},
                             .seq = (uint64_t)json_integer_value(json_object_get(p, "seq")),
                             .eps = (float)json_real_value(json_object_get(p, "eps"))};
    }
    const enum err e = zo_model_losses(m, passes, n, out, k, pool);
    for (size_t i = 0; i < n; i++)
        if (e != ERR_OK || !(fabs(out[i].loss - want[i]) <= 2e-5 * fmax(1.0, want[i])))
            return wrong(dir, "%s pass %zu: error %d, loss %.7f, expected %.7f", names[kind], i,
                         (int)e, out[i].loss, want[i]);
    /* Projected gradients: passes 1 and 3 of each four are the two sides along one direction. */
    for (size_t i = 0; i + 3 < n; i += 4) {
        const double width = (double)passes[i + 1].eps - (double)passes[i + 3].eps,
                     got = (out[i + 1].loss - out[i + 3].loss) / width,
                     g = (want[i + 1] - want[i + 3]) / width;
        if (passes[i + 1].seq != passes[i + 3].seq || !(fabs(got - g) <= 1e-3 * fmax(1.0, fabs(g))))
            return wrong(dir, "%s gradient %zu: %.7f, expected %.7f", names[kind], i / 4, got, g);
    }
    return n > 0 ? true : wrong(dir, "no %s passes", names[kind]);
}

static bool state_agrees(const char *dir, struct zo_model *m, const struct fixture *f,
                         const json_t *root, struct zo_pool *pool)
{
    static const char *const variants[] = {"ref", "avx2", "avx512"};
    struct zo_rules rules;
    struct zo_state *s;
    struct err_why why = {""};
    bool good = true;
    rules_make(&rules, m);
    assert_int_equal(zo_state_new(&s, &rules, (const uint32_t[2]){1, 2}), ERR_OK);
    if (zo_model_load_state(m, s, pool, &why) != ERR_OK)
        good = wrong(dir, "%s", why.text);
    for (int mode = ZO_MEMORY_LEAN; mode <= ZO_MEMORY_FAST && good; mode++) {
        assert_int_equal(zo_model_bind(m, s, (enum zo_memory)mode, &why), ERR_OK);
        for (size_t v = 0; v < ARRAY_LEN(variants) && good; v++) {
            const struct zo_kernels *k = zo_kernels_pick(variants[v]);
            good = !k || (losses_agree(dir, m, f, k, pool) &&
                          passes_agree(dir, m, &rules, f, root, ZO_RANK1, k, pool) &&
                          passes_agree(dir, m, &rules, f, root, ZO_RADEMACHER, k, pool) &&
                          passes_agree(dir, m, &rules, f, root, ZO_GAUSSIAN, k, pool));
        }
    }
    assert_int_equal(zo_model_bind(m, NULL, ZO_MEMORY_AUTO, &why), ERR_OK);
    zo_state_free(s);
    free(rules.tensors);
    return good;
}

static bool folder_agrees(const char *dir, const char *expected)
{
    static struct fixture f;
    char path[4096];
    struct zo_model *m;
    struct zo_pool *pool;
    struct err_why why = {""};
    (void)snprintf(path, sizeof path, "%s/expected.json", dir);
    json_t *root = json_load_file(expected ? expected : path, 0, NULL);
    if (!root)
        return wrong(dir, "its expected.json is missing");
    if (zo_model_open(&m, dir, &why) != ERR_OK) {
        json_decref(root);
        return wrong(dir, "%s", why.text);
    }
    assert_int_equal(zo_pool_new(&pool, 3), ERR_OK);
    fixture_read(&f, root);
    const bool good = logits_agree(dir, m, root, NULL) && logits_agree(dir, m, root, pool) &&
                      losses_agree(dir, m, &f, NULL, NULL) &&
                      losses_agree(dir, m, &f, NULL, pool) &&
                      state_agrees(dir, m, &f, root, pool) && state_agrees(dir, m, &f, root, NULL);
    zo_pool_free(pool);
    zo_model_free(m);
    json_decref(root);
    return good;
}

static void every_architecture_agrees_with_pytorch(void **state)
{
    DIR *d = opendir(fixtures);
    const struct dirent *e;
    size_t n = 0, bad = 0;
    (void)state;
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        char dir[4096];
        if (strchr(e->d_name, '.')) /* demo.json, and the folder itself */
            continue;
        (void)snprintf(dir, sizeof dir, "%s/%s", fixtures, e->d_name);
        bad += !folder_agrees(dir, NULL);
        n++;
    }
    closedir(d);
    assert_int_equal(bad, 0);
    assert_true(n >= 20);
}

/* Pretrained weights; when make_demo.py made new ones, tests/check_models.py --write must follow. */
static void the_embedded_model_agrees_with_pytorch(void **state)
{
    (void)state;
    assert_true(folder_agrees("peer/demo/model", "tests/vectors/models/demo.json"));
}

/* ---- a real model ---- */

static struct zo_seq text_seq(const struct zo_tokenizer *t, const char *text, uint32_t longest)
{
    struct zo_seq s;
    size_t n;
    assert_int_equal(zo_tokenizer_encode(t, text, strlen(text), true, &s.ids, &n), ERR_OK);
    s.n = n < longest ? (uint32_t)n : longest;
    s.counted = malloc(s.n);
    assert_non_null(s.counted);
    memset(s.counted, 1, s.n);
    s.counted[0] = 0;
    return s;
}

static void stories260k_has_its_reference_loss(void **state)
{
    char line[65536], path[4096];
    struct zo_model *m;
    struct zo_tokenizer *t;
    struct zo_pool *pool;
    struct zo_pass passes[40] = {0};
    struct zo_example examples[40];
    struct zo_seq seqs[40];
    struct zo_loss out[40];
    double nats = 0.0;
    uint64_t tokens = 0;
    (void)state;
    FILE *f = fopen("../shared/data/tinystories/eval40.jsonl", "r");
    if (!f) {
        printf("SKIP: ../shared/data is not there\n");
        skip();
    }
    (void)snprintf(path, sizeof path, "%s/reference_eval40.json", stories);
    json_t *reference = json_load_file(path, 0, NULL);
    const json_t *each = json_object_get(reference, "per_text_tokens_and_loss");
    assert_int_equal(zo_model_open(&m, stories, NULL), ERR_OK);
    assert_int_equal(zo_tokenizer_open(&t, stories, NULL), ERR_OK);
    assert_int_equal(zo_pool_new(&pool, 2), ERR_OK);
    assert_int_equal(zo_model_parameters(m), 260032);
    size_t n = 0;
    while (n < 40 && fgets(line, sizeof line, f)) {
        json_t *o = json_loads(line, 0, NULL);
        seqs[n] = text_seq(t, json_string_value(json_object_get(o, "text")), zo_model_context(m));
        examples[n] = (struct zo_example){.n_seqs = 1, .seqs = &seqs[n], .label = -1};
        passes[n].example = &examples[n];
        n++;
        json_decref(o);
    }
    fclose(f);
    assert_int_equal(n, 40);
    assert_int_equal(zo_model_losses(m, passes, n, out, NULL, pool), ERR_OK);
    for (size_t i = 0; i < n; i++) {
        const json_t *want = json_array_get(each, i);
        assert_int_equal(out[i].n_tokens, json_integer_value(json_array_get(want, 0)));
        assert_true(fabs(out[i].loss - json_number_value(json_array_get(want, 1))) < 1e-5);
        assert_int_equal(out[i].correct, -1);
        nats += out[i].nats;
        tokens += out[i].n_tokens;
        free(seqs[i].ids);
        free(seqs[i].counted);
    }
    assert_int_equal(tokens, 10923);
    assert_true(fabs(nats / (double)tokens - 1.385943) < 1e-5);
    json_decref(reference);
    zo_pool_free(pool);
    zo_tokenizer_free(t);
    zo_model_free(m);
}

/* ---- refusals ---- */

static char folder[64]; /* a copy of the llama fixture, to be damaged */

static void copy_file(const char *from_dir, const char *name)
{
    char path[4096], buf[65536];
    (void)snprintf(path, sizeof path, "%s/%s", from_dir, name);
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    const size_t n = fread(buf, 1, sizeof buf, in);
    fclose(in);
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(buf, 1, n, out), n);
    fclose(out);
}

static int folder_make(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/onebyte-model-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    copy_file("tests/vectors/models/llama", "model.safetensors");
    return 0;
}

static int folder_drop(void **state)
{
    static const char *const names[] = {"model.safetensors", "config.json", "tokenizer.json"};
    char path[4096];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    return rmdir(folder);
}

/* config.json of the fixture with key set to value (NULL: removed), then opened: the line must name
 * `says`. */
static void refused(const char *key, json_t *value, enum err code, const char *says)
{
    char path[4096];
    struct err_why why = {""};
    struct zo_model *m = NULL;
    json_t *o = json_load_file("tests/vectors/models/llama/config.json", 0, NULL);
    assert_non_null(o);
    if (value)
        json_object_set_new(o, key, value);
    else
        json_object_del(o, key);
    (void)snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(json_dump_file(o, path, 0), 0);
    json_decref(o);
    const enum err e = zo_model_open(&m, folder, &why);
    zo_model_free(m);
    if (e != code || !strstr(why.text, says) || strchr(why.text, '\n'))
        fail_msg("%s: error %d, \"%s\" does not name \"%s\"", key, (int)e, why.text, says);
}

static void bad_configs_are_named(void **state)
{
    static const char *const required[] = {
        "model_type",        "vocab_size",          "hidden_size",
        "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
        "intermediate_size", "rms_norm_eps",        "hidden_act"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(required); i++)
        refused(required[i], NULL, ERR_FORMAT, required[i]);
    refused("model_type", json_string("mamba"), ERR_UNSUPPORTED, "mamba");
    refused("hidden_act", json_string("xielu"), ERR_UNSUPPORTED, "xielu");
    refused("rope_parameters", json_pack("{s:s}", "rope_type", "dynamic"), ERR_UNSUPPORTED,
            "dynamic");
    refused("rope_parameters", json_pack("{s:s}", "rope_type", "longrope"), ERR_FORMAT,
            "short_factor");
    refused("rope_parameters", json_pack("{s:s}", "rope_type", "yarn"), ERR_FORMAT, "factor");
    refused("vocab_size", json_integer(62), ERR_FORMAT, "larger than the embedding");
    refused("vocab_size", json_integer(-1), ERR_RANGE, "vocab_size");
    refused("num_key_value_heads", json_integer(3), ERR_RANGE, "num_key_value_heads");
    refused("num_key_value_heads", json_integer(4), ERR_FORMAT, "k_proj");
    refused("num_hidden_layers", json_integer(3), ERR_NOTFOUND, "model.layers.2.");
    refused("tie_word_embeddings", json_false(), ERR_NOTFOUND, "lm_head.weight");
    refused("attention_bias", json_true(), ERR_NOTFOUND, "q_proj.bias");
    refused("mlp_bias", json_true(), ERR_UNSUPPORTED, "mlp_bias");
    refused("quantization_config", json_object(), ERR_UNSUPPORTED, "quantised");
    refused("intermediate_size", json_integer(25), ERR_FORMAT, "mlp.");
    refused("hidden_size", json_string("16"), ERR_RANGE, "hidden_size");
}

static void broken_json_is_named_by_line(void **state)
{
    char path[4096];
    struct err_why why = {""};
    struct zo_model *m;
    (void)state;
    (void)snprintf(path, sizeof path, "%s/config.json", folder);
    (void)unlink(path);
    assert_int_equal(zo_model_open(&m, folder, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, "config.json"));
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\n \"model_type\": \"llama\",\n", f);
    fclose(f);
    assert_int_equal(zo_model_open(&m, folder, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "line 3"));
}

static void masked_model_without_mask_token_is_refused(void **state)
{
    struct err_why why = {""};
    struct zo_model *m;
    char path[4096];
    (void)state;
    json_t *o = json_load_file("tests/vectors/models/bert/config.json", 0, NULL);
    json_object_del(o, "mask_token_id");
    (void)snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(json_dump_file(o, path, 0), 0);
    json_decref(o);
    copy_file("tests/vectors/models/bert", "model.safetensors");
    assert_int_equal(zo_model_open(&m, folder, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "mask_token_id"));
    (void)snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\"added_tokens\": [{\"id\": 4, \"content\": \"[MASK]\"}]}", f);
    fclose(f);
    assert_int_equal(zo_model_open(&m, folder, &why), ERR_OK);
    zo_model_free(m);
}

static void bad_passes_are_refused(void **state)
{
    struct zo_model *m;
    struct zo_loss out;
    float logits[4 * 61];
    uint32_t ids[40] = {1, 2, 3, 4};
    uint8_t counted[40] = {0, 1, 1, 1};
    struct zo_seq seqs[2] = {{.n = 4, .ids = ids, .counted = counted},
                             {.n = 4, .ids = ids, .counted = counted}};
    struct zo_example e = {.n_seqs = 1, .seqs = seqs, .label = -1};
    struct zo_pass p = {.example = &e};
    (void)state;
    assert_int_equal(zo_model_open(&m, "tests/vectors/models/llama", NULL), ERR_OK);
    assert_int_equal(zo_model_losses(m, &p, 1, &out, NULL, NULL), ERR_OK);
    assert_true(isfinite(out.loss) && out.n_tokens == 3);
    p.eps = 0.01f; /* no state is bound: there is no direction */
    assert_int_equal(zo_model_losses(m, &p, 1, &out, NULL, NULL), ERR_RANGE);
    p.eps = 0.0f;
    ids[1] = 61;
    assert_int_equal(zo_model_losses(m, &p, 1, &out, NULL, NULL), ERR_RANGE);
    struct err_why named = {{0}};
    assert_int_equal(zo_model_check(m, p.example, &named), ERR_RANGE);
    assert_true(named.text[0] != 0);
    assert_int_equal(zo_model_logits(m, ids, 4, logits, NULL), ERR_RANGE);
    ids[1] = 60;
    assert_int_equal(zo_model_logits(m, ids, 4, logits, NULL), ERR_OK);
    float next[61];
    assert_int_equal(zo_model_next(m, ids, 4, next, NULL), ERR_OK);
    for (size_t i = 0; i < 61; i++)
        assert_true(fabsf(next[i] - logits[3 * 61 + i]) < 1e-5f);
    uint32_t full[33] = {0}; /* a whole context still has a next token */
    assert_int_equal(zo_model_next(m, full, 32, next, NULL), ERR_OK);
    assert_int_equal(zo_model_next(m, full, 33, next, NULL), ERR_RANGE);
    full[2] = 61;
    assert_int_equal(zo_model_next(m, full, 3, next, NULL), ERR_RANGE);
    assert_int_equal(zo_model_logits(m, ids, 0, logits, NULL), ERR_RANGE);
    assert_int_equal(zo_model_logits(m, ids, 33, logits, NULL), ERR_RANGE);
    seqs[0].n = 33;
    assert_int_equal(zo_model_losses(m, &p, 1, &out, NULL, NULL), ERR_RANGE);
    seqs[0].n = 4;
    e.n_seqs = 2; /* choices need a label among them */
    assert_int_equal(zo_model_losses(m, &p, 1, &out, NULL, NULL), ERR_RANGE);
    e.label = 2;
    assert_int_equal(zo_model_losses(m, &p, 1, &out, NULL, NULL), ERR_RANGE);
    e.label = 1; /* equal choices: an even bet */
    assert_int_equal(zo_model_losses(m, &p, 1, &out, NULL, NULL), ERR_OK);
    assert_true(fabs(out.loss - log(2.0)) < 1e-6 && out.correct == 0);
    e.n_seqs = 1;
    memset(counted, 0, sizeof counted); /* nothing to measure: void, not a crash */
    assert_int_equal(zo_model_losses(m, &p, 1, &out, NULL, NULL), ERR_OK);
    assert_true(isnan(out.loss) && out.n_tokens == 0);
    seqs[0].n = 1;
    assert_int_equal(zo_model_losses(m, &p, 1, &out, NULL, NULL), ERR_OK);
    assert_true(isnan(out.loss));
    zo_model_free(m);
}

/* A state that has run away gives NaN (a void byte), never a crash; binding a foreign state is
 * refused. */
static void runaway_and_foreign_states(void **state)
{
    struct zo_model *m;
    struct zo_rules rules;
    struct zo_state *s;
    struct zo_loss out;
    struct err_why why = {""};
    uint32_t ids[4] = {1, 2, 3, 4};
    uint8_t counted[4] = {0, 1, 1, 1};
    struct zo_seq seq = {.n = 4, .ids = ids, .counted = counted};
    const struct zo_example e = {.n_seqs = 1, .seqs = &seq, .label = -1};
    const struct zo_pass p = {.example = &e, .eps = 3e38f};
    (void)state;
    assert_int_equal(zo_model_open(&m, "tests/vectors/models/gpt2", NULL), ERR_OK);
    rules_make(&rules, m);
    assert_int_equal(zo_state_new(&s, &rules, (const uint32_t[2]){1, 2}), ERR_OK);
    assert_int_equal(zo_model_load_state(m, s, NULL, &why), ERR_OK);
    assert_int_equal(zo_model_bind(m, s, ZO_MEMORY_LEAN, &why), ERR_OK);
    assert_int_equal(zo_model_losses(m, &p, 1, &out, NULL, NULL), ERR_OK);
    if (!isnan(out.loss))
        fail_msg("loss %g", out.loss);
    rules.tensors[0].dims[0]++;
    assert_int_equal(zo_model_bind(m, s, ZO_MEMORY_LEAN, &why), ERR_RANGE);
    assert_int_equal(zo_model_load_state(m, s, NULL, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, rules.tensors[0].name));
    rules.tensors[0].dims[0]--;
    rules.tensors[0].e = 61; /* |m0| would not fit */
    assert_int_equal(zo_model_load_state(m, s, NULL, &why), ERR_RANGE);
    assert_non_null(strstr(why.text, rules.tensors[0].name));
    zo_model_free(m);
    zo_state_free(s);
    free(rules.tensors);
}

/* fast follows the state only when it is told to. */
static void refresh_follows_the_state(void **state)
{
    struct zo_model *m;
    struct zo_rules rules;
    struct zo_state *s;
    struct zo_loss lean, fast, stale;
    uint32_t ids[4] = {1, 2, 3, 4};
    uint8_t counted[4] = {0, 1, 1, 1};
    struct zo_seq seq = {.n = 4, .ids = ids, .counted = counted};
    const struct zo_example e = {.n_seqs = 1, .seqs = &seq, .label = -1};
    const struct zo_pass p = {.example = &e};
    (void)state;
    assert_int_equal(zo_model_open(&m, "tests/vectors/models/llama", NULL), ERR_OK);
    rules_make(&rules, m);
    assert_int_equal(zo_state_new(&s, &rules, (const uint32_t[2]){1, 2}), ERR_OK);
    assert_int_equal(zo_model_load_state(m, s, NULL, NULL), ERR_OK);
    assert_int_equal(zo_model_bind(m, s, ZO_MEMORY_FAST, NULL), ERR_OK);
    for (uint32_t t = 0; t < rules.n_tensors; t++)
        for (uint64_t i = 0;
             rules.tensors[t].bits == 32 && i < zo_tensor_elements(&rules.tensors[t]); i += 3)
            ((int32_t *)s->m[t])[i] /= 2;
    assert_int_equal(zo_model_losses(m, &p, 1, &stale, NULL, NULL), ERR_OK);
    assert_int_equal(zo_model_refresh(m, NULL), ERR_OK);
    assert_int_equal(zo_model_losses(m, &p, 1, &fast, NULL, NULL), ERR_OK);
    assert_int_equal(zo_model_bind(m, s, ZO_MEMORY_LEAN, NULL), ERR_OK);
    assert_int_equal(zo_model_losses(m, &p, 1, &lean, NULL, NULL), ERR_OK);
    assert_true(fast.loss == lean.loss);
    assert_true(fabs(stale.loss - lean.loss) > 1e-3);
    zo_model_free(m);
    zo_state_free(s);
    free(rules.tensors);
}

/* Only some tensors trained: the others keep the checkpoint's values.  And the definition itself: a pass along z equals a
 * plain pass over a state to which eps z was added. */
static void a_direction_is_what_adding_it_would_be(const char *dir, enum zo_direction kind,
                                                   bool subset)
{
    struct zo_model *m;
    struct zo_rules rules;
    struct zo_state *s;
    struct zo_loss inside, plain, added;
    uint32_t ids[8] = {5, 9, 13, 9, 60, 7, 5, 11}, kept = 0;
    uint8_t counted[8] = {0, 1, 1, 0, 1, 1, 1, 1};
    struct zo_seq seq = {.n = 8, .ids = ids, .counted = counted};
    const struct zo_example e = {.n_seqs = 1, .seqs = &seq, .label = -1};
    struct zo_pass p = {.example = &e, .key = {77, 88}, .seq = 1234567890123};
    const struct zo_kernels *k = zo_kernels_pick(NULL);
    assert_int_equal(zo_model_open(&m, dir, NULL), ERR_OK);
    rules_make(&rules, m);
    rules.direction = kind;
    for (uint32_t i = 0; i < rules.n_tensors; i++)
        if (!subset || i % 3 == 1)
            rules.tensors[kept++] = rules.tensors[i];
    rules.n_tensors = kept;
    assert_int_equal(zo_state_new(&s, &rules, (const uint32_t[2]){1, 2}), ERR_OK);
    assert_int_equal(zo_model_load_state(m, s, NULL, NULL), ERR_OK);
    assert_int_equal(zo_model_bind(m, s, ZO_MEMORY_LEAN, NULL), ERR_OK);
    assert_int_equal(zo_model_losses(m, &p, 1, &plain, k, NULL), ERR_OK);
    p.eps = 0.03f;
    assert_int_equal(zo_model_losses(m, &p, 1, &inside, k, NULL), ERR_OK);
    for (uint32_t t = 0; t < rules.n_tensors; t++) {
        const uint64_t n = zo_tensor_elements(&rules.tensors[t]);
        float *z = calloc(n, sizeof *z);
        zo_direction_rows_f32(z, &rules, t, p.key, p.seq, 0, zo_tensor_rows(&rules.tensors[t]),
                              1.0f, false, k);
        for (uint64_t i = 0; i < n; i++) {
            const double step = ldexp(0.03 * (double)z[i], (int)rules.tensors[t].e);
            if (rules.tensors[t].bits == 32)
                ((int32_t *)s->m[t])[i] += (int32_t)lround(step);
            else
                ((int64_t *)s->m[t])[i] += llround(step);
        }
        free(z);
    }
    p.eps = 0.0f;
    assert_int_equal(zo_model_losses(m, &p, 1, &added, k, NULL), ERR_OK);
    if (!(fabs(inside.loss - added.loss) < 1e-5) || !(fabs(inside.loss - plain.loss) > 1e-3))
        fail_msg("%s: %.7f inside, %.7f added, %.7f plain", dir, inside.loss, added.loss,
                 plain.loss);
    zo_model_free(m);
    zo_state_free(s);
    free(rules.tensors);
}

static void directions_inside_equal_directions_added(void **state)
{
    static const char *const dirs[] = {"tests/vectors/models/llama3", "tests/vectors/models/gpt2",
                                       "tests/vectors/models/gemma3",
                                       "tests/vectors/models/opt_350m"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        for (int kind = ZO_RANK1; kind <= ZO_GAUSSIAN; kind++) {
            a_direction_is_what_adding_it_would_be(dirs[i], (enum zo_direction)kind, false);
            a_direction_is_what_adding_it_would_be(dirs[i], (enum zo_direction)kind, true);
        }
}

static void blas_core_is_chosen_again(void **state)
{
    struct err_why why = {""};
    void (*quit)(void) = NULL, (*init)(void) = NULL;
    void *found = dlsym(RTLD_DEFAULT, "gotoblas_dynamic_quit");
    (void)state;
    memcpy(&quit, &found, sizeof quit);
    found = dlsym(RTLD_DEFAULT, "gotoblas_dynamic_init");
    memcpy(&init, &found, sizeof init);
    assert_int_equal(zo_blas_start(&why), ERR_OK);
    assert_int_equal(openblas_get_num_threads(), 1);
    char before[64];
    (void)snprintf(before, sizeof before, "%s", zo_blas_core());
    if (!quit || !init || !__builtin_cpu_supports("avx2")) {
        printf("SKIP: avx2 or OpenBLAS with dynamic cores is not there\n");
        skip();
    }
    setenv("OPENBLAS_CORETYPE", "PRESCOTT", 1); /* what a virtual machine falls back to */
    quit();
    init();
    assert_string_equal(zo_blas_core(), "Prescott");
    assert_int_equal(zo_blas_start(&why), ERR_OK); /* the owner's wish stays .. */
    assert_string_equal(zo_blas_core(), "Prescott");
    unsetenv("OPENBLAS_CORETYPE");
    assert_int_equal(zo_blas_start(&why), ERR_OK); /* .. the library's own mistake does not */
    assert_string_not_equal(zo_blas_core(), "Prescott");
    unsetenv("OPENBLAS_CORETYPE");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blas_core_is_chosen_again),
        cmocka_unit_test(every_architecture_agrees_with_pytorch),
        cmocka_unit_test(the_embedded_model_agrees_with_pytorch),
        cmocka_unit_test(stories260k_has_its_reference_loss),
        cmocka_unit_test_setup_teardown(bad_configs_are_named, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(broken_json_is_named_by_line, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(masked_model_without_mask_token_is_refused, folder_make,
                                        folder_drop),
        cmocka_unit_test(bad_passes_are_refused),
        cmocka_unit_test(runaway_and_foreign_states),
        cmocka_unit_test(refresh_follows_the_state),
        cmocka_unit_test(directions_inside_equal_directions_added),
    };
    int bad = 0;
    for (int i = 1; i < argc; i++)
        bad += !folder_agrees(argv[i], NULL);
    return argc > 1 ? bad != 0 : cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
