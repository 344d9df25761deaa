#include "tests/unit/scratch.h"

#include <dirent.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/blob/store.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static unsigned syncs;

// In the place of libc's, to count.
int fsync(int fd) {
    syncs++;
    return (int)syscall(SYS_fsync, fd);
}

static struct kiln_store *open_store(const struct scratch *scratch, enum kiln_store_role role) {
    struct kiln_store *store = NULL;
    struct kiln_err err = {0};
    assert_ok(kiln_store_open_dir(scratch_path(scratch, "store"), role, &store, &err));
    return store;
}

static struct kiln_digest digest_of(const char *text) {
    struct kiln_digest digest;
    kiln_digest_of(text, strlen(text), &digest);
    return digest;
}

static int put_text(struct kiln_store *store, enum kiln_space space, const char *key, const char *text) {
    struct kiln_digest digest = digest_of(text);
    return kiln_store_put_bytes(store, space, key, text, strlen(text), &digest, NULL);
}

// The checked content of a key, or the code of the failure.
static int get_text(struct kiln_store *store, enum kiln_space space, const char *key, const char *expected) {
    struct kiln_digest digest = digest_of(expected);
    kiln_autofd int fd = -1;
    uint64_t size = 0;
    int rc = kiln_store_get_fd(store, space, key, &digest, &fd, &size, NULL);
    if (rc)
        return rc;
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1 << 20);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
    assert_int_equal(kiln_fs_read_fd(fd, &text, NULL), 0);
    assert_int_equal(text.len, size);
    assert_string_equal(kiln_buf_text(&text), expected);
    return 0;
}

