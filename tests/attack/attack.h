/* tests/attack/attack.h -- private to tests/attack: what each attack is given and what it reports. */
#ifndef TESTS_ATTACK_ATTACK_H
#define TESTS_ATTACK_ATTACK_H
#include "tests/attack/foe.h"

struct report {
    uint64_t tried, links, refused, sent;
    const char *why; /* the peer did not answer as it must */
};

static inline bool unless(struct report *r, bool wrong, const char *why)
{
    if (wrong && !r->why)
        r->why = why;
    return !wrong;
}

/* before a link is up: attack_door.c */
bool attack_silent(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_server_key(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_uncertified(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_certificates(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_early(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_links(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_close(const struct target *t, struct report *r, double seconds, uint32_t n);
/* frames on a link: attack_frames.c */
bool attack_frames(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_multipart(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_liar(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_requests(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_downloads(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_frontiers(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_garbage(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_flood(const struct target *t, struct report *r, double seconds, uint32_t n);
/* signed data: attack_feeds.c */
bool attack_replay(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_strangers(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_segments(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_share(const struct target *t, struct report *r, double seconds, uint32_t n);
bool attack_forks(const struct target *t, struct report *r, double seconds, uint32_t n);
#endif
