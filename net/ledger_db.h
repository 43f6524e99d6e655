/* net/ledger_db.h -- private to net/ledger*.c: the open ledger, and the few SQLite calls both files need. */
#ifndef ONEBYTE_NET_LEDGER_DB_H
#define ONEBYTE_NET_LEDGER_DB_H
#include <onebyte/net/ledger.h>
#include <sqlite3.h>

/* A foreign segment that waits for the next commit, or the own one being committed. */
struct ledger_row {
    uint8_t machine[32];
    uint64_t first_seq;
    int64_t unix_ms;
    uint8_t *wire; /* [n], malloc'd */
    size_t n;
};

struct net_ledger {
    sqlite3 *db;
    char *path;
    uint8_t run_id[32], machine[32];
    bool read_only;
    struct ledger_row *waiting; /* [n_waiting] of [n_room] */
    size_t n_waiting, n_room;
    sqlite3_stmt *insert_feed, *find_feed, *insert_segment;
    struct net_ledger_damage opened, walked; /* found by open; by the last walk */
    int code;        /* SQLite's, of the last failure */
    char error[512];
};

enum { LEDGER_SUM_BYTES = 8 }; /* enough against accidents; signatures are against liars */

/* First 8 bytes of BLAKE2b over kind, machine [32], place and contents. */
void ledger_sum(uint8_t sum[LEDGER_SUM_BYTES], const char *kind, const uint8_t machine[32], uint64_t place, int64_t unix_ms,
                const void *p, size_t n);
/* Notes what SQLite says as one line; returns ERR_IO, ERR_NOMEM or ERR_BUSY. */
enum err ledger_fail(struct net_ledger *l, const char *doing);
NODISCARD enum err ledger_exec(struct net_ledger *l, const char *sql);
NODISCARD enum err ledger_prepare(struct net_ledger *l, sqlite3_stmt **s, const char *sql);
/* A wire that could be a segment at first_seq: exact length and the same first_seq; *end <- the seq after it. */
bool ledger_shape(const uint8_t *wire, size_t n, uint64_t first_seq, uint64_t *end);
/* COMMITs, or ROLLs BACK when e is an error already or the commit fails. */
NODISCARD enum err ledger_end(struct net_ledger *l, enum err e);
NODISCARD enum err ledger_put_segment(struct net_ledger *l, const struct ledger_row *r); /* inside a transaction */

/* Walks the segments in order of machine and first_seq, checking each.  row may be NULL.  bad (may be NULL) is told, per feed, where its
 * first bad row stands.  *n_bad, *n_feeds <- rows skipped, feeds they belong to; *own <- is our own feed among them. */
typedef enum err ledger_bad(void *ctx, int64_t feed, int64_t from);
NODISCARD enum err ledger_walk(struct net_ledger *l, net_ledger_row *row, void *ctx, ledger_bad *bad, void *bad_ctx,
                               struct net_ledger_damage *found);

/* net/ledger_open.c */
NODISCARD enum err ledger_get_raw(struct net_ledger *l, const char *key, void **value, size_t *n);
NODISCARD enum err ledger_set_raw(struct net_ledger *l, const char *key, const void *value, size_t n);
#endif
