// In whose store a job's result lies: its tenant's, or everybody's.
//
// `public` may be claimed when each pack is a registry package of the operators' list (name and tree), each member of a list
// is public content (verifier/admit.h sees to that, since it reads the lists), and each toolchain part is published. What
// is claimed wrongly is KILN_E_DENIED "scope: ...". A tenant's own scope may always be claimed: it gives nothing away.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/action.h"
#include "verifier/authority.h"

// Without I/O: the claim, and for a public one the packs.
int kiln_scope_check(const struct kiln_authority *authority, const char *tenant, const char *claim,
                     const struct kiln_action *action, struct kiln_err *err);
// For a public claim: asks the store.
int kiln_scope_check_toolchain(struct kiln_store *store, const struct kiln_action *action, struct kiln_err *err);
