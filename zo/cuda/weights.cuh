/* zo/cuda/weights.cuh -- kernels between integers and what the products read: weights, directions, embeddings. */
#ifndef ZO_CUDA_WEIGHTS_CUH
#define ZO_CUDA_WEIGHTS_CUH
#include "zo/cuda/device.cuh"

/* m as a float, rounded once; bits 0: already one. */
OB_D float ob_weight(const void *m, uint32_t bits, uint64_t i, float scale)
{
    if (bits == 32)
        return (float)((const int32_t *)m)[i] * scale;
    if (bits == 64)
        return (float)((const int64_t *)m)[i] * scale;
    return ((const float *)m)[i];
}

OB_KERNEL(convert, k_convert)
{
    for (uint64_t i = ob_first(); i < a->n; i += ob_stride())
        ob_store(a->out, i, ob_weight(a->m, a->bits, i, a->scale), a->type);
}

/* A thread makes eight elements: signs from a byte of one Philox block, gaussians from four blocks. */
OB_KERNEL(dense, k_dense)
{
    for (uint64_t at = ob_first(); 8 * at < a->n; at += ob_stride()) {
        const uint64_t i0 = a->first + 8 * at;
        const uint32_t per = a->kind == ZO_CUDA_GAUSS ? 2 : 128;
        uint64_t held = (uint64_t)-1;
        uint32_t w[4];
        for (uint64_t i = i0; i < i0 + 8 && i < a->first + a->n; i++) {
            if (i / per != held) {
                held = i / per;
                ob_pass_block(w, &a->p, a->pass, a->domain_tensor, (uint32_t)held);
            }
            ob_store(a->out, i - a->first,
                     a->kind == ZO_CUDA_GAUSS ? 0.25f * (float)ob_gauss(w, i) : ob_sign(w[i / 32 % 4], i), a->type);
        }
    }
}

OB_KERNEL(words, k_words)
{
    const uint32_t n_blocks = a->item[OB_BLOCK_Y].n_blocks;
    for (uint64_t i = ob_first(); i < (uint64_t)a->p.n * n_blocks; i += ob_stride()) {
        uint32_t w[4];
        ob_pass_block(w, &a->p, (uint32_t)(i / n_blocks), a->item[OB_BLOCK_Y].domain_tensor, (uint32_t)(i % n_blocks));
        for (int k = 0; k < 4; k++)
            a->item[OB_BLOCK_Y].out[4 * i + (uint64_t)k] = w[k];
    }
}

OB_KERNEL(vectors, k_vectors)
{
    const uint32_t n = a->item[OB_BLOCK_Y].n, bits = a->item[OB_BLOCK_Y].bits;
    for (uint64_t i = ob_first(); i < (uint64_t)a->p.n * n; i += ob_stride()) {
        const uint32_t pass = (uint32_t)(i / n), j = (uint32_t)(i % n);
        float x = ob_weight(a->item[OB_BLOCK_Y].m, bits, j, a->item[OB_BLOCK_Y].scale);
        if (bits != 0 && a->p.eps[pass] != 0.0f)
            x += a->p.eps[pass] * ob_dense_z(&a->p, pass, a->kind, a->item[OB_BLOCK_Y].domain_tensor & 0xffffffu, j);
        a->item[OB_BLOCK_Y].out[i] = x;
    }
}

OB_D float ob_embed_z(const struct k_embed *a, uint32_t pass, uint64_t row, uint64_t j)
{
    uint32_t wa[4], wb[4];
    if (a->kind != ZO_CUDA_RANK1)
        return ob_dense_z(&a->p, pass, a->kind, a->tensor, row * a->cols + j);
    ob_pass_block(wa, &a->p, pass, (uint32_t)ZO_DOMAIN_A << 24 | a->tensor, (uint32_t)(row / 128));
    ob_pass_block(wb, &a->p, pass, (uint32_t)ZO_DOMAIN_B << 24 | a->tensor, (uint32_t)(j / 128));
    return ob_sign(wa[row / 32 % 4], row) * ob_sign(wb[j / 32 % 4], j);
}

OB_KERNEL(embed, k_embed)
{
    const uint64_t total = (uint64_t)a->n_rows * a->cols;
    for (uint64_t at = ob_first(); at < total; at += ob_stride()) {
        const uint32_t r = (uint32_t)(at / a->cols), pass = a->row_pass[r];
        const uint64_t j = at % a->cols, row = a->index ? (uint64_t)a->index[r] + a->index_offset : 0;
        float x = a->bits ? ob_weight(a->m, a->bits, row * a->cols + j, a->weight_scale)
                          : ob_load(a->m, row * a->cols + j, a->type);
        if (a->bits != 0 && a->p.eps[pass] != 0.0f)
            x += a->p.eps[pass] * ob_embed_z(a, pass, row, j);
        a->x[at] = (a->add ? a->x[at] : 0.0f) + a->scale * x;
    }
}
#endif
