/* Template text to a tree.  Recursive descent; grammar and precedence as in jinja2/parser.py. */
#include "zo/data/template.h"
#include <ctype.h>

enum token_kind { K_END, K_NAME, K_INT, K_FLOAT, K_STRING, K_OP };
struct token {
    enum token_kind kind;
    const char *p; /* name, number, operator: in the source */
    size_t n;
};
struct parser {
    struct chat_template *t;
    const char *src;
    size_t n, pos;
    unsigned line, depth;
    struct token tok;
    struct buf string;    /* the value of a string token */
    const char *stop;     /* the tag that ended a block */
    enum err e;
    struct err_why *why;
};
typedef struct template_node *node_ptr;

static void fail(struct parser *p, enum err e, const char *what, const char *name, size_t n)
{
    if (p->e)
        return;
    p->e = err_set(p->why, e, "chat template, line %u: %s%s%.*s%s", p->line, what, n ? " \"" : "",
                   (int)(n < 60 ? n : 60), n ? name : "", n ? "\"" : "");
}

/* ---- nodes ---- */

static char *copy(struct parser *p, const char *text, size_t n)
{
    char *c = malloc(n + 1);
    if (!c) {
        p->e = ERR_NOMEM;
        return NULL;
    }
    if (n)
        memcpy(c, text, n);
    c[n] = 0;
    return c;
}

/* NULL on failure, and p->e says so. */
static node_ptr new_node(struct parser *p, enum template_kind kind)
{
    void *all = p->t->all;
    node_ptr x = calloc(1, sizeof *x);
    if (!x || !buf_grow(&all, &p->t->cap, p->t->n, 1, sizeof(node_ptr))) {
        free(x);
        p->e = ERR_NOMEM;
        return NULL;
    }
    p->t->all = all;
    p->t->all[p->t->n++] = x;
    x->kind = kind;
    x->line = p->line;
    return x;
}

static node_ptr new_named(struct parser *p, enum template_kind kind, const char *text, size_t n)
{
    node_ptr x = new_node(p, kind);
    if (x) {
        x->text = copy(p, text, n);
        x->text_n = n;
    }
    return x;
}

static node_ptr new_pair(struct parser *p, enum template_kind kind, char op, node_ptr a, node_ptr b)
{
    node_ptr x = new_node(p, kind);
    if (x) {
        x->op = op;
        x->a = a;
        x->b = b;
    }
    return x;
}

static void add_child(struct parser *p, node_ptr x, node_ptr child, char *name)
{
    void *list = x ? x->list : NULL, *names = x ? x->names : NULL;
    if (!x || p->e) {
        free(name);
        return;
    }
    size_t cap = x->cap;
    const bool ok = buf_grow(&list, &cap, x->n, 1, sizeof(node_ptr));
    x->list = list;
    const bool ok2 = buf_grow(&names, &x->cap, x->n, 1, sizeof(char *));
    x->names = names;
    if (!ok || !ok2) {
        free(name);
        p->e = ERR_NOMEM;
        return;
    }
    x->list[x->n] = child;
    x->names[x->n++] = name;
}

void zo_template_free(struct chat_template *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++) {
        node_ptr x = t->all[i];
        for (size_t k = 0; k < x->n; k++)
            free(x->names[k]);
        free(x->names);
        free(x->list);
        free(x->text);
        free(x->text2);
        json_decref(x->value);
        free(x);
    }
    free(t->all);
    free(t);
}

/* ---- tokens ---- */

static bool at(const struct parser *p, const char *text)
{
    const size_t n = strlen(text);
    return p->n - p->pos >= n && memcmp(p->src + p->pos, text, n) == 0;
}

static void lex_string(struct parser *p)
{
    const char quote = p->src[p->pos++];
    p->string.n = 0;
    buf_add(&p->string, "", 0);
    while (p->pos < p->n && p->src[p->pos] != quote) {
        char c = p->src[p->pos++];
        p->line += c == '\n';
        if (c == '\\' && p->pos < p->n) {
            c = p->src[p->pos++];
            const char *from = "ntr", *to = "\n\t\r", *k = c ? strchr(from, c) : NULL;
            if (k)
                c = to[k - from];
            else if (c != '\\' && c != '\'' && c != '"')
                buf_add(&p->string, "\\", 1); /* Python keeps an unknown escape */
        }
        buf_add(&p->string, &c, 1);
    }
    if (p->pos >= p->n)
        fail(p, ERR_FORMAT, "a string does not end", NULL, 0);
    else
        p->pos++; /* never beyond n: at() subtracts */
    p->tok.kind = K_STRING;
    if (p->string.oom)
        p->e = ERR_NOMEM;
}

