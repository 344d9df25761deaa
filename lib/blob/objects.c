#include "lib/blob/objects.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/blob/objects_walk.h"

#define TEMP_DIR ".tmp"
#define TEMP_ATTEMPTS 16
#define PUBLISH_ATTEMPTS 200
// A use within this time of the last recorded one is not recorded again: a touch costs as much as the open.
#define TOUCH_GRAIN_NS 1000000000ll

struct kiln_objects {
    int dir;
};

struct temp {
    int fd;
    char name[40];
};

static int check_key(const char *key, struct kiln_err *err) {
    int rc = kiln_path_check_relative(key, err);
    if (rc == 0 && kiln_path_beneath(key, TEMP_DIR))
        rc = kiln_fail(err, KILN_E_INVAL, "key %s is reserved", key);
    return rc;
}

static void touch(int fd, const struct stat *st) {
    struct timespec times[2] = {{0}, {.tv_nsec = UTIME_OMIT}};
    clock_gettime(CLOCK_REALTIME, &times[0]);
    int64_t age_ns = kiln_object_time(&times[0]) - kiln_object_time(&st->st_atim);
    if (age_ns < 0 || age_ns >= TOUCH_GRAIN_NS)
        futimens(fd, times); // a reader that does not own the file cannot; its use is then not seen
}

static int open_object(int dir, const char *key, int *fd, struct stat *st, struct kiln_err *err) {
    kiln_autofd int opened = -1;
    int rc = kiln_fs_open_beneath(dir, key, O_RDONLY | O_NONBLOCK | O_NOCTTY, &opened, err);
    if (rc)
        return rc;
    if (fstat(opened, st))
        return kiln_fail_errno(err, KILN_E_IO, "cannot stat object %s", key);
    if (!S_ISREG(st->st_mode))
        return kiln_fail(err, KILN_E_CORRUPT, "object %s is not a regular file", key);
    *fd = kiln_steal_fd(&opened);
    return 0;
}

int kiln_objects_open(struct kiln_objects *objects, const char *key, int *fd, uint64_t *size, struct kiln_err *err) {
    struct stat st;
    int rc = check_key(key, err);
    if (rc == 0)
        rc = open_object(objects->dir, key, fd, &st, err);
    if (rc)
        return rc;
    touch(*fd, &st);
    *size = (uint64_t)st.st_size;
    return 0;
}

bool kiln_objects_has(struct kiln_objects *objects, const char *key) {
    struct stat st;
    return check_key(key, NULL) == 0 && fstatat(objects->dir, key, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISREG(st.st_mode);
}

// Creates a file that carries a lock for as long as this process lives and has it open.
static int temp_open(int dir, struct temp *temp, struct kiln_err *err) {
    for (int attempt = 0; attempt < TEMP_ATTEMPTS; attempt++) {
        uint64_t random;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            return kiln_fail_errno(err, KILN_E_IO, "no random bytes");
        snprintf(temp->name, sizeof temp->name, TEMP_DIR "/%016llx", (unsigned long long)random);
        kiln_autofd int fd = openat(dir, temp->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0 && errno == ENOENT && kiln_fs_make_dirs(dir, TEMP_DIR, 0700, NULL) == 0)
            continue;
        if (fd < 0 && errno != EEXIST)
            return kiln_fail_errno(err, KILN_E_IO, "cannot create a temporary object");
        struct stat st;
        // A sweep may come between the creation and the lock: then its file is gone, or about to be.
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) || fstat(fd, &st) || st.st_nlink == 0)
            continue;
        temp->fd = kiln_steal_fd(&fd);
        return 0;
    }
    return kiln_fail(err, KILN_E_IO, "no temporary object could be made");
}

static void temp_close(int dir, struct temp *temp) {
    if (temp->name[0])
        unlinkat(dir, temp->name, 0);
    close(temp->fd);
}

static int sweep_temp(int dir, const char *name) {
    kiln_autofd int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        unlinkat(dir, name, 0);
    return 0;
}

// What lies under the key, compared with the digest that it should have. Right bytes count as used.
enum found { FOUND_NOTHING, FOUND_RIGHT, FOUND_WRONG };

static int look(int dir, const char *key, const struct kiln_digest *wanted, enum found *found, struct kiln_err *err) {
    kiln_autofd int fd = -1;
    struct stat st;
    struct kiln_digest digest;
    int rc = open_object(dir, key, &fd, &st, err);
    if (rc == KILN_E_NOTFOUND || rc == KILN_E_CORRUPT) {
        *found = rc == KILN_E_CORRUPT ? FOUND_WRONG : FOUND_NOTHING;
        return 0;
    }
    if (rc)
        return rc;
    rc = kiln_digest_of_fd(fd, UINT64_MAX, &digest, NULL, NULL);
    *found = rc == 0 && kiln_digest_equal(&digest, wanted) ? FOUND_RIGHT : FOUND_WRONG;
    if (*found == FOUND_RIGHT)
        touch(fd, &st);
    return 0;
}

