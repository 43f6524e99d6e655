#include <onebyte/net/ledger.h>
#include "net/ledger_db.h"
#include <onebyte/base/bytes.h>
#include <onebyte/base/limits.h>
#include <onebyte/net/id.h>
#include <onebyte/net/segment.h>
#include <string.h>

/* ---- small tools ---- */

void ledger_sum(uint8_t sum[LEDGER_SUM_BYTES], const char *kind, const uint8_t machine[32],
                uint64_t place, int64_t unix_ms, const void *p, size_t n)
{
    uint8_t numbers[16], hash[32];
    bytes_put_le(numbers, place, 8);
    bytes_put_le(numbers + 8, (uint64_t)unix_ms, 8);
    const struct net_part parts[] = {
        {kind, strlen(kind) + 1},
        {machine, 32},
        {numbers, sizeof numbers},
        {p, n},
    };
    net_hash(hash, parts, ARRAY_LEN(parts));
    memcpy(sum, hash, LEDGER_SUM_BYTES);
}

enum err ledger_fail(struct net_ledger *l, const char *doing)
{
    const int code = sqlite3_errcode(l->db) & 0xff;
    l->code = code;
    const char *hint = "the rest waits in memory and is tried again";
    if (code == SQLITE_FULL)
        hint =
            "free some space on that disk; what was acknowledged is safe, the rest waits in memory";
    else if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
        hint = "the file is damaged: stop and start the peer, which saves what is readable and "
               "fetches the rest";
    else if (code == SQLITE_IOERR)
        hint = "check the disk, its free space and quotas; what was acknowledged is safe";
    else if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
        hint = "another process writes to it: stop that one";
    (void)snprintf(l->error, sizeof l->error, "cannot %s %s: %s: %s", doing, l->path,
                   sqlite3_errmsg(l->db), hint);
    return code == SQLITE_NOMEM ? ERR_NOMEM : code == SQLITE_BUSY ? ERR_BUSY : ERR_IO;
}

enum err ledger_exec(struct net_ledger *l, const char *sql)
{
    return sqlite3_exec(l->db, sql, NULL, NULL, NULL) == SQLITE_OK ? ERR_OK
                                                                   : ledger_fail(l, "write");
}

enum err ledger_prepare(struct net_ledger *l, sqlite3_stmt **s, const char *sql)
{
    *s = NULL;
    return sqlite3_prepare_v2(l->db, sql, -1, s, NULL) == SQLITE_OK ? ERR_OK
                                                                    : ledger_fail(l, "read");
}

bool ledger_shape(const uint8_t *wire, size_t n, uint64_t first_seq, uint64_t *end)
{
    if (n < NET_SEGMENT_HEAD + 1 + NET_SIG_BYTES || n > NET_SEGMENT_BYTES_MAX)
        return false;
    const uint64_t count = bytes_get_le(wire + 2, 2);
    if (n != NET_SEGMENT_HEAD + count + NET_SIG_BYTES || bytes_get_le(wire + 4, 8) != first_seq ||
        first_seq > INT64_MAX - count)
        return false;
    *end = first_seq + count;
    return true;
}

enum err ledger_end(struct net_ledger *l, enum err e)
{
    if (e == ERR_OK)
        e = ledger_exec(l, "COMMIT");
    if (e != ERR_OK && !sqlite3_get_autocommit(l->db))
        (void)sqlite3_exec(l->db, "ROLLBACK", NULL, NULL,
                           NULL); /* the first error is the one to report */
    return e;
}

/* Runs a statement that returns no row, and makes it ready for the next use. */
static enum err step_once(struct net_ledger *l, sqlite3_stmt *s)
{
    enum err e = sqlite3_step(s) == SQLITE_DONE ? ERR_OK : ledger_fail(l, "write");
    (void)sqlite3_reset(s);
    (void)sqlite3_clear_bindings(s);
    return e;
}

