// What is kept for good: verified outputs, and for each action one signed pointer to its result.
//
// Content first, create-only by digest, then the pointer. The first result of an action stays; one that differs later is a
// divergence, which the caller reports, never a replacement. Only a pointer that does not hold any more (a bad
// signature, content that is missing or not what it was) is replaced, in the embedded store. Thread: one per struct.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/result.h"

struct kiln_vault {
    struct kiln_store *store; // role VERIFIER
    const struct kiln_sign_key *key;
    const struct kiln_trust *trust; // holds the key
    const char *scope;
    uint64_t generation;
};

// The stored envelope of an action, its signature and all its content checked byte by byte. KILN_E_NOTFOUND: none.
// KILN_E_CORRUPT: there is one, and it does not hold. *result (zeroed) may be NULL.
int kiln_vault_find(const struct kiln_vault *vault, const struct kiln_digest *action, struct kiln_buf *envelope,
                    struct kiln_result *result, struct kiln_err *err);
// Takes one output from quarantine. KILN_E_CORRUPT: it is not what was said of it, or not there.
int kiln_vault_take(const struct kiln_vault *vault, const char *quarantine_key, const struct kiln_output *output,
                    struct kiln_err *err);
// Signs and publishes. *envelope is what is stored then: this result's, or that of an earlier one, and *diverges tells
// whether the two differ.
int kiln_vault_publish(const struct kiln_vault *vault, const struct kiln_result *result, struct kiln_buf *envelope,
                       bool *diverges, struct kiln_err *err);
