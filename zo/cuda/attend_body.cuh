/* zo/cuda/attend_body.cuh -- one size of the attention kernel: see attend.cuh.  OB_T queries and keys per tile, OB_C
 * sixteenths of a head. */
#define OB_R (OB_T / 16)
#define OB_NAME(x) OB_JOIN3(x##_, OB_T, OB_C)

/* Where the pieces lie in shared memory; rows of q and k are one longer than a head, so that columns change banks. */
struct OB_NAME(tile) {
    float *q, *k, *s, *red, *top, *sum, *fix; /* v takes the place of k */
};

OB_D void OB_NAME(load_rows)(const struct k_attend *a, const struct k_attend_item *it, float *to, uint32_t ld, uint32_t first,
                             uint64_t place)
{
    for (uint32_t i = OB_THREAD; i < OB_T * a->head_dim; i += ZO_CUDA_THREADS) {
        const uint32_t j = i / a->head_dim, c = i % a->head_dim;
        to[j * ld + c] =
            first + j < it->n ? a->qkv[ob_key_row(it, first + j) * a->width + place + c] : 0.0f;
    }
}

/* s <- the tile's scores; what a query does not see is minus infinity. */
OB_D void OB_NAME(scores)(const struct k_attend *a, const struct k_attend_item *it, const struct OB_NAME(tile) * t,
                          uint32_t k0)
{
    const uint32_t ty = OB_THREAD / 16, tx = OB_THREAD % 16, d = a->head_dim;
    float acc[OB_R][OB_R] = {{0.0f}};
    for (uint32_t c = 0; c < d; c++) {
        float q[OB_R], k[OB_R];
        OB_UNROLL
        for (uint32_t i = 0; i < OB_R; i++) {
            q[i] = t->q[(ty * OB_R + i) * (d + 1) + c];
            k[i] = t->k[(tx + 16 * i) * (d + 1) + c];
        }
        OB_UNROLL
        for (uint32_t i = 0; i < OB_R; i++) {
            OB_UNROLL
            for (uint32_t j = 0; j < OB_R; j++)
                acc[i][j] += q[i] * k[j];
        }
    }
    OB_UNROLL
    for (uint32_t i = 0; i < OB_R; i++) {
        OB_UNROLL
        for (uint32_t j = 0; j < OB_R; j++) {
            const uint32_t row = ty * OB_R + i, col = tx + 16 * j;
            float y = a->scale * acc[i][j];
            if (a->cap > 0.0f)
                y = a->cap * tanhf(y / a->cap);
            t->s[row * (OB_T + 1) + col] = ob_sees(a, it, it->q0 + row, k0 + col) ? y : -INFINITY;
        }
    }
}

/* s <- exp(s - new maximum); sum, top and the factor for what was summed before. */
OB_D void OB_NAME(soften)(const struct OB_NAME(tile) * t)
{
    const uint32_t per = ZO_CUDA_THREADS / OB_T, row = OB_THREAD / per, part = OB_THREAD % per;
    float *s = t->s + row * (OB_T + 1), top = t->top[row], sum = 0.0f;
    const float before = top;
    for (uint32_t j = part; j < OB_T; j += per)
        top = s[j] > top ? s[j] : top;
    t->red[OB_THREAD] = top;
    OB_SYNC();
    for (uint32_t j = 0; j < per; j++)
        top = t->red[row * per + j] > top ? t->red[row * per + j] : top;
    const float base = top == -INFINITY ? 0.0f : top; /* nothing seen yet */
    for (uint32_t j = part; j < OB_T; j += per) {
        s[j] = expf(s[j] - base);
        sum += s[j];
    }
    OB_SYNC(); /* red was read */
    t->red[OB_THREAD] = sum;
    OB_SYNC();
    if (part == 0) {
        for (uint32_t j = 1; j < per; j++)
            sum += t->red[row * per + j];
        t->fix[row] = expf(before - base);
        t->sum[row] = t->sum[row] * t->fix[row] + sum;
        t->top[row] = top;
    }
    OB_SYNC();
}

