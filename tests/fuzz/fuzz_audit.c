/* Audits: questions and answers from the network, and evidence files, which strangers hand to whoever is to believe them.
 * What is accepted is written again alike. */
#include "tests/fuzz/fuzz.h"
#include "peer/evidence.h"

static void frames(const uint8_t *data, size_t size)
{
    struct net_ask a;
    struct net_tell t;
    uint8_t again[NET_TELL_BYTES_MAX];
    if (net_ask_parse(&a, data, size) == ERR_OK) {
        ENSURE(net_ask_write(again, &a) == size);
        ENSURE(memcmp(again, data, size) == 0);
    }
    if (net_tell_parse(&t, data, size) == ERR_OK) {
        ENSURE(net_tell_write(again, &t) == size);
        ENSURE(memcmp(again, data, size) == 0);
    }
}

FUZZ_TARGET(audit)
{
    struct peer_evidence e, again;
    struct err_why why = {{0}};
    struct net_rules r = {.n0 = 16, .steps = 10, .k = 1, .records_max = 1 << 20};
    if (net_start() != ERR_OK)
        return 0;
    frames(data, size);
    if (peer_evidence_parse(&e, (const char *)data, size, &why) != ERR_OK) {
        ENSURE(why.text[0] != 0); /* each refusal says why */
        return 0;
    }
    memcpy(r.run_id, e.run_id, 32);
    ENSURE(peer_evidence_check(&e, &r, &why) == ERR_PROTO); /* nobody signed it */
    const char *path = fuzz_file("evidence", data, size);
    ENSURE(peer_evidence_save(&e, path, &why) == ERR_OK);
    ENSURE(peer_evidence_load(&again, path, &why) == ERR_OK);
    ENSURE(again.n_frontier == e.n_frontier && memcmp(again.frontier, e.frontier, e.n_frontier) == 0);
    ENSURE(again.branches.n == e.branches.n && again.n_records == e.n_records && again.segment.count == e.segment.count);
    peer_evidence_free(&again);
    peer_evidence_free(&e);
    return 0;
}
