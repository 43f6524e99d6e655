/* Checkpoints in the safetensors format: mapped, checked, every tensor read. */
#include "tests/fuzz/fuzz.h"
#include <onebyte/zo/checkpoint.h>

FUZZ_TARGET(safetensors)
{
    struct zo_ckpt c;
    struct err_why why = {{0}};
    (void)fuzz_file("model.safetensors", data, size);
    if (zo_ckpt_open(&c, fuzz_dir(), &why) != ERR_OK)
        return 0;
    for (size_t i = 0; i < c.n; i++)
        for (uint64_t at = 0; at < c.tensors[i].elements;) {
            float out[256];
            const uint64_t left = c.tensors[i].elements - at;
            const size_t n = left < 256 ? (size_t)left : 256;
            zo_ckpt_read_f32(&c.tensors[i], at, out, n);
            at += n;
        }
    zo_ckpt_close(&c);
    return 0;
}
