#include "tests/unit/scratch.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "producer/agent/l0.h"
#include "producer/agent/l0_index.h"
#include "producer/agent/l0_index_check.h"
#include "producer/agent/l0_pending.h"

#define MEBIBYTE ((uint64_t)1 << 20)
#define PATIENCE_MS 20000

static _Atomic unsigned syncs;

// In the place of libc's, for liblmdb, to count.
__attribute__((visibility("default"))) int fdatasync(int fd) {
    syncs++;
    return (int)syscall(SYS_fdatasync, fd);
}

static struct kiln_l0 *open_l0(const struct scratch *scratch, uint64_t max_bytes) {
    struct kiln_l0 *l0 = NULL;
    struct kiln_err err = {0};
    assert_ok(kiln_l0_open(scratch_path(scratch, "l0"), max_bytes, &l0, &err));
    return l0;
}

static struct kiln_digest digest_of_number(unsigned number) {
    struct kiln_digest digest;
    kiln_digest_of(&number, sizeof number, &digest);
    return digest;
}

// The value that belongs to a number: its length and bytes follow from it.
static size_t value_of_number(unsigned number, size_t max, unsigned char *value) {
    size_t len = (number * 7919u) % max;
    for (size_t i = 0; i < len; i++)
        value[i] = (unsigned char)(number + i * 31);
    return len;
}

static void put_result(struct kiln_l0 *l0, unsigned number, size_t max) {
    kiln_autofree unsigned char *value = malloc(max);
    struct kiln_digest action = digest_of_number(number);
    assert_int_equal(kiln_l0_put_result(l0, &action, value, value_of_number(number, max, value), NULL), 0);
}

// True when it is there and right, false when it is a miss; anything else fails the test.
static bool check_result(struct kiln_l0 *l0, unsigned number, size_t max) {
    kiln_autofree unsigned char *value = malloc(max);
    kiln_autobuf struct kiln_buf found = KILN_BUF_INIT(MEBIBYTE);
    struct kiln_digest action = digest_of_number(number);
    int rc = kiln_l0_get_result(l0, &action, &found, NULL);
    if (rc == KILN_E_NOTFOUND)
        return false;
    assert_int_equal(rc, 0);
    assert_int_equal(found.len, value_of_number(number, max, value));
    if (found.len)
        assert_memory_equal(found.data, value, found.len);
    return true;
}

static struct kiln_l0_stats stats_of(struct kiln_l0 *l0) {
    struct kiln_l0_stats stats;
    kiln_l0_stats(l0, &stats);
    return stats;
}

static void wait_until_written(struct kiln_l0 *l0, uint64_t actions) {
    uint64_t deadline = kiln_clock_ms() + PATIENCE_MS;
    while (stats_of(l0).actions != actions)
        assert_true(kiln_clock_ms() < deadline);
}

static void results_are_visible_and_kept(void **state) {
    struct scratch *scratch = *state;
    struct kiln_l0 *l0 = open_l0(scratch, 100 * MEBIBYTE);
    assert_false(check_result(l0, 1, 3000));
    for (unsigned i = 0; i < 500; i++) {
        put_result(l0, i, 3000);
        assert_true(check_result(l0, i, 3000)); // before anything is written
    }
    struct kiln_digest dropped = digest_of_number(7);
    kiln_l0_drop_result(l0, &dropped);
    assert_false(check_result(l0, 7, 3000));
    unsigned syncs_before = syncs;
    wait_until_written(l0, 499); // by itself, without close
    for (uint64_t deadline = kiln_clock_ms() + PATIENCE_MS; syncs == syncs_before;) // and made durable
        assert_true(kiln_clock_ms() < deadline);
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(check_result(l0, i, 3000), i != 7);
    dropped = digest_of_number(8); // now a deletion of what is written
    kiln_l0_drop_result(l0, &dropped);
    assert_false(check_result(l0, 8, 3000));
    put_result(l0, 500, 3000);
    kiln_l0_close(l0);
    l0 = open_l0(scratch, 100 * MEBIBYTE);
    for (unsigned i = 0; i < 501; i++)
        assert_int_equal(check_result(l0, i, 3000), i != 7 && i != 8);
    assert_int_equal(stats_of(l0).actions, 499);
    assert_int_equal(stats_of(l0).corrupt, 0);
    kiln_l0_close(l0);
}

static void memos_of_all_sizes_and_tables(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct kiln_l0 *l0 = open_l0(scratch, 100 * MEBIBYTE);
    kiln_autofree char *large = calloc(1, MEBIBYTE + 1);
    char key[501] = "key";
    kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(MEBIBYTE);
    for (int table = 0; table < KILN_MEMO_TABLES; table++)
        assert_ok(kiln_l0_memo_put(l0, (enum kiln_memo_table)table, key, 3, &table, sizeof table, &err));
    for (int written = 0; written < 2; written++) {
        for (int table = 0; table < KILN_MEMO_TABLES; table++) { // the same key in each table
            kiln_buf_reset(&value);
            assert_ok(kiln_l0_memo_get(l0, (enum kiln_memo_table)table, key, 3, &value, &err));
            assert_int_equal(value.len, sizeof table);
            assert_memory_equal(value.data, &table, sizeof table);
        }
        kiln_l0_close(l0);
        l0 = open_l0(scratch, 100 * MEBIBYTE);
    }
    assert_int_equal(kiln_l0_memo_put(l0, KILN_MEMO_SCAN, key, 0, "", 0, NULL), KILN_E_INVAL);
    assert_int_equal(kiln_l0_memo_put(l0, KILN_MEMO_SCAN, key, 501, "", 0, NULL), KILN_E_INVAL);
    assert_int_equal(kiln_l0_memo_put(l0, KILN_MEMO_SCAN, key, 1, large, MEBIBYTE + 1, NULL), KILN_E_LIMIT);
    large[MEBIBYTE - 1] = 'z';
    assert_ok(kiln_l0_memo_put(l0, KILN_MEMO_SCAN, key, 500, large, MEBIBYTE, &err));
    assert_ok(kiln_l0_memo_put(l0, KILN_MEMO_SCAN, key, 499, "", 0, &err));
    for (int written = 0; written < 2; written++) {
        kiln_buf_reset(&value);
        assert_ok(kiln_l0_memo_get(l0, KILN_MEMO_SCAN, key, 499, &value, &err));
        assert_int_equal(value.len, 0);
        assert_ok(kiln_l0_memo_get(l0, KILN_MEMO_SCAN, key, 500, &value, &err));
        assert_int_equal(value.len, MEBIBYTE);
        assert_memory_equal(value.data, large, MEBIBYTE);
        kiln_autobuf struct kiln_buf small = KILN_BUF_INIT(100);
        assert_int_equal(kiln_l0_memo_get(l0, KILN_MEMO_SCAN, key, 500, &small, NULL), KILN_E_LIMIT);
        kiln_l0_close(l0);
        l0 = open_l0(scratch, 100 * MEBIBYTE);
    }
    assert_ok(kiln_l0_memo_put(l0, KILN_MEMO_SCAN, key, 499, "one", 3, &err));
    assert_ok(kiln_l0_memo_put(l0, KILN_MEMO_SCAN, key, 499, "second", 6, &err)); // the last one counts
    kiln_l0_close(l0);
    l0 = open_l0(scratch, 100 * MEBIBYTE);
    kiln_buf_reset(&value);
    assert_ok(kiln_l0_memo_get(l0, KILN_MEMO_SCAN, key, 499, &value, &err));
    assert_string_equal(kiln_buf_text(&value), "second");
    kiln_l0_close(l0);
}

