#include "tests/unit/scratch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "producer/agent/memo.h"

#define SECOND_NS 1000000000ll

struct rig {
    struct kiln_l0 *l0;
    struct kiln_memo *memo;
};

static struct rig rig_open(const struct scratch *scratch) {
    struct rig rig;
    struct kiln_err err = {0};
    assert_ok(kiln_l0_open(scratch_path(scratch, "l0"), 1 << 20, &rig.l0, &err));
    assert_ok(kiln_memo_new(rig.l0, &rig.memo, &err));
    return rig;
}

static void rig_close(struct rig *rig) {
    kiln_memo_free(rig->memo);
    kiln_l0_close(rig->l0);
}

static struct kiln_digest some_digest(unsigned char seed) {
    struct kiln_digest digest;
    memset(&digest, seed, sizeof digest);
    return digest;
}

static struct timespec ago(int64_t milliseconds) {
    int64_t ns = ((int64_t)kiln_clock_wall_ms() - milliseconds) * 1000000 + 12345;
    return (struct timespec){.tv_sec = ns / SECOND_NS, .tv_nsec = ns % SECOND_NS};
}

static struct stat file_of_age(int64_t mtime_ms, int64_t ctime_ms) {
    return (struct stat){.st_dev = 1, .st_ino = 77, .st_mode = S_IFREG | 0644, .st_size = 10,
                         .st_mtim = ago(mtime_ms), .st_ctim = ago(ctime_ms)};
}

