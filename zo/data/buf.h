/* zo/data/buf.h -- growing arrays with a sticky failure: append freely, look at `oom` once at the end.
 *
 * Text work appends small pieces thousands of times; checking each append would bury the rules it follows.
 * After the first failed growth an array ignores further appends and `oom` stays true.
 * Init     all zero bytes.      Free  buf_free, ids_free; an empty one may be freed.      Threads  one owner. */
#ifndef ONEBYTE_ZO_DATA_BUF_H
#define ONEBYTE_ZO_DATA_BUF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Room for n more elements of `size` bytes in *p [*cap], of which `used` are in use. */
static inline bool buf_grow(void **p, size_t *cap, size_t used, size_t n, size_t size)
{
    if (n <= *cap - used)
        return true;
    size_t want = *cap ? *cap : 16;
    while (want - used < n) {
        if (want > SIZE_MAX / 4 / size)
            return false;
        want *= 2;
    }
    void *q = realloc(*p, want * size);
    if (!q)
        return false;
    *p = q;
    *cap = want;
    return true;
}

struct buf {
    char *p;
    size_t n, cap;
    bool oom;
};

static inline void buf_free(struct buf *b)
{
    free(b->p);
    *b = (struct buf){0};
}

static inline void buf_add(struct buf *b, const char *text, size_t n)
{
    void *p = b->p;
    if (b->oom || !buf_grow(&p, &b->cap, b->n, n + 1, 1) || !p) {
        b->oom = true;
        return;
    }
    b->p = p;
    if (n)
        memcpy(b->p + b->n, text, n);
    b->n += n;
    b->p[b->n] = 0; /* always a C string too, for messages */
}

struct ids {
    uint32_t *v;
    size_t n, cap;
    bool oom;
};

static inline void ids_free(struct ids *a)
{
    free(a->v);
    *a = (struct ids){0};
}

static inline void ids_add(struct ids *a, uint32_t id)
{
    void *p = a->v;
    if (a->oom || !buf_grow(&p, &a->cap, a->n, 1, sizeof *a->v) || !p) {
        a->oom = true;
        return;
    }
    a->v = p;
    a->v[a->n++] = id;
}
#endif
