// kiln-sig: the vectors of schemas/canonical.md, and that nothing a signature covers can be changed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/cleanup.h"
#include "lib/wire/frame.h"
#include "lib/wire/statement.h"
#include "tests/unit/statement_rig.h"

static const unsigned char key44[32] = {[0 ... 31] = 0x44};

static const struct kiln_statement small = {
    .topic = "kiln.jobs", .partition = 3, .key = key44, .key_len = sizeof key44, .value = "hello\n", .value_len = 6};

static struct kiln_author writer(void) {
    struct kiln_author author = {.principal = "agent-1", .sequence = 7, .at_ms = 1700000000000};
    memset(author.incarnation.bytes, 0x55, sizeof author.incarnation.bytes);
    return author;
}

static struct kiln_principal principal_of(const struct kiln_sign_key *key) {
    struct kiln_principal principal = {.name = "agent-1", .role = KILN_ROLE_OF_AGENT, .tenant = "red"};
    kiln_sign_key_public(key, principal.record_key);
    return principal;
}

static void sign_small(const struct kiln_sign_key *key, struct kiln_buf *header) {
    struct kiln_author author = writer();
    assert_int_equal(kiln_statement_sign(&small, &author, key, header, NULL), 0);
}

static void golden(void **state) {
    (void)state;
    struct kiln_sign_key *key = rig_key(RIG_RFC8032_1);
    kiln_autobuf struct kiln_buf header = KILN_BUF_INIT(KILN_STATEMENT_BYTES_MAX);
    kiln_autobuf struct kiln_buf expected = KILN_BUF_INIT(KILN_STATEMENT_BYTES_MAX);
    rig_vector("kiln-sig-small", &expected);
    sign_small(key, &header);
    assert_int_equal(header.len, expected.len);
    assert_memory_equal(header.data, expected.data, expected.len);

    kiln_autobuf struct kiln_buf statement = KILN_BUF_INIT(4096);
    rig_vector("statement-small", &statement);
    uint8_t public_key[KILN_PUBLIC_KEY_BYTES];
    kiln_sign_key_public(key, public_key);
    assert_int_equal(kiln_verify(public_key, statement.data, statement.len, header.data + header.len - 64, NULL), 0);
    kiln_sign_key_free(key);
}

static void author_is_what_was_enrolled(void **state) {
    (void)state;
    struct kiln_sign_key *key = rig_key(RIG_RFC8032_1);
    struct kiln_principal principal = principal_of(key);
    kiln_autobuf struct kiln_buf header = KILN_BUF_INIT(KILN_STATEMENT_BYTES_MAX);
    sign_small(key, &header);
    char name[KILN_PRINCIPAL_BYTES];
    assert_int_equal(kiln_statement_principal(header.data, header.len, name, NULL), 0);
    assert_string_equal(name, "agent-1");
    struct kiln_author author;
    assert_int_equal(kiln_statement_check(&small, header.data, header.len, &principal, &author, NULL), 0);
    assert_int_equal(author.role, KILN_ROLE_OF_AGENT);
    assert_string_equal(author.principal, "agent-1");
    assert_string_equal(author.tenant, "red");
    assert_string_equal(author.pool, "");
    assert_int_equal(author.sequence, 7);
    assert_int_equal(author.at_ms, 1700000000000);
    assert_int_equal(author.incarnation.bytes[15], 0x55);
    kiln_sign_key_free(key);
}

static void assert_refused(const struct kiln_statement *statement, const void *header, size_t len,
                           const struct kiln_principal *principal) {
    struct kiln_author author = {.sequence = 99};
    struct kiln_err err = {0};
    assert_int_equal(kiln_statement_check(statement, header, len, principal, &author, &err), KILN_E_DENIED);
    assert_int_equal(strncmp(err.text, "signature: ", 11), 0);
    assert_int_equal(author.sequence, 99);
}

