/* zo/answer.h -- how far a generated answer is the wanted one, as SQuAD's evaluation counts it.
 *
 * Source     Rajpurkar et al. 2016 (arXiv 1606.05250), section 6.1, and the official script of version 2.0.
 * Normal     lower case; ASCII punctuation taken out; the words a, an, the taken out; words split at white space.
 * Exact      equal normal forms.
 * F1         harmonic mean of precision and recall over the words, each as often as it occurs.  Where one of the two
 *            has no word: 1 if both have none, else 0. */
#ifndef ONEBYTE_ZO_ANSWER_H
#define ONEBYTE_ZO_ANSWER_H
#include <onebyte/base/err.h>
#include <stdbool.h>

struct zo_answer {
    bool exact;
    double f1; /* 0 to 1 */
};

/* got, want: UTF-8; what is invalid counts as U+FFFD.  ERR_NOMEM. */
NODISCARD enum err zo_answer_compare(struct zo_answer *a, const char *got, const char *want);
#endif
