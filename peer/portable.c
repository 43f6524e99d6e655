#include "peer/portable.h"
#include "peer/manifest.h"
#include <onebyte/base/bytes.h>
#include <onebyte/net/id.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char magic[] = "onebyte ledger 1\n";
enum { MAGIC_BYTES = sizeof magic - 1, HEAD_BYTES = MAGIC_BYTES + 32, TAIL_BYTES = 1 + 32, ROW_MAX = 65535 };

static void put_number(FILE *out, uint64_t v, size_t n)
{
    uint8_t b[8];
    bytes_put_le(b, v, n);
    (void)fwrite(b, 1, n, out);
}

static bool put_segment(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n, int64_t unix_ms)
{
    FILE *out = ctx;
    ENSURE(n <= ROW_MAX);
    put_number(out, 1, 1);
    (void)fwrite(machine, 1, 32, out);
    put_number(out, (uint64_t)unix_ms, 8);
    put_number(out, n, 2);
    (void)fwrite(wire, 1, n, out);
    return ferror(out) == 0;
}

static bool put_control(void *ctx, const uint8_t *frame, size_t n)
{
    FILE *out = ctx;
    ENSURE(n <= ROW_MAX);
    put_number(out, 2, 1);
    put_number(out, n, 2);
    (void)fwrite(frame, 1, n, out);
    return ferror(out) == 0;
}

enum err peer_portable_write(const char *path, const uint8_t run_id[32], struct net_ledger *l, struct err_why *why)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (!out)
        return err_set(why, ERR_NOMEM, "out of memory");
    (void)fwrite(magic, 1, MAGIC_BYTES, out);
    (void)fwrite(run_id, 1, 32, out);
    enum err e = net_ledger_each(l, put_segment, out);
    if (e == ERR_OK)
        e = net_ledger_each_control(l, put_control, out);
    put_number(out, 0, 1);
    uint8_t hash[32];
    bool ok = fflush(out) == 0 && !ferror(out);
    if (ok) {
        net_hash(hash, &(struct net_part){text, n}, 1);
        ok = fwrite(hash, 1, sizeof hash, out) == sizeof hash;
    }
    ok = fclose(out) == 0 && ok;
    if (e != ERR_OK)
        e = err_set(why, e, "cannot read the ledger: %s", err_str(e));
    else if (!ok)
        e = err_set(why, ERR_NOMEM, "out of memory exporting the ledger");
    else
        e = peer_write_file(path, text, n, 0644, why);
    free(text);
    return e;
}

/* One row at p [n]; *used <- its bytes, *go_on <- the callback's answer.  False: it does not fit. */
static bool parse_row(const uint8_t *p, size_t n, const struct peer_rows *rows, size_t *used, bool *go_on)
{
    const size_t head = p[0] == 1 ? 43 : p[0] == 2 ? 3 : 0;
    if (head == 0 || n < head)
        return false;
    const size_t body = bytes_get_le(p + head - 2, 2);
    if (n - head < body)
        return false;
    *used = head + body;
    *go_on = true;
    if (p[0] == 1 && rows->segment)
        *go_on = rows->segment(rows->ctx, p + 1, p + head, body, (int64_t)bytes_get_le(p + 33, 8));
    else if (p[0] == 2 && rows->control)
        *go_on = rows->control(rows->ctx, p + head, body);
    return true;
}

enum err peer_portable_parse(const uint8_t *p, size_t n, uint8_t run_id[32], const struct peer_rows *rows, struct err_why *why)
{
    uint8_t hash[32];
    if (n < HEAD_BYTES + TAIL_BYTES || memcmp(p, magic, MAGIC_BYTES) != 0)
        return err_set(why, ERR_FORMAT, "not an exported ledger: make one with onebyte log --export FILE");
    net_hash(hash, &(struct net_part){p, n - 32}, 1);
    if (memcmp(hash, p + n - 32, 32) != 0)
        return err_set(why, ERR_FORMAT, "the exported ledger is damaged: its hash does not match; export it again");
    memcpy(run_id, p + MAGIC_BYTES, 32);
    size_t at = HEAD_BYTES, used = 0;
    const size_t end = n - TAIL_BYTES;
    bool go_on = true;
    while (at < end && go_on) {
        if (!parse_row(p + at, end - at, rows, &used, &go_on))
            return err_set(why, ERR_FORMAT, "the exported ledger has a malformed row at byte %zu", at);
        at += used;
    }
    if (go_on && p[end] != 0)
        return err_set(why, ERR_FORMAT, "the exported ledger has a malformed row at byte %zu", end);
    return ERR_OK;
}
