#include "peer/device.h"
#include "peer/engine.h"
#include "peer/json_out.h"
#include "peer/options.h"
#include <sodium.h>
#include <sqlite3.h>

struct values {
    struct peer_common common;
};

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct err_why why = {{0}};
    (void)args;
    (void)n_args;
    const char *blas = zo_blas_start(&why) == ERR_OK ? zo_blas_core() : "none";
    const char *kernels = zo_kernels_name(zo_kernels_pick(NULL));
    struct peer_gpu gpu;
    const bool has_gpu = peer_device_probe(&gpu, &why) == ERR_OK;
    if (v->common.json)
        return peer_json_print(json_pack("{s:s, s:i, s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:s}", "version",
                                         PEER_VERSION, "arith", 1, "wire", 1, "kernels", kernels,
                                         "blas", blas, "sodium", sodium_version_string(), "sqlite",
                                         sqlite3_libversion(), "jansson", JANSSON_VERSION, "cores",
                                         (json_int_t)peer_threads_default(), "gpu", has_gpu ? gpu.name : "none"));
    printf("onebyte %s (arith 1, wire 1)\nkernels %s, BLAS %s, %zu cores\nlibsodium %s, SQLite %s, "
           "Jansson %s\nGPU %s%s%.300s%s\n",
           PEER_VERSION, kernels, blas, peer_threads_default(), sodium_version_string(),
           sqlite3_libversion(), JANSSON_VERSION, has_gpu ? gpu.name : "none", has_gpu ? "" : " (", has_gpu ? "" : why.text,
           has_gpu ? "" : ")");
    return PEER_EXIT_OK;
}

const struct peer_command peer_cmd_version = {
    .name = "version",
    .args = "",
    .summary = "print the version, the libraries and what this CPU offers",
    .values_bytes = sizeof(struct values),
    .run = run,
};
