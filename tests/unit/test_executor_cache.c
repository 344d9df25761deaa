// What an executor of a fleet keeps on its disk: bounded, checked again after a restart, and never taken from a running job.
#include "tests/unit/scratch.h"

#include <dirent.h>

#include "consumer/executor/libraries.h"
#include "consumer/executor/trees.h"
#include "lib/base/cleanup.h"

#define SCOPE "public"
#define SIZE 1000u

struct world {
    struct scratch *scratch;
    struct kiln_store *verifier, *store;
    int job; // a job's directory
};

static int setup(void **state) {
    struct world *world = calloc(1, sizeof *world);
    void *scratch;
    scratch_setup(&scratch);
    world->scratch = scratch;
    const char *path = scratch_path(world->scratch, "store");
    assert_int_equal(kiln_store_open_dir(path, KILN_ROLE_VERIFIER, &world->verifier, NULL), 0);
    assert_int_equal(kiln_store_open_dir(path, KILN_ROLE_EXECUTOR, &world->store, NULL), 0);
    assert_int_equal(mkdirat(world->scratch->fd, "own", 0755), 0);
    assert_int_equal(mkdirat(world->scratch->fd, "job", 0755), 0);
    world->job = openat(world->scratch->fd, "job", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = world;
    return 0;
}

static int teardown(void **state) {
    struct world *world = *state;
    kiln_store_close(world->store);
    kiln_store_close(world->verifier);
    close(world->job);
    void *scratch = world->scratch;
    free(world);
    return scratch_teardown(&scratch);
}

static struct kiln_libraries *open_libraries(const struct world *world, uint64_t kept_bytes) {
    struct kiln_libraries *libraries;
    assert_int_equal(kiln_libraries_open(scratch_path(world->scratch, "own"), world->store, kept_bytes, &libraries, NULL), 0);
    return libraries;
}

// A library of SIZE bytes that no other number has.
static struct kiln_digest make_library(unsigned number, char bytes[SIZE]) {
    struct kiln_digest digest;
    memset(bytes, 'a' + (int)number, SIZE);
    kiln_digest_of(bytes, SIZE, &digest);
    return digest;
}

static struct kiln_digest add_library(const struct world *world, struct kiln_libraries *libraries, unsigned number) {
    char bytes[SIZE];
    struct kiln_digest digest = make_library(number, bytes);
    scratch_write(world->scratch, "fetched", bytes, SIZE);
    kiln_autofd int fd = openat(world->scratch->fd, "fetched", O_RDONLY | O_CLOEXEC);
    assert_int_equal(kiln_libraries_add(libraries, fd, &digest, SIZE, NULL), 0);
    return digest;
}

static unsigned entries_in(const struct scratch *scratch, const char *name) {
    unsigned count = 0;
    DIR *dir = opendir(scratch_path(scratch, name));
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void libraries_stay_within_their_bound(void **state) {
    struct world *world = *state;
    struct kiln_libraries *libraries = open_libraries(world, 4 * SIZE);
    struct kiln_digest used = add_library(world, libraries, 0);
    assert_int_equal(kiln_libraries_link(libraries, SCOPE, &used, SIZE, world->job, "liba.rlib", NULL), 0);
    for (unsigned number = 1; number < 20; number++) {
        add_library(world, libraries, number);
        assert_in_range(entries_in(world->scratch, "own/blobs"), 1, 4);
    }
    assert_true(kiln_libraries_has(libraries, &used, SIZE)); // a job has it: removing it would free nothing
    kiln_libraries_close(libraries);
}

static void libraries_are_hashed_again_after_a_restart(void **state) {
    struct world *world = *state;
    struct kiln_libraries *libraries = open_libraries(world, 100 * SIZE);
    struct kiln_digest good = add_library(world, libraries, 1), bad = add_library(world, libraries, 2);
    kiln_libraries_close(libraries);
    char hex[KILN_DIGEST_HEX_LEN + 1], path[100];
    kiln_digest_format(&bad, hex);
    snprintf(path, sizeof path, "own/blobs/%s", hex);
    assert_int_equal(unlinkat(world->scratch->fd, path, 0), 0);
    scratch_write(world->scratch, path, "somebody else's bytes", 21);
    libraries = open_libraries(world, 100 * SIZE);
    assert_true(kiln_libraries_has(libraries, &good, SIZE));
    assert_false(kiln_libraries_has(libraries, &bad, SIZE));
    assert_int_equal(kiln_libraries_link(libraries, SCOPE, &bad, SIZE, world->job, "b", NULL), KILN_E_NOTFOUND); // nor in the store
    assert_int_equal(entries_in(world->scratch, "own/blobs"), 1);
    kiln_libraries_close(libraries);
}

static void other_bytes_are_not_taken_in(void **state) {
    struct world *world = *state;
    struct kiln_libraries *libraries = open_libraries(world, 100 * SIZE);
    char bytes[SIZE];
    struct kiln_digest digest = make_library(3, bytes);
    bytes[SIZE / 2] ^= 1;
    scratch_write(world->scratch, "fetched", bytes, SIZE);
    kiln_autofd int fd = openat(world->scratch->fd, "fetched", O_RDONLY | O_CLOEXEC);
    assert_int_equal(kiln_libraries_add(libraries, fd, &digest, SIZE, NULL), KILN_E_CORRUPT);
    assert_false(kiln_libraries_has(libraries, &digest, SIZE));
    assert_int_equal(entries_in(world->scratch, "own/blobs"), 0);
    kiln_libraries_close(libraries);
}

static struct kiln_digest make_pack(const struct world *world, unsigned number, int *pack) {
    char bytes[SIZE], dir[32];
    struct kiln_digest content = make_library(number, bytes), digest;
    kiln_autotree struct kiln_tree tree = {0};
    snprintf(dir, sizeof dir, "package-%u", number);
    assert_int_equal(mkdirat(world->scratch->fd, dir, 0755), 0);
    kiln_autofd int root = openat(world->scratch->fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(kiln_fs_write_file(root, "lib.rs", bytes, SIZE, 0644, NULL), 0);
    assert_int_equal(kiln_tree_add_file(&tree, "lib.rs", false, SIZE, &content, NULL), 0);
    assert_int_equal(kiln_tree_finish(&tree, NULL), 0);
    assert_int_equal(kiln_tree_digest(&tree, &digest, NULL), 0);
    *pack = openat(world->scratch->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(kiln_pack_write(&tree, root, *pack, NULL), 0);
    return digest;
}

static struct kiln_digest add_tree(const struct world *world, struct kiln_trees *trees, unsigned number) {
    kiln_autofd int pack = -1;
    struct kiln_digest digest = make_pack(world, number, &pack);
    assert_int_equal(kiln_trees_add(trees, pack, &digest, NULL), 0);
    return digest;
}

static void make_oldest(const struct world *world, const struct kiln_digest *tree) {
    const struct timespec long_ago[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    char hex[KILN_DIGEST_HEX_LEN + 1], path[100];
    kiln_digest_format(tree, hex);
    snprintf(path, sizeof path, "own/trees/%s", hex);
    assert_int_equal(utimensat(world->scratch->fd, path, long_ago, 0), 0);
}

static void trees_stay_within_their_bound_and_with_their_jobs(void **state) {
    struct world *world = *state;
    struct kiln_trees *trees;
    assert_int_equal(kiln_trees_open(scratch_path(world->scratch, "own"), world->store, 4 * SIZE, &trees, NULL), 0);
    struct kiln_digest used = add_tree(world, trees, 0);
    kiln_autofd int first = -1, second = -1;
    kiln_autotree struct kiln_tree a = {0}, b = {0};
    assert_int_equal(kiln_trees_get(trees, SCOPE, &used, &first, &a, NULL), 0);
    assert_int_equal(kiln_trees_get(trees, SCOPE, &used, &second, &b, NULL), 0);
    kiln_trees_give_back(trees, &used); // one of the two jobs has ended
    make_oldest(world, &used);          // the other one runs for long
    for (unsigned number = 1; number < 12; number++) {
        add_tree(world, trees, number);
        assert_in_range(entries_in(world->scratch, "own/trees"), 1, 5);
        assert_true(kiln_trees_has(trees, &used));
        assert_int_equal(faccessat(first, "lib.rs", R_OK, 0), 0);
    }
    kiln_trees_give_back(trees, &used);
    for (unsigned number = 12; number < 20; number++)
        add_tree(world, trees, number);
    assert_false(kiln_trees_has(trees, &used));
    kiln_trees_close(trees);
}

static void another_package_s_bytes_are_not_unpacked(void **state) {
    struct world *world = *state;
    struct kiln_trees *trees;
    assert_int_equal(kiln_trees_open(scratch_path(world->scratch, "own"), world->store, 4 * SIZE, &trees, NULL), 0);
    kiln_autofd int one = -1, two = -1;
    struct kiln_digest first = make_pack(world, 1, &one);
    make_pack(world, 2, &two);
    assert_int_equal(kiln_trees_add(trees, two, &first, NULL), KILN_E_CORRUPT);
    assert_false(kiln_trees_has(trees, &first));
    assert_int_equal(entries_in(world->scratch, "own/trees"), 0);
    kiln_trees_close(trees);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(libraries_stay_within_their_bound),
        TEST(libraries_are_hashed_again_after_a_restart),
        TEST(other_bytes_are_not_taken_in),
        TEST(trees_stay_within_their_bound_and_with_their_jobs),
        TEST(another_package_s_bytes_are_not_unpacked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
