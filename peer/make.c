#include "peer/make.h"
#include "peer/json_out.h"
#include "peer/plan.h"
#include "peer/probe.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PROBE_LIMIT_S = 120 };

void peer_make_defaults(struct peer_make *k)
{
    memset(k, 0, sizeof *k);
    k->lr = -1;
    k->burst = 8;
}

/* A peer's segment and all that was folded meanwhile are its lag, and beyond n0 the lag divides the weight: were a
 * segment as long as n0, a second peer would speed up nothing.  Eight of these fit into n0, if n0 leaves room for 64. */
static uint64_t segment_default(uint64_t n0)
{
    return n0 <= 64 ? n0 : n0 / 8 < 64 ? 64 : n0 / 8 < 256 ? n0 / 8 : 256;
}

/* The choices with every default filled in but eps and lr, which are measured.  n0: bench/RESULTS.md, "Peers": with 512 a
 * swarm of 16 needs a twelfth of the rounds of one peer, with 64 a quarter; a peer alone learns alike. */
static struct peer_make settled(const struct peer_make *k)
{
    struct peer_make s = *k;
    const bool paper = s.preset != NULL; /* the only one */
    s.direction = s.direction ? s.direction : paper ? "gaussian" : "rank1";
    s.sides = s.sides ? s.sides : 2;
    s.k = s.sides == 2 ? 1 : s.k ? s.k : 7;
    s.n0 = s.n0 ? s.n0 : paper ? 64 : 512;
    s.steps = s.steps ? s.steps : (64000 + s.n0 - 1) / s.n0;
    s.schedule = s.schedule ? s.schedule : paper ? "constant" : "linear";
    s.pace = s.pace ? s.pace : paper ? "sync" : "async";
    s.unit = s.unit > 0 ? s.unit : paper ? 8 : 0;
    s.admission = s.admission ? s.admission : "open";
    s.segment_max = s.segment_max ? s.segment_max : segment_default(s.n0);
    s.records_max = s.records_max ? s.records_max : LIMIT_RECORDS_DEFAULT;
    s.seal_s = s.seal_s > 0 ? s.seal_s : 5;
    s.round_timeout_s = s.round_timeout_s > 0 ? s.round_timeout_s : 30;
    return s;
}

__attribute__((format(printf, 2, 3))) static void note(struct peer_made *made, const char *format,
                                                       ...)
{
    va_list args;
    if (made->n_notes == PEER_NOTES_MAX)
        return;
    va_start(args, format);
    (void)vsnprintf(made->notes[made->n_notes++].text, sizeof made->notes[0].text, format, args);
    va_end(args);
}

__attribute__((format(printf, 3, 4))) static void because(struct peer_made *made, const char *what, const char *format, ...)
{
    va_list args;
    ENSURE(made->n_reasons < PEER_REASONS_MAX);
    struct peer_reason *r = &made->reasons[made->n_reasons++];
    r->what = what;
    va_start(args, format);
    (void)vsnprintf(r->text.text, sizeof r->text.text, format, args);
    va_end(args);
}

/* *max_abs over a stored tensor; ERR_NONFINITE if an entry is not finite. */
static enum err largest(double *max_abs, const struct zo_ckpt_tensor *c)
{
    float buf[4096];
    double max = 0;
    for (uint64_t i = 0; i < c->elements; i += ARRAY_LEN(buf)) {
        const size_t n =
            c->elements - i < ARRAY_LEN(buf) ? (size_t)(c->elements - i) : ARRAY_LEN(buf);
        zo_ckpt_read_f32(c, i, buf, n);
        for (size_t j = 0; j < n; j++) {
            if (!isfinite(buf[j]))
                return ERR_NONFINITE;
            max = fmax(max, fabs((double)buf[j]));
        }
    }
    *max_abs = max;
    return ERR_OK;
}

static enum err not_finite(const char *tensor, struct err_why *why)
{
    return err_set(why, ERR_NONFINITE,
                   "tensor %s of the model holds NaN or infinity: the checkpoint is damaged, fetch or "
                   "export it again",
                   tensor);
}

