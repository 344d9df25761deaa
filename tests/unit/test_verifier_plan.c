// The plan's moves, one by one. A script is a list of events with their times and of the actions that must come.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "verifier/plan.h"
#include "verifier/plan_pool.h"

#define LEASE 100u
#define UPLOAD 50u

static struct kiln_plan *plan;
static char seen[1024]; // the actions of the last step: "want 1; dispatch 1.1 e c1; ..."

static int setup(void **state) {
    (void)state;
    const struct kiln_plan_config config = {.lease_ms = LEASE, .upload_ms = UPLOAD};
    return kiln_plan_new(&config, &plan, NULL);
}

static int teardown(void **state) {
    (void)state;
    kiln_plan_free(plan);
    return 0;
}

static struct kiln_job_id id(unsigned char number) { return (struct kiln_job_id){{number}}; }

static struct kiln_plan_key key(unsigned char action) {
    return (struct kiln_plan_key){.scope = "local", .action = {{action}}};
}

static void describe(const struct kiln_plan_action *action) {
    static const char *const names[] = {
        "want", "refuse", "dispatch", "judge", "discard", "check", "store", "diverged", "dead", "demand", "answer", "release"};
    size_t used = strlen(seen);
    used += (size_t)snprintf(seen + used, sizeof seen - used, "%s%s", used ? "; " : "", names[action->kind]);
    for (size_t i = 0; i < action->jobs_count; i++)
        used += (size_t)snprintf(seen + used, sizeof seen - used, " %u", action->jobs[i].bytes[0]);
    if (action->kind == KILN_PLAN_DISPATCH)
        snprintf(seen + used, sizeof seen - used, " %u.%u %s%u c%u", action->job.bytes[0], action->attempt,
                 action->executor, action->incarnation.bytes[0], action->credit.bytes[0]);
    if (action->kind == KILN_PLAN_ANSWER || action->kind == KILN_PLAN_REFUSE)
        snprintf(seen + used, sizeof seen - used, " %s",
                 action->reason ? action->reason : action->verdict == KILN_PLAN_STORED ? "stored" : "-");
}

static void feed(uint64_t now_ms, const struct kiln_plan_event *event, const char *expected) {
    struct kiln_plan_actions actions = {0};
    assert_int_equal(kiln_plan_step(plan, event, now_ms, &actions, NULL), 0);
    seen[0] = 0;
    for (size_t i = 0; i < actions.count; i++)
        describe(&actions.list[i]);
    kiln_plan_actions_release(&actions);
    assert_string_equal(seen, expected);
}

static void submit(uint64_t now_ms, unsigned char action, unsigned char job, bool lacking, const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_SUBMITTED, .key = key(action), .job = id(job),
                                           .until_ms = 10000, .lacking = lacking}, expected);
}

static void by_job(uint64_t now_ms, enum kiln_plan_event_kind kind, unsigned char action, unsigned char job,
                   const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = kind, .key = key(action), .job = id(job), .reason = "bad bytes"},
         expected);
}

static void credit(uint64_t now_ms, const char *executor, unsigned char incarnation, unsigned char number,
                   const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_CREDIT, .executor = executor, .incarnation = id(incarnation),
                                           .credit = id(number), .until_ms = now_ms + 1000}, expected);
}

static struct kiln_plan_event of_attempt(enum kiln_plan_event_kind kind, unsigned char action, unsigned char job,
                                         uint32_t attempt, const char *executor, unsigned char incarnation) {
    return (struct kiln_plan_event){.kind = kind, .key = key(action), .job = id(job), .attempt = attempt,
                                    .executor = executor, .incarnation = id(incarnation)};
}

static void candidate(uint64_t now_ms, unsigned char action, unsigned char job, uint32_t attempt, const char *executor,
                      unsigned char incarnation, const char *expected) {
    struct kiln_plan_event event = of_attempt(KILN_PLAN_CANDIDATE, action, job, attempt, executor, incarnation);
    feed(now_ms, &event, expected);
}

static void judged(uint64_t now_ms, unsigned char action, uint32_t attempt, enum kiln_plan_verdict verdict,
                   const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_JUDGED, .key = key(action), .attempt = attempt,
                                           .verdict = verdict, .reason = "judged so"}, expected);
}

