/* zo/model/arch.c -- one row per model_type: where its tensors are and in which order its layers
 * work. Names and shapes as `transformers` stores them. */
#include "zo/model/internal.h"

#include <math.h>
#include <string.h>

static const char *const prefix_model[] = {"model.", "language_model.model.", "", NULL};
static const char *const prefix_gpt2[] = {"transformer.", "", NULL};
static const char *const prefix_opt[] = {"model.decoder.", "decoder.", NULL};
static const char *const prefix_neox[] = {"gpt_neox.", "", NULL};
static const char *const prefix_bert[] = {"bert.", "", NULL};
static const char *const prefix_roberta[] = {"roberta.", "", NULL};

#define LLAMA_COMMON                                                     \
    {SLOT_EMBED, "embed_tokens.weight", NEED_ALWAYS},                    \
        {SLOT_NORM1_W, "layers.%u.input_layernorm.weight", NEED_ALWAYS}, \
        {SLOT_O_W, "layers.%u.self_attn.o_proj.weight", NEED_ALWAYS},    \
        {SLOT_DOWN_W, "layers.%u.mlp.down_proj.weight", NEED_ALWAYS},    \
        {SLOT_FINAL_W, "norm.weight", NEED_ALWAYS},                      \
    {                                                                    \
        SLOT_HEAD_W, "=lm_head.weight", NEED_UNTIED                      \
    }
#define LLAMA_QKV                                                           \
    {SLOT_Q_W, "layers.%u.self_attn.q_proj.weight", NEED_ALWAYS},           \
        {SLOT_K_W, "layers.%u.self_attn.k_proj.weight", NEED_ALWAYS},       \
        {SLOT_V_W, "layers.%u.self_attn.v_proj.weight", NEED_ALWAYS},       \
        {SLOT_Q_B, "layers.%u.self_attn.q_proj.bias", NEED_ATTENTION_BIAS}, \
        {SLOT_K_B, "layers.%u.self_attn.k_proj.bias", NEED_ATTENTION_BIAS}, \
        {SLOT_V_B, "layers.%u.self_attn.v_proj.bias", NEED_ATTENTION_BIAS}, \
        {SLOT_Q_NORM, "layers.%u.self_attn.q_norm.weight", NEED_QK_NORM},   \
    {                                                                       \
        SLOT_K_NORM, "layers.%u.self_attn.k_norm.weight", NEED_QK_NORM      \
    }
#define LLAMA_MLP                                                 \
    {SLOT_GATE_W, "layers.%u.mlp.gate_proj.weight", NEED_ALWAYS}, \
    {                                                             \
        SLOT_UP_W, "layers.%u.mlp.up_proj.weight", NEED_ALWAYS    \
    }
#define END                         \
    {                               \
        SLOT_END, NULL, NEED_ALWAYS \
    }

static const struct arch_tensor llama_tensors[] = {
    LLAMA_COMMON,
    LLAMA_QKV,
    LLAMA_MLP,
    {SLOT_NORM2_W, "layers.%u.post_attention_layernorm.weight", NEED_ALWAYS},
    {SLOT_O_B, "layers.%u.self_attn.o_proj.bias", NEED_ATTENTION_BIAS},
    END};
static const struct arch_tensor qwen_tensors[] = {/* biases on q, k, v alone */
                                                  LLAMA_COMMON,
                                                  LLAMA_QKV,
                                                  LLAMA_MLP,
                                                  {SLOT_NORM2_W,
                                                   "layers.%u.post_attention_layernorm.weight",
                                                   NEED_ALWAYS},
                                                  END};
static const struct arch_tensor gemma2_tensors[] = {
    LLAMA_COMMON,
    LLAMA_QKV,
    LLAMA_MLP,
    {SLOT_POST1_W, "layers.%u.post_attention_layernorm.weight", NEED_ALWAYS},
    {SLOT_NORM2_W, "layers.%u.pre_feedforward_layernorm.weight", NEED_ALWAYS},
    {SLOT_POST2_W, "layers.%u.post_feedforward_layernorm.weight", NEED_ALWAYS},
    END};
static const struct arch_tensor phi3_tensors[] = {
    LLAMA_COMMON,
    {SLOT_QKV_W, "layers.%u.self_attn.qkv_proj.weight", NEED_ALWAYS},
    {SLOT_NORM2_W, "layers.%u.post_attention_layernorm.weight", NEED_ALWAYS},
    {SLOT_GATE_UP_W, "layers.%u.mlp.gate_up_proj.weight", NEED_ALWAYS},
    END};
