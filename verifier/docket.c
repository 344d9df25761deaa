#include "verifier/docket.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/wire/records.h"
#include "verifier/judge.h"
#include "verifier/sheets.h"

#define WAITER_MS_MAX (6ull * 3600 * 1000)
#define CREDIT_MS_MAX (10ull * 60 * 1000)
#define CREDIT_MARGIN_MS 1000u // work must reach the executor before it takes a credit for expired
#define PUBLISH_MS_MAX 3000u // how long a full topic is waited for
#define PUBLISH_PAUSE_MS 5
#define JOBS_PER_ANSWER 512u // leaves room for the largest envelope in one record

struct kiln_docket {
    struct kiln_docket_options options;
    struct kiln_plan *plan;
    struct kiln_sheets sheets;
    struct kiln_buf envelope; // of the result that the present step announces
};

// What a step is about, for the actions that need more than the plan knows.
struct occasion {
    const struct kiln_candidate *candidate;
};

static int step(struct kiln_docket *docket, const struct kiln_plan_event *event, const struct occasion *occasion,
                struct kiln_err *err);

static void format_id(const struct kiln_job_id *id, char hex[33]) {
    for (size_t i = 0; i < sizeof id->bytes; i++)
        snprintf(hex + 2 * i, 3, "%02x", id->bytes[i]);
}

static void log_job(enum kiln_log_level level, const char *event, const struct kiln_job_id *job,
                    const struct kiln_digest *action, const char *detail) {
    char job_hex[33], action_hex[KILN_DIGEST_HEX_LEN + 1];
    if (!kiln_log_enabled(level))
        return;
    format_id(job, job_hex);
    kiln_digest_format(action, action_hex);
    if (detail)
        kiln_log(level, event, "job", job_hex, "action", action_hex, "detail", detail, NULL);
    else
        kiln_log(level, event, "job", job_hex, "action", action_hex, NULL);
}

static bool is_fatal(int rc) { return rc == KILN_E_NOMEM || rc == KILN_E_CLOSED; }

// A full topic is waited for a while: its reader is behind. After that the record is dropped, and the other side's deadline
// takes over.
static int publish(struct kiln_docket *docket, enum kiln_topic topic, uint32_t partition, const void *key, size_t key_len,
                   const struct kiln_buf *record, struct kiln_err *err) {
    uint64_t deadline_ms = kiln_clock_ms() + PUBLISH_MS_MAX;
    struct kiln_err why;
    for (;;) {
        int rc = kiln_bus_publish(docket->options.bus, topic, partition, key, key_len, record->data, record->len, &why);
        if (rc == 0)
            return 0;
        if (rc != KILN_E_LIMIT || !why.retriable || kiln_clock_ms() >= deadline_ms) {
            kiln_log(KILN_LOG_ERROR, "publish_failed", "topic", kiln_topic_name(topic), "error", why.text, NULL);
            return rc == KILN_E_CLOSED || rc == KILN_E_DENIED ? kiln_fail(err, KILN_E_CLOSED, "%s", why.text) : 0;
        }
        poll(NULL, 0, PUBLISH_PAUSE_MS);
    }
}

static int publish_answer(struct kiln_docket *docket, uint32_t partition, const struct kiln_answer *answer,
                          struct kiln_err *err) {
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    struct kiln_err why;
    int rc = kiln_answer_encode(answer, &record, &why);
    if (rc) {
        log_job(KILN_LOG_ERROR, "answer_unsayable", &answer->jobs[0], &answer->action_digest, why.text);
        return rc == KILN_E_NOMEM ? kiln_fail(err, rc, "%s", why.text) : 0;
    }
    return publish(docket, KILN_TOPIC_RESULTS, partition, answer->action_digest.bytes,
                   sizeof answer->action_digest.bytes, &record, err);
}

// Texts of records are UTF-8, and a reason may quote a hostile name or be cut within a character.
static char *make_plain(const char *text) {
    char *plain = strdup(text);
    for (char *c = plain; c && *c; c++) {
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
    }
    return plain;
}

