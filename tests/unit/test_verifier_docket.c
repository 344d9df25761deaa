// The docket in a fleet: one job's way, what it writes down, and what comes back after it died.
#include "tests/unit/docket_rig.h"

static void one_job(struct world *world, const char *agent, unsigned char number, const char *scope) {
    struct kiln_job_submitted record;
    kiln_autoresult struct kiln_result result = {0};
    world_submission(world, agent, number, scope, &record);
    world_submit(world, agent, &record);
    size_t accepted = world->accepted;
    world_expect(world, agent, KILN_ANSWER_WANTED, NULL);
    assert_int_equal(world->accepted, accepted + 1);
    world_upload(world, agent, &record);
    world_credit(world, "executor-1");
    world_work(world, "executor-1", "an rlib");
    world_expect_result(world, agent, scope, &result);
    assert_int_equal(world->accepted, accepted + 1);
    assert_int_equal(result.attestations_count, 1);
    assert_string_equal(result.attestations[0].executor, "executor-1");
    assert_string_equal(result.policy, "agreement=1");
    kiln_job_submitted_release(&record);
}

static void goes_the_whole_way(void **state) {
    struct world *world = *state;
    static const char *const events[] = {"submitted", "wanted", "uploaded", "dispatched", "judged", "result", "stored"};
    one_job(world, "agent-1", 1, "blue");
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        if (world_ledger(world, events[i]) != 1)
            fail_msg("%zu times \"%s\" in the ledger", world_ledger(world, events[i]), events[i]);
    }
    assert_int_equal(world_state(world), 0); // tombstones for all that was written
    assert_int_equal(kiln_docket_flights(world->docket), 0);
    struct kiln_job_submitted record;
    kiln_autoresult struct kiln_result result = {0};
    world_submission(world, "agent-2", 2, "blue", &record);
    world_submit(world, "agent-2", &record); // known
    world_expect_result(world, "agent-2", "blue", &result);
    assert_int_equal(world_state(world), 0);
    assert_int_equal(world_ledger(world, "dispatched"), 1);
    kiln_job_submitted_release(&record);
}

static void one_execution_for_all_that_wait(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    for (unsigned char i = 1; i <= 100; i++) {
        const char *agent = i % 2 ? "agent-1" : "agent-2";
        world_submission(world, agent, i, "blue", &record);
        world_submit(world, agent, &record);
        kiln_job_submitted_release(&record);
    }
    assert_int_equal(world_state(world), 100);
    world_submission(world, "agent-1", 1, "blue", &record);
    world_upload(world, "agent-1", &record);
    world_credit(world, "executor-1");
    world_credit(world, "executor-2");
    world_work(world, "executor-1", "an rlib");
    assert_int_equal(world_ledger(world, "dispatched"), 1);
    assert_int_equal(world_ledger(world, "result"), 100);
    assert_int_equal(world_state(world), 0);
    kiln_job_submitted_release(&record);
}

// The tenants have the same content; neither learns that the other has it.
static void tenants_share_nothing(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    struct kiln_answer answer = {0};
    one_job(world, "agent-1", 1, "blue");
    world_submission(world, "agent-3", 1, "red", &record);
    world_submit(world, "agent-3", &record);
    const struct kiln_author author = world_author(world, "agent-3");
    assert_true(world_answer(world, &author, &answer));
    assert_int_equal(answer.status, KILN_ANSWER_WANTED);
    assert_int_equal(answer.contents_count, RIG_CONTENTS);
    kiln_answer_release(&answer);
    kiln_job_submitted_release(&record);
}

static void agrees(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    kiln_autoresult struct kiln_result result = {0};
    world->options.agreement_tenant = 2;
    world_restart(world);
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_upload(world, "agent-1", &record);
    world_credit(world, "executor-1");
    world_work(world, "executor-1", "an rlib");
    assert_int_equal(world_ledger(world, "stored"), 0); // one is not enough
    world_credit(world, "executor-2");
    world_work(world, "executor-2", "an rlib");
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_expect_result(world, "agent-1", "blue", &result);
    assert_int_equal(result.attestations_count, 2);
    assert_string_equal(result.policy, "agreement=2");
    assert_int_equal(world_events(world, "divergence", NULL), 0);
    kiln_job_submitted_release(&record);
}

