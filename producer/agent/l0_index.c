#include "producer/agent/l0_index.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/core/digest.h"
#include "producer/agent/l0_index_check.h"

#define MAP_BYTES_FIRST ((size_t)64 << 20)
#define MAP_BYTES_MAX ((size_t)16 << 30)
#define READERS_MAX 512
#define SUM_BYTES 8
#define HEADER_BYTES (4 + SUM_BYTES)

struct kiln_l0_index {
    char *path;
    MDB_env *env;
    MDB_dbi dbi;
    // Held for reading around each transaction; for writing where the map moves or the file is replaced.
    pthread_rwlock_t map_lock;
    uint64_t losses;
};

static bool is_damage(int rc) {
    switch (rc) {
    case MDB_PAGE_NOTFOUND:
    case MDB_CORRUPTED:
    case MDB_PANIC:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_CURSOR_FULL:
    case MDB_PAGE_FULL:
    case MDB_INCOMPATIBLE:
    case MDB_BAD_TXN:
    case MDB_BAD_DBI:
        return true;
    default:
        return false;
    }
}

static int fail_lmdb(struct kiln_err *err, int rc, const char *what) {
    int code = is_damage(rc) ? KILN_E_CORRUPT : rc == ENOMEM ? KILN_E_NOMEM : KILN_E_IO;
    return kiln_fail(err, code, "%s the index: %s", what, mdb_strerror(rc));
}

static void checksum(const void *key, size_t key_len, const void *value, size_t value_len,
                     unsigned char sum[SUM_BYTES]) {
    struct kiln_digest of_key, of_value;
    kiln_digest_of(key, key_len, &of_key);
    kiln_digest_of(value, value_len, &of_value);
    for (size_t i = 0; i < SUM_BYTES; i++)
        sum[i] = of_key.bytes[i] ^ of_value.bytes[SUM_BYTES + i];
}

static uint32_t read_time(const unsigned char *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void write_time(unsigned char *at, uint32_t time) {
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(time >> (24 - 8 * i));
}

static int open_env(struct kiln_l0_index *index, size_t map_bytes, struct kiln_err *err) {
    MDB_txn *txn = NULL;
    MDB_env *env = NULL;
    int rc = mdb_env_create(&env);
    if (rc)
        return fail_lmdb(err, rc, "cannot create");
    if ((rc = mdb_env_set_mapsize(env, map_bytes)) == 0 && (rc = mdb_env_set_maxreaders(env, READERS_MAX)) == 0)
        rc = mdb_env_open(env, index->path, MDB_NOSUBDIR | MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD, 0600);
    if (rc == 0 && (rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn)) == 0) {
        rc = mdb_dbi_open(txn, NULL, 0, &index->dbi);
        mdb_txn_abort(txn);
    }
    if (rc) {
        mdb_env_close(env);
        return fail_lmdb(err, rc, "cannot open");
    }
    index->env = env;
    return 0;
}

static void set_aside(struct kiln_l0_index *index) {
    kiln_autofree char *bad = NULL;
    kiln_autofree char *lock = NULL;
    index->losses++;
    if (asprintf(&bad, "%s.bad", index->path) < 0)
        bad = NULL;
    if (asprintf(&lock, "%s-lock", index->path) < 0)
        lock = NULL;
    if (!bad || rename(index->path, bad))
        unlink(index->path);
    if (lock)
        unlink(lock);
}

// Room for what is there and as much again; LMDB maps addresses, not memory.
static int open_checked(struct kiln_l0_index *index, struct kiln_err *err) {
    struct stat st = {0};
    kiln_autofd int fd = open(index->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno != ENOENT)
        return kiln_fail_errno(err, KILN_E_IO, "cannot open the index %s", index->path);
    if (fd >= 0) {
        int rc = kiln_l0_index_check(fd, err);
        if (rc)
            return rc;
        fstat(fd, &st);
    }
    size_t map_bytes = MAP_BYTES_FIRST;
    while (map_bytes < MAP_BYTES_MAX && map_bytes / 2 < (size_t)st.st_size)
        map_bytes *= 2;
    return open_env(index, map_bytes, err);
}

static int open_or_renew(struct kiln_l0_index *index, struct kiln_err *err) {
    int rc = open_checked(index, err);
    if (rc != KILN_E_CORRUPT)
        return rc;
    set_aside(index);
    return open_checked(index, err);
}

