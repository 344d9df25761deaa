#include "tests/unit/trust_rig.h"

#include "lib/base/cleanup.h"

static const char *const roots[] = {"root-1", "root-2", "root-3"};

static void public_roots(const struct scratch *scratch, uint8_t keys[3][KILN_PUBLIC_KEY_BYTES]) {
    for (size_t i = 0; i < 3; i++)
        rig_public(scratch, roots[i], keys[i]);
}

static int open_with(const struct kiln_buf *envelope, uint8_t keys[3][KILN_PUBLIC_KEY_BYTES], size_t count,
                     size_t threshold, struct kiln_err *err) {
    kiln_autotrust_record struct kiln_trust_record record = {0};
    return kiln_trust_record_open(envelope->data, envelope->len, (const uint8_t (*)[KILN_PUBLIC_KEY_BYTES])keys, count,
                                  threshold, &record, err);
}

static void a_record_comes_back(void **state) {
    struct kiln_err err = {0};
    kiln_autotrust_record struct kiln_trust_record made = {0}, back = {0};
    rig_record(*state, &made);
    rig_revoke(&made, KILN_REVOKED_EXECUTOR, "executor-3", 5);
    kiln_autobuf struct kiln_buf one = KILN_BUF_INIT(1 << 20), other = KILN_BUF_INIT(1 << 20);
    assert_ok(kiln_trust_record_encode(&made, &one, &err));
    assert_ok(kiln_trust_record_decode(one.data, one.len, &back, &err));
    assert_int_equal(back.version, 7);
    assert_int_equal(back.generation, 3);
    assert_int_equal(back.principals_count, 5);
    assert_string_equal(back.principals[1].pool, "a");
    assert_ok(kiln_trust_record_encode(&back, &other, &err));
    assert_int_equal(one.len, other.len);
    assert_memory_equal(one.data, other.data, one.len);
    for (size_t len = 0; len < one.len; len++) // no truncation decodes
        assert_int_equal(kiln_trust_record_decode(one.data, len, &back, NULL), KILN_E_CORRUPT);
    kiln_buf_add_u8(&one, 0);
    assert_int_equal(kiln_trust_record_decode(one.data, one.len, &back, NULL), KILN_E_CORRUPT);
}

static void the_threshold_counts_distinct_roots(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    uint8_t keys[3][KILN_PUBLIC_KEY_BYTES], twice[3][KILN_PUBLIC_KEY_BYTES];
    public_roots(scratch, keys);
    kiln_autotrust_record struct kiln_trust_record record = {0};
    rig_record(scratch, &record);
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20);
    rig_sign(scratch, &record, roots, 1, &envelope);
    assert_ok(open_with(&envelope, keys, 3, 1, &err));
    assert_int_equal(open_with(&envelope, keys, 3, 2, &err), KILN_E_CORRUPT);
    assert_non_null(strstr(err.text, "signed by 1 known roots, 2 are needed"));

    rig_sign(scratch, &record, roots, 1, &envelope); // again by the same root
    assert_int_equal(open_with(&envelope, keys, 3, 2, &err), KILN_E_CORRUPT);
    memcpy(twice[0], keys[0], sizeof twice[0]); // a reader that names one root twice
    memcpy(twice[1], keys[0], sizeof twice[0]);
    assert_int_equal(open_with(&envelope, twice, 2, 2, &err), KILN_E_CORRUPT);

    rig_sign(scratch, &record, roots + 1, 1, &envelope); // another one, added later
    assert_ok(open_with(&envelope, keys, 3, 2, &err));
    assert_int_equal(open_with(&envelope, keys, 1, 1, &err), 0); // a reader who knows only one of them
    assert_int_equal(open_with(&envelope, keys, 3, 3, &err), KILN_E_CORRUPT);
    assert_int_equal(open_with(&envelope, keys, 3, 0, &err), KILN_E_INVAL);
    assert_int_equal(open_with(&envelope, keys, 1, 2, &err), KILN_E_INVAL);
}

// By hand, past the encoder: the second copy of a signature must not count as a second root.
static void a_repeated_signature_is_no_second_one(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    uint8_t keys[3][KILN_PUBLIC_KEY_BYTES];
    public_roots(scratch, keys);
    kiln_autotrust_record struct kiln_trust_record record = {0};
    rig_record(scratch, &record);
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20), forged = KILN_BUF_INIT(1 << 20);
    rig_sign(scratch, &record, roots, 1, &envelope);
    const size_t magic = sizeof "kiln-trust-signed-1", signature = 32 + 64;
    kiln_buf_add(&forged, envelope.data, magic);
    kiln_buf_add_be32(&forged, 2);
    kiln_buf_add(&forged, envelope.data + magic + 4, signature);
    kiln_buf_add(&forged, envelope.data + magic + 4, envelope.len - magic - 4);
    assert_int_equal(open_with(&forged, keys, 3, 2, &err), KILN_E_CORRUPT);
    assert_non_null(strstr(err.text, "names a root twice"));
}

