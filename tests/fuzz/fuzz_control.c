/* Control events, and the questions and answers of audits: what is accepted is written again as the same bytes; the owner's
 * signature is checked. */
#include "tests/fuzz/fuzz.h"
#include <onebyte/net/audit.h>
#include <onebyte/net/control.h>

static void audits(const uint8_t *data, size_t size)
{
    struct net_ask a;
    struct net_tell t;
    uint8_t again[NET_TELL_BYTES_MAX];
    if (net_ask_parse(&a, data, size) == ERR_OK) {
        ENSURE(net_ask_write(again, &a) == size);
        ENSURE(memcmp(again, data, size) == 0);
    }
    if (net_tell_parse(&t, data, size) == ERR_OK) {
        ENSURE(net_tell_write(again, &t) == size);
        ENSURE(memcmp(again, data, size) == 0);
    }
}

FUZZ_TARGET(control)
{
    audits(data, size);
    struct net_control c;
    struct net_rules r = {.n0 = 16, .steps = 10, .k = 1};
    uint8_t again[NET_CONTROL_BYTES_MAX], id[32];
    if (net_start() != ERR_OK || net_control_parse(&c, data, size) != ERR_OK)
        return 0;
    ENSURE(net_control_write(again, &c) == size);
    ENSURE(memcmp(again, data, size) == 0);
    if (c.kind != NET_FORK) /* a proof has no id of its own */
        net_control_id(id, &c, &r);
    const enum err e = net_control_check(&c, &r);
    ENSURE(e == ERR_OK || e == ERR_PROTO);
    return 0;
}
