#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <onebyte/net/ledger.h>
#include <onebyte/base/bytes.h>
#include <onebyte/base/limits.h>
#include <onebyte/net/id.h>
#include <onebyte/net/segment.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint8_t run[32] = {1}, me[32] = {50}, foreign[32] = {9}, third[32] = {200};
static char folder[64], path[96], other[96];

static int make_folder(void **state)
{
    (void)state;
    snprintf(
        folder, sizeof folder,
        "/dev/shm/onebyte-ledger-XXXXXX"); /* in memory: hundreds of commits, each with its fsync */
    if (!mkdtemp(folder)) {
        snprintf(folder, sizeof folder, "/tmp/onebyte-ledger-XXXXXX");
        if (!mkdtemp(folder))
            return -1;
    }
    snprintf(path, sizeof path, "%s/ledger.db", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"ledger.db",
                                        "ledger.db-wal",
                                        "ledger.db-shm",
                                        "ledger.db.damaged",
                                        "ledger.db.damaged-wal",
                                        "ledger.db.damaged-shm",
                                        "other",
                                        "other-wal",
                                        "other-shm",
                                        "other.part",
                                        "pipe"};
    char name[128];
    (void)chmod(folder, 0700);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(name, sizeof name, "%s/%s", folder, names[i]);
        (void)unlink(name);
    }
    return rmdir(folder);
}

/* Wire bytes with the shape of a segment; the ledger does not look at signatures. */
static size_t make_wire(uint8_t wire[NET_SEGMENT_BYTES_MAX], uint64_t first_seq, unsigned count,
                        uint8_t salt)
{
    const size_t n = NET_SEGMENT_HEAD + count + NET_SIG_BYTES;
    for (size_t i = 0; i < n; i++)
        wire[i] = (uint8_t)(salt + i * 7);
    wire[0] = 1;
    wire[1] = 0;
    bytes_put_le(wire + 2, count, 2);
    bytes_put_le(wire + 4, first_seq, 8);
    return n;
}

static struct net_ledger *open_as(const uint8_t machine[32], bool *fresh)
{
    struct net_ledger *l = NULL;
    struct err_why why = {""};
    if (net_ledger_open(&l, path, run, machine, false, fresh, &why) != ERR_OK)
        fail_msg("%s", why.text);
    return l;
}

static struct net_ledger *open_mine(void)
{
    bool fresh;
    return open_as(me, &fresh);
}

static void add(struct net_ledger *l, const uint8_t machine[32], uint64_t first_seq, unsigned count,
                bool own)
{
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    const size_t n = make_wire(wire, first_seq, count, machine[0]);
    assert_int_equal(
        net_ledger_append(l, machine, first_seq, wire, n, own, 1000 + (int64_t)first_seq), ERR_OK);
}

struct seen {
    size_t rows, controls;
    uint64_t end[256]; /* per first byte of the machine */
    int last;
    bool ordered, sound;
    size_t stop_after;
};

static bool see(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n,
                int64_t unix_ms)
{
    struct seen *s = ctx;
    uint8_t want[NET_SEGMENT_BYTES_MAX];
    const uint64_t first = bytes_get_le(wire + 4, 8), count = bytes_get_le(wire + 2, 2);
    s->ordered = s->ordered && machine[0] >= s->last && first == s->end[machine[0]];
    s->sound = s->sound && n == make_wire(want, first, (unsigned)count, machine[0]) &&
               memcmp(want, wire, n) == 0 && unix_ms == 1000 + (int64_t)first;
    s->last = machine[0];
    s->end[machine[0]] = first + count;
    s->rows++;
    return s->stop_after == 0 || s->rows < s->stop_after;
}

static bool see_control(void *ctx, const uint8_t *frame, size_t n)
{
    struct seen *s = ctx;
    s->sound = s->sound && n > 0 && frame[0] == 'c';
    s->controls++;
    return true;
}

