#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/bus/bus_kafka.h"
#include "verifier/docket_parts.h"
#include "verifier/identity.h"
#include "verifier/scope.h"

#define WAITER_MS_MAX (6ull * 3600 * 1000)
#define SHEETS_MAX KILN_PLAN_FLIGHTS_MAX

// Something that is looked up in the store for a submission: whether there is a result, what lacks, what it uploaded.
struct look {
    struct kiln_task task;
    enum look_kind { LOOK_EXAMINE, LOOK_WANT, LOOK_UPLOAD, LOOK_CHECK } kind;
    struct kiln_docket *docket; // options and authority only, in `run`
    struct kiln_sheet *sheet;
    struct kiln_submission_kept *submission;
    int rc;
    struct kiln_err why;
    bool known;
    struct kiln_vault_entry entry;
    struct kiln_refs lacking;
    uint64_t bytes; // taken from quarantine
};

static int examine(struct look *look, struct kiln_err *err) {
    const struct kiln_admit admit = kiln_docket_admit(look->docket, look->sheet);
    const struct kiln_sheet *sheet = look->sheet;
    const struct kiln_vault_place place = {.scope = sheet->key.scope, .now_ms = kiln_clock_wall_ms(),
                                           .generation = kiln_authority_generation(&look->docket->authority)};
    int rc = kiln_vault_find(&look->docket->options.vault, &place, &sheet->key.action, &look->entry, err);
    look->known = rc == 0;
    if (rc != KILN_E_NOTFOUND && rc != KILN_E_CORRUPT)
        return rc;
    look->why = *err; // for the log: there is one that does not hold
    bool is_public = strcmp(sheet->key.scope, KILN_SCOPE_PUBLIC) == 0;
    rc = is_public ? kiln_scope_check_toolchain(admit.store, &sheet->action, err) : 0;
    return rc ? rc
              : kiln_admit_lacking(&admit, &look->submission->record, &sheet->action, KILN_ADMIT_PRESENT, &look->lacking,
                                   err);
}

static void run_look(struct kiln_task *task) {
    struct look *look = (struct look *)task;
    const struct kiln_admit admit = kiln_docket_admit(look->docket, look->sheet);
    struct kiln_job_submitted *record = &look->submission->record;
    struct kiln_err err = {0};
    switch (look->kind) {
    case LOOK_EXAMINE: look->rc = examine(look, &err); break;
    case LOOK_WANT:
        look->rc = kiln_admit_lacking(&admit, record, &look->sheet->action, KILN_ADMIT_PRESENT, &look->lacking, &err);
        break;
    case LOOK_CHECK:
        look->rc = kiln_admit_lacking(&admit, record, &look->sheet->action, KILN_ADMIT_BYTES, &look->lacking, &err);
        break;
    case LOOK_UPLOAD: look->rc = kiln_admit_upload(&admit, record, &look->sheet->action, &look->bytes, &err); break;
    }
    if (look->rc)
        look->why = err;
}

static int finish_look(struct kiln_task *task, void *context, struct kiln_err *err);

static int give_look(struct kiln_docket *docket, enum look_kind kind, struct kiln_sheet *sheet,
                     struct kiln_submission_kept *submission, struct kiln_err *err) {
    struct look *look = calloc(1, sizeof *look);
    if (!look)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a task");
    bool bulk = kind == LOOK_UPLOAD || kind == LOOK_CHECK;
    *look = (struct look){
        .task = {.kind = bulk ? KILN_TASK_BULK : KILN_TASK_SHORT, .run = run_look, .finish = finish_look},
        .kind = kind, .docket = docket, .sheet = sheet, .submission = submission};
    memcpy(look->task.owner, submission->author.tenant, sizeof look->task.owner);
    kiln_sheet_hold(sheet, submission);
    submission->looked_at = true;
    kiln_crew_give(docket->crew, &look->task);
    return 0;
}

