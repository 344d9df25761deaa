// Staging: what a job sees of its inputs, what is checked, and what becomes of a cache that was tampered with.
#include "tests/unit/scratch.h"

#include <dirent.h>
#include <pthread.h>

#include "consumer/executor/stage.h"
#include "lib/base/cleanup.h"
#include "lib/base/path.h"

#define SCOPE "public"
#define PACKAGE_MOUNT "/x/reg/a-1.0.0"
#define DEPS_MOUNT "/x/deps"

struct world {
    struct scratch *scratch;
    struct kiln_store *store; // the verifier's, which may put
    struct kiln_store *executor_store;
    struct kiln_stages *stages;
    struct kiln_action action;
    struct kiln_digest pack, list, library;
};

static void put(struct world *world, enum kiln_space space, const char *kind, const struct kiln_digest *digest,
                const void *data, size_t len, bool checked) {
    kiln_autofree char *key = kiln_key_content(kind, SCOPE, digest);
    assert_int_equal(kiln_store_put_bytes(world->store, space, key, data, len, checked ? digest : NULL, NULL), 0);
}

static void put_pack(struct world *world) {
    const struct scratch *scratch = world->scratch;
    kiln_autotree struct kiln_tree tree = {0};
    struct kiln_digest digest;
    assert_int_equal(mkdirat(scratch->fd, "package", 0755), 0);
    assert_int_equal(mkdirat(scratch->fd, "package/src", 0755), 0);
    scratch_write(scratch, "package/src/lib.rs", "pub fn a() {}", 13);
    scratch_write(scratch, "package/run.sh", "#!", 2);
    kiln_digest_of("pub fn a() {}", 13, &digest);
    assert_int_equal(kiln_tree_add_file(&tree, "src/lib.rs", false, 13, &digest, NULL), 0);
    kiln_digest_of("#!", 2, &digest);
    assert_int_equal(kiln_tree_add_file(&tree, "run.sh", true, 2, &digest, NULL), 0);
    assert_int_equal(kiln_tree_add_link(&tree, "src/link.rs", "lib.rs", NULL), 0);
    assert_int_equal(kiln_tree_add_withheld(&tree, ".env", NULL), 0);
    assert_int_equal(kiln_tree_finish(&tree, NULL), 0);
    assert_int_equal(kiln_tree_digest(&tree, &world->pack, NULL), 0);
    kiln_autofd int dir = openat(scratch->fd, "package", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    kiln_autofd int pack = openat(scratch->fd, "pack", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(kiln_pack_write(&tree, dir, pack, NULL), 0);
    kiln_autofree char *key = kiln_key_content("pack", SCOPE, &world->pack);
    assert_int_equal(kiln_store_put_fd(world->store, KILN_SPACE_INPUTS, key, pack, 1 << 20, NULL, NULL), 0);
}

static void make_list(const char *name, const struct kiln_digest *library, struct kiln_buf *encoding,
                      struct kiln_digest *digest) {
    kiln_autotree struct kiln_tree tree = {0};
    assert_int_equal(kiln_tree_add_file(&tree, name, false, 7, library, NULL), 0);
    assert_int_equal(kiln_tree_finish(&tree, NULL), 0);
    assert_int_equal(kiln_tree_encode(&tree, encoding, NULL), 0);
    assert_int_equal(kiln_tree_digest(&tree, digest, NULL), 0);
}

static void open_stages(struct world *world) {
    struct kiln_err err = {0};
    if (kiln_stages_open(world->scratch->path, world->executor_store, 0, &world->stages, &err))
        fail_msg("%s", err.text);
}

static void reopen_stages(struct world *world) {
    kiln_stages_close(world->stages);
    open_stages(world);
}

static int setup(void **state) {
    struct world *world = calloc(1, sizeof *world);
    void *scratch;
    scratch_setup(&scratch);
    world->scratch = scratch;
    const char *store = scratch_path(world->scratch, "store");
    assert_int_equal(kiln_store_open_dir(store, KILN_ROLE_VERIFIER, &world->store, NULL), 0);
    assert_int_equal(kiln_store_open_dir(store, KILN_ROLE_EXECUTOR, &world->executor_store, NULL), 0);
    put_pack(world);
    kiln_digest_of("library", 7, &world->library);
    put(world, KILN_SPACE_VAULT, "blob", &world->library, "library", 7, true);
    kiln_autobuf struct kiln_buf list = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    make_list("liba-1.rmeta", &world->library, &list, &world->list);
    put(world, KILN_SPACE_INPUTS, "list", &world->list, list.data, list.len, true);
    assert_int_equal(kiln_action_add_input(&world->action, PACKAGE_MOUNT, KILN_INPUT_PACK, &world->pack, NULL), 0);
    assert_int_equal(kiln_action_add_input(&world->action, DEPS_MOUNT, KILN_INPUT_LIST, &world->list, NULL), 0);
    open_stages(world);
    *state = world;
    return 0;
}

static int teardown(void **state) {
    struct world *world = *state;
    kiln_stages_close(world->stages);
    kiln_store_close(world->store);
    kiln_store_close(world->executor_store);
    kiln_action_release(&world->action);
    void *scratch = world->scratch;
    free(world);
    return scratch_teardown(&scratch);
}

static void make(struct world *world, struct kiln_stage *stage) {
    struct kiln_err err = {0};
    if (kiln_stage_make(world->stages, &world->action, SCOPE, stage, &err))
        fail_msg("%s", err.text);
}

static const struct kiln_stage_input *input_at(const struct kiln_stage *stage, const char *mount) {
    for (size_t i = 0; i < stage->count; i++)
        if (!strcmp(stage->inputs[i].mount, mount))
            return &stage->inputs[i];
    fail_msg("no input at %s", mount);
    return NULL;
}

static void assert_text(int dir, const char *path, const char *expected, mode_t mode) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1000);
    struct stat st;
    assert_int_equal(kiln_fs_read_file(dir, path, &text, NULL), 0);
    assert_string_equal(kiln_buf_text(&text), expected);
    assert_int_equal(fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(st.st_mode & 07777, mode);
    assert_int_equal(st.st_mtim.tv_sec, KILN_PACK_MTIME_S); // the same for everybody
    assert_int_equal(st.st_mtim.tv_nsec, 0);
}

static unsigned entries_in(const struct scratch *scratch, const char *path) {
    unsigned count = 0;
    DIR *dir = opendir(scratch_path(scratch, path));
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return count;
}

static void stages_packs_and_lists(void **state) {
    struct world *world = *state;
    struct kiln_stage stage;
    make(world, &stage);
    assert_int_equal(stage.count, 2);
    const struct kiln_stage_input *package = input_at(&stage, PACKAGE_MOUNT), *deps = input_at(&stage, DEPS_MOUNT);
    assert_text(package->fd, "src/lib.rs", "pub fn a() {}", 0644);
    assert_text(package->fd, "run.sh", "#!", 0755);
    char target[16] = {0};
    assert_int_equal(readlinkat(package->fd, "src/link.rs", target, sizeof target), 6);
    assert_int_equal(faccessat(package->fd, ".env", F_OK, AT_SYMLINK_NOFOLLOW), -1);
    assert_int_equal(kiln_tree_find(&package->tree, ".env")->kind, KILN_TREE_WITHHELD);
    assert_text(deps->fd, "liba-1.rmeta", "library", 0444);
    assert_int_equal(deps->tree.count, 1);
    struct stat st;
    assert_int_equal(fstat(deps->fd, &st), 0);
    assert_int_equal(st.st_mtim.tv_sec, KILN_PACK_MTIME_S);
    // The store's record of when the library was used stays.
    assert_int_equal(fstatat(deps->fd, "liba-1.rmeta", &st, 0), 0);
    assert_true(st.st_atim.tv_sec > KILN_PACK_MTIME_S);
    kiln_stage_release(&stage);
    assert_int_equal(entries_in(world->scratch, "executor/jobs"), 0);
    assert_int_equal(entries_in(world->scratch, "executor/trees"), 1);
}

static void keeps_packages_between_processes(void **state) {
    struct world *world = *state;
    struct kiln_stage stage;
    make(world, &stage);
    kiln_stage_release(&stage);
    kiln_autofree char *key = kiln_key_content("pack", SCOPE, &world->pack);
    assert_int_equal(kiln_store_remove(world->store, KILN_SPACE_INPUTS, key, NULL), 0);
    reopen_stages(world);
    make(world, &stage); // from what is kept
    assert_text(input_at(&stage, PACKAGE_MOUNT)->fd, "src/lib.rs", "pub fn a() {}", 0644);
    kiln_stage_release(&stage);
}

static void damage_content(int root, int tree) {
    (void)tree;
    kiln_autofd int fd = openat(root, "src/lib.rs", O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "P", 1, 0), 1);
}

