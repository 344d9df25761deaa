// Where a process's control group is, on the layouts that hosts have.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consumer/run/cgroup.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"

#define V1_MOUNTS                                                                                                      \
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"                                                           \
    "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"                                       \
    "31 25 0:27 / /sys/fs/cgroup/pids rw,nosuid shared:9 master:2 - cgroup cgroup rw,pids\n"                           \
    "32 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"                                      \
    "33 25 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MEMBERSHIP "8:pids:/\n4:memory:/services/kiln\n2:cpu,cpuacct:/a\n1:name=systemd:/init.scope\n0::/init.scope\n"
#define V2_MOUNTS "29 23 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
#define V2_MEMBERSHIP "0::/user.slice/user-1000.slice/session-1.scope\n"
#define DOCKER_MOUNTS "700 690 0:26 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n"

static void places(void **state) {
    (void)state;
    static const struct {
        const char *mounts, *membership, *controller, *expected;
    } cases[] = {
        {V1_MOUNTS, V1_MEMBERSHIP, "memory", "/sys/fs/cgroup/memory/services/kiln"},
        {V1_MOUNTS, V1_MEMBERSHIP, "pids", "/sys/fs/cgroup/pids"},
        {V1_MOUNTS, V1_MEMBERSHIP, "cpuacct", "/sys/fs/cgroup/cpu,cpuacct/a"},
        {V1_MOUNTS, V1_MEMBERSHIP, "cpu", "/sys/fs/cgroup/cpu,cpuacct/a"},
        {V1_MOUNTS, V1_MEMBERSHIP, "acct", NULL},
        {V1_MOUNTS, V1_MEMBERSHIP, "", "/sys/fs/cgroup/unified/init.scope"},
        {V2_MOUNTS, V2_MEMBERSHIP, "", "/sys/fs/cgroup/user.slice/user-1000.slice/session-1.scope"},
        {V2_MOUNTS, V2_MEMBERSHIP, "memory", NULL},
        {DOCKER_MOUNTS, "4:memory:/docker/abc\n", "memory", "/sys/fs/cgroup/memory"},
        {DOCKER_MOUNTS, "4:memory:/docker/abc/job", "memory", "/sys/fs/cgroup/memory/job"},
        {DOCKER_MOUNTS, "4:memory:/docker/other\n", "memory", NULL},
        {DOCKER_MOUNTS, "4:memory:/../outside\n", "memory", NULL},
        {"", V2_MEMBERSHIP, "", NULL},
        {V2_MOUNTS, "", "", NULL},
        {"nonsense\n - \n1 2 3 - cgroup2\n", "nonsense\n::\n0:\n", "", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *place = kiln_cgroup_place(cases[i].mounts, cases[i].membership, cases[i].controller);
        if (cases[i].expected)
            assert_string_equal(place, cases[i].expected);
        else
            assert_null(place);
        free(place);
    }
}

static bool is_in_group(const char *name) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1u << 16);
    return kiln_fs_read_file(AT_FDCWD, "/proc/self/cgroup", &text, NULL) == 0 && strstr(kiln_buf_text(&text), name);
}

// Every host with a v2 hierarchy that lets us make groups can show that the child is born in one; whether the hierarchy
// has controllers does not matter for that.
static void a_child_is_born_in_its_v2_group(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf mounts = KILN_BUF_INIT(1u << 20), membership = KILN_BUF_INIT(1u << 16);
    assert_int_equal(kiln_fs_read_file(AT_FDCWD, "/proc/self/mountinfo", &mounts, NULL), 0);
    assert_int_equal(kiln_fs_read_file(AT_FDCWD, "/proc/self/cgroup", &membership, NULL), 0);
    char *place = kiln_cgroup_place(kiln_buf_text(&mounts), kiln_buf_text(&membership), "");
    kiln_autofd int parent = place ? open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    free(place);
    struct kiln_cgroup cgroup = {.count = 1, .v2 = true};
    snprintf(cgroup.name, sizeof cgroup.name, "kiln-test-%d", getpid());
    if (parent < 0 || mkdirat(parent, cgroup.name, 0755))
        skip(); // no writable cgroup v2 here
    int dir = openat(parent, cgroup.name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cgroup.groups[0] = (struct kiln_cgroup_group){.parent = kiln_steal_fd(&parent), .dir = dir, .tasks = -1};
    pid_t pid = kiln_cgroup_fork(&cgroup, NULL);
    if (pid == 0)
        _exit(kiln_cgroup_join(&cgroup, NULL) == 0 && is_in_group(cgroup.name) ? 0 : 1);
    int status = -1;
    if (pid > 0)
        waitpid(pid, &status, 0);
    int again = dup(cgroup.groups[0].parent);
    kiln_cgroup_release(&cgroup);
    assert_int_equal(status, 0);
    assert_int_equal(faccessat(again, cgroup.name, F_OK, 0), -1); // removed by release
    close(again);
}

int main(void) {
    const struct CMUnitTest all[] = {cmocka_unit_test(places), cmocka_unit_test(a_child_is_born_in_its_v2_group)};
    return cmocka_run_group_tests(all, NULL, NULL);
}