static struct seen look(struct net_ledger *l)
{
    struct seen s = {.ordered = true, .sound = true};
    assert_int_equal(net_ledger_each(l, see, &s), ERR_OK);
    assert_true(s.ordered && s.sound);
    assert_int_equal(net_ledger_each_control(l, see_control, &s), ERR_OK);
    return s;
}

static struct net_ledger_damage damage(const struct net_ledger *l)
{
    struct net_ledger_damage d;
    net_ledger_damaged(l, &d);
    return d;
}

/* Changes the file behind the ledger's back, through SQLite. */
static void meddle(const char *sql)
{
    sqlite3 *db;
    char *text = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &text) != SQLITE_OK)
        fail_msg("%s", text);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* ---- the plain life ---- */

static void what_goes_in_comes_out_in_order(void **state)
{
    (void)state;
    struct net_ledger *l = open_mine();
    add(l, third, 0, 5, false);
    add(l, me, 0, 256, true);
    add(l, foreign, 0, 1024, false);
    add(l, foreign, 1024, 1, false);
    add(l, me, 256, 8, true);
    assert_int_equal(net_ledger_control(l, (const uint8_t *)"c1", 2), ERR_OK);
    assert_int_equal(net_ledger_control(l, (const uint8_t *)"c2", 2), ERR_OK);
    assert_int_equal(net_ledger_control(l, (const uint8_t *)"c1", 2), ERR_OK); /* known already */
    for (int again = 0; again < 2; again++) {
        const struct seen s = look(l);
        assert_int_equal(s.rows, 5);
        assert_int_equal(s.controls, 2);
        assert_int_equal(s.end[me[0]], 264);
        assert_int_equal(s.end[foreign[0]], 1025);
        assert_int_equal(s.end[third[0]], 5);
        net_ledger_close(l);
        l = open_mine();
    }
    struct seen few = {.ordered = true, .sound = true, .stop_after = 2};
    assert_int_equal(net_ledger_each(l, see, &few), ERR_OK);
    assert_int_equal(few.rows, 2);
    assert_int_equal(damage(l).rows, 0);
    net_ledger_close(l);
    net_ledger_close(NULL);
}

static void named_values_are_kept(void **state)
{
    (void)state;
    struct net_ledger *l = open_mine();
    void *value = NULL;
    size_t n = 77;
    assert_int_equal(net_ledger_get(l, "status", &value, &n), ERR_NOTFOUND);
    assert_null(value);
    assert_int_equal(net_ledger_set(l, "status", "one", 3), ERR_OK);
    assert_int_equal(net_ledger_set(l, "status", "three", 5), ERR_OK);
    assert_int_equal(net_ledger_set(l, "empty", "", 0), ERR_OK);
    net_ledger_close(l);
    l = open_mine();
    assert_int_equal(net_ledger_get(l, "status", &value, &n), ERR_OK);
    assert_int_equal(n, 5);
    assert_string_equal(value, "three");
    free(value);
    assert_int_equal(net_ledger_get(l, "empty", &value, &n), ERR_OK);
    assert_int_equal(n, 0);
    free(value);
    assert_int_equal(net_ledger_set(l, "status", NULL, 0), ERR_OK);
    assert_int_equal(net_ledger_get(l, "status", &value, &n), ERR_NOTFOUND);
    assert_int_equal(net_ledger_set(l, ".claim", "x", 1), ERR_RANGE);
    assert_int_equal(net_ledger_get(l, ".run", &value, &n), ERR_RANGE);
    assert_int_equal(net_ledger_set(l, "", "x", 1), ERR_RANGE);
    net_ledger_close(l);
    meddle("UPDATE value SET value = x'00' WHERE key = 'empty'");
    l = open_mine();
    assert_int_equal(net_ledger_get(l, "empty", &value, &n),
                     ERR_NOTFOUND); /* damaged is as good as none */
    assert_int_equal(damage(l).values, 1);
    net_ledger_close(l);
}