// Blobs of 64 KiB, one for each number.
#define BLOB_BYTES ((size_t)65536)

static struct kiln_digest make_blob(const struct scratch *scratch, unsigned number, mode_t mode) {
    kiln_autofree unsigned *data = calloc(1, BLOB_BYTES);
    struct kiln_digest digest;
    for (size_t i = 0; i < BLOB_BYTES / sizeof *data; i++)
        data[i] = number * 31 + (unsigned)i;
    kiln_digest_of(data, BLOB_BYTES, &digest);
    unlinkat(scratch->fd, "blob", 0);
    scratch_write(scratch, "blob", data, BLOB_BYTES);
    assert_int_equal(fchmodat(scratch->fd, "blob", mode, 0), 0);
    return digest;
}

static struct kiln_digest add_blob(const struct scratch *scratch, struct kiln_l0 *l0, unsigned number) {
    struct kiln_err err = {0};
    struct kiln_digest digest = make_blob(scratch, number, 0644);
    kiln_autofd int fd = openat(scratch->fd, "blob", O_RDONLY);
    assert_ok(kiln_l0_add_blob(l0, fd, &digest, BLOB_BYTES, &err));
    return digest;
}

static int open_blob(struct kiln_l0 *l0, const struct kiln_digest *digest) {
    int fd = -1;
    int rc = kiln_l0_open_blob(l0, digest, BLOB_BYTES, &fd, NULL);
    if (rc)
        return rc;
    struct kiln_digest found;
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
    assert_int_equal(kiln_digest_of_fd(fd, UINT64_MAX, &found, NULL, NULL), 0);
    assert_true(kiln_digest_equal(&found, digest));
    close(fd);
    return 0;
}

static const char *blob_path(const struct scratch *scratch, const struct kiln_digest *digest) {
    char hex[KILN_DIGEST_HEX_LEN + 1], name[128];
    kiln_digest_format(digest, hex);
    snprintf(name, sizeof name, "l0/cas/%.2s/%s", hex, hex);
    return scratch_path(scratch, name);
}

static void set_age(const struct scratch *scratch, const struct kiln_digest *digest, int seconds) {
    struct timespec times[2];
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= seconds;
    times[1] = times[0];
    assert_int_equal(utimensat(AT_FDCWD, blob_path(scratch, digest), times, 0), 0);
}

