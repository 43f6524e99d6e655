#include <onebyte/zo/prepare.h>
#include "zo/data/buf.h"
#include "zo/data/json.h"
#include "zo/data/utf8.h"
#include <errno.h>
#include <onebyte/zo/philox.h>

/* One record: a JSON object of texts, whatever the file's form. */
struct record {
    const json_t *o;
    struct err_why *why; /* what is wrong, without FILE:LINE */
};
typedef enum err (*task_fn)(json_t **example, const struct record *r);

/* ---- members ---- */

static enum err need_text(const char **out, const struct record *r, const char *a, const char *b)
{
    *out = zo_json_text(r->o, a, NULL);
    if (!*out && b)
        *out = zo_json_text(r->o, b, NULL);
    return *out ? ERR_OK : err_set(r->why, ERR_FORMAT, "no \"%s\" in it (or not text)", a);
}

/* *label <- place of the label in names (several names for one place are separated by |), or its number.
 * Numbers count as the names do: 0 is names[0]. */
static enum err need_label(json_int_t *label, const struct record *r, const char *key, const char *const *names,
                           json_int_t n)
{
    const json_t *v = zo_json_member(r->o, key);
    char text[64] = "";
    if (json_is_string(v))
        (void)snprintf(text, sizeof text, "|%.60s|", json_string_value(v));
    else if (json_is_boolean(v))
        (void)snprintf(text, sizeof text, "|%d|", json_is_true(v));
    else if (json_is_integer(v))
        (void)snprintf(text, sizeof text, "|%lld|", (long long)json_integer_value(v));
    for (json_int_t i = 0; i < n && *text; i++) {
        char all[128];
        (void)snprintf(all, sizeof all, "|%lld|%s|", (long long)i, names[i]);
        if (strstr(all, text)) {
            *label = i;
            return ERR_OK;
        }
    }
    if (!v || strcmp(text, "||") == 0 || strcmp(text, "|-1|") == 0)
        return err_set(r->why, ERR_FORMAT, "no \"%s\" in it: a file without labels cannot be trained or measured on", key);
    return err_set(r->why, ERR_FORMAT, "the label %.60s is not one of this task's", text);
}

static enum err with_choices(json_t **out, const char *prompt, const char *const *choices, size_t n, json_int_t label)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++)
        (void)json_array_append_new(list, json_string(choices[i]));
    *out = json_pack("{s:s s:o s:I}", "prompt", prompt, "choices", list, "label", label);
    return *out ? ERR_OK : ERR_NOMEM;
}

/* ---- tasks ---- */

static const char *const yes_no_maybe[] = {"Yes", "No", "Maybe"};

/* Without the spaces around it. */
static void add_trimmed(struct buf *b, const char *text, bool left)
{
    size_t n = strlen(text);
    while (left && n && (*text == ' ' || *text == '\t')) {
        text++;
        n--;
    }
    while (n && (text[n - 1] == ' ' || text[n - 1] == '\t'))
        n--;
    buf_add(b, text, n);
}

static void add(struct buf *b, const char *text)
{
    buf_add(b, text, strlen(text));
}

static enum err finish(json_t **out, struct buf *b, const char *const *choices, size_t n, json_int_t label)
{
    const enum err e = b->oom ? ERR_NOMEM : with_choices(out, b->p, choices, n, label);
    buf_free(b);
    return e;
}

static enum err sst2(json_t **out, const struct record *r)
{
    static const char *const labels[] = {"negative", "positive"}, *const words[] = {" terrible", " great"};
    const char *text;
    json_int_t label;
    struct buf b = {0};
    TRY(need_text(&text, r, "sentence", "text"));
    TRY(need_label(&label, r, "label", labels, 2));
    add_trimmed(&b, text, true);
    add(&b, " It was");
    return finish(out, &b, words, 2, label);
}

