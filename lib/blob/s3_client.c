#include "lib/blob/s3_client.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/blob/s3_answer.h"
#include "lib/blob/scratch.h"

#define ATTEMPTS_MAX 3u
#define PAUSE_MS 100u // before the second attempt; four times as long before the third
#define ERROR_BYTES_MAX (16u << 10)
#define SLOW_BYTES_PER_S 1024L
#define SLOW_S 15L
#define LEAST_BYTES_PER_MS 256u // what a transfer is given time for, beyond request_ms
#define LANES_MAX 64u           // kept; one for each thread that asks at the same time

struct transfer {
    CURL *easy;
    struct kiln_s3_client *client;
    struct kiln_s3_exchange *exchange; // NULL: free
    struct curl_slist *headers;
    struct kiln_s3_answer answer;
    struct kiln_buf refusal; // the body of an answer that is no success
    uint64_t sent, received;
    struct kiln_err failure; // of our own making, in a callback
};

// A multi handle with the connections it keeps: one thread's while it is out of the pool.
struct lane {
    CURLM *multi;
    struct lane *next;
    struct transfer transfers[];
};

struct kiln_s3_client {
    char *endpoint, *host, *region, *prefix, *access, *secret, *tls_ca;
    int scratch_dir;
    uint64_t connect_ms, request_ms;
    bool impatient;
    unsigned parallel;
    pthread_mutex_t mutex;
    struct lane *lanes;
    unsigned lanes_count;
};

static const char *const space_names[] = {"quarantine", "inputs", "vault"};

int kiln_s3_body_of(const void *data, size_t len, struct kiln_s3_body *body, struct kiln_err *err) {
    uint8_t md5[KILN_MD5_BYTES];
    int rc = kiln_md5_of(data, len, md5, err);
    if (rc)
        return rc;
    *body = (struct kiln_s3_body){.fd = -1, .data = data, .size = len};
    kiln_digest_of(data, len, &body->digest);
    kiln_base64(md5, sizeof md5, body->md5);
    return 0;
}

int kiln_s3_body_of_fd(int fd, uint64_t max_bytes, struct kiln_s3_body *body, struct kiln_err *err) {
    uint8_t md5[KILN_MD5_BYTES];
    struct kiln_s3_body made = {.fd = fd};
    int rc = kiln_digest_of_fd(fd, max_bytes, &made.digest, &made.size, err);
    if (rc == 0)
        rc = kiln_md5_of_fd(fd, max_bytes, md5, err);
    if (rc)
        return rc;
    kiln_base64(md5, sizeof md5, made.md5);
    *body = made;
    return 0;
}

void kiln_s3_exchange_init(struct kiln_s3_exchange *exchange, const char *method, enum kiln_space space, const char *key) {
    *exchange = (struct kiln_s3_exchange){.method = method, .space = space, .key = key, .fd = -1};
}

void kiln_s3_exchange_release(struct kiln_s3_exchange *exchange) {
    if (exchange->fd >= 0)
        close(exchange->fd);
    exchange->fd = -1;
    kiln_buf_release(&exchange->bytes);
}

void kiln_s3_add_query(struct kiln_s3_exchange *exchange, const char *name, const char *value) {
    if (exchange->query_count == KILN_S3_QUERY_MAX)
        abort();
    exchange->query[exchange->query_count++] = (struct kiln_sigv4_pair){name, value};
}

void kiln_s3_add_header(struct kiln_s3_exchange *exchange, const char *name, const char *value) {
    if (exchange->headers_count == KILN_S3_HEADERS_MAX)
        abort();
    exchange->headers[exchange->headers_count++] = (struct kiln_sigv4_pair){name, value};
}

