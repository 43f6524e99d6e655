/* Control events: what is accepted is written again as the same bytes; the owner's signature is checked. */
#include "tests/fuzz/fuzz.h"
#include <onebyte/net/control.h>

FUZZ_TARGET(control)
{
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
