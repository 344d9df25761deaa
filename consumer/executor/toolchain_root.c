#include "consumer/executor/toolchain_root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "consumer/executor/proven.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/blob/toolchain_store.h"
#include "lib/core/tree.h"

#define PARTS 3
#define TEMPORARY_PREFIX ".merge-"
#define FETCH_PREFIX ".fetch-"
#define PROVEN_MAX 64u

struct kiln_toolchain_roots {
    pthread_mutex_t lock; // held while a combination is made or checked
    int dir;              // DIR/toolchains
    unsigned next;        // numbers temporary directories
    struct kiln_proven *proven;
    struct kiln_store *store; // NULL: parts are staged by the agent
};

struct combination {
    const struct kiln_digest *parts[PARTS];
    struct kiln_digest digest;
    char name[KILN_DIGEST_HEX_LEN + 16];
};

static struct combination combination_of(const struct kiln_action *action) {
    struct combination all = {.parts = {&action->toolchain_runtime, &action->toolchain_rustc, &action->toolchain_link}};
    unsigned char bytes[PARTS * 32];
    for (size_t i = 0; i < PARTS; i++)
        memcpy(bytes + 32 * i, all.parts[i]->bytes, 32);
    kiln_digest_of(bytes, sizeof bytes, &all.digest);
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(&all.digest, hex);
    snprintf(all.name, sizeof all.name, "merged-%s", hex);
    return all;
}

static void remove_leftovers(int dir) {
    int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy < 0 ? NULL : fdopendir(copy);
    for (struct dirent *entry; list && (entry = readdir(list));)
        if (!strncmp(entry->d_name, TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX)) ||
            !strncmp(entry->d_name, FETCH_PREFIX, strlen(FETCH_PREFIX)))
            kiln_fs_remove_tree(dir, entry->d_name, NULL); // one that cannot be removed is only in the way of the disk
    if (list)
        closedir(list);
}

int kiln_toolchain_roots_new(const char *dir, struct kiln_toolchain_roots **roots, struct kiln_err *err) {
    struct kiln_toolchain_roots *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "toolchains");
    pthread_mutex_init(&made->lock, NULL);
    made->dir = -1;
    kiln_autofree char *path = kiln_path_join(dir, "toolchains");
    int rc = path ? kiln_fs_open_dir(path, &made->dir, err) : kiln_fail(err, KILN_E_NOMEM, "toolchains");
    if (rc == 0)
        rc = kiln_proven_new(PROVEN_MAX, &made->proven, err);
    if (rc) {
        kiln_toolchain_roots_free(made);
        return rc;
    }
    remove_leftovers(made->dir);
    *roots = made;
    return 0;
}

void kiln_toolchain_roots_fetch_from(struct kiln_toolchain_roots *roots, struct kiln_store *store) { roots->store = store; }

void kiln_toolchain_roots_free(struct kiln_toolchain_roots *roots) {
    if (!roots)
        return;
    if (roots->dir >= 0)
        close(roots->dir);
    kiln_proven_free(roots->proven);
    pthread_mutex_destroy(&roots->lock);
    free(roots);
}

static int read_part_tree(int staged, const struct kiln_digest *part, struct kiln_tree *tree, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    struct kiln_digest digest;
    int rc = kiln_fs_read_file(staged, "tree", &encoding, err);
    if (rc)
        return rc;
    kiln_digest_of(encoding.data, encoding.len, &digest);
    if (!kiln_digest_equal(&digest, part))
        return kiln_fail(err, KILN_E_CORRUPT, "its tree was changed");
    return kiln_tree_decode(encoding.data, encoding.len, tree, err);
}

static int link_entry(int from, int to, const struct kiln_tree_entry *entry, struct kiln_err *err) {
    if (entry->kind == KILN_TREE_DIR)
        return kiln_fs_make_dirs(to, entry->path, 0755, err);
    if (entry->kind == KILN_TREE_WITHHELD)
        return 0;
    int rc = entry->kind == KILN_TREE_FILE ? linkat(from, entry->path, to, entry->path, 0)
                                           : symlinkat(entry->target, to, entry->path);
    // Two parts may hold the same file; what is there then is checked like all others.
    return rc == 0 || errno == EEXIST ? 0 : kiln_fail_errno(err, KILN_E_IO, "link %s", entry->path);
}

enum treatment { LINK, CHECK, SET_TIMES };

static int link_entries(const struct kiln_tree *tree, int from, int to, struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < tree->count; i++)
        rc = link_entry(from, to, &tree->entries[i], err);
    return rc;
}

