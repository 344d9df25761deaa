#include "tests/unit/scratch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>

#include <signal.h>
#include <sys/wait.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/proc.h"

#define PATIENCE_MS 20000

static char *environment[] = {TEXT("PATH=/usr/bin:/bin"), TEXT("KILN_PROBE=yes"), NULL};

static struct kiln_proc_options shell(char **argv, const char *script) {
    argv[0] = TEXT("sh");
    argv[1] = TEXT("-c");
    argv[2] = (char *)script;
    argv[3] = NULL;
    return (struct kiln_proc_options){.program = "/bin/sh", .argv = argv, .envp = environment};
}

static void expect_output(const struct kiln_proc_options *options, const char *expected) {
    struct kiln_err err = {0};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 16), errout = KILN_BUF_INIT(1 << 16);
    int status = -1;
    assert_ok(kiln_proc_run(options, kiln_clock_ms() + PATIENCE_MS, &out, &errout, &status, &err));
    assert_string_equal(kiln_buf_text(&errout), "");
    assert_string_equal(kiln_buf_text(&out), expected);
    assert_int_equal(status, 0);
}

static void run_collects(void **state) {
    (void)state;
    struct kiln_err err = {0};
    char *argv[4];
    struct kiln_proc_options options = shell(argv, "cat; echo out; echo err >&2; exit 3");
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(100), errout = KILN_BUF_INIT(100);
    int status = -1;
    assert_ok(kiln_proc_run(&options, kiln_clock_ms() + PATIENCE_MS, &out, &errout, &status, &err));
    assert_string_equal(kiln_buf_text(&out), "out\n");
    assert_string_equal(kiln_buf_text(&errout), "err\n");
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

static void environment_cwd_and_session_are_given(void **state) {
    struct scratch *scratch = *state;
    char *argv[4];
    struct kiln_proc_options options =
        shell(argv, "pwd; echo $KILN_PROBE; set -- $(cat /proc/$$/stat); test $1 = $6 && echo leader");
    char expected[200];
    options.cwd = scratch->path;
    snprintf(expected, sizeof expected, "%s\nyes\n", scratch->path);
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1000), errout = KILN_BUF_INIT(1000);
    int status = 0;
    assert_int_equal(kiln_proc_run(&options, kiln_clock_ms() + PATIENCE_MS, &out, &errout, &status, NULL), 0);
    assert_string_equal(kiln_buf_text(&out), expected);
    options.new_session = true;
    snprintf(expected, sizeof expected, "%s\nyes\nleader\n", scratch->path);
    expect_output(&options, expected);
    char *env_argv[] = {TEXT("env"), NULL};
    struct kiln_proc_options env = {.program = "/usr/bin/env", .argv = env_argv, .envp = environment};
    expect_output(&env, "PATH=/usr/bin:/bin\nKILN_PROBE=yes\n");
}

static int open_named(struct scratch *scratch, const char *name, int number) {
    scratch_write(scratch, name, name, strlen(name));
    int fd = openat(scratch->fd, name, O_RDONLY);
    assert_int_equal(dup2(fd, number), number);
    close(fd);
    return number;
}

// Each child's number is the parent's number of another entry.
static void descriptors_change_places(void **state) {
    struct scratch *scratch = *state;
    char *argv[4];
    struct kiln_proc_options options =
        shell(argv, "cat /proc/self/fd/41 /proc/self/fd/42 /proc/self/fd/43 /proc/self/fd/44");
    struct kiln_proc_fd fds[] = {{open_named(scratch, "a", 41), 42},
                                 {open_named(scratch, "b", 42), 43},
                                 {open_named(scratch, "c", 43), 41},
                                 {43, 44}};
    options.fds = fds;
    options.fds_count = 4;
    expect_output(&options, "cabc");
    for (int fd = 41; fd <= 43; fd++)
        close(fd);
}

