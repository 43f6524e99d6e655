#include <onebyte/net/score.h>
#include "core.h"
#include "scores.h"
#include <math.h>

enum { AT_NUMBER = 1, AT_CHECKPOINT = 9, AT_MACHINE = 54, AT_SIG = 86, COMMON_REPORTERS = 3, REMEMBERED = 3, RANKS_MAX = 6 };
static const double nats_unit = 1.0 / (1 << NET_SCORE_NATS_BITS);
#define SUM_MAX ((uint64_t)1 << 56) /* of terms or nats in one part: sums of all parts and reporters fit */

/* ---- one score ---- */

uint32_t net_score_first(uint32_t total, uint32_t part)
{
    ENSURE(part <= NET_SCORE_PARTS);
    return (uint32_t)((uint64_t)total * part / NET_SCORE_PARTS);
}

enum err net_score_parse(struct net_score *s, const uint8_t *p, size_t n)
{
    struct net_score got = {0};
    if (n != NET_SCORE_BYTES || p[0] != NET_SCORE || p[21] >= NET_SCORE_PARTS)
        return ERR_PROTO;
    got.number = bytes_get_le(p + AT_NUMBER, 8);
    memcpy(got.checkpoint, p + AT_CHECKPOINT, 8);
    got.step = (uint32_t)bytes_get_le(p + 17, 4);
    got.part = p[21];
    got.total = (uint32_t)bytes_get_le(p + 22, 4);
    got.finite = (uint32_t)bytes_get_le(p + 26, 4);
    got.terms = bytes_get_le(p + 30, 8);
    got.nats = bytes_get_le(p + 38, 8);
    got.choices = (uint32_t)bytes_get_le(p + 46, 4);
    got.correct = (uint32_t)bytes_get_le(p + 50, 4);
    memcpy(got.machine, p + AT_MACHINE, 32);
    memcpy(got.sig, p + AT_SIG, 64);
    const uint32_t size = net_score_first(got.total, got.part + 1) - net_score_first(got.total, got.part);
    if (size == 0 || got.finite > size || got.choices > size || got.correct > got.choices || got.terms > SUM_MAX ||
        got.nats > SUM_MAX || got.terms < got.finite || (got.finite == 0 && (got.terms > 0 || got.nats > 0)))
        return ERR_PROTO;
    *s = got;
    return ERR_OK;
}

void net_score_write(uint8_t p[NET_SCORE_BYTES], const struct net_score *s)
{
    p[0] = NET_SCORE;
    bytes_put_le(p + AT_NUMBER, s->number, 8);
    memcpy(p + AT_CHECKPOINT, s->checkpoint, 8);
    bytes_put_le(p + 17, s->step, 4);
    bytes_put_le(p + 21, s->part, 1);
    bytes_put_le(p + 22, s->total, 4);
    bytes_put_le(p + 26, s->finite, 4);
    bytes_put_le(p + 30, s->terms, 8);
    bytes_put_le(p + 38, s->nats, 8);
    bytes_put_le(p + 46, s->choices, 4);
    bytes_put_le(p + 50, s->correct, 4);
    memcpy(p + AT_MACHINE, s->machine, 32);
    memcpy(p + AT_SIG, s->sig, 64);
}

static void signed_parts(struct net_part parts[3], const uint8_t frame[NET_SCORE_BYTES], const uint8_t run_id[32])
{
    static const char tag[] = "onebyte/1 score";
    parts[0] = (struct net_part){tag, sizeof tag};
    parts[1] = (struct net_part){run_id, 32};
    parts[2] = (struct net_part){frame + 1, AT_SIG - 1};
}

enum err net_score_check(const struct net_score *s, const struct net_rules *r)
{
    uint8_t frame[NET_SCORE_BYTES];
    struct net_part parts[3];
    net_score_write(frame, s);
    signed_parts(parts, frame, r->run_id);
    return net_verify(s->sig, s->machine, parts, 3);
}

void net_score_sign(struct net_score *s, const struct net_rules *r, const struct net_identity *i)
{
    uint8_t frame[NET_SCORE_BYTES];
    struct net_part parts[3];
    memcpy(s->machine, i->id, 32);
    net_score_write(frame, s);
    signed_parts(parts, frame, r->run_id);
    net_sign(s->sig, i, parts, 3);
}