static int tell(struct kiln_docket *docket, uint32_t partition, struct kiln_job_id *jobs, size_t count,
                const struct kiln_digest *action, enum kiln_answer_status status, const char *reason,
                struct kiln_err *err) {
    kiln_autofree char *plain = reason ? make_plain(reason) : NULL;
    if (reason && !plain)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a reason");
    char *reasons[] = {plain};
    struct kiln_answer answer = {.jobs = jobs, .jobs_count = count, .action_digest = *action, .status = status,
                                 .reasons = reasons, .reasons_count = reason ? 1 : 0};
    if (status == KILN_ANSWER_RESULT) {
        answer.envelope = docket->envelope.data;
        answer.envelope_len = docket->envelope.len;
    }
    static const char *const events[] = {"wanted", "rejected", "result", "compile_locally"};
    for (size_t i = 0; i < count; i++)
        log_job(KILN_LOG_INFO, events[status], &jobs[i], action, plain);
    return publish_answer(docket, partition, &answer, err);
}

// All waiters of one partition in as few records as possible; `jobs` is used up.
static int tell_all(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_job_id *jobs, size_t count,
                    enum kiln_answer_status status, const char *reason, struct kiln_err *err) {
    int rc = 0;
    for (uint32_t partition = 0; !rc && partition < KILN_BUS_PARTITIONS_MAX; partition++) {
        struct kiln_job_id chunk[JOBS_PER_ANSWER];
        size_t filled = 0;
        for (size_t i = 0; !rc && i < count; i++) {
            struct kiln_submission_kept *submission = kiln_sheet_find(sheet, &jobs[i]);
            if (!submission || submission->record.waiter_partition != partition)
                continue;
            chunk[filled++] = jobs[i];
            kiln_admit_clear(&docket->options.admit, &submission->record);
            kiln_sheet_dismiss(sheet, submission);
            if (filled == JOBS_PER_ANSWER) {
                rc = tell(docket, partition, chunk, filled, &sheet->key.action, status, reason, err);
                filled = 0;
            }
        }
        if (!rc && filled)
            rc = tell(docket, partition, chunk, filled, &sheet->key.action, status, reason, err);
    }
    return rc;
}

// Asks for what is lacking now; when that has become nothing, it is as if it had been uploaded.
static int want(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_job_id *job, struct kiln_err *err) {
    struct kiln_submission_kept *submission = kiln_sheet_find(sheet, job);
    if (!submission)
        return 0;
    kiln_auto(kiln_refs_release) struct kiln_refs lacking = {0};
    struct kiln_plan_event event = {.kind = KILN_PLAN_UPLOADED, .key = sheet->key, .job = *job};
    struct kiln_err why;
    int rc = kiln_admit_lacking(&docket->options.admit, &submission->record, &sheet->action, KILN_ADMIT_PRESENT, &lacking,
                                &why);
    if (is_fatal(rc))
        return kiln_fail(err, rc, "%s", why.text);
    if (rc) {
        event.kind = KILN_PLAN_REFUSED;
        event.reason = why.text;
        return step(docket, &event, NULL, err);
    }
    if (!lacking.count) {
        sheet->basis = submission;
        return step(docket, &event, NULL, err);
    }
    const struct kiln_answer answer = {.jobs = &submission->record.job, .jobs_count = 1,
                                       .action_digest = sheet->key.action, .status = KILN_ANSWER_WANTED,
                                       .contents = lacking.list, .contents_count = lacking.count};
    char count[24];
    snprintf(count, sizeof count, "%zu", lacking.count);
    log_job(KILN_LOG_INFO, "wanted", job, &sheet->key.action, count);
    return publish_answer(docket, submission->record.waiter_partition, &answer, err);
}

static int dispatch(struct kiln_docket *docket, const struct kiln_sheet *sheet, const struct kiln_plan_action *action,
                    struct kiln_err *err) {
    if (!sheet->basis)
        return kiln_fail(err, KILN_E_INTERNAL, "a job was dispatched before its content was complete");
    const struct kiln_job_submitted *from = &sheet->basis->record;
    const struct kiln_work work = {
        .job = action->job, .incarnation = action->incarnation, .credit = action->credit, .attempt = action->attempt,
        .lease_ms = action->lease_ms, .action_digest = sheet->key.action, .action = from->action,
        .action_len = from->action_len, .contents = from->contents, .contents_count = from->contents_count,
        .scope = (char *)sheet->key.scope,
    };
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    int rc = kiln_work_encode(&work, &record, err);
    if (rc)
        return rc;
    log_job(KILN_LOG_INFO, "dispatched", &action->job, &sheet->key.action, action->executor);
    return publish(docket, KILN_TOPIC_WORK, 0, action->incarnation.bytes, sizeof action->incarnation.bytes, &record, err);
}

