#include "consumer/executor/stage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

#define TREES_KEPT_MAX 3000u
#define CHECKED_SLOTS 4096u

// A library that this process has hashed: its inode and mtime say that it is still the same.
struct checked {
    struct kiln_digest digest;
    uint64_t ino;
    struct timespec mtime;
};

struct kiln_stages {
    pthread_mutex_t lock;
    struct kiln_store *store;
    char *root; // DIR/executor
    int trees, blobs, jobs;
    uint64_t next_job;
    struct checked checked[CHECKED_SLOTS]; // by the first bytes of the digest
};

static int open_room(struct kiln_stages *stages, const char *name, int *fd, struct kiln_err *err) {
    kiln_autofree char *path = kiln_path_join(stages->root, name);
    int rc = path ? kiln_fs_make_dirs(AT_FDCWD, path, 0755, err) : kiln_fail(err, KILN_E_NOMEM, "stages");
    if (rc == 0 && (*fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "open %s", path);
    return rc;
}

struct aged {
    char name[NAME_MAX + 1];
    time_t used;
};

static int by_use(const void *a, const void *b) {
    const struct aged *x = a, *y = b;
    return x->used < y->used ? -1 : x->used > y->used;
}

// Removes temporary trees of a killed predecessor and the longest unused beyond the bound. Before any slot runs.
static void bound_trees(struct kiln_stages *stages) {
    int fd = openat(stages->trees, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    struct aged *trees = NULL;
    size_t count = 0;
    struct dirent *entry;
    while (list && (entry = readdir(list))) {
        struct stat st;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (entry->d_name[0] == '.') {
            kiln_fs_remove_tree(stages->trees, entry->d_name, NULL);
            continue;
        }
        struct aged *grown = count % 256 ? trees : realloc(trees, (count + 256) * sizeof *trees);
        if (!grown || fstatat(stages->trees, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
            continue;
        trees = grown;
        snprintf(trees[count].name, sizeof trees[count].name, "%s", entry->d_name);
        trees[count++].used = st.st_mtime;
    }
    if (list)
        closedir(list);
    if (count > TREES_KEPT_MAX) {
        qsort(trees, count, sizeof *trees, by_use);
        for (size_t i = 0; i < count - TREES_KEPT_MAX; i++)
            kiln_fs_remove_tree(stages->trees, trees[i].name, NULL);
    }
    free(trees);
}

int kiln_stages_open(const char *dir, struct kiln_store *store, struct kiln_stages **out, struct kiln_err *err) {
    struct kiln_stages *stages = calloc(1, sizeof *stages);
    if (!stages)
        return kiln_fail(err, KILN_E_NOMEM, "stages");
    pthread_mutex_init(&stages->lock, NULL);
    stages->store = store;
    stages->trees = stages->blobs = stages->jobs = -1;
    stages->root = kiln_path_join(dir, "executor");
    kiln_autofree char *blobs = stages->root ? kiln_path_join(stages->root, "blobs") : NULL;
    kiln_autofree char *jobs = stages->root ? kiln_path_join(stages->root, "jobs") : NULL;
    int rc = blobs && jobs ? kiln_fs_remove_tree(AT_FDCWD, blobs, err) : kiln_fail(err, KILN_E_NOMEM, "stages");
    if (rc == 0)
        rc = kiln_fs_remove_tree(AT_FDCWD, jobs, err);
    if (rc == 0)
        rc = open_room(stages, "trees", &stages->trees, err);
    if (rc == 0)
        rc = open_room(stages, "blobs", &stages->blobs, err);
    if (rc == 0)
        rc = open_room(stages, "jobs", &stages->jobs, err);
    if (rc) {
        kiln_stages_close(stages);
        return rc;
    }
    bound_trees(stages);
    *out = stages;
    return 0;
}

void kiln_stages_close(struct kiln_stages *stages) {
    if (!stages)
        return;
    int *const fds[] = {&stages->trees, &stages->blobs, &stages->jobs};
    for (int i = 0; i < 3; i++)
        if (*fds[i] >= 0)
            close(*fds[i]);
    pthread_mutex_destroy(&stages->lock);
    free(stages->root);
    free(stages);
}

static int open_content(struct kiln_stages *stages, const char *kind, const char *scope, const struct kiln_digest *digest,
                        const enum kiln_space *spaces, int *fd, struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_content(kind, scope, digest);
    if (!key)
        return kiln_fail(err, KILN_E_NOMEM, "stage");
    if (kiln_store_open_unchecked(stages->store, spaces[0], key, fd, NULL) == 0)
        return 0;
    return kiln_store_open_unchecked(stages->store, spaces[1], key, fd, err);
}

static const enum kiln_space inputs_first[2] = {KILN_SPACE_INPUTS, KILN_SPACE_VAULT};
static const enum kiln_space vault_first[2] = {KILN_SPACE_VAULT, KILN_SPACE_INPUTS};

static int unpack_into(struct kiln_stages *stages, const char *temporary, int pack, const struct kiln_digest *digest,
                       struct kiln_err *err) {
    char root[80], tree_path[80];
    snprintf(root, sizeof root, "%s/root", temporary);
    snprintf(tree_path, sizeof tree_path, "%s/tree", temporary);
    kiln_autotree struct kiln_tree tree = {0};
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    int rc = kiln_fs_make_dirs(stages->trees, root, 0755, err);
    kiln_autofd int to = rc ? -1 : openat(stages->trees, root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == 0 && to < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "unpack");
    if (rc == 0)
        rc = kiln_pack_unpack(pack, digest, to, err);
    if (rc == 0)
        rc = kiln_pack_verify(pack, digest, &tree, err);
    if (rc == 0)
        rc = kiln_tree_encode(&tree, &encoding, err);
    return rc ? rc : kiln_fs_write_file(stages->trees, tree_path, encoding.data, encoding.len, 0444, err);
}

static int unpack(struct kiln_stages *stages, const char *scope, const struct kiln_digest *digest, const char *hex,
                  struct kiln_err *err) {
    kiln_autofd int pack = -1;
    int rc = open_content(stages, "pack", scope, digest, inputs_first, &pack, err);
    if (rc)
        return rc;
    char temporary[48];
    snprintf(temporary, sizeof temporary, ".new-%d-%llu", (int)gettid(), (unsigned long long)kiln_clock_us());
    rc = unpack_into(stages, temporary, pack, digest, err);
    if (rc == 0 && renameat2(stages->trees, temporary, stages->trees, hex, RENAME_NOREPLACE) && errno != EEXIST)
        rc = kiln_fail_errno(err, KILN_E_IO, "publish tree %s", hex);
    kiln_fs_remove_tree(stages->trees, temporary, NULL);
    return rc;
}

static int read_tree(int dir, const struct kiln_digest *expected, struct kiln_tree *tree, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    struct kiln_digest digest;
    int rc = kiln_fs_read_file(dir, "tree", &encoding, err);
    if (rc == 0)
        kiln_digest_of(encoding.data, encoding.len, &digest);
    if (rc == 0 && !kiln_digest_equal(&digest, expected))
        rc = kiln_fail(err, KILN_E_CORRUPT, "an unpacked tree was changed");
    return rc ? rc : kiln_tree_decode(encoding.data, encoding.len, tree, err);
}

static int stage_pack(struct kiln_stages *stages, const char *scope, const struct kiln_digest *digest,
                      struct kiln_stage_input *input, struct kiln_err *err) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(digest, hex);
    kiln_autofd int dir = openat(stages->trees, hex, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = dir < 0 ? unpack(stages, scope, digest, hex, err) : 0;
    if (rc == 0 && dir < 0 && (dir = openat(stages->trees, hex, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "open tree %s", hex);
    if (rc == 0) {
        futimens(dir, NULL);
        rc = read_tree(dir, digest, &input->tree, err);
    }
    if (rc == 0 && (input->fd = openat(dir, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "open tree %s", hex);
    return rc;
}

static bool is_checked(struct kiln_stages *stages, const struct kiln_digest *digest, const struct stat *st) {
    const struct checked *slot = &stages->checked[(digest->bytes[0] | digest->bytes[1] << 8) % CHECKED_SLOTS];
    pthread_mutex_lock(&stages->lock);
    bool same = kiln_digest_equal(&slot->digest, digest) && slot->ino == st->st_ino &&
                slot->mtime.tv_sec == st->st_mtim.tv_sec && slot->mtime.tv_nsec == st->st_mtim.tv_nsec;
    pthread_mutex_unlock(&stages->lock);
    return same;
}

static void remember_checked(struct kiln_stages *stages, const struct kiln_digest *digest, const struct stat *st) {
    struct checked *slot = &stages->checked[(digest->bytes[0] | digest->bytes[1] << 8) % CHECKED_SLOTS];
    pthread_mutex_lock(&stages->lock);
    *slot = (struct checked){.digest = *digest, .ino = st->st_ino, .mtime = st->st_mtim};
    pthread_mutex_unlock(&stages->lock);
}

// A checked library at DIR/executor/blobs/HEX: a copy of the executor's own, readable for the sandbox's user.
static int ensure_blob(struct kiln_stages *stages, const char *scope, const struct kiln_digest *digest, const char *hex,
                       struct kiln_err *err) {
    struct stat st;
    if (fstatat(stages->blobs, hex, &st, AT_SYMLINK_NOFOLLOW) == 0 && is_checked(stages, digest, &st))
        return 0;
    kiln_autofd int in = -1;
    int rc = open_content(stages, "blob", scope, digest, vault_first, &in, err);
    if (rc)
        return rc;
    char temporary[48];
    snprintf(temporary, sizeof temporary, ".new-%d-%llu", (int)gettid(), (unsigned long long)kiln_clock_us());
    kiln_autofd int out = openat(stages->blobs, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0)
        return kiln_fail_errno(err, KILN_E_IO, "stage library");
    struct kiln_digest copied;
    rc = kiln_digest_copy_fd(in, out, UINT64_MAX / 2, &copied, NULL, err);
    if (rc == 0 && !kiln_digest_equal(&copied, digest))
        rc = kiln_fail(err, KILN_E_CORRUPT, "stored library %s was changed", hex);
    if (rc == 0 && (fchmod(out, 0444) || renameat(stages->blobs, temporary, stages->blobs, hex) || fstat(out, &st)))
        rc = kiln_fail_errno(err, KILN_E_IO, "stage library");
    if (rc)
        unlinkat(stages->blobs, temporary, 0);
    else
        remember_checked(stages, digest, &st);
    return rc;
}

static int stage_list(struct kiln_stages *stages, const char *scope, const struct kiln_digest *digest, size_t number,
                      const char *job_dir, struct kiln_stage_input *input, struct kiln_err *err) {
    kiln_autofd int stored = -1;
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    struct kiln_digest actual;
    char name[32];
    snprintf(name, sizeof name, "/%zu", number);
    kiln_autofree char *path = NULL;
    int rc = open_content(stages, "list", scope, digest, inputs_first, &stored, err);
    if (rc == 0)
        rc = kiln_fs_read_fd(stored, &encoding, err);
    if (rc == 0)
        kiln_digest_of(encoding.data, encoding.len, &actual);
    if (rc == 0 && !kiln_digest_equal(&actual, digest))
        rc = kiln_fail(err, KILN_E_CORRUPT, "a stored list was changed");
    if (rc == 0)
        rc = kiln_tree_decode(encoding.data, encoding.len, &input->tree, err);
    if (rc == 0 && asprintf(&path, "%s%s", job_dir, name) < 0)
        rc = kiln_fail(err, KILN_E_NOMEM, "stage");
    if (rc == 0)
        rc = kiln_fs_make_dirs(AT_FDCWD, path, 0755, err);
    if (rc == 0 && (input->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "open %s", path);
    for (size_t i = 0; rc == 0 && i < input->tree.count; i++) {
        const struct kiln_tree_entry *entry = &input->tree.entries[i];
        char hex[KILN_DIGEST_HEX_LEN + 1];
        if (entry->kind != KILN_TREE_FILE || strchr(entry->path, '/'))
            return kiln_fail(err, KILN_E_INVAL, "a list of libraries holds more than files");
        kiln_digest_format(&entry->digest, hex);
        rc = ensure_blob(stages, scope, &entry->digest, hex, err);
        if (rc == 0 && linkat(stages->blobs, hex, input->fd, entry->path, 0))
            rc = kiln_fail_errno(err, KILN_E_IO, "stage %s", entry->path);
    }
    return rc;
}

int kiln_stage_make(struct kiln_stages *stages, const struct kiln_action *action, const char *scope, struct kiln_stage *stage,
                    struct kiln_err *err) {
    *stage = (struct kiln_stage){0};
    pthread_mutex_lock(&stages->lock);
    uint64_t number = stages->next_job++;
    pthread_mutex_unlock(&stages->lock);
    stage->inputs = calloc(action->inputs_count + 1, sizeof *stage->inputs);
    if (!stage->inputs || asprintf(&stage->job_dir, "%s/jobs/%llu", stages->root, (unsigned long long)number) < 0)
        return kiln_fail(err, KILN_E_NOMEM, "stage");
    int rc = kiln_fs_make_dirs(AT_FDCWD, stage->job_dir, 0755, err);
    for (size_t i = 0; rc == 0 && i < action->inputs_count; i++) {
        const struct kiln_action_input *input = &action->inputs[i];
        struct kiln_stage_input *staged = &stage->inputs[stage->count++];
        *staged = (struct kiln_stage_input){.mount = input->mount, .fd = -1};
        rc = input->form == KILN_INPUT_PACK ? stage_pack(stages, scope, &input->tree, staged, err)
                                            : stage_list(stages, scope, &input->tree, i, stage->job_dir, staged, err);
        if (rc)
            kiln_wrap(err, rc, "input %s", input->mount);
    }
    if (rc)
        kiln_stage_release(stage);
    return rc;
}

void kiln_stage_release(struct kiln_stage *stage) {
    for (size_t i = 0; i < stage->count; i++) {
        if (stage->inputs[i].fd >= 0)
            close(stage->inputs[i].fd);
        kiln_tree_release(&stage->inputs[i].tree);
    }
    free(stage->inputs);
    if (stage->job_dir)
        kiln_fs_remove_tree(AT_FDCWD, stage->job_dir, NULL);
    free(stage->job_dir);
    *stage = (struct kiln_stage){0};
}
