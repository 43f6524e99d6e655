/* net/ledger.h -- everything a peer holds, on disk: SQLite (WAL), own segments with synchronous=FULL before the first send.
 * A torn or damaged tail is dropped and repaired from the network; damage is named, never silently used. */
#ifndef ONEBYTE_NET_LEDGER_H
#define ONEBYTE_NET_LEDGER_H
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net_ledger;

/* Opens or makes path.  *fresh: the ledger is new, or its inode, birth time or machine differ from what it stored, or
 * it was damaged: the home was copied or restored, and the old key must never seal again (DESIGN 5). */
NODISCARD enum err net_ledger_open(struct net_ledger **l, const char *path, const uint8_t run_id[32], const uint8_t machine[32],
                                   bool read_only, bool *fresh, struct err_why *why);
void net_ledger_close(struct net_ledger *l);
NODISCARD enum err net_ledger_append(struct net_ledger *l, const uint8_t machine[32], uint64_t first_seq, const uint8_t *wire, size_t n,
                                     bool own, int64_t unix_ms);
NODISCARD enum err net_ledger_truncate(struct net_ledger *l, const uint8_t machine[32], uint64_t first_seq);
NODISCARD enum err net_ledger_control(struct net_ledger *l, const uint8_t *frame, size_t n);
NODISCARD enum err net_ledger_flush(struct net_ledger *l); /* commits the open batch of foreign segments */
/* In order of machine, first_seq; row returns false to stop. */
NODISCARD enum err net_ledger_each(struct net_ledger *l, bool (*row)(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n,
                                   int64_t unix_ms), void *ctx);
NODISCARD enum err net_ledger_each_control(struct net_ledger *l, bool (*row)(void *ctx, const uint8_t *frame, size_t n), void *ctx);
/* Small named values (status of the last run, address book, ...). */
NODISCARD enum err net_ledger_set(struct net_ledger *l, const char *key, const void *value, size_t n);
NODISCARD enum err net_ledger_get(struct net_ledger *l, const char *key, void **value, size_t *n); /* malloc'd; ERR_NOTFOUND */
#endif
