#include "peer/clock.h"
#include "peer/control.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct client {
    int fd; /* -1: free */
    uint64_t id;
    char *line; /* [PEER_CONTROL_LINE] */
    size_t n;
};

struct peer_control {
    int fd, dir_fd;
    uint64_t ids;
    struct client clients[PEER_CONTROL_CLIENTS];
};

static const char socket_name[] = "control.sock";

static void address(struct sockaddr_un *a, int dir_fd)
{
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    snprintf(a->sun_path, sizeof a->sun_path, "/proc/self/fd/%d/%s", dir_fd, socket_name);
}

enum err peer_control_open(struct peer_control **out, const char *dir, struct err_why *why)
{
    struct peer_control *c = calloc(1, sizeof *c);
    struct sockaddr_un a;
    if (!c)
        return err_set(why, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < PEER_CONTROL_CLIENTS; i++)
        c->clients[i].fd = -1;
    c->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->dir_fd >= 0)
        (void)unlinkat(c->dir_fd, socket_name, 0); /* left by a killed process; the lock is ours */
    address(&a, c->dir_fd);
    const mode_t mask = umask(0177);
    const bool bound = c->dir_fd >= 0 && c->fd >= 0 && bind(c->fd, (const struct sockaddr *)&a, sizeof a) == 0;
    umask(mask);
    if (!bound || listen(c->fd, PEER_CONTROL_CLIENTS) != 0) {
        const enum err e = err_set(why, ERR_IO, "cannot make %s/%s: %s", dir, socket_name, strerror(errno));
        peer_control_close(c);
        return e;
    }
    *out = c;
    return ERR_OK;
}

static void drop(struct client *k)
{
    if (k->fd >= 0)
        close(k->fd);
    free(k->line);
    *k = (struct client){.fd = -1};
}

void peer_control_close(struct peer_control *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < PEER_CONTROL_CLIENTS; i++)
        drop(&c->clients[i]);
    if (c->fd >= 0)
        close(c->fd);
    if (c->dir_fd >= 0) {
        (void)unlinkat(c->dir_fd, socket_name, 0);
        close(c->dir_fd);
    }
    free(c);
}

size_t peer_control_fds(const struct peer_control *c, int fds[PEER_CONTROL_CLIENTS + 1])
{
    size_t n = 0;
    fds[n++] = c->fd;
    for (size_t i = 0; i < PEER_CONTROL_CLIENTS; i++)
        if (c->clients[i].fd >= 0)
            fds[n++] = c->clients[i].fd;
    return n;
}

