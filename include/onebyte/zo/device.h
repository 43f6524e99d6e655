/* zo/device.h -- a GPU that holds the integer parameters and measures losses, through the plug-in libonebyte_cuda.so.
 *
 * From zo_device_load on the device's copy of the state is the one that counts: fold, digest and headroom are done there, bit
 * for bit as zo/state.h does them, and the state in host memory lags until zo_device_pull.  The forward pass serves every
 * architecture and kind of direction that zo/model.h does, adapters included; losses differ by rounding only.
 *
 * Errors   ERR_NOMEM: the device's memory; the call did nothing (a smaller batch may fit).  ERR_DEVICE: the device is lost
 *          (zo_device_error says why) and with it the newest state: only zo_device_free is left.
 * Threads  one per device.      Owner  the caller keeps model and state alive as long as the device. */
#ifndef ONEBYTE_ZO_DEVICE_H
#define ONEBYTE_ZO_DEVICE_H
#include <onebyte/base/err.h>
#include <onebyte/zo/model.h>
#include <onebyte/zo/state.h>
#include <stddef.h>
#include <stdint.h>

struct zo_device;

enum zo_device_type { ZO_DEVICE_BF16, ZO_DEVICE_FP16, ZO_DEVICE_FP32 }; /* of the products' factors; sums are FP32 */

/* plugin: path or name of the shared object, as dlopen takes it.  ERR_NOTFOUND (no plug-in, no driver, no device),
 * ERR_UNSUPPORTED (too old, or a plug-in of another version): why says which. */
NODISCARD enum err zo_device_open(struct zo_device **d, const char *plugin, uint32_t index, struct err_why *why);
void zo_device_free(struct zo_device *d); /* NULL is fine */

/* Copies the state and what the model reads beside it; s is the state the model is bound to.  memory: fast keeps a copy of the
 * weights in `type` beside the integers, lean makes it matrix by matrix; auto: fast if it fits.
 * ERR_NOMEM, ERR_UNSUPPORTED: why says what does not fit; the device may be freed and the CPU used. */
NODISCARD enum err zo_device_load(struct zo_device *d, struct zo_model *m, struct zo_state *s, enum zo_device_type type,
                                  enum zo_memory memory, struct err_why *why);

const char *zo_device_name(const struct zo_device *d); /* as the driver calls it */
enum zo_memory zo_device_memory(const struct zo_device *d); /* what load chose */
uint64_t zo_device_bytes(const struct zo_device *d); /* device memory taken so far, without the driver's own */
NODISCARD enum err zo_device_available(struct zo_device *d, uint64_t *free_bytes, uint64_t *bytes); /* of its memory; right after open */
const char *zo_device_error(const struct zo_device *d); /* after ERR_DEVICE; "" if there is nothing to say */

/* zo_state_fold, zo_state_digest and zo_state_headroom of the device's state. */
NODISCARD enum err zo_device_fold(struct zo_device *d, const struct zo_fold *folds, size_t n);
NODISCARD enum err zo_device_digest(struct zo_device *d, uint64_t *digest);
NODISCARD enum err zo_device_headroom(struct zo_device *d, int64_t *tensor);
NODISCARD enum err zo_device_pull(struct zo_device *d); /* host state <- device; nothing to do if it did not change */
NODISCARD enum err zo_device_push(struct zo_device *d); /* device <- host state */

/* zo_model_losses with the device's state.  ERR_RANGE as there. */
NODISCARD enum err zo_device_losses(struct zo_device *d, const struct zo_pass *passes, size_t n, struct zo_loss *out);
/* Small batches of small models run as CUDA graphs, where launching would take longer than computing; false: never (bench). */
void zo_device_graphs(struct zo_device *d, bool on);
#endif
