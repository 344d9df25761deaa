// One small job with everything it needs, for the tests of the verifier: a package as a pack, a list of two libraries, the
// action over them, and a store with a handle for each role, in a scratch directory.
#pragma once

#include <sys/mman.h>

#include "lib/base/cleanup.h"
#include "lib/core/action.h"
#include "lib/core/profile.h"
#include "lib/core/result.h"
#include "lib/core/tree.h"
#include "lib/rustc/paths.h"
#include "tests/unit/scratch.h"
#include "verifier/admit.h"
#include "verifier/vault.h"

#define RIG_CONTENTS 4 // pack, list, two blobs

struct rig {
    struct scratch *scratch;
    struct kiln_store *verifier, *agent, *executor;
    struct kiln_sign_key *key;
    struct kiln_trust *trust;
    struct kiln_admit admit;
    struct kiln_vault vault;
    struct kiln_tree package, list;
    struct kiln_action action;
    struct kiln_buf action_bytes, pack, list_bytes;
    struct kiln_digest action_digest;
    struct kiln_content_ref contents[RIG_CONTENTS];
};

static const char rig_source[] = "pub fn answer() -> u32 { 42 }\n";
static const char *const rig_libraries[][2] = {{"libdep-01.rmeta", "the metadata of dep"}, {"libmac-02.so", "a macro"}};
static const char *const rig_stems[] = {"libdep-01", "libmac-02"};

