/* The pipe between two actors: order, loss-free under two threads, the descriptor, what is left behind. */
#include "peer/pipe.h"
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

enum { N = 20000 };

struct number {
    struct peer_msg head;
    uint64_t value;
};

static void send_number(struct peer_pipe *p, uint64_t value)
{
    struct number *m = peer_msg_new(7, sizeof *m);
    assert_non_null(m);
    m->value = value;
    peer_pipe_send(p, m);
}

static int readable(const struct peer_pipe *p)
{
    struct pollfd f = {.fd = peer_pipe_fd(p), .events = POLLIN};
    return poll(&f, 1, 0);
}

static void empty_pipe_gives_nothing(void **state)
{
    (void)state;
    struct peer_pipe *p;
    assert_int_equal(peer_pipe_new(&p), ERR_OK);
    assert_null(peer_pipe_receive(p));
    assert_int_equal(readable(p), 0);
    peer_pipe_wait(p, 1); /* returns */
    assert_int_equal(peer_pipe_bytes(p), 0);
    peer_pipe_free(p);
    peer_pipe_free(NULL);
}

static void messages_keep_their_order_and_are_counted(void **state)
{
    (void)state;
    struct peer_pipe *p;
    assert_int_equal(peer_pipe_new(&p), ERR_OK);
    for (uint64_t i = 0; i < 10; i++)
        send_number(p, i);
    assert_int_equal(readable(p), 1);
    assert_int_equal(peer_pipe_bytes(p), 10 * sizeof(struct number));
    peer_pipe_wait(p, -1); /* must not wait: something is there */
    for (uint64_t i = 0; i < 10; i++) {
        struct number *m = peer_pipe_receive(p);
        assert_non_null(m);
        assert_int_equal(m->head.kind, 7);
        assert_int_equal(m->value, i);
        peer_msg_free(m);
    }
    assert_null(peer_pipe_receive(p));
    assert_int_equal(readable(p), 0);
    assert_int_equal(peer_pipe_bytes(p), 0);
    peer_pipe_free(p);
}

static void what_nobody_received_is_freed(void **state)
{
    (void)state;
    struct peer_pipe *p;
    assert_int_equal(peer_pipe_new(&p), ERR_OK);
    for (uint64_t i = 0; i < 5; i++)
        send_number(p, i);
    struct number *m = peer_pipe_receive(p);
    assert_int_equal(m->value, 0);
    peer_msg_free(m);
    peer_pipe_free(p); /* ASan's leak check is the assertion */
}

static void *sender(void *p)
{
    for (uint64_t i = 0; i < N; i++)
        send_number(p, i);
    return NULL;
}

static void nothing_is_lost_between_threads(void **state)
{
    (void)state;
    struct peer_pipe *p;
    pthread_t t;
    assert_int_equal(peer_pipe_new(&p), ERR_OK);
    assert_int_equal(pthread_create(&t, NULL, sender, p), 0);
    for (uint64_t want = 0; want < N;) {
        struct number *m = peer_pipe_receive(p);
        if (!m) {
            peer_pipe_wait(p, -1); /* a lost wake-up would hang here, and the runner would say so */
            continue;
        }
        assert_int_equal(m->value, want);
        want++;
        peer_msg_free(m);
    }
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_null(peer_pipe_receive(p));
    peer_pipe_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_pipe_gives_nothing),
        cmocka_unit_test(messages_keep_their_order_and_are_counted),
        cmocka_unit_test(what_nobody_received_is_freed),
        cmocka_unit_test(nothing_is_lost_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
