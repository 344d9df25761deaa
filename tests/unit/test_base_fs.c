#include "tests/unit/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "lib/base/cleanup.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void open_beneath_follows_nothing(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    assert_ok(kiln_fs_make_dirs(scratch->fd, "root/dir", 0755, &err));
    scratch_write(scratch, "secret", "x", 1);
    scratch_write(scratch, "root/dir/file", "x", 1);
    assert_int_equal(symlinkat("../../secret", scratch->fd, "root/dir/out"), 0);
    assert_int_equal(symlinkat("file", scratch->fd, "root/dir/in"), 0);
    assert_int_equal(symlinkat("dir", scratch->fd, "root/linkdir"), 0);
    int root = openat(scratch->fd, "root", O_RDONLY | O_DIRECTORY);
    static const struct {
        const char *path;
        int code;
    } cases[] = {
        {"dir/file", 0},
        {"dir/absent", KILN_E_NOTFOUND},
        {"dir/file/x", KILN_E_NOTFOUND},
        {"dir/out", KILN_E_DENIED},
        {"dir/in", KILN_E_DENIED},
        {"linkdir/file", KILN_E_DENIED},
        {"../secret", KILN_E_DENIED},
        {"dir/../../secret", KILN_E_DENIED},
        {"/etc/passwd", KILN_E_DENIED},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int fd = -7;
        int rc = kiln_fs_open_beneath(root, cases[i].path, O_RDONLY, &fd, &err);
        if (rc != cases[i].code)
            fail_msg("%s: %d %s", cases[i].path, rc, err.text);
        if (rc) {
            assert_int_equal(fd, -7);
            continue;
        }
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        close(fd);
    }
    close(root);
}

static void read_file_is_bounded_and_appends(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    scratch_write(scratch, "ten", "0123456789", 10);
    for (size_t max = 8; max <= 14; max++) {
        kiln_autobuf struct kiln_buf buf = KILN_BUF_INIT(max);
        kiln_buf_add_str(&buf, "ab");
        int rc = kiln_fs_read_file(scratch->fd, "ten", &buf, &err);
        assert_int_equal(rc, max < 12 ? KILN_E_LIMIT : 0);
        assert_string_equal(kiln_buf_text(&buf), max < 12 ? "ab" : "ab0123456789");
        assert_false(buf.failed);
    }
}

static void read_file_wants_a_regular_file(void **state) {
    struct scratch *scratch = *state;
    kiln_autobuf struct kiln_buf buf = KILN_BUF_INIT(1 << 20);
    assert_int_equal(mkfifoat(scratch->fd, "fifo", 0600), 0);
    assert_int_equal(kiln_fs_read_file(scratch->fd, "fifo", &buf, NULL), KILN_E_INVAL);
    assert_int_equal(kiln_fs_read_file(scratch->fd, ".", &buf, NULL), KILN_E_INVAL);
    assert_int_equal(kiln_fs_read_file(scratch->fd, "absent", &buf, NULL), KILN_E_NOTFOUND);
    assert_int_equal(buf.len, 0);
    // A file that says it is empty and is not.
    assert_int_equal(kiln_fs_read_file(AT_FDCWD, "/proc/self/status", &buf, NULL), 0);
    assert_non_null(strstr(kiln_buf_text(&buf), "VmRSS"));
}

static size_t entries(int dirfd) {
    DIR *dir = fdopendir(openat(dirfd, ".", O_RDONLY | O_DIRECTORY));
    assert_non_null(dir);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return count;
}

