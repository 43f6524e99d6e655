/* The joiner's side: manifest and base model from peers, checked piece by piece. */
#include "peer/clock.h"
#include "peer/join.h"
#include "peer/join_in.h"
#include "peer/log.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <onebyte/base/bytes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DONORS = 8, PATH_BYTES = PEER_PATH_BYTES + 280 };
static const int64_t patience_ms = 5000; /* without a piece: asked again; on top of twice what the last answer took */
static const int64_t report_ms = 2000;

struct donor {
    uint32_t link; /* 0: free */
    size_t piece;  /* index into pieces; SIZE_MAX: idle */
    uint64_t got, asked_to;
    int64_t heard_ms, asked_ms, took_ms; /* asked_ms 0: answered; took_ms: a donor with --max-upload rests between its answers */
    uint8_t *buf; /* [PEER_CHUNK_BYTES] */
};

struct piece {
    uint16_t file;
    uint32_t chunk;
    uint8_t state; /* 0 wanted, 1 on its way, 2 verified and on disk */
};

struct join {
    const struct peer_manifest *m; /* NULL while the manifest itself is fetched */
    const uint8_t *run_id;
    struct net_identity self;
    struct net_transport *t;
    struct donor donors[DONORS];
    struct piece *pieces;
    size_t n_pieces, n_done;
    int *fds;
    uint64_t bytes_before, bytes_done, bytes_total; /* before: left by an earlier try */
    int64_t reported_ms, began_ms;
    /* manifest */
    char *text;
    size_t text_bytes, text_got;
    uint8_t sig[64];
    struct peer_manifest *out;
    bool have;
};

static struct donor *donor_of(struct join *j, uint32_t link)
{
    for (size_t i = 0; i < DONORS; i++)
        if (j->donors[i].link == link)
            return &j->donors[i];
    return NULL;
}

static void give_up_piece(struct join *j, struct donor *d)
{
    if (d->piece != SIZE_MAX && j->pieces && j->pieces[d->piece].state == 1)
        j->pieces[d->piece].state = 0;
    d->piece = SIZE_MAX;
}

/* The donor gave something wrong or nothing: its link ends, and another (or the next dial) takes over. */
static void refuse(struct join *j, struct donor *d, const char *reason, bool blame)
{
    char quoted[300];
    peer_log_quote(quoted, sizeof quoted, reason);
    peer_log(PEER_WARN, "donor", "reason=\"%s\"", quoted);
    give_up_piece(j, d);
    net_transport_close(j->t, d->link, blame);
    d->link = 0;
}

/* ---- manifest ---- */

static void want_manifest(struct join *j, struct donor *d)
{
    uint8_t frame[JOIN_WANT_MANIFEST_BYTES] = {JOIN_WANT_MANIFEST};
    bytes_put_le(frame + 1, j->text_got, 4);
    d->heard_ms = peer_now_ms();
    if (net_transport_send(j->t, d->link, frame, sizeof frame) != ERR_OK)
        d->heard_ms = 0; /* asked again at once */
}

static void take_manifest(struct join *j, struct donor *d, const uint8_t *f, size_t n)
{
    struct err_why why = {{0}};
    if (n <= JOIN_MANIFEST_HEAD || j->have)
        return;
    const size_t at = (size_t)bytes_get_le(f + 1, 4), total = (size_t)bytes_get_le(f + 5, 4), len = n - JOIN_MANIFEST_HEAD;
    if (at != j->text_got)
        return; /* an answer to an older question */
    if (at == 0) {
        char *text = total > 0 && total <= PEER_MANIFEST_BYTES_MAX ? realloc(j->text, total) : NULL;
        if (!text)
            return;
        j->text = text;
        j->text_bytes = total;
        memcpy(j->sig, f + 9, 64);
    }
    if (total != j->text_bytes || len > total - at) {
        j->text_got = 0;
        refuse(j, d, "a manifest that changes its length", true);
        return;
    }
    memcpy(j->text + at, f + JOIN_MANIFEST_HEAD, len);
    j->text_got += len;
    if (j->text_got < j->text_bytes) {
        want_manifest(j, d);
        return;
    }
    uint8_t id[32];
    net_hash(id, &(const struct net_part){j->text, j->text_bytes}, 1);
    j->text_got = 0;
    if (memcmp(id, j->run_id, 32) != 0)
        refuse(j, d, "not the manifest that the invite names", true);
    else if (peer_manifest_accept(j->out, j->text, j->text_bytes, j->sig, &why) != ERR_OK)
        refuse(j, d, why.text, true);
    else
        j->have = true;
}

