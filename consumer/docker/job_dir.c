#include "consumer/docker/job_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "consumer/docker/gate.h"
#include "consumer/run/root.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

#define NAME_PREFIX "job-"

static const char *const empty_files[] = {"empty", "etc/hostname", "etc/hosts", "etc/resolv.conf", "dev/null", "dev/zero"};

// Between making a directory and locking it, nobody else looks: all who do hold the lock on the parent.
static int lock_parent(const char *parent, int *fd, struct kiln_err *err) {
    kiln_autofd int dir = -1;
    int rc = kiln_fs_open_dir(parent, &dir, err);
    if (rc == 0 && flock(dir, LOCK_EX) < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "locking %s", parent);
    if (rc == 0)
        *fd = kiln_steal_fd(&dir);
    return rc;
}

static int make_locked(struct kiln_job_dir *job, struct kiln_err *err) {
    unsigned char random[8];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return kiln_fail_errno(err, KILN_E_IO, "random bytes");
    memcpy(job->name, NAME_PREFIX, sizeof NAME_PREFIX);
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(job->name + strlen(NAME_PREFIX) + 2 * i, 3, "%02x", random[i]);
    if (mkdirat(job->parent, job->name, 0755) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "making the job's directory");
    job->dir = openat(job->parent, job->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return job->dir < 0 || flock(job->dir, LOCK_EX | LOCK_NB) < 0 ? kiln_fail_errno(err, KILN_E_IO, "locking the job's directory") : 0;
}

static int make_devices(int dir, const uint8_t seed[32], struct kiln_err *err) {
    kiln_autofree unsigned char *noise = malloc(KILN_ROOT_NOISE_BYTES);
    if (!noise)
        return kiln_fail(err, KILN_E_NOMEM, "the job's directory");
    kiln_root_noise(seed, noise, KILN_ROOT_NOISE_BYTES);
    int rc = kiln_fs_make_file(dir, "dev/urandom", noise, KILN_ROOT_NOISE_BYTES, 0444, err);
    return rc ? rc : kiln_fs_make_file(dir, "dev/random", noise, KILN_ROOT_NOISE_BYTES, 0444, err);
}

static int make_files(int dir, const struct kiln_run_spec *spec, struct kiln_err *err) {
    int rc = kiln_fs_make_dirs(dir, "etc", 0755, err);
    if (rc == 0)
        rc = kiln_fs_make_dirs(dir, "dev", 0755, err);
    for (size_t i = 0; rc == 0 && i < sizeof empty_files / sizeof *empty_files; i++)
        rc = kiln_fs_make_file(dir, empty_files[i], NULL, 0, 0444, err);
    for (size_t i = 0; rc == 0 && i < spec->files_count; i++) {
        const struct kiln_run_file *file = &spec->files[i];
        if (!kiln_path_beneath(file->path, "/etc"))
            return kiln_fail(err, KILN_E_UNSUPPORTED, "file %s: with docker, small files lie in /etc only", file->path);
        rc = kiln_fs_make_parents(dir, file->path + 1, 0755, err);
        if (rc == 0)
            rc = kiln_fs_make_file(dir, file->path + 1, file->data, file->len, 0444, err);
    }
    return rc ? rc : make_devices(dir, spec->seed, err);
}

int kiln_job_dir_make(const char *parent, const struct kiln_run_spec *spec, struct kiln_job_dir *job, struct kiln_err *err) {
    struct kiln_job_dir made = KILN_JOB_DIR_INIT;
    int rc = lock_parent(parent, &made.parent, err);
    if (rc == 0)
        rc = make_locked(&made, err);
    if (made.parent >= 0)
        flock(made.parent, LOCK_UN);
    if (rc == 0 && !(made.path = kiln_path_join(parent, made.name)))
        rc = kiln_fail(err, KILN_E_NOMEM, "the job's directory");
    if (rc == 0)
        rc = make_files(made.dir, spec, err);
    if (rc) {
        kiln_job_dir_remove(&made);
        return kiln_wrap(err, rc, "small files of the job");
    }
    *job = made;
    return 0;
}

void kiln_job_dir_remove(struct kiln_job_dir *job) {
    if (job->dir >= 0)
        kiln_fs_remove_tree(job->parent, job->name, NULL);
    int *const fds[] = {&job->dir, &job->parent};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (*fds[i] >= 0)
            close(kiln_steal_fd(fds[i]));
    free(KILN_STEAL(job->path));
}

int kiln_job_dir_open_gate(const struct kiln_job_dir *job, int *listener, struct kiln_err *err) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    // Of any length on the host, and short for the kernel.
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/dev/" KILN_GATE_SOCKET, job->dir);
    kiln_autofd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1) < 0 ||
        fchmodat(job->dir, "dev/" KILN_GATE_SOCKET, 0666, 0) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "the socket for the container's init");
    *listener = kiln_steal_fd(&fd);
    return 0;
}

int kiln_job_dir_close_gate(const struct kiln_job_dir *job, struct kiln_err *err) {
    return unlinkat(job->dir, "dev/" KILN_GATE_SOCKET, 0) < 0 ? kiln_fail_errno(err, KILN_E_IO, "closing the gate") : 0;
}

// A lock on the directory that nobody else holds; -1 when somebody does, or there is no such directory.
static int take_lock(int parent, const char *name) {
    kiln_autofd int dir = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return dir >= 0 && flock(dir, LOCK_EX | LOCK_NB) == 0 ? kiln_steal_fd(&dir) : -1;
}

bool kiln_job_dir_is_held(const char *parent, const char *name) {
    kiln_autofd int dir = -1;
    if (lock_parent(parent, &dir, NULL))
        return true;
    if (faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW))
        return false;
    kiln_autofd int lock = take_lock(dir, name);
    return lock < 0;
}

int kiln_job_dir_sweep(const char *parent, struct kiln_err *err) {
    kiln_autofd int dir = -1;
    int rc = lock_parent(parent, &dir, err);
    int copy = rc ? -1 : openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy >= 0 ? fdopendir(copy) : NULL;
    if (!list) {
        if (copy >= 0)
            close(copy);
        return rc ? rc : kiln_fail_errno(err, KILN_E_IO, "listing %s", parent);
    }
    for (struct dirent *entry; (entry = readdir(list));) {
        if (strncmp(entry->d_name, NAME_PREFIX, strlen(NAME_PREFIX)))
            continue;
        kiln_autofd int lock = take_lock(dir, entry->d_name);
        int removed = lock < 0 ? 0 : kiln_fs_remove_tree(dir, entry->d_name, err);
        rc = rc ? rc : removed;
    }
    closedir(list);
    return rc;
}
