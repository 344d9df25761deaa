// Paths asked about without being opened: attributes, access, links, canonical names, the current directory.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "consumer/preload/observer.h"

// What programs built against a libc before 2.33 import for the stat family, and the fortified forms.
OBSERVED int __xstat(int version, const char *path, struct stat *out);
OBSERVED int __xstat64(int version, const char *path, struct stat64 *out);
OBSERVED int __lxstat(int version, const char *path, struct stat *out);
OBSERVED int __lxstat64(int version, const char *path, struct stat64 *out);
OBSERVED int __fxstatat(int version, int dirfd, const char *path, struct stat *out, int flags);
OBSERVED int __fxstatat64(int version, int dirfd, const char *path, struct stat64 *out, int flags);
OBSERVED ssize_t __readlink_chk(const char *path, char *out, size_t len, size_t room);
OBSERVED ssize_t __readlinkat_chk(int dirfd, const char *path, char *out, size_t len, size_t room);
OBSERVED char *__realpath_chk(const char *path, char *out, size_t room);
OBSERVED char *__getcwd_chk(char *out, size_t len, size_t room);

#define OBSERVE_STAT(name, type)                                                                                       \
    OBSERVED int name(const char *restrict path, struct type *restrict out) {                                          \
        int rc = REAL(name)(path, out);                                                                                \
        kiln_note_path(KILN_OBSERVE_STAT, CALLER, AT_FDCWD, path, rc);                                                 \
        return rc;                                                                                                     \
    }
OBSERVE_STAT(stat, stat)
OBSERVE_STAT(stat64, stat64)
OBSERVE_STAT(lstat, stat)
OBSERVE_STAT(lstat64, stat64)
OBSERVE_STAT(statfs, statfs)
OBSERVE_STAT(statfs64, statfs64)
OBSERVE_STAT(statvfs, statvfs)
OBSERVE_STAT(statvfs64, statvfs64)

#define OBSERVE_XSTAT(name, type)                                                                                      \
    OBSERVED int name(int version, const char *path, struct type *out) {                                               \
        int rc = REAL(name)(version, path, out);                                                                       \
        kiln_note_path(KILN_OBSERVE_STAT, CALLER, AT_FDCWD, path, rc);                                                 \
        return rc;                                                                                                     \
    }
OBSERVE_XSTAT(__xstat, stat)
OBSERVE_XSTAT(__xstat64, stat64)
OBSERVE_XSTAT(__lxstat, stat)
OBSERVE_XSTAT(__lxstat64, stat64)

#define OBSERVE_FSTATAT(name, type)                                                                                    \
    OBSERVED int name(int dirfd, const char *restrict path, struct type *restrict out, int flags) {                    \
        int rc = REAL(name)(dirfd, path, out, flags);                                                                  \
        kiln_note_path(KILN_OBSERVE_STAT, CALLER, dirfd, path, rc);                                                    \
        return rc;                                                                                                     \
    }
OBSERVE_FSTATAT(fstatat, stat)
OBSERVE_FSTATAT(fstatat64, stat64)

#define OBSERVE_FXSTATAT(name, type)                                                                                   \
    OBSERVED int name(int version, int dirfd, const char *path, struct type *out, int flags) {                         \
        int rc = REAL(name)(version, dirfd, path, out, flags);                                                         \
        kiln_note_path(KILN_OBSERVE_STAT, CALLER, dirfd, path, rc);                                                    \
        return rc;                                                                                                     \
    }
OBSERVE_FXSTATAT(__fxstatat, stat)
OBSERVE_FXSTATAT(__fxstatat64, stat64)

OBSERVED int statx(int dirfd, const char *restrict path, int flags, unsigned mask, struct statx *restrict out) {
    int rc = REAL(statx)(dirfd, path, flags, mask, out);
    kiln_note_path(KILN_OBSERVE_STAT, CALLER, dirfd, path, rc);
    return rc;
}

#define OBSERVE_ACCESS(name)                                                                                           \
    OBSERVED int name(const char *path, int mode) {                                                                    \
        int rc = REAL(name)(path, mode);                                                                               \
        kiln_note_path(KILN_OBSERVE_STAT, CALLER, AT_FDCWD, path, rc);                                                 \
        return rc;                                                                                                     \
    }
OBSERVE_ACCESS(access)
OBSERVE_ACCESS(euidaccess)
OBSERVE_ACCESS(eaccess)

