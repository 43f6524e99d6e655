/* zo/cuda/attend_mma_body.cuh -- attention on tensor cores for heads up to OB_DK wide: see attend.cuh.
 *
 * q (128 rows), k (64 rows) and v transposed lie in shared memory in the short type, two to a word, zeros beyond the head; rows
 * are 8 elements longer, so that the eight rows of a fragment start in different banks.  A warp owns 16 queries: its scores
 * are the C fragments of q k^T, and, rounded, the A fragments of p v as they lie. */
#define OB_NAME(x) OB_JOIN3(x##_, mma, OB_DK)
#define OB_LQ ((OB_DK + 8) / 2) /* words of a row of q or k */
#define OB_LV ((64 + 8) / 2)    /* words of a row of v^T: keys */

/* Rows first .. of q or k. */
OB_D void OB_NAME(rows)(const struct k_attend *a, const struct k_attend_item *it, uint32_t *to, uint32_t first, uint32_t n,
                        uint64_t place)
{
    for (uint32_t i = OB_THREAD; i < n * (OB_DK / 2); i += ZO_CUDA_THREADS) {
        const uint32_t j = i / (OB_DK / 2), c = i % (OB_DK / 2) * 2;
        float x = 0.0f, y = 0.0f;
        if (first + j < it->n && c < a->head_dim) {
            const float *from = a->qkv + ob_key_row(it, first + j) * a->width + place + c;
            x = from[0];
            y = c + 1 < a->head_dim ? from[1] : 0.0f;
        }
        to[j * OB_LQ + c / 2] = ob_pack2(x, y, a->type);
    }
}

/* 64 rows of v as columns. */
OB_D void OB_NAME(columns)(const struct k_attend *a, const struct k_attend_item *it, uint32_t *to, uint32_t first,
                           uint64_t place)
{
    for (uint32_t i = OB_THREAD; i < 32 * OB_DK; i += ZO_CUDA_THREADS) {
        const uint32_t c = i % OB_DK, j = i / OB_DK * 2;
        float x = 0.0f, y = 0.0f;
        if (c < a->head_dim && first + j < it->n)
            x = a->qkv[ob_key_row(it, first + j) * a->width + place + c];
        if (c < a->head_dim && first + j + 1 < it->n)
            y = a->qkv[ob_key_row(it, first + j + 1) * a->width + place + c];
        to[c * OB_LV + j / 2] = ob_pack2(x, y, a->type);
    }
}

/* s <- the warp's 16 x 64 scores; what a query does not see is minus infinity. */
OB_D void OB_NAME(scores)(const struct k_attend *a, const struct k_attend_item *it, const uint32_t *q, const uint32_t *k,
                          uint32_t row, uint32_t k0, float s[8][4])
{
    const uint32_t g = OB_THREAD % 32 / 4, t = OB_THREAD % 4;
    OB_UNROLL
    for (uint32_t j = 0; j < 8; j++) {
        OB_UNROLL
        for (uint32_t e = 0; e < 4; e++)
            s[j][e] = 0.0f;
    }
    OB_UNROLL
    for (uint32_t c = 0; c < OB_DK / 2; c += 8) {
        const uint32_t *qa = q + row * OB_LQ + c + t, *qb = qa + 8 * OB_LQ, fa[4] = {qa[0], qb[0], qa[4], qb[4]};
        OB_UNROLL
        for (uint32_t j = 0; j < 8; j++) {
            const uint32_t *kb = k + (j * 8 + g) * OB_LQ + c + t, fb[2] = {kb[0], kb[4]};
            ob_mma_16(s[j], fa, fb, a->type);
        }
    }
    OB_UNROLL
    for (uint32_t j = 0; j < 8; j++) {
        OB_UNROLL
        for (uint32_t e = 0; e < 4; e++) {
            float y = a->scale * s[j][e];
            if (a->cap > 0.0f)
                y = a->cap * tanhf(y / a->cap);
            s[j][e] = ob_sees(a, it, it->q0 + row + e / 2 * 8, k0 + j * 8 + 2 * t + e % 2) ? y : -INFINITY;
        }
    }
}

