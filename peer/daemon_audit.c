/* Audits (DESIGN 6): our answers to auditors, and our own questions about others' records.
 *
 * One segment at a time: its author is asked for the frontier it was measured at (net/audit.h); between two segments of our own
 * the compute actor folds to that frontier, measures some of its records again and folds back (peer/audit.h); a byte that no
 * honest machine sends goes into an evidence file, home/audits/MACHINE-SEQ.json, for the run's owner. */
#include "peer/daemon_in.h"
#include "peer/evidence.h"
#include "peer/judge.h"
#include "peer/json_out.h"
#include "peer/log.h"
#include <inttypes.h>
#include <onebyte/net/audit.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

enum {
    RECENT = 16,                 /* in the background: of the last so many segments */
    ATTEMPTS = 3,                /* to get an answer */
    RECORDS_AT_ONCE = 8,         /* a background audit waits until it may measure so many */
    EVIDENCE_MAX = 256,          /* files, one process */
    DIFF_BYTES_MAX = 128 << 20,  /* of records between two frontiers; further away: not audited */
    FRONTIER_BYTES_MAX = LIMIT_FEEDS * PEER_FRONTIER_ENTRY,
};
static const uint64_t answer_ns = 5 * NS, patience_ns = 15 * NS;
static const char *const reasons[AUDIT_REASONS] = {"no_answer", "not_there", "gone", "too_far", "unbound", "memory"};

static uint64_t below(uint64_t n)
{
    uint64_t x = 0; /* which records are checked must not be guessed */
    if (getrandom(&x, sizeof x, 0) != (ssize_t)sizeof x)
        x = daemon_now();
    return (uint64_t)((unsigned __int128)x * n >> 64);
}

/* ---- answers ---- */

void daemon_audit_start(struct daemon *d)
{
    if (d->m->public_data && peer_fold_log_open(&d->audit.log, d->o.home->dir, FOLD_LOG_BYTES) != ERR_OK)
        d->audit.log = NULL;
}

void daemon_audit_sealed(struct daemon *d, const struct peer_msg_sealed *s, const uint8_t id[32])
{
    struct audit *a = &d->audit;
    const double most = 4.0 * PEER_AUDIT_GROUPS * d->m->rules.k + RECORDS_AT_ONCE;
    a->credit += d->m->audit * s->count;
    a->credit = a->credit < most ? a->credit : most;
    if (a->log && peer_fold_log_add(a->log, id, s->digest, s->frontier, s->n_frontier) != ERR_OK)
        peer_log(PEER_DEBUG, "audit", "reason=\"the log of folds cannot be written\"");
}

/* told, told_hash, told_sig <- the frontier of our segment id.  false: not there. */
static bool answer_for(struct daemon *d, const uint8_t id[32])
{
    struct audit *a = &d->audit;
    uint8_t *frontier = NULL;
    size_t n = 0;
    uint64_t digest = 0;
    if (a->told && memcmp(a->told_id, id, 32) == 0)
        return true;
    if (!a->log || peer_fold_log_find(a->log, id, &frontier, &n, &digest) != ERR_OK)
        return false;
    free(a->told);
    a->told = frontier;
    a->n_told = n;
    memcpy(a->told_id, id, 32);
    net_hash(a->told_hash, &(const struct net_part){frontier, n}, 1);
    net_audit_sign(a->told_sig, &d->m->net, &d->self, id, a->told_hash);
    return true;
}

void daemon_audit_asked(struct daemon *d, const struct net_action *action)
{
    struct audit *a = &d->audit;
    struct net_ask ask;
    if (net_ask_parse(&ask, action->frame, action->frame_bytes) != ERR_OK)
        return;
    struct net_tell t = {.offset = 0};
    memcpy(t.machine, d->self.id, 32);
    memcpy(t.id, ask.id, 32);
    if (answer_for(d, ask.id) && ask.offset <= a->n_told) {
        const size_t left = a->n_told - ask.offset;
        t.offset = ask.offset;
        t.total = (uint32_t)a->n_told;
        t.bytes = a->told + ask.offset;
        t.n = left < NET_TELL_PIECE ? left : NET_TELL_PIECE;
        memcpy(t.hash, a->told_hash, 32);
        memcpy(t.sig, a->told_sig, 64);
        a->answered++;
    } else {
        a->not_answered++;
    }
    net_gossip_tell(d->gossip, action->link, &t);
}