static void checked(uint64_t now_ms, unsigned char action, bool lacking, const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_CHECKED, .key = key(action), .lacking = lacking}, expected);
}

static void tick(uint64_t now_ms, const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_TICK}, expected);
}

static void straight_through(void **state) {
    (void)state;
    submit(0, 1, 1, true, "want 1");
    by_job(1, KILN_PLAN_UPLOADED, 1, 1, "");
    credit(2, "e", 1, 1, "dispatch 1.1 e1 c1");
    candidate(3, 1, 1, 1, "e", 1, "judge");
    judged(4, 1, 1, KILN_PLAN_STORED, "answer 1 stored; release");
    assert_int_equal(kiln_plan_flights(plan), 0);
    assert_int_equal(kiln_plan_next_ms(plan), UINT64_MAX);
}

static void waiters_share_a_flight(void **state) {
    (void)state;
    credit(0, "e", 1, 1, "");
    submit(1, 1, 1, false, "dispatch 1.1 e1 c1");
    submit(2, 1, 2, false, "");
    submit(3, 1, 2, false, ""); // again
    submit(4, 2, 3, false, ""); // another action has no credit
    submit(5, 1, 4, false, "");
    by_job(6, KILN_PLAN_CANCELLED, 1, 2, "");
    candidate(7, 1, 1, 1, "e", 1, "judge");
    submit(8, 1, 5, false, "");
    judged(9, 1, 1, KILN_PLAN_STORED, "answer 1 4 5 stored; release");
    assert_int_equal(kiln_plan_flights(plan), 1);
}

static void scopes_do_not_share(void **state) {
    (void)state;
    submit(0, 1, 1, false, "");
    struct kiln_plan_event event = {.kind = KILN_PLAN_SUBMITTED, .key = key(1), .job = id(2), .until_ms = 1000};
    strcpy(event.key.scope, "other");
    feed(0, &event, "");
    assert_int_equal(kiln_plan_flights(plan), 2);
}

static void asks_one_after_the_other(void **state) {
    (void)state;
    submit(0, 1, 1, true, "want 1");
    submit(1, 1, 2, true, "");
    submit(2, 1, 3, true, "");
    submit(3, 1, 1, true, "want 1"); // it did not hear
    tick(49, "");
    assert_int_equal(kiln_plan_next_ms(plan), 50);
    tick(50, "want 2");
    by_job(60, KILN_PLAN_REFUSED, 1, 2, "refuse 2 bad bytes; want 3");
    by_job(61, KILN_PLAN_CANCELLED, 1, 3, "answer 1 not_uploaded: the inputs did not come in time; release");
    submit(100, 2, 4, true, "want 4");
    submit(101, 2, 5, true, "");
    tick(150, "want 5");
    by_job(151, KILN_PLAN_UPLOADED, 2, 4, ""); // slow, but here
    assert_int_equal(kiln_plan_state_of(plan, &(struct kiln_plan_key){.scope = "local", .action = {{2}}}), KILN_PLAN_READY);
    by_job(152, KILN_PLAN_UPLOADED, 2, 5, "");
    by_job(153, KILN_PLAN_UPLOADED, 2, 9, "");
    tick(1000, "");
}

static void content_from_elsewhere(void **state) {
    (void)state;
    submit(0, 1, 1, true, "want 1");
    submit(1, 1, 2, false, "");
    credit(2, "e", 1, 1, "dispatch 1.1 e1 c1");
}

static void credits_are_single_use(void **state) {
    (void)state;
    credit(0, "e", 1, 1, "");
    credit(0, "e", 1, 1, "");
    submit(1, 1, 1, false, "dispatch 1.1 e1 c1");
    submit(2, 2, 2, false, "");
    credit(3, "e", 1, 1, "");
    credit(4, "e", 1, 2, "dispatch 2.1 e1 c2");
    credit(5, "e", 1, 3, "");
    submit(1005, 3, 3, false, ""); // expired
    credit(1006, "e", 1, 4, "dispatch 3.1 e1 c4");
}

