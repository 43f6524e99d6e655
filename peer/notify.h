/* peer/notify.h -- what a service manager wants to hear (sd_notify(3)'s protocol, by hand: one datagram of KEY=VALUE lines to the
 * socket that NOTIFY_SOCKET names, a path or, with a leading @, an abstract name).  Without NOTIFY_SOCKET nothing happens.
 *
 * Ready     sent once the peer takes part: its ledger is loaded and its sockets are open.
 * Watchdog  with WATCHDOG_USEC (and WATCHDOG_PID ours or unset) a sign of life every half of it, from the net actor's loop and
 *           while the ledger is loaded: a loop that hangs is restarted.  A long measuring call is no hang.
 * Threads   one.   Errors  a manager that does not listen is its own problem: nothing waits for it or fails by it. */
#ifndef PEER_NOTIFY_H
#define PEER_NOTIFY_H
#include <stdbool.h>
#include <stdint.h>

/* "READY=1\nSTATUS=..." as it is.  False: nobody asked, or it could not be sent. */
bool peer_notify(const char *state);
void peer_notify_alive(uint64_t now_ns); /* WATCHDOG=1 when it is due; cheap otherwise */
#endif
