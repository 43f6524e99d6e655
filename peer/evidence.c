#include "peer/evidence.h"
#include "peer/device.h"
#include "peer/fold_log.h"
#include "peer/json_out.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void peer_evidence_free(struct peer_evidence *e)
{
    free(e->frontier);
    free(e->records);
    peer_branches_free(&e->branches);
    memset(e, 0, sizeof *e);
}

/* ---- writing ---- */

static json_t *wire_hex(const struct net_segment *s)
{
    uint8_t wire[NET_SEGMENT_BYTES_MAX];
    return peer_json_hex(wire, net_segment_write(wire, s));
}

static json_t *to_json(const struct peer_evidence *e)
{
    json_t *branches = json_array(), *records = json_array();
    for (size_t i = 0; i < e->branches.n; i++)
        json_array_append_new(branches, json_pack("{s:o, s:o}", "machine", peer_json_hex(e->branches.b[i].machine, 32), "segment",
                                                  peer_json_hex(e->branches.b[i].wire, e->branches.b[i].n)));
    for (size_t i = 0; i < e->n_records; i++) {
        const struct peer_finding *f = &e->records[i];
        json_array_append_new(records, json_pack("{s:I, s:i, s:o, s:o, s:o}", "seq", (json_int_t)f->seq, "code", f->code, "want",
                                                 peer_json_real(f->want), "tolerance", peer_json_real(f->tolerance), "loss",
                                                 peer_json_real(f->loss)));
    }
    return json_pack("{s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "onebyte", "evidence", "version", 1, "run_id",
                     peer_json_hex(e->run_id, 32), "machine", peer_json_hex(e->machine, 32), "prev", peer_json_hex(e->prev, 32),
                     "segment", wire_hex(&e->segment), "frontier", peer_json_hex(e->frontier, e->n_frontier), "signature",
                     peer_json_hex(e->sig, 64), "branches", branches, "records", records);
}

enum err peer_evidence_save(const struct peer_evidence *e, const char *path, struct err_why *why)
{
    json_t *o = to_json(e);
    char *text = o ? json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(o);
    if (!text)
        return err_set(why, ERR_NOMEM, "out of memory");
    const enum err code = peer_write_file(path, text, strlen(text), 0644, why);
    free(text);
    return code;
}

/* ---- reading ---- */

static enum err wrong(struct err_why *why, const char *field)
{
    return err_set(why, ERR_FORMAT, "evidence: field '%s' is missing or not what it should be", field);
}

static enum err get_hex(const json_t *o, const char *key, uint8_t *out, size_t n, struct err_why *why)
{
    const char *hex = json_string_value(json_object_get(o, key));
    return hex && net_unhex(out, n, hex) == ERR_OK ? ERR_OK : wrong(why, key);
}

/* *out (malloc'd) [*n] <- a text of hex digits, at most max bytes. */
static enum err get_bytes(const json_t *o, const char *key, uint8_t **out, size_t *n, size_t max, struct err_why *why)
{
    const json_t *text = json_object_get(o, key);
    const size_t digits = json_string_length(text);
    if (!json_is_string(text) || digits % 2 != 0 || digits / 2 > max)
        return wrong(why, key);
    uint8_t *p = malloc(digits / 2 + 1);
    if (!p)
        return err_set(why, ERR_NOMEM, "out of memory");
    if (net_unhex(p, digits / 2, json_string_value(text)) != ERR_OK) {
        free(p);
        return wrong(why, key);
    }
    *out = p;
    *n = digits / 2;
    return ERR_OK;
}

static enum err read_segment(struct net_segment *s, const json_t *o, struct err_why *why)
{
    uint8_t *wire = NULL;
    size_t n = 0;
    TRY(get_bytes(o, "segment", &wire, &n, NET_SEGMENT_BYTES_MAX, why));
    const enum err e = net_segment_parse(s, wire, n);
    free(wire);
    return e == ERR_OK ? ERR_OK : wrong(why, "segment");
}

static enum err read_branches(struct peer_evidence *e, const json_t *list, struct err_why *why)
{
    if (!json_is_array(list))
        return wrong(why, "branches");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        uint8_t machine[32], *wire = NULL;
        size_t n = 0;
        TRY(get_hex(o, "machine", machine, 32, why));
        TRY(get_bytes(o, "segment", &wire, &n, NET_SEGMENT_BYTES_MAX, why));
        const enum err added = peer_branches_add(&e->branches, machine, wire, n);
        free(wire);
        if (added != ERR_OK)
            return err_set(why, added, "out of memory");
    }
    return ERR_OK;
}

