/* peer/clock.h -- time that never jumps, for waiting and for measuring. */
#ifndef PEER_CLOCK_H
#define PEER_CLOCK_H
#include <stdint.h>
#include <time.h>

static inline double peer_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline int64_t peer_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
#endif
