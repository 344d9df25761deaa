// What makes a signed result a miss: each way has a name, and each test fails when its check is taken out of verdict.c.
#include "tests/unit/trust_rig.h"

#include "lib/base/cleanup.h"
#include "lib/fleet/keeper.h"
#include "lib/fleet/verdict.h"

struct world {
    struct scratch *scratch;
    struct kiln_trust_record record;
    struct kiln_result result;
    const char *signer; // key that seals it
    struct kiln_verdict_question question;
};

static char *copy(const char *text) {
    char *made = strdup(text);
    assert_non_null(made);
    return made;
}

static void replace(char **slot, const char *text) {
    free(*slot);
    *slot = copy(text);
}

// Says what `executor` of `pool` says of the result's outputs, signed by that file's key.
static void attest(struct world *world, const char *executor, const char *pool, const char *key_file) {
    struct kiln_err err = {0};
    struct kiln_attestation attestation = {.executor = (char *)(uintptr_t)executor,
                                           .pool = (char *)(uintptr_t)pool,
                                           .backend = TEXT("bwrap"),
                                           .at_ms = RIG_NOW - 500};
    assert_ok(kiln_result_outputs_digest(world->result.outputs, world->result.outputs_count, &attestation.outputs, &err));
    struct kiln_sign_key *key = rig_key(world->scratch, key_file);
    assert_ok(kiln_attestation_sign(&attestation, &world->result.action, key, &err));
    kiln_sign_key_free(key);
    assert_ok(kiln_result_add_attestation(&world->result, &attestation, &err));
}

static void drop_attestations(struct world *world) {
    for (size_t i = 0; i < world->result.attestations_count; i++) {
        free(world->result.attestations[i].executor);
        free(world->result.attestations[i].pool);
        free(world->result.attestations[i].backend);
    }
    world->result.attestations_count = 0;
}

static void world_open(struct world *world, struct scratch *scratch) {
    struct kiln_err err = {0};
    *world = (struct world){.scratch = scratch, .signer = "verifier-1"};
    rig_record(scratch, &world->record);
    struct kiln_result *result = &world->result;
    memset(&result->action, 0xac, sizeof result->action);
    memset(&result->toolchain_runtime, 0x11, sizeof result->toolchain_runtime);
    memset(&result->toolchain_rustc, 0x22, sizeof result->toolchain_rustc);
    memset(&result->toolchain_link, 0x33, sizeof result->toolchain_link);
    result->scope = copy("blue");
    result->profile = copy("bwrap-1");
    result->policy = copy("agreement=2");
    result->bundle_pin = copy("");
    result->generation = 3;
    result->issued_ms = RIG_NOW - 100;
    result->expires_ms = RIG_NOW + 1000;
    result->outcome = KILN_OUTCOME_SUCCESS;
    struct kiln_digest digest = {{5}};
    assert_ok(kiln_result_add_output(result, KILN_OUTPUT_FILE, "libx.rmeta", false, 6, &digest, &err));
    attest(world, "executor-1", "a", "executor-1.record");
    attest(world, "executor-2", "b", "executor-2.record");
    world->question = (struct kiln_verdict_question){
        .action = &result->action, .scope = "blue", .generation = 3, .now_ms = RIG_NOW};
}

static void world_close(struct world *world) {
    kiln_trust_record_release(&world->record);
    kiln_result_release(&world->result);
}

static void seal(struct world *world, struct kiln_buf *envelope) {
    struct kiln_err err = {0};
    assert_ok(kiln_result_finish(&world->result, &err));
    struct kiln_sign_key *signer = rig_key(world->scratch, world->signer);
    assert_ok(kiln_result_seal(&world->result, signer, envelope, &err));
    kiln_sign_key_free(signer);
}

static int ask(struct world *world, struct kiln_buf *envelope, struct kiln_err *err) {
    struct kiln_trust *keys = NULL;
    assert_int_equal(kiln_trust_new(&keys, NULL), 0);
    for (size_t i = 0; i < world->record.keys_count; i++)
        assert_int_equal(kiln_trust_add_public(keys, world->record.keys[i].public_key, NULL), 0);
    kiln_trust_record_sort(&world->record);
    kiln_autoresult struct kiln_result opened = {0};
    world->question.envelope = envelope->data;
    world->question.len = envelope->len;
    int rc = kiln_verdict_open(&world->record, keys, &world->question, &opened, err);
    assert_true(rc == 0 || (!opened.scope && !opened.outputs)); // outputs untouched
    kiln_trust_free(keys);
    return rc;
}

static void change_nothing(struct world *world) { (void)world; }
static void unknown_key(struct world *world) { world->signer = "stranger"; }
static void record_key_of_an_executor(struct world *world) { world->signer = "executor-1.record"; }
static void key_expired(struct world *world) { world->record.keys[0].not_after_ms = RIG_NOW - 1; }
static void key_ends_now(struct world *world) { world->record.keys[0].not_after_ms = RIG_NOW; }
static void expired(struct world *world) { world->question.now_ms = RIG_NOW + 1000; }
static void last_moment(struct world *world) { world->question.now_ms = RIG_NOW + 999; }
static void never_expires(struct world *world) { world->result.expires_ms = 0; }
static void other_scope(struct world *world) { world->question.scope = "red"; }
static void public_scope(struct world *world) { world->question.scope = "public"; }
static void other_generation(struct world *world) { world->question.generation = 4; }
static void other_action(struct world *world) {
    static const struct kiln_digest other = {{9}};
    world->question.action = &other;
}

