// Child processes: argv arrays, explicit environment, explicit descriptors, no shell.
//
// Uses posix_spawn-like vfork/clone semantics; safe in threaded programs. The child gets descriptors `fds[i].child` =
// dup of `fds[i].parent`; all others are closed (close_range). Signals are at their defaults, nothing blocked.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

struct kiln_proc_fd {
    int parent, child;
};

struct kiln_proc_options {
    const char *program;      // path; no PATH search
    char *const *argv;        // NULL-terminated
    char *const *envp;        // NULL-terminated; never NULL itself
    const char *cwd;          // NULL: the caller's
    const struct kiln_proc_fd *fds;
    size_t fds_count;
    bool new_session;         // setsid
    bool die_with_parent;     // PR_SET_PDEATHSIG SIGKILL (fires when the spawning thread ends)
};

// Starts the child; an exec that fails is reported here, not by an exit status.
int kiln_proc_spawn(const struct kiln_proc_options *options, pid_t *pid, struct kiln_err *err);
// Waits until deadline_ms (monotonic); *status as waitpid's. KILN_E_TIMEOUT leaves the child running.
int kiln_proc_wait(pid_t pid, uint64_t deadline_ms, int *status, struct kiln_err *err);
// Runs to the end and collects stdout and stderr (each bounded by its buffer's max; more is KILN_E_LIMIT), killing the
// child on a passed deadline or exceeded limit. options->fds must not name 0, 1 or 2: stdin is /dev/null.
int kiln_proc_run(const struct kiln_proc_options *options, uint64_t deadline_ms, struct kiln_buf *out,
                  struct kiln_buf *errout, int *status, struct kiln_err *err);
