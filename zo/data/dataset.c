#include <onebyte/zo/dataset.h>
#include "zo/data/tok.h"
#include "zo/data/utf8.h"
#include <errno.h>
#include <string.h>

enum { CHOICES_MAX = 1024, MESSAGES_MAX = 256 };

struct zo_dataset {
    struct zo_example *v;
    size_t n, cap;
    uint64_t cut_tokens, cut_examples;
};

/* What is needed to turn one line into an example. */
struct reader {
    const struct zo_tokenizer *t;
    uint32_t length_max;
    struct err_why *why; /* what is wrong, without FILE:LINE */
};

static void seq_free(struct zo_seq *s)
{
    free(s->ids);
    free(s->counted);
    *s = (struct zo_seq){0};
}

static void example_free(struct zo_example *x)
{
    for (uint32_t i = 0; i < x->n_seqs; i++)
        seq_free(&x->seqs[i]);
    free(x->seqs);
    free(x->answer);
    *x = (struct zo_example){0};
}

/* ---- tokens ---- */

static enum err encode(const struct reader *r, struct ids *out, const char *text, size_t n, bool special)
{
    ids_free(out);
    const enum err e = zo_tokenizer_encode(r->t, text, n, special, &out->v, &out->n);
    out->cap = out->n;
    if (e == ERR_NOTFOUND)
        return err_set(r->why, ERR_FORMAT,
                       "a word is not in the vocabulary, and the tokenizer has no unknown token");
    if (e == ERR_UNSUPPORTED)
        return err_set(r->why, e, "%s", ZO_TOKENIZER_UNSUPPORTED);
    return e;
}

/* Room for n_seqs sequences, all empty. */
static enum err example_init(struct zo_example *x, uint32_t n_seqs, int32_t label)
{
    *x = (struct zo_example){.label = label};
    x->seqs = calloc(n_seqs, sizeof *x->seqs);
    if (!x->seqs)
        return ERR_NOMEM;
    x->n_seqs = n_seqs;
    return ERR_OK;
}

/* *s takes the ids over; the tokens before `counted_from` do not count.  The first never does. */
static enum err seq_take(struct zo_seq *s, struct ids *ids, size_t counted_from)
{
    uint8_t *counted = calloc(ids->n + 1, 1);
    if (!counted)
        return ERR_NOMEM;
    if (counted_from == 0)
        counted_from = 1;
    if (ids->n > counted_from)
        memset(counted + counted_from, 1, ids->n - counted_from);
    *s = (struct zo_seq){.n = (uint32_t)ids->n, .ids = ids->v, .counted = counted};
    *ids = (struct ids){0};
    return ERR_OK;
}

/* Cuts a text at its end; what the post-processor puts after it ([SEP], </s>) stays. */
static uint32_t cut_text(const struct reader *r, struct ids *ids)
{
    const size_t over = ids->n > r->length_max ? ids->n - r->length_max : 0;
    const size_t after = r->t->post.after.n < r->length_max - 1 ? r->t->post.after.n : 0;
    if (over)
        memmove(ids->v + r->length_max - after, ids->v + ids->n - after, after * sizeof *ids->v);
    ids->n -= over;
    return (uint32_t)over;
}

/* A mask token tells an encoder: the end token is then no prediction of its own. */
static size_t uncounted_end(const struct zo_tokenizer *t)
{
    const bool encoder = zo_vocab_id(&t->added.vocab, "[MASK]", 6) != VOCAB_NONE ||
                         zo_vocab_id(&t->added.vocab, "<mask>", 6) != VOCAB_NONE;
    return encoder ? t->post.after.n : 0;
}

