// A real rustc for tests of the sandbox, where whoever runs them can reach it.
#pragma once

#include "tests/integration/sandbox_rig.h"

#include "lib/base/proc.h"

#define COMPILE_MS 60000

static char sysroot[KILN_PATH_MAX + 1]; // set by find_sysroot

// Runs a shell line of the test's own; true when it exits with 0. What it prints goes to *out.
static inline bool shell(const char *line, struct kiln_buf *out) {
    char *const argv[] = {(char *)"sh", (char *)"-c", (char *)line, NULL};
    const struct kiln_proc_options options = {.program = "/bin/sh", .argv = argv, .envp = environ};
    kiln_autobuf struct kiln_buf errout = KILN_BUF_INIT(1u << 16);
    int status;
    return kiln_proc_run(&options, kiln_clock_ms() + COMPILE_MS, out, &errout, &status, NULL) == 0 && status == 0;
}

// As root, a hard-linked copy in `dir`, since the toolchain may lie below a home that only root can enter.
static inline bool find_sysroot(const char *dir) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(KILN_PATH_MAX);
    if (!shell("rustc --print sysroot", &out))
        return false;
    snprintf(sysroot, sizeof sysroot, "%.*s", (int)strcspn(kiln_buf_text(&out), "\n"), kiln_buf_text(&out));
    if (geteuid() != 0)
        return true;
    kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(16384);
    kiln_buf_addf(&line, "cd '%s' && mkdir -p '%s/sysroot' && for d in bin lib; do cp -rl $d '%s/sysroot/' 2>/dev/null || "
                         "cp -r $d '%s/sysroot/' || exit 1; done", sysroot, dir, dir, dir);
    kiln_buf_reset(&out);
    snprintf(sysroot, sizeof sysroot, "%s/sysroot", dir);
    return shell(kiln_buf_text(&line), &out);
}

// For main: the tests with a sysroot, as root and as an ordinary user.
static inline int rig_both_with_sysroot(int (*tests)(void)) {
    char dir[] = "/tmp/kiln-sandbox-XXXXXX";
    if (!mkdtemp(dir) || chmod(dir, 0755))
        return 1;
    int failed = 77;
    if (find_sysroot(dir))
        failed = rig_both(tests);
    else
        fprintf(stderr, "skipped: rustc is not in PATH\n");
    kiln_fs_remove_tree(AT_FDCWD, dir, NULL);
    return failed;
}