/* s <- exp(s - new maximum) of rows g (half 0) and g + 8; top, sum (this lane's part) and out corrected. */
OB_D void OB_NAME(soften)(float s[8][4], float top[2], float sum[2], float out[OB_DK / 8][4])
{
    OB_UNROLL
    for (uint32_t h = 0; h < 2; h++) {
        const float before = top[h];
        OB_UNROLL
        for (uint32_t j = 0; j < 8; j++) {
            top[h] = s[j][2 * h] > top[h] ? s[j][2 * h] : top[h];
            top[h] = s[j][2 * h + 1] > top[h] ? s[j][2 * h + 1] : top[h];
        }
        top[h] = ob_quad_max(top[h]);
        const float base = top[h] == -INFINITY ? 0.0f : top[h], fix = expf(before - base);
        sum[h] *= fix;
        OB_UNROLL
        for (uint32_t j = 0; j < 8; j++) {
            OB_UNROLL
            for (uint32_t e = 2 * h; e < 2 * h + 2; e++) {
                s[j][e] = expf(s[j][e] - base);
                sum[h] += s[j][e];
            }
        }
        OB_UNROLL
        for (uint32_t c = 0; c < OB_DK / 8; c++) {
            out[c][2 * h] *= fix;
            out[c][2 * h + 1] *= fix;
        }
    }
}

/* out += p v */
OB_D void OB_NAME(gather)(const struct k_attend *a, const uint32_t *v, float s[8][4], float out[OB_DK / 8][4])
{
    const uint32_t g = OB_THREAD % 32 / 4, t = OB_THREAD % 4;
    OB_UNROLL
    for (uint32_t j = 0; j < 4; j++) { /* sixteen keys */
        const float *x = s[2 * j], *y = s[2 * j + 1];
        const uint32_t fa[4] = {ob_pack2(x[0], x[1], a->type), ob_pack2(x[2], x[3], a->type), ob_pack2(y[0], y[1], a->type),
                                ob_pack2(y[2], y[3], a->type)};
        OB_UNROLL
        for (uint32_t c = 0; c < OB_DK / 8; c++) {
            const uint32_t *vb = v + (c * 8 + g) * OB_LV + j * 8 + t, fb[2] = {vb[0], vb[4]};
            ob_mma_16(out[c], fa, fb, a->type);
        }
    }
}

OB_KERNEL(OB_NAME(attend), k_attend)
{
    const struct k_attend_item *it = &a->items[OB_BLOCK_X];
    const uint32_t head = OB_BLOCK_Y, row = OB_THREAD / 32 * 16 + OB_THREAD % 32 / 4, d = a->head_dim;
    uint32_t *q = (uint32_t *)(void *)ob_dynamic(), *k = q + 128 * OB_LQ, *v = k + 64 * OB_LQ;
    float out[OB_DK / 8][4] = {{0.0f}}, s[8][4], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f};
    const uint32_t last = it->q0 + 128 < it->n ? it->q0 + 128 : it->n, end = a->causal ? last : it->n;
    const uint32_t begin = a->causal && a->window > 0 && it->q0 + 1 > a->window ? it->q0 + 1 - a->window : 0;
    OB_NAME(rows)(a, it, q, it->q0, 128, ob_place(a, head, 0));
    for (uint32_t k0 = begin; k0 < end; k0 += 64) {
        OB_SYNC(); /* the last tile was read */
        OB_NAME(rows)(a, it, k, k0, 64, ob_place(a, head, 1));
        OB_NAME(columns)(a, it, v, k0, ob_place(a, head, 2));
        OB_SYNC();
        OB_NAME(scores)(a, it, q, k, row, k0, s);
        OB_NAME(soften)(s, top, sum, out);
        OB_NAME(gather)(a, v, s, out);
    }
    OB_UNROLL
    for (uint32_t h = 0; h < 2; h++) {
        const float total = ob_quad_sum(sum[h]);
        const uint32_t at = it->q0 + row + 8 * h;
        OB_UNROLL
        for (uint32_t c = 0; c < OB_DK / 8; c++) {
            OB_UNROLL
            for (uint32_t e = 0; e < 2; e++) {
                const uint32_t col = c * 8 + OB_THREAD % 4 * 2 + e;
                if (at < it->n && col < d)
                    ob_store(a->out, (ob_key_row(it, at) * a->heads + head) * d + col, out[c][2 * h + e] / total, a->type);
            }
        }
    }
}
#undef OB_LV
#undef OB_LQ
#undef OB_NAME