static enum err rte(json_t **out, const struct record *r)
{
    static const char *const labels[] = {"entailment", "not_entailment"};
    const char *premise, *hypothesis;
    json_int_t label;
    struct buf b = {0};
    TRY(need_text(&premise, r, "premise", "sentence1"));
    TRY(need_text(&hypothesis, r, "hypothesis", "sentence2"));
    TRY(need_label(&label, r, "label", labels, 2));
    add(&b, premise);
    add(&b, "\nDoes this mean that \"");
    add(&b, hypothesis);
    add(&b, "\" is true? Yes or No?\n");
    return finish(out, &b, yes_no_maybe, 2, label);
}

static enum err cb(json_t **out, const struct record *r)
{
    static const char *const labels[] = {"entailment", "contradiction", "neutral"};
    const char *premise, *hypothesis;
    json_int_t label;
    struct buf b = {0};
    TRY(need_text(&premise, r, "premise", NULL));
    TRY(need_text(&hypothesis, r, "hypothesis", NULL));
    TRY(need_label(&label, r, "label", labels, 3));
    add(&b, "Suppose ");
    add(&b, premise);
    add(&b, " Can we infer that \"");
    add(&b, hypothesis);
    add(&b, "\"? Yes, No, or Maybe?\n");
    return finish(out, &b, yes_no_maybe, 3, label);
}

static enum err boolq(json_t **out, const struct record *r)
{
    static const char *const labels[] = {"false|False", "true|True"};
    const char *passage, *question;
    json_int_t label;
    struct buf b = {0};
    TRY(need_text(&passage, r, "passage", NULL));
    TRY(need_text(&question, r, "question", NULL));
    TRY(need_label(&label, r, zo_json_member(r->o, "label") ? "label" : "answer", labels, 2));
    if (!*question)
        return err_set(r->why, ERR_FORMAT, "\"question\" is empty");
    add(&b, passage);
    add(&b, " ");
    const size_t at = b.n;
    add(&b, question);
    if (!b.oom && b.p[at] >= 'a' && b.p[at] <= 'z')
        b.p[at] = (char)(b.p[at] - 32);
    add(&b, question[strlen(question) - 1] == '?' ? "\n" : "?\n");
    return finish(out, &b, yes_no_maybe, 2, 1 - label);
}

/* A choice as the end of the sentence: a space, and its first word in lower case unless that is "I". */
static void copa_choice(struct buf *b, const char *choice)
{
    const size_t word = strcspn(choice, " ");
    add(b, " ");
    for (size_t i = 0; i < word;) {
        uint32_t cp;
        const size_t k = zo_utf8_get(&cp, choice + i, word - i);
        if (word == 1 && *choice == 'I')
            buf_add(b, "I", 1);
        else
            zo_utf8_add_lower(b, cp);
        i += k;
    }
    add(b, choice + word);
}

static enum err copa(json_t **out, const struct record *r)
{
    static const char *const labels[] = {"choice1", "choice2"};
    const char *premise, *question, *first, *second;
    json_int_t label;
    struct buf b = {0}, one = {0}, two = {0};
    TRY(need_text(&premise, r, "premise", NULL));
    TRY(need_text(&question, r, "question", NULL));
    TRY(need_text(&first, r, "choice1", NULL));
    TRY(need_text(&second, r, "choice2", NULL));
    TRY(need_label(&label, r, "label", labels, 2));
    if (strcmp(question, "cause") != 0 && strcmp(question, "effect") != 0)
        return err_set(r->why, ERR_FORMAT, "\"question\" is neither \"cause\" nor \"effect\"");
    add_trimmed(&b, premise, false);
    if (b.n && b.p[b.n - 1] == '.')
        b.n--;
    add(&b, *question == 'c' ? " because" : " so");
    copa_choice(&one, first);
    copa_choice(&two, second);
    const char *const choices[] = {one.p, two.p};
    const enum err e = one.oom || two.oom ? ERR_NOMEM : finish(out, &b, choices, 2, label);
    buf_free(&b);
    buf_free(&one);
    buf_free(&two);
    return e;
}

