#include "peer/flags.h"
#include "peer/log.h"
#include <string.h>

/* More workers than the machine runs at once would only wait for each other. */
static size_t choose_threads(const struct peer_flags *f)
{
    const size_t cores = peer_threads_default(), most = peer_threads_most();
    if (f->threads == 0)
        return f->reserve < cores ? cores - (size_t)f->reserve : 1;
    if (f->threads <= most)
        return (size_t)f->threads;
    peer_log(PEER_WARN, "threads", "threads=%zu reason=\"this machine has no more\"", most);
    return most;
}

static const char *choose_kernels(const char *asked)
{
    if (zo_kernels_pick(asked))
        return asked;
    peer_log(PEER_WARN, "kernels", "kernels=%s reason=\"this machine cannot run %s\"",
             zo_kernels_name(zo_kernels_pick(NULL)), asked);
    return NULL;
}

struct peer_engine_options peer_flags_engine(const struct peer_flags *f, const struct peer_home *h,
                                             char *verified)
{
    const char *memory = f->memory ? f->memory : "auto";
    return (struct peer_engine_options){
        .model_dir = f->model,
        .threads = choose_threads(f),
        .kernels = choose_kernels(f->kernels),
        .memory = strcmp(memory, "lean") == 0   ? ZO_MEMORY_LEAN
                  : strcmp(memory, "fast") == 0 ? ZO_MEMORY_FAST
                                                : ZO_MEMORY_AUTO,
        .device = f->device, /* NULL: the CPU */
        .precision = f->precision,
        .verified = h ? peer_home_path(h, "verified", verified) : NULL,
    };
}
