/* Files: reading and writing manifests, hashing model and data files, checking them against a manifest. */
#include "peer/engine.h"
#include "peer/manifest.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <onebyte/zo/pool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum err peer_read_file(char **text, size_t *n, const char *path, size_t max, struct err_why *why)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is refused below, not waited for */
    struct stat st;
    if (fd < 0)
        return err_set(why, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "cannot open %s: %s", path,
                       strerror(errno));
    enum err e = ERR_OK;
    char *p = NULL;
    size_t have = 0;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        e = err_set(why, ERR_IO, "%s is not a regular file", path);
    else if ((uint64_t)st.st_size > max)
        e = err_set(why, ERR_FORMAT, "%s is larger than %zu bytes", path, max);
    else if (!(p = malloc((size_t)st.st_size + 1)))
        e = err_set(why, ERR_NOMEM, "out of memory reading %s", path);
    while (e == ERR_OK && have < (size_t)st.st_size) {
        const ssize_t got = read(fd, p + have, (size_t)st.st_size - have);
        if (got < 0 && errno != EINTR)
            e = err_set(why, ERR_IO, "cannot read %s: %s", path, strerror(errno));
        if (got == 0)
            break; /* it shrank meanwhile: what is there is what it holds */
        have += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    if (e != ERR_OK) {
        free(p);
        return e;
    }
    p[have] = '\0';
    *text = p;
    *n = have;
    return ERR_OK;
}

enum err peer_check_out(const char *path, struct err_why *why)
{
    struct stat st;
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return err_set(why, ERR_IO, "%s is not a regular file: name another file to write", path);
    return ERR_OK;
}

/* Makes a rename durable: the folder's entry must reach the disk too. */
static void sync_folder(const char *path)
{
    char dir[PEER_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    (void)snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) + 1 : 1,
                   slash ? path : ".");
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
}

/* The whole file under the name `temporary` beside path, on the disk. */
static enum err write_beside(char temporary[PEER_PATH_BYTES + 32], const char *path, const void *p, size_t n, unsigned mode,
                             struct err_why *why)
{
    (void)snprintf(temporary, PEER_PATH_BYTES + 32, "%s.tmp-%ld", path, (long)getpid());
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, (mode_t)mode);
    if (fd < 0)
        return err_set(why, ERR_IO, "cannot write %s: %s", path, strerror(errno));
    size_t done = 0;
    bool ok = true;
    while (ok && done < n) {
        const ssize_t put = write(fd, (const char *)p + done, n - done);
        ok = put >= 0 || errno == EINTR;
        done += put > 0 ? (size_t)put : 0;
    }
    ok = ok && fsync(fd) == 0;
    int error = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        error = errno;
    }
    if (ok)
        return ERR_OK;
    (void)unlink(temporary);
    return err_set(why, ERR_IO, "cannot write %s: %s", path, strerror(error));
}

static enum err put_in_place(const char *temporary, const char *path, struct err_why *why)
{
    if (rename(temporary, path) != 0) {
        const int error = errno;
        (void)unlink(temporary);
        return err_set(why, ERR_IO, "cannot write %s: %s", path, strerror(error));
    }
    sync_folder(path);
    return ERR_OK;
}

enum err peer_write_file(const char *path, const void *p, size_t n, unsigned mode,
                         struct err_why *why)
{
    char temporary[PEER_PATH_BYTES + 32];
    TRY(write_beside(temporary, path, p, n, mode, why));
    return put_in_place(temporary, path, why);
}

enum err peer_manifest_load(struct peer_manifest *m, const char *path, struct err_why *why)
{
    char sig_path[PEER_PATH_BYTES], *text = NULL, *sig = NULL;
    size_t n = 0, sig_bytes = 0;
    struct err_why inner = {{0}};
    if ((size_t)snprintf(sig_path, sizeof sig_path, "%s.sig", path) >= sizeof sig_path)
        return err_set(why, ERR_RANGE, "path too long: %.200s", path);
    TRY(peer_read_file(&text, &n, path, PEER_MANIFEST_BYTES_MAX, why));
    enum err e = peer_read_file(&sig, &sig_bytes, sig_path, 1 << 16, &inner);
    if (e != ERR_OK)
        e = err_set(why, e, "%s: the owner's signature lies beside the manifest: %.500s", path,
                    inner.text);
    else if (sig_bytes != NET_SIG_BYTES)
        e = err_set(why, ERR_FORMAT, "%s must hold %d bytes, not %zu", sig_path, NET_SIG_BYTES,
                    sig_bytes);
    else if ((e = peer_manifest_accept(m, text, n, (const uint8_t *)sig, &inner)) != ERR_OK)
        (void)err_set(why, e, "%.200s: %.500s", path, inner.text);
    free(text);
    free(sig);
    return e;
}

