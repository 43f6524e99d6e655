/* zo/data/json.h -- jansson with one-line errors.  What a Hugging Face file may leave out has a default here;
 * what has the wrong type is refused by name. */
#ifndef ONEBYTE_ZO_DATA_JSON_H
#define ONEBYTE_ZO_DATA_JSON_H
#include <jansson.h>
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

/* *root <- the JSON file; the caller json_decref's it.  ERR_NOTFOUND (no such file), ERR_IO, ERR_FORMAT; why names the
 * path, and the line of a syntax error. */
NODISCARD enum err zo_json_open(json_t **root, const char *path, struct err_why *why);

/* As getline(3); a line of LIMIT_LINE_BYTES or more ends the reading, as an error does. */
ssize_t zo_getline(char **line, size_t *cap, FILE *f);
/* After the last zo_getline: ERR_IO unless the file has ended; why names path and line. */
NODISCARD enum err zo_getline_end(FILE *f, const char *path, size_t number, struct err_why *why);

/* The member, or NULL when it is absent or null. */
json_t *zo_json_member(const json_t *object, const char *key);

/* Each: the member's value, or `def` when it is absent, null or of another type. */
bool zo_json_bool(const json_t *object, const char *key, bool def);
long long zo_json_int(const json_t *object, const char *key, long long def);
const char *zo_json_text(const json_t *object, const char *key, const char *def);
#endif
