/* zo/direction.h -- the random directions of SPEC 2 as numbers, for whoever measures along them.
 *
 *     rank1       matrices z_ij = a_i b_j (streams domain a, b), vectors dense +-1
 *     rademacher  z = +-1, one bit per element (domain dense)
 *     gaussian    z = h / 4, h = popcount(words 2i, 2i + 1) - 32 (domain gauss)
 *
 * Element (i, j) of an (m, n) matrix is element i n + j of its stream.  A stream's key is the
 * machine's (struct zo_fold.key), its seq the record's *direction* seq: the record's own seq, for
 * every `sides`. Bits  the numbers are exact in float, so every variant gives the same ones.
 * Errors: none. Threads: any; nothing is allocated.  k: a variant of zo_kernels_pick, never NULL.
 */
#ifndef ONEBYTE_ZO_DIRECTION_H
#define ONEBYTE_ZO_DIRECTION_H
#include <onebyte/zo/philox.h>
#include <onebyte/zo/rules.h>
#include <onebyte/zo/state.h>
#include <stddef.h>
#include <stdint.h>

/* out [n] <- words first_word .. of the stream. */
void zo_stream_words(uint32_t *out, const struct zo_stream *s, uint64_t first_word, size_t n,
                     const struct zo_kernels *k);

/* out [n] <- scale * sign, or += with `add`: elements first .. first + n - 1 of a +-1 stream. */
void zo_signs_f32(float *out, const struct zo_stream *s, uint64_t first, size_t n, float scale,
                  bool add, const struct zo_kernels *k);

/* The same for a gaussian stream: scale * (h / 4). */
void zo_gauss_f32(float *out, const struct zo_stream *s, uint64_t first, size_t n, float scale,
                  bool add, const struct zo_kernels *k);

/* The factors of a rank-1 matrix direction: a [n_rows] from row0, b [n_cols] from col0; both +-1.
 */
void zo_direction_a_f32(float *a, const uint32_t key[2], uint64_t seq, uint32_t tensor,
                        uint64_t row0, size_t n_rows, const struct zo_kernels *k);
void zo_direction_b_f32(float *b, const uint32_t key[2], uint64_t seq, uint32_t tensor,
                        uint64_t col0, size_t n_cols, const struct zo_kernels *k);

/* out (n_rows, cols) row-major <- scale * z, or += with `add`, of rows row0 .. of tensor t, any
 * kind.  A vector's rows are its elements (cols = 1): out [n_rows]. */
void zo_direction_rows_f32(float *out, const struct zo_rules *rules, uint32_t t,
                           const uint32_t key[2], uint64_t seq, uint64_t row0, size_t n_rows,
                           float scale, bool add, const struct zo_kernels *k);
#endif
