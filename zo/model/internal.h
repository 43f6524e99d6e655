/* zo/model/internal.h -- what the parts of zo/model share: an architecture's description, the
 * config, the weights.
 *
 * One forward pass serves every architecture.  arch.c has a table row per model_type (names,
 * shapes, order of norms), config.c reads the numbers, weights.c gives blocks of weights from state
 * or checkpoint, plan.c lays out a batch, forward.c runs the layers, head.c the vocabulary and the
 * losses. */
#ifndef ZO_MODEL_INTERNAL_H
#define ZO_MODEL_INTERNAL_H
#include <onebyte/zo/model.h>

#include "zo/model/ops.h"

#include <jansson.h>

/* Every place of the forward pass that reads a tensor.  Up to SLOT_LAYER_END: one per layer. */
enum slot {
    SLOT_NORM1_W, /* before attention (after it in post-norm models) */
    SLOT_NORM1_B,
    SLOT_Q_W,
    SLOT_Q_B,
    SLOT_K_W,
    SLOT_K_B,
    SLOT_V_W,
    SLOT_V_B,
    SLOT_QKV_W, /* q, k, v in one matrix; the config says how they lie in it */
    SLOT_QKV_B,
    SLOT_Q_NORM, /* per head */
    SLOT_K_NORM,
    SLOT_O_W,
    SLOT_O_B,
    SLOT_POST1_W, /* on the attention's output (sandwich) */
    SLOT_NORM2_W, /* before the MLP (after it in post-norm models) */
    SLOT_NORM2_B,
    SLOT_GATE_W,
    SLOT_UP_W,
    SLOT_UP_B,
    SLOT_GATE_UP_W, /* gate over up in one matrix */
    SLOT_DOWN_W,
    SLOT_DOWN_B,
    SLOT_POST2_W,
    SLOT_LAYER_END,
    SLOT_EMBED = SLOT_LAYER_END,
    SLOT_POSITIONS,
    SLOT_TYPES, /* token types: row 0 is used */
    SLOT_EMBED_NORM_W,
    SLOT_EMBED_NORM_B,
    SLOT_PROJECT_IN,
    SLOT_PROJECT_OUT,
    SLOT_FINAL_W,
    SLOT_FINAL_B,
    SLOT_HEAD_DENSE_W, /* MLM transform; a classifier's pooler or dense */
    SLOT_HEAD_DENSE_B,
    SLOT_HEAD_NORM_W,
    SLOT_HEAD_NORM_B,
    SLOT_HEAD_W, /* the vocabulary (absent when tied) or the labels */
    SLOT_HEAD_B,
    SLOT_END,
};

enum order { ORDER_PRE, ORDER_POST, ORDER_PARALLEL, ORDER_SANDWICH };
enum task { TASK_CAUSAL, TASK_MASKED, TASK_CLASSIFY };

/* When a tensor of the table is there. */
enum need {
    NEED_ALWAYS,
    NEED_ATTENTION_BIAS, /* config says so */
    NEED_MLP_BIAS,
    NEED_UNTIED, /* head with its own matrix */
    NEED_QK_NORM,
    NEED_FINAL_NORM,
    NEED_PROJECT, /* embedding narrower than the layers */
    NEED_IF_THERE,
    NEED_MASKED, /* TASK_MASKED only */
    NEED_CLASSIFY,
    NEED_POSITIONS,
};

struct arch_tensor {
    enum slot slot;
    const char *name; /* %u: the layer; a leading '=': no prefix */
    enum need need;
};

struct arch {
    const char *model_type;
    const char *const *prefixes; /* ends with NULL; the first under which the embedding is found */
    const struct arch_tensor *tensors; /* ends with name NULL */
    enum zo_norm norm;
    enum order order;
    enum task task; /* encoders: by their architectures entry */
    bool gated;
    bool transposed;   /* matrices stored (in, out): Conv1D */
    bool tied_default; /* what a missing tie_word_embeddings means */
    /* Reads what is particular to this architecture; NULL: nothing. */
    enum err (*config)(struct zo_model *m, const json_t *root, struct err_why *why);
};
extern const struct arch zo_archs[];
extern const size_t zo_n_archs;

