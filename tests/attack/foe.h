/* tests/attack/foe.h -- one hostile connection: real ZMTP, real CURVE, real proofs, and then whatever it likes.
 *
 * Everything is by hand (tests/net/curve_client.h), because ZeroMQ's own socket would not send most of it.  Blocking calls wait at
 * most FOE_S; what the other end does with us is a result, never a failure of the program. */
#ifndef TESTS_ATTACK_FOE_H
#define TESTS_ATTACK_FOE_H
#include "net/transport_private.h"
#include "net/wire.h"
#include "tests/net/curve_client.h"
#include <onebyte/base/bytes.h>
#include <onebyte/net/rules.h>
#include <onebyte/net/segment.h>
#include <time.h>

enum { FOE_S = 30 }; /* generous: a busy machine must not turn a refusal into a failure */

struct target {
    const struct net_rules *rules;
    uint16_t port, port_2; /* of two honest peers; the same if only one is named */
};

struct foe {
    struct curve c;
    struct net_identity id;
    uint8_t peer[32]; /* the machine that answered */
    bool closed;      /* by the other end */
    uint8_t bye;      /* its reason, if it gave one */
    uint64_t sent, received;
};

static inline double foe_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline void foe_nap(void)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* One whole ZMTP frame of what came in: its body; 0: none yet. */
static inline size_t foe_body(struct curve *c, uint8_t *out, size_t room)
{
    const bool large = c->in_n > 0 && c->in[0] & 2;
    const size_t head = large ? 9 : 2;
    uint64_t n = 0;
    if (c->in_n < head)
        return 0;
    for (size_t i = 1; i < head; i++)
        n = n << 8 | c->in[i];
    if (n > room || c->in_n < head + n)
        return 0;
    memcpy(out, c->in + head, n);
    memmove(c->in, c->in + head + n, c->in_n - head - n);
    c->in_n -= head + n;
    return n;
}

/* The next message: its bytes; 0: none now.  The transport's BYE is noted. */
static inline size_t foe_recv(struct foe *f, uint8_t out[CURVE_PART_MAX])
{
    static uint8_t body[CURVE_PART_MAX + 64], plain[CURVE_PART_MAX + 64];
    uint8_t nonce[24];
    size_t n = foe_body(&f->c, body, sizeof body);
    if (n == 0 && !f->closed) {
        f->closed = !curve_step(&f->c);
        n = foe_body(&f->c, body, sizeof body);
    }
    if (n < 33 || memcmp(body, "\x07MESSAGE", 8) != 0)
        return 0;
    memcpy(nonce, "CurveZMQMESSAGES", 16);
    memcpy(nonce + 16, body + 8, 8);
    if (crypto_box_open_easy_afternm(plain, body + 16, n - 16, nonce, f->c.shared) != 0)
        return 0;
    memcpy(out, plain + 1, n - 33);
    f->received++;
    if (n - 33 >= 3 && out[0] == NET_FRAME_RESERVED && out[1] == NOTE_BYE)
        f->bye = out[2];
    return n - 33;
}

/* A part or whole message; false: the other end closed. */
static inline bool foe_send(struct foe *f, const void *p, size_t n, bool more)
{
    if (f->closed || !curve_send(&f->c, p, n, more)) {
        f->closed = true;
        return false;
    }
    f->sent++;
    return true;
}

static inline bool foe_note(struct foe *f, const struct note *n)
{
    uint8_t out[NOTE_BYTES_MAX];
    const size_t bytes = note_write(out, n);
    return foe_send(f, out, bytes, false);
}

/* TCP and CURVE.  server NULL: the run's own key, as everybody who knows the run has it. */
static inline bool foe_dial(struct foe *f, const struct target *t, const uint8_t *server)
{
    uint8_t run_key[32], secret[32];
    proof_run_key(run_key, secret, t->rules->run_id);
    memset(f, 0, sizeof *f);
    if (!curve_start(&f->c, t->port, server ? server : run_key)) {
        f->closed = true;
        return false;
    }
    for (const double end = foe_seconds() + FOE_S; f->c.state != CURVE_OPEN && foe_seconds() < end; foe_nap())
        if (!curve_step(&f->c)) {
            f->closed = true;
            return false;
        }
    return f->c.state == CURVE_OPEN;
}

/* The next transport message of this kind; false: it did not come, or BYE did. */
static inline bool foe_wait_note(struct foe *f, enum note_kind kind, struct note *n)
{
    static uint8_t in[CURVE_PART_MAX];
    for (const double end = foe_seconds() + FOE_S; foe_seconds() < end;) {
        const size_t bytes = foe_recv(f, in);
        if (bytes > 0 && note_parse(n, in, bytes) == ERR_OK && n->kind == kind)
            return true;
        if (f->bye || (f->closed && bytes == 0))
            return false;
        if (bytes == 0)
            foe_nap();
    }
    return false;
}

