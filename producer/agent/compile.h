// One compile request from its frame to its answer: prepare the unit, look it up, submit a miss, replay the result.
#pragma once

#include "producer/agent/breaker.h"
#include "producer/agent/conversation.h"
#include "producer/agent/lookup.h"
#include "producer/agent/prefetch.h"
#include "producer/agent/stats.h"
#include "producer/agent/submit.h"
#include "producer/agent/unit.h"

// What the fleet taught this agent while it runs.
struct kiln_compile_doubts {
    _Atomic uint64_t public_after_ms; // monotonic: until then nothing is claimed to be public
};

struct kiln_compile_context {
    struct kiln_unit_context unit;
    struct kiln_lookup lookup;
    struct kiln_submitter *submitter; // embedded; a fleet's comes from lookup.link, at the first miss
    const char *tenant;               // fleet; else NULL
    struct kiln_prefetch *prefetch;   // fleet; else NULL
    struct kiln_compile_doubts *doubts; // fleet
    struct kiln_breaker *breaker;
    struct kiln_stats *stats;
    uint64_t wait_ms;
};

// A result that came too late for its unit is kept for the next one.
void kiln_compile_late(const struct kiln_compile_context *context, const struct kiln_late_result *late);
// Answers with LOCAL or PLACE, and learns from PLACED. Never fails: whatever goes wrong becomes LOCAL with a reason.
void kiln_compile_serve(const struct kiln_compile_context *context, struct kiln_conversation *conversation,
                        const struct kiln_compile_request *request);
