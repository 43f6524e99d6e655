/* Attacks before a link is up: connections that say nothing, too little, or the wrong thing. */
#include "attack.h"
#include <stdlib.h>

static int plain_connect(const struct target *t)
{
    const struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(t->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof to) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
        return fd;
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

/* The end of the stream, or an error: the other end has closed. */
static bool plain_closed(int fd)
{
    uint8_t bytes[256];
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
        continue;
    return n == 0 || (errno != EAGAIN && errno != EINTR);
}

/* Slow loris: every second connection sends its greeting at a byte per 200 ms, which would take 13 s. */
bool attack_silent(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    static const uint8_t greeting[64] = {0xff, [9] = 0x7f, [10] = 3, [12] = 'C', [13] = 'U', [14] = 'R', [15] = 'V', [16] = 'E'};
    int *fds = calloc(n, sizeof *fds);
    (void)seconds;
    for (uint32_t i = 0; fds && i < n; i++)
        r->links += (fds[i] = plain_connect(t)) >= 0;
    r->tried = n;
    size_t dripped = 0, open = 0;
    for (const double began = foe_seconds(), end = began + FOE_S; fds && foe_seconds() < end; foe_nap()) {
        const bool drip = dripped < sizeof greeting && foe_seconds() > began + 0.2 * (double)(dripped + 1);
        open = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (fds[i] >= 0 && drip && i % 2)
                r->sent += send(fds[i], greeting + dripped, 1, MSG_NOSIGNAL) == 1;
            if (fds[i] >= 0 && plain_closed(fds[i])) {
                (void)close(fds[i]);
                fds[i] = -1;
                r->refused++;
            }
            open += fds[i] >= 0;
        }
        dripped += drip;
        if (open == 0)
            break;
    }
    free(fds);
    return unless(r, open > 0, "a silent connection was kept open");
}

bool attack_server_key(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    (void)seconds;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t key[32], secret[32];
        struct foe f;
        if (crypto_box_keypair(key, secret) != 0)
            return false;
        r->tried++;
        r->links += foe_dial(&f, t, key);
        r->refused += f.closed;
        foe_end(&f);
    }
    return unless(r, r->links > 0, "a channel was opened towards another server key") &&
           unless(r, r->refused < n, "a handshake towards another server key was not cut");
}

bool attack_uncertified(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    struct foe *f = calloc(n, sizeof *f);
    (void)seconds;
    for (uint32_t i = 0; f && i < n; i++) {
        r->tried++;
        r->links += foe_dial(&f[i], t, NULL);
        if (i % 2) /* half of them begin the proof and stop */
            (void)foe_note(&f[i], &(struct note){.kind = NOTE_HELLO});
    }
    for (uint32_t i = 0; f && i < n; i++) {
        r->refused += foe_refused(&f[i], FOE_S);
        foe_end(&f[i]);
    }
    free(f);
    return unless(r, r->refused < n, "a key without a certificate was kept");
}

bool attack_certificates(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    struct net_identity id;
    (void)seconds;
    (void)n;
    if (net_identity_new(&id) != ERR_OK)
        return false;
    for (int lie = PROOF_OTHER_KEY; lie < PROOF_LIES; lie++) {
        struct foe f;
        r->tried++;
        if (foe_dial(&f, t, NULL) && foe_prove(&f, t, &id, (enum proof_lie)lie))
            r->links++;
        r->refused += f.bye == BYE_PROOF;
        foe_end(&f);
    }
    struct foe honest; /* nobody is blamed for what others claim in his name */
    const bool in = foe_link(&honest, t, &id);
    foe_end(&honest);
    net_identity_release(&id);
    return unless(r, r->links > 0, "a wrong certificate was accepted") &&
           unless(r, r->refused < r->tried, "a wrong certificate was not refused as one") &&
           unless(r, !in, "the machine itself was kept out");
}

bool attack_early(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    static const uint8_t early[][3] = {{WIRE_HELLO, WIRE_VERSION, 0}, {NET_FRAME_RESERVED, 99, 0}, {NET_FRAME_RESERVED, NOTE_PONG, 1}};
    (void)seconds;
    for (uint32_t i = 0; i < n; i++) {
        struct foe f;
        r->tried++;
        if (foe_dial(&f, t, NULL)) {
            (void)foe_send(&f, early[i % ARRAY_LEN(early)], 3, false);
            r->refused += foe_refused(&f, FOE_S);
        }
        foe_end(&f);
    }
    return unless(r, r->refused < r->tried, "a message before the proof did not end the connection");
}

bool attack_links(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    struct foe *f = calloc(n, sizeof *f);
    uint64_t full = 0;
    (void)seconds;
    for (uint32_t i = 0; f && i < n; i++) {
        r->tried++;
        r->links += foe_link(&f[i], t, NULL);
        full += f[i].bye == BYE_FULL;
        r->refused += f[i].bye != 0 || f[i].closed;
    }
    for (uint32_t i = 0; f && i < n; i++)
        foe_end(&f[i]);
    free(f);
    return unless(r, r->links > LIMIT_LINKS, "more links than the limit") && unless(r, n > LIMIT_LINKS && full == 0, "nobody was told that it is full");
}

/* Resets at every stage: TCP, half a greeting, CURVE, the proof, in the midst of a message on a link. */
bool attack_close(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    const struct linger reset = {.l_onoff = 1};
    (void)seconds;
    for (uint32_t i = 0; i < n; i++) {
        struct foe f = {.closed = true};
        r->tried++;
        if (i % 5 < 2) {
            f.c.fd = plain_connect(t);
            if (i % 5 == 1)
                r->sent += send(f.c.fd, "\xff\0\0\0", 4, MSG_NOSIGNAL) == 4;
        } else if (i % 5 == 2) {
            (void)foe_dial(&f, t, NULL);
        } else if (i % 5 == 3) {
            if (foe_dial(&f, t, NULL))
                (void)foe_note(&f, &(struct note){.kind = NOTE_HELLO});
        } else {
            r->links += foe_link(&f, t, NULL);
            if (f.c.fd > 0) /* a long frame's head, and then nothing */
                r->sent += send(f.c.fd, "\x02\0\0\0\0\0\0\x10\0abc", 12, MSG_NOSIGNAL) == 12;
        }
        if (f.c.fd > 0)
            (void)setsockopt(f.c.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        foe_end(&f);
    }
    return unless(r, n >= 5 && r->links == 0, "an honest proof was not accepted");
}
