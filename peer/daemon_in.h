/* peer/daemon_in.h -- the net actor's insides, shared by peer/daemon*.c only. */
#ifndef PEER_DAEMON_IN_H
#define PEER_DAEMON_IN_H
#include "peer/audit.h"
#include "peer/upload.h"
#include "peer/compute.h"
#include "peer/control.h"
#include "peer/daemon.h"
#include "peer/fold_log.h"
#include "peer/join.h"
#include "peer/pipe.h"
#include "peer/web.h"
#include <onebyte/net/book.h>
#include <onebyte/net/control.h>
#include <onebyte/net/gossip.h>
#include <onebyte/net/ledger.h>
#include <onebyte/net/transport.h>

enum {
    DAEMON_ASKS = PEER_CONTROL_CLIENTS, /* status requests waiting for a fresh digest */
    DAEMON_OUTGOING_MIN = 3,            /* links we try to have by dialling, beyond --connect */
    DAEMON_SYNC_MACHINES = 4096,        /* machines a sync round can wait for */
    DAEMON_SYNC_TOTALS = 64,            /* rounds whose records are counted */
};
#define DAEMON_PIPE_BYTES ((size_t)64 << 20) /* waiting for the compute actor: then the network waits too */
#define NS UINT64_C(1000000000)

struct link {
    uint32_t id;
    uint8_t machine[32];
    bool outgoing;
    char address[128];
};

struct dial { /* an address the transport keeps dialling */
    char address[128];
    bool asked; /* named by --connect or an invite: never given up */
    bool linked;
    uint64_t since_ns;
};

struct round_machine { /* sync: a machine whose segments are waited for */
    uint8_t id[32];
    uint64_t last_step, heard_round; /* of its newest segment; the round in which it came */
    uint64_t misses, skip_until;     /* in a row; not waited for before that round */
};

struct round_total {
    uint64_t step, records;
};

struct held_fold { /* sync: a fold of a later round */
    struct held_fold *next;
    uint64_t step;
    struct peer_msg_fold *msg;
};

enum { SNAP_SERVED = 2 };

/* Until the state is built (SNAP_OFF) the compute actor gets neither folds nor marks: daemon_snap.c. */
enum snap_phase { SNAP_OFF, SNAP_LOOK, SNAP_FETCH, SNAP_WAIT };

struct snap {
    enum snap_phase phase;
    uint32_t donor;            /* link */
    int fd;                    /* of what is fetched */
    uint8_t id[8];
    uint64_t got, total, asked_to;
    uint64_t since_ns, heard_ns, reported_ns, checked_ns;
    size_t nones;              /* neighbours without one */
    uint32_t lost;             /* donors whose link ended */
    struct peer_snapshot have; /* whole; waiting for the ledger */
    uint64_t written;          /* records folded when one was written last */
    struct snap_served {
        int fd; /* -1: none */
        uint8_t id[8];
        uint64_t bytes;
    } served[SNAP_SERVED];
};

enum { EVAL_BEHIND = 8 }; /* checkpoints that may be scored while newer ones come */

struct eval { /* daemon_eval.c */
    bool busy, failed;             /* the compute actor has a part; the eval set cannot be read */
    uint64_t tick_ns, seen;        /* seen: number of the newest one noticed */
    uint64_t since_ns[EVAL_BEHIND]; /* at number % EVAL_BEHIND: known since */
    bool gone[EVAL_BEHIND];         /* .. cannot be rebuilt here */
    uint8_t id[EVAL_BEHIND][8];
    uint64_t number;               /* whose frontier is here */
    struct net_frontier_entry *to; /* [n_to] */
    size_t n_to;
    uint32_t empty;                /* parts without examples */
    double part_s;                 /* what a part took */
};

struct check { /* daemon_check.c */
    bool naming;                  /* the compute actor was asked */
    uint32_t finals;              /* namings at the last step */
    uint64_t next, asked_ns;      /* step of the next one */
    uint8_t want[32];             /* the frontier that is fetched */
    uint64_t want_number, have, got, total, wanted_ns;
    uint32_t link;
    size_t turn;
    uint8_t *bytes;
};

enum { AUDIT_MACHINES = 1024, AUDIT_FILES = 16 };
enum audit_phase { AUDIT_IDLE, AUDIT_ASK, AUDIT_READY, AUDIT_WORK };
enum audit_reason { AUDIT_NO_ANSWER, AUDIT_NOT_THERE, AUDIT_GONE, AUDIT_FAR, AUDIT_UNBOUND, AUDIT_SHORT, AUDIT_REASONS };

struct audit_sum { /* records */
    uint64_t audited, off, unsure, not_audited[AUDIT_REASONS];
};

