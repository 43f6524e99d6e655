/* bench/gpu: the GPU backend's figures as JSON lines; bench/gpu.sh builds and runs it.
 *
 *     gpu PLUGIN SHAPE [EXAMPLES TOKENS]      SHAPE: 1.3b, 13b (OPT's), tiny
 *
 * Every measured time stands beside its two floors: operations / measured rate of a large BF16 product, bytes / measured
 * bandwidth of reading its largest tensor.  The checkpoint is a file with holes; the state is filled with random integers here. */
#include "zo/cuda/cuda.h"

#include <onebyte/zo/codec.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct shape {
    const char *name;
    uint32_t d, layers, heads, ffn, vocab, context;
};
static const struct shape shapes[] = {{"tiny", 64, 2, 4, 256, 512, 128},
                                      {"1.3b", 2048, 24, 32, 8192, 50272, 2048},
                                      {"13b", 5120, 40, 40, 20480, 50272, 2048}};
enum { SEGMENT = 64, REPEATS = 3, FOLD_RECORDS = 100000, THREADS = 16 };

static double now_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int failed(const char *what, enum err e, const char *why)
{
    fprintf(stderr, "gpu: %s: %s %s\n", what, err_str(e), why);
    return 1;
}

/* ---- a model without a download ---- */

struct header {
    char *text;
    size_t n, room;
    uint64_t at;
};

static void tensor(struct header *h, const char *name, uint64_t rows, uint64_t cols)
{
    const uint64_t bytes = 2 * rows * (cols ? cols : 1);
    if (h->room - h->n < 400) {
        h->room = 2 * h->room + 65536;
        h->text = realloc(h->text, h->room);
        ENSURE(h->text != NULL);
    }
    char shape[64];
    (void)snprintf(shape, sizeof shape, cols ? "%llu,%llu" : "%llu", (unsigned long long)rows, (unsigned long long)cols);
    h->n += (size_t)snprintf(h->text + h->n, h->room - h->n,
                             "%s\"model.decoder.%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}",
                             h->n ? "," : "{", name, shape, (unsigned long long)h->at, (unsigned long long)(h->at + bytes));
    h->at += bytes;
}

static void layer_tensors(struct header *h, const struct shape *s, uint32_t layer)
{
    static const char *const norms[] = {"self_attn_layer_norm", "final_layer_norm"};
    static const char *const linears[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"};
    char name[128];
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(name, sizeof name, "layers.%u.%s.weight", layer, norms[i]);
        tensor(h, name, s->d, 0);
        (void)snprintf(name, sizeof name, "layers.%u.%s.bias", layer, norms[i]);
        tensor(h, name, s->d, 0);
    }
    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(name, sizeof name, "layers.%u.%s.weight", layer, linears[i]);
        tensor(h, name, s->d, s->d);
        (void)snprintf(name, sizeof name, "layers.%u.%s.bias", layer, linears[i]);
        tensor(h, name, s->d, 0);
    }
    for (int i = 1; i <= 2; i++) {
        (void)snprintf(name, sizeof name, "layers.%u.fc%d.weight", layer, i);
        tensor(h, name, i == 1 ? s->ffn : s->d, i == 1 ? s->d : s->ffn);
        (void)snprintf(name, sizeof name, "layers.%u.fc%d.bias", layer, i);
        tensor(h, name, i == 1 ? s->ffn : s->d, 0);
    }
}

static bool write_model(const char *dir, const struct shape *s)
{
    char path[512];
    struct header h = {0};
    (void)snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    if (!f)
        return false;
    fprintf(f,
            "{\"model_type\":\"opt\",\"vocab_size\":%u,\"hidden_size\":%u,\"num_hidden_layers\":%u,\"num_attention_heads\":%u,"
            "\"ffn_dim\":%u,\"max_position_embeddings\":%u,\"activation_function\":\"relu\",\"word_embed_proj_dim\":%u}",
            s->vocab, s->d, s->layers, s->heads, s->ffn, s->context, s->d);
    bool good = fclose(f) == 0;
    tensor(&h, "embed_tokens.weight", s->vocab, s->d);
    tensor(&h, "embed_positions.weight", s->context + 2, s->d);
    for (uint32_t l = 0; l < s->layers; l++)
        layer_tensors(&h, s, l);
    tensor(&h, "final_layer_norm.weight", s->d, 0);
    tensor(&h, "final_layer_norm.bias", s->d, 0);
    h.text[h.n++] = '}';
    while (h.n % 8 != 0)
        h.text[h.n++] = ' ';
    const uint64_t n = h.n;
    (void)snprintf(path, sizeof path, "%s/model.safetensors", dir);
    f = fopen(path, "wb");
    good = good && f && fwrite(&n, sizeof n, 1, f) == 1 && fwrite(h.text, 1, h.n, f) == h.n && fflush(f) == 0 &&
           ftruncate(fileno(f), (off_t)(8 + h.n + h.at)) == 0; /* the weights are a hole */
    good = f && fclose(f) == 0 && good;
    free(h.text);
    return good;
}

