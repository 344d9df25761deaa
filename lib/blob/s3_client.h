// Requests to an S3 server: signed (sigv4.h), sent by libcurl over connections that are kept, several at once, and repeated
// here and nowhere else.
//
// An exchange is one request and what came of it. It succeeds only when the whole answer arrived with status 200 (204 too for a
// DELETE): a cut, another status, a redirect or a length that is not the announced one is a failure, and so is a content
// without an announced length. Answers are bounded by max_bytes. Sent as they are: the path, no Expect, no Accept, no proxy of the
// environment. Repeated at most twice, with a growing pause: what failed for lack of an answer, 5xx and 429; an exchange marked
// `once` only when no connection came about.
// Errors: KILN_E_NOTFOUND 404; KILN_E_DENIED 401, 403; KILN_E_EXISTS 412, 409; KILN_E_INVAL other 4xx; KILN_E_IO with retriable
// set for no or a cut answer, 5xx, 429; KILN_E_LIMIT; KILN_E_CORRUPT headers that contradict themselves.
// Ownership: everything in a request is borrowed until it is done; kiln_s3_exchange_release frees what came.
// Thread: a client is shared; an exchange is one thread's.
#pragma once

#include "lib/base/buf.h"
#include "lib/blob/s3_xml.h"
#include "lib/blob/sigv4.h"
#include "lib/blob/store_s3.h"

#define KILN_S3_HEADERS_MAX 8u
#define KILN_S3_QUERY_MAX 8u

struct kiln_s3_body { // what a PUT sends; what it announces follows from the bytes (the probe announces something else)
    int fd;           // or -1: data. Read by pread from 0
    const void *data;
    uint64_t size;
    struct kiln_digest digest;
    char md5[KILN_BASE64_LEN(KILN_MD5_BYTES) + 1];
};

int kiln_s3_body_of_fd(int fd, uint64_t max_bytes, struct kiln_s3_body *body, struct kiln_err *err);
int kiln_s3_body_of(const void *data, size_t len, struct kiln_s3_body *body, struct kiln_err *err);

enum kiln_s3_sink { KILN_S3_SINK_NONE, KILN_S3_SINK_BYTES, KILN_S3_SINK_FILE };

struct kiln_s3_exchange {
    // The request.
    const char *method;
    enum kiln_space space; // names the bucket
    const char *key;       // NULL: the bucket itself
    struct kiln_sigv4_pair query[KILN_S3_QUERY_MAX], headers[KILN_S3_HEADERS_MAX]; // header names in lower case
    size_t query_count, headers_count;
    const struct kiln_s3_body *body; // PUT
    enum kiln_s3_sink sink;
    uint64_t max_bytes; // of the answer's content
    bool once;          // has an effect each time it is sent

    // What came of it.
    int rc;
    struct kiln_err err;
    unsigned attempts;
    int status;    // of the last answer, 0: none
    char code[64]; // the server's name for its refusal, "" when it gives none
    char version[KILN_S3_VERSION_ID_MAX + 1], lock_mode[16], etag[80]; // "" when absent
    uint64_t retain_until_ms; // 0: absent
    uint64_t size;            // announced
    bool has_size, delete_marker;
    struct kiln_buf bytes; // SINK_BYTES
    int fd;                // SINK_FILE: read-only or sealed, at offset 0; -1 before
};

void kiln_s3_exchange_init(struct kiln_s3_exchange *exchange, const char *method, enum kiln_space space, const char *key);
void kiln_s3_exchange_release(struct kiln_s3_exchange *exchange);
void kiln_s3_add_query(struct kiln_s3_exchange *exchange, const char *name, const char *value);
void kiln_s3_add_header(struct kiln_s3_exchange *exchange, const char *name, const char *value);

struct kiln_s3_client;

int kiln_s3_client_new(const struct kiln_s3_options *options, struct kiln_s3_client **client, struct kiln_err *err);
void kiln_s3_client_free(struct kiln_s3_client *client);
// Runs all, at most options.parallel at a time; each has its own rc and err.
void kiln_s3_run(struct kiln_s3_client *client, struct kiln_s3_exchange *const *exchanges, size_t count);
// One, its rc returned and its error copied.
int kiln_s3_run_one(struct kiln_s3_client *client, struct kiln_s3_exchange *exchange, struct kiln_err *err);
