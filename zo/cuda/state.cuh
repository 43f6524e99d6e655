/* zo/cuda/state.cuh -- kernels of the integer state: the fold as exact products, the digest, headroom.
 *
 * The same bits as zo/fold.c and zo/digest.c: integer sums in any order.  Bounds: a group's partial sum is
 * |sum v h| <= 2^17 records * 4064 < 2^31, which the callers keep by flushing at least every 2^17 records. */
#ifndef ZO_CUDA_STATE_CUH
#define ZO_CUDA_STATE_CUH
#include "zo/cuda/device.cuh"

/* A thread makes one word of bits of four records: four bytes per element, neighbours beside each other.  (A whole block
 * each would need a quarter of the Philox, and leave most of the device idle where a segment is folded.) */
OB_KERNEL(expand, k_expand)
{
    const uint32_t quads = a->n / 4, n_blocks = a->side[OB_BLOCK_Y].n_blocks, weighted = a->side[OB_BLOCK_Y].weighted;
    const uint64_t total = (uint64_t)quads * 4 * n_blocks;
    for (uint64_t at = ob_first(); at < total; at += ob_stride()) {
        const uint32_t quad = (uint32_t)(at % quads), part = (uint32_t)(at / quads), block = part / 4, word = part % 4;
        uint32_t bits[4], v[4];
        OB_UNROLL
        for (uint32_t k = 0; k < 4; k++) {
            const uint32_t r = a->first + 4 * quad + k;
            uint32_t w[4];
            ob_record_block(w, &a->r, r, a->side[OB_BLOCK_Y].domain_tensor, block);
            bits[k] = word == 0 ? w[0] : word == 1 ? w[1] : word == 2 ? w[2] : w[3];
            v[k] = weighted ? (uint32_t)(int32_t)a->r.v[r] : 1u;
        }
        uint32_t *out = (uint32_t *)(void *)(a->side[OB_BLOCK_Y].out + (uint64_t)part * 32 * a->n + 4 * quad);
        for (uint32_t i = 0; i < 32; i++) {
            uint32_t bytes = 0;
            OB_UNROLL
            for (uint32_t k = 0; k < 4; k++) {
                const uint32_t up = bits[k] >> i & 1u, x = up ? v[k] : 0u - v[k];
                bytes |= (x & 0xffu) << (8 * k);
            }
            out[(uint64_t)i * quads] = bytes;
        }
    }
}

enum {
    OB_LINE = ZO_CUDA_CHUNK + 16, /* bytes between staged rows: eight rows start in different banks */
    OB_STAGE = ZO_CUDA_TILE * OB_LINE,
};

/* One operand's chunk of 64 records into shared memory, 16 bytes at a time. */
OB_D void ob_stage(uint32_t *to, const int8_t *from, uint64_t ld, uint32_t k0)
{
    for (uint32_t i = OB_THREAD; i < ZO_CUDA_TILE * (ZO_CUDA_CHUNK / 16); i += ZO_CUDA_THREADS) {
        const uint32_t row = i / (ZO_CUDA_CHUNK / 16), part = i % (ZO_CUDA_CHUNK / 16) * 16;
        ob_copy16(to + (row * OB_LINE + part) / 4, from + (uint64_t)row * ld + k0 + part);
    }
}

/* Eight warps, 2 x 4: each 64 rows and 32 columns, as 4 x 4 products of 16 x 8. */
OB_D void ob_multiply(int32_t acc[4][4][4], const uint32_t *sa, const uint32_t *sb, uint32_t group)
{
    const uint32_t lane = OB_THREAD % 32, warp = OB_THREAD / 32, g = lane / 4, t = lane % 4;
    uint32_t fa[4][4], fb[4][2];
    OB_UNROLL
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t row = warp / 4 * 64 + i * 16 + g, at = group * ZO_CUDA_GROUP / 4 + t;
        fa[i][0] = sa[row * (OB_LINE / 4) + at];
        fa[i][1] = sa[(row + 8) * (OB_LINE / 4) + at];
        fa[i][2] = sa[row * (OB_LINE / 4) + at + 4];
        fa[i][3] = sa[(row + 8) * (OB_LINE / 4) + at + 4];
    }
    OB_UNROLL
    for (uint32_t j = 0; j < 4; j++) {
        const uint32_t col = warp % 4 * 32 + j * 8 + g, at = group * ZO_CUDA_GROUP / 4 + t;
        fb[j][0] = sb[col * (OB_LINE / 4) + at];
        fb[j][1] = sb[col * (OB_LINE / 4) + at + 4];
    }
    OB_UNROLL
    for (uint32_t i = 0; i < 4; i++) {
        OB_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            ob_mma_s8(acc[i][j], fa[i], fb[j]);
    }
}

