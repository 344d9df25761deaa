// The plan among many: tenants, pools that must agree, verifiers that come and go, executors that decline or are revoked.
#include "tests/unit/plan_script.h"
#include "verifier/plan_flight.h"

static void renew(const struct kiln_plan_config *config) {
    kiln_plan_free(plan);
    assert_int_equal(kiln_plan_new(config, &plan, NULL), 0);
}

static void submit_as(uint64_t now_ms, const char *tenant, const char *agent, unsigned char action, unsigned char job,
                      bool lacking, const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_SUBMITTED, .key = key(action), .job = id(job), .tenant = tenant,
                                           .agent = agent, .until_ms = now_ms + 10000, .lacking = lacking}, expected);
}

static void submit_agreed(uint64_t now_ms, unsigned char action, unsigned char job, unsigned agreement, const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_SUBMITTED, .key = key(action), .job = id(job),
                                           .agreement = agreement, .until_ms = now_ms + 10000}, expected);
}

static void credit_in(uint64_t now_ms, const char *pool, const char *executor, unsigned char incarnation,
                      unsigned char number, const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_CREDIT, .executor = executor, .pool = pool,
                                           .incarnation = id(incarnation), .credit = id(number), .until_ms = now_ms + 5000},
         expected);
}

static void declined(uint64_t now_ms, unsigned char job, uint32_t attempt, unsigned char incarnation, unsigned char number,
                     const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_DECLINED, .job = id(job), .attempt = attempt,
                                           .incarnation = id(incarnation), .credit = id(number)}, expected);
}

static void of_partition(uint64_t now_ms, enum kiln_plan_event_kind kind, uint32_t partition, const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = kind, .partition = partition}, expected);
}

static void a_quota_for_each_tenant(void **state) {
    (void)state;
    renew(&(struct kiln_plan_config){.lease_ms = LEASE, .upload_ms = UPLOAD, .quota_jobs = 2});
    submit_as(0, "a", "x", 1, 1, false, "");
    submit_as(0, "a", "y", 2, 2, false, "");
    submit_as(0, "a", "x", 3, 3, false, "refuse 3 quota: as many jobs of this tenant wait as may");
    submit_as(0, "a", "x", 2, 3, false, "refuse 3 quota: as many jobs of this tenant wait as may");
    submit_as(0, "a", "x", 1, 1, false, ""); // again: nothing new
    submit_as(0, "b", "x", 3, 4, false, "");
    by_job(1, KILN_PLAN_CANCELLED, 1, 1, "release");
    submit_as(2, "a", "x", 4, 5, false, "");
    struct kiln_plan_event restored = {.kind = KILN_PLAN_RESTORE_WAITER, .key = key(5), .job = id(6), .tenant = "a",
                                       .until_ms = 10000};
    feed(3, &restored, ""); // was let in before
    char name[KILN_PLAN_NAME_MAX + 2];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    submit_as(4, name, "x", 6, 7, false, "refuse 7 name: of tenant or submitter, too long");
    submit_as(4, "c", name, 6, 7, false, "refuse 7 name: of tenant or submitter, too long");
    restored.partition = KILN_PLAN_PARTITIONS_MAX;
    restored.job = id(8);
    feed(4, &restored, "refuse 8 partition: there is none of that number");
}

// `count` flights of one tenant, with keys and jobs that begin with `first`.
static void submit_many(const char *tenant, unsigned char first, unsigned count) {
    struct kiln_plan_event event = {.kind = KILN_PLAN_SUBMITTED, .key = key(first), .job = id(first), .tenant = tenant,
                                    .until_ms = 100000};
    for (unsigned i = 0; i < count; i++) {
        memcpy(event.key.action.bytes + 8, &i, sizeof i);
        memcpy(event.job.bytes + 8, &i, sizeof i);
        feed(0, &event, "");
    }
}

// One credit; whose flight is dispatched, by the first byte of its key.
static unsigned char turn(uint64_t now_ms, unsigned number) {
    struct kiln_plan_event event = {.kind = KILN_PLAN_CREDIT, .executor = "e", .incarnation = id(1), .credit = {{2}},
                                    .until_ms = now_ms + 1000};
    memcpy(event.credit.bytes + 8, &number, sizeof number);
    struct kiln_plan_actions actions = {0};
    assert_int_equal(kiln_plan_step(plan, &event, now_ms, &actions, NULL), 0);
    assert_int_equal(actions.count, 1);
    assert_int_equal(actions.list[0].kind, KILN_PLAN_DISPATCH);
    unsigned char whose = actions.list[0].key.action.bytes[0];
    kiln_plan_actions_release(&actions);
    return whose;
}