static void first_come_first_served(void **state) {
    (void)state;
    submit(0, 1, 1, true, "want 1");
    submit(1, 2, 2, false, "");
    by_job(2, KILN_PLAN_UPLOADED, 1, 1, "");
    submit(3, 3, 3, false, "");
    credit(4, "e", 1, 1, "dispatch 2.1 e1 c1");
    credit(5, "e", 1, 2, "dispatch 1.1 e1 c2");
    credit(6, "e", 1, 3, "dispatch 3.1 e1 c3");
}

static void leases(void **state) {
    (void)state;
    credit(0, "e", 1, 1, "");
    credit(0, "f", 2, 2, "");
    submit(0, 1, 1, false, "dispatch 1.1 e1 c1");
    struct kiln_plan_event beat = of_attempt(KILN_PLAN_LEASE, 1, 1, 1, NULL, 1);
    feed(60, &beat, "");
    tick(100, "");
    beat.incarnation = id(2); // not who has it
    feed(150, &beat, "");
    assert_int_equal(kiln_plan_next_ms(plan), 160);
    tick(160, "dispatch 1.2 f2 c2");
    candidate(161, 1, 1, 1, "e", 1, "discard"); // too late
    candidate(162, 1, 1, 2, "f", 1, "discard"); // another incarnation's
    candidate(162, 1, 1, 2, "g", 2, "discard"); // another name
    candidate(162, 2, 1, 2, "f", 2, "discard"); // another action
    candidate(163, 1, 1, 2, "f", 2, "judge");
    candidate(164, 1, 1, 2, "f", 2, "discard"); // again
    judged(165, 1, 1, KILN_PLAN_STORED, ""); // of another attempt
    judged(166, 1, 2, KILN_PLAN_STORED, "answer 1 stored; release");
}

static void three_attempts(void **state) {
    (void)state;
    submit(0, 1, 1, false, "");
    credit(0, "e", 1, 1, "dispatch 1.1 e1 c1");
    credit(99, "e", 1, 2, "");
    tick(100, "dispatch 1.2 e1 c2");
    credit(199, "e", 1, 3, "");
    tick(200, "dispatch 1.3 e1 c3");
    tick(300, "answer 1 executor_lost: no executor finished the job; release");
}

// Its lease ran out and nothing was heard of it: other credits of it rest until it speaks again.
static void suspects_the_silent(void **state) {
    (void)state;
    credit(0, "e", 1, 1, "");
    credit(0, "e", 1, 2, "");
    submit(0, 1, 1, false, "dispatch 1.1 e1 c1");
    tick(100, "");
    struct kiln_plan_event beat = of_attempt(KILN_PLAN_LEASE, 1, 9, 1, NULL, 1);
    feed(101, &beat, "dispatch 1.2 e1 c2");
}

static void a_new_incarnation_ends_the_old(void **state) {
    (void)state;
    credit(0, "e", 1, 1, "");
    credit(0, "e", 1, 2, "");
    submit(0, 1, 1, false, "dispatch 1.1 e1 c1");
    credit(10, "e", 2, 3, "dispatch 1.2 e2 c3"); // at once, not when the lease is over
    candidate(11, 1, 1, 1, "e", 1, "discard");
    submit(12, 2, 2, false, "");    // credit 2 has gone with its incarnation
    credit(13, "e", 1, 4, "");      // said before it died, heard after
    credit(14, "e", 2, 5, "dispatch 2.1 e2 c5");
}

static void nobody_waits(void **state) {
    (void)state;
    submit(0, 1, 1, true, "want 1");
    by_job(1, KILN_PLAN_CANCELLED, 1, 1, "release");
    submit(2, 2, 2, false, "");
    by_job(3, KILN_PLAN_CANCELLED, 2, 2, "release");
    credit(4, "e", 1, 1, "");
    submit(5, 3, 3, false, "dispatch 3.1 e1 c1");
    by_job(6, KILN_PLAN_CANCELLED, 3, 3, ""); // goes on: the result will be asked for again
    candidate(7, 3, 3, 1, "e", 1, "judge");
    judged(8, 3, 1, KILN_PLAN_STORED, "release");
    credit(9, "e", 1, 2, "");
    submit(10, 4, 4, false, "dispatch 4.1 e1 c2");
    by_job(11, KILN_PLAN_CANCELLED, 4, 4, "");
    tick(110, "release"); // not tried again for nobody
}

