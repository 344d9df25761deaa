#include "consumer/executor/collect.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/rustc/argv.h"
#include "lib/rustc/paths.h"

void kiln_collection_release(struct kiln_collection *collection) {
    for (size_t i = 0; i < collection->count; i++) {
        free(collection->files[i].name);
        if (collection->files[i].fd >= 0)
            close(collection->files[i].fd);
    }
    free(collection->files);
    *collection = (struct kiln_collection){0};
}

static bool is_depinfo(const char *name) {
    size_t len = strlen(name);
    return len > 2 && !strcmp(name + len - 2, ".d");
}

static int find_sandbox_path(int fd, uint64_t size, bool *found, struct kiln_err *err) {
    *found = false;
    if (size == 0)
        return 0;
    void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return kiln_fail_errno(err, KILN_E_IO, "map an output");
    const char *root = kiln_sandbox_root();
    *found = memmem(bytes, size, root, strlen(root)) != NULL;
    munmap(bytes, size);
    return 0;
}

// A second name (of an input, or of another output) is refused: rustc links only between files that it removes again.
static int check_file(int out_dir, int fd, const char *name, uint64_t left, struct stat *st, struct kiln_err *err) {
    struct stat dir;
    if (fstat(fd, st) || fstat(out_dir, &dir))
        return kiln_fail_errno(err, KILN_E_IO, "output %s", name);
    if (!S_ISREG(st->st_mode))
        return kiln_fail(err, KILN_E_DENIED, "output %s is not a regular file", name);
    if (st->st_nlink != 1)
        return kiln_fail(err, KILN_E_DENIED, "output %s has %lu names", name, (unsigned long)st->st_nlink);
    if (st->st_uid != dir.st_uid)
        return kiln_fail(err, KILN_E_DENIED, "output %s belongs to somebody else", name);
    if ((uint64_t)st->st_size > left)
        return kiln_fail(err, KILN_E_DENIED, "outputs are larger than %llu bytes", KILN_COLLECT_BYTES_MAX);
    return 0;
}

static int take_file(int out_dir, const char *name, bool executable, uint64_t *left, struct kiln_collection *collection,
                     struct kiln_err *err) {
    kiln_autofd int fd = -1;
    if (collection->count == KILN_COLLECT_FILES_MAX)
        return kiln_fail(err, KILN_E_DENIED, "more than %u outputs", KILN_COLLECT_FILES_MAX);
    struct kiln_err why;
    int rc = kiln_fs_open_beneath(out_dir, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, &fd, &why);
    if (rc == KILN_E_NOTFOUND)
        return kiln_fail(err, rc, "output %s is missing", name);
    if (rc == KILN_E_DENIED || (rc && why.sys_errno == ENXIO)) // ENXIO: a socket
        return kiln_fail(err, KILN_E_DENIED, "output %s cannot be opened as a plain file", name);
    if (rc)
        return kiln_fail(err, rc, "output %s: %s", name, why.text);
    struct stat st;
    struct kiln_collected file = {.executable = executable};
    rc = check_file(out_dir, fd, name, *left, &st, err);
    if (rc == 0 && !(file.name = strdup(name)))
        rc = kiln_fail(err, KILN_E_NOMEM, "collect");
    if (rc)
        return rc;
    file.size = (uint64_t)st.st_size;
    *left -= file.size;
    file.fd = kiln_steal_fd(&fd);
    collection->files[collection->count++] = file;
    return 0;
}

// Reads the bytes; after all files were found to be within the bounds, since that is much cheaper.
static int read_file(struct kiln_collected *file, struct kiln_err *err) {
    uint64_t size;
    int rc = kiln_digest_of_fd(file->fd, file->size, &file->digest, &size, err);
    if (rc == KILN_E_LIMIT || (rc == 0 && size != file->size))
        return kiln_fail(err, KILN_E_DENIED, "output %s changes while it is read", file->name);
    if (rc == 0 && !is_depinfo(file->name))
        rc = find_sandbox_path(file->fd, file->size, &file->holds_sandbox_path, err);
    return rc;
}

static bool is_taken(const struct kiln_collection *collection, const char *name) {
    for (size_t i = 0; i < collection->count; i++)
        if (!strcmp(collection->files[i].name, name))
            return true;
    return false;
}

// Names with an expected beginning: split debug info writes one file per unit, whose number nobody knows before.
static int take_prefixed(int out_dir, const struct kiln_expected_output *expected, uint64_t *left,
                         struct kiln_collection *collection, struct kiln_err *err) {
    int fd = openat(out_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    if (!list)
        return kiln_fail_errno(err, KILN_E_IO, "list outputs");
    size_t prefix = strlen(expected->name);
    int rc = 0;
    struct dirent *entry;
    while (rc == 0 && (entry = readdir(list)))
        if (!strncmp(entry->d_name, expected->name, prefix) && !is_taken(collection, entry->d_name) &&
            kiln_path_check_relative(entry->d_name, NULL) == 0)
            rc = take_file(out_dir, entry->d_name, expected->executable, left, collection, err);
    closedir(list);
    return rc;
}

static int take_expected(int out_dir, const struct kiln_expected_output *expected, uint64_t *left,
                         struct kiln_collection *collection, struct kiln_err *err) {
    if (expected->prefix)
        return take_prefixed(out_dir, expected, left, collection, err);
    if (is_taken(collection, expected->name))
        return 0;
    int rc = take_file(out_dir, expected->name, expected->executable, left, collection, err);
    return rc == KILN_E_NOTFOUND && !expected->required ? 0 : rc;
}

int kiln_collect(int out_dir, const struct kiln_action *action, struct kiln_collection *collection, struct kiln_err *err) {
    kiln_autocall struct kiln_rustc_call call = {0};
    const struct kiln_argv_options options = {.canonical = true};
    struct kiln_expected_output *expected = NULL;
    size_t count = 0;
    int rc = kiln_rustc_parse(action->argc, action->argv, &options, &call, err);
    if (rc == 0 && call.kind != KILN_CALL_COMPILE)
        rc = kiln_fail(err, KILN_E_DENIED, "the command line is no compile: %s", call.reason ? call.reason : "");
    if (rc == 0)
        rc = kiln_rustc_outputs(&call, &expected, &count, err);
    *collection = (struct kiln_collection){.files = calloc(KILN_COLLECT_FILES_MAX, sizeof *collection->files)};
    if (rc == 0 && !collection->files)
        rc = kiln_fail(err, KILN_E_NOMEM, "collect");
    uint64_t left = KILN_COLLECT_BYTES_MAX;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = take_expected(out_dir, &expected[i], &left, collection, err);
    for (size_t i = 0; rc == 0 && i < collection->count; i++)
        rc = read_file(&collection->files[i], err);
    kiln_rustc_outputs_free(expected, count);
    if (rc)
        kiln_collection_release(collection);
    return rc;
}
