/* zo/kernels/kernels.c -- which variant: the only place that names them. */
#include "zo/kernels/kernels.h"

#include <onebyte/base/err.h>
#include <onebyte/zo/state.h>
#include <string.h>

static const struct zo_kernels *const variants[] = {
/* fastest first; ref is always there */
#if defined(__x86_64__)
    &zo_kernels_avx512,
    &zo_kernels_avx2,
#endif
    &zo_kernels_ref,
};

const struct zo_kernels *zo_kernels_pick(const char *name)
{
    const bool any = !name || strcmp(name, "auto") == 0;
    for (size_t i = 0; i < ARRAY_LEN(variants); i++)
        if ((any || strcmp(name, variants[i]->name) == 0) && variants[i]->usable())
            return variants[i];
    return NULL;
}

const char *zo_kernels_name(const struct zo_kernels *k)
{
    return k->name;
}
