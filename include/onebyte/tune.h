/* onebyte/tune.h -- libonebyte: fine-tune any vector of parameters together with others, one byte per gradient.
 *
 * A tuner holds n parameters.  It measures a loss of yours at theta + eps z and theta - eps z along random directions z, and
 * seals what it found into a segment: about one byte per gradient, signed.  You carry segments to the other tuners in any way
 * you like (each machine's in the order they were made); all that took the same segments, in any interleaving, hold the same
 * parameters, bit for bit, as onebyte_tuner_digest shows.
 *
 *     rho = (loss(theta + eps z) - loss(theta - eps z)) / (2 eps);   theta -= lr * (rho / rms of rho) * z / records   SPEC 3 to 5
 *
 * Link     pkg-config onebyte.   Errors  a code, and one line in *why (may be NULL).
 * Threads  one per tuner.        Memory  about 12 bytes per parameter, and every segment taken. */
#ifndef ONEBYTE_TUNE_H
#define ONEBYTE_TUNE_H
#include <onebyte/base/err.h>
#include <stddef.h>
#include <stdint.h>

#define ONEBYTE_API __attribute__((visibility("default")))
enum { ONEBYTE_MESSAGE_BYTES = 32 + 40 + 1024 + 64, ONEBYTE_RECORDS_MAX = 1024 };

struct onebyte_tuner;

struct onebyte_options {
    const char *run;  /* what all tuners of a run call it; with the other members it makes the run's id */
    const float *theta; /* [n] where all begin: copied */
    size_t n;         /* 1 .. 2^31 */
    float eps, lr;    /* > 0; lr: length of a step, per coordinate, of one full step of n0 records */
    uint32_t n0;      /* records per step of the schedule */
    uint64_t steps;   /* after which records count no more */
};

/* The loss of theta [n] on example number `example`.  Not finite: the record is void. */
typedef double onebyte_loss(void *ctx, const float *theta, size_t n, uint64_t example);

/* A tuner with a new key of its own.  ERR_RANGE: an option; ERR_NONFINITE: theta. */
ONEBYTE_API NODISCARD enum err onebyte_tuner_new(struct onebyte_tuner **t, const struct onebyte_options *o, struct err_why *why);
ONEBYTE_API void onebyte_tuner_free(struct onebyte_tuner *t); /* NULL is fine */

/* Measures n_records (1 .. ONEBYTE_RECORDS_MAX), applies them, and writes the message [*bytes] for the others.  Record i of
 * the machine uses example number i of the machine, from 0 on. */
ONEBYTE_API NODISCARD enum err onebyte_tuner_measure(struct onebyte_tuner *t, onebyte_loss *loss, void *ctx, uint32_t n_records,
                                                     uint8_t message[ONEBYTE_MESSAGE_BYTES], size_t *bytes, struct err_why *why);
/* Another's message; one that was taken already changes nothing.  ERR_PROTO: damaged, of another run, or out of order. */
ONEBYTE_API NODISCARD enum err onebyte_tuner_take(struct onebyte_tuner *t, const uint8_t *message, size_t bytes, struct err_why *why);

ONEBYTE_API const float *onebyte_tuner_theta(const struct onebyte_tuner *t); /* [n], until the next call that changes it */
ONEBYTE_API uint64_t onebyte_tuner_digest(const struct onebyte_tuner *t);    /* of the parameters: equal means the same bits */
ONEBYTE_API uint64_t onebyte_tuner_step(const struct onebyte_tuner *t);

/* Rebuilds a run of the onebyte program from its manifest, a ledger written by `onebyte log --export`, and the base model's
 * folder; every signature is checked again.  digest <- 16 hexadecimal digits, as `onebyte status` shows them; out_dir (may be
 * NULL): the model is written there in the layout of Hugging Face. */
ONEBYTE_API NODISCARD enum err onebyte_replay(char digest[17], const char *manifest, const char *ledger, const char *model_dir,
                                              const char *out_dir, struct err_why *why);
#endif
