/* Parsing: SPEC 1.  Every refusal is one line that names the field. */
#include "peer/manifest.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MANIFEST_TAG "onebyte/1 manifest"
#define STEPS_MAX 4294967295u     /* a header's step is a u32 */
#define ELEMENTS_MAX (1ull << 40) /* of one tensor: keeps every product of sizes in 64 bits */

static const char *const known_fields[] = {
    "arith",     "name",      "direction",   "sides",           "eps",         "n0",
    "steps",     "K",         "share_65536", "burst",           "unit",        "records_max",
    "knots",     "owner",     "pace",        "round_timeout_s", "segment_max", "seal_s",
    "admission", "allow",     "public",          "seed",        "length_max",
    "lr",        "schedule",  "warmup",      "tensors",         "model",       "data",
    "eval_data", "trainable", "audit",
};

/* Where a field is looked for: `where` is the path that an error shows before the field's name. */
struct reader {
    const json_t *o;
    const char *where;
    struct err_why *why;
};

static json_t *get(const struct reader *r, const char *key)
{
    return json_object_get(r->o, key);
}

static enum err missing(const struct reader *r, const char *key)
{
    return err_set(r->why, ERR_FORMAT, "manifest: field '%s%s' is missing", r->where, key);
}

/* A whole number in [min, max].  required: absent is an error, else *out keeps its value. */
static enum err get_u64(const struct reader *r, const char *key, uint64_t min, uint64_t max,
                        bool required, uint64_t *out)
{
    const json_t *v = get(r, key);
    if (!v)
        return required ? missing(r, key) : ERR_OK;
    if (json_is_real(v))
        return err_set(r->why, ERR_FORMAT,
                       "manifest: field '%s%s' must be a whole number, not a float", r->where, key);
    if (!json_is_integer(v))
        return err_set(r->why, ERR_FORMAT, "manifest: field '%s%s' must be a whole number",
                       r->where, key);
    const json_int_t x = json_integer_value(v);
    if (x < 0 || (uint64_t)x < min || (uint64_t)x > max)
        return err_set(r->why, ERR_FORMAT,
                       "manifest: field '%s%s' is %lld: it must be from %llu to %llu", r->where,
                       key, (long long)x, (unsigned long long)min, (unsigned long long)max);
    *out = (uint64_t)x;
    return ERR_OK;
}

static enum err get_f64(const struct reader *r, const char *key, double min, double max,
                        double *out)
{
    const json_t *v = get(r, key);
    if (!v)
        return ERR_OK;
    if (!json_is_number(v))
        return err_set(r->why, ERR_FORMAT, "manifest: field '%s%s' must be a number", r->where,
                       key);
    const double x = json_number_value(v);
    if (!(x >= min && x <= max))
        return err_set(r->why, ERR_FORMAT, "manifest: field '%s%s' is %g: it must be from %g to %g",
                       r->where, key, x, min, max);
    *out = x;
    return ERR_OK;
}

static enum err get_bool(const struct reader *r, const char *key, bool *out)
{
    const json_t *v = get(r, key);
    if (!v)
        return ERR_OK;
    if (!json_is_boolean(v))
        return err_set(r->why, ERR_FORMAT, "manifest: field '%s%s' must be true or false", r->where,
                       key);
    *out = json_is_true(v);
    return ERR_OK;
}

static enum err get_text(const struct reader *r, const char *key, bool required, size_t bytes_max,
                         const char **out)
{
    const json_t *v = get(r, key);
    if (!v)
        return required ? missing(r, key) : ERR_OK;
    if (!json_is_string(v) || json_string_length(v) > bytes_max)
        return err_set(r->why, ERR_FORMAT,
                       "manifest: field '%s%s' must be a text of at most %zu bytes", r->where, key,
                       bytes_max);
    const char *text = json_string_value(v);
    for (const char *c = text; *c; c++) /* texts reach terminals: the owner may be anybody */
        if ((unsigned char)*c < ' ' || *c == 127)
            return err_set(r->why, ERR_FORMAT, "manifest: field '%s%s' holds a control character", r->where, key);
    *out = text;
    return ERR_OK;
}

