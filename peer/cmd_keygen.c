#include "peer/home.h"
#include "peer/json_out.h"
#include "peer/options.h"

struct values {
    struct peer_common common;
};

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct err_why why = {{0}};
    struct peer_home home;
    struct net_identity identity;
    char hex[65], path[PEER_PATH_BYTES];
    bool made = false;
    (void)args;
    (void)n_args;
    if (peer_home_open(&home, v->common.home, true, &why) != ERR_OK ||
        peer_home_identity(&home, &identity, true, &made, &why) != ERR_OK)
        return peer_fail(&why);
    net_hex(hex, identity.id, 32);
    net_identity_release(&identity);
    peer_home_path(&home, "identity", path);
    if (v->common.json)
        return peer_json_print(
            json_pack("{s:s, s:b, s:s}", "machine_id", hex, "made", made, "path", path));
    printf("%s\n", hex);
    if (!made)
        fprintf(stderr, "onebyte: this home already has an identity; nothing was changed\n");
    return PEER_EXIT_OK;
}

const struct peer_command peer_cmd_keygen = {
    .name = "keygen",
    .args = "",
    .summary = "make this machine's identity and print its machine id",
    .details = "The key is kept in the home folder, readable by you alone. An identity that is "
               "there already is kept: its id is "
               "printed.",
    .values_bytes = sizeof(struct values),
    .run = run,
};
