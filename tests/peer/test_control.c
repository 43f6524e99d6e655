/* The control socket: requests and answers, what is no request, clients that misbehave, a socket left behind. */
#include "peer/control.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

enum { LIMIT_MS = 60000 };

/* A folder whose path is longer than a Unix address, and a server in it that answers {"op": x} with {"ok": true, "op": x}. */
struct server {
    char dir[400];
    struct peer_control *c;
    pthread_t thread;
    atomic_bool stop, mute;
};

static void *serve(void *arg)
{
    struct server *s = arg;
    while (!s->stop) {
        int fds[PEER_CONTROL_CLIENTS + 1];
        struct pollfd p[PEER_CONTROL_CLIENTS + 1];
        const size_t n = peer_control_fds(s->c, fds);
        for (size_t i = 0; i < n; i++)
            p[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
        if (poll(p, n, 10) <= 0)
            continue;
        json_t *request;
        uint64_t client;
        peer_control_ready(s->c);
        while (peer_control_next(s->c, &request, &client)) {
            json_t *op = json_object_get(request, "op");
            if (!s->mute)
                peer_control_reply(s->c, client, op ? json_pack("{s:b, s:O}", "ok", 1, "op", op)
                                                    : json_pack("{s:b, s:s}", "ok", 0, "error", "no op"));
            json_decref(request);
        }
    }
    return NULL;
}

static int set_up(void **state)
{
    struct server *s = calloc(1, sizeof *s);
    struct err_why why;
    char name[201];
    assert_non_null(s);
    memset(name, 'x', 200);
    name[200] = 0;
    strcpy(s->dir, "/tmp/onebyte-control-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    strcat(strcat(s->dir, "/"), name);
    assert_int_equal(mkdir(s->dir, 0700), 0);
    assert_int_equal(peer_control_open(&s->c, s->dir, &why), ERR_OK);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct server *s = *state;
    s->stop = true;
    pthread_join(s->thread, NULL);
    peer_control_close(s->c);
    rmdir(s->dir); /* empty: the socket is gone */
    *strrchr(s->dir, '/') = 0;
    const int left = rmdir(s->dir);
    free(s);
    return left;
}

static int dial(const char *dir)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char cwd[1024];
    assert_non_null(getcwd(cwd, sizeof cwd));
    assert_int_equal(chdir(dir), 0);
    strcpy(a.sun_path, "control.sock");
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(chdir(cwd), 0);
    return fd;
}

/* One line of answer into out. */
static void answer(int fd, char *out, size_t n)
{
    size_t got = 0;
    while (got + 1 < n && (got == 0 || out[got - 1] != '\n')) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, LIMIT_MS), 1);
        const ssize_t r = recv(fd, out + got, n - 1 - got, 0);
        assert_true(r > 0);
        got += (size_t)r;
    }
    out[got] = 0;
}

static void a_call_is_answered(void **state)
{
    struct server *s = *state;
    struct err_why why = {{0}};
    json_t *reply = NULL;
    assert_int_equal(peer_control_call(s->dir, json_pack("{s:s}", "op", "status"), LIMIT_MS, &reply, &why), ERR_OK);
    assert_string_equal(json_string_value(json_object_get(reply, "op")), "status");
    json_decref(reply);
}

static void an_error_is_passed_on(void **state)
{
    struct server *s = *state;
    struct err_why why = {{0}};
    json_t *reply = NULL;
    assert_int_equal(peer_control_call(s->dir, json_object(), LIMIT_MS, &reply, &why), ERR_PROTO);
    assert_string_equal(why.text, "no op");
    assert_null(reply);
}

static void nobody_there_and_no_answer(void **state)
{
    struct server *s = *state;
    struct err_why why = {{0}};
    json_t *reply = NULL;
    assert_int_equal(peer_control_call("/nowhere", json_object(), LIMIT_MS, &reply, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, "no peer is running"));
    s->mute = true;
    assert_int_equal(peer_control_call(s->dir, json_pack("{s:s}", "op", "x"), 50, &reply, &why), ERR_AGAIN);
    s->mute = false;
}

