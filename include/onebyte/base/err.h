/* base/err.h -- one list of error codes, the answer to a programming mistake, and one line for the user.
 *
 * Three kinds of failure, three answers: our bug aborts (ENSURE); the world (disk, GPU, memory, a bad
 * file) returns a code, with one line in struct err_why where a user could act on it; a remote peer's
 * bytes are dropped and counted.  Header-only, libc only.  Threads: any. */
#ifndef ONEBYTE_BASE_ERR_H
#define ONEBYTE_BASE_ERR_H
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define ERR_LIST(X)                                                                                \
    X(OK, 0, "success")                                                                            \
    X(AGAIN, -1, "not ready; try later")                                                           \
    X(NOMEM, -2, "out of memory")                                                                  \
    X(RANGE, -3, "value outside its documented range")                                             \
    X(PROTO, -4, "bad message")                                                                    \
    X(NONFINITE, -5, "loss is NaN or infinite")                                                    \
    X(IO, -6, "I/O failed")                                                                        \
    X(DEVICE, -7, "CUDA call failed")                                                              \
    X(FORMAT, -8, "malformed file")                                                                \
    X(UNSUPPORTED, -9, "not supported")                                                            \
    X(NOTFOUND, -10, "not found")                                                                  \
    X(BUSY, -11, "in use by another process")                                                      \
    X(CANCELLED, -12, "asked to stop")

#define X(name, code, text) ERR_##name = (code),
enum err { ERR_LIST(X) };
#undef X

#define NODISCARD __attribute__((warn_unused_result))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum err try_e = (expr);                                                                   \
        if (try_e != ERR_OK)                                                                       \
            return try_e;                                                                          \
    } while (0)

/* Stays on in release.  One condition each; never with a side effect that the program needs. */
#define ENSURE(c) ((c) ? (void)0 : err_abort(__FILE__, __LINE__, #c))

__attribute__((noreturn)) static inline void err_abort(const char *file, int line, const char *what)
{
    fprintf(stderr, "onebyte: bug at %s:%d: %s does not hold\n", file, line, what);
    abort();
}

static inline const char *err_str(enum err e)
{
    switch (e) {
#define X(name, code, text)                                                                        \
    case ERR_##name:                                                                               \
        return text;
        ERR_LIST(X)
#undef X
    }
    return "unknown error";
}

/* One line for the user: what is wrong and what to do.  No newline at its end. */
struct err_why {
    char text[768];
};

__attribute__((format(printf, 2, 3))) static inline void err_note(struct err_why *why, const char *format, ...)
{
    if (why) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(why->text, sizeof why->text, format, args);
        va_end(args);
    }
}

static inline enum err err_code(enum err code)
{
    return code;
}

/* err_set(why, code, format, ...) writes the line and is `code`, so that a failing function can `return err_set(..)`.
 * why may be NULL.  A macro, because analysers do not look into functions with `...` and must see that it is the code. */
#define err_set(why, code, ...) (err_note((why), __VA_ARGS__), err_code(code))
#endif
