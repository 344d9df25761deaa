// What a build used the last time: actions, in the order of first use. Unsigned, and only a hint what to fetch early: all that
// is fetched is checked as if it had been asked for by name.
//
// Encoding: "kiln-hints-1\0", be32 count, per action u8 scope (0 tenant, 1 public) and 32 bytes of digest; nothing after that.
// Hostile input: agents of the same tenant write them where all of them may (quarantine, in/TENANT/hints/BUILD/NUMBER).
// Ownership: the struct owns its list. Thread: re-entrant.
#pragma once

#include <stdbool.h>

#include "lib/base/buf.h"
#include "lib/core/digest.h"

#define KILN_HINTS_MAX 8192u
#define KILN_HINTS_BYTES_MAX (17u + 33u * KILN_HINTS_MAX)

struct kiln_hint {
    struct kiln_digest action;
    bool is_public;
};

struct kiln_hints {
    struct kiln_hint *all;
    size_t count;
};

void kiln_hints_release(struct kiln_hints *hints);
bool kiln_hints_have(const struct kiln_hints *hints, const struct kiln_digest *action);
// Already there, or no more room: nothing happens.
int kiln_hints_add(struct kiln_hints *hints, const struct kiln_hint *hint, struct kiln_err *err);
int kiln_hints_encode(const struct kiln_hints *hints, struct kiln_buf *out, struct kiln_err *err);
// Strict: KILN_E_CORRUPT for what encode does not give. *hints (zeroed) is untouched on failure.
int kiln_hints_decode(const void *data, size_t len, struct kiln_hints *hints, struct kiln_err *err);
