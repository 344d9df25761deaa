// The toolchain's parts combined: what the sandbox gets, and what happens when a staged or combined file changed.
#include "tests/unit/scratch.h"

#include "consumer/executor/toolchain_root.h"
#include "lib/base/cleanup.h"
#include "lib/blob/toolchain_store.h"
#include "lib/core/tree.h"

struct world {
    struct scratch *scratch;
    struct kiln_toolchain_roots *roots;
    struct kiln_action action;
};

struct part_file {
    const char *path, *text;
    bool executable;
};

// Stages a part as the agent does.
static void stage_part(const struct world *world, const struct part_file *files, size_t count,
                       struct kiln_digest *digest) {
    const struct scratch *scratch = world->scratch;
    kiln_autotree struct kiln_tree tree = {0};
    for (size_t i = 0; i < count; i++) {
        struct kiln_digest content;
        kiln_digest_of(files[i].text, strlen(files[i].text), &content);
        assert_int_equal(kiln_tree_add_file(&tree, files[i].path, files[i].executable, strlen(files[i].text), &content,
                                            NULL), 0);
    }
    assert_int_equal(kiln_tree_finish(&tree, NULL), 0);
    assert_int_equal(kiln_tree_digest(&tree, digest, NULL), 0);
    char hex[KILN_DIGEST_HEX_LEN + 1], path[300];
    kiln_digest_format(digest, hex);
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(1 << 20);
    assert_int_equal(kiln_tree_encode(&tree, &encoding, NULL), 0);
    for (size_t i = 0; i < tree.count; i++) {
        snprintf(path, sizeof path, "toolchains/%s/root/%s", hex, tree.entries[i].path);
        if (tree.entries[i].kind == KILN_TREE_DIR)
            assert_int_equal(kiln_fs_make_dirs(scratch->fd, path, 0755, NULL), 0);
    }
    for (size_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "toolchains/%s/root/%s", hex, files[i].path);
        scratch_write(scratch, path, files[i].text, strlen(files[i].text));
        assert_int_equal(fchmodat(scratch->fd, path, files[i].executable ? 0555 : 0444, 0), 0);
    }
    snprintf(path, sizeof path, "toolchains/%s/tree", hex);
    scratch_write(scratch, path, encoding.data, encoding.len);
}

static void open_roots(struct world *world) {
    assert_int_equal(kiln_toolchain_roots_new(world->scratch->path, &world->roots, NULL), 0);
}

static const struct part_file runtime[] = {{"usr/lib/libc.so.6", "libc", false}};
static const struct part_file rustc[] = {{"x/sysroot/bin/rustc", "rustc", true}, {"x/sysroot/lib/driver.so", "driver", false}};
static const struct part_file linker[] = {{"usr/bin/cc", "cc", true}, {"usr/lib/libc.so.6", "libc", false}};

static int setup(void **state) {
    struct world *world = calloc(1, sizeof *world);
    void *scratch;
    scratch_setup(&scratch);
    world->scratch = scratch;
    stage_part(world, runtime, 1, &world->action.toolchain_runtime);
    stage_part(world, rustc, 2, &world->action.toolchain_rustc);
    stage_part(world, linker, 2, &world->action.toolchain_link);
    open_roots(world);
    *state = world;
    return 0;
}

static int teardown(void **state) {
    struct world *world = *state;
    kiln_toolchain_roots_free(world->roots);
    void *scratch = world->scratch;
    free(world);
    return scratch_teardown(&scratch);
}

static int open_root(struct world *world) {
    struct kiln_err err = {0};
    int fd = -1;
    if (kiln_toolchain_root_open(world->roots, &world->action, &fd, &err))
        fail_msg("%s", err.text);
    return fd;
}

static void assert_text(int dir, const char *path, const char *expected) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1000);
    assert_int_equal(kiln_fs_read_file(dir, path, &text, NULL), 0);
    assert_string_equal(kiln_buf_text(&text), expected);
}