static enum err trec(json_t **out, const struct record *r)
{
    static const char *const labels[] = {"DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM"};
    static const char *const words[] = {" description", " entity", " expression", " human", " location", " number"};
    const char *text;
    json_int_t label;
    struct buf b = {0};
    TRY(need_text(&text, r, "text", "question"));
    TRY(need_label(&label, r, "label", labels, 6));
    add_trimmed(&b, text, true);
    add(&b, " It is about");
    return finish(out, &b, words, 6, label);
}

static enum err gsm8k(json_t **out, const struct record *r)
{
    const char *question, *answer;
    struct buf b = {0}, c = {0};
    TRY(need_text(&question, r, "question", NULL));
    TRY(need_text(&answer, r, "answer", NULL));
    add(&b, "Question: ");
    add(&b, question);
    add(&b, "\nAnswer:");
    add(&c, " ");
    add(&c, answer);
    *out = b.oom || c.oom ? NULL : json_pack("{s:s s:s}", "prompt", b.p, "completion", c.p);
    buf_free(&b);
    buf_free(&c);
    return *out ? ERR_OK : ERR_NOMEM;
}

static task_fn find_task(const char *name)
{
    static const struct {
        const char *name;
        task_fn make;
    } tasks[] = {{"sst2", sst2}, {"rte", rte},   {"cb", cb},      {"boolq", boolq},
                 {"copa", copa}, {"trec", trec}, {"gsm8k", gsm8k}};
    for (size_t i = 0; i < ARRAY_LEN(tasks); i++)
        if (strcmp(name, tasks[i].name) == 0)
            return tasks[i].make;
    return NULL;
}

/* ---- lines to records ---- */

struct reading {
    const char *path;
    task_fn make;
    bool trec;
    json_t *columns;  /* of a tab-separated file; NULL before its header, or for JSONL */
    json_t *examples; /* array */
    struct err_why why;
};

static json_t *split_tabs(const char *line, size_t n)
{
    json_t *list = json_array();
    for (size_t start = 0, i = 0; list && i <= n; i++)
        if (i == n || line[i] == '\t') {
            (void)json_array_append_new(list, json_stringn(line + start, i - start));
            start = i + 1;
        }
    return list;
}

static enum err tab_record(json_t **record, struct reading *f, const char *line, size_t n)
{
    json_t *cells = split_tabs(line, n);
    if (!cells)
        return ERR_NOMEM;
    if (!f->columns) {
        f->columns = cells; /* the header: no record */
        return json_array_size(cells) > 1 ? ERR_OK
                                          : err_set(&f->why, ERR_FORMAT, "neither JSON nor a tab-separated header");
    }
    if (json_array_size(cells) != json_array_size(f->columns)) {
        json_decref(cells);
        return err_set(&f->why, ERR_FORMAT, "not as many columns as the header has (%zu)", json_array_size(f->columns));
    }
    *record = json_object();
    for (size_t i = 0; *record && i < json_array_size(cells); i++)
        (void)json_object_set(*record, json_string_value(json_array_get(f->columns, i)), json_array_get(cells, i));
    json_decref(cells);
    return *record ? ERR_OK : ERR_NOMEM;
}

/* "DESC:manner How ..." or "0,How ..." (with "" for a quote inside a quoted text). */
static enum err trec_record(json_t **record, struct reading *f, const char *line, size_t n)
{
    const size_t k = strcspn(line, ":,");
    const char *text = k < n ? (line[k] == ',' ? line + k + 1 : memchr(line, ' ', n)) : NULL;
    if (!text || k > 4)
        return err_set(&f->why, ERR_FORMAT, "neither \"LABEL:kind question\" nor \"number,question\"");
    struct buf b = {0};
    const bool quoted = *text == '"' && line[n - 1] == '"' && n > (size_t)(text - line) + 1;
    const char *end = line + n - quoted;
    for (const char *p = text + quoted; p < end; p++) {
        buf_add(&b, p, 1);
        p += quoted && *p == '"' && p + 1 < end && p[1] == '"';
    }
    *record = b.p ? json_pack("{s:s s:o}", "text", b.p, "label", json_stringn(line, k)) : NULL;
    buf_free(&b);
    return *record ? ERR_OK : err_set(&f->why, ERR_FORMAT, "a question is missing");
}

