/* Attacks on a link that is up: frames that are wrong, too many, or promise what is not there. */
#include "attack.h"
#include "peer/join.h"
#include "peer/join_in.h"
#include <stdlib.h>

static void random_frame(uint8_t *out, size_t n, uint8_t type)
{
    randombytes_buf(out, n);
    out[0] = type;
}

static void put_entry(uint8_t *out, const uint8_t machine[32], uint64_t count, uint64_t cut)
{
    memcpy(out, machine, 32);
    bytes_put_le(out + 32, count, 8);
    randombytes_buf(out + 40, 32);
    bytes_put_le(out + 72, cut, 8);
}

/* A fresh link, counted. */
static bool relink(struct foe *f, const struct target *t, struct report *r)
{
    const bool up = foe_link(f, t, NULL);
    r->links += up;
    return up;
}

/* n bytes of one frame on a link of its own: does it end it? */
static bool ends_link(const struct target *t, struct report *r, const uint8_t *p, size_t n, uint32_t times)
{
    struct foe f;
    bool ended = false;
    if (relink(&f, t, r)) {
        for (uint32_t i = 0; i < times; i++)
            r->sent += foe_send(&f, p, n, false);
        ended = foe_refused(&f, FOE_S);
        r->refused += ended;
    }
    foe_end(&f);
    return ended;
}

/* n frames of every type and length, and as many links as it takes. */
static void invented(const struct target *t, struct report *r, uint32_t n)
{
    static uint8_t frame[LIMIT_FRAME_BYTES], in[CURVE_PART_MAX];
    struct foe f = {.closed = true};
    f.c.fd = -1;
    for (uint32_t i = 0; i < n; i++) {
        const size_t bytes = 1 + randombytes_uniform(i % 8 ? 200 : LIMIT_FRAME_BYTES - 1);
        if (f.closed) {
            foe_end(&f);
            if (!relink(&f, t, r))
                break;
        }
        random_frame(frame, bytes, (uint8_t)(1 + (i % 4 ? randombytes_uniform(19) : randombytes_uniform(254))));
        r->sent += foe_send(&f, frame, bytes, false);
        r->tried++;
        while (foe_recv(&f, in) > 0)
            continue;
        r->refused += f.closed;
    }
    foe_end(&f);
}

bool attack_frames(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    static uint8_t frame[CURVE_PART_MAX];
    (void)seconds;
    random_frame(frame, sizeof frame, 40);
    const bool longer = ends_link(t, r, frame, LIMIT_FRAME_BYTES + 1, 1), longest = ends_link(t, r, frame, sizeof frame, 1);
    random_frame(frame, 3, WIRE_SUMMARY);
    const bool faults = ends_link(t, r, frame, 3, LIMIT_FAULTS);
    random_frame(frame, 200, WIRE_CONTROL);
    frame[1] = NET_RETRACT;
    const bool control = ends_link(t, r, frame, 1 + 1 + 32 + 8 + 64, 1);
    invented(t, r, n);
    return unless(r, !longer || !longest, "a frame over the limit did not end the link") &&
           unless(r, !faults, "malformed frames did not end the link") &&
           unless(r, !control, "a retraction that the owner did not sign did not end the link");
}

bool attack_multipart(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    static const uint8_t part[1000];
    struct foe f;
    bool two = false, endless = false;
    (void)seconds;
    (void)n;
    r->tried = 2;
    if (relink(&f, t, r)) {
        (void)(foe_send(&f, "a", 1, true) && foe_send(&f, "b", 1, false));
        two = foe_refused(&f, FOE_S);
    }
    foe_end(&f);
    if (relink(&f, t, r)) {
        for (int i = 0; i < 20000 && !f.closed; i++)
            r->sent += foe_send(&f, part, sizeof part, true);
        endless = foe_refused(&f, FOE_S);
    }
    foe_end(&f);
    r->refused = (uint64_t)two + endless;
    return unless(r, !two, "a message in two parts did not end the link") && unless(r, !endless, "parts without end did not end the link");
}

/* ---- lies about who holds what ---- */

enum { KNOWN = 16 };
struct liar {
    struct foe f;
    uint8_t known[KNOWN][32]; /* machines the peer told of */
    uint32_t n_known;
};

