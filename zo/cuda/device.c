/* zo/cuda/device.c -- opening the plug-in, and its calls with their errors kept. */
#include "zo/cuda/cuda.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { GRAPH_FAILURES = 3 };

static enum err table_check(const struct zo_cuda_api *api, struct err_why *why)
{
    if (!api || api->version != ZO_CUDA_VERSION || api->bytes != sizeof *api)
        return err_set(why, ERR_UNSUPPORTED,
                       "the CUDA plug-in is of another version (%u, this program needs %d): build both from one tree",
                       api ? api->version : 0, ZO_CUDA_VERSION);
    return ERR_OK;
}

enum err zo_device_open_table(struct zo_device **d, const struct zo_cuda_api *api, uint32_t index, struct err_why *why)
{
    TRY(table_check(api, why));
    struct zo_device *made = calloc(1, sizeof *made);
    if (!made)
        return err_set(why, ERR_NOMEM, "out of memory");
    made->api = api;
    made->graphs_left = GRAPH_FAILURES;
    const enum err e = api->open(&made->ctx, index, &made->info, why);
    if (e != ERR_OK) {
        free(made);
        return e;
    }
    *d = made;
    return ERR_OK;
}

enum err zo_device_open(struct zo_device **d, const char *plugin, uint32_t index, struct err_why *why)
{
    /* Kept for good: threads and exit handlers of CUDA's libraries outlive a device, and loading them again takes long. */
    void *library = dlopen(plugin, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library)
        return err_set(why, ERR_NOTFOUND, "no CUDA plug-in (%.400s)", dlerror());
    const struct zo_cuda_api *(*table)(void) = NULL;
    void *symbol = dlsym(library, ZO_CUDA_SYMBOL);
    memcpy(&table, &symbol, sizeof table); /* POSIX: a data pointer from dlsym is the function's */
    enum err e = symbol ? zo_device_open_table(d, table(), index, why)
                        : err_set(why, ERR_UNSUPPORTED, "%.400s is no CUDA plug-in of onebyte", plugin);
    if (e != ERR_OK)
        (void)dlclose(library);
    else
        (*d)->library = library;
    return e;
}

void zo_device_free(struct zo_device *d)
{
    if (!d)
        return;
    struct cuda_buf *const bufs[] = {&d->records, &d->coefs, &d->factors, &d->sums,   &d->weight,
                                     &d->dense,   &d->arena, &d->rope[0], &d->rope[1]};
    for (size_t i = 0; i < ARRAY_LEN(bufs); i++)
        zo_cuda_release(d, bufs[i]);
    for (uint32_t t = 0; d->m && t < d->state->rules->n_tensors; t++)
        d->api->free(d->ctx, d->m[t]);
    for (size_t i = 0; d->params && i < d->n_params; i++) {
        d->api->free(d->ctx, d->params[i].w);
        d->api->free(d->ctx, d->params[i].plain);
    }
    d->api->close(d->ctx);
    if (d->library)
        (void)dlclose(d->library);
    free(d->params);
    free(d->copies);
    free(d->m);
    free(d);
}

const char *zo_device_name(const struct zo_device *d)
{
    return d->info.name;
}

enum zo_memory zo_device_memory(const struct zo_device *d)
{
    return d->resident ? ZO_MEMORY_FAST : ZO_MEMORY_LEAN;
}

uint64_t zo_device_bytes(const struct zo_device *d)
{
    return d->bytes;
}

enum err zo_device_available(struct zo_device *d, uint64_t *free_bytes, uint64_t *bytes)
{
    *bytes = d->info.memory;
    return d->api->available(d->ctx, free_bytes);
}

void zo_device_graphs(struct zo_device *d, bool on)
{
    d->graphs_left = on ? GRAPH_FAILURES : 0;
}

const char *zo_device_error(const struct zo_device *d)
{
    return d->api->error(d->ctx);
}

static enum err noted(struct zo_device *d, enum err e)
{
    d->lost = d->lost || e == ERR_DEVICE;
    return e;
}

enum err zo_cuda_alloc(struct zo_device *d, void **p, uint64_t bytes)
{
    if (d->lost)
        return ERR_DEVICE;
    TRY(noted(d, d->api->alloc(d->ctx, p, bytes)));
    d->bytes += bytes;
    return ERR_OK;
}

void zo_cuda_release(struct zo_device *d, struct cuda_buf *b)
{
    d->api->free(d->ctx, b->p);
    d->bytes -= b->bytes;
    *b = (struct cuda_buf){0};
}

enum err zo_cuda_grow(struct zo_device *d, struct cuda_buf *b, uint64_t bytes)
{
    if (b->bytes >= bytes)
        return ERR_OK;
    if (d->recording)
        return ERR_UNSUPPORTED;
    zo_cuda_release(d, b);
    TRY(zo_cuda_alloc(d, &b->p, bytes));
    b->bytes = bytes;
    return ERR_OK;
}

enum err zo_cuda_put(struct zo_device *d, void *to, const void *host, uint64_t bytes)
{
    if (d->recording)
        return ERR_UNSUPPORTED;
    return d->lost ? ERR_DEVICE : noted(d, d->api->put(d->ctx, to, host, bytes));
}

enum err zo_cuda_get(struct zo_device *d, void *host, const void *from, uint64_t bytes)
{
    return d->lost ? ERR_DEVICE : noted(d, d->api->get(d->ctx, host, from, bytes));
}

enum err zo_cuda_launch(struct zo_device *d, enum zo_cuda_kernel k, uint64_t grid_x, uint32_t grid_y,
                        uint32_t shared_bytes, const void *args)
{
    if (d->lost)
        return ERR_DEVICE;
    if (grid_x == 0 || grid_y == 0)
        return ERR_OK;
    if (grid_x > INT32_MAX || grid_y > UINT16_MAX || shared_bytes > d->info.shared_max)
        return ERR_RANGE;
    return noted(d, d->api->launch(d->ctx, k, (uint32_t)grid_x, grid_y, shared_bytes, args));
}

uint32_t zo_cuda_busy(const struct zo_device *d)
{
    return d->info.processors * 32;
}

enum err zo_cuda_launch_n(struct zo_device *d, enum zo_cuda_kernel k, uint64_t n, uint32_t grid_y, const void *args)
{
    const uint64_t blocks = (n + ZO_CUDA_THREADS - 1) / ZO_CUDA_THREADS;
    return zo_cuda_launch(d, k, blocks < zo_cuda_busy(d) ? blocks : zo_cuda_busy(d), grid_y, 0, args);
}
