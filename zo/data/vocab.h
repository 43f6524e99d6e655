/* zo/data/vocab.h -- the two tables of a tokenizer: token text <-> id, and a map of 64-bit keys.
 * Built once, then only read, by any number of threads. */
#ifndef ONEBYTE_ZO_DATA_VOCAB_H
#define ONEBYTE_ZO_DATA_VOCAB_H
#include "zo/data/buf.h"
#include <onebyte/base/err.h>

#define VOCAB_NONE UINT32_MAX
enum { VOCAB_ID_MAX = 1 << 24 }; /* ids are below this: 60 times the largest vocabulary in use */

struct vocab_entry {
    uint32_t off, n; /* the token's bytes in `text` */
    bool used;
};
struct vocab {
    struct buf text;
    struct vocab_entry *v; /* [n] by id */
    size_t n, cap;         /* n: highest id + 1 */
    uint32_t *slots;       /* [n_slots] open addressing: id, or VOCAB_NONE */
    uint32_t *hashes;      /* [n_slots] */
    size_t n_slots, n_used;
};
void zo_vocab_free(struct vocab *v);
/* Adds a token; text already there gets the new id, an id already there gets the new text.  ERR_RANGE: id too high. */
NODISCARD enum err zo_vocab_add(struct vocab *v, const char *text, size_t n, uint32_t id);
/* The id of the text, or VOCAB_NONE. */
uint32_t zo_vocab_id(const struct vocab *v, const char *text, size_t n);
/* The text of an id (not NUL-terminated), or NULL. */
const char *zo_vocab_text(const struct vocab *v, uint32_t id, size_t *n);

/* 64-bit key -> 64-bit value.  The key UINT64_MAX is not allowed. */
struct map64_slot {
    uint64_t key, value;
};
struct map64 {
    struct map64_slot *v; /* [n_slots] */
    size_t n_slots, n_used;
};
static inline uint64_t map64_mix(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15u; /* 2^64 / golden ratio: neighbouring keys spread over the high bits */
    return x ^ x >> 32;
}
void zo_map64_free(struct map64 *m);
NODISCARD enum err zo_map64_put(struct map64 *m, uint64_t key, uint64_t value); /* replaces */
static inline const uint64_t *map64_get(const struct map64 *m, uint64_t key)
{
    if (!m->n_slots)
        return NULL;
    for (size_t i = map64_mix(key) & (m->n_slots - 1);; i = (i + 1) & (m->n_slots - 1)) {
        if (m->v[i].key == key)
            return &m->v[i].value;
        if (m->v[i].key == UINT64_MAX)
            return NULL;
    }
}

/* A byte trie over map64: longest match of many strings at one place.  Node 0 is the root. */
struct trie {
    struct map64 edges; /* node << 8 | byte -> next node */
    uint32_t *id;       /* [n] by node: the string that ends here, or VOCAB_NONE */
    size_t n, cap;
};
void zo_trie_free(struct trie *t);
NODISCARD enum err zo_trie_add(struct trie *t, const char *text, size_t n, uint32_t id);
/* Next node after `byte`, or VOCAB_NONE. */
static inline uint32_t trie_step(const struct trie *t, uint32_t node, char byte)
{
    const uint64_t *next = map64_get(&t->edges, (uint64_t)node << 8 | (uint8_t)byte);
    return next ? (uint32_t)*next : VOCAB_NONE;
}
#endif
