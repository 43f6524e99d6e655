/* zo/modp.h -- private: arithmetic mod p = 2^61 - 1, the digest's field, for CPU and GPU alike. */
#ifndef ZO_MODP_H
#define ZO_MODP_H
#include <onebyte/zo/philox.h>
#include <stdint.h>

#define ZO_DIGEST_P (((uint64_t)1 << 61) - 1)

/* x mod p, for any x. */
ZO_HD uint64_t zo_mod_p(uint64_t x)
{
    x = (x & ZO_DIGEST_P) + (x >> 61);
    return x >= ZO_DIGEST_P ? x - ZO_DIGEST_P : x;
}

ZO_HD uint64_t zo_add_p(uint64_t a, uint64_t b) /* a, b < p */
{
    return zo_mod_p(a + b);
}

ZO_HD uint64_t zo_neg_p(uint64_t a) /* a < p */
{
    return a ? ZO_DIGEST_P - a : 0;
}

ZO_HD uint64_t zo_mul_p(uint64_t a, uint64_t b) /* a, b < p */
{
    const unsigned __int128 x = (unsigned __int128)a * b;
    return zo_mod_p((uint64_t)(x & ZO_DIGEST_P) + (uint64_t)(x >> 61));
}

/* Any signed integer as a residue: arithmetic on its magnitude, so that INT64_MIN is no special
 * case. */
ZO_HD uint64_t zo_signed_p(int64_t x)
{
    return x < 0 ? zo_neg_p(zo_mod_p((uint64_t)0 - (uint64_t)x)) : zo_mod_p((uint64_t)x);
}
#endif
