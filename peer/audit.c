#include "peer/audit.h"
#include "peer/device.h"
#include "peer/group.h"
#include <stdlib.h>
#include <string.h>

void peer_audit_work_free(struct peer_audit_work *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->n_diff; i++)
        peer_msg_free(w->diff[i]);
    free(w->diff);
    free(w->frontier);
    free(w);
}

void peer_audit_collect(void *ctx, const uint8_t machine[32], const struct net_segment *s, const uint8_t *counts, bool subtract)
{
    struct peer_audit_work *w = ctx;
    const size_t bytes = sizeof **w->diff + 2 * (size_t)s->count;
    if (w->failed)
        return;
    if (w->n_diff == w->diff_max) {
        const size_t n = w->diff_max ? 2 * w->diff_max : 64;
        struct peer_msg_fold **p = realloc(w->diff, n * sizeof(struct peer_msg_fold *)); /* NOLINT(bugprone-sizeof-expression): pointers are meant */
        w->failed = !p;
        if (!p)
            return;
        w->diff = p;
        w->diff_max = n;
    }
    struct peer_msg_fold *m =
        w->diff_bytes + bytes <= w->diff_bytes_max ? peer_msg_fold_new(machine, s, counts, subtract) : NULL;
    w->failed = !m;
    if (!m)
        return;
    w->diff[w->n_diff++] = m;
    w->diff_bytes += bytes;
}

static struct net_frontier_entry entry_or_none(const uint8_t *bytes, bool have, const uint8_t machine[32])
{
    struct net_frontier_entry e = {.cut = UINT64_MAX};
    memcpy(e.machine, machine, 32);
    if (have)
        peer_frontier_get(bytes, 0, &e);
    return e;
}

enum err peer_audit_between(const struct net_gossip *g, const uint8_t *from, size_t n_from, const uint8_t *to, size_t n_to,
                            const struct net_branch *branches, size_t n, net_between_row *row, void *ctx, uint8_t missing[32])
{
    for (size_t a = 0, b = 0; a < n_from || b < n_to;) {
        const int c = a == n_from ? 1 : b == n_to ? -1 : memcmp(from + a, to + b, 32);
        const uint8_t *machine = c <= 0 ? from + a : to + b;
        const struct net_frontier_entry x = entry_or_none(from + a, c <= 0, machine), y = entry_or_none(to + b, c >= 0, machine);
        const enum err e = net_gossip_between(g, &x, &y, branches, n, row, ctx);
        if (e != ERR_OK) {
            if (missing)
                memcpy(missing, machine, 32);
            return e;
        }
        a += c <= 0 ? PEER_FRONTIER_ENTRY : 0;
        b += c >= 0 ? PEER_FRONTIER_ENTRY : 0;
    }
    return ERR_OK;
}

bool peer_frontier_sorted(const uint8_t *frontier, size_t n)
{
    if (n % PEER_FRONTIER_ENTRY != 0)
        return false;
    for (size_t i = PEER_FRONTIER_ENTRY; i < n; i += PEER_FRONTIER_ENTRY)
        if (memcmp(frontier + i - PEER_FRONTIER_ENTRY, frontier + i, 32) >= 0)
            return false;
    return true;
}

enum err peer_audit_measure(struct peer_engine *e, const struct zo_dataset *d, const uint32_t key[2], const uint64_t *seqs, size_t n,
                            double *g, double *loss)
{
    const struct zo_rules *r = &e->manifest->rules;
    const uint32_t per = peer_group_passes_n(r);
    struct zo_pass *passes = calloc(n * per + 1, sizeof *passes);
    struct zo_loss *losses = calloc(n * per + 1, sizeof *losses);
    enum err err = passes && losses ? ERR_OK : ERR_NOMEM;
    for (size_t i = 0; err == ERR_OK && i < n; i++)
        peer_group_passes(passes + i * per, r, d, key, seqs[i]);
    if (err == ERR_OK && n > 0)
        err = peer_engine_losses(e, passes, n * per, losses);
    for (size_t i = 0; err == ERR_OK && i < n; i++)
        loss[i] = peer_group_project(g + i * r->k, r, losses + i * per);
    free(passes);
    free(losses);
    return err;
}

/* ---- branches ---- */

enum err peer_branches_add(struct peer_branches *b, const uint8_t machine[32], const uint8_t *wire, size_t n)
{
    if (b->n == b->n_max) {
        const size_t room = b->n_max ? 2 * b->n_max : 64;
        struct net_branch *p = realloc(b->b, room * sizeof *p);
        if (!p)
            return ERR_NOMEM;
        b->b = p;
        b->n_max = room;
    }
    uint8_t *copy = malloc(n + 1);
    if (!copy)
        return ERR_NOMEM;
    memcpy(copy, wire, n);
    b->b[b->n] = (struct net_branch){.wire = copy, .n = n};
    memcpy(b->b[b->n++].machine, machine, 32);
    return ERR_OK;
}

static bool add_row(void *ctx, const uint8_t machine[32], const uint8_t *wire, size_t n, int64_t unix_ms)
{
    (void)unix_ms;
    return peer_branches_add(ctx, machine, wire, n) == ERR_OK;
}

enum err peer_branches_ledger(struct peer_branches *b, struct net_ledger *l)
{
    return net_ledger_each_branch(l, add_row, b);
}

void peer_branches_free(struct peer_branches *b)
{
    for (size_t i = 0; i < b->n; i++)
        free((void *)(uintptr_t)b->b[i].wire); /* ours: only lent out as const */
    free(b->b);
    *b = (struct peer_branches){.b = NULL};
}
