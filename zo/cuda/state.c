/* zo/cuda/state.c -- the integer state on the device: what zo/state.c, zo/fold.c and zo/digest.c do, in the same integers.
 *
 * Records are laid out class by class, each padded to whole groups of 32 with v = 0, so that a group has one coefficient
 * in every tensor.  A coefficient depends on the tensor by its exponent alone: one array per exponent in use. */
#include "zo/cuda/cuda.h"
#include "zo/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIECE = 1 << 16,          /* records uploaded at a time; 2^16 * 4064 < 2^31: sums between flushes fit int32 */
    FACTOR_BYTES = 256 << 20, /* of the +-1 factors of one product */
    EXPONENTS = 62,
    DIGEST_BLOCKS = 1024,     /* most partial sums per tensor */
};
/* Elements times records of one launch without tensor cores: a second on a small GPU.  A driver that also draws a screen ends what
 * takes several. */
static const uint64_t launch_most = (uint64_t)1 << 36;
_Static_assert((int64_t)PIECE * 4064 < INT32_MAX, "a class's sum fits int32");

static uint64_t tensor_bytes(const struct zo_tensor *t)
{
    return zo_tensor_elements(t) * (t->bits / 8);
}

enum err zo_device_push(struct zo_device *d)
{
    for (uint32_t t = 0; t < d->state->rules->n_tensors; t++)
        TRY(zo_cuda_put(d, d->m[t], d->state->m[t], tensor_bytes(&d->state->rules->tensors[t])));
    d->host_behind = false;
    return d->params ? zo_cuda_weights_refresh(d, true) : ERR_OK;
}

enum err zo_device_pull(struct zo_device *d)
{
    if (d->lost)
        return ERR_DEVICE;
    for (uint32_t t = 0; d->host_behind && t < d->state->rules->n_tensors; t++)
        TRY(zo_cuda_get(d, d->state->m[t], d->m[t], tensor_bytes(&d->state->rules->tensors[t])));
    d->host_behind = false;
    return ERR_OK;
}

static enum err allocate(struct zo_device *d)
{
    const struct zo_rules *r = d->state->rules;
    d->m = calloc((size_t)r->n_tensors + 1, sizeof *d->m);
    if (!d->m)
        return ERR_NOMEM;
    for (uint32_t t = 0; t < r->n_tensors; t++)
        TRY(zo_cuda_alloc(d, &d->m[t], tensor_bytes(&r->tensors[t])));
    return zo_device_push(d);
}

enum err zo_cuda_state_load(struct zo_device *d, struct zo_state *s, struct err_why *why)
{
    d->state = s;
    d->launch_most = launch_most;
    const enum err e = allocate(d);
    if (e == ERR_NOMEM)
        return err_set(why, e, "%s has too little memory for the parameters", d->info.name);
    return e == ERR_OK ? e : err_set(why, e, "%s: %s", d->info.name, zo_device_error(d));
}

enum err zo_device_load(struct zo_device *d, struct zo_model *m, struct zo_state *s, enum zo_device_type type,
                        enum zo_memory memory, struct err_why *why)
{
    ENSURE(!d->model && m->state == s);
    d->type = type == ZO_DEVICE_BF16 ? ZO_CUDA_BF16 : type == ZO_DEVICE_FP16 ? ZO_CUDA_FP16 : ZO_CUDA_FP32;
    if (m->c.head_dim > ZO_CUDA_HEAD_DIM)
        return err_set(why, ERR_UNSUPPORTED, "heads of %u are wider than the GPU's %d", m->c.head_dim, ZO_CUDA_HEAD_DIM);
    if (d->type == ZO_CUDA_BF16 && d->info.major < 8)
        d->type = ZO_CUDA_FP16; /* Turing has no BF16 products */
    TRY(zo_cuda_state_load(d, s, why));
    d->model = m;
    return zo_cuda_weights_load(d, memory, why);
}

/* ---- the records of a plan, padded ---- */