static void blobs_come_back_checked(void **state) {
    struct scratch *scratch = *state;
    struct kiln_l0 *l0 = open_l0(scratch, 100 * MEBIBYTE);
    struct kiln_digest digest = digest_of_number(1);
    struct stat st;
    int fd = -1;
    assert_int_equal(open_blob(l0, &digest), KILN_E_NOTFOUND);
    digest = add_blob(scratch, l0, 1);
    assert_true(kiln_l0_has_blob(l0, &digest));
    assert_int_equal(open_blob(l0, &digest), 0);
    assert_int_equal(stat(blob_path(scratch, &digest), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0444);
    add_blob(scratch, l0, 1);
    assert_int_equal(stats_of(l0).objects, 1);
    assert_int_equal(stats_of(l0).bytes, BLOB_BYTES);
    assert_int_equal(kiln_l0_open_blob(l0, &digest, BLOB_BYTES - 1, &fd, NULL), KILN_E_CORRUPT);
    assert_int_equal(open_blob(l0, &digest), 0); // the size was wrong, not the blob
    struct kiln_digest other = digest_of_number(2);
    kiln_autofd int blob = openat(scratch->fd, "blob", O_RDONLY);
    assert_int_equal(kiln_l0_add_blob(l0, blob, &other, BLOB_BYTES, NULL), KILN_E_CORRUPT);
    assert_int_equal(kiln_l0_add_blob(l0, blob, &other, BLOB_BYTES - 1, NULL), KILN_E_LIMIT);
    assert_false(kiln_l0_has_blob(l0, &other));
    kiln_l0_close(l0);
    l0 = open_l0(scratch, 100 * MEBIBYTE);
    assert_int_equal(stats_of(l0).objects, 1); // counted again at open
    assert_int_equal(stats_of(l0).bytes, BLOB_BYTES);
    assert_int_equal(stats_of(l0).corrupt, 0);
    kiln_l0_close(l0);
}

static void a_flipped_bit_is_a_counted_miss(void **state) {
    struct scratch *scratch = *state;
    struct kiln_l0 *l0 = open_l0(scratch, 100 * MEBIBYTE);
    for (unsigned i = 0; i < 16; i++) {
        struct kiln_digest digest = add_blob(scratch, l0, i);
        const char *path = blob_path(scratch, &digest);
        off_t at = (off_t)(i * 4369);
        unsigned char byte;
        assert_int_equal(chmod(path, 0600), 0);
        kiln_autofd int fd = open(path, O_RDWR);
        if (i == 15) {
            assert_int_equal(ftruncate(fd, 0), 0);
        } else {
            assert_int_equal(pread(fd, &byte, 1, at), 1);
            byte = (unsigned char)(byte ^ 1u << (i % 8));
            assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        }
        assert_int_equal(open_blob(l0, &digest), KILN_E_CORRUPT);
        assert_int_equal(stats_of(l0).corrupt, i + 1);
        assert_int_equal(open_blob(l0, &digest), KILN_E_NOTFOUND); // dropped: from now on a plain miss
        assert_int_equal(stats_of(l0).objects, i);
        add_blob(scratch, l0, i);
        assert_int_equal(open_blob(l0, &digest), 0);
    }
    assert_int_equal(stats_of(l0).corrupt, 16);
    kiln_l0_close(l0);
}

static void eviction_keeps_the_bound_and_the_order(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct kiln_l0 *l0 = open_l0(scratch, MEBIBYTE); // 16 blobs
    struct kiln_digest digests[40];
    for (unsigned i = 0; i < 16; i++) {
        digests[i] = add_blob(scratch, l0, i);
        set_age(scratch, &digests[i], 1000 - (int)i);
    }
    assert_ok(kiln_l0_evict(l0, &err));
    assert_int_equal(stats_of(l0).objects, 16); // just full
    int held = -1;
    assert_ok(kiln_l0_open_blob(l0, &digests[0], BLOB_BYTES, &held, &err)); // the oldest is used now
    assert_int_equal(open_blob(l0, &digests[3]), 0);
    int late = -1;
    assert_ok(kiln_l0_open_blob(l0, &digests[1], BLOB_BYTES, &late, &err));
    set_age(scratch, &digests[1], 5000); // used longest ago, and still open
    digests[16] = add_blob(scratch, l0, 16);
    assert_ok(kiln_l0_evict(l0, &err));
    struct kiln_l0_stats stats = stats_of(l0);
    assert_true(stats.bytes <= MEBIBYTE);
    assert_true(stats.objects >= 14); // no more than it takes, and a sixteenth
    assert_int_equal(stats.evicted_bytes, (17 - stats.objects) * BLOB_BYTES);
    for (unsigned i = 0; i < 17; i++) {
        bool gone = i == 1 || i == 2 || (i == 4 && stats.objects == 14);
        assert_int_equal(kiln_l0_has_blob(l0, &digests[i]), !gone);
    }
    struct kiln_digest found;
    assert_int_equal(kiln_digest_of_fd(late, UINT64_MAX, &found, NULL, NULL), 0); // evicted, and whole for its reader
    assert_true(kiln_digest_equal(&found, &digests[1]));
    close(late);
    close(held);
    for (unsigned i = 17; i < 40; i++)
        digests[i] = add_blob(scratch, l0, i);
    uint64_t deadline = kiln_clock_ms() + PATIENCE_MS;
    while (stats_of(l0).bytes > MEBIBYTE) // by its own thread
        assert_true(kiln_clock_ms() < deadline);
    assert_true(kiln_l0_has_blob(l0, &digests[39]));
    assert_int_equal(stats_of(l0).corrupt, 0);
    kiln_l0_close(l0);
    l0 = open_l0(scratch, MEBIBYTE / 2); // a smaller bound holds from the start
    assert_true(stats_of(l0).bytes <= MEBIBYTE / 2);
    assert_true(stats_of(l0).objects >= 7);
    kiln_l0_close(l0);
}

static void a_file_nobody_may_write_is_linked(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct kiln_l0 *l0 = open_l0(scratch, 100 * MEBIBYTE);
    static const mode_t modes[] = {0444, 0400, 0644, 0464, 0446};
    for (unsigned i = 0; i < sizeof modes / sizeof *modes; i++) {
        struct stat source, stored;
        struct kiln_digest digest = make_blob(scratch, 100 + i, modes[i]), wrong = digest_of_number(i);
        kiln_autofd int fd = openat(scratch->fd, "blob", O_RDONLY);
        assert_int_equal(kiln_l0_add_blob(l0, fd, &wrong, BLOB_BYTES, &err), KILN_E_CORRUPT);
        assert_false(kiln_l0_has_blob(l0, &wrong));
        assert_ok(kiln_l0_add_blob(l0, fd, &digest, BLOB_BYTES, &err));
        assert_int_equal(fstat(fd, &source), 0);
        assert_int_equal(stat(blob_path(scratch, &digest), &stored), 0);
        assert_int_equal(source.st_ino == stored.st_ino, i < 2);
        assert_int_equal(open_blob(l0, &digest), 0);
    }
    assert_int_equal(stats_of(l0).objects, 5);
    assert_int_equal(stats_of(l0).bytes, 5 * BLOB_BYTES);
    kiln_l0_close(l0);
}

// Entries of all shapes, written in rounds so that the file has free pages.
#define ENTRIES 1500u
#define ENTRY_MAX ((size_t)9000)

static void fill_index(const struct scratch *scratch) {
    struct kiln_l0 *l0 = open_l0(scratch, 1000 * MEBIBYTE);
    for (unsigned i = 0; i < ENTRIES; i++)
        put_result(l0, i, i % 8 ? 300 : ENTRY_MAX);
    kiln_l0_close(l0);
    l0 = open_l0(scratch, 1000 * MEBIBYTE);
    for (unsigned i = 0; i < ENTRIES; i += 3) {
        struct kiln_digest action = digest_of_number(i);
        kiln_l0_drop_result(l0, &action);
    }
    kiln_l0_close(l0);
}

static unsigned next_chance(unsigned *chance) {
    *chance = *chance * 1664525u + 1013904223u;
    return *chance >> 8;
}

// One kind of damage to the file's bytes.
static void damage(unsigned char *bytes, size_t len, unsigned round, unsigned *chance) {
    size_t pages = len / 4096;
    // Half of the time where the structure is: the meta pages and the heads of pages.
    size_t page = next_chance(chance) % (round % 2 ? pages : pages < 8 ? pages : 8);
    unsigned char *at = bytes + page * 4096;
    switch (round % 7) {
    case 0:
        memset(at, 0, 4096);
        break;
    case 1:
        memset(at, 0xff, 4096);
        break;
    case 2:
        for (size_t i = 0; i < 4096; i++)
            at[i] = (unsigned char)next_chance(chance);
        break;
    case 3: // another page in its place, as a lost write leaves it
        memcpy(at, bytes + next_chance(chance) % pages * 4096, 4096);
        break;
    case 4:
        for (int i = 0; i < 40; i++)
            at[next_chance(chance) % 64] ^= (unsigned char)(1u << next_chance(chance) % 8);
        break;
    default:
        for (int i = 0; i < 1 + (int)(round % 5) * 10; i++)
            at[next_chance(chance) % 4096] ^= (unsigned char)(1u << next_chance(chance) % 8);
    }
}

static void replace_index(const struct scratch *scratch, const unsigned char *bytes, size_t len) {
    unlinkat(scratch->fd, "l0/index-lock", 0);
    unlinkat(scratch->fd, "l0/index.bad", 0);
    scratch_write(scratch, "l0/index", bytes, len);
}

static void a_flipped_value_is_counted_once(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    static const char marked[] = "a value that can be found in the file";
    kiln_autobuf struct kiln_buf file = KILN_BUF_INIT(64 * MEBIBYTE), value = KILN_BUF_INIT(1000);
    struct kiln_l0 *l0 = open_l0(scratch, MEBIBYTE);
    assert_ok(kiln_l0_memo_put(l0, KILN_MEMO_LOCAL, "key", 3, marked, sizeof marked, &err));
    put_result(l0, 1, 300);
    kiln_l0_close(l0);
    assert_ok(kiln_fs_read_file(scratch->fd, "l0/index", &file, &err));
    unsigned char *at = memmem(file.data, file.len, marked, sizeof marked);
    assert_non_null(at);
    at[10] ^= 1;
    replace_index(scratch, file.data, file.len);
    l0 = open_l0(scratch, MEBIBYTE);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(kiln_l0_memo_get(l0, KILN_MEMO_LOCAL, "key", 3, &value, NULL), KILN_E_NOTFOUND);
        assert_int_equal(value.len, 0);
        assert_int_equal(stats_of(l0).corrupt, 1);
    }
    assert_true(check_result(l0, 1, 300)); // the others stand
    kiln_l0_close(l0);
    l0 = open_l0(scratch, MEBIBYTE);
    assert_int_equal(kiln_l0_memo_get(l0, KILN_MEMO_LOCAL, "key", 3, &value, NULL), KILN_E_NOTFOUND);
    assert_int_equal(stats_of(l0).corrupt, 0); // it was removed
    kiln_l0_close(l0);
}

