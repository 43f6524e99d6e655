/* tests/cuda/bare/cmocka.h -- as much of cmocka as tests/cuda uses, for machines without it (bench/gpu.sh). */
#ifndef BARE_CMOCKA_H
#define BARE_CMOCKA_H
#include <fnmatch.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};
#define cmocka_unit_test(f) {#f, f}

static jmp_buf bare_out;
static const char *bare_filter;
enum { BARE_FAILED = 1, BARE_SKIPPED = 2 };

#define BARE_CHECK(c, text)                                                     \
    do {                                                                        \
        if (!(c)) {                                                             \
            printf("%s:%d: %s\n", __FILE__, __LINE__, text);                    \
            longjmp(bare_out, BARE_FAILED);                                     \
        }                                                                       \
    } while (0)
#define assert_true(c) BARE_CHECK(c, #c)
#define assert_int_equal(a, b) BARE_CHECK((long long)(a) == (long long)(b), #a " == " #b)
#define assert_non_null(p) BARE_CHECK((p) != NULL, #p)
#define assert_null(p) BARE_CHECK((p) == NULL, "null: " #p)
#define assert_memory_equal(a, b, n) BARE_CHECK(memcmp(a, b, n) == 0, #a " like " #b)
#define fail_msg(...)                       \
    do {                                    \
        printf(__VA_ARGS__);                \
        printf("\n");                       \
        longjmp(bare_out, BARE_FAILED);     \
    } while (0)
#define skip() longjmp(bare_out, BARE_SKIPPED)

static inline void cmocka_set_test_filter(const char *pattern)
{
    bare_filter = pattern;
}

static inline int bare_run(const struct CMUnitTest *tests, size_t n)
{
    int failed = 0;
    for (size_t i = 0; i < n; i++) {
        void *state = NULL;
        if (bare_filter && fnmatch(bare_filter, tests[i].name, 0) != 0)
            continue;
        printf("[ RUN      ] %s\n", tests[i].name);
        const int how = setjmp(bare_out);
        if (how == 0)
            tests[i].run(&state);
        printf("[ %s ] %s\n", how == 0 ? "      OK" : how == BARE_SKIPPED ? " SKIPPED" : "  FAILED", tests[i].name);
        fflush(stdout);
        failed += how == BARE_FAILED;
    }
    printf("[  %s  ] %d failed\n", failed ? "FAILED" : "PASSED", failed);
    return failed ? 1 : 0;
}
#define cmocka_run_group_tests(tests, setup, teardown) bare_run(tests, sizeof(tests) / sizeof(tests)[0])
#endif