static void clear_candidate(struct kiln_docket *docket, const struct kiln_candidate *candidate) {
    const struct kiln_digest any = {{0}};
    kiln_autofree char *key = kiln_candidate_key(candidate, &any);
    if (!key)
        return;
    *strrchr(key, '/') = 0;
    kiln_store_remove_below(docket->options.admit.store, KILN_SPACE_QUARANTINE, key, NULL);
}

static int store_result(struct kiln_docket *docket, const struct kiln_candidate *candidate,
                        const struct kiln_result *result, struct kiln_err *err) {
    for (size_t i = 0; i < result->outputs_count; i++) {
        kiln_autofree char *key = kiln_candidate_key(candidate, &result->outputs[i].digest);
        int rc = key ? kiln_vault_take(&docket->options.vault, key, &result->outputs[i], err)
                     : kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
        if (rc)
            return rc;
    }
    bool diverges;
    kiln_buf_reset(&docket->envelope);
    int rc = kiln_vault_publish(&docket->options.vault, result, &docket->envelope, &diverges, err);
    if (!rc && diverges)
        log_job(KILN_LOG_WARN, "divergence", &candidate->job, &result->action, "a later result differs from the first");
    return rc;
}

// Judges and stores; the outcome goes back to the plan.
static int judge(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_candidate *candidate,
                 struct kiln_err *err) {
    const struct kiln_job_submitted *from = &sheet->basis->record;
    const struct kiln_judge bench = {.store = docket->options.admit.store, .scope = sheet->key.scope,
                                     .generation = docket->options.vault.generation, .now_ms = kiln_clock_wall_ms(),
                                     .closure = from->closure, .closure_count = from->closure_count};
    kiln_auto(kiln_judgement_release) struct kiln_judgement judgement = {0};
    struct kiln_err why = {0};
    int rc = kiln_judge(&bench, candidate, &sheet->action, &judgement, &why);
    if (!rc && judgement.verdict == KILN_PLAN_STORED)
        rc = store_result(docket, candidate, &judgement.result, &why);
    if (is_fatal(rc))
        return kiln_fail(err, rc, "%s", why.text);
    char reason[sizeof why.text + 16];
    snprintf(reason, sizeof reason, "%s: %s", rc == KILN_E_CORRUPT ? "outputs" : "storage", why.text);
    struct kiln_plan_event event = {
        .kind = KILN_PLAN_JUDGED, .key = sheet->key, .attempt = candidate->attempt,
        .verdict = !rc ? judgement.verdict : rc == KILN_E_CORRUPT ? KILN_PLAN_AGAIN : KILN_PLAN_LOCALLY,
        .reason = rc ? reason : judgement.reason};
    log_job(event.verdict == KILN_PLAN_STORED ? KILN_LOG_INFO : KILN_LOG_WARN, "judged", &candidate->job,
            &sheet->key.action, event.reason ? event.reason : "stored");
    rc = step(docket, &event, NULL, err);
    clear_candidate(docket, candidate); // after the answer: nobody waits for it
    return rc;
}

// Judging stores already.
static int filed(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_err *err) {
    const struct kiln_plan_event event = {.kind = KILN_PLAN_FILED, .key = sheet->key, .verdict = KILN_PLAN_STORED};
    return step(docket, &event, NULL, err);
}

static int check(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_err *err) {
    kiln_auto(kiln_refs_release) struct kiln_refs lacking = {0};
    struct kiln_err why;
    int rc = kiln_admit_lacking(&docket->options.admit, &sheet->basis->record, &sheet->action, KILN_ADMIT_BYTES,
                                &lacking, &why);
    if (is_fatal(rc))
        return kiln_fail(err, rc, "%s", why.text);
    const struct kiln_plan_event event = {.kind = KILN_PLAN_CHECKED, .key = sheet->key, .lacking = rc || lacking.count};
    char count[24];
    snprintf(count, sizeof count, "%zu", lacking.count);
    log_job(KILN_LOG_WARN, "inputs_checked", &sheet->basis->record.job, &sheet->key.action, rc ? why.text : count);
    return step(docket, &event, NULL, err);
}

