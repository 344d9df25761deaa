// Finds the result of an action: what is known to be local, the local cache, the vault; and its content.
//
// Every answer is checked on the way: signature by a trusted key, the action asked for, each content digest; in a fleet also
// scope, generation, time and revocation (lib/fleet/keeper.h). What does not check is dropped, counted as corrupt or, where it
// is merely over, as nothing, and is a miss. From a fleet the content of a result comes as one bundle, by the version that the
// result names. Thread-safe; what a request brings belongs to that request.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/result.h"
#include "lib/fleet/keeper.h"
#include "producer/agent/fetched.h"
#include "producer/agent/l0.h"
#include "producer/agent/link.h"
#include "producer/agent/stats.h"

#define KILN_SCOPE "local" // of the embedded default
#define KILN_GENERATION 1

struct kiln_lookup {
    struct kiln_l0 *l0;
    struct kiln_store *store;       // role AGENT
    const struct kiln_trust *trust; // embedded
    struct kiln_keeper *keeper;     // fleet; else NULL
    struct kiln_link *link;         // fleet; else NULL
    struct kiln_stats *stats;
    int scratch_dir;                // fleet: where bundles are unpacked
    // Of one request, which has a copy of all this:
    const char *scope;
    struct kiln_fetched *fetched;   // fleet
};

// KILN_E_NOTFOUND on a miss. KILN_E_UNSUPPORTED (text = reason) when the action is known to be local, or no answer can be had.
int kiln_lookup_result(const struct kiln_lookup *lookup, const struct kiln_digest *action, struct kiln_result *result,
                       struct kiln_err *err);
// The local cache alone, without counting; the same codes.
int kiln_lookup_cached(const struct kiln_lookup *lookup, const struct kiln_digest *action, struct kiln_result *result,
                       struct kiln_err *err);
// Checks a fresh envelope and keeps it; a LOCAL outcome is remembered and given as KILN_E_UNSUPPORTED.
int kiln_lookup_accept(const struct kiln_lookup *lookup, const struct kiln_digest *action, const void *envelope, size_t len,
                       struct kiln_result *result, struct kiln_err *err);
// The same for what a verifier has answered. It may know a newer trust record, which is fetched then, or an older one:
// KILN_E_UNSUPPORTED "trust_differs: ...".
int kiln_lookup_take_answer(const struct kiln_lookup *lookup, const struct kiln_digest *action, const void *envelope, size_t len,
                            struct kiln_result *result, struct kiln_err *err);
// Only checks it.
int kiln_lookup_check(const struct kiln_lookup *lookup, const struct kiln_digest *action, const void *envelope, size_t len,
                      struct kiln_result *result, struct kiln_err *err);
// Fleet: brings the content that is not here yet, into the local cache and lookup->fetched.
int kiln_lookup_bring(const struct kiln_lookup *lookup, const struct kiln_result *result, struct kiln_err *err);
// A checked descriptor of one output; brings it from the vault when the local cache lacks it.
int kiln_lookup_open(const struct kiln_lookup *lookup, const struct kiln_output *output, int *fd, struct kiln_err *err);
// From now on this action is compiled where it is.
void kiln_lookup_mark_local(const struct kiln_lookup *lookup, const struct kiln_digest *action, const char *reason);
