/* Audits on the embedded model: the judge, the author's log of folds, and evidence that holds, or does not, once something is changed. */
#include "peer/evidence.h"
#include "peer/fold_log.h"
#include "peer/make.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <onebyte/base/bytes.h>
#include <onebyte/net/control.h>
#include <onebyte/zo/codec.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODEL "peer/demo/model"
#define TRAIN "peer/demo/train.jsonl"
enum { COUNT = 8, FILLER = 24 };

/* ---- the judge ---- */

static void judge_knows_an_honest_byte(void **state)
{
    (void)state;
    const struct zo_rules r = {.sides = 2, .k = 1, .eps = 0.01f};
    const uint16_t unit = zo_f16_from_double(2);
    double want = 0, tolerance = 0;
    for (int v = -140; v <= 140; v++) {
        const double g = v * 2 / 32.0;
        const int8_t honest = (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
        assert_int_equal(peer_judge(&r, honest, unit, g, 1, &want, &tolerance), PEER_AGREES);
        assert_true(fabs(want - v) < 1e-9 && tolerance > 0.5 && tolerance < 1);
        if (v != 0)
            assert_int_equal(peer_judge(&r, (int8_t)-honest, unit, g, 1, NULL, NULL), PEER_OFF);
        assert_int_equal(peer_judge(&r, (int8_t)(honest > 0 ? honest - 2 : honest + 2), unit, g, 1, NULL, NULL), PEER_OFF);
    }
    /* half a code away is what rounding does; the slack grows with the loss and with 1 / eps */
    assert_int_equal(peer_judge(&r, 10, unit, 10.49 * 2 / 32, 1, NULL, NULL), PEER_AGREES);
    assert_int_equal(peer_judge(&r, 10, unit, 11.2 * 2 / 32, 1, NULL, NULL), PEER_OFF);
    assert_int_equal(peer_judge(&r, 10, unit, 11.2 * 2 / 32, 10, NULL, NULL), PEER_AGREES);
    const struct zo_rules coarse = {.sides = 2, .k = 1, .eps = 1e-6f};
    assert_int_equal(peer_judge(&coarse, 10, unit, -5, 1, NULL, NULL), PEER_UNSURE);
}

static void judge_at_the_borders(void **state)
{
    (void)state;
    const struct zo_rules r = {.sides = 1, .k = 4, .eps = 0.01f}, fixed = {.sides = 2, .k = 1, .eps = 0.01f, .unit = 1u << 24};
    assert_int_equal(peer_judge(&r, ZO_CODE_VOID, 0x7e00, NAN, NAN, NULL, NULL), PEER_AGREES); /* counts for nothing */
    assert_int_equal(peer_judge(&r, 5, zo_f16_from_double(1), NAN, 1, NULL, NULL), PEER_UNSURE);
    assert_int_equal(peer_judge(&r, 5, 0x7e00, 1, 1, NULL, NULL), PEER_OFF);  /* r NaN */
    assert_int_equal(peer_judge(&r, 5, 0x7c00, 1, 1, NULL, NULL), PEER_OFF);  /* infinite */
    assert_int_equal(peer_judge(&r, 5, 0xbc00, 1, 1, NULL, NULL), PEER_OFF);  /* negative */
    assert_int_equal(peer_judge(&r, 5, 0, 1, 1, NULL, NULL), PEER_OFF);       /* zero, and a code */
    assert_int_equal(peer_judge(&r, 0, 0, 1, 1, NULL, NULL), PEER_AGREES);
    assert_int_equal(peer_judge(&fixed, 32, 0x7e00, 1, 1, NULL, NULL), PEER_AGREES); /* r is not read */
    assert_int_equal(peer_judge(&fixed, -32, 0x7e00, 1, 1, NULL, NULL), PEER_OFF);
}

/* ---- the log of folds ---- */

enum { SEGMENTS = 300, ENTRIES_MAX = 12 };
static uint8_t frontiers[SEGMENTS][ENTRIES_MAX * 80];
static size_t lengths[SEGMENTS];

static void id_of(uint8_t id[32], unsigned i)
{
    memset(id, 0xab, 32);
    bytes_put_le(id, i, 4);
}

/* Entries appear, in any place, and change; now and then one goes (only a new process could do that). */
static void make_frontiers(void)
{
    uint64_t x = 5;
    size_t n = 0;
    static uint8_t now[ENTRIES_MAX * 80];
    for (unsigned i = 0; i < SEGMENTS; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        if (n < ENTRIES_MAX && (x >> 33) % 16 == 0) {
            const size_t at = (x >> 40) % (n + 1) * 80;
            memmove(now + at + 80, now + at, n * 80 - at);
            memset(now + at, 0, 80);
            n++;
            for (size_t k = 0; k < n; k++) /* ids ascend */
                now[80 * k] = (uint8_t)(k * 3 + 1 + (x >> 50) % 3);
        } else if (n > 1 && (x >> 33) % 97 == 0) {
            n--;
        } else if (n > 0) {
            bytes_put_le(now + (x >> 40) % n * 80 + 32, i, 8);
        }
        memcpy(frontiers[i], now, n * 80);
        lengths[i] = n * 80;
    }
}

static unsigned check_log(struct peer_fold_log *l, unsigned from, unsigned to)
{
    unsigned found = 0;
    for (unsigned i = from; i < to; i++) {
        uint8_t id[32], *frontier = NULL;
        size_t n = 0;
        uint64_t digest = 0;
        id_of(id, i);
        if (peer_fold_log_find(l, id, &frontier, &n, &digest) != ERR_OK)
            continue;
        found++;
        assert_int_equal(n, lengths[i]);
        assert_memory_equal(frontier, frontiers[i], n);
        assert_int_equal(digest, i * 17);
        free(frontier);
    }
    return found;
}

static void add_all(struct peer_fold_log *l, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        uint8_t id[32];
        id_of(id, i);
        assert_int_equal(peer_fold_log_add(l, id, i * 17, frontiers[i], lengths[i]), ERR_OK);
    }
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void log_gives_back_what_it_was_told(void **state)
{
    (void)state;
    char dir[] = "/tmp/onebyte-test-XXXXXX", path[64];
    struct peer_fold_log *l = NULL;
    struct stat st;
    uint8_t byte;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/folds", dir);
    make_frontiers();
    assert_int_equal(peer_fold_log_open(&l, dir, FOLD_LOG_BYTES), ERR_OK);
    add_all(l, 0, 200);
    assert_int_equal(check_log(l, 0, SEGMENTS), 200);
    peer_fold_log_close(l);
    assert_int_equal(stat(path, &st), 0);
    assert_true((uint64_t)st.st_size < 200 * (4 + 41 + 8 + 80 + 1) + 4 * sizeof frontiers[0]); /* differences, not wholes */

    assert_int_equal(peer_fold_log_open(&l, dir, FOLD_LOG_BYTES), ERR_OK); /* another life */
    add_all(l, 200, SEGMENTS);
    assert_int_equal(check_log(l, 0, SEGMENTS), SEGMENTS);
    peer_fold_log_close(l);

    assert_int_equal(truncate(path, st.st_size - 3), 0); /* a torn record, and what comes after it */
    assert_int_equal(peer_fold_log_open(&l, dir, FOLD_LOG_BYTES), ERR_OK);
    assert_int_equal(check_log(l, 0, SEGMENTS), 199);
    peer_fold_log_close(l);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &byte, 1, st.st_size / 2), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, st.st_size / 2), 1);
    close(fd);
    assert_int_equal(peer_fold_log_open(&l, dir, FOLD_LOG_BYTES), ERR_OK);
    const unsigned left = check_log(l, 0, SEGMENTS);
    assert_true(left > 20 && left < 199);
    add_all(l, 200, SEGMENTS); /* goes on behind the last good one */
    assert_int_equal(check_log(l, 200, SEGMENTS), SEGMENTS - 200);
    peer_fold_log_close(l);
    assert_int_equal(nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static void log_stays_small(void **state)
{
    (void)state;
    char dir[] = "/tmp/onebyte-test-XXXXXX", path[64];
    struct peer_fold_log *l = NULL;
    struct stat st;
    enum { MOST = 6000 };
    assert_non_null(mkdtemp(dir));
    make_frontiers();
    assert_int_equal(peer_fold_log_open(&l, dir, MOST), ERR_OK);
    add_all(l, 0, SEGMENTS);
    const unsigned found = check_log(l, 0, SEGMENTS);
    assert_true(found >= 20 && found < SEGMENTS);
    assert_int_equal(check_log(l, SEGMENTS - 20, SEGMENTS), 20); /* the newest */
    peer_fold_log_close(l);
    assert_int_equal(peer_fold_log_open(&l, dir, MOST), ERR_OK);
    assert_int_equal(check_log(l, 0, SEGMENTS), found);
    peer_fold_log_close(l);
    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "%s/folds%s", dir, i ? ".old" : "");
        assert_int_equal(stat(path, &st), 0);
        assert_true(st.st_size <= MOST);
    }
    assert_int_equal(nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---- evidence ---- */

enum { OWNER, OTHER, HONEST, LIAR, KEYS };

struct fixture {
    struct net_identity key[KEYS];
    struct peer_manifest manifest;
    struct peer_evidence of[2]; /* the honest machine's segment, the liar's: measured at the same state */
    uint8_t other[2][NET_SEGMENT_BYTES_MAX], wire[2][NET_SEGMENT_BYTES_MAX];
    size_t n_other[2], n_wire[2];
};

static struct peer_engine opened(const struct fixture *f)
{
    const struct peer_engine_options o = {.model_dir = MODEL, .threads = 1};
    struct peer_engine e;
    struct err_why why = {{0}};
    if (peer_engine_open(&e, &f->manifest, &o, &why) != ERR_OK)
        fail_msg("%s", why.text);
    return e;
}

static struct zo_dataset *data_of(const struct peer_engine *e)
{
    struct zo_dataset *d = NULL;
    struct err_why why = {{0}};
    if (peer_engine_data(e, &d, TRAIN, &why) != ERR_OK)
        fail_msg("%s", why.text);
    return d;
}

/* Every segment of the run, but the last n_less of OTHER. */
static struct net_gossip *ledger_of(const struct fixture *f, unsigned n_less)
{
    struct net_gossip *g = NULL;
    struct net_action a;
    assert_int_equal(net_gossip_new(&g, &f->manifest.net, f->key[OWNER].id, 0), ERR_OK);
    for (unsigned i = 0; i + n_less < 2; i++)
        assert_int_equal(net_gossip_load(g, f->key[OTHER].id, f->other[i], f->n_other[i]), ERR_OK);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(net_gossip_load(g, f->key[HONEST + i].id, f->wire[i], f->n_wire[i]), ERR_OK);
    while (net_gossip_action(g, &a))
        ;
    return g;
}

/* Two segments of OTHER, whose codes are nobody's measurements: they only make the state that the others measure at. */
static void make_other(struct fixture *f, uint8_t head[32])
{
    memset(head, 0, 32);
    for (unsigned i = 0; i < 2; i++) {
        struct net_segment s = {.first_seq = i * FILLER, .count = FILLER, .lag = FILLER, .r_f16 = zo_f16_from_double(1)};
        for (unsigned c = 0; c < FILLER; c++)
            s.codes[c] = (int8_t)((c * 37 + i * 11) % 90 - 45);
        memcpy(s.prev, head, 8);
        net_segment_sign(&s, &f->manifest.net, &f->key[OTHER], head);
        net_segment_id(head, &s, f->manifest.run_id, f->key[OTHER].id, head);
        f->n_other[i] = net_segment_write(f->other[i], &s);
    }
}

static void fold_other(const struct fixture *f, struct peer_engine *e)
{
    struct net_gossip *g = NULL;
    struct net_action a;
    struct peer_folds folds;
    assert_int_equal(net_gossip_new(&g, &f->manifest.net, f->key[OWNER].id, 0), ERR_OK);
    assert_int_equal(peer_folds_init(&folds, 8), ERR_OK);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(net_gossip_load(g, f->key[OTHER].id, f->other[i], f->n_other[i]), ERR_OK);
    while (net_gossip_action(g, &a))
        if (a.kind == NET_FOLD)
            peer_folds_add(&folds, &f->manifest, &a);
    assert_int_equal(peer_folds_flush(&folds, e), ERR_OK);
    peer_folds_release(&folds);
    net_gossip_free(g);
}

static void sign_frontier(const struct fixture *f, struct peer_evidence *v, unsigned who)
{
    uint8_t id[32], hash[32];
    net_segment_id(id, &v->segment, v->run_id, v->machine, v->prev);
    net_hash(hash, &(const struct net_part){v->frontier, v->n_frontier}, 1);
    net_audit_sign(v->sig, &f->manifest.net, &f->key[who], id, hash);
}

/* What an auditor would hold: COUNT records measured at the frontier, as they are or with the other sign. */
static void make_evidence(struct fixture *f, unsigned i, struct peer_engine *e, const struct zo_dataset *d, const uint8_t head[32])
{
    struct peer_evidence *v = &f->of[i];
    const struct net_identity *who = &f->key[HONEST + i];
    struct zo_codec codec = {.n = 0};
    uint64_t seqs[COUNT];
    double g[COUNT], loss[COUNT];
    uint32_t key[2];
    memcpy(v->run_id, f->manifest.run_id, 32);
    memcpy(v->machine, who->id, 32);
    v->frontier = malloc(80);
    v->n_frontier = 80;
    struct net_frontier_entry entry = {.count = 2 * FILLER, .cut = UINT64_MAX};
    memcpy(entry.machine, f->key[OTHER].id, 32);
    memcpy(entry.head, head, 32);
    peer_frontier_put(v->frontier, 0, &entry);
    v->records = calloc(COUNT, sizeof *v->records);
    v->n_records = COUNT;
    for (unsigned k = 0; k < COUNT; k++)
        v->records[k].seq = seqs[k] = k;
    net_stream_key(key, v->run_id, v->machine);
    assert_int_equal(peer_audit_measure(e, d, key, seqs, COUNT, g, loss), ERR_OK);
    v->segment = (struct net_segment){.count = COUNT, .lag = COUNT};
    zo_codec_seal(&codec, &f->manifest.rules, g, COUNT, v->segment.codes, &v->segment.r_f16);
    for (unsigned k = 0; k < COUNT && i == 1; k++)
        v->segment.codes[k] = (int8_t)-v->segment.codes[k];
    peer_binding(v->segment.binding, zo_state_digest(e->state, e->kernels, e->pool), v->frontier, 80);
    net_segment_sign(&v->segment, &f->manifest.net, who, v->prev);
    f->n_wire[i] = net_segment_write(f->wire[i], &v->segment);
    sign_frontier(f, v, HONEST + i);
}

static int set_up(void **state)
{
    static struct fixture f;
    struct peer_make k;
    struct peer_made made;
    struct err_why why = {{0}};
    uint8_t head[32];
    for (unsigned i = 0; i < KEYS; i++)
        if (net_identity_new(&f.key[i]) != ERR_OK)
            return -1;
    peer_make_defaults(&k);
    k.flags.model = MODEL;
    k.data = TRAIN;
    k.n0 = 16;
    k.steps = 100;
    k.public_data = true;
    k.audit = 0.25;
    if (peer_make_manifest(&f.manifest, &made, &k, &f.key[OWNER], &why) != ERR_OK)
        fail_msg("%s", why.text);
    make_other(&f, head);
    struct peer_engine e = opened(&f);
    struct zo_dataset *d = data_of(&e);
    fold_other(&f, &e);
    for (unsigned i = 0; i < 2; i++)
        make_evidence(&f, i, &e, d, head);
    zo_dataset_free(d);
    peer_engine_close(&e);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < 2; i++)
        peer_evidence_free(&f->of[i]);
    for (unsigned i = 0; i < KEYS; i++)
        net_identity_release(&f->key[i]);
    peer_manifest_free(&f->manifest);
    return 0;
}

