/* The transport's own messages (HELLO, PROVE, CERT, ..) and the addresses that peers tell each other. */
#include "tests/fuzz/fuzz.h"
#include "net/transport_private.h"

FUZZ_TARGET(transport)
{
    struct note n;
    uint8_t again[NOTE_BYTES_MAX];
    if (note_parse(&n, data, size) == ERR_OK) {
        ENSURE(note_write(again, &n) == size);
        ENSURE(memcmp(again, data, size) == 0);
    }
    char text[256], host[64], group[64];
    uint16_t port;
    struct err_why why = {{0}};
    if (size >= sizeof text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    if (net_address_split(host, &port, text, &why) == ERR_OK)
        net_address_group(group, host);
    return 0;
}
