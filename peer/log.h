/* peer/log.h -- one line per event on stderr:  level=info ev=step step=41 loss=2.31875
 *
 * Levels   error: the operator must act.  warn: degraded.  info: state changes.  debug: per message.
 * Format   key=value, values with spaces in double quotes; with PEER_LOG_JSON the same as one JSON object a line.
 *          Peers are 8 hex digits; no key, no payload.
 * Threads  any: a line is one write(2).   Errors   none: a log that cannot be written is not worth dying for. */
#ifndef PEER_LOG_H
#define PEER_LOG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum peer_level { PEER_ERROR, PEER_WARN, PEER_INFO, PEER_DEBUG };

/* Lines above `level` are dropped.  path: also append every line to this file (NULL: stderr only).  quiet: no stderr.
 * Before the first call: info, stderr, text. */
void peer_log_start(enum peer_level level, bool json, bool quiet, const char *path);
void peer_log_stop(void); /* closes the file; lines after this go to stderr */
bool peer_log_level(enum peer_level *level, const char *name); /* "error" .. "debug"; false: no such level */

/* pairs: printf format of `key=value key="two words"`, or "" for none. */
__attribute__((format(printf, 3, 4))) void peer_log(enum peer_level level, const char *ev, const char *pairs, ...);

/* out <- s with '"', '\\' and control characters replaced, so that it can stand between double quotes. */
void peer_log_quote(char *out, size_t out_bytes, const char *s);

/* out <- the first four bytes of an id in hex: how peers are named to people. */
void peer_short_id(char out[9], const uint8_t id[32]);
#endif