static int make_parent(int dir, const char *key, struct kiln_err *err) {
    kiln_autofree char *parent = kiln_path_dir(key);
    if (!parent)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
    int rc = kiln_fs_make_dirs(dir, parent, 0700, err);
    return rc == KILN_E_NOTFOUND ? 0 : rc; // a part was removed as empty meanwhile: the caller tries again
}

// Moves the finished temporary file over the key, or links it there if the key is free: then EEXIST.
static int publish_once(int dir, struct temp *temp, const char *key, bool replace) {
    if (!replace)
        return linkat(dir, temp->name, dir, key, 0);
    if (renameat(dir, temp->name, dir, key))
        return -1;
    temp->name[0] = 0;
    return 0;
}

// *published stays false when the right bytes are there already.
static int publish(int dir, const struct kiln_object_put *put, struct temp *temp, const struct kiln_digest *digest,
                   bool *published, struct kiln_err *err) {
    bool replace = put->conflict == KILN_OBJECT_REPLACE;
    for (int attempt = 0; attempt < PUBLISH_ATTEMPTS; attempt++) {
        enum found found = FOUND_NOTHING;
        if (publish_once(dir, temp, put->key, replace) == 0) {
            *published = true;
            return 0;
        }
        int rc = 0;
        if (errno == ENOENT) // or a directory that another process has just removed as empty
            rc = make_parent(dir, put->key, err);
        else if (errno == EEXIST && put->conflict == KILN_OBJECT_FAIL)
            return kiln_fail(err, KILN_E_EXISTS, "object %s exists", put->key);
        else if (errno == EEXIST)
            rc = look(dir, put->key, digest, &found, err);
        else
            return kiln_fail_errno(err, KILN_E_IO, "cannot publish object %s", put->key);
        if (rc || found == FOUND_RIGHT)
            return rc;
        replace = replace || found == FOUND_WRONG;
    }
    return kiln_fail(err, KILN_E_IO, "object %s keeps changing", put->key);
}

static int finish(struct kiln_objects *objects, const struct kiln_object_put *put, struct temp *temp,
                  const struct kiln_digest *digest, uint64_t *added_bytes, struct kiln_err *err) {
    struct stat st;
    bool published = false;
    if (put->expected && !kiln_digest_equal(digest, put->expected))
        return kiln_fail(err, KILN_E_CORRUPT, "the bytes for object %s have another digest", put->key);
    if (fchmod(temp->fd, 0444) || (put->durable && fsync(temp->fd)) || fstat(temp->fd, &st))
        return kiln_fail_errno(err, KILN_E_IO, "cannot finish object %s", put->key);
    int rc = publish(objects->dir, put, temp, digest, &published, err);
    if (rc)
        return rc;
    if (published)
        touch(temp->fd, &(struct stat){0}); // exact: the kernel's own stamp of a new file is some milliseconds coarse
    if (added_bytes)
        *added_bytes = published ? kiln_object_bytes(&st) : 0;
    return 0;
}

// Linking instead of copying: the bytes behind fd cannot change by anybody's write, and are hashed where they lie.
static bool link_object(struct kiln_objects *objects, const struct kiln_object_put *put, int fd) {
    struct stat st;
    struct kiln_digest digest;
    char source[40];
    if (!put->may_link || !put->expected || fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 0222) || st.st_nlink == 0 || (uint64_t)st.st_size > put->max_bytes)
        return false;
    if (kiln_digest_of_fd(fd, put->max_bytes, &digest, NULL, NULL) || !kiln_digest_equal(&digest, put->expected))
        return false;
    if (put->durable && fsync(fd))
        return false;
    snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
    for (int attempt = 0; attempt < 2; attempt++) {
        if (linkat(AT_FDCWD, source, objects->dir, put->key, AT_SYMLINK_FOLLOW) == 0) {
            touch(fd, &st);
            return true;
        }
        if (errno != ENOENT || make_parent(objects->dir, put->key, NULL))
            return false;
    }
    return false;
}

// Whether nothing need be written. A wanted digest that the caller does not know is computed only when it matters.
static int is_there(struct kiln_objects *objects, const struct kiln_object_put *put, const struct kiln_digest *wanted,
                    bool *there, struct kiln_err *err) {
    enum found found = FOUND_NOTHING;
    if (put->conflict == KILN_OBJECT_FAIL && kiln_objects_has(objects, put->key))
        return kiln_fail(err, KILN_E_EXISTS, "object %s exists", put->key);
    int rc = put->conflict == KILN_OBJECT_MEND ? look(objects->dir, put->key, wanted, &found, err) : 0;
    *there = found == FOUND_RIGHT;
    return rc;
}

