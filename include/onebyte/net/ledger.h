/* net/ledger.h -- everything a peer holds, on disk: SQLite (WAL), own segments with synchronous=FULL before the first send.
 * A torn or damaged tail is dropped and repaired from the network; damage is named, never silently used.
 *
 * Rows      carry a checksum over (table, machine, place, contents).  A damaged row, or a gap in a feed, ends that feed: opening
 *           for writing deletes what follows, reading skips it; both count it in net_ledger_damage.  A file that SQLite itself
 *           can't read is set aside as PATH.damaged and what is readable of it copied into a new one.
 * Batches   own segments, controls, truncations and named values are durable when the call returns; foreign segments wait in memory
 *           until net_ledger_flush (or any of the former, or LIMIT_LEDGER_BATCH rows).  A failed write (full disk) changes nothing:
 *           the own segment is not stored and must not be sent; the waiting ones are kept and tried again.
 * Copies    the file stores its own inode and birth time, the machine-id of the system, and the key it was claimed for.
 * Readers   read_only opens beside a running peer, and sees what is committed.  Only one writer: the home's lock sees to that.
 * Threads   one per open ledger.   Errors  ERR_IO leaves one line in net_ledger_error. */
#ifndef ONEBYTE_NET_LEDGER_H
#define ONEBYTE_NET_LEDGER_H
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net_ledger;

/* return false to stop.  wire and frame are valid during the call only. */
typedef bool net_ledger_row(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n, int64_t unix_ms);
typedef bool net_ledger_control_row(void *ctx, const uint8_t *frame, size_t n);

/* Opens or makes path.  *fresh: this file was never claimed for `machine` (it is new), or it is not the file that was (inode,
 * birth time or system differ: the home was copied or restored), or rows of the own feed were damaged.  While fresh, the key
 * must not seal: make a new one and claim for that; or, if this key never sealed anything, claim for it.  Until then every open is fresh.
 * read_only: *fresh is false.  ERR_NOTFOUND: read_only and no file; ERR_FORMAT: another run's, or a newer version's ledger. */
NODISCARD enum err net_ledger_open(struct net_ledger **l, const char *path, const uint8_t run_id[32], const uint8_t machine[32],
                                   bool read_only, bool *fresh, struct err_why *why);
/* From now on this file, here, belongs to machine.  Durable on return. */
NODISCARD enum err net_ledger_claim(struct net_ledger *l, const uint8_t machine[32]);
void net_ledger_close(struct net_ledger *l); /* flushes; NULL is fine */
/* own: durable on return, and ERR_RANGE if another segment of this machine stands at first_seq. */
NODISCARD enum err net_ledger_append(struct net_ledger *l, const uint8_t machine[32], uint64_t first_seq, const uint8_t *wire, size_t n,
                                     bool own, int64_t unix_ms);
/* The machine's segments from first_seq on leave the live chain (kept aside, the newest LIMIT_LEDGER_BRANCH rows: audits and
 * checkpoints may name them). */
NODISCARD enum err net_ledger_truncate(struct net_ledger *l, const uint8_t machine[32], uint64_t first_seq);
NODISCARD enum err net_ledger_control(struct net_ledger *l, const uint8_t *frame, size_t n); /* an equal frame is stored once */
NODISCARD enum err net_ledger_flush(struct net_ledger *l); /* commits the waiting foreign segments */
/* In order of machine (bytes), first_seq.  unix_ms: when this peer received it. */
NODISCARD enum err net_ledger_each(struct net_ledger *l, net_ledger_row *row, void *ctx);
NODISCARD enum err net_ledger_each_branch(struct net_ledger *l, net_ledger_row *row, void *ctx); /* what truncate kept aside */
NODISCARD enum err net_ledger_each_control(struct net_ledger *l, net_ledger_control_row *row, void *ctx); /* in order of arrival */
/* Small named values (status of the last run, address book, ...).  value NULL: removes it. */
NODISCARD enum err net_ledger_set(struct net_ledger *l, const char *key, const void *value, size_t n);
NODISCARD enum err net_ledger_get(struct net_ledger *l, const char *key, void **value, size_t *n); /* malloc'd; ERR_NOTFOUND */
const char *net_ledger_error(const struct net_ledger *l); /* the last ERR_IO as one line; "" */

struct net_ledger_damage {
    uint64_t rows;  /* segments dropped or skipped: damaged, or after a damaged one of their feed */
    uint64_t feeds; /* machines they belong to */
    uint64_t controls, values;
    bool own;     /* the own feed is among them */
    bool rebuilt; /* the file itself was unreadable: set aside and rebuilt */
};
void net_ledger_damaged(const struct net_ledger *l, struct net_ledger_damage *out); /* found by open and by each */
/* ERR_FORMAT if the last each and each_control skipped anything: for readers that repair nothing and must not go on without. */
NODISCARD enum err net_ledger_sound(const struct net_ledger *l, struct err_why *why);

/* The portable ledger file (net/export.c), little-endian:
 *   "onebyte/1 ledger" [16]   run id [32]
 *   then rows:  1 machine [32]                        the feed that follows; machines ascend
 *               2 unix_ms i64  n u16  wire [n]        its segments, first_seq contiguous from 0
 *               3 n u32  frame [n]                    a control event
 *               0 segments u64  controls u64  BLAKE2b of all bytes before this hash [32], and nothing after
 * Written beside and renamed.  Signatures are inside the segments: who imports checks them (net_gossip_load). */
NODISCARD enum err net_ledger_export(struct net_ledger *l, const char *path, struct err_why *why);
/* Reads the file twice: first all of it is checked, only then rows are given.  row, control: may be NULL.  run_id NULL: any run;
 * run_id_out (may be NULL) <- the file's.  ERR_FORMAT: not such a file, damaged, or of another run; ERR_NOTFOUND. */
NODISCARD enum err net_ledger_import(const char *path, const uint8_t *run_id, uint8_t *run_id_out, net_ledger_row *row,
                                     net_ledger_control_row *control, void *ctx, struct err_why *why);
#endif
