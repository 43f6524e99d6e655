/* Manifests: the exact bytes name the run, every bad field is named, a flipped bit is found, files are checked. */
#include "peer/manifest.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KNOTS "\"knots\":[[0,1000],[50,0]]"
#define OWNER "\"owner\":\"0802c03538e42a12101eba6342cb6b1292ad87b05540e0a5d888b10546728408\""
#define TENSORS                                                                             \
    "\"tensors\":[{\"name\":\"b.w\",\"shape\":[5,7],\"bits\":32,\"e\":26},{\"name\":\"Z\"," \
    "\"shape\":[],\"bits\":64,\"e\":55}]"
#define HASH64 "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define MODEL \
    "\"model\":{\"files\":[{\"name\":\"config.json\",\"bytes\":10,\"chunks\":[\"" HASH64 "\"]}]}"
#define DATA "\"data\":{\"name\":\"d.jsonl\",\"bytes\":5,\"digest\":\"" HASH64 "\"}"
static const char whole[] =
    "{\"arith\":1,\"direction\":\"rank1\",\"n0\":16,\"steps\":100,\"share_65536\":32768,\"burst\":"
    "4," KNOTS "," OWNER "," TENSORS "," MODEL "," DATA "}";

/* `whole` with the first `from` replaced by `to`. */
static char *changed(const char *from, const char *to)
{
    const char *at = strstr(whole, from);
    assert_non_null(at);
    const size_t n = sizeof whole + strlen(to);
    char *out = malloc(n);
    assert_non_null(out);
    (void)snprintf(out, n, "%.*s%s%s", (int)(at - whole), whole, to, at + strlen(from));
    return out;
}

static void run_id_is_the_hash_of_the_bytes(void **state)
{
    /* python3: hashlib.blake2b(whole, digest_size=32), and of whole + b"\n" */
    static const char *const want[] = {
        "bde31245b38ed942b5d7f767608f7c7e82aa8abdd30ea08b200d4434be0da81a",
        "e6b2975d62bc0d2bc02cfaeee6abae03bc657e1455d475a463d952459503234c"};
    char text[sizeof whole + 1], hex[65];
    (void)state;
    (void)snprintf(text, sizeof text, "%s\n", whole);
    for (size_t i = 0; i < 2; i++) {
        struct peer_manifest m;
        struct err_why why = {{0}};
        assert_int_equal(peer_manifest_parse(&m, text, sizeof whole - 1 + i, &why), ERR_OK);
        net_hex(hex, m.run_id, 32);
        assert_string_equal(hex, want[i]);
        assert_memory_equal(m.net.run_id, m.run_id, 32);
        peer_manifest_free(&m);
    }
}

static void fields_arrive(void **state)
{
    struct peer_manifest m;
    struct err_why why = {{0}};
    (void)state;
    assert_int_equal(peer_manifest_parse(&m, whole, sizeof whole - 1, &why), ERR_OK);
    assert_int_equal(m.rules.direction, ZO_RANK1);
    assert_int_equal(m.rules.n0, 16);
    assert_int_equal(m.net.steps, 100);
    assert_int_equal(m.net.share_65536, 32768);
    assert_int_equal(m.net.records_max, 1 << 24);
    assert_int_equal(m.rules.sides, 2);
    assert_int_equal(m.rules.k, 1);
    assert_int_equal(m.rules.unit, 0);
    assert_int_equal(m.segment_max, 16); /* min(n0, 256) */
    assert_int_equal(m.rules.n_knots, 2);
    assert_int_equal(m.rules.knots[1].step, 50);
    assert_int_equal(m.rules.n_tensors, 2);
    assert_string_equal(m.rules.tensors[0].name, "Z"); /* byte order, not the file's */
    assert_int_equal(m.rules.tensors[0].n_dims, 0);
    assert_int_equal(m.rules.tensors[1].dims[1], 7);
    assert_int_equal(m.net.admission, NET_OPEN);
    assert_true(m.data.present && !m.eval_data.present);
    assert_int_equal(m.files[0].n_chunks, 1);
    assert_int_equal(m.files[0].chunks[0][1], 0x11);
    peer_manifest_free(&m);
}

static void one_sided_segments_are_whole_groups(void **state)
{
    struct peer_manifest m;
    struct err_why why = {{0}};
    char *text = changed("\"burst\":4,",
                         "\"burst\":4,\"sides\":1,\"K\":7,\"segment_max\":1024,\"pace\":\"sync\",");
    (void)state;
    assert_int_equal(peer_manifest_parse(&m, text, strlen(text), &why), ERR_OK);
    assert_int_equal(m.segment_max, 1022); /* 146 groups of 7: 1024 is the wire's limit */
    assert_int_equal(m.net.k, 7);
    assert_true(m.net.sync);
    peer_manifest_free(&m);
    free(text);
    text = changed("\"burst\":4,", "\"burst\":4,\"sides\":1,\"K\":7,");
    assert_int_equal(peer_manifest_parse(&m, text, strlen(text), &why), ERR_OK);
    assert_int_equal(m.segment_max, 21); /* 16 rounded up */
    peer_manifest_free(&m);
    free(text);
}

