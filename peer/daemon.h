/* peer/daemon.h -- the net actor: transport, gossip, ledger, clock, control socket; and the compute actor beside it.
 *
 * One call runs a peer from start to end on the calling thread (the compute actor has its own).  Files: daemon.c (start,
 * loop, end), daemon_net.c (links, gossip's actions, addresses), daemon_feed.c (own segments, keys, marks, rounds),
 * daemon_status.c (what status says). */
#ifndef PEER_DAEMON_H
#define PEER_DAEMON_H
#include "peer/engine.h"
#include "peer/home.h"
#include "peer/host.h"
#include "peer/manifest.h"
#include <jansson.h>
#include <onebyte/base/err.h>
#include <onebyte/zo/dataset.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer_daemon_options {
    const struct peer_home *home;           /* locked */
    const struct peer_manifest *manifest;   /* outlives the call */
    struct peer_engine *engine;             /* open, with a state loaded from the base model */
    const struct zo_dataset *data;          /* NULL: relay only */
    const char *model_dir;                  /* what is served to joiners */
    const char *listen;                     /* HOST:PORT, NULL: dial only */
    const char *const *connect;             /* [n_connect] */
    size_t n_connect;
    const char *eval_data;                  /* the manifest's eval set, to score checkpoints on; NULL: others do */
    size_t batch;
    uint32_t segment_max;                   /* 0: the manifest's */
    double seal_s;                          /* 0: the manifest's */
    double linger_s;                        /* quiet time before leaving at the last step */
    double drain_s;                         /* and the longest wait for neighbours */
    bool paused;                            /* at start */
    uint64_t snapshot_every;                /* records between snapshots; 0: none is made or asked for */
    uint64_t checkpoint_every;              /* steps between the owner's checkpoints; 0: none */
    const struct peer_host_limits *host;    /* NULL: none */
    int metrics;                            /* port of /metrics on loopback; 0: any free one; -1: off */
    const char *memory;                     /* "lean" or "fast", for status */
};

enum peer_daemon_end {
    PEER_END_FINISHED, /* the manifest's last step */
    PEER_END_STOPPED,  /* a signal or `onebyte stop` */
    PEER_END_NEW_KEY,  /* the feed was found to be ahead of or beside ours: start again, with a new key (already made) */
    PEER_END_FAILED,   /* why says */
};

/* *status (may be NULL) <- the last status object, caller releases. */
enum peer_daemon_end peer_daemon_run(const struct peer_daemon_options *o, json_t **status, struct err_why *why);
#endif
