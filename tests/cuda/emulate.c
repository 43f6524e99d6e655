/* tests/cuda/emulate.c -- the plug-in's table on the CPU: the real kernels, one block after the other. */
#include "tests/cuda/emulate_table.h"

#include "zo/cuda/kernels.cuh"

#include <cblas.h>
#include <stdlib.h>

enum { STACK_BYTES = 128 << 10, DYNAMIC_FLOATS = 64 << 10, SIZE_HEAD = 64 };

uint32_t emu_thread, emu_block_x, emu_block_y, emu_grid_x;
float emu_dynamic[DYNAMIC_FLOATS] __attribute__((aligned(64)));
uint64_t emu_memory = (uint64_t)1 << 32, emu_used;
uint32_t emu_shared = 99 << 10;
uint64_t emu_fail_at; /* the call number from which every call fails; 0: none */
uint64_t emu_calls;
enum emu_graphs emu_graphs;
static bool recording;

/* ---- fibres ---- */

static void *scheduler, *fibres[ZO_CUDA_THREADS]; /* stack pointers of who is not running */
static uint8_t stacks[ZO_CUDA_THREADS][STACK_BYTES] __attribute__((aligned(64)));
static enum place { AT_BARRIER, AT_WARP_CALL, ENDED } places[ZO_CUDA_THREADS]; /* why a fibre stopped */
static void (*running)(const void *args);
static const void *running_args;
static float slots[ZO_CUDA_THREADS];
static struct {
    uint32_t a[4], b[2];
} fragments[ZO_CUDA_THREADS];

/* Saves what a call keeps, goes on where `to` was saved.  (swapcontext asks the kernel for the signal mask each time.) */
void emu_switch(void **save, void *to);
#if defined(__x86_64__)
__asm__(".text\n.globl emu_switch\n.type emu_switch, @function\nemu_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
        ".size emu_switch, . - emu_switch\n");
enum { SAVED = 6 };
#elif defined(__aarch64__)
__asm__(".text\n.globl emu_switch\n.type emu_switch, %function\nemu_switch:\n"
        "sub sp, sp, #160\nstp x19, x20, [sp]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\n"
        "stp x25, x26, [sp, #48]\nstp x27, x28, [sp, #64]\nstp x29, x30, [sp, #80]\n"
        "stp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\nstp d12, d13, [sp, #128]\nstp d14, d15, [sp, #144]\n"
        "mov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
        "ldp x19, x20, [sp]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\nldp x25, x26, [sp, #48]\n"
        "ldp x27, x28, [sp, #64]\nldp x29, x30, [sp, #80]\nldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\n"
        "ldp d12, d13, [sp, #128]\nldp d14, d15, [sp, #144]\nadd sp, sp, #160\nret\n"
        ".size emu_switch, . - emu_switch\n");
enum { SAVED = 11 }; /* the return address is x30, saved twelfth */
#else
#error "emu_switch is written for x86-64 and aarch64"
#endif

static void fibre_main(void)
{
    const uint32_t self = emu_thread;
    running(running_args);
    places[self] = ENDED;
    emu_switch(&fibres[self], scheduler);
    err_abort(__FILE__, __LINE__, "an ended fibre stays ended");
}

static void stop(enum place place)
{
    places[emu_thread] = place;
    emu_switch(&fibres[emu_thread], scheduler);
}

void emu_sync(void)
{
    stop(AT_BARRIER);
}

/* A stack on which emu_switch "returns" to fibre_main. */
static void start(uint32_t t)
{
    void (*const entry)(void) = fibre_main;
    uint8_t *top = stacks[t] + STACK_BYTES - 16, *sp = top - SAVED * sizeof(void *);
#if defined(__aarch64__)
    sp = stacks[t] + STACK_BYTES - 160;
    top = sp + SAVED * sizeof(void *);
#endif
    memset(sp, 0, (size_t)(stacks[t] + STACK_BYTES - sp));
    memcpy(top, &entry, sizeof entry);
    fibres[t] = sp;
}

/* Every other block goes the other way wherever a device may. */
static bool backwards(void)
{
    return (emu_block_x + emu_block_y) % 2 != 0;
}