static void damage_size(int root, int tree) {
    (void)tree;
    kiln_autofd int fd = openat(root, "src/lib.rs", O_WRONLY | O_CLOEXEC);
    assert_int_equal(ftruncate(fd, 0), 0);
}

static void damage_missing(int root, int tree) {
    (void)tree;
    assert_int_equal(unlinkat(root, "src/lib.rs", 0), 0);
}

static void damage_link(int root, int tree) {
    (void)tree;
    assert_int_equal(unlinkat(root, "src/link.rs", 0), 0);
    assert_int_equal(symlinkat("/etc/passwd", root, "src/link.rs"), 0);
}

static void damage_replaced_by_link(int root, int tree) {
    (void)tree;
    assert_int_equal(renameat(root, "src/lib.rs", root, "moved"), 0);
    assert_int_equal(symlinkat("../moved", root, "src/lib.rs"), 0);
}

static void damage_mode(int root, int tree) {
    (void)tree;
    assert_int_equal(fchmodat(root, "run.sh", 0644, 0), 0);
}

static void damage_listing(int root, int tree) {
    (void)root;
    kiln_autofd int fd = openat(tree, "tree", O_WRONLY | O_CLOEXEC);
    if (fd < 0) { // read-only file and not root
        assert_int_equal(fchmodat(tree, "tree", 0644, 0), 0);
        damage_listing(root, tree);
        return;
    }
    assert_int_equal(pwrite(fd, "X", 1, 20), 1);
}