static enum err verified(const struct fixture *f, struct peer_evidence *v, const struct net_gossip *g, size_t *off, struct err_why *why)
{
    struct peer_engine e = opened(f);
    struct zo_dataset *d = data_of(&e);
    const enum err code = peer_evidence_verify(v, &e, d, g, off, why);
    zo_dataset_free(d);
    peer_engine_close(&e);
    return code;
}

static void refused(const struct fixture *f, struct peer_evidence *v, const struct net_gossip *g, enum err want, const char *text)
{
    struct err_why why = {{0}};
    size_t off = 0;
    assert_int_equal(verified(f, v, g, &off, &why), want);
    if (!strstr(why.text, text))
        fail_msg("'%s' does not say '%s'", why.text, text);
}

static void evidence_holds_against_the_liar_alone(void **state)
{
    struct fixture *f = *state;
    struct err_why why = {{0}};
    struct net_gossip *g = ledger_of(f, 0);
    size_t off = 0;
    assert_true(f->manifest.audit > 0.249 && f->manifest.audit < 0.251);
    assert_int_equal(verified(f, &f->of[0], g, &off, &why), ERR_OK);
    assert_int_equal(off, 0);
    for (unsigned i = 0; i < COUNT; i++) {
        const struct peer_finding *x = &f->of[0].records[i];
        if (x->verdict != PEER_AGREES || fabs(x->want - x->code) > 0.51)
            fail_msg("record %u: code %d, measured again %.9g, tolerance %.9g", i, x->code, x->want, x->tolerance);
    }
    assert_int_equal(verified(f, &f->of[1], g, &off, &why), ERR_OK);
    assert_true(off >= COUNT / 2); /* a code near zero may be either */
    net_gossip_free(g);
}

