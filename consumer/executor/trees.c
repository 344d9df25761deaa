#include "consumer/executor/trees.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "consumer/executor/content.h"
#include "consumer/executor/proven.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/log.h"
#include "lib/base/path.h"

#define KEPT_MAX 3000u
#define BOUND_EVERY 256u // unpacked trees
#define SLACK_PART 16
#define PROVEN_MAX 16384u
#define TEMPORARY_PREFIX '.'

struct use {
    struct kiln_digest digest;
    unsigned count;
    struct use *next;
};

struct kiln_trees {
    pthread_mutex_t lock; // of next, bytes, used
    int dir;
    uint64_t max_bytes, bytes; // max_bytes 0: only their number is bounded
    struct use *used;
    struct kiln_store *store;
    struct kiln_proven *proven;
    unsigned next; // numbers temporary directories
};

struct aged {
    char name[KILN_DIGEST_HEX_LEN + 1];
    time_t used;
    uint64_t bytes;
};

struct listing {
    struct aged *trees;
    size_t count;
    uint64_t bytes;
};

static int by_use(const void *a, const void *b) {
    time_t x = ((const struct aged *)a)->used, y = ((const struct aged *)b)->used;
    return (x > y) - (x < y);
}

static uint64_t tree_bytes(const struct kiln_tree *tree) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < tree->count; i++)
        bytes += tree->entries[i].kind == KILN_TREE_FILE ? tree->entries[i].size : 0;
    return bytes;
}

static uint64_t bytes_of(int dir, const char *name) {
    kiln_autotree struct kiln_tree tree = {0};
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    char path[KILN_DIGEST_HEX_LEN + 8];
    snprintf(path, sizeof path, "%s/tree", name);
    if (kiln_fs_read_file(dir, path, &encoding, NULL) || kiln_tree_decode(encoding.data, encoding.len, &tree, NULL))
        return 0;
    return tree_bytes(&tree);
}

static void list_one(const struct kiln_trees *trees, const char *name, struct listing *listing) {
    struct stat st;
    if (strlen(name) != KILN_DIGEST_HEX_LEN || fstatat(trees->dir, name, &st, AT_SYMLINK_NOFOLLOW))
        return;
    struct aged *grown = listing->count % 256 ? listing->trees
                                              : realloc(listing->trees, (listing->count + 256) * sizeof *grown);
    if (!grown)
        return; // a bound that is met a little later
    listing->trees = grown;
    memcpy(grown[listing->count].name, name, KILN_DIGEST_HEX_LEN + 1);
    grown[listing->count].bytes = trees->max_bytes ? bytes_of(trees->dir, name) : 0;
    listing->bytes += grown[listing->count].bytes;
    grown[listing->count++].used = st.st_mtime;
}

static struct use **use_of(struct kiln_trees *trees, const struct kiln_digest *digest) { // with the lock held
    struct use **slot = &trees->used;
    while (*slot && !kiln_digest_equal(&(*slot)->digest, digest))
        slot = &(*slot)->next;
    return slot;
}

static int begin_use(struct kiln_trees *trees, const struct kiln_digest *digest, struct kiln_err *err) {
    pthread_mutex_lock(&trees->lock);
    struct use **slot = use_of(trees, digest);
    if (!*slot && (*slot = calloc(1, sizeof **slot)))
        (*slot)->digest = *digest;
    struct use *use = *slot;
    if (use)
        use->count++;
    pthread_mutex_unlock(&trees->lock);
    return use ? 0 : kiln_fail(err, KILN_E_NOMEM, "tree");
}

void kiln_trees_give_back(struct kiln_trees *trees, const struct kiln_digest *digest) {
    pthread_mutex_lock(&trees->lock);
    struct use **slot = use_of(trees, digest), *use = *slot;
    if (use && --use->count == 0) {
        *slot = use->next;
        free(use);
    }
    pthread_mutex_unlock(&trees->lock);
}

// Takes a tree out of sight in one step, unless somebody uses it; then nobody can begin to.
static bool remove_unused(struct kiln_trees *trees, const char *name) {
    struct kiln_digest digest;
    char temporary[32];
    if (kiln_digest_parse(name, &digest, NULL))
        return false;
    pthread_mutex_lock(&trees->lock);
    snprintf(temporary, sizeof temporary, "%cold-%u", TEMPORARY_PREFIX, trees->next++);
    bool gone = !*use_of(trees, &digest) && renameat(trees->dir, name, trees->dir, temporary) == 0;
    pthread_mutex_unlock(&trees->lock);
    if (gone)
        kiln_fs_remove_tree(trees->dir, temporary, NULL);
    return gone;
}