/* sum += coef * acc, acc <- 0: where the coefficient changes. */
OB_D void ob_flush(uint32_t sum[4][4][4], int32_t acc[4][4][4], uint32_t coef)
{
    OB_UNROLL
    for (int i = 0; i < 4; i++) {
        OB_UNROLL
        for (int j = 0; j < 4; j++) {
            OB_UNROLL
            for (int k = 0; k < 4; k++) {
                sum[i][j][k] += coef * (uint32_t)acc[i][j][k];
                acc[i][j][k] = 0;
            }
        }
    }
}

/* Entries at and at + 1, or the first alone where it is a row's last, less x. */
OB_D void ob_subtract_pair(const struct k_fold_tile *a, uint64_t at, bool two, const uint32_t x[2])
{
    uint32_t *m = (uint32_t *)a->m;
    if (two && a->cols % 2 == 0) { /* then `at` is even */
        uint32_t y[2];
        ob_get2(y, m + at);
        y[0] -= x[0];
        y[1] -= x[1];
        ob_put2(m + at, y);
        if (a->copy)
            ob_store2(a->copy, at, (float)(int32_t)y[0] * a->scale, (float)(int32_t)y[1] * a->scale, a->type);
        return;
    }
    for (uint32_t i = 0; i < (two ? 2u : 1u); i++) {
        const uint32_t y = m[at + i] - x[i];
        m[at + i] = y;
        if (a->copy)
            ob_store(a->copy, at + i, (float)(int32_t)y * a->scale, a->type);
    }
}

OB_D void ob_subtract_tile(const struct k_fold_tile *a, uint32_t sum[4][4][4])
{
    const uint32_t lane = OB_THREAD % 32, warp = OB_THREAD / 32, g = lane / 4, t = lane % 4;
    OB_UNROLL
    for (uint32_t i = 0; i < 4; i++) {
        OB_UNROLL
        for (uint32_t j = 0; j < 4; j++) {
            OB_UNROLL
            for (uint32_t k = 0; k < 2; k++) {
                const uint64_t row = (uint64_t)OB_BLOCK_Y * ZO_CUDA_TILE + warp / 4 * 64 + i * 16 + g + k * 8;
                const uint64_t col = (uint64_t)OB_BLOCK_X * ZO_CUDA_TILE + warp % 4 * 32 + j * 8 + 2 * t;
                const uint32_t x[2] = {sum[i][j][2 * k], sum[i][j][2 * k + 1]};
                if (row < a->rows && col < a->cols)
                    ob_subtract_pair(a, row * a->cols + col, col + 1 < a->cols, x);
            }
        }
    }
}

