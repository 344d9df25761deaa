// kiln-verifier as a process on the embedded bus: this test is the agent and the executor on the other ends.
#include <signal.h>
#include <sys/wait.h>

#include "lib/base/clock.h"
#include "lib/base/proc.h"
#include "lib/bus/bus.h"
#include "tests/unit/verifier_rig.h"

#define WAIT_MS 20000u

static const char rlib[] = "an rlib", rmeta[] = "an rmeta", dep_info[] = "/t/libdemo-0123.rlib: src/lib.rs\n\nsrc/lib.rs:\n";

struct fleet {
    struct rig *rig;
    struct kiln_bus_server *server;
    struct kiln_bus *agent, *executor;
    pid_t verifier;
    struct kiln_job_id incarnation;
    struct kiln_digest action; // of the newest submission: answers for another are passed over
    unsigned char credits;
};

static void start_verifier(struct fleet *fleet, const char *lease) {
    struct kiln_err err;
    kiln_autofd int bus = -1, log = openat(fleet->rig->scratch->fd, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_ok(kiln_bus_server_connect(fleet->server, KILN_BUS_VERIFIER, &bus, &err));
    char *argv[] = {TEXT("kiln-verifier"), TEXT("--dir"), fleet->rig->scratch->path, TEXT("--lease"), TEXT(lease),
                    TEXT("--upload"), TEXT("2s"), NULL};
    char *envp[] = {NULL};
    const struct kiln_proc_fd fds[] = {{log, 2}, {bus, 3}};
    const struct kiln_proc_options options = {.program = KILN_BINARY_DIR "/verifier/kiln-verifier", .argv = argv,
                                              .envp = envp, .fds = fds, .fds_count = 2, .die_with_parent = true};
    assert_ok(kiln_proc_spawn(&options, &fleet->verifier, &err));
}

static void kill_verifier(struct fleet *fleet) {
    int status;
    assert_int_equal(kill(fleet->verifier, SIGKILL), 0);
    assert_int_equal(waitpid(fleet->verifier, &status, 0), fleet->verifier);
}

static struct kiln_bus *connect_as(struct fleet *fleet, enum kiln_bus_role role, enum kiln_topic topic) {
    struct kiln_err err;
    struct kiln_bus *bus = NULL;
    int fd;
    const struct kiln_bus_subscription subscription = {.topic = topic, .from_end = role == KILN_BUS_AGENT};
    assert_ok(kiln_bus_server_connect(fleet->server, role, &fd, &err));
    assert_ok(kiln_bus_open_fd(fd, &bus, &err));
    assert_ok(kiln_bus_subscribe(bus, &subscription, 1, &err));
    return bus;
}

static int setup(void **state) {
    struct kiln_err err;
    struct fleet *fleet = calloc(1, sizeof *fleet);
    rig_setup((void **)&fleet->rig);
    assert_ok(kiln_bus_server_new(&fleet->server, &err));
    fleet->agent = connect_as(fleet, KILN_BUS_AGENT, KILN_TOPIC_RESULTS);
    fleet->executor = connect_as(fleet, KILN_BUS_EXECUTOR, KILN_TOPIC_WORK);
    fleet->incarnation.bytes[0] = 1;
    start_verifier(fleet, "10s");
    *state = fleet;
    return 0;
}

static int teardown(void **state) {
    struct fleet *fleet = *state;
    kill_verifier(fleet);
    kiln_bus_close(fleet->agent);
    kiln_bus_close(fleet->executor);
    kiln_bus_server_free(fleet->server);
    rig_teardown((void **)&fleet->rig);
    free(fleet);
    return 0;
}

static void publish(struct kiln_bus *bus, enum kiln_topic topic, const struct kiln_buf *record) {
    struct kiln_err err;
    assert_ok(kiln_bus_publish(bus, topic, 0, "key", 3, record->data, record->len, &err));
}

static void submit(struct fleet *fleet, struct kiln_job_submitted *record) {
    struct kiln_err err;
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_ok(kiln_job_submitted_encode(record, &bytes, &err));
    fleet->action = record->action_digest;
    publish(fleet->agent, KILN_TOPIC_JOBS, &bytes);
}

static void announce_upload(struct fleet *fleet, const struct kiln_job_submitted *record) {
    struct kiln_err err;
    const struct kiln_job_uploaded uploaded = {.job = record->job, .action_digest = record->action_digest};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_ok(kiln_job_uploaded_encode(&uploaded, &bytes, &err));
    publish(fleet->agent, KILN_TOPIC_JOBS, &bytes);
}

static void upload(struct fleet *fleet, const struct kiln_job_submitted *record) {
    rig_upload_all(fleet->rig, record);
    announce_upload(fleet, record);
}

static void give_credit(struct fleet *fleet) {
    struct kiln_err err;
    const struct kiln_credit credit = {.executor = TEXT("executor"), .pool = TEXT("local"), .incarnation = fleet->incarnation,
                                       .credit = {{++fleet->credits}}, .expires_ms = kiln_clock_wall_ms() + 60000};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_ok(kiln_credit_encode(&credit, &bytes, &err));
    publish(fleet->executor, KILN_TOPIC_CREDITS, &bytes);
}

static void next_answer(struct fleet *fleet, struct kiln_answer *answer) {
    struct kiln_err err;
    for (;;) {
        struct kiln_record record = {0};
        assert_ok(kiln_bus_poll(fleet->agent, kiln_clock_ms() + WAIT_MS, &record, &err));
        assert_ok(kiln_answer_decode(record.value, record.value_len, answer, &err));
        assert_ok(kiln_bus_ack(fleet->agent, &record, &err));
        kiln_record_release(&record);
        if (kiln_digest_equal(&answer->action_digest, &fleet->action))
            return;
        kiln_answer_release(answer);
    }
}

// A verifier that was killed before it acked a submission asks for the same content once more.
static void answer_for(struct fleet *fleet, enum kiln_answer_status status, struct kiln_answer *answer) {
    next_answer(fleet, answer);
    while (answer->status == KILN_ANSWER_WANTED && status != KILN_ANSWER_WANTED) {
        kiln_answer_release(answer);
        next_answer(fleet, answer);
    }
    if (answer->status != status)
        fail_msg("answer %d (%s) instead of %d", (int)answer->status, answer->reasons_count ? answer->reasons[0] : "",
                 (int)status);
}

static size_t expect_answer(struct fleet *fleet, enum kiln_answer_status status, const char *reason) {
    struct kiln_answer answer = {0};
    answer_for(fleet, status, &answer);
    size_t jobs = answer.jobs_count;
    if (status == KILN_ANSWER_WANTED)
        assert_int_equal(answer.contents_count, RIG_CONTENTS);
    if (reason && strncmp(answer.reasons[0], reason, strlen(reason)) != 0)
        fail_msg("%s instead of %s", answer.reasons[0], reason);
    if (status == KILN_ANSWER_RESULT) {
        struct kiln_err err;
        kiln_autoresult struct kiln_result result = {0};
        assert_ok(kiln_result_open(answer.envelope, answer.envelope_len, fleet->rig->trust, &fleet->rig->action_digest,
                                   &result, &err));
        assert_int_equal(result.outcome, KILN_OUTCOME_SUCCESS);
    }
    kiln_answer_release(&answer);
    return jobs;
}

static void expect_work(struct fleet *fleet, uint32_t attempt, struct kiln_work *work) {
    struct kiln_err err;
    struct kiln_record record = {0};
    uint64_t deadline_ms = kiln_clock_ms() + WAIT_MS;
    int rc;
    // An executor renews its credits; one that was silent for a lease gets work only when it speaks again.
    while ((rc = kiln_bus_poll(fleet->executor, kiln_clock_ms() + 100, &record, &err)) == KILN_E_TIMEOUT &&
           kiln_clock_ms() < deadline_ms)
        give_credit(fleet);
    assert_ok(rc);
    assert_ok(kiln_work_decode(record.value, record.value_len, work, &err));
    assert_ok(kiln_bus_ack(fleet->executor, &record, &err));
    kiln_record_release(&record);
    assert_int_equal(work->attempt, attempt);
    assert_memory_equal(&work->incarnation, &fleet->incarnation, sizeof fleet->incarnation);
    assert_int_equal(work->contents_count, RIG_CONTENTS);
    assert_int_equal(work->contents[0].size, fleet->rig->pack.len);
}

struct made {
    enum kiln_output_kind kind;
    const char *name, *bytes;
    size_t len;
};
static const struct made made[] = {{KILN_OUTPUT_FILE, "libdemo-0123.rlib", rlib, sizeof rlib},
                                   {KILN_OUTPUT_FILE, "libdemo-0123.rmeta", rmeta, sizeof rmeta},
                                   {KILN_OUTPUT_FILE, "demo-0123.d", dep_info, sizeof dep_info - 1},
                                   {KILN_OUTPUT_STDERR, "", "", 0}};

static void put_output(struct fleet *fleet, const struct kiln_work *work, const struct made *one,
                       struct kiln_candidate_output *output) {
    struct kiln_err err;
    char job[33], hex[KILN_DIGEST_HEX_LEN + 1];
    *output = (struct kiln_candidate_output){.kind = one->kind, .name = TEXT(one->name), .size = one->len};
    kiln_digest_of(one->bytes, one->len, &output->digest);
    for (size_t i = 0; i < 16; i++)
        snprintf(job + 2 * i, 3, "%02x", work->job.bytes[i]);
    kiln_digest_format(&output->digest, hex);
    kiln_autofree char *key = kiln_key_quarantine_out("executor", job, work->attempt, hex);
    assert_ok(kiln_store_put_bytes(fleet->rig->executor, KILN_SPACE_QUARANTINE, key, one->bytes, one->len, NULL, &err));
}

static void finish(struct fleet *fleet, struct kiln_work *work, enum kiln_run_status status, int32_t exit_code) {
    struct kiln_err err;
    struct kiln_candidate_output outputs[4];
    char *reasons[] = {TEXT("staging: an input is damaged")};
    struct kiln_candidate candidate = {.job = work->job, .incarnation = work->incarnation, .attempt = work->attempt,
                                       .executor = TEXT("executor"), .pool = TEXT("local"), .backend = TEXT("bwrap"),
                                       .action_digest = work->action_digest, .status = status, .exit_code = exit_code,
                                       .reasons = reasons, .reasons_count = status == KILN_RUN_INFRA};
    if (status == KILN_RUN_EXITED && exit_code == 0) {
        for (size_t i = 0; i < 4; i++)
            put_output(fleet, work, &made[i], &outputs[i]);
        candidate.outputs = outputs;
        candidate.outputs_count = 4;
    }
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_ok(kiln_candidate_encode(&candidate, &bytes, &err));
    publish(fleet->executor, KILN_TOPIC_CANDIDATES, &bytes);
    kiln_work_release(work);
    *work = (struct kiln_work){0};
}

static void assert_quarantine_empties(struct fleet *fleet) {
    uint64_t deadline_ms = kiln_clock_ms() + WAIT_MS;
    struct stat st;
    while (fstatat(fleet->rig->scratch->fd, "store/quarantine/in", &st, 0) == 0 ||
           fstatat(fleet->rig->scratch->fd, "store/quarantine/out", &st, 0) == 0)
        assert_true(kiln_clock_ms() < deadline_ms);
}

// The whole way of a job, 64 waiters on one execution, then the same again from the vault.
static void whole_way(void **state) {
    struct fleet *fleet = *state;
    struct kiln_work work = {0};
    struct kiln_job_submitted records[64];
    for (size_t i = 0; i < 64; i++) {
        rig_submission(fleet->rig, (unsigned char)(i + 1), &records[i]);
        submit(fleet, &records[i]);
    }
    expect_answer(fleet, KILN_ANSWER_WANTED, NULL);
    upload(fleet, &records[0]);
    give_credit(fleet);
    expect_work(fleet, 1, &work);
    give_credit(fleet);
    finish(fleet, &work, KILN_RUN_EXITED, 0);
    assert_int_equal(expect_answer(fleet, KILN_ANSWER_RESULT, NULL), 64);
    assert_quarantine_empties(fleet);
    records[0].job.bytes[1] = 1;
    submit(fleet, &records[0]);
    assert_int_equal(expect_answer(fleet, KILN_ANSWER_RESULT, NULL), 1);
    struct kiln_record nothing = {0};
    assert_int_equal(kiln_bus_poll(fleet->executor, kiln_clock_ms() + 200, &nothing, NULL), KILN_E_TIMEOUT);
    for (size_t i = 0; i < 64; i++)
        kiln_job_submitted_release(&records[i]);
}

static void many_waiters(void **state) {
    struct fleet *fleet = *state;
    struct kiln_work work = {0};
    struct kiln_job_submitted record;
    rig_submission(fleet->rig, 1, &record);
    for (unsigned i = 0; i < 1300; i++) {
        memcpy(record.job.bytes + 4, &i, sizeof i);
        submit(fleet, &record);
    }
    memset(record.job.bytes + 4, 0, 4);
    expect_answer(fleet, KILN_ANSWER_WANTED, NULL);
    upload(fleet, &record);
    give_credit(fleet);
    expect_work(fleet, 1, &work);
    finish(fleet, &work, KILN_RUN_EXITED, 0);
    for (size_t answered = 0; answered < 1300;) // more than one record can list
        answered += expect_answer(fleet, KILN_ANSWER_RESULT, NULL);
    kiln_job_submitted_release(&record);
}

// An agent cannot speak as an executor: not on its topics, nor on its own with an executor's record.
static void false_credit(void **state) {
    struct fleet *fleet = *state;
    struct kiln_err err;
    struct kiln_work work = {0};
    struct kiln_job_submitted record;
    const struct kiln_credit credit = {.executor = TEXT("executor"), .pool = TEXT("local"), .incarnation = fleet->incarnation,
                                       .credit = {{99}}, .expires_ms = kiln_clock_wall_ms() + 60000};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_ok(kiln_credit_encode(&credit, &bytes, &err));
    publish(fleet->agent, KILN_TOPIC_JOBS, &bytes);
    rig_submission(fleet->rig, 1, &record);
    submit(fleet, &record);
    expect_answer(fleet, KILN_ANSWER_WANTED, NULL);
    upload(fleet, &record);
    give_credit(fleet);
    expect_work(fleet, 1, &work);
    assert_int_not_equal(work.credit.bytes[0], 99);
    finish(fleet, &work, KILN_RUN_EXITED, 0);
    expect_answer(fleet, KILN_ANSWER_RESULT, NULL);
    kiln_job_submitted_release(&record);
}

static void refusals(void **state) {
    struct fleet *fleet = *state;
    struct kiln_job_submitted record;
    rig_submission(fleet->rig, 1, &record);
    record.action_digest.bytes[0] ^= 1;
    submit(fleet, &record);
    expect_answer(fleet, KILN_ANSWER_REJECTED, "action_digest: ");
    kiln_job_submitted_release(&record);
    rig_submission(fleet->rig, 2, &record);
    submit(fleet, &record);
    expect_answer(fleet, KILN_ANSWER_WANTED, NULL);
    rig_upload_all(fleet->rig, &record);
    rig_put_upload(fleet->rig, &record, &record.contents[0], "other bytes", 11);
    announce_upload(fleet, &record);
    expect_answer(fleet, KILN_ANSWER_REJECTED, "contents: ");
    kiln_job_submitted_release(&record);
    rig_submission(fleet->rig, 3, &record);
    submit(fleet, &record); // the pack was not stored: it is wanted again, and does not come in time
    struct kiln_answer answer = {0};
    answer_for(fleet, KILN_ANSWER_WANTED, &answer);
    kiln_answer_release(&answer);
    expect_answer(fleet, KILN_ANSWER_COMPILE_LOCALLY, "not_uploaded: ");
    kiln_job_submitted_release(&record);
}

static void failed_job(void **state) {
    struct fleet *fleet = *state;
    struct kiln_work work = {0};
    struct kiln_job_submitted record;
    rig_submission(fleet->rig, 1, &record);
    submit(fleet, &record);
    expect_answer(fleet, KILN_ANSWER_WANTED, NULL);
    upload(fleet, &record);
    give_credit(fleet);
    expect_work(fleet, 1, &work);
    finish(fleet, &work, KILN_RUN_EXITED, 1);
    expect_answer(fleet, KILN_ANSWER_COMPILE_LOCALLY, "job_failed: exit code 1");
    record.job.bytes[1] = 1;
    submit(fleet, &record); // not stored: it runs again, with the content that is there
    give_credit(fleet);
    expect_work(fleet, 1, &work);
    finish(fleet, &work, KILN_RUN_EXITED, 0);
    expect_answer(fleet, KILN_ANSWER_RESULT, NULL);
    kiln_job_submitted_release(&record);
}

// An input rots in the store: the executor cannot stage it, the verifier finds it and has it uploaded again.
static void rotten_input(void **state) {
    struct fleet *fleet = *state;
    struct kiln_work work = {0};
    struct kiln_job_submitted record;
    rig_submission(fleet->rig, 1, &record);
    submit(fleet, &record);
    expect_answer(fleet, KILN_ANSWER_WANTED, NULL);
    upload(fleet, &record);
    give_credit(fleet);
    expect_work(fleet, 1, &work);
    kiln_autofree char *key = kiln_key_content("pack", "local", &fleet->rig->contents[0].digest);
    rig_damage(fleet->rig, "inputs", key);
    finish(fleet, &work, KILN_RUN_INFRA, 0);
    struct kiln_answer answer = {0};
    answer_for(fleet, KILN_ANSWER_WANTED, &answer);
    assert_int_equal(answer.contents_count, 1);
    kiln_answer_release(&answer);
    upload(fleet, &record);
    give_credit(fleet);
    expect_work(fleet, 2, &work);
    finish(fleet, &work, KILN_RUN_EXITED, 0);
    expect_answer(fleet, KILN_ANSWER_RESULT, NULL);
    kiln_job_submitted_release(&record);
}

// Plays both sides for one turn: does work, uploads what is wanted. true when the result has come.
static bool take_turn(struct fleet *fleet, const struct kiln_job_submitted *record) {
    struct kiln_record got = {0};
    struct kiln_work work = {0};
    if (kiln_bus_poll(fleet->executor, kiln_clock_ms() + 20, &got, NULL) == 0) {
        assert_int_equal(kiln_work_decode(got.value, got.value_len, &work, NULL), 0);
        kiln_bus_ack(fleet->executor, &got, NULL);
        kiln_record_release(&got);
        finish(fleet, &work, KILN_RUN_EXITED, 0);
    }
    struct kiln_answer answer = {0};
    if (kiln_bus_poll(fleet->agent, kiln_clock_ms() + 20, &got, NULL))
        return false;
    assert_int_equal(kiln_answer_decode(got.value, got.value_len, &answer, NULL), 0);
    kiln_bus_ack(fleet->agent, &got, NULL);
    kiln_record_release(&got);
    bool ours = kiln_digest_equal(&answer.action_digest, &fleet->action);
    enum kiln_answer_status status = answer.status;
    kiln_answer_release(&answer);
    if (ours && status == KILN_ANSWER_WANTED)
        upload(fleet, record);
    else if (ours)
        assert_int_equal(status, KILN_ANSWER_RESULT);
    return ours && status == KILN_ANSWER_RESULT;
}

// kill -9 after every number of turns: the submitter sends again, and it ends with a result.
static void killed(void **state) {
    struct fleet *fleet = *state;
    struct kiln_job_submitted record;
    rig_submission(fleet->rig, 1, &record);
    for (unsigned round = 0; round < 12; round++) {
        unsigned char *name = memmem(record.action, record.action_len, "demo-1.0.", 9);
        name[9] = (unsigned char)('a' + round); // another action each time
        kiln_digest_of(record.action, record.action_len, &record.action_digest);
        submit(fleet, &record);
        give_credit(fleet);
        uint64_t deadline_ms = kiln_clock_ms() + WAIT_MS;
        bool done = false;
        for (unsigned turn = 0; !done; turn++) {
            assert_true(kiln_clock_ms() < deadline_ms);
            if (turn == round % 4 && round < 8) {
                kill_verifier(fleet);
                start_verifier(fleet, "10s");
                submit(fleet, &record);
            }
            done = take_turn(fleet, &record);
            give_credit(fleet);
        }
    }
    kiln_job_submitted_release(&record);
}

static void lost_executor(void **state) {
    struct fleet *fleet = *state;
    kill_verifier(fleet);
    start_verifier(fleet, "300ms");
    struct kiln_work work = {0};
    struct kiln_job_submitted record;
    rig_submission(fleet->rig, 1, &record);
    submit(fleet, &record);
    expect_answer(fleet, KILN_ANSWER_WANTED, NULL);
    upload(fleet, &record);
    give_credit(fleet);
    expect_work(fleet, 1, &work);
    kiln_work_release(&work);
    fleet->incarnation.bytes[0]++; // it died and came back: known at once
    give_credit(fleet);
    expect_work(fleet, 2, &work);
    kiln_work_release(&work);
    expect_work(fleet, 3, &work); // its heartbeats did not come: the lease ran out
    finish(fleet, &work, KILN_RUN_EXITED, 0);
    expect_answer(fleet, KILN_ANSWER_RESULT, NULL);
    kiln_job_submitted_release(&record);
}

static void hostile_records(void **state) {
    struct fleet *fleet = *state;
    static const unsigned char junk[][8] = {{0}, {0, 0, 0, 3, 0xe9, 1, 2, 3}, {1, 2, 3, 4, 5, 6, 7, 8}, {0, 0, 0, 4, 0x1b}};
    for (size_t i = 0; i < 4; i++) {
        const struct kiln_buf bytes = {.data = (unsigned char *)junk[i], .len = 8};
        publish(fleet->agent, KILN_TOPIC_JOBS, &bytes);
        publish(fleet->executor, KILN_TOPIC_CANDIDATES, &bytes);
    }
    // A candidate for a job that nobody has, and a candidate on the wrong topic.
    struct kiln_work work = {.job = {{9}}, .attempt = 1};
    finish(fleet, &work, KILN_RUN_EXITED, 0);
    struct kiln_job_submitted record;
    rig_submission(fleet->rig, 1, &record);
    submit(fleet, &record);
    expect_answer(fleet, KILN_ANSWER_WANTED, NULL); // it still works
    kiln_job_submitted_release(&record);
    assert_int_equal(waitpid(fleet->verifier, NULL, WNOHANG), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {CASE(whole_way), CASE(many_waiters), CASE(false_credit), CASE(refusals), CASE(failed_job),    CASE(rotten_input),
                                       CASE(killed),    CASE(lost_executor), CASE(hostile_records)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
