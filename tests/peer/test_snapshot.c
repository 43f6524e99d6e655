/* The snapshot file: what is written is read, and no damage passes. */
#include "peer/snapshot.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <onebyte/net/id.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ENTRIES = 3, ROWS = 7, COLUMNS = 5 };

struct fixture {
    char path[64];
    uint8_t run_id[32], frontier[ENTRIES * PEER_FRONTIER_ENTRY];
    struct zo_tensor tensor;
    struct zo_rules rules;
    struct zo_state *s;
};

static int set_up(void **state)
{
    static struct fixture f;
    const uint32_t key[2] = {1, 2};
    snprintf(f.path, sizeof f.path, "/tmp/onebyte-test-XXXXXX");
    const int fd = mkstemp(f.path);
    if (fd < 0)
        return -1;
    close(fd);
    memset(f.run_id, 7, sizeof f.run_id);
    f.tensor = (struct zo_tensor){.name = "w", .n_dims = 2, .dims = {ROWS, COLUMNS}, .bits = 32, .e = 20};
    f.rules = (struct zo_rules){.n_tensors = 1, .tensors = &f.tensor, .n0 = 1, .k = 1, .steps = 1};
    if (zo_state_new(&f.s, &f.rules, key) != ERR_OK)
        return -1;
    for (int i = 0; i < ROWS * COLUMNS; i++)
        ((int32_t *)f.s->m[0])[i] = 1000 * i - 17000;
    for (uint8_t i = 0; i < ENTRIES; i++) {
        struct net_frontier_entry e = {.count = 10u + i, .cut = i == 1 ? 12 : UINT64_MAX};
        memset(e.machine, 2 * i + 1, 32);
        memset(e.head, 0x40 + i, 32);
        peer_frontier_put(f.frontier, i, &e);
    }
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    zo_state_free(f->s);
    return unlink(f->path);
}

static void save(const struct fixture *f, const uint8_t *frontier)
{
    struct err_why why = {{0}};
    assert_int_equal(peer_snapshot_write(f->path, f->run_id, frontier, sizeof f->frontier, f->s, &why), ERR_OK);
}

static void what_is_written_is_read(void **state)
{
    const struct fixture *f = *state;
    struct peer_snapshot s;
    struct net_frontier_entry e;
    uint8_t machine[32], want[ROWS * COLUMNS * 4], hash[32], of[32];
    save(f, f->frontier);
    assert_int_equal(peer_snapshot_open(&s, f->path, f->run_id, sizeof want), ERR_OK);
    zo_state_get_bytes(f->s, 0, want, sizeof want);
    assert_int_equal(s.state_bytes, sizeof want);
    assert_memory_equal(s.state, want, sizeof want);
    assert_int_equal(s.n_frontier, ENTRIES);
    memset(machine, 3, sizeof machine);
    assert_true(peer_snapshot_entry(&s, machine, &e));
    assert_int_equal(e.count, 11);
    assert_int_equal(e.cut, 12);
    assert_int_equal(e.head[31], 0x41);
    memset(machine, 4, sizeof machine);
    assert_false(peer_snapshot_entry(&s, machine, &e));
    peer_snapshot_hash(f->s, hash);
    net_hash(of, &(const struct net_part){want, sizeof want}, 1);
    assert_memory_equal(hash, of, 32);
    peer_snapshot_close(&s);
}

static void no_damage_passes(void **state)
{
    const struct fixture *f = *state;
    struct peer_snapshot s;
    uint8_t other[32] = {0};
    save(f, f->frontier);
    assert_int_equal(peer_snapshot_open(&s, f->path, other, ROWS * COLUMNS * 4), ERR_FORMAT);
    assert_int_equal(peer_snapshot_open(&s, f->path, f->run_id, ROWS * COLUMNS * 4 + 1), ERR_FORMAT);
    assert_int_equal(peer_snapshot_open(&s, "/nonexistent/snapshot", f->run_id, 1), ERR_NOTFOUND);
    const long n = PEER_SNAPSHOT_HEAD + ENTRIES * PEER_FRONTIER_ENTRY + ROWS * COLUMNS * 4 + 32;
    for (long at = 0; at < n; at += 13) {
        FILE *file = fopen(f->path, "r+b");
        assert_non_null(file);
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        const int was = fgetc(file);
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        assert_int_not_equal(fputc(was ^ 4, file), EOF);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(peer_snapshot_open(&s, f->path, f->run_id, ROWS * COLUMNS * 4), ERR_FORMAT);
        save(f, f->frontier);
    }
    for (long to = 0; to < n; to += 29) {
        assert_int_equal(truncate(f->path, to), 0);
        assert_int_equal(peer_snapshot_open(&s, f->path, f->run_id, ROWS * COLUMNS * 4), ERR_FORMAT);
    }
}

static void a_frontier_out_of_order_is_refused(void **state)
{
    const struct fixture *f = *state;
    struct peer_snapshot s;
    uint8_t twice[ENTRIES * PEER_FRONTIER_ENTRY];
    memcpy(twice, f->frontier, sizeof twice);
    memcpy(twice + PEER_FRONTIER_ENTRY, f->frontier, PEER_FRONTIER_ENTRY);
    save(f, twice);
    assert_int_equal(peer_snapshot_open(&s, f->path, f->run_id, ROWS * COLUMNS * 4), ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(no_damage_passes),
        cmocka_unit_test(a_frontier_out_of_order_is_refused),
    };
    if (net_start() != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
