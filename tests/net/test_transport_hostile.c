/* Neighbours that lie, hide, flood or say nothing: programs that speak ZeroMQ, CURVE and our
 * messages by hand.
 *
 * The nine traps of the notes on ZeroMQ:
 *  1 no ZAP handler lets every key in     another_run_.., and no User-Id, no link (sender_of)
 *  2 routing ids that clients choose      a_chosen_routing_id_is_refused
 *  3 User-Id missing on frame 0           every link here: it is read from the payload's frame
 *  4 parts evade every limit              hidden_bytes_end_the_link, a_multipart_message_..
 *  5 an unread monitor blocks             many_connections_between_two_polls_do_not_block
 *  6 no descriptors, busy listener        no_more_than_so_many_.., arrivals_are_rationed_..
 *  7 a silent TCP client                  silent_and_senseless_tcp_clients_are_closed
 *  8 ZAP 400 ends reconnecting            cannot occur: we answer 200 and refuse by BYE; a dial is
 *                                         a new socket each time
 *  9 throughput                           no trap: far above need */
#include "tests/net/transport_pair.h"
#include "tests/net/curve_client.h"
#include "net/transport_private.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sodium.h>
#include <sys/socket.h>
#include <unistd.h>

/* A dialler by hand: its own ZeroMQ context, a key, and whatever the test sends. */
struct raw {
    void *context, *socket;
    uint8_t k[32], secret[32];
};

static void raw_socket(struct raw *r, int type, const uint8_t run_id[32])
{
    uint8_t server[32], server_secret[32];
    const int linger = 0, reconnect = 24 * 3600 * 1000, none = 0, one = 1;
    memset(r, 0, sizeof *r);
    proof_run_key(server, server_secret, run_id);
    r->context = zmq_ctx_new();
    r->socket = zmq_socket(r->context, type);
    assert_non_null(r->socket);
    assert_int_equal(zmq_setsockopt(r->socket, ZMQ_LINGER, &linger, sizeof linger), 0);
    assert_int_equal(zmq_setsockopt(r->socket, ZMQ_SNDHWM, &none, sizeof none), 0);
    assert_int_equal(zmq_setsockopt(r->socket, ZMQ_RECONNECT_IVL, &reconnect, sizeof reconnect), 0);
    assert_int_equal(crypto_box_keypair(r->k, r->secret), 0);
    if (type == ZMQ_ROUTER) { /* a man in the middle listens with the run's key, as anybody in the
                                 run can */
        assert_int_equal(zmq_setsockopt(r->socket, ZMQ_CURVE_SERVER, &one, sizeof one), 0);
        assert_int_equal(zmq_setsockopt(r->socket, ZMQ_CURVE_SECRETKEY, server_secret, 32), 0);
        return;
    }
    assert_int_equal(zmq_setsockopt(r->socket, ZMQ_CURVE_SERVERKEY, server, 32), 0);
    assert_int_equal(zmq_setsockopt(r->socket, ZMQ_CURVE_PUBLICKEY, r->k, 32), 0);
    assert_int_equal(zmq_setsockopt(r->socket, ZMQ_CURVE_SECRETKEY, r->secret, 32), 0);
}

static void raw_dial(struct raw *r, const struct peer *a)
{
    char endpoint[160];
    raw_socket(r, ZMQ_DEALER, test_run);
    snprintf(endpoint, sizeof endpoint, "tcp://%s", net_transport_listening(a->t));
    assert_int_equal(zmq_connect(r->socket, endpoint), 0);
}

static void raw_end(struct raw *r)
{
    zmq_close(r->socket);
    zmq_ctx_term(r->context);
}

static void raw_note(struct raw *r, const struct note *n)
{
    uint8_t wire[NOTE_BYTES_MAX];
    const size_t bytes = note_write(wire, n);
    assert_int_equal(zmq_send(r->socket, wire, bytes, ZMQ_DONTWAIT), (int)bytes);
}

static bool raw_got(struct raw *r, struct note *n)
{
    uint8_t wire[512];
    const int bytes = zmq_recv(r->socket, wire, sizeof wire, ZMQ_DONTWAIT);
    return bytes > 0 && (size_t)bytes <= sizeof wire &&
           note_parse(n, wire, (size_t)bytes) == ERR_OK;
}