static int enter_ledger(struct kiln_docket *docket, const struct kiln_sheet *sheet,
                        const struct kiln_submission_kept *submission, const char *event, const char *detail,
                        struct kiln_err *err) {
    const struct kiln_chronicle_entry entry = {
        .event = event, .action = &sheet->key.action, .job = &submission->record.job, .scope = sheet->key.scope,
        .tenant = submission->author.tenant, .principal = submission->author.principal, .detail = detail};
    kiln_docket_log(KILN_LOG_INFO, event, &submission->record.job, &sheet->key.action, detail);
    return kiln_chronicle_enter(&docket->chronicle, &entry, err);
}

// Into the plan.
static int enter(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_submission_kept *submission, bool lacking,
                 struct kiln_err *err) {
    bool restored = submission->restored && docket->partitions[sheet->partition].restoring;
    const struct kiln_plan_event event = {
        .kind = restored ? KILN_PLAN_RESTORE_WAITER : KILN_PLAN_SUBMITTED, .key = sheet->key,
        .partition = sheet->partition, .tenant = submission->author.tenant, .agent = submission->author.principal,
        .job = submission->record.job, .until_ms = submission->until_ms, .lacking = lacking,
        .agreement = kiln_docket_agreement(docket, sheet->key.scope)};
    return kiln_docket_step(docket, &event, NULL, err);
}

static int drop_if_gone(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_err *err) {
    bool gone = !sheet->dropped && sheet->examined && kiln_plan_state_of(docket->plan, &sheet->key) == KILN_PLAN_GONE;
    return gone ? kiln_docket_close_sheet(docket, sheet, err) : 0; // the plan did not take it
}

// All that wait, the one that was looked at first. The caller holds the sheet.
static int enter_all(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_submission_kept *looked_at,
                     bool lacking, struct kiln_err *err) {
    size_t count = 0;
    struct kiln_submission_kept *submission;
    TAILQ_FOREACH(submission, &sheet->submissions, link)
        count++;
    kiln_autofree struct kiln_job_id *jobs = calloc(count + 1, sizeof *jobs);
    if (!jobs)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a sheet");
    count = 0;
    TAILQ_FOREACH(submission, &sheet->submissions, link) {
        if (submission->waiting && submission != looked_at)
            jobs[count++] = submission->record.job;
    }
    sheet->examined = true;
    int rc = looked_at->waiting ? enter(docket, sheet, looked_at, lacking, err) : 0;
    for (size_t i = 0; !rc && i < count; i++) { // a step may answer any of them
        submission = kiln_sheet_find(sheet, &jobs[i]);
        if (submission)
            rc = enter(docket, sheet, submission, lacking, err);
    }
    return rc ? rc : drop_if_gone(docket, sheet, err);
}

int kiln_docket_examine(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_err *err) {
    struct kiln_submission_kept *submission;
    TAILQ_FOREACH(submission, &sheet->submissions, link) {
        if (submission->waiting)
            return give_look(docket, LOOK_EXAMINE, sheet, submission, err);
    }
    kiln_sheet_hold(sheet, NULL);
    int rc = kiln_docket_close_sheet(docket, sheet, err);
    if (!rc)
        rc = kiln_docket_looked_at(docket, sheet, err);
    kiln_sheet_let_go(&docket->sheets, sheet, NULL);
    return rc;
}

// The caller holds the sheet.
static int end_sheet(struct kiln_docket *docket, struct kiln_sheet *sheet, enum kiln_answer_status status,
                     const char *reason, struct kiln_err *err) {
    int rc = kiln_docket_answer_all(docket, sheet, status, reason, err);
    if (!rc)
        rc = kiln_docket_close_sheet(docket, sheet, err);
    return rc ? rc : kiln_docket_looked_at(docket, sheet, err);
}

