// Placing outputs: whole files or none, exactly where the command line says, whatever interrupts it.
#include "scratch.h"
#include "namespace.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "lib/base/cleanup.h"
#include "producer/wrapper/place.h"

#define CONTENT_BYTES 100000
#define FILES_MAX 4

// A descriptor with `size` bytes of `fill`, as the agent would pass one. Its offset is at the end.
static int make_content(size_t size, char fill) {
    int fd = memfd_create("content", MFD_CLOEXEC);
    assert_true(fd >= 0);
    kiln_autofree char *bytes = malloc(size + 1);
    memset(bytes, fill, size);
    assert_int_equal(kiln_fs_write_all(fd, bytes, size, NULL), 0);
    return fd;
}

struct order {
    struct kiln_place_order order;
    struct kiln_place_file files[FILES_MAX];
    char paths[FILES_MAX][512];
    int fds[FILES_MAX];
    struct kiln_placed_file identities[FILES_MAX];
};

static void add_file(struct order *order, const char *path, bool executable, size_t size, char fill) {
    size_t i = order->order.files_count++;
    assert_true(i < FILES_MAX);
    snprintf(order->paths[i], sizeof order->paths[i], "%s", path);
    order->files[i] = (struct kiln_place_file){.path = order->paths[i], .executable = executable, .size = size};
    order->fds[i] = make_content(size, fill);
    order->order.files = order->files;
}

static void release_order(struct order *order) {
    for (size_t i = 0; i < order->order.files_count; i++)
        close(order->fds[i]);
}

static int place(struct order *order, const char *out_dir, struct kiln_err *err) {
    return kiln_place_files(out_dir, &order->order, order->fds, order->order.files_count, order->identities, err);
}

// The size of a file that holds only `fill`; -1 when it is not there, -2 when it holds something else.
static long content_size(int dirfd, const char *name, char fill) {
    kiln_autobuf struct kiln_buf buf = KILN_BUF_INIT(1u << 24);
    if (kiln_fs_read_file(dirfd, name, &buf, NULL))
        return -1;
    for (size_t i = 0; i < buf.len; i++)
        if (buf.data[i] != (unsigned char)fill)
            return -2;
    return (long)buf.len;
}

static size_t count_entries(const char *path, const char *prefix) {
    DIR *dir = opendir(path);
    size_t count = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") &&
                 !strncmp(entry->d_name, prefix, strlen(prefix));
    if (dir)
        closedir(dir);
    return count;
}

static void test_files_with_their_modes(void **state) {
    const struct scratch *scratch = *state;
    static const struct {
        mode_t mask, plain, executable;
    } cases[] = {{022, 0644, 0755}, {077, 0600, 0700}, {002, 0644, 0755}, {027, 0640, 0750}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char dir[512];
        snprintf(dir, sizeof dir, "%s/out%zu/debug/deps", scratch->path, i); // made as rustc makes it
        struct order order = {0};
        char path[600];
        snprintf(path, sizeof path, "%s/libfoo.rlib", dir);
        add_file(&order, path, false, CONTENT_BYTES, 'r');
        snprintf(path, sizeof path, "%s/foo", dir);
        add_file(&order, path, true, 0, 'x');
        struct kiln_err err;
        mode_t before = umask(cases[i].mask);
        int rc = place(&order, dir, &err);
        umask(before);
        assert_ok(rc);
        for (size_t k = 0; k < 2; k++) {
            struct stat st;
            assert_int_equal(lstat(order.paths[k], &st), 0);
            assert_int_equal(st.st_mode, S_IFREG | (k ? cases[i].executable : cases[i].plain));
            assert_int_equal(st.st_nlink, 1);
            assert_int_equal(st.st_size, order.files[k].size);
            assert_true(order.identities[k].ino == st.st_ino && order.identities[k].dev == st.st_dev);
            assert_true(order.identities[k].size == order.files[k].size);
            assert_true(order.identities[k].ctime_ns == st.st_ctim.tv_sec * 1000000000LL + st.st_ctim.tv_nsec);
            assert_true(order.identities[k].mtime_ns == st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec);
        }
        assert_int_equal(content_size(AT_FDCWD, order.paths[0], 'r'), CONTENT_BYTES);
        assert_int_equal(count_entries(dir, ""), 2);
        release_order(&order);
    }
}

