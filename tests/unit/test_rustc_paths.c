#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/buf.h"
#include "lib/base/cleanup.h"
#include "lib/rustc/paths.h"
#include "tests/unit/sandbox_text.h"

struct rule {
    const char *real, *sandbox, *shown;
};

static const struct rule rules[] = {
    {"/home/u/ws", "@/ws", "/kiln/app-0.1.0-ws"},
    {"/home/u/ws", "@/ws", "/kiln/lib-0.2.0-ws"},
    {"/home/u/.cargo/registry/src/i/serde-1.0.2", "@/reg/serde-1.0.2", "/kiln/serde-1.0.2"},
    {"/home/u/.cargo/registry/src/i/serde-1.0.22", "@/reg/serde-1.0.22", "/kiln/serde-1.0.22"},
    {"/home/u/.cargo/registry/src/i", "@/reg", NULL},
    {"/home/u/ws/target/debug/build/serde-77/out", "@/out", "/kiln/serde-1.0.2.out"},
    {"/home/u/ws/target/debug/build/serde-77/out", "@/native/0", NULL},
    {"/home/u/ws/target/debug/deps", "@/target", NULL},
    {"/home/u/q\"b\\s/\xc3\xa9", "@/path/odd-1.0.0", "/kiln/odd-1.0.0-path"},
    {"/home/u/bad\xff\xed\xa0\x80", "@/path/bad-1.0.0", "/kiln/bad-1.0.0-path"},
};

static void fill(struct kiln_path_map *map) {
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        kiln_autofree char *sandbox = expand(rules[i].sandbox);
        assert_int_equal(kiln_path_map_add(map, rules[i].real, sandbox, rules[i].shown, NULL), 0);
    }
}

static void test_root(void **state) {
    (void)state;
    const char *root = kiln_sandbox_root();
    assert_true(strlen(root) >= 10);
    assert_int_equal(root[0], '/');
    assert_null(strchr(root + 1, '/'));
    assert_null(strstr(root, "/kiln"));
    kiln_autofree char *place = kiln_place(KILN_PLACE_TARGET, NULL);
    kiln_autofree char *below = kiln_place(KILN_PLACE_REGISTRY, "a-1.0.0");
    kiln_autofree char *want = expand("@/target");
    kiln_autofree char *want_below = expand("@/reg/a-1.0.0");
    assert_string_equal(place, want);
    assert_string_equal(below, want_below);
}

static void test_out_dir(void **state) {
    (void)state;
    static const char *const table[][2] = {{"/t/./d", "/t/./d/a"}, {"/t/", "/t/a"}, {"", "a"}, {".", "./a"}, {"/", "/a"}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        kiln_autofree char *got = kiln_out_dir_join(table[i][0], "a");
        assert_string_equal(got, table[i][1]);
    }
}

static void test_add(void **state) {
    (void)state;
    static const struct {
        const char *real, *sandbox, *shown;
        int want;
    } table[] = {
        {"/home/u/ws", "@/ws", "/kiln/app-0.1.0-ws", 0},
        {"/home/u/ws", "@/ws", "/kiln/app-0.1.0-ws", 0},
        {"/home/u/ws", "@/ws", "/kiln/other-0.1.0-ws", 0},
        {"/home/u/ws", "@/ws", NULL, 0},
        {"/home/u/ws", "@/native/0", NULL, 0},
        {"/home/v/ws", "@/ws", NULL, KILN_E_EXISTS},
        {"/home/v/ws", "@/path/x-1.0.0", "/kiln/app-0.1.0-ws", KILN_E_EXISTS},
        {"/home/v/ws", "@/path/x-1.0.0", "/app", KILN_E_INVAL},
        {"/home/v/ws", "@/path/x-1.0.0", "/kiln", KILN_E_INVAL},
        {"/home/v/ws", "@/path/x-1.0.0", "/kilnx/y", KILN_E_INVAL},
        {"/home/v/ws", "@", NULL, KILN_E_INVAL},
        {"/home/v/ws", "@x/y", NULL, KILN_E_INVAL},
        {"/home/v/ws", "/elsewhere/y", NULL, KILN_E_INVAL},
        {"/", "@/path/x-1.0.0", NULL, KILN_E_INVAL},
        {"relative", "@/path/x-1.0.0", NULL, KILN_E_INVAL},
        {"/home/v/../ws", "@/path/x-1.0.0", NULL, KILN_E_INVAL},
        {"/home/v/ws/", "@/path/x-1.0.0", NULL, KILN_E_INVAL},
    };
    kiln_autopathmap struct kiln_path_map map = {0};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        kiln_autofree char *sandbox = expand(table[i].sandbox);
        struct kiln_err err = {0};
        int rc = kiln_path_map_add(&map, table[i].real, sandbox, table[i].shown, &err);
        if (rc != table[i].want)
            fail_msg("row %zu: %d (%s)", i, rc, err.text);
    }
    assert_int_equal(map.count, 3);
}