static size_t send_bytes(char *to, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    const struct kiln_s3_body *body = transfer->exchange->body;
    uint64_t left = body->size - transfer->sent;
    size_t want = size * count < left ? size * count : (size_t)left;
    if (want == 0)
        return 0;
    if (body->fd < 0) {
        memcpy(to, (const char *)body->data + transfer->sent, want);
        transfer->sent += want;
        return want;
    }
    ssize_t got;
    do
        got = pread(body->fd, to, want, (off_t)transfer->sent);
    while (got < 0 && errno == EINTR);
    if (got <= 0) {
        kiln_fail(&transfer->failure, KILN_E_CORRUPT, "the file to be sent ended early");
        return CURL_READFUNC_ABORT;
    }
    transfer->sent += (uint64_t)got;
    return (size_t)got;
}

static int seek_bytes(void *context, curl_off_t offset, int origin) {
    struct transfer *transfer = context;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > transfer->exchange->body->size)
        return CURL_SEEKFUNC_FAIL;
    transfer->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

static size_t take_header(char *line, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    size_t len = size * count;
    if (transfer->received == 0)
        kiln_s3_answer_line(&transfer->answer, line, len);
    if (!transfer->answer.problem)
        return len;
    kiln_fail(&transfer->failure, KILN_E_CORRUPT, "the server's answer: %s", transfer->answer.problem);
    return 0;
}

static int store_content(struct transfer *transfer, const char *data, size_t len) {
    struct kiln_s3_exchange *exchange = transfer->exchange;
    if (exchange->sink == KILN_S3_SINK_NONE)
        return 0; // a few words of the server's; the size is bounded by the caller
    if (exchange->sink == KILN_S3_SINK_BYTES)
        return kiln_buf_add(&exchange->bytes, data, len) ? kiln_fail(&transfer->failure, KILN_E_LIMIT, "too large an answer") : 0;
    int rc = 0;
    if (exchange->fd < 0)
        rc = kiln_scratch_file(transfer->client->scratch_dir, transfer->answer.size, &exchange->fd, &transfer->failure);
    return rc ? rc : kiln_fs_write_all(exchange->fd, data, len, &transfer->failure);
}

static size_t take_content(char *data, size_t size, size_t count, void *context) {
    struct transfer *transfer = context;
    struct kiln_s3_exchange *exchange = transfer->exchange;
    size_t len = size * count;
    uint64_t max = exchange->sink == KILN_S3_SINK_NONE ? ERROR_BYTES_MAX : exchange->max_bytes;
    transfer->received += len;
    if (transfer->answer.status != 200) {
        if (len > ERROR_BYTES_MAX - transfer->refusal.len)
            return transfer->received > 8 * ERROR_BYTES_MAX ? 0 : len; // the rest says nothing
        kiln_buf_add(&transfer->refusal, data, len);
        return len;
    }
    if (transfer->received > max || (transfer->answer.has_size && transfer->answer.size > max)) {
        kiln_fail(&transfer->failure, KILN_E_LIMIT, "the server's answer is larger than %llu bytes", (unsigned long long)max);
        return 0;
    }
    return store_content(transfer, data, len) ? 0 : len;
}

// Path and query as they are signed.
static int make_url(const struct kiln_s3_client *client, const struct kiln_sigv4_request *request, struct kiln_buf *url) {
    kiln_buf_add_str(url, client->endpoint);
    int rc = kiln_sigv4_add_path(url, request->path);
    if (rc || !request->query_count)
        return rc;
    kiln_buf_add_str(url, "?");
    return kiln_sigv4_add_query(url, request->query, request->query_count);
}

static int add_line(struct curl_slist **list, struct kiln_err *err, const char *name, const char *value) {
    kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(8192);
    // An empty value asks libcurl to leave its own header out.
    kiln_buf_addf(&line, *value ? "%s: %s" : "%s:%s", name, value);
    struct curl_slist *grown = line.failed ? NULL : curl_slist_append(*list, kiln_buf_text(&line));
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a header");
    *list = grown;
    return 0;
}