/* ---- one segment ---- */

static struct audit_sum *sum_of(struct daemon *d, const uint8_t machine[32])
{
    struct audit *a = &d->audit;
    for (size_t i = 0; i < a->n_machines; i++)
        if (memcmp(a->machines[i].id, machine, 32) == 0)
            return &a->machines[i].sum;
    if (!a->machines)
        a->machines = calloc(AUDIT_MACHINES, sizeof *a->machines);
    if (!a->machines || a->n_machines == AUDIT_MACHINES)
        return NULL; /* in the totals only */
    memcpy(a->machines[a->n_machines].id, machine, 32);
    return &a->machines[a->n_machines++].sum;
}

static void rest(struct daemon *d)
{
    struct audit *a = &d->audit;
    const uint64_t n = a->n_groups * d->m->rules.k;
    peer_audit_work_free(a->work);
    a->work = NULL;
    peer_branches_free(&a->branches);
    if (a->by_request) {
        a->left -= n < a->left ? n : a->left;
        a->requested = a->left > 0;
    }
    a->phase = AUDIT_IDLE;
}

static void not_audited(struct daemon *d, enum audit_reason why)
{
    struct audit *a = &d->audit;
    struct audit_sum *sums[] = {&a->all, sum_of(d, a->machine), a->by_request ? &a->request : NULL};
    char id[9];
    for (size_t i = 0; i < ARRAY_LEN(sums); i++)
        if (sums[i])
            sums[i]->not_audited[why] += a->n_groups * d->m->rules.k;
    peer_short_id(id, a->machine);
    peer_log(why == AUDIT_UNBOUND ? PEER_WARN : PEER_DEBUG, "not_audited", "machine=%s seq=%" PRIu64 " records=%zu reason=%s", id,
             a->segment.first_seq, a->n_groups * d->m->rules.k, reasons[why]);
    rest(d);
}

static void ask(struct daemon *d)
{
    struct audit *a = &d->audit;
    const uint64_t now = daemon_now();
    const bool sent = net_gossip_ask(d->gossip, a->machine, a->id, (uint32_t)a->got, a->attempts, now) == ERR_OK;
    a->until_ns = now + (sent ? answer_ns : NS); /* nobody to ask: again soon */
}

static void ready(struct daemon *d)
{
    struct audit *a = &d->audit;
    if (!peer_frontier_sorted(a->bytes, a->total)) {
        not_audited(d, AUDIT_UNBOUND);
        return;
    }
    for (size_t i = 0; i < a->total / PEER_FRONTIER_ENTRY; i++) {
        struct net_frontier_entry e, live = {.cut = UINT64_MAX};
        peer_frontier_get(a->bytes, i, &e);
        if (!net_gossip_feed(d->gossip, e.machine, &live))
            live.cut = UINT64_MAX;
        if (e.cut < live.cut) { /* cuts only fall: nobody could know this one yet, or ours is on its way */
            not_audited(d, AUDIT_GONE);
            return;
        }
    }
    a->phase = AUDIT_READY;
    a->ready_ns = daemon_now();
}

/* Some groups of the segment, no two alike, in order. */
static void choose_groups(struct daemon *d, uint64_t records)
{
    struct audit *a = &d->audit;
    const uint64_t k = d->m->rules.k, all = a->segment.count / k;
    uint64_t want = (records + k - 1) / k;
    want = want < 1 ? 1 : want > PEER_AUDIT_GROUPS ? PEER_AUDIT_GROUPS : want;
    a->n_groups = 0;
    for (uint64_t i = 0, left = want < all ? want : all; i < all && left > 0; i++)
        if (below(all - i) < left) { /* Knuth's selection sampling */
            a->seqs[a->n_groups++] = a->segment.first_seq + i * k;
            left--;
        }
}

static void begin(struct daemon *d, const uint8_t machine[32], uint64_t i, uint64_t records, bool by_request)
{
    struct audit *a = &d->audit;
    struct net_segment before;
    memset(a->prev, 0, sizeof a->prev);
    if (i > 0 && !net_gossip_segment(d->gossip, machine, i - 1, &before, a->prev, NULL))
        return;
    if (!net_gossip_segment(d->gossip, machine, i, &a->segment, a->id, NULL))
        return;
    memmove(a->machine, machine, 32);
    a->by_request = by_request;
    a->got = a->total = 0;
    a->attempts = 0;
    choose_groups(d, records);
    if (memcmp(machine, d->self.id, 32) != 0) {
        a->phase = AUDIT_ASK;
        ask(d);
        return;
    }
    uint8_t *p = answer_for(d, a->id) ? realloc(a->bytes, a->n_told + 1) : NULL;
    if (!p) {
        not_audited(d, AUDIT_NOT_THERE);
        return;
    }
    a->bytes = p;
    a->got = a->total = a->n_told;
    memcpy(a->bytes, a->told, a->n_told);
    memcpy(a->sig, a->told_sig, 64);
    ready(d);
}

