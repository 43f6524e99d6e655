#include <onebyte/net/book.h>
#include <onebyte/base/bytes.h>
#include <onebyte/net/transport.h>
#include <string.h>

enum { VERSION = 1, WAIT_S = 60, WAIT_S_MAX = 86400, ENTRY_FIXED = 1 + 1 + 8 + 8 };

struct entry {
    char address[LIMIT_ADDRESS_BYTES + 1], teller[LIMIT_ADDRESS_BYTES + 1], group[64];
    bool tried;
    uint8_t failures;          /* in a row; saturates */
    int64_t last_ok, last_try; /* unix seconds; 0: never */
};

struct net_book {
    struct entry at[LIMIT_BOOK_TRIED + LIMIT_BOOK_NEW]; /* [n], in no order */
    size_t n, n_tried;
};

enum err net_book_new(struct net_book **b)
{
    *b = calloc(1, sizeof **b);
    return *b ? ERR_OK : ERR_NOMEM;
}

void net_book_free(struct net_book *b)
{
    free(b);
}

/* ---- one entry ---- */

/* An address somebody could be reached at; its group. */
static bool usable(const char *address, char group[64])
{
    static const char *const nowhere[] = {"*", "0.0.0.0", "::"};
    char host[64];
    uint16_t port;
    if (strlen(address) > LIMIT_ADDRESS_BYTES ||
        net_address_split(host, &port, address, NULL) != ERR_OK || port == 0)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(nowhere); i++)
        if (strcmp(host, nowhere[i]) == 0)
            return false;
    net_address_group(group, host);
    return true;
}

static struct entry *find(struct net_book *b, const char *address)
{
    for (size_t i = 0; i < b->n; i++)
        if (strcmp(b->at[i].address, address) == 0)
            return &b->at[i];
    return NULL;
}

static void drop(struct net_book *b, struct entry *e)
{
    b->n_tried -= e->tried;
    *e = b->at[--b->n];
}

/* ---- making room ---- */

/* Of equals the larger goes: a fixed mix of the word and the place, so that nobody can arrange who
 * stays. */
static uint64_t lot(uint64_t rnd, size_t i)
{
    uint64_t x = rnd + 0x9E3779B97F4A7C15u * (i + 1); /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* How much an entry deserves to go: failures first, then, of those that worked, the longest ago. */
static bool goes_before(const struct entry *x, const struct entry *y)
{
    if (x->failures != y->failures)
        return x->failures > y->failures;
    return x->tried && x->last_ok < y->last_ok;
}

/* The one to go among the entries of a table (and group, and teller, when given); *n <- how many
 * there are. */
static struct entry *worst(struct net_book *b, bool tried, const char *group, const char *teller,
                           uint64_t rnd, size_t *n)
{
    struct entry *out = NULL;
    uint64_t out_lot = 0;
    *n = 0;
    for (size_t i = 0; i < b->n; i++) {
        struct entry *e = &b->at[i];
        if (e->tried != tried || (group && strcmp(e->group, group) != 0) ||
            (teller && strcmp(e->teller, teller) != 0))
            continue;
        const uint64_t l = lot(rnd, i);
        *n += 1;
        if (!out || goes_before(e, out) || (!goes_before(out, e) && l > out_lot)) {
            out = e;
            out_lot = l;
        }
    }
    return out;
}

/* Room in `new` for one more of group and teller.  Over its group's or teller's share a newcomer
 * replaces one of the same. */
static bool room_in_new(struct net_book *b, const char *group, const char *teller, uint64_t rnd)
{
    const struct {
        const char *group, *teller;
        size_t limit;
    } shares[] = {{group, NULL, LIMIT_BOOK_GROUP},
                  {NULL, teller, LIMIT_BOOK_TELLER},
                  {NULL, NULL, LIMIT_BOOK_NEW}};
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        size_t n;
        struct entry *e = worst(b, false, shares[i].group, shares[i].teller, rnd, &n);
        if (n < shares[i].limit)
            continue;
        if (e->failures == 0 && (lot(rnd, i) & 3) != 0)
            return false; /* mostly the old ones stay: repeated claims must not wash them out */
        drop(b, e);
    }
    return true;
}

/* Room in `tried` for one more of group: only at the cost of one that stopped working (test before
 * evict). */
static bool room_in_tried(struct net_book *b, const char *group, uint64_t rnd)
{
    const struct {
        const char *group;
        size_t limit;
    } shares[] = {{group, LIMIT_BOOK_GROUP}, {NULL, LIMIT_BOOK_TRIED}};
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        size_t n;
        struct entry *e = worst(b, true, shares[i].group, NULL, rnd, &n);
        if (n < shares[i].limit)
            continue;
        if (e->failures == 0)
            return false;
        drop(b, e);
    }
    return true;
}

