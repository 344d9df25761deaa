// What time, the operators' documents and restarts do to a fleet, each with an attempt to profit from it, on real Kafka and MinIO
// with a real verifier: refused by its name, and the next honest build is right. Who believes what with whole programs:
// tests/fleet/cases_trust.py.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/blob/toolchain_store.h"
#include "tests/integration/fleet_outsider.h"

// Whether an agent may use what stands at the key; `why` (or NULL): the word of what it is refused for.
#define expect_pointer(key, action, why) expect_pointer_at(__LINE__, key, action, why)
static int open_pointer(const char *key, const struct kiln_digest *action, struct kiln_result *result, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1 << 20);
    struct kiln_keeper *keeper = kiln_fleet_keeper(fleet.agent.fleet);
    int rc = kiln_store_get_bytes(kiln_fleet_store(fleet.agent.fleet), KILN_SPACE_VAULT, key, &bytes, err);
    return rc ? rc : kiln_keeper_open_result(keeper, bytes.data, bytes.len, action, "red", kiln_keeper_generation(keeper), result, err);
}

static void expect_pointer_at(int line, const char *key, const struct kiln_digest *action, const char *why) {
    kiln_autoresult struct kiln_result result = {0};
    struct kiln_err err = {0};
    int rc = open_pointer(key, action, &result, &err);
    if ((rc == 0) != (why == NULL) || (why && strncmp(err.text, why, strlen(why)) != 0))
        fail_msg("line %d: the pointer: %s, not %s", line, rc ? err.text : "good", why ? why : "good");
}

// It is good until then, and not for longer.
static void expect_pointer_until(const char *key, const struct kiln_digest *action, uint64_t end_ms) {
    struct kiln_err err = {0};
    for (int rc = 0; rc == 0; poll(NULL, 0, 20)) {
        kiln_autoresult struct kiln_result result = {0};
        const uint64_t asked_ms = kiln_clock_wall_ms();
        rc = open_pointer(key, action, &result, &err);
        if (rc ? kiln_clock_wall_ms() < end_ms : asked_ms > end_ms)
            fail_msg("the pointer is %s %lld ms after its end", rc ? err.text : "good", (long long)(asked_ms - end_ms));
    }
}

static char *pointer_of(const struct kiln_digest *action) {
    return kiln_key_result("red", kiln_keeper_generation(kiln_fleet_keeper(fleet.agent.fleet)), action);
}

// The rig's action is known: asked for by another agent, it is answered without an execution.
static void expect_known(void) {
    struct kiln_job_submitted record;
    struct kiln_answer answer;
    fleet_submission(&fleet.second, &record);
    fleet_submit(&fleet.second, &record);
    fleet_await(&fleet.second, &record, &answer);
    assert_int_equal(answer.status, KILN_ANSWER_RESULT);
    const struct kiln_job_id nobody = {{0}};
    assert_memory_equal(&answer.executed, &nobody, sizeof nobody);
    kiln_answer_release(&answer);
    kiln_job_submitted_release(&record);
}

// An earlier action once more, by its number; the next one is new all the same.
static void action_again(unsigned number) {
    const unsigned newest = fleet.number;
    fleet.number = number - 1;
    fleet_next_action();
    fleet.number = newest;
}

