// A fleet around one docket: a trust record with agents of two tenants and executors of three pools, a directory store, and a
// bus in the test's hands. What is said is fed as records of authors; what the docket says is looked up.
#pragma once

#include <poll.h>

#include "tests/unit/fake_bus.h"
#include "tests/unit/trust_rig.h"
#include "tests/unit/verifier_rig.h"

#include "lib/base/clock.h"
#include "lib/bus/bus_kafka.h"
#include "lib/core/public_list.h"
#include "lib/wire/attested.h"
#include "verifier/docket.h"

#define WORLD_MS 20000u
#define PARTITIONS 4u

struct world {
    struct rig *rig;
    struct fake_bus *bus;
    struct kiln_keeper *keeper;
    struct kiln_sign_key *key;
    struct kiln_trust_record trust;
    struct kiln_docket_options options;
    struct kiln_docket *docket;
    uint64_t offset; // of the next record
    size_t seen;     // answers before are not looked at again
    size_t accepted; // submissions, by the answers seen
    unsigned char credits;
};

static const char *const world_roots[] = {"root-1"};

static inline void world_publish_trust(struct world *world) {
    struct kiln_err err = {0};
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20);
    world->trust.version++;
    kiln_trust_record_sort(&world->trust);
    rig_sign(world->rig->scratch, &world->trust, world_roots, 1, &envelope);
    if (kiln_store_put_pointer(world->rig->verifier, "trust/record", envelope.data, envelope.len, true, &err))
        fail_msg("%s", err.text);
    if (world->keeper && kiln_keeper_refresh(world->keeper, &err))
        fail_msg("%s", err.text);
}

// Makes the rig's package public.
static inline void world_publish_list(struct world *world) {
    struct kiln_err err = {0};
    const struct kiln_digest archive = {{1}};
    kiln_autopublic_list struct kiln_public_list list = {
        .version = 1, .issued_ms = kiln_clock_wall_ms() - 1000, .expires_ms = kiln_clock_wall_ms() + 3600000};
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20);
    struct kiln_sign_key *root = rig_key(world->rig->scratch, world_roots[0]);
    const struct kiln_sign_key *const keys[] = {root};
    assert_ok(kiln_public_list_add(&list, "demo-1.0.0", &archive, &world->rig->contents[0].digest, &err));
    assert_ok(kiln_public_list_finish(&list, &err));
    assert_ok(kiln_public_list_sign(&list, keys, 1, &envelope, &err));
    assert_ok(kiln_store_put_pointer(world->rig->verifier, "trust/public", envelope.data, envelope.len, true, &err));
    assert_ok(kiln_keeper_refresh(world->keeper, &err));
    kiln_sign_key_free(root);
}

static inline void world_enrol(struct world *world) {
    const struct scratch *scratch = world->rig->scratch;
    uint64_t now_ms = kiln_clock_wall_ms();
    struct kiln_trust_record *trust = &world->trust;
    *trust = (struct kiln_trust_record){.version = 6, .issued_ms = now_ms - 1000, .expires_ms = now_ms + 3600000, .generation = 3};
    rig_add_verifier_key(scratch, trust, "verifier-1", now_ms + 7200000);
    rig_enrol(scratch, trust, "verifier-1", KILN_ROLE_OF_VERIFIER, "", "");
    rig_enrol(scratch, trust, "agent-1", KILN_ROLE_OF_AGENT, "blue", "");
    rig_enrol(scratch, trust, "agent-2", KILN_ROLE_OF_AGENT, "blue", "");
    rig_enrol(scratch, trust, "agent-3", KILN_ROLE_OF_AGENT, "red", "");
    rig_enrol(scratch, trust, "executor-1", KILN_ROLE_OF_EXECUTOR, "", "a");
    rig_enrol(scratch, trust, "executor-2", KILN_ROLE_OF_EXECUTOR, "", "b");
    rig_enrol(scratch, trust, "executor-3", KILN_ROLE_OF_EXECUTOR, "", "c");
}

static inline int world_open_result(void *keeper, const void *envelope, size_t len, const struct kiln_digest *action,
                                    const char *scope, uint64_t generation, struct kiln_result *result, struct kiln_err *err) {
    return kiln_keeper_open_result(keeper, envelope, len, action, scope, generation, result, err);
}

static inline void world_start(struct world *world) {
    struct kiln_err err = {0};
    if (kiln_docket_new(&world->options, &world->docket, &err))
        fail_msg("%s", err.text);
}