/* The end of the tag? */
static bool at_end(const struct parser *p)
{
    return at(p, "%}") || at(p, "}}") || at(p, "-%}") || at(p, "-}}") || at(p, "+%}");
}

static void next(struct parser *p)
{
    static const char *const ops[] = {"==", "!=", "<=", ">=", "//", "**", "<", ">", "=", "+", "-", "*",
                                      "/",  "%",  "~",  "|",  "(",  ")",  "[", "]", "{", "}", ".", ",", ":"};
    while (p->pos < p->n && isspace((unsigned char)p->src[p->pos]))
        p->line += p->src[p->pos++] == '\n';
    const size_t start = p->pos;
    p->tok = (struct token){K_END, p->src + start, 0};
    if (p->e || p->pos >= p->n) {
        if (!p->e)
            fail(p, ERR_FORMAT, "a tag does not end", NULL, 0);
        return;
    }
    const char c = p->src[p->pos];
    if (c == '"' || c == '\'') {
        lex_string(p);
        return;
    }
    if (isalpha((unsigned char)c) || c == '_') {
        while (p->pos < p->n && (isalnum((unsigned char)p->src[p->pos]) || p->src[p->pos] == '_'))
            p->pos++;
        p->tok = (struct token){K_NAME, p->src + start, p->pos - start};
        return;
    }
    if (isdigit((unsigned char)c)) {
        bool real = false;
        while (p->pos < p->n && (isdigit((unsigned char)p->src[p->pos]) ||
                                 (p->src[p->pos] == '.' && !real && p->pos + 1 < p->n &&
                                  isdigit((unsigned char)p->src[p->pos + 1]))))
            real = p->src[p->pos++] == '.' || real;
        p->tok = (struct token){real ? K_FLOAT : K_INT, p->src + start, p->pos - start};
        return;
    }
    /* Inside braces "}}" is two closings of a dict; parse_dict asks for one at a time. */
    if (at_end(p))
        return;
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        if (at(p, ops[i])) {
            p->pos += strlen(ops[i]);
            p->tok = (struct token){K_OP, p->src + start, strlen(ops[i])};
            return;
        }
    fail(p, ERR_FORMAT, "an unexpected character", p->src + start, 1);
}

static bool is_op(const struct parser *p, const char *op)
{
    return p->tok.kind == K_OP && p->tok.n == strlen(op) && memcmp(p->tok.p, op, p->tok.n) == 0;
}

static bool is_name(const struct parser *p, const char *name)
{
    return p->tok.kind == K_NAME && p->tok.n == strlen(name) && memcmp(p->tok.p, name, p->tok.n) == 0;
}

static bool take_op(struct parser *p, const char *op)
{
    if (!is_op(p, op))
        return false;
    next(p);
    return true;
}

static bool take_name(struct parser *p, const char *name)
{
    if (!is_name(p, name))
        return false;
    next(p);
    return true;
}

static void need_op(struct parser *p, const char *op)
{
    if (!take_op(p, op))
        fail(p, ERR_FORMAT, "missing", op, strlen(op));
}

/* ---- expressions, loosest first ---- */

static node_ptr parse_expr(struct parser *p);

static void parse_args(struct parser *p, node_ptr call)
{
    while (!p->e && !is_op(p, ")")) {
        char *name = NULL;
        if (p->tok.kind == K_NAME) { /* name=value? */
            const struct parser before = *p;
            next(p);
            if (is_op(p, "=")) {
                name = copy(p, before.tok.p, before.tok.n);
                next(p);
            } else {
                p->pos = before.pos;
                p->line = before.line;
                p->tok = before.tok;
            }
        }
        node_ptr value = parse_expr(p);
        add_child(p, call, value, name);
        if (!take_op(p, ","))
            break;
    }
    need_op(p, ")");
}

