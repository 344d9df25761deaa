// Agents, executors and a reader of a real stack, played by a test through lib/fleet, around a real kiln-verifier.
//
// What an actor says is signed with its own record key and sent with its own certificate; what it says is the test's business.
// The job is the one of tests/unit/verifier_rig.h. Each action is used once: fleet_next_action() makes another.
#pragma once

#include <poll.h>
#include <signal.h>

#include "lib/base/clock.h"
#include "lib/base/proc.h"
#include "lib/blob/bundle.h"
#include "lib/blob/store_s3.h"
#include "lib/bus/bus_kafka.h"
#include "lib/fleet/fleet.h"
#include "lib/wire/attested.h"
#include "tests/fleet/stack.h"
#include "tests/unit/verifier_rig.h"

#define FLEET_MS 20000u
#define FLEET_OUTPUTS 4u

struct actor {
    struct kiln_conf *conf;
    struct kiln_fleet *fleet;
    struct kiln_bus *bus;
    struct kiln_author author;
};

static struct {
    struct stack stack;
    struct rig *rig;
    pid_t verifier;
    struct actor agent, second, stranger, executor, rival, reader; // red, red, blue; pools north and south
    unsigned number; // of the newest action
} fleet;

#define FLEET_LOG_BYTES 6000
// What the verifier said last, for a test that fails.
static inline void fleet_show_log(void) {
    char text[FLEET_LOG_BYTES + 1];
    kiln_autofd int log = openat(fleet.rig->scratch->fd, "verifier.log", O_RDONLY | O_CLOEXEC);
    off_t size = lseek(log, 0, SEEK_END);
    ssize_t got = pread(log, text, FLEET_LOG_BYTES, size > FLEET_LOG_BYTES ? size - FLEET_LOG_BYTES : 0);
    fprintf(stderr, "%.*s\n", got > 0 ? (int)got : 0, text);
}

static inline void fleet_must(int rc, const struct kiln_err *err) {
    if (rc)
        fail_msg("%s", err->text);
}

static inline void fleet_introduce(struct actor *actor, enum kiln_role role) {
    struct kiln_author *author = &actor->author;
    *author = (struct kiln_author){.role = role, .incarnation = *kiln_fleet_incarnation(actor->fleet)};
    snprintf(author->principal, sizeof author->principal, "%s", kiln_fleet_principal(actor->fleet));
    snprintf(author->tenant, sizeof author->tenant, "%s", kiln_fleet_tenant(actor->fleet));
    snprintf(author->pool, sizeof author->pool, "%s", kiln_fleet_pool(actor->fleet));
}

static inline struct actor fleet_actor(const char *name, enum kiln_role role, const enum kiln_topic *topics, size_t count) {
    struct actor actor = {0};
    struct kiln_err err = {0};
    kiln_autofree char *file = stack_role_file(&fleet.stack, name, "kiln.conf");
    static unsigned number;
    char dir[64];
    snprintf(dir, sizeof dir, "actor-%u-%s", number++, name); // each call is another incarnation
    assert_int_equal(mkdirat(fleet.rig->scratch->fd, dir, 0700), 0);
    fleet_must(kiln_conf_new(kiln_fleet_settings, kiln_fleet_settings_count, &actor.conf, &err), &err);
    fleet_must(kiln_conf_load_file(actor.conf, file, &err), &err);
    fleet_must(kiln_fleet_open(actor.conf, role, scratch_path(fleet.rig->scratch, dir), &actor.fleet, &err), &err);
    fleet_must(kiln_fleet_open_bus(actor.fleet, &actor.bus, &err), &err);
    struct kiln_bus_subscription wanted[4];
    for (size_t i = 0; i < count; i++)
        wanted[i] = (struct kiln_bus_subscription){topics[i], true};
    fleet_must(kiln_bus_subscribe(actor.bus, wanted, count, &err), &err);
    fleet_introduce(&actor, role);
    return actor;
}

static inline void fleet_dismiss(struct actor *actor) {
    kiln_bus_close(actor->bus);
    if (actor->fleet)
        kiln_fleet_close(actor->fleet);
    kiln_conf_free(actor->conf);
}

