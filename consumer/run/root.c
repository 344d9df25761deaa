#include "consumer/run/root.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "consumer/preload/observe.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

#define ROOT_OPTIONS "mode=0755,size=24m,nr_inodes=8192"
#define NOISE_BYTES (64u << 10)
#define READ_ONLY (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define SCRATCH (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
#define DEVICE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)

// Something that will be mounted in the tree: detached (`tree`) until it has its place.
struct part {
    const char *dest;
    int tree;
    bool file;
    bool ours; // a tmpfs of ours: mount points may be made in it
};

struct parts {
    struct part *all;
    size_t count;
};

static void release_parts(struct parts *parts) {
    for (size_t i = 0; i < parts->count; i++)
        close(parts->all[i].tree);
    free(parts->all);
}

static int set_attributes(int tree, uint64_t attributes, unsigned flags, struct kiln_err *err) {
    struct mount_attr attr = {.attr_set = attributes};
    if (mount_setattr(tree, "", AT_EMPTY_PATH | flags, &attr, sizeof attr) < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "making a mount read-only (needs Linux 5.12)");
    return 0;
}

// Opens in this mount namespace what `fd`, opened in another one, is.
static int find_again(int fd, bool file, int *found, struct kiln_err *err) {
    char link[40], path[KILN_PATH_MAX + 1];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0)
        return kiln_fail_errno(err, KILN_E_INVAL, "descriptor %d", fd);
    path[len] = 0;
    struct stat wanted, got;
    if (fstat(fd, &wanted) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "descriptor %d", fd);
    if (!(file ? S_ISREG(wanted.st_mode) : S_ISDIR(wanted.st_mode)))
        return kiln_fail(err, KILN_E_INVAL, "descriptor %d is not a %s", fd, file ? "regular file" : "directory");
    kiln_autofd int again = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (again < 0 || fstat(again, &got) < 0)
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "opening %s", path);
    if (got.st_dev != wanted.st_dev || got.st_ino != wanted.st_ino)
        return kiln_fail(err, KILN_E_NOTFOUND, "%s is not what it was when it was opened", path);
    *found = kiln_steal_fd(&again);
    return 0;
}

static int clone_tree(int fd, uint64_t attributes, int *tree, struct kiln_err *err) {
    kiln_autofd int clone = open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
    if (clone < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "cloning a mount (needs Linux 5.2)");
    int rc = set_attributes(clone, attributes, AT_RECURSIVE, err);
    if (rc == 0)
        *tree = kiln_steal_fd(&clone);
    return rc;
}

static int clone_bind(const struct kiln_run_bind *bind, struct part *part, struct kiln_err *err) {
    kiln_autofd int source = -1;
    int rc = find_again((int)bind->fd, bind->file, &source, err);
    if (rc == 0)
        rc = clone_tree(source, READ_ONLY, &part->tree, err);
    if (rc)
        return kiln_wrap(err, rc, "bind %s", bind->dest);
    part->dest = bind->dest;
    part->file = bind->file;
    return 0;
}

static int set_option(int fs, const char *key, const char *value, struct kiln_err *err) {
    if (fsconfig(fs, FSCONFIG_SET_STRING, key, value, 0) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "tmpfs option %s=%s", key, value);
    return 0;
}

static int set_number(int fs, const char *key, uint64_t number, struct kiln_err *err) {
    char value[24];
    snprintf(value, sizeof value, "%" PRIu64, number);
    return set_option(fs, key, value, err);
}

struct scratch {
    const char *dest;
    uint64_t bytes, inodes;
};

static int make_scratch(const struct scratch *scratch, const struct kiln_root_owner *owner, struct part *part,
                        struct kiln_err *err) {
    kiln_autofd int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (fs < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "a new tmpfs");
    int rc = set_number(fs, "size", scratch->bytes, err);
    if (rc == 0)
        rc = set_number(fs, "nr_inodes", scratch->inodes, err);
    if (rc == 0)
        rc = set_number(fs, "uid", owner->uid, err);
    if (rc == 0)
        rc = set_number(fs, "gid", owner->gid, err);
    if (rc == 0)
        rc = set_option(fs, "mode", "0700", err);
    if (rc)
        return rc;
    if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "a new tmpfs for %s", scratch->dest);
    int tree = fsmount(fs, FSMOUNT_CLOEXEC, SCRATCH);
    if (tree < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "a tmpfs for %s", scratch->dest);
    *part = (struct part){.dest = scratch->dest, .tree = tree, .ours = true};
    return 0;
}