static void revoke_key(struct world *world, const char *file, uint64_t since_ms) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    rig_key_hex(world->scratch, file, hex);
    rig_revoke(&world->record, KILN_REVOKED_KEY, hex, since_ms);
}
static void key_revoked(struct world *world) { revoke_key(world, "verifier-1", 0); }
static void key_revoked_later(struct world *world) { revoke_key(world, "verifier-1", RIG_NOW - 99); }
static void key_revoked_just_then(struct world *world) { revoke_key(world, "verifier-1", RIG_NOW - 100); }
static void verifier_revoked(struct world *world) { rig_revoke(&world->record, KILN_REVOKED_PRINCIPAL, "verifier-1", 0); }
static void executor_revoked(struct world *world) { rig_revoke(&world->record, KILN_REVOKED_EXECUTOR, "executor-2", 0); }
static void executor_revoked_later(struct world *world) {
    rig_revoke(&world->record, KILN_REVOKED_EXECUTOR, "executor-2", RIG_NOW);
}
static void executor_revoked_by_name(struct world *world) {
    rig_revoke(&world->record, KILN_REVOKED_PRINCIPAL, "executor-1", 0);
}
static void executor_revoked_by_key(struct world *world) { revoke_key(world, "executor-1.record", 0); }
static void another_executor_revoked(struct world *world) {
    rig_revoke(&world->record, KILN_REVOKED_EXECUTOR, "executor-3", 0);
}

static void revoke_part(struct world *world, const struct kiln_digest *part, enum kiln_revoked kind) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(part, hex);
    rig_revoke(&world->record, kind, hex, 0);
}
static void runtime_revoked(struct world *world) {
    revoke_part(world, &world->result.toolchain_runtime, KILN_REVOKED_TOOLCHAIN);
}
static void rustc_revoked(struct world *world) { revoke_part(world, &world->result.toolchain_rustc, KILN_REVOKED_TOOLCHAIN); }
static void link_revoked(struct world *world) { revoke_part(world, &world->result.toolchain_link, KILN_REVOKED_TOOLCHAIN); }
static void action_revoked(struct world *world) { revoke_part(world, &world->result.action, KILN_REVOKED_ACTION); }
static void action_revoked_before(struct world *world) { // the result is of RIG_NOW - 100
    action_revoked(world);
    world->record.revocations[world->record.revocations_count - 1].until_ms = RIG_NOW - 100;
}
static void action_revoked_until_after(struct world *world) {
    action_revoked(world);
    world->record.revocations[world->record.revocations_count - 1].until_ms = RIG_NOW - 99;
}

static void executor_unknown(struct world *world) {
    drop_attestations(world);
    attest(world, "executor-1", "a", "executor-1.record");
    attest(world, "executor-9", "b", "executor-9.record");
}
static void attested_by_an_agent(struct world *world) {
    drop_attestations(world);
    attest(world, "executor-1", "a", "executor-1.record");
    attest(world, "agent-1", "b", "agent-1.record");
    rig_copy(world->record.principals[0].pool, "b"); // so that only its role tells it
}
static void signed_by_another(struct world *world) {
    drop_attestations(world);
    attest(world, "executor-1", "a", "executor-1.record");
    attest(world, "executor-2", "b", "executor-1.record");
}
static void signature_flipped(struct world *world) { world->result.attestations[1].signature[3] ^= 1; }
static void time_changed(struct world *world) { world->result.attestations[0].at_ms++; }
static void pool_pretended(struct world *world) {
    drop_attestations(world);
    attest(world, "executor-3", "b", "executor-3.record");
    attest(world, "executor-2", "c", "executor-2.record");
}
static void one_where_one_was_asked(struct world *world) {
    drop_attestations(world);
    attest(world, "executor-1", "a", "executor-1.record");
    replace(&world->result.policy, "agreement=1");
}
// What could not be cached is attested too, by the digest of what the run gave.
static void local_outcome(struct world *world) {
    struct kiln_err err = {0};
    free(world->result.outputs[0].name);
    world->result.outputs_count = 0;
    world->result.outcome = KILN_OUTCOME_LOCAL;
    assert_ok(kiln_result_add_reason(&world->result, "undeclared_env: HOSTNAME", &err));
}
static void local_outcome_signed_by_another(struct world *world) {
    signed_by_another(world);
    local_outcome(world);
}