/* Ways to get the certificate wrong; PROOF_GOOD: none. */
enum proof_lie { PROOF_GOOD, PROOF_OTHER_KEY, PROOF_OTHER_TIME, PROOF_OTHER_RUN, PROOF_OTHER_SIGNER, PROOF_BENT, PROOF_LIES };

/* Proves `id` on an open channel; true: it is a link. */
static inline bool foe_prove(struct foe *f, const struct target *t, const struct net_identity *id, enum proof_lie lie)
{
    struct note hello = {.kind = NOTE_HELLO}, prove, cert = {.kind = NOTE_CERT}, up;
    uint8_t k[32], nonce[32], run[32];
    struct net_identity other = {.sk = NULL};
    if (!foe_note(f, &hello) || !foe_wait_note(f, NOTE_PROVE, &prove))
        return false;
    memcpy(f->peer, prove.id, 32);
    memcpy(k, f->c.c_public, 32);
    memcpy(nonce, prove.nonce, 32);
    memcpy(run, t->rules->run_id, 32);
    k[0] ^= lie == PROOF_OTHER_KEY;
    nonce[0] ^= lie == PROOF_OTHER_TIME;
    run[0] ^= lie == PROOF_OTHER_RUN;
    if (lie == PROOF_OTHER_SIGNER && net_identity_new(&other) != ERR_OK)
        return false;
    memcpy(cert.id, id->id, 32);
    proof_sign(cert.sig, other.sk ? &other : id, &(struct transcript){run, k, hello.nonce, nonce, prove.id, id->id});
    net_identity_release(&other);
    cert.sig[9] ^= lie == PROOF_BENT;
    return foe_note(f, &cert) && foe_wait_note(f, NOTE_UP, &up);
}

/* A link under a fresh key (f->id), or under the given one. */
static inline bool foe_link(struct foe *f, const struct target *t, const struct net_identity *as)
{
    struct net_identity id = {.sk = NULL};
    if (!as && net_identity_new(&id) != ERR_OK)
        return false;
    const bool up = foe_dial(f, t, NULL) && foe_prove(f, t, as ? as : &id, PROOF_GOOD);
    f->id = id;
    return up;
}

static inline void foe_end(struct foe *f)
{
    if (f->c.fd > 0)
        (void)close(f->c.fd);
    net_identity_release(&f->id);
    f->c.fd = -1;
    f->closed = true;
}

/* Reads whatever comes until the other end says BYE or closes; true: it did, within the time. */
static inline bool foe_refused(struct foe *f, double seconds)
{
    static uint8_t in[CURVE_PART_MAX];
    for (const double end = foe_seconds() + seconds; foe_seconds() < end;) {
        if (foe_recv(f, in) > 0)
            continue;
        if (f->closed || f->bye)
            return true;
        foe_nap();
    }
    return false;
}

/* ---- feeds ---- */

struct chain {
    const struct net_identity *id;
    uint8_t head[32];
    uint64_t end;
    uint32_t name;
};

struct shape { /* of a segment; zeros: an honest one */
    uint32_t count, step, lag;
    uint64_t first_seq;
    bool void_all, bent_prev, bent_sig, wrong_run, loud;
    uint64_t salt;
};

/* SEGMENT_OF with the next segment of the chain: frame bytes.  The chain moves on only if `keep`. */
static inline size_t chain_next(uint8_t frame[1 + 36 + NET_SEGMENT_BYTES_MAX], struct chain *c, const struct net_rules *r,
                                const struct shape *how, bool keep)
{
    struct net_rules rules = *r;
    struct net_segment s = {.first_seq = how->first_seq ? how->first_seq : c->end, .loss_f16 = 0x4200, .r_f16 = 0x3800};
    uint8_t id[32];
    s.count = (uint16_t)(how->count ? how->count : 8 * r->k);
    s.lag = how->lag ? how->lag : s.count;
    s.step = how->step;
    memcpy(s.prev, c->head, 8);
    s.prev[3] ^= how->bent_prev;
    for (uint32_t i = 0; i < s.count && i < LIMIT_SEGMENT_COUNT; i++)
        s.codes[i] = how->void_all ? -128 : how->loud ? (int8_t)(i % 2 ? 127 : -127) : (int8_t)(randombytes_uniform(64) - 32);
    bytes_put_le(s.binding, how->salt, 8);
    rules.run_id[5] ^= how->wrong_run;
    net_segment_sign(&s, &rules, c->id, c->head);
    s.sig[7] ^= how->bent_sig;
    net_segment_id(id, &s, r->run_id, c->id->id, c->head);
    frame[0] = WIRE_SEGMENT_OF;
    memcpy(frame + 1, c->id->id, 32);
    bytes_put_le(frame + 33, c->name, 4);
    const size_t n = 37 + net_segment_write(frame + 37, &s);
    if (keep) {
        memcpy(c->head, id, 32);
        c->end = s.first_seq + s.count;
    }
    return n;
}
#endif
