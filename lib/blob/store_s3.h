// The store on S3 with object lock: buckets PREFIX-quarantine, PREFIX-inputs, PREFIX-vault (DESIGN section 6).
//
// Requests are signed with our SigV4 (sigv4.h) and go through libcurl with keep-alive connections; bulk transfers of the
// quarantine may go through libs3 where the build has it and `libs3` asks for it (SigV2, every byte checked after).
// Content of a get is a memfd or an unlinked temporary file in `scratch_dir`; digest, size, version and lock are checked
// before the caller sees the descriptor. Retries: idempotent requests, at most twice, in one place (s3_client.c).
// A store remembers (bounded) which content keys it has seen present, so that known content costs no request.
// Errors: KILN_E_NOTFOUND; KILN_E_DENIED (403); KILN_E_CORRUPT (bytes, version or lock are not what they should be);
// KILN_E_IO with retriable set (no answer in time, 5xx). Thread: handles may be shared between threads.
#pragma once

#include "lib/blob/store.h"

struct kiln_s3_options {
    const char *endpoint;      // "http://127.0.0.1:9000" or https
    const char *region;        // "us-east-1"
    const char *bucket_prefix; // "kiln"
    const char *access_key, *secret_key; // copied
    const char *tls_ca;        // PEM file, or NULL for the system's
    const char *scratch_dir;   // absolute; files in it are unlinked at once
    uint64_t connect_ms, request_ms; // 0: 2000, 60000
    bool impatient;            // no second attempt of a request that was not answered in time
    unsigned parallel;         // 0: 16
    uint32_t lock_days;        // retention that a pointer must have at least when it is read; 0: any
    bool libs3;
};

int kiln_store_open_s3(const struct kiln_s3_options *options, enum kiln_store_role role, struct kiln_store **store,
                       struct kiln_err *err);
// What the server honours; a verifier refuses to start unless all hold (KILN_E_UNSUPPORTED names the first that does not).
int kiln_s3_probe(const struct kiln_s3_options *options, struct kiln_err *err);