static enum err read_text(const struct reader *r, struct zo_example *x, const json_t *text, const json_t *label)
{
    struct ids ids = {0};
    const json_int_t class = json_is_integer(label) ? json_integer_value(label) : -1;
    if (!json_is_string(text))
        return err_set(r->why, ERR_FORMAT, "\"text\" is not a string");
    TRY(encode(r, &ids, json_string_value(text), json_string_length(text), true));
    enum err e = ERR_OK;
    if (ids.n < 2)
        e = err_set(r->why, ERR_FORMAT, "\"text\" has fewer than two tokens: nothing to predict");
    const uint32_t n_cut = cut_text(r, &ids);
    if (!e)
        e = example_init(x, 1, class >= 0 && class <= INT32_MAX ? (int32_t)class : -1);
    if (!e)
        e = seq_take(&x->seqs[0], &ids, 1);
    x->n_cut = n_cut;
    ids_free(&ids);
    return e;
}

/* One prompt with one completion, before cutting. */
struct joined {
    struct ids ids;
    size_t n_prompt; /* tokens that do not count */
};

static size_t common_prefix(const struct ids *a, const struct ids *b)
{
    size_t i = 0;
    while (i < a->n && i < b->n && a->v[i] == b->v[i])
        i++;
    return i;
}

/* Encodes prompt + completion together; `prompt_ids` are the prompt's own, with special tokens. */
static enum err join(const struct reader *r, struct joined *j, const json_t *prompt,
                     const struct ids *prompt_ids, const json_t *completion, const char *what)
{
    if (!json_is_string(completion))
        return err_set(r->why, ERR_FORMAT, "%s is not a string", what);
    if (json_string_length(completion) == 0)
        return err_set(r->why, ERR_FORMAT, "%s is empty: no loss to measure", what);
    struct buf b = {0};
    buf_add(&b, json_string_value(prompt), json_string_length(prompt));
    buf_add(&b, json_string_value(completion), json_string_length(completion));
    enum err e = b.oom ? ERR_NOMEM : encode(r, &j->ids, b.p, b.n, true);
    buf_free(&b);
    if (e)
        return e;
    /* An end token closes the prompt encoded alone, too: it is not part of the prompt. */
    struct ids head = *prompt_ids;
    head.n -= head.n >= r->t->post.after.n ? r->t->post.after.n : 0;
    j->n_prompt = common_prefix(&head, &j->ids);
    if (j->n_prompt == 0)
        j->n_prompt = 1; /* the first token has nothing before it */
    if (j->n_prompt >= j->ids.n)
        return err_set(r->why, ERR_FORMAT, "%s adds no token that can be predicted", what);
    return ERR_OK;
}

/* Drops `drop` prompt tokens after the first `keep`, then the completion's end. */
static uint32_t cut(struct joined *j, size_t keep, size_t drop, size_t length_max)
{
    struct ids *a = &j->ids;
    size_t n_cut = drop;
    memmove(a->v + keep, a->v + keep + drop, (a->n - keep - drop) * sizeof *a->v);
    a->n -= drop;
    j->n_prompt -= drop;
    if (a->n > length_max) {
        n_cut += a->n - length_max;
        a->n = length_max;
    }
    if (j->n_prompt >= a->n)
        j->n_prompt = a->n - 1; /* a choice whose border lies later than the others': its last token counts */
    return (uint32_t)n_cut;
}

/* All completions lose the same prompt tokens, so that they still share their prompt. */
static enum err cut_and_take(const struct reader *r, struct zo_example *x, struct joined *j)
{
    const size_t uncounted = uncounted_end(r->t);
    size_t keep = r->t->post.before.n, drop = 0, drop_max = SIZE_MAX;
    if (keep >= r->length_max - 1)
        keep = 0;
    for (uint32_t i = 0; i < x->n_seqs; i++) {
        const size_t over = j[i].ids.n > r->length_max ? j[i].ids.n - r->length_max : 0;
        const size_t least = keep ? keep : 1; /* something must stand before the completion */
        const size_t room = j[i].n_prompt > least ? j[i].n_prompt - least : 0;
        drop = over > drop ? over : drop;
        drop_max = room < drop_max ? room : drop_max;
    }
    drop = drop < drop_max ? drop : drop_max;
    for (uint32_t i = 0; i < x->n_seqs; i++) {
        x->n_cut += cut(&j[i], keep, drop, r->length_max);
        TRY(seq_take(&x->seqs[i], &j[i].ids, j[i].n_prompt));
        struct zo_seq *s = &x->seqs[i];
        const struct ids *end = &r->t->post.after;
        for (size_t k = 0; k < uncounted && s->n - k > j[i].n_prompt + 1; k++)
            if (s->ids[s->n - 1 - k] == end->v[end->n - 1 - k]) /* unless it was cut off */
                s->counted[s->n - 1 - k] = 0;
    }
    return ERR_OK;
}