/* Proves `id` to a honestly: from here on it is a link that misbehaves. */
static void raw_link(struct raw *r, struct peer *a, const struct net_identity *id)
{
    struct note hello = {.kind = NOTE_HELLO}, prove, cert = {.kind = NOTE_CERT}, up;
    const unsigned ups = a->ups;
    raw_dial(r, a);
    raw_note(r, &hello);
    PUMP_UNTIL(raw_got(r, &prove), a);
    assert_int_equal(prove.kind, NOTE_PROVE);
    memcpy(cert.id, id->id, 32);
    proof_sign(cert.sig, id,
               &(struct transcript){test_run, r->k, hello.nonce, prove.nonce, prove.id, id->id});
    raw_note(r, &cert);
    PUMP_UNTIL(raw_got(r, &up), a);
    assert_int_equal(up.kind, NOTE_UP);
    PUMP_UNTIL(a->ups == ups + 1, a);
}

static void peer_quick(struct peer *a, uint32_t probation_ms, uint32_t frames_per_s)
{
    memset(a, 0, sizeof *a);
    assert_int_equal(net_identity_new(&a->id), ERR_OK);
    struct net_transport_options o = options_of(a, "127.0.0.1:0");
    o.probation_ms = probation_ms;
    o.frames_per_s = frames_per_s;
    peer_start(a, &o);
}

static size_t incoming(const struct peer *a)
{
    return a->t->n_conns;
}

/* An honest neighbour still gets in and is heard. */
static void still_works(struct peer *a)
{
    struct peer b;
    const unsigned frames = a->frames;
    peer_new(&b, false);
    peer_dial(&b, net_transport_listening(a->t));
    PUMP_UNTIL(b.link, a, &b);
    assert_int_equal(net_transport_send(b.t, b.link, (const uint8_t *)"ok", 2), ERR_OK);
    PUMP_UNTIL(a->frames == frames + 1, a, &b);
    assert_memory_equal(a->last, "ok", 2);
    peer_end(&b);
}

/* ---- probation ---- */

static void another_run_is_not_let_in(void **state)
{
    (void)state;
    struct peer a, b;
    peer_new(&a, true);
    memset(&b, 0, sizeof b);
    assert_int_equal(net_identity_new(&b.id), ERR_OK);
    struct net_transport_options o = options_of(&b, NULL);
    o.run_id[0] ^= 1;
    peer_start(&b, &o);
    peer_dial(&b, net_transport_listening(a.t));
    PUMP_UNTIL(b.failures >= 1, &a, &b);
    assert_non_null(strstr(b.failed, "another run"));
    assert_int_equal(a.ups + b.ups, 0);
    peer_end(&b);
    still_works(&a);
    peer_end(&a);
}

static void a_key_that_says_nothing_is_closed(void **state)
{
    (void)state;
    struct peer a;
    struct raw r;
    peer_quick(&a, 300, 0);
    raw_dial(&r, &a);
    PUMP_UNTIL(counters(&a).probation_expired == 1, &a);
    PUMP_UNTIL(incoming(&a) == 0, &a);
    assert_int_equal(a.ups, 0);
    raw_end(&r);
    still_works(&a);
    peer_end(&a);
}

static int tcp_connect(const struct peer *a)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(a->t->listen_port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void silent_and_senseless_tcp_clients_are_closed(void **state)
{
    (void)state;
    struct peer a;
    peer_quick(&a, 300, 0);
    const int silent = tcp_connect(&a), senseless = tcp_connect(&a);
    assert_true(send(senseless,
                     "GET / HTTP/1.1\r\nHost: onebyte\r\n\r\n GET GET GET GET GET GET GET GET", 66,
                     MSG_NOSIGNAL) > 0);
    PUMP_UNTIL(counters(&a).accepted == 2, &a);
    PUMP_UNTIL(incoming(&a) == 0, &a);
    char byte[1024];
    while (recv(silent, byte, sizeof byte, 0) > 0) /* the greeting, then the end */
        continue;
    close(silent);
    close(senseless);
    still_works(&a);
    peer_end(&a);
}

static void no_more_than_so_many_wait_for_their_proof(void **state)
{
    (void)state;
    struct peer a;
    static int fds[LIMIT_PROBATION + 40];
    peer_quick(&a, 60000, 0); /* none of them expires: the number is what ends them */
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = tcp_connect(&a);
        struct peer *const one[] = {&a};
        pump(one, 1);
    }
    PUMP_UNTIL(counters(&a).accepted == ARRAY_LEN(fds), &a);
    assert_true(counters(&a).refused_full >= 1);
    PUMP_UNTIL(incoming(&a) <= LIMIT_PROBATION, &a);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
    PUMP_UNTIL(incoming(&a) == 0, &a);
    still_works(&a);
    peer_end(&a);
}

