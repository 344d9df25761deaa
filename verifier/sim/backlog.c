#include "verifier/sim/backlog.h"

#include <stdio.h>
#include <string.h>

#include "verifier/plan.h"
#include "verifier/sim/dice.h"

#define TENANTS 20u
#define AGREED_EVERY 10u

struct backlog {
    struct kiln_plan *plan;
    struct kiln_backlog_report *report;
    uint64_t now_ms;
    uint32_t jobs, credits;
};

static struct kiln_plan_actions step(struct backlog *backlog, const struct kiln_plan_event *event) {
    struct kiln_plan_actions actions = {0};
    if (kiln_plan_step(backlog->plan, event, backlog->now_ms, &actions, NULL))
        snprintf(backlog->report->failure, sizeof backlog->report->failure, "no memory");
    backlog->report->events++;
    return actions;
}

static void submit(struct backlog *backlog) {
    uint32_t job = backlog->jobs++;
    char tenant[16];
    snprintf(tenant, sizeof tenant, "t%u", job % TENANTS);
    struct kiln_plan_event event = {.kind = KILN_PLAN_SUBMITTED, .key = {.scope = "local"}, .job = kiln_sim_id('j', job, 0),
                                    .tenant = tenant, .agent = "a", .until_ms = UINT64_MAX / 2, .partition = job % 64,
                                    .agreement = job % AGREED_EVERY ? 1 : 2};
    memcpy(event.key.action.bytes, &job, sizeof job);
    struct kiln_plan_actions actions = step(backlog, &event);
    kiln_plan_actions_release(&actions);
}

// Leases, the result, its judgement, storing. One that has to agree with another goes back to the queue.
static void finish(struct backlog *backlog, const struct kiln_plan_action *work) {
    struct kiln_plan_event event = {.key = work->key, .job = work->job, .attempt = work->attempt, .executor = work->executor,
                                    .incarnation = work->incarnation, .verdict = KILN_PLAN_STORED};
    static const enum kiln_plan_event_kind kinds[] = {KILN_PLAN_LEASE, KILN_PLAN_CANDIDATE, KILN_PLAN_JUDGED, KILN_PLAN_FILED};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        event.kind = kinds[i];
        struct kiln_plan_actions actions = step(backlog, &event);
        kiln_plan_actions_release(&actions);
    }
}

static void serve(struct backlog *backlog) {
    uint32_t number = backlog->credits++, executor = number % 50;
    char name[16], pool[16];
    snprintf(name, sizeof name, "e%u", executor);
    snprintf(pool, sizeof pool, "p%u", executor % 4);
    struct kiln_plan_actions actions = step(backlog, &(struct kiln_plan_event){
        .kind = KILN_PLAN_CREDIT, .executor = name, .pool = pool, .incarnation = kiln_sim_id('i', executor, 0),
        .credit = kiln_sim_id('c', number, 0), .until_ms = backlog->now_ms + 1000});
    const struct kiln_plan_action *work = NULL;
    for (size_t i = 0; i < actions.count; i++)
        work = actions.list[i].kind == KILN_PLAN_DISPATCH ? &actions.list[i] : work;
    if (work)
        finish(backlog, work);
    else
        snprintf(backlog->report->failure, sizeof backlog->report->failure, "nothing was dispatched for credit %u", number);
    kiln_plan_actions_release(&actions);
}

void kiln_backlog_run(uint32_t waiting, uint32_t rounds, uint64_t (*clock_ns)(void), struct kiln_backlog_report *report) {
    struct backlog backlog = {.report = report};
    *report = (struct kiln_backlog_report){0};
    const struct kiln_plan_config config = {.lease_ms = 1000, .upload_ms = 1000, .hash_seed = 1};
    if (kiln_plan_new(&config, &backlog.plan, NULL)) {
        snprintf(report->failure, sizeof report->failure, "no memory");
        return;
    }
    uint64_t began_ns = clock_ns();
    for (uint32_t i = 0; i < waiting; i++)
        submit(&backlog);
    report->enter_ns = clock_ns() - began_ns;
    report->events = 0;
    began_ns = clock_ns();
    for (uint32_t i = 0; i < rounds && !report->failure[0]; i++) {
        backlog.now_ms++;
        serve(&backlog);
        while (kiln_plan_flights(backlog.plan) < waiting)
            submit(&backlog);
    }
    report->ns = clock_ns() - began_ns;
    kiln_plan_free(backlog.plan);
}
