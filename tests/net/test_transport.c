#include "tests/net/transport_pair.h"
#include "net/transport_private.h"
#include <netdb.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- addresses ---- */

static void addresses_are_split_or_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        int port;
    } good[] = {{"1.2.3.4:5", "1.2.3.4", 5},
                {"[::1]:4100", "::1", 4100},
                {"a-b.example.org:65535", "a-b.example.org", 65535},
                {"*:0", "*", 0},
                {"localhost:80", "localhost", 80}};
    static const char *const bad[] = {
        "",          ":",
        "host",      "host:",
        ":5",        "host:65536",
        "host:-1",   "host: 5",
        "host:5x",   "::1:5",
        "[::1]5",    "[::1]",
        "[]:5",      "[host]:5",
        "ho st:5",   "ho/st:5",
        "tcp://h:5", "[::1:5",
        "h:123456",  "0123456789012345678901234567890123456789012345678901234567890123:5"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        char host[64];
        uint16_t port;
        assert_int_equal(net_address_split(host, &port, good[i].text, NULL), ERR_OK);
        assert_string_equal(host, good[i].host);
        assert_int_equal(port, good[i].port);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char host[64] = "untouched";
        uint16_t port = 1;
        struct err_why why = {""};
        if (net_address_split(host, &port, bad[i], &why) != ERR_FORMAT)
            fail_msg("'%s' was taken", bad[i]);
        assert_string_equal(host, "untouched");
        assert_true(why.text[0] != 0);
    }
}

static void groups_are_networks(void **state)
{
    (void)state;
    static const char *const same[][2] = {{"10.1.2.3", "10.1.2.250"},
                                          {"::ffff:10.1.2.3", "10.1.2.4"},
                                          {"2001:db8:1:2::1", "2001:db8:1:2:ffff::9"},
                                          {"example.org", "example.org"}};
    static const char *const other[][2] = {
        {"10.1.2.3", "10.1.3.3"}, {"2001:db8:1:2::1", "2001:db8:1:3::1"}, {"a", "b"}};
    char x[64], y[64];
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        net_address_group(x, same[i][0]);
        net_address_group(y, same[i][1]);
        assert_string_equal(x, y);
    }
    for (size_t i = 0; i < ARRAY_LEN(other); i++) {
        net_address_group(x, other[i][0]);
        net_address_group(y, other[i][1]);
        assert_string_not_equal(x, y);
    }
}

/* ---- the transport's own messages ---- */

static void notes_round_trip_and_refuse_the_rest(void **state)
{
    (void)state;
    for (int kind = NOTE_HELLO; kind <= NOTE_PONG; kind++) {
        struct note in = {.kind = (enum note_kind)kind,
                          .port = 4100,
                          .bye = BYE_FULL,
                          .stamp = 0x0102030405060708u},
                    out;
        uint8_t wire[NOTE_BYTES_MAX], longer[NOTE_BYTES_MAX + 1] = {0};
        memset(in.id, 1, 32);
        memset(in.nonce, 2, 32);
        memset(in.sig, 3, 64);
        const size_t n = note_write(wire, &in);
        memset(&out, 0, sizeof out);
        assert_int_equal(note_parse(&out, wire, n), ERR_OK);
        assert_int_equal(out.kind, kind);
        uint8_t again[NOTE_BYTES_MAX];
        assert_int_equal(note_write(again, &out), n);
        assert_memory_equal(again, wire, n);
        for (size_t cut = 0; cut < n; cut++)
            assert_int_equal(note_parse(&out, wire, cut), ERR_PROTO);
        memcpy(longer, wire, n);
        assert_int_equal(note_parse(&out, longer, n + 1), ERR_PROTO);
    }
    const uint8_t unknown[] = {NET_FRAME_RESERVED, 8}, zero[] = {NET_FRAME_RESERVED, 0};
    struct note out;
    assert_int_equal(note_parse(&out, unknown, 2), ERR_PROTO);
    assert_int_equal(note_parse(&out, zero, 2), ERR_PROTO);
}

/* A proof holds for exactly its transcript: every part counts, and the two roles are not
 * interchangeable. */