int kiln_l0_index_open(const char *path, struct kiln_l0_index **index, struct kiln_err *err) {
    struct kiln_l0_index *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the index");
    pthread_rwlock_init(&made->map_lock, NULL);
    made->path = strdup(path);
    int rc = made->path ? open_or_renew(made, err) : kiln_fail(err, KILN_E_NOMEM, "no memory for the index");
    if (rc) {
        kiln_l0_index_close(made);
        return rc;
    }
    *index = made;
    return 0;
}

void kiln_l0_index_close(struct kiln_l0_index *index) {
    if (!index)
        return;
    if (index->env)
        mdb_env_close(index->env);
    pthread_rwlock_destroy(&index->map_lock);
    free(index->path);
    free(index);
}

// After damage was met. `seen` is the environment that showed it: another thread may have renewed it since.
static void renew(struct kiln_l0_index *index, MDB_env *seen) {
    pthread_rwlock_wrlock(&index->map_lock);
    if (index->env == seen) {
        mdb_env_close(index->env);
        index->env = NULL;
        set_aside(index);
        open_checked(index, NULL); // without an index everything is a miss
    }
    pthread_rwlock_unlock(&index->map_lock);
}

uint64_t kiln_l0_index_losses(struct kiln_l0_index *index) {
    pthread_rwlock_rdlock(&index->map_lock);
    uint64_t losses = index->losses;
    pthread_rwlock_unlock(&index->map_lock);
    return losses;
}

// A read transaction with the map held; NULL (and nothing held) where there is no index.
static MDB_txn *read_begin(struct kiln_l0_index *index, int *rc) {
    MDB_txn *txn = NULL;
    pthread_rwlock_rdlock(&index->map_lock);
    *rc = index->env ? mdb_txn_begin(index->env, NULL, MDB_RDONLY, &txn) : MDB_NOTFOUND;
    if (!txn)
        pthread_rwlock_unlock(&index->map_lock);
    return txn;
}

static void read_end(struct kiln_l0_index *index, MDB_txn *txn, int rc) {
    MDB_env *env = index->env;
    mdb_txn_abort(txn);
    pthread_rwlock_unlock(&index->map_lock);
    if (is_damage(rc))
        renew(index, env);
}

static int take_value(const MDB_val *key, const MDB_val *stored, struct kiln_buf *value, uint32_t *used_s,
                      struct kiln_err *err) {
    const unsigned char *bytes = stored->mv_data;
    unsigned char sum[SUM_BYTES];
    if (stored->mv_size < HEADER_BYTES)
        return kiln_fail(err, KILN_E_CORRUPT, "an index entry is too short");
    size_t before = value->len, len = stored->mv_size - HEADER_BYTES;
    // Copied first: what is checked must be what is returned.
    if (kiln_buf_add(value, bytes + HEADER_BYTES, len))
        return kiln_fail(err, KILN_E_LIMIT, "an index entry has %zu bytes", len);
    checksum(key->mv_data, key->mv_size, value->data + before, len, sum);
    if (memcmp(sum, bytes + 4, SUM_BYTES) != 0) {
        value->len = before;
        return kiln_fail(err, KILN_E_CORRUPT, "an index entry does not match its check sum");
    }
    *used_s = read_time(bytes);
    return 0;
}

int kiln_l0_index_get(struct kiln_l0_index *index, const void *key, size_t key_len, struct kiln_buf *value,
                      uint32_t *used_s, struct kiln_err *err) {
    MDB_val wanted = {.mv_size = key_len, .mv_data = (void *)key}, stored;
    int rc;
    MDB_txn *txn = read_begin(index, &rc);
    if (!txn)
        return rc == MDB_NOTFOUND ? KILN_E_NOTFOUND : fail_lmdb(err, rc, "cannot read");
    rc = mdb_get(txn, index->dbi, &wanted, &stored);
    int code = rc == 0              ? take_value(&wanted, &stored, value, used_s, err)
               : rc == MDB_NOTFOUND ? kiln_fail(err, KILN_E_NOTFOUND, "not in the index")
                                    : fail_lmdb(err, rc, "cannot read");
    read_end(index, txn, rc);
    return code;
}