/* *feed <- the small number of a machine, made when make is set.  ERR_NOTFOUND. */
static enum err feed_number(struct net_ledger *l, int64_t *feed, const uint8_t machine[32],
                            bool make)
{
    if (make) {
        if (!l->insert_feed)
            TRY(ledger_prepare(l, &l->insert_feed,
                               "INSERT OR IGNORE INTO feed(machine) VALUES(?1)"));
        (void)sqlite3_bind_blob(l->insert_feed, 1, machine, 32, SQLITE_STATIC);
        TRY(step_once(l, l->insert_feed));
    }
    if (!l->find_feed)
        TRY(ledger_prepare(l, &l->find_feed, "SELECT id FROM feed WHERE machine = ?1"));
    (void)sqlite3_bind_blob(l->find_feed, 1, machine, 32, SQLITE_STATIC);
    const int code = sqlite3_step(l->find_feed);
    if (code == SQLITE_ROW)
        *feed = sqlite3_column_int64(l->find_feed, 0);
    enum err e = code == SQLITE_ROW    ? ERR_OK
                 : code == SQLITE_DONE ? ERR_NOTFOUND
                                       : ledger_fail(l, "read");
    (void)sqlite3_reset(l->find_feed);
    (void)sqlite3_clear_bindings(l->find_feed);
    return e;
}

enum err ledger_put_segment(struct net_ledger *l, const struct ledger_row *r)
{
    int64_t feed = 0;
    uint8_t sum[LEDGER_SUM_BYTES];
    TRY(feed_number(l, &feed, r->machine, true));
    if (!l->insert_segment)
        TRY(ledger_prepare(l, &l->insert_segment,
                           "INSERT OR REPLACE INTO segment(feed, seq, unix_ms, wire, sum) "
                           "VALUES(?1, ?2, ?3, ?4, ?5)"));
    ledger_sum(sum, "segment", r->machine, r->first_seq, r->unix_ms, r->wire, r->n);
    (void)sqlite3_bind_int64(l->insert_segment, 1, feed);
    (void)sqlite3_bind_int64(l->insert_segment, 2, (int64_t)r->first_seq);
    (void)sqlite3_bind_int64(l->insert_segment, 3, r->unix_ms);
    (void)sqlite3_bind_blob(l->insert_segment, 4, r->wire, (int)r->n, SQLITE_STATIC);
    (void)sqlite3_bind_blob(l->insert_segment, 5, sum, sizeof sum, SQLITE_STATIC);
    return step_once(l, l->insert_segment);
}

/* ---- writing ---- */

static enum err refuse_read_only(struct net_ledger *l)
{
    if (!l->read_only)
        return ERR_OK;
    (void)snprintf(l->error, sizeof l->error, "cannot write %s: it was opened for reading",
                   l->path);
    return ERR_IO;
}

enum err net_ledger_flush(struct net_ledger *l)
{
    if (l->n_waiting == 0)
        return ERR_OK;
    TRY(ledger_exec(l, "BEGIN IMMEDIATE"));
    enum err e = ERR_OK;
    for (size_t i = 0; i < l->n_waiting && e == ERR_OK; i++)
        e = ledger_put_segment(l, &l->waiting[i]);
    TRY(ledger_end(l, e)); /* on failure the rows go on waiting */
    for (size_t i = 0; i < l->n_waiting; i++)
        free(l->waiting[i].wire);
    l->n_waiting = 0;
    return ERR_OK;
}

static enum err push(struct net_ledger *l, const uint8_t machine[32], uint64_t first_seq,
                     const uint8_t *wire, size_t n, int64_t unix_ms)
{
    if (l->n_waiting == l->n_room) {
        const size_t n_room = l->n_room ? 2 * l->n_room : 64;
        struct ledger_row *rows = realloc(l->waiting, n_room * sizeof *rows);
        if (!rows)
            return ERR_NOMEM;
        l->waiting = rows;
        l->n_room = n_room;
    }
    struct ledger_row *r = &l->waiting[l->n_waiting];
    r->wire = malloc(n);
    if (!r->wire)
        return ERR_NOMEM;
    memcpy(r->wire, wire, n);
    memcpy(r->machine, machine, 32);
    r->n = n;
    r->first_seq = first_seq;
    r->unix_ms = unix_ms;
    l->n_waiting++;
    return ERR_OK;
}