static void what_is_no_segment_is_refused(void **state)
{
    (void)state;
    struct net_ledger *l = open_mine();
    uint8_t wire[NET_SEGMENT_BYTES_MAX + 1] = {0};
    const size_t n = make_wire(wire, 7, 3, 1);
    assert_int_equal(net_ledger_append(l, me, 8, wire, n, true, 0), ERR_RANGE);
    assert_int_equal(net_ledger_append(l, me, 7, wire, n - 1, true, 0), ERR_RANGE);
    assert_int_equal(net_ledger_append(l, me, 7, wire, n + 1, false, 0), ERR_RANGE);
    assert_int_equal(net_ledger_append(l, me, 7, wire, 0, false, 0), ERR_RANGE);
    assert_int_equal(net_ledger_control(l, wire, 0), ERR_RANGE);
    assert_int_equal(look(l).rows, 0);
    net_ledger_close(l);
}

/* An own segment never replaces another at its place: that would be the fork. */
static void an_own_seq_is_not_used_twice(void **state)
{
    (void)state;
    struct net_ledger *l = open_mine();
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    add(l, me, 0, 10, true);
    add(l, me, 0, 10, true); /* the same: nothing happens */
    const size_t n = make_wire(wire, 0, 10, 99);
    assert_int_equal(net_ledger_append(l, me, 0, wire, n, true, 0), ERR_RANGE);
    const struct seen s = look(l);
    assert_int_equal(s.rows, 1);
    net_ledger_close(l);
}

static void truncation_keeps_the_branch_aside(void **state)
{
    (void)state;
    struct net_ledger *l = open_mine();
    for (uint64_t seq = 0; seq < 50; seq += 10)
        add(l, foreign, seq, 10, false);
    add(l, third, 0, 4, false);
    assert_int_equal(net_ledger_truncate(l, foreign, 30), ERR_OK);
    assert_int_equal(net_ledger_truncate(l, foreign, UINT64_MAX), ERR_OK);
    net_ledger_close(l);
    l = open_mine();
    const struct seen s = look(l);
    assert_int_equal(s.end[foreign[0]], 30);
    assert_int_equal(s.end[third[0]], 4);
    struct seen branch = {.sound = true};
    assert_int_equal(net_ledger_each_branch(l, see, &branch), ERR_OK);
    assert_true(branch.sound);
    assert_int_equal(branch.rows, 2);
    add(l, foreign, 30, 20, false); /* another branch takes the place */
    assert_int_equal(look(l).end[foreign[0]], 50);
    net_ledger_close(l);
}

/* ---- readers ---- */

static void a_reader_works_beside_the_writer_and_after_it(void **state)
{
    (void)state;
    struct net_ledger *w, *r = NULL;
    struct err_why why = {""};
    bool fresh = true;
    assert_int_equal(net_ledger_open(&r, path, run, me, true, &fresh, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, "no peer ran here"));
    w = open_mine();
    add(w, me, 0, 10, true);
    assert_int_equal(net_ledger_open(&r, path, run, me, true, &fresh, &why), ERR_OK);
    assert_false(fresh);
    assert_int_equal(look(r).end[me[0]], 10);
    add(w, me, 10, 10, true);
    assert_int_equal(look(r).end[me[0]], 20); /* what is acknowledged is visible */
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    const size_t n = make_wire(wire, 20, 1, me[0]);
    assert_int_equal(net_ledger_append(r, me, 20, wire, n, true, 0), ERR_IO);
    assert_int_equal(net_ledger_control(r, wire, 1), ERR_IO);
    assert_int_equal(net_ledger_set(r, "a", "b", 1), ERR_IO);
    assert_int_equal(net_ledger_truncate(r, me, 0), ERR_IO);
    assert_non_null(strstr(net_ledger_error(r), "opened for reading"));
    net_ledger_close(w);
    assert_int_equal(look(r).end[me[0]], 20);
    net_ledger_close(r);
    assert_int_equal(net_ledger_open(&r, path, run, me, true, &fresh, &why), ERR_OK);
    assert_int_equal(look(r).end[me[0]], 20);
    net_ledger_close(r);
}

