// The attestation that a candidate carries: the executor signs it, the verifier takes it into the result (lib/core/result.h).
// Thread: re-entrant.
#pragma once

#include "lib/core/result.h"
#include "lib/wire/records.h"

// What the candidate's executor attests: its names, time and signature, and the digest of the outputs as it claims them.
// The texts are the candidate's and live as long as it does.
int kiln_candidate_attestation(const struct kiln_candidate *candidate, struct kiln_attestation *attestation,
                               struct kiln_err *err);
// Signs a finished candidate; afterwards nothing in it that is attested may change.
int kiln_candidate_sign(struct kiln_candidate *candidate, const struct kiln_sign_key *key, struct kiln_err *err);