// `more`: settings beside those of its role.
static inline void fleet_start_verifier(const char *more) {
    kiln_autofree char *role = stack_role_file(&fleet.stack, "verifier-1", "kiln.conf"), *text = NULL;
    kiln_autofree char *conf = strdup(scratch_path(fleet.rig->scratch, "verifier.conf"));
    kiln_autofree char *dir = strdup(scratch_path(fleet.rig->scratch, "verifier"));
    kiln_autobuf struct kiln_buf settings = KILN_BUF_INIT(1 << 16);
    kiln_autofd int from = open(role, O_RDONLY | O_CLOEXEC);
    assert_int_equal(kiln_fs_read_fd(from, &settings, NULL), 0);
    assert_true(asprintf(&text, "%s\n[fleet]\ntrust_refresh = 500ms\n%s", kiln_buf_text(&settings), more) > 0);
    scratch_write_text(fleet.rig->scratch, "verifier.conf", text);
    assert_int_equal(chmod(conf, 0600), 0);
    kiln_autofd int log = openat(fleet.rig->scratch->fd, "verifier.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    kiln_autofd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    char *argv[] = {(char *)"kiln-verifier", (char *)"--config", conf, (char *)"--dir", dir, NULL};
    char *envp[] = {(char *)"PATH=/usr/bin:/bin", NULL};
    const struct kiln_proc_fd fds[] = {{null, 0}, {null, 1}, {log, 2}};
    const struct kiln_proc_options options = {.program = KILN_BINARY_DIR "/verifier/kiln-verifier", .argv = argv, .envp = envp,
                                              .cwd = "/", .fds = fds, .fds_count = 3, .die_with_parent = true};
    struct kiln_err err = {0};
    fleet_must(kiln_proc_spawn(&options, &fleet.verifier, &err), &err);
}

static inline void fleet_kill_verifier(void) {
    int status;
    assert_int_equal(kill(fleet.verifier, SIGKILL), 0);
    assert_int_equal(kiln_proc_wait(fleet.verifier, kiln_clock_ms() + FLEET_MS, &status, NULL), 0);
    fleet.verifier = 0;
}

static inline int fleet_up_with(const char *more) {
    static const enum kiln_topic results[] = {KILN_TOPIC_RESULTS}, work[] = {KILN_TOPIC_WORK},
                                 seen[] = {KILN_TOPIC_EVENTS, KILN_TOPIC_LEDGER, KILN_TOPIC_DLQ};
    if (!stack_up(&fleet.stack))
        return -1;
    rig_setup((void **)&fleet.rig);
    assert_int_equal(mkdirat(fleet.rig->scratch->fd, "verifier", 0700), 0);
    fleet.agent = fleet_actor("agent-1", KILN_ROLE_OF_AGENT, results, 1);
    fleet.second = fleet_actor("agent-2", KILN_ROLE_OF_AGENT, results, 1);
    fleet.stranger = fleet_actor("agent-3", KILN_ROLE_OF_AGENT, results, 1);
    fleet.executor = fleet_actor("executor-1", KILN_ROLE_OF_EXECUTOR, work, 1);
    fleet.rival = fleet_actor("executor-2", KILN_ROLE_OF_EXECUTOR, work, 1);
    fleet.reader = fleet_actor("reader", KILN_ROLE_OF_READER, seen, 3);
    fleet_start_verifier(more);
    return 0;
}

static inline void fleet_end_verifier(void) {
    int status;
    kill(fleet.verifier, SIGTERM);
    if (kiln_proc_wait(fleet.verifier, kiln_clock_ms() + FLEET_MS, &status, NULL))
        kill(fleet.verifier, SIGKILL);
    fleet.verifier = 0;
}

static inline int fleet_up(void **state) {
    (void)state;
    return fleet_up_with("");
}

static inline int fleet_down(void **state) {
    (void)state;
    if (fleet.verifier > 0)
        fleet_end_verifier();
    struct actor *actors[] = {&fleet.agent, &fleet.second, &fleet.stranger, &fleet.executor, &fleet.rival, &fleet.reader};
    for (size_t i = 0; i < sizeof actors / sizeof *actors; i++)
        fleet_dismiss(actors[i]);
    rig_teardown((void **)&fleet.rig);
    stack_down(&fleet.stack);
    return 0;
}

// Another action over the same inputs: nobody has a result of it.
static inline void fleet_next_action(void) {
    struct rig *rig = fleet.rig;
    char text[24];
    snprintf(text, sizeof text, "metadata=%06x", ++fleet.number);
    for (size_t i = 0; i < rig->action.argc; i++)
        if (strncmp(rig->action.argv[i], "metadata=", 9) == 0) {
            free(rig->action.argv[i]);
            rig->action.argv[i] = strdup(text);
        }
    rig_seal_action(rig);
}

static inline uint32_t fleet_partition(const struct kiln_digest *action) { return kiln_bus_partition_of(fleet.agent.bus, action); }

static inline void fleet_set(char **text, const char *value) {
    free(*text);
    *text = strdup(value);
}

// As an honest agent makes it; to be released.
static inline void fleet_submission(const struct actor *agent, struct kiln_job_submitted *record) {
    static uint32_t job;
    rig_submission(fleet.rig, 0, record);
    record->job = agent->author.incarnation; // of this run
    job++;
    memcpy(record->job.bytes, &job, sizeof job);
    fleet_set(&record->tenant, agent->author.tenant);
    fleet_set(&record->agent, agent->author.principal);
    fleet_set(&record->scope, agent->author.tenant);
    record->submitted_ms = kiln_clock_wall_ms();
    record->waiter_partition = kiln_kafka_result_partition(agent->author.principal, &agent->author.incarnation,
                                                           kiln_bus_partitions(agent->bus, KILN_TOPIC_RESULTS));
}

static inline void fleet_say(const struct actor *actor, enum kiln_topic topic, uint32_t partition, const void *key, size_t key_len,
                             const struct kiln_buf *bytes) {
    struct kiln_err err = {0};
    fleet_must(kiln_bus_publish(actor->bus, topic, partition, key, key_len, bytes->data, bytes->len, &err), &err);
}

#define FLEET_SAY(name)                                                                                                \
    static inline void fleet_say_##name(const struct actor *actor, enum kiln_topic topic, uint32_t partition,          \
                                        const struct kiln_digest *key, const struct kiln_##name *record) {             \
        struct kiln_err err = {0};                                                                                     \
        kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);                                     \
        fleet_must(kiln_##name##_encode(record, &bytes, &err), &err);                                                  \
        fleet_say(actor, topic, partition, key->bytes, sizeof key->bytes, &bytes);                                     \
    }
