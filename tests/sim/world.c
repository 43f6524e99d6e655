#include "world.h"
#include <onebyte/base/bytes.h>
#include <onebyte/net/control.h>
#include <onebyte/net/score.h>
#include <sodium.h>
#include <stdarg.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)
#define MINUTE (60 * SECOND)

/* ---- randomness: one generator per world, in event order ---- */
struct world;
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}
static uint64_t next(uint64_t *s)
{
    return mix(*s += UINT64_C(0x9E3779B97F4A7C15));
}

/* ---- segments shared by all machines of the world (net_intern) ---- */
struct blob {
    struct blob *next;
    uint32_t references, bytes;
    uint8_t data[]; /* id [32], wire */
};
struct pool {
    struct blob **slot; /* [1 << bits] */
    unsigned bits;
    uint64_t n;
};
static struct blob **pool_slot(struct pool *p, const uint8_t id[32])
{
    return &p->slot[bytes_get_le(id, 8) >> (64 - p->bits)];
}
static const uint8_t *pool_find(void *ctx, const uint8_t id[32], const uint8_t *wire, size_t n)
{
    for (struct blob *b = *pool_slot(ctx, id); b; b = b->next)
        if (b->bytes == 32 + n && memcmp(b->data, id, 32) == 0 &&
            memcmp(b->data + 32, wire, n) == 0) {
            b->references++;
            return b->data;
        }
    return NULL;
}
static const uint8_t *pool_add(void *ctx, const uint8_t id[32], const uint8_t *wire, size_t n)
{
    struct pool *p = ctx;
    struct blob *b = malloc(sizeof *b + 32 + n);
    ENSURE(b != NULL);
    struct blob **s = pool_slot(p, id);
    *b = (struct blob){.next = *s, .references = 1, .bytes = (uint32_t)(32 + n)};
    memcpy(b->data, id, 32);
    memcpy(b->data + 32, wire, n);
    *s = b;
    p->n++;
    return b->data;
}
static struct blob *blob_of(const uint8_t *data)
{
    return (struct blob *)(uintptr_t)(data - offsetof(struct blob, data));
}
static void pool_drop(void *ctx, const uint8_t *data)
{
    struct pool *p = ctx;
    struct blob *b = blob_of(data);
    if (--b->references > 0)
        return;
    struct blob **s = pool_slot(p, b->data);
    while (*s != b)
        s = &(*s)->next;
    *s = b->next;
    p->n--;
    free(b);
}

/* ---- the world ---- */
enum event_kind {
    EV_FRAME,
    EV_TICK,
    EV_SEAL,
    EV_DIAL,
    EV_FLUSH,
    EV_RESTART,
    EV_UP,
    EV_FAULTS,
    EV_CHECK
};
struct frame {
    uint32_t references, n;
    uint8_t data[];
};
struct event {
    uint64_t at, order;
    enum event_kind kind;
    uint32_t peer, link, life;
    struct frame *frame;
};
struct link {
    uint32_t a, b; /* a dialled */
    bool up;
    uint64_t blocked_since; /* by a partition; 0: not */
};
enum row_kind { ROW_SEGMENT, ROW_TRUNCATE, ROW_CONTROL, ROW_DEAD };
struct row {
    enum row_kind kind;
    bool damaged; /* the disk will read it back with a flipped bit */
    uint32_t bytes;
    uint64_t seq;
    const uint8_t *machine; /* malloc'd; NULL for controls */
    const uint8_t *data;    /* segment: shared bytes; control: malloc'd */
};
/* A state that the owner named: what every peer must find at that frontier. */
struct named {
    struct named *next;
    uint64_t number, state;
    uint8_t frontier[32], id[8];
    size_t n;
    struct net_frontier_entry entries[];
};
struct key {
    uint8_t id[32], sk[64];
    uint64_t sealed; /* end of what its honest owner has sealed and stored */
    bool twin;       /* its peers seal on whatever they see: hostile */
    bool doubtful;   /* twin, rolled back, retracted: may be cut */
    bool retired;    /* its disk was lost, or its peer lies: the network may lack its end */
};
struct peer {
    struct net_gossip *g;
    uint32_t key, life;
    bool alive, listens, liar;
    uint64_t skew_ns, paused_until, tick_at, quiet_until;
    struct row *rows;
    uint32_t n_rows, durable, capacity;
    uint64_t
        state; /* sum over folded records of a hash: the model, as far as gossip is concerned */
    uint32_t links[LIMIT_LINKS], n_links, dialled;
    bool
        own_lost; /* saw its own key used by someone else after the first seconds: never seals again */
};
struct world {
    struct world_options o;
    struct world_result *r;
    uint64_t random, now, order;
    struct event *heap;
    size_t n_heap, heap_capacity;
    struct pool pool;
    struct key *keys;
    uint32_t n_keys, keys_capacity;
    struct key owner;
    struct peer *peers;
    struct link *links;
    uint32_t n_links, links_capacity;
    struct net_rules rules;
    struct named *named; /* newest first */
    uint8_t group[1024];
    bool parted, one_way, healing, failed;
    uint64_t part_until, sealed_records;
    uint64_t *latency;
    size_t n_latency, latency_capacity;
};

static uint64_t draw(struct world *w, uint64_t n)
{
    return n ? next(&w->random) % n : 0;
}
static bool chance(struct world *w, uint64_t of_65536)
{
    return (next(&w->random) & 65535) < of_65536;
}

__attribute__((format(printf, 2, 3))) static void fail(struct world *w, const char *format, ...)
{
    if (w->failed)
        return;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(w->r->what, sizeof w->r->what, format, args);
    va_end(args);
    w->failed = true;
}

static bool before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void schedule(struct world *w, struct event e)
{
    if (w->n_heap == w->heap_capacity) {
        w->heap_capacity = w->heap_capacity ? 2 * w->heap_capacity : 1024;
        w->heap = realloc(w->heap, w->heap_capacity * sizeof *w->heap);
        ENSURE(w->heap != NULL);
    }
    e.order = w->order++;
    size_t i = w->n_heap++;
    while (i > 0 && before(&e, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = e;
}

static struct event take(struct world *w)
{
    const struct event top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= w->n_heap)
            break;
        if (c + 1 < w->n_heap && before(&w->heap[c + 1], &w->heap[c]))
            c++;
        if (!before(&w->heap[c], &last))
            break;
        w->heap[i] = w->heap[c];
        i = c;
    }
    if (w->n_heap > 0)
        w->heap[i] = last;
    return top;
}