static void evidence_that_was_changed(void **state)
{
    struct fixture *f = *state;
    struct peer_evidence *v = &f->of[1];
    struct net_gossip *g = ledger_of(f, 0);
    v->segment.codes[3] ^= 1;
    refused(f, v, g, ERR_PROTO, "not signed by the machine");
    v->segment.codes[3] ^= 1;
    v->frontier[33] ^= 1;
    refused(f, v, g, ERR_PROTO, "did not sign");
    v->frontier[33] ^= 1;
    v->machine[0] ^= 1;
    refused(f, v, g, ERR_PROTO, "not signed by the machine");
    v->machine[0] ^= 1;
    v->run_id[9] ^= 1;
    refused(f, v, g, ERR_PROTO, "another run");
    v->run_id[9] ^= 1;
    v->records[0].seq = COUNT;
    refused(f, v, g, ERR_PROTO, "not of the evidence's segment");
    v->records[0].seq = v->records[1].seq; /* one lie shown as two */
    refused(f, v, g, ERR_PROTO, "twice");
    v->records[0].seq = 0;
    v->prev[5] ^= 1;
    refused(f, v, g, ERR_PROTO, "not signed by the machine");
    v->prev[5] ^= 1;
    v->sig[63] ^= 1;
    refused(f, v, g, ERR_PROTO, "did not sign");
    v->sig[63] ^= 1;
    net_gossip_free(g);
}

