/* zo/digest.c -- u^T M w mod p = 2^61 - 1: the digest, what records add to it, and Freivalds'
 * check.
 *
 * u and w of tensor t: streams digest-u, digest-w of a key; entry i = (word 2i + 2^32 word 2i+1)
 * mod p.  A vector is a column: sum m_i u_i w_0.  The digest's key is public, the check's secret:
 * the same sums.  Source: SPEC 7. */
#include <onebyte/zo/state.h>

#include "zo/plan.h"

#include <stdatomic.h>
#include <string.h>

enum { BATCH = 128 }; /* records whose dot products are kept at a time */

struct vectors {
    struct zo_stream u, w;
};

static struct vectors vectors_of(const uint32_t key[2], uint32_t t)
{
    return (struct vectors){zo_stream(key, ZO_DOMAIN_DIGEST_U, t, 0),
                            zo_stream(key, ZO_DOMAIN_DIGEST_W, t, 0)};
}

/* x [n] <- entries first .. first + n - 1; first even, n <= ZO_LIMBS. */
static void entries(uint64_t *x, const struct zo_stream *s, uint64_t first, size_t n,
                    const struct zo_kernels *k)
{
    uint32_t words[2 * ZO_LIMBS + 2];
    ENSURE(n <= ZO_LIMBS && first % 2 == 0);
    k->words(words, s, (uint32_t)(first / 2), (n + 1) / 2);
    for (size_t i = 0; i < n; i++)
        x[i] = zo_mod_p((uint64_t)words[2 * i + 1] << 32 | words[2 * i]);
}

static void limbs(struct zo_limbs *l, const struct zo_stream *s, uint64_t first, size_t n,
                  const struct zo_kernels *k)
{
    uint64_t x[ZO_LIMBS];
    entries(x, s, first, n, k);
    for (size_t i = 0; i < n; i++) {
        l->l[0][i] = (uint32_t)(x[i] & 0x1fffff);
        l->l[1][i] = (uint32_t)(x[i] >> 21 & 0x1fffff);
        l->l[2][i] = (uint32_t)(x[i] >> 42);
    }
}

static size_t upto(uint64_t rest, size_t most)
{
    return rest < most ? (size_t)rest : most;
}

/* sum m_i x_i of 64-bit entries, whose products need all of 128 bits. */
static uint64_t dot64(const int64_t *m, const struct zo_limbs *l, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        const uint64_t x = l->l[0][i] | (uint64_t)l->l[1][i] << 21 | (uint64_t)l->l[2][i] << 42;
        sum = zo_add_p(sum, zo_mul_p(zo_signed_p(m[i]), x));
    }
    return sum;
}

static uint64_t dot(const struct zo_state *s, uint32_t t, uint64_t first, const struct zo_limbs *l,
                    size_t n, const struct zo_kernels *k)
{
    if (s->rules->tensors[t].bits == 32)
        return k->dot32((const int32_t *)s->m[t] + first, l->l[0], n);
    return dot64((const int64_t *)s->m[t] + first, l, n);
}

/* A column: its entries along u, times w_0. */
static uint64_t column_value(const struct zo_state *s, uint32_t t, const struct vectors *v,
                             const struct zo_kernels *k)
{
    const uint64_t n = zo_tensor_elements(&s->rules->tensors[t]);
    struct zo_limbs l;
    uint64_t w0, sum = 0;
    entries(&w0, &v->w, 0, 1, k);
    for (uint64_t at = 0; at < n; at += ZO_LIMBS) {
        const size_t now = upto(n - at, ZO_LIMBS);
        limbs(&l, &v->u, at, now, k);
        sum = zo_add_p(sum, dot(s, t, at, &l, now, k));
    }
    return zo_mul_p(sum, w0);
}

/* Rows row .. row + n - 1 of a matrix against the limbs of columns col .. col + n_cols - 1. */
static uint64_t rows_value(const struct zo_state *s, uint32_t t, uint64_t row, size_t n,
                           uint64_t col, size_t n_cols, const uint64_t *u, const struct zo_limbs *l,
                           const struct zo_kernels *k)
{
    const uint64_t cols = zo_tensor_cols(&s->rules->tensors[t]);
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum = zo_add_p(sum, zo_mul_p(u[i], dot(s, t, (row + i) * cols + col, l, n_cols, k)));
    return sum;
}

static uint64_t tensor_value(const struct zo_state *s, uint32_t t, const uint32_t key[2],
                             const struct zo_kernels *k)
{
    const struct zo_tensor *tensor = &s->rules->tensors[t];
    const struct vectors v = vectors_of(key, t);
    const uint64_t rows = zo_tensor_rows(tensor), cols = zo_tensor_cols(tensor);
    struct zo_limbs l;
    uint64_t u[ZO_LIMBS], sum = 0;
    if (!zo_tensor_is_matrix(tensor))
        return column_value(s, t, &v, k);
    for (uint64_t col = 0; col < cols; col += ZO_LIMBS) {
        const size_t n_cols = upto(cols - col, ZO_LIMBS);
        limbs(&l, &v.w, col, n_cols, k);
        for (uint64_t row = 0; row < rows; row += ZO_LIMBS) {
            const size_t n = upto(rows - row, ZO_LIMBS);
            entries(u, &v.u, row, n, k);
            sum = zo_add_p(sum, rows_value(s, t, row, n, col, n_cols, u, &l, k));
        }
    }
    return sum;
}