static int add_headers(const struct kiln_sigv4_request *request, const char *date, const char *authorization,
                       struct curl_slist **list, struct kiln_err *err) {
    const struct kiln_sigv4_pair fixed[] = {{"host", request->host},
                                            {"x-amz-date", date},
                                            {"x-amz-content-sha256", request->payload},
                                            {"authorization", authorization},
                                            {"expect", ""},
                                            {"accept", ""},
                                            {"content-type", ""}};
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof fixed / sizeof *fixed; i++)
        rc = add_line(list, err, fixed[i].name, fixed[i].value);
    for (size_t i = 0; !rc && i < request->headers_count; i++)
        rc = add_line(list, err, request->headers[i].name, request->headers[i].value);
    return rc;
}

// Signs anew for each attempt: the time is part of it.
static int sign(struct transfer *transfer, struct kiln_buf *url, struct kiln_err *err) {
    static const char empty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const struct kiln_s3_exchange *exchange = transfer->exchange;
    const struct kiln_s3_client *client = transfer->client;
    kiln_autobuf struct kiln_buf path = KILN_BUF_INIT(8192), authorization = KILN_BUF_INIT(4096);
    struct kiln_sigv4_pair headers[KILN_S3_HEADERS_MAX + 1];
    char payload[KILN_DIGEST_HEX_LEN + 1], date[KILN_SIGV4_DATE_LEN + 1];
    size_t count = exchange->headers_count;
    memcpy(headers, exchange->headers, count * sizeof *headers);
    memcpy(payload, empty, sizeof payload);
    if (exchange->body) {
        kiln_digest_format(&exchange->body->digest, payload);
        headers[count++] = (struct kiln_sigv4_pair){"content-md5", exchange->body->md5};
    }
    kiln_buf_addf(&path, "/%s-%s%s%s", client->prefix, space_names[exchange->space], exchange->key ? "/" : "",
                  exchange->key ? exchange->key : "");
    struct kiln_sigv4_request request = {
        .method = exchange->method, .host = client->host, .path = kiln_buf_text(&path), .query = exchange->query,
        .query_count = exchange->query_count, .headers = headers, .headers_count = count, .payload = payload};
    struct kiln_sigv4_keys keys = {client->access, client->secret, client->region, "s3"};
    time_t now = (time_t)(kiln_clock_wall_ms() / 1000);
    kiln_sigv4_date(now, date);
    int rc = path.failed ? kiln_fail(err, KILN_E_LIMIT, "too long a key") : kiln_sigv4_sign(&keys, &request, now, &authorization, err);
    if (!rc && make_url(client, &request, url))
        rc = kiln_fail(err, KILN_E_LIMIT, "too long a key or query");
    return rc ? rc : add_headers(&request, date, kiln_buf_text(&authorization), &transfer->headers, err);
}

static void set_connection(const struct transfer *transfer) {
    CURL *easy = transfer->easy;
    const struct kiln_s3_client *client = transfer->client;
    const struct kiln_s3_exchange *exchange = transfer->exchange;
    uint64_t bytes = exchange->body ? exchange->body->size : exchange->max_bytes;
    uint64_t total_ms = client->request_ms + bytes / LEAST_BYTES_PER_MS;
    long slow_s = (long)((client->request_ms + 999) / 1000);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, ""); // a variable must not choose whom we talk to
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (client->tls_ca)
        curl_easy_setopt(easy, CURLOPT_CAINFO, client->tls_ca);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)client->connect_ms);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(total_ms < 3600000 ? total_ms : 3600000));
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, SLOW_BYTES_PER_S);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, slow_s < SLOW_S ? slow_s : SLOW_S);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 256L << 10);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10);
}

static void set_request(struct transfer *transfer, const char *url) {
    CURL *easy = transfer->easy;
    const struct kiln_s3_exchange *exchange = transfer->exchange;
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_content);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    if (exchange->body) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)exchange->body->size);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, send_bytes);
        curl_easy_setopt(easy, CURLOPT_READDATA, transfer);
        curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, seek_bytes);
        curl_easy_setopt(easy, CURLOPT_SEEKDATA, transfer);
    } else if (strcmp(exchange->method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    }
    if (!exchange->body || strcmp(exchange->method, "PUT") != 0)
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, exchange->method);
}