/* The machine itself signs that it measured elsewhere: the parameters there do not hash to what its segment's header says. */
static void frontier_that_is_another(void **state)
{
    struct fixture *f = *state;
    struct peer_evidence *v = &f->of[1];
    struct net_gossip *g = ledger_of(f, 0);
    const size_t n = v->n_frontier;
    v->n_frontier = 0;
    sign_frontier(f, v, LIAR);
    refused(f, v, g, ERR_PROTO, "does not make the parameters");
    v->n_frontier = n;
    bytes_put_le(v->frontier + 72, FILLER + 3, 8); /* a cut that was not there */
    sign_frontier(f, v, LIAR);
    refused(f, v, g, ERR_PROTO, "does not make the parameters");
    bytes_put_le(v->frontier + 72, UINT64_MAX, 8);
    sign_frontier(f, v, OTHER); /* somebody else signs */
    refused(f, v, g, ERR_PROTO, "did not sign");
    sign_frontier(f, v, LIAR);
    net_gossip_free(g);
}

/* A ledger that lacks a part of the frontier, and one in which it was cut off since: the evidence may bring it along. */
static void branches_are_brought_along(void **state)
{
    struct fixture *f = *state;
    struct peer_evidence *v = &f->of[1];
    struct err_why why = {{0}};
    uint8_t frame[NET_CONTROL_BYTES_MAX];
    struct net_action a;
    size_t off = 0;
    struct net_gossip *g = ledger_of(f, 1);
    refused(f, v, g, ERR_NOTFOUND, "the ledger does not hold");
    assert_int_equal(peer_branches_add(&v->branches, f->key[OTHER].id, f->other[1], f->n_other[1]), ERR_OK);
    assert_int_equal(verified(f, v, g, &off, &why), ERR_OK);
    assert_true(off >= COUNT / 2);
    net_gossip_free(g);
    g = ledger_of(f, 0);
    for (unsigned i = 0; i < 2; i++) { /* the liar from 0 on, OTHER within its first segment */
        const size_t n = net_control_retract(frame, &f->manifest.net, &f->key[OWNER], f->key[i ? LIAR : OTHER].id, i ? 0 : FILLER - 5);
        assert_int_equal(net_gossip_load_control(g, frame, n), ERR_OK);
        while (net_gossip_action(g, &a))
            ;
    }
    assert_int_equal(verified(f, v, g, &off, &why), ERR_OK);
    assert_true(off >= COUNT / 2);
    net_gossip_free(g);
}

