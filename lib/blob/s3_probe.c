// What the vault of a fleet rests on, tried with the verifier's own credentials. Each capability is named in the error when it does
// not hold, also when it cannot be tried.
//
// Leftovers: locked objects stay. So the keys are two ("probe/locked", "probe/refused"), the bytes are fixed, the locks last two days,
// and a version is put only when none is there whose lock lasts another hour: about three a day, however often it is run. What only
// such a PUT shows (its answer names the version) is therefore tried once a day; every keep checks it too.
// Not here: that other roles cannot write (other credentials), that a wrong TLS certificate is refused (the client always asks for it).
#include "lib/blob/store_s3.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/blob/s3_versions.h"

#define KEY_LOCKED "probe/locked"
#define KEY_REFUSED "probe/refused"
#define HOUR_MS 3600000ull
#define LOCK_MS (48 * HOUR_MS)
#define SHADOWS_MAX 8u // versions over the first that a server may have been made to hold

static const char first_text[] = "The first version of this object is the one that counts.\n";
static const char other_text[] = "A later version, which a reader with a pin never sees.\n";

struct probe {
    struct kiln_s3_client *client;
    struct kiln_s3_body first, other;
    struct kiln_pin pin; // of the first version under the lock
    bool fresh;          // put by this probe
    char until[KILN_S3_TIME_LEN + 1];
};

static int lacks(struct kiln_err *err, const char *capability, const char *found) {
    return kiln_fail(err, KILN_E_UNSUPPORTED, "the store does not honour %s: %s", capability, found);
}

// No answer is no proof of anything: the error of the request itself is passed on.
static bool unanswered(const struct kiln_s3_exchange *exchange) { return exchange->status == 0 || exchange->status >= 500; }

static int no_answer(struct kiln_err *err, const char *capability, const struct kiln_s3_exchange *exchange) {
    if (err)
        *err = exchange->err;
    return kiln_wrap(err, exchange->rc ? exchange->rc : KILN_E_IO, "probing %s", capability);
}

static void begin(struct kiln_s3_exchange *exchange, const char *method, enum kiln_space space, const char *key) {
    kiln_s3_exchange_init(exchange, method, space, key);
    exchange->sink = strcmp(method, "GET") == 0 ? KILN_S3_SINK_BYTES : KILN_S3_SINK_NONE;
    exchange->max_bytes = KILN_S3_XML_BYTES_MAX;
    exchange->once = strcmp(method, "PUT") == 0;
}

static void add_lock(const struct probe *probe, struct kiln_s3_exchange *exchange, const char *mode) {
    kiln_s3_add_header(exchange, "x-amz-object-lock-mode", mode);
    kiln_s3_add_header(exchange, "x-amz-object-lock-retain-until-date", probe->until);
}

// Runs what must be refused; whatever else the server does is the failure.
static int must_refuse(struct probe *probe, struct kiln_s3_exchange *exchange, int status, const char *capability, struct kiln_err *err) {
    char found[64];
    int rc = 0;
    kiln_s3_run(probe->client, &exchange, 1);
    if (unanswered(exchange))
        rc = no_answer(err, capability, exchange);
    else if (status ? exchange->status != status : exchange->status < 400) {
        snprintf(found, sizeof found, "it answers %d", exchange->status);
        rc = lacks(err, capability, found);
    }
    kiln_s3_exchange_release(exchange);
    return rc;
}

static int get_text(struct probe *probe, enum kiln_space space, const char *query, struct kiln_buf *text, const char *capability,
                    struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    begin(&exchange, "GET", space, NULL);
    kiln_s3_add_query(&exchange, query, "");
    int rc = kiln_s3_run_one(probe->client, &exchange, err);
    if (rc == 0 && kiln_buf_add(text, exchange.bytes.data, exchange.bytes.len))
        rc = kiln_fail(err, KILN_E_NOMEM, "no memory for an answer");
    else if (rc && !unanswered(&exchange))
        rc = lacks(err, capability, exchange.err.text);
    else if (rc)
        rc = no_answer(err, capability, &exchange);
    kiln_s3_exchange_release(&exchange);
    return rc;
}

static int check_bucket(struct probe *probe, enum kiln_space space, const char *name, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf versioning = KILN_BUF_INIT(KILN_S3_XML_BYTES_MAX), lock = KILN_BUF_INIT(KILN_S3_XML_BYTES_MAX);
    struct kiln_s3_lock_rule rule = {0};
    bool enabled = false;
    char what[64];
    snprintf(what, sizeof what, "versioning of %s", name);
    int rc = get_text(probe, space, "versioning", &versioning, what, err);
    if (rc == 0)
        rc = kiln_s3_xml_versioning(versioning.data, versioning.len, &enabled, err);
    if (rc == 0 && !enabled)
        rc = lacks(err, what, "it is not enabled");
    snprintf(what, sizeof what, "object lock of %s", name);
    if (rc == 0)
        rc = get_text(probe, space, "object-lock", &lock, what, err);
    if (rc == 0)
        rc = kiln_s3_xml_lock(lock.data, lock.len, &rule, err);
    if (rc == 0 && !rule.enabled)
        rc = lacks(err, what, "it is not enabled");
    if (rc == 0 && (!rule.compliance || rule.days == 0))
        rc = lacks(err, what, "its default is not a COMPLIANCE retention");
    return rc;
}

