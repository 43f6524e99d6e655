/* zo/tokenizer.h -- text to token ids and back, from the files Hugging Face writes (tokenizer.json).
 *
 * Ids      equal to those of the `tokenizers` library: BPE (byte-level and byte fallback), WordPiece, Unigram, WordLevel,
 *          with their normalizers, pre-tokenizers, added tokens, post-processors and decoders.  What is not
 *          supported is refused by name on opening.  "truncation" and "padding" in the file are ignored.
 * Text     UTF-8.  Invalid bytes are read as U+FFFD, one per maximal invalid run (as Rust, Python and browsers do).
 * Threads  an open tokenizer is read-only: any number of threads may use it. */
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

/* The id of a token by its text (an added token's first), or UINT32_MAX. */
uint32_t zo_tokenizer_token(const struct zo_tokenizer *t, const char *text);

/* *ids [*n] (malloc'd, caller frees) <- ids of the UTF-8 text; invalid bytes are read as U+FFFD.
 * special: add what the tokenizer's own post-processor adds.  Special tokens that stand in the text itself are always
 * read as such.  ERR_NOTFOUND: a word is not in the vocabulary and the tokenizer has no unknown token.  ERR_UNSUPPORTED: this text makes a
 * pattern of the tokenizer backtrack beyond PCRE2's limit; the words below say what to do. */
#define ZO_TOKENIZER_UNSUPPORTED                                                                                              \
    "a pattern in tokenizer.json tries too many ways to match this text: cut the text into shorter ones, or write the pattern " \
    "without nested or recursive repetition"
NODISCARD enum err zo_tokenizer_encode(const struct zo_tokenizer *t, const char *text, size_t text_bytes,
                                       bool special, uint32_t **ids, size_t *n);
/* *text (malloc'd, NUL-terminated; stops at a U+0000 inside for string functions) <- the text of the ids; skip_special leaves special tokens out. */
NODISCARD enum err zo_tokenizer_decode(const struct zo_tokenizer *t, const uint32_t *ids, size_t n,
                                       bool skip_special, char **text);
#endif
