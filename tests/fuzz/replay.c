/* Gives every target the committed inputs of tests/fuzz/corpus/NAME: no clang, no luck, the same each time.
 * Prints as cmocka does, so that tests/run.py counts it. */
#ifndef FUZZ_ONE
#include <onebyte/base/err.h>
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TARGETS(X)                                                                                                    \
    X(segment) X(gossip) X(control) X(transport) X(manifest) X(invite) X(ledger) X(safetensors) X(tokenizer) X(jsonl) \
    X(config) X(template) X(socket) X(evidence)
#define X(name) int fuzz_##name(const uint8_t *data, size_t size);
TARGETS(X)
#undef X

/* The input whole, then cut short at each of 16 places, then with one byte changed at each of 64. */
static void feed(int (*target)(const uint8_t *, size_t), const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n + 1);
    ENSURE(copy != NULL);
    (void)target(data, n);
    for (size_t i = 0; i < 16; i++)
        (void)target(data, n * i / 16);
    for (size_t i = 0; i < 64 && n > 0; i++) {
        memcpy(copy, data, n);
        copy[n * i / 64] ^= (uint8_t)(1u << i % 8);
        (void)target(copy, n);
    }
    free(copy);
}

static size_t replay(const char *name, int (*target)(const uint8_t *, size_t))
{
    char folder[256], path[512];
    struct dirent **list = NULL;
    size_t done = 0;
    (void)snprintf(folder, sizeof folder, "tests/fuzz/corpus/%s", name);
    const int n = scandir(folder, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        FILE *f = list[i]->d_name[0] == '.' ? NULL : fopen(path, "rbe");
        uint8_t *data = malloc(1 << 20);
        ENSURE(data != NULL);
        if (f) {
            feed(target, data, fread(data, 1, 1 << 20, f));
            (void)fclose(f);
            done++;
        }
        free(data);
        free(list[i]);
    }
    free(list);
    return done;
}

int main(void)
{
    int failed = 0;
#define X(name)                                                                     \
    printf("[ RUN      ] replay_" #name "\n");                                      \
    (void)fflush(stdout);                                                           \
    if (replay(#name, fuzz_##name) > 0) {                                           \
        printf("[       OK ] replay_" #name "\n");                                  \
    } else {                                                                        \
        printf("no input in tests/fuzz/corpus/" #name "\n[  FAILED  ] replay_" #name "\n"); \
        failed = 1;                                                                 \
    }
    TARGETS(X)
#undef X
    return failed;
}
#endif
