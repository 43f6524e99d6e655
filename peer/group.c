#include "peer/group.h"
#include <onebyte/zo/codec.h>

uint32_t peer_group_passes_n(const struct zo_rules *r)
{
    return r->sides == 2 ? 2 : r->k + 1;
}

void peer_group_passes(struct zo_pass *p, const struct zo_rules *r, const struct zo_dataset *d, const uint32_t key[2],
                       uint64_t seq)
{
    const uint64_t i = zo_example_index(r, key, seq, zo_dataset_size(d));
    const struct zo_pass base = {.example = zo_dataset_get(d, i), .key = {key[0], key[1]}, .seq = seq, .eps = 0};
    const uint32_t n = peer_group_passes_n(r);
    for (uint32_t j = 0; j < n; j++)
        p[j] = base;
    if (r->sides == 2) {
        p[0].eps = r->eps;
        p[1].eps = -r->eps;
        return;
    }
    for (uint32_t j = 1; j < n; j++) {
        p[j].eps = r->eps;
        p[j].seq = seq + j - 1;
    }
}

double peer_group_project(double *g, const struct zo_rules *r, const struct zo_loss *l)
{
    double loss[LIMIT_SEGMENT_COUNT];
    if (r->sides == 2) {
        g[0] = zo_project_two_sided(l[0].loss, l[1].loss, (double)r->eps);
        return (l[0].loss + l[1].loss) / 2;
    }
    for (uint32_t j = 0; j < r->k; j++)
        loss[j] = l[j + 1].loss;
    zo_project_one_sided(g, loss, l[0].loss, (double)r->eps, r->k);
    return l[0].loss;
}
