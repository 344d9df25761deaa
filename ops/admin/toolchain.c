#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/base/proc.h"
#include "lib/blob/store_s3.h"
#include "lib/blob/toolchain_store.h"
#include "lib/rustc/toolchain_part.h"
#include "ops/admin/commands.h"
#include "ops/admin/storage.h"

#define HOST "x86_64-unknown-linux-gnu"
#define ASK_TIMEOUT_MS 60000

static const struct kiln_cli_option options[] = {
    {"config", "FILE", "A kiln.conf with a storage key that may write the vault (default /etc/kiln/kiln.conf)."},
    {"sysroot", "DIR", "The toolchain (default: what `rustc --print sysroot` says here)."},
    {"target", "TRIPLE", "Another target whose standard library it has, besides the host's."},
    {"cc", "FILE", "The system's C driver that links (default /usr/bin/cc)."},
};

// What one call publishes, and where it is staged meanwhile.
struct publishing {
    struct kiln_admin_settings settings;
    struct kiln_storage storage;
    struct kiln_store *store;
    char sysroot[PATH_MAX], cc[PATH_MAX], stage[PATH_MAX];
    const char *target;
    int stage_dir;
    struct kiln_buf out;
};

static void release_publishing(struct publishing *publishing) {
    kiln_cleanup_fd(&publishing->stage_dir);
    if (*publishing->stage)
        kiln_fs_remove_tree(AT_FDCWD, publishing->stage, NULL);
    kiln_store_close(publishing->store);
    kiln_storage_close(&publishing->storage);
    kiln_admin_settings_release(&publishing->settings);
    kiln_buf_release(&publishing->out);
}

static int ask_rustc(char sysroot[PATH_MAX], struct kiln_err *err) {
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)"exec rustc --print sysroot", NULL};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(PATH_MAX), errout = KILN_BUF_INIT(65536);
    const struct kiln_proc_options ask = {.program = "/bin/sh", .argv = argv, .envp = environ, .cwd = "/"};
    int status = 0;
    int rc = kiln_proc_run(&ask, kiln_clock_ms() + ASK_TIMEOUT_MS, &out, &errout, &status, err);
    if (rc)
        return kiln_wrap(err, rc, "ask rustc for its sysroot");
    char *text = (char *)kiln_buf_text(&out);
    text[strcspn(text, "\n")] = 0;
    if (status || *text != '/')
        return kiln_fail(err, KILN_E_NOTFOUND, "rustc names no sysroot; say --sysroot");
    snprintf(sysroot, PATH_MAX, "%s", text);
    return 0;
}

static int find_toolchain(const struct kiln_cli_call *call, struct publishing *publishing, struct kiln_err *err) {
    const char *sysroot = kiln_cli_text(call, "sysroot"), *cc = kiln_cli_text(call, "cc");
    publishing->target = kiln_cli_text(call, "target");
    if (sysroot && !realpath(sysroot, publishing->sysroot))
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "%s", sysroot);
    int rc = sysroot ? 0 : ask_rustc(publishing->sysroot, err);
    if (rc == 0 && !realpath(cc ? cc : "/usr/bin/cc", publishing->cc))
        rc = kiln_fail_errno(err, KILN_E_NOTFOUND, "%s", cc ? cc : "/usr/bin/cc");
    return rc;
}

static int open_all(const struct kiln_cli_call *call, struct publishing *publishing, struct kiln_err *err) {
    struct kiln_s3_options connection;
    int rc = kiln_admin_settings_load(call, &publishing->settings, err);
    if (rc == 0)
        rc = kiln_storage_open(&publishing->settings, &publishing->storage, err);
    if (rc)
        return rc;
    kiln_storage_options(&publishing->settings, &publishing->storage, &connection);
    snprintf(publishing->stage, sizeof publishing->stage, "/var/tmp/kiln-toolchain-XXXXXX");
    if (!mkdtemp(publishing->stage)) {
        *publishing->stage = 0;
        return kiln_fail_errno(err, KILN_E_IO, "a directory in /var/tmp");
    }
    rc = kiln_fs_open_dir(publishing->stage, &publishing->stage_dir, err);
    // An operator writes the vault as a verifier does; what the key may is the server's to say.
    return rc ? rc : kiln_store_open_s3(&connection, KILN_ROLE_VERIFIER, &publishing->store, err);
}

enum part { PART_RUSTC, PART_CLIPPY, PART_RUNTIME, PART_LINK, PARTS };
static const char *const part_names[] = {"rustc", "clippy", "runtime", "link"};

static int list_part(const struct publishing *publishing, enum part part, struct kiln_part_files *files, struct kiln_err *err) {
    if (part == PART_RUNTIME)
        return kiln_part_runtime(publishing->sysroot, HOST, files, err);
    if (part == PART_LINK)
        return kiln_part_link(publishing->cc, files, err);
    return kiln_part_rustc(publishing->sysroot, HOST, publishing->target, part == PART_CLIPPY, files, err);
}

static bool is_there(const struct publishing *publishing, enum part part) {
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/bin/clippy-driver", publishing->sysroot);
    return part != PART_CLIPPY || access(path, X_OK) == 0;
}

static int publish_part(struct publishing *publishing, enum part part, struct kiln_err *err) {
    struct kiln_part_files files __attribute__((cleanup(kiln_part_files_release))) = {0};
    struct kiln_digest digest;
    char hex[KILN_DIGEST_HEX_LEN + 1];
    int rc = list_part(publishing, part, &files, err);
    if (rc == 0)
        rc = kiln_part_digest(&files, &digest, err);
    bool known = rc == 0 && kiln_toolchain_is_published(publishing->store, &digest);
    if (rc == 0 && !known)
        rc = kiln_part_stage(&files, publishing->stage, &digest, err);
    if (rc == 0 && !known)
        rc = kiln_toolchain_publish(publishing->store, publishing->stage_dir, &digest, err);
    if (rc)
        return kiln_wrap(err, rc, "part %s", part_names[part]);
    kiln_digest_format(&digest, hex);
    kiln_buf_addf(&publishing->out, "%-8s %s  %s\n", part_names[part], hex, known ? "is published already" : "published");
    return 0;
}

static int publish(const struct kiln_cli_call *call, struct publishing *publishing, struct kiln_err *err) {
    int rc = find_toolchain(call, publishing, err);
    if (rc == 0)
        rc = open_all(call, publishing, err);
    for (int part = 0; rc == 0 && part < PARTS; part++)
        if (is_there(publishing, (enum part)part))
            rc = publish_part(publishing, (enum part)part, err);
    return rc;
}

static int run(const struct kiln_cli_call *call) {
    kiln_auto(release_publishing) struct publishing publishing = {.stage_dir = -1, .out = KILN_BUF_INIT(65536)};
    struct kiln_err err = {0};
    if (publish(call, &publishing, &err))
        return kiln_admin_failed(call, &err);
    return kiln_admin_print(&publishing.out);
}

static const struct kiln_cli_command publish_command = {
    .name = "publish",
    .help = "Put a toolchain of this host into the vault, for executors to compile with.",
    .details = "Its parts are named by their content: agents on hosts with the same toolchain and C library ask for the same parts.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};

static const struct kiln_cli_command *const commands[] = {&publish_command, NULL};

const struct kiln_cli_command kiln_admin_toolchain = {
    .name = "toolchain",
    .help = "The toolchains that a fleet compiles with.",
    .commands = commands,
};
