/* peer/group.h -- one group of K records: the passes that measure it, and its projected gradients.
 *
 *     two sides:  g = (L(+eps z) - L(-eps z)) / (2 eps)                 passes: +, -
 *     one side:   g_k = (L(eps z_k) - L(0)) / eps less the group's mean   passes: plain, then K        DESIGN 3
 * What the author measures and what an audit measures again: the same code.  Pure; any thread. */
#ifndef PEER_GROUP_H
#define PEER_GROUP_H
#include <onebyte/zo/dataset.h>
#include <onebyte/zo/model.h>
#include <onebyte/zo/rules.h>
#include <stdint.h>

uint32_t peer_group_passes_n(const struct zo_rules *r); /* passes of one group */
/* p [passes_n] <- the passes of the records seq .. seq + K - 1 of the machine with this key. */
void peer_group_passes(struct zo_pass *p, const struct zo_rules *r, const struct zo_dataset *d, const uint32_t key[2],
                       uint64_t seq);
/* g [K] <- from the losses [passes_n] of one group (NaN: void); returns the unperturbed loss, or the mean of the two sides. */
double peer_group_project(double *g, const struct zo_rules *r, const struct zo_loss *l);
#endif
