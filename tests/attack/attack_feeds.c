/* Attacks with signed data: feeds of other runs, of strangers, out of shape, over the share, forked. */
#include "attack.h"

enum { FRAME_ROOM = 1 + 36 + NET_SEGMENT_BYTES_MAX };

/* Sends the next segment of a fresh chain; true: it ended the link. */
static bool one_segment(const struct target *t, struct report *r, const struct shape *how)
{
    struct foe f;
    uint8_t frame[FRAME_ROOM];
    bool refused = false;
    r->tried++;
    if (foe_link(&f, t, NULL)) {
        struct chain c = {.id = &f.id};
        r->links++;
        const size_t n = chain_next(frame, &c, t->rules, how, true);
        r->sent += foe_send(&f, frame, n, false);
        refused = foe_refused(&f, FOE_S);
        r->refused += refused;
    }
    foe_end(&f);
    return refused;
}

bool attack_replay(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    struct net_identity id;
    struct foe f;
    uint8_t frame[FRAME_ROOM];
    (void)seconds;
    (void)n;
    if (net_identity_new(&id) != ERR_OK || !foe_link(&f, t, &id))
        return unless(r, true, "no link");
    struct chain c = {.id = &id};
    r->tried++;
    (void)foe_send(&f, frame, chain_next(frame, &c, t->rules, &(struct shape){.wrong_run = true}, true), false);
    const bool refused = foe_refused(&f, FOE_S);
    foe_end(&f);
    r->refused += refused;
    const bool again = foe_link(&f, t, &id); /* whoever sends what it cannot have verified is kept out for a while */
    const bool kept_out = f.bye == BYE_KEPT_OUT;
    foe_end(&f);
    net_identity_release(&id);
    return unless(r, !refused, "a segment of another run did not end the link") &&
           unless(r, again || !kept_out, "its sender was let in again at once");
}

/* Both halves of a proof, as a CONTROL frame. */
static size_t fork_frame(uint8_t *out, const struct net_identity *id, const struct net_rules *rules)
{
    uint8_t a[FRAME_ROOM], b[FRAME_ROOM];
    struct chain one = {.id = id}, two = one;
    const size_t n_a = chain_next(a, &one, rules, &(struct shape){.salt = 1}, true) - 37,
                 n_b = chain_next(b, &two, rules, &(struct shape){.salt = 2}, true) - 37;
    size_t at = 0;
    out[at++] = WIRE_CONTROL;
    out[at++] = NET_FORK;
    memcpy(out + at, id->id, 32);
    memset(out + at + 32, 0, 32);
    at += 64;
    bytes_put_le(out + at, n_a, 2);
    memcpy(out + at + 2, a + 37, n_a);
    at += 2 + n_a;
    bytes_put_le(out + at, n_b, 2);
    memcpy(out + at + 2, b + 37, n_b);
    return at + 2 + n_b;
}

/* n machines that nobody admitted, the first one on its own link, the others relayed by it; and a true fork proof about one. */
bool attack_strangers(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    struct foe f;
    uint8_t frame[2 * FRAME_ROOM + 128];
    (void)seconds;
    if (!foe_link(&f, t, NULL))
        return unless(r, true, "no link");
    for (uint32_t i = 0; i < n; i++) {
        struct net_identity other = {.sk = NULL};
        if (i > 0 && net_identity_new(&other) != ERR_OK)
            return false;
        struct chain c = {.id = i > 0 ? &other : &f.id, .name = i};
        for (int k = 0; k < 3; k++)
            r->sent += foe_send(&f, frame, chain_next(frame, &c, t->rules, &(struct shape){.salt = (uint64_t)k}, true), false);
        const size_t bytes = fork_frame(frame, c.id, t->rules);
        r->sent += foe_send(&f, frame, bytes, false);
        r->tried++;
        net_identity_release(&other);
    }
    const bool refused = foe_refused(&f, 1);
    foe_end(&f);
    return unless(r, refused, "a neighbour was blamed for passing on what is valid");
}

/* Frames that are no segment by their structure: eight of them end the link, one does not. */
static bool bent_segments(const struct target *t, struct report *r)
{
    struct foe f;
    uint8_t frame[FRAME_ROOM + 8];
    if (!foe_link(&f, t, NULL))
        return unless(r, true, "no link");
    struct chain c = {.id = &f.id};
    const size_t n = chain_next(frame, &c, t->rules, &(struct shape){.count = 16}, false);
    static const struct { size_t at; uint8_t value; } bends[] = {
        {37, 2}, {38, 1}, {39, 0}, {39, 17}, {40, 4}, {53, 1}, {48, 0xff}}; /* version, flags, count 0, 17, 1040, lag, first_seq */
    for (size_t i = 0; i < 2 * ARRAY_LEN(bends); i++) {
        uint8_t bent[FRAME_ROOM + 8];
        memcpy(bent, frame, n);
        bent[bends[i / 2].at] = bends[i / 2].value;
        r->tried++;
        r->sent += foe_send(&f, bent, i % 2 ? n : n - 1 - i, false);
    }
    const bool refused = foe_refused(&f, FOE_S);
    r->refused += refused;
    foe_end(&f);
    return unless(r, !refused, "malformed segments did not end the link");
}

