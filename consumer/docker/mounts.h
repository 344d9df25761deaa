// What a container is given read-only: the spec's binds, and what makes /etc and /dev of Docker's say nothing.
//
// Docker mounts by path, so a path is all it is told; what really is behind each destination is looked at from inside
// (consumer/docker/world.h) and must be what the executor had opened.
#pragma once

#include "consumer/docker/gate.h"
#include "consumer/docker/job_dir.h"
#include "consumer/run/layout.h"

struct kiln_mounts {
    struct kiln_gate_mount *all;
    char **sources; // absolute paths, in the same order
    size_t count;
};

// Can Docker mount such a layout without touching anybody's tree?
int kiln_mounts_check(const struct kiln_run_spec *spec, const struct kiln_layout *layout, struct kiln_err *err);
int kiln_mounts_make(const struct kiln_layout *layout, const struct kiln_job_dir *job, struct kiln_mounts *mounts, struct kiln_err *err);
void kiln_mounts_release(struct kiln_mounts *mounts);
