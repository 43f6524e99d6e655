/* tokenizer.json: opened, then a text is encoded and decoded. */
#include "tests/fuzz/fuzz.h"
#include <onebyte/zo/tokenizer.h>

FUZZ_TARGET(tokenizer)
{
    static const char text[] = "Hello  there, it's 12 o'clock!\n\xc3\xa9t\xc3\xa9 \xe4\xbd\xa0 <s> \xff a";
    struct zo_tokenizer *t = NULL;
    struct err_why why = {{0}};
    uint32_t *ids = NULL;
    size_t n = 0;
    char *back = NULL;
    (void)fuzz_file("tokenizer.json", data, size);
    if (zo_tokenizer_open(&t, fuzz_dir(), &why) != ERR_OK)
        return 0;
    if (zo_tokenizer_encode(t, text, sizeof text - 1, true, &ids, &n) == ERR_OK) {
        for (size_t i = 0; i < n; i++)
            ENSURE(ids[i] < zo_tokenizer_vocab(t));
        if (zo_tokenizer_decode(t, ids, n, false, &back) == ERR_OK)
            free(back);
        free(ids);
    }
    zo_tokenizer_free(t);
    return 0;
}
