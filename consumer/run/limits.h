// What one process of the job may use at most (setrlimit) and what it must not inherit from its starter.
//
// Counted per process except RLIMIT_NPROC, which the kernel counts per user *and user namespace*: apply it after entering
// a namespace of the job's own, so that neither the user's other processes nor other jobs use up the allowance. It is not
// enforced for host uid 0.
#pragma once

#include <stdbool.h>

#include "consumer/run/spec.h"

// `bound_memory`: no control group bounds the job, so RLIMIT_DATA bounds each process and the job is the first victim when
// the host runs out of memory.
int kiln_limits_apply(const struct kiln_run_spec *spec, bool bound_memory, struct kiln_err *err);
// Signal mask and dispositions, umask, personality, scheduling, session keyring: as in a fresh login. Before joining a group.
int kiln_limits_forget(struct kiln_err *err);