static const struct arch_tensor gpt2_tensors[] = {
    {SLOT_EMBED, "wte.weight", NEED_ALWAYS},
    {SLOT_POSITIONS, "wpe.weight", NEED_ALWAYS},
    {SLOT_NORM1_W, "h.%u.ln_1.weight", NEED_ALWAYS},
    {SLOT_NORM1_B, "h.%u.ln_1.bias", NEED_ALWAYS},
    {SLOT_QKV_W, "h.%u.attn.c_attn.weight", NEED_ALWAYS},
    {SLOT_QKV_B, "h.%u.attn.c_attn.bias", NEED_ALWAYS},
    {SLOT_O_W, "h.%u.attn.c_proj.weight", NEED_ALWAYS},
    {SLOT_O_B, "h.%u.attn.c_proj.bias", NEED_ALWAYS},
    {SLOT_NORM2_W, "h.%u.ln_2.weight", NEED_ALWAYS},
    {SLOT_NORM2_B, "h.%u.ln_2.bias", NEED_ALWAYS},
    {SLOT_UP_W, "h.%u.mlp.c_fc.weight", NEED_ALWAYS},
    {SLOT_UP_B, "h.%u.mlp.c_fc.bias", NEED_ALWAYS},
    {SLOT_DOWN_W, "h.%u.mlp.c_proj.weight", NEED_ALWAYS},
    {SLOT_DOWN_B, "h.%u.mlp.c_proj.bias", NEED_ALWAYS},
    {SLOT_FINAL_W, "ln_f.weight", NEED_ALWAYS},
    {SLOT_FINAL_B, "ln_f.bias", NEED_ALWAYS},
    {SLOT_HEAD_W, "=lm_head.weight", NEED_UNTIED},
    END};
static const struct arch_tensor opt_tensors[] = {
    {SLOT_EMBED, "embed_tokens.weight", NEED_ALWAYS},
    {SLOT_POSITIONS, "embed_positions.weight", NEED_ALWAYS},
    {SLOT_PROJECT_IN, "project_in.weight", NEED_PROJECT},
    {SLOT_PROJECT_OUT, "project_out.weight", NEED_PROJECT},
    {SLOT_NORM1_W, "layers.%u.self_attn_layer_norm.weight", NEED_ALWAYS},
    {SLOT_NORM1_B, "layers.%u.self_attn_layer_norm.bias", NEED_ALWAYS},
    {SLOT_Q_W, "layers.%u.self_attn.q_proj.weight", NEED_ALWAYS},
    {SLOT_Q_B, "layers.%u.self_attn.q_proj.bias", NEED_ATTENTION_BIAS},
    {SLOT_K_W, "layers.%u.self_attn.k_proj.weight", NEED_ALWAYS},
    {SLOT_K_B, "layers.%u.self_attn.k_proj.bias", NEED_ATTENTION_BIAS},
    {SLOT_V_W, "layers.%u.self_attn.v_proj.weight", NEED_ALWAYS},
    {SLOT_V_B, "layers.%u.self_attn.v_proj.bias", NEED_ATTENTION_BIAS},
    {SLOT_O_W, "layers.%u.self_attn.out_proj.weight", NEED_ALWAYS},
    {SLOT_O_B, "layers.%u.self_attn.out_proj.bias", NEED_ATTENTION_BIAS},
    {SLOT_NORM2_W, "layers.%u.final_layer_norm.weight", NEED_ALWAYS},
    {SLOT_NORM2_B, "layers.%u.final_layer_norm.bias", NEED_ALWAYS},
    {SLOT_UP_W, "layers.%u.fc1.weight", NEED_ALWAYS},
    {SLOT_UP_B, "layers.%u.fc1.bias", NEED_MLP_BIAS},
    {SLOT_DOWN_W, "layers.%u.fc2.weight", NEED_ALWAYS},
    {SLOT_DOWN_B, "layers.%u.fc2.bias", NEED_MLP_BIAS},
    {SLOT_FINAL_W, "final_layer_norm.weight", NEED_FINAL_NORM},
    {SLOT_FINAL_B, "final_layer_norm.bias", NEED_FINAL_NORM},
    {SLOT_HEAD_W, "=lm_head.weight", NEED_UNTIED},
    END};
