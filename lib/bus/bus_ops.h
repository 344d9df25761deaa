// What an implementation of the bus provides; the contract of each call is in bus.h. An implementation embeds struct
// kiln_bus as its first member. Arguments have been checked against the limits of bus.h before they get here.
#pragma once

#include "lib/bus/bus.h"

struct kiln_bus_ops {
    int (*publish)(struct kiln_bus *bus, const struct kiln_record *record, struct kiln_err *err); // borrows the record
    int (*subscribe)(struct kiln_bus *bus, const struct kiln_bus_subscription *topics, size_t count, struct kiln_err *err);
    int (*poll)(struct kiln_bus *bus, uint64_t deadline_ms, struct kiln_record *record, struct kiln_err *err);
    int (*ack)(struct kiln_bus *bus, const struct kiln_record *record, struct kiln_err *err);
    int (*fd)(const struct kiln_bus *bus);
    void (*close)(struct kiln_bus *bus);
};

struct kiln_bus {
    const struct kiln_bus_ops *ops;
};