/* Trap 5: a monitor that is not drained would stop ZeroMQ's I/O thread after about a thousand
 * events. */
static void many_connections_between_two_polls_do_not_block(void **state)
{
    (void)state;
    struct peer a;
    peer_new(&a, true);
    for (int i = 0; i < 600; i++) { /* three events each */
        close(tcp_connect(&a));
        if (i % 30 == 29)
            usleep(5000); /* within the backlog, else the kernel waits a second */
    }
    PUMP_UNTIL(counters(&a).accepted == 600, &a);
    still_works(&a);
    peer_end(&a);
}

/* A channel by hand, open but not proved. */
static void curve_dial(struct curve *c, struct peer *a)
{
    uint8_t server[32], server_secret[32];
    proof_run_key(server, server_secret, test_run);
    assert_true(curve_start(c, a->t->listen_port, server));
    PUMP_UNTIL(curve_step(c) && c->state == CURVE_OPEN, a);
}

static bool curve_closed(struct curve *c)
{
    return !curve_step(c);
}

static void bytes_before_the_proof_are_few(void **state)
{
    (void)state;
    struct peer a;
    static struct curve c;
    static const uint8_t junk[1000];
    peer_quick(&a, 60000, 0);
    curve_dial(&c, &a);
    for (int i = 0; i < 20; i++) /* parts of a message that never ends: nothing is delivered */
        if (!curve_send(&c, junk, sizeof junk, true))
            break;
    PUMP_UNTIL(counters(&a).probation_expired == 1, &a);
    PUMP_UNTIL(curve_closed(&c), &a);
    PUMP_UNTIL(incoming(&a) == 0, &a);
    close(c.fd);
    peer_end(&a);
}

static void a_frame_before_the_proof_ends_it(void **state)
{
    (void)state;
    struct peer a;
    struct raw r;
    peer_new(&a, true);
    raw_dial(&r, &a);
    assert_int_equal(zmq_send(r.socket, "early", 5, 0), 5);
    PUMP_UNTIL(counters(&a).bad_message == 1, &a);
    PUMP_UNTIL(incoming(&a) == 0, &a);
    assert_int_equal(a.frames, 0);
    raw_end(&r);
    peer_end(&a);
}

/* Trap 2: ids that clients choose can take or block another's route; nobody here may have one. */
static void a_chosen_routing_id_is_refused(void **state)
{
    (void)state;
    struct peer a;
    struct raw r;
    char endpoint[160];
    peer_new(&a, true);
    raw_socket(&r, ZMQ_DEALER, test_run);
    assert_int_equal(zmq_setsockopt(r.socket, ZMQ_ROUTING_ID, "mine", 4), 0);
    snprintf(endpoint, sizeof endpoint, "tcp://%s", net_transport_listening(a.t));
    assert_int_equal(zmq_connect(r.socket, endpoint), 0);
    raw_note(&r, &(struct note){.kind = NOTE_HELLO});
    PUMP_UNTIL(counters(&a).bad_message == 1, &a);
    PUMP_UNTIL(incoming(&a) == 0, &a);
    raw_end(&r);
    still_works(&a);
    peer_end(&a);
}

