/* zo/model.h -- a decoder or encoder language model: losses of many passes at once, each along its own direction.
 *
 * Stored parameters are only read: +/- eps along a direction enters inside the forward pass (DESIGN 1.3).
 * Weights come from a bound integer state (trainable tensors) or straight from the mapped checkpoint.
 * Bits: losses need not agree between machines, thread counts or kernels; DESIGN 3 "Need not agree". */
#ifndef ONEBYTE_ZO_MODEL_H
#define ONEBYTE_ZO_MODEL_H
#include <onebyte/base/err.h>
#include <onebyte/zo/checkpoint.h>
#include <onebyte/zo/example.h>
#include <onebyte/zo/pool.h>
#include <onebyte/zo/rules.h>
#include <onebyte/zo/state.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct zo_model;

/* Reads config.json and maps the checkpoint; checks every tensor's name, shape and dtype. */
NODISCARD enum err zo_model_open(struct zo_model **m, const char *dir, struct err_why *why);
void zo_model_free(struct zo_model *m);

const char *zo_model_architecture(const struct zo_model *m); /* model_type of config.json */
uint32_t zo_model_context(const struct zo_model *m);         /* most tokens per sequence */
uint32_t zo_model_vocab(const struct zo_model *m);
uint32_t zo_model_labels(const struct zo_model *m);          /* of a sequence classifier; 0: a language model */
const struct zo_ckpt *zo_model_ckpt(const struct zo_model *m);
uint64_t zo_model_parameters(const struct zo_model *m);      /* tied tensors once */

/* The trainable tensors in byte order of their names (tied copies left out): *tensors [*n], caller frees.
 * bits and e are left 0: `init` chooses them. */
NODISCARD enum err zo_model_trainable(const struct zo_model *m, struct zo_tensor **tensors, uint32_t *n);

/* What a run trains, as text: "all" (or NULL), names and shell patterns of tensors separated by commas, or
 * "lora:r=R,alpha=A[,targets=NAME+NAME..]": adapters y += alpha / r * B A x beside the layers' matrices whose module
 * is or ends in a target ("all": every one; default: what makes queries and values). */
enum { ZO_TRAINABLE_BYTES = 1024 };
struct zo_lora {
    uint32_t r; /* 0: the text asks for no adapters */
    double alpha;
    char targets[ZO_TRAINABLE_BYTES]; /* "": the default */
};
NODISCARD enum err zo_lora_parse(struct zo_lora *l, const char *trainable, struct err_why *why);
/* As zo_model_trainable, of this text.  Adapters: PEFT's names, "base_model.model.<module>.lora_A.weight" (r, in) and
 * lora_B (out, r).  ERR_RANGE: the text is wrong, or a part of it matches nothing. */
NODISCARD enum err zo_model_trainable_of(const struct zo_model *m, const char *trainable, struct zo_tensor **tensors,
                                         uint32_t *n, struct err_why *why);
bool zo_tensor_is_lora_a(const struct zo_tensor *t); /* starts in +-1 / sqrt(in); lora_B starts at 0 */
/* out [n] += what the bound state's adapter adds to elements first.. of t, a tensor of the checkpoint. */
void zo_model_add_adapter(const struct zo_model *m, const struct zo_ckpt_tensor *t, uint64_t first, float *out, size_t n);
bool zo_model_is_causal(const struct zo_model *m);   /* each token is predicted from those before it */
bool zo_model_transposed(const struct zo_model *m); /* matrices stored (in, out): PEFT's fan_in_fan_out */

/* m0 of every tensor of the state from the checkpoint; then drops the mapped pages. */
NODISCARD enum err zo_model_load_state(const struct zo_model *m, struct zo_state *s, struct zo_pool *pool,
                                       struct err_why *why);

/* fast: a resident float copy beside the integers.  auto is lean: weights are packed for every product anyhow, and
 * integers become floats on the way, so that the copy saves nothing and costs a refresh (bench/RESULTS.md). */
enum zo_memory { ZO_MEMORY_AUTO, ZO_MEMORY_LEAN, ZO_MEMORY_FAST };

/* Binds the state whose integers are the weights from now on (NULL: the checkpoint's own values).
 * The state is borrowed and only read. */
