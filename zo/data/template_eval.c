/* Runs a template's tree.  Values are jansson values; NULL is Jinja's "undefined". */
#include "zo/data/template.h"
#include "zo/data/utf8.h"

enum { EVAL_DEPTH_MAX = 1000 };
typedef const struct template_node *node;
struct run {
    const json_t *globals;
    json_t *scopes[TEMPLATE_DEPTH_MAX + 2]; /* the template's own, then one per running loop */
    size_t n_scopes;
    struct buf *out;
    size_t steps, depth;
    enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;
    enum err e;
    struct err_why *why;
    unsigned line;
};

static json_t *fail(struct run *r, enum err e, const char *what, const char *name)
{
    if (!r->e)
        r->e = err_set(r->why, e, "%s%s%s%s", what, name ? " \"" : "", name ? name : "", name ? "\"" : "");
    return NULL;
}

static json_t *eval(struct run *r, node x);

/* ---- names ---- */

static json_t *lookup(struct run *r, const char *name)
{
    for (size_t i = r->n_scopes; i-- > 0;) {
        json_t *v = json_object_get(r->scopes[i], name);
        if (v)
            return json_incref(v);
    }
    return json_incref(json_object_get(r->globals, name));
}

static void assign(struct run *r, const char *name, json_t *value) /* takes the reference */
{
    if (!value) /* undefined: the name is as if it had never been set */
        (void)json_object_del(r->scopes[r->n_scopes - 1], name);
    else if (json_object_set_new(r->scopes[r->n_scopes - 1], name, value) != 0)
        (void)fail(r, ERR_NOMEM, "out of memory", NULL);
}

/* ---- indexing ---- */

static json_t *string_char(const json_t *s, json_int_t at)
{
    const char *p = json_string_value(s);
    const size_t n = json_string_length(s);
    json_int_t length = 0;
    for (size_t i = 0; i < n; i++)
        length += ((uint8_t)p[i] & 0xC0) != 0x80;
    if (at < 0)
        at += length;
    for (size_t i = 0; at >= 0 && i < n; at--) {
        uint32_t cp;
        const size_t k = zo_utf8_get(&cp, p + i, n - i);
        if (at == 0)
            return json_stringn(p + i, k);
        i += k;
    }
    return NULL;
}

static json_t *index_value(struct run *r, const json_t *a, const json_t *key)
{
    if (json_is_object(a) && json_is_string(key))
        return json_incref(json_object_get(a, json_string_value(key)));
    if (json_is_integer(key)) {
        json_int_t i = json_integer_value(key);
        if (json_is_string(a))
            return string_char(a, i);
        if (json_is_array(a)) {
            if (i < 0)
                i += (json_int_t)json_array_size(a);
            return i < 0 ? NULL : json_incref(json_array_get(a, (size_t)i));
        }
    }
    if (!a)
        return fail(r, ERR_FORMAT, "a member of something undefined is asked for", NULL);
    return NULL; /* Jinja: undefined, until it is used */
}

/* The string's characters as a list. */
static json_t *characters(const json_t *s)
{
    json_t *list = json_array();
    const char *p = json_string_value(s);
    const size_t n = json_string_length(s);
    for (size_t i = 0; list && i < n;) {
        uint32_t cp;
        const size_t k = zo_utf8_get(&cp, p + i, n - i);
        json_array_append_new(list, json_stringn(p + i, k));
        i += k;
    }
    return list;
}

/* Python's rules for a[start:stop:step] on a list of n. */
static void slice_bounds(json_int_t n, json_int_t step, const json_t *const part[2], json_int_t bound[2])
{
    for (size_t i = 0; i < 2; i++) {
        if (!json_is_integer(part[i])) {
            bound[i] = step > 0 ? (i ? n : 0) : (i ? -1 : n - 1);
            continue;
        }
        json_int_t v = json_integer_value(part[i]);
        if (v < 0)
            v += n;
        const json_int_t low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
        bound[i] = v < low ? low : v > high ? high : v;
    }
}

