// AWS Signature Version 4 for S3, in the Authorization header ("Authenticating Requests: Using the Authorization
// Header", Amazon S3 API Reference).
//
// A request is given as it means, unencoded; what is signed and what is sent come from one encoder, so that they cannot
// differ. Every header that is given is signed. `host`, `x-amz-date` and `x-amz-content-sha256` are added here and must not be
// given; headers that the transport adds later ("Accept", "User-Agent") are not signed. Pure: the time is an argument.
// Thread: re-entrant.
#pragma once

#include <time.h>

#include "lib/base/buf.h"

#define KILN_SIGV4_PAIRS_MAX 16u
#define KILN_SIGV4_DATE_LEN 16 // "20130524T000000Z"

struct kiln_sigv4_pair {
    const char *name;  // headers: lower case
    const char *value; // query: "" for a flag
};

struct kiln_sigv4_request {
    const char *method;
    const char *host; // as the Host header has it: no default port
    const char *path; // "/BUCKET/KEY", unencoded
    const struct kiln_sigv4_pair *query, *headers; // any order
    size_t query_count, headers_count;
    const char *payload; // lower-case hex SHA-256 of the body
};

struct kiln_sigv4_keys {
    const char *access, *secret, *region, *service;
};

// Appends the path with every byte but A-Z a-z 0-9 - . _ ~ and the slash percent-encoded.
int kiln_sigv4_add_path(struct kiln_buf *out, const char *path);
// Appends the query in the order and encoding that are signed: "a=1&b=".
int kiln_sigv4_add_query(struct kiln_buf *out, const struct kiln_sigv4_pair *query, size_t count);
void kiln_sigv4_date(time_t now, char date[KILN_SIGV4_DATE_LEN + 1]);
// The canonical request, and the names of the headers that it signs (for tests and for the authorization).
int kiln_sigv4_canonical(const struct kiln_sigv4_request *request, const char *date, struct kiln_buf *out, struct kiln_buf *signed_names);
// The value of the Authorization header. KILN_E_INVAL for more than KILN_SIGV4_PAIRS_MAX pairs or a header value with
// control characters; KILN_E_LIMIT when the buffer is too small.
int kiln_sigv4_sign(const struct kiln_sigv4_keys *keys, const struct kiln_sigv4_request *request, time_t now,
                    struct kiln_buf *authorization, struct kiln_err *err);
