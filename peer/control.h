/* peer/control.h -- how the command line talks to a running peer: a Unix socket in the home folder, one JSON object per
 * line each way.  Requests: {"op": "status" | "stop" | "pause" | "resume" | ..}; answers carry "ok": true, or "error".
 *
 * Only the home's owner can connect (the socket is 0600 in a 0700 folder).  Clients, request length and waiting answers are
 * bounded; a client that does not read is dropped.  The path may be longer than a Unix address holds: it is reached
 * through /proc/self/fd.   Threads: one per server; peer_control_call from any. */
#ifndef PEER_CONTROL_H
#define PEER_CONTROL_H
#include <jansson.h>
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PEER_CONTROL_CLIENTS = 16, PEER_CONTROL_LINE = 1 << 16 };

struct peer_control;
/* Replaces a socket that a killed process left behind: call it with the home's lock held. */
NODISCARD enum err peer_control_open(struct peer_control **c, const char *dir, struct err_why *why);
void peer_control_close(struct peer_control *c); /* NULL is fine; removes the socket */

size_t peer_control_fds(const struct peer_control *c, int fds[PEER_CONTROL_CLIENTS + 1]); /* to poll for reading */
/* One fd became readable: accepts and reads without waiting. */
void peer_control_ready(struct peer_control *c);
/* The next whole request: *request (caller releases), *client for the answer.  Answers itself what is not JSON. */
bool peer_control_next(struct peer_control *c, json_t **request, uint64_t *client);
/* Takes reply; a client that has gone is ignored. */
void peer_control_reply(struct peer_control *c, uint64_t client, json_t *reply);

/* Client side.  Takes request.  *reply is the answer, "ok" true.  ERR_NOTFOUND: nobody listens there.
 * ERR_AGAIN: no answer within timeout_ms.  ERR_PROTO: the peer refused; why is its "error". */
NODISCARD enum err peer_control_call(const char *dir, json_t *request, int timeout_ms, json_t **reply, struct err_why *why);
#endif
