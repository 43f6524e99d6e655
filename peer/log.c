#include "peer/log.h"
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 2048 };

static _Atomic int log_level = PEER_INFO, log_fd = -1;
static atomic_bool log_json, log_quiet;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

void peer_log_start(enum peer_level level, bool json, bool quiet, const char *path)
{
    log_level = (int)level;
    log_json = json;
    log_quiet = quiet;
    if (path)
        log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

void peer_log_stop(void)
{
    const int fd = atomic_exchange(&log_fd, -1);
    if (fd >= 0)
        close(fd);
    log_quiet = false;
}

bool peer_log_level(enum peer_level *level, const char *name)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++)
        if (strcmp(name, level_names[i]) == 0) {
            *level = (enum peer_level)i;
            return true;
        }
    return false;
}

/* Appends at most what fits; n never passes size - 2, so that a newline always does. */
static void put(char *line, size_t *n, const char *s, size_t len)
{
    const size_t room = LINE_BYTES - 2 - *n;
    if (len > room)
        len = room;
    memcpy(line + *n, s, len);
    *n += len;
}

static void puts_to(char *line, size_t *n, const char *s)
{
    put(line, n, s, strlen(s));
}

static bool is_number(const char *s, size_t len)
{
    if (len == 0 || !((s[0] >= '0' && s[0] <= '9') || s[0] == '-'))
        return false;
    if (len > 1 && s[0] == '0' && s[1] != '.')
        return false;
    return strspn(s, "0123456789.eE+-") >= len && s[len - 1] >= '0' && s[len - 1] <= '9';
}

/* key=value key="two words" -> ,"key":value,"key":"two words" */
static void put_json(char *line, size_t *n, const char *pairs)
{
    const char *p = pairs;
    while (*p) {
        p += strspn(p, " ");
        const size_t key = strcspn(p, "= ");
        if (p[key] != '=')
            return;
        const char *value = p + key + 1;
        const bool quoted = *value == '"';
        size_t len = quoted ? strcspn(value + 1, "\"") + 2 : strcspn(value, " ");
        if (quoted && value[len - 1] != '"') /* cut short by the buffer */
            return;
        puts_to(line, n, ",\"");
        put(line, n, p, key);
        puts_to(line, n, "\":");
        const bool bare = quoted || is_number(value, len);
        puts_to(line, n, bare ? "" : "\"");
        put(line, n, value, len);
        puts_to(line, n, bare ? "" : "\"");
        p = value + len;
    }
}

void peer_log(enum peer_level level, const char *ev, const char *pairs, ...)
{
    if ((int)level > log_level)
        return;
    char text[LINE_BYTES - 256], line[LINE_BYTES], when[32];
    va_list args;
    va_start(args, pairs);
    if (vsnprintf(text, sizeof text, pairs, args) < 0)
        text[0] = 0;
    va_end(args);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = ' '; /* one event, one line, whatever a file name holds */
    const time_t now = time(NULL);
    struct tm tm;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));

    size_t n = 0;
    const bool json = log_json;
    char head[160];
    snprintf(head, sizeof head,
             json ? "{\"time\":\"%s\",\"level\":\"%s\",\"ev\":\"%s\"" : "time=%s level=%s ev=%s", when,
             level_names[level], ev);
    puts_to(line, &n, head);
    if (json) {
        put_json(line, &n, text);
        puts_to(line, &n, "}");
    } else if (text[0]) {
        puts_to(line, &n, " ");
        puts_to(line, &n, text);
    }
    line[n++] = '\n';
    const int fd = log_fd;
    if (!log_quiet && write(STDERR_FILENO, line, n) < 0)
        n = n + 0; /* nobody reads: nothing to do about it */
    if (fd >= 0 && write(fd, line, n) < 0)
        n = n + 0;
}

void peer_log_quote(char *out, size_t out_bytes, const char *s)
{
    size_t n = 0;
    for (; *s && n + 1 < out_bytes; s++) {
        const char c = *s;
        out[n++] = (unsigned char)c < ' ' ? ' ' : c == '"' ? '\'' : c == '\\' ? '/' : c;
    }
    if (out_bytes)
        out[n] = 0;
}

void peer_short_id(char out[9], const uint8_t id[32])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 4; i++) {
        out[2 * i] = digits[id[i] >> 4];
        out[2 * i + 1] = digits[id[i] & 15];
    }
    out[8] = 0;
}
