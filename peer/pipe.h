/* peer/pipe.h -- a one-way queue of messages between two actors.  Sending gives the message away.
 *
 * One thread sends, one receives; no lock: a linked list whose tail the sender owns and whose head the receiver owns,
 * joined by one atomic pointer per node.  An eventfd becomes readable when something waits, so that the receiver can
 * sleep in poll(2) beside its sockets.  Messages arrive in the order they were sent.
 * Bounds: the sender asks peer_pipe_bytes() and slows down; the queue itself never refuses (a control message must
 * always get through). */
#ifndef PEER_PIPE_H
#define PEER_PIPE_H
#include <onebyte/base/err.h>
#include <stddef.h>
#include <stdint.h>

struct peer_msg {
    int kind;
    size_t bytes; /* what it is counted as; set by peer_msg_new */
};

/* A zeroed message of struct_bytes (>= sizeof(struct peer_msg), which comes first in it).  NULL: out of memory.
 * Freed with peer_msg_free by whoever holds it. */
void *peer_msg_new(int kind, size_t struct_bytes);
void peer_msg_free(void *msg);

struct peer_pipe;
NODISCARD enum err peer_pipe_new(struct peer_pipe **p);
void peer_pipe_free(struct peer_pipe *p); /* with what nobody received; both threads have let go of it */

void peer_pipe_send(struct peer_pipe *p, void *msg); /* sender */
void *peer_pipe_receive(struct peer_pipe *p);        /* receiver: the next message or NULL; never waits */
/* receiver: waits until something is there, or timeout_ms (-1: for ever), or a signal. */
void peer_pipe_wait(struct peer_pipe *p, int timeout_ms);
int peer_pipe_fd(const struct peer_pipe *p);          /* readable while something may wait; drained by receive */
size_t peer_pipe_bytes(const struct peer_pipe *p);    /* bytes waiting; any thread */
#endif