static json_t *join_strings(json_t *list)
{
    struct buf b = {0};
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v)
    {
        buf_add(&b, json_string_value(v), json_string_length(v));
    }
    json_t *s = json_stringn(b.p ? b.p : "", b.n);
    buf_free(&b);
    json_decref(list);
    return s;
}

static json_t *slice_value(struct run *r, json_t *a, const json_t *const part[2], const json_t *step_value)
{
    const json_int_t step = json_is_integer(step_value) ? json_integer_value(step_value) : 1;
    if (step == 0 || (!json_is_string(a) && !json_is_array(a)))
        return fail(r, ERR_FORMAT, "a slice of something that is not a list or text", NULL);
    json_t *list = json_is_string(a) ? characters(a) : json_incref(a), *out = json_array();
    json_int_t bound[2];
    slice_bounds((json_int_t)json_array_size(list), step, part, bound);
    for (json_int_t i = bound[0]; step > 0 ? i < bound[1] : i > bound[1]; i += step)
        json_array_append(out, json_array_get(list, (size_t)i));
    json_decref(list);
    return json_is_string(a) ? join_strings(out) : out;
}

static json_t *eval_slice(struct run *r, node x)
{
    json_t *a = eval(r, x->a), *part[3] = {0};
    const node nodes[3] = {x->b, x->c, x->d};
    for (size_t i = 0; i < 3; i++)
        part[i] = nodes[i] ? eval(r, nodes[i]) : NULL;
    const json_t *const bounds[2] = {part[0], part[1]};
    json_t *v = r->e ? NULL : slice_value(r, a, bounds, part[2]);
    json_decref(a);
    for (size_t i = 0; i < 3; i++)
        json_decref(part[i]);
    return v;
}

/* ---- operators ---- */

static json_t *concat(struct run *r, const json_t *a, const json_t *b)
{
    struct buf s = {0};
    struct err_why why = {0};
    enum err e = zo_template_print(&s, a, &why);
    if (!e)
        e = zo_template_print(&s, b, &why);
    json_t *v = NULL;
    if (e || s.oom || s.n > TEMPLATE_OUTPUT_MAX)
        (void)fail(r, e ? e : ERR_RANGE, e ? why.text : "a text grows too long", NULL);
    else
        v = json_stringn(s.p ? s.p : "", s.n);
    buf_free(&s);
    return v;
}

static json_t *integer_op(struct run *r, char op, json_int_t a, json_int_t b)
{
    json_int_t v = 0;
    if ((op == '%' || op == 'D') && (b == 0 || b == -1)) /* -1: INT64_MIN would overflow */
        return b == 0 ? fail(r, ERR_FORMAT, "a division by zero", NULL)
                      : op == '%' ? json_integer(0) : integer_op(r, '-', 0, a);
    bool overflow = false;
    if (op == '+')
        overflow = __builtin_add_overflow(a, b, &v);
    else if (op == '-')
        overflow = __builtin_sub_overflow(a, b, &v);
    else if (op == '*')
        overflow = __builtin_mul_overflow(a, b, &v);
    else {
        const json_int_t rest = a % b, down = rest != 0 && (rest < 0) != (b < 0); /* Python rounds down */
        v = op == '%' ? rest + (down ? b : 0) : a / b - down;
    }
    return overflow ? fail(r, ERR_RANGE, "a number grows too large", NULL) : json_integer(v);
}