/* bits and e of every tensor; the smallest L goes to made. */
static enum err scale_tensors(struct zo_rules *r, const struct zo_ckpt *ckpt,
                              struct peer_made *made, struct err_why *why)
{
    const uint64_t peak = peer_plan_peak(r);
    unsigned widened = 0;
    made->coef_min = UINT64_MAX;
    for (uint32_t i = 0; i < r->n_tensors; i++) {
        struct zo_tensor *t = &r->tensors[i];
        const struct zo_ckpt_tensor *c = zo_ckpt_find(ckpt, t->name);
        double max_abs = 0;
        uint64_t coef = 0;
        if (r->lora_scale !=
            0.0f) /* A: zo/model/lora.c; B starts at 0 and gets the floor of plan.c */
            max_abs = zo_tensor_is_lora_a(t) ? 1 / sqrt((double)t->dims[1]) : 0;
        else if (c && largest(&max_abs, c) != ERR_OK)
            return not_finite(t->name, why);
        if (peer_plan_tensor(t, &coef, max_abs, peak) != ERR_OK)
            return err_set(why, ERR_FORMAT,
                           "tensor %s has an entry of size %g: too large for 64-bit integers",
                           t->name, max_abs);
        widened += zo_tensor_is_matrix(t) && t->bits == 64;
        made->parameters += zo_tensor_elements(t);
        made->coef_min = coef < made->coef_min ? coef : made->coef_min;
    }
    if (widened)
        note(made,
             "%u matrices use 64 bits per entry: at 32 a record's smallest step would be below %d "
             "units",
             widened, PEER_COEF_LOW);
    if (peak > 0 && made->coef_min < PEER_COEF_LOW)
        note(made,
             "a record's smallest step is %" PRIu64
             " units of some tensor, below %d: it rounds coarsely; raise --lr or "
             "lower --n0",
             made->coef_min, PEER_COEF_LOW);
    return ERR_OK;
}

static json_t *file_json(const struct peer_file *f)
{
    json_t *chunks = json_array();
    for (size_t c = 0; chunks && c < f->n_chunks; c++)
        (void)json_array_append_new(chunks, peer_json_hex(f->chunks[c], 32));
    return json_pack("{s:s, s:I, s:o}", "name", f->name, "bytes", (json_int_t)f->bytes, "chunks",
                     chunks);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* What a peer needs to compute, and what transformers needs beside it. */
static int wanted(const struct dirent *d)
{
    static const char *const names[] = {"config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "generation_config.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "vocab.txt",
                                        "model.safetensors.index.json",
                                        "chat_template.jinja",
                                        "added_tokens.json"};
    const size_t n = strlen(d->d_name);
    if (n > 12 && d->d_name[0] != '.' && strcmp(d->d_name + n - 12, ".safetensors") == 0)
        return 1;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(d->d_name, names[i]) == 0)
            return 1;
    return 0;
}

static enum err model_json(json_t **out, const char *dir, struct err_why *why)
{
    struct dirent **entries = NULL;
    const int n = scandir(dir, &entries, wanted, by_name);
    if (n < 0)
        return err_set(why, ERR_IO, "cannot list %s: %s", dir, strerror(errno));
    json_t *files = json_array();
    enum err e = files ? ERR_OK : err_set(why, ERR_NOMEM, "out of memory");
    if (n > PEER_FILES_MAX)
        e = err_set(why, ERR_RANGE, "%s holds more than %d model files", dir, PEER_FILES_MAX);
    for (int i = 0; i < n; i++) {
        struct peer_file f = {0};
        if (e == ERR_OK)
            e = peer_file_hash(&f, dir, entries[i]->d_name, why);
        if (e == ERR_OK)
            (void)json_array_append_new(files, file_json(&f));
        free(f.chunks);
        free(entries[i]);
    }
    free(entries);
    if (e != ERR_OK) {
        json_decref(files);
        return e;
    }
    *out = json_pack("{s:o}", "files", files);
    return ERR_OK;
}

static enum err data_json(json_t **out, const char *path, struct err_why *why)
{
    struct peer_data d;
    if (!path) {
        *out = json_null();
        return ERR_OK;
    }
    TRY(peer_data_digest(&d, path, why));
    *out = json_pack("{s:s, s:I, s:o}", "name", d.name, "bytes", (json_int_t)d.bytes, "digest",
                     peer_json_hex(d.digest, 32));
    return ERR_OK;
}

