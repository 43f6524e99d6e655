/* Evidence files: strangers hand them to whoever is to believe them.  What is accepted is written and read again alike. */
#include "tests/fuzz/fuzz.h"
#include "peer/evidence.h"

FUZZ_TARGET(evidence)
{
    struct peer_evidence e, again;
    struct err_why why = {{0}};
    struct net_rules r = {.n0 = 16, .steps = 10, .k = 1, .records_max = 1 << 20};
    if (net_start() != ERR_OK)
        return 0;
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
