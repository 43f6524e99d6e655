#include "core.h"

void net_queue_release(struct net_queue *q)
{
    free(q->a);
    free(q->arena);
    *q = (struct net_queue){0};
}

static uint8_t *grown(uint8_t *p, size_t *capacity, size_t need, size_t item)
{
    size_t c = *capacity ? *capacity : 64;
    while (c < need)
        c *= 2;
    uint8_t *q = realloc(p, c * item);
    if (q)
        *capacity = c;
    return q;
}

size_t net_queue_bytes(struct net_queue *q, const uint8_t *p, size_t n)
{
    if (q->arena_n + n > q->arena_capacity) {
        uint8_t *a = grown(q->arena, &q->arena_capacity, q->arena_n + n, 1);
        if (!a) {
            q->lost = true;
            return SIZE_MAX;
        }
        q->arena = a;
    }
    const size_t at = q->arena_n;
    if (n > 0)
        memcpy(q->arena + at, p, n);
    q->arena_n += n;
    return at;
}

void net_queue_push(struct net_queue *q, const struct net_queued *a)
{
    if (a->at == SIZE_MAX || (a->has_counts && a->counts_at == SIZE_MAX))
        return;
    if (q->n == q->capacity) {
        uint8_t *p = grown((uint8_t *)q->a, &q->capacity, q->n + 1, sizeof *q->a);
        if (!p) {
            q->lost = true;
            return;
        }
        q->a = (struct net_queued *)(void *)p;
    }
    q->a[q->n++] = *a;
}

bool net_queue_take(struct net_gossip *g, struct net_action *out)
{
    struct net_queue *q = &g->queue;
    if (q->head == q->n) {
        q->head = q->n = q->arena_n = 0; /* all was carried out: what was lent may go */
        return false;
    }
    const struct net_queued *a = &q->a[q->head++];
    *out = (struct net_action){
        .kind = a->kind, .link = a->link, .seq = a->seq, .reason = a->reason, .blame = a->blame};
    memcpy(out->machine, a->machine, 32);
    out->frame = a->bytes ? q->arena + a->at : NULL;
    out->frame_bytes = a->bytes;
    if (a->kind == NET_STORE || a->kind == NET_FOLD || a->kind == NET_UNFOLD) {
        ENSURE(net_segment_parse(&g->taken, out->frame, out->frame_bytes) == ERR_OK);
        out->segment = &g->taken;
    }
    if (a->has_counts)
        out->counts = q->arena + a->counts_at;
    return true;
}

void net_send_at(struct net_gossip *g, const struct net_link *l, size_t at, size_t n)
{
    net_queue_push(&g->queue,
                   &(struct net_queued){.kind = NET_SEND, .link = l->id, .at = at, .bytes = n});
    g->count.frames_out++;
    g->count.bytes_out += n;
}

void net_send(struct net_gossip *g, const struct net_link *l, const uint8_t *frame, size_t n)
{
    ENSURE(n > 0);
    ENSURE(n <= LIMIT_FRAME_BYTES);
    net_send_at(g, l, net_queue_bytes(&g->queue, frame, n), n);
}
