/* peer/demo/embed.h -- the demo's model and task, inside the binary: `onebyte demo` needs no file and no download.
 *
 * Files    made by peer/demo/make_demo.py and committed; embed.c takes them in at build time.
 * Memory   the bytes are in the program's read-only data; each is followed by a NUL that n does not count. */
#ifndef PEER_DEMO_EMBED_H
#define PEER_DEMO_EMBED_H
#include <stddef.h>

struct peer_demo_file {
    const char *name; /* path below the folder to write them to: "model/config.json", .., "train.jsonl", "eval.jsonl" */
    const unsigned char *bytes;
    size_t n;
};

/* All files; *n <- how many. */
const struct peer_demo_file *peer_demo_files(size_t *n);
#endif
