/* The filters, tests and methods of chat templates, each as in Jinja and Python. */
#include "zo/data/template.h"
#include "zo/data/utf8.h"

bool zo_template_true(const json_t *v)
{
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_TRUE:
        return true;
    case JSON_INTEGER:
        return json_integer_value(v) != 0;
    case JSON_REAL:
        return json_real_value(v) != 0;
    case JSON_STRING:
        return json_string_length(v) != 0;
    case JSON_ARRAY:
        return json_array_size(v) != 0;
    case JSON_OBJECT:
        return json_object_size(v) != 0;
    default:
        return false;
    }
}

bool zo_template_equal(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return a == b || (a && b && json_equal(a, b));
}

enum err zo_template_print(struct buf *out, const json_t *v, struct err_why *why)
{
    char text[64];
    if (!v)
        return ERR_OK; /* undefined prints nothing */
    switch (json_typeof(v)) {
    case JSON_STRING:
        buf_add(out, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        buf_add(out, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v)));
        break;
    case JSON_REAL: { /* the shortest that reads back, as Python prints it */
        int n = 0;
        for (int digits = 1; digits <= 17; digits++) {
            n = snprintf(text, sizeof text, "%.*g", digits, json_real_value(v));
            if (strtod(text, NULL) == json_real_value(v))
                break;
        }
        buf_add(out, text, (size_t)n);
        if (!strpbrk(text, ".en"))
            buf_add(out, ".0", 2);
        break;
    }
    case JSON_TRUE:
        buf_add(out, "True", 4);
        break;
    case JSON_FALSE:
        buf_add(out, "False", 5);
        break;
    case JSON_NULL:
        buf_add(out, "None", 4);
        break;
    default:
        return err_set(why, ERR_UNSUPPORTED, "a list or dict is printed as Python would: not supported (use tojson)");
    }
    return out->oom ? ERR_NOMEM : ERR_OK;
}

static json_t *refuse(enum err *e, struct err_why *why, const char *what, const char *name)
{
    *e = err_set(why, ERR_UNSUPPORTED, "%s \"%s\" is not supported here", what, name);
    return NULL;
}

/* ---- text ---- */

static bool in_set(uint32_t cp, const json_t *set)
{
    if (!json_is_string(set))
        return zo_utf8_is_space(cp) || (cp >= 0x1C && cp <= 0x1F); /* Python's str.strip */
    const char *p = json_string_value(set);
    for (size_t i = 0; i < json_string_length(set);) {
        uint32_t c;
        i += zo_utf8_get(&c, p + i, json_string_length(set) - i);
        if (c == cp)
            return true;
    }
    return false;
}

static json_t *strip(const json_t *v, bool left, bool right, const json_t *set)
{
    const char *p = json_string_value(v);
    const size_t n = json_string_length(v);
    size_t start = 0, end = 0;
    bool begun = !left;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        const size_t k = zo_utf8_get(&cp, p + i, n - i);
        const bool drop = in_set(cp, set);
        if (!begun && !drop) {
            start = i;
            begun = true;
        }
        i += k;
        if (!drop)
            end = i;
    }
    if (!right)
        end = n;
    if (!begun || end < start)
        start = end = 0;
    return json_stringn(p + start, end - start);
}

enum text_case { CASE_LOWER, CASE_UPPER, CASE_TITLE, CASE_CAPITAL };
/* ASCII letters alone change case in title and upper: chat templates use them on role names. */
static json_t *change_case(const json_t *v, enum text_case kind)
{
    struct buf b = {0};
    bool inside = false;
    const char *p = json_string_value(v);
    for (size_t i = 0; i < json_string_length(v);) {
        uint32_t cp;
        i += zo_utf8_get(&cp, p + i, json_string_length(v) - i);
        const bool letter = (cp | 32) >= 'a' && (cp | 32) <= 'z';
        const bool up = kind == CASE_UPPER || ((kind == CASE_TITLE || kind == CASE_CAPITAL) && !inside);
        if (up && cp >= 'a' && cp <= 'z')
            cp -= 32;
        inside = kind == CASE_CAPITAL || letter;
        if (up)
            zo_utf8_add(&b, cp);
        else
            zo_utf8_add_lower(&b, cp);
    }
    json_t *out = json_stringn(b.p ? b.p : "", b.n);
    buf_free(&b);
    return out;
}