static void proofs_bind_the_whole_transcript(void **state)
{
    (void)state;
    struct net_identity l, d;
    uint8_t part[4][32], sig[64];
    assert_int_equal(net_identity_new(&l), ERR_OK);
    assert_int_equal(net_identity_new(&d), ERR_OK);
    for (int i = 0; i < 4; i++)
        memset(part[i], i + 1, 32);
    const struct transcript theirs = {part[0], part[1], part[2], part[3], l.id, NULL};
    const struct transcript ours = {part[0], part[1], part[2], part[3], l.id, d.id};
    proof_sign(sig, &l, &theirs);
    assert_int_equal(proof_check(sig, &theirs), ERR_OK);
    assert_int_not_equal(proof_check(sig, &ours), ERR_OK);
    proof_sign(sig, &d, &ours);
    assert_int_equal(proof_check(sig, &ours), ERR_OK);
    for (int i = 0; i < 4; i++) {
        part[i][31] ^= 1;
        assert_int_not_equal(proof_check(sig, &ours), ERR_OK);
        part[i][31] ^= 1;
    }
    const struct transcript swapped = {part[0], part[1], part[2], part[3], d.id, l.id};
    assert_int_not_equal(proof_check(sig, &swapped), ERR_OK);
    net_identity_release(&l);
    net_identity_release(&d);
}

/* ---- links ---- */

static void a_link_carries_frames_both_ways(void **state)
{
    (void)state;
    struct peer a, b;
    pair_up(&a, &b);
    assert_memory_equal(a.machine, b.id.id, 32);
    assert_memory_equal(b.machine, a.id.id, 32);
    assert_true(b.outgoing && !a.outgoing);
    assert_string_equal(b.address, net_transport_listening(a.t));
    assert_string_equal(b.listen, net_transport_listening(a.t));
    assert_string_equal(a.listen, ""); /* b does not listen */
    static const size_t sizes[] = {1, 2, 221, 222, 223, 255, 256, 1128, LIMIT_FRAME_BYTES};
    uint8_t frame[LIMIT_FRAME_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (size_t k = 0; k < sizes[i]; k++)
            frame[k] = (uint8_t)((k * 31 + i) % 251);
        assert_int_equal(net_transport_send(b.t, b.link, frame, sizes[i]), ERR_OK);
        PUMP_UNTIL(a.frames == i + 1, &a, &b);
        assert_int_equal(a.last_n, sizes[i]);
        assert_memory_equal(a.last, frame, sizes[i]);
        assert_int_equal(net_transport_send(a.t, a.link, frame, sizes[i]), ERR_OK);
        PUMP_UNTIL(b.frames == i + 1, &a, &b);
        assert_int_equal(b.last_n, sizes[i]);
        assert_memory_equal(b.last, frame, sizes[i]);
    }
    peer_end(&a);
    peer_end(&b);
}

static void sending_refuses_what_is_no_frame(void **state)
{
    (void)state;
    struct peer a, b;
    static uint8_t frame[LIMIT_FRAME_BYTES + 1];
    pair_up(&a, &b);
    assert_int_equal(net_transport_send(b.t, b.link, frame, 0), ERR_RANGE);
    assert_int_equal(net_transport_send(b.t, b.link, frame, sizeof frame), ERR_RANGE);
    frame[0] = NET_FRAME_RESERVED;
    assert_int_equal(net_transport_send(b.t, b.link, frame, 10), ERR_RANGE);
    frame[0] = 0;
    assert_int_equal(net_transport_send(b.t, b.link + 100, frame, 10), ERR_NOTFOUND);
    assert_int_equal(net_transport_send(b.t, 0, frame, 10), ERR_NOTFOUND);
    peer_end(&a);
    peer_end(&b);
}

/* The bytes we count per message are those that the kernel counts: hidden bytes are found by this
 * difference. */
static void bytes_on_the_wire_are_predicted_exactly(void **state)
{
    (void)state;
    struct peer a, b;
    struct net_link_view before, after;
    uint8_t frame[2000] = {0};
    uint64_t want = 0;
    pair_up(&a, &b);
    const struct conn *c = a.t->conns[0];
    PUMP_FOR(0.3, &a,
             &b); /* the handshake's last bytes, and a tick that looks at the kernel's counts */
    assert_true(net_transport_link(a.t, 0, &before));
    struct net_traffic last = {0}, at_first, now;
    net_transport_traffic(b.t, &at_first);
    for (size_t n = 1; n < sizeof frame; n += 37) {
        assert_int_equal(net_transport_send(b.t, b.link, frame, n), ERR_OK);
        want += wire_bytes(n);
        net_transport_traffic(b.t, &now);
        assert_true(now.sent >= last.sent && now.handed == at_first.handed + want); /* known at once, and nothing ever falls */
        last = now;
    }
    const uint64_t delivered = c->delivered;
    PUMP_UNTIL(c->delivered - delivered == want, &a, &b);
    PUMP_UNTIL(net_transport_link(a.t, 0, &after) && after.received - before.received == want, &a,
               &b);
    struct net_traffic ta, tb;
    PUMP_UNTIL((net_transport_traffic(a.t, &ta), net_transport_traffic(b.t, &tb),
                assert_true(tb.sent >= last.sent), last = tb, ta.received >= want && tb.sent >= want),
               &a, &b);
    peer_end(&a);
    peer_end(&b);
}