// Everything of the sender's own but the name in kiln-sig: records that would be taken, were they the other's.
static void names_of_others(void **state) {
    (void)state;
    struct kiln_job_submitted record, honest;
    struct kiln_work work;
    struct kiln_candidate candidate;
    struct actor agent = fleet_masked("agent-3", KILN_ROLE_OF_AGENT, "[fleet]\nprincipal = agent-1\ntenant = red\n");
    struct actor executor = fleet_masked("executor-2", KILN_ROLE_OF_EXECUTOR, "[fleet]\nprincipal = executor-1\npool = north\n");
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor); // the content is there
    fleet_next_action();
    const struct kiln_digest *action = &fleet.rig->action_digest;
    const uint32_t partition = fleet_partition(action);
    fleet_submission(&agent, &record); // for red's results
    fleet_submit(&agent, &record);
    fleet_expect_event("signature", NULL);
    fleet_credit(&executor);
    fleet_expect_event("signature", NULL);

    fleet_submission(&fleet.agent, &honest);
    fleet_submit(&fleet.agent, &honest);
    kiln_autoresult struct kiln_result result = {0};
    const struct kiln_job_cancelled cancelled = {.job = honest.job, .action_digest = *action};
    fleet_say_job_cancelled(&agent, KILN_TOPIC_JOBS, partition, action, &cancelled);
    fleet_expect_event("signature", NULL);
    fleet_credit(&fleet.executor);
    fleet_await_work(&fleet.executor, &work); // not the mask's, which offered first
    const struct kiln_lease lease = {.job = work.job, .incarnation = work.incarnation, .attempt = work.attempt, .at_ms = kiln_clock_wall_ms()};
    fleet_say_lease(&executor, KILN_TOPIC_LEASES, partition, action, &lease);
    fleet_expect_event("signature", NULL);
    fleet_candidate(&fleet.rival, &work, "a trap", &candidate);
    fleet_set(&candidate.executor, "executor-1");
    fleet_set(&candidate.pool, "north");
    candidate.incarnation = work.incarnation;
    fleet_sign(&executor, &candidate);
    fleet_deliver(&executor, &candidate);
    fleet_expect_event("signature", NULL);
    kiln_candidate_release(&candidate);

    fleet_candidate(&fleet.executor, &work, "the right rlib", &candidate);
    fleet_sign(&fleet.executor, &candidate);
    fleet_deliver(&fleet.executor, &candidate);
    fleet_expect_result(&fleet.agent, &honest, &result);
    struct kiln_digest right;
    kiln_digest_of("the right rlib", 14, &right);
    assert_true(kiln_digest_equal(&fleet_output(&result, "libdemo-0123.rlib")->digest, &right));
    kiln_candidate_release(&candidate);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
    kiln_job_submitted_release(&honest);
    fleet_dismiss(&agent);
    fleet_dismiss(&executor);
}

static uint64_t key_ends_ms;
static void end_keys(struct kiln_trust_record *record) {
    for (size_t i = 0; i < record->keys_count; i++)
        if (strcmp(record->keys[i].principal, "verifier-1") == 0)
            record->keys[i].not_after_ms = key_ends_ms;
}

static struct kiln_verifier_key next_key; // the newest
static void add_key(struct kiln_trust_record *record) {
    record->keys = reallocarray(record->keys, record->keys_count + 1, sizeof *record->keys);
    record->keys[record->keys_count++] = next_key;
}

static void revoke_key(struct kiln_trust_record *record) {
    struct kiln_digest id;
    struct kiln_revocation revocation = {.kind = KILN_REVOKED_KEY};
    kiln_digest_of(next_key.public_key, sizeof next_key.public_key, &id);
    kiln_digest_format(&id, revocation.what);
    record->revocations = reallocarray(record->revocations, record->revocations_count + 1, sizeof *record->revocations);
    record->revocations[record->revocations_count++] = revocation;
}

// verifier-1 goes on with another signing key, which the trust record names.
static void exchange_key(const char *name) {
    struct kiln_sign_key *key = NULL;
    struct kiln_err err = {0};
    kiln_autofree char *own = stack_role_file(&fleet.stack, "verifier-1", "");
    kiln_autofd int dir = open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fleet_must(kiln_sign_key_load_or_make(dir, name, &key, &err), &err);
    next_key = (struct kiln_verifier_key){.principal = "verifier-1", .not_after_ms = kiln_clock_wall_ms() + FLEET_DAY_MS};
    kiln_sign_key_public(key, next_key.public_key);
    kiln_sign_key_free(key);
    fleet_change_trust(add_key);
    fleet_end_verifier();
    assert_int_equal(renameat(dir, name, dir, "sign.key"), 0);
    fleet_start_verifier("");
}

