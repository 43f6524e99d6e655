/* tests/fuzz/fuzz.h -- one target per parser.  With clang's libFuzzer each is a program of its own (`make fuzz`); without
 * (FUZZ_ONE not set) all are linked into `replay`, which gives each the committed corpus. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H
#include <onebyte/base/err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef FUZZ_ONE
#define FUZZ_TARGET(name)                                         \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size); \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
#else
#define FUZZ_TARGET(name)                                \
    int fuzz_##name(const uint8_t *data, size_t size); \
    int fuzz_##name(const uint8_t *data, size_t size)
#endif

/* A folder of this process, made on first use; its one file (below) is written anew for each input. */
static char fuzz_folder[64], fuzz_path[192];

static inline void fuzz_clean(void)
{
    if (fuzz_path[0])
        (void)unlink(fuzz_path);
    (void)rmdir(fuzz_folder);
}

static inline const char *fuzz_dir(void)
{
    if (!fuzz_folder[0]) {
        (void)snprintf(fuzz_folder, sizeof fuzz_folder, "%s/onebyte-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        ENSURE(mkdtemp(fuzz_folder) != NULL);
        ENSURE(atexit(fuzz_clean) == 0);
    }
    return fuzz_folder;
}

/* dir/name <- data; its path. */
static inline const char *fuzz_file(const char *name, const uint8_t *data, size_t size)
{
    (void)snprintf(fuzz_path, sizeof fuzz_path, "%s/%s", fuzz_dir(), name);
    const int fd = open(fuzz_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ENSURE(fd >= 0);
    ENSURE(write(fd, data, size) == (ssize_t)size);
    ENSURE(close(fd) == 0);
    return fuzz_path;
}
#endif
