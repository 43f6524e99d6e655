/* The library on a user's own loss: peers agree bit for bit in any interleaving, learn, and refuse what is wrong. */
#include <onebyte/tune.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

enum { N = 37, ROUNDS = 200 };

struct message {
    uint8_t bytes[ONEBYTE_MESSAGE_BYTES];
    size_t n;
};

/* A bowl around 1, 2, 3, ..; its example shifts it by nothing: every gradient is clean. */
static double bowl(void *ctx, const float *theta, size_t n, uint64_t example)
{
    double sum = 0;
    (void)ctx;
    (void)example;
    for (size_t i = 0; i < n; i++)
        sum += ((double)theta[i] - (double)(i % 3)) * ((double)theta[i] - (double)(i % 3));
    return sum / (double)n;
}

static double never(void *ctx, const float *theta, size_t n, uint64_t example)
{
    (void)ctx;
    (void)theta;
    (void)n;
    return example % 2 ? (double)NAN : (double)INFINITY;
}

static struct onebyte_tuner *made(const char *run, float first)
{
    float theta[N] = {first};
    const struct onebyte_options o = {
        .run = run, .theta = theta, .n = N, .eps = 0.01f, .lr = 0.05f, .n0 = 64, .steps = 1000};
    struct onebyte_tuner *t = NULL;
    struct err_why why = {{0}};
    assert_int_equal(onebyte_tuner_new(&t, &o, &why), ERR_OK);
    return t;
}

static void measure(struct onebyte_tuner *t, uint32_t n, struct message *m)
{
    assert_int_equal(onebyte_tuner_measure(t, bowl, NULL, n, m->bytes, &m->n, NULL), ERR_OK);
    assert_int_equal(m->n, 32 + 40 + n + 64); /* one byte per gradient, and the envelope */
}

static void any_interleaving_gives_the_same_bits(void **state)
{
    static struct message a[ROUNDS], b[ROUNDS];
    struct onebyte_tuner *x = made("r", 0), *y = made("r", 0), *late = made("r", 0);
    const double before = bowl(NULL, onebyte_tuner_theta(x), N, 0);
    (void)state;
    assert_true(onebyte_tuner_digest(x) == onebyte_tuner_digest(y));
    for (int i = 0; i < ROUNDS; i++) {
        measure(x, 16, &a[i]);
        measure(y, 8, &b[i]);
        assert_int_equal(onebyte_tuner_take(y, a[i].bytes, a[i].n, NULL), ERR_OK);
        assert_int_equal(onebyte_tuner_take(x, b[i].bytes, b[i].n, NULL), ERR_OK);
    }
    for (int i = 0; i < ROUNDS; i++) /* all of one machine, then all of the other */
        assert_int_equal(onebyte_tuner_take(late, b[i].bytes, b[i].n, NULL), ERR_OK);
    assert_true(onebyte_tuner_digest(late) != onebyte_tuner_digest(x));
    for (int i = 0; i < ROUNDS; i++)
        assert_int_equal(onebyte_tuner_take(late, a[i].bytes, a[i].n, NULL), ERR_OK);
    assert_true(onebyte_tuner_digest(x) == onebyte_tuner_digest(y));
    assert_true(onebyte_tuner_digest(x) == onebyte_tuner_digest(late));
    assert_memory_equal(onebyte_tuner_theta(x), onebyte_tuner_theta(late), N * sizeof(float));
    assert_int_equal(onebyte_tuner_step(late), ROUNDS * 24 / 64);
    assert_true(bowl(NULL, onebyte_tuner_theta(x), N, 0) < before / 2);
    onebyte_tuner_free(x);
    onebyte_tuner_free(y);
    onebyte_tuner_free(late);
}

