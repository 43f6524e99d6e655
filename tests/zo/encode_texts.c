/* Encodes texts for tests/check_tokenizers.py.  Usage: encode_texts DIR [plain|special] < FILE
 * FILE: for each text its length as 4 bytes little-endian, then its bytes.  Out: one line of ids per text, and with
 * a third argument "decode" a second line: the ids' text in hexadecimal.  With "time": seconds of CPU per pass on stderr. */
#include <onebyte/base/bytes.h>
#include <onebyte/zo/tokenizer.h>
#include <string.h>
#include <time.h>

static void print_decoded(const struct zo_tokenizer *t, const uint32_t *ids, size_t n)
{
    char *text = NULL;
    if (zo_tokenizer_decode(t, ids, n, false, &text))
        exit(1);
    for (const char *p = text; *p; p++)
        printf("%02x", (unsigned char)*p);
    putchar('\n');
    free(text);
}

int main(int argc, char **argv)
{
    struct zo_tokenizer *t = NULL;
    struct err_why why = {0};
    if (argc < 2)
        return 2;
    if (zo_tokenizer_open(&t, argv[1], &why)) {
        fprintf(stderr, "%s\n", why.text);
        return 1;
    }
    const bool special = argc > 2 && strcmp(argv[2], "special") == 0;
    uint8_t head[4];
    double seconds = 0;
    while (fread(head, 1, 4, stdin) == 4) {
        const size_t n = bytes_get_le(head, 4);
        char *text = malloc(n + 1);
        if (!text || fread(text, 1, n, stdin) != n)
            return 1;
        uint32_t *ids = NULL;
        size_t n_ids = 0;
        struct timespec a, b;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
        const enum err e = zo_tokenizer_encode(t, text, n, special, &ids, &n_ids);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
        seconds += (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        if (e)
            printf("error %s", err_str(e));
        for (size_t i = 0; i < n_ids; i++)
            printf("%s%u", i ? " " : "", ids[i]);
        putchar('\n');
        if (argc > 3 && strcmp(argv[3], "decode") == 0)
            print_decoded(t, ids, n_ids);
        free(ids);
        free(text);
    }
    if (argc > 3 && strcmp(argv[3], "time") == 0)
        fprintf(stderr, "%.6f\n", seconds);
    zo_tokenizer_free(t);
    return 0;
}