/* *out <- index of the field's text among names [n]. */
static enum err get_word(const struct reader *r, const char *key, bool required,
                         const char *const *names, size_t n, unsigned *out)
{
    const char *text = NULL;
    TRY(get_text(r, key, required, 64, &text));
    if (!text)
        return ERR_OK;
    char list[160] = "";
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            return ERR_OK;
        }
        (void)snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "",
                       names[i]);
    }
    return err_set(r->why, ERR_FORMAT, "manifest: field '%s%s' is '%s': it must be one of %s",
                   r->where, key, text, list);
}

static enum err get_hex32(const struct reader *r, const char *key, uint8_t out[32])
{
    const char *text = NULL;
    TRY(get_text(r, key, true, 128, &text));
    if (net_unhex(out, 32, text) != ERR_OK)
        return err_set(r->why, ERR_FORMAT, "manifest: field '%s%s' must be 64 hex digits", r->where,
                       key);
    return ERR_OK;
}

static enum err get_array(const struct reader *r, const char *key, bool required, size_t min,
                          size_t max, const json_t **out)
{
    const json_t *v = get(r, key);
    if (!v && !required)
        return ERR_OK;
    if (!v)
        return missing(r, key);
    if (!json_is_array(v) || json_array_size(v) < min || json_array_size(v) > max)
        return err_set(r->why, ERR_FORMAT,
                       "manifest: field '%s%s' must be a list of %zu to %zu entries", r->where, key,
                       min, max);
    *out = v;
    return ERR_OK;
}

static enum err parse_knots(struct zo_rules *rules, const struct reader *r)
{
    const json_t *list = NULL;
    TRY(get_array(r, "knots", true, 1, LIMIT_KNOTS, &list));
    rules->n_knots = (uint32_t)json_array_size(list);
    for (uint32_t i = 0; i < rules->n_knots; i++) {
        const json_t *pair = json_array_get(list, i), *s = json_array_get(pair, 0),
                     *y = json_array_get(pair, 1);
        if (json_array_size(pair) != 2 || !json_is_integer(s) || !json_is_integer(y))
            return err_set(r->why, ERR_FORMAT,
                           "manifest: field 'knots[%u]' must be two whole numbers, step and y", i);
        const json_int_t sv = json_integer_value(s), yv = json_integer_value(y);
        if (sv < 0 || (i == 0 ? sv != 0 : (uint64_t)sv <= rules->knots[i - 1].step))
            return err_set(
                r->why, ERR_FORMAT,
                "manifest: field 'knots[%u]' has step %lld: steps start at 0 and increase", i,
                (long long)sv);
        if (yv < 0 || yv >= (json_int_t)1 << 62)
            return err_set(r->why, ERR_FORMAT,
                           "manifest: field 'knots[%u]' has y %lld: it must be from 0 to 2^62 - 1",
                           i, (long long)yv);
        rules->knots[i] = (struct zo_knot){(uint64_t)sv, (uint64_t)yv};
    }
    return ERR_OK;
}

static enum err parse_shape(struct zo_tensor *t, const struct reader *r)
{
    const json_t *shape = NULL;
    TRY(get_array(r, "shape", true, 0, LIMIT_TENSOR_DIMS, &shape));
    uint64_t elements = 1;
    t->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < t->n_dims; i++) {
        const json_t *d = json_array_get(shape, i);
        const json_int_t x = json_is_integer(d) ? json_integer_value(d) : 0;
        if (x < 1 || (uint64_t)x > ELEMENTS_MAX || elements > ELEMENTS_MAX / (uint64_t)x)
            return err_set(
                r->why, ERR_FORMAT,
                "manifest: field '%sshape' must be whole numbers from 1, product at most 2^40",
                r->where);
        t->dims[i] = (uint64_t)x;
        elements *= (uint64_t)x;
    }
    return ERR_OK;
}

static int tensor_order(const void *a, const void *b)
{
    return strcmp(((const struct zo_tensor *)a)->name, ((const struct zo_tensor *)b)->name);
}