static json_t *binary(struct run *r, char op, json_t *a, json_t *b)
{
    if (op == '~')
        return concat(r, a, b);
    if (json_is_integer(a) && json_is_integer(b) && op != '/')
        return integer_op(r, op, json_integer_value(a), json_integer_value(b));
    if (json_is_number(a) && json_is_number(b)) {
        const double p = json_number_value(a), q = json_number_value(b);
        if (op == '/' && q == 0)
            return fail(r, ERR_FORMAT, "a division by zero", NULL);
        if (op == '+' || op == '-' || op == '*' || op == '/')
            return json_real(op == '+' ? p + q : op == '-' ? p - q : op == '*' ? p * q : p / q);
    }
    if (op == '+' && json_is_string(a) && json_is_string(b))
        return concat(r, a, b);
    if (op == '+' && json_is_array(a) && json_is_array(b)) {
        if (json_array_size(a) + json_array_size(b) > TEMPLATE_ITEMS_MAX)
            return fail(r, ERR_RANGE, "a list grows too long", NULL);
        json_t *v = json_copy(a);
        (void)json_array_extend(v, b);
        return v;
    }
    const char name[2] = {op == 'D' ? '/' : op, 0};
    return fail(r, ERR_FORMAT, "values of the wrong type for the operator", name);
}

static bool contains(const json_t *list, const json_t *v)
{
    size_t i;
    json_t *item;
    if (json_is_object(list))
        return json_is_string(v) && json_object_get(list, json_string_value(v));
    if (json_is_string(list))
        return json_is_string(v) && memmem(json_string_value(list), json_string_length(list),
                                           json_string_value(v), json_string_length(v)) != NULL;
    json_array_foreach(list, i, item)
    {
        if (zo_template_equal(item, v))
            return true;
    }
    return false;
}

static json_t *compare(struct run *r, char op, const json_t *a, const json_t *b)
{
    if (op == '=' || op == '!')
        return json_boolean(zo_template_equal(a, b) == (op == '='));
    if (op == 'i' || op == 'n')
        return json_boolean(contains(b, a) == (op == 'i'));
    double order = 0;
    if (json_is_number(a) && json_is_number(b))
        order = json_number_value(a) - json_number_value(b);
    else if (json_is_string(a) && json_is_string(b))
        order = (double)strcmp(json_string_value(a), json_string_value(b));
    else
        return fail(r, ERR_FORMAT, "values that cannot be compared", NULL);
    return json_boolean(op == '<' ? order < 0 : op == '>' ? order > 0 : op == 'l' ? order <= 0 : order >= 0);
}

/* ---- calls ---- */

static void eval_args(struct run *r, node x, struct template_args *args)
{
    args->list = json_array();
    args->named = json_object();
    for (size_t i = 0; i < x->n && !r->e; i++) {
        json_t *v = eval(r, x->list[i]);
        if (r->e)
            json_decref(v);
        else if (x->names[i])
            (void)json_object_set_new(args->named, x->names[i], v ? v : json_null());
        else
            (void)json_array_append_new(args->list, v ? v : json_null());
    }
}

static json_t *range(struct run *r, const json_t *list)
{
    json_int_t from = 0, to = json_integer_value(json_array_get(list, 0)), step = 1;
    if (json_array_size(list) > 1) {
        from = to;
        to = json_integer_value(json_array_get(list, 1));
    }
    if (json_array_size(list) > 2)
        step = json_integer_value(json_array_get(list, 2));
    json_t *v = json_array();
    if (step == 0)
        (void)fail(r, ERR_FORMAT, "a range with step 0", NULL);
    for (json_int_t i = from; !r->e && (step > 0 ? i < to : i > to); i += step) {
        if (json_array_size(v) >= TEMPLATE_ITEMS_MAX || i > INT32_MAX || i < INT32_MIN || step > INT32_MAX ||
            step < INT32_MIN)
            (void)fail(r, ERR_RANGE, "a list grows too long", NULL);
        (void)json_array_append_new(v, json_integer(i));
    }
    return v;
}

static json_t *call_function(struct run *r, const char *name, const struct template_args *args)
{
    if (strcmp(name, "raise_exception") == 0) {
        const json_t *text = json_array_get(args->list, 0);
        return fail(r, ERR_FORMAT, "the chat template refuses:",
                    json_is_string(text) ? json_string_value(text) : "no reason given");
    }
    if (strcmp(name, "namespace") == 0 || strcmp(name, "dict") == 0)
        return json_copy(args->named);
    if (strcmp(name, "range") == 0)
        return range(r, args->list);
    if (strncmp(name, "strftime", 8) == 0)
        return fail(r, ERR_UNSUPPORTED, "a template that needs the clock is refused: function", name);
    return fail(r, ERR_UNSUPPORTED, "a template that needs code is refused: function", name);
}

