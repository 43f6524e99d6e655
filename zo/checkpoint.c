/* zo/checkpoint.c -- safetensors: 8 bytes of header length, a JSON header, then the tensors' bytes
 * without gaps. Source: https://github.com/huggingface/safetensors, "Format".  Nothing of the
 * header is believed before it was checked against the file's size; after zo_ckpt_open every
 * tensor's data lies inside its mapping. */
#include <onebyte/zo/checkpoint.h>

#include <onebyte/base/bytes.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct zo_ckpt_file {
    uint8_t *map;
    size_t bytes;
};

enum {
    CHUNK = 16384,
    MESSAGE_PATH = 400
}; /* floats written at once; bytes of a path kept for messages */

size_t zo_dtype_bytes(enum zo_dtype d)
{
    return d == ZO_F64 ? 8 : d == ZO_F32 ? 4 : 2;
}

/* Size of an element by its safetensors name, 0: unknown.  *d: its zo_dtype, *is_float: whether it
 * has one. */
static size_t dtype_named(const char *name, enum zo_dtype *d, bool *is_float)
{
    static const struct {
        const char *name;
        size_t bytes;
        int dtype;
    } known[] = {
        {"F32", 4, ZO_F32}, {"F16", 2, ZO_F16}, {"BF16", 2, ZO_BF16}, {"F64", 8, ZO_F64},
        {"BOOL", 1, -1},    {"U8", 1, -1},      {"I8", 1, -1},        {"U16", 2, -1},
        {"I16", 2, -1},     {"U32", 4, -1},     {"I32", 4, -1},       {"U64", 8, -1},
        {"I64", 8, -1},     {"F8_E4M3", 1, -1}, {"F8_E5M2", 1, -1},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(known[i].name, name) == 0) {
            *is_float = known[i].dtype >= 0;
            if (*is_float)
                *d = (enum zo_dtype)known[i].dtype;
            return known[i].bytes;
        }
    return 0;
}

/* One tensor of the header, with its place in the file. */
struct entry {
    struct zo_ckpt_tensor t;
    uint64_t begin, end;
    bool is_float;
};

static enum err entry_parse(struct entry *e, const char *path, const char *name,
                            const json_t *value, uint64_t data_bytes, struct err_why *why)
{
    const json_t *dtype = json_object_get(value, "dtype"), *shape = json_object_get(value, "shape"),
                 *at = json_object_get(value, "data_offsets");
    memset(e, 0, sizeof *e);
    if (strlen(name) > LIMIT_NAME_BYTES)
        return err_set(why, ERR_FORMAT, "%s: a tensor's name is longer than %d bytes", path,
                       LIMIT_NAME_BYTES);
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127) /* it would reach the user's terminal */
            return err_set(why, ERR_FORMAT, "%s: a tensor's name holds a control character", path);
    memcpy(e->t.name, name, strlen(name) + 1);
    if (!json_is_string(dtype) || !json_is_array(shape) || !json_is_array(at) ||
        json_array_size(at) != 2)
        return err_set(why, ERR_FORMAT, "%s: tensor %s lacks dtype, shape or data_offsets", path,
                       name);
    const size_t width = dtype_named(json_string_value(dtype), &e->t.dtype, &e->is_float);
    if (width == 0)
        return err_set(why, ERR_UNSUPPORTED, "%s: tensor %s has unknown dtype %.20s", path, name,
                       json_string_value(dtype));
    if (json_array_size(shape) > LIMIT_TENSOR_DIMS)
        return err_set(why, ERR_FORMAT, "%s: tensor %s has more than %d dimensions", path, name,
                       LIMIT_TENSOR_DIMS);
    e->t.n_dims = (uint32_t)json_array_size(shape);
    e->t.elements = 1;
    for (uint32_t i = 0; i < e->t.n_dims; i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return err_set(why, ERR_FORMAT, "%s: tensor %s has a bad shape", path, name);
        e->t.dims[i] = (uint64_t)json_integer_value(dim);
        if (__builtin_mul_overflow(e->t.elements, e->t.dims[i], &e->t.elements))
            return err_set(why, ERR_FORMAT, "%s: tensor %s has a bad shape", path, name);
    }
    const json_t *begin = json_array_get(at, 0), *end = json_array_get(at, 1);
    if (!json_is_integer(begin) || !json_is_integer(end) || json_integer_value(begin) < 0 ||
        json_integer_value(end) < json_integer_value(begin) ||
        (uint64_t)json_integer_value(end) > data_bytes)
        return err_set(
            why, ERR_FORMAT,
            "%s: tensor %s lies outside the file: the file is truncated or damaged, fetch it again",
            path, name);
    e->begin = (uint64_t)json_integer_value(begin);
    e->end = (uint64_t)json_integer_value(end);
    uint64_t want;
    if (__builtin_mul_overflow(e->t.elements, (uint64_t)width, &want) || e->end - e->begin != want)
        return err_set(why, ERR_FORMAT,
                       "%s: tensor %s: shape and dtype do not fit its %" PRIu64 " bytes", path,
                       name, e->end - e->begin);
    return ERR_OK;
}

