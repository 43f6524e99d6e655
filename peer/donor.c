/* The donor's side of joining: pieces of the manifest and of the base model, on request. */
#include "peer/join.h"
#include "peer/join_in.h"
#include <fcntl.h>
#include <onebyte/base/bytes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void peer_donor_init(struct peer_donor *d, const struct peer_manifest *m, const char *model_dir)
{
    *d = (struct peer_donor){.manifest = m, .model_dir = model_dir};
    d->fds = malloc((m->n_files + 1) * sizeof *d->fds);
    for (size_t i = 0; d->fds && i < m->n_files; i++)
        d->fds[i] = -1;
}

void peer_donor_release(struct peer_donor *d)
{
    for (size_t i = 0; d->fds && i < d->manifest->n_files; i++)
        if (d->fds[i] >= 0)
            close(d->fds[i]);
    free(d->fds);
    *d = (struct peer_donor){.fds = NULL};
}

static bool send_frame(struct peer_donor *d, struct net_transport *t, uint32_t link, const uint8_t *frame, size_t n)
{
    d->sent += n;
    return net_transport_send(t, link, frame, n) == ERR_OK; /* a full queue: the joiner asks again */
}

static void none(struct peer_donor *d, struct net_transport *t, uint32_t link, const uint8_t *frame, size_t n)
{
    uint8_t out[JOIN_WANT_CHUNK_BYTES + 1] = {JOIN_NONE};
    if (n >= sizeof out)
        return;
    memcpy(out + 1, frame, n);
    (void)send_frame(d, t, link, out, n + 1);
}

static void give_manifest(struct peer_donor *d, struct net_transport *t, uint32_t link, const uint8_t *frame)
{
    const struct peer_manifest *m = d->manifest;
    uint8_t out[JOIN_MANIFEST_HEAD + JOIN_PIECE] = {JOIN_MANIFEST};
    const uint64_t at = bytes_get_le(frame + 1, 4);
    if (at >= m->text_bytes)
        return;
    const size_t n = m->text_bytes - at < JOIN_PIECE ? (size_t)(m->text_bytes - at) : JOIN_PIECE;
    bytes_put_le(out + 1, at, 4);
    bytes_put_le(out + 5, m->text_bytes, 4);
    memcpy(out + 9, m->sig, 64);
    memcpy(out + JOIN_MANIFEST_HEAD, m->text + at, n);
    (void)send_frame(d, t, link, out, JOIN_MANIFEST_HEAD + n);
}

static int open_file(struct peer_donor *d, size_t i)
{
    char path[PEER_PATH_BYTES + 260];
    if (d->fds[i] < 0) {
        snprintf(path, sizeof path, "%s/%s", d->model_dir, d->manifest->files[i].name);
        d->fds[i] = open(path, O_RDONLY | O_CLOEXEC);
    }
    return d->fds[i];
}

static void give_chunk(struct peer_donor *d, struct net_transport *t, uint32_t link, const uint8_t *frame, size_t n)
{
    const uint64_t file = bytes_get_le(frame + 1, 2), chunk = bytes_get_le(frame + 3, 4), from = bytes_get_le(frame + 7, 4);
    if (!d->fds || !d->model_dir || file >= d->manifest->n_files || chunk >= d->manifest->files[file].n_chunks ||
        from >= join_chunk_bytes(&d->manifest->files[file], chunk) || open_file(d, file) < 0) {
        none(d, t, link, frame, n);
        return;
    }
    const uint64_t total = join_chunk_bytes(&d->manifest->files[file], chunk);
    const uint64_t end = total - from < PEER_WINDOW_BYTES ? total : from + PEER_WINDOW_BYTES;
    uint8_t out[JOIN_CHUNK_HEAD + JOIN_PIECE] = {JOIN_CHUNK};
    memcpy(out + 1, frame + 1, 6);
    for (uint64_t at = from; at < end;) {
        const size_t want = end - at < JOIN_PIECE ? (size_t)(end - at) : JOIN_PIECE;
        const ssize_t got = pread(d->fds[file], out + JOIN_CHUNK_HEAD, want, (off_t)(chunk * PEER_CHUNK_BYTES + at));
        if (got <= 0) {
            none(d, t, link, frame, n);
            return;
        }
        bytes_put_le(out + 7, at, 4);
        if (!send_frame(d, t, link, out, JOIN_CHUNK_HEAD + (size_t)got))
            return;
        at += (uint64_t)got;
    }
}

void peer_donor_frame(struct peer_donor *d, struct net_transport *t, uint32_t link, const uint8_t *frame, size_t n)
{
    if (frame[0] == JOIN_WANT_MANIFEST && n == JOIN_WANT_MANIFEST_BYTES)
        give_manifest(d, t, link, frame);
    else if (frame[0] == JOIN_WANT_CHUNK && n == JOIN_WANT_CHUNK_BYTES)
        give_chunk(d, t, link, frame, n);
}
