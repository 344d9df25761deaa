// Directories listed, also by the walkers of libc, whose own opens are not seen.
#include <dirent.h>
#include <fcntl.h>
#include <fts.h>
#include <ftw.h>
#include <glob.h>
#include <string.h>

#include "consumer/preload/observer.h"

OBSERVED DIR *opendir(const char *path) {
    DIR *dir = REAL(opendir)(path);
    kiln_note_path(KILN_OBSERVE_LIST, CALLER, AT_FDCWD, path, dir ? 0 : -1);
    return dir;
}

OBSERVED DIR *fdopendir(int fd) {
    DIR *dir = REAL(fdopendir)(fd);
    kiln_note_listed(CALLER, fd, dir ? 0 : -1);
    return dir;
}

OBSERVED ssize_t getdents64(int fd, void *buffer, size_t length) {
    ssize_t rc = REAL(getdents64)(fd, buffer, length);
    kiln_note_listed(CALLER, fd, rc);
    return rc;
}

#define OBSERVE_SCANDIR(name, type)                                                                                    \
    OBSERVED int name(const char *restrict path, struct type ***restrict list, int (*keep)(const struct type *),       \
                      int (*order)(const struct type **, const struct type **)) {                                      \
        int rc = REAL(name)(path, list, keep, order);                                                                  \
        kiln_note_path(KILN_OBSERVE_LIST, CALLER, AT_FDCWD, path, rc);                                                 \
        return rc;                                                                                                     \
    }
OBSERVE_SCANDIR(scandir, dirent)
OBSERVE_SCANDIR(scandir64, dirent64)

#define OBSERVE_SCANDIRAT(name, type)                                                                                  \
    OBSERVED int name(int dirfd, const char *restrict path, struct type ***restrict list,                              \
                      int (*keep)(const struct type *), int (*order)(const struct type **, const struct type **)) {    \
        int rc = REAL(name)(dirfd, path, list, keep, order);                                                           \
        kiln_note_path(KILN_OBSERVE_LIST, CALLER, dirfd, path, rc);                                                    \
        return rc;                                                                                                     \
    }
OBSERVE_SCANDIRAT(scandirat, dirent)
OBSERVE_SCANDIRAT(scandirat64, dirent64)

#define OBSERVE_FTW(name, function)                                                                                    \
    OBSERVED int name(const char *path, function visit, int depth) {                                                   \
        int rc = REAL(name)(path, visit, depth);                                                                       \
        kiln_note_path(KILN_OBSERVE_LIST, CALLER, AT_FDCWD, path, rc);                                                 \
        return rc;                                                                                                     \
    }
OBSERVE_FTW(ftw, __ftw_func_t)
OBSERVE_FTW(ftw64, __ftw64_func_t)

#define OBSERVE_NFTW(name, function)                                                                                   \
    OBSERVED int name(const char *path, function visit, int depth, int flags) {                                        \
        int rc = REAL(name)(path, visit, depth, flags);                                                                \
        kiln_note_path(KILN_OBSERVE_LIST, CALLER, AT_FDCWD, path, rc);                                                 \
        return rc;                                                                                                     \
    }
OBSERVE_NFTW(nftw, __nftw_func_t)
OBSERVE_NFTW(nftw64, __nftw64_func_t)

static void note_roots(const void *caller, char *const *paths, bool opened) {
    for (; paths && *paths; paths++)
        kiln_note_path(KILN_OBSERVE_LIST, caller, AT_FDCWD, *paths, opened ? 0 : -1);
}

OBSERVED FTS *fts_open(char *const *paths, int options, int (*order)(const FTSENT **, const FTSENT **)) {
    FTS *walk = REAL(fts_open)(paths, options, order);
    note_roots(CALLER, paths, walk);
    return walk;
}

OBSERVED FTS64 *fts64_open(char *const *paths, int options, int (*order)(const FTSENT64 **, const FTSENT64 **)) {
    FTS64 *walk = REAL(fts64_open)(paths, options, order);
    note_roots(CALLER, paths, walk);
    return walk;
}

// The directory above the first component that has a wildcard.
static void note_pattern(const void *caller, const char *pattern, long rc) {
    char dir[4096] = ".";
    size_t fixed = pattern ? strcspn(pattern, "*?[{~") : 0;
    while (fixed && pattern[fixed - 1] != '/')
        fixed--;
    if (fixed && fixed < sizeof dir) {
        memcpy(dir, pattern, fixed);
        dir[fixed > 1 ? fixed - 1 : 1] = 0;
    }
    kiln_note_path(KILN_OBSERVE_LIST, caller, AT_FDCWD, dir, rc);
}

OBSERVED int glob(const char *restrict pattern, int flags, int (*failed)(const char *, int), glob_t *restrict out) {
    int rc = REAL(glob)(pattern, flags, failed, out);
    note_pattern(CALLER, pattern, 0);
    return rc;
}

OBSERVED int glob64(const char *restrict pattern, int flags, int (*failed)(const char *, int),
                    glob64_t *restrict out) {
    int rc = REAL(glob64)(pattern, flags, failed, out);
    note_pattern(CALLER, pattern, 0);
    return rc;
}