static void test_single(void **state) {
    (void)state;
    static const struct {
        const char *real, *sandbox; // NULL: no answer
        bool back;                  // the way back gives `real` again
    } table[] = {
        {"/home/u/ws", "@/ws", true},
        {"/home/u/ws/", "@/ws/", true},
        {"/home/u/ws/a b/lib.rs", "@/ws/a b/lib.rs", true},
        {"/home/u/ws/a/../lib.rs", "@/ws/a/../lib.rs", true},
        {"/home/u/ws/a/../../x", NULL, false},
        {"/home/u/ws/./..", NULL, false},
        {"/home/u/ws//../x", NULL, false},
        {"/home/u/ws/ab/cd/x.y", "@/ws/ab/cd/x.y", true},
        {"/home/u/ws/ab/./../..x", "@/ws/ab/./../..x", true},
        {"/home/u/ws2", NULL, false},
        {"/home/u", NULL, false},
        {"home/u/ws", NULL, false},
        {"", NULL, false},
        {"/home/u/.cargo/registry/src/i/serde-1.0.2/src", "@/reg/serde-1.0.2/src", true},
        {"/home/u/.cargo/registry/src/i/serde-1.0.22/src", "@/reg/serde-1.0.22/src", true},
        {"/home/u/.cargo/registry/src/i/serde-1.0.222/src", "@/reg/serde-1.0.222/src", true},
        {"/home/u/.cargo/registry/src/i/serde-1.0/src", "@/reg/serde-1.0/src", true},
        {"/home/u/ws/target/debug/build/serde-77/out/x.rs", "@/out/x.rs", true},
        {"/home/u/ws/target/debug/deps/liba.rlib", "@/target/liba.rlib", true},
    };
    kiln_autopathmap struct kiln_path_map map = {0};
    fill(&map);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        kiln_autofree char *got = kiln_path_map_to_sandbox(&map, table[i].real);
        if (!table[i].sandbox) {
            assert_null(got);
            continue;
        }
        kiln_autofree char *want = expand(table[i].sandbox);
        assert_non_null(got);
        assert_string_equal(got, want);
        kiln_autofree char *back = kiln_path_map_to_real(&map, got);
        assert_string_equal(back, table[i].real);
    }
}

static void test_single_to_real(void **state) {
    (void)state;
    static const struct {
        const char *path, *real;
    } table[] = {
        {"/kiln/serde-1.0.2/src/lib.rs", "/home/u/.cargo/registry/src/i/serde-1.0.2/src/lib.rs"},
        {"/kiln/serde-1.0.22", "/home/u/.cargo/registry/src/i/serde-1.0.22"},
        {"/kiln/serde-1.0.2.out/x.rs", "/home/u/ws/target/debug/build/serde-77/out/x.rs"},
        {"@/native/0/libz.a", "/home/u/ws/target/debug/build/serde-77/out/libz.a"},
        {"/kiln/lib-0.2.0-ws/b/src/main.rs", "/home/u/ws/b/src/main.rs"},
        {"/kiln/serde-1.0.2:x", NULL},
        {"/kiln/serde-1.0.2/../y", NULL},
        {"/kiln/serde-1.0", NULL},
        {"@", NULL},
        {"@/wsx", NULL},
        {"@/ws:@/out", NULL},
    };
    kiln_autopathmap struct kiln_path_map map = {0};
    fill(&map);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        kiln_autofree char *path = expand(table[i].path);
        kiln_autofree char *got = kiln_path_map_to_real(&map, path);
        if (!table[i].real) {
            assert_null(got);
            continue;
        }
        assert_non_null(got);
        assert_string_equal(got, table[i].real);
    }
}

