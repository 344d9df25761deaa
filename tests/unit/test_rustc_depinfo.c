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
#include "lib/rustc/depinfo.h"
#include "tests/unit/compiler.h"
#include "tests/unit/sandbox_text.h"
#include "tests/unit/scratch.h"

static void assert_round_trip(const char *data, size_t len) {
    kiln_autodepinfo struct kiln_depinfo info = {0};
    struct kiln_err err = {0};
    if (kiln_depinfo_parse(data, len, &info, &err))
        fail_msg("%s in: %.*s", err.text, (int)len, data);
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(KILN_DEPINFO_BYTES_MAX);
    assert_int_equal(kiln_depinfo_format(&info, &out, NULL), 0);
    assert_int_equal(out.len, len);
    assert_memory_equal(out.data, data, len);
}

static const char *const good[] = {
    "a.d: a.rs\n\na.rs:\n",
    "/t/a.d: src/lib.rs src/b.rs\n\n/t/liba.rmeta: src/lib.rs src/b.rs\n\nsrc/lib.rs:\nsrc/b.rs:\n",
    "a b: c/d.d: src/a\\ b.rs j:\\ k.rs l: \\\\ q.rs\n\nsrc/a\\ b.rs:\nj:\\ k.rs:\nl::\n\\\\ q.rs:\n",
    "a.d: #x$y%z.rs f\\g.rs\n\n#x$y%z.rs:\nf\\g.rs:\n",
    "a.d: a.rs\n\na.rs:\n\n# env-dep:A\n# env-dep:B=\n# env-dep:C=x\\ny\\rz\\\\ = #\n",
    "a.d: a.rs\n\na.rs:\n\n# env-dep:A=1\n# checksum:md5=00 file_len:13 a.rs\n",
    "a.d: a.rs\n\na.rs:\n# checksum:md5=00 file_len:13 a.rs\n",
    "# x: a.d: a.rs\n\na.rs:\n",
    "a.d: a\\ b.rs\n\na\\:\nb.rs:\n", // "a\", then "b.rs": the phony rules tell it from "a b.rs"
    "a.d: \xff\xfe.rs\n\n\xff\xfe.rs:\n",
};

static void test_good(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_round_trip(good[i], strlen(good[i]));
}

static void test_reject(void **state) {
    (void)state;
    static const char *const table[] = {
        "",
        "\n",
        ":\n",
        "a.d: a.rs",
        "a.d: a.rs\n",
        "a.d: a.rs\n\n",
        "a.rs:\n",
        "a.d: a.rs\na.rs:\n",
        "a.d: a.rs\n\na.rs:",
        "a.d: a.rs\n\nb.rs:\n",
        "a.d: a.rs\nb.rs:\na.rs:\n",
        "a.d: a.rs\n\na.rs;\n",
        "a.d: a b\n\na b:\n",
        "a.d:  a\n\n a:\n",
        "a.d: a.rs\n\na.rs\n",
        "a.d: a.rs b.rs\n\na.rs:\n",
        "a.d: a.rs\n\na.rs:\nb.rs:\n",
        "a.d: a.rs\n\nb.d: b.rs\n\na.rs:\n",
        ": a.rs\n\na.rs:\n",
        "a.d: a.rs\n\na.rs:\n\n",
        "a.d: a.rs\n\na.rs:\n\n\n# env-dep:A\n",
        "a.d: a.rs\n\na.rs:\n# env-dep:A\n",
        "a.d: a.rs\n\na.rs:\n\n# checksum:md5=00 file_len:13 a.rs\n",
        "a.d: a.rs\n\na.rs:\n# checksum:md5=00 file_len:13 a.rs\n# env-dep:A\n",
        "a.d: a.rs\n\na.rs:\n\n# env-dep:A=\\t\n",
        "a.d: a.rs\n\na.rs:\n\n# env-dep:A=\\\n",
        "a.d: a.rs\n\na.rs:\n\n# env-dep:A=x\ry\n",
        "a.d: a.rs\n\na.rs:\n\n# env-dep:A\nrest\n",
        "a.d: nl\nx.rs\n\nnl\nx.rs:\n",
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct kiln_depinfo info = {0};
        if (kiln_depinfo_parse(table[i], strlen(table[i]), &info, NULL) != KILN_E_CORRUPT)
            fail_msg("row %zu was taken", i);
        assert_null(info.targets);
    }
    struct kiln_depinfo info = {0};
    assert_int_equal(kiln_depinfo_parse("a.d: a\0rs\n\na\0rs:\n", 17, &info, NULL), KILN_E_CORRUPT);
    assert_int_equal(kiln_depinfo_parse("x", KILN_DEPINFO_BYTES_MAX + 1u, &info, NULL), KILN_E_LIMIT);
}

