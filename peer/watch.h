/* peer/watch.h -- a text that changes, on the whole terminal: status --watch.
 *
 * Arrow keys and page keys scroll, q or Escape ends; follows a resized window.  No colour with NO_COLOR.
 * Not used when standard output is no terminal or TERM is unset or dumb: peer_watch_possible says so. */
#ifndef PEER_WATCH_H
#define PEER_WATCH_H
#include <onebyte/base/err.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

bool peer_watch_possible(void);
/* render writes the text anew, every interval_s, until *stop or a key ends it.  ERR_UNSUPPORTED: no such terminal is known here. */
NODISCARD enum err peer_watch(void (*render)(void *ctx, FILE *out), void *ctx, double interval_s,
                              const volatile sig_atomic_t *stop, struct err_why *why);
#endif
