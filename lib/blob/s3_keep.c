#include "lib/blob/s3_keep.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"

#define ADOPT_TRIES 4u // versions of the right size whose bytes are looked at

enum put_how { PUT_CREATE, PUT_OVER };

// One PUT that states its lock.
struct locked_put {
    struct kiln_s3_exchange exchange;
    char until[KILN_S3_TIME_LEN + 1];
};

static void begin_put(struct locked_put *put, const char *key, const struct kiln_s3_body *body, uint64_t until_ms, enum put_how how) {
    kiln_s3_exchange_init(&put->exchange, "PUT", KILN_SPACE_VAULT, key);
    put->exchange.body = body;
    put->exchange.once = how == PUT_OVER;
    if (how == PUT_CREATE)
        kiln_s3_add_header(&put->exchange, "if-none-match", "*");
    if (until_ms) {
        kiln_s3_time_format(until_ms, put->until);
        kiln_s3_add_header(&put->exchange, "x-amz-object-lock-mode", "COMPLIANCE");
        kiln_s3_add_header(&put->exchange, "x-amz-object-lock-retain-until-date", put->until);
    }
}

static int end_put(struct locked_put *put, struct kiln_pin *pin, struct kiln_err *err) {
    const struct kiln_s3_exchange *exchange = &put->exchange;
    int rc = exchange->rc;
    if (rc && err)
        *err = exchange->err;
    if (rc == 0 && (!exchange->version[0] || strcmp(exchange->version, "null") == 0))
        rc = kiln_fail(err, KILN_E_UNSUPPORTED, "version: the server gave none to %s", exchange->key);
    if (rc == 0)
        snprintf(pin->text, sizeof pin->text, "%s", exchange->version);
    kiln_s3_exchange_release(&put->exchange);
    return rc;
}

static int put_version(struct kiln_s3_client *client, const char *key, const struct kiln_s3_body *body, uint64_t until_ms,
                       enum put_how how, struct kiln_pin *pin, unsigned *attempts, struct kiln_err *err) {
    struct locked_put put;
    begin_put(&put, key, body, until_ms, how);
    kiln_s3_run_one(client, &put.exchange, NULL);
    if (attempts)
        *attempts = put.exchange.attempts;
    return end_put(&put, pin, err);
}

// What the server now says of that version; only this makes a pin.
static void begin_confirm(struct kiln_s3_exchange *exchange, const char *key, const struct kiln_pin *pin) {
    kiln_s3_exchange_init(exchange, "HEAD", KILN_SPACE_VAULT, key);
    kiln_s3_add_query(exchange, "versionId", pin->text);
}

static int end_confirm(struct kiln_s3_exchange *exchange, const struct kiln_pin *pin, uint64_t size, uint64_t until_ms, struct kiln_err *err) {
    int rc = exchange->rc;
    if (rc && err)
        *err = exchange->err;
    if (rc == 0)
        rc = kiln_s3_check_version(exchange, pin, err);
    if (rc == 0)
        rc = kiln_s3_check_lock(exchange, until_ms, err);
    if (rc == 0 && exchange->size != size)
        rc = kiln_fail(err, KILN_E_CORRUPT, "length: %s has %llu bytes, not %llu", exchange->key, (unsigned long long)exchange->size,
                       (unsigned long long)size);
    kiln_s3_exchange_release(exchange);
    return rc;
}

static int confirm(struct kiln_s3_client *client, const char *key, const struct kiln_pin *pin, uint64_t size, uint64_t until_ms,
                   struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    begin_confirm(&exchange, key, pin);
    kiln_s3_run_one(client, &exchange, NULL);
    return end_confirm(&exchange, pin, size, until_ms, err);
}

static int put_confirmed(struct kiln_s3_client *client, const char *key, const struct kiln_s3_body *body, uint64_t until_ms,
                         enum put_how how, struct kiln_pin *pin, unsigned *attempts, struct kiln_err *err) {
    struct kiln_pin made = {0};
    int rc = put_version(client, key, body, until_ms, how, &made, attempts, err);
    if (rc == 0)
        rc = confirm(client, key, &made, body->size, until_ms, err);
    if (rc == 0)
        *pin = made;
    return rc;
}

