#include "verifier/sim/fleet.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/core/list.h"
#include "verifier/sim/fleet_world.h"

#define RUN_MS 280u            // of a slot, on the average
#define RUNS_PERCENT 85u       // runs for a hundred jobs: what is shared, agreement, what is tried again
#define DISTINCT_PERCENT 60u   // actions for a hundred jobs
#define AGREED_PERCENT 20u     // of the actions: two pools must agree
#define CREDITS_MAX (1u << 26)
#define QUIET_MS_MAX (15ull * 60 * 1000) // until all is answered after the last submission

struct kiln_fleet_options kiln_fleet_default(uint64_t seed, uint32_t jobs) {
    return (struct kiln_fleet_options){.seed = seed, .jobs = jobs, .agents = 1000, .executors = 50, .slots = 8, .pools = 4,
                                       .verifiers = 4, .partitions = 64, .tenants = 20, .load = 90, .trouble = 100};
}

void kiln_fleet_fail(struct kiln_fleet *fleet, const char *what, uint64_t which) {
    if (!fleet->report->failure[0])
        snprintf(fleet->report->failure, sizeof fleet->report->failure, "at %llu ms: %s (%llu)",
                 (unsigned long long)fleet->now_ms, what, (unsigned long long)which);
}

unsigned kiln_fleet_below(struct kiln_fleet *fleet, unsigned bound) { return kiln_dice_below(&fleet->dice, bound); }

bool kiln_fleet_chance(struct kiln_fleet *fleet, unsigned percent) {
    return kiln_dice_below(&fleet->dice, 10000) < percent * fleet->options->trouble;
}

unsigned kiln_fleet_life_ms(struct kiln_fleet *fleet, unsigned max_ms) {
    uint64_t max = fleet->calm_ms < max_ms ? fleet->calm_ms : max_ms;
    return 1000 + kiln_fleet_below(fleet, (unsigned)(max * 100 / fleet->options->trouble) + 1);
}

static bool is_before(const struct kiln_fleet_message *a, const struct kiln_fleet_message *b) {
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->number < b->number;
}

void kiln_fleet_send(struct kiln_fleet *fleet, struct kiln_fleet_message message, unsigned delay_ms) {
    struct kiln_fleet_message *heap = kiln_list_grow(fleet->heap, fleet->heap_count, sizeof *heap);
    if (!heap) {
        kiln_fleet_fail(fleet, "no memory", 0);
        return;
    }
    fleet->heap = heap;
    message.at_ms = fleet->now_ms + delay_ms;
    message.number = fleet->numbers++;
    size_t place = ++fleet->heap_count;
    for (; place > 1 && is_before(&message, &heap[place / 2 - 1]); place /= 2)
        heap[place - 1] = heap[place / 2 - 1];
    heap[place - 1] = message;
}

static struct kiln_fleet_message take_next(struct kiln_fleet *fleet) {
    struct kiln_fleet_message *heap = fleet->heap, first = heap[0], last = heap[--fleet->heap_count];
    size_t place = 1, child;
    for (; (child = place * 2) <= fleet->heap_count; place = child) {
        if (child < fleet->heap_count && is_before(&heap[child], &heap[child - 1]))
            child++;
        if (!is_before(&heap[child - 1], &last))
            break;
        heap[place - 1] = heap[child - 1];
    }
    heap[place - 1] = last;
    return first;
}

uint32_t kiln_fleet_partition_of(const struct kiln_fleet *fleet, uint32_t action) {
    return (uint32_t)(action * 2654435761u >> 8) % fleet->options->partitions;
}

void kiln_fleet_publish(struct kiln_fleet *fleet, uint32_t job, enum kiln_plan_event_kind kind, unsigned delay_ms) {
    struct kiln_fleet_message message = {.kind = KILN_FLEET_RECORD, .job = job, .event = kind,
                                         .partition = kiln_fleet_partition_of(fleet, fleet->jobs[job].action)};
    kiln_fleet_send(fleet, message, delay_ms + kiln_fleet_below(fleet, 10));
    if (kiln_fleet_chance(fleet, 2))
        kiln_fleet_send(fleet, message, delay_ms + kiln_fleet_below(fleet, 3000));
}

static void append(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    struct kiln_fleet_log *log = &fleet->logs[message->partition];
    struct kiln_fleet_entry *entries = kiln_list_grow(log->entries, log->count, sizeof *entries);
    if (!entries) {
        kiln_fleet_fail(fleet, "no memory", 0);
        return;
    }
    log->entries = entries;
    entries[log->count++] = (struct kiln_fleet_entry){.job = message->job, .kind = (uint8_t)message->event};
}