static uint64_t peer_now(const struct world *w, const struct peer *p)
{
    return w->now + p->skew_ns;
}

static uint32_t new_key(struct world *w)
{
    uint8_t seed[32] = {0};
    if (w->n_keys == w->keys_capacity) {
        w->keys_capacity = w->keys_capacity ? 2 * w->keys_capacity : 64;
        w->keys = realloc(w->keys, w->keys_capacity * sizeof *w->keys);
        ENSURE(w->keys != NULL);
    }
    struct key *k = &w->keys[w->n_keys];
    *k = (struct key){0};
    bytes_put_le(seed, w->o.seed, 8);
    bytes_put_le(seed + 8, w->n_keys, 8);
    ENSURE(crypto_sign_seed_keypair(k->id, k->sk, seed) == 0);
    return w->n_keys++;
}

/* ---- disk ---- */
static void row_add(struct peer *p, struct row r)
{
    if (p->n_rows == p->capacity) {
        p->capacity = p->capacity ? p->capacity + p->capacity / 2 : 64;
        p->rows = realloc(p->rows, p->capacity * sizeof *p->rows);
        ENSURE(p->rows != NULL);
    }
    p->rows[p->n_rows++] = r;
}

static void rows_cut(struct world *w, struct peer *p, uint32_t n)
{
    while (p->n_rows > n) {
        const struct row *r = &p->rows[--p->n_rows];
        if (r->kind == ROW_SEGMENT)
            pool_drop(&w->pool, r->data);
        else if (r->kind == ROW_CONTROL)
            free((void *)(uintptr_t)r->data);
        free((void *)(uintptr_t)r->machine);
    }
    p->durable = p->durable < n ? p->durable : n;
}

static uint8_t *copied(const uint8_t *p, size_t n)
{
    uint8_t *c = malloc(n);
    ENSURE(c != NULL);
    memcpy(c, p, n);
    return c;
}

/* ---- state: what the engine would fold ---- */
static void fold(struct peer *p, const struct net_action *a, bool add)
{
    const uint64_t m = bytes_get_le(a->machine, 8);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < a->segment->count; i++)
        if (a->counts[i])
            sum += mix(m ^ mix((a->segment->first_seq + i) * 256 + (uint8_t)a->segment->codes[i]) ^
                       (uint64_t)a->segment->lag << 32 ^ a->segment->step);
    p->state += add ? sum : -sum;
}

/* The same from what the machine says it holds. */
static uint64_t state_again(const struct peer *p)
{
    struct peer fresh = {0};
    struct net_feed_view v;
    for (size_t i = 0; net_gossip_feed_at(p->g, i, &v); i++)
        for (size_t k = 0; k < v.segments; k++) {
            struct net_segment s;
            uint8_t id[32], counts[LIMIT_SEGMENT_COUNT];
            ENSURE(net_gossip_segment(p->g, v.entry.machine, k, &s, id, counts));
            struct net_action a = {.segment = &s, .counts = counts};
            memcpy(a.machine, v.entry.machine, 32);
            fold(&fresh, &a, true);
        }
    return fresh.state;
}

/* ---- network ---- */
static bool blocked(const struct world *w, uint32_t from, uint32_t to)
{
    if (!w->parted || w->group[from] == w->group[to])
        return false;
    return !w->one_way || w->group[from] < w->group[to];
}

static struct frame *frame_new(const uint8_t *p, size_t n)
{
    struct frame *f = malloc(sizeof *f + n);
    ENSURE(f != NULL);
    f->references = 0;
    f->n = (uint32_t)n;
    if (n > 0)
        memcpy(f->data, p, n);
    return f;
}

static void deliver_later(struct world *w, uint32_t to, uint32_t link, struct frame *f)
{
    uint64_t wait = w->o.delay_ns + draw(w, w->o.jitter_ns);
    if (w->o.late && chance(w, w->o.late))
        wait += draw(w, 64 * (w->o.jitter_ns + 1));
    f->references++;
    schedule(w, (struct event){
                    .at = w->now + wait, .kind = EV_FRAME, .peer = to, .link = link, .frame = f});
}

/* A liar's frame: damaged, cut short, or invented. */
static struct frame *lie(struct world *w, const uint8_t *p, size_t n)
{
    struct frame *f = frame_new(p, n);
    switch (draw(w, 6)) {
    case 0:
        f->data[draw(w, n)] ^= (uint8_t)(1u << draw(w, 8));
        break;
    case 1:
        f->n = (uint32_t)draw(w, n);
        break;
    case 2:
        f->data[0] = (uint8_t)draw(w, 20);
        break;
    case 3: /* claims to hold more, under a head nobody knows: HAVE, DONE, NOHEAD */
        if (n == 81) {
            f->data[0] = (uint8_t)(draw(w, 3) == 0 ? 7 : 12 + draw(w, 2));
            f->data[33] ^= (uint8_t)draw(w, 256);
            f->data[45] ^= (uint8_t)draw(w, 256);
        }
        break;
    case 4:
        for (uint32_t i = 1; i < f->n; i++)
            f->data[i] = (uint8_t)draw(w, 256);
        break;
    default:
        break;
    }
    return f;
}

static void send_frame(struct world *w, uint32_t from, uint32_t link, const uint8_t *p, size_t n)
{
    if (link >= w->n_links || !w->links[link].up)
        return;
    const struct link *l = &w->links[link];
    const uint32_t to = l->a == from ? l->b : l->a;
    w->r->frames++;
    w->r->bytes += n;
    w->r->late_bytes += w->now >= w->o.duration_ns / 2 && !w->healing ? n : 0;
    if (blocked(w, from, to) || (w->o.loss && chance(w, w->o.loss)))
        return;
    struct frame *f = w->peers[from].liar && chance(w, 20000) ? lie(w, p, n) : frame_new(p, n);
    deliver_later(w, to, link, f);
    if (w->o.doubled && chance(w, w->o.doubled))
        deliver_later(w, to, link, f);
}

