#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/cleanup.h"

static void a_buffer_holds_to_its_maximum(void **state) {
    (void)state;
    struct kiln_err err = {0};
    kiln_autobuf struct kiln_buf buf = KILN_BUF_INIT(8);
    assert_string_equal(kiln_buf_text(&buf), "");
    assert_int_equal(kiln_buf_add_str(&buf, "12345678"), 0);
    assert_int_equal(kiln_buf_check(&buf, "thing", &err), 0);
    assert_int_equal(kiln_buf_add_str(&buf, ""), 0);
    assert_int_equal(kiln_buf_add_u8(&buf, 'x'), KILN_E_LIMIT);
    assert_string_equal(kiln_buf_text(&buf), "12345678");
    assert_int_equal(kiln_buf_check(&buf, "thing", &err), KILN_E_LIMIT);
    assert_non_null(strstr(err.text, "thing"));
    kiln_buf_reset(&buf);
    assert_int_equal(kiln_buf_reserve(&buf, SIZE_MAX), KILN_E_LIMIT); // a sum that wraps
    assert_int_equal(kiln_buf_add_str(&buf, "a"), KILN_E_LIMIT);      // later appends fail too
    kiln_buf_reset(&buf);
    assert_int_equal(kiln_buf_addf(&buf, "%d-%s", 12, "ab"), 0);
    size_t len = 0;
    kiln_autofree unsigned char *bytes = kiln_buf_steal(&buf, &len);
    assert_int_equal(len, 5);
    assert_memory_equal(bytes, "12-ab", 5);
    assert_int_equal(buf.max, 8);
    assert_int_equal(buf.len, 0);
}

static void encodings_read_back(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf buf = KILN_BUF_INIT(1000);
    kiln_buf_add_u8(&buf, 7);
    kiln_buf_add_be32(&buf, 0x01020304);
    kiln_buf_add_be64(&buf, 0x1122334455667788ull);
    kiln_buf_add_field_str(&buf, "text");
    kiln_buf_add_field(&buf, "a\0b", 3);
    static const unsigned char golden[] = "\x07\x01\x02\x03\x04\x11\x22\x33\x44\x55\x66\x77\x88\0\0\0\x04text\0\0\0\x03""a\0b";
    assert_int_equal(buf.len, sizeof golden - 1);
    assert_memory_equal(buf.data, golden, buf.len);
    struct kiln_reader reader = KILN_READER_INIT(buf.data, buf.len);
    assert_int_equal(kiln_read_u8(&reader), 7);
    assert_int_equal(kiln_read_be32(&reader), 0x01020304);
    assert_true(kiln_read_be64(&reader) == 0x1122334455667788ull);
    kiln_autofree char *text = kiln_read_field_text(&reader, 4);
    assert_string_equal(text, "text");
    assert_false(kiln_reader_done(&reader));
    size_t len;
    assert_memory_equal(kiln_read_field(&reader, 3, &len), "a\0b", 3);
    assert_true(kiln_reader_done(&reader));
    assert_int_equal(kiln_read_u8(&reader), 0);
    assert_false(kiln_reader_done(&reader));
}

static void a_reader_trusts_no_length(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t len, max;
    } cases[] = {
        {"\0\0\0\x05" "abcd", 8, 100},        // longer than what is there
        {"\0\0\0\x04" "abcd", 8, 3},          // longer than allowed
        {"\xff\xff\xff\xff" "abcd", 8, SIZE_MAX},
        {"\0\0\0\x04" "ab\0d", 8, 100},       // NUL in text
        {"\0\0\0", 3, 100},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kiln_reader reader = KILN_READER_INIT((const unsigned char *)cases[i].bytes, cases[i].len);
        assert_null(kiln_read_field_text(&reader, cases[i].max));
        assert_true(reader.failed);
    }
}

static void errors_carry_context(void **state) {
    (void)state;
    struct kiln_err err = {.retriable = true};
    errno = ENOSPC;
    assert_int_equal(kiln_fail_errno(&err, KILN_E_IO, "writing %d", 5), KILN_E_IO);
    assert_int_equal(err.sys_errno, ENOSPC);
    assert_false(err.retriable);
    err.retriable = true;
    assert_int_equal(kiln_wrap(&err, KILN_E_IO, "job %s", "x"), KILN_E_IO);
    assert_string_equal(err.text, "job x: writing 5: No space left on device");
    assert_true(err.retriable);
    char long_text[1000];
    memset(long_text, 'a', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    for (int i = 0; i < 3; i++)
        kiln_wrap(&err, KILN_E_IO, "%s", i == 1 ? long_text : "short");
    assert_in_range(strlen(err.text), 400, sizeof err.text - 1);
    assert_int_equal(kiln_fail(NULL, KILN_E_LIMIT, "x"), KILN_E_LIMIT);
    assert_string_equal(kiln_code_name(0), "ok");
    assert_string_equal(kiln_code_name(KILN_E_INTERNAL), "internal");
    assert_string_equal(kiln_code_name(-99), "unknown");
    assert_string_equal(kiln_code_name(1), "unknown");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_buffer_holds_to_its_maximum),
        cmocka_unit_test(encodings_read_back),
        cmocka_unit_test(a_reader_trusts_no_length),
        cmocka_unit_test(errors_carry_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
