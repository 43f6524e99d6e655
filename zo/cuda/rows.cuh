/* zo/cuda/rows.cuh -- kernels over rows between the matrix products, and the losses.
 *
 * A product leaves plain x W^T; bias and the rank-1 term  s a^T,  s = eps (x . b)  join it in whichever kernel reads it
 * next, so that a direction costs no pass over memory of its own. */
#ifndef ZO_CUDA_ROWS_CUH
#define ZO_CUDA_ROWS_CUH
#include "zo/cuda/device.cuh"

/* This lane's share of the dots of row r, eight neighbours at a time. */
OB_D void ob_dots8(const struct k_dots *a, uint64_t r, uint32_t pass, float sum[ZO_CUDA_PARTS])
{
    for (uint32_t i = OB_THREAD % ZO_CUDA_WARP * 8; i < a->n; i += ZO_CUDA_WARP * 8) {
        float x[8];
        ob_load8(x, a->x, r * a->ldx + i, a->type);
        OB_UNROLL
        for (uint32_t j = 0; j < ZO_CUDA_PARTS; j++) {
            const uint32_t bits = j < a->n_signs ? a->signs[j][(uint64_t)pass * a->words + i / 32] >> (i % 32) : 0;
            OB_UNROLL
            for (uint32_t k = 0; k < 8; k++)
                sum[j] += bits >> k & 1 ? x[k] : -x[k];
        }
    }
}

/* A warp per row. */
OB_KERNEL(dots, k_dots)
{
    const bool wide = a->type != ZO_CUDA_FP32 && a->n % 8 == 0 && a->ldx % 8 == 0;
    const uint32_t lane = OB_THREAD % ZO_CUDA_WARP, per = ZO_CUDA_THREADS / ZO_CUDA_WARP;
    for (uint64_t base = (uint64_t)OB_BLOCK_X * per; base < a->n_rows; base += (uint64_t)OB_GRID_X * per) {
        const uint64_t mine = base + OB_THREAD / ZO_CUDA_WARP, r = mine < a->n_rows ? mine : a->n_rows - 1u;
        const uint32_t pass = a->row_pass[r];
        const float eps = a->p.eps[pass] * a->scale;
        float sum[ZO_CUDA_PARTS] = {0.0f, 0.0f, 0.0f};
        if (wide)
            ob_dots8(a, r, pass, sum);
        for (uint32_t i = lane; !wide && i < a->n; i += ZO_CUDA_WARP) {
            const float x = ob_load(a->x, r * a->ldx + i, a->type);
            OB_UNROLL
            for (uint32_t j = 0; j < ZO_CUDA_PARTS; j++)
                if (j < a->n_signs)
                    sum[j] += x * ob_sign(a->signs[j][(uint64_t)pass * a->words + i / 32], i);
        }
        OB_UNROLL
        for (uint32_t j = 0; j < ZO_CUDA_PARTS; j++) {
            const float all = ob_warp_sum(sum[j]);
            if (lane == 0 && j < a->n_signs && mine < a->n_rows)
                a->dots[(uint64_t)j * a->n_rows + r] = eps * all;
        }
    }
}

OB_D float ob_part(const struct k_part *p, uint64_t row, uint32_t pass, uint32_t col, float y)
{
    const uint32_t c = col - p->col0;
    if (p->bias)
        y += p->bias[(uint64_t)pass * p->n + c];
    if (p->out)
        y += p->dots[row] * ob_sign(p->out[(uint64_t)pass * p->words + c / 32], c);
    return y;
}

/* Column col of a row that up to three products share. */
OB_D float ob_parts(const struct k_part *p, uint32_t n, uint64_t row, uint32_t pass, uint32_t col, float y)
{
    OB_UNROLL
    for (uint32_t i = 0; i < ZO_CUDA_PARTS; i++)
        if (i < n && col >= p[i].col0 && col < p[i].col0 + p[i].n)
            return ob_part(&p[i], row, pass, col, y);
    return y;
}