static void many_jobs_delay_one_by_one_turn(void **state) {
    (void)state;
    renew(&(struct kiln_plan_config){.lease_ms = 1000000, .upload_ms = UPLOAD});
    unsigned number = 0;
    submit_many("big", 100, 10000);
    for (unsigned served = 0; served < 40; served++) { // whenever it comes
        for (unsigned i = 0; i < served % 3; i++)
            assert_int_equal(turn(1, number++), 100);
        submit_as(1, "small", "x", (unsigned char)(served + 1), (unsigned char)(served + 1), false, "");
        unsigned before = 0;
        while (turn(1, number++) == 100)
            before++;
        assert_true(before <= 1);
    }
    submit_many("huge", 101, 10000); // one turn for each other tenant
    for (unsigned served = 40; served < 60; served++) {
        submit_as(1, "small", "x", (unsigned char)(served + 1), (unsigned char)(served + 1), false, "");
        unsigned before = 0;
        while (turn(1, number++) >= 100)
            before++;
        assert_true(before <= 2);
    }
    unsigned big = 0, huge = 0;
    for (unsigned i = 0; i < 100; i++) {
        unsigned char whose = turn(1, number++);
        big += whose == 100;
        huge += whose == 101;
    }
    assert_int_equal(big, 50);
    assert_int_equal(huge, 50);
}

// A flight at the end of a long queue is the other tenant's first.
static void a_shared_flight_stands_in_each_queue(void **state) {
    (void)state;
    submit_many("big", 100, 500);
    submit_as(0, "big", "x", 7, 7, false, "");
    submit_as(0, "small", "x", 7, 8, false, "");
    unsigned char first = turn(1, 0), second = turn(1, 1);
    assert_true(first == 7 || second == 7);
    assert_int_equal(turn(1, 2), 100); // once is enough
    assert_int_equal(turn(1, 3), 100);
}

// When the one that brought it goes, the flight is the other's only.
static void a_tenant_leaves_a_shared_flight(void **state) {
    (void)state;
    submit_as(0, "a", "x", 1, 1, false, "");
    submit_as(0, "b", "x", 1, 2, false, "");
    submit_as(0, "b", "x", 2, 3, false, "");
    by_job(1, KILN_PLAN_CANCELLED, 1, 1, "");
    credit(2, "e", 1, 1, "dispatch 1.1 e1 c1"); // the execution keeps its name
    credit(3, "e", 1, 2, "dispatch 3.1 e1 c2");
    candidate(4, 1, 1, 1, "e", 1, "judge");
    judged(5, 1, 1, KILN_PLAN_STORED, "store 1");
    filed(6, 1, KILN_PLAN_STORED, "answer 2 stored; release");
}

// Each submitter in turn, however many jobs one has.
static void asks_each_submitter_in_turn(void **state) {
    (void)state;
    submit_as(0, "a", "mute", 1, 1, true, "want 1");
    submit_as(0, "a", "mute", 1, 2, true, "");
    submit_as(0, "a", "mute", 1, 3, true, "");
    submit_as(0, "b", "mute", 1, 4, true, "");
    submit_as(0, "b", "good", 1, 5, true, "");
    tick(50, "want 2"); // the only one with another when it was asked
    tick(100, "want 4");
    tick(150, "want 5");
    by_job(160, KILN_PLAN_UPLOADED, 1, 5, "");
    credit(161, "e", 1, 1, "dispatch 1.1 e1 c1");
}

static void pools_agree(void **state) {
    (void)state;
    submit_agreed(0, 1, 1, 2, "");
    credit_in(0, "p", "e", 1, 1, "dispatch 1.1 e1 c1");
    credit_in(0, "p", "f", 2, 2, ""); // of the same pool
    credit_in(0, "q", "g", 3, 3, "dispatch 1.2 g3 c3"); // at once
    credit_in(0, "r", "h", 4, 4, "");
    candidate(1, 1, 1, 2, "g", 3, "judge");
    judged(2, 1, 2, KILN_PLAN_STORED, "");
    assert_int_equal(kiln_plan_state_of(plan, &(struct kiln_plan_key){.scope = "local", .action = {{1}}}), KILN_PLAN_RUNNING);
    candidate(3, 1, 1, 1, "e", 1, "judge");
    judged(4, 1, 1, KILN_PLAN_STORED, "store 1 2");
    filed(5, 1, KILN_PLAN_STORED, "answer 1 stored; release");
}