static int announce_known(struct kiln_docket *docket, struct look *look, struct kiln_err *err) {
    struct kiln_sheet *sheet = look->sheet;
    docket->counts.known++;
    sheet->envelope = look->entry.envelope;
    look->entry.envelope = (struct kiln_buf){0};
    int rc = 0;
    if (look->entry.shadowed)
        rc = kiln_chronicle_tell(&docket->chronicle, "alert", "shadowed_pointer", sheet->key.scope,
                                 "something stood over a stored result; the right bytes are on top again", err);
    if (!rc && look->entry.carried)
        rc = enter_ledger(docket, sheet, look->submission, "carried", "from the generation before", err);
    return rc ? rc : end_sheet(docket, sheet, KILN_ANSWER_RESULT, NULL, err);
}

static int refuse_submission(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_submission_kept *submission,
                             const char *reason, struct kiln_err *err) {
    const struct kiln_author author = submission->author;
    const struct kiln_job_id job = submission->record.job;
    int rc = kiln_docket_refuse(docket, &author, reason, err);
    return rc || !submission->waiting
               ? rc
               : kiln_docket_answer_jobs(docket, sheet, &job, 1, KILN_ANSWER_REJECTED, reason, err);
}

// There is a stored result, and it cannot be used. Of that, what time or operators have ended is no damage.
static int tell_unusable(struct kiln_docket *docket, const struct look *look, struct kiln_err *err) {
    static const struct {
        const char *word, *severity, *event; // the word of lib/fleet/verdict.h
    } ends[] = {{"expired:", "info", "result_expired"},      {"key_expired:", "info", "result_expired"},
                {"revoked_", "info", "result_revoked"},      {"unknown_key:", "warn", "result_untrusted"},
                {"attestation:", "warn", "result_untrusted"}};
    const char *severity = "warn", *event = "vault_corrupt";
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (strncmp(look->why.text, ends[i].word, strlen(ends[i].word)) == 0)
            severity = ends[i].severity, event = ends[i].event;
    }
    return kiln_chronicle_tell(&docket->chronicle, severity, event, look->sheet->key.scope, look->why.text, err);
}

static int on_examined(struct kiln_docket *docket, struct look *look, struct kiln_err *err) {
    struct kiln_sheet *sheet = look->sheet;
    if (look->known)
        return announce_known(docket, look, err);
    if (look->rc == KILN_E_DENIED) {
        int rc = refuse_submission(docket, sheet, look->submission, look->why.text, err);
        return rc ? rc : kiln_docket_examine(docket, sheet, err); // the next one may say it better
    }
    if (look->rc) {
        char reason[sizeof look->why.text + 16];
        snprintf(reason, sizeof reason, "storage: %s", look->why.text);
        return end_sheet(docket, sheet, KILN_ANSWER_COMPILE_LOCALLY, reason, err);
    }
    if (look->why.code == KILN_E_CORRUPT) {
        int rc = tell_unusable(docket, look, err);
        if (rc)
            return rc;
    }
    look->submission->lacking = look->lacking;
    look->submission->checked = true;
    look->lacking = (struct kiln_refs){0};
    bool lacking = look->submission->lacking.count != 0;
    if (!lacking)
        kiln_sheet_set_basis(sheet, look->submission);
    int rc = enter_all(docket, sheet, look->submission, lacking, err);
    return rc ? rc : kiln_docket_looked_at(docket, sheet, err);
}

// To the plan: the content is there, or what was uploaded is refused.
static int tell_uploaded(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_job_id *job,
                         const char *reason, struct kiln_err *err) {
    const struct kiln_plan_event event = {.kind = reason ? KILN_PLAN_REFUSED : KILN_PLAN_UPLOADED, .key = sheet->key,
                                          .job = *job, .reason = reason};
    return kiln_docket_step(docket, &event, NULL, err);
}

static uint64_t sum_sizes(const struct kiln_refs *refs) {
    uint64_t sum = 0;
    for (size_t i = 0; i < refs->count; i++)
        sum += refs->list[i].size;
    return sum;
}

