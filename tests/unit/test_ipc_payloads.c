// Payloads of frames: round trips, and every way of being wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/ipc/frames.h"

#define BUF KILN_BUF_INIT(KILN_FRAME_BYTES_MAX)

// One decoder, as the mutation test sees it: decodes and releases.
typedef int (*decode_fn)(const void *data, size_t len);

static int try_compile(const void *data, size_t len) {
    struct kiln_compile_request got = {0};
    int rc = kiln_compile_request_decode(data, len, &got, NULL);
    kiln_compile_request_release(&got);
    return rc;
}

static int try_command(const void *data, size_t len) {
    struct kiln_command_request got = {0};
    int rc = kiln_command_request_decode(data, len, &got, NULL);
    kiln_command_request_release(&got);
    return rc;
}

static int try_reply(const void *data, size_t len) {
    struct kiln_command_reply got = {0};
    int rc = kiln_command_reply_decode(data, len, &got, NULL);
    kiln_command_reply_release(&got);
    return rc;
}

static int try_order(const void *data, size_t len) {
    struct kiln_place_order got = {0};
    int rc = kiln_place_order_decode(data, len, &got, NULL);
    kiln_place_order_release(&got);
    return rc;
}

static int try_placed(const void *data, size_t len) {
    struct kiln_placed got = {0};
    int rc = kiln_placed_decode(data, len, &got, NULL);
    kiln_placed_release(&got);
    return rc;
}

static int try_local(const void *data, size_t len) {
    char *got = NULL;
    int rc = kiln_local_decode(data, len, &got, NULL);
    free(got);
    return rc;
}

static const char *const sample_argv[] = {"/x/rustc", "--crate-name", "", "ünïcode\xff", NULL};
static const char *const sample_env[] = {"A=1", "EMPTY=", "TWO=a=b", NULL};
static struct kiln_place_file sample_files[] = {
    {.path = (char *)"out/libfoo.rlib", .size = 1234567890123},
    {.path = (char *)"out/foo", .executable = true, .size = 0},
};
static unsigned char sample_out[] = "o\0ut", sample_errout[] = "{\"json\": 1}\n";

static void encode_compile(struct kiln_buf *buf) {
    const struct kiln_compile_request request = {
        .argv = (char **)sample_argv, .argc = 4, .env = (char **)sample_env, .env_count = 3, .cwd = (char *)"/w"};
    assert_int_equal(kiln_compile_request_encode(&request, buf, NULL), 0);
}

static void encode_command(struct kiln_buf *buf) {
    assert_int_equal(kiln_command_request_encode(&(struct kiln_command_request){(char **)sample_argv, 2}, buf, NULL), 0);
}

static void encode_reply(struct kiln_buf *buf) {
    const struct kiln_command_reply reply = {.exit_code = 255, .out = sample_out, .out_len = 4};
    assert_int_equal(kiln_command_reply_encode(&reply, buf, NULL), 0);
}

static void encode_order(struct kiln_buf *buf) {
    const struct kiln_place_order order = {.more = true, .files = sample_files, .files_count = 2, .out = sample_out,
                                           .out_len = 4, .errout = sample_errout,
                                           .errout_len = sizeof sample_errout - 1, .exit_code = 101};
    assert_int_equal(kiln_place_order_encode(&order, buf, NULL), 0);
}

static void encode_placed(struct kiln_buf *buf) {
    struct kiln_placed_file files[] = {{UINT64_MAX, 2, 3, -4, INT64_MIN}, {6, 7, 8, 9, 10}};
    assert_int_equal(kiln_placed_encode(&(struct kiln_placed){files, 2}, buf, NULL), 0);
}

static void encode_local(struct kiln_buf *buf) { assert_int_equal(kiln_local_encode("incremental: yes", buf, NULL), 0); }

static const struct codec {
    const char *name;
    void (*encode)(struct kiln_buf *buf);
    decode_fn decode;
} codecs[] = {
    {"compile", encode_compile, try_compile}, {"command", encode_command, try_command},
    {"reply", encode_reply, try_reply},       {"order", encode_order, try_order},
    {"placed", encode_placed, try_placed},    {"local", encode_local, try_local},
};
#define CODEC_COUNT (sizeof codecs / sizeof *codecs)

