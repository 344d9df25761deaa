#include "consumer/executor/proven.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

struct kiln_proven {
    pthread_mutex_t lock;
    size_t count;
    struct kiln_digest digests[]; // each at the one place that its first bytes name; zero: free
};

int kiln_proven_new(size_t max_count, struct kiln_proven **out, struct kiln_err *err) {
    struct kiln_proven *proven = calloc(1, sizeof *proven + max_count * sizeof proven->digests[0]);
    if (!proven)
        return kiln_fail(err, KILN_E_NOMEM, "proven digests");
    pthread_mutex_init(&proven->lock, NULL);
    proven->count = max_count;
    *out = proven;
    return 0;
}

void kiln_proven_free(struct kiln_proven *proven) {
    if (!proven)
        return;
    pthread_mutex_destroy(&proven->lock);
    free(proven);
}

static struct kiln_digest *place_of(struct kiln_proven *proven, const struct kiln_digest *digest) {
    size_t index = (size_t)digest->bytes[0] | (size_t)digest->bytes[1] << 8 | (size_t)digest->bytes[2] << 16;
    return &proven->digests[index % proven->count];
}

bool kiln_proven_has(struct kiln_proven *proven, const struct kiln_digest *digest) {
    pthread_mutex_lock(&proven->lock);
    bool has = kiln_digest_equal(place_of(proven, digest), digest);
    pthread_mutex_unlock(&proven->lock);
    return has;
}

bool kiln_proven_add(struct kiln_proven *proven, const struct kiln_digest *digest, struct kiln_digest *pushed_out) {
    pthread_mutex_lock(&proven->lock);
    struct kiln_digest *place = place_of(proven, digest);
    struct kiln_digest before = *place;
    *place = *digest;
    pthread_mutex_unlock(&proven->lock);
    if (kiln_digest_is_zero(&before) || kiln_digest_equal(&before, digest))
        return false;
    if (pushed_out)
        *pushed_out = before;
    return true;
}

void kiln_proven_forget(struct kiln_proven *proven, const struct kiln_digest *digest) {
    pthread_mutex_lock(&proven->lock);
    struct kiln_digest *place = place_of(proven, digest);
    if (kiln_digest_equal(place, digest))
        *place = (struct kiln_digest){0};
    pthread_mutex_unlock(&proven->lock);
}

static int check_file(int dir, const struct kiln_tree_entry *entry, struct kiln_err *err) {
    kiln_autofd int fd = -1;
    struct kiln_digest digest;
    struct stat st;
    int rc = kiln_fs_open_beneath(dir, entry->path, O_RDONLY | O_NONBLOCK, &fd, err);
    if (rc == KILN_E_NOTFOUND || rc == KILN_E_DENIED)
        return kiln_fail(err, KILN_E_CORRUPT, "%s is gone", entry->path);
    if (rc)
        return rc;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != entry->size)
        return kiln_fail(err, KILN_E_CORRUPT, "%s was changed", entry->path);
    rc = kiln_digest_of_fd(fd, entry->size, &digest, NULL, err);
    if (rc == 0 && (!kiln_digest_equal(&digest, &entry->digest) || ((st.st_mode & 0100) != 0) != entry->executable))
        rc = kiln_fail(err, KILN_E_CORRUPT, "%s was changed", entry->path);
    return rc;
}

static int check_link(int dir, const struct kiln_tree_entry *entry, struct kiln_err *err) {
    char target[KILN_PATH_MAX + 1];
    ssize_t len = readlinkat(dir, entry->path, target, sizeof target);
    if (len < 0 || (size_t)len != strlen(entry->target) || memcmp(target, entry->target, (size_t)len) != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "link %s was changed", entry->path);
    return 0;
}

int kiln_proven_check_tree(int dir, const struct kiln_tree *tree, struct kiln_err *err) {
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < tree->count; i++) {
        if (tree->entries[i].kind == KILN_TREE_FILE)
            rc = check_file(dir, &tree->entries[i], err);
        else if (tree->entries[i].kind == KILN_TREE_LINK)
            rc = check_link(dir, &tree->entries[i], err);
    }
    return rc;
}