/* dots [n] <- sum over i < length of (sign i of record r) x_i, for n <= BATCH records from `at` on.
 */
static void dot_records(uint64_t *dots, const struct zo_plan *p, size_t at, size_t n,
                        uint32_t domain_tensor, const struct zo_stream *x, uint64_t length,
                        const struct zo_kernels *k)
{
    const struct zo_records *r = &p->records;
    uint32_t words[ZO_LIMBS / 32], ones[ZO_LIMBS / 32];
    struct zo_limbs l;
    memset(ones, 0xff, sizeof ones);
    memset(dots, 0, n * sizeof *dots);
    for (uint64_t first = 0; first < length; first += ZO_LIMBS) {
        const size_t now = upto(length - first, ZO_LIMBS);
        limbs(&l, x, first, now, k);
        const uint64_t less =
            zo_neg_p(k->dot_bits(ones, l.l[0], now)); /* sum +-x = 2 (sum of x where +) - sum x */
        for (size_t i = 0; i < n; i++) {
            const struct zo_stream s = {.key = {r->key0[at + i], r->key1[at + i]},
                                        .domain_tensor = domain_tensor,
                                        .seq =
                                            (uint64_t)r->seq_hi[at + i] << 32 | r->seq_lo[at + i]};
            k->words(words, &s, (uint32_t)(first / 128), (now + 127) / 128);
            const uint64_t plus = k->dot_bits(words, l.l[0], now);
            dots[i] = zo_add_p(dots[i], zo_add_p(zo_add_p(plus, plus), less));
        }
    }
}

/* sum of v (a.u)(b.w) over a run of records. */
static uint64_t run_rank1(const struct zo_plan *p, uint32_t t, const struct zo_run *run,
                          const struct vectors *v, const struct zo_kernels *k)
{
    const struct zo_tensor *tensor = &p->rules->tensors[t];
    uint64_t au[BATCH], bw[BATCH], sum = 0;
    for (size_t done = 0; done < run->n;) {
        const size_t at = run->first + done, now = upto(run->n - done, BATCH);
        dot_records(au, p, at, now, (uint32_t)ZO_DOMAIN_A << 24 | t, &v->u, zo_tensor_rows(tensor),
                    k);
        dot_records(bw, p, at, now, (uint32_t)ZO_DOMAIN_B << 24 | t, &v->w, zo_tensor_cols(tensor),
                    k);
        for (size_t i = 0; i < now; i++)
            sum =
                zo_add_p(sum, zo_mul_p(zo_signed_p(p->records.v[at + i]), zo_mul_p(au[i], bw[i])));
        done += now;
    }
    return sum;
}

/* sum acc_e u_i w_j over a chunk of elements e = i cols + j from `first` on.  *w_from: the columns
 * whose limbs l holds; every piece of a row within one window of ZO_LIMBS columns is one dot
 * product. */
static uint64_t chunk_value(const int32_t *acc, uint64_t first, size_t n, uint64_t cols,
                            const struct vectors *v, struct zo_limbs *l, uint64_t *w_from,
                            const struct zo_kernels *k)
{
    uint64_t sum = 0, u[2];
    for (size_t done = 0; done < n;) {
        const uint64_t row = (first + done) / cols, col = (first + done) % cols,
                       window = col / ZO_LIMBS * ZO_LIMBS;
        const size_t width = upto(cols - window, ZO_LIMBS);
        const size_t now = upto(window + width - col, n - done);
        if (*w_from != window) {
            limbs(l, &v->w, window, width, k);
            *w_from = window;
        }
        entries(u, &v->u, row / 2 * 2, 2, k);
        sum = zo_add_p(sum,
                       zo_mul_p(u[row % 2], k->dot32(acc + done, l->l[0] + (col - window), now)));
        done += now;
    }
    return sum;
}

/* sum of v z_ij u_i w_j over a run of records of a dense kind: their sum first, then one dot
 * product. */
static uint64_t run_dense(const struct zo_plan *p, uint32_t t, const struct zo_run *run,
                          const struct vectors *v, const struct zo_kernels *k)
{
    const struct zo_tensor *tensor = &p->rules->tensors[t];
    const uint64_t n = zo_tensor_elements(tensor), cols = zo_tensor_cols(tensor);
    int32_t acc[ZO_DENSE_CHUNK];
    struct zo_limbs l;
    uint64_t sum = 0, w_from = UINT64_MAX, w0;
    entries(&w0, &v->w, 0, 1, k);
    for (uint64_t first = 0; first < n; first += ZO_DENSE_CHUNK) {
        const size_t now = upto(n - first, ZO_DENSE_CHUNK);
        for (size_t done = 0; done < run->n; done += upto(run->n - done, 1 << 18)) {
            zo_fold_chunk(acc, p, t, first, run->first + done, upto(run->n - done, 1 << 18), k);
            if (zo_tensor_is_matrix(tensor)) {
                sum = zo_add_p(sum, chunk_value(acc, first, now, cols, v, &l, &w_from, k));
            } else {
                limbs(&l, &v->u, first, now, k);
                sum = zo_add_p(sum, zo_mul_p(w0, k->dot32(acc, l.l[0], now)));
            }
        }
    }
    return sum;
}