// What a key has signed that has passed its last day, or that is revoked, is a miss for agents and verifiers, and made again.
static void an_expired_key_and_a_revoked_one(void **state) {
    (void)state;
    struct kiln_job_submitted record;
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor);
    const struct kiln_digest action = fleet.rig->action_digest;
    kiln_autofree char *key = pointer_of(&action);
    key_ends_ms = kiln_clock_wall_ms() + 1500;
    fleet_change_trust(end_keys);
    expect_pointer_until(key, &action, key_ends_ms);
    expect_pointer(key, &action, "key_expired");
    fleet_submission(&fleet.agent, &record);
    fleet_submit(&fleet.agent, &record);
    fleet_expect(&fleet.agent, &record, KILN_ANSWER_COMPILE_LOCALLY, "trust_signer"); // nor does it sign anything now
    kiln_job_submitted_release(&record);

    exchange_key("sign-2");
    fleet_honest_build(&fleet.second, &fleet.executor);
    fleet_expect_event("result_expired", "red");
    expect_pointer(key, &action, NULL);
    fleet_change_trust(revoke_key);
    expect_pointer(key, &action, "revoked_key");
    exchange_key("sign-3");
    fleet_honest_build(&fleet.agent, &fleet.rival);
    fleet_expect_event("result_revoked", "red");
    expect_pointer(key, &action, NULL);
    expect_known();
}

static uint8_t record_key[KILN_PUBLIC_KEY_BYTES];
static void swap_record_key(struct kiln_trust_record *record) { // of executor-2, with the one kept here
    for (size_t i = 0; i < record->principals_count; i++) {
        struct kiln_principal *principal = &record->principals[i];
        uint8_t old[KILN_PUBLIC_KEY_BYTES];
        if (strcmp(principal->name, "executor-2") != 0)
            continue;
        memcpy(old, principal->record_key, sizeof old);
        memcpy(principal->record_key, record_key, sizeof old);
        memcpy(record_key, old, sizeof old);
    }
}

// Records under a record key that an executor has no more are nobody's, and so is what it attested.
static void an_executors_old_record_key(void **state) {
    (void)state;
    struct kiln_job_submitted record;
    struct kiln_work work;
    struct kiln_candidate candidate;
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.rival);
    const struct kiln_digest before = fleet.rig->action_digest;
    const unsigned number = fleet.number;
    kiln_autofree char *key = pointer_of(&before);
    fleet_next_action();
    fleet_submission(&fleet.agent, &record);
    fleet_submit(&fleet.agent, &record);
    fleet_credit(&fleet.rival);
    fleet_await_work(&fleet.rival, &work);

    kiln_sign_key_public(fleet.rig->key, record_key);
    fleet_change_trust(swap_record_key);
    fleet_candidate(&fleet.rival, &work, "the right rlib", &candidate);
    fleet_sign(&fleet.rival, &candidate);
    fleet_deliver(&fleet.rival, &candidate);
    fleet_expect_event("signature", NULL);
    expect_pointer(key, &before, "attestation");
    const struct kiln_job_cancelled cancelled = {.job = record.job, .action_digest = record.action_digest};
    fleet_say_job_cancelled(&fleet.agent, KILN_TOPIC_JOBS, fleet_partition(&record.action_digest), &record.action_digest, &cancelled);
    kiln_candidate_release(&candidate);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
    action_again(number);
    fleet_honest_build(&fleet.second, &fleet.executor);
    fleet_expect_event("result_untrusted", "red");
    expect_pointer(key, &before, NULL);
    fleet_change_trust(swap_record_key);
}

// A genuine result of the rig's action, as verifier-1 signs it but for its lifetime and generation, on a name that stays locked.
static void put_ending(const struct kiln_digest *model, uint64_t generation, uint64_t expires_ms) {
    kiln_autofree char *from = pointer_of(model), *sign_key = stack_role_file(&fleet.stack, "verifier-1", "sign.key");
    kiln_autofree char *key = kiln_key_result("red", generation, &fleet.rig->action_digest);
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20);
    kiln_autoresult struct kiln_result result = {0};
    struct kiln_sign_key *signer = NULL;
    struct kiln_err err = {0};
    fleet_must(open_pointer(from, model, &result, &err), &err);
    fleet_must(kiln_sign_key_load(AT_FDCWD, sign_key, &signer, &err), &err);
    result.action = fleet.rig->action_digest;
    result.generation = generation;
    result.expires_ms = expires_ms;
    fleet_must(kiln_attestation_sign(&result.attestations[0], &result.action, kiln_fleet_record_key(fleet.executor.fleet), &err), &err);
    fleet_must(kiln_result_seal(&result, signer, &envelope, &err), &err);
    fleet_put_over(key, &envelope);
    kiln_sign_key_free(signer);
}