/* The prompt with each of the completions [n] (a string, or a list). */
static enum err read_completions(const struct reader *r, struct zo_example *x, const json_t *prompt,
                                 const json_t *list, uint32_t n, int32_t label)
{
    struct ids prompt_ids = {0};
    struct joined *j = calloc(n, sizeof *j);
    enum err e = j ? encode(r, &prompt_ids, json_string_value(prompt), json_string_length(prompt), true)
                   : ERR_NOMEM;
    for (uint32_t i = 0; i < n && !e; i++) {
        char what[64] = "\"completion\"";
        if (json_is_array(list))
            (void)snprintf(what, sizeof what, "choice %u", i);
        e = join(r, &j[i], prompt, &prompt_ids, json_is_array(list) ? json_array_get(list, i) : list,
                 what);
    }
    if (!e)
        e = example_init(x, n, label);
    if (!e)
        e = cut_and_take(r, x, j);
    if (!e && label < 0 && !(x->answer = strdup(json_string_value(list))))
        e = ERR_NOMEM;
    for (uint32_t i = 0; j && i < n; i++)
        ids_free(&j[i].ids);
    free(j);
    ids_free(&prompt_ids);
    return e;
}

static enum err read_prompt(const struct reader *r, struct zo_example *x, const json_t *line)
{
    const json_t *prompt = zo_json_member(line, "prompt"), *label = zo_json_member(line, "label");
    const json_t *completion = zo_json_member(line, "completion");
    const json_t *choices = zo_json_member(line, "choices");
    if (!json_is_string(prompt))
        return err_set(r->why, ERR_FORMAT, "\"prompt\" is not a string");
    if (!completion == !choices)
        return err_set(r->why, ERR_FORMAT, "\"prompt\" needs either \"completion\" or \"choices\"");
    if (completion && !json_is_string(completion))
        return err_set(r->why, ERR_FORMAT, "\"completion\" is not a string");
    if (completion)
        return read_completions(r, x, prompt, completion, 1, -1);
    if (!json_is_array(choices) || json_array_size(choices) < 2 || json_array_size(choices) > CHOICES_MAX)
        return err_set(r->why, ERR_FORMAT, "\"choices\" is not a list of 2 to %d strings", CHOICES_MAX);
    const uint32_t n = (uint32_t)json_array_size(choices);
    if (!json_is_integer(label))
        return err_set(r->why, ERR_FORMAT, "\"label\" is missing or not an integer");
    if (json_integer_value(label) < 0 || json_integer_value(label) >= n)
        return err_set(r->why, ERR_FORMAT, "\"label\" is %lld, outside the %u choices (0 to %u)",
                       (long long)json_integer_value(label), n, n - 1);
    return read_completions(r, x, prompt, choices, n, (int32_t)json_integer_value(label));
}

/* ---- conversations ---- */