static void reset_answer(struct kiln_s3_exchange *exchange) {
    kiln_s3_exchange_release(exchange);
    exchange->bytes = KILN_BUF_INIT(exchange->max_bytes);
    exchange->rc = 0;
    exchange->err = (struct kiln_err){0};
    exchange->status = 0;
    exchange->code[0] = exchange->version[0] = exchange->lock_mode[0] = exchange->etag[0] = 0;
    exchange->retain_until_ms = exchange->size = 0;
    exchange->has_size = exchange->delete_marker = false;
}

static void clear_transfer(struct transfer *transfer) {
    curl_slist_free_all(transfer->headers);
    transfer->headers = NULL;
    transfer->exchange = NULL;
    kiln_buf_release(&transfer->refusal);
}

static int start(struct lane *lane, struct transfer *transfer, struct kiln_s3_client *client, struct kiln_s3_exchange *exchange) {
    kiln_autobuf struct kiln_buf url = KILN_BUF_INIT(64u << 10);
    CURL *easy = transfer->easy;
    reset_answer(exchange);
    *transfer = (struct transfer){.easy = easy, .client = client, .exchange = exchange, .refusal = KILN_BUF_INIT(ERROR_BYTES_MAX)};
    exchange->attempts++;
    curl_easy_reset(easy);
    int rc = sign(transfer, &url, &exchange->err);
    if (rc == 0) {
        set_connection(transfer);
        set_request(transfer, kiln_buf_text(&url));
        if (curl_multi_add_handle(lane->multi, easy) != CURLM_OK)
            rc = kiln_fail(&exchange->err, KILN_E_INTERNAL, "libcurl does not take a request");
    }
    if (rc) {
        exchange->rc = rc;
        clear_transfer(transfer);
    }
    return rc;
}

static int fail_retriable(struct kiln_s3_exchange *exchange, const char *what, const char *why) {
    kiln_fail(&exchange->err, KILN_E_IO, "%s: %s", what, why);
    exchange->err.retriable = true;
    return KILN_E_IO;
}

static int judge_curl(struct transfer *transfer, CURLcode result) {
    struct kiln_s3_exchange *exchange = transfer->exchange;
    if (transfer->failure.code) {
        exchange->err = transfer->failure;
        return transfer->failure.code;
    }
    switch (result) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
        return kiln_fail(&exchange->err, KILN_E_IO, "no safe connection to the store: %s", curl_easy_strerror(result));
    case CURLE_OUT_OF_MEMORY:
        return kiln_fail(&exchange->err, KILN_E_NOMEM, "no memory for a request");
    default:
        return fail_retriable(exchange, "no whole answer from the store", curl_easy_strerror(result));
    }
}

static int judge_status(struct transfer *transfer) {
    struct kiln_s3_exchange *exchange = transfer->exchange;
    int status = exchange->status;
    char what[128];
    kiln_s3_xml_error(transfer->refusal.data, transfer->refusal.len, exchange->code);
    snprintf(what, sizeof what, "%d%s%s", status, exchange->code[0] ? " " : "", exchange->code);
    if (status == 404 || (status == 405 && exchange->delete_marker))
        return kiln_fail(&exchange->err, KILN_E_NOTFOUND, "the store answers %s", what);
    if (status == 401 || status == 403)
        return kiln_fail(&exchange->err, KILN_E_DENIED, "the store answers %s", what);
    if (status == 412 || status == 409)
        return kiln_fail(&exchange->err, KILN_E_EXISTS, "the store answers %s", what);
    if (status >= 500 || status == 429 || status == 408)
        return fail_retriable(exchange, "the store answers", what);
    return kiln_fail(&exchange->err, status >= 400 ? KILN_E_INVAL : KILN_E_IO, "the store answers %s", what);
}