static json_t *tensors_json(const struct zo_rules *r)
{
    json_t *list = json_array();
    for (uint32_t i = 0; list && i < r->n_tensors; i++) {
        const struct zo_tensor *t = &r->tensors[i];
        json_t *shape = json_array();
        for (uint32_t d = 0; shape && d < t->n_dims; d++)
            (void)json_array_append_new(shape, json_integer((json_int_t)t->dims[d]));
        (void)json_array_append_new(list, json_pack("{s:s, s:o, s:I, s:I}", "name", t->name,
                                                    "shape", shape, "bits", (json_int_t)t->bits,
                                                    "e", (json_int_t)t->e));
    }
    return list;
}

static json_t *knots_json(const struct zo_rules *r)
{
    json_t *list = json_array();
    for (uint32_t i = 0; list && i < r->n_knots; i++)
        (void)json_array_append_new(
            list, json_pack("[I, I]", (json_int_t)r->knots[i].step, (json_int_t)r->knots[i].y));
    return list;
}

static json_t *allow_json(const struct peer_list *allow)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < allow->n; i++)
        (void)json_array_append_new(list, json_string(allow->items[i]));
    return list;
}

/* One field per line: the file is read by people too. */
static void put(FILE *out, const char *key, json_t *value)
{
    char *text =
        value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) : NULL;
    fprintf(out, "%s\"%s\": %s", ftell(out) > 2 ? ",\n" : "", key, text ? text : "");
    free(text);
    json_decref(value);
}

static void put_u64(FILE *out, const char *key, uint64_t value)
{
    put(out, key, json_integer((json_int_t)value));
}

static void put_choices(FILE *out, const struct peer_make *s, const uint8_t owner[32])
{
    const uint64_t share = s->machines > 2 ? (2 * 65536 + s->machines - 1) / s->machines : 65536;
    put_u64(out, "arith", 1);
    put(out, "name", json_string(s->name ? s->name : ""));
    put(out, "direction", json_string(s->direction));
    put_u64(out, "sides", s->sides);
    put(out, "eps", json_real(s->eps));
    put_u64(out, "n0", s->n0);
    put_u64(out, "steps", s->steps);
    put_u64(out, "K", s->k);
    put_u64(out, "share_65536", share);
    put_u64(out, "burst", s->burst);
    put(out, "unit", s->unit > 0 ? json_integer(llround(s->unit * 0x1p24)) : json_null());
    put_u64(out, "records_max", s->records_max);
    put(out, "owner", peer_json_hex(owner, 32));
    put(out, "pace", json_string(s->pace));
    put(out, "round_timeout_s", json_real(s->round_timeout_s));
    put_u64(out, "segment_max", s->segment_max);
    put(out, "seal_s", json_real(s->seal_s));
    put(out, "admission", json_string(s->admission));
    put(out, "allow", allow_json(&s->allow));
    put(out, "public", json_boolean(s->public_data));
    put_u64(out, "seed", s->seed);
    put_u64(out, "length_max", s->length_max);
    put(out, "lr", json_real(s->lr));
    put(out, "schedule", json_string(s->schedule));
    put_u64(out, "warmup", s->warmup);
    if (s->audit > 0) /* absent: 0; older versions read such a manifest */
        put(out, "audit", json_real(s->audit));
    if (s->trainable) /* absent: all */
        put(out, "trainable", json_string(s->trainable));
}

static enum err write_text(char **text, size_t *n, const struct peer_make *s,
                           const struct zo_rules *r, const uint8_t owner[32], struct err_why *why)
{
    json_t *model = NULL, *data = NULL, *eval_data = NULL;
    FILE *out = open_memstream(text, n);
    if (!out)
        return err_set(why, ERR_NOMEM, "out of memory");
    enum err e = model_json(&model, s->flags.model, why);
    if (e == ERR_OK)
        e = data_json(&data, s->data, why);
    if (e == ERR_OK)
        e = data_json(&eval_data, s->eval_data, why);
    fputs("{\n", out);
    put_choices(out, s, owner);
    put(out, "knots", knots_json(r));
    put(out, "tensors", tensors_json(r));
    put(out, "model", model);
    put(out, "data", data);
    put(out, "eval_data", eval_data);
    fputs("\n}\n", out);
    if (fclose(out) != 0 && e == ERR_OK)
        e = err_set(why, ERR_NOMEM, "out of memory");
    return e;
}