static void a_full_queue_says_again_and_loses_nothing(void **state)
{
    (void)state;
    struct peer a, b;
    static uint8_t frame[LIMIT_FRAME_BYTES];
    pair_up(&a, &b);
    a.ordered = a.useful = true;
    uint32_t sent = 0;
    for (;; sent++) { /* a does not read */
        memcpy(frame + 1, &sent, 4);
        const enum err e = net_transport_send(b.t, b.link, frame, sizeof frame);
        if (e == ERR_AGAIN)
            break;
        assert_int_equal(e, ERR_OK);
        assert_true(sent < 100000);
    }
    assert_true(sent * (uint64_t)sizeof frame >= LIMIT_LINK_QUEUE_BYTES);
    PUMP_UNTIL(a.frames == sent, &a, &b);
    assert_int_equal(a.misordered, 0);
    memcpy(frame + 1, &sent, 4);
    PUMP_UNTIL(net_transport_send(b.t, b.link, frame, sizeof frame) == ERR_OK, &a, &b);
    PUMP_UNTIL(a.frames == sent + 1, &a, &b);
    assert_int_equal(a.misordered, 0);
    peer_end(&a);
    peer_end(&b);
}

static void what_was_sent_before_leaving_arrives(void **state)
{
    (void)state;
    struct peer a, b;
    static uint8_t frame[1000];
    pair_up(&a, &b);
    a.ordered = true;
    for (uint32_t i = 0; i < 200;
         i++) { /* fewer than RCVHWM: more than that may be lost with the connection */
        memcpy(frame + 1, &i, 4);
        assert_int_equal(net_transport_send(b.t, b.link, frame, sizeof frame), ERR_OK);
    }
    peer_end(&b);
    PUMP_UNTIL(a.downs == 1, &a);
    assert_int_equal(a.frames, 200);
    assert_int_equal(a.misordered, 0);
    assert_string_equal(a.down, "the other end stopped");
    peer_end(&a);
}

static void a_listener_that_leaves_delivers_too(void **state)
{
    (void)state;
    struct peer a, b;
    static uint8_t frame[1000];
    pair_up(&a, &b);
    b.ordered = true;
    for (uint32_t i = 0; i < 200;
         i++) { /* fewer than RCVHWM: more than that may be lost with the connection */
        memcpy(frame + 1, &i, 4);
        assert_int_equal(net_transport_send(a.t, a.link, frame, sizeof frame), ERR_OK);
    }
    peer_end(&a);
    PUMP_UNTIL(b.downs == 1, &b);
    assert_int_equal(b.frames, 200);
    assert_int_equal(b.misordered, 0);
    peer_end(&b);
}

static void plain_descriptors_wake_the_poll(void **state)
{
    (void)state;
    struct peer a;
    struct net_event e;
    peer_new(&a, true);
    const int fds[] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};
    assert_int_equal(net_transport_poll(a.t, &e, fds, 2, 0), ERR_AGAIN);
    assert_int_equal(net_transport_poll(a.t, &e, fds, 2, 20), ERR_AGAIN);
    assert_int_equal(eventfd_write(fds[1], 1), 0);
    assert_int_equal(net_transport_poll(a.t, &e, fds, 2, -1), ERR_OK);
    assert_int_equal(e.kind, NET_WAKE);
    assert_int_equal(e.link, 1);
    close(fds[0]);
    close(fds[1]);
    peer_end(&a);
    peer_new(&a, false); /* nothing to wait for but time */
    assert_int_equal(net_transport_poll(a.t, &e, NULL, 0, 5), ERR_AGAIN);
    assert_null(net_transport_listening(a.t));
    peer_end(&a);
}

