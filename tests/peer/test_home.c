/* Homes and invites: where they are, one process at a time, identities and settings that last. */
#include "peer/home.h"
#include "peer/invite.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct peer_home opened(const char *dir)
{
    struct peer_home h;
    struct err_why why = {{0}};
    assert_int_equal(peer_home_open(&h, dir, true, &why), ERR_OK);
    return h;
}

static void the_folder_is_found(void **state)
{
    char want[PEER_PATH_BYTES];
    struct peer_home h;
    struct err_why why = {{0}};
    struct stat st;
    (void)snprintf(want, sizeof want, "%s/a/b", (const char *)*state);
    assert_int_equal(peer_home_open(&h, want, false, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, want));
    h = opened(want);
    assert_string_equal(h.dir, want);
    assert_int_equal(stat(want, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(setenv("ONEBYTE_HOME", want, 1), 0);
    assert_int_equal(peer_home_open(&h, NULL, false, &why), ERR_OK);
    assert_string_equal(h.dir, want);
    assert_int_equal(unsetenv("ONEBYTE_HOME"), 0);
    assert_int_equal(setenv("XDG_STATE_HOME", want, 1), 0);
    assert_int_equal(peer_home_open(&h, NULL, true, &why), ERR_OK);
    assert_non_null(strstr(h.dir, "/a/b/onebyte"));
    assert_int_equal(unsetenv("XDG_STATE_HOME"), 0);
    char *longer = calloc(1, PEER_PATH_BYTES + 1);
    assert_non_null(longer);
    memset(longer, 'x', PEER_PATH_BYTES);
    assert_int_equal(peer_home_open(&h, longer, true, &why), ERR_RANGE);
    free(longer);
}

/* Holds the lock in another process until the pipe closes. */
static void one_process_at_a_time(void **state)
{
    struct peer_home h = opened(*state);
    struct err_why why = {{0}};
    int to[2], from[2];
    char c = 0, pid[32];
    assert_false(peer_home_running(&h));
    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    const pid_t child = fork();
    if (child == 0) {
        close(to[1]);
        c = peer_home_lock(&h, &why) == ERR_OK ? 'y' : 'n';
        (void)!write(from[1], &c, 1);
        (void)!read(to[0], &c, 1);
        _exit(0); /* without release: the kernel does it, as after kill -9 */
    }
    assert_int_equal(read(from[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    assert_true(peer_home_running(&h));
    assert_int_equal(peer_home_lock(&h, &why), ERR_BUSY);
    (void)snprintf(pid, sizeof pid, "process %ld", (long)child);
    assert_non_null(strstr(why.text, pid));
    close(to[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_false(peer_home_running(&h));
    assert_int_equal(peer_home_lock(&h, &why), ERR_OK);
    assert_int_equal(h.lock_fd >= 0, 1);
    peer_home_release(&h);
    close(to[0]);
    close(from[0]);
    close(from[1]);
}

static void identities_last(void **state)
{
    const struct peer_home h = opened(*state);
    struct net_identity i;
    struct err_why why = {{0}};
    uint8_t first[32];
    char path[PEER_PATH_BYTES];
    bool made = false;
    assert_int_equal(peer_home_identity(&h, &i, false, NULL, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, "keygen"));
    assert_int_equal(peer_home_identity(&h, &i, true, &made, &why), ERR_OK);
    assert_true(made);
    memcpy(first, i.id, 32);
    net_identity_release(&i);
    assert_int_equal(peer_home_identity(&h, &i, true, &made, &why), ERR_OK);
    assert_false(made);
    assert_memory_equal(first, i.id, 32);
    net_identity_release(&i);
    for (int n = 1; n <= 2; n++) {
        assert_int_equal(peer_home_new_identity(&h, &i, &why), ERR_OK);
        assert_memory_not_equal(first, i.id, 32);
        net_identity_release(&i);
    }
    assert_int_equal(access(peer_home_path(&h, "identity.old-2", path), F_OK), 0);
    assert_int_equal(net_identity_load(&i, peer_home_path(&h, "identity.old-1", path), &why),
                     ERR_OK);
    assert_memory_equal(first, i.id, 32);
    net_identity_release(&i);
}

static void settings_last(void **state)
{
    const struct peer_home h = opened(*state);
    struct err_why why = {{0}};
    char out[PEER_PATH_BYTES], path[PEER_PATH_BYTES];
    peer_home_get(&h, "model", out);
    assert_string_equal(out, "");
    assert_int_equal(peer_home_set(&h, "model", "/m \"quoted\"", &why), ERR_OK);
    assert_int_equal(peer_home_set(&h, "data", "/d", &why), ERR_OK);
    peer_home_get(&h, "model", out);
    assert_string_equal(out, "/m \"quoted\"");
    const int fd =
        open(peer_home_path(&h, "settings.json", path), O_WRONLY | O_TRUNC); /* power loss */
    assert_true(fd >= 0);
    close(fd);
    peer_home_get(&h, "data", out);
    assert_string_equal(out, "");
    assert_int_equal(peer_home_set(&h, "data", "/d", &why), ERR_OK);
    peer_home_get(&h, "data", out);
    assert_string_equal(out, "/d");
    (void)snprintf(path, sizeof path, "%s/run.json", (const char *)*state);
    assert_int_equal(peer_paths_set(path, "model", "/there", &why), ERR_OK);
    peer_paths_get(path, "model", out);
    assert_string_equal(out, "/there");
    assert_int_equal(peer_absolute(out, "/x/y//", &why), ERR_OK);
    assert_string_equal(out, "/x/y");
}

static void a_full_disk_is_an_error_not_a_loss(void **state)
{
    struct err_why why = {{0}};
    char path[PEER_PATH_BYTES], *text = NULL;
    size_t n = 0;
    (void)snprintf(path, sizeof path, "%s/nowhere/x", (const char *)*state);
    assert_int_equal(peer_write_file(path, "a", 1, 0644, &why), ERR_IO);
    assert_non_null(strstr(why.text, "nowhere"));
    (void)snprintf(path, sizeof path, "%s/x", (const char *)*state);
    assert_int_equal(peer_write_file(path, "old", 3, 0644, &why), ERR_OK);
    assert_int_equal(peer_read_file(&text, &n, path, 2, &why), ERR_FORMAT);
    assert_int_equal(peer_read_file(&text, &n, path, 3, &why), ERR_OK);
    assert_int_equal(n, 3);
    assert_string_equal(text, "old");
    free(text);
    assert_int_equal(peer_read_file(&text, &n, *state, 100, &why), ERR_IO); /* a folder */
}

#define RUN "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void invites_round_trip(void **state)
{
    static const char *const good[] = {
        "onebyte://127.0.0.1:7117/" RUN,
        "onebyte://peer.example.org:65535/" RUN "?key=" RUN,
        "onebyte://[2001:db8::1]:1/" RUN "?key=" RUN,
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct peer_invite invite;
        struct err_why why = {{0}};
        char out[PEER_INVITE_BYTES];
        assert_int_equal(peer_invite_parse(&invite, good[i], &why), ERR_OK);
        assert_int_equal(invite.run_id[1], 0x11);
        peer_invite_print(out, &invite);
        assert_string_equal(out, good[i]);
    }
}

static void bad_invites_are_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "run.json",
        "http://a:1/" RUN,
        "onebyte://",
        "onebyte:///" RUN,
        "onebyte://host/" RUN,
        "onebyte://host:/" RUN,
        "onebyte://host:0/" RUN,
        "onebyte://host:65536/" RUN,
        "onebyte://host:1x/" RUN,
        "onebyte://:1/" RUN,
        "onebyte://a b:1/" RUN,
        "onebyte://host:1/" RUN "00",
        "onebyte://host:1/0011",
        "onebyte://host:1/" RUN "?key=00",
        "onebyte://host:1/" RUN "?kez=" RUN,
        "onebyte://host:1/" RUN "?key=" RUN "&x=1",
        "onebyte://host:1",
    };
    char longer[600];
    struct peer_invite invite;
    struct err_why why = {{0}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        why.text[0] = '\0';
        if (peer_invite_parse(&invite, bad[i], &why) != ERR_FORMAT)
            fail_msg("accepted: %s", bad[i]);
        assert_true(why.text[0] != '\0');
    }
    memset(longer, 'h', sizeof longer);
    memcpy(longer, "onebyte://", 10);
    (void)snprintf(longer + 400, 200, ":1/" RUN);
    assert_int_equal(peer_invite_parse(&invite, longer, &why), ERR_FORMAT);
}

static int make_dir(void **state)
{
    static char dir[64];
    (void)snprintf(dir, sizeof dir, "/tmp/onebyte-test-XXXXXX");
    *state = mkdtemp(dir);
    return *state ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static int remove_dir(void **state)
{
    return nftw(*state, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#define WITH_DIR(t) cmocka_unit_test_setup_teardown(t, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DIR(the_folder_is_found),
        WITH_DIR(one_process_at_a_time),
        WITH_DIR(identities_last),
        WITH_DIR(settings_last),
        WITH_DIR(a_full_disk_is_an_error_not_a_loss),
        cmocka_unit_test(invites_round_trip),
        cmocka_unit_test(bad_invites_are_refused),
    };
    return net_start() == ERR_OK ? cmocka_run_group_tests_name("peer/home", tests, NULL, NULL) : 1;
}
