/* zo/plan.h -- private: the counting records of many segments, sorted so that equal coefficients
 * lie together. */
#ifndef ZO_PLAN_H
#define ZO_PLAN_H
#include "zo/kernels/kernels.h"

#include <onebyte/base/err.h>
#include <onebyte/zo/state.h>

/* Records that share a coefficient in every tensor. */
struct zo_class {
    uint64_t lambda, weight;
    uint32_t factor; /* energy bound, in 1/65536 */
    size_t first, n; /* records */
};

struct zo_plan {
    const struct zo_rules *rules;
    struct zo_records records; /* padded: readable a whole tile of records beyond the last */
    size_t n_records;
    struct zo_class *classes;
    size_t n_classes;
    void *memory; /* what all the arrays above lie in */
};

/* Void, cut and zero records are left out; those to subtract have their sign turned.  ERR_NOMEM. */
NODISCARD enum err zo_plan_new(struct zo_plan *p, const struct zo_rules *rules,
                               const struct zo_fold *folds, size_t n);
void zo_plan_free(struct zo_plan *p);

/* L of a class in a tensor of exponent e. */
uint64_t zo_class_coef(const struct zo_class *c, uint32_t e);

/* A run of records with one coefficient in one tensor. */
struct zo_run {
    size_t first, n;
    uint64_t coef;
    size_t next_class; /* private */
};
/* The next run of tensor t with a coefficient other than 0; false: none left.  Start with a zeroed
 * run. */
bool zo_plan_next(const struct zo_plan *p, uint32_t t, struct zo_run *run);

/* acc [ZO_DENSE_CHUNK] <- sum of v h over records at .. at + n - 1, for the chunk of tensor t from
 * element `first` (a multiple of ZO_DENSE_CHUNK) on, of the dense kind of the run: in zo/fold.c.  n
 * <= 2^18. */
void zo_fold_chunk(int32_t *acc, const struct zo_plan *plan, uint32_t t, uint64_t first, size_t at,
                   size_t n, const struct zo_kernels *k);
#endif
