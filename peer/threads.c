#include "peer/engine.h"
#include <sched.h>
#include <stdio.h>

/* First of the hardware threads that share core `cpu`; cpu itself when the kernel does not say. */
static size_t core_of(size_t cpu)
{
    char path[96];
    size_t first = cpu;
    (void)snprintf(path, sizeof path,
                   "/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "re");
    if (!f)
        return cpu;
    if (fscanf(f, "%zu", &first) != 1)
        first = cpu;
    fclose(f);
    return first;
}

size_t peer_threads_most(void)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return LIMIT_THREADS;
    const size_t n = (size_t)CPU_COUNT(&allowed);
    return n == 0 ? 1 : n > LIMIT_THREADS ? LIMIT_THREADS : n;
}

uint64_t peer_memory_available(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            break;
    fclose(f);
    return (uint64_t)kib * 1024;
}

size_t peer_threads_default(void)
{
    cpu_set_t allowed, cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return 1;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        const size_t core = CPU_ISSET(cpu, &allowed) ? core_of(cpu) : CPU_SETSIZE;
        if (core < CPU_SETSIZE)
            CPU_SET(core, &cores);
    }
    const size_t n = (size_t)CPU_COUNT(&cores);
    return n == 0 ? 1 : n > LIMIT_THREADS ? LIMIT_THREADS : n;
}
