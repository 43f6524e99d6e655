/* zo/tokenizer.h -- text to token ids and back, from the files Hugging Face writes (tokenizer.json). */
#ifndef ONEBYTE_ZO_TOKENIZER_H
#define ONEBYTE_ZO_TOKENIZER_H
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct zo_tokenizer;
/* dir holds tokenizer.json (or vocab.json + merges.txt).  why names the file and the missing or unsupported part. */
NODISCARD enum err zo_tokenizer_open(struct zo_tokenizer **t, const char *dir, struct err_why *why);
void zo_tokenizer_free(struct zo_tokenizer *t);
uint32_t zo_tokenizer_vocab(const struct zo_tokenizer *t); /* highest id + 1 */

/* *ids [*n] (malloc'd, caller frees) <- ids of the UTF-8 text; invalid bytes are read as U+FFFD.
 * special: add what the tokenizer's own post-processor adds. */
NODISCARD enum err zo_tokenizer_encode(const struct zo_tokenizer *t, const char *text, size_t text_bytes,
                                       bool special, uint32_t **ids, size_t *n);
/* *text (malloc'd, NUL-terminated) <- the text of the ids; skip_special leaves special tokens out. */
NODISCARD enum err zo_tokenizer_decode(const struct zo_tokenizer *t, const uint32_t *ids, size_t n,
                                       bool skip_special, char **text);
#endif
