/* zo/model/lora.c -- what a run trains (all, some tensors, adapters), and adapters in the pass.
 *
 *     y += alpha / r * B (A x)      A (r, in), B (out, r)      Hu et al. 2021, arXiv 2106.09685
 *
 * Adapters are ordinary tensors of the state under the names PEFT gives them; the matrices beside
 * them are frozen and read from the mapped checkpoint.  A starts uniform in +-1 / sqrt(in), as
 * PEFT's default does, from integers: word i of stream (run key, domain 7, tensor, seq 0), as a
 * signed 32-bit number w, times floor(2^30 / sqrt(in)), shifted right by 61 - e.  B starts at 0. */
#include "zo/model/batch.h"

#include <onebyte/zo/philox.h>

#include <cblas.h>
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LORA_PREFIX "base_model.model."
#define LORA_A ".lora_A.weight"
#define LORA_B ".lora_B.weight"

enum { RANK_MAX = 1024 };

static const enum slot lora_slots[] = {
    SLOT_Q_W, SLOT_V_W, SLOT_QKV_W, /* the default: these three */
    SLOT_K_W, SLOT_O_W, SLOT_GATE_W, SLOT_UP_W, SLOT_GATE_UP_W, SLOT_DOWN_W};
enum { DEFAULT_SLOTS = 3 };

/* ---- the text ---- */

static bool number_after(const char **at, const char *key, double *out)
{
    char *end = NULL;
    const size_t n = strlen(key);
    if (strncmp(*at, key, n) != 0)
        return false;
    *out = strtod(*at + n, &end);
    if (end == *at + n || (*end != ',' && *end != '\0'))
        return false;
    *at = end + (*end == ',');
    return true;
}

enum err zo_lora_parse(struct zo_lora *l, const char *trainable, struct err_why *why)
{
    const char *at = trainable ? trainable : "all";
    double r = 0, alpha = 0;
    memset(l, 0, sizeof *l);
    if (strlen(at) >= ZO_TRAINABLE_BYTES)
        return err_set(why, ERR_RANGE, "trainable: longer than %d bytes", ZO_TRAINABLE_BYTES - 1);
    if (strncmp(at, "lora:", 5) != 0)
        return ERR_OK;
    at += 5;
    const bool good =
        number_after(&at, "r=", &r) && number_after(&at, "alpha=", &alpha) &&
        (*at == '\0' || (strncmp(at, "targets=", 8) == 0 && at[8] != '\0' && !strchr(at, ',')));
    if (!good || !(r >= 1 && r <= RANK_MAX) || r != floor(r) || !(alpha > 0 && alpha <= 1e6))
        return err_set(why, ERR_RANGE,
                       "trainable: '%.80s' is not lora:r=R,alpha=A[,targets=NAME+NAME..] with R "
                       "from 1 to %d and A above 0",
                       trainable, RANK_MAX);
    l->r = (uint32_t)r;
    l->alpha = alpha;
    (void)snprintf(l->targets, sizeof l->targets, "%s", *at ? at + 8 : "");
    return ERR_OK;
}

/* ---- names ---- */

bool zo_tensor_is_lora_a(const struct zo_tensor *t)
{
    const size_t n = strlen(t->name), tail = strlen(LORA_A);
    return n > tail && strncmp(t->name, LORA_PREFIX, strlen(LORA_PREFIX)) == 0 &&
           strcmp(t->name + n - tail, LORA_A) == 0;
}

static bool is_lora_b(const struct zo_tensor *t)
{
    const size_t n = strlen(t->name), tail = strlen(LORA_B);
    return n > tail && strncmp(t->name, LORA_PREFIX, strlen(LORA_PREFIX)) == 0 &&
           strcmp(t->name + n - tail, LORA_B) == 0;
}

/* The module of p as `transformers` names it in a whole model: a checkpoint of the body alone lacks
 * the beginning. */
