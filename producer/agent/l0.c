#include "producer/agent/l0.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/path.h"
#include "lib/blob/objects.h"
#include "producer/agent/l0_index.h"
#include "producer/agent/l0_pending.h"

// How long a change waits for others before they are written together.
#define BATCH_MS 250
// A last use is recorded by the hour: finer would make a write of each hit.
#define TOUCH_GRAIN_S 3600u
// Room made at once when the bound is passed, so that a full cache does not walk its files at each add.
#define SLACK_PART 16
#define INDEX_PART 16
#define INDEX_BYTES_LEAST ((uint64_t)16 << 20)
#define INDEX_BYTES_MOST ((uint64_t)512 << 20)

// First byte of an index key. Part of the file format: a tag keeps its meaning.
static const char memo_tags[KILN_MEMO_TABLES] = {
    [KILN_MEMO_FILE] = 'f',  [KILN_MEMO_TREE] = 't',  [KILN_MEMO_SCAN] = 's',      [KILN_MEMO_CLOSURE] = 'c',
    [KILN_MEMO_LOCAL] = 'l', [KILN_MEMO_MACRO] = 'm', [KILN_MEMO_TOOLCHAIN] = 'k', [KILN_MEMO_PACKAGE] = 'p',
    [KILN_MEMO_PUBLIC] = 'u', [KILN_MEMO_HISTORY] = 'h', [KILN_MEMO_HINTS] = 'n'};
#define TAG_ACTION 'a'

struct index_key {
    unsigned char bytes[KILN_L0_KEY_BYTES_MAX];
    size_t len;
};

struct blob_key {
    char text[KILN_DIGEST_HEX_LEN + 4]; // "ab/HEX"
};

struct kiln_l0 {
    uint64_t max_bytes, index_bytes_max;
    char *dir;
    struct kiln_objects *blobs;
    struct kiln_l0_index *index;

    pthread_mutex_t lock; // pending, stop, evict_wanted
    pthread_cond_t wake;
    struct kiln_l0_pending pending;
    bool stop, evict_wanted;
    pthread_t writer;
    bool writer_started;

    // For writing while the blobs are walked, for reading while one is added or dropped: so the counts are exact. An
    // open of a blob never waits for it.
    pthread_rwlock_t walk_lock;
    bool counted;
    _Atomic int64_t bytes, objects;
    _Atomic uint64_t evicted_bytes, corrupt;
};

static uint32_t now_s(void) { return (uint32_t)(kiln_clock_wall_ms() / 1000); }

static struct blob_key blob_key(const struct kiln_digest *digest) {
    struct blob_key key;
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(digest, hex);
    snprintf(key.text, sizeof key.text, "%.2s/%s", hex, hex);
    return key;
}

static int make_key(char tag, const void *key, size_t len, struct index_key *made, struct kiln_err *err) {
    if (len == 0 || len > sizeof made->bytes - 1)
        return kiln_fail(err, KILN_E_INVAL, "an index key has %zu bytes", len);
    made->bytes[0] = (unsigned char)tag;
    memcpy(made->bytes + 1, key, len);
    made->len = len + 1;
    return 0;
}

// The writer: the only thread that waits for a transaction or a disk.

static void write_pending(struct kiln_l0 *l0) {
    kiln_l0_pending_turn(&l0->pending);
    const struct kiln_l0_generation *old = l0->pending.old;
    pthread_mutex_unlock(&l0->lock);
    // A disk that is full loses changes: each is one that time can make again.
    if (kiln_l0_index_apply(l0->index, old->items, old->count, now_s(), NULL) == 0)
        kiln_l0_index_sync(l0->index, NULL);
    pthread_mutex_lock(&l0->lock);
    kiln_l0_pending_done(&l0->pending);
}

// Waits a little for more changes. Called and returns with the lock held.
static void wait_for_batch(struct kiln_l0 *l0) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += BATCH_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (!l0->stop && l0->pending.young->bytes < KILN_L0_PENDING_BYTES_MAX / 8)
        if (pthread_cond_timedwait(&l0->wake, &l0->lock, &until))
            return;
}

