// The submitter against a real embedded bus; the test plays the verifier.
#include "tests/unit/scratch.h"

#include <pthread.h>
#include <stdatomic.h>

#include "lib/base/clock.h"
#include "producer/agent/submit.h"

#define SOON() (kiln_clock_ms() + 10000)
#define SILENCE_MS 300u

struct rig {
    struct kiln_bus_server *server;
    struct kiln_bus *verifier;
    struct kiln_submitter *submitter;
    atomic_int uploads, late;
    uint8_t tag; // of the last job that was seen
    bool without_store;
};

static void note_late(void *context, const struct kiln_late_result *result) {
    struct rig *rig = context;
    assert_string_equal(result->scope, "local");
    assert_int_equal(result->len, 6);
    assert_memory_equal(result->envelope, "signed", 6);
    atomic_fetch_add(&rig->late, 1);
}

static void rig_open_waiting(struct rig *rig, uint64_t late_ms) {
    *rig = (struct rig){0};
    int agent_fd, verifier_fd;
    struct kiln_bus *agent;
    const struct kiln_bus_subscription jobs = {.topic = KILN_TOPIC_JOBS};
    assert_int_equal(kiln_bus_server_new(&rig->server, NULL), 0);
    assert_int_equal(kiln_bus_server_connect(rig->server, KILN_BUS_AGENT, &agent_fd, NULL), 0);
    assert_int_equal(kiln_bus_server_connect(rig->server, KILN_BUS_VERIFIER, &verifier_fd, NULL), 0);
    assert_int_equal(kiln_bus_open_fd(agent_fd, &agent, NULL), 0);
    assert_int_equal(kiln_bus_open_fd(verifier_fd, &rig->verifier, NULL), 0);
    assert_int_equal(kiln_bus_subscribe(rig->verifier, &jobs, 1, NULL), 0);
    const struct kiln_submitter_options options = {.agent = "host", .tenant = "local", .late = note_late, .context = rig,
                                                   .late_ms = late_ms, .silence_ms = SILENCE_MS};
    if (!late_ms)
        assert_int_equal(kiln_submitter_new(agent, &(struct kiln_submitter_options){.agent = "host", .tenant = "local"},
                                            &rig->submitter, NULL), 0);
    else
        assert_int_equal(kiln_submitter_new(agent, &options, &rig->submitter, NULL), 0);
}

static void rig_open(struct rig *rig) { rig_open_waiting(rig, 0); }

static void rig_close(struct rig *rig) {
    kiln_submitter_free(rig->submitter);
    kiln_bus_close(rig->verifier);
    kiln_bus_server_free(rig->server);
}

static int count_upload(void *context, const struct kiln_content_ref *contents, char *const *keys, size_t count,
                        struct kiln_err *err) {
    struct rig *rig = context;
    if (rig->without_store)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "store_unreachable: nobody there");
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(contents[i].kind, KILN_CONTENT_PACK);
        assert_int_equal(strncmp(keys[i], "in/local/host/", 14), 0);
        assert_non_null(strstr(keys[i], "pack-"));
        atomic_fetch_add(&rig->uploads, 1);
    }
    return 0;
}

static struct kiln_submission submission_of(struct rig *rig, uint8_t tag) {
    static const unsigned char action[] = "an action's bytes";
    struct kiln_submission submission = {.action = action, .action_len = sizeof action, .build_id = "",
                                         .scope = "local", .upload = count_upload, .context = rig};
    memset(submission.action_digest.bytes, tag, 32);
    return submission;
}

struct caller {
    struct rig *rig;
    uint8_t tag;
    uint64_t deadline_ms;
    int rc;
    struct kiln_err err;
    struct kiln_verdict verdict;
};

static void *call(void *argument) {
    struct caller *caller = argument;
    const struct kiln_submission submission = submission_of(caller->rig, caller->tag);
    caller->rc = kiln_submit(caller->rig->submitter, &submission, caller->deadline_ms, &caller->verdict, &caller->err);
    return NULL;
}

