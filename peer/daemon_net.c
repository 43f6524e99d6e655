/* Links, the actions gossip asks for, and the addresses we dial. */
#include "peer/daemon_in.h"
#include "peer/join_in.h"
#include "peer/log.h"
#include <stdlib.h>
#include <string.h>

static const uint64_t give_up_ns = 30 * NS; /* a dialled address from the book that never answered makes room */
static const uint64_t tell_every_ns = 60 * NS;

struct link *daemon_link(struct daemon *d, uint32_t id)
{
    for (size_t i = 0; i < d->n_links; i++)
        if (d->links[i].id == id)
            return &d->links[i];
    return NULL;
}

static uint64_t random_word(struct daemon *d)
{
    uint64_t x = daemon_now() ^ (uint64_t)(uintptr_t)d ^ (d->started_ns << 20); /* choices of addresses: not secret */
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

static struct dial *find_dial(struct daemon *d, const char *address)
{
    for (size_t i = 0; i < d->n_dials; i++)
        if (strcmp(d->dials[i].address, address) == 0)
            return &d->dials[i];
    return NULL;
}

/* ---- addresses ---- */

void daemon_dial(struct daemon *d, const char *address, bool asked)
{
    struct err_why why;
    const char *own = net_transport_listening(d->transport);
    if (d->n_dials == LIMIT_DIALS || find_dial(d, address) || (own && strcmp(own, address) == 0))
        return;
    if (net_transport_dial(d->transport, address, &why) != ERR_OK) {
        net_book_forget(d->book, address);
        return;
    }
    struct dial *a = &d->dials[d->n_dials++];
    *a = (struct dial){.asked = asked, .since_ns = daemon_now()};
    snprintf(a->address, sizeof a->address, "%s", address);
    peer_log(PEER_DEBUG, "dial", "address=%s", address);
}

static void hang_up(struct daemon *d, struct dial *a)
{
    net_transport_hang_up(d->transport, a->address);
    *a = d->dials[--d->n_dials];
}

void daemon_addresses_load(struct daemon *d)
{
    void *value;
    size_t n;
    if (net_ledger_get(d->ledger, "book", &value, &n) == ERR_OK) {
        if (net_book_load(d->book, value, n) != ERR_OK)
            peer_log(PEER_WARN, "book", "reason=\"the saved addresses are damaged and were left out\"");
        free(value);
    }
    for (size_t i = 0; i < d->o.n_connect; i++)
        net_book_heard(d->book, d->o.connect[i], "seed", daemon_unix_ms() / 1000, random_word(d));
    daemon_redial(d);
}

void daemon_addresses_save(struct daemon *d)
{
    uint8_t *out = malloc(NET_BOOK_BYTES_MAX);
    if (!out || !d->ledger)
        return;
    const size_t n = net_book_save(d->book, out, NET_BOOK_BYTES_MAX);
    if (net_ledger_set(d->ledger, "book", out, n) != ERR_OK)
        d->ledger_errors++;
    free(out);
}

static void tell_addresses(struct daemon *d)
{
    char good[LIMIT_ADDRESSES_TOLD][LIMIT_ADDRESS_BYTES + 1];
    const size_t n = net_book_good(d->book, good, LIMIT_ADDRESSES_TOLD);
    for (size_t i = 0; i < n; i++)
        net_gossip_address(d->gossip, good[i]);
    daemon_addresses_save(d);
}

/* Enough links by dialling: seeds we were given stay dialled for ever, others come from the book and make room when
 * they do not answer. */
void daemon_redial(struct daemon *d)
{
    const uint64_t now = daemon_now();
    if (d->told_ns == 0 || now - d->told_ns >= tell_every_ns) {
        d->told_ns = now;
        tell_addresses(d);
    }
    size_t trying = 0;
    for (size_t i = 0; i < d->n_dials; i++) {
        struct dial *a = &d->dials[i];
        if (!a->asked && !a->linked && now - a->since_ns > give_up_ns) {
            net_book_failed(d->book, a->address, daemon_unix_ms() / 1000);
            hang_up(d, a);
            i--;
            continue;
        }
        trying += !a->asked || a->linked ? 1 : 0;
    }
    const char *busy[LIMIT_DIALS + LIMIT_LINKS];
    size_t n = 0;
    for (size_t i = 0; i < d->n_dials; i++)
        busy[n++] = d->dials[i].address;
    for (size_t i = 0; i < d->n_links; i++)
        busy[n++] = d->links[i].address;
    char next[LIMIT_ADDRESS_BYTES + 1];
    if (trying < DAEMON_OUTGOING_MIN && d->n_dials < LIMIT_DIALS &&
        net_book_next(d->book, next, busy, n, daemon_unix_ms() / 1000, random_word(d)))
        daemon_dial(d, next, false);
}

static void learned(struct daemon *d, const struct net_action *a)
{
    char told[LIMIT_ADDRESS_BYTES + 1], teller[128] = "?";
    const struct link *l = daemon_link(d, a->link);
    if (a->seq == 1 || a->frame_bytes == 0 || a->frame_bytes >= sizeof told)
        return; /* seq 1: the transport knows better where a neighbour listens */
    memcpy(told, a->frame, a->frame_bytes);
    told[a->frame_bytes] = 0;
    if (l)
        snprintf(teller, sizeof teller, "%s", l->address);
    char *port = strrchr(teller, ':');
    if (port)
        *port = 0; /* a teller is its host: the port changes */
    net_book_heard(d->book, told, teller, daemon_unix_ms() / 1000, random_word(d));
}

/* ---- links ---- */

static void forget_link(struct daemon *d, uint32_t id, uint64_t now)
{
    struct link *l = daemon_link(d, id);
    if (!l)
        return;
    struct dial *a = l->outgoing ? find_dial(d, l->address) : NULL;
    if (a) {
        a->linked = false;
        a->since_ns = now;
    }
    *l = d->links[--d->n_links];
}

static void link_down(struct daemon *d, uint32_t id, const char *reason, uint64_t now)
{
    const struct link *l = daemon_link(d, id);
    char peer[9];
    if (!l)
        return;
    peer_short_id(peer, l->machine);
    peer_log(PEER_INFO, "link_down", "peer=%s address=%s reason=\"%s\"", peer, l->address, reason ? reason : "closed");
    forget_link(d, id, now);
    daemon_snap_link(d, id, false);
    net_gossip_link_down(d->gossip, id, now);
    daemon_actions(d);
    d->dirty = true;
}

static void link_up(struct daemon *d, const struct net_event *e, uint64_t now)
{
    char peer[9];
    if (d->n_links == LIMIT_LINKS || net_gossip_link_up(d->gossip, e->link, e->machine, e->outgoing, now) != ERR_OK) {
        net_transport_close(d->transport, e->link, false);
        return;
    }
    struct link *l = &d->links[d->n_links++];
    *l = (struct link){.id = e->link, .outgoing = e->outgoing};
    memcpy(l->machine, e->machine, 32);
    snprintf(l->address, sizeof l->address, "%s", e->address);
    if (!d->first_link_ns)
        d->first_link_ns = now;
    struct dial *a = e->outgoing ? find_dial(d, e->address) : NULL;
    if (a)
        a->linked = true;
    if (e->outgoing) {
        net_book_worked(d->book, e->address, daemon_unix_ms() / 1000, random_word(d));
        net_gossip_address(d->gossip, e->address);
    } else if (e->listen[0]) {
        net_book_heard(d->book, e->listen, e->listen, daemon_unix_ms() / 1000, random_word(d));
        net_gossip_address(d->gossip, e->listen);
    }
    peer_short_id(peer, e->machine);
    peer_log(PEER_INFO, "link_up", "peer=%s address=%s direction=%s", peer, l->address, l->outgoing ? "out" : "in");
    daemon_actions(d);
    daemon_snap_link(d, e->link, true);
    d->dirty = true;
}

static void dial_failed(struct daemon *d, const struct net_event *e)
{
    char quoted[200];
    peer_log_quote(quoted, sizeof quoted, e->reason ? e->reason : "no answer");
    peer_log(PEER_WARN, "dial_failed", "address=%s reason=\"%s\" retry=%s", e->address, quoted,
             e->reason && strstr(e->reason, "dropped") ? "no" : "yes");
    struct dial *a = find_dial(d, e->address);
    if (!a || !e->reason || !strstr(e->reason, "dropped"))
        return;
    net_book_forget(d->book, e->address); /* it leads to ourselves */
    *a = d->dials[--d->n_dials];
}

/* A neighbour that brings what is new is no flood, however fast it is. */
static void gossip_frame(struct daemon *d, const struct net_event *e, uint64_t now)
{
    struct net_gossip_counters before, after;
    net_gossip_count(d->gossip, &before);
    net_gossip_frame(d->gossip, e->link, e->frame, e->n, now);
    net_gossip_count(d->gossip, &after);
    if (after.segments_new > before.segments_new)
        net_transport_useful(d->transport, e->link);
}

/* A question for much: does who asks get it now? */
static bool may_download(struct daemon *d, const struct link *l, const uint8_t *f, size_t n)
{
    uint8_t none[JOIN_WANT_CHUNK_BYTES + 1] = {JOIN_NONE};
    const bool state = f[0] == JOIN_WANT_STATE, chunk = f[0] == JOIN_WANT_CHUNK;
    if (!state && !chunk && f[0] != JOIN_WANT_MANIFEST)
        return true;
    if (peer_uploads_take(&d->uploads, l->machine, l->address, state || chunk ? PEER_WINDOW_BYTES : JOIN_PIECE, daemon_now()))
        return true;
    const size_t said = state ? 1 : n < sizeof none ? n : 0;
    memcpy(none + 1, f, said);
    if ((state || chunk) && said > 0 && net_transport_send(d->transport, l->id, none, 1 + said) != ERR_OK)
        d->send_failures++; /* the joiner's clock says so, too */
    return false;
}

void daemon_event(struct daemon *d, const struct net_event *e)
{
    const uint64_t now = daemon_now();
    struct link *l;
    switch (e->kind) {
    case NET_LINK_UP:
        link_up(d, e, now);
        break;
    case NET_LINK_DOWN:
        link_down(d, e->link, e->reason, now);
        break;
    case NET_FRAME:
        l = daemon_link(d, e->link);
        if (!l || e->n == 0)
            break;
        if (!may_download(d, l, e->frame, e->n))
            break;
        if (e->frame[0] >= PEER_FRAME_FIRST && e->frame[0] <= PEER_FRAME_LAST &&
            (daemon_snap_frame(d, e->link, e->frame, e->n) || daemon_check_frame(d, e->link, e->frame, e->n)))
            break;
        if (e->frame[0] >= PEER_FRAME_FIRST && e->frame[0] <= PEER_FRAME_LAST)
            peer_donor_frame(&d->donor, d->transport, e->link, e->frame, e->n);
        else
            gossip_frame(d, e, now);
        daemon_actions(d);
        break;
    case NET_DIAL_FAILED:
        dial_failed(d, e);
        break;
    case NET_TWIN:
        daemon_new_key(d, "another process uses this key: the home was copied");
        break;
    case NET_WAKE:
        break;
    }
}

/* ---- actions ---- */

static void store(struct daemon *d, const struct net_action *a)
{
    const bool own = memcmp(a->machine, d->self.id, 32) == 0;
    d->wire_bytes += a->frame_bytes;
    d->wire_records += a->segment->count;
    if (!own)
        d->records_foreign += a->segment->count;
    daemon_round_heard(d, a);
    if (own && d->own_stored)
        return; /* daemon_sealed did, before gossip saw it */
    if (net_ledger_append(d->ledger, a->machine, a->segment->first_seq, a->frame, a->frame_bytes, own, daemon_unix_ms()) == ERR_OK) {
        daemon_disk_good(d, false);
        return;
    }
    daemon_disk_bad(d, net_ledger_error(d->ledger));
}

static void carry_out(struct daemon *d, const struct net_action *a)
{
    switch (a->kind) {
    case NET_SEND:
        if (d->transport && net_transport_send(d->transport, a->link, a->frame, a->frame_bytes) != ERR_OK)
            d->send_failures++; /* a full queue or a link just gone: repaired by comparing frontiers */
        break;
    case NET_DROP:
        if (d->transport)
            net_transport_close(d->transport, a->link, a->blame);
        link_down(d, a->link, a->reason, daemon_now());
        break;
    case NET_STORE:
        if (d->transport) /* while the ledger is loaded it holds them already */
            store(d, a);
        d->dirty = true;
        break;
    case NET_TRUNCATE:
        if (net_ledger_truncate(d->ledger, a->machine, a->seq) != ERR_OK)
            d->ledger_errors++;
        d->dirty = true;
        break;
    case NET_CONTROL:
        d->changed_ns = daemon_now(); /* at the end: the neighbours get it, too */
        if (d->transport && net_ledger_control(d->ledger, a->frame, a->frame_bytes) != ERR_OK)
            d->ledger_errors++;
        d->dirty = true;
        break;
    case NET_FOLD:
    case NET_UNFOLD:
        daemon_fold(d, a);
        break;
    case NET_OWN_BEHIND:
        daemon_own_behind(d, a);
        break;
    case NET_LEARNED:
        learned(d, a);
        break;
    case NET_ASKED:
        daemon_audit_asked(d, a);
        break;
    case NET_TOLD:
        daemon_audit_told(d, a);
        break;
    }
}

/* Carrying one out may make more (a dropped link): link_down calls back here, and the outer loop finds nothing left. */
void daemon_actions(struct daemon *d)
{
    struct net_action a;
    while (net_gossip_action(d->gossip, &a))
        carry_out(d, &a);
}