static void another_runs_ledger_is_refused(void **state)
{
    (void)state;
    struct net_ledger *l = open_mine(), *x = NULL;
    static const uint8_t run2[32] = {2};
    struct err_why why = {""};
    bool fresh;
    add(l, me, 0, 10, true);
    net_ledger_close(l);
    assert_int_equal(net_ledger_open(&x, path, run2, me, false, &fresh, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "another run"));
    assert_int_equal(net_ledger_open(&x, path, run2, me, true, &fresh, &why), ERR_FORMAT);
    meddle("PRAGMA user_version = 2");
    assert_int_equal(net_ledger_open(&x, path, run, me, false, &fresh, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "newer"));
    assert_int_equal(
        net_ledger_open(&x, "/nonexistent/folder/ledger.db", run, me, false, &fresh, &why), ERR_IO);
    assert_null(x);
    meddle("PRAGMA user_version = 1");
    l = open_mine(); /* refusing changed nothing */
    assert_int_equal(look(l).rows, 1);
    net_ledger_close(l);
}

/* ---- the same file, the same machine? ---- */

static void copy_file(const char *from, const char *to)
{
    char block[4096];
    const int in = open(from, O_RDONLY | O_CLOEXEC),
              out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n;
    assert_true(in >= 0 && out >= 0);
    while ((n = read(in, block, sizeof block)) > 0)
        assert_int_equal(write(out, block, (size_t)n), n);
    close(in);
    close(out);
}

static void a_ledger_is_fresh_until_claimed_and_after_a_copy(void **state)
{
    (void)state;
    bool fresh = false;
    struct net_ledger *l = open_as(me, &fresh);
    assert_true(fresh);
    net_ledger_close(l);
    l = open_as(me, &fresh);
    assert_true(fresh); /* a crash before the claim changes nothing */
    assert_int_equal(net_ledger_claim(l, me), ERR_OK);
    add(l, me, 0, 10, true);
    net_ledger_close(l);
    l = open_as(me, &fresh);
    assert_false(fresh);
    net_ledger_close(l);
    l = open_as(third, &fresh);
    assert_true(fresh); /* another key */
    net_ledger_close(l);
    copy_file(path, other); /* restored from a backup: the same bytes, another file */
    assert_int_equal(rename(other, path), 0);
    l = open_as(me, &fresh);
    assert_true(fresh);
    assert_int_equal(look(l).rows, 1); /* its contents are good */
    net_ledger_close(l);
    l = open_as(me, &fresh);
    assert_true(fresh); /* for ever, with the old key */
    assert_int_equal(net_ledger_claim(l, third), ERR_OK);
    net_ledger_close(l);
    l = open_as(third, &fresh);
    assert_false(fresh);
    net_ledger_close(l);
    assert_int_equal(unlink(path), 0);
    l = open_as(third, &fresh);
    assert_true(fresh); /* the ledger is missing */
    net_ledger_close(l);
}

/* ---- damage ---- */

static void fill(void)
{
    struct net_ledger *l = open_mine();
    assert_int_equal(net_ledger_claim(l, me), ERR_OK);
    for (uint64_t seq = 0; seq < 100; seq += 10) {
        add(l, foreign, seq, 10, false);
        add(l, me, seq, 10, true);
        add(l, third, seq, 10, false);
    }
    assert_int_equal(net_ledger_control(l, (const uint8_t *)"c1", 2), ERR_OK);
    net_ledger_close(l);
}

/* A damaged or missing row ends its feed there, and no other; opening for reading skips, for
 * writing mends. */
