/* The portable ledger file, read as `replay` and `import` do; what it holds goes through the checks that rows of the ledger go
 * through at start-up.  The file's own checksum is set right first, so that the fuzzer gets past it (first byte odd: it is not). */
#include "tests/fuzz/fuzz.h"
#include <onebyte/net/control.h>
#include <onebyte/net/gossip.h>
#include <onebyte/net/ledger.h>

static bool row(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n, int64_t unix_ms)
{
    (void)unix_ms;
    const enum err e = net_gossip_load(ctx, machine, wire, n);
    ENSURE(e != ERR_IO);
    return true;
}

static bool control(void *ctx, const uint8_t *frame, size_t n)
{
    const enum err e = net_gossip_load_control(ctx, frame, n);
    ENSURE(e != ERR_IO);
    return true;
}

FUZZ_TARGET(ledger)
{
    struct net_rules r = {.n0 = 16, .steps = 1000, .share_65536 = 65536, .burst = 8, .records_max = 1 << 20, .k = 1};
    struct net_gossip *g = NULL;
    struct err_why why = {{0}};
    const uint8_t self[32] = {1};
    uint8_t run[32], hash[32];
    if (size < 1 || net_start() != ERR_OK)
        return 0;
    uint8_t *file = malloc(size + 32);
    ENSURE(file != NULL);
    memcpy(file, data + 1, size - 1);
    net_hash(hash, &(struct net_part){file, size - 1}, 1);
    memcpy(file + size - 1, hash, 32);
    ENSURE(net_gossip_new(&g, &r, self, 1) == ERR_OK);
    const enum err e = net_ledger_import(fuzz_file("ledger", file, size - 1 + (data[0] & 1 ? 0 : 32)), NULL, run, row, control, g, &why);
    ENSURE(e == ERR_OK || e == ERR_FORMAT || e == ERR_NOMEM);
    struct net_action a;
    while (net_gossip_action(g, &a))
        continue;
    net_gossip_free(g);
    free(file);
    return 0;
}
