/* Opening, claiming, mending and rebuilding a ledger; its named values. */
#include "net/ledger_db.h"
#include <onebyte/base/bytes.h>
#include <onebyte/base/limits.h>
#include <onebyte/net/id.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Rows name machines by a small number, `feed`.  The application id reads "oneb". */
static const char schema[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE value(key TEXT PRIMARY KEY, value BLOB NOT NULL, sum BLOB NOT NULL);"
    "CREATE TABLE feed(id INTEGER PRIMARY KEY, machine BLOB NOT NULL UNIQUE);"
    "CREATE TABLE segment(feed INTEGER NOT NULL, seq INTEGER NOT NULL, unix_ms INTEGER NOT NULL, "
    "wire BLOB NOT NULL,"
    " sum BLOB NOT NULL, UNIQUE(feed, seq));"
    "CREATE TABLE branch(id INTEGER PRIMARY KEY AUTOINCREMENT, feed INTEGER NOT NULL, seq INTEGER "
    "NOT NULL,"
    " unix_ms INTEGER NOT NULL, wire BLOB NOT NULL, sum BLOB NOT NULL);"
    "CREATE TABLE control(id INTEGER PRIMARY KEY, frame BLOB NOT NULL UNIQUE, sum BLOB NOT NULL);"
    "PRAGMA application_id = 1869505890;"
    "PRAGMA user_version = 1;"
    "COMMIT";
enum { SCHEMA_VERSION = 1 };

static const uint8_t nobody[32];

/* ---- named values ---- */

static void value_sum(uint8_t sum[LEDGER_SUM_BYTES], const char *key, const void *value, size_t n)
{
    char kind[160];
    (void)snprintf(kind, sizeof kind, "value %s", key);
    ledger_sum(sum, kind, nobody, 0, 0, value, n);
}

enum err ledger_set_raw(struct net_ledger *l, const char *key, const void *value, size_t n)
{
    uint8_t sum[LEDGER_SUM_BYTES];
    sqlite3_stmt *s = NULL;
    value_sum(sum, key, value, n);
    TRY(ledger_prepare(l, &s,
                       value ? "INSERT OR REPLACE INTO value(key, value, sum) VALUES(?1, ?2, ?3)"
                             : "DELETE FROM value WHERE key = ?1"));
    (void)sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
    if (value) {
        (void)sqlite3_bind_blob(s, 2, n ? value : "", (int)n, SQLITE_STATIC);
        (void)sqlite3_bind_blob(s, 3, sum, sizeof sum, SQLITE_STATIC);
    }
    const enum err e = sqlite3_step(s) == SQLITE_DONE ? ERR_OK : ledger_fail(l, "write");
    (void)sqlite3_finalize(s);
    return e;
}

enum err ledger_get_raw(struct net_ledger *l, const char *key, void **value, size_t *n)
{
    uint8_t sum[LEDGER_SUM_BYTES];
    sqlite3_stmt *s = NULL;
    TRY(ledger_prepare(l, &s, "SELECT value, sum FROM value WHERE key = ?1"));
    (void)sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
    const int code = sqlite3_step(s);
    enum err e = ERR_NOTFOUND;
    if (code == SQLITE_ROW) {
        const void *p = sqlite3_column_blob(s, 0);
        const size_t bytes = (size_t)sqlite3_column_bytes(s, 0);
        value_sum(sum, key, p, bytes);
        if (sqlite3_column_bytes(s, 1) == LEDGER_SUM_BYTES &&
            memcmp(sum, sqlite3_column_blob(s, 1), sizeof sum) == 0) {
            void *copy = malloc(bytes + 1); /* and a NUL, so that text can be read as it is */
            e = copy ? ERR_OK : ERR_NOMEM;
            if (copy) {
                if (bytes)
                    memcpy(copy, p, bytes);
                ((char *)copy)[bytes] = 0;
                *value = copy;
                *n = bytes;
            }
        } else {
            l->opened.values++;
        }
    } else if (code != SQLITE_DONE) {
        e = ledger_fail(l, "read");
    }
    (void)sqlite3_finalize(s);
    return e;
}

enum err net_ledger_set(struct net_ledger *l, const char *key, const void *value, size_t n)
{
    if (l->read_only) {
        (void)snprintf(l->error, sizeof l->error, "cannot write %s: it was opened for reading",
                       l->path);
        return ERR_IO;
    }
    if (key[0] == '.' || key[0] == 0 || strlen(key) > 128 || n > LIMIT_LEDGER_VALUE)
        return ERR_RANGE; /* names with a dot are the ledger's own */
    return ledger_set_raw(l, key, value, n);
}

enum err net_ledger_get(struct net_ledger *l, const char *key, void **value, size_t *n)
{
    if (key[0] == '.' || key[0] == 0 || strlen(key) > 128)
        return ERR_RANGE;
    return ledger_get_raw(l, key, value, n);
}

/* ---- whose file, and is it still the same one ---- */

/* inode, birth in seconds and nanoseconds, system, machine */
enum { CLAIM_BYTES = 8 + 8 + 8 + 32 + 32 };

/* The machine-id of the system, hashed (it is meant to stay secret); zeros where there is none. */
static void system_id(uint8_t out[32])
{
    static const char *const paths[] = {"/etc/machine-id", "/var/lib/dbus/machine-id"};
    char text[64];
    memset(out, 0, 32);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        const int fd = open(paths[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        const ssize_t n = read(fd, text, sizeof text);
        (void)close(fd);
        if (n >= 32) {
            const struct net_part parts[] = {{"onebyte/1 system", 17}, {text, 32}};
            net_hash(out, parts, ARRAY_LEN(parts));
            return;
        }
    }
}

static enum err claim_bytes(uint8_t out[CLAIM_BYTES], const struct net_ledger *l,
                            const uint8_t machine[32])
{
    struct statx x;
    if (statx(AT_FDCWD, l->path, 0, STATX_INO | STATX_BTIME, &x) != 0)
        return ERR_IO;
    const bool birth = (x.stx_mask & STATX_BTIME) !=
                       0; /* some file systems keep none: zeros then, at both times */
    bytes_put_le(out, x.stx_ino, 8);
    bytes_put_le(out + 8, birth ? (uint64_t)x.stx_btime.tv_sec : 0, 8);
    bytes_put_le(out + 16, birth ? x.stx_btime.tv_nsec : 0, 8);
    system_id(out + 24);
    memcpy(out + 56, machine, 32);
    return ERR_OK;
}

enum err net_ledger_claim(struct net_ledger *l, const uint8_t machine[32])
{
    uint8_t claim[CLAIM_BYTES];
    TRY(net_ledger_flush(l));
    if (claim_bytes(claim, l, machine) != ERR_OK) {
        (void)snprintf(l->error, sizeof l->error, "cannot examine %s: %s", l->path,
                       strerror(errno));
        return ERR_IO;
    }
    TRY(ledger_set_raw(l, ".claim", claim, sizeof claim));
    memcpy(l->machine, machine, 32);
    return ERR_OK;
}

static bool claimed(struct net_ledger *l)
{
    uint8_t now[CLAIM_BYTES];
    void *then = NULL;
    size_t n = 0;
    if (claim_bytes(now, l, l->machine) != ERR_OK ||
        ledger_get_raw(l, ".claim", &then, &n) != ERR_OK)
        return false;
    const bool same = n == sizeof now && memcmp(now, then, n) == 0;
    free(then);
    return same;
}

/* ---- opening ---- */

/* `file:` address of a path, for flags that only an address carries. */
static char *file_uri(const char *path, const char *flags)
{
    const size_t room = 3 * strlen(path) + strlen(flags) + 8;
    char *uri = malloc(room), *w = uri;
    if (!uri)
        return NULL;
    w += snprintf(w, room, "file:");
    for (const char *p = path; *p; p++) {
        if (strchr("?#%", *p))
            w += snprintf(w, 4, "%%%02x", (unsigned)*p);
        else
            *w++ = *p;
    }
    (void)snprintf(w, room - (size_t)(w - uri), "?%s", flags);
    return uri;
}

static void close_db(struct net_ledger *l)
{
    (void)sqlite3_finalize(l->insert_feed);
    (void)sqlite3_finalize(l->find_feed);
    (void)sqlite3_finalize(l->insert_segment);
    l->insert_feed = l->find_feed = l->insert_segment = NULL;
    (void)sqlite3_close(l->db);
    l->db = NULL;
}

static enum err number_of(struct net_ledger *l, int64_t *out, const char *sql)
{
    sqlite3_stmt *s = NULL;
    TRY(ledger_prepare(l, &s, sql));
    const int code = sqlite3_step(s);
    const enum err e = code == SQLITE_ROW ? ERR_OK : ledger_fail(l, "read");
    if (e == ERR_OK)
        *out = sqlite3_column_int64(s, 0);
    (void)sqlite3_finalize(s);
    return e;
}

static enum err open_db(struct net_ledger *l, const char *name, int flags)
{
    if (sqlite3_open_v2(name, &l->db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return l->db ? ledger_fail(l, "open") : ERR_NOMEM;
    (void)sqlite3_busy_timeout(l->db, 5000);
    return ERR_OK;
}

static bool damaged_file(const struct net_ledger *l)
{
    return l->code == SQLITE_CORRUPT || l->code == SQLITE_NOTADB;
}

/* Opens for reading.  Beside a running peer its WAL is shared; where that can't be (a read-only
 * folder), the file as it lies. */
static enum err open_reading(struct net_ledger *l, int64_t *version)
{
    enum err e = open_db(l, l->path, SQLITE_OPEN_READONLY);
    if (e == ERR_OK)
        e = number_of(l, version, "PRAGMA user_version");
    if (e == ERR_OK || damaged_file(l))
        return e;
    close_db(l);
    char *uri = file_uri(l->path, "immutable=1");
    if (!uri)
        return ERR_NOMEM;
    e = open_db(l, uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
    free(uri);
    return e == ERR_OK ? number_of(l, version, "PRAGMA user_version") : e;
}

static enum err open_writing(struct net_ledger *l, int64_t *version)
{
    TRY(open_db(l, l->path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
    /* FULL: each commit is on the disk when it returns; WAL: readers beside the writer, one fsync a
     * commit. */
    TRY(ledger_exec(l, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA "
                       "journal_size_limit = 16777216"));
    TRY(number_of(l, version, "PRAGMA user_version"));
    if (*version == 0) {
        TRY(ledger_exec(l, schema));
        TRY(ledger_set_raw(l, ".run", l->run_id, 32));
        *version = SCHEMA_VERSION;
    }
    return ERR_OK;
}

static enum err same_run(struct net_ledger *l, struct err_why *why)
{
    void *run = NULL;
    size_t n = 0;
    const enum err e = ledger_get_raw(l, ".run", &run, &n);
    if (e != ERR_OK && e != ERR_NOTFOUND)
        return e;
    /* Without its name the rows decide: a segment of another run fails its signature. */
    const bool same = e == ERR_NOTFOUND || (n == 32 && memcmp(run, l->run_id, 32) == 0);
    free(run);
    if (!same)
        return err_set(
            why, ERR_FORMAT,
            "%s is the ledger of another run: use another --home, or the manifest it was made for",
            l->path);
    return ERR_OK;
}

/* ---- mending rows ---- */

struct bad_list {
    struct bad_place {
        int64_t feed, from;
    } * at;
    size_t n, room;
};

static enum err note_bad(void *ctx, int64_t feed, int64_t from)
{
    struct bad_list *b = ctx;
    if (b->n == b->room) {
        const size_t room = b->room ? 2 * b->room : 16;
        struct bad_place *at = realloc(b->at, room * sizeof *at);
        if (!at)
            return ERR_NOMEM;
        b->at = at;
        b->room = room;
    }
    b->at[b->n++] = (struct bad_place){feed, from};
    return ERR_OK;
}

/* SQLite reads every page of every table; what it cannot follow shows here, not in the midst of a
 * run. */
static enum err structure_sound(struct net_ledger *l)
{
    sqlite3_stmt *s = NULL;
    TRY(ledger_prepare(l, &s, "PRAGMA quick_check(1)"));
    const int code = sqlite3_step(s);
    enum err e = ERR_OK;
    if (code != SQLITE_ROW) {
        e = ledger_fail(l, "read");
    } else if (strcmp((const char *)sqlite3_column_text(s, 0), "ok") != 0) {
        e = ledger_fail(l, "read");
        l->code = SQLITE_CORRUPT;
    }
    (void)sqlite3_finalize(s);
    return e;
}

/* Every row is read once; what does not hold is deleted.  Own feed damaged: the claim goes too, so
 * that the key rests. */
static enum err mend(struct net_ledger *l)
{
    struct bad_list b = {.at = NULL};
    enum err e = ledger_walk(l, NULL, NULL, note_bad, &b, &l->opened);
    if (e == ERR_OK && b.n > 0) {
        e = ledger_exec(l, "BEGIN IMMEDIATE");
        for (size_t i = 0; i < b.n && e == ERR_OK; i++) {
            char sql[160];
            (void)snprintf(sql, sizeof sql, "DELETE FROM segment WHERE feed = %lld AND seq >= %lld",
                           (long long)b.at[i].feed, (long long)b.at[i].from);
            e = ledger_exec(l, sql);
        }
        if (e == ERR_OK && l->opened.own)
            e = ledger_set_raw(l, ".claim", NULL, 0);
        e = ledger_end(l, e);
    }
    free(b.at);
    return e;
}

/* ---- rebuilding a file that SQLite can't read ---- */

static enum err set_aside(const struct net_ledger *l, char **aside, struct err_why *why)
{
    static const char *const tails[] = {
        "", "-wal"}; /* -shm is only an index of -wal and is made again */
    const size_t room = strlen(l->path) + 16;
    char *from = malloc(room), *to = malloc(room);
    enum err e = from && to ? ERR_OK : ERR_NOMEM;
    for (size_t i = 0; i < ARRAY_LEN(tails) && e == ERR_OK; i++) {
        (void)snprintf(from, room, "%s%s", l->path, tails[i]);
        (void)snprintf(to, room, "%s.damaged%s", l->path, tails[i]);
        (void)unlink(to);
        if (rename(from, to) != 0 && errno != ENOENT)
            e = err_set(why, ERR_IO, "cannot rename the damaged %s: %s", from, strerror(errno));
    }
    if (e == ERR_OK) {
        (void)snprintf(from, room, "%s-shm", l->path);
        (void)unlink(from);
        (void)snprintf(to, room, "%s.damaged-shm", l->path);
        (void)unlink(to);
        (void)snprintf(to, room, "%s.damaged", l->path);
        *aside = to;
        to = NULL;
    }
    free(from);
    free(to);
    return e;
}

static bool copy_segment(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n,
                         int64_t unix_ms)
{
    return net_ledger_append(ctx, machine, bytes_get_le(wire + 4, 8), wire, n, false, unix_ms) ==
           ERR_OK;
}

static bool copy_control(void *ctx, const uint8_t *frame, size_t n)
{
    return net_ledger_control(ctx, frame, n) == ERR_OK;
}

/* Copies what is readable; every failure to read only ends the copying: the network has the rest.
 */
static void salvage(struct net_ledger *l, const char *aside)
{
    struct net_ledger old = {.path = (char *)(uintptr_t)aside, .read_only = true};
    int64_t version = 0;
    memcpy(old.run_id, l->run_id, 32);
    if (open_db(&old, aside, SQLITE_OPEN_READWRITE) == ERR_OK &&
        number_of(&old, &version, "PRAGMA user_version") == ERR_OK && version == SCHEMA_VERSION &&
        same_run(&old, NULL) == ERR_OK) {
        if (net_ledger_each(&old, copy_segment, l) != ERR_OK ||
            net_ledger_each_control(&old, copy_control, l) != ERR_OK)
            l->opened.rows++; /* how many more there were can't be known */
        l->opened.rows += old.walked.rows;
        l->opened.feeds += old.walked.feeds;
        l->opened.controls += old.walked.controls;
    }
    close_db(&old);
}

static enum err rebuild(struct net_ledger *l, struct err_why *why)
{
    char *aside = NULL;
    int64_t version = 0;
    close_db(l);
    TRY(set_aside(l, &aside, why));
    enum err e = open_writing(l, &version);
    if (e == ERR_OK) {
        salvage(l, aside);
        e = net_ledger_flush(l);
    }
    l->opened.rebuilt = l->opened.own = true; /* how far the own feed went is not known any more */
    free(aside);
    return e;
}

static enum err start_writing(struct net_ledger *l, struct err_why *why)
{
    int64_t version = 0;
    enum err e = open_writing(l, &version);
    if (e == ERR_OK && version > SCHEMA_VERSION)
        return err_set(why, ERR_FORMAT,
                       "%s was written by a newer onebyte (ledger version %lld): update this one",
                       l->path, (long long)version);
    if (e == ERR_OK)
        e = same_run(l, why);
    if (e == ERR_FORMAT)
        return e;
    if (e == ERR_OK)
        e = structure_sound(l);
    if (e == ERR_OK)
        e = mend(l);
    if (e != ERR_OK && damaged_file(l)) {
        l->opened = (struct net_ledger_damage){.rows = 0};
        e = rebuild(l, why);
    }
    return e;
}

static enum err start_reading(struct net_ledger *l, struct err_why *why)
{
    int64_t version = 0;
    if (access(l->path, F_OK) != 0)
        return err_set(why, ERR_NOTFOUND, "there is no ledger at %s: no peer ran here yet",
                       l->path);
    TRY(open_reading(l, &version));
    if (version == 0)
        return err_set(why, ERR_NOTFOUND, "the ledger %s is empty: no peer ran here yet", l->path);
    if (version > SCHEMA_VERSION)
        return err_set(why, ERR_FORMAT,
                       "%s was written by a newer onebyte (ledger version %lld): update this one",
                       l->path, (long long)version);
    return same_run(l, why);
}

enum err net_ledger_open(struct net_ledger **out, const char *path, const uint8_t run_id[32],
                         const uint8_t machine[32], bool read_only, bool *fresh,
                         struct err_why *why)
{
    struct net_ledger *l = calloc(1, sizeof *l);
    if (why)
        why->text[0] = 0;
    if (!l || !(l->path = strdup(path))) {
        free(l);
        return err_set(why, ERR_NOMEM, "out of memory");
    }
    memcpy(l->run_id, run_id, 32);
    memcpy(l->machine, machine, 32);
    l->read_only = read_only;
    const enum err e = read_only ? start_reading(l, why) : start_writing(l, why);
    if (e != ERR_OK) {
        if (why && !why->text[0])
            (void)err_set(why, e, "%s", l->error[0] ? l->error : err_str(e));
        net_ledger_close(l);
        return e;
    }
    if (fresh)
        *fresh = !read_only && !claimed(l);
    *out = l;
    return ERR_OK;
}

void net_ledger_close(struct net_ledger *l)
{
    if (!l)
        return;
    if (l->db && !l->read_only && net_ledger_flush(l) != ERR_OK)
        l->error[0] = 0; /* foreign segments only: the network has them */
    for (size_t i = 0; i < l->n_waiting; i++)
        free(l->waiting[i].wire);
    free(l->waiting);
    close_db(l);
    free(l->path);
    free(l);
}
