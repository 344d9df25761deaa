// One job's container: made, started, removed; never entered again, never used twice.
#pragma once

#include <sys/types.h>

#include "consumer/docker/api.h"
#include "consumer/docker/mounts.h"

#define KILN_CONTAINER_ID_LEN 64

struct kiln_container {
    struct kiln_docker *docker;
    char id[KILN_CONTAINER_ID_LEN + 1]; // "" before it is made and after it is removed
};

struct kiln_container_plan {
    const char *image, *owner; // owner: the directory of all this executor's jobs
    const char *job;           // the name of this one in it
    const struct kiln_run_spec *spec;
    const struct kiln_layout *layout;
    const struct kiln_mounts *mounts;
    uid_t uid;
    gid_t gid;
};

int kiln_container_create(struct kiln_container *container, const struct kiln_container_plan *plan, uint64_t deadline_ms,
                          struct kiln_err *err);
int kiln_container_start(struct kiln_container *container, uint64_t deadline_ms, struct kiln_err *err);
// Is `pid` the container's first process, and are the bounds set that Docker drops when the host does not have them?
int kiln_container_check(struct kiln_container *container, const struct kiln_run_spec *spec, pid_t pid, uint64_t deadline_ms,
                         struct kiln_err *err);
bool kiln_container_ran_out_of_memory(struct kiln_container *container, uint64_t deadline_ms);
int kiln_container_kill(struct kiln_container *container, uint64_t deadline_ms, struct kiln_err *err);
// Its processes too, should there be any.
int kiln_container_remove(struct kiln_container *container, uint64_t deadline_ms, struct kiln_err *err);
// Removes the containers of jobs of `owner` that nobody is at work at (consumer/docker/job_dir.h).
int kiln_container_sweep(struct kiln_docker *docker, const char *owner, uint64_t deadline_ms, struct kiln_err *err);
