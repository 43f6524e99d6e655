/* Manifests: strangers send them to whoever joins by invite. */
#include "tests/fuzz/fuzz.h"
#include "peer/manifest.h"

FUZZ_TARGET(manifest)
{
    struct peer_manifest m;
    struct err_why why = {{0}};
    if (peer_manifest_parse(&m, (const char *)data, size, &why) == ERR_OK) {
        ENSURE(m.text_bytes == size);
        ENSURE(m.rules.n0 > 0 && m.segment_max <= LIMIT_SEGMENT_COUNT);
        peer_manifest_free(&m);
    } else {
        ENSURE(why.text[0] != 0); /* each refusal says why */
    }
    return 0;
}