static void test_compile_request(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf buf = BUF;
    encode_compile(&buf);
    kiln_auto(kiln_compile_request_release) struct kiln_compile_request got = {0};
    assert_int_equal(kiln_compile_request_decode(buf.data, buf.len, &got, NULL), 0);
    assert_int_equal(got.argc, 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(got.argv[i], sample_argv[i]);
    assert_null(got.argv[4]);
    assert_int_equal(got.env_count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(got.env[i], sample_env[i]);
    assert_null(got.env[3]);
    assert_string_equal(got.cwd, "/w");
}

static void test_command_and_reply(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf buf = BUF;
    encode_command(&buf);
    kiln_auto(kiln_command_request_release) struct kiln_command_request request = {0};
    assert_int_equal(kiln_command_request_decode(buf.data, buf.len, &request, NULL), 0);
    assert_int_equal(request.argc, 2);
    assert_string_equal(request.argv[1], "--crate-name");
    assert_null(request.argv[2]);
    kiln_buf_reset(&buf);
    encode_reply(&buf);
    kiln_auto(kiln_command_reply_release) struct kiln_command_reply reply = {0};
    assert_int_equal(kiln_command_reply_decode(buf.data, buf.len, &reply, NULL), 0);
    assert_int_equal(reply.exit_code, 255);
    assert_int_equal(reply.out_len, 4);
    assert_memory_equal(reply.out, sample_out, 4);
    assert_int_equal(reply.errout_len, 0);
}

static void test_place_order(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf buf = BUF;
    encode_order(&buf);
    kiln_auto(kiln_place_order_release) struct kiln_place_order got = {0};
    assert_int_equal(kiln_place_order_decode(buf.data, buf.len, &got, NULL), 0);
    assert_true(got.more);
    assert_int_equal(got.files_count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(got.files[i].path, sample_files[i].path);
        assert_int_equal(got.files[i].size, sample_files[i].size);
        assert_int_equal(got.files[i].executable, sample_files[i].executable);
    }
    assert_int_equal(got.out_len, 4);
    assert_memory_equal(got.out, sample_out, 4);
    assert_int_equal(got.errout_len, sizeof sample_errout - 1);
    assert_int_equal(got.exit_code, 101);
}

static void test_placed(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf buf = BUF;
    encode_placed(&buf);
    kiln_auto(kiln_placed_release) struct kiln_placed got = {0};
    assert_int_equal(kiln_placed_decode(buf.data, buf.len, &got, NULL), 0);
    assert_int_equal(got.count, 2);
    assert_true(got.files[0].dev == UINT64_MAX && got.files[0].mtime_ns == -4 && got.files[0].ctime_ns == INT64_MIN);
    assert_int_equal(got.files[1].ctime_ns, 10);
}

static void test_local_reason(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf buf = BUF;
    encode_local(&buf);
    kiln_autofree char *got = NULL;
    assert_int_equal(kiln_local_decode(buf.data, buf.len, &got, NULL), 0);
    assert_string_equal(got, "incremental: yes");
}

static void test_every_cut_and_every_addition_is_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < CODEC_COUNT; i++) {
        kiln_autobuf struct kiln_buf buf = BUF;
        codecs[i].encode(&buf);
        assert_int_equal(codecs[i].decode(buf.data, buf.len), 0);
        for (size_t len = 0; len < buf.len; len++) {
            kiln_autofree unsigned char *cut = malloc(len + 1); // of its own, so that a read past the end is seen
            memcpy(cut, buf.data, len);
            if (codecs[i].decode(cut, len) != KILN_E_CORRUPT)
                fail_msg("%s: accepted when cut to %zu bytes", codecs[i].name, len);
        }
        kiln_buf_add_u8(&buf, 0);
        assert_int_equal(codecs[i].decode(buf.data, buf.len), KILN_E_CORRUPT);
    }
}

// Any byte at any place: the decoder may accept or refuse, within the bounds of its input (the sanitizers watch).
static void test_every_byte_changed(void **state) {
    (void)state;
    static const unsigned char values[] = {0, 1, 2, 0x3d, 0x7f, 0x80, 0xff};
    for (size_t i = 0; i < CODEC_COUNT; i++) {
        kiln_autobuf struct kiln_buf buf = BUF;
        codecs[i].encode(&buf);
        for (size_t at = 0; at < buf.len; at++) {
            unsigned char kept = buf.data[at];
            for (size_t v = 0; v < sizeof values; v++) {
                buf.data[at] = values[v];
                codecs[i].decode(buf.data, buf.len);
            }
            buf.data[at] = kept;
        }
    }
}

