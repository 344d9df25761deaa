// The plan's moves, one by one. A script is a list of events with their times and of the actions that must come.
#include "tests/unit/plan_script.h"
#include "verifier/plan_pool.h"

static void straight_through(void **state) {
    (void)state;
    submit(0, 1, 1, true, "want 1");
    by_job(1, KILN_PLAN_UPLOADED, 1, 1, "");
    credit(2, "e", 1, 1, "dispatch 1.1 e1 c1");
    candidate(3, 1, 1, 1, "e", 1, "judge");
    judged(4, 1, 1, KILN_PLAN_STORED, "store 1");
    filed(5, 1, KILN_PLAN_STORED, "answer 1 stored; release");
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
    judged(9, 1, 1, KILN_PLAN_STORED, "store 1");
    submit(10, 1, 6, false, "");
    filed(11, 1, KILN_PLAN_STORED, "answer 1 4 5 6 stored; release");
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
    feed(150, &beat, "discard executor");
    assert_int_equal(kiln_plan_next_ms(plan), 160);
    tick(160, "dispatch 1.2 f2 c2");
    candidate(161, 1, 1, 1, "e", 1, "discard late");
    candidate(162, 1, 1, 2, "f", 1, "discard executor"); // another incarnation's
    candidate(162, 1, 1, 2, "g", 2, "discard executor"); // another name
    candidate(162, 2, 1, 2, "f", 2, "discard action");
    candidate(163, 1, 1, 2, "f", 2, "judge");
    candidate(164, 1, 1, 2, "f", 2, "discard late"); // again
    candidate(164, 1, 1, 3, "f", 2, "discard unknown");
    judged(165, 1, 1, KILN_PLAN_STORED, ""); // of another attempt
    judged(166, 1, 2, KILN_PLAN_STORED, "store 2");
    candidate(167, 1, 1, 1, "e", 1, "discard late");
    filed(168, 1, KILN_PLAN_STORED, "answer 1 stored; release");
    candidate(169, 1, 1, 1, "e", 1, "discard unknown");
}

static void three_attempts(void **state) {
    (void)state;
    submit(0, 1, 1, false, "");
    credit(0, "e", 1, 1, "dispatch 1.1 e1 c1");
    credit(99, "e", 1, 2, "");
    tick(100, "dispatch 1.2 e1 c2");
    credit(199, "e", 1, 3, "");
    tick(200, "dispatch 1.3 e1 c3");
    tick(300, "dead executor_lost; answer 1 executor_lost: no executor finished the job; release");
}

// Its lease ran out and nothing was heard of it: other credits of it rest until it speaks again.
static void suspects_the_silent(void **state) {
    (void)state;
    credit(0, "e", 1, 1, "");
    credit(0, "e", 1, 2, "");
    submit(0, 1, 1, false, "dispatch 1.1 e1 c2");
    tick(100, "");
    struct kiln_plan_event beat = of_attempt(KILN_PLAN_LEASE, 1, 9, 1, NULL, 1);
    feed(101, &beat, "dispatch 1.2 e1 c1");
}

static void a_new_incarnation_ends_the_old(void **state) {
    (void)state;
    credit(0, "e", 1, 1, "");
    credit(0, "e", 1, 2, "");
    submit(0, 1, 1, false, "dispatch 1.1 e1 c2");
    credit(10, "e", 2, 3, "dispatch 1.2 e2 c3"); // at once, not when the lease is over
    candidate(11, 1, 1, 1, "e", 1, "discard late");
    submit(12, 2, 2, false, "");    // credit 1 has gone with its incarnation
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
    judged(8, 3, 1, KILN_PLAN_STORED, "store 1");
    filed(8, 3, KILN_PLAN_STORED, "release");
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
    judged(8, 1, 2, KILN_PLAN_AGAIN, "dead judged so; answer 1 2 judged so; release");
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
    for (unsigned i = 0; i < KILN_POOL_CREDITS_MAX * 2; i++) {
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
