// Files opened. The flags say whether that is reading, listing or writing.
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "consumer/preload/observer.h"

// Entry points that the headers do not declare: the fortified forms and libc's own names.
OBSERVED int __open(const char *path, int flags, ...);
OBSERVED int __open64(const char *path, int flags, ...);
OBSERVED int __open_2(const char *path, int flags);
OBSERVED int __open64_2(const char *path, int flags);
OBSERVED int __openat_2(int dirfd, const char *path, int flags);
OBSERVED int __openat64_2(int dirfd, const char *path, int flags);

#define MODE_AFTER(flags)                                                                                              \
    ({                                                                                                                 \
        mode_t mode_ = 0;                                                                                              \
        if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) {                                                        \
            va_list args_;                                                                                             \
            va_start(args_, flags);                                                                                    \
            mode_ = va_arg(args_, mode_t);                                                                             \
            va_end(args_);                                                                                             \
        }                                                                                                              \
        mode_;                                                                                                         \
    })

#define OBSERVE_OPEN(name)                                                                                             \
    OBSERVED int name(const char *path, int flags, ...) {                                                              \
        mode_t mode = MODE_AFTER(flags);                                                                               \
        int fd = REAL(name)(path, flags, mode);                                                                        \
        kiln_note_open(CALLER, AT_FDCWD, path, flags, fd);                                                             \
        return fd;                                                                                                     \
    }
OBSERVE_OPEN(open)
OBSERVE_OPEN(open64)
OBSERVE_OPEN(__open)
OBSERVE_OPEN(__open64)

#define OBSERVE_OPENAT(name)                                                                                           \
    OBSERVED int name(int dirfd, const char *path, int flags, ...) {                                                   \
        mode_t mode = MODE_AFTER(flags);                                                                               \
        int fd = REAL(name)(dirfd, path, flags, mode);                                                                 \
        kiln_note_open(CALLER, dirfd, path, flags, fd);                                                                \
        return fd;                                                                                                     \
    }
OBSERVE_OPENAT(openat)
OBSERVE_OPENAT(openat64)

#define OBSERVE_OPEN_2(name)                                                                                           \
    OBSERVED int name(const char *path, int flags) {                                                                   \
        int fd = REAL(name)(path, flags);                                                                              \
        kiln_note_open(CALLER, AT_FDCWD, path, flags, fd);                                                             \
        return fd;                                                                                                     \
    }
OBSERVE_OPEN_2(__open_2)
OBSERVE_OPEN_2(__open64_2)

#define OBSERVE_OPENAT_2(name)                                                                                         \
    OBSERVED int name(int dirfd, const char *path, int flags) {                                                        \
        int fd = REAL(name)(dirfd, path, flags);                                                                       \
        kiln_note_open(CALLER, dirfd, path, flags, fd);                                                                \
        return fd;                                                                                                     \
    }
OBSERVE_OPENAT_2(__openat_2)
OBSERVE_OPENAT_2(__openat64_2)

#define OBSERVE_CREAT(name)                                                                                            \
    OBSERVED int name(const char *path, mode_t mode) {                                                                 \
        int fd = REAL(name)(path, mode);                                                                               \
        kiln_note_path(KILN_OBSERVE_WRITE, CALLER, AT_FDCWD, path, fd);                                                \
        return fd;                                                                                                     \
    }
OBSERVE_CREAT(creat)
OBSERVE_CREAT(creat64)

static int stream_flags(const char *mode) {
    if (!mode || !*mode)
        return O_RDONLY;
    int access = strchr(mode, '+') ? O_RDWR : *mode == 'r' ? O_RDONLY : O_WRONLY;
    return *mode == 'r' ? access : access | O_CREAT;
}

#define OBSERVE_FOPEN(name)                                                                                            \
    OBSERVED FILE *name(const char *restrict path, const char *restrict mode) {                                        \
        FILE *stream = REAL(name)(path, mode);                                                                         \
        kiln_note_open(CALLER, AT_FDCWD, path, stream_flags(mode), stream ? 0 : -1);                                   \
        return stream;                                                                                                 \
    }
OBSERVE_FOPEN(fopen)
OBSERVE_FOPEN(fopen64)

#define OBSERVE_FREOPEN(name)                                                                                          \
    OBSERVED FILE *name(const char *restrict path, const char *restrict mode, FILE *restrict old) {                    \
        FILE *stream = REAL(name)(path, mode, old);                                                                    \
        kiln_note_open(CALLER, AT_FDCWD, path, stream_flags(mode), stream ? 0 : -1);                                   \
        return stream;                                                                                                 \
    }
OBSERVE_FREOPEN(freopen)
OBSERVE_FREOPEN(freopen64)
