#include "peer/invite.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <onebyte/net/id.h>
#include <onebyte/net/transport.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char scheme[] = "onebyte://";

bool peer_invite_is(const char *text)
{
    return strncmp(text, scheme, sizeof scheme - 1) == 0;
}

/* HOST:PORT with a host and a port from 1 to 65535. */
static bool address_ok(const char *address)
{
    char host[64];
    uint16_t port = 0;
    return net_address_split(host, &port, address, NULL) == ERR_OK && port > 0 && strcmp(host, "*") != 0;
}

enum err peer_invite_parse(struct peer_invite *out, const char *text, struct err_why *why)
{
    static const char form[] = "an invite looks like onebyte://HOST:PORT/RUNID?key=MACHINE";
    struct peer_invite i = {0};
    if (!peer_invite_is(text))
        return err_set(why, ERR_FORMAT, "'%.200s' is not an invite: %s", text, form);
    const char *at = text + sizeof scheme - 1, *slash = strchr(at, '/');
    if (!slash || slash == at || (size_t)(slash - at) >= sizeof i.address)
        return err_set(why, ERR_FORMAT, "invite without HOST:PORT/RUNID: %s", form);
    memcpy(i.address, at, (size_t)(slash - at));
    if (!address_ok(i.address))
        return err_set(why, ERR_FORMAT, "invite: '%s' is not HOST:PORT: %s", i.address, form);
    char run[65] = "";
    const char *query = strchr(slash, '?');
    const size_t n = query ? (size_t)(query - slash - 1) : strlen(slash + 1);
    if (n == 64)
        memcpy(run, slash + 1, 64);
    if (net_unhex(i.run_id, 32, run) != ERR_OK)
        return err_set(why, ERR_FORMAT, "invite: the run id must be 64 hex digits: %s", form);
    if (query) {
        i.has_key = true;
        if (strncmp(query, "?key=", 5) != 0 || net_unhex(i.key, 32, query + 5) != ERR_OK)
            return err_set(why, ERR_FORMAT, "invite: after ? comes key= and 64 hex digits: %s",
                           form);
    }
    *out = i;
    return ERR_OK;
}

void peer_invite_print(char out[PEER_INVITE_BYTES], const struct peer_invite *i)
{
    char run[65], key[65];
    net_hex(run, i->run_id, 32);
    net_hex(key, i->key, 32);
    (void)snprintf(out, PEER_INVITE_BYTES, "%s%s/%s%s%s", scheme, i->address, run,
                   i->has_key ? "?key=" : "", i->has_key ? key : "");
}

bool peer_own_address(char out[16])
{
    struct sockaddr_in far = {.sin_family = AF_INET, .sin_port = htons(9)}, own = {.sin_family = AF_INET};
    socklen_t n = sizeof own;
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    (void)inet_pton(AF_INET, "192.0.2.1", &far.sin_addr); /* TEST-NET-1: anywhere else */
    const bool routed = fd >= 0 && connect(fd, (const struct sockaddr *)&far, sizeof far) == 0 &&
                        getsockname(fd, (struct sockaddr *)&own, &n) == 0;
    if (fd >= 0)
        close(fd);
    return routed && inet_ntop(AF_INET, &own.sin_addr, out, 16) != NULL;
}

void peer_invite_listening(char out[PEER_INVITE_BYTES], const char *listening, const uint8_t run_id[32], const uint8_t machine[32])
{
    struct peer_invite i = {.has_key = true};
    char own[16];
    const char *port = strrchr(listening, ':');
    const bool any = strncmp(listening, "0.0.0.0:", 8) == 0 || strncmp(listening, "[::]:", 5) == 0;
    if (any && port && peer_own_address(own))
        (void)snprintf(i.address, sizeof i.address, "%s%s", own, port);
    else
        (void)snprintf(i.address, sizeof i.address, "%s", listening);
    memcpy(i.run_id, run_id, 32);
    memcpy(i.key, machine, 32);
    peer_invite_print(out, &i);
}
