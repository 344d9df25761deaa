// Kinds of revocation, by the words of the command line.
#pragma once

#include "lib/core/trust_record.h"

int kiln_revoked_parse(const char *word, enum kiln_revoked *kind, struct kiln_err *err);
const char *kiln_revoked_name(enum kiln_revoked kind);