static void a_liar_is_named(void **state) {
    (void)state;
    credit_in(0, "p", "liar", 1, 1, "");
    credit_in(0, "q", "e", 2, 2, "");
    submit_agreed(0, 1, 1, 2, "dispatch 1.1 liar1 c1; dispatch 1.2 e2 c2");
    candidate(1, 1, 1, 1, "liar", 1, "judge");
    judged_as(1, 1, 1, KILN_PLAN_STORED, 66, "");
    candidate(2, 1, 1, 2, "e", 2, "judge");
    judged_as(2, 1, 2, KILN_PLAN_STORED, 7, "diverged liar:p=66 e:q=7");
    credit_in(3, "p", "other", 3, 3, ""); // its pool has spoken
    credit_in(3, "q", "e", 2, 4, "");
    credit_in(4, "r", "f", 4, 5, "dispatch 1.3 f4 c5");
    candidate(5, 1, 1, 3, "f", 4, "judge");
    judged_as(5, 1, 3, KILN_PLAN_STORED, 7, "diverged liar:p=66- e:q=7+ f:r=7+; store 2 3");
    filed(6, 1, KILN_PLAN_STORED, "answer 1 stored; release");
}

static void nobody_agrees(void **state) {
    (void)state;
    credit_in(0, "p", "a", 1, 1, "");
    credit_in(0, "q", "b", 2, 2, "");
    credit_in(0, "r", "c", 3, 3, "");
    credit_in(0, "s", "d", 4, 4, "");
    submit_agreed(0, 1, 1, 2, "dispatch 1.1 a1 c1; dispatch 1.2 b2 c2");
    candidate(1, 1, 1, 1, "a", 1, "judge");
    candidate(1, 1, 1, 2, "b", 2, "judge");
    judged_as(2, 1, 1, KILN_PLAN_STORED, 1, "");
    judged_as(2, 1, 2, KILN_PLAN_STORED, 2, "diverged a:p=1 b:q=2; dispatch 1.3 c3 c3");
    candidate(3, 1, 1, 3, "c", 3, "judge");
    judged_as(3, 1, 3, KILN_PLAN_STORED, 3, "diverged a:p=1 b:q=2 c:r=3; dispatch 1.4 d4 c4");
    candidate(4, 1, 1, 4, "d", 4, "judge");
    judged_as(4, 1, 4, KILN_PLAN_STORED, 4,
              "diverged a:p=1 b:q=2 c:r=3 d:s=4; dead agreement; "
              "answer 1 agreement: executors gave different results; release");
}

// One executor that went to another pool is still one; a run that ends in nothing leaves its pool to others.
static void agreement_needs_others(void **state) {
    (void)state;
    submit_agreed(0, 1, 1, 2, "");
    credit_in(0, "p", "e", 1, 1, "dispatch 1.1 e1 c1");
    credit_in(1, "q", "e", 1, 2, "");
    credit_in(2, "r", "f", 2, 3, "dispatch 1.2 f2 c3");
    candidate(3, 1, 1, 1, "e", 1, "judge");
    judged(3, 1, 1, KILN_PLAN_STORED, "");
    credit_in(3, "r", "h", 4, 4, "");
    tick(102, "dispatch 1.3 h4 c4"); // f has lost it, but not its pool
    candidate(104, 1, 1, 3, "h", 4, "judge");
    judged(104, 1, 3, KILN_PLAN_STORED, "store 1 3");
    filed(105, 1, KILN_PLAN_STORED, "answer 1 stored; release");
}

static void too_few_pools(void **state) {
    (void)state;
    submit_agreed(0, 1, 1, 3, "");
    credit_in(0, "p", "e", 1, 1, "dispatch 1.1 e1 c1");
    credit_in(0, "q", "f", 2, 2, "dispatch 1.2 f2 c2");
    candidate(1, 1, 1, 1, "e", 1, "judge");
    judged(1, 1, 1, KILN_PLAN_STORED, "");
    candidate(2, 1, 1, 2, "f", 2, "judge");
    judged(2, 1, 2, KILN_PLAN_STORED, "");
    tick(9999, "");
    tick(10000, "answer 1 agreement: 2 of 3 pools gave the same result in time; release");
    renew(&(struct kiln_plan_config){.lease_ms = LEASE, .upload_ms = UPLOAD, .agreement_ms = 500});
    submit_agreed(0, 1, 1, 2, "");
    credit_in(0, "p", "e", 1, 1, "dispatch 1.1 e1 c1");
    candidate(1, 1, 1, 1, "e", 1, "judge");
    judged(1, 1, 1, KILN_PLAN_STORED, "");
    tick(500, "");
    tick(501, "answer 1 agreement: no executor in more than 1 of 2 pools; release");
}

static void one_says_there_is_no_result(void **state) {
    (void)state;
    credit_in(0, "p", "a", 1, 1, "");
    credit_in(0, "q", "b", 2, 2, "");
    submit_agreed(0, 1, 1, 2, "dispatch 1.1 a1 c1; dispatch 1.2 b2 c2");
    candidate(1, 1, 1, 1, "a", 1, "judge");
    judged_as(1, 1, 1, KILN_PLAN_STORED, 9, "");
    candidate(2, 1, 1, 2, "b", 2, "judge");
    judged(2, 1, 2, KILN_PLAN_LOCALLY, "diverged a:p=9 b:q=0; answer 1 judged so; release");
}