/* daemon_audit.c: one segment is audited at a time. */
struct audit {
    struct peer_fold_log *log;   /* what we answer from; NULL: we answer nobody */
    uint8_t told_id[32], told_hash[32], told_sig[64], *told; /* [n_told] the answer given last */
    size_t n_told;
    uint64_t answered, not_answered;

    double credit;               /* passes that may be spent on audits */
    enum audit_phase phase;
    bool by_request;
    uint8_t machine[32], id[32], prev[32], hash[32], sig[64];
    struct net_segment segment;
    uint64_t seqs[PEER_AUDIT_GROUPS];
    size_t n_groups;
    uint8_t *bytes;              /* [got of total] frontier */
    size_t got, total;
    uint32_t attempts;
    uint64_t until_ns, ready_ns;
    struct peer_audit_work *work;
    struct peer_branches branches;

    bool requested;              /* `onebyte audit` */
    uint8_t wanted[32];
    uint64_t left;               /* records */
    uint64_t of, first, stride, done; /* its segments, each once, in an order nobody knows: (first + i stride) mod of */
    struct audit_sum request, all;
    char files[AUDIT_FILES][PEER_PATH_BYTES + 64]; /* [n_files] evidence of the request */
    size_t n_files;
    uint64_t evidence;
    struct audit_machine {
        uint8_t id[32];
        struct audit_sum sum;
    } *machines; /* [n_machines] */
    size_t n_machines;
};

struct daemon {
    struct peer_daemon_options o;
    struct check check;
    struct eval eval;
    struct snap snap;
    struct audit audit;
    const struct peer_manifest *m;
    struct net_identity self;
    struct net_ledger *ledger;
    struct net_gossip *gossip;
    struct net_transport *transport; /* NULL while the ledger is loaded */
    struct peer_control *control;
    struct peer_web *web;         /* NULL: off */
    struct peer_host host;
    uint64_t throttled_at_start;
    struct peer_donor donor;
    struct peer_uploads uploads;
    struct peer_pipe *to_compute, *from_compute;
    struct peer_compute *compute;
    int signals;
    uint64_t started_ns;

    struct link links[LIMIT_LINKS];
    size_t n_links;
    struct dial dials[LIMIT_DIALS];
    size_t n_dials;
    struct net_book *book;
    uint64_t told_ns, first_link_ns;

    /* marks */
    bool dirty;               /* something changed since the last mark */
    uint64_t marked_ns, changed_ns;
    const char *hold_marked;  /* what the last mark said */
    uint64_t step_marked;

    /* own feed */
    bool asking;              /* at start: neighbours may know more of our feed than we do */
    bool new_key;             /* never seal again */
    bool paused, disk_failed;
    uint64_t paused_until_ns, disk_retry_ns;
    uint64_t disk_bad_ns, disk_said_ns; /* when it failed last; when the log was told, 0: it was not, or all is well again */
    char disk_said[128];
    bool adopted;             /* neighbours gave us segments of our own */
    bool own_stored;          /* the segment being sent was stored before gossip saw it */
    uint64_t own_sealed;      /* segments, this process */
    bool sealed_marked;       /* the home remembers that this key has sealed */
    uint64_t sealed_lost;     /* refused when they came: held, finished */

    /* sync rounds */
    uint64_t round, round_began_ns, round_sealed, totals_prev;
    struct round_machine *machines; /* [n_machines] */
    size_t n_machines;
    struct round_total totals[DAEMON_SYNC_TOTALS]; /* at step % DAEMON_SYNC_TOTALS */
    struct held_fold *held, **held_tail;

    /* figures */
    struct peer_figures figures;
    bool figures_known;
    struct { uint64_t client, until_ns; } asks[DAEMON_ASKS];
    size_t n_asks;
    uint64_t records_foreign, records_own, ledger_errors, send_failures, wire_bytes, wire_records;
    uint64_t saved_ns;
    struct pace { /* what had passed at a moment: rates are differences */
        uint64_t at_ns, step, bytes, records;
    } pace[2]; /* the start of this window and of the one before */
    struct net_traffic traffic; /* in the end, when the transport is gone */

    /* the end */
    bool finishing;
    uint64_t finish_ns, drained_ns, settled_ns;
    bool quit;
    enum peer_daemon_end end;
    struct err_why why;
};

uint64_t daemon_progress(const struct daemon *d); /* the clock's step, or the round: done at the manifest's steps */
uint64_t daemon_now(void);      /* CLOCK_MONOTONIC, ns */
int64_t daemon_unix_ms(void);

/* daemon_net.c */
void daemon_event(struct daemon *d, const struct net_event *e);
void daemon_actions(struct daemon *d); /* carries out everything gossip wants */
void daemon_dial(struct daemon *d, const char *address, bool asked);
void daemon_addresses_load(struct daemon *d);
void daemon_addresses_save(struct daemon *d);
void daemon_redial(struct daemon *d); /* now and then: keep enough links */
struct link *daemon_link(struct daemon *d, uint32_t id);