/* Two chunks lie in shared memory: one is multiplied while the next is on its way. */
OB_KERNEL(fold_tile, k_fold_tile)
{
    OB_SHARED16 uint32_t sa[2][OB_STAGE / 4];
    OB_SHARED16 uint32_t sb[2][OB_STAGE / 4];
    const int8_t *from_a = a->a + (uint64_t)OB_BLOCK_Y * ZO_CUDA_TILE * a->n;
    const int8_t *from_b = a->b + (uint64_t)OB_BLOCK_X * ZO_CUDA_TILE * a->n;
    const uint32_t n_groups = a->n / ZO_CUDA_GROUP;
    int32_t acc[4][4][4] = {{{0}}};
    uint32_t sum[4][4][4] = {{{0}}};
    ob_stage(sa[0], from_a, a->n, 0);
    ob_stage(sb[0], from_b, a->n, 0);
    ob_copies_commit();
    for (uint32_t k0 = 0; k0 < a->n; k0 += ZO_CUDA_CHUNK) {
        const uint32_t now = k0 / ZO_CUDA_CHUNK % 2;
        if (k0 + ZO_CUDA_CHUNK < a->n) {
            ob_stage(sa[1 - now], from_a, a->n, k0 + ZO_CUDA_CHUNK);
            ob_stage(sb[1 - now], from_b, a->n, k0 + ZO_CUDA_CHUNK);
        }
        ob_copies_commit(); /* empty at the end: the one before is to be waited for all the same */
        ob_copies_wait();
        OB_SYNC(); /* every thread's copies of this chunk are here */
        OB_UNROLL
        for (uint32_t h = 0; h < ZO_CUDA_CHUNK / ZO_CUDA_GROUP; h++) {
            const uint32_t group = k0 / ZO_CUDA_GROUP + h;
            const uint32_t coef = (uint32_t)a->coef[group];
            ob_multiply(acc, sa[now], sb[now], h);
            if (group + 1 == n_groups || (uint32_t)a->coef[group + 1] != coef)
                ob_flush(sum, acc, coef);
        }
        OB_SYNC(); /* read: the next turn writes here */
    }
    ob_subtract_tile(a, sum);
}

/* Matrices of 64 bits: rare (their L would be too small in 32), so plain. */
OB_KERNEL(fold_tile64, k_fold_tile)
{
    const uint64_t n = a->rows * a->cols;
    uint64_t *m = (uint64_t *)a->m;
    for (uint64_t at = ob_first(); at < n; at += ob_stride()) {
        const int8_t *x = a->a + at / a->cols * a->n, *y = a->b + at % a->cols * a->n;
        uint64_t sum = 0;
        for (uint32_t r = 0; r < a->n; r += ZO_CUDA_GROUP) {
            int32_t acc = 0;
            for (uint32_t k = r; k < r + ZO_CUDA_GROUP; k++)
                acc += (int32_t)x[k] * y[k];
            sum += a->coef[r / ZO_CUDA_GROUP] * (uint64_t)(int64_t)acc;
        }
        m[at] -= sum;
    }
}

OB_D void ob_subtract(const struct k_fold_dense *a, uint64_t i, uint64_t sum)
{
    if (i >= a->n)
        return;
    if (a->bits == 32)
        ((uint32_t *)a->m)[i] -= (uint32_t)sum;
    else
        ((uint64_t *)a->m)[i] -= sum;
}

enum { OB_SIGN_RECORDS = 16, OB_SIGN_ELEMENTS = ZO_CUDA_THREADS * 8 };

/* Sixteen records by sixteen blocks of bits at a time, one Philox block per thread; a thread owns eight elements. */
OB_KERNEL(fold_signs, k_fold_dense)
{
    OB_SHARED uint32_t words[OB_SIGN_RECORDS][OB_SIGN_ELEMENTS / 32];
    const uint64_t base = (uint64_t)OB_BLOCK_X * OB_SIGN_ELEMENTS;
    const uint32_t rec = OB_THREAD / 16, block = OB_THREAD % 16;
    uint64_t sum[8] = {0};
    for (uint32_t group = 0; group < a->n_groups; group++) {
        int32_t acc[8] = {0};
        for (uint32_t half = 0; half < ZO_CUDA_GROUP / OB_SIGN_RECORDS; half++) {
            const uint64_t r0 = (uint64_t)group * ZO_CUDA_GROUP + half * OB_SIGN_RECORDS;
            OB_SYNC();
            ob_record_block(&words[rec][4 * block], &a->r, r0 + rec, a->domain_tensor, (uint32_t)(base / 128) + block);
            OB_SYNC();
            for (uint32_t k = 0; k < OB_SIGN_RECORDS; k++) {
                const uint32_t bits = words[k][OB_THREAD / 4] >> (OB_THREAD % 4 * 8);
                const int32_t v = a->r.v[r0 + k];
                OB_UNROLL
                for (uint32_t i = 0; i < 8; i++)
                    acc[i] += bits >> i & 1 ? v : -v;
            }
        }
        OB_UNROLL
        for (uint32_t i = 0; i < 8; i++)
            sum[i] += a->coef[group] * (uint64_t)(int64_t)acc[i];
    }
    for (uint32_t i = 0; i < 8; i++)
        ob_subtract(a, base + OB_THREAD * 8 + i, sum[i]);
}

