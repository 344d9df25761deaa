// Time: monotonic for deadlines, wall clock for people. A deadline is an absolute monotonic time in milliseconds.
// Decision logic takes `now_ms` as an argument instead of calling this.
#pragma once

#include <stdint.h>

uint64_t kiln_clock_ms(void); // monotonic
uint64_t kiln_clock_us(void); // monotonic
uint64_t kiln_clock_wall_ms(void); // since 1970-01-01 UTC
// Milliseconds left until the deadline, for poll(2): 0 when passed, at most INT_MAX.
int kiln_clock_left_ms(uint64_t deadline_ms);
