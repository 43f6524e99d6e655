/* The transport's own messages and what is signed: net/transport.h says how they follow one
 * another.  Pure. */
#include "net/transport_private.h"
#include <onebyte/base/bytes.h>
#include <sodium.h>
#include <string.h>

/* Bytes after the two that every message starts with (255, kind). */
static size_t body_bytes(enum note_kind kind)
{
    switch (kind) {
    case NOTE_HELLO:
        return 1 + 32 + 2; /* version, nonce, port */
    case NOTE_PROVE:
        return 32 + 32 + 2 + 64; /* id, nonce, port, signature */
    case NOTE_CERT:
        return 32 + 64; /* id, signature */
    case NOTE_UP:
        return 0;
    case NOTE_BYE:
        return 1;
    case NOTE_PING:
    case NOTE_PONG:
        return 8;
    }
    return SIZE_MAX - 2;
}

size_t note_write(uint8_t out[NOTE_BYTES_MAX], const struct note *n)
{
    uint8_t *w = out + 2;
    out[0] = NET_FRAME_RESERVED;
    out[1] = (uint8_t)n->kind;
    switch (n->kind) {
    case NOTE_HELLO:
        w[0] = NOTE_VERSION;
        memcpy(w + 1, n->nonce, 32);
        bytes_put_le(w + 33, n->port, 2);
        break;
    case NOTE_PROVE:
        memcpy(w, n->id, 32);
        memcpy(w + 32, n->nonce, 32);
        bytes_put_le(w + 64, n->port, 2);
        memcpy(w + 66, n->sig, 64);
        break;
    case NOTE_CERT:
        memcpy(w, n->id, 32);
        memcpy(w + 32, n->sig, 64);
        break;
    case NOTE_UP:
        break;
    case NOTE_BYE:
        w[0] = n->bye;
        break;
    case NOTE_PING:
    case NOTE_PONG:
        bytes_put_le(w, n->stamp, 8);
        break;
    }
    const size_t bytes = 2 + body_bytes(n->kind);
    ENSURE(bytes <= NOTE_BYTES_MAX);
    return bytes;
}

enum err note_parse(struct note *n, const uint8_t *p, size_t bytes)
{
    struct note got;
    memset(&got, 0, sizeof got);
    if (bytes < 2 || p[0] != NET_FRAME_RESERVED || p[1] < NOTE_HELLO || p[1] > NOTE_PONG)
        return ERR_PROTO;
    got.kind = (enum note_kind)p[1];
    if (bytes != 2 + body_bytes(got.kind))
        return ERR_PROTO;
    p += 2;
    switch (got.kind) {
    case NOTE_HELLO:
        if (p[0] != NOTE_VERSION)
            return ERR_PROTO;
        memcpy(got.nonce, p + 1, 32);
        got.port = (uint16_t)bytes_get_le(p + 33, 2);
        break;
    case NOTE_PROVE:
        memcpy(got.id, p, 32);
        memcpy(got.nonce, p + 32, 32);
        got.port = (uint16_t)bytes_get_le(p + 64, 2);
        memcpy(got.sig, p + 66, 64);
        break;
    case NOTE_CERT:
        memcpy(got.id, p, 32);
        memcpy(got.sig, p + 32, 64);
        break;
    case NOTE_UP:
        break;
    case NOTE_BYE:
        got.bye = p[0];
        break;
    case NOTE_PING:
    case NOTE_PONG:
        got.stamp = bytes_get_le(p, 8);
        break;
    }
    *n = got;
    return ERR_OK;
}

/* The tags differ, so that no signature of one role can stand in for the other's. */
static size_t parts_of(struct net_part parts[7], const struct transcript *t)
{
    static const char listener[] = "onebyte/1 listener",
                      dialler[] = "onebyte/1 dialler"; /* with their NULs */
    size_t n = 0;
    parts[n++] = t->dialler ? (struct net_part){dialler, sizeof dialler}
                            : (struct net_part){listener, sizeof listener};
    parts[n++] = (struct net_part){t->run_id, 32};
    parts[n++] = (struct net_part){t->k, 32};
    parts[n++] = (struct net_part){t->nonce_c, 32};
    parts[n++] = (struct net_part){t->nonce_s, 32};
    parts[n++] = (struct net_part){t->listener, 32};
    if (t->dialler)
        parts[n++] = (struct net_part){t->dialler, 32};
    return n;
}

void proof_sign(uint8_t sig[64], const struct net_identity *i, const struct transcript *t)
{
    struct net_part parts[7];
    const size_t n = parts_of(parts, t);
    net_sign(sig, i, parts, n);
}

enum err proof_check(const uint8_t sig[64], const struct transcript *t)
{
    struct net_part parts[7];
    const size_t n = parts_of(parts, t);
    return net_verify(sig, t->dialler ? t->dialler : t->listener, parts, n);
}

void proof_run_key(uint8_t public_key[32], uint8_t secret_key[32], const uint8_t run_id[32])
{
    static const char tag[] = "onebyte/1 curve";
    const struct net_part parts[] = {{tag, sizeof tag}, {run_id, 32}};
    net_hash(secret_key, parts, ARRAY_LEN(parts));
    ENSURE(crypto_scalarmult_base(public_key, secret_key) == 0); /* clamps the scalar itself */
}

size_t wire_bytes(size_t n)
{
    const size_t body = 8 + 8 + 16 + 1 + n; /* "\7MESSAGE", nonce, MAC, flags: CurveZMQ */
    return body + (body <= 255 ? 2 : 9);    /* ZMTP: short or long frame */
}