static void module_name(char *out, size_t out_bytes, const struct zo_model *m,
                        const struct param *p)
{
    const char *whole = m->arch->prefixes[0], *name = p->t->name;
    const size_t n = strlen(m->prefix), n_whole = strlen(whole), tail = strlen(".weight");
    const bool body = n <= n_whole && strcmp(whole + n_whole - n, m->prefix) == 0;
    size_t length = strlen(name);
    if (length > tail && strcmp(name + length - tail, ".weight") == 0)
        length -= tail;
    (void)snprintf(out, out_bytes, "%.*s%.*s", body ? (int)(n_whole - n) : 0, whole, (int)length,
                   name);
}

static enum err lora_name(char out[LIMIT_NAME_BYTES + 1], const char *module, const char *tail)
{
    const int n = snprintf(out, LIMIT_NAME_BYTES + 1, LORA_PREFIX "%s%s", module, tail);
    return n > 0 && n <= LIMIT_NAME_BYTES ? ERR_OK : ERR_RANGE;
}

/* The module is, or ends in ".", target. */
static bool target_fits(const char *module, const char *target, size_t n)
{
    const size_t length = strlen(module);
    return length >= n && strncmp(module + length - n, target, n) == 0 &&
           (length == n || module[length - n - 1] == '.');
}

static bool targeted(const char *module, size_t slot, const char *targets)
{
    if (targets[0] == '\0')
        return slot < DEFAULT_SLOTS;
    if (strcmp(targets, "all") == 0)
        return true;
    for (const char *at = targets; *at;) {
        const size_t n = strcspn(at, "+");
        if (n > 0 && target_fits(module, at, n))
            return true;
        at += n + (at[n] == '+');
    }
    return false;
}

static void io_sizes(const struct zo_model *m, const struct param *p, uint64_t *n_in,
                     uint64_t *n_out)
{
    *n_in = m->arch->transposed ? p->rows : p->cols;
    *n_out = m->arch->transposed ? p->cols : p->rows;
}

/* ---- the list ---- */

static int tensor_order(const void *a, const void *b)
{
    return strcmp(((const struct zo_tensor *)a)->name, ((const struct zo_tensor *)b)->name);
}

/* Every target names some module: a misspelt one would silently train less. */
static enum err targets_used(const struct zo_model *m, const char *targets, struct err_why *why)
{
    char module[2 * LIMIT_NAME_BYTES];
    for (const char *at = strcmp(targets, "all") == 0 ? "" : targets; *at;) {
        const size_t n = strcspn(at, "+");
        bool found = false;
        for (uint32_t l = 0; l < m->c.layers; l++)
            for (size_t i = 0; i < ARRAY_LEN(lora_slots) && !found; i++) {
                const struct param *p = layer_param(m, l, lora_slots[i]);
                if (!param_there(p))
                    continue;
                module_name(module, sizeof module, m, p);
                found = n > 0 && target_fits(module, at, n);
            }
        if (!found)
            return err_set(why, ERR_RANGE,
                           "trainable: no matrix of the model's layers is called '%.*s'",
                           (int)(n < 80 ? n : 80), at);
        at += n + (at[n] == '+');
    }
    return ERR_OK;
}

static enum err list_adapters(const struct zo_model *m, const struct zo_lora *lora,
                              struct zo_tensor **tensors, uint32_t *n, struct err_why *why)
{
    char module[2 * LIMIT_NAME_BYTES];
    TRY(targets_used(m, lora->targets, why));
    struct zo_tensor *made =
        calloc(2 * (size_t)m->c.layers * ARRAY_LEN(lora_slots) + 1, sizeof *made);
    uint32_t count = 0;
    enum err e = made ? ERR_OK : err_set(why, ERR_NOMEM, "out of memory");
    for (uint32_t l = 0; l < m->c.layers; l++)
        for (size_t i = 0; i < ARRAY_LEN(lora_slots) && e == ERR_OK; i++) {
            const struct param *p = layer_param(m, l, lora_slots[i]);
            uint64_t n_in, n_out;
            if (!param_there(p))
                continue;
            module_name(module, sizeof module, m, p);
            if (!targeted(module, i, lora->targets))
                continue;
            io_sizes(m, p, &n_in, &n_out);
            struct zo_tensor *a = &made[count++], *b = &made[count++];
            *a = (struct zo_tensor){.n_dims = 2, .dims = {lora->r, n_in}};
            *b = (struct zo_tensor){.n_dims = 2, .dims = {n_out, lora->r}};
            if (lora_name(a->name, module, LORA_A) != ERR_OK ||
                lora_name(b->name, module, LORA_B) != ERR_OK)
                e = err_set(why, ERR_RANGE, "trainable: the adapter's name of %.80s is too long",
                            module);
        }
    if (e != ERR_OK) {
        free(made);
        return e;
    }
    qsort(made, count, sizeof *made, tensor_order);
    *tensors = made;
    *n = count;
    return ERR_OK;
}

