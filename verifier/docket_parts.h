// The docket's inside, for its own files: docket.c (steps and actions), docket_jobs.c (what agents say), docket_runs.c (what
// executors say), docket_answers.c (what they are told), docket_restore.c (partitions that come and go).
#pragma once

#include "lib/base/log.h"
#include "verifier/acks.h"
#include "verifier/admit.h"
#include "verifier/authority.h"
#include "verifier/chronicle.h"
#include "verifier/crew.h"
#include "verifier/docket.h"
#include "verifier/quota.h"
#include "verifier/sheets.h"
#include "verifier/state.h"

#define KILN_DOCKET_EXECUTORS_MAX 1024u

struct kiln_docket {
    struct kiln_docket_options options;
    struct kiln_authority authority;
    struct kiln_plan *plan;
    struct kiln_sheets sheets;
    struct kiln_crew *crew;
    struct kiln_acks acks;
    struct kiln_state state;
    struct kiln_chronicle chronicle;
    struct kiln_quota quota;
    struct kiln_docket_counts counts;
    bool fleet;           // identity comes from signatures
    bool trust_failed;    // the last look at the trust record found none in force
    char refused[48];     // why the newest record was not taken; "" when it was
    uint64_t looked_ms;   // when executors were last looked up
    char (*executors)[KILN_PRINCIPAL_BYTES]; // that gave credits
    size_t executors_count;
    TAILQ_HEAD(, kiln_deferred) deferred;
    struct {
        bool restoring;
        size_t pending;   // sheets that are still looked at
    } partitions[KILN_PLAN_PARTITIONS_MAX];
};

// A candidate that came while its partition was restored.
struct kiln_deferred {
    TAILQ_ENTRY(kiln_deferred) link;
    struct kiln_record record; // a copy
    struct kiln_ack *ack;
};

// What a step is about, for the actions that need more than the plan knows. The candidate is taken by JUDGE.
struct kiln_occasion {
    struct kiln_candidate *candidate; // NULL: a lease
    const struct kiln_author *author;
    struct kiln_ack **ack; // NULL once it was taken
};

static inline bool kiln_docket_is_fatal(int rc) { return rc == KILN_E_NOMEM || rc == KILN_E_CLOSED; }

int kiln_docket_step(struct kiln_docket *docket, const struct kiln_plan_event *event, const struct kiln_occasion *occasion,
                     struct kiln_err *err);
struct kiln_admit kiln_docket_admit(const struct kiln_docket *docket, const struct kiln_sheet *sheet);
uint32_t kiln_docket_agreement(const struct kiln_docket *docket, const char *scope);
// Closes what the sheet still holds (acks, quarantine, state), and drops it.
int kiln_docket_close_sheet(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_err *err);
// Removes what lies below a prefix (heap; taken) of quarantine, some time.
int kiln_docket_sweep(struct kiln_docket *docket, char *prefix, struct kiln_err *err);
// What a candidate came with.
int kiln_docket_sweep_outputs(struct kiln_docket *docket, const struct kiln_candidate *candidate, struct kiln_err *err);
// What a submitter may have uploaded and nobody took; nothing when it was never asked to.
int kiln_docket_sweep_uploads(struct kiln_docket *docket, const struct kiln_submission_kept *submission, struct kiln_err *err);
// An event named by the reason; severity "alert" where somebody spoke in another's name.
int kiln_docket_refuse(struct kiln_docket *docket, const struct kiln_author *author, const char *reason, struct kiln_err *err);
void kiln_docket_log(enum kiln_log_level level, const char *event, const struct kiln_job_id *job,
                     const struct kiln_digest *action, const char *detail);

// docket_answers.c
int kiln_docket_answer(struct kiln_docket *docket, const char *tenant, uint32_t partition, const struct kiln_answer *answer,
                       struct kiln_err *err);
// To one submitter that is in no sheet.
int kiln_docket_answer_one(struct kiln_docket *docket, const struct kiln_author *author, uint32_t partition,
                           const struct kiln_job_submitted *record, enum kiln_answer_status status, const char *reason,
                           struct kiln_err *err);
// In a fleet: that the submission is written down. Who does not hear it soon knows that no verifier is there.
int kiln_docket_accept(struct kiln_docket *docket, const struct kiln_author *author, uint32_t partition,
                       const struct kiln_job_submitted *record, struct kiln_err *err);
// To submissions of a sheet, which wait no longer. RESULT gives the sheet's envelope.
int kiln_docket_answer_jobs(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_job_id *jobs, size_t count,
                            enum kiln_answer_status status, const char *reason, struct kiln_err *err);
// To all that wait.
int kiln_docket_answer_all(struct kiln_docket *docket, struct kiln_sheet *sheet, enum kiln_answer_status status,
                           const char *reason, struct kiln_err *err);

// docket_jobs.c
int kiln_docket_on_submitted(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_err *err);
int kiln_docket_on_uploaded(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_err *err);
int kiln_docket_on_cancelled(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_err *err);
int kiln_docket_want(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_job_id *job, struct kiln_err *err);
int kiln_docket_check(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_err *err);
// Looks at the first submission that waits; the sheet goes when there is none.
int kiln_docket_examine(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_err *err);

// docket_runs.c
int kiln_docket_on_credit(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_err *err);
int kiln_docket_on_lease(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_err *err);
int kiln_docket_on_decline(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_err *err);
// *ack is NULL afterwards when it is kept for later.
int kiln_docket_on_candidate(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_ack **ack,
                             struct kiln_err *err);
int kiln_docket_dispatch(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_plan_action *action,
                         struct kiln_err *err);
int kiln_docket_judge(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_occasion *occasion,
                      struct kiln_err *err);
int kiln_docket_discard(struct kiln_docket *docket, const struct kiln_plan_action *action,
                        const struct kiln_occasion *occasion, struct kiln_err *err);
int kiln_docket_store(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_plan_action *action,
                      struct kiln_err *err);
int kiln_docket_diverged(struct kiln_docket *docket, const struct kiln_plan_action *action, struct kiln_err *err);
int kiln_docket_demand(struct kiln_docket *docket, const struct kiln_plan_action *action, struct kiln_err *err);
int kiln_docket_look_at_executors(struct kiln_docket *docket, struct kiln_err *err);

// docket_restore.c
int kiln_docket_gain(struct kiln_docket *docket, uint32_t partition, struct kiln_err *err);
// Drops all sheets of a partition: state, quarantine and acks are the next owner's.
void kiln_docket_forget(struct kiln_docket *docket, uint32_t partition);
int kiln_docket_lose(struct kiln_docket *docket, uint32_t partition, struct kiln_err *err);
// A sheet is known now, or has gone: with the last one that was restored, its partition goes on.
int kiln_docket_looked_at(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_err *err);
bool kiln_docket_is_restoring(const struct kiln_docket *docket, uint32_t partition);
// Keeps the candidate (a copy) and its ack until the partition goes on.
int kiln_docket_defer(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_ack **ack, struct kiln_err *err);