void daemon_audit_told(struct daemon *d, const struct net_action *action)
{
    struct audit *a = &d->audit;
    struct net_tell t;
    uint8_t hash[32];
    if (net_tell_parse(&t, action->frame, action->frame_bytes) != ERR_OK || a->phase != AUDIT_ASK ||
        memcmp(t.machine, a->machine, 32) != 0 || memcmp(t.id, a->id, 32) != 0 || (t.total > 0 && t.offset != a->got))
        return;
    const bool of_author = net_audit_check(t.sig, &d->m->net, a->machine, a->id, t.hash) == ERR_OK;
    const bool same = a->got == 0 || (t.total == a->total && memcmp(t.hash, a->hash, 32) == 0);
    if (!of_author || !same || t.total > FRONTIER_BYTES_MAX) { /* "not here", or a relay's invention: another way */
        a->got = 0;
        if (++a->attempts < ATTEMPTS)
            ask(d);
        else
            not_audited(d, AUDIT_NOT_THERE);
        return;
    }
    uint8_t *p = a->got == 0 ? realloc(a->bytes, (size_t)t.total + 1) : a->bytes;
    if (!p)
        return;
    a->bytes = p;
    a->total = t.total;
    memcpy(a->hash, t.hash, 32);
    memcpy(a->sig, t.sig, 64);
    if (t.n > 0)
        memcpy(a->bytes + a->got, t.bytes, t.n);
    a->got += t.n;
    if (a->got < a->total) {
        ask(d);
        return;
    }
    net_hash(hash, &(const struct net_part){a->bytes, a->total}, 1);
    if (memcmp(hash, a->hash, 32) == 0)
        ready(d);
    else
        not_audited(d, AUDIT_NOT_THERE);
}

/* ---- to the compute actor and back ---- */

static struct peer_audit_work *make_work(struct daemon *d)
{
    struct audit *a = &d->audit;
    struct peer_audit_work *w = calloc(1, sizeof *w);
    uint8_t *frontier = malloc(a->total + 1);
    if (!w || !frontier) {
        free(w);
        free(frontier);
        return NULL;
    }
    memcpy(frontier, a->bytes, a->total);
    w->frontier = frontier;
    w->n_frontier = a->total;
    w->diff_bytes_max = DIFF_BYTES_MAX;
    memcpy(w->binding, a->segment.binding, 8);
    net_stream_key(w->key, d->m->run_id, a->machine);
    memcpy(w->seqs, a->seqs, sizeof w->seqs);
    w->n_groups = a->n_groups;
    return w;
}

static enum err between(struct daemon *d, struct peer_audit_work *w, const uint8_t *base, size_t n_base)
{
    struct audit *a = &d->audit;
    const enum err e = peer_audit_between(d->gossip, base, n_base, w->frontier, w->n_frontier, a->branches.b, a->branches.n,
                                          peer_audit_collect, w, NULL);
    for (size_t i = 0; e != ERR_OK && i < w->n_diff; i++)
        peer_msg_free(w->diff[i]);
    w->n_diff = e == ERR_OK ? w->n_diff : 0;
    w->diff_bytes = e == ERR_OK ? w->diff_bytes : 0;
    return e;
}

