#include "producer/agent/dir_input.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

#define YOUNG_NS 2000000000ll

static bool is_young(const struct stat *st) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    long long age = (now.tv_sec - st->st_ctim.tv_sec) * 1000000000ll + (now.tv_nsec - st->st_ctim.tv_nsec);
    return age < YOUNG_NS;
}

static int identity_of(const struct kiln_dir_walk *walk, struct kiln_digest *identity, bool *young, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf buf = KILN_BUF_INIT(64u << 20);
    kiln_buf_add_u8(&buf, (uint8_t)walk->rule);
    *young = false;
    for (size_t i = 0; i < walk->count; i++) {
        const struct kiln_dir_entry *entry = &walk->entries[i];
        kiln_buf_add_u8(&buf, (uint8_t)entry->kind);
        kiln_buf_add_field_str(&buf, entry->path);
        kiln_buf_add_field_str(&buf, entry->target ? entry->target : "");
        if (entry->kind != KILN_TREE_FILE)
            continue;
        kiln_buf_add_be64(&buf, entry->st.st_dev);
        kiln_buf_add_be64(&buf, entry->st.st_ino);
        kiln_buf_add_be64(&buf, (uint64_t)entry->st.st_size);
        kiln_buf_add_be64(&buf, (uint64_t)entry->st.st_mtim.tv_sec * 1000000000u + (uint64_t)entry->st.st_mtim.tv_nsec);
        kiln_buf_add_be64(&buf, (uint64_t)entry->st.st_ctim.tv_sec * 1000000000u + (uint64_t)entry->st.st_ctim.tv_nsec);
        kiln_buf_add_be32(&buf, entry->st.st_mode);
        *young |= is_young(&entry->st);
    }
    int rc = kiln_buf_check(&buf, "directory identity", err);
    if (rc == 0)
        kiln_digest_of(buf.data, buf.len, identity);
    return rc;
}

static int tree_of(const struct kiln_dir_walk *walk, struct kiln_memo *memo, struct kiln_tree *tree, struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < walk->count; i++) {
        const struct kiln_dir_entry *entry = &walk->entries[i];
        if (entry->kind == KILN_TREE_DIR)
            rc = kiln_tree_add_dir(tree, entry->path, err);
        else if (entry->kind == KILN_TREE_WITHHELD)
            rc = kiln_tree_add_withheld(tree, entry->path, err);
        else if (entry->kind == KILN_TREE_LINK)
            rc = kiln_tree_add_link(tree, entry->path, entry->target, err);
        if (entry->kind != KILN_TREE_FILE)
            continue;
        struct kiln_digest digest;
        uint64_t size = (uint64_t)entry->st.st_size;
        if (!kiln_memo_known(memo, &entry->st, &digest)) {
            kiln_autofd int fd = openat(walk->root, entry->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
            rc = fd < 0 ? kiln_fail_errno(err, KILN_E_IO, "open %s", entry->path)
                        : kiln_memo_digest_fd(memo, fd, &digest, &size, err);
        }
        if (rc == 0)
            rc = kiln_tree_add_file(tree, entry->path, entry->st.st_mode & 0111, size, &digest, err);
    }
    return rc ? rc : kiln_tree_finish(tree, err);
}

int kiln_dir_tree(struct kiln_memo *memo, const char *dir, enum kiln_dir_rule rule, struct kiln_tree *tree,
                  struct kiln_err *err) {
    kiln_autodir_walk struct kiln_dir_walk walk;
    int rc = kiln_dir_walk_start(&walk, dir, rule, err);
    return rc ? rc : tree_of(&walk, memo, tree, err);
}

int kiln_dir_digest(struct kiln_l0 *l0, struct kiln_memo *memo, const char *dir, enum kiln_dir_rule rule,
                    struct kiln_digest *digest, struct kiln_err *err) {
    kiln_autodir_walk struct kiln_dir_walk walk;
    int rc = kiln_dir_walk_start(&walk, dir, rule, err);
    struct kiln_digest identity;
    bool young;
    if (rc == 0)
        rc = identity_of(&walk, &identity, &young, err);
    if (rc)
        return rc;
    kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(64);
    if (!young && kiln_l0_memo_get(l0, KILN_MEMO_TREE, identity.bytes, 32, &value, NULL) == 0 && value.len == 32) {
        memcpy(digest->bytes, value.data, 32);
        return 0;
    }
    kiln_autotree struct kiln_tree tree = {0};
    rc = tree_of(&walk, memo, &tree, err);
    if (rc == 0)
        rc = kiln_tree_digest(&tree, digest, err);
    if (rc == 0 && !young)
        kiln_l0_memo_put(l0, KILN_MEMO_TREE, identity.bytes, 32, digest->bytes, 32, NULL);
    return rc ? kiln_wrap(err, rc, "inputs in %s", dir) : 0;
}