static void combines_the_parts(void **state) {
    struct world *world = *state;
    kiln_autofd int all = open_root(world);
    assert_text(all, "usr/lib/libc.so.6", "libc");
    assert_text(all, "usr/bin/cc", "cc");
    assert_text(all, "x/sysroot/bin/rustc", "rustc");
    assert_int_equal(faccessat(all, "x/sysroot/bin/rustc", X_OK, 0), 0);
    world->action.toolchain_link = (struct kiln_digest){0}; // a job that does not link
    kiln_autofd int no_linker = open_root(world);
    assert_text(no_linker, "x/sysroot/bin/rustc", "rustc");
    assert_int_equal(faccessat(no_linker, "usr/bin/cc", F_OK, 0), -1);
    struct stat a, b;
    assert_int_equal(fstatat(all, "x/sysroot/bin/rustc", &a, 0), 0);
    assert_int_equal(fstatat(no_linker, "x/sysroot/bin/rustc", &b, 0), 0);
    assert_true(a.st_ino == b.st_ino); // nothing is copied
    static const char *const dated[] = {".", "usr", "usr/lib", "usr/bin", "usr/bin/cc", "x/sysroot/bin/rustc"};
    for (size_t i = 0; i < sizeof dated / sizeof *dated; i++) {
        assert_int_equal(fstatat(all, dated[i], &a, 0), 0);
        assert_int_equal(a.st_mtim.tv_sec, KILN_PACK_MTIME_S);
    }
}

static void part_path(const struct kiln_digest *part, const char *below, char path[300]) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(part, hex);
    snprintf(path, 300, "toolchains/%s%s", hex, below);
}

static void overwrite(const struct world *world, const char *path, const char *text) {
    assert_int_equal(fchmodat(world->scratch->fd, path, 0644, 0), 0);
    scratch_write(world->scratch, path, text, strlen(text));
}

static void makes_a_changed_combination_again(void **state) {
    struct world *world = *state;
    kiln_autofd int first = open_root(world);
    // Not through the hard link: the combination alone loses a file.
    assert_int_equal(unlinkat(first, "usr/bin/cc", 0), 0);
    kiln_toolchain_roots_free(world->roots);
    open_roots(world);
    kiln_autofd int second = open_root(world);
    assert_text(second, "usr/bin/cc", "cc");
}

static void removes_a_changed_part(void **state) {
    struct world *world = *state;
    char path[300];
    part_path(&world->action.toolchain_rustc, "/root/x/sysroot/bin/rustc", path);
    for (int made = 0; made < 2; made++) {
        if (made) // found wrong in a combination that was right when it was made
            close(open_root(world));
        overwrite(world, path, "Rustc");
        kiln_toolchain_roots_free(world->roots);
        open_roots(world);
        int fd = -1;
        struct kiln_err err = {0};
        assert_int_equal(kiln_toolchain_root_open(world->roots, &world->action, &fd, &err), KILN_E_CORRUPT);
        assert_non_null(strstr(err.text, "x/sysroot/bin/rustc was changed"));
        // Gone, so that the agent stages it again; then all is well.
        assert_int_equal(faccessat(world->scratch->fd, path, F_OK, 0), -1);
        assert_int_equal(kiln_toolchain_root_open(world->roots, &world->action, &fd, &err), KILN_E_NOTFOUND);
        struct kiln_digest again;
        stage_part(world, rustc, 2, &again);
        kiln_autofd int mended = open_root(world);
        assert_text(mended, "x/sysroot/bin/rustc", "rustc");
    }
}

static void notices_a_changed_listing(void **state) {
    struct world *world = *state;
    char path[300];
    part_path(&world->action.toolchain_runtime, "/tree", path);
    overwrite(world, path, "kiln-tree-1");
    int fd = -1;
    assert_int_equal(kiln_toolchain_root_open(world->roots, &world->action, &fd, NULL), KILN_E_CORRUPT);
    assert_int_equal(fd, -1);
}

