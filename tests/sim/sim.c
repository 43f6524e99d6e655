/* sim: the seeded simulator.  sim SEED [PEERS [HOURS [SEEDS]]]: runs SEEDS seeds from SEED on; a failing seed prints the
 * command that replays it.  sim swarm PEERS RECORDS: no faults, the figures. */
#include "world.h"
#include <onebyte/net/id.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double peak_mb(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024;
}

static int swarm(uint32_t peers, uint64_t records, uint32_t segment, uint32_t degree)
{
    struct world_result r;
    const double start = seconds();
    struct world_options o = {.seed = 1,
                              .peers = peers,
                              .degree = degree,
                              .records = records,
                              .segment_max = segment,
                              .k = 1,
                              .delay_ns = 50000000,
                              .heal_ns = UINT64_C(600000000000),
                              .measure = peers <= 128};
    o.seal_ns = UINT64_C(60000000) * peers; /* the same records per second, whatever the number of peers */
    const double segments = (double)records / (segment / 2.0 + 0.5) + peers; /* each feed's first one is short */
    o.duration_ns = (uint64_t)(1.05 * segments / peers * (double)o.seal_ns) + UINT64_C(30000000000);
    world_run(&o, &r);
    printf("{\"peers\": %u, \"records\": %" PRIu64 ", \"segments\": %" PRIu64
           ", \"virtual_s\": %.1f, \"wall_s\": %.1f, \"peak_mb\": %.0f, "
           "\"frames\": %" PRIu64
           ", \"bytes_per_peer_per_virtual_s\": %.0f, \"bytes_per_record_and_peer\": %.3f, "
           "\"second_half\": %.3f, \"duplicates_per_segment_and_peer\": %.3f, "
           "\"heal_s\": %.1f, \"p50_delays\": %.2f, \"p99_delays\": %.2f, \"max_delays\": %.2f, "
           "\"ok\": %s}\n",
           peers, r.records, r.segments, (double)r.virtual_ns * 1e-9, seconds() - start, peak_mb(),
           r.frames, (double)r.bytes / peers / ((double)r.virtual_ns * 1e-9),
           (double)r.bytes / peers / (double)r.records,
           (double)r.late_bytes / peers / (double)(r.late_records + 1),
           (double)r.duplicates / peers / (double)r.segments, (double)r.heal_took_ns * 1e-9,
           (double)r.latency_p50_ns / 5e7, (double)r.latency_p99_ns / 5e7,
           (double)r.latency_max_ns / 5e7, r.ok ? "true" : "false");
    if (!r.ok)
        printf("%s\n", r.what);
    return r.ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (net_start() != ERR_OK)
        return 1;
    if (argc > 1 && strcmp(argv[1], "swarm") == 0)
        return swarm(argc > 2 ? (uint32_t)atoi(argv[2]) : 64,
                     argc > 3 ? strtoull(argv[3], NULL, 10) : 100000,
                     argc > 4 ? (uint32_t)atoi(argv[4]) : 511,
                     argc > 5 ? (uint32_t)atoi(argv[5]) : 4);
    const uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    const uint32_t peers = argc > 2 ? (uint32_t)atoi(argv[2]) : 30;
    const double hours = argc > 3 ? atof(argv[3]) : 0.05;
    const uint64_t seeds = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    const double start = seconds();
    uint64_t failures = 0;
    for (uint64_t s = seed; s < seed + seeds; s++) {
        struct world_options o;
        struct world_result r;
        world_draw(&o, s, peers, (uint64_t)(hours * 3600e9));
        world_run(&o, &r);
        if (!r.ok || seeds == 1)
            printf("seed %" PRIu64 ": %s; %" PRIu64 " events, %" PRIu64 " frames, %" PRIu64
                   " records, %" PRIu64 " cuts, %" PRIu64 " searches, %" PRIu64 " checkpoints, %" PRIu64
                   " states rebuilt, agreed %.1f s after healing, digest %016" PRIx64 "\n",
                   s, r.ok ? "ok" : r.what, r.events, r.frames, r.records, r.cuts, r.searches, r.checkpoints, r.rebuilt,
                   (double)r.heal_took_ns * 1e-9, r.digest);
        if (!r.ok)
            printf("replay: make sim SEED=%" PRIu64 " PEERS=%u HOURS=%g\n", s, peers, hours);
        failures += !r.ok;
    }
    printf("sim: %" PRIu64 " seeds from %" PRIu64 ", %u peers, %g h: %" PRIu64
           " failed; %.1f s, %.0f MB\n",
           seeds, seed, peers, hours, failures, seconds() - start, peak_mb());
    return failures ? 1 : 0;
}