OB_D void OB_NAME(gather)(const struct k_attend *a, const struct OB_NAME(tile) * t, float out[OB_R][OB_C])
{
    const uint32_t ty = OB_THREAD / 16, tx = OB_THREAD % 16, d = a->head_dim;
    OB_UNROLL
    for (uint32_t i = 0; i < OB_R; i++) {
        const float fix = t->fix[ty * OB_R + i];
        OB_UNROLL
        for (uint32_t c = 0; c < OB_C; c++)
            out[i][c] *= fix;
    }
    for (uint32_t j = 0; j < OB_T; j++) {
        float p[OB_R], v[OB_C];
        OB_UNROLL
        for (uint32_t i = 0; i < OB_R; i++)
            p[i] = t->s[(ty * OB_R + i) * (OB_T + 1) + j];
        OB_UNROLL
        for (uint32_t c = 0; c < OB_C; c++)
            v[c] = tx + 16 * c < d ? t->k[j * (d + 1) + tx + 16 * c] : 0.0f;
        OB_UNROLL
        for (uint32_t i = 0; i < OB_R; i++) {
            OB_UNROLL
            for (uint32_t c = 0; c < OB_C; c++)
                out[i][c] += p[i] * v[c];
        }
    }
}

OB_D void OB_NAME(write)(const struct k_attend *a, const struct k_attend_item *it, const struct OB_NAME(tile) * t,
                         uint32_t head, float out[OB_R][OB_C])
{
    const uint32_t ty = OB_THREAD / 16, tx = OB_THREAD % 16, d = a->head_dim;
    OB_UNROLL
    for (uint32_t i = 0; i < OB_R; i++) {
        const uint32_t q = it->q0 + ty * OB_R + i;
        OB_UNROLL
        for (uint32_t c = 0; c < OB_C; c++)
            if (q < it->n && tx + 16 * c < d)
                ob_store(a->out, (ob_key_row(it, q) * a->heads + head) * d + tx + 16 * c,
                         out[i][c] / t->sum[ty * OB_R + i], a->type);
    }
}

OB_KERNEL(OB_NAME(attend), k_attend)
{
    const struct k_attend_item *it = &a->items[OB_BLOCK_X];
    const uint32_t head = OB_BLOCK_Y, d = a->head_dim;
    struct OB_NAME(tile) t;
    float out[OB_R][OB_C] = {{0.0f}};
    t.q = ob_dynamic();
    t.k = t.q + OB_T * (d + 1);
    t.s = t.k + OB_T * (d + 1);
    t.red = t.s + OB_T * (OB_T + 1);
    t.top = t.red + ZO_CUDA_THREADS;
    t.sum = t.top + OB_T;
    t.fix = t.sum + OB_T;
    if (OB_THREAD < OB_T) {
        t.top[OB_THREAD] = -INFINITY;
        t.sum[OB_THREAD] = 0.0f;
    }
    const uint32_t last = it->q0 + OB_T < it->n ? it->q0 + OB_T : it->n, end = a->causal ? last : it->n;
    const uint32_t begin = a->causal && a->window > 0 && it->q0 + 1 > a->window ? it->q0 + 1 - a->window : 0;
    OB_NAME(load_rows)(a, it, t.q, d + 1, it->q0, ob_place(a, head, 0));
    for (uint32_t k0 = begin; k0 < end; k0 += OB_T) {
        OB_SYNC(); /* the last tile was read */
        OB_NAME(load_rows)(a, it, t.k, d + 1, k0, ob_place(a, head, 1));
        OB_SYNC();
        OB_NAME(scores)(a, it, &t, k0);
        OB_SYNC();
        OB_NAME(load_rows)(a, it, t.k, d + 1, k0, ob_place(a, head, 2));
        OB_NAME(soften)(&t); /* ends with a barrier */
        OB_NAME(gather)(a, &t, out);
    }
    OB_NAME(write)(a, it, &t, head, out);
}
#undef OB_R
#undef OB_NAME
