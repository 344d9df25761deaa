#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/buf.h"
#include "lib/base/cleanup.h"
#include "lib/rustc/message.h"
#include "tests/unit/compiler.h"
#include "tests/unit/sandbox_text.h"
#include "tests/unit/scratch.h"

static void fill(struct kiln_path_map *map) {
    kiln_autofree char *registry = kiln_place(KILN_PLACE_REGISTRY, "a-1.0.0");
    kiln_autofree char *out = kiln_place(KILN_PLACE_OUT_DIR, NULL);
    assert_int_equal(kiln_path_map_add(map, "/home/\"q\"/reg/a-1.0.0", registry, "/kiln/a-1.0.0", NULL), 0);
    assert_int_equal(kiln_path_map_add(map, "/t/build/a-77/out", out, "/kiln/a-1.0.0.out", NULL), 0);
}

#define ARTIFACT "{\"$message_type\":\"artifact\",\"artifact\":\""

static const struct row {
    const char *text, *out_dir, *want; // want NULL: unchanged
    bool residue;
} rows[] = {
    {"", "d", NULL, false},
    {ARTIFACT "@/target/liba-1.rmeta\",\"emit\":\"metadata\"}\n", "/t/./deps",
     ARTIFACT "/t/./deps/liba-1.rmeta\",\"emit\":\"metadata\"}\n", false},
    {ARTIFACT "@/target/a.d\",\"emit\":\"dep-info\"}", "../t/", ARTIFACT "../t/a.d\",\"emit\":\"dep-info\"}", false},
    {ARTIFACT "@/target/a.d\",\"emit\":\"dep-info\"}", "", ARTIFACT "a.d\",\"emit\":\"dep-info\"}", false},
    {ARTIFACT "@/target/a\\\"b\",\"emit\":\"link\"}", "/t/\"x\"\\", ARTIFACT "/t/\\\"x\\\"\\\\/a\\\"b\",\"emit\":\"link\"}", false},
    {"{\"artifact\":\"@/target/liba.rlib\",\"emit\":\"link\"}\n", "d", "{\"artifact\":\"d/liba.rlib\",\"emit\":\"link\"}\n",
     false},
    {ARTIFACT "@/target/x/a.d\",\"emit\":\"dep-info\"}", "d", NULL, true},
    {ARTIFACT "@/target/\",\"emit\":\"dep-info\"}", "d", NULL, true},
    {ARTIFACT "@/target/a\\/b\",\"emit\":\"dep-info\"}", "d", NULL, true},
    {ARTIFACT "@/target/a.d", "d", NULL, true},
    {ARTIFACT "@/target/a.d\n", "d", NULL, true},
    {ARTIFACT "@/target/a\\", "d", NULL, true},
    {ARTIFACT "@/target@x\",\"emit\":\"link\"}", "d", NULL, true},
    {ARTIFACT "@/out/a.d\",\"emit\":\"link\"}", "d", ARTIFACT "/t/build/a-77/out/a.d\",\"emit\":\"link\"}", false},
    {ARTIFACT "@/target/a.d\",\"emit\":\"@/x\"}", "d", ARTIFACT "d/a.d\",\"emit\":\"@/x\"}", true},
    {" " ARTIFACT "@/target/a.d\",\"emit\":\"dep-info\"}", "d", NULL, true},
    {"{\"$message_type\":\"diagnostic\",\"spans\":[{\"file_name\":\"/kiln/a-1.0.0/src/lib.rs\"}],\"children\":[{\"spans\":"
     "[{\"file_name\":\"/kiln/a-1.0.0.out/g.rs\"}]}],\"rendered\":\"w\\u001b[0m --> \\u001b[0m/kiln/a-1.0.0/src/lib.rs:"
     "1:2\\n/kiln/a-1.0.0.out/g.rs\\u001b[0m\\n\"}\n{\"second\":\"line\"}\n",
     "d",
     "{\"$message_type\":\"diagnostic\",\"spans\":[{\"file_name\":\"/home/\\\"q\\\"/reg/a-1.0.0/src/lib.rs\"}],\"children\":"
     "[{\"spans\":[{\"file_name\":\"/t/build/a-77/out/g.rs\"}]}],\"rendered\":\"w\\u001b[0m --> \\u001b[0m/home/"
     "\\\"q\\\"/reg/a-1.0.0/src/lib.rs:1:2\\n/t/build/a-77/out/g.rs\\u001b[0m\\n\"}\n{\"second\":\"line\"}\n",
     false},
    {"warning: x\n --> /kiln/a-1.0.0/src/lib.rs:1:2\n  |\n\n", "d",
     "warning: x\n --> /home/\"q\"/reg/a-1.0.0/src/lib.rs:1:2\n  |\n\n", false},
    {"\x1b[1m--> \x1b[0m/kiln/a-1.0.0/b.rs\x1b[0m", "d", "\x1b[1m--> \x1b[0m/home/\"q\"/reg/a-1.0.0/b.rs\x1b[0m", false},
    {"text /kiln/a-1.0.0/x\n{\"json\":\"/kiln/a-1.0.0/x\"}\ntext /kiln/a-1.0.0/x\n", "d",
     "text /home/\"q\"/reg/a-1.0.0/x\n{\"json\":\"/home/\\\"q\\\"/reg/a-1.0.0/x\"}\ntext /home/\"q\"/reg/a-1.0.0/x\n", false},
    {"warning at /kiln/b-1.0.0/src/lib.rs\n", "d", NULL, true},
    {"first @/ws\nthen fine\n", "d", NULL, true},
    {"src/kiln/lib.rs and /home/kiln/x\n", "d", NULL, false},
};

