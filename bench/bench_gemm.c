/* bench_gemm: the matrix products of one layer of SmolLM2-135M and a piece of its vocabulary, on one
 * thread.
 *
 *     bench_gemm < orders       exit 0, 1 (failed)
 *
 * A line "how ROWS" is answered by GF/s over all these shapes, weights rotating through 160 MB as a
 * pass's do:
 *     avx512, avx2   the engine's own: int32 to float and packing in every product
 *     ref            the engine's with OpenBLAS: int32 to float in every product
 *     blas           OpenBLAS on weights that are floats already
 *     onednn         oneDNN 2 on weights that it packed before (not timed); 0: not installed here
 * First a JSON line. */
#include "zo/model/ops.h"

#include <onebyte/zo/model.h>
#include <onebyte/zo/state.h>

#include <cblas.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if __has_include(<dnnl.h>)
#include <dnnl.h>
#endif

enum { SHAPES = 7, ROWS_MAX = 1024, IN_MAX = 1536, OUT_MAX = 3072, WEIGHTS = 40 << 20 };

/* n_out, n_in: q, k, v, o, gate and up, down, vocabulary */
static const size_t shapes[SHAPES][2] = {{576, 576},  {192, 576},  {192, 576}, {576, 576},
                                         {3072, 576}, {576, 1536}, {1536, 576}};

static struct {
    int32_t *ints;
    float *floats, *x, *y, *panels;
    size_t at; /* where the next product's weights are */
} b;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t weights(size_t n)
{
    const size_t at = b.at + n <= WEIGHTS ? b.at : 0;
    b.at = at + n;
    return at;
}

static void blas(size_t rows, size_t n, size_t k)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)rows, (blasint)n, (blasint)k,
                1.0f, b.x, (blasint)k, b.floats + weights(n * k), (blasint)k, 0.0f, b.y,
                (blasint)n);
}

/* As zo/model/linear.c does it: ZO_GEMM_COLS outputs at a time, part after part of the inputs. */
static void engine(const struct zo_gemm *g, size_t rows, size_t n, size_t k)
{
    const int32_t *w = b.ints + weights(n * k);
    const size_t part = zo_gemm_part(k);
    for (size_t j = 0; j < n; j += ZO_GEMM_COLS) {
        const size_t cols = n - j < ZO_GEMM_COLS ? n - j : ZO_GEMM_COLS;
        for (size_t i = 0; i < k; i += part) {
            const size_t ins = k - i < part ? k - i : part;
            const struct zo_matrix m = {
                .at = w + j * k + i, .ld = k, .scale = 0x1p-28f, .ints = true};
            const int32_t *next = i + part < k ? w + j * k + i + part : w + (j + ZO_GEMM_COLS) * k;
            struct zo_ahead ahead = {
                .at = (const uint8_t *)next, .ld = k * sizeof *w, .rows = ZO_GEMM_COLS};
            g->pack(b.panels, &m, cols, ins);
            g->mul(b.y + j, n, b.x + i, k, rows, b.panels, ins, cols, ins, i > 0, NULL, &ahead);
        }
    }
}

#if defined(DNNL_VERSION_MAJOR) && DNNL_VERSION_MAJOR == 2
#define FUNCTIONS(X)                                                                               \
    X(dnnl_engine_create)                                                                          \
    X(dnnl_stream_create)                                                                          \
    X(dnnl_stream_wait) X(dnnl_memory_desc_init_by_tag) X(dnnl_memory_desc_get_size)               \
        X(dnnl_memory_create) X(dnnl_inner_product_forward_desc_init)                              \
            X(dnnl_primitive_desc_create) X(dnnl_primitive_desc_query_md) X(dnnl_primitive_create) \
                X(dnnl_primitive_execute)
#define X(f) static __typeof__(f) *p_##f;
FUNCTIONS(X)
#undef X

static dnnl_engine_t engine_cpu;
static dnnl_stream_t stream;

