#include "peer/options.h"
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Every command has these, at the head of its values. */
static const struct peer_option common_options[] = {
    {"json", PEER_FLAG, offsetof(struct peer_common, json), NULL,
     "print the result as one JSON object", 0, 0},
    {"home", PEER_TEXT, offsetof(struct peer_common, home), "DIR",
     "the peer's home folder (default: $ONEBYTE_HOME, else ~/.local/state/onebyte)", 0, 0},
    {"help", PEER_FLAG, offsetof(struct peer_common, help), NULL, "show this help", 0, 0},
};

/* Option i of a command: its own first, then the common ones; NULL after the last. */
static const struct peer_option *option_at(const struct peer_command *c, size_t i)
{
    if (i < c->n_options)
        return &c->options[i];
    i -= c->n_options;
    return i < ARRAY_LEN(common_options) ? &common_options[i] : NULL;
}

static const struct peer_option *option_find(const struct peer_command *c, const char *name,
                                             size_t n)
{
    for (size_t i = 0;; i++) {
        const struct peer_option *o = option_at(c, i);
        if (!o || (strlen(o->name) == n && memcmp(o->name, name, n) == 0))
            return o;
    }
}

static bool choice_has(const char *choices, const char *word)
{
    const size_t n = strlen(word);
    for (const char *p = choices; n > 0 && *p;) {
        const size_t len = strcspn(p, "|");
        if (len == n && memcmp(p, word, n) == 0)
            return true;
        p += len + (p[len] == '|');
    }
    return false;
}

static enum err parse_u64(uint64_t *out, const struct peer_option *o, const char *text,
                          struct err_why *why)
{
    const double max = o->max > 0 ? o->max : 9223372036854775807.0;
    char *end = NULL;
    errno = 0;
    const unsigned long long v = strtoull(text, &end, 10);
    /* strtoull takes signs and blanks: only digits are a count. */
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || (double)v < o->min ||
        (double)v > max || v > INT64_MAX) {
        if (o->max > 0)
            return err_set(why, ERR_RANGE, "--%s takes a whole number from %.0f to %.0f, not '%s'",
                           o->name, o->min, o->max, text);
        return err_set(why, ERR_RANGE, "--%s takes a whole number of at least %.0f, not '%s'",
                       o->name, o->min, text);
    }
    *out = v;
    return ERR_OK;
}

static enum err parse_f64(double *out, const struct peer_option *o, const char *text,
                          struct err_why *why)
{
    const bool bounded = o->min != 0 || o->max != 0;
    char *end = NULL;
    const double v = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(v) || (bounded && (v < o->min || v > o->max))) {
        if (bounded)
            return err_set(why, ERR_RANGE, "--%s takes a number from %g to %g, not '%s'", o->name,
                           o->min, o->max, text);
        return err_set(why, ERR_RANGE, "--%s takes a number, not '%s'", o->name, text);
    }
    *out = v;
    return ERR_OK;
}

/* What we are given is written into JSON: settings, manifests, answers. */
static enum err check_text(const struct peer_option *o, const char *text, struct err_why *why)
{
    json_t *json = json_string(text);
    json_decref(json);
    if (!json)
        return err_set(why, ERR_RANGE, "--%s takes %s in UTF-8", o->name, o->value);
    if (text[0] == '\0')
        return err_set(why, ERR_RANGE, "--%s takes %s, not an empty text", o->name, o->value);
    return ERR_OK;
}

static enum err option_set(void *values, const struct peer_option *o, const char *text,
                           struct err_why *why)
{
    void *at = (char *)values + o->at;
    switch (o->kind) {
    case PEER_FLAG:
        *(bool *)at = true;
        return ERR_OK;
    case PEER_CHOICE:
        if (!choice_has(o->value, text))
            return err_set(why, ERR_RANGE, "--%s takes one of %s, not '%s'", o->name, o->value,
                           text);
        *(const char **)at = text;
        return ERR_OK;
    case PEER_TEXT:
        TRY(check_text(o, text, why));
        *(const char **)at = text;
        return ERR_OK;
    case PEER_U64:
        return parse_u64(at, o, text, why);
    case PEER_F64:
        return parse_f64(at, o, text, why);
    case PEER_LIST: {
        struct peer_list *list = at;
        if (list->n == PEER_LIST_MAX)
            return err_set(why, ERR_RANGE, "--%s may be given at most %d times", o->name,
                           PEER_LIST_MAX);
        TRY(check_text(o, text, why));
        list->items[list->n++] = text;
        return ERR_OK;
    }
    }
    ENSURE(false); /* an option kind without a parser */
    return ERR_RANGE;
}

