#include "lib/base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"

#define CHUNK_BYTES ((size_t)128 << 10)
#define OPEN_RETRIES 16
#define MAKE_RETRIES 100
#define TEMP_ATTEMPTS 16
// Directories held open at a time while removing a tree; what lies deeper is first moved up to the top.
#define REMOVE_DEPTH 64
#define REMOVE_PASSES 64

static int code_of_errno(int error) {
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return KILN_E_NOTFOUND;
    case EACCES:
    case EPERM:
    case ELOOP:
    case EXDEV:
        return KILN_E_DENIED;
    case EEXIST:
        return KILN_E_EXISTS;
    default:
        return KILN_E_IO;
    }
}

static int open_resolved(int dirfd, const char *path, int flags, uint64_t resolve) {
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = resolve};
    if (flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)))
        how.mode = 0600;
    for (int tries = 0;; tries++) {
        int fd = (int)syscall(SYS_openat2, dirfd, path, &how, sizeof how);
        // EAGAIN: the kernel could not prove that a concurrent rename kept the walk beneath dirfd.
        if (fd >= 0 || (errno != EINTR && (errno != EAGAIN || tries >= OPEN_RETRIES)))
            return fd;
    }
}

int kiln_fs_open_beneath(int dirfd, const char *path, int flags, int *fd, struct kiln_err *err) {
    int opened = open_resolved(dirfd, path, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    if (opened < 0)
        return kiln_fail_errno(err, code_of_errno(errno), "cannot open %s", path);
    *fd = opened;
    return 0;
}

// Reads to the end; true in *full when the buffer's maximum was met before that.
static int read_to_end(int fd, struct kiln_buf *buf, bool *full, struct kiln_err *err) {
    for (;;) {
        unsigned char probe;
        size_t room = buf->max - buf->len;
        size_t want = room < CHUNK_BYTES ? room : CHUNK_BYTES;
        if (buf->cap > buf->len + 1 && buf->cap - buf->len - 1 > want)
            want = buf->cap - buf->len - 1 < room ? buf->cap - buf->len - 1 : room;
        if (want && kiln_buf_reserve(buf, want))
            return kiln_fail(err, KILN_E_NOMEM, "no memory to read %zu bytes", want);
        ssize_t got = want ? read(fd, buf->data + buf->len, want) : read(fd, &probe, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return kiln_fail_errno(err, KILN_E_IO, "cannot read");
        if (got == 0)
            return 0;
        if (!want) {
            *full = true;
            return 0;
        }
        buf->len += (size_t)got;
    }
}

int kiln_fs_read_fd(int fd, struct kiln_buf *buf, struct kiln_err *err) {
    size_t before = buf->len;
    bool full = false;
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && (uint64_t)st.st_size < buf->max - buf->len)
        kiln_buf_reserve(buf, (size_t)st.st_size + 1);
    int rc = read_to_end(fd, buf, &full, err);
    if (rc == 0 && full)
        rc = kiln_fail(err, KILN_E_LIMIT, "larger than %zu bytes", buf->max - before);
    if (rc)
        buf->len = before;
    return rc;
}

int kiln_fs_read_file(int dirfd, const char *path, struct kiln_buf *buf, struct kiln_err *err) {
    // O_NONBLOCK: opening a FIFO that somebody put there must not wait for its writer.
    kiln_autofd int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return kiln_fail_errno(err, code_of_errno(errno), "cannot open %s", path);
    struct stat st;
    if (fstat(fd, &st))
        return kiln_fail_errno(err, KILN_E_IO, "cannot stat %s", path);
    if (!S_ISREG(st.st_mode))
        return kiln_fail(err, KILN_E_INVAL, "%s is not a regular file", path);
    int rc = kiln_fs_read_fd(fd, buf, err);
    return rc ? kiln_wrap(err, rc, "%s", path) : 0;
}

static int check_private(int fd, const char *path, mode_t forbidden, struct kiln_err *err) {
    struct stat st;
    if (fstat(fd, &st))
        return kiln_fail_errno(err, KILN_E_IO, "cannot stat %s", path);
    if (!S_ISREG(st.st_mode))
        return kiln_fail(err, KILN_E_DENIED, "%s is no regular file", path);
    if (st.st_uid != geteuid())
        return kiln_fail(err, KILN_E_DENIED, "%s belongs to another user", path);
    if (st.st_mode & forbidden)
        return kiln_fail(err, KILN_E_DENIED, "%s has mode %03o; others must not have access to it", path, st.st_mode & 07777);
    return 0;
}

int kiln_fs_open_private(int dirfd, const char *path, mode_t forbidden, int *fd, struct kiln_err *err) {
    kiln_autofd int opened = openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (opened < 0)
        return kiln_fail_errno(err, code_of_errno(errno), "cannot open %s", path);
    int rc = check_private(opened, path, forbidden, err);
    if (!rc)
        *fd = kiln_steal_fd(&opened);
    return rc;
}

int kiln_fs_write_all(int fd, const void *data, size_t len, struct kiln_err *err) {
    const unsigned char *at = data;
    while (len) {
        ssize_t wrote = write(fd, at, len);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return kiln_fail_errno(err, KILN_E_IO, "cannot write");
        at += wrote;
        len -= (size_t)wrote;
    }
    return 0;
}

// A new file beside `path`; its name is on the heap.
static int create_temp(int dirfd, const char *path, char **temp, int *fd, struct kiln_err *err) {
    int dir_len = (int)(kiln_path_base(path) - path);
    for (int attempt = 0; attempt < TEMP_ATTEMPTS; attempt++) {
        uint64_t random;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            return kiln_fail_errno(err, KILN_E_IO, "no random bytes");
        kiln_autofree char *name = NULL;
        if (asprintf(&name, "%.*s.tmp-%016llx", dir_len, path, (unsigned long long)random) < 0) {
            name = NULL;
            return kiln_fail(err, KILN_E_NOMEM, "no memory for a file name");
        }
        int opened = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (opened >= 0) {
            *fd = opened;
            *temp = KILN_STEAL(name);
            return 0;
        }
        if (errno != EEXIST)
            return kiln_fail_errno(err, code_of_errno(errno), "cannot create %s", name);
    }
    return kiln_fail(err, KILN_E_EXISTS, "no free temporary name beside %s", path);
}

int kiln_fs_write_file(int dirfd, const char *path, const void *data, size_t len, mode_t mode, struct kiln_err *err) {
    kiln_autofree char *temp = NULL;
    kiln_autofd int fd = -1;
    int rc = create_temp(dirfd, path, &temp, &fd, err);
    if (rc)
        return rc;
    rc = kiln_fs_write_all(fd, data, len, err);
    if (rc == 0 && (fchmod(fd, mode) || fsync(fd)))
        rc = kiln_fail_errno(err, KILN_E_IO, "cannot finish %s", temp);
    if (rc == 0 && renameat(dirfd, temp, dirfd, path))
        rc = kiln_fail_errno(err, KILN_E_IO, "cannot rename %s", temp);
    if (rc) {
        unlinkat(dirfd, temp, 0);
        return kiln_wrap(err, rc, "writing %s", path);
    }
    return 0;
}

static int make_dir(int dirfd, const char *path, mode_t mode, struct kiln_err *err) {
    int error = EEXIST;
    for (int tries = 0; error == EEXIST && tries < MAKE_RETRIES; tries++) {
        struct stat st;
        if (mkdirat(dirfd, path, mode) == 0)
            return 0;
        error = errno;
        // Not only on EEXIST: a read-only or foreign ancestor that exists answers EROFS or EACCES. And what existed may
        // be gone by now.
        if (fstatat(dirfd, path, &st, 0) == 0)
            return S_ISDIR(st.st_mode) ? 0 : kiln_fail(err, KILN_E_EXISTS, "%s is there and not a directory", path);
    }
    errno = error;
    return kiln_fail_errno(err, code_of_errno(error), "cannot make directory %s", path);
}

int kiln_fs_make_file(int dirfd, const char *path, const void *data, size_t len, mode_t mode, struct kiln_err *err) {
    kiln_autofd int fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    return fd < 0 ? kiln_fail_errno(err, KILN_E_IO, "making %s", path) : kiln_fs_write_all(fd, data, len, err);
}

int kiln_fs_make_parents(int dirfd, const char *path, mode_t mode, struct kiln_err *err) {
    kiln_autofree char *parent = kiln_path_dir(path);
    if (!parent)
        return kiln_fail(err, KILN_E_NOMEM, "making the directories above %s", path);
    return strcmp(parent, ".") && strcmp(parent, "/") ? kiln_fs_make_dirs(dirfd, parent, mode, err) : 0;
}

int kiln_fs_make_dirs(int dirfd, const char *path, mode_t mode, struct kiln_err *err) {
    struct stat st;
    if (mkdirat(dirfd, path, mode) == 0)
        return 0;
    if (errno == EEXIST && fstatat(dirfd, path, &st, 0) == 0 && S_ISDIR(st.st_mode))
        return 0;
    kiln_autofree char *prefix = strdup(path);
    if (!prefix)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a path");
    for (char *at = prefix; *at;) {
        while (*at == '/')
            at++;
        char *end = strchrnul(at, '/');
        char saved = *end;
        *end = 0;
        int rc = make_dir(dirfd, prefix, mode, err);
        if (rc)
            return rc;
        *end = saved;
        at = end;
    }
    return 0;
}

struct removal {
    int top;            // the tree's own directory
    unsigned moved;     // numbers the directories moved up to it
    struct kiln_err *err;
};

// Opens a directory of the tree, making it readable, writable and searchable first when it is not.
static int open_for_removal(int dirfd, const char *name, struct kiln_err *err) {
    uint64_t resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
    kiln_autofd int path_fd = open_resolved(dirfd, name, O_PATH | O_DIRECTORY, resolve);
    struct stat st;
    if (path_fd < 0 || fstat(path_fd, &st))
        return kiln_fail_errno(err, code_of_errno(errno), "cannot open %s to remove it", name);
    if ((st.st_mode & 0700) != 0700) {
        char link[40];
        snprintf(link, sizeof link, "/proc/self/fd/%d", path_fd);
        chmod(link, 0700); // a refusal shows at once, in what follows
    }
    int fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 ? fd : kiln_fail_errno(err, code_of_errno(errno), "cannot open %s to remove it", name);
}

static int remove_dir(struct removal *removal, int dirfd, const char *name, int depth);

static int remove_entry(struct removal *removal, int dirfd, const char *name, int depth) {
    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR)
        return kiln_fail_errno(removal->err, code_of_errno(errno), "cannot remove %s", name);
    if (depth < REMOVE_DEPTH)
        return remove_dir(removal, dirfd, name, depth + 1);
    int fd = open_for_removal(dirfd, name, removal->err); // for its mode: a directory that moves is written to
    if (fd < 0)
        return fd;
    close(fd);
    char flat[32];
    snprintf(flat, sizeof flat, ".removed-%u", removal->moved++);
    if (renameat2(dirfd, name, removal->top, flat, RENAME_NOREPLACE) && errno != EEXIST)
        return kiln_fail_errno(removal->err, KILN_E_IO, "cannot move %s up to remove it", name);
    return 0;
}

