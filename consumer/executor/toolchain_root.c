#include "consumer/executor/toolchain_root.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/core/tree.h"

#define PART_FILE_BYTES_MAX (2ull << 30)

static int link_file(int from, int to, const struct kiln_tree_entry *entry, struct kiln_err *err) {
    kiln_autofd int fd = -1;
    int rc = kiln_fs_open_beneath(from, entry->path, O_RDONLY, &fd, err);
    struct kiln_digest digest;
    uint64_t size;
    if (rc == 0)
        rc = kiln_digest_of_fd(fd, PART_FILE_BYTES_MAX, &digest, &size, err);
    if (rc == 0 && (!kiln_digest_equal(&digest, &entry->digest) || size != entry->size))
        rc = kiln_fail(err, KILN_E_CORRUPT, "staged toolchain file %s was changed", entry->path);
    if (rc == 0 && linkat(from, entry->path, to, entry->path, 0) && errno != EEXIST)
        rc = kiln_fail_errno(err, KILN_E_IO, "link %s", entry->path);
    return rc;
}

static int link_part(const char *dir, const struct kiln_digest *part, int to, struct kiln_err *err) {
    char hex[KILN_DIGEST_HEX_LEN + 1], path[PATH_MAX];
    kiln_digest_format(part, hex);
    snprintf(path, sizeof path, "%s/toolchains/%s", dir, hex);
    kiln_autofd int staged = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    kiln_autofd int from = staged < 0 ? -1 : openat(staged, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (from < 0)
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "toolchain part %s is not staged", hex);
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    kiln_autotree struct kiln_tree tree = {0};
    struct kiln_digest digest;
    int rc = kiln_fs_read_file(staged, "tree", &encoding, err);
    if (rc == 0)
        kiln_digest_of(encoding.data, encoding.len, &digest);
    if (rc == 0 && !kiln_digest_equal(&digest, part))
        rc = kiln_fail(err, KILN_E_CORRUPT, "toolchain part %s has another tree", hex);
    if (rc == 0)
        rc = kiln_tree_decode(encoding.data, encoding.len, &tree, err);
    for (size_t i = 0; rc == 0 && i < tree.count; i++) {
        if (tree.entries[i].kind == KILN_TREE_DIR)
            rc = kiln_fs_make_dirs(to, tree.entries[i].path, 0755, err);
        else if (tree.entries[i].kind == KILN_TREE_FILE)
            rc = link_file(from, to, &tree.entries[i], err);
    }
    return rc;
}

static int merge(const char *dir, const struct kiln_action *action, int toolchains, const char *name, struct kiln_err *err) {
    char temporary[64];
    snprintf(temporary, sizeof temporary, ".merge-%d-%llu", (int)gettid(), (unsigned long long)kiln_clock_us());
    int rc = kiln_fs_make_dirs(toolchains, temporary, 0755, err);
    kiln_autofd int to = rc ? -1 : openat(toolchains, temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == 0 && to < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "merge toolchain");
    const struct kiln_digest *const parts[] = {&action->toolchain_runtime, &action->toolchain_rustc, &action->toolchain_link};
    for (size_t i = 0; rc == 0 && i < 3; i++)
        if (!kiln_digest_is_zero(parts[i]))
            rc = link_part(dir, parts[i], to, err);
    if (rc == 0 && renameat2(toolchains, temporary, toolchains, name, RENAME_NOREPLACE) && errno != EEXIST)
        rc = kiln_fail_errno(err, KILN_E_IO, "publish %s", name);
    kiln_fs_remove_tree(toolchains, temporary, NULL);
    return rc;
}

int kiln_toolchain_root_open(const char *dir, const struct kiln_action *action, int *fd, struct kiln_err *err) {
    struct kiln_digest all;
    unsigned char bytes[96];
    memcpy(bytes, action->toolchain_runtime.bytes, 32);
    memcpy(bytes + 32, action->toolchain_rustc.bytes, 32);
    memcpy(bytes + 64, action->toolchain_link.bytes, 32);
    kiln_digest_of(bytes, sizeof bytes, &all);
    char hex[KILN_DIGEST_HEX_LEN + 1], name[KILN_DIGEST_HEX_LEN + 16], path[PATH_MAX];
    kiln_digest_format(&all, hex);
    snprintf(name, sizeof name, "merged-%s", hex);
    snprintf(path, sizeof path, "%s/toolchains", dir);
    kiln_autofd int toolchains = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (toolchains < 0)
        return kiln_fail_errno(err, KILN_E_IO, "open %s", path);
    int found = openat(toolchains, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = 0;
    if (found < 0) {
        rc = merge(dir, action, toolchains, name, err);
        if (rc == 0 && (found = openat(toolchains, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
            rc = kiln_fail_errno(err, KILN_E_IO, "open %s", name);
    }
    if (rc)
        return rc;
    *fd = found;
    return 0;
}
