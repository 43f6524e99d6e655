/* zo/cuda/plugin.cu -- libonebyte_cuda.so: memory, copies, launches and cuBLAS behind the table of abi.h.
 *
 * cuBLAS is opened with dlopen and five functions of its version 2 interface, unchanged since CUDA 11: the plug-in builds
 * where only nvcc is, and takes the toolkit's or PyTorch's copy.  Every call is checked; the first error is kept as text. */
#include "zo/cuda/kernels.cuh"

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- cuBLAS ---- */

struct blas {
    void *library, *handle;
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, cudaStream_t stream);
    int (*set_workspace)(void *handle, void *workspace, size_t bytes);
    int (*gemm)(void *handle, int trans_a, int trans_b, int m, int n, int k, const void *alpha, const void *a,
                cudaDataType_t a_type, int lda, const void *b, cudaDataType_t b_type, int ldb, const void *beta, void *c,
                cudaDataType_t c_type, int ldc, int compute_type, int algorithm);
};
enum { BLAS_N = 0, BLAS_T = 1, BLAS_ALLOC_FAILED = 3, BLAS_COMPUTE_32F = 68, BLAS_DEFAULT = -1 }; /* values of cublas_api.h */

enum {
    WORKSPACE_BYTES = 32 << 20, /* what cuBLAS itself takes on sm_90 */
    STAGES = 8,
    STAGE_BYTES = 1 << 20, /* a batch's tokens, 65,536 records' keys */
};

struct context {
    cudaStream_t stream;
    struct blas blas;
    void *workspace;
    int device; /* current in whichever thread calls: the runtime keeps it per thread */
    uint8_t *staging; /* pinned; NULL: none to be had, copies wait instead */
    cudaEvent_t left[STAGES]; /* what lay in a piece of it is on the device */
    uint32_t turn;
    bool recording;
    cudaGraphExec_t graph; /* of the last recording that was played */
    uint32_t wide[ZO_CUDA_N_KERNELS]; /* bytes of shared memory allowed, beyond the 48 KB that all have */
    char error[256];
};

static enum err fail(struct context *c, cudaError_t e, const char *what)
{
    (void)cudaGetLastError(); /* out of memory is no lost context: clear it */
    if (c->recording)
        return ERR_UNSUPPORTED; /* what cannot be recorded can be run */
    if (e == cudaErrorMemoryAllocation)
        return ERR_NOMEM; /* and no text either: it would stand for a later loss */
    if (c->error[0] == '\0')
        (void)snprintf(c->error, sizeof c->error, "%s: %s", what, cudaGetErrorString(e));
    return ERR_DEVICE;
}

#define CHECK(c, call, what)                  \
    do {                                      \
        const cudaError_t check_e = (call);   \
        if (check_e != cudaSuccess)           \
            return fail((c), check_e, what);  \
    } while (0)

#define ENTER(c) CHECK(c, cudaSetDevice((c)->device), "choosing the device")

static void *blas_symbol(struct blas *b, const char *name, bool *all)
{
    void *p = dlsym(b->library, name);
    *all = *all && p;
    return p;
}

static enum err blas_open(struct context *c, struct err_why *why)
{
    char own[32]; /* of the runtime's own release first: a later one may want a later driver */
    const char *const names[] = {own, "libcublas.so.13", "libcublas.so.12", "libcublas.so.11", "libcublas.so"};
    struct blas *b = &c->blas;
    bool all = true;
    (void)snprintf(own, sizeof own, "libcublas.so.%d", CUDART_VERSION / 1000);
    for (size_t i = 0; i < sizeof names / sizeof *names && !b->library; i++)
        b->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE); /* loading it again takes long */
    if (!b->library)
        return err_set(why, ERR_NOTFOUND, "no libcublas.so here: install cuBLAS or put its folder into LD_LIBRARY_PATH");
    b->create = (int (*)(void **))blas_symbol(b, "cublasCreate_v2", &all);
    b->destroy = (int (*)(void *))blas_symbol(b, "cublasDestroy_v2", &all);
    b->set_stream = (int (*)(void *, cudaStream_t))blas_symbol(b, "cublasSetStream_v2", &all);
    b->set_workspace = (int (*)(void *, void *, size_t))blas_symbol(b, "cublasSetWorkspace_v2", &all);
    b->gemm = (int (*)(void *, int, int, int, int, int, const void *, const void *, cudaDataType_t, int, const void *,
                       cudaDataType_t, int, const void *, void *, cudaDataType_t, int, int,
                       int))blas_symbol(b, "cublasGemmEx", &all);
    if (!all)
        return err_set(why, ERR_UNSUPPORTED, "this cuBLAS is too old: version 11.2 or later is needed");
    if (b->create(&b->handle) != 0 || b->set_stream(b->handle, c->stream) != 0)
        return err_set(why, ERR_DEVICE, "cuBLAS does not start: is the GPU's memory full?");
    return ERR_OK;
}

