#include "lib/bus/bus.h"

#include <stdlib.h>
#include <string.h>

#include "lib/bus/bus_ops.h"

const char *kiln_topic_name(enum kiln_topic topic) {
    static const char *const names[KILN_TOPIC_COUNT] = {
        [KILN_TOPIC_JOBS] = "kiln.jobs",       [KILN_TOPIC_WORK] = "kiln.work",
        [KILN_TOPIC_CREDITS] = "kiln.credits", [KILN_TOPIC_LEASES] = "kiln.leases",
        [KILN_TOPIC_CANDIDATES] = "kiln.candidates", [KILN_TOPIC_RESULTS] = "kiln.results",
        [KILN_TOPIC_STATE] = "kiln.state",     [KILN_TOPIC_LEDGER] = "kiln.ledger",
        [KILN_TOPIC_EVENTS] = "kiln.events",   [KILN_TOPIC_DLQ] = "kiln.dlq",
    };
    return (unsigned)topic < KILN_TOPIC_COUNT ? names[topic] : "unknown";
}

void kiln_record_release(struct kiln_record *record) {
    free(record->value);
    *record = (struct kiln_record){0};
}

static int check_place(const struct kiln_bus *bus, enum kiln_topic topic, uint32_t partition, struct kiln_err *err) {
    if ((unsigned)topic >= KILN_TOPIC_COUNT)
        return kiln_fail(err, KILN_E_INVAL, "topic %u does not exist", (unsigned)topic);
    if (partition >= bus->ops->partitions_max(bus, topic))
        return kiln_fail(err, KILN_E_INVAL, "%s has no partition %u", kiln_topic_name(topic), partition);
    return 0;
}

static int publish(struct kiln_bus *bus, const struct kiln_record *record, const void *key, const char *tenant,
                   struct kiln_err *err) {
    int rc = check_place(bus, record->topic, record->partition, err);
    if (rc)
        return rc;
    if (record->key_len > KILN_BUS_KEY_BYTES_MAX)
        return kiln_fail(err, KILN_E_INVAL, "a key of %zu bytes is longer than %u", record->key_len, KILN_BUS_KEY_BYTES_MAX);
    // Not KILN_E_LIMIT: that one means "full, try again", and this never succeeds.
    if (record->value_len > KILN_RECORD_BYTES_MAX)
        return kiln_fail(err, KILN_E_INVAL, "a record of %zu bytes is larger than %u", record->value_len,
                         KILN_RECORD_BYTES_MAX);
    struct kiln_record keyed = *record;
    if (keyed.key_len)
        memcpy(keyed.key, key, keyed.key_len);
    rc = bus->ops->publish(bus, &keyed, tenant, err);
    return rc ? kiln_wrap(err, rc, "publish to %s", kiln_topic_name(record->topic)) : 0;
}

int kiln_bus_publish(struct kiln_bus *bus, enum kiln_topic topic, uint32_t partition, const void *key, size_t key_len,
                     const void *value, size_t value_len, struct kiln_err *err) {
    struct kiln_record record = {.topic = topic, .partition = partition, .key_len = key_len, .value_len = value_len};
    record.value = (unsigned char *)(uintptr_t)value; // only borrowed: ops->publish does not write or free it
    return publish(bus, &record, key, NULL, err);
}

int kiln_bus_publish_result(struct kiln_bus *bus, const char *tenant, uint32_t partition, const void *key, size_t key_len,
                            const void *value, size_t value_len, struct kiln_err *err) {
    struct kiln_record record = {
        .topic = KILN_TOPIC_RESULTS, .partition = partition, .key_len = key_len, .value_len = value_len};
    record.value = (unsigned char *)(uintptr_t)value;
    return publish(bus, &record, key, tenant, err);
}

uint32_t kiln_bus_partitions(const struct kiln_bus *bus, enum kiln_topic topic) { return bus->ops->partitions(bus, topic); }

uint32_t kiln_bus_partition_of(const struct kiln_bus *bus, const struct kiln_digest *action) {
    const uint8_t *bytes = action->bytes;
    uint32_t first = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
    return first % bus->ops->partitions(bus, KILN_TOPIC_JOBS);
}

int kiln_bus_healthy(struct kiln_bus *bus, struct kiln_err *err) { return bus->ops->healthy(bus, err); }

int kiln_bus_restore(struct kiln_bus *bus, uint32_t partition, uint64_t deadline_ms,
                     int (*visit)(void *context, const struct kiln_record *record), void *context, struct kiln_err *err) {
    int rc = check_place(bus, KILN_TOPIC_STATE, partition, err);
    if (rc == 0)
        rc = bus->ops->restore(bus, partition, deadline_ms, visit, context, err);
    return rc ? kiln_wrap(err, rc, "restore partition %u", partition) : 0;
}

int kiln_bus_subscribe(struct kiln_bus *bus, const struct kiln_bus_subscription *topics, size_t count,
                       struct kiln_err *err) {
    for (size_t i = 0; i < count; i++) {
        int rc = check_place(bus, topics[i].topic, 0, err);
        if (rc)
            return rc;
    }
    int rc = bus->ops->subscribe(bus, topics, count, err);
    return rc ? kiln_wrap(err, rc, "subscribe") : 0;
}

int kiln_bus_poll(struct kiln_bus *bus, uint64_t deadline_ms, struct kiln_record *record, struct kiln_err *err) {
    return bus->ops->poll(bus, deadline_ms, record, err);
}

int kiln_bus_ack(struct kiln_bus *bus, const struct kiln_record *record, struct kiln_err *err) {
    int rc = check_place(bus, record->topic, record->partition, err);
    if (rc == 0)
        rc = bus->ops->ack(bus, record, err);
    return rc ? kiln_wrap(err, rc, "ack") : 0;
}

uint64_t kiln_bus_refused(struct kiln_bus *bus, char why[KILN_BUS_WHY_BYTES]) {
    why[0] = 0;
    return bus->ops->refused ? bus->ops->refused(bus, why) : 0;
}

int kiln_bus_fd(const struct kiln_bus *bus) { return bus->ops->fd(bus); }

void kiln_bus_close(struct kiln_bus *bus) {
    if (bus)
        bus->ops->close(bus);
}
