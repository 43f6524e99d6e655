/* config.json beside the embedded model's weights. */
#include "tests/fuzz/fuzz.h"
#include <onebyte/zo/model.h>

static char weights[192];

static void remove_weights(void)
{
    (void)unlink(weights);
}

FUZZ_TARGET(config)
{
    struct zo_model *m = NULL;
    struct err_why why = {{0}};
    (void)fuzz_file("config.json", data, size);
    if (!weights[0]) {
        char *here = realpath("peer/demo/model/model.safetensors", NULL);
        (void)snprintf(weights, sizeof weights, "%s/model.safetensors", fuzz_dir());
        ENSURE(here && symlink(here, weights) == 0);
        ENSURE(atexit(remove_weights) == 0); /* runs before the folder is removed */
        free(here);
    }
    if (zo_model_open(&m, fuzz_dir(), &why) == ERR_OK) {
        ENSURE(zo_model_context(m) > 0 && zo_model_vocab(m) > 0);
        zo_model_free(m);
    }
    return 0;
}