static void a_damaged_row_ends_its_feed_only(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        uint64_t end;
        unsigned rows, bad_feeds;
    } cases[] = {
        {"UPDATE segment SET wire = zeroblob(114) WHERE seq = 40 AND feed = %d", 40, 6, 1},
        {"UPDATE segment SET wire = substr(wire, 1, 113) WHERE seq = 90 AND feed = %d", 90, 1, 1},
        {"UPDATE segment SET unix_ms = 5 WHERE seq = 50 AND feed = %d", 50, 5, 1},
        {"UPDATE segment SET sum = x'00' WHERE seq = 50 AND feed = %d", 50, 5, 1},
        {"DELETE FROM segment WHERE seq = 20 AND feed = %d", 20, 7, 1},
        {"UPDATE segment SET seq = 1000 WHERE seq = 30 AND feed = %d", 30, 7, 1},
        {"DELETE FROM segment WHERE seq = 0 AND feed = %d", 0, 9, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (int own = 0; own < 2; own++) {
            struct net_ledger *l = NULL;
            bool fresh = false;
            char sql[160];
            fill();
            snprintf(sql, sizeof sql, cases[i].sql, own ? 2 : 1);
            meddle(sql);
            assert_int_equal(net_ledger_open(&l, path, run, me, true, &fresh, NULL), ERR_OK);
            const uint64_t end = look(l).end[own ? me[0] : foreign[0]];
            assert_int_equal(end, cases[i].end);
            assert_int_equal(damage(l).rows, cases[i].rows);
            assert_int_equal(damage(l).feeds, cases[i].bad_feeds);
            net_ledger_close(l);
            l = open_as(me, &fresh);
            assert_int_equal(damage(l).rows, cases[i].rows);
            assert_int_equal(damage(l).own, own);
            assert_int_equal(fresh, own); /* how far our feed went is not known: the key rests */
            struct seen s = look(l);
            assert_int_equal(s.end[own ? me[0] : foreign[0]], cases[i].end);
            assert_int_equal(s.end[own ? foreign[0] : me[0]], 100);
            assert_int_equal(s.end[third[0]], 100);
            for (uint64_t seq = cases[i].end; seq < 100; seq += 10)
                add(l, own ? me : foreign, seq, 10, false); /* what gossip brings again */
            net_ledger_close(l);
            l = open_as(me, &fresh);
            s = look(l);
            assert_int_equal(s.rows, 30);
            assert_int_equal(damage(l).rows, 0);
            net_ledger_close(l);
            assert_int_equal(unlink(path), 0);
        }
    }
}

static void a_feed_that_lost_its_name_may_have_been_ours(void **state)
{
    (void)state;
    bool fresh = false;
    fill();
    meddle("UPDATE feed SET machine = x'0102' WHERE id = 2");
    struct net_ledger *l = open_as(me, &fresh);
    assert_true(fresh);
    assert_true(damage(l).own);
    assert_int_equal(look(l).rows, 20);
    net_ledger_close(l);
    assert_int_equal(unlink(path), 0);
    fill();
    meddle("UPDATE feed SET machine = zeroblob(32) WHERE id = 2");
    l = open_as(me, &fresh);
    assert_true(fresh);
    net_ledger_close(l);
}

static void a_damaged_control_is_skipped(void **state)
{
    (void)state;
    fill();
    meddle("UPDATE control SET frame = x'63FF'");
    struct net_ledger *l = open_mine();
    assert_int_equal(look(l).controls, 0);
    assert_int_equal(damage(l).controls, 1);
    net_ledger_close(l);
}

static void overwrite(off_t at, size_t n, uint8_t value)
{
    uint8_t block[4096];
    memset(block, value, sizeof block);
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (; n > 0; n -= n < sizeof block ? n : sizeof block, at += (off_t)sizeof block)
        assert_true(pwrite(fd, block, n < sizeof block ? n : sizeof block, at) > 0);
    close(fd);
}

static off_t file_size(const char *name)
{
    struct stat s;
    return stat(name, &s) == 0 ? s.st_size : -1;
}

/* Whatever is damaged in the file itself, opening ends in a ledger that works, keeps what is
 * readable, and rests the key. */
