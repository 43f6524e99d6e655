/* Control events, scores, and the questions and answers of audits: what is accepted is written again as the same bytes; the
 * signature is checked. */
#include "tests/fuzz/fuzz.h"
#include <onebyte/net/audit.h>
#include <onebyte/net/control.h>
#include <onebyte/net/score.h>

static void as_score(const uint8_t *data, size_t size, const struct net_rules *r)
{
    struct net_score s;
    uint8_t again[NET_SCORE_BYTES];
    if (net_score_parse(&s, data, size) != ERR_OK)
        return;
    net_score_write(again, &s);
    ENSURE(memcmp(again, data, size) == 0);
    const enum err e = net_score_check(&s, r);
    ENSURE(e == ERR_OK || e == ERR_PROTO);
}

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
    if (net_start() != ERR_OK)
        return 0;
    as_score(data, size, &r);
    if (net_control_parse(&c, data, size) != ERR_OK)
        return 0;
    ENSURE(net_control_write(again, &c) == size);
    ENSURE(memcmp(again, data, size) == 0);
    if (c.kind != NET_FORK) /* a proof has no id of its own */
        net_control_id(id, &c, &r);
    const enum err e = net_control_check(&c, &r);
    ENSURE(e == ERR_OK || e == ERR_PROTO);
    return 0;
}
