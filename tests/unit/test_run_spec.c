// The sandbox spec and report: what is encoded comes back, everything else is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "consumer/run/spec.h"

static struct kiln_run_bind binds[] = {{5, (char *)"/usr", false}, {6, (char *)"/job", true}};
static struct kiln_run_link links[] = {{(char *)"/lib", (char *)"usr/lib"}};
static struct kiln_run_file files[] = {{(char *)"/etc/x", (unsigned char *)"a\0b", 3}, {(char *)"/etc/y", NULL, 0}};
static char *argv_strings[] = {(char *)"/job", (char *)"", (char *)"two words"};
static char *env_strings[] = {(char *)"A=b=c", (char *)"EMPTY="};

static struct kiln_run_spec sample(void) {
    struct kiln_run_spec spec = {
        .binds = binds, .binds_count = 2, .links = links, .links_count = 1, .files = files, .files_count = 2,
        .argv = argv_strings, .argc = 3, .env = env_strings, .env_count = 2,
        .cwd = (char *)"/", .out_dir = (char *)"/out", .observer_dir = (char *)"/obs", .tmp_dir = (char *)"/tmp",
        .out_bytes = 1, .tmp_bytes = 2, .observer_bytes = 3, .inodes = 4, .wall_ms = 5, .memory_bytes = 6,
        .file_bytes = 7, .text_bytes = 1ull << 40, .processes = 9};
    memset(spec.seed, 0xa5, sizeof spec.seed);
    return spec;
}

static void round_trip(void **state) {
    (void)state;
    struct kiln_run_spec spec = sample(), read;
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RUN_SPEC_MAX), again = KILN_BUF_INIT(KILN_RUN_SPEC_MAX);
    assert_int_equal(kiln_run_spec_encode(&spec, &bytes, NULL), 0);
    assert_int_equal(kiln_run_spec_decode(bytes.data, bytes.len, &read, NULL), 0);
    assert_int_equal(kiln_run_spec_encode(&read, &again, NULL), 0);
    assert_int_equal(bytes.len, again.len);
    assert_memory_equal(bytes.data, again.data, bytes.len);
    assert_int_equal(read.text_bytes, 1ull << 40);
    assert_memory_equal(read.files[0].data, "a\0b", 3);
    assert_true(read.binds[1].file);
    kiln_run_spec_release(&read);
}

static void refuses_cut_and_extended_bytes(void **state) {
    (void)state;
    struct kiln_run_spec spec = sample(), read;
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RUN_SPEC_MAX);
    assert_int_equal(kiln_run_spec_encode(&spec, &bytes, NULL), 0);
    for (size_t len = 0; len < bytes.len; len++) {
        unsigned char *exact = malloc(len + 1); // so that a read past the end is seen by the sanitizer
        memcpy(exact, bytes.data, len);
        assert_int_equal(kiln_run_spec_decode(exact, len, &read, NULL), KILN_E_CORRUPT);
        free(exact);
    }
    kiln_buf_add_u8(&bytes, 0);
    assert_int_equal(kiln_run_spec_decode(bytes.data, bytes.len, &read, NULL), KILN_E_CORRUPT);
}

// No byte, whatever its value, makes the decoder do more than refuse.
static void survives_flipped_bytes(void **state) {
    (void)state;
    struct kiln_run_spec spec = sample();
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RUN_SPEC_MAX);
    assert_int_equal(kiln_run_spec_encode(&spec, &bytes, NULL), 0);
    for (size_t i = 0; i < bytes.len; i++)
        for (int bit = 0; bit < 8; bit++) {
            struct kiln_run_spec read;
            bytes.data[i] ^= (unsigned char)(1 << bit);
            if (kiln_run_spec_decode(bytes.data, bytes.len, &read, NULL) == 0)
                kiln_run_spec_release(&read);
            bytes.data[i] ^= (unsigned char)(1 << bit);
        }
}

static void refuses_what_makes_no_sense(void **state) {
    (void)state;
    static char *relative[] = {(char *)"job"}, *no_variable[] = {(char *)"NAME"}, *no_name[] = {(char *)"=x"};
    static struct kiln_run_bind at_root[] = {{5, (char *)"/", false}}, climbing[] = {{5, (char *)"/a/../b", false}};
    struct kiln_run_spec cases[9];
    for (size_t i = 0; i < 9; i++)
        cases[i] = sample();
    cases[0].argv = relative;
    cases[0].argc = 1;
    cases[1].argc = 0;
    cases[2].env = no_variable;
    cases[2].env_count = 1;
    cases[3].env = no_name;
    cases[3].env_count = 1;
    cases[4].binds = at_root;
    cases[4].binds_count = 1;
    cases[5].binds = climbing;
    cases[5].binds_count = 1;
    cases[6].out_dir = (char *)"/";
    cases[7].cwd = (char *)"relative";
    cases[8].processes = 0;
    for (size_t i = 0; i < 9; i++) {
        struct kiln_run_spec read;
        struct kiln_err err = {0};
        kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RUN_SPEC_MAX);
        assert_int_equal(kiln_run_spec_encode(&cases[i], &bytes, NULL), 0);
        if (kiln_run_spec_decode(bytes.data, bytes.len, &read, &err) != KILN_E_INVAL)
            fail_msg("case %zu: %s", i, err.text);
        assert_true(strlen(err.text) > 10);
    }
}

static void report_round_trip(void **state) {
    (void)state;
    const struct kiln_run_report report = {
        .end = KILN_END_WALL, .value = 3, .wall_ms = 4, .cpu_ms = 5, .peak_bytes = 6, .text = (char *)"why"};
    struct kiln_run_report read;
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1000);
    assert_int_equal(kiln_run_report_encode(&report, &bytes, NULL), 0);
    assert_int_equal(kiln_run_report_decode(bytes.data, bytes.len, &read, NULL), 0);
    assert_int_equal(read.end, KILN_END_WALL);
    assert_int_equal(read.peak_bytes, 6);
    assert_string_equal(read.text, "why");
    kiln_run_report_release(&read);
    for (size_t len = 0; len < bytes.len; len++)
        assert_int_equal(kiln_run_report_decode(bytes.data, len, &read, NULL), KILN_E_CORRUPT);
    bytes.data[3] = 9;
    assert_int_equal(kiln_run_report_decode(bytes.data, bytes.len, &read, NULL), KILN_E_CORRUPT);
}

int main(void) {
    const struct CMUnitTest all[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(refuses_cut_and_extended_bytes),
        cmocka_unit_test(survives_flipped_bytes),
        cmocka_unit_test(refuses_what_makes_no_sense),
        cmocka_unit_test(report_round_trip),
    };
    return cmocka_run_group_tests(all, NULL, NULL);
}
