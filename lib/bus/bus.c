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
        [KILN_TOPIC_EVENTS] = "kiln.events",
    };
    return (unsigned)topic < KILN_TOPIC_COUNT ? names[topic] : "unknown";
}

void kiln_record_release(struct kiln_record *record) {
    free(record->value);
    *record = (struct kiln_record){0};
}

static int check_place(enum kiln_topic topic, uint32_t partition, struct kiln_err *err) {
    if ((unsigned)topic >= KILN_TOPIC_COUNT)
        return kiln_fail(err, KILN_E_INVAL, "topic %u does not exist", (unsigned)topic);
    if (partition >= KILN_BUS_PARTITIONS_MAX)
        return kiln_fail(err, KILN_E_INVAL, "%s has no partition %u", kiln_topic_name(topic), partition);
    return 0;
}

int kiln_bus_publish(struct kiln_bus *bus, enum kiln_topic topic, uint32_t partition, const void *key, size_t key_len,
                     const void *value, size_t value_len, struct kiln_err *err) {
    int rc = check_place(topic, partition, err);
    if (rc)
        return rc;
    if (key_len > KILN_BUS_KEY_BYTES_MAX)
        return kiln_fail(err, KILN_E_INVAL, "a key of %zu bytes is longer than %u", key_len, KILN_BUS_KEY_BYTES_MAX);
    // Not KILN_E_LIMIT: that one means "full, try again", and this never succeeds.
    if (value_len > KILN_RECORD_BYTES_MAX)
        return kiln_fail(err, KILN_E_INVAL, "a record of %zu bytes is larger than %u", value_len, KILN_RECORD_BYTES_MAX);
    struct kiln_record record = {.topic = topic, .partition = partition, .key_len = key_len, .value_len = value_len};
    if (key_len)
        memcpy(record.key, key, key_len);
    record.value = (unsigned char *)(uintptr_t)value; // only borrowed: ops->publish does not write or free it
    rc = bus->ops->publish(bus, &record, err);
    return rc ? kiln_wrap(err, rc, "publish to %s", kiln_topic_name(topic)) : 0;
}

int kiln_bus_subscribe(struct kiln_bus *bus, const struct kiln_bus_subscription *topics, size_t count,
                       struct kiln_err *err) {
    for (size_t i = 0; i < count; i++) {
        int rc = check_place(topics[i].topic, 0, err);
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
    int rc = check_place(record->topic, record->partition, err);
    if (rc == 0)
        rc = bus->ops->ack(bus, record, err);
    return rc ? kiln_wrap(err, rc, "ack") : 0;
}

int kiln_bus_fd(const struct kiln_bus *bus) { return bus->ops->fd(bus); }

void kiln_bus_close(struct kiln_bus *bus) {
    if (bus)
        bus->ops->close(bus);
}