static void test_what_is_in_the_way_is_replaced(void **state) {
    const struct scratch *scratch = *state;
    struct order order = {0};
    struct kiln_err err;
    scratch_write(scratch, "victim", "vvv", 3);
    scratch_write(scratch, "linked", "lll", 3);
    assert_int_equal(linkat(scratch->fd, "linked", scratch->fd, "other-name", 0), 0); // as cargo's uplifts are
    assert_int_equal(symlinkat("victim", scratch->fd, "symlink"), 0);
    assert_int_equal(symlinkat("nowhere", scratch->fd, "dangling"), 0);
    add_file(&order, scratch_path(scratch, "symlink"), false, 10, 'a');
    add_file(&order, scratch_path(scratch, "linked"), true, 10, 'b');
    add_file(&order, scratch_path(scratch, "dangling"), false, 10, 'c');
    assert_ok(place(&order, scratch->path, &err));
    struct stat st;
    assert_int_equal(fstatat(scratch->fd, "symlink", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(content_size(scratch->fd, "symlink", 'a'), 10);
    assert_int_equal(content_size(scratch->fd, "victim", 'v'), 3);
    assert_int_equal(content_size(scratch->fd, "linked", 'b'), 10);
    assert_int_equal(content_size(scratch->fd, "other-name", 'l'), 3);
    assert_int_equal(content_size(scratch->fd, "dangling", 'c'), 10);
    assert_int_equal(content_size(scratch->fd, "nowhere", 'c'), -1);
    assert_int_equal(count_entries(scratch->path, ".kiln-"), 0);
    release_order(&order);
}

static const struct {
    const char *out_dir, *path;
    bool allowed;
} path_cases[] = {
    {"out", "out/a", true},
    {"out/", "out/a", true},
    {"out", "out//a", true},
    {".", "./a", true},
    {"out", "a", false},
    {"out", "out", false},
    {"out", "out/", false},
    {"out", "out/.", false},
    {"out", "out/..", false},
    {"out", "out/sub/a", false},
    {"out", "out/../a", false},
    {"out", "other/a", false},
    {"out", "outer/a", false},
    {"out", "/out/a", false},
    {"out", "./out/a", false},
    {"out", "", false},
    {"out", "out/a\nb", false},
    {".", "../a", false},
    {".", "/a", false},
    {".", "a", false},
    {"/tmp", "/etc/a", false},
};

static void test_places_outside_are_refused(void **state) {
    const struct scratch *scratch = *state;
    int before = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(fchdir(scratch->fd), 0);
    for (size_t i = 0; i < sizeof path_cases / sizeof *path_cases; i++) {
        struct order order = {0};
        struct kiln_err err;
        add_file(&order, path_cases[i].path, false, 3, 'x');
        int rc = place(&order, path_cases[i].out_dir, &err);
        if ((rc == 0) != path_cases[i].allowed || (rc && rc != KILN_E_DENIED))
            fail_msg("%s in %s: %d %s", path_cases[i].path, path_cases[i].out_dir, rc, rc ? err.text : "");
        release_order(&order);
    }
    assert_int_equal(fchdir(before), 0);
    close(before);
}

static void test_one_bad_path_refuses_the_whole_order(void **state) {
    const struct scratch *scratch = *state;
    struct order order = {0};
    add_file(&order, scratch_path(scratch, "good"), false, 3, 'x');
    add_file(&order, "/tmp/../etc/bad", false, 3, 'x');
    assert_int_equal(place(&order, scratch->path, NULL), KILN_E_DENIED);
    assert_int_equal(count_entries(scratch->path, ""), 0);
    release_order(&order);
}

static void test_descriptors_that_do_not_fit(void **state) {
    const struct scratch *scratch = *state;
    struct order order = {0};
    add_file(&order, scratch_path(scratch, "a"), false, 10, 'x');
    order.files[0].size = 11;
    assert_int_equal(place(&order, scratch->path, NULL), KILN_E_CORRUPT);
    order.files[0].size = 9;
    assert_int_equal(place(&order, scratch->path, NULL), KILN_E_CORRUPT);
    order.files[0].size = 10;
    assert_int_equal(kiln_place_files(scratch->path, &order.order, order.fds, 0, order.identities, NULL),
                     KILN_E_CORRUPT);
    int pipe_ends[2];
    assert_int_equal(pipe(pipe_ends), 0);
    int kept = order.fds[0];
    order.fds[0] = pipe_ends[0]; // would never end
    assert_int_equal(place(&order, scratch->path, NULL), KILN_E_CORRUPT);
    order.fds[0] = scratch->fd;
    assert_int_equal(place(&order, scratch->path, NULL), KILN_E_CORRUPT);
    order.fds[0] = kept;
    assert_int_equal(count_entries(scratch->path, ""), 0);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    release_order(&order);
}

static void test_a_directory_in_the_way(void **state) {
    const struct scratch *scratch = *state;
    struct order order = {0};
    assert_int_equal(mkdirat(scratch->fd, "second", 0755), 0);
    add_file(&order, scratch_path(scratch, "first"), false, 10, 'x');
    add_file(&order, scratch_path(scratch, "second"), false, 10, 'x');
    assert_int_equal(place(&order, scratch->path, NULL), KILN_E_IO);
    assert_int_equal(count_entries(scratch->path, ".kiln-"), 0);
    assert_int_equal(content_size(scratch->fd, "first", 'x'), 10); // in place before, and whole
    release_order(&order);
}

// Runs `body` in a process of its own and returns its wait status.
static int in_child(int (*body)(const struct scratch *scratch), const struct scratch *scratch) {
    pid_t child = fork();
    if (child == 0)
        _exit(body(scratch));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static int place_two(const struct scratch *scratch, struct kiln_err *err) {
    struct order order = {0};
    add_file(&order, scratch_path(scratch, "one"), false, CONTENT_BYTES, 'n');
    add_file(&order, scratch_path(scratch, "two"), false, CONTENT_BYTES, 'n');
    return place(&order, scratch->path, err);
}

static int over_file_limit(const struct scratch *scratch) {
    const struct rlimit limit = {CONTENT_BYTES / 2, CONTENT_BYTES / 2};
    struct order order = {0};
    add_file(&order, scratch_path(scratch, "small"), false, 10, 'x');
    add_file(&order, scratch_path(scratch, "large"), false, CONTENT_BYTES, 'x');
    struct kiln_err err;
    if (setrlimit(RLIMIT_FSIZE, &limit) || place(&order, scratch->path, &err) != KILN_E_IO || err.sys_errno != EFBIG)
        return 1;
    struct sigaction action;
    return sigaction(SIGXFSZ, NULL, &action) || action.sa_handler != SIG_DFL ? 2 : 0;
}

static void test_file_size_limit(void **state) {
    const struct scratch *scratch = *state;
    assert_int_equal(in_child(over_file_limit, scratch), 0);
    assert_int_equal(count_entries(scratch->path, ""), 0);
}

// A file system of 64 KiB at SCRATCH. 77: this host does not let us mount one.
static int on_full_disk(const struct scratch *scratch) {
    if (!namespace_enter() || mount("none", scratch->path, "tmpfs", 0, "size=64k"))
        return 77;
    struct kiln_err err;
    if (place_two(scratch, &err) != KILN_E_IO || err.sys_errno != ENOSPC)
        return 1;
    return count_entries(scratch->path, "") ? 2 : 0;
}

static void test_full_disk(void **state) {
    int status = in_child(on_full_disk, *state);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(status, 0);
}

static int without_permission(const struct scratch *scratch) {
    if (geteuid() == 0 && setresuid(4711, 4711, 4711))
        return 77;
    return place_two(scratch, NULL) == KILN_E_IO ? 0 : 1;
}

static void test_read_only_directory(void **state) {
    const struct scratch *scratch = *state;
    assert_int_equal(fchmod(scratch->fd, 0555), 0);
    assert_int_equal(in_child(without_permission, scratch), 0);
    assert_int_equal(count_entries(scratch->path, ""), 0);
    assert_int_equal(fchmod(scratch->fd, 0700), 0);
}

// Without /proc, anonymous files cannot get a name: then temporary names are used from the beginning.
static bool hide_proc(void) { return namespace_enter() && mount("none", "/proc", "tmpfs", 0, NULL) == 0; }

struct interruption {
    int number;
    const char *old_content; // what has the names before; NULL: nothing
    bool without_proc;
};

static int traced_placing(const struct scratch *scratch, const struct interruption *how) {
    if (how->without_proc && !hide_proc())
        return 77;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
        return 77;
    raise(SIGSTOP);
    return place_two(scratch, NULL) ? 1 : 0;
}

// Runs the placing and sends the signal when it enters its n-th system call; returns the wait status of its end, or -1
// when it made fewer calls (it has ended normally then), -2 when it cannot be traced.
static int interrupt_at(const struct scratch *scratch, const struct interruption *how, unsigned nth) {
    pid_t child = fork();
    if (child == 0)
        _exit(traced_placing(scratch, how));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status))
        return -2;
    ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    bool sent = false;
    for (unsigned stops = 0;; stops++) {
        int deliver = WSTOPSIG(status) == SIGSTOP || WSTOPSIG(status) == (SIGTRAP | 0x80) ? 0 : WSTOPSIG(status);
        if (!sent && stops == 2 * nth) {
            kill(child, how->number);
            sent = true;
        }
        if (ptrace(PTRACE_SYSCALL, child, NULL, deliver) && errno != ESRCH)
            fail_msg("ptrace: %s", strerror(errno));
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSTOPPED(status))
            return sent ? status : -1;
    }
}

