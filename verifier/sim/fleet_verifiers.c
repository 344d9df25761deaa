// Verifiers of the simulated fleet: each with a plan of its own for the partitions it owns. What a docket would do with the
// plan's actions is done here, and held against what the world knows.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verifier/sim/fleet_world.h"

#define WAKE_MS_MAX 4000u // until the group notices that a verifier died

static void step(struct kiln_fleet *fleet, uint32_t index, const struct kiln_plan_event *event,
                 const struct kiln_fleet_message *occasion);

static struct kiln_plan_key key_of(uint32_t action) {
    struct kiln_plan_key key = {.scope = "local", .action = {{1}}};
    memcpy(key.action.bytes + 4, &action, sizeof action);
    return key;
}

static uint32_t action_of(const struct kiln_plan_key *key) {
    uint32_t action;
    memcpy(&action, key->action.bytes + 4, sizeof action);
    return action;
}

static struct kiln_digest digest_of(uint32_t number) {
    struct kiln_digest digest = {{1}};
    memcpy(digest.bytes + 4, &number, sizeof number);
    return digest;
}

static uint32_t number_of(const struct kiln_digest *digest) {
    uint32_t number;
    memcpy(&number, digest->bytes + 4, sizeof number);
    return number;
}

static uint32_t executor_of(const char *name) { return (uint32_t)strtoul(name + 1, NULL, 10); }

void kiln_fleet_keep(struct kiln_fleet *fleet, uint32_t number) {
    struct kiln_fleet_job *job = &fleet->jobs[number];
    struct kiln_fleet_log *log = &fleet->logs[kiln_fleet_partition_of(fleet, job->action)];
    if (job->kept)
        return;
    job->kept = true;
    job->kept_prev = 0;
    job->kept_next = log->kept_first;
    if (log->kept_first)
        fleet->jobs[log->kept_first - 1].kept_prev = number + 1;
    log->kept_first = number + 1;
}

void kiln_fleet_forget(struct kiln_fleet *fleet, uint32_t number) {
    struct kiln_fleet_job *job = &fleet->jobs[number];
    if (!job->kept)
        return;
    job->kept = false;
    if (job->kept_prev)
        fleet->jobs[job->kept_prev - 1].kept_next = job->kept_next;
    else
        fleet->logs[kiln_fleet_partition_of(fleet, job->action)].kept_first = job->kept_next;
    if (job->kept_next)
        fleet->jobs[job->kept_next - 1].kept_prev = job->kept_prev;
}

// It waits for nothing any more: so says a tombstone, which may be lost with its writer.
static void leave(struct kiln_fleet *fleet, uint32_t index, uint32_t number) {
    struct kiln_fleet_job *job = &fleet->jobs[number];
    if (!(job->entered >> index & 1))
        kiln_fleet_fail(fleet, "somebody was spoken to who does not wait, or twice", number);
    job->entered &= ~(1u << index);
    kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_FORGET, .job = number, .verifier = index,
                                                       .token = fleet->verifiers[index].life}, kiln_fleet_below(fleet, 20));
}

static void on_want(struct kiln_fleet *fleet, uint32_t index, const struct kiln_plan_action *action) {
    uint32_t job = kiln_sim_id_major(&action->jobs[0]);
    if (!(fleet->jobs[job].entered >> index & 1))
        kiln_fleet_fail(fleet, "content is asked of somebody who does not wait", job);
    kiln_fleet_told_want(fleet, job);
}

static void check_dispatch(struct kiln_fleet *fleet, uint32_t index, const struct kiln_plan_action *action,
                           const struct kiln_fleet_action *of, const struct kiln_fleet_executor *executor) {
    uint32_t credit = kiln_sim_id_major(&action->credit);
    uint16_t user = (uint16_t)(fleet->verifiers[index].life * KILN_FLEET_VERIFIERS_MAX + index);
    if (fleet->credits_used[credit] == user)
        kiln_fleet_fail(fleet, "a credit was used twice", credit);
    fleet->credits_used[credit] = user;
    if (!of->content)
        kiln_fleet_fail(fleet, "a job was dispatched without its content", action_of(&action->key));
    if (!action->attempt || action->attempt > KILN_PLAN_ATTEMPTS_MAX + of->agreement - 1u)
        kiln_fleet_fail(fleet, "attempts are not bounded", action->attempt);
    if (strcmp(action->pool, executor->pool) != 0)
        kiln_fleet_fail(fleet, "the pool is not the executor's", action->attempt);
}

