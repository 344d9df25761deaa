#include "consumer/docker/usage.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "consumer/run/cgroup.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"

#define PROC_TEXT_MAX (4u << 20)

static int open_group(struct kiln_buf *mounts, struct kiln_buf *membership, const char *controller) {
    kiln_autofree char *path = kiln_cgroup_place(kiln_buf_text(mounts), kiln_buf_text(membership), controller);
    return path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}

void kiln_usage_open(struct kiln_usage *usage, pid_t pid) {
    kiln_autobuf struct kiln_buf mounts = KILN_BUF_INIT(PROC_TEXT_MAX), membership = KILN_BUF_INIT(PROC_TEXT_MAX);
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/cgroup", pid);
    *usage = KILN_USAGE_INIT;
    if (kiln_fs_read_file(AT_FDCWD, "/proc/self/mountinfo", &mounts, NULL) || kiln_fs_read_file(AT_FDCWD, path, &membership, NULL))
        return;
    usage->memory = open_group(&mounts, &membership, "memory");
    usage->cpu = open_group(&mounts, &membership, "cpuacct");
    if (usage->memory >= 0)
        return;
    usage->v2 = true;
    usage->memory = open_group(&mounts, &membership, "");
    usage->cpu = usage->memory >= 0 ? fcntl(usage->memory, F_DUPFD_CLOEXEC, 0) : -1;
}

// v1: nanoseconds in a file of their own; v2: "usage_usec N" on a line of its own.
static uint64_t read_cpu_ms(const struct kiln_usage *usage) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(PROC_TEXT_MAX);
    if (kiln_fs_read_file(usage->cpu, usage->v2 ? "cpu.stat" : "cpuacct.usage", &text, NULL))
        return 0;
    if (!usage->v2)
        return strtoull(kiln_buf_text(&text), NULL, 10) / 1000000;
    const char *at = strstr(kiln_buf_text(&text), "usage_usec ");
    return at ? strtoull(at + strlen("usage_usec "), NULL, 10) / 1000 : 0;
}

static void raise_to(uint64_t *value, uint64_t to) { // a group that is gone says 0
    if (to > *value)
        *value = to;
}

void kiln_usage_take(struct kiln_usage *usage) {
    uint64_t peak_bytes, oom_kills;
    const struct kiln_cgroup memory = {.groups = {{.dir = usage->memory}}, .memory = usage->memory >= 0, .v2 = usage->v2};
    kiln_cgroup_read(&memory, &peak_bytes, &oom_kills);
    raise_to(&usage->peak_bytes, peak_bytes);
    raise_to(&usage->oom_kills, oom_kills);
    if (usage->cpu >= 0)
        raise_to(&usage->cpu_ms, read_cpu_ms(usage));
}

void kiln_usage_release(struct kiln_usage *usage) {
    int *const fds[] = {&usage->memory, &usage->cpu};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (*fds[i] >= 0)
            close(kiln_steal_fd(fds[i]));
}