static void evidence_as_a_file(void **state)
{
    struct fixture *f = *state;
    char path[] = "/tmp/onebyte-test-XXXXXX", *text = NULL;
    struct err_why why = {{0}};
    struct peer_evidence v;
    size_t n = 0, off = 0;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(peer_evidence_save(&f->of[1], path, &why), ERR_OK);
    assert_int_equal(peer_evidence_load(&v, path, &why), ERR_OK);
    struct net_gossip *g = ledger_of(f, 0);
    assert_int_equal(verified(f, &v, g, &off, &why), ERR_OK);
    assert_true(off >= COUNT / 2);
    peer_evidence_free(&v);
    assert_int_equal(peer_read_file(&text, &n, path, 1 << 20, &why), ERR_OK);
    for (size_t cut = 0; cut + 3 < n; cut += 7) /* its last bytes are "]\n}" */
        assert_int_equal(peer_evidence_parse(&v, text, cut, &why), ERR_FORMAT);
    memcpy(strstr(text, "\"version\": 1") + 11, "2", 1);
    assert_int_equal(peer_evidence_parse(&v, text, n, &why), ERR_UNSUPPORTED);
    assert_int_equal(peer_evidence_parse(&v, "{\"onebyte\": \"else\"}", 19, &why), ERR_FORMAT);
    free(text);
    net_gossip_free(g);
    assert_int_equal(unlink(path), 0);
}