static void nothing_signed_can_be_changed(void **state) {
    (void)state;
    struct kiln_sign_key *key = rig_key(RIG_RFC8032_1);
    struct kiln_principal principal = principal_of(key);
    kiln_autobuf struct kiln_buf header = KILN_BUF_INIT(KILN_STATEMENT_BYTES_MAX);
    sign_small(key, &header);
    struct kiln_statement other = small;
    other.topic = "other.kiln.jobs";
    assert_refused(&other, header.data, header.len, &principal);
    other = small, other.partition = 4;
    assert_refused(&other, header.data, header.len, &principal);
    other = small, other.key_len = 31;
    assert_refused(&other, header.data, header.len, &principal);
    other = small, other.value = "hellO\n";
    assert_refused(&other, header.data, header.len, &principal);
    other = small, other.value = NULL, other.value_len = 0;
    assert_refused(&other, header.data, header.len, &principal);
    for (size_t i = 0; i < header.len; i++) { // each byte of the header, its signature too
        header.data[i] ^= 1;
        assert_refused(&small, header.data, header.len, &principal);
        header.data[i] ^= 1;
    }
    for (size_t len = 0; len < header.len; len++)
        assert_refused(&small, header.data, len, &principal);
    kiln_buf_add_u8(&header, 0);
    assert_refused(&small, header.data, header.len, &principal);
    kiln_sign_key_free(key);
}

static void only_that_principal_holds(void **state) {
    (void)state;
    struct kiln_sign_key *key = rig_key(RIG_RFC8032_1), *stranger = rig_key(RIG_RFC8032_2);
    struct kiln_principal principal = principal_of(key);
    kiln_autobuf struct kiln_buf header = KILN_BUF_INIT(KILN_STATEMENT_BYTES_MAX);
    sign_small(stranger, &header); // claims agent-1 with a key that is not agent-1's
    assert_refused(&small, header.data, header.len, &principal);
    kiln_buf_reset(&header);
    sign_small(key, &header);
    snprintf(principal.name, sizeof principal.name, "agent-2"); // another name with the same key
    assert_refused(&small, header.data, header.len, &principal);
    kiln_sign_key_free(key);
    kiln_sign_key_free(stranger);
}

static void names_are_held_to_their_form(void **state) {
    (void)state;
    static const char *const names[] = {"", ".hidden", "a/b", "a b", "a\n"};
    struct kiln_sign_key *key = rig_key(RIG_RFC8032_1);
    kiln_autobuf struct kiln_buf header = KILN_BUF_INIT(KILN_STATEMENT_BYTES_MAX);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct kiln_author author = writer();
        snprintf(author.principal, sizeof author.principal, "%s", names[i]);
        assert_int_equal(kiln_statement_sign(&small, &author, key, &header, NULL), KILN_E_INVAL);
        assert_int_equal(header.len, 0);
    }
    sign_small(key, &header);
    header.data[15] = '.'; // the first byte of the name
    char name[KILN_PRINCIPAL_BYTES] = "kept";
    assert_int_equal(kiln_statement_principal(header.data, header.len, name, NULL), KILN_E_DENIED);
    assert_string_equal(name, "kept");
    kiln_sign_key_free(key);
}

static void frames(void **state) {
    (void)state;
    struct kiln_frame frame;
    const unsigned char credit[] = {0, 0, 0, 0x03, 0xfd}, none[] = {0, 0, 0, 0, 1}, other[] = {1, 0, 0, 0x03, 0xfd};
    assert_int_equal(kiln_frame_describe(credit, sizeof credit, &frame, NULL), 0);
    assert_int_equal(frame.id, KILN_RECORD_credit);
    assert_string_equal(frame.name, "credit");
    assert_true(frame.fingerprint == 0x14fb112319cb97ef);
    assert_int_equal(kiln_frame_describe(none, sizeof none, &frame, NULL), KILN_E_CORRUPT);
    assert_int_equal(kiln_frame_describe(other, sizeof other, &frame, NULL), KILN_E_CORRUPT);
    assert_int_equal(kiln_frame_describe(credit, 4, &frame, NULL), KILN_E_CORRUPT);
    assert_int_equal(kiln_frame_describe(NULL, 0, &frame, NULL), KILN_E_CORRUPT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),
        cmocka_unit_test(author_is_what_was_enrolled),
        cmocka_unit_test(nothing_signed_can_be_changed),
        cmocka_unit_test(only_that_principal_holds),
        cmocka_unit_test(names_are_held_to_their_form),
        cmocka_unit_test(frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