static void next_generation(struct kiln_trust_record *record) { record->generation++; }

// Past its end a result is made again in its generation and in the next one, on its locked name; where the generation before has
// a good one, that is carried forward. Nothing is stuck.
static void results_that_end(void **state) {
    (void)state;
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor);
    const struct kiln_digest model = fleet.rig->action_digest;
    const uint64_t generation = kiln_keeper_generation(kiln_fleet_keeper(fleet.agent.fleet));
    const unsigned first = fleet.number + 1;
    struct kiln_digest actions[3];
    char *keys[3], *next_keys[3];
    for (size_t i = 0; i < 3; i++) {
        fleet_next_action();
        actions[i] = fleet.rig->action_digest;
        keys[i] = kiln_key_result("red", generation, &actions[i]);
        next_keys[i] = kiln_key_result("red", generation + 1, &actions[i]);
    }
    fleet_honest_build(&fleet.agent, &fleet.executor); // good for long, but what is carried from it will have ended
    const uint64_t expires_ms = kiln_clock_wall_ms() + 4000;
    for (unsigned i = 3; i-- > 0;) {
        action_again(first + i);
        put_ending(&model, i == 2 ? generation + 1 : generation, expires_ms);
    }
    expect_known();
    expect_pointer_until(keys[0], &actions[0], expires_ms);
    expect_pointer(keys[0], &actions[0], "expired");
    fleet_honest_build(&fleet.second, &fleet.executor);
    fleet_expect_event("result_expired", "red");
    expect_pointer(keys[0], &actions[0], NULL);
    expect_known();

    fleet_change_trust(next_generation);
    expect_known(); // carried
    expect_pointer(next_keys[0], &actions[0], NULL);
    action_again(first + 1); // has ended, unused since
    fleet_honest_build(&fleet.second, &fleet.executor);
    expect_pointer(next_keys[1], &actions[1], NULL);
    action_again(first + 2);
    expect_pointer(next_keys[2], &actions[2], "expired");
    expect_known(); // carried over what has ended
    expect_pointer(next_keys[2], &actions[2], NULL);
    for (size_t i = 0; i < 3; i++) {
        free(keys[i]);
        free(next_keys[i]);
    }
}

static void revoke_rival(struct kiln_trust_record *record) {
    record->revocations = reallocarray(record->revocations, record->revocations_count + 1, sizeof *record->revocations);
    record->revocations[record->revocations_count++] = (struct kiln_revocation){.kind = KILN_REVOKED_EXECUTOR, .what = "executor-2"};
}

static void forgive_rival(struct kiln_trust_record *record) {
    for (size_t i = 0; i < record->revocations_count; i++)
        if (record->revocations[i].kind == KILN_REVOKED_EXECUTOR)
            record->revocations[i--] = record->revocations[--record->revocations_count];
}

// Work that a revoked executor has, or is still given, is lost for it: whatever it says of it is nobody's, and others do it.
static void a_revoked_executor_has_work(void **state) {
    (void)state;
    struct kiln_job_submitted record;
    struct kiln_work work;
    struct kiln_candidate candidate;
    kiln_autoresult struct kiln_result result = {0};
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor); // the content is there
    fleet_next_action();
    fleet_submission(&fleet.agent, &record);
    fleet_submit(&fleet.agent, &record);
    fleet_credit(&fleet.rival);
    fleet_await_work(&fleet.rival, &work);
    fleet_credit(&fleet.rival); // for more
    fleet_candidate(&fleet.rival, &work, "a trap", &candidate);
    fleet_sign(&fleet.rival, &candidate);
    fleet_change_trust(revoke_rival);
    fleet_deliver(&fleet.rival, &candidate);
    fleet_expect_event("unknown_principal", NULL);
    fleet_work(&fleet.executor, "the right rlib");
    fleet_expect_result(&fleet.agent, &record, &result);
    assert_string_equal(result.attestations[0].executor, "executor-1");
    kiln_candidate_release(&candidate);
    kiln_work_release(&work);
    kiln_job_submitted_release(&record);
    fleet_next_action();
    fleet_honest_build(&fleet.second, &fleet.executor);
    fleet_change_trust(forgive_rival);
}

