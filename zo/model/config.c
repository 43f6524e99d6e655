/* zo/model/config.c -- config.json: every number the forward pass needs, checked and named when it
 * is missing. */
#include "zo/model/internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

double zo_config_number(const json_t *root, const char *key, double otherwise)
{
    const json_t *v = json_object_get(root, key);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

bool zo_config_bool(const json_t *root, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(root, key);
    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

uint32_t zo_config_u32_or(const json_t *root, const char *key, uint32_t otherwise)
{
    const json_t *v = json_object_get(root, key);
    return json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= UINT32_MAX
               ? (uint32_t)json_integer_value(v)
               : otherwise;
}

enum err zo_config_u32(const json_t *root, const char *key, uint32_t low, uint32_t high,
                       uint32_t *out, struct err_why *why)
{
    const json_t *v = json_object_get(root, key);
    if (!v || json_is_null(v))
        return err_set(why, ERR_FORMAT, "config.json: %s is missing", key);
    if (!json_is_integer(v) || json_integer_value(v) < (json_int_t)low ||
        json_integer_value(v) > (json_int_t)high)
        return err_set(why, ERR_RANGE, "config.json: %s must be an integer from %u to %u", key, low,
                       high);
    *out = (uint32_t)json_integer_value(v);
    return ERR_OK;
}

enum err zo_config_act(const json_t *root, const char *key, const char *otherwise, enum zo_act *out,
                       struct err_why *why)
{
    static const struct {
        const char *name;
        enum zo_act act;
    } known[] = {
        {"silu", ZO_ACT_SILU},           {"swish", ZO_ACT_SILU},
        {"gelu", ZO_ACT_GELU_ERF},       {"gelu_new", ZO_ACT_GELU_TANH},
        {"relu", ZO_ACT_RELU},           {"gelu_pytorch_tanh", ZO_ACT_GELU_TANH},
        {"gelu_fast", ZO_ACT_GELU_TANH}, {"quick_gelu", ZO_ACT_QUICK_GELU},
        {"tanh", ZO_ACT_TANH},
    };
    const json_t *v = json_object_get(root, key);
    const char *name = json_is_string(v) ? json_string_value(v) : otherwise;
    if (!name)
        return err_set(why, ERR_FORMAT, "config.json: %s is missing", key);
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(known[i].name, name) == 0) {
            *out = known[i].act;
            return ERR_OK;
        }
    return err_set(why, ERR_UNSUPPORTED, "config.json: %s \"%.60s\" is not a supported activation",
                   key, name);
}

/* Fields that may be left out: one of another type would silently become its default, and the model another one. */
static enum err check_types(const json_t *root, struct err_why *why)
{
    enum kind { NUMBER, COUNT, YES_NO, OBJECT };
    static const char *const what[] = {"a number", "a whole number, 0 or more", "true or false", "an object"};
    static const struct {
        const char *key;
        enum kind kind;
    } optional[] = {
        {"num_key_value_heads", COUNT},     {"head_dim", COUNT},
        {"sliding_window", COUNT},          {"sliding_window_pattern", COUNT},
        {"max_window_layers", COUNT},       {"word_embed_proj_dim", COUNT},
        {"type_vocab_size", COUNT},         {"rope_theta", NUMBER},
        {"rope_local_base_freq", NUMBER},   {"rotary_emb_base", NUMBER},
        {"partial_rotary_factor", NUMBER},  {"rotary_pct", NUMBER},
        {"query_pre_attn_scalar", NUMBER},  {"attn_logit_softcapping", NUMBER},
        {"final_logit_softcapping", NUMBER}, {"layer_norm_eps", NUMBER},
        {"layer_norm_epsilon", NUMBER},     {"attention_bias", YES_NO},
        {"mlp_bias", YES_NO},               {"use_sliding_window", YES_NO},
        {"tie_word_embeddings", YES_NO},    {"enable_bias", YES_NO},
        {"do_layer_norm_before", YES_NO},   {"use_parallel_residual", YES_NO},
        {"is_decoder", YES_NO},             {"rope_scaling", OBJECT},
        {"rope_parameters", OBJECT},
    };
    for (size_t i = 0; i < ARRAY_LEN(optional); i++) {
        const json_t *v = json_object_get(root, optional[i].key);
        const bool fits[] = {json_is_number(v), json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= UINT32_MAX,
                             json_is_boolean(v), json_is_object(v)};
        if (v && !json_is_null(v) && !fits[optional[i].kind])
            return err_set(why, ERR_FORMAT, "config.json: %s must be %s", optional[i].key, what[optional[i].kind]);
    }
    return ERR_OK;
}

/* The first of two spellings that is there; the first when neither is, so that messages name the
 * usual one. */
static const char *either(const json_t *root, const char *a, const char *b)
{
    return !json_object_get(root, a) && json_object_get(root, b) ? b : a;
}

static enum err read_sizes(struct zo_model *m, const json_t *root, struct err_why *why)
{
    struct config *c = &m->c;
    const bool gpt2 = strcmp(m->model_type, "gpt2") == 0, opt = strcmp(m->model_type, "opt") == 0;
    const char *ffn = gpt2 ? "n_inner" : opt ? "ffn_dim" : "intermediate_size";
    TRY(zo_config_u32(root, "vocab_size", 2, 1u << 24, &c->vocab, why));
    TRY(zo_config_u32(root, either(root, "hidden_size", "n_embd"), 1, 1u << 20, &c->d, why));
    TRY(zo_config_u32(root, either(root, "num_hidden_layers", "n_layer"), 1, 4096, &c->layers,
                      why));
    TRY(zo_config_u32(root, either(root, "num_attention_heads", "n_head"), 1, 65536, &c->heads,
                      why));
    TRY(zo_config_u32(root, either(root, "max_position_embeddings", "n_positions"), 1, 1u << 28,
                      &c->context, why));
    if (gpt2 && !json_is_integer(json_object_get(root, ffn)))
        c->ffn = 4 * c->d;
    else
        TRY(zo_config_u32(root, ffn, 1, 1u << 22, &c->ffn, why));
    c->kv_heads = zo_config_u32_or(root, "num_key_value_heads", c->heads);
    c->head_dim =
        zo_config_u32_or(root, "head_dim", strncmp(m->model_type, "gemma", 5) == 0 ? 256 : 0);
    if (c->head_dim == 0) {
        if (c->d % c->heads != 0)
            return err_set(
                why, ERR_RANGE,
                "config.json: hidden_size %u is not a multiple of num_attention_heads %u", c->d,
                c->heads);
        c->head_dim = c->d / c->heads;
    }
    if (c->kv_heads == 0 || c->heads % c->kv_heads != 0)
        return err_set(
            why, ERR_RANGE,
            "config.json: num_attention_heads %u is not a multiple of num_key_value_heads %u",
            c->heads, c->kv_heads);
    if (c->head_dim > 65536)
        return err_set(why, ERR_RANGE, "config.json: head_dim %u is too large", c->head_dim);
    c->d_embed = c->d;
    return ERR_OK;
}

static enum err read_common(struct zo_model *m, const json_t *root, struct err_why *why)
{
    struct config *c = &m->c;
    const bool rms = m->arch->norm != ZO_NORM_LAYER, opt = strcmp(m->model_type, "opt") == 0;
    const char *eps = rms ? "rms_norm_eps" : either(root, "layer_norm_epsilon", "layer_norm_eps");
    const double eps_default = rms                             ? NAN
                               : opt                           ? 1e-5
                               : strstr(m->model_type, "bert") ? 1e-12
                                                               : 1e-5;
    c->norm_eps = (float)zo_config_number(root, eps, eps_default);
    if (!(c->norm_eps >= 0.0f && c->norm_eps < 1.0f))
        return err_set(why, ERR_FORMAT, "config.json: %s is missing or not in [0, 1)", eps);
    const bool gemma = strncmp(m->model_type, "gemma", 5) == 0;
    const char *act = either(root, gemma ? "hidden_activation" : "hidden_act",
                             gemma ? "hidden_act" : "activation_function");
    /* Gemma 1 was trained with the tanh form whatever its first configs said. */
    const char *act_default = gemma ? "gelu_pytorch_tanh" : NULL;
    TRY(zo_config_act(root, act, act_default, &c->act, why));
    if (strcmp(m->model_type, "gemma") == 0)
        c->act = ZO_ACT_GELU_TANH;
    c->order = m->arch->order;
    c->task = TASK_CAUSAL;
    c->causal = true;
    c->final_norm = true;
    c->embed_scale = 1.0f;
    c->attention_scale = (float)(1.0 / sqrt((double)c->head_dim));
    c->tied = zo_config_bool(root, "tie_word_embeddings", m->arch->tied_default);
    return ERR_OK;
}

/* The mask token of a masked model: from config.json, else the added token of tokenizer.json that
 * is called so. */
static enum err read_mask_id(struct zo_model *m, const json_t *root, const char *dir,
                             struct err_why *why)
{
    char path[4096];
    m->c.mask_id = zo_config_u32_or(root, "mask_token_id", UINT32_MAX);
    if (m->c.mask_id == UINT32_MAX) {
        (void)snprintf(path, sizeof path, "%s/tokenizer.json", dir);
        json_t *tokenizer = json_load_file(path, 0, NULL), *token;
        size_t i;
        json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, token)
        {
            const char *text = json_string_value(json_object_get(token, "content"));
            if (text && (strcmp(text, "[MASK]") == 0 || strcmp(text, "<mask>") == 0))
                m->c.mask_id = zo_config_u32_or(token, "id", UINT32_MAX);
        }
        json_decref(tokenizer);
    }
    if (m->c.mask_id >= m->c.vocab)
        return err_set(why, ERR_FORMAT,
                       "no mask token: put mask_token_id into config.json, or tokenizer.json with "
                       "[MASK] or <mask> beside it");
    return ERR_OK;
}