static int judge_content(struct transfer *transfer) {
    struct kiln_s3_exchange *exchange = transfer->exchange;
    bool head = strcmp(exchange->method, "HEAD") == 0;
    if (exchange->sink != KILN_S3_SINK_FILE && !head)
        return exchange->has_size && exchange->size != transfer->received ? fail_retriable(exchange, "the answer", "it is cut") : 0;
    if (!exchange->has_size)
        return kiln_fail(&exchange->err, KILN_E_CORRUPT, "length: the server does not say how long the object is");
    if (head)
        return 0;
    if (exchange->size != transfer->received)
        return fail_retriable(exchange, "the object", "it is cut");
    int rc = exchange->fd >= 0 ? 0 : kiln_scratch_file(transfer->client->scratch_dir, 0, &exchange->fd, &exchange->err);
    return rc ? rc : kiln_scratch_seal(&exchange->fd, &exchange->err);
}

static void judge(struct transfer *transfer, CURLcode result) {
    struct kiln_s3_exchange *exchange = transfer->exchange;
    const struct kiln_s3_answer *answer = &transfer->answer;
    bool wanted = answer->status == 200 || (answer->status == 204 && strcmp(exchange->method, "DELETE") == 0);
    exchange->status = answer->status;
    exchange->size = answer->size;
    exchange->has_size = answer->has_size;
    exchange->delete_marker = answer->delete_marker;
    exchange->retain_until_ms = answer->retain_until_ms;
    memcpy(exchange->version, answer->version, sizeof exchange->version);
    memcpy(exchange->lock_mode, answer->lock_mode, sizeof exchange->lock_mode);
    memcpy(exchange->etag, answer->etag, sizeof exchange->etag);
    if (result != CURLE_OK)
        exchange->rc = judge_curl(transfer, result);
    else
        exchange->rc = wanted ? judge_content(transfer) : judge_status(transfer);
    // A server may answer before it has read all of what is sent: then nothing of it counts.
    if (exchange->rc == 0 && exchange->body && transfer->sent != exchange->body->size)
        exchange->rc = fail_retriable(exchange, "the store answers", "before it has the object");
    if (exchange->rc && exchange->fd >= 0) {
        close(exchange->fd);
        exchange->fd = -1;
    }
}

static bool may_repeat(const struct kiln_s3_client *client, const struct kiln_s3_exchange *exchange, CURLcode result) {
    if (exchange->rc == 0 || !exchange->err.retriable || exchange->attempts >= ATTEMPTS_MAX)
        return false;
    if (result == CURLE_OPERATION_TIMEDOUT && client->impatient)
        return false;
    return !exchange->once || result == CURLE_COULDNT_CONNECT || result == CURLE_COULDNT_RESOLVE_HOST;
}

// One call's exchanges, those that wait for another attempt among them.
struct round {
    struct kiln_s3_client *client;
    struct lane *lane;
    struct kiln_s3_exchange *const *exchanges;
    uint64_t *due_ms; // 0: not to be started (any more)
    size_t count, left, running;
};

static struct transfer *free_transfer(const struct round *round) {
    for (size_t i = 0; i < round->client->parallel; i++)
        if (!round->lane->transfers[i].exchange)
            return &round->lane->transfers[i];
    return NULL;
}

// Starts what is due, and says when the next is.
static uint64_t start_due(struct round *round, uint64_t now_ms) {
    uint64_t next_ms = UINT64_MAX;
    for (size_t i = 0; i < round->count && round->running < round->client->parallel; i++) {
        if (round->due_ms[i] == 0)
            continue;
        if (round->due_ms[i] > now_ms) {
            next_ms = round->due_ms[i] < next_ms ? round->due_ms[i] : next_ms;
            continue;
        }
        round->due_ms[i] = 0;
        if (start(round->lane, free_transfer(round), round->client, round->exchanges[i]))
            round->left--;
        else
            round->running++;
    }
    return next_ms;
}