// The process dies: what it had in hand is gone, what it wrote is not.
static inline void world_restart(struct world *world) {
    kiln_docket_free(world->docket);
    world_start(world);
}

static inline int world_setup(void **state) {
    struct kiln_err err = {0};
    struct world *world = calloc(1, sizeof *world);
    uint8_t root[1][KILN_PUBLIC_KEY_BYTES];
    rig_setup((void **)&world->rig);
    world_enrol(world);
    world_publish_trust(world);
    rig_public(world->rig->scratch, world_roots[0], root[0]);
    const struct kiln_keeper_options keeper = {.store = world->rig->verifier, .dir = scratch_path(world->rig->scratch, "kept"),
                                               .roots = (const uint8_t (*)[KILN_PUBLIC_KEY_BYTES])root, .roots_count = 1,
                                               .threshold = 1, .refresh_ms = 3600000};
    if (kiln_keeper_open(&keeper, &world->keeper, &err))
        fail_msg("%s", err.text);
    assert_ok(kiln_keeper_valid(world->keeper, &err));
    world->key = rig_key(world->rig->scratch, "verifier-1");
    world->bus = fake_bus_new(PARTITIONS);
    world->options = (struct kiln_docket_options){
        .bus = &world->bus->bus, .store = world->rig->verifier, .scratch_dir = world->rig->scratch->fd,
        .vault = {.store = world->rig->verifier, .key = world->key, .open = world_open_result, .context = world->keeper,
                  .pointer_ms = 3600000, .content_ms = 7200000},
        .keeper = world->keeper, .principal = "verifier-1",
        .plan = {.lease_ms = 60000, .upload_ms = 60000, .hash_seed = 1}};
    world_start(world);
    *state = world;
    return 0;
}

static inline int world_teardown(void **state) {
    struct world *world = *state;
    kiln_docket_free(world->docket);
    kiln_bus_close(&world->bus->bus);
    kiln_keeper_close(world->keeper);
    kiln_sign_key_free(world->key);
    kiln_trust_record_release(&world->trust);
    rig_teardown((void **)&world->rig);
    free(world);
    return 0;
}

#define world_test(function) cmocka_unit_test_setup_teardown(function, world_setup, world_teardown)

// Until nothing is at work any more.
static inline void world_settle(struct world *world) {
    struct kiln_err err = {0};
    uint64_t deadline_ms = kiln_clock_ms() + WORLD_MS;
    while (kiln_docket_tasks(world->docket)) {
        struct pollfd watch = {.fd = kiln_docket_fd(world->docket), .events = POLLIN};
        poll(&watch, 1, 1000);
        if (kiln_docket_finish(world->docket, &err))
            fail_msg("%s", err.text);
        assert_true(kiln_clock_ms() < deadline_ms);
    }
}

static inline struct kiln_author world_author(const struct world *world, const char *name) {
    struct kiln_author author = {.incarnation = {{9}}};
    const struct kiln_principal *found = kiln_trust_record_enrolled(&world->trust, name);
    assert_non_null(found);
    author.incarnation.bytes[1] = (uint8_t)name[strlen(name) - 1];
    author.role = found->role;
    rig_copy(author.principal, found->name);
    rig_copy(author.tenant, found->tenant);
    rig_copy(author.pool, found->pool);
    return author;
}

static inline uint32_t world_partition(const struct world *world, const struct kiln_digest *action) {
    return kiln_bus_partition_of(&world->bus->bus, action);
}

static inline uint32_t world_mailbox(const struct kiln_author *author) {
    return kiln_kafka_result_partition(author->principal, &author->incarnation, PARTITIONS);
}

// Gives the docket a record of that author, and waits for all that it causes.
static inline void world_feed(struct world *world, enum kiln_topic topic, uint32_t partition, const struct kiln_author *author,
                              const struct kiln_buf *value) {
    struct kiln_err err = {0};
    struct kiln_record record = {.topic = topic, .author = *author, .partition = partition, .offset = world->offset++,
                                 .value = value->data, .value_len = value->len};
    if (kiln_docket_take(world->docket, &record, &err))
        fail_msg("%s", err.text);
    world_settle(world);
}

static inline void world_news(struct world *world, enum kiln_record_news news, uint32_t partition) {
    struct kiln_err err = {0};
    const struct kiln_record record = {.topic = KILN_TOPIC_JOBS, .news = news, .partition = partition};
    if (kiln_docket_take(world->docket, &record, &err))
        fail_msg("%s", err.text);
    world_settle(world);
}

