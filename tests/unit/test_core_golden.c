// The vectors of schemas/canonical.md: each encoder makes exactly these bytes, each decoder takes them back.
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/cleanup.h"
#include "lib/core/action.h"
#include "lib/core/public_list.h"
#include "lib/core/result.h"
#include "lib/core/tree.h"
#include "lib/core/trust_record.h"

#define SMALL_BUF KILN_BUF_INIT(64 << 10)

static int nibble(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

static void add_hex(const char *line, struct kiln_buf *out) {
    for (; line[0] && line[1] && line[0] != '\n'; line += 2)
        kiln_buf_add_u8(out, (uint8_t)(nibble(line[0]) << 4 | nibble(line[1])));
}

static void read_vector(const char *name, struct kiln_buf *out, struct kiln_digest *digest) {
    FILE *page = fopen(KILN_SOURCE_DIR "/schemas/canonical.md", "r");
    assert_non_null(page);
    char line[256], head[64];
    snprintf(head, sizeof head, "```vector %s\n", name);
    int inside = 0, found = 0;
    while (!found && fgets(line, sizeof line, page)) {
        if (inside && strncmp(line, "digest ", 7) == 0) {
            line[7 + KILN_DIGEST_HEX_LEN] = 0;
            assert_int_equal(kiln_digest_parse(line + 7, digest, NULL), 0);
            found = 1;
        } else if (inside) {
            add_hex(line, out);
        }
        inside |= strcmp(line, head) == 0;
    }
    fclose(page);
    assert_true(found);
}

static void assert_vector(const char *name, const struct kiln_buf *made) {
    kiln_autobuf struct kiln_buf expected = SMALL_BUF;
    struct kiln_digest digest, found;
    read_vector(name, &expected, &digest);
    assert_int_equal(made->len, expected.len);
    assert_memory_equal(made->data, expected.data, expected.len);
    kiln_digest_of(made->data, made->len, &found);
    assert_true(kiln_digest_equal(&found, &digest));
}

static void make_small_tree(struct kiln_tree *tree) {
    struct kiln_digest hello, empty;
    kiln_digest_of("hello\n", 6, &hello);
    kiln_digest_of("", 0, &empty);
    assert_int_equal(kiln_tree_add_withheld(tree, "vault", NULL), 0);
    assert_int_equal(kiln_tree_add_file(tree, "tool", true, 0, &empty, NULL), 0);
    assert_int_equal(kiln_tree_add_link(tree, "src/link", "../tool", NULL), 0);
    assert_int_equal(kiln_tree_add_file(tree, "src/lib.rs", false, 6, &hello, NULL), 0);
    assert_int_equal(kiln_tree_finish(tree, NULL), 0);
}

static void trees(void **state) {
    (void)state;
    kiln_autotree struct kiln_tree empty = {0}, small = {0}, back = {0};
    kiln_autobuf struct kiln_buf out = SMALL_BUF;
    assert_int_equal(kiln_tree_finish(&empty, NULL), 0);
    assert_int_equal(kiln_tree_encode(&empty, &out, NULL), 0);
    assert_vector("tree-empty", &out);
    kiln_buf_reset(&out);
    make_small_tree(&small);
    assert_int_equal(kiln_tree_encode(&small, &out, NULL), 0);
    assert_vector("tree-small", &out);
    assert_int_equal(kiln_tree_decode(out.data, out.len, &back, NULL), 0);
    assert_int_equal(back.count, 5);
    assert_string_equal(back.entries[2].target, "../tool");
}

static void pack(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf bytes = SMALL_BUF;
    struct kiln_digest unused, name;
    read_vector("pack-small", &bytes, &unused);
    kiln_autotree struct kiln_tree small = {0}, found = {0};
    make_small_tree(&small);
    assert_int_equal(kiln_tree_digest(&small, &name, NULL), 0);
    kiln_autofd int fd = memfd_create("pack", MFD_CLOEXEC);
    assert_int_equal(write(fd, bytes.data, bytes.len), bytes.len);
    assert_int_equal(kiln_pack_verify(fd, &name, &found, NULL), 0);
    assert_int_equal(found.count, 5);

    char dir[] = "/tmp/kiln-golden-XXXXXX";
    assert_non_null(mkdtemp(dir));
    kiln_autofd int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(kiln_pack_unpack(fd, &name, dirfd, NULL), 0);
    kiln_autofd int again = memfd_create("pack", MFD_CLOEXEC);
    assert_int_equal(kiln_pack_write(&small, dirfd, again, NULL), 0);
    kiln_autobuf struct kiln_buf made = SMALL_BUF;
    assert_int_equal(kiln_buf_reserve(&made, 4096), 0);
    made.len = (size_t)pread(again, made.data, 4096, 0);
    assert_vector("pack-small", &made);
    unlinkat(dirfd, "src/link", 0);
    unlinkat(dirfd, "src/lib.rs", 0);
    unlinkat(dirfd, "src", AT_REMOVEDIR);
    unlinkat(dirfd, "tool", 0);
    assert_int_equal(rmdir(dir), 0);
}

static void make_small_action(struct kiln_action *action) {
    struct kiln_digest digest;
    action->profile = strdup("bwrap-1");
    action->package = strdup("demo-1.0.0");
    action->crate_name = strdup("demo");
    action->cwd = strdup("/s/ws");
    action->out_dir = strdup("/s/target");
    memset(&action->toolchain_runtime, 0x11, sizeof action->toolchain_runtime);
    memset(&action->toolchain_rustc, 0x22, sizeof action->toolchain_rustc);
    const char *argv[] = {"/s/sysroot/bin/rustc", "--crate-type", "lib", "src/lib.rs"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(kiln_action_add_arg(action, argv[i], NULL), 0);
    assert_int_equal(kiln_action_add_env(action, "DEBUG", NULL, NULL), 0);
    assert_int_equal(kiln_action_add_env(action, "CARGO_PKG_NAME", "demo", NULL), 0);
    kiln_autotree struct kiln_tree small = {0}, empty = {0};
    make_small_tree(&small);
    assert_int_equal(kiln_tree_digest(&small, &digest, NULL), 0);
    assert_int_equal(kiln_action_add_input(action, "/s/ws", KILN_INPUT_PACK, &digest, NULL), 0);
    assert_int_equal(kiln_tree_digest(&empty, &digest, NULL), 0);
    assert_int_equal(kiln_action_add_input(action, "/s/deps", KILN_INPUT_LIST, &digest, NULL), 0);
    assert_int_equal(kiln_action_finish(action, NULL), 0);
}

static void action(void **state) {
    (void)state;
    kiln_autoaction struct kiln_action made = {0}, back = {0};
    kiln_autobuf struct kiln_buf out = SMALL_BUF, seed_text = SMALL_BUF;
    make_small_action(&made);
    assert_int_equal(kiln_action_encode(&made, &out, NULL), 0);
    assert_vector("action-small", &out);
    assert_int_equal(kiln_action_decode(out.data, out.len, &back, NULL), 0);
    struct kiln_digest seed, expected;
    read_vector("seed-small", &seed_text, &expected);
    kiln_action_seed(&back, &seed);
    assert_true(kiln_digest_equal(&seed, &expected));
}

// The keys of RFC 8032, section 7.1, tests 1 and 2.
static struct kiln_sign_key *make_key(const char *private_hex) {
    char dir[] = "/tmp/kiln-golden-XXXXXX";
    assert_non_null(mkdtemp(dir));
    kiln_autofd int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    kiln_autofd int fd = openat(dirfd, "rfc", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(dprintf(fd, "%s\n", private_hex), 65);
    struct kiln_sign_key *key = NULL;
    assert_int_equal(kiln_sign_key_load_or_make(dirfd, "rfc", &key, NULL), 0);
    unlinkat(dirfd, "rfc", 0);
    unlinkat(dirfd, "rfc.pub", 0);
    assert_int_equal(rmdir(dir), 0);
    return key;
}

static const char first_private[] = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
static const char second_private[] = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";

static void add_outputs(struct kiln_result *result) {
    struct kiln_digest digest;
    kiln_digest_of("", 0, &digest);
    assert_int_equal(kiln_result_add_output(result, KILN_OUTPUT_STDERR, "", false, 0, &digest, NULL), 0);
    kiln_digest_of("hello\n", 6, &digest);
    assert_int_equal(kiln_result_add_output(result, KILN_OUTPUT_FILE, "libdemo-01.rmeta", false, 6, &digest, NULL), 0);
}

// Attests the outputs of result-success.
static void attest(struct kiln_result *result, const char *executor, const char *pool, const char *backend, uint64_t at_ms,
                   const char *private_hex) {
    kiln_autoresult struct kiln_result shown = {0};
    add_outputs(&shown);
    struct kiln_attestation attestation = {.executor = strdup(executor), .pool = strdup(pool), .backend = strdup(backend),
                                           .at_ms = at_ms};
    assert_int_equal(kiln_result_outputs_digest(shown.outputs, shown.outputs_count, &attestation.outputs, NULL), 0);
    struct kiln_sign_key *key = private_hex ? make_key(private_hex) : NULL;
    if (key)
        assert_int_equal(kiln_attestation_sign(&attestation, &result->action, key, NULL), 0);
    kiln_sign_key_free(key);
    assert_int_equal(kiln_result_add_attestation(result, &attestation, NULL), 0);
    free(attestation.executor);
    free(attestation.pool);
    free(attestation.backend);
}

static void make_result(struct kiln_result *result, enum kiln_outcome outcome, const char *scope, const char *policy) {
    kiln_autoaction struct kiln_action of = {0};
    make_small_action(&of);
    assert_int_equal(kiln_action_digest(&of, &result->action, NULL), 0);
    assert_int_equal(kiln_action_inputs_digest(&of, &result->inputs, NULL), 0);
    result->scope = strdup(scope);
    result->profile = strdup(of.profile);
    result->policy = strdup(policy);
    result->bundle_pin = strdup("");
    result->toolchain_runtime = of.toolchain_runtime;
    result->toolchain_rustc = of.toolchain_rustc;
    result->generation = 1;
    result->issued_ms = 1700000000000;
    result->outcome = outcome;
    if (outcome == KILN_OUTCOME_SUCCESS) {
        add_outputs(result);
        assert_int_equal(kiln_result_add_closure(result, "libdep-02", NULL), 0);
    } else {
        assert_int_equal(kiln_result_add_reason(result, "undeclared_env: HOSTNAME", NULL), 0);
    }
}

static void make_local(struct kiln_result *local) {
    make_result(local, KILN_OUTCOME_LOCAL, "local", "agreement=1");
    attest(local, "executor-1", "local", "bwrap", 1699999999000, NULL);
    assert_int_equal(kiln_result_finish(local, NULL), 0);
}

static void assert_result(const char *name, struct kiln_result *result) {
    kiln_autoresult struct kiln_result back = {0};
    kiln_autobuf struct kiln_buf out = SMALL_BUF, again = SMALL_BUF;
    assert_int_equal(kiln_result_finish(result, NULL), 0);
    assert_int_equal(kiln_result_encode(result, &out, NULL), 0);
    assert_vector(name, &out);
    assert_int_equal(kiln_result_decode(out.data, out.len, &back, NULL), 0);
    assert_int_equal(kiln_result_encode(&back, &again, NULL), 0);
    assert_vector(name, &again);
}

static void results(void **state) {
    (void)state;
    kiln_autoresult struct kiln_result success = {0}, agreed = {0}, local = {0};
    make_result(&success, KILN_OUTCOME_SUCCESS, "local", "agreement=1");
    attest(&success, "executor-1", "local", "bwrap", 1699999999000, NULL);
    assert_result("result-success", &success);
    make_result(&agreed, KILN_OUTCOME_SUCCESS, "acme", "agreement=2");
    attest(&agreed, "executor-2", "west", "docker", 1699999999500, first_private);
    attest(&agreed, "executor-1", "east", "bwrap", 1699999999000, second_private);
    memset(&agreed.bundle, 0x33, sizeof agreed.bundle);
    agreed.bundle_size = 4096;
    free(agreed.bundle_pin);
    agreed.bundle_pin = strdup("v.1");
    assert_result("result-agreed", &agreed);
    make_local(&local);
    assert_result("result-local", &local);
}

// What is signed is the vector, byte for byte: the signature of anything else is not the one in result-agreed.
static void attestation(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf statement = SMALL_BUF, core = SMALL_BUF;
    struct kiln_digest unused;
    read_vector("attestation-east", &statement, &unused);
    read_vector("result-agreed", &core, &unused);
    kiln_autoresult struct kiln_result agreed = {0};
    assert_int_equal(kiln_result_decode(core.data, core.len, &agreed, NULL), 0);
    assert_string_equal(agreed.attestations[0].executor, "executor-1");
    struct kiln_sign_key *key = make_key(second_private);
    uint8_t public_key[KILN_PUBLIC_KEY_BYTES];
    kiln_sign_key_public(key, public_key);
    kiln_sign_key_free(key);
    assert_int_equal(kiln_verify(public_key, statement.data, statement.len, agreed.attestations[0].signature, NULL), 0);
    assert_int_equal(kiln_attestation_check(&agreed.attestations[0], &agreed.action, public_key, NULL), 0);
    assert_int_equal(kiln_attestation_check(&agreed.attestations[1], &agreed.action, public_key, NULL), KILN_E_CORRUPT);
}

static void envelope(void **state) {
    (void)state;
    struct kiln_sign_key *key = make_key(first_private);
    kiln_autoresult struct kiln_result local = {0}, back = {0};
    kiln_autobuf struct kiln_buf out = SMALL_BUF;
    make_local(&local);
    assert_int_equal(kiln_result_seal(&local, key, &out, NULL), 0);
    assert_vector("envelope-local", &out);
    struct kiln_trust *trust = NULL;
    uint8_t public_key[KILN_PUBLIC_KEY_BYTES];
    kiln_sign_key_public(key, public_key);
    assert_int_equal(kiln_trust_new(&trust, NULL), 0);
    assert_int_equal(kiln_trust_add_public(trust, public_key, NULL), 0);
    assert_int_equal(kiln_result_open(out.data, out.len, trust, &local.action, &back, NULL), 0);
    assert_string_equal(back.reasons[0], "undeclared_env: HOSTNAME");
    kiln_trust_free(trust);
    kiln_sign_key_free(key);
}

static void trust_record(void **state) {
    (void)state;
    struct kiln_verifier_key keys[] = {{"verifier-1", {0}, 1700864000000}};
    struct kiln_principal principals[] = {{"agent-1", KILN_ROLE_OF_AGENT, "east", "", {0}},
                                          {"executor-1", KILN_ROLE_OF_EXECUTOR, "", "metal", {0}},
                                          {"reader-1", KILN_ROLE_OF_READER, "", "", {0}},
                                          {"verifier-1", KILN_ROLE_OF_VERIFIER, "", "", {0}}};
    struct kiln_revocation revocations[] = {{KILN_REVOKED_EXECUTOR, "executor-1", 1700000000000, 0},
                                            {KILN_REVOKED_ACTION, "", 0, 1700000003000}};
    memset(keys[0].public_key, 0x66, KILN_PUBLIC_KEY_BYTES);
    memset(principals[0].record_key, 0x11, KILN_PUBLIC_KEY_BYTES);
    memset(principals[1].record_key, 0x33, KILN_PUBLIC_KEY_BYTES);
    memset(principals[3].record_key, 0x22, KILN_PUBLIC_KEY_BYTES);
    memset(revocations[1].what, 'a', KILN_DIGEST_HEX_LEN);
    const struct kiln_trust_record record = {7, 1700000000000, 1700086400000, 3, keys, 1, principals, 4, revocations, 2};
    kiln_autobuf struct kiln_buf out = SMALL_BUF;
    assert_int_equal(kiln_trust_record_encode(&record, &out, NULL), 0);
    assert_vector("trust-small", &out);

    struct kiln_sign_key *roots[] = {make_key(first_private), make_key(second_private)};
    kiln_autobuf struct kiln_buf envelope = SMALL_BUF;
    assert_int_equal(kiln_trust_record_sign(&record, (const struct kiln_sign_key *const *)roots, 2, &envelope, NULL), 0);
    assert_vector("trust-signed", &envelope);
    uint8_t known[2][KILN_PUBLIC_KEY_BYTES];
    for (size_t i = 0; i < 2; i++) {
        kiln_sign_key_public(roots[i], known[i]);
        kiln_sign_key_free(roots[i]);
    }
    kiln_autotrust_record struct kiln_trust_record back = {0};
    assert_int_equal(kiln_trust_record_open(envelope.data, envelope.len, (const uint8_t (*)[KILN_PUBLIC_KEY_BYTES])known, 2,
                                            2, &back, NULL),
                     0);
    assert_string_equal(kiln_trust_record_enrolled(&back, "executor-1")->pool, "metal");
}

static void public_list(void **state) {
    (void)state;
    kiln_autopublic_list struct kiln_public_list list = {.version = 2, .issued_ms = 1700000000000, .expires_ms = 1700086400000};
    kiln_autobuf struct kiln_buf out = SMALL_BUF, envelope = SMALL_BUF, unused = SMALL_BUF;
    struct kiln_digest tree, archive;
    read_vector("tree-small", &unused, &tree);
    memset(&archive, 0x88, sizeof archive);
    assert_int_equal(kiln_public_list_add(&list, "serde-1.0.200", &archive, &tree, NULL), 0);
    read_vector("tree-empty", &unused, &tree);
    memset(&archive, 0x77, sizeof archive);
    assert_int_equal(kiln_public_list_add(&list, "itoa-1.0.11", &archive, &tree, NULL), 0);
    assert_int_equal(kiln_public_list_finish(&list, NULL), 0);
    assert_int_equal(kiln_public_list_encode(&list, &out, NULL), 0);
    assert_vector("public-small", &out);
    struct kiln_sign_key *roots[] = {make_key(first_private), make_key(second_private)};
    for (size_t i = 2; i-- > 0;) { // one after the other, as people sign
        const struct kiln_sign_key *root = roots[i];
        assert_int_equal(kiln_public_list_sign(&list, &root, 1, &envelope, NULL), 0);
    }
    assert_vector("public-signed", &envelope);
    kiln_sign_key_free(roots[0]);
    kiln_sign_key_free(roots[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(trees),       cmocka_unit_test(pack),
                                       cmocka_unit_test(action),      cmocka_unit_test(results),
                                       cmocka_unit_test(attestation), cmocka_unit_test(envelope),
                                       cmocka_unit_test(trust_record), cmocka_unit_test(public_list)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