/* Frames that never stop coming do not keep the caller from its own descriptors. */
static void a_busy_link_does_not_starve_descriptors(void **state)
{
    (void)state;
    struct peer a, b;
    struct net_event e;
    uint8_t frame[10] = {0};
    pair_up(&a, &b);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(net_transport_send(b.t, b.link, frame, sizeof frame), ERR_OK);
    const int fd = eventfd(1, EFD_CLOEXEC);
    PUMP_UNTIL(a.frames > 0, &a, &b);
    const unsigned start = a.frames;
    const double end = seconds() + WAIT_S;
    while (a.wakes == 0 && seconds() < end)
        if (net_transport_poll(a.t, &e, &fd, 1, 0) == ERR_OK)
            peer_event(&a, &e);
    assert_int_equal(a.wakes, 1);
    assert_true(a.frames - start <= 64);
    close(fd);
    peer_end(&a);
    peer_end(&b);
}

/* ---- finding one another ---- */

static void a_restarted_listener_is_found_again(void **state)
{
    (void)state;
    struct peer a, b;
    char address[128];
    pair_up(&a, &b);
    snprintf(address, sizeof address, "%s", net_transport_listening(a.t));
    for (unsigned round = 2; round <= 3; round++) {
        net_transport_free(a.t);
        a.t = NULL;
        PUMP_UNTIL(b.link == 0, &b);
        PUMP_FOR(0.1, &b); /* some attempts meet nobody */
        a.link = 0;
        const struct net_transport_options o = options_of(&a, address);
        peer_start(&a, &o); /* the same port at once: connections in TIME_WAIT do not hinder */
        PUMP_UNTIL(a.link && b.link, &a, &b);
        assert_int_equal(b.ups, round);
        assert_int_equal(net_transport_send(b.t, b.link, (const uint8_t *)"x", 1), ERR_OK);
        PUMP_UNTIL(a.frames == round - 1, &a, &b);
    }
    peer_end(&a);
    peer_end(&b);
}

static void a_dial_that_meets_nobody_is_reported_once_and_goes_on(void **state)
{
    (void)state;
    struct peer a, b;
    char address[128];
    peer_new(&a, true);
    snprintf(address, sizeof address, "%s", net_transport_listening(a.t));
    net_transport_free(a.t);
    a.t = NULL;
    peer_new(&b, false);
    peer_dial(&b, address);
    PUMP_UNTIL(b.failures == 1, &b);
    assert_non_null(strstr(b.failed, "nothing answers"));
    struct net_dial_view v;
    PUMP_UNTIL(net_transport_dialled(b.t, 0, &v) && v.failures >= 3, &b);
    assert_int_equal(b.failures, 1);
    assert_string_equal(v.address, address);
    const struct net_transport_options o = options_of(&a, address);
    peer_start(&a, &o);
    peer_dial(&b, address); /* again: now, not after its waiting time */
    PUMP_UNTIL(a.link && b.link, &a, &b);
    assert_false(net_transport_dialled(b.t, 1, &v));
    net_transport_hang_up(b.t, address);
    assert_false(net_transport_dialled(b.t, 0, &v));
    PUMP_UNTIL(a.downs == 1, &a, &b);
    assert_int_equal(b.downs, 0);
    peer_end(&a);
    peer_end(&b);
}

static void need_localhost(void)
{
    struct addrinfo *found = NULL;
    if (getaddrinfo("localhost", NULL, NULL, &found) != 0) {
        puts("SKIP: localhost does not resolve here: /etc/hosts is missing");
        skip();
    }
    freeaddrinfo(found);
}

static void names_are_resolved(void **state)
{
    (void)state;
    need_localhost();
    struct peer a, b;
    char address[128];
    peer_new(&a, true);
    peer_new(&b, false);
    snprintf(address, sizeof address, "localhost:%s",
             strrchr(net_transport_listening(a.t), ':') + 1);
    peer_dial(&b, address);
    PUMP_UNTIL(a.link && b.link, &a, &b);
    assert_string_equal(b.address, address);
    peer_dial(&b, "a..b:1");
    PUMP_UNTIL(b.failures == 1, &a, &b);
    assert_true(strstr(b.failed, "host name") || strstr(b.failed, "name server"));
    peer_end(&a);
    peer_end(&b);
}

