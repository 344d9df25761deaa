#include "verifier/sheets.h"

#include <stdlib.h>
#include <string.h>

void kiln_sheets_init(struct kiln_sheets *sheets) { TAILQ_INIT(&sheets->list); }

void kiln_sheets_release(struct kiln_sheets *sheets) {
    for (struct kiln_sheet *sheet; (sheet = TAILQ_FIRST(&sheets->list));)
        kiln_sheets_drop(sheets, sheet);
}

struct kiln_sheet *kiln_sheets_find(const struct kiln_sheets *sheets, const struct kiln_plan_key *key) {
    struct kiln_sheet *sheet;
    TAILQ_FOREACH(sheet, &sheets->list, link) {
        if (kiln_digest_equal(&sheet->key.action, &key->action) && strcmp(sheet->key.scope, key->scope) == 0)
            return sheet;
    }
    return NULL;
}

struct kiln_sheet *kiln_sheets_add(struct kiln_sheets *sheets, const struct kiln_plan_key *key,
                                   struct kiln_action *action) {
    struct kiln_sheet *sheet = calloc(1, sizeof *sheet);
    if (!sheet)
        return NULL;
    sheet->key = *key;
    sheet->action = *action;
    *action = (struct kiln_action){0};
    TAILQ_INIT(&sheet->submissions);
    TAILQ_INSERT_TAIL(&sheets->list, sheet, link);
    return sheet;
}

static void free_submission(struct kiln_sheet *sheet, struct kiln_submission_kept *submission) {
    TAILQ_REMOVE(&sheet->submissions, submission, link);
    kiln_job_submitted_release(&submission->record);
    free(submission);
}

void kiln_sheets_drop(struct kiln_sheets *sheets, struct kiln_sheet *sheet) {
    for (struct kiln_submission_kept *submission; (submission = TAILQ_FIRST(&sheet->submissions));)
        free_submission(sheet, submission);
    TAILQ_REMOVE(&sheets->list, sheet, link);
    kiln_action_release(&sheet->action);
    free(sheet);
}

struct kiln_submission_kept *kiln_sheet_add(struct kiln_sheet *sheet, struct kiln_job_submitted *record) {
    struct kiln_submission_kept *submission = calloc(1, sizeof *submission);
    if (!submission)
        return NULL;
    submission->record = *record;
    submission->waiting = true;
    *record = (struct kiln_job_submitted){0};
    TAILQ_INSERT_TAIL(&sheet->submissions, submission, link);
    return submission;
}

struct kiln_submission_kept *kiln_sheet_find(const struct kiln_sheet *sheet, const struct kiln_job_id *job) {
    struct kiln_submission_kept *submission;
    TAILQ_FOREACH(submission, &sheet->submissions, link) {
        if (submission->waiting && memcmp(&submission->record.job, job, sizeof *job) == 0)
            return submission;
    }
    return NULL;
}

void kiln_sheet_dismiss(struct kiln_sheet *sheet, struct kiln_submission_kept *submission) {
    submission->waiting = false;
    if (submission != sheet->basis)
        free_submission(sheet, submission);
}