static void a_damaged_index_never_lies_or_crashes(void **state) {
    struct scratch *scratch = *state;
    unsigned chance = 42, set_aside = 0, lost = 0, counted = 0, hidden = 0;
    fill_index(scratch);
    kiln_autobuf struct kiln_buf good = KILN_BUF_INIT(64 * MEBIBYTE);
    assert_int_equal(kiln_fs_read_file(scratch->fd, "l0/index", &good, NULL), 0);
    kiln_autofree unsigned char *bytes = malloc(good.len);
    for (unsigned round = 0; round < 140; round++) {
        memcpy(bytes, good.data, good.len);
        damage(bytes, good.len, round, &chance);
        replace_index(scratch, bytes, good.len);
        struct kiln_l0 *l0 = open_l0(scratch, 1000 * MEBIBYTE);
        unsigned found = 0;
        for (unsigned i = 0; i < ENTRIES; i++) {
            // One that was dropped may be back: damage to the newer meta page brings the last commit but one.
            found += check_result(l0, i, i % 8 ? 300 : ENTRY_MAX) && i % 3;
        }
        for (unsigned i = 0; i < 300; i++) // and it can be written
            put_result(l0, ENTRIES + i, 2000);
        struct kiln_l0_stats stats = stats_of(l0);
        bool complete = found == ENTRIES - ENTRIES / 3;
        // What is lost was counted, unless the damage was a whole older page: that is a plain miss.
        assert_true(complete || stats.corrupt > 0 || round % 7 == 3 || round % 7 >= 4);
        kiln_l0_close(l0);
        lost += !complete;
        counted += stats.corrupt > 0;
        set_aside += faccessat(scratch->fd, "l0/index.bad", F_OK, 0) == 0;
        l0 = open_l0(scratch, 1000 * MEBIBYTE);
        bool renewed = stats_of(l0).corrupt > 0; // damage that only showed when it was written over
        for (unsigned i = 0; i < 300; i++)
            assert_true(check_result(l0, ENTRIES + i, 2000) || renewed);
        hidden += renewed;
        kiln_l0_close(l0);
    }
    assert_true(hidden <= 2);
    // The damage must have been felt in both ways, else this test proves nothing.
    assert_in_range(set_aside, 40, 135);
    assert_true(lost > 50);
    assert_true(counted > set_aside);
}

// Exact damage to the file's structure: each is what one rule of the check is for. Offsets of LMDB 0.9's format.
struct image {
    unsigned char *bytes;
    size_t len;
};

static uint64_t get_number(const unsigned char *at, size_t len) {
    uint64_t number = 0;
    memcpy(&number, at, len);
    return number;
}

static void set_number(unsigned char *at, size_t len, uint64_t number) { memcpy(at, &number, len); }

static unsigned char *page_of(struct image image, uint64_t number) { return image.bytes + number * 4096; }

// The meta page in use, behind its page header.
static unsigned char *meta_of(struct image image) {
    unsigned char *first = page_of(image, 0) + 16, *second = page_of(image, 1) + 16;
    return get_number(second + 128, 8) > get_number(first + 128, 8) ? second : first;
}

static uint64_t root_of(struct image image, int tree) { return get_number(meta_of(image) + 24 + tree * 48 + 40, 8); }

static unsigned char *node_of(unsigned char *page, int index) { return page + get_number(page + 16 + 2 * index, 2); }

static uint64_t child_of(unsigned char *branch, int index) {
    unsigned char *node = node_of(branch, index);
    return get_number(node, 2) | get_number(node + 2, 2) << 16 | get_number(node + 4, 2) << 32;
}

static unsigned char *root_page(struct image image) { return page_of(image, root_of(image, 1)); }
static unsigned char *leaf_page(struct image image) { return page_of(image, child_of(root_page(image), 1)); }
// The free tree is one leaf here; its first value: a count, then page numbers.
static unsigned char *free_list(struct image image) { return node_of(page_of(image, root_of(image, 0)), 0) + 8 + 8; }