static void on_dispatch(struct kiln_fleet *fleet, uint32_t index, const struct kiln_plan_action *action) {
    uint32_t number = action_of(&action->key), executor = executor_of(action->executor);
    struct kiln_fleet_action *of = &fleet->actions[number];
    check_dispatch(fleet, index, action, of, &fleet->executors[executor]);
    of->kept = true;
    of->attempt = (uint8_t)action->attempt;
    of->troubles = (uint8_t)action->troubles;
    of->job = kiln_sim_id_major(&action->job);
    of->executor = executor;
    of->generation = kiln_sim_id_minor(&action->incarnation);
    of->dispatched_ms = fleet->now_ms;
    fleet->report->dispatches++;
    if (kiln_fleet_chance(fleet, 2))
        return; // lost on its way
    kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_WORK, .partition = action->partition,
                    .executor = executor, .job = of->job, .action = number, .attempt = action->attempt, .credit = kiln_sim_id_major(&action->credit),
                    .generation = of->generation}, 1 + kiln_fleet_below(fleet, 5));
}

// A docket works while the plan goes on: what comes of it is told at once, or later.
static void tell(struct kiln_fleet *fleet, uint32_t index, struct kiln_fleet_message outcome) {
    outcome.kind = KILN_FLEET_LATER;
    outcome.verifier = index;
    outcome.token = fleet->verifiers[index].life;
    outcome.released = fleet->actions[outcome.action].released[index];
    kiln_fleet_send(fleet, outcome, kiln_dice_chance(&fleet->dice, 50) ? 0 : kiln_fleet_below(fleet, 100));
}

static void on_judge(struct kiln_fleet *fleet, uint32_t index, const struct kiln_plan_action *action,
                     const struct kiln_fleet_message *candidate) {
    struct kiln_fleet_message outcome = {.event = KILN_PLAN_JUDGED, .action = action_of(&action->key),
                                         .attempt = action->attempt, .verdict = KILN_PLAN_STORED,
                                         .digest = candidate->digest};
    if (kiln_fleet_chance(fleet, 2))
        outcome.verdict = KILN_PLAN_AGAIN;
    else if (kiln_fleet_chance(fleet, 1))
        outcome.verdict = KILN_PLAN_LOCALLY;
    tell(fleet, index, outcome);
}

static void check_runs(struct kiln_fleet *fleet, const struct kiln_plan_action *action, unsigned agreement) {
    if (action->runs_count < agreement)
        kiln_fleet_fail(fleet, "too few agree", action->runs_count);
    for (size_t i = 0; i < action->runs_count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (!strcmp(action->runs[i].pool, action->runs[j].pool) ||
                !strcmp(action->runs[i].executor, action->runs[j].executor))
                kiln_fleet_fail(fleet, "a pool agrees with itself", action_of(&action->key));
            if (!kiln_digest_equal(&action->runs[i].digest, &action->runs[j].digest))
                kiln_fleet_fail(fleet, "what is stored as equal differs", action_of(&action->key));
        }
    }
}

static void on_store(struct kiln_fleet *fleet, uint32_t index, const struct kiln_plan_action *action) {
    struct kiln_fleet_action *of = &fleet->actions[action_of(&action->key)];
    uint32_t digest = action->runs_count ? number_of(&action->runs[0].digest) : 0;
    check_runs(fleet, action, of->agreement);
    if (of->agreement > 1 && digest != action_of(&action->key) + 1)
        kiln_fleet_fail(fleet, "a wrong result is stored although pools had to agree", action_of(&action->key));
    tell(fleet, index, (struct kiln_fleet_message){.event = KILN_PLAN_FILED, .action = action_of(&action->key),
                                                   .digest = digest, .verdict = kiln_fleet_chance(fleet, 1)
                                                       ? (kiln_dice_chance(&fleet->dice, 50) ? KILN_PLAN_AGAIN : KILN_PLAN_LOCALLY)
                                                       : KILN_PLAN_STORED});
}

// Two at once while a partition moves: then what the one finds missing the other may have dispatched already.
static bool is_elsewhere_too(const struct kiln_fleet *fleet, uint32_t index, const struct kiln_plan_key *key) {
    for (uint32_t i = 0; i < fleet->options->verifiers; i++) {
        if (i != index && fleet->verifiers[i].plan && kiln_plan_state_of(fleet->verifiers[i].plan, key) != KILN_PLAN_GONE)
            return true;
    }
    return false;
}