/* Every line of a data file is read as training will read it.  *keep (if not NULL) has it then, to be freed by the caller. */
static enum err check_data(const struct peer_engine *e, const struct peer_make *k, const char *path,
                           struct zo_dataset **keep, struct peer_made *made, struct err_why *why)
{
    struct zo_dataset *d = NULL;
    const uint32_t context = zo_model_context(e->model);
    const uint32_t length =
        k->length_max && k->length_max < context ? (uint32_t)k->length_max : context;
    if (!path)
        return ERR_OK;
    TRY(peer_check_regular(path, why));
    TRY(zo_dataset_open(&d, path, e->tokenizer, length, why));
    const uint64_t n = zo_dataset_size(d), cut = zo_dataset_cut_examples(d);
    enum err code = peer_engine_fits(e, d, path, why);
    if (code == ERR_OK && n == 0)
        code = err_set(why, ERR_FORMAT, "%s holds no examples", path);
    if (code == ERR_OK && keep)
        *keep = d;
    else
        zo_dataset_free(d);
    TRY(code);
    if (cut)
        note(made,
             "%s: %" PRIu64 " of %" PRIu64 " examples are longer than %" PRIu32
             " tokens and will be cut",
             path, cut, n, length);
    return ERR_OK;
}

static enum err make_rules(struct zo_rules *r, struct peer_make *s, const struct peer_make *k, struct zo_model *model,
                           struct err_why *why)
{
    struct zo_lora lora;
    TRY(zo_lora_parse(&lora, k->trainable, why));
    TRY(zo_model_trainable_of(model, k->trainable, &r->tensors, &r->n_tensors, why));
    /* What is trained is looked at below; a frozen NaN would make every record of the run void. */
    const char *bad = k->trainable && strcmp(k->trainable, "all") != 0 ? zo_model_nonfinite(model) : NULL;
    if (bad)
        return not_finite(bad, why);
    r->lora_scale = lora.r ? (float)(lora.alpha / lora.r) : 0.0f;
    *s = settled(k);
    r->direction = strcmp(s->direction, "gaussian") == 0 ? ZO_GAUSSIAN
                   : strcmp(s->direction, "rank1") == 0  ? ZO_RANK1
                                                         : ZO_RADEMACHER;
    r->n0 = s->n0;
    r->steps = s->steps;
    if (k->sides == 2 && k->k > 1)
        return err_set(
            why, ERR_RANGE,
            "--directions is for --sides 1: two-sided runs have one direction per example");
    if (k->audit > 0 && !k->public_data)
        return err_set(why, ERR_RANGE, "--audit needs --public: only public data can be measured again by others");
    return ERR_OK;
}

/* eps, lr and what follows from them: knots, width and scale of every tensor.  noise 0: not measured. */
static enum err set_rates(struct zo_rules *r, struct peer_make *s, const struct peer_make *k, const struct zo_model *model,
                          const struct peer_probe *probe, struct peer_made *made, struct err_why *why)
{
    uint64_t parameters = 0;
    for (uint32_t i = 0; i < r->n_tensors; i++)
        parameters += zo_tensor_elements(&r->tensors[i]);
    const double per_rms = s->unit > 0 && probe->gradient > 0 ? s->unit / probe->gradient : 1; /* a fixed unit is not the rms */
    const double noise = probe->noise > 0 ? probe->noise : PEER_PLAN_NOISE;
    if (k->eps <= 0)
        s->eps = probe->noise > 0 ? fmax(1e-3, fmin(1e-2, probe->noise / 2)) : peer_plan_eps(parameters);
    if (k->lr < 0)
        s->lr = peer_plan_lr(r, s->schedule, s->warmup, noise * per_rms, probe->noise > 0 ? probe->agreement : 1);
    made->eps = s->eps;
    r->eps = (float)s->eps;
    TRY(peer_plan_knots(r, s->schedule, s->lr, s->warmup, why));
    return scale_tensors(r, zo_model_ckpt(model), made, why);
}

static void explain_rates(struct peer_made *made, const struct zo_rules *r, const struct peer_make *s, const struct peer_make *k)
{
    const struct peer_probe *p = &made->probe;
    const double records = (double)r->n0 * (double)r->steps, u = s->lr / (double)r->n0;
    const bool short_run = records * p->agreement < PEER_PLAN_ENOUGH;
    if (k->lr >= 0)
        because(made, "lr", "%g: given", s->lr);
    else if (p->noise > 0)
        because(made, "lr",
                "%g, that is %.3g a record: a random step of %.3g in every parameter costs %s%g nats (measured: %" PRIu64
                " passes, %.1f s), and the run's %.0f records may walk as far%s",
                s->lr, u, p->noise, p->noise < PEER_PROBE_LENGTH_MAX ? "" : "less than ", PEER_PROBE_NATS, p->passes, p->seconds, records,
                short_run ? "; less, because so few teach little where examples agree so little" : "");
    else
        because(made, "lr", "%g, that is %.3g a record: the run's %.0f records walk %g, which pretrained models bear; not measured",
                s->lr, u, records, PEER_PLAN_NOISE);
    if (k->eps > 0)
        because(made, "eps", "%g: given", s->eps);
    else if (p->noise > 0)
        because(made, "eps", "%.3g: half of such a random step, between 0.001 and 0.01; above rounding, below what bends the loss", s->eps);
    else
        because(made, "eps", "%.3g: by the number of parameters", s->eps);
}

