/* init: looks at model and data, decides what the manifest says, signs it. */
#include "peer/flags.h"
#include "peer/invite.h"
#include "peer/json_out.h"
#include "peer/make.h"
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

extern const struct peer_command peer_cmd_init;

struct values {
    struct peer_common common;
    struct peer_make make;
    const char *out, *address;
    bool explain;
};

static int report(const struct values *v, const struct peer_manifest *m,
                  const struct peer_made *made)
{
    char run_id[65], owner[65], link[PEER_INVITE_BYTES];
    struct peer_invite invite = {.has_key = true};
    (void)snprintf(invite.address, sizeof invite.address, "%s", v->address);
    memcpy(invite.run_id, m->run_id, 32);
    memcpy(invite.key, m->net.owner, 32);
    peer_invite_print(link, &invite);
    net_hex(run_id, m->run_id, 32);
    net_hex(owner, m->net.owner, 32);
    if (v->common.json) {
        json_t *reasons = v->explain ? json_object() : NULL;
        for (size_t i = 0; reasons && i < made->n_reasons; i++)
            (void)json_object_set_new(reasons, made->reasons[i].what, json_string(made->reasons[i].text.text));
        return peer_json_print(
            json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:o*}", "run_id", run_id,
                      "manifest", v->out, "owner", owner, "invite", link, "parameters",
                      (json_int_t)made->parameters, "tensors", (json_int_t)m->rules.n_tensors,
                      "steps", (json_int_t)m->rules.steps, "n0", (json_int_t)m->rules.n0, "lr",
                      m->lr, "eps", made->eps, "coef_min", (json_int_t)made->coef_min, "why", reasons));
    }
    printf("run id    %s\nmanifest  %s (signed by %.8s)\ninvite    %s\nmodel     %" PRIu64
           " parameters in %" PRIu32 " tensors\nplan      %" PRIu64 " steps of %" PRIu64
           " records, lr %g (%s), eps %g\n",
           run_id, v->out, owner, link, made->parameters, m->rules.n_tensors, m->rules.steps,
           m->rules.n0, m->lr, m->schedule, made->eps);
    for (size_t i = 0; v->explain && i < made->n_reasons; i++)
        printf("%s%-11s %s\n", i ? "" : "\nWhy\n", made->reasons[i].what, made->reasons[i].text.text);
    return PEER_EXIT_OK;
}

static enum err save(const struct values *v, const struct peer_manifest *m,
                     const struct peer_home *home, struct err_why *why)
{
    const char *const keys[] = {"model", "data", "eval_data"};
    const char *const paths[] = {v->make.flags.model, v->make.data, v->make.eval_data};
    char absolute[PEER_PATH_BYTES];
    const bool no_run = access(peer_home_path(home, "run.json", absolute), F_OK) !=
                        0; /* else its folders stay its own */
    TRY(peer_manifest_save(m, v->out, why));
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        if (!paths[i])
            continue;
        TRY(peer_absolute(absolute, paths[i], why));
        TRY(peer_paths_set(v->out, keys[i], absolute, why));
        if (no_run)
            TRY(peer_home_set(home, keys[i], absolute, why));
    }
    return ERR_OK;
}

/* What can be refused before the model is measured. */
static enum err check(const struct values *v, struct err_why *why)
{
    struct peer_invite invite = {0};
    uint8_t id[32];
    char link[PEER_INVITE_BYTES];
    struct err_why inner = {{0}};
    if (strlen(v->address) >= sizeof invite.address)
        return err_set(why, ERR_RANGE, "--address is longer than %zu bytes", sizeof invite.address - 1);
    (void)snprintf(invite.address, sizeof invite.address, "%s", v->address);
    peer_invite_print(link, &invite);
    if (peer_invite_parse(&invite, link, &inner) != ERR_OK)
        return err_set(why, ERR_RANGE, "--address takes HOST:PORT, not '%s'", v->address);
    if (v->make.allow.n > 0 && strcmp(v->make.admission ? v->make.admission : "open", "allow") != 0)
        return err_set(why, ERR_RANGE, "--allow needs --admission allow");
    for (size_t i = 0; i < v->make.allow.n; i++)
        if (net_unhex(id, 32, v->make.allow.items[i]) != ERR_OK)
            return err_set(why, ERR_RANGE, "--allow takes a machine id, 64 hex digits, not '%s'", v->make.allow.items[i]);
    return peer_check_out(v->out, why);
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct err_why why = {{0}};
    struct peer_home home;
    struct net_identity owner = {0};
    struct peer_manifest m = {0};
    struct peer_made made = {0};
    (void)args;
    (void)n_args;
    if (!v->make.flags.model || !v->make.data) {
        (void)err_set(&why, ERR_RANGE, "init needs --model DIR and --data FILE");
        return peer_usage(&peer_cmd_init, &why);
    }
    enum err e = check(v, &why);
    if (e == ERR_OK)
        e = peer_home_open(&home, v->common.home, true, &why);
    if (e == ERR_OK)
        e = peer_home_identity(&home, &owner, true, NULL, &why);
    if (e == ERR_OK)
        e = peer_make_manifest(&m, &made, &v->make, &owner, &why);
    if (e == ERR_OK)
        e = save(v, &m, &home, &why);
    for (size_t i = 0; e == ERR_OK && i < made.n_notes; i++)
        peer_say(&made.notes[i]);
    const int code = e == ERR_OK      ? report(v, &m, &made)
                     : e == ERR_RANGE ? peer_usage(&peer_cmd_init, &why)
                                      : peer_fail(&why);
    peer_manifest_free(&m);
    net_identity_release(&owner);
    return code;
}