static void arrivals_are_rationed_per_group(void **state)
{
    (void)state;
    struct peer a;
    peer_new(&a, false);
    struct net_transport *t = a.t;
    for (int i = 0; i < LIMIT_ARRIVALS; i++)
        assert_true(may_arrive(t, "10.0.0"));
    assert_false(may_arrive(t, "10.0.0"));
    assert_true(may_arrive(t, "10.0.1")); /* another network is another matter */
    t->now_ms += 1000;
    for (int i = 0; i < LIMIT_ARRIVALS_PER_S; i++)
        assert_true(may_arrive(t, "10.0.0"));
    assert_false(may_arrive(t, "10.0.0"));
    char group[32];
    for (int i = 0; i < 10 * LIMIT_ARRIVAL_GROUPS; i++) { /* any number of networks: a bounded table */
        snprintf(group, sizeof group, "11.%d.%d", i / 256, i % 256);
        assert_true(may_arrive(t, group));
    }
    peer_end(&a);
}

/* One network gets half of the links, no more: the others' half stays free for the rest of the world. */
static void one_network_cannot_take_every_link(void **state)
{
    (void)state;
    struct peer a, b[4];
    memset(&a, 0, sizeof a);
    assert_int_equal(net_identity_new(&a.id), ERR_OK);
    struct net_transport_options o = options_of(&a, "127.0.0.1:0");
    o.links_max = 6;
    o.loopback_counts = true;
    peer_start(&a, &o);
    for (size_t i = 0; i < ARRAY_LEN(b); i++) {
        peer_new(&b[i], false);
        peer_dial(&b[i], net_transport_listening(a.t));
        if (i < 3)
            PUMP_UNTIL(b[i].link, &a, &b[0], &b[1 < i ? 1 : 0], &b[i]);
    }
    PUMP_UNTIL(b[3].failures >= 1, &a, &b[0], &b[1], &b[2], &b[3]);
    assert_non_null(strstr(b[3].failed, "all the links it wants"));
    assert_int_equal(links(&a), 3);
    assert_true(counters(&a).refused_full >= 1);
    for (size_t i = 0; i < ARRAY_LEN(b); i++)
        peer_end(&b[i]);
    peer_end(&a);
}

/* ---- proofs ---- */

/* Every way to get the certificate wrong; each is refused, and no machine is blamed: the victim
 * itself still gets in. */
static void wrong_certificates_are_refused(void **state)
{
    (void)state;
    struct net_identity victim, liar;
    assert_int_equal(net_identity_new(&victim), ERR_OK);
    assert_int_equal(net_identity_new(&liar), ERR_OK);
    for (int wrong = 0; wrong < 5; wrong++) {
        struct peer a;
        struct raw r;
        struct note hello = {.kind = NOTE_HELLO}, prove, cert = {.kind = NOTE_CERT}, bye;
        uint8_t k[32], run[32], nonce_s[32];
        peer_new(&a, true);
        raw_dial(&r, &a);
        raw_note(&r, &hello);
        PUMP_UNTIL(raw_got(&r, &prove), &a);
        memcpy(k, r.k, 32);
        memcpy(run, test_run, 32);
        memcpy(nonce_s, prove.nonce, 32);
        k[0] ^= wrong == 0;       /* another channel's key */
        nonce_s[0] ^= wrong == 1; /* another time */
        run[0] ^= wrong == 2;     /* another run */
        const struct net_identity *signer =
            wrong == 3 ? &liar : &victim; /* another machine's signature */
        memcpy(cert.id, victim.id, 32);
        proof_sign(cert.sig, signer,
                   &(struct transcript){run, k, hello.nonce, nonce_s, prove.id, victim.id});
        cert.sig[10] ^= (uint8_t)(wrong == 4); /* a flipped bit */
        raw_note(&r, &cert);
        PUMP_UNTIL(raw_got(&r, &bye), &a);
        assert_int_equal(bye.kind, NOTE_BYE);
        assert_int_equal(bye.bye, BYE_PROOF);
        assert_int_equal(counters(&a).bad_proof, 1);
        assert_int_equal(a.ups, 0);
        raw_end(&r);
        raw_link(&r, &a, &victim);
        raw_end(&r);
        peer_end(&a);
    }
    net_identity_release(&victim);
    net_identity_release(&liar);
}