static inline void rig_make_package(struct rig *rig) {
    struct kiln_err err;
    struct kiln_digest digest;
    kiln_digest_of(rig_source, sizeof rig_source - 1, &digest);
    assert_int_equal(mkdirat(rig->scratch->fd, "package", 0755), 0);
    assert_int_equal(mkdirat(rig->scratch->fd, "package/src", 0755), 0);
    scratch_write_text(rig->scratch, "package/src/lib.rs", rig_source);
    assert_ok(kiln_tree_add_file(&rig->package, "src/lib.rs", false, sizeof rig_source - 1, &digest, &err));
    assert_ok(kiln_tree_finish(&rig->package, &err));
    kiln_autofd int dir = openat(rig->scratch->fd, "package", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    kiln_autofd int fd = memfd_create("pack", MFD_CLOEXEC);
    assert_ok(kiln_pack_write(&rig->package, dir, fd, &err));
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    rig->pack = KILN_BUF_INIT(1 << 20);
    assert_ok(kiln_fs_read_fd(fd, &rig->pack, &err));
    assert_ok(kiln_tree_digest(&rig->package, &digest, &err));
    rig->contents[0] = (struct kiln_content_ref){KILN_CONTENT_PACK, digest, rig->pack.len};
}

static inline void rig_make_list(struct rig *rig) {
    struct kiln_err err;
    for (size_t i = 0; i < 2; i++) {
        struct kiln_content_ref *ref = &rig->contents[2 + i];
        const char *bytes = rig_libraries[i][1];
        *ref = (struct kiln_content_ref){.kind = KILN_CONTENT_BLOB, .size = strlen(bytes)};
        kiln_digest_of(bytes, strlen(bytes), &ref->digest);
        assert_ok(kiln_tree_add_file(&rig->list, rig_libraries[i][0], false, ref->size, &ref->digest, &err));
    }
    assert_ok(kiln_tree_finish(&rig->list, &err));
    rig->list_bytes = KILN_BUF_INIT(1 << 20);
    assert_ok(kiln_tree_encode(&rig->list, &rig->list_bytes, &err));
    rig->contents[1] = (struct kiln_content_ref){.kind = KILN_CONTENT_LIST, .size = rig->list_bytes.len};
    assert_ok(kiln_tree_digest(&rig->list, &rig->contents[1].digest, &err));
}

static inline void rig_add_arg(struct rig *rig, const char *before, const char *place, const char *rest) {
    kiln_autofree char *path = place ? kiln_place(place, rest) : NULL;
    kiln_autofree char *arg = NULL;
    assert_true(asprintf(&arg, "%s%s", before, path ? path : "") >= 0);
    assert_int_equal(kiln_action_add_arg(&rig->action, arg, NULL), 0);
}

static inline void rig_make_arguments(struct rig *rig) {
    rig_add_arg(rig, "", KILN_PLACE_SYSROOT, "bin/rustc");
    static const char *const plain[] = {"--crate-name",    "demo",         "--edition=2021", "src/lib.rs", "--crate-type",
                                        "lib",             "--emit=dep-info,metadata,link",  "-C",         "metadata=ab",
                                        "-C",              "extra-filename=-0123"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        rig_add_arg(rig, plain[i], NULL, NULL);
    rig_add_arg(rig, "--out-dir=", KILN_PLACE_TARGET, NULL);
    rig_add_arg(rig, "-Ldependency=", KILN_PLACE_DEPS, NULL);
    rig_add_arg(rig, "--extern=dep=", KILN_PLACE_DEPS, "libdep-01.rmeta");
}

// Encodes the action again after a change.
static inline void rig_seal_action(struct rig *rig) {
    struct kiln_err err;
    kiln_buf_reset(&rig->action_bytes);
    assert_ok(kiln_action_finish(&rig->action, &err));
    assert_ok(kiln_action_encode(&rig->action, &rig->action_bytes, &err));
    kiln_digest_of(rig->action_bytes.data, rig->action_bytes.len, &rig->action_digest);
}

static inline void rig_make_action(struct rig *rig) {
    struct kiln_err err;
    kiln_autofree char *package = kiln_place(KILN_PLACE_REGISTRY, "demo-1.0.0");
    kiln_autofree char *deps = kiln_place(KILN_PLACE_DEPS, NULL), *out_dir = kiln_place(KILN_PLACE_OUT_DIR, NULL);
    rig->action.profile = strdup(KILN_PROFILE);
    rig->action.package = strdup("demo-1.0.0");
    rig->action.crate_name = strdup("demo");
    rig->action.cwd = strdup(package);
    rig->action.out_dir = kiln_place(KILN_PLACE_TARGET, NULL);
    rig->action.toolchain_rustc.bytes[0] = 1;
    rig_make_arguments(rig);
    assert_ok(kiln_action_add_env(&rig->action, "CARGO_PKG_NAME", "demo", &err));
    assert_ok(kiln_action_add_env(&rig->action, "CARGO_MANIFEST_DIR", package, &err));
    assert_ok(kiln_action_add_env(&rig->action, "OUT_DIR", out_dir, &err));
    assert_ok(kiln_action_add_env(&rig->action, "DEBUG", NULL, &err));
    assert_ok(kiln_action_add_input(&rig->action, package, KILN_INPUT_PACK, &rig->contents[0].digest, &err));
    assert_ok(kiln_action_add_input(&rig->action, deps, KILN_INPUT_LIST, &rig->contents[1].digest, &err));
    rig->action_bytes = KILN_BUF_INIT(KILN_ACTION_BYTES_MAX);
    rig_seal_action(rig);
}

static inline void rig_open_rooms(struct rig *rig) {
    struct kiln_err err;
    const char *store = scratch_path(rig->scratch, "store");
    assert_ok(kiln_store_open_dir(store, KILN_ROLE_VERIFIER, &rig->verifier, &err));
    assert_ok(kiln_store_open_dir(store, KILN_ROLE_AGENT, &rig->agent, &err));
    assert_ok(kiln_store_open_dir(store, KILN_ROLE_EXECUTOR, &rig->executor, &err));
    assert_int_equal(mkdirat(rig->scratch->fd, "keys", 0700), 0);
    kiln_autofd int keys = openat(rig->scratch->fd, "keys", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_ok(kiln_sign_key_load_or_make(keys, "verifier", &rig->key, &err));
    assert_ok(kiln_trust_new(&rig->trust, &err));
    assert_ok(kiln_trust_add_file(rig->trust, keys, "verifier", &err));
    rig->admit = (struct kiln_admit){.store = rig->verifier, .scope = "local", .scratch_dir = rig->scratch->fd};
    rig->vault = (struct kiln_vault){.store = rig->verifier, .key = rig->key, .open = kiln_vault_open_trusted,
                                     .context = rig->trust};
}

static inline int rig_setup(void **state) {
    struct rig *rig = calloc(1, sizeof *rig);
    scratch_setup((void **)&rig->scratch);
    rig_open_rooms(rig);
    rig_make_package(rig);
    rig_make_list(rig);
    rig_make_action(rig);
    *state = rig;
    return 0;
}

static inline int rig_teardown(void **state) {
    struct rig *rig = *state;
    kiln_store_close(rig->verifier);
    kiln_store_close(rig->agent);
    kiln_store_close(rig->executor);
    kiln_trust_free(rig->trust);
    kiln_sign_key_free(rig->key);
    kiln_tree_release(&rig->package);
    kiln_tree_release(&rig->list);
    kiln_action_release(&rig->action);
    kiln_buf_release(&rig->action_bytes);
    kiln_buf_release(&rig->pack);
    kiln_buf_release(&rig->list_bytes);
    scratch_teardown((void **)&rig->scratch);
    free(rig);
    return 0;
}

// A submission of the rig's job; owns all it holds. `number` makes its job id.
static inline void rig_submission(const struct rig *rig, unsigned char number, struct kiln_job_submitted *record) {
    *record = (struct kiln_job_submitted){
        .job = {{number}}, .tenant = strdup("local"), .agent = strdup("agent"), .submitted_ms = 1, .deadline_ms = 60000,
        .action_digest = rig->action_digest, .build_id = strdup(""), .scope = strdup("local"), .action_len = rig->action_bytes.len,
        .contents_count = RIG_CONTENTS, .closure_count = 2};
    record->action = malloc(record->action_len);
    memcpy(record->action, rig->action_bytes.data, record->action_len);
    record->contents = calloc(RIG_CONTENTS, sizeof *record->contents);
    memcpy(record->contents, rig->contents, sizeof rig->contents);
    record->closure = calloc(2, sizeof *record->closure);
    for (size_t i = 0; i < 2; i++)
        record->closure[i] = strdup(rig_stems[i]);
}

static inline void rig_put_upload(const struct rig *rig, const struct kiln_job_submitted *record,
                                  const struct kiln_content_ref *ref, const void *data, size_t len) {
    struct kiln_err err;
    char name[KILN_CONTENT_NAME_BYTES], job[33];
    for (size_t i = 0; i < 16; i++)
        snprintf(job + 2 * i, 3, "%02x", record->job.bytes[i]);
    kiln_content_name(ref, name);
    kiln_autofree char *key = kiln_key_quarantine_in(record->tenant, record->agent, job, name);
    assert_ok(kiln_store_put_bytes(rig->agent, KILN_SPACE_QUARANTINE, key, data, len, NULL, &err));
}

// Uploads content number `which` as the agent would.
static inline void rig_upload(const struct rig *rig, const struct kiln_job_submitted *record, size_t which) {
    const struct kiln_content_ref *ref = &rig->contents[which];
    if (which == 0)
        rig_put_upload(rig, record, ref, rig->pack.data, rig->pack.len);
    else if (which == 1)
        rig_put_upload(rig, record, ref, rig->list_bytes.data, rig->list_bytes.len);
    else
        rig_put_upload(rig, record, ref, rig_libraries[which - 2][1], strlen(rig_libraries[which - 2][1]));
}

static inline void rig_upload_all(const struct rig *rig, const struct kiln_job_submitted *record) {
    for (size_t i = 0; i < RIG_CONTENTS; i++)
        rig_upload(rig, record, i);
}

// Overwrites one byte of a stored object, behind the store's back.
static inline void rig_damage(const struct rig *rig, const char *space, const char *key) {
    char path[512];
    assert_true(snprintf(path, sizeof path, "store/%s/%s", space, key) < (int)sizeof path);
    assert_int_equal(fchmodat(rig->scratch->fd, path, 0600, 0), 0);
    kiln_autofd int fd = openat(rig->scratch->fd, path, O_RDWR | O_CLOEXEC);
    unsigned char byte;
    assert_int_equal(pread(fd, &byte, 1, 0), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 0), 1);
}

#define rig_test(function) cmocka_unit_test_setup_teardown(function, rig_setup, rig_teardown)
