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

// The rig's action, once made.
static void build_at(const struct kiln_digest *action) {
    while (!kiln_digest_equal(&fleet.rig->action_digest, action))
        fleet_next_action();
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
    fleet_expect(&fleet.agent, &honest, KILN_ANSWER_WANTED, NULL);
    fleet_upload(&fleet.agent, &honest);
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

static struct kiln_verifier_key next_key;
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
    expect_pointer(key, &action, NULL); // not yet
    while (kiln_clock_wall_ms() <= key_ends_ms)
        poll(NULL, 0, 20);
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
    fleet.number -= 2; // the one before once more
    build_at(&before);
    fleet_honest_build(&fleet.second, &fleet.executor);
    fleet_expect_event("result_untrusted", "red");
    expect_pointer(key, &before, NULL);
    fleet_change_trust(swap_record_key);
    fleet.number++;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_others),
        cmocka_unit_test(an_expired_key_and_a_revoked_one),
        cmocka_unit_test(an_executors_old_record_key),
    };
    return cmocka_run_group_tests(tests, fleet_up, fleet_down);
}