static void add_text_list(struct kiln_buf *buf, uint32_t claimed, const char *const *texts) {
    kiln_buf_add_be32(buf, claimed);
    for (; *texts; texts++)
        kiln_buf_add_field_str(buf, *texts);
}

static void test_refused_requests(void **state) {
    (void)state;
    static const struct {
        const char *name, *argv[3], *env[3], *cwd;
        uint32_t argc, env_count;
    } cases[] = {
        {"no argument", {NULL}, {"A=1", NULL}, "/w", 0, 1},
        {"relative directory", {"rustc", NULL}, {"A=1", NULL}, "w", 1, 1},
        {"empty directory", {"rustc", NULL}, {"A=1", NULL}, "", 1, 1},
        {"variable without a value", {"rustc", NULL}, {"A", NULL}, "/w", 1, 1},
        {"variable without a name", {"rustc", NULL}, {"=1", NULL}, "/w", 1, 1},
        {"more arguments claimed", {"rustc", NULL}, {"A=1", NULL}, "/w", 2, 1},
        {"a huge count", {"rustc", NULL}, {"A=1", NULL}, "/w", UINT32_MAX, 1},
        {"more than may be", {"rustc", NULL}, {"A=1", NULL}, "/w", KILN_REQUEST_TEXTS_MAX + 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kiln_autobuf struct kiln_buf buf = BUF;
        add_text_list(&buf, cases[i].argc, cases[i].argv);
        add_text_list(&buf, cases[i].env_count, cases[i].env);
        kiln_buf_add_field_str(&buf, cases[i].cwd);
        if (try_compile(buf.data, buf.len) != KILN_E_CORRUPT)
            fail_msg("accepted: %s", cases[i].name);
    }
}

static void test_refused_values(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf buf = BUF;
    kiln_buf_add_field(&buf, "a\0b", 3); // NUL inside a text
    assert_int_equal(try_local(buf.data, buf.len), KILN_E_CORRUPT);
    kiln_buf_reset(&buf);
    kiln_buf_add_field(&buf, "", 0);
    assert_int_equal(try_local(buf.data, buf.len), KILN_E_CORRUPT);
    kiln_buf_reset(&buf);
    kiln_buf_add_be32(&buf, 256); // exit code
    kiln_buf_add_be32(&buf, 0);
    kiln_buf_add_be32(&buf, 0);
    assert_int_equal(try_reply(buf.data, buf.len), KILN_E_CORRUPT);
    kiln_buf_reset(&buf);
    encode_order(&buf);
    buf.data[0] = 2; // a flag that is neither 0 nor 1
    assert_int_equal(try_order(buf.data, buf.len), KILN_E_CORRUPT);
    kiln_buf_reset(&buf);
    kiln_buf_add_be32(&buf, KILN_PLACE_FILES_MAX + 1);
    for (size_t i = 0; i < (KILN_PLACE_FILES_MAX + 1) * 5; i++)
        kiln_buf_add_be64(&buf, i);
    assert_int_equal(try_placed(buf.data, buf.len), KILN_E_CORRUPT);
}

static void test_too_large_to_encode(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf buf = KILN_BUF_INIT(16);
    const struct kiln_compile_request request = {
        .argv = (char **)sample_argv, .argc = 4, .env = (char **)sample_env, .env_count = 3, .cwd = (char *)"/w"};
    assert_int_equal(kiln_compile_request_encode(&request, &buf, NULL), KILN_E_LIMIT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compile_request),
        cmocka_unit_test(test_command_and_reply),
        cmocka_unit_test(test_place_order),
        cmocka_unit_test(test_placed),
        cmocka_unit_test(test_local_reason),
        cmocka_unit_test(test_every_cut_and_every_addition_is_refused),
        cmocka_unit_test(test_every_byte_changed),
        cmocka_unit_test(test_refused_requests),
        cmocka_unit_test(test_refused_values),
        cmocka_unit_test(test_too_large_to_encode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