static int put(MDB_txn *txn, MDB_dbi dbi, const struct kiln_l0_change *change, uint32_t now_s) {
    const unsigned char *value = change->bytes + change->key_len;
    MDB_val key = {.mv_size = change->key_len, .mv_data = (void *)change->bytes};
    MDB_val stored = {.mv_size = HEADER_BYTES + change->value_len};
    int rc = mdb_put(txn, dbi, &key, &stored, MDB_RESERVE);
    if (rc)
        return rc;
    unsigned char *bytes = stored.mv_data;
    write_time(bytes, now_s);
    checksum(change->bytes, change->key_len, value, change->value_len, bytes + 4);
    if (change->value_len)
        memcpy(bytes + HEADER_BYTES, value, change->value_len);
    return 0;
}

static int touch(MDB_txn *txn, MDB_dbi dbi, const struct kiln_l0_change *change, uint32_t now_s) {
    MDB_val key = {.mv_size = change->key_len, .mv_data = (void *)change->bytes}, stored;
    int rc = mdb_get(txn, dbi, &key, &stored);
    if (rc || stored.mv_size < HEADER_BYTES)
        return rc;
    kiln_autofree unsigned char *copy = malloc(stored.mv_size); // mdb_put may move what mdb_get points to
    if (!copy)
        return ENOMEM;
    memcpy(copy, stored.mv_data, stored.mv_size);
    write_time(copy, now_s);
    stored.mv_data = copy;
    return mdb_put(txn, dbi, &key, &stored, 0);
}

static int change_one(MDB_txn *txn, MDB_dbi dbi, const struct kiln_l0_change *change, uint32_t now_s) {
    MDB_val key = {.mv_size = change->key_len, .mv_data = (void *)change->bytes};
    switch (change->op) {
    case KILN_L0_PUT:
        return put(txn, dbi, change, now_s);
    case KILN_L0_TOUCH:
        return touch(txn, dbi, change, now_s);
    case KILN_L0_DELETE:
        return mdb_del(txn, dbi, &key, NULL);
    }
    return 0;
}

static int apply_once(struct kiln_l0_index *index, struct kiln_l0_change *const *changes, size_t count,
                      uint32_t now_s) {
    MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(index->env, NULL, 0, &txn);
    if (rc)
        return rc;
    for (size_t i = 0; i < count; i++) {
        rc = change_one(txn, index->dbi, changes[i], now_s);
        if (rc && rc != MDB_NOTFOUND) {
            mdb_txn_abort(txn);
            return rc;
        }
    }
    return mdb_txn_commit(txn);
}

static int grow(struct kiln_l0_index *index) {
    MDB_envinfo info;
    pthread_rwlock_wrlock(&index->map_lock);
    int rc = mdb_env_info(index->env, &info);
    if (rc == 0)
        rc = info.me_mapsize >= MAP_BYTES_MAX ? MDB_MAP_FULL : mdb_env_set_mapsize(index->env, info.me_mapsize * 2);
    pthread_rwlock_unlock(&index->map_lock);
    return rc;
}

int kiln_l0_index_apply(struct kiln_l0_index *index, struct kiln_l0_change *const *changes, size_t count, uint32_t now_s,
                        struct kiln_err *err) {
    bool again = true, renewed = false;
    int rc = 0;
    while (again) {
        pthread_rwlock_rdlock(&index->map_lock);
        MDB_env *env = index->env;
        rc = env ? apply_once(index, changes, count, now_s) : MDB_INVALID;
        pthread_rwlock_unlock(&index->map_lock);
        again = false;
        if (rc == MDB_MAP_FULL) {
            again = (rc = grow(index)) == 0;
        } else if (env && is_damage(rc) && !renewed) { // the changes are good: they go into the new file
            renew(index, env);
            again = renewed = true;
        }
    }
    return rc ? fail_lmdb(err, rc, "cannot write") : 0;
}

int kiln_l0_index_sync(struct kiln_l0_index *index, struct kiln_err *err) {
    pthread_rwlock_rdlock(&index->map_lock);
    int rc = index->env ? mdb_env_sync(index->env, 1) : 0;
    pthread_rwlock_unlock(&index->map_lock);
    return rc ? fail_lmdb(err, rc, "cannot sync") : 0;
}