static int entry_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* No two tensors share a byte, no byte belongs to none: what the format demands. */
static enum err entries_tile(struct entry *e, size_t n, uint64_t data_bytes, const char *path,
                             struct err_why *why)
{
    uint64_t at = 0;
    if (n > 0)
        qsort(e, n, sizeof *e, entry_order);
    for (size_t i = 0; i < n; i++) {
        if (e[i].begin != at)
            return err_set(why, ERR_FORMAT, "%s: tensor %s %s: the file is damaged, fetch it again",
                           path, e[i].t.name,
                           e[i].begin < at ? "overlaps another" : "leaves a hole before it");
        at = e[i].end;
    }
    if (at != data_bytes)
        return err_set(why, ERR_FORMAT,
                       "%s: %" PRIu64
                       " bytes after the last tensor: the file is damaged, fetch it again",
                       path, data_bytes - at);
    return ERR_OK;
}

/* Appends the header's float tensors to c; data starts at base [data_bytes]. */
static enum err header_read(struct zo_ckpt *c, const json_t *head, const uint8_t *base,
                            uint64_t data_bytes, const char *path, struct err_why *why)
{
    const size_t n = json_object_size(head);
    if (n > LIMIT_TENSORS + 1)
        return err_set(why, ERR_FORMAT, "%s: more than %d tensors", path, LIMIT_TENSORS);
    struct entry *e = calloc(n + 1, sizeof *e);
    struct zo_ckpt_tensor *grown = realloc(c->tensors, (c->n + n + 1) * sizeof *grown);
    enum err result = ERR_NOMEM;
    size_t used = 0;
    const char *name;
    json_t *value;
    zo_ckpt_name *others = realloc(c->others, (c->n_others + n + 1) * sizeof *others);
    if (grown)
        c->tensors = grown;
    if (others)
        c->others = others;
    if (!e || !grown || !others)
        goto out;
    json_object_foreach((json_t *)(uintptr_t)head, name, value)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        result = entry_parse(&e[used++], path, name, value, data_bytes, why);
        if (result != ERR_OK)
            goto out;
    }
    result = entries_tile(e, used, data_bytes, path, why);
    if (result != ERR_OK)
        goto out;
    for (size_t i = 0; i < used; i++)
        if (!e[i].is_float)
            memcpy(c->others[c->n_others++], e[i].t.name, sizeof e[i].t.name);
    for (size_t i = 0; i < used; i++)
        if (e[i].is_float) { /* index tables and masks (position_ids, ..) are no parameters */
            e[i].t.data = base + e[i].begin;
            c->tensors[c->n++] = e[i].t;
        }
out:
    free(e);
    return result;
}

