// What is due when: a heap of deadlines that live inside the things they belong to. Of those due at the same time, the one
// that was set first comes first. Part of the plan: pure.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kiln_timer {
    uint64_t at_ms, number;
    size_t place; // in the heap, from 1; 0: not set
    int kind;     // the owner's
};

struct kiln_timers {
    struct kiln_timer **heap;
    size_t count;
    uint64_t number;
};

void kiln_timers_release(struct kiln_timers *timers);
// Sets it, or sets it anew. false without memory.
bool kiln_timers_set(struct kiln_timers *timers, struct kiln_timer *timer, uint64_t at_ms);
void kiln_timers_clear(struct kiln_timers *timers, struct kiln_timer *timer); // also one that is not set
struct kiln_timer *kiln_timers_first(const struct kiln_timers *timers);       // NULL: none
