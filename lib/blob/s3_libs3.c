#include "lib/blob/s3_libs3.h"

#include <stdlib.h>
#include <string.h>

#ifdef KILN_WITH_LIBS3

#include <curl/curl.h>
#include <libs3.h>
#include <pthread.h>
#include <strings.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/blob/s3_answer.h"
#include "lib/blob/scratch.h"

#define ATTEMPTS_MAX 3

struct kiln_libs3 {
    char *host, *bucket, *access, *secret, *tls_ca;
    S3Protocol protocol;
    int scratch_dir;
    uint64_t connect_ms, request_ms;
};

// What is on its way in this thread: libs3 calls libcurl, and libcurl is called by kiln_libs3_perform.
struct transfer {
    const struct kiln_libs3 *libs3;
    const struct kiln_s3_body *body;
    uint64_t sent, received, announced, max_bytes;
    bool has_length;
    int fd;
    char etag[80];
    CURLcode result;
    long status;
    S3Status said;
    struct kiln_err err;
};

static _Thread_local struct transfer *current;

// The name that the build gives to libs3's curl_easy_perform.
CURLcode kiln_libs3_perform(CURL *easy);

// Options of libs3's own are overridden, and what really happened is kept.
CURLcode kiln_libs3_perform(CURL *easy) {
    struct transfer *transfer = current;
    if (!transfer)
        abort(); // libs3 is called from here only
    const struct kiln_libs3 *libs3 = transfer->libs3;
    uint64_t bytes = transfer->body ? transfer->body->size : transfer->max_bytes;
    uint64_t total_ms = libs3->request_ms + bytes / 256;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (libs3->tls_ca)
        curl_easy_setopt(easy, CURLOPT_CAINFO, libs3->tls_ca);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)libs3->connect_ms);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(total_ms < 3600000 ? total_ms : 3600000));
    curl_easy_setopt(easy, CURLOPT_EXPECT_100_TIMEOUT_MS, 1L); // it asks for 100-continue; nobody needs it
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    transfer->result = curl_easy_perform(easy);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &transfer->status);
    // Not by libs3's callback: it may leave out the headers of an answer without a body.
    struct curl_header *etag;
    if (curl_easy_header(easy, "ETag", 0, CURLH_HEADER, -1, &etag) == CURLHE_OK && strlen(etag->value) < sizeof transfer->etag)
        memcpy(transfer->etag, etag->value, strlen(etag->value) + 1);
    return transfer->result;
}

static S3Status take_properties(const S3ResponseProperties *properties, void *context) {
    struct transfer *transfer = context;
    transfer->announced = properties->contentLength;
    return S3StatusOK;
}

static void take_end(S3Status status, const S3ErrorDetails *details, void *context) {
    (void)details;
    ((struct transfer *)context)->said = status;
}

static int send_bytes(int size, char *to, void *context) {
    struct transfer *transfer = context;
    const struct kiln_s3_body *body = transfer->body;
    uint64_t left = body->size - transfer->sent;
    size_t want = (uint64_t)size < left ? (size_t)size : (size_t)left;
    if (body->fd < 0) {
        memcpy(to, (const char *)body->data + transfer->sent, want);
    } else if (want) {
        ssize_t got = pread(body->fd, to, want, (off_t)transfer->sent);
        if (got <= 0) {
            kiln_fail(&transfer->err, KILN_E_CORRUPT, "the file to be sent ended early");
            return -1;
        }
        want = (size_t)got;
    }
    transfer->sent += want;
    return (int)want;
}

static S3Status take_bytes(int size, const char *data, void *context) {
    struct transfer *transfer = context;
    transfer->received += (uint64_t)size;
    if (transfer->received > transfer->max_bytes)
        kiln_fail(&transfer->err, KILN_E_LIMIT, "the server's answer is larger than %llu bytes", (unsigned long long)transfer->max_bytes);
    else if (transfer->fd < 0)
        kiln_scratch_file(transfer->libs3->scratch_dir, transfer->announced, &transfer->fd, &transfer->err);
    if (transfer->err.code == 0)
        kiln_fs_write_all(transfer->fd, data, (size_t)size, &transfer->err);
    return transfer->err.code ? S3StatusAbortedByCallback : S3StatusOK;
}