static unsigned char *long_value_node(struct image image) {
    int children = (int)(get_number(root_page(image) + 12, 2) - 16) / 2;
    for (int child = 0; child < children; child++) {
        unsigned char *leaf = page_of(image, child_of(root_page(image), child));
        size_t count = (get_number(leaf + 12, 2) - 16) / 2;
        for (size_t i = 0; i < count; i++)
            if (get_number(node_of(leaf, (int)i) + 4, 2) == 1)
                return node_of(leaf, (int)i);
    }
    fail_msg("no long value");
    return NULL;
}

static unsigned char *long_value_page_number(struct image image) {
    unsigned char *node = long_value_node(image);
    return node + 8 + get_number(node + 6, 2);
}

static void no_magic(struct image image) { set_number(page_of(image, 0) + 16, 4, 0); }
static void no_second_meta(struct image image) { set_number(page_of(image, 1) + 10, 2, 0); }
static void other_page_size(struct image image) { set_number(meta_of(image) + 24, 4, 8192); }
static void huge_map(struct image image) { set_number(meta_of(image) + 16, 8, 1ull << 50); }
static void huge_last_page(struct image image) { set_number(meta_of(image) + 120, 8, 1ull << 20); }
static void absurd_last_page(struct image image) { set_number(meta_of(image) + 120, 8, UINT64_MAX - 1); }
static void sorted_duplicates(struct image image) { set_number(meta_of(image) + 24 + 48 + 4, 2, 4); }
static void too_deep(struct image image) { set_number(meta_of(image) + 24 + 48 + 6, 2, 3); }
static void too_flat(struct image image) { set_number(meta_of(image) + 24 + 48 + 6, 2, 1); }
static void other_count(struct image image) { set_number(meta_of(image) + 24 + 48 + 32, 8, 1); }
static void other_branch_pages(struct image image) { meta_of(image)[24 + 48 + 8 + 4] ^= 32; }
static void other_leaf_pages(struct image image) { meta_of(image)[24 + 48 + 16] ^= 1; }
static void other_overflow_pages(struct image image) { meta_of(image)[24 + 48 + 24] ^= 1; }
static void root_is_meta(struct image image) { set_number(meta_of(image) + 24 + 48 + 40, 8, 1); }
static void root_is_outside(struct image image) { set_number(meta_of(image) + 24 + 48 + 40, 8, 1ull << 40); }
static void root_is_lost(struct image image) { set_number(meta_of(image) + 24 + 48 + 40, 8, UINT64_MAX); }
static void page_number(struct image image) { set_number(leaf_page(image), 8, 3); }
static void page_kind(struct image image) { set_number(leaf_page(image) + 10, 2, 0x22); }
static void lower_is_odd(struct image image) { leaf_page(image)[12] ^= 1; }
static void lower_is_small(struct image image) { set_number(leaf_page(image) + 12, 2, 14); }
static void lower_is_none(struct image image) { set_number(leaf_page(image) + 12, 2, 16); }
static void branch_of_one(struct image image) { // with the other children's entries counted off
    unsigned char *leaf = page_of(image, child_of(root_page(image), 0));
    set_number(root_page(image) + 12, 2, 18);
    set_number(meta_of(image) + 24 + 48 + 32, 8, (get_number(leaf + 12, 2) - 16) / 2);
}
static void upper_is_large(struct image image) { set_number(leaf_page(image) + 14, 2, 4098); }
static void upper_above_entries(struct image image) {
    unsigned char *leaf = leaf_page(image);
    set_number(leaf + 14, 2, get_number(leaf + 14, 2) + 2);
}
static void upper_below_lower(struct image image) { set_number(leaf_page(image) + 14, 2, 16); }
static void entry_outside(struct image image) { set_number(leaf_page(image) + 16, 2, 60000); }
static void entry_at_the_edge(struct image image) { set_number(leaf_page(image) + 16, 2, 4092); }
static void entry_has_duplicates(struct image image) { node_of(leaf_page(image), 1)[4] |= 4; }
static void entry_is_long(struct image image) { set_number(node_of(leaf_page(image), 1), 2, 4000); }
static void entries_overlap(struct image image) { // each is in its page, and the second reaches into another
    unsigned char *leaf = leaf_page(image), *first = node_of(leaf, 0), *second = node_of(leaf, 1);
    unsigned char *node = first < second ? first : second;
    set_number(node, 2, get_number(node, 2) + 2);
}
static void entry_is_very_long(struct image image) { set_number(node_of(leaf_page(image), 1) + 2, 2, 1); }
static void key_is_long(struct image image) { set_number(node_of(leaf_page(image), 1) + 6, 2, 4000); }
static void key_is_none(struct image image) { set_number(node_of(leaf_page(image), 1) + 6, 2, 0); }
static void keys_change_places(struct image image) {
    unsigned char *leaf = leaf_page(image);
    uint64_t first = get_number(leaf + 16, 2);
    set_number(leaf + 16, 2, get_number(leaf + 18, 2));
    set_number(leaf + 18, 2, first);
}
static void branch_key_is_long(struct image image) { set_number(node_of(root_page(image), 1) + 6, 2, 5000); }
static void branch_key_is_low(struct image image) { memset(node_of(root_page(image), 1) + 8, 0, 2); }
static void branch_key_is_high(struct image image) { memset(node_of(root_page(image), 1) + 8, 0xff, 2); }
static void child_is_outside(struct image image) { set_number(node_of(root_page(image), 1) + 4, 2, 1); }
static void child_is_the_root(struct image image) {
    set_number(node_of(root_page(image), 1), 2, root_of(image, 1));
}
static void child_is_shared(struct image image) {
    set_number(node_of(root_page(image), 1), 2, child_of(root_page(image), 0));
}
static void run_is_short(struct image image) {
    set_number(page_of(image, get_number(long_value_page_number(image), 8)) + 12, 4, 1);
}
static void run_is_a_leaf(struct image image) {
    set_number(page_of(image, get_number(long_value_page_number(image), 8)) + 10, 2, 2);
}
static void run_is_outside(struct image image) { set_number(long_value_page_number(image), 8, 1ull << 33); }
static void run_is_in_use(struct image image) { set_number(long_value_page_number(image), 8, root_of(image, 1)); }
static void free_count_is_large(struct image image) { set_number(free_list(image), 8, 100000); }
static void one_free_page(struct image image, uint64_t page) {
    set_number(free_list(image), 8, 1);
    set_number(free_list(image) + 8, 8, page);
}
static void free_page_is_in_use(struct image image) { one_free_page(image, root_of(image, 1)); }
static void free_page_is_meta(struct image image) { one_free_page(image, 1); }
static void free_page_is_outside(struct image image) { one_free_page(image, get_number(meta_of(image) + 120, 8) + 1); }
static void free_pages_change_places(struct image image) {
    unsigned char *list = free_list(image);
    uint64_t first = get_number(list + 8, 8);
    memcpy(list + 8, list + 16, 8);
    set_number(list + 16, 8, first);
}
static void free_pages_repeat(struct image image) {
    unsigned char *list = free_list(image);
    memcpy(list + 16, list + 8, 8);
}
static void nothing(struct image image) { (void)image; }

