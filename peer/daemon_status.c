/* What `status` says, and the other requests of the control socket. */
#include "peer/daemon_in.h"
#include "peer/json_out.h"
#include "peer/log.h"
#include "peer/options.h"
#include <inttypes.h>
#include <onebyte/net/control.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t ask_wait_ns = 5 * NS; /* a large model's measuring call may take longer: then the last figures do */

static json_t *integer(uint64_t x)
{
    return json_integer(x > INT64_MAX ? INT64_MAX : (json_int_t)x);
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%llu %llu", &pages, &resident) != 2)
        resident = 0;
    if (f)
        fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t feed_count(const struct daemon *d, const uint8_t machine[32])
{
    struct net_frontier_entry e;
    return net_gossip_feed(d->gossip, machine, &e) ? e.count : 0;
}

static json_t *peers(const struct daemon *d)
{
    json_t *list = json_array();
    struct net_link_view l;
    struct net_dial_view v;
    for (size_t i = 0; d->transport && net_transport_link(d->transport, i, &l); i++) {
        json_t *p = json_object();
        json_object_set_new(p, "id", peer_json_hex(l.machine, 32));
        json_object_set_new(p, "address", json_string(l.address));
        json_object_set_new(p, "direction", json_string(l.outgoing ? "out" : "in"));
        json_object_set_new(p, "state", json_string("connected"));
        json_object_set_new(p, "records", integer(feed_count(d, l.machine)));
        json_object_set_new(p, "last_seen_s", peer_json_real(l.silent_ms / 1000.0));
        json_object_set_new(p, "rtt_ms", l.rtt_us ? peer_json_real(l.rtt_us / 1000.0) : json_null());
        json_object_set_new(p, "sent", integer(l.sent));
        json_object_set_new(p, "received", integer(l.received));
        json_array_append_new(list, p);
    }
    for (size_t i = 0; d->transport && net_transport_dialled(d->transport, i, &v); i++) {
        if (v.link || !v.reason)
            continue;
        json_t *p = json_object();
        json_object_set_new(p, "id", json_null());
        json_object_set_new(p, "address", json_string(v.address));
        json_object_set_new(p, "direction", json_string("out"));
        json_object_set_new(p, "state", json_string(v.reason));
        json_object_set_new(p, "records", json_integer(0));
        json_object_set_new(p, "last_seen_s", json_null());
        json_array_append_new(list, p);
    }
    return list;
}

static json_t *traffic(const struct daemon *d)
{
    struct net_traffic t = d->traffic;
    if (d->transport)
        net_transport_traffic(d->transport, &t);
    const uint64_t records = d->records_own + d->records_foreign;
    json_t *b = json_object();
    json_object_set_new(b, "sent", integer(t.sent));
    json_object_set_new(b, "received", integer(t.received));
    /* everything on this machine's wires, over the records that passed: own ones sent, others' received */
    json_object_set_new(b, "per_record",
                        records ? peer_json_real((double)(t.sent + t.received) / (double)records) : json_null());
    /* the segments themselves: codes, headers, signatures */
    json_object_set_new(b, "segment_per_record",
                        d->wire_records ? peer_json_real((double)d->wire_bytes / (double)d->wire_records) : json_null());
    return b;
}

static void figures(const struct daemon *d, json_t *s)
{
    const struct peer_figures *f = &d->figures;
    char digest[17];
    snprintf(digest, sizeof digest, "%016" PRIx64, f->digest);
    json_object_set_new(s, "loss", d->figures_known ? peer_json_real(f->loss) : json_null());
    json_object_set_new(s, "digest", d->figures_known ? json_string(digest) : json_null());
    json_object_set_new(s, "digest_verified", json_boolean(f->digest_full));
    json_object_set_new(s, "frontier_digest", d->figures_known ? peer_json_hex(f->frontier_digest, 32) : json_null());
    json_object_set_new(s, "records_per_s", peer_json_real(d->figures_known ? f->records_per_s : 0));
    json_object_set_new(s, "folded_per_s", peer_json_real(d->figures_known ? f->folded_per_s : 0));
    json_object_set_new(s, "batch", integer(f->batch));
    json_object_set_new(s, "voids", integer(f->voids));
    json_object_set_new(s, "contributing", json_boolean(d->figures_known && !f->why[0]));
    const char *joining = daemon_snap_why(d);
    json_object_set_new(s, "why", json_string(joining ? joining : d->figures_known ? f->why : "starting"));
}

static json_t *checkpoint(const struct daemon *d)
{
    struct net_control c;
    json_t *o = json_object();
    if (!daemon_check_last(d, &c)) {
        json_decref(o);
        return json_null();
    }
    json_object_set_new(o, "number", integer(c.number));
    json_object_set_new(o, "frontier_digest", peer_json_hex(c.frontier, 32));
    json_object_set_new(o, "state", peer_json_hex(c.state, 32));
    return o;
}

json_t *daemon_status(const struct daemon *d)
{
    json_t *s = json_object(), *records = json_object(), *agreement = json_object();
    size_t agree = 0, links = 0;
    const char *bound = d->transport ? net_transport_listening(d->transport) : NULL;
    const struct peer_engine *e = d->o.engine;
    net_gossip_agreement(d->gossip, &agree, &links);
    json_object_set_new(s, "version", json_integer(1));
    json_object_set_new(s, "running", json_true());
    json_object_set_new(s, "name", json_string(d->m->name));
    json_object_set_new(s, "run_id", peer_json_hex(d->m->run_id, 32));
    json_object_set_new(s, "machine_id", peer_json_hex(d->self.id, 32));
    json_object_set_new(s, "listen", bound ? json_string(bound) : json_null());
    json_object_set_new(s, "metrics", d->web ? json_integer(peer_web_port(d->web)) : json_null());
    json_object_set_new(s, "step", integer(daemon_progress(d)));
    json_object_set_new(s, "steps", integer(d->m->net.steps));
    json_object_set_new(s, "finished", json_boolean(daemon_progress(d) >= d->m->net.steps));
    json_object_set_new(records, "own", integer(feed_count(d, d->self.id)));
    json_object_set_new(records, "folded", integer(d->figures.folded));
    json_object_set_new(records, "measured", integer(d->figures.measured));
    json_object_set_new(s, "records", records);
    figures(d, s);
    json_object_set_new(s, "bytes", traffic(d));
    json_object_set_new(agreement, "agree", integer(agree));
    json_object_set_new(agreement, "links", integer(links));
    json_object_set_new(s, "agreement", agreement);
    json_object_set_new(s, "checkpoint", checkpoint(d));
    json_t *audit = daemon_audit_status(d);
    json_object_set_new(s, "audit", audit ? audit : json_null());
    json_object_set_new(s, "peers", peers(d));
    json_object_set_new(s, "uptime_s", peer_json_real((double)(daemon_now() - d->started_ns) / (double)NS));
    json_object_set_new(s, "device", json_string("cpu"));
    json_object_set_new(s, "kernels", json_string(zo_kernels_name(e->kernels)));
    json_object_set_new(s, "threads", integer(zo_pool_threads(e->pool)));
    json_object_set_new(s, "memory", integer(resident_bytes()));
    json_object_set_new(s, "memory_mode", json_string(d->o.memory ? d->o.memory : "auto"));
    json_object_set_new(s, "pid", json_integer(getpid()));
    return s;
}

/* For `status` while nothing runs here. */
void daemon_status_save(struct daemon *d)
{
    json_t *s = daemon_status(d);
    json_object_set_new(s, "running", json_false());
    json_object_set_new(s, "peers", json_array());
    char *text = json_dumps(s, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (text && net_ledger_set(d->ledger, "status", text, strlen(text)) != ERR_OK)
        d->ledger_errors++;
    free(text);
    json_decref(s);
}

/* ---- requests ---- */

void daemon_answer_asks(struct daemon *d, bool fresh)
{
    const uint64_t now = daemon_now();
    size_t kept = 0;
    for (size_t i = 0; i < d->n_asks; i++) {
        if (!fresh && now < d->asks[i].until_ns) {
            d->asks[kept++] = d->asks[i];
            continue;
        }
        json_t *s = daemon_status(d);
        json_object_set_new(s, "ok", json_true());
        peer_control_reply(d->control, d->asks[i].client, s);
    }
    d->n_asks = kept;
}

static void ask(struct daemon *d, uint64_t client)
{
    struct peer_msg *m = peer_msg_new(PEER_MSG_ASK, sizeof *m);
    ENSURE(m != NULL);
    if (d->n_asks == DAEMON_ASKS)
        daemon_answer_asks(d, true);
    d->asks[d->n_asks].client = client;
    d->asks[d->n_asks++].until_ns = daemon_now() + ask_wait_ns;
    daemon_mark(d, true);
    peer_pipe_send(d->to_compute, m);
}

static void pause_for(struct daemon *d, const json_t *request)
{
    const double seconds = json_number_value(json_object_get(request, "seconds"));
    d->paused = true;
    d->paused_until_ns = seconds > 0 && seconds < 1e9 ? daemon_now() + (uint64_t)(seconds * (double)NS) : 0;
}

/* The owner's signed event, as `retract` makes it: checked like one from the network, then stored and sent. */
static const char *take_control(struct daemon *d, const json_t *request)
{
    const char *hex = json_string_value(json_object_get(request, "frame"));
    uint8_t frame[NET_CONTROL_BYTES_MAX];
    const size_t n = hex ? strlen(hex) / 2 : 0;
    if (n == 0 || n > sizeof frame || net_unhex(frame, n, hex) != ERR_OK)
        return "not a control event";
    const enum err e = net_gossip_control(d->gossip, frame, n, daemon_now());
    if (e == ERR_RANGE)
        return "nothing new: it is known already";
    if (e != ERR_OK)
        return "the control event is not valid for this run";
    daemon_actions(d);
    return NULL;
}

void daemon_request(struct daemon *d, json_t *request, uint64_t client)
{
    const char *op = json_string_value(json_object_get(request, "op"));
    if (!op)
        op = "";
    if (strcmp(op, "status") == 0) {
        ask(d, client);
        return;
    }
    const char *error = NULL;
    if (strcmp(op, "audited") == 0) {
        peer_control_reply(d->control, client, daemon_audit_result(d));
        return;
    }
    if (strcmp(op, "audit") == 0) {
        error = daemon_audit_request(d, request);
    } else if (strcmp(op, "stop") == 0 && !d->quit) {
        peer_log(PEER_INFO, "stop", "reason=\"asked by onebyte stop\"");
        d->quit = true;
        d->end = PEER_END_STOPPED;
    } else if (strcmp(op, "pause") == 0) {
        pause_for(d, request);
    } else if (strcmp(op, "resume") == 0) {
        d->paused = false;
    } else if (strcmp(op, "control") == 0) {
        error = take_control(d, request);
    } else if (strcmp(op, "stop") != 0) {
        error = "unknown request: status, stop, pause, resume, control, audit or audited";
    }
    d->dirty = true;
    peer_control_reply(d->control, client,
                       error ? json_pack("{s:b, s:s}", "ok", 0, "error", error) : json_pack("{s:b, s:i}", "ok", 1, "pid", (int)getpid()));
}