static int compare_parts(const void *a, const void *b) {
    return strcmp(((const struct part *)a)->dest, ((const struct part *)b)->dest);
}

// All parts, parents before children (a path is greater than its prefixes), no two at one place.
static int gather(const struct kiln_run_spec *spec, const struct kiln_root_owner *owner, struct parts *parts,
                  struct kiln_err *err) {
    const struct scratch scratches[] = {{spec->out_dir, spec->out_bytes, spec->inodes},
                                        {spec->tmp_dir, spec->tmp_bytes, spec->inodes},
                                        {spec->observer_dir, spec->observer_bytes, spec->inodes}};
    size_t scratch_count = sizeof scratches / sizeof *scratches;
    parts->all = calloc(spec->binds_count + scratch_count, sizeof *parts->all);
    if (!parts->all)
        return kiln_fail(err, KILN_E_NOMEM, "sandbox root");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < spec->binds_count; i++) {
        rc = clone_bind(&spec->binds[i], &parts->all[parts->count], err);
        parts->count += rc == 0;
    }
    for (size_t i = 0; rc == 0 && i < scratch_count; i++) {
        rc = make_scratch(&scratches[i], owner, &parts->all[parts->count], err);
        parts->count += rc == 0;
    }
    if (rc)
        return rc;
    qsort(parts->all, parts->count, sizeof *parts->all, compare_parts);
    for (size_t i = 1; i < parts->count; i++)
        if (!strcmp(parts->all[i - 1].dest, parts->all[i].dest))
            return kiln_fail(err, KILN_E_INVAL, "two mounts at %s", parts->all[i].dest);
    return 0;
}

// The mounted part that holds `dest`, its rest below it in *rest; NULL: the root tmpfs.
static const struct part *holder(const struct part *parts, size_t mounted, const char *dest, const char **rest) {
    for (size_t i = mounted; i-- > 0;) {
        *rest = kiln_path_beneath(dest, parts[i].dest);
        if (*rest)
            return &parts[i];
    }
    *rest = dest + 1;
    return NULL;
}

static int make_parents(int dir, const char *path, struct kiln_err *err) {
    kiln_autofree char *parent = kiln_path_dir(path);
    if (!parent)
        return kiln_fail(err, KILN_E_NOMEM, "sandbox root");
    return strcmp(parent, ".") ? kiln_fs_make_dirs(dir, parent, 0755, err) : 0;
}