static void on_check(struct kiln_fleet *fleet, uint32_t index, const struct kiln_plan_action *action) {
    struct kiln_fleet_action *of = &fleet->actions[action_of(&action->key)];
    if (kiln_dice_chance(&fleet->dice, 20) && !is_elsewhere_too(fleet, index, &action->key))
        of->content = false;
    tell(fleet, index, (struct kiln_fleet_message){.event = KILN_PLAN_CHECKED, .action = action_of(&action->key)});
}

static void on_diverged(struct kiln_fleet *fleet, const struct kiln_plan_action *action) {
    fleet->report->diverged++;
    for (size_t i = 0; i < action->runs_count; i++) {
        if (action->runs[i].part != KILN_PLAN_DISSENTS)
            continue;
        fleet->report->dissents++;
        if (!fleet->executors[executor_of(action->runs[i].executor)].liar)
            kiln_fleet_fail(fleet, "an honest executor is named", action_of(&action->key));
    }
}

static void answer(struct kiln_fleet *fleet, uint32_t index, const struct kiln_plan_action *action, enum kiln_fleet_end end) {
    uint32_t stored = fleet->actions[action_of(&action->key)].stored;
    if (end == KILN_FLEET_RESULT && !stored)
        kiln_fleet_fail(fleet, "a result was announced that nobody stored", action_of(&action->key));
    if (end != KILN_FLEET_RESULT && !action->reason)
        kiln_fleet_fail(fleet, "no reason was given", action_of(&action->key));
    for (size_t i = 0; i < action->jobs_count; i++) {
        uint32_t job = kiln_sim_id_major(&action->jobs[i]);
        leave(fleet, index, job);
        kiln_fleet_told(fleet, job, end, stored);
    }
}

static void on_demand(struct kiln_fleet *fleet, const struct kiln_plan_action *action) {
    fleet->report->demands++;
    for (uint32_t i = 0; i < fleet->options->executors; i++)
        kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_DEMANDED, .executor = i,
                                                           .partition = action->partition, .count = action->count},
                        1 + kiln_fleet_below(fleet, 10));
}

static void carry_out(struct kiln_fleet *fleet, uint32_t index, const struct kiln_plan_action *action,
                      const struct kiln_fleet_message *occasion) {
    switch (action->kind) {
    case KILN_PLAN_WANT: on_want(fleet, index, action); break;
    case KILN_PLAN_DISPATCH: on_dispatch(fleet, index, action); break;
    case KILN_PLAN_JUDGE: on_judge(fleet, index, action, occasion); break;
    case KILN_PLAN_DISCARD: fleet->report->discards++; break;
    case KILN_PLAN_CHECK: on_check(fleet, index, action); break;
    case KILN_PLAN_STORE: on_store(fleet, index, action); break;
    case KILN_PLAN_DIVERGED: on_diverged(fleet, action); break;
    case KILN_PLAN_DEAD: fleet->report->dead++; break;
    case KILN_PLAN_DEMAND: on_demand(fleet, action); break;
    case KILN_PLAN_REFUSE: answer(fleet, index, action, KILN_FLEET_REFUSED); break;
    case KILN_PLAN_ANSWER:
        answer(fleet, index, action, action->verdict == KILN_PLAN_STORED ? KILN_FLEET_RESULT : KILN_FLEET_LOCALLY);
        break;
    case KILN_PLAN_RELEASE:
        fleet->actions[action_of(&action->key)].released[index]++;
        if (!fleet->verifiers[index].yielding)
            fleet->actions[action_of(&action->key)].kept = false;
        break;
    }
}

static void set_tick(struct kiln_fleet *fleet, uint32_t index) {
    struct kiln_fleet_verifier *verifier = &fleet->verifiers[index];
    uint64_t due_ms = kiln_plan_next_ms(verifier->plan);
    if (due_ms >= verifier->tick_ms)
        return;
    verifier->tick_ms = due_ms;
    kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_TICK, .verifier = index, .token = verifier->life},
                    due_ms > fleet->now_ms ? (unsigned)(due_ms - fleet->now_ms) : 0);
}