static void *write_loop(void *argument) {
    struct kiln_l0 *l0 = argument;
    pthread_mutex_lock(&l0->lock);
    while (!l0->stop || l0->pending.young->count) {
        if (l0->pending.young->count) {
            wait_for_batch(l0);
            write_pending(l0);
        } else if (l0->evict_wanted) {
            l0->evict_wanted = false;
            pthread_mutex_unlock(&l0->lock);
            kiln_l0_evict(l0, NULL);
            pthread_mutex_lock(&l0->lock);
        } else {
            pthread_cond_wait(&l0->wake, &l0->lock);
        }
    }
    pthread_mutex_unlock(&l0->lock);
    return NULL;
}

static void want_evict(struct kiln_l0 *l0) {
    pthread_mutex_lock(&l0->lock);
    l0->evict_wanted = true;
    pthread_cond_signal(&l0->wake);
    pthread_mutex_unlock(&l0->lock);
}

static int start_writer(struct kiln_l0 *l0, struct kiln_err *err) {
    int rc = pthread_create(&l0->writer, NULL, write_loop, l0);
    if (rc)
        return kiln_fail(err, KILN_E_NOMEM, "no thread for the local cache: %s", strerror(rc));
    l0->writer_started = true;
    return 0;
}

static uint64_t clamp(uint64_t value, uint64_t least, uint64_t most) {
    return value < least ? least : value > most ? most : value;
}

static int open_parts(struct kiln_l0 *l0, const char *dir, struct kiln_err *err) {
    kiln_autofree char *blobs = kiln_path_join(dir, "cas");
    kiln_autofree char *index = kiln_path_join(dir, "index");
    l0->dir = strdup(dir);
    if (!blobs || !index || !l0->dir)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the local cache");
    int rc = kiln_l0_pending_init(&l0->pending, err);
    if (rc == 0)
        rc = kiln_objects_new(blobs, &l0->blobs, err); // makes dir too
    if (rc == 0)
        rc = kiln_l0_index_open(index, &l0->index, err);
    return rc ? rc : start_writer(l0, err);
}

int kiln_l0_open(const char *dir, uint64_t max_bytes, struct kiln_l0 **l0, struct kiln_err *err) {
    struct kiln_l0 *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the local cache");
    made->max_bytes = max_bytes;
    made->index_bytes_max = clamp(max_bytes / INDEX_PART, INDEX_BYTES_LEAST, INDEX_BYTES_MOST);
    made->evict_wanted = true; // the first walk counts what is there
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&made->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&made->lock, NULL);
    pthread_rwlockattr_t prefer_writer; // adds that follow each other must not keep the walk waiting
    pthread_rwlockattr_init(&prefer_writer);
    pthread_rwlockattr_setkind_np(&prefer_writer, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&made->walk_lock, &prefer_writer);
    pthread_rwlockattr_destroy(&prefer_writer);
    int rc = open_parts(made, dir, err);
    if (rc) {
        kiln_l0_close(made);
        return kiln_wrap(err, rc, "local cache %s", dir);
    }
    *l0 = made;
    return 0;
}

void kiln_l0_close(struct kiln_l0 *l0) {
    if (!l0)
        return;
    if (l0->writer_started) {
        pthread_mutex_lock(&l0->lock);
        l0->stop = true;
        pthread_cond_signal(&l0->wake);
        pthread_mutex_unlock(&l0->lock);
        pthread_join(l0->writer, NULL);
    }
    kiln_l0_index_close(l0->index);
    kiln_objects_free(l0->blobs);
    kiln_l0_pending_release(&l0->pending);
    pthread_rwlock_destroy(&l0->walk_lock);
    pthread_mutex_destroy(&l0->lock);
    pthread_cond_destroy(&l0->wake);
    free(l0->dir);
    free(l0);
}

// Index entries.