static enum err list_matching(const struct zo_model *m, const char *patterns,
                              struct zo_tensor **tensors, uint32_t *n, struct err_why *why)
{
    struct zo_tensor *all = NULL;
    char pattern[ZO_TRAINABLE_BYTES];
    uint32_t n_all = 0, count = 0;
    enum err e = zo_model_trainable(m, &all, &n_all);
    bool *keep = e == ERR_OK ? calloc((size_t)n_all + 1, sizeof *keep) : NULL;
    if (!keep) {
        free(all);
        return err_set(why, ERR_NOMEM, "out of memory");
    }
    for (const char *at = patterns; e == ERR_OK;) {
        const size_t length = strcspn(at, ",");
        bool found = false;
        (void)snprintf(pattern, sizeof pattern, "%.*s", (int)length, at);
        for (uint32_t i = 0; i < n_all; i++)
            if (fnmatch(pattern, all[i].name, 0) == 0)
                found = keep[i] = true;
        if (!found)
            e = err_set(why, ERR_RANGE, "trainable: no tensor of the model is called '%.80s'",
                        pattern);
        if (at[length] == '\0')
            break;
        at += length + 1;
    }
    for (uint32_t i = 0; i < n_all; i++)
        if (keep[i])
            all[count++] = all[i];
    free(keep);
    if (e != ERR_OK) {
        free(all);
        return e;
    }
    *tensors = all;
    *n = count;
    return ERR_OK;
}

enum err zo_model_trainable_of(const struct zo_model *m, const char *trainable,
                               struct zo_tensor **tensors, uint32_t *n, struct err_why *why)
{
    struct zo_lora lora;
    TRY(zo_lora_parse(&lora, trainable, why));
    if (lora.r > 0)
        return list_adapters(m, &lora, tensors, n, why);
    if (trainable && trainable[0] != '\0' && strcmp(trainable, "all") != 0)
        return list_matching(m, trainable, tensors, n, why);
    const enum err e = zo_model_trainable(m, tensors, n);
    return e == ERR_OK ? e : err_set(why, e, "out of memory");
}

bool zo_model_is_causal(const struct zo_model *m)
{
    return m->c.task == TASK_CAUSAL;
}

bool zo_model_transposed(const struct zo_model *m)
{
    return m->arch->transposed;
}

/* ---- m0 ---- */

static uint64_t root(uint64_t x) /* floor of the square root */
{
    uint64_t r = 0;
    for (uint64_t bit = (uint64_t)1 << 31; bit > 0; bit >>= 1)
        if ((r | bit) * (r | bit) <= x)
            r |= bit;
    return r;
}

