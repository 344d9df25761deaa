// Who may vouch, for whom, and for how long: the trust record in a fleet (lib/fleet/keeper.h), and in the embedded default
// the verifier's own word, which never ends. Thread: re-entrant.
#pragma once

#include "lib/fleet/keeper.h"

#define KILN_GENERATION_EMBEDDED 1

struct kiln_authority {
    struct kiln_keeper *keeper; // NULL: the embedded default, which needs none of the others
    const char *principal;      // of this verifier
    const struct kiln_sign_key *key;
};

// 0 while this verifier may sign; else KILN_E_DENIED "trust_...: detail", trust_signer when it is only this one that may not.
int kiln_authority_valid(const struct kiln_authority *authority, struct kiln_err *err);
// 0 while a result of that action may be signed; else KILN_E_DENIED with what is revoked.
int kiln_authority_may_make(const struct kiln_authority *authority, const struct kiln_digest *digest,
                            const struct kiln_action *action, struct kiln_err *err);
uint64_t kiln_authority_generation(const struct kiln_authority *authority);
// false: not, or not any more, a principal. In the embedded default everybody is one.
bool kiln_authority_knows(const struct kiln_authority *authority, const char *principal);
bool kiln_authority_is_public(const struct kiln_authority *authority, const char *package, const struct kiln_digest *tree);
