// Executors of the simulated fleet: free slots offer credits, work is done in silence or with heartbeats, or not at all.
#include "verifier/sim/fleet_world.h"

#define CREDIT_MS 4000u
#define SETTLE_MS 300u // a fresh offer is not moved elsewhere
#define RUN_MS_MEAN 200u // so that load means something

static bool is_current(const struct kiln_fleet_executor *executor, const struct kiln_fleet_message *message) {
    return executor->alive && executor->slots[message->slot].token == message->token;
}

// To whoever owns the partition when it arrives: late, twice, or never.
static void say(struct kiln_fleet *fleet, struct kiln_fleet_message message) {
    message.kind = KILN_FLEET_TO_OWNER;
    if (kiln_fleet_chance(fleet, 2))
        return;
    kiln_fleet_send(fleet, message, 1 + kiln_fleet_below(fleet, 5));
    if (kiln_fleet_chance(fleet, 3))
        kiln_fleet_send(fleet, message, kiln_fleet_below(fleet, 2000));
}

static void offer(struct kiln_fleet *fleet, uint32_t index, uint32_t slot_index, uint32_t partition) {
    struct kiln_fleet_executor *executor = &fleet->executors[index];
    struct kiln_fleet_slot *slot = &executor->slots[slot_index];
    if (fleet->credits_count >= fleet->credits_max) {
        kiln_fleet_fail(fleet, "more credits than the simulator has room for", fleet->credits_count);
        return;
    }
    slot->credit = fleet->credits_count++;
    slot->until_ms = fleet->now_ms + CREDIT_MS;
    slot->token++;
    say(fleet, (struct kiln_fleet_message){.event = KILN_PLAN_CREDIT, .partition = partition, .executor = index,
                                           .generation = executor->generation, .credit = slot->credit,
                                           .until_ms = slot->until_ms - 500});
    kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_OFFER, .executor = index, .slot = slot_index,
                                                       .token = slot->token}, CREDIT_MS);
}

// The credit ran out, or the slot is new.
static void offer_anywhere(struct kiln_fleet *fleet, uint32_t index, uint32_t slot) {
    struct kiln_fleet_executor *executor = &fleet->executors[index];
    executor->next_partition = (executor->next_partition + 1) % fleet->options->partitions;
    offer(fleet, index, slot, executor->next_partition);
}

static void on_offer(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    const struct kiln_fleet_executor *executor = &fleet->executors[message->executor];
    if (is_current(executor, message) && !executor->slots[message->slot].busy && !executor->revoked)
        offer_anywhere(fleet, message->executor, message->slot);
}

static void on_demanded(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    const struct kiln_fleet_executor *executor = &fleet->executors[message->executor];
    uint32_t wanted = message->count;
    for (uint32_t slot = 0; executor->alive && !executor->revoked && slot < fleet->options->slots && wanted; slot++) {
        if (executor->slots[slot].busy || executor->slots[slot].until_ms > fleet->now_ms + CREDIT_MS - SETTLE_MS)
            continue;
        wanted--;
        offer(fleet, message->executor, slot, message->partition);
    }
}

static struct kiln_fleet_slot *free_slot_of(struct kiln_fleet *fleet, const struct kiln_fleet_message *work, uint32_t *index) {
    struct kiln_fleet_executor *executor = &fleet->executors[work->executor];
    for (*index = 0; *index < fleet->options->slots; ++*index) {
        struct kiln_fleet_slot *slot = &executor->slots[*index];
        if (!slot->busy && slot->credit == work->credit && slot->until_ms > fleet->now_ms)
            return slot;
    }
    return NULL;
}