static json_t *eval_call(struct run *r, node x)
{
    struct template_args args = {0};
    json_t *v = NULL, *object = NULL;
    if (x->a->kind == T_ATTR)
        object = eval(r, x->a->a);
    if (!r->e)
        eval_args(r, x, &args);
    if (!r->e && x->a->kind == T_ATTR)
        v = zo_template_method(object, x->a->text, &args, &r->e, r->why);
    else if (!r->e && x->a->kind == T_NAME)
        v = call_function(r, x->a->text, &args);
    else if (!r->e)
        (void)fail(r, ERR_UNSUPPORTED, "a call of something without a name", NULL);
    json_decref(object);
    json_decref(args.list);
    json_decref(args.named);
    return v;
}

static json_t *eval_applied(struct run *r, node x)
{
    struct template_args args = {0};
    json_t *a = eval(r, x->a), *v = NULL;
    if (!r->e)
        eval_args(r, x, &args);
    if (!r->e && x->kind == T_FILTER)
        v = zo_template_filter(a, x->text, &args, &r->e, r->why);
    else if (!r->e)
        v = json_boolean(zo_template_test(a, x->text, &args, &r->e, r->why));
    json_decref(a);
    json_decref(args.list);
    json_decref(args.named);
    return v;
}

/* ---- expressions ---- */

static json_t *eval_pair(struct run *r, node x)
{
    json_t *a = eval(r, x->a), *b = r->e ? NULL : eval(r, x->b), *v = NULL;
    if (!r->e)
        v = x->kind == T_INDEX     ? index_value(r, a, b)
            : x->kind == T_COMPARE ? compare(r, x->op, a, b)
                                   : binary(r, x->op, a, b);
    json_decref(a);
    json_decref(b);
    return v;
}

static json_t *eval_attr(struct run *r, node x)
{
    json_t *a = eval(r, x->a), *v = NULL;
    if (!r->e && !a)
        (void)fail(r, ERR_FORMAT, "of something undefined the member is asked for:", x->text);
    else if (!r->e)
        v = json_incref(json_object_get(a, x->text));
    json_decref(a);
    return v;
}

static json_t *eval_container(struct run *r, node x)
{
    json_t *v = x->kind == T_LIST ? json_array() : json_object();
    const size_t step = x->kind == T_LIST ? 1 : 2;
    for (size_t i = 0; i + step <= x->n && !r->e; i += step) {
        json_t *a = eval(r, x->list[i]);
        if (step == 1) {
            (void)json_array_append_new(v, a ? a : json_null());
            continue;
        }
        json_t *b = r->e ? NULL : eval(r, x->list[i + 1]);
        if (!r->e && !json_is_string(a))
            (void)fail(r, ERR_UNSUPPORTED, "a dict with a key that is not text", NULL);
        if (r->e)
            json_decref(b);
        else
            (void)json_object_set_new(v, json_string_value(a), b ? b : json_null());
        json_decref(a);
    }
    return v;
}

/* and, or: the value that decides; not; a if b else c. */
static json_t *eval_logic(struct run *r, node x)
{
    json_t *a = eval(r, x->a);
    const bool yes = zo_template_true(a);
    if (r->e || (x->kind == T_AND && !yes) || (x->kind == T_OR && yes))
        return a;
    json_decref(a);
    if (x->kind == T_NOT)
        return json_boolean(!yes);
    if (x->kind == T_COND)
        return yes ? eval(r, x->b) : x->c ? eval(r, x->c) : NULL;
    return eval(r, x->b);
}