/* One warp until its next barrier or its end; its threads meet at each warp call. */
static enum place run_warp(uint32_t first)
{
    enum place place;
    do {
        for (uint32_t i = 0; i < ZO_CUDA_WARP; i++) {
            emu_thread = first + (backwards() ? ZO_CUDA_WARP - 1 - i : i);
            emu_switch(&scheduler, fibres[emu_thread]);
            if (i == 0)
                place = places[emu_thread];
            ENSURE(places[emu_thread] == place); /* else a call that not all of its threads reach */
        }
    } while (place == AT_WARP_CALL);
    return place;
}

/* Each warp goes as far as it can before the next one begins: what relies on an order that no barrier gives comes out wrong. */
static void run_block(void)
{
    for (uint32_t t = 0; t < ZO_CUDA_THREADS; t++)
        start(t);
    for (uint32_t ended = 0; ended == 0;) {
        for (uint32_t w = 0; w < ZO_CUDA_THREADS; w += ZO_CUDA_WARP)
            ended += run_warp(backwards() ? ZO_CUDA_THREADS - ZO_CUDA_WARP - w : w) == ENDED;
        ENSURE(ended == 0 || ended == ZO_CUDA_THREADS / ZO_CUDA_WARP); /* else a barrier that not all warps reach */
    }
}

float emu_group(float x, float (*join)(float a, float b), uint32_t n)
{
    const uint32_t first = emu_thread / n * n;
    slots[emu_thread] = x;
    stop(AT_WARP_CALL);
    float all = slots[first];
    for (uint32_t i = 1; i < n; i++)
        all = join(all, slots[first + i]);
    stop(AT_WARP_CALL);
    return all;
}

static int32_t byte_of(const uint32_t *words, uint32_t i)
{
    return (int8_t)(words[i / 4] >> (i % 4 * 8));
}

/* To the other lanes. */
static void show_fragments(const uint32_t a[4], const uint32_t b[2])
{
    memcpy(fragments[emu_thread].a, a, sizeof fragments[0].a);
    memcpy(fragments[emu_thread].b, b, sizeof fragments[0].b);
    stop(AT_WARP_CALL);
}

/* From the definition in PTX's manual: A's rows g and g + 8, B's column, C's two columns by lane. */
void ob_mma_s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2])
{
    const uint32_t first = emu_thread / ZO_CUDA_WARP * ZO_CUDA_WARP, lane = emu_thread % ZO_CUDA_WARP;
    show_fragments(a, b);
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
        for (uint32_t k = 0; k < 32; k++) {
            const uint32_t owner_a = first + row % 8 * 4 + k % 16 / 4, owner_b = first + col * 4 + k % 16 / 4;
            const uint32_t *fa = &fragments[owner_a].a[k / 16 * 2 + row / 8], *fb = &fragments[owner_b].b[k / 16];
            c[i] += byte_of(fa, k % 4) * byte_of(fb, k % 4);
        }
    }
    stop(AT_WARP_CALL);
}

/* The same for elements of 16 bits and k of 16. */
void ob_mma_16(float c[4], const uint32_t a[4], const uint32_t b[2], uint32_t type)
{
    const uint32_t first = emu_thread / ZO_CUDA_WARP * ZO_CUDA_WARP, lane = emu_thread % ZO_CUDA_WARP;
    show_fragments(a, b);
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
        for (uint32_t k = 0; k < 16; k++) {
            const uint32_t owner_a = first + row % 8 * 4 + k % 8 / 2, owner_b = first + col * 4 + k % 8 / 2;
            c[i] += ob_load(&fragments[owner_a].a[k / 8 * 2 + row / 8], k % 2, type) *
                    ob_load(&fragments[owner_b].b[k / 8], k % 2, type);
        }
    }
    stop(AT_WARP_CALL);
}

/* Copies under way: a group is carried out when its thread waits for it, so that who does not wait reads what was there; or
 * at once, so that who still reads what was there does not find it. */
