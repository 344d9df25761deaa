// The agent's link to its fleet: the bus, connected at the first miss, and the store; each watched, so that a fleet that is
// gone costs one short wait and not one for each unit.
//
//            first miss               subscribed
//   IDLE ---------------> CONNECTING -------------> UP <--------+
//                            |  ^                    | no broker  | healthy again
//                            |  | every PROBE_MS     v            |
//                            +--+                   DOWN ---------+
// A miss waits for CONNECTING at most KILN_LINK_PATIENCE_MS once; later ones fail at once with the reason until a thread of the
// link's own has found the way again. What waits for an answer when the bus goes down is given up. The store is up until a
// caller reports that it does not answer; then the link probes it. Thread-safe.
#pragma once

#include "lib/bus/bus.h"
#include "producer/agent/submit.h"

#define KILN_LINK_PATIENCE_MS 2000u
#define KILN_LINK_PROBE_MS 500u
#define KILN_LINK_SILENT_MS 30000u

struct kiln_link;

struct kiln_link_options {
    int (*open_bus)(void *context, struct kiln_bus **bus, struct kiln_err *err); // may be called again after a failure
    int (*probe_store)(void *context, struct kiln_err *err);                      // 0 when the store answers
    void *context;
    struct kiln_submitter_options submitter;
    uint64_t patience_ms, probe_ms; // 0: the values above
};

int kiln_link_new(const struct kiln_link_options *options, struct kiln_link **link, struct kiln_err *err);
void kiln_link_free(struct kiln_link *link); // submissions get KILN_E_CLOSED
// A submission was accepted by nobody: verifiers are gone, though the bus is there. Until one is heard again, or
// KILN_LINK_SILENT_MS have passed and one more may try, kiln_link_submitter() fails at once with that reason.
void kiln_link_silent(struct kiln_link *link, const char *reason);
// The way to verifiers. KILN_E_UNSUPPORTED "fleet_unreachable: ..." when there is none now.
int kiln_link_submitter(struct kiln_link *link, struct kiln_submitter **submitter, struct kiln_err *err);
// KILN_E_UNSUPPORTED "store_unreachable: ..." while it does not answer.
int kiln_link_store(struct kiln_link *link, struct kiln_err *err);
// Told of every failed request; only "does not answer" counts. Then *why becomes KILN_E_UNSUPPORTED with the reason.
void kiln_link_store_failed(struct kiln_link *link, struct kiln_err *why);
void kiln_link_give_up(struct kiln_link *link, const char *reason); // all that waits, when the agent stops
size_t kiln_link_waiting(struct kiln_link *link);
struct kiln_link_state {
    const char *bus;   // "idle", "connecting", "up", "down"
    bool store_up;
    uint64_t refused; // records of the bus, since it was connected
    char refusal[KILN_BUS_WHY_BYTES];
    char bus_reason[256], store_reason[256];
};
void kiln_link_show(struct kiln_link *link, struct kiln_link_state *state);
