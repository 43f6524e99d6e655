#include <onebyte/net/segment.h>
#include <onebyte/base/bytes.h>
#include <string.h>

static const char tag[] = "onebyte/1 segment"; /* with its NUL */

enum err net_segment_parse(struct net_segment *s, const uint8_t *buf, size_t n)
{
    if (n < NET_SEGMENT_HEAD + NET_SIG_BYTES || buf[0] != 1 || buf[1] != 0)
        return ERR_PROTO;
    const size_t count = bytes_get_le(buf + 2, 2);
    if (count < 1 || count > LIMIT_SEGMENT_COUNT || n != NET_SEGMENT_HEAD + count + NET_SIG_BYTES)
        return ERR_PROTO;
    const uint64_t first_seq = bytes_get_le(buf + 4, 8);
    const uint32_t lag = (uint32_t)bytes_get_le(buf + 16, 4);
    if (lag < count || first_seq > UINT64_MAX - count)
        return ERR_PROTO;
    s->count = (uint16_t)count;
    s->first_seq = first_seq;
    s->step = (uint32_t)bytes_get_le(buf + 12, 4);
    s->lag = lag;
    s->loss_f16 = (uint16_t)bytes_get_le(buf + 20, 2);
    s->r_f16 = (uint16_t)bytes_get_le(buf + 22, 2);
    memcpy(s->prev, buf + 24, 8);
    memcpy(s->binding, buf + 32, 8);
    memcpy(s->codes, buf + NET_SEGMENT_HEAD, count);
    memcpy(s->sig, buf + NET_SEGMENT_HEAD + count, NET_SIG_BYTES);
    return ERR_OK;
}

size_t net_segment_write(uint8_t *buf, const struct net_segment *s)
{
    ENSURE(s->count >= 1);
    ENSURE(s->count <= LIMIT_SEGMENT_COUNT);
    buf[0] = 1;
    buf[1] = 0;
    bytes_put_le(buf + 2, s->count, 2);
    bytes_put_le(buf + 4, s->first_seq, 8);
    bytes_put_le(buf + 12, s->step, 4);
    bytes_put_le(buf + 16, s->lag, 4);
    bytes_put_le(buf + 20, s->loss_f16, 2);
    bytes_put_le(buf + 22, s->r_f16, 2);
    memcpy(buf + 24, s->prev, 8);
    memcpy(buf + 32, s->binding, 8);
    memcpy(buf + NET_SEGMENT_HEAD, s->codes, s->count);
    memcpy(buf + NET_SEGMENT_HEAD + s->count, s->sig, NET_SIG_BYTES);
    return NET_SEGMENT_HEAD + (size_t)s->count + NET_SIG_BYTES;
}

/* parts [5] <- what is signed; wire is scratch for the header and codes. */
static void signed_parts(struct net_part parts[5], uint8_t wire[NET_SEGMENT_BYTES_MAX],
                         const struct net_segment *s, const uint8_t run_id[32],
                         const uint8_t machine[32], const uint8_t prev_id[32])
{
    const size_t n = net_segment_write(wire, s);
    parts[0] = (struct net_part){tag, sizeof tag};
    parts[1] = (struct net_part){run_id, 32};
    parts[2] = (struct net_part){machine, 32};
    parts[3] = (struct net_part){prev_id, 32};
    parts[4] = (struct net_part){wire, n - NET_SIG_BYTES};
}

void net_segment_id(uint8_t id[32], const struct net_segment *s, const uint8_t run_id[32],
                    const uint8_t machine[32], const uint8_t prev_id[32])
{
    struct net_part parts[5];
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    signed_parts(parts, wire, s, run_id, machine, prev_id);
    net_hash(id, parts, 5);
}

void net_segment_sign(struct net_segment *s, const struct net_rules *r,
                      const struct net_identity *i, const uint8_t prev_id[32])
{
    struct net_part parts[5];
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    signed_parts(parts, wire, s, r->run_id, i->id, prev_id);
    net_sign(s->sig, i, parts, 5);
}

bool net_segment_fits(const struct net_segment *s, const struct net_rules *r,
                      const uint8_t prev_id[32], uint64_t prev_end, uint32_t prev_step)
{
    static const uint8_t zeros[32];
    const bool first = memcmp(prev_id, zeros, 32) == 0;
    if (first != (s->first_seq == 0) || s->first_seq != prev_end ||
        memcmp(s->prev, prev_id, 8) != 0)
        return false;
    if (s->count < 1 || s->count > LIMIT_SEGMENT_COUNT || s->lag < s->count)
        return false;
    if (s->count > r->records_max || s->first_seq > r->records_max - s->count)
        return false;
    if (s->first_seq % r->k != 0 || s->count % r->k != 0)
        return false;
    return first || !r->sync || s->step >= prev_step;
}

enum err net_segment_check(const struct net_segment *s, const struct net_rules *r,
                           const uint8_t machine[32], const uint8_t prev_id[32], uint64_t prev_end,
                           uint32_t prev_step)
{
    if (!net_segment_fits(s, r, prev_id, prev_end, prev_step))
        return ERR_PROTO;
    struct net_part parts[5];
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    signed_parts(parts, wire, s, r->run_id, machine, prev_id);
    return net_verify(s->sig, machine, parts, 5);
}