FLEET_SAY(job_submitted)
FLEET_SAY(job_uploaded)
FLEET_SAY(job_cancelled)
FLEET_SAY(credit)
FLEET_SAY(lease)
FLEET_SAY(decline)
FLEET_SAY(candidate)
#undef FLEET_SAY

static inline void fleet_submit(const struct actor *agent, const struct kiln_job_submitted *record) {
    fleet_say_job_submitted(agent, KILN_TOPIC_JOBS, fleet_partition(&record->action_digest), &record->action_digest, record);
}

static inline void fleet_upload(const struct actor *agent, const struct kiln_job_submitted *record) {
    struct kiln_store *own = fleet.rig->agent;
    fleet.rig->agent = kiln_fleet_store(agent->fleet);
    rig_upload_all(fleet.rig, record);
    fleet.rig->agent = own;
    const struct kiln_job_uploaded uploaded = {.job = record->job, .action_digest = record->action_digest};
    fleet_say_job_uploaded(agent, KILN_TOPIC_JOBS, fleet_partition(&record->action_digest), &record->action_digest, &uploaded);
}

// The next record of a topic; false when none came in time.
static inline bool fleet_hear(const struct actor *actor, enum kiln_topic topic, uint64_t deadline_ms, struct kiln_record *record) {
    while (kiln_bus_poll(actor->bus, deadline_ms, record, NULL) == 0) {
        kiln_bus_ack(actor->bus, record, NULL);
        if (record->topic == topic && record->news == KILN_NEWS_RECORD)
            return true;
        kiln_record_release(record);
    }
    return false;
}