/* Only while the compute actor measures nothing: else it sends the work back. */
static void send_work(struct daemon *d)
{
    struct audit *a = &d->audit;
    size_t n = 0;
    if (d->snap.phase != SNAP_OFF)
        return;
    daemon_mark(d, true);
    uint8_t *base = daemon_frontier(d, &n);
    struct peer_audit_work *w = base ? make_work(d) : NULL;
    enum err e = w ? between(d, w, base, n) : ERR_NOMEM;
    if (e == ERR_NOTFOUND && a->branches.n == 0 && peer_branches_ledger(&a->branches, d->ledger) == ERR_OK)
        e = between(d, w, base, n);
    if (w)
        net_hash(w->base, &(const struct net_part){base, n}, 1);
    free(base);
    peer_audit_work_free(a->work);
    a->work = w;
    struct peer_msg_audit *m = e == ERR_OK && !w->failed ? peer_msg_new(PEER_MSG_AUDIT, sizeof *m) : NULL;
    if (!m) {
        not_audited(d, e == ERR_NOTFOUND ? AUDIT_GONE : e == ERR_OK && w->failed ? AUDIT_FAR : AUDIT_SHORT);
        return;
    }
    m->work = w;
    a->phase = AUDIT_WORK;
    peer_pipe_send(d->to_compute, m);
}

void daemon_audit_slot(struct daemon *d)
{
    if (d->audit.phase == AUDIT_READY)
        send_work(d);
}

/* ---- evidence ---- */

static void no_row(void *ctx, const uint8_t machine[32], const struct net_segment *s, const uint8_t *counts, bool subtract)
{
    (void)ctx, (void)machine, (void)s, (void)counts, (void)subtract;
}

/* What a newer ledger may lack: the accused's own segments, and what is cut off already. */
static enum err add_branches(struct daemon *d, struct peer_evidence *v)
{
    const struct audit *a = &d->audit;
    for (size_t i = 0; i < a->total / PEER_FRONTIER_ENTRY; i++) {
        struct net_frontier_entry e, none = {.cut = UINT64_MAX};
        struct net_segment s;
        uint8_t id[32], wire[NET_SEGMENT_BYTES_MAX];
        peer_frontier_get(a->bytes, i, &e);
        memcpy(none.machine, e.machine, 32);
        const bool accused = memcmp(e.machine, a->machine, 32) == 0;
        const bool live = net_gossip_between(d->gossip, &none, &e, NULL, 0, no_row, NULL) == ERR_OK;
        for (size_t j = 0; (accused || !live) && net_gossip_segment(d->gossip, e.machine, j, &s, id, NULL) && s.first_seq < e.count; j++)
            TRY(peer_branches_add(&v->branches, e.machine, wire, net_segment_write(wire, &s)));
        for (size_t j = 0; !live && j < a->branches.n; j++)
            if (memcmp(a->branches.b[j].machine, e.machine, 32) == 0)
                TRY(peer_branches_add(&v->branches, e.machine, a->branches.b[j].wire, a->branches.b[j].n));
    }
    return ERR_OK;
}

static void write_evidence(struct daemon *d, struct peer_finding *found, size_t n)
{
    struct audit *a = &d->audit;
    struct peer_evidence v = {.segment = a->segment, .frontier = a->bytes, .n_frontier = a->total, .records = found, .n_records = n};
    struct err_why why = {{0}};
    char dir[PEER_PATH_BYTES], path[PEER_PATH_BYTES + 64], id[17];
    if (a->evidence == EVIDENCE_MAX)
        return;
    memcpy(v.run_id, d->m->run_id, 32);
    memcpy(v.machine, a->machine, 32);
    memcpy(v.prev, a->prev, 32);
    memcpy(v.sig, a->sig, 64);
    net_hex(id, a->machine, 8);
    (void)mkdir(peer_home_path(d->o.home, "audits", dir), 0700);
    (void)snprintf(path, sizeof path, "%s/%s-%" PRIu64 ".json", dir, id, a->segment.first_seq);
    enum err e = add_branches(d, &v);
    if (e == ERR_OK)
        e = peer_evidence_save(&v, path, &why);
    peer_branches_free(&v.branches); /* the rest is borrowed */
    if (e != ERR_OK) {
        peer_log(PEER_WARN, "audit", "reason=\"the evidence could not be written\"");
        return;
    }
    a->evidence++;
    if (a->by_request && a->n_files < AUDIT_FILES)
        (void)snprintf(a->files[a->n_files++], sizeof a->files[0], "%s", path);
    peer_log(PEER_WARN, "audit", "machine=%.8s evidence=%s", id, path);
}

