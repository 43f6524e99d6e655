#include "peer/fold_log.h"
#include "peer/home.h"
#include <fcntl.h>
#include <onebyte/base/bytes.h>
#include <onebyte/base/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ENTRY = 80, HEAD = 1 + 32 + 8, SUM = 8, WHOLE = 1, CHANGED = 2 };
#define RECORD_MAX ((uint64_t)HEAD + (uint64_t)LIMIT_FEEDS * ENTRY + SUM)

struct at {
    uint8_t id[32];
    uint64_t offset;
    bool old, whole;
};

struct peer_fold_log {
    char path[2][PEER_PATH_BYTES + 16]; /* folds, folds.old */
    int fd[2];                          /* -1: no such file */
    uint64_t size, bytes_max;           /* of folds */
    struct at *at;                      /* [n] in the order they were written */
    size_t n, n_max;
    uint8_t *last; /* [n_last] frontier of the last record; NULL: write a whole one */
    size_t n_last;
    size_t since_whole;
};

void peer_binding(uint8_t out[8], uint64_t digest, const uint8_t *frontier, size_t n)
{
    uint8_t le[8], hash[32];
    bytes_put_le(le, digest, 8);
    net_hash(hash, (const struct net_part[]){{le, 8}, {frontier, n}}, 2);
    memcpy(out, hash, 8);
}

static bool note(struct peer_fold_log *l, const uint8_t id[32], uint64_t offset, bool old, bool whole)
{
    if (l->n == l->n_max) {
        const size_t n = l->n_max ? 2 * l->n_max : 256;
        struct at *p = realloc(l->at, n * sizeof *p);
        if (!p)
            return false;
        l->at = p;
        l->n_max = n;
    }
    struct at *a = &l->at[l->n++];
    *a = (struct at){.offset = offset, .old = old, .whole = whole};
    memcpy(a->id, id, 32);
    return true;
}

/* The record at offset, without its length; malloc'd, NULL: the end, torn or damaged. */
static uint8_t *record_read(int fd, uint64_t offset, size_t *bytes)
{
    uint8_t le[4], hash[32];
    if (pread(fd, le, 4, (off_t)offset) != 4)
        return NULL;
    const uint64_t n = bytes_get_le(le, 4);
    if (n < HEAD + SUM || n > RECORD_MAX || (n - HEAD - SUM) % ENTRY != 0)
        return NULL;
    uint8_t *p = malloc(n);
    if (p && pread(fd, p, n, (off_t)offset + 4) == (ssize_t)n) {
        net_hash(hash, &(const struct net_part){p, n - SUM}, 1);
        if (memcmp(hash, p + n - SUM, SUM) == 0 && (p[0] == WHOLE || p[0] == CHANGED)) {
            *bytes = (size_t)n;
            return p;
        }
    }
    free(p);
    return NULL;
}

/* Its records; returns where the good ones end. */
static uint64_t index_file(struct peer_fold_log *l, bool old)
{
    uint64_t at = 0;
    size_t n = 0;
    uint8_t *p;
    bool any = false;
    while (l->fd[old] >= 0 && (p = record_read(l->fd[old], at, &n))) {
        any = any || p[0] == WHOLE;
        const bool ok = any && note(l, p + 1, at, old, p[0] == WHOLE);
        free(p);
        if (!ok)
            break;
        at += 4 + n;
    }
    return at;
}

