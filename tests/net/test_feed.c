/* The merge of DESIGN 4 is a join: two and three machines that hold random parts of one machine's random history exchange until
 * they agree, in several orders, and end where the join of DESIGN, written out here, says. */
#include "few.h"
#include "net/wire.h"
#include <onebyte/net/id.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

enum { NODES = 14 };

struct node {
    int parent; /* -1: the root */
    uint64_t first, end;
    uint8_t id[32], wire[NET_SEGMENT_BYTES_MAX];
    size_t bytes;
};
struct holding {
    int chain[NODES], n;
    uint64_t cut;
};

static struct few_key owner, author;
static struct net_rules rules;
static struct node tree[NODES];
static uint64_t random_state;

static uint64_t rnd(uint64_t n)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (random_state >> 33) % n;
}

static void grow_tree(void)
{
    static const uint8_t zeros[32];
    for (int k = 0; k < NODES; k++) {
        struct node *t = &tree[k];
        t->parent = k == 0 || rnd(9) == 0 ? -1 : rnd(3) ? k - 1 : (int)rnd((uint64_t)k);
        const uint8_t *prev = t->parent < 0 ? zeros : tree[t->parent].id;
        t->first = t->parent < 0 ? 0 : tree[t->parent].end;
        const uint16_t count = (uint16_t)(1 + rnd(4));
        t->end = t->first + count;
        t->bytes = few_segment(t->wire, t->id, &rules, &author, prev, t->first, count, 1,
                               1000 * random_state + (uint64_t)k);
    }
}

static void shorten(struct holding *h, uint64_t cut)
{
    h->cut = cut < h->cut ? cut : h->cut;
    while (h->n > 0 && tree[h->chain[h->n - 1]].first >= h->cut)
        h->n--;
}

/* DESIGN 4, "Join of two holdings", word by word. */
static struct holding join(struct holding a, struct holding b)
{
    const uint64_t cut = a.cut < b.cut ? a.cut : b.cut;
    shorten(&a, cut);
    shorten(&b, cut);
    int k = 0;
    while (k < a.n && k < b.n && a.chain[k] == b.chain[k])
        k++;
    if (k == a.n || k == b.n)
        return a.n > b.n ? a : b;
    shorten(&a, tree[a.chain[k]].first);
    return a;
}

static bool same(const struct holding *a, const struct holding *b)
{
    return a->n == b->n && a->cut == b->cut &&
           memcmp(a->chain, b->chain, (size_t)a->n * sizeof *a->chain) == 0;
}

static struct holding path_to(int k)
{
    struct holding h = {.cut = UINT64_MAX};
    int reversed[NODES], n = 0;
    for (; k >= 0; k = tree[k].parent)
        reversed[n++] = k;
    for (int i = 0; i < n; i++)
        h.chain[i] = reversed[n - 1 - i];
    h.n = n;
    return h;
}

static void retract_at(struct few *f, uint32_t i, uint64_t seq)
{
    uint8_t frame[NET_CONTROL_BYTES_MAX];
    const struct net_identity o = few_identity(&owner);
    const size_t n = net_control_retract(frame, &rules, &o, author.id, seq);
    (void)!net_gossip_load_control(f->g[i], frame, n);
}

/* Gives machine i a random holding and returns what it is. */
static struct holding endow(struct few *f, uint32_t i)
{
    struct holding h = path_to((int)rnd(NODES));
    if (rnd(5) == 0)
        h.n = 0;
    for (int k = 0; k < h.n; k++)
        assert_int_equal(
            net_gossip_load(f->g[i], author.id, tree[h.chain[k]].wire, tree[h.chain[k]].bytes),
            ERR_OK);
    if (rnd(3) == 0) {
        const uint64_t seq = rnd(20);
        retract_at(f, i, seq);
        shorten(&h, seq);
    }
    for (int tries = 0; tries < 2;
         tries++) { /* a proof, or nothing: segments that do not fit are refused, siblings prove */
        const int k = (int)rnd(NODES);
        int at = 0;
        while (at < h.n && (tree[h.chain[at]].parent != tree[k].parent || h.chain[at] == k))
            at++;
        (void)!net_gossip_load(f->g[i], author.id, tree[k].wire, tree[k].bytes);
        if (at < h.n)
            shorten(&h, tree[h.chain[at]].first);
        else if ((h.n ? h.chain[h.n - 1] : -1) == tree[k].parent && tree[k].first < h.cut)
            h.chain[h.n++] = k; /* it was the next one */
    }
    few_actions(f, i);
    return h;
}

static void expect(const struct few *f, uint32_t i, const struct holding *h)
{
    struct net_frontier_entry e = {.cut = UINT64_MAX};
    static const uint8_t zeros[32];
    (void)net_gossip_feed(f->g[i], author.id, &e);
    assert_int_equal(e.cut, h->cut);
    assert_int_equal(e.count, h->n ? tree[h->chain[h->n - 1]].end : 0);
    assert_memory_equal(e.head, h->n ? tree[h->chain[h->n - 1]].id : zeros, 32);
    assert_int_equal(f->state[i], few_state_again(f, i)); /* folded less unfolded = what counts */
}

