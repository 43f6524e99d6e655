/* peer/engine.h -- what every command that computes shares: model, tokenizer, state, worker pool, kernels; the
 * evaluation loop; and the way from a ledger (or from gossip's actions) into a state.
 *
 * One thread owns an engine.  The manifest given to peer_engine_open outlives it (the state borrows its rules). */
#ifndef PEER_ENGINE_H
#define PEER_ENGINE_H
#include "peer/home.h"
#include "peer/manifest.h"
#include <onebyte/base/err.h>
#include <onebyte/net/gossip.h>
#include <onebyte/net/ledger.h>
#include <onebyte/zo/dataset.h>
#include <onebyte/zo/device.h>
#include <onebyte/zo/model.h>
#include <onebyte/zo/state.h>
#include <onebyte/zo/tokenizer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer_engine_options {
    const char *model_dir;
    size_t threads;      /* 0: physical cores this process may use */
    const char *kernels; /* NULL: auto */
    enum zo_memory memory;
    const char *device;    /* peer_device_word; NULL: the CPU */
    const char *precision; /* of products on a GPU: bf16 (NULL), fp16, fp32 */
    const char *checkpoint; /* peer_home_state_open: "last" or a number; NULL: everything held */
    const char *verified; /* cache for peer_manifest_check_model; NULL: always hash */
};

struct peer_engine {
    const struct peer_manifest *manifest; /* NULL: plain checkpoint, no state */
    struct zo_model *model;
    struct zo_tokenizer *tokenizer;
    struct zo_pool *pool;
    const struct zo_kernels *kernels;
    struct zo_state *state; /* without a manifest NULL, or on a GPU one without tensors */
    struct zo_device *device; /* NULL: the CPU; else it holds the newest state: peer/device.h */
};

/* With a manifest: checks the model's files against it (name and offset of the first difference), then its tensors,
 * loads m0 into a new state and binds it.  Without: the checkpoint's own values are used. */
NODISCARD enum err peer_engine_open(struct peer_engine *e, const struct peer_manifest *m,
                                    const struct peer_engine_options *o, struct err_why *why);
void peer_engine_close(struct peer_engine *e);

size_t peer_threads_most(void); /* hardware threads in this process's affinity, at least 1: more would only wait */
uint64_t peer_memory_available(void); /* bytes the kernel could give without swapping; 0: unknown */
size_t peer_threads_default(void); /* physical cores in this process's affinity, at least 1, at most LIMIT_THREADS */

/* Opens a JSONL file with the engine's tokenizer; length_max as the manifest says, else the model's context.
 * Refuses an empty file. */
NODISCARD enum err peer_engine_data(const struct peer_engine *e, struct zo_dataset **d, const char *path,
                                    struct err_why *why);

/* Every example of path fits the model (ids, length, label); the line names the first that does not. */
NODISCARD enum err peer_engine_fits(const struct peer_engine *e, const struct zo_dataset *d,
                                    const char *path, struct err_why *why);

/* Losses or logits were no numbers: why names the tensor of the checkpoint that holds NaN or infinity, or says that none does.
 * Returns ERR_NONFINITE. */
NODISCARD enum err peer_engine_nonfinite(const struct peer_engine *e, struct err_why *why);

struct peer_eval {
    double loss_token_mean;   /* nats: all counted tokens alike */
    double loss_example_mean; /* mean of the examples' losses */
    double accuracy;          /* NaN without choices */
    uint64_t tokens, examples, correct, choices; /* choices: examples that have choices */
    uint64_t cut_tokens, cut_examples, nonfinite;
};

/* Plain passes (eps 0) over examples [0, min(size, max)); max 0: all.  batch 0: a sensible number per call.
 * go_on (may be NULL) is asked between batches, with how many are done; false stops with ERR_CANCELLED. */
NODISCARD enum err peer_engine_eval(struct peer_engine *e, const struct zo_dataset *d, uint64_t max, size_t batch,
                                    bool (*go_on)(void *ctx, uint64_t done, uint64_t total), void *ctx,
                                    struct peer_eval *out);

