/* What a service manager hears: a socket made here stands for it, by path and by abstract name. */
#include "peer/notify.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int manager(const char *name) /* leading @: abstract */
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    const size_t n = strlen(name);
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    memcpy(a.sun_path, name, n);
    if (name[0] == '@')
        a.sun_path[0] = '\0';
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)), 0);
    assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
    return fd;
}

static void hears(int fd, const char *want) /* NULL: nothing */
{
    char got[256] = "";
    const ssize_t n = recv(fd, got, sizeof got - 1, 0);
    if (!want)
        assert_int_equal(n, -1);
    else
        assert_string_equal(got, want);
}

static void both_kinds_of_socket(void **state)
{
    char path[64], name[64];
    (void)state;
    (void)snprintf(path, sizeof path, "/tmp/onebyte-notify-%d", (int)getpid());
    (void)snprintf(name, sizeof name, "@onebyte-notify-%d", (int)getpid());
    const char *const names[] = {path, name};
    for (size_t i = 0; i < 2; i++) {
        const int fd = manager(names[i]);
        assert_true(peer_notify("READY=1\nSTATUS=here"));
        hears(fd, "READY=1\nSTATUS=here");
        close(fd);
        assert_false(peer_notify("READY=1")); /* nobody listens any more: no harm */
        (void)unlink(path);
    }
}

static void nobody_asked(void **state)
{
    char longer[200];
    (void)state;
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
    assert_false(peer_notify("READY=1"));
    memset(longer, 'a', sizeof longer);
    longer[0] = '/';
    longer[sizeof longer - 1] = '\0';
    const char *const wrong[] = {"", "/", "@", "relative", longer, "vsock:2:1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(setenv("NOTIFY_SOCKET", wrong[i], 1), 0);
        assert_false(peer_notify("READY=1"));
    }
}

/* Half of 10 s: nothing before, one sign of life after; the first at once. */
static void watchdog_every_half(void **state)
{
    const uint64_t s = 1000000000;
    char name[64];
    (void)state;
    (void)snprintf(name, sizeof name, "@onebyte-watchdog-%d", (int)getpid());
    const int fd = manager(name);
    assert_int_equal(setenv("WATCHDOG_USEC", "10000000", 1), 0);
    (void)snprintf(name, sizeof name, "%d", (int)getpid());
    assert_int_equal(setenv("WATCHDOG_PID", name, 1), 0);
    peer_notify_alive(100 * s);
    hears(fd, "WATCHDOG=1");
    peer_notify_alive(104 * s);
    hears(fd, NULL);
    peer_notify_alive(105 * s);
    hears(fd, "WATCHDOG=1");
    hears(fd, NULL);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_kinds_of_socket),
        cmocka_unit_test(nobody_asked),
        cmocka_unit_test(watchdog_every_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