static void explain(struct peer_made *made, const struct zo_rules *r, const struct peer_make *s, const struct peer_make *k)
{
    const char *given = "given", *paper = s->preset ? "as --preset paper says" : NULL;
    explain_rates(made, r, s, k);
    because(made, "schedule", "%s: %s", s->schedule,
            k->schedule ? given : paper ? paper : "the last steps are small, and what the walk left behind averages out");
    because(made, "steps", "%" PRIu64 ": %s", r->steps, k->steps ? given : "64,000 records in all");
    because(made, "n0", "%" PRIu64 ": %s", r->n0,
            k->n0 ? given : paper ? paper : "so many records in flight add up, more are averaged: eight peers are seven times as fast as one");
    because(made, "segment-max", "%" PRIu64 ": %s", s->segment_max,
            k->segment_max ? given : "an eighth of n0, but 64 to 256: eight peers' segments add up before they damp each other");
    because(made, "direction", "%s: %s", s->direction,
            k->direction ? given : paper ? paper : "learns as dense ones do at 22.7M parameters, at half the time");
    because(made, "integers", "%" PRIu64 " units: a record's smallest step at the peak; 16 are wanted", made->coef_min);
}

/* The data files are looked at; then, unless lr is given, the model is measured on them. */
static enum err look(struct zo_rules *r, struct peer_make *s, const struct peer_make *k, struct peer_engine *engine,
                     struct peer_made *made, struct err_why *why)
{
    struct peer_made first = {0}; /* of rates not yet measured, which give the probe its scales */
    struct zo_dataset *d = NULL;
    TRY(make_rules(r, s, k, engine->model, why));
    TRY(set_rates(r, s, k, engine->model, &made->probe, &first, why));
    TRY(check_data(engine, k, k->data, &d, made, why));
    enum err e = check_data(engine, k, k->eval_data, NULL, made, why);
    if (e == ERR_OK && k->lr < 0)
        e = peer_probe(&made->probe, engine, r, d, PROBE_LIMIT_S, why);
    zo_dataset_free(d);
    if (e == ERR_OK && k->lr < 0 && made->probe.noise <= 0)
        note(made,
             "%s to measure how large a step the model bears: lr is what models usually bear; give --lr, or run init on a "
             "larger machine",
             made->probe.pass_s > 0 ? "forward passes are too slow here" : "too little memory here");
    if (e == ERR_OK)
        e = set_rates(r, s, k, engine->model, &made->probe, made, why);
    if (e == ERR_OK)
        explain(made, r, s, k);
    return e;
}

enum err peer_make_manifest(struct peer_manifest *m, struct peer_made *made,
                            const struct peer_make *k, const struct net_identity *owner,
                            struct err_why *why)
{
    struct peer_engine_options o = peer_flags_engine(&k->flags, NULL, NULL);
    struct peer_engine engine;
    struct zo_rules *rules = calloc(1, sizeof *rules);
    struct peer_make s = *k;
    char *text = NULL;
    size_t n = 0;
    memset(made, 0, sizeof *made);
    if (!rules)
        return err_set(why, ERR_NOMEM, "out of memory");
    enum err e = peer_engine_open(&engine, NULL, &o, why);
    if (e == ERR_OK) {
        e = look(rules, &s, k, &engine, made, why);
        peer_engine_close(&engine);
    }
    if (e == ERR_OK)
        e = write_text(&text, &n, &s, rules, owner->id, why);
    if (e == ERR_OK)
        e = peer_manifest_parse(m, text, n, why); /* what we write passes what others read */
    if (e == ERR_OK)
        peer_manifest_sign(m, owner);
    free(text);
    free(rules->tensors);
    free(rules);
    return e;
}