static enum err read_records(struct peer_evidence *e, const json_t *list, struct err_why *why)
{
    const size_t n = json_array_size(list);
    if (!json_is_array(list) || n == 0 || n > LIMIT_SEGMENT_COUNT)
        return wrong(why, "records");
    e->records = calloc(n, sizeof *e->records);
    if (!e->records)
        return err_set(why, ERR_NOMEM, "out of memory");
    e->n_records = n;
    for (size_t i = 0; i < n; i++) {
        const json_t *seq = json_object_get(json_array_get(list, i), "seq");
        if (!json_is_integer(seq) || json_integer_value(seq) < 0)
            return wrong(why, "records");
        e->records[i].seq = (uint64_t)json_integer_value(seq);
    }
    return ERR_OK;
}

static enum err read_all(struct peer_evidence *e, const json_t *o, struct err_why *why)
{
    const char *kind = json_string_value(json_object_get(o, "onebyte"));
    if (!kind || strcmp(kind, "evidence") != 0)
        return err_set(why, ERR_FORMAT, "not an evidence file of onebyte audit");
    if (json_integer_value(json_object_get(o, "version")) != 1)
        return err_set(why, ERR_UNSUPPORTED, "evidence of another version: update onebyte");
    TRY(get_hex(o, "run_id", e->run_id, 32, why));
    TRY(get_hex(o, "machine", e->machine, 32, why));
    TRY(get_hex(o, "prev", e->prev, 32, why));
    TRY(get_hex(o, "signature", e->sig, 64, why));
    TRY(read_segment(&e->segment, o, why));
    TRY(get_bytes(o, "frontier", &e->frontier, &e->n_frontier, (size_t)LIMIT_FEEDS * PEER_FRONTIER_ENTRY, why));
    TRY(read_branches(e, json_object_get(o, "branches"), why));
    return read_records(e, json_object_get(o, "records"), why);
}

enum err peer_evidence_parse(struct peer_evidence *e, const char *text, size_t n, struct err_why *why)
{
    json_error_t bad;
    memset(e, 0, sizeof *e);
    json_t *o = n <= PEER_EVIDENCE_BYTES_MAX ? json_loadb(text, n, JSON_REJECT_DUPLICATES, &bad) : NULL;
    if (!o)
        return err_set(why, ERR_FORMAT, "evidence: not JSON");
    const enum err code = read_all(e, o, why);
    json_decref(o);
    if (code != ERR_OK)
        peer_evidence_free(e);
    return code;
}

enum err peer_evidence_load(struct peer_evidence *e, const char *path, struct err_why *why)
{
    char *text = NULL;
    size_t n = 0;
    memset(e, 0, sizeof *e);
    TRY(peer_read_file(&text, &n, path, PEER_EVIDENCE_BYTES_MAX, why));
    const enum err code = peer_evidence_parse(e, text, n, why);
    free(text);
    return code;
}

/* ---- verifying ---- */

enum err peer_evidence_check(const struct peer_evidence *e, const struct net_rules *r, struct err_why *why)
{
    const struct net_segment *s = &e->segment;
    uint8_t id[32], hash[32];
    bool named[LIMIT_SEGMENT_COUNT] = {false};
    if (memcmp(e->run_id, r->run_id, 32) != 0)
        return err_set(why, ERR_PROTO, "the evidence is of another run");
    if (!peer_frontier_sorted(e->frontier, e->n_frontier))
        return err_set(why, ERR_PROTO, "the evidence's frontier is not one");
    for (size_t i = 0; i < e->n_records; i++) {
        if (e->records[i].seq < s->first_seq || e->records[i].seq - s->first_seq >= s->count)
            return err_set(why, ERR_PROTO, "record %" PRIu64 " is not of the evidence's segment", e->records[i].seq);
        if (named[e->records[i].seq - s->first_seq])
            return err_set(why, ERR_PROTO, "the evidence names record %" PRIu64 " twice", e->records[i].seq);
        named[e->records[i].seq - s->first_seq] = true;
    }
    if (net_segment_check(s, r, e->machine, e->prev, s->first_seq, 0) != ERR_OK)
        return err_set(why, ERR_PROTO, "the segment is not signed by the machine that the evidence names");
    net_segment_id(id, s, r->run_id, e->machine, e->prev);
    net_hash(hash, &(const struct net_part){e->frontier, e->n_frontier}, 1);
    if (net_audit_check(e->sig, r, e->machine, id, hash) != ERR_OK)
        return err_set(why, ERR_PROTO, "the machine did not sign that this segment was measured at this frontier");
    return ERR_OK;
}

