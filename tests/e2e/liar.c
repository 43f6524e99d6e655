/* A peer that lies about bytes and nothing else: the product's own objects, linked with --wrap=zo_codec_seal, so that every code
 * it seals has the opposite sign.  Built for tests/e2e/test_audit.py (make tests), never installed. */
#include <onebyte/zo/codec.h>

void __real_zo_codec_seal(struct zo_codec *c, const struct zo_rules *rules, const double *g, size_t n, int8_t *codes,
                          uint16_t *r_f16);
void __wrap_zo_codec_seal(struct zo_codec *c, const struct zo_rules *rules, const double *g, size_t n, int8_t *codes,
                          uint16_t *r_f16);

void __wrap_zo_codec_seal(struct zo_codec *c, const struct zo_rules *rules, const double *g, size_t n, int8_t *codes,
                          uint16_t *r_f16)
{
    __real_zo_codec_seal(c, rules, g, n, codes, r_f16);
    for (size_t i = 0; i < n; i++)
        codes[i] = codes[i] == ZO_CODE_VOID ? ZO_CODE_VOID : (int8_t)-codes[i];
}
