/* Wires, ids, what counts, clock, frontier, binding against independent implementations: ../shared/vectors/arith1.json and
 * tests/vectors/arith.json (made by tests/vectors/spec.py from SPEC alone). */
#include <onebyte/base/bytes.h>
#include <onebyte/net/control.h>
#include <onebyte/net/gossip.h>
#include <jansson.h>
#include <sodium.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static json_t *load(const char *path)
{
    json_t *j = json_load_file(path, 0, NULL);
    if (!j) {
        print_message("%s is not there: skipped\n", path);
        skip();
    }
    return j;
}

static uint64_t number(const json_t *o, const char *key, uint64_t otherwise)
{
    const json_t *v = json_object_get(o, key);
    if (json_is_boolean(v))
        return json_is_true(v) ? 1 : 0;
    return json_is_integer(v) ? (uint64_t)json_integer_value(v) : otherwise;
}

static void hex32(uint8_t out[32], const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    assert_non_null(s);
    assert_int_equal(net_unhex(out, 32, s), ERR_OK);
}

static size_t hex_bytes(uint8_t *out, size_t max, const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    assert_non_null(s);
    const size_t n = strlen(s) / 2;
    assert_true(n <= max);
    assert_int_equal(net_unhex(out, n, s), ERR_OK);
    return n;
}

static uint8_t owner_sk[64];
static struct net_identity owner = {.sk = owner_sk};

static struct net_rules rules_of(const json_t *run)
{
    struct net_rules r = {0};
    json_t *m = json_loads(json_string_value(json_object_get(run, "manifest")), 0, NULL);
    const char *manifest = json_string_value(json_object_get(run, "manifest"));
    uint8_t id[32];
    assert_non_null(m);
    r.n0 = number(m, "n0", 0);
    r.steps = number(m, "steps", 0);
    r.share_65536 = number(m, "share_65536", 0);
    r.burst = number(m, "burst", 0);
    r.k = (uint32_t)number(m, "K", 1);
    r.records_max = number(m, "records_max", LIMIT_RECORDS_DEFAULT);
    const char *pace = json_string_value(json_object_get(m, "pace"));
    r.sync = pace && strcmp(pace, "sync") == 0;
    memcpy(r.owner, owner.id, 32); /* ours, so that we can retract; no segment reads it */
    hex32(r.run_id, run, "run_id");
    net_hash(id, &(struct net_part){manifest, strlen(manifest)}, 1);
    assert_memory_equal(id, r.run_id, 32);
    json_decref(m);
    return r;
}

/* Codes that count, from FOLD less UNFOLD, summed by machine, seq and code: compared with the vector's.  Zero codes only show in
 * the clock: the vectors write 0 for a record that does not count. */
struct tally {
    uint64_t sum, n;
};

static uint64_t hash_record(const uint8_t machine[32], uint64_t seq, int code)
{
    uint64_t z = bytes_get_le(machine, 8) ^ seq * UINT64_C(0x9E3779B97F4A7C15) ^
                 (uint64_t)(uint8_t)code << 56;
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    return z ^ z >> 27;
}

static void drain(struct net_gossip *g, struct tally *t)
{
    struct net_action a;
    while (net_gossip_action(g, &a)) {
        if (a.kind != NET_FOLD && a.kind != NET_UNFOLD)
            continue;
        const uint64_t sign = a.kind == NET_FOLD ? 1 : UINT64_MAX;
        for (uint32_t i = 0; i < a.segment->count; i++)
            if (a.counts[i] && a.segment->codes[i] != 0) {
                t->sum +=
                    sign * hash_record(a.machine, a.segment->first_seq + i, a.segment->codes[i]);
                t->n += sign;
            }
    }
}

static void load_segments(struct net_gossip *g, const json_t *run, struct tally *t, bool after_cuts)
{
    size_t k;
    json_t *s;
    json_array_foreach(json_object_get(run, "segments"), k, s)
    {
        uint8_t machine[32], wire[NET_SEGMENT_BYTES_MAX];
        hex32(machine, s, "machine");
        const size_t n = hex_bytes(wire, sizeof wire, s, "wire");
        const enum err e = net_gossip_load(g, machine, wire, n);
        if (!after_cuts)
            assert_int_equal(e, ERR_OK);
        drain(g, t);
    }
}

