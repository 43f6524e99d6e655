/* peer/device.h -- where a peer computes: the CPU, or a GPU through the plug-in libonebyte_cuda.so.
 *
 * The plug-in is looked for at $ONEBYTE_CUDA, else beside the program, else in ../lib/onebyte, else where dlopen looks.
 * A lost GPU ends the peer with one line: its ledger has everything, and the next start may choose the CPU. */
#ifndef PEER_DEVICE_H
#define PEER_DEVICE_H
#include "peer/engine.h"

/* Opens what options ask for into e->device (NULL: the CPU).  "auto": the CPU, and a line in the log saying why, where a GPU
 * cannot be used; "cuda" or "cuda:N": an error then. */
NODISCARD enum err peer_device_open(struct peer_engine *e, const struct peer_engine_options *o, struct err_why *why);
bool peer_device_word(const char *text); /* auto, cpu, cuda, cuda:N */
NODISCARD enum err peer_device_check(const char *text, struct err_why *why); /* ERR_RANGE unless NULL or such a word */

/* What doctor and version say of the first GPU, without a model. */
struct peer_gpu {
    char name[128];
    uint64_t free_bytes, bytes; /* of its memory */
};
/* ERR_NOTFOUND (no plug-in, no driver, no device), ERR_UNSUPPORTED, ERR_DEVICE: why says which. */
NODISCARD enum err peer_device_probe(struct peer_gpu *g, struct err_why *why);

/* Whichever device the engine has. */
NODISCARD enum err peer_engine_fold(struct peer_engine *e, const struct zo_fold *folds, size_t n);
NODISCARD enum err peer_engine_losses(struct peer_engine *e, const struct zo_pass *passes, size_t n, struct zo_loss *out);
NODISCARD enum err peer_engine_digest_u64(const struct peer_engine *e, uint64_t *digest);
NODISCARD enum err peer_engine_headroom(const struct peer_engine *e, int64_t *tensor);
/* Before the state in memory is read, and after it was written. */
NODISCARD enum err peer_engine_pull(const struct peer_engine *e);
NODISCARD enum err peer_engine_push(struct peer_engine *e);

const char *peer_engine_device_name(const struct peer_engine *e);
enum zo_memory peer_engine_memory(const struct peer_engine *e);
/* What failed, for the user: the GPU's own words where it was the GPU. */
const char *peer_engine_error(const struct peer_engine *e, enum err code);
#endif
