// Jobs that try to get out, to use up the host, or to outlive their run; and what is left on the host afterwards.
// As root and as an ordinary user: the walls are raised differently.
#include "tests/integration/sandbox_rig.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <glob.h>
#include <limits.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#include "consumer/run/cgroup.h"
#include "consumer/run/root.h"

static char marker[40]; // an argument of every job of this process

static void pause_briefly(void) { nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); }

// A child of the test that is there to be killed, at the latest with the test itself.
static __attribute__((noreturn)) void wait_for_death(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;)
        pause();
}

// Processes of the host that have the marker among their arguments: the job's, and bwrap's while it carries them.
static int marked_processes(void) {
    int count = 0;
    DIR *proc = opendir("/proc");
    assert_non_null(proc);
    for (struct dirent *entry; (entry = readdir(proc));) {
        char path[300], line[4096];
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t len = fd < 0 ? 0 : read(fd, line, sizeof line);
        if (fd >= 0)
            close(fd);
        count += len > 0 && memmem(line, (size_t)len, marker, strlen(marker)) != NULL;
    }
    closedir(proc);
    return count;
}

// Control groups of kiln-run in all hierarchies, at any depth that occurs.
static glob_t list_groups(void) {
    static const char *const patterns[] = {"/sys/fs/cgroup/kiln-[0-9]*",       "/sys/fs/cgroup/*/kiln-[0-9]*",
                                           "/sys/fs/cgroup/*/*/kiln-[0-9]*",   "/sys/fs/cgroup/*/*/*/kiln-[0-9]*",
                                           "/sys/fs/cgroup/*/*/*/*/kiln-[0-9]*"};
    glob_t found = {0};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        glob(patterns[i], GLOB_NOSORT | (i ? GLOB_APPEND : 0), NULL, &found);
    return found;
}

static bool is_new(const glob_t *before, const char *path) {
    for (size_t i = 0; i < before->gl_pathc; i++)
        if (!strcmp(before->gl_pathv[i], path))
            return false;
    return true;
}

// Waits until no group is left that nobody holds and that was not there before; other jobs may run on this host.
static void assert_no_new_group(glob_t *before) {
    for (uint64_t deadline_ms = kiln_clock_ms() + 10000;;) {
        glob_t now = list_groups();
        char left[PATH_MAX] = "";
        for (size_t i = 0; i < now.gl_pathc; i++) {
            kiln_autofd int dir = open(now.gl_pathv[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (is_new(before, now.gl_pathv[i]) && dir >= 0 && flock(dir, LOCK_SH | LOCK_NB) == 0)
                snprintf(left, sizeof left, "%s", now.gl_pathv[i]);
        }
        globfree(&now);
        if (!*left)
            break;
        if (kiln_clock_left_ms(deadline_ms) == 0)
            fail_msg("%s is left", left);
        pause_briefly();
    }
    globfree(before);
}

static void assert_nothing_runs(void) {
    if (marked_processes())
        fail_msg("%d processes of the job are left", marked_processes());
}

// What stands behind the filter of system calls is tried without it (leaky_bwrap.c): each wall must hold alone.
static void expect_behind_filter(const char *job, const char *argument, const char *filtered, const char *behind) {
    rig_expect(job, argument, filtered);
    if (!RIG_LEAKS)
        return;
    rig_auto struct rig rig;
    rig_init(&rig);
    rig.without = "--seccomp";
    rig_run(&rig, job, argument, NULL);
    rig_assert_end(&rig, KILN_END_EXIT, 0);
    rig_assert_out(&rig, behind);
}

static void has_no_network(void **state) {
    (void)state;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    char port[16];
    snprintf(port, sizeof port, "%u", ntohs(address.sin_port));
    const char *const targets[][2] = {{"127.0.0.1", port}, {"1.1.1.1", "80"}, {"10.0.2.2", "53"}};
    for (size_t i = 0; i < 3; i++) {
        rig_auto struct rig rig;
        rig_init(&rig);
        rig.without = RIG_LEAKS ? "--seccomp" : NULL;
        rig_run(&rig, "connect", targets[i][0], targets[i][1], NULL);
        rig_assert_end(&rig, KILN_END_EXIT, 0);
        rig_assert_out(&rig, !RIG_LEAKS ? "EACCES\n" : i ? "ENETUNREACH\n" : "ECONNREFUSED\n");
    }
    close(listener);
}

static void reaches_no_abstract_socket(void **state) {
    (void)state;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int name_len = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "kiln-attack-%d", getpid());
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)name_len);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    expect_behind_filter("abstract", address.sun_path + 1, "EACCES\n", "ECONNREFUSED\n");
    close(listener);
}