static void drain_actions(struct world *w, uint32_t i);

static void forget_link(struct peer *p, uint32_t link, bool dialled)
{
    for (uint32_t k = 0; k < p->n_links; k++)
        if (p->links[k] == link) {
            p->links[k] = p->links[--p->n_links];
            p->dialled -= dialled;
            return;
        }
}

static void link_close(struct world *w, uint32_t link)
{
    struct link *l = &w->links[link];
    if (!l->up)
        return;
    l->up = false;
    const uint32_t ends[2] = {l->a, l->b};
    for (int e = 0; e < 2; e++) {
        struct peer *p = &w->peers[ends[e]];
        forget_link(p, link, e == 0);
        if (p->alive) {
            net_gossip_link_down(p->g, link, peer_now(w, p));
            drain_actions(w, ends[e]);
        }
    }
}

static void tick_later(struct world *w, uint32_t i)
{
    struct peer *p = &w->peers[i];
    if (!p->alive)
        return;
    const uint64_t want = net_gossip_next_tick(p->g);
    const uint64_t at = want > peer_now(w, p) ? w->now + (want - peer_now(w, p)) : w->now + 1;
    if (p->tick_at > w->now && p->tick_at <= at)
        return;
    p->tick_at = at;
    schedule(w, (struct event){.at = at, .kind = EV_TICK, .peer = i, .life = p->life});
}

static void measure(struct world *w, const struct net_action *a)
{
    if (!w->o.measure)
        return;
    if (w->n_latency == w->latency_capacity) {
        w->latency_capacity = w->latency_capacity ? 2 * w->latency_capacity : 4096;
        w->latency = realloc(w->latency, w->latency_capacity * sizeof *w->latency);
        ENSURE(w->latency != NULL);
    }
    w->latency[w->n_latency++] =
        w->now - bytes_get_le(a->segment->binding, 8); /* when it was sealed */
}

static void store_action(struct world *w, struct peer *p, const struct net_action *a)
{
    const bool own = memcmp(a->machine, w->keys[p->key].id, 32) == 0;
    struct row r = {.seq = a->seq, .bytes = (uint32_t)a->frame_bytes};
    if (a->kind == NET_CONTROL) {
        r.kind = ROW_CONTROL;
        r.data = copied(a->frame, a->frame_bytes);
    } else {
        r.machine = copied(a->machine, 32);
        r.kind = a->kind == NET_STORE ? ROW_SEGMENT : ROW_TRUNCATE;
    }
    if (a->kind == NET_STORE) {
        struct net_frontier_entry e;
        ENSURE(net_gossip_feed(p->g, a->machine, &e));
        ENSURE(e.count == a->seq + a->segment->count); /* one segment an event: it is the head */
        r.data = pool_find(&w->pool, e.head, a->frame, a->frame_bytes);
        ENSURE(r.data != NULL);
    }
    row_add(p, r);
    if (own)
        p->durable =
            p->n_rows; /* synchronous=FULL before the first send; takes the batch before it along */
}

static void drain_actions(struct world *w, uint32_t i)
{
    struct peer *p = &w->peers[i];
    struct net_action a;
    uint32_t closing[LIMIT_LINKS], n_closing = 0;
    while (p->alive && net_gossip_action(p->g, &a)) {
        switch (a.kind) {
        case NET_SEND:
            send_frame(w, i, a.link, a.frame, a.frame_bytes);
            break;
        case NET_DROP:
            if (n_closing < LIMIT_LINKS)
                closing[n_closing++] = a.link;
            if (a.blame &&
                !w->peers[w->links[a.link].a == i ? w->links[a.link].b : w->links[a.link].a].liar)
                fail(w, "peer %u blamed an honest peer: %s", i, a.reason);
            break;
        case NET_STORE:
        case NET_TRUNCATE:
        case NET_CONTROL:
            store_action(w, p, &a);
            break;
        case NET_FOLD:
            fold(p, &a, true);
            if (memcmp(a.machine, w->keys[p->key].id, 32) != 0)
                measure(w, &a);
            break;
        case NET_UNFOLD:
            fold(p, &a, false);
            break;
        case NET_OWN_BEHIND:
            if (w->now >= p->quiet_until && w->now > 0)
                p->own_lost = true;
            break;
        case NET_LEARNED:
        case NET_ASKED: /* questions of auditors: tests/net/test_audit.c */
        case NET_TOLD:
            break;
        }
    }
    for (uint32_t k = 0; k < n_closing; k++)
        link_close(w, closing[k]);
    tick_later(w, i);
}

/* ---- life and death ---- */
/* The rows that a truncation did not remove.  O(n m), and m is small. */
static bool *live_rows(const struct peer *p)
{
    bool *live = calloc(p->n_rows + 1, 1);
    ENSURE(live != NULL);
    for (uint32_t i = 0; i < p->n_rows; i++) {
        live[i] = p->rows[i].kind == ROW_SEGMENT;
        if (p->rows[i].kind != ROW_TRUNCATE)
            continue;
        for (uint32_t k = 0; k < i; k++)
            if (live[k] && p->rows[k].seq >= p->rows[i].seq &&
                memcmp(p->rows[k].machine, p->rows[i].machine, 32) == 0)
                live[k] = false;
    }
    return live;
}

static enum err load_segment(struct peer *p, const struct row *r)
{
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    memcpy(wire, r->data + 32, r->bytes);
    if (r->damaged)
        wire[r->seq % r->bytes] ^= 1;
    return net_gossip_load(p->g, r->machine, wire, r->bytes);
}

/* As net_gossip_load says: what is refused goes, with the rest of that machine's.  Damage, or what a crash left between
 * evidence and truncation. */
static void drop_rest(struct world *w, struct peer *p, uint32_t from, bool *live)
{
    for (uint32_t i = p->n_rows; i-- > from;) {
        struct row *r = &p->rows[i];
        if (live[i] && memcmp(r->machine, p->rows[from].machine, 32) == 0) {
            live[i] = false;
            r->kind = ROW_DEAD;
            pool_drop(&w->pool, r->data);
        }
    }
}

