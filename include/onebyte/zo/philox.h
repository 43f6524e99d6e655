/* zo/philox.h -- counter-based random bits: a pure function, no state, nothing to seed or save.
 *
 * Source   Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC'11), Philox-4x32-10.
 * Stream   key = { run and machine }.  ctr = { block, domain << 24 | tensor, seq lo, seq hi }; SPEC 2.
 *          Word w of a stream is word w % 4 of block w / 4: any thread can make any slice.
 *          Bit i of a stream is bit i % 32 of word i / 32; 1 means +1, 0 means -1.
 * Errors   none: every input is valid.      Threads  any.      Memory  none allocated.
 * Bits     identical on every CPU, vector width and GPU; tests/zo/test_philox.c pins known answers. */
#ifndef ONEBYTE_ZO_PHILOX_H
#define ONEBYTE_ZO_PHILOX_H
#include <stdint.h>
#ifdef __CUDACC__
#define ZO_HD __host__ __device__ static inline
#else
#define ZO_HD static inline
#endif

enum zo_domain {
    ZO_DOMAIN_A = 0,
    ZO_DOMAIN_B = 1,
    ZO_DOMAIN_DENSE = 2,
    ZO_DOMAIN_GAUSS = 3,
    ZO_DOMAIN_DATA = 4,
    ZO_DOMAIN_DIGEST_U = 5,
    ZO_DOMAIN_DIGEST_W = 6,
    ZO_DOMAIN_LORA_A = 7, /* initial A of an adapter, keyed (run id, 32 zero bytes), seq 0 */
};

/* One random stream: what SPEC 2 derives from (run, machine), domain, tensor number and seq. */
struct zo_stream {
    uint32_t key[2];
    uint32_t domain_tensor; /* domain << 24 | tensor */
    uint64_t seq;
};

/* out [4] <- one block.  ctr [4], key [2]; out may alias ctr. */
ZO_HD void zo_philox(uint32_t out[4], const uint32_t ctr[4], const uint32_t key[2])
{
    uint32_t x0 = ctr[0], x1 = ctr[1], x2 = ctr[2], x3 = ctr[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xD2511F53u * x0, b = (uint64_t)0xCD9E8D57u * x2;
        x0 = (uint32_t)(b >> 32) ^ x1 ^ k0;
        x1 = (uint32_t)b;
        x2 = (uint32_t)(a >> 32) ^ x3 ^ k1;
        x3 = (uint32_t)a;
        k0 += 0x9E3779B9u; /* Weyl increments: golden ratio, sqrt(3) - 1 */
        k1 += 0xBB67AE85u;
    }
    out[0] = x0;
    out[1] = x1;
    out[2] = x2;
    out[3] = x3;
}

ZO_HD struct zo_stream zo_stream(const uint32_t key[2], uint32_t domain, uint32_t tensor, uint64_t seq)
{
    struct zo_stream s;
    s.key[0] = key[0];
    s.key[1] = key[1];
    s.domain_tensor = domain << 24 | tensor;
    s.seq = seq;
    return s;
}

/* out [4] <- words 4 block .. 4 block + 3 of the stream. */
ZO_HD void zo_stream_block(uint32_t out[4], const struct zo_stream *s, uint32_t block)
{
    const uint32_t ctr[4] = {block, s->domain_tensor, (uint32_t)s->seq, (uint32_t)(s->seq >> 32)};
    zo_philox(out, ctr, s->key);
}
#endif
