/* ZMTP 3.0 with CURVE over a plain TCP socket, written from the specifications (rfc.zeromq.org 23, 26): a client that may send what
 * ZeroMQ's own would not, such as parts of a message that never ends.  Non-blocking: step until ready. */
#ifndef TESTS_NET_CURVE_CLIENT_H
#define TESTS_NET_CURVE_CLIENT_H
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct curve {
    int fd;
    uint8_t server[32], c_public[32], c_secret[32]; /* long-term */
    uint8_t e_public[32], e_secret[32], s_public[32]; /* of this connection */
    uint8_t shared[crypto_box_BEFORENMBYTES];         /* of e_secret and s_public: a flood cannot afford X25519 per message */
    uint64_t nonce;
    uint8_t in[65536];
    size_t in_n;
    enum { CURVE_GREETING, CURVE_WELCOME, CURVE_READY, CURVE_OPEN } state;
};

static inline bool curve_write(const struct curve *c, const void *p, size_t n)
{
    const uint8_t *at = p;
    while (n > 0) {
        const ssize_t w = send(c->fd, at, n, MSG_NOSIGNAL);
        struct pollfd ready = { .fd = c->fd, .events = POLLOUT | POLLRDHUP };
        if (w < 0 && (errno == EAGAIN || errno == EINTR)) { /* the other end is a thread of its own, or has gone */
            if (poll(&ready, 1, 1000) > 0 && ready.revents & (POLLRDHUP | POLLERR | POLLHUP))
                return false;
            continue;
        }
        if (w <= 0)
            return false;
        at += w;
        n -= (size_t)w;
    }
    return true;
}

static inline void curve_nonce(uint8_t out[24], const char *prefix, uint64_t counter)
{
    memcpy(out, prefix, 16);
    for (int i = 0; i < 8; i++)
        out[16 + i] = (uint8_t)(counter >> (56 - 8 * i));
}

static inline bool curve_frame(struct curve *c, uint8_t flags, const uint8_t *body, size_t n)
{
    uint8_t head[9] = { (uint8_t)(flags | (n > 255 ? 2 : 0)) };
    if (n <= 255)
        head[1] = (uint8_t)n;
    else
        for (int i = 0; i < 8; i++)
            head[1 + i] = (uint8_t)((uint64_t)n >> (56 - 8 * i));
    return curve_write(c, head, n <= 255 ? 2 : 9) && curve_write(c, body, n);
}

static inline bool curve_hello(struct curve *c)
{
    uint8_t body[200] = "\x05HELLO", nonce[24], zeros[64] = { 0 };
    body[6] = 1;
    memcpy(body + 80, c->e_public, 32);
    curve_nonce(nonce, "CurveZMQHELLO---", ++c->nonce);
    memcpy(body + 112, nonce + 16, 8);
    return crypto_box_easy(body + 120, zeros, 64, nonce, c->server, c->e_secret) == 0 && curve_frame(c, 4, body, 200);
}

static inline bool curve_initiate(struct curve *c, const uint8_t *welcome)
{
    static const uint8_t metadata[] = "\x0bSocket-Type\0\0\0\x06" "DEALER\x08Identity\0\0\0"; /* its own NUL ends Identity's length */
    uint8_t nonce[24], plain[128], box[32 + 16 + 80 + sizeof metadata], body[9 + 96 + 8 + 16 + sizeof box], vouch[64];
    memcpy(nonce, "WELCOME-", 8);
    memcpy(nonce + 8, welcome + 8, 16);
    if (crypto_box_open_easy(plain, welcome + 24, 144, nonce, c->server, c->e_secret) != 0)
        return false;
    memcpy(c->s_public, plain, 32);
    if (crypto_box_beforenm(c->shared, c->s_public, c->e_secret) != 0)
        return false;
    memcpy(vouch, c->e_public, 32);
    memcpy(vouch + 32, c->server, 32);
    memcpy(nonce, "VOUCH---", 8);
    randombytes_buf(nonce + 8, 16);
    memcpy(box, c->c_public, 32);
    memcpy(box + 32, nonce + 8, 16);
    if (crypto_box_easy(box + 48, vouch, 64, nonce, c->s_public, c->c_secret) != 0)
        return false;
    memcpy(box + 128, metadata, sizeof metadata);
    memcpy(body, "\x08INITIATE", 9);
    memcpy(body + 9, plain + 32, 96);
    curve_nonce(nonce, "CurveZMQINITIATE", ++c->nonce);
    memcpy(body + 105, nonce + 16, 8);
    return crypto_box_easy(body + 113, box, sizeof box, nonce, c->s_public, c->e_secret) == 0 && curve_frame(c, 4, body, sizeof body);
}