// Another action over the package alone, as one without dependencies has it; and over the libraries too, as before.
static void leave_libraries(void) {
    struct kiln_action *action = &fleet.rig->action;
    const struct kiln_action_input libraries = action->inputs[0];
    assert_int_equal(libraries.form, KILN_INPUT_LIST);
    action->inputs[0] = action->inputs[1];
    action->inputs[1] = libraries;
    action->inputs_count = 1;
    fleet_next_action();
}

static void take_libraries(void) {
    fleet.rig->action.inputs_count = 2;
    fleet_next_action();
}

static void lone_submission(const struct actor *agent, const char *scope, struct kiln_job_submitted *record) {
    fleet_submission(agent, record);
    fleet_set(&record->scope, scope);
    record->contents_count = 1; // the pack
    for (size_t i = 0; i < record->closure_count; i++)
        free(record->closure[i]);
    record->closure_count = 0;
}

static void expect_not_public(const struct actor *agent, const char *why) {
    struct kiln_job_submitted record;
    lone_submission(agent, "public", &record);
    fleet_submit(agent, &record);
    fleet_expect(agent, &record, KILN_ANSWER_REJECTED, why);
    fleet_expect_event("scope", agent->author.principal);
    kiln_job_submitted_release(&record);
}

static void publish_toolchain(const struct kiln_digest *part) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(64);
    kiln_autofree char *key = kiln_key_toolchain(part);
    kiln_buf_add(&bytes, "a part", 6);
    fleet_put_over(key, &bytes);
}

// A package of a name that is listed, but whose archive is another: not public, and its tenant's own all the same. The listed
// one is everybody's, when its bytes are what the list says.
static void a_public_package_of_other_bytes(void **state) {
    (void)state;
    struct rig *rig = fleet.rig;
    const struct kiln_digest tree = rig->contents[0].digest;
    struct kiln_digest other = tree;
    struct kiln_job_submitted record;
    leave_libraries();
    expect_not_public(&fleet.agent, "scope: demo-1.0.0 is not on the list"); // there is no list
    other.bytes[0] ^= 1;
    fleet_publish_package("demo-1.0.0", &other);
    expect_not_public(&fleet.agent, "scope: demo-1.0.0 is not on the list");
    fleet_publish_package("demo-1.0.1", &tree);
    expect_not_public(&fleet.agent, "scope: demo-1.0.0 is not on the list");
    lone_submission(&fleet.agent, "red", &record);
    fleet_build(&fleet.agent, &fleet.executor, &record);
    kiln_job_submitted_release(&record);

    fleet_publish_package("demo-1.0.0", &tree);
    expect_not_public(&fleet.stranger, "scope: the runtime part"); // compiled by a toolchain of nobody knows whom
    publish_toolchain(&rig->action.toolchain_runtime);
    publish_toolchain(&rig->action.toolchain_rustc);
    lone_submission(&fleet.stranger, "public", &record);
    fleet_submit(&fleet.stranger, &record);
    fleet_expect(&fleet.stranger, &record, KILN_ANSWER_WANTED, NULL); // red's own is not taken for it
    struct kiln_store *own = rig->agent;
    rig->agent = kiln_fleet_store(fleet.stranger.fleet);
    rig->pack.data[rig->pack.len - 1] ^= 1;
    rig_upload(rig, &record, 0);
    rig->pack.data[rig->pack.len - 1] ^= 1;
    rig->agent = own;
    const struct kiln_job_uploaded uploaded = {.job = record.job, .action_digest = record.action_digest};
    fleet_say_job_uploaded(&fleet.stranger, KILN_TOPIC_JOBS, fleet_partition(&record.action_digest), &record.action_digest, &uploaded);
    fleet_expect(&fleet.stranger, &record, KILN_ANSWER_REJECTED, "contents");
    fleet_expect_event("contents", "agent-3");
    kiln_job_submitted_release(&record);

    lone_submission(&fleet.stranger, "public", &record);
    fleet_build(&fleet.stranger, &fleet.executor, &record);
    kiln_job_submitted_release(&record);
    kiln_autoresult struct kiln_result result = {0};
    lone_submission(&fleet.agent, "public", &record); // of the other tenant
    fleet_submit(&fleet.agent, &record);
    fleet_expect_result(&fleet.agent, &record, &result);
    assert_string_equal(result.scope, "public");
    kiln_job_submitted_release(&record);
    take_libraries(); // which are of nobody's public build
    fleet_submission(&fleet.agent, &record);
    fleet_set(&record.scope, "public");
    fleet_submit(&fleet.agent, &record);
    fleet_expect(&fleet.agent, &record, KILN_ANSWER_REJECTED, "scope: blob-");
    fleet_expect_event("scope", "agent-1");
    kiln_job_submitted_release(&record);
    fleet_honest_build(&fleet.agent, &fleet.executor);
}

