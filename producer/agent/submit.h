// Misses: a job goes to the verifier over the bus, its wanted content into quarantine, and its answer comes back.
//
// One submitter per agent: a thread reads the results topic and gives each answer to the job it names. Identical actions
// that are in flight here share one submission. After the verifier was restarted, kiln_submitter_resubmit() publishes
// what is still waiting again (effects are idempotent). Thread-safe.
#pragma once

#include "lib/blob/store.h"
#include "lib/bus/bus.h"
#include "lib/wire/records.h"

struct kiln_submitter;

struct kiln_submission {
    struct kiln_digest action_digest;
    const unsigned char *action; // canonical encoding; borrowed
    size_t action_len;
    struct kiln_content_ref *contents; // borrowed
    size_t contents_count;
    char **closure; // stems; borrowed
    size_t closure_count;
    const char *build_id;
    // Puts one wanted content into quarantine under the key (kiln_store_put_*). Called on the waiting thread.
    int (*upload)(void *context, const struct kiln_content_ref *content, const char *key, struct kiln_err *err);
    void *context;
};

struct kiln_verdict {
    enum kiln_answer_status status; // RESULT, REJECTED or COMPILE_LOCALLY
    struct kiln_buf envelope;       // RESULT
    char *reason;                   // the others: "word: detail"
    bool executed;                  // this submission caused a sandbox run
    bool shared;                    // answered by another submission in flight
};
void kiln_verdict_release(struct kiln_verdict *verdict);

// Takes ownership of the bus handle (role AGENT), also on failure.
int kiln_submitter_new(struct kiln_bus *bus, const char *agent_name, struct kiln_submitter **submitter, struct kiln_err *err);
void kiln_submitter_free(struct kiln_submitter *submitter); // waiting submissions get KILN_E_CLOSED
int kiln_submit(struct kiln_submitter *submitter, const struct kiln_submission *submission, uint64_t deadline_ms,
                struct kiln_verdict *verdict, struct kiln_err *err);
void kiln_submitter_resubmit(struct kiln_submitter *submitter);
// Gives all that waits the verdict COMPILE_LOCALLY: the embedded fleet cannot work.
void kiln_submitter_give_up(struct kiln_submitter *submitter, const char *reason);
size_t kiln_submitter_waiting(struct kiln_submitter *submitter);
