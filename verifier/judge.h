// What a candidate is worth. An executor runs hostile code, so its word is a claim: the form of what it says is held against
// the action, and the bytes against their digests.
//
//   trouble of its own (could not run, bytes lost on the way)       -> AGAIN
//   exit code, signal, limit; names, modes, completeness            -> LOCALLY, and nothing is stored
//   anything asked for that was not declared; a path or an          -> a result with outcome LOCAL and its reasons
//     undeclared variable in the dep-info
//   else                                                            -> a result with outcome SUCCESS
//
// Reading the quarantine is its only I/O. Thread: re-entrant.
#pragma once

#include "lib/blob/store.h"
#include "lib/core/action.h"
#include "lib/core/result.h"
#include "lib/wire/records.h"
#include "verifier/harvest.h"
#include "verifier/plan.h"

struct kiln_judge {
    struct kiln_store *store; // role VERIFIER
    int scratch_dir;          // for outputs on their way; not needed with a store that wants no bundles
    const char *scope;
    uint64_t generation, now_ms; // wall clock, for the result
    char *const *closure;        // stems of the submission, for the result
    size_t closure_count;
};

struct kiln_judgement {
    enum kiln_plan_verdict verdict; // STORED: `result` is to be stored
    struct kiln_result result;
    struct kiln_harvest harvest;    // its outputs, with a store that wants bundles
    char *reason;                   // the other verdicts; "word: detail"
};
void kiln_judgement_release(struct kiln_judgement *judgement);

// Where an output of the candidate lies in quarantine, and where all of them do in one. Heap.
char *kiln_candidate_key(const struct kiln_candidate *candidate, const struct kiln_digest *digest);
char *kiln_candidate_bundle_key(const struct kiln_candidate *candidate);

// *judgement zeroed. Fails only for troubles of this side; a candidate that is wrong is a verdict.
int kiln_judge(const struct kiln_judge *judge, const struct kiln_candidate *candidate, const struct kiln_action *action,
               struct kiln_judgement *judgement, struct kiln_err *err);
