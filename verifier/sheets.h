// What the docket keeps of each flight: the decoded action, its submissions, and what its runs gave.
//
// A sheet is there from the first submission on, also while that is looked at and the plan does not know of it. A submission
// is kept while it waits; and longer when a task reads it, or it is the *basis*: the one whose content was found complete, from
// which work is made and results are closed. A run is kept from its candidate until the flight has gone; with it the ack of the
// candidate's record, so that after a crash it is judged again. Tasks hold a sheet: it is freed with the last of them, and
// until then is `dropped`, found by nobody. One thread; tasks read what they hold and nothing else.
#pragma once

#include <sys/queue.h>

#include "lib/core/action.h"
#include "verifier/acks.h"
#include "verifier/admit.h"
#include "verifier/judge.h"
#include "verifier/plan.h"

struct kiln_submission_kept {
    TAILQ_ENTRY(kiln_submission_kept) link;
    struct kiln_job_submitted record;
    struct kiln_author author;
    uint64_t until_ms;         // how long it waits
    uint64_t offset;           // of its record
    bool waiting, restored;
    bool looked_at;            // a task fills in its record
    bool uploaded;             // it said so meanwhile
    bool checked;              // `lacking` is known, and not used yet
    bool asked;                // to upload: there may be something to sweep
    struct kiln_refs lacking;
    unsigned held;             // by tasks
};

struct kiln_run_kept {
    TAILQ_ENTRY(kiln_run_kept) link;
    struct kiln_candidate candidate;
    struct kiln_author author;
    struct kiln_judgement judgement;
    struct kiln_ack *ack;
};

struct kiln_sheet {
    TAILQ_ENTRY(kiln_sheet) link;
    struct kiln_plan_key key;
    uint32_t partition;
    struct kiln_action action;
    TAILQ_HEAD(, kiln_submission_kept) submissions;
    struct kiln_submission_kept *basis; // one of them, or NULL
    TAILQ_HEAD(, kiln_run_kept) runs;
    uint32_t attempts; // the highest that was dispatched
    struct kiln_job_id executed; // of the last candidate that was judged; zero: none was
    struct kiln_buf envelope; // of the result that is to be announced
    bool examined;     // the plan knows of it
    bool awaited;      // its partition goes on when it was looked at
    bool dropped;
    unsigned held;     // by tasks
};

#define KILN_SHEETS_BUCKETS 4096u
TAILQ_HEAD(kiln_sheet_list, kiln_sheet);
struct kiln_sheets {
    struct kiln_sheet_list buckets[KILN_SHEETS_BUCKETS], dropped;
    size_t count;
};

void kiln_sheets_init(struct kiln_sheets *sheets);
void kiln_sheets_release(struct kiln_sheets *sheets); // no task holds any
struct kiln_sheet *kiln_sheets_find(const struct kiln_sheets *sheets, const struct kiln_plan_key *key);
// The sheet of an action, in any scope, in which that job waits; and the submission.
struct kiln_sheet *kiln_sheets_find_job(const struct kiln_sheets *sheets, const struct kiln_digest *action,
                                        const struct kiln_job_id *job, struct kiln_submission_kept **submission);
// Takes the action (zeroes it); NULL, and nothing taken, when memory is exhausted.
struct kiln_sheet *kiln_sheets_add(struct kiln_sheets *sheets, const struct kiln_plan_key *key, uint32_t partition,
                                   struct kiln_action *action);
void kiln_sheets_drop(struct kiln_sheets *sheets, struct kiln_sheet *sheet);
// Takes the record (zeroes it).
struct kiln_submission_kept *kiln_sheet_add(struct kiln_sheet *sheet, struct kiln_job_submitted *record,
                                            const struct kiln_author *author);
// A waiting submission.
struct kiln_submission_kept *kiln_sheet_find(const struct kiln_sheet *sheet, const struct kiln_job_id *job);
// It waits no longer: gone, unless it is the basis or a task holds it.
void kiln_sheet_dismiss(struct kiln_sheet *sheet, struct kiln_submission_kept *submission);
bool kiln_sheet_is_waited_for(const struct kiln_sheet *sheet);
void kiln_sheet_set_basis(struct kiln_sheet *sheet, struct kiln_submission_kept *submission);
// For tasks. submission may be NULL. Letting go frees what was only held.
void kiln_sheet_hold(struct kiln_sheet *sheet, struct kiln_submission_kept *submission);
void kiln_sheet_let_go(struct kiln_sheets *sheets, struct kiln_sheet *sheet, struct kiln_submission_kept *submission);
// Takes the candidate (zeroes it). NULL when memory is exhausted.
struct kiln_run_kept *kiln_sheet_add_run(struct kiln_sheet *sheet, struct kiln_candidate *candidate,
                                         const struct kiln_author *author, struct kiln_ack *ack);
struct kiln_run_kept *kiln_sheet_find_run(const struct kiln_sheet *sheet, uint32_t attempt);
