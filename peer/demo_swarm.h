/* peer/demo_swarm.h -- child processes of the demo: each peer is this very program, started again as a process. */
#ifndef PEER_DEMO_SWARM_H
#define PEER_DEMO_SWARM_H
#include "peer/home.h"
#include <jansson.h>
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { DEMO_PEERS_MAX = 8, DEMO_ARGS_MAX = 40 };

struct demo_peer {
    char home[PEER_PATH_BYTES];
    char out[PEER_PATH_BYTES + 16], log[PEER_PATH_BYTES + 16]; /* what it prints */
    pid_t pid;                                                  /* 0: not running */
    bool ended;                                                 /* by itself, exit code 0 */
    int code;
};

/* argv: without the program's name, NULL-terminated.  Output goes to the files out and log (NULL: /dev/null).  The child
 * dies with us. */
NODISCARD enum err demo_spawn(pid_t *pid, const char *const *argv, const char *out, const char *log, struct err_why *why);
/* Runs one command to its end; *json <- the object it printed. */
NODISCARD enum err demo_call(const char *const *argv, const char *dir, json_t **json, struct err_why *why);

/* Starts peer p of the run with `manifest`; address NULL: listens only. */
NODISCARD enum err demo_peer_start(struct demo_peer *p, const char *manifest, const char *address, struct err_why *why);
void demo_peer_kill(struct demo_peer *p);              /* SIGKILL, waits */
void demo_peer_reap(struct demo_peer *p);              /* notices that it ended */
json_t *demo_peer_status(const struct demo_peer *p);   /* NULL: no answer now */
json_t *demo_peer_last(const struct demo_peer *p);     /* what it printed at its end */

void demo_remove(const char *dir); /* a folder and all in it */
#endif