// Also the number that the report of a failed exec would have used, and one that keeps its number.
static void a_descriptor_keeps_its_number(void **state) {
    struct scratch *scratch = *state;
    char *argv[4];
    struct kiln_proc_options options = shell(argv, "cat /proc/self/fd/41");
    struct kiln_proc_fd same = {open_named(scratch, "same", 41), 41};
    options.fds = &same;
    options.fds_count = 1;
    expect_output(&options, "same");
    for (int number = 3; number < 16; number++) {
        char script[64];
        snprintf(script, sizeof script, "cat /proc/self/fd/%d", number);
        options = shell(argv, script);
        struct kiln_proc_fd moved = {41, number};
        options.fds = &moved;
        options.fds_count = 1;
        expect_output(&options, "same");
        options.program = "/nonexistent";
        pid_t pid = -1;
        assert_int_equal(kiln_proc_spawn(&options, &pid, NULL), KILN_E_NOTFOUND);
    }
    close(41);
}

static void other_descriptors_are_closed(void **state) {
    struct scratch *scratch = *state;
    struct kiln_err err = {0};
    int inherited = open_named(scratch, "leak", 50); // without close-on-exec
    char *argv[] = {TEXT("ls"), TEXT("/proc/self/fd"), NULL};
    struct kiln_proc_options options = {.program = "/bin/ls", .argv = argv, .envp = environment};
    expect_output(&options, "0\n1\n2\n3\n"); // 3 is the directory that ls lists

    int ends[2];
    assert_int_equal(pipe(ends), 0);
    struct kiln_proc_fd only_out = {ends[1], 1};
    options.fds = &only_out;
    options.fds_count = 1;
    pid_t pid;
    int status;
    assert_ok(kiln_proc_spawn(&options, &pid, &err));
    close(ends[1]);
    char text[64] = "";
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(sizeof text);
    assert_ok(kiln_fs_read_fd(ends[0], &out, &err));
    assert_string_equal(kiln_buf_text(&out), "0\n1\n"); // 0: the listing took the lowest free number
    assert_ok(kiln_proc_wait(pid, kiln_clock_ms() + PATIENCE_MS, &status, &err));
    close(ends[0]);
    close(inherited);
}

static void an_exec_that_fails_is_reported(void **state) {
    (void)state;
    struct kiln_err err = {0};
    char *argv[4];
    struct kiln_proc_options options = shell(argv, "true");
    pid_t pid = -7;
    options.program = "/nonexistent/program";
    assert_int_equal(kiln_proc_spawn(&options, &pid, &err), KILN_E_NOTFOUND);
    assert_non_null(strstr(err.text, "/nonexistent/program"));
    options.program = "/etc/passwd";
    assert_int_equal(kiln_proc_spawn(&options, &pid, &err), KILN_E_IO);
    assert_int_equal(err.sys_errno, EACCES);
    options.program = "/bin/sh";
    options.cwd = "/nonexistent";
    assert_int_equal(kiln_proc_spawn(&options, &pid, &err), KILN_E_NOTFOUND);
    options.cwd = NULL;
    struct kiln_proc_fd bad = {.parent = 999, .child = 5};
    options.fds = &bad;
    options.fds_count = 1;
    assert_int_equal(kiln_proc_spawn(&options, &pid, &err), KILN_E_IO);
    assert_int_equal(err.sys_errno, EBADF);
    assert_int_equal(pid, -7);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); // no zombie is left
    assert_int_equal(errno, ECHILD);
}

static void signals_are_at_their_defaults(void **state) {
    (void)state;
    char *argv[] = {TEXT("grep"), TEXT("-E"), TEXT("^Sig(Blk|Ign)"), TEXT("/proc/self/status"), NULL};
    struct kiln_proc_options options = {.program = "/bin/grep", .argv = argv, .envp = environment};
    sigset_t term, before;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigaddset(&term, SIGRTMIN);
    pthread_sigmask(SIG_BLOCK, &term, &before);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGRTMAX, SIG_IGN);
    expect_output(&options, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, &before, &now);
    assert_true(sigismember(&now, SIGTERM)); // the caller's own state stands
    assert_false(sigismember(&now, SIGUSR1));
    assert_ptr_equal(signal(SIGPIPE, SIG_DFL), SIG_IGN);
    signal(SIGRTMAX, SIG_DFL);
}