/* ---- the table ---- */

enum err net_scores_new(struct net_scores **out)
{
    struct net_scores *t = calloc(1, sizeof *t);
    if (!t)
        return ERR_NOMEM;
    t->intern = net_intern_own;
    *out = t;
    return ERR_OK;
}

static void slot_free(struct net_scores *t, size_t i)
{
    struct net_scores_slot *s = t->slot[i];
    if (!s)
        return;
    for (size_t p = 0; p < NET_SCORE_PARTS; p++)
        for (size_t k = 0; k < s->n_of[p]; k++)
            t->intern.drop(t->intern.ctx, s->of[p][k].bytes);
    t->n -= s->n;
    free(s);
    t->slot[i] = NULL;
}

void net_scores_free(struct net_scores *t)
{
    for (size_t i = 0; t && i < LIMIT_SCORE_CHECKPOINTS; i++)
        slot_free(t, i);
    free(t);
}

uint64_t net_scores_oldest(const struct net_scores *t)
{
    return t->last < LIMIT_SCORE_CHECKPOINTS ? 0 : t->last - LIMIT_SCORE_CHECKPOINTS + 1;
}

void net_scores_checkpoint(struct net_scores *t, uint64_t number, const uint8_t id[8])
{
    const size_t at = number % LIMIT_SCORE_CHECKPOINTS;
    if (!t->any || number > t->last) {
        t->any = true;
        t->last = number;
        for (size_t i = 0; i < LIMIT_SCORE_CHECKPOINTS; i++)
            if (t->slot[i] && t->slot[i]->number < net_scores_oldest(t))
                slot_free(t, i);
    }
    if (number < net_scores_oldest(t))
        return;
    t->named[at].known = true;
    t->named[at].number = number;
    memcpy(t->named[at].id, id, 8);
}

struct net_scores_slot *net_scores_slot_of(const struct net_scores *t, uint64_t number)
{
    struct net_scores_slot *s = t->slot[number % LIMIT_SCORE_CHECKPOINTS];
    return s && s->number == number ? s : NULL;
}

const uint8_t *net_scores_slot_digest(struct net_scores_slot *s)
{
    if (s->dirty) {
        struct net_hash_state h = {0};
        uint8_t hash[32];
        net_hash_start(&h);
        for (size_t p = 0; p < NET_SCORE_PARTS; p++)
            for (size_t k = 0; k < s->n_of[p]; k++)
                net_hash_more(&h, s->of[p][k].bytes, 32);
        net_hash_end(&h, hash);
        memcpy(s->digest, hash, 8);
        s->dirty = false;
    }
    return s->digest;
}

/* A fair lot per part: nobody can be first in all. */
static uint64_t rank_of(uint64_t number, uint32_t part, const uint8_t machine[32])
{
    static const char tag[] = "onebyte/1 rank";
    uint8_t place[9], hash[32];
    bytes_put_le(place, number, 8);
    place[8] = (uint8_t)part;
    net_hash(hash, (const struct net_part[]){{tag, sizeof tag}, {place, 9}, {machine, 32}}, 3);
    return bytes_get_le(hash, 8);
}

const uint8_t *net_score_machine(const uint8_t frame[NET_SCORE_BYTES])
{
    return frame + AT_MACHINE;
}

static const uint8_t *machine_of(const struct net_scores_entry *e)
{
    return net_score_machine(e->bytes + 32);
}

static bool ahead(uint64_t rank_a, const uint8_t a[32], uint64_t rank_b, const uint8_t b[32])
{
    return rank_a != rank_b ? rank_a < rank_b : memcmp(a, b, 32) < 0;
}

static const uint8_t *verified(struct net_scores *t, const struct net_rules *r, const struct net_score *s, const uint8_t id[32],
                               const uint8_t *frame, enum err *why)
{
    const uint8_t *bytes = t->intern.find(t->intern.ctx, id, frame, NET_SCORE_BYTES);
    *why = ERR_NOMEM;
    if (!bytes && (*why = net_score_check(s, r)) == ERR_OK) {
        *why = ERR_NOMEM;
        bytes = t->intern.add(t->intern.ctx, id, frame, NET_SCORE_BYTES);
    }
    return bytes;
}