#define EDIT(function) {#function, function}

static void each_rule_of_the_check_holds(void **state) {
    struct scratch *scratch = *state;
    static const struct {
        const char *name;
        void (*edit)(struct image image);
    } cases[] = {
        EDIT(nothing), EDIT(no_magic), EDIT(no_second_meta), EDIT(other_page_size), EDIT(huge_map),
        EDIT(huge_last_page), EDIT(absurd_last_page), EDIT(sorted_duplicates), EDIT(too_deep), EDIT(too_flat),
        EDIT(other_count), EDIT(other_branch_pages), EDIT(other_leaf_pages), EDIT(other_overflow_pages),
        EDIT(root_is_meta), EDIT(root_is_outside), EDIT(root_is_lost), EDIT(page_number), EDIT(page_kind),
        EDIT(lower_is_odd), EDIT(lower_is_small), EDIT(lower_is_none), EDIT(branch_of_one), EDIT(upper_is_large),
        EDIT(upper_above_entries), EDIT(upper_below_lower), EDIT(entry_outside), EDIT(entry_at_the_edge),
        EDIT(entry_has_duplicates), EDIT(entry_is_long), EDIT(entries_overlap), EDIT(entry_is_very_long),
        EDIT(key_is_long), EDIT(key_is_none), EDIT(keys_change_places), EDIT(branch_key_is_long),
        EDIT(branch_key_is_low), EDIT(branch_key_is_high), EDIT(child_is_outside), EDIT(child_is_the_root),
        EDIT(child_is_shared), EDIT(run_is_short), EDIT(run_is_a_leaf), EDIT(run_is_outside), EDIT(run_is_in_use),
        EDIT(free_count_is_large), EDIT(free_page_is_in_use), EDIT(free_page_is_meta), EDIT(free_page_is_outside),
        EDIT(free_pages_repeat), EDIT(free_pages_change_places),
    };
    struct kiln_l0 *l0 = open_l0(scratch, MEBIBYTE);
    for (unsigned i = 0; i < 20; i++)
        put_result(l0, i, i == 7 ? 12000 : 400);
    kiln_l0_close(l0);
    for (unsigned i = 20; i < 23; i++) { // each commit frees the pages of the last
        l0 = open_l0(scratch, MEBIBYTE);
        put_result(l0, i, 400);
        kiln_l0_close(l0);
    }
    kiln_autobuf struct kiln_buf good = KILN_BUF_INIT(64 * MEBIBYTE);
    assert_int_equal(kiln_fs_read_file(scratch->fd, "l0/index", &good, NULL), 0);
    struct image image = {malloc(good.len), good.len};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(image.bytes, good.data, good.len);
        assert_true(get_number(free_list(image), 8) >= 2);
        cases[i].edit(image);
        scratch_write(scratch, "edited", image.bytes, image.len);
        kiln_autofd int fd = openat(scratch->fd, "edited", O_RDONLY);
        struct kiln_err err = {0};
        int rc = kiln_l0_index_check(fd, &err);
        if (rc != (i == 0 ? 0 : KILN_E_CORRUPT))
            fail_msg("%s: %d %s", cases[i].name, rc, err.text);
    }
    free(image.bytes);
}

static void an_index_of_another_kind_is_set_aside(void **state) {
    struct scratch *scratch = *state;
    static const char text[] = "this is no index, and it is longer than nothing";
    for (size_t len = 0; len <= sizeof text; len += sizeof text) {
        kiln_l0_close(open_l0(scratch, MEBIBYTE));
        replace_index(scratch, (const unsigned char *)text, len);
        struct kiln_l0 *l0 = open_l0(scratch, MEBIBYTE);
        assert_int_equal(stats_of(l0).corrupt, len ? 1 : 0);
        put_result(l0, 1, 100);
        assert_true(check_result(l0, 1, 100));
        kiln_l0_close(l0);
    }
    kiln_autobuf struct kiln_buf good = KILN_BUF_INIT(64 * MEBIBYTE);
    fill_index(scratch);
    assert_int_equal(kiln_fs_read_file(scratch->fd, "l0/index", &good, NULL), 0);
    for (size_t len = 4096; len < good.len; len += good.len / 9) { // cut short
        replace_index(scratch, good.data, len);
        struct kiln_l0 *l0 = open_l0(scratch, MEBIBYTE);
        for (unsigned i = 0; i < ENTRIES; i++)
            check_result(l0, i, i % 8 ? 300 : ENTRY_MAX);
        assert_int_equal(stats_of(l0).corrupt, 1);
        kiln_l0_close(l0);
    }
}

// What a healthy index goes through must never look unsound.
static void a_sound_index_passes_the_check(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    unsigned chance = 7;
    for (unsigned round = 0; round < 12; round++) {
        struct kiln_l0 *l0 = open_l0(scratch, 1000 * MEBIBYTE);
        for (unsigned i = 0; i < 400; i++) {
            unsigned number = next_chance(&chance) % 3000;
            struct kiln_digest action = digest_of_number(number);
            if (round % 3 == 2 || i % 5 == 4)
                kiln_l0_drop_result(l0, &action);
            else
                put_result(l0, number, number % 16 ? 500 : 20000);
        }
        kiln_l0_close(l0);
        kiln_autofd int fd = openat(scratch->fd, "l0/index", O_RDONLY);
        assert_ok(kiln_l0_index_check(fd, &err));
    }
    struct kiln_l0 *l0 = open_l0(scratch, 1000 * MEBIBYTE);
    for (unsigned i = 0; i < 3000; i++) { // and down to nothing
        struct kiln_digest action = digest_of_number(i);
        kiln_l0_drop_result(l0, &action);
    }
    kiln_l0_close(l0);
    kiln_autofd int fd = openat(scratch->fd, "l0/index", O_RDONLY);
    assert_ok(kiln_l0_index_check(fd, &err));
    assert_int_equal(faccessat(scratch->fd, "l0/index.bad", F_OK, 0), -1);
}

