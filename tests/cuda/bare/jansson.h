/* tests/cuda/bare/jansson.h -- as much of jansson's interface as reading a model takes, for machines that have a GPU but
 * none of our packages (bench/gpu.sh).  Reads well-formed JSON; writing is declared only, and its callers are not linked. */
#ifndef BARE_JANSSON_H
#define BARE_JANSSON_H
#include <stdbool.h>
#include <stddef.h>

typedef enum {
    JSON_OBJECT, JSON_ARRAY, JSON_STRING, JSON_INTEGER, JSON_REAL, JSON_TRUE, JSON_FALSE, JSON_NULL
} json_type;
typedef long long json_int_t;
#define JSON_INTEGER_FORMAT "lld"
typedef struct json_t {
    json_type type;
    char *text;           /* of a string */
    double real;          /* of a number */
    json_int_t integer;
    struct json_t **item; /* of an array or object */
    char **key;           /* of an object */
    size_t n, room;
    int references;
} json_t;
typedef struct {
    int line, column, position;
    char text[160];
} json_error_t;
enum { JSON_REJECT_DUPLICATES = 1, JSON_COMPACT = 2 };

json_t *json_load_file(const char *path, size_t flags, json_error_t *error);
json_t *json_loadb(const char *text, size_t n, size_t flags, json_error_t *error);
void json_decref(json_t *j);
json_t *json_object_get(const json_t *j, const char *key);
json_t *json_array_get(const json_t *j, size_t i);
json_t *json_true(void);
json_t *json_object(void);
int json_object_set_new(json_t *j, const char *key, json_t *value);
json_t *json_pack(const char *format, ...);
json_t *json_array(void);
json_t *json_integer(json_int_t i);
int json_array_append_new(json_t *j, json_t *value);
char *json_dumps(const json_t *j, size_t flags);

#define BARE_IS(j, t) ((j) != NULL && (j)->type == (t))
#define json_is_object(j) BARE_IS(j, JSON_OBJECT)
#define json_is_array(j) BARE_IS(j, JSON_ARRAY)
#define json_is_string(j) BARE_IS(j, JSON_STRING)
#define json_is_integer(j) BARE_IS(j, JSON_INTEGER)
#define json_is_true(j) BARE_IS(j, JSON_TRUE)
#define json_is_null(j) BARE_IS(j, JSON_NULL)
#define json_is_boolean(j) (BARE_IS(j, JSON_TRUE) || BARE_IS(j, JSON_FALSE))
#define json_is_number(j) (BARE_IS(j, JSON_INTEGER) || BARE_IS(j, JSON_REAL))

static inline size_t json_object_size(const json_t *j)
{
    return json_is_object(j) ? j->n : 0;
}

static inline size_t json_array_size(const json_t *j)
{
    return json_is_array(j) ? j->n : 0;
}

static inline const char *json_string_value(const json_t *j)
{
    return json_is_string(j) ? j->text : NULL;
}

static inline json_int_t json_integer_value(const json_t *j)
{
    return json_is_integer(j) ? j->integer : 0;
}

static inline double json_number_value(const json_t *j)
{
    return json_is_number(j) ? j->real : 0.0;
}

#define json_array_foreach(j, i, value) for (i = 0; i < json_array_size(j) && (value = (j)->item[i], 1); i++)
#define json_object_foreach(j, k, value)                                                                   \
    for (size_t bare_i = 0; bare_i < json_object_size(j) && (k = (j)->key[bare_i], value = (j)->item[bare_i], 1); \
         bare_i++)
#endif
