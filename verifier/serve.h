// The verifier's loop: records from the bus, what tasks have done, ticks. The same in the embedded default and in a fleet.
#pragma once

#include "verifier/docket.h"

struct kiln_serve {
    struct kiln_bus *bus;
    struct kiln_docket *docket;
    int stop_fd;                 // readable: stop taking records; -1: never
    uint64_t poll_ms_max;        // the loop turns at least that often
    void (*idle)(void *context, uint64_t record_ms); // after each tick; when the last record came. NULL: nothing
    void *context;
};

// Until stop_fd is readable (0), the bus has gone (KILN_E_CLOSED), or there is no memory.
int kiln_serve(const struct kiln_serve *serve, struct kiln_err *err);
// Finishes the tasks that are at work, at most until the deadline (monotonic ms); no further records are taken.
void kiln_serve_drain(const struct kiln_serve *serve, uint64_t deadline_ms);