static void test_value(void **state) {
    (void)state;
    static const struct {
        const char *text, *want; // want NULL: unchanged
    } table[] = {
        {"", NULL},
        {"no path", NULL},
        {"/home/u/ws", "@/ws"},
        {"/home/u/ws:/home/u/ws/x:/usr/lib", "@/ws:@/ws/x:/usr/lib"},
        {"--cfg=\"/home/u/ws\"", "--cfg=\"@/ws\""},
        {"-I/home/u/ws", NULL},
        {"/mnt/home/u/ws", NULL},
        {"//home/u/ws", NULL},
        {"/home/u/ws2 /home/u/ws", "/home/u/ws2 @/ws"},
        {"/home/u/ws.bak", NULL},
        {"/home/u/ws\\ 2", NULL},
        {"(/home/u/ws/)", "(@/ws/)"},
        {"/home/u/ws/target/debug/build/serde-77/out/gen.rs", "@/out/gen.rs"},
        {"/home/u/ws/target/debug/build/serde-77/output", "@/ws/target/debug/build/serde-77/output"},
        {"{\"a\":\"/home/u/.cargo/registry/src/i/serde-1.0.2\"}", "{\"a\":\"@/reg/serde-1.0.2\"}"},
    };
    kiln_autopathmap struct kiln_path_map map = {0};
    fill(&map);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(4096);
        kiln_autobuf struct kiln_buf back = KILN_BUF_INIT(4096);
        bool changed = !table[i].want, residue = false;
        assert_int_equal(kiln_path_map_text_to_sandbox(&map, table[i].text, &out, &changed, NULL), 0);
        kiln_autofree char *want = expand(table[i].want ? table[i].want : table[i].text);
        assert_string_equal(kiln_buf_text(&out), want);
        assert_int_equal(changed, table[i].want != NULL);
        assert_int_equal(kiln_path_map_text_from_sandbox(&map, out.data, out.len, &back, &residue, NULL), 0);
        assert_string_equal(kiln_buf_text(&back), table[i].text);
        assert_false(residue);
    }
}

static void test_value_back(void **state) {
    (void)state;
    kiln_autopathmap struct kiln_path_map map = {0};
    fill(&map);
    kiln_autofree char *text = expand("a=/kiln/serde-1.0.2 b=@/ws c=@/unknown");
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(4096);
    bool residue = false;
    assert_int_equal(kiln_path_map_text_from_sandbox(&map, text, strlen(text), &out, &residue, NULL), 0);
    kiln_autofree char *want = expand("a=/kiln/serde-1.0.2 b=/home/u/ws c=@/unknown");
    assert_string_equal(kiln_buf_text(&out), want);
    assert_true(residue);
}

static const struct message {
    const char *text, *want; // want NULL: unchanged
    bool json, residue;
} messages[] = {
    {"", NULL, false, false},
    {"warning: unused\n", NULL, false, false},
    {" --> /kiln/serde-1.0.2/src/lib.rs:3:4\n", " --> /home/u/.cargo/registry/src/i/serde-1.0.2/src/lib.rs:3:4\n", false,
     false},
    {"/kiln/serde-1.0.22/x", "/home/u/.cargo/registry/src/i/serde-1.0.22/x", false, false},
    {"/kiln/serde-1.0.222/x", NULL, false, true},
    {"/kiln/serde-1.0.2.out/x", "/home/u/ws/target/debug/build/serde-77/out/x", false, false},
    {"/kiln/serde-1.0.2.outer/x", NULL, false, true},
    {"/kiln/serde-1.0.2-alpha/x", NULL, false, true},
    {"`/kiln/serde-1.0.2`", "`/home/u/.cargo/registry/src/i/serde-1.0.2`", false, false},
    {"in /kiln/serde-1.0.2.", NULL, false, true},
    {"@/ws", "/home/u/ws", false, false},
    {"@/wsx", NULL, false, true},
    {"@", NULL, false, true},
    {"@x", NULL, false, true},
    {"-L@/target", "-L/home/u/ws/target/debug/deps", false, false},
    {"x@/ws@/ws", "x/home/u/ws/home/u/ws", false, false},
    {"@/nowhere then @/ws", "@/nowhere then /home/u/ws", false, true},
    {"/home/u/kiln/serde-1.0.2/src", NULL, false, false},
    {"src/kiln/mod.rs", NULL, false, false},
    {"src/kiln/serde-1.0.2", NULL, false, false},
    {"/kiln", NULL, false, false},
    {"/kilns/x", NULL, false, false},
    {"/kiln/", NULL, false, true},
    {"file:///kiln/serde-1.0.2/a", "file:///home/u/.cargo/registry/src/i/serde-1.0.2/a", false, false},
    {"\x1b[0m\x1b[1m--> \x1b[38;5;12m/kiln/serde-1.0.2/a\x1b[0m",
     "\x1b[0m\x1b[1m--> \x1b[38;5;12m/home/u/.cargo/registry/src/i/serde-1.0.2/a\x1b[0m", false, false},
    {"\\u001b[0m/kiln/serde-1.0.2\\u001b[0m", "\\u001b[0m/home/u/.cargo/registry/src/i/serde-1.0.2\\u001b[0m", true,
     false},
    {"[0m/kiln/serde-1.0.2", NULL, true, false},
    {"m/kiln/serde-1.0.2", NULL, true, false},
    {"x[0m/kiln/serde-1.0.2", NULL, true, false},
    {"u001b[0m/kiln/serde-1.0.2", NULL, true, false},
    {"\\n/kiln/serde-1.0.2\\n", "\\n/home/u/.cargo/registry/src/i/serde-1.0.2\\n", true, false},
    {"\\\\n/kiln/serde-1.0.2", NULL, true, false},
    {"\\\\\\n/kiln/zzz", NULL, true, true},
    {"n/kiln/zzz", NULL, true, false},
    {"\"/kiln/odd-1.0.0-path/a\"", "\"/home/u/q\\\"b\\\\s/\xc3\xa9/a\"", true, false},
    {"/kiln/odd-1.0.0-path/a", "/home/u/q\"b\\s/\xc3\xa9/a", false, false},
    {"/kiln/bad-1.0.0-path/a", "/home/u/bad\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd/a", true, false},
    {"/kiln/bad-1.0.0-path/a", "/home/u/bad\xff\xed\xa0\x80/a", false, false},
    {"/kiln/app-0.1.0-ws/src /kiln/lib-0.2.0-ws/src", "/home/u/ws/src /home/u/ws/src", false, false},
};

