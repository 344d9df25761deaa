// Whether a signed result may be used, by one trust record and one time: pure, so that agents, verifiers and tests agree.
//
// Refusals are KILN_E_CORRUPT with a text "word: detail". Words: unknown_key, key_expired, signature, expired, scope,
// generation, revoked_key, revoked_principal, revoked_toolchain, revoked_action, revoked_executor, attestation.
// Thread: re-entrant.
#pragma once

#include "lib/core/action.h"
#include "lib/core/result.h"
#include "lib/core/trust_record.h"

struct kiln_verdict_question {
    const void *envelope;
    size_t len;
    const struct kiln_digest *action;
    const char *scope;
    uint64_t generation;
    uint64_t now_ms; // wall clock
};

// Whether anything could be signed for that action now: KILN_E_DENIED "revoked_toolchain: ..." or "revoked_action: ...".
int kiln_verdict_may_make(const struct kiln_trust_record *record, const struct kiln_digest *digest,
                          const struct kiln_action *action, uint64_t now_ms, struct kiln_err *err);
// keys: the public keys of record->keys.
int kiln_verdict_open(const struct kiln_trust_record *record, const struct kiln_trust *keys,
                      const struct kiln_verdict_question *question, struct kiln_result *result, struct kiln_err *err);