static enum err check_messages(const struct reader *r, const json_t *list)
{
    size_t i, n_assistant = 0;
    json_t *m;
    if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > MESSAGES_MAX)
        return err_set(r->why, ERR_FORMAT, "\"messages\" is not a list of 1 to %d messages", MESSAGES_MAX);
    json_array_foreach(list, i, m)
    {
        const char *role = zo_json_text(m, "role", NULL);
        if (!role || !zo_json_text(m, "content", NULL))
            return err_set(r->why, ERR_FORMAT, "message %zu needs \"role\" and \"content\", both text", i);
        n_assistant += strcmp(role, "assistant") == 0;
    }
    return n_assistant ? ERR_OK
                       : err_set(r->why, ERR_FORMAT, "no message of the assistant: no loss to measure");
}

/* *n <- tokens of `all` that stand for the first `upto` messages (with the prompt to answer, if asked).  `text` is the
 * whole conversation: the part must be its beginning, or the template rewrites earlier turns. */
static enum err turn_tokens(const struct reader *r, size_t *n, const json_t *messages, size_t upto, bool prompt,
                            const struct buf *text, const struct ids *all)
{
    struct buf part = {0};
    struct ids ids = {0};
    enum err e = upto || prompt ? zo_chat_render(&r->t->chat, &part, messages, upto, prompt, r->why) : ERR_OK;
    if (!e && (part.n > text->n || (part.n && memcmp(part.p, text->p, part.n) != 0)))
        e = ERR_AGAIN;
    if (!e && part.n)
        e = encode(r, &ids, part.p, part.n, false);
    if (!e)
        *n = common_prefix(&ids, all);
    ids_free(&ids);
    buf_free(&part);
    return e;
}

/* *from, *to <- the bytes of `text` that come from the content of message i: where the text changes when the content does.
 * Whole characters.  Empty if the content is not in the text. */
static enum err content_bytes(const struct reader *r, size_t *from, size_t *to, const json_t *messages, size_t i,
                              const struct buf *text)
{
    struct buf other = {0};
    json_t *changed = json_deep_copy(messages);
    if (!changed || json_object_set_new(json_array_get(changed, i), "content", json_string("\xEE\x80\x80")) != 0) {
        json_decref(changed);
        return ERR_NOMEM;
    }
    const enum err e =
        zo_chat_render(&r->t->chat, &other, changed, json_array_size(changed), false, r->why);
    json_decref(changed);
    const size_t n = text->n < other.n ? text->n : other.n;
    size_t head = 0, tail = 0;
    while (head < n && text->p[head] == other.p[head])
        head++;
    while (tail < n - head && text->p[text->n - 1 - tail] == other.p[other.n - 1 - tail])
        tail++;
    buf_free(&other);
    while (head > 0 && ((uint8_t)text->p[head] & 0xC0) == 0x80)
        head--;
    while (tail > 0 && ((uint8_t)text->p[text->n - tail] & 0xC0) == 0x80)
        tail--;
    *from = head;
    *to = text->n - tail;
    return e;
}

/* For templates that write a turn differently when more follow (an earlier answer's reasoning is dropped, say): the
 * tokens of what is left of the content, and the special token that ends the turn. */
static enum err count_content(const struct reader *r, uint8_t *counted, const json_t *messages, size_t i,
                              const struct buf *text, const struct ids *all)
{
    size_t bytes[2] = {0}, tokens[2] = {0};
    enum err e = content_bytes(r, &bytes[0], &bytes[1], messages, i, text);
    if (!e && bytes[1] <= bytes[0])
        return err_set(r->why, ERR_UNSUPPORTED, "the chat template leaves the answer in message %zu out", i);
    for (size_t k = 0; k < 2 && !e; k++) {
        struct ids part = {0};
        e = encode(r, &part, text->p, bytes[k], false);
        tokens[k] = common_prefix(&part, all);
        ids_free(&part);
    }
    if (!e && tokens[1] < all->n && zo_added_special(&r->t->added, all->v[tokens[1]]))
        tokens[1]++;
    for (size_t k = tokens[0] ? tokens[0] : 1; !e && k < tokens[1]; k++)
        counted[k] = 1;
    return e;
}

