/* The portable ledger file: layout in net/ledger.h.  Parsed from a stream, every length checked
 * before it is used. */
#include <onebyte/net/ledger.h>
#include "net/ledger_db.h"
#include <onebyte/base/bytes.h>
#include <onebyte/base/limits.h>
#include <onebyte/net/id.h>
#include <onebyte/net/segment.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

static const char magic[16] = {'o', 'n', 'e', 'b', 'y', 't', 'e', '/',
                               '1', ' ', 'l', 'e', 'd', 'g', 'e', 'r'};
enum { ROW_END = 0, ROW_FEED = 1, ROW_SEGMENT = 2, ROW_CONTROL = 3 };

/* A file and the hash of what went through it so far. */
struct stream {
    FILE *file;
    crypto_generichash_state hash;
    bool failed;
};

/* ---- writing ---- */

struct writer {
    struct stream s;
    uint8_t machine[32];
    bool started;
    uint64_t segments, controls;
};

static void put(struct stream *s, const void *p, size_t n)
{
    if (fwrite(p, 1, n, s->file) != n)
        s->failed = true;
    (void)crypto_generichash_update(&s->hash, p, n);
}

static void put_number(struct stream *s, uint64_t v, size_t n)
{
    uint8_t b[8];
    bytes_put_le(b, v, n);
    put(s, b, n);
}

static bool put_segment(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n,
                        int64_t unix_ms)
{
    struct writer *w = ctx;
    if (!w->started || memcmp(w->machine, machine, 32) != 0) {
        put_number(&w->s, ROW_FEED, 1);
        put(&w->s, machine, 32);
        memcpy(w->machine, machine, 32);
        w->started = true;
    }
    put_number(&w->s, ROW_SEGMENT, 1);
    put_number(&w->s, (uint64_t)unix_ms, 8);
    put_number(&w->s, n, 2);
    put(&w->s, wire, n);
    w->segments++;
    return !w->s.failed;
}

static bool put_control(void *ctx, const uint8_t *frame, size_t n)
{
    struct writer *w = ctx;
    put_number(&w->s, ROW_CONTROL, 1);
    put_number(&w->s, n, 4);
    put(&w->s, frame, n);
    w->controls++;
    return !w->s.failed;
}

static enum err write_all(struct net_ledger *l, struct writer *w)
{
    uint8_t hash[32];
    (void)crypto_generichash_init(&w->s.hash, NULL, 0, sizeof hash);
    put(&w->s, magic, sizeof magic);
    put(&w->s, l->run_id, 32);
    TRY(net_ledger_each(l, put_segment, w));
    TRY(net_ledger_each_control(l, put_control, w));
    put_number(&w->s, ROW_END, 1);
    put_number(&w->s, w->segments, 8);
    put_number(&w->s, w->controls, 8);
    (void)crypto_generichash_final(&w->s.hash, hash, sizeof hash);
    if (fwrite(hash, 1, sizeof hash, w->s.file) != sizeof hash)
        w->s.failed = true;
    return ERR_OK;
}

enum err net_ledger_export(struct net_ledger *l, const char *path, struct err_why *why)
{
    struct writer w = {.started = false};
    const size_t room = strlen(path) + 16;
    char *beside = malloc(room);
    if (!beside)
        return err_set(why, ERR_NOMEM, "out of memory");
    (void)snprintf(beside, room, "%s.part", path);
    w.s.file = fopen(beside, "wbe");
    if (!w.s.file) {
        const enum err e = err_set(why, ERR_IO, "cannot create %s: %s", beside, strerror(errno));
        free(beside);
        return e;
    }
    enum err e = write_all(l, &w);
    if (e != ERR_OK)
        (void)err_set(why, e, "%s", l->error[0] ? l->error : err_str(e));
    else
        e = net_ledger_sound(l, why);
    errno = 0;
    if (fflush(w.s.file) != 0 || fsync(fileno(w.s.file)) != 0)
        w.s.failed = true;
    int reason = errno;
    if (fclose(w.s.file) != 0)
        w.s.failed = true;
    if (e == ERR_OK && !w.s.failed && rename(beside, path) != 0) {
        w.s.failed = true;
        reason = errno;
    }
    if (e == ERR_OK && w.s.failed)
        e = err_set(why, ERR_IO, "cannot write %s: %s", path,
                    reason ? strerror(reason) : "the disk refused it");
    if (e != ERR_OK)
        (void)unlink(beside);
    free(beside);
    return e;
}

/* ---- reading ---- */

struct reader {
    struct stream s;
    net_ledger_row *row;
    net_ledger_control_row *control;
    void *ctx;
    uint8_t *frame;   /* [LIMIT_CONTROL_BYTES] */
    const char *what; /* is wrong */
    uint8_t machine[32];
    bool started, stopped, feed_has_rows;
    uint64_t end, segments, controls;
};

static bool get(struct reader *r, void *p, size_t n)
{
    if (fread(p, 1, n, r->s.file) != n) {
        r->what = ferror(r->s.file) ? "it cannot be read" : "it is cut short";
        return false;
    }
    (void)crypto_generichash_update(&r->s.hash, p, n);
    return true;
}

static bool get_number(struct reader *r, uint64_t *v, size_t n)
{
    uint8_t b[8];
    if (!get(r, b, n))
        return false;
    *v = bytes_get_le(b, n);
    return true;
}