static struct net_scores_slot *slot_for(struct net_scores *t, uint64_t number)
{
    const size_t at = number % LIMIT_SCORE_CHECKPOINTS;
    struct net_scores_slot *s = net_scores_slot_of(t, number);
    if (s)
        return s;
    slot_free(t, at); /* of another window: net_scores_checkpoint has let it go already */
    s = calloc(1, sizeof *s);
    if (s)
        s->number = number;
    t->slot[at] = s;
    return s;
}

/* Where the score goes among the n of its part: the place of its machine's earlier one (*same), or the first that it is ahead of. */
static size_t place_of(const struct net_scores_entry *e, size_t n, uint64_t rank, const uint8_t machine[32], bool *same)
{
    size_t k = 0;
    while (k < n && memcmp(machine_of(&e[k]), machine, 32) != 0 && !ahead(rank, machine, e[k].rank, machine_of(&e[k])))
        k++;
    *same = k < n && memcmp(machine_of(&e[k]), machine, 32) == 0;
    return k;
}

enum err net_scores_take(struct net_scores *t, const struct net_rules *r, const uint8_t *frame, size_t n, bool *tell)
{
    struct net_score s;
    struct net_part parts[3];
    uint8_t id[32];
    enum err why;
    bool same = false;
    TRY(net_score_parse(&s, frame, n));
    if (!t->any || s.number > t->last)
        return ERR_AGAIN;
    if (s.number < net_scores_oldest(t))
        return ERR_RANGE;
    signed_parts(parts, frame, r->run_id);
    net_hash(id, parts, 3);
    struct net_scores_slot *slot = slot_for(t, s.number);
    if (!slot)
        return ERR_NOMEM;
    struct net_scores_entry *e = slot->of[s.part];
    const uint64_t rank = rank_of(s.number, s.part, s.machine);
    const size_t held = slot->n_of[s.part], k = place_of(e, held, rank, s.machine, &same);
    if (same ? memcmp(id, e[k].bytes, 32) >= 0 : k == LIMIT_SCORE_REPORTERS)
        return ERR_RANGE;
    const uint8_t *bytes = verified(t, r, &s, id, frame, &why);
    if (!bytes)
        return why;
    if (same) {
        t->intern.drop(t->intern.ctx, e[k].bytes);
    } else {
        const bool full = held == LIMIT_SCORE_REPORTERS;
        if (full)
            t->intern.drop(t->intern.ctx, e[held - 1].bytes);
        memmove(e + k + 1, e + k, (held - k - full) * sizeof *e);
        slot->n_of[s.part] = (uint8_t)(held + !full);
        slot->n += !full;
        t->n += !full;
    }
    e[k] = (struct net_scores_entry){.rank = rank, .bytes = bytes};
    slot->dirty = true;
    *tell = !same && slot->told_of[s.part] < LIMIT_SCORES_STORED;
    slot->told_of[s.part] += *tell;
    return ERR_OK;
}

void net_scores_forget(struct net_scores *t, const uint8_t machine[32])
{
    for (size_t i = 0; i < LIMIT_SCORE_CHECKPOINTS; i++) {
        struct net_scores_slot *s = t->slot[i];
        for (size_t p = 0; s && p < NET_SCORE_PARTS; p++) {
            size_t k = 0;
            while (k < s->n_of[p] && memcmp(machine_of(&s->of[p][k]), machine, 32) != 0)
                k++;
            if (k == s->n_of[p])
                continue;
            t->intern.drop(t->intern.ctx, s->of[p][k].bytes);
            memmove(s->of[p] + k, s->of[p] + k + 1, (s->n_of[p] - k - 1) * sizeof *s->of[p]);
            s->n_of[p]--;
            s->n--;
            t->n--;
            s->dirty = true;
        }
    }
}

/* ---- what it says ---- */

static void entry_get(struct net_score *s, const struct net_scores_entry *e)
{
    ENSURE(net_score_parse(s, e->bytes + 32, NET_SCORE_BYTES) == ERR_OK);
}