static void load_rows(struct world *w, struct peer *p)
{
    struct net_action a;
    bool *live = live_rows(p);
    for (int pass = 0; pass < 3; pass++)
        for (uint32_t i = 0; i < p->n_rows; i++) {
            const struct row *r = &p->rows[i];
            if (pass == 1 && live[i] && load_segment(p, r) != ERR_OK)
                drop_rest(w, p, i, live);
            else if (pass != 1 && r->kind == ROW_CONTROL)
                (void)!net_gossip_load_control(p->g, r->data, r->bytes);
            while (net_gossip_action(p->g, &a)) {
                if (a.kind == NET_FOLD || a.kind == NET_UNFOLD)
                    fold(p, &a, a.kind == NET_FOLD);
                ENSURE(a.kind != NET_SEND && a.kind != NET_STORE && a.kind != NET_CONTROL);
            }
        }
    free(live);
}

static void birth(struct world *w, uint32_t i)
{
    struct peer *p = &w->peers[i];
    const struct net_intern intern = {&w->pool, pool_find, pool_add, pool_drop};
    ENSURE(net_gossip_new(&p->g, &w->rules, w->keys[p->key].id, next(&w->random)) == ERR_OK);
    net_gossip_set_intern(p->g, &intern);
    p->alive = true;
    p->life++;
    p->state = 0;
    p->tick_at = 0;
    p->own_lost = false;
    p->quiet_until = w->now + 5 * SECOND; /* DESIGN 5: asks for its own feed first */
    load_rows(w, p);
    if (w->o.invite) {
        struct net_control c = {.kind = NET_ADMIT};
        uint8_t frame[NET_CONTROL_BYTES_MAX];
        struct net_identity owner = {.sk = w->owner.sk};
        memcpy(owner.id, w->owner.id, 32);
        const size_t n = net_control_admit(frame, &w->rules, &owner, w->keys[p->key].id);
        ENSURE(net_control_parse(&c, frame, n) == ERR_OK);
        (void)!net_gossip_control(p->g, frame, n, peer_now(w, p));
    }
    drain_actions(w, i);
    schedule(w,
             (struct event){
                 .at = w->now + 1 + draw(w, SECOND), .kind = EV_DIAL, .peer = i, .life = p->life});
    schedule(w,
             (struct event){
                 .at = w->now + 1 + draw(w, SECOND), .kind = EV_FLUSH, .peer = i, .life = p->life});
    schedule(w, (struct event){.at = p->quiet_until + draw(w, 2 * w->o.seal_ns + 1),
                               .kind = EV_SEAL,
                               .peer = i,
                               .life = p->life});
}

static void death(struct world *w, uint32_t i)
{
    struct peer *p = &w->peers[i];
    p->alive = false;
    while (p->n_links > 0)
        link_close(w, p->links[0]);
    struct net_gossip_counters c;
    net_gossip_count(p->g, &c);
    w->r->searches += c.searches;
    w->r->forks += c.forks;
    w->r->duplicates += c.segments_duplicate;
    net_gossip_free(p->g);
    p->g = NULL;
}

static void crash(struct world *w, uint32_t i)
{
    struct peer *p = &w->peers[i];
    death(w, i);
    /* What was not synced: a prefix of it survives, torn at any row. */
    rows_cut(w, p, p->durable + (uint32_t)draw(w, p->n_rows - p->durable + 1));
    p->durable = p->n_rows;
    bool own_damaged = false;
    for (uint32_t k = 0; k < p->n_rows; k++)
        if (p->rows[k].kind == ROW_SEGMENT && w->o.damage && chance(w, w->o.damage)) {
            p->rows[k].damaged = true;
            own_damaged |= memcmp(p->rows[k].machine, w->keys[p->key].id, 32) == 0;
        }
    if (own_damaged) { /* the old key never seals again */
        w->keys[p->key].retired = true;
        p->key = new_key(w);
        w->keys[p->key].retired = p->liar;
    }
    if (w->o.wiped && chance(w, w->o.wiped)) { /* disk lost: a new key */
        w->keys[p->key].retired = true;
        rows_cut(w, p, 0);
        p->key = new_key(w);
        w->keys[p->key].retired = p->liar;
    } else if (w->o.rollback &&
               chance(w, w->o.rollback)) { /* an old copy of the disk, and the disk hides it */
        w->keys[p->key].doubtful = true;
        rows_cut(w, p, (uint32_t)draw(w, p->n_rows + 1));
    }
    schedule(w, (struct event){.at = w->now + draw(w, 20 * SECOND),
                               .kind = EV_RESTART,
                               .peer = i,
                               .life = p->life});
}

/* ---- sealing ---- */

/* A liar signs a second segment for the same place and shows it to one neighbour. */
static void forge(struct world *w, uint32_t i, struct net_segment s, const uint8_t prev[32])
{
    struct peer *p = &w->peers[i];
    struct key *k = &w->keys[p->key];
    struct net_identity identity = {.sk = k->sk};
    uint8_t frame[37 + NET_SEGMENT_BYTES_MAX] = {9}; /* SEGMENT_OF */
    if (p->n_links == 0)
        return;
    memcpy(identity.id, k->id, 32);
    s.codes[0] ^= 1;
    net_segment_sign(&s, &w->rules, &identity, prev);
    memcpy(frame + 1, k->id, 32);
    bytes_put_le(frame + 33, 60000, 4);
    k->doubtful = true;
    send_frame(w, i, p->links[draw(w, p->n_links)], frame, 37 + net_segment_write(frame + 37, &s));
}