bool attack_segments(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    struct foe f;
    uint8_t frame[FRAME_ROOM];
    (void)seconds;
    (void)n;
    const bool sig = one_segment(t, r, &(struct shape){.bent_sig = true});
    const bool k = t->rules->k == 1 || one_segment(t, r, &(struct shape){.count = t->rules->k + 1});
    if (!unless(r, !sig, "a bent signature did not end the link") || !unless(r, !k, "a count that K does not divide did not"))
        return false;
    if (!bent_segments(t, r) || !foe_link(&f, t, NULL))
        return false;
    struct chain c = {.id = &f.id};
    const struct shape odd[] = {{.bent_prev = true}, {.first_seq = 512 * t->rules->k}, {.first_seq = UINT64_C(1) << 60}};
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) /* whose place is unknown: pulled, not believed */
        r->sent += foe_send(&f, frame, chain_next(frame, &c, t->rules, &odd[i], false), false);
    const bool blamed = foe_refused(&f, 0.5);
    foe_end(&f);
    return unless(r, blamed, "a segment that does not fit blamed its sender");
}

/* n segments of full weight from one key, half of them declared at the last step, half far beyond it. */
bool attack_share(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    struct foe f;
    uint8_t frame[FRAME_ROOM];
    uint32_t count = t->rules->n0 < 1000 ? (uint32_t)t->rules->n0 : 1000;
    (void)seconds;
    count = count < t->rules->k ? t->rules->k : count - count % t->rules->k;
    if (!foe_link(&f, t, NULL))
        return unless(r, true, "no link");
    struct chain c = {.id = &f.id};
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t last = (uint32_t)t->rules->steps - 1;
        const struct shape how = {.count = count, .step = i % 2 ? UINT32_MAX : last, .loud = true};
        r->sent += foe_send(&f, frame, chain_next(frame, &c, t->rules, &how, true), false);
        r->tried++;
    }
    const bool refused = foe_refused(&f, 1);
    foe_end(&f);
    return unless(r, refused, "valid segments ended the link: what does not count is still relayed");
}

static bool tell(struct foe *to, struct report *r, struct chain *c, const struct net_rules *rules, uint32_t count, uint64_t salt)
{
    uint8_t frame[FRAME_ROOM];
    const struct shape how = {.count = count * rules->k, .salt = salt};
    const bool sent = foe_send(to, frame, chain_next(frame, c, rules, &how, true), false);
    r->sent += sent;
    return sent;
}

/* One machine's histories: kind 0 parts at the root, 1 after a shared segment, with splits that overlap and segments chained after
 * the fork; 2 three ways, and one of the branches parts again. */
static void fork_one(struct report *r, struct foe *a, struct foe *b, const struct net_identity *id, const struct net_rules *rules,
                     uint32_t i)
{
    struct chain x = {.id = id, .name = i}, y, z;
    if (i % 3 > 0) { /* the very same segment to both */
        uint8_t frame[FRAME_ROOM];
        const size_t bytes = chain_next(frame, &x, rules, &(struct shape){.count = 3 * rules->k, .salt = i}, true);
        r->sent += foe_send(a, frame, bytes, false);
        r->sent += foe_send(b, frame, bytes, false);
    }
    y = z = x;
    (void)tell(a, r, &x, rules, 4, 100 + i);
    (void)tell(a, r, &x, rules, 2, 101 + i);
    (void)tell(b, r, &y, rules, 5, 200 + i);
    (void)tell(b, r, &y, rules, 1, 201 + i);
    if (i % 3 == 2) {
        struct chain again = x;
        (void)tell(b, r, &z, rules, 2, 300 + i);
        (void)tell(a, r, &x, rules, 3, 302 + i);
        (void)tell(b, r, &again, rules, 1, 303 + i);
    }
}

bool attack_forks(const struct target *t, struct report *r, double seconds, uint32_t n)
{
    const struct target second = {.rules = t->rules, .port = t->port_2, .port_2 = t->port_2};
    struct foe a, b;
    (void)seconds;
    if (!foe_link(&a, t, NULL) || !foe_link(&b, &second, NULL))
        return unless(r, true, "no link");
    r->links = 2;
    for (uint32_t i = 0; i < n; i++) {
        struct net_identity id;
        if (net_identity_new(&id) != ERR_OK)
            return false;
        fork_one(r, &a, &b, &id, t->rules, i);
        net_identity_release(&id);
        r->tried++;
    }
    const bool refused = foe_refused(&a, 1) || foe_refused(&b, 1);
    foe_end(&a);
    foe_end(&b);
    return unless(r, refused, "a neighbour was blamed for a fork of somebody else");
}
