/* A target that must fail: it shows that the fuzzer and the sanitizer find things. */
#include "tests/fuzz/fuzz.h"

#ifdef FUZZ_ONE
FUZZ_TARGET(canary)
{
    uint8_t *four = malloc(4);
    ENSURE(four != NULL);
    if (size > 2 && data[0] == 'B' && data[1] == 'U' && data[2] == 'G')
        four[size + 4] = 1;
    free(four);
    return 0;
}
#endif