static void another_executor_first(void **state) {
    (void)state;
    renew(&(struct kiln_plan_config){.lease_ms = LEASE, .upload_ms = UPLOAD, .elsewhere_ms = 30});
    credit(0, "f", 2, 1, "");
    submit(0, 2, 2, false, "dispatch 2.1 f2 c1"); // so f is known, and busy
    credit(0, "e", 1, 2, "");
    submit(0, 1, 1, false, "dispatch 1.1 e1 c2");
    candidate(1, 1, 1, 1, "e", 1, "judge");
    judged(1, 1, 1, KILN_PLAN_AGAIN, "check");
    credit(2, "e", 1, 3, "");
    checked(2, 1, false, "");
    tick(31, "");
    credit(31, "f", 2, 4, "dispatch 1.2 f2 c4");
    submit(32, 3, 3, false, "dispatch 3.1 e1 c3"); // others may go there
    candidate(33, 3, 3, 1, "e", 1, "judge");
    judged(33, 3, 1, KILN_PLAN_AGAIN, "check");
    checked(34, 3, false, "");
    credit(35, "e", 1, 5, "");
    tick(63, "");
    tick(64, "dispatch 3.2 e1 c5"); // nobody else came
}

static void a_decline_costs_nothing(void **state) {
    (void)state;
    submit(0, 1, 1, false, "");
    submit(0, 2, 2, false, "");
    credit(0, "e", 1, 1, "dispatch 1.1 e1 c1");
    declined(1, 1, 1, 1, 9, "");  // of another credit
    declined(1, 1, 1, 2, 1, "");  // of another incarnation
    declined(1, 1, 2, 1, 1, "");  // of another attempt
    declined(2, 1, 1, 1, 1, "");
    declined(2, 1, 1, 1, 1, "");  // again
    credit(3, "e", 1, 2, "dispatch 1.1 e1 c2"); // before the one that waits for longer
    declined(4, 1, 1, 1, 1, "");                // of the former dispatch
    candidate(5, 1, 1, 1, "e", 1, "judge");
    declined(6, 1, 1, 1, 2, ""); // too late to say
    judged(7, 1, 1, KILN_PLAN_STORED, "store 1");
    credit(8, "e", 1, 3, "dispatch 2.1 e1 c3");
    by_job(9, KILN_PLAN_CANCELLED, 2, 2, "");
    declined(9, 2, 1, 1, 3, "release"); // and nobody waits
}

// What the executor offered before what it did not take is not counted on; what it offered after is.
static void a_decline_voids_older_credits(void **state) {
    (void)state;
    credit(0, "e", 1, 1, "");
    credit(0, "e", 1, 2, "");
    submit(1, 1, 1, false, "dispatch 1.1 e1 c2");
    credit(2, "e", 1, 3, "");
    declined(3, 1, 1, 1, 2, "dispatch 1.1 e1 c3");
    submit(4, 2, 2, false, ""); // not on credit 1
    credit(5, "e", 1, 4, "dispatch 2.1 e1 c4");
}

static void declines_are_bounded(void **state) {
    (void)state;
    submit(0, 1, 1, false, "");
    unsigned char number = 1;
    char expected[64];
    for (unsigned attempt = 1; attempt <= KILN_PLAN_ATTEMPTS_MAX; attempt++) {
        for (unsigned i = 1; i <= KILN_PLAN_DECLINES_MAX; i++, number++) {
            snprintf(expected, sizeof expected, "dispatch 1.%u e1 c%u", attempt, number);
            credit(1, "e", 1, number, expected);
            bool last = attempt == KILN_PLAN_ATTEMPTS_MAX && i == KILN_PLAN_DECLINES_MAX;
            declined(2, 1, attempt, 1, number,
                     last ? "dead declined; answer 1 declined: no executor began the job; release" : "");
        }
    }
}

// The turn of a declined dispatch is given back.
static void a_decline_gives_the_turn_back(void **state) {
    (void)state;
    submit_as(0, "a", "x", 1, 1, false, "");
    submit_as(0, "b", "x", 2, 2, false, "");
    submit_as(0, "b", "x", 3, 3, false, "");
    credit(1, "e", 1, 1, "dispatch 1.1 e1 c1");
    declined(2, 1, 1, 1, 1, "");
    credit(3, "e", 1, 2, "dispatch 1.1 e1 c2");
    credit(4, "e", 1, 3, "dispatch 2.1 e1 c3");
}