static void check_ids(const struct net_rules *r, const json_t *run)
{
    size_t k;
    json_t *s;
    json_array_foreach(json_object_get(run, "segments"), k, s)
    {
        uint8_t machine[32], wire[NET_SEGMENT_BYTES_MAX], again[NET_SEGMENT_BYTES_MAX], id[32],
            want[32], pred[32];
        struct net_segment seg;
        hex32(machine, s, "machine");
        hex32(pred, s, "pred");
        hex32(want, s, "id");
        const size_t n = hex_bytes(wire, sizeof wire, s, "wire");
        assert_int_equal(net_segment_parse(&seg, wire, n), ERR_OK);
        assert_int_equal(net_segment_write(again, &seg), n);
        assert_memory_equal(wire, again, n);
        net_segment_id(id, &seg, r->run_id, machine, pred);
        assert_memory_equal(id, want, 32);
    }
}

static void apply_cuts(struct net_gossip *g, const struct net_rules *r, const json_t *run,
                       struct tally *t)
{
    const char *machine_hex;
    json_t *cut;
    json_object_foreach(json_object_get(run, "cuts"), machine_hex, cut)
    {
        uint8_t frame[NET_CONTROL_BYTES_MAX], machine[32];
        assert_int_equal(net_unhex(machine, 32, machine_hex), ERR_OK);
        const size_t n =
            net_control_retract(frame, r, &owner, machine, (uint64_t)json_integer_value(cut));
        assert_int_equal(net_gossip_control(g, frame, n, 0), ERR_OK);
        drain(g, t);
    }
}

static struct tally wanted(const json_t *run)
{
    struct tally t = {0};
    size_t k;
    json_t *s;
    json_array_foreach(json_object_get(run, "segments"), k, s)
    {
        uint8_t machine[32], wire[NET_SEGMENT_BYTES_MAX];
        struct net_segment seg;
        hex32(machine, s, "machine");
        const size_t n = hex_bytes(wire, sizeof wire, s, "wire");
        assert_int_equal(net_segment_parse(&seg, wire, n), ERR_OK);
        const json_t *counted = json_object_get(s, "counted");
        assert_int_equal(json_array_size(counted), seg.count);
        for (uint32_t i = 0; i < seg.count; i++) {
            const int code = (int)json_integer_value(json_array_get(counted, i));
            if (code == 0)
                continue;
            assert_int_equal(code, seg.codes[i]);
            t.sum += hash_record(machine, seg.first_seq + i, code);
            t.n++;
        }
    }
    return t;
}

static void check_frontier(struct net_gossip *g, const json_t *run)
{
    static uint8_t want[80 * 64], got[80 * 64];
    struct net_frontier_entry e[64];
    uint8_t digest[32], again[32], hash[32];
    struct net_clock clock;
    const size_t bytes = hex_bytes(want, sizeof want, run, "frontier"),
                 n = net_gossip_frontier(g, NET_ALL, e, 64);
    assert_int_equal(bytes, 80 * n);
    for (size_t i = 0; i < n; i++) {
        memcpy(got + 80 * i, e[i].machine, 32);
        bytes_put_le(got + 80 * i + 32, e[i].count, 8);
        memcpy(got + 80 * i + 40, e[i].head, 32);
        bytes_put_le(got + 80 * i + 72, e[i].cut, 8);
    }
    assert_memory_equal(got, want, bytes);
    net_hash(hash, &(struct net_part){want, bytes}, 1);
    net_gossip_frontier_digest(g, NET_ALL, digest);
    net_frontier_digest(e, n, again);
    assert_memory_equal(digest, hash, 32);
    assert_memory_equal(again, hash, 32);
    net_gossip_clock(g, &clock);
    assert_int_equal(clock.hi, 0);
    assert_int_equal(clock.lo, number(run, "clock", 0));
    if (json_object_get(run, "step"))
        assert_int_equal(clock.step, number(run, "step", 0));
    uint8_t state_digest[8], binding[8];
    const char *hex = json_string_value(json_object_get(run, "digest"));
    bytes_put_le(state_digest, strtoull(hex, NULL, 16), 8);
    assert_int_equal(hex_bytes(binding, 8, run, "binding"), 8);
    net_hash(hash, (struct net_part[]){{state_digest, 8}, {want, bytes}}, 2);
    assert_memory_equal(hash, binding, 8);
}