static void ipv6_works_where_there_is_any(void **state)
{
    (void)state;
    struct peer a, b;
    struct err_why why;
    memset(&a, 0, sizeof a);
    assert_int_equal(net_identity_new(&a.id), ERR_OK);
    const struct net_transport_options o = options_of(&a, "[::1]:0");
    if (net_transport_new(&a.t, &o, &why) != ERR_OK) {
        net_identity_release(&a.id);
        print_message("SKIP: no IPv6 on this machine\n");
        skip();
    }
    peer_new(&b, true);
    assert_true(strncmp(net_transport_listening(a.t), "[::1]:", 6) == 0);
    peer_dial(&b, net_transport_listening(a.t));
    PUMP_UNTIL(a.link && b.link, &a, &b);
    assert_true(strncmp(a.address, "[::1]:", 6) == 0);
    assert_true(strncmp(a.listen, "[::1]:", 6) == 0); /* b's own port, the host as a sees it */
    peer_end(&a);
    peer_end(&b);
}

static void listening_errors_are_one_clear_line(void **state)
{
    (void)state;
    struct peer a;
    struct net_transport *other = NULL;
    struct err_why why = {""};
    peer_new(&a, true);
    struct net_transport_options o = options_of(&a, net_transport_listening(a.t));
    assert_int_equal(net_transport_new(&other, &o, &why), ERR_BUSY);
    assert_non_null(strstr(why.text, "in use"));
    assert_null(strchr(why.text, '\n'));
    o.listen = "not an address";
    assert_int_equal(net_transport_new(&other, &o, &why), ERR_FORMAT);
    o.listen = "192.0.2.1:0"; /* TEST-NET-1: nobody's */
    assert_int_equal(net_transport_new(&other, &o, &why), ERR_IO);
    assert_non_null(strstr(why.text, "no such address"));
    assert_int_equal(net_transport_dial(a.t, "nonsense", &why), ERR_FORMAT);
    assert_int_equal(net_transport_dial(a.t, "127.0.0.1:0", &why), ERR_FORMAT);
    assert_int_equal(net_transport_dial(a.t, "*:5", &why), ERR_FORMAT);
    assert_int_equal(net_transport_dial(a.t, "127.0.0.1:5?key=12", &why), ERR_FORMAT);
    assert_null(other);
    char address[32];
    for (int i = 0; i < LIMIT_DIALS; i++) {
        snprintf(address, sizeof address, "127.0.0.1:%d", i + 1);
        assert_int_equal(net_transport_dial(a.t, address, &why), ERR_OK);
    }
    assert_int_equal(net_transport_dial(a.t, "127.0.0.1:9999", &why), ERR_RANGE);
    assert_int_equal(net_transport_dial(a.t, "127.0.0.1:1", &why), ERR_OK);
    peer_end(&a);
}

static void a_pinned_dial_accepts_that_machine_only(void **state)
{
    (void)state;
    struct peer a, b;
    char address[256], hex[65];
    peer_new(&a, true);
    peer_new(&b, false);
    net_hex(hex, b.id.id, 32); /* any machine but a */
    snprintf(address, sizeof address, "%s?key=%s", net_transport_listening(a.t), hex);
    peer_dial(&b, address);
    PUMP_UNTIL(b.failures == 1, &a, &b);
    assert_non_null(strstr(b.failed, "another machine"));
    assert_int_equal(a.ups + b.ups, 0);
    net_hex(hex, a.id.id, 32);
    snprintf(address, sizeof address, "%s?key=%s", net_transport_listening(a.t), hex);
    peer_dial(&b, address);
    PUMP_UNTIL(a.link && b.link, &a, &b);
    peer_end(&a);
    peer_end(&b);
}

/* ---- one link per pair ---- */

static void a_dial_to_oneself_is_dropped(void **state)
{
    (void)state;
    struct peer a;
    struct net_dial_view v;
    peer_new(&a, true);
    peer_dial(&a, net_transport_listening(a.t));
    PUMP_UNTIL(a.failures == 1, &a);
    assert_non_null(strstr(a.failed, "dropped"));
    PUMP_UNTIL(!net_transport_dialled(a.t, 0, &v), &a);
    assert_int_equal(a.ups, 0);
    assert_int_equal(a.twins, 0);
    peer_end(&a);
}

