/* net/segment.h -- one segment on the wire: DESIGN 4, SPEC 6.  Parsed by hand, signature before belief.
 *
 * WIRE v1, little-endian, no padding:
 *   0 version u8 = 1   1 flags u8 = 0   2 count u16, 1..1024   4 first_seq u64   12 step u32   16 lag u32
 *  20 loss f16   22 r f16   24 prev [8]   32 binding [8]   40 codes [count]   40 + count: ed25519 signature [64] */
#ifndef ONEBYTE_NET_SEGMENT_H
#define ONEBYTE_NET_SEGMENT_H
#include <onebyte/base/err.h>
#include <onebyte/base/limits.h>
#include <onebyte/net/id.h>
#include <onebyte/net/rules.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NET_SEGMENT_HEAD = 40,
    NET_SEGMENT_BYTES_MAX = NET_SEGMENT_HEAD + LIMIT_SEGMENT_COUNT + NET_SIG_BYTES,
};

struct net_segment {
    uint64_t first_seq;
    uint32_t step, lag;
    uint16_t count, loss_f16, r_f16;
    uint8_t prev[8], binding[8];
    int8_t codes[LIMIT_SEGMENT_COUNT];
    uint8_t sig[64];
};

/* Structure only (length, version, flags, lag >= count, first_seq + count < 2^64); *s untouched on error. */
NODISCARD enum err net_segment_parse(struct net_segment *s, const uint8_t *buf, size_t n);
size_t net_segment_write(uint8_t *buf,
                         const struct net_segment *s); /* bytes written, <= NET_SEGMENT_BYTES_MAX */
/* id <- BLAKE2b of what is signed: tag, run id, machine id, full predecessor id, wire bytes before the signature. */
void net_segment_id(uint8_t id[32], const struct net_segment *s, const uint8_t run_id[32],
                    const uint8_t machine[32], const uint8_t prev_id[32]);
void net_segment_sign(struct net_segment *s, const struct net_rules *r,
                      const struct net_identity *i, const uint8_t prev_id[32]);
/* Every rule of SPEC 6 but the signature. */
bool net_segment_fits(const struct net_segment *s, const struct net_rules *r,
                      const uint8_t prev_id[32], uint64_t prev_end, uint32_t prev_step);
/* Every rule of SPEC 6 as the successor of (prev_id, prev_end, prev_step); prev_id all zeros and prev_end 0: the first. */
NODISCARD enum err net_segment_check(const struct net_segment *s, const struct net_rules *r,
                                     const uint8_t machine[32], const uint8_t prev_id[32],
                                     uint64_t prev_end, uint32_t prev_step);
#endif
