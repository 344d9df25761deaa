#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/wire/attested.h"
#include "verifier/docket_parts.h"
#include "verifier/identity.h"

#define CREDIT_MS_MAX (10ull * 60 * 1000)
#define CREDIT_MARGIN_MS 1000u // work must reach the executor before it takes a credit for expired

static void format_hex(const struct kiln_digest *digest, char hex[17]) {
    for (size_t i = 0; i < 8; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest->bytes[i]);
}

// Whether the author may say that of itself. `refused`: it may not, and was told of.
static int check_author(struct kiln_docket *docket, const struct kiln_record *bytes, const char *executor, const char *pool,
                        const struct kiln_job_id *incarnation, struct kiln_author *author, bool *refused,
                        struct kiln_err *err) {
    struct kiln_err why = {0};
    *author = bytes->author;
    if (!docket->fleet)
        kiln_identity_adopt_executor(executor, pool, incarnation, author);
    *refused = kiln_identity_check_executor(author, executor, pool, incarnation, &why) != 0;
    return *refused ? kiln_docket_refuse(docket, author, why.text, err) : 0;
}

static void remember_executor(struct kiln_docket *docket, const char *name) {
    for (size_t i = 0; i < docket->executors_count; i++) {
        if (strcmp(docket->executors[i], name) == 0)
            return;
    }
    if (docket->executors_count < KILN_DOCKET_EXECUTORS_MAX)
        snprintf(docket->executors[docket->executors_count++], KILN_PRINCIPAL_BYTES, "%s", name);
}

int kiln_docket_look_at_executors(struct kiln_docket *docket, struct kiln_err *err) {
    if (docket->trust_failed)
        return 0; // nobody is known then, and nothing is signed
    for (size_t i = 0; i < docket->executors_count;) {
        if (kiln_authority_knows(&docket->authority, docket->executors[i])) {
            i++;
            continue;
        }
        char name[KILN_PRINCIPAL_BYTES];
        memcpy(name, docket->executors[i], sizeof name);
        memcpy(docket->executors[i], docket->executors[--docket->executors_count], sizeof name);
        const struct kiln_plan_event event = {.kind = KILN_PLAN_REVOKED, .executor = name};
        int rc = kiln_chronicle_tell(&docket->chronicle, "warn", "executor_revoked", name, "its runs end", err);
        if (!rc)
            rc = kiln_docket_step(docket, &event, NULL, err);
        if (rc)
            return rc;
    }
    return 0;
}

int kiln_docket_on_credit(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_credit_release) struct kiln_credit record = {0};
    struct kiln_author author;
    bool refused;
    int rc = kiln_credit_decode(bytes->value, bytes->value_len, &record, err);
    if (!rc)
        rc = check_author(docket, bytes, record.executor, record.pool, &record.incarnation, &author, &refused, err);
    if (rc || refused)
        return rc;
    if (docket->fleet)
        remember_executor(docket, author.principal);
    uint64_t wall_ms = kiln_clock_wall_ms();
    uint64_t left_ms = record.expires_ms > wall_ms + CREDIT_MARGIN_MS ? record.expires_ms - wall_ms - CREDIT_MARGIN_MS : 0;
    if (left_ms > CREDIT_MS_MAX)
        left_ms = CREDIT_MS_MAX;
    const struct kiln_plan_event event = {.kind = KILN_PLAN_CREDIT, .executor = author.principal, .pool = author.pool,
                                          .incarnation = author.incarnation, .credit = record.credit,
                                          .until_ms = kiln_clock_ms() + left_ms};
    return kiln_docket_step(docket, &event, NULL, err);
}

int kiln_docket_on_lease(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_lease_release) struct kiln_lease record = {0};
    struct kiln_author author;
    bool refused;
    int rc = kiln_lease_decode(bytes->value, bytes->value_len, &record, err);
    if (!rc)
        rc = check_author(docket, bytes, NULL, NULL, &record.incarnation, &author, &refused, err);
    if (rc || refused)
        return rc;
    const struct kiln_plan_event event = {
        .kind = KILN_PLAN_LEASE, .incarnation = record.incarnation, .job = record.job, .attempt = record.attempt};
    const struct kiln_occasion occasion = {.author = &author};
    return kiln_docket_step(docket, &event, &occasion, err);
}