static void step(struct kiln_fleet *fleet, uint32_t index, const struct kiln_plan_event *event,
                 const struct kiln_fleet_message *occasion) {
    struct kiln_fleet_verifier *verifier = &fleet->verifiers[index];
    struct kiln_plan_actions actions = {0};
    uint64_t began_ns = fleet->clock_ns ? fleet->clock_ns() : 0;
    if (kiln_plan_step(verifier->plan, event, fleet->now_ms, &actions, NULL))
        kiln_fleet_fail(fleet, "no memory", 0);
    fleet->report->step_ns += fleet->clock_ns ? fleet->clock_ns() - began_ns : 0;
    fleet->report->steps++;
    if (kiln_plan_flights(verifier->plan) > fleet->report->flights_max)
        fleet->report->flights_max = kiln_plan_flights(verifier->plan);
    for (size_t i = 0; i < actions.count; i++)
        carry_out(fleet, index, &actions.list[i], occasion);
    kiln_plan_actions_release(&actions);
    set_tick(fleet, index);
}

// Into the plan, unless the vault has the result.
static void enter(struct kiln_fleet *fleet, uint32_t index, uint32_t number, enum kiln_plan_event_kind kind) {
    struct kiln_fleet_job *job = &fleet->jobs[number];
    const struct kiln_fleet_action *of = &fleet->actions[job->action];
    if (of->stored) {
        fleet->report->known++;
        const struct kiln_plan_key key = key_of(job->action);
        if (job->entered >> index & 1 && kiln_plan_state_of(fleet->verifiers[index].plan, &key) != KILN_PLAN_GONE)
            return; // it waits for a flight that goes on: that answers it
        kiln_fleet_told(fleet, number, KILN_FLEET_RESULT, of->stored);
        kiln_fleet_forget(fleet, number);
        return;
    }
    char tenant[16], agent[16];
    snprintf(tenant, sizeof tenant, "t%u", job->agent % fleet->options->tenants);
    snprintf(agent, sizeof agent, "a%u", job->agent);
    job->entered |= 1u << index;
    kiln_fleet_keep(fleet, number);
    step(fleet, index,
         &(struct kiln_plan_event){.kind = kind, .key = key_of(job->action), .job = kiln_sim_id('j', number, 0),
                                   .partition = kiln_fleet_partition_of(fleet, job->action), .tenant = tenant,
                                   .agent = agent, .until_ms = job->deadline_ms, .lacking = !of->content,
                                   .agreement = of->agreement}, NULL);
}

static void take_record(struct kiln_fleet *fleet, uint32_t index, const struct kiln_fleet_entry *entry) {
    struct kiln_fleet_job *job = &fleet->jobs[entry->job];
    struct kiln_plan_event event = {.kind = (enum kiln_plan_event_kind)entry->kind, .key = key_of(job->action),
                                    .job = kiln_sim_id('j', entry->job, 0), .reason = "other bytes"};
    switch (event.kind) {
    case KILN_PLAN_SUBMITTED:
        enter(fleet, index, entry->job, event.kind);
        return;
    case KILN_PLAN_UPLOADED:
        if (job->entered >> index & 1)
            fleet->actions[job->action].content = true;
        break;
    case KILN_PLAN_CANCELLED:
        if (job->entered >> index & 1)
            leave(fleet, index, entry->job);
        break;
    default: break;
    }
    step(fleet, index, &event, NULL);
}

static void on_record(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    struct kiln_fleet_log *log = &fleet->logs[message->partition];
    while (log->owner != KILN_FLEET_NOBODY && log->taken < log->count && !fleet->report->failure[0]) {
        struct kiln_fleet_entry entry = log->entries[log->taken++];
        take_record(fleet, log->owner, &entry);
        if (kiln_dice_chance(&fleet->dice, 30))
            log->committed = log->taken;
    }
}

static void on_owner(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    uint32_t owner = fleet->logs[message->partition].owner;
    if (owner == KILN_FLEET_NOBODY) { // it is still there when the next owner reads
        kiln_fleet_send(fleet, *message, 500);
        return;
    }
    const struct kiln_fleet_executor *executor = &fleet->executors[message->executor];
    if (executor->revoked) // its signature is refused
        return;
    const struct kiln_plan_event event = {
        .kind = message->event, .key = key_of(message->action), .job = kiln_sim_id('j', message->job, 0),
        .attempt = message->attempt, .executor = executor->name, .pool = executor->pool,
        .incarnation = kiln_sim_id('i', message->executor, message->generation),
        .credit = kiln_sim_id('c', message->credit, 0), .until_ms = message->until_ms};
    fleet->report->declines += message->event == KILN_PLAN_DECLINED;
    step(fleet, owner, &event, message);
}

