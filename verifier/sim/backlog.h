// What an event costs while a number of flights waits: each round is one job on its whole way, and a new one in its place.
#pragma once

#include <stdint.h>

struct kiln_backlog_report {
    uint64_t events, ns;      // of the rounds
    uint64_t enter_ns;        // of all the submissions before them
    char failure[120];        // "" when each round did what it should
};

// `waiting`: flights in the queue during the rounds, of 20 tenants, a tenth of them for two pools.
void kiln_backlog_run(uint32_t waiting, uint32_t rounds, uint64_t (*clock_ns)(void), struct kiln_backlog_report *report);