static void demands(void **state) {
    (void)state;
    with_demands = true;
    renew(&(struct kiln_plan_config){.lease_ms = 1000000, .upload_ms = UPLOAD});
    struct kiln_plan_event event = {.kind = KILN_PLAN_SUBMITTED, .key = key(1), .job = id(1), .partition = 3, .until_ms = 100000};
    feed(1000, &event, "demand p3 x1");
    assert_int_equal(kiln_plan_next_ms(plan), 1100);
    event.partition = 7;
    for (unsigned char i = 2; i < 5; i++) {
        event.key = key(i);
        event.job = id(i);
        feed(1001, &event, "");
    }
    tick(1099, "");
    tick(1100, "demand p7 x4");
    assert_int_equal(kiln_plan_next_ms(plan), 1200);
    tick(1200, "demand p7 x4"); // nothing came of it
    tick(1399, "");
    assert_int_equal(kiln_plan_next_ms(plan), 1400);
    tick(1400, "demand p7 x4");
    assert_int_equal(kiln_plan_next_ms(plan), 1800);
    credit(1401, "e", 1, 1, "dispatch 1.1 e1 c1"); // it helps: soon again
    assert_int_equal(kiln_plan_next_ms(plan), 1500);
    credit(1402, "e", 1, 2, "dispatch 2.1 e1 c2");
    credit(1402, "e", 1, 3, "dispatch 3.1 e1 c3");
    credit(1402, "e", 1, 4, "dispatch 4.1 e1 c4");
    assert_true(kiln_plan_next_ms(plan) > 50000); // nobody waits for an executor
    credit(1403, "e", 1, 5, "");
    event.key = key(5);
    event.job = id(5);
    feed(1404, &event, "dispatch 5.1 e1 c5");
    event.key = key(6);
    event.job = id(6);
    event.partition = 0;
    feed(1405, &event, "");
    tick(1500, "demand p0 x1");
}

static void submit_to(uint64_t now_ms, uint32_t partition, unsigned char action, unsigned char job, bool lacking,
                      const char *expected) {
    feed(now_ms, &(struct kiln_plan_event){.kind = KILN_PLAN_SUBMITTED, .key = key(action), .job = id(job),
                                           .partition = partition, .until_ms = 10000, .lacking = lacking}, expected);
}

static void a_lost_partition(void **state) {
    (void)state;
    submit_to(0, 1, 1, 1, true, "want 1");
    submit_to(0, 1, 2, 2, false, "");
    submit_to(0, 2, 3, 3, false, "");
    credit(1, "e", 1, 1, "dispatch 2.1 e1 c1");
    submit_to(1, 1, 4, 4, false, "");
    of_partition(2, KILN_PLAN_LOST, 1, "release; release; release");
    candidate(3, 2, 2, 1, "e", 1, "discard unknown");
    of_partition(3, KILN_PLAN_LOST, 1, "");
    credit(4, "e", 1, 2, "dispatch 3.1 e1 c2");
    assert_int_equal(kiln_plan_flights(plan), 1);
    of_partition(5, KILN_PLAN_LOST, KILN_PLAN_PARTITIONS_MAX, "");
}

static struct kiln_plan_event waiter_of(unsigned char action, unsigned char job, bool lacking) {
    return (struct kiln_plan_event){.kind = KILN_PLAN_RESTORE_WAITER, .key = key(action), .job = id(job), .partition = 1,
                                    .until_ms = 10000, .lacking = lacking};
}

static struct kiln_plan_event flight_of(unsigned char action, unsigned char job, uint32_t attempt, const char *executor,
                                        unsigned char incarnation, uint64_t until_ms) {
    return (struct kiln_plan_event){.kind = KILN_PLAN_RESTORE_FLIGHT, .key = key(action), .job = id(job), .partition = 1,
                                    .attempt = attempt, .executor = executor, .pool = "p", .incarnation = id(incarnation),
                                    .until_ms = until_ms};
}

static void restored(void **state) {
    (void)state;
    credit(0, "f", 2, 9, "");
    of_partition(0, KILN_PLAN_GAINED, 1, "");
    struct kiln_plan_event one = waiter_of(1, 11, false), other = waiter_of(1, 1, false);
    feed(1, &one, ""); // in any order
    struct kiln_plan_event running = flight_of(1, 1, 2, "e", 1, 500);
    feed(1, &running, "");
    feed(1, &running, ""); // twice is once
    feed(1, &other, "");
    struct kiln_plan_event wanted = waiter_of(2, 2, true), ready = waiter_of(3, 3, false), tried = flight_of(3, 3, 2, NULL, 0, 0);
    feed(1, &wanted, "");
    feed(1, &tried, "");
    feed(1, &ready, "");
    struct kiln_plan_event forlorn = flight_of(4, 4, 1, "e", 1, 500);
    feed(1, &forlorn, "");
    submit_to(2, 1, 5, 5, false, ""); // held too
    assert_int_equal(kiln_plan_state_of(plan, &running.key), KILN_PLAN_HELD);
    of_partition(3, KILN_PLAN_RESTORED, 1, "want 2; release; dispatch 3.3 f2 c9");
    tick(52, "");
    candidate(400, 1, 1, 2, "e", 1, "judge");
    judged(401, 1, 2, KILN_PLAN_STORED, "store 2");
    filed(402, 1, KILN_PLAN_STORED, "answer 11 1 stored; release");
}