/* ---- model ---- */

static void want_window(struct join *j, struct donor *d)
{
    const struct piece *p = &j->pieces[d->piece];
    uint8_t frame[JOIN_WANT_CHUNK_BYTES] = {JOIN_WANT_CHUNK};
    bytes_put_le(frame + 1, p->file, 2);
    bytes_put_le(frame + 3, p->chunk, 4);
    bytes_put_le(frame + 7, d->got, 4);
    d->asked_to = d->got + PEER_WINDOW_BYTES;
    d->heard_ms = peer_now_ms();
    if (net_transport_send(j->t, d->link, frame, sizeof frame) != ERR_OK)
        d->heard_ms = 0;
}

static void next_piece(struct join *j, struct donor *d)
{
    d->piece = SIZE_MAX;
    for (size_t i = 0; i < j->n_pieces; i++)
        if (j->pieces[i].state == 0) {
            if (!d->buf && !(d->buf = malloc(PEER_CHUNK_BYTES)))
                return;
            j->pieces[i].state = 1;
            d->piece = i;
            d->got = 0;
            d->asked_ms = peer_now_ms();
            want_window(j, d);
            return;
        }
}

static bool piece_write(struct join *j, const struct donor *d)
{
    struct piece *p = &j->pieces[d->piece];
    uint64_t at = 0;
    while (at < d->got) {
        const ssize_t w = pwrite(j->fds[p->file], d->buf + at, d->got - at, (off_t)((uint64_t)p->chunk * PEER_CHUNK_BYTES + at));
        if (w <= 0)
            return false;
        at += (uint64_t)w;
    }
    return true;
}

static void piece_done(struct join *j, struct donor *d)
{
    struct piece *p = &j->pieces[d->piece];
    uint8_t hash[32];
    net_hash(hash, &(const struct net_part){d->buf, d->got}, 1);
    if (memcmp(hash, j->m->files[p->file].chunks[p->chunk], 32) != 0) {
        refuse(j, d, "a chunk of the base model that is not the manifest's", true);
        return;
    }
    if (!piece_write(j, d)) {
        refuse(j, d, "the base model cannot be written here (disk full?)", false);
        return;
    }
    p->state = 2;
    j->n_done++;
    j->bytes_done += d->got;
    next_piece(j, d);
}

static void take_chunk(struct join *j, struct donor *d, const uint8_t *f, size_t n)
{
    if (n <= JOIN_CHUNK_HEAD || d->piece == SIZE_MAX)
        return;
    const struct piece *p = &j->pieces[d->piece];
    const uint64_t total = join_chunk_bytes(&j->m->files[p->file], p->chunk), len = n - JOIN_CHUNK_HEAD;
    if (bytes_get_le(f + 1, 2) != p->file || bytes_get_le(f + 3, 4) != p->chunk || bytes_get_le(f + 7, 4) != d->got ||
        len > total - d->got)
        return; /* of an older question */
    memcpy(d->buf + d->got, f + JOIN_CHUNK_HEAD, len);
    d->got += len;
    d->heard_ms = peer_now_ms();
    if (d->asked_ms)
        d->took_ms = d->heard_ms - d->asked_ms;
    d->asked_ms = 0;
    net_transport_useful(j->t, d->link); /* asked for: no flood, however fast */
    if (d->got == total) {
        piece_done(j, d);
    } else if (d->got >= d->asked_to) {
        d->asked_ms = d->heard_ms;
        want_window(j, d);
    }
}

/* ---- loop ---- */

static void go_on(struct join *j, struct donor *d)
{
    if (!j->m)
        want_manifest(j, d);
    else if (d->piece == SIZE_MAX)
        next_piece(j, d);
    else
        want_window(j, d);
}