// The next answer to that submission, other than that it was accepted; to be released.
static inline void fleet_await(const struct actor *agent, const struct kiln_job_submitted *record, struct kiln_answer *answer) {
    struct kiln_record heard;
    while (fleet_hear(agent, KILN_TOPIC_RESULTS, kiln_clock_ms() + FLEET_MS, &heard)) {
        *answer = (struct kiln_answer){0};
        assert_int_equal(kiln_answer_decode(heard.value, heard.value_len, answer, NULL), 0);
        kiln_record_release(&heard);
        for (size_t i = 0; i < answer->jobs_count; i++)
            if (!memcmp(&answer->jobs[i], &record->job, sizeof record->job) && answer->status != KILN_ANSWER_ACCEPTED)
                return;
        kiln_answer_release(answer);
    }
    fleet_show_log();
    fail_msg("no answer to %s", agent->author.principal);
}

static inline void fleet_expect(const struct actor *agent, const struct kiln_job_submitted *record, enum kiln_answer_status status,
                                const char *word) {
    struct kiln_answer answer;
    fleet_await(agent, record, &answer);
    const char *reason = answer.reasons_count ? answer.reasons[0] : "";
    if (answer.status != status || strncmp(reason, word ? word : "", word ? strlen(word) : 0) != 0)
        fail_msg("answer %d \"%s\" instead of %d \"%s\"", (int)answer.status, reason, (int)status, word ? word : "");
    kiln_answer_release(&answer);
}

// The event of that name about that subject, among those that come.
static inline void fleet_expect_event(const char *name, const char *subject) {
    struct kiln_record heard;
    while (fleet_hear(&fleet.reader, KILN_TOPIC_EVENTS, kiln_clock_ms() + FLEET_MS, &heard)) {
        struct kiln_event event = {0};
        assert_int_equal(kiln_event_decode(heard.value, heard.value_len, &event, NULL), 0);
        bool found = strcmp(event.name, name) == 0 && (!subject || strstr(event.subject, subject));
        kiln_event_release(&event);
        kiln_record_release(&heard);
        if (found)
            return;
    }
    fleet_show_log();
    fail_msg("no event %s about %s", name, subject ? subject : "anybody");
}

static inline void fleet_credit(const struct actor *executor) {
    struct kiln_credit credit = {.executor = (char *)(uintptr_t)executor->author.principal, .pool = (char *)(uintptr_t)executor->author.pool,
                                 .incarnation = executor->author.incarnation, .expires_ms = kiln_clock_wall_ms() + 60000};
    static unsigned char number;
    credit.credit = (struct kiln_job_id){{++number}};
    memcpy(credit.credit.bytes + 1, executor->author.incarnation.bytes, 15);
    fleet_say_credit(executor, KILN_TOPIC_CREDITS, fleet_partition(&fleet.rig->action_digest), &fleet.rig->action_digest, &credit);
}

// The work of that executor's incarnation for the rig's action; to be released.
static inline void fleet_await_work(const struct actor *executor, struct kiln_work *work) {
    struct kiln_record heard;
    while (fleet_hear(executor, KILN_TOPIC_WORK, kiln_clock_ms() + FLEET_MS, &heard)) {
        *work = (struct kiln_work){0};
        bool mine = kiln_work_decode(heard.value, heard.value_len, work, NULL) == 0 &&
                    !memcmp(&work->incarnation, &executor->author.incarnation, 16) &&
                    kiln_digest_equal(&work->action_digest, &fleet.rig->action_digest);
        kiln_record_release(&heard);
        if (mine)
            return;
        kiln_work_release(work);
    }
    fleet_show_log();
    fail_msg("no work for %s", executor->author.principal);
}

// A frame of one uncompressed block (RFC 8878), for at most 255 bytes.
static inline void fleet_add_frame(struct kiln_buf *body, const char *bytes) {
    size_t len = strlen(bytes);
    const uint8_t head[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, (uint8_t)len, (uint8_t)(len << 3 | 1), (uint8_t)(len >> 5), 0};
    kiln_buf_add(body, head, sizeof head);
    kiln_buf_add(body, bytes, len);
}

