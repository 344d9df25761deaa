// What the docket keeps of each flight: the decoded action and its submissions.
//
// A submission is kept while it waits, and longer when it is the *basis*: the one whose content list was found complete,
// from which work is made and results are closed. One thread.
#pragma once

#include <sys/queue.h>

#include "lib/core/action.h"
#include "verifier/plan.h"

struct kiln_submission_kept {
    TAILQ_ENTRY(kiln_submission_kept) link;
    struct kiln_job_submitted record;
    bool waiting;
};

struct kiln_sheet {
    TAILQ_ENTRY(kiln_sheet) link;
    struct kiln_plan_key key;
    struct kiln_action action;
    TAILQ_HEAD(, kiln_submission_kept) submissions;
    struct kiln_submission_kept *basis; // one of them, or NULL
};

struct kiln_sheets {
    TAILQ_HEAD(, kiln_sheet) list;
};

void kiln_sheets_init(struct kiln_sheets *sheets);
void kiln_sheets_release(struct kiln_sheets *sheets);
struct kiln_sheet *kiln_sheets_find(const struct kiln_sheets *sheets, const struct kiln_plan_key *key);
// Takes the action (zeroes it); NULL, and nothing taken, when memory is exhausted.
struct kiln_sheet *kiln_sheets_add(struct kiln_sheets *sheets, const struct kiln_plan_key *key,
                                   struct kiln_action *action);
void kiln_sheets_drop(struct kiln_sheets *sheets, struct kiln_sheet *sheet);
// Takes the record (zeroes it).
struct kiln_submission_kept *kiln_sheet_add(struct kiln_sheet *sheet, struct kiln_job_submitted *record);
// A waiting submission.
struct kiln_submission_kept *kiln_sheet_find(const struct kiln_sheet *sheet, const struct kiln_job_id *job);
// It waits no longer: gone, unless it is the basis.
void kiln_sheet_dismiss(struct kiln_sheet *sheet, struct kiln_submission_kept *submission);