static node_ptr parse_list(struct parser *p, const char *close)
{
    node_ptr x = new_node(p, T_LIST);
    while (!p->e && !is_op(p, close)) {
        add_child(p, x, parse_expr(p), NULL);
        if (!take_op(p, ","))
            break;
    }
    need_op(p, close);
    return x;
}

/* The "}" of a dict, also where two stand together. */
static bool take_brace(struct parser *p)
{
    if (p->tok.kind == K_END && at(p, "}")) {
        p->pos++;
        next(p);
        return true;
    }
    return take_op(p, "}");
}

static node_ptr parse_dict(struct parser *p)
{
    node_ptr x = new_node(p, T_DICT);
    while (!p->e && !take_brace(p)) {
        add_child(p, x, parse_expr(p), NULL);
        need_op(p, ":");
        add_child(p, x, parse_expr(p), NULL);
        if (!take_op(p, ",")) {
            if (!take_brace(p))
                fail(p, ERR_FORMAT, "missing", "}", 1);
            break;
        }
    }
    return x;
}

static node_ptr parse_constant(struct parser *p, json_t *value)
{
    node_ptr x = new_node(p, T_CONST);
    if (!x || !value) {
        json_decref(value);
        if (!p->e)
            fail(p, ERR_FORMAT, "a string that is not UTF-8", NULL, 0);
        return x;
    }
    x->value = value;
    next(p);
    return x;
}