static void finish(struct round *round, CURL *easy, CURLcode result) {
    struct transfer *transfer = NULL;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&transfer);
    struct kiln_s3_exchange *exchange = transfer->exchange;
    judge(transfer, result);
    curl_multi_remove_handle(round->lane->multi, easy);
    clear_transfer(transfer);
    round->running--;
    if (!may_repeat(round->client, exchange, result)) {
        round->left--;
        return;
    }
    uint64_t pause_ms = exchange->attempts == 1 ? PAUSE_MS : 4 * PAUSE_MS;
    for (size_t i = 0; i < round->count; i++)
        if (round->exchanges[i] == exchange)
            round->due_ms[i] = kiln_clock_ms() + pause_ms;
}

static void run_round(struct round *round) {
    while (round->left) {
        uint64_t now_ms = kiln_clock_ms(), next_ms = start_due(round, now_ms);
        int running, pending;
        CURLMcode rc = curl_multi_perform(round->lane->multi, &running);
        for (CURLMsg *message; (message = curl_multi_info_read(round->lane->multi, &pending));)
            if (message->msg == CURLMSG_DONE)
                finish(round, message->easy_handle, message->data.result);
        uint64_t wait_ms = next_ms > now_ms && next_ms - now_ms < 1000 ? next_ms - now_ms : 1000;
        bool more = round->left > round->running && round->running < round->client->parallel && next_ms == UINT64_MAX;
        if (rc == CURLM_OK && round->left && !more)
            rc = curl_multi_poll(round->lane->multi, NULL, 0, (int)wait_ms, NULL);
        if (rc != CURLM_OK)
            abort(); // a handle that is none, or no memory for a poll: the callers' descriptors could not be given back
    }
}

static void free_lane(struct kiln_s3_client *client, struct lane *lane) {
    for (size_t i = 0; i < client->parallel; i++)
        curl_easy_cleanup(lane->transfers[i].easy);
    curl_multi_cleanup(lane->multi);
    free(lane);
}

static struct lane *new_lane(struct kiln_s3_client *client) {
    struct lane *lane = calloc(1, sizeof *lane + client->parallel * sizeof *lane->transfers);
    if (!lane)
        return NULL;
    lane->multi = curl_multi_init();
    bool whole = lane->multi != NULL;
    for (size_t i = 0; i < client->parallel; i++)
        whole &= (lane->transfers[i].easy = curl_easy_init()) != NULL;
    if (!whole) {
        free_lane(client, lane);
        return NULL;
    }
    curl_multi_setopt(lane->multi, CURLMOPT_MAXCONNECTS, (long)client->parallel);
    return lane;
}

static struct lane *take_lane(struct kiln_s3_client *client) {
    pthread_mutex_lock(&client->mutex);
    struct lane *lane = client->lanes;
    if (lane) {
        client->lanes = lane->next;
        client->lanes_count--;
    }
    pthread_mutex_unlock(&client->mutex);
    return lane ? lane : new_lane(client);
}

static void give_lane(struct kiln_s3_client *client, struct lane *lane) {
    pthread_mutex_lock(&client->mutex);
    bool keep = client->lanes_count < LANES_MAX;
    if (keep) {
        lane->next = client->lanes;
        client->lanes = lane;
        client->lanes_count++;
    }
    pthread_mutex_unlock(&client->mutex);
    if (!keep)
        free_lane(client, lane);
}

void kiln_s3_run(struct kiln_s3_client *client, struct kiln_s3_exchange *const *exchanges, size_t count) {
    if (count == 0)
        return;
    kiln_autofree uint64_t *due_ms = calloc(count, sizeof *due_ms);
    struct lane *lane = due_ms ? take_lane(client) : NULL;
    for (size_t i = 0; i < count; i++) {
        exchanges[i]->attempts = 0;
        if (lane)
            due_ms[i] = 1;
        else
            exchanges[i]->rc = kiln_fail(&exchanges[i]->err, KILN_E_NOMEM, "no memory for a request");
    }
    if (!lane)
        return;
    struct round round = {.client = client, .lane = lane, .exchanges = exchanges, .due_ms = due_ms, .count = count, .left = count};
    run_round(&round);
    give_lane(client, lane);
}

