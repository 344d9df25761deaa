// Actions: sorting, checks, strict decoding, the digest's and the seed's dependence on each part.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/cleanup.h"
#include "lib/core/action.h"

#define BUF KILN_BUF_INIT(KILN_ACTION_BYTES_MAX)

static const struct kiln_digest tree_one = {.bytes = {1}}, tree_two = {.bytes = {2}};

static void set(char **text, const char *value) {
    free(*text);
    *text = strdup(value);
}

static void make(struct kiln_action *action) {
    set(&action->profile, "bwrap-1");
    set(&action->package, "demo-1.0.0");
    set(&action->crate_name, "demo");
    set(&action->cwd, "/s/ws");
    set(&action->out_dir, "/s/target");
    action->toolchain_runtime.bytes[0] = 1;
    action->toolchain_rustc.bytes[0] = 2;
    kiln_action_add_arg(action, "/s/rustc", NULL);
    kiln_action_add_arg(action, "--crate-type=lib", NULL);
    kiln_action_add_env(action, "Z", "1", NULL);
    kiln_action_add_env(action, "A", NULL, NULL);
    kiln_action_add_env(action, "M", "", NULL);
    kiln_action_add_input(action, "/s/ws", KILN_INPUT_PACK, &tree_one, NULL);
    kiln_action_add_input(action, "/s/deps", KILN_INPUT_LIST, &tree_two, NULL);
    assert_int_equal(kiln_action_finish(action, NULL), 0);
}

static int decode_bytes(const void *data, size_t len) {
    kiln_autoaction struct kiln_action action = {0};
    struct kiln_err err;
    int rc = kiln_action_decode(data, len, &action, &err);
    if (rc) {
        assert_null(action.profile);
        return rc;
    }
    kiln_autobuf struct kiln_buf again = BUF;
    assert_int_equal(kiln_action_encode(&action, &again, &err), 0);
    assert_int_equal(again.len, len);
    assert_memory_equal(again.data, data, len);
    return 0;
}

static void sorts_and_round_trips(void **state) {
    (void)state;
    kiln_autoaction struct kiln_action action = {0};
    make(&action);
    assert_string_equal(action.env[0].name, "A");
    assert_false(action.env[0].present);
    assert_string_equal(action.env[0].value, "");
    assert_true(action.env[1].present);
    assert_string_equal(action.inputs[0].mount, "/s/deps");
    kiln_autobuf struct kiln_buf bytes = BUF;
    assert_int_equal(kiln_action_encode(&action, &bytes, NULL), 0);
    assert_int_equal(decode_bytes(bytes.data, bytes.len), 0);
    struct kiln_digest digest, expected;
    assert_int_equal(kiln_action_digest(&action, &digest, NULL), 0);
    kiln_digest_of(bytes.data, bytes.len, &expected);
    assert_true(kiln_digest_equal(&digest, &expected));
    assert_false(kiln_action_links(&action));
    action.toolchain_link.bytes[31] = 1;
    assert_true(kiln_action_links(&action));
}

// A decoded action can be added to: the lists keep their room.
static void decoded_can_grow(void **state) {
    (void)state;
    kiln_autoaction struct kiln_action action = {0}, back = {0};
    make(&action);
    kiln_autobuf struct kiln_buf bytes = BUF;
    assert_int_equal(kiln_action_encode(&action, &bytes, NULL), 0);
    assert_int_equal(kiln_action_decode(bytes.data, bytes.len, &back, NULL), 0);
    char name[16];
    for (int i = 0; i < 70; i++) {
        snprintf(name, sizeof name, "N%d", i);
        assert_int_equal(kiln_action_add_env(&back, name, "v", NULL), 0);
        assert_int_equal(kiln_action_add_arg(&back, name, NULL), 0);
        snprintf(name, sizeof name, "/m/%d", i);
        assert_int_equal(kiln_action_add_input(&back, name, KILN_INPUT_PACK, &tree_one, NULL), 0);
    }
    assert_int_equal(kiln_action_finish(&back, NULL), 0);
    assert_int_equal(back.env_count, 73);
}

