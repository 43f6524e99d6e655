/* zo/codec.h -- projected gradients to bytes and back: DESIGN 3 "Byte", SPEC 6. */
#ifndef ONEBYTE_ZO_CODEC_H
#define ONEBYTE_ZO_CODEC_H
#include <onebyte/base/err.h>
#include <onebyte/zo/rules.h>
#include <stddef.h>
#include <stdint.h>

enum { ZO_CODE_VOID = -128, ZO_CODEC_HISTORY = 256 };

uint16_t zo_f16_from_double(double x); /* nearest, ties to even; saturates at 65504; NaN -> 0x7e00 */
double zo_f16_to_double(uint16_t h);

/* The last non-void g of this machine; survives a restart only as zeros (author's business). */
struct zo_codec {
    double history[ZO_CODEC_HISTORY];
    uint32_t n, next;
};

/* codes [n], *r_f16 <- g [n] (non-finite = void).  Updates the history.  Pure otherwise. */
void zo_codec_seal(struct zo_codec *c, const struct zo_rules *rules, const double *g, size_t n,
                   int8_t *codes, uint16_t *r_f16);

/* rho = (plus - minus) / (2 eps); NaN if either is not finite. */
double zo_project_two_sided(double loss_plus, double loss_minus, double eps);
/* g [k] <- (loss [k] - loss_0) / eps less the group's mean over its finite members; all NaN if loss_0 is not finite. */
void zo_project_one_sided(double *g, const double *loss, double loss_0, double eps, size_t k);
#endif