// Puts the bundle where the candidate's outputs are looked for: bytes[i] under the name of outputs[i], whether they have it or not.
static inline void fleet_put_bundle(const struct actor *executor, const struct kiln_candidate *candidate, const char *const *bytes,
                                    size_t count) {
    struct kiln_err err = {0};
    char job[33];
    kiln_autobuf struct kiln_buf bundle = KILN_BUF_INIT(1 << 16), body = KILN_BUF_INIT(1 << 16);
    for (size_t i = 0; i < 16; i++)
        snprintf(job + 2 * i, 3, "%02x", candidate->job.bytes[i]);
    kiln_buf_add(&bundle, "kiln-bundle-1", sizeof "kiln-bundle-1");
    kiln_buf_add_be32(&bundle, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        size_t before = body.len;
        fleet_add_frame(&body, bytes[i]);
        kiln_buf_add(&bundle, candidate->outputs[i].digest.bytes, sizeof candidate->outputs[i].digest.bytes);
        kiln_buf_add_be64(&bundle, candidate->outputs[i].size);
        kiln_buf_add_be64(&bundle, body.len - before);
    }
    kiln_buf_add(&bundle, body.data, body.len);
    kiln_autofree char *key = kiln_key_quarantine_out(executor->author.principal, job, candidate->attempt, KILN_BUNDLE_NAME);
    fleet_must(kiln_store_put_bytes(kiln_fleet_store(executor->fleet), KILN_SPACE_QUARANTINE, key, bundle.data, bundle.len, NULL, &err), &err);
}

static inline void fleet_name_output(const char *bytes, struct kiln_candidate_output *output) {
    output->size = strlen(bytes);
    kiln_digest_of(bytes, strlen(bytes), &output->digest);
}

// What that executor says of a work, its outputs uploaded, not yet signed; to be released.
static inline void fleet_candidate(const struct actor *executor, const struct kiln_work *work, const char *rlib,
                                   struct kiln_candidate *candidate) {
    const struct {
        enum kiln_output_kind kind;
        const char *name, *bytes;
    } outputs[FLEET_OUTPUTS] = {{KILN_OUTPUT_FILE, "libdemo-0123.rlib", rlib},
                                {KILN_OUTPUT_FILE, "libdemo-0123.rmeta", "an rmeta"},
                                {KILN_OUTPUT_FILE, "demo-0123.d", "/t/libdemo-0123.rlib: src/lib.rs\n\nsrc/lib.rs:\n"},
                                {KILN_OUTPUT_STDERR, "", ""}};
    *candidate = (struct kiln_candidate){
        .job = work->job, .incarnation = executor->author.incarnation, .attempt = work->attempt,
        .executor = strdup(executor->author.principal), .pool = strdup(executor->author.pool), .backend = strdup("bwrap"),
        .action_digest = work->action_digest, .at_ms = kiln_clock_wall_ms(), .outputs_count = FLEET_OUTPUTS};
    const char *bytes[FLEET_OUTPUTS];
    candidate->outputs = calloc(FLEET_OUTPUTS + 1, sizeof *candidate->outputs); // one more: for those who lie
    for (size_t i = 0; i < FLEET_OUTPUTS; i++) {
        candidate->outputs[i].kind = outputs[i].kind;
        candidate->outputs[i].name = strdup(outputs[i].name);
        fleet_name_output(outputs[i].bytes, &candidate->outputs[i]);
        bytes[i] = outputs[i].bytes;
    }
    fleet_put_bundle(executor, candidate, bytes, FLEET_OUTPUTS);
}

static inline void fleet_sign(const struct actor *executor, struct kiln_candidate *candidate) {
    struct kiln_err err = {0};
    fleet_must(kiln_candidate_sign(candidate, kiln_fleet_record_key(executor->fleet), &err), &err);
}

static inline void fleet_deliver(const struct actor *from, const struct kiln_candidate *candidate) {
    fleet_say_candidate(from, KILN_TOPIC_CANDIDATES, fleet_partition(&candidate->action_digest), &candidate->action_digest, candidate);
}

