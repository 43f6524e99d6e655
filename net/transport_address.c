/* HOST:PORT.  Pure. */
#include "net/transport_private.h"
#include <arpa/inet.h>
#include <string.h>

static bool parse_port(uint16_t *port, const char *text)
{
    unsigned value = 0;
    if (!*text || strlen(text) > 5)
        return false;
    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9')
            return false;
        value = value * 10 + (unsigned)(*p - '0');
    }
    *port = (uint16_t)value;
    return value <= 65535;
}

/* Letters, digits, '.', '-', '_' for names; ':' and a zone's '%' only within brackets. */
static bool host_chars(const char *host, bool v6)
{
    static const char name[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    struct in6_addr a;
    return v6 ? inet_pton(AF_INET6, host, &a) == 1
              : *host && (strcmp(host, "*") == 0 || host[strspn(host, name)] == 0);
}

enum err net_address_split(char host[HOST_MAX], uint16_t *port, const char *address,
                           struct err_why *why)
{
    const bool v6 = address[0] == '[';
    const char *start = address + v6, *end = v6 ? strchr(address, ']') : strrchr(address, ':');
    const char *colon = end && v6 ? end + 1 : end;
    char got[HOST_MAX];
    uint16_t number = 0;
    if (!end || *colon != ':')
        return err_set(why, ERR_FORMAT,
                       "'%.100s' is not an address: write HOST:PORT, for example 192.0.2.7:4100 or "
                       "[2001:db8::7]:4100",
                       address);
    const size_t n = (size_t)(end - start);
    if (n >= sizeof got)
        return err_set(why, ERR_FORMAT, "the host in '%.100s' is longer than %d characters",
                       address, HOST_MAX - 1);
    memcpy(got, start, n);
    got[n] = 0;
    if (!host_chars(got, v6))
        return err_set(why, ERR_FORMAT,
                       "'%.100s' is not an address: the host must be a name, an IPv4 address, or "
                       "an IPv6 address in brackets",
                       address);
    if (!parse_port(&number, colon + 1))
        return err_set(why, ERR_FORMAT,
                       "'%.100s' is not an address: the port must be a number from 0 to 65535",
                       address);
    memcpy(host, got, n + 1);
    *port = number;
    return ERR_OK;
}

void net_address_group(char group[HOST_MAX], const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    const uint8_t *b = NULL;
    if (inet_pton(AF_INET, host, &v4) == 1)
        b = (const uint8_t *)&v4;
    else if (inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_V4MAPPED(&v6))
        b = v6.s6_addr + 12;
    else if (inet_pton(AF_INET6, host, &v6) == 1)
        (void)snprintf(group, HOST_MAX, "%02x%02x:%02x%02x:%02x%02x:%02x%02x", v6.s6_addr[0],
                       v6.s6_addr[1], v6.s6_addr[2], v6.s6_addr[3], v6.s6_addr[4], v6.s6_addr[5],
                       v6.s6_addr[6], v6.s6_addr[7]);
    else
        (void)snprintf(group, HOST_MAX, "%s", host);
    if (b)
        (void)snprintf(group, HOST_MAX, "%u.%u.%u", b[0], b[1], b[2]);
}