static void wrong_messages_change_nothing(void **state)
{
    static struct message a[2];
    struct onebyte_tuner *x = made("r", 0), *y = made("r", 0), *other = made("another run", 0),
                         *elsewhere = made("r", 1);
    struct err_why why = {{0}};
    (void)state;
    measure(x, 4, &a[0]);
    measure(x, 4, &a[1]);
    const uint64_t digest = onebyte_tuner_digest(y);
    assert_int_equal(onebyte_tuner_take(y, a[1].bytes, a[1].n, &why), ERR_PROTO); /* out of order */
    assert_non_null(strstr(why.text, "out of order"));
    for (size_t n = 0; n < a[0].n; n++)
        assert_int_equal(onebyte_tuner_take(y, a[0].bytes, n, NULL), ERR_PROTO);
    for (size_t i = 0; i < a[0].n; i++) {
        a[0].bytes[i] ^= 1;
        assert_int_equal(onebyte_tuner_take(y, a[0].bytes, a[0].n, NULL), ERR_PROTO);
        a[0].bytes[i] ^= 1;
    }
    assert_int_equal(onebyte_tuner_take(other, a[0].bytes, a[0].n, NULL), ERR_PROTO);
    assert_int_equal(onebyte_tuner_take(elsewhere, a[0].bytes, a[0].n, NULL),
                     ERR_PROTO); /* began elsewhere */
    assert_true(onebyte_tuner_digest(y) == digest);
    assert_int_equal(onebyte_tuner_take(y, a[0].bytes, a[0].n, NULL), ERR_OK);
    assert_int_equal(onebyte_tuner_take(y, a[0].bytes, a[0].n, NULL), ERR_OK); /* twice: once */
    assert_int_equal(onebyte_tuner_take(y, a[1].bytes, a[1].n, NULL), ERR_OK);
    assert_true(onebyte_tuner_digest(y) == onebyte_tuner_digest(x));
    onebyte_tuner_free(x);
    onebyte_tuner_free(y);
    onebyte_tuner_free(other);
    onebyte_tuner_free(elsewhere);
}

static void void_records_move_nothing(void **state)
{
    struct onebyte_tuner *x = made("r", 0);
    struct message m;
    (void)state;
    const uint64_t digest = onebyte_tuner_digest(x);
    assert_int_equal(onebyte_tuner_measure(x, never, NULL, 10, m.bytes, &m.n, NULL), ERR_OK);
    assert_true(onebyte_tuner_digest(x) == digest);
    assert_int_equal(onebyte_tuner_measure(x, bowl, NULL, 0, m.bytes, &m.n, NULL), ERR_RANGE);
    assert_int_equal(
        onebyte_tuner_measure(x, bowl, NULL, ONEBYTE_RECORDS_MAX + 1, m.bytes, &m.n, NULL),
        ERR_RANGE);
    measure(x, ONEBYTE_RECORDS_MAX, &m);
    assert_true(onebyte_tuner_digest(x) != digest);
    onebyte_tuner_free(x);
}

static void options_are_checked(void **state)
{
    float theta[2] = {0, 1}, bad[2] = {0, NAN};
    const struct onebyte_options good = {
        .run = "r", .theta = theta, .n = 2, .eps = 0.01f, .lr = 0.05f, .n0 = 4, .steps = 10};
    struct onebyte_options o[] = {good, good, good, good, good, good, good};
    struct onebyte_tuner *t = NULL;
    struct err_why why = {{0}};
    (void)state;
    o[0].run = NULL;
    o[1].n = 0;
    o[2].eps = 0;
    o[3].lr = NAN;
    o[4].n0 = 0;
    o[5].steps = 0;
    o[6].theta = bad;
    for (size_t i = 0; i < ARRAY_LEN(o); i++) {
        assert_int_equal(onebyte_tuner_new(&t, &o[i], &why), i == 6 ? ERR_NONFINITE : ERR_RANGE);
        assert_null(t);
        assert_true(why.text[0] != '\0');
    }
    onebyte_tuner_free(NULL);
    char digest[17];
    assert_int_equal(onebyte_replay(digest, "no/such/manifest", "x", "y", NULL, &why),
                     ERR_NOTFOUND);
    assert_int_equal(onebyte_replay(digest, "no/such/manifest", "x", "y", NULL, NULL),
                     ERR_NOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_interleaving_gives_the_same_bits),
        cmocka_unit_test(wrong_messages_change_nothing),
        cmocka_unit_test(void_records_move_nothing),
        cmocka_unit_test(options_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