static const struct arch_tensor neox_tensors[] = {
    {SLOT_EMBED, "embed_in.weight", NEED_ALWAYS},
    {SLOT_NORM1_W, "layers.%u.input_layernorm.weight", NEED_ALWAYS},
    {SLOT_NORM1_B, "layers.%u.input_layernorm.bias", NEED_ALWAYS},
    {SLOT_QKV_W, "layers.%u.attention.query_key_value.weight", NEED_ALWAYS},
    {SLOT_QKV_B, "layers.%u.attention.query_key_value.bias", NEED_ATTENTION_BIAS},
    {SLOT_O_W, "layers.%u.attention.dense.weight", NEED_ALWAYS},
    {SLOT_O_B, "layers.%u.attention.dense.bias", NEED_ATTENTION_BIAS},
    {SLOT_NORM2_W, "layers.%u.post_attention_layernorm.weight", NEED_ALWAYS},
    {SLOT_NORM2_B, "layers.%u.post_attention_layernorm.bias", NEED_ALWAYS},
    {SLOT_UP_W, "layers.%u.mlp.dense_h_to_4h.weight", NEED_ALWAYS},
    {SLOT_UP_B, "layers.%u.mlp.dense_h_to_4h.bias", NEED_ALWAYS},
    {SLOT_DOWN_W, "layers.%u.mlp.dense_4h_to_h.weight", NEED_ALWAYS},
    {SLOT_DOWN_B, "layers.%u.mlp.dense_4h_to_h.bias", NEED_ALWAYS},
    {SLOT_FINAL_W, "final_layer_norm.weight", NEED_ALWAYS},
    {SLOT_FINAL_B, "final_layer_norm.bias", NEED_ALWAYS},
    {SLOT_HEAD_W, "=embed_out.weight", NEED_UNTIED},
    END};

#define BERT_BODY                                                                          \
    {SLOT_EMBED, "embeddings.word_embeddings.weight", NEED_ALWAYS},                        \
        {SLOT_POSITIONS, "embeddings.position_embeddings.weight", NEED_ALWAYS},            \
        {SLOT_TYPES, "embeddings.token_type_embeddings.weight", NEED_ALWAYS},              \
        {SLOT_EMBED_NORM_W, "embeddings.LayerNorm.weight", NEED_ALWAYS},                   \
        {SLOT_EMBED_NORM_B, "embeddings.LayerNorm.bias", NEED_ALWAYS},                     \
        {SLOT_Q_W, "encoder.layer.%u.attention.self.query.weight", NEED_ALWAYS},           \
        {SLOT_Q_B, "encoder.layer.%u.attention.self.query.bias", NEED_ALWAYS},             \
        {SLOT_K_W, "encoder.layer.%u.attention.self.key.weight", NEED_ALWAYS},             \
        {SLOT_K_B, "encoder.layer.%u.attention.self.key.bias", NEED_ALWAYS},               \
        {SLOT_V_W, "encoder.layer.%u.attention.self.value.weight", NEED_ALWAYS},           \
        {SLOT_V_B, "encoder.layer.%u.attention.self.value.bias", NEED_ALWAYS},             \
        {SLOT_O_W, "encoder.layer.%u.attention.output.dense.weight", NEED_ALWAYS},         \
        {SLOT_O_B, "encoder.layer.%u.attention.output.dense.bias", NEED_ALWAYS},           \
        {SLOT_NORM1_W, "encoder.layer.%u.attention.output.LayerNorm.weight", NEED_ALWAYS}, \
        {SLOT_NORM1_B, "encoder.layer.%u.attention.output.LayerNorm.bias", NEED_ALWAYS},   \
        {SLOT_UP_W, "encoder.layer.%u.intermediate.dense.weight", NEED_ALWAYS},            \
        {SLOT_UP_B, "encoder.layer.%u.intermediate.dense.bias", NEED_ALWAYS},              \
        {SLOT_DOWN_W, "encoder.layer.%u.output.dense.weight", NEED_ALWAYS},                \
        {SLOT_DOWN_B, "encoder.layer.%u.output.dense.bias", NEED_ALWAYS},                  \
        {SLOT_NORM2_W, "encoder.layer.%u.output.LayerNorm.weight", NEED_ALWAYS},           \
    {                                                                                      \
        SLOT_NORM2_B, "encoder.layer.%u.output.LayerNorm.bias", NEED_ALWAYS                \
    }