// Asks for what is lacking now; when that has become nothing, it is as if it had been uploaded.
static int ask(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_submission_kept *submission,
               const struct kiln_refs *lacking, struct kiln_err *err) {
    const struct kiln_job_id job = submission->record.job;
    const char *tenant = submission->author.tenant;
    if (!lacking->count) {
        kiln_sheet_set_basis(sheet, submission);
        return tell_uploaded(docket, sheet, &job, NULL, err);
    }
    uint64_t used = kiln_quota_used(&docket->quota, tenant, kiln_clock_ms());
    uint64_t quota = docket->options.quota_bytes;
    if (quota && used + sum_sizes(lacking) > quota) {
        char reason[160];
        snprintf(reason, sizeof reason, "quota_bytes: %s may upload %llu bytes in a day", tenant, (unsigned long long)quota);
        int rc = kiln_docket_refuse(docket, &submission->author, reason, err);
        return rc ? rc : tell_uploaded(docket, sheet, &job, reason, err);
    }
    const struct kiln_answer answer = {.jobs = &submission->record.job, .jobs_count = 1, .action_digest = sheet->key.action,
                                       .status = KILN_ANSWER_WANTED, .contents = lacking->list,
                                       .contents_count = lacking->count};
    char count[24];
    snprintf(count, sizeof count, "%zu", lacking->count);
    docket->counts.wanted++;
    submission->asked = true;
    int rc = kiln_docket_answer(docket, tenant, submission->record.waiter_partition, &answer, err);
    return rc ? rc : enter_ledger(docket, sheet, submission, "wanted", count, err);
}

int kiln_docket_want(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_job_id *job,
                     struct kiln_err *err) {
    struct kiln_submission_kept *submission = kiln_sheet_find(sheet, job);
    if (!submission)
        return 0;
    if (submission->checked) {
        kiln_auto(kiln_refs_release) struct kiln_refs lacking = submission->lacking;
        submission->lacking = (struct kiln_refs){0};
        submission->checked = false;
        return ask(docket, sheet, submission, &lacking, err);
    }
    return submission->looked_at ? 0 : give_look(docket, LOOK_WANT, sheet, submission, err); // its upload is being looked at
}

static int refuse_upload(struct kiln_docket *docket, struct look *look, struct kiln_err *err) {
    char reason[sizeof look->why.text + 16];
    const struct kiln_job_id job = look->submission->record.job;
    bool denied = look->rc == KILN_E_DENIED;
    snprintf(reason, sizeof reason, "%s%s", denied ? "" : "storage: ", look->why.text);
    int rc = denied ? kiln_docket_refuse(docket, &look->submission->author, reason, err) : 0;
    return rc ? rc : tell_uploaded(docket, look->sheet, &job, reason, err);
}

static int on_wanted(struct kiln_docket *docket, struct look *look, struct kiln_err *err) {
    if (!look->submission->waiting)
        return 0;
    return look->rc ? refuse_upload(docket, look, err) : ask(docket, look->sheet, look->submission, &look->lacking, err);
}

static int on_upload_taken(struct kiln_docket *docket, struct look *look, struct kiln_err *err) {
    const struct kiln_job_id job = look->submission->record.job;
    int rc = kiln_quota_add(&docket->quota, look->submission->author.tenant, look->bytes, kiln_clock_ms(), err);
    if (!rc)
        rc = enter_ledger(docket, look->sheet, look->submission, "uploaded", look->rc ? look->why.text : NULL, err);
    if (!rc) // also of one that waits no longer: nobody else will
        rc = kiln_docket_sweep(docket, kiln_admit_uploads(&look->submission->record), err);
    if (rc)
        return rc;
    if (look->rc)
        return refuse_upload(docket, look, err);
    if (!look->submission->waiting) {
        // It went away while its upload was taken. The content is there: whoever is asked next need not upload it.
        return 0;
    }
    kiln_sheet_set_basis(look->sheet, look->submission);
    return tell_uploaded(docket, look->sheet, &job, NULL, err);
}

