// The vault: first result wins, what does not hold any more is replaced, nothing unsigned or incomplete is found.
#include "tests/unit/verifier_rig.h"

static const char artifact[] = "the artifact", other_artifact[] = "another artifact";

static void put_quarantine(const struct rig *rig, const char *key, const void *data, size_t len) {
    struct kiln_err err;
    assert_ok(kiln_store_put_bytes(rig->executor, KILN_SPACE_QUARANTINE, key, data, len, NULL, &err));
}

static struct kiln_output output_of(const void *data, size_t len) {
    struct kiln_output output = {.kind = KILN_OUTPUT_FILE, .name = TEXT("libdemo.rlib"), .size = len};
    kiln_digest_of(data, len, &output.digest);
    return output;
}

// Stores one artifact and makes the result over it.
static void make_result(const struct rig *rig, const char *key, const void *data, size_t len, uint64_t issued_ms,
                        struct kiln_result *result) {
    struct kiln_err err;
    const struct kiln_output output = output_of(data, len);
    put_quarantine(rig, key, data, len);
    assert_ok(kiln_vault_take(&rig->vault, key, &output, &err));
    *result = (struct kiln_result){.action = rig->action_digest, .scope = strdup("local"), .generation = 1,
                                   .issued_ms = issued_ms, .outcome = KILN_OUTCOME_SUCCESS, .profile = strdup("bwrap-1"),
                                   .policy = strdup("agreement=1"), .bundle_pin = strdup("")};
    assert_ok(kiln_result_add_output(result, output.kind, output.name, false, output.size, &output.digest, &err));
    struct kiln_attestation attestation = {.executor = TEXT("e"), .pool = TEXT("p"), .backend = TEXT("b")};
    assert_ok(kiln_result_outputs_digest(result->outputs, result->outputs_count, &attestation.outputs, &err));
    assert_ok(kiln_result_add_attestation(result, &attestation, &err));
    assert_ok(kiln_result_finish(result, &err));
}

static bool publish(const struct rig *rig, const struct kiln_result *result, uint64_t *issued_ms) {
    struct kiln_err err;
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20);
    kiln_autoresult struct kiln_result stored = {0};
    bool diverges;
    assert_ok(kiln_vault_publish(&rig->vault, result, &envelope, &diverges, &err));
    assert_ok(kiln_result_open(envelope.data, envelope.len, rig->trust, &rig->action_digest, &stored, &err));
    *issued_ms = stored.issued_ms;
    return diverges;
}

static int find(const struct rig *rig, uint64_t *issued_ms) {
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(1 << 20);
    kiln_autoresult struct kiln_result result = {0};
    int rc = kiln_vault_find(&rig->vault, &rig->action_digest, &envelope, &result, NULL);
    if (rc == 0)
        *issued_ms = result.issued_ms;
    else
        assert_int_equal(envelope.len, 0);
    return rc;
}

static void first_result_wins(void **state) {
    struct rig *rig = *state;
    uint64_t issued;
    kiln_autoresult struct kiln_result one = {0}, same = {0}, other = {0};
    assert_int_equal(find(rig, &issued), KILN_E_NOTFOUND);
    make_result(rig, "out/e/1/1/a", artifact, sizeof artifact, 100, &one);
    assert_false(publish(rig, &one, &issued));
    make_result(rig, "out/e/2/1/a", artifact, sizeof artifact, 200, &same);
    assert_false(publish(rig, &same, &issued));
    assert_int_equal(issued, 100);
    make_result(rig, "out/e/3/1/a", other_artifact, sizeof other_artifact, 300, &other);
    assert_true(publish(rig, &other, &issued)); // a divergence; what is stored stays
    assert_int_equal(issued, 100);
    assert_int_equal(find(rig, &issued), 0);
    assert_int_equal(issued, 100);
    other.outcome = KILN_OUTCOME_LOCAL;
    free(other.outputs[--other.outputs_count].name);
    kiln_result_add_reason(&other, "clock: x", NULL);
    assert_true(publish(rig, &other, &issued));
    assert_int_equal(issued, 100);
}

static void damaged_pointer(void **state) {
    struct rig *rig = *state;
    uint64_t issued;
    kiln_autoresult struct kiln_result one = {0}, other = {0};
    make_result(rig, "out/e/1/1/a", artifact, sizeof artifact, 100, &one);
    publish(rig, &one, &issued);
    kiln_autofree char *key = kiln_key_result("local", 1, &rig->action_digest);
    rig_damage(rig, "vault", key);
    assert_int_equal(find(rig, &issued), KILN_E_CORRUPT);
    make_result(rig, "out/e/2/1/a", other_artifact, sizeof other_artifact, 200, &other);
    assert_false(publish(rig, &other, &issued));
    assert_int_equal(issued, 200);
    assert_int_equal(find(rig, &issued), 0);
}