OB_KERNEL(finish, k_finish)
{
    const uint32_t cols = a->part[a->n_parts - 1].col0 + a->part[a->n_parts - 1].n;
    for (uint64_t at = ob_first(); at < (uint64_t)a->n_rows * cols; at += ob_stride()) {
        const uint64_t r = at / cols;
        const uint32_t c = (uint32_t)(at % cols);
        float *x = a->x ? a->x + r * a->ldx + c : a->y + r * a->ldy + c;
        float y = ob_parts(a->part, a->n_parts, r, a->row_pass[r], c, a->y[r * a->ldy + c]);
        if (a->add)
            y += *x;
        *x = y;
        if (a->copy)
            ob_store(a->copy, r * a->ldc + c, y, a->type);
    }
}

/* A block per row. */
OB_KERNEL(norm, k_norm)
{
    for (uint64_t r = OB_BLOCK_X; r < a->n_rows; r += OB_GRID_X) {
        const float *x = a->src + (a->gather ? (uint64_t)a->gather[r] : r) * a->d;
        const uint64_t pass = a->row_pass[r];
        float mean = 0.0f, square = 0.0f, scale = 1.0f;
        if (a->w && a->norm == 2) {
            for (uint32_t i = OB_THREAD; i < a->d; i += ZO_CUDA_THREADS)
                mean += x[i];
            mean = ob_block_sum(mean) / (float)a->d;
        }
        if (a->w) {
            for (uint32_t i = OB_THREAD; i < a->d; i += ZO_CUDA_THREADS)
                square += (x[i] - mean) * (x[i] - mean);
            scale = 1.0f / sqrtf(ob_block_sum(square) / (float)a->d + a->eps);
        }
        for (uint32_t i = OB_THREAD; i < a->d; i += ZO_CUDA_THREADS) {
            float y = x[i];
            if (a->w)
                y = (y - mean) * scale * (a->w[pass * a->d + i] + (a->norm == 1 ? 1.0f : 0.0f));
            if (a->b)
                y += a->b[pass * a->d + i];
            if (a->dst && a->add)
                y += a->dst[r * a->d + i];
            if (a->dst)
                a->dst[r * a->d + i] = y;
            if (a->copy)
                ob_store(a->copy, r * a->d + i, y, a->type);
        }
    }
}

/* enum zo_act of zo/model/ops.h, in its order (zo/cuda/forward.c asserts it). */
OB_D float ob_act(float v, uint32_t kind)
{
    switch (kind) {
    case 0: /* silu */
        return v / (1.0f + expf(-v));
    case 1: /* gelu */
        return 0.5f * v * (1.0f + erff(v * 0.70710678f));
    case 2: /* gelu, tanh form */
        return 0.5f * v * (1.0f + tanhf(0.79788456f * (v + 0.044715f * v * v * v)));
    case 3: /* relu; a NaN must reach the loss */
        return v > 0.0f || v != v ? v : 0.0f;
    case 4: /* quick gelu */
        return v / (1.0f + expf(-1.702f * v));
    default:
        return tanhf(v);
    }
}

OB_KERNEL(act, k_act)
{
    for (uint64_t at = ob_first(); at < (uint64_t)a->n_rows * a->ffn; at += ob_stride()) {
        const uint64_t r = at / a->ffn;
        const uint32_t c = (uint32_t)(at % a->ffn), pass = a->row_pass[r];
        const float *y = a->y + r * a->ldy;
        float x = ob_act(ob_parts(a->part, a->n_parts, r, pass, c, y[c]), a->act);
        if (a->gated)
            x *= ob_parts(a->part, a->n_parts, r, pass, a->ffn + c, y[a->ffn + c]);
        if (a->out)
            ob_store(a->out, at, x, a->type);
        if (a->out32)
            a->out32[at] = x;
    }
}