enum err peer_manifest_save(const struct peer_manifest *m, const char *path, struct err_why *why)
{
    char sig_path[PEER_PATH_BYTES], sig_new[PEER_PATH_BYTES + 32], text_new[PEER_PATH_BYTES + 32];
    if ((size_t)snprintf(sig_path, sizeof sig_path, "%s.sig", path) >= sizeof sig_path)
        return err_set(why, ERR_RANGE, "path too long: %.200s", path);
    TRY(write_beside(sig_new, sig_path, m->sig, sizeof m->sig, 0644, why));
    const enum err e = write_beside(text_new, path, m->text, m->text_bytes, 0644, why);
    if (e != ERR_OK) { /* a full disk: what was there stays, with its signature */
        (void)unlink(sig_new);
        return e;
    }
    TRY(put_in_place(sig_new, sig_path, why));
    return put_in_place(text_new, path, why);
}

static enum err open_regular(int *fd, uint64_t *bytes, const char *path, struct err_why *why)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return err_set(why, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "cannot open %s: %s", path,
                       strerror(errno));
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(*fd);
        return err_set(why, ERR_IO, "%s is not a regular file", path);
    }
    *bytes = (uint64_t)st.st_size;
    return ERR_OK;
}

enum err peer_check_regular(const char *path, struct err_why *why)
{
    int fd = -1;
    uint64_t bytes = 0;
    TRY(open_regular(&fd, &bytes, path, why));
    close(fd);
    return ERR_OK;
}

enum err peer_data_digest(struct peer_data *d, const char *path, struct err_why *why)
{
    int fd = -1;
    uint64_t bytes = 0;
    TRY(open_regular(&fd, &bytes, path, why));
    enum err e = ERR_OK;
    struct peer_data out = {.present = true, .bytes = bytes};
    const char *slash = strrchr(path, '/');
    (void)snprintf(out.name, sizeof out.name, "%.255s", slash ? slash + 1 : path);
    void *p = bytes ? mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    if (bytes == 0)
        e = err_set(why, ERR_FORMAT, "%s is empty", path);
    else if (p == MAP_FAILED)
        e = err_set(why, ERR_IO, "cannot map %s: %s", path, strerror(errno));
    close(fd);
    if (e != ERR_OK)
        return e;
    net_hash(out.digest, &(struct net_part){p, (size_t)bytes}, 1);
    (void)munmap(p, (size_t)bytes);
    *d = out;
    return ERR_OK;
}

/* Hashes of a file's chunks, all cores at once: each worker reads into its own buffer, so no page stays mapped. */
struct hashing {
    int fd;
    uint64_t bytes;
    uint8_t (*chunks)[32];
    uint8_t *buffers[LIMIT_THREADS];
    uint8_t *bad; /* [n_chunks]: could not be read */
};

static void hash_chunk(void *ctx, size_t i, size_t worker)
{
    struct hashing *h = ctx;
    const uint64_t first = (uint64_t)i * PEER_CHUNK_BYTES;
    const size_t n =
        h->bytes - first < PEER_CHUNK_BYTES ? (size_t)(h->bytes - first) : PEER_CHUNK_BYTES;
    size_t have = 0;
    while (have < n) {
        const ssize_t got =
            pread(h->fd, h->buffers[worker] + have, n - have, (off_t)(first + have));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            h->bad[i] = 1;
            return;
        }
        have += (size_t)got;
    }
    net_hash(h->chunks[i], &(struct net_part){h->buffers[worker], n}, 1);
}

static enum err hash_chunks(struct hashing *h, size_t n, const char *path, struct err_why *why)
{
    const size_t cores = peer_threads_default(), threads = n < cores ? (n ? n : 1) : cores;
    struct zo_pool *pool = NULL;
    enum err e = threads > 1 ? zo_pool_new(&pool, threads) : ERR_OK;
    h->bad = calloc(n ? n : 1, 1);
    bool ok = h->bad && e == ERR_OK;
    for (size_t i = 0; i < threads; i++) {
        h->buffers[i] = malloc(PEER_CHUNK_BYTES);
        ok = ok && h->buffers[i];
    }
    if (!ok)
        e = err_set(why, ERR_NOMEM, "out of memory hashing %s", path);
    else
        zo_pool_run(pool, n, hash_chunk, h);
    for (size_t i = 0; e == ERR_OK && i < n; i++)
        if (h->bad[i])
            e = err_set(why, ERR_IO, "cannot read %s at byte %" PRIu64, path,
                        (uint64_t)i * PEER_CHUNK_BYTES);
    for (size_t i = 0; i < threads; i++)
        free(h->buffers[i]);
    free(h->bad);
    zo_pool_free(pool);
    return e;
}

