// A result in the caller's own names: which files go where, the dep-info written again, the messages mapped back.
//
// Refuses (KILN_E_UNSUPPORTED with a reason) what cannot be told in the caller's names: a foreign /kiln/ name left in a
// message, an OUT_DIR that became a value.
#pragma once

#include "lib/core/result.h"
#include "lib/ipc/frames.h"
#include "producer/agent/lookup.h"
#include "producer/agent/unit.h"

struct kiln_replay {
    struct kiln_place_file *files;
    int *fds;                         // one per file; read-only, at offset 0
    struct kiln_digest *digests;      // zero for files made here (.d)
    size_t count;
    struct kiln_buf out, errout;
};

int kiln_replay_build(const struct kiln_lookup *lookup, const struct kiln_unit *unit, const struct kiln_result *result,
                      struct kiln_replay *replay, struct kiln_err *err);
void kiln_replay_release(struct kiln_replay *replay);
