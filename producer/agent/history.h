// How long results of a kind of unit took, and how long the next one is worth waiting for.
//
// A kind is a package (without its version), a crate and how it is compiled (optimised or not, linked or not). The last
// KILN_HISTORY_MAX times are kept in the local cache; the wait is some multiple of their 95th percentile, never below
// KILN_HISTORY_LEAST_MS nor above what the settings allow, which is also the wait for a kind that nobody has seen.
#pragma once

#include "lib/core/action.h"
#include "producer/agent/l0.h"

#define KILN_HISTORY_MAX 16u
#define KILN_HISTORY_LEAST_MS 2500u

// What is kept of a kind: big-endian milliseconds, oldest first.
struct kiln_history {
    uint32_t times_ms[KILN_HISTORY_MAX];
    size_t count;
};

void kiln_history_key(const struct kiln_action *action, struct kiln_digest *kind);
uint64_t kiln_history_wait_ms(const struct kiln_history *history, uint64_t most_ms); // pure
void kiln_history_add(struct kiln_history *history, uint64_t took_ms);               // pure; the oldest goes

void kiln_history_load(struct kiln_l0 *l0, const struct kiln_digest *kind, struct kiln_history *history); // empty when unknown
void kiln_history_record(struct kiln_l0 *l0, const struct kiln_digest *kind, uint64_t took_ms);