static json_t *eval_negate(struct run *r, node x)
{
    json_t *a = eval(r, x->a), *v = NULL;
    if (!r->e)
        v = json_is_integer(a) ? integer_op(r, '-', 0, json_integer_value(a))
            : json_is_real(a)  ? json_real(-json_real_value(a))
                               : fail(r, ERR_FORMAT, "a minus before something that is not a number", NULL);
    json_decref(a);
    return v;
}

static json_t *eval_kind(struct run *r, node x)
{
    switch (x->kind) {
    case T_CONST:
        return json_incref(x->value);
    case T_NAME:
        return lookup(r, x->text);
    case T_ATTR:
        return eval_attr(r, x);
    case T_INDEX:
    case T_BINARY:
    case T_COMPARE:
        return eval_pair(r, x);
    case T_SLICE:
        return eval_slice(r, x);
    case T_CALL:
        return eval_call(r, x);
    case T_FILTER:
    case T_TEST:
        return eval_applied(r, x);
    case T_NEGATE:
        return eval_negate(r, x);
    case T_LIST:
    case T_DICT:
        return eval_container(r, x);
    default: /* T_AND, T_OR, T_NOT, T_COND */
        return eval_logic(r, x);
    }
}

static json_t *eval(struct run *r, node x)
{
    r->line = x->line;
    if (r->e)
        return NULL;
    if (++r->steps > TEMPLATE_STEPS_MAX)
        return fail(r, ERR_RANGE, "the template runs too long", NULL);
    if (r->depth >= EVAL_DEPTH_MAX) /* a chain like a + b + c + .. nests without parentheses */
        return fail(r, ERR_RANGE, "an expression is nested too deeply", NULL);
    r->depth++;
    json_t *v = eval_kind(r, x);
    r->depth--;
    return v;
}

/* ---- statements ---- */

static void exec(struct run *r, node x);

static json_t *loop_object(const json_t *list, size_t i)
{
    const json_int_t n = (json_int_t)json_array_size(list), k = (json_int_t)i;
    json_t *v = json_pack("{s:I s:I s:I s:I s:b s:b s:I}", "index", k + 1, "index0", k, "revindex", n - k,
                          "revindex0", n - k - 1, "first", k == 0, "last", k == n - 1, "length", n);
    if (i > 0)
        (void)json_object_set(v, "previtem", json_array_get(list, i - 1));
    if (i + 1 < json_array_size(list))
        (void)json_object_set(v, "nextitem", json_array_get(list, i + 1));
    return v;
}

/* What a loop runs over, as a list. */
static json_t *iterable(struct run *r, const json_t *v)
{
    const char *key;
    json_t *value, *list;
    if (json_is_array(v))
        return json_copy((json_t *)(uintptr_t)v); /* the body may change the original */
    if (json_is_string(v))
        return characters(v);
    if (v && !json_is_object(v))
        return fail(r, ERR_FORMAT, "a loop over something that is not a list", NULL);
    list = json_array();
    json_object_foreach((json_t *)(uintptr_t)v, key, value)
    {
        (void)json_array_append_new(list, json_string(key));
    }
    return list;
}

static void bind_item(struct run *r, node x, json_t *item)
{
    if (!x->text2) {
        assign(r, x->text, json_incref(item));
        return;
    }
    if (!json_is_array(item) || json_array_size(item) != 2) {
        (void)fail(r, ERR_FORMAT, "a loop with two names over something that is not pairs", NULL);
        return;
    }
    assign(r, x->text, json_incref(json_array_get(item, 0)));
    assign(r, x->text2, json_incref(json_array_get(item, 1)));
}

/* Takes out of the list what the loop's own "if" refuses. */
static void filter_items(struct run *r, node x, json_t *list)
{
    for (size_t i = 0; x->b && i < json_array_size(list) && !r->e;) {
        bind_item(r, x, json_array_get(list, i));
        json_t *keep = eval(r, x->b);
        if (zo_template_true(keep))
            i++;
        else
            (void)json_array_remove(list, i);
        json_decref(keep);
    }
}