static inline void world_tick(struct world *world) {
    struct kiln_err err = {0};
    if (kiln_docket_tick(world->docket, &err))
        fail_msg("%s", err.text);
    world_settle(world);
}

static inline void world_set(char **text, const char *value) {
    free(*text);
    *text = strdup(value);
}

// A submission as an honest agent makes it.
static inline void world_submission(const struct world *world, const char *agent, unsigned char number, const char *scope,
                                    struct kiln_job_submitted *record) {
    const struct kiln_author author = world_author(world, agent);
    rig_submission(world->rig, number, record);
    world_set(&record->tenant, author.tenant);
    world_set(&record->agent, author.principal);
    world_set(&record->scope, scope);
    record->waiter_partition = world_mailbox(&author);
}

static inline void world_submit_as(struct world *world, const struct kiln_author *author, uint32_t partition,
                                   const struct kiln_job_submitted *record) {
    struct kiln_err err = {0};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    if (kiln_job_submitted_encode(record, &bytes, &err))
        fail_msg("%s", err.text);
    world_feed(world, KILN_TOPIC_JOBS, partition, author, &bytes);
}

static inline void world_submit(struct world *world, const char *agent, const struct kiln_job_submitted *record) {
    const struct kiln_author author = world_author(world, agent);
    world_submit_as(world, &author, world_partition(world, &record->action_digest), record);
}

static inline void world_announce(struct world *world, const char *agent, const struct kiln_job_submitted *record) {
    struct kiln_err err = {0};
    const struct kiln_author author = world_author(world, agent);
    const struct kiln_job_uploaded uploaded = {.job = record->job, .action_digest = record->action_digest};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_ok(kiln_job_uploaded_encode(&uploaded, &bytes, &err));
    world_feed(world, KILN_TOPIC_JOBS, world_partition(world, &record->action_digest), &author, &bytes);
}

static inline void world_cancel(struct world *world, const char *agent, const struct kiln_job_submitted *record) {
    struct kiln_err err = {0};
    const struct kiln_author author = world_author(world, agent);
    const struct kiln_job_cancelled cancelled = {.job = record->job, .action_digest = record->action_digest};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_ok(kiln_job_cancelled_encode(&cancelled, &bytes, &err));
    world_feed(world, KILN_TOPIC_JOBS, world_partition(world, &record->action_digest), &author, &bytes);
}

static inline void world_upload(struct world *world, const char *agent, const struct kiln_job_submitted *record) {
    rig_upload_all(world->rig, record);
    world_announce(world, agent, record);
}

// The next answer to a tenant, in that partition, those that only say that a submission was accepted counted and left out;
// false: there is none.
static inline bool world_answer(struct world *world, const struct kiln_author *author, struct kiln_answer *answer) {
    for (; world->seen < world->bus->count; world->seen++) {
        const struct fake_sent *sent = &world->bus->sent[world->seen];
        if (sent->record.topic != KILN_TOPIC_RESULTS || strcmp(sent->tenant, author->tenant) != 0 ||
            sent->record.partition != world_mailbox(author))
            continue;
        world->seen++;
        assert_int_equal(kiln_answer_decode(sent->record.value, sent->record.value_len, answer, NULL), 0);
        if (answer->status != KILN_ANSWER_ACCEPTED)
            return true;
        world->accepted += answer->jobs_count;
        kiln_answer_release(answer);
    }
    return false;
}

static inline void world_expect(struct world *world, const char *agent, enum kiln_answer_status status, const char *reason) {
    const struct kiln_author author = world_author(world, agent);
    struct kiln_answer answer = {0};
    if (!world_answer(world, &author, &answer))
        fail_msg("no answer to %s", agent);
    if (answer.status != status)
        fail_msg("answer %d (%s) instead of %d", (int)answer.status, answer.reasons_count ? answer.reasons[0] : "", (int)status);
    if (reason && (!answer.reasons_count || strncmp(answer.reasons[0], reason, strlen(reason)) != 0))
        fail_msg("\"%s\" instead of \"%s\"", answer.reasons_count ? answer.reasons[0] : "", reason);
    kiln_answer_release(&answer);
}

