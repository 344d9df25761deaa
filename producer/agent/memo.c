#include "producer/agent/memo.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

// Time stamps are at worst two seconds coarse (FAT).
#define YOUNG_NS 2000000000ll
#define PROBES 32
#define DEVICES_MAX 64
#define HASH_ATTEMPTS 3
// In the value, after the digest: size, mtime, ctime.
#define VALUE_BYTES (32 + 3 * 8)

struct device {
    uint64_t number;
    bool fine; // each change has its own time
};

struct kiln_memo {
    struct kiln_l0 *l0;
    pthread_mutex_t lock; // devices
    struct device devices[DEVICES_MAX];
    size_t device_count;
};

struct identity {
    uint64_t dev, ino, size;
    int64_t mtime_ns, ctime_ns;
};

static int64_t time_ns(const struct timespec *time) { return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec; }

static struct identity identity_of(const struct stat *st) {
    return (struct identity){st->st_dev, st->st_ino, (uint64_t)st->st_size, time_ns(&st->st_mtim), time_ns(&st->st_ctim)};
}

static bool same_identity(const struct identity *a, const struct identity *b) {
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime_ns == b->mtime_ns &&
           a->ctime_ns == b->ctime_ns;
}

// A change that is too recent, or in the future: the next one may carry the same time.
static bool is_young(const struct identity *identity, int64_t now_ns) {
    return now_ns - identity->ctime_ns < YOUNG_NS || now_ns - identity->mtime_ns < YOUNG_NS;
}

static int64_t wall_ns(void) { return (int64_t)kiln_clock_wall_ms() * 1000000; }

static void encode(struct kiln_buf *key, struct kiln_buf *value, const struct identity *identity,
                   const struct kiln_digest *digest) {
    kiln_buf_add_be64(key, identity->dev);
    kiln_buf_add_be64(key, identity->ino);
    if (!value)
        return;
    kiln_buf_add(value, digest->bytes, sizeof digest->bytes);
    kiln_buf_add_be64(value, identity->size);
    kiln_buf_add_be64(value, (uint64_t)identity->mtime_ns);
    kiln_buf_add_be64(value, (uint64_t)identity->ctime_ns);
}

// One entry for each inode: a newer identity takes the place of the older.
static void remember(struct kiln_memo *memo, const struct identity *identity, const struct kiln_digest *digest) {
    kiln_autobuf struct kiln_buf key = KILN_BUF_INIT(64), value = KILN_BUF_INIT(VALUE_BYTES);
    encode(&key, &value, identity, digest);
    if (!key.failed && !value.failed)
        kiln_l0_memo_put(memo->l0, KILN_MEMO_FILE, key.data, key.len, value.data, value.len, NULL);
}

static bool recall(struct kiln_memo *memo, const struct identity *identity, struct kiln_digest *digest) {
    kiln_autobuf struct kiln_buf key = KILN_BUF_INIT(64), value = KILN_BUF_INIT(VALUE_BYTES);
    encode(&key, NULL, identity, NULL);
    if (key.failed || kiln_l0_memo_get(memo->l0, KILN_MEMO_FILE, key.data, key.len, &value, NULL) ||
        value.len != VALUE_BYTES)
        return false;
    struct kiln_reader reader = KILN_READER_INIT(value.data, value.len);
    const unsigned char *bytes = kiln_read_bytes(&reader, sizeof digest->bytes);
    struct identity stored = {.dev = identity->dev, .ino = identity->ino};
    stored.size = kiln_read_be64(&reader);
    stored.mtime_ns = (int64_t)kiln_read_be64(&reader);
    stored.ctime_ns = (int64_t)kiln_read_be64(&reader);
    if (!same_identity(&stored, identity))
        return false;
    memcpy(digest->bytes, bytes, sizeof digest->bytes);
    return true;
}

// Writes and looks, as often as it takes a clock of some milliseconds to show the same time twice.
static bool changes_have_own_times(int fd) {
    int64_t last_ns = 0;
    for (int i = 0; i < PROBES; i++) {
        struct stat st;
        if (pwrite(fd, &i, sizeof i, 0) != sizeof i || fstat(fd, &st) || time_ns(&st.st_ctim) == last_ns)
            return false;
        last_ns = time_ns(&st.st_ctim);
    }
    return true;
}

static bool scratch_is_fine(struct kiln_l0 *l0, uint64_t *dev) {
    kiln_autofd int fd = -1;
    struct stat st;
    if (kiln_l0_open_scratch(l0, &fd, NULL) || fstat(fd, &st))
        return false;
    *dev = st.st_dev;
    return changes_have_own_times(fd);
}

