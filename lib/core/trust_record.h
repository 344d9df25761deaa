// The trust record: who is who in a fleet, which generation is current, and what is revoked. Signed by offline roots.
//
// Core encoding (canonical, golden vectors in schemas/canonical.md; notation of that page): "kiln-trust-1\0", be64 version,
//   be64 issued_ms, be64 expires_ms, be64 generation, list of verifier keys (text principal, 32 public key, be64 not_after_ms),
//   list of principals (text name, u8 role, text tenant, text pool, 32 public record key), list of revocations (u8 kind,
//   text what, be64 since_ms, be64 until_ms). Keys are strictly ascending by public key, principals by name, revocations by (kind, what).
//   An agent has a tenant, an executor a pool, others neither; every principal but a reader has a record key, and no two
//   the same. Envelope: lib/core/rooted.h with "kiln-trust-signed-1\0".
// A reader refuses a record that is older than one it has seen (version), expired, or not yet issued: then everything is
// compiled locally. Revocation of an executor, key, toolchain or action makes results that name it misses, never errors.
// Ownership: struct owns its lists. Thread: re-entrant.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/core/digest.h"
#include "lib/core/rooted.h"
#include "lib/core/sign.h"

#define KILN_PRINCIPAL_BYTES 65 // a letter or digit, then letters, digits, '.', '_', '-'; and its NUL
#define KILN_TRUST_BYTES_MAX (8u << 20)
#define KILN_TRUST_KEYS_MAX 64u
#define KILN_TRUST_PRINCIPALS_MAX 16384u
#define KILN_TRUST_REVOCATIONS_MAX 16384u

enum kiln_role { KILN_ROLE_OF_NOBODY, KILN_ROLE_OF_AGENT, KILN_ROLE_OF_VERIFIER, KILN_ROLE_OF_EXECUTOR, KILN_ROLE_OF_READER,
                 KILN_ROLE_OF_OPERATOR };

struct kiln_principal {
    char name[KILN_PRINCIPAL_BYTES];
    enum kiln_role role;
    char tenant[KILN_PRINCIPAL_BYTES]; // agents; else ""
    char pool[KILN_PRINCIPAL_BYTES];   // executors; else ""
    uint8_t record_key[KILN_PUBLIC_KEY_BYTES]; // of the kiln-sig of its records and of its attestations
};

struct kiln_verifier_key {
    char principal[KILN_PRINCIPAL_BYTES];
    uint8_t public_key[KILN_PUBLIC_KEY_BYTES];
    uint64_t not_after_ms;
};

enum kiln_revoked { KILN_REVOKED_KEY = 1, KILN_REVOKED_EXECUTOR = 2, KILN_REVOKED_TOOLCHAIN = 3, KILN_REVOKED_ACTION = 4,
                    KILN_REVOKED_PRINCIPAL = 5 };
struct kiln_revocation {
    enum kiln_revoked kind;
    char what[65];     // hex of a key id, toolchain part or action; name of an executor or principal
    uint64_t since_ms; // results issued from then on are void; 0: all
    uint64_t until_ms; // of a toolchain or action: those issued from then on are good again; 0: none
};

struct kiln_trust_record {
    uint64_t version, issued_ms, expires_ms, generation;
    struct kiln_verifier_key *keys;
    size_t keys_count;
    struct kiln_principal *principals;
    size_t principals_count;
    struct kiln_revocation *revocations;
    size_t revocations_count;
};
void kiln_trust_record_release(struct kiln_trust_record *record);
#define kiln_autotrust_record __attribute__((cleanup(kiln_trust_record_release)))

// What may be a principal, tenant or pool. KILN_E_INVAL names `what`.
int kiln_principal_check_name(const char *name, const char *what, struct kiln_err *err);
void kiln_trust_record_sort(struct kiln_trust_record *record); // before encoding one that was put together by hand

int kiln_trust_record_encode(const struct kiln_trust_record *record, struct kiln_buf *out, struct kiln_err *err);
int kiln_trust_record_decode(const void *data, size_t len, struct kiln_trust_record *record, struct kiln_err *err); // strict
// Adds the signature of one root to an envelope (an empty one is begun with the core).
int kiln_trust_record_sign(const struct kiln_trust_record *record, const struct kiln_sign_key *const *roots, size_t count,
                           struct kiln_buf *envelope, struct kiln_err *err);
// KILN_E_CORRUPT: form, or fewer than `threshold` good signatures of distinct roots. Time and version are the caller's.
int kiln_trust_record_open(const void *envelope, size_t len, const uint8_t (*roots)[KILN_PUBLIC_KEY_BYTES], size_t roots_count,
                           size_t threshold, struct kiln_trust_record *record, struct kiln_err *err);
// NULL when absent, or revoked itself, as an executor or by its record key, since whenever.
const struct kiln_principal *kiln_trust_record_find(const struct kiln_trust_record *record, const char *name);
// Also a revoked one: to check what it signed before.
const struct kiln_principal *kiln_trust_record_enrolled(const struct kiln_trust_record *record, const char *name);
const struct kiln_verifier_key *kiln_trust_record_key(const struct kiln_trust_record *record, const struct kiln_digest *id);
bool kiln_trust_record_revokes(const struct kiln_trust_record *record, enum kiln_revoked kind, const char *what,
                               uint64_t issued_ms);