static void each_bad_field_is_named(void **state)
{
    static const struct {
        const char *from, *to, *says;
    } bad[] = {
        {"\"arith\":1", "\"arith\":2", "arith 2 is unknown"},
        {"\"arith\":1,", "", "'arith' is missing"},
        {"\"arith\":1", "\"arith\":1.0", "'arith' must be a whole number, not a float"},
        {"\"arith\":1", "\"arith\":\"1\"", "'arith'"},
        {"\"rank1\"", "\"rank2\"", "rank1, rademacher, gaussian"},
        {"\"direction\":\"rank1\",", "", "'direction' is missing"},
        {"\"n0\":16", "\"n0\":0", "'n0' is 0"},
        {"\"n0\":16", "\"n0\":16.5", "'n0' must be a whole number, not a float"},
        {"\"n0\":16", "\"n0\":1e3", "'n0' must be a whole number, not a float"},
        {"\"n0\":16", "\"n0\":-1", "'n0' is -1"},
        {"\"n0\":16", "\"n0\":4294967296", "'n0' is 4294967296"},
        {"\"n0\":16", "\"n0\":99999999999999999999", "not JSON"},
        {"\"n0\":16", "\"n0\":16,\"n0\":17", "not JSON"},
        {"\"steps\":100,", "", "'steps' is missing"},
        {"\"steps\":100", "\"steps\":4294967296", "'steps'"},
        {"32768", "65537", "'share_65536'"},
        {"32768", "0", "'share_65536'"},
        {"\"burst\":4", "\"burst\":null", "'burst' must be a whole number"},
        {"\"burst\":4", "\"burst\":4,\"K\":2", "'K' is 2"},
        {"\"burst\":4", "\"burst\":4,\"sides\":3", "'sides'"},
        {"\"burst\":4", "\"burst\":4,\"sides\":1", "'K' must be at least 2"},
        {"\"burst\":4", "\"burst\":4,\"unit\":0.5", "'unit' must be a whole number, not a float"},
        {"\"burst\":4", "\"burst\":4,\"eps\":0", "'eps'"},
        {"\"burst\":4", "\"burst\":4,\"eps\":\"x\"", "'eps' must be a number"},
        {"\"burst\":4", "\"burst\":4,\"colour\":1", "'colour' is unknown"},
        {"\"burst\":4", "\"burst\":4,\"pace\":\"fast\"", "async, sync"},
        {"\"burst\":4", "\"burst\":4,\"segment_max\":1025", "'segment_max'"},
        {"\"burst\":4", "\"burst\":4,\"seal_s\":0", "'seal_s'"},
        {"\"burst\":4", "\"burst\":4,\"public\":1", "'public' must be true or false"},
        {"\"burst\":4", "\"burst\":4,\"admission\":\"all\"", "open, allow, invite"},
        {"\"burst\":4", "\"burst\":4,\"allow\":[\"12\"]", "'allow[0]'"},
        {"\"burst\":4", "\"burst\":4,\"allow\":3", "'allow' must be a list"},
        {"[[0,1000]", "[[1,1000]", "'knots[0]' has step 1"},
        {"[50,0]", "[0,0]", "'knots[1]' has step 0"},
        {"[50,0]", "[50,-1]", "'knots[1]' has y -1"},
        {"[50,0]", "[50,4611686018427387904]", "2^62 - 1"},
        {"[50,0]", "[50,0.5]", "'knots[1]' must be two whole numbers"},
        {"[50,0]", "[50]", "'knots[1]' must be two whole numbers"},
        {"[[0,1000],[50,0]]", "[]", "'knots'"},
        {"0802c035", "0802c0", "'owner' must be 64 hex digits"},
        {"0802c035", "zz02c035", "'owner' must be 64 hex digits"},
        {"\"name\":\"Z\"", "\"name\":\"b.w\"", "'b.w' is listed twice"},
        {"\"name\":\"Z\"", "\"name\":\"\"", "name' is empty"},
        {"\"name\":\"Z\",", "", "'tensors[1].name' is missing"},
        {"[5,7]", "[5,0]", "tensors[0].shape"},
        {"[5,7]", "[5,7.0]", "tensors[0].shape"},
        {"[5,7]", "[1,1,1,1,1,1,1,1,1]", "tensors[0].shape"},
        {"[5,7]", "[1099511627776,2]", "tensors[0].shape"},
        {"\"bits\":32", "\"bits\":33", "tensors[0].bits"},
        {"\"e\":26", "\"e\":62", "tensors[0].e"},
        {"\"e\":26", "\"e\":26,\"f\":1", "'tensors[0].f' is unknown"},
        {"config.json", "../x", "plain file name"},
        {"config.json", ".hidden", "plain file name"},
        {"\"bytes\":10", "\"bytes\":4194305", "'model.files[0].chunks'"},
        {"\"chunks\":[\"0011", "\"chunks\":[\"001", "'model.files[0].chunks[0]'"},
        {"\"digest\":\"0011", "\"digest\":\"001", "'data.digest'"},
        {"\"bytes\":5,", "", "'data.bytes' is missing"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct peer_manifest m;
        struct err_why why = {{0}};
        char *text = changed(bad[i].from, bad[i].to);
        if (peer_manifest_parse(&m, text, strlen(text), &why) == ERR_OK)
            fail_msg("accepted: %s", text);
        if (!strstr(why.text, bad[i].says))
            fail_msg("case %zu: '%s' does not say '%s'", i, why.text, bad[i].says);
        assert_null(strchr(why.text, '\n'));
        free(text);
    }
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        struct peer_manifest m;
        struct err_why why = {{0}};
        assert_int_not_equal(peer_manifest_parse(&m, whole, n, &why), ERR_OK);
        assert_true(why.text[0] != '\0');
    }
}

