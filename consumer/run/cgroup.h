// The job's control group: a bound on memory, swap and processes, counted over the whole job, and a fair share of the processors,
// where the host lets us make one.
//
// What is used: cgroup v1 (hierarchies memory, pids and cpu) where there is one that lets us; else v2 (the nearest ancestor that
// hands memory and pids down, and cpu if it does); else resource limits alone, which bound each process (limits.h). Of the
// processors no job has fewer than its share, however many threads the others start; nothing caps one that is alone.
// Nothing of the host's set-up is changed. The group is called kiln-PID after kiln-run's process and made
// below kiln-run's own group, or in v2, where a group that holds processes cannot hand controllers down, mostly beside it;
// so the host's limits on its parent still hold. Groups that a killed kiln-run left are removed by the next one.
// Calling order: open, fork, (in the child) join, (after the job is gone) read, release. Not finding a usable hierarchy is no
// error: then `memory` is false and the caller falls back to resource limits.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/err.h"

#define KILN_CGROUP_GROUPS 3 // v1: memory, pids and cpu apart

struct kiln_cgroup {
    struct kiln_cgroup_group {
        int parent, dir, tasks; // descriptors; tasks is -1 in v2
    } groups[KILN_CGROUP_GROUPS];
    size_t count;
    char name[32];
    bool memory, swap, processes, cpu; // what is bounded; swap also when the host has none
    bool v2;
};

#define KILN_CGROUP_INIT ((struct kiln_cgroup){0})

int kiln_cgroup_open(struct kiln_cgroup *cgroup, uint64_t memory_bytes, uint32_t processes, struct kiln_err *err);
// fork(2), in v2 into the group. Returns the child's id, 0 in the child, or a KILN_E_*. Of a single-threaded process.
pid_t kiln_cgroup_fork(const struct kiln_cgroup *cgroup, struct kiln_err *err);
int kiln_cgroup_join(const struct kiln_cgroup *cgroup, struct kiln_err *err); // in the child: what fork left to do
void kiln_cgroup_read(const struct kiln_cgroup *cgroup, uint64_t *peak_bytes, uint64_t *oom_kills);
void kiln_cgroup_release(struct kiln_cgroup *cgroup); // removes the groups

// Where this process's group of a controller ("memory", "pids"; "" for v2) is mounted, from the texts of
// /proc/self/mountinfo and /proc/self/cgroup; heap, NULL when there is none. Pure.
char *kiln_cgroup_place(const char *mountinfo, const char *membership, const char *controller);
