#include "consumer/docker/mounts.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "consumer/run/source.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

#define MOUNTINFO_BYTES_MAX (4u << 20)
#define OWN_MOUNTS 7u

// Where Docker, or this backend, has something of its own.
static const char *const reserved[] = {"/etc", "/dev", "/proc", "/sys", "/.kiln", "/.dockerenv"};

static int check_place(const char *what, const char *path, struct kiln_err *err) {
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (kiln_path_beneath(path, reserved[i]))
            return kiln_fail(err, KILN_E_UNSUPPORTED, "%s %s: docker has %s for itself", what, path, reserved[i]);
    return 0;
}

// Docker makes mount points where there are none, in the root only: no way to one leads over a link or into somebody's tree.
static int check_mount_point(const struct kiln_layout *layout, size_t index, struct kiln_err *err) {
    const struct kiln_layout_part *part = &layout->parts[index];
    const char *rest;
    const struct kiln_layout_part *in = kiln_layout_holder(layout, index, part->dest, &rest);
    const bool file = part->bind && part->bind->file;
    if (!in || !in->bind)
        return check_place("mount", part->dest, err);
    kiln_autofd int point = -1;
    int rc = kiln_fs_open_beneath((int)in->bind->fd, rest, file ? O_PATH : O_PATH | O_DIRECTORY, &point, err);
    return rc ? kiln_wrap(err, rc, "mount %s: the tree at %s has no real %s there", part->dest, in->dest,
                          file ? "file" : "directory")
              : 0;
}

static int check_links(const struct kiln_run_spec *spec, const struct kiln_layout *layout, struct kiln_err *err) {
    for (size_t i = 0; i < spec->links_count; i++) {
        const char *link = spec->links[i].path;
        int rc = check_place("link", link, err);
        if (rc == 0)
            rc = kiln_layout_check_free(layout, link, err);
        for (size_t k = 0; rc == 0 && k < layout->count; k++)
            if (kiln_path_beneath(layout->parts[k].dest, link))
                rc = kiln_fail(err, KILN_E_INVAL, "mount %s: there is a link on its way", layout->parts[k].dest);
        if (rc)
            return kiln_wrap(err, rc, "link %s", link);
    }
    return 0;
}

int kiln_mounts_check(const struct kiln_run_spec *spec, const struct kiln_layout *layout, struct kiln_err *err) {
    int rc = check_links(spec, layout, err);
    for (size_t i = 0; rc == 0 && i < layout->count; i++)
        rc = check_mount_point(layout, i, err);
    for (size_t i = 0; rc == 0 && i < spec->files_count; i++)
        rc = kiln_layout_check_free(layout, spec->files[i].path, err);
    return rc ? rc : check_place("working directory", spec->cwd, err);
}

// "\040" and the like, in place.
static void unescape(char *text) {
    char *to = text;
    for (const char *at = text; *at; to++) {
        bool octal = at[0] == '\\' && at[1] >= '0' && at[1] <= '3' && at[2] >= '0' && at[2] <= '7' && at[3] >= '0' && at[3] <= '7';
        *to = octal ? (char)((at[1] - '0') * 64 + (at[2] - '0') * 8 + (at[3] - '0')) : *at;
        at += octal ? 4 : 1;
    }
    *to = 0;
}

// Docker leaves mounts below a read-only one writable, or out.
static int check_no_mount_below(const char *mountinfo, const char *source, struct kiln_err *err) {
    for (const char *line = mountinfo; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        kiln_autofree char *copy = strndup(line, strcspn(line, "\n"));
        char *rest = copy, *point = NULL;
        for (int field = 0; field < 5 && rest; field++)
            point = strsep(&rest, " ");
        if (!point)
            continue;
        unescape(point);
        const char *below = kiln_path_beneath(point, source);
        if (below && *below)
            return kiln_fail(err, KILN_E_UNSUPPORTED, "%s has a mount below it, %s, which docker cannot bind read-only", source, point);
    }
    return 0;
}

