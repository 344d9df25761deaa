#include "verifier/chronicle.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

#define PUBLISH_MS_MAX 3000u
#define PUBLISH_PAUSE_MS 5
#define PLAIN_BYTES_MAX 4096u
#define BURIED_BYTES_MAX (240u << 10)
#define NAME_BYTES_MAX 64u

char *kiln_chronicle_plain(const char *text) {
    char *plain = strndup(text, PLAIN_BYTES_MAX);
    for (char *c = plain; c && *c; c++) {
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
    }
    return plain;
}

static int failed(enum kiln_topic topic, int rc, const struct kiln_err *why, struct kiln_err *err) {
    kiln_log(KILN_LOG_ERROR, "publish_failed", "topic", kiln_topic_name(topic), "error", why->text, NULL);
    bool closed = rc == KILN_E_CLOSED || rc == KILN_E_DENIED;
    return kiln_fail(err, closed ? KILN_E_CLOSED : rc == KILN_E_INVAL ? rc : KILN_E_LIMIT, "%s", why->text);
}

int kiln_chronicle_publish(struct kiln_bus *bus, enum kiln_topic topic, uint32_t partition, const void *key, size_t key_len,
                           const struct kiln_buf *record, struct kiln_err *err) {
    uint64_t deadline_ms = kiln_clock_ms() + PUBLISH_MS_MAX;
    struct kiln_err why = {0};
    for (;;) {
        int rc = kiln_bus_publish(bus, topic, partition, key, key_len, record->data, record->len, &why);
        if (rc == 0)
            return 0;
        if (rc != KILN_E_LIMIT || !why.retriable || kiln_clock_ms() >= deadline_ms)
            return failed(topic, rc, &why, err);
        poll(NULL, 0, PUBLISH_PAUSE_MS);
    }
}

static int only_fatal(int rc) { return rc == KILN_E_CLOSED || rc == KILN_E_NOMEM ? rc : 0; }

// Does not wait.
static int drop_or_publish(struct kiln_chronicle *chronicle, enum kiln_topic topic, uint32_t partition, const void *key,
                           size_t key_len, const struct kiln_buf *record, struct kiln_err *err) {
    struct kiln_err why = {0};
    int rc = kiln_bus_publish(chronicle->bus, topic, partition, key, key_len, record->data, record->len, &why);
    if (rc)
        chronicle->dropped++;
    return rc && rc != KILN_E_LIMIT ? only_fatal(failed(topic, rc, &why, err)) : 0;
}

static int unsayable(int rc, const struct kiln_err *why, struct kiln_err *err) {
    kiln_log(KILN_LOG_ERROR, "unsayable", "error", why->text, NULL);
    return rc == KILN_E_NOMEM ? kiln_fail(err, rc, "%s", why->text) : 0;
}

static char *or_empty(const char *text) { return (char *)(uintptr_t)(text ? text : ""); } // encoders only read

int kiln_chronicle_enter(struct kiln_chronicle *chronicle, const struct kiln_chronicle_entry *entry, struct kiln_err *err) {
    kiln_autofree char *detail = kiln_chronicle_plain(or_empty(entry->detail));
    if (!detail)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a ledger entry");
    struct kiln_ledger_entry made = {
        .at_ms = kiln_clock_wall_ms(), .verifier = or_empty(chronicle->principal), .action_digest = *entry->action,
        .event = or_empty(entry->event), .scope = or_empty(entry->scope), .tenant = or_empty(entry->tenant),
        .principal = or_empty(entry->principal), .executor = or_empty(entry->executor), .pool = or_empty(entry->pool),
        .attempt = entry->attempt, .detail = detail};
    if (entry->job)
        made.job = *entry->job;
    if (entry->envelope) {
        made.envelope = entry->envelope->data;
        made.envelope_len = entry->envelope->len;
    }
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    struct kiln_err why = {0};
    int rc = kiln_ledger_entry_encode(&made, &bytes, &why);
    if (rc)
        return unsayable(rc, &why, err);
    chronicle->entries++;
    return drop_or_publish(chronicle, KILN_TOPIC_LEDGER, kiln_bus_partition_of(chronicle->bus, entry->action),
                           entry->action->bytes, sizeof entry->action->bytes, &bytes, err);
}

// The word that a reason begins with, when it is one.
static void take_word(const char *text, char word[NAME_BYTES_MAX + 1]) {
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_");
    bool good = len > 0 && len <= NAME_BYTES_MAX && (text[len] == ':' || !text[len]);
    len = good ? len : strlen("refused");
    memcpy(word, good ? text : "refused", len);
    word[len] = 0;
}

int kiln_chronicle_tell(struct kiln_chronicle *chronicle, const char *severity, const char *name, const char *subject,
                        const char *detail, struct kiln_err *err) {
    char word[NAME_BYTES_MAX + 1];
    take_word(name, word);
    kiln_autofree char *plain_subject = kiln_chronicle_plain(or_empty(subject));
    kiln_autofree char *plain_detail = kiln_chronicle_plain(or_empty(detail));
    if (!plain_subject || !plain_detail)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for an event");
    kiln_log(strcmp(severity, "info") == 0 ? KILN_LOG_INFO : KILN_LOG_WARN, word, "subject", plain_subject, "detail", plain_detail, NULL);
    const struct kiln_event made = {.at_ms = kiln_clock_wall_ms(), .source = or_empty(chronicle->principal),
                                    .severity = or_empty(severity), .name = word, .subject = plain_subject,
                                    .detail = plain_detail};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    struct kiln_err why = {0};
    int rc = kiln_event_encode(&made, &bytes, &why);
    if (rc)
        return unsayable(rc, &why, err);
    chronicle->events++;
    return drop_or_publish(chronicle, KILN_TOPIC_EVENTS, 0, word, strlen(word), &bytes, err);
}

int kiln_chronicle_bury(struct kiln_chronicle *chronicle, const struct kiln_record *record, const char *reason,
                        struct kiln_err *err) {
    kiln_autofree char *plain = kiln_chronicle_plain(*reason ? reason : "refused");
    if (!plain)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a dead letter");
    const struct kiln_dead_letter made = {
        .at_ms = kiln_clock_wall_ms(), .verifier = or_empty(chronicle->principal),
        .topic = or_empty(kiln_topic_name(record->topic)), .partition = record->partition, .offset = record->offset,
        .reason = plain, .size = record->value_len, .value = record->value,
        .value_len = record->value_len < BURIED_BYTES_MAX ? record->value_len : BURIED_BYTES_MAX};
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    struct kiln_err why = {0};
    int rc = kiln_dead_letter_encode(&made, &bytes, &why);
    if (rc)
        return unsayable(rc, &why, err);
    chronicle->dead_letters++;
    return only_fatal(
        kiln_chronicle_publish(chronicle->bus, KILN_TOPIC_DLQ, 0, record->key, record->key_len, &bytes, err));
}