static struct kiln_record next_record(struct rig *rig) {
    struct kiln_record record = {0};
    assert_int_equal(kiln_bus_poll(rig->verifier, SOON(), &record, NULL), 0);
    assert_int_equal(kiln_bus_ack(rig->verifier, &record, NULL), 0);
    return record;
}

static struct kiln_job_id expect_job(struct rig *rig) {
    struct kiln_record record = next_record(rig);
    struct kiln_job_submitted job = {0};
    assert_int_equal(kiln_job_submitted_decode(record.value, record.value_len, &job, NULL), 0);
    struct kiln_job_id id = job.job;
    rig->tag = job.action_digest.bytes[0];
    kiln_job_submitted_release(&job);
    kiln_record_release(&record);
    return id;
}

static void answer(struct rig *rig, struct kiln_job_id job, const struct kiln_answer *template) {
    struct kiln_answer reply = *template;
    reply.jobs = &job;
    reply.jobs_count = 1;
    memset(reply.action_digest.bytes, rig->tag, 32);
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_int_equal(kiln_answer_encode(&reply, &bytes, NULL), 0);
    assert_int_equal(kiln_bus_publish(rig->verifier, KILN_TOPIC_RESULTS, 0, "k", 1, bytes.data, bytes.len, NULL), 0);
}

static const struct kiln_answer result = {.status = KILN_ANSWER_RESULT, .envelope = (unsigned char *)"signed", .envelope_len = 6};

static void wanted_content_is_uploaded_then_the_result_comes(void **state) {
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct caller caller = {.rig = &rig, .tag = 1, .deadline_ms = SOON()};
    pthread_t thread;
    pthread_create(&thread, NULL, call, &caller);
    struct kiln_job_id job = expect_job(&rig);
    struct kiln_content_ref wanted = {.kind = KILN_CONTENT_PACK, .size = 5};
    answer(&rig, job, &(struct kiln_answer){.status = KILN_ANSWER_WANTED, .contents = &wanted, .contents_count = 1});
    struct kiln_record record = next_record(&rig);
    enum kiln_record_type type;
    assert_int_equal(kiln_record_type_of(record.value, record.value_len, &type, NULL), 0);
    assert_int_equal(type, KILN_RECORD_job_uploaded);
    kiln_record_release(&record);
    struct kiln_answer run_for_it = result;
    run_for_it.executed = job;
    answer(&rig, job, &run_for_it);
    pthread_join(thread, NULL);
    assert_int_equal(caller.rc, 0);
    assert_int_equal(caller.verdict.status, KILN_ANSWER_RESULT);
    assert_true(caller.verdict.executed);
    assert_memory_equal(caller.verdict.envelope.data, "signed", 6);
    assert_int_equal(atomic_load(&rig.uploads), 1);
    kiln_verdict_release(&caller.verdict);
    rig_close(&rig);
}

// The word that it begins with is what people count.
static void an_upload_without_a_store_says_so(void **state) {
    (void)state;
    struct rig rig;
    rig_open(&rig);
    rig.without_store = true;
    struct caller caller = {.rig = &rig, .tag = 1, .deadline_ms = SOON()};
    pthread_t thread;
    pthread_create(&thread, NULL, call, &caller);
    struct kiln_content_ref wanted = {.kind = KILN_CONTENT_PACK, .size = 5};
    answer(&rig, expect_job(&rig), &(struct kiln_answer){.status = KILN_ANSWER_WANTED, .contents = &wanted, .contents_count = 1});
    pthread_join(thread, NULL);
    assert_int_equal(caller.rc, KILN_E_UNSUPPORTED);
    assert_string_equal(caller.err.text, "store_unreachable: nobody there");
    rig_close(&rig);
}

