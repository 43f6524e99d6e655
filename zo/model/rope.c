/* zo/model/rope.c -- rotary position embedding: frequencies and their scalings, and the table of
 * cos and sin. Sources: RoFormer (arXiv 2104.09864); YaRN (arXiv 2309.00071); the llama3 rule of
 * Llama 3.1's release.  Angles are float products, as in the code the models were trained with. */
#include "zo/model/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct scaling {
    double theta, partial, factor;
    const char *type;
    const json_t *values;
};

/* Where the numbers are: `rope_parameters` (transformers 5; by layer type in Gemma 3), else
 * `rope_theta` and `rope_scaling`.  which: 1 for the local layers' own frequencies. */
static void scaling_find(const struct zo_model *m, const json_t *root, int which, struct scaling *s)
{
    const bool gemma3 = strcmp(m->model_type, "gemma3_text") == 0;
    const json_t *p = json_object_get(root, "rope_parameters");
    const json_t *by_type = json_object_get(p, which ? "sliding_attention" : "full_attention");
    if (json_is_object(by_type))
        p = by_type;
    s->theta = gemma3 ? (which ? zo_config_number(root, "rope_local_base_freq", 10000)
                               : zo_config_number(root, "rope_theta", 1000000))
                      : zo_config_number(root, "rope_theta",
                                         zo_config_number(root, "rotary_emb_base", 10000));
    const double neox = strcmp(m->model_type, "gpt_neox") == 0 ? 0.25 : 1.0;
    s->partial =
        zo_config_number(root, "partial_rotary_factor", zo_config_number(root, "rotary_pct", neox));
    s->values = json_is_object(p) ? p : which ? NULL : json_object_get(root, "rope_scaling");
    if (json_is_object(p)) {
        s->theta = zo_config_number(p, "rope_theta", s->theta);
        s->partial = zo_config_number(p, "partial_rotary_factor", s->partial);
    }
    const json_t *type = json_object_get(s->values, "rope_type");
    if (!type)
        type = json_object_get(s->values, "type");
    s->type = json_is_string(type) ? json_string_value(type) : "default";
    s->factor = zo_config_number(s->values, "factor", 1.0);
}

static void scale_llama3(float *inv, size_t half, const struct scaling *s)
{
    const double low = zo_config_number(s->values, "low_freq_factor", 1),
                 high = zo_config_number(s->values, "high_freq_factor", 4),
                 old = zo_config_number(s->values, "original_max_position_embeddings", 8192);
    for (size_t i = 0; i < half; i++) {
        const double f = (double)inv[i], wave = 2.0 * M_PI / f;
        if (wave > old / low) {
            inv[i] = (float)(f / s->factor);
        } else if (wave >= old / high) {
            const double smooth = (old / wave - low) / (high - low);
            inv[i] = (float)((1.0 - smooth) * f / s->factor + smooth * f);
        }
    }
}

static double yarn_mscale(double factor, double m)
{
    return factor <= 1.0 ? 1.0 : 0.1 * m * log(factor) + 1.0;
}

static void scale_yarn(const struct zo_model *m, struct rope *r, size_t half,
                       const struct scaling *s)
{
    const double old =
                     zo_config_number(s->values, "original_max_position_embeddings", m->c.context),
                 fast = zo_config_number(s->values, "beta_fast", 32),
                 slow = zo_config_number(s->values, "beta_slow", 1), dim = 2.0 * (double)half,
                 over = 2.0 * log(s->theta), ms = zo_config_number(s->values, "mscale", 0),
                 all = zo_config_number(s->values, "mscale_all_dim", 0);
    double low = dim * log(old / (fast * 2.0 * M_PI)) / over,
           high = dim * log(old / (slow * 2.0 * M_PI)) / over;
    if (zo_config_bool(s->values, "truncate", true)) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0.0);
    high = fmin(high, dim - 1.0);
    if (low == high)
        high += 0.001;
    for (size_t i = 0; i < half; i++) {
        const double f = (double)r->inv_freq[i],
                     ramp = fmin(fmax(((double)i - low) / (high - low), 0.0), 1.0);
        r->inv_freq[i] = (float)(f / s->factor * ramp + f * (1.0 - ramp));
    }
    const double plain = ms != 0.0 && all != 0.0
                             ? yarn_mscale(s->factor, ms) / yarn_mscale(s->factor, all)
                             : yarn_mscale(s->factor, 1.0);
    r->scale = (float)zo_config_number(s->values, "attention_factor", plain);
}

