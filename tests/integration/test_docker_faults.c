// What kiln-run-docker does when Docker does not do as it is told, and when dockerd, a container or a starter goes away.
#define RIG_DOCKER
#define RIG_DOCKER_USER_ONLY true
#include "tests/integration/sandbox_rig.h"

#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <time.h>

static char marker[40]; // an argument of this process's jobs

static void refuse(const char *without, const char *text) {
    rig_auto struct rig rig;
    rig_init(&rig);
    rig.without = without;
    rig_command(&rig, "/job", "hello", NULL);
    int rc = rig_start(&rig);
    if (rc != KILN_E_DENIED || !strstr(rig.err.text, text))
        fail_msg("%s: %d, \"%s\", expected \"%s\"", without, rc, rig.err.text, text);
}

static void notices_each_wall_that_docker_did_not_raise(void **state) {
    (void)state;
    static const char *const walls[][2] = {
        {"HostConfig.CapDrop=[]", "capabilities"},
        {"HostConfig.SecurityOpt=[\"label=disable\"]", "gain privileges"},
        {"HostConfig.ReadonlyRootfs=false", "the root is writable"},
        {"HostConfig.NetworkMode=\"host\";NetworkDisabled=false", "namespace \"net\""},
        {"HostConfig.CgroupnsMode=\"host\"", "namespace \"cgroup\""},
        {"HostConfig.UTSMode=\"host\";Hostname=\"\"", "namespace \"uts\""},
        {"HostConfig.PidMode=\"host\"", "processes of the host"},
        {"User=\"1:1\"", "another user"},
        {"HostConfig.GroupAdd=[\"0\"]", "other groups"},
        {"HostConfig.MaskedPaths=[]", "/sys shows"},
        {"HostConfig.Mounts.7.ReadOnly=false", "mounted /job writable"},
        {"HostConfig.Mounts.7.Source=\"/usr/bin/env\"", "something else at /job"},
        {"HostConfig.Mounts.2.Source=\"/etc/hostname\"", "something else at /etc/hostname"},
        {"HostConfig.Tmpfs./tmp=\"size=64m\"", "/tmp without its bounds"},
        {"HostConfig.Tmpfs./tmp=\"exec\"", "/tmp without its bounds"},
        {"HostConfig.Memory=0;HostConfig.MemorySwap=0", "bound the job's memory"},
        {"HostConfig.PidsLimit=0", "bound the job's processes"},
    };
    for (size_t i = 0; i < sizeof walls / sizeof *walls; i++)
        refuse(walls[i][0], walls[i][1]);
    rig_assert_swept();
}

static void says_that_nobody_is_there(void **state) {
    (void)state;
    char socket[sizeof rig_docker.socket];
    strcpy(socket, rig_docker.socket);
    strcpy(rig_docker.socket, "/absent/docker.sock");
    refuse(NULL, "dockerd (/absent/docker.sock): Couldn't connect");
    strcpy(rig_docker.socket, socket);
}

static void waits_for_no_daemon_that_hangs(void **state) {
    (void)state;
    assert_true(docker_rig_tell(&rig_docker, "stop"));
    refuse("hurry", "did not answer in time");
    assert_true(docker_rig_tell(&rig_docker, "continue"));
    rig_expect("hello", NULL, "hello\n");
    rig_assert_swept();
}

// The process with the marker among its arguments that began with "/job"; 0: there is none.
static pid_t find_job(void) {
    pid_t found = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; !found && (entry = readdir(proc));) {
        char path[300];
        kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(1u << 16);
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || kiln_fs_read_file(AT_FDCWD, path, &line, NULL))
            continue;
        if (line.len > 5 && !strcmp((const char *)line.data, "/job") && memmem(line.data, line.len, marker, strlen(marker)))
            found = (pid_t)strtol(entry->d_name, NULL, 10);
    }
    closedir(proc);
    return found;
}

static pid_t start_spinning(struct rig *rig, uint64_t wall_ms) {
    pid_t job = 0;
    rig_init(rig);
    rig->spec.wall_ms = wall_ms;
    rig_command(rig, "/job", "spin", marker, NULL);
    if (rig_start(rig))
        fail_msg("refused: %s", rig->err.text);
    for (uint64_t deadline_ms = kiln_clock_ms() + 10000; !(job = find_job());)
        if (kiln_clock_left_ms(deadline_ms) == 0)
            fail_msg("the job does not run");
    return job;
}

