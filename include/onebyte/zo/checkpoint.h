/* zo/checkpoint.h -- Hugging Face checkpoints: safetensors files, mapped and fully checked before use. */
#ifndef ONEBYTE_ZO_CHECKPOINT_H
#define ONEBYTE_ZO_CHECKPOINT_H
#include <onebyte/base/err.h>
#include <onebyte/base/limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum zo_dtype { ZO_F32, ZO_F16, ZO_BF16, ZO_F64 };
size_t zo_dtype_bytes(enum zo_dtype d);

struct zo_ckpt_tensor {
    char name[LIMIT_NAME_BYTES + 1];
    enum zo_dtype dtype;
    uint32_t n_dims;
    uint64_t dims[LIMIT_TENSOR_DIMS];
    uint64_t elements;
    const void *data; /* in the mapping; may be unaligned */
};

typedef char zo_ckpt_name[LIMIT_NAME_BYTES + 1];

struct zo_ckpt {
    size_t n;
    struct zo_ckpt_tensor *tensors; /* in byte order of their names */
    struct zo_ckpt_file *files;     /* private: mappings */
    size_t n_files;
    zo_ckpt_name *others; /* [n_others] tensors of integers, which are no parameters: their names alone */
    size_t n_others;
};

/* dir/model.safetensors, or the shards of dir/model.safetensors.index.json. */
NODISCARD enum err zo_ckpt_open(struct zo_ckpt *c, const char *dir, struct err_why *why);
void zo_ckpt_close(struct zo_ckpt *c);
const struct zo_ckpt_tensor *zo_ckpt_find(const struct zo_ckpt *c, const char *name); /* NULL: none */
bool zo_ckpt_not_float(const struct zo_ckpt *c, const char *name); /* it is there, but holds integers */
/* out [n] <- elements first.. of t, exact. */
void zo_ckpt_read_f32(const struct zo_ckpt_tensor *t, uint64_t first, float *out, size_t n);
void zo_ckpt_drop_pages(const struct zo_ckpt *c); /* lets the kernel take back what was read */

/* Writes one safetensors file (F32, F16 or BF16), tensor by tensor, atomically (temporary name, fsync, rename). */
struct zo_ckpt_source {
    const char *name;
    uint32_t n_dims;
    const uint64_t *dims;
    void (*read)(void *ctx, uint64_t first, float *out, size_t n);
    void *ctx;
};
NODISCARD enum err zo_ckpt_write(const char *path, const struct zo_ckpt_source *tensors, size_t n, enum zo_dtype dtype,
                                 struct err_why *why);
#endif