/* `whole` with this identity as owner, parsed and signed. */
static void signed_manifest(struct peer_manifest *m, struct net_identity *owner)
{
    char hex[65];
    struct err_why why = {{0}};
    assert_int_equal(net_identity_new(owner), ERR_OK);
    net_hex(hex, owner->id, 32);
    char *text = changed("0802c03538e42a12101eba6342cb6b1292ad87b05540e0a5d888b10546728408", hex);
    assert_int_equal(peer_manifest_parse(m, text, strlen(text), &why), ERR_OK);
    peer_manifest_sign(m, owner);
    free(text);
}

static void a_flipped_bit_is_found(void **state)
{
    struct peer_manifest m, got;
    struct net_identity owner;
    struct err_why why = {{0}};
    (void)state;
    signed_manifest(&m, &owner);
    assert_int_equal(peer_manifest_accept(&got, m.text, m.text_bytes, m.sig, &why), ERR_OK);
    assert_memory_equal(got.run_id, m.run_id, 32);
    peer_manifest_free(&got);
    for (size_t bit = 0; bit < 8 * m.text_bytes; bit += 3) { /* every byte, most bits */
        m.text[bit / 8] = (char)(m.text[bit / 8] ^ 1 << bit % 8);
        assert_int_not_equal(peer_manifest_accept(&got, m.text, m.text_bytes, m.sig, &why), ERR_OK);
        m.text[bit / 8] = (char)(m.text[bit / 8] ^ 1 << bit % 8);
    }
    for (size_t bit = 0; bit < 8 * sizeof m.sig; bit++) {
        m.sig[bit / 8] = (uint8_t)(m.sig[bit / 8] ^ 1 << bit % 8);
        assert_int_equal(peer_manifest_accept(&got, m.text, m.text_bytes, m.sig, &why), ERR_PROTO);
        m.sig[bit / 8] = (uint8_t)(m.sig[bit / 8] ^ 1 << bit % 8);
    }
    assert_non_null(strstr(why.text, "signature"));
    peer_manifest_free(&m);
    net_identity_release(&owner);
}

static void write_text(const char *path, const char *text)
{
    struct err_why why = {{0}};
    assert_int_equal(peer_write_file(path, text, strlen(text), 0644, &why), ERR_OK);
}

static void save_and_load(void **state)
{
    const char *dir = *state;
    char path[256], sig[260];
    struct peer_manifest m, got;
    struct net_identity owner;
    struct err_why why = {{0}};
    (void)snprintf(path, sizeof path, "%s/run.json", dir);
    (void)snprintf(sig, sizeof sig, "%s.sig", path);
    assert_int_equal(peer_manifest_load(&got, path, &why), ERR_NOTFOUND);
    signed_manifest(&m, &owner);
    assert_int_equal(peer_manifest_save(&m, path, &why), ERR_OK);
    assert_int_equal(peer_manifest_load(&got, path, &why), ERR_OK);
    assert_int_equal(got.text_bytes, m.text_bytes);
    assert_memory_equal(got.sig, m.sig, 64);
    peer_manifest_free(&got);
    write_text(sig, "short");
    assert_int_equal(peer_manifest_load(&got, path, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "64 bytes"));
    assert_int_equal(unlink(sig), 0);
    assert_int_equal(peer_manifest_load(&got, path, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, "signature"));
    peer_manifest_free(&m);
    net_identity_release(&owner);
}