enum err peer_fold_log_open(struct peer_fold_log **out, const char *dir, uint64_t bytes_max)
{
    struct peer_fold_log *l = calloc(1, sizeof *l);
    if (!l)
        return ERR_NOMEM;
    l->bytes_max = bytes_max;
    (void)snprintf(l->path[0], sizeof l->path[0], "%s/folds", dir);
    (void)snprintf(l->path[1], sizeof l->path[1], "%s/folds.old", dir);
    l->fd[0] = open(l->path[0], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    l->fd[1] = open(l->path[1], O_RDONLY | O_CLOEXEC);
    (void)index_file(l, true);
    l->size = index_file(l, false);
    if (l->fd[0] >= 0 && ftruncate(l->fd[0], (off_t)l->size) != 0) {
        close(l->fd[0]);
        l->fd[0] = -1; /* answers what it has, logs no more */
    }
    *out = l;
    return ERR_OK;
}

void peer_fold_log_close(struct peer_fold_log *l)
{
    if (!l)
        return;
    for (int i = 0; i < 2; i++)
        if (l->fd[i] >= 0)
            close(l->fd[i]);
    free(l->at);
    free(l->last);
    free(l);
}

/* The newer file becomes the older one, whose records are forgotten. */
static bool rotate(struct peer_fold_log *l)
{
    size_t kept = 0;
    if (rename(l->path[0], l->path[1]) != 0)
        return false;
    if (l->fd[1] >= 0)
        close(l->fd[1]);
    l->fd[1] = l->fd[0];
    for (size_t i = 0; i < l->n; i++)
        if (!l->at[i].old) {
            l->at[kept] = l->at[i];
            l->at[kept++].old = true;
        }
    l->n = kept;
    l->fd[0] = open(l->path[0], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    l->size = 0;
    free(l->last);
    l->last = NULL;
    return l->fd[0] >= 0;
}

/* out <- entries of `to` that `from` does not hold as they are; SIZE_MAX: one of from's is gone (no delta says that). */
static size_t changed(uint8_t *out, const uint8_t *from, size_t n_from, const uint8_t *to, size_t n_to)
{
    size_t at = 0, n = 0;
    for (size_t i = 0; i < n_to; i += ENTRY) {
        const int c = at < n_from ? memcmp(from + at, to + i, 32) : 1;
        if (c < 0)
            return SIZE_MAX;
        if (c > 0 || memcmp(from + at, to + i, ENTRY) != 0) {
            memcpy(out + n, to + i, ENTRY);
            n += ENTRY;
        }
        at += c == 0 ? ENTRY : 0;
    }
    return at < n_from ? SIZE_MAX : n;
}

static enum err remember(struct peer_fold_log *l, const uint8_t *frontier, size_t n)
{
    uint8_t *p = realloc(l->last, n + 1);
    if (!p)
        return ERR_NOMEM;
    l->last = p;
    l->n_last = n;
    memcpy(p, frontier, n);
    return ERR_OK;
}

static enum err append(struct peer_fold_log *l, uint8_t *record, size_t n)
{
    uint8_t hash[32];
    net_hash(hash, &(const struct net_part){record + 4, n - 4}, 1);
    memcpy(record + n, hash, SUM);
    bytes_put_le(record, n - 4 + SUM, 4);
    if (l->size > 0 && l->size + n + SUM > l->bytes_max)
        return ERR_AGAIN;
    if (pwrite(l->fd[0], record, n + SUM, (off_t)l->size) != (ssize_t)(n + SUM))
        return ERR_IO;
    if (!note(l, record + 5, l->size, false, record[4] == WHOLE))
        return ERR_NOMEM;
    l->size += n + SUM;
    return ERR_OK;
}

enum err peer_fold_log_add(struct peer_fold_log *l, const uint8_t id[32], uint64_t digest, const uint8_t *frontier, size_t n)
{
    if (l->fd[0] < 0 || n % ENTRY != 0 || 4 + HEAD + n + SUM > l->bytes_max)
        return ERR_IO;
    uint8_t *record = malloc(4 + HEAD + n + SUM);
    if (!record)
        return ERR_NOMEM;
    enum err e = ERR_AGAIN;
    for (int attempt = 0; attempt < 2 && e == ERR_AGAIN; attempt++) {
        size_t m = l->last && l->since_whole < FOLD_LOG_WHOLE ? changed(record + 4 + HEAD, l->last, l->n_last, frontier, n) : SIZE_MAX;
        const bool whole = m == SIZE_MAX;
        record[4] = whole ? WHOLE : CHANGED;
        memcpy(record + 5, id, 32);
        bytes_put_le(record + 37, digest, 8);
        if (whole) {
            if (n)
                memcpy(record + 4 + HEAD, frontier, n);
            m = n;
        }
        e = append(l, record, 4 + HEAD + m);
        if (e == ERR_AGAIN && !rotate(l))
            e = ERR_IO;
        if (e == ERR_OK)
            l->since_whole = whole ? 0 : l->since_whole + 1;
    }
    free(record);
    if (e != ERR_OK || remember(l, frontier, n) != ERR_OK) {
        free(l->last);
        l->last = NULL; /* the next one is whole again */
    }
    return e;
}

/* base [*n] <- with the entries [n_in] put in place or added; both in order of machine.  false: out of memory. */
static bool apply(uint8_t **base, size_t *n, const uint8_t *in, size_t n_in)
{
    uint8_t *p = malloc(*n + n_in + 1);
    size_t a = 0, b = 0, out = 0;
    if (!p)
        return false;
    while (a < *n || b < n_in) {
        const int c = a == *n ? 1 : b == n_in ? -1 : memcmp(*base + a, in + b, 32);
        memcpy(p + out, c < 0 ? *base + a : in + b, ENTRY);
        a += c <= 0 ? ENTRY : 0;
        b += c >= 0 ? ENTRY : 0;
        out += ENTRY;
    }
    free(*base);
    *base = p;
    *n = out;
    return true;
}

static enum err rebuild(struct peer_fold_log *l, size_t first, size_t last, uint8_t **frontier, size_t *n, uint64_t *digest)
{
    for (size_t i = first; i <= last; i++) {
        size_t bytes = 0;
        uint8_t *r = record_read(l->fd[l->at[i].old], l->at[i].offset, &bytes);
        if (!r)
            return ERR_NOTFOUND;
        *digest = bytes_get_le(r + 33, 8);
        const bool ok = apply(frontier, n, r + HEAD, bytes - HEAD - SUM);
        free(r);
        if (!ok)
            return ERR_NOMEM;
    }
    return ERR_OK;
}

enum err peer_fold_log_find(struct peer_fold_log *l, const uint8_t id[32], uint8_t **frontier, size_t *n, uint64_t *digest)
{
    size_t last = l->n, first;
    while (last > 0 && memcmp(l->at[last - 1].id, id, 32) != 0)
        last--;
    if (last == 0)
        return ERR_NOTFOUND;
    for (first = last; first > 0 && !l->at[first - 1].whole; first--)
        ;
    if (first == 0)
        return ERR_NOTFOUND;
    uint8_t *made = NULL;
    *n = 0;
    const enum err e = rebuild(l, first - 1, last - 1, &made, n, digest);
    if (e != ERR_OK) {
        free(made);
        return e;
    }
    *frontier = made;
    return ERR_OK;
}
