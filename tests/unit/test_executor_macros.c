// Which staged libraries hold code that the preloaded observer cannot see, and that the answer is kept by digest.
#include "consumer/executor/macros.h"
#include "lib/base/cleanup.h"
#include "tests/unit/scratch.h"

struct world {
    struct scratch *scratch;
    struct kiln_macros *macros;
    struct kiln_stage stage;
    struct kiln_stage_input input;
};

static void open_world(struct world *world, struct scratch *scratch) {
    struct kiln_err err = {0};
    *world = (struct world){.scratch = scratch};
    assert_ok(kiln_macros_open(scratch->path, &world->macros, &err));
    mkdirat(scratch->fd, "deps", 0755);
    world->input = (struct kiln_stage_input){.mount = "/deps", .fd = openat(scratch->fd, "deps", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    world->stage = (struct kiln_stage){.inputs = &world->input, .count = 1};
}

static void close_world(struct world *world) {
    kiln_macros_close(world->macros);
    kiln_tree_release(&world->input.tree);
    close(world->input.fd);
}

static void add_library(struct world *world, const char *name, const char *bytes) {
    char path[64];
    struct kiln_err err = {0};
    struct kiln_digest digest;
    snprintf(path, sizeof path, "deps/%s", name);
    scratch_write(world->scratch, path, bytes, strlen(bytes));
    kiln_digest_of(bytes, strlen(bytes), &digest);
    assert_ok(kiln_tree_add_file(&world->input.tree, name, false, strlen(bytes), &digest, &err));
}

static const char *find(const struct world *world) {
    const char *name;
    struct kiln_err err = {0};
    assert_ok(kiln_macros_find_unseen(world->macros, &world->stage, &name, &err));
    return name;
}

static void keep(const struct world *world, const char *bytes, const char *text) {
    struct kiln_digest digest;
    char hex[KILN_DIGEST_HEX_LEN + 1], path[128];
    kiln_digest_of(bytes, strlen(bytes), &digest);
    kiln_digest_format(&digest, hex);
    snprintf(path, sizeof path, "executor/macros/%s", hex);
    scratch_write(world->scratch, path, text, strlen(text));
}

static void what_is_not_understood_is_watched(void **state) {
    struct world world;
    open_world(&world, *state);
    add_library(&world, "liba.rlib", "no object, and none that is run");
    assert_null(find(&world));
    add_library(&world, "libb.so", "no object");
    assert_string_equal(find(&world), "libb.so");
    close_world(&world);
}

static void packages_are_not_run(void **state) {
    struct world world;
    struct kiln_digest package = {0};
    open_world(&world, *state);
    add_library(&world, "libb.so", "no object");
    world.input.package = &package;
    assert_null(find(&world));
    close_world(&world);
}

static void verdicts_are_kept(void **state) {
    struct world world;
    open_world(&world, *state);
    add_library(&world, "libb.so", "no object");
    keep(&world, "no object", "1 seen\n"); // as after a look into it
    assert_null(find(&world));
    keep(&world, "no object", "1 unse");   // torn: it is looked into again, and kept
    assert_string_equal(find(&world), "libb.so");
    assert_int_equal(unlinkat(world.input.fd, "libb.so", 0), 0);
    assert_string_equal(find(&world), "libb.so");
    kiln_macros_close(world.macros);
    struct kiln_err err = {0};
    assert_ok(kiln_macros_open(world.scratch->path, &world.macros, &err));
    assert_string_equal(find(&world), "libb.so");
    keep(&world, "no object", "0 seen\n"); // of another way of looking
    const char *name;
    assert_int_not_equal(kiln_macros_find_unseen(world.macros, &world.stage, &name, NULL), 0);
    close_world(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(what_is_not_understood_is_watched), scratch_test(packages_are_not_run), scratch_test(verdicts_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