static void meet(struct liar *l, const uint8_t machine[32])
{
    for (uint32_t i = 0; i < l->n_known; i++)
        if (memcmp(l->known[i], machine, 32) == 0)
            return;
    memcpy(l->known[l->n_known < KNOWN ? l->n_known++ : randombytes_uniform(KNOWN)], machine, 32);
}

static void lie_to(struct liar *l, struct report *r, const uint8_t *in, size_t n)
{
    uint8_t out[33 + 40 * LIMIT_ASK_SEQS];
    if (in[0] == WIRE_PULL && n >= 33) {
        meet(l, in + 1);
        out[0] = r->sent % 3 ? WIRE_NOHEAD : WIRE_DONE;
        put_entry(out + 1, in + 1, UINT64_C(1) << 40, UINT64_MAX);
        r->sent += foe_send(&l->f, out, 1 + WIRE_ENTRY, false);
    } else if (in[0] == WIRE_ASK && n >= 41) {
        const size_t asked = (n - 33) / 8;
        memcpy(out, in, 33);
        out[0] = WIRE_TELL;
        for (size_t i = 0; i < asked; i++) {
            memcpy(out + 33 + 40 * i, in + 33 + 8 * i, 8);
            randombytes_buf(out + 41 + 40 * i, 32);
        }
        r->sent += foe_send(&l->f, out, 33 + 40 * asked, false);
    } else if (in[0] == WIRE_SEGMENT_OF && n > 33) {
        meet(l, in + 1);
    } else if (in[0] == WIRE_HAVE || in[0] == WIRE_ENTRIES) {
        for (size_t at = in[0] == WIRE_HAVE ? 1 : 65; at + WIRE_ENTRY <= n; at += WIRE_ENTRY)
            meet(l, in + at);
    }
}

/* For some seconds: every feed is longer here, under a head nobody knows, and some have a lower cut. */
bool attack_liar(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    static uint8_t in[CURVE_PART_MAX];
    static struct liar l;
    uint8_t out[1 + WIRE_ENTRY] = {WIRE_HAVE};
    double next = 0;
    (void)n;
    if (!relink(&l.f, t, r))
        return unless(r, true, "no link");
    for (const double end = foe_seconds() + seconds; foe_seconds() < end && !l.f.closed;) {
        const size_t bytes = foe_recv(&l.f, in);
        if (bytes > 0)
            lie_to(&l, r, in, bytes);
        else
            foe_nap();
        if (foe_seconds() < next)
            continue;
        next = foe_seconds() + 0.02;
        uint8_t nobody[32];
        randombytes_buf(nobody, 32);
        const uint32_t who = randombytes_uniform(l.n_known + 1);
        put_entry(out + 1, who < l.n_known ? l.known[who] : nobody, UINT64_C(1) << (10 + who % 30), who % 5 == 4 ? 3 : UINT64_MAX);
        r->sent += foe_send(&l.f, out, sizeof out, false);
        r->tried++;
    }
    const bool closed = l.f.closed;
    foe_end(&l.f);
    return unless(r, closed, "the link was closed: a lie about holdings is waited out, not punished"); /* it may be an honest mistake */
}

/* ---- too many questions ---- */

static size_t request(uint8_t *out, const uint8_t machine[32], uint64_t i)
{
    memset(out, 0, 256);
    switch (i % 8) {
    case 0:
        out[0] = WIRE_ASK;
        memcpy(out + 1, machine, 32);
        return 33 + 8 * LIMIT_ASK_SEQS;
    case 1:
        out[0] = WIRE_WANT;
        memcpy(out + 1, machine, 32);
        return 33;
    case 2:
        random_frame(out, 1 + 16 + 16, WIRE_SUMMARY);
        return 1 + 16 + 16;
    case 3:
        out[0] = JOIN_WANT_CHUNK;
        return JOIN_WANT_CHUNK_BYTES;
    case 4:
        out[0] = JOIN_WANT_MANIFEST;
        return JOIN_WANT_MANIFEST_BYTES;
    default:
        out[0] = WIRE_PULL;
        memcpy(out + 1, machine, 32);
        memset(out + 73, 0xff, 12);
        return 1 + WIRE_ENTRY + 4;
    }
}

