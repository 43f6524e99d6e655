/* tests/cuda/bare/jansson.c -- see jansson.h. */
#include "jansson.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 64 };

struct text {
    const char *at, *end;
};

static json_t *made(json_type type)
{
    json_t *j = calloc(1, sizeof *j);
    if (!j)
        abort();
    j->type = type;
    j->references = 1;
    return j;
}

void json_decref(json_t *j)
{
    if (!j || --j->references > 0)
        return;
    for (size_t i = 0; i < j->n; i++) {
        json_decref(j->item[i]);
        if (j->key)
            free(j->key[i]);
    }
    free(j->item);
    free(j->key);
    free(j->text);
    free(j);
}

static void append(json_t *j, char *key, json_t *value)
{
    if (j->n == j->room) {
        j->room = j->room ? 2 * j->room : 8;
        j->item = realloc(j->item, j->room * sizeof *j->item);
        if (j->type == JSON_OBJECT)
            j->key = realloc(j->key, j->room * sizeof *j->key);
        if (!j->item || (j->type == JSON_OBJECT && !j->key))
            abort();
    }
    if (j->type == JSON_OBJECT)
        j->key[j->n] = key;
    j->item[j->n++] = value;
}

static char next(struct text *t)
{
    while (t->at < t->end && strchr(" \t\r\n", *t->at))
        t->at++;
    return t->at < t->end ? *t->at : '\0';
}

static char *read_string(struct text *t)
{
    char *out = malloc((size_t)(t->end - t->at) + 1), *to = out;
    if (!out)
        abort();
    for (t->at++; t->at < t->end && *t->at != '"'; t->at++) {
        if (*t->at != '\\') {
            *to++ = *t->at;
        } else if (++t->at < t->end) {
            const char *from = "nrtbf", *value = "\n\r\t\b\f", *found = strchr(from, *t->at);
            *to++ = *t->at == 'u' ? '?' : found && *found ? value[found - from] : *t->at;
            if (*t->at == 'u') /* no tensor's name and no number of a config needs one */
                t->at += t->end - t->at > 4 ? 4 : t->end - t->at - 1;
        }
    }
    *to = '\0';
    if (t->at >= t->end) {
        free(out);
        return NULL;
    }
    t->at++;
    return realloc(out, (size_t)(to - out) + 1);
}

static json_t *read_number(struct text *t)
{
    char buf[64];
    size_t n = 0;
    while (t->at + n < t->end && n < sizeof buf - 1 && strchr("+-0123456789.eE", t->at[n]))
        n++;
    memcpy(buf, t->at, n);
    buf[n] = '\0';
    t->at += n;
    if (n == 0)
        return NULL;
    json_t *j = made(strpbrk(buf, ".eE") ? JSON_REAL : JSON_INTEGER);
    j->real = strtod(buf, NULL);
    j->integer = strtoll(buf, NULL, 10);
    return j;
}

static json_t *read_value(struct text *t, int depth);

static json_t *read_items(struct text *t, int depth, json_type type)
{
    const char close = type == JSON_OBJECT ? '}' : ']';
    json_t *j = made(type);
    t->at++;
    while (next(t) != close) {
        char *key = type == JSON_OBJECT && next(t) == '"' ? read_string(t) : NULL;
        if (type == JSON_OBJECT && key && next(t) == ':')
            t->at++;
        json_t *value = type == JSON_ARRAY || key ? read_value(t, depth + 1) : NULL;
        if (!value) {
            free(key);
            json_decref(j);
            return NULL;
        }
        append(j, key, value);
        if (next(t) == ',')
            t->at++;
    }
    t->at++;
    return j;
}

static json_t *read_value(struct text *t, int depth)
{
    static const struct {
        const char *word;
        json_type type;
    } words[] = {{"true", JSON_TRUE}, {"false", JSON_FALSE}, {"null", JSON_NULL}};
    const char c = next(t);
    if (depth > DEPTH_MAX)
        return NULL;
    if (c == '{' || c == '[')
        return read_items(t, depth, c == '{' ? JSON_OBJECT : JSON_ARRAY);
    if (c == '"') {
        char *text = read_string(t);
        json_t *j = text ? made(JSON_STRING) : NULL;
        if (j)
            j->text = text;
        return j;
    }
    for (size_t i = 0; i < 3; i++)
        if ((size_t)(t->end - t->at) >= strlen(words[i].word) &&
            strncmp(t->at, words[i].word, strlen(words[i].word)) == 0) {
            t->at += strlen(words[i].word);
            return made(words[i].type);
        }
    return read_number(t);
}

json_t *json_loadb(const char *text, size_t n, size_t flags, json_error_t *error)
{
    struct text t = {text, text + n};
    json_t *j = read_value(&t, 0);
    (void)flags;
    if (!j && error)
        (void)snprintf(error->text, sizeof error->text, "not JSON");
    return j;
}

json_t *json_load_file(const char *path, size_t flags, json_error_t *error)
{
    FILE *f = fopen(path, "rb");
    if (error)
        error->line = f ? 0 : -1;
    if (!f) {
        if (error)
            (void)snprintf(error->text, sizeof error->text, "unable to open %.120s", path);
        return NULL;
    }
    char *text = NULL;
    size_t n = 0, room = 1 << 16;
    do {
        room *= 2;
        text = realloc(text, room);
        if (!text)
            abort();
        n += fread(text + n, 1, room - n, f);
    } while (n == room);
    (void)fclose(f);
    json_t *j = json_loadb(text, n, flags, error);
    free(text);
    return j;
}

json_t *json_object_get(const json_t *j, const char *key)
{
    for (size_t i = 0; i < json_object_size(j); i++)
        if (strcmp(j->key[i], key) == 0)
            return j->item[i];
    return NULL;
}

json_t *json_array_get(const json_t *j, size_t i)
{
    return i < json_array_size(j) ? j->item[i] : NULL;
}

json_t *json_true(void)
{
    return made(JSON_TRUE);
}

json_t *json_object(void)
{
    return made(JSON_OBJECT);
}

int json_object_set_new(json_t *j, const char *key, json_t *value)
{
    for (size_t i = 0; i < json_object_size(j); i++)
        if (strcmp(j->key[i], key) == 0) {
            json_decref(j->item[i]);
            j->item[i] = value;
            return 0;
        }
    char *copy = malloc(strlen(key) + 1);
    if (!copy || !json_is_object(j))
        abort();
    append(j, strcpy(copy, key), value);
    return 0;
}