int kiln_docket_on_decline(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_err *err) {
    kiln_auto(kiln_decline_release) struct kiln_decline record = {0};
    struct kiln_author author;
    bool refused;
    int rc = kiln_decline_decode(bytes->value, bytes->value_len, &record, err);
    if (!rc)
        rc = check_author(docket, bytes, NULL, NULL, &record.incarnation, &author, &refused, err);
    if (rc || refused)
        return rc;
    const struct kiln_plan_event event = {.kind = KILN_PLAN_DECLINED, .incarnation = record.incarnation, .job = record.job,
                                          .attempt = record.attempt, .credit = record.credit};
    docket->counts.declined++;
    return kiln_docket_step(docket, &event, NULL, err);
}

int kiln_docket_on_candidate(struct kiln_docket *docket, const struct kiln_record *bytes, struct kiln_ack **ack,
                             struct kiln_err *err) {
    kiln_auto(kiln_candidate_release) struct kiln_candidate record = {0};
    struct kiln_author author;
    bool refused;
    int rc = kiln_candidate_decode(bytes->value, bytes->value_len, &record, err);
    if (!rc)
        rc = check_author(docket, bytes, record.executor, record.pool, &record.incarnation, &author, &refused, err);
    if (rc || refused)
        return rc;
    if (kiln_docket_is_restoring(docket, bytes->partition))
        return kiln_docket_defer(docket, bytes, ack, err);
    const struct kiln_plan_event event = {
        .kind = KILN_PLAN_CANDIDATE, .key.action = record.action_digest, .executor = author.principal,
        .incarnation = author.incarnation, .job = record.job, .attempt = record.attempt};
    const struct kiln_occasion occasion = {.candidate = &record, .author = &author, .ack = ack};
    return kiln_docket_step(docket, &event, &occasion, err);
}

// By the incarnation that is to read it.
static uint32_t work_partition(const struct kiln_docket *docket, const struct kiln_job_id *incarnation) {
    struct kiln_digest digest = {{0}};
    memcpy(digest.bytes, incarnation->bytes, sizeof incarnation->bytes);
    uint32_t partitions = kiln_bus_partitions(docket->options.bus, KILN_TOPIC_WORK);
    const uint8_t *b = digest.bytes;
    return ((uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3]) % (partitions ? partitions : 1);
}

static int enter_run(struct kiln_docket *docket, const char *event, const struct kiln_sheet *sheet,
                     const struct kiln_job_id *job, const char *executor, const char *pool, uint32_t attempt,
                     const char *detail, struct kiln_err *err) {
    const struct kiln_chronicle_entry entry = {.event = event, .action = &sheet->key.action, .job = job,
                                               .scope = sheet->key.scope, .executor = executor, .pool = pool,
                                               .attempt = attempt, .detail = detail};
    kiln_docket_log(KILN_LOG_INFO, event, job, &sheet->key.action, detail ? detail : executor);
    return kiln_chronicle_enter(&docket->chronicle, &entry, err);
}

int kiln_docket_dispatch(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_plan_action *action,
                         struct kiln_err *err) {
    if (!sheet->basis)
        return kiln_fail(err, KILN_E_INTERNAL, "a job was dispatched before its content was complete");
    const struct kiln_job_submitted *from = &sheet->basis->record;
    const struct kiln_work work = {
        .job = action->job, .incarnation = action->incarnation, .credit = action->credit, .attempt = action->attempt,
        .lease_ms = action->lease_ms, .action_digest = sheet->key.action, .action = from->action,
        .action_len = from->action_len, .contents = from->contents, .contents_count = from->contents_count,
        .scope = sheet->key.scope,
    };
    const struct kiln_state_flight_note note = {.key = &sheet->key, .attempt = action->attempt,
                                                .troubles = action->troubles, .job = &action->job,
                                                .incarnation = &action->incarnation, .executor = action->executor,
                                                .pool = action->pool};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    int rc = kiln_work_encode(&work, &record, err);
    if (!rc)
        rc = kiln_chronicle_publish(docket->options.bus, KILN_TOPIC_WORK, work_partition(docket, &action->incarnation),
                                    action->incarnation.bytes, sizeof action->incarnation.bytes, &record, err);
    if (rc == KILN_E_LIMIT || rc == KILN_E_INVAL)
        rc = 0; // its lease runs out
    sheet->attempts = action->attempt > sheet->attempts ? action->attempt : sheet->attempts;
    docket->counts.dispatched++;
    if (!rc)
        rc = kiln_state_put_flight(&docket->state, &note, err);
    if (rc && rc != KILN_E_LIMIT) // unwritten: after a crash it is dispatched once more
        return rc;
    return enter_run(docket, "dispatched", sheet, &action->job, action->executor, action->pool, action->attempt, NULL, err);
}

