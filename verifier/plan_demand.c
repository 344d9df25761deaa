#include "verifier/plan_demand.h"

#define PAUSE_MS_MAX (16 * KILN_PLAN_DEMAND_MS)

void kiln_demand_renew(struct kiln_demand_clock *clock) {
    clock->pause_ms = clock->next_pause_ms = KILN_PLAN_DEMAND_MS;
}

uint64_t kiln_demand_due_ms(const struct kiln_demand_clock *clock, const struct kiln_queue *queue) {
    if (!queue->flights_count)
        return UINT64_MAX;
    return clock->said ? clock->said_ms + clock->pause_ms : 0;
}

void kiln_demand_say(struct kiln_demand_clock *clock, const struct kiln_queue *queue, uint64_t now_ms,
                     struct kiln_plan_out *out) {
    if (queue->stirred || kiln_demand_due_ms(clock, queue) > now_ms)
        return;
    struct kiln_plan_action *action = kiln_plan_emit(out, KILN_PLAN_DEMAND, NULL);
    if (!action)
        return;
    for (uint32_t i = 1; i < KILN_PLAN_PARTITIONS_MAX; i++) {
        if (queue->by_partition[i] > queue->by_partition[action->partition])
            action->partition = i;
    }
    action->count = (uint32_t)queue->flights_count;
    clock->said = true;
    clock->said_ms = now_ms;
    clock->pause_ms = clock->next_pause_ms;
    clock->next_pause_ms = clock->pause_ms * 2 < PAUSE_MS_MAX ? clock->pause_ms * 2 : PAUSE_MS_MAX;
}