static void judge(struct daemon *d)
{
    struct audit *a = &d->audit;
    const struct zo_rules *r = &d->m->rules;
    struct audit_sum *sums[] = {&a->all, sum_of(d, a->machine), a->by_request ? &a->request : NULL};
    struct peer_finding found[LIMIT_SEGMENT_COUNT];
    const size_t n = a->n_groups * r->k;
    size_t off = 0, unsure = 0, worst = 0;
    char id[9];
    const char *header = peer_judge_header(d->gossip, &d->m->net, a->machine, a->id, &a->segment, a->bytes, a->total);
    ENSURE(n > 0 && n <= LIMIT_SEGMENT_COUNT);
    for (size_t i = 0; i < n; i++) {
        const uint64_t seq = a->seqs[i / r->k] + i % r->k;
        found[i] = (struct peer_finding){.seq = seq, .code = a->segment.codes[seq - a->segment.first_seq], .loss = a->work->loss[i / r->k]};
        found[i].verdict = peer_judge(r, found[i].code, a->segment.r_f16, a->work->g[i], found[i].loss, &found[i].want,
                                      &found[i].tolerance);
        off += found[i].verdict == PEER_OFF;
        unsure += found[i].verdict == PEER_UNSURE;
        worst = found[i].verdict == PEER_OFF ? i : worst;
    }
    off = header ? n : off; /* its weight or its step is false: so is every record */
    for (size_t i = 0; i < ARRAY_LEN(sums); i++)
        if (sums[i]) {
            sums[i]->audited += n;
            sums[i]->off += off;
            sums[i]->unsure += unsure;
        }
    peer_short_id(id, a->machine);
    peer_log(off ? PEER_WARN : PEER_DEBUG, "audited", "machine=%s seq=%" PRIu64 " records=%zu off=%zu code=%d want=%.4g header=\"%s\"", id,
             a->segment.first_seq, n, off, found[worst].code, found[worst].want, header ? header : "");
    if (off)
        write_evidence(d, found, n);
    rest(d);
}

void daemon_audit_done(struct daemon *d, struct peer_msg_audit *m)
{
    struct audit *a = &d->audit;
    if (a->phase != AUDIT_WORK || m->work != a->work)
        return;
    switch (a->work->outcome) {
    case PEER_AUDIT_BUSY:
        a->phase = AUDIT_READY;
        break;
    case PEER_AUDIT_MISMATCH:
        not_audited(d, AUDIT_UNBOUND);
        break;
    case PEER_AUDIT_FAILED:
        not_audited(d, AUDIT_SHORT);
        break;
    case PEER_AUDIT_MEASURED:
        judge(d);
        break;
    }
}

/* ---- whom, and when ---- */

static void begin_request(struct daemon *d)
{
    struct audit *a = &d->audit;
    while (a->done < a->of && a->phase == AUDIT_IDLE) {
        const uint64_t i = a->done++;
        begin(d, a->wanted, (a->first + i * a->stride) % a->of, a->left, true);
    }
    if (a->phase == AUDIT_IDLE) { /* no segment is left */
        a->left = 0;
        a->requested = false;
    }
}

static uint64_t divisor(uint64_t a, uint64_t b)
{
    while (b) {
        const uint64_t rest_of = a % b;
        a = b;
        b = rest_of;
    }
    return a;
}

static void begin_any(struct daemon *d)
{
    struct audit *a = &d->audit;
    struct net_feed_view v;
    size_t n = 0;
    while (net_gossip_feed_at(d->gossip, n, &v))
        n++;
    if (n == 0 || !net_gossip_feed_at(d->gossip, (size_t)below(n), &v) || v.segments == 0 || v.entry.count >= v.entry.cut ||
        memcmp(v.entry.machine, d->self.id, 32) == 0)
        return; /* another one next time */
    const uint64_t recent = v.segments < RECENT ? v.segments : RECENT;
    begin(d, v.entry.machine, v.segments - 1 - below(recent), (uint64_t)a->credit, false);
    if (a->phase != AUDIT_IDLE)
        a->credit -= (double)(a->n_groups * d->m->rules.k);
}

void daemon_audit_tick(struct daemon *d)
{
    struct audit *a = &d->audit;
    const uint64_t now = daemon_now();
    const double once = d->m->rules.k < RECORDS_AT_ONCE ? RECORDS_AT_ONCE : d->m->rules.k;
    if (!d->o.data || d->quit || d->snap.phase != SNAP_OFF)
        return;
    switch (a->phase) {
    case AUDIT_IDLE:
        if (a->requested)
            begin_request(d);
        else if (d->m->audit > 0 && a->credit >= once)
            begin_any(d);
        break;
    case AUDIT_ASK:
        if (now < a->until_ns)
            return;
        a->got = 0;
        if (++a->attempts < ATTEMPTS)
            ask(d);
        else
            not_audited(d, AUDIT_NO_ANSWER);
        break;
    case AUDIT_READY: /* while segments are made, daemon_audit_slot sends it between two of them */
        if ((d->figures_known && d->figures.why[0]) || now - a->ready_ns > patience_ns) {
            a->ready_ns = now;
            send_work(d);
        }
        break;
    case AUDIT_WORK:
        break;
    }
    daemon_actions(d);
}

