/* peer/home.h -- a peer's home folder: paths, lock, identity, the run it belongs to.
 *
 * --home, else $ONEBYTE_HOME, else $XDG_STATE_HOME/onebyte, else ~/.local/state/onebyte.  Holds identity, run.json,
 * run.json.sig, ledger.db, settings.json (model and data folders last used), control.sock, log, snapshots/, folds (fold_log.h), audits/, lock.
 * One process at a time runs in a home: the lock is on the file `lock`, released by the kernel when the process dies. */
#ifndef PEER_HOME_H
#define PEER_HOME_H
#include "peer/manifest.h"
#include <onebyte/base/err.h>
#include <onebyte/net/id.h>
#include <stdbool.h>
#include <stddef.h>

enum { PEER_PATH_BYTES = 1024 };

struct peer_home {
    char dir[PEER_PATH_BYTES]; /* absolute */
    int lock_fd;               /* -1: not locked */
};

/* option: the value of --home, or NULL.  create: makes the folder (0700); otherwise ERR_NOTFOUND if it is missing. */
NODISCARD enum err peer_home_open(struct peer_home *h, const char *option, bool create, struct err_why *why);
void peer_home_release(struct peer_home *h); /* drops the lock */
/* ERR_BUSY: another process runs in this home (why names its pid). */
NODISCARD enum err peer_home_lock(struct peer_home *h, struct err_why *why);
bool peer_home_running(const struct peer_home *h); /* some process holds the lock */

/* out [PEER_PATH_BYTES] <- dir/name; returns out. */
const char *peer_home_path(const struct peer_home *h, const char *name, char *out);

/* out <- where the frontier of checkpoint `number` is kept. */
const char *peer_checkpoint_path(const struct peer_home *h, uint64_t number, char out[PEER_PATH_BYTES]);

/* The identity; made first if there is none and make is set (*made, may be NULL, says so). */
NODISCARD enum err peer_home_identity(const struct peer_home *h, struct net_identity *i, bool make, bool *made,
                                      struct err_why *why);
/* The old key must never seal again (copied or restored home): keeps it as identity.old-N and makes a new one. */
NODISCARD enum err peer_home_new_identity(const struct peer_home *h, struct net_identity *i, struct err_why *why);

/* The run of this home, from run.json: ERR_NOTFOUND if it has none. */
NODISCARD enum err peer_home_manifest(const struct peer_home *h, struct peer_manifest *m, struct err_why *why);
/* Copies the manifest into the home; ERR_BUSY if the home belongs to another run. */
NODISCARD enum err peer_home_adopt(const struct peer_home *h, const struct peer_manifest *m, struct err_why *why);

/* settings.json: text values by key ("model", "data", "eval_data", "listen", ...).  get: "" if there is none. */
void peer_home_get(const struct peer_home *h, const char *key, char out[PEER_PATH_BYTES]);
NODISCARD enum err peer_home_set(const struct peer_home *h, const char *key, const char *value, struct err_why *why);
/* MANIFEST.paths: where `init` found the model ("model") and data ("data", "eval_data") on this machine, so that
 * `run MANIFEST` here needs no --model.  Unsigned, local, optional.  get: "" if there is none. */
void peer_paths_get(const char *manifest_path, const char *key, char out[PEER_PATH_BYTES]);
NODISCARD enum err peer_paths_set(const char *manifest_path, const char *key, const char *value, struct err_why *why);

/* Absolute form of a path the user gave, for settings.json. */
NODISCARD enum err peer_absolute(char out[PEER_PATH_BYTES], const char *path, struct err_why *why);
#endif
