/* zo/model/weights.c -- finds the tensors an architecture names, checks their shapes, and reads
 * them as floats. */
#include "zo/model/internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct shape {
    uint64_t rows, cols;
    bool at_least; /* more rows may be stored than are used */
};

static struct shape slot_shape(const struct config *c, enum slot slot)
{
    const uint64_t d = c->d, q = (uint64_t)c->heads * c->head_dim,
                   kv = (uint64_t)c->kv_heads * c->head_dim, ffn = c->ffn;
    switch (slot) {
    case SLOT_Q_W:
        return (struct shape){q, d, false};
    case SLOT_Q_B:
        return (struct shape){q, 1, false};
    case SLOT_K_W:
    case SLOT_V_W:
        return (struct shape){kv, d, false};
    case SLOT_K_B:
    case SLOT_V_B:
        return (struct shape){kv, 1, false};
    case SLOT_QKV_W:
        return (struct shape){q + 2 * kv, d, false};
    case SLOT_QKV_B:
        return (struct shape){q + 2 * kv, 1, false};
    case SLOT_Q_NORM:
    case SLOT_K_NORM:
        return (struct shape){c->head_dim, 1, false};
    case SLOT_O_W:
        return (struct shape){d, q, false};
    case SLOT_GATE_W:
    case SLOT_UP_W:
        return (struct shape){ffn, d, false};
    case SLOT_UP_B:
        return (struct shape){ffn, 1, false};
    case SLOT_GATE_UP_W:
        return (struct shape){2 * ffn, d, false};
    case SLOT_DOWN_W:
        return (struct shape){d, ffn, false};
    case SLOT_EMBED:
        return (struct shape){c->vocab, c->d_embed, true};
    case SLOT_POSITIONS:
        return (struct shape){(uint64_t)c->context + c->position_offset, d, true};
    case SLOT_TYPES:
        return (struct shape){c->types, d, false};
    case SLOT_PROJECT_IN:
        return (struct shape){d, c->d_embed, false};
    case SLOT_PROJECT_OUT:
        return (struct shape){c->d_embed, d, false};
    case SLOT_HEAD_DENSE_W:
        return (struct shape){d, d, false};
    case SLOT_HEAD_W:
        return c->task == TASK_CLASSIFY ? (struct shape){c->n_labels, d, false}
                                        : (struct shape){c->vocab, c->d_embed, true};
    case SLOT_HEAD_B:
        return c->task == TASK_CLASSIFY ? (struct shape){c->n_labels, 1, false}
                                        : (struct shape){c->vocab, 1, true};
    default:
        return (struct shape){d, 1, false}; /* norms and the other biases */
    }
}

static bool needed(const struct config *c, enum need need)
{
    switch (need) {
    case NEED_ALWAYS:
        return true;
    case NEED_ATTENTION_BIAS:
        return c->attention_bias;
    case NEED_MLP_BIAS:
        return c->mlp_bias;
    case NEED_UNTIED:
        return !c->tied && c->task != TASK_CLASSIFY;
    case NEED_QK_NORM:
        return c->qk_norm;
    case NEED_FINAL_NORM:
        return c->final_norm;
    case NEED_PROJECT:
        return c->d_embed != c->d;
    case NEED_MASKED:
        return c->task == TASK_MASKED;
    case NEED_CLASSIFY:
        return c->task == TASK_CLASSIFY;
    case NEED_POSITIONS:
        return c->positions;
    case NEED_IF_THERE:
        return true;
    }
    return false;
}

static bool slot_is_linear(enum slot s)
{
    return s == SLOT_QKV_W || s == SLOT_O_W || s == SLOT_UP_W || s == SLOT_DOWN_W;
}

/* The table's names hold at most one %u, expanded here by hand: a format string is never data. */
static void name_make(char *out, size_t out_bytes, const char *prefix, const char *pattern,
                      uint32_t layer)
{
    const bool absolute = pattern[0] == '=';
    const char *p = pattern + absolute, *mark = strstr(p, "%u");
    if (mark)
        (void)snprintf(out, out_bytes, "%s%.*s%u%s", absolute ? "" : prefix, (int)(mark - p), p,
                       layer, mark + 2);
    else
        (void)snprintf(out, out_bytes, "%s%s", absolute ? "" : prefix, p);
}

/* name, or BERT's first spelling of a norm's two vectors, which its checkpoints on the Hub still
 * have. */
static const struct zo_ckpt_tensor *find_spelled(const struct zo_ckpt *c, const char *name)
{
    const struct zo_ckpt_tensor *t = zo_ckpt_find(c, name);
    static const char *const spellings[][2] = {{".LayerNorm.weight", ".LayerNorm.gamma"},
                                               {".LayerNorm.bias", ".LayerNorm.beta"}};
    for (size_t i = 0; i < ARRAY_LEN(spellings) && !t; i++) {
        char old[2 * LIMIT_NAME_BYTES];
        const size_t n = strlen(name), tail = strlen(spellings[i][0]);
        if (n > tail && strcmp(name + n - tail, spellings[i][0]) == 0) {
            (void)snprintf(old, sizeof old, "%.*s%s", (int)(n - tail), name, spellings[i][1]);
            t = zo_ckpt_find(c, old);
        }
    }
    return t;
}