static void write_file_replaces_whole(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    mode_t before = umask(077);
    assert_ok(kiln_fs_write_file(scratch->fd, "f", "long old text", 13, 0600, &err));
    assert_ok(kiln_fs_write_file(scratch->fd, "f", "new", 3, 0644, &err));
    umask(before);
    struct stat st;
    assert_int_equal(fstatat(scratch->fd, "f", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    assert_int_equal(st.st_size, 3);
    assert_int_equal(entries(scratch->fd), 1);

    assert_int_equal(mkdirat(scratch->fd, "d", 0755), 0);
    assert_int_not_equal(kiln_fs_write_file(scratch->fd, "d", "x", 1, 0644, &err), 0);
    assert_int_equal(kiln_fs_write_file(scratch->fd, "no/f", "x", 1, 0644, &err), KILN_E_NOTFOUND);
    assert_int_equal(entries(scratch->fd), 2);
}

static void make_dirs_of_all_kinds(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    struct stat st;
    mode_t before = umask(022);
    assert_ok(kiln_fs_make_dirs(scratch->fd, "a/b/c", 0750, &err));
    umask(before);
    assert_ok(kiln_fs_make_dirs(scratch->fd, "a/b/c", 0700, &err));
    assert_ok(kiln_fs_make_dirs(AT_FDCWD, scratch_path(scratch, "x//y/"), 0700, &err));
    assert_int_equal(fstatat(scratch->fd, "a/b", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0750);
    assert_int_equal(symlinkat("a", scratch->fd, "link"), 0);
    assert_ok(kiln_fs_make_dirs(scratch->fd, "link/b2", 0700, &err));
    assert_int_equal(fstatat(scratch->fd, "a/b2", &st, 0), 0);
    scratch_write(scratch, "file", "", 0);
    assert_int_equal(kiln_fs_make_dirs(scratch->fd, "file", 0700, &err), KILN_E_EXISTS);
    assert_int_equal(kiln_fs_make_dirs(scratch->fd, "file/sub", 0700, &err), KILN_E_EXISTS);
}

static void open_dir_makes_it(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    int fd = -1;
    struct stat st;
    assert_ok(kiln_fs_open_dir(scratch_path(scratch, "p/q"), &fd, &err));
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    close(fd);
    scratch_write(scratch, "file", "", 0);
    assert_int_not_equal(kiln_fs_open_dir(scratch_path(scratch, "file"), &fd, &err), 0);
    assert_int_equal(kiln_fs_open_dir("relative", &fd, &err), KILN_E_INVAL);
}

static void remove_tree_stays_inside(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    assert_ok(kiln_fs_make_dirs(scratch->fd, "outside/keep", 0755, &err));
    assert_ok(kiln_fs_make_dirs(scratch->fd, "tree/sub/empty", 0755, &err));
    scratch_write(scratch, "outside/keep/file", "x", 1);
    scratch_write(scratch, "tree/sub/file", "x", 1);
    assert_int_equal(mkfifoat(scratch->fd, "tree/sub/fifo", 0600), 0);
    assert_int_equal(symlinkat("../../outside", scratch->fd, "tree/sub/link"), 0);
    assert_int_equal(symlinkat("tree", scratch->fd, "linked"), 0);
    assert_ok(kiln_fs_remove_tree(scratch->fd, "linked", &err)); // the link, not the tree
    assert_int_equal(faccessat(scratch->fd, "tree/sub/file", F_OK, 0), 0);
    assert_ok(kiln_fs_remove_tree(scratch->fd, "tree", &err));
    assert_ok(kiln_fs_remove_tree(scratch->fd, "tree", &err));
    assert_int_equal(faccessat(scratch->fd, "tree", F_OK, 0), -1);
    assert_int_equal(faccessat(scratch->fd, "outside/keep/file", F_OK, 0), 0);
}

// Deeper than PATH_MAX and than the descriptors a process may hold.
static void remove_tree_takes_any_depth(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    assert_int_equal(mkdirat(scratch->fd, "deep", 0755), 0);
    int at = openat(scratch->fd, "deep", O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(mkdirat(at, "d", 0755), 0);
        int next = openat(at, "d", O_RDONLY | O_DIRECTORY);
        assert_true(next >= 0);
        if (i % 500 == 0)
            close(openat(next, "file", O_WRONLY | O_CREAT, 0600));
        close(at);
        at = next;
    }
    close(at);
    struct rlimit before, few = {200, 200};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_ok(kiln_fs_remove_tree(AT_FDCWD, scratch_path(scratch, "deep"), &err));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(entries(scratch->fd), 0);
}

static void remove_tree_empties_a_large_directory(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    assert_int_equal(mkdirat(scratch->fd, "wide", 0755), 0);
    for (int i = 0; i < 5000; i++) {
        char name[32];
        snprintf(name, sizeof name, "wide/f%d", i);
        close(openat(scratch->fd, name, O_WRONLY | O_CREAT, 0600));
    }
    assert_ok(kiln_fs_remove_tree(scratch->fd, "wide", &err));
    assert_int_equal(entries(scratch->fd), 0);
}

// Runs `body` in a child and passes its exit status on; 77 means that the machine lacks something.
static void in_child(int (*body)(struct scratch *), struct scratch *scratch) {
    pid_t pid = fork();
    if (pid == 0)
        _exit(body(scratch));
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int remove_as_nobody(struct scratch *scratch) {
    if (getuid() == 0 && (fchmod(scratch->fd, 0777) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534)))
        return 1;
    if (kiln_fs_make_dirs(scratch->fd, "ro/a/b", 0755, NULL))
        return 2;
    close(openat(scratch->fd, "ro/a/b/file", O_WRONLY | O_CREAT, 0400));
    if (fchmodat(scratch->fd, "ro/a/b", 0, 0) || fchmodat(scratch->fd, "ro/a", 0500, 0) ||
        fchmodat(scratch->fd, "ro", 0555, 0))
        return 3;
    return kiln_fs_remove_tree(scratch->fd, "ro", NULL) ? 4 : 0;
}

static void remove_tree_opens_closed_directories(void **state) {
    struct scratch *scratch = *state;
    in_child(remove_as_nobody, scratch);
    assert_int_equal(entries(scratch->fd), 0);
}

static int remove_over_a_mount(struct scratch *scratch) {
    if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS))
        return 77;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return 77;
    if (kiln_fs_make_dirs(scratch->fd, "tree/mnt", 0755, NULL) || kiln_fs_make_dirs(scratch->fd, "real", 0755, NULL))
        return 1;
    scratch_write(scratch, "real/file", "x", 1);
    // A bind mount has the device number of the tree around it.
    if (mount(scratch_path(scratch, "real"), scratch_path(scratch, "tree/mnt"), NULL, MS_BIND, NULL))
        return 2;
    int dir = open(scratch->path, O_RDONLY | O_DIRECTORY); // seen from the new mount namespace
    if (kiln_fs_remove_tree(dir, "tree", NULL) != KILN_E_DENIED)
        return 3;
    return faccessat(dir, "real/file", F_OK, 0) ? 4 : 0;
}

static void remove_tree_crosses_no_mount(void **state) { in_child(remove_over_a_mount, *state); }

static void check_copy(struct scratch *scratch, size_t size, off_t offset, uint64_t max, int code) {
    struct kiln_err err = {0};
    unsigned char *data = malloc(size + 1);
    for (size_t i = 0; i < size; i++)
        data[i] = (unsigned char)(i * 131 >> 3);
    scratch_write(scratch, "in", data, size);
    kiln_autofd int in = openat(scratch->fd, "in", O_RDONLY);
    kiln_autofd int out = openat(scratch->fd, "out", O_RDWR | O_CREAT | O_TRUNC, 0600);
    lseek(in, offset, SEEK_SET);
    uint64_t copied = 99;
    assert_int_equal(kiln_fs_copy_fd(in, out, max, &copied, &err), code);
    if (code == 0) {
        kiln_autobuf struct kiln_buf read = KILN_BUF_INIT(64 << 20);
        assert_int_equal(copied, size - (size_t)offset);
        lseek(out, 0, SEEK_SET);
        assert_ok(kiln_fs_read_fd(out, &read, &err));
        assert_int_equal(read.len, copied);
        if (copied)
            assert_memory_equal(read.data, data + offset, copied);
    } else {
        assert_int_equal(copied, 99);
    }
    free(data);
}

static void copy_fd_sizes_and_limits(void **state) {
    struct scratch *scratch = *state;
    static const struct {
        size_t size;
        off_t offset;
        uint64_t max;
        int code;
    } cases[] = {
        {0, 0, 0, 0},         {0, 0, 10, 0},          {1, 0, 1, 0},          {1, 0, 0, KILN_E_LIMIT},
        {4096, 100, 3996, 0}, {4096, 100, 3995, KILN_E_LIMIT}, {3000001, 0, 3000001, 0},
        {3000001, 0, UINT64_MAX, 0}, {3000001, 0, 3000000, KILN_E_LIMIT}, {3000001, 77, UINT64_MAX, 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        check_copy(scratch, cases[i].size, cases[i].offset, cases[i].max, cases[i].code);
}

static void copy_fd_from_what_the_kernel_cannot(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    int ends[2];
    uint64_t copied = 0;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "hello", 5), 5);
    close(ends[1]);
    kiln_autofd int out = openat(scratch->fd, "out", O_RDWR | O_CREAT, 0600);
    assert_ok(kiln_fs_copy_fd(ends[0], out, 5, &copied, &err));
    assert_int_equal(copied, 5);
    close(ends[0]);
    kiln_autofd int in = open("/proc/self/status", O_RDONLY); // size 0 by stat
    assert_ok(kiln_fs_copy_fd(in, out, 1 << 20, &copied, &err));
    assert_true(copied > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(open_beneath_follows_nothing),
        scratch_test(read_file_is_bounded_and_appends),
        scratch_test(read_file_wants_a_regular_file),
        scratch_test(write_file_replaces_whole),
        scratch_test(make_dirs_of_all_kinds),
        scratch_test(open_dir_makes_it),
        scratch_test(remove_tree_stays_inside),
        scratch_test(remove_tree_takes_any_depth),
        scratch_test(remove_tree_empties_a_large_directory),
        scratch_test(remove_tree_opens_closed_directories),
        scratch_test(remove_tree_crosses_no_mount),
        scratch_test(copy_fd_sizes_and_limits),
        scratch_test(copy_fd_from_what_the_kernel_cannot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