static void gets_no_privilege(void **state) {
    (void)state;
    expect_behind_filter("climb", "/tmp", "EPERM\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM\n",
                         "ENOSPC\nEPERM\nEPERM\nEPERM\n" // user namespaces are used up, the others need a capability
                         "EPERM\nEPERM\nEPERM\nEPERM\nEINVAL\nEPERM\nEPERM\nEROFS\n"); // EINVAL: uid 0 does not exist
}

static void finds_no_keys_of_the_starter(void **state) {
    (void)state;
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0)
        skip(); // a kernel, or a container, without keys
    long key = syscall(SYS_add_key, "user", "kiln-attack-key", "secret", 6, KEY_SPEC_SESSION_KEYRING);
    assert_true(key > 0);
    assert_true(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", "kiln-attack-key", 0) == key);
    expect_behind_filter("find-key", "kiln-attack-key", "EPERM\n", "ENOKEY\n");
}

// The init of the job's pid namespace is the same user's process and may be stopped; that helps the job to nothing.
static void stopping_init_gains_nothing(void **state) {
    (void)state;
    if (!RIG_LEAKS) { // kiln-init cannot be traced, with or without the filter
        rig_expect("trace-init", NULL, "EPERM\nEACCES\n");
        return;
    }
    rig_auto struct rig rig;
    rig_init(&rig);
    rig.without = "--seccomp"; // with it the job is not let near
    rig.spec.wall_ms = 500;
    rig_run(&rig, "trace-init", marker, NULL);
    rig_assert_end(&rig, KILN_END_WALL, 0);
    assert_nothing_runs();
}

static void leaves_no_segment(void **state) {
    (void)state;
    expect_behind_filter("segment", "0x6b696c6e", "ENOSYS\n", "ok\n");
    expect_behind_filter("segment", "0x6b696c6e", "ENOSYS\n", "ok\n");
}

static void fork_bomb_is_bounded(void **state) {
    (void)state;
    rig_auto struct rig rig;
    rig_init(&rig);
    rig.spec.wall_ms = 1500;
    rig_run(&rig, "fork-bomb", marker, NULL);
    rig_assert_end(&rig, KILN_END_WALL, 0);
    assert_nothing_runs();
    long forks = strtol(kiln_buf_text(&rig.out), NULL, 10);
    assert_in_range(forks, rig.spec.processes / 2, rig.spec.processes);
}

// The allowance is the job's own: other processes of the same user on the host do not use it up.
static void other_processes_do_not_count(void **state) {
    (void)state;
    pid_t others[100];
    for (size_t i = 0; i < 100; i++) {
        others[i] = fork();
        assert_true(others[i] >= 0);
        if (others[i] == 0)
            wait_for_death();
    }
    rig_auto struct rig rig;
    rig_init(&rig);
    rig.spec.processes = 8;
    rig_run(&rig, "run", "/job", "hello", NULL);
    for (size_t i = 0; i < 100; i++) {
        kill(others[i], SIGKILL);
        waitpid(others[i], NULL, 0);
    }
    rig_assert_end(&rig, KILN_END_EXIT, 0);
    rig_assert_out(&rig, "hello\n");
}

// A starter that runs in real time gives its jobs nothing of that.
static void is_scheduled_as_others(void **state) {
    (void)state;
    if (sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1}) < 0) {
        assert_int_not_equal(geteuid(), 0);
        skip();
    }
    rig_auto struct rig rig;
    rig_init(&rig);
    rig_command(&rig, "/job", "scheduling", NULL);
    int rc = rig_start(&rig);
    assert_int_equal(sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0}), 0);
    if (rc)
        fail_msg("refused: %s", rig.err.text);
    rig_finish(&rig);
    rig_assert_out(&rig, "0\n");
}

static void memory_bomb_is_bounded(void **state) {
    (void)state;
    rig_auto struct rig rig;
    rig_init(&rig);
    rig_run(&rig, "memory-bomb", marker, NULL);
    if (rig.report.end == KILN_END_MEMORY) {
        assert_in_range(rig.report.peak_bytes, 200u << 20, 257u << 20);
    } else { // no control group to be had: the allocation is refused
        rig_assert_end(&rig, KILN_END_EXIT, 0);
        rig_assert_out(&rig, "ENOMEM\n");
        assert_int_not_equal(geteuid(), 0);
    }
    assert_nothing_runs();
}