static json_t *replace(const json_t *v, const json_t *from, const json_t *to)
{
    struct buf b = {0};
    const char *p = json_string_value(v);
    const size_t n = json_string_length(v), k = json_string_length(from);
    for (size_t i = 0; i < n && b.n <= TEMPLATE_OUTPUT_MAX;) {
        const char *hit = k ? memmem(p + i, n - i, json_string_value(from), k) : NULL;
        const size_t end = hit ? (size_t)(hit - p) : n;
        buf_add(&b, p + i, end - i);
        if (hit)
            buf_add(&b, json_string_value(to), json_string_length(to));
        i = hit ? end + k : n;
    }
    json_t *out = b.n > TEMPLATE_OUTPUT_MAX ? NULL : json_stringn(b.p ? b.p : "", b.n);
    buf_free(&b);
    return out;
}

/* split(): at white space, without empty parts; split(sep). */
static json_t *split(const json_t *v, const json_t *sep)
{
    json_t *list = json_array();
    const char *p = json_string_value(v);
    const size_t n = json_string_length(v), k = json_string_length(sep);
    size_t start = 0;
    for (size_t i = 0; i <= n;) {
        uint32_t cp = ' ';
        const size_t step = i < n ? zo_utf8_get(&cp, p + i, n - i) : 1;
        const bool cut = k ? n - i >= k && memcmp(p + i, json_string_value(sep), k) == 0 : in_set(cp, NULL);
        if (i == n || cut) {
            if (k || i > start)
                json_array_append_new(list, json_stringn(p + start, i - start));
            start = i + (k ? k : step);
        }
        i += cut && k ? k : step;
    }
    return list;
}

static bool has_affix(const json_t *v, const json_t *affix, bool at_end)
{
    size_t i;
    json_t *one;
    json_array_foreach(affix, i, one)
    {
        if (has_affix(v, one, at_end))
            return true;
    }
    const size_t n = json_string_length(v), k = json_string_length(affix);
    return json_is_string(affix) && n >= k &&
           memcmp(json_string_value(v) + (at_end ? n - k : 0), json_string_value(affix), k) == 0;
}

static json_t *text_method(const json_t *v, const char *name, const struct template_args *args)
{
    const json_t *first = json_array_get(args->list, 0), *second = json_array_get(args->list, 1);
    if (strcmp(name, "strip") == 0 || strcmp(name, "trim") == 0)
        return strip(v, true, true, first);
    if (strcmp(name, "lstrip") == 0)
        return strip(v, true, false, first);
    if (strcmp(name, "rstrip") == 0)
        return strip(v, false, true, first);
    if (strcmp(name, "lower") == 0)
        return change_case(v, CASE_LOWER);
    if (strcmp(name, "upper") == 0)
        return change_case(v, CASE_UPPER);
    if (strcmp(name, "title") == 0)
        return change_case(v, CASE_TITLE);
    if (strcmp(name, "capitalize") == 0)
        return change_case(v, CASE_CAPITAL);
    if (strcmp(name, "replace") == 0 && json_is_string(first) && json_is_string(second))
        return replace(v, first, second);
    if (strcmp(name, "split") == 0 && json_array_size(args->list) <= 1)
        return split(v, first);
    if (strcmp(name, "startswith") == 0)
        return json_boolean(has_affix(v, first, false));
    if (strcmp(name, "endswith") == 0)
        return json_boolean(has_affix(v, first, true));
    return NULL;
}

static json_t *pairs(json_t *v)
{
    json_t *list = json_array(), *value;
    const char *key;
    json_object_foreach(v, key, value)
    {
        (void)json_array_append_new(list, json_pack("[s,O]", key, value));
    }
    return list;
}

json_t *zo_template_method(json_t *v, const char *name, const struct template_args *args, enum err *e,
                           struct err_why *why)
{
    json_t *out = NULL, *value;
    const char *key;
    if (json_is_string(v))
        out = text_method(v, name, args);
    if (json_is_object(v) && strcmp(name, "get") == 0) {
        const json_t *k = json_array_get(args->list, 0);
        out = json_is_string(k) ? json_object_get(v, json_string_value(k)) : NULL;
        out = out ? out : json_array_get(args->list, 1);
        return out ? json_incref(out) : json_null();
    }
    if (json_is_object(v) && strcmp(name, "items") == 0)
        out = pairs(v);
    if (json_is_object(v) && (strcmp(name, "keys") == 0 || strcmp(name, "values") == 0)) {
        out = json_array();
        json_object_foreach(v, key, value)
        {
            (void)(*name == 'k' ? json_array_append_new(out, json_string(key)) : json_array_append(out, value));
        }
    }
    return out ? out : refuse(e, why, "the method", name);
}