/* ---- the table ---- */

static void close_context(void *ctx)
{
    struct context *c = (struct context *)ctx;
    if (!c)
        return;
    (void)cudaSetDevice(c->device);
    if (c->stream)
        (void)cudaStreamSynchronize(c->stream); /* what is under way reads what goes now */
    if (c->graph)
        (void)cudaGraphExecDestroy(c->graph);
    if (c->blas.handle)
        (void)c->blas.destroy(c->blas.handle);
    (void)cudaFree(c->workspace);
    for (int i = 0; i < STAGES; i++)
        if (c->left[i])
            (void)cudaEventDestroy(c->left[i]);
    if (c->staging)
        (void)cudaFreeHost(c->staging);
    if (c->stream)
        (void)cudaStreamDestroy(c->stream);
    if (c->blas.library)
        (void)dlclose(c->blas.library);
    free(c);
}

/* Why the runtime finds no device. */
static enum err no_device(cudaError_t e, struct err_why *why)
{
    int driver = 0; /* CUDA's version that it serves */
    if (e != cudaErrorInsufficientDriver || cudaDriverGetVersion(&driver) != cudaSuccess)
        return err_set(why, ERR_NOTFOUND, "no CUDA device: %s", cudaGetErrorString(e));
    if (driver == 0)
        return err_set(why, ERR_NOTFOUND, "no CUDA device: there is no NVIDIA driver here");
    return err_set(why, ERR_UNSUPPORTED,
                   "the NVIDIA driver is too old: it serves CUDA %d.%d, the plug-in was built with %d.%d; update the driver, or "
                   "build with an older nvcc", driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
}

static enum err open_device(struct context *c, uint32_t index, struct zo_cuda_info *info, struct err_why *why)
{
    cudaDeviceProp p;
    cudaFuncAttributes code;
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess)
        return no_device(e, why);
    if (index >= (uint32_t)n)
        return err_set(why, ERR_NOTFOUND, "there is no CUDA device %u: this machine has %d", index, n);
    c->device = (int)index;
    e = cudaGetDeviceProperties(&p, c->device);
    if (e == cudaSuccess && p.major * 10 + p.minor < 75)
        return err_set(why, ERR_UNSUPPORTED, "%s is too old: compute capability 7.5 or later is needed, it has %d.%d",
                       p.name, p.major, p.minor);
    if (e == cudaSuccess)
        e = cudaSetDevice(c->device);
    if (e == cudaSuccess)
        e = cudaFuncGetAttributes(&code, (const void *)kernel_convert);
    if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorUnsupportedPtxVersion || e == cudaErrorInvalidDeviceFunction)
        return err_set(why, ERR_UNSUPPORTED, "the CUDA plug-in holds no code for %s: build it with CUDA_ARCHS=%d%d (%s)",
                       p.name, p.major, p.minor, cudaGetErrorString(e));
    if (e == cudaSuccess)
        e = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    if (e == cudaSuccess)
        e = cudaMalloc(&c->workspace, WORKSPACE_BYTES);
    if (e != cudaSuccess)
        return err_set(why, ERR_DEVICE, "CUDA device %u: %s", index, cudaGetErrorString(e));
    memset(info, 0, sizeof *info);
    (void)snprintf(info->name, sizeof info->name, "%.127s", p.name);
    info->major = (uint32_t)p.major;
    info->minor = (uint32_t)p.minor;
    info->processors = (uint32_t)p.multiProcessorCount;
    info->shared_max = (uint32_t)p.sharedMemPerBlockOptin;
    info->memory = p.totalGlobalMem;
    return ERR_OK;
}

/* Pinned memory is scarce at times: without it everything works. */
static void make_staging(struct context *c)
{
    cudaError_t e = cudaHostAlloc((void **)&c->staging, (size_t)STAGES * STAGE_BYTES, cudaHostAllocDefault);
    for (int i = 0; i < STAGES && e == cudaSuccess; i++)
        e = cudaEventCreateWithFlags(&c->left[i], cudaEventDisableTiming);
    if (e == cudaSuccess)
        return;
    (void)cudaGetLastError();
    if (c->staging)
        (void)cudaFreeHost(c->staging);
    c->staging = NULL;
}