/* Maps one file.  On success the file is in c->files, whose storage the caller has made. */
static enum err file_map(struct zo_ckpt *c, const char *path, struct err_why *why)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        const int e = errno;
        if (fd >= 0)
            close(fd);
        return err_set(why, e == ENOENT ? ERR_NOTFOUND : ERR_IO, "%s: %s", path, strerror(e));
    }
    if (!S_ISREG(st.st_mode) || st.st_size < 8) {
        close(fd);
        return err_set(why, ERR_FORMAT,
                       "%s: not a safetensors file (shorter than its 8-byte length)", path);
    }
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return err_set(why, ERR_IO, "%s: cannot map: %s", path, strerror(errno));
    c->files[c->n_files].map = map;
    c->files[c->n_files].bytes = (size_t)st.st_size;
    c->n_files++;
    return ERR_OK;
}

static enum err file_open(struct zo_ckpt *c, const char *path, struct err_why *why)
{
    TRY(file_map(c, path, why));
    const struct zo_ckpt_file *f = &c->files[c->n_files - 1];
    const uint64_t head_bytes = bytes_get_le(f->map, 8);
    if (head_bytes > LIMIT_CKPT_HEADER)
        return err_set(why, ERR_FORMAT,
                       "%s: header of %" PRIu64 " bytes is longer than %d: not a safetensors file",
                       path, head_bytes, LIMIT_CKPT_HEADER);
    if (head_bytes > f->bytes - 8)
        return err_set(why, ERR_FORMAT, "%s: truncated inside its header: fetch it again", path);
    json_error_t where;
    json_t *head =
        json_loadb((const char *)f->map + 8, (size_t)head_bytes, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(head)) {
        json_decref(head);
        return err_set(why, ERR_FORMAT, "%s: header is not a JSON object: %s", path,
                       head ? "wrong type" : where.text);
    }
    const enum err e = header_read(c, head, f->map + 8 + head_bytes,
                                   (uint64_t)f->bytes - 8 - head_bytes, path, why);
    json_decref(head);
    if (e == ERR_NOMEM)
        (void)err_set(why, e, "%s: out of memory for its header", path);
    return e;
}

static int tensor_order(const void *a, const void *b)
{
    return strcmp(((const struct zo_ckpt_tensor *)a)->name,
                  ((const struct zo_ckpt_tensor *)b)->name);
}

/* Every tensor the index names must be in some shard. */
static enum err index_check(const struct zo_ckpt *c, const json_t *map, const char *path,
                            struct err_why *why)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, name, value)
    {
        bool found = zo_ckpt_find(c, name) != NULL;
        const size_t n = strlen(name);
        /* Integer tensors are indexed too, but not kept. */
        const bool maybe_integer =
            n >= 4 && (strstr(name, "position_ids") || strstr(name, "attn.bias") ||
                       strstr(name, "masked_bias"));
        if (!found && !maybe_integer)
            return err_set(why, ERR_NOTFOUND, "%s: tensor %.200s is in no shard", path, name);
    }
    return ERR_OK;
}

/* Opens each shard once, in the order of their names. */
static enum err shards_open(struct zo_ckpt *c, const char *dir, const json_t *map,
                            const char *index, struct err_why *why)
{
    json_t *seen = json_object();
    enum err result = seen ? ERR_OK : ERR_NOMEM;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, name, value)
    {
        const char *shard = json_string_value(value);
        if (result != ERR_OK)
            break;
        if (!shard || strchr(shard, '/') || shard[0] == '.')
            result =
                err_set(why, ERR_FORMAT, "%s: tensor %.200s has no valid shard name", index, name);
        else if (json_object_set_new(seen, shard, json_true()) != 0)
            result = ERR_NOMEM;
    }
    if (result == ERR_OK) {
        c->files = calloc(json_object_size(seen) + 1, sizeof *c->files);
        result = c->files ? ERR_OK : ERR_NOMEM;
    }
    json_object_foreach(seen, name, value)
    {
        char path[4096];
        if (result != ERR_OK)
            break;
        (void)snprintf(path, sizeof path, "%s/%s", dir, name);
        result = file_open(c, path, why);
        if (result == ERR_NOTFOUND)
            (void)err_set(why, result, "%.*s: shard is missing; %.*s names it", MESSAGE_PATH / 2,
                          path, MESSAGE_PATH / 2, index);
    }
    json_decref(seen);
    return result;
}