struct padded {
    uint32_t *lanes[4]; /* [n] */
    int8_t *v;
    uint32_t *class_of; /* [n / ZO_CUDA_GROUP] */
    size_t n;           /* a multiple of ZO_CUDA_CHUNK */
    uint8_t *memory;
};

static enum err pad(struct padded *p, const struct zo_plan *plan)
{
    size_t n = 0;
    for (size_t i = 0; i < plan->n_classes; i++)
        n += (plan->classes[i].n + ZO_CUDA_GROUP - 1) / ZO_CUDA_GROUP * ZO_CUDA_GROUP;
    n = (n + ZO_CUDA_CHUNK - 1) / ZO_CUDA_CHUNK * ZO_CUDA_CHUNK;
    *p = (struct padded){.n = n, .memory = calloc(n + 1, 4 * sizeof(uint32_t) + sizeof(uint32_t) + 1)};
    if (!p->memory)
        return ERR_NOMEM;
    for (size_t j = 0; j < 4; j++)
        p->lanes[j] = (uint32_t *)(void *)p->memory + j * n;
    p->class_of = p->lanes[3] + n;
    p->v = (int8_t *)(p->class_of + n);
    size_t at = 0;
    for (size_t i = 0; i < plan->n_classes; i++) {
        const struct zo_class *c = &plan->classes[i];
        const uint32_t *const from[4] = {plan->records.key0, plan->records.key1, plan->records.seq_lo,
                                         plan->records.seq_hi};
        for (size_t j = 0; j < 4; j++)
            memcpy(p->lanes[j] + at, from[j] + c->first, c->n * sizeof(uint32_t));
        memcpy(p->v + at, plan->records.v + c->first, c->n);
        const size_t end = at + (c->n + ZO_CUDA_GROUP - 1) / ZO_CUDA_GROUP * ZO_CUDA_GROUP;
        for (; at < end; at += ZO_CUDA_GROUP)
            p->class_of[at / ZO_CUDA_GROUP] = (uint32_t)i;
    }
    if (at < n) /* the last chunk's empty half: any class, v = 0 */
        p->class_of[at / ZO_CUDA_GROUP] = (uint32_t)plan->n_classes - 1;
    return ERR_OK;
}

struct piece {
    struct zo_cuda_records r;
    uint32_t n;                        /* records */
    const uint64_t *coef[EXPONENTS];   /* [n / group] on the device; NULL: all are 0 */
};

static enum err put_records(struct zo_device *d, struct piece *p, const struct padded *all, size_t first)
{
    uint8_t *to = d->records.p;
    for (size_t j = 0; j < 4; j++)
        TRY(zo_cuda_put(d, to + j * 4 * p->n, all->lanes[j] + first, 4 * (uint64_t)p->n));
    TRY(zo_cuda_put(d, to + (size_t)16 * p->n, all->v + first, p->n));
    const uint32_t *lanes = d->records.p;
    p->r = (struct zo_cuda_records){.key0 = lanes,
                                    .key1 = lanes + p->n,
                                    .seq_lo = lanes + 2 * (size_t)p->n,
                                    .seq_hi = lanes + 3 * (size_t)p->n,
                                    .v = (const int8_t *)(to + (size_t)16 * p->n)};
    return ERR_OK;
}

static enum err put_coefs(struct zo_device *d, struct piece *p, const struct padded *all, size_t first,
                          const struct zo_plan *plan, uint64_t *host)
{
    const size_t groups = p->n / ZO_CUDA_GROUP;
    uint64_t *to = d->coefs.p;
    memset(p->coef, 0, sizeof p->coef);
    for (uint32_t t = 0; t < plan->rules->n_tensors; t++) {
        const uint32_t e = plan->rules->tensors[t].e;
        uint64_t any = 0;
        if (p->coef[e])
            continue;
        for (size_t g = 0; g < groups; g++)
            any |= host[g] = zo_class_coef(&plan->classes[all->class_of[first / ZO_CUDA_GROUP + g]], e);
        if (any == 0)
            continue;
        TRY(zo_cuda_put(d, to + e * groups, host, groups * sizeof *host));
        p->coef[e] = to + e * groups;
    }
    return ERR_OK;
}

