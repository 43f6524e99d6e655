/* peer/status_manual.h -- what every field of `status --json` and /status.json means: a section of onebyte-status(1).
 * tests/e2e/test_status.py compares it with what a running and a stopped peer print. */
#ifndef PEER_STATUS_MANUAL_H
#define PEER_STATUS_MANUAL_H
#include "peer/options.h"
enum { PEER_STATUS_MANUAL = 124 };
extern const struct peer_manual peer_status_manual[PEER_STATUS_MANUAL];
#endif