// A COMPLIANCE lock can be made longer, never shorter.
static int extend(struct kiln_s3_client *client, const char *key, const struct kiln_pin *pin, uint64_t until_ms, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(512);
    struct kiln_s3_exchange exchange;
    struct kiln_s3_body body;
    char until[KILN_S3_TIME_LEN + 1];
    kiln_s3_time_format(until_ms, until);
    kiln_buf_addf(&text, "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>COMPLIANCE</Mode>"
                         "<RetainUntilDate>%s</RetainUntilDate></Retention>", until);
    int rc = kiln_s3_body_of(text.data, text.len, &body, err);
    if (rc)
        return rc;
    kiln_s3_exchange_init(&exchange, "PUT", KILN_SPACE_VAULT, key);
    exchange.body = &body;
    kiln_s3_add_query(&exchange, "retention", "");
    kiln_s3_add_query(&exchange, "versionId", pin->text);
    rc = kiln_s3_run_one(client, &exchange, err);
    kiln_s3_exchange_release(&exchange);
    return rc;
}

// Reads one version and compares its bytes. *locked: its lock reaches already.
static int compare_version(struct kiln_s3_client *client, const char *key, const struct kiln_pin *pin, const struct kiln_s3_body *body,
                           uint64_t until_ms, bool *locked, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    struct kiln_digest digest;
    kiln_s3_exchange_init(&exchange, "GET", KILN_SPACE_VAULT, key);
    kiln_s3_add_query(&exchange, "versionId", pin->text);
    exchange.sink = KILN_S3_SINK_FILE;
    exchange.max_bytes = body->size;
    int rc = kiln_s3_run_one(client, &exchange, err);
    if (rc == 0)
        rc = kiln_s3_check_version(&exchange, pin, err);
    if (rc == 0)
        rc = kiln_digest_of_fd(exchange.fd, body->size, &digest, NULL, err);
    if (rc == 0 && !kiln_digest_equal(&digest, &body->digest))
        rc = kiln_fail(err, KILN_E_CORRUPT, "version %s of %s has other bytes", pin->text, key);
    *locked = rc == 0 && kiln_s3_check_lock(&exchange, until_ms, NULL) == 0;
    kiln_s3_exchange_release(&exchange);
    return rc;
}

// The first version with the right bytes and a lock that reaches, or one that could be made to reach. KILN_E_NOTFOUND: none. A
// version that cannot be read is passed over: content is named by its digest, so a newer one is as good.
static int adopt(struct kiln_s3_client *client, const char *key, const struct kiln_s3_body *body, uint64_t until_ms,
                 struct kiln_pin *pin, struct kiln_err *err) {
    struct kiln_s3_versions versions;
    struct kiln_pin extendable = {0};
    int rc = kiln_s3_versions_of(client, KILN_SPACE_VAULT, key, &versions, err);
    unsigned tries = 0;
    for (size_t i = 0; !rc && i < versions.count && tries < ADOPT_TRIES; i++) {
        const struct kiln_pin *candidate = &versions.items[i].pin;
        bool locked = false;
        if (versions.items[i].size != body->size)
            continue;
        tries++;
        if (compare_version(client, key, candidate, body, until_ms, &locked, NULL))
            continue;
        if (locked) {
            *pin = *candidate;
            return 0;
        }
        extendable = *candidate;
    }
    if (!rc && extendable.text[0] && until_ms && extend(client, key, &extendable, until_ms, NULL) == 0 &&
        confirm(client, key, &extendable, body->size, until_ms, NULL) == 0) {
        *pin = extendable;
        return 0;
    }
    return rc ? rc : kiln_fail(err, KILN_E_NOTFOUND, "no version of %s can be adopted", key);
}

int kiln_s3_keep_content(struct kiln_s3_client *client, const char *key, const struct kiln_s3_body *body, uint64_t until_ms,
                         enum kiln_s3_belief belief, struct kiln_pin *pin, struct kiln_err *err) {
    struct kiln_err why = {0};
    int rc = KILN_E_EXISTS;
    if (belief == KILN_S3_BELIEVED_ABSENT)
        rc = put_confirmed(client, key, body, until_ms, PUT_CREATE, pin, NULL, &why);
    if (rc == KILN_E_EXISTS) {
        rc = adopt(client, key, body, until_ms, pin, &why);
        if (rc == KILN_E_NOTFOUND)
            rc = put_confirmed(client, key, body, until_ms, PUT_OVER, pin, NULL, &why);
    }
    if (rc && err)
        *err = why;
    return rc;
}

// Whether what is there is what an earlier attempt of this very call put, whose answer was lost.
static bool is_own(struct kiln_s3_client *client, const char *key, const struct kiln_s3_body *body, uint64_t until_ms, struct kiln_pin *pin) {
    struct kiln_s3_versions versions;
    bool locked = false;
    if (kiln_s3_versions_of(client, KILN_SPACE_VAULT, key, &versions, NULL) || versions.count != 1 || versions.listed != 1 ||
        versions.items[0].size != body->size ||
        compare_version(client, key, &versions.items[0].pin, body, until_ms, &locked, NULL) || !locked)
        return false;
    *pin = versions.items[0].pin;
    return true;
}