uint64_t kiln_l0_index_bytes(struct kiln_l0_index *index) {
    int rc;
    MDB_stat stat = {0};
    MDB_txn *txn = read_begin(index, &rc);
    if (!txn)
        return 0;
    rc = mdb_stat(txn, index->dbi, &stat);
    read_end(index, txn, rc);
    return (uint64_t)stat.ms_psize * (stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages);
}

uint64_t kiln_l0_index_count(struct kiln_l0_index *index, unsigned char first) {
    int rc;
    uint64_t count = 0;
    MDB_cursor *cursor;
    MDB_val key = {.mv_size = 1, .mv_data = &first}, stored;
    MDB_txn *txn = read_begin(index, &rc);
    if (!txn)
        return 0;
    if ((rc = mdb_cursor_open(txn, index->dbi, &cursor)) == 0) {
        for (rc = mdb_cursor_get(cursor, &key, &stored, MDB_SET_RANGE);
             rc == 0 && ((unsigned char *)key.mv_data)[0] == first;
             rc = mdb_cursor_get(cursor, &key, &stored, MDB_NEXT))
            count++;
        mdb_cursor_close(cursor);
    }
    read_end(index, txn, rc);
    return count;
}

struct aged {
    uint32_t used_s;
    size_t bytes;
    struct kiln_l0_change *deletion;
};

struct aged_list {
    struct aged *items;
    size_t count, cap;
};

static void aged_release(struct aged_list *list) {
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i].deletion);
    free(list->items);
}

static int aged_add(struct aged_list *list, const MDB_val *key, const MDB_val *stored) {
    if (list->count == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 1024;
        struct aged *items = realloc(list->items, cap * sizeof *items);
        if (!items)
            return ENOMEM;
        list->items = items;
        list->cap = cap;
    }
    struct kiln_l0_change *deletion = calloc(1, sizeof *deletion + key->mv_size);
    if (!deletion)
        return ENOMEM;
    deletion->op = KILN_L0_DELETE;
    deletion->key_len = key->mv_size;
    memcpy(deletion->bytes, key->mv_data, key->mv_size);
    uint32_t used_s = stored->mv_size < HEADER_BYTES ? 0 : read_time(stored->mv_data);
    list->items[list->count++] = (struct aged){used_s, key->mv_size + stored->mv_size, deletion};
    return 0;
}

static int aged_collect(struct kiln_l0_index *index, struct aged_list *list) {
    int rc;
    MDB_cursor *cursor;
    MDB_val key, stored;
    MDB_txn *txn = read_begin(index, &rc);
    if (!txn)
        return rc;
    if ((rc = mdb_cursor_open(txn, index->dbi, &cursor)) == 0) {
        while ((rc = mdb_cursor_get(cursor, &key, &stored, MDB_NEXT)) == 0 &&
               (rc = aged_add(list, &key, &stored)) == 0)
            ;
        mdb_cursor_close(cursor);
    }
    read_end(index, txn, rc);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int by_age(const void *a, const void *b) {
    const struct aged *left = a, *right = b;
    return (left->used_s > right->used_s) - (left->used_s < right->used_s);
}

int kiln_l0_index_trim(struct kiln_l0_index *index, uint64_t max_bytes, struct kiln_err *err) {
    uint64_t in_use = kiln_l0_index_bytes(index), contents = 0, removed = 0;
    if (in_use <= max_bytes)
        return 0;
    struct aged_list list = {0};
    int rc = aged_collect(index, &list);
    for (size_t i = 0; i < list.count; i++)
        contents += list.items[i].bytes;
    if (rc == 0 && list.count)
        qsort(list.items, list.count, sizeof *list.items, by_age);
    // Pages are fuller or emptier than their contents: scale, and leave an eighth of room so that this is rare.
    uint64_t target = in_use ? (uint64_t)((double)contents * ((double)max_bytes * 7 / 8) / (double)in_use) : 0;
    kiln_autofree struct kiln_l0_change **deletions = calloc(list.count + 1, sizeof *deletions);
    size_t count = 0;
    if (rc == 0 && !deletions)
        rc = ENOMEM;
    for (; rc == 0 && count < list.count && contents - removed > target; count++) {
        removed += list.items[count].bytes;
        deletions[count] = list.items[count].deletion;
    }
    int code = rc ? fail_lmdb(err, rc, "cannot walk") : kiln_l0_index_apply(index, deletions, count, 0, err);
    aged_release(&list);
    return code;
}
