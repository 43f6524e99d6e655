/* Identities, hashes, signatures against published answers. */
#include <onebyte/net/id.h>
#include <sodium.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[64];

static const char *in_folder(const char *name)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/onebyte-id-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"key", "short", "open", "bent", "fifo"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        (void)unlink(in_folder(names[i]));
    return rmdir(folder);
}

/* BLAKE2b-256 of "abc" and of nothing: RFC 7693's reference code with a 32-byte output (as in b2sum -l 256). */
static void hash_known_answers(void **state)
{
    (void)state;
    char hex[65];
    uint8_t h[32], again[32];
    net_hash(h, (struct net_part[]){{"a", 1}, {"bc", 2}}, 2);
    net_hex(hex, h, 32);
    assert_string_equal(hex, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    net_hash(h, NULL, 0);
    net_hex(hex, h, 32);
    assert_string_equal(hex, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
    struct net_hash_state s;
    net_hash_start(&s);
    net_hash_end(&s, again);
    assert_memory_equal(h, again, 32);
}

/* RFC 8032, 7.1, test 3. */
static void signature_known_answer(void **state)
{
    (void)state;
    static const char *const seed_hex =
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7";
    static const char *const id_hex =
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025";
    static const char *const sig_hex =
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a";
    uint8_t seed[32], sk[64], sig[64], want[64];
    struct net_identity i = {.sk = sk};
    assert_int_equal(net_unhex(seed, 32, seed_hex), ERR_OK);
    assert_int_equal(crypto_sign_seed_keypair(i.id, sk, seed), 0);
    assert_int_equal(net_unhex(want, 32, id_hex), ERR_OK);
    assert_memory_equal(i.id, want, 32);
    const struct net_part parts[] = {{"\xaf", 1}, {"\x82", 1}};
    net_sign(sig, &i, parts, 2);
    assert_int_equal(net_unhex(want, 64, sig_hex), ERR_OK);
    assert_memory_equal(sig, want, 64);
    assert_int_equal(net_verify(sig, i.id, parts, 2), ERR_OK);
    for (size_t bit = 0; bit < 512; bit++) {
        sig[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(net_verify(sig, i.id, parts, 2), ERR_PROTO);
        sig[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(net_verify(sig, i.id, parts, 1), ERR_PROTO);
}

/* SPEC 6: S < l, no small-order key or R.  With the identity point as key and R, S = 0 satisfies the equation. */
static void small_order_is_refused(void **state)
{
    (void)state;
    uint8_t id[32] = {1}, sig[64] = {1};
    assert_int_equal(net_verify(sig, id, (struct net_part[]){{"x", 1}}, 1), ERR_PROTO);
    memset(id, 0, 32);
    memset(sig, 0, 64);
    assert_int_equal(net_verify(sig, id, (struct net_part[]){{"x", 1}}, 1), ERR_PROTO);
}

static void large_s_is_refused(void **state)
{
    (void)state;
    struct net_identity i;
    uint8_t sig[64];
    /* l, little-endian: adding it to S gives the same point, and another encoding. */
    static const uint8_t l[32] = {0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7,
                                  0xa2, 0xde, 0xf9, 0xde, 0x14, 0,    0,    0,    0,    0,    0,
                                  0,    0,    0,    0,    0,    0,    0,    0,    0,    0x10};
    assert_int_equal(net_identity_new(&i), ERR_OK);
    net_sign(sig, &i, (struct net_part[]){{"x", 1}}, 1);
    assert_int_equal(net_verify(sig, i.id, (struct net_part[]){{"x", 1}}, 1), ERR_OK);
    unsigned carry = 0;
    for (int k = 0; k < 32; k++) {
        carry += sig[32 + k] + l[k];
        sig[32 + k] = (uint8_t)carry;
        carry >>= 8;
    }
    assert_int_equal(net_verify(sig, i.id, (struct net_part[]){{"x", 1}}, 1), ERR_PROTO);
    net_identity_release(&i);
}

static void key_file_round_trip(void **state)
{
    (void)state;
    struct net_identity a, b = {0};
    struct err_why why;
    struct stat st;
    assert_int_equal(net_identity_new(&a), ERR_OK);
    assert_int_equal(net_identity_save(&a, in_folder("key"), &why), ERR_OK);
    assert_int_equal(stat(in_folder("key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(net_identity_save(&a, in_folder("key"), &why), ERR_IO); /* never overwritten */
    assert_non_null(strstr(why.text, "never overwritten"));
    assert_int_equal(net_identity_load(&b, in_folder("key"), &why), ERR_OK);
    assert_memory_equal(a.id, b.id, 32);
    assert_memory_equal(a.sk, b.sk, 64);
    net_identity_release(&a);
    net_identity_release(&b);
    net_identity_release(&b); /* twice is fine */
}

/* The VmFlags of the mapping that holds p, as the kernel tells them; "" if it does not. */
static void flags_of(char flags[256], const void *p)
{
    char line[512];
    bool here = false;
    FILE *f = fopen("/proc/self/smaps", "re");
    flags[0] = '\0';
    while (f && fgets(line, sizeof line, f)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            here = (uintptr_t)p >= from && (uintptr_t)p < to;
        else if (here && strncmp(line, "VmFlags:", 8) == 0)
            (void)snprintf(flags, 256, "%.255s", line + 8);
    }
    if (f)
        (void)fclose(f);
}

/* Never in a core dump, never in swap.  (ASan makes mlock do nothing; a tiny limit makes it fail.) */
static void keys_are_locked_in_memory(void **state)
{
    (void)state;
    struct net_identity i;
    struct rlimit r;
    char flags[256];
    assert_int_equal(net_identity_new(&i), ERR_OK);
    flags_of(flags, i.sk);
    if (flags[0]) {
        assert_non_null(strstr(flags, " dd"));
#ifndef __SANITIZE_ADDRESS__
        if (getrlimit(RLIMIT_MEMLOCK, &r) == 0 && r.rlim_cur >= 1 << 20)
            assert_non_null(strstr(flags, " lo"));
#else
        (void)r;
#endif
    }
    net_identity_release(&i);
    assert_null(i.sk);
}

static void write_file(const char *path, const uint8_t *p, size_t n, mode_t mode)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), (ssize_t)n);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static void bad_key_files(void **state)
{
    (void)state;
    struct net_identity a, b = {0};
    struct err_why why;
    uint8_t sk[64];
    assert_int_equal(net_identity_new(&a), ERR_OK);
    memcpy(sk, a.sk, 64);
    net_identity_release(&a);
    assert_int_equal(net_identity_load(&b, in_folder("none"), &why), ERR_NOTFOUND);
    write_file(in_folder("short"), sk, 63, 0600);
    assert_int_equal(net_identity_load(&b, in_folder("short"), &why), ERR_FORMAT);
    assert_int_equal(net_identity_load(&b, folder, &why), ERR_FORMAT); /* a folder */
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    assert_int_equal(net_identity_load(&b, in_folder("fifo"), &why), ERR_FORMAT); /* at once */
    write_file(in_folder("open"), sk, 64, 0640);
    assert_int_equal(net_identity_load(&b, in_folder("open"), &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "chmod 600"));
    sk[40] ^= 1; /* the public half */
    write_file(in_folder("bent"), sk, 64, 0600);
    assert_int_equal(net_identity_load(&b, in_folder("bent"), &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "damaged"));
    assert_null(b.sk);
}

static void hex_both_ways(void **state)
{
    (void)state;
    char hex[9];
    uint8_t out[4] = {9, 9, 9, 9};
    net_hex(hex, (const uint8_t[]){0x00, 0xff, 0x1a, 0xA1}, 4);
    assert_string_equal(hex, "00ff1aa1");
    assert_int_equal(net_unhex(out, 4, "00FF1aA1"), ERR_OK);
    assert_memory_equal(out, ((const uint8_t[]){0x00, 0xff, 0x1a, 0xa1}), 4);
    static const char *const bad[] = {"",         "00ff1aa",  "00ff1aa10",
                                      "00ff1aag", "00ff 1aa", "0x00ff1a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(net_unhex(out, 4, bad[i]), ERR_FORMAT);
    assert_memory_equal(out, ((const uint8_t[]){0x00, 0xff, 0x1a, 0xa1}), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_known_answers),     cmocka_unit_test(signature_known_answer),
        cmocka_unit_test(small_order_is_refused), cmocka_unit_test(large_s_is_refused),
        cmocka_unit_test(key_file_round_trip),
        cmocka_unit_test(keys_are_locked_in_memory), cmocka_unit_test(bad_key_files),
        cmocka_unit_test(hex_both_ways),
    };
    if (net_start() != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