static S3BucketContext bucket_of(const struct kiln_libs3 *libs3) {
    return (S3BucketContext){.hostName = libs3->host, .bucketName = libs3->bucket, .protocol = libs3->protocol,
                             .uriStyle = S3UriStylePath, .accessKeyId = libs3->access, .secretAccessKey = libs3->secret};
}

// libs3's own word counts least: it calls a PUT that succeeded ConnectionFailed when the server sent no 100 before.
static bool believable(const struct transfer *transfer) {
    return transfer->said == S3StatusOK || (transfer->body && transfer->said == S3StatusConnectionFailed);
}

static int judge(struct transfer *transfer, const char *key, struct kiln_err *err) {
    int rc;
    if (transfer->err.code) {
        if (err)
            *err = transfer->err;
        return transfer->err.code;
    }
    if (transfer->result == CURLE_OK && transfer->status == 200 && believable(transfer))
        return 0;
    if (transfer->result == CURLE_OK && transfer->status == 404)
        return kiln_fail(err, KILN_E_NOTFOUND, "object %s: the store answers 404", key);
    if (transfer->result == CURLE_OK && (transfer->status == 403 || transfer->status == 401))
        return kiln_fail(err, KILN_E_DENIED, "object %s: the store answers %ld", key, transfer->status);
    bool unsafe = transfer->result == CURLE_PEER_FAILED_VERIFICATION || transfer->result == CURLE_SSL_CACERT_BADFILE;
    rc = kiln_fail(err, KILN_E_IO, "object %s through libs3: %s, HTTP status %ld, %s", key, curl_easy_strerror(transfer->result),
                   transfer->status, S3_get_status_name(transfer->said));
    if (err)
        err->retriable = !unsafe && (transfer->result != CURLE_OK || transfer->status >= 500 || transfer->status == 429);
    return rc;
}

