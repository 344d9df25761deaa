// The keeper of the trust record: the one in force, refreshed from the store (kiln-vault, key "trust/record"; and the list
// of public packages, key "trust/public"), never older than one that was seen before (the newest is kept in DIR).
//
// A record that is forged, rolled back (version lower than the kept one), forked (the same version with another content),
// expired, or from the future is refused; the last good one stays in force until it expires. The list is judged the same way,
// by itself; a fleet need not have one. Reasons begin with trust_ or public_ and one of: missing, unreachable, forged,
// rolled_back, forked, from_future, expired. Thread-safe; refresh is a thread of its own.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/action.h"
#include "lib/core/result.h"
#include "lib/core/trust_record.h"

struct kiln_keeper;

struct kiln_keeper_options {
    struct kiln_store *store; // borrowed
    const char *dir;          // where the newest record is kept
    const uint8_t (*roots)[KILN_PUBLIC_KEY_BYTES];
    size_t roots_count, threshold;
    uint64_t refresh_ms; // 0: 60 s
    uint64_t least_version; // of the trust record, as told by other means: for who has seen none. 0: any
    uint64_t (*wall_ms)(void); // NULL: the clock; tests give their own
};

struct kiln_keeper_status {
    uint64_t version, issued_ms, expires_ms, generation; // of the record last in force; 0: never one
    uint64_t public_version, public_expires_ms;
    size_t keys_count, principals_count, revocations_count, public_count;
    char trust_refusal[448], public_refusal[448];        // why the last refresh was refused; "" when it was not
};

// Takes up what was kept, and waits at most 2 s for the first refresh; a refusal does not fail it. KILN_E_INVAL: the roots make no
// sense.
int kiln_keeper_open(const struct kiln_keeper_options *options, struct kiln_keeper **keeper, struct kiln_err *err);
// Waits for a request that is under way: as long as the store gives one request.
void kiln_keeper_close(struct kiln_keeper *keeper);
// Now. KILN_E_DENIED: the record or the list was refused; the store's own code when it was not reached. The record is put in
// force also when it could not be kept (KILN_E_IO).
int kiln_keeper_refresh(struct kiln_keeper *keeper, struct kiln_err *err);
void kiln_keeper_status(struct kiln_keeper *keeper, struct kiln_keeper_status *status);
// 0 while a record is in force; else KILN_E_DENIED with the reason ("trust_expired: ...", "trust_rolled_back: ...").
int kiln_keeper_valid(struct kiln_keeper *keeper, struct kiln_err *err);
uint64_t kiln_keeper_generation(struct kiln_keeper *keeper);
bool kiln_keeper_find(void *keeper, const char *principal, struct kiln_principal *found); // fits kiln_kafka_options.find
// Whether the record in force lets that principal sign results with that key now.
bool kiln_keeper_signs(struct kiln_keeper *keeper, const char *principal, const struct kiln_sign_key *key);
// Whether a result of that action, signed now, could be used: KILN_E_DENIED "revoked_toolchain: ...", "revoked_action: ...", or
// why no record is in force.
int kiln_keeper_may_make(struct kiln_keeper *keeper, const struct kiln_digest *digest, const struct kiln_action *action,
                         struct kiln_err *err);
// Whether a signed result may be used now: by lib/fleet/verdict.h and the record in force: signed by a verifier key of the record,
// not expired, generation and scope fit, nothing it names (key, executors of attestations, toolchain parts, action) is revoked,
// and each attestation is signed by the executor it names, of the pool that the record says. KILN_E_CORRUPT "word: detail": it is a miss. KILN_E_DENIED: no record is in force.
int kiln_keeper_open_result(struct kiln_keeper *keeper, const void *envelope, size_t len, const struct kiln_digest *action,
                            const char *scope, uint64_t generation, struct kiln_result *result, struct kiln_err *err);
// Whether a package tree is on the operator's list of public packages.
bool kiln_keeper_is_public(struct kiln_keeper *keeper, const char *package, const struct kiln_digest *tree);