static void the_two_second_rule(void **state) {
    struct scratch *scratch = *state;
    static const struct {
        int64_t mtime_ms, ctime_ms;
        bool remembered;
    } cases[] = {
        {10000, 10000, true}, {2500, 2500, true},   {1500, 1500, false}, {0, 0, false},      {10000, 1500, false},
        {1500, 10000, false}, {-5000, 10000, false}, {10000, -5000, false}, {100000, 2500, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rig rig = rig_open(scratch);
        struct kiln_digest digest = some_digest((unsigned char)i), untouched = some_digest(99), found = untouched;
        struct stat st = file_of_age(cases[i].mtime_ms, cases[i].ctime_ms);
        st.st_ino = 1000 + i;
        kiln_memo_record(rig.memo, &st, &digest);
        if (kiln_memo_known(rig.memo, &st, &found) != cases[i].remembered)
            fail_msg("case %zu", i);
        assert_memory_equal(&found, cases[i].remembered ? &digest : &untouched, sizeof found);
        rig_close(&rig);
    }
}

static void any_change_of_identity_is_another_file(void **state) {
    struct scratch *scratch = *state;
    struct rig rig = rig_open(scratch);
    struct kiln_digest digest = some_digest(1), found;
    struct stat st = file_of_age(10000, 10000);
    kiln_memo_record(rig.memo, &st, &digest);
    for (int field = 0; field < 7; field++) {
        struct stat other = st;
        other.st_dev += field == 0;
        other.st_ino += field == 1;
        other.st_size += field == 2;
        other.st_mtim.tv_nsec += field == 3;
        other.st_ctim.tv_nsec += field == 4;
        other.st_ctim.tv_sec += field == 5;
        if (field == 6)
            other.st_mode = S_IFDIR | 0755;
        assert_false(kiln_memo_known(rig.memo, &other, &found));
    }
    for (int reopened = 0; reopened < 2; reopened++) {
        assert_true(kiln_memo_known(rig.memo, &st, &found));
        assert_memory_equal(&found, &digest, sizeof digest);
        rig_close(&rig);
        rig = rig_open(scratch);
    }
    // One entry for each inode: the newer identity replaces the older.
    struct stat newer = st;
    newer.st_size++;
    struct kiln_digest second = some_digest(2);
    kiln_memo_record(rig.memo, &newer, &second);
    assert_false(kiln_memo_known(rig.memo, &st, &found));
    assert_true(kiln_memo_known(rig.memo, &newer, &found));
    rig_close(&rig);
}

static void a_known_file_is_not_read(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct rig rig = rig_open(scratch);
    struct stat st;
    struct kiln_digest digest, expected;
    uint64_t size = 0;
    kiln_autofd int fd = open("/bin/sh", O_RDONLY); // older than two seconds
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_false(kiln_memo_known(rig.memo, &st, &digest));
    assert_ok(kiln_memo_digest_fd(rig.memo, fd, &digest, &size, &err));
    assert_ok(kiln_digest_of_fd(fd, UINT64_MAX, &expected, NULL, &err));
    assert_memory_equal(&digest, &expected, sizeof digest);
    assert_int_equal(size, st.st_size);
    assert_true(kiln_memo_known(rig.memo, &st, &digest));
    assert_memory_equal(&digest, &expected, sizeof digest);
    // A false memory shows whether the file is read.
    struct kiln_digest planted = some_digest(5);
    kiln_memo_record(rig.memo, &st, &planted);
    assert_ok(kiln_memo_digest_fd(rig.memo, fd, &digest, &size, &err));
    assert_memory_equal(&digest, &planted, sizeof digest);
    rig_close(&rig);
}

static void a_young_file_is_read_each_time(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct rig rig = rig_open(scratch);
    for (int i = 0; i < 20; i++) {
        char text[16];
        struct stat st;
        struct kiln_digest digest, expected;
        uint64_t size = 0;
        int len = snprintf(text, sizeof text, "v%03d", i); // same size, rewritten in place
        scratch_write(scratch, "file", text, (size_t)len);
        kiln_autofd int fd = openat(scratch->fd, "file", O_RDONLY);
        lseek(fd, 2, SEEK_SET); // the offset says nothing
        assert_ok(kiln_memo_digest_fd(rig.memo, fd, &digest, &size, &err));
        kiln_digest_of(text, (size_t)len, &expected);
        assert_memory_equal(&digest, &expected, sizeof digest);
        assert_int_equal(fstat(fd, &st), 0);
        assert_false(kiln_memo_known(rig.memo, &st, &digest));
    }
    kiln_autofd int dir = open(scratch->path, O_RDONLY | O_DIRECTORY);
    struct kiln_digest digest;
    uint64_t size;
    assert_int_equal(kiln_memo_digest_fd(rig.memo, dir, &digest, &size, &err), KILN_E_INVAL);
    rig_close(&rig);
}

static int64_t ns_of(struct timespec time) { return time.tv_sec * SECOND_NS + time.tv_nsec; }

static void record_placed(struct kiln_memo *memo, const struct stat *st, const struct kiln_digest *digest) {
    kiln_memo_record_placed(memo, st->st_dev, st->st_ino, (uint64_t)st->st_size, ns_of(st->st_mtim), ns_of(st->st_ctim),
                            digest);
}

// Whether two changes right after each other, each looked at, can be told apart in this directory.
static bool changes_differ(const char *dir) {
    kiln_autofd int fd = open(dir, O_TMPFILE | O_RDWR, 0600);
    int64_t last = 0;
    for (int i = 0; i < 100; i++) {
        struct stat st;
        if (fd < 0 || pwrite(fd, "x", 1, 0) != 1 || fstat(fd, &st) || ns_of(st.st_ctim) == last)
            return false;
        last = ns_of(st.st_ctim);
    }
    return true;
}

static void check_placed(struct kiln_memo *memo, const char *dir) {
    bool fine = changes_differ(dir);
    char path[512];
    snprintf(path, sizeof path, "%s/kiln-test-placed-%d", dir, (int)getpid());
    for (int i = 0; i < 50; i++) {
        struct stat st, changed;
        struct kiln_digest digest = some_digest((unsigned char)i), found;
        kiln_autofd int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
        assert_true(fd >= 0);
        unlink(path);
        assert_int_equal(write(fd, "placed", 6), 6);
        assert_int_equal(fstat(fd, &st), 0);
        record_placed(memo, &st, &digest);
        assert_int_equal(kiln_memo_known(memo, &st, &found), fine);
        if (fine)
            assert_memory_equal(&found, &digest, sizeof digest);
        // Changed at once, same size, and with its old mtime: no longer known.
        assert_int_equal(pwrite(fd, "PLACED", 6, 0), 6);
        struct timespec times[2] = {st.st_atim, st.st_mtim};
        assert_int_equal(futimens(fd, times), 0);
        assert_int_equal(fstat(fd, &changed), 0);
        assert_false(kiln_memo_known(memo, &changed, &found));
    }
}

static void placed_files_are_remembered_where_time_is_fine(void **state) {
    struct scratch *scratch = *state;
    struct rig rig = rig_open(scratch);
    check_placed(rig.memo, scratch->path);
    struct stat here, memory;
    assert_int_equal(stat(scratch->path, &here), 0);
    if (stat("/dev/shm", &memory) == 0 && access("/dev/shm", W_OK) == 0 && memory.st_dev != here.st_dev)
        check_placed(rig.memo, "/dev/shm"); // memory, on another device than the cache
    // A file system that cannot be tried: the two-second rule.
    struct kiln_digest digest = some_digest(1), found;
    struct stat st = file_of_age(500, 500);
    st.st_dev = 0xabcdef;
    record_placed(rig.memo, &st, &digest);
    assert_false(kiln_memo_known(rig.memo, &st, &found));
    st = file_of_age(2500, 2500);
    st.st_dev = 0xabcdef;
    record_placed(rig.memo, &st, &digest);
    assert_true(kiln_memo_known(rig.memo, &st, &found));
    rig_close(&rig);
}

struct writer {
    int fd;
    atomic_bool stop;
};

static void *keep_writing(void *argument) {
    struct writer *writer = argument;
    for (unsigned i = 0; !writer->stop; i++)
        if (pwrite(writer->fd, &i, sizeof i, 0) != sizeof i)
            break;
    return NULL;
}

static void a_file_that_changes_meanwhile_has_no_digest(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct rig rig = rig_open(scratch);
    kiln_autofd int fd = openat(scratch->fd, "big", O_RDWR | O_CREAT, 0644);
    assert_int_equal(ftruncate(fd, 64 << 20), 0);
    struct writer writer = {.fd = fd};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, keep_writing, &writer), 0);
    struct kiln_digest digest = some_digest(9), untouched = some_digest(9);
    uint64_t size = 4711;
    int rc = kiln_memo_digest_fd(rig.memo, fd, &digest, &size, &err);
    writer.stop = true;
    pthread_join(thread, NULL);
    assert_int_equal(rc, KILN_E_IO);
    assert_true(err.retriable);
    assert_int_equal(size, 4711);
    assert_memory_equal(&digest, &untouched, sizeof digest);
    assert_ok(kiln_memo_digest_fd(rig.memo, fd, &digest, &size, &err));
    assert_int_equal(size, 64 << 20);
    rig_close(&rig);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(the_two_second_rule),
        scratch_test(any_change_of_identity_is_another_file),
        scratch_test(a_known_file_is_not_read),
        scratch_test(a_young_file_is_read_each_time),
        scratch_test(placed_files_are_remembered_where_time_is_fine),
        scratch_test(a_file_that_changes_meanwhile_has_no_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