static void test_table(void **state) {
    (void)state;
    kiln_autopathmap struct kiln_path_map map = {0};
    fill(&map);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kiln_autofree char *text = expand(rows[i].text);
        kiln_autofree char *want = expand(rows[i].want ? rows[i].want : rows[i].text);
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 16);
        bool residue = false;
        assert_int_equal(kiln_message_to_real(text, strlen(text), &map, rows[i].out_dir, &out, &residue, NULL), 0);
        if (strcmp(kiln_buf_text(&out), want) != 0 || residue != rows[i].residue)
            fail_msg("row %zu%s: %s", i, residue ? " (residue)" : "", kiln_buf_text(&out));
    }
}

static void test_limits(void **state) {
    (void)state;
    kiln_autopathmap struct kiln_path_map map = {0};
    fill(&map);
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(8);
    bool residue = false;
    assert_int_equal(kiln_message_to_real("x", KILN_MESSAGE_BYTES_MAX + 1u, &map, "d", &out, &residue, NULL), KILN_E_LIMIT);
    assert_int_equal(kiln_message_to_real("/kiln/a-1.0.0", 13, &map, "d", &out, &residue, NULL), KILN_E_LIMIT);
    assert_false(residue);
}

#define ODD_DIR "a \"q\" \\ \xc3\xa9"

static int enter_sources(void **state) {
    scratch_setup(state);
    const struct scratch *scratch = *state;
    if (chdir(scratch->path) || mkdir(ODD_DIR, 0700) || mkdir("gen", 0700) || mkdir("deps", 0700))
        return -1;
    scratch_write_text(scratch, "gen/g.rs", "fn generated(x: u8) {}\n#[deprecated] pub fn old() {}\n");
    scratch_write_text(scratch, ODD_DIR "/other.rs",
                       "pub fn other() { let mut y = 1; super::old(); }\n"
                       "#[macro_export] macro_rules! m { ($x:ident) => { let $x = 1; } }\n");
    scratch_write_text(scratch, ODD_DIR "/lib.rs",
               "#[macro_use] mod other;\ninclude!(concat!(env!(\"OUT_DIR\"), \"/g.rs\"));\n"
               "fn unused() { m!(z); let s = \"/kiln\"; }\n"
               "pub fn shadow() -> &'static str { if (true) { file!() } else { \"\" } }\n");
    return 0;
}

static int leave_sources(void **state) { return chdir("/") || scratch_teardown(state); }

// rustc told to call the sources otherwise, mapped back, prints what plain rustc prints.
static void test_real(void **state) {
    const struct scratch *scratch = *state;
    static const char *const forms[][3] = {
        {"--error-format=json", "--json=artifacts,diagnostic-rendered-ansi", NULL},
        {"--error-format=json", "--json=artifacts,diagnostic-short", NULL},
        {"--color=always", NULL, NULL},
        {"--color=never", NULL, NULL},
        {"--error-format=short", NULL, NULL},
    };
    kiln_autopathmap struct kiln_path_map map = {0};
    char package[256], gen[256], source[512], remap_package[512], remap_gen[512];
    snprintf(package, sizeof package, "%s/" ODD_DIR, scratch->path);
    snprintf(source, sizeof source, "%s/lib.rs", package);
    snprintf(gen, sizeof gen, "%s/gen", scratch->path);
    snprintf(remap_package, sizeof remap_package, "--remap-path-prefix=%s=/kiln/a-1.0.0", package);
    snprintf(remap_gen, sizeof remap_gen, "--remap-path-prefix=%s=/kiln/a-1.0.0.out", gen);
    setenv("OUT_DIR", gen, 1);
    kiln_autofree char *place = kiln_place(KILN_PLACE_REGISTRY, "a-1.0.0");
    kiln_autofree char *out_place = kiln_place(KILN_PLACE_OUT_DIR, NULL);
    assert_int_equal(kiln_path_map_add(&map, package, place, "/kiln/a-1.0.0", NULL), 0);
    assert_int_equal(kiln_path_map_add(&map, gen, out_place, "/kiln/a-1.0.0.out", NULL), 0);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const char *argv[16] = {compiler(), source, "--crate-type=lib", "--emit=dep-info,metadata", "--out-dir=deps"};
        size_t argc = 5;
        for (size_t a = 0; forms[i][a]; a++)
            argv[argc++] = forms[i][a];
        kiln_autofree char *plain = NULL;
        kiln_autofree char *remapped = NULL;
        assert_int_equal(run_compiler(argv, &plain), 0);
        argv[argc++] = remap_package;
        argv[argc++] = remap_gen;
        assert_int_equal(run_compiler(argv, &remapped), 0);
        assert_non_null(strstr(remapped, "/kiln/a-1.0.0/other.rs"));
        assert_non_null(strstr(remapped, "/kiln/a-1.0.0.out/g.rs"));
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20);
        bool residue = false;
        assert_int_equal(kiln_message_to_real(remapped, strlen(remapped), &map, "deps", &out, &residue, NULL), 0);
        assert_false(residue);
        assert_string_equal(kiln_buf_text(&out), plain);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_limits),
    };
    const struct CMUnitTest real[] = {
        cmocka_unit_test(test_real),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed)
        return failed;
    if (!has_compiler()) {
        printf("skip: no working rustc (set RUSTC to name one)\n");
        return 77;
    }
    return cmocka_run_group_tests(real, enter_sources, leave_sources);
}