// Removes the longest unused trees beyond the bound; and, when nobody else works here yet, what a killed predecessor left
// half made.
static void bound(struct kiln_trees *trees, bool alone) {
    int fd = openat(trees->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    struct listing listing = {0};
    for (struct dirent *entry; list && (entry = readdir(list));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (entry->d_name[0] == TEMPORARY_PREFIX && alone)
            kiln_fs_remove_tree(trees->dir, entry->d_name, NULL);
        else
            list_one(trees, entry->d_name, &listing);
    }
    if (list)
        closedir(list);
    if (listing.count)
        qsort(listing.trees, listing.count, sizeof *listing.trees, by_use);
    bool over = trees->max_bytes && listing.bytes > trees->max_bytes;
    const uint64_t target = over ? trees->max_bytes - trees->max_bytes / SLACK_PART : UINT64_MAX;
    size_t left = listing.count;
    for (size_t i = 0; i < listing.count && (left > KEPT_MAX || listing.bytes > target); i++)
        if (remove_unused(trees, listing.trees[i].name)) {
            left--;
            listing.bytes -= listing.trees[i].bytes;
        }
    free(listing.trees);
    pthread_mutex_lock(&trees->lock);
    trees->bytes = listing.bytes;
    pthread_mutex_unlock(&trees->lock);
}

int kiln_trees_open(const char *dir, struct kiln_store *store, uint64_t max_bytes, struct kiln_trees **out,
                    struct kiln_err *err) {
    struct kiln_trees *trees = calloc(1, sizeof *trees);
    if (!trees)
        return kiln_fail(err, KILN_E_NOMEM, "trees");
    pthread_mutex_init(&trees->lock, NULL);
    trees->store = store;
    trees->max_bytes = max_bytes;
    trees->dir = -1;
    kiln_autofree char *path = kiln_path_join(dir, "trees");
    int rc = path ? kiln_fs_open_dir(path, &trees->dir, err) : kiln_fail(err, KILN_E_NOMEM, "trees");
    if (rc == 0)
        rc = kiln_proven_new(PROVEN_MAX, &trees->proven, err);
    if (rc) {
        kiln_trees_close(trees);
        return rc;
    }
    bound(trees, true);
    *out = trees;
    return 0;
}

void kiln_trees_close(struct kiln_trees *trees) {
    if (!trees)
        return;
    if (trees->dir >= 0)
        close(trees->dir);
    for (struct use *use = trees->used, *next; use; use = next) {
        next = use->next;
        free(use);
    }
    kiln_proven_free(trees->proven);
    pthread_mutex_destroy(&trees->lock);
    free(trees);
}

static int unpack_into(int to, int pack, const struct kiln_digest *digest, uint64_t *bytes, struct kiln_err *err) {
    kiln_autotree struct kiln_tree tree = {0};
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    if (mkdirat(to, "root", 0755))
        return kiln_fail_errno(err, KILN_E_IO, "unpack");
    kiln_autofd int root = openat(to, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = root < 0 ? kiln_fail_errno(err, KILN_E_IO, "unpack") : kiln_pack_unpack(pack, digest, root, err);
    if (rc == 0)
        rc = kiln_pack_read_tree(pack, digest, &tree, err);
    if (rc == 0)
        rc = kiln_tree_encode(&tree, &encoding, err);
    *bytes = tree_bytes(&tree);
    return rc ? rc : kiln_fs_write_file(to, "tree", encoding.data, encoding.len, 0444, err);
}

static unsigned next_number(struct kiln_trees *trees) {
    pthread_mutex_lock(&trees->lock);
    unsigned number = trees->next++;
    pthread_mutex_unlock(&trees->lock);
    return number;
}

static bool is_over(struct kiln_trees *trees, uint64_t added_bytes) {
    pthread_mutex_lock(&trees->lock);
    trees->bytes += added_bytes;
    bool over = trees->max_bytes && trees->bytes > trees->max_bytes;
    pthread_mutex_unlock(&trees->lock);
    return over;
}

int kiln_trees_add(struct kiln_trees *trees, int pack, const struct kiln_digest *digest, struct kiln_err *err) {
    unsigned number = next_number(trees);
    char temporary[32], hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(digest, hex);
    snprintf(temporary, sizeof temporary, "%cnew-%u", TEMPORARY_PREFIX, number);
    if (mkdirat(trees->dir, temporary, 0755))
        return kiln_fail_errno(err, KILN_E_IO, "make %s", temporary);
    uint64_t bytes = 0;
    kiln_autofd int to = openat(trees->dir, temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = to < 0 ? kiln_fail_errno(err, KILN_E_IO, "open %s", temporary) : unpack_into(to, pack, digest, &bytes, err);
    // Another slot may have been faster; its tree is as good.
    if (rc == 0 && renameat2(trees->dir, temporary, trees->dir, hex, RENAME_NOREPLACE) && errno != EEXIST)
        rc = kiln_fail_errno(err, KILN_E_IO, "publish tree %s", hex);
    kiln_fs_remove_tree(trees->dir, temporary, NULL);
    if (rc)
        return rc;
    kiln_proven_add(trees->proven, digest, NULL);
    if (is_over(trees, bytes) || number % BOUND_EVERY == BOUND_EVERY - 1)
        bound(trees, false);
    return 0;
}

static int unpack(struct kiln_trees *trees, const char *scope, const struct kiln_digest *digest, struct kiln_err *err) {
    kiln_autofd int pack = -1;
    int rc = kiln_content_open(trees->store, KILN_CONTENT_PACK, scope, digest, &pack, err);
    return rc ? rc : kiln_trees_add(trees, pack, digest, err);
}

bool kiln_trees_has(struct kiln_trees *trees, const struct kiln_digest *digest) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(digest, hex);
    return faccessat(trees->dir, hex, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int read_tree(int dir, const struct kiln_digest *expected, struct kiln_tree *tree, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    struct kiln_digest digest;
    int rc = kiln_fs_read_file(dir, "tree", &encoding, err);
    if (rc == KILN_E_NOTFOUND)
        return kiln_fail(err, KILN_E_CORRUPT, "its listing is gone");
    if (rc)
        return rc;
    kiln_digest_of(encoding.data, encoding.len, &digest);
    if (!kiln_digest_equal(&digest, expected))
        return kiln_fail(err, KILN_E_CORRUPT, "the tree was changed");
    return kiln_tree_decode(encoding.data, encoding.len, tree, err);
}

static int open_kept(struct kiln_trees *trees, const struct kiln_digest *digest, const char *hex, int *root,
                     struct kiln_tree *tree, struct kiln_err *err) {
    kiln_autofd int dir = openat(trees->dir, hex, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return kiln_fail_errno(err, errno == ENOENT ? KILN_E_NOTFOUND : KILN_E_IO, "open tree %s", hex);
    futimens(dir, NULL); // its last use; a failure makes it go earlier
    kiln_autofd int opened = openat(dir, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    kiln_autotree struct kiln_tree found = {0};
    if (opened < 0 && errno != ENOENT)
        return kiln_fail_errno(err, KILN_E_IO, "open tree %s", hex);
    int rc = opened < 0 ? kiln_fail(err, KILN_E_CORRUPT, "its root is gone") : read_tree(dir, digest, &found, err);
    if (rc == 0 && !kiln_proven_has(trees->proven, digest))
        rc = kiln_proven_check_tree(opened, &found, err);
    if (rc)
        return kiln_wrap(err, rc, "tree %s", hex);
    kiln_proven_add(trees->proven, digest, NULL);
    *root = kiln_steal_fd(&opened);
    *tree = found;
    found = (struct kiln_tree){0};
    return 0;
}

static int get(struct kiln_trees *trees, const char *scope, const struct kiln_digest *digest, int *root,
               struct kiln_tree *tree, struct kiln_err *err) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(digest, hex);
    struct kiln_err why;
    int rc = open_kept(trees, digest, hex, root, tree, &why);
    if (rc == KILN_E_CORRUPT) {
        kiln_log(KILN_LOG_WARN, "kept_tree_corrupt", "error", why.text, NULL);
        kiln_proven_forget(trees->proven, digest);
        rc = kiln_fs_remove_tree(trees->dir, hex, &why) ? KILN_E_IO : KILN_E_NOTFOUND;
    }
    if (rc == 0)
        return 0;
    if (rc != KILN_E_NOTFOUND)
        return kiln_fail(err, rc, "%s", why.text);
    rc = unpack(trees, scope, digest, err);
    return rc ? rc : open_kept(trees, digest, hex, root, tree, err);
}

int kiln_trees_get(struct kiln_trees *trees, const char *scope, const struct kiln_digest *digest, int *root,
                   struct kiln_tree *tree, struct kiln_err *err) {
    int rc = begin_use(trees, digest, err);
    if (rc)
        return rc;
    rc = get(trees, scope, digest, root, tree, err);
    if (rc)
        kiln_trees_give_back(trees, digest);
    return rc;
}
