/* attack -- a hostile peer: it knows the run, speaks the protocol, and tries to harm the peer that listens on 127.0.0.1:PORT.
 *
 *     attack RUN.json PORT[,PORT2] NAME [SECONDS [CONNECTIONS]]
 *
 * `attack list` names the attacks.  One JSON line says what was tried and how the peer answered; exit 0: it answered as it must
 * (closed, refused, ignored), 1: it did not, 2: usage.  Whether the honest peers came through unharmed is for the caller to see:
 * tests/e2e/test_attack.py. */
#include "attack.h"
#include "peer/manifest.h"
#include <inttypes.h>
#include <stdlib.h>
#include <sys/resource.h>

struct attack {
    const char *name;
    bool (*run)(const struct target *t, struct report *r, double seconds, uint32_t n);
    double seconds; /* as run without arguments */
    uint32_t n;     /* connections, tries */
    const char *what;
};

static const struct attack attacks[] = {
    {"silent", attack_silent, 0, 100, "TCP connections that say nothing, or a byte now and then"},
    {"server-key", attack_server_key, 0, 3, "CURVE towards another server key"},
    {"uncertified", attack_uncertified, 0, 40, "keys that open a channel and never certify"},
    {"certificates", attack_certificates, 0, 0, "certificates of another run, key, time, signer; a bent signature"},
    {"early", attack_early, 0, 3, "frames and senseless messages before the proof"},
    {"links", attack_links, 0, 80, "more links than a peer takes"},
    {"close", attack_close, 0, 60, "connections reset at every stage, in the middle of a message"},
    {"frames", attack_frames, 0, 300, "malformed, truncated, oversized and invented frames"},
    {"multipart", attack_multipart, 0, 0, "messages in parts, and parts that never end"},
    {"replay", attack_replay, 0, 0, "an old feed of another run"},
    {"strangers", attack_strangers, 0, 5, "good segments of machines that nobody admitted, sent and relayed"},
    {"segments", attack_segments, 0, 0, "segments with wrong counts, lags, steps, predecessors, signatures"},
    {"share", attack_share, 0, 24, "more records than a share, declared at the last step and beyond it"},
    {"forks", attack_forks, 0, 12, "forks: several, overlapping, chained after a fork, each half told to another peer"},
    {"liar", attack_liar, 5, 0, "claims to hold more of every feed, and answers with NOHEAD and invented ids"},
    {"requests", attack_requests, 5, 0, "PULL, ASK, WANT, SUMMARY and chunk requests as fast as they go"},
    {"downloads", attack_downloads, 120, 0, "the base model again and again, as fast as it comes, under one key"},
    {"frontiers", attack_frontiers, 0, 700, "frontiers of machines that do not exist, by the ten thousand"},
    {"garbage", attack_garbage, 0, 300, "unasked-for pieces of manifests, chunks, snapshots and checkpoint frontiers"},
    {"flood", attack_flood, 5, 50, "links that send good-looking frames as fast as they can, and come back under new keys"},
};

static int list(void)
{
    for (size_t i = 0; i < ARRAY_LEN(attacks); i++)
        printf("%-13s %s\n", attacks[i].name, attacks[i].what);
    return 0;
}

static bool ports_of(struct target *t, const char *text)
{
    char *end;
    const unsigned long a = strtoul(text, &end, 10), b = *end == ',' ? strtoul(end + 1, &end, 10) : a;
    t->port = (uint16_t)a;
    t->port_2 = (uint16_t)b;
    return *end == '\0' && a > 0 && a <= 65535 && b > 0 && b <= 65535;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "list") == 0)
        return list();
    const struct attack *a = NULL;
    for (size_t i = 0; argc >= 4 && i < ARRAY_LEN(attacks); i++)
        if (strcmp(attacks[i].name, argv[3]) == 0)
            a = &attacks[i];
    struct peer_manifest m = {0};
    struct target t = {.rules = &m.net};
    struct err_why why = {{0}};
    const struct rlimit files = {4096, 4096};
    (void)setrlimit(RLIMIT_NOFILE, &files);
    if (!a || !ports_of(&t, argv[2]) || net_start() != ERR_OK) {
        fprintf(stderr, "usage: attack RUN.json PORT[,PORT2] NAME [SECONDS [CONNECTIONS]]; attack list\n");
        return 2;
    }
    if (peer_manifest_load(&m, argv[1], &why) != ERR_OK) {
        fprintf(stderr, "attack: %s\n", why.text);
        return 2;
    }
    struct report r = {0};
    const double began = foe_seconds();
    const bool ok = a->run(&t, &r, argc > 4 ? atof(argv[4]) : a->seconds, argc > 5 ? (uint32_t)atoi(argv[5]) : a->n);
    printf("{\"attack\": \"%s\", \"ok\": %s, \"tried\": %" PRIu64 ", \"links\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"sent\": %" PRIu64
           ", \"seconds\": %.2f, \"why\": \"%s\"}\n",
           a->name, ok ? "true" : "false", r.tried, r.links, r.refused, r.sent, foe_seconds() - began, r.why ? r.why : "");
    peer_manifest_free(&m);
    return ok ? 0 : 1;
}