static void clears_what_a_killed_one_left(void **state) {
    struct world *world = *state;
    assert_int_equal(mkdirat(world->scratch->fd, "toolchains/.merge-1-1", 0755), 0);
    assert_int_equal(mkdirat(world->scratch->fd, "toolchains/.new-1-1", 0755), 0); // the agent's own business
    kiln_toolchain_roots_free(world->roots);
    open_roots(world);
    assert_int_equal(faccessat(world->scratch->fd, "toolchains/.merge-1-1", F_OK, 0), -1);
    assert_int_equal(faccessat(world->scratch->fd, "toolchains/.new-1-1", F_OK, 0), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

// The parts as an operator's host has them, then only in the vault.
static void publish_parts(struct world *world, struct kiln_store *vault) {
    const struct kiln_digest *parts[] = {&world->action.toolchain_runtime, &world->action.toolchain_rustc, &world->action.toolchain_link};
    kiln_autofd int stage = openat(world->scratch->fd, "toolchains", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < 3; i++) {
        char hex[KILN_DIGEST_HEX_LEN + 1];
        kiln_digest_format(parts[i], hex);
        assert_false(kiln_toolchain_is_published(vault, parts[i]));
        assert_int_equal(kiln_toolchain_publish(vault, stage, parts[i], NULL), 0);
        assert_int_equal(kiln_toolchain_publish(vault, stage, parts[i], NULL), 0); // again is nothing
        assert_true(kiln_toolchain_is_published(vault, parts[i]));
        assert_int_equal(kiln_fs_remove_tree(stage, hex, NULL), 0);
    }
}

static void what_is_not_staged_is_fetched(void **state) {
    struct world *world = *state;
    struct kiln_store *operator, *store;
    struct kiln_err err = {0};
    assert_int_equal(kiln_store_open_dir(scratch_path(world->scratch, "store"), KILN_ROLE_VERIFIER, &operator, NULL), 0);
    assert_int_equal(kiln_store_open_dir(scratch_path(world->scratch, "store"), KILN_ROLE_EXECUTOR, &store, NULL), 0);
    publish_parts(world, operator);
    kiln_toolchain_roots_fetch_from(world->roots, store);
    kiln_autofd int root = -1;
    if (kiln_toolchain_root_open(world->roots, &world->action, &root, &err))
        fail_msg("%s", err.text);
    struct stat st;
    assert_int_equal(fstatat(root, "x/sysroot/bin/rustc", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0555);
    assert_int_equal(fstatat(root, "usr/lib/libc.so.6", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0444);
    // One that nobody published.
    struct kiln_action other = world->action;
    memset(other.toolchain_rustc.bytes, 7, 32);
    kiln_autofd int none = -1;
    assert_int_equal(kiln_toolchain_root_open(world->roots, &other, &none, &err), KILN_E_NOTFOUND);
    kiln_store_close(store);
    kiln_store_close(operator);
}

// Another part's pack under the name: whoever can write the vault still does not choose what executors run.
static void a_part_under_another_name_is_refused(void **state) {
    struct world *world = *state;
    struct kiln_store *operator;
    assert_int_equal(kiln_store_open_dir(scratch_path(world->scratch, "store"), KILN_ROLE_VERIFIER, &operator, NULL), 0);
    publish_parts(world, operator);
    struct kiln_digest wanted = {{9}}, bytes;
    kiln_autofree char *from = kiln_key_toolchain(&world->action.toolchain_rustc), *to = kiln_key_toolchain(&wanted);
    kiln_autofd int pack = -1;
    struct kiln_pin pin;
    assert_int_equal(kiln_store_open_unchecked(operator, KILN_SPACE_VAULT, from, &pack, NULL), 0);
    assert_int_equal(kiln_digest_of_fd(pack, 1 << 20, &bytes, NULL, NULL), 0);
    assert_int_equal(kiln_store_keep_fd(operator, to, pack, 1 << 20, &bytes, 0, &pin, NULL), 0);
    kiln_toolchain_roots_fetch_from(world->roots, operator);
    struct kiln_action action = world->action;
    action.toolchain_rustc = wanted;
    kiln_autofd int root = -1;
    assert_int_equal(kiln_toolchain_root_open(world->roots, &action, &root, NULL), KILN_E_CORRUPT);
    char hex[KILN_DIGEST_HEX_LEN + 1], path[100];
    kiln_digest_format(&wanted, hex);
    snprintf(path, sizeof path, "toolchains/%s", hex);
    assert_int_not_equal(faccessat(world->scratch->fd, path, F_OK, 0), 0);
    kiln_store_close(operator);
}

int main(void) {
    const struct CMUnitTest all[] = {
        TEST(combines_the_parts),
        TEST(makes_a_changed_combination_again),
        TEST(removes_a_changed_part),
        TEST(notices_a_changed_listing),
        TEST(clears_what_a_killed_one_left),
        TEST(what_is_not_staged_is_fetched),
        TEST(a_part_under_another_name_is_refused),
    };
    return cmocka_run_group_tests(all, NULL, NULL);
}
