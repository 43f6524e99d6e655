/* peer/portable.h -- a ledger as one portable file: what `log --export` writes and `replay --ledger` reads.
 *
 * FILE v1, little-endian:  "onebyte ledger 1\n"  run id [32]  rows  kind u8 = 0  BLAKE2b [32] of all bytes before it
 *   row: kind u8 = 1 (segment)  machine [32]  unix_ms u64  n u16  wire [n]
 *        kind u8 = 2 (control)  n u16  frame [n]
 * A machine's segments are in feed order.  The hash finds damage; belief still rests on each row's own signature. */
#ifndef PEER_PORTABLE_H
#define PEER_PORTABLE_H
#include <onebyte/base/err.h>
#include <onebyte/net/ledger.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Rows written atomically to path: segments by machine and seq, then control events. */
NODISCARD enum err peer_portable_write(const char *path, const uint8_t run_id[32], struct net_ledger *l, struct err_why *why);

struct peer_rows {
    bool (*segment)(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n, int64_t unix_ms);
    bool (*control)(void *ctx, const uint8_t *frame, size_t n);
    void *ctx;
};

/* Checks length and hash of the whole text, then its rows' structure.  rows (members may be NULL) are called in order; false
 * stops.  ERR_FORMAT: damaged or not such a file.  run_id <- the file's. */
NODISCARD enum err peer_portable_parse(const uint8_t *p, size_t n, uint8_t run_id[32], const struct peer_rows *rows,
                                       struct err_why *why);
#endif
