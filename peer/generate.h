/* peer/generate.h -- greedy continuation of several prompts at once, with kept keys and values; and the answers of a data
 * set's prompts compared with its completions. */
#ifndef PEER_GENERATE_H
#define PEER_GENERATE_H
#include "peer/engine.h"

enum { PEER_ENDS_MAX = 16 };

/* Token ids that end a text: eos_token_id of the folder's config.json and generation_config.json, a number or a list. */
struct peer_ends {
    uint32_t ids[PEER_ENDS_MAX];
    size_t n;
};
void peer_ends_read(struct peer_ends *ends, const char *model_dir);

enum peer_stop { PEER_STOP_TOKENS, PEER_STOP_END, PEER_STOP_LINE, PEER_STOP_CONTEXT };
const char *peer_stop_name(enum peer_stop s); /* "tokens", "end", "line", "context" */

struct peer_text {
    const uint32_t *ids; /* [n] the prompt */
    size_t n;
    size_t want;         /* most tokens to make */
    bool line;           /* a token with a line end in it ends the text */
    uint32_t *made;      /* [want] out, the caller's: without the token that ended it */
    size_t n_made;       /* out */
    enum peer_stop stop; /* out */
};
/* The likeliest token each time (the lowest id among equals), until each text ends.  ERR_RANGE: a prompt without tokens or not shorter than
 * the context; ERR_UNSUPPORTED: an encoder; ERR_NONFINITE: logits that are not numbers, and which tensor they come from. */
NODISCARD enum err peer_generate(struct peer_engine *e, struct peer_text *texts, size_t n,
                                 const struct peer_ends *ends, struct err_why *why);

struct peer_answers {
    uint64_t n, exact; /* prompts answered; answers equal to the completion (zo/answer.h) */
    double f1;         /* their mean F1 */
};
/* Of examples [0, min(size, max)) (max 0: all) those that have a completion.  An answer ends at an end token, after
 * `tokens` tokens, or at the end of its line unless the completion itself has several lines.
 * ERR_NOTFOUND: no example has a completion. */
NODISCARD enum err peer_answers(struct peer_engine *e, const struct zo_dataset *d, uint64_t max, size_t tokens,
                                const struct peer_ends *ends, bool (*go_on)(void *ctx, uint64_t done, uint64_t total),
                                void *ctx, struct peer_answers *out, struct err_why *why);
#endif