static void seal(struct world *w, uint32_t i)
{
    struct peer *p = &w->peers[i];
    struct key *k = &w->keys[p->key];
    if ((p->own_lost && !k->twin) || net_gossip_own_closed(p->g) ||
        (w->o.records && w->sealed_records >= w->o.records))
        return;
    struct net_frontier_entry e = {.cut = UINT64_MAX};
    struct net_clock clock;
    struct net_segment s = {0};
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    (void)net_gossip_feed(p->g, k->id, &e);
    net_gossip_clock(p->g, &clock);
    s.first_seq = e.count;
    s.count = (uint16_t)(w->o.k * (1 + draw(w, w->o.segment_max / w->o.k)));
    if (e.count == 0 && !w->o.sync && s.count > LIMIT_FIRST_SEGMENT) /* as peer/compute.c does */
        s.count = (uint16_t)(LIMIT_FIRST_SEGMENT / w->o.k * w->o.k);
    s.step = (uint32_t)clock.step;
    if (w->o.sync) { /* a round is at least the last one of its own feed */
        struct net_feed_view v;
        for (size_t f = 0; net_gossip_feed_at(p->g, f, &v); f++)
            if (memcmp(v.entry.machine, k->id, 32) == 0 && v.last_step > s.step)
                s.step = v.last_step;
    }
    s.lag = (uint32_t)(s.count + draw(w, 100));
    memcpy(s.prev, e.head, 8);
    bytes_put_le(s.binding, w->now, 8);
    for (uint32_t c = 0; c < s.count; c += 8)
        bytes_put_le((uint8_t *)s.codes + c, next(&w->random), s.count - c < 8 ? s.count - c : 8u);
    struct net_identity identity = {.sk = k->sk};
    memcpy(identity.id, k->id, 32);
    net_segment_sign(&s, &w->rules, &identity, e.head);
    const size_t n = net_segment_write(wire, &s);
    if (p->liar && chance(w, 8192))
        forge(w, i, s, e.head);
    if (net_gossip_own(p->g, wire, n, peer_now(w, p)) != ERR_OK) {
        fail(w, "peer %u could not seal at %llu", i, (unsigned long long)s.first_seq);
        return;
    }
    drain_actions(w, i);
    k->sealed = e.count + s.count > k->sealed ? e.count + s.count : k->sealed;
    w->sealed_records += s.count;
    w->r->segments++;
    w->r->records += s.count;
    w->r->late_records += w->now >= w->o.duration_ns / 2 ? s.count : 0;
}

/* ---- neighbours ---- */
static bool linked(const struct world *w, const struct peer *p, uint32_t to)
{
    for (uint32_t k = 0; k < p->n_links; k++)
        if (w->links[p->links[k]].a == to || w->links[p->links[k]].b == to)
            return true;
    return false;
}

static void dial(struct world *w, uint32_t i)
{
    struct peer *p = &w->peers[i];
    for (uint32_t k = 0; k < p->n_links;) { /* heartbeats give up on a silent link */
        struct link *l = &w->links[p->links[k]];
        if (!blocked(w, l->a, l->b) && !blocked(w, l->b, l->a))
            l->blocked_since = 0;
        else if (l->blocked_since == 0)
            l->blocked_since = w->now;
        if (l->blocked_since && w->now - l->blocked_since > 30 * SECOND)
            link_close(w, p->links[k]);
        else
            k++;
    }
    /* Now and then a neighbour is exchanged, as daemons do: a random graph of small degree can be in two parts. */
    if (p->dialled == w->o.degree && chance(w, w->o.rotate))
        for (uint32_t k = 0; k < p->n_links; k++)
            if (w->links[p->links[k]].a == i) {
                link_close(w, p->links[k]);
                break;
            }
    for (uint32_t tries = 0; p->dialled < w->o.degree && tries < 8; tries++) {
        const uint32_t to = (uint32_t)draw(w, w->o.peers);
        struct peer *q = &w->peers[to];
        if (to == i || !q->alive || !q->listens || linked(w, p, to) || blocked(w, i, to) ||
            blocked(w, to, i) || q->n_links >= LIMIT_LINKS / 2 || p->n_links >= LIMIT_LINKS / 2 ||
            p->key == q->key)
            continue;
        if (w->n_links == w->links_capacity) {
            w->links_capacity = w->links_capacity ? 2 * w->links_capacity : 256;
            w->links = realloc(w->links, w->links_capacity * sizeof *w->links);
            ENSURE(w->links != NULL);
        }
        const uint32_t id = w->n_links++;
        w->links[id] = (struct link){.a = i, .b = to, .up = true};
        p->links[p->n_links++] = id;
        q->links[q->n_links++] = id;
        p->dialled++;
        ENSURE(net_gossip_link_up(q->g, id, w->keys[p->key].id, false, peer_now(w, q)) == ERR_OK);
        ENSURE(net_gossip_link_up(p->g, id, w->keys[q->key].id, true, peer_now(w, p)) == ERR_OK);
        drain_actions(w, to);
        drain_actions(w, i);
    }
    schedule(w, (struct event){.at = w->now + SECOND + draw(w, 2 * SECOND),
                               .kind = EV_DIAL,
                               .peer = i,
                               .life = p->life});
}

/* ---- faults, once a virtual second ---- */
static void retract(struct world *w)
{
    struct peer *p = &w->peers[0];
    uint8_t frame[NET_CONTROL_BYTES_MAX];
    struct key *k = &w->keys[draw(w, w->n_keys)];
    struct net_identity owner = {.sk = w->owner.sk};
    if (!p->alive)
        return;
    memcpy(owner.id, w->owner.id, 32);
    const size_t n = net_control_retract(frame, &w->rules, &owner, k->id, draw(w, k->sealed + 8));
    k->doubtful = true;
    (void)!net_gossip_control(p->g, frame, n, peer_now(w, p));
    drain_actions(w, 0);
}