// One pass over a directory; *left counts entries that may still be there.
static int remove_pass(struct removal *removal, int fd, int depth) {
    int again = dup(fd);
    DIR *dir = again < 0 ? NULL : fdopendir(again);
    if (!dir) {
        int rc = kiln_fail_errno(removal->err, KILN_E_IO, "cannot list a directory");
        if (again >= 0)
            close(again);
        return rc;
    }
    rewinddir(dir);
    int rc = 0;
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = remove_entry(removal, fd, entry->d_name, depth);
    closedir(dir);
    return rc;
}

static int remove_dir(struct removal *removal, int dirfd, const char *name, int depth) {
    kiln_autofd int fd = open_for_removal(dirfd, name, removal->err);
    if (fd < 0)
        return fd == KILN_E_NOTFOUND ? 0 : fd;
    if (depth == 0)
        removal->top = fd;
    for (int pass = 0; pass < REMOVE_PASSES; pass++) {
        int rc = remove_pass(removal, fd, depth);
        if (rc)
            return rc;
        if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
            return 0;
        if (errno != ENOTEMPTY && errno != EEXIST)
            return kiln_fail_errno(removal->err, code_of_errno(errno), "cannot remove directory %s", name);
    }
    return kiln_fail(removal->err, KILN_E_IO, "directory %s does not become empty", name);
}