struct filling {
    struct zo_state *s;
    uint32_t t;
};

enum { FILL = 1 << 20 };

/* Matrices of standard deviation 0.02, norms of 1, biases of 0. */
static void fill_item(void *ctx, size_t i, size_t worker)
{
    const struct filling *f = ctx;
    const struct zo_tensor *z = &f->s->rules->tensors[f->t];
    const uint64_t first = (uint64_t)i * FILL, n = zo_tensor_elements(z), end = first + FILL < n ? first + FILL : n;
    (void)worker;
    for (uint64_t j = first; j < end; j++) {
        uint64_t x = (j + ((uint64_t)f->t << 40)) * 0x9e3779b97f4a7c15u;
        x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
        if (z->bits == 32)
            ((int32_t *)f->s->m[f->t])[j] = (int32_t)(x >> 32) / 1848; /* +-0.0346 * 2^25 */
        else
            ((int64_t *)f->s->m[f->t])[j] = strstr(z->name, "norm.weight") ? INT64_C(1) << z->e : 0;
    }
}

/* ---- measuring ---- */

struct bench {
    const struct shape *shape;
    uint32_t examples, tokens;
    struct zo_model *model;
    struct zo_rules rules;
    struct zo_state *state;
    struct zo_device *device;
    double rate, bandwidth; /* operations and bytes per second */
    uint64_t matrix_params, params;
};

static void figure(const struct bench *b, const char *name, double value, const char *unit)
{
    printf("{\"figure\":\"%s\",\"shape\":\"%s\",\"batch\":\"%ux%u\",\"value\":%.6g,\"unit\":\"%s\"}\n", name, b->shape->name,
           b->examples, b->tokens, value, unit);
    fflush(stdout);
}

/* A time with its floors. */
static void timed(const struct bench *b, const char *name, double s, double operations, double bytes)
{
    printf("{\"figure\":\"%s\",\"shape\":\"%s\",\"batch\":\"%ux%u\",\"value\":%.6g,\"unit\":\"s\",\"floor_operations_s\":%.6g,"
           "\"floor_bytes_s\":%.6g}\n",
           name, b->shape->name, b->examples, b->tokens, s, operations / b->rate, bytes / b->bandwidth);
    fflush(stdout);
}

static uint32_t embedding(const struct bench *b)
{
    uint32_t t = 0;
    while (t + 1 < b->rules.n_tensors && !strstr(b->rules.tensors[t].name, "embed_tokens"))
        t++;
    return t;
}

/* Bytes per second of one kernel that reads the embedding, which is larger than any cache; eight times, so that neither launching nor
 * copying counts. */
static enum err read_rate(struct bench *b)
{
    enum { BLOCKS = 1024, TIMES = 8 };
    struct zo_device *d = b->device;
    const uint32_t t = embedding(b);
    const struct zo_tensor *z = &b->rules.tensors[t];
    void *out = NULL;
    double best = 1e9;
    TRY(zo_cuda_alloc(d, &out, BLOCKS * sizeof(uint64_t)));
    const struct k_digest k = {.m = d->m[t], .bits = z->bits, .rows = zo_tensor_rows(z), .cols = zo_tensor_cols(z), .out = out};
    for (int i = 0; i <= REPEATS; i++) {
        TRY(d->api->sync(d->ctx));
        const double began = now_s();
        for (int j = 0; j < TIMES; j++)
            TRY(zo_cuda_launch(d, ZO_CUDA_K_digest, BLOCKS, 1, 0, &k));
        TRY(d->api->sync(d->ctx));
        best = i > 0 && now_s() - began < best ? now_s() - began : best;
    }
    b->bandwidth = TIMES * (double)zo_tensor_elements(z) * (z->bits / 8) / best;
    d->api->free(d->ctx, out);
    d->bytes -= BLOCKS * sizeof(uint64_t);
    return ERR_OK;
}

