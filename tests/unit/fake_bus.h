// A bus that a test holds in its hands: it keeps what is published and acked, and gives back the state. Nothing is polled: the
// test feeds records itself.
#pragma once

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/bus/bus_ops.h"

#define FAKE_RECORDS_MAX 8192u

struct fake_sent {
    struct kiln_record record;
    char tenant[KILN_PRINCIPAL_BYTES]; // of results
};

struct fake_bus {
    struct kiln_bus bus; // first
    struct fake_sent *sent;
    size_t count;
    struct kiln_record acked[FAKE_RECORDS_MAX];
    size_t acked_count;
    uint32_t partitions;
    bool full; // every publish finds its topic full, and the state cannot be written
    int fd;
};

static inline struct fake_bus *fake_of(struct kiln_bus *bus) { return (struct fake_bus *)bus; }

static inline int fake_publish(struct kiln_bus *bus, const struct kiln_record *record, const char *tenant,
                               struct kiln_err *err) {
    struct fake_bus *fake = fake_of(bus);
    if (fake->full)
        return kiln_fail(err, KILN_E_LIMIT, "full");
    if (fake->count == FAKE_RECORDS_MAX)
        abort();
    struct fake_sent *sent = &fake->sent[fake->count];
    *sent = (struct fake_sent){.record = *record};
    sent->record.value = malloc(record->value_len + 1);
    if (record->value_len)
        memcpy(sent->record.value, record->value, record->value_len);
    sent->record.offset = fake->count++;
    if (tenant)
        strncpy(sent->tenant, tenant, sizeof sent->tenant - 1);
    return 0;
}

static inline int fake_subscribe(struct kiln_bus *bus, const struct kiln_bus_subscription *topics, size_t count,
                                 struct kiln_err *err) {
    (void)bus, (void)topics, (void)count, (void)err;
    return 0;
}

static inline int fake_poll(struct kiln_bus *bus, uint64_t deadline_ms, struct kiln_record *record, struct kiln_err *err) {
    (void)bus, (void)deadline_ms, (void)record;
    return kiln_fail(err, KILN_E_TIMEOUT, "nothing comes of itself");
}

static inline int fake_ack(struct kiln_bus *bus, const struct kiln_record *record, struct kiln_err *err) {
    struct fake_bus *fake = fake_of(bus);
    (void)err;
    if (fake->acked_count < FAKE_RECORDS_MAX)
        fake->acked[fake->acked_count++] = *record;
    return 0;
}

static inline int fake_healthy(struct kiln_bus *bus, struct kiln_err *err) {
    (void)bus, (void)err;
    return 0;
}

static inline bool fake_same_key(const struct kiln_record *a, const struct kiln_record *b) {
    return a->key_len == b->key_len && memcmp(a->key, b->key, a->key_len) == 0;
}

// The newest of each key.
static inline int fake_restore(struct kiln_bus *bus, uint32_t partition, uint64_t deadline_ms,
                               int (*visit)(void *context, const struct kiln_record *record), void *context,
                               struct kiln_err *err) {
    struct fake_bus *fake = fake_of(bus);
    size_t count = fake->count;
    (void)deadline_ms, (void)err;
    for (size_t i = 0; i < count; i++) {
        const struct kiln_record *record = &fake->sent[i].record;
        bool newest = record->topic == KILN_TOPIC_STATE && record->partition == partition;
        for (size_t k = i + 1; newest && k < count; k++)
            newest = fake->sent[k].record.topic != KILN_TOPIC_STATE || !fake_same_key(record, &fake->sent[k].record);
        int rc = newest && record->value_len ? visit(context, record) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

static inline uint32_t fake_partitions(const struct kiln_bus *bus, enum kiln_topic topic) {
    (void)topic;
    return ((const struct fake_bus *)bus)->partitions;
}

static inline int fake_fd(const struct kiln_bus *bus) { return ((const struct fake_bus *)bus)->fd; }

static inline void fake_close(struct kiln_bus *bus) {
    struct fake_bus *fake = fake_of(bus);
    for (size_t i = 0; i < fake->count; i++)
        free(fake->sent[i].record.value);
    free(fake->sent);
    close(fake->fd);
    free(fake);
}

static inline struct fake_bus *fake_bus_new(uint32_t partitions) {
    static const struct kiln_bus_ops ops = {
        .publish = fake_publish, .subscribe = fake_subscribe, .poll = fake_poll, .ack = fake_ack, .healthy = fake_healthy,
        .restore = fake_restore, .partitions = fake_partitions, .partitions_max = fake_partitions, .fd = fake_fd,
        .close = fake_close};
    struct fake_bus *fake = calloc(1, sizeof *fake);
    fake->bus.ops = &ops;
    fake->partitions = partitions;
    fake->sent = calloc(FAKE_RECORDS_MAX, sizeof *fake->sent);
    fake->fd = eventfd(0, EFD_CLOEXEC);
    return fake;
}
