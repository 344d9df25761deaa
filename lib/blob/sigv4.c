#include "lib/blob/sigv4.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/core/digest.h"

#define CANONICAL_MAX (64u << 10)
#define OWN_HEADERS 3

static void encode(struct kiln_buf *out, const char *text, const char *plain) {
    static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (; *text; text++) {
        if (strchr(unreserved, *text) || strchr(plain, *text))
            kiln_buf_add(out, text, 1);
        else
            kiln_buf_addf(out, "%%%02X", (unsigned char)*text);
    }
}

int kiln_sigv4_add_path(struct kiln_buf *out, const char *path) {
    encode(out, path, "/");
    return out->failed ? KILN_E_LIMIT : 0;
}

// Sorted by name, then value, both as they are encoded: the encoding keeps the order of bytes except around '%', so the
// encoded forms are compared.
struct encoded {
    struct kiln_buf name, value;
};

static int by_encoding(const void *a, const void *b) {
    struct encoded *one = (struct encoded *)a, *other = (struct encoded *)b;
    int order = strcmp(kiln_buf_text(&one->name), kiln_buf_text(&other->name));
    return order ? order : strcmp(kiln_buf_text(&one->value), kiln_buf_text(&other->value));
}

int kiln_sigv4_add_query(struct kiln_buf *out, const struct kiln_sigv4_pair *query, size_t count) {
    struct encoded pairs[KILN_SIGV4_PAIRS_MAX];
    if (count > KILN_SIGV4_PAIRS_MAX)
        return KILN_E_INVAL;
    bool failed = false;
    for (size_t i = 0; i < count; i++) {
        pairs[i] = (struct encoded){KILN_BUF_INIT(CANONICAL_MAX), KILN_BUF_INIT(CANONICAL_MAX)};
        encode(&pairs[i].name, query[i].name, "");
        encode(&pairs[i].value, query[i].value, "");
        failed |= pairs[i].name.failed || pairs[i].value.failed;
    }
    qsort(pairs, count, sizeof *pairs, by_encoding);
    for (size_t i = 0; i < count; i++) {
        kiln_buf_addf(out, "%s%s=%s", i ? "&" : "", kiln_buf_text(&pairs[i].name), kiln_buf_text(&pairs[i].value));
        kiln_buf_release(&pairs[i].name);
        kiln_buf_release(&pairs[i].value);
    }
    return out->failed || failed ? KILN_E_LIMIT : 0;
}

void kiln_sigv4_date(time_t now, char date[KILN_SIGV4_DATE_LEN + 1]) {
    struct tm utc;
    gmtime_r(&now, &utc);
    if (strftime(date, KILN_SIGV4_DATE_LEN + 1, "%Y%m%dT%H%M%SZ", &utc) != KILN_SIGV4_DATE_LEN)
        abort(); // a year of five digits
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct kiln_sigv4_pair *)a)->name, ((const struct kiln_sigv4_pair *)b)->name);
}

// Leading and trailing blanks go, runs of blanks become one.
static void add_trimmed(struct kiln_buf *out, const char *value) {
    bool blank = false, begun = false;
    for (; *value; value++) {
        if (*value == ' ' || *value == '\t') {
            blank = begun;
            continue;
        }
        if (blank)
            kiln_buf_add_str(out, " ");
        kiln_buf_add(out, value, 1);
        blank = false;
        begun = true;
    }
}

int kiln_sigv4_canonical(const struct kiln_sigv4_request *request, const char *date, struct kiln_buf *out,
                         struct kiln_buf *signed_names) {
    struct kiln_sigv4_pair headers[KILN_SIGV4_PAIRS_MAX + OWN_HEADERS] = {
        {"host", request->host}, {"x-amz-content-sha256", request->payload}, {"x-amz-date", date}};
    size_t count = OWN_HEADERS;
    if (request->headers_count > KILN_SIGV4_PAIRS_MAX)
        return KILN_E_INVAL;
    for (size_t i = 0; i < request->headers_count; i++)
        headers[count++] = request->headers[i];
    qsort(headers, count, sizeof *headers, by_name);

    kiln_buf_addf(out, "%s\n", request->method);
    kiln_sigv4_add_path(out, request->path);
    kiln_buf_add_str(out, "\n");
    int rc = kiln_sigv4_add_query(out, request->query, request->query_count);
    kiln_buf_add_str(out, "\n");
    for (size_t i = 0; i < count; i++) {
        kiln_buf_addf(out, "%s:", headers[i].name);
        add_trimmed(out, headers[i].value);
        kiln_buf_add_str(out, "\n");
        kiln_buf_addf(signed_names, "%s%s", i ? ";" : "", headers[i].name);
    }
    kiln_buf_addf(out, "\n%s\n%s", kiln_buf_text(signed_names), request->payload);
    return rc ? rc : out->failed || signed_names->failed ? KILN_E_LIMIT : 0;
}

static void signing_key(const struct kiln_sigv4_keys *keys, const char *day, struct kiln_digest *key) {
    kiln_autobuf struct kiln_buf first = KILN_BUF_INIT(1024);
    kiln_buf_addf(&first, "AWS4%s", keys->secret);
    kiln_hmac(first.data, first.len, day, strlen(day), key);
    const char *const parts[] = {keys->region, keys->service, "aws4_request"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct kiln_digest next;
        kiln_hmac(key->bytes, sizeof key->bytes, parts[i], strlen(parts[i]), &next);
        *key = next;
    }
    if (first.data)
        explicit_bzero(first.data, first.len);
}

static int check_values(const struct kiln_sigv4_request *request, struct kiln_err *err) {
    for (size_t i = 0; i < request->headers_count; i++)
        for (const char *at = request->headers[i].value; *at; at++)
            if ((unsigned char)*at < 0x20 || *at == 0x7f)
                return kiln_fail(err, KILN_E_INVAL, "header %s has a control character", request->headers[i].name);
    return 0;
}

int kiln_sigv4_sign(const struct kiln_sigv4_keys *keys, const struct kiln_sigv4_request *request, time_t now,
                    struct kiln_buf *authorization, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf canonical = KILN_BUF_INIT(CANONICAL_MAX), names = KILN_BUF_INIT(CANONICAL_MAX);
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(4096);
    char date[KILN_SIGV4_DATE_LEN + 1], day[9], hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_sigv4_date(now, date);
    snprintf(day, sizeof day, "%.8s", date);
    int rc = check_values(request, err);
    if (rc)
        return rc;
    if ((rc = kiln_sigv4_canonical(request, date, &canonical, &names)))
        return kiln_fail(err, rc, "a request has too many or too long parts to be signed");
    struct kiln_digest digest, key, signature;
    kiln_digest_of(canonical.data, canonical.len, &digest);
    kiln_digest_format(&digest, hex);
    kiln_buf_addf(&text, "AWS4-HMAC-SHA256\n%s\n%s/%s/%s/aws4_request\n%s", date, day, keys->region, keys->service, hex);
    if ((rc = kiln_buf_check(&text, "a string to sign", err)))
        return rc;
    signing_key(keys, day, &key);
    kiln_hmac(key.bytes, sizeof key.bytes, text.data, text.len, &signature);
    kiln_digest_format(&signature, hex);
    kiln_buf_addf(authorization, "AWS4-HMAC-SHA256 Credential=%s/%s/%s/%s/aws4_request,SignedHeaders=%s,Signature=%s",
                  keys->access, day, keys->region, keys->service, kiln_buf_text(&names), hex);
    return kiln_buf_check(authorization, "an authorization header", err);
}