/* The owner (at peer 0) names the state that its peer has now. */
static void checkpoint(struct world *w)
{
    const struct peer *p = &w->peers[0];
    uint8_t frame[NET_CONTROL_BYTES_MAX], state[32] = {0}, id[32];
    struct net_control c;
    struct net_identity owner = {.sk = w->owner.sk};
    if (!p->alive || p->liar)
        return;
    memcpy(owner.id, w->owner.id, 32);
    const size_t n = net_gossip_frontier(p->g, NET_ALL, NULL, 0);
    struct named *k = calloc(1, sizeof *k + n * sizeof *k->entries);
    ENSURE(k != NULL);
    k->n = net_gossip_frontier(p->g, NET_ALL, k->entries, n);
    k->number = w->named ? w->named->number + 1 : 1;
    k->state = p->state;
    net_gossip_frontier_digest(p->g, NET_ALL, k->frontier);
    bytes_put_le(state, k->state, 8);
    const size_t bytes = net_control_checkpoint(frame, &w->rules, &owner, k->number, k->frontier, state);
    ENSURE(net_control_parse(&c, frame, bytes) == ERR_OK);
    net_control_id(id, &c, &w->rules);
    memcpy(k->id, id, 8);
    k->next = w->named;
    w->named = k;
    w->r->checkpoints++;
    ENSURE(net_gossip_control(p->g, frame, bytes, peer_now(w, p)) == ERR_OK);
    drain_actions(w, 0);
}

struct way {
    struct peer at; /* only its state moves */
};

static void on_way(void *ctx, const uint8_t machine[32], const struct net_segment *s, const uint8_t *counts, bool subtract)
{
    struct way *y = ctx;
    struct net_action a = {.segment = s, .counts = counts};
    memcpy(a.machine, machine, 32);
    fold(&y->at, &a, !subtract);
}

/* The state at the checkpoint's frontier, from where this peer is now: equal to the one named, or not to be had. */
static bool rebuild(struct world *w, uint32_t i, const struct named *k)
{
    const struct peer *p = &w->peers[i];
    struct way y = {.at = {.state = p->state}};
    const size_t n = net_gossip_frontier(p->g, NET_ALL, NULL, 0);
    struct net_frontier_entry *from = calloc(n + 1, sizeof *from);
    ENSURE(from != NULL);
    (void)net_gossip_frontier(p->g, NET_ALL, from, n);
    const enum err e = net_gossip_way(p->g, from, n, k->entries, k->n, NULL, on_way, &y);
    free(from);
    if (e != ERR_OK)
        return false;
    w->r->rebuilt++;
    if (y.at.state != k->state)
        fail(w, "peer %u reaches another state at checkpoint %llu than was named", i, (unsigned long long)k->number);
    return true;
}

/* What a daemon does in between: scores one part of the newest checkpoint it knows, if there is one for it. */
static void score(struct world *w, uint32_t i)
{
    const struct peer *p = &w->peers[i];
    struct net_control c;
    const uint8_t *checkpoint_frame;
    uint8_t frame[NET_SCORE_BYTES], candidates[64][32];
    const size_t bytes = net_gossip_checkpoint(p->g, &checkpoint_frame);
    const struct named *k = w->named;
    if (bytes == 0 || net_control_parse(&c, checkpoint_frame, bytes) != ERR_OK)
        return;
    while (k && k->number != c.number)
        k = k->next;
    ENSURE(k != NULL); /* nobody else can sign one */
    const size_t n = k->n < 64 ? k->n : 64;
    for (size_t j = 0; j < n; j++)
        memcpy(candidates[j], k->entries[j].machine, 32);
    const int part = net_scores_duty(net_gossip_scores(p->g), c.number, w->keys[p->key].id, (const uint8_t(*)[32])candidates, n, 0,
                                     draw(w, 4) ? SECOND : 0, SECOND);
    if (part < 0 || !rebuild(w, i, k))
        return;
    struct net_score s = {.number = c.number, .part = (uint32_t)part, .total = 64, .finite = 4, .terms = 40};
    struct net_identity identity = {.sk = w->keys[p->key].sk};
    memcpy(identity.id, w->keys[p->key].id, 32);
    memcpy(s.checkpoint, k->id, 8);
    s.nats = (k->state >> 40) + (uint64_t)part; /* what an honest evaluation says follows from the state */
    s.nats += p->liar ? draw(w, 1000) : 0;
    net_score_sign(&s, &w->rules, &identity);
    net_score_write(frame, &s);
    const enum err e = net_gossip_control(p->g, frame, sizeof frame, peer_now(w, p));
    ENSURE(e == ERR_OK || e == ERR_RANGE || e == ERR_AGAIN);
    drain_actions(w, i);
}

static void scores(struct world *w)
{
    for (uint32_t i = 0; w->named && i < w->o.peers; i++)
        if (w->peers[i].alive && w->now >= w->peers[i].paused_until && draw(w, 4) == 0)
            score(w, i);
}

static void faults(struct world *w)
{
    if (w->healing)
        return;
    scores(w);
    for (uint32_t i = 0; i < w->o.peers; i++) {
        struct peer *p = &w->peers[i];
        if (!p->alive)
            continue;
        if (chance(w, w->o.crash / 60))
            crash(w, i);
        else if (chance(w, w->o.pause / 60))
            p->paused_until = w->now + draw(w, 20 * SECOND);
        else if (chance(w, w->o.jump / 60))
            p->skew_ns += draw(w, 4) == 0 ? draw(w, 3600 * SECOND) : draw(w, SECOND);
    }
    if (w->parted && w->now >= w->part_until)
        w->parted = false;
    if (!w->parted && chance(w, w->o.partition / 60)) {
        w->parted = true;
        w->one_way = draw(w, 2);
        w->part_until = w->now + draw(w, 90 * SECOND);
        const uint64_t cut = draw(w, 3) ? 32768 : 65536 / w->o.peers;
        for (uint32_t i = 0; i < w->o.peers; i++)
            w->group[i] = chance(w, cut);
    }
    if (chance(w, w->o.retract / 60))
        retract(w);
    if (chance(w, w->o.checkpoint / 60))
        checkpoint(w);
    schedule(w, (struct event){.at = w->now + SECOND, .kind = EV_FAULTS});
}

/* ---- what must hold ---- */
struct seen {
    uint8_t frontier[32];
    uint64_t state;
    struct net_clock clock;
    uint32_t peer;
};