static void on_work(struct kiln_fleet *fleet, const struct kiln_fleet_message *work) {
    const struct kiln_fleet_executor *executor = &fleet->executors[work->executor];
    if (!executor->alive || executor->generation != work->generation)
        return;
    uint32_t index;
    struct kiln_fleet_slot *slot = free_slot_of(fleet, work, &index);
    if (!slot) {
        struct kiln_fleet_message no = *work;
        no.event = KILN_PLAN_DECLINED;
        say(fleet, no);
        return;
    }
    slot->busy = true;
    slot->token++;
    slot->job = work->job;
    slot->action = work->action;
    slot->attempt = work->attempt;
    fleet->report->executed_actions += !fleet->actions[work->action].executed;
    fleet->actions[work->action].executed = true;
    struct kiln_fleet_message next = {.kind = KILN_FLEET_BEAT, .executor = work->executor, .slot = index, .token = slot->token};
    if (!kiln_fleet_chance(fleet, 2)) // else it works in silence
        kiln_fleet_send(fleet, next, KILN_FLEET_LEASE_MS / 3);
    next.kind = KILN_FLEET_FINISH;
    unsigned run_ms = RUN_MS_MEAN / 2 + kiln_fleet_below(fleet, RUN_MS_MEAN);
    kiln_fleet_send(fleet, next, kiln_fleet_chance(fleet, 2) ? run_ms * 20 : run_ms); // some take long
}

static struct kiln_fleet_message of_slot(const struct kiln_fleet *fleet, const struct kiln_fleet_message *message,
                                         enum kiln_plan_event_kind event) {
    const struct kiln_fleet_executor *executor = &fleet->executors[message->executor];
    const struct kiln_fleet_slot *slot = &executor->slots[message->slot];
    return (struct kiln_fleet_message){.event = event, .partition = kiln_fleet_partition_of(fleet, slot->action),
                                       .executor = message->executor, .generation = executor->generation,
                                       .job = slot->job, .action = slot->action, .attempt = slot->attempt,
                                       .credit = slot->credit};
}

static void on_beat(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    if (!is_current(&fleet->executors[message->executor], message))
        return;
    say(fleet, of_slot(fleet, message, KILN_PLAN_LEASE));
    kiln_fleet_send(fleet, *message, KILN_FLEET_LEASE_MS / 3);
}

// A result is its action's number plus one, unless the action is fickle; a liar says something else where it is checked.
static void on_finish(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    struct kiln_fleet_executor *executor = &fleet->executors[message->executor];
    if (!is_current(executor, message))
        return;
    struct kiln_fleet_slot *slot = &executor->slots[message->slot];
    struct kiln_fleet_message candidate = of_slot(fleet, message, KILN_PLAN_CANDIDATE);
    const struct kiln_fleet_action *action = &fleet->actions[slot->action];
    candidate.digest = slot->action + 1;
    if (action->fickle || (executor->liar && action->agreement > 1))
        candidate.digest = 0x80000000u | kiln_fleet_below(fleet, 0x7fffffff);
    say(fleet, candidate);
    slot->busy = false;
    slot->token++;
    if (!executor->revoked) // back to where the job came from
        offer(fleet, message->executor, message->slot, candidate.partition);
}

static void on_rise(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    struct kiln_fleet_executor *executor = &fleet->executors[message->executor];
    if (executor->alive || executor->revoked)
        return;
    executor->alive = true;
    executor->generation++;
    for (uint32_t slot = 0; slot < fleet->options->slots; slot++) {
        executor->slots[slot].busy = false;
        offer_anywhere(fleet, message->executor, slot);
    }
    if (fleet->now_ms < fleet->calm_ms && fleet->options->trouble)
        kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_DIE, .executor = message->executor},
                        kiln_fleet_life_ms(fleet, 300000));
}

static void on_die(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    struct kiln_fleet_executor *executor = &fleet->executors[message->executor];
    if (!executor->alive || fleet->now_ms >= fleet->calm_ms)
        return;
    executor->alive = false;
    for (uint32_t slot = 0; slot < fleet->options->slots; slot++)
        executor->slots[slot].token++;
    fleet->report->executor_deaths++;
    kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_RISE, .executor = message->executor},
                    100 + kiln_fleet_below(fleet, 5000));
}

void kiln_fleet_executor_hears(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    switch (message->kind) {
    case KILN_FLEET_OFFER: on_offer(fleet, message); break;
    case KILN_FLEET_DEMANDED: on_demanded(fleet, message); break;
    case KILN_FLEET_WORK: on_work(fleet, message); break;
    case KILN_FLEET_BEAT: on_beat(fleet, message); break;
    case KILN_FLEET_FINISH: on_finish(fleet, message); break;
    case KILN_FLEET_RISE: on_rise(fleet, message); break;
    case KILN_FLEET_DIE: on_die(fleet, message); break;
    default: break;
    }
}