/* The checkpoint's id that scores of this number must name: the one known, else what most of them name. */
static void id_of(const struct net_scores *t, const struct net_scores_slot *slot, uint8_t id[8])
{
    const size_t at = slot->number % LIMIT_SCORE_CHECKPOINTS;
    uint32_t most = 0;
    if (t->named[at].known && t->named[at].number == slot->number) {
        memcpy(id, t->named[at].id, 8);
        return;
    }
    const uint8_t *all[NET_SCORE_PARTS * LIMIT_SCORE_REPORTERS] = {0};
    uint32_t n = 0;
    for (size_t p = 0; p < NET_SCORE_PARTS; p++)
        for (size_t k = 0; k < slot->n_of[p]; k++)
            all[n++] = slot->of[p][k].bytes + 32 + AT_CHECKPOINT;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t votes = 0;
        for (uint32_t j = 0; j < n; j++)
            votes += memcmp(all[i], all[j], 8) == 0;
        if (votes > most || (votes == most && memcmp(all[i], id, 8) < 0)) {
            most = votes;
            memcpy(id, all[i], 8);
        }
    }
}

struct gathering {
    double nats, terms, correct, choices;
    const uint8_t *seen[NET_SCORE_PARTS * LIMIT_SCORE_REPORTERS];
};

static void reporter(struct gathering *g, struct net_score_point *out, const uint8_t *machine)
{
    for (uint32_t i = 0; i < out->reporters; i++)
        if (g->seen[i] && memcmp(g->seen[i], machine, 32) == 0)
            return;
    g->seen[out->reporters++] = machine;
}

/* One part: the mean of its reporters. */
static void gather(struct gathering *g, struct net_score_point *out, const struct net_scores_slot *slot, size_t p, const uint8_t id[8])
{
    double nats = 0, terms = 0, correct = 0, choices = 0, low = INFINITY, high = -INFINITY;
    struct net_score s;
    uint32_t n = 0;
    for (size_t k = 0; k < slot->n_of[p]; k++) {
        entry_get(&s, &slot->of[p][k]);
        if (memcmp(s.checkpoint, id, 8) != 0 || (out->parts > 0 && s.total != out->total))
            continue;
        const double loss = (double)s.nats * nats_unit / (double)s.terms; /* NaN: none was finite */
        low = fmin(low, loss);
        high = fmax(high, loss);
        nats += (double)s.nats * nats_unit;
        terms += (double)s.terms;
        correct += s.correct;
        choices += s.choices;
        if (n++ == 0) {
            const uint32_t size = net_score_first(s.total, s.part + 1) - net_score_first(s.total, s.part);
            out->parts++;
            out->total = s.total;
            out->step = s.step;
            out->examples += size;
            out->nonfinite += size - s.finite;
            out->terms += s.terms;
        }
        reporter(g, out, machine_of(&slot->of[p][k]));
    }
    if (n == 0)
        return;
    g->nats += nats / n;
    g->terms += terms / n;
    g->correct += correct / n;
    g->choices += choices / n;
    if (n > 1 && high >= low) {
        out->compared++;
        out->spread = out->compared > 1 ? fmax(out->spread, high - low) : high - low;
    }
}

bool net_scores_point(const struct net_scores *t, uint64_t from, struct net_score_point *out)
{
    const struct net_scores_slot *slot = NULL;
    if (!t->any)
        return false;
    from = from > net_scores_oldest(t) ? from : net_scores_oldest(t);
    for (uint64_t number = from; !slot && number <= t->last; number++) {
        slot = net_scores_slot_of(t, number);
        slot = slot && slot->n > 0 ? slot : NULL;
    }
    if (!slot)
        return false;
    struct gathering g = {0};
    uint8_t id[8] = {0};
    *out = (struct net_score_point){.number = slot->number, .spread = NAN};
    id_of(t, slot, id);
    for (size_t p = 0; p < NET_SCORE_PARTS; p++)
        gather(&g, out, slot, p, id);
    out->loss = g.nats / g.terms;
    out->accuracy = g.choices > 0 ? g.correct / g.choices : (double)NAN;
    return true;
}

/* ---- who scores what ---- */