static int check_refusals(struct probe *probe, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    struct kiln_s3_body wrong = probe->first;
    kiln_digest_of(other_text, strlen(other_text), &wrong.digest);
    begin(&exchange, "PUT", KILN_SPACE_VAULT, KEY_REFUSED);
    exchange.body = &wrong;
    add_lock(probe, &exchange, "COMPLIANCE");
    int rc = must_refuse(probe, &exchange, 400, "x-amz-content-sha256", err);
    if (rc)
        return rc;
    wrong = probe->first;
    memcpy(wrong.md5, probe->other.md5, sizeof wrong.md5);
    begin(&exchange, "PUT", KILN_SPACE_VAULT, KEY_REFUSED);
    exchange.body = &wrong;
    add_lock(probe, &exchange, "COMPLIANCE");
    return must_refuse(probe, &exchange, 400, "Content-MD5", err);
}

static int put_first(struct probe *probe, const char *condition, struct kiln_pin *pin, int *status, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    begin(&exchange, "PUT", KILN_SPACE_VAULT, KEY_LOCKED);
    exchange.body = &probe->first;
    if (condition)
        kiln_s3_add_header(&exchange, "if-none-match", condition);
    add_lock(probe, &exchange, "COMPLIANCE");
    int rc = kiln_s3_run_one(probe->client, &exchange, err);
    *status = exchange.status;
    if (rc == 0)
        snprintf(pin->text, sizeof pin->text, "%s", exchange.version);
    kiln_s3_exchange_release(&exchange);
    return rc;
}

static int head_locked(struct probe *probe, const struct kiln_pin *pin, uint64_t until_ms, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    begin(&exchange, "HEAD", KILN_SPACE_VAULT, KEY_LOCKED);
    kiln_s3_add_query(&exchange, "versionId", pin->text);
    int rc = kiln_s3_run_one(probe->client, &exchange, err);
    if (rc == 0)
        rc = kiln_s3_check_version(&exchange, pin, err);
    if (rc == 0)
        rc = kiln_s3_check_lock(&exchange, until_ms, err);
    kiln_s3_exchange_release(&exchange);
    return rc;
}

static int get_pinned(struct probe *probe, const struct kiln_pin *pin, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    begin(&exchange, "GET", KILN_SPACE_VAULT, KEY_LOCKED);
    kiln_s3_add_query(&exchange, "versionId", pin->text);
    int rc = kiln_s3_run_one(probe->client, &exchange, err);
    if (rc == 0)
        rc = kiln_s3_check_version(&exchange, pin, err);
    if (rc == 0 && (exchange.bytes.len != probe->first.size || memcmp(exchange.bytes.data, first_text, probe->first.size) != 0))
        rc = lacks(err, "reads of a pinned version", "it gives other bytes");
    kiln_s3_exchange_release(&exchange);
    return rc;
}

// A version of ours under a lock that lasts: the oldest there is, or a new one.
static int find_first(struct probe *probe, struct kiln_s3_versions *versions, struct kiln_err *err) {
    int status, rc = kiln_s3_versions_of(probe->client, KILN_SPACE_VAULT, KEY_LOCKED, versions, err);
    if (rc)
        return kiln_wrap(err, rc, "probing lists of versions");
    for (size_t i = 0; i < versions->count; i++) {
        const struct kiln_pin *pin = &versions->items[i].pin;
        if (versions->items[i].size == probe->first.size && head_locked(probe, pin, kiln_clock_wall_ms() + HOUR_MS, NULL) == 0 &&
            get_pinned(probe, pin, NULL) == 0) {
            probe->pin = *pin;
            return 0;
        }
    }
    probe->fresh = true;
    rc = put_first(probe, versions->listed ? NULL : "*", &probe->pin, &status, err);
    if (rc == KILN_E_EXISTS) // another verifier's probe came between
        rc = put_first(probe, NULL, &probe->pin, &status, err);
    if (rc)
        return kiln_wrap(err, rc, "probing the lock of an object");
    if (!probe->pin.text[0] || strcmp(probe->pin.text, "null") == 0)
        return lacks(err, "versions", "a PUT is answered without a version");
    return kiln_s3_versions_of(probe->client, KILN_SPACE_VAULT, KEY_LOCKED, versions, err);
}

