// Starting kiln-run from a program that has a job for it, and the messages between the two (consumer/run/spec.h).
//
// Calling order: start, (read what is needed from the descriptors while it runs), wait, release. A session belongs to one
// thread, and that thread must live as long as the job: when it ends, the kernel tells kiln-run that its starter died.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "consumer/run/spec.h"

#define KILN_RUN_READY_FDS 4

struct kiln_run_session {
    pid_t pid;
    int socket;
    int out_dir, observer_dir, stdout_text, stderr_text; // set when start succeeds; stay open until release
};

#define KILN_RUN_SESSION_INIT ((struct kiln_run_session){.pid = -1, .socket = -1, .out_dir = -1, .observer_dir = -1, \
                                                         .stdout_text = -1, .stderr_text = -1})

#define KILN_RUN_ARGUMENTS_MAX 8

struct kiln_run_options {
    const char *program;      // kiln-run, or kiln-run-docker
    const char *bwrap;        // NULL: kiln-run's default
    const char *const *arguments; // further ones, at most KILN_RUN_ARGUMENTS_MAX and a NULL; NULL: none
    uint64_t deadline_ms;     // monotonic, for the walls to stand
};

// In `spec`, the descriptors are the caller's own; the child gets duplicates. KILN_E_DENIED: kiln-run refused
// (a wall could not be raised), with its text; nothing was run.
int kiln_run_start(const struct kiln_run_options *options, const struct kiln_run_spec *spec,
                   struct kiln_run_session *session, struct kiln_err *err);
// Waits for the end of the job; kiln-run may have something to tidy up yet, for which release waits. On failure the session is
// still to be released: KILN_E_TIMEOUT leaves both running, KILN_E_CLOSED means that kiln-run died.
int kiln_run_wait(struct kiln_run_session *session, uint64_t deadline_ms, struct kiln_run_report *report,
                  struct kiln_err *err);
// Ends a job that still runs; returns when all of it is gone.
void kiln_run_release(struct kiln_run_session *session);

// One message with descriptors, for both sides. Received descriptors belong to the caller; exactly `fds_count` must come.
int kiln_run_send(int socket, enum kiln_run_message message, const void *payload, size_t len, const int *fds,
                  size_t fds_count, struct kiln_err *err);
int kiln_run_receive(int socket, uint64_t deadline_ms, enum kiln_run_message *message, struct kiln_buf *payload, int *fds,
                     size_t fds_count, struct kiln_err *err);
