/* tests/cuda/open.h -- the device under test: emulated, or with $ONEBYTE_CUDA (make test-gpu) this machine's GPU. */
#ifndef TESTS_CUDA_OPEN_H
#define TESTS_CUDA_OPEN_H
#include "tests/cuda/emulate_table.h"
#include "zo/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>

static inline bool on_a_gpu(void)
{
    const char *plugin = getenv("ONEBYTE_CUDA");
    return plugin && plugin[0];
}

static inline enum err open_any(struct zo_device **d, struct err_why *why)
{
    const enum err e = on_a_gpu() ? zo_device_open(d, getenv("ONEBYTE_CUDA"), 0, why)
                                  : zo_device_open_table(d, onebyte_cuda_api(), 0, why);
    if (e != ERR_OK)
        printf("%s\n", why->text);
    return e;
}

/* Tests that break the device do so in the emulation alone. */
#define EMULATION_ONLY()                             \
    do {                                             \
        if (on_a_gpu()) {                            \
            printf("needs the emulated device\n");   \
            skip();                                  \
        }                                            \
    } while (0)
#endif
