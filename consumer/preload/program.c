// Programs run and libraries loaded.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "consumer/preload/observer.h"

// Recorded before the call, which does not return when it succeeds.
OBSERVED int execve(const char *path, char *const argv[], char *const envp[]) {
    kiln_note_program(KILN_OBSERVE_EXEC, CALLER, path, 0);
    return REAL(execve)(path, argv, envp);
}

OBSERVED int execv(const char *path, char *const argv[]) {
    kiln_note_program(KILN_OBSERVE_EXEC, CALLER, path, 0);
    return REAL(execv)(path, argv);
}

OBSERVED int execvp(const char *file, char *const argv[]) {
    kiln_note_program(KILN_OBSERVE_EXEC, CALLER, file, 0);
    return REAL(execvp)(file, argv);
}

OBSERVED int execvpe(const char *file, char *const argv[], char *const envp[]) {
    kiln_note_program(KILN_OBSERVE_EXEC, CALLER, file, 0);
    return REAL(execvpe)(file, argv, envp);
}

OBSERVED int execveat(int dirfd, const char *path, char *const argv[], char *const envp[], int flags) {
    kiln_note_path(KILN_OBSERVE_EXEC, CALLER, dirfd, flags & AT_EMPTY_PATH ? "." : path, 0);
    return REAL(execveat)(dirfd, path, argv, envp, flags);
}

OBSERVED int fexecve(int fd, char *const argv[], char *const envp[]) {
    kiln_note_path(KILN_OBSERVE_EXEC, CALLER, fd, ".", 0);
    return REAL(fexecve)(fd, argv, envp);
}

static size_t count_arguments(va_list args) {
    size_t count = 1;
    while (va_arg(args, char *))
        count++;
    return count;
}

// The words behind `first` as an array on the caller's stack; in the child of a vfork nothing may be allocated.
#define GATHER(argv, first, args)                                                                                      \
    va_list args;                                                                                                      \
    va_start(args, first);                                                                                             \
    size_t count_ = count_arguments(args);                                                                             \
    va_end(args);                                                                                                      \
    const char **argv = __builtin_alloca((count_ + 1) * sizeof *argv);                                                 \
    argv[0] = first;                                                                                                   \
    va_start(args, first);                                                                                             \
    for (size_t i_ = 1; i_ <= count_; i_++)                                                                            \
        argv[i_] = va_arg(args, const char *)

OBSERVED int execl(const char *path, const char *first, ...) {
    GATHER(argv, first, args);
    va_end(args);
    kiln_note_program(KILN_OBSERVE_EXEC, CALLER, path, 0);
    return REAL(execv)(path, (char *const *)argv);
}

OBSERVED int execlp(const char *file, const char *first, ...) {
    GATHER(argv, first, args);
    va_end(args);
    kiln_note_program(KILN_OBSERVE_EXEC, CALLER, file, 0);
    return REAL(execvp)(file, (char *const *)argv);
}

OBSERVED int execle(const char *path, const char *first, ...) {
    GATHER(argv, first, args);
    char *const *envp = va_arg(args, char *const *);
    va_end(args);
    kiln_note_program(KILN_OBSERVE_EXEC, CALLER, path, 0);
    return REAL(execve)(path, (char *const *)argv, envp);
}

#define OBSERVE_SPAWN(name, first_type)                                                                                \
    OBSERVED int name(first_type child, const char *restrict file, const posix_spawn_file_actions_t *restrict actions, \
                      const posix_spawnattr_t *restrict attributes, char *const argv[], char *const envp[]) {          \
        kiln_note_program(KILN_OBSERVE_EXEC, CALLER, file, 0);                                                         \
        return REAL(name)(child, file, actions, attributes, argv, envp);                                               \
    }
OBSERVE_SPAWN(posix_spawn, pid_t *restrict)
OBSERVE_SPAWN(posix_spawnp, pid_t *restrict)
// Standard libraries look for these at run time: they must not appear where libc does not have them.
#if __GLIBC_PREREQ(2, 39)
OBSERVE_SPAWN(pidfd_spawn, int *restrict)
OBSERVE_SPAWN(pidfd_spawnp, int *restrict)
#endif

OBSERVED int system(const char *command) {
    kiln_note_text(KILN_OBSERVE_EXEC, CALLER, "sh");
    return REAL(system)(command);
}

OBSERVED FILE *popen(const char *command, const char *mode) {
    kiln_note_text(KILN_OBSERVE_EXEC, CALLER, "sh");
    return REAL(popen)(command, mode);
}

// Sibling calls: libc looks at its return address to search the caller's own library path, so this frame must be gone.
__attribute__((noinline)) static void note_library(const void *caller, const char *file) {
    int saved = errno;
    kiln_note_program(KILN_OBSERVE_DLOPEN, caller, file, 0);
    errno = saved;
}

OBSERVED void *dlopen(const char *file, int mode) {
    note_library(CALLER, file);
    return REAL(dlopen)(file, mode);
}

OBSERVED void *dlmopen(Lmid_t name_space, const char *file, int mode) {
    note_library(CALLER, file);
    return REAL(dlmopen)(name_space, file, mode);
}
