/* A segment's bytes: what is accepted is written again as the same bytes. */
#include "tests/fuzz/fuzz.h"
#include <onebyte/net/segment.h>

FUZZ_TARGET(segment)
{
    struct net_segment s;
    uint8_t again[NET_SEGMENT_BYTES_MAX];
    if (net_segment_parse(&s, data, size) != ERR_OK)
        return 0;
    ENSURE(net_segment_write(again, &s) == size);
    ENSURE(memcmp(again, data, size) == 0);
    return 0;
}