/* M stands between A (who dials) and B: it opens a channel to each, which everybody in the run can,
 * and passes their messages on. Neither end may take M's channel for the other's. */
static void a_man_in_the_middle_is_nobody(void **state)
{
    (void)state;
    struct peer a, b;
    struct raw front, back;
    char bound[160];
    size_t n = sizeof bound;
    peer_new(&a, false);
    peer_new(&b, true);
    raw_socket(&front, ZMQ_ROUTER, test_run);
    assert_int_equal(zmq_bind(front.socket, "tcp://127.0.0.1:0"), 0);
    assert_int_equal(zmq_getsockopt(front.socket, ZMQ_LAST_ENDPOINT, bound, &n), 0);
    raw_dial(&back, &b);
    peer_dial(&a, bound + strlen("tcp://"));
    uint8_t rid[16], wire[512];
    int rid_n = 0;
    const double end = seconds() + WAIT_S;
    while (counters(&a).bad_proof == 0 && seconds() < end) {
        struct peer *const both[] = {&a, &b};
        pump(both, 2);
        const int got = zmq_recv(front.socket, rid, sizeof rid, ZMQ_DONTWAIT);
        if (got > 0) { /* A's HELLO, as it is, into our own channel to B */
            rid_n = got;
            const int bytes = zmq_recv(front.socket, wire, sizeof wire, 0);
            assert_true(bytes > 0);
            assert_int_equal(zmq_send(back.socket, wire, (size_t)bytes, 0), bytes);
        }
        const int bytes = zmq_recv(back.socket, wire, sizeof wire, ZMQ_DONTWAIT);
        if (bytes > 0 && rid_n > 0) { /* B's PROVE, signed over our key, to A */
            assert_int_equal(zmq_send(front.socket, rid, (size_t)rid_n, ZMQ_SNDMORE), rid_n);
            assert_int_equal(zmq_send(front.socket, wire, (size_t)bytes, 0), bytes);
        }
    }
    assert_true(counters(&a).bad_proof >= 1);
    assert_true(strstr(a.failed, "could not prove") != NULL);
    assert_int_equal(a.ups + b.ups, 0);
    raw_end(&front);
    raw_end(&back);
    peer_end(&a);
    peer_end(&b);
}

/* ---- links that misbehave ---- */

static void a_multipart_message_ends_the_link(void **state)
{
    (void)state;
    struct peer a;
    struct raw r;
    struct net_identity id;
    assert_int_equal(net_identity_new(&id), ERR_OK);
    peer_new(&a, true);
    raw_link(&r, &a, &id);
    assert_int_equal(zmq_send(r.socket, "a", 1, ZMQ_SNDMORE), 1);
    assert_int_equal(zmq_send(r.socket, "b", 1, 0), 1);
    PUMP_UNTIL(a.downs == 1, &a);
    assert_int_equal(counters(&a).multipart, 1);
    assert_int_equal(a.frames, 0);
    raw_end(&r);
    net_identity_release(&id);
    still_works(&a);
    peer_end(&a);
}

/* Trap 4: parts of a message that never ends pass MAXMSGSIZE and HWM.  The kernel's count gives
 * them away. */
static void hidden_bytes_end_the_link(void **state)
{
    (void)state;
    struct peer a;
    static struct curve c;
    struct net_identity id;
    static const uint8_t part[1000];
    struct note hello = {.kind = NOTE_HELLO}, prove, cert = {.kind = NOTE_CERT};
    uint8_t wire[256];
    size_t n = 0;
    assert_int_equal(net_identity_new(&id), ERR_OK);
    peer_new(&a, true);
    curve_dial(&c, &a);
    n = note_write(wire, &hello);
    assert_true(curve_send(&c, wire, n, false));
    PUMP_UNTIL((n = curve_recv(&c, wire)) > 0, &a);
    assert_int_equal(note_parse(&prove, wire, n), ERR_OK);
    memcpy(cert.id, id.id, 32);
    proof_sign(
        cert.sig, &id,
        &(struct transcript){test_run, c.c_public, hello.nonce, prove.nonce, prove.id, id.id});
    n = note_write(wire, &cert);
    assert_true(curve_send(&c, wire, n, false));
    PUMP_UNTIL(a.link != 0, &a);
    assert_true(curve_send(&c, "whole", 5, false));
    PUMP_UNTIL(a.frames == 1, &a);
    for (int i = 0; i < 300; i++)
        if (!curve_send(&c, part, sizeof part, true))
            break;
    PUMP_UNTIL(a.downs == 1, &a);
    assert_string_equal(a.down, "it hid bytes in unfinished messages");
    assert_int_equal(counters(&a).hidden_bytes, 1);
    assert_int_equal(a.frames, 1);
    PUMP_UNTIL(curve_closed(&c), &a);
    PUMP_UNTIL(incoming(&a) == 0, &a);
    close(c.fd);
    net_identity_release(&id);
    still_works(&a);
    peer_end(&a);
}

