/* The snapshot file, and what a ledger must hold to prove one. */
#include "peer/snapshot.h"
#include <errno.h>
#include <fcntl.h>
#include <onebyte/base/bytes.h>
#include <onebyte/net/id.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 20, PATH = 1100 };
static const char magic[16] = "onebyte/1 snaps";

void peer_frontier_get(const uint8_t *bytes, size_t i, struct net_frontier_entry *out)
{
    const uint8_t *p = bytes + PEER_FRONTIER_ENTRY * i;
    memcpy(out->machine, p, 32);
    out->count = bytes_get_le(p + 32, 8);
    memcpy(out->head, p + 40, 32);
    out->cut = bytes_get_le(p + 72, 8);
}

void peer_frontier_put(uint8_t *bytes, size_t i, const struct net_frontier_entry *in)
{
    uint8_t *p = bytes + PEER_FRONTIER_ENTRY * i;
    memcpy(p, in->machine, 32);
    bytes_put_le(p + 32, in->count, 8);
    memcpy(p + 40, in->head, 32);
    bytes_put_le(p + 72, in->cut, 8);
}

/* ---- writing ---- */

struct out {
    FILE *f;
    struct net_hash_state hash;
    bool failed;
};

static void put(struct out *o, const void *p, size_t n)
{
    net_hash_more(&o->hash, p, n);
    if (fwrite(p, 1, n, o->f) != n)
        o->failed = true;
}

static void put_all(struct out *o, const uint8_t run_id[32], const uint8_t *frontier, size_t n_frontier,
                    const struct zo_state *s, uint8_t *piece)
{
    uint8_t le[16], hash[32];
    const uint64_t total = zo_state_bytes(s);
    bytes_put_le(le, n_frontier, 8);
    bytes_put_le(le + 8, total, 8);
    net_hash_start(&o->hash);
    put(o, magic, sizeof magic);
    put(o, run_id, 32);
    put(o, le, sizeof le);
    put(o, frontier, n_frontier);
    for (uint64_t at = 0; at < total && !o->failed; at += PIECE) {
        const size_t n = total - at < PIECE ? (size_t)(total - at) : PIECE;
        zo_state_get_bytes(s, at, piece, n);
        put(o, piece, n);
    }
    net_hash_end(&o->hash, hash);
    if (fwrite(hash, 1, sizeof hash, o->f) != sizeof hash || fflush(o->f) != 0 || fsync(fileno(o->f)) != 0)
        o->failed = true;
}

enum err peer_snapshot_write(const char *path, const uint8_t run_id[32], const uint8_t *frontier, size_t n_frontier,
                             const struct zo_state *s, struct err_why *why)
{
    char part[PATH];
    uint8_t *piece = malloc(PIECE);
    snprintf(part, sizeof part, "%s.part", path);
    struct out o = {.f = piece ? fopen(part, "wbe") : NULL};
    if (!o.f) {
        free(piece);
        return err_set(why, ERR_IO, "cannot write %s: %s", part, strerror(errno));
    }
    put_all(&o, run_id, frontier, n_frontier, s, piece);
    free(piece);
    if (fclose(o.f) != 0 || o.failed || rename(part, path) != 0) {
        const enum err e = err_set(why, ERR_IO, "cannot write %s: %s", path, strerror(errno));
        (void)unlink(part);
        return e;
    }
    return ERR_OK;
}

void peer_snapshot_hash(const struct zo_state *s, uint8_t out[32])
{
    uint8_t piece[4096];
    struct net_hash_state h;
    const uint64_t total = zo_state_bytes(s);
    net_hash_start(&h);
    for (uint64_t at = 0; at < total; at += sizeof piece) {
        const size_t n = total - at < sizeof piece ? (size_t)(total - at) : sizeof piece;
        zo_state_get_bytes(s, at, piece, n);
        net_hash_more(&h, piece, n);
    }
    net_hash_end(&h, out);
}

/* ---- reading ---- */