static int change(struct kiln_l0 *l0, enum kiln_l0_change_op op, const struct index_key *key, const void *value,
                  size_t value_len, struct kiln_err *err) {
    if (value_len > KILN_L0_VALUE_BYTES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a value of %zu bytes is too large for the index", value_len);
    pthread_mutex_lock(&l0->lock);
    int rc = kiln_l0_pending_add(&l0->pending, op, key->bytes, key->len, value, value_len, err);
    pthread_cond_signal(&l0->wake);
    pthread_mutex_unlock(&l0->lock);
    return rc;
}

// KILN_E_NOTFOUND also for a deletion; *decided false when the index has to be asked.
static int get_pending(struct kiln_l0 *l0, const struct index_key *key, struct kiln_buf *value, bool *decided,
                       struct kiln_err *err) {
    int rc = 0;
    pthread_mutex_lock(&l0->lock);
    const struct kiln_l0_change *found = kiln_l0_pending_find(&l0->pending, key->bytes, key->len);
    *decided = found != NULL;
    if (found && found->op == KILN_L0_DELETE)
        rc = kiln_fail(err, KILN_E_NOTFOUND, "not in the index");
    else if (found && kiln_buf_add(value, found->bytes + found->key_len, found->value_len))
        rc = kiln_fail(err, KILN_E_LIMIT, "an index entry has %zu bytes", found->value_len);
    pthread_mutex_unlock(&l0->lock);
    return rc;
}

static int get(struct kiln_l0 *l0, const struct index_key *key, struct kiln_buf *value, struct kiln_err *err) {
    bool decided;
    uint32_t used_s;
    int rc = get_pending(l0, key, value, &decided, err);
    if (decided)
        return rc;
    rc = kiln_l0_index_get(l0->index, key->bytes, key->len, value, &used_s, err);
    if (rc == KILN_E_CORRUPT) {
        atomic_fetch_add(&l0->corrupt, 1);
        change(l0, KILN_L0_DELETE, key, NULL, 0, NULL);
        return kiln_fail(err, KILN_E_NOTFOUND, "the index entry was corrupt");
    }
    if (rc)
        return rc == KILN_E_LIMIT ? rc : KILN_E_NOTFOUND;
    if (now_s() - used_s >= TOUCH_GRAIN_S)
        change(l0, KILN_L0_TOUCH, key, NULL, 0, NULL);
    return 0;
}

int kiln_l0_get_result(struct kiln_l0 *l0, const struct kiln_digest *action, struct kiln_buf *envelope,
                       struct kiln_err *err) {
    struct index_key key;
    int rc = make_key(TAG_ACTION, action->bytes, sizeof action->bytes, &key, err);
    return rc ? rc : get(l0, &key, envelope, err);
}

int kiln_l0_put_result(struct kiln_l0 *l0, const struct kiln_digest *action, const void *envelope, size_t len,
                       struct kiln_err *err) {
    struct index_key key;
    int rc = make_key(TAG_ACTION, action->bytes, sizeof action->bytes, &key, err);
    return rc ? rc : change(l0, KILN_L0_PUT, &key, envelope, len, err);
}

void kiln_l0_drop_result(struct kiln_l0 *l0, const struct kiln_digest *action) {
    struct index_key key;
    if (make_key(TAG_ACTION, action->bytes, sizeof action->bytes, &key, NULL) == 0)
        change(l0, KILN_L0_DELETE, &key, NULL, 0, NULL);
}

int kiln_l0_memo_get(struct kiln_l0 *l0, enum kiln_memo_table table, const void *key, size_t key_len,
                     struct kiln_buf *value, struct kiln_err *err) {
    struct index_key made;
    int rc = make_key(memo_tags[table], key, key_len, &made, err);
    return rc ? rc : get(l0, &made, value, err);
}

int kiln_l0_memo_put(struct kiln_l0 *l0, enum kiln_memo_table table, const void *key, size_t key_len, const void *value,
                     size_t value_len, struct kiln_err *err) {
    struct index_key made;
    int rc = make_key(memo_tags[table], key, key_len, &made, err);
    return rc ? rc : change(l0, KILN_L0_PUT, &made, value, value_len, err);
}

// Blobs.

static void drop_blob(struct kiln_l0 *l0, const struct blob_key *key, uint64_t size) {
    atomic_fetch_add(&l0->corrupt, 1);
    pthread_rwlock_rdlock(&l0->walk_lock);
    // Another thread may have met it first.
    if (kiln_objects_has(l0->blobs, key->text) && kiln_objects_remove(l0->blobs, key->text, NULL) == 0) {
        atomic_fetch_sub(&l0->bytes, (int64_t)((size + 4095) / 4096 * 4096));
        atomic_fetch_sub(&l0->objects, 1);
    }
    pthread_rwlock_unlock(&l0->walk_lock);
}

int kiln_l0_open_blob(struct kiln_l0 *l0, const struct kiln_digest *digest, uint64_t size, int *fd,
                      struct kiln_err *err) {
    struct blob_key key = blob_key(digest);
    kiln_autofd int opened = -1;
    uint64_t stored_size, hashed_size;
    struct kiln_digest found;
    int rc = kiln_objects_open(l0->blobs, key.text, &opened, &stored_size, err);
    if (rc)
        return rc == KILN_E_NOTFOUND ? rc : kiln_wrap(err, KILN_E_NOTFOUND, "local cache");
    rc = kiln_digest_of_fd(opened, stored_size, &found, &hashed_size, err);
    if (rc || !kiln_digest_equal(&found, digest)) {
        drop_blob(l0, &key, stored_size);
        return kiln_fail(err, KILN_E_CORRUPT, "blob %s of the local cache was corrupt", key.text + 3);
    }
    if (hashed_size != size) // then the blob is right and the caller's size is not
        return kiln_fail(err, KILN_E_CORRUPT, "blob %s has %llu bytes, not %llu", key.text + 3,
                         (unsigned long long)hashed_size, (unsigned long long)size);
    *fd = kiln_steal_fd(&opened);
    return 0;
}

static bool is_over(struct kiln_l0 *l0) {
    int64_t bytes = atomic_load(&l0->bytes);
    return bytes > 0 && (uint64_t)bytes > l0->max_bytes;
}

int kiln_l0_add_blob(struct kiln_l0 *l0, int fd, const struct kiln_digest *digest, uint64_t size,
                     struct kiln_err *err) {
    struct blob_key key = blob_key(digest);
    struct kiln_object_put put = {.key = key.text, .max_bytes = size, .expected = digest, .may_link = true};
    uint64_t added;
    pthread_rwlock_rdlock(&l0->walk_lock);
    int rc = kiln_objects_put_fd(l0->blobs, &put, fd, &added, err);
    if (rc == 0 && added) {
        atomic_fetch_add(&l0->objects, 1);
        atomic_fetch_add(&l0->bytes, (int64_t)added);
    }
    pthread_rwlock_unlock(&l0->walk_lock);
    if (rc == 0 && is_over(l0))
        want_evict(l0);
    return rc;
}

bool kiln_l0_has_blob(struct kiln_l0 *l0, const struct kiln_digest *digest) {
    struct blob_key key = blob_key(digest);
    return kiln_objects_has(l0->blobs, key.text);
}

// Walks the blobs when they have not been counted yet or are too many. walk_lock is held for writing.
static int evict_blobs(struct kiln_l0 *l0, struct kiln_err *err) {
    struct kiln_objects_usage usage;
    if (l0->counted && !is_over(l0))
        return 0;
    uint64_t target = is_over(l0) ? l0->max_bytes - l0->max_bytes / SLACK_PART : l0->max_bytes;
    int rc = kiln_objects_prune(l0->blobs, target, 0, &usage, err);
    if (rc)
        return rc;
    atomic_store(&l0->bytes, (int64_t)usage.bytes);
    atomic_store(&l0->objects, (int64_t)usage.objects);
    atomic_fetch_add(&l0->evicted_bytes, usage.removed_bytes);
    l0->counted = true;
    return 0;
}

int kiln_l0_open_scratch(struct kiln_l0 *l0, int *fd, struct kiln_err *err) {
    int opened = open(l0->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (opened < 0)
        return kiln_fail_errno(err, KILN_E_IO, "no unnamed file in %s", l0->dir);
    *fd = opened;
    return 0;
}

int kiln_l0_evict(struct kiln_l0 *l0, struct kiln_err *err) {
    pthread_rwlock_wrlock(&l0->walk_lock);
    int rc = evict_blobs(l0, err);
    pthread_rwlock_unlock(&l0->walk_lock);
    return rc ? rc : kiln_l0_index_trim(l0->index, l0->index_bytes_max, err);
}

void kiln_l0_stats(struct kiln_l0 *l0, struct kiln_l0_stats *stats) {
    pthread_rwlock_wrlock(&l0->walk_lock);
    if (!l0->counted)
        evict_blobs(l0, NULL);
    pthread_rwlock_unlock(&l0->walk_lock);
    int64_t bytes = atomic_load(&l0->bytes), objects = atomic_load(&l0->objects);
    *stats = (struct kiln_l0_stats){
        .bytes = bytes > 0 ? (uint64_t)bytes : 0,
        .objects = objects > 0 ? (uint64_t)objects : 0,
        .actions = kiln_l0_index_count(l0->index, TAG_ACTION),
        .evicted_bytes = atomic_load(&l0->evicted_bytes),
        .corrupt = atomic_load(&l0->corrupt) + kiln_l0_index_losses(l0->index),
    };
}