int kiln_docket_discard(struct kiln_docket *docket, const struct kiln_plan_action *action,
                        const struct kiln_occasion *occasion, struct kiln_err *err) {
    const struct kiln_candidate *candidate = occasion->candidate;
    char reason[256];
    snprintf(reason, sizeof reason, "not_dispatched: %s", action->reason ? action->reason : "no such run is awaited");
    if (!candidate) // a lease
        return kiln_docket_refuse(docket, occasion->author, reason, err);
    const struct kiln_chronicle_entry entry = {
        .event = "discarded", .action = &candidate->action_digest, .job = &candidate->job,
        .executor = occasion->author->principal, .pool = occasion->author->pool, .attempt = candidate->attempt,
        .detail = reason};
    kiln_docket_log(KILN_LOG_INFO, "candidate_discarded", &candidate->job, &candidate->action_digest, reason);
    int rc = kiln_docket_sweep_outputs(docket, candidate, err);
    if (!rc)
        rc = kiln_chronicle_enter(&docket->chronicle, &entry, err);
    return rc ? rc : kiln_docket_refuse(docket, occasion->author, reason, err);
}

// A candidate on its way to a judgement.
struct trial {
    struct kiln_task task;
    struct kiln_docket *docket;
    struct kiln_sheet *sheet;
    struct kiln_submission_kept *basis;
    struct kiln_run_kept *run;
    struct kiln_judgement judgement;
    struct kiln_digest digest; // of what agreement is about
    bool lied;                 // the candidate's own fault; else `rc` is trouble of this side
    int rc;
    struct kiln_err why;
};

// Outcome and outputs; for a result that sends everybody home, the reasons.
static int digest_result(const struct kiln_result *result, struct kiln_digest *digest, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RESULT_BYTES_MAX);
    struct kiln_digest outputs;
    int rc = kiln_result_outputs_digest(result->outputs, result->outputs_count, &outputs, err);
    kiln_buf_add_u8(&bytes, (uint8_t)result->outcome);
    kiln_buf_add(&bytes, outputs.bytes, sizeof outputs.bytes);
    for (size_t i = 0; i < result->reasons_count; i++)
        kiln_buf_add_field_str(&bytes, result->reasons[i]);
    if (!rc)
        rc = kiln_buf_check(&bytes, "a result", err);
    if (!rc)
        kiln_digest_of(bytes.data, bytes.len, digest);
    return rc;
}

// KILN_E_DENIED "attestation: ..." unless the author signed for these outputs with its record key.
static int check_attestation(const struct trial *trial, struct kiln_err *err) {
    const struct kiln_author *author = &trial->run->author;
    struct kiln_principal principal;
    struct kiln_attestation attestation;
    if (!trial->docket->fleet)
        return 0;
    if (!kiln_keeper_find(trial->docket->authority.keeper, author->principal, &principal))
        return kiln_fail(err, KILN_E_DENIED, "attestation: %s is no principal any more", author->principal);
    int rc = kiln_candidate_attestation(&trial->run->candidate, &attestation, err);
    if (!rc)
        rc = kiln_attestation_check(&attestation, &trial->run->candidate.action_digest, principal.record_key, err);
    return rc && !kiln_docket_is_fatal(rc)
               ? kiln_fail(err, KILN_E_DENIED, "attestation: %s did not sign for these outputs", author->principal)
               : rc;
}

