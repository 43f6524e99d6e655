/* bench_forward: the forward pass of the real engine; bench/run.py gives the orders and compares.
 *
 *     bench_forward [--quick] [--threads N] [--kernels NAME] < orders    exit 0, 1 (failed), 2 usage
 *
 * Shapes: SmolLM2-135M (134.5 M parameters) with random BF16 weights in a temporary folder;
 * --quick: 6 layers of a third of the width.  First a JSON line; then one number per order
 * "what memory direction EXAMPLESxTOKENS", what being
 *     plain   seconds of one plain pass over the batch
 *     cpu     CPU seconds of the same: what a busy machine's neighbours do not lengthen
 *     pair    seconds of a two-sided batch, each example along its own direction
 *     step    seconds of pair + coding + fold + digest + refresh: all that a peer does with a batch
 *     gemm    seconds of the standalone sgemm calls of a plain pass, split over the same workers
 *     rss     peak resident MB so far (before the first gemm, whose operands count)
 * One order at a time lets run.py alternate them with those of other programs. */
#include <onebyte/zo/codec.h>
#include <onebyte/zo/model.h>

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { EXAMPLES = 8, TOKENS = 256, TENSORS = 300 };

struct shape {
    uint64_t d, kv, ffn, vocab, layers;
    uint32_t heads, kv_heads;
};

static const struct shape full = {576, 192, 1536, 49152, 30, 9, 3},
                          small = {192, 64, 512, 8192, 6, 3, 1};

static double clock_s(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double now_s(void)
{
    return clock_s(CLOCK_MONOTONIC);
}

/* ---- a checkpoint of random weights ---- */

static void read_random(void *ctx, uint64_t first, float *out, size_t n)
{
    const bool norm = *(const bool *)ctx;
    uint64_t x = first * 2 + 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        out[i] = norm ? 1.0f : ((float)(x >> 40) * 0x1p-24f - 0.5f) * 0.07f; /* sd 0.02 */
    }
}

static struct {
    struct zo_ckpt_source list[TENSORS];
    char names[TENSORS][80];
    uint64_t dims[TENSORS][2];
    bool norm[TENSORS];
    size_t n;
} sources;

static void add(const char *name, uint64_t layer, uint64_t rows, uint64_t cols)
{
    const size_t i = sources.n++;
    if (layer == UINT64_MAX)
        (void)snprintf(sources.names[i], sizeof sources.names[i], "model.%s.weight", name);
    else
        (void)snprintf(sources.names[i], sizeof sources.names[i], "model.layers.%u.%s.weight",
                       (unsigned)layer, name);
    sources.dims[i][0] = rows;
    sources.dims[i][1] = cols;
    sources.norm[i] = cols == 0;
    sources.list[i] = (struct zo_ckpt_source){.name = sources.names[i],
                                              .n_dims = cols ? 2 : 1,
                                              .dims = sources.dims[i],
                                              .read = read_random,
                                              .ctx = &sources.norm[i]};
}

static bool checkpoint_make(const char *dir, const struct shape *s, struct err_why *why)
{
    char path[128];
    add("embed_tokens", UINT64_MAX, s->vocab, s->d);
    add("norm", UINT64_MAX, s->d, 0);
    for (uint64_t l = 0; l < s->layers; l++) {
        add("input_layernorm", l, s->d, 0);
        add("post_attention_layernorm", l, s->d, 0);
        add("self_attn.q_proj", l, s->d, s->d);
        add("self_attn.k_proj", l, s->kv, s->d);
        add("self_attn.v_proj", l, s->kv, s->d);
        add("self_attn.o_proj", l, s->d, s->d);
        add("mlp.gate_proj", l, s->ffn, s->d);
        add("mlp.up_proj", l, s->ffn, s->d);
        add("mlp.down_proj", l, s->d, s->ffn);
    }
    (void)snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    if (!f)
        return false;
    fprintf(f,
            "{\"model_type\": \"llama\", \"vocab_size\": %u, \"hidden_size\": %u, "
            "\"intermediate_size\": %u, \"num_hidden_layers\": %u, "
            "\"num_attention_heads\": %u, \"num_key_value_heads\": %u, "
            "\"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-5, "
            "\"hidden_act\": \"silu\", \"tie_word_embeddings\": true}\n",
            (unsigned)s->vocab, (unsigned)s->d, (unsigned)s->ffn, (unsigned)s->layers, s->heads,
            s->kv_heads);
    fclose(f);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", dir);
    return zo_ckpt_write(path, sources.list, sources.n, ZO_BF16, why) == ERR_OK;
}

