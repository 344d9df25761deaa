#include "lib/fleet/verdict.h"

#include <inttypes.h>
#include <string.h>

#define ENVELOPE_MAGIC_BYTES sizeof "kiln-signed-1"

static bool revokes_digest(const struct kiln_trust_record *record, enum kiln_revoked kind,
                           const struct kiln_digest *digest, uint64_t issued_ms) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(digest, hex);
    return kiln_trust_record_revokes(record, kind, hex, issued_ms);
}

// Which key an envelope says it is signed by. Only what kiln_result_open() then verifies makes it true.
static int find_signer(const struct kiln_trust_record *record, const struct kiln_verdict_question *question,
                       struct kiln_digest *id, const struct kiln_verifier_key **key, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(question->envelope, question->len);
    kiln_read_bytes(&reader, ENVELOPE_MAGIC_BYTES);
    size_t len;
    const unsigned char *bytes = kiln_read_field(&reader, sizeof id->bytes, &len);
    if (!bytes || len != sizeof id->bytes)
        return kiln_fail(err, KILN_E_CORRUPT, "signature: not a signed result");
    memcpy(id->bytes, bytes, len);
    *key = kiln_trust_record_key(record, id);
    if (!*key) {
        char hex[KILN_DIGEST_HEX_LEN + 1];
        kiln_digest_format(id, hex);
        return kiln_fail(err, KILN_E_CORRUPT, "unknown_key: %.16s is no verifier's", hex);
    }
    if (question->now_ms > (*key)->not_after_ms)
        return kiln_fail(err, KILN_E_CORRUPT, "key_expired: the key of %s", (*key)->principal);
    return 0;
}

static int check_place(const struct kiln_result *result, const struct kiln_verdict_question *question,
                       struct kiln_err *err) {
    if (strcmp(result->scope, question->scope) != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "scope: the result is of %s, not of %s", result->scope, question->scope);
    if (result->generation != question->generation)
        return kiln_fail(err, KILN_E_CORRUPT, "generation: the result is of %" PRIu64 ", not of %" PRIu64,
                         result->generation, question->generation);
    if (question->now_ms >= result->expires_ms) // also what never expires: that is for the embedded default
        return kiln_fail(err, KILN_E_CORRUPT, "expired: the result was good until %" PRIu64, result->expires_ms);
    return 0;
}

static int check_signer(const struct kiln_trust_record *record, const struct kiln_digest *id,
                        const struct kiln_verifier_key *key, uint64_t issued_ms, struct kiln_err *err) {
    if (revokes_digest(record, KILN_REVOKED_KEY, id, issued_ms))
        return kiln_fail(err, KILN_E_CORRUPT, "revoked_key: the key of %s", key->principal);
    if (kiln_trust_record_revokes(record, KILN_REVOKED_PRINCIPAL, key->principal, issued_ms))
        return kiln_fail(err, KILN_E_CORRUPT, "revoked_principal: verifier %s", key->principal);
    return 0;
}

// What a result is of: runtime, rustc and link part of the toolchain, and the action.
static int check_subject(const struct kiln_trust_record *record, const struct kiln_digest *const parts[3],
                         const struct kiln_digest *action, uint64_t issued_ms, struct kiln_err *err) {
    static const char *const names[] = {"runtime", "rustc", "link"};
    for (size_t i = 0; i < 3; i++)
        if (revokes_digest(record, KILN_REVOKED_TOOLCHAIN, parts[i], issued_ms))
            return kiln_fail(err, KILN_E_CORRUPT, "revoked_toolchain: the %s part", names[i]);
    if (revokes_digest(record, KILN_REVOKED_ACTION, action, issued_ms))
        return kiln_fail(err, KILN_E_CORRUPT, "revoked_action: the action itself");
    return 0;
}

int kiln_verdict_may_make(const struct kiln_trust_record *record, const struct kiln_digest *digest,
                          const struct kiln_action *action, uint64_t now_ms, struct kiln_err *err) {
    const struct kiln_digest *const parts[] = {&action->toolchain_runtime, &action->toolchain_rustc, &action->toolchain_link};
    struct kiln_err why = {0};
    return check_subject(record, parts, digest, now_ms, &why) ? kiln_fail(err, KILN_E_DENIED, "%s", why.text) : 0;
}

static int check_executor(const struct kiln_trust_record *record, const struct kiln_result *result,
                          const struct kiln_attestation *attestation, struct kiln_err *err) {
    const char *name = attestation->executor;
    const struct kiln_principal *executor = kiln_trust_record_enrolled(record, name);
    if (!executor || executor->role != KILN_ROLE_OF_EXECUTOR)
        return kiln_fail(err, KILN_E_CORRUPT, "attestation: %s is no executor", name);
    struct kiln_digest key_id;
    kiln_digest_of(executor->record_key, sizeof executor->record_key, &key_id);
    if (kiln_trust_record_revokes(record, KILN_REVOKED_EXECUTOR, name, result->issued_ms) ||
        kiln_trust_record_revokes(record, KILN_REVOKED_PRINCIPAL, name, result->issued_ms) ||
        revokes_digest(record, KILN_REVOKED_KEY, &key_id, result->issued_ms))
        return kiln_fail(err, KILN_E_CORRUPT, "revoked_executor: %s", name);
    if (strcmp(executor->pool, attestation->pool) != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "attestation: %s is of pool %s, not of %s", name, executor->pool,
                         attestation->pool);
    if (kiln_attestation_check(attestation, &result->action, executor->record_key, NULL))
        return kiln_fail(err, KILN_E_CORRUPT, "attestation: %s did not sign it", name);
    return 0;
}

int kiln_verdict_open(const struct kiln_trust_record *record, const struct kiln_trust *keys,
                      const struct kiln_verdict_question *question, struct kiln_result *result, struct kiln_err *err) {
    struct kiln_digest signer;
    const struct kiln_verifier_key *key = NULL;
    kiln_autoresult struct kiln_result opened = {0};
    int rc = find_signer(record, question, &signer, &key, err);
    if (rc)
        return rc;
    rc = kiln_result_open(question->envelope, question->len, keys, question->action, &opened, err);
    if (rc)
        return rc == KILN_E_NOMEM ? rc : kiln_wrap(err, KILN_E_CORRUPT, "signature");
    rc = check_place(&opened, question, err);
    if (!rc)
        rc = check_signer(record, &signer, key, opened.issued_ms, err);
    const struct kiln_digest *const parts[] = {&opened.toolchain_runtime, &opened.toolchain_rustc, &opened.toolchain_link};
    if (!rc)
        rc = check_subject(record, parts, &opened.action, opened.issued_ms, err);
    // That they name these outputs, and are of as many pools as the policy says, is part of a result's form.
    for (size_t i = 0; !rc && i < opened.attestations_count; i++)
        rc = check_executor(record, &opened, &opened.attestations[i], err);
    if (rc)
        return rc;
    *result = opened;
    opened = (struct kiln_result){0};
    return 0;
}