static inline void world_expect_silence(struct world *world, const char *agent) {
    const struct kiln_author author = world_author(world, agent);
    struct kiln_answer answer = {0};
    if (world_answer(world, &author, &answer))
        fail_msg("answer %d (%s) where there should be none", (int)answer.status, answer.reasons_count ? answer.reasons[0] : "");
}

// A result that the keeper takes.
static inline void world_expect_result(struct world *world, const char *agent, const char *scope, struct kiln_result *result) {
    const struct kiln_author author = world_author(world, agent);
    struct kiln_answer answer = {0};
    struct kiln_err err = {0};
    if (!world_answer(world, &author, &answer))
        fail_msg("no answer to %s", agent);
    if (answer.status != KILN_ANSWER_RESULT)
        fail_msg("answer %d (%s) instead of a result", (int)answer.status, answer.reasons_count ? answer.reasons[0] : "");
    if (kiln_keeper_open_result(world->keeper, answer.envelope, answer.envelope_len, &answer.action_digest, scope, 3, result, &err))
        fail_msg("%s", err.text);
    kiln_answer_release(&answer);
}

// How many events of that name; *last (may be NULL) is the newest, to be released.
static inline size_t world_events(const struct world *world, const char *name, struct kiln_event *last) {
    size_t found = 0;
    for (size_t i = 0; i < world->bus->count; i++) {
        const struct kiln_record *record = &world->bus->sent[i].record;
        struct kiln_event event = {0};
        if (record->topic != KILN_TOPIC_EVENTS)
            continue;
        assert_int_equal(kiln_event_decode(record->value, record->value_len, &event, NULL), 0);
        bool hit = strcmp(event.name, name) == 0;
        found += hit;
        if (hit && last) {
            kiln_event_release(last);
            *last = event;
        } else {
            kiln_event_release(&event);
        }
    }
    return found;
}

static inline void world_expect_event(const struct world *world, const char *name, const char *subject) {
    struct kiln_event event = {0};
    if (!world_events(world, name, &event))
        fail_msg("no event %s", name);
    if (subject && strcmp(event.subject, subject) != 0)
        fail_msg("event %s is about %s, not about %s", name, event.subject, subject);
    kiln_event_release(&event);
}

static inline size_t world_ledger(const struct world *world, const char *name) {
    size_t found = 0;
    for (size_t i = 0; i < world->bus->count; i++) {
        const struct kiln_record *record = &world->bus->sent[i].record;
        struct kiln_ledger_entry entry = {0};
        if (record->topic != KILN_TOPIC_LEDGER)
            continue;
        assert_int_equal(kiln_ledger_entry_decode(record->value, record->value_len, &entry, NULL), 0);
        found += strcmp(entry.event, name) == 0;
        kiln_ledger_entry_release(&entry);
    }
    return found;
}

static int world_count_state(void *context, const struct kiln_record *record) {
    size_t *count = context;
    (void)record;
    ++*count;
    return 0;
}

// Keys that the state holds, of all partitions.
static inline size_t world_state(struct world *world) {
    size_t count = 0;
    for (uint32_t i = 0; i < PARTITIONS; i++)
        kiln_bus_restore(&world->bus->bus, i, UINT64_MAX, world_count_state, &count, NULL);
    return count;
}

static inline void world_credit_as(struct world *world, const struct kiln_author *author, const char *executor, const char *pool,
                                   const struct kiln_job_id *incarnation) {
    struct kiln_err err = {0};
    const struct kiln_credit credit = {.executor = (char *)(uintptr_t)executor, .pool = (char *)(uintptr_t)pool,
                                       .incarnation = *incarnation, .credit = {{++world->credits}},
                                       .expires_ms = kiln_clock_wall_ms() + 60000};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_ok(kiln_credit_encode(&credit, &bytes, &err));
    world_feed(world, KILN_TOPIC_CREDITS, 0, author, &bytes);
}

static inline void world_credit(struct world *world, const char *executor) {
    const struct kiln_author author = world_author(world, executor);
    world_credit_as(world, &author, author.principal, author.pool, &author.incarnation);
}

// The newest work; false: there is none (any more than `before`).
static inline size_t world_works(const struct world *world, struct kiln_work *work) {
    size_t found = 0;
    for (size_t i = 0; i < world->bus->count; i++) {
        const struct kiln_record *record = &world->bus->sent[i].record;
        enum kiln_record_type type;
        if (record->topic != KILN_TOPIC_WORK || kiln_record_type_of(record->value, record->value_len, &type, NULL) ||
            type != KILN_RECORD_work)
            continue;
        found++;
        kiln_work_release(work);
        *work = (struct kiln_work){0};
        assert_int_equal(kiln_work_decode(record->value, record->value_len, work, NULL), 0);
    }
    return found;
}

