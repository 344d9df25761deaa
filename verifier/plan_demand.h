// When to say that jobs wait and no credit fits: at most every KILN_PLAN_DEMAND_MS, and seldomer while that brings nothing.
// Part of the plan: pure.
#pragma once

#include "verifier/plan_actions.h"
#include "verifier/plan_queue.h"

struct kiln_demand_clock {
    uint64_t said_ms, pause_ms, next_pause_ms; // the pause after what was said, and that after what is said next
    bool said;
};

void kiln_demand_renew(struct kiln_demand_clock *clock); // something has changed: no need to wait for longer than the least
// DEMAND when it is due: for the partition in which most wait.
void kiln_demand_say(struct kiln_demand_clock *clock, const struct kiln_queue *queue, uint64_t now_ms,
                     struct kiln_plan_out *out);
uint64_t kiln_demand_due_ms(const struct kiln_demand_clock *clock, const struct kiln_queue *queue); // UINT64_MAX: nobody waits