// Of containers, in this namespace; the daemon's own removal of them may take a moment.
static void assert_no_mounts(void) {
    char dir[sizeof rig_docker.socket];
    strcpy(dir, rig_docker.socket);
    *strrchr(dir, '/') = 0;
    for (uint64_t deadline_ms = kiln_clock_ms() + 5000;;) {
        kiln_autobuf struct kiln_buf mounts = KILN_BUF_INIT(4u << 20);
        assert_int_equal(kiln_fs_read_file(AT_FDCWD, "/proc/self/mountinfo", &mounts, NULL), 0);
        const char *at = strstr(kiln_buf_text(&mounts), dir);
        if (!at || !strstr(at, "/merged"))
            return;
        if (kiln_clock_left_ms(deadline_ms) == 0)
            fail_msg("mounts are left: %.300s", at);
    }
}

// Its shim, and so the job, outlive it: the job is none the worse, and ends in time.
static void daemon_killed_during_a_job(void **state) {
    (void)state;
    rig_auto struct rig rig;
    start_spinning(&rig, 2000);
    assert_true(docker_rig_tell(&rig_docker, "kill"));
    rig_finish(&rig);
    rig_assert_end(&rig, KILN_END_WALL, 0);
    assert_in_range(rig.report.wall_ms, 2000, 10000);
    assert_int_equal(find_job(), 0);
    kiln_run_release(&rig.session);
    assert_true(docker_rig_tell(&rig_docker, "start"));
    rig_expect("hello", NULL, "hello\n");
    rig_assert_swept();
    assert_no_mounts();
}

static void daemon_killed_during_a_start(void **state) {
    (void)state;
    for (long delay_ms = 30; delay_ms < 300; delay_ms += 120) {
        pid_t starter = fork();
        if (starter == 0) {
            rig_auto struct rig rig;
            rig_init(&rig);
            rig.spec.wall_ms = 500;
            rig.without = "hurry";
            rig_command(&rig, "/job", "spin", marker, NULL);
            if (rig_start(&rig) == 0)
                rig_finish(&rig);
            kiln_run_release(&rig.session);
            _exit(0);
        }
        nanosleep(&(struct timespec){.tv_nsec = delay_ms * 1000000}, NULL);
        assert_true(docker_rig_tell(&rig_docker, "kill"));
        int status;
        assert_int_equal(waitpid(starter, &status, 0), starter);
        assert_int_equal(status, 0);
        assert_int_equal(find_job(), 0);
        assert_true(docker_rig_tell(&rig_docker, "start"));
        rig_assert_swept(); // the layer of a container that was not made yet may stay mounted: no one but dockerd knows of it
    }
}

static void daemon_hangs_when_a_job_has_ended(void **state) {
    (void)state;
    rig_auto struct rig rig;
    start_spinning(&rig, 500);
    assert_true(docker_rig_tell(&rig_docker, "stop"));
    rig_finish(&rig);
    rig_assert_end(&rig, KILN_END_WALL, 0);
    assert_in_range(rig.report.wall_ms, 500, 3000);
    kiln_run_release(&rig.session);
    assert_true(docker_rig_tell(&rig_docker, "continue"));
    rig_assert_swept();
}

static pid_t parent_of(pid_t pid) {
    char path[40];
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(65536);
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    assert_int_equal(kiln_fs_read_file(AT_FDCWD, path, &text, NULL), 0);
    return (pid_t)strtol(strstr(kiln_buf_text(&text), "\nPPid:") + 6, NULL, 10);
}

static void container_ended_by_somebody_else(void **state) {
    (void)state;
    rig_auto struct rig rig;
    pid_t job = start_spinning(&rig, 20000);
    assert_int_equal(kill(parent_of(job), SIGKILL), 0);
    rig_finish(&rig);
    rig_assert_end(&rig, KILN_END_BROKEN, 0);
    assert_int_equal(find_job(), 0);
}