/* Equal frontiers have equal states and clocks.  full: states are recomputed from what is held. */
static size_t check_safety(struct world *w, bool full)
{
    struct seen *seen = calloc(w->o.peers, sizeof *seen);
    size_t n = 0;
    ENSURE(seen != NULL);
    for (uint32_t i = 0; i < w->o.peers; i++) {
        struct seen s = {.peer = i};
        size_t k = 0;
        if (!w->peers[i].alive || w->peers[i].liar)
            continue;
        net_gossip_frontier_digest(w->peers[i].g, NET_ALL, s.frontier);
        net_gossip_clock(w->peers[i].g, &s.clock);
        s.state = w->peers[i].state;
        if (full && state_again(&w->peers[i]) != s.state)
            fail(w, "peer %u folded something else than it holds", i);
        while (k < n && memcmp(seen[k].frontier, s.frontier, 32) != 0)
            k++;
        if (k == n)
            seen[n++] = s;
        else if (seen[k].state != s.state)
            fail(w, "peers %u and %u: equal frontiers, different states", seen[k].peer, i);
        else if (seen[k].clock.lo != s.clock.lo || seen[k].clock.hi != s.clock.hi)
            fail(w, "peers %u and %u: equal frontiers, different clocks", seen[k].peer, i);
    }
    free(seen);
    return n; /* distinct frontiers */
}

/* Do all hold the same checkpoint and the same scores? */
static bool same_scores(const struct world *w)
{
    const uint8_t *frame, *first_frame = NULL;
    uint8_t digest[16], first[16];
    size_t first_n = 0;
    bool any = false;
    for (uint32_t i = 0; i < w->o.peers; i++) {
        const struct peer *p = &w->peers[i];
        if (!p->alive || p->liar)
            continue;
        const size_t n = net_gossip_checkpoint(p->g, &frame);
        net_gossip_scores_digest(p->g, digest);
        if (any && (n != first_n || memcmp(frame, first_frame, n) != 0 || memcmp(digest, first, 16) != 0))
            return false;
        any = true;
        first_frame = frame;
        first_n = n;
        memcpy(first, digest, 16);
    }
    return true;
}

/* The newest checkpoint can be had from where everybody is now, unless a cut came after it; and the scores tell what was scored. */
static void check_checkpoints(struct world *w)
{
    struct net_score_point point;
    uint32_t i = 0;
    while (i < w->o.peers && (!w->peers[i].alive || w->peers[i].liar))
        i++;
    for (const struct named *k = w->named; k; k = k->next)
        (void)rebuild(w, i, k);
    for (uint64_t from = 0; net_scores_point(net_gossip_scores(w->peers[i].g), from, &point); from = point.number + 1) {
        w->r->scores += point.reporters;
        if (w->o.liars == 0 && point.compared > 0 && point.spread > 1e-9)
            fail(w, "honest machines differ by %g at checkpoint %llu", point.spread, (unsigned long long)point.number);
    }
}

/* No honest machine is cut, and all it sealed is held. */
static void check_feeds(struct world *w)
{
    uint32_t i = 0;
    while (i < w->o.peers && (!w->peers[i].alive || w->peers[i].liar))
        i++;
    for (uint32_t k = 0; k < w->n_keys; k++) {
        const struct key *key = &w->keys[k];
        struct net_frontier_entry e = {.cut = UINT64_MAX};
        (void)net_gossip_feed(w->peers[i].g, key->id, &e);
        w->r->cuts += e.cut != UINT64_MAX;
        if (key->doubtful)
            continue;
        if (e.cut != UINT64_MAX)
            fail(w, "machine %u is honest and was cut at %llu", k, (unsigned long long)e.cut);
        if (e.count > key->sealed || (!key->retired && e.count < key->sealed))
            fail(w, "machine %u sealed %llu records, %llu are held", k,
                 (unsigned long long)key->sealed, (unsigned long long)e.count);
    }
    net_gossip_frontier_digest(w->peers[i].g, NET_ALL, (uint8_t[32]){0});
    w->r->digest = mix(w->peers[i].state ^ mix(w->r->frames) ^ mix(w->r->bytes + 1));
}

static void heal(struct world *w)
{
    w->healing = true;
    w->parted = false;
    w->o.loss = w->o.doubled = w->o.late = 0;
    for (uint32_t i = 0; i < w->o.peers; i++)
        w->peers[i].paused_until = 0;
}

static void one_event(struct world *w)
{
    struct event e = take(w);
    struct peer *p = &w->peers[e.peer];
    w->now = e.at;
    w->r->events++;
    if (e.kind == EV_FAULTS) {
        faults(w);
        return;
    }
    if (e.kind == EV_RESTART && !p->alive && e.life == p->life) {
        birth(w, e.peer);
        return;
    }
    if (e.kind != EV_FRAME && (!p->alive || e.life != p->life))
        return;
    if (p->alive && w->now < p->paused_until &&
        e.kind != EV_RESTART) { /* stopped process: everything waits */
        e.at = p->paused_until;
        schedule(w, e);
        return;
    }
    switch (e.kind) {
    case EV_FRAME:
        if (p->alive && w->links[e.link].up &&
            (w->links[e.link].a == e.peer || w->links[e.link].b == e.peer)) {
            net_gossip_frame(p->g, e.link, e.frame->data, e.frame->n, peer_now(w, p));
            drain_actions(w, e.peer);
        }
        if (--e.frame->references == 0)
            free(e.frame);
        break;
    case EV_TICK:
        if (p->tick_at == e.at) {
            p->tick_at = 0;
            net_gossip_tick(p->g, peer_now(w, p));
            drain_actions(w, e.peer);
        }
        break;
    case EV_SEAL:
        if (!w->healing) {
            seal(w, e.peer);
            e.at = w->now + 1 + draw(w, 2 * w->o.seal_ns);
            schedule(w, e);
        }
        break;
    case EV_DIAL:
        dial(w, e.peer);
        break;
    case EV_FLUSH:
        p->durable = p->n_rows;
        e.at = w->now + SECOND + draw(w, SECOND);
        schedule(w, e);
        break;
    default:
        break;
    }
}

