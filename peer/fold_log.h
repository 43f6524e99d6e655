/* peer/fold_log.h -- the order in which the author folded: which frontier each own segment was measured at.  DESIGN 6.
 *
 * It only serves auditors' questions: a lost or torn log costs answers ("not audited"), never correctness; so it is not synced.
 * FILE home/folds and, older, home/folds.old, each at most FOLD_LOG_BYTES, little-endian, records of
 *   bytes u32 (of all that follows)  kind u8 (1: whole frontier, 2: entries that changed since the record before)
 *   segment id [32]  digest u64  entries (SPEC 7's, 80 each)  first 8 bytes of BLAKE2b(all before, without bytes)
 * A whole frontier stands at each start, after each new file, and every FOLD_LOG_WHOLE records: what must be read for an
 * answer stays short, and the file grows by little more than what was folded between two segments.
 * Threads  one.   Memory  48 bytes a segment that can be answered for. */
#ifndef PEER_FOLD_LOG_H
#define PEER_FOLD_LOG_H
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FOLD_LOG_BYTES = 32 << 20, FOLD_LOG_WHOLE = 64 };

struct peer_fold_log;
/* dir: the home.  A torn or damaged record ends what is read; the rest of that file is dropped.  bytes_max: FOLD_LOG_BYTES (tests: less). */
NODISCARD enum err peer_fold_log_open(struct peer_fold_log **l, const char *dir, uint64_t bytes_max);
void peer_fold_log_close(struct peer_fold_log *l); /* NULL is fine */
/* The segment id was measured at this frontier [n bytes], whose parameters have this digest.  ERR_IO: not written (full disk). */
NODISCARD enum err peer_fold_log_add(struct peer_fold_log *l, const uint8_t id[32], uint64_t digest, const uint8_t *frontier, size_t n);
/* *frontier (malloc'd) [*n], *digest <- of segment id.  ERR_NOTFOUND: never measured here, or too long ago. */
NODISCARD enum err peer_fold_log_find(struct peer_fold_log *l, const uint8_t id[32], uint8_t **frontier, size_t *n, uint64_t *digest);
/* First 8 bytes of BLAKE2b(digest, frontier): SPEC 7. */
void peer_binding(uint8_t out[8], uint64_t digest, const uint8_t *frontier, size_t n);
#endif