static enum err table_open(void **ctx, uint32_t index, struct zo_cuda_info *info, struct err_why *why)
{
    struct context *c = (struct context *)calloc(1, sizeof *c);
    if (!c)
        return err_set(why, ERR_NOMEM, "out of memory");
    enum err e = open_device(c, index, info, why);
    if (e == ERR_OK)
        e = blas_open(c, why);
    if (e == ERR_OK && c->blas.set_workspace(c->blas.handle, c->workspace, WORKSPACE_BYTES) != 0)
        e = err_set(why, ERR_DEVICE, "cuBLAS does not take its workspace");
    if (e != ERR_OK) {
        close_context(c);
        return e;
    }
    make_staging(c);
    *ctx = c;
    return ERR_OK;
}

static const char *table_error(const void *ctx)
{
    return ((const struct context *)ctx)->error;
}

static enum err table_available(void *ctx, uint64_t *bytes)
{
    size_t have = 0, all = 0;
    ENTER((struct context *)ctx);
    CHECK((struct context *)ctx, cudaMemGetInfo(&have, &all), "asking for free memory");
    *bytes = have;
    return ERR_OK;
}

static enum err table_alloc(void *ctx, void **p, uint64_t bytes)
{
    ENTER((struct context *)ctx);
    CHECK((struct context *)ctx, cudaMalloc(p, bytes ? bytes : 1), "allocating");
    return ERR_OK;
}

static void table_free(void *ctx, void *p)
{
    struct context *c = (struct context *)ctx;
    cudaError_t e = cudaSetDevice(c->device);
    if (p && e == cudaSuccess)
        e = cudaStreamSynchronize(c->stream); /* a launched kernel may still read it */
    if (p && e == cudaSuccess)
        e = cudaFree(p);
    if (e != cudaSuccess)
        (void)fail(c, e, "freeing");
}

/* Short copies do not wait: they go on from pinned memory, so that the host is ahead of the device where it can be. */
static enum err put_staged(struct context *c, void *to, const void *host, uint64_t bytes)
{
    const uint32_t i = c->turn++ % STAGES;
    uint8_t *piece = c->staging + (size_t)i * STAGE_BYTES;
    CHECK(c, cudaEventSynchronize(c->left[i]), "copying to the device"); /* at once if it was never recorded */
    memcpy(piece, host, bytes);
    CHECK(c, cudaMemcpyAsync(to, piece, bytes, cudaMemcpyHostToDevice, c->stream), "copying to the device");
    CHECK(c, cudaEventRecord(c->left[i], c->stream), "copying to the device");
    return ERR_OK;
}

static enum err table_put(void *ctx, void *to, const void *host, uint64_t bytes)
{
    struct context *c = (struct context *)ctx;
    ENTER(c);
    if (bytes == 0)
        return ERR_OK;
    if (c->staging && bytes <= STAGE_BYTES)
        return put_staged(c, to, host, bytes);
    CHECK(c, cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, c->stream), "copying to the device");
    CHECK(c, cudaStreamSynchronize(c->stream), "copying to the device"); /* where the GPU reads pageable memory itself, nothing is staged */
    return ERR_OK;
}

static enum err table_get(void *ctx, void *host, const void *from, uint64_t bytes)
{
    struct context *c = (struct context *)ctx;
    ENTER(c);
    CHECK(c, cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, c->stream), "copying from the device");
    CHECK(c, cudaStreamSynchronize(c->stream), "waiting for the device");
    return ERR_OK;
}

static enum err table_sync(void *ctx)
{
    struct context *c = (struct context *)ctx;
    ENTER(c);
    CHECK(c, cudaStreamSynchronize(c->stream), "waiting for the device");
    return ERR_OK;
}

/* In the order of enum zo_cuda_kernel. */
struct entry {
    const void *function;
    const char *name;
};