static void flood_is_cut(void **state) {
    (void)state;
    for (int fd = 1; fd <= 2; fd++) {
        rig_auto struct rig rig;
        rig_init(&rig);
        rig.spec.text_bytes = 300001;
        rig_run(&rig, "flood", fd == 1 ? "1" : "2", marker, NULL);
        rig_assert_end(&rig, KILN_END_TEXT, 0);
        assert_int_equal(fd == 1 ? rig.out.len : rig.errout.len, 300001);
        assert_non_null(strstr(rig.report.text, fd == 1 ? "stdout" : "stderr"));
        assert_nothing_runs();
    }
}

static void endless_loop_is_killed(void **state) {
    (void)state;
    rig_auto struct rig rig;
    rig_init(&rig);
    rig.spec.wall_ms = 300;
    rig_run(&rig, "spin", marker, NULL);
    rig_assert_end(&rig, KILN_END_WALL, 0);
    assert_in_range(rig.report.wall_ms, 300, 3000);
    assert_nothing_runs();
}

static void daemon_is_dead_before_the_report(void **state) {
    (void)state;
    for (int round = 0; round < RIG_ROUNDS(10); round++) {
        rig_auto struct rig rig;
        rig_init(&rig);
        kiln_autofree char *file = kiln_path_join(rig.spec.out_dir, "appended");
        rig_run(&rig, "daemon", file, marker, NULL);
        assert_nothing_runs();
        rig_assert_end(&rig, KILN_END_EXIT, 0);
        struct stat before, after;
        if (fstatat(rig.session.out_dir, "appended", &before, 0))
            continue; // killed before it opened the file
        pause_briefly();
        assert_int_equal(fstatat(rig.session.out_dir, "appended", &after, 0), 0);
        assert_int_equal(before.st_size, after.st_size);
    }
}

static void kill_marked(void) {
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; (entry = readdir(proc));) {
        char path[300];
        kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(1u << 16);
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && kiln_fs_read_file(AT_FDCWD, path, &line, NULL) == 0 &&
            memmem(line.data, line.len, marker, strlen(marker)))
            kill((pid_t)strtol(entry->d_name, NULL, 10), SIGKILL);
    }
    closedir(proc);
}

// It is the namespace of processes that ends them all: without it the daemon goes on writing after the report.
static void daemon_lives_without_its_namespace(void **state) {
    (void)state;
    if (!RIG_LEAKS)
        skip();
    rig_auto struct rig rig;
    rig_init(&rig);
    rig.without = "pid-namespace,--unshare-pid,--die-with-parent,--proc";
    kiln_autofree char *file = kiln_path_join(rig.spec.out_dir, "appended");
    rig_run(&rig, "daemon", file, marker, NULL);
    bool alive = marked_processes() > 0, grew = false;
    struct stat first, now;
    uint64_t deadline_ms = kiln_clock_ms() + 10000;
    while (alive && fstatat(rig.session.out_dir, "appended", &first, 0) && kiln_clock_left_ms(deadline_ms))
        pause_briefly();
    while (alive && !grew && kiln_clock_left_ms(deadline_ms))
        grew = fstatat(rig.session.out_dir, "appended", &now, 0) == 0 && now.st_size != first.st_size;
    kill_marked();
    assert_true(alive);
    assert_true(grew);
    while (marked_processes() && kiln_clock_left_ms(deadline_ms))
        kill_marked();
    assert_nothing_runs();
}

static void disk_is_bounded(void **state) {
    (void)state;
    struct rig probe;
    rig_init(&probe);
    const char *const dirs[] = {probe.spec.out_dir, probe.spec.tmp_dir};
    for (size_t i = 0; i < 2; i++) {
        rig_auto struct rig rig;
        rig_init(&rig);
        kiln_autofree char *file = kiln_path_join(dirs[i], "big");
        rig_run(&rig, "fill", file, NULL);
        rig_assert_out(&rig, "ENOSPC 16777216\n");
        kiln_autofree char *text = NULL;
        assert_true(asprintf(&text, "ENOSPC %llu\n", (unsigned long long)rig.spec.inodes - 1) > 0);
        rig_expect("fill-inodes", dirs[i], text);
    }
    rig_release(&probe);
    rig_auto struct rig rig;
    rig_init(&rig);
    rig_run(&rig, "sparse", "/tmp/sparse", NULL);
    rig_assert_end(&rig, KILN_END_SPACE, 0);
}

static void killing_everything_kills_the_job_only(void **state) {
    (void)state;
    rig_auto struct rig rig;
    rig_init(&rig);
    rig_run(&rig, "kill-all", NULL);
    assert_true(rig.report.end == KILN_END_EXIT || rig.report.end == KILN_END_SIGNAL);
}

static bool gone_by(uint64_t deadline_ms) {
    while (marked_processes())
        if (kiln_clock_left_ms(deadline_ms) == 0)
            return false;
        else
            pause_briefly();
    return true;
}

