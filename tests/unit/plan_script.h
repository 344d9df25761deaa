// Scripts for the plan: events with their times, and the actions that must come, written as one line.
//
//   want 1; dispatch 1.1 e1 c1; store 1; answer 1 2 stored; release
//
// dispatch JOB.ATTEMPT EXECUTORINCARNATION cCREDIT; store ATTEMPTS; diverged EXECUTOR:POOL=DIGEST[+-] (+ agrees, - dissents);
// discard and dead with the first word of the reason; demand pPARTITION xCOUNT, when with_demands is set.
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "verifier/plan.h"

#define LEASE 100u
#define UPLOAD 50u

static struct kiln_plan *plan;
static bool with_demands; // show them: most tests are not about them
static char seen[1024];   // the actions of the last step: "want 1; dispatch 1.1 e c1; ..."

static inline int setup(void **state) {
    (void)state;
    with_demands = false;
    return kiln_plan_new(&(struct kiln_plan_config){.lease_ms = LEASE, .upload_ms = UPLOAD}, &plan, NULL);
}

static inline int teardown(void **state) {
    (void)state;
    kiln_plan_free(plan);
    return 0;
}

static inline struct kiln_job_id id(unsigned char number) { return (struct kiln_job_id){{number}}; }

static inline struct kiln_plan_key key(unsigned char action) {
    return (struct kiln_plan_key){.scope = "local", .action = {{action}}};
}

static inline void add(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline void add(const char *fmt, ...) {
    size_t used = strlen(seen);
    va_list args;
    va_start(args, fmt);
    vsnprintf(seen + used, sizeof seen - used, fmt, args);
    va_end(args);
}

static inline void describe(const struct kiln_plan_action *action) {
    static const char *const names[] = {"want",     "refuse", "dispatch", "judge",  "discard", "check",
                                        "store",    "diverged", "dead",   "demand", "answer",  "release"};
    static const char *const parts[] = {"", "+", "-"};
    if (action->kind == KILN_PLAN_DEMAND && !with_demands)
        return;
    add("%s%s", *seen ? "; " : "", names[action->kind]);
    for (size_t i = 0; i < action->jobs_count; i++)
        add(" %u", action->jobs[i].bytes[0]);
    for (size_t i = 0; i < action->runs_count; i++) {
        const struct kiln_plan_run *run = &action->runs[i];
        if (action->kind == KILN_PLAN_STORE)
            add(" %u", run->attempt);
        else
            add(" %s:%s=%u%s", run->executor, run->pool, run->digest.bytes[0], parts[run->part]);
    }
    int word = action->reason ? (int)strcspn(action->reason, ":") : 0;
    switch (action->kind) {
    case KILN_PLAN_DISPATCH:
        add(" %u.%u %s%u c%u", action->job.bytes[0], action->attempt, action->executor, action->incarnation.bytes[0],
            action->credit.bytes[0]);
        break;
    case KILN_PLAN_ANSWER:
    case KILN_PLAN_REFUSE:
        add(" %s", action->reason ? action->reason : action->verdict == KILN_PLAN_STORED ? "stored" : "-");
        break;
    case KILN_PLAN_DISCARD:
    case KILN_PLAN_DEAD: add(" %.*s", word, action->reason ? action->reason : ""); break;
    case KILN_PLAN_DEMAND: add(" p%u x%u", action->partition, action->count); break;
    default: break;
    }
}

static inline void feed(uint64_t now_ms, const struct kiln_plan_event *event, const char *expected) {
    struct kiln_plan_actions actions = {0};
    assert_int_equal(kiln_plan_step(plan, event, now_ms, &actions, NULL), 0);
    seen[0] = 0;
    for (size_t i = 0; i < actions.count; i++)
        describe(&actions.list[i]);
    kiln_plan_actions_release(&actions);
    assert_string_equal(seen, expected);
}

static inline void submit(uint64_t now_ms, unsigned char action, unsigned char job, bool lacking, const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_SUBMITTED, .key = key(action), .job = id(job),
                                           .until_ms = 10000, .lacking = lacking}, expected);
}

static inline void by_job(uint64_t now_ms, enum kiln_plan_event_kind kind, unsigned char action, unsigned char job,
                   const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = kind, .key = key(action), .job = id(job), .reason = "bad bytes"},
         expected);
}

static inline void credit(uint64_t now_ms, const char *executor, unsigned char incarnation, unsigned char number,
                   const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_CREDIT, .executor = executor, .incarnation = id(incarnation),
                                           .credit = id(number), .until_ms = now_ms + 1000}, expected);
}

static inline struct kiln_plan_event of_attempt(enum kiln_plan_event_kind kind, unsigned char action, unsigned char job,
                                         uint32_t attempt, const char *executor, unsigned char incarnation) {
    return (struct kiln_plan_event){.kind = kind, .key = key(action), .job = id(job), .attempt = attempt,
                                    .executor = executor, .incarnation = id(incarnation)};
}

static inline void candidate(uint64_t now_ms, unsigned char action, unsigned char job, uint32_t attempt, const char *executor,
                      unsigned char incarnation, const char *expected) {
    struct kiln_plan_event event = of_attempt(KILN_PLAN_CANDIDATE, action, job, attempt, executor, incarnation);
    feed(now_ms, &event, expected);
}

// The digest is the same whoever gives it, unless a test says otherwise.
static inline void judged_as(uint64_t now_ms, unsigned char action, uint32_t attempt, enum kiln_plan_verdict verdict,
                      unsigned char digest, const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_JUDGED, .key = key(action), .attempt = attempt,
                                           .verdict = verdict, .reason = "judged so", .digest = {{digest}}}, expected);
}

static inline void judged(uint64_t now_ms, unsigned char action, uint32_t attempt, enum kiln_plan_verdict verdict,
                   const char *expected) {
    judged_as(now_ms, action, attempt, verdict, 1, expected);
}

static inline void filed(uint64_t now_ms, unsigned char action, enum kiln_plan_verdict verdict, const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_FILED, .key = key(action), .verdict = verdict,
                                           .reason = "filed so"}, expected);
}

static inline void checked(uint64_t now_ms, unsigned char action, bool lacking, const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_CHECKED, .key = key(action), .lacking = lacking}, expected);
}

static inline void tick(uint64_t now_ms, const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_TICK}, expected);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