/* Random factors, out of the embedding: zeros would draw less power and run faster. */
static enum err fill_factor(struct bench *b, void *out, uint64_t n)
{
    const uint32_t t = embedding(b);
    const uint64_t most = zo_tensor_elements(&b->rules.tensors[t]);
    for (uint64_t first = 0; first < n; first += most) {
        const struct k_convert k = {.m = b->device->m[t], .bits = 32, .type = b->device->type, .scale = 0x1p-25f,
                                    .n = n - first < most ? n - first : most,
                                    .out = (uint8_t *)out + first * zo_cuda_type_bytes(b->device->type)};
        TRY(zo_cuda_launch_n(b->device, ZO_CUDA_K_convert, k.n, 1, &k));
    }
    return ERR_OK;
}

/* The rate of the MLP's first product, as the forward pass has it, and of reading the whole state. */
static enum err ceilings(struct bench *b)
{
    struct zo_device *d = b->device;
    const struct shape *s = b->shape;
    const uint64_t rows = 2ull * b->examples * b->tokens;
    void *x = NULL, *w = NULL, *y = NULL;
    double best = 1e9;
    TRY(zo_cuda_alloc(d, &x, rows * s->d * 2));
    TRY(zo_cuda_alloc(d, &w, (uint64_t)s->ffn * s->d * 2));
    TRY(zo_cuda_alloc(d, &y, rows * s->ffn * 4));
    TRY(fill_factor(b, x, rows * s->d));
    TRY(fill_factor(b, w, (uint64_t)s->ffn * s->d));
    const struct zo_cuda_gemm g = {.type = d->type, .rows = rows, .n_in = s->d, .n_out = s->ffn, .ldx = s->d, .ldw = s->d,
                                   .ldy = s->ffn, .alpha = 1.0f, .x = x, .w = w, .y = y};
    for (int i = 0; i < 2 * REPEATS; i++) {
        TRY(d->api->sync(d->ctx));
        const double began = now_s();
        for (int j = 0; j < 4; j++)
            TRY(d->api->gemm(d->ctx, &g));
        TRY(d->api->sync(d->ctx));
        best = i > 0 && (now_s() - began) / 4 < best ? (now_s() - began) / 4 : best;
    }
    b->rate = 2.0 * (double)rows * s->d * s->ffn / best;
    TRY(read_rate(b));
    d->api->free(d->ctx, x);
    d->api->free(d->ctx, w);
    d->api->free(d->ctx, y);
    d->bytes -= rows * s->d * 2 + (uint64_t)s->ffn * s->d * 2 + rows * s->ffn * 4;
    figure(b, "product, share of the forward pass's shape", b->rate * 1e-12, "Tflop/s");
    figure(b, "reading memory", b->bandwidth * 1e-9, "GB/s");
    return ERR_OK;
}

static double forward_operations(const struct bench *b) /* of one pass over the batch */
{
    const double rows = (double)b->examples * (b->tokens - 1);
    return rows * (2.0 * (double)b->matrix_params + 2.0 * b->tokens * b->shape->d * b->shape->layers);
}

static enum err losses_s(struct bench *b, const struct zo_pass *passes, size_t n, double *s)
{
    struct zo_loss *out = calloc(n, sizeof *out);
    enum err e = out ? ERR_OK : ERR_NOMEM;
    *s = 1e9;
    for (int i = 0; i <= REPEATS && e == ERR_OK; i++) {
        const double began = now_s();
        e = zo_device_losses(b->device, passes, n, out);
        if (i > 0 && now_s() - began < *s)
            *s = now_s() - began;
    }
    if (e == ERR_OK)
        figure(b, "loss of the first pass", out[0].loss, "nats");
    free(out);
    return e;
}