/* ---- the standalone products ---- */

struct gemms {
    const struct shape *s;
    size_t rows, parts;
    float *x, *w, *y;
};

/* Rows split over the workers, each product on its own; weights rotate through memory as a pass's
 * do. */
static void gemm_item(void *ctx, size_t i, size_t worker)
{
    const struct gemms *g = ctx;
    const struct shape *s = g->s;
    const uint64_t shapes[][2] = {{s->d, s->d},   {s->kv, s->d},  {s->kv, s->d}, {s->d, s->d},
                                  {s->ffn, s->d}, {s->ffn, s->d}, {s->d, s->ffn}};
    const size_t n = g->rows / g->parts, wide = s->ffn > s->vocab ? s->ffn : s->vocab;
    const float *x = g->x + i * n * s->ffn, *w = g->w + s->vocab * s->d;
    float *y = g->y + i * 256 * wide;
    (void)worker;
    for (uint64_t l = 0; l < s->layers; l++)
        for (size_t k = 0; k < ARRAY_LEN(shapes); k++) {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n, (blasint)shapes[k][0],
                        (blasint)shapes[k][1], 1.0f, x, (blasint)shapes[k][1], w,
                        (blasint)shapes[k][1], 0.0f, y, (blasint)shapes[k][0]);
            w += shapes[k][0] * shapes[k][1];
        }
    for (size_t at = 0; at < n; at += 256) {
        const size_t m = n - at < 256 ? n - at : 256;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)m, (blasint)s->vocab,
                    (blasint)s->d, 1.0f, x + at * s->d, (blasint)s->d, g->w, (blasint)s->d, 0.0f, y,
                    (blasint)s->vocab);
    }
}

/* ---- one batch shape ---- */

struct bench {
    struct zo_model *m;
    struct zo_state *state;
    struct zo_rules *rules;
    struct zo_pool *pool;
    const struct zo_kernels *kernels;
    const struct shape *s;
    struct zo_example examples[EXAMPLES];
    struct zo_seq seqs[EXAMPLES];
    uint32_t ids[EXAMPLES][TOKENS + 1];
    uint8_t counted[TOKENS + 1];
    uint64_t seq; /* of the next record that is folded */
    enum zo_memory memory;
    bool bound, failed;
};

static double run(struct bench *b, size_t n, int sides)
{
    struct zo_pass passes[2 * EXAMPLES] = {0};
    struct zo_loss out[2 * EXAMPLES];
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        for (int side = 0; side < sides; side++)
            passes[used++] = (struct zo_pass){.example = &b->examples[i],
                                              .key = {1, 2},
                                              .seq = i,
                                              .eps = sides == 1 ? 0.0f
                                                     : side     ? -1e-3f
                                                                : 1e-3f};
    const double start = now_s();
    if (zo_model_losses(b->m, passes, used, out, b->kernels, b->pool) != ERR_OK || !(out[0].loss > 0.0))
        b->failed = true;
    return now_s() - start;
}

static double run_cpu(struct bench *b, size_t n)
{
    const double start = clock_s(CLOCK_PROCESS_CPUTIME_ID);
    (void)run(b, n, 1);
    return clock_s(CLOCK_PROCESS_CPUTIME_ID) - start;
}