static bool runs_by(uint64_t deadline_ms) {
    while (marked_processes() < (RIG_LEAKS ? 3 : 1)) // bwrap twice and the job
        if (kiln_clock_left_ms(deadline_ms) == 0)
            return false;
        else
            pause_briefly();
    return true;
}

static void start_spinning(struct rig *rig) {
    rig_init(rig);
    rig_command(rig, "/job", "spin", marker, NULL);
    if (rig_start(rig))
        fail_msg("refused: %s", rig->err.text);
    assert_true(runs_by(kiln_clock_ms() + 10000));
}

// The cgroup file of a process of the job.
static void read_groups(struct kiln_buf *text) {
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; text->len == 0 && (entry = readdir(proc));) {
        char path[300];
        kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(1u << 16);
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || kiln_fs_read_file(AT_FDCWD, path, &line, NULL))
            continue;
        if (line.len < 5 || strcmp((const char *)line.data, "/job"))
            continue;
        snprintf(path, sizeof path, "/proc/%s/cgroup", entry->d_name);
        if (memmem(line.data, line.len, marker, strlen(marker)))
            kiln_fs_read_file(AT_FDCWD, path, text, NULL);
    }
    closedir(proc);
}

static void runs_in_groups_of_its_own(void **state) {
    (void)state;
#ifdef RIG_DOCKER
    skip(); // Docker's; kiln-run-docker refuses to start a job without
#endif
    struct kiln_cgroup possible;
    assert_int_equal(kiln_cgroup_open(&possible, 1u << 20, 10, NULL), 0);
    const char *const controllers[] = {possible.memory ? "memory" : NULL, possible.processes ? "pids" : NULL, possible.cpu ? "cpu" : NULL};
    bool v2 = possible.v2;
    kiln_cgroup_release(&possible);
    struct rig rig;
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1u << 16);
    start_spinning(&rig);
    for (uint64_t deadline_ms = kiln_clock_ms() + 5000; text.len == 0 && kiln_clock_left_ms(deadline_ms);)
        read_groups(&text);
    for (size_t i = 0; i < 3; i++) {
        char *line = strdup(kiln_buf_text(&text)), *rest = line, *found = NULL;
        for (char *at; controllers[i] && (at = strsep(&rest, "\n"));)
            if (v2 ? !strncmp(at, "0::", 3) : strstr(at, controllers[i]) && !strstr(at, "cpuset"))
                found = strstr(at, "/kiln-") ? at : found;
        if (controllers[i] && !found)
            fail_msg("the job is in no group of %s: %s", controllers[i], kiln_buf_text(&text));
        free(line);
    }
    rig_release(&rig);
}

static void dies_with_kiln_run(void **state) {
    (void)state;
    glob_t groups = list_groups();
    for (int round = 0; round < RIG_ROUNDS(5); round++) {
        rig_auto struct rig rig;
        start_spinning(&rig);
        kill(rig.session.pid, SIGKILL);
        assert_true(gone_by(kiln_clock_ms() + 5000));
        struct kiln_err err;
        assert_int_equal(kiln_run_wait(&rig.session, kiln_clock_ms() + 5000, &rig.report, &err), KILN_E_CLOSED);
    }
    rig_expect("hello", NULL, "hello\n"); // removes the control groups, or containers, that the killed ones left
    assert_no_new_group(&groups);
    rig_assert_swept();
}

// The kiln-run that `starter` started; -1 while there is none.
static pid_t child_of(pid_t starter) {
    char path[80];
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(4096);
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", starter, starter);
    if (kiln_fs_read_file(AT_FDCWD, path, &text, NULL) || text.len == 0)
        return -1;
    return (pid_t)strtol(kiln_buf_text(&text), NULL, 10);
}

// Starts a job and kills the starter, or kiln-run itself, so many microseconds later.
static void kill_early(long delay_us, bool run_itself) {
    rig_auto struct rig rig;
    rig_init(&rig);
    rig_command(&rig, "/job", "spin", marker, NULL);
    pid_t starter = fork();
    if (starter == 0) {
        rig_start(&rig);
        wait_for_death();
    }
    pid_t victim = starter;
    for (uint64_t deadline_ms = kiln_clock_ms() + 5000; run_itself && (victim = child_of(starter)) < 0;)
        if (kiln_clock_left_ms(deadline_ms) == 0)
            fail_msg("kiln-run was not started");
    nanosleep(&(struct timespec){.tv_nsec = delay_us * 1000}, NULL);
    kill(victim, SIGKILL);
    bool gone = run_itself ? gone_by(kiln_clock_ms() + 5000) : true;
    kill(starter, SIGKILL);
    waitpid(starter, NULL, 0);
    if (!gone || !gone_by(kiln_clock_ms() + 5000))
        fail_msg("%s killed after %ld us: the job lives", run_itself ? "kiln-run" : "starter", delay_us);
}