static enum err unknown_fields(const json_t *o, const char *where, const char *const *known,
                               size_t n, struct err_why *why)
{
    const char *key = NULL;
    json_t *v = NULL;
    json_object_foreach((json_t *)o, key, v)
    {
        bool found = false;
        for (size_t i = 0; i < n && !found; i++)
            found = strcmp(key, known[i]) == 0;
        if (!found)
            return err_set(why, ERR_FORMAT,
                           "manifest: field '%s%.64s' is unknown to this version of onebyte", where,
                           key);
    }
    return ERR_OK;
}

static enum err parse_tensor(struct zo_tensor *t, const json_t *o, size_t i, struct err_why *why)
{
    static const char *const known[] = {"name", "shape", "bits", "e"};
    char where[32];
    (void)snprintf(where, sizeof where, "tensors[%zu].", i);
    const struct reader r = {o, where, why};
    if (!json_is_object(o))
        return err_set(why, ERR_FORMAT, "manifest: field 'tensors[%zu]' must be an object", i);
    TRY(unknown_fields(o, where, known, ARRAY_LEN(known), why));
    const char *name = "";
    uint64_t bits = 0, e = 0;
    TRY(get_text(&r, "name", true, LIMIT_NAME_BYTES, &name));
    if (name[0] == '\0')
        return err_set(why, ERR_FORMAT, "manifest: field '%sname' is empty", where);
    TRY(parse_shape(t, &r));
    TRY(get_u64(&r, "bits", 32, 64, true, &bits));
    if (bits != 32 && bits != 64)
        return err_set(why, ERR_FORMAT, "manifest: field '%sbits' must be 32 or 64", where);
    TRY(get_u64(&r, "e", 0, 61, true, &e));
    memcpy(t->name, name, strlen(name) + 1);
    t->bits = (uint32_t)bits;
    t->e = (uint32_t)e;
    return ERR_OK;
}

static enum err parse_tensors(struct zo_rules *rules, const struct reader *r)
{
    const json_t *list = NULL;
    TRY(get_array(r, "tensors", true, 1, LIMIT_TENSORS, &list));
    const size_t n = json_array_size(list);
    rules->tensors = calloc(n, sizeof *rules->tensors);
    if (!rules->tensors)
        return err_set(r->why, ERR_NOMEM, "out of memory");
    rules->n_tensors = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        TRY(parse_tensor(&rules->tensors[i], json_array_get(list, i), i, r->why));
    qsort(rules->tensors, n, sizeof *rules->tensors,
          tensor_order); /* numbered in byte order of the names */
    for (size_t i = 1; i < n; i++)
        if (strcmp(rules->tensors[i - 1].name, rules->tensors[i].name) == 0)
            return err_set(r->why, ERR_FORMAT, "manifest: tensor '%s' is listed twice",
                           rules->tensors[i].name);
    return ERR_OK;
}

