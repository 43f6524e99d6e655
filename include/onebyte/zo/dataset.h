/* zo/dataset.h -- JSONL to tokenised examples: {"text"}, {"prompt","completion"}, {"prompt","choices","label"}.
 * The whole file is checked when opened: a bad line is named by file and line number. */
#ifndef ONEBYTE_ZO_DATASET_H
#define ONEBYTE_ZO_DATASET_H
#include <onebyte/base/err.h>
#include <onebyte/zo/example.h>
#include <onebyte/zo/tokenizer.h>
#include <stdint.h>

struct zo_dataset;
/* length_max: tokens per sequence (the model's context or less).  Text longer than that is cut at its end; a
 * prompt longer than that is cut on its left, as MeZO does; both are counted. */
NODISCARD enum err zo_dataset_open(struct zo_dataset **d, const char *path, const struct zo_tokenizer *t,
                                   uint32_t length_max, struct err_why *why);
void zo_dataset_free(struct zo_dataset *d);
uint64_t zo_dataset_size(const struct zo_dataset *d);
const struct zo_example *zo_dataset_get(const struct zo_dataset *d, uint64_t i); /* owned by d */
uint64_t zo_dataset_cut_tokens(const struct zo_dataset *d); /* tokens cut over all examples */
uint64_t zo_dataset_cut_examples(const struct zo_dataset *d);
#endif