static int there_already(struct kiln_objects *objects, const struct kiln_object_put *put, int fd, bool *there,
                         struct kiln_err *err) {
    struct kiln_digest computed;
    const struct kiln_digest *wanted = put->expected;
    *there = false;
    int rc = check_key(put->key, err);
    if (rc)
        return rc;
    if (!wanted) {
        if (put->conflict == KILN_OBJECT_REPLACE || !kiln_objects_has(objects, put->key))
            return 0;
        if ((rc = kiln_digest_of_fd(fd, put->max_bytes, &computed, NULL, err)))
            return rc;
        wanted = &computed;
    }
    return is_there(objects, put, wanted, there, err);
}

int kiln_objects_put_fd(struct kiln_objects *objects, const struct kiln_object_put *put, int fd, uint64_t *added_bytes,
                        struct kiln_err *err) {
    bool there;
    struct temp temp = {.fd = -1};
    struct kiln_digest digest;
    int rc = there_already(objects, put, fd, &there, err);
    if (rc)
        return rc;
    if (there) {
        if (added_bytes)
            *added_bytes = 0;
        return 0;
    }
    if (link_object(objects, put, fd)) {
        struct stat st = {0};
        if (added_bytes && fstat(fd, &st) == 0)
            *added_bytes = kiln_object_bytes(&st);
        return 0;
    }
    if (lseek(fd, 0, SEEK_SET) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "cannot read the bytes for object %s", put->key);
    if ((rc = temp_open(objects->dir, &temp, err)))
        return rc;
    rc = kiln_fs_copy_fd(fd, temp.fd, put->max_bytes, NULL, err);
    if (rc == 0)
        rc = kiln_digest_of_fd(temp.fd, UINT64_MAX, &digest, NULL, err); // of what is stored, not of what was read
    if (rc == 0)
        rc = finish(objects, put, &temp, &digest, added_bytes, err);
    temp_close(objects->dir, &temp);
    return rc;
}

int kiln_objects_put_bytes(struct kiln_objects *objects, const struct kiln_object_put *put, const void *data, size_t len,
                           uint64_t *added_bytes, struct kiln_err *err) {
    bool there = false;
    struct temp temp = {.fd = -1};
    struct kiln_digest digest;
    kiln_digest_of(data, len, &digest);
    int rc = check_key(put->key, err);
    if (rc == 0)
        rc = is_there(objects, put, put->expected ? put->expected : &digest, &there, err);
    if (rc)
        return rc;
    if (there) {
        if (added_bytes)
            *added_bytes = 0;
        return 0;
    }
    if ((rc = temp_open(objects->dir, &temp, err)))
        return rc;
    rc = kiln_fs_write_all(temp.fd, data, len, err);
    if (rc == 0)
        rc = finish(objects, put, &temp, &digest, added_bytes, err);
    temp_close(objects->dir, &temp);
    return rc;
}

int kiln_objects_remove(struct kiln_objects *objects, const char *key, struct kiln_err *err) {
    int rc = check_key(key, err);
    if (rc == 0)
        rc = kiln_fs_remove_tree(objects->dir, key, err);
    if (rc)
        return rc == KILN_E_NOTFOUND ? 0 : rc;
    kiln_autofree char *parent = strdup(key);
    for (char *slash; parent && (slash = strrchr(parent, '/'));) {
        *slash = 0;
        if (unlinkat(objects->dir, parent, AT_REMOVEDIR) && errno != ENOENT)
            break; // not empty: the usual end
    }
    return 0;
}

int kiln_objects_prune(struct kiln_objects *objects, uint64_t max_bytes, uint64_t keep_ms,
                       struct kiln_objects_usage *usage, struct kiln_err *err) {
    int64_t keep_ns = keep_ms > INT64_MAX / 2000000 ? INT64_MAX / 2 : (int64_t)keep_ms * 1000000;
    if (keep_ns)
        keep_ns += TOUCH_GRAIN_NS; // the recorded use may be that much older than the real one
    return kiln_objects_walk_prune(objects->dir, TEMP_DIR, max_bytes, keep_ns, usage, err);
}

int kiln_objects_new(const char *path, struct kiln_objects **objects, struct kiln_err *err) {
    struct kiln_objects *made = malloc(sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a store");
    int rc = kiln_fs_open_dir(path, &made->dir, err);
    if (rc) {
        free(made);
        return rc;
    }
    kiln_objects_walk_dir(made->dir, TEMP_DIR, sweep_temp);
    *objects = made;
    return 0;
}

void kiln_objects_free(struct kiln_objects *objects) {
    if (!objects)
        return;
    close(objects->dir);
    free(objects);
}