static void audits_need_public_data(void **state)
{
    struct fixture *f = *state;
    struct peer_make k;
    struct peer_made made;
    struct peer_manifest m = {0};
    struct err_why why = {{0}};
    peer_make_defaults(&k);
    k.flags.model = MODEL;
    k.data = TRAIN;
    k.audit = 0.01;
    assert_int_equal(peer_make_manifest(&m, &made, &k, &f->key[OWNER], &why), ERR_RANGE);
    assert_non_null(strstr(why.text, "--public"));
    k.public_data = true;
    k.audit = 0;
    assert_int_equal(peer_make_manifest(&m, &made, &k, &f->key[OWNER], &why), ERR_OK);
    assert_null(strstr(m.text, "\"audit\"")); /* older versions read it */
    assert_true(m.audit >= 0 && m.audit <= 0);
    peer_manifest_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judge_knows_an_honest_byte),
        cmocka_unit_test(judge_at_the_borders),
        cmocka_unit_test(log_gives_back_what_it_was_told),
        cmocka_unit_test(log_stays_small),
        cmocka_unit_test(evidence_holds_against_the_liar_alone),
        cmocka_unit_test(evidence_that_was_changed),
        cmocka_unit_test(frontier_that_is_another),
        cmocka_unit_test(branches_are_brought_along),
        cmocka_unit_test(evidence_as_a_file),
        cmocka_unit_test(audits_need_public_data),
    };
    struct err_why why = {{0}};
    if (net_start() != ERR_OK || zo_blas_start(&why) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