/* The operands are made once, for the largest batch. */
static double run_gemms(const struct bench *b, size_t rows)
{
    static struct gemms g;
    const struct shape *s = b->s;
    if (!g.w) {
        const size_t layer = (2 * s->d + 2 * s->kv) * s->d + 3 * s->d * s->ffn,
                     n_w = s->vocab * s->d + s->layers * layer,
                     wide = s->ffn > s->vocab ? s->ffn : s->vocab, n_x = 4 * TOKENS * s->ffn,
                     parts = zo_pool_threads(b->pool), n_y = parts * 256 * wide;
        g = (struct gemms){.s = s, .parts = parts};
        g.w = malloc(n_w * sizeof *g.w);
        g.x = malloc(n_x * sizeof *g.x);
        g.y = malloc(n_y * sizeof *g.y);
        if (!g.w || !g.x || !g.y)
            exit(1);
        for (size_t i = 0; i < n_w; i++)
            g.w[i] = 0.01f;
        for (size_t i = 0; i < n_x; i++)
            g.x[i] = 0.01f;
        memset(g.y, 0, n_y * sizeof *g.y);
    }
    g.rows = rows;
    const double start = now_s();
    zo_pool_run(b->pool, g.parts, gemm_item, &g);
    return now_s() - start;
}

/* What a peer does with a batch of n examples: losses along +/- eps z, projected gradients, their
 * bytes, the fold, what it adds to the digest, and the float copy's refresh. */
static double run_step(struct bench *b, size_t n)
{
    static struct zo_codec codec;
    struct zo_pass passes[2 * EXAMPLES] = {0};
    struct zo_loss out[2 * EXAMPLES];
    double g[EXAMPLES];
    int8_t codes[EXAMPLES];
    uint16_t r;
    for (size_t i = 0; i < 2 * n; i++)
        passes[i] = (struct zo_pass){.example = &b->examples[i / 2],
                                     .key = {1, 2},
                                     .seq = b->seq + i / 2,
                                     .eps = i % 2 ? -1e-3f : 1e-3f};
    const double start = now_s();
    bool ok = zo_model_losses(b->m, passes, 2 * n, out, b->kernels, b->pool) == ERR_OK;
    for (size_t i = 0; ok && i < n; i++)
        g[i] = zo_project_two_sided(out[2 * i].loss, out[2 * i + 1].loss, 1e-3);
    if (ok)
        zo_codec_seal(&codec, b->rules, g, n, codes, &r);
    const struct zo_fold fold = {.key = {1, 2},
                                 .first_seq = b->seq,
                                 .count = (uint32_t)n,
                                 .lag = (uint32_t)n,
                                 .codes = codes};
    ok = ok && zo_state_fold(b->state, &fold, 1, b->kernels, b->pool) == ERR_OK &&
         (b->rules->direction != ZO_RANK1 ||
          zo_state_digest_delta(b->state, &fold, 1, b->pool) != ZO_DIGEST_UNKNOWN) &&
         zo_model_refresh(b->m, b->pool) == ERR_OK;
    const double took = now_s() - start;
    b->seq += n;
    if (!ok || !(out[0].loss > 0.0))
        b->failed = true;
    return took;
}

static long rss_mb(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss / 1024;
}

/* ---- orders from bench/run.py ---- */

static bool bind(struct bench *b, const char *memory)
{
    struct err_why why = {""};
    const enum zo_memory mode = strcmp(memory, "fast") == 0 ? ZO_MEMORY_FAST : ZO_MEMORY_LEAN;
    if (b->bound && mode == b->memory)
        return true;
    b->bound = true;
    b->memory = mode;
    return zo_model_bind(b->m, b->state, mode, &why) == ERR_OK;
}

/* One order; false: not understood, or it failed. */
static bool obey(struct bench *b, const char *line)
{
    static const char *const kinds[] = {"rank1", "rademacher", "gaussian"};
    char what[16], memory[16], kind[16];
    unsigned n, tokens;
    double took = 0;
    if (sscanf(line, "%15s %15s %15s %ux%u", what, memory, kind, &n, &tokens) != 5 || n < 1 ||
        n > EXAMPLES || tokens < 1 || tokens > TOKENS || n * tokens > 4 * TOKENS ||
        !bind(b, memory))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(kind, kinds[i]) == 0)
            b->rules->direction = (enum zo_direction)i;
    for (size_t i = 0; i < n; i++)
        b->seqs[i].n = tokens + 1;
    if (strcmp(what, "plain") == 0)
        took = run(b, n, 1);
    else if (strcmp(what, "cpu") == 0)
        took = run_cpu(b, n);
    else if (strcmp(what, "pair") == 0)
        took = run(b, n, 2);
    else if (strcmp(what, "step") == 0)
        took = run_step(b, n);
    else if (strcmp(what, "gemm") == 0)
        took = run_gemms(b, n * tokens);
    else if (strcmp(what, "rss") == 0)
        took = (double)rss_mb();
    else
        return false;
    printf("%.6f\n", took);
    fflush(stdout);
    return !b->failed;
}