static void run_trial(struct kiln_task *task) {
    struct trial *trial = (struct trial *)task;
    const struct kiln_docket *docket = trial->docket;
    const struct kiln_judge bench = {.store = docket->options.store, .scratch_dir = docket->options.scratch_dir, .scope = trial->sheet->key.scope,
                                     .generation = kiln_authority_generation(&docket->authority),
                                     .now_ms = kiln_clock_wall_ms(), .closure = trial->basis->record.closure,
                                     .closure_count = trial->basis->record.closure_count};
    trial->rc = kiln_authority_valid(&docket->authority, &trial->why); // without it nobody is known
    if (trial->rc)
        return;
    trial->rc = check_attestation(trial, &trial->why);
    trial->lied = trial->rc == KILN_E_DENIED;
    if (!trial->rc)
        trial->rc = kiln_judge(&bench, &trial->run->candidate, &trial->sheet->action, &trial->judgement, &trial->why);
    if (!trial->rc && trial->judgement.verdict == KILN_PLAN_STORED)
        trial->rc = digest_result(&trial->judgement.result, &trial->digest, &trial->why);
}

static int on_judged(struct kiln_docket *docket, struct trial *trial, struct kiln_err *err) {
    struct kiln_run_kept *run = trial->run;
    struct kiln_sheet *sheet = trial->sheet;
    if (kiln_docket_is_fatal(trial->rc))
        return kiln_fail(err, trial->rc, "%s", trial->why.text);
    char reason[sizeof trial->why.text + 16];
    snprintf(reason, sizeof reason, "%s%s", trial->rc == KILN_E_DENIED ? "" : "storage: ", trial->why.text);
    run->judgement = trial->judgement;
    trial->judgement = (struct kiln_judgement){0};
    if (kiln_docket_agreement(docket, sheet->key.scope) > 1)
        kiln_harvest_release(&run->judgement.harvest); // it may wait for the others for long
    bool lied = trial->lied;
    struct kiln_plan_event event = {
        .kind = KILN_PLAN_JUDGED, .key = sheet->key, .attempt = run->candidate.attempt, .digest = trial->digest,
        .verdict = !trial->rc ? run->judgement.verdict : lied ? KILN_PLAN_AGAIN : KILN_PLAN_LOCALLY,
        .reason = trial->rc ? reason : run->judgement.reason};
    char hex[17];
    format_hex(&trial->digest, hex);
    docket->counts.judged++;
    int rc = enter_run(docket, "judged", sheet, &run->candidate.job, run->author.principal, run->author.pool,
                       run->candidate.attempt, event.reason ? event.reason : hex, err);
    // What is no honest run's outcome is told of by name.
    if (!rc && (lied || (event.reason && (strncmp(event.reason, "form:", 5) == 0 || strncmp(event.reason, "outputs:", 8) == 0))))
        rc = kiln_docket_refuse(docket, &run->author, event.reason, err);
    return rc ? rc : kiln_docket_step(docket, &event, NULL, err);
}

static int finish_trial(struct kiln_task *task, void *context, struct kiln_err *err) {
    struct trial *trial = (struct trial *)task;
    struct kiln_docket *docket = context;
    int rc = !task->ran || trial->sheet->dropped ? 0 : on_judged(docket, trial, err);
    kiln_sheet_let_go(&docket->sheets, trial->sheet, trial->basis);
    kiln_judgement_release(&trial->judgement);
    free(trial);
    return rc;
}

int kiln_docket_judge(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_occasion *occasion,
                      struct kiln_err *err) {
    struct trial *trial = calloc(1, sizeof *trial);
    struct kiln_run_kept *run =
        trial ? kiln_sheet_add_run(sheet, occasion->candidate, occasion->author, *occasion->ack) : NULL;
    if (!run || !sheet->basis) {
        free(trial);
        return run ? kiln_fail(err, KILN_E_INTERNAL, "a run of a flight without a basis") : kiln_fail(err, KILN_E_NOMEM, "no memory for a run");
    }
    *occasion->ack = NULL;
    sheet->executed = run->candidate.job;
    *trial = (struct trial){.task = {.kind = KILN_TASK_SHORT, .run = run_trial, .finish = finish_trial},
                            .docket = docket, .sheet = sheet, .basis = sheet->basis, .run = run};
    kiln_sheet_hold(sheet, sheet->basis);
    kiln_crew_give(docket->crew, &trial->task);
    return 0;
}