/* One "--name[=value]" at argv[*i]; takes the next argument when the value stands apart. */
static enum err parse_long(const struct peer_command *c, void *values, int *i, int argc,
                           char *const *argv, struct err_why *why)
{
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    const size_t n = equals ? (size_t)(equals - name) : strlen(name);
    const struct peer_option *o = option_find(c, name, n);
    if (!o)
        return err_set(why, ERR_RANGE, "%s has no option --%.*s: see onebyte %s --help", c->name,
                       (int)n, name, c->name);
    if (o->kind == PEER_FLAG) {
        if (equals)
            return err_set(why, ERR_RANGE, "--%s takes no value", o->name);
        return option_set(values, o, "", why);
    }
    if (equals)
        return option_set(values, o, equals + 1, why);
    if (*i + 1 >= argc)
        return err_set(why, ERR_RANGE, "--%s needs a value: --%s %s", o->name, o->name, o->value);
    return option_set(values, o, argv[++*i], why);
}

enum err peer_options_parse(const struct peer_command *c, void *values, const char **args,
                            size_t *n_args, int argc, char *const *argv, struct err_why *why)
{
    ENSURE(c->values_bytes >= sizeof(struct peer_common));
    memset(values, 0, c->values_bytes);
    if (c->defaults)
        c->defaults(values);
    struct peer_common *common = values;
    bool options = true;
    *n_args = 0;
    for (int i = 0; i < argc && !common->help; i++) {
        const char *a = argv[i];
        if (options && strcmp(a, "--") == 0) {
            options = false;
        } else if (options && strcmp(a, "-h") == 0) {
            common->help = true;
        } else if (options && a[0] == '-' && a[1] == '-') {
            TRY(parse_long(c, values, &i, argc, argv, why));
        } else if (options && a[0] == '-' && a[1] != '\0') {
            return err_set(why, ERR_RANGE, "%s has no option %s: see onebyte %s --help", c->name, a,
                           c->name);
        } else {
            if (*n_args == c->args_max || *n_args == PEER_ARGS_MAX)
                return err_set(why, ERR_RANGE, "%s does not take '%s': usage: onebyte %s%s%s",
                               c->name, a, c->name, c->args[0] ? " " : "", c->args);
            args[(*n_args)++] = a;
        }
    }
    if (!common->help && *n_args < c->args_min)
        return err_set(why, ERR_RANGE, "%s needs %s: usage: onebyte %s %s", c->name, c->args,
                       c->name, c->args);
    return ERR_OK;
}

/* Prints text wrapped at `width`, later lines indented by `indent`; ends the line. */
static void print_wrapped(FILE *out, const char *text, int indent, int width)
{
    int column = indent;
    for (const char *p = text; *p;) {
        const int n = (int)strcspn(p, " \n");
        if (column > indent && column + 1 + n > width) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fwrite(p, 1, (size_t)n, out);
        column += n;
        p += n;
        if (*p == '\n') {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        }
        p += *p != '\0';
    }
    fputc('\n', out);
}

void peer_options_help(const struct peer_command *c, FILE *out)
{
    fprintf(out, "usage: onebyte %s%s%s [options]\n\n", c->name, c->args[0] ? " " : "", c->args);
    print_wrapped(out, c->summary, 0, 96);
    if (c->details) {
        fputc('\n', out);
        print_wrapped(out, c->details, 0, 96);
    }
    fprintf(out, "\noptions:\n");
    const struct peer_option *o = NULL;
    for (size_t i = 0; (o = option_at(c, i)) != NULL; i++) {
        const int n = fprintf(out, "  --%s%s%s%s", o->name, o->value ? " " : "",
                              o->value ? o->value : "", strcmp(o->name, "help") == 0 ? ", -h" : "");
        if (n >= 30)
            fprintf(out, "\n%*s", 30, "");
        else
            fprintf(out, "%*s", 30 - n, "");
        print_wrapped(out, o->help, 30, 96);
    }
}