static enum err table_launch(void *ctx, enum zo_cuda_kernel k, uint32_t grid_x, uint32_t grid_y, uint32_t shared_bytes,
                             const void *args)
{
    static const struct entry kernels[] = {
#define X(name) {(const void *)kernel_##name, #name},
        ZO_CUDA_KERNELS(X)
#undef X
    };
    struct context *c = (struct context *)ctx;
    const struct entry *e = &kernels[k];
    ENTER(c);
    if (shared_bytes > (48u << 10) && shared_bytes > c->wide[k]) {
        CHECK(c, cudaFuncSetAttribute(e->function, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes), e->name);
        c->wide[k] = shared_bytes;
    }
    void *list[] = {(void *)(uintptr_t)args};
    CHECK(c, cudaLaunchKernel(e->function, dim3(grid_x, grid_y), dim3(ZO_CUDA_THREADS), list, shared_bytes, c->stream),
          e->name);
    CHECK(c, cudaGetLastError(), e->name);
    return ERR_OK;
}

/* Row-major y = x W^T is column-major y^T = W x^T; W as stored is column-major (n_in, n_out), or (n_out, n_in). */
static enum err table_gemm(void *ctx, const struct zo_cuda_gemm *g)
{
    static const cudaDataType_t types[] = {CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F};
    struct context *c = (struct context *)ctx;
    if (g->rows > INT32_MAX || g->n_out > INT32_MAX || g->n_in > INT32_MAX || g->ldx > INT32_MAX || g->ldw > INT32_MAX ||
        g->ldy > INT32_MAX)
        return ERR_RANGE;
    ENTER(c);
    const int status = c->blas.gemm(c->blas.handle, g->transposed ? BLAS_N : BLAS_T, BLAS_N, (int)g->n_out, (int)g->rows,
                                    (int)g->n_in, &g->alpha, g->w, types[g->type], (int)g->ldw, g->x, types[g->type],
                                    (int)g->ldx, &g->beta, g->y, CUDA_R_32F, (int)g->ldy, BLAS_COMPUTE_32F, BLAS_DEFAULT);
    if (status == 0)
        return ERR_OK;
    if (c->recording)
        return ERR_UNSUPPORTED;
    if (status == BLAS_ALLOC_FAILED)
        return ERR_NOMEM;
    if (c->error[0] == '\0')
        (void)snprintf(c->error, sizeof c->error, "cuBLAS: status %d in a product of %llu x %llu x %llu", status,
                       (unsigned long long)g->rows, (unsigned long long)g->n_out, (unsigned long long)g->n_in);
    return ERR_DEVICE;
}

static enum err table_record(void *ctx)
{
    struct context *c = (struct context *)ctx;
    ENTER(c);
    c->recording = true;
    /* Relaxed: cuBLAS may load a kernel meanwhile; we ourselves neither allocate nor free (zo_cuda_grow). */
    CHECK(c, cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeRelaxed), "recording");
    return ERR_OK;
}

/* The graph that was played last takes the new arguments, if it has the same shape; else a new one takes its place. */
static cudaError_t graph_renew(struct context *c, cudaGraph_t graph)
{
    cudaGraphExecUpdateResultInfo info;
    if (c->graph && cudaGraphExecUpdate(c->graph, graph, &info) == cudaSuccess)
        return cudaSuccess;
    (void)cudaGetLastError();
    if (c->graph)
        (void)cudaGraphExecDestroy(c->graph);
    c->graph = NULL;
    return cudaGraphInstantiate(&c->graph, graph, 0);
}

static enum err table_play(void *ctx, bool run)
{
    struct context *c = (struct context *)ctx;
    cudaGraph_t graph = NULL;
    cudaError_t e = cudaStreamEndCapture(c->stream, &graph);
    if (e == cudaSuccess && graph && run)
        e = graph_renew(c, graph);
    if (graph)
        (void)cudaGraphDestroy(graph);
    c->recording = false;
    if (e != cudaSuccess || !graph || !run) {
        (void)cudaGetLastError();
        return ERR_UNSUPPORTED;
    }
    CHECK(c, cudaGraphLaunch(c->graph, c->stream), "running a graph");
    return ERR_OK;
}

extern "C" __attribute__((visibility("default"))) const struct zo_cuda_api *onebyte_cuda_api(void)
{
    static struct zo_cuda_api api;
    api.version = ZO_CUDA_VERSION;
    api.bytes = sizeof api;
    api.open = table_open;
    api.close = close_context;
    api.error = table_error;
    api.available = table_available;
    api.alloc = table_alloc;
    api.free = table_free;
    api.put = table_put;
    api.get = table_get;
    api.launch = table_launch;
    api.gemm = table_gemm;
    api.sync = table_sync;
    api.record = table_record;
    api.play = table_play;
    return &api;
}