static int make_empty_file(int dir, const char *path, struct kiln_err *err) {
    int rc = make_parents(dir, path, err);
    if (rc)
        return rc;
    kiln_autofd int fd = openat(dir, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
    return fd < 0 ? kiln_fail_errno(err, KILN_E_IO, "making %s", path) : 0;
}

// Opens the mount point of a part below `root`: made where it lies in a tmpfs of ours, else it must be there.
static int open_mount_point(int root, const struct part *parts, size_t index, int *point, struct kiln_err *err) {
    const struct part *part = &parts[index];
    const char *rest;
    const struct part *in = holder(parts, index, part->dest, &rest);
    kiln_autofd int base = -1;
    int rc = kiln_fs_open_beneath(root, in ? in->dest + 1 : ".", O_PATH | O_DIRECTORY, &base, err);
    if (rc == 0 && (!in || in->ours))
        rc = part->file ? make_empty_file(base, rest, err) : kiln_fs_make_dirs(base, rest, 0755, err);
    if (rc == 0)
        rc = kiln_fs_open_beneath(base, rest, part->file ? O_PATH : O_PATH | O_DIRECTORY, point, err);
    if (rc && in && !in->ours)
        return kiln_wrap(err, rc, "mount %s: the tree at %s has no real %s there", part->dest, in->dest,
                         part->file ? "file" : "directory");
    return rc ? kiln_wrap(err, rc, "mount %s", part->dest) : 0;
}

static int attach(int root, const struct parts *parts, struct kiln_err *err) {
    for (size_t i = 0; i < parts->count; i++) {
        kiln_autofd int point = -1;
        int rc = open_mount_point(root, parts->all, i, &point, err);
        if (rc)
            return rc;
        if (move_mount(parts->all[i].tree, "", point, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
            return kiln_fail_errno(err, KILN_E_DENIED, "mounting %s", parts->all[i].dest);
    }
    return 0;
}

// The directory of our own tmpfs in which `path` may be made, and the name to make there.
static int open_maker(int root, const struct parts *parts, const char *path, int *dir, const char **rest,
                      struct kiln_err *err) {
    const struct part *in = holder(parts->all, parts->count, path, rest);
    if (in)
        return kiln_fail(err, KILN_E_INVAL, "%s lies in the mount at %s", path, in->dest);
    *dir = fcntl(root, F_DUPFD_CLOEXEC, 0);
    return *dir < 0 ? kiln_fail_errno(err, KILN_E_IO, "sandbox root") : make_parents(*dir, *rest, err);
}

static int write_new_file(int dir, const char *name, const void *data, size_t len, struct kiln_err *err) {
    kiln_autofd int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_IO, "making %s", name);
    return kiln_fs_write_all(fd, data, len, err);
}

static int make_files_and_links(int root, const struct parts *parts, const struct kiln_run_spec *spec,
                                struct kiln_err *err) {
    for (size_t i = 0; i < spec->files_count; i++) {
        kiln_autofd int dir = -1;
        const char *rest;
        int rc = open_maker(root, parts, spec->files[i].path, &dir, &rest, err);
        if (rc == 0)
            rc = write_new_file(dir, rest, spec->files[i].data, spec->files[i].len, err);
        if (rc)
            return kiln_wrap(err, rc, "file %s", spec->files[i].path);
    }
    // After everything that walks paths of the root, so that no walk meets a link.
    for (size_t i = 0; i < spec->links_count; i++) {
        kiln_autofd int dir = -1;
        const char *rest;
        int rc = open_maker(root, parts, spec->links[i].path, &dir, &rest, err);
        if (rc == 0 && symlinkat(spec->links[i].target, dir, rest) < 0)
            rc = kiln_fail_errno(err, KILN_E_IO, "making it");
        if (rc)
            return kiln_wrap(err, rc, "link %s", spec->links[i].path);
    }
    return 0;
}

static uint64_t splitmix64(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

void kiln_root_noise(const uint8_t seed[32], unsigned char *out, size_t len) {
    uint64_t s[4], stir = 0;
    for (size_t i = 0; i < 4; i++) {
        uint64_t word = 0;
        for (size_t byte = 0; byte < 8; byte++)
            word |= (uint64_t)seed[i * 8 + byte] << (8 * byte);
        stir ^= word;
        s[i] = splitmix64(&stir);
    }
    for (size_t at = 0; at < len; at++) {
        if (at % 8 == 0) {
            uint64_t t = s[1] << 17;
            stir = rotate(s[1] * 5, 7) * 9;
            s[2] ^= s[0];
            s[3] ^= s[1];
            s[1] ^= s[2];
            s[0] ^= s[3];
            s[2] ^= t;
            s[3] = rotate(s[3], 45);
        }
        out[at] = (unsigned char)(stir >> (8 * (at % 8)));
    }
}

// The host's own node, bound: an unprivileged starter cannot make one.
static int bind_device(int dev, const char *name, dev_t id, struct kiln_err *err) {
    kiln_autofree char *path = kiln_path_join("/dev", name);
    kiln_autofd int node = path ? open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
    struct stat st;
    if (node < 0 || fstat(node, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != id)
        return kiln_fail(err, KILN_E_NOTFOUND, "the host's /dev/%s is not the device of that name", name);
    kiln_autofd int tree = -1;
    int rc = clone_tree(node, DEVICE, &tree, err);
    if (rc == 0)
        rc = make_empty_file(dev, name, err);
    kiln_autofd int point = rc ? -1 : openat(dev, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (rc == 0 && move_mount(tree, "", point, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        rc = kiln_fail_errno(err, KILN_E_DENIED, "mounting it");
    return rc ? kiln_wrap(err, rc, "/dev/%s", name) : 0;
}

static int make_devices(int root, const uint8_t seed[32], struct kiln_err *err) {
    kiln_autofd int dev = -1;
    int rc = kiln_fs_make_dirs(root, "dev", 0755, err);
    if (rc == 0)
        rc = kiln_fs_open_beneath(root, "dev", O_RDONLY | O_DIRECTORY, &dev, err);
    if (rc == 0)
        rc = bind_device(dev, "null", makedev(1, 3), err);
    if (rc == 0)
        rc = bind_device(dev, "zero", makedev(1, 5), err);
    kiln_autofree unsigned char *noise = malloc(NOISE_BYTES);
    if (!noise)
        return kiln_fail(err, KILN_E_NOMEM, "sandbox root");
    kiln_root_noise(seed, noise, NOISE_BYTES);
    if (rc == 0)
        rc = write_new_file(dev, "urandom", noise, NOISE_BYTES, err);
    if (rc == 0)
        rc = write_new_file(dev, "random", noise, NOISE_BYTES, err);
    return rc;
}

static int fill_observer_dir(int dir, const struct kiln_run_spec *spec, const struct kiln_root_owner *owner,
                             struct kiln_err *err) {
    const struct kiln_observe_header header = {.magic = KILN_OBSERVE_MAGIC,
                                               .version = KILN_OBSERVE_VERSION,
                                               .capacity = KILN_OBSERVE_LOG_BYTES - sizeof header};
    int rc = write_new_file(dir, "seed", spec->seed, sizeof spec->seed, err);
    if (rc)
        return rc;
    kiln_autofd int log = openat(dir, "log", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (log < 0 || ftruncate(log, KILN_OBSERVE_LOG_BYTES) < 0 || fchown(log, owner->uid, owner->gid) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "the observer's log");
    return kiln_fs_write_all(log, &header, sizeof header, err);
}

static int make_cwd(int root, const struct parts *parts, const char *cwd, struct kiln_err *err) {
    const char *rest;
    if (!strcmp(cwd, "/") || holder(parts->all, parts->count, cwd, &rest))
        return 0; // bwrap says when it is not there
    return kiln_fs_make_dirs(root, cwd + 1, 0755, err);
}

static int go_private(struct kiln_err *err) {
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "making this process's mounts private");
    return 0;
}

static int mount_root(int *dir, struct kiln_err *err) {
    if (mount("kiln", KILN_ROOT_PLACE, "tmpfs", MS_NOSUID | MS_NODEV, ROOT_OPTIONS) < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "a tmpfs over %s", KILN_ROOT_PLACE);
    *dir = open(KILN_ROOT_PLACE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *dir < 0 ? kiln_fail_errno(err, KILN_E_IO, "opening %s", KILN_ROOT_PLACE) : 0;
}

static int furnish(const struct kiln_run_spec *spec, const struct kiln_root_owner *owner, const struct parts *parts,
                   struct kiln_root *root, struct kiln_err *err) {
    int rc = attach(root->dir, parts, err);
    if (rc == 0)
        rc = make_devices(root->dir, spec->seed, err);
    if (rc == 0)
        rc = kiln_fs_make_dirs(root->dir, "proc", 0755, err);
    if (rc == 0)
        rc = make_cwd(root->dir, parts, spec->cwd, err);
    if (rc == 0)
        rc = kiln_fs_open_beneath(root->dir, spec->out_dir + 1, O_RDONLY | O_DIRECTORY, &root->out_dir, err);
    if (rc == 0)
        rc = kiln_fs_open_beneath(root->dir, spec->observer_dir + 1, O_RDONLY | O_DIRECTORY, &root->observer_dir, err);
    if (rc == 0)
        rc = fill_observer_dir(root->observer_dir, spec, owner, err);
    if (rc == 0)
        rc = make_files_and_links(root->dir, parts, spec, err);
    return rc;
}

int kiln_root_build(const struct kiln_run_spec *spec, const struct kiln_root_owner *owner, struct kiln_root *root,
                    struct kiln_err *err) {
    __attribute__((cleanup(release_parts))) struct parts parts = {0};
    struct kiln_root built = KILN_ROOT_INIT;
    int rc = go_private(err);
    if (rc == 0)
        rc = gather(spec, owner, &parts, err); // before the root hides what lies below its place
    if (rc == 0)
        rc = mount_root(&built.dir, err);
    if (rc == 0)
        rc = furnish(spec, owner, &parts, &built, err);
    if (rc == 0)
        rc = set_attributes(built.dir, READ_ONLY, 0, err);
    if (rc) {
        kiln_root_release(&built);
        return rc;
    }
    *root = built;
    return 0;
}

void kiln_root_release(struct kiln_root *root) {
    int *const fds[] = {&root->dir, &root->out_dir, &root->observer_dir};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (*fds[i] >= 0)
            close(kiln_steal_fd(fds[i]));
}