static void runs(const json_t *list)
{
    size_t k;
    json_t *run;
    assert_true(json_array_size(list) > 0);
    json_array_foreach(list, k, run)
    {
        const struct net_rules r = rules_of(run);
        const struct tally want = wanted(run);
        const uint8_t self[32] = {1};
        check_ids(&r, run);
        for (int cuts_first = 0; cuts_first < 2; cuts_first++) {
            struct net_gossip *g;
            struct tally t = {0};
            assert_int_equal(net_gossip_new(&g, &r, self, 1), ERR_OK);
            if (cuts_first)
                apply_cuts(g, &r, run, &t);
            load_segments(g, run, &t, cuts_first);
            if (!cuts_first)
                apply_cuts(g, &r, run, &t);
            assert_int_equal(t.n, want.n);
            assert_int_equal(t.sum, want.sum);
            check_frontier(g, run);
            net_gossip_free(g);
        }
    }
}

static void shared_vectors(void **state)
{
    (void)state;
    json_t *j = load("../shared/vectors/arith1.json");
    runs(j);
    json_decref(j);
}

static void own_vectors(void **state)
{
    (void)state;
    json_t *j = load("tests/vectors/arith.json");
    runs(json_object_get(j, "runs"));
    json_decref(j);
}

static void check_list(const json_t *list, enum err want)
{
    size_t k;
    json_t *v;
    assert_true(json_array_size(list) > 0);
    json_array_foreach(list, k, v)
    {
        struct net_rules r = {.n0 = number(v, "n0", 1),
                              .k = (uint32_t)number(v, "k", 1),
                              .sync = number(v, "sync", 0) != 0,
                              .records_max = number(v, "records_max", 0),
                              .share_65536 = 65536};
        uint8_t machine[32], pred[32], wire[2 * NET_SEGMENT_BYTES_MAX];
        struct net_segment s;
        hex32(r.run_id, v, "run_id");
        hex32(machine, v, "machine");
        hex32(pred, v, "pred");
        const size_t n = hex_bytes(wire, sizeof wire, v, "wire");
        enum err e = net_segment_parse(&s, wire, n);
        if (e == ERR_OK)
            e = net_segment_check(&s, &r, machine, pred, number(v, "pred_end", 0),
                                  (uint32_t)number(v, "pred_step", 0));
        if (e != want)
            fail_msg("%s: %s", json_string_value(json_object_get(v, "why")), err_str(e));
    }
}

static void refused_and_accepted(void **state)
{
    (void)state;
    json_t *j = load("tests/vectors/arith.json");
    check_list(json_object_get(j, "refused"), ERR_PROTO);
    check_list(json_object_get(j, "accepted"), ERR_OK);
    json_decref(j);
}

static void retraction(void **state)
{
    (void)state;
    json_t *j = load("tests/vectors/arith.json");
    const json_t *v = json_object_get(j, "retract");
    struct net_rules r = {0};
    struct net_control c;
    uint8_t seed[32], sk[64], machine[32], frame[NET_CONTROL_BYTES_MAX], sig[64];
    struct net_identity i = {.sk = sk};
    hex32(r.run_id, v, "run_id");
    hex32(r.owner, v, "owner");
    hex32(seed, v, "owner_seed");
    hex32(machine, v, "machine");
    assert_int_equal(crypto_sign_seed_keypair(i.id, sk, seed), 0);
    assert_memory_equal(i.id, r.owner, 32);
    const size_t n = net_control_retract(frame, &r, &i, machine, number(v, "seq", 0));
    assert_int_equal(net_control_parse(&c, frame, n), ERR_OK);
    assert_int_equal(hex_bytes(sig, 64, v, "sig"), 64);
    assert_memory_equal(c.sig, sig, 64);
    json_decref(j);
}

int main(void)
{
    const uint8_t seed[32] = {9};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_vectors),
        cmocka_unit_test(own_vectors),
        cmocka_unit_test(refused_and_accepted),
        cmocka_unit_test(retraction),
    };
    if (net_start() != ERR_OK || crypto_sign_seed_keypair(owner.id, owner_sk, seed) != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
