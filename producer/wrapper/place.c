#include "producer/wrapper/place.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

#define NAME_ATTEMPTS 16

struct staged {
    const char *name; // borrowed from the order
    int fd;           // -1: not there yet
    char temp[32];    // "": anonymous
};

struct placing {
    int dirfd;
    struct staged *files;
    size_t count;
    sigset_t before; // the signals that were blocked
    struct sigaction too_large_before;
    bool guarded;
};

static int name_beneath(const char *out_dir, const char *path, const char **name, struct kiln_err *err) {
    size_t len = strlen(out_dir);
    while (len && out_dir[len - 1] == '/')
        len--;
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    size_t dir_len = slash ? (size_t)(slash - path) : 0;
    while (dir_len > len && path[dir_len - 1] == '/')
        dir_len--;
    if (!slash || dir_len != len || strncmp(path, out_dir, len) != 0 || kiln_path_check_relative(base, NULL))
        return kiln_fail(err, KILN_E_DENIED, "%s is no file in the output directory %s", path, out_dir);
    *name = base;
    return 0;
}

static int check_source(int fd, const struct kiln_place_file *file, struct kiln_err *err) {
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return kiln_fail(err, KILN_E_CORRUPT, "what came for %s is not a regular file", file->path);
    if ((uint64_t)st.st_size != file->size)
        return kiln_fail(err, KILN_E_CORRUPT, "what came for %s has %lld bytes, not %llu", file->path,
                         (long long)st.st_size, (unsigned long long)file->size);
    return 0;
}

static const int held_signals[] = {SIGINT, SIGTERM, SIGHUP};
#define HELD_COUNT (sizeof held_signals / sizeof *held_signals)

// A file that outgrows the process's limit is an error to handle (EFBIG), not the end of the process.
static void guard_signals(struct placing *placing) {
    sigset_t held;
    sigemptyset(&held);
    for (size_t i = 0; i < HELD_COUNT; i++)
        sigaddset(&held, held_signals[i]);
    sigprocmask(SIG_BLOCK, &held, &placing->before);
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGXFSZ, &ignore, &placing->too_large_before);
    placing->guarded = true;
}

static void unguard_signals(struct placing *placing) {
    if (!placing->guarded)
        return;
    sigaction(SIGXFSZ, &placing->too_large_before, NULL);
    sigprocmask(SIG_SETMASK, &placing->before, NULL);
}

