/* Allowances of those who download from us. */
#include "peer/upload.h"
#include <onebyte/base/err.h>
#include <onebyte/net/id.h>
#include <onebyte/net/transport.h>
#include <stdio.h>
#include <string.h>

void peer_uploads_init(struct peer_uploads *u, uint64_t whole)
{
    static const uint64_t more = 4 << 20;
    memset(u, 0, sizeof *u);
    u->copy = whole + more;
}

static struct peer_asker *asker(struct peer_uploads *u, const char *who, uint64_t copies, uint64_t now_ns)
{
    const uint64_t hour = (uint64_t)PEER_UPLOAD_REFILL_S * 1000000000, most = copies * u->copy;
    struct peer_asker *a = &u->askers[0];
    for (size_t i = 0; i < PEER_UPLOAD_ASKERS; i++) {
        struct peer_asker *x = &u->askers[i];
        if (strcmp(x->who, who) == 0) {
            const uint64_t gone = now_ns - x->seen_ns;
            /* in doubles: bytes times nanoseconds do not fit, and nothing here has to be exact */
            const double left = (double)x->left + (double)u->copy * ((double)gone / (double)hour);
            x->left = left < (double)most ? (uint64_t)left : most;
            x->seen_ns = now_ns;
            return x;
        }
        if (x->seen_ns < a->seen_ns)
            a = x;
    }
    (void)snprintf(a->who, sizeof a->who, "%s", who);
    a->left = most;
    a->seen_ns = now_ns;
    return a;
}

/* false: loopback, or no address: every machine for itself. */
static bool network_of(char group[65], const char *address)
{
    char host[64];
    uint16_t port;
    if (net_address_split(host, &port, address, NULL) != ERR_OK || strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0)
        return false;
    net_address_group(group, host);
    return true;
}

bool peer_uploads_take(struct peer_uploads *u, const uint8_t machine[32], const char *address, uint64_t bytes, uint64_t now_ns)
{
    char who[65], group[65] = "";
    net_hex(who, machine, 32);
    struct peer_asker *m = asker(u, who, PEER_UPLOAD_MACHINE, now_ns),
                      *n = network_of(group, address) ? asker(u, group, PEER_UPLOAD_NETWORK, now_ns + 1) : NULL;
    if (m->left < bytes || (n && n->left < bytes)) {
        u->refused++;
        return false;
    }
    m->left -= bytes;
    if (n)
        n->left -= bytes;
    return true;
}