static enum err bind_one(struct zo_model *m, const struct arch_tensor *a, const char *prefix,
                         uint32_t layer, struct param *p, struct err_why *why)
{
    char name[LIMIT_NAME_BYTES + 1];
    name_make(name, sizeof name, prefix, a->name, layer);
    const struct zo_ckpt_tensor *t = find_spelled(&m->ckpt, name);
    if (!t && a->need == NEED_IF_THERE)
        return ERR_OK;
    if (!t && zo_ckpt_not_float(&m->ckpt, name))
        return err_set(why, ERR_UNSUPPORTED,
                       "checkpoint: tensor %s holds integers or 8-bit floats: take a checkpoint in F32, F16 or BF16, not "
                       "a quantized one",
                       name);
    if (!t)
        return err_set(why, ERR_NOTFOUND,
                       "checkpoint: tensor %s is missing: is config.json of another model?", name);
    struct shape want = slot_shape(&m->c, a->slot);
    const bool matrix = want.cols != 1 || t->n_dims == 2;
    if (m->arch->transposed && slot_is_linear(a->slot))
        want = (struct shape){want.cols, want.rows, false};
    const uint64_t rows = t->n_dims >= 1 ? t->dims[0] : 1, cols = t->n_dims == 2 ? t->dims[1] : 1;
    if (t->n_dims != (matrix ? 2u : 1u) || cols != want.cols ||
        (want.at_least ? rows < want.rows : rows != want.rows)) {
        if (a->slot == SLOT_EMBED && cols == want.cols)
            return err_set(why, ERR_FORMAT,
                           "config.json: vocab_size %" PRIu64
                           " is larger than the embedding %s (%" PRIu64 " rows)",
                           want.rows, name, rows);
        return err_set(why, ERR_FORMAT,
                       "checkpoint: tensor %s is %" PRIu64 " x %" PRIu64
                       ", config.json says %" PRIu64 " x %" PRIu64,
                       name, rows, cols, want.rows, want.cols);
    }
    p->t = t;
    p->rows = rows;
    p->cols = cols;
    p->state = -1;
    m->used[t - m->ckpt.tensors] = true;
    return ERR_OK;
}

enum err zo_weights_find(struct zo_model *m, struct err_why *why)
{
    const char *prefix = NULL;
    char name[LIMIT_NAME_BYTES + 1];
    const struct arch_tensor *a;
    for (a = m->arch->tensors; a->slot != SLOT_EMBED; a++)
        ENSURE(a->name != NULL);
    for (size_t i = 0; m->arch->prefixes[i] && !prefix; i++) {
        name_make(name, sizeof name, m->arch->prefixes[i], a->name, 0);
        if (zo_ckpt_find(&m->ckpt, name))
            prefix = m->arch->prefixes[i];
    }
    if (!prefix)
        prefix = m->arch->prefixes[0]; /* the embedding's own message follows */
    m->prefix = prefix;
    m->layers = calloc((size_t)m->c.layers * SLOT_LAYER_END, sizeof *m->layers);
    m->used = calloc(m->ckpt.n + 1, sizeof *m->used);
    if (!m->layers || !m->used)
        return err_set(why, ERR_NOMEM, "out of memory");
    for (a = m->arch->tensors; a->name; a++) {
        const uint32_t n = a->slot < SLOT_LAYER_END ? m->c.layers : 1;
        for (uint32_t l = 0; l < n && needed(&m->c, a->need); l++)
            TRY(bind_one(m, a, prefix, l,
                         a->slot < SLOT_LAYER_END ? &m->layers[(size_t)l * SLOT_LAYER_END + a->slot]
                                                  : &m->global[a->slot],
                         why));
    }
    if (!m->global[SLOT_HEAD_W].t) /* tied: one tensor, one direction, in both uses */
        m->global[SLOT_HEAD_W] = m->global[SLOT_EMBED];
    return ERR_OK;
}

void zo_weights_read(const struct zo_model *m, const struct param *p, uint64_t first, float *out,
                     size_t n, const struct zo_ops *ops)
{
    if (p->resident) {
        memcpy(out, p->resident + first, n * sizeof *out);
        return;
    }
    if (p->state < 0) {
        zo_ckpt_read_f32(p->t, first, out, n);
        return;
    }
    const struct zo_tensor *t = &m->state->rules->tensors[p->state];
    if (t->bits == 32)
        ops->widen(out, (const int32_t *)m->state->m[p->state] + first, ldexpf(1.0f, -(int)t->e),
                   n);
    else
        zo_state_read_f32(m->state, (uint32_t)p->state, first, out, n);
}

bool zo_weights_matrix(const struct zo_model *m, const struct param *p, struct zo_matrix *w)
{
    w->at = NULL;
    w->scale = 1.0f;
    w->ints = false;
    if (p->resident) {
        w->at = p->resident;
    } else if (p->state >= 0 && m->state->rules->tensors[p->state].bits == 32) {
        w->at = m->state->m[p->state];
        w->scale = ldexpf(1.0f, -(int)m->state->rules->tensors[p->state].e);
        w->ints = true;
    } else if (p->state < 0 && p->t->dtype == ZO_F32 &&
               (uintptr_t)p->t->data % sizeof(float) == 0) {
        w->at = p->t->data;
    }
    return w->at != NULL;
}
