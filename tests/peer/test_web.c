/* The HTTP side of a peer, over a real loopback socket, in one thread: the test turns the server itself. */
#include "peer/web.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static json_t *status(void *ctx)
{
    (void)ctx;
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:n, s:b, s:{s:I}, s:{s:I, s:I}, s:f, s:[]}",
                     "run_id", "ab", "machine_id", "cd", "device", "cpu", "step", (json_int_t)7,
                     "steps", (json_int_t)100, "loss", "contributing", 1, "records", "own",
                     (json_int_t)42, "bytes", "sent", (json_int_t)1000, "received",
                     (json_int_t)2000, "uptime_s", 3.5, "peers");
}

static int dial(uint16_t port)
{
    const struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* Everything the server says to `request`; malloc'd.  60 s are for machines that stand still. */
static char *ask(struct peer_web *w, const char *request)
{
    static uint64_t now = 1;
    const struct timespec pause = {.tv_nsec = 1000000};
    const int fd = dial(peer_web_port(w));
    char *text = calloc(1, 1 << 20);
    size_t n = 0;
    assert_non_null(text);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    for (int i = 0; i < 60000; i++) {
        peer_web_turn(w, now += 1000000);
        const ssize_t got = recv(fd, text + n, (1 << 20) - 1 - n, 0);
        if (got == 0)
            break;
        if (got > 0)
            n += (size_t)got;
        else
            nanosleep(&pause, NULL);
    }
    close(fd);
    return text;
}

static int code_of(const char *answer)
{
    int code = 0;
    assert_int_equal(sscanf(answer, "HTTP/1.1 %d", &code), 1);
    return code;
}

static const char *body_of(const char *answer)
{
    const char *p = strstr(answer, "\r\n\r\n");
    assert_non_null(p);
    return p + 4;
}

static int get(struct peer_web *w, const char *method, const char *path, const char *host,
               char **answer)
{
    char request[256];
    (void)snprintf(request, sizeof request,
                   "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", method, path, host);
    *answer = ask(w, request);
    return code_of(*answer);
}

static void pages_are_served(void **state)
{
    struct peer_web *w = NULL, *second = NULL;
    struct err_why why = {{0}};
    char *a = NULL;
    (void)state;
    assert_int_equal(peer_web_open(&w, 0, status, NULL, &why), ERR_OK);
    assert_true(peer_web_port(w) > 0 && peer_web_fd(w) >= 0);
    assert_int_equal(peer_web_open(&second, peer_web_port(w), status, NULL, &why), ERR_BUSY);
    assert_non_null(strstr(why.text, "another port"));

    assert_int_equal(get(w, "GET", "/metrics", "127.0.0.1", &a), 200);
    assert_non_null(strstr(a, "text/plain; version=0.0.4"));
    assert_non_null(strstr(body_of(a), "\nonebyte_own_records_total 42\n"));
    free(a);
    assert_int_equal(get(w, "GET", "/status.json", "localhost:80", &a), 200);
    json_t *o = json_loads(body_of(a), 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(o, "step")), 7);
    const json_t *history = json_object_get(o, "history");
    assert_true(json_array_size(history) >= 1);
    assert_int_equal(json_array_size(json_array_get(history, 0)), 6);
    assert_true(json_is_null(json_array_get(json_array_get(history, 0), 2))); /* no loss yet */
    json_decref(o);
    free(a);
    assert_int_equal(get(w, "GET", "/", "[::1]:9", &a), 200);
    assert_non_null(strstr(a, "default-src 'none'"));
    assert_non_null(strstr(body_of(a), "</script>"));
    assert_null(strstr(body_of(a), "http://")); /* nothing from elsewhere */
    assert_null(strstr(body_of(a), "https://"));
    free(a);
    peer_web_close(w);
}

static void others_are_refused(void **state)
{
    struct peer_web *w = NULL;
    struct err_why why = {{0}};
    char *a = NULL;
    (void)state;
    assert_int_equal(peer_web_open(&w, 0, status, NULL, &why), ERR_OK);
    static const char *const hosts[] = {"evil.example", "127.0.0.1.evil.example",
                                        "localhost.evil.example", "10.0.0.1"};
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        assert_int_equal(get(w, "GET", "/status.json", hosts[i], &a), 403);
        free(a);
    }
    assert_int_equal(get(w, "GET", "/etc/passwd", "127.0.0.1", &a), 404);
    free(a);
    assert_int_equal(get(w, "DELETE", "/", "127.0.0.1", &a), 405);
    free(a);
    assert_int_equal(get(w, "HEAD", "/metrics", "127.0.0.1", &a), 200);
    assert_string_equal(body_of(a), "");
    free(a);
    free(ask(
        w,
        "\r\n\r\nnot http at all\r\n\r\n")); /* no crash; what it says is the library's business */
    peer_web_close(w);
}

static void history_is_bounded(void **state)
{
    struct peer_web *w = NULL;
    struct err_why why = {{0}};
    (void)state;
    assert_int_equal(peer_web_open(&w, 0, status, NULL, &why), ERR_OK);
    for (uint64_t s = 1; s < 20000; s++)
        peer_web_turn(w, s * 2000000000u);
    char *a = NULL;
    assert_int_equal(get(w, "GET", "/status.json", "127.0.0.1", &a), 200);
    json_t *o = json_loads(body_of(a), 0, NULL);
    const size_t n = json_array_size(json_object_get(o, "history"));
    assert_true(n >= PEER_WEB_HISTORY / 2 && n <= PEER_WEB_HISTORY);
    json_decref(o);
    free(a);
    peer_web_close(w);
}

/* The text format: every sample has HELP and TYPE before it; counters, and only they, end in _total; base units. */
static void metrics_follow_the_rules(void **state)
{
    (void)state;
    json_t *o = status(NULL);
    char *text = peer_web_metrics(o), name[64], type[64], sample[64], *rest = NULL;
    json_decref(o);
    assert_non_null(text);
    assert_null(strstr(text, "loss")); /* unknown: left out */
    size_t n = 0;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), n++) {
        assert_int_equal(sscanf(line, "# HELP %63s", name), 1);
        line = strtok_r(NULL, "\n", &rest);
        assert_int_equal(sscanf(line, "# TYPE %63s %63s", sample, type), 2);
        assert_string_equal(sample, name);
        line = strtok_r(NULL, "\n", &rest);
        assert_int_equal(strncmp(line, name, strlen(name)), 0);
        assert_true(line[strlen(name)] == ' ' || line[strlen(name)] == '{');
        const bool total = strlen(name) > 6 && strcmp(name + strlen(name) - 6, "_total") == 0;
        assert_true(total == (strcmp(type, "counter") == 0));
        assert_null(strstr(name, "_ms"));
    }
    assert_true(n >= 9);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_served),
        cmocka_unit_test(others_are_refused),
        cmocka_unit_test(history_is_bounded),
        cmocka_unit_test(metrics_follow_the_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
