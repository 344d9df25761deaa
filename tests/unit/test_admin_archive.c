// The tree of a package's archive, as agents will name it, and archives that are not what they are called.
#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/proc.h"
#include "lib/core/tree.h"
#include "ops/admin/archive.h"
#include "tests/unit/scratch.h"

// Packs DIRECTORY of the scratch directory as NAME.
static void pack(const struct scratch *scratch, const char *name, const char *directory) {
    char file[300];
    snprintf(file, sizeof file, "%s/%s", scratch->path, name);
    char *argv[] = {(char *)"tar", (char *)"-czf", file, (char *)"-C", (char *)scratch->path, (char *)directory, NULL};
    char *envp[] = {(char *)"PATH=/usr/bin:/bin", NULL};
    const struct kiln_proc_options options = {.program = "/bin/tar", .argv = argv, .envp = envp};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(4096);
    kiln_autobuf struct kiln_buf errout = KILN_BUF_INIT(4096);
    int status;
    assert_int_equal(kiln_proc_run(&options, kiln_clock_ms() + 20000, &out, &errout, &status, NULL), 0);
    assert_int_equal(status, 0);
}

static int take(const struct scratch *scratch, const char *name, struct kiln_archive *archive, struct kiln_err *err) {
    char file[300];
    snprintf(file, sizeof file, "%s/%s", scratch->path, name);
    int rc = kiln_archive_identify(file, archive, err);
    return rc ? rc : kiln_archive_take_tree(file, scratch->path, archive, err);
}

static void add(struct kiln_tree *tree, const char *path, bool executable, const char *text) {
    struct kiln_digest digest;
    kiln_digest_of(text, strlen(text), &digest);
    assert_int_equal(kiln_tree_add_file(tree, path, executable, strlen(text), &digest, NULL), 0);
}

static void fill(const struct scratch *scratch) {
    static const char *const files[][2] = {
        {"pkg-1.0.0/Cargo.toml", "[package]"}, {"pkg-1.0.0/src/lib.rs", "fn a() {}"},       {"pkg-1.0.0/tool.sh", "#!/bin/sh"},
        {"pkg-1.0.0/.cargo_vcs_info.json", "{}"}, {"pkg-1.0.0/target/left", "over"}, {"pkg-1.0.0/src/target/kept", "kept"},
        {"pkg-1.0.0/src/.hidden", "kept"},
    };
    assert_int_equal(kiln_fs_make_dirs(scratch->fd, "pkg-1.0.0/src/target", 0755, NULL), 0);
    assert_int_equal(kiln_fs_make_dirs(scratch->fd, "pkg-1.0.0/target", 0755, NULL), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        scratch_write(scratch, files[i][0], files[i][1], strlen(files[i][1]));
    assert_int_equal(fchmodat(scratch->fd, "pkg-1.0.0/tool.sh", 0755, 0), 0);
}

static void the_tree_is_that_of_the_unpacked_package(void **state) {
    const struct scratch *scratch = *state;
    fill(scratch);
    pack(scratch, "pkg-1.0.0.crate", "pkg-1.0.0");
    kiln_autotree struct kiln_tree tree = {0};
    add(&tree, "Cargo.toml", false, "[package]");
    add(&tree, "src/lib.rs", false, "fn a() {}");
    add(&tree, "src/target/kept", false, "kept");
    add(&tree, "src/.hidden", false, "kept");
    add(&tree, "tool.sh", true, "#!/bin/sh");
    struct kiln_digest expected;
    assert_int_equal(kiln_tree_finish(&tree, NULL), 0);
    assert_int_equal(kiln_tree_digest(&tree, &expected, NULL), 0);
    struct kiln_archive archive;
    struct kiln_err err;
    assert_int_equal(take(scratch, "pkg-1.0.0.crate", &archive, &err), 0);
    assert_string_equal(archive.package, "pkg-1.0.0");
    assert_true(kiln_digest_equal(&archive.tree, &expected));
    assert_int_equal(faccessat(scratch->fd, "unpacked", F_OK, 0), -1); // nothing is left
}

static void what_is_no_such_archive_is_refused(void **state) {
    const struct scratch *scratch = *state;
    fill(scratch);
    pack(scratch, "other-1.0.0.crate", "pkg-1.0.0");
    scratch_write(scratch, "bad-1.0.0.crate", "not a gzip", 10);
    struct kiln_archive archive;
    struct kiln_err err;
    assert_int_equal(take(scratch, "other-1.0.0.crate", &archive, &err), KILN_E_NOTFOUND);
    assert_int_equal(take(scratch, "bad-1.0.0.crate", &archive, &err), KILN_E_CORRUPT);
    assert_int_equal(take(scratch, "absent-1.0.0.crate", &archive, &err), KILN_E_NOTFOUND);
    assert_int_equal(take(scratch, "pkg-1.0.0", &archive, &err), KILN_E_INVAL);
    assert_int_equal(faccessat(scratch->fd, "unpacked", F_OK, 0), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_tree_is_that_of_the_unpacked_package, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(what_is_no_such_archive_is_refused, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