static void end_job(struct kiln_fleet *fleet, struct kiln_fleet_job *job, enum kiln_fleet_end end) {
    fleet->open_count--;
    job->end = (uint8_t)end;
    fleet->report->results += end == KILN_FLEET_RESULT;
    fleet->report->locally += end == KILN_FLEET_LOCALLY;
    fleet->report->refused += end == KILN_FLEET_REFUSED;
    fleet->report->cancelled += end == KILN_FLEET_CANCELLED;
}

// A submitter uploads soon, or late, or something wrong, or never.
void kiln_fleet_told_want(struct kiln_fleet *fleet, uint32_t job) {
    unsigned upload_ms = 5 + kiln_fleet_below(fleet, 200);
    if (kiln_fleet_chance(fleet, 5))
        return;
    if (kiln_fleet_chance(fleet, 3))
        kiln_fleet_publish(fleet, job, KILN_PLAN_REFUSED, upload_ms);
    else
        kiln_fleet_publish(fleet, job, KILN_PLAN_UPLOADED,
                           kiln_fleet_chance(fleet, 5) ? upload_ms + KILN_FLEET_UPLOAD_MS : upload_ms);
}

void kiln_fleet_told(struct kiln_fleet *fleet, uint32_t number, enum kiln_fleet_end end, uint32_t digest) {
    struct kiln_fleet_job *job = &fleet->jobs[number];
    if (job->end != KILN_FLEET_WAITS) {
        fleet->report->again += job->end != KILN_FLEET_CANCELLED;
        if (end == KILN_FLEET_RESULT && job->end == KILN_FLEET_RESULT && job->digest != digest)
            kiln_fleet_fail(fleet, "a job heard of two different results", number);
        return;
    }
    job->digest = digest;
    end_job(fleet, job, end);
}

// Each agent submits builds: some jobs at once, then a pause.
static void on_submit(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    const struct kiln_fleet_options *options = fleet->options;
    struct kiln_fleet_job *job = &fleet->jobs[message->job];
    job->deadline_ms = fleet->now_ms + 30000 + kiln_fleet_below(fleet, 60000);
    fleet->report->submitted++;
    kiln_fleet_publish(fleet, message->job, KILN_PLAN_SUBMITTED, 0);
    if (kiln_fleet_chance(fleet, 3)) {
        end_job(fleet, job, KILN_FLEET_CANCELLED);
        kiln_fleet_publish(fleet, message->job, KILN_PLAN_CANCELLED, 10 + kiln_fleet_below(fleet, 2000));
    }
    if (options->jobs - message->job <= options->agents)
        return;
    uint64_t mean_ms = fleet->calm_ms * options->agents / options->jobs + 1;
    struct kiln_fleet_message next = {.kind = KILN_FLEET_SUBMIT, .job = message->job + options->agents};
    bool pause = kiln_dice_chance(&fleet->dice, 10);
    kiln_fleet_send(fleet, next, pause ? kiln_fleet_below(fleet, (unsigned)(20 * mean_ms)) : 0);
}

static void happen(struct kiln_fleet *fleet, const struct kiln_fleet_message *message) {
    switch (message->kind) {
    case KILN_FLEET_SUBMIT: on_submit(fleet, message); break;
    case KILN_FLEET_RECORD:
        append(fleet, message);
        kiln_fleet_verifier_hears(fleet, message);
        break;
    case KILN_FLEET_WORK:
    case KILN_FLEET_DEMANDED:
    case KILN_FLEET_BEAT:
    case KILN_FLEET_FINISH:
    case KILN_FLEET_OFFER:
    case KILN_FLEET_DIE:
    case KILN_FLEET_RISE: kiln_fleet_executor_hears(fleet, message); break;
    default: kiln_fleet_verifier_hears(fleet, message); break;
    }
}

static uint64_t last_submission_ms(const struct kiln_fleet_options *options) {
    uint64_t slots = (uint64_t)options->executors * options->slots;
    return (uint64_t)options->jobs * RUNS_PERCENT * RUN_MS / slots / options->load + 1000;
}