struct folding {
    struct peer_engine *e;
    struct peer_folds folds;
    enum err failed;
};

static void fold_row(void *ctx, const uint8_t machine[32], const struct net_segment *s, const uint8_t *counts, bool subtract)
{
    struct folding *f = ctx;
    if (f->failed == ERR_OK && peer_folds_full(&f->folds))
        f->failed = peer_folds_flush(&f->folds, f->e);
    if (f->failed == ERR_OK)
        peer_folds_put(&f->folds, f->e->manifest, machine, s, counts, subtract);
}

static enum err rebuild(const struct peer_evidence *e, struct peer_engine *engine, const struct net_gossip *g, struct err_why *why)
{
    struct folding f = {.e = engine};
    uint8_t missing[32], binding[8];
    char hex[65];
    if (peer_folds_init(&f.folds, 256) != ERR_OK)
        return err_set(why, ERR_NOMEM, "out of memory");
    enum err code =
        peer_audit_between(g, (const uint8_t *)"", 0, e->frontier, e->n_frontier, e->branches.b, e->branches.n, fold_row, &f, missing);
    if (code == ERR_OK)
        code = f.failed;
    if (code == ERR_OK)
        code = peer_folds_flush(&f.folds, engine);
    peer_folds_release(&f.folds);
    if (code == ERR_NOTFOUND) {
        net_hex(hex, missing, 32);
        return err_set(why, code, "the ledger does not hold what the frontier names of machine %.16s: use a ledger that does", hex);
    }
    if (code != ERR_OK)
        return err_set(why, code, "cannot rebuild the parameters: %s", err_str(code));
    uint64_t digest = 0;
    code = peer_engine_digest_u64(engine, &digest);
    if (code != ERR_OK)
        return err_set(why, code, "cannot rebuild the parameters: %s", peer_engine_error(engine, code));
    peer_binding(binding, digest, e->frontier, e->n_frontier);
    if (memcmp(binding, e->segment.binding, sizeof binding) != 0)
        return err_set(why, ERR_PROTO, "the frontier does not make the parameters that the segment names: no evidence");
    return ERR_OK;
}

static enum err measure_record(struct peer_finding *f, const struct peer_evidence *e, struct peer_engine *engine,
                               const struct zo_dataset *d, struct err_why *why)
{
    const struct zo_rules *r = &engine->manifest->rules;
    double g[LIMIT_SEGMENT_COUNT], loss = 0;
    uint32_t key[2];
    const uint64_t seq = f->seq - f->seq % r->k;
    net_stream_key(key, e->run_id, e->machine);
    const enum err code = peer_audit_measure(engine, d, key, &seq, 1, g, &loss);
    if (code != ERR_OK)
        return err_set(why, code, "cannot measure record %" PRIu64 ": %s", f->seq, err_str(code));
    f->code = e->segment.codes[f->seq - e->segment.first_seq];
    f->loss = loss;
    f->verdict = peer_judge(r, f->code, e->segment.r_f16, g[f->seq % r->k], loss, &f->want, &f->tolerance);
    return ERR_OK;
}

enum err peer_evidence_verify(struct peer_evidence *e, struct peer_engine *engine, const struct zo_dataset *d,
                              const struct net_gossip *g, size_t *off, struct err_why *why)
{
    TRY(peer_evidence_check(e, &engine->manifest->net, why));
    TRY(rebuild(e, engine, g, why));
    uint8_t id[32];
    net_segment_id(id, &e->segment, e->run_id, e->machine, e->prev);
    e->header = peer_judge_header(g, &engine->manifest->net, e->machine, id, &e->segment, e->frontier, e->n_frontier);
    *off = 0;
    for (size_t i = 0; i < e->n_records; i++) {
        TRY(measure_record(&e->records[i], e, engine, d, why));
        *off += e->records[i].verdict == PEER_OFF;
    }
    return ERR_OK;
}