static void event(struct join *j, const struct net_event *e)
{
    struct donor *d = e->link ? donor_of(j, e->link) : NULL;
    if (e->kind == NET_LINK_UP) {
        d = donor_of(j, 0);
        if (!d)
            return;
        uint8_t *buf = d->buf;
        *d = (struct donor){.link = e->link, .piece = SIZE_MAX, .buf = buf};
        go_on(j, d);
    } else if (e->kind == NET_LINK_DOWN && d) {
        give_up_piece(j, d);
        d->link = 0;
    } else if (e->kind == NET_DIAL_FAILED) {
        char quoted[160];
        peer_log_quote(quoted, sizeof quoted, e->reason ? e->reason : "no answer");
        peer_log(PEER_WARN, "dial_failed", "address=%s reason=\"%s\" retry=yes", e->address, quoted);
    } else if (e->kind == NET_FRAME && d && e->n > 0) {
        if (e->frame[0] == JOIN_MANIFEST && !j->m)
            take_manifest(j, d, e->frame, e->n);
        else if (e->frame[0] == JOIN_CHUNK && j->m)
            take_chunk(j, d, e->frame, e->n);
        else if (e->frame[0] == JOIN_NONE && j->m && d->piece != SIZE_MAX)
            refuse(j, d, "this peer gives no more of the base model's files: it has none, or gave this machine or its network enough for now", false);
    }
}

static void report(struct join *j)
{
    const int64_t now = peer_now_ms();
    if (!j->m || now - j->reported_ms < report_ms)
        return;
    j->reported_ms = now;
    uint64_t here = j->bytes_done;
    for (size_t i = 0; i < DONORS; i++)
        here += j->donors[i].link && j->donors[i].piece != SIZE_MAX ? j->donors[i].got : 0; /* its chunk is not whole yet */
    const double s = (double)(now - j->began_ms) / 1000, rate = s > 0 ? (double)(here - j->bytes_before) / s : 0;
    if (rate > 0)
        peer_log(PEER_INFO, "fetch", "bytes=%" PRIu64 " of=%" PRIu64 " bytes_per_s=%.0f left_s=%.0f", here, j->bytes_total, rate,
                 ceil((double)(j->bytes_total - here) / rate));
    else
        peer_log(PEER_INFO, "fetch", "bytes=%" PRIu64 " of=%" PRIu64 " waiting=yes", here, j->bytes_total);
}

static enum err loop(struct join *j, struct err_why *why)
{
    struct net_event e;
    j->began_ms = j->reported_ms = peer_now_ms();
    while (j->m ? j->n_done < j->n_pieces : !j->have) {
        const enum err err = net_transport_poll(j->t, &e, NULL, 0, 200);
        if (err == ERR_OK)
            event(j, &e);
        else if (err != ERR_AGAIN)
            return err_set(why, err, "the network stopped: %s", err_str(err));
        for (size_t i = 0; i < DONORS; i++) {
            struct donor *d = &j->donors[i];
            const int64_t now = peer_now_ms();
            if (!d->link || now - d->heard_ms <= patience_ms + 2 * d->took_ms)
                continue;
            if (d->asked_ms)
                d->took_ms = now - d->asked_ms; /* so far: a question that only waits is not asked again and again */
            go_on(j, d);
        }
        report(j);
    }
    return ERR_OK;
}

static enum err join_open(struct join *j, const struct peer_home *h, const char *const *connect, size_t n,
                          const uint8_t run_id[32], struct err_why *why)
{
    TRY(peer_home_identity(h, &j->self, true, NULL, why));
    struct net_transport_options o = {.identity = &j->self};
    memcpy(o.run_id, run_id, 32);
    j->run_id = run_id;
    TRY(net_transport_new(&j->t, &o, why));
    for (size_t i = 0; i < n; i++)
        TRY(net_transport_dial(j->t, connect[i], why));
    return ERR_OK;
}

static void join_close(struct join *j)
{
    for (size_t i = 0; i < DONORS; i++)
        free(j->donors[i].buf);
    net_transport_free(j->t);
    net_identity_release(&j->self);
    for (size_t i = 0; j->fds && j->m && i < j->m->n_files; i++)
        if (j->fds[i] >= 0)
            close(j->fds[i]);
    free(j->fds);
    free(j->pieces);
    free(j->text);
}

enum err peer_join_manifest(const struct peer_home *h, const char *const *connect, size_t n, const uint8_t run_id[32],
                            struct peer_manifest *m, struct err_why *why)
{
    struct join j = {.out = m};
    enum err e = join_open(&j, h, connect, n, run_id, why);
    if (e == ERR_OK) {
        peer_log(PEER_INFO, "fetch", "what=manifest from=%s", connect[0]);
        e = loop(&j, why);
    }
    join_close(&j);
    return e;
}

