#include <onebyte/net/control.h>
#include <onebyte/base/bytes.h>
#include <string.h>

enum {
    RETRACT_BYTES = 1 + 32 + 8 + 64,
    ADMIT_BYTES = 1 + 32 + 64,
    CHECKPOINT_BYTES = 1 + 8 + 32 + 32 + 64,
    FORK_HEAD = 1 + 32 + 32,
};

/* a and b of a proof: two different segments that claim the same predecessor and place. */
static enum err parse_fork(struct net_control *c, const uint8_t *frame, size_t n)
{
    struct net_segment *const s[2] = {&c->a, &c->b};
    size_t at = FORK_HEAD;
    if (n < FORK_HEAD)
        return ERR_PROTO;
    for (int i = 0; i < 2; i++) {
        if (n - at < 2)
            return ERR_PROTO;
        const size_t bytes = bytes_get_le(frame + at, 2);
        at += 2;
        if (bytes > n - at)
            return ERR_PROTO;
        TRY(net_segment_parse(s[i], frame + at, bytes));
        at += bytes;
    }
    if (at != n || c->a.first_seq != c->b.first_seq)
        return ERR_PROTO;
    memcpy(c->machine, frame + 1, 32);
    memcpy(c->pred, frame + 33, 32);
    c->seq = c->a.first_seq;
    return ERR_OK;
}

enum err net_control_parse(struct net_control *c, const uint8_t *frame, size_t n)
{
    struct net_control got = {0};
    if (n < 1)
        return ERR_PROTO;
    switch (frame[0]) {
    case NET_RETRACT:
        if (n != RETRACT_BYTES)
            return ERR_PROTO;
        memcpy(got.machine, frame + 1, 32);
        got.seq = bytes_get_le(frame + 33, 8);
        if (got.seq == UINT64_MAX) /* means "no cut": would change nothing */
            return ERR_PROTO;
        break;
    case NET_ADMIT:
        if (n != ADMIT_BYTES)
            return ERR_PROTO;
        memcpy(got.machine, frame + 1, 32);
        break;
    case NET_CHECKPOINT:
        if (n != CHECKPOINT_BYTES)
            return ERR_PROTO;
        got.number = bytes_get_le(frame + 1, 8);
        memcpy(got.frontier, frame + 9, 32);
        memcpy(got.state, frame + 41, 32);
        break;
    case NET_FORK:
        TRY(parse_fork(&got, frame, n));
        break;
    default:
        return ERR_PROTO;
    }
    got.kind = frame[0];
    if (got.kind != NET_FORK)
        memcpy(got.sig, frame + n - 64, 64);
    *c = got;
    return ERR_OK;
}

size_t net_control_write(uint8_t *frame, const struct net_control *c)
{
    size_t n = 1;
    frame[0] = (uint8_t)c->kind;
    if (c->kind == NET_CHECKPOINT) {
        bytes_put_le(frame + n, c->number, 8);
        memcpy(frame + n + 8, c->frontier, 32);
        memcpy(frame + n + 40, c->state, 32);
        n += 72;
    } else {
        memcpy(frame + n, c->machine, 32);
        n += 32;
    }
    if (c->kind == NET_RETRACT) {
        bytes_put_le(frame + n, c->seq, 8);
        n += 8;
    }
    if (c->kind == NET_FORK) {
        memcpy(frame + n, c->pred, 32);
        n += 32;
        const struct net_segment *const s[2] = {&c->a, &c->b};
        for (int i = 0; i < 2; i++) {
            const size_t bytes = net_segment_write(frame + n + 2, s[i]);
            bytes_put_le(frame + n, bytes, 2);
            n += 2 + bytes;
        }
        return n;
    }
    memcpy(frame + n, c->sig, 64);
    return n + 64;
}

/* parts [3] <- tag, run id, fields of the frame (between its kind and its signature). */
static void signed_parts(struct net_part parts[3], uint8_t *frame, const struct net_control *c,
                         const uint8_t run_id[32])
{
    static const char retract[] = "onebyte/1 retract", admit[] = "onebyte/1 admit",
                      checkpoint[] = "onebyte/1 checkpoint";
    const size_t n = net_control_write(frame, c);
    ENSURE(c->kind != NET_FORK);
    parts[0] = c->kind == NET_RETRACT ? (struct net_part){retract, sizeof retract}
               : c->kind == NET_ADMIT ? (struct net_part){admit, sizeof admit}
                                      : (struct net_part){checkpoint, sizeof checkpoint};
    parts[1] = (struct net_part){run_id, 32};
    parts[2] = (struct net_part){frame + 1, n - 1 - 64};
}

enum err net_control_check(const struct net_control *c, const struct net_rules *r)
{
    if (c->kind == NET_FORK)
        return ERR_OK;
    struct net_part parts[3];
    uint8_t frame[NET_CONTROL_BYTES_MAX];
    signed_parts(parts, frame, c, r->run_id);
    return net_verify(c->sig, r->owner, parts, 3);
}

void net_control_id(uint8_t id[32], const struct net_control *c, const struct net_rules *r)
{
    struct net_part parts[3];
    uint8_t frame[NET_CONTROL_BYTES_MAX];
    signed_parts(parts, frame, c, r->run_id);
    net_hash(id, parts, 3);
}

static size_t sign_and_write(uint8_t *frame, struct net_control *c, const struct net_rules *r,
                             const struct net_identity *owner)
{
    struct net_part parts[3];
    uint8_t scratch[NET_CONTROL_BYTES_MAX];
    ENSURE(memcmp(owner->id, r->owner, 32) == 0);
    signed_parts(parts, scratch, c, r->run_id);
    net_sign(c->sig, owner, parts, 3);
    return net_control_write(frame, c);
}

size_t net_control_retract(uint8_t *frame, const struct net_rules *r,
                           const struct net_identity *owner, const uint8_t machine[32],
                           uint64_t seq)
{
    struct net_control c = {.kind = NET_RETRACT, .seq = seq};
    ENSURE(seq != UINT64_MAX);
    memcpy(c.machine, machine, 32);
    return sign_and_write(frame, &c, r, owner);
}

size_t net_control_admit(uint8_t *frame, const struct net_rules *r,
                         const struct net_identity *owner, const uint8_t machine[32])
{
    struct net_control c = {.kind = NET_ADMIT};
    memcpy(c.machine, machine, 32);
    return sign_and_write(frame, &c, r, owner);
}

size_t net_control_checkpoint(uint8_t *frame, const struct net_rules *r,
                              const struct net_identity *owner, uint64_t number,
                              const uint8_t frontier[32], const uint8_t state[32])
{
    struct net_control c = {.kind = NET_CHECKPOINT, .number = number};
    memcpy(c.frontier, frontier, 32);
    memcpy(c.state, state, 32);
    return sign_and_write(frame, &c, r, owner);
}
