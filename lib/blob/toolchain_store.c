#include "lib/blob/toolchain_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/core/tree.h"

char *kiln_key_toolchain(const struct kiln_digest *part) {
    char hex[KILN_DIGEST_HEX_LEN + 1], *key;
    kiln_digest_format(part, hex);
    return asprintf(&key, "toolchain/%s", hex) < 0 ? NULL : key;
}

bool kiln_toolchain_is_published(struct kiln_store *store, const struct kiln_digest *part) {
    kiln_autofree char *key = kiln_key_toolchain(part);
    return key && kiln_store_has(store, KILN_SPACE_VAULT, key);
}

static int read_tree(int stage_dir, const struct kiln_digest *part, struct kiln_tree *tree, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    char path[KILN_DIGEST_HEX_LEN + 8], hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(part, hex);
    snprintf(path, sizeof path, "%s/tree", hex);
    int rc = kiln_fs_read_file(stage_dir, path, &encoding, err);
    return rc ? rc : kiln_tree_decode(encoding.data, encoding.len, tree, err);
}

static int open_scratch(int stage_dir, int *fd, struct kiln_err *err) {
    *fd = openat(stage_dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return *fd < 0 ? kiln_fail_errno(err, KILN_E_IO, "no unnamed file for a toolchain") : 0;
}

int kiln_toolchain_publish(struct kiln_store *store, int stage_dir, const struct kiln_digest *part, struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_toolchain(part);
    kiln_autotree struct kiln_tree tree = {0};
    kiln_autofd int pack = -1;
    char path[KILN_DIGEST_HEX_LEN + 8], hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(part, hex);
    snprintf(path, sizeof path, "%s/root", hex);
    kiln_autofd int root = openat(stage_dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!key || root < 0)
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "toolchain part %s is not staged", hex);
    int rc = read_tree(stage_dir, part, &tree, err);
    if (rc == 0)
        rc = open_scratch(stage_dir, &pack, err);
    if (rc == 0)
        rc = kiln_pack_write(&tree, root, pack, err);
    if (rc == 0)
        rc = kiln_pack_verify(pack, part, NULL, err);
    struct kiln_digest bytes;
    struct kiln_pin pin;
    if (rc == 0)
        rc = kiln_digest_of_fd(pack, KILN_PACK_CONTENT_MAX, &bytes, NULL, err);
    if (rc == 0)
        rc = kiln_store_keep_fd(store, key, pack, KILN_PACK_CONTENT_MAX, &bytes, 0, &pin, err);
    return rc ? kiln_wrap(err, rc, "publish toolchain part %s", hex) : 0;
}

// As a staged part has them: nobody writes, and only the executable ones run.
static int set_modes(const struct kiln_tree *tree, int root, struct kiln_err *err) {
    for (size_t i = 0; i < tree->count; i++)
        if (tree->entries[i].kind == KILN_TREE_FILE &&
            fchmodat(root, tree->entries[i].path, tree->entries[i].executable ? 0555 : 0444, 0))
            return kiln_fail_errno(err, KILN_E_IO, "unpack %s", tree->entries[i].path);
    return 0;
}

static int unpack(int pack, const struct kiln_digest *part, int stage_dir, const char *temporary, struct kiln_err *err) {
    kiln_autotree struct kiln_tree tree = {0};
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    char path[96];
    snprintf(path, sizeof path, "%s/root", temporary);
    int rc = kiln_fs_make_dirs(stage_dir, path, 0755, err);
    kiln_autofd int root = rc ? -1 : openat(stage_dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == 0 && root < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "open %s", path);
    if (rc == 0)
        rc = kiln_pack_unpack(pack, part, root, err);
    if (rc == 0)
        rc = kiln_pack_read_tree(pack, part, &tree, err);
    if (rc == 0)
        rc = set_modes(&tree, root, err);
    if (rc == 0)
        rc = kiln_tree_encode(&tree, &encoding, err);
    snprintf(path, sizeof path, "%s/tree", temporary);
    return rc ? rc : kiln_fs_write_file(stage_dir, path, encoding.data, encoding.len, 0444, err);
}

int kiln_toolchain_fetch(struct kiln_store *store, int stage_dir, const struct kiln_digest *part, struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_toolchain(part);
    kiln_autofd int pack = -1;
    char temporary[64], hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(part, hex);
    if (!key)
        return kiln_fail(err, KILN_E_NOMEM, "toolchain part %s", hex);
    int rc = kiln_store_open_unchecked(store, KILN_SPACE_VAULT, key, &pack, err);
    if (rc)
        return kiln_wrap(err, rc, "toolchain part %s", hex);
    snprintf(temporary, sizeof temporary, ".fetch-%d-%llu", (int)getpid(), (unsigned long long)kiln_clock_us());
    rc = unpack(pack, part, stage_dir, temporary, err);
    if (rc == 0 && renameat2(stage_dir, temporary, stage_dir, hex, RENAME_NOREPLACE) && errno != EEXIST)
        rc = kiln_fail_errno(err, KILN_E_IO, "publish toolchain part %s", hex);
    kiln_fs_remove_tree(stage_dir, temporary, NULL);
    return rc ? kiln_wrap(err, rc, "toolchain part %s", hex) : 0;
}