enum err peer_file_hash(struct peer_file *f, const char *dir, const char *name, struct err_why *why)
{
    char path[PEER_PATH_BYTES];
    struct hashing h = {0};
    struct peer_file out = {0};
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path ||
        strlen(name) >= sizeof out.name)
        return err_set(why, ERR_RANGE, "path too long: %.200s", name);
    TRY(open_regular(&h.fd, &h.bytes, path, why));
    memcpy(out.name, name, strlen(name) + 1);
    out.bytes = h.bytes;
    out.n_chunks = (size_t)((h.bytes + PEER_CHUNK_BYTES - 1) / PEER_CHUNK_BYTES);
    h.chunks = out.chunks = calloc(out.n_chunks ? out.n_chunks : 1, sizeof *out.chunks);
    enum err e = out.chunks ? hash_chunks(&h, out.n_chunks, path, why)
                            : err_set(why, ERR_NOMEM, "out of memory");
    close(h.fd);
    if (e != ERR_OK) {
        free(out.chunks);
        return e;
    }
    *f = out;
    return ERR_OK;
}

/* *text (malloc'd) <- what identifies the files as last verified: run id, then size, mtime, inode and path of each. */
static enum err fingerprint(char **text, const struct peer_manifest *m, const char *dir,
                            struct err_why *why)
{
    size_t n = 0;
    char run[65];
    net_hex(run, m->run_id, 32);
    FILE *out = open_memstream(text, &n);
    if (!out)
        return err_set(why, ERR_NOMEM, "out of memory");
    fprintf(out, "%s\n", run);
    enum err e = ERR_OK;
    for (size_t i = 0; i < m->n_files && e == ERR_OK; i++) {
        char path[PEER_PATH_BYTES + 256];
        struct stat st;
        (void)snprintf(path, sizeof path, "%s/%s", dir, m->files[i].name);
        if (stat(path, &st) != 0)
            e = err_set(why, ERR_NOTFOUND, "the run's model file %s is not in %s: %s",
                        m->files[i].name, dir, strerror(errno));
        else if ((uint64_t)st.st_size != m->files[i].bytes)
            e = err_set(why, ERR_FORMAT,
                        "%s is not this run's model: it has %lld bytes, the manifest says %" PRIu64,
                        path, (long long)st.st_size, m->files[i].bytes);
        else
            fprintf(out, "%lld %lld.%09ld %llu:%llu %s\n", (long long)st.st_size,
                    (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (unsigned long long)st.st_dev,
                    (unsigned long long)st.st_ino, path);
    }
    if (fclose(out) != 0 && e == ERR_OK)
        e = err_set(why, ERR_NOMEM, "out of memory");
    if (e != ERR_OK) {
        free(*text);
        *text = NULL;
    }
    return e;
}

static enum err check_file(const struct peer_file *want, const char *dir, struct err_why *why)
{
    struct peer_file got = {0};
    TRY(peer_file_hash(&got, dir, want->name, why));
    enum err e = ERR_OK;
    if (got.bytes != want->bytes)
        e = err_set(why, ERR_FORMAT,
                    "%s/%s is not this run's model: its size is not the manifest's", dir,
                    want->name);
    for (size_t i = 0; i < want->n_chunks && e == ERR_OK; i++)
        if (memcmp(got.chunks[i], want->chunks[i], 32) != 0)
            e = err_set(why, ERR_FORMAT,
                        "%s/%s is not this run's model: the %d bytes at offset %zu differ from the "
                        "manifest's hash",
                        dir, want->name, PEER_CHUNK_BYTES, i * PEER_CHUNK_BYTES);
    free(got.chunks);
    return e;
}

enum err peer_manifest_check_model(const struct peer_manifest *m, const char *dir,
                                   const char *cache, struct err_why *why)
{
    char *now = NULL, *known = NULL;
    size_t n = 0;
    TRY(fingerprint(&now, m, dir, why));
    if (cache && peer_read_file(&known, &n, cache, 1 << 20, NULL) == ERR_OK &&
        strcmp(known, now) == 0) {
        free(known);
        free(now);
        return ERR_OK;
    }
    free(known);
    enum err e = ERR_OK;
    for (size_t i = 0; i < m->n_files && e == ERR_OK; i++)
        e = check_file(&m->files[i], dir, why);
    if (e == ERR_OK && cache)
        (void)!peer_write_file(cache, now, strlen(now), 0600,
                               NULL); /* a cache that cannot be kept costs time only */
    free(now);
    return e;
}

enum err peer_manifest_check_data(const struct peer_data *d, const char *path, struct err_why *why)
{
    struct peer_data got;
    struct stat st;
    const bool other = stat(path, &st) == 0 && st.st_size > 0 && S_ISREG(st.st_mode) &&
                       (uint64_t)st.st_size != d->bytes; /* not hashed: it may be a terabyte */
    if (!other)
        TRY(peer_data_digest(&got, path, why));
    if (other || memcmp(got.digest, d->digest, sizeof got.digest) != 0)
        return err_set(why, ERR_FORMAT,
                       "%s is not this run's data: the manifest names %s with %" PRIu64 " bytes",
                       path, d->name, d->bytes);
    return ERR_OK;
}
