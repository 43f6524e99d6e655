/* zo/data/template.h -- chat templates: the part of Jinja that they need, when they are data alone.
 *
 * Source   Jinja 3 with trim_blocks and lstrip_blocks, as `transformers` sets it up for chat templates.
 * Known    text, {{ }}, {% for (if, else) / if / elif / else / set / break / continue / generation %}, {# #}, "-" stripping;
 *          names, literals, lists, dicts, . [] slices, arithmetic, ~, comparisons, in, and/or/not, a if b else c;
 *          the filters, tests and string methods listed in template_call.c; namespace, range, raise_exception.
 * Refused  what would need code or the world outside: macros when called, include, import, extends, call, the clock
 *          (strftime_now), tools.  By name and line: parsing refuses unknown tags, rendering refuses
 *          unknown functions, filters and tests when it meets them.
 * Bounds   nesting, steps and bytes are limited (TEMPLATE_*): a hostile template ends in an error.
 * Threads  a parsed template is read-only; each rendering has its own variables. */
#ifndef ONEBYTE_ZO_DATA_TEMPLATE_H
#define ONEBYTE_ZO_DATA_TEMPLATE_H
#include "zo/data/buf.h"
#include "zo/data/json.h"

enum {
    TEMPLATE_BYTES_MAX = 1 << 20,  /* of the template itself: 40 times the longest known */
    TEMPLATE_DEPTH_MAX = 100,      /* nested tags or parentheses, and nested loops */
    TEMPLATE_STEPS_MAX = 1000000,  /* nodes evaluated per rendering */
    TEMPLATE_OUTPUT_MAX = 1 << 26, /* bytes of one text */
    TEMPLATE_ITEMS_MAX = 1 << 20,  /* of one list */
};

enum template_kind {
    T_TEXT, /* text */
    T_PRINT,
    T_BLOCK, /* list */
    T_IF,    /* a, then b, else c */
    T_FOR,   /* text (and text2) in a if b: c, else d */
    T_SET,   /* text (.text2) = a */
    T_BREAK,
    T_CONTINUE,
    T_CONST, /* value */
    T_NAME,
    T_ATTR,   /* a.text */
    T_INDEX,  /* a[b] */
    T_SLICE,  /* a[b:c:d], each may be NULL */
    T_CALL,   /* a(list), names of keyword arguments */
    T_FILTER, /* a | text(list) */
    T_TEST,   /* a is text(list) */
    T_NOT,
    T_NEGATE,
    T_BINARY, /* a op b; op: + - * / % ~ and D for // */
    T_AND,
    T_OR,
    T_COMPARE, /* a op b; op: = ! < > l (<=) g (>=) i (in) n (not in) */
    T_COND,    /* b if a else c */
    T_LIST,
    T_DICT, /* list: key, value, key, value, .. */
};
struct template_node {
    enum template_kind kind;
    char op;
    unsigned line;
    char *text, *text2;
    size_t text_n;
    json_t *value;
    struct template_node *a, *b, *c, *d;
    struct template_node **list; /* [n] */
    char **names;                /* [n], NULL entries: positional */
    size_t n, cap;
};
struct chat_template {
    struct template_node *root;
    struct template_node **all; /* [n] every node, for freeing */
    size_t n, cap;
};

NODISCARD enum err zo_template_new(struct chat_template **t, const char *text, size_t n, struct err_why *why);
void zo_template_free(struct chat_template *t);
/* Appends the text to out.  variables: a JSON object; only read. */
NODISCARD enum err zo_template_render(const struct chat_template *t, struct buf *out, const json_t *variables,
                                      struct err_why *why);

/* ---- between template_eval.c and template_call.c ---- */
struct template_args {
    json_t *list;  /* array: positional */
    json_t *named; /* object */
};
/* Every value is a new reference; NULL is Jinja's undefined.  *e is set on failure, with why. */
json_t *zo_template_filter(json_t *value, const char *name, const struct template_args *args, enum err *e,
                           struct err_why *why);
json_t *zo_template_method(json_t *value, const char *name, const struct template_args *args, enum err *e,
                           struct err_why *why);
bool zo_template_test(const json_t *value, const char *name, const struct template_args *args, enum err *e,
                      struct err_why *why);
bool zo_template_true(const json_t *value);
bool zo_template_equal(const json_t *a, const json_t *b);
/* Appends what {{ value }} prints. */
NODISCARD enum err zo_template_print(struct buf *out, const json_t *value, struct err_why *why);
#endif