static bool well_formed(struct peer_snapshot *s, const uint8_t run_id[32], uint64_t state_bytes)
{
    uint8_t hash[32];
    if (s->bytes < PEER_SNAPSHOT_HEAD + 32 || memcmp(s->map, magic, sizeof magic) != 0 || memcmp(s->map + 16, run_id, 32) != 0)
        return false;
    const uint64_t frontier = bytes_get_le(s->map + 48, 8);
    const uint64_t rest = s->bytes - PEER_SNAPSHOT_HEAD - 32;
    if (bytes_get_le(s->map + 56, 8) != state_bytes || frontier > rest || rest - frontier != state_bytes ||
        frontier % PEER_FRONTIER_ENTRY != 0)
        return false;
    net_hash(hash, &(const struct net_part){s->map, s->bytes - 32}, 1);
    if (memcmp(hash, s->map + s->bytes - 32, 32) != 0)
        return false;
    s->frontier = s->map + PEER_SNAPSHOT_HEAD;
    s->n_frontier = (size_t)(frontier / PEER_FRONTIER_ENTRY);
    s->state = s->frontier + frontier;
    s->state_bytes = state_bytes;
    memcpy(s->id, hash, sizeof s->id);
    for (size_t i = 1; i < s->n_frontier; i++)
        if (memcmp(s->frontier + PEER_FRONTIER_ENTRY * (i - 1), s->frontier + PEER_FRONTIER_ENTRY * i, 32) >= 0)
            return false; /* not in order, or twice */
    return true;
}

enum err peer_snapshot_open(struct peer_snapshot *s, const char *path, const uint8_t run_id[32], uint64_t state_bytes)
{
    struct stat st;
    struct peer_snapshot made = {.map = NULL};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return ERR_NOTFOUND;
    if (fstat(fd, &st) != 0 || st.st_size <= 0) {
        close(fd);
        return ERR_FORMAT;
    }
    made.bytes = (size_t)st.st_size;
    void *map = mmap(NULL, made.bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return ERR_NOMEM;
    made.map = map;
    if (!well_formed(&made, run_id, state_bytes)) {
        peer_snapshot_close(&made);
        return ERR_FORMAT;
    }
    *s = made;
    return ERR_OK;
}

void peer_snapshot_close(struct peer_snapshot *s)
{
    if (s->map)
        (void)munmap(s->map, s->bytes);
    *s = (struct peer_snapshot){.map = NULL};
}

bool peer_snapshot_entry(const struct peer_snapshot *s, const uint8_t machine[32], struct net_frontier_entry *out)
{
    size_t low = 0, high = s->n_frontier;
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        const int c = memcmp(s->frontier + PEER_FRONTIER_ENTRY * mid, machine, 32);
        if (c == 0) {
            peer_frontier_get(s->frontier, mid, out);
            return true;
        }
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return false;
}

/* The segment that ends at e->count must carry the id e->head. */
static enum peer_held entry_held(const struct net_frontier_entry *e, const struct net_gossip *g)
{
    struct net_frontier_entry own;
    struct net_segment seg;
    uint8_t id[32];
    if (!net_gossip_feed(g, e->machine, &own))
        return PEER_NOT_YET;
    if (own.cut != e->cut) /* ours lower: the snapshot is too old; theirs lower: the proof of it is still on its way */
        return own.cut < e->cut ? PEER_NEVER : PEER_NOT_YET;
    if (own.count < e->count)
        return PEER_NOT_YET;
    if (own.count == e->count)
        return memcmp(own.head, e->head, 32) == 0 ? PEER_HELD : PEER_NEVER;
    for (size_t i = 0; net_gossip_segment(g, e->machine, i, &seg, id, NULL); i++)
        if (seg.first_seq + seg.count >= e->count)
            return seg.first_seq + seg.count == e->count && memcmp(id, e->head, 32) == 0 ? PEER_HELD : PEER_NEVER;
    return PEER_NEVER;
}

enum peer_held peer_snapshot_held(const struct peer_snapshot *s, const struct net_gossip *g)
{
    enum peer_held all = PEER_HELD;
    struct net_frontier_entry e;
    for (size_t i = 0; i < s->n_frontier; i++) {
        peer_frontier_get(s->frontier, i, &e);
        const enum peer_held h = e.count == 0 && e.cut == UINT64_MAX ? PEER_HELD : entry_held(&e, g);
        if (h == PEER_NEVER)
            return PEER_NEVER;
        all = h == PEER_NOT_YET ? PEER_NOT_YET : all;
    }
    return all;
}