/* As fast as the peer takes them; a second link asks as much and never reads an answer. */
bool attack_requests(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    static uint8_t in[CURVE_PART_MAX];
    uint8_t out[256];
    struct foe f, deaf;
    (void)n;
    if (!relink(&deaf, t, r) || !relink(&f, t, r))
        return unless(r, true, "no link");
    for (uint64_t i = 0; i < 2000 && !deaf.closed; i++)
        r->sent += foe_send(&deaf, out, request(out, deaf.peer, i), false);
    const double end = foe_seconds() + seconds;
    for (; foe_seconds() < end || (r->refused == 0 && foe_seconds() < end + FOE_S); r->tried++) {
        r->sent += foe_send(&f, out, request(out, f.peer, r->tried), false);
        while (r->tried % 16 == 0 && foe_recv(&f, in) > 0)
            continue;
        if (!f.closed)
            continue;
        r->refused++;
        foe_end(&f);
        if (!relink(&f, t, r))
            break;
    }
    foe_end(&f);
    foe_end(&deaf);
    return unless(r, r->refused == 0, "nobody who asks that much was shown out");
}

/* The first window of the first chunk, asked for again as soon as it is there, until the peer says that it is enough. */
bool attack_downloads(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    static uint8_t in[CURVE_PART_MAX];
    uint8_t want[JOIN_WANT_CHUNK_BYTES] = {JOIN_WANT_CHUNK, 1}; /* the weights, between config.json and tokenizer.json */
    struct foe f;
    uint64_t got = 0, asked = 0;
    bool none = false;
    (void)n;
    if (!relink(&f, t, r))
        return unless(r, true, "no link");
    for (const double end = foe_seconds() + seconds; !none && !f.closed && foe_seconds() < end;) {
        if (got == asked) { /* all of the last window */
            r->sent += foe_send(&f, want, sizeof want, false);
            asked += PEER_WINDOW_BYTES;
        }
        const size_t bytes = foe_recv(&f, in);
        if (bytes == 0)
            foe_nap();
        else if (in[0] == JOIN_CHUNK)
            got += bytes - JOIN_CHUNK_HEAD;
        none = bytes > 0 && in[0] == JOIN_NONE;
    }
    r->tried = got;
    r->refused = none;
    foe_end(&f);
    return unless(r, !none, "a stranger may download without end");
}

/* n frames of 96 machines that do not exist, in order, so that each frame is well formed. */
bool attack_frontiers(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    static uint8_t in[CURVE_PART_MAX], out[1 + 64 + WIRE_ENTRIES_MAX * WIRE_ENTRY];
    struct foe f;
    (void)seconds;
    if (!relink(&f, t, r))
        return unless(r, true, "no link");
    for (uint32_t k = 0; k < n && !f.closed; k++) {
        out[0] = WIRE_ENTRIES;
        memset(out + 1, 0, 32);
        memset(out + 33, 0xff, 32);
        for (uint32_t i = 0; i < WIRE_ENTRIES_MAX; i++) {
            uint8_t machine[32];
            randombytes_buf(machine, 32);
            machine[0] = (uint8_t)(2 * i + 1);
            put_entry(out + 65 + i * WIRE_ENTRY, machine, 1 + randombytes_uniform(1u << 30), i % 3 ? UINT64_MAX : 5);
        }
        r->sent += foe_send(&f, out, sizeof out, false);
        r->tried += WIRE_ENTRIES_MAX;
        while (foe_recv(&f, in) > 0)
            continue;
    }
    r->refused = f.closed;
    foe_end(&f);
    return true; /* to be borne or cut; what matters is memory and the others */
}

/* Answers to questions nobody asked here, with sizes that are not meant. */
bool attack_garbage(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    static const uint8_t types[] = {JOIN_MANIFEST, JOIN_CHUNK, JOIN_NONE, 69, 70, 71, 72, 73, 80};
    static uint8_t in[CURVE_PART_MAX], frame[JOIN_PIECE + 100];
    struct foe f;
    (void)seconds;
    if (!relink(&f, t, r))
        return unless(r, true, "no link");
    for (uint32_t i = 0; i < n; i++) {
        const size_t bytes = 1 + randombytes_uniform(i % 2 ? 120 : sizeof frame - 1);
        random_frame(frame, bytes, types[i % ARRAY_LEN(types)]);
        if (i % 4 == 1 && bytes > 17)
            memset(frame + 1, i % 8 == 1 ? 0 : 0xff, 16);
        r->sent += foe_send(&f, frame, bytes, false);
        r->tried++;
        while (foe_recv(&f, in) > 0)
            continue;
        if (f.closed) {
            r->refused++;
            foe_end(&f);
            if (!relink(&f, t, r))
                break;
        }
    }
    foe_end(&f);
    return true;
}