static void restore(struct kiln_fleet *fleet, uint32_t index, uint32_t partition) {
    uint32_t next;
    for (uint32_t at = fleet->logs[partition].kept_first; at; at = next) {
        const struct kiln_fleet_job *job = &fleet->jobs[at - 1];
        const struct kiln_fleet_action *of = &fleet->actions[job->action];
        next = job->kept_next;
        if (of->kept && !of->stored) {
            const struct kiln_fleet_executor *executor = &fleet->executors[of->executor];
            fleet->report->restored_runs++;
            step(fleet, index,
                 &(struct kiln_plan_event){.kind = KILN_PLAN_RESTORE_FLIGHT, .key = key_of(job->action),
                                           .partition = partition, .job = kiln_sim_id('j', of->job, 0),
                                           .attempt = of->attempt, .troubles = of->troubles, .agreement = of->agreement,
                                           .executor = executor->revoked ? NULL : executor->name, .pool = executor->pool,
                                           .incarnation = kiln_sim_id('i', of->executor, of->generation),
                                           .until_ms = of->dispatched_ms + 2 * KILN_FLEET_LEASE_MS}, NULL);
        }
        fleet->report->restored_waiters++;
        enter(fleet, index, at - 1, KILN_PLAN_RESTORE_WAITER);
    }
}

static uint32_t choose_owner(struct kiln_fleet *fleet) {
    uint32_t alive[KILN_FLEET_VERIFIERS_MAX], count = 0;
    for (uint32_t i = 0; i < fleet->options->verifiers; i++) {
        if (fleet->verifiers[i].plan)
            alive[count++] = i;
    }
    return count ? alive[kiln_dice_below(&fleet->dice, count)] : KILN_FLEET_NOBODY;
}

// What waits is in kiln.state.
static void unmark(struct kiln_fleet *fleet, uint32_t index, uint32_t partition) {
    for (uint32_t at = fleet->logs[partition].kept_first; at; at = fleet->jobs[at - 1].kept_next)
        fleet->jobs[at - 1].entered &= ~(1u << index);
}

static void yield_partition(struct kiln_fleet *fleet, uint32_t index, uint32_t partition) {
    struct kiln_fleet_verifier *verifier = &fleet->verifiers[index];
    verifier->yielding = true;
    unmark(fleet, index, partition);
    step(fleet, index, &(struct kiln_plan_event){.kind = KILN_PLAN_LOST, .partition = partition}, NULL);
    verifier->yielding = false;
}

// The group gives the partition to somebody. Its former owner, when it lives, may hear of that later.
static void on_assign(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    struct kiln_fleet_log *log = &fleet->logs[message->partition];
    uint32_t former = log->owner, owner = choose_owner(fleet);
    if (owner == KILN_FLEET_NOBODY) {
        kiln_fleet_send(fleet, *message, WAKE_MS_MAX);
        return;
    }
    if (former == owner)
        return;
    fleet->report->moves++;
    if (former != KILN_FLEET_NOBODY) {
        struct kiln_fleet_message gone = {.kind = KILN_FLEET_YIELD, .partition = message->partition, .verifier = former,
                                          .token = fleet->verifiers[former].life};
        if (kiln_fleet_chance(fleet, 30))
            kiln_fleet_send(fleet, gone, kiln_fleet_below(fleet, 1500));
        else
            yield_partition(fleet, former, message->partition);
    }
    log->owner = owner;
    log->taken = log->committed;
    step(fleet, owner, &(struct kiln_plan_event){.kind = KILN_PLAN_GAINED, .partition = message->partition}, NULL);
    restore(fleet, owner, message->partition);
    step(fleet, owner, &(struct kiln_plan_event){.kind = KILN_PLAN_RESTORED, .partition = message->partition}, NULL);
    on_record(fleet, message);
}

static void on_yield(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    const struct kiln_fleet_verifier *verifier = &fleet->verifiers[message->verifier];
    if (verifier->plan && verifier->life == message->token && fleet->logs[message->partition].owner != message->verifier)
        yield_partition(fleet, message->verifier, message->partition);
}

static void send_crash(struct kiln_fleet *fleet, uint32_t index) {
    if (fleet->now_ms < fleet->calm_ms && fleet->options->trouble)
        kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_CRASH, .verifier = index},
                        kiln_fleet_life_ms(fleet, 120000));
}