static enum err index_open(struct zo_ckpt *c, const char *dir, const char *path,
                           struct err_why *why)
{
    json_error_t where;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return err_set(why, ERR_FORMAT, "%.*s: line %d: %s", MESSAGE_PATH, path, where.line,
                       where.text);
    const json_t *map = json_object_get(root, "weight_map");
    enum err e = json_is_object(map) && json_object_size(map) > 0
                     ? shards_open(c, dir, map, path, why)
                     : err_set(why, ERR_FORMAT, "%.*s: no weight_map", MESSAGE_PATH, path);
    if (e == ERR_OK) {
        qsort(c->tensors, c->n, sizeof *c->tensors, tensor_order);
        e = index_check(c, map, path, why);
    }
    json_decref(root);
    return e;
}

/* Neither form is there: say what is, and how to convert it. */
static enum err nothing_found(const char *dir, struct err_why *why)
{
    static const char *const pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    char path[4096];
    for (size_t i = 0; i < ARRAY_LEN(pickles); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, pickles[i]);
        if (access(path, F_OK) == 0)
            return err_set(why, ERR_UNSUPPORTED,
                           "%.200s: a PyTorch .bin can run code when it is read; convert it: "
                           "python3 -c \"import glob, torch, safetensors.torch as s; t = {}; "
                           "[t.update(torch.load(f, weights_only=True)) for f in "
                           "glob.glob('%.200s/pytorch_model*.bin')]; "
                           "s.save_file({k: v.contiguous().clone() for k, v in t.items()}, "
                           "'%.200s/model.safetensors', {'format': 'pt'})\"",
                           path, dir, dir);
    }
    return err_set(why, ERR_NOTFOUND,
                   "%.*s: neither model.safetensors nor model.safetensors.index.json is there",
                   MESSAGE_PATH, dir);
}

enum err zo_ckpt_open(struct zo_ckpt *c, const char *dir, struct err_why *why)
{
    char path[4096];
    struct zo_ckpt made = {0};
    enum err e;
    if (strlen(dir) > sizeof path - 64)
        return err_set(why, ERR_RANGE, "the model folder's path is too long");
    (void)snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (access(path, F_OK) == 0) {
        made.files = calloc(1, sizeof *made.files);
        e = made.files ? file_open(&made, path, why) : err_set(why, ERR_NOMEM, "out of memory");
    } else {
        (void)snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
        e = access(path, F_OK) == 0 ? index_open(&made, dir, path, why) : nothing_found(dir, why);
    }
    if (e == ERR_OK && made.n > 0)
        qsort(made.tensors, made.n, sizeof *made.tensors, tensor_order);
    for (size_t i = 1; e == ERR_OK && i < made.n; i++)
        if (strcmp(made.tensors[i - 1].name, made.tensors[i].name) == 0)
            e = err_set(why, ERR_FORMAT, "%.*s: tensor %s is in two shards", MESSAGE_PATH, dir,
                        made.tensors[i].name);
    if (e != ERR_OK) {
        zo_ckpt_close(&made);
        return e;
    }
    *c = made;
    return ERR_OK;
}

void zo_ckpt_close(struct zo_ckpt *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_files; i++)
        munmap(c->files[i].map, c->files[i].bytes);
    free(c->files);
    free(c->others);
    free(c->tensors);
    memset(c, 0, sizeof *c);
}