static void test_values(void **state) {
    (void)state;
    static const char text[] = "o x/a.d: src/a\\ b.rs \\\\ q.rs\n\no x/liba.rlib: src/a\\ b.rs \\\\ q.rs\n\nsrc/a\\ b.rs:\n\\\\ q.rs:\n"
                               "\n# env-dep:A\n# env-dep:B=x\\ny\\\\n=\n# checksum:sha256=00 file_len:1 src/a\\ b.rs\n";
    kiln_autodepinfo struct kiln_depinfo info = {0};
    assert_int_equal(kiln_depinfo_parse(text, sizeof text - 1, &info, NULL), 0);
    assert_int_equal(info.targets_count, 2);
    assert_string_equal(info.targets[0], "o x/a.d");
    assert_string_equal(info.targets[1], "o x/liba.rlib");
    assert_int_equal(info.sources_count, 2);
    assert_string_equal(info.sources[0], "src/a b.rs");
    assert_string_equal(info.sources[1], "\\ q.rs");
    assert_int_equal(info.env_count, 2);
    assert_string_equal(info.env[0].name, "A");
    assert_null(info.env[0].value);
    assert_string_equal(info.env[1].name, "B");
    assert_string_equal(info.env[1].value, "x\ny\\n=");
    assert_int_equal(info.other_count, 1);
    assert_string_equal(info.other[0], "# checksum:sha256=00 file_len:1 src/a\\ b.rs");
}

static void fill(struct kiln_path_map *map) {
    kiln_autofree char *registry = kiln_place(KILN_PLACE_REGISTRY, "a-1.0.0");
    kiln_autofree char *out = kiln_place(KILN_PLACE_OUT_DIR, NULL);
    assert_int_equal(kiln_path_map_add(map, "/home/my user/reg/a-1.0.0", registry, "/kiln/a-1.0.0", NULL), 0);
    assert_int_equal(kiln_path_map_add(map, "/t/build/a-77/out", out, "/kiln/a-1.0.0.out", NULL), 0);
}

