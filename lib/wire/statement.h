// kiln-sig: who wrote a record. A consumer of Kafka cannot see that, and a body field proves nothing.
//
// The header's value: "kiln-sig-1\0", field principal, 16 bytes incarnation, be64 sequence, be64 at_ms, 64 bytes Ed25519
// over: "kiln-statement-1\0", field topic name, be32 partition, field key, 32 bytes SHA-256 of the record's value, then
// the header's bytes before the signature. Golden vectors in schemas/canonical.md.
// Hostile input: checked in constant memory; fuzzed. Thread: re-entrant.
#pragma once

#include "lib/core/trust_record.h"
#include "lib/wire/records.h"

#define KILN_STATEMENT_BYTES_MAX 256u

// Whose record it is, from its signature (or, on the embedded bus, from its connection); never from a body.
struct kiln_author {
    enum kiln_role role;
    char principal[KILN_PRINCIPAL_BYTES], tenant[KILN_PRINCIPAL_BYTES], pool[KILN_PRINCIPAL_BYTES];
    struct kiln_job_id incarnation; // of the writing process
    uint64_t sequence, at_ms;       // rising within an incarnation; wall clock of the writer
};

struct kiln_statement {
    const char *topic;
    uint32_t partition;
    const void *key, *value;
    size_t key_len, value_len;
};

int kiln_statement_sign(const struct kiln_statement *statement, const struct kiln_author *author,
                        const struct kiln_sign_key *key, struct kiln_buf *header, struct kiln_err *err);
// Reads the name that a header claims, to look it up.
int kiln_statement_principal(const void *header, size_t len, char principal[KILN_PRINCIPAL_BYTES], struct kiln_err *err);
// KILN_E_DENIED with a text "signature: ..." unless the header is of that principal and holds for the statement.
int kiln_statement_check(const struct kiln_statement *statement, const void *header, size_t len,
                         const struct kiln_principal *principal, struct kiln_author *author, struct kiln_err *err);