static void identical_actions_share_one_submission(void **state) {
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct caller callers[16];
    pthread_t threads[16];
    for (int i = 0; i < 16; i++) {
        callers[i] = (struct caller){.rig = &rig, .tag = 2, .deadline_ms = SOON()};
        pthread_create(&threads[i], NULL, call, &callers[i]);
    }
    struct kiln_job_id job = expect_job(&rig);
    struct kiln_record record = {0};
    assert_int_equal(kiln_bus_poll(rig.verifier, kiln_clock_ms() + 200, &record, NULL), KILN_E_TIMEOUT);
    answer(&rig, job, &result);
    int shared = 0;
    for (int i = 0; i < 16; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(callers[i].rc, 0);
        assert_false(callers[i].verdict.executed); // it was run for another one, or not at all
        shared += callers[i].verdict.shared;
        kiln_verdict_release(&callers[i].verdict);
    }
    assert_int_equal(shared, 15);
    rig_close(&rig);
}

static void a_restarted_verifier_gets_the_job_again(void **state) {
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct caller caller = {.rig = &rig, .tag = 3, .deadline_ms = SOON()};
    pthread_t thread;
    pthread_create(&thread, NULL, call, &caller);
    struct kiln_job_id first = expect_job(&rig);
    kiln_submitter_resubmit(rig.submitter);
    struct kiln_job_id second = expect_job(&rig);
    assert_memory_equal(&first, &second, sizeof first);
    answer(&rig, second, &result);
    pthread_join(thread, NULL);
    assert_int_equal(caller.rc, 0);
    kiln_verdict_release(&caller.verdict);
    rig_close(&rig);
}

static void waiting_ends_at_the_deadline_and_when_given_up(void **state) {
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct caller late = {.rig = &rig, .tag = 4, .deadline_ms = kiln_clock_ms() + 50};
    call(&late);
    assert_int_equal(late.rc, KILN_E_TIMEOUT);
    struct caller caller = {.rig = &rig, .tag = 5, .deadline_ms = SOON()};
    pthread_t thread;
    pthread_create(&thread, NULL, call, &caller);
    while (kiln_submitter_waiting(rig.submitter) == 0)
        sched_yield();
    kiln_submitter_give_up(rig.submitter, "verifier_unavailable: gone");
    pthread_join(thread, NULL);
    assert_int_equal(caller.rc, 0);
    assert_int_equal(caller.verdict.status, KILN_ANSWER_COMPILE_LOCALLY);
    assert_string_equal(caller.verdict.reason, "verifier_unavailable: gone");
    kiln_verdict_release(&caller.verdict);
    rig_close(&rig);
}

static void await_late(struct rig *rig) {
    for (uint64_t deadline_ms = SOON(); atomic_load(&rig->late) == 0;) {
        assert_true(kiln_clock_left_ms(deadline_ms) > 0);
        sched_yield();
    }
}

static void a_late_result_is_not_lost(void **state) {
    (void)state;
    struct rig rig;
    rig_open_waiting(&rig, 60000);
    struct caller hasty = {.rig = &rig, .tag = 6, .deadline_ms = kiln_clock_ms() + 30};
    call(&hasty);
    assert_int_equal(hasty.rc, KILN_E_TIMEOUT);
    assert_int_equal(kiln_submitter_waiting(rig.submitter), 0);
    struct kiln_job_id job = expect_job(&rig);
    answer(&rig, job, &result);
    await_late(&rig);
    // It was given once, and nothing of it is left to be given again.
    answer(&rig, job, &result);
    struct caller next = {.rig = &rig, .tag = 7, .deadline_ms = SOON()};
    pthread_t thread;
    pthread_create(&thread, NULL, call, &next);
    answer(&rig, expect_job(&rig), &result);
    pthread_join(thread, NULL);
    assert_int_equal(next.rc, 0);
    assert_int_equal(atomic_load(&rig.late), 1);
    kiln_verdict_release(&next.verdict);
    rig_close(&rig);
}

