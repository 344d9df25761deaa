// Starting one job behind its walls, in two steps, so that the starter hears of a missing wall before anything runs.
//
// The child becomes bubblewrap, and is the first process of a pid namespace of its own: when it ends, or is killed, the
// kernel kills every process of the job, and waitpid() for it returns only when all of them are gone. It dies with the
// caller. Order: find (before the root hides a bwrap below its place), launch, wait for `ready`, go, then wait for pid.
// consumer/docker/ is the other backend, in a program of its own.
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "consumer/run/capture.h"
#include "consumer/run/cgroup.h"
#include "consumer/run/spec.h"
#include "consumer/run/watch.h"

#define KILN_SANDBOX_UID 65534u // of the job on the host when kiln-run is root; never the root user's own

struct kiln_sandbox {
    const struct kiln_run_spec *spec;
    const struct kiln_cgroup *cgroup;
    const struct kiln_capture *text[2]; // stdout, stderr
    struct kiln_watch *watch; // prepared; launch sets its listener, the caller serves it. NULL: the job is not watched
    int bwrap;   // descriptor of the program
    bool root;   // started by root: drop to KILN_SANDBOX_UID
    pid_t pid;   // set by launch
    int control; // set by launch: readiness, then silence until exec succeeded (end of file) or failed (a text)
    int status;  // set by launch: bwrap's own report of what happened
};

// Opens bwrap; refuses one that anybody but root or the caller could have changed.
int kiln_sandbox_find(const char *path, int *fd, struct kiln_err *err);
// Forks; the caller has already entered the mount and pid namespaces. Returns when the child stands behind its walls.
int kiln_sandbox_launch(struct kiln_sandbox *sandbox, struct kiln_err *err);
int kiln_sandbox_go(struct kiln_sandbox *sandbox, struct kiln_err *err);
// After the child has been waited for: what became of the job. False: bwrap did not get to run it.
bool kiln_sandbox_exit_code(const struct kiln_sandbox *sandbox, unsigned *exit_code);
// What to do about a failure that bwrap wrote on its stderr; "" when nothing is known.
const char *kiln_sandbox_hint(const char *bwrap_text);
