/* Rebuilds a run from its manifest, an exported ledger and the base model:  replay run.json ledger MODEL_DIR [OUT_DIR] */
#include <onebyte/tune.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    struct err_why why;
    char digest[17];
    if (argc < 4)
        return fprintf(stderr, "usage: replay MANIFEST LEDGER MODEL_DIR [OUT_DIR]\n"), 2;
    if (onebyte_replay(digest, argv[1], argv[2], argv[3], argc > 4 ? argv[4] : NULL, &why) != ERR_OK)
        return fprintf(stderr, "replay: %s\n", why.text), 1;
    printf("%s\n", digest);
    return 0;
}
