/* zo/cuda/attend.cuh -- attention without a matrix of scores: tiles of keys pass by, sums are corrected as the maximum grows
 * (Milakov & Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135).  FP32 throughout; or, where the products are of a
 * short type and heads of at most 128, on tensor cores with q, k, v and probabilities in that type (attend_mma_body.cuh).
 *
 * One block per OB_T queries of one head; 16 x 16 threads own (OB_T / 16)^2 scores and OB_T / 16 x OB_C outputs each.
 * Keys may lie in rows of the shared prefix.  zo/cuda/attend_body.cuh is included once per pair (OB_T, OB_C). */
#ifndef ZO_CUDA_ATTEND_CUH
#define ZO_CUDA_ATTEND_CUH
#include "zo/cuda/device.cuh"

/* First element of a head's query, key or value in a row of qkv. */
OB_D uint64_t ob_place(const struct k_attend *a, uint32_t head, uint32_t role)
{
    const uint32_t group = head / (a->heads / a->kv_heads);
    if (a->by_head)
        return (uint64_t)(head * 3 + role) * a->head_dim;
    return (uint64_t)(role == 0 ? head : role == 1 ? a->heads + group : a->heads + a->kv_heads + group) * a->head_dim;
}

OB_D uint64_t ob_key_row(const struct k_attend_item *it, uint32_t j)
{
    return j < it->shared ? it->shared_row0 + j : it->row0 + (j - it->shared);
}

OB_D bool ob_sees(const struct k_attend *a, const struct k_attend_item *it, uint32_t q, uint32_t j)
{
    if (j >= it->n || q >= it->n)
        return false;
    return !a->causal || (j <= q && (a->window == 0 || j + a->window > q));
}

#define OB_JOIN3_(a, b, c) a##b##_##c
#define OB_JOIN3(a, b, c) OB_JOIN3_(a, b, c)

#define OB_T 64
#define OB_C 4
#include "zo/cuda/attend_body.cuh"
#undef OB_C
#define OB_C 8
#include "zo/cuda/attend_body.cuh"
#undef OB_C
#undef OB_T
#define OB_T 32
#define OB_C 8
#include "zo/cuda/attend_body.cuh"
#undef OB_C
#define OB_C 16
#include "zo/cuda/attend_body.cuh"
#undef OB_T
#define OB_T 16
#include "zo/cuda/attend_body.cuh"
#undef OB_C
#undef OB_T
#define OB_DK 64
#include "zo/cuda/attend_mma_body.cuh"
#undef OB_DK
#define OB_DK 128
#include "zo/cuda/attend_mma_body.cuh"
#undef OB_DK
#endif