int kiln_s3_run_one(struct kiln_s3_client *client, struct kiln_s3_exchange *exchange, struct kiln_err *err) {
    kiln_s3_run(client, &exchange, 1);
    if (exchange->rc && err)
        *err = exchange->err;
    return exchange->rc;
}

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static void start_curl(void) {
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        abort();
}

// Scheme, host and port, and nothing else; *host as the Host header has it.
static int check_endpoint(const char *endpoint, char **host, struct kiln_err *err) {
    bool secure = strncmp(endpoint, "https://", 8) == 0;
    const char *at = secure ? endpoint + 8 : strncmp(endpoint, "http://", 7) == 0 ? endpoint + 7 : NULL;
    size_t len = at ? strspn(at, "abcdefghijklmnopqrstuvwxyz0123456789.-_:[]") : 0;
    if (!at || len == 0 || at[len] || len > 255)
        return kiln_fail(err, KILN_E_INVAL, "the endpoint is http(s)://host[:port] in lower case, without a path: \"%s\"", endpoint);
    const char *standard = secure ? ":443" : ":80";
    size_t tail = strlen(standard);
    if (len > tail && strcmp(at + len - tail, standard) == 0)
        len -= tail;
    *host = strndup(at, len);
    return *host ? 0 : kiln_fail(err, KILN_E_NOMEM, "no memory for a client");
}

static int check_prefix(const char *prefix, struct kiln_err *err) {
    size_t len = strspn(prefix, "abcdefghijklmnopqrstuvwxyz0123456789-");
    if (len == 0 || prefix[len] || len > 40 || *prefix == '-')
        return kiln_fail(err, KILN_E_INVAL, "a bucket prefix is 1 to 40 of a-z, 0-9 and -: \"%s\"", prefix);
    return 0;
}

static int copy_options(struct kiln_s3_client *client, const struct kiln_s3_options *options, struct kiln_err *err) {
    int rc = check_endpoint(options->endpoint, &client->host, err);
    if (rc == 0)
        rc = check_prefix(options->bucket_prefix, err);
    if (rc)
        return rc;
    client->endpoint = strdup(options->endpoint);
    client->region = strdup(options->region);
    client->prefix = strdup(options->bucket_prefix);
    client->access = strdup(options->access_key);
    client->secret = strdup(options->secret_key);
    client->tls_ca = options->tls_ca ? strdup(options->tls_ca) : NULL;
    client->impatient = options->impatient;
    client->connect_ms = options->connect_ms ? options->connect_ms : 2000;
    client->request_ms = options->request_ms ? options->request_ms : 60000;
    client->parallel = options->parallel ? options->parallel : 16;
    if (client->parallel > 256)
        client->parallel = 256;
    if (!client->endpoint || !client->region || !client->prefix || !client->access || !client->secret ||
        (options->tls_ca && !client->tls_ca))
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a client");
    return kiln_fs_open_dir(options->scratch_dir, &client->scratch_dir, err);
}

int kiln_s3_client_new(const struct kiln_s3_options *options, struct kiln_s3_client **client, struct kiln_err *err) {
    pthread_once(&curl_once, start_curl);
    struct kiln_s3_client *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a client");
    made->scratch_dir = -1;
    pthread_mutex_init(&made->mutex, NULL);
    int rc = copy_options(made, options, err);
    if (rc) {
        kiln_s3_client_free(made);
        return rc;
    }
    *client = made;
    return 0;
}

void kiln_s3_client_free(struct kiln_s3_client *client) {
    if (!client)
        return;
    while (client->lanes) {
        struct lane *lane = client->lanes;
        client->lanes = lane->next;
        free_lane(client, lane);
    }
    if (client->secret)
        explicit_bzero(client->secret, strlen(client->secret));
    char *texts[] = {client->endpoint, client->host, client->region, client->prefix, client->access, client->secret, client->tls_ca};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    if (client->scratch_dir >= 0)
        close(client->scratch_dir);
    pthread_mutex_destroy(&client->mutex);
    free(client);
}
