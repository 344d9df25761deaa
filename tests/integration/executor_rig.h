// What the executor's tests share: a state directory with a store, one package, and a small toolchain of the test's own whose
// compiler (executor_compiler.c) misbehaves as the variable DEED tells it.
#pragma once

#include "tests/integration/sandbox_rig.h"

#include <link.h>

#include "consumer/executor/job.h"
#include "lib/core/profile.h"
#include "lib/core/result.h"

#define EXECUTOR "local"
#define COMPILER rig_program("tests/executor_compiler")
#define OBSERVER rig_program("consumer/libkiln-observe.so")
#define SOURCE "pub fn answer() {}\n"

struct world {
    char path[64];
    int dir;
    struct kiln_store *verifier_store;
    struct kiln_job_context context;
    struct kiln_digest runtime, rustc, pack;
    const char *without; // walls that are taken away (tests/attack/leaky_run.c); NULL: all stand
};

static inline void join(char out[512], const char *a, const char *b) {
    assert_true(snprintf(out, 512, "%s/%s", a, b) < 512);
}

static inline void copy_file(int dir, const char *from, const char *to, mode_t mode) {
    kiln_autofd int in = open(from, O_RDONLY | O_CLOEXEC);
    kiln_autofd int out = openat(dir, to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (in < 0 || out < 0)
        fail_msg("copying %s", from);
    assert_int_equal(kiln_fs_copy_fd(in, out, 64u << 20, NULL, NULL), 0);
    assert_int_equal(fchmod(out, mode), 0);
}

struct part_file {
    const char *from, *to;
};

// Stages files as a toolchain part, as the agent does.
static inline void stage_part(struct world *world, const struct part_file *files, size_t count, struct kiln_digest *digest) {
    kiln_autotree struct kiln_tree tree = {0};
    assert_int_equal(kiln_fs_make_dirs(world->dir, "toolchains/new/root", 0755, NULL), 0);
    kiln_autofd int root = openat(world->dir, "toolchains/new/root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < count; i++) {
        kiln_autofree char *parent = kiln_path_dir(files[i].to);
        assert_int_equal(kiln_fs_make_dirs(root, parent, 0755, NULL), 0);
        copy_file(root, files[i].from, files[i].to, 0555);
        kiln_autofd int fd = openat(root, files[i].to, O_RDONLY | O_CLOEXEC);
        struct kiln_digest content;
        uint64_t size;
        assert_int_equal(kiln_digest_of_fd(fd, 64u << 20, &content, &size, NULL), 0);
        assert_int_equal(kiln_tree_add_file(&tree, files[i].to, true, size, &content, NULL), 0);
    }
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(1u << 20);
    assert_int_equal(kiln_tree_finish(&tree, NULL), 0);
    assert_int_equal(kiln_tree_encode(&tree, &encoding, NULL), 0);
    assert_int_equal(kiln_tree_digest(&tree, digest, NULL), 0);
    char hex[KILN_DIGEST_HEX_LEN + 1], place[100];
    kiln_digest_format(digest, hex);
    snprintf(place, sizeof place, "toolchains/%s", hex);
    assert_int_equal(kiln_fs_write_file(world->dir, "toolchains/new/tree", encoding.data, encoding.len, 0444, NULL), 0);
    assert_int_equal(renameat(world->dir, "toolchains/new", world->dir, place), 0);
}

static inline int note_libc(struct dl_phdr_info *info, size_t size, void *out) {
    (void)size;
    const char **paths = out;
    if (strstr(info->dlpi_name, "/libc.so."))
        paths[0] = info->dlpi_name;
    if (strstr(info->dlpi_name, "/ld-linux"))
        paths[1] = info->dlpi_name;
    return 0;
}

static inline void stage_toolchain(struct world *world) {
    const char *libs[2] = {NULL, NULL}; // as this very process has them
    dl_iterate_phdr(note_libc, libs);
    assert_true(libs[0] && libs[1]);
    const struct part_file runtime[] = {{libs[0], "usr/lib/x86_64-linux-gnu/libc.so.6"},
                                        {libs[1], "usr/lib64/ld-linux-x86-64.so.2"}};
    stage_part(world, runtime, 2, &world->runtime);
    kiln_autofree char *compiler = kiln_place(KILN_PLACE_SYSROOT, "bin/rustc");
    const struct part_file rustc[] = {{COMPILER, compiler + 1}};
    stage_part(world, rustc, 1, &world->rustc);
}

static inline void store_package(struct world *world) {
    kiln_autotree struct kiln_tree tree = {0};
    struct kiln_digest content;
    assert_int_equal(mkdirat(world->dir, "package", 0755), 0);
    kiln_autofd int package = openat(world->dir, "package", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(kiln_fs_write_file(package, "lib.rs", SOURCE, strlen(SOURCE), 0644, NULL), 0);
    kiln_digest_of(SOURCE, strlen(SOURCE), &content);
    assert_int_equal(kiln_tree_add_file(&tree, "lib.rs", false, strlen(SOURCE), &content, NULL), 0);
    assert_int_equal(kiln_tree_finish(&tree, NULL), 0);
    assert_int_equal(kiln_tree_digest(&tree, &world->pack, NULL), 0);
    kiln_autofd int pack = openat(world->dir, "pack", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(kiln_pack_write(&tree, package, pack, NULL), 0);
    kiln_autofree char *key = kiln_key_content("pack", "local", &world->pack);
    assert_int_equal(kiln_store_put_fd(world->verifier_store, KILN_SPACE_INPUTS, key, pack, 1u << 20, NULL, NULL), 0);
}

static inline int setup(void **state) {
    struct world *world = calloc(1, sizeof *world);
    strcpy(world->path, "/tmp/kiln-executor-XXXXXX");
    assert_non_null(mkdtemp(world->path)); // 0700: as below a private home
    world->dir = open(world->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char store[512];
    join(store, world->path, "store");
    assert_int_equal(kiln_store_open_dir(store, KILN_ROLE_VERIFIER, &world->verifier_store, NULL), 0);
    world->context = (struct kiln_job_context){
        .run_program = RIG_RUN, .backend = "bwrap", .observer = OBSERVER, .executor = EXECUTOR, .pool = "pool"};
    assert_int_equal(kiln_store_open_dir(store, KILN_ROLE_EXECUTOR, &world->context.store, NULL), 0);
    stage_toolchain(world);
    store_package(world);
    assert_int_equal(kiln_stages_open(world->path, world->context.store, 0, &world->context.stages, NULL), 0);
    assert_int_equal(kiln_macros_open(world->path, &world->context.macros, NULL), 0);
    assert_int_equal(kiln_toolchain_roots_new(world->path, &world->context.toolchains, NULL), 0);
    *state = world;
    return 0;
}

static inline int teardown(void **state) {
    struct world *world = *state;
    kiln_stages_close(world->context.stages);
    kiln_macros_close(world->context.macros);
    kiln_toolchain_roots_free(world->context.toolchains);
    kiln_store_close(world->context.store);
    kiln_store_close(world->verifier_store);
    close(world->dir);
    assert_int_equal(kiln_fs_remove_tree(AT_FDCWD, world->path, NULL), 0);
    free(world);
    return 0;
}

// An argument that only jobs of this process have.
static inline const char *executor_rig_mark(void) {
    static char mark[40];
    snprintf(mark, sizeof mark, "-Cmetadata=%d", getpid());
    return mark;
}

static inline void make_action(const struct world *world, const char *deed, struct kiln_action *action) {
    kiln_autofree char *compiler = kiln_place(KILN_PLACE_SYSROOT, "bin/rustc");
    kiln_autofree char *package = kiln_place(KILN_PLACE_WORKSPACE, NULL);
    kiln_autofree char *source = kiln_place(KILN_PLACE_WORKSPACE, "lib.rs");
    kiln_autofree char *target = kiln_place(KILN_PLACE_TARGET, NULL);
    kiln_autofree char *observer = kiln_place(KILN_PLACE_OBSERVER, NULL);
    kiln_autofree char *out_dir = NULL;
    assert_true(asprintf(&out_dir, "--out-dir=%s", target) > 0);
    *action = (struct kiln_action){.profile = strdup(KILN_PROFILE), .package = strdup("foo-0.1.0"),
                                   .crate_name = strdup("foo"), .cwd = strdup(package), .out_dir = strdup(target),
                                   .toolchain_runtime = world->runtime, .toolchain_rustc = world->rustc};
    const char *const args[] = {compiler, "--crate-name", "foo", "--edition=2021", source, "--crate-type", "lib",
                                "--emit=dep-info,metadata,link", executor_rig_mark(), "-Cextra-filename=-abc", out_dir};
    for (size_t i = 0; i < sizeof args / sizeof *args; i++)
        assert_int_equal(kiln_action_add_arg(action, args[i], NULL), 0);
    assert_int_equal(kiln_action_add_env(action, "DEED", deed, NULL), 0);
    assert_int_equal(kiln_action_add_env(action, "OBSERVER", observer, NULL), 0);
    if (world->without)
        assert_int_equal(kiln_action_add_env(action, "KILN_WITHOUT", world->without, NULL), 0);
    assert_int_equal(kiln_action_add_input(action, package, KILN_INPUT_PACK, &world->pack, NULL), 0);
    struct kiln_err err = {0};
    if (kiln_action_finish(action, &err))
        fail_msg("%s", err.text);
}

// One job that does `deed`.
static inline void executor_run(const struct world *world, const char *deed, struct kiln_candidate *candidate) {
    kiln_autoaction struct kiln_action action = {0};
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_ACTION_BYTES_MAX);
    make_action(world, deed, &action);
    assert_int_equal(kiln_action_encode(&action, &encoding, NULL), 0);
    struct kiln_work work = {.attempt = 1, .lease_ms = 10000, .action = encoding.data, .action_len = encoding.len,
                             .scope = (char *)"local"};
    work.job.bytes[15] = 1;
    assert_int_equal(kiln_action_digest(&action, &work.action_digest, NULL), 0);
    struct kiln_err err = {0};
    struct kiln_job_context context = world->context;
    if (world->without)
        context.run_program = rig_program("tests/leaky_run");
    if (kiln_job_run(&context, &work, candidate, &err))
        fail_msg("%s", err.text);
    assert_true(kiln_digest_equal(&candidate->action_digest, &work.action_digest));
}

static inline void explain(const struct kiln_candidate *candidate) {
    for (size_t i = 0; i < candidate->reasons_count; i++)
        fprintf(stderr, "reason: %s\n", candidate->reasons[i]);
    for (size_t i = 0; i < candidate->observations_count; i++)
        fprintf(stderr, "observed: %s\n", candidate->observations[i]);
}

static inline void assert_stored(const struct world *world, const struct kiln_candidate_output *output, const char *expected) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(&output->digest, hex);
    kiln_autofree char *key = kiln_key_quarantine_out(EXECUTOR, "00000000000000000000000000000001", 1, hex);
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(1u << 20);
    assert_int_equal(kiln_store_get_bytes(world->verifier_store, KILN_SPACE_QUARANTINE, key, &bytes, NULL), 0);
    assert_string_equal(kiln_buf_text(&bytes), expected);
    assert_int_equal(output->size, bytes.len);
}

static inline bool starts_with_any(char *const *list, size_t count, const char *prefix) {
    for (size_t i = 0; i < count; i++)
        if (!strncmp(list[i], prefix, strlen(prefix)))
            return true;
    return false;
}