/* daemon_feed.c */
void daemon_fold(struct daemon *d, const struct net_action *a);
struct peer_msg_fold *daemon_fold_message(const uint8_t machine[32], const struct net_segment *s, const uint8_t *counts,
                                          bool subtract);
void daemon_sealed(struct daemon *d, const struct peer_msg_sealed *s);
void daemon_feed_send(struct daemon *d, bool sealed);
void daemon_own_behind(struct daemon *d, const struct net_action *a);
void daemon_new_key(struct daemon *d, const char *reason); /* the present key never seals again: ends the loop */
void daemon_mark(struct daemon *d, bool force);
uint8_t *daemon_frontier(const struct daemon *d, size_t *bytes); /* of the folds sent so far; malloc'd */
const char *daemon_hold(struct daemon *d); /* why nothing may be measured; NULL: go on */
void daemon_disk_bad(struct daemon *d, const char *why);
void daemon_disk_good(struct daemon *d, bool own); /* own: on the disk for sure, not only in a batch */
void daemon_finish(struct daemon *d);      /* at the last step: drain, then quit */

/* daemon_round.c */
void daemon_round_start(struct daemon *d); /* after the ledger was loaded */
void daemon_round_heard(struct daemon *d, const struct net_action *stored);
bool daemon_round_hold_fold(struct daemon *d, uint64_t step, struct peer_msg_fold *m); /* true: taken */
void daemon_round_tick(struct daemon *d);
bool daemon_round_stragglers(const struct daemon *d);
void daemon_round_free(struct daemon *d);

/* daemon_check.c */
bool daemon_check_last(const struct daemon *d, struct net_control *c); /* false: no checkpoint yet */
void daemon_check_named(struct daemon *d, const struct peer_msg_named *m);
bool daemon_check_final(struct daemon *d); /* at the last step; true: it is being made, wait */
bool daemon_check_awaited(const struct daemon *d); /* at the last step: the owner is here and has not made it yet, or its frontier is not here */
bool daemon_check_frontier(const struct daemon *d, uint64_t number, uint8_t **bytes, size_t *n); /* its file, malloc'd; false: not here */
bool daemon_check_frame(struct daemon *d, uint32_t link, const uint8_t *f, size_t n);
void daemon_check_tick(struct daemon *d);

/* daemon_eval.c */
void daemon_eval_tick(struct daemon *d);
void daemon_eval_take(struct daemon *d, const struct peer_msg_evaled *m);
bool daemon_eval_pending(struct daemon *d); /* at the last step: parts of the last checkpoint are still being scored */
void daemon_eval_free(struct daemon *d);
/* daemon_audit.c */
void daemon_audit_start(struct daemon *d);
void daemon_audit_sealed(struct daemon *d, const struct peer_msg_sealed *s, const uint8_t id[32]); /* an own segment was sent */
void daemon_audit_slot(struct daemon *d); /* the compute actor stands between two segments: work may go out */
void daemon_audit_asked(struct daemon *d, const struct net_action *a);
void daemon_audit_told(struct daemon *d, const struct net_action *a);
void daemon_audit_done(struct daemon *d, struct peer_msg_audit *m);
void daemon_audit_tick(struct daemon *d);
json_t *daemon_audit_status(const struct daemon *d); /* NULL: private data */
const char *daemon_audit_request(struct daemon *d, const json_t *request); /* NULL: begun */
json_t *daemon_audit_result(const struct daemon *d);
void daemon_audit_free(struct daemon *d);

/* daemon_snap.c */
void daemon_snap_start(struct daemon *d);   /* before the ledger is loaded */
void daemon_snap_loaded(struct daemon *d);  /* after it, with the transport */
void daemon_snap_link(struct daemon *d, uint32_t link, bool up);
bool daemon_snap_frame(struct daemon *d, uint32_t link, const uint8_t *f, size_t n); /* false: not of snapshots */
void daemon_snap_tick(struct daemon *d);
void daemon_snap_release(struct daemon *d); /* at once, from the base */
void daemon_snap_free(struct daemon *d);
const char *daemon_snap_why(const struct daemon *d); /* why the state is not built yet; NULL: it is */

/* daemon_refused.c */
json_t *daemon_refused(const struct daemon *d); /* what was refused so far, by reason */

/* daemon_status.c */
void daemon_pace(struct daemon *d, uint64_t now_ns); /* about once a second */
json_t *daemon_status(const struct daemon *d);
void daemon_request(struct daemon *d, json_t *request, uint64_t client);
void daemon_answer_asks(struct daemon *d, bool fresh); /* fresh: all; else those that waited long enough */
void daemon_status_save(struct daemon *d);
#endif
