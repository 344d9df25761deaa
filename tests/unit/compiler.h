// The rustc of this machine ($RUSTC, or the one in PATH), run in the current directory.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

extern char **environ;

static inline const char *compiler(void) {
    const char *rustc = getenv("RUSTC");
    return rustc ? rustc : "rustc";
}

// The exit code, or -1. What was written to stderr is in *text (heap, NUL behind).
static inline int run_compiler(const char *const *argv, char **text) {
    kiln_autofd int fd = memfd_create("stderr", MFD_CLOEXEC);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, fd, 2);
    pid_t pid;
    int status = -1;
    int rc = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (rc || waitpid(pid, &status, 0) != pid)
        return -1;
    off_t len = lseek(fd, 0, SEEK_END);
    *text = calloc(1, (size_t)len + 1);
    return *text && pread(fd, *text, (size_t)len, 0) == len && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline int has_compiler(void) {
    kiln_autofree char *text = NULL;
    return run_compiler((const char *[]){compiler(), "-vV", NULL}, &text) == 0;
}
