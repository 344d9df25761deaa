// The second observer: what it records of system calls that a job makes by itself, and that a watched job gets the same answers.
#include "tests/integration/sandbox_rig.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "consumer/run/watch.h"
#include "consumer/run/witness.h"
#include "tests/integration/observer_rig.h"

#define WATCHED rig_program("tests/watched_calls")
#define WATCHED_STATIC rig_program("tests/watched_calls_static")

// '@' is the job's directory.
static const struct {
    const char *program, *group, *seen;
} table[] = {
    {"/watched", "paths",
     "open 0 /usr/bin/env\nopen 2 @/absent\nlist 0 /usr\nopen 0 /usr/lib\nstat 2 /etc/passwd\nstat 0 /lib\n"
     "syscall 0 21\nwrite 2 /tmp/made\nwrite 0 /tmp/made\n"},
    {"/watched", "names", "clock 0 clock_gettime\nidentity 0 uname\nidentity 0 getpid\nsyscall 0 135\n"},
    {"/watched", "refused", "net 0 socket\nnet 0 connect\nstat 0 /usr\nopen 0 /usr/lib\n"},
    {"/watched", "libc", ""}, // the preloaded observer sees it
    {"/watched", "memory", "open 2 /etc/from-memory\n"},
    {"/watched", "child", "exec 0 /watched-static\n...open 2 /etc/libc\nstat 2 /etc/libc2\nidentity 0 uname\n"},
    {"/watched-static", "libc", "...open 2 /etc/libc\nstat 2 /etc/libc2\nidentity 0 uname\n"},
};

static void prepare(struct rig *rig, const char *program, const char *group) {
    rig_init(rig);
    rig_bind(rig, WATCHED, "/watched");
    rig_bind(rig, WATCHED_STATIC, "/watched-static");
    rig_command(rig, program, group, NULL);
}

static void run_watched(struct rig *rig, const char *program, const char *group, struct kiln_buf *log) {
    kiln_autofd int memfd = memfd_create("watch", MFD_CLOEXEC);
    prepare(rig, program, group);
    rig->spec.watch_fd = (uint32_t)memfd;
    rig_go(rig);
    rig_assert_end(rig, KILN_END_EXIT, 0);
    rig_read_text(memfd, log);
}

// The macro's lines of a log; '@' for the job's directory.
static void print_seen(const struct rig *rig, const struct kiln_buf *log, struct kiln_buf *seen) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(8 << 20);
    rig_print_log(log, &text);
    char *rest = (char *)kiln_buf_text(&text);
    assert_int_equal(strncmp(rest, "tool open 0 \n", 13), 0);
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *at = strstr(line, rig->spec.cwd);
        if (strncmp(line, "macro ", 6))
            continue;
        if (at)
            kiln_buf_addf(seen, "%.*s@%s\n", (int)(at - line - 6), line + 6, at + strlen(rig->spec.cwd));
        else
            kiln_buf_addf(seen, "%s\n", line + 6);
    }
}

// "A...B": begins with A and ends with B.
static bool is_as_wanted(const char *seen, const char *want) {
    const char *gap = strstr(want, "...");
    if (!gap)
        return !strcmp(seen, want);
    size_t tail = strlen(gap + 3), len = strlen(seen);
    return !strncmp(seen, want, (size_t)(gap - want)) && len >= tail && !strcmp(seen + len - tail, gap + 3);
}

static void sees_what_a_job_does_by_itself(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        kiln_autobuf struct kiln_buf log = KILN_BUF_INIT(8 << 20), seen = KILN_BUF_INIT(8 << 20);
        rig_auto struct rig rig;
        run_watched(&rig, table[i].program, table[i].group, &log);
        print_seen(&rig, &log, &seen);
        if (!is_as_wanted(kiln_buf_text(&seen), table[i].seen))
            fail_msg("%s %s:\n%s", table[i].program, table[i].group, kiln_buf_text(&seen));
    }
}

static void answers_as_if_nobody_watched(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        kiln_autobuf struct kiln_buf log = KILN_BUF_INIT(8 << 20);
        rig_auto struct rig watched, alone;
        run_watched(&watched, table[i].program, table[i].group, &log);
        prepare(&alone, table[i].program, table[i].group);
        rig_go(&alone);
        rig_assert_end(&alone, KILN_END_EXIT, 0);
        assert_string_equal(kiln_buf_text(&watched.out), kiln_buf_text(&alone.out));
    }
}

static void says_when_it_was_too_much(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf log = KILN_BUF_INIT(16 << 20);
    rig_auto struct rig rig;
    run_watched(&rig, "/watched", "many", &log);
    const struct kiln_witness_world world = {.out_dir = "/o", .tmp_dir = "/t", .observer_dir = "/b", .cwd = "/c"};
    struct kiln_witness_report report;
    struct kiln_err err = {0};
    assert_ok(kiln_witness_read(log.data, log.len, &world, &report, &err));
    bool overflow = false;
    for (size_t i = 0; i < report.count; i++)
        overflow |= !strcmp(report.observations[i], "observer_overflow");
    assert_true(overflow);
    kiln_witness_report_release(&report);
}

// A job that asks without end must not keep kiln-run from ending it.
static void ends_a_job_that_only_asks(void **state) {
    (void)state;
    kiln_autofd int memfd = memfd_create("watch", MFD_CLOEXEC);
    rig_auto struct rig rig;
    prepare(&rig, "/watched", "endless");
    rig.spec.watch_fd = (uint32_t)memfd;
    rig.spec.wall_ms = 500;
    rig_go(&rig);
    rig_assert_end(&rig, KILN_END_WALL, 0);
    assert_in_range(rig.report.wall_ms, 500, 5000);
}

// Somebody outside watches already: the kernel has room for one.
static void refuses_where_it_cannot_watch(void **state) {
    (void)state;
    if (!RIG_LEAKS)
        skip(); // who watches this process does not watch containers
    pid_t pid = fork();
    if (pid == 0) {
        const struct sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        const struct sock_fprog filter = {.len = 1, .filter = (struct sock_filter *)all};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
            syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter) < 0)
            _exit(2);
        struct rig rig;
        prepare(&rig, "/watched", "names");
        rig.spec.watch_fd = (uint32_t)memfd_create("watch", MFD_CLOEXEC);
        int rc = rig_start(&rig);
        bool named = rc && !strncmp(rig.err.text, KILN_WATCH_UNAVAILABLE ": ", sizeof KILN_WATCH_UNAVAILABLE + 1);
        if (!named)
            fprintf(stderr, "%d: %s\n", rc, rig.err.text);
        rig_release(&rig);
        _exit(named ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static int watch_tests(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sees_what_a_job_does_by_itself), cmocka_unit_test(answers_as_if_nobody_watched),
        cmocka_unit_test(says_when_it_was_too_much),      cmocka_unit_test(ends_a_job_that_only_asks),
        cmocka_unit_test(refuses_where_it_cannot_watch),
    };
    return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}

int main(void) { return rig_both(watch_tests); }