static void begin(struct world *w)
{
    uint8_t seed[32] = {1};
    bytes_put_le(seed + 8, w->o.seed, 8);
    ENSURE(crypto_sign_seed_keypair(w->owner.id, w->owner.sk, seed) == 0);
    bytes_put_le(w->rules.run_id, mix(w->o.seed), 8);
    memcpy(w->rules.owner, w->owner.id, 32);
    w->rules.n0 = 64;
    w->rules.steps = 1000000;
    w->rules.share_65536 = w->o.tight ? 4096 : 65536;
    w->rules.burst = w->o.tight ? 2 : 1u << 20;
    w->rules.records_max = 1u << 24;
    w->rules.k = w->o.k;
    w->rules.sync = w->o.sync;
    w->rules.admission = w->o.invite ? NET_INVITE : NET_OPEN;
    w->pool.bits = 16;
    w->pool.slot = calloc((size_t)1 << w->pool.bits, sizeof *w->pool.slot);
    w->peers = calloc(w->o.peers, sizeof *w->peers);
    ENSURE(w->pool.slot != NULL);
    ENSURE(w->peers != NULL);
    for (uint32_t i = 0; i < w->o.peers; i++) {
        struct peer *p = &w->peers[i];
        const bool twin = i > 1 && i <= 1 + w->o.twins;
        p->key = twin ? w->peers[i - 1].key : new_key(w);
        if (twin)
            w->keys[p->key].doubtful = w->keys[p->key].twin = true;
        p->liar = i + w->o.liars >= w->o.peers;
        w->keys[p->key].retired = p->liar;
        p->listens = i < 3 || !chance(w, w->o.nat);
    }
    for (uint32_t i = 0; i < w->o.peers; i++)
        birth(w, i);
    schedule(w, (struct event){.at = SECOND, .kind = EV_FAULTS});
}

static void end(struct world *w)
{
    for (uint32_t i = 0; i < w->o.peers; i++) {
        if (w->peers[i].alive)
            death(w, i);
        rows_cut(w, &w->peers[i], 0);
        free(w->peers[i].rows);
    }
    while (w->n_heap > 0) {
        struct event e = take(w);
        if (e.kind == EV_FRAME && --e.frame->references == 0)
            free(e.frame);
    }
    ENSURE(w->pool.n == 0); /* nothing leaked */
    while (w->named) {
        struct named *k = w->named;
        w->named = k->next;
        free(k);
    }
    free(w->pool.slot);
    free(w->heap);
    free(w->keys);
    free(w->peers);
    free(w->links);
    free(w->latency);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

void world_run(const struct world_options *o, struct world_result *r)
{
    struct world w = {.o = *o, .r = r, .random = mix(o->seed + 1)};
    uint64_t check_at = 10 * SECOND, agreed_at = 0;
    *r = (struct world_result){0};
    ENSURE(o->peers >= 2 && o->peers <= ARRAY_LEN(w.group));
    begin(&w);
    while (!w.failed && w.n_heap > 0) {
        one_event(&w);
        if (!w.healing && w.now >= o->duration_ns)
            heal(&w);
        if (w.now < check_at)
            continue;
        const bool late = w.healing;
        const size_t distinct = check_safety(&w, false);
        check_at = w.now + (late ? SECOND / 2 : 10 * SECOND);
        if (!late)
            continue;
        uint32_t up = 0;
        for (uint32_t i = 0; i < o->peers; i++)
            up += w.peers[i].alive;
        const bool whole = distinct == 1 && up == o->peers;
        if (whole && same_scores(&w)) {
            agreed_at = w.now;
            break;
        }
        if (w.now > o->duration_ns + o->heal_ns)
            fail(&w, "%zu different frontiers%s %llu s after healing", distinct, whole ? ", different scores" : "",
                 (unsigned long long)(o->heal_ns / SECOND));
    }
    if (!w.failed) {
        (void)check_safety(&w, true);
        check_feeds(&w);
        check_checkpoints(&w);
    }
    r->heal_took_ns = agreed_at - o->duration_ns;
    r->virtual_ns = w.now;
    if (w.n_latency > 0) {
        qsort(w.latency, w.n_latency, sizeof *w.latency, by_value);
        r->latency_p50_ns = w.latency[w.n_latency / 2];
        r->latency_p99_ns = w.latency[w.n_latency * 99 / 100];
        r->latency_max_ns = w.latency[w.n_latency - 1];
    }
    end(&w);
    r->ok = !w.failed;
}

void world_draw(struct world_options *o, uint64_t seed, uint32_t peers, uint64_t duration_ns)
{
    uint64_t s = mix(seed ^ UINT64_C(0x6f6e6562797465));
#define OFTEN(odds, most) (next(&s) % (odds) ? 0 : (uint32_t)(next(&s) % (most)))
    *o = (struct world_options){
        .seed = seed, .peers = peers, .duration_ns = duration_ns, .heal_ns = 300 * SECOND};
    o->degree = 2 + (uint32_t)(next(&s) % 4);
    o->seal_ns = SECOND + next(&s) % (10 * SECOND);
    o->k = 1 + (uint32_t)(next(&s) % 3);
    o->segment_max = 8 + (uint32_t)(next(&s) % 60);
    o->delay_ns = next(&s) % (SECOND / 5);
    o->jitter_ns = next(&s) % (SECOND / 5);
    o->loss = OFTEN(2, 65536 * 30 / 100);
    o->doubled = OFTEN(2, 65536 / 2);
    o->late = OFTEN(2, 65536 / 5);
    o->crash = OFTEN(2, 65536);
    o->pause = OFTEN(2, 65536);
    o->jump = OFTEN(2, 65536);
    o->rollback = OFTEN(2, 32768);
    o->wiped = OFTEN(2, 32768);
    o->damage = OFTEN(2, 2000);
    o->partition = OFTEN(2, 3 * 65536);
    o->retract = OFTEN(2, 2 * 65536);
    o->twins = OFTEN(2, 4);
    o->liars = OFTEN(2, peers / 5 + 1);
    o->nat = OFTEN(2, 60000);
    o->rotate = 1024; /* always: a random graph of small degree can fall in two parts */
    o->sync = next(&s) % 4 == 0;
    o->invite = next(&s) % 3 == 0;
    o->tight = next(&s) % 3 == 0;
    o->checkpoint = OFTEN(2, 6 * 65536);
#undef OFTEN
}