bool zo_lora_load(struct zo_state *s, uint32_t number)
{
    const struct zo_tensor *t = &s->rules->tensors[number];
    if (s->rules->lora_scale == 0.0f || t->n_dims != 2)
        return false;
    if (is_lora_b(t)) /* zeros since zo_state_new */
        return true;
    if (!zo_tensor_is_lora_a(t))
        return false;
    const struct zo_stream stream = zo_stream(s->digest_key, ZO_DOMAIN_LORA_A, number, 0);
    const int64_t bound = (int64_t)root(((uint64_t)1 << 60) / t->dims[1]);
    const uint64_t n = zo_tensor_elements(t);
    uint32_t words[4] = {0};
    for (uint64_t i = 0; i < n; i++) {
        if (i % 4 == 0)
            zo_stream_block(words, &stream, (uint32_t)(i / 4));
        const int64_t value = ((int64_t)(int32_t)words[i % 4] * bound) >> (61 - t->e);
        if (t->bits == 32)
            ((int32_t *)s->m[number])[i] = (int32_t)value;
        else
            ((int64_t *)s->m[number])[i] = value;
    }
    return true;
}

/* ---- binding ---- */

int64_t zo_rules_find(const struct zo_rules *r, const char *name)
{
    uint32_t low = 0, high = r->n_tensors; /* the names are in byte order */
    while (low < high) {
        const uint32_t mid = low + (high - low) / 2;
        const int order = strcmp(name, r->tensors[mid].name);
        if (order == 0)
            return mid;
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return -1;
}

static enum err bind_adapter(struct zo_model *m, struct param *p, struct err_why *why)
{
    char module[2 * LIMIT_NAME_BYTES], name[LIMIT_NAME_BYTES + 1];
    const struct zo_rules *r = m->state->rules;
    uint64_t n_in, n_out;
    module_name(module, sizeof module, m, p);
    io_sizes(m, p, &n_in, &n_out);
    const int64_t a = lora_name(name, module, LORA_A) == ERR_OK ? zo_rules_find(r, name) : -1,
                  b = lora_name(name, module, LORA_B) == ERR_OK ? zo_rules_find(r, name) : -1;
    if (a < 0 && b < 0)
        return ERR_OK;
    const struct zo_tensor *ta = a >= 0 ? &r->tensors[a] : NULL,
                           *tb = b >= 0 ? &r->tensors[b] : NULL;
    if (!ta || !tb || ta->n_dims != 2 || tb->n_dims != 2 || ta->dims[1] != n_in ||
        tb->dims[0] != n_out || ta->dims[0] != tb->dims[1] || ta->dims[0] > RANK_MAX)
        return err_set(why, ERR_RANGE, "the adapter of %.120s does not fit the model's matrix",
                       module);
    p->adapted = true;
    p->lora_a = (uint32_t)a;
    p->lora_b = (uint32_t)b;
    m->lora_r = ta->dims[0] > m->lora_r ? (uint32_t)ta->dims[0] : m->lora_r;
    return ERR_OK;
}

enum err zo_lora_bind(struct zo_model *m, struct err_why *why)
{
    m->lora_r = 0;
    for (uint32_t l = 0; l < m->c.layers; l++)
        for (size_t i = 0; i < ARRAY_LEN(lora_slots); i++) {
            struct param *p = &m->layers[(size_t)l * SLOT_LAYER_END + lora_slots[i]];
            p->adapted = false;
            if (m->state && m->state->rules->lora_scale != 0.0f && param_there(p))
                TRY(bind_adapter(m, p, why));
        }
    return ERR_OK;
}

/* ---- the pass ---- */

size_t zo_lora_scratch(const struct batch *b, size_t n_in, size_t n_out)
{
    return (size_t)b->m->lora_r * (n_in + n_out + CHUNK_ROWS);
}

struct lora_job {
    struct batch *b;
    const struct rows *rows;
    const struct lin *lins[MAX_LINS];
};

/* out <- the whole matrix t of the state as pass sees it. */
static void perturbed(const struct batch *b, uint32_t t, size_t pass, float *out)
{
    const struct zo_pass *z = &b->passes[pass];
    const struct zo_state *s = b->m->state;
    const uint64_t rows = zo_tensor_rows(&s->rules->tensors[t]);
    zo_state_read_f32(s, t, 0, out, (size_t)zo_tensor_elements(&s->rules->tensors[t]));
    if (z->eps != 0.0f)
        zo_direction_rows_f32(out, s->rules, t, z->key, z->seq, 0, (size_t)rows, z->eps, true,
                              b->k);
}

static void lora_item(void *ctx, size_t i, size_t worker)
{
    const struct lora_job *j = ctx;
    struct batch *b = j->b;
    const struct lin *l = j->lins[i / j->rows->n_chunks];
    const struct chunk *k = &j->rows->chunks[i % j->rows->n_chunks];
    const struct zo_rules *rules = b->m->state->rules;
    const size_t r = (size_t)rules->tensors[l->w->lora_a].dims[0];
    float *down = b->scratch + worker * b->scratch_each, *up = down + r * l->n_in,
          *mid = up + r * l->n_out;
    perturbed(b, l->w->lora_a, k->pass, down);
    perturbed(b, l->w->lora_b, k->pass, up);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)k->n, (blasint)r,
                (blasint)l->n_in, 1.0f, l->x + k->row0 * l->ldx, (blasint)l->ldx, down,
                (blasint)l->n_in, 0.0f, mid, (blasint)r);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)k->n, (blasint)l->n_out,
                (blasint)r, rules->lora_scale, mid, (blasint)r, up, (blasint)r, 1.0f,
                l->y + k->row0 * l->ldy, (blasint)l->ldy);
}