// Writes results and blobs for ever. A byte on `ready` says that it started, or that the first results are on the way to
// the disk.
static void write_for_ever(const struct scratch *scratch, unsigned round, int ready) {
    struct kiln_l0 *l0 = open_l0(scratch, 2 * MEBIBYTE);
    for (unsigned i = 0; i < 50; i++)
        put_result(l0, round * 1000 + i, 2000);
    if (round % 2) {
        uint64_t before = stats_of(l0).actions;
        wait_until_written(l0, before + 50);
    }
    if (write(ready, "r", 1) != 1)
        _exit(1);
    for (unsigned i = 50;; i++) {
        put_result(l0, round * 1000 + i % 1000, 2000);
        if (i % 10 == 0)
            add_blob(scratch, l0, i % 300);
        if (i % 50 == 0)
            kiln_l0_evict(l0, NULL);
    }
}

static void a_killed_agent_leaves_a_sound_cache(void **state) {
    struct scratch *scratch = *state;
    unsigned chance = 99;
    for (unsigned round = 0; round < 16; round++) {
        int ready[2];
        char byte;
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        pid_t pid = fork();
        if (pid == 0)
            write_for_ever(scratch, round, ready[1]);
        assert_int_equal(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        close(ready[1]);
        // Some are killed before their first batch is written, some within one.
        for (uint64_t until = kiln_clock_us() + next_chance(&chance) % 330000; kiln_clock_us() < until;)
            sched_yield();
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        struct kiln_l0 *l0 = open_l0(scratch, 2 * MEBIBYTE);
        for (unsigned i = 0; i < (round + 1) * 1000; i++) {
            bool there = check_result(l0, i, 2000);
            // What was written before the death is there.
            if (i >= round * 1000 && i < round * 1000 + 50 && round % 2)
                assert_true(there);
        }
        for (unsigned i = 0; i < 300; i++) {
            struct kiln_digest digest = make_blob(scratch, i, 0644);
            int rc = open_blob(l0, &digest);
            assert_true(rc == 0 || rc == KILN_E_NOTFOUND);
        }
        assert_int_equal(stats_of(l0).corrupt, 0);
        kiln_l0_close(l0);
    }
    assert_int_equal(faccessat(scratch->fd, "l0/index.bad", F_OK, 0), -1);
}

// The index alone, below the batching.

static struct kiln_l0_change *new_change(enum kiln_l0_change_op op, unsigned number, size_t value_len) {
    struct kiln_l0_change *change = calloc(1, sizeof *change + 5 + value_len);
    assert_non_null(change);
    change->op = op;
    change->key_len = 5;
    change->value_len = value_len;
    change->bytes[0] = 'x';
    memcpy(change->bytes + 1, &number, sizeof number);
    memset(change->bytes + 5, (int)number, value_len);
    return change;
}

static void apply_one(struct kiln_l0_index *index, enum kiln_l0_change_op op, unsigned number, size_t value_len,
                      uint32_t now_s) {
    struct kiln_err err = {0};
    struct kiln_l0_change *change = new_change(op, number, value_len);
    assert_ok(kiln_l0_index_apply(index, &change, 1, now_s, &err));
    free(change);
}

static bool index_has(struct kiln_l0_index *index, unsigned number, size_t value_len, uint32_t *used_s) {
    struct kiln_l0_change *change = new_change(KILN_L0_PUT, number, value_len);
    kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(2 * MEBIBYTE);
    int rc = kiln_l0_index_get(index, change->bytes, change->key_len, &value, used_s, NULL);
    if (rc == 0) {
        assert_int_equal(value.len, value_len);
        assert_memory_equal(value.data, change->bytes + change->key_len, value_len);
    }
    free(change);
    return rc == 0;
}

static struct kiln_l0_index *open_index(const struct scratch *scratch) {
    struct kiln_l0_index *index = NULL;
    struct kiln_err err = {0};
    assert_ok(kiln_l0_index_open(scratch_path(scratch, "index"), &index, &err));
    return index;
}

static void the_index_grows_with_its_contents(void **state) {
    struct scratch *scratch = *state;
    struct kiln_l0_index *index = open_index(scratch);
    uint32_t used_s;
    for (unsigned i = 0; i < 150; i++) // over two sizes of the map
        apply_one(index, KILN_L0_PUT, i, 1000000, 1);
    for (unsigned i = 0; i < 150; i++)
        assert_true(index_has(index, i, 1000000, &used_s));
    kiln_l0_index_close(index);
    index = open_index(scratch);
    for (unsigned i = 0; i < 150; i++)
        assert_true(index_has(index, i, 1000000, &used_s));
    assert_int_equal(kiln_l0_index_count(index, 'x'), 150);
    assert_int_equal(kiln_l0_index_count(index, 'y'), 0);
    assert_true(kiln_l0_index_bytes(index) > 150 * 1000000);
    assert_int_equal(kiln_l0_index_losses(index), 0);
    kiln_l0_index_close(index);
}

static void trim_takes_what_was_not_used_for_longest(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct kiln_l0_index *index = open_index(scratch);
    uint32_t used_s = 0;
    for (unsigned i = 0; i < 1000; i++)
        apply_one(index, KILN_L0_PUT, i, 3000, 1000 + i);
    apply_one(index, KILN_L0_TOUCH, 3, 0, 9000);
    apply_one(index, KILN_L0_TOUCH, 5000, 0, 9000); // of what is not there
    assert_true(index_has(index, 3, 3000, &used_s));
    assert_int_equal(used_s, 9000);
    assert_true(index_has(index, 4, 3000, &used_s));
    assert_int_equal(used_s, 1004);
    uint64_t before = kiln_l0_index_bytes(index);
    assert_ok(kiln_l0_index_trim(index, before, &err));
    assert_int_equal(kiln_l0_index_count(index, 'x'), 1000);
    assert_ok(kiln_l0_index_trim(index, before / 2, &err));
    assert_true(kiln_l0_index_bytes(index) <= before / 2);
    assert_true(kiln_l0_index_count(index, 'x') > 350);
    assert_true(index_has(index, 3, 3000, &used_s)); // the touched one
    unsigned first = 4;
    while (!index_has(index, first, 3000, &used_s))
        first++;
    assert_in_range(first, 5, 700);
    for (unsigned i = 0; i < 1000; i++) // else the last ones
        assert_int_equal(index_has(index, i, 3000, &used_s), i == 3 || i >= first);
    assert_false(index_has(index, 5000, 0, &used_s));
    kiln_l0_index_close(index);
}

static void expect_pending(const struct kiln_l0_pending *pending, const char *key, const char *expected) {
    const struct kiln_l0_change *found = kiln_l0_pending_find(pending, key, strlen(key));
    if (!expected) {
        assert_null(found);
        return;
    }
    assert_non_null(found);
    assert_int_equal(found->op, *expected ? KILN_L0_PUT : KILN_L0_DELETE);
    assert_int_equal(found->value_len, strlen(expected));
    assert_memory_equal(found->bytes + found->key_len, expected, strlen(expected));
}

static void pending_changes_decide_by_key(void **state) {
    (void)state;
    struct kiln_l0_pending pending;
    struct kiln_err err = {0};
    assert_ok(kiln_l0_pending_init(&pending, &err));
    assert_ok(kiln_l0_pending_add(&pending, KILN_L0_PUT, "a", 1, "one", 3, &err));
    assert_ok(kiln_l0_pending_add(&pending, KILN_L0_TOUCH, "a", 1, NULL, 0, &err));
    assert_ok(kiln_l0_pending_add(&pending, KILN_L0_TOUCH, "b", 1, NULL, 0, &err));
    assert_ok(kiln_l0_pending_add(&pending, KILN_L0_PUT, "c", 1, "old", 3, &err));
    assert_ok(kiln_l0_pending_add(&pending, KILN_L0_PUT, "c", 1, "newer", 5, &err));
    expect_pending(&pending, "a", "one");
    expect_pending(&pending, "b", NULL); // a touch decides no value
    expect_pending(&pending, "c", "newer");
    expect_pending(&pending, "aa", NULL);
    assert_int_equal(pending.young->count, 3);
    kiln_l0_pending_turn(&pending);
    assert_int_equal(pending.old->count, 3);
    assert_int_equal(pending.old->bytes, 3 + 3 + 5);
    expect_pending(&pending, "a", "one"); // while it is written
    assert_ok(kiln_l0_pending_add(&pending, KILN_L0_TOUCH, "a", 1, NULL, 0, &err));
    expect_pending(&pending, "a", "one"); // a young touch hides no older value
    assert_ok(kiln_l0_pending_add(&pending, KILN_L0_DELETE, "a", 1, NULL, 0, &err));
    expect_pending(&pending, "a", "");
    expect_pending(&pending, "c", "newer");
    kiln_l0_pending_done(&pending);
    expect_pending(&pending, "a", "");
    expect_pending(&pending, "c", NULL);
    kiln_autofree char *large = calloc(1, KILN_L0_PENDING_BYTES_MAX);
    assert_int_equal(kiln_l0_pending_add(&pending, KILN_L0_PUT, "d", 1, large, KILN_L0_PENDING_BYTES_MAX, &err),
                     KILN_E_LIMIT);
    expect_pending(&pending, "d", NULL);
    kiln_l0_pending_release(&pending);
}

struct shared {
    struct kiln_l0_index *index;
    atomic_bool stop;
};

static void *read_all_the_time(void *argument) {
    struct shared *shared = argument;
    uint32_t used_s;
    while (!shared->stop)
        for (unsigned i = 0; i < 64; i++)
            index_has(shared->index, i, 700000, &used_s);
    return NULL;
}

static void readers_stand_while_the_map_moves(void **state) {
    struct scratch *scratch = *state;
    struct shared shared = {.index = open_index(scratch)};
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_all_the_time, &shared), 0);
    for (unsigned i = 0; i < 250; i++)
        apply_one(shared.index, KILN_L0_PUT, i, 700000, 1);
    shared.stop = true;
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(kiln_l0_index_count(shared.index, 'x'), 250);
    kiln_l0_index_close(shared.index);
}

