/* net/id.h -- identities, hashes, signatures: the few libsodium calls everything else is built on. */
#ifndef ONEBYTE_NET_ID_H
#define ONEBYTE_NET_ID_H
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NET_ID_BYTES = 32, NET_SIG_BYTES = 64, NET_HASH_BYTES = 32 };

/* A machine's Ed25519 key pair, in memory locked and wiped by net_identity_release. */
struct net_identity {
    uint8_t id[32]; /* public key = machine id */
    uint8_t *sk;    /* [64], sodium_malloc'd */
};

NODISCARD enum err net_start(void); /* sodium_init; once */
NODISCARD enum err net_identity_new(struct net_identity *i);
/* File: created 0600, exclusive, fsynced.  load refuses wrong size and permissions wider than 0600. */
NODISCARD enum err net_identity_save(const struct net_identity *i, const char *path,
                                     struct err_why *why);
NODISCARD enum err net_identity_load(struct net_identity *i, const char *path, struct err_why *why);
/* The secret key stays out of swap.  False: the limit of locked memory is below a page or two. */
bool net_identity_locked(const struct net_identity *i);
void net_identity_release(struct net_identity *i);

/* BLAKE2b-256, no key, of the concatenation of n parts. */
struct net_part {
    const void *p;
    size_t n;
};
void net_hash(uint8_t out[32], const struct net_part *parts, size_t n);
/* The same piece by piece: start, more .., end. */
struct net_hash_state {
    _Alignas(64) uint8_t opaque[512];
};
void net_hash_start(struct net_hash_state *h);
void net_hash_more(struct net_hash_state *h, const void *p, size_t n);
void net_hash_end(struct net_hash_state *h, uint8_t out[32]);
/* Signs / checks the concatenation: the first part is the tag "onebyte/1 <kind>\0". */
void net_sign(uint8_t sig[64], const struct net_identity *i, const struct net_part *parts,
              size_t n);
NODISCARD enum err net_verify(const uint8_t sig[64], const uint8_t id[32],
                              const struct net_part *parts, size_t n);

/* key [2] of (run id, machine id): SPEC 2. */
void net_stream_key(uint32_t key[2], const uint8_t run_id[32], const uint8_t machine[32]);
void net_hex(char *out, const uint8_t *in, size_t n);                  /* 2 n + 1 chars */
NODISCARD enum err net_unhex(uint8_t *out, size_t n, const char *hex); /* exactly 2 n hex digits */
#endif
