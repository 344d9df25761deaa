#include "lib/core/dir_walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"

#define DEPTH_MAX 64

void kiln_dir_walk_release(struct kiln_dir_walk *walk) {
    for (size_t i = 0; i < walk->count; i++) {
        free(walk->entries[i].path);
        free(walk->entries[i].target);
    }
    free(walk->entries);
    if (walk->root >= 0)
        close(walk->root);
}

static int push(struct kiln_dir_walk *walk, const char *path, enum kiln_tree_kind kind, const struct stat *st, const char *target,
                struct kiln_err *err) {
    if (walk->count == KILN_DIR_ENTRIES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "more than %u entries", KILN_DIR_ENTRIES_MAX);
    if (walk->count == walk->cap) {
        size_t cap = walk->cap ? walk->cap * 2 : 64;
        struct kiln_dir_entry *grown = realloc(walk->entries, cap * sizeof *grown);
        if (!grown)
            return kiln_fail(err, KILN_E_NOMEM, "directory walk");
        walk->entries = grown;
        walk->cap = cap;
    }
    struct kiln_dir_entry entry = {.path = strdup(path), .kind = kind, .st = *st, .target = target ? strdup(target) : NULL};
    if (!entry.path || (target && !entry.target)) {
        free(entry.path);
        free(entry.target);
        return kiln_fail(err, KILN_E_NOMEM, "directory walk");
    }
    walk->entries[walk->count++] = entry;
    if (kind == KILN_TREE_FILE && (walk->bytes += (uint64_t)st->st_size) > KILN_DIR_BYTES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "more than %llu bytes", (unsigned long long)KILN_DIR_BYTES_MAX);
    return 0;
}

static bool is_version_control(const char *name) {
    return !strcmp(name, ".git") || !strcmp(name, ".hg") || !strcmp(name, ".svn") || !strcmp(name, ".jj");
}

static bool skipped_at_root(const struct kiln_dir_walk *walk, const char *name) {
    switch (walk->rule) {
    case KILN_DIR_PACKAGE:
        return name[0] == '.' || !strcmp(name, "target");
    case KILN_DIR_GENERATED: {
        size_t len = strlen(name);
        return len > 2 && !strcmp(name + len - 2, ".d");
    }
    case KILN_DIR_LIBRARIES:
        return strncmp(name, "lib", 3) != 0;
    }
    return true;
}

static bool stays_inside(const char *path, const char *target) {
    if (target[0] == '/' || !target[0])
        return false;
    char joined[2 * PATH_MAX + 4];
    const char *slash = strrchr(path, '/');
    int dir_len = slash ? (int)(slash - path) : 0;
    if (snprintf(joined, sizeof joined, "/%.*s/%s", dir_len, path, target) >= (int)sizeof joined)
        return false;
    kiln_autofree char *normal = kiln_path_normalize(joined);
    return normal != NULL;
}

static int walk_directory(struct kiln_dir_walk *walk, int dirfd, const char *prefix, int depth, struct kiln_err *err);

static int walk_subdirectory(struct kiln_dir_walk *walk, int dirfd, const char *name, const char *path, const struct stat *st,
                             int depth, struct kiln_err *err) {
    kiln_autofd int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_IO, "open %s", path);
    if (walk->rule == KILN_DIR_PACKAGE && (is_version_control(name) || faccessat(fd, "CACHEDIR.TAG", F_OK, 0) == 0))
        return push(walk, path, KILN_TREE_WITHHELD, st, NULL, err);
    int rc = push(walk, path, KILN_TREE_DIR, st, NULL, err);
    return rc ? rc : walk_directory(walk, kiln_steal_fd(&fd), path, depth + 1, err);
}

static int walk_entry(struct kiln_dir_walk *walk, int dirfd, const char *name, const char *prefix, int depth, struct kiln_err *err) {
    char path[PATH_MAX];
    struct stat st;
    if (snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "/" : "", name) >= (int)sizeof path)
        return kiln_fail(err, KILN_E_LIMIT, "path too long below %s", prefix);
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW))
        return kiln_fail_errno(err, KILN_E_IO, "stat %s", path);
    if (walk->rule == KILN_DIR_LIBRARIES && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
        return 0;
    if (S_ISREG(st.st_mode))
        return push(walk, path, KILN_TREE_FILE, &st, NULL, err);
    if (S_ISDIR(st.st_mode))
        return walk_subdirectory(walk, dirfd, name, path, &st, depth, err);
    if (S_ISLNK(st.st_mode)) {
        char target[PATH_MAX];
        ssize_t len = readlinkat(dirfd, name, target, sizeof target - 1);
        if (len < 0)
            return kiln_fail_errno(err, KILN_E_IO, "readlink %s", path);
        target[len] = 0;
        if (stays_inside(path, target))
            return push(walk, path, KILN_TREE_LINK, &st, target, err);
    }
    return push(walk, path, KILN_TREE_WITHHELD, &st, NULL, err);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// Takes ownership of dirfd. Names are sorted, so that the identity does not depend on the file system's order.
static int walk_directory(struct kiln_dir_walk *walk, int dirfd, const char *prefix, int depth, struct kiln_err *err) {
    if (depth > DEPTH_MAX) {
        close(dirfd);
        return kiln_fail(err, KILN_E_LIMIT, "deeper than %d directories at %s", DEPTH_MAX, prefix);
    }
    DIR *dir = fdopendir(dirfd);
    if (!dir) {
        close(dirfd);
        return kiln_fail_errno(err, KILN_E_IO, "list %s", prefix);
    }
    char **names = NULL;
    size_t count = 0, cap = 0;
    int rc = 0;
    struct dirent *item;
    while (rc == 0 && (errno = 0, item = readdir(dir))) {
        if (!strcmp(item->d_name, ".") || !strcmp(item->d_name, "..") || (!*prefix && skipped_at_root(walk, item->d_name)))
            continue;
        if (count == cap) {
            cap = cap ? cap * 2 : 32;
            char **grown = realloc(names, cap * sizeof *grown);
            if (!grown) {
                rc = kiln_fail(err, KILN_E_NOMEM, "directory walk");
                break;
            }
            names = grown;
        }
        if (count > KILN_DIR_ENTRIES_MAX || !(names[count] = strdup(item->d_name)))
            rc = kiln_fail(err, KILN_E_LIMIT, "too many entries in %s", prefix);
        else
            count++;
    }
    if (count)
        qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++) {
        if (rc == 0)
            rc = walk_entry(walk, dirfd, names[i], prefix, depth, err);
        free(names[i]);
    }
    free(names);
    closedir(dir);
    return rc;
}

int kiln_dir_walk_start(struct kiln_dir_walk *walk, const char *dir, enum kiln_dir_rule rule, struct kiln_err *err) {
    *walk = (struct kiln_dir_walk){.rule = rule};
    walk->root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (walk->root < 0)
        return kiln_fail_errno(err, errno == ENOENT ? KILN_E_NOTFOUND : KILN_E_IO, "open %s", dir);
    int fd = openat(walk->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? kiln_fail_errno(err, KILN_E_IO, "open %s", dir) : walk_directory(walk, fd, "", 0, err);
    return rc ? kiln_wrap(err, rc, "inputs in %s", dir) : 0;
}
