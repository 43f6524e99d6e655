/* zo/plan.c -- segments to classes of records with equal coefficients. */
#include "zo/plan.h"

#include <onebyte/zo/codec.h>
#include <stdlib.h>
#include <string.h>

static bool counts(const struct zo_fold *f, size_t i)
{
    return f->codes[i] != ZO_CODE_VOID && f->codes[i] != 0 && (!f->counts || f->counts[i] != 0);
}

/* One fold with what its coefficient depends on. */
struct ranked {
    const struct zo_fold *fold;
    uint64_t lambda, weight;
    uint32_t factor;
};

static int compare(const void *pa, const void *pb)
{
    const struct ranked *a = pa, *b = pb;
    if (a->lambda != b->lambda)
        return a->lambda < b->lambda ? -1 : 1;
    if (a->weight != b->weight)
        return a->weight < b->weight ? -1 : 1;
    return (a->factor > b->factor) - (a->factor < b->factor);
}

static enum err rank(struct ranked **ranked, const struct zo_rules *rules,
                     const struct zo_fold *folds, size_t n)
{
    struct ranked *r = calloc(n ? n : 1, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        r[i] = (struct ranked){.fold = &folds[i],
                               .lambda = zo_lambda(rules, folds[i].step),
                               .weight = zo_weight(rules->n0, folds[i].lag),
                               .factor = zo_energy_factor(rules, folds[i].codes, folds[i].count)};
    qsort(r, n, sizeof *r, compare);
    *ranked = r;
    return ERR_OK;
}

static void add_records(struct zo_plan *p, uint32_t *const lanes[4], int8_t *v,
                        const struct zo_fold *f)
{
    for (uint32_t i = 0; i < f->count; i++) {
        if (!counts(f, i))
            continue;
        const uint64_t seq = f->first_seq + i;
        lanes[0][p->n_records] = f->key[0];
        lanes[1][p->n_records] = f->key[1];
        lanes[2][p->n_records] = (uint32_t)seq;
        lanes[3][p->n_records] = (uint32_t)(seq >> 32);
        v[p->n_records++] = (int8_t)(f->subtract ? -f->codes[i] : f->codes[i]);
    }
}

/* Compared with the class, not with the fold before: that one may have had no counting record and
 * opened no class. */
static bool same_class(const struct zo_class *c, const struct ranked *r)
{
    return c->lambda == r->lambda && c->weight == r->weight && c->factor == r->factor;
}

enum err zo_plan_new(struct zo_plan *p, const struct zo_rules *rules, const struct zo_fold *folds,
                     size_t n)
{
    struct ranked *ranked;
    size_t n_max = 0;
    for (size_t i = 0; i < n; i++)
        n_max += folds[i].count;
    const size_t padded = n_max + ZO_TILE_RECORDS + 64;
    TRY(rank(&ranked, rules, folds, n));
    const size_t classes_bytes = (n ? n : 1) * sizeof(struct zo_class);
    uint8_t *memory = calloc(1, classes_bytes + padded * (4 * sizeof(uint32_t) + 1));
    if (!memory) {
        free(ranked);
        return ERR_NOMEM;
    }
    *p = (struct zo_plan){
        .rules = rules, .memory = memory, .classes = (struct zo_class *)(void *)memory};
    uint32_t *lanes[4];
    for (size_t j = 0; j < 4; j++)
        lanes[j] = (uint32_t *)(void *)(memory + classes_bytes) + j * padded;
    int8_t *v = (int8_t *)(lanes[3] + padded);
    p->records = (struct zo_records){
        .key0 = lanes[0], .key1 = lanes[1], .seq_lo = lanes[2], .seq_hi = lanes[3], .v = v};
    for (size_t i = 0; i < n; i++) {
        const size_t before = p->n_records;
        add_records(p, lanes, v, ranked[i].fold);
        if (p->n_records == before)
            continue;
        if (p->n_classes == 0 || !same_class(&p->classes[p->n_classes - 1], &ranked[i]))
            p->classes[p->n_classes++] = (struct zo_class){.lambda = ranked[i].lambda,
                                                           .weight = ranked[i].weight,
                                                           .factor = ranked[i].factor,
                                                           .first = before};
        p->classes[p->n_classes - 1].n += p->n_records - before;
    }
    free(ranked);
    return ERR_OK;
}

void zo_plan_free(struct zo_plan *p)
{
    free(p->memory);
    p->memory = NULL;
}

uint64_t zo_class_coef(const struct zo_class *c, uint32_t e)
{
    return zo_coef_scaled(zo_coef(c->lambda, c->weight, e), c->factor);
}

static uint64_t class_coef(const struct zo_plan *p, uint32_t t, const struct zo_class *c)
{
    return zo_class_coef(c, p->rules->tensors[t].e);
}

bool zo_plan_next(const struct zo_plan *p, uint32_t t, struct zo_run *run)
{
    uint64_t coef = 0;
    size_t i = run->next_class;
    while (i < p->n_classes && (coef = class_coef(p, t, &p->classes[i])) == 0)
        i++;
    if (i == p->n_classes)
        return false;
    run->coef = coef;
    run->first = p->classes[i].first;
    run->n = 0;
    while (i < p->n_classes && class_coef(p, t, &p->classes[i]) == coef)
        run->n += p->classes[i++].n;
    run->next_class = i;
    return true;
}