static void a_second_process_with_our_key_is_named(void **state)
{
    (void)state;
    struct peer a, b;
    peer_new(&a, true);
    memset(&b, 0, sizeof b);
    b.id = a.id; /* a copied home */
    const struct net_transport_options o = options_of(&b, NULL);
    peer_start(&b, &o);
    peer_dial(&b, net_transport_listening(a.t));
    PUMP_UNTIL(b.twins >= 1, &a,
               &b); /* the listener proves itself first, so the dialler sees it; */
    assert_int_equal(a.ups + b.ups, 0);
    net_transport_free(b.t);
    peer_end(&a);
}

static void crossing_dials_leave_one_link(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        struct peer a, b;
        peer_new(&a, true);
        peer_new(&b, true);
        struct peer *lower = memcmp(a.id.id, b.id.id, 32) < 0 ? &a : &b,
                    *higher = lower == &a ? &b : &a;
        if (round % 2) { /* one after the other; else at the same time */
            peer_dial(higher, net_transport_listening(lower->t));
            PUMP_UNTIL(a.link && b.link, &a, &b);
            peer_dial(lower, net_transport_listening(higher->t));
        } else {
            peer_dial(&a, net_transport_listening(b.t));
            peer_dial(&b, net_transport_listening(a.t));
        }
        PUMP_UNTIL(links(&a) == 1 && links(&b) == 1 && lower->outgoing && !higher->outgoing &&
                       lower->link && higher->link,
                   &a, &b);
        PUMP_FOR(0.2, &a, &b); /* and it stays so */
        assert_int_equal(links(&a), 1);
        assert_int_equal(links(&b), 1);
        assert_true(lower->link != 0 && lower->outgoing);
        assert_int_equal(net_transport_send(higher->t, higher->link, (const uint8_t *)"x", 1),
                         ERR_OK);
        PUMP_UNTIL(lower->frames == 1, &a, &b);
        const unsigned ups = higher->ups; /* the one that rested takes over when the link ends */
        net_transport_hang_up(lower->t, net_transport_listening(higher->t));
        PUMP_UNTIL(higher->ups == ups + 1 && higher->link && higher->outgoing, &a, &b);
        peer_end(&a);
        peer_end(&b);
    }
}

static void two_addresses_of_one_machine_make_one_link(void **state)
{
    (void)state;
    need_localhost();
    struct peer a, b;
    char address[128];
    pair_up(&a, &b);
    snprintf(address, sizeof address, "localhost:%s",
             strrchr(net_transport_listening(a.t), ':') + 1);
    peer_dial(&b, address);
    PUMP_UNTIL(counters(&b).duplicates >= 1, &a, &b);
    PUMP_FOR(0.3, &a, &b);
    assert_int_equal(links(&a), 1);
    assert_int_equal(links(&b), 1);
    assert_int_equal(b.downs + a.downs, 0);
    net_transport_hang_up(b.t, net_transport_listening(a.t)); /* the other address takes over */
    PUMP_UNTIL(b.ups == 2 && b.link && a.link, &a, &b);
    assert_string_equal(b.address, address);
    peer_end(&a);
    peer_end(&b);
}

/* A process that died without a word comes back: its new link replaces the one that looks alive. */
static void the_newer_link_of_a_machine_replaces_the_older(void **state)
{
    (void)state;
    struct peer a, b, again;
    pair_up(&a, &b);
    memset(&again, 0, sizeof again);
    again.id = b.id;
    const struct net_transport_options o = options_of(&again, NULL);
    peer_start(&again, &o);
    peer_dial(&again, net_transport_listening(a.t)); /* b is not moved forward: as good as dead */
    PUMP_UNTIL(again.link && a.ups == 2 && a.downs == 1 && a.link, &a, &again);
    assert_int_equal(links(&a), 1);
    assert_int_equal(net_transport_send(again.t, again.link, (const uint8_t *)"x", 1), ERR_OK);
    PUMP_UNTIL(a.frames == 1, &a, &again);
    net_transport_free(again.t);
    peer_end(&a);
    peer_end(&b);
}

static void a_full_listener_says_so(void **state)
{
    (void)state;
    struct peer a, b, c;
    memset(&a, 0, sizeof a);
    assert_int_equal(net_identity_new(&a.id), ERR_OK);
    struct net_transport_options o = options_of(&a, "127.0.0.1:0");
    o.links_max = 1;
    peer_start(&a, &o);
    peer_new(&b, false);
    peer_new(&c, false);
    peer_dial(&b, net_transport_listening(a.t));
    PUMP_UNTIL(a.link && b.link, &a, &b);
    peer_dial(&c, net_transport_listening(a.t));
    PUMP_UNTIL(c.failures == 1, &a, &b, &c);
    assert_non_null(strstr(c.failed, "all the links"));
    assert_true(counters(&a).refused_full >= 1);
    peer_end(&b); /* a place is free: c's next try gets it */
    PUMP_UNTIL(c.link, &a, &c);
    peer_end(&a);
    peer_end(&c);
}

