#include "lib/base/clock.h"

#include <limits.h>
#include <time.h>

static uint64_t read_us(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

uint64_t kiln_clock_us(void) { return read_us(CLOCK_MONOTONIC); }

uint64_t kiln_clock_ms(void) { return read_us(CLOCK_MONOTONIC) / 1000u; }

uint64_t kiln_clock_wall_ms(void) { return read_us(CLOCK_REALTIME) / 1000u; }

int kiln_clock_left_ms(uint64_t deadline_ms) {
    uint64_t now = kiln_clock_ms();
    if (now >= deadline_ms)
        return 0;
    uint64_t left = deadline_ms - now;
    return left > INT_MAX ? INT_MAX : (int)left;
}