enum { COPIES = 8 };
struct copies {
    struct {
        void *to;
        const void *from;
    } copy[COPIES];
    uint32_t n;
};
static struct {
    struct copies open, newest, older;
} under_way[ZO_CUDA_THREADS];

void ob_copy16(void *to, const void *from)
{
    struct copies *c = &under_way[emu_thread].open;
    ENSURE(((uintptr_t)to | (uintptr_t)from) % 16 == 0);
    ENSURE(c->n < COPIES);
    if (backwards()) {
        memcpy(to, from, 16);
        return;
    }
    c->copy[c->n].to = to;
    c->copy[c->n++].from = from;
}

void ob_copies_commit(void)
{
    ENSURE(under_way[emu_thread].older.n == 0); /* the kernels have two groups under way at most */
    under_way[emu_thread].older = under_way[emu_thread].newest;
    under_way[emu_thread].newest = under_way[emu_thread].open;
    under_way[emu_thread].open.n = 0;
}

void ob_copies_wait(void)
{
    struct copies *c = &under_way[emu_thread].older;
    for (uint32_t i = 0; i < c->n; i++)
        memcpy(c->copy[i].to, c->copy[i].from, 16);
    c->n = 0;
}

/* To nearest, ties to even: clang 14 has no _Float16 on x86. */
uint16_t emu_to_half(float x)
{
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    const float size = fabsf(x);
    int e;
    if (x != x)
        return 0x7e00;
    if (size >= 65520.0f)
        return sign | 0x7c00;
    (void)frexpf(size, &e); /* size is in [2^(e-1), 2^e) */
    const int unit = size == 0.0f || e < -13 ? -24 : e - 11;
    const uint32_t n = (uint32_t)nearbyintf(ldexpf(size, -unit));
    return (uint16_t)(sign | (unit == -24 ? n : ((uint32_t)(unit + 25) << 10) + n - 1024));
}

float emu_from_half(uint16_t bits)
{
    const int e = bits >> 10 & 31, m = bits & 1023;
    const float size = e == 31 ? (m ? NAN : INFINITY) : e == 0 ? ldexpf((float)m, -24) : ldexpf((float)(1024 + m), e - 25);
    return bits & 0x8000 ? -size : size;
}

/* ---- the table ---- */

static enum err counted(void)
{
    emu_calls++;
    return emu_fail_at && emu_calls >= emu_fail_at ? ERR_DEVICE : ERR_OK;
}

static enum err emu_open(void **ctx, uint32_t index, struct zo_cuda_info *info, struct err_why *why)
{
    const char *memory = getenv("EMULATED_MEMORY"); /* for tests with real processes */
    if (index > 0)
        return err_set(why, ERR_NOTFOUND, "there is no device %u: the emulation has one", index);
    if (memory)
        emu_memory = strtoull(memory, NULL, 10);
    *info = (struct zo_cuda_info){.name = "emulation", .major = 8, .processors = 1, .shared_max = emu_shared,
                                  .memory = emu_memory};
    *ctx = &emu_used;
    return ERR_OK;
}

static void emu_close(void *ctx)
{
    (void)ctx;
}

static const char *emu_error(const void *ctx)
{
    (void)ctx;
    return "the emulated device was lost";
}

static enum err emu_available(void *ctx, uint64_t *bytes)
{
    (void)ctx;
    *bytes = emu_memory - emu_used;
    return counted();
}

/* The size lies before the block; what is handed out is noise, as on a device. */
static enum err emu_alloc(void *ctx, void **p, uint64_t bytes)
{
    (void)ctx;
    ENSURE(!recording);
    TRY(counted());
    if (bytes > emu_memory - emu_used)
        return ERR_NOMEM;
    uint8_t *m = malloc(bytes + SIZE_HEAD);
    if (!m)
        return ERR_NOMEM;
    memcpy(m, &bytes, sizeof bytes);
    memset(m + SIZE_HEAD, 0xff, bytes);
    emu_used += bytes;
    *p = m + SIZE_HEAD;
    return ERR_OK;
}