static uint64_t blocks_of(uint64_t n)
{
    return (n + ZO_CUDA_TILE - 1) / ZO_CUDA_TILE;
}

static bool is_tiled(const struct zo_rules *r, uint32_t t)
{
    return r->direction == ZO_RANK1 && zo_tensor_is_matrix(&r->tensors[t]);
}

bool zo_cuda_fold_copies(const struct zo_rules *r, uint32_t t)
{
    return is_tiled(r, t) && r->tensors[t].bits == 32;
}

/* Bytes of both factors of a matrix per record, and for how many of n records they are made at once. */
static uint64_t factor_bytes(const struct zo_tensor *z)
{
    return (blocks_of(zo_tensor_rows(z)) + blocks_of(zo_tensor_cols(z))) * ZO_CUDA_TILE;
}

static uint64_t factor_records(const struct zo_tensor *z, uint64_t n)
{
    const uint64_t most = FACTOR_BYTES / factor_bytes(z) / ZO_CUDA_CHUNK * ZO_CUDA_CHUNK;
    return most < ZO_CUDA_CHUNK ? ZO_CUDA_CHUNK : most > n ? n : most;
}

static enum err fold_matrix(struct zo_device *d, uint32_t t, const struct piece *p)
{
    const struct zo_tensor *z = &d->state->rules->tensors[t];
    const uint64_t rows = blocks_of(zo_tensor_rows(z)), cols = blocks_of(zo_tensor_cols(z)),
                   plain = d->launch_most / zo_tensor_elements(z) / ZO_CUDA_CHUNK * ZO_CUDA_CHUNK;
    uint64_t most = factor_records(z, p->n);
    if (z->bits == 64 && plain < most)
        most = plain > 0 ? plain : ZO_CUDA_CHUNK;
    for (uint32_t first = 0; first < p->n; first += (uint32_t)most) {
        const uint32_t n = p->n - first < most ? p->n - first : (uint32_t)most;
        int8_t *fa = d->factors.p, *fb = fa + rows * ZO_CUDA_TILE * n;
        const struct k_expand x = {
            .r = p->r,
            .first = first,
            .n = n,
            .side = {{.domain_tensor = (uint32_t)ZO_DOMAIN_A << 24 | t, .n_blocks = (uint32_t)rows, .weighted = 1, .out = fa},
                     {.domain_tensor = (uint32_t)ZO_DOMAIN_B << 24 | t, .n_blocks = (uint32_t)cols, .out = fb}}};
        TRY(zo_cuda_launch_n(d, ZO_CUDA_K_expand, (rows > cols ? rows : cols) * n, 2, &x));
        const struct k_fold_tile f = {.m = d->m[t],
                                      .bits = z->bits,
                                      .rows = zo_tensor_rows(z),
                                      .cols = zo_tensor_cols(z),
                                      .a = fa,
                                      .b = fb,
                                      .n = n,
                                      .coef = p->coef[z->e] + first / ZO_CUDA_GROUP,
                                      .copy = d->copies ? d->copies[t] : NULL,
                                      .type = d->type,
                                      .scale = ldexpf(1.0f, -(int)z->e)};
        if (z->bits == 64)
            TRY(zo_cuda_launch_n(d, ZO_CUDA_K_fold_tile64, f.rows * f.cols, 1, &f));
        else
            TRY(zo_cuda_launch(d, ZO_CUDA_K_fold_tile, cols, (uint32_t)rows, 0, &f));
    }
    return ERR_OK;
}

static struct zo_cuda_records records_from(const struct zo_cuda_records *r, uint32_t first)
{
    return (struct zo_cuda_records){.key0 = r->key0 + first, .key1 = r->key1 + first, .seq_lo = r->seq_lo + first,
                                    .seq_hi = r->seq_hi + first, .v = r->v + first};
}