static void too_much_output_ends_the_child(void **state) {
    (void)state;
    struct kiln_err err = {0};
    char *argv[4];
    struct kiln_proc_options options = shell(argv, "while :; do echo 0123456789; done");
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(100000), errout = KILN_BUF_INIT(100);
    int status = 4711;
    assert_int_equal(kiln_proc_run(&options, kiln_clock_ms() + PATIENCE_MS, &out, &errout, &status, &err), KILN_E_LIMIT);
    assert_int_equal(status, 4711);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void a_passed_deadline_ends_the_child(void **state) {
    (void)state;
    char *argv[4];
    struct kiln_proc_options options = shell(argv, "exec sleep 100");
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(100), errout = KILN_BUF_INIT(100);
    uint64_t start = kiln_clock_ms();
    assert_int_equal(kiln_proc_run(&options, start + 100, &out, &errout, NULL, NULL), KILN_E_TIMEOUT);
    uint64_t took = kiln_clock_ms() - start;
    assert_in_range(took, 100, PATIENCE_MS);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void a_daemon_that_keeps_stdout_is_not_waited_for(void **state) {
    (void)state;
    struct kiln_err err = {0};
    char *argv[4];
    struct kiln_proc_options options = shell(argv, "sleep 100 & echo $!");
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(100), errout = KILN_BUF_INIT(100);
    int status = -1;
    uint64_t start = kiln_clock_ms();
    assert_ok(kiln_proc_run(&options, start + PATIENCE_MS, &out, &errout, &status, &err));
    assert_int_equal(status, 0);
    pid_t sleeper = (pid_t)atoi(kiln_buf_text(&out));
    assert_true(sleeper > 1);
    assert_int_equal(kill(sleeper, SIGKILL), 0);
}

static void output_written_at_the_end_is_whole(void **state) {
    (void)state;
    struct kiln_err err = {0};
    char *argv[4];
    struct kiln_proc_options options = shell(argv, "head -c 60000 /dev/zero; head -c 50000 /dev/zero >&2");
    for (int i = 0; i < 20; i++) {
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(60000), errout = KILN_BUF_INIT(50000);
        int status = -1;
        assert_ok(kiln_proc_run(&options, kiln_clock_ms() + PATIENCE_MS, &out, &errout, &status, &err));
        assert_int_equal(out.len, 60000);
        assert_int_equal(errout.len, 50000);
    }
}

static void wait_leaves_a_running_child(void **state) {
    (void)state;
    struct kiln_err err = {0};
    char *argv[4];
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    struct kiln_proc_options options = shell(argv, "read line; exit 5");
    struct kiln_proc_fd in = {ends[0], 0};
    options.fds = &in;
    options.fds_count = 1;
    pid_t pid = 0;
    int status = 4711;
    assert_ok(kiln_proc_spawn(&options, &pid, &err));
    close(ends[0]);
    assert_int_equal(kiln_proc_wait(pid, kiln_clock_ms() + 20, &status, &err), KILN_E_TIMEOUT);
    assert_int_equal(kiln_proc_wait(pid, 0, &status, &err), KILN_E_TIMEOUT);
    assert_int_equal(status, 4711);
    close(ends[1]);
    assert_ok(kiln_proc_wait(pid, kiln_clock_ms() + PATIENCE_MS, &status, &err));
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 5);
    assert_int_equal(kiln_proc_wait(pid, kiln_clock_ms() + 20, &status, &err), KILN_E_IO);
}

static void wait_until_closed(int fd) {
    struct pollfd watch = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&watch, 1, PATIENCE_MS), 1);
    char byte;
    assert_int_equal(read(fd, &byte, 1), 0);
}

