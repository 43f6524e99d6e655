#include "peer/flags.h"
#include <string.h>

struct peer_engine_options peer_flags_engine(const struct peer_flags *f, const struct peer_home *h,
                                             char *verified)
{
    const char *memory = f->memory ? f->memory : "auto";
    return (struct peer_engine_options){
        .model_dir = f->model,
        .threads = (size_t)f->threads,
        .kernels = f->kernels,
        .memory = strcmp(memory, "lean") == 0   ? ZO_MEMORY_LEAN
                  : strcmp(memory, "fast") == 0 ? ZO_MEMORY_FAST
                                                : ZO_MEMORY_AUTO,
        .verified = h ? peer_home_path(h, "verified", verified) : NULL,
    };
}
