// Finds the result of an action: what is known to be local, the local cache, the vault; and its content.
//
// Every answer is checked on the way: signature by a trusted key, the action asked for, each content digest. What does not
// check is dropped, counted as corrupt, and is a miss. Thread-safe.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/result.h"
#include "producer/agent/l0.h"
#include "producer/agent/stats.h"

#define KILN_SCOPE "local"
#define KILN_GENERATION 1

struct kiln_lookup {
    struct kiln_l0 *l0;
    struct kiln_store *store;      // role AGENT
    const struct kiln_trust *trust;
    struct kiln_stats *stats;
};

// KILN_E_NOTFOUND on a miss. KILN_E_UNSUPPORTED (text = reason) when the action is known to be local.
int kiln_lookup_result(const struct kiln_lookup *lookup, const struct kiln_digest *action, struct kiln_result *result,
                       struct kiln_err *err);
// Checks a fresh envelope and keeps it; a LOCAL outcome is remembered and given as KILN_E_UNSUPPORTED.
int kiln_lookup_accept(const struct kiln_lookup *lookup, const struct kiln_digest *action, const void *envelope, size_t len,
                       struct kiln_result *result, struct kiln_err *err);
// A checked descriptor of one output; brings it from the vault when the local cache lacks it.
int kiln_lookup_open(const struct kiln_lookup *lookup, const struct kiln_output *output, int *fd, struct kiln_err *err);
// From now on this action is compiled where it is.
void kiln_lookup_mark_local(const struct kiln_lookup *lookup, const struct kiln_digest *action, const char *reason);