NODISCARD enum err zo_model_bind(struct zo_model *m, const struct zo_state *s, enum zo_memory memory, struct err_why *why);
/* What bind chose: ZO_MEMORY_FAST or ZO_MEMORY_LEAN (also where fast was asked for and memory was short). */
enum zo_memory zo_model_memory(const struct zo_model *m);
/* The bound state was folded into: refresh what was derived from it. */
NODISCARD enum err zo_model_refresh(struct zo_model *m, struct zo_pool *pool);

/* One forward pass over one example: weights + eps * z(key, seq).  eps = 0: plain. */
struct zo_pass {
    const struct zo_example *example;
    uint32_t key[2];
    uint64_t seq;
    float eps; /* signed */
};

struct zo_loss {
    double loss;         /* nats; NaN if not finite */
    double nats;         /* sum of -log p over counted tokens (of all sequences) */
    uint32_t n_tokens;   /* counted tokens */
    int32_t correct;     /* 1, 0, or -1 without choices */
};

/* out [n] <- losses of n passes, batched as the engine sees fit within its scratch (passes that share an example
 * share its unperturbed work).  Directions need a bound state (its rules name kind and tensors).
 * Encoders: a masked model reads its mask token where `counted` is 1 and predicts what stood there; a sequence
 * classifier takes n_seqs == 1 and the class as label.
 * ERR_NOMEM, ERR_RANGE (an id outside the vocabulary, a sequence longer than the context, a label outside the
 * choices, a direction without a bound state): nothing computed.  k, pool: NULL for the default, one thread. */
NODISCARD enum err zo_model_losses(struct zo_model *m, const struct zo_pass *passes, size_t n, struct zo_loss *out,
                                   const struct zo_kernels *k, struct zo_pool *pool);

/* A tensor in use that holds a NaN or an infinity in the checkpoint; NULL: none does.  Reads all of it. */
const char *zo_model_nonfinite(const struct zo_model *m);

/* Whether zo_model_losses takes this example: its ids, lengths and label.  ERR_RANGE: why says what does not fit. */
NODISCARD enum err zo_model_check(const struct zo_model *m, const struct zo_example *x, struct err_why *why);

/* Logits of every position of one plain sequence, for tests and generation: out (n, vocab).  A sequence classifier
 * gives one row of its labels' logits instead: out [labels].  ERR_RANGE: too long, or an id outside the vocabulary. */
NODISCARD enum err zo_model_logits(struct zo_model *m, const uint32_t *ids, size_t n, float *out, struct zo_pool *pool);

/* Keys and values of one sequence's tokens: with them the next token costs one row of the pass, not the sequence.
 * Valid for the weights it was filled with: clear it after a fold.  capacity: tokens, at most the model's context;
 * ERR_UNSUPPORTED: not a causal model. */
struct zo_cache;
NODISCARD enum err zo_cache_new(struct zo_cache **c, const struct zo_model *m, uint32_t capacity, struct err_why *why);
void zo_cache_free(struct zo_cache *c);
uint64_t zo_cache_bytes(const struct zo_model *m, uint32_t capacity); /* memory that one takes */
void zo_cache_clear(struct zo_cache *c); /* holds no token */

struct zo_feed {
    struct zo_cache *cache; /* one feed per cache and call */
    const uint32_t *ids;    /* [n] the tokens that follow those it holds, at least one */
    size_t n;
};
/* Each cache then holds its feed's tokens too; out (n, vocab) <- logits of the token after them.  One pass for all feeds.
 * ERR_RANGE: more tokens than the capacity, an id outside the vocabulary. */
NODISCARD enum err zo_model_extend(struct zo_model *m, const struct zo_feed *feeds, size_t n, float *out,
                                   const struct zo_kernels *k, struct zo_pool *pool);

/* Logits of the token after ids alone, without a cache: out [vocab].  ERR_UNSUPPORTED: not a causal model. */
NODISCARD enum err zo_model_next(struct zo_model *m, const uint32_t *ids, size_t n, float *out, struct zo_pool *pool);

/* The BLAS in use, after the wrong-core fix: name of its core, for `doctor` and the log.  Call zo_blas_start once,
 * at program start, before any GEMM: it may re-execute nothing and sets BLAS to one thread per caller. */
NODISCARD enum err zo_blas_start(struct err_why *why);
const char *zo_blas_core(void);
#endif
