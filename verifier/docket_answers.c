#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "verifier/docket_parts.h"

#define PUBLISH_MS_MAX 3000u // how long a full topic is waited for: its readers are behind
#define PUBLISH_PAUSE_MS 5
#define JOBS_PER_ANSWER 512u // leaves room for the largest envelope in one record

static const char *const status_names[] = {
    [KILN_ANSWER_WANTED] = "wanted", [KILN_ANSWER_REJECTED] = "rejected", [KILN_ANSWER_RESULT] = "result",
    [KILN_ANSWER_COMPILE_LOCALLY] = "compile_locally", [KILN_ANSWER_ACCEPTED] = "accepted"};

// An answer that finds no room for long is dropped: its readers' deadline takes over.
static int publish(struct kiln_docket *docket, const char *tenant, uint32_t partition, const struct kiln_digest *action,
                   const struct kiln_buf *record, struct kiln_err *err) {
    uint64_t deadline_ms = kiln_clock_ms() + PUBLISH_MS_MAX;
    struct kiln_err why = {0};
    for (;;) {
        int rc = kiln_bus_publish_result(docket->options.bus, tenant, partition, action->bytes, sizeof action->bytes,
                                         record->data, record->len, &why);
        if (rc == 0)
            return 0;
        if (rc != KILN_E_LIMIT || !why.retriable || kiln_clock_ms() >= deadline_ms) {
            kiln_log(KILN_LOG_ERROR, "publish_failed", "topic", "kiln.results", "error", why.text, NULL);
            return rc == KILN_E_CLOSED || rc == KILN_E_DENIED ? kiln_fail(err, KILN_E_CLOSED, "%s", why.text) : 0;
        }
        poll(NULL, 0, PUBLISH_PAUSE_MS);
    }
}

int kiln_docket_answer(struct kiln_docket *docket, const char *tenant, uint32_t partition, const struct kiln_answer *answer,
                       struct kiln_err *err) {
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    struct kiln_err why = {0};
    int rc = kiln_answer_encode(answer, &record, &why);
    if (rc) {
        kiln_docket_log(KILN_LOG_ERROR, "answer_unsayable", &answer->jobs[0], &answer->action_digest, why.text);
        return rc == KILN_E_NOMEM ? kiln_fail(err, rc, "%s", why.text) : 0;
    }
    if (answer->status != KILN_ANSWER_ACCEPTED)
        docket->counts.answered += answer->jobs_count;
    return publish(docket, tenant, partition, &answer->action_digest, &record, err);
}

int kiln_docket_answer_one(struct kiln_docket *docket, const struct kiln_author *author, uint32_t partition,
                           const struct kiln_job_submitted *record, enum kiln_answer_status status, const char *reason,
                           struct kiln_err *err) {
    kiln_autofree char *plain = kiln_chronicle_plain(reason);
    if (!plain)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a reason");
    struct kiln_job_id job = record->job;
    const struct kiln_answer answer = {.jobs = &job, .jobs_count = 1, .action_digest = record->action_digest,
                                       .status = status, .reasons = &plain, .reasons_count = 1};
    const struct kiln_chronicle_entry entry = {.event = status_names[status], .action = &record->action_digest, .job = &job,
                                               .tenant = author->tenant, .principal = author->principal, .detail = plain};
    kiln_docket_log(KILN_LOG_INFO, status_names[status], &job, &record->action_digest, plain);
    docket->counts.rejected += status == KILN_ANSWER_REJECTED;
    docket->counts.locally += status == KILN_ANSWER_COMPILE_LOCALLY;
    int rc = kiln_chronicle_enter(&docket->chronicle, &entry, err);
    return rc || !*author->tenant ? rc : kiln_docket_answer(docket, author->tenant, partition, &answer, err);
}

int kiln_docket_accept(struct kiln_docket *docket, const struct kiln_author *author, uint32_t partition,
                       const struct kiln_job_submitted *record, struct kiln_err *err) {
    struct kiln_job_id job = record->job;
    const struct kiln_answer answer = {.jobs = &job, .jobs_count = 1, .action_digest = record->action_digest,
                                       .status = KILN_ANSWER_ACCEPTED};
    return docket->fleet ? kiln_docket_answer(docket, author->tenant, partition, &answer, err) : 0;
}

// A waiter on its way out; those that read the same partition are told together.
struct leaver {
    struct kiln_submission_kept *submission;
    size_t at; // keeps the order
};

static int compare_mailbox(const struct kiln_submission_kept *a, const struct kiln_submission_kept *b) {
    if (a->record.waiter_partition != b->record.waiter_partition)
        return a->record.waiter_partition < b->record.waiter_partition ? -1 : 1;
    return strcmp(a->author.tenant, b->author.tenant);
}

static int by_mailbox(const void *a, const void *b) {
    const struct leaver *one = a, *other = b;
    int order = compare_mailbox(one->submission, other->submission);
    return order ? order : one->at < other->at ? -1 : one->at > other->at;
}