static const struct arch_tensor bert_tensors[] = {
    BERT_BODY,
    {SLOT_HEAD_DENSE_W, "=cls.predictions.transform.dense.weight", NEED_MASKED},
    {SLOT_HEAD_DENSE_B, "=cls.predictions.transform.dense.bias", NEED_MASKED},
    {SLOT_HEAD_NORM_W, "=cls.predictions.transform.LayerNorm.weight", NEED_MASKED},
    {SLOT_HEAD_NORM_B, "=cls.predictions.transform.LayerNorm.bias", NEED_MASKED},
    {SLOT_HEAD_W, "=cls.predictions.decoder.weight", NEED_UNTIED},
    {SLOT_HEAD_B, "=cls.predictions.bias", NEED_MASKED},
    {SLOT_HEAD_DENSE_W, "pooler.dense.weight", NEED_CLASSIFY},
    {SLOT_HEAD_DENSE_B, "pooler.dense.bias", NEED_CLASSIFY},
    {SLOT_HEAD_W, "=classifier.weight", NEED_CLASSIFY},
    {SLOT_HEAD_B, "=classifier.bias", NEED_CLASSIFY},
    END};
static const struct arch_tensor roberta_tensors[] = {
    BERT_BODY,
    {SLOT_HEAD_DENSE_W, "=lm_head.dense.weight", NEED_MASKED},
    {SLOT_HEAD_DENSE_B, "=lm_head.dense.bias", NEED_MASKED},
    {SLOT_HEAD_NORM_W, "=lm_head.layer_norm.weight", NEED_MASKED},
    {SLOT_HEAD_NORM_B, "=lm_head.layer_norm.bias", NEED_MASKED},
    {SLOT_HEAD_W, "=lm_head.decoder.weight", NEED_UNTIED},
    {SLOT_HEAD_B, "=lm_head.bias", NEED_MASKED},
    {SLOT_HEAD_DENSE_W, "=classifier.dense.weight", NEED_CLASSIFY},
    {SLOT_HEAD_DENSE_B, "=classifier.dense.bias", NEED_CLASSIFY},
    {SLOT_HEAD_W, "=classifier.out_proj.weight", NEED_CLASSIFY},
    {SLOT_HEAD_B, "=classifier.out_proj.bias", NEED_CLASSIFY},
    END};

/* ---- what is particular ---- */

static enum err config_llama(struct zo_model *m, const json_t *root, struct err_why *why)
{
    m->c.attention_bias = zo_config_bool(root, "attention_bias", false);
    if (zo_config_bool(root, "mlp_bias", false))
        return err_set(why, ERR_UNSUPPORTED, "config.json: mlp_bias true is not supported for %s",
                       m->model_type);
    if (zo_config_number(root, "pretraining_tp", 1.0) > 1.0)
        return err_set(why, ERR_UNSUPPORTED,
                       "config.json: pretraining_tp above 1 is not supported");
    return ERR_OK;
}

static enum err config_mistral(struct zo_model *m, const json_t *root, struct err_why *why)
{
    (void)why;
    m->c.window = zo_config_u32_or(root, "sliding_window", 0);
    return ERR_OK;
}

/* layer_types [layers] of "full_attention" | "sliding_attention"; without it every `pattern`-th
 * layer is full. */
static enum err layer_types(struct zo_model *m, const json_t *root, uint32_t pattern,
                            uint32_t full_below, struct err_why *why)
{
    const json_t *types = json_object_get(root, "layer_types");
    m->c.layer_local = calloc(m->c.layers, 1);
    if (!m->c.layer_local)
        return err_set(why, ERR_NOMEM, "out of memory");
    if (json_is_array(types) && json_array_size(types) != m->c.layers)
        return err_set(why, ERR_FORMAT, "config.json: layer_types has not one entry per layer");
    for (uint32_t i = 0; i < m->c.layers; i++) {
        if (json_is_array(types)) {
            const char *type = json_string_value(json_array_get(types, i));
            if (!type ||
                (strcmp(type, "full_attention") != 0 && strcmp(type, "sliding_attention") != 0))
                return err_set(why, ERR_UNSUPPORTED,
                               "config.json: layer type %.40s is not supported", type ? type : "?");
            m->c.layer_local[i] = type[0] == 's';
        } else {
            m->c.layer_local[i] = (uint8_t)(pattern > 0 ? (i + 1) % pattern != 0 : i >= full_below);
        }
    }
    return ERR_OK;
}