static void on_crash(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    struct kiln_fleet_verifier *verifier = &fleet->verifiers[message->verifier];
    if (!verifier->plan || fleet->now_ms >= fleet->calm_ms)
        return;
    kiln_plan_free(verifier->plan);
    verifier->plan = NULL;
    fleet->report->verifier_deaths++;
    for (uint32_t i = 0; i < fleet->options->partitions; i++) {
        unmark(fleet, message->verifier, i);
        if (fleet->logs[i].owner != message->verifier)
            continue;
        fleet->logs[i].owner = KILN_FLEET_NOBODY;
        kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_ASSIGN, .partition = i},
                        kiln_fleet_below(fleet, WAKE_MS_MAX));
    }
    kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_START, .verifier = message->verifier},
                    500 + kiln_fleet_below(fleet, 10000));
}

static void on_start(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    struct kiln_fleet_verifier *verifier = &fleet->verifiers[message->verifier];
    const struct kiln_plan_config config = {.lease_ms = KILN_FLEET_LEASE_MS, .upload_ms = KILN_FLEET_UPLOAD_MS,
                                            .elsewhere_ms = 500, .hash_seed = fleet->options->seed};
    if (kiln_plan_new(&config, &verifier->plan, NULL)) {
        kiln_fleet_fail(fleet, "no memory", 0);
        return;
    }
    verifier->life++;
    verifier->tick_ms = UINT64_MAX;
    for (uint32_t i = message->verifier; i < fleet->options->partitions; i += fleet->options->verifiers)
        kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_ASSIGN, .partition = i},
                        kiln_fleet_below(fleet, 200));
    send_crash(fleet, message->verifier);
}

static void on_tick(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    struct kiln_fleet_verifier *verifier = &fleet->verifiers[message->verifier];
    if (!verifier->plan || verifier->life != message->token)
        return;
    verifier->tick_ms = UINT64_MAX;
    step(fleet, message->verifier, &(struct kiln_plan_event){.kind = KILN_PLAN_TICK}, NULL);
}

static void on_later(struct kiln_fleet *fleet, const struct kiln_fleet_message *outcome) {
    const struct kiln_fleet_verifier *verifier = &fleet->verifiers[outcome->verifier];
    struct kiln_fleet_action *of = &fleet->actions[outcome->action];
    if (!verifier->plan || verifier->life != outcome->token || of->released[outcome->verifier] != outcome->released)
        return; // for nobody any more
    if (outcome->event == KILN_PLAN_FILED && outcome->verdict == KILN_PLAN_STORED && !of->stored) {
        of->stored = outcome->digest; // the vault keeps what came first
        fleet->report->stored++;
    }
    step(fleet, outcome->verifier,
         &(struct kiln_plan_event){.kind = outcome->event, .key = key_of(outcome->action), .attempt = outcome->attempt,
                                   .verdict = outcome->verdict, .digest = digest_of(outcome->digest),
                                   .lacking = !of->content, .reason = "word: said so"}, NULL);
}

static void on_revoke(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    struct kiln_fleet_executor *executor = &fleet->executors[message->executor];
    executor->revoked = true;
    for (uint32_t i = 0; i < fleet->options->verifiers; i++) {
        if (fleet->verifiers[i].plan)
            step(fleet, i, &(struct kiln_plan_event){.kind = KILN_PLAN_REVOKED, .executor = executor->name}, NULL);
    }
}

static void on_forget(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    const struct kiln_fleet_verifier *verifier = &fleet->verifiers[message->verifier];
    bool entered = fleet->jobs[message->job].entered >> message->verifier & 1; // anew, since
    if (verifier->plan && verifier->life == message->token && !entered) // else it was lost with its writer
        kiln_fleet_forget(fleet, message->job);
}

void kiln_fleet_verifier_hears(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    switch (message->kind) {
    case KILN_FLEET_RECORD: on_record(fleet, message); break;
    case KILN_FLEET_TO_OWNER: on_owner(fleet, message); break;
    case KILN_FLEET_ASSIGN: on_assign(fleet, message); break;
    case KILN_FLEET_YIELD: on_yield(fleet, message); break;
    case KILN_FLEET_CRASH: on_crash(fleet, message); break;
    case KILN_FLEET_START: on_start(fleet, message); break;
    case KILN_FLEET_TICK: on_tick(fleet, message); break;
    case KILN_FLEET_LATER: on_later(fleet, message); break;
    case KILN_FLEET_REVOKE: on_revoke(fleet, message); break;
    case KILN_FLEET_FORGET: on_forget(fleet, message); break;
    default: break;
    }
}