static void emu_free(void *ctx, void *p)
{
    uint64_t bytes;
    (void)ctx;
    ENSURE(!recording);
    if (!p)
        return;
    memcpy(&bytes, (uint8_t *)p - SIZE_HEAD, sizeof bytes);
    emu_used -= bytes;
    free((uint8_t *)p - SIZE_HEAD);
}

static enum err emu_record(void *ctx)
{
    (void)ctx;
    TRY(counted());
    recording = true;
    return emu_graphs == EMU_GRAPHS_NONE ? ERR_UNSUPPORTED : ERR_OK;
}

static enum err emu_play(void *ctx, bool run)
{
    (void)ctx;
    recording = false;
    TRY(counted());
    return run && emu_graphs == EMU_GRAPHS_RUN ? ERR_OK : ERR_UNSUPPORTED;
}

static enum err emu_copy(void *ctx, void *to, const void *from, uint64_t bytes)
{
    (void)ctx;
    ENSURE(!recording);
    TRY(counted());
    if (bytes)
        memcpy(to, from, bytes);
    return ERR_OK;
}

static enum err emu_launch(void *ctx, enum zo_cuda_kernel k, uint32_t grid_x, uint32_t grid_y, uint32_t shared_bytes,
                           const void *args)
{
    static void (*const kernels[])(const void *) = {
#define X(name) kernel_##name,
        ZO_CUDA_KERNELS(X)
#undef X
    };
    (void)ctx;
    TRY(counted());
    if (recording && emu_graphs == EMU_GRAPHS_FAIL)
        return ERR_OK; /* noted down, and never run */
    ENSURE(shared_bytes <= sizeof emu_dynamic && grid_x > 0 && grid_y > 0 && grid_y < 65536);
    running = kernels[k];
    running_args = args;
    emu_grid_x = grid_x;
    for (emu_block_y = 0; emu_block_y < grid_y; emu_block_y++)
        for (emu_block_x = 0; emu_block_x < grid_x; emu_block_x++) {
            memset(emu_dynamic, 0xff, shared_bytes); /* NaN: what a block does not write, it must not read */
            run_block();
        }
    return ERR_OK;
}

static float *widened(const void *p, uint64_t rows, uint64_t cols, uint64_t ld, uint32_t type)
{
    float *out = malloc((rows * cols + 1) * sizeof *out);
    for (uint64_t i = 0; out && i < rows; i++)
        for (uint64_t j = 0; j < cols; j++)
            out[i * cols + j] = ob_load(p, i * ld + j, type);
    return out;
}

static enum err emu_gemm(void *ctx, const struct zo_cuda_gemm *g)
{
    (void)ctx;
    TRY(counted());
    if (recording && emu_graphs == EMU_GRAPHS_FAIL)
        return ERR_OK;
    const uint64_t w_rows = g->transposed ? g->n_in : g->n_out, w_cols = g->transposed ? g->n_out : g->n_in;
    float *x = widened(g->x, g->rows, g->n_in, g->ldx, g->type), *w = widened(g->w, w_rows, w_cols, g->ldw, g->type);
    if (x && w)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, g->transposed ? CblasNoTrans : CblasTrans, (blasint)g->rows,
                    (blasint)g->n_out, (blasint)g->n_in, g->alpha, x, (blasint)g->n_in, w, (blasint)w_cols, g->beta, g->y,
                    (blasint)g->ldy);
    const enum err e = x && w ? ERR_OK : ERR_NOMEM;
    free(x);
    free(w);
    return e;
}

static enum err emu_wait(void *ctx)
{
    (void)ctx;
    return counted();
}

const struct zo_cuda_api *onebyte_cuda_api(void)
{
    static const struct zo_cuda_api api = {
        .version = ZO_CUDA_VERSION,
        .bytes = sizeof(struct zo_cuda_api),
        .open = emu_open,
        .close = emu_close,
        .error = emu_error,
        .available = emu_available,
        .alloc = emu_alloc,
        .free = emu_free,
        .put = emu_copy,
        .get = emu_copy,
        .launch = emu_launch,
        .gemm = emu_gemm,
        .sync = emu_wait,
        .record = emu_record,
        .play = emu_play,
    };
    return &api;
}
