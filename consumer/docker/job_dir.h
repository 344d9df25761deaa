// A job's small files on the host, bound into its container: /etc, /dev with the gate's socket, an empty file. They lie in a
// directory of their own below the executor's, and belong to whoever holds the lock on it, so that what a killed process
// left, files and container, is known by the lock that nobody holds.
#pragma once

#include "consumer/run/spec.h"

struct kiln_job_dir {
    int parent, dir; // `dir` holds the lock
    char *path;      // absolute
    char name[32];   // below `parent`
};

#define KILN_JOB_DIR_INIT ((struct kiln_job_dir){.parent = -1, .dir = -1})

int kiln_job_dir_make(const char *parent, const struct kiln_run_spec *spec, struct kiln_job_dir *job, struct kiln_err *err);
void kiln_job_dir_remove(struct kiln_job_dir *job);
// A socket that waits for the container's init, in /dev of the job; gone from there with close_gate.
int kiln_job_dir_open_gate(const struct kiln_job_dir *job, int *listener, struct kiln_err *err);
int kiln_job_dir_close_gate(const struct kiln_job_dir *job, struct kiln_err *err);

// Is the job of that name below `parent` at work? False when there is none, true when that cannot be known.
bool kiln_job_dir_is_held(const char *parent, const char *name);
// Removes the directories below `parent` that nobody holds.
int kiln_job_dir_sweep(const char *parent, struct kiln_err *err);