static void swap_env(struct kiln_action *a) {
    struct kiln_action_env first = a->env[0];
    a->env[0] = a->env[1];
    a->env[1] = first;
}
static void swap_inputs(struct kiln_action *a) {
    struct kiln_action_input first = a->inputs[0];
    a->inputs[0] = a->inputs[1];
    a->inputs[1] = first;
}
static void same_env(struct kiln_action *a) { set(&a->env[1].name, a->env[0].name); }
static void same_mount(struct kiln_action *a) { set(&a->inputs[1].mount, a->inputs[0].mount); }
static void no_env_name(struct kiln_action *a) { set(&a->env[0].name, ""); }
static void equals_in_name(struct kiln_action *a) { set(&a->env[0].name, "A=B"); }
static void absent_with_value(struct kiln_action *a) { set(&a->env[0].value, "x"); }
static void relative_mount(struct kiln_action *a) { set(&a->inputs[0].mount, "s/deps"); }
static void climbing_mount(struct kiln_action *a) { set(&a->inputs[0].mount, "/s/../etc"); }
static void root_mount(struct kiln_action *a) { set(&a->inputs[0].mount, "/"); }
static void slash_mount(struct kiln_action *a) { set(&a->inputs[0].mount, "/s/deps/"); }
static void bad_form(struct kiln_action *a) { a->inputs[0].form = 3; }
static void zero_form(struct kiln_action *a) { a->inputs[0].form = 0; }
static void relative_cwd(struct kiln_action *a) { set(&a->cwd, "ws"); }
static void empty_cwd(struct kiln_action *a) { set(&a->cwd, ""); }
static void dot_out_dir(struct kiln_action *a) { set(&a->out_dir, "/s/./t"); }
static void empty_profile(struct kiln_action *a) { set(&a->profile, ""); }
static void empty_package(struct kiln_action *a) { set(&a->package, ""); }
static void empty_crate(struct kiln_action *a) { set(&a->crate_name, ""); }

static void (*const spoils[])(struct kiln_action *) = {
    swap_env,    swap_inputs,  same_env,     same_mount,  no_env_name, equals_in_name, absent_with_value,
    relative_mount, climbing_mount, root_mount, slash_mount, bad_form, zero_form, relative_cwd, empty_cwd,
    dot_out_dir, empty_profile, empty_package, empty_crate};

// The raw bytes of an action, whatever is wrong with it.
static void encode_raw(const struct kiln_action *a, struct kiln_buf *out) {
    kiln_buf_add(out, "kiln-action-1", 14);
    kiln_buf_add_field_str(out, a->profile);
    kiln_buf_add(out, a->toolchain_runtime.bytes, 32);
    kiln_buf_add(out, a->toolchain_rustc.bytes, 32);
    kiln_buf_add(out, a->toolchain_link.bytes, 32);
    kiln_buf_add_field_str(out, a->package);
    kiln_buf_add_field_str(out, a->crate_name);
    kiln_buf_add_field_str(out, a->cwd);
    kiln_buf_add_field_str(out, a->out_dir);
    kiln_buf_add_be32(out, (uint32_t)a->argc);
    for (size_t i = 0; i < a->argc; i++)
        kiln_buf_add_field_str(out, a->argv[i]);
    kiln_buf_add_be32(out, (uint32_t)a->env_count);
    for (size_t i = 0; i < a->env_count; i++) {
        kiln_buf_add_u8(out, a->env[i].present);
        kiln_buf_add_field_str(out, a->env[i].name);
        kiln_buf_add_field_str(out, a->env[i].value);
    }
    kiln_buf_add_be32(out, (uint32_t)a->inputs_count);
    for (size_t i = 0; i < a->inputs_count; i++) {
        kiln_buf_add_field_str(out, a->inputs[i].mount);
        kiln_buf_add_u8(out, (uint8_t)a->inputs[i].form);
        kiln_buf_add(out, a->inputs[i].tree.bytes, 32);
    }
}

static void refuses_bad_values(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof spoils / sizeof *spoils; i++) {
        kiln_autoaction struct kiln_action action = {0};
        kiln_autobuf struct kiln_buf good = BUF, bad = BUF, refused = BUF;
        make(&action);
        encode_raw(&action, &good);
        assert_int_equal(decode_bytes(good.data, good.len), 0);
        spoils[i](&action);
        if (kiln_action_encode(&action, &refused, NULL) != KILN_E_INVAL)
            fail_msg("encoder took spoil %zu", i);
        encode_raw(&action, &bad);
        if (decode_bytes(bad.data, bad.len) != KILN_E_CORRUPT)
            fail_msg("decoder took spoil %zu", i);
    }
}

static void refuses_torn_bytes(void **state) {
    (void)state;
    kiln_autoaction struct kiln_action action = {0};
    kiln_autobuf struct kiln_buf bytes = BUF;
    make(&action);
    encode_raw(&action, &bytes);
    for (size_t len = 0; len < bytes.len; len++) {
        kiln_autofree unsigned char *part = malloc(len ? len : 1);
        memcpy(part, bytes.data, len);
        assert_int_equal(decode_bytes(part, len), KILN_E_CORRUPT);
    }
    kiln_buf_add_u8(&bytes, 0);
    assert_int_equal(decode_bytes(bytes.data, bytes.len), KILN_E_CORRUPT);
    bytes.len--;
    // Any changed byte either makes another action, which then round-trips, or is refused.
    for (size_t at = 0; at < bytes.len; at++) {
        for (int change = 1; change < 256; change *= 2) {
            bytes.data[at] ^= (unsigned char)change;
            decode_bytes(bytes.data, bytes.len);
            bytes.data[at] ^= (unsigned char)change;
        }
    }
    // present = 2
    size_t at = bytes.len;
    while (at > 0 && memcmp(bytes.data + at - 1, "\x01\0\0\0\x01Z", 6) != 0)
        at--;
    assert_true(at > 0);
    bytes.data[at - 1] = 2;
    assert_int_equal(decode_bytes(bytes.data, bytes.len), KILN_E_CORRUPT);
}