/* ERR_OK: the place is free; ERR_BUSY: the same bytes stand there; ERR_RANGE: others do. */
static enum err look_at_place(struct net_ledger *l, const uint8_t machine[32], uint64_t first_seq,
                              const uint8_t *wire, size_t n)
{
    sqlite3_stmt *s = NULL;
    TRY(ledger_prepare(l, &s,
                       "SELECT wire FROM segment WHERE feed = (SELECT id FROM feed WHERE machine = "
                       "?1) AND seq = ?2"));
    (void)sqlite3_bind_blob(s, 1, machine, 32, SQLITE_STATIC);
    (void)sqlite3_bind_int64(s, 2, (int64_t)first_seq);
    const int code = sqlite3_step(s);
    enum err e = ERR_OK;
    if (code == SQLITE_ROW)
        e = (size_t)sqlite3_column_bytes(s, 0) == n &&
                    memcmp(sqlite3_column_blob(s, 0), wire, n) == 0
                ? ERR_BUSY
                : ERR_RANGE;
    else if (code != SQLITE_DONE)
        e = ledger_fail(l, "read");
    (void)sqlite3_finalize(s);
    return e;
}

static enum err append_own(struct net_ledger *l, const uint8_t machine[32], uint64_t first_seq,
                           const uint8_t *wire, size_t n, int64_t unix_ms)
{
    TRY(net_ledger_flush(l)); /* so that look_at_place sees everything */
    const enum err place = look_at_place(l, machine, first_seq, wire, n);
    if (place == ERR_BUSY)
        return ERR_OK;
    TRY(place);
    TRY(push(l, machine, first_seq, wire, n, unix_ms));
    const enum err e = net_ledger_flush(l);
    if (e != ERR_OK) /* not stored, not to be sent: it never was */
        free(l->waiting[--l->n_waiting].wire);
    return e;
}

enum err net_ledger_append(struct net_ledger *l, const uint8_t machine[32], uint64_t first_seq,
                           const uint8_t *wire, size_t n, bool own, int64_t unix_ms)
{
    uint64_t end;
    TRY(refuse_read_only(l));
    if (!ledger_shape(wire, n, first_seq, &end))
        return ERR_RANGE;
    if (own)
        return append_own(l, machine, first_seq, wire, n, unix_ms);
    if (l->n_waiting >= LIMIT_LEDGER_BATCH) {
        const enum err e = net_ledger_flush(l);
        if (e != ERR_OK && l->n_waiting >= (size_t)LIMIT_LEDGER_BATCH * 16)
            return e; /* the row is not taken; below that it waits for a disk that works again */
    }
    return push(l, machine, first_seq, wire, n, unix_ms);
}

/* Binds (machine, first_seq) and runs. */
static enum err run_from(struct net_ledger *l, const char *sql, const uint8_t machine[32],
                         uint64_t first_seq)
{
    sqlite3_stmt *s = NULL;
    TRY(ledger_prepare(l, &s, sql));
    (void)sqlite3_bind_blob(s, 1, machine, 32, SQLITE_STATIC);
    (void)sqlite3_bind_int64(s, 2, first_seq > INT64_MAX ? INT64_MAX : (int64_t)first_seq);
    const enum err e = step_once(l, s);
    (void)sqlite3_finalize(s);
    return e;
}

enum err net_ledger_truncate(struct net_ledger *l, const uint8_t machine[32], uint64_t first_seq)
{
    TRY(refuse_read_only(l));
    TRY(net_ledger_flush(l));
    TRY(ledger_exec(l, "BEGIN IMMEDIATE"));
    enum err e =
        run_from(l,
                 "INSERT INTO branch(feed, seq, unix_ms, wire, sum) SELECT feed, seq, unix_ms, "
                 "wire, sum FROM segment "
                 "WHERE feed = (SELECT id FROM feed WHERE machine = ?1) AND seq >= ?2 ORDER BY seq",
                 machine, first_seq);
    if (e == ERR_OK)
        e = run_from(l,
                     "DELETE FROM segment WHERE feed = (SELECT id FROM feed WHERE machine = ?1) "
                     "AND seq >= ?2",
                     machine, first_seq);
    if (e == ERR_OK) {
        char sql[128];
        (void)snprintf(sql, sizeof sql,
                       "DELETE FROM branch WHERE id <= (SELECT max(id) FROM branch) - %d",
                       (int)LIMIT_LEDGER_BRANCH);
        e = ledger_exec(l, sql);
    }
    return ledger_end(l, e);
}