static void silence_ends_the_wait_and_acceptance_does_not(void **state) {
    (void)state;
    struct rig rig;
    rig_open_waiting(&rig, 60000);
    struct caller unheard = {.rig = &rig, .tag = 20, .deadline_ms = SOON()};
    const uint64_t began_ms = kiln_clock_ms();
    call(&unheard);
    assert_int_equal(unheard.rc, KILN_E_TIMEOUT);
    assert_memory_equal(unheard.err.text, "fleet_silent:", 13);
    assert_in_range(kiln_clock_ms() - began_ms, SILENCE_MS, SILENCE_MS + 5000);
    // Accepted when it is an orphan: the result still comes.
    struct kiln_job_id job = expect_job(&rig);
    answer(&rig, job, &(struct kiln_answer){.status = KILN_ANSWER_ACCEPTED});
    answer(&rig, job, &result);
    await_late(&rig);

    struct caller heard = {.rig = &rig, .tag = 21, .deadline_ms = SOON()};
    pthread_t thread;
    pthread_create(&thread, NULL, call, &heard);
    job = expect_job(&rig);
    answer(&rig, job, &(struct kiln_answer){.status = KILN_ANSWER_ACCEPTED});
    struct kiln_record record = {0}; // nothing comes of it: it waits on past the silence, and uploads nothing
    assert_int_equal(kiln_bus_poll(rig.verifier, kiln_clock_ms() + 3 * SILENCE_MS, &record, NULL), KILN_E_TIMEOUT);
    assert_int_equal(kiln_submitter_waiting(rig.submitter), 1);
    answer(&rig, job, &result);
    pthread_join(thread, NULL);
    assert_int_equal(heard.rc, 0);
    assert_int_equal(atomic_load(&rig.uploads), 0);
    kiln_verdict_release(&heard.verdict);
    rig_close(&rig);
}

static void an_orphan_that_is_asked_for_its_files_is_cancelled(void **state) {
    (void)state;
    struct rig rig;
    rig_open_waiting(&rig, 60000);
    struct caller hasty = {.rig = &rig, .tag = 8, .deadline_ms = kiln_clock_ms() + 30};
    call(&hasty);
    struct kiln_job_id job = expect_job(&rig);
    struct kiln_content_ref wanted = {.kind = KILN_CONTENT_PACK, .size = 5};
    answer(&rig, job, &(struct kiln_answer){.status = KILN_ANSWER_WANTED, .contents = &wanted, .contents_count = 1});
    struct kiln_record record = next_record(&rig);
    enum kiln_record_type type;
    assert_int_equal(kiln_record_type_of(record.value, record.value_len, &type, NULL), 0);
    assert_int_equal(type, KILN_RECORD_job_cancelled);
    assert_int_equal(atomic_load(&rig.uploads), 0);
    kiln_record_release(&record);
    rig_close(&rig);
}

// Job ids are no secret: an answer counts only for the action that was asked.
static void an_answer_for_another_action_is_not_heard(void **state) {
    (void)state;
    struct rig rig;
    rig_open(&rig);
    struct caller caller = {.rig = &rig, .tag = 9, .deadline_ms = kiln_clock_ms() + 300};
    pthread_t thread;
    pthread_create(&thread, NULL, call, &caller);
    struct kiln_job_id job = expect_job(&rig);
    rig.tag = 10;
    answer(&rig, job, &result);
    pthread_join(thread, NULL);
    assert_int_equal(caller.rc, KILN_E_TIMEOUT);
    rig_close(&rig);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wanted_content_is_uploaded_then_the_result_comes),
        cmocka_unit_test(an_upload_without_a_store_says_so),
        cmocka_unit_test(identical_actions_share_one_submission),
        cmocka_unit_test(a_restarted_verifier_gets_the_job_again),
        cmocka_unit_test(waiting_ends_at_the_deadline_and_when_given_up),
        cmocka_unit_test(a_late_result_is_not_lost),
        cmocka_unit_test(an_orphan_that_is_asked_for_its_files_is_cancelled),
        cmocka_unit_test(silence_ends_the_wait_and_acceptance_does_not),
        cmocka_unit_test(an_answer_for_another_action_is_not_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