static void two_requests_in_one_write_and_one_in_two(void **state)
{
    struct server *s = *state;
    char out[200];
    const int fd = dial(s->dir);
    static const char both[] = "{\"op\": 1}\n{\"op\": 2}\n{\"op\"";
    assert_int_equal(send(fd, both, sizeof both - 1, 0), sizeof both - 1);
    size_t got = 0;
    while (got < 38) { /* two answers of 19 bytes with their newlines */
        struct pollfd p = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, LIMIT_MS), 1);
        const ssize_t r = recv(fd, out + got, sizeof out - 1 - got, 0);
        assert_true(r > 0);
        got += (size_t)r;
    }
    out[got] = 0;
    assert_string_equal(out, "{\"ok\":true,\"op\":1}\n{\"ok\":true,\"op\":2}\n");
    assert_int_equal(send(fd, ": 3}\n", 5, 0), 5);
    answer(fd, out, sizeof out);
    assert_string_equal(out, "{\"ok\":true,\"op\":3}\n");
    close(fd);
}

static void garbage_is_answered_and_a_flood_is_cut(void **state)
{
    struct server *s = *state;
    char out[200], *flood = malloc(PEER_CONTROL_LINE + 1000);
    int fd = dial(s->dir);
    assert_int_equal(send(fd, "hello\n[1]\n", 10, 0), 10);
    answer(fd, out, sizeof out);
    assert_non_null(strstr(out, "not a JSON object"));
    close(fd);
    fd = dial(s->dir);
    assert_non_null(flood);
    memset(flood, 'a', PEER_CONTROL_LINE + 1000);
    size_t sent = 0; /* a line longer than the limit: the server hangs up */
    for (;;) {
        const ssize_t w = send(fd, flood, PEER_CONTROL_LINE, MSG_NOSIGNAL);
        if (w <= 0)
            break;
        sent += (size_t)w;
        assert_true(sent < (size_t)64 << 20);
    }
    close(fd);
    free(flood);
    a_call_is_answered(state);
}

static void more_clients_than_places(void **state)
{
    struct server *s = *state;
    int fds[PEER_CONTROL_CLIENTS + 8];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = dial(s->dir); /* those beyond the limit are closed by the server */
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
    for (int i = 0; i < 1000; i++) { /* once it noticed, there is room again */
        struct err_why why;
        json_t *reply = NULL;
        if (peer_control_call(s->dir, json_pack("{s:s}", "op", "x"), LIMIT_MS, &reply, &why) == ERR_OK) {
            json_decref(reply);
            return;
        }
        usleep(10000);
    }
    fail_msg("the server never took a client again");
}

static void a_socket_left_behind_is_replaced(void **state)
{
    struct server *s = *state;
    struct err_why why = {{0}};
    struct peer_control *again = NULL;
    struct stat st;
    char path[500];
    s->stop = true;
    pthread_join(s->thread, NULL);
    assert_int_equal(peer_control_open(&again, s->dir, &why), ERR_OK); /* as after kill -9: the old one still lies there */
    peer_control_close(s->c);
    assert_int_equal(peer_control_open(&s->c, s->dir, &why), ERR_OK);
    peer_control_close(again);
    peer_control_close(s->c);
    assert_int_equal(peer_control_open(&s->c, s->dir, &why), ERR_OK);
    snprintf(path, sizeof path, "%s/control.sock", s->dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    s->stop = false;
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
    a_call_is_answered(state);
    assert_int_equal(peer_control_open(&again, "/nowhere", &why), ERR_IO);
    assert_non_null(strstr(why.text, "/nowhere"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_call_is_answered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_error_is_passed_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nobody_there_and_no_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(two_requests_in_one_write_and_one_in_two, set_up, tear_down),
        cmocka_unit_test_setup_teardown(garbage_is_answered_and_a_flood_is_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(more_clients_than_places, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_socket_left_behind_is_replaced, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