enum { CURVE_PART_MAX = 40000 };

/* One part of a message. */
static inline bool curve_send(struct curve *c, const void *p, size_t n, bool more)
{
    uint8_t plain[CURVE_PART_MAX + 1], body[8 + 8 + 16 + sizeof plain], nonce[24];
    if (n + 1 > sizeof plain)
        return false;
    plain[0] = more;
    memcpy(plain + 1, p, n);
    memcpy(body, "\x07MESSAGE", 8);
    curve_nonce(nonce, "CurveZMQMESSAGEC", ++c->nonce);
    memcpy(body + 8, nonce + 16, 8);
    return crypto_box_easy_afternm(body + 16, plain, n + 1, nonce, c->shared) == 0 && curve_frame(c, 0, body, n + 33);
}

/* Takes n bytes of what came in, if there are as many. */
static inline bool curve_take(struct curve *c, uint8_t *out, size_t n)
{
    if (c->in_n < n)
        return false;
    memcpy(out, c->in, n);
    memmove(c->in, c->in + n, c->in_n - n);
    c->in_n -= n;
    return true;
}

/* One whole short frame: its body. */
static inline size_t curve_body(struct curve *c, uint8_t out[256])
{
    uint8_t head[2];
    if (c->in_n < 2 || (c->in[0] & 2) != 0 || c->in_n < 2u + c->in[1])
        return 0;
    (void)curve_take(c, head, 2);
    (void)curve_take(c, out, head[1]);
    return head[1];
}

static inline bool curve_start(struct curve *c, uint16_t port, const uint8_t server[32])
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    uint8_t greeting[64] = { 0xff, [9] = 0x7f, [10] = 3 };
    memset(c, 0, sizeof *c);
    memcpy(c->server, server, 32);
    memcpy(greeting + 12, "CURVE", 5);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return c->fd >= 0 && crypto_box_keypair(c->c_public, c->c_secret) == 0 && crypto_box_keypair(c->e_public, c->e_secret) == 0 &&
           connect(c->fd, (struct sockaddr *)&to, sizeof to) == 0 && fcntl(c->fd, F_SETFL, O_NONBLOCK) == 0 &&
           curve_write(c, greeting, sizeof greeting);
}

/* Reads what there is and moves on; false: the other end closed. */
static inline bool curve_step(struct curve *c)
{
    uint8_t body[256];
    const ssize_t n = recv(c->fd, c->in + c->in_n, sizeof c->in - c->in_n, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        return false;
    c->in_n += n > 0 ? (size_t)n : 0;
    if (c->state == CURVE_GREETING && curve_take(c, body, 64)) {
        c->state = CURVE_WELCOME;
        return curve_hello(c);
    }
    if (c->state == CURVE_WELCOME && curve_body(c, body)) {
        c->state = CURVE_READY;
        return memcmp(body, "\x07WELCOME", 8) == 0 && curve_initiate(c, body);
    }
    if (c->state == CURVE_READY && curve_body(c, body)) {
        c->state = CURVE_OPEN;
        return memcmp(body, "\x05READY", 6) == 0;
    }
    return true;
}

/* The next message (short, one part): its bytes; 0: none yet. */
static inline size_t curve_recv(struct curve *c, uint8_t out[256])
{
    uint8_t body[256], nonce[24], plain[256];
    const size_t n = curve_step(c) && c->state == CURVE_OPEN ? curve_body(c, body) : 0;
    if (n < 33 || memcmp(body, "\x07MESSAGE", 8) != 0)
        return 0;
    memcpy(nonce, "CurveZMQMESSAGES", 16);
    memcpy(nonce + 16, body + 8, 8);
    if (crypto_box_open_easy(plain, body + 16, n - 16, nonce, c->s_public, c->e_secret) != 0)
        return 0;
    memcpy(out, plain + 1, n - 33);
    return n - 33;
}
#endif