static int on_checked(struct kiln_docket *docket, struct look *look, struct kiln_err *err) {
    const struct kiln_plan_event event = {
        .kind = KILN_PLAN_CHECKED, .key = look->sheet->key, .lacking = look->rc || look->lacking.count};
    char count[24];
    snprintf(count, sizeof count, "%zu", look->lacking.count);
    kiln_docket_log(KILN_LOG_WARN, "inputs_checked", &look->submission->record.job, &look->sheet->key.action,
                    look->rc ? look->why.text : count);
    return kiln_docket_step(docket, &event, NULL, err);
}

static int conclude_look(struct kiln_docket *docket, struct look *look, struct kiln_err *err) {
    if (!look->task.ran || look->sheet->dropped)
        return 0;
    if (kiln_docket_is_fatal(look->rc))
        return kiln_fail(err, look->rc, "%s", look->why.text);
    switch (look->kind) {
    case LOOK_EXAMINE: return on_examined(docket, look, err);
    case LOOK_WANT: return on_wanted(docket, look, err);
    case LOOK_UPLOAD: return on_upload_taken(docket, look, err);
    case LOOK_CHECK: return on_checked(docket, look, err);
    }
    return 0;
}

// What the submitter said while a task had its submission.
static int take_up(struct kiln_docket *docket, struct look *look, struct kiln_err *err) {
    struct kiln_submission_kept *submission = look->submission;
    if (look->sheet->dropped || !submission->waiting || !submission->uploaded || submission->looked_at || !look->task.ran)
        return 0;
    submission->uploaded = false;
    return kiln_plan_state_of(docket->plan, &look->sheet->key) == KILN_PLAN_WANTED
               ? give_look(docket, LOOK_UPLOAD, look->sheet, submission, err)
               : 0;
}

static int finish_look(struct kiln_task *task, void *context, struct kiln_err *err) {
    struct look *look = (struct look *)task;
    struct kiln_docket *docket = context;
    look->submission->looked_at = false;
    int rc = conclude_look(docket, look, err);
    if (!rc)
        rc = take_up(docket, look, err);
    kiln_sheet_let_go(&docket->sheets, look->sheet, look->submission);
    kiln_refs_release(&look->lacking);
    kiln_vault_entry_release(&look->entry);
    free(look);
    return rc;
}

int kiln_docket_check(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_err *err) {
    if (!sheet->basis)
        return kiln_fail(err, KILN_E_INTERNAL, "the inputs of a flight without a basis were to be checked");
    return give_look(docket, LOOK_CHECK, sheet, sheet->basis, err);
}

// What a submission is refused for before anything is remembered of it.
static int check_claims(struct kiln_docket *docket, const struct kiln_author *author, uint32_t partition,
                        const struct kiln_record *bytes, const struct kiln_job_submitted *record,
                        struct kiln_action *action, struct kiln_err *err) {
    int rc = kiln_identity_check_submission(author, record, partition, err);
    if (!rc && bytes->partition != kiln_bus_partition_of(docket->options.bus, &record->action_digest))
        rc = kiln_fail(err, KILN_E_DENIED, "misplaced: the action belongs in another partition than %u", bytes->partition);
    if (!rc)
        rc = kiln_admit_form(record, action, err);
    return rc ? rc : kiln_scope_check(&docket->authority, author->tenant, record->scope, action, err);
}

// Where the author reads its answers.
static uint32_t mailbox_of(const struct kiln_docket *docket, const struct kiln_author *author,
                           const struct kiln_job_submitted *record) {
    if (docket->fleet)
        return kiln_kafka_result_partition(author->principal, &author->incarnation,
                                           kiln_bus_partitions(docket->options.bus, KILN_TOPIC_RESULTS));
    return record->waiter_partition < KILN_BUS_PARTITIONS_MAX ? record->waiter_partition : 0;
}