enum err net_ledger_control(struct net_ledger *l, const uint8_t *frame, size_t n)
{
    static const uint8_t nobody[32];
    uint8_t sum[LEDGER_SUM_BYTES];
    sqlite3_stmt *s = NULL;
    TRY(refuse_read_only(l));
    if (n == 0 || n > LIMIT_CONTROL_BYTES)
        return ERR_RANGE;
    TRY(net_ledger_flush(l)); /* an event may speak of segments that still wait */
    ledger_sum(sum, "control", nobody, 0, 0, frame, n);
    TRY(ledger_prepare(l, &s, "INSERT OR IGNORE INTO control(frame, sum) VALUES(?1, ?2)"));
    (void)sqlite3_bind_blob(s, 1, frame, (int)n, SQLITE_STATIC);
    (void)sqlite3_bind_blob(s, 2, sum, sizeof sum, SQLITE_STATIC);
    const enum err e = step_once(l, s); /* outside BEGIN: committed when it returns */
    (void)sqlite3_finalize(s);
    return e;
}

/* ---- reading ---- */

/* What ledger_walk remembers between rows. */
struct walk {
    uint8_t machine[32];
    bool started, broken; /* in a feed; its rest is skipped */
    uint64_t end;         /* where the next segment must start */
    bool whole, own_seen; /* a feed is bad from its start; our own has a sound row */
};

/* One row of `SELECT machine, seq, unix_ms, wire, sum, feed`: true if it is sound and continues its
 * feed. */
static bool row_sound(struct walk *w, sqlite3_stmt *s, bool chained)
{
    const uint8_t *machine = sqlite3_column_blob(s, 0), *wire = sqlite3_column_blob(s, 3),
                  *stored = sqlite3_column_blob(s, 4);
    const size_t n = (size_t)sqlite3_column_bytes(s, 3);
    const uint64_t seq = (uint64_t)sqlite3_column_int64(s, 1);
    uint8_t sum[LEDGER_SUM_BYTES];
    uint64_t end;
    if (!machine || sqlite3_column_bytes(s, 0) != 32) {
        w->started = false;
        return false;
    }
    if (!w->started || memcmp(w->machine, machine, 32) != 0) {
        memcpy(w->machine, machine, 32);
        w->started = true;
        w->broken = false;
        w->end = 0;
    }
    if (w->broken || !wire || !stored || sqlite3_column_bytes(s, 4) != LEDGER_SUM_BYTES ||
        !ledger_shape(wire, n, seq, &end) || (chained && seq != w->end))
        return false;
    ledger_sum(sum, "segment", machine, seq, sqlite3_column_int64(s, 2), wire, n);
    if (memcmp(sum, stored, sizeof sum) != 0)
        return false;
    w->end = end;
    return true;
}

static enum err walk_query(struct net_ledger *l, const char *sql, bool chained, net_ledger_row *row,
                           void *ctx, ledger_bad *bad, void *bad_ctx,
                           struct net_ledger_damage *found)
{
    sqlite3_stmt *s = NULL;
    struct walk w = {.started = false};
    enum err e = ledger_prepare(l, &s, sql);
    int code = SQLITE_DONE;
    while (e == ERR_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        if (row_sound(&w, s, chained)) {
            w.own_seen = w.own_seen || memcmp(w.machine, l->machine, 32) == 0;
            if (row && !row(ctx, w.machine, sqlite3_column_blob(s, 3),
                            (size_t)sqlite3_column_bytes(s, 3), sqlite3_column_int64(s, 2)))
                break;
            continue;
        }
        found->rows++;
        if (!w.broken || !w.started) {
            found->feeds++;
            w.whole = w.whole || !w.started || w.end == 0;
            found->own = found->own || (w.started && memcmp(w.machine, l->machine, 32) == 0);
            if (bad)
                e = bad(bad_ctx, sqlite3_column_int64(s, 5), sqlite3_column_int64(s, 1));
        }
        w.broken = chained;
    }
    if (e == ERR_OK && code != SQLITE_ROW && code != SQLITE_DONE)
        e = ledger_fail(l, "read");
    found->own =
        found->own || (w.whole && !w.own_seen); /* the feed that lost its name may have been ours */
    (void)sqlite3_finalize(s);
    return e;
}

