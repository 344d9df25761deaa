// What is kept for good: verified outputs, and for each action one signed pointer to its result.
//
// Content first, create-only by digest, then the pointer. The first result of an action stays; one that differs later is a
// divergence, which the caller reports, never a replacement. A pointer that does not hold any more (a bad signature, revoked,
// expired, content that is missing or not what it was) is put over; of several versions the oldest valid one counts, and its
// bytes are put over what shadows it. A result of the generation before is carried forward: signed again for the current one,
// its content kept as long as that of a fresh one, without an execution.
// With a store that wants bundles (lib/blob/bundle.h) the outputs of a result are one object, named by digest and pin in the core:
// the very bytes that were fetched from quarantine and checked. The libraries among them also go to the inputs of the scope,
// after the result and without which it is as good, so that dependants need not upload them.
// Thread: re-entrant; nothing in the struct changes.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/result.h"
#include "verifier/harvest.h"

struct kiln_vault {
    struct kiln_store *store; // role VERIFIER
    const struct kiln_sign_key *key;
    // Whether an envelope may be used now, for that scope and generation: KILN_E_CORRUPT when not. A fleet's is the keeper's
    // (kiln_keeper_open_result), the embedded default's is kiln_vault_open_trusted on a kiln_trust that holds the key.
    int (*open)(void *context, const void *envelope, size_t len, const struct kiln_digest *action, const char *scope,
                uint64_t generation, struct kiln_result *result, struct kiln_err *err);
    void *context;
    uint64_t pointer_ms; // how long a result is good for, and its pointer locked; 0: for ever, and the bucket's default lock
    uint64_t content_ms; // how long content is locked from the signing on; 0: the bucket's default
};

int kiln_vault_open_trusted(void *trust, const void *envelope, size_t len, const struct kiln_digest *action,
                            const char *scope, uint64_t generation, struct kiln_result *result, struct kiln_err *err);

struct kiln_vault_place {
    const char *scope;
    uint64_t generation; // the current one
    uint64_t now_ms;     // wall clock
};

struct kiln_vault_entry {
    struct kiln_buf envelope; // what is stored now
    struct kiln_result result; // opened
    bool shadowed; // something invalid, or a delete marker, stood over it; the right bytes are on top again
    bool carried;  // it was of the generation before
    bool diverges; // store: there was an earlier result, which this is, and the given one differs from it
};
void kiln_vault_entry_release(struct kiln_vault_entry *entry); // zeroed ones too

// The valid result of an action, all its content checked byte by byte. *entry zeroed. KILN_E_NOTFOUND: none.
// KILN_E_CORRUPT: there is one, and it does not hold.
int kiln_vault_find(const struct kiln_vault *vault, const struct kiln_vault_place *place, const struct kiln_digest *action,
                    struct kiln_vault_entry *entry, struct kiln_err *err);
struct kiln_vault_source {
    char *const *keys;                  // result->outputs[i] lies under keys[i] in quarantine
    const struct kiln_harvest *harvest; // instead, with a store that wants bundles: fetched for this result
};
// Takes the outputs, fills times and bundle of the result, signs and publishes it; scope and generation are the result's.
// KILN_E_CORRUPT: an output is not there, or not what was said of it, or nobody may use such a result (an executor that is
// revoked); nothing is published then. KILN_E_INVAL: not of a result's form.
int kiln_vault_store(const struct kiln_vault *vault, uint64_t now_ms, struct kiln_result *result,
                     const struct kiln_vault_source *source, struct kiln_vault_entry *entry, struct kiln_err *err);
// With a store that wants bundles: the libraries of a stored result become inputs of its scope.
int kiln_vault_share(const struct kiln_vault *vault, const struct kiln_result *result, const struct kiln_harvest *harvest,
                     struct kiln_err *err);
