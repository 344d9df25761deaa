#include "consumer/docker/world.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"

#define STATUS_BYTES_MAX (64u << 10)

static int deny(struct kiln_err *err, const char *what) {
    return kiln_fail(err, KILN_E_DENIED, "docker did not raise a wall: %s", what);
}

// The value of a hexadecimal line of /proc/self/status; all ones when it is not there.
static unsigned long long status_value(const char *status, const char *name) {
    const char *at = strstr(status, name);
    return at ? strtoull(at + strlen(name), NULL, 16) : ~0ull;
}

static int check_rights(const struct kiln_gate_order *order, struct kiln_err *err) {
    static const char *const sets[] = {"\nCapInh:\t", "\nCapPrm:\t", "\nCapEff:\t", "\nCapBnd:\t", "\nCapAmb:\t"};
    kiln_autobuf struct kiln_buf status = KILN_BUF_INIT(STATUS_BYTES_MAX);
    int rc = kiln_fs_read_file(AT_FDCWD, "/proc/self/status", &status, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (status_value(kiln_buf_text(&status), sets[i]) != 0)
            return deny(err, "the job would have capabilities");
    if (status_value(kiln_buf_text(&status), "\nNoNewPrivs:\t") != 1)
        return deny(err, "the job could gain privileges by executing");
    uid_t uids[3];
    gid_t gids[3];
    if (getresuid(&uids[0], &uids[1], &uids[2]) || getresgid(&gids[0], &gids[1], &gids[2]))
        return kiln_fail_errno(err, KILN_E_IO, "asking who the job is");
    for (int i = 0; i < 3; i++)
        if (uids[i] != order->uid || gids[i] != order->gid)
            return deny(err, "the job would be another user");
    gid_t group = order->gid;
    int groups = getgroups(1, &group);
    return groups < 0 || groups > 1 || group != order->gid ? deny(err, "the job would have other groups") : 0;
}

static int check_namespaces(const struct kiln_gate_order *order, struct kiln_err *err) {
    if (getpid() != 1)
        return deny(err, "processes of the host would be visible");
    for (size_t i = 0; i < order->namespaces_count; i++) {
        char path[64];
        struct stat st;
        snprintf(path, sizeof path, "/proc/self/ns/%.20s", order->namespaces[i].name);
        if (stat(path, &st) || st.st_ino == order->namespaces[i].inode)
            return kiln_fail(err, KILN_E_DENIED, "docker did not raise a wall: the job would share the host's namespace \"%.20s\"",
                             order->namespaces[i].name);
    }
    return 0;
}

static int check_mount(const struct kiln_gate_mount *mount, struct kiln_err *err) {
    struct stat st;
    struct statvfs fs;
    kiln_autofd int fd = open(mount->dest, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || fstatvfs(fd, &fs))
        return kiln_fail_errno(err, KILN_E_DENIED, "docker mounted nothing usable at %s", mount->dest);
    if (st.st_dev != mount->device || st.st_ino != mount->inode)
        return kiln_fail(err, KILN_E_DENIED, "docker mounted something else at %s: does dockerd see the file system of this host?",
                         mount->dest);
    return fs.f_flag & ST_RDONLY ? 0 : kiln_fail(err, KILN_E_DENIED, "docker mounted %s writable", mount->dest);
}

static int check_scratch(const char *dest, uint64_t bytes, uint64_t inodes, struct kiln_err *err) {
    const unsigned long wanted = ST_NOSUID | ST_NODEV | ST_NOEXEC;
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    struct statfs fs;
    struct statvfs flags;
    kiln_autofd int fd = open(dest, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstatfs(fd, &fs) || fstatvfs(fd, &flags))
        return kiln_fail_errno(err, KILN_E_DENIED, "docker mounted nothing usable at %s", dest);
    if (fs.f_type != TMPFS_MAGIC || (flags.f_flag & wanted) != wanted || fs.f_blocks == 0 || fs.f_files == 0 ||
        (uint64_t)fs.f_blocks * (uint64_t)fs.f_bsize > bytes + page || fs.f_files > inodes)
        return kiln_fail(err, KILN_E_DENIED, "docker mounted %s without its bounds", dest);
    return 0;
}

static bool is_empty_dir(const char *path) {
    DIR *dir = opendir(path);
    size_t count = 0;
    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return dir && count == 2;
}

// What Docker puts there by itself: names and addresses of the host, its devices, its hardware.
static int check_neutral(struct kiln_err *err) {
    static const char *const files[] = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"};
    struct statvfs root;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct stat st;
        if (lstat(files[i], &st) || !S_ISREG(st.st_mode) || st.st_size)
            return kiln_fail(err, KILN_E_DENIED, "docker tells the job about the host in %s", files[i]);
    }
    if (!is_empty_dir("/sys"))
        return deny(err, "/sys shows the host's hardware");
    if (statvfs("/", &root) || !(root.f_flag & ST_RDONLY))
        return deny(err, "the root is writable");
    return 0;
}

int kiln_world_check(const struct kiln_gate_order *order, struct kiln_err *err) {
    const struct kiln_run_spec *spec = &order->spec;
    int rc = check_namespaces(order, err);
    if (rc == 0)
        rc = check_rights(order, err);
    for (size_t i = 0; rc == 0 && i < order->mounts_count; i++)
        rc = check_mount(&order->mounts[i], err);
    if (rc == 0)
        rc = check_scratch(spec->out_dir, spec->out_bytes, spec->inodes, err);
    if (rc == 0)
        rc = check_scratch(spec->tmp_dir, spec->tmp_bytes, spec->inodes, err);
    if (rc == 0)
        rc = check_scratch(spec->observer_dir, spec->observer_bytes, spec->inodes, err);
    return rc ? rc : check_neutral(err);
}
