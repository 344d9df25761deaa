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

#include "consumer/run/layout.h"
#include "consumer/run/observer_dir.h"
#include "consumer/run/source.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

#define ROOT_OPTIONS "mode=0755,size=24m,nr_inodes=8192"
#define READ_ONLY (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define SCRATCH (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
#define DEVICE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)

// The layout, and a detached mount for each part of it until that has its place.
struct parts {
    struct kiln_layout layout;
    int *trees;
    size_t opened;
};

static void release_parts(struct parts *parts) {
    while (parts->opened)
        close(parts->trees[--parts->opened]);
    free(parts->trees);
    kiln_layout_release(&parts->layout);
}

static int set_attributes(int tree, uint64_t attributes, unsigned flags, struct kiln_err *err) {
    struct mount_attr attr = {.attr_set = attributes};
    if (mount_setattr(tree, "", AT_EMPTY_PATH | flags, &attr, sizeof attr) < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "making a mount read-only (needs Linux 5.12)");
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

static int clone_bind(const struct kiln_run_bind *bind, int *tree, struct kiln_err *err) {
    kiln_autofd int source = -1;
    int rc = kiln_source_find(bind, &source, NULL, err);
    if (rc == 0)
        rc = clone_tree(source, READ_ONLY, tree, err);
    return rc ? kiln_wrap(err, rc, "bind %s", bind->dest) : 0;
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

static int make_scratch(const struct kiln_layout_part *scratch, const struct kiln_root_owner *owner, int *tree,
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
    int mounted = fsmount(fs, FSMOUNT_CLOEXEC, SCRATCH);
    if (mounted < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "a tmpfs for %s", scratch->dest);
    *tree = mounted;
    return 0;
}

static int gather(const struct kiln_run_spec *spec, const struct kiln_root_owner *owner, struct parts *parts,
                  struct kiln_err *err) {
    int rc = kiln_layout_make(spec, &parts->layout, err);
    if (rc)
        return rc;
    parts->trees = calloc(parts->layout.count, sizeof *parts->trees);
    if (!parts->trees)
        return kiln_fail(err, KILN_E_NOMEM, "sandbox root");
    for (size_t i = 0; i < parts->layout.count; i++) {
        const struct kiln_layout_part *part = &parts->layout.parts[i];
        int *tree = &parts->trees[i];
        rc = part->bind ? clone_bind(part->bind, tree, err) : make_scratch(part, owner, tree, err);
        if (rc)
            return rc;
        parts->opened++;
    }
    return 0;
}

static int make_empty_file(int dir, const char *path, struct kiln_err *err) {
    int rc = kiln_fs_make_parents(dir, path, 0755, err);
    return rc ? rc : kiln_fs_make_file(dir, path, NULL, 0, 0444, err);
}

// Opens the mount point of a part below `root`: made where it lies in a tmpfs of ours, else it must be there.
static int open_mount_point(int root, const struct kiln_layout *layout, size_t index, int *point, struct kiln_err *err) {
    const struct kiln_layout_part *part = &layout->parts[index];
    const char *rest;
    const struct kiln_layout_part *in = kiln_layout_holder(layout, index, part->dest, &rest);
    const bool file = part->bind && part->bind->file;
    kiln_autofd int base = -1;
    int rc = kiln_fs_open_beneath(root, in ? in->dest + 1 : ".", O_PATH | O_DIRECTORY, &base, err);
    if (rc == 0 && (!in || !in->bind))
        rc = file ? make_empty_file(base, rest, err) : kiln_fs_make_dirs(base, rest, 0755, err);
    if (rc == 0)
        rc = kiln_fs_open_beneath(base, rest, file ? O_PATH : O_PATH | O_DIRECTORY, point, err);
    if (rc && in && in->bind)
        return kiln_wrap(err, rc, "mount %s: the tree at %s has no real %s there", part->dest, in->dest,
                         file ? "file" : "directory");
    return rc ? kiln_wrap(err, rc, "mount %s", part->dest) : 0;
}

static int attach(int root, const struct parts *parts, struct kiln_err *err) {
    for (size_t i = 0; i < parts->layout.count; i++) {
        kiln_autofd int point = -1;
        int rc = open_mount_point(root, &parts->layout, i, &point, err);
        if (rc)
            return rc;
        if (move_mount(parts->trees[i], "", point, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
            return kiln_fail_errno(err, KILN_E_DENIED, "mounting %s", parts->layout.parts[i].dest);
    }
    return 0;
}

// Makes room in our own tmpfs for a file or link at `path`, and nothing else may lie there.
static int make_room(int root, const struct kiln_layout *layout, const char *path, struct kiln_err *err) {
    int rc = kiln_layout_check_free(layout, path, err);
    return rc ? rc : kiln_fs_make_parents(root, path + 1, 0755, err);
}

static int make_files_and_links(int root, const struct kiln_layout *layout, const struct kiln_run_spec *spec,
                                struct kiln_err *err) {
    for (size_t i = 0; i < spec->files_count; i++) {
        const struct kiln_run_file *file = &spec->files[i];
        int rc = make_room(root, layout, file->path, err);
        if (rc == 0)
            rc = kiln_fs_make_file(root, file->path + 1, file->data, file->len, 0444, err);
        if (rc)
            return kiln_wrap(err, rc, "file %s", file->path);
    }
    // After everything that walks paths of the root, so that no walk meets a link.
    for (size_t i = 0; i < spec->links_count; i++) {
        const struct kiln_run_link *link = &spec->links[i];
        int rc = make_room(root, layout, link->path, err);
        if (rc == 0 && symlinkat(link->target, root, link->path + 1) < 0)
            rc = kiln_fail_errno(err, KILN_E_IO, "making it");
        if (rc)
            return kiln_wrap(err, rc, "link %s", link->path);
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
    kiln_autofree unsigned char *noise = malloc(KILN_ROOT_NOISE_BYTES);
    if (!noise)
        return kiln_fail(err, KILN_E_NOMEM, "sandbox root");
    kiln_root_noise(seed, noise, KILN_ROOT_NOISE_BYTES);
    if (rc == 0)
        rc = kiln_fs_make_file(dev, "urandom", noise, KILN_ROOT_NOISE_BYTES, 0444, err);
    if (rc == 0)
        rc = kiln_fs_make_file(dev, "random", noise, KILN_ROOT_NOISE_BYTES, 0444, err);
    return rc;
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
        rc = kiln_layout_makes_cwd(&parts->layout, spec) ? kiln_fs_make_dirs(root->dir, spec->cwd + 1, 0755, err) : 0;
    if (rc == 0)
        rc = kiln_fs_open_beneath(root->dir, spec->out_dir + 1, O_RDONLY | O_DIRECTORY, &root->out_dir, err);
    if (rc == 0)
        rc = kiln_fs_open_beneath(root->dir, spec->observer_dir + 1, O_RDONLY | O_DIRECTORY, &root->observer_dir, err);
    if (rc == 0)
        rc = kiln_fs_open_beneath(root->dir, spec->tmp_dir + 1, O_RDONLY | O_DIRECTORY, &root->tmp_dir, err);
    if (rc == 0)
        rc = kiln_observer_dir_fill(root->observer_dir, spec, owner->uid, owner->gid, err);
    if (rc == 0)
        rc = make_files_and_links(root->dir, &parts->layout, spec, err);
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
    int *const fds[] = {&root->dir, &root->out_dir, &root->observer_dir, &root->tmp_dir};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (*fds[i] >= 0)
            close(kiln_steal_fd(fds[i]));
}