static int carry_out(struct kiln_docket *docket, const struct kiln_plan_action *action, const struct occasion *occasion,
                     struct kiln_err *err) {
    struct kiln_sheet *sheet = kiln_sheets_find(&docket->sheets, &action->key);
    if (action->kind == KILN_PLAN_DISCARD) {
        log_job(KILN_LOG_INFO, "candidate_discarded", &action->job, &action->key.action, NULL);
        clear_candidate(docket, occasion->candidate);
        return 0;
    }
    if (!sheet)
        return 0;
    switch (action->kind) {
    case KILN_PLAN_WANT: return want(docket, sheet, &action->jobs[0], err);
    case KILN_PLAN_REFUSE: return tell_all(docket, sheet, action->jobs, 1, KILN_ANSWER_REJECTED, action->reason, err);
    case KILN_PLAN_DISPATCH: return dispatch(docket, sheet, action, err);
    case KILN_PLAN_JUDGE: return judge(docket, sheet, occasion->candidate, err);
    case KILN_PLAN_CHECK: return check(docket, sheet, err);
    case KILN_PLAN_ANSWER:
        return tell_all(docket, sheet, action->jobs, action->jobs_count,
                        action->verdict == KILN_PLAN_STORED ? KILN_ANSWER_RESULT : KILN_ANSWER_COMPILE_LOCALLY,
                        action->reason, err);
    case KILN_PLAN_RELEASE: kiln_sheets_drop(&docket->sheets, sheet); return 0;
    case KILN_PLAN_STORE: return filed(docket, sheet, err);
    case KILN_PLAN_DISCARD:
    case KILN_PLAN_DIVERGED:
    case KILN_PLAN_DEAD:
    case KILN_PLAN_DEMAND: break;
    }
    return 0;
}

static int step(struct kiln_docket *docket, const struct kiln_plan_event *event, const struct occasion *occasion,
                struct kiln_err *err) {
    kiln_auto(kiln_plan_actions_release) struct kiln_plan_actions actions = {0};
    int rc = kiln_plan_step(docket->plan, event, kiln_clock_ms(), &actions, err);
    for (size_t i = 0; !rc && i < actions.count; i++)
        rc = carry_out(docket, &actions.list[i], occasion, err);
    return rc;
}

static struct kiln_plan_key key_of(const struct kiln_docket *docket, const struct kiln_digest *action) {
    struct kiln_plan_key key = {.action = *action};
    snprintf(key.scope, sizeof key.scope, "%s", docket->options.admit.scope);
    return key;
}

static int refuse(struct kiln_docket *docket, struct kiln_job_submitted *record, const struct kiln_err *why, int rc,
                  struct kiln_err *err) {
    if (is_fatal(rc))
        return kiln_fail(err, rc, "%s", why->text);
    uint32_t partition = record->waiter_partition < KILN_BUS_PARTITIONS_MAX ? record->waiter_partition : 0;
    if (rc == KILN_E_DENIED)
        return tell(docket, partition, &record->job, 1, &record->action_digest, KILN_ANSWER_REJECTED, why->text, err);
    char reason[sizeof why->text + 16];
    snprintf(reason, sizeof reason, "storage: %s", why->text);
    return tell(docket, partition, &record->job, 1, &record->action_digest, KILN_ANSWER_COMPILE_LOCALLY, reason, err);
}

// A submitter that asks although there is a result may have found it damaged: all its bytes are looked at.
static int answer_known(struct kiln_docket *docket, struct kiln_job_submitted *record, bool *known, struct kiln_err *err) {
    struct kiln_err why;
    kiln_buf_reset(&docket->envelope);
    int rc = kiln_vault_find(&docket->options.vault, &record->action_digest, &docket->envelope, NULL, &why);
    *known = rc == 0;
    if (is_fatal(rc))
        return kiln_fail(err, rc, "%s", why.text);
    if (rc == KILN_E_CORRUPT)
        log_job(KILN_LOG_WARN, "vault_corrupt", &record->job, &record->action_digest, why.text);
    if (rc)
        return 0;
    return tell(docket, record->waiter_partition, &record->job, 1, &record->action_digest, KILN_ANSWER_RESULT, NULL, err);
}

static int enter(struct kiln_docket *docket, struct kiln_job_submitted *record, struct kiln_action *action, bool lacking,
                 struct kiln_err *err) {
    struct kiln_plan_key key = key_of(docket, &record->action_digest);
    uint64_t wait_ms = record->deadline_ms < WAITER_MS_MAX ? record->deadline_ms : WAITER_MS_MAX;
    const struct kiln_plan_event event = {.kind = KILN_PLAN_SUBMITTED, .key = key, .job = record->job,
                                          .until_ms = kiln_clock_ms() + wait_ms, .lacking = lacking};
    struct kiln_sheet *sheet = kiln_sheets_find(&docket->sheets, &key);
    if (!sheet)
        sheet = kiln_sheets_add(&docket->sheets, &key, action);
    struct kiln_submission_kept *submission = sheet ? kiln_sheet_find(sheet, &record->job) : NULL;
    if (sheet && !submission)
        submission = kiln_sheet_add(sheet, record);
    if (!submission)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a submission");
    if (!lacking && !sheet->basis)
        sheet->basis = submission;
    int rc = step(docket, &event, NULL, err);
    sheet = kiln_sheets_find(&docket->sheets, &key);
    if (sheet && kiln_plan_state_of(docket->plan, &key) == KILN_PLAN_GONE)
        kiln_sheets_drop(&docket->sheets, sheet); // the plan did not take it
    return rc;
}