static enum err parse_rules(struct peer_manifest *m, const struct reader *r)
{
    static const char *const directions[] = {"rank1", "rademacher", "gaussian"}, *const paces[] = {
                                                                                     "async",
                                                                                     "sync"};
    struct zo_rules *z = &m->rules;
    struct net_rules *n = &m->net;
    uint64_t arith = 0, sides = 2, k = 1;
    unsigned direction = 0, pace = 0;
    double eps = 0.01;
    const json_t *version = get(r, "arith");
    if (json_is_integer(version) && json_integer_value(version) != 1)
        return err_set(r->why, ERR_UNSUPPORTED,
                       "manifest: arith %lld is unknown: this onebyte computes arith 1; update it",
                       (long long)json_integer_value(version));
    TRY(get_u64(r, "arith", 1, 1, true, &arith));
    TRY(get_word(r, "direction", true, directions, ARRAY_LEN(directions), &direction));
    TRY(get_u64(r, "sides", 1, 2, false, &sides));
    TRY(get_f64(r, "eps", 1e-8, 1.0, &eps));
    TRY(get_u64(r, "n0", 1, UINT32_MAX, true, &z->n0));
    TRY(get_u64(r, "steps", 1, STEPS_MAX, true, &z->steps));
    TRY(get_u64(r, "K", 1, LIMIT_SEGMENT_COUNT, false, &k));
    if (sides == 2 && k != 1)
        return err_set(r->why, ERR_FORMAT, "manifest: field 'K' is %llu: two-sided runs have K 1",
                       (unsigned long long)k);
    if (sides == 1 && k < 2)
        return err_set(r->why, ERR_FORMAT,
                       "manifest: field 'K' must be at least 2 when 'sides' is 1");
    const json_t *unit = get(r, "unit");
    if (unit && !json_is_null(unit))
        TRY(get_u64(r, "unit", 1, (uint64_t)1 << 62, true, &z->unit));
    TRY(get_u64(r, "share_65536", 1, 65536, true, &n->share_65536));
    TRY(get_u64(r, "burst", 0, UINT32_MAX, true, &n->burst));
    n->records_max = LIMIT_RECORDS_DEFAULT;
    TRY(get_u64(r, "records_max", 1, (uint64_t)1 << 62, false, &n->records_max));
    TRY(get_word(r, "pace", false, paces, ARRAY_LEN(paces), &pace));
    TRY(get_hex32(r, "owner", n->owner));
    z->direction = (enum zo_direction)direction;
    z->sides = (uint32_t)sides;
    z->k = n->k = (uint32_t)k;
    z->eps = (float)eps;
    n->n0 = z->n0;
    n->steps = z->steps;
    n->sync = pace == 1;
    TRY(parse_knots(z, r));
    return parse_tensors(z, r);
}

static enum err parse_admission(struct net_rules *n, const struct reader *r)
{
    static const char *const kinds[] = {"open", "allow", "invite"};
    unsigned kind = 0;
    const json_t *list = NULL;
    TRY(get_word(r, "admission", false, kinds, ARRAY_LEN(kinds), &kind));
    n->admission = kind == 0 ? NET_OPEN : kind == 1 ? NET_ALLOW : NET_INVITE;
    TRY(get_array(r, "allow", false, 0, LIMIT_TENSORS, &list));
    n->n_allow = (uint32_t)json_array_size(list);
    if (n->n_allow == 0)
        return ERR_OK;
    n->allow = calloc(n->n_allow, sizeof *n->allow);
    if (!n->allow)
        return err_set(r->why, ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; i < n->n_allow; i++) {
        const char *hex = json_string_value(json_array_get(list, i));
        if (!hex || net_unhex(n->allow[i], 32, hex) != ERR_OK)
            return err_set(r->why, ERR_FORMAT,
                           "manifest: field 'allow[%u]' must be a machine id, 64 hex digits", i);
    }
    return ERR_OK;
}

static enum err parse_trainable(struct peer_manifest *m, const char *text, const struct reader *r)
{
    struct zo_lora lora;
    struct err_why wrong = {{0}};
    if (zo_lora_parse(&lora, text, &wrong) != ERR_OK)
        return err_set(r->why, ERR_FORMAT, "manifest: field 'trainable': %.200s", wrong.text);
    memcpy(m->trainable, text, strlen(text) + 1);
    m->rules.lora_scale = lora.r ? (float)(lora.alpha / lora.r) : 0.0f;
    return ERR_OK;
}