/* An honest neighbour that sends much and large, to a reader that pauses, hides nothing. */
static void an_honest_torrent_is_not_taken_for_hidden_bytes(void **state)
{
    (void)state;
    struct peer a, b;
    static uint8_t frame[LIMIT_FRAME_BYTES];
    pair_up(&a, &b);
    a.ordered = a.useful = true;
    uint32_t sent = 0;
    const double end = seconds() + WAIT_S;
    while (sent < 3000 && seconds() < end) {
        memcpy(frame + 1, &sent, 4);
        const enum err e = net_transport_send(b.t, b.link, frame, sent % 7 ? 100 : sizeof frame);
        if (e == ERR_OK) {
            sent++;
            continue;
        }
        assert_int_equal(e, ERR_AGAIN);
        usleep(
            300000); /* longer than a tick: the counts are looked at with everything still unread */
        struct peer *const both[] = {&a, &b};
        pump(both, 2);
    }
    PUMP_UNTIL(a.frames == sent, &a, &b);
    assert_int_equal(sent, 3000);
    assert_int_equal(a.misordered, 0);
    assert_int_equal(counters(&a).hidden_bytes, 0);
    peer_end(&a);
    peer_end(&b);
}

static void shout(struct raw *r, unsigned n)
{
    static const uint8_t frame[100] = {'f'};
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(zmq_send(r->socket, frame, sizeof frame, 0), (int)sizeof frame);
}

static void flooded(struct peer *a, struct raw *r, const struct net_identity *id, uint32_t hold_ms)
{
    memset(a, 0, sizeof *a);
    assert_int_equal(net_identity_new(&a->id), ERR_OK);
    struct net_transport_options o = options_of(a, "127.0.0.1:0");
    o.frames_per_s = 100;
    o.hold_ms = hold_ms;
    peer_start(a, &o);
    raw_link(r, a, id);
}

static void pump_for(struct peer *a, double s)
{
    const double until = seconds() + s;
    PUMP_UNTIL(seconds() > until, a);
}

/* Once what was on its way is read, not a byte comes in on a's one connection as long as it is held back.  Looked at in one and the same
 * hold; on a machine so busy that it ended meanwhile, in the next, which is longer. */
static bool takes_nothing(struct peer *a)
{
    for (const double end = seconds() + WAIT_S; seconds() < end;) {
        pump_for(a, 0.2);
        struct conn *c = a->t->n_conns == 1 ? a->t->conns[0] : NULL;
        if (!c || c->held_until_ms == 0)
            continue;
        const uint64_t until_ms = c->held_until_ms;
        tcp_look(c);
        const uint64_t before = c->tcp_in;
        pump_for(a, 0.3);
        if (a->t->n_conns != 1 || c->held_until_ms != until_ms)
            continue;
        tcp_look(c);
        return c->tcp_in == before;
    }
    return false;
}

/* Too fast: the kernel takes nothing more from it, so the rest stays where it is and costs us nothing; what was on its way is taken as
 * a debt, and beyond that dropped; later it goes on, and the link is still there. */