const struct zo_ckpt_tensor *zo_ckpt_find(const struct zo_ckpt *c, const char *name)
{
    size_t low = 0, high = c->n;
    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        const int order = strcmp(name, c->tensors[mid].name);
        if (order == 0)
            return &c->tensors[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

bool zo_ckpt_not_float(const struct zo_ckpt *c, const char *name)
{
    for (size_t i = 0; i < c->n_others; i++)
        if (strcmp(c->others[i], name) == 0)
            return true;
    return false;
}

static float f32_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t f32_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float f16_to_f32(uint32_t h)
{
    const uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31)
        return f32_from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent != 0)
        return f32_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    const float tiny = (float)fraction * 0x1p-24f; /* subnormal: exact */
    return sign ? -tiny : tiny;
}

void zo_ckpt_read_f32(const struct zo_ckpt_tensor *t, uint64_t first, float *out, size_t n)
{
    ENSURE(first <= t->elements && n <= t->elements - first);
    const uint8_t *p = (const uint8_t *)t->data + first * zo_dtype_bytes(t->dtype);
    if (n == 0)
        return;
    switch (t->dtype) {
    case ZO_F32:
        memcpy(out, p,
               n * sizeof *out); /* the format and every CPU we build for are little-endian */
        break;
    case ZO_F64:
        for (size_t i = 0; i < n; i++) {
            double d;
            memcpy(&d, p + 8 * i, sizeof d);
            out[i] = (float)d;
        }
        break;
    case ZO_BF16:
        for (size_t i = 0; i < n; i++)
            out[i] = f32_from_bits((uint32_t)p[2 * i] << 16 | (uint32_t)p[2 * i + 1] << 24);
        break;
    case ZO_F16:
        for (size_t i = 0; i < n; i++)
            out[i] = f16_to_f32((uint32_t)p[2 * i] | (uint32_t)p[2 * i + 1] << 8);
        break;
    }
}

void zo_ckpt_drop_pages(const struct zo_ckpt *c)
{
    for (size_t i = 0; i < c->n_files; i++)
        (void)madvise(c->files[i].map, c->files[i].bytes,
                      MADV_DONTNEED); /* advice: failing costs memory only */
}

/* Nearest, ties to even; overflow to infinity. */
static uint32_t bf16_from_f32(float f)
{
    const uint32_t b = f32_bits(f);
    if (f != f)
        return b >> 16 | 64;
    return (b + 0x7fff + (b >> 16 & 1)) >> 16;
}

static uint32_t f16_from_f32(float f)
{
    const uint32_t sign = f32_bits(f) >> 16 & 0x8000u;
    const float a = fabsf(f);
    if (f != f)
        return sign | 0x7e00;
    if (a >= 65520.0f) /* halfway to the next power of two rounds to even: away */
        return sign | 0x7c00;
    if (a < 0x1p-14f) /* subnormal: one addition rounds as the format does */
        return sign | (f32_bits(a + 0.5f) - f32_bits(0.5f));
    const uint32_t b = f32_bits(a);
    return sign | (((b + 0xfff + (b >> 13 & 1)) >> 13) - (112u << 10));
}

static void encode(uint8_t *out, const float *in, size_t n, enum zo_dtype dtype)
{
    for (size_t i = 0; i < n; i++) {
        if (dtype == ZO_F32)
            bytes_put_le(out + 4 * i, f32_bits(in[i]), 4);
        else
            bytes_put_le(out + 2 * i, dtype == ZO_BF16 ? bf16_from_f32(in[i]) : f16_from_f32(in[i]),
                         2);
    }
}

static uint64_t source_elements(const struct zo_ckpt_source *s)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < s->n_dims; i++)
        n *= s->dims[i];
    return n;
}