// A result on its way into the vault.
struct filing {
    struct kiln_task task;
    struct kiln_docket *docket;
    struct kiln_sheet *sheet;
    struct kiln_run_kept *run; // whose outputs are stored
    struct kiln_result result;
    char **keys;               // of its outputs in quarantine; ended by NULL
    struct kiln_harvest harvest; // instead, with a store that wants bundles
    struct kiln_vault_entry entry;
    int rc;
    struct kiln_err why;
};

static void release_filing(struct filing *filing) {
    for (size_t i = 0; filing->keys && filing->keys[i]; i++)
        free(filing->keys[i]);
    free(filing->keys);
    kiln_harvest_release(&filing->harvest);
    kiln_result_release(&filing->result);
    kiln_vault_entry_release(&filing->entry);
    free(filing);
}

// With a store that wants bundles: the outputs, when they were not kept since the judgement.
static int fetch(struct filing *filing, struct kiln_err *err) {
    const struct kiln_docket_options *options = &filing->docket->options;
    if (filing->harvest.members || !filing->result.outputs_count || !kiln_store_wants_bundles(options->store))
        return 0;
    kiln_autofree char *key = kiln_candidate_bundle_key(&filing->run->candidate);
    int rc = key ? kiln_harvest_fetch(options->store, options->scratch_dir, key, &filing->result, &filing->harvest, err)
                 : kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
    return rc == KILN_E_LIMIT ? KILN_E_CORRUPT : rc;
}

static void run_filing(struct kiln_task *task) {
    struct filing *filing = (struct filing *)task;
    const struct kiln_docket *docket = filing->docket;
    filing->rc = kiln_authority_valid(&docket->authority, &filing->why); // it may have ended since
    if (!filing->rc)
        filing->rc = kiln_authority_may_make(&docket->authority, &filing->sheet->key.action, &filing->sheet->action, &filing->why);
    if (!filing->rc)
        filing->rc = fetch(filing, &filing->why);
    if (filing->rc)
        return;
    const struct kiln_vault_source source = {.keys = filing->keys, .harvest = &filing->harvest};
    uint64_t now_ms = kiln_clock_wall_ms();
    filing->result.generation = kiln_authority_generation(&docket->authority);
    filing->result.issued_ms = now_ms;
    filing->rc = kiln_vault_store(&docket->options.vault, now_ms, &filing->result, &source, &filing->entry, &filing->why);
}

// What is written down about a result that is stored and announced; the sheet is only held now.
static int enter_stored(struct kiln_docket *docket, const struct filing *filing, struct kiln_err *err) {
    const struct kiln_sheet *sheet = filing->sheet;
    const struct kiln_run_kept *run = filing->run;
    const struct kiln_chronicle_entry entry = {
        .event = "stored", .action = &sheet->key.action, .job = &run->candidate.job, .scope = sheet->key.scope,
        .executor = run->author.principal, .pool = run->author.pool, .attempt = run->candidate.attempt,
        .envelope = &sheet->envelope};
    int rc = kiln_chronicle_enter(&docket->chronicle, &entry, err);
    if (!rc && filing->entry.diverges) {
        docket->counts.diverged++;
        rc = kiln_chronicle_tell(&docket->chronicle, "alert", "divergence", run->author.principal,
                                 "a later result differs from the one that is stored", err);
    }
    if (!rc && filing->entry.shadowed)
        rc = kiln_chronicle_tell(&docket->chronicle, "alert", "shadowed_pointer", sheet->key.scope,
                                 "something stood over a stored result", err);
    return rc;
}