static enum err fold_elements(struct zo_device *d, uint32_t t, const struct piece *p)
{
    const struct zo_tensor *z = &d->state->rules->tensors[t];
    const bool gauss = d->state->rules->direction == ZO_GAUSSIAN;
    const uint64_t per = gauss ? 2 * ZO_CUDA_THREADS : 8 * ZO_CUDA_THREADS, n = zo_tensor_elements(z), /* per: elements of a block */
                   most = d->launch_most / ZO_CUDA_GROUP / n;
    const uint32_t n_groups = p->n / ZO_CUDA_GROUP, step = most == 0 ? 1 : most < n_groups ? (uint32_t)most : n_groups;
    for (uint32_t first = 0; first < n_groups; first += step) {
        const struct k_fold_dense f = {.m = d->m[t],
                                       .bits = z->bits,
                                       .domain_tensor =
                                           (uint32_t)(gauss ? ZO_DOMAIN_GAUSS : ZO_DOMAIN_DENSE) << 24 | t,
                                       .n = n,
                                       .r = records_from(&p->r, first * ZO_CUDA_GROUP),
                                       .n_groups = n_groups - first < step ? n_groups - first : step,
                                       .coef = p->coef[z->e] + first};
        TRY(zo_cuda_launch(d, gauss ? ZO_CUDA_K_fold_gauss : ZO_CUDA_K_fold_signs, (n + per - 1) / per, 1, 0, &f));
    }
    return ERR_OK;
}

static enum err fold_padded(struct zo_device *d, const struct padded *all, const struct zo_plan *plan, uint64_t *host)
{
    const struct zo_rules *r = plan->rules;
    for (size_t first = 0; first < all->n; first += PIECE) {
        struct piece p = {.n = (uint32_t)(all->n - first < PIECE ? all->n - first : PIECE)};
        TRY(put_records(d, &p, all, first));
        TRY(put_coefs(d, &p, all, first, plan, host));
        for (uint32_t t = 0; t < r->n_tensors; t++)
            if (p.coef[r->tensors[t].e])
                TRY((is_tiled(r, t) ? fold_matrix : fold_elements)(d, t, &p));
    }
    return ERR_OK;
}

/* All that a fold of n padded records needs, before anything is folded. */
static enum err reserve(struct zo_device *d, const struct zo_rules *r, size_t n)
{
    const uint64_t most = n < PIECE ? n : PIECE;
    uint64_t factors = 0;
    for (uint32_t t = 0; t < r->n_tensors; t++) {
        const uint64_t need = is_tiled(r, t) ? factor_bytes(&r->tensors[t]) * factor_records(&r->tensors[t], most) : 0;
        factors = need > factors ? need : factors;
    }
    TRY(zo_cuda_grow(d, &d->records, most * 17));
    TRY(zo_cuda_grow(d, &d->coefs, most / ZO_CUDA_GROUP * EXPONENTS * sizeof(uint64_t)));
    return zo_cuda_grow(d, &d->factors, factors);
}

enum err zo_device_fold(struct zo_device *d, const struct zo_fold *folds, size_t n)
{
    struct zo_plan plan;
    struct padded all = {0};
    TRY(zo_plan_new(&plan, d->state->rules, folds, n));
    enum err e = plan.n_records > 0 ? pad(&all, &plan) : ERR_OK;
    uint64_t *host = calloc(PIECE / ZO_CUDA_GROUP, sizeof *host);
    if (!host)
        e = ERR_NOMEM;
    if (e == ERR_OK && plan.n_records > 0)
        e = reserve(d, plan.rules, all.n);
    if (e == ERR_OK && plan.n_records > 0) {
        e = fold_padded(d, &all, &plan, host);
        d->host_behind = true;
        d->lost = d->lost || e != ERR_OK; /* half a fold is no state */
    }
    free(host);
    free(all.memory);
    zo_plan_free(&plan);
    if (e != ERR_OK)
        return d->lost ? ERR_DEVICE : e;
    return d->params ? zo_cuda_weights_refresh(d, false) : ERR_OK;
}

/* ---- digest, headroom ---- */