int kiln_s3_keep_new(struct kiln_s3_client *client, const char *key, const struct kiln_s3_body *body, uint64_t until_ms,
                     struct kiln_pin *pin, struct kiln_err *err) {
    struct kiln_s3_versions versions;
    unsigned attempts = 0;
    // A server lets a create-only PUT pass when a delete marker is on top.
    int rc = kiln_s3_versions_of(client, KILN_SPACE_VAULT, key, &versions, err);
    if (rc)
        return rc;
    if (versions.listed)
        return kiln_fail(err, KILN_E_EXISTS, "pointer %s exists", key);
    rc = put_confirmed(client, key, body, until_ms, PUT_CREATE, pin, &attempts, err);
    return rc == KILN_E_EXISTS && attempts > 1 && is_own(client, key, body, until_ms, pin) ? 0 : rc;
}

int kiln_s3_pair_content(struct kiln_s3_client *client, struct kiln_s3_pair *pair, const struct kiln_s3_body *body,
                         enum kiln_s3_belief belief, struct kiln_err *err) {
    struct locked_put put;
    struct kiln_s3_exchange look, *both[] = {&look, &put.exchange};
    bool absent = belief == KILN_S3_BELIEVED_ABSENT, never = false;
    kiln_s3_ask_versions(&look, KILN_SPACE_VAULT, pair->pointer_key);
    if (absent)
        begin_put(&put, pair->content_key, body, pair->content_until_ms, PUT_CREATE);
    kiln_s3_run(client, both, absent ? 2 : 1);
    pair->pointer_is_new = kiln_s3_never_was(&look, pair->pointer_key, &never, NULL) == 0 && never;
    pair->content_size = body->size;
    pair->confirmed = false;
    kiln_s3_exchange_release(&look);
    int rc = absent ? end_put(&put, &pair->pin, err) : KILN_E_EXISTS;
    if (rc != KILN_E_EXISTS)
        return rc;
    pair->confirmed = true;
    return kiln_s3_keep_content(client, pair->content_key, body, pair->content_until_ms, KILN_S3_BELIEVED_PRESENT, &pair->pin, err);
}

// A store that does not keep the content as it was told to is not the fault of who made the content.
static int blame_store(int rc, struct kiln_err *err) {
    return rc == KILN_E_CORRUPT || rc == KILN_E_NOTFOUND ? kiln_wrap(err, KILN_E_IO, "the store") : rc;
}

int kiln_s3_pair_pointer(struct kiln_s3_client *client, const struct kiln_s3_pair *pair, const struct kiln_s3_body *body,
                         uint64_t until_ms, struct kiln_err *err) {
    struct kiln_s3_exchange content;
    struct kiln_pin pin = {0};
    struct locked_put put;
    struct kiln_s3_exchange *both[] = {&put.exchange, &content};
    begin_put(&put, pair->pointer_key, body, until_ms, PUT_CREATE);
    begin_confirm(&content, pair->content_key, &pair->pin);
    struct kiln_s3_exchange **first = pair->pointer_is_new ? both : both + 1;
    size_t count = (size_t)(both + (pair->confirmed ? 1 : 2) - first);
    kiln_s3_run(client, first, count);
    int seen = pair->confirmed ? 0 : blame_store(end_confirm(&content, &pair->pin, pair->content_size, pair->content_until_ms, err), err);
    if (!pair->pointer_is_new)
        return seen ? seen : kiln_s3_keep_new(client, pair->pointer_key, body, until_ms, &pin, err);
    unsigned attempts = put.exchange.attempts;
    int rc = end_put(&put, &pin, seen ? NULL : err);
    if (seen)
        return seen;
    if (rc == KILN_E_EXISTS && attempts > 1 && is_own(client, pair->pointer_key, body, until_ms, &pin))
        return 0;
    return rc ? rc : confirm(client, pair->pointer_key, &pin, body->size, until_ms, err);
}

int kiln_s3_keep_over(struct kiln_s3_client *client, const char *key, const struct kiln_s3_body *body, uint64_t until_ms,
                      struct kiln_pin *pin, struct kiln_err *err) {
    return put_confirmed(client, key, body, until_ms, PUT_OVER, pin, NULL, err);
}