static int check_create_only(struct probe *probe, struct kiln_err *err) {
    struct kiln_pin pin;
    int status, rc = put_first(probe, "*", &pin, &status, err);
    if (rc == KILN_E_EXISTS && status == 412)
        return 0;
    return rc && rc != KILN_E_EXISTS ? kiln_wrap(err, rc, "probing If-None-Match")
                                     : lacks(err, "If-None-Match", "a second PUT is not answered 412");
}

static int check_deletes(struct probe *probe, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    begin(&exchange, "DELETE", KILN_SPACE_VAULT, KEY_LOCKED);
    kiln_s3_add_query(&exchange, "versionId", probe->pin.text);
    int rc = must_refuse(probe, &exchange, 0, "the lock against DELETE of a version", err);
    if (rc)
        return rc;
    begin(&exchange, "DELETE", KILN_SPACE_VAULT, KEY_LOCKED);
    return must_refuse(probe, &exchange, 403, "a policy against DELETE by verifiers", err);
}

static int check_shortening(struct probe *probe, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(512);
    struct kiln_s3_body body;
    char until[KILN_S3_TIME_LEN + 1];
    kiln_s3_time_format(kiln_clock_wall_ms() + HOUR_MS / 2, until);
    kiln_buf_addf(&text, "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>COMPLIANCE</Mode>"
                         "<RetainUntilDate>%s</RetainUntilDate></Retention>", until);
    int rc = kiln_s3_body_of(text.data, text.len, &body, err);
    if (rc)
        return rc;
    begin(&exchange, "PUT", KILN_SPACE_VAULT, KEY_LOCKED);
    kiln_s3_add_query(&exchange, "retention", "");
    kiln_s3_add_query(&exchange, "versionId", probe->pin.text);
    exchange.body = &body;
    return must_refuse(probe, &exchange, 0, "the lock against a shorter retention", err);
}

// Puts over the first version, once plainly and once naming its id, where not enough such versions are there yet. One that this
// probe has put is the newest: it says nothing until another is put over it.
static int check_shadows(struct probe *probe, const struct kiln_s3_versions *versions, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    for (int named = 0; named < 2; named++) {
        if (named ? versions->listed > SHADOWS_MAX : versions->listed > 1 && !probe->fresh)
            continue;
        begin(&exchange, "PUT", KILN_SPACE_VAULT, KEY_LOCKED);
        exchange.body = &probe->other;
        if (named)
            kiln_s3_add_query(&exchange, "versionId", probe->pin.text);
        add_lock(probe, &exchange, "COMPLIANCE");
        int rc = kiln_s3_run_one(probe->client, &exchange, NULL);
        kiln_s3_exchange_release(&exchange);
        if (rc && (!named || unanswered(&exchange))) // a version that is named may be refused
            return no_answer(err, "a newer version", &exchange);
    }
    int rc = get_pinned(probe, &probe->pin, err);
    if (rc == KILN_E_UNSUPPORTED || rc == 0)
        return rc;
    return kiln_wrap(err, rc, "probing reads of a pinned version");
}

static int run(struct probe *probe, struct kiln_err *err) {
    struct kiln_s3_versions versions;
    int rc = check_bucket(probe, KILN_SPACE_VAULT, "the vault", err);
    if (rc == 0)
        rc = check_bucket(probe, KILN_SPACE_INPUTS, "inputs", err);
    if (rc == 0)
        rc = check_refusals(probe, err);
    if (rc == 0)
        rc = find_first(probe, &versions, err);
    if (rc == 0 && (rc = head_locked(probe, &probe->pin, kiln_clock_wall_ms() + HOUR_MS / 2, err)) == KILN_E_CORRUPT) {
        struct kiln_err why = {0};
        if (err)
            why = *err;
        rc = lacks(err, "an explicit COMPLIANCE lock", why.text);
    }
    if (rc == 0)
        rc = check_create_only(probe, err);
    if (rc == 0)
        rc = check_deletes(probe, err);
    if (rc == 0)
        rc = check_shortening(probe, err);
    return rc ? rc : check_shadows(probe, &versions, err);
}

int kiln_s3_probe(const struct kiln_s3_options *options, struct kiln_err *err) {
    struct probe probe = {0};
    int rc = kiln_s3_body_of(first_text, strlen(first_text), &probe.first, err);
    if (rc == 0)
        rc = kiln_s3_body_of(other_text, strlen(other_text), &probe.other, err);
    if (rc == 0)
        rc = kiln_s3_client_new(options, &probe.client, err);
    if (rc)
        return rc;
    kiln_s3_time_format(kiln_clock_wall_ms() + LOCK_MS, probe.until);
    rc = run(&probe, err);
    kiln_s3_client_free(probe.client);
    return rc;
}
