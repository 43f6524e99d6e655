/* peer/host.h -- being a good guest: when to compute on a volunteer's machine, how much memory and network to use.
 *
 * Facts    read from /proc and /sys (root: where they are mounted; tests give a folder of their own) and the local clock.
 * Judge    a pure function of limits and facts: the words `status` shows as the reason, or NULL to go on.
 * Only idle  others' use of the CPUs (all but this process) above 20 % holds at once, and until it was below for a minute.
 * Rates    a bucket that may run into debt: it is filled at the rate, holds at most one second of it, and while it is in
 *          debt the net actor neither reads nor sends (TCP tells the other side).  Averages hold; single bursts are bounded
 *          by one event of the loop.
 * Memory   the kernel enforces it (RLIMIT_DATA): what would exceed it is refused, measuring calls shrink.  What the process has
 *          when the limit is set comes on top: it is address space of BLAS and stacks, of which a few MB a thread are used.
 * Threads  one.   Errors  what cannot be read counts as "no reason to stop". */
#ifndef PEER_HOST_H
#define PEER_HOST_H
#include <onebyte/base/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct peer_host_limits {
    uint64_t nice;             /* 0: as started */
    uint64_t memory_mb;        /* 0: none */
    uint64_t upload, download; /* kB/s, 0: none */
    bool only_idle, off_on_battery;
    bool has_hours;
    uint32_t from, to; /* hours of the local day, 0..24; from > to spans midnight */
};

struct peer_host_facts {
    bool on_battery;
    double others;   /* share of all CPUs that other processes use, 0..1; below 0: unknown */
    double quiet_s;  /* since others were last above the limit */
    uint32_t minute; /* of the local day */
};

/* "22-6", "9-17": hours of the day.  ERR_RANGE: not that. */
NODISCARD enum err peer_host_hours(struct peer_host_limits *l, const char *text,
                                   struct err_why *why);
const char *peer_host_judge(const struct peer_host_limits *l, const struct peer_host_facts *f);
/* A battery discharges, and no mains supply is online: root/sys/class/power_supply. */
bool peer_host_on_battery(const char *root);
/* Ticks of all CPUs (busy, total) from root/proc/stat, and of this process; false: cannot be read. */
bool peer_host_ticks(const char *root, uint64_t *busy, uint64_t *total, uint64_t *own);

/* The CPU's temperature in degrees Celsius, the hottest sensor that is known to be the CPU's (root/sys/class/thermal, hwmon);
 * NaN: none here (virtual machines). */
double peer_host_temperature(const char *root);
/* How often any core slowed down because of heat since boot (root/sys/devices/system/cpu); false: this CPU does not say. */
bool peer_host_throttled(const char *root, uint64_t *events);

/* Nice level (every thread this process has by now) and memory limit.  threads: that will compute.  ERR_IO: refused by the system. */
NODISCARD enum err peer_host_apply(const struct peer_host_limits *l, size_t threads, struct err_why *why);

struct peer_bucket { /* bytes that may pass now; below 0: debt */
    double left;
    uint64_t at_ns, seen;
};
/* total: bytes passed so far; a fall is taken for nothing passed.  Returns ns until the debt is paid, 0: go on.  rate in bytes a second, 0: no limit. */
uint64_t peer_bucket_wait(struct peer_bucket *b, uint64_t rate, uint64_t total, uint64_t now_ns);

struct peer_host { /* zeroed, then limits: ready */
    struct peer_host_limits limits;
    struct peer_host_facts facts;
    uint64_t looked_ns, quiet_since_ns, busy, total, own;
    const char *hold;
    struct peer_bucket up, down;
};
/* Looks at most once a second; static text or NULL. */
const char *peer_host_hold(struct peer_host *h, uint64_t now_ns);
#endif