static void hashes_are_blake2b_of_4_mib_chunks(void **state)
{
    /* python3: b = bytes(i * 7 % 251 for i in range(4194304 + 5)); blake2b of b[:4194304], of b[4194304:], of b */
    static const char *const want[] = {
        "7d1bc2ac5cc35bb0bc252e16629a0597da0226bdc33b86db01caff4109b36e14",
        "6acfc9ddce15dd3d2d2c92f40c1baf92dc25cc3e581b875015b62296eeb8ddd8",
        "7103a103de0be47f823559d99d222870e0814839e8cc8ab8d9808f3516b32c6e"};
    const size_t n = PEER_CHUNK_BYTES + 5;
    char path[256], hex[65];
    struct peer_file f = {0};
    struct peer_data d;
    struct err_why why = {{0}};
    uint8_t *bytes = malloc(n);
    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 7 % 251);
    (void)snprintf(path, sizeof path, "%s/big", (const char *)*state);
    assert_int_equal(peer_write_file(path, bytes, n, 0644, &why), ERR_OK);
    free(bytes);
    assert_int_equal(peer_file_hash(&f, *state, "big", &why), ERR_OK);
    assert_int_equal(f.n_chunks, 2);
    assert_true(f.bytes == n);
    for (size_t i = 0; i < 2; i++) {
        net_hex(hex, f.chunks[i], 32);
        assert_string_equal(hex, want[i]);
    }
    free(f.chunks);
    assert_int_equal(peer_data_digest(&d, path, &why), ERR_OK);
    net_hex(hex, d.digest, 32);
    assert_string_equal(hex, want[2]);
    assert_string_equal(d.name, "big");
    assert_int_equal(peer_manifest_check_data(&d, path, &why), ERR_OK);
    d.digest[0] ^= 1;
    assert_int_equal(peer_manifest_check_data(&d, path, &why), ERR_FORMAT);
}

static void a_wrong_model_is_named(void **state)
{
    const char *dir = *state;
    char path[256], cache[256];
    struct peer_manifest m = {0};
    struct peer_file files[2] = {0};
    struct err_why why = {{0}};
    (void)snprintf(path, sizeof path, "%s/two", dir);
    (void)snprintf(cache, sizeof cache, "%s/verified", dir);
    write_text(path, "second file");
    (void)snprintf(path, sizeof path, "%s/one", dir);
    write_text(path, "first file");
    assert_int_equal(peer_file_hash(&files[0], dir, "one", &why), ERR_OK);
    assert_int_equal(peer_file_hash(&files[1], dir, "two", &why), ERR_OK);
    m.files = files;
    m.n_files = 2;
    assert_int_equal(peer_manifest_check_model(&m, dir, NULL, &why), ERR_OK);
    assert_int_equal(peer_manifest_check_model(&m, dir, cache, &why), ERR_OK);
    assert_int_equal(access(cache, R_OK), 0);
    assert_int_equal(peer_manifest_check_model(&m, dir, cache, &why), ERR_OK);
    write_text(path, "First file"); /* same size: only the hash tells */
    assert_int_equal(peer_manifest_check_model(&m, dir, cache, &why),
                     ERR_FORMAT); /* the cache knows another inode */
    assert_non_null(strstr(why.text, "/one"));
    assert_non_null(strstr(why.text, "offset 0"));
    write_text(path, "first files");
    assert_int_equal(peer_manifest_check_model(&m, dir, NULL, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "11 bytes"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(peer_manifest_check_model(&m, dir, NULL, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, "one"));
    free(files[0].chunks);
    free(files[1].chunks);
}

static int make_dir(void **state)
{
    static char dir[64];
    (void)snprintf(dir, sizeof dir, "/tmp/onebyte-test-XXXXXX");
    *state = mkdtemp(dir);
    return *state && net_start() == ERR_OK ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static int remove_dir(void **state)
{
    return nftw(*state, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_id_is_the_hash_of_the_bytes),
        cmocka_unit_test(fields_arrive),
        cmocka_unit_test(one_sided_segments_are_whole_groups),
        cmocka_unit_test(each_bad_field_is_named),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(a_flipped_bit_is_found),
        cmocka_unit_test_setup_teardown(save_and_load, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(hashes_are_blake2b_of_4_mib_chunks, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_wrong_model_is_named, make_dir, remove_dir),
    };
    return net_start() == ERR_OK ? cmocka_run_group_tests_name("peer/manifest", tests, NULL, NULL)
                                 : 1;
}