// What is to be done with the combination `to` for the sake of one part.
static int treat_part(int dir, const struct kiln_digest *part, enum treatment treatment, int to, struct kiln_err *err) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(part, hex);
    kiln_autofd int staged = openat(dir, hex, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    kiln_autofd int from = staged < 0 ? -1 : openat(staged, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (from < 0)
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "toolchain part %s is not staged", hex);
    kiln_autotree struct kiln_tree tree = {0};
    int rc = read_part_tree(staged, part, &tree, err);
    if (rc == 0 && treatment == LINK)
        rc = link_entries(&tree, from, to, err);
    if (rc == 0 && treatment != SET_TIMES)
        rc = kiln_proven_check_tree(to, &tree, err);
    if (rc == 0 && treatment == SET_TIMES)
        rc = kiln_tree_set_times(&tree, to, err);
    if (rc == KILN_E_CORRUPT && treatment == LINK)
        kiln_fs_remove_tree(dir, hex, NULL);
    return rc ? kiln_wrap(err, rc, "toolchain part %s", hex) : 0;
}

static int treat_parts(int dir, const struct combination *all, enum treatment treatment, int to, struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < PARTS; i++)
        if (!kiln_digest_is_zero(all->parts[i]))
            rc = treat_part(dir, all->parts[i], treatment, to, err);
    return rc;
}

static int make(struct kiln_toolchain_roots *roots, const struct combination *all, struct kiln_err *err) {
    char temporary[48];
    snprintf(temporary, sizeof temporary, TEMPORARY_PREFIX "%d-%u", (int)getpid(), roots->next++);
    int rc = kiln_fs_make_dirs(roots->dir, temporary, 0755, err);
    kiln_autofd int to = rc ? -1 : openat(roots->dir, temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == 0 && to < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "make %s", temporary);
    if (rc == 0)
        rc = treat_parts(roots->dir, all, LINK, to, err);
    if (rc == 0) // when all have been linked: one part may lie in directories of another
        rc = treat_parts(roots->dir, all, SET_TIMES, to, err);
    if (rc == 0 && renameat2(roots->dir, temporary, roots->dir, all->name, RENAME_NOREPLACE) && errno != EEXIST)
        rc = kiln_fail_errno(err, KILN_E_IO, "publish %s", all->name);
    kiln_fs_remove_tree(roots->dir, temporary, NULL);
    return rc;
}

static int fetch_parts(struct kiln_toolchain_roots *roots, const struct combination *all, struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && roots->store && i < PARTS; i++) {
        char path[KILN_DIGEST_HEX_LEN + 8], hex[KILN_DIGEST_HEX_LEN + 1];
        kiln_digest_format(all->parts[i], hex);
        snprintf(path, sizeof path, "%s/tree", hex);
        if (!kiln_digest_is_zero(all->parts[i]) && faccessat(roots->dir, path, R_OK, 0))
            rc = kiln_toolchain_fetch(roots->store, roots->dir, all->parts[i], err);
    }
    return rc;
}

static int open_made(struct kiln_toolchain_roots *roots, const struct combination *all, struct kiln_err *err) {
    int made = openat(roots->dir, all->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return made >= 0 ? made : kiln_fail_errno(err, KILN_E_NOTFOUND, "open %s", all->name);
}

// With the lock held.
static int open_proven(struct kiln_toolchain_roots *roots, const struct combination *all, int *fd, struct kiln_err *err) {
    kiln_autofd int made = open_made(roots, all, NULL);
    int rc = 0;
    if (made >= 0 && !kiln_proven_has(roots->proven, &all->digest)) {
        rc = treat_parts(roots->dir, all, CHECK, made, err);
        if (rc == KILN_E_CORRUPT || rc == KILN_E_NOTFOUND) {
            close(kiln_steal_fd(&made));
            rc = kiln_fs_remove_tree(roots->dir, all->name, err);
        }
    }
    if (rc == 0 && made < 0)
        rc = fetch_parts(roots, all, err);
    if (rc == 0 && made < 0)
        rc = make(roots, all, err);
    if (rc == 0 && made < 0)
        rc = (made = open_made(roots, all, err)) < 0 ? made : 0;
    if (rc)
        return rc;
    kiln_proven_add(roots->proven, &all->digest, NULL);
    *fd = kiln_steal_fd(&made);
    return 0;
}

int kiln_toolchain_root_open(struct kiln_toolchain_roots *roots, const struct kiln_action *action, int *fd,
                             struct kiln_err *err) {
    const struct combination all = combination_of(action);
    pthread_mutex_lock(&roots->lock);
    int rc = open_proven(roots, &all, fd, err);
    pthread_mutex_unlock(&roots->lock);
    return rc;
}