// The middle process is killed: a child that dies with it closes its end of the pipe, another one does not.
static pid_t spawn_below_a_killed_parent(bool die_with_parent, int *life) {
    int ends[2], ready[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t middle = fork();
    if (middle == 0) {
        char *argv[] = {TEXT("sleep"), TEXT("100"), NULL};
        struct kiln_proc_fd kept = {ends[1], 3};
        struct kiln_proc_options options = {.program = "/bin/sleep", .argv = argv, .envp = environment, .fds = &kept,
                                            .fds_count = 1, .die_with_parent = die_with_parent};
        pid_t pid = -1;
        kiln_proc_spawn(&options, &pid, NULL);
        if (write(ready[1], &pid, sizeof pid) != sizeof pid)
            _exit(1);
        for (;;)
            pause();
    }
    close(ends[1]);
    close(ready[1]);
    pid_t sleeper = -1;
    assert_int_equal(read(ready[0], &sleeper, sizeof sleeper), sizeof sleeper);
    close(ready[0]);
    kill(middle, SIGKILL);
    assert_int_equal(waitpid(middle, NULL, 0), middle);
    *life = ends[0];
    return sleeper;
}

static void a_child_can_die_with_its_parent(void **state) {
    (void)state;
    int life;
    assert_true(spawn_below_a_killed_parent(true, &life) > 1);
    wait_until_closed(life);
    close(life);
    pid_t survivor = spawn_below_a_killed_parent(false, &life);
    assert_int_equal(kill(survivor, 0), 0);
    assert_int_equal(kill(survivor, SIGKILL), 0);
    wait_until_closed(life);
    close(life);
}

static void *spawn_many(void *argument) {
    long failures = 0;
    for (int i = 0; i < 60; i++) {
        char expected[64], script[96];
        snprintf(expected, sizeof expected, "%ld-%d\n", (long)(intptr_t)argument, i);
        snprintf(script, sizeof script, "echo %ld-%d", (long)(intptr_t)argument, i);
        char *argv[4];
        struct kiln_proc_options options = shell(argv, script);
        options.die_with_parent = true;
        options.program = i % 7 == 3 ? "/nonexistent" : "/bin/sh";
        kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(100), errout = KILN_BUF_INIT(100);
        int status = -1;
        int rc = kiln_proc_run(&options, kiln_clock_ms() + PATIENCE_MS, &out, &errout, &status, NULL);
        if (i % 7 == 3)
            failures += rc != KILN_E_NOTFOUND;
        else
            failures += rc || status || strcmp(kiln_buf_text(&out), expected) != 0;
    }
    return (void *)(intptr_t)failures;
}

static void threads_spawn_at_once(void **state) {
    (void)state;
    pthread_t threads[6];
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, spawn_many, (void *)(intptr_t)i), 0);
    for (size_t i = 0; i < 6; i++) {
        void *failures;
        assert_int_equal(pthread_join(threads[i], &failures), 0);
        assert_null(failures);
    }
}

static void deadlines_are_cut_for_poll(void **state) {
    (void)state;
    assert_int_equal(kiln_clock_left_ms(0), 0);
    assert_int_equal(kiln_clock_left_ms(UINT64_MAX), INT32_MAX);
    int left = kiln_clock_left_ms(kiln_clock_ms() + 5000);
    assert_in_range(left, 1, 5000);
    assert_true(kiln_clock_wall_ms() > 1700000000000u);
    uint64_t us = kiln_clock_us();
    assert_true(kiln_clock_us() >= us);
    assert_true(us / 1000 - kiln_clock_ms() + 1000 < 2000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_collects),
        scratch_test(environment_cwd_and_session_are_given),
        scratch_test(descriptors_change_places),
        scratch_test(a_descriptor_keeps_its_number),
        scratch_test(other_descriptors_are_closed),
        cmocka_unit_test(an_exec_that_fails_is_reported),
        cmocka_unit_test(signals_are_at_their_defaults),
        cmocka_unit_test(too_much_output_ends_the_child),
        cmocka_unit_test(a_passed_deadline_ends_the_child),
        cmocka_unit_test(a_daemon_that_keeps_stdout_is_not_waited_for),
        cmocka_unit_test(output_written_at_the_end_is_whole),
        cmocka_unit_test(wait_leaves_a_running_child),
        cmocka_unit_test(a_child_can_die_with_its_parent),
        cmocka_unit_test(threads_spawn_at_once),
        cmocka_unit_test(deadlines_are_cut_for_poll),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