int kiln_fs_remove_tree(int dirfd, const char *path, struct kiln_err *err) {
    if (unlinkat(dirfd, path, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR)
        return kiln_fail_errno(err, code_of_errno(errno), "cannot remove %s", path);
    kiln_autofree char *parent = kiln_path_dir(path);
    if (!parent)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a path");
    kiln_autofd int parent_fd = openat(dirfd, parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (parent_fd < 0)
        return kiln_fail_errno(err, code_of_errno(errno), "cannot open %s", parent);
    struct removal removal = {.top = -1, .err = err};
    int rc = remove_dir(&removal, parent_fd, kiln_path_base(path), 0);
    return rc ? kiln_wrap(err, rc, "removing %s", path) : 0;
}

// True when the whole of `in` became the whole of `out` without copying.
static bool reflink(int in, int out, const struct stat *in_st, uint64_t max_bytes) {
    struct stat out_st;
    if (!S_ISREG(in_st->st_mode) || in_st->st_size == 0 || (uint64_t)in_st->st_size > max_bytes)
        return false;
    if (fstat(out, &out_st) || !S_ISREG(out_st.st_mode) || out_st.st_size)
        return false;
    if (lseek(in, 0, SEEK_CUR) != 0 || ioctl(out, FICLONE, in))
        return false;
    return lseek(out, 0, SEEK_END) >= 0 && lseek(in, 0, SEEK_END) >= 0;
}

// Advances both offsets; leaves the rest to the caller where the kernel cannot copy between the two.
static uint64_t copy_in_kernel(int in, int out, uint64_t max_bytes) {
    uint64_t total = 0;
    while (total < max_bytes) {
        uint64_t left = max_bytes - total;
        ssize_t copied = copy_file_range(in, NULL, out, NULL, left > SSIZE_MAX ? SSIZE_MAX : (size_t)left, 0);
        if (copied < 0 && errno == EINTR)
            continue;
        if (copied <= 0)
            break;
        total += (uint64_t)copied;
    }
    return total;
}

static int copy_by_hand(int in, int out, uint64_t max_bytes, uint64_t *total, struct kiln_err *err) {
    kiln_autofree unsigned char *chunk = malloc(CHUNK_BYTES);
    if (!chunk)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to copy");
    for (;;) {
        ssize_t got = read(in, chunk, CHUNK_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return kiln_fail_errno(err, KILN_E_IO, "cannot read");
        if (got == 0)
            return 0;
        if ((uint64_t)got > max_bytes - *total)
            return kiln_fail(err, KILN_E_LIMIT, "larger than %llu bytes", (unsigned long long)max_bytes);
        int rc = kiln_fs_write_all(out, chunk, (size_t)got, err);
        if (rc)
            return rc;
        *total += (uint64_t)got;
    }
}

int kiln_fs_copy_fd(int in, int out, uint64_t max_bytes, uint64_t *copied, struct kiln_err *err) {
    struct stat st;
    if (fstat(in, &st))
        return kiln_fail_errno(err, KILN_E_IO, "cannot stat the file to copy");
    uint64_t total = 0;
    if (reflink(in, out, &st, max_bytes)) {
        total = (uint64_t)st.st_size;
    } else {
        if (S_ISREG(st.st_mode))
            total = copy_in_kernel(in, out, max_bytes);
        int rc = copy_by_hand(in, out, max_bytes, &total, err); // the rest, or proof that there is none
        if (rc)
            return rc;
    }
    if (copied)
        *copied = total;
    return 0;
}

int kiln_fs_open_dir(const char *path, int *fd, struct kiln_err *err) {
    if (path[0] != '/')
        return kiln_fail(err, KILN_E_INVAL, "directory \"%s\" is not an absolute path", path);
    int opened = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0 && errno == ENOENT) {
        int rc = kiln_fs_make_dirs(AT_FDCWD, path, 0700, err);
        if (rc)
            return rc;
        opened = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (opened < 0)
        return kiln_fail_errno(err, code_of_errno(errno), "cannot open directory %s", path);
    *fd = opened;
    return 0;
}