static void start(struct few *f, uint32_t n)
{
    few_init(f);
    for (uint32_t i = 0; i < n; i++)
        few_add(f, &rules, few_key((uint8_t)(200 + i)).id);
}

static void join_is_a_join(void **state)
{
    (void)state;
    for (random_state = 1; random_state < 3000; random_state++) {
        const uint64_t keep = random_state;
        for (int k = 0; k < NODES;
             k++) { /* signatures are dear: the joins alone need shapes only */
            tree[k].parent = k == 0 || rnd(9) == 0 ? -1 : (int)rnd((uint64_t)k);
            tree[k].first = tree[k].parent < 0 ? 0 : tree[tree[k].parent].end;
            tree[k].end = tree[k].first + 1 + rnd(3);
        }
        struct holding h[3];
        for (int i = 0; i < 3; i++) {
            h[i] = path_to((int)rnd(NODES));
            shorten(&h[i], rnd(2) ? UINT64_MAX : rnd(15));
        }
        const struct holding ab = join(h[0], h[1]), ba = join(h[1], h[0]), bc = join(h[1], h[2]);
        const struct holding left = join(ab, h[2]), right = join(h[0], bc),
                             twice = join(left, left);
        assert_true(same(&ab, &ba));
        assert_true(same(&left, &right));
        assert_true(same(&left, &twice));
        random_state = keep;
    }
}

static void machines_join(void **state)
{
    (void)state;
    static const uint32_t order[3][2] = {{0, 1}, {1, 2}, {0, 2}};
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct few f;
        struct holding h[3];
        random_state = seed * 7919;
        grow_tree();
        start(&f, 3);
        for (uint32_t i = 0; i < 3; i++) {
            h[i] = endow(&f, i);
            expect(&f, i, &h[i]);
        }
        struct holding want = join(join(h[0], h[1]), h[2]);
        const uint32_t first = (uint32_t)rnd(3);
        for (uint32_t k = 0; k < 2; k++) /* pairwise: first one link, then the next */
            few_link(&f, order[(first + k) % 3][0], order[(first + k) % 3][1]),
                few_run(&f, k ? 60 : (uint32_t)rnd(8));
        for (uint32_t i = 0; i < 3; i++)
            expect(&f, i, &want);
        for (uint32_t i = 0; i < 3; i++)
            assert_int_equal(f.drops[i], 0); /* nobody was blamed */
        few_release(&f);
    }
}

/* The trunk: what is before the first place where the tree parts. */
static struct holding trunk(void)
{
    struct holding h = {.cut = UINT64_MAX};
    for (int at = -1;;) {
        int children = 0, child = -1;
        for (int k = 0; k < NODES; k++)
            if (tree[k].parent == at) {
                children++;
                child = k;
            }
        if (children > 1)
            h.cut = tree[child].first;
        if (children != 1)
            return h;
        h.chain[h.n++] = at = child;
    }
}

/* Every segment of every branch, in any order and again and again, until nothing changes: what counts is the trunk, exactly.  (The pieces
 * overlap, branches part again, and whole chains hang on the wrong side of a fork.) */
static void any_order_gives_the_trunk(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct few f;
        random_state = seed * 104729;
        grow_tree();
        const struct holding want = trunk();
        start(&f, 4);
        for (uint32_t i = 0; i < 4; i++) {
            int order[NODES];
            for (int k = 0; k < NODES; k++) {
                const int at = (int)rnd((uint64_t)k + 1);
                order[k] = order[at];
                order[at] = k;
            }
            for (int k = 0; k < NODES * NODES; k++) {
                const struct node *t = &tree[order[k % NODES]];
                (void)!net_gossip_load(f.g[i], author.id, t->wire, t->bytes);
            }
            few_actions(&f, i);
            expect(&f, i, &want);
        }
        few_release(&f);
    }
}

/* ---- with a hostile neighbour: machine LIAR is no machine, its answers are made here ---- */
enum { LIAR = 3 };

static void say(struct few *f, uint32_t to, const uint8_t *p, size_t n)
{
    net_gossip_frame(f->g[to], to * FEW_MAX + LIAR, p, n, f->now);
    few_actions(f, to);
}

static void claim(struct few *f, uint32_t to, uint8_t type)
{
    uint8_t out[1 + WIRE_ENTRY] = {type};
    memcpy(out + 1, author.id, 32);
    bytes_put_le(out + 33, rnd(2) ? rnd(25) : UINT64_C(1) << 33, 8);
    memcpy(out + 41, rnd(2) ? tree[rnd(NODES)].id : owner.id, 32);
    bytes_put_le(out + 73, rnd(3) ? UINT64_MAX : rnd(20), 8);
    say(f, to, out, sizeof out);
}