static int on_submitted(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_job_submitted_release) struct kiln_job_submitted record = {0};
    int rc = kiln_job_submitted_decode(bytes->value, bytes->value_len, &record, err);
    if (rc)
        return rc;
    log_job(KILN_LOG_INFO, "submitted", &record.job, &record.action_digest, record.agent);
    kiln_autoaction struct kiln_action action = {0};
    struct kiln_err why;
    rc = kiln_admit_form(&docket->options.admit, &record, &action, &why);
    if (rc)
        return refuse(docket, &record, &why, rc, err);
    bool known;
    rc = answer_known(docket, &record, &known, err);
    if (rc || known)
        return rc;
    kiln_auto(kiln_refs_release) struct kiln_refs lacking = {0};
    rc = kiln_admit_lacking(&docket->options.admit, &record, &action, KILN_ADMIT_PRESENT, &lacking, &why);
    if (rc)
        return refuse(docket, &record, &why, rc, err);
    return enter(docket, &record, &action, lacking.count != 0, err);
}

static int on_uploaded(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_job_uploaded_release) struct kiln_job_uploaded record = {0};
    int rc = kiln_job_uploaded_decode(bytes->value, bytes->value_len, &record, err);
    if (rc)
        return rc;
    struct kiln_plan_event event = {
        .kind = KILN_PLAN_UPLOADED, .key = key_of(docket, &record.action_digest), .job = record.job};
    struct kiln_sheet *sheet = kiln_sheets_find(&docket->sheets, &event.key);
    struct kiln_submission_kept *submission = sheet ? kiln_sheet_find(sheet, &record.job) : NULL;
    if (!submission || kiln_plan_state_of(docket->plan, &event.key) != KILN_PLAN_WANTED)
        return 0;
    struct kiln_err why = {0};
    rc = kiln_admit_upload(&docket->options.admit, &submission->record, &sheet->action, &why);
    if (is_fatal(rc))
        return kiln_fail(err, rc, "%s", why.text);
    char reason[sizeof why.text + 16];
    snprintf(reason, sizeof reason, "%s%s", rc == KILN_E_DENIED ? "" : "storage: ", why.text);
    if (rc) {
        event.kind = KILN_PLAN_REFUSED;
        event.reason = reason;
    } else {
        sheet->basis = submission;
    }
    log_job(KILN_LOG_INFO, "uploaded", &record.job, &record.action_digest, rc ? reason : NULL);
    kiln_autofree char *uploads = kiln_admit_uploads(&submission->record);
    rc = step(docket, &event, NULL, err);
    if (uploads) // after the dispatch: nobody waits for it
        kiln_store_remove_below(docket->options.admit.store, KILN_SPACE_QUARANTINE, uploads, NULL);
    return rc;
}

static int on_cancelled(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_job_cancelled_release) struct kiln_job_cancelled record = {0};
    int rc = kiln_job_cancelled_decode(bytes->value, bytes->value_len, &record, err);
    if (rc)
        return rc;
    const struct kiln_plan_event event = {
        .kind = KILN_PLAN_CANCELLED, .key = key_of(docket, &record.action_digest), .job = record.job};
    struct kiln_sheet *sheet = kiln_sheets_find(&docket->sheets, &event.key);
    struct kiln_submission_kept *submission = sheet ? kiln_sheet_find(sheet, &record.job) : NULL;
    if (!submission)
        return 0;
    log_job(KILN_LOG_INFO, "cancelled", &record.job, &record.action_digest, NULL);
    kiln_admit_clear(&docket->options.admit, &submission->record);
    kiln_sheet_dismiss(sheet, submission);
    return step(docket, &event, NULL, err);
}

