/* zo/cuda/device.cuh -- the few words in which the kernels are written, so that nvcc and a C compiler both read them.
 *
 * Kernels keep to what C and CUDA share: no templates, no overloads; one struct of arguments each (zo/cuda/abi.h).
 * tests/cuda/emulate.h gives the same words a meaning on the CPU: every thread of a block a fibre, barriers real.
 * Rules  OB_SYNC and the warp calls are reached by all threads of a block alike. */
#ifndef ZO_CUDA_DEVICE_CUH
#define ZO_CUDA_DEVICE_CUH
#include "zo/cuda/abi.h"
#include "zo/modp.h"

#include <math.h>
#include <onebyte/zo/philox.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define OB_D static __device__ __forceinline__
#define OB_SHARED __shared__
#define OB_SHARED16 __shared__ __align__(16) /* what ob_copy16 writes to */
#define OB_THREAD threadIdx.x
#define OB_BLOCK_X blockIdx.x
#define OB_BLOCK_Y blockIdx.y
#define OB_GRID_X gridDim.x
#define OB_SYNC() __syncthreads()
#define OB_UNROLL _Pragma("unroll")
#define OB_KERNEL(name, args) OB_KERNEL_(name, args)
#define OB_KERNEL_(name, args)                                                                  \
    static __device__ __forceinline__ void name##_body(const struct args *a);                   \
    __global__ void __launch_bounds__(ZO_CUDA_THREADS) kernel_##name(const __grid_constant__ struct args a) \
    {                                                                                           \
        name##_body(&a);                                                                        \
    }                                                                                           \
    static __device__ __forceinline__ void name##_body(const struct args *a)

OB_D float *ob_dynamic(void)
{
    extern __shared__ float4 ob_dynamic_shared[];
    return (float *)ob_dynamic_shared;
}

OB_D float ob_warp_sum(float x)
{
    for (int m = 16; m > 0; m /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, m);
    return x;
}

OB_D float ob_warp_max(float x)
{
    for (int m = 16; m > 0; m /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, m));
    return x;
}

/* c (16, 8) += a (16, 32) b (32, 8), a row-major and b column-major in the fragments' order of PTX's
 * mma.m16n8k32: lane 4 g + t holds bytes 4t.. of rows g, g + 8 (and 16 + 4t..), and columns 2t, 2t + 1 of c. */
OB_D void ob_mma_s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else /* sm_75 has m8n8k16 only: the 16 x 8 x 32 product is four of them */
#define OB_MMA_75(d0, d1, x, y)                                                                              \
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};" : "+r"(d0), \
                 "+r"(d1)                                                                                    \
                 : "r"(x), "r"(y))
    OB_MMA_75(c[0], c[1], a[0], b[0]);
    OB_MMA_75(c[0], c[1], a[2], b[1]);
    OB_MMA_75(c[2], c[3], a[1], b[0]);
    OB_MMA_75(c[2], c[3], a[3], b[1]);
#undef OB_MMA_75
#endif
}

/* Over the four lanes that share a row of a fragment. */
OB_D float ob_quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

OB_D float ob_quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/* Two numbers in a short type, the first in the lower half. */
OB_D uint32_t ob_pack2(float x, float y, uint32_t type)
{
    const uint32_t low = type == ZO_CUDA_BF16 ? __bfloat16_as_ushort(__float2bfloat16_rn(x))
                                              : __half_as_ushort(__float2half_rn(x));
    const uint32_t high = type == ZO_CUDA_BF16 ? __bfloat16_as_ushort(__float2bfloat16_rn(y))
                                               : __half_as_ushort(__float2half_rn(y));
    return high << 16 | low;
}

/* c (16, 8) += a (16, 16) b (16, 8) of a short type, a row-major and b column-major in the order of PTX's mma.m16n8k16: lane
 * 4 g + t holds elements 2t, 2t + 1 of rows g, g + 8 (then 8 on), and of column g of b; c as in ob_mma_s8.  sm_80 and later. */
OB_D void ob_mma_16(float c[4], const uint32_t a[4], const uint32_t b[2], uint32_t type)
{
#if __CUDA_ARCH__ >= 800
    if (type == ZO_CUDA_BF16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    asm volatile("trap;"); /* choose_tile asks for 8.0 */
#endif
}

/* 16 bytes from global into shared memory, both aligned to 16.  They may be under way until ob_copies_wait and a barrier. */
OB_D void ob_copy16(void *to, const void *from)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from)
                 : "memory");
#else
    *(uint4 *)to = *(const uint4 *)from;
#endif
}

/* Closes a group of this thread's copies. */
OB_D void ob_copies_commit(void)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* All of this thread's groups but the newest have arrived. */
OB_D void ob_copies_wait(void)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group 1;" ::: "memory");
#endif
}

OB_D void ob_get2(uint32_t x[2], const uint32_t *from) /* aligned to 8 */
{
    const uint2 pair = *(const uint2 *)from;
    x[0] = pair.x;
    x[1] = pair.y;
}

OB_D void ob_put2(uint32_t *to, const uint32_t x[2])
{
    *(uint2 *)to = make_uint2(x[0], x[1]);
}

OB_D int ob_popcount(uint32_t x)
{
    return __popc(x);
}

