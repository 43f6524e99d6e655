/* base/limits.h -- every bound of the program in one place.  A module that needs a new bound adds it here,
 * with the reason, and relates it to the others by _Static_assert. */
#ifndef ONEBYTE_BASE_LIMITS_H
#define ONEBYTE_BASE_LIMITS_H

enum {
    LIMIT_SEGMENT_COUNT = 1024,  /* records per segment: SPEC 6 */
    LIMIT_KNOTS = 257,           /* schedule knots: DESIGN 3 */
    LIMIT_TENSORS = 65536,       /* trainable tensors per run */
    LIMIT_TENSOR_DIMS = 8,       /* dimensions of a stored tensor */
    LIMIT_NAME_BYTES = 256,      /* a tensor's name, without its NUL */
    LIMIT_THREADS = 256,         /* workers in the pool */
};
#define LIMIT_RECORDS_DEFAULT (1u << 24) /* records per feed unless the manifest says otherwise */
#endif