static void take_clients(struct peer_control *c)
{
    int fd;
    while ((fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        const struct timeval patience = {.tv_usec = 200000}; /* one that does not read must not hold the net actor */
        struct client *k = NULL;
        for (size_t i = 0; i < PEER_CONTROL_CLIENTS && !k; i++)
            if (c->clients[i].fd < 0)
                k = &c->clients[i];
        char *line = k ? malloc(PEER_CONTROL_LINE) : NULL;
        if (!line || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0) {
            free(line);
            close(fd);
            continue;
        }
        *k = (struct client){.fd = fd, .id = ++c->ids, .line = line};
    }
}

void peer_control_ready(struct peer_control *c)
{
    take_clients(c);
    for (size_t i = 0; i < PEER_CONTROL_CLIENTS; i++) {
        struct client *k = &c->clients[i];
        if (k->fd < 0 || k->n == PEER_CONTROL_LINE)
            continue;
        const ssize_t got = recv(k->fd, k->line + k->n, PEER_CONTROL_LINE - k->n, MSG_DONTWAIT);
        if (got > 0)
            k->n += (size_t)got;
        else if (got == 0 || (errno != EAGAIN && errno != EINTR))
            drop(k);
    }
}

static void refuse(struct peer_control *c, uint64_t client, const char *text)
{
    peer_control_reply(c, client, json_pack("{s:b, s:s}", "ok", 0, "error", text));
}

bool peer_control_next(struct peer_control *c, json_t **request, uint64_t *client)
{
    for (size_t i = 0; i < PEER_CONTROL_CLIENTS; i++) {
        struct client *k = &c->clients[i];
        while (k->fd >= 0) {
            char *end = memchr(k->line, '\n', k->n);
            if (!end && k->n == PEER_CONTROL_LINE)
                drop(k);
            if (!end)
                break;
            const size_t len = (size_t)(end - k->line);
            json_t *o = json_loadb(k->line, len, JSON_REJECT_DUPLICATES, NULL);
            k->n -= len + 1;
            memmove(k->line, end + 1, k->n);
            if (json_is_object(o)) {
                *request = o;
                *client = k->id;
                return true;
            }
            json_decref(o);
            refuse(c, k->id, "not a JSON object on one line");
        }
    }
    return false;
}

void peer_control_reply(struct peer_control *c, uint64_t client, json_t *reply)
{
    char *text = json_dumps(reply, JSON_COMPACT | JSON_REAL_PRECISION(17));
    for (size_t i = 0; text && i < PEER_CONTROL_CLIENTS; i++) {
        struct client *k = &c->clients[i];
        if (k->fd < 0 || k->id != client)
            continue;
        const size_t n = strlen(text);
        text[n] = '\n'; /* in place of its NUL: one write, and text is not a string from here on */
        size_t sent = 0;
        while (sent < n + 1) {
            const ssize_t w = send(k->fd, text + sent, n + 1 - sent, MSG_NOSIGNAL);
            if (w <= 0)
                break;
            sent += (size_t)w;
        }
        if (sent < n + 1)
            drop(k);
    }
    free(text);
    json_decref(reply);
}

/* ---- client ---- */

/* ERR_NOTFOUND: no peer; ERR_AGAIN: it takes nobody in (stopped by a signal, say), and its queue is full. */
static enum err dial(int *out, const char *dir, int timeout_ms)
{
    struct sockaddr_un a;
    const struct timeval patience = {.tv_sec = timeout_ms / 1000};
    const int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return ERR_NOTFOUND;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    enum err e = ERR_NOTFOUND;
    address(&a, dir_fd);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0)
        e = connect(fd, (const struct sockaddr *)&a, sizeof a) == 0 ? ERR_OK : errno == EAGAIN ? ERR_AGAIN : ERR_NOTFOUND;
    close(dir_fd);
    if (e == ERR_OK)
        *out = fd;
    else if (fd >= 0)
        close(fd);
    return e;
}

/* One line from fd, without its newline; malloc'd. */
static enum err read_line(int fd, int timeout_ms, char **line)
{
    const int64_t until = peer_now_ms() + timeout_ms;
    size_t n = 0, room = 0;
    char *text = NULL;
    for (;;) {
        if (n + 1 >= room) {
            room = room ? 2 * room : 4096;
            char *more = room <= (64u << 20) ? realloc(text, room) : NULL;
            if (!more)
                break;
            text = more;
        }
        const int64_t left = until - peer_now_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        const int ready = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (ready == 0) {
            free(text);
            return ERR_AGAIN;
        }
        const ssize_t got = ready > 0 ? recv(fd, text + n, room - n - 1, 0) : -1;
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        n += (size_t)got;
        if (text[n - 1] == '\n') {
            text[n - 1] = 0;
            *line = text;
            return ERR_OK;
        }
    }
    free(text);
    return ERR_IO;
}

enum err peer_control_call(const char *dir, json_t *request, int timeout_ms, json_t **reply, struct err_why *why)
{
    char *text = json_dumps(request, JSON_COMPACT), *line = NULL;
    json_decref(request);
    if (!text)
        return err_set(why, ERR_NOMEM, "out of memory");
    int fd = -1;
    enum err e = dial(&fd, dir, timeout_ms);
    if (e == ERR_NOTFOUND) {
        free(text);
        return err_set(why, e, "no peer is running in %s; start one with `onebyte run`", dir);
    }
    const size_t n = strlen(text);
    text[n] = '\n';
    if (e == ERR_OK)
        e = send(fd, text, n + 1, MSG_NOSIGNAL) == (ssize_t)(n + 1) ? read_line(fd, timeout_ms, &line) : ERR_IO;
    free(text);
    if (fd >= 0)
        close(fd);
    if (e == ERR_AGAIN)
        return err_set(why, e, "the peer in %s did not answer within %d s; see its log", dir, timeout_ms / 1000);
    if (e != ERR_OK)
        return err_set(why, e, "the peer in %s closed the connection; it is probably just leaving", dir);
    json_t *o = json_loads(line, 0, NULL);
    free(line);
    if (!json_is_true(json_object_get(o, "ok"))) {
        const char *error = json_string_value(json_object_get(o, "error"));
        e = err_set(why, ERR_PROTO, "%s", error ? error : "the peer's answer makes no sense");
        json_decref(o);
        return e;
    }
    *reply = o;
    return ERR_OK;
}