static void obey_all(struct bench *b)
{
    char line[128];
    while (fgets(line, sizeof line, stdin))
        if (!obey(b, line)) {
            fprintf(stderr, "bench_forward: failed: %s", line);
            b->failed = true;
            return;
        }
}

static bool setup(struct bench *b, const char *dir, struct err_why *why)
{
    static const uint32_t key[2] = {1, 2};
    if (!checkpoint_make(dir, b->s, why) || zo_model_open(&b->m, dir, why) != ERR_OK ||
        zo_model_trainable(b->m, &b->rules->tensors, &b->rules->n_tensors) != ERR_OK)
        return false;
    for (uint32_t i = 0; i < b->rules->n_tensors; i++) {
        b->rules->tensors[i].bits = zo_tensor_is_matrix(&b->rules->tensors[i]) ? 32 : 64;
        b->rules->tensors[i].e = b->rules->tensors[i].bits == 32 ? 28 : 54;
    }
    if (zo_state_new(&b->state, b->rules, key) != ERR_OK ||
        zo_model_load_state(b->m, b->state, b->pool, why) != ERR_OK)
        return false;
    memset(b->counted, 1, sizeof b->counted);
    b->counted[0] = 0;
    for (uint32_t i = 0; i < EXAMPLES; i++) {
        for (uint32_t j = 0; j <= TOKENS; j++)
            b->ids[i][j] = (i * 7919u + j * 104729u) % (uint32_t)b->s->vocab;
        b->seqs[i] = (struct zo_seq){.ids = b->ids[i], .counted = b->counted};
        b->examples[i] = (struct zo_example){.n_seqs = 1, .seqs = &b->seqs[i], .label = -1};
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct zo_rules rules = {.sides = 2,
                                    .k = 1,
                                    .n0 = 256,
                                    .steps = 1000,
                                    .n_knots = 1,
                                    .knots = {{0, UINT64_C(1) << 40}}};
    static struct bench b = {.rules = &rules, .s = &full};
    struct err_why why = {""};
    bool quick = false;
    const char *kernels = NULL;
    size_t threads = 2;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            quick = true;
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            threads = strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--kernels") == 0 && i + 1 < argc)
            kernels = argv[++i];
        else
            return fprintf(stderr, "usage: bench_forward [--quick] [--threads N] [--kernels NAME] "
                                   "< orders\n"),
                   2;
    }
    b.kernels = zo_kernels_pick(kernels);
    if (!b.kernels)
        return fprintf(stderr, "bench_forward: no such kernels on this machine: %s\n", kernels), 1;
    b.s = quick ? &small : &full;
    char dir[64] = "/tmp/onebyte-bench-XXXXXX", path[128];
    if (zo_blas_start(&why) != ERR_OK || zo_pool_new(&b.pool, threads) != ERR_OK || !mkdtemp(dir))
        return fprintf(stderr, "bench_forward: cannot start: %s\n", why.text), 1;
    const bool ready = setup(&b, dir, &why);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", dir);
    (void)unlink(path);
    (void)snprintf(path, sizeof path, "%s/config.json", dir);
    (void)unlink(path);
    (void)rmdir(dir);
    if (!ready)
        return fprintf(stderr, "bench_forward: %s\n", why.text), 1;
    printf("{\"bench\": \"forward\", \"parameters\": %llu, \"state_mb\": %llu, \"blas\": \"%s\", "
           "\"kernels\": \"%s\"}\n",
           (unsigned long long)zo_model_parameters(b.m),
           (unsigned long long)(zo_state_bytes(b.state) >> 20), zo_blas_core(),
           zo_kernels_name(b.kernels));
    fflush(stdout);
    obey_all(&b);
    zo_model_free(b.m);
    zo_state_free(b.state);
    zo_pool_free(b.pool);
    free(rules.tensors);
    return b.failed;
}
