/* The CPU or a GPU: choosing, and the engine's calls to whichever it is. */
#include "peer/device.h"
#include "peer/log.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INDEX_MAX = 63 };

static bool cuda_index(const char *text, uint32_t *index)
{
    char *end = NULL;
    *index = 0;
    if (strncmp(text, "cuda", 4) != 0)
        return false;
    if (text[4] == '\0')
        return true;
    if (text[4] != ':' || text[5] < '0' || text[5] > '9')
        return false;
    const unsigned long i = strtoul(text + 5, &end, 10);
    *index = (uint32_t)i;
    return *end == '\0' && i <= INDEX_MAX;
}

bool peer_device_word(const char *text)
{
    uint32_t index;
    return strcmp(text, "auto") == 0 || strcmp(text, "cpu") == 0 || cuda_index(text, &index);
}

/* The plug-in beside the program, or in its lib folder. */
static const char *plugin_path(char path[PEER_PATH_BYTES])
{
    static const char *const places[] = {"/libonebyte_cuda.so", "/../lib/onebyte/libonebyte_cuda.so"};
    const char *set = getenv("ONEBYTE_CUDA");
    if (set && set[0])
        return set;
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        const ssize_t n = readlink("/proc/self/exe", path, PEER_PATH_BYTES - 64);
        if (n <= 0)
            break;
        path[n] = '\0';
        char *slash = strrchr(path, '/');
        if (!slash)
            break;
        memcpy(slash, places[i], strlen(places[i]) + 1);
        if (access(path, R_OK) == 0)
            return path;
    }
    return "libonebyte_cuda.so";
}

enum err peer_device_check(const char *text, struct err_why *why)
{
    if (!text || peer_device_word(text))
        return ERR_OK;
    return err_set(why, ERR_RANGE, "--device takes auto, cpu, cuda or cuda:N, not '%s'", text);
}

enum err peer_device_probe(struct peer_gpu *g, struct err_why *why)
{
    char path[PEER_PATH_BYTES];
    struct zo_device *d = NULL;
    *g = (struct peer_gpu){.bytes = 0};
    TRY(zo_device_open(&d, plugin_path(path), 0, why));
    (void)snprintf(g->name, sizeof g->name, "%s", zo_device_name(d));
    const enum err e = zo_device_available(d, &g->free_bytes, &g->bytes);
    zo_device_free(d);
    return e == ERR_OK ? e : err_set(why, e, "%s does not answer", g->name);
}

static enum err open_cuda(struct peer_engine *e, const struct peer_engine_options *o, uint32_t index, struct err_why *why)
{
    char path[PEER_PATH_BYTES];
    struct zo_device *d = NULL;
    const char *type = o->precision ? o->precision : "bf16";
    TRY(zo_device_open(&d, plugin_path(path), index, why));
    const enum err code = zo_device_load(d, e->model, e->state,
                                         strcmp(type, "fp32") == 0   ? ZO_DEVICE_FP32
                                         : strcmp(type, "fp16") == 0 ? ZO_DEVICE_FP16
                                                                     : ZO_DEVICE_BF16,
                                         o->memory, why);
    if (code != ERR_OK) {
        zo_device_free(d);
        return code;
    }
    e->device = d;
    peer_log(PEER_INFO, "device", "device=\"%s\" memory=%s bytes=%llu", zo_device_name(d),
             zo_device_memory(d) == ZO_MEMORY_FAST ? "fast" : "lean", (unsigned long long)zo_device_bytes(d));
    return ERR_OK;
}

enum err peer_device_open(struct peer_engine *e, const struct peer_engine_options *o, struct err_why *why)
{
    struct err_why inner = {{0}};
    uint32_t index = 0;
    ENSURE(o->device != NULL);
    if (strcmp(o->device, "cpu") == 0)
        return ERR_OK;
    const bool asked = cuda_index(o->device, &index);
    const enum err code = open_cuda(e, o, index, &inner);
    if (code == ERR_OK)
        return ERR_OK;
    if (asked)
        return err_set(why, code, "--device %s: %s", o->device, inner.text);
    peer_log(PEER_INFO, "device", "device=cpu reason=\"%s\"", inner.text);
    return ERR_OK;
}

enum err peer_engine_fold(struct peer_engine *e, const struct zo_fold *folds, size_t n)
{
    if (e->device)
        return zo_device_fold(e->device, folds, n);
    TRY(zo_state_fold(e->state, folds, n, e->kernels, e->pool));
    return zo_model_refresh(e->model, e->pool);
}

enum err peer_engine_losses(struct peer_engine *e, const struct zo_pass *passes, size_t n, struct zo_loss *out)
{
    return e->device ? zo_device_losses(e->device, passes, n, out)
                     : zo_model_losses(e->model, passes, n, out, e->kernels, e->pool);
}

enum err peer_engine_digest_u64(const struct peer_engine *e, uint64_t *digest)
{
    if (e->device)
        return zo_device_digest(e->device, digest);
    *digest = zo_state_digest(e->state, e->kernels, e->pool);
    return ERR_OK;
}

enum err peer_engine_headroom(const struct peer_engine *e, int64_t *tensor)
{
    if (e->device)
        return zo_device_headroom(e->device, tensor);
    *tensor = zo_state_headroom(e->state, e->pool);
    return ERR_OK;
}

enum err peer_engine_pull(const struct peer_engine *e)
{
    return e->device ? zo_device_pull(e->device) : ERR_OK;
}

enum err peer_engine_push(struct peer_engine *e)
{
    return e->device ? zo_device_push(e->device) : zo_model_refresh(e->model, e->pool);
}

const char *peer_engine_device_name(const struct peer_engine *e)
{
    return e->device ? zo_device_name(e->device) : "cpu";
}

enum zo_memory peer_engine_memory(const struct peer_engine *e)
{
    return e->device ? zo_device_memory(e->device) : zo_model_memory(e->model);
}

const char *peer_engine_error(const struct peer_engine *e, enum err code)
{
    const char *text = code == ERR_DEVICE && e->device ? zo_device_error(e->device) : "";
    return text[0] ? text : err_str(code);
}
