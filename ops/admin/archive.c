#include "ops/admin/archive.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/base/proc.h"
#include "lib/core/dir_walk.h"

#define ARCHIVE_BYTES_MAX (1ull << 30)
#define UNPACK_MS 120000u
#define SUFFIX ".crate"

int kiln_archive_identify(const char *file, struct kiln_archive *archive, struct kiln_err *err) {
    const char *slash = strrchr(file, '/'), *name = slash ? slash + 1 : file;
    size_t len = strlen(name), suffix_len = sizeof SUFFIX - 1;
    if (len <= suffix_len || strcmp(name + len - suffix_len, SUFFIX) != 0 || len - suffix_len >= sizeof archive->package)
        return kiln_fail(err, KILN_E_INVAL, "%s: not NAME-VERSION.crate", file);
    kiln_autofd int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "%s", file);
    uint64_t size;
    int rc = kiln_digest_of_fd(fd, ARCHIVE_BYTES_MAX, &archive->archive, &size, err);
    if (rc)
        return kiln_wrap(err, rc, "%s", file);
    memcpy(archive->package, name, len - suffix_len);
    archive->package[len - suffix_len] = '\0';
    return 0;
}

static int unpack(const char *file, const char *into, struct kiln_err *err) {
    char *argv[] = {(char *)"tar", (char *)"--extract", (char *)"--gzip", (char *)"--file", (char *)file, (char *)"--directory",
                    (char *)into, (char *)"--no-same-owner", NULL};
    char *envp[] = {(char *)"PATH=/usr/bin:/bin", NULL};
    const struct kiln_proc_options options = {.program = "/bin/tar", .argv = argv, .envp = envp};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(65536);
    kiln_autobuf struct kiln_buf said = KILN_BUF_INIT(65536);
    int status, rc = kiln_proc_run(&options, kiln_clock_ms() + UNPACK_MS, &out, &said, &status, err);
    if (!rc && status)
        rc = kiln_fail(err, KILN_E_CORRUPT, "tar: %.200s", kiln_buf_text(&said));
    return rc;
}

static int add_entry(const struct kiln_dir_walk *walk, const struct kiln_dir_entry *entry, struct kiln_tree *tree, struct kiln_err *err) {
    struct kiln_digest digest;
    uint64_t size;
    switch (entry->kind) {
    case KILN_TREE_DIR:
        return kiln_tree_add_dir(tree, entry->path, err);
    case KILN_TREE_LINK:
        return kiln_tree_add_link(tree, entry->path, entry->target, err);
    case KILN_TREE_WITHHELD:
        return kiln_tree_add_withheld(tree, entry->path, err);
    case KILN_TREE_FILE:
        break;
    }
    kiln_autofd int fd = -1;
    int rc = kiln_fs_open_beneath(walk->root, entry->path, O_RDONLY | O_NONBLOCK, &fd, err);
    if (!rc)
        rc = kiln_digest_of_fd(fd, KILN_DIR_BYTES_MAX, &digest, &size, err);
    return rc ? rc : kiln_tree_add_file(tree, entry->path, entry->st.st_mode & 0111, size, &digest, err);
}

static int digest_tree(const char *dir, struct kiln_digest *digest, struct kiln_err *err) {
    kiln_autodir_walk struct kiln_dir_walk walk;
    kiln_autotree struct kiln_tree tree = {0};
    int rc = kiln_dir_walk_start(&walk, dir, KILN_DIR_PACKAGE, err);
    for (size_t i = 0; !rc && i < walk.count; i++)
        rc = add_entry(&walk, &walk.entries[i], &tree, err);
    if (!rc)
        rc = kiln_tree_finish(&tree, err);
    return rc ? rc : kiln_tree_digest(&tree, digest, err);
}

int kiln_archive_take_tree(const char *file, const char *scratch, struct kiln_archive *archive, struct kiln_err *err) {
    kiln_autofree char *into = kiln_path_join(scratch, "unpacked"), *dir = into ? kiln_path_join(into, archive->package) : NULL;
    if (!dir)
        return kiln_fail(err, KILN_E_NOMEM, "%s: out of memory", file);
    int rc = kiln_fs_make_dirs(AT_FDCWD, into, 0700, err);
    if (!rc)
        rc = unpack(file, into, err);
    if (!rc)
        rc = digest_tree(dir, &archive->tree, err);
    kiln_fs_remove_tree(AT_FDCWD, into, NULL);
    return rc ? kiln_wrap(err, rc, "%s", file) : 0;
}