enum err ledger_walk(struct net_ledger *l, net_ledger_row *row, void *ctx, ledger_bad *bad,
                     void *bad_ctx, struct net_ledger_damage *found)
{
    /* CROSS JOIN: SQLite keeps this order of tables, so both indices give the order and nothing is
     * sorted in memory. */
    return walk_query(l,
                      "SELECT f.machine, s.seq, s.unix_ms, s.wire, s.sum, s.feed FROM feed f CROSS "
                      "JOIN segment s "
                      "ON s.feed = f.id ORDER BY f.machine, s.seq",
                      true, row, ctx, bad, bad_ctx, found);
}

enum err net_ledger_each(struct net_ledger *l, net_ledger_row *row, void *ctx)
{
    TRY(net_ledger_flush(l));
    l->walked = (struct net_ledger_damage){.rows = 0};
    return ledger_walk(l, row, ctx, NULL, NULL, &l->walked);
}

enum err net_ledger_each_branch(struct net_ledger *l, net_ledger_row *row, void *ctx)
{
    struct net_ledger_damage ignored = {.rows = 0};
    return walk_query(l,
                      "SELECT f.machine, b.seq, b.unix_ms, b.wire, b.sum, b.feed FROM branch b "
                      "JOIN feed f ON b.feed = f.id "
                      "ORDER BY f.machine, b.seq, b.id",
                      false, row, ctx, NULL, NULL, &ignored);
}

enum err net_ledger_each_control(struct net_ledger *l, net_ledger_control_row *row, void *ctx)
{
    static const uint8_t nobody[32];
    sqlite3_stmt *s = NULL;
    int code = SQLITE_DONE;
    l->walked.controls = 0;
    enum err e = ledger_prepare(l, &s, "SELECT frame, sum FROM control ORDER BY id");
    while (e == ERR_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        const uint8_t *frame = sqlite3_column_blob(s, 0);
        const size_t n = (size_t)sqlite3_column_bytes(s, 0);
        uint8_t sum[LEDGER_SUM_BYTES];
        if (frame)
            ledger_sum(sum, "control", nobody, 0, 0, frame, n);
        if (!frame || sqlite3_column_bytes(s, 1) != LEDGER_SUM_BYTES ||
            memcmp(sum, sqlite3_column_blob(s, 1), sizeof sum) != 0) {
            l->walked.controls++;
            continue;
        }
        if (!row(ctx, frame, n))
            break;
    }
    if (e == ERR_OK && code != SQLITE_ROW && code != SQLITE_DONE)
        e = ledger_fail(l, "read");
    (void)sqlite3_finalize(s);
    return e;
}

const char *net_ledger_error(const struct net_ledger *l)
{
    return l->error;
}

enum err net_ledger_sound(const struct net_ledger *l, struct err_why *why)
{
    const unsigned long long rows = l->walked.rows, controls = l->walked.controls;
    if (rows == 0 && controls == 0)
        return ERR_OK;
    return err_set(why, ERR_FORMAT,
                   "%llu segments and %llu control events of %s are damaged: start the peer (onebyte run), which fetches them again",
                   rows, controls, l->path);
}

void net_ledger_damaged(const struct net_ledger *l, struct net_ledger_damage *out)
{
    *out = l->opened;
    out->rows += l->walked.rows;
    out->feeds += l->walked.feeds;
    out->controls += l->walked.controls;
    out->values += l->walked.values;
    out->own = out->own || l->walked.own;
}