/* ---- files on disk ---- */

static void part_path(char out[PATH_BYTES], const char *dir, const struct peer_file *f, bool part)
{
    snprintf(out, PATH_BYTES, "%s/%s%s", dir, f->name, part ? ".part" : "");
}

/* Marks the pieces that an interrupted join left behind, by their hashes. */
static enum err file_open(struct join *j, size_t i, const char *dir, size_t first_piece, struct err_why *why)
{
    const struct peer_file *f = &j->m->files[i];
    char path[PATH_BYTES];
    part_path(path, dir, f, true);
    j->fds[i] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (j->fds[i] < 0)
        return err_set(why, ERR_IO, "cannot write %s: %s", path, strerror(errno));
    uint8_t *buf = malloc(PEER_CHUNK_BYTES), hash[32];
    if (!buf)
        return err_set(why, ERR_NOMEM, "out of memory");
    for (size_t c = 0; c < f->n_chunks; c++) {
        const size_t want = (size_t)join_chunk_bytes(f, c);
        struct piece *p = &j->pieces[first_piece + c];
        *p = (struct piece){.file = (uint16_t)i, .chunk = (uint32_t)c};
        j->bytes_total += want;
        if (pread(j->fds[i], buf, want, (off_t)(c * PEER_CHUNK_BYTES)) != (ssize_t)want)
            continue;
        net_hash(hash, &(const struct net_part){buf, want}, 1);
        if (memcmp(hash, f->chunks[c], 32) != 0)
            continue;
        p->state = 2;
        j->n_done++;
        j->bytes_done += want;
    }
    free(buf);
    return ERR_OK;
}

static enum err files_finish(const struct join *j, const char *dir, struct err_why *why)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    for (size_t i = 0; i < j->m->n_files; i++) {
        const struct peer_file *f = &j->m->files[i];
        part_path(from, dir, f, true);
        part_path(to, dir, f, false);
        if (ftruncate(j->fds[i], (off_t)f->bytes) != 0 || fsync(j->fds[i]) != 0 || rename(from, to) != 0)
            return err_set(why, ERR_IO, "cannot write %s: %s", to, strerror(errno));
    }
    return ERR_OK;
}

static enum err fetch(struct join *j, const struct peer_home *h, const char *const *connect, size_t n, const char *dir,
                      struct err_why *why)
{
    size_t at = 0;
    for (size_t i = 0; i < j->m->n_files; i++)
        j->n_pieces += j->m->files[i].n_chunks;
    j->pieces = calloc(j->n_pieces + 1, sizeof *j->pieces);
    j->fds = malloc((j->m->n_files + 1) * sizeof *j->fds);
    if (!j->pieces || !j->fds)
        return err_set(why, ERR_NOMEM, "out of memory");
    memset(j->fds, 0xff, (j->m->n_files + 1) * sizeof *j->fds);
    if (mkdir(dir, 0755) != 0 && errno != EEXIST)
        return err_set(why, ERR_IO, "cannot make %s: %s", dir, strerror(errno));
    for (size_t i = 0; i < j->m->n_files; i++) {
        TRY(file_open(j, i, dir, at, why));
        at += j->m->files[i].n_chunks;
    }
    j->bytes_before = j->bytes_done;
    if (j->n_done < j->n_pieces) {
        TRY(join_open(j, h, connect, n, j->m->run_id, why));
        peer_log(PEER_INFO, "fetch", "what=model bytes=%" PRIu64 " of=%" PRIu64 " files=%zu", j->bytes_done, j->bytes_total,
                 j->m->n_files);
        TRY(loop(j, why));
    }
    return files_finish(j, dir, why);
}

enum err peer_join_model(const struct peer_home *h, const char *const *connect, size_t n, const struct peer_manifest *m,
                         const char *dir, struct err_why *why)
{
    struct err_why ignored;
    if (peer_manifest_check_model(m, dir, NULL, &ignored) == ERR_OK)
        return ERR_OK;
    struct join j = {.m = m};
    const enum err e = fetch(&j, h, connect, n, dir, why);
    join_close(&j);
    return e;
}
