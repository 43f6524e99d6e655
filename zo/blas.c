/* zo/blas.c -- OpenBLAS made usable: the right kernels, and one BLAS thread per caller.
 *
 * Debian's OpenBLAS 0.3.21 chooses its kernels from the CPU's family and model number.  Virtual
 * machines show numbers it does not know, and it then falls back to Prescott (SSE): 34 GF/s where
 * the CPU gives 150.  The choice is made when the library is loaded, but its own two functions can
 * make it again; they are not in a header, so they are looked up by name, and where they are
 * missing we stay with what there is. */
#include <onebyte/zo/model.h>

#include <cblas.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* Names of OpenBLAS cores by what they need, weakest first. */
enum level { LEVEL_SSE, LEVEL_AVX, LEVEL_AVX2, LEVEL_AVX512 };

static enum level cpu_level(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return LEVEL_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return LEVEL_AVX2;
    if (__builtin_cpu_supports("avx"))
        return LEVEL_AVX;
#endif
    return LEVEL_SSE;
}

static enum level core_level(const char *core)
{
    static const struct {
        const char *core;
        enum level level;
    } known[] = {
        {"SkylakeX", LEVEL_AVX512}, {"Cooperlake", LEVEL_AVX512}, {"SapphireRapids", LEVEL_AVX512},
        {"Haswell", LEVEL_AVX2},    {"Zen", LEVEL_AVX2},          {"Excavator", LEVEL_AVX2},
        {"Sandybridge", LEVEL_AVX}, {"Bulldozer", LEVEL_AVX},     {"Piledriver", LEVEL_AVX},
        {"Steamroller", LEVEL_AVX},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcasecmp(known[i].core, core) == 0)
            return known[i].level;
    return LEVEL_SSE;
}

const char *zo_blas_core(void)
{
    const char *core = openblas_get_corename();
    return core ? core : "unknown";
}

enum err zo_blas_start(struct err_why *why)
{
#if defined(__x86_64__)
    const enum level cpu = cpu_level();
    if (core_level(zo_blas_core()) < cpu) {
        static const char *const best[] = {"PRESCOTT", "SANDYBRIDGE", "HASWELL", "SKYLAKEX"};
        /* ISO C has no cast from object to function pointer; POSIX promises that the bytes agree.
         */
        void (*quit)(void) = NULL, (*init)(void) = NULL;
        void *found = dlsym(RTLD_DEFAULT, "gotoblas_dynamic_quit");
        memcpy(&quit, &found, sizeof quit);
        found = dlsym(RTLD_DEFAULT, "gotoblas_dynamic_init");
        memcpy(&init, &found, sizeof init);
        /* An owner's own OPENBLAS_CORETYPE stays: overwrite is 0, and choosing again then changes
         * nothing. */
        if (quit && init && setenv("OPENBLAS_CORETYPE", best[cpu], 0) == 0) {
            quit();
            init();
        }
    }
#endif
    openblas_set_num_threads(1);
    if (openblas_get_num_threads() != 1)
        return err_set(why, ERR_UNSUPPORTED,
                       "OpenBLAS (%s) refuses to run on the caller's thread alone; install "
                       "libopenblas0-pthread",
                       zo_blas_core());
    return ERR_OK;
}