/* What the planned records add to the value of tensor t: minus sum v L ... */
static uint64_t tensor_delta(const struct zo_plan *p, uint32_t t, const uint32_t key[2],
                             const struct zo_kernels *k)
{
    const bool rank1 =
        p->rules->direction == ZO_RANK1 && zo_tensor_is_matrix(&p->rules->tensors[t]);
    const struct vectors v = vectors_of(key, t);
    uint64_t sum = 0;
    for (struct zo_run run = {0}; zo_plan_next(p, t, &run);)
        sum = zo_add_p(
            sum, zo_mul_p(zo_mod_p(run.coef), (rank1 ? run_rank1 : run_dense)(p, t, &run, &v, k)));
    return zo_neg_p(sum);
}

struct job {
    const struct zo_state *s;
    const struct zo_plan *plan; /* NULL: values of the state */
    const uint32_t *key;
    const struct zo_kernels *k;
    const uint64_t *expected; /* [n_tensors]: values of the base */
    uint64_t *values;         /* [n_tensors], or NULL: only the sum */
    atomic_uint_fast64_t sum;
    atomic_uint_fast32_t wrong; /* the first tensor that is not as expected */
};

static void sum_item(void *ctx, size_t i, size_t worker)
{
    struct job *j = ctx;
    const uint32_t t = (uint32_t)i;
    const uint64_t x =
        j->plan ? tensor_delta(j->plan, t, j->key, j->k) : tensor_value(j->s, t, j->key, j->k);
    uint_fast64_t before = atomic_load(&j->sum);
    (void)worker;
    if (j->values)
        j->values[t] = x;
    while (!atomic_compare_exchange_weak(&j->sum, &before, zo_add_p(before, x))) {
    }
}

uint64_t zo_state_digest(const struct zo_state *s, const struct zo_kernels *k, struct zo_pool *pool)
{
    struct job j = {.s = s, .key = s->digest_key, .k = k};
    zo_pool_run(pool, s->rules->n_tensors, sum_item, &j);
    return atomic_load(&j.sum);
}

uint64_t zo_state_digest_delta(const struct zo_state *s, const struct zo_fold *folds, size_t n,
                               struct zo_pool *pool)
{
    struct zo_plan plan;
    if (zo_plan_new(&plan, s->rules, folds, n) != ERR_OK)
        return ZO_DIGEST_UNKNOWN;
    struct job j = {.s = s, .plan = &plan, .key = s->digest_key, .k = zo_kernels_pick("auto")};
    zo_pool_run(pool, s->rules->n_tensors, sum_item, &j);
    zo_plan_free(&plan);
    return atomic_load(&j.sum);
}

void zo_state_probe(const struct zo_state *s, uint64_t *probes, const uint32_t key[2],
                    const struct zo_kernels *k, struct zo_pool *pool)
{
    struct job j = {.s = s, .key = key, .k = k, .values = probes};
    zo_pool_run(pool, s->rules->n_tensors, sum_item, &j);
}

static void prove_item(void *ctx, size_t i, size_t worker)
{
    struct job *j = ctx;
    const uint32_t t = (uint32_t)i;
    const uint64_t want = zo_add_p(j->expected[t], tensor_delta(j->plan, t, j->key, j->k));
    uint_fast32_t first = atomic_load(&j->wrong);
    (void)worker;
    if (tensor_value(j->s, t, j->key, j->k) == want)
        return;
    while (t < first && !atomic_compare_exchange_weak(&j->wrong, &first, t)) {
    }
}

enum err zo_state_prove(const struct zo_state *s, const uint64_t *base_probes,
                        const uint32_t key[2], const struct zo_fold *folds, size_t n,
                        uint32_t *tensor, const struct zo_kernels *k, struct zo_pool *pool)
{
    struct zo_plan plan;
    const int64_t above = zo_state_above(s, 30, 60, pool);
    if (above >= 0) {
        if (tensor)
            *tensor = (uint32_t)above;
        return ERR_RANGE;
    }
    TRY(zo_plan_new(&plan, s->rules, folds, n));
    struct job j = {
        .s = s, .plan = &plan, .key = key, .k = k, .expected = base_probes, .wrong = UINT32_MAX};
    zo_pool_run(pool, s->rules->n_tensors, prove_item, &j);
    zo_plan_free(&plan);
    const uint32_t wrong = (uint32_t)atomic_load(&j.wrong);
    if (wrong == UINT32_MAX)
        return ERR_OK;
    if (tensor)
        *tensor = wrong;
    return ERR_PROTO;
}
