// The table of system calls as texts. Pure.
#pragma once

#include "lib/base/buf.h"

// What its digest is taken of: rule by rule, without the words for people.
int kiln_calls_canonical(struct kiln_buf *out, struct kiln_err *err);
// consumer/policy/README.md.
int kiln_calls_page(struct kiln_buf *out, struct kiln_err *err);
