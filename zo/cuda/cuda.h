/* zo/cuda/cuda.h -- private: the device as zo/cuda/{device,state,weights,forward,head}.c share it. */
#ifndef ZO_CUDA_CUDA_H
#define ZO_CUDA_CUDA_H
#include "zo/cuda/abi.h"
#include "zo/model/batch.h"

#include <onebyte/zo/device.h>

/* Device memory that grows and is kept. */
struct cuda_buf {
    void *p;
    uint64_t bytes;
};

/* What the device keeps of a parameter of the model, beside the state's integers. */
struct cuda_param {
    void *w;      /* matrix in `type`: frozen, or resident; NULL: made when needed */
    float *plain; /* a frozen vector */
};

struct zo_device {
    void *library; /* NULL: the table was given */
    const struct zo_cuda_api *api;
    void *ctx;
    struct zo_cuda_info info;
    bool lost;
    uint64_t bytes; /* allocated */
    struct zo_model *model;
    struct zo_state *state;
    void **m;         /* [n_tensors] integers */
    bool host_behind; /* the device folded since the last pull */
    enum zo_cuda_type type;
    bool resident;
    struct cuda_param *params; /* [zo_model parameters], as zo_cuda_param numbers them */
    size_t n_params;
    void **copies; /* [n_tensors] the resident matrices among them, by tensor; NULL where there is none */
    uint64_t arena_most; /* bytes of activations per batch */
    uint64_t launch_most; /* elements times records of a fold's launch without tensor cores */
    struct cuda_buf records, coefs, factors, sums, weight, dense, arena, rope[2];
    size_t rope_n[2];
    bool recording;              /* launches are noted down: zo/cuda/losses.c */
    uint32_t graphs_left;        /* failures until recording is given up; 0: off */
    uint64_t batches, graphs;    /* run so far, and how many of them as a graph */
};

/* device.c */
NODISCARD enum err zo_device_open_table(struct zo_device **d, const struct zo_cuda_api *api, uint32_t index,
                                        struct err_why *why);
NODISCARD enum err zo_cuda_alloc(struct zo_device *d, void **p, uint64_t bytes);
NODISCARD enum err zo_cuda_grow(struct zo_device *d, struct cuda_buf *b, uint64_t bytes); /* contents are lost */
void zo_cuda_release(struct zo_device *d, struct cuda_buf *b);
NODISCARD enum err zo_cuda_put(struct zo_device *d, void *to, const void *host, uint64_t bytes);
NODISCARD enum err zo_cuda_get(struct zo_device *d, void *host, const void *from, uint64_t bytes);
/* grid: blocks; the _n form covers n items with one thread each, by strides beyond what keeps the device busy. */
NODISCARD enum err zo_cuda_launch(struct zo_device *d, enum zo_cuda_kernel k, uint64_t grid_x, uint32_t grid_y,
                                  uint32_t shared_bytes, const void *args);
NODISCARD enum err zo_cuda_launch_n(struct zo_device *d, enum zo_cuda_kernel k, uint64_t n, uint32_t grid_y,
                                    const void *args);
uint32_t zo_cuda_busy(const struct zo_device *d); /* blocks that keep the device busy */

/* state.c: the state alone, without a model. */
NODISCARD enum err zo_cuda_state_load(struct zo_device *d, struct zo_state *s, struct err_why *why);
bool zo_cuda_fold_copies(const struct zo_rules *r, uint32_t t); /* folding writes the tensor's resident copy too */

/* weights.c */
NODISCARD enum err zo_cuda_weights_load(struct zo_device *d, enum zo_memory memory, struct err_why *why);
/* The resident weights after the state changed; all: those too that a fold writes by itself. */
NODISCARD enum err zo_cuda_weights_refresh(struct zo_device *d, bool all);
struct cuda_param *zo_cuda_param(const struct zo_device *d, const struct param *p);
/* Rows row0 .. of a state's tensor, in d->type, in d->weight. */
NODISCARD enum err zo_cuda_tensor(struct zo_device *d, uint32_t t, uint64_t row0, uint64_t n_rows, const void **w);
/* The matrix's rows row0 .. as stored, in d->type: resident, frozen, or made in d->weight now. */
NODISCARD enum err zo_cuda_matrix(struct zo_device *d, const struct param *p, uint64_t row0, uint64_t n_rows,
                                  const void **w);
#endif