/* Phi-3's long context: factors per frequency, one list up to the original length and one beyond.
 * Which list a sequence gets would depend on its length; we keep to the first and to the original
 * length. */
static enum err scale_longrope(struct zo_model *m, const json_t *root, struct rope *r, size_t half,
                               const struct scaling *s, struct err_why *why)
{
    const json_t *list = json_object_get(s->values, "short_factor");
    const double old =
        zo_config_number(s->values, "original_max_position_embeddings",
                         zo_config_number(root, "original_max_position_embeddings", 0));
    if (json_array_size(list) != half || !(old >= 1.0))
        return err_set(why, ERR_FORMAT,
                       "config.json: longrope needs original_max_position_embeddings and "
                       "short_factor with %zu numbers",
                       half);
    for (size_t i = 0; i < half; i++) {
        const double factor = json_number_value(json_array_get(list, i));
        if (!(factor > 0.0))
            return err_set(why, ERR_RANGE,
                           "config.json: short_factor holds a value that is not above 0");
        r->inv_freq[i] = (float)((double)r->inv_freq[i] / factor);
    }
    const double factor = zo_config_number(s->values, "factor", (double)m->c.context / old);
    r->scale = (float)zo_config_number(s->values, "attention_factor",
                                       factor <= 1.0 ? 1.0 : sqrt(1.0 + log(factor) / log(old)));
    if (m->c.context > old)
        m->c.context = (uint32_t)old;
    return ERR_OK;
}

enum err zo_rope_config(struct zo_model *m, const json_t *root, int which, struct err_why *why)
{
    struct scaling s;
    struct rope *r = &m->c.rope[which];
    scaling_find(m, root, which, &s);
    if (!(s.theta > 1.0) || !(s.partial > 0.0 && s.partial <= 1.0) || !(s.factor > 0.0))
        return err_set(why, ERR_RANGE,
                       "config.json: rope theta, partial factor or scaling factor is out of range");
    const bool linear = strcmp(s.type, "linear") == 0, llama3 = strcmp(s.type, "llama3") == 0,
               phi3 = strcmp(m->model_type, "phi3") == 0,
               yarn = strcmp(s.type, "yarn") == 0 && !phi3,
               longrope = strcmp(s.type, "longrope") == 0 ||
                          (phi3 && (strcmp(s.type, "su") == 0 || strcmp(s.type, "yarn") == 0));
    if (!linear && !llama3 && !yarn && !longrope && strcmp(s.type, "default") != 0)
        return err_set(why, ERR_UNSUPPORTED,
                       "config.json: rope type \"%.60s\" is not supported (default, linear, "
                       "llama3, yarn, longrope)",
                       s.type);
    if ((linear || llama3 || yarn) && !json_is_number(json_object_get(s.values, "factor")))
        return err_set(why, ERR_FORMAT, "config.json: rope scaling %s without factor", s.type);
    const uint32_t half = (uint32_t)((double)m->c.head_dim * s.partial) / 2;
    if (half == 0)
        return err_set(why, ERR_RANGE, "config.json: head_dim %u leaves nothing to rotate",
                       m->c.head_dim);
    m->c.rope_half = half;
    free(r->inv_freq);
    r->inv_freq = malloc(half * sizeof *r->inv_freq);
    r->scale = 1.0f;
    if (!r->inv_freq)
        return err_set(why, ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; i < half; i++)
        r->inv_freq[i] =
            (float)(1.0 / pow(s.theta, (double)i / (double)half) / (linear ? s.factor : 1.0));
    if (llama3)
        scale_llama3(r->inv_freq, half, &s);
    if (yarn)
        scale_yarn(m, r, half, &s);
    return longrope ? scale_longrope(m, root, r, half, &s, why) : ERR_OK;
}

enum err zo_rope_grow(struct zo_model *m, size_t n)
{
    const size_t half = m->c.rope_half;
    for (size_t which = 0; which < 2; which++) {
        struct rope *r = &m->c.rope[which];
        if (!r->inv_freq || r->n >= n)
            continue;
        float *table = realloc(r->table, n * 2 * half * sizeof *table);
        if (!table)
            return ERR_NOMEM;
        r->table = table;
        for (size_t at = r->n; at < n; at++)
            for (size_t i = 0; i < half; i++) {
                const float angle = (float)at * r->inv_freq[i];
                table[(2 * at) * half + i] = (float)cos((double)angle) * r->scale;
                table[(2 * at + 1) * half + i] = (float)sin((double)angle) * r->scale;
            }
        r->n = n;
    }
    return ERR_OK;
}
