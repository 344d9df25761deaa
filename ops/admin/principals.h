// A list of principals as operators write it: one a line, `NAME ROLE TENANT POOL RECORD_KEY [SIGNING_KEY]`.
//
// ROLE is agent, verifier, executor, reader or operator; `-` stands for no tenant or pool; keys are 64 hex digits (the .pub file
// that `kiln-admin key new` makes); only a verifier has a signing key, and must. "#" begins a comment. A principal that the
// record has already is put in place of it; a new signing key of a verifier is added to its others.
#pragma once

#include "lib/core/trust_record.h"

int kiln_principals_parse(const char *text, size_t len, uint64_t key_not_after_ms, struct kiln_trust_record *record,
                          struct kiln_err *err);
int kiln_principals_role(const char *word, enum kiln_role *role); // -1: no such role
const char *kiln_principals_role_name(enum kiln_role role);