static struct zo_example *make_examples(const struct bench *b)
{
    struct zo_example *e = calloc(b->examples, sizeof *e);
    for (uint32_t i = 0; e && i < b->examples; i++) {
        struct zo_seq *s = calloc(1, sizeof *s);
        ENSURE(s != NULL);
        *s = (struct zo_seq){.n = b->tokens, .ids = calloc(b->tokens, 4), .counted = calloc(b->tokens, 1)};
        ENSURE(s->ids && s->counted);
        for (uint32_t j = 0; j < b->tokens; j++) {
            s->ids[j] = (i * 7919 + j * 104729) % b->shape->vocab;
            s->counted[j] = j > 0;
        }
        e[i] = (struct zo_example){.n_seqs = 1, .seqs = s, .label = -1};
    }
    return e;
}

static enum err fold_s(struct bench *b, uint32_t records, uint32_t segment, double *s)
{
    const uint32_t n = (records + segment - 1) / segment;
    struct zo_fold *f = calloc(n, sizeof *f);
    int8_t *codes = malloc(segment);
    uint64_t digest;
    enum err e = f && codes ? ERR_OK : ERR_NOMEM;
    for (uint32_t i = 0; i < segment && codes; i++)
        codes[i] = (int8_t)((int)(i * 37 % 61) - 30 + (i * 37 % 61 == 30));
    for (uint32_t i = 0; i < n && f; i++)
        f[i] = (struct zo_fold){.key = {i, 1}, .count = segment, .lag = segment + i % 8, .codes = codes};
    *s = 1e9;
    for (int i = 0; i < 2 && e == ERR_OK; i++) {
        e = b->device->api->sync(b->device->ctx);
        const double began = now_s();
        if (e == ERR_OK)
            e = zo_device_fold(b->device, f, n);
        if (e == ERR_OK)
            e = b->device->api->sync(b->device->ctx);
        *s = now_s() - began < *s ? now_s() - began : *s;
    }
    if (e == ERR_OK)
        e = zo_device_digest(b->device, &digest);
    free(f);
    free(codes);
    return e;
}

static enum err batch_figures(struct bench *b)
{
    const size_t n = 2 * (size_t)b->examples;
    struct zo_pass *passes = calloc(n, sizeof *passes);
    struct zo_example *examples = make_examples(b);
    double plain = 0, pair = 0, segment = 0;
    ENSURE(passes && examples);
    for (size_t i = 0; i < n; i++)
        passes[i] = (struct zo_pass){.example = &examples[i / 2], .key = {1, 2}, .seq = i / 2};
    TRY(losses_s(b, passes, n, &plain));
    for (size_t i = 0; i < n; i++)
        passes[i].eps = i % 2 ? -1e-3f : 1e-3f;
    TRY(losses_s(b, passes, n, &pair));
    if (b->device->graphs > 0) { /* small enough for graphs: what do they save? */
        double eager = 0;
        zo_device_graphs(b->device, false);
        TRY(losses_s(b, passes, n, &eager));
        zo_device_graphs(b->device, true);
        figure(b, "two-sided batch without CUDA graphs", eager, "s");
    }
    TRY(fold_s(b, SEGMENT, SEGMENT, &segment));
    const double bytes = 2.0 * (double)b->params * (b->device->resident ? 1 : 3);
    timed(b, "two plain forward passes", plain, 2 * forward_operations(b), bytes);
    timed(b, "two-sided batch with directions", pair, 2 * forward_operations(b), bytes);
    timed(b, "fold of one segment of 64 records", segment, 2.0 * SEGMENT * (double)b->matrix_params,
          2.0 * (double)zo_state_bytes(b->state));
    const double step = pair + segment * b->examples / SEGMENT;
    figure(b, "step: two-sided batch, fold per 64 records", step, "s");
    figure(b, "step / two plain passes", step / plain, "ratio");
    figure(b, "forward pass, share of the product's rate", 2 * forward_operations(b) / plain / b->rate, "ratio");
    free(passes);
    return ERR_OK; /* the examples live until the process ends */
}

