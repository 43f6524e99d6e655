/* base/bytes.h -- little-endian integers, byte by byte: host order and alignment never matter.
 * Header-only, libc only.  Threads: any.  The caller has checked the lengths. */
#ifndef ONEBYTE_BASE_BYTES_H
#define ONEBYTE_BASE_BYTES_H
#include <stddef.h>
#include <stdint.h>

/* The n low bytes (n <= 8) of the little-endian integer at p. */
static inline uint64_t bytes_get_le(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* Writes the n low bytes (n <= 8) of v at p. */
static inline void bytes_put_le(uint8_t *p, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}
#endif