static enum err read_root(struct zo_model *m, const json_t *root, const char *dir,
                          struct err_why *why)
{
    const char *type = json_string_value(json_object_get(root, "model_type"));
    if (!type)
        return err_set(why, ERR_FORMAT, "config.json: model_type is missing");
    for (size_t i = 0; i < zo_n_archs; i++)
        if (strcmp(zo_archs[i].model_type, type) == 0)
            m->arch = &zo_archs[i];
    if (!m->arch)
        return err_set(why, ERR_UNSUPPORTED,
                       "config.json: model_type \"%.60s\" is not supported: llama, mistral, qwen2, qwen3, phi3, gemma, "
                       "gemma2, gemma3_text, gpt2, gpt_neox, opt, bert, roberta are",
                       type);
    m->model_type = strdup(type);
    if (!m->model_type)
        return err_set(why, ERR_NOMEM, "out of memory");
    const json_t *quantised = json_object_get(root, "quantization_config");
    if (quantised && !json_is_null(quantised))
        return err_set(
            why, ERR_UNSUPPORTED,
            "config.json: quantised checkpoints are not supported; use the original one");
    TRY(check_types(root, why));
    TRY(read_sizes(m, root, why));
    TRY(read_common(m, root, why));
    if (m->arch->config)
        TRY(m->arch->config(m, root, why));
    if (!m->c.positions)
        TRY(zo_rope_config(m, root, 0, why));
    if (m->c.layer_local && strcmp(type, "gemma3_text") == 0)
        TRY(zo_rope_config(m, root, 1, why));
    return m->c.task == TASK_MASKED ? read_mask_id(m, root, dir, why) : ERR_OK;
}

enum err zo_config_read(struct zo_model *m, const char *dir, struct err_why *why)
{
    char path[4096];
    json_error_t where;
    if (snprintf(path, sizeof path, "%s/config.json", dir) >= (int)sizeof path)
        return err_set(why, ERR_RANGE, "the model folder's path is too long");
    json_t *root = json_load_file(path, 0, &where);
    if (!root && where.line < 0) /* not even opened: the text names file and reason */
        return err_set(why, ERR_NOTFOUND, "%s: is %.300s a model folder?", where.text, dir);
    if (!root)
        return err_set(why, ERR_FORMAT, "%.400s: line %d: %s", path, where.line, where.text);
    const enum err e = json_is_object(root)
                           ? read_root(m, root, dir, why)
                           : err_set(why, ERR_FORMAT, "%.400s: not a JSON object", path);
    json_decref(root);
    return e;
}