static void begin(struct kiln_fleet *fleet) {
    const struct kiln_fleet_options *options = fleet->options;
    uint32_t distinct = (uint32_t)((uint64_t)options->jobs * DISTINCT_PERCENT / 100 + 1);
    for (uint32_t i = 0; i < distinct; i++) {
        fleet->actions[i].agreement = options->pools > 1 && kiln_dice_chance(&fleet->dice, AGREED_PERCENT) ? 2 : 1;
        fleet->actions[i].content = kiln_dice_chance(&fleet->dice, 40);
        fleet->actions[i].fickle = kiln_dice_below(&fleet->dice, 1000) == 0;
    }
    for (uint32_t i = 0; i < options->jobs; i++) {
        // What is asked for at about the same time is often the same.
        uint32_t near = (uint32_t)((uint64_t)i * DISTINCT_PERCENT / 100);
        fleet->jobs[i].action = kiln_dice_chance(&fleet->dice, 70) ? near : near - kiln_fleet_below(fleet, near < 500 ? near + 1 : 500);
        fleet->jobs[i].agent = (uint16_t)(i % options->agents);
    }
    for (uint32_t i = 0; i < options->partitions; i++)
        fleet->logs[i].owner = KILN_FLEET_NOBODY;
    for (uint32_t i = 0; i < options->executors; i++) {
        struct kiln_fleet_executor *executor = &fleet->executors[i];
        snprintf(executor->name, sizeof executor->name, "e%u", i);
        snprintf(executor->pool, sizeof executor->pool, "p%u", i % options->pools);
        executor->liar = i == 0;
        kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_RISE, .executor = i}, kiln_fleet_below(fleet, 500));
    }
    for (uint32_t i = 0; i < options->verifiers; i++)
        kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_START, .verifier = i}, kiln_fleet_below(fleet, 100));
    for (uint32_t i = 0; i < options->agents && i < options->jobs; i++)
        kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_SUBMIT, .job = i}, kiln_fleet_below(fleet, 2000));
    fleet->open_count = options->jobs;
    fleet->calm_ms = last_submission_ms(options);
    if (options->executors > options->pools) // the liar is found out
        kiln_fleet_send(fleet, (struct kiln_fleet_message){.kind = KILN_FLEET_REVOKE, .executor = 0}, (unsigned)(fleet->calm_ms / 2));
}

static bool is_quiet(const struct kiln_fleet *fleet) {
    if (fleet->open_count)
        return false;
    for (uint32_t i = 0; i < fleet->options->verifiers; i++) {
        if (fleet->verifiers[i].plan && kiln_plan_flights(fleet->verifiers[i].plan))
            return false;
    }
    return true;
}

static void run(struct kiln_fleet *fleet) {
    while (!fleet->report->failure[0] && !is_quiet(fleet)) {
        if (fleet->now_ms > fleet->calm_ms * 2 + QUIET_MS_MAX || !fleet->heap_count) {
            kiln_fleet_fail(fleet, "jobs were never answered", fleet->open_count);
            return;
        }
        struct kiln_fleet_message message = take_next(fleet);
        fleet->now_ms = message.at_ms;
        happen(fleet, &message);
    }
    fleet->report->virtual_ms = fleet->now_ms;
}

static bool allocate(struct kiln_fleet *fleet) {
    const struct kiln_fleet_options *options = fleet->options;
    fleet->jobs = calloc(options->jobs, sizeof *fleet->jobs);
    fleet->actions = calloc(options->jobs, sizeof *fleet->actions);
    fleet->logs = calloc(options->partitions, sizeof *fleet->logs);
    fleet->executors = calloc(options->executors, sizeof *fleet->executors);
    fleet->credits_max = options->jobs < 10000 ? 1u << 20 : CREDITS_MAX;
    fleet->credits_used = calloc(fleet->credits_max, sizeof *fleet->credits_used);
    bool made = fleet->jobs && fleet->actions && fleet->logs && fleet->executors && fleet->credits_used;
    for (uint32_t i = 0; made && i < options->executors; i++)
        made = (fleet->executors[i].slots = calloc(options->slots, sizeof(struct kiln_fleet_slot))) != NULL;
    return made;
}

static void release(struct kiln_fleet *fleet) {
    for (uint32_t i = 0; i < KILN_FLEET_VERIFIERS_MAX; i++)
        kiln_plan_free(fleet->verifiers[i].plan);
    for (uint32_t i = 0; fleet->executors && i < fleet->options->executors; i++)
        free(fleet->executors[i].slots);
    for (uint32_t i = 0; fleet->logs && i < fleet->options->partitions; i++)
        free(fleet->logs[i].entries);
    free(fleet->heap);
    free(fleet->jobs);
    free(fleet->actions);
    free(fleet->logs);
    free(fleet->executors);
    free(fleet->credits_used);
}

void kiln_fleet_run(const struct kiln_fleet_options *options, uint64_t (*clock_ns)(void), struct kiln_fleet_report *report) {
    *report = (struct kiln_fleet_report){0};
    struct kiln_fleet fleet = {.options = options, .report = report, .dice = {options->seed}, .clock_ns = clock_ns};
    if (allocate(&fleet)) {
        begin(&fleet);
        run(&fleet);
    } else {
        kiln_fleet_fail(&fleet, "no memory", 0);
    }
    release(&fleet);
}
