/* peer/flags.h -- the options that every computing command shares: --model, --threads, --reserve, --kernels,
 * --memory; and what is done where this machine cannot give what they ask for: one line in the log, the next best. */
#ifndef PEER_FLAGS_H
#define PEER_FLAGS_H
#include "peer/engine.h"
#include "peer/options.h"

struct peer_flags {
    const char *model, *kernels, *memory;
    const char *device, *precision; /* where PEER_FLAG_DEVICE_ROWS are */
    uint64_t threads, reserve;
};

/* Table rows for member `m` (struct peer_flags) of values struct S. */
#define PEER_FLAG_ROWS(S, m, model_help)                                                                                \
    {"model", PEER_TEXT, offsetof(S, m.model), "DIR", model_help, 0, 0},                                               \
        {"threads", PEER_U64, offsetof(S, m.threads), "N", "worker threads (default: physical cores less --reserve)", 1, \
         LIMIT_THREADS},                                                                                               \
        {"reserve", PEER_U64, offsetof(S, m.reserve), "N", "cores left to their owner when --threads is not given (default: 0)", \
         0, LIMIT_THREADS},                                                                                               \
        {"kernels", PEER_CHOICE, offsetof(S, m.kernels), "auto|ref|avx2|avx512", "arithmetic kernels (default: auto)", \
         0, 0},                                                                                                        \
        {"memory", PEER_CHOICE, offsetof(S, m.memory), "auto|lean|fast",                                               \
         "fast keeps a float copy of the weights beside the integers (default: auto: by free memory on a GPU, else lean)", 0, 0}

/* For commands that may compute on a GPU but do not by themselves: `run` has rows of its own. */
#define PEER_FLAG_DEVICE_ROWS(S, m)                                                                                       \
    {"device", PEER_TEXT, offsetof(S, m.device), "auto|cpu|cuda[:N]", "where to compute (default: cpu)", 0, 0},           \
        {"precision", PEER_CHOICE, offsetof(S, m.precision), "bf16|fp16|fp32", "of matrix products on a GPU (default: bf16)", 0, 0}

/* What peer_engine_open takes, cut down to what this machine has; verified [PEER_PATH_BYTES] is the caller's buffer, filled when h is not NULL. */
struct peer_engine_options peer_flags_engine(const struct peer_flags *f, const struct peer_home *h, char *verified);
#endif
