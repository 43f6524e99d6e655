/* peer/invite.h -- onebyte://HOST:PORT/RUNID?key=MACHINE: enough to join a run.
 * RUNID is the run id (64 hex digits); key, optional, the machine id expected at HOST:PORT. */
#ifndef PEER_INVITE_H
#define PEER_INVITE_H
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer_invite {
    char address[128]; /* HOST:PORT; [v6]:PORT */
    uint8_t run_id[32];
    bool has_key;
    uint8_t key[32];
};

enum { PEER_INVITE_BYTES = 320 };

bool peer_invite_is(const char *text); /* starts with onebyte:// */
NODISCARD enum err peer_invite_parse(struct peer_invite *i, const char *text, struct err_why *why);
void peer_invite_print(char out[PEER_INVITE_BYTES], const struct peer_invite *i);

/* This machine's IPv4 address on the way to other networks (nothing is sent); false: there is no way. */
bool peer_own_address(char out[16]);
/* The invite of a peer that listens at HOST:PORT; for a wildcard host, this machine's own address. */
void peer_invite_listening(char out[PEER_INVITE_BYTES], const char *listening, const uint8_t run_id[32], const uint8_t machine[32]);
#endif
