/* The assembler reads the files: no generated source, no xxd.  Paths are relative to the repository's root, where
 * make runs the compiler; the Makefile names the files as this object's prerequisites. */
#include "embed.h"
#include <onebyte/base/err.h>

#define EMBED(symbol, path)                                                                        \
    __asm__(".pushsection .rodata\n"                                                               \
            ".balign 64\n"                                                                         \
            "peer_demo_" #symbol ":\n"                                                             \
            ".incbin \"peer/demo/" path "\"\n"                                                     \
            "peer_demo_" #symbol "_end:\n"                                                         \
            ".byte 0\n"                                                                            \
            ".popsection\n");                                                                      \
    extern const unsigned char peer_demo_##symbol[];                                               \
    extern const unsigned char peer_demo_##symbol##_end[];

EMBED(config, "model/config.json")
EMBED(weights, "model/model.safetensors")
EMBED(tokenizer, "model/tokenizer.json")
EMBED(train, "train.jsonl")
EMBED(eval, "eval.jsonl")

const struct peer_demo_file *peer_demo_files(size_t *n)
{
    static struct peer_demo_file files[] = {
        {"model/config.json", peer_demo_config, 0},       {"model/model.safetensors", peer_demo_weights, 0},
        {"model/tokenizer.json", peer_demo_tokenizer, 0}, {"train.jsonl", peer_demo_train, 0},
        {"eval.jsonl", peer_demo_eval, 0},
    };
    static const unsigned char *const ends[] = {peer_demo_config_end, peer_demo_weights_end, peer_demo_tokenizer_end,
                                                peer_demo_train_end, peer_demo_eval_end};
    _Static_assert(ARRAY_LEN(files) == ARRAY_LEN(ends), "one end per file");
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        files[i].n = (size_t)(ends[i] - files[i].bytes); /* the difference of two symbols is no constant in C */
    *n = ARRAY_LEN(files);
    return files;
}