static void dies_while_the_walls_rise(void **state) {
    (void)state;
    const long end_us = RIG_LEAKS ? 6000 : 300000, step_us = RIG_LEAKS ? 150 : 61000; // what a start takes
    for (long delay_us = 0; delay_us < end_us; delay_us += step_us) {
        kill_early(delay_us, false);
        kill_early(delay_us, true);
    }
    rig_assert_swept();
}

static void dies_with_the_starter(void **state) {
    (void)state;
    rig_auto struct rig rig;
    rig_init(&rig);
    pid_t starter = fork();
    if (starter == 0) {
        rig_command(&rig, "/job", "spin", marker, NULL);
        if (rig_start(&rig))
            _exit(1);
        wait_for_death();
    }
    assert_true(runs_by(kiln_clock_ms() + 10000));
    kill(starter, SIGKILL);
    waitpid(starter, NULL, 0);
    assert_true(gone_by(kiln_clock_ms() + 5000));
}

static void is_ended_by_releasing_the_session(void **state) {
    (void)state;
    struct rig rig;
    start_spinning(&rig);
    rig_release(&rig);
    assert_nothing_runs();
}

static void read_mounts(struct kiln_buf *text) {
    assert_int_equal(kiln_fs_read_file(AT_FDCWD, "/proc/self/mountinfo", text, NULL), 0);
}

// Mounts that were not there before, where kiln-run makes its own; other programs of this host mount elsewhere meanwhile.
static void assert_no_new_mount(struct kiln_buf *before, struct kiln_buf *after) {
    char *rest = (char *)kiln_buf_text(after);
    for (char *line; (line = strsep(&rest, "\n"));) {
        char point[1024] = "";
        sscanf(line, "%*s %*s %*s %*s %1023s", point);
        const char *below = kiln_path_beneath(point, KILN_ROOT_PLACE);
        if (below && strncmp(below, "kiln-", 5) && !strstr(kiln_buf_text(before), line))
            fail_msg("a mount is left: %s", line);
    }
}

static void leaves_nothing_on_the_host(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf before = KILN_BUF_INIT(1u << 20), after = KILN_BUF_INIT(1u << 20);
    glob_t groups = list_groups();
    read_mounts(&before);
    rig_expect("hello", NULL, "hello\n");
    rig_auto struct rig refused;
    rig_init(&refused);
    rig_command(&refused, "/job", "hello", NULL);
    refused.spec.tmp_dir = (char *)"/usr/absent"; // found out after the control group was made
    assert_int_equal(rig_start(&refused), KILN_E_DENIED);
    assert_no_new_group(&groups);
    rig_assert_swept();
    read_mounts(&after);
    assert_no_new_mount(&before, &after);
    assert_nothing_runs();
}

static int tests(void) {
    snprintf(marker, sizeof marker, "kiln-attack-%d", getpid());
    const struct CMUnitTest all[] = {
        cmocka_unit_test(has_no_network),
        cmocka_unit_test(reaches_no_abstract_socket),
        cmocka_unit_test(gets_no_privilege),
        cmocka_unit_test(finds_no_keys_of_the_starter),
        cmocka_unit_test(stopping_init_gains_nothing),
        cmocka_unit_test(leaves_no_segment),
        cmocka_unit_test(fork_bomb_is_bounded),
        cmocka_unit_test(other_processes_do_not_count),
        cmocka_unit_test(is_scheduled_as_others),
        cmocka_unit_test(memory_bomb_is_bounded),
        cmocka_unit_test(flood_is_cut),
        cmocka_unit_test(endless_loop_is_killed),
        cmocka_unit_test(daemon_is_dead_before_the_report),
        cmocka_unit_test(daemon_lives_without_its_namespace),
        cmocka_unit_test(disk_is_bounded),
        cmocka_unit_test(killing_everything_kills_the_job_only),
        cmocka_unit_test(runs_in_groups_of_its_own),
        cmocka_unit_test(dies_with_kiln_run),
        cmocka_unit_test(dies_while_the_walls_rise),
        cmocka_unit_test(dies_with_the_starter),
        cmocka_unit_test(is_ended_by_releasing_the_session),
        cmocka_unit_test(leaves_nothing_on_the_host),
    };
    return cmocka_run_group_tests_name("sandbox attacks", all, NULL, NULL);
}

int main(void) { return rig_both(tests); }
