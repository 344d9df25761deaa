// The embedded fleet: verifier and executor as children of the agent, each with a bus connection as descriptor 3.
//
// A child that dies is started again, at growing intervals; one that keeps dying is given up for a minute, and what
// waits is told so. All calls from the main thread (PR_SET_PDEATHSIG follows the thread that starts a child).
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/buf.h"
#include "lib/bus/bus.h"

enum kiln_child { KILN_CHILD_VERIFIER, KILN_CHILD_EXECUTOR, KILN_CHILDREN };

struct kiln_children;

struct kiln_children_options {
    const char *dir, *libexec;
    uint64_t store_max_bytes;
    uint64_t slots; // 0: one per processor
    const char *docker; // the socket of dockerd, when jobs run in containers; NULL: bubblewrap
    bool watch_all; // the executor watches every job's system calls
    int log_fd;
    struct kiln_bus_server *bus;
    // Told on the main thread when a child was started again, or given up (reason NULL for the former).
    void (*changed)(void *context, enum kiln_child child, const char *given_up_reason);
    void *context;
};

int kiln_children_new(const struct kiln_children_options *options, struct kiln_children **children, struct kiln_err *err);
void kiln_children_free(struct kiln_children *children); // SIGTERM, a bounded wait, SIGKILL; all are reaped
void kiln_children_exited(struct kiln_children *children, pid_t pid, int status, uint64_t now_ms);
void kiln_children_tick(struct kiln_children *children, uint64_t now_ms); // starts what is due
bool kiln_child_runs(const struct kiln_children *children, enum kiln_child child, pid_t *pid);
