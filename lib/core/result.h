// The result core: what an action gave, in the canonical form that is signed; and its signed envelope.
//
// Core encoding: "kiln-result-1\0" 32 action, field scope, be64 generation, be64 issued_ms, be64 expires_ms,
//   u8 outcome, be32 exit_code, field executor, field pool, field backend, 32 outputs digest (see below),
//   be32 count + outputs (u8 kind, u8 executable, field name, be64 size, 32 digest),
//   be32 count + closure stems (field), be32 count + reasons (field), be32 reserved (0; room for a transparency-log leaf
//   and a partial mark).
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

struct kiln_result {
    struct kiln_digest action;
    char *scope;
    uint64_t generation, issued_ms, expires_ms; // wall clock, Unix ms; expires 0 = never (embedded default)
    enum kiln_outcome outcome;
    int32_t exit_code;
    char *executor, *pool, *backend; // attestation of the run
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
int kiln_result_finish(struct kiln_result *result, struct kiln_err *err); // sorts, checks, refuses duplicates
int kiln_result_encode(const struct kiln_result *result, struct kiln_buf *out, struct kiln_err *err);
int kiln_result_decode(const void *data, size_t len, struct kiln_result *result, struct kiln_err *err); // strict

int kiln_result_seal(const struct kiln_result *result, const struct kiln_sign_key *key, struct kiln_buf *envelope,
                     struct kiln_err *err);
// Opens an envelope: known key, good signature, strict core, and the action asked for. Anything else: KILN_E_CORRUPT.
int kiln_result_open(const void *envelope, size_t len, const struct kiln_trust *trust, const struct kiln_digest *action,
                     struct kiln_result *result, struct kiln_err *err);