/* Which of a row's heads are queries and keys: they lie q..., k..., v..., or q, k, v head by head (NeoX). */
OB_D uint32_t ob_role(const struct k_rotate *a, uint32_t slot)
{
    if (a->by_head)
        return slot % 3;
    return slot < a->heads ? 0 : slot < a->heads + a->kv_heads ? 1 : 2;
}

/* A warp per row and head; a lane owns both elements of its pairs. */
OB_KERNEL(rotate, k_rotate)
{
    const uint32_t lane = OB_THREAD % ZO_CUDA_WARP, per = ZO_CUDA_THREADS / ZO_CUDA_WARP, d = a->head_dim;
    const uint32_t slots = a->heads + 2 * a->kv_heads;
    const uint64_t total = (uint64_t)a->n_rows * slots;
    for (uint64_t base = (uint64_t)OB_BLOCK_X * per; base < total; base += (uint64_t)OB_GRID_X * per) {
        const uint64_t mine = base + OB_THREAD / ZO_CUDA_WARP, at = mine < total ? mine : total - 1;
        const uint64_t r = at / slots;
        const uint32_t slot = (uint32_t)(at % slots), role = ob_role(a, slot), pass = a->row_pass[r], col = slot * d;
        const float *w = role == 0 ? a->q_norm : role == 1 ? a->k_norm : NULL;
        float *x = a->qkv + r * a->width + col, scale = 1.0f;
        if (a->norm != 0) { /* all warps alike */
            float square = 0.0f;
            for (uint32_t i = lane; i < d; i += ZO_CUDA_WARP) {
                const float y = ob_parts(a->part, a->n_parts, r, pass, col + i, x[i]);
                square += y * y;
            }
            scale = 1.0f / sqrtf(ob_warp_sum(square) / (float)d + a->eps);
        }
        const uint32_t half = a->rope && role < 2 ? a->half : 0;
        const float one = a->norm == 2 ? 1.0f : 0.0f;
        const float *angle = half ? a->rope + (uint64_t)a->positions[r] * 2 * half : NULL;
        for (uint32_t i = lane; mine < total && i < d - half; i += ZO_CUDA_WARP) {
            const uint32_t j = i < half ? i : i + half; /* beyond the pairs: the rest, alone */
            float y = ob_parts(a->part, a->n_parts, r, pass, col + j, x[j]);
            if (w)
                y = y * scale * (w[(uint64_t)pass * d + j] + one);
            if (i < half) {
                float z = ob_parts(a->part, a->n_parts, r, pass, col + j + half, x[j + half]);
                if (w)
                    z = z * scale * (w[(uint64_t)pass * d + j + half] + one);
                x[j + half] = z * angle[i] + y * angle[half + i];
                y = y * angle[i] - z * angle[half + i];
            }
            x[j] = y;
        }
    }
}

/* A block per counted token. */
OB_KERNEL(head, k_head)
{
    for (uint64_t r = OB_BLOCK_X; r < a->n_rows; r += OB_GRID_X) {
        const uint32_t pass = a->row_pass[r];
        float top = a->first ? -INFINITY : a->max[r], sum = 0.0f;
        const float before = top;
        for (int turn = 0; turn < 2; turn++) { /* the maximum, then the sum under it */
            for (uint32_t c = OB_THREAD; c < a->n; c += ZO_CUDA_THREADS) {
                float y = ob_part(&a->part, r, pass, a->col0 + c, a->logits[r * a->n + c]);
                if (a->cap > 0.0f)
                    y = a->cap * tanhf(y / a->cap);
                if (turn == 1)
                    sum += expf(y - top);
                else if (y > top)
                    top = y;
                if (turn == 0 && a->ids[r] == a->col0 + c)
                    a->target[r] = y;
            }
            if (turn == 0)
                top = ob_block_max(top);
        }
        sum = ob_block_sum(sum);
        if (OB_THREAD == 0) {
            a->sum[r] = (a->first ? 0.0 : a->sum[r] * exp((double)before - (double)top)) + (double)sum;
            a->max[r] = top;
        }
        OB_SYNC();
    }
}
#endif