static void test_to_real(void **state) {
    (void)state;
    static const struct {
        const char *text, *out_dir, *want; // want NULL: KILN_E_CORRUPT
    } table[] = {
        {"@/target/a.d: @/reg/a-1.0.0/src/lib.rs @/out/g.rs\n\n@/target/liba-1.rmeta: @/reg/a-1.0.0/src/lib.rs "
         "@/out/g.rs\n\n@/reg/a-1.0.0/src/lib.rs:\n@/out/g.rs:\n\n# env-dep:OUT_DIR=@/out\n# env-dep:P=@/out/x:@/out\n"
         "# checksum:sha256=00 file_len:1 @/reg/a-1.0.0/src/lib.rs\n",
         "/t/./deps",
         "/t/./deps/a.d: /home/my\\ user/reg/a-1.0.0/src/lib.rs /t/build/a-77/out/g.rs\n\n/t/./deps/liba-1.rmeta: "
         "/home/my\\ user/reg/a-1.0.0/src/lib.rs /t/build/a-77/out/g.rs\n\n/home/my\\ user/reg/a-1.0.0/src/lib.rs:\n"
         "/t/build/a-77/out/g.rs:\n\n# env-dep:OUT_DIR=/t/build/a-77/out\n"
         "# env-dep:P=/t/build/a-77/out/x:/t/build/a-77/out\n"
         "# checksum:sha256=00 file_len:1 /home/my\\ user/reg/a-1.0.0/src/lib.rs\n"},
        {"@/target/a.d: src/main.rs b/src/../x.rs\n\nsrc/main.rs:\nb/src/../x.rs:\n", "deps/",
         "deps/a.d: src/main.rs b/src/../x.rs\n\nsrc/main.rs:\nb/src/../x.rs:\n"},
        {"@/target/a.d: a.rs\n\na.rs:\n", "", "a.d: a.rs\n\na.rs:\n"},
        {"@/target/a.d: a.rs\n\na.rs:\n", ".", "./a.d: a.rs\n\na.rs:\n"},
        {"@/target/a.d: /usr/x.rs\n\n/usr/x.rs:\n\n# env-dep:V=/kiln/a-1.0.0/x\n", "d",
         "d/a.d: /usr/x.rs\n\n/usr/x.rs:\n\n# env-dep:V=/kiln/a-1.0.0/x\n"},
        {"@/target/a.d: @/reg/b-1.0.0/lib.rs\n\n@/reg/b-1.0.0/lib.rs:\n", "d", NULL},
        {"@/target/a.d: @/reg/a-1.0.0/../b/lib.rs\n\n@/reg/a-1.0.0/../b/lib.rs:\n", "d", NULL},
        {"@/target/a.d: x@/lib.rs\n\nx@/lib.rs:\n", "d", NULL},
        {"@/target/a.d: /kiln/b-1.0.0/lib.rs\n\n/kiln/b-1.0.0/lib.rs:\n", "d", NULL},
        {"@/target: a.rs\n\na.rs:\n", "d", NULL},
        {"@/targets/a.d: a.rs\n\na.rs:\n", "d", NULL},
        {"@/target/a.d@: a.rs\n\na.rs:\n", "d", NULL},
        {"@/target/a.d: a.rs\n\na.rs:\n\n# env-dep:A=@/ws\n", "d", NULL},
        {"@/target/a.d: a.rs\n\na.rs:\n\n# env-dep:@\n", "d", NULL},
        {"@/target/a.d: a.rs\n\na.rs:\n# note: @/out\n", "d", NULL},
        {"@/target/a.d: a.rs\n\na.rs:\n# note: a b @/out/x\n", "d", NULL},
        {"@/target/a.d: a.rs\n\na.rs:\n# checksum:md5=0 file_len:1 @/ws/x\n", "d", NULL},
        {"@/target/a.d: a.rs\n\na.rs:\n# checksum:md5=0 file@/reg/a-1.0.0/x\\ y\n", "d", NULL},
        {"@/target/a.d: @/reg/a-1.0.0@/x\n\n@/reg/a-1.0.0@/x:\n", "d", NULL},
    };
    kiln_autopathmap struct kiln_path_map map = {0};
    fill(&map);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        kiln_autofree char *text = expand(table[i].text);
        kiln_autodepinfo struct kiln_depinfo info = {0};
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20);
        assert_int_equal(kiln_depinfo_parse(text, strlen(text), &info, NULL), 0);
        int rc = kiln_depinfo_to_real(&info, &map, table[i].out_dir, NULL);
        if (rc != (table[i].want ? 0 : KILN_E_CORRUPT))
            fail_msg("row %zu: %d", i, rc);
        kiln_depinfo_format(&info, &out, NULL);
        assert_string_equal(kiln_buf_text(&out), table[i].want ? table[i].want : text);
    }
}

// Sources with the names that matter, in the current directory.
static int enter_sources(void **state) {
    scratch_setup(state);
    const struct scratch *scratch = *state;
    if (chdir(scratch->path) || mkdir("o#u$t\\x: y", 0700) || mkdir("src", 0700))
        return -1;
    static const char *const names[] = {"src/a b.rs", "src/c#d$e.rs", "src/f\\g.rs", "src/h:i.rs",   "src/j: k.rs",
                                        "src/l:",     "src/m%\t.rs",  "src/\xc3\xa9.rs", "src/\\ q.rs"};
    struct kiln_buf root = KILN_BUF_INIT(1 << 16);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        scratch_write_text(scratch, names[i], "");
        kiln_buf_addf(&root, "#[path = r\"%s\"] mod m%zu;\n", names[i] + 4, i);
    }
    kiln_buf_add_str(&root, "const A: &str = env!(\"KILN_E1\"); const B: Option<&str> = option_env!(\"KILN_E2\");\n"
                            "const C: &str = env!(\"KILN_E3\"); const D: Option<&str> = option_env!(\"KILN_Z=5\");\n");
    scratch_write_text(scratch, "src/lib.rs", kiln_buf_text(&root));
    scratch_write_text(scratch, "plain.rs", "");
    kiln_buf_release(&root);
    setenv("KILN_E1", "line1\nline2\r\\back# =x  ", 1);
    setenv("KILN_E3", "", 1);
    setenv("RUSTC_BOOTSTRAP", "1", 1);
    return 0;
}