static enum err sum_tensor(struct zo_device *d, uint32_t t, uint32_t blocks, bool digest)
{
    const struct zo_tensor *z = &d->state->rules->tensors[t];
    const bool matrix = zo_tensor_is_matrix(z);
    const uint64_t rows = zo_tensor_rows(z), cols = zo_tensor_cols(z);
    uint64_t *sums = d->sums.p, *u = sums + (size_t)d->state->rules->n_tensors * blocks, *w = u + rows;
    struct k_digest k = {.m = d->m[t], .bits = z->bits, .rows = rows, .cols = cols, .out = sums + (size_t)t * blocks};
    if (digest) {
        struct k_entries x = {.key = {d->state->digest_key[0], d->state->digest_key[1]}};
        x.domain_tensor = (uint32_t)ZO_DOMAIN_DIGEST_U << 24 | t;
        x.n = rows;
        x.out = u;
        TRY(zo_cuda_launch_n(d, ZO_CUDA_K_entries, x.n, 1, &x));
        x.domain_tensor = (uint32_t)ZO_DOMAIN_DIGEST_W << 24 | t;
        x.n = cols;
        x.out = w;
        TRY(zo_cuda_launch_n(d, ZO_CUDA_K_entries, x.n, 1, &x));
        k.u = matrix ? u : w; /* a vector is one long row here: sum m_i u_i, times w_0 */
        k.w = matrix ? w : u;
        if (!matrix) {
            k.rows = 1;
            k.cols = rows;
        }
    }
    return zo_cuda_launch(d, ZO_CUDA_K_digest, blocks, 1, 0, &k);
}

/* sums [n_tensors][blocks] on the host; the caller frees. */
static enum err sum_tensors(struct zo_device *d, bool digest, uint64_t **sums, uint32_t *blocks)
{
    const struct zo_rules *r = d->state->rules;
    uint64_t longest = 0;
    *blocks = zo_cuda_busy(d) < DIGEST_BLOCKS ? zo_cuda_busy(d) : DIGEST_BLOCKS;
    for (uint32_t t = 0; t < r->n_tensors; t++) {
        const uint64_t n = zo_tensor_rows(&r->tensors[t]) + zo_tensor_cols(&r->tensors[t]);
        longest = n > longest ? n : longest;
    }
    const uint64_t n = (uint64_t)r->n_tensors * *blocks;
    TRY(zo_cuda_grow(d, &d->sums, (n + longest) * sizeof(uint64_t)));
    for (uint32_t t = 0; t < r->n_tensors; t++)
        TRY(sum_tensor(d, t, *blocks, digest));
    *sums = calloc(n + 1, sizeof **sums);
    if (!*sums)
        return ERR_NOMEM;
    const enum err e = zo_cuda_get(d, *sums, d->sums.p, n * sizeof **sums);
    if (e != ERR_OK)
        free(*sums);
    return e;
}

enum err zo_device_digest(struct zo_device *d, uint64_t *digest)
{
    uint64_t *sums = NULL, sum = 0;
    uint32_t blocks = 0;
    TRY(sum_tensors(d, true, &sums, &blocks));
    for (size_t i = 0; i < (size_t)d->state->rules->n_tensors * blocks; i++)
        sum = zo_add_p(sum, sums[i]);
    free(sums);
    *digest = sum;
    return ERR_OK;
}

enum err zo_device_headroom(struct zo_device *d, int64_t *tensor)
{
    const struct zo_rules *r = d->state->rules;
    uint64_t *sums = NULL;
    uint32_t blocks = 0;
    TRY(sum_tensors(d, false, &sums, &blocks));
    *tensor = -1;
    for (uint32_t t = 0; t < r->n_tensors && *tensor < 0; t++) {
        uint64_t bits = 0;
        for (uint32_t b = 0; b < blocks; b++)
            bits |= sums[(size_t)t * blocks + b];
        if (bits >> (r->tensors[t].bits - 2) != 0)
            *tensor = t;
    }
    free(sums);
    return ERR_OK;
}