static void reset_targets(const struct scratch *scratch, const char *old_content) {
    assert_int_equal(kiln_fs_remove_tree(AT_FDCWD, scratch->path, NULL), 0);
    assert_int_equal(mkdir(scratch->path, 0700), 0);
    for (int i = 0; old_content && i < 2; i++) {
        kiln_autofd int fd = open(scratch_path(scratch, i ? "two" : "one"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        assert_int_equal(kiln_fs_write_all(fd, old_content, strlen(old_content), NULL), 0);
    }
}

static void check_whole_or_old(const struct scratch *scratch, const char *old_content, unsigned nth) {
    for (int i = 0; i < 2; i++) {
        const char *path = scratch_path(scratch, i ? "two" : "one");
        bool is_new = content_size(AT_FDCWD, path, 'n') == CONTENT_BYTES;
        bool is_old = old_content ? content_size(AT_FDCWD, path, 'o') == (long)strlen(old_content)
                                  : access(path, F_OK) != 0;
        if (!is_new && !is_old)
            fail_msg("call %u: %s is a part of a file", nth, path);
    }
}

// The signal at every single system call of the placing: each name stands for the old or the new file, and nothing
// temporary stays; the process ends by that signal.
static void interrupt_everywhere(const struct scratch *scratch, const struct interruption *how) {
    unsigned nth = 0;
    size_t leftovers = 0;
    for (int status = 0; status != -1; nth++) {
        reset_targets(scratch, how->old_content);
        status = interrupt_at(scratch, how, nth);
        if (status == -2)
            skip();
        if (status != -1)
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == how->number);
        check_whole_or_old(scratch, how->old_content, nth);
        leftovers += count_entries(scratch->path, ".kiln-");
        assert_true(nth < 500);
    }
    assert_true(nth > 20); // it was really interrupted at many places
    // Only a kill between the temporary name and the rename that replaces an old file can leave one, a whole one.
    assert_true(how->number == SIGKILL && how->old_content ? leftovers <= 8 : leftovers == 0);
}

static void test_terminated_at_every_call(void **state) {
    interrupt_everywhere(*state, &(struct interruption){.number = SIGTERM});
}

static void test_interrupted_over_old_files(void **state) {
    interrupt_everywhere(*state, &(struct interruption){.number = SIGINT, .old_content = "ooo"});
}

static void test_terminated_with_temporary_names(void **state) {
    interrupt_everywhere(*state, &(struct interruption){.number = SIGTERM, .without_proc = true});
    interrupt_everywhere(*state,
                         &(struct interruption){.number = SIGTERM, .old_content = "ooo", .without_proc = true});
}

static void test_hung_up_at_every_call(void **state) {
    interrupt_everywhere(*state, &(struct interruption){.number = SIGHUP});
}

static void test_killed_at_every_call(void **state) {
    interrupt_everywhere(*state, &(struct interruption){.number = SIGKILL});
}

static void test_killed_over_old_files(void **state) {
    interrupt_everywhere(*state, &(struct interruption){.number = SIGKILL, .old_content = "ooo"});
}

// A signal that is ignored (nohup) or was blocked by the caller does not stop the placing.
static int with_ignored_signals(const struct scratch *scratch) {
    signal(SIGHUP, SIG_IGN);
    sigset_t blocked, after;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    raise(SIGTERM);
    raise(SIGHUP);
    if (place_two(scratch, NULL))
        return 1;
    sigprocmask(SIG_BLOCK, NULL, &after);
    return sigismember(&after, SIGTERM) == 1 && sigismember(&after, SIGINT) == 0 ? 0 : 2;
}

static void test_ignored_signals(void **state) {
    const struct scratch *scratch = *state;
    assert_int_equal(in_child(with_ignored_signals, scratch), 0);
    assert_int_equal(content_size(scratch->fd, "two", 'n'), CONTENT_BYTES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(test_files_with_their_modes),
        scratch_test(test_what_is_in_the_way_is_replaced),
        scratch_test(test_places_outside_are_refused),
        scratch_test(test_one_bad_path_refuses_the_whole_order),
        scratch_test(test_descriptors_that_do_not_fit),
        scratch_test(test_a_directory_in_the_way),
        scratch_test(test_file_size_limit),
        scratch_test(test_full_disk),
        scratch_test(test_read_only_directory),
        scratch_test(test_terminated_at_every_call),
        scratch_test(test_interrupted_over_old_files),
        scratch_test(test_terminated_with_temporary_names),
        scratch_test(test_hung_up_at_every_call),
        scratch_test(test_killed_at_every_call),
        scratch_test(test_killed_over_old_files),
        scratch_test(test_ignored_signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
