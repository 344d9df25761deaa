// What executors say while a partition changes hands, and what one says of another's run: the verifier takes it, or refuses it
// by name, and goes on.
#include "tests/unit/docket_rig.h"

// A job that runs on executor-1.
static void begin_job(struct world *world, struct kiln_job_submitted *record, struct kiln_work *work) {
    world_submission(world, "agent-1", 1, "blue", record);
    world_submit(world, "agent-1", record);
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_upload(world, "agent-1", record);
    world_credit(world, "executor-1");
    assert_int_equal(world_works(world, work), 1);
}

// As world_feed and world_news, but what it causes is still under way.
static void take(struct world *world, const struct kiln_record *record) {
    struct kiln_err err = {0};
    if (kiln_docket_take(world->docket, record, &err))
        fail_msg("%s", err.text);
}

static void gain_at_once(struct world *world, uint32_t partition) {
    take(world, &(struct kiln_record){.topic = KILN_TOPIC_JOBS, .news = KILN_NEWS_GAINED, .partition = partition});
}

static void deliver_at_once(struct world *world, const char *executor, const struct kiln_candidate *candidate) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_int_equal(kiln_candidate_encode(candidate, &bytes, NULL), 0);
    take(world, &(struct kiln_record){.topic = KILN_TOPIC_CANDIDATES, .author = world_author(world, executor),
                                      .partition = world_partition(world, &candidate->action_digest),
                                      .offset = world->offset++, .value = bytes.data, .value_len = bytes.len});
}

static void a_lease_of_anothers_run(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    struct kiln_work work = {0};
    kiln_autoresult struct kiln_result result = {0};
    begin_job(world, &record, &work);
    const struct kiln_author other = world_author(world, "executor-2");
    const struct kiln_lease lease = {.job = work.job, .incarnation = other.incarnation, .attempt = work.attempt,
                                     .at_ms = kiln_clock_wall_ms()};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_int_equal(kiln_lease_encode(&lease, &bytes, NULL), 0);
    world_feed(world, KILN_TOPIC_LEASES, world_partition(world, &record.action_digest), &other, &bytes);
    world_expect_event(world, "not_dispatched", "executor-2");
    world_work(world, "executor-1", "an rlib");
    world_expect_result(world, "agent-1", "blue", &result);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
}

// The executor finished while nobody owned the partition: its candidate is the first thing that the next owner reads.
static void a_candidate_that_comes_while_restoring(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    struct kiln_work work = {0};
    struct kiln_candidate candidate;
    kiln_autoresult struct kiln_result result = {0};
    begin_job(world, &record, &work);
    world_restart(world);
    gain_at_once(world, world_partition(world, &record.action_digest));
    world_candidate(world, "executor-1", &work, "an rlib", &candidate);
    deliver_at_once(world, "executor-1", &candidate);
    world_settle(world);
    world_expect_result(world, "agent-1", "blue", &result);
    assert_int_equal(world_ledger(world, "discarded"), 0);
    assert_int_equal(world_works(world, &work), 1);
    assert_true(world_is_acked(world, KILN_TOPIC_CANDIDATES, world->offset - 1));
    kiln_candidate_release(&candidate);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
}

// The partition goes on to somebody else before it was restored: the candidate is the next owner's, and stays where it is.
static void a_candidate_that_is_the_next_owners(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    struct kiln_work work = {0};
    struct kiln_candidate candidate;
    kiln_autoresult struct kiln_result result = {0};
    begin_job(world, &record, &work);
    uint32_t partition = world_partition(world, &record.action_digest);
    world_restart(world);
    gain_at_once(world, partition);
    world_candidate(world, "executor-1", &work, "an rlib", &candidate);
    deliver_at_once(world, "executor-1", &candidate);
    world_news(world, KILN_NEWS_LOST, partition);
    world_expect_silence(world, "agent-1");
    assert_int_equal(world_ledger(world, "discarded"), 0);
    world_news(world, KILN_NEWS_GAINED, partition);
    world_deliver(world, "executor-1", &candidate);
    world_expect_result(world, "agent-1", "blue", &result);
    kiln_candidate_release(&candidate);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
}

// What the run needs has gone meanwhile: it is asked for again, and what the run gives is not taken.
static void content_that_went_while_nobody_looked(void **state) {
    struct world *world = *state;
    struct kiln_job_submitted record;
    struct kiln_work work = {0};
    struct kiln_candidate candidate;
    kiln_autoresult struct kiln_result result = {0};
    begin_job(world, &record, &work);
    kiln_autofree char *blob = kiln_key_content("blob", "blue", &world->rig->contents[2].digest);
    assert_int_equal(kiln_store_remove(world->rig->verifier, KILN_SPACE_INPUTS, blob, NULL), 0);
    world_restart(world);
    world_news(world, KILN_NEWS_GAINED, world_partition(world, &record.action_digest));
    world_expect(world, "agent-1", KILN_ANSWER_WANTED, NULL);
    world_candidate(world, "executor-1", &work, "an rlib", &candidate);
    world_deliver(world, "executor-1", &candidate);
    world_expect_silence(world, "agent-1");
    world_upload(world, "agent-1", &record);
    world_credit(world, "executor-2");
    world_work(world, "executor-2", "an rlib");
    world_expect_result(world, "agent-1", "blue", &result);
    kiln_candidate_release(&candidate);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
}

static size_t count_sent(const struct world *world, enum kiln_topic topic) {
    size_t count = 0;
    for (size_t i = 0; i < world->bus->count; i++)
        count += world->bus->sent[i].record.topic == topic;
    return count;
}

// Nobody could ever use it: it is buried by the first owner, and the next one does not see it again.
static void a_state_that_nobody_can_read(void **state) {
    struct world *world = *state;
    static const struct kiln_job_cancelled misplaced = {.job = {{1}}};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    struct kiln_err err = {0};
    assert_ok(kiln_job_cancelled_encode(&misplaced, &bytes, &err));
    assert_ok(kiln_bus_publish(&world->bus->bus, KILN_TOPIC_STATE, 1, "one", 3, bytes.data, bytes.len, &err));
    bytes.data[4] = 0x25; // a state_waiter, it says
    assert_ok(kiln_bus_publish(&world->bus->bus, KILN_TOPIC_STATE, 1, "two", 3, bytes.data, bytes.len, &err));
    assert_int_equal(world_state(world), 2);
    for (int round = 0; round < 2; round++) {
        world_restart(world);
        world_news(world, KILN_NEWS_GAINED, 1);
        assert_int_equal(count_sent(world, KILN_TOPIC_DLQ), 2);
        assert_int_equal(world_state(world), 0);
    }
    world_expect_event(world, "restored", "verifier-1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        world_test(a_lease_of_anothers_run),
        world_test(a_candidate_that_comes_while_restoring),
        world_test(a_candidate_that_is_the_next_owners),
        world_test(content_that_went_while_nobody_looked),
        world_test(a_state_that_nobody_can_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
