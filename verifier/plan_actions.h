// Building the actions of one step. The first that finds no memory sets `failed`; the step says so when it ends.
#pragma once

#include "verifier/plan_agree.h"

struct kiln_plan_out {
    struct kiln_plan_actions *actions;
    bool failed;
};

// A zeroed action of that flight; NULL without memory.
struct kiln_plan_action *kiln_plan_emit(struct kiln_plan_out *out, enum kiln_plan_action_kind kind,
                                        const struct kiln_plan_key *key);
void kiln_plan_emit_reason(struct kiln_plan_out *out, struct kiln_plan_action *action, const char *reason);
// WANT, REFUSE, or an ANSWER without a result, to one job.
void kiln_plan_emit_to_job(struct kiln_plan_out *out, enum kiln_plan_action_kind kind, const struct kiln_plan_key *key,
                           const struct kiln_job_id *job, const char *reason);
// To all that wait; nothing when nobody does.
void kiln_plan_emit_answer(struct kiln_plan_out *out, const struct kiln_flight *flight, enum kiln_plan_verdict verdict,
                           const char *reason);
void kiln_plan_emit_dispatch(struct kiln_plan_out *out, const struct kiln_run *run, uint64_t lease_ms);
// STORE names those that agree; DIVERGED all that gave a result, and `denies`, which said that there is none (or NULL).
void kiln_plan_emit_store(struct kiln_plan_out *out, const struct kiln_flight *flight, const struct kiln_agreement *agreement);
void kiln_plan_emit_diverged(struct kiln_plan_out *out, const struct kiln_flight *flight,
                             const struct kiln_agreement *agreement, const struct kiln_run *denies);