struct rope {
    float *inv_freq; /* [half] owned; NULL: no rope */
    float scale;     /* of cos and sin (yarn) */
    float *table;    /* (n, 2, half): cos then sin, grown as sequences need it */
    size_t n;
};

struct config {
    uint32_t vocab, d, layers, heads, kv_heads, head_dim, ffn, context, d_embed, n_labels,
        position_offset, types;
    uint32_t rope_half;
    uint32_t window;      /* 0: none */
    uint8_t *layer_local; /* [layers] 1: window and the local rope; NULL: all alike (window applies
                             to all) */
    struct rope rope[2];  /* 0 global, 1 local layers */
    enum zo_act act, head_act;
    enum order order;
    enum task task;
    float norm_eps, attention_scale, attention_cap, final_cap, embed_scale;
    bool tied, attention_bias, mlp_bias, qk_norm, final_norm, causal, positions;
    bool qkv_by_head; /* fused q, k, v lie head by head (NeoX), not one after the other */
    uint32_t mask_id; /* TASK_MASKED */
};

/* A tensor in use. */
struct param {
    const struct zo_ckpt_tensor *t; /* NULL: this model has none here */
    int64_t state;       /* its number in the bound state's rules, or -1: the checkpoint's values */
    uint64_t rows, cols; /* as stored; a vector is (n, 1) */
    float *resident;     /* fast: float copy inside the model's `resident`; NULL: none */
    bool adapted;        /* tensors lora_a (r, in) and lora_b (out, r) of the state add to it */
    uint32_t lora_a, lora_b;
};

struct zo_model {
    char *model_type;
    const struct arch *arch;
    const char *prefix; /* of the table's names in this checkpoint */
    uint32_t lora_r;    /* largest r of the bound state's adapters; 0: none */
    struct config c;
    struct zo_ckpt ckpt;
    bool *used;           /* [ckpt.n] */
    struct param *layers; /* [layers * SLOT_LAYER_END] */
    struct param global[SLOT_END];
    const struct zo_state *state;
    float *resident;
    uint64_t resident_elements;
    struct batch *batch; /* scratch, grown and kept */
};

static inline const struct param *layer_param(const struct zo_model *m, uint32_t layer, enum slot s)
{
    return &m->layers[(size_t)layer * SLOT_LAYER_END + s];
}

static inline bool param_there(const struct param *p)
{
    return p->t != NULL;
}

/* config.c */
NODISCARD enum err zo_config_read(struct zo_model *m, const char *dir, struct err_why *why);
NODISCARD enum err zo_config_u32(const json_t *root, const char *key, uint32_t low, uint32_t high,
                                 uint32_t *out, struct err_why *why); /* required */
double zo_config_number(const json_t *root, const char *key, double otherwise);
bool zo_config_bool(const json_t *root, const char *key, bool otherwise);
uint32_t zo_config_u32_or(const json_t *root, const char *key, uint32_t otherwise);
NODISCARD enum err zo_config_act(const json_t *root, const char *key, const char *otherwise,
                                 enum zo_act *out, struct err_why *why);
/* rope.c: inv_freq of `half` from the theta and scaling the config holds; which: 0 global, 1 local
 * layers. */
NODISCARD enum err zo_rope_config(struct zo_model *m, const json_t *root, int which,
                                  struct err_why *why);
NODISCARD enum err zo_rope_grow(struct zo_model *m, size_t n); /* tables for positions below n */

/* weights.c */
NODISCARD enum err zo_weights_find(struct zo_model *m, struct err_why *why);
/* out <- elements first.. of p. */
void zo_weights_read(const struct zo_model *m, const struct param *p, uint64_t first, float *out,
                     size_t n, const struct zo_ops *ops);
/* Where p's values lie as int32 or float (at, ints, scale); false: zo_weights_read is needed. */
bool zo_weights_matrix(const struct zo_model *m, const struct param *p, struct zo_matrix *w);

/* lora.c */
int64_t zo_rules_find(const struct zo_rules *r, const char *name); /* number of a tensor, or -1 */
NODISCARD enum err zo_lora_bind(struct zo_model *m,
                                struct err_why *why); /* after m->state was set */
/* m0 of an adapter; false: tensor number is none. */
bool zo_lora_load(struct zo_state *s, uint32_t number);

/* batch.c */
void zo_batch_free(struct batch *b);
#endif