static void nul_in_text(void **state) {
    (void)state;
    kiln_autoaction struct kiln_action action = {0};
    kiln_autobuf struct kiln_buf bytes = BUF;
    make(&action);
    encode_raw(&action, &bytes);
    unsigned char *name = memmem(bytes.data, bytes.len, "demo-1", 6);
    assert_non_null(name);
    name[2] = 0;
    assert_int_equal(decode_bytes(bytes.data, bytes.len), KILN_E_CORRUPT);
}

static void limits(void **state) {
    (void)state;
    kiln_autoaction struct kiln_action action = {0};
    make(&action);
    char name[16];
    int rc = 0;
    while (!rc)
        rc = kiln_action_add_arg(&action, "x", NULL);
    assert_int_equal(rc, KILN_E_LIMIT);
    assert_int_equal(action.argc, KILN_ACTION_ARGS_MAX);
    for (rc = 0; !rc;) {
        snprintf(name, sizeof name, "N%zu", action.env_count);
        rc = kiln_action_add_env(&action, name, NULL, NULL);
    }
    assert_int_equal(rc, KILN_E_LIMIT);
    assert_int_equal(action.env_count, KILN_ACTION_ENV_MAX);
    for (rc = 0; !rc;) {
        snprintf(name, sizeof name, "/n/%zu", action.inputs_count);
        rc = kiln_action_add_input(&action, name, KILN_INPUT_PACK, &tree_one, NULL);
    }
    assert_int_equal(rc, KILN_E_LIMIT);
    assert_int_equal(action.inputs_count, KILN_ACTION_INPUTS_MAX);
    assert_int_equal(kiln_action_finish(&action, NULL), 0);
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1 << 20);
    assert_int_equal(kiln_action_encode(&action, &bytes, NULL), 0);
    assert_int_equal(decode_bytes(bytes.data, bytes.len), 0);
    // Too large in bytes, in both directions.
    kiln_autofree char *long_value = calloc(1, KILN_ACTION_BYTES_MAX + 1);
    memset(long_value, 'x', KILN_ACTION_BYTES_MAX);
    set(&action.env[0].value, long_value);
    action.env[0].present = true;
    kiln_buf_reset(&bytes);
    assert_int_equal(kiln_action_encode(&action, &bytes, NULL), KILN_E_LIMIT);
    kiln_buf_reset(&bytes);
    encode_raw(&action, &bytes);
    assert_int_equal(kiln_action_decode(bytes.data, bytes.len, &action, NULL), KILN_E_LIMIT);
}

static void seed_of(void (*change)(struct kiln_action *), struct kiln_digest *seed) {
    kiln_autoaction struct kiln_action action = {0};
    make(&action);
    if (change)
        change(&action);
    kiln_action_seed(&action, seed);
}

static void other_source(struct kiln_action *a) {
    a->inputs[1].tree = tree_two;
    kiln_action_add_arg(a, "-Copt-level=3", NULL);
    set(&a->env[2].value, "2");
}
static void spelled_apart(struct kiln_action *a) {
    set(&a->argv[1], "--crate-type");
    kiln_action_add_arg(a, "lib", NULL);
}
static void other_type(struct kiln_action *a) { set(&a->argv[1], "--crate-type=bin"); }
static void as_test(struct kiln_action *a) { kiln_action_add_arg(a, "--test", NULL); }
static void other_package(struct kiln_action *a) { set(&a->package, "demo-1.0.1"); }
static void other_rustc(struct kiln_action *a) { a->toolchain_rustc.bytes[5] = 5; }
static void dangling_type(struct kiln_action *a) { kiln_action_add_arg(a, "--crate-type", NULL); }

static void seed(void **state) {
    (void)state;
    struct kiln_digest base, found;
    seed_of(NULL, &base);
    static void (*const same[])(struct kiln_action *) = {other_source, spelled_apart, dangling_type};
    static void (*const other[])(struct kiln_action *) = {other_type, as_test, other_package, other_rustc};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        seed_of(same[i], &found);
        assert_true(kiln_digest_equal(&base, &found));
    }
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        seed_of(other[i], &found);
        assert_false(kiln_digest_equal(&base, &found));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sorts_and_round_trips), cmocka_unit_test(decoded_can_grow),
                                       cmocka_unit_test(refuses_bad_values),    cmocka_unit_test(refuses_torn_bytes),
                                       cmocka_unit_test(nul_in_text),           cmocka_unit_test(limits),
                                       cmocka_unit_test(seed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
