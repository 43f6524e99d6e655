/* Status to Prometheus' text format. */
#include "peer/options.h"
#include "peer/web.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const json_t *at(const json_t *o, const char *group, const char *key)
{
    return json_object_get(group ? json_object_get(o, group) : o, key);
}

/* One family with one sample.  Unknown figures are left out: an absent series says so, a zero would lie. */
static void family(FILE *out, const json_t *v, const char *name, const char *type, const char *help)
{
    double x = NAN;
    if (json_is_number(v))
        x = json_number_value(v);
    else if (json_is_boolean(v))
        x = json_is_true(v) ? 1 : 0;
    if (isfinite(x))
        fprintf(out, "# HELP onebyte_%s %s\n# TYPE onebyte_%s %s\nonebyte_%s %.17g\n", name, help,
                name, type, name, x);
}

static const char *word(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static size_t connected(const json_t *peers)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(peers); i++)
        n += json_is_string(json_object_get(json_array_get(peers, i), "id"));
    return n;
}

char *peer_web_metrics(const json_t *s)
{
    static const struct {
        const char *group, *key, *name, *type, *help;
    } rows[] = {
        {NULL, "step", "run_step", "gauge", "Step of the run that this peer has reached."},
        {NULL, "steps", "run_steps", "gauge", "Last step of the run."},
        {NULL, "finished", "run_finished", "gauge", "1 when the last step is reached."},
        {NULL, "loss", "loss_nats", "gauge",
         "Mean loss of the examples measured here lately, nats per token or per example with choices."},
        {"eval", "loss", "eval_loss_nats", "gauge",
         "Loss of the newest checkpoint scored in full, nats per token or per example with choices, as machines of the run report it."},
        {"eval", "step", "eval_step", "gauge", "Step of that checkpoint."},
        {NULL, "contributing", "contributing", "gauge", "1 while this machine measures."},
        {"records", "own", "own_records_total", "counter", "Records in this machine's feed."},
        {"records", "folded", "folded_records", "gauge",
         "Records in the parameters; a retraction lowers it."},
        {"records", "measured", "measured_records_total", "counter",
         "Records measured by this process."},
        {NULL, "voids", "void_records_total", "counter",
         "Records measured by this process whose loss was not finite."},
        {"bytes", "sent", "sent_bytes_total", "counter", "TCP payload sent, everything included."},
        {"bytes", "received", "received_bytes_total", "counter",
         "TCP payload received, everything included."},
        {"agreement", "links", "links", "gauge", "Neighbours connected."},
        {"agreement", "agree", "links_agreeing", "gauge",
         "Neighbours that hold exactly the same records."},
        {NULL, "memory", "resident_memory_bytes", "gauge", "Resident memory of this process."},
        {NULL, "threads", "threads", "gauge", "Worker threads."},
        {NULL, "uptime_s", "uptime_seconds", "gauge", "Time since this process started."},
    };
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (!out)
        return NULL;
    /* ids are hexadecimal and the version is ours: nothing to escape */
    fprintf(out,
            "# HELP onebyte_info What runs here.\n# TYPE onebyte_info "
            "gauge\nonebyte_info{version=\"%s\",run=\"%s\",machine=\"%s\","
            "device=\"%s\"} 1\n",
            PEER_VERSION, word(s, "run_id"), word(s, "machine_id"), word(s, "device"));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        family(out, at(s, rows[i].group, rows[i].key), rows[i].name, rows[i].type, rows[i].help);
    json_t *dialled = json_integer((json_int_t)connected(json_object_get(s, "peers")));
    family(out, dialled, "peers", "gauge", "Peers with an authenticated connection.");
    json_decref(dialled);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