static void restored_too_late(void **state) {
    (void)state;
    of_partition(0, KILN_PLAN_GAINED, 1, "");
    struct kiln_plan_event waits = waiter_of(1, 1, false), running = flight_of(1, 1, 2, "e", 1, 500);
    running.troubles = 1;
    feed(0, &running, "");
    feed(0, &waits, "");
    of_partition(1, KILN_PLAN_RESTORED, 1, "");
    tick(499, "");
    tick(500, "");
    credit(501, "f", 2, 1, "dispatch 1.3 f2 c1"); // its last
    candidate(502, 1, 1, 2, "e", 1, "discard late");
    candidate(503, 1, 1, 3, "f", 2, "judge");
    judged(504, 1, 3, KILN_PLAN_AGAIN, "dead judged so; answer 1 judged so; release"); // and the second trouble
    of_partition(600, KILN_PLAN_GAINED, 1, "");
    running.attempt = KILN_PLAN_ATTEMPTS_MAX;
    running.executor = NULL;
    feed(600, &running, "");
    feed(600, &waits, "");
    of_partition(601, KILN_PLAN_RESTORED, 1,
                 "dead executor_lost; answer 1 executor_lost: no executor finished the job; release");
    of_partition(700, KILN_PLAN_GAINED, 1, "");
    running.attempt = UINT32_MAX; // whatever the record says
    running.executor = "e";
    feed(700, &running, "");
    feed(700, &waits, "");
    of_partition(701, KILN_PLAN_LOST, 1, "release");
    feed(702, &running, ""); // not while nothing is restored
    assert_int_equal(kiln_plan_flights(plan), 0);
}

// Its content has gone while it ran: what it gives could not be judged, nor could it be run again.
static void restored_without_content(void **state) {
    (void)state;
    of_partition(0, KILN_PLAN_GAINED, 1, "");
    struct kiln_plan_event waits = waiter_of(1, 1, true), running = flight_of(1, 1, 1, "e", 1, 300);
    feed(0, &running, "");
    feed(0, &waits, "");
    of_partition(1, KILN_PLAN_RESTORED, 1, "want 1");
    credit(2, "f", 2, 1, "");
    candidate(3, 1, 1, 1, "e", 1, "discard late");
    tick(40, "");
    by_job(41, KILN_PLAN_UPLOADED, 1, 1, "dispatch 1.2 f2 c1");
}

// The verifier that takes over knows a newer incarnation, or an older one, of who runs the job.
static void restored_with_another_incarnation(void **state) {
    (void)state;
    credit(0, "e", 2, 1, "");
    of_partition(0, KILN_PLAN_GAINED, 1, "");
    struct kiln_plan_event waits = waiter_of(1, 1, false), running = flight_of(1, 1, 1, "e", 1, 300);
    feed(0, &running, "");
    feed(0, &waits, "");
    of_partition(1, KILN_PLAN_RESTORED, 1, "");
    submit(2, 2, 2, false, "dispatch 2.1 e2 c1"); // who is current stays current
    candidate(3, 1, 1, 1, "e", 1, "judge");
    judged(4, 1, 1, KILN_PLAN_STORED, "store 1");
}

static void restored_agreement(void **state) {
    (void)state;
    of_partition(0, KILN_PLAN_GAINED, 1, "");
    struct kiln_plan_event waits = waiter_of(1, 1, false), running = flight_of(1, 1, 2, "e", 1, 300);
    running.agreement = waits.agreement = 2;
    feed(0, &running, "");
    running = flight_of(1, 1, 1, "f", 2, 300);
    running.pool = "q";
    feed(0, &running, "");
    feed(0, &waits, "");
    of_partition(1, KILN_PLAN_RESTORED, 1, "");
    candidate(2, 1, 1, 1, "f", 2, "judge");
    judged(2, 1, 1, KILN_PLAN_STORED, "");
    candidate(3, 1, 1, 2, "e", 1, "judge");
    judged(3, 1, 2, KILN_PLAN_STORED, "store 2 1");
}