OBSERVED int faccessat(int dirfd, const char *path, int mode, int flags) {
    int rc = REAL(faccessat)(dirfd, path, mode, flags);
    kiln_note_path(KILN_OBSERVE_STAT, CALLER, dirfd, path, rc);
    return rc;
}

OBSERVED ssize_t readlink(const char *restrict path, char *restrict out, size_t len) {
    ssize_t rc = REAL(readlink)(path, out, len);
    kiln_note_path(KILN_OBSERVE_STAT, CALLER, AT_FDCWD, path, rc);
    return rc;
}

OBSERVED ssize_t readlinkat(int dirfd, const char *restrict path, char *restrict out, size_t len) {
    ssize_t rc = REAL(readlinkat)(dirfd, path, out, len);
    kiln_note_path(KILN_OBSERVE_STAT, CALLER, dirfd, path, rc);
    return rc;
}

OBSERVED ssize_t __readlink_chk(const char *path, char *out, size_t len, size_t room) {
    ssize_t rc = REAL(__readlink_chk)(path, out, len, room);
    kiln_note_path(KILN_OBSERVE_STAT, CALLER, AT_FDCWD, path, rc);
    return rc;
}

OBSERVED ssize_t __readlinkat_chk(int dirfd, const char *path, char *out, size_t len, size_t room) {
    ssize_t rc = REAL(__readlinkat_chk)(dirfd, path, out, len, room);
    kiln_note_path(KILN_OBSERVE_STAT, CALLER, dirfd, path, rc);
    return rc;
}

// A relative name made absolute tells the caller where it runs, as getcwd does.
static void note_canonical(const void *caller, const char *path, const char *canonical) {
    kiln_note_path(KILN_OBSERVE_STAT, caller, AT_FDCWD, path, canonical ? 0 : -1);
    if (path && canonical && path[0] != '/')
        kiln_note_text(KILN_OBSERVE_IDENTITY, caller, "getcwd");
}

OBSERVED char *realpath(const char *restrict path, char *restrict out) {
    char *canonical = REAL(realpath)(path, out);
    note_canonical(CALLER, path, canonical);
    return canonical;
}

OBSERVED char *__realpath_chk(const char *path, char *out, size_t room) {
    char *canonical = REAL(__realpath_chk)(path, out, room);
    note_canonical(CALLER, path, canonical);
    return canonical;
}

OBSERVED char *canonicalize_file_name(const char *path) {
    char *canonical = REAL(canonicalize_file_name)(path);
    note_canonical(CALLER, path, canonical);
    return canonical;
}

OBSERVED char *getcwd(char *out, size_t len) {
    kiln_note_text(KILN_OBSERVE_IDENTITY, CALLER, "getcwd");
    return REAL(getcwd)(out, len);
}

OBSERVED char *__getcwd_chk(char *out, size_t len, size_t room) {
    kiln_note_text(KILN_OBSERVE_IDENTITY, CALLER, "getcwd");
    return REAL(__getcwd_chk)(out, len, room);
}

OBSERVED char *get_current_dir_name(void) {
    kiln_note_text(KILN_OBSERVE_IDENTITY, CALLER, "getcwd");
    return REAL(get_current_dir_name)();
}

OBSERVED int chdir(const char *path) {
    int rc = REAL(chdir)(path);
    // Where it has come to: the name it went by may have been relative to where it was.
    kiln_note_path(KILN_OBSERVE_STAT, CALLER, AT_FDCWD, rc < 0 ? path : ".", rc);
    return rc;
}

#define OBSERVE_GETXATTR(name)                                                                                         \
    OBSERVED ssize_t name(const char *path, const char *attribute, void *value, size_t size) {                         \
        ssize_t rc = REAL(name)(path, attribute, value, size);                                                         \
        kiln_note_path(KILN_OBSERVE_STAT, CALLER, AT_FDCWD, path, rc);                                                 \
        return rc;                                                                                                     \
    }
OBSERVE_GETXATTR(getxattr)
OBSERVE_GETXATTR(lgetxattr)

#define OBSERVE_LISTXATTR(name)                                                                                        \
    OBSERVED ssize_t name(const char *path, char *list, size_t size) {                                                 \
        ssize_t rc = REAL(name)(path, list, size);                                                                     \
        kiln_note_path(KILN_OBSERVE_STAT, CALLER, AT_FDCWD, path, rc);                                                 \
        return rc;                                                                                                     \
    }
OBSERVE_LISTXATTR(listxattr)
OBSERVE_LISTXATTR(llistxattr)
