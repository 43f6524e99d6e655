/* zo/state.h -- the integer parameters: a pure function of base model and the records that count.
 *
 *     m -= v L h        for each counting record (v, segment, tensor)        SPEC 4
 *
 * The sum is commutative, associative and invertible mod 2^bits: any order, batching, thread count
 * or instruction set gives the same bits.  Source: DESIGN 3, SPEC 3, 4, 7, 8.  Threads: one caller;
 * work is split over the pool given to each call. */
#ifndef ONEBYTE_ZO_STATE_H
#define ONEBYTE_ZO_STATE_H
#include <onebyte/base/err.h>
#include <onebyte/zo/pool.h>
#include <onebyte/zo/rules.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct zo_kernels; /* zo/kernels/kernels.h, private */
const struct zo_kernels *
zo_kernels_pick(const char *name); /* "ref" | "avx2" | "avx512" | "auto"/NULL; NULL if unusable */
const char *zo_kernels_name(const struct zo_kernels *k);

struct zo_state {
    const struct zo_rules *rules; /* borrowed: outlives the state */
    void **m; /* [n_tensors] -> int32_t or int64_t [elements] in block, 64-byte aligned */
    void *block;            /* owned, as is m itself */
    uint32_t digest_key[2]; /* key of (run id, 32 zero bytes) */
};

/* One segment's worth of records, as the fold sees them. */
struct zo_fold {
    uint32_t key[2]; /* first 8 bytes of BLAKE2b(run id, machine id), two little-endian u32 */
    uint64_t first_seq;
    uint32_t count, step, lag;
    const int8_t *codes; /* [count]; -128 = void */
    const uint8_t
        *counts;   /* [count]: 1 = this record counts (SPEC 5), 0 = not; NULL: all non-void count */
    bool subtract; /* exact removal of what an earlier fold added */
};

/* Allocates all tensors as zeros.  Huge pages are asked for. */
NODISCARD enum err zo_state_new(struct zo_state **s, const struct zo_rules *rules,
                                const uint32_t digest_key[2]);
void zo_state_free(struct zo_state *s);

/* m0 of tensor t from exact values (SPEC 3): theta [n] starting at element `first`.
 * ERR_RANGE if a value is not finite or |m0| >= 2^(bits-4). */
NODISCARD enum err zo_state_load_f64(struct zo_state *s, uint32_t t, uint64_t first,
                                     const double *theta, size_t n);
/* The same from float (every f16, bf16 and f32 is exact in float). */
NODISCARD enum err zo_state_load_f32(struct zo_state *s, uint32_t t, uint64_t first,
                                     const float *theta, size_t n);
/* theta [n] <- m * 2^-e rounded to float once, of elements first.. of tensor t. */
void zo_state_read_f32(const struct zo_state *s, uint32_t t, uint64_t first, float *theta,
                       size_t n);

/* Folds n segments at once.  Scratch is allocated inside and bounded (a few MB per thread). */
NODISCARD enum err zo_state_fold(struct zo_state *s, const struct zo_fold *folds, size_t n,
                                 const struct zo_kernels *k, struct zo_pool *pool);

/* Digest recomputed from memory, mod p = 2^61 - 1. */
uint64_t zo_state_digest(const struct zo_state *s, const struct zo_kernels *k,
                         struct zo_pool *pool);
/* What these folds add to the digest (rank-1: from the factors; other kinds: by the dense sum); mod
 * p. ZO_DIGEST_UNKNOWN, which no residue equals, if memory is short. */
#define ZO_DIGEST_UNKNOWN UINT64_MAX
uint64_t zo_state_digest_delta(const struct zo_state *s, const struct zo_fold *folds, size_t n,
                               struct zo_pool *pool);

/* First tensor with |m| >= 2^(bits-2), or -1: the peer then stops contributing, not folding. */
int64_t zo_state_headroom(const struct zo_state *s, struct zo_pool *pool);
/* First tensor with |m| >= 2^below32 (32-bit ones) or 2^below64 (64-bit ones), or -1. */
int64_t zo_state_above(const struct zo_state *s, uint32_t below32, uint32_t below64,
                       struct zo_pool *pool);

/* Freivalds' check of a state that a stranger sent (DESIGN 3 "Trustless snapshots"), without
 * folding it:
 *
 *     u^T M w  =  u^T M0 w  -  sum v L (z^T u)(w)        per tensor, mod p = 2^61 - 1
 *
 * with u, w drawn from `key`.  The key must be secret and random, drawn after the last byte of M
 * was written down; then a wrong M passes with probability at most 2/p per tensor.  The joiner:
 * probes its base M0, sets the received bytes into the same state, and proves them.  For rank-1
 * matrices this costs m + n per record instead of m n; vectors and dense kinds cost as much as
 * folding them. */
void zo_state_probe(const struct zo_state *s, uint64_t *probes /* [n_tensors] */,
                    const uint32_t key[2], const struct zo_kernels *k, struct zo_pool *pool);
/* ERR_OK: s is base + folds (base_probes [n_tensors] of the base, same key).  ERR_RANGE: an entry
 * is outside the headroom (32-bit) or >= 2^60 (64-bit), where residues would not be unique.
 * ERR_PROTO: it is not. *tensor (may be NULL): the first tensor at fault.  On any failure fold from
 * the base instead. */
NODISCARD enum err zo_state_prove(const struct zo_state *s, const uint64_t *base_probes,
                                  const uint32_t key[2], const struct zo_fold *folds, size_t n,
                                  uint32_t *tensor, const struct zo_kernels *k,
                                  struct zo_pool *pool);

uint64_t zo_state_bytes(const struct zo_state *s); /* size of the state bytes, SPEC 7 */
void zo_state_get_bytes(const struct zo_state *s, uint64_t at, uint8_t *out, size_t n);
void zo_state_set_bytes(struct zo_state *s, uint64_t at, const uint8_t *in, size_t n);
#endif