/* A thread owns the two elements of one Philox block. */
OB_KERNEL(fold_gauss, k_fold_dense)
{
    const uint64_t block = ob_first();
    uint64_t sum[2] = {0, 0};
    for (uint32_t group = 0; group < a->n_groups; group++) {
        int32_t acc[2] = {0, 0};
        for (uint32_t k = 0; k < ZO_CUDA_GROUP; k++) {
            const uint64_t r = (uint64_t)group * ZO_CUDA_GROUP + k;
            uint32_t w[4];
            ob_record_block(w, &a->r, r, a->domain_tensor, (uint32_t)block);
            acc[0] += a->r.v[r] * ob_gauss(w, 0);
            acc[1] += a->r.v[r] * ob_gauss(w, 1);
        }
        sum[0] += a->coef[group] * (uint64_t)(int64_t)acc[0];
        sum[1] += a->coef[group] * (uint64_t)(int64_t)acc[1];
    }
    ob_subtract(a, 2 * block, sum[0]);
    ob_subtract(a, 2 * block + 1, sum[1]);
}

OB_KERNEL(entries, k_entries)
{
    for (uint64_t i = ob_first(); i < a->n; i += ob_stride()) {
        const uint32_t ctr[4] = {(uint32_t)(i / 2), a->domain_tensor, 0, 0};
        uint32_t w[4];
        zo_philox(w, ctr, a->key);
        a->out[i] = zo_mod_p((uint64_t)w[i % 2 * 2 + 1] << 32 | w[i % 2 * 2]);
    }
}

OB_D uint64_t ob_magnitude(const struct k_digest *a, uint64_t i)
{
    const int64_t x = a->bits == 32 ? ((const int32_t *)a->m)[i] : ((const int64_t *)a->m)[i];
    return x < 0 ? (uint64_t)0 - (uint64_t)x : (uint64_t)x;
}

/* m x mod p; 32 bits: the sum of a row's products stays below 2^(92 + 20) and is reduced once. */
OB_D uint64_t ob_row_digest(const struct k_digest *a, uint64_t row)
{
    uint64_t sum = 0;
    __int128 wide = 0;
    for (uint64_t j = OB_THREAD; j < a->cols; j += ZO_CUDA_THREADS) {
        if (a->bits == 32)
            wide += (__int128)((const int32_t *)a->m)[row * a->cols + j] * (int64_t)a->w[j];
        else
            sum = zo_add_p(sum, zo_mul_p(zo_signed_p(((const int64_t *)a->m)[row * a->cols + j]), a->w[j]));
    }
    const unsigned __int128 up = wide < 0 ? (unsigned __int128)-wide : (unsigned __int128)wide;
    const uint64_t low = zo_mod_p((uint64_t)(up & ZO_DIGEST_P)), high = zo_mod_p((uint64_t)(up >> 61));
    const uint64_t part = zo_add_p(low, high);
    return zo_add_p(sum, wide < 0 ? zo_neg_p(part) : part);
}

OB_KERNEL(digest, k_digest)
{
    OB_SHARED uint64_t part[ZO_CUDA_THREADS];
    uint64_t sum = 0;
    if (a->w) {
        for (uint64_t row = OB_BLOCK_X; row < a->rows; row += OB_GRID_X)
            sum = zo_add_p(sum, zo_mul_p(a->u[row], ob_row_digest(a, row)));
    } else {
        for (uint64_t i = ob_first(); i < a->rows * a->cols; i += ob_stride())
            sum |= ob_magnitude(a, i);
    }
    part[OB_THREAD] = sum;
    OB_SYNC();
    for (uint32_t half = ZO_CUDA_THREADS / 2; half > 0; half /= 2) {
        if (OB_THREAD < half)
            part[OB_THREAD] = a->w ? zo_add_p(part[OB_THREAD], part[OB_THREAD + half])
                                   : part[OB_THREAD] | part[OB_THREAD + half];
        OB_SYNC();
    }
    if (OB_THREAD == 0)
        a->out[OB_BLOCK_X] = part[0];
}
#endif
