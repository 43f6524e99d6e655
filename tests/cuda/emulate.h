/* tests/cuda/emulate.h -- what zo/cuda/device.cuh's words mean on a CPU: the real kernels, compiled as C.
 *
 * Every thread of a block is a fibre; warp after warp runs up to its next barrier.  A block whose threads do not all reach
 * the same barrier aborts, as does a kernel that reads or writes outside what was allocated, under ASan. */
#ifndef TESTS_CUDA_EMULATE_H
#define TESTS_CUDA_EMULATE_H
#include <stdint.h>
#include <string.h>

#define OB_D __attribute__((unused)) static inline
#define OB_SHARED static
#define OB_SHARED16 static __attribute__((aligned(16)))
#define OB_THREAD (emu_thread)
#define OB_BLOCK_X (emu_block_x)
#define OB_BLOCK_Y (emu_block_y)
#define OB_GRID_X (emu_grid_x)
#define OB_SYNC() emu_sync()
#define OB_UNROLL
#define OB_KERNEL(name, args) OB_KERNEL_(name, args)
#define OB_KERNEL_(name, args)                          \
    static void name##_body(const struct args *a);      \
    static void kernel_##name(const void *a)                     \
    {                                                   \
        name##_body((const struct args *)a);            \
    }                                                   \
    static void name##_body(const struct args *a)

extern uint32_t emu_thread, emu_block_x, emu_block_y, emu_grid_x;
extern float emu_dynamic[];
void emu_sync(void);
float emu_group(float x, float (*join)(float a, float b), uint32_t n); /* over groups of n threads */
void ob_mma_16(float c[4], const uint32_t a[4], const uint32_t b[2], uint32_t type);
void ob_mma_s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2]);

OB_D float *ob_dynamic(void)
{
    return emu_dynamic;
}

OB_D float emu_add(float a, float b)
{
    return a + b;
}

OB_D float emu_max(float a, float b)
{
    return a > b || b != b ? a : b;
}

OB_D float ob_warp_sum(float x)
{
    return emu_group(x, emu_add, ZO_CUDA_WARP);
}

OB_D float ob_warp_max(float x)
{
    return emu_group(x, emu_max, ZO_CUDA_WARP);
}

OB_D float ob_quad_sum(float x)
{
    return emu_group(x, emu_add, 4);
}

OB_D float ob_quad_max(float x)
{
    return emu_group(x, emu_max, 4);
}

/* Aligned as the device demands it; carried out as late as it may. */
void ob_copy16(void *to, const void *from);
void ob_copies_commit(void);
void ob_copies_wait(void);

OB_D void ob_get2(uint32_t x[2], const uint32_t *from)
{
    ENSURE((uintptr_t)from % 8 == 0);
    memcpy(x, from, 8);
}

OB_D void ob_put2(uint32_t *to, const uint32_t x[2])
{
    ENSURE((uintptr_t)to % 8 == 0);
    memcpy(to, x, 8);
}

OB_D int ob_popcount(uint32_t x)
{
    return __builtin_popcount(x);
}

uint16_t emu_to_half(float x);

OB_D float ob_load(const void *p, uint64_t i, uint32_t type)
{
    float x;
    if (type == ZO_CUDA_FP16)
        return emu_from_half(((const uint16_t *)p)[i]);
    if (type == ZO_CUDA_FP32)
        return ((const float *)p)[i];
    const uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    memcpy(&x, &bits, sizeof x);
    return x;
}

OB_D void ob_load8(float x[8], const void *p, uint64_t i, uint32_t type)
{
    ENSURE(((uintptr_t)p + 2 * i) % 16 == 0 && type != ZO_CUDA_FP32);
    for (uint64_t k = 0; k < 8; k++)
        x[k] = ob_load(p, i + k, type);
}

OB_D void ob_store(void *p, uint64_t i, float x, uint32_t type)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (type == ZO_CUDA_FP16)
        ((uint16_t *)p)[i] = emu_to_half(x);
    else if (type == ZO_CUDA_FP32)
        ((float *)p)[i] = x;
    else /* nearest, ties to even */
        ((uint16_t *)p)[i] = (uint16_t)(x != x ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

OB_D uint32_t ob_pack2(float x, float y, uint32_t type)
{
    uint32_t both[2]; /* room for two floats, which are never asked for */
    ob_store(both, 0, x, type);
    ob_store(both, 1, y, type);
    return both[0];
}
#endif