// An ETag of 32 hex digits is the MD5 of a plain PUT; others (multipart, encrypted) say nothing.
static bool etag_contradicts(const char *etag, const char *md5_base64) {
    char quoteless[33], found[KILN_BASE64_LEN(KILN_MD5_BYTES) + 1];
    uint8_t md5[KILN_MD5_BYTES];
    const char *text = *etag == '"' ? etag + 1 : etag;
    size_t len = strspn(text, "0123456789abcdefABCDEF");
    if (len != 32 || (text[32] && strcmp(text + 32, "\"") != 0))
        return false;
    memcpy(quoteless, text, 32);
    quoteless[32] = 0;
    for (size_t i = 0; i < sizeof md5; i++) {
        char pair[3] = {quoteless[2 * i], quoteless[2 * i + 1], 0};
        md5[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    kiln_base64(md5, sizeof md5, found);
    return strcmp(found, md5_base64) != 0;
}

int kiln_libs3_put(struct kiln_libs3 *libs3, const char *key, const struct kiln_s3_body *body, struct kiln_err *err) {
    S3BucketContext bucket = bucket_of(libs3);
    S3PutProperties properties = {.md5 = body->md5, .expires = -1, .cannedAcl = S3CannedAclPrivate};
    S3PutObjectHandler handler = {{take_properties, take_end}, send_bytes};
    int rc = KILN_E_INTERNAL;
    struct kiln_err why = {0};
    for (unsigned attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        struct transfer transfer = {.libs3 = libs3, .body = body, .fd = -1, .result = CURLE_FAILED_INIT, .said = S3StatusInternalError};
        current = &transfer;
        S3_put_object(&bucket, key, body->size, &properties, NULL, &handler, &transfer);
        current = NULL;
        rc = judge(&transfer, key, &why);
        if (rc == 0 && transfer.sent != body->size)
            rc = kiln_fail(&why, KILN_E_IO, "object %s: the store answers before it has it", key);
        if (rc == 0 && etag_contradicts(transfer.etag, body->md5))
            rc = kiln_fail(&why, KILN_E_CORRUPT, "object %s: the store has bytes with another MD5", key);
        if (rc == 0 || !why.retriable)
            break;
    }
    if (rc && err)
        *err = why;
    return rc;
}

int kiln_libs3_get(struct kiln_libs3 *libs3, const char *key, uint64_t max_bytes, int *fd, uint64_t *size, struct kiln_err *err) {
    S3BucketContext bucket = bucket_of(libs3);
    S3GetConditions conditions = {.ifModifiedSince = -1, .ifNotModifiedSince = -1};
    S3GetObjectHandler handler = {{take_properties, take_end}, take_bytes};
    int rc = KILN_E_INTERNAL;
    struct kiln_err why = {0};
    for (unsigned attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        struct transfer transfer = {.libs3 = libs3, .max_bytes = max_bytes, .fd = -1, .result = CURLE_FAILED_INIT, .said = S3StatusInternalError};
        current = &transfer;
        S3_get_object(&bucket, key, &conditions, 0, 0, NULL, &handler, &transfer);
        current = NULL;
        kiln_autofd int got = transfer.fd;
        rc = judge(&transfer, key, &why);
        if (rc == 0 && transfer.announced != transfer.received) {
            rc = kiln_fail(&why, KILN_E_IO, "object %s: it is cut", key);
            why.retriable = true;
        }
        if (rc == 0 && got < 0)
            rc = kiln_scratch_file(libs3->scratch_dir, 0, &got, &why);
        if (rc == 0)
            rc = kiln_scratch_seal(&got, &why);
        if (rc == 0) {
            *fd = kiln_steal_fd(&got);
            *size = transfer.received;
        }
        if (rc == 0 || !why.retriable)
            break;
    }
    if (rc && err)
        *err = why;
    return rc;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static S3Status started;
static void start(void) { started = S3_initialize("kiln", S3_INIT_ALL, NULL); }

int kiln_libs3_new(const struct kiln_s3_options *options, struct kiln_libs3 **libs3, struct kiln_err *err) {
    pthread_once(&once, start);
    if (started != S3StatusOK)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "libs3 does not start: %s", S3_get_status_name(started));
    struct kiln_libs3 *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for libs3");
    bool secure = strncmp(options->endpoint, "https://", 8) == 0;
    kiln_autobuf struct kiln_buf bucket = KILN_BUF_INIT(256);
    kiln_buf_addf(&bucket, "%s-quarantine", options->bucket_prefix);
    made->scratch_dir = -1;
    made->protocol = secure ? S3ProtocolHTTPS : S3ProtocolHTTP;
    made->host = strdup(options->endpoint + (secure ? 8 : 7)); // the client has checked the endpoint's form
    made->bucket = strdup(kiln_buf_text(&bucket));
    made->access = strdup(options->access_key);
    made->secret = strdup(options->secret_key);
    made->tls_ca = options->tls_ca ? strdup(options->tls_ca) : NULL;
    made->connect_ms = options->connect_ms ? options->connect_ms : 2000;
    made->request_ms = options->request_ms ? options->request_ms : 60000;
    int rc = kiln_fs_open_dir(options->scratch_dir, &made->scratch_dir, err);
    if (rc == 0 && (!made->host || !made->bucket || !made->access || !made->secret || (options->tls_ca && !made->tls_ca)))
        rc = kiln_fail(err, KILN_E_NOMEM, "no memory for libs3");
    if (rc) {
        kiln_libs3_free(made);
        return rc;
    }
    *libs3 = made;
    return 0;
}

void kiln_libs3_free(struct kiln_libs3 *libs3) {
    if (!libs3)
        return;
    if (libs3->secret)
        explicit_bzero(libs3->secret, strlen(libs3->secret));
    char *texts[] = {libs3->host, libs3->bucket, libs3->access, libs3->secret, libs3->tls_ca};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    if (libs3->scratch_dir >= 0)
        close(libs3->scratch_dir);
    free(libs3);
}

#else

int kiln_libs3_new(const struct kiln_s3_options *options, struct kiln_libs3 **libs3, struct kiln_err *err) {
    (void)options, (void)libs3;
    return kiln_fail(err, KILN_E_UNSUPPORTED, "this build has no libs3 (KILN_WITH_LIBS3)");
}

void kiln_libs3_free(struct kiln_libs3 *libs3) { (void)libs3; } // never made

int kiln_libs3_put(struct kiln_libs3 *libs3, const char *key, const struct kiln_s3_body *body, struct kiln_err *err) {
    (void)libs3, (void)body;
    return kiln_fail(err, KILN_E_UNSUPPORTED, "object %s: this build has no libs3", key);
}

int kiln_libs3_get(struct kiln_libs3 *libs3, const char *key, uint64_t max_bytes, int *fd, uint64_t *size, struct kiln_err *err) {
    (void)libs3, (void)max_bytes, (void)fd, (void)size;
    return kiln_fail(err, KILN_E_UNSUPPORTED, "object %s: this build has no libs3", key);
}

#endif