// The liar comes first, and is named; what is signed is what the two others gave.
static void names_the_one_that_lies(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    kiln_autoresult struct kiln_result result = {0};
    struct kiln_digest honest;
    kiln_digest_of("an rlib", 7, &honest);
    world->options.agreement_tenant = 2;
    world_restart(world);
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_upload(world, "agent-1", &record);
    world_credit(world, "executor-1");
    world_work(world, "executor-1", "a trap");
    world_credit(world, "executor-2");
    world_work(world, "executor-2", "an rlib");
    world_expect_event(world, "divergence", NULL);
    assert_int_equal(world_ledger(world, "stored"), 0);
    world_credit(world, "executor-3");
    world_work(world, "executor-3", "an rlib");
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_expect_result(world, "agent-1", "blue", &result);
    bool found = false, named = false;
    for (size_t i = 0; i < result.outputs_count; i++)
        found |= kiln_digest_equal(&result.outputs[i].digest, &honest);
    assert_true(found);
    for (size_t i = 0; i < result.attestations_count; i++)
        assert_string_not_equal(result.attestations[i].executor, "executor-1");
    for (size_t i = 0; i < world->bus->count; i++) {
        const struct kiln_record *sent = &world->bus->sent[i].record;
        struct kiln_event event = {0};
        if (sent->topic != KILN_TOPIC_EVENTS)
            continue;
        assert_int_equal(kiln_event_decode(sent->value, sent->value_len, &event, NULL), 0);
        named |= strcmp(event.name, "divergence") == 0 && strcmp(event.subject, "executor-1") == 0 &&
                 strncmp(event.detail, "dissents", 8) == 0;
        kiln_event_release(&event);
    }
    assert_true(named);
    kiln_job_submitted_release(&record);
}

// Killed while it asked for content: after the restart the waiter is asked again, also when nobody says anything.
static void asks_again_after_a_restart(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    kiln_autoresult struct kiln_result result = {0};
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    assert_true(world_is_acked(world, KILN_TOPIC_JOBS, 0));
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    assert_int_equal(world_state(world), 1);
    world_restart(world);
    for (uint32_t i = 0; i < PARTITIONS; i++)
        world_news(world, KILN_NEWS_GAINED, i);
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_upload(world, "agent-1", &record);
    world_credit(world, "executor-1");
    world_work(world, "executor-1", "an rlib");
    world_expect_result(world, "agent-1", "blue", &result);
    assert_int_equal(world_state(world), 0);
    kiln_job_submitted_release(&record);
}

// Killed while it ran: the candidate of the run that goes on is taken, and nothing is dispatched twice.
static void goes_on_with_what_runs(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    struct kiln_work work = {0};
    struct kiln_candidate candidate;
    kiln_autoresult struct kiln_result result = {0};
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_upload(world, "agent-1", &record);
    world_credit(world, "executor-1");
    assert_int_equal(world_works(world, &work), 1);
    assert_int_equal(world_state(world), 2);
    world_restart(world);
    for (uint32_t i = 0; i < PARTITIONS; i++)
        world_news(world, KILN_NEWS_GAINED, i);
    world_credit(world, "executor-2");
    assert_int_equal(world_works(world, &work), 1);
    world_candidate(world, "executor-1", &work, "an rlib", &candidate);
    world_deliver(world, "executor-1", &candidate);
    world_expect_result(world, "agent-1", "blue", &result);
    assert_int_equal(world_state(world), 0);
    kiln_candidate_release(&candidate);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
}