static void *use_all(void *argument) {
    struct kiln_l0 *l0 = argument;
    for (unsigned i = 0; i < 2000; i++) {
        put_result(l0, i % 500, 2000);
        check_result(l0, (i * 7) % 500, 2000);
        kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(100);
        if (kiln_l0_memo_put(l0, KILN_MEMO_FILE, &i, sizeof i, &i, sizeof i, NULL) ||
            kiln_l0_memo_get(l0, KILN_MEMO_FILE, &i, sizeof i, &value, NULL) || memcmp(value.data, &i, sizeof i) != 0)
            return argument;
        if (i % 100 == 0)
            kiln_l0_evict(l0, NULL);
    }
    return NULL;
}

static void threads_share_a_cache(void **state) {
    struct scratch *scratch = *state;
    struct kiln_l0 *l0 = open_l0(scratch, 10 * MEBIBYTE);
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_all, l0), 0);
    for (size_t i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    wait_until_written(l0, 500);
    assert_int_equal(stats_of(l0).corrupt, 0);
    kiln_l0_close(l0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(results_are_visible_and_kept),
        scratch_test(memos_of_all_sizes_and_tables),
        scratch_test(blobs_come_back_checked),
        scratch_test(a_flipped_bit_is_a_counted_miss),
        scratch_test(eviction_keeps_the_bound_and_the_order),
        scratch_test(a_file_nobody_may_write_is_linked),
        scratch_test(a_damaged_index_never_lies_or_crashes),
        scratch_test(a_flipped_value_is_counted_once),
        scratch_test(each_rule_of_the_check_holds),
        scratch_test(an_index_of_another_kind_is_set_aside),
        scratch_test(a_sound_index_passes_the_check),
        scratch_test(a_killed_agent_leaves_a_sound_cache),
        scratch_test(the_index_grows_with_its_contents),
        scratch_test(trim_takes_what_was_not_used_for_longest),
        cmocka_unit_test(pending_changes_decide_by_key),
        scratch_test(readers_stand_while_the_map_moves),
        scratch_test(threads_share_a_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