uint32_t net_scores_held(const struct net_scores *t, uint64_t number)
{
    const struct net_scores_slot *slot = net_scores_slot_of(t, number);
    return slot ? slot->n : 0;
}

struct scorers {
    const uint8_t *id[REMEMBERED * NET_SCORE_PARTS * LIMIT_SCORE_REPORTERS];
    size_t n;
};

static void scorer_add(struct scorers *all, const uint8_t *machine)
{
    for (size_t i = 0; i < all->n; i++)
        if (memcmp(all->id[i], machine, 32) == 0)
            return;
    all->id[all->n++] = machine;
}

static void scorers_find(struct scorers *all, const struct net_scores *t, uint64_t number)
{
    all->n = 0;
    for (uint64_t back = 0; back < REMEMBERED && back <= number; back++) {
        const struct net_scores_slot *slot = net_scores_slot_of(t, number - back);
        for (size_t p = 0; slot && p < NET_SCORE_PARTS; p++)
            for (size_t k = 0; k < slot->n_of[p]; k++)
                scorer_add(all, machine_of(&slot->of[p][k]));
    }
}

static bool reported(const struct net_scores_slot *slot, uint32_t part, const uint8_t id[8], const uint8_t machine[32])
{
    for (size_t k = 0; slot && k < slot->n_of[part]; k++)
        if (memcmp(slot->of[part][k].bytes + 32 + AT_CHECKPOINT, id, 8) == 0 &&
            (!machine || memcmp(machine_of(&slot->of[part][k]), machine, 32) == 0))
            return true;
    return false;
}

/* Of the scorers that have not reported this part, how many come before self; counts them no further than max. */
static uint32_t queue_before(uint64_t number, uint32_t part, const uint8_t self[32], const uint8_t *const *listed,
                             const uint8_t (*candidates)[32], size_t n, const struct net_scores_slot *slot, const uint8_t id[8],
                             uint32_t max)
{
    const uint64_t own = rank_of(number, part, self);
    uint32_t before = 0;
    for (size_t i = 0; i < n && before < max; i++) {
        const uint8_t *m = listed ? listed[i] : candidates[i];
        if (ahead(rank_of(number, part, m), m, own, self) && !reported(slot, part, id, m))
            before++;
    }
    return before;
}

int net_scores_duty(const struct net_scores *t, uint64_t number, const uint8_t self[32], const uint8_t (*candidates)[32],
                    size_t n, uint32_t empty, uint64_t waited_ns, uint64_t takeover_ns)
{
    struct scorers all;
    const struct net_scores_slot *slot = net_scores_slot_of(t, number);
    const size_t at = number % LIMIT_SCORE_CHECKPOINTS;
    if (!t->named[at].known || t->named[at].number != number)
        return NET_SCORES_DONE;
    const uint8_t *id = t->named[at].id;
    const uint32_t start = (uint32_t)(rank_of(number, NET_SCORE_PARTS, self) % NET_SCORE_PARTS); /* takers-over part ways */
    bool open = false;
    scorers_find(&all, t, number);
    for (uint32_t i = 0; i < NET_SCORE_PARTS; i++) {
        const uint32_t part = (start + i) % NET_SCORE_PARTS;
        const uint32_t wanted = part == number % NET_SCORE_PARTS ? COMMON_REPORTERS : 1;
        uint32_t have = 0;
        for (size_t k = 0; slot && k < slot->n_of[part]; k++)
            have += memcmp(slot->of[part][k].bytes + 32 + AT_CHECKPOINT, id, 8) == 0;
        if (have >= wanted || empty >> part & 1 || reported(slot, part, id, self))
            continue;
        open = open || have == 0;
        const uint32_t free_places = wanted - have;
        const uint32_t before = queue_before(number, part, self, all.n ? all.id : NULL, candidates, all.n ? all.n : n, slot, id,
                                             free_places + RANKS_MAX);
        /* A second opinion is taken over by nobody: the first ones are enough to go on. */
        if (before < free_places || (have == 0 && waited_ns / (before - free_places + 1) >= takeover_ns))
            return (int)part;
    }
    return open ? NET_SCORES_LATER : NET_SCORES_DONE;
}
