// Result cores and envelopes: form, strictness, and an envelope that opens only for its key and its action.
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/core/result.h"

#define BUF KILN_BUF_INIT(2 * KILN_RESULT_BYTES_MAX)

static const struct kiln_digest action = {.bytes = {7}}, content = {.bytes = {8}};

static void set(char **text, const char *value) {
    free(*text);
    *text = strdup(value);
}

static void attest(struct kiln_result *r, const char *executor, const char *pool) {
    struct kiln_attestation attestation = {.executor = strdup(executor), .pool = strdup(pool), .backend = strdup("bwrap"),
                                           .at_ms = 7, .signature = {3}};
    assert_int_equal(kiln_result_outputs_digest(r->outputs, r->outputs_count, &attestation.outputs, NULL), 0);
    assert_int_equal(kiln_result_add_attestation(r, &attestation, NULL), 0);
    free(attestation.executor);
    free(attestation.pool);
    free(attestation.backend);
}

static void make(struct kiln_result *r) {
    r->action = action;
    set(&r->scope, "local");
    set(&r->profile, "bwrap-1");
    set(&r->policy, "agreement=2");
    set(&r->bundle_pin, "v:1/x");
    r->bundle = content;
    r->bundle_size = 99;
    r->generation = 1;
    r->issued_ms = 1000;
    r->outcome = KILN_OUTCOME_SUCCESS;
    kiln_result_add_output(r, KILN_OUTPUT_STDERR, "", false, 3, &content, NULL);
    kiln_result_add_output(r, KILN_OUTPUT_FILE, "b", true, 1, &content, NULL);
    kiln_result_add_output(r, KILN_OUTPUT_FILE, "a", false, 2, &content, NULL);
    attest(r, "west-1", "west");
    attest(r, "east-1", "east");
    kiln_result_add_closure(r, "libz-1", NULL);
    kiln_result_add_closure(r, "liba-1", NULL);
    assert_int_equal(kiln_result_finish(r, NULL), 0);
}

static void make_local(struct kiln_result *r) {
    make(r);
    r->outcome = KILN_OUTCOME_LOCAL;
    while (r->outputs_count)
        free(r->outputs[--r->outputs_count].name);
    while (r->closure_count)
        free(r->closure[--r->closure_count]);
    r->bundle = (struct kiln_digest){0};
    r->bundle_size = 0;
    set(&r->bundle_pin, "");
    kiln_result_add_reason(r, "b: x", NULL);
    kiln_result_add_reason(r, "a: y", NULL);
    assert_int_equal(kiln_result_finish(r, NULL), 0);
}

static int decode_bytes(const void *data, size_t len) {
    kiln_autoresult struct kiln_result result = {0};
    int rc = kiln_result_decode(data, len, &result, NULL);
    if (rc) {
        assert_null(result.scope);
        return rc;
    }
    kiln_autobuf struct kiln_buf again = BUF;
    assert_int_equal(kiln_result_encode(&result, &again, NULL), 0);
    assert_int_equal(again.len, len);
    assert_memory_equal(again.data, data, len);
    return 0;
}

static void round_trips(void **state) {
    (void)state;
    kiln_autoresult struct kiln_result success = {0}, local = {0};
    kiln_autobuf struct kiln_buf bytes = BUF;
    make(&success);
    assert_string_equal(success.outputs[0].name, "a");
    assert_string_equal(success.closure[0], "liba-1");
    assert_int_equal(kiln_result_encode(&success, &bytes, NULL), 0);
    assert_int_equal(decode_bytes(bytes.data, bytes.len), 0);
    make_local(&local);
    local.exit_code = -1;
    kiln_buf_reset(&bytes);
    assert_int_equal(kiln_result_encode(&local, &bytes, NULL), 0);
    assert_int_equal(decode_bytes(bytes.data, bytes.len), 0);
}