/* ---- what happened ---- */

static struct entry *add(struct net_book *b, const char *address, const char *group,
                         const char *teller)
{
    ENSURE(b->n < ARRAY_LEN(b->at));
    struct entry *e = &b->at[b->n++];
    memset(e, 0, sizeof *e);
    (void)snprintf(e->address, sizeof e->address, "%s", address);
    (void)snprintf(e->group, sizeof e->group, "%s", group);
    (void)snprintf(e->teller, sizeof e->teller, "%s", teller);
    return e;
}

void net_book_heard(struct net_book *b, const char *address, const char *teller, int64_t unix_s,
                    uint64_t rnd)
{
    char group[64], told_by[LIMIT_ADDRESS_BYTES + 1];
    (void)unix_s; /* hearsay has no date: repeating it must not make it look better */
    (void)snprintf(told_by, sizeof told_by, "%s", teller);
    if (usable(address, group) && !find(b, address) && room_in_new(b, group, told_by, rnd))
        (void)add(b, address, group, told_by);
}

void net_book_worked(struct net_book *b, const char *address, int64_t unix_s, uint64_t rnd)
{
    char group[64];
    if (!usable(address, group))
        return;
    struct entry *e = find(b, address);
    if (!e || !e->tried) {
        char teller[LIMIT_ADDRESS_BYTES + 1] = "";
        if (e) {
            memcpy(teller, e->teller, sizeof teller);
            drop(b, e); /* out of `new` before room is made: making room moves entries */
        }
        const bool tried = room_in_tried(b, group, rnd);
        if (!tried && !room_in_new(b, group, teller, rnd))
            return;
        e = add(b, address, group, teller);
        e->tried = tried;
        b->n_tried += tried;
    }
    e->failures = 0;
    e->last_ok = e->last_try = unix_s;
}

void net_book_failed(struct net_book *b, const char *address, int64_t unix_s)
{
    struct entry *e = find(b, address);
    if (!e)
        return;
    e->last_try = unix_s;
    if (e->failures < UINT8_MAX)
        e->failures++;
    if (!e->tried && e->failures >= LIMIT_BOOK_FAILURES && e->last_ok == 0)
        drop(b, e);
}

void net_book_forget(struct net_book *b, const char *address)
{
    struct entry *e = find(b, address);
    if (e)
        drop(b, e);
}

/* ---- whom to dial ---- */

static bool waiting(const struct entry *e, int64_t unix_s)
{
    int64_t wait_s = WAIT_S;
    for (uint8_t i = 1; i < e->failures && wait_s < WAIT_S_MAX; i++)
        wait_s *= 2;
    if (wait_s > WAIT_S_MAX)
        wait_s = WAIT_S_MAX;
    /* A clock that was set back must not keep an address waiting for years. */
    return e->failures > 0 && unix_s >= e->last_try && unix_s - e->last_try < wait_s;
}

static bool listed(const char *address, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], address) == 0)
            return true;
    return false;
}

static bool group_listed(const char *group, char (*groups)[64], size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(groups[i], group) == 0)
            return true;
    return false;
}

/* A random entry of the table that may be dialled now, from a group not in groups[n] where asked;
 * NULL: none. */
static const struct entry *draw(const struct net_book *b, bool tried, char (*groups)[64], size_t n,
                                bool other_group, const char *const *busy, size_t n_busy,
                                int64_t unix_s, uint64_t rnd)
{
    const struct entry *out = NULL;
    uint64_t best = 0;
    for (size_t i = 0; i < b->n; i++) {
        const struct entry *e = &b->at[i];
        if (e->tried != tried || waiting(e, unix_s) || listed(e->address, busy, n_busy) ||
            (other_group && group_listed(e->group, groups, n)))
            continue;
        const uint64_t l = lot(rnd, i);
        if (!out || l > best) {
            out = e;
            best = l;
        }
    }
    return out;
}

bool net_book_next(const struct net_book *b, char address[LIMIT_ADDRESS_BYTES + 1],
                   const char *const *busy, size_t n_busy, int64_t unix_s, uint64_t rnd)
{
    char groups[LIMIT_DIALS + LIMIT_LINKS][64]; /* of the busy ones, repeated as they come */
    size_t n_groups = 0, largest = 0;
    for (size_t i = 0; i < n_busy && n_groups < ARRAY_LEN(groups); i++)
        n_groups += usable(busy[i], groups[n_groups]);
    for (size_t i = 0; i < n_groups; i++) {
        size_t n = 0;
        for (size_t k = 0; k < n_groups; k++)
            n += strcmp(groups[i], groups[k]) == 0;
        largest = n > largest ? n : largest;
    }
    const bool tried_first = (rnd & 3) != 0, wants_other = n_groups > 0 && 2 * largest >= n_groups;
    for (int strict = wants_other; strict >= 0; strict--) {
        const struct entry *e =
            draw(b, tried_first, groups, n_groups, strict, busy, n_busy, unix_s, rnd);
        if (!e)
            e = draw(b, !tried_first, groups, n_groups, strict, busy, n_busy, unix_s, rnd);
        if (e) {
            memcpy(address, e->address, sizeof e->address);
            return true;
        }
    }
    return false;
}

