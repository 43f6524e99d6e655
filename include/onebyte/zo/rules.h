/* zo/rules.h -- what arithmetic reads of a run's manifest, and the integer coefficients of SPEC 4.
 *
 * Everything here is integer arithmetic: the same bits on every machine.  Source: SPEC 1, 4;
 * DESIGN 3. */
#ifndef ONEBYTE_ZO_RULES_H
#define ONEBYTE_ZO_RULES_H
#include <onebyte/base/err.h>
#include <onebyte/base/limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum zo_direction { ZO_RANK1, ZO_RADEMACHER, ZO_GAUSSIAN };

/* A trainable tensor as stored in the checkpoint.  theta = m * 2^-e. */
struct zo_tensor {
    char name[LIMIT_NAME_BYTES + 1];
    uint32_t n_dims; /* 0: a scalar */
    uint64_t dims[LIMIT_TENSOR_DIMS];
    uint32_t bits; /* 32 or 64: width of m */
    uint32_t e;    /* 0..61 */
};

struct zo_knot {
    uint64_t step, y; /* y < 2^62 */
};

struct zo_rules {
    enum zo_direction direction;
    uint32_t sides; /* 1 or 2 */
    uint32_t k;     /* directions per example: 1 when sides == 2 */
    uint64_t n0, steps;
    uint64_t unit; /* fixed unit of g in multiples of 2^-24; 0: rms (manifest null) */
    float eps;     /* measurement only; never read by the state's arithmetic */
    float lora_scale; /* alpha / r of the tensors that are adapters; 0: none are.  Measurement only */
    uint32_t n_knots;
    struct zo_knot knots[LIMIT_KNOTS];
    uint32_t n_tensors;
    struct zo_tensor
        *tensors; /* [n_tensors], in byte order of their names; owned by whoever filled it */
};

/* Rows and columns of a tensor (SPEC 2): N-D is (d0, product of the rest); vectors are (n, 1). */
bool zo_tensor_is_matrix(const struct zo_tensor *t); /* two or more dimensions */
uint64_t zo_tensor_rows(const struct zo_tensor *t);
uint64_t zo_tensor_cols(const struct zo_tensor *t);
uint64_t zo_tensor_elements(const struct zo_tensor *t);

uint64_t zo_lambda(const struct zo_rules *r, uint64_t step);    /* SPEC 4: 0 from `steps` on */
uint64_t zo_weight(uint64_t n0, uint64_t lag);                  /* W, 32-bit fixed point */
uint64_t zo_coef(uint64_t lambda, uint64_t weight, uint32_t e); /* L before the energy bound */

/* The energy bound of SPEC 4 as a factor in 1/65536 (ZO_ENERGY_ONE: none), the same for all tensors
 * of the segment. codes [count], cut or not; void = -128.  No bound when r->unit != 0. */
#define ZO_ENERGY_ONE 65536u
uint32_t zo_energy_factor(const struct zo_rules *r, const int8_t *codes, size_t count);
uint64_t zo_coef_scaled(uint64_t coef, uint32_t factor); /* (coef * factor) >> 16 */
/* Both in one: L after the bound. */
uint64_t zo_coef_bounded(const struct zo_rules *r, uint64_t coef, const int8_t *codes,
                         size_t count);

/* Example of a public data set of n examples that record seq of this key measures: SPEC 2, domain
 * data. */
uint64_t zo_example_index(const struct zo_rules *r, const uint32_t key[2], uint64_t seq,
                          uint64_t n);
#endif