static void a_forged_record_does_not_open(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    uint8_t keys[3][KILN_PUBLIC_KEY_BYTES];
    public_roots(scratch, keys);
    kiln_autotrust_record struct kiln_trust_record record = {0};
    rig_record(scratch, &record);
    kiln_autobuf struct kiln_buf stranger = KILN_BUF_INIT(1 << 20), envelope = KILN_BUF_INIT(1 << 20);
    const char *const strangers[] = {"stranger-1", "stranger-2"};
    rig_sign(scratch, &record, strangers, 2, &stranger);
    assert_int_equal(open_with(&stranger, keys, 3, 1, &err), KILN_E_CORRUPT);
    rig_sign(scratch, &record, roots, 2, &envelope);
    assert_ok(open_with(&envelope, keys, 3, 2, &err));
    for (size_t bit = 0; bit < envelope.len * 8; bit += 5) { // every byte, one bit of it
        envelope.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (open_with(&envelope, keys, 3, 2, &err) != KILN_E_CORRUPT)
            fail_msg("bit %zu flipped and still good", bit);
        envelope.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    record.version++; // another core is not added to
    struct kiln_sign_key *key = rig_key(scratch, roots[2]);
    assert_int_equal(kiln_trust_record_sign(&record, (const struct kiln_sign_key *const *)&key, 1, &envelope, &err),
                     KILN_E_INVAL);
    kiln_sign_key_free(key);
    assert_int_equal(open_with(&envelope, keys, 3, 2, &err), 0);
}

// So that old and new roots may both sign while a fleet changes them.
static void unknown_signatures_are_passed_over(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    uint8_t keys[3][KILN_PUBLIC_KEY_BYTES];
    public_roots(scratch, keys);
    kiln_autotrust_record struct kiln_trust_record record = {0};
    rig_record(scratch, &record);
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20);
    const char *const mixed[] = {"stranger-1", "root-2", "stranger-2", "root-1"};
    rig_sign(scratch, &record, mixed, 4, &envelope);
    assert_ok(open_with(&envelope, keys, 3, 2, &err));
    assert_int_equal(open_with(&envelope, keys, 3, 3, &err), KILN_E_CORRUPT);
}

static void refuse(struct scratch *scratch, void (*spoil)(struct kiln_trust_record *record), const char *word) {
    struct kiln_err err = {0};
    kiln_autotrust_record struct kiln_trust_record record = {0};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20);
    rig_record(scratch, &record);
    rig_revoke(&record, KILN_REVOKED_EXECUTOR, "executor-3", 0);
    rig_revoke(&record, KILN_REVOKED_PRINCIPAL, "agent-1", 0);
    spoil(&record);
    int rc = kiln_trust_record_encode(&record, &out, &err);
    if (rc != KILN_E_INVAL || !strstr(err.text, word) || out.len)
        fail_msg("%d \"%s\" should name \"%s\"", rc, err.text, word);
}

static void no_version(struct kiln_trust_record *record) { record->version = 0; }
static void never_good(struct kiln_trust_record *record) { record->expires_ms = record->issued_ms; }
static void out_of_order(struct kiln_trust_record *record) {
    struct kiln_principal first = record->principals[0];
    record->principals[0] = record->principals[1];
    record->principals[1] = first;
}
static void same_name(struct kiln_trust_record *record) { record->principals[1] = record->principals[0]; }
static void same_record_key(struct kiln_trust_record *record) {
    memcpy(record->principals[3].record_key, record->principals[1].record_key, KILN_PUBLIC_KEY_BYTES);
}
static void no_record_key(struct kiln_trust_record *record) { memset(record->principals[1].record_key, 0, 32); }
static void bad_name(struct kiln_trust_record *record) { memcpy(record->principals[0].name, "../x", 5); }
static void tenant_public(struct kiln_trust_record *record) { memcpy(record->principals[0].tenant, "public", 7); }
static void no_tenant(struct kiln_trust_record *record) { record->principals[0].tenant[0] = 0; }
static void executor_of_a_tenant(struct kiln_trust_record *record) { memcpy(record->principals[1].tenant, "blue", 5); }
static void no_pool(struct kiln_trust_record *record) { record->principals[1].pool[0] = 0; }
static void agent_of_a_pool(struct kiln_trust_record *record) { memcpy(record->principals[0].pool, "a", 2); }
static void no_role(struct kiln_trust_record *record) { record->principals[0].role = KILN_ROLE_OF_NOBODY; }
static void unknown_role(struct kiln_trust_record *record) { record->principals[0].role = 9; }
static void unknown_kind(struct kiln_trust_record *record) { record->revocations[1].kind = 9; }
static void no_hex(struct kiln_trust_record *record) { record->revocations[0].kind = KILN_REVOKED_KEY; }
static void revoked_twice(struct kiln_trust_record *record) { record->revocations[1] = record->revocations[0]; }

