#include "consumer/run/host_limits.h"

#include <stdio.h>

#include "consumer/run/cgroup.h"

#define DELEGATE "give it a control group that hands memory, pids and cpu down (systemd: Delegate=yes)"

static bool say(bool holds, const char *name, const char *good, const char *weak) {
    printf("%s %s %s\n", holds ? "ok" : "weak", name, holds ? good : weak);
    return holds;
}

bool kiln_host_limits_print(void) {
    struct kiln_cgroup group;
    struct kiln_err err;
    if (kiln_cgroup_open(&group, 256u << 20, 64, &err))
        group = KILN_CGROUP_INIT;
    bool all = say(group.memory, "limit_memory", group.v2 ? "of the whole job, by control group v2" : "of the whole job, by control group v1",
                   "is bounded for each process of a job, not for their sum: " DELEGATE);
    all &= say(group.swap, "limit_swap", "a job cannot swap more than its memory",
               "is not bounded: " DELEGATE ", with swap accounting (kernel option swapaccount=1), or run without swap");
    say(true, "limit_processes", group.processes ? "of the whole job, by control group and RLIMIT_NPROC"
                                                 : "of the whole job, by RLIMIT_NPROC in a user namespace of its own", "");
    all &= say(group.cpu, "limit_cpu", "a job has its share, however many processes another one starts",
               "a job with more processes takes more of the processors: " DELEGATE);
    kiln_cgroup_release(&group);
    return all;
}
