/* peer/export.h -- a state as a Hugging Face folder: config and tokenizer files of the base model, new weights. */
#ifndef PEER_EXPORT_H
#define PEER_EXPORT_H
#include "peer/engine.h"
#include <onebyte/base/err.h>

/* shard_bytes: largest weights file; more is split into numbered ones with an index, as transformers does (a tensor is
 * never split).  merged: of a run of adapters, the base model with them added; else a PEFT adapter folder is written:
 * adapter_model.safetensors, adapter_config.json (base model: model_dir), the tokenizer's files.  dtype is of what is
 * written. */
#define PEER_SHARD_BYTES 5000000000ull /* the default, as transformers 4 has it */
struct peer_export_options {
    enum zo_dtype dtype;
    uint64_t shard_bytes; /* 0: the default */
    bool merged;
};
NODISCARD enum err peer_export_as(const struct peer_engine *e, const char *model_dir, const char *out_dir,
                                  const struct peer_export_options *o, struct err_why *why);
/* The same merged, in shards of the default size. */
/* Makes out_dir (it may exist, but must not be model_dir).  Tensors as stored in the base model: a tied copy gets the
 * trained values, a tensor that is not trained is copied.  config.json's torch_dtype says what was written. */
NODISCARD enum err peer_export(const struct peer_engine *e, const char *model_dir, const char *out_dir, enum zo_dtype dtype,
                               struct err_why *why);
bool peer_export_dtype(enum zo_dtype *d, const char *name); /* "f32", "f16", "bf16" */
#endif
