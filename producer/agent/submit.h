// Misses: a job goes to the verifier over the bus, its wanted content into quarantine, and its answer comes back.
//
// One submitter per agent: a thread reads the results topic and gives each answer to the job it names. Identical actions
// that are in flight here share one submission. After the verifier was restarted, kiln_submitter_resubmit() publishes
// what is still waiting again (effects are idempotent). Only answers that a verifier wrote are heard.
// A submission whose time is over is kept as an orphan for a while when somebody wants late results. Thread-safe.
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
    const char *scope; // the tenant, or "public"
    // Puts the wanted contents into quarantine, each under its key. Called on the waiting thread.
    int (*upload)(void *context, const struct kiln_content_ref *contents, char *const *keys, size_t count,
                  struct kiln_err *err);
    void *context;
};

struct kiln_verdict {
    enum kiln_answer_status status; // RESULT, REJECTED or COMPILE_LOCALLY
    struct kiln_buf envelope;       // RESULT
    char *reason;                   // the others: "word: detail"
    bool executed;                  // this submission caused a sandbox run
    bool shared;                    // answered by another submission in flight
    uint64_t waited_ms;
};
void kiln_verdict_release(struct kiln_verdict *verdict);

struct kiln_late_result { // borrowed by the callback
    const struct kiln_digest *action;
    const char *scope;
    const void *envelope, *submission; // the latter framed, as it was sent
    size_t len, submission_len;
    uint64_t waited_ms; // since it was submitted
};

struct kiln_submitter_options {
    const char *agent, *tenant; // names in quarantine keys; copied
    uint32_t waiter_partition;  // of the results topic
    // Results whose submission had given up; on the reading thread, which must not wait. NULL: submissions end with their time.
    void (*late)(void *context, const struct kiln_late_result *result);
    void *context;
    uint64_t late_ms; // how long one is waited for
    uint64_t silence_ms; // how long a verifier may take to accept a submission; 0: until its deadline
};

// Takes ownership of the bus handle (role AGENT), also on failure.
int kiln_submitter_new(struct kiln_bus *bus, const struct kiln_submitter_options *options, struct kiln_submitter **submitter,
                       struct kiln_err *err);
void kiln_submitter_free(struct kiln_submitter *submitter); // waiting submissions get KILN_E_CLOSED
// KILN_E_TIMEOUT: no result until the deadline; "fleet_silent: ...": nobody accepted it within silence_ms.
int kiln_submit(struct kiln_submitter *submitter, const struct kiln_submission *submission, uint64_t deadline_ms,
                struct kiln_verdict *verdict, struct kiln_err *err);
void kiln_submitter_resubmit(struct kiln_submitter *submitter);
// Gives all that waits the verdict COMPILE_LOCALLY: the fleet cannot work.
void kiln_submitter_give_up(struct kiln_submitter *submitter, const char *reason);
size_t kiln_submitter_waiting(struct kiln_submitter *submitter);
// When a verifier was last heard (monotonic); 0: never.
uint64_t kiln_submitter_heard_ms(struct kiln_submitter *submitter);
// How many records among the answers were none, by the bus or by their form. `why`: the bus' last reason.
uint64_t kiln_submitter_refused(struct kiln_submitter *submitter, char why[KILN_BUS_WHY_BYTES]);
// 0, or why a submission would reach nobody now (kiln_bus_healthy).
int kiln_submitter_healthy(struct kiln_submitter *submitter, struct kiln_err *err);