static void failed_success(struct kiln_result *r) { r->exit_code = 1; }
static void reasoned_success(struct kiln_result *r) { kiln_result_add_reason(r, "x", NULL); }
static void outcome_three(struct kiln_result *r) { r->outcome = 3; }
static void outcome_zero(struct kiln_result *r) { r->outcome = 0; }
static void local_with_outputs(struct kiln_result *r) {
    r->outcome = KILN_OUTCOME_LOCAL;
    kiln_result_add_reason(r, "x", NULL);
}
static void scope_with_slash(struct kiln_result *r) { set(&r->scope, "a/b"); }
static void scope_empty(struct kiln_result *r) { set(&r->scope, ""); }
static void scope_dots(struct kiln_result *r) { set(&r->scope, ".."); }
static void name_with_slash(struct kiln_result *r) { set(&r->outputs[0].name, "a/b"); }
static void name_empty(struct kiln_result *r) { set(&r->outputs[0].name, ""); }
static void name_dots(struct kiln_result *r) { set(&r->outputs[0].name, ".."); }
static void same_output(struct kiln_result *r) { set(&r->outputs[1].name, "a"); }
static void unsorted_outputs(struct kiln_result *r) { set(&r->outputs[0].name, "c"); }
static void named_text(struct kiln_result *r) { set(&r->outputs[2].name, "x"); }
static void executable_text(struct kiln_result *r) { r->outputs[2].executable = true; }
static void kind_four(struct kiln_result *r) { r->outputs[2].kind = 4; }
static void kind_zero(struct kiln_result *r) { r->outputs[0].kind = 0; }
static void unsorted_stems(struct kiln_result *r) { set(&r->closure[0], "libzz-1"); }
static void same_stem(struct kiln_result *r) { set(&r->closure[0], "libz-1"); }
static void stem_with_slash(struct kiln_result *r) { set(&r->closure[0], "../a"); }
static void expires_early(struct kiln_result *r) { r->expires_ms = 999; }

static void profile_empty(struct kiln_result *r) { set(&r->profile, ""); }
static void profile_with_slash(struct kiln_result *r) { set(&r->profile, "a/b"); }
static void policy_unknown(struct kiln_result *r) { set(&r->policy, "trust=1"); }
static void policy_empty(struct kiln_result *r) { set(&r->policy, ""); }
static void policy_without_number(struct kiln_result *r) { set(&r->policy, "agreement="); }
static void policy_zero(struct kiln_result *r) { set(&r->policy, "agreement=0"); }
static void policy_padded(struct kiln_result *r) { set(&r->policy, "agreement=02"); }
static void policy_trailing(struct kiln_result *r) { set(&r->policy, "agreement=1 "); }
static void policy_huge(struct kiln_result *r) { set(&r->policy, "agreement=17"); }
static void policy_wraps(struct kiln_result *r) { set(&r->policy, "agreement=18446744073709551617"); }
static void policy_unmet(struct kiln_result *r) { set(&r->policy, "agreement=3"); }
static void same_pool(struct kiln_result *r) { set(&r->attestations[0].pool, "west"); }
static void same_executor(struct kiln_result *r) { set(&r->attestations[0].executor, "west-1"); }
static void unsorted_executors(struct kiln_result *r) { set(&r->attestations[0].executor, "x"); }
static void executor_empty(struct kiln_result *r) { set(&r->attestations[0].executor, ""); }
static void pool_with_slash(struct kiln_result *r) { set(&r->attestations[1].pool, "a/b"); }
static void backend_empty(struct kiln_result *r) { set(&r->attestations[1].backend, ""); }
static void other_outputs_attested(struct kiln_result *r) { r->attestations[1].outputs.bytes[31] ^= 1; }
static void nobody_attests(struct kiln_result *r) {
    while (r->attestations_count) {
        struct kiln_attestation *last = &r->attestations[--r->attestations_count];
        free(last->executor);
        free(last->pool);
        free(last->backend);
    }
}
static void bundle_without_size(struct kiln_result *r) { r->bundle_size = 0; }
static void bundle_without_digest(struct kiln_result *r) { r->bundle = (struct kiln_digest){0}; }
static void pin_of_nothing(struct kiln_result *r) {
    r->bundle = (struct kiln_digest){0};
    r->bundle_size = 0;
}
static void size_of_nothing(struct kiln_result *r) {
    r->bundle = (struct kiln_digest){0};
    set(&r->bundle_pin, "");
}
static void pin_with_newline(struct kiln_result *r) { set(&r->bundle_pin, "a\nb"); }
static void pin_with_space(struct kiln_result *r) { set(&r->bundle_pin, "a b"); }
static void bundle_of_local(struct kiln_result *r) {
    r->outcome = KILN_OUTCOME_LOCAL;
    while (r->outputs_count)
        free(r->outputs[--r->outputs_count].name);
    while (r->closure_count)
        free(r->closure[--r->closure_count]);
    kiln_result_add_reason(r, "x", NULL);
}

