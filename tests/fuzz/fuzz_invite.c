/* Invites: what is accepted is printed as text that is accepted again, with the same meaning. */
#include "tests/fuzz/fuzz.h"
#include "peer/invite.h"

FUZZ_TARGET(invite)
{
    char text[512], out[PEER_INVITE_BYTES];
    struct peer_invite i, j;
    struct err_why why = {{0}};
    if (size >= sizeof text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    if (peer_invite_parse(&i, text, &why) != ERR_OK)
        return 0;
    peer_invite_print(out, &i);
    ENSURE(peer_invite_parse(&j, out, &why) == ERR_OK);
    ENSURE(strcmp(i.address, j.address) == 0 && memcmp(i.run_id, j.run_id, 32) == 0);
    ENSURE(i.has_key == j.has_key && memcmp(i.key, j.key, 32) == 0);
    return 0;
}