static enum err read_line(struct reading *f, const char *line, size_t n)
{
    json_t *record = NULL, *example = NULL;
    json_error_t at;
    enum err e = ERR_OK;
    if (!zo_utf8_valid(line, n))
        return err_set(&f->why, ERR_FORMAT, "not valid UTF-8 (convert it first: iconv -f latin1 -t utf-8)");
    if (!f->columns && *line == '{') {
        record = json_loadb(line, n, 0, &at);
        if (!json_is_object(record))
            e = err_set(&f->why, ERR_FORMAT, "not JSON: %s", at.text);
    } else {
        e = f->trec ? trec_record(&record, f, line, n) : tab_record(&record, f, line, n);
    }
    if (!e && record)
        e = f->make(&example, &(struct record){.o = record, .why = &f->why});
    if (!e && example && json_array_append(f->examples, example) != 0)
        e = ERR_NOMEM;
    json_decref(record);
    json_decref(example);
    return e;
}

static enum err read_file(struct reading *f, FILE *in, struct err_why *why)
{
    char *line = NULL;
    size_t cap = 0, number = 0;
    ssize_t n;
    enum err e = ERR_OK;
    while (!e && (n = zo_getline(&line, &cap, in)) >= 0) {
        number++;
        const size_t skip = number == 1 && n >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
        while ((size_t)n > skip && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = 0;
        if ((size_t)n == skip)
            continue;
        e = read_line(f, line + skip, (size_t)n - skip);
        if (e)
            e = err_set(why, e, "%s:%zu: %s", f->path, number, *f->why.text ? f->why.text : err_str(e));
    }
    if (!e)
        e = zo_getline_end(in, f->path, number, why);
    if (!e && json_array_size(f->examples) == 0)
        e = err_set(why, ERR_FORMAT, "%s: no example in it", f->path);
    free(line);
    return e;
}

/* Selection sampling (Knuth, algorithm S): each of n is kept with the chance still needed / still left. */
static bool keep(uint64_t i, uint64_t n, uint64_t kept, uint64_t limit, uint64_t seed)
{
    uint32_t word[4];
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const struct zo_stream s = zo_stream(key, ZO_DOMAIN_DATA, 0, i);
    if (limit == 0 || limit >= n)
        return true;
    zo_stream_block(word, &s, 0);
    const uint64_t random = word[0] | (uint64_t)word[1] << 32;
    return (uint64_t)((unsigned __int128)random * (n - i) >> 64) < limit - kept;
}

static enum err write_all(FILE *out, uint64_t *n, const json_t *examples, uint64_t limit, uint64_t seed)
{
    size_t i;
    json_t *x;
    uint64_t kept = 0;
    json_array_foreach(examples, i, x)
    {
        if (!keep(i, json_array_size(examples), kept, limit, seed))
            continue;
        if (json_dumpf(x, out, 0) != 0 || fputc('\n', out) == EOF)
            return ERR_IO;
        kept++;
    }
    *n = kept;
    return fflush(out) == 0 ? ERR_OK : ERR_IO;
}

enum err zo_prepare(FILE *out, uint64_t *n, const char *task, const char *path, uint64_t limit, uint64_t seed,
                    struct err_why *why)
{
    struct reading f = {.path = path, .make = find_task(task), .trec = strcmp(task, "trec") == 0};
    if (!f.make)
        return err_set(why, ERR_RANGE, "no task '%s': one of " ZO_PREPARE_TASKS, task);
    FILE *in = fopen(path, "rb");
    if (!in)
        return err_set(why, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "%s: %s", path, strerror(errno));
    f.examples = json_array();
    enum err e = f.examples ? read_file(&f, in, why) : ERR_NOMEM;
    fclose(in);
    if (!e) {
        e = write_all(out, n, f.examples, limit, seed);
        if (e)
            e = err_set(why, e, "writing the examples: %s", strerror(errno));
    }
    json_decref(f.examples);
    json_decref(f.columns);
    return e;
}
