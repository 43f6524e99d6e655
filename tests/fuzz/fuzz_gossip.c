/* Gossip frames from two neighbours.  The input is a row of moves: a byte that chooses, then
 *   0..199    a frame on a link: length u16, its bytes
 *   200..239  a signed segment of one of three machines that follows its head (or, odd, an older head: a fork)
 *   240..255  time passes
 * A signature can't be found by chance, so the target signs: what lies behind the signature check is reached too. */
#include "tests/fuzz/fuzz.h"
#include "net/wire.h"
#include "tests/net/few.h"

struct feed {
    struct few_key key;
    uint8_t head[8][32];
    uint64_t end[8];
    uint32_t n;
};

static void take_actions(struct net_gossip *g)
{
    struct net_action a;
    uint64_t bytes = 0;
    while (net_gossip_action(g, &a)) {
        if (a.kind == NET_SEND)
            bytes += a.frame_bytes;
        ENSURE(a.kind != NET_SEND || a.frame_bytes <= LIMIT_FRAME_BYTES);
    }
    ENSURE(bytes <= 64u << 20); /* no frame makes us send without bound */
}

/* Told by SEGMENT_OF, as a neighbour pushes it. */
static void push(struct net_gossip *g, uint32_t link, struct feed *f, const struct net_rules *r, uint8_t salt, uint64_t now)
{
    uint8_t frame[1 + 32 + 4 + NET_SEGMENT_BYTES_MAX] = {WIRE_SEGMENT_OF}, id[32];
    const uint32_t at = salt & 1 && f->n > 0 ? (uint32_t)(salt >> 1) % f->n : f->n;
    const uint16_t count = (uint16_t)(1 + salt % 7);
    memcpy(frame + 1, f->key.id, 32);
    bytes_put_le(frame + 33, f->key.id[0], 4);
    const size_t n = few_segment(frame + 37, id, r, &f->key, f->head[at], f->end[at], count, 1, salt);
    net_gossip_frame(g, link, frame, 37 + n, now);
    if (at == f->n && f->n < 7) {
        f->n++;
        memcpy(f->head[f->n], id, 32);
        f->end[f->n] = f->end[f->n - 1] + count;
    }
}

FUZZ_TARGET(gossip)
{
    static struct few_key owner;
    static struct feed start[3];
    if (net_start() != ERR_OK)
        return 0;
    if (start[0].key.id[0] == 0) {
        owner = few_key(1);
        for (uint8_t i = 0; i < 3; i++)
            start[i].key = few_key((uint8_t)(10 + i));
    }
    struct net_rules r = few_rules(&owner);
    struct feed feeds[3];
    struct net_gossip *g = NULL;
    const struct few_key a = few_key(20), b = few_key(21);
    uint64_t now = FEW_S;
    memcpy(feeds, start, sizeof feeds);
    ENSURE(net_gossip_new(&g, &r, start[2].key.id, 1) == ERR_OK);
    ENSURE(net_gossip_link_up(g, 1, a.id, true, now) == ERR_OK && net_gossip_link_up(g, 2, b.id, false, now) == ERR_OK);
    take_actions(g);
    for (size_t at = 0, moves = 0; at < size && moves < 64; moves++) {
        const uint8_t move = data[at++];
        const uint32_t link = 1 + (move & 1);
        if (move < 200) {
            const size_t left = size - at, want = left < 2 ? 0 : (size_t)bytes_get_le(data + at, 2);
            at += left < 2 ? left : 2;
            const size_t n = want < size - at ? want : size - at;
            net_gossip_frame(g, link, data + at, n, now);
            at += n;
        } else if (move < 240) {
            push(g, link, &feeds[move % 3], &r, at < size ? data[at++] : 0, now);
        } else {
            now += FEW_S * (1 + (move & 7));
            net_gossip_tick(g, now);
        }
        take_actions(g);
    }
    net_gossip_free(g);
    return 0;
}