static void a_flood_is_held_back(void **state)
{
    (void)state;
    struct peer a;
    struct raw r;
    struct net_identity id;
    enum { ALL = 40000 }; /* 5 MB */
    assert_int_equal(net_identity_new(&id), ERR_OK);
    flooded(&a, &r, &id, 0);
    shout(&r, ALL);
    PUMP_UNTIL(counters(&a).rate_held >= 1, &a);
    assert_true(a.frames >= 2 * (LIMIT_LINK_FRAMES_IN + 100));
    assert_true(takes_nothing(&a));
    const uint64_t came = a.frames + counters(&a).rate_dropped;
    PUMP_UNTIL(a.frames + counters(&a).rate_dropped > came, &a); /* when the time is over */
    assert_int_equal(a.downs, 0);
    raw_end(&r);
    net_identity_release(&id);
    peer_end(&a);
}

/* .. and who shouts all the time is closed and kept out. */
static void a_flood_is_dropped_then_cut_and_kept_out(void **state)
{
    (void)state;
    struct peer a;
    struct raw r;
    struct net_identity id;
    assert_int_equal(net_identity_new(&id), ERR_OK);
    flooded(&a, &r, &id, 4);
    for (unsigned i = 0; i < 20000 && a.downs == 0; i += 100) {
        shout(&r, 100);
        struct peer *const one = &a;
        pump(&one, 1);
    }
    PUMP_UNTIL(a.downs == 1, &a);
    assert_string_equal(a.down, "it sent more than a link may");
    assert_int_equal(counters(&a).rate_closed, 1);
    assert_true(counters(&a).rate_dropped >= LIMIT_LINK_DROPS || counters(&a).rate_held >= LIMIT_HOLDS);
    raw_end(&r);
    /* The same machine again: told to wait. */
    struct note hello = {.kind = NOTE_HELLO}, prove, cert = {.kind = NOTE_CERT}, bye;
    raw_dial(&r, &a);
    raw_note(&r, &hello);
    PUMP_UNTIL(raw_got(&r, &prove), &a);
    memcpy(cert.id, id.id, 32);
    proof_sign(cert.sig, &id,
               &(struct transcript){test_run, r.k, hello.nonce, prove.nonce, prove.id, id.id});
    raw_note(&r, &cert);
    PUMP_UNTIL(raw_got(&r, &bye), &a);
    assert_int_equal(bye.bye, BYE_KEPT_OUT);
    raw_end(&r);
    net_identity_release(&id);
    still_works(&a);
    peer_end(&a);
}

static void who_is_kept_out_again_is_kept_out_longer(void **state)
{
    (void)state;
    struct peer a;
    const uint8_t machine[32] = {5};
    uint64_t ms[LIMIT_PENALTY_DOUBLINGS + 3];
    peer_new(&a, true);
    for (size_t k = 0; k < ARRAY_LEN(ms); k++) {
        penalise(a.t, machine);
        ms[k] = a.t->penalties[0].until_ms - a.t->now_ms;
        a.t->now_ms = a.t->penalties[0].until_ms + 1000;
    }
    assert_int_equal(ms[0], LIMIT_PENALTY_MS);
    for (size_t k = 1; k < ARRAY_LEN(ms); k++)
        assert_int_equal(ms[k], ms[k - 1] * (k <= LIMIT_PENALTY_DOUBLINGS ? 2 : 1));
    a.t->now_ms += UINT64_C(100) * LIMIT_PENALTY_MS; /* long ago: forgotten */
    penalise(a.t, machine);
    assert_int_equal(a.t->penalties[0].until_ms - a.t->now_ms, LIMIT_PENALTY_MS);
    peer_end(&a);
}

/* Whoever brings what is new may be as fast as it can: a joiner's neighbour sends a ledger. */
static void useful_frames_are_not_a_flood(void **state)
{
    (void)state;
    struct peer a;
    struct raw r;
    struct net_identity id;
    struct net_event e;
    unsigned got = 0;
    assert_int_equal(net_identity_new(&id), ERR_OK);
    peer_quick(&a, 0, 100);
    raw_link(&r, &a, &id);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(zmq_send(r.socket, "f", 1, 0), 1);
    for (const double end = seconds() + WAIT_S; got < 5000 && seconds() < end;)
        if (net_transport_poll(a.t, &e, NULL, 0, 100) == ERR_OK && e.kind == NET_FRAME) {
            net_transport_useful(a.t, e.link);
            got++;
        }
    assert_int_equal(got, 5000);
    assert_int_equal(counters(&a).rate_dropped, 0);
    raw_end(&r);
    net_identity_release(&id);
    peer_end(&a);
}