static bool write_text(const char *path, const char *text) {
    kiln_autofd int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

// In mounts of its own, since anybody may make those; dockerd is not asked before.
static bool mount_below(const char *source) {
    char uid_map[48], gid_map[48];
    snprintf(uid_map, sizeof uid_map, "%u %u 1", geteuid(), geteuid());
    snprintf(gid_map, sizeof gid_map, "%u %u 1", getegid(), getegid());
    kiln_autofree char *point = kiln_path_join(source, "below");
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && write_text("/proc/self/setgroups", "deny") &&
           write_text("/proc/self/uid_map", uid_map) && write_text("/proc/self/gid_map", gid_map) &&
           mkdir(point, 0755) == 0 && mount("none", point, "tmpfs", 0, NULL) == 0;
}

static void takes_no_source_with_a_mount_below(void **state) {
    (void)state;
    char source[] = "/tmp/kiln-test-XXXXXX";
    assert_non_null(mkdtemp(source));
    pid_t child = fork();
    if (child == 0) {
        if (!mount_below(source))
            _exit(77);
        rig_auto struct rig rig;
        rig_init(&rig);
        rig_bind(&rig, source, "/src");
        rig_command(&rig, "/job", "hello", NULL);
        int rc = rig_start(&rig);
        if (rc != KILN_E_DENIED || !strstr(rig.err.text, "has a mount below it"))
            fprintf(stderr, "%d: %s\n", rc, rig.err.text);
        _exit(rc != KILN_E_DENIED || !strstr(rig.err.text, "has a mount below it"));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(kiln_fs_remove_tree(AT_FDCWD, source, NULL), 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); // a host without user namespaces
    assert_int_equal(status, 0);
}

static void takes_no_layout_that_docker_would_change(void **state) {
    (void)state;
    static const char *const places[][2] = {{"/etc/extra", "docker has /etc for itself"},   {"/dev/extra", "docker has /dev for itself"},
                                            {"/proc/extra", "docker has /proc for itself"}, {"/.kiln/init", "docker has /.kiln for itself"},
                                            {"/lib/extra", "there is a link on its way"}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        rig_auto struct rig rig;
        rig_init(&rig);
        rig_bind(&rig, RIG_JOB, places[i][0]);
        rig_command(&rig, "/job", "hello", NULL);
        int rc = rig_start(&rig);
        if (rc != KILN_E_DENIED || !strstr(rig.err.text, places[i][1]))
            fail_msg("%s: %d, \"%s\"", places[i][0], rc, rig.err.text);
    }
}

static void takes_no_image_of_other_bytes(void **state) {
    (void)state;
    // Whoever may tag images may give ours another meaning; it is looked up by its name and taken by its bytes.
    assert_true(docker_rig_tell(&rig_docker, "retag"));
    rig_auto struct rig rig;
    rig_init(&rig);
    rig_command(&rig, "/job", "hello", NULL);
    assert_int_equal(rig_start(&rig), KILN_E_DENIED);
    assert_non_null(strstr(rig.err.text, "is not what it was made of"));
    assert_true(docker_rig_tell(&rig_docker, "forget"));
    rig_expect("hello", NULL, "hello\n");
}

static int tests(void) {
    snprintf(marker, sizeof marker, "kiln-docker-%d", getpid());
    const struct CMUnitTest all[] = {
        cmocka_unit_test(notices_each_wall_that_docker_did_not_raise),
        cmocka_unit_test(takes_no_layout_that_docker_would_change),
        cmocka_unit_test(takes_no_source_with_a_mount_below),
        cmocka_unit_test(takes_no_image_of_other_bytes),
        cmocka_unit_test(says_that_nobody_is_there),
        cmocka_unit_test(waits_for_no_daemon_that_hangs),
        cmocka_unit_test(daemon_killed_during_a_job),
        cmocka_unit_test(daemon_killed_during_a_start),
        cmocka_unit_test(daemon_hangs_when_a_job_has_ended),
        cmocka_unit_test(container_ended_by_somebody_else),
    };
    return cmocka_run_group_tests_name("docker's faults", all, NULL, NULL);
}

int main(void) { return rig_both(tests); }