void zo_lora_run(struct batch *b, const struct rows *rows, const struct lin *lins, size_t n)
{
    struct lora_job j = {.b = b, .rows = rows};
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (lins[i].w->adapted)
            j.lins[count++] = &lins[i];
    if (count > 0)
        zo_pool_run(b->pool, count * rows->n_chunks, lora_item, &j);
}

/* ---- merging ---- */

/* out [n] += scale B A of stored row `row` from column col0 on. */
static void merge_row(const struct zo_model *m, const struct param *p, uint64_t row, uint64_t col0,
                      float *out, size_t n)
{
    const struct zo_state *s = m->state;
    const struct zo_tensor *a = &s->rules->tensors[p->lora_a];
    const uint64_t r = a->dims[0], n_in = a->dims[1];
    float buf[RANK_MAX], fixed[RANK_MAX];
    if (m->arch->transposed) { /* the row is an input, its entries outputs */
        for (uint64_t q = 0; q < r; q++)
            zo_state_read_f32(s, p->lora_a, q * n_in + row, &fixed[q], 1);
        for (size_t j = 0; j < n; j++) {
            float sum = 0.0f;
            zo_state_read_f32(s, p->lora_b, (col0 + j) * r, buf, (size_t)r);
            for (uint64_t q = 0; q < r; q++)
                sum += buf[q] * fixed[q];
            out[j] += s->rules->lora_scale * sum;
        }
        return;
    }
    zo_state_read_f32(s, p->lora_b, row * r, fixed, (size_t)r);
    for (uint64_t q = 0; q < r; q++)
        for (size_t j = 0; j < n; j += RANK_MAX) {
            const size_t part = n - j < RANK_MAX ? n - j : RANK_MAX;
            zo_state_read_f32(s, p->lora_a, q * n_in + col0 + j, buf, part);
            for (size_t i = 0; i < part; i++)
                out[j + i] += s->rules->lora_scale * fixed[q] * buf[i];
        }
}

void zo_model_add_adapter(const struct zo_model *m, const struct zo_ckpt_tensor *t, uint64_t first,
                          float *out, size_t n)
{
    const size_t n_params = (size_t)m->c.layers * SLOT_LAYER_END;
    const struct param *p = NULL;
    for (size_t i = 0; i < n_params && m->lora_r > 0 && !p; i++)
        if (m->layers[i].t == t && m->layers[i].adapted)
            p = &m->layers[i];
    for (size_t at = 0; p && at < n;) {
        const uint64_t row = (first + at) / p->cols, col = (first + at) % p->cols;
        const size_t left = (size_t)(p->cols - col), part = n - at < left ? n - at : left;
        merge_row(m, p, row, col, out + at, part);
        at += part;
    }
}
