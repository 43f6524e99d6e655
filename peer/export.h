/* peer/export.h -- a state as a Hugging Face folder: config and tokenizer files of the base model, new weights. */
#ifndef PEER_EXPORT_H
#define PEER_EXPORT_H
#include "peer/engine.h"
#include <onebyte/base/err.h>

/* Makes out_dir (it may exist, but must not be model_dir).  Tensors as stored in the base model: a tied copy gets the
 * trained values, a tensor that is not trained is copied.  config.json's torch_dtype says what was written. */
NODISCARD enum err peer_export(const struct peer_engine *e, const char *model_dir, const char *out_dir, enum zo_dtype dtype,
                               struct err_why *why);
bool peer_export_dtype(enum zo_dtype *d, const char *name); /* "f32", "f16", "bf16" */
#endif