/* roff: a leading dot or quote would be a request, a dash a hyphen. */
static void print_roff(FILE *out, const char *text)
{
    bool start = true;
    for (const char *p = text; *p; p++) {
        if (start && (*p == '.' || *p == '\''))
            fputs("\\&", out);
        if (*p == '-')
            fputs("\\-", out);
        else if (*p == '\\')
            fputs("\\e", out);
        else
            fputc(*p, out);
        start = *p == '\n';
    }
    fputc('\n', out);
}

void peer_options_man(const struct peer_command *c, FILE *out)
{
    fprintf(out, ".TH ONEBYTE-%s 1 \"\" \"onebyte %s\" \"onebyte\"\n.SH NAME\nonebyte\\-%s \\- ",
            c->name, PEER_VERSION, c->name);
    print_roff(out, c->summary);
    fprintf(out, ".SH SYNOPSIS\n.B onebyte %s\n%s%s[options]\n.SH DESCRIPTION\n", c->name, c->args,
            c->args[0] ? " " : "");
    print_roff(out, c->details ? c->details : c->summary);
    fprintf(out, ".SH OPTIONS\n");
    const struct peer_option *o = NULL;
    for (size_t i = 0; (o = option_at(c, i)) != NULL; i++) {
        if (o->value)
            fprintf(out, ".TP\n.BI \"\\-\\-%s \" \"%s\"\n", o->name, o->value);
        else
            fprintf(out, ".TP\n.B \\-\\-%s%s\n", o->name, strcmp(o->name, "help") == 0 ? ", \\-h" : "");
        print_roff(out, o->help);
    }
    if (c->manual_title)
        fprintf(out, ".SH %s\n", c->manual_title);
    for (size_t j = 0; j < c->n_manual; j++) {
        fputs(c->manual[j].name ? ".TP\n.B " : ".PP\n", out);
        if (c->manual[j].name)
            print_roff(out, c->manual[j].name);
        print_roff(out, c->manual[j].text);
    }
    fprintf(out,
            ".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage.\n.SH SEE ALSO\n.BR onebyte (1)\n");
}

void peer_say(const struct err_why *why)
{
    struct err_why line = *why;
    for (char *c = line.text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
    fprintf(stderr, "onebyte: %s\n", line.text);
}

static bool reported; /* why the command failed, already */

int peer_fail(const struct err_why *why)
{
    reported = true;
    peer_say(why);
    return PEER_EXIT_FAILED;
}

int peer_usage(const struct peer_command *c, const struct err_why *why)
{
    (void)c;
    reported = true;
    peer_say(why);
    return PEER_EXIT_USAGE;
}

int peer_flush(int code)
{
    struct err_why why;
    const bool now = fflush(stdout) != 0;
    if ((!now && !ferror(stdout)) || reported)
        return code;
    (void)err_set(&why, ERR_IO, "cannot write to standard output%s%s", now ? ": " : "", now ? strerror(errno) : "");
    peer_say(&why);
    return code == PEER_EXIT_OK ? PEER_EXIT_FAILED : code;
}

int peer_command_run(const struct peer_command *c, int argc, char *const *argv)
{
    struct err_why why = {{0}};
    const char *args[PEER_ARGS_MAX];
    size_t n_args = 0;
    void *values = malloc(c->values_bytes);
    if (!values) {
        (void)err_set(&why, ERR_NOMEM, "out of memory");
        return peer_fail(&why);
    }
    int code = PEER_EXIT_OK;
    if (peer_options_parse(c, values, args, &n_args, argc, argv, &why) != ERR_OK)
        code = peer_usage(c, &why);
    else if (((struct peer_common *)values)->help)
        peer_options_help(c, stdout);
    else
        code = c->run(values, args, n_args);
    free(values);
    return peer_flush(code);
}
