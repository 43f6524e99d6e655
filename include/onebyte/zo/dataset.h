/* zo/dataset.h -- JSONL to tokenised examples: one JSON object per line, in one of four forms.
 *
 *   {"text": T}                              loss on every token but the first; for a sequence classifier
 *                                            {"text": T, "label": class}
 *   {"prompt": P, "completion": C}           loss on the completion only
 *   {"prompt": P, "choices": [C..], "label": i}   each choice is a completion of the same prompt; i counts from 0
 *   {"messages": [{"role", "content"}..]}    the model's chat template; loss on the assistant's turns
 *
 * Tokens   A text is encoded with the special tokens that the tokenizer's post-processor adds.  Prompt and completion are
 *          joined as they stand (no space is put between them) and encoded *together*, so that the model sees
 *          the tokens it was trained on; the completion's tokens are those from the first one that differs from
 *          the prompt encoded alone (MeZO and lm-evaluation-harness encode together likewise).  A token that spans
 *          the border counts as completion; so does an end token that the post-processor adds, but for encoders
 *          (tokenizers with a mask token), which predict the completion alone.
 *          A conversation is rendered with the model's chat template and encoded without further special tokens; an
 *          assistant's turn is what the template writes for it after its prompt to answer (its end mark too); where the template shortens earlier turns, what it keeps of their content.
 * Length   length_max: tokens per sequence (the model's context or less).  A text longer than that is cut at its end (before the
 *          post-processor's last tokens).  A
 *          prompt is cut on its left, as MeZO does, after the post-processor's first tokens (a conversation: after its first token, up
 *          to the first answer); all choices lose
 *          the same number of tokens; only if the completion alone is too long is its end cut.  Both are counted.
 *          Every line is an example of its own: nothing is packed and nothing is padded.
 * Lines    Other members are ignored; empty lines are skipped; a byte-order mark at the start is skipped.  Anything
 *          else is refused as FILE:LINE with what is wrong: not JSON or not UTF-8, not an object, none or two of the
 *          forms, a wrong type, an empty completion, fewer than two choices, a label outside the choices, a
 *          text of fewer than two tokens.  The whole file is checked when opened.
 * Threads  an open dataset is read-only. */
#ifndef ONEBYTE_ZO_DATASET_H
#define ONEBYTE_ZO_DATASET_H
#include <onebyte/base/err.h>
#include <onebyte/zo/example.h>
#include <onebyte/zo/tokenizer.h>
#include <stdint.h>

struct zo_dataset;
/* ERR_NOTFOUND or ERR_IO (the file), ERR_FORMAT (a line; no example at all), ERR_RANGE (length_max < 2). */
NODISCARD enum err zo_dataset_open(struct zo_dataset **d, const char *path, const struct zo_tokenizer *t,
                                   uint32_t length_max, struct err_why *why);
void zo_dataset_free(struct zo_dataset *d);
uint64_t zo_dataset_size(const struct zo_dataset *d);
const struct zo_example *zo_dataset_get(const struct zo_dataset *d, uint64_t i); /* owned by d */
uint64_t zo_dataset_cut_tokens(const struct zo_dataset *d); /* tokens cut over all examples */
uint64_t zo_dataset_cut_examples(const struct zo_dataset *d);
#endif