// A broker takes the records of one connection one after the other: first those that somebody waits for.
static int on_filed(struct kiln_docket *docket, struct filing *filing, struct kiln_err *err) {
    struct kiln_sheet *sheet = filing->sheet;
    const struct kiln_run_kept *run = filing->run;
    int rc = 0;
    if (kiln_docket_is_fatal(filing->rc))
        return kiln_fail(err, filing->rc, "%s", filing->why.text);
    char reason[sizeof filing->why.text + 16];
    const char *word = filing->rc == KILN_E_DENIED ? "" : filing->rc == KILN_E_CORRUPT ? "outputs: " : "storage: ";
    snprintf(reason, sizeof reason, "%s%s", word, filing->why.text);
    struct kiln_plan_event event = {.kind = KILN_PLAN_FILED, .key = sheet->key, .attempt = run->candidate.attempt,
                                    .verdict = KILN_PLAN_STORED};
    if (filing->rc) {
        event.verdict = filing->rc == KILN_E_CORRUPT ? KILN_PLAN_AGAIN : KILN_PLAN_LOCALLY;
        event.reason = reason;
        if (filing->rc == KILN_E_CORRUPT)
            rc = kiln_docket_refuse(docket, &run->author, reason, err);
    } else {
        docket->counts.stored++;
        kiln_buf_release(&sheet->envelope);
        sheet->envelope = filing->entry.envelope;
        filing->entry.envelope = (struct kiln_buf){0};
    }
    kiln_docket_log(filing->rc ? KILN_LOG_WARN : KILN_LOG_INFO, "filed", &run->candidate.job, &sheet->key.action,
                    filing->rc ? reason : "stored");
    if (!rc)
        rc = kiln_docket_step(docket, &event, NULL, err);
    return rc || filing->rc ? rc : enter_stored(docket, filing, err);
}

// The libraries of a stored result on their way into the inputs: after the answer, which does not wait for them.
struct sharing {
    struct kiln_task task;
    const struct kiln_vault *vault;
    struct kiln_result result;
    struct kiln_harvest harvest;
};

static void run_sharing(struct kiln_task *task) {
    struct sharing *sharing = (struct sharing *)task;
    struct kiln_err why = {0};
    if (kiln_vault_share(sharing->vault, &sharing->result, &sharing->harvest, &why)) // then dependants upload them
        kiln_log(KILN_LOG_WARN, "not_shared", "error", why.text, NULL);
}

static int finish_sharing(struct kiln_task *task, void *context, struct kiln_err *err) {
    struct sharing *sharing = (struct sharing *)task;
    (void)context, (void)err;
    kiln_harvest_release(&sharing->harvest);
    kiln_result_release(&sharing->result);
    free(sharing);
    return 0;
}

static int share(struct kiln_docket *docket, struct filing *filing, struct kiln_err *err) {
    if (filing->rc || filing->entry.diverges || !filing->harvest.members)
        return 0;
    struct sharing *sharing = calloc(1, sizeof *sharing);
    if (!sharing)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for libraries");
    *sharing = (struct sharing){.task = {.kind = KILN_TASK_SHORT, .run = run_sharing, .finish = finish_sharing},
                                .vault = &docket->options.vault, .result = filing->result, .harvest = filing->harvest};
    filing->result = (struct kiln_result){0};
    filing->harvest = (struct kiln_harvest){0};
    kiln_crew_give(docket->crew, &sharing->task);
    return 0;
}

static int finish_filing(struct kiln_task *task, void *context, struct kiln_err *err) {
    struct filing *filing = (struct filing *)task;
    struct kiln_docket *docket = context;
    struct kiln_sheet *sheet = filing->sheet;
    int rc = !task->ran || sheet->dropped ? 0 : on_filed(docket, filing, err);
    if (!rc && task->ran)
        rc = share(docket, filing, err);
    release_filing(filing);
    kiln_sheet_let_go(&docket->sheets, sheet, NULL);
    return rc;
}

// The attestations of the others that agree, and what was asked for.
static int close_result(struct kiln_docket *docket, const struct kiln_sheet *sheet, const struct kiln_plan_action *action,
                        struct kiln_result *result, struct kiln_err *err) {
    char *policy = NULL;
    if (asprintf(&policy, "agreement=%u", kiln_docket_agreement(docket, sheet->key.scope)) < 0)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a result");
    free(result->policy);
    result->policy = policy;
    int rc = 0;
    for (size_t i = 0; !rc && i < action->runs_count; i++) {
        const struct kiln_run_kept *other = kiln_sheet_find_run(sheet, action->runs[i].attempt);
        if (action->runs[i].attempt == action->attempt || !other || !other->judgement.result.attestations_count)
            continue;
        rc = kiln_result_add_attestation(result, &other->judgement.result.attestations[0], err);
    }
    return rc ? rc : kiln_result_finish(result, err);
}