size_t net_book_good(const struct net_book *b, char (*out)[LIMIT_ADDRESS_BYTES + 1], size_t n_max)
{
    const struct entry *best[LIMIT_BOOK_TRIED] = {NULL};
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++) {
        const struct entry *e = &b->at[i];
        if (!e->tried || e->failures > 0)
            continue;
        size_t k = n++;
        for (; k > 0 && best[k - 1]->last_ok < e->last_ok; k--)
            best[k] = best[k - 1];
        best[k] = e;
    }
    if (n > n_max)
        n = n_max;
    for (size_t i = 0; i < n; i++)
        memcpy(out[i], best[i]->address, sizeof best[i]->address);
    return n;
}

size_t net_book_size(const struct net_book *b, bool tried)
{
    return tried ? b->n_tried : b->n - b->n_tried;
}

/* ---- bytes ---- */

static size_t put_text(uint8_t *out, const char *text)
{
    const size_t n = strlen(text);
    out[0] = (uint8_t)n;
    for (size_t i = 0; i < n; i++) /* without its NUL */
        out[1 + i] = (uint8_t)text[i];
    return 1 + n;
}

size_t net_book_save(const struct net_book *b, uint8_t *out, size_t n_max)
{
    size_t at = 0;
    ENSURE(n_max >= 1 + b->n * (ENTRY_FIXED + 2 * (1 + (size_t)LIMIT_ADDRESS_BYTES)));
    out[at++] = VERSION;
    for (size_t i = 0; i < b->n; i++) {
        const struct entry *e = &b->at[i];
        out[at] = e->tried;
        out[at + 1] = e->failures;
        bytes_put_le(out + at + 2, (uint64_t)e->last_ok, 8);
        bytes_put_le(out + at + 10, (uint64_t)e->last_try, 8);
        at += ENTRY_FIXED;
        at += put_text(out + at, e->address);
        at += put_text(out + at, e->teller);
    }
    return at;
}

/* Length and characters at in[*at]; text <- a C string. */
static bool get_text(char text[LIMIT_ADDRESS_BYTES + 1], const uint8_t *in, size_t n, size_t *at)
{
    if (*at >= n || in[*at] > LIMIT_ADDRESS_BYTES || n - *at - 1 < in[*at])
        return false;
    const size_t bytes = in[*at];
    memcpy(text, in + *at + 1, bytes);
    text[bytes] = 0;
    *at += 1 + bytes;
    return strlen(text) == bytes;
}

static bool load_entry(struct net_book *b, const uint8_t *in, size_t n, size_t *at)
{
    char address[LIMIT_ADDRESS_BYTES + 1], teller[LIMIT_ADDRESS_BYTES + 1], group[64];
    if (n - *at < ENTRY_FIXED || in[*at] > 1)
        return false;
    const uint8_t *fixed = in + *at;
    *at += ENTRY_FIXED;
    if (!get_text(address, in, n, at) || !get_text(teller, in, n, at) || !usable(address, group) ||
        find(b, address))
        return false;
    const bool tried = fixed[0] == 1;
    if (bytes_get_le(fixed + 2, 8) > INT64_MAX ||
        bytes_get_le(fixed + 10, 8) > INT64_MAX) /* before 1970 */
        return false;
    if (tried ? b->n_tried == LIMIT_BOOK_TRIED : b->n - b->n_tried == LIMIT_BOOK_NEW)
        return false;
    struct entry *e = add(b, address, group, teller);
    e->tried = tried;
    b->n_tried += tried;
    e->failures = fixed[1];
    e->last_ok = (int64_t)bytes_get_le(fixed + 2, 8);
    e->last_try = (int64_t)bytes_get_le(fixed + 10, 8);
    return true;
}

enum err net_book_load(struct net_book *b, const uint8_t *in, size_t n)
{
    struct net_book *got = NULL;
    TRY(net_book_new(&got));
    size_t at = 1;
    bool ok = n >= 1 && in[0] == VERSION;
    while (ok && at < n)
        ok = load_entry(got, in, n, &at);
    if (ok)
        *b = *got;
    net_book_free(got);
    return ok ? ERR_OK : ERR_FORMAT;
}
