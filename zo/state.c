/* zo/state.c -- the integers in memory: allocation, conversion from and to floats, state bytes,
 * headroom. */
#include <onebyte/zo/state.h>

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_BYTES = 2 << 20, LINE_BYTES = 64 };

static size_t tensor_bytes(const struct zo_tensor *t)
{
    return (size_t)zo_tensor_elements(t) * (t->bits / 8);
}

/* Bytes from the start of a tensor in the block to that of the next one. */
static size_t tensor_stride(const struct zo_tensor *t)
{
    return (tensor_bytes(t) + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
}

/* One block for all tensors: huge pages span their borders, and only the block is rounded up to them (a block of
 * its own for each 4 MB matrix took half as much address space again, which --max-memory counts). */
static void *block_new(size_t bytes)
{
    const size_t align = bytes >= HUGE_BYTES ? HUGE_BYTES : LINE_BYTES;
    const size_t padded = bytes ? (bytes + align - 1) / align * align : align;
    void *block = aligned_alloc(align, padded);
    if (!block)
        return NULL;
    if (align == HUGE_BYTES)
        (void)madvise(block, padded, MADV_HUGEPAGE); /* only a wish: fewer TLB misses in the fold */
    memset(block, 0, padded);
    return block;
}

enum err zo_state_new(struct zo_state **out, const struct zo_rules *rules,
                      const uint32_t digest_key[2])
{
    struct zo_state *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    s->rules = rules;
    s->digest_key[0] = digest_key[0];
    s->digest_key[1] = digest_key[1];
    s->m = calloc(rules->n_tensors ? rules->n_tensors : 1, sizeof *s->m);
    size_t bytes = 0;
    for (uint32_t t = 0; t < rules->n_tensors; t++) {
        ENSURE(rules->tensors[t].bits == 32 || rules->tensors[t].bits == 64);
        bytes += tensor_stride(&rules->tensors[t]);
    }
    s->block = block_new(bytes);
    if (!s->m || !s->block) {
        zo_state_free(s);
        return ERR_NOMEM;
    }
    uint8_t *at = s->block;
    for (uint32_t t = 0; t < rules->n_tensors; t++) {
        s->m[t] = at;
        at += tensor_stride(&rules->tensors[t]);
    }
    *out = s;
    return ERR_OK;
}

void zo_state_free(struct zo_state *s)
{
    if (!s)
        return;
    free(s->block);
    free(s->m);
    free(s);
}

/* |x| below this rounds to |m0| < 2^(bits-4), and for 64 bits below 2^56 (SPEC 3).  Up there
 * doubles are whole numbers 8 apart, so that the half vanishes, as it should. */
static double load_limit(const struct zo_tensor *t)
{
    return t->bits == 32 ? 0x1p28 - 0.5 : 0x1p56 - 0.5;
}

/* theta * scale is exact in double: the scale is a power of two, and only results far below 1/2 can
 * be subnormal. NaN compares false.  These four loops are what start-up does to every parameter: no
 * branch, so that the compiler makes vectors of them. */
static bool fit_f64(const double *theta, size_t n, double scale, double limit)
{
    size_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad += !(fabs(theta[i] * scale) < limit);
    return bad == 0;
}

static bool fit_f32(const float *theta, size_t n, double scale, double limit)
{
    size_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad += !(fabs((double)theta[i] * scale) < limit);
    return bad == 0;
}

/* |x| < 2^31 to nearest, ties to even: the sum's last bit weighs 1, so that adding rounds, and its
 * low half is x. */
static inline int32_t round32(double x)
{
    const double sum = x + 0x1.8p52;
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    return (int32_t)(uint32_t)bits;
}

static int64_t round64(double x) /* |x| < 2^62 */
{
    const double down = floor(x), rest = x - down; /* both exact */
    const int64_t i = (int64_t)down;
    return i + (rest > 0.5 || (rest == 0.5 && (i & 1) != 0));
}

enum err zo_state_load_f64(struct zo_state *s, uint32_t t, uint64_t first, const double *theta,
                           size_t n)
{
    const struct zo_tensor *tensor = &s->rules->tensors[t];
    const double scale = ldexp(1, (int)tensor->e);
    ENSURE(first + n <= zo_tensor_elements(tensor));
    if (!fit_f64(theta, n, scale, load_limit(tensor)))
        return ERR_RANGE;
    if (tensor->bits == 32) {
        int32_t *m = (int32_t *)s->m[t] + first;
        for (size_t i = 0; i < n; i++)
            m[i] = round32(theta[i] * scale);
    } else {
        int64_t *m = (int64_t *)s->m[t] + first;
        for (size_t i = 0; i < n; i++)
            m[i] = round64(theta[i] * scale);
    }
    return ERR_OK;
}

enum err zo_state_load_f32(struct zo_state *s, uint32_t t, uint64_t first, const float *theta,
                           size_t n)
{
    const struct zo_tensor *tensor = &s->rules->tensors[t];
    const double scale = ldexp(1, (int)tensor->e);
    ENSURE(first + n <= zo_tensor_elements(tensor));
    if (!fit_f32(theta, n, scale, load_limit(tensor)))
        return ERR_RANGE;
    if (tensor->bits == 32) {
        int32_t *m = (int32_t *)s->m[t] + first;
        for (size_t i = 0; i < n; i++)
            m[i] = round32((double)theta[i] * scale);
    } else {
        int64_t *m = (int64_t *)s->m[t] + first;
        for (size_t i = 0; i < n; i++)
            m[i] = round64((double)theta[i] * scale);
    }
    return ERR_OK;
}

void zo_state_read_f32(const struct zo_state *s, uint32_t t, uint64_t first, float *theta, size_t n)
{
    const struct zo_tensor *tensor = &s->rules->tensors[t];
    const float scale =
        ldexpf(1, -(int)tensor->e); /* a power of two: the one rounding is int to float */
    ENSURE(first + n <= zo_tensor_elements(tensor));
    if (tensor->bits == 32) {
        const int32_t *m = (const int32_t *)s->m[t] + first;
        for (size_t i = 0; i < n; i++)
            theta[i] = (float)m[i] * scale;
    } else {
        const int64_t *m = (const int64_t *)s->m[t] + first;
        for (size_t i = 0; i < n; i++)
            theta[i] = (float)m[i] * scale;
    }
}

uint64_t zo_state_bytes(const struct zo_state *s)
{
    uint64_t n = 0;
    for (uint32_t t = 0; t < s->rules->n_tensors; t++)
        n += tensor_bytes(&s->rules->tensors[t]);
    return n;
}

/* State bytes are little-endian and so is memory: they are copied as they lie.  A big-endian port
 * swaps here. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "state bytes are copied as they lie");

/* Copies state bytes at .. at + n - 1 to `out`, or from `in`.  Elements may be cut anywhere. */
static void move_bytes(const struct zo_state *s, uint64_t at, uint8_t *out, const uint8_t *in,
                       size_t n)
{
    ENSURE(n <= zo_state_bytes(s) && at <= zo_state_bytes(s) - n);
    for (uint32_t t = 0; t < s->rules->n_tensors && n > 0; t++) {
        const size_t bytes = tensor_bytes(&s->rules->tensors[t]);
        if (at >= bytes) {
            at -= bytes;
            continue;
        }
        const size_t now = bytes - at < n ? bytes - (size_t)at : n;
        if (out) {
            memcpy(out, (const uint8_t *)s->m[t] + at, now);
            out += now;
        } else {
            memcpy((uint8_t *)s->m[t] + at, in, now);
            in += now;
        }
        n -= now;
        at = 0;
    }
}

void zo_state_get_bytes(const struct zo_state *s, uint64_t at, uint8_t *out, size_t n)
{
    move_bytes(s, at, out, NULL, n);
}

void zo_state_set_bytes(struct zo_state *s, uint64_t at, const uint8_t *in, size_t n)
{
    move_bytes(s, at, NULL, in, n);
}

/* Bitwise or of all |m|: some |m| >= 2^b iff it has a bit at or above b. */
static uint64_t or_magnitudes(const struct zo_state *s, uint32_t t)
{
    const size_t n = (size_t)zo_tensor_elements(&s->rules->tensors[t]);
    uint64_t or64 = 0;
    uint32_t or32 = 0;
    if (s->rules->tensors[t].bits == 32) {
        const uint32_t *m = s->m[t];
        for (size_t i = 0; i < n; i++) {
            const uint32_t sign = 0u - (m[i] >> 31);
            or32 |= (m[i] ^ sign) - sign;
        }
        return or32;
    }
    const uint64_t *m = s->m[t];
    for (size_t i = 0; i < n; i++)
        or64 |= m[i] >> 63 ? 0 - m[i] : m[i];
    return or64;
}

struct scan {
    const struct zo_state *s;
    uint32_t below[2]; /* |m| < 2^below[0] of 32-bit tensors, 2^below[1] of 64-bit ones */
    atomic_int_fast64_t first;
};

static void scan_item(void *ctx, size_t i, size_t worker)
{
    struct scan *scan = ctx;
    const uint32_t below = scan->below[scan->s->rules->tensors[i].bits == 64];
    int_fast64_t first = atomic_load(&scan->first);
    (void)worker;
    if (or_magnitudes(scan->s, (uint32_t)i) >> below == 0)
        return;
    while ((first < 0 || (int_fast64_t)i < first) &&
           !atomic_compare_exchange_weak(&scan->first, &first, (int_fast64_t)i)) {
    }
}

int64_t zo_state_above(const struct zo_state *s, uint32_t below32, uint32_t below64,
                       struct zo_pool *pool)
{
    struct scan scan = {.s = s, .below = {below32, below64}, .first = -1};
    zo_pool_run(pool, s->rules->n_tensors, scan_item, &scan);
    return (int64_t)atomic_load(&scan.first);
}

int64_t zo_state_headroom(const struct zo_state *s, struct zo_pool *pool)
{
    return zo_state_above(s, 30, 62, pool);
}