/* The JSON header, padded with blanks to a multiple of 8; malloc'd. */
static char *header_make(const struct zo_ckpt_source *tensors, size_t n, enum zo_dtype dtype,
                         size_t *bytes)
{
    static const char *const names[] = {[ZO_F32] = "F32", [ZO_F16] = "F16", [ZO_BF16] = "BF16"};
    json_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    uint64_t at = 0;
    for (size_t i = 0; root && i < n; i++) {
        const uint64_t end = at + source_elements(&tensors[i]) * zo_dtype_bytes(dtype);
        json_t *shape = json_array();
        for (uint32_t j = 0; j < tensors[i].n_dims; j++)
            if (json_array_append_new(shape, json_integer((json_int_t)tensors[i].dims[j])) != 0)
                break;
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", names[dtype], "shape", shape,
                                  "data_offsets", (json_int_t)at, (json_int_t)end);
        if (!entry || json_object_set_new(root, tensors[i].name, entry) != 0) {
            json_decref(root);
            return NULL;
        }
        at = end;
    }
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (!text)
        return NULL;
    const size_t length = strlen(text);
    char *padded = realloc(text, (length + 8) & ~(size_t)7);
    if (!padded) {
        free(text);
        return NULL;
    }
    *bytes = (length + 7) & ~(size_t)7;
    memset(padded + length, ' ', *bytes - length);
    return padded;
}

static enum err body_write(FILE *f, const char *path, const struct zo_ckpt_source *tensors,
                           size_t n, enum zo_dtype dtype, struct err_why *why)
{
    float *values = malloc(CHUNK * sizeof *values);
    uint8_t *bytes = malloc(4 * CHUNK);
    enum err e = values && bytes ? ERR_OK : err_set(why, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        const uint64_t total = source_elements(&tensors[i]);
        for (uint64_t at = 0; at < total && e == ERR_OK; at += CHUNK) {
            const size_t part = total - at < CHUNK ? (size_t)(total - at) : CHUNK;
            tensors[i].read(tensors[i].ctx, at, values, part);
            for (size_t j = 0; j < part && dtype == ZO_F16; j++)
                if (isfinite(values[j]) && fabsf(values[j]) >= 65520.0f)
                    e = err_set(why, ERR_RANGE,
                                "tensor %s holds %g, too large for F16: choose F32 or BF16",
                                tensors[i].name, (double)values[j]);
            encode(bytes, values, part, dtype);
            if (e == ERR_OK && fwrite(bytes, zo_dtype_bytes(dtype), part, f) != part)
                e = err_set(why, ERR_IO, "%s: cannot write: %s", path, strerror(errno));
        }
    }
    free(values);
    free(bytes);
    return e;
}

/* The rename is durable once the folder is. */
static void folder_sync(const char *path)
{
    char dir[4096];
    (void)snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[1] = 0;
    const int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
}

enum err zo_ckpt_write(const char *path, const struct zo_ckpt_source *tensors, size_t n,
                       enum zo_dtype dtype, struct err_why *why)
{
    char temporary[4096];
    size_t head_bytes = 0;
    if (dtype == ZO_F64)
        return err_set(why, ERR_UNSUPPORTED,
                       "checkpoints are written as F32, F16 or BF16, not F64");
    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary)
        return err_set(why, ERR_RANGE, "the path of the checkpoint is too long");
    char *head = header_make(tensors, n, dtype, &head_bytes);
    if (!head)
        return err_set(why, ERR_NOMEM, "out of memory for the header of %s", path);
    FILE *f = fopen(temporary, "wbe");
    if (!f) {
        free(head);
        return err_set(why, ERR_IO, "%s: cannot create: %s", temporary, strerror(errno));
    }
    uint8_t length[8];
    bytes_put_le(length, head_bytes, 8);
    enum err e = fwrite(length, 1, 8, f) == 8 && fwrite(head, 1, head_bytes, f) == head_bytes
                     ? body_write(f, path, tensors, n, dtype, why)
                     : err_set(why, ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    free(head);
    if (e == ERR_OK && (fflush(f) != 0 || fsync(fileno(f)) != 0))
        e = err_set(why, ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    if (fclose(f) != 0 && e == ERR_OK)
        e = err_set(why, ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    if (e == ERR_OK && rename(temporary, path) != 0)
        e = err_set(why, ERR_IO, "%s: cannot rename: %s", path, strerror(errno));
    if (e != ERR_OK)
        (void)unlink(temporary);
    else
        folder_sync(path);
    return e;
}