// A signal that would end the process waits to do so.
static bool must_stop(const struct placing *placing) {
    sigset_t pending;
    if (sigpending(&pending) < 0)
        return false;
    for (size_t i = 0; i < HELD_COUNT; i++) {
        struct sigaction action;
        if (sigismember(&pending, held_signals[i]) == 1 && sigismember(&placing->before, held_signals[i]) == 0 &&
            sigaction(held_signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            return true;
    }
    return false;
}

// Removes what has not got its name. The signals come last: they may end the process.
static void end_placing(struct placing *placing) {
    for (size_t i = 0; i < placing->count; i++) {
        if (placing->files[i].temp[0])
            unlinkat(placing->dirfd, placing->files[i].temp, 0);
        if (placing->files[i].fd >= 0)
            close(placing->files[i].fd);
    }
    free(placing->files);
    if (placing->dirfd >= 0)
        close(placing->dirfd);
    unguard_signals(placing);
}

static int random_name(char *name, size_t size, struct kiln_err *err) {
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return kiln_fail_errno(err, KILN_E_IO, "no random bytes");
    snprintf(name, size, ".kiln-%016llx", (unsigned long long)random);
    return 0;
}

static int open_named(int dirfd, mode_t mode, struct staged *file, struct kiln_err *err) {
    for (int attempt = 0; attempt < NAME_ATTEMPTS; attempt++) {
        char name[sizeof file->temp];
        int rc = random_name(name, sizeof name, err);
        if (rc)
            return rc;
        file->fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        if (file->fd >= 0) {
            memcpy(file->temp, name, sizeof name);
            return 0;
        }
        if (errno != EEXIST)
            break;
    }
    return kiln_fail_errno(err, KILN_E_IO, "cannot create a file for %s", file->name);
}

// The umask applies at creation, as it does for rustc's own files.
static int open_staged(int dirfd, mode_t mode, struct staged *file, struct kiln_err *err) {
    if (access("/proc/self/fd", X_OK) == 0) {
        file->fd = openat(dirfd, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, mode);
        if (file->fd >= 0)
            return 0;
    }
    return open_named(dirfd, mode, file, err);
}

static int stage(int dirfd, const struct kiln_place_file *order, int source, struct staged *file,
                 struct kiln_err *err) {
    int rc = open_staged(dirfd, order->executable ? 0755 : 0644, file, err);
    if (rc)
        return rc;
    if (lseek(source, 0, SEEK_SET) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot rewind what came for %s", order->path);
    uint64_t copied;
    rc = kiln_fs_copy_fd(source, file->fd, order->size, &copied, err);
    if (rc)
        return kiln_wrap(err, rc, "writing %s", order->path);
    if (copied != order->size)
        return kiln_fail(err, KILN_E_CORRUPT, "what came for %s ended early", order->path);
    return 0;
}

static int link_staged(int dirfd, const struct staged *file, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file->fd);
    return linkat(AT_FDCWD, path, dirfd, name, AT_SYMLINK_FOLLOW);
}

// Gives the file its name: at once when the name is free, else over a temporary one, for only rename replaces.
static int publish(int dirfd, struct staged *file, struct kiln_placed_file *identity, struct kiln_err *err) {
    if (!file->temp[0] && link_staged(dirfd, file, file->name) < 0) {
        char temp[sizeof file->temp];
        int rc = errno == EEXIST ? random_name(temp, sizeof temp, err)
                                 : kiln_fail_errno(err, KILN_E_IO, "cannot link %s", file->name);
        if (rc)
            return rc;
        if (link_staged(dirfd, file, temp) < 0)
            return kiln_fail_errno(err, KILN_E_IO, "cannot link %s", temp);
        memcpy(file->temp, temp, sizeof temp);
    }
    if (file->temp[0] && renameat(dirfd, file->temp, dirfd, file->name) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot rename to %s", file->name);
    file->temp[0] = 0;
    struct stat st;
    if (fstat(file->fd, &st) < 0) // after the rename, which changes ctime
        return kiln_fail_errno(err, KILN_E_IO, "%s", file->name);
    *identity = (struct kiln_placed_file){
        .dev = st.st_dev,
        .ino = st.st_ino,
        .size = (uint64_t)st.st_size,
        .mtime_ns = st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec,
        .ctime_ns = st.st_ctim.tv_sec * 1000000000LL + st.st_ctim.tv_nsec,
    };
    return 0;
}

static int open_out_dir(const char *out_dir, int *dirfd, struct kiln_err *err) {
    const char *path = *out_dir ? out_dir : ".";
    *dirfd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*dirfd < 0 && errno == ENOENT) {
        int rc = kiln_fs_make_dirs(AT_FDCWD, path, 0777, err);
        if (rc)
            return rc;
        *dirfd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    return *dirfd < 0 ? kiln_fail_errno(err, KILN_E_IO, "cannot open the output directory %s", path) : 0;
}

static int check_order(const char *out_dir, const struct kiln_place_order *order, const int *fds,
                       struct placing *placing, struct kiln_err *err) {
    placing->files = calloc(order->files_count + 1, sizeof *placing->files);
    if (!placing->files)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to place %zu files", order->files_count);
    for (size_t i = 0; i < order->files_count; i++) {
        placing->files[i].fd = -1;
        placing->count = i + 1;
        int rc = name_beneath(out_dir, order->files[i].path, &placing->files[i].name, err);
        if (rc == 0)
            rc = check_source(fds[i], &order->files[i], err);
        if (rc)
            return rc;
    }
    return 0;
}

int kiln_place_files(const char *out_dir, const struct kiln_place_order *order, const int *fds, size_t fds_count,
                     struct kiln_placed_file *identities, struct kiln_err *err) {
    if (fds_count != order->files_count)
        return kiln_fail(err, KILN_E_CORRUPT, "%zu files came with %zu descriptors", order->files_count, fds_count);
    kiln_auto(end_placing) struct placing placing = {.dirfd = -1};
    int rc = check_order(out_dir, order, fds, &placing, err);
    if (rc == 0)
        rc = open_out_dir(out_dir, &placing.dirfd, err);
    if (rc)
        return rc;
    guard_signals(&placing);
    for (size_t i = 0; rc == 0 && i < placing.count; i++)
        rc = must_stop(&placing) ? kiln_fail(err, KILN_E_CLOSED, "ended by a signal")
                                 : stage(placing.dirfd, &order->files[i], fds[i], &placing.files[i], err);
    for (size_t i = 0; rc == 0 && i < placing.count; i++)
        rc = publish(placing.dirfd, &placing.files[i], &identities[i], err);
    return rc;
}
