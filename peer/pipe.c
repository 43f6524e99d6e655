#include "peer/pipe.h"
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct node {
    struct node *_Atomic next;
    struct peer_msg *msg;
};

/* `head` is always a node already received (at first: a stub); its next holds the oldest message waiting.  The sender
 * may still link behind a received node, so it is freed only when its successor is received. */
struct peer_pipe {
    struct node *head; /* receiver's */
    struct node *tail; /* sender's */
    atomic_size_t bytes;
    int fd;
};

void *peer_msg_new(int kind, size_t struct_bytes)
{
    ENSURE(struct_bytes >= sizeof(struct peer_msg));
    struct peer_msg *m = calloc(1, struct_bytes);
    if (m) {
        m->kind = kind;
        m->bytes = struct_bytes;
    }
    return m;
}

void peer_msg_free(void *msg)
{
    free(msg);
}

enum err peer_pipe_new(struct peer_pipe **out)
{
    struct peer_pipe *p = calloc(1, sizeof *p);
    if (!p)
        return ERR_NOMEM;
    p->head = p->tail = calloc(1, sizeof *p->head);
    p->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!p->head || p->fd < 0) {
        const enum err e = p->head ? ERR_IO : ERR_NOMEM;
        if (p->fd >= 0)
            close(p->fd);
        free(p->head);
        free(p);
        return e;
    }
    *out = p;
    return ERR_OK;
}

void peer_pipe_free(struct peer_pipe *p)
{
    if (!p)
        return;
    struct node *next;
    for (struct node *n = p->head->next; n; n = n->next)
        peer_msg_free(n->msg);
    for (struct node *n = p->head; n; n = next) {
        next = n->next;
        free(n);
    }
    close(p->fd);
    free(p);
}

void peer_pipe_send(struct peer_pipe *p, void *msg)
{
    ENSURE(msg != NULL);
    struct node *n = calloc(1, sizeof *n);
    ENSURE(n != NULL); /* 16 bytes: a process that can't have them can't log either */
    n->msg = msg;
    atomic_fetch_add(&p->bytes, n->msg->bytes);
    struct node *last = p->tail;
    p->tail = n;
    atomic_store(&last->next, n); /* from here on the receiver may free `last` */
    const uint64_t one = 1;
    if (write(p->fd, &one, sizeof one) < 0)
        return; /* EAGAIN: the counter is full, so it is readable already */
}

void *peer_pipe_receive(struct peer_pipe *p)
{
    struct node *head = p->head, *n = atomic_load(&head->next);
    if (!n) {
        uint64_t count;
        if (read(p->fd, &count, sizeof count) < 0)
            count = 0;
        n = atomic_load(&head->next); /* sent between the two looks */
        if (!n)
            return NULL;
    }
    struct peer_msg *msg = n->msg;
    p->head = n;
    free(head);
    atomic_fetch_sub(&p->bytes, msg->bytes);
    return msg;
}

void peer_pipe_wait(struct peer_pipe *p, int timeout_ms)
{
    if (atomic_load(&p->head->next))
        return;
    struct pollfd f = {.fd = p->fd, .events = POLLIN};
    if (poll(&f, 1, timeout_ms) < 0)
        return; /* a signal: the caller looks again */
}

int peer_pipe_fd(const struct peer_pipe *p)
{
    return p->fd;
}

size_t peer_pipe_bytes(const struct peer_pipe *p)
{
    return atomic_load(&p->bytes);
}