static void a_neighbour_that_falls_silent_is_given_up(void **state)
{
    (void)state;
    struct peer a, b;
    memset(&a, 0, sizeof a);
    assert_int_equal(net_identity_new(&a.id), ERR_OK);
    struct net_transport_options o = options_of(&a, "127.0.0.1:0");
    o.ping_ms = 50;
    o.silence_ms = 400;
    peer_start(&a, &o);
    peer_new(&b, false);
    peer_dial(&b, net_transport_listening(a.t));
    PUMP_UNTIL(a.link && b.link, &a, &b);
    const uint64_t heard = a.t->conns[0]->delivered;
    PUMP_UNTIL(a.t->conns[0]->delivered >= heard + 2 * wire_bytes(10), &a,
               &b);              /* it answers pings */
    PUMP_UNTIL(a.link == 0, &a); /* b hangs, its TCP connection lives */
    assert_string_equal(a.down, "it fell silent");
    assert_true(counters(&a).silent >= 1);
    PUMP_UNTIL(b.downs >= 1 && b.link && a.link, &a, &b);
    peer_end(&a);
    peer_end(&b);
}

static void a_blamed_machine_is_kept_out_for_a_while(void **state)
{
    (void)state;
    struct peer a, b;
    memset(&a, 0, sizeof a);
    assert_int_equal(net_identity_new(&a.id), ERR_OK);
    struct net_transport_options o = options_of(&a, "127.0.0.1:0");
    o.penalty_ms = 4000; /* longer than a busy machine takes to dial again */
    peer_start(&a, &o);
    peer_new(&b, false);
    peer_dial(&b, net_transport_listening(a.t));
    PUMP_UNTIL(a.link && b.link, &a, &b);
    net_transport_close(a.t, a.link, true);
    PUMP_UNTIL(b.downs == 1, &a, &b);
    assert_int_equal(a.downs, 0); /* it was its own doing */
    PUMP_UNTIL(counters(&a).penalised >= 1, &a, &b);
    assert_int_equal(a.ups, 1);
    PUMP_UNTIL(a.ups == 2 && b.ups == 2, &a, &b);
    peer_end(&a);
    peer_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_split_or_refused),
        cmocka_unit_test(groups_are_networks),
        cmocka_unit_test(notes_round_trip_and_refuse_the_rest),
        cmocka_unit_test(proofs_bind_the_whole_transcript),
        cmocka_unit_test(a_link_carries_frames_both_ways),
        cmocka_unit_test(sending_refuses_what_is_no_frame),
        cmocka_unit_test(bytes_on_the_wire_are_predicted_exactly),
        cmocka_unit_test(a_full_queue_says_again_and_loses_nothing),
        cmocka_unit_test(what_was_sent_before_leaving_arrives),
        cmocka_unit_test(a_listener_that_leaves_delivers_too),
        cmocka_unit_test(plain_descriptors_wake_the_poll),
        cmocka_unit_test(a_busy_link_does_not_starve_descriptors),
        cmocka_unit_test(a_restarted_listener_is_found_again),
        cmocka_unit_test(a_dial_that_meets_nobody_is_reported_once_and_goes_on),
        cmocka_unit_test(names_are_resolved),
        cmocka_unit_test(ipv6_works_where_there_is_any),
        cmocka_unit_test(listening_errors_are_one_clear_line),
        cmocka_unit_test(a_pinned_dial_accepts_that_machine_only),
        cmocka_unit_test(a_dial_to_oneself_is_dropped),
        cmocka_unit_test(a_second_process_with_our_key_is_named),
        cmocka_unit_test(crossing_dials_leave_one_link),
        cmocka_unit_test(two_addresses_of_one_machine_make_one_link),
        cmocka_unit_test(the_newer_link_of_a_machine_replaces_the_older),
        cmocka_unit_test(a_full_listener_says_so),
        cmocka_unit_test(a_neighbour_that_falls_silent_is_given_up),
        cmocka_unit_test(a_blamed_machine_is_kept_out_for_a_while),
    };
    if (net_start() != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