static void damaged_content(void **state) {
    struct rig *rig = *state;
    uint64_t issued;
    kiln_autoresult struct kiln_result one = {0}, same = {0}, other = {0};
    make_result(rig, "out/e/1/1/a", artifact, sizeof artifact, 100, &one);
    publish(rig, &one, &issued);
    kiln_autofree char *key = kiln_key_content("blob", "local", &one.outputs[0].digest);
    rig_damage(rig, "vault", key);
    assert_int_equal(find(rig, &issued), KILN_E_CORRUPT);
    // The same bytes again mend the content, and the first pointer holds again.
    make_result(rig, "out/e/2/1/a", artifact, sizeof artifact, 200, &same);
    assert_int_equal(find(rig, &issued), 0);
    assert_false(publish(rig, &same, &issued));
    assert_int_equal(issued, 100);
    // Gone, and other bytes come: the pointer that does not hold is replaced.
    assert_int_equal(kiln_store_remove(rig->verifier, KILN_SPACE_VAULT, key, NULL), 0);
    make_result(rig, "out/e/3/1/a", other_artifact, sizeof other_artifact, 300, &other);
    assert_false(publish(rig, &other, &issued));
    assert_int_equal(issued, 300);
}

// A pointer that is well signed, and not for this place.
static void pointers_of_elsewhere(void **state) {
    struct rig *rig = *state;
    struct kiln_err err;
    uint64_t issued;
    kiln_autofree char *key = kiln_key_result("local", 1, &rig->action_digest);
    for (unsigned i = 0; i < 4; i++) {
        kiln_autoresult struct kiln_result result = {0};
        kiln_autobuf struct kiln_buf sealed = KILN_BUF_INIT(1 << 20);
        make_result(rig, "out/e/1/1/a", artifact, sizeof artifact, 100, &result);
        struct kiln_sign_key *stranger = NULL;
        assert_ok(kiln_sign_key_load_or_make(rig->scratch->fd, "stranger", &stranger, &err));
        if (i == 0)
            result.generation = 2;
        if (i == 1)
            result.scope[0] = 'L';
        if (i == 2)
            result.action.bytes[0] ^= 1;
        assert_ok(kiln_result_seal(&result, i == 3 ? stranger : rig->key, &sealed, &err));
        kiln_sign_key_free(stranger);
        assert_ok(kiln_store_put_pointer(rig->verifier, key, sealed.data, sealed.len, true, &err));
        assert_int_equal(find(rig, &issued), KILN_E_CORRUPT);
    }
}

static void takes_only_what_was_said(void **state) {
    struct rig *rig = *state;
    struct kiln_err err;
    const struct kiln_output output = output_of(artifact, sizeof artifact);
    kiln_autofree char *key = kiln_key_content("blob", "local", &output.digest);
    assert_int_equal(kiln_vault_take(&rig->vault, "out/e/1/1/none", &output, &err), KILN_E_CORRUPT);
    put_quarantine(rig, "out/e/1/1/long", "the artifact+", 14);
    assert_int_equal(kiln_vault_take(&rig->vault, "out/e/1/1/long", &output, &err), KILN_E_CORRUPT);
    put_quarantine(rig, "out/e/1/1/short", artifact, sizeof artifact - 1);
    assert_int_equal(kiln_vault_take(&rig->vault, "out/e/1/1/short", &output, &err), KILN_E_CORRUPT);
    put_quarantine(rig, "out/e/1/1/other", "The artifact", sizeof artifact);
    assert_int_equal(kiln_vault_take(&rig->vault, "out/e/1/1/other", &output, &err), KILN_E_CORRUPT);
    assert_false(kiln_store_has(rig->verifier, KILN_SPACE_VAULT, key));
    put_quarantine(rig, "out/e/1/1/right", artifact, sizeof artifact);
    struct kiln_output larger = output;
    larger.size++; // the bytes are right, the size is not
    assert_int_equal(kiln_vault_take(&rig->vault, "out/e/1/1/right", &larger, &err), KILN_E_CORRUPT);
    assert_ok(kiln_vault_take(&rig->vault, "out/e/1/1/right", &output, &err));
    assert_true(kiln_store_has(rig->verifier, KILN_SPACE_VAULT, key));
}

int main(void) {
    const struct CMUnitTest tests[] = {rig_test(first_result_wins), rig_test(damaged_pointer), rig_test(damaged_content),
                                       rig_test(pointers_of_elsewhere), rig_test(takes_only_what_was_said)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
