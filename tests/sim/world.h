/* tests/sim/world.h -- many gossip machines in one process on virtual time, with a network, disks and faults.
 *
 * Everything follows from the seed: same seed, same run, on any machine.  The machines are the real ones (net/gossip.h); the
 * disk is a log whose tail a crash tears; a link loses, doubles, delays and reorders frames.
 * Checked all along: equal frontiers have equal states, and so has the way to a checkpoint's frontier from any other; at the
 * end: all machines agree, on checkpoints and scores too, and nothing sealed is missing. */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H
#include <onebyte/net/gossip.h>
#include <stdbool.h>
#include <stdint.h>

struct world_options {
    uint64_t seed;
    uint32_t peers, degree;
    uint64_t records;     /* stop sealing when so many are sealed; 0: by time alone */
    uint64_t duration_ns; /* of faults and sealing; then heal */
    uint64_t heal_ns;     /* within which all must agree */
    uint64_t seal_ns;     /* mean time between two segments of one machine */
    uint32_t segment_max, k;
    uint64_t delay_ns, jitter_ns;
    uint32_t loss, doubled, late; /* of 65536 frames; late: delayed by up to 64 times the jitter */
    uint32_t crash, pause, jump, rollback, wiped; /* of 65536, per peer and minute */
    uint32_t damage; /* of 65536 rows of a disk, at each crash */
    uint32_t partition;                           /* of 65536, per minute */
    uint32_t retract;                             /* of 65536, per minute, by the owner */
    uint32_t checkpoint;                          /* of 65536, per minute, by the owner; peers then score it */
    uint32_t twins;                               /* machines run by two peers at once */
    uint32_t liars;                               /* peers whose frames are damaged or invented */
    uint32_t rotate;          /* of 65536, per peer and 2 s: a neighbour is exchanged */
    uint32_t nat;             /* of 65536 peers that only dial out */
    bool sync, invite, tight; /* pace sync; admission by invite; a share cap that bites */
    bool measure;             /* times from sealed to folded */
};

struct world_result {
    bool ok;
    char what[256]; /* why not */
    uint64_t virtual_ns, events, frames, bytes, segments, records, cuts;
    uint64_t heal_took_ns; /* from the end of faults to agreement */
    uint64_t digest;       /* of everything: two runs of a seed must be equal */
    uint64_t latency_p50_ns, latency_p99_ns, latency_max_ns; /* sealed to folded, all other peers */
    uint64_t searches, forks, duplicates;
    uint64_t checkpoints, rebuilt, scores; /* named; states computed from another frontier and equal; scores held at the end */
    uint64_t late_bytes, late_records; /* of the second half of the faults' time */
};

/* Fault rates drawn from the seed, as tests and `sim` use them. */
void world_draw(struct world_options *o, uint64_t seed, uint32_t peers, uint64_t duration_ns);
void world_run(const struct world_options *o, struct world_result *r);
#endif