static int open_file(const struct scratch *scratch, const char *name, int flags) {
    int fd = openat(scratch->fd, name, flags | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static struct stat stat_file(const struct scratch *scratch, const char *name) {
    struct stat st;
    if (fstatat(scratch->fd, name, &st, AT_SYMLINK_NOFOLLOW))
        fail_msg("%s is not there", name);
    return st;
}

static bool is_there(const struct scratch *scratch, const char *name) {
    return faccessat(scratch->fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

// What a disk does: other bytes in the file, whatever its mode.
static void flip_bit(const struct scratch *scratch, const char *name) {
    unsigned char byte;
    assert_int_equal(fchmodat(scratch->fd, name, 0600, 0), 0);
    kiln_autofd int fd = open_file(scratch, name, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, 1), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, 1), 1);
    assert_int_equal(fchmod(fd, 0444), 0);
}

static void set_age(const struct scratch *scratch, const char *name, int seconds) {
    struct timespec times[2];
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= seconds;
    times[1] = times[0];
    assert_int_equal(utimensat(scratch->fd, name, times, 0), 0);
}

static size_t temporary_files(const struct scratch *scratch, const char *space) {
    char path[64];
    snprintf(path, sizeof path, "store/%s/.tmp", space);
    int fd = openat(scratch->fd, path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return 0;
    DIR *dir = fdopendir(fd);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void content_comes_back_checked(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
    assert_int_equal(get_text(store, KILN_SPACE_VAULT, "cas/a/x", "hello"), KILN_E_NOTFOUND);
    assert_false(kiln_store_has(store, KILN_SPACE_VAULT, "cas/a/x"));
    assert_int_equal(put_text(store, KILN_SPACE_VAULT, "cas/a/x", "hello"), 0);
    assert_int_equal(get_text(store, KILN_SPACE_VAULT, "cas/a/x", "hello"), 0);
    assert_true(kiln_store_has(store, KILN_SPACE_VAULT, "cas/a/x"));
    assert_false(kiln_store_has(store, KILN_SPACE_VAULT, "cas/a"));
    assert_false(kiln_store_has(store, KILN_SPACE_INPUTS, "cas/a/x"));
    struct stat st = stat_file(scratch, "store/vault/cas/a/x");
    assert_int_equal(st.st_mode & 07777, 0444);
    assert_int_equal(st.st_nlink, 1);
    assert_int_equal(stat_file(scratch, "store").st_mode & 07777, 0700);

    scratch_write(scratch, "file", "0123456789", 10);
    kiln_autofd int fd = open_file(scratch, "file", O_RDONLY);
    struct kiln_digest digest = digest_of("0123456789");
    lseek(fd, 4, SEEK_SET); // a put takes the file from its start
    assert_ok(kiln_store_put_fd(store, KILN_SPACE_INPUTS, "cas/a/f", fd, 10, &digest, &err));
    assert_int_equal(get_text(store, KILN_SPACE_INPUTS, "cas/a/f", "0123456789"), 0);
    kiln_autobuf struct kiln_buf small = KILN_BUF_INIT(9), large = KILN_BUF_INIT(10);
    assert_int_equal(kiln_store_get_bytes(store, KILN_SPACE_INPUTS, "cas/a/f", &small, &err), KILN_E_LIMIT);
    assert_ok(kiln_store_get_bytes(store, KILN_SPACE_INPUTS, "cas/a/f", &large, &err));
    assert_string_equal(kiln_buf_text(&large), "0123456789");
    assert_int_equal(temporary_files(scratch, "vault"), 0);
    kiln_store_close(store);
}

static void wrong_bytes_are_not_stored(void **state) {
    struct scratch *scratch = *state;
    struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
    struct kiln_digest digest = digest_of("right");
    scratch_write(scratch, "file", "wrong", 5);
    kiln_autofd int fd = open_file(scratch, "file", O_RDONLY);
    assert_int_equal(kiln_store_put_fd(store, KILN_SPACE_VAULT, "k", fd, 100, &digest, NULL), KILN_E_CORRUPT);
    assert_int_equal(kiln_store_put_bytes(store, KILN_SPACE_VAULT, "k", "wrong", 5, &digest, NULL), KILN_E_CORRUPT);
    digest = digest_of("wrong");
    assert_int_equal(kiln_store_put_fd(store, KILN_SPACE_VAULT, "k", fd, 4, &digest, NULL), KILN_E_LIMIT);
    assert_false(kiln_store_has(store, KILN_SPACE_VAULT, "k"));
    assert_int_equal(temporary_files(scratch, "vault"), 0);
    kiln_store_close(store);
}

static void keys_are_canonical(void **state) {
    struct scratch *scratch = *state;
    struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
    static const char *const keys[] = {"", "/etc/x", "../x", "a/../../x", "a//b", "a/", ".tmp/x", ".tmp"};
    for (size_t i = 0; i < COUNT(keys); i++) {
        int fd = -1;
        if (put_text(store, KILN_SPACE_VAULT, keys[i], "x") != KILN_E_INVAL)
            fail_msg("key \"%s\" is taken", keys[i]);
        assert_int_equal(kiln_store_open_unchecked(store, KILN_SPACE_VAULT, keys[i], &fd, NULL), KILN_E_INVAL);
        assert_int_equal(kiln_store_remove(store, KILN_SPACE_VAULT, keys[i], NULL), KILN_E_INVAL);
        assert_false(kiln_store_has(store, KILN_SPACE_VAULT, keys[i]));
    }
    kiln_store_close(store);
}

static void a_key_is_created_once_and_mended(void **state) {
    struct scratch *scratch = *state;
    struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
    static const char file[] = "store/vault/cas/x";
    assert_int_equal(put_text(store, KILN_SPACE_VAULT, "cas/x", "content"), 0);
    ino_t first = stat_file(scratch, file).st_ino;
    assert_int_equal(put_text(store, KILN_SPACE_VAULT, "cas/x", "content"), 0);
    assert_int_equal(stat_file(scratch, file).st_ino, first); // found, not written again
    flip_bit(scratch, file);
    assert_int_equal(get_text(store, KILN_SPACE_VAULT, "cas/x", "content"), KILN_E_CORRUPT);
    assert_int_equal(put_text(store, KILN_SPACE_VAULT, "cas/x", "content"), 0);
    assert_int_equal(get_text(store, KILN_SPACE_VAULT, "cas/x", "content"), 0);
    flip_bit(scratch, file);
    scratch_write(scratch, "file", "content", 7);
    kiln_autofd int fd = open_file(scratch, "file", O_RDONLY);
    struct kiln_digest digest = digest_of("content");
    assert_int_equal(kiln_store_put_fd(store, KILN_SPACE_VAULT, "cas/x", fd, 7, &digest, NULL), 0);
    assert_int_equal(get_text(store, KILN_SPACE_VAULT, "cas/x", "content"), 0);
    // Cut to nothing, as a power failure does it.
    assert_int_equal(fchmodat(scratch->fd, file, 0600, 0), 0);
    close(open_file(scratch, file, O_WRONLY | O_TRUNC));
    assert_int_equal(get_text(store, KILN_SPACE_VAULT, "cas/x", "content"), KILN_E_CORRUPT);
    assert_int_equal(put_text(store, KILN_SPACE_VAULT, "cas/x", "content"), 0);
    assert_int_equal(get_text(store, KILN_SPACE_VAULT, "cas/x", "content"), 0);
    assert_int_equal(temporary_files(scratch, "vault"), 0);
    kiln_store_close(store);
}

// Packs are named by what is in them: the caller has checked the bytes, and knows no digest of the file.
static void a_put_without_a_digest(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
    scratch_write(scratch, "file", "pack bytes", 10);
    kiln_autofd int fd = open_file(scratch, "file", O_RDONLY);
    assert_ok(kiln_store_put_fd(store, KILN_SPACE_INPUTS, "p", fd, 10, NULL, &err));
    ino_t first = stat_file(scratch, "store/inputs/p").st_ino;
    assert_ok(kiln_store_put_fd(store, KILN_SPACE_INPUTS, "p", fd, 10, NULL, &err));
    assert_int_equal(stat_file(scratch, "store/inputs/p").st_ino, first);
    flip_bit(scratch, "store/inputs/p");
    assert_ok(kiln_store_put_fd(store, KILN_SPACE_INPUTS, "p", fd, 10, NULL, &err));
    assert_int_equal(get_text(store, KILN_SPACE_INPUTS, "p", "pack bytes"), 0);
    kiln_store_close(store);
}

static void pointers_are_created_once(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
    assert_ok(kiln_store_put_pointer(store, "ac/a/0/x", "first", 5, false, &err));
    assert_int_equal(kiln_store_put_pointer(store, "ac/a/0/x", "other", 5, false, &err), KILN_E_EXISTS);
    assert_int_equal(kiln_store_put_pointer(store, "ac/a/0/x", "first", 5, false, &err), KILN_E_EXISTS);
    assert_int_equal(get_text(store, KILN_SPACE_VAULT, "ac/a/0/x", "first"), 0);
    assert_ok(kiln_store_put_pointer(store, "ac/a/0/x", "third", 5, true, &err));
    assert_int_equal(get_text(store, KILN_SPACE_VAULT, "ac/a/0/x", "third"), 0);
    assert_ok(kiln_store_put_pointer(store, "ac/a/0/new", "x", 1, true, &err));
    assert_int_equal(temporary_files(scratch, "vault"), 0);
    kiln_store_close(store);
}

static void a_put_costs_one_fsync_at_most(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
    static const unsigned expected[] = {[KILN_SPACE_QUARANTINE] = 0, [KILN_SPACE_INPUTS] = 1, [KILN_SPACE_VAULT] = 1};
    for (int space = 0; space < 3; space++) {
        syncs = 0;
        assert_int_equal(put_text(store, space, "k/x", "x"), 0);
        assert_int_equal(syncs, expected[space]);
        assert_int_equal(put_text(store, space, "k/x", "x"), 0); // there already
        assert_int_equal(syncs, expected[space]);
    }
    syncs = 0;
    assert_ok(kiln_store_put_pointer(store, "ac/x", "x", 1, false, &err));
    assert_int_equal(syncs, 1);
    kiln_store_close(store);
}

enum action { READ, PUT, REMOVE, POINTER, PRUNE };

static int act(struct kiln_store *store, enum action action, enum kiln_space space, const char *key) {
    int fd = -1;
    switch (action) {
    case READ: {
        int rc = kiln_store_open_unchecked(store, space, key, &fd, NULL);
        assert_int_equal(kiln_store_has(store, space, key), rc == 0);
        if (rc == 0)
            close(fd);
        return rc;
    }
    case PUT:
        return put_text(store, space, key, "x");
    case REMOVE: {
        int rc = kiln_store_remove_below(store, space, "in/none", NULL);
        return rc ? rc : kiln_store_remove(store, space, key, NULL);
    }
    case POINTER:
        return kiln_store_put_pointer(store, "ac/p", "x", 1, true, NULL);
    case PRUNE:
        return kiln_store_prune(store, space, 1 << 20, 0, NULL, NULL);
    }
    return -99;
}

static void roles_do_only_what_they_may(void **state) {
    struct scratch *scratch = *state;
    static const struct {
        enum kiln_store_role role;
        enum action action;
        enum kiln_space space;
        const char *key;
        bool allowed;
    } cases[] = {
        {KILN_ROLE_AGENT, READ, KILN_SPACE_VAULT, "out/k", true},
        {KILN_ROLE_AGENT, READ, KILN_SPACE_INPUTS, "in/k", false},
        {KILN_ROLE_AGENT, READ, KILN_SPACE_QUARANTINE, "in/k", false},
        {KILN_ROLE_AGENT, PUT, KILN_SPACE_QUARANTINE, "in/k", true},
        {KILN_ROLE_AGENT, PUT, KILN_SPACE_QUARANTINE, "out/k", false},
        {KILN_ROLE_AGENT, PUT, KILN_SPACE_QUARANTINE, "inside", false},
        {KILN_ROLE_AGENT, PUT, KILN_SPACE_INPUTS, "in/k", false},
        {KILN_ROLE_AGENT, PUT, KILN_SPACE_VAULT, "in/k", false},
        {KILN_ROLE_AGENT, POINTER, KILN_SPACE_VAULT, "", false},
        {KILN_ROLE_AGENT, REMOVE, KILN_SPACE_QUARANTINE, "in/k", true},
        {KILN_ROLE_AGENT, REMOVE, KILN_SPACE_QUARANTINE, "out/k", false},
        {KILN_ROLE_AGENT, REMOVE, KILN_SPACE_VAULT, "in/k", false},
        {KILN_ROLE_AGENT, PRUNE, KILN_SPACE_QUARANTINE, "", false},
        {KILN_ROLE_EXECUTOR, READ, KILN_SPACE_INPUTS, "in/k", true},
        {KILN_ROLE_EXECUTOR, READ, KILN_SPACE_VAULT, "in/k", true},
        {KILN_ROLE_EXECUTOR, READ, KILN_SPACE_QUARANTINE, "out/k", false},
        {KILN_ROLE_EXECUTOR, PUT, KILN_SPACE_QUARANTINE, "out/k", true},
        {KILN_ROLE_EXECUTOR, PUT, KILN_SPACE_QUARANTINE, "in/k", false},
        {KILN_ROLE_EXECUTOR, PUT, KILN_SPACE_INPUTS, "out/k", false},
        {KILN_ROLE_EXECUTOR, PUT, KILN_SPACE_VAULT, "out/k", false},
        {KILN_ROLE_EXECUTOR, POINTER, KILN_SPACE_VAULT, "", false},
        {KILN_ROLE_EXECUTOR, REMOVE, KILN_SPACE_QUARANTINE, "out/k", false},
        {KILN_ROLE_EXECUTOR, PRUNE, KILN_SPACE_VAULT, "", false},
        {KILN_ROLE_READER, READ, KILN_SPACE_INPUTS, "in/k", true},
        {KILN_ROLE_READER, READ, KILN_SPACE_VAULT, "in/k", true},
        {KILN_ROLE_READER, READ, KILN_SPACE_QUARANTINE, "in/k", false},
        {KILN_ROLE_READER, PUT, KILN_SPACE_QUARANTINE, "in/k", false},
        {KILN_ROLE_READER, POINTER, KILN_SPACE_VAULT, "", false},
        {KILN_ROLE_READER, REMOVE, KILN_SPACE_QUARANTINE, "in/k", false},
        {KILN_ROLE_READER, PRUNE, KILN_SPACE_VAULT, "", false},
        {KILN_ROLE_VERIFIER, READ, KILN_SPACE_QUARANTINE, "in/k", true},
        {KILN_ROLE_VERIFIER, PUT, KILN_SPACE_VAULT, "k", true},
        {KILN_ROLE_VERIFIER, POINTER, KILN_SPACE_VAULT, "", true},
        {KILN_ROLE_VERIFIER, REMOVE, KILN_SPACE_VAULT, "k", true},
        {KILN_ROLE_VERIFIER, PRUNE, KILN_SPACE_VAULT, "", true},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct kiln_store *verifier = open_store(scratch, KILN_ROLE_VERIFIER);
        for (int space = 0; space < 3; space++)
            for (size_t k = 0; k < 2; k++)
                assert_int_equal(put_text(verifier, space, k ? "in/k" : "out/k", "x"), 0);
        struct kiln_store *store = open_store(scratch, cases[i].role);
        int rc = act(store, cases[i].action, cases[i].space, cases[i].key);
        if (rc != (cases[i].allowed ? 0 : KILN_E_DENIED))
            fail_msg("case %zu: %d", i, rc);
        kiln_store_close(store);
        kiln_store_close(verifier);
    }
}

static void remove_below_takes_one_job(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
    static const char *const keys[] = {"in/t/a/job1/x", "in/t/a/job1/sub/y", "in/t/a/job10/x", "in/t/b/job1/x"};
    for (size_t i = 0; i < COUNT(keys); i++)
        assert_int_equal(put_text(store, KILN_SPACE_QUARANTINE, keys[i], "x"), 0);
    assert_ok(kiln_store_remove_below(store, KILN_SPACE_QUARANTINE, "in/t/a/job1", &err));
    for (size_t i = 0; i < COUNT(keys); i++)
        assert_int_equal(kiln_store_has(store, KILN_SPACE_QUARANTINE, keys[i]), i >= 2);
    assert_ok(kiln_store_remove(store, KILN_SPACE_QUARANTINE, "in/t/a/job10/x", &err));
    assert_ok(kiln_store_remove(store, KILN_SPACE_QUARANTINE, "in/t/a/job10/x", &err)); // absent: success
    assert_false(is_there(scratch, "store/quarantine/in/t/a")); // nothing is left of empty directories
    assert_true(is_there(scratch, "store/quarantine/in/t/b/job1/x"));
    kiln_store_close(store);
}

static void keys_are_built_from_plain_parts(void **state) {
    (void)state;
    struct kiln_digest digest;
    memset(&digest, 0xab, sizeof digest);
    digest.bytes[0] = 0x1f;
    static const char hex[] = "1fababababababababababababababababababababababababababababababab";
    char expected[200];
    char *keys[] = {kiln_key_content("pack", "local", &digest), kiln_key_result("local", 7, &digest),
                    kiln_key_quarantine_in("t", "a", "j", "n"), kiln_key_quarantine_out("e", "j", 3, "n")};
    snprintf(expected, sizeof expected, "cas/local/pack/1f/%s", hex);
    assert_string_equal(keys[0], expected);
    snprintf(expected, sizeof expected, "ac/local/7/1f/%s", hex);
    assert_string_equal(keys[1], expected);
    assert_string_equal(keys[2], "in/t/a/j/n");
    assert_string_equal(keys[3], "out/e/j/3/n");
    for (size_t i = 0; i < COUNT(keys); i++)
        free(keys[i]);
    static const char *const hostile[] = {"", "..", ".", "a/b", "/", "a\n", "a/../../b"};
    for (size_t i = 0; i < COUNT(hostile); i++) {
        assert_null(kiln_key_content("blob", hostile[i], &digest));
        assert_null(kiln_key_quarantine_in("t", hostile[i], "j", "n"));
        assert_null(kiln_key_quarantine_in("t", "a", "j", hostile[i]));
        assert_null(kiln_key_quarantine_out(hostile[i], "j", 0, "n"));
    }
}

static void prune_takes_the_least_recently_used(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
    char key[32], file[64];
    for (int i = 0; i < 10; i++) { // k0 is the oldest
        snprintf(key, sizeof key, "cas/k%d", i);
        snprintf(file, sizeof file, "store/vault/%s", key);
        assert_int_equal(put_text(store, KILN_SPACE_VAULT, key, key), 0);
        set_age(scratch, file, 1000 - i);
    }
    assert_ok(kiln_store_put_pointer(store, "ac/p", "pointer", 7, false, &err));
    set_age(scratch, "store/vault/ac/p", 2000);
    assert_int_equal(get_text(store, KILN_SPACE_VAULT, "cas/k0", "cas/k0"), 0);        // used now
    assert_int_equal(put_text(store, KILN_SPACE_VAULT, "cas/k2", "cas/k2"), 0);        // found there: used now
    assert_int_equal(kiln_store_has(store, KILN_SPACE_VAULT, "cas/k1"), true);         // no use
    uint64_t removed = 0;
    assert_ok(kiln_store_prune(store, KILN_SPACE_VAULT, 11 * 4096, 0, &removed, &err));
    assert_int_equal(removed, 0);
    assert_ok(kiln_store_prune(store, KILN_SPACE_VAULT, 6 * 4096 + 100, 0, &removed, &err));
    assert_int_equal(removed, 5 * 4096);
    static const bool left[10] = {true, false, true, false, false, false, true, true, true, true};
    for (int i = 0; i < 10; i++) {
        snprintf(key, sizeof key, "cas/k%d", i);
        assert_int_equal(kiln_store_has(store, KILN_SPACE_VAULT, key), left[i]);
    }
    assert_false(kiln_store_has(store, KILN_SPACE_VAULT, "ac/p"));
    assert_ok(kiln_store_prune(store, KILN_SPACE_VAULT, 0, 500000, &removed, &err)); // used within 500 s stays
    assert_int_equal(removed, 4 * 4096);
    assert_true(kiln_store_has(store, KILN_SPACE_VAULT, "cas/k0"));
    assert_true(kiln_store_has(store, KILN_SPACE_VAULT, "cas/k2"));
    assert_ok(kiln_store_prune(store, KILN_SPACE_VAULT, 0, 0, &removed, &err));
    assert_int_equal(removed, 2 * 4096);
    kiln_store_close(store);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// Recorded by the store itself: a mount without access times records nothing, and the kernel's stamps are coarse.
static void use_is_recorded_exactly(void **state) {
    struct scratch *scratch = *state;
    struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
    for (int i = 0; i < 10; i++) {
        char key[32], file[64];
        snprintf(key, sizeof key, "k%d", i);
        snprintf(file, sizeof file, "store/vault/%s", key);
        int64_t before = now_ns();
        assert_int_equal(put_text(store, KILN_SPACE_VAULT, key, key), 0);
        for (int use = 0; use < 3; use++) {
            struct stat st = stat_file(scratch, file);
            int64_t used = (int64_t)st.st_atim.tv_sec * 1000000000 + st.st_atim.tv_nsec;
            assert_true(used >= before && used <= now_ns());
            set_age(scratch, file, 100);
            before = now_ns();
            if (use == 0)
                assert_int_equal(get_text(store, KILN_SPACE_VAULT, key, key), 0);
            else
                assert_int_equal(put_text(store, KILN_SPACE_VAULT, key, key), 0);
        }
    }
    kiln_store_close(store);
}

static void temporary_files_of_the_dead_are_swept(void **state) {
    struct scratch *scratch = *state;
    kiln_store_close(open_store(scratch, KILN_ROLE_VERIFIER));
    assert_int_equal(kiln_fs_make_dirs(scratch->fd, "store/vault/.tmp", 0700, NULL), 0);
    scratch_write(scratch, "store/vault/.tmp/dead", "x", 1);
    scratch_write(scratch, "store/vault/.tmp/live", "x", 1);
    int live = open_file(scratch, "store/vault/.tmp/live", O_RDWR);
    assert_int_equal(flock(live, LOCK_EX), 0); // what a writer holds
    struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
    uint64_t removed = 4711;
    assert_int_equal(kiln_store_prune(store, KILN_SPACE_VAULT, 0, 0, &removed, NULL), 0);
    assert_int_equal(removed, 0);
    kiln_store_close(store);
    assert_false(is_there(scratch, "store/vault/.tmp/dead"));
    assert_true(is_there(scratch, "store/vault/.tmp/live"));
    close(live);
    kiln_store_close(open_store(scratch, KILN_ROLE_EXECUTOR));
    assert_false(is_there(scratch, "store/vault/.tmp/live"));
}

#define BIG_BYTES ((size_t)600000)
#define SEEDS 64u

static void fill(unsigned char *data, unsigned seed) {
    for (size_t i = 0; i < BIG_BYTES; i++)
        data[i] = (unsigned char)((i * 2654435761u + seed) >> 7);
}

// Takes the object away first: a put of what is there writes nothing.
static int put_big_anew(struct kiln_store *store, unsigned seed) {
    kiln_autofree unsigned char *data = malloc(BIG_BYTES);
    struct kiln_digest digest;
    fill(data, seed);
    kiln_digest_of(data, BIG_BYTES, &digest);
    kiln_autofree char *key = kiln_key_content("blob", "s", &digest);
    kiln_store_remove(store, KILN_SPACE_QUARANTINE, key, NULL);
    return kiln_store_put_bytes(store, KILN_SPACE_QUARANTINE, key, data, BIG_BYTES, &digest, NULL);
}

// Every object that a key shows must be whole; returns how many there are.
static size_t check_big(struct kiln_store *store) {
    kiln_autofree unsigned char *data = malloc(BIG_BYTES);
    size_t found = 0;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        struct kiln_digest digest;
        fill(data, seed);
        kiln_digest_of(data, BIG_BYTES, &digest);
        kiln_autofree char *key = kiln_key_content("blob", "s", &digest);
        kiln_autofd int fd = -1;
        uint64_t size;
        int rc = kiln_store_get_fd(store, KILN_SPACE_QUARANTINE, key, &digest, &fd, &size, NULL);
        assert_true(rc == 0 || rc == KILN_E_NOTFOUND);
        found += rc == 0;
    }
    return found;
}

// Removing empties directories under the others' feet.
static int add_and_remove(struct kiln_store *store, int i, struct kiln_err *err) {
    char key[32];
    snprintf(key, sizeof key, "cas/%d/deep/%d", i / 4, i);
    int rc = kiln_store_put_bytes(store, KILN_SPACE_QUARANTINE, key, key, strlen(key), NULL, err);
    if (rc == 0)
        rc = kiln_store_remove(store, KILN_SPACE_QUARANTINE, key, err);
    snprintf(key, sizeof key, "kept/%d/x", i);
    return rc ? rc : kiln_store_put_bytes(store, KILN_SPACE_QUARANTINE, key, key, strlen(key), NULL, err);
}

static void processes_add_the_same_at_once(void **state) {
    struct scratch *scratch = *state;
    pid_t pids[4];
    for (int p = 0; p < 4; p++) {
        pids[p] = fork();
        if (pids[p] == 0) {
            struct kiln_err err = {0};
            struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
            int rc = 0;
            for (int i = 0; i < 300 && rc == 0; i++)
                rc = add_and_remove(store, i, &err);
            if (rc)
                fprintf(stderr, "%s\n", err.text);
            kiln_store_close(store);
            _exit(rc ? 1 : 0);
        }
    }
    for (int p = 0; p < 4; p++) {
        int status;
        assert_int_equal(waitpid(pids[p], &status, 0), pids[p]);
        assert_int_equal(status, 0);
    }
    struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
    for (int i = 0; i < 300; i++) {
        char key[32];
        snprintf(key, sizeof key, "kept/%d/x", i);
        assert_int_equal(get_text(store, KILN_SPACE_QUARANTINE, key, key), 0);
    }
    assert_int_equal(temporary_files(scratch, "quarantine"), 0);
    kiln_store_close(store);
}

// A child that puts for ever, killed after a moment.
static void put_and_be_killed(const struct scratch *scratch, unsigned first_seed, uint64_t after_us) {
    int ready[2];
    char byte;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
        if (write(ready[1], "r", 1) != 1)
            _exit(1);
        for (unsigned seed = first_seed;; seed++)
            put_big_anew(store, seed % SEEDS);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    for (uint64_t until = kiln_clock_us() + after_us; kiln_clock_us() < until;)
        ;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

// Which of the processes created how many of the pointers, by its exit status.
static void one_process_creates_a_pointer(void **state) {
    struct scratch *scratch = *state;
    pid_t pids[4];
    int created = 0;
    for (int p = 0; p < 4; p++) {
        pids[p] = fork();
        if (pids[p] == 0) {
            struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
            int won = 0;
            for (int i = 0; i < 100; i++) {
                char key[32];
                snprintf(key, sizeof key, "ac/%d", i);
                int rc = kiln_store_put_pointer(store, key, &p, sizeof p, false, NULL);
                if (rc != 0 && rc != KILN_E_EXISTS)
                    _exit(255);
                won += rc == 0;
            }
            kiln_store_close(store);
            _exit(won);
        }
    }
    for (int p = 0; p < 4; p++) {
        int status;
        assert_int_equal(waitpid(pids[p], &status, 0), pids[p]);
        assert_true(WIFEXITED(status));
        created += WEXITSTATUS(status);
    }
    assert_int_equal(created, 100);
}

static void a_killed_writer_leaves_nothing_wrong(void **state) {
    struct scratch *scratch = *state;
    size_t swept = 0, whole = 0;
    unsigned chance = 12345;
    // Until some were hit while they wrote and some objects came through, but at least 30 times.
    for (unsigned round = 0; round < 30 || swept < 5 || whole < 5; round++) {
        assert_true(round < 1000);
        chance = chance * 1103515245u + 12345u;
        put_and_be_killed(scratch, round, (chance >> 8) % (4000 + round * 400)); // longer and longer, for slow machines
        swept += temporary_files(scratch, "quarantine");
        struct kiln_store *store = open_store(scratch, KILN_ROLE_VERIFIER);
        assert_int_equal(temporary_files(scratch, "quarantine"), 0);
        if (round % 8 == 7)
            whole = check_big(store);
        kiln_store_close(store);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(content_comes_back_checked),
        scratch_test(wrong_bytes_are_not_stored),
        scratch_test(keys_are_canonical),
        scratch_test(a_key_is_created_once_and_mended),
        scratch_test(a_put_without_a_digest),
        scratch_test(pointers_are_created_once),
        scratch_test(a_put_costs_one_fsync_at_most),
        scratch_test(roles_do_only_what_they_may),
        scratch_test(remove_below_takes_one_job),
        cmocka_unit_test(keys_are_built_from_plain_parts),
        scratch_test(prune_takes_the_least_recently_used),
        scratch_test(use_is_recorded_exactly),
        scratch_test(temporary_files_of_the_dead_are_swept),
        scratch_test(processes_add_the_same_at_once),
        scratch_test(one_process_creates_a_pointer),
        scratch_test(a_killed_writer_leaves_nothing_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