static void damage_no_listing(int root, int tree) {
    (void)root;
    assert_int_equal(unlinkat(tree, "tree", 0), 0);
}

static void damage_no_root(int root, int tree) {
    (void)root;
    assert_int_equal(kiln_fs_remove_tree(tree, "root", NULL), 0);
}

// A kept package that is not what its digest says is unpacked again, by the next process at the latest.
static void mends_what_was_tampered_with(void **state) {
    struct world *world = *state;
    static void (*const damages[])(int root, int tree) = {damage_content, damage_size,    damage_missing,
                                                          damage_link,    damage_replaced_by_link, damage_mode,
                                                          damage_listing, damage_no_listing, damage_no_root};
    char hex[KILN_DIGEST_HEX_LEN + 1], path[200];
    kiln_digest_format(&world->pack, hex);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        struct kiln_stage stage;
        make(world, &stage);
        snprintf(path, sizeof path, "executor/trees/%s", hex);
        kiln_autofd int tree = openat(world->scratch->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        kiln_autofd int root = openat(tree, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(root >= 0);
        kiln_stage_release(&stage);
        damages[i](root, tree);
        reopen_stages(world);
        make(world, &stage);
        const struct kiln_stage_input *package = input_at(&stage, PACKAGE_MOUNT);
        assert_text(package->fd, "src/lib.rs", "pub fn a() {}", 0644);
        assert_text(package->fd, "run.sh", "#!", 0755);
        char target[16] = {0};
        assert_int_equal(readlinkat(package->fd, "src/link.rs", target, sizeof target), 6);
        assert_string_equal(target, "lib.rs");
        kiln_stage_release(&stage);
    }
}

static void expect_failure(struct world *world, int code, const char *mount) {
    struct kiln_stage stage;
    struct kiln_err err = {0};
    int rc = kiln_stage_make(world->stages, &world->action, SCOPE, &stage, &err);
    if (rc != code)
        fail_msg("gave %d, expected %d: %s", rc, code, err.text);
    assert_non_null(strstr(err.text, mount));
    assert_int_equal(entries_in(world->scratch, "executor/jobs"), 0);
}

// Rewrites an object of the store behind its back.
static void rewrite_stored(struct world *world, const char *space, const char *kind, const struct kiln_digest *digest,
                           const void *data, size_t len) {
    kiln_autofree char *key = kiln_key_content(kind, SCOPE, digest);
    kiln_autobuf struct kiln_buf path = KILN_BUF_INIT(4096);
    kiln_buf_addf(&path, "store/%s/%s", space, key);
    assert_int_equal(unlinkat(world->scratch->fd, kiln_buf_text(&path), 0), 0);
    scratch_write(world->scratch, kiln_buf_text(&path), data, len);
    assert_int_equal(fchmodat(world->scratch->fd, kiln_buf_text(&path), 0444, 0), 0);
}

static void refuses_changed_content(void **state) {
    struct world *world = *state;
    rewrite_stored(world, "vault", "blob", &world->library, "Library", 7);
    expect_failure(world, KILN_E_CORRUPT, DEPS_MOUNT);
    rewrite_stored(world, "vault", "blob", &world->library, "library and more", 16);
    expect_failure(world, KILN_E_CORRUPT, DEPS_MOUNT);
    rewrite_stored(world, "vault", "blob", &world->library, "library", 7);
    rewrite_stored(world, "inputs", "list", &world->list, "kiln-tree-1", 12);
    expect_failure(world, KILN_E_CORRUPT, DEPS_MOUNT);
    rewrite_stored(world, "inputs", "pack", &world->pack, "kiln-pack-1", 12);
    reopen_stages(world);
    assert_int_equal(kiln_fs_remove_tree(world->scratch->fd, "executor/trees", NULL), 0);
    reopen_stages(world);
    expect_failure(world, KILN_E_CORRUPT, PACKAGE_MOUNT);
    assert_int_equal(entries_in(world->scratch, "executor/trees"), 0);
}

static void refuses_absent_content(void **state) {
    struct world *world = *state;
    kiln_autofree char *key = kiln_key_content("blob", SCOPE, &world->library);
    assert_int_equal(kiln_store_remove(world->store, KILN_SPACE_VAULT, key, NULL), 0);
    expect_failure(world, KILN_E_NOTFOUND, DEPS_MOUNT);
    // A library of the inputs is as good as one of the vault.
    put(world, KILN_SPACE_INPUTS, "blob", &world->library, "library", 7, true);
    struct kiln_stage stage;
    make(world, &stage);
    kiln_stage_release(&stage);
}

static void refuses_lists_with_directories(void **state) {
    struct world *world = *state;
    kiln_autobuf struct kiln_buf list = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    struct kiln_digest digest;
    make_list("deeper/liba.rmeta", &world->library, &list, &digest);
    put(world, KILN_SPACE_INPUTS, "list", &digest, list.data, list.len, true);
    assert_int_equal(kiln_action_add_input(&world->action, "/x/native/0", KILN_INPUT_LIST, &digest, NULL), 0);
    expect_failure(world, KILN_E_INVAL, "/x/native/0");
}

static void clears_what_a_killed_one_left(void **state) {
    struct world *world = *state;
    struct kiln_stage stage;
    make(world, &stage); // never released: killed
    assert_int_equal(mkdirat(world->scratch->fd, "executor/trees/.new-7", 0755), 0);
    scratch_write(world->scratch, "executor/trees/.new-7/x", "x", 1);
    scratch_write(world->scratch, "executor/blobs/.new-1", "x", 1);
    assert_int_equal(entries_in(world->scratch, "executor/jobs"), 1);
    reopen_stages(world);
    assert_int_equal(entries_in(world->scratch, "executor/jobs"), 0);
    assert_int_equal(entries_in(world->scratch, "executor/blobs"), 0);
    assert_int_equal(entries_in(world->scratch, "executor/trees"), 1);
    for (size_t i = 0; i < stage.count; i++)
        stage.inputs[i].package = NULL; // whose use ended with its process
    kiln_stage_release(&stage);
}

// The number of failures, as a pointer: an assertion must not leave another thread.
static void *stage_often(void *argument) {
    struct world *world = argument;
    uintptr_t failures = 0;
    for (int i = 0; i < 30; i++) {
        struct kiln_stage stage = {0};
        failures += kiln_stage_make(world->stages, &world->action, SCOPE, &stage, NULL) != 0;
        for (size_t k = 0; k < stage.count; k++)
            failures += faccessat(stage.inputs[k].fd, k ? "liba-1.rmeta" : "src/lib.rs", R_OK, 0) != 0;
        kiln_stage_release(&stage);
    }
    return (void *)failures;
}

static void slots_stage_at_once(void **state) {
    struct world *world = *state;
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, stage_often, world), 0);
    for (size_t i = 0; i < 4; i++) {
        void *failures;
        pthread_join(threads[i], &failures);
        assert_null(failures);
    }
    assert_int_equal(entries_in(world->scratch, "executor/trees"), 1);
    assert_int_equal(entries_in(world->scratch, "executor/jobs"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest all[] = {
        TEST(stages_packs_and_lists),
        TEST(keeps_packages_between_processes),
        TEST(mends_what_was_tampered_with),
        TEST(refuses_changed_content),
        TEST(refuses_absent_content),
        TEST(refuses_lists_with_directories),
        TEST(clears_what_a_killed_one_left),
        TEST(slots_stage_at_once),
    };
    return cmocka_run_group_tests(all, NULL, NULL);
}