static void test_message(void **state) {
    (void)state;
    kiln_autopathmap struct kiln_path_map map = {0};
    fill(&map);
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        const struct message *row = &messages[i];
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(4096);
        kiln_autofree char *text = expand(row->text);
        kiln_autofree char *want = expand(row->want ? row->want : row->text);
        bool residue = false;
        assert_int_equal(kiln_path_map_text_to_real(&map, text, strlen(text), row->json, &out, &residue, NULL), 0);
        if (strcmp(kiln_buf_text(&out), want) != 0 || residue != row->residue)
            fail_msg("row %zu: %s%s", i, kiln_buf_text(&out), residue ? " (residue)" : "");
    }
}

#define BAD "\xef\xbf\xbd"

static void test_json(void **state) {
    (void)state;
    static const char path[] = "/a\x01\b\t\n\v\f\r\x1f\x7f\"\\\xe2\x82\xac\xf0\x9f\x98\x80\xc0\x80\xe2\x82"
                               " \xe0\x80\x80\xe0\xa0\x80\xf0\x80\x80\x80\xf4\x90\x80\x80\xed\xa0\x80\xed\x9f\xbf";
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(4096);
    kiln_path_add_json(&out, path, sizeof path - 1);
    assert_string_equal(kiln_buf_text(&out), "/a\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f\x7f\\\"\\\\\xe2\x82\xac\xf0\x9f\x98\x80"
                                             BAD BAD BAD BAD " " BAD BAD BAD "\xe0\xa0\x80" BAD BAD BAD BAD BAD BAD BAD BAD
                                             BAD BAD BAD "\xed\x9f\xbf");
}

static void test_limits(void **state) {
    (void)state;
    kiln_autopathmap struct kiln_path_map map = {0};
    fill(&map);
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(20);
    bool residue = false, changed = false;
    static const char text[] = "/kiln/serde-1.0.2 /kiln/unknown";
    assert_int_equal(kiln_path_map_text_to_real(&map, text, sizeof text - 1, false, &out, &residue, NULL), KILN_E_LIMIT);
    assert_false(residue);
    kiln_autobuf struct kiln_buf small = KILN_BUF_INIT(4);
    assert_int_equal(kiln_path_map_text_to_sandbox(&map, "/home/u/ws", &small, &changed, NULL), KILN_E_LIMIT);
    assert_false(changed);
}

// A text of 32 MiB that is nothing but near misses, over 600 names, within the time that a quadratic search would need
// many times over.
static void test_linear(void **state) {
    (void)state;
    kiln_autopathmap struct kiln_path_map map = {0};
    for (int i = 0; i < 300; i++) {
        char real[64], rest[64], shown[64];
        snprintf(real, sizeof real, "/home/u/src/package-%d", i);
        snprintf(rest, sizeof rest, "package-%d", i);
        snprintf(shown, sizeof shown, "/kiln/package-%d", i);
        kiln_autofree char *sandbox = kiln_place(KILN_PLACE_REGISTRY, rest);
        assert_int_equal(kiln_path_map_add(&map, real, sandbox, shown, NULL), 0);
    }
    static const char *const units[] = {"/kiln/",           " /kiln/package-2999", "/kiln/package-29/",
                                        "\\n/kiln/package-", "\\\\",               "/"};
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(33u << 20);
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(256u << 20);
        while (text.len < 32u << 20)
            kiln_buf_add_str(&text, units[u]);
        bool residue = false;
        assert_int_equal(kiln_path_map_text_to_real(&map, text.data, text.len, true, &out, &residue, NULL), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_root),
        cmocka_unit_test(test_out_dir),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_single),
        cmocka_unit_test(test_single_to_real),
        cmocka_unit_test(test_value),
        cmocka_unit_test(test_value_back),
        cmocka_unit_test(test_message),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
