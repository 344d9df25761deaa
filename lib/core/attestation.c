// Who says that an action gave these outputs: what an executor signs, and its check (result.h).
#include <string.h>

#include "lib/core/list.h"
#include "lib/core/result.h"

static const char magic[] = "kiln-attest-1"; // with its NUL

#define STATEMENT_BYTES_MAX 1024u // three names of at most 255 bytes, and what is fixed

static int encode(const struct kiln_attestation *attestation, const struct kiln_digest *action, struct kiln_buf *out,
                  struct kiln_err *err) {
    kiln_buf_add(out, magic, sizeof magic);
    kiln_buf_add_digest(out, action);
    kiln_buf_add_field_str(out, attestation->executor);
    kiln_buf_add_field_str(out, attestation->pool);
    kiln_buf_add_field_str(out, attestation->backend);
    kiln_buf_add_be64(out, attestation->at_ms);
    kiln_buf_add_digest(out, &attestation->outputs);
    return kiln_buf_check(out, "an attestation", err);
}

int kiln_attestation_sign(struct kiln_attestation *attestation, const struct kiln_digest *action,
                          const struct kiln_sign_key *key, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf statement = KILN_BUF_INIT(STATEMENT_BYTES_MAX);
    int rc = encode(attestation, action, &statement, err);
    return rc ? rc : kiln_sign(key, statement.data, statement.len, attestation->signature, err);
}

int kiln_attestation_check(const struct kiln_attestation *attestation, const struct kiln_digest *action,
                           const uint8_t public_key[KILN_PUBLIC_KEY_BYTES], struct kiln_err *err) {
    kiln_autobuf struct kiln_buf statement = KILN_BUF_INIT(STATEMENT_BYTES_MAX);
    int rc = encode(attestation, action, &statement, err);
    return rc ? rc : kiln_verify(public_key, statement.data, statement.len, attestation->signature, err);
}