/* A true segment, whatever the question was: of any branch, or none. */
static void throw_in(struct few *f, uint32_t to)
{
    uint8_t out[37 + NET_SEGMENT_BYTES_MAX] = {WIRE_SEGMENT_OF};
    const struct node *t = &tree[rnd(NODES)];
    memcpy(out + 1, author.id, 32);
    memcpy(out + 37, t->wire, t->bytes);
    say(f, to, out, 37 + t->bytes);
}

static void lie(struct few *f, uint32_t to, const uint8_t *p, size_t n, bool segments)
{
    uint8_t out[33 + 40 * LIMIT_ASK_SEQS];
    if (segments && rnd(2))
        throw_in(f, to);
    if (p[0] == WIRE_PULL)
        claim(f, to, rnd(3) ? WIRE_NOHEAD : WIRE_DONE);
    if (p[0] == WIRE_SUMMARY || p[0] == WIRE_WANT)
        claim(f, to, WIRE_HAVE);
    if (p[0] != WIRE_ASK)
        return;
    const size_t asked = (n - 33) / 8;
    memcpy(out, p, 33);
    out[0] = WIRE_TELL;
    for (size_t i = 0; i < asked; i++) {
        memcpy(out + 33 + 40 * i, p + 33 + 8 * i, 8);
        memcpy(out + 41 + 40 * i, tree[rnd(NODES)].id, 32);
    }
    say(f, to, out, 33 + 40 * asked);
}

static void run_with_liar(struct few *f, uint32_t seconds, bool segments)
{
    for (uint32_t s = 0; s < seconds; s++) {
        f->now += FEW_S;
        for (uint32_t i = 0; i < LIAR; i++) {
            net_gossip_tick(f->g[i], f->now);
            few_actions(f, i);
            if (rnd(8) == 0)
                claim(f, i, WIRE_HAVE);
        }
        for (uint32_t most = 20000; f->first && most > 0; most--) {
            struct few_frame *e = f->first;
            f->first = e->next;
            if (!f->first)
                f->last = &f->first;
            if (e->to == LIAR)
                lie(f, e->link / FEW_MAX, e->data, e->n, segments);
            else
                net_gossip_frame(f->g[e->to], e->link, e->data, e->n, f->now);
            few_actions(f, e->to == LIAR ? e->link / FEW_MAX : e->to);
            free(e);
        }
        assert_null(f->first); /* no conversation without end */
    }
}

/* NOHEAD without end, claims of longer feeds and lower cuts, invented ids: the honest still end at the join of what they held.  With true
 * segments thrown in they end at one and the same place.  Nobody honest is blamed by anybody. */
static void a_liar_changes_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 80; seed++) {
        const bool segments = seed % 2;
        struct few f;
        struct holding h[3];
        random_state = seed * 15485863;
        grow_tree();
        start(&f, 3);
        memset(f.id[LIAR], 0x55, 32);
        for (uint32_t i = 0; i < 3; i++)
            h[i] = endow(&f, i);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(net_gossip_link_up(f.g[i], i * FEW_MAX + LIAR, f.id[LIAR], i % 2, f.now), ERR_OK);
            few_actions(&f, i);
        }
        few_link(&f, 0, 1);
        few_link(&f, 1, 2);
        run_with_liar(&f, 240, segments);
        const struct holding want = join(join(h[0], h[1]), h[2]);
        for (uint32_t i = 0; i < 3; i++) {
            if (!segments)
                expect(&f, i, &want);
            assert_int_equal(f.state[i], few_state_again(&f, i));
            assert_true(few_agree(&f, 0, i));
            assert_int_equal(f.drops[i], 0);
        }
        few_release(&f);
    }
}

/* Load order at start-up must not matter where the ledger cannot promise one: controls before, between, after. */
static void controls_load_in_any_order(void **state)
{
    (void)state;
    for (int when = 0; when < 3; when++) {
        struct few f;
        random_state = 99;
        do
            grow_tree();
        while (path_to(NODES - 1).n < 4);
        start(&f, 1);
        struct holding h = path_to(NODES - 1);
        for (int k = 0; k < h.n; k++) {
            if (k == when * h.n / 2)
                retract_at(&f, 0, tree[h.chain[2]].first + 1);
            (void)!net_gossip_load(f.g[0], author.id, tree[h.chain[k]].wire,
                                   tree[h.chain[k]].bytes);
        }
        if (when == 2)
            retract_at(&f, 0, tree[h.chain[2]].first + 1);
        few_actions(&f, 0);
        shorten(&h, tree[h.chain[2]].first + 1);
        expect(&f, 0, &h);
        few_release(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(join_is_a_join),
        cmocka_unit_test(machines_join),
        cmocka_unit_test(any_order_gives_the_trunk),
        cmocka_unit_test(a_liar_changes_nothing),
        cmocka_unit_test(controls_load_in_any_order),
    };
    if (net_start() != ERR_OK)
        return 1;
    owner = few_key(1);
    author = few_key(2);
    rules = few_rules(&owner);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