/* ---- filters ---- */

static json_t *list_of(json_t *v)
{
    if (json_is_array(v))
        return json_copy(v);
    json_t *list = json_array();
    const char *p = json_string_value(v), *key;
    for (size_t i = 0; p && i < json_string_length(v);) {
        uint32_t cp;
        const size_t k = zo_utf8_get(&cp, p + i, json_string_length(v) - i);
        json_array_append_new(list, json_stringn(p + i, k));
        i += k;
    }
    json_t *value;
    json_object_foreach(v, key, value)
    {
        (void)json_array_append_new(list, json_string(key));
    }
    return list;
}

static json_t *join(const json_t *v, const json_t *sep, enum err *e, struct err_why *why)
{
    struct buf b = {0};
    size_t i;
    json_t *one;
    json_array_foreach(v, i, one)
    {
        if (i && json_is_string(sep))
            buf_add(&b, json_string_value(sep), json_string_length(sep));
        if (!*e)
            *e = zo_template_print(&b, one, why);
    }
    json_t *out = *e || b.n > TEMPLATE_OUTPUT_MAX ? NULL : json_stringn(b.p ? b.p : "", b.n);
    buf_free(&b);
    return out;
}

static json_t *to_json(const json_t *v, const struct template_args *args)
{
    const json_int_t indent = json_integer_value(json_object_get(args->named, "indent"));
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_INDENT(indent > 0 && indent < 32 ? (size_t)indent : 0));
    json_t *out = text ? json_string(text) : NULL;
    free(text);
    return out;
}

static json_int_t length(const json_t *v)
{
    if (json_is_array(v))
        return (json_int_t)json_array_size(v);
    if (json_is_object(v))
        return (json_int_t)json_object_size(v);
    json_int_t n = 0;
    for (size_t i = 0; i < json_string_length(v); i++)
        n += ((uint8_t)json_string_value(v)[i] & 0xC0) != 0x80;
    return n;
}

/* selectattr, rejectattr(name [, test [, argument]]); map(attribute=name). */
static json_t *by_attribute(json_t *v, const char *name, const struct template_args *args, enum err *e,
                            struct err_why *why)
{
    json_t *out = json_array(), *one;
    const bool map = strcmp(name, "map") == 0;
    const json_t *key = map ? json_object_get(args->named, "attribute") : json_array_get(args->list, 0);
    const json_t *test = json_array_get(args->list, 1), *argument = json_array_get(args->list, 2);
    struct template_args inner = {.list = argument ? json_pack("[O]", argument) : json_array(),
                                  .named = json_object()};
    size_t i;
    if (!json_is_string(key))
        (void)refuse(e, why, "without an attribute the filter", name);
    json_array_foreach(v, i, one)
    {
        json_t *attr = *e ? NULL : json_object_get(one, json_string_value(key));
        const bool yes = *e || map                ? false
                         : json_is_string(test) ? zo_template_test(attr, json_string_value(test), &inner, e, why)
                                                : zo_template_true(attr);
        if (map && !*e)
            (void)json_array_append(out, attr ? attr : json_null());
        else if (!*e && yes == (*name == 's'))
            (void)json_array_append(out, one);
    }
    json_decref(inner.list);
    json_decref(inner.named);
    return out;
}

static json_t *to_integer(const json_t *v)
{
    if (json_is_string(v))
        return json_integer(strtoll(json_string_value(v), NULL, 10));
    if (json_is_real(v)) {
        const double d = json_real_value(v);
        return json_integer(d > -1e18 && d < 1e18 ? (json_int_t)d : 0);
    }
    return json_integer(json_is_true(v) ? 1 : json_integer_value(v));
}