/* counted <- 1 for the tokens of assistant message i: what the template adds for it after its own prompt to answer. */
static enum err count_turn(const struct reader *r, uint8_t *counted, const json_t *messages, size_t i,
                           const struct buf *text, const struct ids *all)
{
    size_t from = 0, to = 0;
    enum err e = turn_tokens(r, &from, messages, i, true, text, all);
    if (e) /* some templates have no prompt to answer, or cannot stop there */
        e = turn_tokens(r, &from, messages, i, false, text, all);
    if (!e && i + 1 == json_array_size(messages))
        to = all->n;
    else if (!e)
        e = turn_tokens(r, &to, messages, i + 1, false, text, all);
    if (e == ERR_AGAIN)
        return count_content(r, counted, messages, i, text, all);
    for (size_t k = from ? from : 1; !e && k < to; k++)
        counted[k] = 1;
    return e;
}

/* Cut to length: first what stands before the first counted token, then the end. */
static void cut_messages(const struct reader *r, struct zo_example *x, struct ids *ids, uint8_t *counted)
{
    size_t first = 1;
    while (first < ids->n && !counted[first])
        first++;
    const size_t over = ids->n > r->length_max ? ids->n - r->length_max : 0;
    const size_t drop = over < first - 1 ? over : first - 1;
    memmove(ids->v + 1, ids->v + 1 + drop, (ids->n - 1 - drop) * sizeof *ids->v);
    memmove(counted + 1, counted + 1 + drop, ids->n - 1 - drop);
    ids->n -= over;
    x->n_cut = (uint32_t)over;
}

/* What the assistant says in a conversation's last message, if its tokens are the only ones that count; NULL: else. */
static char *answer_of(const json_t *messages, const uint8_t *counted, size_t n)
{
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    size_t turns = 0;
    for (size_t i = 1; i < n; i++)
        turns += counted[i] && !counted[i - 1];
    return turns == 1 && strcmp(zo_json_text(last, "role", ""), "assistant") == 0
               ? strdup(zo_json_text(last, "content", ""))
               : NULL;
}

static enum err read_messages(const struct reader *r, struct zo_example *x, const json_t *messages)
{
    struct buf text = {0};
    struct ids ids = {0};
    uint8_t *counted = NULL;
    TRY(check_messages(r, messages));
    enum err e = zo_chat_render(&r->t->chat, &text, messages, json_array_size(messages), false, r->why);
    if (!e)
        e = encode(r, &ids, text.p ? text.p : "", text.n, false);
    if (!e && !(counted = calloc(ids.n + 1, 1)))
        e = ERR_NOMEM;
    for (size_t i = 0; i < json_array_size(messages) && !e; i++)
        if (strcmp(zo_json_text(json_array_get(messages, i), "role", ""), "assistant") == 0)
            e = count_turn(r, counted, messages, i, &text, &ids);
    if (!e && !memchr(counted, 1, ids.n + 1))
        e = err_set(r->why, ERR_FORMAT, "the assistant's turns have no token that can be predicted");
    if (!e)
        e = example_init(x, 1, -1);
    if (!e) {
        cut_messages(r, x, &ids, counted);
        x->answer = answer_of(messages, counted, ids.n);
        x->seqs[0] = (struct zo_seq){.n = (uint32_t)ids.n, .ids = ids.v, .counted = counted};
        ids = (struct ids){0};
        counted = NULL;
    }
    free(counted);
    ids_free(&ids);
    buf_free(&text);
    return e;
}

/* ---- lines ---- */

