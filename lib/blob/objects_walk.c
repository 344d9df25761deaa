#include "lib/blob/objects_walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"

struct object {
    char *key;
    uint64_t bytes;
    int64_t used_ns;
};

struct walk {
    int top;
    const char *except;
    struct object *objects;
    size_t count, cap;
    struct kiln_err *err;
};

static bool is_dot(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

static DIR *open_listing(int dir, const char *name) {
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    if (!listing && fd >= 0)
        close(fd);
    return listing;
}

void kiln_objects_walk_dir(int dir, const char *name, int (*visit)(int dir, const char *name)) {
    DIR *listing = open_listing(dir, name);
    if (!listing)
        return;
    for (struct dirent *entry; (entry = readdir(listing));)
        if (!is_dot(entry->d_name))
            visit(dirfd(listing), entry->d_name);
    closedir(listing);
}

static int64_t used_at(const struct stat *st) {
    int64_t read = kiln_object_time(&st->st_atim), written = kiln_object_time(&st->st_mtim);
    return read > written ? read : written;
}

// Takes ownership of the key, also on failure.
static int add_object(struct walk *walk, char *key, const struct stat *st) {
    if (walk->count == walk->cap) {
        size_t cap = walk->cap ? walk->cap * 2 : 256;
        struct object *objects = realloc(walk->objects, cap * sizeof *objects);
        if (!objects) {
            free(key);
            return kiln_fail(walk->err, KILN_E_NOMEM, "no memory to walk a store");
        }
        walk->objects = objects;
        walk->cap = cap;
    }
    walk->objects[walk->count++] =
        (struct object){.key = key, .bytes = kiln_object_bytes(st), .used_ns = used_at(st)};
    return 0;
}

static int walk_dir(struct walk *walk, const char *prefix, int depth);

static int walk_entry(struct walk *walk, int dir, const char *prefix, const char *name, int depth) {
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
        return 0; // removed since it was listed
    char *key = kiln_path_join(prefix, name);
    if (!key)
        return kiln_fail(walk->err, KILN_E_NOMEM, "no memory to walk a store");
    if (S_ISREG(st.st_mode))
        return add_object(walk, key, &st);
    int rc = S_ISDIR(st.st_mode) && depth < KILN_PATH_DEPTH_MAX ? walk_dir(walk, key, depth + 1) : 0;
    free(key);
    return rc;
}

static int walk_dir(struct walk *walk, const char *prefix, int depth) {
    DIR *listing = open_listing(walk->top, depth ? prefix : ".");
    if (!listing)
        return errno == ENOENT ? 0 : kiln_fail_errno(walk->err, KILN_E_IO, "cannot list %s in a store", prefix);
    int rc = 0;
    for (struct dirent *entry; rc == 0 && (entry = readdir(listing));)
        if (!is_dot(entry->d_name) && (depth || strcmp(entry->d_name, walk->except) != 0))
            rc = walk_entry(walk, dirfd(listing), prefix, entry->d_name, depth);
    closedir(listing);
    return rc;
}

static int by_use(const void *a, const void *b) {
    const struct object *left = a, *right = b;
    if (left->used_ns != right->used_ns)
        return left->used_ns < right->used_ns ? -1 : 1;
    return strcmp(left->key, right->key);
}

// False when it was used after the walk saw it, or cannot be removed.
static bool remove_unused(int top, const struct object *object) {
    struct stat st;
    if (fstatat(top, object->key, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT;
    return used_at(&st) == object->used_ns && unlinkat(top, object->key, 0) == 0;
}

static void remove_oldest(struct walk *walk, uint64_t max_bytes, int64_t keep_ns, struct kiln_objects_usage *usage) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t limit_ns = kiln_object_time(&now) - keep_ns;
    qsort(walk->objects, walk->count, sizeof *walk->objects, by_use);
    for (size_t i = 0; i < walk->count && usage->bytes > max_bytes; i++) {
        if (walk->objects[i].used_ns > limit_ns)
            break;
        if (!remove_unused(walk->top, &walk->objects[i]))
            continue;
        usage->bytes -= walk->objects[i].bytes;
        usage->removed_bytes += walk->objects[i].bytes;
        usage->objects--;
    }
}

int kiln_objects_walk_prune(int dir, const char *except, uint64_t max_bytes, int64_t keep_ns,
                            struct kiln_objects_usage *usage, struct kiln_err *err) {
    struct walk walk = {.top = dir, .except = except, .err = err};
    struct kiln_objects_usage counted = {0};
    int rc = walk_dir(&walk, "", 0);
    for (size_t i = 0; i < walk.count; i++)
        counted.bytes += walk.objects[i].bytes;
    counted.objects = walk.count;
    if (rc == 0 && counted.bytes > max_bytes)
        remove_oldest(&walk, max_bytes, keep_ns, &counted);
    for (size_t i = 0; i < walk.count; i++)
        free(walk.objects[i].key);
    free(walk.objects);
    if (rc == 0)
        *usage = counted;
    return rc;
}
