// One compile request from its frame to its answer: prepare the unit, look it up, submit a miss, replay the result.
#pragma once

#include "producer/agent/breaker.h"
#include "producer/agent/conversation.h"
#include "producer/agent/lookup.h"
#include "producer/agent/stats.h"
#include "producer/agent/submit.h"
#include "producer/agent/unit.h"

struct kiln_compile_context {
    struct kiln_unit_context unit;
    struct kiln_lookup lookup;
    struct kiln_submitter *submitter;
    struct kiln_breaker *breaker;
    struct kiln_stats *stats;
    uint64_t wait_ms;
};

// Answers with LOCAL or PLACE, and learns from PLACED. Never fails: whatever goes wrong becomes LOCAL with a reason.
void kiln_compile_serve(const struct kiln_compile_context *context, struct kiln_conversation *conversation,
                        const struct kiln_compile_request *request);