// Two in one pool are one voice, also when it was another verifier that sent them there.
static void restored_in_one_pool(void **state) {
    (void)state;
    of_partition(0, KILN_PLAN_GAINED, 1, "");
    struct kiln_plan_event waits = waiter_of(1, 1, false), running = flight_of(1, 1, 2, "e", 1, 300);
    running.agreement = waits.agreement = 2;
    feed(0, &running, "");
    running = flight_of(1, 1, 1, "f", 2, 300);
    feed(0, &running, "");
    feed(0, &waits, "");
    of_partition(1, KILN_PLAN_RESTORED, 1, "");
    candidate(2, 1, 1, 1, "f", 2, "judge");
    judged(2, 1, 1, KILN_PLAN_STORED, "");
    candidate(3, 1, 1, 2, "e", 1, "judge");
    judged(3, 1, 2, KILN_PLAN_STORED, "");
    credit_in(4, "q", "g", 3, 1, "dispatch 1.3 g3 c1");
    candidate(5, 1, 1, 3, "g", 3, "judge");
    judged(5, 1, 3, KILN_PLAN_STORED, "store 2 3");
}

static void restored_troubles_count(void **state) {
    (void)state;
    of_partition(0, KILN_PLAN_GAINED, 1, "");
    struct kiln_plan_event waits = waiter_of(1, 1, false), running = flight_of(1, 1, 1, "e", 1, 300);
    running.troubles = 1;
    feed(0, &running, "");
    feed(0, &waits, "");
    of_partition(1, KILN_PLAN_RESTORED, 1, "");
    candidate(2, 1, 1, 1, "e", 1, "judge");
    judged(2, 1, 1, KILN_PLAN_AGAIN, "dead judged so; answer 1 judged so; release");
}

static void a_revoked_executor(void **state) {
    (void)state;
    credit_in(0, "p", "bad", 1, 1, "");
    credit_in(0, "p", "bad", 1, 2, "");
    credit_in(0, "p", "bad", 1, 3, "");
    submit_agreed(0, 1, 1, 2, "dispatch 1.1 bad1 c3");
    submit(0, 2, 2, false, "dispatch 2.1 bad1 c2");
    candidate(1, 1, 1, 1, "bad", 1, "judge");
    judged(1, 1, 1, KILN_PLAN_STORED, "");
    feed(2, &(struct kiln_plan_event){.kind = KILN_PLAN_REVOKED, .executor = "bad"}, "");
    feed(2, &(struct kiln_plan_event){.kind = KILN_PLAN_REVOKED, .executor = "unknown"}, "");
    submit(3, 3, 3, false, ""); // its credit is void
    candidate(4, 2, 2, 1, "bad", 1, "discard late");
    credit_in(5, "q", "e", 2, 4, "dispatch 1.2 e2 c4");
    credit_in(5, "q", "e", 2, 5, "dispatch 2.2 e2 c5");
    candidate(6, 1, 1, 2, "e", 2, "judge");
    judged(6, 1, 2, KILN_PLAN_STORED, ""); // what it gave counts no more
    credit_in(7, "r", "f", 3, 6, "dispatch 1.3 f3 c6");
    candidate(8, 1, 1, 3, "f", 3, "judge");
    judged(8, 1, 3, KILN_PLAN_STORED, "store 2 3");
}

static void storing_fails(void **state) {
    (void)state;
    credit(0, "e", 1, 1, "");
    submit(0, 1, 1, false, "dispatch 1.1 e1 c1");
    filed(0, 1, KILN_PLAN_STORED, ""); // nothing to file yet
    candidate(1, 1, 1, 1, "e", 1, "judge");
    judged(1, 1, 1, KILN_PLAN_STORED, "store 1");
    filed(2, 1, KILN_PLAN_AGAIN, "check");
    checked(3, 1, false, "");
    credit(4, "e", 1, 2, "dispatch 1.2 e1 c2");
    candidate(5, 1, 1, 2, "e", 1, "judge");
    judged(5, 1, 2, KILN_PLAN_STORED, "store 2");
    filed(6, 1, KILN_PLAN_LOCALLY, "answer 1 filed so; release");
}