static enum err config_qwen(struct zo_model *m, const json_t *root, struct err_why *why)
{
    const bool qwen2 = strcmp(m->model_type, "qwen2") == 0;
    m->c.attention_bias = qwen2 || zo_config_bool(root, "attention_bias", false);
    m->c.qk_norm = !qwen2;
    if (!zo_config_bool(root, "use_sliding_window", false))
        return ERR_OK;
    m->c.window = zo_config_u32_or(root, "sliding_window", 0);
    return m->c.window == 0
               ? ERR_OK
               : layer_types(m, root, 0, zo_config_u32_or(root, "max_window_layers", 28), why);
}

static enum err config_phi3(struct zo_model *m, const json_t *root, struct err_why *why)
{
    (void)why;
    m->c.window = zo_config_u32_or(root, "sliding_window", 0);
    return ERR_OK;
}

static enum err config_gemma(struct zo_model *m, const json_t *root, struct err_why *why)
{
    const char *type = m->model_type;
    m->c.embed_scale = sqrtf((float)m->c.d);
    m->c.attention_bias = zo_config_bool(root, "attention_bias", false);
    if (strcmp(type, "gemma") == 0)
        return ERR_OK;
    const bool third = type[5] == '3';
    m->c.qk_norm = third;
    m->c.attention_scale =
        (float)(1.0 / sqrt(zo_config_number(root, "query_pre_attn_scalar", 256)));
    m->c.attention_cap = (float)zo_config_number(root, "attn_logit_softcapping", third ? 0 : 50);
    m->c.final_cap = (float)zo_config_number(root, "final_logit_softcapping", third ? 0 : 30);
    m->c.window = zo_config_u32_or(root, "sliding_window", 4096);
    if (zo_config_bool(root, "use_bidirectional_attention", false))
        return err_set(why, ERR_UNSUPPORTED,
                       "config.json: use_bidirectional_attention is not supported");
    return layer_types(m, root, third ? zo_config_u32_or(root, "sliding_window_pattern", 6) : 2, 0,
                       why);
}

static enum err config_gpt2(struct zo_model *m, const json_t *root, struct err_why *why)
{
    m->c.positions = true;
    m->c.attention_bias = m->c.mlp_bias = true;
    if (!zo_config_bool(root, "scale_attn_weights", true))
        m->c.attention_scale = 1.0f;
    if (zo_config_bool(root, "scale_attn_by_inverse_layer_idx", false))
        return err_set(why, ERR_UNSUPPORTED,
                       "config.json: scale_attn_by_inverse_layer_idx is not supported");
    return ERR_OK;
}

static enum err config_opt(struct zo_model *m, const json_t *root, struct err_why *why)
{
    m->c.positions = true;
    m->c.position_offset = 2;
    m->c.attention_bias = m->c.mlp_bias = zo_config_bool(root, "enable_bias", true);
    const bool before = zo_config_bool(root, "do_layer_norm_before", true);
    m->c.order = before ? ORDER_PRE : ORDER_POST;
    m->c.final_norm = before && !zo_config_bool(root, "_remove_final_layer_norm", false);
    if (!zo_config_bool(root, "layer_norm_elementwise_affine", true))
        return err_set(why, ERR_UNSUPPORTED,
                       "config.json: layer_norm_elementwise_affine false is not supported");
    m->c.d_embed = zo_config_u32_or(root, "word_embed_proj_dim", m->c.d);
    return ERR_OK;
}

static enum err config_neox(struct zo_model *m, const json_t *root, struct err_why *why)
{
    (void)why;
    m->c.qkv_by_head = true;
    m->c.mlp_bias = true;
    m->c.attention_bias = zo_config_bool(root, "attention_bias", true);
    m->c.order = zo_config_bool(root, "use_parallel_residual", true) ? ORDER_PARALLEL : ORDER_PRE;
    return ERR_OK;
}