static bool is_tmpfs(uint64_t dev) {
    char wanted[32], line[4096], number[32];
    bool found = false;
    snprintf(wanted, sizeof wanted, "%u:%u", major(dev), minor(dev));
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    while (mounts && !found && fgets(line, sizeof line, mounts)) {
        const char *type = strstr(line, " - ");
        found = sscanf(line, "%*d %*d %31s", number) == 1 && strcmp(number, wanted) == 0 && type &&
                strncmp(type, " - tmpfs ", 9) == 0;
    }
    if (mounts)
        fclose(mounts);
    return found;
}

// The agent writes nowhere but into its own directory, so only the cache's file system is tried, and that of memory.
static bool probe(struct kiln_memo *memo, uint64_t dev) {
    uint64_t scratch_dev = 0;
    bool scratch_fine = scratch_is_fine(memo->l0, &scratch_dev);
    if (scratch_dev == dev)
        return scratch_fine;
    if (!is_tmpfs(dev))
        return false;
    kiln_autofd int fd = memfd_create("kiln-probe", MFD_CLOEXEC);
    return fd >= 0 && changes_have_own_times(fd);
}

static bool device_is_fine(struct kiln_memo *memo, uint64_t dev) {
    pthread_mutex_lock(&memo->lock);
    size_t i = 0;
    while (i < memo->device_count && memo->devices[i].number != dev)
        i++;
    if (i == memo->device_count && i < DEVICES_MAX)
        memo->devices[memo->device_count++] = (struct device){dev, probe(memo, dev)};
    bool fine = i < memo->device_count && memo->devices[i].fine;
    pthread_mutex_unlock(&memo->lock);
    return fine;
}

int kiln_memo_new(struct kiln_l0 *l0, struct kiln_memo **memo, struct kiln_err *err) {
    struct kiln_memo *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the memo of files");
    made->l0 = l0;
    pthread_mutex_init(&made->lock, NULL);
    *memo = made;
    return 0;
}

void kiln_memo_free(struct kiln_memo *memo) {
    if (!memo)
        return;
    pthread_mutex_destroy(&memo->lock);
    free(memo);
}

static int stat_regular(int fd, struct identity *identity, struct kiln_err *err) {
    struct stat st;
    if (fstat(fd, &st))
        return kiln_fail_errno(err, KILN_E_IO, "cannot stat a file to hash");
    if (!S_ISREG(st.st_mode))
        return kiln_fail(err, KILN_E_INVAL, "only a regular file has a digest");
    *identity = identity_of(&st);
    return 0;
}

int kiln_memo_digest_fd(struct kiln_memo *memo, int fd, struct kiln_digest *digest, uint64_t *size,
                        struct kiln_err *err) {
    struct identity before, after;
    struct kiln_digest found;
    int rc = stat_regular(fd, &before, err);
    if (rc)
        return rc;
    bool known = recall(memo, &before, &found);
    for (int attempt = 0; !known && attempt < HASH_ATTEMPTS; attempt++) {
        int64_t start_ns = wall_ns();
        if ((rc = kiln_digest_of_fd(fd, UINT64_MAX, &found, NULL, err)) || (rc = stat_regular(fd, &after, err)))
            return rc;
        known = same_identity(&before, &after);
        if (known && !is_young(&before, start_ns))
            remember(memo, &before, &found);
        before = after;
    }
    if (!known) {
        rc = kiln_fail(err, KILN_E_IO, "a file changes while it is read");
        if (err)
            err->retriable = true;
        return rc;
    }
    *digest = found;
    *size = before.size;
    return 0;
}

bool kiln_memo_known(struct kiln_memo *memo, const struct stat *st, struct kiln_digest *digest) {
    struct identity identity = identity_of(st);
    return S_ISREG(st->st_mode) && recall(memo, &identity, digest);
}

void kiln_memo_record(struct kiln_memo *memo, const struct stat *st, const struct kiln_digest *digest) {
    struct identity identity = identity_of(st);
    if (S_ISREG(st->st_mode) && !is_young(&identity, wall_ns()))
        remember(memo, &identity, digest);
}

void kiln_memo_record_placed(struct kiln_memo *memo, uint64_t dev, uint64_t ino, uint64_t size, int64_t mtime_ns,
                             int64_t ctime_ns, const struct kiln_digest *digest) {
    struct identity identity = {dev, ino, size, mtime_ns, ctime_ns};
    if (!is_young(&identity, wall_ns()) || device_is_fine(memo, dev))
        remember(memo, &identity, digest);
}
