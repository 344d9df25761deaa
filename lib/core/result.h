// The result core: what an action gave, in the canonical form that is signed; and its signed envelope.
//
// Core encoding: "kiln-result-2\0" 32 action, text scope, be64 generation, be64 issued_ms, be64 expires_ms, text profile,
//   32 each of the toolchain's runtime, rustc and link part, text policy ("agreement=2"), u8 outcome, be32 exit_code,
//   32 input tree digest (SHA-256 of the encoded inputs of the action), 32 outputs digest, list of outputs (u8 kind, u8 executable, text name,
//   be64 size, 32 digest), 32 bundle digest (zero: none), be64 bundle size, text bundle pin,
//   list of attestations (text executor, text pool, text backend, be64 at_ms, 32 outputs digest, 64 signature),
//   list of closure stems (text), list of reasons (text), list of transparency-log leaves (none yet; at most 1 of 32 bytes), u8 partial (0).
// An attestation's signature is Ed25519 by the executor's record key over "kiln-attest-1\0" 32 action, text executor, text pool,
//   text backend, be64 at_ms, 32 outputs digest. The embedded executor has no key: 64 zero bytes, and scope "local".
// The bundle (lib/blob/bundle.h) holds all outputs of a result in one object.
// Envelope: "kiln-signed-1\0" field key_id (the 32-byte SHA-256 of the public key), field core, field signature (64).
// The signature is Ed25519 (RFC 8032) over the core bytes. outputs digest = SHA-256 of the encoded outputs part.
// Outputs are sorted by (kind, name); names are canonical relative paths without slash, except STDOUT and STDERR whose
// name is empty. Closure stems ("libfoo-0123abcd") say which libraries a dependant needs beside this one; sorted, as
// the reasons are.
#pragma once

#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/core/digest.h"
#include "lib/core/sign.h"

#define KILN_RESULT_BYTES_MAX (1u << 20)
#define KILN_RESULT_OUTPUTS_MAX 4096u
#define KILN_RESULT_STEMS_MAX 16384u
#define KILN_RESULT_REASONS_MAX 256u
#define KILN_RESULT_ATTESTATIONS_MAX 16u

enum kiln_outcome {
    KILN_OUTCOME_SUCCESS = 1, // exit 0, outputs complete
    KILN_OUTCOME_LOCAL = 2,   // must be compiled where it is: reasons say why; no outputs
};

enum kiln_output_kind { KILN_OUTPUT_FILE = 1, KILN_OUTPUT_STDOUT = 2, KILN_OUTPUT_STDERR = 3 };

struct kiln_output {
    enum kiln_output_kind kind;
    bool executable;
    char *name;
    uint64_t size;
    struct kiln_digest digest;
};

struct kiln_attestation { // who says that the action gave these outputs
    char *executor, *pool, *backend;
    uint64_t at_ms; // wall clock of the executor
    struct kiln_digest outputs;
    uint8_t signature[KILN_SIGNATURE_BYTES];
};

struct kiln_result {
    struct kiln_digest action;
    char *scope;
    uint64_t generation, issued_ms, expires_ms; // wall clock, Unix ms; expires 0 = never (embedded default)
    enum kiln_outcome outcome;
    int32_t exit_code;
    char *profile;
    struct kiln_digest toolchain_runtime, toolchain_rustc, toolchain_link, inputs;
    char *policy; // what was asked for before it was signed: "agreement=1"
    struct kiln_attestation *attestations; // at least one
    size_t attestations_count;
    struct kiln_digest bundle; // zero: each output is an object of its own
    uint64_t bundle_size;
    char *bundle_pin;          // "" where the store has no versions
    struct kiln_output *outputs;
    size_t outputs_count;
    char **closure;
    size_t closure_count;
    char **reasons; // "undeclared_path: /etc/x"; empty for SUCCESS
    size_t reasons_count;
};

void kiln_result_release(struct kiln_result *result);
#define kiln_autoresult __attribute__((cleanup(kiln_result_release)))
int kiln_result_add_output(struct kiln_result *result, enum kiln_output_kind kind, const char *name, bool executable,
                           uint64_t size, const struct kiln_digest *digest, struct kiln_err *err);
int kiln_result_add_closure(struct kiln_result *result, const char *stem, struct kiln_err *err);
int kiln_result_add_reason(struct kiln_result *result, const char *reason, struct kiln_err *err);
int kiln_result_add_attestation(struct kiln_result *result, const struct kiln_attestation *attestation, struct kiln_err *err); // copies
// The digest that attestations and agreement are about: SHA-256 of the encoded, sorted outputs list.
int kiln_result_outputs_digest(const struct kiln_output *outputs, size_t count, struct kiln_digest *digest, struct kiln_err *err);
int kiln_attestation_sign(struct kiln_attestation *attestation, const struct kiln_digest *action, const struct kiln_sign_key *key,
                          struct kiln_err *err);
int kiln_attestation_check(const struct kiln_attestation *attestation, const struct kiln_digest *action,
                           const uint8_t public_key[KILN_PUBLIC_KEY_BYTES], struct kiln_err *err);
int kiln_result_finish(struct kiln_result *result, struct kiln_err *err); // sorts, checks, refuses duplicates
int kiln_result_encode(const struct kiln_result *result, struct kiln_buf *out, struct kiln_err *err);
int kiln_result_decode(const void *data, size_t len, struct kiln_result *result, struct kiln_err *err); // strict

int kiln_result_seal(const struct kiln_result *result, const struct kiln_sign_key *key, struct kiln_buf *envelope,
                     struct kiln_err *err);
// Opens an envelope: known key, good signature, strict core, and the action asked for. Anything else: KILN_E_CORRUPT.
int kiln_result_open(const void *envelope, size_t len, const struct kiln_trust *trust, const struct kiln_digest *action,
                     struct kiln_result *result, struct kiln_err *err);
