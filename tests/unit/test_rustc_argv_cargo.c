// Recorded calls of cargo: each is understood, and its outputs are those that were recorded.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/buf.h"
#include "lib/base/cleanup.h"
#include "lib/rustc/argv.h"

static const struct {
    const char *args, *outputs;
} calls[] = {
#include "test_rustc_argv_cargo.inc"
};

#define ARGS_MAX 512

static size_t split(char *text, char **argv) {
    size_t argc = 0;
    char *word;
    while ((word = strsep(&text, "|"))) {
        assert_true(argc < ARGS_MAX);
        argv[argc++] = word;
    }
    return argc;
}

static bool has_word(const char *list, const char *word) {
    size_t len = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += len)
        if ((at == list || at[-1] == ' ') && (!at[len] || at[len] == ' '))
            return true;
    return false;
}

static void check_outputs(const struct kiln_rustc_call *call, const char *recorded) {
    struct kiln_expected_output *outputs;
    size_t count, words = recorded[0] != 0, expected = 0;
    assert_int_equal(kiln_rustc_outputs(call, &outputs, &count, NULL), 0);
    for (const char *at = recorded; *at; at++)
        words += *at == ' ';
    for (size_t i = 0; i < count; i++) {
        if (outputs[i].prefix)
            continue;
        char name[300];
        snprintf(name, sizeof name, "%s%s", outputs[i].name, outputs[i].executable ? "*" : "");
        if (!has_word(recorded, name))
            fail_msg("%s is not among: %s", name, recorded);
        expected++;
    }
    assert_int_equal(expected, words);
    kiln_rustc_outputs_free(outputs, count);
}

static int add_line(void *context, const char *arg, struct kiln_err *err) {
    (void)err;
    return kiln_buf_add_field_str(context, arg);
}

static char *place_same(void *context, const struct kiln_arg *arg) {
    (void)context;
    return strdup(arg->path);
}

static void recorded_calls(void **state) {
    (void)state;
    const struct kiln_argv_options options = {.drop_incremental = true};
    size_t compiles = 0, local = 0;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        kiln_autofree char *text = strdup(calls[i].args);
        char *argv[ARGS_MAX];
        size_t argc = split(text, argv);
        kiln_autocall struct kiln_rustc_call call;
        struct kiln_err err = {0};
        assert_int_equal(kiln_rustc_parse(argc, argv, &options, &call, &err), 0);
        assert_int_equal(kiln_rustc_is_probe(argc, argv), call.kind == KILN_CALL_PASS);
        assert_int_equal(call.clippy, strstr(argv[0], "clippy") != NULL);
        if (!calls[i].outputs[0]) {
            assert_int_equal(call.kind, KILN_CALL_PASS);
            continue;
        }
        if (call.kind == KILN_CALL_LOCAL) {
            // The one build with RUSTFLAGS asks for the native processor, in all its units.
            assert_non_null(strstr(calls[i].args, "target-cpu=native"));
            assert_string_equal(call.reason, "native_cpu: -Ctarget-cpu=native");
            local++;
            continue;
        }
        assert_int_equal(call.kind, KILN_CALL_COMPILE);
        compiles++;
        check_outputs(&call, calls[i].outputs);
        kiln_autobuf struct kiln_buf canonical = KILN_BUF_INIT(1 << 20);
        assert_int_equal(kiln_rustc_rewrite(&call, place_same, &canonical, add_line, &err), 0);
        // Without leave to drop it, incremental is the only thing that makes these local.
        kiln_autocall struct kiln_rustc_call strict;
        assert_int_equal(kiln_rustc_parse(argc, argv, &(struct kiln_argv_options){0}, &strict, &err), 0);
        bool incremental = strstr(calls[i].args, "incremental=") != NULL;
        assert_int_equal(strict.kind, incremental ? KILN_CALL_LOCAL : KILN_CALL_COMPILE);
        if (incremental)
            assert_string_equal(strict.reason, "incremental");
    }
    assert_true(compiles > 35);
    assert_true(local > 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(recorded_calls)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