static enum err parse_process(struct peer_manifest *m, const struct reader *r)
{
    const uint64_t k = m->rules.k;
    uint64_t segment_max = m->rules.n0 < 256 ? m->rules.n0 : 256, length_max = 0;
    const char *name = "", *schedule = "", *trainable = "all";
    m->seal_s = 5;
    m->round_timeout_s = 30;
    TRY(get_u64(r, "segment_max", 1, LIMIT_SEGMENT_COUNT, false, &segment_max));
    TRY(get_f64(r, "seal_s", 0.01, 86400, &m->seal_s));
    TRY(get_f64(r, "round_timeout_s", 0.01, 86400, &m->round_timeout_s));
    TRY(get_bool(r, "public", &m->public_data));
    TRY(get_f64(r, "audit", 0, 1, &m->audit));
    if (m->audit > 0 && !m->public_data)
        return err_set(r->why, ERR_FORMAT, "manifest: field 'audit' needs public data");
    TRY(get_u64(r, "seed", 0, INT64_MAX, false, &m->seed));
    TRY(get_u64(r, "length_max", 0, 1u << 24, false, &length_max));
    TRY(get_f64(r, "lr", 0, 1e6, &m->lr));
    TRY(get_text(r, "name", false, sizeof m->name - 1, &name));
    TRY(get_text(r, "schedule", false, sizeof m->schedule - 1, &schedule));
    TRY(get_text(r, "trainable", false, sizeof m->trainable - 1, &trainable));
    if (trainable[0] == '\0')
        return err_set(r->why, ERR_FORMAT, "manifest: field 'trainable' is empty");
    TRY(parse_trainable(m, trainable, r));
    memcpy(m->name, name, strlen(name) + 1);
    memcpy(m->schedule, schedule, strlen(schedule) + 1);
    segment_max = (segment_max + k - 1) / k * k;
    if (segment_max > LIMIT_SEGMENT_COUNT)
        segment_max = LIMIT_SEGMENT_COUNT / k * k;
    m->segment_max = (uint32_t)segment_max;
    m->length_max = (uint32_t)length_max;
    return parse_admission(&m->net, r);
}

/* A name that stays inside its folder when a peer writes a file it was sent. */
static bool plain_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && !strchr(name, '/');
}

static enum err parse_file(struct peer_file *f, const json_t *o, size_t i, struct err_why *why)
{
    char where[40];
    (void)snprintf(where, sizeof where, "model.files[%zu].", i);
    const struct reader r = {o, where, why};
    const char *name = "";
    const json_t *chunks = NULL;
    TRY(get_text(&r, "name", true, sizeof f->name - 1, &name));
    if (!plain_name(name))
        return err_set(why, ERR_FORMAT,
                       "manifest: field '%sname' must be a plain file name, not '%s'", where, name);
    memcpy(f->name, name, strlen(name) + 1);
    TRY(get_u64(&r, "bytes", 0, (uint64_t)1 << 46, true, &f->bytes));
    const size_t n = (size_t)((f->bytes + PEER_CHUNK_BYTES - 1) / PEER_CHUNK_BYTES);
    TRY(get_array(&r, "chunks", true, n, n, &chunks));
    f->chunks = calloc(n ? n : 1, sizeof *f->chunks);
    if (!f->chunks)
        return err_set(why, ERR_NOMEM, "out of memory");
    f->n_chunks = n;
    for (size_t c = 0; c < n; c++) {
        const char *hex = json_string_value(json_array_get(chunks, c));
        if (!hex || net_unhex(f->chunks[c], 32, hex) != ERR_OK)
            return err_set(why, ERR_FORMAT, "manifest: field '%schunks[%zu]' must be 64 hex digits",
                           where, c);
    }
    return ERR_OK;
}

static enum err parse_model(struct peer_manifest *m, const struct reader *r)
{
    const json_t *model = get(r, "model"), *files = NULL;
    if (!model)
        return ERR_OK;
    const struct reader in = {model, "model.", r->why};
    if (!json_is_object(model))
        return err_set(r->why, ERR_FORMAT, "manifest: field 'model' must be an object");
    TRY(get_array(&in, "files", true, 1, PEER_FILES_MAX, &files));
    const size_t n = json_array_size(files);
    m->files = calloc(n, sizeof *m->files);
    if (!m->files)
        return err_set(r->why, ERR_NOMEM, "out of memory");
    m->n_files = n;
    for (size_t i = 0; i < n; i++) {
        TRY(parse_file(&m->files[i], json_array_get(files, i), i, r->why));
        for (size_t j = 0; j < i; j++)
            if (strcmp(m->files[i].name, m->files[j].name) == 0)
                return err_set(r->why, ERR_FORMAT, "manifest: model file '%s' is listed twice",
                               m->files[i].name);
    }
    return ERR_OK;
}

