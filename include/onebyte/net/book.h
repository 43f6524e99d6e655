/* net/book.h -- the address book: where peers were heard of, where they were met, and whom to dial next.
 *
 * Two tables, after Bitcoin Core's addrman: `tried` (a link came up there) and `new` (only heard of).  Both are bounded, in all
 * and per group (/24, IPv6 /64, or the host name), and `new` also per telling neighbour: no single network or liar fills them.
 * An address that works is never pushed out by one that only claims to (test before evict).
 * Pure: time and randomness are arguments.   Threads  any, one at a time.   Saved as bytes by the caller (net_ledger_set). */
#ifndef ONEBYTE_NET_BOOK_H
#define ONEBYTE_NET_BOOK_H
#include <onebyte/base/err.h>
#include <onebyte/base/limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net_book;

NODISCARD enum err net_book_new(struct net_book **b);
void net_book_free(struct net_book *b);
/* address: "HOST:PORT" (checked; nonsense, port 0 and unspecified hosts are ignored).  teller: any string that names who told (the
 * neighbour's group, "seed", "self typed").  rnd: a random word, decides which entry makes room. */
void net_book_heard(struct net_book *b, const char *address, const char *teller, int64_t unix_s, uint64_t rnd);
void net_book_worked(struct net_book *b, const char *address, int64_t unix_s, uint64_t rnd); /* a link came up: new -> tried */
void net_book_failed(struct net_book *b, const char *address, int64_t unix_s); /* LIMIT_BOOK_FAILURES in a row: forgotten, if only heard of */
void net_book_forget(struct net_book *b, const char *address);                 /* it is ourselves */
/* Whom to dial next, with the addresses [n_busy] dialled or linked already.  Tried ones first (three of four times), never one that
 * failed within its waiting time (a minute, doubling, up to a day), and while at least half of the busy ones share a group,
 * from a group not among them if there is one.  false: nobody now. */
bool net_book_next(const struct net_book *b, char address[LIMIT_ADDRESS_BYTES + 1], const char *const *busy, size_t n_busy,
                   int64_t unix_s, uint64_t rnd);
/* Up to n_max addresses that worked, best known first: for telling neighbours. */
size_t net_book_good(const struct net_book *b, char (*out)[LIMIT_ADDRESS_BYTES + 1], size_t n_max);
size_t net_book_size(const struct net_book *b, bool tried);

/* Bytes: version 1 u8, then per entry: tried u8, failures u8, last_ok i64, last_try i64, length u8, address, length u8, teller.  load replaces
 * what is held; ERR_FORMAT: nothing is taken. */
enum { NET_BOOK_BYTES_MAX = 1 + (LIMIT_BOOK_TRIED + LIMIT_BOOK_NEW) * (20 + 2 * LIMIT_ADDRESS_BYTES) };
size_t net_book_save(const struct net_book *b, uint8_t *out, size_t n_max); /* bytes written; needs at most NET_BOOK_BYTES_MAX */
NODISCARD enum err net_book_load(struct net_book *b, const uint8_t *in, size_t n);
#endif
