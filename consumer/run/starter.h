// The conversation with whoever started this program for a job (consumer/run/spec.h), the same for every backend.
//
// Calling order: watch, lives, read_spec, then refuse, or ready and done. `signals` becomes readable when the starter has
// died or asks for the end, and for SIGCHLD; so the end of the starter is handled like the end of the job.
#pragma once

#include <stdbool.h>

#include "consumer/run/client.h"

int kiln_starter_watch(int *signals, struct kiln_err *err);
// A starter that died before the death signal was set has closed its socket.
bool kiln_starter_lives(void);
int kiln_starter_read_spec(struct kiln_run_spec *spec, struct kiln_err *err);
int kiln_starter_ready(const int fds[KILN_RUN_READY_FDS], struct kiln_err *err);
int kiln_starter_done(const struct kiln_run_report *report, struct kiln_err *err);
void kiln_starter_refuse(const struct kiln_err *refusal);
// Takes the pending signals; true when one of them asks for the end.
bool kiln_starter_asks_to_end(int signals);