static int make_keys(struct filing *filing, struct kiln_err *err) {
    filing->keys = calloc(filing->result.outputs_count + 1, sizeof *filing->keys);
    for (size_t i = 0; filing->keys && i < filing->result.outputs_count; i++) {
        filing->keys[i] = kiln_candidate_key(&filing->run->candidate, &filing->result.outputs[i].digest);
        if (!filing->keys[i])
            return kiln_fail(err, KILN_E_NOMEM, "no memory for a key");
    }
    return filing->keys ? 0 : kiln_fail(err, KILN_E_NOMEM, "no memory for keys");
}

int kiln_docket_store(struct kiln_docket *docket, struct kiln_sheet *sheet, const struct kiln_plan_action *action,
                      struct kiln_err *err) {
    struct kiln_run_kept *run = kiln_sheet_find_run(sheet, action->attempt);
    struct filing *filing = run ? calloc(1, sizeof *filing) : NULL;
    if (!filing)
        return kiln_fail(err, run ? KILN_E_NOMEM : KILN_E_INTERNAL, "a run that is to be stored is not there");
    *filing = (struct filing){.task = {.kind = KILN_TASK_SHORT, .run = run_filing, .finish = finish_filing},
                              .docket = docket, .sheet = sheet, .run = run, .result = run->judgement.result,
                              .harvest = run->judgement.harvest};
    run->judgement.result = (struct kiln_result){0};
    run->judgement.harvest = (struct kiln_harvest){0};
    int rc = close_result(docket, sheet, action, &filing->result, err);
    if (!rc)
        rc = make_keys(filing, err);
    if (rc) {
        release_filing(filing);
        return rc;
    }
    kiln_sheet_hold(sheet, NULL);
    kiln_crew_give(docket->crew, &filing->task);
    return 0;
}

// Once undecided, and once more when it is known who was alone with its own.
int kiln_docket_diverged(struct kiln_docket *docket, const struct kiln_plan_action *action, struct kiln_err *err) {
    static const char *const parts[] = {[KILN_PLAN_UNDECIDED] = "undecided", [KILN_PLAN_AGREES] = "agrees",
                                        [KILN_PLAN_DISSENTS] = "dissents"};
    int rc = 0;
    docket->counts.diverged++;
    for (size_t i = 0; !rc && i < action->runs_count; i++) {
        const struct kiln_plan_run *run = &action->runs[i];
        char hex[17], action_hex[17], detail[256];
        format_hex(&run->digest, hex);
        format_hex(&action->key.action, action_hex);
        snprintf(detail, sizeof detail, "%s: executor %s of pool %s gave %s for action %s", parts[run->part], run->executor,
                 run->pool, kiln_digest_is_zero(&run->digest) ? "no result" : hex, action_hex);
        const struct kiln_chronicle_entry entry = {.event = "diverged", .action = &action->key.action, .job = &action->job,
                                                   .scope = action->key.scope, .executor = run->executor,
                                                   .pool = run->pool, .attempt = run->attempt, .detail = detail};
        rc = kiln_chronicle_enter(&docket->chronicle, &entry, err);
        if (!rc)
            rc = kiln_chronicle_tell(&docket->chronicle, run->part == KILN_PLAN_AGREES ? "info" : "alert", "divergence",
                                     run->executor, detail, err);
    }
    return rc;
}

// Executors read all partitions of the work topic. On the embedded bus there is one executor, and it gives what it has.
int kiln_docket_demand(struct kiln_docket *docket, const struct kiln_plan_action *action, struct kiln_err *err) {
    if (!docket->fleet)
        return 0;
    const struct kiln_demand demand = {.partition = action->partition, .count = action->count ? action->count : 1,
                                       .at_ms = kiln_clock_wall_ms()};
    kiln_autobuf struct kiln_buf record = KILN_BUF_INIT(KILN_RECORD_BYTES_MAX);
    struct kiln_err why = {0};
    uint32_t partitions = kiln_bus_partitions(docket->options.bus, KILN_TOPIC_WORK);
    int rc = kiln_demand_encode(&demand, &record, err);
    if (rc)
        return rc;
    rc = kiln_bus_publish(docket->options.bus, KILN_TOPIC_WORK, action->partition % (partitions ? partitions : 1), "demand", 6,
                          record.data, record.len, &why);
    return rc == KILN_E_CLOSED || rc == KILN_E_DENIED ? kiln_fail(err, KILN_E_CLOSED, "%s", why.text) : 0;
}
