#include "lib/wire/attested.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"

_Static_assert(sizeof(struct kiln_attestation_bytes) == KILN_SIGNATURE_BYTES, "a signature");

static int digest_claims(const struct kiln_candidate *candidate, struct kiln_digest *digest, struct kiln_err *err) {
    kiln_autofree struct kiln_output *outputs = calloc(candidate->outputs_count + 1, sizeof *outputs);
    if (!outputs)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the outputs of a candidate");
    for (size_t i = 0; i < candidate->outputs_count; i++) {
        const struct kiln_candidate_output *claim = &candidate->outputs[i];
        outputs[i] = (struct kiln_output){.kind = (enum kiln_output_kind)claim->kind, .executable = claim->executable,
                                          .name = claim->name, .size = claim->size, .digest = claim->digest};
    }
    return kiln_result_outputs_digest(outputs, candidate->outputs_count, digest, err);
}

int kiln_candidate_attestation(const struct kiln_candidate *candidate, struct kiln_attestation *attestation,
                               struct kiln_err *err) {
    struct kiln_attestation made = {.executor = candidate->executor, .pool = candidate->pool,
                                    .backend = candidate->backend, .at_ms = candidate->at_ms};
    memcpy(made.signature, candidate->signature.bytes, sizeof made.signature);
    int rc = digest_claims(candidate, &made.outputs, err);
    if (!rc)
        *attestation = made;
    return rc;
}

int kiln_candidate_sign(struct kiln_candidate *candidate, const struct kiln_sign_key *key, struct kiln_err *err) {
    struct kiln_attestation attestation;
    int rc = kiln_candidate_attestation(candidate, &attestation, err);
    if (!rc)
        rc = kiln_attestation_sign(&attestation, &candidate->action_digest, key, err);
    if (!rc)
        memcpy(candidate->signature.bytes, attestation.signature, sizeof attestation.signature);
    return rc;
}