static int add(struct kiln_mounts *mounts, const char *source, const char *dest, const struct stat *st, struct kiln_err *err) {
    char *source_copy = strdup(source), *dest_copy = strdup(dest);
    if (!source_copy || !dest_copy) {
        free(source_copy);
        free(dest_copy);
        return kiln_fail(err, KILN_E_NOMEM, "mounts");
    }
    mounts->sources[mounts->count] = source_copy;
    mounts->all[mounts->count++] = (struct kiln_gate_mount){.dest = dest_copy, .device = st->st_dev, .inode = st->st_ino};
    return 0;
}

static int add_own(struct kiln_mounts *mounts, const struct kiln_job_dir *job, const char *name, const char *dest,
                   struct kiln_err *err) {
    kiln_autofree char *source = kiln_path_join(job->path, name);
    struct stat st;
    if (!source)
        return kiln_fail(err, KILN_E_NOMEM, "mounts");
    if (fstatat(job->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "%s", source);
    return add(mounts, source, dest, &st, err);
}

static int add_device(struct kiln_mounts *mounts, const char *path, dev_t device, struct kiln_err *err) {
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != device)
        return kiln_fail(err, KILN_E_NOTFOUND, "the host's %s is not the device of that name", path);
    return add(mounts, path, path, &st, err);
}

static int add_neutral(struct kiln_mounts *mounts, const struct kiln_job_dir *job, struct kiln_err *err) {
    static const char *const own[OWN_MOUNTS - 2][2] = {{"etc", "/etc"}, {"dev", "/dev"}, {"empty", "/etc/hostname"},
                                                       {"empty", "/etc/hosts"}, {"empty", "/etc/resolv.conf"}};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof own / sizeof *own; i++)
        rc = add_own(mounts, job, own[i][0], own[i][1], err);
    if (rc == 0)
        rc = add_device(mounts, "/dev/null", makedev(1, 3), err);
    return rc ? rc : add_device(mounts, "/dev/zero", makedev(1, 5), err);
}

static int add_bind(struct kiln_mounts *mounts, const struct kiln_run_bind *bind, const char *mountinfo, struct kiln_err *err) {
    kiln_autofree char *source = NULL;
    kiln_autofd int found = -1;
    struct stat st;
    int rc = kiln_source_find(bind, &found, &source, err);
    if (rc == 0)
        rc = check_no_mount_below(mountinfo, source, err);
    if (rc == 0 && fstat(found, &st) < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "%s", source);
    if (rc == 0)
        rc = add(mounts, source, bind->dest, &st, err);
    return rc ? kiln_wrap(err, rc, "bind %s", bind->dest) : 0;
}

int kiln_mounts_make(const struct kiln_layout *layout, const struct kiln_job_dir *job, struct kiln_mounts *mounts,
                     struct kiln_err *err) {
    kiln_autobuf struct kiln_buf mountinfo = KILN_BUF_INIT(MOUNTINFO_BYTES_MAX);
    struct kiln_mounts made = {.all = calloc(layout->count + OWN_MOUNTS, sizeof *made.all),
                               .sources = calloc(layout->count + OWN_MOUNTS, sizeof *made.sources)};
    int rc = made.all && made.sources ? 0 : kiln_fail(err, KILN_E_NOMEM, "mounts");
    if (rc == 0)
        rc = kiln_fs_read_file(AT_FDCWD, "/proc/self/mountinfo", &mountinfo, err);
    if (rc == 0)
        rc = add_neutral(&made, job, err);
    for (size_t i = 0; rc == 0 && i < layout->count; i++)
        if (layout->parts[i].bind)
            rc = add_bind(&made, layout->parts[i].bind, kiln_buf_text(&mountinfo), err);
    if (rc)
        kiln_mounts_release(&made);
    else
        *mounts = made;
    return rc;
}

void kiln_mounts_release(struct kiln_mounts *mounts) {
    for (size_t i = 0; i < mounts->count; i++) {
        free(mounts->all[i].dest);
        free(mounts->sources[i]);
    }
    free(mounts->all);
    free(mounts->sources);
    *mounts = (struct kiln_mounts){0};
}
