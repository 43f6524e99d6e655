/* What this peer refused, by reason: all that remote garbage ever is here is a number in `status --json`. */
#include "peer/daemon_in.h"

struct reason {
    const char *name;
    uint64_t count;
};

json_t *daemon_refused(const struct daemon *d)
{
    struct net_transport_counters t = {0};
    struct net_gossip_counters g;
    if (d->transport)
        net_transport_count(d->transport, &t);
    net_gossip_count(d->gossip, &g);
    const struct reason reasons[] = {
        /* connections */
        {"full", t.refused_full},
        {"handshake", t.handshake_failed},
        {"probation", t.probation_expired},
        {"proof", t.bad_proof},
        {"message", t.bad_message},
        {"multipart", t.multipart},
        {"hidden_bytes", t.hidden_bytes},
        {"rate_held", t.rate_held},
        {"rate_dropped", t.rate_dropped},
        {"rate_closed", t.rate_closed},
        {"kept_out", t.penalised},
        {"silent", t.silent},
        {"twins", t.twins},
        /* frames */
        {"uploads", d->uploads.refused},
        {"malformed", g.frames_malformed},
        {"quota_dropped", g.quota_dropped},
        {"quota_closed", g.quota_closed},
        {"invalid", g.segments_invalid},
        {"unadmitted", g.segments_unadmitted},
        {"unfit", g.segments_unfit},
        {"late", g.segments_late},
        {"delayed", g.segments_delayed},
        {"no_room", g.table_full},
        {"pulls_failed", g.pulls_failed},
        {"searches_failed", g.searches_failed},
        {"forks", g.forks},
    };
    json_t *o = json_object();
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        json_object_set_new(o, reasons[i].name, json_integer((json_int_t)reasons[i].count));
    return o;
}