static void defaults(void *values)
{
    struct values *v = values;
    v->out = "run.json";
    v->address = "127.0.0.1:7117";
    peer_make_defaults(&v->make);
}

#define AT(member) offsetof(struct values, make.member)
static const struct peer_option options[] = {
    {"model", PEER_TEXT, AT(flags.model), "DIR", "base model: a Hugging Face folder", 0, 0},
    {"data", PEER_TEXT, AT(data), "FILE", "training examples, JSONL", 0, 0},
    {"eval-data", PEER_TEXT, AT(eval_data), "FILE", "held-out examples, JSONL", 0, 0},
    {"out", PEER_TEXT, offsetof(struct values, out), "FILE",
     "manifest to write (default: run.json; its signature beside it)", 0, 0},
    {"name", PEER_TEXT, AT(name), "TEXT", "the run's name, for people", 0, 0},
    {"preset", PEER_CHOICE, AT(preset), "paper",
     "paper: gaussian, two-sided, fixed unit, sync rounds", 0, 0},
    {"direction", PEER_CHOICE, AT(direction), "rank1|rademacher|gaussian",
     "random directions (default: rank1)", 0, 0},
    {"sides", PEER_U64, AT(sides), "1|2",
     "losses per direction: 2 is two-sided, 1 shares one plain pass (default: 2)", 1, 2},
    {"directions", PEER_U64, AT(k), "K", "directions per example, with --sides 1 (default: 7)", 2,
     LIMIT_SEGMENT_COUNT},
    {"eps", PEER_F64, AT(eps), "X", "how far a direction is tried (default: half the noise the model bears, 0.001 to 0.01)", 1e-8, 1},
    {"lr", PEER_F64, AT(lr), "X",
     "step per n0 records; 0 learns nothing (default: measured, by how much noise the model bears)", 0, 1e6},
    {"schedule", PEER_CHOICE, AT(schedule), "constant|linear|cosine|rex",
     "how lr falls (default: linear)", 0, 0},
    {"warmup", PEER_U64, AT(warmup), "STEPS", "steps over which lr rises (default: 0)", 0,
     4294967294.0},
    {"n0", PEER_U64, AT(n0), "N",
     "records per step: more in flight than this are averaged, not summed (default: 512)", 1,
     4294967295.0},
    {"steps", PEER_U64, AT(steps), "N", "steps of the run (default: as many as make 64,000 records)", 1, 4294967295.0},
    {"trainable", PEER_TEXT, AT(trainable), "WHAT",
     "all, tensors by name or pattern (A,B*), or lora:r=R,alpha=A[,targets=NAME+NAME] "
     "(default: all)",
     0, 0},
    {"seed", PEER_U64, AT(seed), "N", "makes otherwise equal runs different (default: 0)", 0, 0},
    {"unit", PEER_F64, AT(unit), "X", "fixed unit of a gradient instead of its root mean square",
     1e-6, 1e9},
    {"machines", PEER_U64, AT(machines), "N",
     "machines expected: limits each one's share to 2/N (default: no limit)", 1, 65536},
    {"burst", PEER_U64, AT(burst), "STEPS",
     "whole steps a machine may run ahead of its share (default: 8)", 0, 4294967295.0},
    {"pace", PEER_CHOICE, AT(pace), "async|sync", "sync: the paper's rounds (default: async)", 0,
     0},
    {"round-timeout", PEER_F64, AT(round_timeout_s), "SECONDS",
     "longest wait for a round (default: 30)", 0.01, 86400},
    {"segment-max", PEER_U64, AT(segment_max), "N",
     "records per segment (default: an eighth of n0, 64 to 256, at most n0)", 1, LIMIT_SEGMENT_COUNT},
    {"seal-s", PEER_F64, AT(seal_s), "SECONDS",
     "seal a shorter segment after this time (default: 5)", 0.01, 86400},
    {"records-max", PEER_U64, AT(records_max), "N", "records per machine (default: 16777216)", 1,
     4611686018427387904.0},
    {"length-max", PEER_U64, AT(length_max), "TOKENS",
     "cut longer examples (default: the model's context)", 2, 16777216},
    {"public", PEER_FLAG, AT(public_data), NULL,
     "all peers have this very data file: examples follow from machine and number", 0, 0},
    {"audit", PEER_F64, AT(audit), "SHARE",
     "share of its passes with which each peer checks others' bytes, with --public (default: 0)", 0, 1},
    {"admission", PEER_CHOICE, AT(admission), "open|allow|invite",
     "whose records count (default: open)", 0, 0},
    {"allow", PEER_LIST, AT(allow), "ID", "with --admission allow: a machine id; may be repeated",
     0, 0},
    {"explain", PEER_FLAG, offsetof(struct values, explain), NULL, "say why each choice is as it is", 0, 0},
    {"address", PEER_TEXT, offsetof(struct values, address), "HOST:PORT",
     "where your peer will listen, for the invite (default: 127.0.0.1:7117)", 0, 0},
};

const struct peer_command peer_cmd_init = {
    .name = "init",
    .args = "",
    .summary = "write and sign the manifest of a new run",
    .details = "The manifest fixes base model, data, estimator and schedule by their digests; its "
               "hash is the run id. The signer is "
               "this home's identity, the run's owner. MANIFEST.paths beside it remembers where "
               "model and data lie on this machine.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .defaults = defaults,
    .run = run,
};