static void trouble(void **state) {
    (void)state;
    credit(0, "e", 1, 1, "");
    submit(0, 1, 1, false, "dispatch 1.1 e1 c1");
    candidate(1, 1, 1, 1, "e", 1, "judge");
    judged(2, 1, 1, KILN_PLAN_AGAIN, "check");
    submit(3, 1, 2, true, "");
    checked(4, 1, true, "want 1");
    by_job(5, KILN_PLAN_UPLOADED, 1, 1, "");
    credit(6, "e", 1, 2, "dispatch 1.2 e1 c2");
    candidate(7, 1, 1, 2, "e", 1, "judge");
    judged(8, 1, 2, KILN_PLAN_AGAIN, "answer 1 2 judged so; release");
}

static void deadlines(void **state) {
    (void)state;
    struct kiln_plan_event event = {.kind = KILN_PLAN_SUBMITTED, .key = key(1), .job = id(1), .until_ms = 20, .lacking = true};
    feed(0, &event, "want 1");
    event.job = id(2);
    event.until_ms = 30;
    feed(1, &event, "");
    assert_int_equal(kiln_plan_next_ms(plan), 20);
    tick(20, "answer 1 timeout: no result in time; want 2");
    tick(30, "answer 2 timeout: no result in time; release");
}

static void limits(void **state) {
    (void)state;
    struct kiln_plan_event event = {.kind = KILN_PLAN_SUBMITTED, .key = key(1), .until_ms = 1000};
    for (unsigned i = 0; i < KILN_PLAN_WAITERS_MAX; i++) {
        memcpy(event.job.bytes, &i, sizeof i);
        feed(0, &event, "");
    }
    event.job = id(7);
    event.job.bytes[9] = 1;
    feed(0, &event, "answer 7 busy: too many jobs wait");
    for (unsigned i = 1; i < KILN_PLAN_FLIGHTS_MAX; i++) {
        memcpy(event.key.action.bytes + 8, &i, sizeof i);
        feed(0, &event, "");
    }
    event.key.action.bytes[20] = 1;
    feed(0, &event, "answer 7 busy: too many jobs wait");
    assert_int_equal(kiln_plan_flights(plan), KILN_PLAN_FLIGHTS_MAX);
}

// However many credits and executors come: bounded, and the newest work.
static void bounded_pool(void **state) {
    (void)state;
    struct kiln_plan_event event = {.kind = KILN_PLAN_CREDIT, .until_ms = 100000};
    char name[16];
    for (unsigned i = 0; i < KILN_PLAN_EXECUTORS_MAX * 2; i++) {
        snprintf(name, sizeof name, "e%u", i);
        event.executor = name;
        memcpy(event.incarnation.bytes, &i, sizeof i);
        memcpy(event.credit.bytes, &i, sizeof i);
        feed(i, &event, "");
    }
    for (unsigned i = 0; i < KILN_POOL_SPENT_MAX * 2; i++) {
        unsigned number = i + 100000;
        memcpy(event.credit.bytes, &number, sizeof number);
        feed(1000 + i, &event, "");
    }
    struct kiln_plan_event job = {.kind = KILN_PLAN_SUBMITTED, .key = key(1), .job = id(1), .until_ms = 200000};
    struct kiln_plan_actions actions = {0};
    assert_int_equal(kiln_plan_step(plan, &job, 20000, &actions, NULL), 0);
    assert_int_equal(actions.count, 1);
    assert_int_equal(actions.list[0].kind, KILN_PLAN_DISPATCH);
    kiln_plan_actions_release(&actions);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(straight_through),       CASE(waiters_share_a_flight), CASE(scopes_do_not_share),
        CASE(asks_one_after_the_other), CASE(content_from_elsewhere), CASE(credits_are_single_use),
        CASE(first_come_first_served), CASE(leases),                CASE(three_attempts),
        CASE(suspects_the_silent),    CASE(a_new_incarnation_ends_the_old), CASE(nobody_waits),
        CASE(trouble),                CASE(deadlines),              CASE(limits),
        CASE(bounded_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
