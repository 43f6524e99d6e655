#include "peer/web.h"
#include <errno.h>
#include <math.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NS UINT64_C(1000000000)

/* The page, as it is in the source tree: the Makefile names it as this object's prerequisite. */
__asm__(".pushsection .rodata\n"
        "peer_web_page:\n"
        ".incbin \"peer/dist/page.html\"\n"
        "peer_web_page_end:\n"
        ".byte 0\n"
        ".popsection\n");
extern const char peer_web_page[], peer_web_page_end[];

struct peer_web {
    struct MHD_Daemon *http;
    peer_web_status *status;
    void *ctx;
    uint16_t port;
    double history[PEER_WEB_HISTORY][6];
    size_t n_history;
    uint64_t every_ns, sampled_ns;
};

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

/* When the table is full every second sample goes and the interval doubles: a day or a year fit alike. */
static void sample(struct peer_web *w)
{
    json_t *s = w->status(w->ctx);
    const json_t *bytes = json_object_get(s, "bytes");
    const double row[6] = {number(s, "uptime_s"), number(s, "step"),
                           number(s, "loss"),     number(s, "records_per_s"),
                           number(bytes, "sent"), number(bytes, "received")};
    json_decref(s);
    if (w->n_history == PEER_WEB_HISTORY) {
        for (size_t i = 0; i < PEER_WEB_HISTORY / 2; i++)
            memcpy(w->history[i], w->history[2 * i + 1], sizeof row);
        w->n_history = PEER_WEB_HISTORY / 2;
        w->every_ns *= 2;
    }
    memcpy(w->history[w->n_history++], row, sizeof row);
}

static char *status_text(struct peer_web *w)
{
    json_t *s = w->status(w->ctx), *rows = json_array();
    for (size_t i = 0; i < w->n_history; i++) {
        json_t *row = json_array();
        for (size_t j = 0; j < 6; j++) {
            const double x = w->history[i][j];
            json_array_append_new(row, isfinite(x) ? json_real(x) : json_null());
        }
        json_array_append_new(rows, row);
    }
    json_object_set_new(s, "history", rows);
    char *text = json_dumps(s, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(s);
    return text;
}

/* Takes text (malloc'd), or borrows fixed. */
static enum MHD_Result reply(struct MHD_Connection *c, unsigned code, const char *type, char *text,
                             const char *fixed, size_t n)
{
    struct MHD_Response *r =
        text ? MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE)
             : MHD_create_response_from_buffer(n, (void *)(uintptr_t)fixed, MHD_RESPMEM_PERSISTENT);
    if (!r) {
        free(text);
        return MHD_NO;
    }
    static const char *const heads[][2] = {
        {"Cache-Control", "no-store"},
        {"X-Content-Type-Options", "nosniff"},
        {"Referrer-Policy", "no-referrer"},
        {"Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src "
                                    "'unsafe-inline'; connect-src 'self'; "
                                    "frame-ancestors 'none'"},
    };
    MHD_add_response_header(r, "Content-Type", type);
    for (size_t i = 0; i < ARRAY_LEN(heads); i++)
        MHD_add_response_header(r, heads[i][0], heads[i][1]);
    const enum MHD_Result done = MHD_queue_response(c, code, r);
    MHD_destroy_response(r);
    return done;
}

static enum MHD_Result say(struct MHD_Connection *c, unsigned code, const char *text)
{
    return reply(c, code, "text/plain; charset=utf-8", NULL, text, strlen(text));
}

static bool is_loopback(const char *host)
{
    static const char *const names[] = {"127.0.0.1", "localhost", "[::1]"};
    for (size_t i = 0; host && i < ARRAY_LEN(names); i++) {
        const size_t n = strlen(names[i]);
        if (strncmp(host, names[i], n) == 0 && (host[n] == '\0' || host[n] == ':'))
            return true;
    }
    return false;
}

static enum MHD_Result answer(void *ctx, struct MHD_Connection *c, const char *url,
                              const char *method, const char *version, const char *body,
                              size_t *body_bytes, void **state)
{
    struct peer_web *w = ctx;
    (void)version;
    (void)body;
    (void)state;
    if (*body_bytes)
        return MHD_NO; /* nothing here takes one */
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return say(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n");
    if (!is_loopback(MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Host")))
        return say(c, MHD_HTTP_FORBIDDEN, "only as http://127.0.0.1:PORT/\n");
    if (strcmp(url, "/") == 0) {
        /* Two labels around one .incbin. */
        /* cppcheck-suppress comparePointers */
        const size_t page_bytes = (size_t)(peer_web_page_end - peer_web_page);
        return reply(c, MHD_HTTP_OK, "text/html; charset=utf-8", NULL, peer_web_page, page_bytes);
    }
    const bool metrics = strcmp(url, "/metrics") == 0;
    if (!metrics && strcmp(url, "/status.json") != 0)
        return say(c, MHD_HTTP_NOT_FOUND, "here are /, /status.json and /metrics\n");
    json_t *s = metrics ? w->status(w->ctx) : NULL;
    char *text = metrics ? peer_web_metrics(s) : status_text(w);
    json_decref(s);
    if (!text)
        return say(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
    return reply(c, MHD_HTTP_OK,
                 metrics ? "text/plain; version=0.0.4; charset=utf-8" : "application/json", text,
                 NULL, 0);
}

/* Bound here and not by the library: its way of saying why it could not is a line on stderr. */
static int listen_on(uint16_t port, uint16_t *bound)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    const int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)&a, sizeof a) != 0 || listen(fd, PEER_WEB_CLIENTS) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) != 0) {
        const int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    *bound = ntohs(a.sin_port);
    return fd;
}

enum err peer_web_open(struct peer_web **out, uint16_t port, peer_web_status *status, void *ctx,
                       struct err_why *why)
{
    struct peer_web *w = calloc(1, sizeof *w);
    if (!w)
        return err_set(why, ERR_NOMEM, "out of memory");
    w->status = status;
    w->ctx = ctx;
    w->every_ns = 2 * NS;
    const int fd = listen_on(port, &w->port);
    const int bad = errno;
    if (fd < 0) {
        free(w);
        return err_set(why, bad == EADDRINUSE ? ERR_BUSY : ERR_IO,
                       "--metrics: 127.0.0.1:%d: %s; name another port", (int)port, strerror(bad));
    }
    w->http = MHD_start_daemon(MHD_USE_EPOLL, w->port, NULL, NULL, answer, w,
                               MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
                               (unsigned)PEER_WEB_CLIENTS, MHD_OPTION_CONNECTION_TIMEOUT, 30u,
                               MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)32768, MHD_OPTION_END);
    if (!w->http) {
        close(fd);
        free(w);
        return err_set(why, ERR_IO, "--metrics: the HTTP server did not start");
    }
    *out = w;
    return ERR_OK;
}

void peer_web_close(struct peer_web *w)
{
    if (!w)
        return;
    MHD_stop_daemon(w->http); /* closes the socket */
    free(w);
}

uint16_t peer_web_port(const struct peer_web *w)
{
    return w->port;
}

int peer_web_fd(const struct peer_web *w)
{
    const union MHD_DaemonInfo *i = MHD_get_daemon_info(w->http, MHD_DAEMON_INFO_EPOLL_FD);
    ENSURE(i != NULL);
    return i->epoll_fd;
}

void peer_web_turn(struct peer_web *w, uint64_t now_ns)
{
    if (w->sampled_ns == 0 || now_ns - w->sampled_ns >= w->every_ns) {
        w->sampled_ns = now_ns;
        sample(w);
    }
    (void)MHD_run(w->http);
}