static void every_check_has_its_word(void **state) {
    const struct {
        void (*change)(struct world *world);
        const char *word; // NULL: it is good
    } cases[] = {
        {change_nothing, NULL},
        {unknown_key, "unknown_key"},
        {record_key_of_an_executor, "unknown_key"},
        {key_expired, "key_expired"},
        {key_ends_now, NULL},
        {expired, "expired"},
        {last_moment, NULL},
        {never_expires, "expired"},
        {other_scope, "scope"},
        {public_scope, "scope"},
        {other_generation, "generation"},
        {other_action, "signature"},
        {key_revoked, "revoked_key"},
        {key_revoked_later, NULL},
        {key_revoked_just_then, "revoked_key"},
        {verifier_revoked, "revoked_principal"},
        {executor_revoked, "revoked_executor"},
        {executor_revoked_later, NULL},
        {executor_revoked_by_name, "revoked_executor"},
        {executor_revoked_by_key, "revoked_executor"},
        {another_executor_revoked, NULL},
        {runtime_revoked, "revoked_toolchain"},
        {rustc_revoked, "revoked_toolchain"},
        {link_revoked, "revoked_toolchain"},
        {action_revoked, "revoked_action"},
        {action_revoked_before, NULL},
        {action_revoked_until_after, "revoked_action"},
        {executor_unknown, "attestation"},
        {attested_by_an_agent, "attestation"},
        {signed_by_another, "attestation"},
        {signature_flipped, "attestation"},
        {time_changed, "attestation"},
        {pool_pretended, "attestation"},
        {one_where_one_was_asked, NULL},
        {local_outcome, NULL},
        {local_outcome_signed_by_another, "attestation"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world world;
        struct kiln_err err = {0};
        kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20);
        world_open(&world, *state);
        cases[i].change(&world);
        seal(&world, &envelope);
        int rc = ask(&world, &envelope, &err);
        const char *word = cases[i].word ? cases[i].word : "";
        if (rc != (cases[i].word ? KILN_E_CORRUPT : 0) || strncmp(err.text, word, strlen(word)) != 0 ||
            (cases[i].word && err.text[strlen(word)] != ':'))
            fail_msg("case %zu: %d \"%s\" instead of \"%s\"", i, rc, err.text, word);
        world_close(&world);
    }
}

static void a_changed_envelope_is_a_miss(void **state) {
    struct world world;
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20);
    world_open(&world, *state);
    seal(&world, &envelope);
    assert_int_equal(ask(&world, &envelope, NULL), 0);
    for (size_t bit = 0; bit < envelope.len * 8; bit += 11) {
        envelope.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (ask(&world, &envelope, NULL) != KILN_E_CORRUPT)
            fail_msg("bit %zu flipped and still good", bit);
        envelope.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t len = envelope.len; len-- > 0;) {
        envelope.len = len;
        assert_int_equal(ask(&world, &envelope, NULL), KILN_E_CORRUPT);
    }
    world_close(&world);
}

static uint64_t rig_now(void) { return RIG_NOW; }

// The same through the keeper: what it says changes with the record, at once.
static void a_revocation_makes_a_hit_a_miss(void **state) {
    static const char *const roots[] = {"root-1"};
    struct world world;
    struct kiln_err err = {0};
    struct kiln_store *store = NULL;
    struct kiln_keeper *keeper = NULL;
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20), record = KILN_BUF_INIT(1 << 20);
    uint8_t root[1][KILN_PUBLIC_KEY_BYTES];
    world_open(&world, *state);
    seal(&world, &envelope);
    rig_public(world.scratch, roots[0], root[0]);
    assert_ok(kiln_store_open_dir(scratch_path(world.scratch, "store"), KILN_ROLE_VERIFIER, &store, &err));
    struct kiln_keeper_options options = {.store = store,
                                          .dir = scratch_path(world.scratch, "kept"),
                                          .roots = (const uint8_t (*)[KILN_PUBLIC_KEY_BYTES])root,
                                          .roots_count = 1,
                                          .threshold = 1,
                                          .refresh_ms = 3600000,
                                          .wall_ms = rig_now};
    assert_ok(kiln_keeper_open(&options, &keeper, &err));
    for (int turn = 0; turn < 3; turn++) {
        kiln_autoresult struct kiln_result opened = {0};
        int rc = kiln_keeper_open_result(keeper, envelope.data, envelope.len, &world.result.action, "blue", 3, &opened, &err);
        assert_int_equal(rc, turn == 0 ? KILN_E_DENIED : turn == 1 ? 0 : KILN_E_CORRUPT);
        assert_non_null(strstr(err.text, turn == 0 ? "trust_missing: " : turn == 1 ? "" : "revoked_executor: executor-2"));
        if (turn == 1) {
            rig_revoke(&world.record, KILN_REVOKED_EXECUTOR, "executor-2", 0);
            world.record.version++;
        }
        kiln_buf_reset(&record);
        rig_sign(world.scratch, &world.record, roots, 1, &record);
        assert_ok(kiln_store_put_pointer(store, "trust/record", record.data, record.len, true, &err));
        assert_ok(kiln_keeper_refresh(keeper, &err));
    }
    kiln_keeper_close(keeper);
    kiln_store_close(store);
    world_close(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(every_check_has_its_word),
        scratch_test(a_changed_envelope_is_a_miss),
        scratch_test(a_revocation_makes_a_hit_a_miss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
