/* zo/model/ops.c -- which table of loops goes with which kernels. */
#include "zo/model/ops.h"

#include <onebyte/base/err.h>

#include <string.h>

const struct zo_ops *zo_ops_pick(const char *kernels_name)
{
    static const struct zo_ops *const all[] = {
        &zo_ops_ref,
#if defined(__x86_64__)
        &zo_ops_avx2,
        &zo_ops_avx512,
#endif
    };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (strcmp(all[i]->name, kernels_name) == 0)
            return all[i];
    return &zo_ops_ref;
}