static void a_damaged_file_is_set_aside_and_rebuilt(void **state)
{
    (void)state;
    char aside[128];
    snprintf(aside, sizeof aside, "%s.damaged", path);
    for (int where = 0; where < 12; where++) {
        bool fresh = false;
        fill();
        const off_t size = file_size(path);
        if (where == 0)
            overwrite(0, 100, 0xAA); /* no SQLite file any more */
        else if (where == 1)
            assert_int_equal(truncate(path, size / 2), 0);
        else if (where == 2)
            assert_int_equal(truncate(path, 10), 0);
        else
            overwrite(size * (where - 2) / 10 / 4096 * 4096, 4096, where % 2 ? 0xFF : 0x00);
        struct net_ledger *l = open_as(me, &fresh);
        struct net_ledger_damage d = damage(l);
        const struct seen s = look(l);
        assert_true(s.rows <= 30);
        if (d.rebuilt) {
            assert_true(fresh);
            assert_true(file_size(aside) >= 0);
        }
        if (where < 3)
            assert_true(d.rebuilt);
        assert_true(d.rebuilt || d.rows > 0 || d.controls > 0 || s.rows == 30);
        add(l, me, s.end[me[0]], 10, true);
        net_ledger_close(l);
        l = open_mine();
        assert_int_equal(look(l).rows, s.rows + 1);
        net_ledger_close(l);
        (void)unlink(aside);
        assert_int_equal(unlink(path), 0);
    }
}

/* Bytes flipped anywhere: never a crash, never a row that differs from what was stored. */
static void flipped_bytes_are_never_believed(void **state)
{
    (void)state;
    fill();
    copy_file(path, other);
    const off_t size = file_size(other);
    uint32_t x = 12345;
    for (int i = 0; i < 60; i++) {
        bool fresh;
        char extra[128];
        copy_file(other, path);
        for (int k = 0; k < 8; k++) {
            x = x * 1664525u + 1013904223u;
            overwrite((off_t)(x % (uint32_t)size), 1, (uint8_t)(x >> 24));
        }
        struct net_ledger *l = NULL;
        struct err_why why = {""};
        const enum err e = net_ledger_open(&l, path, run, me, false, &fresh, &why);
        if (e == ERR_OK) {
            struct seen s = {.ordered = true, .sound = true};
            (void)!net_ledger_each(l, see, &s);
            assert_true(s.ordered && s.sound);
            assert_true(s.rows <= 30);
            net_ledger_close(l);
        } else {
            assert_true(why.text[0] != 0);
        }
        static const char *const tails[] = {"",         "-wal",         "-shm",
                                            ".damaged", ".damaged-wal", ".damaged-shm"};
        for (size_t k = 0; k < ARRAY_LEN(tails); k++) {
            snprintf(extra, sizeof extra, "%s%s", path, tails[k]);
            (void)unlink(extra);
        }
    }
}

/* ---- crash and full disk ---- */

/* A child appends own segments and reports each acknowledgement; it is killed at any moment.
 * Nothing acknowledged may be lost. */
static void nothing_acknowledged_is_lost_to_kill_9(void **state)
{
    (void)state;
    uint64_t acknowledged = 0;
    for (int round = 0; round < 12; round++) {
        int ends[2];
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct net_ledger *l = NULL;
            bool fresh;
            uint8_t wire[NET_SEGMENT_BYTES_MAX];
            if (net_ledger_open(&l, path, run, me, false, &fresh, NULL) != ERR_OK)
                _exit(1);
            struct seen s = {.ordered = true, .sound = true};
            if (net_ledger_each(l, see, &s) != ERR_OK || !s.ordered || !s.sound)
                _exit(2);
            for (uint64_t seq = s.end[me[0]], f = s.end[foreign[0]];; seq += 10, f += 3) {
                const size_t nf = make_wire(wire, f, 3, foreign[0]);
                if (net_ledger_append(l, foreign, f, wire, nf, false, 1000 + (int64_t)f) != ERR_OK)
                    _exit(3);
                const size_t n = make_wire(wire, seq, 10, me[0]);
                if (net_ledger_append(l, me, seq, wire, n, true, 1000 + (int64_t)seq) != ERR_OK)
                    _exit(4);
                const uint64_t end = seq + 10;
                if (write(ends[1], &end, sizeof end) != sizeof end)
                    _exit(5);
            }
        }
        close(ends[1]);
        uint64_t end = 0;
        for (int i = 0; i < 5 + round;
             i++) { /* let it get somewhere, then kill it in the midst of things */
            assert_int_equal(read(ends[0], &end, sizeof end), sizeof end);
            acknowledged = end;
        }
        assert_int_equal(kill(child, SIGKILL), 0);
        while (read(ends[0], &end, sizeof end) == sizeof end)
            acknowledged = end;
        close(ends[0]);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        struct net_ledger *l = open_mine();
        const struct seen s = look(l);
        assert_true(s.end[me[0]] >= acknowledged);
        assert_true(s.end[me[0]] <=
                    acknowledged + 10); /* one may have been stored but not yet acknowledged */
        assert_int_equal(damage(l).rows, 0);
        net_ledger_close(l);
    }
}

