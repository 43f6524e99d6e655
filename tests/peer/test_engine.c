/* The engine on the embedded model: a manifest made for it, a ledger of signed segments, and one digest however they are
 * folded.  Needs no network and no ../shared. */
#include "peer/engine.h"
#include "peer/make.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ftw.h>
#include <math.h>
#include <onebyte/net/control.h>
#include <onebyte/zo/codec.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODEL "peer/demo/model"
#define TRAIN "peer/demo/train.jsonl"
#define EVAL "peer/demo/eval.jsonl"
enum { MACHINES = 3, SEGMENTS = 4, COUNT = 24 };

struct fixture {
    char dir[64];
    struct net_identity owner, machine[MACHINES];
    struct peer_manifest manifest;
    struct net_ledger *ledger;
    uint64_t base_digest;
};

static void make_run(struct fixture *f)
{
    struct peer_make k;
    struct peer_made made;
    struct err_why why = {{0}};
    peer_make_defaults(&k);
    k.flags.model = MODEL;
    k.data = TRAIN;
    k.eval_data = EVAL;
    k.n0 = 16;
    k.steps = 100;
    k.burst = 8;
    if (peer_make_manifest(&f->manifest, &made, &k, &f->owner, &why) != ERR_OK)
        fail_msg("%s", why.text);
    assert_true(made.coef_min >= 16);
}

/* Signed segments whose codes and void records follow from their place alone. */
static void make_feeds(struct fixture *f)
{
    struct err_why why = {{0}};
    char path[PEER_PATH_BYTES];
    bool fresh = false;
    (void)snprintf(path, sizeof path, "%s/ledger.db", f->dir);
    assert_int_equal(
        net_ledger_open(&f->ledger, path, f->manifest.run_id, f->owner.id, false, &fresh, &why),
        ERR_OK);
    for (unsigned m = 0; m < MACHINES; m++) {
        uint8_t prev[32] = {0}, wire[NET_SEGMENT_BYTES_MAX];
        for (unsigned i = 0; i < SEGMENTS; i++) {
            struct net_segment s = {.first_seq = i * COUNT,
                                    .count = COUNT,
                                    .step = i,
                                    .lag = COUNT + 3 * m,
                                    .loss_f16 = zo_f16_from_double(1.5),
                                    .r_f16 = zo_f16_from_double(2)};
            for (unsigned c = 0; c < COUNT; c++)
                s.codes[c] =
                    (int8_t)(c % 11 == 5 ? ZO_CODE_VOID : (int)(c * 37 + i * 11 + m * 5) % 90 - 45);
            if (i > 0)
                memcpy(s.prev, prev, sizeof s.prev);
            net_segment_sign(&s, &f->manifest.net, &f->machine[m], prev);
            net_segment_id(prev, &s, f->manifest.run_id, f->machine[m].id, prev);
            const size_t n = net_segment_write(wire, &s);
            assert_int_equal(net_ledger_append(f->ledger, f->machine[m].id, s.first_seq, wire, n,
                                               false, 1000 * i),
                             ERR_OK);
        }
    }
    assert_int_equal(net_ledger_flush(f->ledger), ERR_OK);
}

static struct peer_engine opened(const struct fixture *f, const char *kernels, size_t threads)
{
    const struct peer_engine_options o = {
        .model_dir = MODEL, .kernels = kernels, .threads = threads};
    struct peer_engine e;
    struct err_why why = {{0}};
    if (peer_engine_open(&e, &f->manifest, &o, &why) != ERR_OK)
        fail_msg("%s", why.text);
    return e;
}

static uint64_t digest_of(const struct peer_engine *e)
{
    char text[17];
    peer_engine_digest(e, text);
    return strtoull(text, NULL, 16);
}

