/* zo/example.h -- one training or evaluation example, tokenised. */
#ifndef ONEBYTE_ZO_EXAMPLE_H
#define ONEBYTE_ZO_EXAMPLE_H
#include <stdint.h>

/* One token sequence.  Token i is predicted from tokens < i; counted[i] = 1 if its loss counts (never i = 0). */
struct zo_seq {
    uint32_t n;
    uint32_t *ids;    /* [n] */
    uint8_t *counted; /* [n] */
};

/* n_seqs == 1: loss = mean over counted tokens of -log p, in nats.
 * n_seqs > 1 (choices): score_c = mean over counted tokens of choice c of log p;
 *                       loss = -log softmax(score)[label]; correct = argmax(score) == label. */
struct zo_example {
    uint32_t n_seqs;
    struct zo_seq *seqs;
    int32_t label;  /* without choices -1, or the class of a text for a sequence classifier */
    uint32_t n_cut; /* tokens cut off because the text was longer than the context */
    char *answer;   /* the text of a prompt's one completion, the counted tokens: what a generated answer is compared
                     * with; NULL: none */
};
#endif
