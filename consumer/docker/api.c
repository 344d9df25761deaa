#include "consumer/docker/api.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define ANSWER_BYTES_MAX (4u << 20)
#define WORDS_MAX 300
#define VERSION_OLD 41 // of Docker 20.10, the first with private control group namespaces
#define VERSION_NEW 44 // of Docker 25: newer daemons refuse older ones

static size_t take_bytes(char *data, size_t size, size_t count, void *out) {
    return kiln_buf_add(out, data, size * count) ? 0 : size * count;
}

static int transfer_failed(const struct kiln_docker *docker, CURLcode code, struct kiln_err *err) {
    if (code == CURLE_OPERATION_TIMEDOUT)
        return kiln_fail(err, KILN_E_TIMEOUT, "dockerd (%s) did not answer in time", docker->socket);
    if (code == CURLE_WRITE_ERROR)
        return kiln_fail(err, KILN_E_LIMIT, "dockerd (%s) said more than %u bytes", docker->socket, ANSWER_BYTES_MAX);
    return kiln_fail(err, KILN_E_CLOSED, "dockerd (%s): %s", docker->socket, curl_easy_strerror(code));
}

// What the daemon says about a refusal, on one line.
static int refused(long status, const json_t *answer, struct kiln_err *err) {
    char words[WORDS_MAX + 1] = "";
    const char *message = json_string_value(json_object_get(answer, "message"));
    snprintf(words, sizeof words, "%s", message ? message : "it does not say why");
    for (char *at = words; *at; at++)
        if (iscntrl((unsigned char)*at))
            *at = ' ';
    int code = status == 404 ? KILN_E_NOTFOUND : status == 409 ? KILN_E_EXISTS : KILN_E_DENIED;
    return kiln_fail(err, code, "dockerd refuses (%ld): %s", status, words);
}

static int set_request(CURL *curl, const struct kiln_docker *docker, const struct kiln_docker_request *request,
                       const char *url, struct kiln_err *err) {
    int left_ms = kiln_clock_left_ms(request->deadline_ms);
    if (left_ms <= 0)
        return kiln_fail(err, KILN_E_TIMEOUT, "no time left to ask dockerd (%s)", docker->socket);
    curl_easy_reset(curl);
    bool ok = curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, docker->socket) == CURLE_OK &&
              curl_easy_setopt(curl, CURLOPT_URL, url) == CURLE_OK &&
              curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method) == CURLE_OK &&
              curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http") == CURLE_OK &&
              curl_easy_setopt(curl, CURLOPT_PROXY, "") == CURLE_OK &&
              curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
              curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)left_ms) == CURLE_OK;
    return ok ? 0 : kiln_fail(err, KILN_E_INTERNAL, "libcurl refuses a request to dockerd");
}

static int perform(struct kiln_docker *docker, const struct kiln_docker_request *request, const char *url,
                   struct kiln_buf *answer, long *status, struct kiln_err *err) {
    CURL *curl = docker->curl;
    kiln_autofree char *text = request->body ? json_dumps(request->body, JSON_COMPACT) : NULL;
    int rc = set_request(curl, docker, request, url, err);
    if (rc)
        return rc;
    const char *bytes = request->tar ? (const char *)request->tar->data : text ? text : "";
    size_t len = request->tar ? request->tar->len : strlen(bytes);
    struct curl_slist *headers = curl_slist_append(NULL, request->tar ? "Content-Type: application/x-tar"
                                                                      : "Content-Type: application/json");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    if (strcmp(request->method, "POST") == 0) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, bytes);
    }
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    CURLcode code = curl_easy_perform(curl);
    curl_slist_free_all(headers);
    if (code == CURLE_OK)
        code = curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, status);
    return code == CURLE_OK ? 0 : transfer_failed(docker, code, err);
}

int kiln_docker_ask(struct kiln_docker *docker, const struct kiln_docker_request *request, json_t **answer,
                    struct kiln_err *err) {
    kiln_autobuf struct kiln_buf url = KILN_BUF_INIT(8192), bytes = KILN_BUF_INIT(ANSWER_BYTES_MAX);
    kiln_buf_addf(&url, "http://docker%s%s%s", *docker->version ? "/v" : "", docker->version, request->path);
    long status = 0;
    int rc = kiln_buf_check(&url, "a request to dockerd", err);
    if (rc == 0)
        rc = perform(docker, request, kiln_buf_text(&url), &bytes, &status, err);
    if (rc)
        return rc;
    const bool failed = status < 200 || status > 299;
    if (!failed && !answer)
        return 0;
    json_t *parsed = bytes.len ? json_loadb((const char *)bytes.data, bytes.len, 0, NULL) : json_null();
    if (failed)
        rc = refused(status, parsed, err);
    else if (!parsed)
        rc = kiln_fail(err, KILN_E_CORRUPT, "dockerd (%s) answers %s with something else than JSON", docker->socket, request->path);
    if (rc)
        json_decref(parsed);
    else
        *answer = parsed;
    return rc;
}

// Asked by /_ping and not by /version, for which dockerd starts programs.
static int agree_on_version(struct kiln_docker *docker, uint64_t deadline_ms, struct kiln_err *err) {
    const struct kiln_docker_request request = {.method = "GET", .path = "/_ping", .deadline_ms = deadline_ms};
    struct curl_header *header = NULL;
    int newest = 0;
    int rc = kiln_docker_ask(docker, &request, NULL, err);
    if (rc)
        return rc;
    if (curl_easy_header(docker->curl, "Api-Version", 0, CURLH_HEADER, -1, &header) != CURLHE_OK ||
        sscanf(header->value, "1.%d", &newest) != 1 || newest < VERSION_OLD)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "dockerd (%s) is too old: Docker 20.10 or newer is needed", docker->socket);
    snprintf(docker->version, sizeof docker->version, "1.%d", newest < VERSION_NEW ? VERSION_OLD : VERSION_NEW);
    return 0;
}

int kiln_docker_open(const char *socket, uint64_t deadline_ms, struct kiln_docker *docker, struct kiln_err *err) {
    struct kiln_docker opened = {.socket = strdup(socket), .curl = curl_easy_init()};
    int rc = opened.socket && opened.curl ? 0 : kiln_fail(err, KILN_E_NOMEM, "talking to dockerd");
    if (rc == 0)
        rc = agree_on_version(&opened, deadline_ms, err);
    if (rc) {
        kiln_docker_close(&opened);
        return rc;
    }
    *docker = opened;
    return 0;
}

void kiln_docker_close(struct kiln_docker *docker) {
    curl_easy_cleanup(docker->curl);
    free(docker->socket);
    *docker = (struct kiln_docker){0};
}

void kiln_docker_add_quoted(struct kiln_buf *out, const char *text) {
    for (; *text; text++)
        kiln_buf_addf(out, isalnum((unsigned char)*text) ? "%c" : "%%%02X", (unsigned char)*text);
}