static void a_frame_that_is_too_long_ends_the_link(void **state)
{
    (void)state;
    struct peer a;
    struct raw r;
    struct net_identity id;
    static const uint8_t frame[2 * LIMIT_FRAME_BYTES];
    assert_int_equal(net_identity_new(&id), ERR_OK);
    peer_new(&a, true);
    raw_link(&r, &a, &id);
    assert_int_equal(zmq_send(r.socket, frame, sizeof frame, 0), (int)sizeof frame);
    PUMP_UNTIL(a.downs == 1, &a);
    assert_int_equal(a.frames, 0);
    raw_end(&r);
    raw_link(&r, &a, &id);
    assert_int_equal(zmq_send(r.socket, frame, LIMIT_FRAME_BYTES + 1, 0),
                     LIMIT_FRAME_BYTES + 1); /* passes ZeroMQ, not us */
    PUMP_UNTIL(a.downs == 2, &a);
    assert_int_equal(a.frames, 0);
    raw_end(&r);
    net_identity_release(&id);
    peer_end(&a);
}

/* Every message of ours at every point where it does not belong, and every truncation: a counter,
 * never more. */
static void notes_out_of_place_end_the_link(void **state)
{
    (void)state;
    struct net_identity id;
    struct peer a;
    assert_int_equal(net_identity_new(&id), ERR_OK);
    peer_new(&a, true);
    for (int kind = NOTE_HELLO; kind <= NOTE_PONG + 1; kind++) {
        struct raw r;
        raw_link(&r, &a, &id);
        const unsigned downs = a.downs;
        if (kind > NOTE_PONG)
            assert_int_equal(zmq_send(r.socket, "\xff\x01", 2, 0), 2);
        else
            raw_note(&r, &(struct note){.kind = (enum note_kind)kind});
        if (kind == NOTE_PING) {
            struct note pong;
            PUMP_UNTIL(raw_got(&r, &pong), &a);
            assert_int_equal(pong.kind, NOTE_PONG);
        }
        if (kind == NOTE_PING || kind == NOTE_PONG)
            raw_note(&r, &(struct note){.kind = NOTE_BYE,
                                        .bye = 200}); /* an unknown reason is one too */
        PUMP_UNTIL(a.downs == downs + 1, &a);
        raw_end(&r);
    }
    assert_int_equal(counters(&a).bad_message, 5);
    net_identity_release(&id);
    still_works(&a);
    peer_end(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_run_is_not_let_in),
        cmocka_unit_test(a_key_that_says_nothing_is_closed),
        cmocka_unit_test(silent_and_senseless_tcp_clients_are_closed),
        cmocka_unit_test(no_more_than_so_many_wait_for_their_proof),
        cmocka_unit_test(many_connections_between_two_polls_do_not_block),
        cmocka_unit_test(bytes_before_the_proof_are_few),
        cmocka_unit_test(a_frame_before_the_proof_ends_it),
        cmocka_unit_test(a_chosen_routing_id_is_refused),
        cmocka_unit_test(arrivals_are_rationed_per_group),
        cmocka_unit_test(one_network_cannot_take_every_link),
        cmocka_unit_test(wrong_certificates_are_refused),
        cmocka_unit_test(a_man_in_the_middle_is_nobody),
        cmocka_unit_test(a_multipart_message_ends_the_link),
        cmocka_unit_test(hidden_bytes_end_the_link),
        cmocka_unit_test(an_honest_torrent_is_not_taken_for_hidden_bytes),
        cmocka_unit_test(a_flood_is_held_back),
        cmocka_unit_test(a_flood_is_dropped_then_cut_and_kept_out),
        cmocka_unit_test(who_is_kept_out_again_is_kept_out_longer),
        cmocka_unit_test(useful_frames_are_not_a_flood),
        cmocka_unit_test(a_frame_that_is_too_long_ends_the_link),
        cmocka_unit_test(notes_out_of_place_end_the_link),
    };
    if (net_start() != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
