#include "zo/data/json.h"
#include "zo/data/buf.h"
#include <errno.h>
#include <onebyte/base/limits.h>
#include <string.h>

enum err zo_json_open(json_t **root, const char *path, struct err_why *why)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_set(why, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "%s: %s", path,
                       strerror(errno));
    json_error_t e;
    json_t *v = json_loadf(f, JSON_ALLOW_NUL, &e);
    fclose(f);
    if (!v)
        return err_set(why, ERR_FORMAT, "%s:%d: not JSON: %s", path, e.line, e.text);
    *root = v;
    return ERR_OK;
}

ssize_t zo_getline(char **line, size_t *cap, FILE *f)
{
    struct buf b = {.p = *line, .cap = *cap};
    for (int c = 0; c != '\n' && (c = getc_unlocked(f)) != EOF && !b.oom && b.n < LIMIT_LINE_BYTES;)
        buf_add(&b, &(char){(char)c}, 1);
    *line = b.p;
    *cap = b.cap;
    if (!b.oom && b.n < LIMIT_LINE_BYTES)
        return b.n > 0 ? (ssize_t)b.n : -1;
    errno = b.oom ? ENOMEM : EFBIG;
    return -1;
}

enum err zo_getline_end(FILE *f, const char *path, size_t number, struct err_why *why)
{
    const int error = errno;
    if (feof(f))
        return ERR_OK;
    return err_set(why, ERR_IO, "%s:%zu: %s", path, number + 1, error == EFBIG ? "a line of more than 64 MiB" : strerror(error));
}

json_t *zo_json_member(const json_t *object, const char *key)
{
    json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

bool zo_json_bool(const json_t *object, const char *key, bool def)
{
    const json_t *v = zo_json_member(object, key);
    return json_is_boolean(v) ? json_is_true(v) : def;
}

long long zo_json_int(const json_t *object, const char *key, long long def)
{
    const json_t *v = zo_json_member(object, key);
    return json_is_integer(v) ? json_integer_value(v) : def;
}

const char *zo_json_text(const json_t *object, const char *key, const char *def)
{
    const json_t *v = zo_json_member(object, key);
    return json_is_string(v) ? json_string_value(v) : def;
}
