// Compiles that no agent heard of: the wrapper notes them in DIR/agent.missed, the agent adds them to its counters.
//
// One line per compile: the reason, a stable word ("agent_silent"). Noting is best effort and bounded: a directory that
// cannot be written costs the count, never the build.
#pragma once

#include "lib/base/err.h"

void kiln_missed_add(const char *dir, const char *reason);

typedef void (*kiln_missed_fn)(void *context, const char *reason);
// Calls `each` for every note, oldest first. Nothing there is success. The words are what any process of the user wrote:
// lines that are no word of [a-z_] up to 64 bytes are passed as "unknown".
int kiln_missed_read(const char *dir, kiln_missed_fn each, void *context, struct kiln_err *err);
// The same, and takes the notes away: each is reported once.
int kiln_missed_take(const char *dir, kiln_missed_fn each, void *context, struct kiln_err *err);
