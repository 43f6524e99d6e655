#include "peer/json_out.h"
#include "peer/options.h"
#include <math.h>
#include <onebyte/net/id.h>
#include <stdio.h>
#include <stdlib.h>

int peer_json_print(json_t *o)
{
    char *text = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(o);
    if (!text) {
        fprintf(stderr, "onebyte: out of memory while writing JSON\n");
        return PEER_EXIT_FAILED;
    }
    const int bad = puts(text) == EOF || fflush(stdout) != 0;
    free(text);
    return bad ? PEER_EXIT_FAILED : PEER_EXIT_OK;
}

json_t *peer_json_real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

json_t *peer_json_hex(const uint8_t *p, size_t n)
{
    char *hex = malloc(2 * n + 1);
    if (!hex)
        return NULL;
    net_hex(hex, p, n);
    json_t *o = json_string(hex);
    free(hex);
    return o;
}
