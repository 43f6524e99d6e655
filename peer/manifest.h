/* peer/manifest.h -- a run's manifest: JSON text whose exact bytes name the run (SPEC 1, DESIGN 2, 3).
 *
 * The file is never re-serialised: its bytes are kept, hashed and signed as they are.  Signature file: PATH.sig, 64
 * bytes, owner's Ed25519 over "onebyte/1 manifest\0", text.  The loader is strict: each wrong, missing, unknown or
 * out-of-range field, and each number that should be an integer and is not, is refused by one line that names it.
 *
 * Fields: arith 1, name, direction, sides, eps, n0, steps, K, share_65536, burst, unit (null or multiples of 2^-24),
 * records_max, knots, owner, pace, round_timeout_s, segment_max, seal_s, admission, allow, public, audit, seed,
 * length_max, lr, schedule, warmup (these three only inform), trainable, tensors, model {files [{name, bytes, chunks}]}, data
 * {name, bytes, digest}, eval_data (the same, or null).
 * Defaults when absent: K 1, sides 2, eps 0.01, unit null, records_max 2^24, pace async, segment_max min(n0, 256),
 * seal_s 5, round_timeout_s 30, admission open, allow [], public false, seed 0, length_max 0, eval_data null,
 * audit 0, trainable "all" (a list of names and patterns, or adapters: zo/model.h). */
#ifndef PEER_MANIFEST_H
#define PEER_MANIFEST_H
#include <onebyte/base/err.h>
#include <onebyte/net/id.h>
#include <onebyte/net/rules.h>
#include <onebyte/zo/model.h>
#include <onebyte/zo/rules.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PEER_CHUNK_BYTES = 4 << 20, PEER_MANIFEST_BYTES_MAX = 64 << 20, PEER_FILES_MAX = 256 };

/* A file of the base model. */
struct peer_file {
    char name[256]; /* plain file name inside the model folder */
    uint64_t bytes;
    size_t n_chunks;          /* ceil(bytes / 4 MiB) */
    uint8_t (*chunks)[32];    /* BLAKE2b of each chunk, owned */
};

struct peer_data {
    bool present;
    char name[256];
    uint64_t bytes;
    uint8_t digest[32]; /* BLAKE2b of the file */
};

struct peer_manifest {
    char *text; /* exact bytes, NUL-terminated copy, owned */
    size_t text_bytes;
    uint8_t run_id[32];
    uint8_t sig[64];
    char name[64]; /* of the run, for people */
    struct zo_rules rules; /* rules.tensors owned */
    struct net_rules net;  /* net.allow owned; run_id and owner filled */
    uint32_t segment_max;  /* already rounded up to a multiple of K, at most LIMIT_SEGMENT_COUNT */
    double seal_s, round_timeout_s;
    bool public_data;      /* the example follows from (machine, seq) */
    double audit;          /* share of its passes that a peer spends on audits of others; needs public data */
    uint64_t seed;         /* informs; part of the run id */
    uint32_t length_max;   /* tokens per sequence; 0: the model's context */
    double lr;             /* informs */
    char schedule[16];
    char trainable[ZO_TRAINABLE_BYTES]; /* zo/model.h; its scale of adapters is in rules */
    size_t n_files;
    struct peer_file *files; /* owned */
    struct peer_data data, eval_data;
};

/* text [n] is copied.  Does not check the signature (sig is zeroed).  On error *m is untouched. */
NODISCARD enum err peer_manifest_parse(struct peer_manifest *m, const char *text, size_t n, struct err_why *why);
/* Text and signature together: ERR_PROTO if the owner did not sign these bytes.  Also requires model and data. */
NODISCARD enum err peer_manifest_accept(struct peer_manifest *m, const char *text, size_t n, const uint8_t sig[64],
                                        struct err_why *why);
/* Reads PATH and PATH.sig. */
NODISCARD enum err peer_manifest_load(struct peer_manifest *m, const char *path, struct err_why *why);
/* Writes PATH and PATH.sig, atomically each (sig first). */
NODISCARD enum err peer_manifest_save(const struct peer_manifest *m, const char *path, struct err_why *why);
void peer_manifest_sign(struct peer_manifest *m, const struct net_identity *owner);
void peer_manifest_free(struct peer_manifest *m); /* zeroed struct is fine */

/* BLAKE2b of a whole file, and the chunk hashes of a model file. */
NODISCARD enum err peer_data_digest(struct peer_data *d, const char *path, struct err_why *why);
NODISCARD enum err peer_file_hash(struct peer_file *f, const char *dir, const char *name, struct err_why *why);

/* Every file of the manifest is in dir with these bytes.  why names the file (and the offset).  cache: a file that
 * remembers (size, mtime, inode) of what was verified for this run id; NULL: always hash. */
NODISCARD enum err peer_manifest_check_model(const struct peer_manifest *m, const char *dir, const char *cache,
                                             struct err_why *why);
/* The data file is the manifest's (only enforced for public data: private data is each machine's own). */
NODISCARD enum err peer_manifest_check_data(const struct peer_data *d, const char *path, struct err_why *why);

/* Whole file; *text malloc'd and NUL-terminated.  Refuses more than max bytes. */
NODISCARD enum err peer_read_file(char **text, size_t *n, const char *path, size_t max, struct err_why *why);
/* A file that can be read twice and ends: no pipe, no device, no folder. */
NODISCARD enum err peer_check_regular(const char *path, struct err_why *why);
/* Something that a rename would wrongly replace lies at `path`: a device (as root), a pipe, a link, a folder. */
NODISCARD enum err peer_check_out(const char *path, struct err_why *why);
/* Temporary name, fsync, rename. */
NODISCARD enum err peer_write_file(const char *path, const void *p, size_t n, unsigned mode, struct err_why *why);
#endif