// More tenants wait for what nobody offers than one step looks at: it goes on with the next, and finds the one that can.
static void a_long_look_is_taken_in_steps(void **state) {
    (void)state;
    struct kiln_plan_event event = {.kind = KILN_PLAN_SUBMITTED, .until_ms = 100000, .agreement = 2};
    unsigned tenants = 600;
    char name[16];
    for (unsigned i = 0; i < tenants; i++) {
        snprintf(name, sizeof name, "t%u", i);
        event.tenant = name;
        memcpy(event.key.action.bytes, &i, sizeof i);
        memcpy(event.job.bytes, &i, sizeof i);
        struct kiln_plan_event offered = {.kind = KILN_PLAN_CREDIT, .executor = "e", .pool = "p", .incarnation = id(1),
                                          .until_ms = 100000};
        memcpy(offered.credit.bytes, &i, sizeof i);
        feed(0, &event, "");
        struct kiln_plan_actions actions = {0};
        assert_int_equal(kiln_plan_step(plan, &offered, 0, &actions, NULL), 0);
        kiln_plan_actions_release(&actions);
        while (kiln_plan_next_ms(plan) == 0) {
            assert_int_equal(kiln_plan_step(plan, &(struct kiln_plan_event){.kind = KILN_PLAN_TICK}, 0, &actions, NULL), 0);
            kiln_plan_actions_release(&actions);
        }
    }
    credit_in(1, "p", "e", 1, 250, "");
    submit_as(1, "late", "x", 255, 255, false, "");
    unsigned ticks = 0;
    for (; kiln_plan_state_of(plan, &(struct kiln_plan_key){.scope = "local", .action = {{255}}}) == KILN_PLAN_READY; ticks++) {
        assert_true(ticks < 10);
        assert_int_equal(kiln_plan_next_ms(plan), 0);
        struct kiln_plan_actions actions = {0};
        assert_int_equal(kiln_plan_step(plan, &(struct kiln_plan_event){.kind = KILN_PLAN_TICK}, 2, &actions, NULL), 0);
        kiln_plan_actions_release(&actions);
    }
    assert_true(ticks >= 1);
}

// Whoever was silent for longest makes place, unless it has something to do.
static void as_many_executors_as_may(void **state) {
    (void)state;
    struct kiln_pool pool;
    struct kiln_run run = {.attempt = 1};
    assert_int_equal(kiln_pool_init(&pool, 1), 0);
    for (unsigned i = 0; i < KILN_PLAN_EXECUTORS_MAX + 10; i++) {
        char name[16];
        struct kiln_job_id incarnation = {{0}}, former;
        struct kiln_pool_executor *executor;
        snprintf(name, sizeof name, "e%u", i);
        memcpy(incarnation.bytes, &i, sizeof i);
        kiln_pool_meet(&pool, name, "p", &incarnation, i, &former, &executor);
        assert_non_null(executor);
        if (i == 0)
            LIST_INSERT_HEAD(&executor->runs, &run, executor_link);
    }
    assert_int_equal(pool.executors_count, KILN_PLAN_EXECUTORS_MAX);
    assert_non_null(kiln_pool_find(&pool, "e0"));
    assert_null(kiln_pool_find(&pool, "e1"));
    assert_null(kiln_pool_find(&pool, "e10"));
    assert_non_null(kiln_pool_find(&pool, "e11"));
    kiln_pool_release(&pool);
}

static void as_many_jobs_as_may(void **state) {
    (void)state;
    struct kiln_plan_event event = {.kind = KILN_PLAN_SUBMITTED, .key = key(1), .until_ms = 100000};
    for (unsigned i = 0; i < KILN_PLAN_JOBS_MAX; i++) {
        unsigned flight = i / KILN_PLAN_WAITERS_MAX;
        memcpy(event.key.action.bytes + 8, &flight, sizeof flight);
        memcpy(event.job.bytes, &i, sizeof i);
        feed(0, &event, "");
    }
    submit(0, 2, 255, false, "answer 255 busy: too many jobs wait");
    by_job(1, KILN_PLAN_CANCELLED, 1, 7, "");
    submit(2, 2, 255, false, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(a_quota_for_each_tenant),
        CASE(many_jobs_delay_one_by_one_turn),
        CASE(a_shared_flight_stands_in_each_queue),
        CASE(a_tenant_leaves_a_shared_flight),
        CASE(asks_each_submitter_in_turn),
        CASE(pools_agree),
        CASE(a_liar_is_named),
        CASE(nobody_agrees),
        CASE(agreement_needs_others),
        CASE(too_few_pools),
        CASE(one_says_there_is_no_result),
        CASE(another_executor_first),
        CASE(a_decline_costs_nothing),
        CASE(a_decline_voids_older_credits),
        CASE(declines_are_bounded),
        CASE(a_decline_gives_the_turn_back),
        CASE(demands),
        CASE(a_lost_partition),
        CASE(restored),
        CASE(restored_too_late),
        CASE(restored_without_content),
        CASE(restored_with_another_incarnation),
        CASE(restored_agreement),
        CASE(restored_in_one_pool),
        CASE(restored_troubles_count),
        CASE(a_revoked_executor),
        CASE(storing_fails),
        CASE(a_long_look_is_taken_in_steps),
        CASE(as_many_executors_as_may),
        CASE(as_many_jobs_as_may),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