static enum err read_object(const struct reader *r, struct zo_example *x, const json_t *line)
{
    if (!json_is_object(line))
        return err_set(r->why, ERR_FORMAT, "not a JSON object");
    const json_t *text = zo_json_member(line, "text"), *prompt = zo_json_member(line, "prompt");
    const json_t *messages = zo_json_member(line, "messages");
    if ((text != NULL) + (prompt != NULL) + (messages != NULL) > 1)
        return err_set(r->why, ERR_FORMAT, "more than one of \"text\", \"prompt\", \"messages\": which is meant?");
    if (messages)
        return read_messages(r, x, messages);
    if (text)
        return read_text(r, x, text, zo_json_member(line, "label"));
    if (prompt)
        return read_prompt(r, x, line);
    return err_set(r->why, ERR_FORMAT,
                   "none of \"text\", \"prompt\" or \"messages\" in it: not an example");
}

static bool is_blank(const char *line, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r' && line[i] != '\n')
            return false;
    return true;
}

static enum err read_line(struct zo_dataset *d, const struct reader *r, const char *line, size_t n)
{
    void *p = d->v;
    if (!buf_grow(&p, &d->cap, d->n, 1, sizeof *d->v))
        return ERR_NOMEM;
    d->v = p;
    if (!zo_utf8_valid(line, n))
        return err_set(r->why, ERR_FORMAT, "not valid UTF-8");
    json_error_t at;
    json_t *v = json_loadb(line, n, JSON_ALLOW_NUL | JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &at);
    if (!v)
        return err_set(r->why, ERR_FORMAT, "not JSON: %s (column %d)", at.text, at.column);
    struct zo_example x = {0};
    const enum err e = read_object(r, &x, v);
    json_decref(v);
    if (e) {
        example_free(&x);
        return e;
    }
    d->cut_tokens += x.n_cut;
    d->cut_examples += x.n_cut > 0;
    d->v[d->n++] = x;
    return ERR_OK;
}

static enum err read_file(struct zo_dataset *d, const struct reader *r, FILE *f, const char *path,
                          struct err_why *why)
{
    char *line = NULL;
    size_t cap = 0, number = 0;
    enum err e = ERR_OK;
    ssize_t n;
    while (!e && (n = zo_getline(&line, &cap, f)) >= 0) {
        const size_t skip = number++ == 0 && n >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
        if (is_blank(line + skip, (size_t)n - skip))
            continue;
        *r->why = (struct err_why){0};
        e = read_line(d, r, line + skip, (size_t)n - skip);
        if (e)
            e = err_set(why, e, "%s:%zu: %s", path, number, *r->why->text ? r->why->text : err_str(e));
    }
    if (!e)
        e = zo_getline_end(f, path, number, why);
    free(line);
    if (!e && d->n == 0)
        e = err_set(why, ERR_FORMAT, "%s: empty: no example in it", path);
    return e;
}

enum err zo_dataset_open(struct zo_dataset **out, const char *path, const struct zo_tokenizer *t,
                         uint32_t length_max, struct err_why *why)
{
    struct err_why inner = {0};
    const struct reader r = {.t = t, .length_max = length_max, .why = &inner};
    if (length_max < 2)
        return err_set(why, ERR_RANGE, "the length limit is %u tokens: at least 2 are needed", length_max);
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_set(why, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, "%s: %s", path, strerror(errno));
    struct zo_dataset *d = calloc(1, sizeof *d);
    enum err e = d ? read_file(d, &r, f, path, why) : ERR_NOMEM;
    fclose(f);
    if (e)
        zo_dataset_free(d);
    else
        *out = d;
    return e;
}

void zo_dataset_free(struct zo_dataset *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->n; i++)
        example_free(&d->v[i]);
    free(d->v);
    free(d);
}

uint64_t zo_dataset_size(const struct zo_dataset *d)
{
    return d->n;
}

const struct zo_example *zo_dataset_get(const struct zo_dataset *d, uint64_t i)
{
    ENSURE(i < d->n);
    return &d->v[i];
}

uint64_t zo_dataset_cut_tokens(const struct zo_dataset *d)
{
    return d->cut_tokens;
}

uint64_t zo_dataset_cut_examples(const struct zo_dataset *d)
{
    return d->cut_examples;
}
