/* zo/prepare.h -- files of known tasks to the JSONL that zo/dataset.h reads, with the prompts of MeZO.
 *
 *   sst2   sentence, label                    "{sentence} It was" -> " terrible" | " great"
 *   rte    sentence1, sentence2 (or premise, hypothesis), label
 *                                             "{premise}\nDoes this mean that \"{hypothesis}\" is true? Yes or No?\n" -> Yes | No
 *   cb     premise, hypothesis, label         "Suppose {premise} Can we infer that \"{hypothesis}\"? Yes, No, or Maybe?\n"
 *                                             -> Yes | No | Maybe
 *   boolq  passage, question, label (or answer)   "{passage} {Question}?\n" -> Yes | No
 *   copa   premise, question, choice1, choice2, label   "{premise} so" or "{premise} because" -> the two choices
 *   trec   "DESC:manner question" lines, "0,question" lines, or text and label
 *                                             "{question} It is about" -> " description" | .. ; MeZO's own is for masked models:
 *                                             its words come before the question
 *   gsm8k  question, answer                   "Question: {question}\nAnswer:" -> " {answer}" (not one of MeZO's tasks)
 *
 * Source   Malladi et al. 2023, arXiv:2305.17333, appendix E.2; large_models/templates.py of their repository.
 * Input    JSONL, or tab-separated lines under a header (GLUE's form).  Labels by name or number as the files have them.
 * Choices  begin with the space that stood at the prompt's end: the text is the same, and no token ends in a space. */
#ifndef ONEBYTE_ZO_PREPARE_H
#define ONEBYTE_ZO_PREPARE_H
#include <onebyte/base/err.h>
#include <stdint.h>

#define ZO_PREPARE_TASKS "sst2|rte|cb|boolq|copa|trec|gsm8k"

/* Writes one JSON object per example of `path` to out.
 * n       [1] out: examples written
 * limit   0: all; else that many, drawn without replacement by seed, in the file's order
 * Returns ERR_RANGE (no such task), ERR_NOTFOUND, ERR_IO, ERR_FORMAT (why: FILE:LINE and what is wrong: a missing
 *         member, no label, an unknown one).  Nothing is written unless the whole file is well-formed. */
NODISCARD enum err zo_prepare(FILE *out, uint64_t *n, const char *task, const char *path, uint64_t limit,
                              uint64_t seed, struct err_why *why);
#endif