static bool wrong(struct reader *r, const char *what)
{
    r->what = what;
    return false;
}

static bool get_feed(struct reader *r)
{
    uint8_t machine[32];
    if (!get(r, machine, 32))
        return false;
    if (r->started && (!r->feed_has_rows || memcmp(machine, r->machine, 32) <= 0))
        return wrong(r, "its feeds are empty or out of order");
    memcpy(r->machine, machine, 32);
    r->started = true;
    r->feed_has_rows = false;
    r->end = 0;
    return true;
}

static bool get_segment(struct reader *r)
{
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    uint64_t unix_ms, n, end;
    if (!get_number(r, &unix_ms, 8) || !get_number(r, &n, 2))
        return false;
    if (!r->started || n > sizeof wire)
        return wrong(r, "a segment is too long or has no machine");
    if (!get(r, wire, n))
        return false;
    if (!ledger_shape(wire, n, r->end, &end))
        return wrong(r, "a segment is malformed or does not follow the one before");
    r->end = end;
    r->feed_has_rows = true;
    r->segments++;
    if (r->row && !r->stopped && !r->row(r->ctx, r->machine, wire, n, (int64_t)unix_ms))
        r->stopped = true;
    return true;
}

static bool get_control(struct reader *r)
{
    uint64_t n;
    if (!get_number(r, &n, 4))
        return false;
    if (n == 0 || n > LIMIT_CONTROL_BYTES)
        return wrong(r, "a control event has an impossible length");
    if (!get(r, r->frame, n))
        return false;
    r->controls++;
    if (r->control && !r->stopped && !r->control(r->ctx, r->frame, n))
        r->stopped = true;
    return true;
}

static bool get_end(struct reader *r)
{
    uint64_t segments, controls;
    uint8_t want[32], hash[32];
    if (!get_number(r, &segments, 8) || !get_number(r, &controls, 8))
        return false;
    (void)crypto_generichash_final(&r->s.hash, want, sizeof want);
    if (fread(hash, 1, sizeof hash, r->s.file) != sizeof hash)
        return wrong(r, "it is cut short");
    if (memcmp(hash, want, sizeof hash) != 0 || segments != r->segments ||
        controls != r->controls || (r->started && !r->feed_has_rows))
        return wrong(r, "its checksum does not match: it was changed or damaged");
    if (fgetc(r->s.file) != EOF)
        return wrong(r, "something follows its end");
    return true;
}

/* One pass over the whole file; calls row and control as they are set. */
static bool read_all(struct reader *r, uint8_t run_id[32])
{
    char head[sizeof magic];
    uint64_t kind = 0;
    (void)crypto_generichash_init(&r->s.hash, NULL, 0, 32);
    r->started = r->stopped = r->feed_has_rows = false;
    r->segments = r->controls = r->end = 0;
    if (!get(r, head, sizeof head))
        return false;
    if (memcmp(head, magic, sizeof magic) != 0)
        return wrong(r, "it is not a ledger file of onebyte/1");
    if (!get(r, run_id, 32))
        return false;
    do {
        if (!get_number(r, &kind, 1))
            return false;
        const bool ok = kind == ROW_FEED      ? get_feed(r)
                        : kind == ROW_SEGMENT ? get_segment(r)
                        : kind == ROW_CONTROL ? get_control(r)
                        : kind == ROW_END     ? get_end(r)
                                              : wrong(r, "a row has an unknown kind");
        if (!ok)
            return false;
    } while (kind != ROW_END && !r->stopped);
    return true;
}

/* The file is open; separate, so that the fuzzer can hand in memory. */
static enum err import_stream(FILE *file, const char *name, const uint8_t *run_id,
                              uint8_t *run_id_out, net_ledger_row *row,
                              net_ledger_control_row *control, void *ctx, struct err_why *why)
{
    struct reader r = {.s.file = file, .ctx = ctx};
    uint8_t run[32];
    r.frame = malloc(LIMIT_CONTROL_BYTES);
    if (!r.frame)
        return err_set(why, ERR_NOMEM, "out of memory");
    enum err e = ERR_OK;
    if (!read_all(&r, run)) /* nobody is told anything before all of it held */
        e = err_set(why, ERR_FORMAT, "%s is not a sound ledger file: %s", name, r.what);
    else if (run_id && memcmp(run, run_id, 32) != 0)
        e = err_set(why, ERR_FORMAT,
                    "%s is the ledger of another run: give the manifest it was made for", name);
    if (e == ERR_OK && (row || control)) {
        r.row = row;
        r.control = control;
        if (fseek(file, 0, SEEK_SET) != 0 || !read_all(&r, run))
            e = err_set(why, ERR_IO, "%s changed while it was read: %s", name,
                        r.what ? r.what : "it cannot be read twice");
    }
    if (e == ERR_OK && run_id_out)
        memcpy(run_id_out, run, 32);
    free(r.frame);
    return e;
}

enum err net_ledger_import(const char *path, const uint8_t *run_id, uint8_t *run_id_out,
                           net_ledger_row *row, net_ledger_control_row *control, void *ctx,
                           struct err_why *why)
{
    FILE *file = fopen(path, "rbe");
    if (!file)
        return err_set(why, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "cannot read %s: %s", path,
                       strerror(errno));
    const enum err e = import_stream(file, path, run_id, run_id_out, row, control, ctx, why);
    (void)fclose(file);
    return e;
}