static const char world_dep_info[] = "/t/libdemo-0123.rlib: src/lib.rs\n\nsrc/lib.rs:\n";

static inline void world_put_output(struct world *world, const struct kiln_candidate *candidate, const void *bytes, size_t len,
                                    struct kiln_candidate_output *output) {
    struct kiln_err err = {0};
    char job[33], hex[KILN_DIGEST_HEX_LEN + 1];
    output->size = len;
    kiln_digest_of(bytes, len, &output->digest);
    for (size_t i = 0; i < 16; i++)
        snprintf(job + 2 * i, 3, "%02x", candidate->job.bytes[i]);
    kiln_digest_format(&output->digest, hex);
    kiln_autofree char *key = kiln_key_quarantine_out(candidate->executor, job, candidate->attempt, hex);
    assert_ok(kiln_store_put_bytes(world->rig->executor, KILN_SPACE_QUARANTINE, key, bytes, len, NULL, &err));
}

#define WORLD_OUTPUTS 4u
// What an executor says of a work, its outputs uploaded, and signed. `rlib`: the bytes that it gives. To be released.
static inline void world_candidate(struct world *world, const char *executor, const struct kiln_work *work, const char *rlib,
                                   struct kiln_candidate *candidate) {
    static const struct {
        enum kiln_output_kind kind;
        const char *name, *bytes;
    } outputs[WORLD_OUTPUTS] = {{KILN_OUTPUT_FILE, "libdemo-0123.rlib", NULL},
                                {KILN_OUTPUT_FILE, "libdemo-0123.rmeta", "an rmeta"},
                                {KILN_OUTPUT_FILE, "demo-0123.d", world_dep_info},
                                {KILN_OUTPUT_STDERR, "", ""}};
    const struct kiln_author author = world_author(world, executor);
    *candidate = (struct kiln_candidate){.job = work->job, .incarnation = author.incarnation, .attempt = work->attempt,
                                         .executor = strdup(author.principal), .pool = strdup(author.pool),
                                         .backend = strdup("bwrap"), .action_digest = work->action_digest,
                                         .at_ms = kiln_clock_wall_ms(), .outputs_count = WORLD_OUTPUTS};
    candidate->outputs = calloc(WORLD_OUTPUTS, sizeof *candidate->outputs);
    for (size_t i = 0; i < WORLD_OUTPUTS; i++) {
        const char *bytes = outputs[i].bytes ? outputs[i].bytes : rlib;
        candidate->outputs[i].kind = outputs[i].kind;
        candidate->outputs[i].name = strdup(outputs[i].name);
        world_put_output(world, candidate, bytes, strlen(bytes), &candidate->outputs[i]);
    }
    char file[KILN_PRINCIPAL_BYTES + 16];
    snprintf(file, sizeof file, "%s.record", executor);
    struct kiln_sign_key *key = rig_key(world->rig->scratch, file);
    assert_int_equal(kiln_candidate_sign(candidate, key, NULL), 0);
    kiln_sign_key_free(key);
}

static inline void world_deliver(struct world *world, const char *author_name, const struct kiln_candidate *candidate) {
    struct kiln_err err = {0};
    const struct kiln_author author = world_author(world, author_name);
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    assert_ok(kiln_candidate_encode(candidate, &bytes, &err));
    world_feed(world, KILN_TOPIC_CANDIDATES, world_partition(world, &candidate->action_digest), &author, &bytes);
}

// Does the newest work honestly.
static inline void world_work(struct world *world, const char *executor, const char *rlib) {
    struct kiln_work work = {0};
    struct kiln_candidate candidate;
    assert_true(world_works(world, &work) > 0);
    world_candidate(world, executor, &work, rlib, &candidate);
    world_deliver(world, executor, &candidate);
    kiln_candidate_release(&candidate);
    kiln_work_release(&work);
}

// That record, or one after it.
static inline bool world_is_acked(const struct world *world, enum kiln_topic topic, uint64_t offset) {
    for (size_t i = 0; i < world->bus->acked_count; i++) {
        if (world->bus->acked[i].topic == topic && world->bus->acked[i].offset >= offset)
            return true;
    }
    return false;
}
