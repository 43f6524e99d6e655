/* peer/curve.h -- a run's eval curve, as its peers report it: an object for status, a line of text for people. */
#ifndef PEER_CURVE_H
#define PEER_CURVE_H
#include <jansson.h>
#include <onebyte/net/score.h>
#include <stdbool.h>
#include <stddef.h>

enum { PEER_CURVE_WIDTH = 32, PEER_CURVE_BYTES = 3 * PEER_CURVE_WIDTH + 1 };

/* {"self_reported": true, "loss": of the newest whole checkpoint or null, "step", "points": [{number, step, loss, accuracy,
 * examples, total, terms, nonfinite, reporters, compared, spread}, ..]}: loss in nats per term (a counted token, or an example
 * with choices), all parts weighted by their terms; whole: every example was scored. */
json_t *peer_curve_json(const struct net_scores *t);
/* y [n] as at most PEER_CURVE_WIDTH characters (neighbours averaged when there are more), low to high: eight block heights, or
 * without utf8 the marks _.-=+*%#.  A flat curve is all low.  Returns the characters. */
size_t peer_curve_line(char out[PEER_CURVE_BYTES], const double *y, size_t n, bool utf8);
/* The same of what peer_curve_json made: its whole checkpoints, or all if none is whole.  0: nothing to show. */
size_t peer_curve_text(char out[PEER_CURVE_BYTES], const json_t *curve, bool utf8);
bool peer_curve_utf8(void); /* do the locale's variables name UTF-8? */
#endif