static bool onednn_start(void)
{
    static void *lib;
    if (lib)
        return true;
    lib = dlopen("libdnnl.so.2", RTLD_NOW);
    if (!lib)
        return false;
#define X(f)                                  \
    {                                         \
        void *found = dlsym(lib, #f);         \
        memcpy(&p_##f, &found, sizeof found); \
        if (!found)                           \
            return false;                     \
    }
    FUNCTIONS(X)
#undef X
    return p_dnnl_engine_create(&engine_cpu, dnnl_cpu, 0) == dnnl_success &&
           p_dnnl_stream_create(&stream, engine_cpu, dnnl_stream_default_flags) == dnnl_success;
}

/* Seconds of one product, of many with the weights rotating. */
static double onednn(size_t rows, size_t n, size_t k)
{
    const dnnl_dims_t x_dims = {(int64_t)rows, (int64_t)k}, w_dims = {(int64_t)n, (int64_t)k},
                      y_dims = {(int64_t)rows, (int64_t)n};
    dnnl_memory_desc_t x, any, y;
    dnnl_inner_product_desc_t d;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t p;
    dnnl_memory_t mx, my, mw[64];
    if (p_dnnl_memory_desc_init_by_tag(&x, 2, x_dims, dnnl_f32, dnnl_ab) ||
        p_dnnl_memory_desc_init_by_tag(&any, 2, w_dims, dnnl_f32, dnnl_format_tag_any) ||
        p_dnnl_memory_desc_init_by_tag(&y, 2, y_dims, dnnl_f32, dnnl_ab) ||
        p_dnnl_inner_product_forward_desc_init(&d, dnnl_forward_inference, &x, &any, NULL, &y) ||
        p_dnnl_primitive_desc_create(&pd, &d, NULL, engine_cpu, NULL) ||
        p_dnnl_primitive_create(&p, pd))
        return 0.0;
    const dnnl_memory_desc_t *w = p_dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    const size_t bytes = p_dnnl_memory_desc_get_size(w);
    size_t copies = 0;
    while (copies < 64 && (copies + 1) * bytes <= WEIGHTS * sizeof(float)) {
        if (p_dnnl_memory_create(&mw[copies], w, engine_cpu, (uint8_t *)b.floats + copies * bytes))
            return 0.0;
        copies++;
    }
    if (p_dnnl_memory_create(&mx, &x, engine_cpu, b.x) ||
        p_dnnl_memory_create(&my, &y, engine_cpu, b.y))
        return 0.0;
    const double start = now_s();
    for (size_t i = 0; i < copies; i++) {
        const dnnl_exec_arg_t args[] = {
            {DNNL_ARG_SRC, mx}, {DNNL_ARG_WEIGHTS, mw[i]}, {DNNL_ARG_DST, my}};
        if (p_dnnl_primitive_execute(p, stream, 3, args) || p_dnnl_stream_wait(stream))
            return 0.0;
    }
    return (now_s() - start) / (double)copies;
}
#else
static bool onednn_start(void)
{
    return false;
}

static double onednn(size_t rows, size_t n, size_t k)
{
    (void)rows;
    (void)n;
    (void)k;
    return 0.0;
}
#endif

/* Seconds of all shapes once; 0: not possible here. */
static double once(const char *how, size_t rows)
{
    const struct zo_kernels *k = zo_kernels_pick(how);
    const double start = now_s();
    double total = 0.0;
    if (strcmp(how, "onednn") == 0 && !onednn_start())
        return 0.0;
    for (size_t i = 0; i < SHAPES; i++) {
        if (strcmp(how, "onednn") == 0)
            total += onednn(rows, shapes[i][0], shapes[i][1]);
        else if (strcmp(how, "blas") == 0)
            blas(rows, shapes[i][0], shapes[i][1]);
        else if (k)
            engine(zo_ops_pick(how)->gemm, rows, shapes[i][0], shapes[i][1]);
        else
            return 0.0;
    }
    return strcmp(how, "onednn") == 0 ? total : now_s() - start;
}

int main(void)
{
    struct err_why why = {""};
    char line[64], how[16];
    size_t rows, flops = 0;
    for (size_t i = 0; i < SHAPES; i++)
        flops += 2 * shapes[i][0] * shapes[i][1];
    b.ints = malloc(WEIGHTS * sizeof *b.ints);
    b.floats = aligned_alloc(4096, WEIGHTS * sizeof *b.floats);
    b.x = aligned_alloc(4096, (size_t)ROWS_MAX * IN_MAX * sizeof *b.x);
    b.y = aligned_alloc(4096, (size_t)ROWS_MAX * OUT_MAX * sizeof *b.y);
    b.panels = aligned_alloc(4096, (size_t)ZO_GEMM_COLS * ZO_GEMM_K * sizeof *b.panels);
    if (!b.ints || !b.floats || !b.x || !b.y || !b.panels || zo_blas_start(&why) != ERR_OK)
        return fprintf(stderr, "bench_gemm: cannot start: %s\n", why.text), 1;
    for (size_t i = 0; i < WEIGHTS; i++) {
        b.ints[i] = (int32_t)((uint32_t)i * 2654435761u) >> 4;
        b.floats[i] = (float)b.ints[i] * 0x1p-28f;
    }
    for (size_t i = 0; i < (size_t)ROWS_MAX * IN_MAX; i++)
        b.x[i] = (float)(i % 1000) * 0.001f - 0.5f;
    memset(b.y, 0, (size_t)ROWS_MAX * OUT_MAX * sizeof *b.y);
    printf("{\"bench\": \"gemm\", \"blas\": \"%s\"}\n", zo_blas_core());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%15s %zu", how, &rows) != 2 || rows < 1 || rows > ROWS_MAX)
            return fprintf(stderr, "bench_gemm: not understood: %s", line), 1;
        double seconds = once(how, rows);
        for (int i = 0; i < 2 && seconds > 0.0;
             i++) { /* the best of three: it takes a fraction of a second */
            const double again = once(how, rows);
            seconds = again < seconds ? again : seconds;
        }
        printf("%.6f\n", seconds > 0.0 ? 1e-9 * (double)(flops * rows) / seconds : 0.0);
        fflush(stdout);
    }
    return 0;
}