static const struct {
    void (*spoil)(struct kiln_result *);
    const char *why; // part of what is said, so that it is this check which refuses
} spoils[] = {
    {failed_success, "exit code 0"},
    {reasoned_success, "no reasons"},
    {outcome_three, "outcome 3"},
    {outcome_zero, "outcome 0"},
    {local_with_outputs, "nothing else"},
    {scope_with_slash, "no scope"},
    {scope_empty, "no scope"},
    {scope_dots, "no scope"},
    {name_with_slash, "no output name"},
    {name_empty, "no output name"},
    {name_dots, "no output name"},
    {same_output, "there twice"},
    {unsorted_outputs, "there twice"},
    {named_text, "captured text"},
    {executable_text, "captured text"},
    {kind_four, "kind 4"},
    {kind_zero, "kind 0"},
    {unsorted_stems, "there twice"},
    {same_stem, "there twice"},
    {stem_with_slash, "no closure stem"},
    {expires_early, "expires"},
    {profile_empty, "no profile"},
    {profile_with_slash, "no profile"},
    {policy_unknown, "unknown policy"},
    {policy_empty, "unknown policy"},
    {policy_without_number, "unknown policy"},
    {policy_zero, "unknown policy"},
    {policy_padded, "unknown policy"},
    {policy_trailing, "unknown policy"},
    {policy_huge, "unknown policy"},
    {policy_wraps, "unknown policy"},
    {policy_unmet, "2 pools instead of 3"},
    {same_pool, "1 pools instead of 2"},
    {same_executor, "attests twice"},
    {unsorted_executors, "out of order"},
    {executor_empty, "no executor"},
    {pool_with_slash, "no pool"},
    {backend_empty, "no backend"},
    {other_outputs_attested, "attests other outputs"},
    {nobody_attests, "nobody attests"},
    {bundle_without_size, "bundle of nothing"},
    {bundle_without_digest, "of no bundle"},
    {pin_of_nothing, "of no bundle"},
    {size_of_nothing, "of no bundle"},
    {pin_with_newline, "no name of a version"},
    {pin_with_space, "no name of a version"},
    {bundle_of_local, "bundle of nothing"},
};

static void encode_attestations(const struct kiln_result *r, struct kiln_buf *out) {
    kiln_buf_add_be32(out, (uint32_t)r->attestations_count);
    for (size_t i = 0; i < r->attestations_count; i++) {
        kiln_buf_add_field_str(out, r->attestations[i].executor);
        kiln_buf_add_field_str(out, r->attestations[i].pool);
        kiln_buf_add_field_str(out, r->attestations[i].backend);
        kiln_buf_add_be64(out, r->attestations[i].at_ms);
        kiln_buf_add(out, r->attestations[i].outputs.bytes, 32);
        kiln_buf_add(out, r->attestations[i].signature, 64);
    }
}

