// What an implementation of the bus provides; the contract of each call is in bus.h. An implementation embeds struct
// kiln_bus as its first member. Arguments have been checked against the limits of bus.h before they get here.
#pragma once

#include "lib/bus/bus.h"

struct kiln_bus_ops {
    // Borrows the record. tenant: of the results topic; NULL: the handle's own.
    int (*publish)(struct kiln_bus *bus, const struct kiln_record *record, const char *tenant, struct kiln_err *err);
    int (*subscribe)(struct kiln_bus *bus, const struct kiln_bus_subscription *topics, size_t count, struct kiln_err *err);
    int (*poll)(struct kiln_bus *bus, uint64_t deadline_ms, struct kiln_record *record, struct kiln_err *err);
    int (*ack)(struct kiln_bus *bus, const struct kiln_record *record, struct kiln_err *err);
    int (*healthy)(struct kiln_bus *bus, struct kiln_err *err);
    int (*restore)(struct kiln_bus *bus, uint32_t partition, uint64_t deadline_ms,
                   int (*visit)(void *context, const struct kiln_record *record), void *context, struct kiln_err *err);
    uint32_t (*partitions)(const struct kiln_bus *bus, enum kiln_topic topic); // that are used
    uint32_t (*partitions_max)(const struct kiln_bus *bus, enum kiln_topic topic); // that a record may name
    uint64_t (*refused)(struct kiln_bus *bus, char why[KILN_BUS_WHY_BYTES]); // NULL: never any
    int (*fd)(const struct kiln_bus *bus);
    void (*close)(struct kiln_bus *bus);
};

struct kiln_bus {
    const struct kiln_bus_ops *ops;
};