/* Batches FOLD and UNFOLD actions of gossip and folds many segments per call.  Copies what it needs. */
struct peer_folds {
    struct zo_fold *folds;
    int8_t *codes;     /* [n_max][LIMIT_SEGMENT_COUNT] */
    uint8_t *counts;   /* the same */
    size_t n, n_max;
    uint64_t records;  /* folded less unfolded so far, flushed or not: non-void records that count */
};

NODISCARD enum err peer_folds_init(struct peer_folds *f, size_t n_max); /* segments held before a flush is due */
void peer_folds_release(struct peer_folds *f);
bool peer_folds_full(const struct peer_folds *f);
/* action kind FOLD or UNFOLD; not full. */
void peer_folds_add(struct peer_folds *f, const struct peer_manifest *m, const struct net_action *action);
/* The same from its parts, for a compute thread that received a copy. */
void peer_folds_put(struct peer_folds *f, const struct peer_manifest *m, const uint8_t machine[32],
                    const struct net_segment *s, const uint8_t *counts, bool subtract);
/* Folds what is held into the engine's state and refreshes the model. */
NODISCARD enum err peer_folds_flush(struct peer_folds *f, struct peer_engine *e);

/* Feeds a ledger through gossip's checks (controls, segments, controls again: a fork proof needs its predecessor, a
 * segment its author's admission) and folds what counts into e (NULL: only counts).  go_on as above, total 0: unknown. */
struct peer_loaded {
    uint64_t segments, refused, records; /* records: non-void ones that count */
    uint64_t wire_bytes;
};
NODISCARD enum err peer_load_ledger(struct net_gossip *g, struct net_ledger *l, const struct peer_manifest *m,
                                    struct peer_engine *e, bool (*go_on)(void *ctx, uint64_t done, uint64_t total),
                                    void *ctx, struct peer_loaded *out, struct err_why *why);

/* How far the run is by what is loaded: the clock's step; in sync runs the rounds, as far as anybody has measured. */
uint64_t peer_run_step(const struct net_gossip *g, const struct peer_manifest *m);

/* Exactly what a checkpoint names ("last" or its number), also after cuts: segments of the live chains and those kept aside,
 * then both hashes of the owner's signed event are compared.  home: where frontiers are kept. */
NODISCARD enum err peer_load_checkpoint(struct net_gossip *g, struct net_ledger *l, const struct peer_home *home,
                                        const char *which, const struct peer_manifest *m, struct peer_engine *e,
                                        struct peer_loaded *out, struct err_why *why);

/* The same from an exported ledger (net/ledger.h).  ERR_FORMAT: damaged, or of another run. */
NODISCARD enum err peer_load_portable(struct net_gossip *g, const char *path, const struct peer_manifest *m,
                                      struct peer_engine *e, bool (*go_on)(void *ctx, uint64_t done, uint64_t total),
                                      void *ctx, struct peer_loaded *out, struct err_why *why);

/* Everything `eval --home`, `export`, `replay`, `status` of a stopped peer need: home's manifest, ledger (read only),
 * gossip loaded.  Release in any case. */
struct peer_home_state {
    struct peer_manifest manifest;
    struct net_ledger *ledger;
    struct net_gossip *gossip;
    struct peer_loaded loaded;
    char model_dir[PEER_PATH_BYTES]; /* where the base model was found; "" without an engine */
};
/* *s must not move while e is open.  On error both are closed.  model_dir NULL: the path saved in the home.
 * e NULL: frontier, clock and counts only, no model is opened. */
NODISCARD enum err peer_home_state_open(struct peer_home_state *s, const struct peer_home *h, struct peer_engine *e,
                                        const struct peer_engine_options *o, struct err_why *why);
void peer_home_state_close(struct peer_home_state *s);

/* Digest of the engine's state, recomputed from memory, as 16 hex digits.  With a GPU: peer_engine_pull first. */
void peer_engine_digest(const struct peer_engine *e, char out[17]);

/* "123/456 name" on stderr while it is a terminal: a go_on that shows progress; ctx is the name (const char *). */
bool peer_progress(void *ctx, uint64_t done, uint64_t total);
#endif