/* A full disk, by a limit on file sizes: appends fail with a line, nothing stored is lost, and all
 * goes on when there is room. */
static void a_full_disk_loses_nothing(void **state)
{
    (void)state;
    struct net_ledger *l = open_mine();
    struct rlimit old, small;
    add(l, me, 0, 10, true);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 100 * 1024;
    void (*const before)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    uint64_t seq = 10;
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    enum err e = ERR_OK;
    uint64_t f = 0;
    while (e == ERR_OK && seq < 2000000) {
        size_t n = make_wire(wire, f, 100, foreign[0]);
        assert_int_equal(net_ledger_append(l, foreign, f, wire, n, false, 1000 + (int64_t)f),
                         ERR_OK);
        f += 100;
        n = make_wire(wire, seq, 1000, me[0]);
        e = net_ledger_append(l, me, seq, wire, n, true, 1000 + (int64_t)seq);
        if (e == ERR_OK)
            seq += 1000;
    }
    char line[512];
    snprintf(line, sizeof line, "%s", net_ledger_error(l));
    const enum err flushed = net_ledger_flush(l);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, before);
    assert_int_equal(e, ERR_IO);
    assert_int_equal(flushed, ERR_IO);
    assert_non_null(strstr(line, "ledger.db"));
    assert_null(strchr(line, '\n'));
    assert_int_equal(net_ledger_flush(l), ERR_OK); /* there is room again: what waited is written */
    struct seen s = look(l);
    assert_int_equal(s.end[me[0]], seq);
    assert_int_equal(s.end[foreign[0]], f);
    add(l, me, seq, 10, true); /* the seq that failed was never used */
    net_ledger_close(l);
    l = open_mine();
    s = look(l);
    assert_int_equal(s.end[me[0]], seq + 10);
    assert_int_equal(s.end[foreign[0]], f);
    net_ledger_close(l);
}

/* SQLite's own "full": the line says what to do. */
static void the_line_for_a_full_disk_says_what_to_do(void **state)
{
    (void)state;
    struct net_ledger *l = open_mine();
    add(l, me, 0, 10, true);
    net_ledger_close(l);
    l = open_mine();
    sqlite3 *db = *(sqlite3 **)(void *)l; /* the first member; SQLite's limit is per connection */
    assert_int_equal(sqlite3_exec(db, "PRAGMA max_page_count = 1", NULL, NULL, NULL), SQLITE_OK);
    enum err e = ERR_OK;
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    uint64_t seq = 10;
    for (; e == ERR_OK && seq < 100000; seq += 1000) {
        const size_t n = make_wire(wire, seq, 1000, me[0]);
        e = net_ledger_append(l, me, seq, wire, n, true, 1000 + (int64_t)seq);
    }
    assert_int_equal(e, ERR_IO);
    assert_non_null(strstr(net_ledger_error(l), "free some space"));
    net_ledger_close(l);
}

/* ---- the portable file ---- */