static int enter(struct kiln_docket *docket, const struct kiln_sheet *sheet, const struct kiln_submission_kept *submission,
                 const char *event, const char *detail, struct kiln_err *err) {
    const struct kiln_chronicle_entry entry = {
        .event = event, .action = &sheet->key.action, .job = &submission->record.job, .scope = sheet->key.scope,
        .tenant = submission->author.tenant, .principal = submission->author.principal, .detail = detail};
    kiln_docket_log(KILN_LOG_INFO, event, &submission->record.job, &sheet->key.action, detail);
    return kiln_chronicle_enter(&docket->chronicle, &entry, err);
}

int kiln_docket_sweep_uploads(struct kiln_docket *docket, const struct kiln_submission_kept *submission, struct kiln_err *err) {
    bool may_lie_there = submission->asked || submission->uploaded || submission->restored;
    return submission->looked_at || !may_lie_there ? 0 : kiln_docket_sweep(docket, kiln_admit_uploads(&submission->record), err);
}

// One record for leavers of one mailbox.
static int tell_some(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct leaver *leavers, size_t count,
                     enum kiln_answer_status status, char *reason, struct kiln_err *err) {
    struct kiln_job_id jobs[JOBS_PER_ANSWER];
    int rc = 0;
    for (size_t i = 0; i < count; i++)
        jobs[i] = leavers[i].submission->record.job;
    struct kiln_answer answer = {.jobs = jobs, .jobs_count = count, .action_digest = sheet->key.action, .status = status,
                                 .reasons = &reason, .reasons_count = reason ? 1 : 0};
    answer.executed = sheet->executed;
    if (status == KILN_ANSWER_RESULT) {
        answer.envelope = sheet->envelope.data;
        answer.envelope_len = sheet->envelope.len;
    }
    const struct kiln_submission_kept *first = leavers[0].submission;
    rc = kiln_docket_answer(docket, first->author.tenant, first->record.waiter_partition, &answer, err);
    for (size_t i = 0; !rc && i < count; i++) {
        struct kiln_submission_kept *submission = leavers[i].submission;
        rc = enter(docket, sheet, submission, status_names[status], reason, err);
        if (!rc)
            rc = kiln_state_drop_waiter(&docket->state, &sheet->key.action, &submission->record.job, err);
        if (rc == KILN_E_LIMIT)
            rc = 0; // it is looked at once more after the next restart, and answered once more
        if (!rc)
            rc = kiln_docket_sweep_uploads(docket, submission, err);
        kiln_sheet_dismiss(sheet, submission);
    }
    return rc;
}

static int tell(struct kiln_docket *docket, struct kiln_sheet *sheet, struct leaver *leavers, size_t count,
                enum kiln_answer_status status, const char *reason, struct kiln_err *err) {
    kiln_autofree char *plain = reason ? kiln_chronicle_plain(reason) : NULL;
    if (reason && !plain)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a reason");
    docket->counts.rejected += status == KILN_ANSWER_REJECTED ? count : 0;
    qsort(leavers, count, sizeof *leavers, by_mailbox);
    int rc = 0;
    for (size_t at = 0, next; !rc && at < count; at = next) {
        next = at + 1;
        while (next < count && next - at < JOBS_PER_ANSWER &&
               compare_mailbox(leavers[at].submission, leavers[next].submission) == 0)
            next++;
        rc = tell_some(docket, sheet, leavers + at, next - at, status, plain, err);
    }
    return rc;
}

int kiln_docket_answer_jobs(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_job_id *jobs, size_t count,
                            enum kiln_answer_status status, const char *reason, struct kiln_err *err) {
    kiln_autofree struct leaver *leavers = calloc(count + 1, sizeof *leavers);
    if (!leavers)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for answers");
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        struct kiln_submission_kept *submission = kiln_sheet_find(sheet, &jobs[i]);
        if (submission)
            leavers[found++] = (struct leaver){submission, i};
    }
    return tell(docket, sheet, leavers, found, status, reason, err);
}

int kiln_docket_answer_all(struct kiln_docket *docket, struct kiln_sheet *sheet, enum kiln_answer_status status,
                           const char *reason, struct kiln_err *err) {
    struct kiln_submission_kept *submission;
    size_t count = 0, found = 0;
    TAILQ_FOREACH(submission, &sheet->submissions, link)
        count += submission->waiting;
    kiln_autofree struct leaver *leavers = calloc(count + 1, sizeof *leavers);
    if (!leavers)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for answers");
    TAILQ_FOREACH(submission, &sheet->submissions, link) {
        if (submission->waiting) {
            leavers[found] = (struct leaver){submission, found};
            found++;
        }
    }
    docket->counts.locally += status == KILN_ANSWER_COMPILE_LOCALLY ? found : 0;
    return tell(docket, sheet, leavers, found, status, reason, err);
}