static int leave_sources(void **state) { return chdir("/") || scratch_teardown(state); }

static void test_real(void **state) {
    (void)state;
    static const struct {
        const char *args[12];
        const char *file;
        size_t targets, sources, env, other;
    } table[] = {
        {{"src/lib.rs", "--emit=dep-info,metadata,link", "--out-dir=."}, "./lib.d", 3, 10, 4, 0},
        {{"src/lib.rs", "--emit=dep-info,metadata", "--out-dir=o#u$t\\x: y"}, "o#u$t\\x: y/lib.d", 2, 10, 4, 0},
        {{"src/lib.rs", "--emit=dep-info", "-Zchecksum-hash-algorithm=sha256"}, "lib.d", 1, 10, 4, 10},
        {{"plain.rs", "--emit=dep-info", "-Zchecksum-hash-algorithm=blake3"}, "plain.d", 1, 1, 0, 1},
        {{"plain.rs", "--emit=dep-info,metadata,asm,obj,llvm-ir", "--out-dir=", "-Cextra-filename=-1"}, "plain-1.d", 5, 1, 0, 0},
        {{"plain.rs", "--emit=dep-info=x.d,link", "--crate-type=cdylib,staticlib"}, "x.d", 4, 1, 0, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *argv[16] = {compiler(), "--crate-type=lib", "--crate-name=lib"};
        size_t argc = 3;
        for (size_t a = 0; table[i].args[a]; a++)
            argv[argc++] = table[i].args[a];
        argv[2] = strncmp(table[i].args[0], "src", 3) == 0 ? "--crate-name=lib" : "--crate-name=plain";
        kiln_autofree char *text = NULL;
        if (run_compiler(argv, &text) != 0)
            fail_msg("row %zu: %s", i, text ? text : "rustc cannot be run");
        kiln_autofd int fd = open(table[i].file, O_RDONLY | O_CLOEXEC);
        static char data[1 << 16];
        ssize_t len = read(fd, data, sizeof data);
        assert_true(len > 0 && (size_t)len < sizeof data);
        assert_round_trip(data, (size_t)len);
        kiln_autodepinfo struct kiln_depinfo info = {0};
        assert_int_equal(kiln_depinfo_parse(data, (size_t)len, &info, NULL), 0);
        assert_int_equal(info.targets_count, table[i].targets);
        assert_int_equal(info.sources_count, table[i].sources);
        assert_int_equal(info.env_count, table[i].env);
        assert_int_equal(info.other_count, table[i].other);
        if (info.env_count)
            assert_string_equal(info.env[0].value, getenv("KILN_E1"));
    }
}

// The names that rustc was given come out of the parser as they were.
static void test_real_names(void **state) {
    (void)state;
    const char *argv[] = {compiler(), "--crate-type=lib", "src/lib.rs", "--emit=dep-info", NULL};
    kiln_autofree char *text = NULL;
    assert_int_equal(run_compiler(argv, &text), 0);
    kiln_autofd int fd = open("lib.d", O_RDONLY | O_CLOEXEC);
    char data[4096];
    ssize_t len = read(fd, data, sizeof data);
    assert_true(len > 0);
    kiln_autodepinfo struct kiln_depinfo info = {0};
    assert_int_equal(kiln_depinfo_parse(data, (size_t)len, &info, NULL), 0);
    for (size_t i = 0; i < info.sources_count; i++)
        if (access(info.sources[i], R_OK))
            fail_msg("no file %s", info.sources[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_reject),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_to_real),
    };
    const struct CMUnitTest real[] = {
        cmocka_unit_test(test_real),
        cmocka_unit_test(test_real_names),
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