// Killed between storing and answering: the answer comes from the vault.
static void answers_what_was_stored_after_a_restart(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    kiln_autoresult struct kiln_result result = {0};
    one_job(world, "agent-1", 1, "blue");
    world_submission(world, "agent-2", 2, "blue", &record);
    kiln_autobuf struct kiln_buf framed = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_int_equal(kiln_job_submitted_encode(&record, &framed, NULL), 0);
    const struct kiln_author author = world_author(world, "agent-2");
    struct kiln_state_waiter waiter = {.tenant = strdup("blue"), .principal = strdup("agent-2"),
                                       .incarnation = author.incarnation, .received_ms = kiln_clock_wall_ms(),
                                       .submission = framed.data, .submission_len = framed.len};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_int_equal(kiln_state_waiter_encode(&waiter, &bytes, NULL), 0);
    unsigned char key[48];
    memcpy(key, record.action_digest.bytes, 32);
    memcpy(key + 32, record.job.bytes, 16);
    uint32_t partition = world_partition(world, &record.action_digest);
    assert_int_equal(kiln_bus_publish(&world->bus->bus, KILN_TOPIC_STATE, partition, key, sizeof key, bytes.data, bytes.len, NULL), 0);
    world_restart(world);
    world_news(world, KILN_NEWS_GAINED, partition);
    world_expect_result(world, "agent-2", "blue", &result);
    assert_int_equal(world_ledger(world, "dispatched"), 1);
    assert_int_equal(world_state(world), 0);
    free(waiter.tenant);
    free(waiter.principal);
    kiln_job_submitted_release(&record);
}

static void a_lost_partition_is_the_next_owners(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    struct kiln_work work = {0};
    struct kiln_candidate candidate;
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_upload(world, "agent-1", &record);
    world_credit(world, "executor-1");
    assert_int_equal(world_works(world, &work), 1);
    size_t before = world_state(world);
    world_news(world, KILN_NEWS_LOST, world_partition(world, &record.action_digest));
    assert_int_equal(kiln_docket_flights(world->docket), 0);
    assert_int_equal(world_state(world), before); // nothing deleted
    world_candidate(world, "executor-1", &work, "an rlib", &candidate);
    world_deliver(world, "executor-1", &candidate);
    world_expect_silence(world, "agent-1");
    assert_int_equal(world_ledger(world, "stored"), 0);
    kiln_candidate_release(&candidate);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
}

// A candidate is acked when its flight has gone, not before: after a crash it is judged again.
static void a_candidate_is_acked_at_the_end(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    world->options.agreement_tenant = 2;
    world_restart(world);
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_upload(world, "agent-1", &record);
    world_credit(world, "executor-1");
    world_work(world, "executor-1", "an rlib");
    assert_int_equal(world_ledger(world, "judged"), 1);
    assert_false(world_is_acked(world, KILN_TOPIC_CANDIDATES, 0));
    world_credit(world, "executor-2");
    world_work(world, "executor-2", "an rlib");
    assert_true(world_is_acked(world, KILN_TOPIC_CANDIDATES, world->offset - 1));
    kiln_job_submitted_release(&record);
}

static void a_cancelled_waiter_is_forgotten(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_cancel(world, "agent-1", &record);
    assert_int_equal(world_state(world), 0);
    assert_int_equal(kiln_docket_flights(world->docket), 0);
    world_expect_silence(world, "agent-1");
    kiln_job_submitted_release(&record);
}

// No waiter is acked that is not written down.
static void what_cannot_be_written_down_is_not_taken(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    world_submission(world, "agent-1", 1, "blue", &record);
    world->bus->full = true;
    world_submit(world, "agent-1", &record);
    world->bus->full = false;
    assert_int_equal(kiln_docket_flights(world->docket), 0);
    assert_int_equal(world_state(world), 0);
    kiln_job_submitted_release(&record);
}