/* Encoders: the task is the architecture's last word. */
static enum err config_encoder(struct zo_model *m, const json_t *root, struct err_why *why)
{
    const char *name = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    const bool roberta = strcmp(m->model_type, "roberta") == 0;
    m->c.causal = false;
    m->c.final_norm = false;
    m->c.positions = true;
    m->c.attention_bias = m->c.mlp_bias = true;
    m->c.types = zo_config_u32_or(root, "type_vocab_size", 2);
    if (zo_config_bool(root, "is_decoder", false))
        return err_set(why, ERR_UNSUPPORTED, "config.json: is_decoder is not supported for %s",
                       m->model_type);
    if (roberta) {
        m->c.position_offset = zo_config_u32_or(root, "pad_token_id", 1) + 1;
        if (m->c.position_offset >= m->c.context)
            return err_set(why, ERR_RANGE, "config.json: pad_token_id leaves no positions");
        m->c.context -= m->c.position_offset;
    }
    const char *kind = json_string_value(json_object_get(root, "position_embedding_type"));
    if (kind && strcmp(kind, "absolute") != 0)
        return err_set(why, ERR_UNSUPPORTED,
                       "config.json: position_embedding_type %.40s is not supported", kind);
    if (name && strstr(name, "ForMaskedLM")) {
        m->c.task = TASK_MASKED;
        m->c.head_act = roberta ? ZO_ACT_GELU_ERF : m->c.act;
        return ERR_OK;
    }
    if (!name || !strstr(name, "ForSequenceClassification"))
        return err_set(why, ERR_UNSUPPORTED,
                       "config.json: architecture %.60s is not supported: ForMaskedLM or "
                       "ForSequenceClassification",
                       name ? name : "(none)");
    m->c.task = TASK_CLASSIFY;
    m->c.head_act = ZO_ACT_TANH;
    const json_t *labels = json_object_get(root, "id2label");
    m->c.n_labels = json_is_object(labels) ? (uint32_t)json_object_size(labels)
                                           : zo_config_u32_or(root, "num_labels", 2);
    return m->c.n_labels >= 1 ? ERR_OK : err_set(why, ERR_RANGE, "config.json: no labels");
}

#define RMS_GATED .norm = ZO_NORM_RMS, .gated = true
const struct arch zo_archs[] = {
    {.model_type = "llama",
     .prefixes = prefix_model,
     .tensors = llama_tensors,
     RMS_GATED,
     .config = config_llama},
    {.model_type = "mistral",
     .prefixes = prefix_model,
     .tensors = llama_tensors,
     RMS_GATED,
     .config = config_mistral},
    {.model_type = "qwen2",
     .prefixes = prefix_model,
     .tensors = qwen_tensors,
     RMS_GATED,
     .config = config_qwen},
    {.model_type = "qwen3",
     .prefixes = prefix_model,
     .tensors = llama_tensors,
     RMS_GATED,
     .config = config_qwen},
    {.model_type = "phi3",
     .prefixes = prefix_model,
     .tensors = phi3_tensors,
     RMS_GATED,
     .config = config_phi3},
    {.model_type = "gemma",
     .prefixes = prefix_model,
     .tensors = llama_tensors,
     .norm = ZO_NORM_RMS_PLUS1,
     .gated = true,
     .tied_default = true,
     .config = config_gemma},
    {.model_type = "gemma2",
     .prefixes = prefix_model,
     .tensors = gemma2_tensors,
     .norm = ZO_NORM_RMS_PLUS1,
     .order = ORDER_SANDWICH,
     .gated = true,
     .tied_default = true,
     .config = config_gemma},
    {.model_type = "gemma3_text",
     .prefixes = prefix_model,
     .tensors = gemma2_tensors,
     .norm = ZO_NORM_RMS_PLUS1,
     .order = ORDER_SANDWICH,
     .gated = true,
     .tied_default = true,
     .config = config_gemma},
    {.model_type = "gpt2",
     .prefixes = prefix_gpt2,
     .tensors = gpt2_tensors,
     .norm = ZO_NORM_LAYER,
     .transposed = true,
     .tied_default = true,
     .config = config_gpt2},
    {.model_type = "opt",
     .prefixes = prefix_opt,
     .tensors = opt_tensors,
     .norm = ZO_NORM_LAYER,
     .tied_default = true,
     .config = config_opt},
    {.model_type = "gpt_neox",
     .prefixes = prefix_neox,
     .tensors = neox_tensors,
     .norm = ZO_NORM_LAYER,
     .config = config_neox},
    {.model_type = "bert",
     .prefixes = prefix_bert,
     .tensors = bert_tensors,
     .norm = ZO_NORM_LAYER,
     .order = ORDER_POST,
     .tied_default = true,
     .config = config_encoder},
    {.model_type = "roberta",
     .prefixes = prefix_roberta,
     .tensors = roberta_tensors,
     .norm = ZO_NORM_LAYER,
     .order = ORDER_POST,
     .tied_default = true,
     .config = config_encoder},
};
const size_t zo_n_archs = ARRAY_LEN(zo_archs);
