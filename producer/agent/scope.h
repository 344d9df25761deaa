// The scope in which a unit's result is looked for: the tenant's, or `public` when all that goes in is known to be public.
//
// Only a guess that saves a round: the verifier computes it again from what it has itself, and rejects a wrong claim. What
// this host knows: the operator's list of packages (lib/fleet/keeper.h), and the libraries that public results gave it.
#pragma once

#include "lib/core/result.h"
#include "lib/fleet/keeper.h"
#include "producer/agent/l0.h"
#include "producer/agent/unit.h"

#define KILN_SCOPE_PUBLIC "public"

bool kiln_scope_is_public(struct kiln_keeper *keeper, struct kiln_l0 *l0, const struct kiln_unit *unit);
void kiln_scope_remember_library(struct kiln_l0 *l0, const struct kiln_result *result, const struct kiln_digest *library);
