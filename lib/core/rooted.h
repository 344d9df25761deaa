// An envelope that offline roots sign: the trust record and the list of public packages travel in one.
//
// Form: magic (with its NUL), list of signatures (32 root key id, 64 Ed25519 over the core's bytes) in strictly ascending order
// of the id, field core. It holds when at least `threshold` distinct roots of the reader have signed: a signature of an
// unknown root is passed over, so that old and new roots may sign the same record while the fleet changes them.
// Hostile input: bounded, fuzzed through both users. Thread: re-entrant.
#pragma once

#include "lib/base/buf.h"
#include "lib/core/sign.h"

#define KILN_TRUST_ROOTS_MAX 16u

struct kiln_rooted {
    const char *magic;     // with its NUL it begins the envelope
    const char *what;      // for messages
    size_t core_bytes_max;
};

struct kiln_roots { // borrowed
    const uint8_t (*keys)[KILN_PUBLIC_KEY_BYTES];
    size_t count, threshold;
};

// Puts the signatures of `count` keys into the envelope, each at its place, over an older one of the same key. An empty
// envelope is begun with the core; one of another core is KILN_E_INVAL. On failure the envelope is as before.
int kiln_rooted_sign(const struct kiln_rooted *form, const void *core, size_t core_len,
                     const struct kiln_sign_key *const *keys, size_t count, struct kiln_buf *envelope, struct kiln_err *err);
// *core is borrowed from the envelope. KILN_E_CORRUPT: form, or too few good signatures. KILN_E_INVAL: roots that make no sense.
int kiln_rooted_open(const struct kiln_rooted *form, const void *envelope, size_t len, const struct kiln_roots *roots,
                     const unsigned char **core, size_t *core_len, struct kiln_err *err);