// The same record as its author would have signed it then.
static void sign_for_then(const struct actor *author, rd_kafka_message_t *message, uint64_t at_ms) {
    const struct kiln_statement statement = {.topic = rd_kafka_topic_name(message->rkt), .partition = (uint32_t)message->partition,
                                             .key = message->key, .key_len = message->key_len,
                                             .value = message->payload, .value_len = message->len};
    struct kiln_author then = author->author;
    kiln_autobuf struct kiln_buf header = KILN_BUF_INIT(KILN_STATEMENT_BYTES_MAX);
    rd_kafka_headers_t *headers;
    struct kiln_err err = {0};
    then.sequence = 1;
    then.at_ms = at_ms;
    fleet_must(kiln_statement_sign(&statement, &then, kiln_fleet_record_key(author->fleet), &header, &err), &err);
    assert_int_equal(rd_kafka_message_headers(message, &headers), 0);
    assert_int_equal(rd_kafka_header_remove(headers, "kiln-sig"), 0);
    assert_int_equal(rd_kafka_header_add(headers, "kiln-sig", -1, header.data, (ssize_t)header.len), 0);
}

// A verifier that has just started has not heard of the authors of old records. What it is given again changes nothing: a
// submission is answered with what is stored, a candidate is of no run, and what is older than the clock's bounds is refused.
static void old_records_to_a_new_verifier(void **state) {
    (void)state;
    struct kiln_job_submitted record;
    struct kiln_answer answer;
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor); // the content is there: the next job has one record
    fleet_next_action();
    fleet_submission(&fleet.agent, &record);
    fleet_build(&fleet.agent, &fleet.executor, &record);
    const struct kiln_digest action = record.action_digest;
    kiln_autofree char *key = pointer_of(&action);
    rd_kafka_t *thief = fleet_raw_client(RD_KAFKA_CONSUMER, "operator");
    rd_kafka_message_t *submission = fleet_steal(thief, "kiln.jobs", fleet_partition(&action));
    rd_kafka_message_t *candidate = fleet_steal(thief, "kiln.candidates", fleet_partition(&action));
    fleet_end_verifier();
    fleet_start_verifier("");
    fleet_repeat("operator", submission);
    fleet_await(&fleet.agent, &record, &answer);
    assert_int_equal(answer.status, KILN_ANSWER_RESULT);
    const struct kiln_job_id nobody = {{0}};
    assert_memory_equal(&answer.executed, &nobody, sizeof nobody);
    kiln_answer_release(&answer);
    fleet_repeat("operator", candidate);
    fleet_expect_event("not_dispatched", "executor-1");
    fleet_repeat("operator", submission);
    fleet_expect_event("replayed", NULL);
    sign_for_then(&fleet.agent, submission, kiln_clock_wall_ms() - 11 * 60 * 1000);
    fleet_repeat("operator", submission);
    fleet_expect_event("clock", NULL);
    expect_pointer(key, &action, NULL);
    expect_known();
    rd_kafka_message_destroy(submission);
    rd_kafka_message_destroy(candidate);
    rd_kafka_consumer_close(thief);
    rd_kafka_destroy(thief);
    kiln_job_submitted_release(&record);
    fleet_next_action();
    fleet_honest_build(&fleet.agent, &fleet.executor);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_others),
        cmocka_unit_test(a_public_package_of_other_bytes),
        cmocka_unit_test(old_records_to_a_new_verifier),
        cmocka_unit_test(an_expired_key_and_a_revoked_one),
        cmocka_unit_test(an_executors_old_record_key),
        cmocka_unit_test(results_that_end),
        cmocka_unit_test(a_revoked_executor_has_work),
    };
    return cmocka_run_group_tests(tests, fleet_up, fleet_down);
}