static int reject(struct kiln_docket *docket, const struct kiln_author *author, uint32_t partition,
                  const struct kiln_job_submitted *record, int rc, const struct kiln_err *why, struct kiln_err *err) {
    if (kiln_docket_is_fatal(rc))
        return kiln_fail(err, rc, "%s", why->text);
    char reason[sizeof why->text + 16];
    snprintf(reason, sizeof reason, "%s%s", rc == KILN_E_DENIED ? "" : "storage: ", why->text);
    int told = rc == KILN_E_DENIED ? kiln_docket_refuse(docket, author, reason, err) : 0;
    return told ? told
                : kiln_docket_answer_one(docket, author, partition, record,
                                         rc == KILN_E_DENIED ? KILN_ANSWER_REJECTED : KILN_ANSWER_COMPILE_LOCALLY, reason,
                                         err);
}

static bool is_author(const struct kiln_submission_kept *submission, const struct kiln_author *author) {
    return strcmp(submission->author.principal, author->principal) == 0 &&
           strcmp(submission->author.tenant, author->tenant) == 0;
}

static uint64_t until(const struct kiln_job_submitted *record) {
    return kiln_clock_ms() + (record->deadline_ms < WAITER_MS_MAX ? record->deadline_ms : WAITER_MS_MAX);
}

// The same submission again: it waits longer, and is asked again for what it was asked for.
static int submitted_again(struct kiln_docket *docket, struct kiln_sheet *sheet, struct kiln_submission_kept *submission,
                           struct kiln_err *err) {
    submission->until_ms = until(&submission->record);
    return sheet->examined ? enter(docket, sheet, submission, true, err) : 0;
}

static int remember(struct kiln_docket *docket, const struct kiln_record *bytes, const struct kiln_author *author,
                    struct kiln_job_submitted *record, struct kiln_action *action, struct kiln_err *err) {
    struct kiln_plan_key key = {.action = record->action_digest};
    snprintf(key.scope, sizeof key.scope, "%s", record->scope);
    struct kiln_sheet *sheet = kiln_sheets_find(&docket->sheets, &key);
    bool is_new = !sheet;
    if (is_new)
        sheet = kiln_sheets_add(&docket->sheets, &key, bytes->partition, action);
    struct kiln_submission_kept *submission = sheet ? kiln_sheet_add(sheet, record, author) : NULL;
    if (!submission)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a submission");
    submission->until_ms = until(&submission->record);
    submission->offset = bytes->offset;
    docket->counts.submitted++;
    int rc = is_new ? kiln_docket_examine(docket, sheet, err) : 0; // what is looked up goes on while the rest is written down
    if (!rc)
        rc = enter_ledger(docket, sheet, submission, "submitted", submission->record.build_id, err);
    if (rc || !sheet->examined)
        return rc; // enters with those before it
    kiln_sheet_hold(sheet, NULL);
    rc = enter(docket, sheet, submission, true, err);
    if (!rc)
        rc = drop_if_gone(docket, sheet, err);
    kiln_sheet_let_go(&docket->sheets, sheet, NULL);
    return rc;
}

static int busy(struct kiln_docket *docket, const struct kiln_author *author, uint32_t partition,
                const struct kiln_job_submitted *record, const char *reason, struct kiln_err *err) {
    return kiln_docket_answer_one(docket, author, partition, record, KILN_ANSWER_COMPILE_LOCALLY, reason, err);
}