static void signs_nothing_without_trust(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_upload(world, "agent-1", &record);
    world_credit(world, "executor-1");
    world->trust.issued_ms = kiln_clock_wall_ms();
    world->trust.expires_ms = kiln_clock_wall_ms() + 200;
    world_publish_trust(world);
    uint64_t deadline_ms = kiln_clock_ms() + WORLD_MS;
    while (kiln_keeper_valid(world->keeper, NULL) == 0)
        assert_true(kiln_clock_ms() < deadline_ms);
    world_work(world, "executor-1", "an rlib");
    assert_int_equal(world_ledger(world, "stored"), 0);
    world_expect(world, "agent-1", KILN_ANSWER_COMPILE_LOCALLY, NULL);
    kiln_job_submitted_release(&record);
    world_submission(world, "agent-1", 2, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_COMPILE_LOCALLY, "trust_expired");
    kiln_job_submitted_release(&record);
}

static void a_revoked_executor_is_given_up(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    struct kiln_work work = {0};
    kiln_autoresult struct kiln_result result = {0};
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_upload(world, "agent-1", &record);
    world_credit(world, "executor-1");
    rig_revoke(&world->trust, KILN_REVOKED_EXECUTOR, "executor-1", 0);
    world_publish_trust(world);
    world_tick(world);
    world_expect_event(world, "executor_revoked", "executor-1");
    world_credit(world, "executor-2");
    assert_int_equal(world_works(world, &work), 2);
    world_work(world, "executor-2", "an rlib");
    world_expect_result(world, "agent-1", "blue", &result);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
}

// What a revoked executor gave is a miss, and can be had again at once.
static void a_result_of_a_revoked_executor_is_made_anew(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    kiln_autoresult struct kiln_result result = {0};
    one_job(world, "agent-1", 1, "blue");
    rig_revoke(&world->trust, KILN_REVOKED_EXECUTOR, "executor-1", 0);
    world_publish_trust(world);
    world_submission(world, "agent-2", 2, "blue", &record);
    world_submit(world, "agent-2", &record);
    world_credit(world, "executor-2");
    world_work(world, "executor-2", "an rlib");
    world_expect_result(world, "agent-2", "blue", &result);
    assert_string_equal(result.attestations[0].executor, "executor-2");
    kiln_job_submitted_release(&record);
}

static void a_tenant_has_a_quota_of_bytes(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    world->options.quota_bytes = 16;
    world_restart(world);
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_REJECTED, "quota_bytes: ");
    world_expect_event(world, "quota_bytes", "agent-1");
    kiln_job_submitted_release(&record);
}

static void a_flight_that_nobody_finishes_is_a_dead_letter(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    struct kiln_work work = {0};
    world->options.plan.lease_ms = 1;
    world_restart(world);
    world_submission(world, "agent-1", 1, "blue", &record);
    world_submit(world, "agent-1", &record);
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_upload(world, "agent-1", &record);
    const struct kiln_author author = world_author(world, "agent-1");
    struct kiln_answer answer = {0};
    uint64_t deadline_ms = kiln_clock_ms() + WORLD_MS;
    for (unsigned i = 0; !world_answer(world, &author, &answer); i++) {
        static const char *const executors[] = {"executor-1", "executor-2", "executor-3"};
        assert_true(kiln_clock_ms() < deadline_ms);
        world_credit(world, executors[i % 3]);
        world_tick(world);
    }
    assert_int_equal(answer.status, KILN_ANSWER_COMPILE_LOCALLY);
    world_expect_event(world, "dead_job", NULL);
    kiln_answer_release(&answer);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        world_test(goes_the_whole_way),
        world_test(one_execution_for_all_that_wait),
        world_test(tenants_share_nothing),
        world_test(agrees),
        world_test(names_the_one_that_lies),
        world_test(asks_again_after_a_restart),
        world_test(goes_on_with_what_runs),
        world_test(answers_what_was_stored_after_a_restart),
        world_test(a_lost_partition_is_the_next_owners),
        world_test(a_candidate_is_acked_at_the_end),
        world_test(a_cancelled_waiter_is_forgotten),
        world_test(what_cannot_be_written_down_is_not_taken),
        world_test(signs_nothing_without_trust),
        world_test(a_revoked_executor_is_given_up),
        world_test(a_result_of_a_revoked_executor_is_made_anew),
        world_test(a_tenant_has_a_quota_of_bytes),
        world_test(a_flight_that_nobody_finishes_is_a_dead_letter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