static node_ptr parse_name(struct parser *p)
{
    static const struct {
        const char *name;
        int what;
    } words[] = {{"true", 1}, {"True", 1}, {"false", 0}, {"False", 0}, {"none", 2}, {"None", 2}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (is_name(p, words[i].name))
            return parse_constant(p, words[i].what == 2   ? json_null()
                                     : words[i].what == 1 ? json_true()
                                                          : json_false());
    node_ptr x = new_named(p, T_NAME, p->tok.p, p->tok.n);
    next(p);
    return x;
}

static node_ptr parse_string(struct parser *p)
{
    struct buf all = {0};
    buf_add(&all, p->string.p, p->string.n);
    node_ptr x = new_node(p, T_CONST);
    for (next(p); p->tok.kind == K_STRING; next(p)) /* neighbours are joined, as in Python */
        buf_add(&all, p->string.p, p->string.n);
    if (x)
        x->value = json_stringn(all.p ? all.p : "", all.n);
    if (x && !x->value)
        fail(p, ERR_FORMAT, "a string that is not UTF-8", NULL, 0);
    buf_free(&all);
    return x;
}

static node_ptr parse_primary(struct parser *p)
{
    char number[32];
    (void)snprintf(number, sizeof number, "%.*s", (int)(p->tok.n < 30 ? p->tok.n : 30), p->tok.p);
    switch (p->tok.kind) {
    case K_NAME:
        return parse_name(p);
    case K_INT:
        return parse_constant(p, json_integer(strtoll(number, NULL, 10)));
    case K_FLOAT:
        return parse_constant(p, json_real(strtod(number, NULL)));
    case K_STRING:
        return parse_string(p);
    default:
        break;
    }
    if (take_op(p, "("))  {
        node_ptr x = parse_expr(p);
        if (is_op(p, ",")) { /* a tuple is a list here */
            node_ptr list = new_node(p, T_LIST);
            add_child(p, list, x, NULL);
            while (!p->e && take_op(p, ",") && !is_op(p, ")"))
                add_child(p, list, parse_expr(p), NULL);
            x = list;
        }
        need_op(p, ")");
        return x;
    }
    if (take_op(p, "["))
        return parse_list(p, "]");
    if (take_op(p, "{"))
        return parse_dict(p);
    fail(p, ERR_FORMAT, "an expression is missing", NULL, 0);
    return NULL;
}

static node_ptr parse_subscript(struct parser *p, node_ptr a)
{
    node_ptr part[3] = {0};
    size_t k = 0;
    while (!p->e && !is_op(p, "]")) {
        if (take_op(p, ":")) {
            if (++k == 3)
                fail(p, ERR_FORMAT, "a slice has three parts at most", NULL, 0);
        } else {
            part[k < 3 ? k : 0] = parse_expr(p);
            if (!is_op(p, ":"))
                break;
        }
    }
    need_op(p, "]");
    node_ptr x = new_pair(p, k ? T_SLICE : T_INDEX, 0, a, part[0]);
    if (x) {
        x->c = part[1];
        x->d = part[2];
    }
    if (!k && !part[0])
        fail(p, ERR_FORMAT, "an index is missing", NULL, 0);
    return x;
}

static node_ptr parse_postfix(struct parser *p)
{
    node_ptr x = parse_primary(p);
    while (!p->e) {
        if (take_op(p, ".")) {
            node_ptr a = x;
            if (p->tok.kind != K_NAME && p->tok.kind != K_INT)
                fail(p, ERR_FORMAT, "a name is missing after \".\"", NULL, 0);
            x = new_named(p, T_ATTR, p->tok.p, p->tok.n);
            if (x)
                x->a = a;
            next(p);
        } else if (take_op(p, "[")) {
            x = parse_subscript(p, x);
        } else if (take_op(p, "(")) {
            node_ptr call = new_pair(p, T_CALL, 0, x, NULL);
            parse_args(p, call);
            x = call;
        } else {
            break;
        }
    }
    return x;
}

/* `is [not] name [argument]` */
static node_ptr parse_test(struct parser *p, node_ptr a)
{
    const bool negated = take_name(p, "not");
    if (p->tok.kind != K_NAME)
        fail(p, ERR_FORMAT, "a test is missing after \"is\"", NULL, 0);
    node_ptr x = new_named(p, T_TEST, p->tok.p, p->tok.n);
    if (!x)
        return NULL;
    x->a = a;
    next(p);
    if (take_op(p, "("))
        parse_args(p, x);
    else if (p->tok.kind == K_STRING || p->tok.kind == K_INT || is_op(p, "[") || is_op(p, "{") ||
             (p->tok.kind == K_NAME && !is_name(p, "and") && !is_name(p, "or") && !is_name(p, "else") &&
              !is_name(p, "if") && !is_name(p, "is") && !is_name(p, "not") && !is_name(p, "in")))
        add_child(p, x, parse_postfix(p), NULL);
    return negated ? new_pair(p, T_NOT, 0, x, NULL) : x;
}

static node_ptr parse_filtered(struct parser *p, node_ptr x)
{
    while (!p->e) {
        if (take_op(p, "|")) {
            node_ptr a = x;
            if (p->tok.kind != K_NAME)
                fail(p, ERR_FORMAT, "a filter is missing after \"|\"", NULL, 0);
            x = new_named(p, T_FILTER, p->tok.p, p->tok.n);
            if (!x)
                return NULL;
            x->a = a;
            next(p);
            if (take_op(p, "("))
                parse_args(p, x);
        } else if (take_name(p, "is")) {
            x = parse_test(p, x);
        } else {
            break;
        }
    }
    return x;
}

static node_ptr parse_unary(struct parser *p)
{
    if (++p->depth > TEMPLATE_DEPTH_MAX) {
        fail(p, ERR_FORMAT, "nested too deeply", NULL, 0);
        return NULL;
    }
    node_ptr x;
    if (take_op(p, "-"))
        x = new_pair(p, T_NEGATE, 0, parse_unary(p), NULL);
    else if (take_op(p, "+"))
        x = parse_unary(p);
    else
        x = parse_postfix(p);
    x = parse_filtered(p, x);
    p->depth--;
    return x;
}

/* One level of left-associative operators. */
static node_ptr parse_binary(struct parser *p, const char *const *ops, const char *codes, size_t n_ops,
                             node_ptr (*tighter)(struct parser *))
{
    node_ptr x = tighter(p);
    for (bool found = true; found && !p->e;) {
        found = false;
        for (size_t i = 0; i < n_ops && !found; i++)
            if (take_op(p, ops[i])) {
                x = new_pair(p, T_BINARY, codes[i], x, tighter(p));
                found = true;
            }
    }
    return x;
}

static node_ptr parse_product(struct parser *p)
{
    static const char *const ops[] = {"*", "/", "//", "%"};
    return parse_binary(p, ops, "*/D%", ARRAY_LEN(ops), parse_unary);
}

static node_ptr parse_concat(struct parser *p)
{
    static const char *const ops[] = {"~"};
    return parse_binary(p, ops, "~", 1, parse_product);
}

static node_ptr parse_sum(struct parser *p)
{
    static const char *const ops[] = {"+", "-"};
    return parse_binary(p, ops, "+-", 2, parse_concat);
}

static node_ptr parse_compare(struct parser *p)
{
    static const char *const ops[] = {"==", "!=", "<=", ">=", "<", ">"};
    node_ptr x = parse_sum(p), all = NULL;
    while (!p->e) { /* a < b < c is (a < b) and (b < c) */
        char op = 0;
        for (size_t i = 0; i < ARRAY_LEN(ops) && !op; i++)
            if (take_op(p, ops[i]))
                op = "=!lg<>"[i];
        if (!op && take_name(p, "in"))
            op = 'i';
        if (!op && is_name(p, "not")) {
            next(p);
            op = 'n';
            if (!take_name(p, "in"))
                fail(p, ERR_FORMAT, "missing \"in\" after \"not\"", NULL, 0);
        }
        if (!op)
            break;
        node_ptr right = parse_sum(p), one = new_pair(p, T_COMPARE, op, x, right);
        all = all ? new_pair(p, T_AND, 0, all, one) : one;
        x = right;
    }
    return all ? all : x;
}

static node_ptr parse_not(struct parser *p)
{
    if (!take_name(p, "not"))
        return parse_compare(p);
    if (++p->depth > TEMPLATE_DEPTH_MAX) {
        fail(p, ERR_FORMAT, "nested too deeply", NULL, 0);
        return NULL;
    }
    node_ptr x = new_pair(p, T_NOT, 0, parse_not(p), NULL);
    p->depth--;
    return x;
}

static node_ptr parse_and(struct parser *p)
{
    node_ptr x = parse_not(p);
    while (!p->e && take_name(p, "and"))
        x = new_pair(p, T_AND, 0, x, parse_not(p));
    return x;
}

static node_ptr parse_or(struct parser *p)
{
    node_ptr x = parse_and(p);
    while (!p->e && take_name(p, "or"))
        x = new_pair(p, T_OR, 0, x, parse_and(p));
    return x;
}

static node_ptr parse_expr(struct parser *p)
{
    if (++p->depth > TEMPLATE_DEPTH_MAX) {
        fail(p, ERR_FORMAT, "nested too deeply", NULL, 0);
        return NULL;
    }
    node_ptr x = parse_or(p);
    while (!p->e && take_name(p, "if")) {
        node_ptr cond = new_pair(p, T_COND, 0, parse_or(p), x);
        if (cond && take_name(p, "else"))
            cond->c = parse_expr(p);
        x = cond;
    }
    p->depth--;
    return x;
}

/* ---- tags ---- */

static node_ptr parse_block(struct parser *p, const char *const *stops);

/* Past the end of a tag, and the white space that goes with it. */
static void end_tag(struct parser *p, const char *close)
{
    if (p->e)
        return;
    if (p->tok.kind != K_END) {
        fail(p, ERR_FORMAT, "unexpected", p->tok.p, p->tok.n);
        return;
    }
    const bool strip = at(p, "-"), keep = at(p, "+");
    p->pos += strip || keep;
    if (!at(p, close)) {
        fail(p, ERR_FORMAT, "a tag must end with", close, 2);
        return;
    }
    p->pos += 2;
    if (strip)
        while (p->pos < p->n && isspace((unsigned char)p->src[p->pos]))
            p->line += p->src[p->pos++] == '\n';
    else if (!keep && *close == '%' && at(p, "\n")) {
        p->pos++;
        p->line++;
    }
}

static node_ptr parse_for(struct parser *p)
{
    static const char *const body_stops[] = {"else", "endfor", NULL}, *const else_stops[] = {"endfor", NULL};
    node_ptr x = new_named(p, T_FOR, p->tok.p, p->tok.kind == K_NAME ? p->tok.n : 0);
    const bool paren = take_op(p, "(");
    if (x && paren) {
        free(x->text);
        x->text = copy(p, p->tok.p, p->tok.kind == K_NAME ? p->tok.n : 0);
    }
    if (!x || p->tok.kind != K_NAME) {
        fail(p, ERR_FORMAT, "\"for\" needs a name", NULL, 0);
        return NULL;
    }
    next(p);
    if (take_op(p, ",")) {
        x->text2 = copy(p, p->tok.p, p->tok.kind == K_NAME ? p->tok.n : 0);
        next(p);
    }
    if (paren)
        need_op(p, ")");
    if (!take_name(p, "in"))
        fail(p, ERR_FORMAT, "\"for\" needs \"in\"", NULL, 0);
    x->a = parse_or(p);
    if (take_name(p, "if"))
        x->b = parse_expr(p);
    if (is_name(p, "recursive"))
        fail(p, ERR_UNSUPPORTED, "a recursive loop is code, not data: not supported", NULL, 0);
    end_tag(p, "%}");
    x->c = parse_block(p, body_stops);
    const bool has_else = p->stop && strcmp(p->stop, "else") == 0;
    end_tag(p, "%}");
    if (has_else) {
        x->d = parse_block(p, else_stops);
        end_tag(p, "%}");
    }
    return x;
}

static node_ptr parse_if(struct parser *p)
{
    static const char *const stops[] = {"elif", "else", "endif", NULL}, *const else_stops[] = {"endif", NULL};
    if (++p->depth > TEMPLATE_DEPTH_MAX) {
        fail(p, ERR_FORMAT, "nested too deeply", NULL, 0);
        return NULL;
    }
    node_ptr x = new_pair(p, T_IF, 0, parse_expr(p), NULL);
    end_tag(p, "%}");
    node_ptr then = parse_block(p, stops);
    if (!x || p->e)
        return NULL;
    x->b = then;
    if (strcmp(p->stop, "elif") == 0) {
        x->c = parse_if(p);
        p->depth--;
        return x;
    }
    const bool has_else = strcmp(p->stop, "else") == 0;
    end_tag(p, "%}");
    if (has_else) {
        x->c = parse_block(p, else_stops);
        end_tag(p, "%}");
    }
    p->depth--;
    return x;
}

static node_ptr parse_set(struct parser *p)
{
    node_ptr x = new_named(p, T_SET, p->tok.p, p->tok.kind == K_NAME ? p->tok.n : 0);
    if (!x || p->tok.kind != K_NAME) {
        fail(p, ERR_FORMAT, "\"set\" needs a name", NULL, 0);
        return NULL;
    }
    next(p);
    if (take_op(p, ".")) {
        x->text2 = copy(p, p->tok.p, p->tok.n);
        next(p);
    }
    if (!is_op(p, "="))
        fail(p, ERR_UNSUPPORTED, "\"set\" without \"=\" is not supported", NULL, 0);
    next(p);
    x->a = parse_expr(p);
    end_tag(p, "%}");
    return x;
}

/* A macro is parsed and dropped: a template may define one for tools, which are never given.  Calling it fails. */
static node_ptr parse_macro(struct parser *p)
{
    static const char *const stops[] = {"endmacro", NULL};
    while (!p->e && p->tok.kind != K_END)
        next(p);
    end_tag(p, "%}");
    (void)parse_block(p, stops);
    end_tag(p, "%}");
    return new_node(p, T_BLOCK);
}

static node_ptr parse_tag(struct parser *p, const struct token *name)
{
    static const char *const generation_stops[] = {"endgeneration", NULL};
    const struct {
        const char *name;
        node_ptr (*parse)(struct parser *);
    } tags[] = {{"for", parse_for}, {"if", parse_if}, {"set", parse_set}, {"macro", parse_macro}};
    for (size_t i = 0; i < ARRAY_LEN(tags); i++)
        if (name->n == strlen(tags[i].name) && memcmp(name->p, tags[i].name, name->n) == 0)
            return tags[i].parse(p);
    if (name->n == 10 && memcmp(name->p, "generation", 10) == 0) {
        end_tag(p, "%}");
        node_ptr x = parse_block(p, generation_stops);
        end_tag(p, "%}");
        return x;
    }
    const bool is_break = name->n == 5 && memcmp(name->p, "break", 5) == 0;
    if (is_break || (name->n == 8 && memcmp(name->p, "continue", 8) == 0)) {
        end_tag(p, "%}");
        return new_node(p, is_break ? T_BREAK : T_CONTINUE);
    }
    fail(p, ERR_UNSUPPORTED, "a template that needs code is refused: tag", name->p, name->n);
    return NULL;
}

/* Text up to the next tag, without the white space that the tag strips. */
static void parse_text(struct parser *p, node_ptr block)
{
    const size_t start = p->pos;
    while (p->pos < p->n && !at(p, "{{") && !at(p, "{%") && !at(p, "{#"))
        p->pos++;
    size_t end = p->pos;
    const bool tag = p->pos + 2 < p->n;
    if (tag && p->src[p->pos + 2] == '-') {
        while (end > start && isspace((unsigned char)p->src[end - 1]))
            end--;
    } else if (tag && p->src[p->pos + 2] != '+' && p->src[p->pos + 1] != '{') {
        size_t k = end;
        while (k > start && (p->src[k - 1] == ' ' || p->src[k - 1] == '\t'))
            k--;
        if (k == 0 || p->src[k - 1] == '\n') /* nothing before it on its line */
            end = k;
    }
    if (end > start)
        add_child(p, block, new_named(p, T_TEXT, p->src + start, end - start), NULL);
    for (size_t i = start; i < p->pos; i++)
        p->line += p->src[i] == '\n';
}

static void skip_comment(struct parser *p)
{
    while (p->pos < p->n && !at(p, "#}"))
        p->line += p->src[p->pos++] == '\n';
    if (p->pos >= p->n) {
        fail(p, ERR_FORMAT, "a comment does not end", NULL, 0);
        return;
    }
    const bool strip = p->src[p->pos - 1] == '-';
    p->pos += 2;
    if (strip)
        while (p->pos < p->n && isspace((unsigned char)p->src[p->pos]))
            p->line += p->src[p->pos++] == '\n';
    else if (at(p, "\n")) {
        p->pos++;
        p->line++;
    }
}

/* Up to one of the stop tags (its name is then read, its end not), or, with stops NULL, to the end. */
static node_ptr parse_block(struct parser *p, const char *const *stops)
{
    node_ptr block = new_node(p, T_BLOCK);
    if (++p->depth > TEMPLATE_DEPTH_MAX)
        fail(p, ERR_FORMAT, "nested too deeply", NULL, 0);
    p->stop = NULL;
    while (!p->e) {
        parse_text(p, block);
        if (p->e || p->pos >= p->n)
            break;
        const char kind = p->src[p->pos + 1];
        p->pos += 2;
        if (kind == '#') {
            skip_comment(p);
            continue;
        }
        p->pos += at(p, "-") || at(p, "+");
        next(p);
        if (kind == '{') {
            add_child(p, block, new_pair(p, T_PRINT, 0, parse_expr(p), NULL), NULL);
            end_tag(p, "}}");
            continue;
        }
        const struct token name = p->tok;
        for (size_t i = 0; stops && stops[i] && !p->stop; i++)
            if (is_name(p, stops[i]))
                p->stop = stops[i];
        if (name.kind != K_NAME)
            fail(p, ERR_FORMAT, "a tag without a name", NULL, 0);
        next(p);
        if (p->stop) {
            p->depth--;
            return block;
        }
        node_ptr x = parse_tag(p, &name);
        add_child(p, block, x, NULL);
        p->stop = NULL;
    }
    size_t last = 0; /* the stop tag that is always allowed stands last */
    while (stops && stops[last + 1])
        last++;
    if (stops)
        fail(p, ERR_FORMAT, "missing tag", stops[last], strlen(stops[last]));
    p->depth--;
    return block;
}

enum err zo_template_new(struct chat_template **out, const char *text, size_t n, struct err_why *why)
{
    if (n > TEMPLATE_BYTES_MAX)
        return err_set(why, ERR_UNSUPPORTED, "chat template: longer than %d bytes", TEMPLATE_BYTES_MAX);
    struct chat_template *t = calloc(1, sizeof *t);
    if (!t)
        return ERR_NOMEM;
    struct parser p = {.t = t, .src = text, .n = n, .line = 1, .why = why};
    if (n && text[n - 1] == '\n')
        p.n--; /* Jinja drops one newline at the end */
    t->root = parse_block(&p, NULL);
    buf_free(&p.string);
    if (p.e) {
        zo_template_free(t);
        return p.e == ERR_NOMEM ? err_set(why, p.e, "chat template: %s", err_str(p.e)) : p.e;
    }
    *out = t;
    return ERR_OK;
}
