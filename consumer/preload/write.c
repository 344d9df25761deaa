// What changes the file system. Recorded for macros only: a tool's writes are the job's outputs.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include <utime.h>

#include "consumer/preload/observer.h"

// Of these the path is the first argument, or follows a directory's descriptor.
#define OBSERVE_CHANGE(name, more, ...)                                                                                \
    OBSERVED int name(const char *path __VA_OPT__(, ) __VA_ARGS__) {                                                   \
        int rc = REAL(name) more;                                                                                      \
        kiln_note_path(KILN_OBSERVE_WRITE, CALLER, AT_FDCWD, path, rc);                                                \
        return rc;                                                                                                     \
    }
#define OBSERVE_CHANGE_AT(name, more, ...)                                                                             \
    OBSERVED int name(int dirfd, const char *path __VA_OPT__(, ) __VA_ARGS__) {                                        \
        int rc = REAL(name) more;                                                                                      \
        kiln_note_path(KILN_OBSERVE_WRITE, CALLER, dirfd, path, rc);                                                   \
        return rc;                                                                                                     \
    }

OBSERVE_CHANGE(unlink, (path))
OBSERVE_CHANGE(rmdir, (path))
OBSERVE_CHANGE(remove, (path))
OBSERVE_CHANGE(mkdir, (path, mode), mode_t mode)
OBSERVE_CHANGE(mkfifo, (path, mode), mode_t mode)
OBSERVE_CHANGE(mknod, (path, mode, device), mode_t mode, dev_t device)
OBSERVE_CHANGE(chmod, (path, mode), mode_t mode)
OBSERVE_CHANGE(chown, (path, owner, group), uid_t owner, gid_t group)
OBSERVE_CHANGE(lchown, (path, owner, group), uid_t owner, gid_t group)
OBSERVE_CHANGE(truncate, (path, length), off_t length)
OBSERVE_CHANGE(truncate64, (path, length), off64_t length)
OBSERVE_CHANGE(utime, (path, times), const struct utimbuf *times)
OBSERVE_CHANGE(utimes, (path, times), const struct timeval times[2])
OBSERVE_CHANGE(lutimes, (path, times), const struct timeval times[2])
OBSERVE_CHANGE_AT(unlinkat, (dirfd, path, flags), int flags)
OBSERVE_CHANGE_AT(mkdirat, (dirfd, path, mode), mode_t mode)
OBSERVE_CHANGE_AT(mkfifoat, (dirfd, path, mode), mode_t mode)
OBSERVE_CHANGE_AT(mknodat, (dirfd, path, mode, device), mode_t mode, dev_t device)
OBSERVE_CHANGE_AT(fchmodat, (dirfd, path, mode, flags), mode_t mode, int flags)
OBSERVE_CHANGE_AT(fchownat, (dirfd, path, owner, group, flags), uid_t owner, gid_t group, int flags)
OBSERVE_CHANGE_AT(utimensat, (dirfd, path, times, flags), const struct timespec times[2], int flags)

static void note_pair(const void *caller, const int dirfds[2], const char *from, const char *to, long rc) {
    kiln_note_path(KILN_OBSERVE_WRITE, caller, dirfds[0], from, rc);
    kiln_note_path(KILN_OBSERVE_WRITE, caller, dirfds[1], to, rc);
}

static const int both_here[2] = {AT_FDCWD, AT_FDCWD};

OBSERVED int rename(const char *from, const char *to) {
    int rc = REAL(rename)(from, to);
    note_pair(CALLER, both_here, from, to, rc);
    return rc;
}

OBSERVED int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    int rc = REAL(renameat)(from_dir, from, to_dir, to);
    note_pair(CALLER, (int[]){from_dir, to_dir}, from, to, rc);
    return rc;
}

OBSERVED int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    int rc = REAL(renameat2)(from_dir, from, to_dir, to, flags);
    note_pair(CALLER, (int[]){from_dir, to_dir}, from, to, rc);
    return rc;
}

OBSERVED int link(const char *from, const char *to) {
    int rc = REAL(link)(from, to);
    kiln_note_path(KILN_OBSERVE_STAT, CALLER, AT_FDCWD, from, rc);
    kiln_note_path(KILN_OBSERVE_WRITE, CALLER, AT_FDCWD, to, rc);
    return rc;
}

OBSERVED int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    int rc = REAL(linkat)(from_dir, from, to_dir, to, flags);
    kiln_note_path(KILN_OBSERVE_STAT, CALLER, from_dir, from, rc);
    kiln_note_path(KILN_OBSERVE_WRITE, CALLER, to_dir, to, rc);
    return rc;
}

OBSERVED int symlink(const char *target, const char *path) {
    int rc = REAL(symlink)(target, path);
    kiln_note_path(KILN_OBSERVE_WRITE, CALLER, AT_FDCWD, path, rc);
    return rc;
}

OBSERVED int symlinkat(const char *target, int dirfd, const char *path) {
    int rc = REAL(symlinkat)(target, dirfd, path);
    kiln_note_path(KILN_OBSERVE_WRITE, CALLER, dirfd, path, rc);
    return rc;
}

// After the call the template holds the name that was made.
OBSERVE_CHANGE(shm_open, (path, flags, mode), int flags, mode_t mode)
OBSERVE_CHANGE(shm_unlink, (path))

#define OBSERVE_TEMPORARY(name, more, ...)                                                                             \
    OBSERVED int name(char *path __VA_OPT__(, ) __VA_ARGS__) {                                                         \
        int rc = REAL(name) more;                                                                                      \
        kiln_note_path(KILN_OBSERVE_WRITE, CALLER, AT_FDCWD, path, rc);                                                \
        return rc;                                                                                                     \
    }
OBSERVE_TEMPORARY(mkstemp, (path))
OBSERVE_TEMPORARY(mkstemp64, (path))
OBSERVE_TEMPORARY(mkostemp, (path, flags), int flags)
OBSERVE_TEMPORARY(mkostemp64, (path, flags), int flags)
OBSERVE_TEMPORARY(mkstemps, (path, suffix), int suffix)
OBSERVE_TEMPORARY(mkstemps64, (path, suffix), int suffix)
OBSERVE_TEMPORARY(mkostemps, (path, suffix, flags), int suffix, int flags)
OBSERVE_TEMPORARY(mkostemps64, (path, suffix, flags), int suffix, int flags)

OBSERVED char *mkdtemp(char *path) {
    char *made = REAL(mkdtemp)(path);
    kiln_note_path(KILN_OBSERVE_WRITE, CALLER, AT_FDCWD, path, made ? 0 : -1);
    return made;
}
