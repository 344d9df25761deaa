// Fetches early what a build will ask for, and what comes late.
//
// A build is one cargo process. When it begins, the actions that the last build with the same Cargo.lock used (hints.h: kept in
// the local cache, and in quarantine for agents that are new) are looked up by up to KILN_PREFETCH_THREADS threads, checked as
// always, and put into the local cache. When it has been quiet for a while, what it used is written down. Without /proc or a
// Cargo.lock there is nothing to go by, and nothing is fetched. Thread-safe.
#pragma once

#include <sys/types.h>

#include "producer/agent/lookup.h"

#define KILN_PREFETCH_THREADS 16u
#define KILN_HINTS_OBJECTS 4u // of one Cargo.lock: create-only, so each holds what those before it lack

struct kiln_prefetch;

struct kiln_prefetch_options {
    struct kiln_lookup lookup; // of a fleet; what is of one request is ignored
    const char *tenant;        // borrowed
    // A late result (submit.h), now on a thread of the prefetch. The strings are its own.
    void (*late)(void *context, const struct kiln_late_result *late);
    void *context;
};

struct kiln_prefetch_build; // borrowed from the prefetch; good until it is freed

int kiln_prefetch_new(const struct kiln_prefetch_options *options, struct kiln_prefetch **prefetch, struct kiln_err *err);
void kiln_prefetch_stop(struct kiln_prefetch *prefetch); // what is being fetched is waited for, what waits or comes is dropped
void kiln_prefetch_free(struct kiln_prefetch *prefetch);
// The build that a wrapper belongs to, begun by its first one. NULL: none is known.
struct kiln_prefetch_build *kiln_prefetch_begin(struct kiln_prefetch *prefetch, pid_t wrapper);
void kiln_prefetch_used(struct kiln_prefetch *prefetch, struct kiln_prefetch_build *build, const char *scope,
                        const struct kiln_digest *action);
// Returns when nobody fetches that action (any more); what only waits to be fetched is left to the caller.
void kiln_prefetch_await(struct kiln_prefetch *prefetch, const struct kiln_digest *action);
void kiln_prefetch_late(struct kiln_prefetch *prefetch, const struct kiln_late_result *late);
void kiln_prefetch_tick(struct kiln_prefetch *prefetch, uint64_t now_ms); // writes down what quiet builds used