int kiln_docket_on_submitted(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_job_submitted_release) struct kiln_job_submitted record = {0};
    int rc = kiln_job_submitted_decode(bytes->value, bytes->value_len, &record, err);
    if (rc)
        return rc;
    struct kiln_author author = bytes->author;
    if (!docket->fleet)
        kiln_identity_adopt_agent(&record, &author);
    uint32_t partition = mailbox_of(docket, &author, &record);
    kiln_autoaction struct kiln_action action = {0};
    struct kiln_err why = {0};
    rc = check_claims(docket, &author, partition, bytes, &record, &action, &why);
    if (rc)
        return reject(docket, &author, partition, &record, rc, &why, err);
    if (kiln_authority_valid(&docket->authority, &why) ||
        kiln_authority_may_make(&docket->authority, &record.action_digest, &action, &why))
        return busy(docket, &author, partition, &record, why.text, err);
    struct kiln_submission_kept *known = NULL;
    struct kiln_sheet *sheet = kiln_sheets_find_job(&docket->sheets, &record.action_digest, &record.job, &known);
    if (sheet && is_author(known, &author) && strcmp(sheet->key.scope, record.scope) == 0) {
        rc = kiln_docket_accept(docket, &author, partition, &record, err);
        return rc ? rc : submitted_again(docket, sheet, known, err);
    }
    if (sheet) {
        rc = kiln_fail(&why, KILN_E_DENIED, "job_taken: another submission has that id");
        return reject(docket, &author, partition, &record, rc, &why, err);
    }
    if (docket->sheets.count >= SHEETS_MAX)
        return busy(docket, &author, partition, &record, "busy: too many jobs wait", err);
    rc = kiln_state_put_waiter(&docket->state, &author, &record.action_digest, &record.job, bytes->value, bytes->value_len,
                               &why);
    if (rc == KILN_E_LIMIT)
        return busy(docket, &author, partition, &record, "busy: what waits cannot be written down", err);
    if (rc)
        return reject(docket, &author, partition, &record, rc, &why, err);
    rc = kiln_docket_accept(docket, &author, partition, &record, err);
    return rc ? rc : remember(docket, bytes, &author, &record, &action, err);
}

// The waiting submission that a record of its author is about. NULL when there is none (any more), or it is another's.
static int find_own(struct kiln_docket *docket, const struct kiln_record *bytes, const struct kiln_digest *action,
                    const struct kiln_job_id *job, struct kiln_sheet **sheet, struct kiln_submission_kept **submission,
                    struct kiln_err *err) {
    *submission = NULL;
    *sheet = kiln_sheets_find_job(&docket->sheets, action, job, submission);
    if (!*sheet || !docket->fleet || is_author(*submission, &bytes->author))
        return 0;
    char reason[192];
    snprintf(reason, sizeof reason, "wrong_agent: %s speaks of a job of %s", bytes->author.principal,
             (*submission)->author.principal);
    *sheet = NULL;
    return kiln_docket_refuse(docket, &bytes->author, reason, err);
}

int kiln_docket_on_uploaded(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_job_uploaded_release) struct kiln_job_uploaded record = {0};
    struct kiln_sheet *sheet;
    struct kiln_submission_kept *submission;
    int rc = kiln_job_uploaded_decode(bytes->value, bytes->value_len, &record, err);
    if (!rc)
        rc = find_own(docket, bytes, &record.action_digest, &record.job, &sheet, &submission, err);
    if (rc || !sheet || kiln_plan_state_of(docket->plan, &sheet->key) != KILN_PLAN_WANTED)
        return rc;
    if (!submission->looked_at)
        return give_look(docket, LOOK_UPLOAD, sheet, submission, err);
    submission->uploaded = true;
    return 0;
}

int kiln_docket_on_cancelled(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_job_cancelled_release) struct kiln_job_cancelled record = {0};
    struct kiln_sheet *sheet;
    struct kiln_submission_kept *submission;
    int rc = kiln_job_cancelled_decode(bytes->value, bytes->value_len, &record, err);
    if (!rc)
        rc = find_own(docket, bytes, &record.action_digest, &record.job, &sheet, &submission, err);
    if (rc || !sheet)
        return rc;
    rc = enter_ledger(docket, sheet, submission, "cancelled", NULL, err);
    if (!rc)
        rc = kiln_state_drop_waiter(&docket->state, &record.action_digest, &record.job, err);
    if (rc && rc != KILN_E_LIMIT)
        return rc;
    rc = kiln_docket_sweep_uploads(docket, submission, err);
    const struct kiln_plan_event event = {.kind = KILN_PLAN_CANCELLED, .key = sheet->key, .job = record.job};
    bool examined = sheet->examined;
    kiln_sheet_dismiss(sheet, submission);
    return rc || !examined ? rc : kiln_docket_step(docket, &event, NULL, err);
}