static void a_ledger_goes_through_its_portable_file(void **state)
{
    (void)state;
    uint8_t run_id[32];
    struct err_why why = {""};
    fill();
    struct net_ledger *l = open_mine();
    assert_int_equal(net_ledger_export(l, other, &why), ERR_OK);
    net_ledger_close(l);
    struct seen s = {.ordered = true, .sound = true};
    assert_int_equal(net_ledger_import(other, run, run_id, see, see_control, &s, &why), ERR_OK);
    assert_true(s.ordered && s.sound);
    assert_int_equal(s.rows, 30);
    assert_int_equal(s.controls, 1);
    assert_memory_equal(run_id, run, 32);
    struct seen few = {.ordered = true, .sound = true, .stop_after = 3};
    assert_int_equal(net_ledger_import(other, NULL, NULL, see, NULL, &few, &why), ERR_OK);
    assert_int_equal(few.rows, 3);
    static const uint8_t run2[32] = {2};
    assert_int_equal(net_ledger_import(other, run2, NULL, see, NULL, &few, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "another run"));
    assert_int_equal(net_ledger_import("/nonexistent", run, NULL, see, NULL, &few, &why),
                     ERR_NOTFOUND);
    assert_int_equal(few.rows, 3);
    struct net_ledger *again = open_mine();
    assert_int_equal(net_ledger_export(again, "/nonexistent/file", &why), ERR_IO);
    assert_non_null(strstr(why.text, "/nonexistent/file"));
    net_ledger_close(again);
}

/* Every truncation, every flipped byte and a longer file are refused before a single row is given.
 */
static void a_changed_portable_file_gives_no_row(void **state)
{
    (void)state;
    struct err_why why = {""};
    struct net_ledger *l = open_mine();
    add(l, foreign, 0, 3, false);
    add(l, me, 0, 2, true);
    add(l, me, 2, 1, true);
    assert_int_equal(net_ledger_control(l, (const uint8_t *)"c1", 2), ERR_OK);
    assert_int_equal(net_ledger_export(l, other, &why), ERR_OK);
    net_ledger_close(l);
    static uint8_t good[4096], bad[4097];
    const int in = open(other, O_RDONLY | O_CLOEXEC);
    const ssize_t got = read(in, good, sizeof good);
    close(in);
    assert_true(got > 400 && (size_t)got < sizeof good);
    const size_t n = (size_t)got;
    for (size_t i = 0; i < 2 * n + 1; i++) {
        struct seen s = {.ordered = true, .sound = true};
        memcpy(bad, good, n);
        bad[n] = 0;
        if (i < n)
            bad[i] ^= (uint8_t)(1u << (i % 8));
        FILE *f = fopen(other, "wbe");
        const size_t length = i < n ? n : i < 2 * n ? i - n : n + 1;
        assert_int_equal(fwrite(bad, 1, length, f), length);
        fclose(f);
        if (net_ledger_import(other, NULL, NULL, see, see_control, &s, &why) != ERR_FORMAT)
            fail_msg("change %zu of %zu was taken", i, n);
        assert_int_equal(s.rows + s.controls, 0);
        assert_null(strchr(why.text, '\n'));
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_goes_in_comes_out_in_order),
        TEST(named_values_are_kept),
        TEST(what_is_no_segment_is_refused),
        TEST(an_own_seq_is_not_used_twice),
        TEST(truncation_keeps_the_branch_aside),
        TEST(a_reader_works_beside_the_writer_and_after_it),
        TEST(another_runs_ledger_is_refused),
        TEST(a_ledger_is_fresh_until_claimed_and_after_a_copy),
        TEST(a_damaged_row_ends_its_feed_only),
        TEST(a_feed_that_lost_its_name_may_have_been_ours),
        TEST(a_damaged_control_is_skipped),
        TEST(a_damaged_file_is_set_aside_and_rebuilt),
        TEST(flipped_bytes_are_never_believed),
        TEST(nothing_acknowledged_is_lost_to_kill_9),
        TEST(a_full_disk_loses_nothing),
        TEST(the_line_for_a_full_disk_says_what_to_do),
        TEST(a_ledger_goes_through_its_portable_file),
        TEST(a_changed_portable_file_gives_no_row),
    };
    if (net_start() != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