static void encode_raw(const struct kiln_result *r, struct kiln_buf *out) {
    kiln_autobuf struct kiln_buf outputs = BUF;
    kiln_buf_add_be32(&outputs, (uint32_t)r->outputs_count);
    for (size_t i = 0; i < r->outputs_count; i++) {
        kiln_buf_add_u8(&outputs, (uint8_t)r->outputs[i].kind);
        kiln_buf_add_u8(&outputs, r->outputs[i].executable);
        kiln_buf_add_field_str(&outputs, r->outputs[i].name);
        kiln_buf_add_be64(&outputs, r->outputs[i].size);
        kiln_buf_add(&outputs, r->outputs[i].digest.bytes, 32);
    }
    struct kiln_digest digest;
    kiln_digest_of(outputs.data, outputs.len, &digest);
    kiln_buf_add(out, "kiln-result-2", 14);
    kiln_buf_add(out, r->action.bytes, 32);
    kiln_buf_add_field_str(out, r->scope);
    kiln_buf_add_be64(out, r->generation);
    kiln_buf_add_be64(out, r->issued_ms);
    kiln_buf_add_be64(out, r->expires_ms);
    kiln_buf_add_field_str(out, r->profile);
    kiln_buf_add(out, r->toolchain_runtime.bytes, 32);
    kiln_buf_add(out, r->toolchain_rustc.bytes, 32);
    kiln_buf_add(out, r->toolchain_link.bytes, 32);
    kiln_buf_add_field_str(out, r->policy);
    kiln_buf_add_u8(out, (uint8_t)r->outcome);
    kiln_buf_add_be32(out, (uint32_t)r->exit_code);
    kiln_buf_add(out, r->inputs.bytes, 32);
    kiln_buf_add(out, digest.bytes, 32);
    kiln_buf_add(out, outputs.data, outputs.len);
    kiln_buf_add(out, r->bundle.bytes, 32);
    kiln_buf_add_be64(out, r->bundle_size);
    kiln_buf_add_field_str(out, r->bundle_pin);
    encode_attestations(r, out);
    kiln_buf_add_be32(out, (uint32_t)r->closure_count);
    for (size_t i = 0; i < r->closure_count; i++)
        kiln_buf_add_field_str(out, r->closure[i]);
    kiln_buf_add_be32(out, (uint32_t)r->reasons_count);
    for (size_t i = 0; i < r->reasons_count; i++)
        kiln_buf_add_field_str(out, r->reasons[i]);
    kiln_buf_add_be32(out, 0);
    kiln_buf_add_u8(out, 0);
}

static void refuses_bad_values(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof spoils / sizeof *spoils; i++) {
        kiln_autoresult struct kiln_result result = {0};
        kiln_autobuf struct kiln_buf good = BUF, bad = BUF, refused = BUF;
        make(&result);
        encode_raw(&result, &good);
        assert_int_equal(decode_bytes(good.data, good.len), 0);
        spoils[i].spoil(&result);
        struct kiln_err err = {0};
        if (kiln_result_encode(&result, &refused, &err) != KILN_E_INVAL || !strstr(err.text, spoils[i].why))
            fail_msg("spoil %zu: \"%s\" instead of \"%s\"", i, err.text, spoils[i].why);
        encode_raw(&result, &bad);
        if (decode_bytes(bad.data, bad.len) != KILN_E_CORRUPT)
            fail_msg("decoder took spoil %zu, %s", i, spoils[i].why);
    }
    kiln_autoresult struct kiln_result local = {0};
    make_local(&local);
    free(local.reasons[--local.reasons_count]);
    free(local.reasons[--local.reasons_count]);
    assert_int_equal(kiln_result_finish(&local, NULL), KILN_E_INVAL);
    kiln_result_add_reason(&local, "x", NULL);
    kiln_result_add_reason(&local, "x", NULL);
    assert_int_equal(kiln_result_finish(&local, NULL), KILN_E_INVAL);
}