static enum err state_figures(struct bench *b)
{
    double s;
    uint64_t digest;
    if (strcmp(b->shape->name, "13b") != 0) {
        TRY(fold_s(b, FOLD_RECORDS / (b->shape->d < 1000 ? 100 : 1), SEGMENT, &s));
        timed(b, "fold of 100,000 rank-1 records", s, 2.0 * FOLD_RECORDS * (double)b->matrix_params,
              2.0 * (double)zo_state_bytes(b->state));
    }
    const double began = now_s();
    TRY(zo_device_digest(b->device, &digest));
    timed(b, "digest", now_s() - began, 0, (double)zo_state_bytes(b->state));
    figure(b, "device memory", (double)zo_device_bytes(b->device) * 1e-9, "GB");
    figure(b, "device memory per parameter less 6 GB",
           ((double)zo_device_bytes(b->device) - 6e9) / (double)b->params, "bytes");
    figure(b, "weights beside the integers", b->device->resident, "1 resident, 0 layer by layer");
    return ERR_OK;
}

static enum err open_all(struct bench *b, const char *plugin, const char *dir, struct zo_pool *pool, struct err_why *why)
{
    static const uint32_t key[2] = {1, 2};
    TRY(zo_model_open(&b->model, dir, why));
    b->rules = (struct zo_rules){.direction = ZO_RANK1, .sides = 2, .k = 1, .n0 = 64, .steps = 1000, .n_knots = 1,
                                 .knots = {{0, UINT64_C(1) << 44}}, .eps = 1e-3f};
    TRY(zo_model_trainable(b->model, &b->rules.tensors, &b->rules.n_tensors));
    for (uint32_t i = 0; i < b->rules.n_tensors; i++) {
        struct zo_tensor *z = &b->rules.tensors[i];
        z->bits = zo_tensor_is_matrix(z) ? 32 : 64;
        z->e = z->bits == 32 ? 25 : 50;
        b->params += zo_tensor_elements(z);
        b->matrix_params += zo_tensor_is_matrix(z) && !strstr(z->name, "positions") ? zo_tensor_elements(z) : 0;
    }
    TRY(zo_state_new(&b->state, &b->rules, key));
    for (uint32_t t = 0; t < b->rules.n_tensors; t++) {
        struct filling f = {.s = b->state, .t = t};
        zo_pool_run(pool, (size_t)((zo_tensor_elements(&b->rules.tensors[t]) + FILL - 1) / FILL), fill_item, &f);
    }
    TRY(zo_model_bind(b->model, b->state, ZO_MEMORY_LEAN, why));
    TRY(zo_device_open(&b->device, plugin, 0, why));
    return zo_device_load(b->device, b->model, b->state, ZO_DEVICE_BF16, ZO_MEMORY_AUTO, why);
}

int main(int argc, char **argv)
{
    struct bench b = {.examples = 16, .tokens = 400};
    struct err_why why = {{0}};
    struct zo_pool *pool = NULL;
    char dir[] = "/tmp/onebyte-gpu-XXXXXX", path[512];
    if (argc != 3 && argc != 5) {
        fprintf(stderr, "usage: gpu PLUGIN 1.3b|13b|tiny [EXAMPLES TOKENS]\n");
        return 2;
    }
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        if (strcmp(shapes[i].name, argv[2]) == 0)
            b.shape = &shapes[i];
    if (argc == 5) {
        b.examples = (uint32_t)strtoul(argv[3], NULL, 10);
        b.tokens = (uint32_t)strtoul(argv[4], NULL, 10);
    }
    if (!b.shape || b.examples == 0 || b.tokens < 2 || b.tokens > b.shape->context || !mkdtemp(dir) ||
        !write_model(dir, b.shape) || zo_pool_new(&pool, THREADS) != ERR_OK)
        return failed("start", ERR_RANGE, "(shape, batch, or no room in /tmp)");
    enum err e = open_all(&b, argv[1], dir, pool, &why);
    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, i ? "model.safetensors" : "config.json");
        (void)unlink(path);
    }
    (void)rmdir(dir);
    if (e != ERR_OK)
        return failed("opening", e, why.text);
    printf("{\"device\":\"%s\",\"shape\":\"%s\",\"parameters\":%llu}\n", zo_device_name(b.device), b.shape->name,
           (unsigned long long)b.params);
    e = ceilings(&b);
    if (e == ERR_OK)
        e = batch_figures(&b);
    if (e == ERR_OK)
        e = state_figures(&b);
    if (e != ERR_OK)
        return failed("measuring", e, zo_device_error(b.device));
    zo_device_free(b.device);
    zo_state_free(b.state);
    zo_pool_free(pool);
    return 0;
}