static enum err parse_data(struct peer_data *d, const char *key, const struct reader *r)
{
    const json_t *o = get(r, key);
    char where[32];
    const char *name = "";
    if (!o || json_is_null(o))
        return ERR_OK;
    (void)snprintf(where, sizeof where, "%s.", key);
    const struct reader in = {o, where, r->why};
    if (!json_is_object(o))
        return err_set(r->why, ERR_FORMAT, "manifest: field '%s' must be an object", key);
    TRY(get_text(&in, "name", true, sizeof d->name - 1, &name));
    TRY(get_u64(&in, "bytes", 1, (uint64_t)1 << 46, true, &d->bytes));
    TRY(get_hex32(&in, "digest", d->digest));
    memcpy(d->name, name, strlen(name) + 1);
    d->present = true;
    return ERR_OK;
}

static enum err parse_all(struct peer_manifest *m, const struct reader *r)
{
    TRY(unknown_fields(r->o, "", known_fields, ARRAY_LEN(known_fields), r->why));
    TRY(parse_rules(m, r));
    TRY(parse_process(m, r));
    TRY(parse_model(m, r));
    TRY(parse_data(&m->data, "data", r));
    return parse_data(&m->eval_data, "eval_data", r);
}

enum err peer_manifest_parse(struct peer_manifest *out, const char *text, size_t n,
                             struct err_why *why)
{
    if (n > PEER_MANIFEST_BYTES_MAX)
        return err_set(why, ERR_FORMAT, "manifest: larger than %d bytes", PEER_MANIFEST_BYTES_MAX);
    json_error_t bad;
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &bad);
    if (!o)
        return err_set(why, ERR_FORMAT, "manifest: not JSON: %s (line %d)", bad.text, bad.line);
    struct peer_manifest m = {0};
    const struct reader r = {o, "", why};
    enum err e = ERR_OK;
    if (!json_is_object(o))
        e = err_set(why, ERR_FORMAT, "manifest: must be a JSON object");
    if (e == ERR_OK)
        e = parse_all(&m, &r);
    json_decref(o);
    if (e == ERR_OK && !(m.text = malloc(n + 1)))
        e = err_set(why, ERR_NOMEM, "out of memory");
    if (e != ERR_OK) {
        peer_manifest_free(&m);
        return e;
    }
    memcpy(m.text, text, n);
    m.text[n] = '\0';
    m.text_bytes = n;
    net_hash(m.run_id, &(struct net_part){text, n}, 1);
    memcpy(m.net.run_id, m.run_id, sizeof m.run_id);
    *out = m;
    return ERR_OK;
}

enum err peer_manifest_accept(struct peer_manifest *out, const char *text, size_t n,
                              const uint8_t sig[64], struct err_why *why)
{
    struct peer_manifest m;
    TRY(peer_manifest_parse(&m, text, n, why));
    const struct net_part parts[] = {{MANIFEST_TAG, sizeof MANIFEST_TAG}, {text, n}};
    enum err e = ERR_OK;
    if (net_verify(sig, m.net.owner, parts, ARRAY_LEN(parts)) != ERR_OK)
        e = err_set(
            why, ERR_PROTO,
            "manifest: the owner's signature does not match: the file was changed or damaged");
    else if (m.n_files == 0)
        e = err_set(why, ERR_FORMAT, "manifest: field 'model' is missing");
    else if (!m.data.present)
        e = err_set(why, ERR_FORMAT, "manifest: field 'data' is missing");
    if (e != ERR_OK) {
        peer_manifest_free(&m);
        return e;
    }
    memcpy(m.sig, sig, sizeof m.sig);
    *out = m;
    return ERR_OK;
}

void peer_manifest_sign(struct peer_manifest *m, const struct net_identity *owner)
{
    const struct net_part parts[] = {{MANIFEST_TAG, sizeof MANIFEST_TAG}, {m->text, m->text_bytes}};
    ENSURE(memcmp(owner->id, m->net.owner, sizeof owner->id) == 0);
    net_sign(m->sig, owner, parts, ARRAY_LEN(parts));
}

void peer_manifest_free(struct peer_manifest *m)
{
    for (size_t i = 0; i < m->n_files; i++)
        free(m->files[i].chunks);
    free(m->files);
    free(m->rules.tensors);
    free(m->net.allow);
    free(m->text);
    memset(m, 0, sizeof *m);
}