static json_t *list_filter(json_t *v, const char *name)
{
    json_t *list = list_of(v), *out = NULL;
    const size_t n = json_array_size(list);
    if (strcmp(name, "list") == 0)
        return list;
    if (strcmp(name, "reverse") == 0) {
        out = json_array();
        for (size_t i = n; i-- > 0;)
            (void)json_array_append(out, json_array_get(list, i));
    } else if (n) {
        out = json_incref(json_array_get(list, *name == 'f' ? 0 : n - 1));
    }
    json_decref(list);
    return out;
}

static bool one_of(const char *name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

json_t *zo_template_filter(json_t *v, const char *name, const struct template_args *args, enum err *e,
                           struct err_why *why)
{
    static const char *const on_text[] = {"trim", "upper", "lower", "title", "capitalize", "replace"};
    static const char *const on_lists[] = {"list", "reverse", "first", "last"};
    static const char *const on_attributes[] = {"selectattr", "rejectattr", "map"};
    json_t *first = json_array_get(args->list, 0);
    json_t *out = NULL;
    if (strcmp(name, "default") == 0 || strcmp(name, "d") == 0) {
        const bool falsy = zo_template_true(json_array_get(args->list, 1)) ||
                           zo_template_true(json_object_get(args->named, "boolean"));
        return json_incref(!v || (falsy && !zo_template_true(v)) ? first : v);
    }
    if (strcmp(name, "length") == 0 || strcmp(name, "count") == 0)
        return json_integer(length(v));
    if (one_of(name, on_lists, ARRAY_LEN(on_lists)))
        return list_filter(v, name);
    if (one_of(name, on_attributes, ARRAY_LEN(on_attributes)))
        return by_attribute(v, name, args, e, why);
    if (strcmp(name, "join") == 0)
        return join(v, first, e, why);
    if (strcmp(name, "items") == 0)
        return pairs(v);
    if (strcmp(name, "tojson") == 0 && v)
        return to_json(v, args);
    if (strcmp(name, "int") == 0)
        return to_integer(v);
    if (strcmp(name, "safe") == 0)
        return json_incref(v);
    const bool text = one_of(name, on_text, ARRAY_LEN(on_text));
    if (text || strcmp(name, "string") == 0) {
        struct buf b = {0};
        *e = zo_template_print(&b, v, why);
        json_t *s = *e ? NULL : json_stringn(b.p ? b.p : "", b.n);
        buf_free(&b);
        out = s && text ? text_method(s, name, args) : json_incref(s);
        json_decref(s);
    }
    return out || *e ? out : refuse(e, why, "the filter", name);
}

/* ---- tests ---- */

bool zo_template_test(const json_t *v, const char *name, const struct template_args *args, enum err *e,
                      struct err_why *why)
{
    const json_t *first = json_array_get(args->list, 0);
    const struct {
        const char *name;
        bool yes;
    } tests[] = {
        {"defined", v != NULL},
        {"undefined", v == NULL},
        {"none", json_is_null(v)},
        {"string", json_is_string(v)},
        {"number", json_is_number(v) || json_is_boolean(v)},
        {"integer", json_is_integer(v)},
        {"float", json_is_real(v)},
        {"boolean", json_is_boolean(v)},
        {"true", json_is_true(v)},
        {"false", json_is_false(v)},
        {"mapping", json_is_object(v)},
        {"iterable", json_is_object(v) || json_is_array(v) || json_is_string(v)},
        {"sequence", json_is_object(v) || json_is_array(v) || json_is_string(v)},
        {"even", json_is_integer(v) && json_integer_value(v) % 2 == 0},
        {"odd", json_is_integer(v) && json_integer_value(v) % 2 != 0},
        {"equalto", zo_template_equal(v, first)},
        {"eq", zo_template_equal(v, first)},
        {"==", zo_template_equal(v, first)},
        {"ne", !zo_template_equal(v, first)},
        {"!=", !zo_template_equal(v, first)},
    };
    for (size_t i = 0; i < ARRAY_LEN(tests); i++)
        if (strcmp(name, tests[i].name) == 0)
            return tests[i].yes;
    if (strcmp(name, "in") == 0) {
        size_t i;
        json_t *one;
        json_array_foreach(first, i, one)
        {
            if (zo_template_equal(one, v))
                return true;
        }
        return json_is_object(first) && json_is_string(v) && json_object_get(first, json_string_value(v));
    }
    (void)refuse(e, why, "the test", name);
    return false;
}