static void refuses_torn_bytes(void **state) {
    (void)state;
    kiln_autoresult struct kiln_result result = {0};
    kiln_autobuf struct kiln_buf bytes = BUF;
    make(&result);
    encode_raw(&result, &bytes);
    for (size_t len = 0; len < bytes.len; len++) {
        kiln_autofree unsigned char *part = malloc(len ? len : 1);
        memcpy(part, bytes.data, len);
        assert_int_equal(decode_bytes(part, len), KILN_E_CORRUPT);
    }
    for (size_t bit = 0; bit < bytes.len * 8; bit++) {
        bytes.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        decode_bytes(bytes.data, bytes.len); // asserts that what is accepted encodes to the same bytes
        bytes.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    bytes.data[bytes.len - 1] = 1; // partial
    assert_int_equal(decode_bytes(bytes.data, bytes.len), KILN_E_CORRUPT);
    bytes.data[bytes.len - 1] = 0;
    bytes.data[bytes.len - 2] = 1; // a leaf of a log
    assert_int_equal(decode_bytes(bytes.data, bytes.len), KILN_E_CORRUPT);
    bytes.data[bytes.len - 2] = 0;
    unsigned char *size = memmem(bytes.data, bytes.len, "\0\0\0\x01" "b", 5);
    assert_non_null(size);
    size[5 + 7] ^= 1; // the size of output b: the outputs digest must notice
    assert_int_equal(decode_bytes(bytes.data, bytes.len), KILN_E_CORRUPT);
}

struct keys {
    char dir[32];
    int dirfd;
    struct kiln_sign_key *key, *other;
    struct kiln_trust *trust;
};

static int make_keys(void **state) {
    struct keys *keys = calloc(1, sizeof *keys);
    strcpy(keys->dir, "/tmp/kiln-result-XXXXXX");
    assert_non_null(mkdtemp(keys->dir));
    keys->dirfd = open(keys->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(kiln_sign_key_load_or_make(keys->dirfd, "one", &keys->key, NULL), 0);
    assert_int_equal(kiln_sign_key_load_or_make(keys->dirfd, "two", &keys->other, NULL), 0);
    assert_int_equal(kiln_trust_new(&keys->trust, NULL), 0);
    assert_int_equal(kiln_trust_add_file(keys->trust, keys->dirfd, "one", NULL), 0);
    *state = keys;
    return 0;
}

static int drop_keys(void **state) {
    struct keys *keys = *state;
    kiln_sign_key_free(keys->key);
    kiln_sign_key_free(keys->other);
    kiln_trust_free(keys->trust);
    close(keys->dirfd);
    assert_int_equal(kiln_fs_remove_tree(AT_FDCWD, keys->dir, NULL), 0);
    free(keys);
    return 0;
}

static int open_bytes(const struct keys *keys, const void *data, size_t len, const struct kiln_digest *wanted) {
    kiln_autoresult struct kiln_result result = {0};
    return kiln_result_open(data, len, keys->trust, wanted, &result, NULL);
}

static void envelopes(void **state) {
    const struct keys *keys = *state;
    kiln_autoresult struct kiln_result result = {0};
    make(&result);
    kiln_autobuf struct kiln_buf bytes = BUF, foreign = BUF;
    assert_int_equal(kiln_result_seal(&result, keys->key, &bytes, NULL), 0);
    assert_int_equal(open_bytes(keys, bytes.data, bytes.len, &action), 0);
    assert_int_equal(open_bytes(keys, bytes.data, bytes.len, &content), KILN_E_CORRUPT); // another action's
    assert_int_equal(kiln_result_seal(&result, keys->other, &foreign, NULL), 0);
    assert_int_equal(open_bytes(keys, foreign.data, foreign.len, &action), KILN_E_CORRUPT); // another key's
    for (size_t len = 0; len < bytes.len; len++)
        assert_int_equal(open_bytes(keys, bytes.data, len, &action), KILN_E_CORRUPT);
    for (size_t bit = 0; bit < bytes.len * 8; bit++) {
        bytes.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        if (open_bytes(keys, bytes.data, bytes.len, &action) != KILN_E_CORRUPT)
            fail_msg("flipped bit %zu was accepted", bit);
        bytes.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    kiln_buf_add_u8(&bytes, 0);
    assert_int_equal(open_bytes(keys, bytes.data, bytes.len, &action), KILN_E_CORRUPT);
}

static void short_signature(void **state) {
    const struct keys *keys = *state;
    kiln_autoresult struct kiln_result result = {0};
    make(&result);
    kiln_autobuf struct kiln_buf bytes = BUF;
    assert_int_equal(kiln_result_seal(&result, keys->key, &bytes, NULL), 0);
    for (size_t left = 0; left < KILN_SIGNATURE_BYTES; left++) {
        size_t len = bytes.len - KILN_SIGNATURE_BYTES + left;
        kiln_autofree unsigned char *part = malloc(len); // exactly: a read past the end shows
        memcpy(part, bytes.data, len);
        part[bytes.len - KILN_SIGNATURE_BYTES - 1] = (unsigned char)left;
        assert_int_equal(open_bytes(keys, part, len, &action), KILN_E_CORRUPT);
    }
}

// A signature does not make a malformed core acceptable.
static void signed_garbage(void **state) {
    const struct keys *keys = *state;
    static const char core[] = "kiln-result-2";
    uint8_t signature[KILN_SIGNATURE_BYTES];
    struct kiln_digest id;
    kiln_autobuf struct kiln_buf bytes = BUF;
    assert_int_equal(kiln_sign(keys->key, core, sizeof core, signature, NULL), 0);
    kiln_sign_key_id(keys->key, &id);
    kiln_buf_add(&bytes, "kiln-signed-1", 14);
    kiln_buf_add_field(&bytes, id.bytes, sizeof id.bytes);
    kiln_buf_add_field(&bytes, core, sizeof core);
    kiln_buf_add_field(&bytes, signature, sizeof signature);
    assert_int_equal(open_bytes(keys, bytes.data, bytes.len, &action), KILN_E_CORRUPT);
}

static void attest_anew(struct kiln_result *r) {
    nobody_attests(r);
    attest(r, "west-1", "west");
    attest(r, "east-1", "east");
}

static void limits(void **state) {
    (void)state;
    kiln_autoresult struct kiln_result result = {0};
    make(&result);
    char name[300];
    int rc = 0;
    while (!rc) {
        snprintf(name, sizeof name, "f%zu", result.outputs_count);
        rc = kiln_result_add_output(&result, KILN_OUTPUT_FILE, name, false, 1, &content, NULL);
    }
    assert_int_equal(rc, KILN_E_LIMIT);
    assert_int_equal(result.outputs_count, KILN_RESULT_OUTPUTS_MAX);
    for (rc = 0; !rc;) {
        snprintf(name, sizeof name, "lib%zu", result.closure_count);
        rc = kiln_result_add_closure(&result, name, NULL);
    }
    assert_int_equal(rc, KILN_E_LIMIT);
    attest_anew(&result);
    assert_int_equal(kiln_result_finish(&result, NULL), 0);
    kiln_autobuf struct kiln_buf bytes = BUF;
    assert_int_equal(kiln_result_encode(&result, &bytes, NULL), 0);
    assert_int_equal(decode_bytes(bytes.data, bytes.len), 0);
    for (size_t i = 0; i < result.closure_count; i++) { // longer stems: over the byte limit
        snprintf(name, sizeof name, "lib%0200zu", i);
        set(&result.closure[i], name);
    }
    kiln_buf_reset(&bytes);
    assert_int_equal(kiln_result_finish(&result, NULL), 0);
    assert_int_equal(kiln_result_encode(&result, &bytes, NULL), KILN_E_LIMIT);
    for (rc = 0; !rc;)
        rc = kiln_result_add_reason(&result, "x", NULL);
    assert_int_equal(result.reasons_count, KILN_RESULT_REASONS_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),
        cmocka_unit_test(refuses_bad_values),
        cmocka_unit_test(refuses_torn_bytes),
        cmocka_unit_test_setup_teardown(envelopes, make_keys, drop_keys),
        cmocka_unit_test_setup_teardown(short_signature, make_keys, drop_keys),
        cmocka_unit_test_setup_teardown(signed_garbage, make_keys, drop_keys),
        cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