/* ---- what others see ---- */

static json_t *sum_json(const struct audit_sum *s)
{
    json_t *not_audited_json = json_object();
    for (size_t i = 0; i < AUDIT_REASONS; i++)
        json_object_set_new(not_audited_json, reasons[i], json_integer((json_int_t)s->not_audited[i]));
    return json_pack("{s:I, s:I, s:I, s:o}", "records", (json_int_t)s->audited, "off", (json_int_t)s->off, "unsure",
                     (json_int_t)s->unsure, "not_audited", not_audited_json);
}

json_t *daemon_audit_status(const struct daemon *d)
{
    enum { SHOWN = 64 };
    const struct audit *a = &d->audit;
    if (!d->m->public_data)
        return NULL;
    json_t *o = sum_json(&a->all), *machines = json_array();
    for (size_t i = 0, shown = 0; i < a->n_machines && shown < SHOWN; i++) {
        const bool quiet = a->machines[i].sum.off == 0 && a->n_machines > SHOWN; /* many: those that matter */
        json_t *m = quiet ? NULL : sum_json(&a->machines[i].sum);
        if (!m)
            continue;
        json_object_set_new(m, "machine", peer_json_hex(a->machines[i].id, 32));
        json_array_append_new(machines, m);
        shown++;
    }
    json_object_set_new(o, "share", json_real(d->m->audit));
    json_object_set_new(o, "evidence", json_integer((json_int_t)a->evidence));
    json_object_set_new(o, "answered", json_integer((json_int_t)a->answered));
    json_object_set_new(o, "machines", machines);
    return o;
}

const char *daemon_audit_request(struct daemon *d, const json_t *request)
{
    struct audit *a = &d->audit;
    const char *prefix = json_string_value(json_object_get(request, "machine"));
    const json_int_t records = json_integer_value(json_object_get(request, "records"));
    struct net_feed_view v;
    size_t n = 0;
    if (!d->m->public_data)
        return "this run's data is private: nobody can measure another machine's records again (init --public)";
    if (!d->o.data)
        return "this peer has no data: start it with --data";
    if (a->requested)
        return "another audit is being made: wait for it";
    if (!prefix || !prefix[0] || records < 1)
        return "an audit needs a machine and a number of records";
    for (size_t i = 0; net_gossip_feed_at(d->gossip, i, &v); i++) {
        char hex[65];
        net_hex(hex, v.entry.machine, 32);
        if (strncmp(hex, prefix, strlen(prefix)) != 0 || v.segments == 0)
            continue;
        memcpy(a->wanted, v.entry.machine, 32);
        a->of = v.segments;
        n++;
    }
    if (n != 1)
        return n == 0 ? "no machine with records has an id that starts so" : "several machines have an id that starts so: give the whole id";
    a->requested = true;
    a->left = (uint64_t)records;
    a->done = 0;
    a->first = below(a->of);
    a->stride = a->of * 5 / 8 + 1;
    while (divisor(a->stride, a->of) != 1)
        a->stride++;
    a->request = (struct audit_sum){.audited = 0};
    a->n_files = 0;
    return NULL;
}

json_t *daemon_audit_result(const struct daemon *d)
{
    const struct audit *a = &d->audit;
    json_t *o = sum_json(&a->request), *files = json_array();
    for (size_t i = 0; i < a->n_files; i++)
        json_array_append_new(files, json_string(a->files[i]));
    json_object_set_new(o, "ok", json_true());
    json_object_set_new(o, "busy", json_boolean(a->requested));
    json_object_set_new(o, "machine", peer_json_hex(a->wanted, 32));
    json_object_set_new(o, "evidence", files);
    return o;
}

void daemon_audit_free(struct daemon *d)
{
    struct audit *a = &d->audit;
    peer_fold_log_close(a->log);
    peer_audit_work_free(a->work);
    peer_branches_free(&a->branches);
    free(a->told);
    free(a->bytes);
    free(a->machines);
}