// The work that waits is done honestly by that executor.
static inline void fleet_work(const struct actor *executor, const char *rlib) {
    struct kiln_work work;
    struct kiln_candidate candidate;
    fleet_credit(executor);
    fleet_await_work(executor, &work);
    fleet_candidate(executor, &work, rlib, &candidate);
    fleet_sign(executor, &candidate);
    fleet_deliver(executor, &candidate);
    kiln_candidate_release(&candidate);
    kiln_work_release(&work);
}

// The signed result that an agent is answered, opened as it opens it; to be released.
static inline void fleet_expect_result(const struct actor *agent, const struct kiln_job_submitted *record, struct kiln_result *result) {
    struct kiln_answer answer;
    struct kiln_err err = {0};
    struct kiln_keeper *keeper = kiln_fleet_keeper(agent->fleet);
    fleet_await(agent, record, &answer);
    if (answer.status != KILN_ANSWER_RESULT)
        fail_msg("answer %d \"%s\" instead of a result", (int)answer.status, answer.reasons_count ? answer.reasons[0] : "");
    fleet_must(kiln_keeper_open_result(keeper, answer.envelope, answer.envelope_len, &record->action_digest, record->scope,
                                       kiln_keeper_generation(keeper), result, &err), &err);
    kiln_answer_release(&answer);
}

static inline const struct kiln_output *fleet_output(const struct kiln_result *result, const char *name) {
    for (size_t i = 0; i < result->outputs_count; i++)
        if (strcmp(result->outputs[i].name, name) == 0)
            return &result->outputs[i];
    fail_msg("no output %s", name);
    return NULL;
}

// That submission is built honestly, what it lacks uploaded by `agent`, by `executor`; what is signed is what that gave.
static inline void fleet_build(const struct actor *agent, const struct actor *executor, const struct kiln_job_submitted *record) {
    kiln_autoresult struct kiln_result result = {0};
    struct kiln_digest right;
    struct kiln_answer answer;
    fleet_submit(agent, record);
    kiln_digest_of("the right rlib", 14, &right);
    fleet_credit(executor);
    struct kiln_record heard;
    bool uploaded = false, worked = false;
    for (uint64_t deadline_ms = kiln_clock_ms() + FLEET_MS; !worked;) { // content may be there from before
        if (kiln_clock_left_ms(deadline_ms) == 0) {
            fleet_show_log();
            fail_msg("no work for %s", executor->author.principal);
        }
        if (!uploaded && fleet_hear(agent, KILN_TOPIC_RESULTS, kiln_clock_ms() + 20, &heard)) {
            answer = (struct kiln_answer){0};
            assert_int_equal(kiln_answer_decode(heard.value, heard.value_len, &answer, NULL), 0);
            if (answer.status == KILN_ANSWER_WANTED && !memcmp(&answer.jobs[0], &record->job, 16)) {
                fleet_upload(agent, record);
                uploaded = true;
            }
            kiln_answer_release(&answer);
            kiln_record_release(&heard);
        }
        if (fleet_hear(executor, KILN_TOPIC_WORK, kiln_clock_ms() + 20, &heard)) {
            struct kiln_work work = {0};
            struct kiln_candidate candidate;
            worked = kiln_work_decode(heard.value, heard.value_len, &work, NULL) == 0 &&
                     !memcmp(&work.incarnation, &executor->author.incarnation, 16) &&
                     kiln_digest_equal(&work.action_digest, &record->action_digest);
            if (worked) {
                fleet_candidate(executor, &work, "the right rlib", &candidate);
                fleet_sign(executor, &candidate);
                fleet_deliver(executor, &candidate);
                kiln_candidate_release(&candidate);
            }
            kiln_work_release(&work);
            kiln_record_release(&heard);
        }
    }
    fleet_expect_result(agent, record, &result);
    assert_true(kiln_digest_equal(&fleet_output(&result, "libdemo-0123.rlib")->digest, &right));
    assert_string_equal(result.attestations[0].executor, executor->author.principal);
}

// The next honest build of the rig's action is right.
static inline void fleet_honest_build(const struct actor *agent, const struct actor *executor) {
    struct kiln_job_submitted record;
    fleet_submission(agent, &record);
    fleet_build(agent, executor, &record);
    kiln_job_submitted_release(&record);
}