static int on_credit(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_credit_release) struct kiln_credit record = {0};
    int rc = kiln_credit_decode(bytes->value, bytes->value_len, &record, err);
    if (rc)
        return rc;
    uint64_t wall_ms = kiln_clock_wall_ms();
    uint64_t left_ms = record.expires_ms > wall_ms + CREDIT_MARGIN_MS ? record.expires_ms - wall_ms - CREDIT_MARGIN_MS : 0;
    if (left_ms > CREDIT_MS_MAX)
        left_ms = CREDIT_MS_MAX;
    const struct kiln_plan_event event = {.kind = KILN_PLAN_CREDIT, .executor = record.executor,
                                          .incarnation = record.incarnation, .credit = record.credit,
                                          .until_ms = kiln_clock_ms() + left_ms};
    return step(docket, &event, NULL, err);
}

static int on_lease(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_lease_release) struct kiln_lease record = {0};
    int rc = kiln_lease_decode(bytes->value, bytes->value_len, &record, err);
    if (rc)
        return rc;
    const struct kiln_plan_event event = {
        .kind = KILN_PLAN_LEASE, .incarnation = record.incarnation, .job = record.job, .attempt = record.attempt};
    return step(docket, &event, NULL, err);
}

static int on_candidate(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_candidate_release) struct kiln_candidate record = {0};
    int rc = kiln_candidate_decode(bytes->value, bytes->value_len, &record, err);
    if (rc)
        return rc;
    const struct kiln_plan_event event = {
        .kind = KILN_PLAN_CANDIDATE, .key = key_of(docket, &record.action_digest), .executor = record.executor,
        .incarnation = record.incarnation, .job = record.job, .attempt = record.attempt};
    const struct occasion occasion = {.candidate = &record};
    return step(docket, &event, &occasion, err);
}

// A record type belongs on one topic: nobody may say on one what only the writers of another may.
static const struct {
    enum kiln_record_type type;
    enum kiln_topic topic;
    int (*take)(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err);
} takers[] = {
    {KILN_RECORD_job_submitted, KILN_TOPIC_JOBS, on_submitted},
    {KILN_RECORD_job_uploaded, KILN_TOPIC_JOBS, on_uploaded},
    {KILN_RECORD_job_cancelled, KILN_TOPIC_JOBS, on_cancelled},
    {KILN_RECORD_credit, KILN_TOPIC_CREDITS, on_credit},
    {KILN_RECORD_lease, KILN_TOPIC_LEASES, on_lease},
    {KILN_RECORD_candidate, KILN_TOPIC_CANDIDATES, on_candidate},
};

int kiln_docket_take(struct kiln_docket *docket, const struct kiln_record *record, struct kiln_err *err) {
    enum kiln_record_type type;
    struct kiln_err why;
    int rc = kiln_record_type_of(record->value, record->value_len, &type, &why);
    for (size_t i = 0; !rc && i < sizeof takers / sizeof *takers; i++) {
        if (takers[i].type != type || takers[i].topic != record->topic)
            continue;
        rc = takers[i].take(docket, record, &why);
        if (rc == KILN_E_CORRUPT || rc == KILN_E_INVAL || rc == KILN_E_LIMIT)
            break;
        if (rc && err)
            *err = why;
        return rc;
    }
    kiln_log(KILN_LOG_WARN, "record_refused", "topic", kiln_topic_name(record->topic), "error",
             rc ? why.text : "a type that does not belong there", NULL);
    return 0;
}

int kiln_docket_tick(struct kiln_docket *docket, struct kiln_err *err) {
    const struct kiln_plan_event event = {.kind = KILN_PLAN_TICK};
    return step(docket, &event, NULL, err);
}

uint64_t kiln_docket_next_ms(const struct kiln_docket *docket) { return kiln_plan_next_ms(docket->plan); }
size_t kiln_docket_flights(const struct kiln_docket *docket) { return kiln_plan_flights(docket->plan); }

int kiln_docket_new(const struct kiln_docket_options *options, struct kiln_docket **docket, struct kiln_err *err) {
    struct kiln_docket *made = calloc(1, sizeof *made);
    if (!made)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the docket");
    made->options = *options;
    made->envelope = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX + 4096);
    kiln_sheets_init(&made->sheets);
    int rc = kiln_plan_new(&options->plan, &made->plan, err);
    if (rc) {
        free(made);
        return rc;
    }
    *docket = made;
    return 0;
}

void kiln_docket_free(struct kiln_docket *docket) {
    if (!docket)
        return;
    kiln_plan_free(docket->plan);
    kiln_sheets_release(&docket->sheets);
    kiln_buf_release(&docket->envelope);
    free(docket);
}