static int set_up(void **state)
{
    static struct fixture f;
    (void)snprintf(f.dir, sizeof f.dir, "/tmp/onebyte-test-XXXXXX");
    if (!mkdtemp(f.dir) || net_identity_new(&f.owner) != ERR_OK)
        return -1;
    for (unsigned m = 0; m < MACHINES; m++)
        if (net_identity_new(&f.machine[m]) != ERR_OK)
            return -1;
    make_run(&f);
    make_feeds(&f);
    struct peer_engine e = opened(&f, "ref", 1);
    f.base_digest = digest_of(&e);
    peer_engine_close(&e);
    *state = &f;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    net_ledger_close(f->ledger);
    peer_manifest_free(&f->manifest);
    net_identity_release(&f->owner);
    for (unsigned m = 0; m < MACHINES; m++)
        net_identity_release(&f->machine[m]);
    return nftw(f->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static struct net_gossip *gossip_of(const struct fixture *f)
{
    struct net_gossip *g = NULL;
    assert_int_equal(net_gossip_new(&g, &f->manifest.net, f->owner.id, 0), ERR_OK);
    return g;
}

static uint64_t ledger_digest(const struct fixture *f, const char *kernels, size_t threads,
                              struct peer_loaded *loaded)
{
    struct peer_engine e = opened(f, kernels, threads);
    struct net_gossip *g = gossip_of(f);
    struct err_why why = {{0}};
    if (peer_load_ledger(g, f->ledger, &f->manifest, &e, NULL, NULL, loaded, &why) != ERR_OK)
        fail_msg("%s", why.text);
    const uint64_t digest = digest_of(&e);
    net_gossip_free(g);
    peer_engine_close(&e);
    return digest;
}

static void a_ledger_has_one_digest(void **state)
{
    const struct fixture *f = *state;
    struct peer_loaded loaded;
    const uint64_t want = ledger_digest(f, "ref", 1, &loaded);
    assert_true(want != f->base_digest);
    assert_int_equal(loaded.segments, MACHINES * SEGMENTS);
    assert_int_equal(loaded.refused, 0);
    assert_int_equal(loaded.records, MACHINES * SEGMENTS * (COUNT - 2)); /* two of 24 are void */
    assert_true(ledger_digest(f, NULL, 2, &loaded) == want);
    assert_true(ledger_digest(f, NULL, 1, &loaded) == want);
}

/* Segment by segment in another order, through peer_folds of every batch size, with one taken out and put back. */
static void order_and_batches_do_not_matter(void **state)
{
    const struct fixture *f = *state;
    struct peer_loaded loaded;
    const uint64_t want = ledger_digest(f, NULL, 2, &loaded);
    for (size_t batch = 1; batch <= 7; batch += 3) {
        struct peer_engine e = opened(f, NULL, 2);
        struct net_gossip *g = gossip_of(f);
        struct err_why why = {{0}};
        struct peer_folds folds;
        struct net_segment s;
        uint8_t counts[LIMIT_SEGMENT_COUNT], id[32];
        assert_int_equal(peer_folds_init(&folds, batch), ERR_OK);
        assert_int_equal(
            peer_load_ledger(g, f->ledger, &f->manifest, NULL, NULL, NULL, &loaded, &why), ERR_OK);
        for (unsigned i = SEGMENTS; i-- > 0;)
            for (unsigned m = 0; m < MACHINES; m++)
                for (int turn = 0; turn < 3; turn++) {
                    assert_true(net_gossip_segment(g, f->machine[m].id, i, &s, id, counts));
                    peer_folds_put(&folds, &f->manifest, f->machine[m].id, &s, counts, turn == 1);
                    if (peer_folds_full(&folds))
                        assert_int_equal(peer_folds_flush(&folds, &e), ERR_OK);
                }
        assert_int_equal(peer_folds_flush(&folds, &e), ERR_OK);
        assert_int_equal(folds.records, loaded.records);
        assert_true(digest_of(&e) == want);
        peer_folds_release(&folds);
        net_gossip_free(g);
        peer_engine_close(&e);
    }
}

static void an_exported_ledger_is_the_same(void **state)
{
    const struct fixture *f = *state;
    struct peer_loaded loaded, portable;
    struct err_why why = {{0}};
    char path[PEER_PATH_BYTES];
    const uint64_t want = ledger_digest(f, NULL, 2, &loaded);
    (void)snprintf(path, sizeof path, "%s/exported", f->dir);
    assert_int_equal(net_ledger_export(f->ledger, path, &why), ERR_OK);
    struct peer_engine e = opened(f, NULL, 2);
    struct net_gossip *g = gossip_of(f);
    assert_int_equal(peer_load_portable(g, path, &f->manifest, &e, NULL, NULL, &portable, &why),
                     ERR_OK);
    assert_true(digest_of(&e) == want);
    assert_int_equal(portable.records, loaded.records);
    net_gossip_free(g);
    g = gossip_of(f);
    struct peer_manifest other = f->manifest;
    other.run_id[0] ^= 1;
    assert_int_not_equal(peer_load_portable(g, path, &other, NULL, NULL, NULL, &portable, &why),
                         ERR_OK);
    assert_true(why.text[0] != '\0');
    net_gossip_free(g);
    peer_engine_close(&e);
}

static void a_retraction_takes_records_out_exactly(void **state)
{
    struct fixture *f = *state;
    struct peer_loaded loaded;
    uint8_t frame[NET_CONTROL_BYTES_MAX];
    for (unsigned m = 0; m < MACHINES; m++) {
        const size_t n = net_control_retract(frame, &f->manifest.net, &f->owner, f->machine[m].id,
                                             m == 0 ? COUNT + 5 : 0);
        assert_int_equal(net_ledger_control(f->ledger, frame, n), ERR_OK);
    }
    assert_true(ledger_digest(f, NULL, 2, &loaded) != f->base_digest);
    assert_int_equal(loaded.records, COUNT - 2 + 5); /* the first segment, and five of the second */
    const size_t n = net_control_retract(frame, &f->manifest.net, &f->owner, f->machine[0].id, 0);
    assert_int_equal(net_ledger_control(f->ledger, frame, n), ERR_OK);
    assert_true(ledger_digest(f, NULL, 2, &loaded) == f->base_digest);
    assert_int_equal(loaded.records, 0);
}

static bool stop_at_once(void *ctx, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return ++*(int *)ctx < 3;
}

static void evaluation_counts_and_stops(void **state)
{
    const struct fixture *f = *state;
    struct peer_engine e = opened(f, NULL, 2);
    struct zo_dataset *d = NULL;
    struct peer_eval a, b;
    struct err_why why = {{0}};
    int calls = 0;
    if (peer_engine_data(&e, &d, EVAL, &why) != ERR_OK)
        fail_msg("%s", why.text);
    assert_int_equal(peer_engine_eval(&e, d, 30, 7, NULL, NULL, &a), ERR_OK);
    assert_int_equal(peer_engine_eval(&e, d, 30, 1, NULL, NULL, &b), ERR_OK);
    assert_int_equal(a.examples, 30);
    assert_int_equal(a.choices, 30);
    assert_true(a.tokens == b.tokens && a.correct == b.correct);
    assert_true(fabs(a.loss_example_mean - b.loss_example_mean) < 1e-5);
    assert_true(fabs(a.accuracy - (double)a.correct / 30) < 1e-12);
    assert_int_equal(peer_engine_eval(&e, d, 30, 1, stop_at_once, &calls, &b), ERR_CANCELLED);
    assert_int_equal(calls, 3);
    zo_dataset_free(d);
    assert_int_not_equal(peer_engine_data(&e, &d, "peer/demo/none.jsonl", &why), ERR_OK);
    peer_engine_close(&e);
}

static void wrong_tensors_are_named(void **state)
{
    const struct fixture *f = *state;
    const struct peer_engine_options o = {.model_dir = MODEL};
    struct peer_engine e;
    struct peer_manifest m = f->manifest;
    struct err_why why = {{0}};
    struct zo_tensor *t = malloc(m.rules.n_tensors * sizeof *t);
    assert_non_null(t);
    memcpy(t, m.rules.tensors, m.rules.n_tensors * sizeof *t);
    m.rules.tensors = t;
    t[1].dims[0]++;
    assert_int_equal(peer_engine_open(&e, &m, &o, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, t[1].name));
    t[1].dims[0]--;
    t[2].name[0] = '~';
    assert_int_equal(peer_engine_open(&e, &m, &o, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, t[2].name));
    m.rules.n_tensors--;
    t[2].name[0] = f->manifest.rules.tensors[2].name[0];
    assert_int_equal(peer_engine_open(&e, &m, &o, &why), ERR_FORMAT);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ledger_has_one_digest),
        cmocka_unit_test(order_and_batches_do_not_matter),
        cmocka_unit_test(an_exported_ledger_is_the_same),
        cmocka_unit_test(evaluation_counts_and_stops),
        cmocka_unit_test(wrong_tensors_are_named),
        cmocka_unit_test(a_retraction_takes_records_out_exactly),
    };
    return net_start() == ERR_OK
               ? cmocka_run_group_tests_name("peer/engine", tests, set_up, tear_down)
               : 1;
}
