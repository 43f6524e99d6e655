#include "zo/data/vocab.h"

static uint32_t hash_bytes(const char *p, size_t n)
{
    uint64_t h = 0xCBF29CE484222325u ^ n;
    while (n >= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        h = map64_mix(h ^ w);
        p += 8;
        n -= 8;
    }
    uint64_t w = 0;
    memcpy(&w, p, n);
    h = map64_mix(h ^ w);
    return (uint32_t)(h ^ h >> 32);
}

void zo_vocab_free(struct vocab *v)
{
    buf_free(&v->text);
    free(v->v);
    free(v->slots);
    free(v->hashes);
    *v = (struct vocab){0};
}

static void slot_put(struct vocab *v, uint32_t hash, uint32_t id)
{
    size_t i = hash & (v->n_slots - 1);
    while (v->slots[i] != VOCAB_NONE)
        i = (i + 1) & (v->n_slots - 1);
    v->slots[i] = id;
    v->hashes[i] = hash;
}

static enum err vocab_rehash(struct vocab *v)
{
    const size_t n = v->n_slots ? v->n_slots * 2 : 1024;
    uint32_t *slots = malloc(n * sizeof *slots), *hashes = malloc(n * sizeof *hashes);
    if (!slots || !hashes) {
        free(slots);
        free(hashes);
        return ERR_NOMEM;
    }
    memset(slots, 0xFF, n * sizeof *slots);
    uint32_t *old_slots = v->slots, *old_hashes = v->hashes;
    const size_t n_old = v->n_slots;
    v->slots = slots;
    v->hashes = hashes;
    v->n_slots = n;
    for (size_t i = 0; i < n_old; i++)
        if (old_slots[i] != VOCAB_NONE)
            slot_put(v, old_hashes[i], old_slots[i]);
    free(old_slots);
    free(old_hashes);
    return ERR_OK;
}

/* The slot that holds the text, or SIZE_MAX. */
static size_t slot_find(const struct vocab *v, const char *text, size_t n, uint32_t hash)
{
    if (!v->n_slots)
        return SIZE_MAX;
    for (size_t i = hash & (v->n_slots - 1); v->slots[i] != VOCAB_NONE;
         i = (i + 1) & (v->n_slots - 1)) {
        const struct vocab_entry *e = &v->v[v->slots[i]];
        if (v->hashes[i] == hash && e->n == n && memcmp(v->text.p + e->off, text, n) == 0)
            return i;
    }
    return SIZE_MAX;
}

enum err zo_vocab_add(struct vocab *v, const char *text, size_t n, uint32_t id)
{
    if (id >= VOCAB_ID_MAX || n > UINT32_MAX / 2 || v->text.n > UINT32_MAX / 2)
        return ERR_RANGE;
    void *p = v->v;
    const size_t n_old = v->n;
    if (id >= v->n) {
        if (!buf_grow(&p, &v->cap, v->n, id + 1 - v->n, sizeof *v->v))
            return ERR_NOMEM;
        v->v = p;
        v->n = (size_t)id + 1;
        memset(v->v + n_old, 0, (v->n - n_old) * sizeof *v->v);
    }
    if (v->n_used * 2 >= v->n_slots)
        TRY(vocab_rehash(v));
    const uint32_t off = (uint32_t)v->text.n;
    buf_add(&v->text, text, n);
    if (v->text.oom)
        return ERR_NOMEM;
    const uint32_t hash = hash_bytes(text, n);
    const size_t at = slot_find(v, text, n, hash);
    v->v[id] = (struct vocab_entry){.off = off, .n = (uint32_t)n, .used = true};
    if (at != SIZE_MAX) {
        v->slots[at] = id;
        return ERR_OK;
    }
    slot_put(v, hash, id);
    v->n_used++;
    return ERR_OK;
}

uint32_t zo_vocab_id(const struct vocab *v, const char *text, size_t n)
{
    const size_t at = slot_find(v, text, n, hash_bytes(text, n));
    return at == SIZE_MAX ? VOCAB_NONE : v->slots[at];
}

const char *zo_vocab_text(const struct vocab *v, uint32_t id, size_t *n)
{
    if (id >= v->n || !v->v[id].used)
        return NULL;
    *n = v->v[id].n;
    return v->text.p + v->v[id].off;
}

void zo_map64_free(struct map64 *m)
{
    free(m->v);
    *m = (struct map64){0};
}

static struct map64_slot *map64_slot(struct map64 *m, uint64_t key)
{
    size_t i = map64_mix(key) & (m->n_slots - 1);
    while (m->v[i].key != key && m->v[i].key != UINT64_MAX)
        i = (i + 1) & (m->n_slots - 1);
    return &m->v[i];
}

enum err zo_map64_put(struct map64 *m, uint64_t key, uint64_t value)
{
    ENSURE(key != UINT64_MAX);
    if (m->n_used * 2 >= m->n_slots) {
        struct map64 big = {.n_slots = m->n_slots ? m->n_slots * 2 : 64, .n_used = m->n_used};
        big.v = malloc(big.n_slots * sizeof *big.v);
        if (!big.v)
            return ERR_NOMEM;
        memset(big.v, 0xFF, big.n_slots * sizeof *big.v);
        for (size_t i = 0; i < m->n_slots; i++)
            if (m->v[i].key != UINT64_MAX)
                *map64_slot(&big, m->v[i].key) = m->v[i];
        free(m->v);
        *m = big;
    }
    struct map64_slot *s = map64_slot(m, key);
    m->n_used += s->key == UINT64_MAX;
    *s = (struct map64_slot){.key = key, .value = value};
    return ERR_OK;
}

void zo_trie_free(struct trie *t)
{
    zo_map64_free(&t->edges);
    free(t->id);
    *t = (struct trie){0};
}

static enum err trie_node(struct trie *t, uint32_t *node)
{
    void *p = t->id;
    if (t->n >= UINT32_MAX - 1 || !buf_grow(&p, &t->cap, t->n, 1, sizeof *t->id))
        return ERR_NOMEM;
    t->id = p;
    *node = (uint32_t)t->n;
    t->id[t->n++] = VOCAB_NONE;
    return ERR_OK;
}

enum err zo_trie_add(struct trie *t, const char *text, size_t n, uint32_t id)
{
    uint32_t node = 0;
    if (t->n == 0)
        TRY(trie_node(t, &node));
    for (size_t i = 0; i < n; i++) {
        uint32_t next = trie_step(t, node, text[i]);
        if (next == VOCAB_NONE) {
            TRY(trie_node(t, &next));
            TRY(zo_map64_put(&t->edges, (uint64_t)node << 8 | (uint8_t)text[i], next));
        }
        node = next;
    }
    t->id[node] = id;
    return ERR_OK;
}