OB_D float ob_load(const void *p, uint64_t i, uint32_t type)
{
    if (type == ZO_CUDA_BF16)
        return __bfloat162float(((const __nv_bfloat16 *)p)[i]);
    if (type == ZO_CUDA_FP16)
        return __half2float(((const __half *)p)[i]);
    return ((const float *)p)[i];
}

/* Eight neighbours of a short type, aligned to 16 bytes. */
OB_D void ob_load8(float x[8], const void *p, uint64_t i, uint32_t type)
{
    const uint4 all = *(const uint4 *)(const void *)((const uint16_t *)p + i);
    const uint32_t w[4] = {all.x, all.y, all.z, all.w};
    OB_UNROLL
    for (int k = 0; k < 4; k++) {
        x[2 * k] = type == ZO_CUDA_BF16 ? __uint_as_float(w[k] << 16) : __half2float(__ushort_as_half((uint16_t)w[k]));
        x[2 * k + 1] = type == ZO_CUDA_BF16 ? __uint_as_float(w[k] & 0xffff0000u)
                                            : __half2float(__ushort_as_half((uint16_t)(w[k] >> 16)));
    }
}

OB_D void ob_store(void *p, uint64_t i, float x, uint32_t type)
{
    if (type == ZO_CUDA_BF16)
        ((__nv_bfloat16 *)p)[i] = __float2bfloat16_rn(x);
    else if (type == ZO_CUDA_FP16)
        ((__half *)p)[i] = __float2half_rn(x);
    else
        ((float *)p)[i] = x;
}
#else
#include "tests/cuda/emulate.h"
#endif

/* Two neighbours from an even place on: one store where they are short. */
OB_D void ob_store2(void *p, uint64_t i, float x, float y, uint32_t type)
{
#ifdef __CUDACC__
    if (type == ZO_CUDA_BF16) {
        *(__nv_bfloat162 *)(void *)((__nv_bfloat16 *)p + i) = __floats2bfloat162_rn(x, y);
        return;
    }
#endif
    ob_store(p, i, x, type);
    ob_store(p, i + 1, y, type);
}

/* Where this thread starts in a grid-stride loop, and its step. */
OB_D uint64_t ob_first(void)
{
    return (uint64_t)OB_BLOCK_X * ZO_CUDA_THREADS + OB_THREAD;
}

OB_D uint64_t ob_stride(void)
{
    return (uint64_t)OB_GRID_X * ZO_CUDA_THREADS;
}

/* Sum over the block, known to every thread. */
OB_D float ob_block_sum(float x)
{
    OB_SHARED float part[ZO_CUDA_THREADS / ZO_CUDA_WARP];
    float sum = 0.0f;
    x = ob_warp_sum(x);
    OB_SYNC(); /* the last call's readers are done */
    if (OB_THREAD % ZO_CUDA_WARP == 0)
        part[OB_THREAD / ZO_CUDA_WARP] = x;
    OB_SYNC();
    for (int i = 0; i < ZO_CUDA_THREADS / ZO_CUDA_WARP; i++)
        sum += part[i];
    return sum;
}

OB_D float ob_block_max(float x)
{
    OB_SHARED float part[ZO_CUDA_THREADS / ZO_CUDA_WARP];
    x = ob_warp_max(x);
    OB_SYNC();
    if (OB_THREAD % ZO_CUDA_WARP == 0)
        part[OB_THREAD / ZO_CUDA_WARP] = x;
    OB_SYNC();
    x = part[0];
    for (int i = 1; i < ZO_CUDA_THREADS / ZO_CUDA_WARP; i++)
        x = fmaxf(x, part[i]);
    return x;
}

OB_D void ob_record_block(uint32_t w[4], const struct zo_cuda_records *r, uint64_t i, uint32_t domain_tensor,
                          uint32_t block)
{
    const uint32_t key[2] = {r->key0[i], r->key1[i]}, ctr[4] = {block, domain_tensor, r->seq_lo[i], r->seq_hi[i]};
    zo_philox(w, ctr, key);
}

OB_D void ob_pass_block(uint32_t w[4], const struct zo_cuda_passes *p, uint32_t i, uint32_t domain_tensor,
                        uint32_t block)
{
    const uint32_t key[2] = {p->key0[i], p->key1[i]}, ctr[4] = {block, domain_tensor, p->seq_lo[i], p->seq_hi[i]};
    zo_philox(w, ctr, key);
}

OB_D float ob_sign(uint32_t word, uint64_t i)
{
    return (word >> (i % 32)) & 1 ? 1.0f : -1.0f;
}

OB_D int ob_gauss(const uint32_t w[4], uint64_t i) /* element i of its stream; w: block i / 2 */
{
    const uint32_t at = (uint32_t)(i % 2) * 2;
    return ob_popcount(w[at]) + ob_popcount(w[at + 1]) - 32;
}

/* Element i of a dense kind along a pass. */
OB_D float ob_dense_z(const struct zo_cuda_passes *p, uint32_t pass, uint32_t kind, uint32_t tensor, uint64_t i)
{
    uint32_t w[4];
    if (kind == ZO_CUDA_GAUSS) {
        ob_pass_block(w, p, pass, (uint32_t)ZO_DOMAIN_GAUSS << 24 | tensor, (uint32_t)(i / 2));
        return 0.25f * (float)ob_gauss(w, i);
    }
    ob_pass_block(w, p, pass, (uint32_t)ZO_DOMAIN_DENSE << 24 | tensor, (uint32_t)(i / 128));
    return ob_sign(w[i / 32 % 4], i);
}
#endif