static void executor_good_again(struct kiln_trust_record *record) { record->revocations[0].until_ms = 9; }
static void over_before_it_begins(struct kiln_trust_record *record) {
    record->revocations[1] = (struct kiln_revocation){.kind = KILN_REVOKED_ACTION, .since_ms = 9, .until_ms = 9};
    memset(record->revocations[1].what, 'a', KILN_DIGEST_HEX_LEN);
}

static void what_makes_no_sense_is_not_encoded(void **state) {
    const struct {
        void (*spoil)(struct kiln_trust_record *record);
        const char *word;
    } cases[] = {
        {no_version, "version"},
        {never_good, "expires"},
        {out_of_order, "out of order"},
        {same_name, "there twice"},
        {same_record_key, "the same record key"},
        {no_record_key, "no record key"},
        {bad_name, "../x"},
        {tenant_public, "public"},
        {no_tenant, "tenant"},
        {executor_of_a_tenant, "tenant"},
        {no_pool, "pool"},
        {agent_of_a_pool, "pool"},
        {no_role, "role"},
        {unknown_role, "role"},
        {unknown_kind, "unknown kind"},
        {no_hex, "digest"},
        {revoked_twice, "there twice"},
        {executor_good_again, "cannot end"},
        {over_before_it_begins, "cannot end"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(*state, cases[i].spoil, cases[i].word);
}

static void who_is_revoked_is_not_found(void **state) {
    struct scratch *scratch = *state;
    kiln_autotrust_record struct kiln_trust_record record = {0};
    rig_record(scratch, &record);
    assert_string_equal(kiln_trust_record_find(&record, "executor-2")->pool, "b");
    assert_null(kiln_trust_record_find(&record, "executor-9"));
    assert_null(kiln_trust_record_find(&record, ""));
    char hex[KILN_DIGEST_HEX_LEN + 1];
    rig_key_hex(scratch, "executor-2.record", hex);
    rig_revoke(&record, KILN_REVOKED_EXECUTOR, "executor-1", 10);
    rig_revoke(&record, KILN_REVOKED_KEY, hex, 10);
    rig_revoke(&record, KILN_REVOKED_PRINCIPAL, "agent-1", 10);
    kiln_trust_record_sort(&record);
    assert_null(kiln_trust_record_find(&record, "executor-1"));
    assert_null(kiln_trust_record_find(&record, "executor-2"));
    assert_null(kiln_trust_record_find(&record, "agent-1"));
    assert_non_null(kiln_trust_record_find(&record, "executor-3"));
    assert_non_null(kiln_trust_record_enrolled(&record, "executor-1"));
    assert_false(kiln_trust_record_revokes(&record, KILN_REVOKED_EXECUTOR, "executor-1", 9));
    assert_true(kiln_trust_record_revokes(&record, KILN_REVOKED_EXECUTOR, "executor-1", 10));
    assert_false(kiln_trust_record_revokes(&record, KILN_REVOKED_PRINCIPAL, "executor-1", 10));
}

static void an_action_can_be_good_again(void **state) {
    char action[KILN_DIGEST_HEX_LEN + 1] = "";
    memset(action, 'a', KILN_DIGEST_HEX_LEN);
    kiln_autotrust_record struct kiln_trust_record record = {0};
    rig_record(*state, &record);
    rig_revoke(&record, KILN_REVOKED_ACTION, action, 10);
    record.revocations[0].until_ms = 20;
    assert_false(kiln_trust_record_revokes(&record, KILN_REVOKED_ACTION, action, 9));
    assert_true(kiln_trust_record_revokes(&record, KILN_REVOKED_ACTION, action, 10));
    assert_true(kiln_trust_record_revokes(&record, KILN_REVOKED_ACTION, action, 19));
    assert_false(kiln_trust_record_revokes(&record, KILN_REVOKED_ACTION, action, 20));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(a_record_comes_back),
        scratch_test(the_threshold_counts_distinct_roots),
        scratch_test(a_repeated_signature_is_no_second_one),
        scratch_test(a_forged_record_does_not_open),
        scratch_test(unknown_signatures_are_passed_over),
        scratch_test(what_makes_no_sense_is_not_encoded),
        scratch_test(who_is_revoked_is_not_found),
        scratch_test(an_action_can_be_good_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
