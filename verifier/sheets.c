#include "verifier/sheets.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void kiln_sheets_init(struct kiln_sheets *sheets) {
    for (size_t i = 0; i < KILN_SHEETS_BUCKETS; i++)
        TAILQ_INIT(&sheets->buckets[i]);
    TAILQ_INIT(&sheets->dropped);
    sheets->count = 0;
}

static void free_submission(struct kiln_sheet *sheet, struct kiln_submission_kept *submission) {
    TAILQ_REMOVE(&sheet->submissions, submission, link);
    kiln_job_submitted_release(&submission->record);
    kiln_refs_release(&submission->lacking);
    free(submission);
}

static void free_run(struct kiln_sheet *sheet, struct kiln_run_kept *run) {
    TAILQ_REMOVE(&sheet->runs, run, link);
    kiln_candidate_release(&run->candidate);
    kiln_judgement_release(&run->judgement);
    free(run);
}

static void free_sheet(struct kiln_sheet *sheet) {
    for (struct kiln_submission_kept *submission; (submission = TAILQ_FIRST(&sheet->submissions));)
        free_submission(sheet, submission);
    for (struct kiln_run_kept *run; (run = TAILQ_FIRST(&sheet->runs));)
        free_run(sheet, run);
    kiln_action_release(&sheet->action);
    kiln_buf_release(&sheet->envelope);
    free(sheet);
}

void kiln_sheets_release(struct kiln_sheets *sheets) {
    for (size_t i = 0; i < KILN_SHEETS_BUCKETS; i++) {
        for (struct kiln_sheet *sheet; (sheet = TAILQ_FIRST(&sheets->buckets[i]));)
            kiln_sheets_drop(sheets, sheet);
    }
    assert(TAILQ_EMPTY(&sheets->dropped));
}

// An action digest is a SHA-256, and one that was chosen to fall into a bucket costs its maker more than us.
static size_t bucket_of(const struct kiln_digest *action) {
    return (action->bytes[30] << 8 | action->bytes[31]) % KILN_SHEETS_BUCKETS;
}

struct kiln_sheet *kiln_sheets_find(const struct kiln_sheets *sheets, const struct kiln_plan_key *key) {
    struct kiln_sheet *sheet;
    TAILQ_FOREACH(sheet, &sheets->buckets[bucket_of(&key->action)], link) {
        if (kiln_digest_equal(&sheet->key.action, &key->action) && strcmp(sheet->key.scope, key->scope) == 0)
            return sheet;
    }
    return NULL;
}

struct kiln_sheet *kiln_sheets_find_job(const struct kiln_sheets *sheets, const struct kiln_digest *action,
                                        const struct kiln_job_id *job, struct kiln_submission_kept **submission) {
    struct kiln_sheet *sheet;
    TAILQ_FOREACH(sheet, &sheets->buckets[bucket_of(action)], link) {
        if (!kiln_digest_equal(&sheet->key.action, action))
            continue;
        *submission = kiln_sheet_find(sheet, job);
        if (*submission)
            return sheet;
    }
    return NULL;
}

struct kiln_sheet *kiln_sheets_add(struct kiln_sheets *sheets, const struct kiln_plan_key *key, uint32_t partition,
                                   struct kiln_action *action) {
    struct kiln_sheet *sheet = calloc(1, sizeof *sheet);
    if (!sheet)
        return NULL;
    sheet->key = *key;
    sheet->partition = partition;
    sheet->action = *action;
    *action = (struct kiln_action){0};
    TAILQ_INIT(&sheet->submissions);
    TAILQ_INIT(&sheet->runs);
    sheet->envelope = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX + 4096);
    TAILQ_INSERT_TAIL(&sheets->buckets[bucket_of(&key->action)], sheet, link);
    sheets->count++;
    return sheet;
}

void kiln_sheets_drop(struct kiln_sheets *sheets, struct kiln_sheet *sheet) {
    if (sheet->dropped)
        return;
    TAILQ_REMOVE(&sheets->buckets[bucket_of(&sheet->key.action)], sheet, link);
    sheets->count--;
    if (!sheet->held) {
        free_sheet(sheet);
        return;
    }
    sheet->dropped = true;
    TAILQ_INSERT_TAIL(&sheets->dropped, sheet, link);
}

struct kiln_submission_kept *kiln_sheet_add(struct kiln_sheet *sheet, struct kiln_job_submitted *record,
                                            const struct kiln_author *author) {
    struct kiln_submission_kept *submission = calloc(1, sizeof *submission);
    if (!submission)
        return NULL;
    submission->record = *record;
    submission->author = *author;
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

static void free_unused(struct kiln_sheet *sheet, struct kiln_submission_kept *submission) {
    if (!submission->waiting && !submission->held && submission != sheet->basis)
        free_submission(sheet, submission);
}

void kiln_sheet_dismiss(struct kiln_sheet *sheet, struct kiln_submission_kept *submission) {
    submission->waiting = false;
    free_unused(sheet, submission);
}

bool kiln_sheet_is_waited_for(const struct kiln_sheet *sheet) {
    const struct kiln_submission_kept *submission;
    TAILQ_FOREACH(submission, &sheet->submissions, link) {
        if (submission->waiting)
            return true;
    }
    return false;
}

void kiln_sheet_set_basis(struct kiln_sheet *sheet, struct kiln_submission_kept *submission) {
    struct kiln_submission_kept *former = sheet->basis;
    sheet->basis = submission;
    if (former && former != submission)
        free_unused(sheet, former);
}

void kiln_sheet_hold(struct kiln_sheet *sheet, struct kiln_submission_kept *submission) {
    sheet->held++;
    if (submission)
        submission->held++;
}

void kiln_sheet_let_go(struct kiln_sheets *sheets, struct kiln_sheet *sheet, struct kiln_submission_kept *submission) {
    if (submission) {
        submission->held--;
        free_unused(sheet, submission);
    }
    if (--sheet->held == 0 && sheet->dropped) {
        TAILQ_REMOVE(&sheets->dropped, sheet, link);
        free_sheet(sheet);
    }
}

struct kiln_run_kept *kiln_sheet_add_run(struct kiln_sheet *sheet, struct kiln_candidate *candidate,
                                         const struct kiln_author *author, struct kiln_ack *ack) {
    struct kiln_run_kept *run = calloc(1, sizeof *run);
    if (!run)
        return NULL;
    run->candidate = *candidate;
    run->author = *author;
    run->ack = ack;
    *candidate = (struct kiln_candidate){0};
    TAILQ_INSERT_TAIL(&sheet->runs, run, link);
    return run;
}

struct kiln_run_kept *kiln_sheet_find_run(const struct kiln_sheet *sheet, uint32_t attempt) {
    struct kiln_run_kept *run;
    TAILQ_FOREACH(run, &sheet->runs, link) {
        if (run->candidate.attempt == attempt)
            return run;
    }
    return NULL;
}