static void exec_for(struct run *r, node x)
{
    json_t *over = eval(r, x->a), *list = r->e ? NULL : iterable(r, over);
    json_decref(over);
    if (!list)
        return;
    if (r->n_scopes >= ARRAY_LEN(r->scopes)) {
        (void)fail(r, ERR_RANGE, "loops are nested too deeply", NULL);
        json_decref(list);
        return;
    }
    r->scopes[r->n_scopes++] = json_object();
    filter_items(r, x, list);
    for (size_t i = 0; i < json_array_size(list) && !r->e && r->flow != FLOW_BREAK; i++) {
        r->flow = FLOW_ON;
        (void)json_object_clear(r->scopes[r->n_scopes - 1]);
        bind_item(r, x, json_array_get(list, i));
        assign(r, "loop", loop_object(list, i));
        exec(r, x->c);
    }
    r->flow = FLOW_ON;
    json_decref(r->scopes[--r->n_scopes]);
    if (json_array_size(list) == 0 && x->d && !r->e)
        exec(r, x->d);
    json_decref(list);
}

static void exec_set(struct run *r, node x)
{
    json_t *v = eval(r, x->a);
    if (r->e || !x->text2) {
        if (r->e)
            json_decref(v);
        else
            assign(r, x->text, v);
        return;
    }
    json_t *object = lookup(r, x->text);
    if (!json_is_object(object))
        (void)fail(r, ERR_FORMAT, "a member is set of something that is not a namespace:", x->text);
    else /* a deep copy: a namespace can then never come to hold itself */
        (void)json_object_set_new(object, x->text2, v ? json_deep_copy(v) : json_null());
    json_decref(v);
    json_decref(object);
}

static void exec_print(struct run *r, node x)
{
    json_t *v = eval(r, x->a);
    struct err_why why = {0};
    const enum err e = r->e ? ERR_OK : zo_template_print(r->out, v, &why);
    if (e)
        (void)fail(r, e, *why.text ? why.text : err_str(e), NULL);
    json_decref(v);
}

static void exec(struct run *r, node x)
{
    r->line = x->line;
    if (++r->steps > TEMPLATE_STEPS_MAX || r->out->n > TEMPLATE_OUTPUT_MAX) {
        (void)fail(r, ERR_RANGE, "the template runs too long", NULL);
        return;
    }
    switch (x->kind) {
    case T_TEXT:
        buf_add(r->out, x->text, x->text_n);
        break;
    case T_PRINT:
        exec_print(r, x);
        break;
    case T_IF: {
        json_t *v = eval(r, x->a);
        node branch = zo_template_true(v) ? x->b : x->c;
        json_decref(v);
        if (!r->e && branch)
            exec(r, branch);
        break;
    }
    case T_FOR:
        exec_for(r, x);
        break;
    case T_SET:
        exec_set(r, x);
        break;
    case T_BREAK:
        r->flow = FLOW_BREAK;
        break;
    case T_CONTINUE:
        r->flow = FLOW_CONTINUE;
        break;
    default: /* T_BLOCK */
        for (size_t i = 0; i < x->n && !r->e && r->flow == FLOW_ON; i++)
            exec(r, x->list[i]);
    }
}

enum err zo_template_render(const struct chat_template *t, struct buf *out, const json_t *variables,
                            struct err_why *why)
{
    struct err_why inner = {0};
    struct run r = {.globals = variables, .out = out, .why = &inner, .n_scopes = 1};
    r.scopes[0] = json_object();
    if (!r.scopes[0])
        return ERR_NOMEM;
    exec(&r, t->root);
    json_decref(r.scopes[0]);
    if (!r.e && out->oom)
        r.e = ERR_NOMEM;
    return r.e ? err_set(why, r.e, "chat template, line %u: %s", r.line,
                         *inner.text ? inner.text : err_str(r.e))
               : ERR_OK;
}