/* ---- the flood ---- */

enum { STUCK_S = 4 };
struct flooder {
    struct foe f;
    struct chain chain;
    uint8_t out[65536];
    size_t out_n, out_at;
    uint64_t turn;
    double moved; /* when it last took a byte */
};

/* A message into the buffer, encrypted: what does not go out now goes out later. */
static void queue(struct flooder *w, const uint8_t *p, size_t n)
{
    uint8_t plain[2048], nonce[24], *body = w->out + w->out_n + 9;
    const size_t body_n = 33 + n;
    plain[0] = 0;
    memcpy(plain + 1, p, n);
    w->out[w->out_n] = 2;
    for (int i = 0; i < 8; i++)
        w->out[w->out_n + 1 + (size_t)i] = (uint8_t)((uint64_t)body_n >> (56 - 8 * i));
    memcpy(body, "\x07MESSAGE", 8);
    curve_nonce(nonce, "CurveZMQMESSAGEC", ++w->f.c.nonce);
    memcpy(body + 8, nonce + 16, 8);
    if (crypto_box_easy_afternm(body + 16, plain, n + 1, nonce, w->f.c.shared) == 0)
        w->out_n += 9 + body_n;
}

/* Good-looking, and never enough to be blamed for one of them: signed segments (void: there is nothing to fold), questions, frames of
 * a later version, PONGs. */
static void fill(struct flooder *w, const struct target *t, struct report *r)
{
    uint8_t frame[1 + 36 + NET_SEGMENT_BYTES_MAX];
    for (; w->out_n + 2200 < sizeof w->out; w->turn++) {
        size_t n = 33;
        if (w->turn % 16 == 0) {
            n = chain_next(frame, &w->chain, t->rules, &(struct shape){.count = t->rules->k, .void_all = true}, true);
        } else if (w->turn % 16 < 4) {
            n = request(frame, w->f.peer, w->turn);
        } else if (w->turn % 2) {
            random_frame(frame, n, 40);
        } else {
            random_frame(frame, n = 10, NET_FRAME_RESERVED);
            frame[1] = NOTE_PONG;
        }
        queue(w, frame, n);
        r->sent++;
    }
}

static void flood_turn(struct flooder *w, const struct target *t, struct report *r)
{
    static uint8_t in[CURVE_PART_MAX];
    for (int i = 0; i < 32 && foe_recv(&w->f, in) > 0; i++)
        continue;
    const bool stuck = foe_seconds() - w->moved > STUCK_S; /* held back: another key, then */
    if (w->f.closed || w->f.bye || stuck) {
        r->refused += w->f.c.fd > 0;
        foe_end(&w->f);
        w->out_n = w->out_at = 0;
        r->links += foe_link(&w->f, t, NULL);
        w->moved = foe_seconds();
        w->chain = (struct chain){.id = &w->f.id};
        if (w->f.bye || w->f.closed)
            return;
    }
    fill(w, t, r);
    const ssize_t sent = send(w->f.c.fd, w->out + w->out_at, w->out_n - w->out_at, MSG_NOSIGNAL);
    if (sent > 0) {
        w->out_at += (size_t)sent;
        w->moved = foe_seconds();
    } else if (errno != EAGAIN && errno != EINTR)
        w->f.closed = true;
    if (w->out_at == w->out_n)
        w->out_at = w->out_n = 0;
}

bool attack_flood(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    struct flooder *w = calloc(n, sizeof *w);
    for (uint32_t i = 0; w && i < n; i++) {
        r->links += foe_link(&w[i].f, t, NULL);
        w[i].chain = (struct chain){.id = &w[i].f.id};
    }
    for (uint32_t i = 0; w && i < n; i++)
        w[i].moved = foe_seconds();
    for (const double end = foe_seconds() + seconds; w && foe_seconds() < end;)
        for (uint32_t i = 0; i < n && foe_seconds() < end; i++)
            flood_turn(&w[i], t, r);
    for (uint32_t i = 0; w && i < n; i++)
        foe_end(&w[i].f);
    free(w);
    r->tried = r->sent;
    return unless(r, r->links == 0, "no link");
}
