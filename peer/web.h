/* peer/web.h -- metrics for Prometheus, the status as JSON, and a small page, on loopback only.
 *
 *   GET /metrics      Prometheus text format 0.0.4: base units, counters end in _total, no label per peer
 *   GET /status.json  what `onebyte status --json` prints, plus "history": [[uptime s, step, loss, records/s, sent, received], ..]
 *   GET /             a page that draws it; nothing is loaded from elsewhere
 *
 * No thread: the net actor polls peer_web_fd and calls peer_web_turn.  Only GET and HEAD, and only with a Host header that
 * names loopback, so that no foreign web page can read it through the browser (DNS rebinding).  Connections are bounded. */
#ifndef PEER_WEB_H
#define PEER_WEB_H
#include <jansson.h>
#include <onebyte/base/err.h>
#include <stddef.h>
#include <stdint.h>

enum { PEER_WEB_HISTORY = 600, PEER_WEB_CLIENTS = 16 };

struct peer_web;
typedef json_t *peer_web_status(void *ctx); /* a new object, as daemon_status makes */

/* port 0: any free one.  ERR_BUSY: taken. */
NODISCARD enum err peer_web_open(struct peer_web **w, uint16_t port, peer_web_status *status,
                                 void *ctx, struct err_why *why);
void peer_web_close(struct peer_web *w); /* NULL is fine */
uint16_t peer_web_port(const struct peer_web *w);
int peer_web_fd(const struct peer_web *w); /* to poll for reading */
void peer_web_turn(struct peer_web *w,
                   uint64_t now_ns); /* answers, and samples the history; often */

/* malloc'd text of /metrics from a status object; NULL: out of memory. */
char *peer_web_metrics(const json_t *status);
#endif
