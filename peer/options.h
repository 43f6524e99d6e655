/* peer/options.h -- one table per command: parsing, --help, man pages and shell completions all come from it.
 *
 * A command is a struct peer_command with a table of options, each of which writes one member of the command's own
 * values struct.  That struct begins with struct peer_common (--json, --home, -h), which every command has.
 * Forms accepted: --name VALUE, --name=VALUE, flags, -h, and "--" to end the options.
 * Exit codes: 0 done, 1 failed, 2 wrong usage; an error is one line on stderr that says what to do. */
#ifndef PEER_OPTIONS_H
#define PEER_OPTIONS_H
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PEER_EXIT_OK = 0, PEER_EXIT_FAILED = 1, PEER_EXIT_USAGE = 2, PEER_LIST_MAX = 64, PEER_ARGS_MAX = 16 };

struct peer_list {
    const char *items[PEER_LIST_MAX];
    size_t n;
};

enum peer_option_kind {
    PEER_FLAG,   /* bool: true when given */
    PEER_TEXT,   /* const char *; NULL when not given */
    PEER_CHOICE, /* const char *: one of the words of `value`, separated by | */
    PEER_U64,    /* uint64_t in [min, max] */
    PEER_F64,    /* double in [min, max] */
    PEER_LIST,   /* struct peer_list: may be given many times */
};

struct peer_option {
    const char *name;  /* without the dashes */
    enum peer_option_kind kind;
    size_t at;         /* offsetof(struct of the command's values, member) */
    const char *value; /* what the help shows: "DIR", "rank1|rademacher"; NULL for flags */
    const char *help;  /* one sentence, names the default */
    double min, max;   /* numbers only; both 0: any (U64: up to 2^63 - 1) */
};

/* First member of every command's values struct. */
struct peer_common {
    bool json, help;
    const char *home; /* NULL: not given, see peer_home_open */
};

struct peer_manual { /* name NULL: a paragraph */
    const char *name, *text;
};

struct peer_command {
    const char *name;
    const char *args;    /* "MANIFEST|INVITE", "" if none */
    size_t args_min, args_max;
    const char *summary; /* one line, for `onebyte help` */
    const char *details; /* more lines for --help and the man page; NULL: none */
    const struct peer_option *options;
    size_t n_options;
    size_t values_bytes;            /* sizeof the values struct */
    void (*defaults)(void *values); /* called on the zeroed struct before parsing; NULL: all zero */
    int (*run)(void *values, const char *const *args, size_t n_args); /* exit code */
    const char *manual_title;         /* one more section of the man page; NULL: none */
    const struct peer_manual *manual; /* [n_manual] */
    size_t n_manual;
};

/* values (values_bytes, zeroed here), args [PEER_ARGS_MAX] and *n_args <- argv [argc] (after the command's name).
 * ERR_RANGE: why names the option and what it takes.  -h stops parsing with help = true. */
NODISCARD enum err peer_options_parse(const struct peer_command *c, void *values, const char **args, size_t *n_args,
                                      int argc, char *const *argv, struct err_why *why);

/* --help of one command, to `out`. */
void peer_options_help(const struct peer_command *c, FILE *out);
/* A roff man page of one command; bash, zsh or fish completions of all commands. */
void peer_options_man(const struct peer_command *c, FILE *out);
void peer_options_man_all(FILE *out); /* onebyte(1): the list of commands */
NODISCARD enum err peer_options_completion(const char *shell, FILE *out, struct err_why *why);

/* Parses and runs one command: what main does after finding it.  Returns the exit code. */
int peer_command_run(const struct peer_command *c, int argc, char *const *argv);

/* At the end: `code`, or failed and one line when standard output did not take all. */
int peer_flush(int code);

/* "onebyte: LINE" on stderr: one line, and no control character of a file or an argument reaches the terminal. */
void peer_say(const struct err_why *why);
/* peer_say; returns PEER_EXIT_FAILED (resp. USAGE) so that a command can `return peer_fail(&why)`. */
int peer_fail(const struct err_why *why);
int peer_usage(const struct peer_command *c, const struct err_why *why);

/* All commands, in the order of `onebyte help`: peer/commands.c.  A new command adds one line to its X list. */
extern const struct peer_command *const peer_commands[];
extern const size_t peer_commands_n;
const struct peer_command *peer_command_find(const char *name); /* NULL: none */

#define PEER_VERSION "1.0.0"
#endif
